//! How long packets wait for their verdicts.

use std::ops::AddAssign;
use std::time::Duration;

/// Upper bounds of the steps by which waiting is counted, in microseconds; one more step has none.
pub const BOUNDS_US: [u64; 10] = [5, 10, 25, 50, 100, 250, 1_000, 5_000, 25_000, 100_000];

/// How long packets have waited, from being taken out of their queue until they were answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Latency {
    /// Packets by step, those of earlier steps not included.
    pub steps: [u64; BOUNDS_US.len() + 1],
    /// Everybody's waiting together.
    pub total: Duration,
}

impl Latency {
    /// Counts a batch of `packets` that were taken and answered together within `took`: as long as the last
    /// of them waited, the others may have, too.
    pub fn record(&mut self, took: Duration, packets: u32) {
        let is_within = |bound: &u64| took <= Duration::from_micros(*bound);
        let step = BOUNDS_US.iter().position(is_within);
        self.steps[step.unwrap_or(BOUNDS_US.len())] += u64::from(packets);
        self.total = self.total.saturating_add(took.saturating_mul(packets));
    }

    /// How many packets were counted.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.steps.iter().sum()
    }
}

impl AddAssign for Latency {
    fn add_assign(&mut self, other: Latency) {
        for (sum, count) in self.steps.iter_mut().zip(other.steps) {
            *sum += count;
        }
        self.total = self.total.saturating_add(other.total);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_packet_of_a_batch_counts_with_the_time_of_the_batch() {
        let mut latency = Latency::default();
        latency.record(Duration::from_micros(5), 3);
        latency.record(Duration::from_micros(6), 1);
        latency.record(Duration::from_secs(1), 2);
        assert_eq!(latency.steps, [3, 1, 0, 0, 0, 0, 0, 0, 0, 0, 2]);
        assert_eq!(latency.count(), 6);
        assert_eq!(latency.total, Duration::from_micros(3 * 5 + 6 + 2_000_000));
        let mut twice = latency;
        twice += latency;
        assert_eq!(twice.count(), 12);
    }
}
