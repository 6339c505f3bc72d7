//! Who acts in every round: each family of clients, and users who must not notice.

use std::time::Duration;

use simulator::profile::PROFILES;

use crate::scenario::{Browser, Client, Scenario};

/// What clean hosts do, one host each.
const HABITS: [&str; 4] = [
    "http1,tls_h1",
    "http_keep_alive,tls_h2,http_bytes",
    "dns_udp,dns_tcp,quic,ntp",
    "ssh_banner,smtp_banner,modbus,nomachine",
];

/// How long a round is: enough for a client to go through all its ways and begin anew.
const WINDOW: Duration = Duration::from_secs(10);

/// Time between the beginnings of two requests of a user.
const INTERVAL: Duration = Duration::from_millis(150);

/// A round.
#[must_use]
pub fn round() -> Scenario {
    round_lasting(WINDOW)
}

/// A round that takes so long.
#[must_use]
pub fn round_lasting(window: Duration) -> Scenario {
    let hosts = PROFILES.len() + HABITS.len();
    let mut scenario = Scenario::new(
        "soak",
        "every family by every means, users beside them",
        hosts,
    );
    for (place, profile) in PROFILES.iter().enumerate() {
        scenario = scenario.with(Client::new(place + 1, profile.name));
    }
    for (place, habit) in HABITS.into_iter().enumerate() {
        let requests = window.as_millis() / INTERVAL.as_millis();
        let requests = u32::try_from(requests).expect("a window holds few requests");
        let user = Browser::new(PROFILES.len() + place + 1, habit, requests);
        scenario = scenario.with(Browser {
            interval: INTERVAL,
            ..user
        });
    }
    scenario.window = window;
    scenario
}
