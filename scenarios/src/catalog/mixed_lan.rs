//! Fifty hosts, ten of them infected, one gateway.

use std::time::Duration;

use crate::scenario::{Browser, Client, Scenario};

/// Hosts in the office.
const HOSTS: usize = 50;

/// The families of the infected hosts, one host each.
const INFECTED: [&str; 10] = [
    "kazaa", "kazaalite", "imesh", "grokster", "gift", "mldonkey", "silent", "port80",
    "http-only", "uploader",
];

/// What the others do, in turn.
const HABITS: [&str; 4] = ["http1", "tls_h1", "http_keep_alive", "dns_udp"];

/// Every family at once, and forty users who must not notice.
pub(super) fn scenario() -> Scenario {
    let mut scenario =
        Scenario::new("mixed_lan", "fifty hosts, ten of them infected by ten families", HOSTS);
    for (place, family) in INFECTED.into_iter().enumerate() {
        scenario = scenario.with(Client::new(place + 1, family));
    }
    for host in INFECTED.len() + 1..=HOSTS {
        let habit = HABITS[host % HABITS.len()];
        let user = Browser { interval: Duration::from_millis(400), ..Browser::new(host, habit, 8) };
        scenario = scenario.with(user);
    }
    scenario
}
