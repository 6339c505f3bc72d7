//! Synthetic FastTrack peers and a control group of ordinary web traffic.

pub mod report;
