//! The third witness: frames on a wire, read here with recognition of its own.
//!
//! Whatever carries payload to or from an address of the peers' network is part of a contact. Bytes
//! are looked at only to tell a file transfer from a session, never to decide whether to look.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddrV4};

use etherparse::{EtherType, Ethernet2Slice, IpNumber, LaxIpv4Slice, TcpSlice, UdpHeaderSlice};

use super::{
    Direction, Flow, FlowKey, Frame, InwardDatagram, Register, Sighting, Site, Transport, Witness,
};
use crate::level::Level;

/// Octets of the opener, which is all an initiator says before it has been answered.
const OPENER_LEN: u32 = 12;

/// What heads of the HTTP transfer begin with.
const TRANSFER_HEADS: [&[u8]; 3] = [b"GET ", b"GIVE", b"HTTP"];

/// How many first bytes of a stream are counted: more than any request needs to say what it is.
const COUNTED: u32 = u64::BITS;

/// How many first bytes of a stream tell a transfer from a session.
const HEAD_LEN: usize = 4;

/// What one wire carried between inside hosts and peers.
#[derive(Debug, Default)]
pub(super) struct WireAccount {
    datagrams: Vec<Datagram>,
    /// Connections in order of their SYN; a later one on the same ports starts a new entry.
    connections: BTreeMap<FlowKey, Vec<Connection>>,
}

#[derive(Debug)]
struct Datagram {
    at_us: u64,
    direction: Direction,
    flow: Flow,
    payload: Vec<u8>,
}

/// One TCP connection as far as this wire carried it.
#[derive(Debug)]
struct Connection {
    flow: Flow,
    initiator: Direction,
    /// When its first and its last frame passed.
    began_us: u64,
    last_us: u64,
    outward: Stream,
    inward: Stream,
}

/// One direction of a connection.
#[derive(Debug, Default)]
struct Stream {
    /// Sequence number of the first payload byte.
    first: Option<u32>,
    /// When an acknowledging segment passed: the handshake is complete for whoever receives it.
    acknowledged_us: Option<u64>,
    /// When payload passed first.
    payload_us: Option<u64>,
    /// Each time the stream's first octet passed.
    beginnings_us: Vec<u64>,
    /// When payload beyond an opener's length passed first.
    beyond_opener_us: Option<u64>,
    /// The stream's first bytes, those that passed.
    head: [Option<u8>; HEAD_LEN],
    /// Which of the stream's first bytes have passed so far, the first one in the lowest bit.
    passed: u64,
    /// Each time more of the first bytes had passed without a gap: when, and how many.
    growth: Vec<(u64, u32)>,
}

/// What a stream's first bytes say it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Head {
    Transfer,
    /// Too few bytes passed to exclude a transfer.
    Undecided,
    Other,
}

/// Where a frame goes that may be part of a contact.
pub(super) fn destination(frame: &Frame) -> Option<Ipv4Addr> {
    Packet::read(&frame.bytes).map(|packet| *packet.destination.ip())
}

impl WireAccount {
    pub(super) fn read(site: &Site, frames: &[Frame]) -> Self {
        let mut account = Self::default();
        for frame in frames {
            if let Some(packet) = Packet::read(&frame.bytes) {
                account.take(site, frame.at_us, &packet);
            }
        }
        account
    }

    fn take(&mut self, site: &Site, at_us: u64, packet: &Packet<'_>) {
        let (direction, inside, peer) = if site.peers.contains(packet.destination.ip()) {
            (Direction::Outward, packet.source, packet.destination)
        } else if site.peers.contains(packet.source.ip()) {
            (Direction::Inward, packet.destination, packet.source)
        } else {
            return;
        };
        match &packet.content {
            Content::Datagram(payload) => self.datagrams.push(Datagram {
                at_us,
                direction,
                flow: Flow {
                    transport: Transport::Udp,
                    inside,
                    peer,
                },
                payload: payload.to_vec(),
            }),
            Content::Segment(segment) => {
                let flow = Flow {
                    transport: Transport::Tcp,
                    inside,
                    peer,
                };
                self.connection(at_us, flow, direction, segment)
                    .take(at_us, direction, segment);
            }
        }
    }

    fn connection(
        &mut self,
        at_us: u64,
        flow: Flow,
        direction: Direction,
        segment: &TcpSlice<'_>,
    ) -> &mut Connection {
        let opening = segment.syn() && !segment.ack();
        let connections = self.connections.entry(flow.key()).or_default();
        let current = connections.last().is_some_and(|connection| {
            !opening || connection.began_with(direction, segment.sequence_number())
        });
        if !current {
            // Without a SYN seen, whoever speaks first counts as the initiator.
            connections.push(Connection::new(at_us, flow, direction));
        }
        connections
            .last_mut()
            .expect("one was pushed if there was none")
    }

    /// Payload-bearing or forged alike: datagrams that came in from peers' addresses.
    pub(super) fn datagrams_inward(&self, register: &Register) -> Vec<InwardDatagram> {
        self.passing(Direction::Inward)
            .map(|datagram| InwardDatagram {
                sighting: datagram.sighting(Witness::InsideWire, Level::ProbeAnswered, register),
                payload: Some(datagram.payload.clone()),
            })
            .collect()
    }

    /// Datagrams that got out to peers.
    pub(super) fn probes_outward(&self, register: &Register) -> Vec<Sighting> {
        self.passing(Direction::Outward)
            .map(|datagram| datagram.sighting(Witness::OutsideWire, Level::ProbeOut, register))
            .collect()
    }

    /// What peers sent by UDP, as this wire carried it.
    pub(super) fn payloads_inward(&self) -> impl Iterator<Item = (SocketAddrV4, Vec<u8>)> {
        self.passing(Direction::Inward)
            .map(|datagram| (datagram.flow.peer, datagram.payload.clone()))
    }

    fn passing(&self, direction: Direction) -> impl Iterator<Item = &Datagram> {
        self.datagrams
            .iter()
            .filter(move |datagram| datagram.direction == direction)
    }

    /// How far connections got, judged by what passed here in one direction.
    pub(super) fn streams(
        &self,
        witness: Witness,
        direction: Direction,
        register: &Register,
    ) -> Vec<Sighting> {
        self.all_connections()
            .flat_map(|connection| {
                connection
                    .levels(direction, register.is_dial(&connection.flow))
                    .map(move |(at_us, level)| Sighting {
                        at_us,
                        witness,
                        direction,
                        host: register.host(&connection.flow),
                        flow: connection.flow,
                        level,
                    })
            })
            .collect()
    }

    /// When a peer had sent the beginning of what it says for the `nth` time, per connection.
    pub(super) fn answers(&self, nth: usize) -> impl Iterator<Item = (u64, Flow)> {
        self.all_connections().filter_map(move |connection| {
            let sent = connection.inward.beginnings_us.get(nth - 1)?;
            Some((*sent, connection.flow))
        })
    }

    /// When the first `octets` of what an inside host wrote at a time had passed, [`COUNTED`] being
    /// enough; of connections on the same ports, the last one dialled by then counts.
    pub(super) fn carried(&self, flow: &Flow, octets: u64, written_us: u64) -> Option<u64> {
        let connections = self.connections.get(&flow.key())?;
        let by_then = |connection: &&Connection| connection.began_us <= written_us;
        let connection = connections.iter().rfind(by_then)?;
        let octets = u32::try_from(octets).unwrap_or(u32::MAX);
        connection.outward.carried(octets.min(COUNTED))
    }

    /// Connections that were dialled no later than `until_us`, and had not ended by `from_us`.
    pub(super) fn up_between(&self, from_us: u64, until_us: u64) -> BTreeSet<FlowKey> {
        self.all_connections()
            .filter(|connection| connection.began_us <= until_us)
            .filter(|connection| connection.last_us >= from_us)
            .map(|connection| connection.flow.key())
            .collect()
    }

    fn all_connections(&self) -> impl Iterator<Item = &Connection> {
        self.connections.values().flatten()
    }
}

impl Datagram {
    fn sighting(&self, witness: Witness, level: Level, register: &Register) -> Sighting {
        Sighting {
            at_us: self.at_us,
            witness,
            direction: self.direction,
            host: register.host(&self.flow),
            flow: self.flow,
            level,
        }
    }
}

impl Connection {
    fn new(began_us: u64, flow: Flow, initiator: Direction) -> Self {
        Self {
            flow,
            initiator,
            began_us,
            last_us: began_us,
            outward: Stream::default(),
            inward: Stream::default(),
        }
    }

    fn stream(&self, direction: Direction) -> &Stream {
        match direction {
            Direction::Outward => &self.outward,
            Direction::Inward => &self.inward,
        }
    }

    fn stream_mut(&mut self, direction: Direction) -> &mut Stream {
        match direction {
            Direction::Outward => &mut self.outward,
            Direction::Inward => &mut self.inward,
        }
    }

    /// Whether a SYN is this connection's own, sent again.
    fn began_with(&self, direction: Direction, sequence: u32) -> bool {
        self.initiator == direction
            && self.stream(direction).first == Some(sequence.wrapping_add(1))
    }

    fn take(&mut self, at_us: u64, direction: Direction, segment: &TcpSlice<'_>) {
        self.last_us = at_us;
        let stream = self.stream_mut(direction);
        if segment.rst() {
            return;
        }
        if segment.ack() {
            stream.acknowledged_us.get_or_insert(at_us);
        }
        let sequence = segment.sequence_number();
        let first = *stream
            .first
            .get_or_insert(sequence.wrapping_add(u32::from(segment.syn())));
        if !segment.payload().is_empty() {
            stream.take_payload(at_us, sequence.wrapping_sub(first), segment.payload());
        }
    }

    /// The levels this connection reached for whoever receives `direction`, with their times.
    fn levels(
        &self,
        direction: Direction,
        is_dial: bool,
    ) -> impl Iterator<Item = (u64, Level)> + use<> {
        let stream = self.stream(direction);
        let transfer = match stream.head() {
            Head::Transfer => true,
            Head::Undecided => !is_dial,
            Head::Other => false,
        };
        let begun = if transfer {
            Level::Transfer
        } else if direction == self.initiator {
            Level::Opened
        } else {
            Level::Session
        };
        let beyond = if transfer {
            Level::Transfer
        } else {
            Level::Session
        };
        [
            stream.acknowledged_us.map(|at| (at, Level::Touched)),
            stream.payload_us.map(|at| (at, begun)),
            stream.beyond_opener_us.map(|at| (at, beyond)),
        ]
        .into_iter()
        .flatten()
    }
}

impl Stream {
    fn take_payload(&mut self, at_us: u64, offset: u32, payload: &[u8]) {
        self.payload_us.get_or_insert(at_us);
        if offset == 0 {
            self.beginnings_us.push(at_us);
        }
        let length = u32::try_from(payload.len()).unwrap_or(u32::MAX);
        if offset.saturating_add(length) > OPENER_LEN {
            self.beyond_opener_us.get_or_insert(at_us);
        }
        for (at, byte) in (offset as usize..HEAD_LEN).zip(payload) {
            self.head[at] = Some(*byte);
        }
        self.count(at_us, offset, length);
    }

    /// Notes which of the first bytes have passed now.
    fn count(&mut self, at_us: u64, offset: u32, length: u32) {
        let end = offset.saturating_add(length).min(COUNTED);
        let before = self.passed.trailing_ones();
        for place in offset..end {
            self.passed |= 1 << place;
        }
        let now = self.passed.trailing_ones();
        if now > before {
            self.growth.push((at_us, now));
        }
    }

    fn carried(&self, octets: u32) -> Option<u64> {
        let enough = |(_, passed): &&(u64, u32)| *passed >= octets;
        self.growth.iter().find(enough).map(|(at_us, _)| *at_us)
    }

    /// What the first bytes that passed say; a byte that did not pass fits everything.
    fn head(&self) -> Head {
        let fits = |mark: &&[u8]| {
            self.head
                .iter()
                .zip(*mark)
                .all(|(seen, expected)| seen.is_none_or(|byte| byte.eq_ignore_ascii_case(expected)))
        };
        match TRANSFER_HEADS.iter().any(fits) {
            true if self.head.iter().all(Option::is_some) => Head::Transfer,
            true => Head::Undecided,
            false => Head::Other,
        }
    }
}

/// An IPv4 packet as far as the judge reads it.
struct Packet<'a> {
    source: SocketAddrV4,
    destination: SocketAddrV4,
    content: Content<'a>,
}

enum Content<'a> {
    /// A UDP payload that is not empty, or the part of it in a first fragment.
    Datagram(&'a [u8]),
    Segment(TcpSlice<'a>),
}

impl<'a> Packet<'a> {
    /// Reads an Ethernet frame; none for whatever is not UDP with payload or TCP over IPv4, and
    /// for later fragments, whose first one has been counted.
    fn read(frame: &'a [u8]) -> Option<Self> {
        let ethernet = Ethernet2Slice::from_slice_without_fcs(frame).ok()?;
        if ethernet.ether_type() != EtherType::IPV4 {
            return None;
        }
        // Lax, for a recording may keep only the heads of frames.
        let (ip, _) = LaxIpv4Slice::from_slice(ethernet.payload_slice()).ok()?;
        let header = ip.header();
        if header.fragments_offset().value() > 0 {
            return None;
        }
        let payload = ip.payload().payload;
        let (ports, content) = match header.protocol() {
            IpNumber::UDP => read_udp(payload)?,
            IpNumber::TCP => read_tcp(payload)?,
            _ => return None,
        };
        Some(Self {
            source: SocketAddrV4::new(header.source_addr(), ports.0),
            destination: SocketAddrV4::new(header.destination_addr(), ports.1),
            content,
        })
    }
}

fn read_udp(bytes: &[u8]) -> Option<((u16, u16), Content<'_>)> {
    let header = UdpHeaderSlice::from_slice(bytes).ok()?;
    let announced = usize::from(header.length());
    let payload = &bytes[header.slice().len()..announced.clamp(header.slice().len(), bytes.len())];
    let has_payload = announced > header.slice().len();
    let ports = (header.source_port(), header.destination_port());
    has_payload.then_some((ports, Content::Datagram(payload)))
}

fn read_tcp(bytes: &[u8]) -> Option<((u16, u16), Content<'_>)> {
    let segment = TcpSlice::from_slice(bytes).ok()?;
    Some((
        (segment.source_port(), segment.destination_port()),
        Content::Segment(segment),
    ))
}
