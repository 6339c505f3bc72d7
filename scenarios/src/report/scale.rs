//! Scales: from what was measured to places in a drawing.

use std::time::Duration;

/// Time to the right, evenly.
#[derive(Debug, Clone, Copy)]
pub(super) struct Linear {
    length: f64,
    from: f64,
    to: f64,
}

/// Durations to the right, each power of ten as wide as the next.
#[derive(Debug, Clone, Copy)]
pub(super) struct Logarithmic {
    /// Powers of ten of a millisecond, at both ends.
    decades: (i32, i32),
    from: f64,
    to: f64,
}

/// A mark on an axis.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Tick {
    pub(super) x: f64,
    pub(super) label: String,
}

/// Distances between ticks that people count in, in seconds.
const STEPS: [f64; 11] = [0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0];

/// More ticks than this crowd an axis.
const MOST_TICKS: f64 = 9.0;

impl Linear {
    /// A scale from zero to `length` over the places from `from` to `to`.
    pub(super) fn new(length: Duration, from: f64, to: f64) -> Self {
        let length = length.as_secs_f64().max(0.001);
        Self { length, from, to }
    }

    pub(super) fn place(&self, time: Duration) -> f64 {
        let share = (time.as_secs_f64() / self.length).clamp(0.0, 1.0);
        self.from + share * (self.to - self.from)
    }

    pub(super) fn ticks(&self) -> Vec<Tick> {
        let fits = |step: &&f64| self.length / **step <= MOST_TICKS;
        let step = STEPS.iter().find(fits).copied().unwrap_or(self.length);
        let mut ticks = Vec::new();
        let mut at = 0.0;
        while at <= self.length {
            let x = self.place(Duration::from_secs_f64(at));
            ticks.push(Tick {
                x,
                label: format!("{at} s"),
            });
            // Multiplied rather than added up, so that labels stay round.
            at = step * ticks.len() as f64;
            at = (at * 100.0).round() / 100.0;
        }
        ticks
    }
}

impl Logarithmic {
    /// A scale of whole decades that holds every duration given.
    pub(super) fn new(times: impl Iterator<Item = Duration>, from: f64, to: f64) -> Self {
        let (low, high) = times
            .map(milliseconds)
            .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), time| {
                (low.min(time), high.max(time))
            });
        let decades = if low.is_finite() {
            (
                low.log10().floor() as i32,
                (high.log10() + 1e-9).ceil() as i32,
            )
        } else {
            (0, 1)
        };
        let decades = (decades.0, decades.1.max(decades.0 + 1));
        Self { decades, from, to }
    }

    pub(super) fn place(&self, time: Duration) -> f64 {
        let (low, high) = (f64::from(self.decades.0), f64::from(self.decades.1));
        let share = ((milliseconds(time).log10() - low) / (high - low)).clamp(0.0, 1.0);
        self.from + share * (self.to - self.from)
    }

    /// A labelled tick at each power of ten.
    pub(super) fn ticks(&self) -> Vec<Tick> {
        (self.decades.0..=self.decades.1)
            .map(|decade| Tick {
                x: self.place(Duration::from_secs_f64(10_f64.powi(decade) / 1000.0)),
                label: decade_label(decade),
            })
            .collect()
    }
}

fn decade_label(decade: i32) -> String {
    if decade >= 3 {
        format!("{} s", 10_i64.pow(decade.unsigned_abs() - 3))
    } else if decade >= 0 {
        format!("{} ms", 10_i64.pow(decade.unsigned_abs()))
    } else {
        format!("{} µs", 10_f64.powi(decade + 3).round())
    }
}

/// Never zero, for a logarithm is taken of it.
fn milliseconds(time: Duration) -> f64 {
    (time.as_secs_f64() * 1000.0).max(0.001)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(ticks: &[Tick]) -> Vec<&str> {
        ticks.iter().map(|tick| tick.label.as_str()).collect()
    }

    #[test]
    fn ticks_of_time_stand_at_round_numbers_and_do_not_crowd() {
        let scale = Linear::new(Duration::from_millis(6300), 100.0, 730.0);
        let ticks = scale.ticks();
        assert_eq!(
            labels(&ticks),
            ["0 s", "1 s", "2 s", "3 s", "4 s", "5 s", "6 s"]
        );
        assert!((ticks[1].x - 200.0).abs() < 0.1);
        let short = Linear::new(Duration::from_millis(700), 0.0, 1.0).ticks();
        assert_eq!(labels(&short)[..3], ["0 s", "0.1 s", "0.2 s"]);
    }

    #[test]
    fn what_lies_beyond_the_end_is_drawn_at_the_end() {
        let scale = Linear::new(Duration::from_secs(1), 0.0, 10.0);
        assert!((scale.place(Duration::from_secs(5)) - 10.0).abs() < 1e-9);
    }

    #[test]
    fn decades_are_whole_equally_wide_and_named_in_fitting_units() {
        let times = [Duration::from_micros(400), Duration::from_millis(2500)];
        let scale = Logarithmic::new(times.into_iter(), 0.0, 500.0);
        let ticks = scale.ticks();
        assert_eq!(
            labels(&ticks),
            ["100 µs", "1 ms", "10 ms", "100 ms", "1 s", "10 s"]
        );
        assert!((ticks[2].x - 200.0).abs() < 1e-6);
    }

    #[test]
    fn a_scale_of_nothing_and_of_one_duration_is_still_a_scale() {
        assert_eq!(Logarithmic::new([].into_iter(), 0.0, 1.0).ticks().len(), 2);
        let one = Logarithmic::new([Duration::from_millis(10)].into_iter(), 0.0, 1.0);
        assert_eq!(labels(&one.ticks()), ["10 ms", "100 ms"]);
    }
}
