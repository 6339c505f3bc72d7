//! A bounded map whose entries end at an instant passed in.
//!
//! Looking up, renewing and ending an entry never scan the map. Renewing only moves the entry's
//! end; its place in the schedule is corrected when the old one comes up. Places of entries that are
//! gone are cleared away once they are as many as the map has room for.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::hash::Hash;

use foldhash::quality::FixedState;

use crate::Timestamp;

/// A bounded map whose entries end.
#[derive(Debug)]
pub(crate) struct Expiring<K, V> {
    entries: HashMap<K, Entry<V>, FixedState>,
    /// For each entry exactly one item that carries its `scheduled` instant, and stale ones.
    schedule: BinaryHeap<Reverse<(Timestamp, K)>>,
    capacity: usize,
}

#[derive(Debug)]
struct Entry<V> {
    value: V,
    ends: Timestamp,
    /// Never later than `ends`.
    scheduled: Timestamp,
}

impl<K: Copy + Eq + Hash + Ord, V> Expiring<K, V> {
    /// An empty map for at most `capacity` entries. The key of its hash is drawn from `seed`, so
    /// that nobody outside can choose colliding entries, and equal runs stay equal.
    pub(crate) fn new(capacity: usize, seed: u64) -> Self {
        Self {
            entries: HashMap::with_hasher(FixedState::with_seed(seed)),
            schedule: BinaryHeap::new(),
            capacity: capacity.max(1),
        }
    }

    /// The entry, unless it has ended.
    pub(crate) fn get(&self, key: &K, now: Timestamp) -> Option<&V> {
        let entry = self.entries.get(key)?;
        (entry.ends > now).then_some(&entry.value)
    }

    /// The entry, whether or not it has ended.
    pub(crate) fn peek(&self, key: &K) -> Option<&V> {
        self.entries.get(key).map(|entry| &entry.value)
    }

    /// The entry, unless it has ended.
    pub(crate) fn get_mut(&mut self, key: &K, now: Timestamp) -> Option<&mut V> {
        let entry = self.entries.get_mut(key)?;
        (entry.ends > now).then_some(&mut entry.value)
    }

    /// Whether there is an entry that has not ended.
    pub(crate) fn contains(&self, key: &K, now: Timestamp) -> bool {
        self.get(key, now).is_some()
    }

    /// When the entry ends or has ended.
    pub(crate) fn ends(&self, key: &K) -> Option<Timestamp> {
        self.entries.get(key).map(|entry| entry.ends)
    }

    /// Stores an entry in place of an earlier one. In a full map the entry that would end first
    /// makes room and is returned.
    pub(crate) fn insert(&mut self, key: K, value: V, ends: Timestamp) -> Option<(K, V)> {
        if let Some(entry) = self.entries.get_mut(&key) {
            entry.value = value;
            self.renew(&key, ends);
            return None;
        }
        let displaced = (self.entries.len() >= self.capacity)
            .then(|| self.displace())
            .flatten();
        self.entries.insert(
            key,
            Entry {
                value,
                ends,
                scheduled: ends,
            },
        );
        self.place(ends, key);
        displaced
    }

    /// Moves the end of an entry.
    pub(crate) fn renew(&mut self, key: &K, ends: Timestamp) {
        let Some(entry) = self.entries.get_mut(key) else {
            return;
        };
        entry.ends = ends;
        if ends < entry.scheduled {
            entry.scheduled = ends;
            self.place(ends, *key);
        }
    }

    /// Takes out one entry that has ended.
    pub(crate) fn pop_ended(&mut self, now: Timestamp) -> Option<(K, V)> {
        while self
            .schedule
            .peek()
            .is_some_and(|Reverse((at, _))| *at <= now)
        {
            let Reverse((at, key)) = self.schedule.pop()?;
            if self.correct_schedule(at, key) {
                return self.take(key);
            }
        }
        None
    }

    /// Not later than the instant at which the next entry ends.
    pub(crate) fn next_end(&self) -> Option<Timestamp> {
        self.schedule.peek().map(|Reverse((at, _))| *at)
    }

    /// Number of entries, those included that have ended and were not taken out.
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Every entry's value, in no order, those included that have ended and were not taken out.
    pub(crate) fn values(&self) -> impl Iterator<Item = &V> {
        self.entries.values().map(|entry| &entry.value)
    }

    /// Every entry that has not ended, in no order, with its end.
    pub(crate) fn iter(&self, now: Timestamp) -> impl Iterator<Item = (K, &V, Timestamp)> {
        let lasting = self
            .entries
            .iter()
            .filter(move |(_, entry)| entry.ends > now);
        lasting.map(|(key, entry)| (*key, &entry.value, entry.ends))
    }

    /// Takes an entry out before its end.
    pub(crate) fn remove(&mut self, key: &K) -> Option<V> {
        self.entries.remove(key).map(|entry| entry.value)
    }

    fn place(&mut self, at: Timestamp, key: K) {
        self.schedule.push(Reverse((at, key)));
        if self.schedule.len() > 2 * self.capacity {
            let places = self.entries.iter();
            self.schedule = places
                .map(|(key, entry)| Reverse((entry.scheduled, *key)))
                .collect();
        }
    }

    /// Takes out the entry that would end first, or nearly so: after a few corrections of the
    /// schedule the next one goes, so that one packet never pays for a whole map of renewals.
    fn displace(&mut self) -> Option<(K, V)> {
        let mut corrections = 0;
        while let Some(Reverse((at, key))) = self.schedule.pop() {
            let is_current = self
                .entries
                .get(&key)
                .is_some_and(|entry| entry.scheduled == at);
            if is_current && (corrections == MAX_CORRECTIONS || self.correct_schedule(at, key)) {
                return self.take(key);
            }
            corrections += usize::from(is_current);
        }
        None
    }

    /// Whether the entry ends at `at`. If it was renewed since, schedules it for its new end.
    fn correct_schedule(&mut self, at: Timestamp, key: K) -> bool {
        let Some(entry) = self.entries.get_mut(&key) else {
            return false;
        };
        if entry.scheduled != at {
            return false;
        }
        if entry.ends > at {
            entry.scheduled = entry.ends;
            self.schedule.push(Reverse((entry.ends, key)));
            return false;
        }
        true
    }

    fn take(&mut self, key: K) -> Option<(K, V)> {
        self.entries.remove(&key).map(|entry| (key, entry.value))
    }
}

const MAX_CORRECTIONS: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(secs: u64) -> Timestamp {
        Timestamp::from_secs(secs)
    }

    #[test]
    fn an_entry_is_gone_at_its_end_even_before_it_is_taken_out() {
        let mut map = Expiring::new(4, 1);
        map.insert(1, "one", at(10));
        assert_eq!(map.get(&1, at(9)), Some(&"one"));
        assert_eq!(map.get(&1, at(10)), None);
        assert_eq!(map.pop_ended(at(10)), Some((1, "one")));
        assert_eq!(map.len(), 0);
    }

    #[test]
    fn a_renewed_entry_ends_at_its_new_end() {
        let mut map = Expiring::new(4, 1);
        map.insert(1, (), at(10));
        map.renew(&1, at(30));
        assert_eq!(map.pop_ended(at(20)), None);
        assert_eq!(map.next_end(), Some(at(30)));
        assert_eq!(map.pop_ended(at(30)), Some((1, ())));
    }

    #[test]
    fn an_entry_may_be_told_to_end_earlier() {
        let mut map = Expiring::new(4, 1);
        map.insert(1, (), at(100));
        map.renew(&1, at(5));
        assert_eq!(map.next_end(), Some(at(5)));
        assert_eq!(map.pop_ended(at(5)), Some((1, ())));
        map.insert(1, (), at(200));
        assert_eq!(
            map.pop_ended(at(100)),
            None,
            "the stale place in the schedule counts for nothing"
        );
    }

    #[test]
    fn in_a_full_map_the_entry_that_would_end_first_makes_room() {
        let mut map = Expiring::new(2, 1);
        map.insert(1, (), at(30));
        map.insert(2, (), at(20));
        map.renew(&2, at(40));
        assert_eq!(map.insert(3, (), at(50)), Some((1, ())));
        assert!(map.contains(&2, at(0)) && map.contains(&3, at(0)));
    }

    #[test]
    fn a_full_map_of_renewed_entries_still_makes_room() {
        let mut map = Expiring::new(100, 1);
        for key in 0..100 {
            map.insert(key, (), at(10));
            map.renew(&key, at(1000));
        }
        assert!(map.insert(100, (), at(20)).is_some());
        assert_eq!(map.len(), 100);
    }

    #[test]
    fn places_of_entries_that_are_gone_do_not_heap_up() {
        let mut map = Expiring::new(10, 1);
        for key in 0..1000 {
            map.insert(key, key, at(5000 + key));
            map.renew(&key, at(100 + key));
            assert!(map.len() <= 10 && map.schedule.len() <= 20, "{key}");
        }
        let left = std::iter::from_fn(|| map.pop_ended(at(9000)));
        assert!(left.map(|(key, _)| key).eq(990..1000));
    }

    #[test]
    fn an_entry_taken_out_early_does_not_end_again() {
        let mut map = Expiring::new(4, 1);
        map.insert(1, "one", at(10));
        map.insert(2, "two", at(20));
        assert_eq!(map.remove(&1), Some("one"));
        assert_eq!(map.remove(&1), None);
        assert!(map.iter(at(0)).eq([(2, &"two", at(20))]));
        assert_eq!(map.pop_ended(at(20)), Some((2, "two")));
        assert_eq!(map.pop_ended(at(20)), None);
    }

    #[test]
    fn storing_again_replaces_the_value_and_the_end() {
        let mut map = Expiring::new(2, 1);
        map.insert(1, "old", at(10));
        assert_eq!(map.insert(1, "new", at(20)), None);
        assert_eq!(
            (map.get(&1, at(15)), map.ends(&1)),
            (Some(&"new"), Some(at(20)))
        );
    }
}
