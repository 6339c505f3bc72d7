//! Random openers and no UDP: the least that a first contact can show.

use simulator::profile::Opener;

use crate::scenario::{Browser, Client, Scenario};

/// One client whose openers look encrypted, one whose openers do not even do that.
pub(super) fn scenario() -> Scenario {
    Scenario::new("encrypted_only", "random openers, no UDP, nothing known beforehand", 3)
        .with(Client::new(1, "silent").opener(Opener::Random))
        .with(Client::new(2, "silent").opener(Opener::PlainLooking))
        .with(Browser::new(3, "http1,tls_h1,nomachine,bfcp,modbus,socks4", 24))
}
