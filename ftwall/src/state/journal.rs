//! Writing the file: changes at its end, and now and then a snapshot in its place.

use std::collections::BTreeMap;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::PathBuf;
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};

use super::fact::{Change, Fact, Kept, Key};
use super::line::{End, Record};
use super::reading::MAGIC;
use super::{FILE, MAX_FACTS, NEW, VERSION};
use crate::Timestamp;

/// Lines after the snapshot before a new one is written, unless more facts than half of that are known.
const MIN_JOURNAL: usize = 1 << 14;
/// A fact whose end moves by less than this is not written again: a locked host that goes on trying renews
/// its lock every second.
const WORTH_WRITING: Duration = Duration::from_secs(10);
/// Who a host's peers are is nobody else's business.
const DIRECTORY_MODE: u32 = 0o750;
const FILE_MODE: u32 = 0o640;

/// This instant by both clocks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Now {
    /// The daemon's, by which everything is known.
    pub(super) clock: Timestamp,
    /// The wall's, by which everything is written. It may be set while the daemon runs.
    pub(super) wall: Timestamp,
}

/// Everything that is known, and the file that says so.
#[derive(Debug)]
pub(super) struct Journal {
    directory: PathBuf,
    facts: BTreeMap<Key, Entry>,
    /// Absent until a snapshot was written, and after anything went wrong.
    file: Option<File>,
    /// Held as long as this is: two daemons must not write one file.
    claim: Option<File>,
    journaled: usize,
}

#[derive(Debug)]
struct Entry {
    fact: Fact,
    until: Option<Timestamp>,
    /// The end that stands in the file.
    written: Option<Timestamp>,
}

impl Journal {
    /// A journal in `directory` of what was kept. Touches nothing yet.
    pub(super) fn new(directory: PathBuf, kept: &[Kept], now: Timestamp) -> Self {
        let facts = kept.iter().map(|kept| {
            let until = kept.left.map(|left| now + left);
            let entry = Entry {
                fact: kept.fact,
                until,
                written: until,
            };
            (kept.fact.key(), entry)
        });
        Self {
            directory,
            facts: facts.take(MAX_FACTS).collect(),
            file: None,
            claim: None,
            journaled: 0,
        }
    }

    /// How many facts are known.
    pub(super) fn len(&self) -> usize {
        self.facts.len()
    }

    /// Whether the file says what is known.
    pub(super) const fn is_open(&self) -> bool {
        self.file.is_some()
    }

    /// Takes changes over, and writes them unless the file is not open. False if one found no room.
    ///
    /// # Errors
    /// When the file cannot be written; what was taken over is known all the same.
    pub(super) fn record(&mut self, changes: &[Change], now: Now) -> io::Result<bool> {
        let mut text = Vec::new();
        let mut has_room = true;
        for change in changes {
            match *change {
                Change::Keep { fact, until } => {
                    has_room &= self.keep(fact, until, now, &mut text);
                }
                Change::Forget(key) => self.forget(key, now.clock, &mut text),
            }
        }
        self.append(&text)?;
        if self.is_open() && self.journaled > MIN_JOURNAL.max(2 * self.facts.len()) {
            self.write_snapshot(now)?;
        }
        Ok(has_room)
    }

    /// Writes everything that is known to a new file, and puts it in the place of the old one.
    ///
    /// # Errors
    /// When there is no room, no permission, or another daemon that keeps its state there.
    pub(super) fn write_snapshot(&mut self, now: Now) -> io::Result<()> {
        self.file = None;
        self.claim()?;
        let lasts = |until: Option<Timestamp>| until.is_none_or(|until| until > now.clock);
        self.facts.retain(|_, entry| lasts(entry.until));
        let mut text = format!("{MAGIC} {VERSION}\n").into_bytes();
        for entry in self.facts.values_mut() {
            entry.write(now, &mut text);
        }
        let (new, place) = (self.directory.join(NEW), self.directory.join(FILE));
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true);
        let mut file = options.mode(FILE_MODE).open(&new)?;
        let written = file.write_all(&text).and_then(|()| file.sync_all());
        if let Err(error) = written.and_then(|()| std::fs::rename(&new, place)) {
            // Half a snapshot on a full disk only takes more of it.
            let _ = std::fs::remove_file(&new);
            return Err(error);
        }
        // The directory is what has to know the new name.
        self.claim.as_ref().map_or(Ok(()), File::sync_all)?;
        self.journaled = 0;
        self.file = Some(file);
        Ok(())
    }

    /// Makes what was written durable.
    ///
    /// # Errors
    /// When the disk refuses.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.file.as_ref().map_or(Ok(()), File::sync_data)
    }

    fn keep(&mut self, fact: Fact, until: Option<Timestamp>, now: Now, text: &mut Vec<u8>) -> bool {
        let known = self.facts.get(&fact.key());
        if known.is_none() && self.facts.len() >= MAX_FACTS {
            return false;
        }
        let is_news = known.is_none_or(|known| known.is_worth_writing(fact, until));
        let written = known.and_then(|known| known.written);
        let mut entry = Entry {
            fact,
            until,
            written,
        };
        if is_news {
            entry.write(now, text);
            self.journaled += 1;
        }
        self.facts.insert(fact.key(), entry);
        true
    }

    /// What has ended by itself need not be said: its end stands in the file.
    fn forget(&mut self, key: Key, now: Timestamp, text: &mut Vec<u8>) {
        let known = self.facts.remove(&key);
        let has_ended = |known: &Entry| known.written.is_some_and(|end| end <= now);
        if known.is_some_and(|known| !has_ended(&known)) {
            Record::Forget(key).write(text);
            self.journaled += 1;
        }
    }

    fn append(&mut self, text: &[u8]) -> io::Result<()> {
        let Some(file) = &mut self.file else {
            return Ok(());
        };
        let written = file.write_all(text);
        if written.is_err() {
            // It may end in half a line: only a new snapshot can be added to.
            self.file = None;
        }
        written
    }

    fn claim(&mut self) -> io::Result<()> {
        if self.claim.is_some() {
            return Ok(());
        }
        let mut builder = DirBuilder::new();
        builder
            .recursive(true)
            .mode(DIRECTORY_MODE)
            .create(&self.directory)?;
        let directory = File::open(&self.directory)?;
        flock(&directory, FlockOperation::NonBlockingLockExclusive).map_err(|error| {
            match io::Error::from(error).kind() {
                ErrorKind::WouldBlock => io::Error::new(
                    ErrorKind::WouldBlock,
                    "another ftwall keeps its state there",
                ),
                _ => error.into(),
            }
        })?;
        self.claim = Some(directory);
        Ok(())
    }
}

impl Entry {
    fn is_worth_writing(&self, fact: Fact, until: Option<Timestamp>) -> bool {
        let moved = match (self.written, until) {
            (Some(written), Some(until)) => {
                until < written || until.saturating_since(written) >= WORTH_WRITING
            }
            (written, until) => written != until,
        };
        moved || self.fact != fact
    }

    fn write(&mut self, now: Now, text: &mut Vec<u8>) {
        self.written = self.until;
        let end = self.until.map(|until| {
            let left = until.saturating_since(now.clock);
            End {
                ends_ms: milliseconds((now.wall + left).since_origin()),
                left_ms: milliseconds(left),
            }
        });
        let what = self.fact;
        Record::Keep { what, end }.write(text);
    }
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::path::Path;

    use super::super::reading::open;
    use super::*;
    use crate::Origin;

    #[test]
    fn what_was_recorded_is_found_with_what_is_left_of_it() {
        let mut test = Test::new("found");
        test.keep(1, 60);
        test.keep(2, 3600);
        test.forget(1);
        assert_eq!(test.found_after(100), [kept(2, 3500)]);
        // The wall clock counts while nothing runs, wherever the daemon's own began.
        assert_eq!(test.found_after(3600), []);
    }

    #[test]
    fn renewals_that_change_little_are_not_written() {
        let mut test = Test::new("renewals");
        test.keep(1, 60);
        let before = test.octets();
        for seconds in 61..70 {
            test.keep(1, seconds);
        }
        assert_eq!(test.octets(), before);
        test.keep(1, 70);
        assert!(test.octets() > before);
        assert_eq!(test.found_after(0), [kept(1, 70)]);
        // What ends earlier always is: somebody has lifted it.
        test.keep(1, 5);
        assert_eq!(test.found_after(0), [kept(1, 5)]);
    }

    #[test]
    fn a_journal_that_has_outgrown_its_snapshot_is_replaced_by_a_new_one() {
        let mut test = Test::new("rotation");
        let mut longest = 0;
        for round in 0..3 * MIN_JOURNAL as u64 {
            test.keep(1, 60 + 10 * round);
            longest = longest.max(test.journal.journaled);
        }
        assert!(longest <= MIN_JOURNAL);
        assert_eq!(test.found_after(0).len(), 1);
        assert!(!test.directory.join(NEW).exists());
    }

    #[test]
    fn what_was_found_is_kept_by_the_next_daemon_too() {
        let mut test = Test::new("again");
        test.keep(1, 3600);
        let found = open(&test.directory, wall(10)).kept;
        let later = Now {
            clock: Timestamp::from_secs(50_000),
            wall: wall(10),
        };
        drop(std::mem::replace(
            &mut test.journal,
            Journal::new("/nowhere".into(), &[], later.clock),
        ));
        let mut next = Journal::new(test.directory.clone(), &found, later.clock);
        next.write_snapshot(later).expect("room is left");
        assert_eq!(test.found_after(20), [kept(1, 3580)]);
    }

    #[test]
    fn two_daemons_do_not_write_one_file() {
        let test = Test::new("claim");
        let mut other = Journal::new(test.directory.clone(), &[], NOW.clock);
        let error = other.write_snapshot(NOW).expect_err("it is taken");
        assert_eq!(error.to_string(), "another ftwall keeps its state there");
        drop(test.journal);
        other.write_snapshot(NOW).expect("nobody is there any more");
    }

    #[test]
    fn a_disk_that_is_full_costs_the_file_and_not_what_is_known() {
        let mut test = Test::new("full");
        test.keep(1, 3600);
        // Where every write fails for want of room.
        let full = OpenOptions::new().write(true).open("/dev/full");
        test.journal.file = Some(full.expect("every Linux has it"));
        let change = Change::Keep {
            fact: kept(2, 0).fact,
            until: Some(NOW.clock + Duration::from_secs(3600)),
        };
        let error = test.journal.record(&[change], NOW);
        let error = error.expect_err("there is no room").kind();
        assert_eq!(error, ErrorKind::StorageFull);
        assert!(!test.journal.is_open());
        test.keep(3, 3600);
        test.journal
            .write_snapshot(NOW)
            .expect("room is left again");
        assert_eq!(test.found_after(0).len(), 3);
    }

    #[test]
    fn no_more_is_kept_than_there_is_room_for() {
        let many = (0..MAX_FACTS + 10).map(|number| {
            let host = Ipv4Addr::from_bits(number as u32);
            let origin = Origin::Operator;
            Kept {
                fact: Fact::Lock { host, origin },
                left: None,
            }
        });
        let many: Vec<_> = many.collect();
        let mut journal = Journal::new("/nowhere".into(), &many, NOW.clock);
        assert_eq!(journal.len(), MAX_FACTS);
        let change = Change::Keep {
            fact: kept(1, 0).fact,
            until: None,
        };
        assert!(!journal.record(&[change], NOW).expect("nothing is written"));
    }

    const NOW: Now = Now {
        clock: Timestamp::from_secs(7),
        wall: wall(0),
    };

    const fn wall(later: u64) -> Timestamp {
        Timestamp::from_secs(1_790_000_000 + later)
    }

    fn kept(number: u8, seconds: u64) -> Kept {
        let host = Ipv4Addr::new(10, 77, 1, number);
        let origin = Origin::Operator;
        Kept {
            fact: Fact::Lock { host, origin },
            left: Some(Duration::from_secs(seconds)),
        }
    }

    struct Test {
        directory: PathBuf,
        journal: Journal,
    }

    impl Test {
        fn new(name: &str) -> Self {
            let name = format!("ftwall-journal-{}-{name}", std::process::id());
            let directory = std::env::temp_dir().join(name);
            let _ = std::fs::remove_dir_all(&directory);
            let mut journal = Journal::new(directory.clone(), &[], NOW.clock);
            journal.write_snapshot(NOW).expect("room is left");
            Self { directory, journal }
        }

        fn keep(&mut self, number: u8, seconds: u64) {
            let until = Some(NOW.clock + Duration::from_secs(seconds));
            let fact = kept(number, seconds).fact;
            self.record(Change::Keep { fact, until });
        }

        fn forget(&mut self, number: u8) {
            self.record(Change::Forget(kept(number, 0).fact.key()));
        }

        fn record(&mut self, change: Change) {
            let recorded = self.journal.record(&[change], NOW);
            assert!(recorded.expect("room is left"));
        }

        fn found_after(&self, seconds: u64) -> Vec<Kept> {
            let found = open(&self.directory, wall(seconds));
            assert_eq!(found.set_aside, None);
            found.kept
        }

        fn octets(&self) -> u64 {
            let file: &Path = &self.directory.join(FILE);
            std::fs::metadata(file).expect("it was written").len()
        }
    }
}
