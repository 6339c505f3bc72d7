//! What is shown: the latest sample, rates since the one before, and where the reader has got to.

use std::collections::{BTreeMap, VecDeque};

use super::sample::Sample;
use crate::control::wire::Failure;

/// Rates kept for the curve: as many as a wide terminal has columns.
const LONGEST_HISTORY: usize = 300;

/// What a key asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Key {
    /// The end.
    Quit,
    /// Peers instead of clients, and back.
    OtherList,
    /// Keep the screen as it is, or go on.
    Hold,
    /// The next row.
    Down,
    /// The row before.
    Up,
}

/// Which list is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum List {
    /// Locked hosts.
    Clients,
    /// Peers that they are known to use.
    Peers,
}

/// Everything that a screen is drawn from.
#[derive(Debug)]
pub(super) struct View {
    pub(super) latest: Sample,
    /// Packets a second by `action/reason`, between the latest two samples.
    pub(super) rates: BTreeMap<String, f64>,
    /// Packets a second, oldest first.
    pub(super) history: VecDeque<u64>,
    pub(super) list: List,
    pub(super) first_row: usize,
    pub(super) is_held: bool,
    /// Why there was no answer, if the last question got none.
    pub(super) trouble: Option<String>,
}

impl View {
    pub(super) fn new(first: Sample) -> Self {
        Self {
            latest: first,
            rates: BTreeMap::new(),
            history: VecDeque::new(),
            list: List::Clients,
            first_row: 0,
            is_held: false,
            trouble: None,
        }
    }

    /// Takes the next answer, or the lack of one: then the last answer stays, and is said to be old.
    pub(super) fn update(&mut self, sample: Result<Sample, Failure>) {
        match sample {
            Err(failure) => self.trouble = Some(failure.message),
            Ok(_) if self.is_held => self.trouble = None,
            Ok(sample) => {
                self.trouble = None;
                self.take(sample);
            }
        }
        self.stay_in_list();
    }

    fn take(&mut self, sample: Sample) {
        let seconds = sample.at.saturating_since(self.latest.at).as_secs_f64();
        let has_restarted =
            sample.number(&["uptime_seconds"]) < self.latest.number(&["uptime_seconds"]);
        if seconds > 0.0 && !has_restarted {
            let before: BTreeMap<_, _> = self.latest.verdicts().collect();
            let rates = sample.verdicts().map(|(name, count)| {
                let new = count.saturating_sub(before.get(name).copied().unwrap_or(0));
                (name.to_owned(), new as f64 / seconds)
            });
            self.rates = rates.collect();
            let all: f64 = self.rates.values().sum();
            self.history.push_back(all.round() as u64);
            if self.history.len() > LONGEST_HISTORY {
                self.history.pop_front();
            }
        } else {
            self.rates.clear();
        }
        self.latest = sample;
    }

    /// Does what a key asks for.
    pub(super) fn press(&mut self, key: Key) {
        match key {
            Key::Quit => {}
            Key::Hold => self.is_held = !self.is_held,
            Key::Down => self.first_row += 1,
            Key::Up => self.first_row = self.first_row.saturating_sub(1),
            Key::OtherList => {
                self.first_row = 0;
                self.list = match self.list {
                    List::Clients => List::Peers,
                    List::Peers => List::Clients,
                };
            }
        }
        self.stay_in_list();
    }

    fn stay_in_list(&mut self) {
        let rows = match self.list {
            List::Clients => self.latest.clients.len(),
            List::Peers => self.latest.peers.len(),
        };
        self.first_row = self.first_row.min(rows.saturating_sub(1));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::Timestamp;
    use std::time::Duration;

    fn sample(second: u64, uptime: u64, dropped: u64) -> Sample {
        Sample {
            at: Timestamp::after_origin(Duration::from_secs(second)),
            status: json!({
                "uptime_seconds": uptime,
                "counted": { "verdicts": { "drop/ping": dropped, "clear/tls": 7 } },
            }),
            clients: vec![Value::Null; 2],
            peers: vec![Value::Null],
        }
    }

    #[test]
    fn rates_are_packets_between_two_samples_by_the_time_between_them() {
        let mut view = View::new(sample(10, 100, 40));
        assert!(view.rates.is_empty(), "one sample has no rate");
        view.update(Ok(sample(12, 102, 45)));
        assert_eq!(view.rates["drop/ping"], 2.5);
        assert_eq!(view.rates["clear/tls"], 0.0);
        assert_eq!(view.history, [3]);
    }

    #[test]
    fn a_daemon_that_was_started_again_has_no_rate_at_first() {
        let mut view = View::new(sample(10, 100, 40));
        view.update(Ok(sample(12, 1, 2)));
        assert!(view.rates.is_empty());
        view.update(Ok(sample(13, 2, 6)));
        assert_eq!(view.rates["drop/ping"], 4.0);
    }

    #[test]
    fn without_an_answer_the_last_one_stays_and_the_reason_is_shown() {
        let mut view = View::new(sample(10, 100, 40));
        view.update(Err(Failure::new(3, "ftwall is not running")));
        assert_eq!(view.trouble.as_deref(), Some("ftwall is not running"));
        assert_eq!(view.latest.number(&["uptime_seconds"]), 100);
        view.update(Ok(sample(11, 101, 40)));
        assert_eq!(view.trouble, None);
    }

    #[test]
    fn a_held_screen_stays_as_it_is() {
        let mut view = View::new(sample(10, 100, 40));
        view.press(Key::Hold);
        view.update(Ok(sample(11, 101, 90)));
        assert_eq!(view.latest.number(&["uptime_seconds"]), 100);
        view.press(Key::Hold);
        view.update(Ok(sample(12, 102, 90)));
        assert_eq!(view.rates["drop/ping"], 25.0, "over both seconds");
    }

    #[test]
    fn scrolling_ends_at_the_last_row_and_starts_again_with_the_other_list() {
        let mut view = View::new(sample(10, 100, 40));
        for _ in 0..5 {
            view.press(Key::Down);
        }
        assert_eq!(view.first_row, 1);
        view.press(Key::OtherList);
        assert_eq!((view.list, view.first_row), (List::Peers, 0));
        view.press(Key::Up);
        assert_eq!(view.first_row, 0);
    }

    #[test]
    fn the_curve_keeps_what_fits_a_wide_terminal() {
        let mut view = View::new(sample(0, 0, 0));
        for second in 1..=400 {
            view.update(Ok(sample(second, second, second)));
        }
        assert_eq!(view.history.len(), LONGEST_HISTORY);
    }
}
