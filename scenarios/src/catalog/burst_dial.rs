//! Fifteen SYNs within a millisecond, the pings right behind them.

use crate::scenario::{Browser, Client, Scenario};

/// An mldonkey client's regular tick.
pub(super) fn scenario() -> Scenario {
    Scenario::new("burst_dial", "mldonkey dials fifteen peers within a millisecond", 2)
        .with(Client::new(1, "mldonkey"))
        .with(Browser::new(2, "http1,tls_h1", 20))
}
