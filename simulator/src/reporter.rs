//! Where report lines go: one JSON object per line, whole lines only, from any thread.

use std::io::Write;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::clock::Clock;
use crate::report::{Event, Line};

/// Why a simulated host ended of its own accord.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DoneReason {
    /// The profile's whole goal was reached.
    Contact,
    /// The time given on the command line is over.
    Duration,
    /// The number of requests given on the command line was made.
    Requests,
    /// SIGTERM or SIGINT.
    Signal,
}

impl DoneReason {
    /// The word used in the report.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Contact => "contact",
            Self::Duration => "duration",
            Self::Requests => "requests",
            Self::Signal => "signal",
        }
    }
}

/// A cheap handle to the report of one simulated host.
///
/// A reader that went away ends the report, not the host: write errors are remembered and nothing
/// more is written.
#[derive(Clone)]
pub struct Reporter {
    shared: Arc<Shared>,
}

struct Shared {
    who: String,
    clock: Clock,
    sink: Mutex<Sink>,
}

struct Sink {
    writer: Box<dyn Write + Send>,
    announced: bool,
    broken: bool,
}

impl Reporter {
    /// A report of the host `who`, written to `writer`.
    pub fn new(who: impl Into<String>, clock: Clock, writer: impl Write + Send + 'static) -> Self {
        let sink = Sink {
            writer: Box::new(writer),
            announced: false,
            broken: false,
        };
        Self {
            shared: Arc::new(Shared {
                who: who.into(),
                clock,
                sink: Mutex::new(sink),
            }),
        }
    }

    /// The clock that stamps the lines.
    pub fn clock(&self) -> Clock {
        self.shared.clock
    }

    /// Says that the sockets are bound. Only the first call writes a line, since one host may run a
    /// FastTrack client and a browser that announce themselves separately.
    pub fn ready(&self) {
        let first = !std::mem::replace(&mut self.sink().announced, true);
        if first {
            self.emit(Event::Ready);
        }
    }

    /// Writes the last line.
    pub fn done(&self, reason: DoneReason) {
        self.emit(Event::Done {
            reason: reason.as_str().to_owned(),
        });
    }

    /// Writes one line, stamped with the present time.
    pub fn emit(&self, event: Event) {
        self.emit_at(self.shared.clock.now(), event);
    }

    /// Writes one line about the instant `now` of this reporter's clock.
    pub fn emit_at(&self, now: Duration, event: Event) {
        let t_us = self.shared.clock.epoch_micros(now);
        self.sink().write(&Line {
            t_us,
            who: self.shared.who.clone(),
            event,
        });
    }

    fn sink(&self) -> std::sync::MutexGuard<'_, Sink> {
        self.shared
            .sink
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Sink {
    fn write(&mut self, line: &Line) {
        if self.broken {
            return;
        }
        let mut text = serde_json::to_string(line).expect("a report line holds nothing JSON lacks");
        text.push('\n');
        self.broken = self
            .writer
            .write_all(text.as_bytes())
            .and_then(|()| self.writer.flush())
            .is_err();
    }
}
