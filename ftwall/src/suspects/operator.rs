//! What an operator can ask of the tables of suspects, and do to them.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use super::{Lock, Origin, Outbox, Suspects, forget, learn_peer, release};
use crate::Timestamp;
use crate::config::NeverBlock;
use crate::engine::Action;

/// A lock, as an operator sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LockView {
    pub(crate) host: Ipv4Addr,
    pub(crate) since: Timestamp,
    pub(crate) until: Timestamp,
    pub(crate) origin: Origin,
    pub(crate) sightings: u64,
}

/// A client's peer, as an operator sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PairView {
    pub(crate) client: Ipv4Addr,
    pub(crate) peer: SocketAddrV4,
    pub(crate) until: Timestamp,
    pub(crate) origin: Origin,
}

impl Suspects {
    /// Every lock, by host.
    pub(crate) fn locks(&self, now: Timestamp) -> Vec<LockView> {
        let mut locks: Vec<_> = self
            .locks
            .iter(now)
            .map(|(host, lock, until)| LockView {
                host,
                since: lock.since,
                until,
                origin: lock.origin,
                sightings: lock.sightings,
            })
            .collect();
        locks.sort_unstable_by_key(|lock| lock.host);
        locks
    }

    /// Every client's peers, by client and peer.
    pub(crate) fn pairs(&self, now: Timestamp) -> Vec<PairView> {
        let mut pairs: Vec<_> = self
            .pairs
            .iter(now)
            .map(|((client, peer), origin, until)| PairView {
                client,
                peer,
                until,
                origin: *origin,
            })
            .collect();
        pairs.sort_unstable_by_key(|pair| (pair.client, pair.peer));
        pairs
    }

    /// Locked hosts, and pairs of client and peer.
    pub(crate) fn census(&self) -> (usize, usize) {
        (self.locks.len(), self.pairs.len())
    }

    /// What locked a host, if it is locked.
    pub(crate) fn lock_origin(&self, host: Ipv4Addr, now: Timestamp) -> Option<Origin> {
        self.locks.get(&host, now).map(|lock| lock.origin)
    }

    /// How a client's peer came to be known, if it is.
    pub(crate) fn peer_origin(
        &self,
        client: Ipv4Addr,
        peer: SocketAddrV4,
        now: Timestamp,
    ) -> Option<Origin> {
        self.pairs.get(&(client, peer), now).copied()
    }

    /// Tells the kernel for how long a host is locked, if it is.
    pub(crate) fn announce_lock(&self, host: Ipv4Addr, now: Timestamp, out: &mut Outbox) {
        if self.is_locked(host, now) {
            let ends = self.locks.ends(&host).unwrap_or(now);
            let for_ = ends.saturating_since(now);
            out.actions.push_back(Action::LockHost { host, for_ });
        }
    }

    /// Tells the kernel for how long a client is kept from a peer, if it is.
    pub(crate) fn announce_peer(
        &self,
        client: Ipv4Addr,
        peer: SocketAddrV4,
        now: Timestamp,
        out: &mut Outbox,
    ) {
        if self.is_pair(client, peer, now) {
            let ends = self.pairs.ends(&(client, peer)).unwrap_or(now);
            let for_ = ends.saturating_since(now);
            out.actions.push_back(learn_peer(client, peer, for_));
        }
    }

    /// Everything that the kernel is told of, as if it was found out now: locks, peers, proven addresses.
    pub(crate) fn announcements(&self, now: Timestamp) -> Vec<Action> {
        let left = |until: Timestamp| until.saturating_since(now);
        let locks = self.locks.iter(now).map(|(host, _, until)| {
            let for_ = left(until);
            Action::LockHost { host, for_ }
        });
        let pairs = self.pairs.iter(now);
        let peers = pairs.map(|((client, peer), _, until)| learn_peer(client, peer, left(until)));
        let proven = self.proven.iter(now).map(|(address, (), until)| {
            let for_ = left(until);
            Action::ProveAddress { address, for_ }
        });
        locks.chain(peers).chain(proven).collect()
    }

    /// How many peers each client is known to use.
    pub(crate) fn peer_counts(&self, now: Timestamp) -> BTreeMap<Ipv4Addr, usize> {
        let mut counts = BTreeMap::new();
        for ((client, _), _, _) in self.pairs.iter(now) {
            *counts.entry(client).or_default() += 1;
        }
        counts
    }

    /// Releases every host and forgets every peer that `target` names; returns how many of each.
    pub(crate) fn lift(
        &mut self,
        target: &NeverBlock,
        now: Timestamp,
        out: &mut Outbox,
    ) -> (usize, usize) {
        let names_host =
            |host: Ipv4Addr| target.port.is_none() && target.net.contains(&IpAddr::V4(host));
        let locks = self.locks(now);
        let hosts = locks.iter().filter(|lock| names_host(lock.host));
        let hosts = hosts.map(|lock| self.unlock(lock.host, out)).count();
        let pairs = self.pairs(now);
        let pairs = pairs
            .iter()
            .filter(|pair| names_host(pair.client) || target.contains(pair.peer.into()));
        let pairs = pairs.map(|pair| self.separate(*pair, out)).count();
        (hosts, pairs)
    }

    /// Locks a host because the operator says so, or makes its lock last for at least so long.
    pub(crate) fn lock_by_hand(
        &mut self,
        host: Ipv4Addr,
        for_: Duration,
        now: Timestamp,
        out: &mut Outbox,
    ) {
        let known_end = self.locks.ends(&host).unwrap_or(now);
        let ends = known_end.max(now + for_);
        if self.is_locked(host, now) {
            self.locks.renew(&host, ends);
        } else {
            let lock = Lock::new(now, Origin::Operator);
            if let Some((displaced, _)) = self.locks.insert(host, lock, ends) {
                release(displaced, out);
            }
        }
        let for_ = ends.saturating_since(now);
        out.actions.push_back(Action::LockHost { host, for_ });
    }

    /// Keeps a client from a peer because the operator says so, for at least so long.
    pub(crate) fn pair_by_hand(
        &mut self,
        client: Ipv4Addr,
        peer: SocketAddrV4,
        for_: Duration,
        now: Timestamp,
        out: &mut Outbox,
    ) {
        let known_end = self.pairs.ends(&(client, peer)).unwrap_or(now);
        let ends = known_end.max(now + for_);
        self.peers.insert(peer, (), ends);
        let displaced = self.pairs.insert((client, peer), Origin::Operator, ends);
        if let Some(((client, peer), _)) = displaced {
            forget(client, peer, out);
        }
        out.actions
            .push_back(learn_peer(client, peer, ends.saturating_since(now)));
    }

    /// Tells the kernel about every host that has come to be enforced, and takes from it every one that
    /// is no longer. What is known of them stays.
    pub(crate) fn change_enforcement(
        &self,
        was_enforced: impl Fn(Ipv4Addr) -> bool,
        is_enforced: impl Fn(Ipv4Addr) -> bool,
        now: Timestamp,
        out: &mut Outbox,
    ) {
        for LockView { host, until, .. } in self.locks(now) {
            match (was_enforced(host), is_enforced(host)) {
                (false, true) => out.actions.push_back(Action::LockHost {
                    host,
                    for_: until.saturating_since(now),
                }),
                (true, false) => out.actions.push_back(Action::ReleaseHost { host }),
                (true, true) | (false, false) => {}
            }
        }
        for pair in self.pairs(now) {
            let PairView {
                client,
                peer,
                until,
                ..
            } = pair;
            match (was_enforced(client), is_enforced(client)) {
                (false, true) => {
                    let for_ = until.saturating_since(now);
                    out.actions.push_back(learn_peer(client, peer, for_));
                }
                (true, false) => out.actions.push_back(Action::ForgetPeer { client, peer }),
                (true, true) | (false, false) => {}
            }
        }
    }

    fn unlock(&mut self, host: Ipv4Addr, out: &mut Outbox) {
        self.locks.remove(&host);
        self.probes.remove(&host);
        self.openers.remove(&host);
        release(host, out);
    }

    fn separate(&mut self, pair: PairView, out: &mut Outbox) {
        let PairView { client, peer, .. } = pair;
        self.pairs.remove(&(client, peer));
        self.peers.remove(&peer);
        forget(client, peer, out);
    }
}
