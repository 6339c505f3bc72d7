//! An inside host forges pings so that the gateway may block somebody's bank.

use crate::scenario::{Browser, Client, Scenario};

/// Pings to the web servers' own addresses and ports, while a neighbour and the forger itself
/// browse there.
pub(super) fn scenario() -> Scenario {
    let bank = "203.0.113.80:443,203.0.113.80:80,203.0.113.80:53";
    Scenario::new("poisoned_learning", "a host forges pings to web servers that others use", 2)
        .with(Client::new(1, "kazaa").args(["--forge-pings", bank]))
        .with(Browser::new(1, "http1,tls_h1,tls_h2,dns_udp,dns_tcp", 30))
        .with(Browser::new(2, "http1,tls_h1,tls_h2,quic,dns_udp,dns_tcp", 36))
}
