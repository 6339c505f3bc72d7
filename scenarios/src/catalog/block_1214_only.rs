//! The advice of 2003, shown to fail.

use crate::device::Device;
use crate::judge::Expectation;
use crate::level::Level;
use crate::scenario::{Browser, Client, Scenario};

/// Some 96 % of the peers listen on another port than 1214.
pub(super) fn scenario() -> Scenario {
    let mut scenario = Scenario::new("block_1214_only", "dropping port 1214 does not stop contact", 3)
        .with(Client::new(1, "kazaa"))
        .with(Client::new(2, "gift"))
        .with(Browser::new(3, "http1,tls_h1", 16));
    scenario.pinned = Some(Device::Block1214);
    scenario.expectation = Expectation::Breached(Level::Transfer);
    scenario
}
