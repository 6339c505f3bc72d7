//! Keeps FastTrack peer-to-peer clients (Kazaa, iMesh, Grokster, giFT, mldonkey) from making contact
//! through a Linux gateway, and leaves the web alone.
//!
//! The core is sans-IO: [`Engine`] takes packets, the time and a seed as arguments and answers with
//! a [`Verdict`], [`Action`]s for the shell to carry out and [`Event`]s to report. It reads no
//! clock, opens nothing and holds no lock, so that a capture, a virtual network and a live queue
//! drive the same code.
//!
//! ```text
//!   packet ──> packet.rs ──> flow.rs ──> protocol/* ──> policy.rs ──> verdict
//!              checked       first       evidence       evidence +
//!              view          bytes       or proof       suspects
//! ```
//!
//! The shell around it (queues, kernel rules, captures, the command line) lives in `gateway` and
//! needs the feature of that name.

pub mod config;
mod engine;
mod event;
pub mod evidence;
mod expiring;
mod flow;
mod link;
pub mod packet;
mod policy;
pub mod protocol;
mod suspects;
mod timestamp;
mod verdict;

#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;

#[cfg(feature = "bench")]
pub mod bench;
#[cfg(feature = "gateway")]
pub mod cli;
#[cfg(feature = "gateway")]
pub mod control;
#[cfg(feature = "gateway")]
pub mod gateway;
#[cfg(feature = "http")]
pub mod http;
#[cfg(feature = "gateway")]
pub mod state;
#[cfg(feature = "tui")]
pub mod top;
#[cfg(feature = "webhook")]
pub mod webhook;

pub use config::EngineConfig;
pub use engine::{
    Action, Block, BlockError, Conntrack, Counters, Engine, Explanation, Hearsay, Incident,
    Ingress, KnownPeer, Lifted, LockedClient, Occupancy, PolicyChoice, Remembered, Subject, Test,
};
pub use event::{Details, Event, EventType, PacketEnds, Refusal, VerdictDetails};
pub use evidence::Evidence;
pub use link::{HardwareAddress, InterfaceName, Link, Place};
pub use suspects::Origin;
pub use timestamp::Timestamp;
pub use verdict::{ClearReason, DropReason, PassReason, TolerateReason, Verdict};
