//! Scales: from what was measured to places in a drawing.

use std::time::Duration;

/// Time to the right, evenly, or with an enlarged beginning: most that happens happens at once.
#[derive(Debug, Clone, Copy)]
pub(super) struct Axis {
    /// The enlarged beginning.
    beginning: Option<Span>,
    rest: Span,
}

/// A stretch of time and the places it is drawn at.
#[derive(Debug, Clone, Copy)]
struct Span {
    times: (f64, f64),
    places: (f64, f64),
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
const STEPS: [f64; 14] = [
    0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0,
];

/// Room for a tick's label and some air.
const TICK_WIDTH: f64 = 62.0;

/// The share of an axis that an enlarged beginning takes.
const BEGINNING_SHARE: f64 = 0.36;

/// A beginning that is more than this share of the whole need not be enlarged.
const WORTH_ENLARGING: f64 = 0.15;

impl Axis {
    /// An axis from zero to `length` over the places from `from` to `to`, which gives the time up to
    /// `settled` more room if that is but a small part of the whole.
    pub(super) fn new(length: Duration, settled: Duration, from: f64, to: f64) -> Self {
        let length = length.as_secs_f64().max(0.001);
        let settled = settled.as_secs_f64() * 1.1;
        let knee = STEPS.into_iter().find(|step| *step >= settled);
        let knee = knee.filter(|knee| settled > 0.0 && *knee <= length * WORTH_ENLARGING);
        let bend = from + (to - from) * BEGINNING_SHARE;
        match knee {
            Some(knee) => Self {
                beginning: Some(Span {
                    times: (0.0, knee),
                    places: (from, bend),
                }),
                rest: Span {
                    times: (knee, length),
                    places: (bend, to),
                },
            },
            None => Self {
                beginning: None,
                rest: Span {
                    times: (0.0, length),
                    places: (from, to),
                },
            },
        }
    }

    pub(super) fn place(&self, time: Duration) -> f64 {
        let time = time.as_secs_f64();
        match self.beginning {
            Some(beginning) if time < beginning.times.1 => beginning.place(time),
            Some(_) | None => self.rest.place(time),
        }
    }

    /// Where the enlarged beginning is drawn, from and to.
    pub(super) fn enlarged(&self) -> Option<(f64, f64)> {
        self.beginning.map(|beginning| beginning.places)
    }

    pub(super) fn ticks(&self) -> Vec<Tick> {
        let mut ticks = self.beginning.map(|span| span.ticks()).unwrap_or_default();
        let last = ticks.last().map_or(f64::NEG_INFINITY, |tick| tick.x);
        let apart = |tick: &Tick| tick.x >= last + TICK_WIDTH / 2.0;
        ticks.extend(self.rest.ticks().into_iter().filter(apart));
        ticks
    }
}

impl Span {
    fn place(&self, time: f64) -> f64 {
        let (first, last) = self.times;
        let share = ((time - first) / (last - first)).clamp(0.0, 1.0);
        self.places.0 + share * (self.places.1 - self.places.0)
    }

    /// Ticks at multiples of a round step within the span.
    fn ticks(&self) -> Vec<Tick> {
        let (first, last) = self.times;
        let most = (self.places.1 - self.places.0) / TICK_WIDTH;
        let fits = |step: &f64| (last - first) / step <= most;
        let step = STEPS.into_iter().find(fits).unwrap_or(last - first);
        // Counted in whole steps, so that labels stay round.
        let (from, to) = (
            (first / step - 1e-6).ceil() as u64,
            (last / step + 1e-6).floor() as u64,
        );
        (from..=to)
            .map(|number| number as f64 * step)
            .map(|at| Tick {
                x: self.place(at),
                label: time_label(at),
            })
            .collect()
    }
}

fn time_label(seconds: f64) -> String {
    if seconds == 0.0 {
        "0".to_owned()
    } else if seconds < 0.9995 {
        format!("{} ms", (seconds * 1000.0).round())
    } else {
        format!("{} s", (seconds * 100.0).round() / 100.0)
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

    const SIX: Duration = Duration::from_millis(6300);

    #[test]
    fn ticks_of_time_stand_at_round_numbers_and_do_not_crowd() {
        let axis = Axis::new(SIX, Duration::ZERO, 100.0, 730.0);
        let ticks = axis.ticks();
        let expected = ["0", "1 s", "2 s", "3 s", "4 s", "5 s", "6 s"];
        assert_eq!(labels(&ticks), expected);
        assert!((ticks[1].x - 200.0).abs() < 0.1);
        assert_eq!(axis.enlarged(), None);
    }

    #[test]
    fn a_beginning_in_which_all_is_settled_gets_more_room_than_its_share() {
        let axis = Axis::new(SIX, Duration::from_millis(70), 0.0, 1000.0);
        let ticks = axis.ticks();
        assert_eq!(
            labels(&ticks)[..6],
            ["0", "20 ms", "40 ms", "60 ms", "80 ms", "100 ms"]
        );
        assert_eq!(
            labels(&ticks)[6..],
            ["1 s", "2 s", "3 s", "4 s", "5 s", "6 s"]
        );
        assert!((axis.place(Duration::from_millis(100)) - 360.0).abs() < 0.1);
        assert!(ticks.windows(2).all(|pair| pair[0].x < pair[1].x));
    }

    #[test]
    fn a_beginning_that_takes_long_anyway_is_not_enlarged() {
        let axis = Axis::new(SIX, Duration::from_secs(2), 0.0, 1000.0);
        assert_eq!(axis.enlarged(), None);
    }

    #[test]
    fn what_lies_beyond_the_end_is_drawn_at_the_end() {
        let axis = Axis::new(Duration::from_secs(1), Duration::ZERO, 0.0, 10.0);
        assert!((axis.place(Duration::from_secs(5)) - 10.0).abs() < 1e-9);
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
