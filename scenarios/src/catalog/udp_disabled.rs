//! UDP is shut off on the workstation, so no ping ever tells the client.

use simulator::profile::Opener;

use crate::scenario::{Browser, Client, Scenario};

/// An open client behind a personal firewall: its opener is always the same twelve bytes.
pub(super) fn scenario() -> Scenario {
    Scenario::new("udp_disabled", "no UDP; the opener every open client sends is all there is", 2)
        .with(Client::new(1, "silent").opener(Opener::Constant))
        .with(Browser::new(2, "http1,tls_h1", 20))
}
