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
pub(crate) enum Direction {
    LeftToRight,
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

/// The state of a wire. Times are counted from any one origin.
#[derive(Debug)]
pub(crate) struct Emulator {
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
    pub(crate) fn new(settings: WireSettings) -> Self {
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
    pub(crate) fn accept(&mut self, now: Duration, direction: Direction, frame: &[u8]) {
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
    pub(crate) fn poll_frame(&mut self, now: Duration) -> Option<(Direction, Vec<u8>)> {
        self.in_flight
            .peek()
            .filter(|Reverse(next)| next.due <= now)?;
        self.in_flight
            .pop()
            .map(|Reverse(next)| (next.direction, next.frame))
    }

    /// When the next frame will be due.
    pub(crate) fn next_due(&self) -> Option<Duration> {
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
