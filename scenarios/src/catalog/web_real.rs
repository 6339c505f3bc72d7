//! Real programs: Debian's nginx outside, curl inside.

use std::time::Duration;

use lab::requirements::Feature;

use crate::scenario::{Actor, Client, RealWeb, Scenario};

/// Octets of the download that is compared byte for byte.
const DOWNLOAD: u64 = 200 * 1000 * 1000;

/// The downloads take what they take; the infected host stays infected meanwhile.
const WINDOW: Duration = Duration::from_secs(8);

/// HTTP and HTTPS, HTTP/1.1 and HTTP/2, from a clean host and from a locked one.
pub(super) fn scenario() -> Scenario {
    let mut scenario = Scenario::new(
        "web_real",
        "nginx and curl, with a 200 MB download, from a clean host and from a locked one",
        2,
    )
    .with(Client::new(1, "kazaa"))
    .with(RealWeb { hosts: vec![1, 2], download: DOWNLOAD });
    // nginx takes the ports that the simulated servers would have.
    scenario.cast.retain(|actor| !matches!(actor, Actor::WebServer));
    scenario.needs = &[Feature::Nginx, Feature::Curl];
    scenario.window = WINDOW;
    scenario
}
