//! The wire without sockets and clocks: frames and the time go in, frames come out when they are due.

use std::{
    cmp::{Ordering, Reverse},
    collections::{BinaryHeap, HashMap},
    time::Duration,
};

use super::{
    DirectionReport, WireReport, WireSettings,
    fate::{Fate, Flow},
};

/// Which way a frame travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Direction {
    /// From the side of the interface that was linked first.
    LeftToRight,
    /// Towards it.
    RightToLeft,
}

impl Direction {
    pub(crate) const BOTH: [Self; 2] = [Self::LeftToRight, Self::RightToLeft];

    /// The side it enters by: 0 left, 1 right.
    pub(crate) fn from(self) -> usize {
        match self {
            Self::LeftToRight => 0,
            Self::RightToLeft => 1,
        }
    }

    /// The side it leaves by.
    pub(crate) fn to(self) -> usize {
        1 - self.from()
    }
}

/// The state of a wire, to be driven by a clock of any kind. Times are counted from any one origin.
#[derive(Debug)]
pub struct Emulator {
    settings: WireSettings,
    /// Frames seen of each flow; a flow is one-way, so the two directions never share an entry.
    seen: HashMap<Flow, u64>,
    /// When each direction has sent what is in front of its rate.
    free_at: [Duration; 2],
    in_flight: BinaryHeap<Reverse<InFlight>>,
    accepted: u64,
    reports: [DirectionReport; 2],
}

impl Emulator {
    /// A wire on which nothing travels yet.
    #[must_use]
    pub fn new(settings: WireSettings) -> Self {
        Self {
            settings,
            seen: HashMap::new(),
            free_at: [Duration::ZERO; 2],
            in_flight: BinaryHeap::new(),
            accepted: 0,
            reports: [DirectionReport::default(); 2],
        }
    }

    /// Takes a frame in and decides what becomes of it.
    pub fn accept(&mut self, now: Duration, direction: Direction, frame: &[u8]) {
        self.count(direction).received += 1;
        let flow = Flow::of(frame);
        if flow == Flow::AddressResolution {
            self.launch(now, direction, frame);
            return;
        }
        let fate = self.draw(flow);
        if fate.lost {
            self.count(direction).lost += 1;
            return;
        }
        let Some(leaves) = self.queue(now, direction, frame.len()) else {
            self.count(direction).overflowed += 1;
            return;
        };
        let mut due = leaves + self.settings.delay;
        if fate.reordered {
            self.count(direction).reordered += 1;
            due += WireSettings::REORDER_HOLD;
        }
        if fate.duplicated {
            self.count(direction).duplicated += 1;
            self.launch(due, direction, frame);
        }
        self.launch(due, direction, frame);
    }

    /// The next frame that is due, if any.
    pub fn poll_frame(&mut self, now: Duration) -> Option<(Direction, Vec<u8>)> {
        self.in_flight
            .peek()
            .filter(|Reverse(next)| next.due <= now)?;
        self.in_flight
            .pop()
            .map(|Reverse(next)| (next.direction, next.frame))
    }

    /// When the next frame will be due.
    #[must_use]
    pub fn next_due(&self) -> Option<Duration> {
        self.in_flight.peek().map(|Reverse(next)| next.due)
    }

    /// Notes whether the kernel took a frame.
    pub(crate) fn record_delivery(&mut self, direction: Direction, taken: bool) {
        let count = self.count(direction);
        if taken {
            count.sent += 1;
        } else {
            count.refused += 1;
        }
    }

    pub(crate) fn report(&self) -> WireReport {
        let [left_to_right, right_to_left] = self.reports;
        WireReport {
            left_to_right,
            right_to_left,
        }
    }

    fn draw(&mut self, flow: Flow) -> Fate {
        let index = self.seen.entry(flow).or_insert(0);
        let fate = Fate::draw(&self.settings, flow, *index);
        *index += 1;
        fate
    }

    /// When a frame of `octets` has gone out at the limited rate; `None` when the queue is too long.
    fn queue(&mut self, now: Duration, direction: Direction, octets: usize) -> Option<Duration> {
        let Some(rate) = self.settings.rate_bits_per_second else {
            return Some(now);
        };
        let free_at = &mut self.free_at[direction.from()];
        let start = now.max(*free_at);
        if start - now > WireSettings::LONGEST_QUEUE {
            return None;
        }
        *free_at = start + time_to_send(octets, rate);
        Some(*free_at)
    }

    fn launch(&mut self, due: Duration, direction: Direction, frame: &[u8]) {
        let order = self.accepted;
        self.accepted += 1;
        self.in_flight.push(Reverse(InFlight {
            due,
            order,
            direction,
            frame: frame.to_vec(),
        }));
    }

    fn count(&mut self, direction: Direction) -> &mut DirectionReport {
        &mut self.reports[direction.from()]
    }
}

/// A rate of 0 would never send anything; it counts as one bit per second.
fn time_to_send(octets: usize, bits_per_second: u64) -> Duration {
    let bits = u64::try_from(octets).unwrap_or(u64::MAX).saturating_mul(8);
    Duration::from_nanos(bits.saturating_mul(1_000_000_000) / bits_per_second.max(1))
}

/// A frame on its way. Frames due at the same time leave in the order they came.
#[derive(Debug, PartialEq, Eq)]
struct InFlight {
    due: Duration,
    order: u64,
    direction: Direction,
    frame: Vec<u8>,
}

impl Ord for InFlight {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.due, self.order).cmp(&(other.due, other.order))
    }
}

impl PartialOrd for InFlight {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RIGHT: Direction = Direction::LeftToRight;

    #[test]
    fn a_frame_comes_out_after_the_delay_and_not_before() {
        let mut wire = Emulator::new(WireSettings {
            delay: ms(20),
            ..WireSettings::default()
        });
        wire.accept(ms(5), RIGHT, b"frame of an unknown kind");
        assert_eq!(wire.next_due(), Some(ms(25)));
        assert_eq!(wire.poll_frame(ms(24)), None);
        assert_eq!(
            wire.poll_frame(ms(25)),
            Some((RIGHT, b"frame of an unknown kind".to_vec()))
        );
        assert_eq!(wire.next_due(), None);
    }

    #[test]
    fn frames_due_together_keep_their_order() {
        let mut wire = Emulator::new(WireSettings {
            delay: ms(1),
            ..WireSettings::default()
        });
        (0..50).for_each(|number| wire.accept(ms(0), RIGHT, &[number]));
        assert_eq!(
            drain(&mut wire, ms(1)),
            (0..50).map(|number| vec![number]).collect::<Vec<_>>()
        );
    }

    #[test]
    fn address_resolution_passes_at_once_on_a_wire_that_loses_everything() {
        let all_lost = WireSettings {
            delay: ms(20),
            loss_pct: 100.0,
            ..WireSettings::default()
        };
        let mut wire = Emulator::new(all_lost);
        let mut question = [0; 42];
        question[12..14].copy_from_slice(&[0x08, 0x06]);
        wire.accept(ms(0), RIGHT, &question);
        wire.accept(ms(0), RIGHT, b"anything else");
        assert_eq!(drain(&mut wire, ms(0)), [question.to_vec()]);
        let report = wire.report().left_to_right;
        assert_eq!((report.received, report.lost), (2, 1));
    }

    #[test]
    fn a_limited_rate_spaces_frames_out_and_each_direction_has_its_own() {
        // 1000 octets at 8 Mbit/s take one millisecond.
        let slow = WireSettings {
            rate_bits_per_second: Some(8_000_000),
            ..WireSettings::default()
        };
        let mut wire = Emulator::new(slow);
        for _ in 0..3 {
            wire.accept(ms(0), RIGHT, &[0; 1000]);
        }
        wire.accept(ms(0), Direction::RightToLeft, &[0; 1000]);
        assert_eq!(drain(&mut wire, ms(1)).len(), 2, "one each way");
        assert_eq!(drain(&mut wire, ms(2)).len(), 1);
        assert_eq!(wire.next_due(), Some(ms(3)));
    }

    #[test]
    fn a_queue_longer_than_its_limit_overflows() {
        let slow = WireSettings {
            rate_bits_per_second: Some(8_000),
            ..WireSettings::default()
        };
        let mut wire = Emulator::new(slow);
        for _ in 0..3 {
            wire.accept(ms(0), RIGHT, &[0; 1000]);
        }
        assert_eq!(
            wire.report().left_to_right.overflowed,
            2,
            "the first takes a whole second"
        );
    }

    #[test]
    fn duplicates_come_twice_and_reordered_frames_are_overtaken() {
        let twice = WireSettings {
            duplicate_pct: 100.0,
            ..WireSettings::default()
        };
        let mut wire = Emulator::new(twice);
        wire.accept(ms(0), RIGHT, b"one");
        assert_eq!(drain(&mut wire, ms(0)), [b"one", b"one"]);

        let half = WireSettings {
            reorder_pct: 50.0,
            ..WireSettings::default()
        };
        let mut wire = Emulator::new(half);
        (0..20).for_each(|number| wire.accept(ms(0), RIGHT, &[number]));
        let arrived = drain(&mut wire, WireSettings::REORDER_HOLD);
        assert_eq!(arrived.len(), 20, "none is lost");
        assert!(!arrived.is_sorted(), "{arrived:?}");
    }

    fn ms(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    fn drain(wire: &mut Emulator, now: Duration) -> Vec<Vec<u8>> {
        std::iter::from_fn(|| wire.poll_frame(now))
            .map(|(_, frame)| frame)
            .collect()
    }
}
