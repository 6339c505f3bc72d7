//! The lines between hosts and gateway, and what is due on the virtual clock.
//!
//! Both lines carry a gigabit a second each way and keep the order of what they carry; how long a
//! packet takes is drawn from the seed. Where a scenario asks for an imperfect line outside, the lab's
//! own emulator decides over delay, loss, repetition and order, so that a packet meets the fate there
//! that its like meets in namespaces.

use std::cmp::{Ordering, Reverse};
use std::collections::{BinaryHeap, VecDeque};
use std::time::Duration;

use lab::WireSettings;
use lab::wire::{Direction, Emulator};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::packet::{ETHERNET_HEADER, frame};

/// Nanoseconds that an octet takes at a gigabit a second.
const NANOS_PER_OCTET: u64 = 8;

/// What a packet takes across a line in namespaces, in nanoseconds, and what may come on top of it.
const DELAY_NANOS: u64 = 20_000;
const JITTER_MASK: u64 = 0x3fff;

/// Things that are due, in order of time and, at the same time, in the order in which they were told.
///
/// What is told in order of time, as a line's packets are, waits in a lane of its own: a queue, which
/// costs a fraction of the heap that everything else waits in.
#[derive(Debug)]
pub(super) struct Agenda<T> {
    lanes: [VecDeque<Entry<T>>; LANES],
    entries: BinaryHeap<Reverse<Entry<T>>>,
    told: u64,
}

/// The four ways on which packets keep their order: two lines, both ways.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lane {
    /// From inside hosts to the gateway.
    FromInside,
    /// From the gateway to inside hosts.
    ToInside,
    /// From outside hosts to the gateway.
    FromOutside,
    /// From the gateway to outside hosts.
    ToOutside,
}

const LANES: usize = 4;

#[derive(Debug)]
struct Entry<T> {
    at: Duration,
    order: u64,
    what: T,
}

impl<T> Agenda<T> {
    pub(super) fn new() -> Self {
        Self {
            lanes: Default::default(),
            entries: BinaryHeap::new(),
            told: 0,
        }
    }

    /// Adds something.
    pub(super) fn add(&mut self, at: Duration, what: T) {
        let entry = self.entry(at, what);
        self.entries.push(Reverse(entry));
    }

    /// Adds something that is due no earlier than anything else in its lane.
    pub(super) fn add_in_lane(&mut self, lane: Lane, at: Duration, what: T) {
        let entry = self.entry(at, what);
        let queue = &mut self.lanes[lane as usize];
        debug_assert!(
            queue.back().is_none_or(|last| *last < entry),
            "lanes are in order"
        );
        queue.push_back(entry);
    }

    fn entry(&mut self, at: Duration, what: T) -> Entry<T> {
        let order = self.told;
        self.told += 1;
        Entry { at, order, what }
    }

    /// Takes what is due next.
    pub(super) fn pop(&mut self) -> Option<(Duration, T)> {
        let heads = self.lanes.iter().enumerate();
        let in_lane = heads
            .filter_map(|(lane, queue)| queue.front().map(|entry| (entry, lane)))
            .min_by_key(|(entry, _)| (entry.at, entry.order));
        let entry = match (in_lane, self.entries.peek()) {
            (Some((first, lane)), other) if other.is_none_or(|Reverse(other)| first < other) => {
                self.lanes[lane].pop_front()
            }
            _ => self.entries.pop().map(|Reverse(entry)| entry),
        };
        entry.map(|entry| (entry.at, entry.what))
    }
}

impl<T> Ord for Entry<T> {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.at, self.order).cmp(&(other.at, other.order))
    }
}

impl<T> PartialOrd for Entry<T> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> PartialEq for Entry<T> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl<T> Eq for Entry<T> {}

/// One direction of a perfect line.
#[derive(Debug)]
pub(super) struct Line {
    rng: SmallRng,
    /// When everything handed over so far has been sent.
    free_at: Duration,
    /// When the last packet arrives: no later one overtakes it.
    last: Duration,
}

impl Line {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            rng: SmallRng::seed_from_u64(seed),
            free_at: Duration::ZERO,
            last: Duration::ZERO,
        }
    }

    /// When a packet of `octets` handed over now arrives.
    pub(super) fn carry(&mut self, now: Duration, octets: usize) -> Duration {
        let sending = Duration::from_nanos((octets + ETHERNET_HEADER) as u64 * NANOS_PER_OCTET);
        self.free_at = self.free_at.max(now) + sending;
        let jitter = self.rng.next_u64() & JITTER_MASK;
        let arrives = self.free_at + Duration::from_nanos(DELAY_NANOS + jitter);
        self.last = self.last.max(arrives);
        self.last
    }
}

/// Two directions between the gateway and the outside that are not perfect.
#[derive(Debug)]
pub(super) struct Wire {
    emulator: Emulator,
}

impl Wire {
    pub(super) fn new(settings: WireSettings) -> Self {
        Self {
            emulator: Emulator::new(settings),
        }
    }

    /// Takes a packet in.
    pub(super) fn accept(&mut self, now: Duration, outward: bool, packet: &[u8]) {
        let direction = if outward {
            Direction::LeftToRight
        } else {
            Direction::RightToLeft
        };
        self.emulator
            .accept(now, direction, &frame(packet, outward));
    }

    /// The next packet that has arrived: whether it travels outward, and its octets.
    pub(super) fn poll(&mut self, now: Duration) -> Option<(bool, Vec<u8>)> {
        let (direction, mut frame) = self.emulator.poll_frame(now)?;
        frame.drain(..ETHERNET_HEADER);
        Some((direction == Direction::LeftToRight, frame))
    }

    /// When the next packet arrives.
    pub(super) fn next_due(&self) -> Option<Duration> {
        self.emulator.next_due()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_due_together_comes_in_the_order_in_which_it_was_told() {
        let mut agenda = Agenda::new();
        let [soon, late] = [1, 2].map(Duration::from_millis);
        for (at, what) in [(late, 1), (soon, 2), (late, 3), (soon, 4)] {
            agenda.add(at, what);
        }
        let order: Vec<_> = std::iter::from_fn(|| agenda.pop())
            .map(|(_, what)| what)
            .collect();
        assert_eq!(order, [2, 4, 1, 3]);
    }

    #[test]
    fn lanes_and_the_rest_are_due_as_if_they_were_one_list() {
        let mut agenda = Agenda::new();
        let [first, second, third] = [1, 2, 3].map(Duration::from_millis);
        agenda.add_in_lane(Lane::FromInside, second, "a lane");
        agenda.add(second, "the rest");
        agenda.add_in_lane(Lane::ToOutside, second, "another lane");
        agenda.add(first, "the rest, early");
        agenda.add_in_lane(Lane::FromInside, third, "a lane, late");
        let order: Vec<_> = std::iter::from_fn(|| agenda.pop()).collect();
        let expected = [
            (first, "the rest, early"),
            (second, "a lane"),
            (second, "the rest"),
            (second, "another lane"),
            (third, "a lane, late"),
        ];
        assert_eq!(order, expected);
    }

    #[test]
    fn a_line_keeps_the_order_and_takes_its_time_for_long_packets() {
        let mut line = Line::new(7);
        let arrivals: Vec<_> = (0..1000)
            .map(|_| line.carry(Duration::ZERO, 1486))
            .collect();
        assert!(arrivals.is_sorted());
        // A thousand frames of 1500 octets are twelve million bits.
        let last = arrivals[999].as_micros();
        assert!((12_000..12_100).contains(&last), "{last} us");
    }

    #[test]
    fn the_same_seed_takes_the_same_time() {
        let arrivals = |seed| {
            let mut line = Line::new(seed);
            [60, 1500, 60].map(|octets| line.carry(Duration::ZERO, octets))
        };
        assert_eq!(arrivals(1), arrivals(1));
        assert_ne!(arrivals(1), arrivals(2));
    }

    #[test]
    fn a_wire_hands_out_what_it_was_given_after_its_delay() {
        let delay = Duration::from_millis(20);
        let mut wire = Wire::new(WireSettings {
            delay,
            ..WireSettings::default()
        });
        let packet = [&[0x45; 12][..], &[1; 30]].concat();
        wire.accept(Duration::ZERO, true, &packet);
        assert_eq!(wire.next_due(), Some(delay));
        assert_eq!(wire.poll(delay), Some((true, packet)));
    }
}
