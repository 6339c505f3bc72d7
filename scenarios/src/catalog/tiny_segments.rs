//! Every TCP write in one-byte segments, in both directions.

use crate::scenario::{Actor, Browser, Client, Peers, Scenario};

/// No packet holds more than a byte of anything.
pub(super) fn scenario() -> Scenario {
    let mut scenario =
        Scenario::new("tiny_segments", "every TCP byte in a segment of its own, both ways", 4)
            .with(Client::new(1, "gift").args(["--segment", "1"]))
            .with(Client::new(2, "silent").args(["--segment", "1"]))
            .with(Client::new(3, "uploader").args(["--segment", "1"]))
            .with(Browser::new(4, "http1,http_split_head,tls_h1", 21));
    for actor in &mut scenario.cast {
        if let Actor::Peers(Peers { args }) = actor {
            args.extend(["--segment", "1"].map(str::to_owned));
        }
    }
    scenario
}
