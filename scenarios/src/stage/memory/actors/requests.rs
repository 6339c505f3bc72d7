//! Ordinary requests under way: the client's side of scripted conversations.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::rc::Rc;
use std::time::Duration;

use simulator::report::{Event, Failure, RequestId};

use super::{Report, Scene, micros};
use crate::stage::memory::script::{DatagramPlay, Script, Side, StreamPlay};
use crate::stage::memory::sockets::{Arrival, ConnectionId, Owner, Transport, What};

/// How many conversations a request may have: the lower part of a socket's key names one.
const CONVERSATIONS: u64 = 1 << 16;

/// What is asked for.
pub(super) struct Wish {
    pub(super) id: RequestId,
    pub(super) kind: String,
    pub(super) server: SocketAddrV4,
    pub(super) scripts: Vec<Script>,
}

/// The requests of one client.
pub(super) struct Requests {
    actor: usize,
    address: Ipv4Addr,
    patience: Duration,
    running: BTreeMap<u64, Request>,
}

struct Request {
    kind: String,
    began: Duration,
    received: u64,
    udp: Option<SocketAddrV4>,
    talks: Vec<Talk>,
}

enum Talk {
    Stream {
        connection: ConnectionId,
        script: Rc<Script>,
        play: Option<StreamPlay>,
    },
    Datagrams {
        to: SocketAddrV4,
        play: DatagramPlay,
    },
}

impl Requests {
    pub(super) fn new(actor: usize, address: Ipv4Addr, patience: Duration) -> Self {
        Self {
            actor,
            address,
            patience,
            running: BTreeMap::new(),
        }
    }

    /// How many are under way.
    pub(super) fn running(&self) -> usize {
        self.running.len()
    }

    /// Begins a request.
    pub(super) fn begin(&mut self, scene: &mut Scene, report: &mut Report, wish: Wish) {
        let Wish {
            id,
            kind,
            server,
            scripts,
        } = wish;
        let event = Event::WebRequest {
            id,
            kind: kind.clone(),
            server: SocketAddr::V4(server),
        };
        report.say(scene.now, event);
        let mut request = Request {
            kind,
            began: scene.now,
            received: 0,
            udp: None,
            talks: Vec::with_capacity(scripts.len()),
        };
        for (place, script) in scripts.into_iter().enumerate() {
            let key = id.0 * CONVERSATIONS + place as u64;
            let owner = Owner {
                actor: self.actor,
                key,
            };
            request.begin_talk(scene, self.address, owner, Rc::new(script));
        }
        self.running.insert(id.0, request);
        self.pump(scene, report, id.0);
    }

    /// When one of them has something due.
    pub(super) fn poll_timeout(&self) -> Option<Duration> {
        let due = |request: &Request| {
            let talks = request.talks.iter().filter_map(Talk::poll_timeout);
            talks.fold(request.began + self.patience, Duration::min)
        };
        self.running.values().map(due).min()
    }

    /// Does what is due.
    pub(super) fn handle_timeout(&mut self, scene: &mut Scene, report: &mut Report) {
        let all: Vec<_> = self.running.keys().copied().collect();
        for number in all {
            let began = self.running.get(&number).map(|request| request.began);
            if began.is_some_and(|began| began + self.patience <= scene.now) {
                let patience = humantime::format_duration(self.patience);
                let why = format!("timed out after {patience}");
                self.end(scene, report, number, Some(why));
            } else {
                self.pump(scene, report, number);
            }
        }
    }

    /// Something happened to a socket.
    pub(super) fn handle(&mut self, scene: &mut Scene, report: &mut Report, arrival: Arrival) {
        let (number, place) = (
            arrival.owner.key / CONVERSATIONS,
            arrival.owner.key % CONVERSATIONS,
        );
        let Some(request) = self.running.get_mut(&number) else {
            return;
        };
        let trouble = request.handle(scene, place as usize, arrival.what);
        match trouble {
            Some(why) => self.end(scene, report, number, Some(why)),
            None => self.pump(scene, report, number),
        }
    }

    /// Says what is to be said; ends the request when nothing is left.
    fn pump(&mut self, scene: &mut Scene, report: &mut Report, number: u64) {
        let Some(request) = self.running.get_mut(&number) else {
            return;
        };
        request.pump(scene);
        if request.talks.iter().all(Talk::is_over) {
            self.end(scene, report, number, None);
        }
    }

    fn end(&mut self, scene: &mut Scene, report: &mut Report, number: u64, error: Option<String>) {
        let Some(request) = self.running.remove(&number) else {
            return;
        };
        for talk in &request.talks {
            if let Talk::Stream { connection, .. } = talk {
                scene.sockets.release(*connection);
            }
        }
        if let Some(address) = request.udp {
            scene.sockets.close_udp(address);
        }
        let event = Event::WebResult {
            id: RequestId(number),
            kind: request.kind,
            ok: error.is_none(),
            micros: micros(scene.now.saturating_sub(request.began)),
            bytes: request.received,
            error,
        };
        report.say(scene.now, event);
    }
}

impl Request {
    fn begin_talk(&mut self, scene: &mut Scene, from: Ipv4Addr, owner: Owner, script: Rc<Script>) {
        let talk = match script.transport {
            Transport::Tcp => {
                let (connection, local) = scene.sockets.dial(from, script.to, owner, None);
                scene.scripts.announce(local, &script);
                Talk::Stream {
                    connection,
                    script,
                    play: None,
                }
            }
            Transport::Udp => {
                let local = *self
                    .udp
                    .get_or_insert_with(|| scene.sockets.bind_any_udp(from, owner));
                scene.scripts.announce(local, &script);
                let to = script.to;
                Talk::Datagrams {
                    to,
                    play: DatagramPlay::new(scene.now, script, Side::Client),
                }
            }
        };
        self.talks.push(talk);
    }

    /// Returns what went wrong, if anything did.
    fn handle(&mut self, scene: &mut Scene, place: usize, what: What) -> Option<String> {
        match what {
            What::Connected => {
                if let Some(Talk::Stream { script, play, .. }) = self.talks.get_mut(place) {
                    *play = Some(StreamPlay::new(scene.now, Rc::clone(script), Side::Client));
                }
                None
            }
            What::Data(_, bytes) => {
                self.received += bytes.len() as u64;
                let trouble = match self.talks.get_mut(place) {
                    Some(Talk::Stream {
                        play: Some(play), ..
                    }) => play.handle_data(scene.now, &bytes).err(),
                    _ => None,
                };
                scene.sockets.recycle(bytes);
                trouble.map(|_| "the answer is not what was asked for".to_owned())
            }
            What::Datagram {
                remote, payload, ..
            } => {
                self.received += payload.len() as u64;
                let talk = self.talks.iter_mut().find_map(|talk| match talk {
                    Talk::Datagrams { to, play } if *to == remote => Some(play),
                    _ => None,
                });
                let trouble = talk.and_then(|play| play.handle_datagram(scene.now, &payload).err());
                scene.sockets.recycle(payload);
                trouble.map(|_| format!("altered answer from {remote}"))
            }
            What::Ended(_, why) => {
                let over = self.talks.get(place).is_none_or(Talk::is_over);
                (!over).then(|| in_words(why).to_owned())
            }
            What::Accepted { .. } | What::Room(_) => None,
        }
    }

    fn pump(&mut self, scene: &mut Scene) {
        for talk in &mut self.talks {
            match talk {
                Talk::Stream {
                    connection,
                    play: Some(play),
                    ..
                } => {
                    let mut piece = Vec::new();
                    while play.poll_piece(scene.now, &mut piece) {
                        scene.sockets.write(*connection, &piece);
                    }
                }
                Talk::Stream { play: None, .. } => {}
                Talk::Datagrams { to, play } => {
                    let Some(from) = self.udp else { continue };
                    while let Some(datagram) = play.poll_datagram(scene.now) {
                        scene.sockets.send(from, *to, &datagram);
                    }
                }
            }
        }
    }
}

impl Talk {
    fn is_over(&self) -> bool {
        match self {
            Self::Stream { play, .. } => play.as_ref().is_some_and(StreamPlay::is_over),
            Self::Datagrams { play, .. } => play.is_over(),
        }
    }

    fn poll_timeout(&self) -> Option<Duration> {
        match self {
            Self::Stream { play, .. } => play.as_ref().and_then(StreamPlay::poll_timeout),
            Self::Datagrams { play, .. } => play.poll_timeout(),
        }
    }
}

fn in_words(why: Failure) -> &'static str {
    match why {
        Failure::Timeout => "the connection timed out",
        Failure::Reset => "the connection was reset",
        Failure::Closed => "the server closed too early",
        Failure::Protocol => "the answer made no sense",
        Failure::Local => "the local system refused",
    }
}
