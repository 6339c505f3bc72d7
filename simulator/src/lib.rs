//! Synthetic FastTrack peers and a control group of ordinary web traffic.
//!
//! Clients, dialers, caches and peers are state machines without input or output of their own: they
//! are told the time and what arrived, and asked what to send. `net` gives them sockets.

pub mod clock;
pub mod payload;
pub mod population;
pub mod profile;
pub mod report;
pub mod reporter;
pub mod seed;
pub mod web;
pub mod wire;
