//! Time as it is measured: the only file of the benches that reads a clock or waits for one.

use std::thread;
use std::time::{Duration, Instant};

/// The present.
#[expect(clippy::disallowed_methods, reason = "time is what is measured")]
pub(super) fn now() -> Instant {
    Instant::now()
}

/// Waits for an instant: what is generated at a rate has nothing else to wait for.
#[expect(clippy::disallowed_methods, reason = "a rate is made of pauses")]
pub(super) fn sleep_until(instant: Instant) {
    thread::sleep(instant.saturating_duration_since(now()));
}

/// Does something at a rate, in bursts a millisecond apart, until the time is over, and returns how
/// often it was done. What a busy machine delays by a moment is made up for, the rest is left out.
pub(super) fn at_rate(per_second: u32, lasting: Duration, mut act: impl FnMut(u64)) -> u64 {
    const TICK: Duration = Duration::from_millis(1);
    const MOMENT: Duration = Duration::from_millis(50);
    let (begun, mut done) = (now(), 0);
    let mut due = begun;
    let burst = u64::from(per_second).div_ceil(1000);
    while due < begun + lasting {
        sleep_until(due);
        for _ in 0..burst {
            act(done);
            done += 1;
        }
        due += TICK;
        if now().saturating_duration_since(due) > MOMENT {
            due = now();
        }
    }
    done
}
