//! One dial at a time and no datagram: the quietest way in.

use crate::scenario::{Browser, Client, Scenario};

/// A client in the traditional mode from the start.
pub(super) fn scenario() -> Scenario {
    Scenario::new("sequential_dial", "one dial at a time and no datagram", 2)
        .with(Client::new(1, "sequential"))
        .with(Browser::new(2, "http1,tls_h1", 20))
}
