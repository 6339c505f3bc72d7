//! The hosts hide behind the gateway's address.

use crate::scenario::{Browser, Client, Office, Scenario};

/// Two families behind NAT, with a user beside them.
pub(super) fn scenario() -> Scenario {
    let mut scenario = Scenario::new("nat", "the hosts hide behind the gateway's own address", 3)
        .with(Client::new(1, "kazaa"))
        .with(Client::new(2, "gift"))
        .with(Browser::new(3, "http1,tls_h1,dns_udp", 21));
    scenario.office = Office { nat: true, ..scenario.office };
    scenario
}
