//! How a timeline is read out of a record: three voices, each in a function of its own.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{SocketAddr, SocketAddrV4};
use std::time::Duration;

use simulator::report::{AttemptId, AttemptKind, Event, Line};

use super::{Moment, Timeline, What, device};
use crate::level::Level;
use crate::observe::{FlowKey, HostLine, Observations, Sighting, Site, UNKNOWN_HOST, Witness};
use crate::record::Record;
use crate::web::WebAccount;

/// Something that happened to a host, before times are counted from the beginning of the run.
struct Told {
    at_us: u64,
    host: String,
    what: What,
}

pub(super) fn read(site: &Site, record: &Record) -> Timeline {
    let observations = record.observations(site);
    let mut told = clients(&record.evidence.clients, &observations);
    told.extend(witnesses(&observations));
    told.extend(web(&record.evidence.clients));
    told.extend(device(site, &record.device_events));
    told.sort_by_key(|told| told.at_us);

    let since = |at_us: u64| Duration::from_micros(at_us.saturating_sub(record.began_us));
    let mut hosts = BTreeMap::<_, Vec<_>>::new();
    for Told { at_us, host, what } in told {
        let at = since(at_us);
        hosts.entry(host).or_default().push(Moment { at, what });
    }
    let length = since(record.evidence.ended_us);
    Timeline {
        began_us: record.began_us,
        length,
        hosts,
    }
}

/// What the clients say they did and got.
fn clients(lines: &[HostLine], observations: &Observations) -> Vec<Told> {
    let mut voice = ClientVoice::new(observations);
    for HostLine { host, line } in lines {
        voice.hear(host, line);
    }
    voice.told
}

/// The clients' lines, with the attempts they are about.
struct ClientVoice<'a> {
    told: Vec<Told>,
    attempts: BTreeMap<(&'a str, &'a str, AttemptId), Attempt>,
    /// Replies that a peer did send, by when and from whom the client says they came.
    genuine: BTreeSet<(&'a str, u64, SocketAddrV4)>,
}

struct Attempt {
    kind: AttemptKind,
    peer: SocketAddrV4,
    has_sent: bool,
}

impl<'a> ClientVoice<'a> {
    fn new(observations: &'a Observations) -> Self {
        let is_answer = |sighting: &&Sighting| {
            sighting.witness == Witness::Client && sighting.level == Level::ProbeAnswered
        };
        let answers = observations.sightings.iter().filter(is_answer);
        let genuine = answers
            .map(|sighting| (sighting.host.as_str(), sighting.at_us, sighting.flow.peer))
            .collect();
        Self {
            told: Vec::new(),
            attempts: BTreeMap::new(),
            genuine,
        }
    }

    fn hear(&mut self, host: &'a str, line: &'a Line) {
        let what = match &line.event {
            Event::Attempt { id, kind, peer, .. } => self.begin(host, line, *id, *kind, *peer),
            Event::Sent { id, part, .. } => self
                .attempt(host, line, *id)
                .and_then(|attempt| attempt.sends(*part)),
            Event::Failed { id, why } => {
                self.attempt(host, line, *id).map(|attempt| What::Failed {
                    kind: attempt.kind,
                    peer: attempt.peer,
                    why: *why,
                })
            }
            Event::Received { id, .. } => self.received(host, line, *id),
            Event::ModeChanged { from, to } => Some(What::Mode {
                from: *from,
                to: *to,
            }),
            Event::Ready
            | Event::Connected { .. }
            | Event::SessionUp { .. }
            | Event::TransferDone { .. }
            | Event::Unsolicited { .. }
            | Event::UnsolicitedAnswered { .. }
            | Event::PeerGotDatagram { .. }
            | Event::PeerSentDatagram { .. }
            | Event::PeerConnected { .. }
            | Event::PeerReceived { .. }
            | Event::PeerSent { .. }
            | Event::WebRequest { .. }
            | Event::WebResult { .. }
            | Event::Done { .. } => None,
        };
        let host = host.to_owned();
        self.told.extend(what.map(|what| Told {
            at_us: line.t_us,
            host,
            what,
        }));
    }

    fn attempt(&mut self, host: &'a str, line: &'a Line, id: AttemptId) -> Option<&mut Attempt> {
        self.attempts.get_mut(&(host, line.who.as_str(), id))
    }

    fn begin(
        &mut self,
        host: &'a str,
        line: &'a Line,
        id: AttemptId,
        kind: AttemptKind,
        peer: SocketAddr,
    ) -> Option<What> {
        let SocketAddr::V4(peer) = peer else {
            return None;
        };
        let attempt = Attempt {
            kind,
            peer,
            has_sent: false,
        };
        self.attempts.insert((host, line.who.as_str(), id), attempt);
        Some(What::Attempt { kind, peer })
    }

    /// A reply to a ping that no peer sent is the device's; everything else is the witnesses' to tell.
    fn received(&mut self, host: &'a str, line: &'a Line, id: AttemptId) -> Option<What> {
        let attempt = self.attempt(host, line, id)?;
        let (kind, peer) = (attempt.kind, attempt.peer);
        let is_forged =
            kind == AttemptKind::Ping && !self.genuine.contains(&(host, line.t_us, peer));
        is_forged.then_some(What::Forged { peer })
    }
}

impl Attempt {
    /// The first payload of a TCP attempt; a ping is its own payload.
    fn sends(&mut self, part: simulator::report::Part) -> Option<What> {
        let is_first = !self.has_sent && self.kind != AttemptKind::Ping;
        self.has_sent = true;
        is_first.then_some(What::Sent {
            kind: self.kind,
            part,
            peer: self.peer,
        })
    }
}

/// How far contacts got: the first sighting of each level, per contact.
fn witnesses(observations: &Observations) -> Vec<Told> {
    let kinds: BTreeMap<FlowKey, AttemptKind> = observations
        .attempts
        .iter()
        .map(|attempt| (attempt.flow.key(), attempt.kind))
        .collect();
    let mut seen = BTreeSet::new();
    let mut told = Vec::new();
    // Sightings stand in order of time, so that the first one seen is the first there was.
    for sighting in &observations.sightings {
        let key = sighting.flow.key();
        if !seen.insert((&sighting.host, key, sighting.level)) {
            continue;
        }
        let what = What::Reached {
            kind: kinds.get(&key).copied(),
            level: sighting.level,
            peer: sighting.flow.peer,
            witness: sighting.witness,
        };
        told.push(Told {
            at_us: sighting.at_us,
            host: sighting.host.clone(),
            what,
        });
    }
    told
}

fn web(lines: &[HostLine]) -> impl Iterator<Item = Told> {
    WebAccount::read(lines)
        .requests
        .into_iter()
        .map(|request| Told {
            at_us: request.began_us,
            host: request.host,
            what: What::Web {
                kind: request.kind,
                end: request.end,
            },
        })
}

fn device<'a>(site: &'a Site, log: &'a str) -> impl Iterator<Item = Told> + 'a {
    device::events(log).map(|event| {
        let host = site.hosts.iter().find(|host| host.address == event.client);
        let host = host
            .map_or(UNKNOWN_HOST, |host| host.name.as_str())
            .to_owned();
        Told {
            at_us: event.at_us,
            host,
            what: event.what,
        }
    })
}
