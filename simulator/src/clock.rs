//! The simulator's one clock. Everything else takes the time as an argument, so that the same state
//! machines run on sockets and in virtual time.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Time since the process started, anchored once to the Unix epoch: reported times never run
/// backwards, even when the system's clock is set.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    started: Instant,
    epoch: Duration,
}

impl Clock {
    /// Starts a clock at zero.
    #[expect(clippy::disallowed_methods, reason = "the simulator's one clock read")]
    pub fn start() -> Self {
        Self {
            started: Instant::now(),
            epoch: SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .unwrap_or_default(),
        }
    }

    /// Time since [`Clock::start`].
    pub fn now(&self) -> Duration {
        self.started.elapsed()
    }

    /// The same instant as microseconds since the Unix epoch.
    pub fn epoch_micros(&self, now: Duration) -> u64 {
        u64::try_from((self.epoch + now).as_micros()).unwrap_or(u64::MAX)
    }

    /// The instant in the runtime's terms, to sleep until it.
    pub fn instant(&self, now: Duration) -> Instant {
        self.started + now
    }
}
