//! Sockets for the state machines: takes one thing that happened, hands it in, does everything asked
//! for, and sleeps until the next thing is due.
//!
//! | file | what it holds |
//! |---|---|
//! | `client.rs`, `peers.rs` | the two loops |
//! | `connection.rs` | one TCP connection: connect, read, write in segments, close |
//! | `datagram.rs` | UDP that knows which of many local addresses was hit, and pings in IP fragments |

mod client;
mod connection;
mod datagram;
mod peers;

use std::time::Duration;

pub use client::{ClientRun, run_client};
pub use peers::{PeersRun, run_peers};

use crate::clock::Clock;

/// Sleeps until an instant of the clock, or for ever.
async fn sleep_until(clock: Clock, due: Option<Duration>) {
    match due {
        Some(due) => tokio::time::sleep_until(clock.instant(due).into()).await,
        None => std::future::pending().await,
    }
}
