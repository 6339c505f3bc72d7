//! A Kazaa client starts: a flood of pings to its whole cache, then dials to whoever answers.

use crate::scenario::{Browser, Client, Scenario};

/// A client with 200 cached addresses, and a neighbour who browses.
pub(super) fn scenario() -> Scenario {
    Scenario::new(
        "cold_start",
        "a Kazaa client floods its cache with pings and dials who answers",
        2,
    )
    .with(Client::new(1, "kazaa"))
    .with(Browser::new(2, "http1,tls_h1,tls_h2,dns_udp", 24))
}
