//! The engine: packets and time in, verdicts, actions and events out.
//!
//! It leads a packet through the rooms - checked view, flow, recognisers, policy, suspects - and
//! keeps none of their knowledge itself.

mod datagram;
mod history;
mod operator;
mod restoring;
mod segment;
mod tally;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use rand::SeedableRng;
use rand::rngs::StdRng;

use history::History;
pub use history::Incident;
use operator::ByHand;
pub use operator::{
    Block, BlockError, Explanation, KnownPeer, Lifted, LockedClient, PolicyChoice, Subject, Test,
};
use segment::Arrival;
use tally::Tally;

use crate::config::{EffectivePolicy, Mode};
use crate::event::{EventType, PacketEnds};
use crate::flow::{FlowTable, Role};
use crate::link::Link;
use crate::packet::{Malformed, Packet, Transport};
use crate::policy::{self, Ruling, Situation};
use crate::protocol::ShortPayload;
use crate::suspects::{Origin, Outbox, Sighting, Suspects, drop_details};
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
    /// The packet's way through the gateway, if it is a live one. Needed only where
    /// [`EngineConfig::asks_for_places`].
    pub link: Option<Link>,
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
    /// This address has proven itself to be something else than a peer. Only other engines want to know.
    ProveAddress {
        /// The outside address.
        address: IpAddr,
        /// From now on.
        for_: Duration,
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
        payload: ShortPayload,
    },
    /// Ask a locked host whether its client still runs, in a peer's name, over UDP.
    Probe {
        /// The peer in whose name.
        from: SocketAddrV4,
        /// The client's own address and port.
        to: SocketAddrV4,
        /// The datagram's payload.
        payload: ShortPayload,
    },
}

/// What the engine has counted since it was made.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Counters {
    /// Packets judged.
    pub packets: u64,
    /// Packets whose headers do not hold together, whatever became of them.
    pub malformed: u64,
    /// Packets by verdict and reason, as far as there were any.
    pub verdicts: BTreeMap<Verdict, u64>,
    /// Evidence by name, as far as there was any.
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
    tally: Tally,
    by_hand: ByHand,
    history: History,
    /// Until when a sender's first words here may not be its first.
    middles_until: Timestamp,
    /// What was last found, until the packet in which it was found is judged.
    found: Option<Evidence>,
}

/// Something that an engine beside this one, with other inside hosts, has found out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hearsay {
    /// Some client uses this peer: it confirms what others say of themselves, and blocks none of them.
    Peer {
        /// The outside peer.
        peer: SocketAddrV4,
        /// From now on.
        for_: Duration,
    },
    /// This address has proven itself to be something else than a peer.
    Proven {
        /// The outside address.
        address: IpAddr,
        /// From now on.
        for_: Duration,
    },
}

impl Hearsay {
    /// What other engines should hear of something this one asks for, if anything.
    #[must_use]
    pub const fn of(action: &Action) -> Option<Self> {
        match *action {
            Action::LearnPeer { peer, for_, .. } => Some(Self::Peer { peer, for_ }),
            Action::ProveAddress { address, for_ } => Some(Self::Proven { address, for_ }),
            Action::LockHost { .. }
            | Action::ReleaseHost { .. }
            | Action::ForgetPeer { .. }
            | Action::Answer { .. }
            | Action::Probe { .. } => None,
        }
    }
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

impl Remembered {
    /// The inside host concerned.
    #[must_use]
    pub const fn host(self) -> Ipv4Addr {
        match self {
            Self::Locked { host, .. } | Self::Peer { client: host, .. } => host,
        }
    }
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
            tally: Tally::default(),
            by_hand: ByHand::new(seed),
            history: History::new(seed),
            middles_until: Timestamp::ORIGIN,
            found: None,
            config,
        }
    }

    /// Takes over what an earlier daemon has left in the kernel, which goes on dropping by it: without
    /// this, whoever was locked when that daemon died could dial again until it gave itself away anew.
    pub fn remember(&mut self, now: Timestamp, left: Remembered) {
        self.recall(now, left, Origin::TakenOver);
    }

    /// Believes another engine.
    pub fn hear(&mut self, now: Timestamp, said: Hearsay) {
        self.suspects.hear(&self.config, said, now);
    }

    /// Judges one packet.
    pub fn handle_packet(&mut self, now: Timestamp, ingress: Ingress<'_>) -> Verdict {
        let verdict = match Packet::parse(ingress.bytes) {
            Ok(packet) => self.judge(now, &packet, ingress),
            Err(malformed) => self.judge_malformed(now, malformed),
        };
        self.tally.count_verdict(verdict);
        verdict
    }

    /// Ends what has run out and sends the probes that are due. Call when [`Self::poll_timeout`]
    /// says so; calling more often does no harm.
    pub fn handle_timeout(&mut self, now: Timestamp) {
        self.flows.handle_timeout(now);
        self.history.handle_timeout(now);
        self.end_unblocks(now);
        self.suspects
            .handle_timeout(&self.config, now, &mut self.out);
    }

    /// When [`Self::handle_timeout`] wants to be called next.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Timestamp> {
        let wanted = [
            self.flows.poll_timeout(),
            self.suspects.poll_timeout(),
            self.history.poll_timeout(),
            self.by_hand.poll_timeout(),
        ];
        wanted.into_iter().flatten().min()
    }

    /// The next thing for the shell to carry out. Nothing is done to hosts that are only monitored.
    pub fn poll_action(&mut self) -> Option<Action> {
        loop {
            let action = self.out.actions.pop_front()?;
            if self.is_to_be_done(&action) {
                return Some(action);
            }
        }
    }

    /// The next thing to report.
    pub fn poll_event(&mut self) -> Option<Event> {
        let mut event = self.out.events.pop_front()?;
        let mode = event
            .ftwall
            .client
            .map(|client| self.policy_of(client).mode);
        if mode == Some(Mode::Monitor) {
            monitored(&mut event);
        }
        Some(event)
    }

    /// What was counted so far.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.tally.counters()
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

    fn judge(&mut self, now: Timestamp, packet: &Packet<'_>, ingress: Ingress<'_>) -> Verdict {
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
        let (source_port, destination_port) = ports(&packet.transport);
        let source = SocketAddrV4::new(source, source_port);
        let destination = SocketAddrV4::new(destination, destination_port);
        if let Some(reason) = self
            .is_let_through(source.into(), now)
            .or_else(|| self.is_let_through(destination.into(), now))
        {
            return Verdict::Pass(reason);
        }
        let host = *self.host_end(source, destination).ip();
        if let Some(link) = ingress.link {
            self.note_link(now, host, link, host == *source.ip());
        }
        let mode = self.policy_of(host).mode;
        if mode == Mode::Off {
            return Verdict::Pass(PassReason::PolicyOff);
        }
        let tracked = ingress.conntrack;
        let verdict = self.judge_transport(now, (source, destination), packet, tracked);
        let done = Self::softened(mode, verdict);
        self.record_incident(now, host, packet, (source, destination), verdict, done);
        done
    }

    fn judge_transport(
        &mut self,
        now: Timestamp,
        (source, destination): (SocketAddrV4, SocketAddrV4),
        packet: &Packet<'_>,
        tracked: Option<Conntrack>,
    ) -> Verdict {
        match packet.transport {
            Transport::Tcp(segment) => {
                let segment = &segment;
                self.judge_segment(&Arrival {
                    now,
                    source,
                    destination,
                    segment,
                    tracked,
                })
            }
            Transport::Udp(datagram) => self.judge_datagram(now, source, destination, &datagram),
            Transport::LaterFragment => Verdict::Pass(PassReason::LaterFragment),
            Transport::Other => Verdict::Pass(PassReason::OtherProtocol),
        }
    }

    fn judge_malformed(&mut self, now: Timestamp, malformed: Malformed) -> Verdict {
        self.tally.count_malformed();
        match malformed {
            Malformed::Ip => Verdict::Pass(PassReason::Malformed),
            Malformed::Transport {
                source_ip,
                destination_ip,
            } => {
                let is_locked = |address| match address {
                    IpAddr::V4(host) => {
                        self.suspects.is_locked(host, now) && self.is_enforced(host)
                    }
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

    /// The inside host's end; the sender's where both are inside or neither is.
    fn host_end(&self, source: SocketAddrV4, destination: SocketAddrV4) -> SocketAddrV4 {
        let is_inside = |end: SocketAddrV4| self.config.is_inside(IpAddr::V4(*end.ip()));
        if is_inside(source) || !is_inside(destination) {
            source
        } else {
            destination
        }
    }

    /// What is done where the policy says `verdict`.
    const fn softened(mode: Mode, verdict: Verdict) -> Verdict {
        match (mode, verdict) {
            (Mode::Monitor, Verdict::Drop(_)) => Verdict::Pass(PassReason::Monitored),
            (_, verdict) => verdict,
        }
    }

    /// Remembers what an operator may ask about: packets with evidence in them, and dropped ones.
    fn record_incident(
        &mut self,
        now: Timestamp,
        host: Ipv4Addr,
        packet: &Packet<'_>,
        (source, destination): (SocketAddrV4, SocketAddrV4),
        verdict: Verdict,
        done: Verdict,
    ) {
        let evidence = self.found.take();
        if evidence.is_none() && !verdict.is_drop() {
            return;
        }
        let incident = Incident {
            first: now,
            last: now,
            packets: 1,
            ends: PacketEnds::new(
                transport_name(&packet.transport),
                source.into(),
                destination.into(),
            ),
            evidence,
            verdict: done.into(),
            would_have: (verdict != done).then(|| verdict.into()),
        };
        self.history.record(host, incident);
    }

    fn policy_of(&self, host: Ipv4Addr) -> EffectivePolicy {
        self.suspects.policy_of(&self.config, host)
    }

    fn is_enforced(&self, host: Ipv4Addr) -> bool {
        self.policy_of(host).mode == Mode::Enforce
    }

    /// Learns from a packet where its inside host is, if any entry of the policy asks. The kernel knows
    /// locked hosts by address, so it is told when another entry comes to hold for one.
    fn note_link(&mut self, now: Timestamp, host: Ipv4Addr, link: Link, has_sent: bool) {
        if !self.config.asks_for_places() {
            return;
        }
        let known = self.suspects.place_of(host);
        let place = if has_sent {
            known.after_sending(link)
        } else {
            known.before_receiving(link)
        };
        let was_enforced = self.is_enforced(host);
        self.suspects.note_place(host, place, now);
        let is_enforced = self.is_enforced(host);
        if was_enforced != is_enforced {
            self.suspects.change_enforcement(
                |other| other == host && was_enforced,
                |other| other == host && is_enforced,
                now,
                &mut self.out,
            );
        }
    }

    /// Taking something back is always done: the host may have been enforced until now. So is what speaks
    /// for somebody.
    fn is_to_be_done(&self, action: &Action) -> bool {
        match action {
            Action::LockHost { host, .. } => self.is_enforced(*host),
            Action::LearnPeer { client, .. } => self.is_enforced(*client),
            Action::Answer { to, .. } | Action::Probe { to, .. } => self.is_enforced(*to.ip()),
            Action::ReleaseHost { .. }
            | Action::ForgetPeer { .. }
            | Action::ProveAddress { .. } => true,
        }
    }

    fn crosses(&self, source: IpAddr, destination: IpAddr) -> bool {
        self.config.judge_all || self.config.is_inside(source) != self.config.is_inside(destination)
    }
}

/// Source and destination; zero where there are none.
const fn ports(transport: &Transport<'_>) -> (u16, u16) {
    match transport {
        Transport::Tcp(segment) => (segment.source_port, segment.destination_port),
        Transport::Udp(datagram) => (datagram.source_port, datagram.destination_port),
        Transport::LaterFragment | Transport::Other => (0, 0),
    }
}

/// As events name it.
const fn transport_name(transport: &Transport<'_>) -> &'static str {
    match transport {
        Transport::Tcp(_) => "TCP",
        Transport::Udp(_) => "UDP",
        Transport::LaterFragment | Transport::Other => "IP",
    }
}

/// Says in an event about a monitored host that nothing was done to it.
fn monitored(event: &mut Event) {
    event.ftwall.mode = Some(Mode::Monitor);
    if event.event_type == EventType::PacketDrop {
        event.event_type = EventType::PacketWouldDrop;
        let done = Verdict::Pass(PassReason::Monitored).into();
        event.ftwall.would_have = event.ftwall.verdict.replace(done);
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
            may_be_middle: false,
            follows_gap: false,
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
        self.found = Some(evidence);
        self.tally.count_evidence(evidence);
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
