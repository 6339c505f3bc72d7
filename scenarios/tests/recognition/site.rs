//! A gateway in virtual time and the ends that talk across it, with packets built by etherparse.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use etherparse::PacketBuilder;
use ftwall::{Action, Engine, EngineConfig, Ingress, Timestamp, Verdict};

/// The inside host that talks.
pub(crate) const HOST: Ipv4Addr = Ipv4Addr::new(10, 77, 1, 1);
/// Another inside host, which may have taught a peer before.
pub(crate) const NEIGHBOUR: Ipv4Addr = Ipv4Addr::new(10, 77, 1, 2);
/// The outside peer's address.
pub(crate) const PEER: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 5);
/// Another outside peer.
pub(crate) const STRANGER: Ipv4Addr = Ipv4Addr::new(198, 18, 77, 7);

/// Less than half a lock, after which hosts are probed.
const BEFORE_A_CASE: Duration = Duration::from_secs(30);

/// giFT's ping, by which hosts are locked and peers taught before a case begins.
const PING: &[u8] = b"\x27\0\0\0\x29\x80KaZaA\0";

/// An engine and everything it asked the shell for.
pub(crate) struct Site {
    engine: Engine,
    now: Timestamp,
    locked: BTreeSet<Ipv4Addr>,
    taught: BTreeSet<SocketAddrV4>,
}

impl Site {
    /// A gateway as installed that knows nothing yet.
    pub(crate) fn new() -> Self {
        Self {
            engine: Engine::new(EngineConfig::default(), 1),
            now: Timestamp::from_secs(1_000_000),
            locked: BTreeSet::new(),
            taught: BTreeSet::new(),
        }
    }

    /// A gateway on which [`HOST`] was locked by a ping to somebody else.
    pub(crate) fn with_locked_host() -> Self {
        let mut site = Self::new();
        site.lock_host();
        site
    }

    /// A gateway on which [`NEIGHBOUR`] was seen to use `peer`.
    pub(crate) fn with_known_peer(peer: SocketAddrV4) -> Self {
        let mut site = Self::new();
        assert!(site.datagram(end(NEIGHBOUR, 1214), peer, PING).is_drop());
        site
    }

    /// Locks [`HOST`] now.
    pub(crate) fn lock_host(&mut self) {
        let elsewhere = end(Ipv4Addr::new(198, 19, 255, 1), 3000);
        assert!(self.datagram(end(HOST, 1214), elsewhere, PING).is_drop());
        assert!(self.is_locked());
    }

    /// Lets some time pass and forgets what was asked for and counted so far, so that a case sees
    /// only its own. A lock that is renewed is asked for anew.
    pub(crate) fn mark(&mut self) -> Mark {
        self.now = self.now + BEFORE_A_CASE;
        self.locked.clear();
        self.taught.clear();
        Mark(self.evidence())
    }

    /// Whether [`HOST`] was locked, or its lock renewed, since the last mark.
    pub(crate) fn is_locked(&self) -> bool {
        self.locked.contains(&HOST)
    }

    /// Whether anybody was.
    pub(crate) fn has_locked_somebody(&self) -> bool {
        !self.locked.is_empty()
    }

    /// Whether `peer` was learned since the last mark.
    pub(crate) fn has_learned(&self, peer: SocketAddrV4) -> bool {
        self.taught.contains(&peer)
    }

    /// Whether any peer was.
    pub(crate) fn has_learned_something(&self) -> bool {
        !self.taught.is_empty()
    }

    /// Evidence counted since `mark`.
    pub(crate) fn evidence_since(&self, mark: &Mark) -> Vec<&'static str> {
        let counted = self.evidence();
        let is_new = |one: &&(&'static str, u64)| !mark.0.contains(one);
        counted.iter().filter(is_new).map(|one| one.0).collect()
    }

    fn evidence(&self) -> Vec<(&'static str, u64)> {
        let counters = self.engine.counters();
        counters
            .evidence
            .iter()
            .map(|(name, count)| (*name, *count))
            .collect()
    }

    /// Sends one datagram.
    pub(crate) fn datagram(
        &mut self,
        from: SocketAddrV4,
        to: SocketAddrV4,
        payload: &[u8],
    ) -> Verdict {
        let builder = PacketBuilder::ipv4(from.ip().octets(), to.ip().octets(), 64)
            .udp(from.port(), to.port());
        let mut packet = Vec::with_capacity(builder.size(payload.len()));
        builder
            .write(&mut packet, payload)
            .expect("a vector takes everything");
        self.handle(&packet)
    }

    /// Sends one segment.
    pub(crate) fn segment(&mut self, segment: &Segment<'_>) -> Verdict {
        let Segment {
            from,
            to,
            sequence,
            acknowledgement,
            syn,
            payload,
        } = *segment;
        let mut builder = PacketBuilder::ipv4(from.ip().octets(), to.ip().octets(), 64).tcp(
            from.port(),
            to.port(),
            sequence,
            64_000,
        );
        if syn {
            builder = builder.syn();
        }
        if let Some(number) = acknowledgement {
            builder = builder.ack(number);
        }
        let mut packet = Vec::with_capacity(builder.size(payload.len()));
        builder
            .write(&mut packet, payload)
            .expect("a vector takes everything");
        self.handle(&packet)
    }

    fn handle(&mut self, bytes: &[u8]) -> Verdict {
        self.now = self.now + Duration::from_millis(1);
        let verdict = self.engine.handle_packet(
            self.now,
            Ingress {
                bytes,
                conntrack: None,
                link: None,
            },
        );
        while let Some(action) = self.engine.poll_action() {
            match action {
                Action::LockHost { host, .. } => {
                    self.locked.insert(host);
                }
                Action::LearnPeer { peer, .. } => {
                    self.taught.insert(peer);
                }
                Action::ReleaseHost { .. }
                | Action::ProveAddress { .. }
                | Action::ForgetPeer { .. }
                | Action::Answer { .. }
                | Action::Probe { .. } => {}
            }
        }
        while self.engine.poll_event().is_some() {}
        verdict
    }
}

/// What had been counted at one moment.
pub(crate) struct Mark(Vec<(&'static str, u64)>);

/// One TCP segment.
#[derive(Clone, Copy)]
pub(crate) struct Segment<'a> {
    pub(crate) from: SocketAddrV4,
    pub(crate) to: SocketAddrV4,
    pub(crate) sequence: u32,
    pub(crate) acknowledgement: Option<u32>,
    pub(crate) syn: bool,
    pub(crate) payload: &'a [u8],
}

/// An address and a port.
pub(crate) fn end(address: Ipv4Addr, port: u16) -> SocketAddrV4 {
    SocketAddrV4::new(address, port)
}

/// One TCP connection and how much of each direction has got through.
pub(crate) struct Connection {
    initiator: Speaker,
    responder: Speaker,
}

/// One side: where it is and what it says.
struct Speaker {
    end: SocketAddrV4,
    /// Sequence number of its first octet.
    base: u32,
    said: Vec<u8>,
    /// Which octets of that have passed.
    passed: Vec<bool>,
}

/// Who speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// Who dialled.
    Initiator,
    /// Who was dialled.
    Responder,
}

impl Connection {
    /// Dials and, if the dial is let through, is answered.
    pub(crate) fn open(
        site: &mut Site,
        initiator: SocketAddrV4,
        responder: SocketAddrV4,
    ) -> Option<Self> {
        let connection = Self::midstream(initiator, responder);
        let (dial, answer) = (
            connection.syn(Role::Initiator),
            connection.syn(Role::Responder),
        );
        if site.segment(&dial).is_drop() {
            return None;
        }
        assert!(
            !site.segment(&answer).is_drop(),
            "an answered dial is let through"
        );
        Some(connection)
    }

    /// A connection that is up, of which the gateway has seen nothing.
    pub(crate) fn midstream(initiator: SocketAddrV4, responder: SocketAddrV4) -> Self {
        // The initiator's numbers wrap round within the first few octets.
        let speaker = |end, base| Speaker {
            end,
            base,
            said: Vec::new(),
            passed: Vec::new(),
        };
        Self {
            initiator: speaker(initiator, u32::MAX - 4),
            responder: speaker(responder, 9_000_000),
        }
    }

    fn syn(&self, role: Role) -> Segment<'static> {
        let (from, to) = self.sides(role);
        Segment {
            from: from.end,
            to: to.end,
            sequence: from.base.wrapping_sub(1),
            acknowledgement: (role == Role::Responder).then_some(to.base),
            syn: true,
            payload: &[],
        }
    }

    /// Says `message` in one piece and repeats nothing.
    pub(crate) fn says(&mut self, site: &mut Site, role: Role, message: &[u8]) -> Verdict {
        let at = self.append(role, message);
        self.send(site, role, at, message.len())
    }

    /// Says `message` in pieces of these lengths, sent in this order, and then repeats whatever did
    /// not get through from its beginning on, as TCP does, `rounds` times. Says how many octets of
    /// the message arrived in order.
    pub(crate) fn insists(
        &mut self,
        site: &mut Site,
        role: Role,
        message: &[u8],
        cut: &Cut,
        rounds: usize,
    ) -> usize {
        let start = self.append(role, message);
        for (at, length) in cut.pieces(message.len()) {
            self.send(site, role, start + at, length);
        }
        for _ in 0..rounds {
            let Some((at, length)) = self.first_missing(role, start, cut) else {
                break;
            };
            self.send(site, role, at, length);
        }
        self.arrived(role, start)
    }

    fn append(&mut self, role: Role, message: &[u8]) -> usize {
        let speaker = self.speaker(role);
        let start = speaker.said.len();
        speaker.said.extend(message);
        speaker.passed.resize(start + message.len(), false);
        start
    }

    fn send(&mut self, site: &mut Site, role: Role, at: usize, length: usize) -> Verdict {
        let (from, to) = self.sides(role);
        let payload = from.said[at..at + length].to_vec();
        let heard = to.passed.iter().take_while(|passed| **passed).count();
        let segment = Segment {
            from: from.end,
            to: to.end,
            sequence: from.base.wrapping_add(at as u32),
            acknowledgement: Some(to.base.wrapping_add(heard as u32)),
            syn: false,
            payload: &payload,
        };
        let verdict = site.segment(&segment);
        if !verdict.is_drop() {
            self.speaker(role).passed[at..at + length].fill(true);
        }
        verdict
    }

    /// The piece that TCP repeats: the first that did not get through.
    fn first_missing(&self, role: Role, start: usize, cut: &Cut) -> Option<(usize, usize)> {
        let speaker = self.sides(role).0;
        let mut pieces = cut.pieces(speaker.said.len() - start);
        pieces.sort_unstable();
        let is_missing = |(at, length): &(usize, usize)| {
            speaker.passed[start + at..start + at + length]
                .iter()
                .any(|passed| !passed)
        };
        let (at, length) = pieces.into_iter().find(is_missing)?;
        Some((start + at, length))
    }

    fn arrived(&self, role: Role, start: usize) -> usize {
        let passed = &self.sides(role).0.passed[start..];
        passed.iter().take_while(|passed| **passed).count()
    }

    fn speaker(&mut self, role: Role) -> &mut Speaker {
        match role {
            Role::Initiator => &mut self.initiator,
            Role::Responder => &mut self.responder,
        }
    }

    fn sides(&self, role: Role) -> (&Speaker, &Speaker) {
        match role {
            Role::Initiator => (&self.initiator, &self.responder),
            Role::Responder => (&self.responder, &self.initiator),
        }
    }
}

/// How a message is cut into segments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cut {
    /// One segment.
    Whole,
    /// Two, the second from this octet on.
    At(usize),
    /// The same two, the second one first.
    Reversed(usize),
    /// One segment for each octet.
    Octets,
}

impl Cut {
    /// Every cut of a message of that length.
    pub(crate) fn all(length: usize) -> Vec<Self> {
        let two = (1..length).flat_map(|at| [Self::At(at), Self::Reversed(at)]);
        [Self::Whole, Self::Octets].into_iter().chain(two).collect()
    }

    /// Beginning and length of each piece, in the order of sending.
    fn pieces(self, length: usize) -> Vec<(usize, usize)> {
        match self {
            Self::Whole => vec![(0, length)],
            Self::At(at) => vec![(0, at), (at, length - at)],
            Self::Reversed(at) => vec![(at, length - at), (0, at)],
            Self::Octets => (0..length).map(|at| (at, 1)).collect(),
        }
    }
}
