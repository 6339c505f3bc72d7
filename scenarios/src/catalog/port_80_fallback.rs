//! Sessions and transfers on the ports of the web.

use crate::scenario::{Browser, Client, Scenario};

/// Two clients that look like browsers until they speak, and two real users on the same ports.
pub(super) fn scenario() -> Scenario {
    Scenario::new("port_80_fallback", "opener and transfer on ports 80 and 443", 3)
        .with(Client::new(1, "port80").args(["--transfer-port", "80"]))
        .with(Client::new(2, "port80").args(["--transfer-port", "443"]))
        .with(Browser::new(3, "http1,http_keep_alive,http10,tls_h1,tls_h2", 25))
}
