//! The thread that writes the file, so that no disk ever holds up a packet.
//!
//! Everybody else only hands changes over, and where too many wait already they are lost and counted: what
//! is lost of them is what a restart forgets, or remembers for as long as it would have lasted.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use std::{io, thread};

use tracing::{info, warn};

use super::fact::{Change, Kept};
use super::journal::{Journal, Now};
use crate::Timestamp;
use crate::control::events::Notice;
use crate::gateway::clock::Clock;
use crate::gateway::event_log::EventSender;

/// Changes that may wait to be written.
const BACKLOG: usize = 1 << 14;
/// Changes written at once at most.
const BATCH: usize = 1 << 10;
/// How long after a failure it is tried again.
const BEFORE_RETRY: Duration = Duration::from_secs(15);
/// How long the end of the daemon waits for a disk.
const LONGEST_FINISH: Duration = Duration::from_secs(2);

/// Hands changes over to the thread. Its clones speak to the same thread.
#[derive(Clone, Debug)]
pub struct Recorder {
    changes: SyncSender<Change>,
    health: Arc<Shared>,
}

impl Recorder {
    /// Hands a change over; if too many wait already it is lost and counted.
    pub fn record(&self, change: Change) {
        if self.changes.try_send(change).is_err() {
            self.health.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// How the thread is.
    #[must_use]
    pub fn health(&self) -> Health {
        let failure = self.health.failure.lock();
        Health {
            facts: self.health.facts.load(Ordering::Relaxed),
            lost: self.health.lost.load(Ordering::Relaxed),
            failure: failure.unwrap_or_else(PoisonError::into_inner).clone(),
        }
    }
}

/// How well state is kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Health {
    /// Facts that are kept.
    pub facts: u64,
    /// Changes that found no room.
    pub lost: u64,
    /// Why nothing can be written at the moment, if so.
    pub failure: Option<String>,
}

#[derive(Debug, Default)]
struct Shared {
    facts: AtomicU64,
    lost: AtomicU64,
    failure: Mutex<Option<String>>,
}

/// What keeps state: a thread, once it is started.
#[derive(Debug)]
pub struct StateKeeper {
    recorder: Recorder,
    /// Absent once it runs on its thread.
    writer: Option<(Writer, Receiver<Change>)>,
    /// Closed when the thread has ended.
    ended: Option<Receiver<()>>,
}

impl StateKeeper {
    /// Goes on from what was kept in `directory`. Changes can be handed over from now on.
    #[must_use]
    pub fn new(directory: PathBuf, kept: &[Kept], clock: Clock, events: EventSender) -> Self {
        let (changes, received) = sync_channel(BACKLOG);
        let health = Arc::new(Shared::default());
        let writer = Writer {
            journal: Journal::new(directory.clone(), kept, clock.now()),
            directory,
            clock,
            events,
            health: Arc::clone(&health),
            retry_at: clock.now(),
        };
        Self {
            recorder: Recorder { changes, health },
            writer: Some((writer, received)),
            ended: None,
        }
    }

    /// Starts the thread. A directory that cannot be written to is reported, and tried again every now and
    /// then.
    ///
    /// # Errors
    /// When the system has no thread left.
    pub fn start(&mut self) -> io::Result<()> {
        let Some((mut writer, received)) = self.writer.take() else {
            return Ok(());
        };
        let (end, ended) = channel();
        self.ended = Some(ended);
        let work = move || writer.write_until_closed(&received, &end);
        thread::Builder::new().name("state".into()).spawn(work)?;
        Ok(())
    }

    /// A way to hand changes over.
    #[must_use]
    pub fn recorder(&self) -> Recorder {
        self.recorder.clone()
    }

    /// Waits until everything is on the disk, unless that takes too long. All recorders have to be gone.
    pub fn finish(self) {
        let Self {
            recorder, ended, ..
        } = self;
        drop(recorder);
        let Some(ended) = ended else {
            return;
        };
        if ended.recv_timeout(LONGEST_FINISH) == Err(RecvTimeoutError::Timeout) {
            warn!("the disk is slow: the last changes of the state are not waited for");
        }
    }
}

#[derive(Debug)]
struct Writer {
    journal: Journal,
    directory: PathBuf,
    clock: Clock,
    events: EventSender,
    health: Arc<Shared>,
    /// When a file that is not open is tried to be written again.
    retry_at: Timestamp,
}

impl Writer {
    /// The last parameter is dropped when it ends.
    fn write_until_closed(&mut self, received: &Receiver<Change>, _end: &Sender<()>) {
        loop {
            self.open_if_due();
            let changes = match received.recv_timeout(BEFORE_RETRY) {
                Ok(first) => {
                    let more = received.try_iter().take(BATCH - 1);
                    std::iter::once(first).chain(more).collect()
                }
                Err(RecvTimeoutError::Timeout) => Vec::new(),
                Err(RecvTimeoutError::Disconnected) => break,
            };
            let recorded = self.journal.record(&changes, self.now());
            match recorded {
                Ok(true) => {}
                Ok(false) => drop(self.health.lost.fetch_add(1, Ordering::Relaxed)),
                Err(error) => self.note_failure(&error),
            }
            let facts = u64::try_from(self.journal.len()).unwrap_or(u64::MAX);
            self.health.facts.store(facts, Ordering::Relaxed);
        }
        if let Err(error) = self.journal.sync() {
            self.note_failure(&error);
        }
    }

    fn open_if_due(&mut self) {
        if self.journal.is_open() || self.clock.now() < self.retry_at {
            return;
        }
        match self.journal.write_snapshot(self.now()) {
            Ok(()) => self.note_success(),
            Err(error) => self.note_failure(&error),
        }
    }

    fn now(&self) -> Now {
        Now {
            clock: self.clock.now(),
            wall: Clock::wall(),
        }
    }

    /// Said once, and again when it fails for another reason.
    fn note_failure(&mut self, error: &io::Error) {
        self.retry_at = self.clock.now() + BEFORE_RETRY;
        let message = format!("{}: {error}", self.directory.display());
        let known = self.set_failure(Some(message.clone()));
        if known.as_ref() != Some(&message) {
            warn!(message, "state cannot be written: a restart would forget");
            let notice = Notice::StateUnwritable { message };
            self.events.notice(self.clock.now(), notice);
        }
    }

    fn note_success(&self) {
        if self.set_failure(None).is_some() {
            info!(directory = %self.directory.display(), "state is written again");
        }
    }

    fn set_failure(&self, failure: Option<String>) -> Option<String> {
        let known = self.health.failure.lock();
        std::mem::replace(&mut known.unwrap_or_else(PoisonError::into_inner), failure)
    }
}
