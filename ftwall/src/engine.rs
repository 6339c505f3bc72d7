//! The engine: packets and time in, verdicts, actions and events out.

use std::collections::{BTreeMap, VecDeque};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use crate::verdict::PassReason;
use crate::{EngineConfig, Event, Timestamp, Verdict};

/// One packet as it arrives at the gateway.
#[derive(Debug, Clone, Copy)]
pub struct Ingress<'a> {
    /// The packet, from the IP header on. May be cut short by a copy range or a capture's snapshot
    /// length: the headers say how long the packet really was.
    pub bytes: &'a [u8],
    /// What the kernel's connection tracking knows, if there is a kernel.
    pub conntrack: Option<Conntrack>,
}

/// What the kernel's connection tracking knows about a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Conntrack {
    /// The packet travels against the initiator of its flow.
    pub reply: bool,
    /// The flow was tracked from its first packet on.
    pub from_start: bool,
}

/// Something the shell has to carry out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Queue this host's dials and pong-shaped datagrams for so long; renews an earlier lock.
    LockHost {
        /// The inside host.
        host: Ipv4Addr,
        /// From now on.
        for_: Duration,
    },
    /// This host is no longer locked.
    ReleaseHost {
        /// The inside host.
        host: Ipv4Addr,
    },
    /// Drop everything between this client and this peer for so long; renews an earlier entry.
    LearnPeer {
        /// The inside host.
        client: Ipv4Addr,
        /// The outside peer.
        peer: SocketAddrV4,
        /// From now on.
        for_: Duration,
        /// Whether the kernel may drop by address. Ports of the web are decided by payload.
        kernel_drop: bool,
    },
    /// This client and peer are no longer known to belong together.
    ForgetPeer {
        /// The inside host.
        client: Ipv4Addr,
        /// The outside peer.
        peer: SocketAddrV4,
    },
    /// Answer a client's ping in the peer's name, over UDP.
    Answer {
        /// The peer in whose name.
        from: SocketAddrV4,
        /// The client's own address and port.
        to: SocketAddrV4,
        /// The datagram's payload.
        payload: Vec<u8>,
    },
    /// Ask a locked host whether its client still runs, in a peer's name, over UDP.
    Probe {
        /// The peer in whose name.
        from: SocketAddrV4,
        /// The client's own address and port.
        to: SocketAddrV4,
        /// The datagram's payload.
        payload: Vec<u8>,
    },
}

/// What the engine has counted since it was made.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Counters {
    /// Packets judged.
    pub packets: u64,
    /// Packets whose headers do not hold together, whatever became of them.
    pub malformed: u64,
    /// Packets by verdict and reason.
    pub verdicts: BTreeMap<Verdict, u64>,
    /// Evidence by name.
    pub evidence: BTreeMap<&'static str, u64>,
}

/// Judges packets. See the crate's documentation for how it is driven.
#[derive(Debug)]
pub struct Engine {
    config: EngineConfig,
    counters: Counters,
    actions: VecDeque<Action>,
    events: VecDeque<Event>,
}

impl Engine {
    /// An engine that knows nothing yet. Equal seeds and equal packets give equal answers.
    #[must_use]
    pub fn new(config: EngineConfig, _seed: u64) -> Self {
        Self {
            config,
            counters: Counters::default(),
            actions: VecDeque::new(),
            events: VecDeque::new(),
        }
    }

    /// Judges one packet.
    pub fn handle_packet(&mut self, now: Timestamp, ingress: Ingress<'_>) -> Verdict {
        let _ = (now, ingress, &self.config);
        Verdict::Pass(PassReason::Undecided)
    }

    /// Ends what has run out and sends the probes that are due. Call when [`Self::poll_timeout`]
    /// says so; calling more often does no harm.
    pub fn handle_timeout(&mut self, now: Timestamp) {
        let _ = now;
    }

    /// When [`Self::handle_timeout`] wants to be called next.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Timestamp> {
        None
    }

    /// The next thing for the shell to carry out.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// The next thing to report.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// What was counted so far.
    #[must_use]
    pub const fn counters(&self) -> &Counters {
        &self.counters
    }
}
