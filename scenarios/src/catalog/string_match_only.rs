//! Rules of the kind ipp2p had, shown to fail.

use crate::device::Device;
use crate::judge::Expectation;
use crate::level::Level;
use crate::scenario::{Browser, Client, Scenario};

/// Nothing in a handshake is a string; sessions come up although pongs and transfers are matched.
pub(super) fn scenario() -> Scenario {
    let mut scenario =
        Scenario::new("string_match_only", "matching strings in packets does not stop sessions", 3)
            .with(Client::new(1, "kazaa"))
            .with(Client::new(2, "gift"))
            .with(Browser::new(3, "http1,tls_h1", 16));
    scenario.pinned = Some(Device::StringMatch);
    scenario.expectation = Expectation::Breached(Level::Session);
    scenario
}
