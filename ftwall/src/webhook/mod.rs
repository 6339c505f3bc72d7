//! Tells another program of clients that were locked: one POST of JSON for all within a time.
//!
//! Everything happens on a thread of its own. Who reports only hands over; where too many wait already
//! they are dropped and counted. A receiver that is down is tried again for a while, more and more seldom.
//! Who is told may change at any time; what waits then goes to whom it was changed to.

mod delivery;

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError, SyncSender, TrySendError, channel, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
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

/// What the thread shares with those who hand over and those who decide who is told.
#[derive(Debug, Default)]
struct Shared {
    orders: Mutex<Orders>,
    changed: Condvar,
    sent: AtomicU64,
    failed: AtomicU64,
    dropped: AtomicU64,
}

/// What the thread is to do.
#[derive(Debug, Default)]
struct Orders {
    /// Absent if nobody is told.
    settings: Option<Arc<WebhookSettings>>,
    /// How often that was changed.
    changes: u64,
    /// Whether it is to end without another attempt.
    ends: bool,
}

impl Shared {
    fn orders(&self) -> MutexGuard<'_, Orders> {
        // Every order is given in one step, so none is half given.
        self.orders.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn settings(&self) -> Option<Arc<WebhookSettings>> {
        self.orders().settings.clone()
    }
}

/// Hands events over to the thread. Its clones speak to the same thread.
#[derive(Clone, Debug)]
pub struct Notifier {
    events: SyncSender<String>,
    shared: Arc<Shared>,
}

impl Notifier {
    /// Reports an event, as its line in the event log, if it is one that is told; never waits.
    pub fn event(&self, event_type: EventType, line: &str) {
        if event_type != EventType::ClientLocked || self.shared.settings().is_none() {
            return;
        }
        match self.events.try_send(line.to_owned()) {
            Ok(()) => {}
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                self.shared.dropped.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

/// Decides who is told, and asks what became of it, at any time.
#[derive(Clone, Debug)]
pub struct Steering(Arc<Shared>);

impl Steering {
    /// Tells whom these settings name from now on, beginning with what waits; or nobody.
    pub fn tell(&self, settings: Option<WebhookSettings>) {
        let mut orders = self.0.orders();
        orders.settings = settings.map(Arc::new);
        orders.changes += 1;
        drop(orders);
        self.0.changed.notify_all();
    }

    /// What became of everything so far.
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
    /// Closed when the thread has ended.
    ended: mpsc::Receiver<()>,
}

impl Webhook {
    /// Starts the thread, which tells nobody until it is told whom.
    ///
    /// # Errors
    /// When the system has no thread left.
    pub fn start(clock: Clock) -> io::Result<Webhook> {
        let (events, received) = sync_channel(BACKLOG);
        let shared = Arc::new(Shared::default());
        let (end, ended) = channel::<()>();
        let thread = Thread {
            clock,
            received,
            shared: Arc::clone(&shared),
        };
        std::thread::Builder::new()
            .name("webhook".into())
            .spawn(move || {
                thread.deliver_until_closed();
                drop(end);
            })?;
        let notifier = Notifier { events, shared };
        Ok(Webhook { notifier, ended })
    }

    /// A way to hand events over.
    #[must_use]
    pub fn notifier(&self) -> Notifier {
        self.notifier.clone()
    }

    /// A way to decide who is told.
    #[must_use]
    pub fn steering(&self) -> Steering {
        Steering(Arc::clone(&self.notifier.shared))
    }

    /// Delivers what waits, once, and ends the thread, unless that takes too long. All notifiers have to
    /// be gone.
    pub fn finish(self) {
        let Webhook { notifier, ended } = self;
        notifier.shared.orders().ends = true;
        notifier.shared.changed.notify_all();
        drop(notifier);
        if ended.recv_timeout(LONGEST_FINISH) == Err(RecvTimeoutError::Timeout) {
            warn!("the webhook does not answer: the last events are not waited for");
        }
    }
}

struct Thread {
    clock: Clock,
    received: mpsc::Receiver<String>,
    shared: Arc<Shared>,
}

impl Thread {
    fn deliver_until_closed(self) {
        while let Ok(first) = self.received.recv() {
            let batch = self.gather(&first);
            let count = u64::try_from(batch.len()).unwrap_or(u64::MAX);
            let body = json!({ "ftwall": env!("CARGO_PKG_VERSION"), "events": batch });
            let counter = match self.deliver(body.to_string().as_bytes()) {
                Ok(()) => &self.shared.sent,
                Err(error) => {
                    warn!(%error, events = count, "the webhook was given up");
                    &self.shared.failed
                }
            };
            counter.fetch_add(count, Ordering::Relaxed);
        }
    }

    /// The first event and what comes within the window, as they stand in the event log.
    fn gather(&self, first: &str) -> Vec<Value> {
        let window = self.shared.settings().map(|it| it.window);
        let until = self.clock.now() + window.unwrap_or_default();
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
            let (settings, changes) = {
                let orders = self.shared.orders();
                (orders.settings.clone(), orders.changes)
            };
            let Some(settings) = settings else {
                return Err(DeliveryError::Unwanted);
            };
            let error = match settings.receiver.post(body) {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
            attempt += 1;
            if attempt == ATTEMPTS || !error.may_pass() {
                return Err(error);
            }
            info!(%error, attempt, "the webhook is tried again");
            match self.pause(pause(attempt), changes) {
                Pause::Over => {}
                Pause::Changed => attempt = 0,
                Pause::Ends => return Err(error),
            }
        }
    }

    /// Waits, unless there is another order than when so many were counted.
    fn pause(&self, pause: Duration, changes: u64) -> Pause {
        let unchanged = |orders: &mut Orders| orders.changes == changes && !orders.ends;
        let orders = self.shared.orders();
        let waited = (self.shared.changed).wait_timeout_while(orders, pause, unchanged);
        let (orders, _) = waited.unwrap_or_else(PoisonError::into_inner);
        if orders.ends {
            Pause::Ends
        } else if orders.changes != changes {
            Pause::Changed
        } else {
            Pause::Over
        }
    }
}

/// Why a pause is over.
enum Pause {
    /// It has lasted long enough.
    Over,
    /// Somebody else may be told, or in another way.
    Changed,
    /// The daemon ends.
    Ends,
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
