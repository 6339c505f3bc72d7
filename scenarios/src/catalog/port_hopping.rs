//! Never the same port twice, on either side.

use crate::scenario::{Browser, Client, Scenario};

/// A client for which a list of ports, or of addresses with ports, is always a step behind.
pub(super) fn scenario() -> Scenario {
    Scenario::new("port_hopping", "a client that changes ports at every attempt", 2)
        .with(Client::new(1, "port-hopper"))
        .with(Browser::new(2, "http1,tls_h1", 20))
}
