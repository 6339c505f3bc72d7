//! Medians and spreads. Few numbers, and no assumption about how they are distributed.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// How long connections took, in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Latencies {
    /// Half of them took no longer.
    pub p50: f64,
    /// One in a hundred took longer.
    pub p99: f64,
}

impl Latencies {
    /// Zero where nothing was measured.
    #[must_use]
    pub fn of(mut times: Vec<Duration>) -> Self {
        times.sort_unstable();
        let at = |share: usize| {
            let place = times.len().saturating_sub(1) * share / 100;
            times
                .get(place)
                .map_or(0.0, |time| time.as_secs_f64() * 1e6)
        };
        Self {
            p50: at(50),
            p99: at(99),
        }
    }
}

/// The middle of some numbers, and how far they lie apart.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    /// As many are smaller as are larger.
    pub median: f64,
    /// The smallest.
    pub least: f64,
    /// The largest.
    pub most: f64,
}

impl Spread {
    /// Nothing of no numbers.
    #[must_use]
    pub fn of(numbers: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut sorted: Vec<f64> = numbers.into_iter().collect();
        sorted.sort_by(f64::total_cmp);
        let (least, most) = (*sorted.first()?, *sorted.last()?);
        let middle = sorted.len() / 2;
        let median = if sorted.len() % 2 == 1 {
            sorted[middle]
        } else {
            f64::midpoint(sorted[middle - 1], sorted[middle])
        };
        Some(Self {
            median,
            least,
            most,
        })
    }

    /// Of each name that any of the rows has.
    #[must_use]
    pub fn by_name(rows: &[BTreeMap<String, f64>]) -> BTreeMap<String, Self> {
        let names = rows.iter().flat_map(BTreeMap::keys);
        let spread = |name: &String| {
            let numbers = rows.iter().filter_map(|row| row.get(name).copied());
            Some((name.clone(), Self::of(numbers)?))
        };
        names.filter_map(spread).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_lies_in_the_middle_whatever_the_order() {
        let odd = Spread::of([3.0, 100.0, 1.0]).expect("three numbers");
        assert_eq!((odd.least, odd.median, odd.most), (1.0, 3.0, 100.0));
        let even = Spread::of([4.0, 1.0, 2.0, 8.0]).expect("four numbers");
        assert_eq!(even.median, 3.0);
        assert_eq!(Spread::of([]), None);
    }

    #[test]
    fn one_connection_in_a_hundred_took_longer_than_the_99th_percentile() {
        let times = (1..=101).rev().map(Duration::from_micros).collect();
        let latencies = Latencies::of(times);
        assert_eq!(
            (latencies.p50.round(), latencies.p99.round()),
            (51.0, 100.0)
        );
        assert_eq!(Latencies::of(Vec::new()).p99, 0.0);
    }
}
