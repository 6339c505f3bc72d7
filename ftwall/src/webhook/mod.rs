//! Tells another program of clients that were locked: one POST of JSON for all within a time.
//!
//! Everything happens on a thread of its own. Who reports only hands over; where too many wait already
//! they are dropped and counted. A receiver that is down is tried again for a while, more and more seldom.

mod delivery;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{
    self, RecvTimeoutError, Sender, SyncSender, TrySendError, channel, sync_channel,
};
use std::time::Duration;

use serde_json::{Value, json};
use tracing::{info, warn};

pub use delivery::{DeliveryError, Receiver};

use crate::EventType;
use crate::control::events::Delivered;
use crate::gateway::clock::Clock;

/// Events that may wait to be delivered.
const BACKLOG: usize = 1024;
/// Events in one delivery at most.
const MOST: usize = 100;
/// How often a delivery is tried before it is given up: for two minutes, even if it is refused at once.
const ATTEMPTS: u32 = 9;
/// Pauses double from the first to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// How long the end of the daemon waits for the last delivery.
const LONGEST_FINISH: Duration = Duration::from_secs(1);

/// What is told, how and to whom.
#[derive(Debug)]
pub struct WebhookSettings {
    /// Who hears it.
    pub receiver: Receiver,
    /// For how long events are gathered after the first.
    pub window: Duration,
}

#[derive(Debug, Default)]
struct Counts {
    sent: AtomicU64,
    failed: AtomicU64,
    dropped: AtomicU64,
}

/// Hands events over to the thread. Its clones speak to the same thread.
#[derive(Clone, Debug)]
pub struct Notifier {
    events: SyncSender<String>,
    counts: Arc<Counts>,
}

impl Notifier {
    /// Reports an event, as its line in the event log, if it is one that is told; never waits.
    pub fn event(&self, event_type: EventType, line: &str) {
        if event_type != EventType::ClientLocked {
            return;
        }
        match self.events.try_send(line.to_owned()) {
            Ok(()) => {}
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                self.counts.dropped.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

/// What became of events.
#[derive(Clone, Debug)]
pub struct Tally(Arc<Counts>);

impl Tally {
    /// So far.
    #[must_use]
    pub fn delivered(&self) -> Delivered {
        let count = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Delivered {
            sent: count(&self.0.sent),
            failed: count(&self.0.failed),
            dropped: count(&self.0.dropped),
        }
    }
}

/// The thread that delivers.
#[derive(Debug)]
pub struct Webhook {
    notifier: Notifier,
    /// Dropped to end pauses.
    stop: Sender<()>,
    /// Closed when the thread has ended.
    ended: mpsc::Receiver<()>,
}

impl Webhook {
    /// Starts the thread.
    ///
    /// # Errors
    /// When the system has no thread left.
    pub fn start(settings: WebhookSettings, clock: Clock) -> io::Result<Webhook> {
        let (events, received) = sync_channel(BACKLOG);
        let counts = Arc::new(Counts::default());
        let (stop, stopped) = channel();
        let (end, ended) = channel::<()>();
        let thread = Thread {
            clock,
            received,
            stopped,
            counts: Arc::clone(&counts),
            settings,
        };
        std::thread::Builder::new()
            .name("webhook".into())
            .spawn(move || {
                thread.deliver_until_closed();
                drop(end);
            })?;
        let notifier = Notifier { events, counts };
        Ok(Webhook {
            notifier,
            stop,
            ended,
        })
    }

    /// A way to hand events over.
    #[must_use]
    pub fn notifier(&self) -> Notifier {
        self.notifier.clone()
    }

    /// What becomes of everything, to be asked at any time.
    #[must_use]
    pub fn tally(&self) -> Tally {
        Tally(Arc::clone(&self.notifier.counts))
    }

    /// Delivers what waits, once, and ends the thread, unless that takes too long. All notifiers have to
    /// be gone.
    pub fn finish(self) {
        let Webhook {
            notifier,
            stop,
            ended,
        } = self;
        drop((notifier, stop));
        if ended.recv_timeout(LONGEST_FINISH) == Err(RecvTimeoutError::Timeout) {
            warn!("the webhook does not answer: the last events are not waited for");
        }
    }
}

struct Thread {
    clock: Clock,
    received: mpsc::Receiver<String>,
    stopped: mpsc::Receiver<()>,
    counts: Arc<Counts>,
    settings: WebhookSettings,
}

impl Thread {
    fn deliver_until_closed(self) {
        while let Ok(first) = self.received.recv() {
            let batch = self.gather(&first);
            let count = u64::try_from(batch.len()).unwrap_or(u64::MAX);
            let body = json!({ "ftwall": env!("CARGO_PKG_VERSION"), "events": batch });
            let counter = match self.deliver(body.to_string().as_bytes()) {
                Ok(()) => &self.counts.sent,
                Err(error) => {
                    warn!(%error, events = count, "the webhook was given up");
                    &self.counts.failed
                }
            };
            counter.fetch_add(count, Ordering::Relaxed);
        }
    }

    /// The first event and what comes within the window, as they stand in the event log.
    fn gather(&self, first: &str) -> Vec<Value> {
        let until = self.clock.now() + self.settings.window;
        let mut batch = vec![read(first)];
        while batch.len() < MOST {
            let left = until.saturating_since(self.clock.now());
            match self.received.recv_timeout(left) {
                Ok(event) => batch.push(read(&event)),
                Err(_) => break,
            }
        }
        batch
    }

    /// Tries until it is taken, or that makes no sense any more.
    fn deliver(&self, body: &[u8]) -> Result<(), DeliveryError> {
        let mut attempt = 0;
        loop {
            let error = match self.settings.receiver.post(body) {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
            attempt += 1;
            if attempt == ATTEMPTS || !error.may_pass() {
                return Err(error);
            }
            info!(%error, attempt, "the webhook is tried again");
            // The end of the daemon ends pauses too.
            if self.stopped.recv_timeout(pause(attempt)) != Err(RecvTimeoutError::Timeout) {
                return Err(error);
            }
        }
    }
}

fn read(line: &str) -> Value {
    serde_json::from_str(line).expect("a line of the event log is JSON")
}

/// After that many attempts.
fn pause(attempts: u32) -> Duration {
    let doubled = FIRST_PAUSE * 2_u32.pow(attempts.saturating_sub(1).min(16));
    doubled.min(LONGEST_PAUSE)
}

#[cfg(test)]
mod tests;
