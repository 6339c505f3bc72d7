//! The whole engine on a script of packets, times and kernel facts.
//!
//! Claims: every table stays within its capacity; the octets held are those that are counted; each
//! packet has one verdict, and the counters agree; a seed draws answers but changes no verdict; time is
//! only ever asked for ahead, and each timeout is a step forward; a ping from inside never passes, and
//! nothing passes between a client and a peer it is known to use, save of flows cleared before; nobody
//! is released who was not locked, nothing forgotten that was not learned, and what may never be learned
//! is not.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};
use std::time::Duration;

use super::Target;
use super::input::Input;
use super::wire::{self, PHRASES};
use crate::config::{Capacity, LockedDials, Reply, Strictness, private_ranges};
use crate::packet::{Packet, Segment, Transport};
use crate::protocol;
use crate::verdict::PassReason;
use crate::{Action, Conntrack, Engine, EngineConfig, Evidence, Ingress, Timestamp, Verdict};

/// Two octets of configuration, then one step after the other.
pub(super) const TARGET: Target = Target {
    name: "engine",
    check,
    seeds,
};

fn check(octets: &[u8]) {
    let mut input = Input::new(octets);
    let (Some(limits), Some(choices)) = (input.octet(), input.octet()) else {
        return;
    };
    let config = config(limits, choices);
    let mut gateways = [1, 2].map(|seed| Gateway::new(&config, seed));
    while let Some(step) = read_step(&mut input) {
        let [first, second] = gateways.each_mut().map(|gateway| gateway.take(&step));
        assert_eq!(first, second, "a seed decides nothing");
    }
    gateways.iter().for_each(Gateway::check_counters);
}

/// Small tables, so that they fill up.
fn config(limits: u8, choices: u8) -> EngineConfig {
    let limit = |shift: u8| usize::from(limits >> shift & 3);
    let chosen = |bit: u8| choices >> bit & 1 == 1;
    let never_block = "198.18.0.7/32".parse::<ipnet::IpNet>();
    EngineConfig {
        inside: private_ranges(),
        lock_time: Duration::from_secs([120, 0, 1, 1 << 40][usize::from(choices & 3)]),
        strictness: if chosen(2) {
            Strictness::Strict
        } else {
            Strictness::Precise
        },
        locked_dials: if chosen(3) {
            LockedDials::Watch
        } else {
            LockedDials::Drop
        },
        reply: [Reply::Pong, Reply::Pong2, Reply::Other, Reply::None]
            [usize::from(choices >> 4 & 3)],
        reprobe: !chosen(6),
        block_udp: !chosen(7),
        judge_all: limits & 0xc0 == 0xc0,
        never_block: never_block.into_iter().map(Into::into).collect(),
        new_peers_per_minute: 4,
        answers_per_minute: 4,
        capacity: Capacity {
            flows: 1 + 2 * limit(0),
            buffered: [40, 500, 9_000, 64 << 10][limit(2)],
            hosts: 1 + limit(4),
            peers: 1 + 2 * limit(4),
            proven: 1 + limit(0),
        },
        ..EngineConfig::default()
    }
}

/// What happens next at the gateway.
enum Step {
    Packet(Vec<u8>, Option<Conntrack>),
    Wait(Duration),
    /// The next timeout comes.
    Timeout,
}

fn read_step(input: &mut Input<'_>) -> Option<Step> {
    match input.octet()? % 8 {
        0..=3 => read_segment(input),
        4 | 5 => read_datagram(input),
        6 => Some(match input.octet()? {
            0xff => Step::Timeout,
            millis @ 0..0x80 => Step::Wait(Duration::from_millis(millis.into())),
            seconds => Step::Wait(Duration::from_secs(1 << (seconds & 0x0f))),
        }),
        _ => Some(Step::Packet(input.field()?.to_vec(), None)),
    }
}

fn read_segment(input: &mut Input<'_>) -> Option<Step> {
    let (source, destination) = read_ends(input)?;
    let flags = input.octet()?;
    let is = |bit: u8| flags >> bit & 1 == 1;
    let (sequence, acknowledgement) = (input.octet()?, input.octet()?);
    let payload = if is(0) { &[] } else { read_payload(input)? };
    let acknowledgement = is(1).then(|| near(acknowledgement));
    let segment = Segment {
        syn: is(2),
        payload_len: payload.len() + if is(3) { 1000 } else { 0 },
        ..wire::data(near(sequence), acknowledgement, payload)
    };
    let conntrack = is(4).then_some(Conntrack {
        reply: is(5),
        from_start: is(6),
    });
    Some(Step::Packet(
        wire::tcp(source, destination, &segment),
        conntrack,
    ))
}

fn read_datagram(input: &mut Input<'_>) -> Option<Step> {
    let (source, destination) = read_ends(input)?;
    let payload = read_payload(input)?;
    Some(Step::Packet(wire::udp(source, destination, payload), None))
}

/// A few hosts that meet often.
fn read_ends(input: &mut Input<'_>) -> Option<(SocketAddrV4, SocketAddrV4)> {
    let (hosts, ports) = (input.octet()?, input.octet()?);
    let host = Ipv4Addr::new(10, 77, 1, hosts & 7);
    let peer = match hosts >> 3 & 7 {
        7 => Ipv4Addr::new(10, 77, 2, 1),
        number => Ipv4Addr::new(198, 18, 0, 3 + number),
    };
    let host = SocketAddrV4::new(host, [1214, 3000, 3001, 80][usize::from(ports & 3)]);
    let peer_port = [1214, 2001, 80, 443, 8080, 53, 0, 4999][usize::from(ports >> 2 & 7)];
    let peer = SocketAddrV4::new(peer, peer_port);
    Some(if hosts & 0x40 == 0 {
        (host, peer)
    } else {
        (peer, host)
    })
}

/// A phrase or a piece of one, or octets of the input's own.
fn read_payload<'a>(input: &mut Input<'a>) -> Option<&'a [u8]> {
    let kind = input.octet()?;
    if kind >= 0x80 {
        return Some(input.octets((kind & 0x7f).into()));
    }
    let phrase = PHRASES[usize::from(kind) % PHRASES.len()];
    let (skipped, kept) = (input.octet()?, input.octet()?);
    let rest = phrase.get(usize::from(skipped)..).unwrap_or(phrase);
    Some(&rest[..rest.len().min(kept.into())])
}

/// Numbers around the point where they wrap.
fn near(number: u8) -> u32 {
    u32::from(number).wrapping_sub(0x40)
}

/// An engine whose actions are followed.
struct Gateway {
    engine: Engine,
    config: EngineConfig,
    now: Timestamp,
    packets: u64,
    locked: BTreeSet<Ipv4Addr>,
    /// Known pairs of client and peer, and until when each is known.
    learned: BTreeMap<(Ipv4Addr, SocketAddrV4), Timestamp>,
}

impl Gateway {
    fn new(config: &EngineConfig, seed: u64) -> Self {
        Self {
            engine: Engine::new(config.clone(), seed),
            config: config.clone(),
            now: Timestamp::from_secs(1_000_000),
            packets: 0,
            locked: BTreeSet::new(),
            learned: BTreeMap::new(),
        }
    }

    fn take(&mut self, step: &Step) -> Option<Verdict> {
        let verdict = match step {
            Step::Packet(octets, conntrack) => Some(self.judge(octets, *conntrack)),
            Step::Wait(duration) => {
                self.wait(*duration);
                None
            }
            Step::Timeout => {
                let due = self.engine.poll_timeout().unwrap_or(self.now);
                self.expire(self.now.max(due));
                None
            }
        };
        self.drain();
        self.check_occupancy();
        verdict
    }

    fn judge(&mut self, bytes: &[u8], conntrack: Option<Conntrack>) -> Verdict {
        let is_known_pair = self.is_known_pair(bytes);
        let verdict = self.engine.handle_packet(
            self.now,
            Ingress {
                bytes,
                conntrack,
                link: None,
            },
        );
        self.packets += 1;
        assert!(!is_known_pair || keeps_apart(verdict), "{verdict:?}");
        assert!(!verdict.is_drop() || self.may_drop(bytes), "{verdict:?}");
        assert!(verdict.is_drop() || !self.must_drop(bytes), "{verdict:?}");
        verdict
    }

    /// Whether a packet crosses the gateway and is IPv4 at all.
    fn may_drop(&self, octets: &[u8]) -> bool {
        let Some(ends) = octets
            .first_chunk::<20>()
            .filter(|header| header[0] >> 4 == 4)
        else {
            return false;
        };
        let is_inside = |at: usize| {
            let address = [ends[at], ends[at + 1], ends[at + 2], ends[at + 3]];
            self.config.is_inside(IpAddr::from(address))
        };
        let crosses = is_inside(12) != is_inside(16);
        crosses || self.config.judge_all || Packet::parse(octets).is_err()
    }

    /// Whether a packet crosses between a client and a peer that it is known to use, by address.
    fn is_known_pair(&self, octets: &[u8]) -> bool {
        let Ok(packet) = Packet::parse(octets) else {
            return false;
        };
        let Some((SocketAddr::V4(source), SocketAddr::V4(destination))) = packet.ends() else {
            return false;
        };
        let is_inside = |end: SocketAddrV4| self.config.is_inside(IpAddr::V4(*end.ip()));
        let (client, peer) = match (is_inside(source), is_inside(destination)) {
            (true, false) => (source, destination),
            (false, true) => (destination, source),
            (true, true) | (false, false) => return false,
        };
        let known_until = self.learned.get(&(*client.ip(), peer));
        let is_udp = matches!(packet.transport, Transport::Udp(_));
        known_until.is_some_and(|until| *until > self.now)
            && !matches!(peer.port(), 80 | 443)
            && (self.config.block_udp || !is_udp)
            && !self.config.judge_all
    }

    /// Whether a packet is a whole ping from inside to outside.
    fn must_drop(&self, octets: &[u8]) -> bool {
        let Ok(Packet {
            source,
            destination,
            transport: Transport::Udp(datagram),
        }) = Packet::parse(octets)
        else {
            return false;
        };
        let is_v4 = source.is_ipv4();
        let leaves = self.config.is_inside(source) && !self.config.is_inside(destination);
        let is_whole = datagram.payload.len() == datagram.payload_len;
        let is_ping = protocol::read_datagram(datagram.payload) == Some(Evidence::UdpPing);
        is_v4 && leaves && is_whole && is_ping && self.config.block_udp
    }

    fn wait(&mut self, duration: Duration) {
        let end = self.now + duration;
        while let Some(due) = self.engine.poll_timeout().filter(|due| *due <= end) {
            self.expire(self.now.max(due));
            self.drain();
        }
        self.now = end;
    }

    fn expire(&mut self, at: Timestamp) {
        self.now = at;
        self.engine.handle_timeout(at);
        let next = self.engine.poll_timeout();
        assert!(
            next.is_none_or(|next| next > at),
            "{next:?} is not after {at:?}"
        );
    }

    fn drain(&mut self) {
        while let Some(action) = self.engine.poll_action() {
            self.carry_out(&action);
        }
        while self.engine.poll_event().is_some() {}
    }

    fn carry_out(&mut self, action: &Action) {
        match *action {
            Action::LockHost { host, for_ } => {
                assert!(!for_.is_zero());
                self.locked.insert(host);
            }
            Action::ReleaseHost { host } => {
                assert!(self.locked.remove(&host), "{host} was not locked");
            }
            Action::LearnPeer {
                client,
                peer,
                for_,
                kernel_drop,
            } => {
                let is_listed = self
                    .config
                    .never_block
                    .iter()
                    .any(|never| never.net.contains(&IpAddr::V4(*peer.ip())));
                let is_contested = matches!(peer.port(), 80 | 443);
                assert!(!is_listed && !peer.ip().is_private(), "{peer}");
                assert!(peer.port() >= 1024 || is_contested, "{peer}");
                assert_eq!(kernel_drop, !is_contested, "{peer}");
                self.learned.insert((client, peer), self.now + for_);
            }
            Action::ProveAddress { address, for_ } => {
                assert!(!for_.is_zero());
                assert!(self.config.judge_all || !self.config.is_inside(address));
            }
            Action::ForgetPeer { client, peer } => {
                assert!(
                    self.learned.remove(&(client, peer)).is_some(),
                    "{client} never used {peer}"
                );
            }
            Action::Answer { to, payload, .. } | Action::Probe { to, payload, .. } => {
                assert!(!payload.is_empty());
                assert!(self.config.judge_all || self.config.is_inside(IpAddr::V4(*to.ip())));
            }
        }
    }

    fn check_occupancy(&self) {
        let (held, capacity) = (self.engine.occupancy(), self.config.capacity);
        assert!(held.flows <= capacity.flows, "{held:?}");
        assert!(held.buffered <= capacity.buffered, "{held:?}");
        assert_eq!(held.buffered, held.counted_buffered, "{held:?}");
        assert!(held.hosts <= capacity.hosts, "{held:?}");
        assert!(held.peers <= capacity.peers, "{held:?}");
        assert!(held.proven <= capacity.proven, "{held:?}");
        assert!(self.locked.len() <= capacity.hosts, "{:?}", self.locked);
        assert!(self.learned.len() <= capacity.peers, "{:?}", self.learned);
    }

    fn check_counters(&self) {
        let counters = self.engine.counters();
        assert_eq!(counters.packets, self.packets);
        assert_eq!(counters.verdicts.values().sum::<u64>(), self.packets);
        assert!(counters.malformed <= self.packets);
        assert!(counters.evidence.values().sum::<u64>() <= self.packets);
    }
}

/// Whether nothing passes, save what belongs to a flow cleared before.
fn keeps_apart(verdict: Verdict) -> bool {
    match verdict {
        Verdict::Drop(_) | Verdict::Clear(_) => true,
        Verdict::Pass(reason) => reason == PassReason::Cleared,
        Verdict::Tolerate(_) => false,
    }
}

fn seeds() -> Vec<Vec<u8>> {
    // A large gateway as installed: 0x3f would judge everything.
    let start = [0x3f, 0x00];
    let ping = datagram(0, 4, 0);
    let dial = [0, 1, 0x04, 0b101, 9, 0];
    let accept = [0, 0x41, 0x04, 0b111, 0x40, 10];
    let says = |phrase: u8| [0, 1, 0x04, 0b10, 10, 0x41, phrase, 0, 0xff];
    let answers = |phrase: u8| [0, 0x41, 0x04, 0b10, 0x41, 10, phrase, 0, 0xff];
    let wait = |octet: u8| [6, octet];
    let conversation = |initiator, responder| {
        [
            &start[..],
            &dial,
            &accept,
            &says(initiator),
            &answers(responder),
            &wait(0xff),
        ]
        .concat()
    };
    let mut seeds: Vec<_> = (0..PHRASES.len() as u8)
        .map(|phrase| conversation(phrase, 14))
        .collect();
    seeds.push(conversation(2, 5));
    seeds.push(
        [
            &start[..],
            &ping,
            &dial,
            &wait(0x86),
            &ping,
            &wait(0xff),
            &wait(0x8f),
        ]
        .concat(),
    );
    seeds.push(
        [
            &[0x00, 0x80][..],
            &ping,
            &datagram(1, 8, 0),
            &datagram(9, 5, 5),
        ]
        .concat(),
    );
    seeds.push([&[0xd5, 0x0c][..], &ping, &says(3), &answers(4)].concat());
    seeds.push(one_octet_segments());
    seeds
}

fn datagram(hosts: u8, ports: u8, phrase: u8) -> [u8; 6] {
    [4, hosts, ports, phrase, 0, 0xff]
}

/// A file request, octet by octet, as the kernel shows it.
fn one_octet_segments() -> Vec<u8> {
    let segment = |at: u8| [0, 2, 0x04, 0b101_0010, at + 0x40, 0x40, 3, at, 1];
    let segments = (0..40).flat_map(segment);
    [0x3f, 0x00].into_iter().chain(segments).collect()
}
