//! What is remembered about hosts and peers: locked hosts, learned peers, proven addresses, and how
//! much each host has already cost.
//!
//! Every entry ends by itself and every table is bounded. An inside host can forge pings in order to
//! make the gateway block somebody, so that learning passes a guard: never what the configuration
//! names, never special or proven addresses, and only so many a minute. What was learned from one
//! host blocks that host alone; to others it only confirms what they say themselves.

mod operator;

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::config::{EffectivePolicy, EngineConfig};
use crate::engine::{Action, Hearsay};
use crate::event::{Details, Event, EventType, PacketEnds, Refusal};
use crate::expiring::Expiring;
use crate::link::Place;
use crate::policy::{is_contested_port, is_system_port};
use crate::protocol::{self, ShortPayload};
use crate::verdict::Verdict;
use crate::{Evidence, Timestamp};

/// What is to be carried out and reported.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    pub(crate) actions: VecDeque<Action>,
    pub(crate) events: VecDeque<Event>,
}

impl Outbox {
    pub(crate) fn report(
        &mut self,
        event_type: EventType,
        packet: Option<PacketEnds>,
        ftwall: Details,
    ) {
        self.events.push_back(Event {
            event_type,
            packet,
            ftwall,
        });
    }
}

/// What was seen, and in which packet.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sighting {
    pub(crate) evidence: Evidence,
    pub(crate) packet: PacketEnds,
}

/// Everything remembered about hosts and peers.
#[derive(Debug)]
pub(crate) struct Suspects {
    locks: Expiring<Ipv4Addr, Lock>,
    /// When each locked host is to be probed.
    probes: Expiring<Ipv4Addr, ()>,
    pairs: Expiring<(Ipv4Addr, SocketAddrV4), Origin>,
    peers: Expiring<SocketAddrV4, ()>,
    proven: Expiring<IpAddr, ()>,
    /// Where each host last sent an opener's shape that nothing confirmed.
    openers: Expiring<Ipv4Addr, SocketAddrV4>,
    tallies: Expiring<Ipv4Addr, Tally>,
    /// Where hosts were last seen, while the configuration asks for it. Each "ends" when it was seen, so that
    /// the longest unseen makes room; until then it is not forgotten, since a lock may depend on it.
    places: Expiring<Ipv4Addr, Place>,
}

/// Where something that is remembered comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// This evidence.
    Evidence(Evidence),
    /// A daemon before this one.
    TakenOver,
    /// The operator.
    Operator,
}

#[derive(Debug)]
struct Lock {
    since: Timestamp,
    origin: Origin,
    /// How often something spoke against the host since then.
    sightings: u64,
    announced: Timestamp,
    last_ping: Option<Ping>,
    /// Probes since anything but an answer to a probe spoke against the host.
    probes: u32,
}

impl Lock {
    const fn new(since: Timestamp, origin: Origin) -> Self {
        Self {
            since,
            origin,
            sightings: 0,
            announced: since,
            last_ping: None,
            probes: 0,
        }
    }
}

/// A ping as a client sent it.
#[derive(Debug, Clone)]
pub(crate) struct Ping {
    pub(crate) from: SocketAddrV4,
    pub(crate) to: SocketAddrV4,
    pub(crate) payload: ShortPayload,
}

/// What one host has cost within the current minute.
#[derive(Debug, Clone, Copy, Default)]
struct Tally {
    peers: u32,
    answers: u32,
    reports: u32,
    suppressed: u32,
}

impl Suspects {
    pub(crate) fn new(config: &EngineConfig, seed: u64) -> Self {
        let capacity = config.capacity;
        Self {
            locks: Expiring::new(capacity.hosts, seed),
            probes: Expiring::new(capacity.hosts, seed),
            pairs: Expiring::new(capacity.peers, seed),
            peers: Expiring::new(capacity.peers, seed),
            proven: Expiring::new(capacity.proven, seed),
            openers: Expiring::new(capacity.hosts, seed),
            tallies: Expiring::new(capacity.hosts, seed),
            places: Expiring::new(capacity.hosts, seed),
        }
    }

    /// What holds for a host, where it was last seen considered.
    pub(crate) fn policy_of(&self, config: &EngineConfig, host: Ipv4Addr) -> EffectivePolicy {
        config.policy_of(host.into(), self.place_of(host))
    }

    /// Where a host was last seen; nowhere that is known as long as nobody asked.
    pub(crate) fn place_of(&self, host: Ipv4Addr) -> Place {
        self.places.peek(&host).copied().unwrap_or_default()
    }

    /// Remembers where a host was seen.
    pub(crate) fn note_place(&mut self, host: Ipv4Addr, place: Place, now: Timestamp) {
        self.places.insert(host, place, now);
    }

    pub(crate) fn is_locked(&self, host: Ipv4Addr, now: Timestamp) -> bool {
        self.locks.contains(&host, now)
    }

    /// Since when the host is locked without interruption.
    pub(crate) fn locked_since(&self, host: Ipv4Addr, now: Timestamp) -> Option<Timestamp> {
        self.locks.get(&host, now).map(|lock| lock.since)
    }

    /// Whether some client is known to use this peer.
    pub(crate) fn is_peer(&self, peer: SocketAddrV4, now: Timestamp) -> bool {
        self.peers.contains(&peer, now)
    }

    /// Whether this client is known to use this peer.
    pub(crate) fn is_pair(&self, client: Ipv4Addr, peer: SocketAddrV4, now: Timestamp) -> bool {
        self.pairs.contains(&(client, peer), now)
    }

    /// Whether this address served a proven harmless flow lately.
    pub(crate) fn is_proven(&self, address: IpAddr, now: Timestamp) -> bool {
        self.proven.contains(&address, now)
    }

    /// Remembers that this address served a proven harmless flow.
    pub(crate) fn prove(
        &mut self,
        config: &EngineConfig,
        address: IpAddr,
        now: Timestamp,
        out: &mut Outbox,
    ) {
        let (for_, ends) = (config.proven_expiry, now + config.proven_expiry);
        let known = self.proven.ends(&address).filter(|known| *known > now);
        let interval = RELEARN_INTERVAL.min(for_ / 2);
        if known.is_some_and(|known| ends.saturating_since(known) < interval) {
            return;
        }
        self.proven.insert(address, (), ends);
        out.actions
            .push_back(Action::ProveAddress { address, for_ });
    }

    /// Takes over what another engine has found out, for no longer than if it were this one.
    pub(crate) fn hear(&mut self, config: &EngineConfig, said: Hearsay, now: Timestamp) {
        match said {
            Hearsay::Peer { peer, for_ } => {
                let ends = now + for_.min(config.peer_expiry);
                self.peers.insert(peer, (), ends);
            }
            Hearsay::Proven { address, for_ } => {
                let ends = now + for_.min(config.proven_expiry);
                self.proven.insert(address, (), ends);
            }
        }
    }

    /// The other peer to which this host sent an opener's shape within the window.
    pub(crate) fn other_opener(
        &self,
        host: Ipv4Addr,
        peer: SocketAddrV4,
        now: Timestamp,
    ) -> Option<SocketAddrV4> {
        self.openers
            .get(&host, now)
            .copied()
            .filter(|earlier| *earlier != peer)
    }

    /// Remembers that this host sent an opener's shape that nothing confirmed.
    pub(crate) fn record_opener(
        &mut self,
        config: &EngineConfig,
        host: Ipv4Addr,
        peer: SocketAddrV4,
        now: Timestamp,
    ) {
        self.openers.insert(host, peer, now + config.opener_window);
    }

    /// Locks a host or renews its lock.
    pub(crate) fn lock(
        &mut self,
        config: &EngineConfig,
        host: Ipv4Addr,
        sighting: Sighting,
        now: Timestamp,
        out: &mut Outbox,
    ) {
        let for_ = self.policy_of(config, host).lock_time;
        if for_.is_zero() {
            return;
        }
        self.probes.insert(host, (), now + for_ / 2);
        // The operator may have locked it for longer.
        let known_end = self.locks.ends(&host).unwrap_or(now);
        let ends = known_end.max(now + for_);
        let for_ = ends.saturating_since(now);
        if let Some(lock) = self.locks.get_mut(&host, now) {
            lock.sightings += 1;
            lock.probes = if answers_a_probe(sighting.evidence) {
                lock.probes
            } else {
                0
            };
            if now.saturating_since(lock.announced) >= ANNOUNCE_INTERVAL {
                lock.announced = now;
                out.actions.push_back(Action::LockHost { host, for_ });
            }
            self.locks.renew(&host, ends);
            return;
        }
        let lock = Lock {
            sightings: 1,
            ..Lock::new(now, Origin::Evidence(sighting.evidence))
        };
        if let Some((displaced, _)) = self.locks.insert(host, lock, ends) {
            release(displaced, out);
        }
        out.actions.push_back(Action::LockHost { host, for_ });
        let evidence = Some(sighting.evidence);
        let details = Details {
            client: Some(host),
            evidence,
            ..Details::default()
        };
        out.report(EventType::ClientLocked, Some(sighting.packet), details);
    }

    /// Takes over a lock, for no longer than a new one would last unless the operator said so.
    pub(crate) fn remember_lock(
        &mut self,
        config: &EngineConfig,
        host: Ipv4Addr,
        (for_, origin): (Duration, Origin),
        now: Timestamp,
        out: &mut Outbox,
    ) {
        let longest = self.policy_of(config, host).lock_time;
        let for_ = at_most(for_, longest, origin);
        if for_.is_zero() {
            return;
        }
        let lock = Lock::new(now, origin);
        if let Some((displaced, _)) = self.locks.insert(host, lock, now + for_) {
            release(displaced, out);
        }
    }

    /// Takes over a client's peer, for no longer than a newly learned one unless the operator said so.
    pub(crate) fn remember_peer(
        &mut self,
        config: &EngineConfig,
        (client, peer): (Ipv4Addr, SocketAddrV4),
        (for_, origin): (Duration, Origin),
        now: Timestamp,
        out: &mut Outbox,
    ) {
        let ends = now + at_most(for_, config.peer_expiry, origin);
        self.peers.insert(peer, (), ends);
        if let Some(((client, peer), _)) = self.pairs.insert((client, peer), origin, ends) {
            forget(client, peer, out);
        }
    }

    /// Remembers a locked host's last ping: that is what it is probed with.
    pub(crate) fn record_ping(&mut self, ping: Ping, now: Timestamp) {
        if let Some(lock) = self.locks.get_mut(ping.from.ip(), now) {
            lock.last_ping = Some(ping);
        }
    }

    /// Learns a peer or renews what is known about it, if the guard lets it.
    pub(crate) fn learn(
        &mut self,
        config: &EngineConfig,
        client: Ipv4Addr,
        peer: SocketAddrV4,
        sighting: Sighting,
        now: Timestamp,
        out: &mut Outbox,
    ) {
        let is_known = self.is_pair(client, peer, now);
        let refusal = self.refusal(config, client, peer, is_known, now);
        if let Some(refusal) = refusal {
            if self.may_report(client, now) {
                let details = Details {
                    refusal: Some(refusal),
                    ..about(client, peer)
                };
                out.report(EventType::PeerRefused, Some(sighting.packet), details);
            }
            return;
        }
        let known_end = self.pairs.ends(&(client, peer));
        // The operator may have blocked it for longer.
        let ends = known_end.unwrap_or(now).max(now + config.peer_expiry);
        self.peers.insert(peer, (), ends);
        let is_fresh = known_end
            .is_some_and(|known| is_known && ends.saturating_since(known) < RELEARN_INTERVAL);
        if is_fresh {
            return;
        }
        let origin = Origin::Evidence(sighting.evidence);
        if let Some(((client, peer), _)) = self.pairs.insert((client, peer), origin, ends) {
            forget(client, peer, out);
        }
        out.actions
            .push_back(learn_peer(client, peer, ends.saturating_since(now)));
        if !is_known {
            let details = Details {
                evidence: Some(sighting.evidence),
                ..about(client, peer)
            };
            out.report(EventType::PeerLearned, Some(sighting.packet), details);
        }
    }

    /// Whether one more ping of this client is answered this minute.
    pub(crate) fn may_answer(
        &mut self,
        config: &EngineConfig,
        client: Ipv4Addr,
        now: Timestamp,
    ) -> bool {
        let tally = self.tally(client, now);
        tally.answers = tally.answers.saturating_add(1);
        tally.answers <= config.answers_per_minute
    }

    /// Reports a dropped packet, unless this client's share of reports is used up.
    pub(crate) fn report_drop(
        &mut self,
        details: Details,
        packet: PacketEnds,
        now: Timestamp,
        out: &mut Outbox,
    ) {
        if details
            .client
            .is_none_or(|client| self.may_report(client, now))
        {
            out.report(EventType::PacketDrop, Some(packet), details);
        }
    }

    /// Ends what has run out and sends the probes that are due.
    pub(crate) fn handle_timeout(
        &mut self,
        config: &EngineConfig,
        now: Timestamp,
        out: &mut Outbox,
    ) {
        while let Some((host, ())) = self.probes.pop_ended(now) {
            self.probe(config, host, now, out);
        }
        while let Some((host, _)) = self.locks.pop_ended(now) {
            release(host, out);
        }
        while let Some(((client, peer), _)) = self.pairs.pop_ended(now) {
            forget(client, peer, out);
        }
        while let Some((client, tally)) = self.tallies.pop_ended(now) {
            report_suppressed(client, tally, out);
        }
        while self.peers.pop_ended(now).is_some() {}
        while self.proven.pop_ended(now).is_some() {}
        while self.openers.pop_ended(now).is_some() {}
    }

    pub(crate) fn poll_timeout(&self) -> Option<Timestamp> {
        let ends = [
            self.probes.next_end(),
            self.locks.next_end(),
            self.pairs.next_end(),
            self.tallies.next_end(),
            self.peers.next_end(),
            self.proven.next_end(),
            self.openers.next_end(),
        ];
        ends.into_iter().flatten().min()
    }

    /// Entries about hosts, about peers and about proven addresses.
    pub(crate) fn occupancy(&self) -> [usize; 3] {
        let hosts = [
            self.locks.len(),
            self.probes.len(),
            self.openers.len(),
            self.tallies.len(),
        ];
        let peers = self.pairs.len().max(self.peers.len());
        [
            hosts.into_iter().max().unwrap_or(0),
            peers,
            self.proven.len(),
        ]
    }

    /// Asks a locked host whether its client still runs. A client that does answers, and its answer
    /// renews the lock; one that was closed stays silent, and the lock runs out.
    fn probe(&mut self, config: &EngineConfig, host: Ipv4Addr, now: Timestamp, out: &mut Outbox) {
        let Some(lock) = self.locks.get_mut(&host, now) else {
            return;
        };
        let Some(ping) = lock.last_ping.as_ref().filter(|_| config.reprobe) else {
            return;
        };
        if lock.probes >= config.reprobe_limit {
            return;
        }
        let Some(payload) = protocol::probe_for(&ping.payload) else {
            return;
        };
        lock.probes += 1;
        out.actions.push_back(Action::Probe {
            from: ping.to,
            to: ping.from,
            payload,
        });
        out.report(EventType::ClientProbed, None, about(host, ping.to));
    }

    /// Why this peer must not be learned from this client.
    fn refusal(
        &mut self,
        config: &EngineConfig,
        client: Ipv4Addr,
        peer: SocketAddrV4,
        is_known: bool,
        now: Timestamp,
    ) -> Option<Refusal> {
        let address = IpAddr::V4(*peer.ip());
        if let Some(refusal) = fixed_refusal(config, peer) {
            Some(refusal)
        } else if is_system_port(peer.port()) {
            Some(Refusal::SystemPort)
        } else if self.is_proven(address, now) {
            Some(Refusal::Proven)
        } else if !is_known && !self.may_teach(config, client, now) {
            Some(Refusal::TooMany)
        } else {
            None
        }
    }

    fn may_teach(&mut self, config: &EngineConfig, client: Ipv4Addr, now: Timestamp) -> bool {
        let tally = self.tally(client, now);
        tally.peers = tally.peers.saturating_add(1);
        tally.peers <= config.new_peers_per_minute
    }

    fn may_report(&mut self, client: Ipv4Addr, now: Timestamp) -> bool {
        let tally = self.tally(client, now);
        let may_report = tally.reports < REPORTS_PER_MINUTE;
        if may_report {
            tally.reports += 1;
        } else {
            tally.suppressed = tally.suppressed.saturating_add(1);
        }
        may_report
    }

    fn tally(&mut self, client: Ipv4Addr, now: Timestamp) -> &mut Tally {
        if !self.tallies.contains(&client, now) {
            self.tallies.insert(client, Tally::default(), now + MINUTE);
        }
        self.tallies
            .get_mut(&client, now)
            .expect("it was stored until after now just above")
    }
}

/// How long something that is taken over lasts, where what is new lasts `longest`.
fn at_most(for_: Duration, longest: Duration, origin: Origin) -> Duration {
    match origin {
        Origin::Operator => for_,
        Origin::Evidence(_) | Origin::TakenOver => for_.min(longest),
    }
}

/// Evidence that a client gives when it is probed, so that it may be ftwall's own doing.
const fn answers_a_probe(evidence: Evidence) -> bool {
    matches!(
        evidence,
        Evidence::UdpPong | Evidence::UdpPong2 | Evidence::UdpPong2Answer
    )
}

/// Ranges that no supernode can have and that must never be blocked: RFC 6890 and multicast. The
/// documentation and benchmark ranges are left out: clients dial them like any other.
fn is_special(address: Ipv4Addr) -> bool {
    let [first, second, ..] = address.octets();
    let is_shared = first == 100 && second & 0xc0 == 64;
    first == 0
        || first >= 224
        || is_shared
        || address.is_private()
        || address.is_loopback()
        || address.is_link_local()
}

/// Why this peer must never be learned from anybody, the operator included.
pub(crate) fn fixed_refusal(config: &EngineConfig, peer: SocketAddrV4) -> Option<Refusal> {
    let mut listed = config.never_block.iter().chain(&config.allow);
    if listed.any(|listed| listed.contains(peer.into())) {
        Some(Refusal::NeverBlock)
    } else if peer.port() == 0 || is_special(*peer.ip()) {
        Some(Refusal::SpecialAddress)
    } else {
        None
    }
}

const fn learn_peer(client: Ipv4Addr, peer: SocketAddrV4, for_: Duration) -> Action {
    Action::LearnPeer {
        client,
        peer,
        for_,
        kernel_drop: !is_contested_port(peer.port()),
    }
}

fn release(host: Ipv4Addr, out: &mut Outbox) {
    out.actions.push_back(Action::ReleaseHost { host });
    let details = Details {
        client: Some(host),
        ..Details::default()
    };
    out.report(EventType::ClientReleased, None, details);
}

fn forget(client: Ipv4Addr, peer: SocketAddrV4, out: &mut Outbox) {
    out.actions.push_back(Action::ForgetPeer { client, peer });
    out.report(EventType::PeerExpired, None, about(client, peer));
}

fn report_suppressed(client: Ipv4Addr, tally: Tally, out: &mut Outbox) {
    if tally.suppressed > 0 {
        let (client, suppressed) = (Some(client), tally.suppressed);
        let details = Details {
            client,
            suppressed,
            ..Details::default()
        };
        out.report(EventType::PacketDrop, None, details);
    }
}

fn about(client: Ipv4Addr, peer: SocketAddrV4) -> Details {
    Details {
        client: Some(client),
        peer: Some(peer),
        ..Details::default()
    }
}

/// The details of a packet that was dropped.
pub(crate) fn drop_details(
    client: Ipv4Addr,
    peer: SocketAddrV4,
    evidence: Option<Evidence>,
    verdict: Verdict,
) -> Details {
    Details {
        evidence,
        verdict: Some(verdict.into()),
        ..about(client, peer)
    }
}

const MINUTE: Duration = Duration::from_secs(60);
/// A lock renewed by a flood is announced to the kernel this often at most.
pub(crate) const ANNOUNCE_INTERVAL: Duration = Duration::from_secs(1);
/// A peer named again is announced to the kernel this often at most.
pub(crate) const RELEARN_INTERVAL: Duration = Duration::from_secs(60);
const REPORTS_PER_MINUTE: u32 = 600;

#[cfg(test)]
mod tests {
    use super::*;

    const HOST: Ipv4Addr = Ipv4Addr::new(10, 77, 1, 1);
    const PEER: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(198, 18, 0, 5), 2001);

    #[test]
    fn a_lock_lasts_its_time_and_evidence_renews_it() {
        let mut test = Test::new(EngineConfig::default());
        test.lock(at(0));
        test.lock(at(100));
        assert!(test.suspects.is_locked(HOST, at(219)));
        assert!(!test.suspects.is_locked(HOST, at(220)));
        assert_eq!(test.suspects.locked_since(HOST, at(219)), Some(at(0)));
        test.suspects
            .handle_timeout(&test.config, at(220), &mut test.out);
        assert_eq!(
            test.out.actions.back(),
            Some(&Action::ReleaseHost { host: HOST })
        );
    }

    #[test]
    fn what_the_kernel_still_holds_is_taken_over_in_silence_and_for_no_longer_than_usual() {
        let mut test = Test::new(EngineConfig::default());
        let config = EngineConfig::default();
        let long = Duration::from_secs(1_000_000);
        let (suspects, out) = (&mut test.suspects, &mut test.out);
        let short = Duration::from_secs(5);
        suspects.remember_lock(&config, HOST, (short, Origin::TakenOver), at(0), out);
        let long = (long, Origin::TakenOver);
        suspects.remember_peer(&config, (HOST, PEER), long, at(0), out);
        assert!(suspects.is_locked(HOST, at(4)) && !suspects.is_locked(HOST, at(5)));
        let last = at(0) + config.peer_expiry;
        assert!(suspects.is_pair(HOST, PEER, at(5)) && !suspects.is_pair(HOST, PEER, last));
        suspects.remember_lock(&config, HOST, long, at(10), out);
        assert!(!suspects.is_locked(HOST, at(10) + config.lock_time));
        assert!(out.actions.is_empty() && out.events.is_empty());
    }

    #[test]
    fn a_lock_time_of_zero_locks_nobody() {
        let config = EngineConfig {
            lock_time: Duration::ZERO,
            ..EngineConfig::default()
        };
        let mut test = Test::new(config);
        test.lock(at(0));
        assert!(!test.suspects.is_locked(HOST, at(0)));
        assert!(test.out.actions.is_empty());
    }

    #[test]
    fn a_flood_of_evidence_announces_a_lock_once_a_second() {
        let mut test = Test::new(EngineConfig::default());
        for millis in 0..2500 {
            test.lock(Timestamp::from_millis(millis));
        }
        assert_eq!(test.out.actions.len(), 3);
    }

    #[test]
    fn a_locked_host_is_probed_at_half_its_lock_time_and_only_once() {
        let mut test = Test::new(EngineConfig::default());
        test.lock(at(0));
        test.ping(at(0));
        assert_eq!(test.probes_at(at(59)), 0);
        assert_eq!(test.probes_at(at(60)), 1);
        assert_eq!(test.probes_at(at(119)), 0);
    }

    #[test]
    fn probes_that_only_feed_themselves_stop_at_their_limit() {
        let config = EngineConfig {
            reprobe_limit: 3,
            ..EngineConfig::default()
        };
        let mut test = Test::new(config);
        test.lock(at(0));
        test.ping(at(0));
        let mut probes = 0;
        for minute in 1..20 {
            probes += test.probes_at(at(60 * minute));
            test.lock_by(Evidence::UdpPong, at(60 * minute));
        }
        assert_eq!(probes, 3);
    }

    #[test]
    fn probes_go_on_while_something_else_speaks_against_the_host() {
        let config = EngineConfig {
            reprobe_limit: 3,
            ..EngineConfig::default()
        };
        let mut test = Test::new(config);
        test.lock(at(0));
        test.ping(at(0));
        let mut probes = 0;
        for minute in 1..20 {
            probes += test.probes_at(at(60 * minute));
            test.lock_by(Evidence::HashRequest, at(60 * minute));
        }
        assert_eq!(probes, 19);
    }

    #[test]
    fn without_reprobe_nobody_is_probed() {
        let mut test = Test::new(EngineConfig {
            reprobe: false,
            ..EngineConfig::default()
        });
        test.lock(at(0));
        test.ping(at(0));
        assert_eq!(test.probes_at(at(60)), 0);
    }

    #[test]
    fn a_learned_peer_is_forgotten_at_its_expiry() {
        let mut test = Test::new(EngineConfig::default());
        test.learn(PEER, at(0));
        assert!(test.suspects.is_pair(HOST, PEER, at(7199)));
        assert!(test.suspects.is_peer(PEER, at(7199)));
        test.suspects
            .handle_timeout(&test.config, at(7200), &mut test.out);
        assert!(!test.suspects.is_pair(HOST, PEER, at(7200)));
        let forgotten = Action::ForgetPeer {
            client: HOST,
            peer: PEER,
        };
        assert_eq!(test.out.actions.back(), Some(&forgotten));
    }

    #[test]
    fn a_peer_named_again_is_announced_once_a_minute_and_renewed() {
        let mut test = Test::new(EngineConfig::default());
        for secs in 0..=60 {
            test.learn(PEER, at(secs));
        }
        assert_eq!(test.out.actions.len(), 2, "at once, and a minute later");
        assert_eq!(test.out.events.len(), 1);
        assert!(test.suspects.is_pair(HOST, PEER, at(7259)));
        assert!(!test.suspects.is_pair(HOST, PEER, at(7260)));
        test.learn(PEER, at(7270));
        assert!(test.suspects.is_pair(HOST, PEER, at(7270)));
        assert_eq!(test.out.events.len(), 2, "it had been forgotten");
    }

    #[test]
    fn neighbours_of_the_special_ranges_are_learned() {
        let mut test = Test::new(EngineConfig::default());
        for address in [
            "1.0.0.1",
            "100.63.255.255",
            "100.128.0.1",
            "198.64.0.1",
            "172.32.0.1",
            "223.255.255.255",
        ] {
            let peer = SocketAddrV4::new(address.parse().unwrap(), 2001);
            test.learn(peer, at(0));
            assert!(test.suspects.is_pair(HOST, peer, at(0)), "{address}");
        }
    }

    #[test]
    fn a_peer_on_a_port_of_the_web_is_left_to_its_payload() {
        let mut test = Test::new(EngineConfig::default());
        let web = SocketAddrV4::new(*PEER.ip(), 443);
        test.learn(web, at(0));
        let learned = test.out.actions.back().unwrap();
        assert!(
            matches!(
                learned,
                Action::LearnPeer {
                    kernel_drop: false,
                    ..
                }
            ),
            "{learned:?}"
        );
    }

    #[test]
    fn what_must_not_be_blocked_is_never_learned() {
        let bank: ipnet::IpNet = "203.0.113.7/32".parse().unwrap();
        let never_block = vec![
            bank.into(),
            crate::config::NeverBlock {
                net: "198.18.9.0/24".parse().unwrap(),
                port: Some(2053),
            },
        ];
        let mut test = Test::new(EngineConfig {
            never_block,
            ..EngineConfig::default()
        });
        test.suspects.prove(
            &test.config,
            "198.18.3.3".parse().unwrap(),
            at(0),
            &mut Outbox::default(),
        );
        let refused = [
            ("203.0.113.7:443", Refusal::NeverBlock),
            ("198.18.9.9:2053", Refusal::NeverBlock),
            ("192.168.1.1:2001", Refusal::SpecialAddress),
            ("127.0.0.1:2001", Refusal::SpecialAddress),
            ("100.64.3.1:2001", Refusal::SpecialAddress),
            ("239.1.1.1:2001", Refusal::SpecialAddress),
            ("0.1.2.3:2001", Refusal::SpecialAddress),
            ("224.0.0.1:2001", Refusal::SpecialAddress),
            ("198.18.0.1:0", Refusal::SpecialAddress),
            ("198.18.0.1:53", Refusal::SystemPort),
            ("198.18.3.3:2001", Refusal::Proven),
        ];
        for (peer, refusal) in refused {
            let peer = peer.parse().unwrap();
            test.learn(peer, at(1));
            assert!(!test.suspects.is_pair(HOST, peer, at(1)), "{peer}");
            let event = test.out.events.back().unwrap();
            assert_eq!(event.ftwall.refusal, Some(refusal), "{peer}");
        }
        test.learn("198.18.9.9:2054".parse().unwrap(), at(1));
        assert_eq!(test.out.actions.len(), 1);
    }

    #[test]
    fn what_another_engine_found_out_confirms_and_blocks_nobody() {
        let mut test = Test::new(EngineConfig::default());
        let hour = Duration::from_secs(3600);
        let (peer, address) = (PEER, "198.18.3.3".parse().unwrap());
        for said in [
            Hearsay::Peer { peer, for_: hour },
            Hearsay::Proven {
                address,
                for_: hour,
            },
        ] {
            test.suspects.hear(&test.config, said, at(0));
        }
        assert!(test.suspects.is_peer(PEER, at(1)) && !test.suspects.is_pair(HOST, PEER, at(1)));
        assert!(test.suspects.is_proven(address, at(3599)));
        assert!(!test.suspects.is_proven(address, at(3600)));
        assert!(test.out.actions.is_empty(), "it is not told on");
    }

    #[test]
    fn an_address_that_goes_on_proving_itself_is_told_once_a_minute() {
        let mut test = Test::new(EngineConfig::default());
        let address = "198.18.3.3".parse().unwrap();
        for second in 0..150 {
            test.suspects
                .prove(&test.config, address, at(second), &mut test.out);
        }
        assert!(test.suspects.is_proven(address, at(3700)));
        assert!(test.out.actions.len() <= 3, "{:?}", test.out.actions);
    }

    #[test]
    fn one_host_teaches_only_so_many_peers_a_minute() {
        let mut test = Test::new(EngineConfig {
            new_peers_per_minute: 10,
            ..EngineConfig::default()
        });
        for port in 2001..2101 {
            test.learn(SocketAddrV4::new(*PEER.ip(), port), at(0));
        }
        assert_eq!(test.out.actions.len(), 10);
        test.learn(SocketAddrV4::new(*PEER.ip(), 3000), at(60));
        assert_eq!(test.out.actions.len(), 11, "a new minute");
    }

    #[test]
    fn openers_to_two_peers_confirm_each_other_within_a_minute() {
        let mut test = Test::new(EngineConfig::default());
        let second = SocketAddrV4::new(*PEER.ip(), 2002);
        test.suspects.record_opener(&test.config, HOST, PEER, at(0));
        assert_eq!(test.suspects.other_opener(HOST, PEER, at(1)), None);
        assert_eq!(test.suspects.other_opener(HOST, second, at(59)), Some(PEER));
        assert_eq!(test.suspects.other_opener(HOST, second, at(60)), None);
    }

    #[test]
    fn reports_that_were_left_out_are_counted_in_the_next_one() {
        let mut test = Test::new(EngineConfig::default());
        for _ in 0..=REPORTS_PER_MINUTE {
            let details = Details {
                client: Some(HOST),
                ..Details::default()
            };
            let packet = sighting(Evidence::UdpPing).packet;
            test.suspects
                .report_drop(details, packet, at(0), &mut test.out);
        }
        test.suspects
            .handle_timeout(&test.config, at(60), &mut test.out);
        let last = test.out.events.back().unwrap();
        assert_eq!(
            (last.ftwall.client, last.ftwall.suppressed),
            (Some(HOST), 1)
        );
    }

    struct Test {
        config: EngineConfig,
        suspects: Suspects,
        out: Outbox,
    }

    impl Test {
        fn new(config: EngineConfig) -> Self {
            let suspects = Suspects::new(&config, 1);
            Self {
                config,
                suspects,
                out: Outbox::default(),
            }
        }

        fn lock(&mut self, now: Timestamp) {
            self.lock_by(Evidence::UdpPing, now);
        }

        fn lock_by(&mut self, evidence: Evidence, now: Timestamp) {
            let Self {
                config,
                suspects,
                out,
            } = self;
            suspects.lock(config, HOST, sighting(evidence), now, out);
        }

        fn ping(&mut self, now: Timestamp) {
            let payload = ShortPayload::of(&[b"\x27\0\0\0\x29\x80KaZaA\0"]).expect("it is short");
            let from = SocketAddrV4::new(HOST, 1214);
            self.suspects.record_ping(
                Ping {
                    from,
                    to: PEER,
                    payload,
                },
                now,
            );
        }

        fn learn(&mut self, peer: SocketAddrV4, now: Timestamp) {
            let Self {
                config,
                suspects,
                out,
            } = self;
            suspects.learn(config, HOST, peer, sighting(Evidence::UdpPing), now, out);
        }

        fn probes_at(&mut self, now: Timestamp) -> usize {
            let Self {
                config,
                suspects,
                out,
            } = self;
            out.actions.clear();
            suspects.handle_timeout(config, now, out);
            out.actions
                .iter()
                .filter(|action| matches!(action, Action::Probe { .. }))
                .count()
        }
    }

    fn sighting(evidence: Evidence) -> Sighting {
        let from = SocketAddrV4::new(HOST, 1214).into();
        Sighting {
            evidence,
            packet: PacketEnds::new("UDP", from, PEER.into()),
        }
    }

    const fn at(secs: u64) -> Timestamp {
        Timestamp::from_secs(secs)
    }
}
