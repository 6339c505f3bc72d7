//! A client that believes it is blocked and tries every way it knows.

use std::time::Duration;

use simulator::report::Mode;

use crate::scenario::{Browser, Client, Scenario};

/// Each way is tried for two seconds (20 s at a tenth of the time), four ways and the first again.
const WINDOW: Duration = Duration::from_secs(10);

/// Without forged replies the client soon sees that UDP is dead and goes on to TCP and port 80.
pub(super) fn scenario() -> Scenario {
    let mut scenario = Scenario::new(
        "mode_switching",
        "unanswered, a Kazaa client goes from UDP to parallel TCP, serial TCP and port 80",
        2,
    )
    .with(Client::new(1, "kazaa").entering([Mode::ParallelTcp, Mode::SerialTcp, Mode::Port80]))
    .with(Browser::new(2, "http1,tls_h1", 20));
    scenario.ftwall = ["--reply", "none", "--no-reprobe"].map(str::to_owned).into();
    scenario.window = WINDOW;
    scenario
}
