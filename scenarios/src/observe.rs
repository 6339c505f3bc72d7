//! What three witnesses saw of one run, joined into one list of sightings.
//!
//! The witnesses are the client's own sockets, the wires on both sides of the gateway, and the
//! peer's own sockets. None of them knows of the device under test, and the device's own log is not
//! among them. A sighting says that bytes *arrived*: what a client sent proves nothing, what a peer
//! or the outside wire saw of it does.

mod frames;
mod reports;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::ops::RangeInclusive;

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};
use simulator::report::{AttemptKind, Line, Mode};

use crate::level::Level;

/// The name under which observations stand that belong to no known host.
pub const UNKNOWN_HOST: &str = "unknown client";

/// What the witnesses' accounts are read against: who lives where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Site {
    /// The network of outside peers; whatever has an address in it is a FastTrack peer.
    pub peers: Ipv4Net,
    /// The peers that answer. The network may hold addresses that nobody listens on.
    pub listening: BTreeSet<SocketAddrV4>,
    /// The inside hosts.
    pub hosts: Vec<Host>,
    /// Whether the line between the gateway and the outside loses packets or holds some back: then what
    /// was sent at the far end has not yet been seen by the gateway.
    pub line_loses: bool,
}

/// One inside host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// Its name in tables.
    pub name: String,
    /// Its address on the LAN.
    pub address: Ipv4Addr,
}

/// One frame off a wire, from its Ethernet header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// Microseconds since the Unix epoch.
    pub at_us: u64,
    /// The octets.
    pub bytes: Vec<u8>,
}

/// One line of an inside host's report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostLine {
    /// The host the reporting process runs on.
    pub host: String,
    /// What it said.
    pub line: Line,
}

/// The raw accounts of one run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Evidence {
    /// Reports of the simulated clients.
    pub clients: Vec<HostLine>,
    /// Reports of the outside peers.
    pub peers: Vec<Line>,
    /// Frames between the inside hosts and the gateway.
    pub inside: Vec<Frame>,
    /// Frames at the outside end.
    pub outside: Vec<Frame>,
    /// Frames that passed and are missing from the recordings. What was seen then still counts, but
    /// nothing follows from what was not.
    pub lost_frames: u32,
    /// When the peers were told to stop, in microseconds since the Unix epoch.
    pub ended_us: u64,
    /// First and last microsecond of each time in which the device could see nothing, because it was
    /// made to die. Nobody gives himself away to a device that is not there.
    pub blind_us: Vec<(u64, u64)>,
    /// Hosts that had given themselves away before the recording began and are still remembered, and
    /// when they had.
    pub known_us: BTreeMap<String, u64>,
}

/// Who saw something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Witness {
    /// The client's own sockets.
    Client,
    /// The wire between the hosts and the gateway.
    InsideWire,
    /// The wire at the outside end.
    OutsideWire,
    /// The peer's own sockets.
    Peer,
}

impl fmt::Display for Witness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Client => "client socket",
            Self::InsideWire => "inside wire",
            Self::OutsideWire => "outside wire",
            Self::Peer => "peer socket",
        })
    }
}

/// Which way something travelled across the gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// From an inside host to a peer.
    Outward,
    /// From a peer to an inside host.
    Inward,
}

/// The transport of a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Transport {
    /// UDP.
    Udp,
    /// TCP.
    Tcp,
}

/// A conversation between an inside host and a peer, as one witness saw its addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Flow {
    /// UDP or TCP.
    pub transport: Transport,
    /// The inside end; behind NAT an outside witness sees the gateway's address here.
    pub inside: SocketAddrV4,
    /// The outside peer.
    pub peer: SocketAddrV4,
}

/// What is the same about a flow on both sides of a NAT.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct FlowKey {
    /// UDP or TCP.
    pub transport: Transport,
    /// The inside end's port. Each host draws from its own range, so that it survives NAT.
    pub port: u16,
    /// The outside peer.
    pub peer: SocketAddrV4,
}

impl Flow {
    /// The part of the flow by which accounts from both sides of a NAT are joined.
    #[must_use]
    pub fn key(&self) -> FlowKey {
        FlowKey {
            transport: self.transport,
            port: self.inside.port(),
            peer: self.peer,
        }
    }
}

impl fmt::Display for Flow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let transport = match self.transport {
            Transport::Udp => "udp",
            Transport::Tcp => "tcp",
        };
        write!(f, "{transport} {} - {}", self.inside, self.peer)
    }
}

/// One witness's statement that a contact got to a level.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sighting {
    /// Microseconds since the Unix epoch.
    pub at_us: u64,
    /// Who saw it.
    pub witness: Witness,
    /// Which way the bytes had travelled.
    pub direction: Direction,
    /// The inside host, or [`UNKNOWN_HOST`].
    pub host: String,
    /// Between whom.
    pub flow: Flow,
    /// How far the contact had got.
    pub level: Level,
}

/// A contact attempt that a client announced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// Microseconds since the Unix epoch.
    pub at_us: u64,
    /// The inside host.
    pub host: String,
    /// What was tried.
    pub kind: AttemptKind,
    /// Between whom.
    pub flow: Flow,
}

/// Two witnesses that cannot both be right.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disagreement {
    /// What does not fit, as a sentence.
    pub sentence: String,
    /// The sighting that another witness should have confirmed.
    pub sighting: Sighting,
}

/// Everything the witnesses saw, joined.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Observations {
    /// What arrived, in order of time.
    pub sightings: Vec<Sighting>,
    /// What the clients tried.
    pub attempts: Vec<Attempt>,
    /// The modes each host went through, in order.
    pub modes: BTreeMap<String, Vec<Mode>>,
    /// Datagrams that clients received in the name of a peer that never sent them, per host.
    pub forged: BTreeMap<String, usize>,
    /// Connections that came about and ended again without having reached their goal, per host.
    pub ended: BTreeMap<String, usize>,
    /// When each host had shown enough for any careful gateway to know it, in microseconds.
    pub identified_us: BTreeMap<String, u64>,
    /// Witnesses that contradict each other.
    pub disagreements: Vec<Disagreement>,
}

/// Frames on their way from hosts inside to peers, of a time.
pub(crate) fn towards_peers<'a>(
    site: &'a Site,
    inside: &'a [Frame],
    time: &'a RangeInclusive<u64>,
) -> impl Iterator<Item = &'a Frame> {
    let during = inside.iter().filter(|frame| time.contains(&frame.at_us));
    during.filter(|frame| frames::destination(frame).is_some_and(|to| site.peers.contains(&to)))
}

/// What a host showed so shortly before its device died may have been understood in part only, and is
/// forgotten with it. Microseconds.
const FORGOTTEN_US: u64 = 1_000_000;

/// Once a peer has sent the beginning of its answer so often, some of it got as far as the gateway.
const SENT_ENOUGH: usize = 3;

/// Before the peers were told to stop, for so long a frame may stay without the peer's own line:
/// its process may have ended between the two. Microseconds.
const CLOSING_GRACE_US: u64 = 500_000;

impl Observations {
    /// Joins the accounts of one run.
    #[must_use]
    pub fn join(site: &Site, evidence: &Evidence) -> Self {
        let clients = reports::ClientAccount::read(site, &evidence.clients);
        let peers = reports::PeerAccount::read(site, &evidence.peers);
        let inside = frames::WireAccount::read(site, &evidence.inside);
        let outside = frames::WireAccount::read(site, &evidence.outside);
        let register = Register::new(site, &clients.attempts);
        let genuine = Genuine::new(&outside, &peers);

        let mut joined = Self {
            modes: clients.modes.clone(),
            ended: clients.ended.clone(),
            identified_us: identify(
                &clients,
                [&inside, &outside],
                &register,
                &evidence.blind_us,
                site.line_loses,
            ),
            ..Self::default()
        };
        joined
            .sightings
            .extend(inside.streams(Witness::InsideWire, Direction::Inward, &register));
        joined.sightings.extend(outside.streams(
            Witness::OutsideWire,
            Direction::Outward,
            &register,
        ));
        joined.sightings.extend(outside.probes_outward(&register));
        joined.sightings.extend(peers.sightings(&register));
        joined.sightings.extend(clients.stream_sightings());
        joined.admit_datagrams(inside.datagrams_inward(&register), &genuine);
        joined.admit_datagrams(clients.datagrams_inward(), &genuine);
        joined.count_unsolicited(&clients.unsolicited, &genuine);
        joined.forgive_survivors(&inside, evidence);
        joined
            .sightings
            .sort_by_key(|sighting| (sighting.at_us, sighting.witness, sighting.flow));
        joined.attempts = clients.attempts;
        if evidence.lost_frames == 0 {
            joined.disagreements = cross_examine(site, &joined.sightings, evidence.ended_us);
        }
        joined
    }

    /// Leaves out how far connections got that were up while no device watched, once it was gone: the
    /// next device meets them in their middle, and cuts them when their host gives itself away. Hosts
    /// that were known before get nothing of the kind.
    fn forgive_survivors(&mut self, inside: &frames::WireAccount, evidence: &Evidence) {
        for &(from_us, until_us) in &evidence.blind_us {
            let survivors = inside.up_between(from_us, until_us);
            let identified = &self.identified_us;
            let is_forgiven = |sighting: &Sighting| {
                let was_known = evidence.known_us.contains_key(&sighting.host)
                    || identified
                        .get(&sighting.host)
                        .is_some_and(|at| *at < from_us);
                // An opener that went before is forgotten with the device, an answer is not forgiven.
                let is_later = sighting.at_us >= from_us || sighting.level == Level::Opened;
                let is_contact = matches!(sighting.level, Level::Opened | Level::Session);
                is_contact && is_later && !was_known && survivors.contains(&sighting.flow.key())
            };
            self.sightings.retain(|sighting| !is_forgiven(sighting));
        }
    }

    /// Takes datagrams that came in from a peer's address: those the peer sent count as answers,
    /// the others as forged.
    fn admit_datagrams(&mut self, datagrams: Vec<InwardDatagram>, genuine: &Genuine) {
        for datagram in datagrams {
            if genuine.contains(&datagram) {
                self.sightings.push(datagram.sighting);
            } else if datagram.sighting.witness == Witness::Client {
                *self.forged.entry(datagram.sighting.host).or_default() += 1;
            }
        }
    }

    /// Counts unsolicited datagrams nobody sent; those a peer did send are the inside wire's to tell.
    fn count_unsolicited(
        &mut self,
        unsolicited: &[(String, SocketAddrV4, Vec<u8>)],
        genuine: &Genuine,
    ) {
        for (host, peer, payload) in unsolicited {
            if !genuine.sent(*peer, payload) {
                *self.forged.entry(host.clone()).or_default() += 1;
            }
        }
    }
}

/// A datagram that reached the inside in a peer's name.
#[derive(Debug, Clone, PartialEq, Eq)]
struct InwardDatagram {
    sighting: Sighting,
    /// The payload; absent when the witness did not record it, which speaks for it being genuine.
    payload: Option<Vec<u8>>,
}

/// The datagrams that peers really sent, by their own account or by the outside wire's.
struct Genuine(BTreeSet<(SocketAddrV4, Vec<u8>)>);

impl Genuine {
    fn new(outside: &frames::WireAccount, peers: &reports::PeerAccount) -> Self {
        Self(
            outside
                .payloads_inward()
                .chain(peers.sent_datagrams.iter().cloned())
                .collect(),
        )
    }

    fn contains(&self, datagram: &InwardDatagram) -> bool {
        let peer = datagram.sighting.flow.peer;
        datagram
            .payload
            .as_ref()
            .is_none_or(|payload| self.sent(peer, payload))
    }

    fn sent(&self, peer: SocketAddrV4, payload: &[u8]) -> bool {
        self.0.contains(&(peer, payload.to_vec()))
    }
}

/// Who stands behind an address or, behind NAT, behind a port.
struct Register {
    by_address: BTreeMap<Ipv4Addr, String>,
    by_key: BTreeMap<FlowKey, BTreeSet<String>>,
    kinds: BTreeMap<FlowKey, AttemptKind>,
}

impl Register {
    fn new(site: &Site, attempts: &[Attempt]) -> Self {
        let by_address = site
            .hosts
            .iter()
            .map(|host| (host.address, host.name.clone()))
            .collect();
        let mut by_key = BTreeMap::<_, BTreeSet<_>>::new();
        for attempt in attempts {
            by_key
                .entry(attempt.flow.key())
                .or_default()
                .insert(attempt.host.clone());
        }
        let kinds = attempts
            .iter()
            .map(|attempt| (attempt.flow.key(), attempt.kind))
            .collect();
        Self {
            by_address,
            by_key,
            kinds,
        }
    }

    /// The host behind a flow; two hosts that claim the same flow are as good as none.
    fn host(&self, flow: &Flow) -> String {
        if let Some(name) = self.by_address.get(flow.inside.ip()) {
            return name.clone();
        }
        match self.by_key.get(&flow.key()) {
            Some(hosts) if hosts.len() == 1 => hosts.first().cloned(),
            Some(_) | None => None,
        }
        .unwrap_or_else(|| UNKNOWN_HOST.to_owned())
    }

    fn is_dial(&self, flow: &Flow) -> bool {
        self.kinds.get(&flow.key()) == Some(&AttemptKind::Dial)
    }
}

/// When each host had given itself away beyond doubt: its first ping, its first request or `GIVE`
/// for a file, its second opener to another address, or the first answer a peer sent to an opener.
/// What a client writes counts once the wire between it and the gateway has carried it.
fn identify(
    clients: &reports::ClientAccount,
    [inside, outside]: [&frames::WireAccount; 2],
    register: &Register,
    blind_us: &[(u64, u64)],
    line_loses: bool,
) -> BTreeMap<String, u64> {
    let mut identified = BTreeMap::<String, u64>::new();
    let survivors: Vec<_> = blind_us
        .iter()
        .map(|&(from, until)| (from, inside.up_between(from, until)))
        .collect();
    let is_survivors = |at_us: u64, flow: &Flow| {
        survivors
            .iter()
            .any(|(from, flows)| at_us >= *from && flows.contains(&flow.key()))
    };
    let answers = outside
        .answers(if line_loses { SENT_ENOUGH } else { 1 })
        .filter(|(at_us, flow)| !is_survivors(*at_us, flow))
        .map(|(at, flow)| (register.host(&flow), at));
    let is_seen = |at_us: u64| {
        let is_lost =
            |(from, to): &(u64, u64)| (from.saturating_sub(FORGOTTEN_US)..=*to).contains(&at_us);
        !blind_us.iter().any(is_lost)
    };
    let arrival = |telling: &reports::Telling<'_>| match telling.attempt.flow.transport {
        Transport::Udp => Some(telling.at_us),
        Transport::Tcp => inside.carried(&telling.attempt.flow, telling.octets, telling.at_us),
    };
    let revealed = clients
        .telling(blind_us)
        .filter_map(|telling| Some((telling.host.to_owned(), arrival(&telling)?)))
        .filter(|(_, at_us)| is_seen(*at_us));
    for (host, at_us) in revealed.chain(answers) {
        let known = identified.entry(host).or_insert(at_us);
        *known = at_us.min(*known);
    }
    identified
}

/// Finds sightings that another witness must have made too and did not.
fn cross_examine(site: &Site, sightings: &[Sighting], ended_us: u64) -> Vec<Disagreement> {
    let heard: BTreeSet<_> = sightings.iter().map(Testimony::of).collect();
    let mut examined = BTreeSet::new();
    let mut found = Vec::new();
    for sighting in sightings {
        let testimony = Testimony::of(sighting);
        if !examined.insert(testimony) {
            continue;
        }
        let Some((confirmed_by, sentence)) = confirmation(site, sighting, ended_us) else {
            continue;
        };
        if !heard.contains(&Testimony {
            witness: confirmed_by,
            ..testimony
        }) {
            found.push(Disagreement {
                sentence: sentence.to_owned(),
                sighting: sighting.clone(),
            });
        }
    }
    found
}

/// That a witness saw anything at all travel one way on a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Testimony {
    flow: FlowKey,
    witness: Witness,
    direction: Direction,
}

impl Testimony {
    fn of(sighting: &Sighting) -> Self {
        Self {
            flow: sighting.flow.key(),
            witness: sighting.witness,
            direction: sighting.direction,
        }
    }
}

/// The witness that must have seen a sighting's bytes as well, and what it means if it did not.
fn confirmation(
    site: &Site,
    sighting: &Sighting,
    ended_us: u64,
) -> Option<(Witness, &'static str)> {
    let in_time = sighting.at_us + CLOSING_GRACE_US < ended_us;
    match (sighting.witness, sighting.direction) {
        (Witness::Client, Direction::Inward) => Some((
            Witness::InsideWire,
            "the client received something that the inside wire never carried",
        )),
        (Witness::Peer, Direction::Outward) => Some((
            Witness::OutsideWire,
            "a peer received something that the outside wire never carried",
        )),
        (Witness::OutsideWire, Direction::Outward)
            if in_time && site.listening.contains(&sighting.flow.peer) =>
        {
            Some((
                Witness::Peer,
                "the outside wire carried something to a peer that says it got nothing",
            ))
        }
        (
            Witness::Client | Witness::InsideWire | Witness::OutsideWire | Witness::Peer,
            Direction::Outward | Direction::Inward,
        ) => None,
    }
}
