//! What is said over the control socket: one JSON object per line, a request and its answer.

use std::net::{Ipv4Addr, SocketAddrV4};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::config::Mode;

/// The version of requests and answers. Fields may be added to answers without a new one.
pub const VERSION: u32 = 1;
/// Octets of the longest request.
pub const LONGEST_REQUEST: usize = 4096;

/// A request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Request {
    /// [`VERSION`].
    pub version: u32,
    /// What is asked.
    #[serde(flatten)]
    pub command: Command,
}

/// What is asked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "snake_case")]
pub enum Command {
    /// How the daemon is.
    Status,
    /// Which hosts are locked.
    Clients,
    /// Which peers clients are known to use.
    Peers {
        /// At most so many.
        limit: usize,
    },
    /// Why something is treated as it is.
    Explain {
        /// An address, with a port or without.
        subject: String,
    },
    /// Let something through for a time.
    Unblock {
        /// An address or network, of all ports or of one.
        target: String,
        /// For how long.
        seconds: u64,
    },
    /// Lock a host, or keep it from a peer.
    Block {
        /// The inside host.
        client: Ipv4Addr,
        /// The outside peer; all of its unproven traffic if absent.
        peer: Option<SocketAddrV4>,
        /// For how long.
        seconds: u64,
    },
    /// Another mode for a time.
    Mode {
        /// The mode.
        mode: Mode,
        /// Which hosts; all if absent.
        subnet: Option<IpNet>,
        /// For how long; until the end of the daemon if absent.
        seconds: Option<u64>,
    },
    /// Read the configuration again.
    Reload,
    /// Open the file of events anew under its name.
    LogReopen,
}

impl Command {
    /// Whether it changes nothing, so that it is open to whoever may connect.
    #[must_use]
    pub const fn only_reads(&self) -> bool {
        match self {
            Self::Status | Self::Clients | Self::Peers { .. } | Self::Explain { .. } => true,
            Self::Unblock { .. }
            | Self::Block { .. }
            | Self::Mode { .. }
            | Self::Reload
            | Self::LogReopen => false,
        }
    }
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Response {
    /// [`VERSION`].
    pub version: u32,
    /// What came of it.
    #[serde(flatten)]
    pub outcome: Outcome,
}

/// What came of a request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It was done, or this is what was asked for.
    Ok(Value),
    /// It was not done.
    Error(Failure),
}

/// Why a request was not done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// The exit code of a command that met it.
    pub code: u8,
    /// What was wrong and what to do.
    pub message: String,
}

impl Failure {
    /// A failure with this exit code.
    pub fn new(code: u8, message: impl Into<String>) -> Self {
        let message = message.into();
        Self { code, message }
    }
}

impl From<Result<Value, Failure>> for Response {
    fn from(result: Result<Value, Failure>) -> Self {
        let outcome = match result {
            Ok(value) => Outcome::Ok(value),
            Err(failure) => Outcome::Error(failure),
        };
        Self {
            version: VERSION,
            outcome,
        }
    }
}
