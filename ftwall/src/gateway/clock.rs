//! The daemon's clock: the only file of the live gateway that reads one.

use std::time::{Duration, Instant, SystemTime};

use rustix::time::{ClockId, clock_gettime};

use crate::Timestamp;

/// A clock that shows time since the Unix epoch, so that events can be compared with other logs, and
/// that never runs backwards, whatever is done to the system's clock meanwhile.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    started_at: Timestamp,
    started: Instant,
}

impl Clock {
    /// A clock set by the system's.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "the shell is where time enters")]
    pub fn start() -> Clock {
        Clock {
            started_at: Clock::wall(),
            started: Instant::now(),
        }
    }

    /// What the system's clock shows now, which may be set at any time: for what is read again by another
    /// process, and nothing else.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "the shell is where time enters")]
    pub fn wall() -> Timestamp {
        let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        Timestamp::after_origin(since_epoch.unwrap_or(Duration::ZERO))
    }

    /// Time since the machine was started, as service managers count it.
    #[must_use]
    pub fn monotonic() -> Duration {
        let now = clock_gettime(ClockId::Monotonic);
        Duration::try_from(now).unwrap_or(Duration::ZERO)
    }

    /// What it shows now.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.started_at + self.started.elapsed()
    }
}
