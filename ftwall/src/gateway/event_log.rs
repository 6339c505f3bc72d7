//! The thread that writes events, so that a reader who does not read never holds up a packet.
//!
//! Everybody else only hands events over, and where too many wait already they are lost and counted.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, channel, sync_channel};
use std::time::Duration;

use tracing::warn;

use crate::control::events::{EventWriter, Notice};
use crate::{Event, Timestamp};

/// Events that may wait to be written: those of every client at once whose cache is named in one burst.
const BACKLOG: usize = 1 << 14;
/// How long the end of the daemon waits for a reader that does not read.
const LONGEST_FINISH: Duration = Duration::from_secs(1);

/// What is written.
#[derive(Debug)]
enum Entry {
    Event(Event),
    Notice(Notice),
    Reopen,
    Expire,
}

/// Hands events over to the thread. Its clones speak to the same thread.
#[derive(Clone, Debug)]
pub struct EventSender {
    entries: SyncSender<(Timestamp, Entry)>,
    lost: Arc<AtomicU64>,
}

impl EventSender {
    /// Reports what an engine reports.
    pub fn event(&self, now: Timestamp, event: Event) {
        self.send(now, Entry::Event(event));
    }

    /// Reports what the daemon has to say.
    pub fn notice(&self, now: Timestamp, notice: Notice) {
        self.send(now, Entry::Notice(notice));
    }

    /// Asks for a file of events to be opened anew under its name.
    pub fn reopen(&self, now: Timestamp) {
        self.send(now, Entry::Reopen);
    }

    /// Asks for events to be removed that are too old.
    pub fn expire(&self, now: Timestamp) {
        self.send(now, Entry::Expire);
    }

    /// Events that nobody will read, because too many waited or their target fails.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    fn send(&self, now: Timestamp, entry: Entry) {
        if self.entries.try_send((now, entry)).is_err()
            && self.lost.fetch_add(1, Ordering::Relaxed) == 0
        {
            warn!("events are lost: whoever reads them does not keep up");
        }
    }
}

/// Who hears of each event once it is written, with its line; must not wait for others.
pub type Listener = Box<dyn FnMut(Timestamp, &Event, &str) + Send>;

/// The thread that writes events.
#[derive(Debug)]
pub struct EventLog {
    sender: EventSender,
    /// Closed when the thread has ended.
    ended: Receiver<()>,
}

impl EventLog {
    /// Starts the thread.
    ///
    /// # Errors
    /// When the system has no thread left.
    pub fn start(mut writer: EventWriter, mut listeners: Vec<Listener>) -> io::Result<EventLog> {
        let (entries, received) = sync_channel(BACKLOG);
        let lost = Arc::new(AtomicU64::new(0));
        let (end, ended) = channel();
        let losses = Arc::clone(&lost);
        let work =
            move || write_until_closed(&received, (&mut writer, &mut listeners), &losses, &end);
        std::thread::Builder::new()
            .name("events".into())
            .spawn(work)?;
        let sender = EventSender { entries, lost };
        Ok(EventLog { sender, ended })
    }

    /// Somebody else's way to the thread.
    #[must_use]
    pub fn sender(&self) -> EventSender {
        self.sender.clone()
    }

    /// Waits until everything is written and the thread has ended, unless that takes too long. All other
    /// senders have to be gone.
    pub fn finish(self) {
        let EventLog { sender, ended } = self;
        drop(sender);
        if ended.recv_timeout(LONGEST_FINISH) == Err(RecvTimeoutError::Timeout) {
            warn!("nobody reads the events: the last of them are not waited for");
        }
    }
}

/// Hands over to readers whenever nothing more waits. The last parameter is dropped when it ends.
fn write_until_closed(
    entries: &Receiver<(Timestamp, Entry)>,
    (writer, listeners): (&mut EventWriter, &mut [Listener]),
    lost: &AtomicU64,
    _end: &Sender<()>,
) {
    while let Ok(first) = entries.recv() {
        let failed_before = writer.lost();
        for (now, entry) in std::iter::once(first).chain(entries.try_iter()) {
            match entry {
                Entry::Event(event) => {
                    let line = writer.event(now, &event);
                    for listener in &mut *listeners {
                        listener(now, &event, &line);
                    }
                }
                Entry::Notice(notice) => writer.notice(now, &notice),
                Entry::Reopen => writer.reopen(),
                Entry::Expire => writer.expire(now),
            }
        }
        writer.flush();
        lost.fetch_add(writer.lost() - failed_before, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn said() -> Notice {
        let message = "anything".to_owned();
        Notice::InboundOpen { message }
    }

    /// A reader who reads nothing until `go` says so.
    struct Hung {
        go: Receiver<()>,
        written: Sender<usize>,
    }

    impl Write for Hung {
        fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
            let _ = self.go.recv();
            let lines = octets.iter().filter(|octet| **octet == b'\n').count();
            let _ = self.written.send(lines);
            Ok(octets.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_reader_who_does_not_read_holds_nobody_up_and_what_is_lost_is_counted() {
        let (go, gone) = channel();
        let (written, read) = channel();
        let hung = EventWriter::to(Hung { go: gone, written });
        let log = EventLog::start(hung, Vec::new()).expect("threads are left");
        let sender = log.sender();
        let many = 3 * BACKLOG;
        (0..many).for_each(|_| sender.notice(Timestamp::ORIGIN, said()));
        assert!(sender.lost() > 0);
        drop(go); // From here on it reads.
        let lost = usize::try_from(sender.lost()).expect("it is small");
        drop(sender);
        log.finish();
        assert_eq!(read.try_iter().sum::<usize>() + lost, many);
    }

    #[test]
    fn a_target_that_fails_is_counted_as_lost_too() {
        struct Full;
        impl Write for Full {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::StorageFull.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let log = EventLog::start(EventWriter::to(Full), Vec::new()).expect("threads are left");
        let lost = Arc::clone(&log.sender.lost);
        log.sender.notice(Timestamp::ORIGIN, said());
        log.finish();
        assert_eq!(lost.load(Ordering::Relaxed), 1);
    }
}
