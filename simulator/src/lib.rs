//! Synthetic FastTrack peers and a control group of ordinary web traffic.
//!
//! Clients, dialers, caches and peers are state machines without input or output of their own: they
//! are told the time and what arrived, and asked what to send. [`net`] gives them sockets.

pub mod cache;
pub mod cli;
pub mod client;
pub mod clock;
pub mod conversation;
pub mod dialer;
pub mod net;
pub mod payload;
pub mod peer;
pub mod population;
pub mod profile;
pub mod report;
pub mod reporter;
pub mod seed;
pub mod session;
pub mod transfer;
pub mod web;
pub mod wire;
