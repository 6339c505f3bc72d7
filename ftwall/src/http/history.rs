//! How many packets of which verdict came when: the last hour, in steps.

use std::collections::VecDeque;
use std::time::Duration;

use crate::Timestamp;
use crate::control::events::Statistics;

/// Samples that are kept.
const LENGTH: usize = 360;
/// Time between two of them.
pub(super) const STEP: Duration = Duration::from_secs(10);

/// Packets within one step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sample {
    /// Let through, once or for good.
    pub passed: u64,
    /// Dropped.
    pub dropped: u64,
}

/// The last hour.
#[derive(Debug, Default)]
pub struct History {
    samples: VecDeque<Sample>,
    totals: Sample,
    due: Timestamp,
}

impl History {
    /// When the next sample is to be taken.
    #[must_use]
    pub const fn due(&self) -> Timestamp {
        self.due
    }

    /// Takes a sample of what was counted until now.
    pub fn record(&mut self, now: Timestamp, counted: &Statistics) {
        let totals = totals(counted);
        if self.samples.len() == LENGTH {
            self.samples.pop_front();
        }
        // A worker that did not answer in time makes totals go back once.
        self.samples.push_back(Sample {
            passed: totals.passed.saturating_sub(self.totals.passed),
            dropped: totals.dropped.saturating_sub(self.totals.dropped),
        });
        self.totals = totals;
        self.due = now + STEP;
    }

    /// The samples, oldest first.
    pub fn samples(&self) -> impl DoubleEndedIterator<Item = Sample> + ExactSizeIterator {
        self.samples.iter().copied()
    }
}

fn totals(counted: &Statistics) -> Sample {
    let mut totals = Sample::default();
    for (verdict, count) in &counted.verdicts {
        if verdict.starts_with("drop/") {
            totals.dropped += count;
        } else {
            totals.passed += count;
        }
    }
    totals
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_is_what_came_since_the_one_before_and_an_hour_of_them_is_kept() {
        let mut history = History::default();
        let mut counted = Statistics::default();
        for round in 0..400_u64 {
            counted.verdicts.insert("drop/ping".into(), 3 * round);
            counted.verdicts.insert("clear/http".into(), 5 * round);
            counted.verdicts.insert("pass/undecided".into(), 2 * round);
            let now = Timestamp::from_secs(round);
            history.record(now, &counted);
            assert_eq!(history.due(), now + STEP);
        }
        assert_eq!(history.samples().len(), LENGTH);
        let step = Sample {
            passed: 7,
            dropped: 3,
        };
        assert!(history.samples().all(|sample| sample == step));
    }
}
