//! When an entry of the policy holds: windows of the week in a named time zone.

use jiff::civil::{Date, Time as ClockTime, Weekday};
use jiff::tz::TimeZone;
use jiff::{Timestamp as Instant, ToSpan as _, Zoned};
use serde::{Deserialize, Serialize};

use super::setting::Text;
use crate::Timestamp;

/// Several windows a day, possibly past midnight, in one time zone.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Schedule {
    /// The zone in which the times are meant.
    pub zone: Text<TimeZone>,
    /// When the entry holds.
    pub windows: Vec<Window>,
}

/// A part of some days.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Window {
    /// Days on which it begins; every day if none is named.
    #[serde(default)]
    pub days: Vec<Day>,
    /// When it begins.
    pub from: Text<ClockTime>,
    /// When it is over: on the next day if this is not after the beginning.
    pub to: Text<ClockTime>,
}

/// A day of the week.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Day {
    /// Monday.
    Mon,
    /// Tuesday.
    Tue,
    /// Wednesday.
    Wed,
    /// Thursday.
    Thu,
    /// Friday.
    Fri,
    /// Saturday.
    Sat,
    /// Sunday.
    Sun,
}

impl Day {
    /// Every day, from Monday.
    pub const ALL: [Self; 7] = [
        Self::Mon,
        Self::Tue,
        Self::Wed,
        Self::Thu,
        Self::Fri,
        Self::Sat,
        Self::Sun,
    ];

    const fn weekday(self) -> Weekday {
        match self {
            Self::Mon => Weekday::Monday,
            Self::Tue => Weekday::Tuesday,
            Self::Wed => Weekday::Wednesday,
            Self::Thu => Weekday::Thursday,
            Self::Fri => Weekday::Friday,
            Self::Sat => Weekday::Saturday,
            Self::Sun => Weekday::Sunday,
        }
    }
}

impl Schedule {
    /// Whether some window is open.
    #[must_use]
    pub fn holds(&self, now: Timestamp) -> bool {
        let now = self.local(now);
        let now = now.timestamp();
        self.openings(now)
            .any(|(begin, end)| begin <= now && now < end)
    }

    /// When that changes next, or may change; nothing if there is no window.
    #[must_use]
    pub fn next_change(&self, now: Timestamp) -> Option<Timestamp> {
        let now = self.local(now).timestamp();
        let ends = self.openings(now).flat_map(|(begin, end)| [begin, end]);
        let next = ends.filter(|instant| *instant > now).min()?;
        Some(Timestamp::after_origin(next.as_duration().unsigned_abs()))
    }

    fn local(&self, now: Timestamp) -> Zoned {
        let now = Instant::from_second(now.since_origin().as_secs().cast_signed());
        now.unwrap_or(Instant::MAX).to_zoned(self.zone.0.clone())
    }

    /// Beginnings and ends from yesterday until a week from now.
    fn openings(&self, now: Instant) -> impl Iterator<Item = (Instant, Instant)> {
        let today = now.to_zoned(self.zone.0.clone()).date();
        let days = (-1..=7_i64).filter_map(move |day| today.checked_add(day.days()).ok());
        days.flat_map(move |day| {
            let windows = self
                .windows
                .iter()
                .filter(move |window| window.begins_on(day));
            windows.filter_map(move |window| self.opening(day, window))
        })
    }

    /// A time that a change of clocks skips or repeats is taken as the first that makes sense.
    fn opening(&self, day: Date, window: &Window) -> Option<(Instant, Instant)> {
        let instant = |day: Date, time: ClockTime| {
            let zoned = day.to_datetime(time).to_zoned(self.zone.0.clone()).ok()?;
            Some(zoned.timestamp())
        };
        let last_day = if window.to.0 > window.from.0 {
            day
        } else {
            day.tomorrow().ok()?
        };
        Some((
            instant(day, window.from.0)?,
            instant(last_day, window.to.0)?,
        ))
    }
}

impl Window {
    fn begins_on(&self, date: Date) -> bool {
        let mut days = self.days.iter();
        self.days.is_empty() || days.any(|day| day.weekday() == date.weekday())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_past_midnight_belongs_to_the_day_on_which_it_begins() {
        let schedule = schedule(
            "UTC",
            r#"[{ days = ["fri"], from = "22:00", to = "06:00" }]"#,
        );
        for (time, expected) in [
            ("2026-11-20T21:59:59Z", false),
            ("2026-11-20T22:00:00Z", true),
            ("2026-11-21T05:59:59Z", true),
            ("2026-11-21T06:00:00Z", false),
            ("2026-11-21T23:00:00Z", false),
        ] {
            assert_eq!(schedule.holds(at(time)), expected, "{time}");
        }
    }

    #[test]
    fn several_windows_a_day_hold_in_the_zone_they_name() {
        let windows = r#"[{ from = "08:00", to = "12:00" }, { from = "13:00", to = "17:00" }]"#;
        let schedule = schedule("Europe/Berlin", windows);
        // One hour before UTC in winter, two in summer.
        for (time, expected) in [
            ("2026-01-15T07:00:00Z", true),
            ("2026-01-15T11:30:00Z", false),
            ("2026-01-15T12:00:00Z", true),
            ("2026-07-15T06:00:00Z", true),
            ("2026-07-15T05:59:00Z", false),
        ] {
            assert_eq!(schedule.holds(at(time)), expected, "{time}");
        }
        assert_eq!(
            schedule.next_change(at("2026-01-15T07:00:00Z")),
            Some(at("2026-01-15T11:00:00Z"))
        );
    }

    #[test]
    fn a_window_over_a_change_of_clocks_is_as_long_as_that_night() {
        let schedule = schedule("Europe/Berlin", r#"[{ from = "01:00", to = "04:00" }]"#);
        let (begin, end) = (at("2026-03-29T00:00:00Z"), at("2026-03-29T02:00:00Z"));
        assert!(schedule.holds(begin) && !schedule.holds(end));
        assert_eq!(schedule.next_change(begin), Some(end), "an hour is skipped");
        let (begin, end) = (at("2026-10-24T23:00:00Z"), at("2026-10-25T03:00:00Z"));
        assert_eq!(
            schedule.next_change(begin),
            Some(end),
            "an hour comes twice"
        );
    }

    #[test]
    fn from_midnight_to_midnight_is_a_whole_day() {
        let schedule = schedule(
            "UTC",
            r#"[{ days = ["sun"], from = "00:00", to = "24:00" }]"#,
        );
        assert!(schedule.holds(at("2026-11-22T23:59:59Z")));
        assert!(!schedule.holds(at("2026-11-23T00:00:00Z")));
        let next_sunday = Some(at("2026-11-29T00:00:00Z"));
        assert_eq!(
            schedule.next_change(at("2026-11-23T00:00:00Z")),
            next_sunday
        );
    }

    fn schedule(zone: &str, windows: &str) -> Schedule {
        toml::from_str(&format!("zone = \"{zone}\"\nwindows = {windows}")).expect("documented")
    }

    fn at(text: &str) -> Timestamp {
        let instant: Instant = text.parse().expect("a literal");
        Timestamp::after_origin(instant.as_duration().unsigned_abs())
    }
}
