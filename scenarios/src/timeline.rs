//! What happened to each host, in order of time: for drawings, and to compare two stages by.
//!
//! Three voices speak in a timeline. The client says what it tried; the witnesses say how far that
//! got; the device says what it saw and did. The last is shown and compared, and never judged by.

mod device;
mod normalised;
mod reading;

use std::collections::BTreeMap;
use std::net::SocketAddrV4;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use simulator::report::{AttemptKind, Failure, Mode, Part};

pub use normalised::{Aspect, Difference, HostSummary, Learned, Normalised, Which};

use crate::level::Level;
use crate::observe::{Site, Witness};
use crate::record::Record;
use crate::web::End;

/// One run as seen host by host.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timeline {
    /// When the hosts were let loose, in microseconds since the Unix epoch (or since the start of
    /// virtual time): what every other time here is counted from.
    pub began_us: u64,
    /// From the moment the hosts were let loose to the end of the run.
    #[serde(with = "micros", rename = "length_us")]
    pub length: Duration,
    /// Per host, what happened to it, in order of time. Hosts to which nothing happened are left out.
    pub hosts: BTreeMap<String, Vec<Moment>>,
}

/// The timelines of a scenario's two runs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timelines {
    /// Without a device.
    pub off: Timeline,
    /// With the device on.
    pub on: Timeline,
}

/// Something that happened to a host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Moment {
    /// Time since the hosts were let loose.
    #[serde(with = "micros", rename = "at_us")]
    pub at: Duration,
    /// What happened.
    #[serde(flatten)]
    pub what: What,
}

/// What can happen to a host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "snake_case")]
pub enum What {
    // --- the client says ---
    /// It tries to reach a peer.
    Attempt {
        /// How.
        kind: AttemptKind,
        /// Whom.
        peer: SocketAddrV4,
    },
    /// It hands the first payload of a TCP attempt to its socket, which proves nothing yet.
    Sent {
        /// The attempt's kind.
        kind: AttemptKind,
        /// What it sends.
        part: Part,
        /// To whom.
        peer: SocketAddrV4,
    },
    /// An attempt ends without its goal.
    Failed {
        /// The attempt's kind.
        kind: AttemptKind,
        /// Whom it was to reach.
        peer: SocketAddrV4,
        /// Why.
        why: Failure,
    },
    /// It changes its way of looking for the network.
    Mode {
        /// Before.
        from: Mode,
        /// After.
        to: Mode,
    },
    /// A reply arrives that the peer in whose name it came never sent.
    Forged {
        /// In whose name.
        peer: SocketAddrV4,
    },
    /// An ordinary request begins.
    Web {
        /// What is asked for.
        kind: String,
        /// How it ended, and after how long.
        end: End,
    },

    // --- the witnesses say ---
    /// A contact gets to a level for the first time.
    Reached {
        /// The kind of attempt, where the host's own attempt made the contact.
        kind: Option<AttemptKind>,
        /// The level.
        level: Level,
        /// With whom.
        peer: SocketAddrV4,
        /// Who saw it first.
        witness: Witness,
    },

    // --- the device says ---
    /// A packet is dropped.
    Dropped {
        /// Why, by the device's stable name.
        reason: String,
        /// What was recognised, if anything.
        evidence: Option<String>,
        /// The outside end.
        peer: Option<SocketAddrV4>,
    },
    /// More packets were dropped than the device reports one by one.
    Unreported {
        /// How many.
        count: u64,
    },
    /// The host is locked.
    Locked {
        /// On what evidence.
        evidence: Option<String>,
    },
    /// The lock runs out.
    Released,
    /// The locked host is probed.
    Probed,
    /// A peer of the host is learned.
    Learned {
        /// The peer.
        peer: SocketAddrV4,
        /// On what evidence.
        evidence: Option<String>,
    },
    /// A peer of the host is not learned.
    Refused {
        /// The peer.
        peer: SocketAddrV4,
        /// Why not.
        why: String,
    },
    /// A peer of the host is forgotten.
    Forgotten {
        /// The peer.
        peer: SocketAddrV4,
    },
}

impl Timeline {
    /// Reads the timeline of a run out of what it left behind.
    #[must_use]
    pub fn read(site: &Site, record: &Record) -> Self {
        reading::read(site, record)
    }

    /// What must be the same wherever the scenario is played with the same seed.
    #[must_use]
    pub fn normalised(&self) -> Normalised {
        Normalised::of(self)
    }
}

/// A duration as whole microseconds, which is what every witness records.
mod micros {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(time: &Duration, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_u64(u64::try_from(time.as_micros()).unwrap_or(u64::MAX))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
        u64::deserialize(from).map(Duration::from_micros)
    }
}
