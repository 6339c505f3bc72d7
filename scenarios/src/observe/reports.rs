//! Two of the three witnesses: what clients and peers say about their own sockets.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{SocketAddr, SocketAddrV4};

use simulator::report::{AttemptId, AttemptKind, Event, Line, Mode, Part};

use super::{
    Attempt, Direction, Flow, HostLine, InwardDatagram, Register, Sighting, Site, Transport,
    Witness,
};
use crate::level::Level;

/// What the clients said.
#[derive(Debug, Default)]
pub(super) struct ClientAccount {
    pub(super) attempts: Vec<Attempt>,
    pub(super) modes: BTreeMap<String, Vec<Mode>>,
    streams: Vec<Sighting>,
    datagrams: Vec<InwardDatagram>,
    /// Datagrams that answer nothing: the host, the peer in whose name they came, and the payload.
    pub(super) unsolicited: Vec<(String, SocketAddrV4, Vec<u8>)>,
    /// Per host, the connections that came about and ended again.
    pub(super) ended: BTreeMap<String, usize>,
    connected: BTreeSet<(String, String, AttemptId)>,
    /// When and to whom payload was sent first, per host and flow.
    sent: Vec<Sent>,
    by_id: BTreeMap<(String, String, AttemptId), Attempt>,
}

#[derive(Debug)]
struct Sent {
    at_us: u64,
    host: String,
    part: Part,
    octets: u64,
    attempt: Attempt,
}

/// Something a client sent that tells what it is.
#[derive(Debug)]
pub(super) struct Telling<'a> {
    /// The inside host.
    pub(super) host: &'a str,
    /// When the client wrote it.
    pub(super) at_us: u64,
    /// How many octets.
    pub(super) octets: u64,
    /// On which attempt.
    pub(super) attempt: &'a Attempt,
}

impl ClientAccount {
    pub(super) fn read(site: &Site, lines: &[HostLine]) -> Self {
        let mut account = Self::default();
        for HostLine { host, line } in lines {
            account.take(site, host, line);
        }
        account
    }

    fn take(&mut self, site: &Site, host: &str, line: &Line) {
        match &line.event {
            Event::Attempt {
                id,
                kind,
                local,
                peer,
            } => {
                self.begin(site, host, line, *id, *kind, (*local, *peer));
            }
            Event::Connected { id } => {
                self.connected
                    .insert((host.to_owned(), line.who.clone(), *id));
                self.stream(host, line, *id, Some(Level::Touched));
            }
            Event::Received { id, part, hex, .. } => {
                self.received(host, line, *id, *part, hex.as_deref());
            }
            Event::SessionUp { id } => self.stream(host, line, *id, Some(Level::Session)),
            Event::TransferDone { id, .. } => self.stream(host, line, *id, Some(Level::Transfer)),
            Event::Sent { id, part, bytes } => self.note_sent(host, line, *id, (*part, *bytes)),
            Event::ModeChanged { from, to } => self.change_mode(host, *from, *to),
            // A client that is called has a peer's sockets, with the two ends the other way round.
            Event::PeerConnected { local, remote } => {
                self.called(site, host, line, (*local, *remote), Level::Touched);
            }
            Event::PeerReceived {
                local,
                remote,
                part,
                ..
            } => {
                self.called(site, host, line, (*local, *remote), received_level(*part));
            }
            Event::Unsolicited { remote, hex, .. } => self.unsolicited(site, host, *remote, hex),
            Event::Failed { id, .. } => self.note_failed(host, line, *id),
            Event::Ready
            | Event::UnsolicitedAnswered { .. }
            | Event::PeerGotDatagram { .. }
            | Event::PeerSentDatagram { .. }
            | Event::PeerSent { .. }
            | Event::WebRequest { .. }
            | Event::WebResult { .. }
            | Event::Done { .. } => {}
        }
    }

    fn begin(
        &mut self,
        site: &Site,
        host: &str,
        line: &Line,
        id: AttemptId,
        kind: AttemptKind,
        (local, peer): (SocketAddr, SocketAddr),
    ) {
        let transport = match kind {
            AttemptKind::Ping => Transport::Udp,
            AttemptKind::Dial | AttemptKind::Download | AttemptKind::Give => Transport::Tcp,
        };
        let Some(flow) = flow(site, transport, local, peer) else {
            return;
        };
        let attempt = Attempt {
            at_us: line.t_us,
            host: host.to_owned(),
            kind,
            flow,
        };
        self.by_id
            .insert((host.to_owned(), line.who.clone(), id), attempt.clone());
        self.attempts.push(attempt);
    }

    fn attempt(&self, host: &str, who: &str, id: AttemptId) -> Option<&Attempt> {
        self.by_id.get(&(host.to_owned(), who.to_owned(), id))
    }

    fn received(&mut self, host: &str, line: &Line, id: AttemptId, part: Part, hex: Option<&str>) {
        let Some(attempt) = self.attempt(host, &line.who, id) else {
            return;
        };
        match attempt.flow.transport {
            Transport::Udp => {
                let sighting = sighting(attempt, line.t_us, Level::ProbeAnswered);
                let payload = hex.and_then(from_hex);
                self.datagrams.push(InwardDatagram { sighting, payload });
            }
            Transport::Tcp => {
                let level = match attempt.kind {
                    AttemptKind::Dial | AttemptKind::Ping => {
                        received_level(part).max(Level::Session)
                    }
                    AttemptKind::Download | AttemptKind::Give => Level::Transfer,
                };
                self.stream(host, line, id, Some(level));
            }
        }
    }

    fn stream(&mut self, host: &str, line: &Line, id: AttemptId, level: Option<Level>) {
        let (Some(attempt), Some(level)) = (self.attempt(host, &line.who, id), level) else {
            return;
        };
        let sighting = sighting(attempt, line.t_us, level);
        self.streams.push(sighting);
    }

    fn called(
        &mut self,
        site: &Site,
        host: &str,
        line: &Line,
        (local, remote): (SocketAddr, SocketAddr),
        level: Level,
    ) {
        let Some(flow) = flow(site, Transport::Tcp, local, remote) else {
            return;
        };
        self.streams.push(Sighting {
            at_us: line.t_us,
            witness: Witness::Client,
            direction: Direction::Inward,
            host: host.to_owned(),
            flow,
            level,
        });
    }

    fn unsolicited(&mut self, site: &Site, host: &str, remote: SocketAddr, hex: &str) {
        let SocketAddr::V4(peer) = remote else { return };
        if !site.peers.contains(peer.ip()) {
            return;
        }
        if let Some(payload) = from_hex(hex) {
            self.unsolicited.push((host.to_owned(), peer, payload));
        }
    }

    fn note_failed(&mut self, host: &str, line: &Line, id: AttemptId) {
        if self
            .connected
            .contains(&(host.to_owned(), line.who.clone(), id))
        {
            *self.ended.entry(host.to_owned()).or_default() += 1;
        }
    }

    fn note_sent(&mut self, host: &str, line: &Line, id: AttemptId, (part, octets): (Part, u64)) {
        let Some(attempt) = self.attempt(host, &line.who, id) else {
            return;
        };
        self.sent.push(Sent {
            at_us: line.t_us,
            host: host.to_owned(),
            part,
            octets,
            attempt: attempt.clone(),
        });
    }

    fn change_mode(&mut self, host: &str, from: Mode, to: Mode) {
        let modes = self
            .modes
            .entry(host.to_owned())
            .or_insert_with(|| vec![from]);
        modes.push(to);
    }

    pub(super) fn stream_sightings(&self) -> impl Iterator<Item = Sighting> {
        self.streams.iter().cloned()
    }

    pub(super) fn datagrams_inward(&self) -> Vec<InwardDatagram> {
        self.datagrams.clone()
    }

    /// What hosts sent that tells what they are: a ping, a request or offer of a file, or a second
    /// opener to another address, with no time between the two in which no device watched.
    pub(super) fn telling(&self, blind_us: &[(u64, u64)]) -> impl Iterator<Item = Telling<'_>> {
        let mut openers = BTreeMap::<(&str, usize), BTreeSet<SocketAddrV4>>::new();
        let outages_before = |at_us: u64| blind_us.iter().filter(|(_, to)| *to <= at_us).count();
        self.sent.iter().filter_map(move |sent| {
            let telling = match sent.part {
                Part::Ping | Part::Request | Part::Give => true,
                Part::Opener => {
                    let life = outages_before(sent.at_us);
                    let peers = openers.entry((&sent.host, life)).or_default();
                    peers.insert(sent.attempt.flow.peer);
                    peers.len() > 1
                }
                Part::Pong
                | Part::Pong2
                | Part::PongAnswer
                | Part::Answer
                | Part::Session
                | Part::Response
                | Part::File
                | Part::Other => false,
            };
            telling.then(|| Telling {
                host: &sent.host,
                at_us: sent.at_us,
                octets: sent.octets,
                attempt: &sent.attempt,
            })
        })
    }
}

/// What the peers said.
#[derive(Debug, Default)]
pub(super) struct PeerAccount {
    received: Vec<(u64, Flow, Level)>,
    /// Every datagram a peer says it sent.
    pub(super) sent_datagrams: Vec<(SocketAddrV4, Vec<u8>)>,
}

impl PeerAccount {
    pub(super) fn read(site: &Site, lines: &[Line]) -> Self {
        let mut account = Self::default();
        for line in lines {
            account.take(site, line);
        }
        account
    }

    fn take(&mut self, site: &Site, line: &Line) {
        match &line.event {
            Event::PeerGotDatagram { local, remote, .. } => {
                self.got(
                    site,
                    line,
                    Transport::Udp,
                    (*remote, *local),
                    Level::ProbeOut,
                );
            }
            Event::PeerConnected { local, remote } => {
                self.got(
                    site,
                    line,
                    Transport::Tcp,
                    (*remote, *local),
                    Level::Touched,
                );
            }
            Event::PeerReceived {
                local,
                remote,
                part,
                ..
            } => {
                let level = received_level(*part);
                self.got(site, line, Transport::Tcp, (*remote, *local), level);
            }
            Event::PeerSentDatagram {
                local, remote, hex, ..
            } => {
                let flow = flow(site, Transport::Udp, *remote, *local);
                if let (Some(flow), Some(payload)) = (flow, from_hex(hex)) {
                    self.sent_datagrams.push((flow.peer, payload));
                }
            }
            Event::Ready
            | Event::Attempt { .. }
            | Event::Connected { .. }
            | Event::Sent { .. }
            | Event::Received { .. }
            | Event::SessionUp { .. }
            | Event::TransferDone { .. }
            | Event::Failed { .. }
            | Event::Unsolicited { .. }
            | Event::UnsolicitedAnswered { .. }
            | Event::ModeChanged { .. }
            | Event::PeerSent { .. }
            | Event::WebRequest { .. }
            | Event::WebResult { .. }
            | Event::Done { .. } => {}
        }
    }

    fn got(
        &mut self,
        site: &Site,
        line: &Line,
        transport: Transport,
        (inside, peer): (SocketAddr, SocketAddr),
        level: Level,
    ) {
        if let Some(flow) = flow(site, transport, inside, peer) {
            self.received.push((line.t_us, flow, level));
        }
    }

    pub(super) fn sightings(&self, register: &Register) -> Vec<Sighting> {
        self.received
            .iter()
            .map(|&(at_us, flow, level)| Sighting {
                at_us,
                witness: Witness::Peer,
                direction: Direction::Outward,
                host: register.host(&flow),
                flow,
                level,
            })
            .collect()
    }
}

/// The level that TCP payload of a kind stands for, once it has arrived.
fn received_level(part: Part) -> Level {
    match part {
        Part::Request | Part::Give | Part::Response | Part::File => Level::Transfer,
        Part::Answer | Part::Session => Level::Session,
        Part::Opener | Part::Other => Level::Opened,
        Part::Ping | Part::Pong | Part::Pong2 | Part::PongAnswer => Level::ProbeOut,
    }
}

fn sighting(attempt: &Attempt, at_us: u64, level: Level) -> Sighting {
    Sighting {
        at_us,
        witness: Witness::Client,
        direction: Direction::Inward,
        host: attempt.host.clone(),
        flow: attempt.flow,
        level,
    }
}

/// The flow between an inside end and a peer; none if the outside end is no peer.
fn flow(site: &Site, transport: Transport, inside: SocketAddr, peer: SocketAddr) -> Option<Flow> {
    let (SocketAddr::V4(inside), SocketAddr::V4(peer)) = (inside, peer) else {
        return None;
    };
    site.peers.contains(peer.ip()).then_some(Flow {
        transport,
        inside,
        peer,
    })
}

/// Reads a datagram written as hexadecimal digits; none if it is not.
fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digits = text.as_bytes();
    if !digits.len().is_multiple_of(2) {
        return None;
    }
    digits
        .chunks_exact(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok())
        .collect()
}
