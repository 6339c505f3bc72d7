//! Everything that is shown, gathered at one instant.

use std::time::Duration;

use crate::config::Mode;
use crate::control::events::Statistics;
use crate::gateway::fan_out::QueueClass;
use crate::gateway::queue::Losses;
use crate::state::Health;
use crate::{KnownPeer, LockedClient, Timestamp};

/// The numbers.
#[derive(Clone, Debug)]
pub struct Overview {
    /// When they were gathered.
    pub now: Timestamp,
    /// For how long the daemon has run.
    pub uptime: Duration,
    /// What was counted since it started.
    pub counted: Statistics,
    /// Hosts that are locked.
    pub clients: usize,
    /// Pairs of client and peer that are known.
    pub peers: usize,
    /// Every queue.
    pub queues: Vec<QueueState>,
    /// Whether ftwall's table is in place; absent if nobody could tell.
    pub rules_present: Option<bool>,
    /// What is done about hosts of which no entry of the policy speaks.
    pub mode: Mode,
    /// Whether the last reading of the configuration succeeded, and when one last did.
    pub reload: (bool, Timestamp),
    /// How state is kept, if it is.
    pub state: Option<Health>,
}

/// A queue, as the kernel shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueState {
    /// Its number.
    pub number: u16,
    /// What it is for.
    pub class: QueueClass,
    /// Packets that wait; absent if the kernel does not say.
    pub waiting: Option<u64>,
    /// Packets that were lost.
    pub losses: Losses,
}

/// What only people want to see.
#[derive(Clone, Debug, Default)]
pub struct Lists {
    /// Locked hosts, some of them.
    pub clients: Vec<LockedClient>,
    /// Known peers, some of them.
    pub peers: Vec<KnownPeer>,
}
