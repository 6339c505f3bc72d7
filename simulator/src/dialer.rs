//! Whom a client pings and dials, and when: the part of a family's behaviour that a gateway sees
//! first. Knows nothing of bytes or sockets.

use std::collections::{BTreeMap, VecDeque};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use rand::RngExt;
use rand::rngs::ChaCha8Rng;

use crate::cache::Cache;
use crate::profile::{FailedNode, Patience, PeerPort, Pinging, Profile, Redial, Rung};
use crate::report::Mode;
use crate::seed::Seed;
use crate::wire::session::NodeEntry;

/// The two ports that every gateway lets through, tried in turn in [`Mode::Port80`].
pub const WEB_PORTS: [u16; 2] = [80, 443];

/// What the dialer wants done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Contact {
    /// Send a ping.
    Ping(SocketAddrV4),
    /// A ping was not answered in time.
    PingUnanswered(SocketAddrV4),
    /// Open a TCP connection and a session on it.
    Dial(SocketAddrV4),
    /// Continue from another UDP port.
    ChangeUdpPort,
    /// The way of looking for the network changed.
    ChangeMode {
        /// Before.
        from: Mode,
        /// After.
        to: Mode,
    },
}

/// What a datagram from a peer tells a client (giFT; PROTO for the difference between families).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sign {
    /// 0x28: a supernode with room.
    Room,
    /// 0x29: a node without.
    Full,
    /// Anything else: somebody is there.
    Life,
}

/// What a dialer needs to know besides its profile.
#[derive(Debug, Clone)]
pub struct DialerConfig {
    /// The family.
    pub profile: Profile,
    /// Its waits, scaled.
    pub patience: Patience,
    /// Addresses shipped with the software, to which an empty cache returns.
    pub shipped: Vec<NodeEntry>,
    /// Ports to hop between.
    pub ports: Vec<u16>,
    /// The two ports of [`Mode::Port80`].
    pub web_ports: [u16; 2],
    /// At most this many dials within one second: a reset provokes the next dial at once.
    pub dials_per_second: u32,
    /// Seed of its draws.
    pub seed: Seed,
}

/// Contact attempts of one client.
#[derive(Debug)]
pub struct Dialer {
    config: DialerConfig,
    rng: ChaCha8Rng,
    cache: Cache,
    rung: usize,
    rung_since: Duration,
    /// A host may be switched on late: its waits count from its first move.
    has_begun: bool,
    heard_by_udp: bool,
    pings: BTreeMap<Ipv4Addr, Ping>,
    next_flood: Duration,
    responders: VecDeque<SocketAddrV4>,
    dials: BTreeMap<SocketAddrV4, SocketAddrV4>,
    sessions: usize,
    next_tick: Duration,
    budget: Budget,
    dialled: u64,
    wanted: VecDeque<Contact>,
}

#[derive(Debug, Clone, Copy)]
struct Ping {
    to: SocketAddrV4,
    deadline: Duration,
}

impl Dialer {
    /// A dialer with a full cache and nothing under way; [`Dialer::handle_timeout`] sets it going.
    pub fn new(config: DialerConfig) -> Self {
        let mut cache = Cache::new(config.profile.cache_limit, config.patience.cache_age);
        cache.refresh(Duration::ZERO, &config.shipped);
        Self {
            rng: config.seed.rng(),
            cache,
            rung: 0,
            rung_since: Duration::ZERO,
            has_begun: false,
            heard_by_udp: false,
            pings: BTreeMap::new(),
            next_flood: Duration::ZERO,
            responders: VecDeque::new(),
            dials: BTreeMap::new(),
            sessions: 0,
            next_tick: Duration::ZERO,
            budget: Budget::new(config.dials_per_second),
            dialled: 0,
            wanted: VecDeque::new(),
            config,
        }
    }

    /// How it looks for the network at present.
    pub fn mode(&self) -> Mode {
        self.rung().mode
    }

    /// What it knows.
    pub fn cache(&self) -> &Cache {
        &self.cache
    }

    /// How many sessions are up.
    pub fn sessions(&self) -> usize {
        self.sessions
    }

    /// The next thing to do.
    pub fn poll_output(&mut self) -> Option<Contact> {
        self.wanted.pop_front()
    }

    /// The next instant at which something is due.
    pub fn poll_timeout(&self, now: Duration) -> Duration {
        let pings = self.pings.values().map(|ping| ping.deadline);
        let mode = self.config.profile.ladder.len() > 1 && self.sessions == 0;
        let step = mode.then(|| self.rung_since + self.config.patience.mode);
        let flood = self.floods().then_some(self.next_flood);
        let room = self
            .may_dial_now()
            .then(|| self.budget.refilled(now))
            .flatten();
        let rested = self
            .may_dial_now()
            .then(|| self.cache.rested(now))
            .flatten();
        let due = pings.chain(step).chain(flood).chain(room).chain(rested);
        due.fold(self.next_tick, Duration::min)
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Duration) {
        if !std::mem::replace(&mut self.has_begun, true) {
            self.rung_since = now;
        }
        self.expire_pings(now);
        self.reconsider_mode(now);
        let is_tick = now >= self.next_tick;
        if is_tick {
            self.next_tick = now + self.config.patience.tick;
            self.cache.expire(now);
        }
        if self.floods() && now >= self.next_flood {
            self.flood(now);
        }
        if is_tick || self.config.profile.redial == Redial::AtOnce {
            self.fill_dials(now);
        }
        self.burst(now);
    }

    /// A datagram came from a peer that was pinged, be it late.
    pub fn handle_sign(&mut self, now: Duration, from: Ipv4Addr, sign: Sign) {
        self.heard_by_udp = true;
        self.pings.remove(&from);
        match sign {
            Sign::Room => self.handle_invitation(now, from),
            Sign::Full if self.config.profile.dials_pong2 => self.handle_invitation(now, from),
            Sign::Full | Sign::Life => self.cache.demote(from),
        }
        self.return_to_udp(now);
        self.handle_timeout(now);
    }

    /// A dial or a session attempt ended without a session.
    pub fn handle_dial_failed(&mut self, now: Duration, dialled: SocketAddrV4) {
        if let Some(node) = self.dials.remove(&dialled) {
            match self.config.profile.failed_node {
                FailedNode::Removed => self.cache.remove(*node.ip()),
                FailedNode::Rests(rest) => self.cache.rest(*node.ip(), now + self.scaled(rest)),
            }
        }
        self.handle_timeout(now);
    }

    /// A session came up.
    pub fn handle_session_up(&mut self, now: Duration, dialled: SocketAddrV4) {
        if let Some(node) = self.dials.get(&dialled) {
            self.cache.promote(now, *node.ip());
        }
        self.sessions += 1;
    }

    /// A session ended; the node stays in the cache.
    pub fn handle_session_lost(&mut self, now: Duration, dialled: SocketAddrV4) {
        self.dials.remove(&dialled);
        self.sessions = self.sessions.saturating_sub(1);
        self.rung_since = now;
        self.handle_timeout(now);
    }

    /// A supernode sent its list.
    pub fn handle_node_list(&mut self, now: Duration, entries: &[NodeEntry]) {
        self.cache.refresh(now, entries);
    }

    fn rung(&self) -> Rung {
        self.config.profile.ladder[self.rung]
    }

    fn scaled(&self, wait: Duration) -> Duration {
        wait.mul_f64(
            self.config.patience.tick.as_secs_f64()
                / self.config.profile.patience.tick.as_secs_f64(),
        )
    }

    fn floods(&self) -> bool {
        self.config.profile.pinging == Pinging::Flood
            && self.mode() == Mode::UdpFlood
            && self.sessions == 0
    }

    fn flood(&mut self, now: Duration) {
        self.next_flood = now + self.config.patience.pong;
        self.reload_if_empty(now);
        if self.config.profile.peer_port == PeerPort::Hopping {
            self.wanted.push_back(Contact::ChangeUdpPort);
        }
        let addresses: Vec<_> = self.cache.addresses().collect();
        for address in addresses {
            self.ping(now, address);
        }
    }

    fn burst(&mut self, now: Duration) {
        let Pinging::Bursts(size) = self.config.profile.pinging else {
            return;
        };
        if self.sessions > 0 || !self.pings.is_empty() {
            return;
        }
        let dials = &self.dials;
        let in_use = |address| dials.values().any(|node| *node == address);
        for address in self.cache.take_unpinged(size, in_use) {
            self.ping(now, address);
        }
    }

    fn ping(&mut self, now: Duration, address: SocketAddrV4) {
        let to = self.port_of(address);
        self.pings.insert(
            *to.ip(),
            Ping {
                to,
                deadline: now + self.config.patience.pong,
            },
        );
        self.wanted.push_back(Contact::Ping(to));
    }

    fn expire_pings(&mut self, now: Duration) {
        let over = |(_, ping): &(&Ipv4Addr, &Ping)| ping.deadline <= now;
        let unanswered: Vec<_> = self
            .pings
            .iter()
            .filter(over)
            .map(|(ip, ping)| (*ip, *ping))
            .collect();
        for (ip, ping) in unanswered {
            self.pings.remove(&ip);
            self.wanted.push_back(Contact::PingUnanswered(ping.to));
            // Only where UDP is known to work does silence say something about the peer (giFT).
            match self.config.profile.pinging {
                Pinging::Bursts(_) if self.heard_by_udp && !self.is_dialling(ip) => {
                    self.cache.remove(ip);
                }
                Pinging::Bursts(_) | Pinging::Flood => self.cache.demote(ip),
                Pinging::AfterDial | Pinging::Never => {}
            }
        }
    }

    fn is_dialling(&self, ip: Ipv4Addr) -> bool {
        self.dials.values().any(|node| *node.ip() == ip)
    }

    fn handle_invitation(&mut self, now: Duration, from: Ipv4Addr) {
        let Some(address) = self.cache.promote(now, from) else {
            return;
        };
        if !self.is_dialling(from) && !self.responders.contains(&address) {
            self.responders.push_back(address);
        }
    }

    /// Steps down once a way has led nowhere for long enough, and from the last to the first.
    fn reconsider_mode(&mut self, now: Duration) {
        if self.sessions > 0 || now < self.rung_since + self.config.patience.mode {
            return;
        }
        self.rung_since = now;
        let believes_in_udp = std::mem::take(&mut self.heard_by_udp);
        if !(self.mode() == Mode::UdpFlood && believes_in_udp) {
            self.move_to((self.rung + 1) % self.config.profile.ladder.len(), now);
        }
    }

    /// An answered ping shows that UDP works after all.
    fn return_to_udp(&mut self, now: Duration) {
        let top = self
            .config
            .profile
            .ladder
            .iter()
            .position(|rung| rung.mode == Mode::UdpFlood);
        if let Some(top) = top {
            self.move_to(top, now);
        }
    }

    fn move_to(&mut self, rung: usize, now: Duration) {
        let from = self.mode();
        self.rung = rung;
        let to = self.mode();
        if from != to {
            self.rung_since = now;
            self.next_flood = now;
            self.wanted.push_back(Contact::ChangeMode { from, to });
        }
    }

    /// Fewer dials the more sessions are up: mldonkey's 3 x (5 - connected), giFT's 5 down to 0.
    fn dials_allowed(&self) -> usize {
        let wanted = self.config.profile.sessions;
        let missing = wanted.saturating_sub(self.sessions);
        (self.rung().parallel * missing)
            .div_ceil(wanted.max(1))
            .max(missing.min(1))
    }

    fn pending_dials(&self) -> usize {
        self.dials.len().saturating_sub(self.sessions)
    }

    fn may_dial_now(&self) -> bool {
        self.config.profile.redial == Redial::AtOnce && self.pending_dials() < self.dials_allowed()
    }

    fn fill_dials(&mut self, now: Duration) {
        let mut dialled = Vec::new();
        while self.pending_dials() < self.dials_allowed() && self.budget.has_room(now) {
            let Some(node) = self.next_node(now) else {
                break;
            };
            let address = self.port_of(node);
            if self.dials.contains_key(&address) {
                break;
            }
            self.budget.take();
            self.dialled += 1;
            self.dials.insert(address, node);
            self.wanted.push_back(Contact::Dial(address));
            dialled.push(node);
        }
        if self.config.profile.pinging == Pinging::AfterDial {
            dialled.into_iter().for_each(|node| self.ping(now, node));
        }
    }

    fn next_node(&mut self, now: Duration) -> Option<SocketAddrV4> {
        while let Some(invited) = self.responders.pop_front() {
            if !self.is_dialling(*invited.ip()) {
                return Some(invited);
            }
        }
        if self.mode() == Mode::UdpFlood {
            return None;
        }
        self.reload_if_empty(now);
        let dials = &self.dials;
        self.cache
            .take_next(now, |address| dials.values().any(|node| *node == address))
    }

    fn reload_if_empty(&mut self, now: Duration) {
        if self.cache.is_empty() {
            self.cache.refresh(now, &self.config.shipped);
        }
    }

    fn port_of(&mut self, node: SocketAddrV4) -> SocketAddrV4 {
        let port = match (self.mode(), self.config.profile.peer_port) {
            (Mode::Port80, _) => self.config.web_ports[(self.dialled % 2) as usize],
            (_, PeerPort::Listed) => node.port(),
            (_, PeerPort::Hopping) => {
                self.config.ports[self.rng.random_range(0..self.config.ports.len())]
            }
        };
        SocketAddrV4::new(*node.ip(), port)
    }
}

/// Dials left in the present second.
#[derive(Debug)]
struct Budget {
    per_second: u32,
    second: u64,
    taken: u32,
}

impl Budget {
    fn new(per_second: u32) -> Self {
        Self {
            per_second,
            second: 0,
            taken: 0,
        }
    }

    fn has_room(&mut self, now: Duration) -> bool {
        if now.as_secs() != self.second {
            *self = Self {
                second: now.as_secs(),
                taken: 0,
                ..*self
            };
        }
        self.taken < self.per_second
    }

    fn take(&mut self) {
        self.taken += 1;
    }

    /// When there is room again, if there is none now.
    fn refilled(&self, now: Duration) -> Option<Duration> {
        let spent = self.taken >= self.per_second && now.as_secs() == self.second;
        spent.then(|| Duration::from_secs(self.second + 1))
    }
}
