//! SYNs before the first ping: nothing has been learnt when the first dial arrives.

use crate::scenario::{Browser, Client, Scenario};

/// A giFT client dials five peers at once and pings others beside it.
pub(super) fn scenario() -> Scenario {
    Scenario::new("parallel_dial", "giFT dials five peers before it pings the first", 2)
        .with(Client::new(1, "gift"))
        .with(Browser::new(2, "http1,tls_h1", 20))
}
