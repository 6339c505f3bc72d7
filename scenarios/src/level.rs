//! How far a contact got: the levels the ledger counts.

use std::fmt;

use serde::{Deserialize, Serialize};

/// How far a contact between an inside host and an outside peer got. Ordered: a later level is worse.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// A datagram from inside reached an outside peer.
    ProbeOut,
    /// A real peer's datagram reached the client. A reply that a gateway forged is not one.
    ProbeAnswered,
    /// A TCP handshake, without payload, completed.
    Touched,
    /// The initiator's first bytes (the 12-byte opener or a part of it) reached the other side.
    Opened,
    /// A byte of the responder's handshake answer, or anything after it, reached the other side.
    Session,
    /// A byte of a file transfer over HTTP crossed in either direction, `GIVE` included.
    Transfer,
}

impl Level {
    /// Every level, mildest first.
    pub const ALL: [Self; 6] = [
        Self::ProbeOut,
        Self::ProbeAnswered,
        Self::Touched,
        Self::Opened,
        Self::Session,
        Self::Transfer,
    ];

    /// The name used in tables, in JSON and in prose.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::ProbeOut => "probe_out",
            Self::ProbeAnswered => "probe_answered",
            Self::Touched => "touched",
            Self::Opened => "opened",
            Self::Session => "session",
            Self::Transfer => "transfer",
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}
