//! Whether a daemon grows: the first quarter of its life held against the last.

use ftwall::bench::Spread;
use serde::Serialize;

use super::samples::Sample;

/// How much larger the last median may be: an allocator keeps what it had at the busiest moment, and
/// which second that was is chance.
pub(super) const MEMORY_SHARE: f64 = 1.1;

/// The same in KiB, for daemons that are small.
pub(super) const MEMORY_KIB: f64 = 2048.0;

/// The same in descriptors: someone who reads metrics is one, a program that is run has a few.
pub(super) const DESCRIPTORS: f64 = 3.0;

/// Samples left out at the beginning, as a share of a life, and at most. Memory goes up in steps at first, and
/// stays where it was at the busiest moment.
const WARM_UP_SHARE: usize = 4;
const LONGEST_WARM_UP: usize = 600;

/// A life of fewer samples is all warm-up, and memory is not judged by it.
const LONG_ENOUGH: usize = 1200;

/// The medians of both quarters.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Growth {
    /// In the first quarter after warm-up.
    pub first: f64,
    /// In the last.
    pub last: f64,
}

/// What is looked at.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Growths {
    /// Resident memory in KiB, of the daemon that lived longest.
    pub rss_kib: Option<Growth>,
    /// Open descriptors, from the first daemon to the last.
    pub descriptors: Option<Growth>,
    /// Whether any daemon lived long enough for its memory to be judged.
    pub is_memory_judged: bool,
}

impl Growths {
    /// Nothing of what was not sampled.
    #[must_use]
    pub fn of(samples: &[Sample]) -> Self {
        let life = longest_life(samples);
        let rss: Vec<_> = life.iter().map(|one| one.rss_kib as f64).collect();
        let open: Vec<_> = samples.iter().map(|one| one.descriptors as f64).collect();
        Self {
            rss_kib: Growth::of(&rss),
            descriptors: Growth::of(&open),
            is_memory_judged: life.len() >= LONG_ENOUGH,
        }
    }

    /// What grew beyond tolerance, as sentences.
    #[must_use]
    pub fn complaints(&self) -> Vec<String> {
        let memory = self.rss_kib.filter(|rss| {
            let most = (rss.first * MEMORY_SHARE).max(rss.first + MEMORY_KIB);
            self.is_memory_judged && rss.last > most
        });
        let open = self.descriptors;
        let open = open.filter(|open| open.last > open.first + DESCRIPTORS);
        let say = |what: &str, grown: Growth| {
            format!("{what} grew from {:.0} to {:.0}", grown.first, grown.last)
        };
        let memory = memory.map(|grown| say("resident memory in KiB", grown));
        let open = open.map(|grown| say("open descriptors", grown));
        memory.into_iter().chain(open).collect()
    }
}

impl Growth {
    fn of(values: &[f64]) -> Option<Self> {
        let warm_up = (values.len() / WARM_UP_SHARE).min(LONGEST_WARM_UP);
        let warm = &values[warm_up..];
        let quarter = warm.len().div_ceil(4);
        let median = |part: &[f64]| Some(Spread::of(part.iter().copied())?.median);
        Some(Self {
            first: median(&warm[..quarter])?,
            last: median(&warm[warm.len() - quarter..])?,
        })
    }
}

/// The samples of one program image, of that with the most.
fn longest_life(samples: &[Sample]) -> &[Sample] {
    let lives = samples.chunk_by(|one, next| one.life == next.life);
    lives.max_by_key(|life| life.len()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(life: u32, rss_kib: u64, descriptors: usize) -> Sample {
        Sample {
            at_us: 0,
            life,
            rss_kib,
            descriptors,
            queue_drops: None,
        }
    }

    #[test]
    fn memory_is_that_of_the_longest_life_alone() {
        let short = (0..10).map(|_| sample(1, 1_000, 20));
        let long = (0..1200).map(|at| sample(2, 10_000 + at * 100, 20));
        let samples: Vec<_> = short.chain(long).collect();
        let growths = Growths::of(&samples);
        let rss = growths.rss_kib.expect("it was sampled");
        assert!(rss.first > 40_000.0 && rss.last > 110_000.0, "{rss:?}");
        assert_eq!(growths.complaints().len(), 1);
        let too_short = Growths::of(&samples[..1200]);
        assert_eq!(too_short.complaints(), [""; 0]);
    }

    #[test]
    fn descriptors_left_open_by_one_daemon_after_another_are_found() {
        let samples: Vec<_> = (0..40)
            .map(|at| sample(at / 2, 10_000, 20 + at as usize))
            .collect();
        let complaints = Growths::of(&samples).complaints();
        assert_eq!(complaints.len(), 1);
        assert!(complaints[0].starts_with("open descriptors grew"));
    }

    #[test]
    fn what_stays_the_same_is_no_complaint_and_what_was_not_seen_has_no_median() {
        let samples: Vec<_> = (0..40).map(|at| sample(1, 10_000 + at % 7, 20)).collect();
        assert_eq!(Growths::of(&samples).complaints(), [""; 0]);
        assert_eq!(Growths::of(&[]), Growths::default());
    }
}
