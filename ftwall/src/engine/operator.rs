//! What an operator can ask of an engine and tell it: who is locked and why, which peers are known, let
//! this through for a while, block that, take another configuration.
//!
//! Changes take the same way as those that packets cause, as [`super::Action`]s and events.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};
use std::time::Duration;

use ipnet::IpNet;
use serde::Serialize;
use thiserror::Error;

use super::Engine;
use super::history::Incident;
use crate::config::{Mode, NeverBlock, Strictness};
use crate::event::{Details, EventType, Refusal};
use crate::expiring::Expiring;
use crate::link::Place;
use crate::suspects::{self, Origin};
use crate::{EngineConfig, PassReason, Timestamp};

/// What the operator has asked for by hand.
#[derive(Debug)]
pub(super) struct ByHand {
    unblocked: Expiring<NeverBlock, ()>,
}

impl ByHand {
    pub(super) fn new(seed: u64) -> Self {
        let unblocked = Expiring::new(MAX_UNBLOCKED, seed);
        Self { unblocked }
    }

    pub(super) fn is_unblocked(&self, end: SocketAddr, now: Timestamp) -> bool {
        let mut targets = self.unblocked.iter(now);
        targets.any(|(target, (), _)| target.contains(end))
    }

    pub(super) fn let_through(&mut self, target: NeverBlock, until: Timestamp) {
        self.unblocked.insert(target, (), until);
    }

    pub(super) fn poll_timeout(&self) -> Option<Timestamp> {
        self.unblocked.next_end()
    }
}

/// A locked host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LockedClient {
    /// The host.
    pub client: Ipv4Addr,
    /// What is done about it.
    pub mode: Mode,
    /// The entry of the configuration that says so; absent if the general settings do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy: Option<String>,
    /// Since when it is locked.
    pub since: Timestamp,
    /// Until when, if nothing more speaks against it.
    pub until: Timestamp,
    /// What locked it.
    pub origin: Origin,
    /// How often something spoke against it since then.
    pub sightings: u64,
    /// How many peers it is known to use.
    pub peers: usize,
}

/// A peer that a client is known to use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct KnownPeer {
    /// The inside host.
    pub client: Ipv4Addr,
    /// The outside peer.
    pub peer: SocketAddrV4,
    /// How it came to be known.
    pub origin: Origin,
    /// Until when, if it is not named again.
    pub until: Timestamp,
}

/// How much was lifted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Lifted {
    /// Hosts that were locked.
    pub clients: usize,
    /// Peers that clients were known to use.
    pub peers: usize,
}

/// What to block by hand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Block {
    /// Lock this inside host.
    Client(Ipv4Addr),
    /// Keep this inside host from this outside peer.
    Peer(Ipv4Addr, SocketAddrV4),
}

/// Why something cannot be blocked by hand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum BlockError {
    /// Only inside hosts can be locked.
    #[error("{0} is not an inside host")]
    NotInside(Ipv4Addr),
    /// The guard forbids it.
    #[error(
        "{0} is never blocked: it is on the list of such addresses, the allow list, or special"
    )]
    NeverBlocked(SocketAddrV4),
    /// It would pass all the same.
    #[error("{0} is let through: exempt, on the allow list, or unblocked for a time")]
    LetThrough(Ipv4Addr),
}

/// What an explanation is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subject {
    /// A host, inside or outside.
    Host(Ipv4Addr),
    /// One port of an outside host.
    Peer(SocketAddrV4),
}

/// Why something is treated as it is: from what was seen to what is done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Explanation {
    /// Whether the subject is an inside host.
    pub inside: bool,
    /// What the configuration says of it, if it is an inside host.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy: Option<PolicyChoice>,
    /// Where it was last seen, if it is an inside host and the configuration asks for places.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub place: Option<Place>,
    /// Every test that would let it through or keep it from being learned, in the order they are made.
    pub tests: Vec<Test>,
    /// Its lock, if it is locked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lock: Option<LockedClient>,
    /// The pairs of client and peer that it belongs to.
    pub peers: Vec<KnownPeer>,
    /// What was seen of it lately and what became of that, oldest first.
    pub incidents: Vec<Incident>,
}

/// What the configuration says of a host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PolicyChoice {
    /// The entry that names the host; absent if none does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub entry: Option<String>,
    /// What is done about it.
    pub mode: Mode,
    /// How long it stays locked, in seconds.
    pub lock_time_seconds: u64,
    /// What happens to its unknown traffic.
    pub strictness: Strictness,
}

/// A test and its result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Test {
    /// Stable name in snake case.
    pub name: &'static str,
    /// Whether it lets the subject through, or keeps it from being learned.
    pub holds: bool,
}

impl Engine {
    /// Every locked host, by address.
    #[must_use]
    pub fn clients(&self, now: Timestamp) -> Vec<LockedClient> {
        let counts = self.suspects.peer_counts(now);
        let locks = self.suspects.locks(now).into_iter();
        locks
            .map(|lock| {
                let policy = self.policy_of(lock.host);
                LockedClient {
                    client: lock.host,
                    mode: policy.mode,
                    policy: self.policy_name(policy.entry),
                    since: lock.since,
                    until: lock.until,
                    origin: lock.origin,
                    sightings: lock.sightings,
                    peers: counts.get(&lock.host).copied().unwrap_or(0),
                }
            })
            .collect()
    }

    /// How many hosts are locked and how many pairs of client and peer are known, without looking at each;
    /// what has ended within the last moment is still counted.
    #[must_use]
    pub fn census(&self) -> (usize, usize) {
        self.suspects.census()
    }

    /// Every peer that some client is known to use, by client and peer.
    #[must_use]
    pub fn peers(&self, now: Timestamp) -> Vec<KnownPeer> {
        let pairs = self.suspects.pairs(now).into_iter();
        pairs
            .map(|pair| KnownPeer {
                client: pair.client,
                peer: pair.peer,
                origin: pair.origin,
                until: pair.until,
            })
            .collect()
    }

    /// Lets everything from and to `target` through for so long, and lifts what stands against it at once.
    pub fn unblock(&mut self, now: Timestamp, target: NeverBlock, for_: Duration) -> Lifted {
        self.by_hand.let_through(target, now + for_);
        self.report_target(EventType::OperatorUnblocked, target);
        self.lift(now, &target)
    }

    /// Blocks by hand for at least so long.
    ///
    /// # Errors
    /// When it must not be blocked, or would pass all the same.
    pub fn block(
        &mut self,
        now: Timestamp,
        block: Block,
        for_: Duration,
    ) -> Result<(), BlockError> {
        let (Block::Client(client) | Block::Peer(client, _)) = block;
        if !self.config.is_inside(client.into()) {
            return Err(BlockError::NotInside(client));
        }
        let end = SocketAddr::from((client, 0));
        if self.config.is_exempt(client.into()) || self.is_let_through(end, now).is_some() {
            return Err(BlockError::LetThrough(client));
        }
        let peer = match block {
            Block::Client(host) => {
                self.suspects.lock_by_hand(host, for_, now, &mut self.out);
                None
            }
            Block::Peer(_, peer) if suspects::fixed_refusal(&self.config, peer).is_some() => {
                return Err(BlockError::NeverBlocked(peer));
            }
            Block::Peer(client, peer) => {
                self.suspects
                    .pair_by_hand(client, peer, for_, now, &mut self.out);
                Some(peer)
            }
        };
        let details = Details {
            client: Some(client),
            peer,
            ..Details::default()
        };
        self.out.report(EventType::OperatorBlocked, None, details);
        Ok(())
    }

    /// Takes another configuration. What was learned stays; the sizes of the tables stay too. What the new
    /// one allows, exempts or never blocks is lifted at once, and hosts that come to be enforced or cease
    /// to be are told to the kernel.
    pub fn reconfigure(&mut self, now: Timestamp, config: EngineConfig) {
        let old = std::mem::replace(&mut self.config, config);
        let exempt = self.config.exempt.iter().copied().map(NeverBlock::from);
        let listed = self.config.allow.iter().chain(&self.config.never_block);
        for target in exempt.chain(listed.copied()).collect::<Vec<_>>() {
            self.lift(now, &target);
        }
        let enforced = |config: &EngineConfig, host: Ipv4Addr| {
            self.suspects.policy_of(config, host).mode == Mode::Enforce
        };
        self.suspects.change_enforcement(
            |host| enforced(&old, host),
            |host| enforced(&self.config, host),
            now,
            &mut self.out,
        );
    }

    /// The configuration in force.
    #[must_use]
    pub const fn config(&self) -> &EngineConfig {
        &self.config
    }

    /// Says why something is treated as it is.
    #[must_use]
    pub fn explain(&self, now: Timestamp, subject: Subject) -> Explanation {
        let target = subject.target();
        let host = subject.host();
        let inside = self.config.is_inside(host.into());
        let is_meant = |end: SocketAddr| target.contains(end);
        let peers = self.peers(now).into_iter();
        let policy = self.policy_of(host);
        Explanation {
            inside,
            policy: inside.then(|| PolicyChoice {
                entry: self.policy_name(policy.entry),
                mode: policy.mode,
                lock_time_seconds: policy.lock_time.as_secs(),
                strictness: policy.strictness,
            }),
            place: (inside && self.config.asks_for_places()).then(|| self.suspects.place_of(host)),
            tests: self.tests(now, subject),
            lock: self
                .clients(now)
                .into_iter()
                .find(|lock| lock.client == host),
            peers: peers
                .filter(|known| known.client == host || is_meant(known.peer.into()))
                .collect(),
            incidents: if inside {
                self.history.of(host, now).cloned().collect()
            } else {
                self.history.with(is_meant, now)
            },
        }
    }

    /// Why packets of this end pass unjudged, if they do.
    pub(super) fn is_let_through(&self, end: SocketAddr, now: Timestamp) -> Option<PassReason> {
        if self.config.is_allowed(end) {
            Some(PassReason::Allowed)
        } else if self.by_hand.is_unblocked(end, now) {
            Some(PassReason::Unblocked)
        } else {
            None
        }
    }

    /// Ends what the operator has let through for a time that is over.
    pub(super) fn end_unblocks(&mut self, now: Timestamp) {
        while let Some((target, ())) = self.by_hand.unblocked.pop_ended(now) {
            self.report_target(EventType::OperatorUnblockEnded, target);
        }
    }

    fn lift(&mut self, now: Timestamp, target: &NeverBlock) -> Lifted {
        let (clients, peers) = self.suspects.lift(target, now, &mut self.out);
        Lifted { clients, peers }
    }

    fn report_target(&mut self, event_type: EventType, target: NeverBlock) {
        let target = Some(target);
        let details = Details {
            target,
            ..Details::default()
        };
        self.out.report(event_type, None, details);
    }

    fn policy_name(&self, entry: Option<usize>) -> Option<String> {
        entry.map(|index| self.config.policies[index].name.clone())
    }

    fn tests(&self, now: Timestamp, subject: Subject) -> Vec<Test> {
        let host = IpAddr::V4(subject.host());
        let end = SocketAddr::new(host, subject.port());
        let refusal = match subject {
            Subject::Host(_) => None,
            Subject::Peer(peer) => suspects::fixed_refusal(&self.config, peer),
        };
        [
            ("exempt", self.config.is_exempt(host)),
            ("allowed", self.config.is_allowed(end)),
            ("unblocked", self.by_hand.is_unblocked(end, now)),
            ("never_block", refusal == Some(Refusal::NeverBlock)),
            ("special_address", refusal == Some(Refusal::SpecialAddress)),
            ("proven", self.suspects.is_proven(host, now)),
        ]
        .map(|(name, holds)| Test { name, holds })
        .into()
    }
}

impl Subject {
    const fn host(&self) -> Ipv4Addr {
        match self {
            Self::Host(host) => *host,
            Self::Peer(peer) => *peer.ip(),
        }
    }

    /// Zero where no port is meant.
    const fn port(&self) -> u16 {
        match self {
            Self::Host(_) => 0,
            Self::Peer(peer) => peer.port(),
        }
    }

    fn target(&self) -> NeverBlock {
        let net = IpNet::from(IpAddr::V4(self.host()));
        let port = match self {
            Self::Host(_) => None,
            Self::Peer(peer) => Some(peer.port()),
        };
        NeverBlock { net, port }
    }
}

/// Targets let through by hand at once; each is looked at for every packet.
const MAX_UNBLOCKED: usize = 256;
