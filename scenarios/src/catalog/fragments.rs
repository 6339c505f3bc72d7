//! Pings that arrive as IP fragments.

use crate::scenario::{Browser, Client, Scenario};

/// Sixteen octets a fragment: the UDP header, and half a ping behind it.
pub(super) fn scenario() -> Scenario {
    Scenario::new("fragments", "pings cut into IP fragments of sixteen octets", 2)
        .with(Client::new(1, "kazaa").args(["--fragment", "16"]))
        .with(Browser::new(2, "http1,tls_h1,dns_udp", 21))
}
