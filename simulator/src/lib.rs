//! Synthetic FastTrack peers and a control group of ordinary web traffic.

pub mod clock;
pub mod report;
pub mod reporter;
