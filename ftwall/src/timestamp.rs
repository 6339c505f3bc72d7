//! An instant, as handed to the core by whoever drives it.

use std::fmt;
use std::ops::Add;
use std::time::Duration;

use serde::{Serialize, Serializer};

/// An instant, counted from an origin that the caller chooses.
///
/// The daemon and the capture reader count from the Unix epoch; a test counts from its own start.
/// The core only compares instants and adds durations to them. Nanoseconds in one word: tables
/// hold millions of instants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(u64);

impl Timestamp {
    /// The caller's origin.
    pub const ORIGIN: Self = Self(0);

    /// The instant this long after the origin, or 292 years, whatever is less: half of what can be
    /// counted, so that whatever the present is said to be, a deadline lies behind it.
    #[must_use]
    pub const fn after_origin(elapsed: Duration) -> Self {
        let elapsed = nanoseconds(elapsed);
        Self(if elapsed > LATEST { LATEST } else { elapsed })
    }

    /// The instant this many whole seconds after the origin.
    #[must_use]
    pub const fn from_secs(secs: u64) -> Self {
        Self::after_origin(Duration::from_secs(secs))
    }

    /// The instant this many milliseconds after the origin.
    #[must_use]
    pub const fn from_millis(millis: u64) -> Self {
        Self::after_origin(Duration::from_millis(millis))
    }

    /// How long after the origin this instant is.
    #[must_use]
    pub const fn since_origin(self) -> Duration {
        Duration::from_nanos(self.0)
    }

    /// How long after `earlier` this instant is; zero if it is not after it.
    #[must_use]
    pub const fn saturating_since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// Writes the instant as RFC 3339 in UTC with microseconds, for origins at the Unix epoch.
    #[must_use]
    pub fn rfc3339(self) -> impl fmt::Display {
        Rfc3339(self)
    }
}

/// As [`Timestamp::rfc3339`].
impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.rfc3339())
    }
}

impl Add<Duration> for Timestamp {
    type Output = Self;

    /// Saturates: a deadline too far away to be counted never comes.
    fn add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(nanoseconds(duration)))
    }
}

/// The last instant that is handed in.
const LATEST: u64 = u64::MAX / 2;

const fn nanoseconds(duration: Duration) -> u64 {
    let all = duration.as_nanos();
    if all > u64::MAX as u128 {
        u64::MAX
    } else {
        all as u64
    }
}

struct Rfc3339(Timestamp);

impl fmt::Display for Rfc3339 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let elapsed = self.0.since_origin();
        let (days, second) = (elapsed.as_secs() / 86_400, elapsed.as_secs() % 86_400);
        let (year, month, day) = civil_date(days);
        let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
        let micros = elapsed.subsec_micros();
        write!(
            f,
            "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{micros:06}Z"
        )
    }
}

/// Year, month and day of the proleptic Gregorian calendar, `days` after 1970-01-01.
///
/// Counts in eras of 400 years that start on 1 March, so that the leap day is a year's last.
const fn civil_date(days: u64) -> (u64, u64, u64) {
    let days = days + DAYS_FROM_YEAR_ZERO;
    let (era, day_of_era) = (days / DAYS_PER_ERA, days % DAYS_PER_ERA);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let months_since_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * months_since_march + 2) / 5 + 1;
    let month = if months_since_march < 10 {
        months_since_march + 3
    } else {
        months_since_march - 9
    };
    let year = era * 400 + year_of_era + (month <= 2) as u64;
    (year, month, day)
}

/// Days from 0000-03-01 to 1970-01-01.
const DAYS_FROM_YEAR_ZERO: u64 = 719_468;
/// Days in 400 years.
const DAYS_PER_ERA: u64 = 146_097;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instants_are_written_as_utc_with_microseconds() {
        let cases = [
            (0, "1970-01-01T00:00:00.000000Z"),
            (951_782_400, "2000-02-29T00:00:00.000000Z"),
            (1_057_363_199, "2003-07-04T23:59:59.000000Z"),
            (4_107_542_400, "2100-03-01T00:00:00.000000Z"),
        ];
        for (secs, expected) in cases {
            assert_eq!(Timestamp::from_secs(secs).rfc3339().to_string(), expected);
        }
    }

    #[test]
    fn a_deadline_too_far_away_never_comes() {
        let never = Timestamp::from_secs(1) + Duration::MAX;
        assert_eq!(never.since_origin(), Duration::from_nanos(u64::MAX));
        assert_eq!(never + Duration::from_secs(1), never);
        let latest = Timestamp::after_origin(Duration::MAX);
        assert!(latest < latest + Duration::from_secs(1));
    }

    #[test]
    fn time_since_a_later_instant_is_zero() {
        let (early, late) = (Timestamp::from_secs(1), Timestamp::from_secs(3));
        assert_eq!(late.saturating_since(early), Duration::from_secs(2));
        assert_eq!(early.saturating_since(late), Duration::ZERO);
    }
}
