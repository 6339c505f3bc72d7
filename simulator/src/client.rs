//! One simulated client: joins the network, searches, and downloads or gives a file away, as its
//! profile says. Told the time and what arrived; asked what to send.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::time::Duration;

use rand::RngExt;
use rand::rngs::ChaCha8Rng;
use rand::seq::SliceRandom;

use crate::conversation::Step;
use crate::dialer::{self, Dialer, DialerConfig, Sign};
use crate::payload::SharedFile;
use crate::population::{PeerSpec, Population};
use crate::profile::{Patience, Profile, Transfer};
use crate::report::{AttemptId, AttemptKind, Event, Failure, Mode, Part};
use crate::seed::Seed;
use crate::session::{Initiator, Joining};
use crate::transfer::{Availability, Downloader, Uploader};
use crate::wire::handshake::draw_opener;
use crate::wire::hex;
use crate::wire::http::{self, Identity, Method};
use crate::wire::udp::{self, Datagram};

/// Downloads or gifts under way at once, where nothing has to be found first.
const PARALLEL_KNOWN: usize = 3;

/// What a client needs to know.
#[derive(Debug, Clone)]
pub struct ClientConfig {
    /// The family, with what the command line overrides.
    pub profile: Profile,
    /// Factor on every wait.
    pub time_scale: f64,
    /// Seed of its draws.
    pub seed: Seed,
    /// Its address.
    pub address: Ipv4Addr,
    /// The port it dials sources of files on, instead of their own.
    pub transfer_port: Option<u16>,
    /// The ports that it takes for a browser's.
    pub web_ports: [u16; 2],
    /// At most this many dials a second.
    pub dials_per_second: u32,
    /// Addresses that also get pings.
    pub forge_pings: Vec<SocketAddrV4>,
}

/// What a client wants done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Send a datagram from the one UDP port.
    Datagram {
        /// The attempt it belongs to; none where it answers a stranger.
        id: Option<AttemptId>,
        /// To whom.
        to: SocketAddrV4,
        /// What it is.
        part: Part,
        /// The octets.
        payload: Vec<u8>,
    },
    /// Continue from another UDP port; answer with [`Client::handle_udp_bound`].
    ChangeUdpPort,
    /// Bind a TCP socket, say so with [`Client::handle_bound`], then connect it.
    Dial {
        /// The attempt, and the connection's name from now on.
        id: AttemptId,
        /// To whom.
        peer: SocketAddrV4,
    },
    /// Write to a connection.
    Send {
        /// The connection.
        id: AttemptId,
        /// What it is.
        part: Part,
        /// The octets.
        bytes: Vec<u8>,
    },
    /// Close in good order after what was sent, and go on reading.
    Close {
        /// The connection.
        id: AttemptId,
    },
    /// Forget a connection at once.
    Abort {
        /// The connection.
        id: AttemptId,
    },
    /// Write a line.
    Report(Event),
}

/// One simulated client.
#[derive(Debug)]
pub struct Client {
    config: ClientConfig,
    patience: Patience,
    rng: ChaCha8Rng,
    file: SharedFile,
    dialer: Dialer,
    udp_local: SocketAddr,
    /// Another UDP port was asked for and is not known yet; nothing is pinged from the old one.
    awaits_udp_port: bool,
    next_id: u64,
    pings: BTreeMap<Ipv4Addr, AttemptId>,
    connections: BTreeMap<AttemptId, Connection>,
    supernode: Option<SocketAddrV4>,
    sources: Sources,
    joined: bool,
    next_forgery: Option<Duration>,
    outputs: VecDeque<Output>,
}

#[derive(Debug)]
struct Connection {
    kind: AttemptKind,
    peer: SocketAddrV4,
    state: State,
}

#[derive(Debug)]
enum State {
    Connecting { deadline: Duration },
    Session { session: Box<Initiator>, up: bool },
    Download(Box<Downloader>),
    Upload(Box<Uploader>),
}

/// Where files are, or who wants one.
#[derive(Debug, Default)]
struct Sources {
    known: BTreeSet<SocketAddrV4>,
    waiting: VecDeque<SocketAddrV4>,
    under_way: usize,
    retry_at: Option<Duration>,
    done: bool,
    asked_before: bool,
}

impl Client {
    /// A client that knows `population` as well as a shipped list and old links would tell it.
    pub fn new(config: ClientConfig, population: &Population) -> Self {
        let patience = config.profile.patience.scaled(config.time_scale);
        let mut rng = config.seed.derive("client", 0).rng();
        let shipped = shuffled(population, &config.profile, &mut rng, |_| true);
        let known = match config.profile.transfer {
            Transfer::AfterSearch => Vec::new(),
            Transfer::FromKnownSources => {
                shuffled(population, &config.profile, &mut rng, |peer| peer.has_file)
            }
            Transfer::GiveAway => {
                shuffled(population, &config.profile, &mut rng, |peer| !peer.has_file)
            }
        };
        let dialer = Dialer::new(DialerConfig {
            profile: config.profile.clone(),
            patience,
            shipped: shipped
                .iter()
                .take(config.profile.cache_limit)
                .map(PeerSpec::entry)
                .collect(),
            ports: population.ports().into_iter().collect(),
            web_ports: config.web_ports,
            dials_per_second: config.dials_per_second,
            seed: config.seed.derive("dialer", 0),
        });
        let mut sources = Sources::default();
        sources.offer(known.iter().map(|peer| peer.address));
        Self {
            patience,
            rng,
            file: population.file().clone(),
            dialer,
            udp_local: SocketAddr::from((config.address, 0)),
            awaits_udp_port: false,
            next_id: 1,
            pings: BTreeMap::new(),
            connections: BTreeMap::new(),
            supernode: None,
            sources,
            joined: false,
            next_forgery: (!config.forge_pings.is_empty()).then_some(Duration::ZERO),
            outputs: VecDeque::new(),
            config,
        }
    }

    /// Whether everything the profile wants is reached: a session where it joins, and the file.
    pub fn has_made_contact(&self) -> bool {
        self.sources.done && (self.joined || !self.config.profile.joins())
    }

    /// The next thing to do.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// The next instant at which something is due.
    pub fn poll_timeout(&self, now: Duration) -> Option<Duration> {
        let connections = self.connections.values().map(Connection::poll_timeout);
        let dialer = self
            .config
            .profile
            .joins()
            .then(|| self.dialer.poll_timeout(now));
        connections
            .chain(dialer)
            .chain(self.sources.retry_at)
            .chain(self.next_forgery)
            .min()
    }

    /// Does what is due. Also the call that sets a new client going.
    pub fn handle_timeout(&mut self, now: Duration) {
        self.forge(now);
        self.expire_connections(now);
        if self.config.profile.joins() {
            self.dialer.handle_timeout(now);
        }
        self.settle(now);
    }

    /// The UDP socket is bound, or bound anew.
    pub fn handle_udp_bound(&mut self, now: Duration, local: SocketAddr) {
        self.udp_local = local;
        if std::mem::take(&mut self.awaits_udp_port) {
            self.settle(now);
        }
    }

    /// The socket of a dial is bound and about to connect: returns the line to write before it does,
    /// so that lines stand in the order in which packets leave.
    pub fn handle_bound(&self, id: AttemptId, local: SocketAddr) -> Option<Event> {
        let Connection { kind, peer, .. } = self.connections.get(&id)?;
        Some(Event::Attempt {
            id,
            kind: *kind,
            local,
            peer: (*peer).into(),
        })
    }

    /// A dial reached its peer.
    pub fn handle_connected(&mut self, now: Duration, id: AttemptId) {
        let Some(connection) = self.connections.get(&id) else {
            return;
        };
        let (kind, peer) = (connection.kind, connection.peer);
        self.report(Event::Connected { id });
        let (state, steps) = match kind {
            AttemptKind::Dial => self.start_session(now),
            AttemptKind::Download => self.start_download(now, peer),
            AttemptKind::Give => self.start_give(now),
            AttemptKind::Ping => unreachable!("pings are no connections"),
        };
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.state = state;
        }
        self.take_steps(now, id, steps);
        self.settle(now);
    }

    /// Bytes came in on a connection.
    pub fn handle_data(&mut self, now: Duration, id: AttemptId, bytes: &[u8]) {
        let Some(connection) = self.connections.get_mut(&id) else {
            return;
        };
        let steps = match &mut connection.state {
            State::Connecting { .. } => Vec::new(),
            State::Session { session, .. } => session.handle_data(now, bytes),
            State::Download(downloader) => downloader.handle_data(now, bytes),
            State::Upload(uploader) => uploader.handle_data(now, bytes),
        };
        self.take_steps(now, id, steps);
        self.settle(now);
    }

    /// A connection ended, or never came about. [`Failure::Closed`] is the other side's orderly end.
    pub fn handle_closed(&mut self, now: Duration, id: AttemptId, why: Failure) {
        let Some(connection) = self.connections.get(&id) else {
            return;
        };
        match (&connection.state, why) {
            (State::Upload(uploader), Failure::Closed) => {
                let step = uploader.handle_closed();
                self.take_steps(now, id, vec![step]);
                self.forget(now, id);
            }
            _ => self.end(now, id, why),
        }
        self.settle(now);
    }

    /// A datagram came in.
    pub fn handle_datagram(&mut self, now: Duration, from: SocketAddrV4, payload: &[u8]) {
        let parsed = Datagram::parse(payload);
        match (&parsed, self.pings.get(from.ip()).copied()) {
            (Some(Datagram::Ping { .. }), _) | (_, None) => self.handle_stranger(from, payload),
            (_, Some(id)) => self.handle_pong(now, id, from, parsed.as_ref(), payload),
        }
        self.settle(now);
    }

    // --- UDP ---

    fn ping(&mut self, to: SocketAddrV4) {
        let id = self.new_id();
        let (local, peer) = (self.udp_local, to.into());
        self.pings.insert(*to.ip(), id);
        self.report(Event::Attempt {
            id,
            kind: AttemptKind::Ping,
            local,
            peer,
        });
        let Profile {
            ping_encryption: encryption,
            network,
            ..
        } = self.config.profile;
        let payload = Datagram::Ping {
            encryption,
            network,
        }
        .encode();
        self.outputs.push_back(Output::Datagram {
            id: Some(id),
            to,
            part: Part::Ping,
            payload,
        });
    }

    fn forge(&mut self, now: Duration) {
        if self.next_forgery.is_some_and(|due| due <= now) {
            self.next_forgery = Some(now + self.patience.pong);
            for to in self.config.forge_pings.clone() {
                self.ping(to);
            }
        }
    }

    /// Datagrams that answer nothing: a ping gets the answer of a node without room.
    fn handle_stranger(&mut self, from: SocketAddrV4, payload: &[u8]) {
        let part = udp::part_of(payload);
        let bytes = payload.len() as u64;
        self.report(Event::Unsolicited {
            remote: from.into(),
            part,
            bytes,
            hex: hex(payload),
        });
        if part == Part::Ping {
            let answer = Datagram::Pong2 {
                id: self.rng.random(),
                asker: None,
            };
            let payload = answer.encode();
            let event = Event::UnsolicitedAnswered {
                remote: from.into(),
                part: answer.part(),
                hex: hex(&payload),
            };
            self.outputs.push_back(Output::Datagram {
                id: None,
                to: from,
                part: answer.part(),
                payload,
            });
            self.report(event);
        }
    }

    fn handle_pong(
        &mut self,
        now: Duration,
        id: AttemptId,
        from: SocketAddrV4,
        parsed: Option<&Datagram>,
        payload: &[u8],
    ) {
        let part = udp::part_of(payload);
        let bytes = payload.len() as u64;
        self.report(Event::Received {
            id,
            part,
            bytes,
            hex: Some(hex(payload)),
        });
        let sign = match parsed {
            Some(Datagram::Pong { network, .. }) if *network == self.config.profile.network => {
                Sign::Room
            }
            Some(Datagram::Pong2 { id: asked, asker }) => {
                if asker.is_some() {
                    let answer = Datagram::PongAnswer { id: *asked };
                    let (part, payload) = (answer.part(), answer.encode());
                    self.outputs.push_back(Output::Datagram {
                        id: Some(id),
                        to: from,
                        part,
                        payload,
                    });
                }
                Sign::Full
            }
            // giFT drops a 0x28 it cannot read without taking it for an answer.
            None if payload.first() == Some(&0x28) => return,
            Some(_) | None => Sign::Life,
        };
        if self.config.profile.joins() {
            self.dialer.handle_sign(now, *from.ip(), sign);
        }
    }

    // --- connections ---

    fn dial(&mut self, now: Duration, kind: AttemptKind, peer: SocketAddrV4) {
        let id = self.new_id();
        let patience = match kind {
            AttemptKind::Dial => self.patience.connect,
            AttemptKind::Ping | AttemptKind::Download | AttemptKind::Give => {
                self.patience.source_connect
            }
        };
        let state = State::Connecting {
            deadline: now + patience,
        };
        self.connections
            .insert(id, Connection { kind, peer, state });
        self.outputs.push_back(Output::Dial { id, peer });
    }

    fn start_session(&mut self, now: Duration) -> (State, Vec<Step>) {
        let profile = &self.config.profile;
        let joining = Joining {
            opener: draw_opener(profile.opener, &mut self.rng),
            network: profile.network,
            address: self.own_address(),
            user_name: self.user_name(),
            coalesces: profile.coalesces,
            patience: self.patience,
        };
        let (session, steps) = Initiator::start(now, joining);
        (
            State::Session {
                session: Box::new(session),
                up: false,
            },
            steps,
        )
    }

    fn start_download(&mut self, now: Duration, source: SocketAddrV4) -> (State, Vec<Step>) {
        let odd = self.config.profile.transfer == Transfer::FromKnownSources
            && !self.sources.asked_before;
        let method = if odd { Method::Head } else { Method::Get };
        self.sources.asked_before = true;
        let style = self.config.profile.http;
        let request = http::encode_request(method, style, &self.identity(), source, &self.file);
        let (downloader, steps) = Downloader::start(now, request, self.file.clone(), self.patience);
        (State::Download(Box::new(downloader)), steps)
    }

    fn start_give(&mut self, now: Duration) -> (State, Vec<Step>) {
        // giFT numbers its pushes from 1.
        let push_id = 1 + u32::from(self.rng.random::<u16>());
        let give = Step::Send {
            part: Part::Give,
            bytes: http::encode_give(push_id),
        };
        let (who, file) = (self.identity(), self.file.clone());
        let uploader = Uploader::start(now, who, file, Availability::Free, self.patience);
        (State::Upload(Box::new(uploader)), vec![give])
    }

    fn take_steps(&mut self, now: Duration, id: AttemptId, steps: Vec<Step>) {
        for step in steps {
            if !self.connections.contains_key(&id) {
                return;
            }
            match step {
                Step::Send { part, bytes } => {
                    self.outputs.push_back(Output::Send { id, part, bytes });
                }
                Step::Received { part, bytes } => {
                    self.report(Event::Received {
                        id,
                        part,
                        bytes,
                        hex: None,
                    });
                }
                Step::SessionUp => self.handle_session_up(now, id),
                Step::NodeList(entries) => self.dialer.handle_node_list(now, &entries),
                Step::Sources(sources) => self.sources.offer(sources),
                Step::FileDone { bytes } => {
                    self.report(Event::TransferDone { id, bytes });
                    self.sources.done = true;
                }
                Step::Refused { retry_after } => self.handle_refusal(now, id, retry_after),
                Step::Close => self.handle_close(now, id),
                Step::Fail(why) => self.give_up(now, id, why),
            }
        }
    }

    fn handle_session_up(&mut self, now: Duration, id: AttemptId) {
        let Some(connection) = self.connections.get_mut(&id) else {
            return;
        };
        let peer = connection.peer;
        if let State::Session { up, .. } = &mut connection.state {
            *up = true;
        }
        self.joined = true;
        self.supernode = Some(peer);
        self.report(Event::SessionUp { id });
        self.dialer.handle_session_up(now, peer);
        if self.dialer.sessions() > self.config.profile.sessions {
            self.outputs.push_back(Output::Close { id });
            self.forget(now, id);
        }
    }

    fn handle_refusal(&mut self, now: Duration, id: AttemptId, retry_after: Option<Duration>) {
        if let Some(wait) = retry_after {
            let retry_at = now + wait.mul_f64(self.config.time_scale);
            self.sources.retry_at = Some(
                self.sources
                    .retry_at
                    .map_or(retry_at, |at| at.min(retry_at)),
            );
        }
        self.give_up(now, id, Failure::Closed);
    }

    /// A download is over once it closes; an upload waits for the other side.
    fn handle_close(&mut self, now: Duration, id: AttemptId) {
        self.outputs.push_back(Output::Close { id });
        if matches!(
            self.connections.get(&id),
            Some(Connection {
                state: State::Download(_),
                ..
            })
        ) {
            self.forget(now, id);
        }
    }

    fn give_up(&mut self, now: Duration, id: AttemptId, why: Failure) {
        self.outputs.push_back(Output::Abort { id });
        self.end(now, id, why);
    }

    fn end(&mut self, now: Duration, id: AttemptId, why: Failure) {
        let was_up = matches!(
            self.connections.get(&id),
            Some(Connection {
                state: State::Session { up: true, .. },
                ..
            })
        );
        if !was_up && self.connections.contains_key(&id) {
            self.report(Event::Failed { id, why });
        }
        self.forget(now, id);
    }

    fn forget(&mut self, now: Duration, id: AttemptId) {
        let Some(connection) = self.connections.remove(&id) else {
            return;
        };
        match (connection.kind, connection.state) {
            (AttemptKind::Dial, State::Session { up: true, .. }) => {
                self.dialer.handle_session_lost(now, connection.peer);
            }
            (AttemptKind::Dial, _) => self.dialer.handle_dial_failed(now, connection.peer),
            (AttemptKind::Ping | AttemptKind::Download | AttemptKind::Give, _) => {
                self.sources.under_way -= 1;
            }
        }
    }

    fn expire_connections(&mut self, now: Duration) {
        let due = |(_, connection): &(&AttemptId, &Connection)| connection.poll_timeout() <= now;
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
                State::Connecting { .. } => vec![Step::Fail(Failure::Timeout)],
                State::Session { session, .. } => session.handle_timeout(now),
                State::Download(downloader) => downloader.handle_timeout(now),
                State::Upload(uploader) => uploader.handle_timeout(now),
            };
            self.take_steps(now, id, steps);
        }
    }

    // --- what follows from it ---

    /// Turns the dialer's wishes and the waiting sources into outputs.
    fn settle(&mut self, now: Duration) {
        while !self.awaits_udp_port
            && let Some(contact) = self.dialer.poll_output()
        {
            match contact {
                dialer::Contact::Ping(to) => self.ping(to),
                dialer::Contact::PingUnanswered(to) => {
                    if let Some(id) = self.pings.get(to.ip()) {
                        self.report(Event::Failed {
                            id: *id,
                            why: Failure::Timeout,
                        });
                    }
                }
                dialer::Contact::Dial(peer) => self.dial(now, AttemptKind::Dial, peer),
                dialer::Contact::ChangeUdpPort => {
                    self.awaits_udp_port = true;
                    self.outputs.push_back(Output::ChangeUdpPort);
                }
                dialer::Contact::ChangeMode { from, to } => {
                    self.report(Event::ModeChanged { from, to });
                }
            }
        }
        self.fill_transfers(now);
    }

    fn fill_transfers(&mut self, now: Duration) {
        let (kind, limit) = match self.config.profile.transfer {
            Transfer::AfterSearch => (AttemptKind::Download, 1),
            Transfer::FromKnownSources => (AttemptKind::Download, PARALLEL_KNOWN),
            Transfer::GiveAway => (AttemptKind::Give, PARALLEL_KNOWN),
        };
        while let Some(source) = self.sources.take_next(now, limit, self.patience.tick) {
            let port = match (self.config.transfer_port, self.dialer.mode()) {
                (Some(port), _) => port,
                (None, Mode::Port80) => self.config.web_ports[0],
                (None, Mode::UdpFlood | Mode::ParallelTcp | Mode::SerialTcp) => source.port(),
            };
            self.dial(now, kind, SocketAddrV4::new(*source.ip(), port));
        }
    }

    fn identity(&self) -> Identity {
        let own = self.own_address();
        Identity {
            user_name: self.user_name(),
            network: self.config.profile.network,
            address: own,
            supernode: self.supernode.unwrap_or(own),
        }
    }

    fn own_address(&self) -> SocketAddrV4 {
        SocketAddrV4::new(self.config.address, self.udp_local.port())
    }

    fn user_name(&self) -> String {
        let len = self.config.profile.user_name_len;
        self.config
            .profile
            .name
            .chars()
            .filter(char::is_ascii_lowercase)
            .cycle()
            .take(len)
            .collect()
    }

    fn new_id(&mut self) -> AttemptId {
        let id = AttemptId(self.next_id);
        self.next_id += 1;
        id
    }

    fn report(&mut self, event: Event) {
        self.outputs.push_back(Output::Report(event));
    }
}

impl Connection {
    fn poll_timeout(&self) -> Duration {
        match &self.state {
            State::Connecting { deadline } => *deadline,
            State::Session { session, .. } => session.poll_timeout(),
            State::Download(downloader) => downloader.poll_timeout(),
            State::Upload(uploader) => uploader.poll_timeout(),
        }
    }
}

impl Sources {
    fn offer(&mut self, sources: impl IntoIterator<Item = SocketAddrV4>) {
        for source in sources {
            if self.known.insert(source) {
                self.waiting.push_back(source);
            }
        }
    }

    /// The next one to talk to. When all were tried in vain, the round begins again after `pause`.
    fn take_next(&mut self, now: Duration, limit: usize, pause: Duration) -> Option<SocketAddrV4> {
        if self.done {
            self.retry_at = None;
            return None;
        }
        if self.under_way >= limit {
            return None;
        }
        if self.retry_at.is_some_and(|at| at <= now) {
            self.retry_at = None;
            self.waiting = self.known.iter().copied().collect();
        }
        let next = self.waiting.pop_front();
        match next {
            Some(_) => self.under_way += 1,
            None if self.under_way == 0 && !self.known.is_empty() => {
                self.retry_at.get_or_insert(now + pause);
            }
            None => {}
        }
        next
    }
}

/// Peers of the profile's network, in an order of this client's own.
fn shuffled(
    population: &Population,
    profile: &Profile,
    rng: &mut ChaCha8Rng,
    wanted: impl Fn(&PeerSpec) -> bool,
) -> Vec<PeerSpec> {
    let mut peers: Vec<_> = population
        .of_network(profile.network)
        .filter(|peer| wanted(peer))
        .cloned()
        .collect();
    peers.shuffle(rng);
    peers
}
