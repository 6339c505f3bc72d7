//! Every outside peer of a population: answers pings, takes children, serves files, accepts pushes.
//! Told the time and what arrived; asked what to send.

use std::collections::{BTreeMap, VecDeque};
use std::net::{SocketAddr, SocketAddrV4};
use std::time::Duration;

use rand::RngExt;
use rand::rngs::ChaCha8Rng;

use crate::conversation::Step;
use crate::population::{PeerSpec, Population, Role};
use crate::profile::{HttpStyle, KAZAA, Patience};
use crate::report::{Event, Failure, Part};
use crate::seed::Seed;
use crate::session::{Hosting, Responder};
use crate::transfer::{Availability, Downloader, Uploader};
use crate::wire::handshake::draw_answer;
use crate::wire::http::{self, Identity, Method};
use crate::wire::session::{LIST_ENTRIES, NodeEntry};
use crate::wire::udp::{self, Datagram};
use crate::wire::{Network, hex};

/// Sources in one search result.
const MOST_SOURCES: usize = 64;

/// How many first octets tell HTTP, a push and a session apart (giFT peeks as many).
const TELLING_OCTETS: usize = 4;

/// Half hours on the network's counter when a run begins.
const FIRST_HALF_HOUR: u64 = 4;

/// Number of one connection, given by whoever holds the sockets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(pub u64);

/// What the peers want done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Send a datagram.
    Datagram {
        /// The peer's own address.
        from: SocketAddrV4,
        /// To whom.
        to: SocketAddrV4,
        /// The octets.
        payload: Vec<u8>,
    },
    /// Write to a connection.
    Send {
        /// The connection.
        id: ConnectionId,
        /// What it is.
        part: Part,
        /// The octets.
        bytes: Vec<u8>,
    },
    /// Close in good order after what was sent, and go on reading.
    Close {
        /// The connection.
        id: ConnectionId,
    },
    /// Reset a connection.
    Abort {
        /// The connection.
        id: ConnectionId,
    },
    /// Write a line.
    Report(Event),
}

/// What the peers need to know.
#[derive(Debug, Clone)]
pub struct PeersConfig {
    /// Who they are.
    pub population: Population,
    /// Factor on every wait.
    pub time_scale: f64,
    /// Seed of their draws.
    pub seed: Seed,
    /// Whether every connection is reset at once and no ping answered.
    pub reset: bool,
}

/// Every outside peer.
#[derive(Debug)]
pub struct Peers {
    config: PeersConfig,
    patience: Patience,
    rng: ChaCha8Rng,
    entries: BTreeMap<Network, Vec<NodeEntry>>,
    sources: BTreeMap<Network, Vec<SocketAddrV4>>,
    connections: BTreeMap<ConnectionId, Connection>,
    outputs: VecDeque<Output>,
}

#[derive(Debug)]
struct Connection {
    local: SocketAddrV4,
    remote: SocketAddrV4,
    state: State,
}

#[derive(Debug)]
enum State {
    /// Too few bytes to tell what this is.
    Unknown {
        arrived: Vec<u8>,
        deadline: Duration,
    },
    /// `GIVE`, its line not whole yet.
    Push {
        arrived: Vec<u8>,
        deadline: Duration,
    },
    Session(Box<Responder>),
    Upload(Box<Uploader>),
    Download(Box<Downloader>),
}

impl Peers {
    /// Peers that nobody has talked to yet.
    pub fn new(config: PeersConfig) -> Self {
        let by_network = |network| (network, config.population.of_network(network));
        let entries = Network::ALL
            .map(by_network)
            .map(|(network, peers)| {
                (
                    network,
                    peers
                        .filter(|peer| peer.role != Role::Node)
                        .map(PeerSpec::entry),
                )
            })
            .map(|(network, entries)| (network, entries.collect()));
        let sources = Network::ALL
            .map(by_network)
            .map(|(network, peers)| {
                (
                    network,
                    peers.filter(|peer| peer.has_file).map(|peer| peer.address),
                )
            })
            .map(|(network, sources)| (network, sources.take(MOST_SOURCES).collect()));
        Self {
            entries: BTreeMap::from(entries),
            sources: BTreeMap::from(sources),
            patience: KAZAA.patience.scaled(config.time_scale),
            rng: config.seed.derive("peers", 0).rng(),
            connections: BTreeMap::new(),
            outputs: VecDeque::new(),
            config,
        }
    }

    /// The next thing to do.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// The next instant at which something is due.
    pub fn poll_timeout(&self) -> Option<Duration> {
        self.connections
            .values()
            .map(Connection::poll_timeout)
            .min()
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Duration) {
        let due = |(_, connection): &(&ConnectionId, &Connection)| connection.poll_timeout() <= now;
        let due: Vec<_> = self
            .connections
            .iter()
            .filter(due)
            .map(|(id, _)| *id)
            .collect();
        for id in due {
            let Some(connection) = self.connections.get_mut(&id) else {
                continue;
            };
            let steps = match &mut connection.state {
                State::Unknown { .. } | State::Push { .. } => vec![Step::Fail(Failure::Timeout)],
                State::Session(session) => session.handle_timeout(now),
                State::Upload(uploader) => uploader.handle_timeout(now),
                State::Download(downloader) => downloader.handle_timeout(now),
            };
            self.take_steps(id, steps);
        }
    }

    /// A datagram arrived at `local`.
    pub fn handle_datagram(
        &mut self,
        now: Duration,
        local: SocketAddrV4,
        remote: SocketAddrV4,
        payload: &[u8],
    ) {
        let Some(peer) = self.config.population.peer(*local.ip()) else {
            return;
        };
        let (part, bytes) = (udp::part_of(payload), payload.len() as u64);
        let answer = match Datagram::parse(payload) {
            Some(Datagram::Ping { .. }) if !self.config.reset => {
                Some(pong(now, peer, remote, &mut self.rng))
            }
            Some(_) | None => None,
        };
        self.report(Event::PeerGotDatagram {
            local: local.into(),
            remote: remote.into(),
            part,
            bytes,
        });
        if let Some(answer) = answer {
            let payload = answer.encode();
            let hex = hex(&payload);
            let part = answer.part();
            self.outputs.push_back(Output::Datagram {
                from: local,
                to: remote,
                payload,
            });
            self.report(Event::PeerSentDatagram {
                local: local.into(),
                remote: remote.into(),
                part,
                hex,
            });
        }
    }

    /// Somebody connected to `local`.
    pub fn handle_connected(
        &mut self,
        now: Duration,
        id: ConnectionId,
        local: SocketAddrV4,
        remote: SocketAddrV4,
    ) {
        self.report(Event::PeerConnected {
            local: local.into(),
            remote: remote.into(),
        });
        if self.config.reset || self.config.population.peer(*local.ip()).is_none() {
            self.outputs.push_back(Output::Abort { id });
            return;
        }
        let deadline = now + self.patience.pong;
        let state = State::Unknown {
            arrived: Vec::new(),
            deadline,
        };
        self.connections.insert(
            id,
            Connection {
                local,
                remote,
                state,
            },
        );
    }

    /// Bytes came in on a connection.
    pub fn handle_data(&mut self, now: Duration, id: ConnectionId, bytes: &[u8]) {
        let Some(connection) = self.connections.get_mut(&id) else {
            return;
        };
        let steps = match &mut connection.state {
            State::Unknown { arrived, .. } | State::Push { arrived, .. } => {
                arrived.extend_from_slice(bytes);
                return self.decide(now, id);
            }
            State::Session(session) => session.handle_data(now, bytes),
            State::Upload(uploader) => uploader.handle_data(now, bytes),
            State::Download(downloader) => downloader.handle_data(now, bytes),
        };
        self.take_steps(id, steps);
    }

    /// A connection ended.
    pub fn handle_closed(&mut self, id: ConnectionId) {
        self.forget(id);
    }

    /// The run is over: what arrived but was too little to name is reported all the same.
    pub fn handle_shutdown(&mut self) {
        let ids: Vec<_> = self.connections.keys().copied().collect();
        ids.into_iter().for_each(|id| self.forget(id));
    }

    /// Finds out what a connection is, from as many first octets as a real client looks at.
    fn decide(&mut self, now: Duration, id: ConnectionId) {
        let Some(connection) = self.connections.get_mut(&id) else {
            return;
        };
        let (State::Unknown { arrived, deadline } | State::Push { arrived, deadline }) =
            &mut connection.state
        else {
            return;
        };
        if arrived.len() < TELLING_OCTETS {
            return;
        }
        let deadline = *deadline;
        let mut arrived_now = std::mem::take(arrived);
        let (local, remote) = (connection.local, connection.remote);
        if arrived_now.starts_with(b"GIVE") {
            let before = arrived_now.len();
            let Some(_) = http::take_give(&mut arrived_now) else {
                connection.state = State::Push {
                    arrived: arrived_now,
                    deadline,
                };
                return;
            };
            let give = (before - arrived_now.len()) as u64;
            self.start_download(now, id, local, remote, give);
        } else {
            let Some(peer) = self.config.population.peer(*local.ip()).cloned() else {
                return;
            };
            let state = match &arrived_now[..TELLING_OCTETS] {
                b"GET " | b"HEAD" => State::Upload(Box::new(self.uploader(now, &peer))),
                _ => State::Session(Box::new(self.responder(now, &peer, remote))),
            };
            self.set_state(id, state);
        }
        if !arrived_now.is_empty() {
            self.handle_data(now, id, &arrived_now);
        }
    }

    fn set_state(&mut self, id: ConnectionId, state: State) {
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.state = state;
        }
    }

    /// The other side offers a file: it is asked for on the same connection.
    fn start_download(
        &mut self,
        now: Duration,
        id: ConnectionId,
        local: SocketAddrV4,
        remote: SocketAddrV4,
        give: u64,
    ) {
        let Some(peer) = self.config.population.peer(*local.ip()) else {
            return;
        };
        let who = self.identity(peer);
        let file = self.config.population.file().clone();
        let request = http::encode_request(Method::Get, HttpStyle::Kazaa, &who, remote, &file);
        let (downloader, steps) = Downloader::start(now, request, file, self.patience);
        self.set_state(id, State::Download(Box::new(downloader)));
        self.take_steps(
            id,
            vec![Step::Received {
                part: Part::Give,
                bytes: give,
            }],
        );
        self.take_steps(id, steps);
    }

    fn uploader(&self, now: Duration, peer: &PeerSpec) -> Uploader {
        let availability = match (peer.has_file, peer.busy) {
            (false, _) => Availability::Absent,
            (true, true) => Availability::Busy,
            (true, false) => Availability::Free,
        };
        let file = self.config.population.file().clone();
        Uploader::start(now, self.identity(peer), file, availability, self.patience)
    }

    fn responder(&mut self, now: Duration, peer: &PeerSpec, remote: SocketAddrV4) -> Responder {
        let hosting = Hosting {
            answer: draw_answer(&mut self.rng),
            network: peer.network,
            coalesces: peer.coalesces,
            has_room: peer.takes_children(),
            list: self.node_list(peer),
            sources: self.sources[&peer.network].clone(),
            child: *remote.ip(),
            patience: self.patience,
        };
        Responder::start(now, hosting)
    }

    /// Always as many entries as real supernodes send; a small population is listed more than once.
    fn node_list(&self, peer: &PeerSpec) -> Vec<NodeEntry> {
        let entries = &self.entries[&peer.network];
        let first = usize::from(peer.load_pct) % entries.len().max(1);
        entries
            .iter()
            .cycle()
            .skip(first)
            .take(LIST_ENTRIES)
            .copied()
            .collect()
    }

    fn identity(&self, peer: &PeerSpec) -> Identity {
        let supernode = self.entries[&peer.network]
            .first()
            .map_or(peer.address, |entry| entry.address);
        Identity {
            user_name: format!("peer{}", peer.address.port()),
            network: peer.network,
            address: peer.address,
            supernode,
        }
    }

    fn take_steps(&mut self, id: ConnectionId, steps: Vec<Step>) {
        for step in steps {
            let Some(connection) = self.connections.get(&id) else {
                return;
            };
            let (local, remote) = (connection.local.into(), connection.remote.into());
            match step {
                Step::Send { part, bytes } => {
                    self.outputs.push_back(Output::Send { id, part, bytes });
                }
                Step::Received { part, bytes } => {
                    self.report(Event::PeerReceived {
                        local,
                        remote,
                        part,
                        bytes,
                    });
                }
                Step::Close => self.outputs.push_back(Output::Close { id }),
                Step::Refused { .. } | Step::Fail(_) => {
                    self.outputs.push_back(Output::Abort { id });
                    self.forget(id);
                }
                Step::SessionUp | Step::NodeList(_) | Step::Sources(_) | Step::FileDone { .. } => {}
            }
        }
    }

    fn forget(&mut self, id: ConnectionId) {
        let Some(Connection {
            local,
            remote,
            state,
        }) = self.connections.remove(&id)
        else {
            return;
        };
        let (State::Unknown { arrived, .. } | State::Push { arrived, .. }) = state else {
            return;
        };
        if !arrived.is_empty() {
            let (local, remote): (SocketAddr, SocketAddr) = (local.into(), remote.into());
            let bytes = arrived.len() as u64;
            self.report(Event::PeerReceived {
                local,
                remote,
                part: Part::Other,
                bytes,
            });
        }
    }

    fn report(&mut self, event: Event) {
        self.outputs.push_back(Output::Report(event));
    }
}

impl Connection {
    fn poll_timeout(&self) -> Duration {
        match &self.state {
            State::Unknown { deadline, .. } | State::Push { deadline, .. } => *deadline,
            State::Session(session) => session.poll_timeout(),
            State::Upload(uploader) => uploader.poll_timeout(),
            State::Download(downloader) => downloader.poll_timeout(),
        }
    }
}

/// What a peer answers to a ping.
fn pong(now: Duration, peer: &PeerSpec, asker: SocketAddrV4, rng: &mut ChaCha8Rng) -> Datagram {
    let [a, b, unexplained_last] = peer.unexplained;
    match peer.role {
        Role::Supernode => Datagram::Pong {
            half_hours: (FIRST_HALF_HOUR + now.as_secs() / 1800) as u8,
            unexplained: [a, b],
            load_pct: peer.load_pct,
            unexplained_last,
            network: peer.network,
        },
        Role::FullSupernode => Datagram::Pong2 {
            id: rng.random(),
            asker: None,
        },
        Role::Node => Datagram::Pong2 {
            id: rng.random(),
            asker: Some(asker),
        },
    }
}
