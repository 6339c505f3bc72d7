//! Without a filter contact is made: what every other scenario stands on.

use crate::device::Device;
use crate::judge::Expectation;
use crate::level::Level;
use crate::scenario::{Browser, Client, Scenario};

/// Played with no device at all.
pub(super) fn scenario() -> Scenario {
    let mut scenario = Scenario::new("ftwall_off", "no device: contact is made", 3)
        .with(Client::new(1, "kazaa"))
        .with(Client::new(2, "gift"))
        .with(Browser::new(3, "http1,tls_h1", 16));
    scenario.pinned = Some(Device::None);
    scenario.expectation = Expectation::Breached(Level::Transfer);
    scenario
}
