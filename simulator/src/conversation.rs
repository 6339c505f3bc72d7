//! What the two ends of one TCP connection want done: the common language of `session` and `transfer`.

use std::net::SocketAddrV4;
use std::time::Duration;

use crate::report::{Failure, Part};
use crate::wire::session::NodeEntry;

/// One thing that a conversation wants done or has to say, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Write these octets, as one segment where the network allows.
    Send {
        /// What they are.
        part: Part,
        /// The octets.
        bytes: Vec<u8>,
    },
    /// So many octets of the incoming stream were these.
    Received {
        /// What they were.
        part: Part,
        /// How many.
        bytes: u64,
    },
    /// The session is up.
    SessionUp,
    /// Addresses of supernodes arrived.
    NodeList(Vec<NodeEntry>),
    /// A search found the file there.
    Sources(Vec<SocketAddrV4>),
    /// The file was transferred whole and unaltered.
    FileDone {
        /// Its octets.
        bytes: u64,
    },
    /// The uploader will not give the file.
    Refused {
        /// When it may be asked again, if it said so.
        retry_after: Option<Duration>,
    },
    /// Close in good order, after everything sent before.
    Close,
    /// Give up, and why.
    Fail(Failure),
}

/// Shorthand for [`Step::Received`], from a length in memory.
pub(crate) fn received(part: Part, len: usize) -> Step {
    Step::Received {
        part,
        bytes: len as u64,
    }
}

/// What is due at `now` for a conversation that may say nothing until `deadline`.
pub(crate) fn time_out(deadline: Duration, now: Duration) -> Vec<Step> {
    if now < deadline {
        Vec::new()
    } else {
        vec![Step::Fail(Failure::Timeout)]
    }
}
