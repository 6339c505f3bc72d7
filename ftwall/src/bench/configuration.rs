//! What a gateway does to the packets that it forwards.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::gateway::queue::QueueReader;

/// A configuration of a gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Configuration {
    /// Forwards, no rule at all.
    None,
    /// Tracks connections, as every gateway with a firewall or NAT does.
    Conntrack,
    /// ftwall as installed.
    Ftwall,
    /// ftwall with the `nfq` crate as reader of the queue.
    FtwallNfq,
    /// Sends every packet through a queue whose reader accepts it unread.
    QueueEverything,
}

impl Configuration {
    /// All of them, what is compared with first.
    pub const ALL: [Self; 5] = [
        Self::None,
        Self::Conntrack,
        Self::Ftwall,
        Self::FtwallNfq,
        Self::QueueEverything,
    ];

    /// Name in reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Conntrack => "conntrack",
            Self::Ftwall => "ftwall",
            Self::FtwallNfq => "ftwall_nfq",
            Self::QueueEverything => "queue_everything",
        }
    }

    /// The reader of the daemon's queue, where there is a daemon.
    pub(super) const fn daemon(self) -> Option<QueueReader> {
        match self {
            Self::Ftwall => Some(QueueReader::Netlink),
            Self::FtwallNfq => Some(QueueReader::Nfq),
            Self::None | Self::Conntrack | Self::QueueEverything => None,
        }
    }
}

impl fmt::Display for Configuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}
