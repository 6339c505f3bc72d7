//! The infected host's own web goes on.

use crate::scenario::{Browser, Client, Scenario};

/// A lock concerns a host; what that host proves to be web must pass all the same.
pub(super) fn scenario() -> Scenario {
    Scenario::new("same_host_browses", "the infected host itself browses meanwhile", 1)
        .with(Client::new(1, "kazaa"))
        .with(Browser::new(1, "http1,http_keep_alive,http_bytes,tls_h1,tls_h2,dns_udp,dns_tcp", 35))
}
