//! The engine: packets and time in, verdicts, actions and events out.
//!
//! It leads a packet through the rooms - checked view, flow, recognisers, policy, suspects - and
//! keeps none of their knowledge itself.

mod datagram;
mod segment;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use rand::SeedableRng;
use rand::rngs::StdRng;
use segment::Arrival;

use crate::event::PacketEnds;
use crate::flow::{FlowTable, Role};
use crate::packet::{Malformed, Packet, Transport};
use crate::policy::{self, Ruling, Situation};
use crate::suspects::{Outbox, Sighting, Suspects, drop_details};
use crate::verdict::{DropReason, PassReason};
use crate::{EngineConfig, Event, Evidence, Timestamp, Verdict};

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

/// How much an engine remembers; each number has its bound in [`crate::config::Capacity`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Occupancy {
    /// Flows followed.
    pub flows: usize,
    /// Octets of first payload held, as the table of flows keeps count.
    pub buffered: usize,
    /// Octets of first payload held, added up over all flows.
    pub counted_buffered: usize,
    /// Entries of the fullest table of hosts.
    pub hosts: usize,
    /// Entries of the fullest table of peers.
    pub peers: usize,
    /// Addresses known as proven.
    pub proven: usize,
}

/// Judges packets. See the crate's documentation for how it is driven.
#[derive(Debug)]
pub struct Engine {
    config: EngineConfig,
    rng: StdRng,
    flows: FlowTable,
    suspects: Suspects,
    out: Outbox,
    counters: Counters,
}

/// Something that the kernel's sets remember for an engine that died.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Remembered {
    /// This host is locked.
    Locked {
        /// The inside host.
        host: Ipv4Addr,
        /// From now on.
        for_: Duration,
    },
    /// This client and peer are known to belong together.
    Peer {
        /// The inside host.
        client: Ipv4Addr,
        /// The outside peer.
        peer: SocketAddrV4,
        /// From now on.
        for_: Duration,
    },
}

impl Engine {
    /// An engine that knows nothing yet. Equal seeds and equal packets give equal answers.
    #[must_use]
    pub fn new(config: EngineConfig, seed: u64) -> Self {
        Self {
            rng: StdRng::seed_from_u64(seed),
            flows: FlowTable::new(config.capacity.flows, config.capacity.buffered, seed),
            suspects: Suspects::new(&config, seed),
            out: Outbox::default(),
            counters: Counters::default(),
            config,
        }
    }

    /// Takes over what an earlier daemon has left in the kernel, which goes on dropping by it: without
    /// this, whoever was locked when that daemon died could dial again until it gave itself away anew.
    pub fn remember(&mut self, now: Timestamp, left: Remembered) {
        match left {
            Remembered::Locked { host, for_ } => {
                self.suspects
                    .remember_lock(&self.config, host, for_, now, &mut self.out);
            }
            Remembered::Peer { client, peer, for_ } => {
                self.suspects
                    .remember_peer(&self.config, (client, peer), for_, now, &mut self.out);
            }
        }
    }

    /// Judges one packet.
    pub fn handle_packet(&mut self, now: Timestamp, ingress: Ingress<'_>) -> Verdict {
        let verdict = match Packet::parse(ingress.bytes) {
            Ok(packet) => self.judge(now, &packet, ingress.conntrack),
            Err(malformed) => self.judge_malformed(now, malformed),
        };
        self.counters.packets += 1;
        *self.counters.verdicts.entry(verdict).or_default() += 1;
        verdict
    }

    /// Ends what has run out and sends the probes that are due. Call when [`Self::poll_timeout`]
    /// says so; calling more often does no harm.
    pub fn handle_timeout(&mut self, now: Timestamp) {
        self.flows.handle_timeout(now);
        self.suspects
            .handle_timeout(&self.config, now, &mut self.out);
    }

    /// When [`Self::handle_timeout`] wants to be called next.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Timestamp> {
        [self.flows.poll_timeout(), self.suspects.poll_timeout()]
            .into_iter()
            .flatten()
            .min()
    }

    /// The next thing for the shell to carry out.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.out.actions.pop_front()
    }

    /// The next thing to report.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.out.events.pop_front()
    }

    /// What was counted so far.
    #[must_use]
    pub const fn counters(&self) -> &Counters {
        &self.counters
    }

    /// How much is remembered right now. Looks at every flow: for tests and measurements.
    #[must_use]
    pub fn occupancy(&self) -> Occupancy {
        let [hosts, peers, proven] = self.suspects.occupancy();
        Occupancy {
            flows: self.flows.flows().count(),
            buffered: self.flows.held(),
            counted_buffered: self.flows.flows().map(crate::flow::Flow::held).sum(),
            hosts,
            peers,
            proven,
        }
    }

    fn judge(
        &mut self,
        now: Timestamp,
        packet: &Packet<'_>,
        tracked: Option<Conntrack>,
    ) -> Verdict {
        let (IpAddr::V4(source), IpAddr::V4(destination)) = (packet.source, packet.destination)
        else {
            return Verdict::Pass(PassReason::Ipv6);
        };
        if self.config.is_exempt(packet.source) || self.config.is_exempt(packet.destination) {
            return Verdict::Pass(PassReason::Exempt);
        }
        if !self.crosses(packet.source, packet.destination) {
            return Verdict::Pass(PassReason::NotCrossing);
        }
        match packet.transport {
            Transport::Tcp(segment) => {
                let source = SocketAddrV4::new(source, segment.source_port);
                let destination = SocketAddrV4::new(destination, segment.destination_port);
                let segment = &segment;
                self.judge_segment(&Arrival {
                    now,
                    source,
                    destination,
                    segment,
                    tracked,
                })
            }
            Transport::Udp(datagram) => {
                let source = SocketAddrV4::new(source, datagram.source_port);
                let destination = SocketAddrV4::new(destination, datagram.destination_port);
                self.judge_datagram(now, source, destination, &datagram)
            }
            Transport::LaterFragment => Verdict::Pass(PassReason::LaterFragment),
            Transport::Other => Verdict::Pass(PassReason::OtherProtocol),
        }
    }

    fn judge_malformed(&mut self, now: Timestamp, malformed: Malformed) -> Verdict {
        self.counters.malformed += 1;
        match malformed {
            Malformed::Ip => Verdict::Pass(PassReason::Malformed),
            Malformed::Transport {
                source_ip,
                destination_ip,
            } => {
                let is_locked = |address| match address {
                    IpAddr::V4(address) => self.suspects.is_locked(address, now),
                    IpAddr::V6(_) => false,
                };
                if is_locked(source_ip) || is_locked(destination_ip) {
                    Verdict::Drop(DropReason::MalformedLocked)
                } else {
                    Verdict::Pass(PassReason::Malformed)
                }
            }
        }
    }

    fn crosses(&self, source: IpAddr, destination: IpAddr) -> bool {
        self.config.judge_all || self.config.is_inside(source) != self.config.is_inside(destination)
    }
}

/// What the ways of judging have in common.
impl Engine {
    fn situation(&self, now: Timestamp, parties: &Parties) -> Situation {
        let Parties {
            host,
            peer,
            host_initiated,
            port,
            ..
        } = *parties;
        let other_opener = self.suspects.other_opener(*host.ip(), peer, now);
        Situation {
            host_is_locked: self.suspects.is_locked(*host.ip(), now),
            host_initiated,
            peer_is_known: self.suspects.is_peer(peer, now),
            peer_is_proven: self.suspects.is_proven(IpAddr::V4(*peer.ip()), now),
            port,
            is_second_opener: host_initiated && other_opener.is_some(),
            repeats: 0,
            fills_window: false,
        }
    }

    /// Locks, learns and reports as ruled.
    fn carry_out(&mut self, now: Timestamp, parties: &Parties, found: Found, verdict: Verdict) {
        let Found { evidence, ruling } = found;
        let (host, peer, packet) = (*parties.host.ip(), parties.peer, parties.packet);
        let sighting = Sighting { evidence, packet };
        if ruling.locks {
            self.suspects
                .lock(&self.config, host, sighting, now, &mut self.out);
        }
        if ruling.teaches {
            self.suspects
                .learn(&self.config, host, peer, sighting, now, &mut self.out);
        }
        if verdict.is_drop() {
            self.report_drop(now, parties, Some(evidence), verdict);
        }
    }

    fn report_drop(
        &mut self,
        now: Timestamp,
        parties: &Parties,
        evidence: Option<Evidence>,
        verdict: Verdict,
    ) {
        let details = drop_details(*parties.host.ip(), parties.peer, evidence, verdict);
        self.suspects
            .report_drop(details, parties.packet, now, &mut self.out);
    }

    /// Whether the two are known to belong together and only the address decides.
    fn is_blocked_pair(&self, now: Timestamp, parties: &Parties) -> bool {
        !policy::is_contested_port(parties.peer.port())
            && self.suspects.is_pair(*parties.host.ip(), parties.peer, now)
    }

    fn count(&mut self, evidence: Evidence) {
        *self.counters.evidence.entry(evidence.name()).or_default() += 1;
    }
}

/// The two ends of a packet as the policy sees them.
#[derive(Debug, Clone, Copy)]
struct Parties {
    /// The inside host's end.
    host: SocketAddrV4,
    /// The outside peer's end.
    peer: SocketAddrV4,
    host_initiated: bool,
    /// The responder's port.
    port: u16,
    packet: PacketEnds,
}

impl Parties {
    /// The ends of a packet, when the inside host has this role in its conversation.
    const fn new(packet: PacketEnds, host: SocketAddrV4, peer: SocketAddrV4, role: Role) -> Self {
        let (host_initiated, port) = match role {
            Role::Initiator => (true, peer.port()),
            Role::Responder => (false, host.port()),
        };
        Self {
            host,
            peer,
            host_initiated,
            port,
            packet,
        }
    }
}

/// Evidence and what it leads to.
#[derive(Debug, Clone, Copy)]
struct Found {
    evidence: Evidence,
    ruling: Ruling,
}
