//! The addresses a client knows: bounded, ageing, refreshed by every node list, never empty for long.

use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use crate::wire::session::NodeEntry;

/// What a client remembers of supernodes, the most promising first.
#[derive(Debug)]
pub struct Cache {
    nodes: VecDeque<Node>,
    limit: usize,
    age_limit: Duration,
}

#[derive(Debug, Clone, Copy)]
struct Node {
    address: SocketAddrV4,
    heard: Duration,
    rests_until: Duration,
    pinged: bool,
}

impl Cache {
    /// An empty cache of at most `limit` addresses, each forgotten `age_limit` after it was last
    /// heard of.
    pub fn new(limit: usize, age_limit: Duration) -> Self {
        Self {
            nodes: VecDeque::new(),
            limit,
            age_limit,
        }
    }

    /// Takes a node list. Known addresses become fresh again; new ones go to the end, and beyond the
    /// limit the ones not heard of for longest make room.
    pub fn refresh(&mut self, now: Duration, entries: &[NodeEntry]) {
        for entry in entries {
            let heard = now.saturating_sub(Duration::from_secs(60 * u64::from(entry.minutes)));
            match self
                .nodes
                .iter_mut()
                .find(|node| node.address == entry.address)
            {
                Some(node) => node.heard = node.heard.max(heard),
                None => self.insert(Node {
                    address: entry.address,
                    heard,
                    rests_until: Duration::ZERO,
                    pinged: false,
                }),
            }
        }
    }

    /// Forgets what is too old.
    pub fn expire(&mut self, now: Duration) {
        let age_limit = self.age_limit;
        self.nodes
            .retain(|node| now.saturating_sub(node.heard) < age_limit);
    }

    /// Known addresses, the most promising first.
    pub fn addresses(&self) -> impl Iterator<Item = SocketAddrV4> {
        self.nodes.iter().map(|node| node.address)
    }

    /// How many addresses are known.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether none is known.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// The most promising address that neither rests nor is `in_use`. It goes to the end, so that the
    /// next call names another.
    pub fn take_next(
        &mut self,
        now: Duration,
        in_use: impl Fn(SocketAddrV4) -> bool,
    ) -> Option<SocketAddrV4> {
        let free = |node: &Node| node.rests_until <= now && !in_use(node.address);
        let place = self.nodes.iter().position(free)?;
        let node = self.nodes.remove(place)?;
        self.nodes.push_back(node);
        Some(node.address)
    }

    /// Up to `count` addresses not pinged since the last round began; a new round begins when all
    /// were.
    pub fn take_unpinged(
        &mut self,
        count: usize,
        in_use: impl Fn(SocketAddrV4) -> bool,
    ) -> Vec<SocketAddrV4> {
        if self.nodes.iter().all(|node| node.pinged) {
            self.nodes.iter_mut().for_each(|node| node.pinged = false);
        }
        let chosen = self
            .nodes
            .iter_mut()
            .filter(|node| !node.pinged && !in_use(node.address));
        chosen
            .take(count)
            .map(|node| {
                node.pinged = true;
                node.address
            })
            .collect()
    }

    /// Moves a node to the front: it answered.
    pub fn promote(&mut self, now: Duration, ip: Ipv4Addr) -> Option<SocketAddrV4> {
        let mut node = self.remove_ip(ip)?;
        node.heard = now;
        self.nodes.push_front(node);
        Some(node.address)
    }

    /// Moves a node to the end: it answered, without room, or not at all.
    pub fn demote(&mut self, ip: Ipv4Addr) {
        if let Some(node) = self.remove_ip(ip) {
            self.nodes.push_back(node);
        }
    }

    /// Forgets a node.
    pub fn remove(&mut self, ip: Ipv4Addr) {
        self.remove_ip(ip);
    }

    /// Leaves a node alone for a while.
    pub fn rest(&mut self, ip: Ipv4Addr, until: Duration) {
        if let Some(node) = self.nodes.iter_mut().find(|node| *node.address.ip() == ip) {
            node.rests_until = until;
        }
    }

    /// When the first resting node may be tried again.
    pub fn rested(&self, now: Duration) -> Option<Duration> {
        self.nodes
            .iter()
            .map(|node| node.rests_until)
            .filter(|until| *until > now)
            .min()
    }

    fn insert(&mut self, node: Node) {
        if self.nodes.len() >= self.limit {
            let oldest = (0..self.nodes.len()).min_by_key(|place| self.nodes[*place].heard);
            match oldest {
                Some(oldest) if self.nodes[oldest].heard <= node.heard => self.nodes.remove(oldest),
                Some(_) | None => return,
            };
        }
        self.nodes.push_back(node);
    }

    fn remove_ip(&mut self, ip: Ipv4Addr) -> Option<Node> {
        let place = self
            .nodes
            .iter()
            .position(|node| *node.address.ip() == ip)?;
        self.nodes.remove(place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    #[test]
    fn a_full_cache_makes_room_by_forgetting_what_it_has_not_heard_of_for_longest() {
        let mut cache = Cache::new(3, 6 * HOUR);
        cache.refresh(Duration::ZERO, &entries(1..=3));
        cache.refresh(HOUR, &entries(1..=1));
        cache.refresh(2 * HOUR, &entries(4..=5));
        assert_eq!(known(&cache), [1, 4, 5]);
    }

    #[test]
    fn an_address_not_heard_of_again_is_forgotten_in_time() {
        let mut cache = Cache::new(200, 6 * HOUR);
        cache.refresh(Duration::ZERO, &entries(1..=2));
        cache.refresh(HOUR, &entries(2..=2));
        cache.expire(6 * HOUR);
        assert_eq!(known(&cache), [2]);
    }

    #[test]
    fn addresses_are_named_in_turn_and_one_in_use_is_passed_over() {
        let mut cache = Cache::new(200, HOUR);
        cache.refresh(Duration::ZERO, &entries(1..=3));
        let mut next = || {
            cache
                .take_next(Duration::ZERO, |one| one.ip().octets()[3] == 2)
                .unwrap()
        };
        assert_eq!(
            [next(), next(), next()].map(|one| one.ip().octets()[3]),
            [1, 3, 1]
        );
    }

    #[test]
    fn a_node_that_answered_comes_first_and_one_that_rests_not_at_all() {
        let mut cache = Cache::new(200, HOUR);
        cache.refresh(Duration::ZERO, &entries(1..=3));
        cache.promote(Duration::ZERO, ip(3));
        cache.rest(ip(1), HOUR);
        let mut next = || {
            cache
                .take_next(Duration::ZERO, |_| false)
                .unwrap()
                .ip()
                .octets()[3]
        };
        assert_eq!([next(), next(), next()], [3, 2, 3]);
        assert_eq!(cache.rested(Duration::ZERO), Some(HOUR));
    }

    #[test]
    fn pings_go_round_the_whole_cache_before_any_node_gets_a_second_one() {
        let mut cache = Cache::new(200, HOUR);
        cache.refresh(Duration::ZERO, &entries(1..=5));
        assert_eq!(cache.take_unpinged(3, |_| false).len(), 3);
        assert_eq!(cache.take_unpinged(3, |_| false).len(), 2);
        assert_eq!(cache.take_unpinged(3, |_| false).len(), 3);
    }

    fn ip(last: u8) -> Ipv4Addr {
        Ipv4Addr::new(198, 18, 0, last)
    }

    fn entries(range: std::ops::RangeInclusive<u8>) -> Vec<NodeEntry> {
        range
            .map(|last| NodeEntry {
                address: SocketAddrV4::new(ip(last), 1214),
                minutes: 0,
                load_pct: 0,
            })
            .collect()
    }

    fn known(cache: &Cache) -> Vec<u8> {
        cache
            .addresses()
            .map(|address| address.ip().octets()[3])
            .collect()
    }
}
