//! Small networks of Linux namespaces: described as data, ordered into a plan, then built.
//!
//! ```text
//! Topology ── plan() ──> Plan ── apply() ──> Lab { Node .. }
//!  what is wished         ordered steps,      namespaces that live as long as the value:
//!  (presets write it)     printable, pure     run programs, capture frames, read wires
//! ```
//!
//! A lab is meant to stand inside a [`capsule`]: a process tree with user, network, mount and process
//! namespaces of its own. That makes root needless, lets many labs stand side by side, and leaves
//! nothing behind whatever happens to the process that wanted it.
//!
//! ```no_run
//! use std::time::Duration;
//! use lab::{Spec, presets::{Office, office}};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // inside a capsule
//! let lab = office(&Office { clients: 3, ..Office::default() }).plan()?.apply()?;
//! let wan = lab.capture("gw", "wan0")?;
//! let mut server = lab.node("out").spawn(&Spec::new("some-server").arg("--port=80"))?;
//! server.wait_line(|line| line.contains("ready"), Duration::from_secs(5))?;
//! let fetch = lab.node("client1").run(&Spec::new("curl").arg("http://203.0.113.80/"))?;
//! assert!(fetch.success());
//! server.stop(Duration::from_secs(2))?;
//! wan.stop()?.write_pcap("wan.pcap")?;
//! # Ok(())
//! # }
//! ```
//!
//! What each file may know: [`topology`] and [`plan`] are pure; `apply` executes; `netlink` alone names
//! rtnetlink, `netns` alone enters namespaces, `packet_socket` alone opens packet sockets.

mod admin;
mod apply;
mod capture;
mod live;
mod netlink;
mod netns;
mod packet_socket;
mod pcap;
mod process;
mod sysctl;

pub mod capsule;
pub mod plan;
pub mod presets;
pub mod requirements;
pub mod topology;
pub mod wire;

pub use admin::AdminRules;
pub use apply::ApplyError;
pub use capture::{Capture, CaptureError, Frame, Frames, Heading};
pub use live::{Lab, Node};
pub use plan::{Plan, Step};
pub use process::{Line, Output, Process, ProcessError, Signal, Spec, Stopped, Stream};
pub use requirements::{Feature, Requirements};
pub use sysctl::Sysctl;
pub use topology::{End, Role, Topology, TopologyError};
pub use wire::{WireReport, WireSettings};
