//! The benign zoo: everything that resembles FastTrack in some way and is not.

use crate::scenario::{Browser, Scenario};

/// Nobody is infected; whatever is dropped is dropped wrongly.
pub(super) fn scenario() -> Scenario {
    Scenario::new("web_only", "ordinary traffic of every kind, nobody infected", 2)
        .with(Browser::new(1, "all", 52))
        .with(Browser::new(2, "all", 52))
}
