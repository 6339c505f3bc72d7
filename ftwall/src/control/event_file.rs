//! The file that events are appended to: goes on in a new one when it has grown, or when it was taken
//! away.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, BufWriter, Read as _, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp as Instant;
use serde::Deserialize;
use tracing::warn;

use crate::Timestamp;

/// When a file of events has grown enough, and what becomes of it then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rotation {
    /// Octets from which the next event goes into a new file; 0 lets it grow.
    pub limit: u64,
    /// Older files that stay, as `NAME.1`, the youngest, to `NAME.N`.
    pub kept: u8,
    /// How old an event may become before the file that it stands in goes; any age if absent.
    pub longest: Option<Duration>,
}

impl Rotation {
    /// One file that grows.
    pub const NEVER: Rotation = Rotation {
        limit: 0,
        kept: 0,
        longest: None,
    };

    /// What one file may span at most, so that those which are kept hold all of the time together.
    fn span(self) -> Option<Duration> {
        Some(self.longest? / (u32::from(self.kept) + 1))
    }
}

/// A file that whole lines are appended to.
#[derive(Debug)]
pub struct EventFile {
    path: PathBuf,
    rotation: Rotation,
    out: BufWriter<File>,
    octets: u64,
    /// When its first event happened, where that is known.
    begun: Option<Timestamp>,
    /// Whether it could not be rotated, which is said once.
    is_stuck: bool,
}

impl EventFile {
    /// Opens the file, or makes it.
    ///
    /// # Errors
    /// When it cannot be opened for appending.
    pub fn open(path: &Path, rotation: Rotation) -> io::Result<EventFile> {
        let (out, octets) = append_to(path)?;
        Ok(EventFile {
            path: path.to_owned(),
            rotation,
            out,
            octets,
            begun: first_event(path),
            is_stuck: false,
        })
    }

    /// Appends a line of now, to a new file if this one has grown enough or spans its share of the time.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn append(&mut self, now: Timestamp, line: &[u8]) -> io::Result<()> {
        self.end_span(now);
        let limit = self.rotation.limit;
        if limit > 0 && self.octets > 0 && self.octets + line.len() as u64 > limit {
            self.rotate();
        }
        self.out.write_all(line)?;
        self.begun.get_or_insert(now);
        self.octets += line.len() as u64;
        Ok(())
    }

    /// Hands what was appended to readers.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }

    /// Goes on in the file that has the name now, for whoever has renamed or removed the old one.
    ///
    /// # Errors
    /// When it cannot be opened; the old one stays in use then.
    pub fn reopen(&mut self) -> io::Result<()> {
        self.out.flush()?;
        (self.out, self.octets) = append_to(&self.path)?;
        self.begun = first_event(&self.path);
        Ok(())
    }

    /// Removes what is too old by now. Files go as a whole, so this one is set aside once it spans its share
    /// of the time.
    pub fn expire(&mut self, now: Timestamp) {
        let Some(longest) = self.rotation.longest else {
            return;
        };
        self.end_span(now);
        for number in 1..=self.rotation.kept {
            let older = self.older(number);
            if !is_past(first_event(&older), longest, now) {
                continue;
            }
            if let Err(error) = fs::remove_file(&older) {
                let path = older.display();
                warn!(%error, %path, "events that are too old cannot be removed");
            }
        }
    }

    fn end_span(&mut self, now: Timestamp) {
        if let Some(span) = self.rotation.span()
            && is_past(self.begun, span, now)
        {
            self.rotate();
        }
    }

    /// Events matter more than the size of their file: where it cannot be renamed, it grows.
    fn rotate(&mut self) {
        let rotated = self.out.flush().and_then(|()| self.shift());
        match rotated.and_then(|()| self.reopen()) {
            Ok(()) => self.is_stuck = false,
            Err(error) if !self.is_stuck => {
                self.is_stuck = true;
                let path = self.path.display();
                warn!(%error, %path, "the file of events cannot be rotated, and grows");
            }
            Err(_) => {}
        }
    }

    /// Renames the file and those before it, the oldest over whatever bears the last name.
    fn shift(&self) -> io::Result<()> {
        if self.rotation.kept == 0 {
            return fs::remove_file(&self.path);
        }
        for number in (1..self.rotation.kept).rev() {
            match fs::rename(self.older(number), self.older(number + 1)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        fs::rename(&self.path, self.older(1))
    }

    fn older(&self, number: u8) -> PathBuf {
        let mut name = OsString::from(&self.path);
        name.push(format!(".{number}"));
        name.into()
    }
}

fn append_to(path: &Path) -> io::Result<(BufWriter<File>, u64)> {
    let file = OpenOptions::new().create(true).append(true).open(path)?;
    let octets = file.metadata()?.len();
    Ok((BufWriter::new(file), octets))
}

/// Whether a time is at least this long ago. What is not known is not too old.
fn is_past(time: Option<Timestamp>, age: Duration, now: Timestamp) -> bool {
    time.is_some_and(|time| now.saturating_since(time) >= age)
}

/// When the first event of a file happened, if it says so.
fn first_event(path: &Path) -> Option<Timestamp> {
    #[derive(Deserialize)]
    struct Event {
        timestamp: String,
    }
    let mut line = Vec::new();
    let mut text = BufReader::new(File::open(path).ok()?).take(LONGEST_EVENT);
    text.read_until(b'\n', &mut line).ok()?;
    let event: Event = serde_json::from_slice(&line).ok()?;
    let instant: Instant = event.timestamp.parse().ok()?;
    let since_epoch = Duration::try_from(instant.as_duration()).ok()?;
    Some(Timestamp::after_origin(since_epoch))
}

/// Octets of a line that are read to learn its time.
const LONGEST_EVENT: u64 = 1 << 16;

#[cfg(test)]
mod tests {
    use super::*;

    /// A directory that goes with its test.
    struct Directory(PathBuf);

    impl Directory {
        fn new(name: &str) -> Directory {
            let name = format!("ftwall-events-{}-{name}", std::process::id());
            let path = std::env::temp_dir().join(name);
            fs::create_dir_all(&path).expect("the system has room");
            Directory(path)
        }

        fn log(&self) -> PathBuf {
            self.0.join("events.json")
        }

        /// Names and contents of all files.
        fn files(&self) -> Vec<(String, String)> {
            let entries = fs::read_dir(&self.0).expect("it exists");
            let mut files: Vec<_> = entries
                .map(|entry| {
                    let path = entry.expect("it can be read").path();
                    let name = path.file_name().expect("it has one").to_string_lossy();
                    (
                        name.into_owned(),
                        fs::read_to_string(&path).expect("it can be read"),
                    )
                })
                .collect();
            files.sort();
            files
        }
    }

    impl Drop for Directory {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    const fn of_size(limit: u64, kept: u8) -> Rotation {
        Rotation {
            limit,
            kept,
            longest: None,
        }
    }

    fn named(files: &[(&str, &str)]) -> Vec<(String, String)> {
        let owned = files
            .iter()
            .map(|(name, text)| ((*name).to_owned(), (*text).to_owned()));
        owned.collect()
    }

    #[test]
    fn a_file_that_has_grown_is_kept_and_the_oldest_goes() {
        let directory = Directory::new("rotation");
        let rotation = of_size(6, 2);
        let mut file = EventFile::open(&directory.log(), rotation).expect("it can be made");
        for line in ["one\n", "two\n", "3\n", "four\n", "five\n"] {
            file.append(Timestamp::ORIGIN, line.as_bytes())
                .expect("there is room");
        }
        file.flush().expect("there is room");
        let expected = [
            ("events.json", "five\n"),
            ("events.json.1", "four\n"),
            ("events.json.2", "two\n3\n"),
        ];
        assert_eq!(directory.files(), named(&expected));
    }

    #[test]
    fn what_a_file_held_before_counts_and_a_long_line_is_never_cut() {
        let directory = Directory::new("long");
        fs::write(directory.log(), "before\n").expect("there is room");
        let rotation = of_size(8, 1);
        let mut file = EventFile::open(&directory.log(), rotation).expect("it can be opened");
        file.append(Timestamp::ORIGIN, b"longer than the limit\n")
            .expect("there is room");
        file.flush().expect("there is room");
        let expected = [
            ("events.json", "longer than the limit\n"),
            ("events.json.1", "before\n"),
        ];
        assert_eq!(directory.files(), named(&expected));
    }

    #[test]
    fn nothing_older_stays_where_nothing_is_to_be_kept() {
        let directory = Directory::new("none");
        let rotation = of_size(4, 0);
        let mut file = EventFile::open(&directory.log(), rotation).expect("it can be made");
        for line in ["one\n", "two\n"] {
            file.append(Timestamp::ORIGIN, line.as_bytes())
                .expect("there is room");
        }
        file.flush().expect("there is room");
        assert_eq!(directory.files(), named(&[("events.json", "two\n")]));
    }

    #[test]
    fn no_event_outlives_its_days_and_none_goes_before_a_file_is_full_of_old_ones() {
        let directory = Directory::new("days");
        let rotation = Rotation {
            longest: Some(Duration::from_secs(3 * 86_400)),
            kept: 2,
            ..Rotation::NEVER
        };
        let at = |day: u64| Timestamp::from_secs(1_057_363_200 + day * 86_400);
        let event = |day| crate::control::events::line(at(day), &serde_json::json!({"day": day}));
        let mut file = EventFile::open(&directory.log(), rotation).expect("it can be made");
        let mut held_on = |day: u64| {
            file.append(at(day), event(day).as_bytes())
                .expect("there is room");
            file.flush().expect("there is room");
            file.expire(at(day));
            let files = directory.files().into_iter().rev();
            files
                .flat_map(|(_, text)| text.lines().map(str::to_owned).collect::<Vec<_>>())
                .map(|line| {
                    let line: serde_json::Value = serde_json::from_str(&line).expect("JSON");
                    line["day"].as_u64().expect("a day")
                })
                .collect::<Vec<_>>()
        };
        for (day, held) in [
            (0, vec![0]),
            (1, vec![0, 1]),
            (2, vec![0, 1, 2]),
            (9, vec![9]),
        ] {
            assert_eq!(held_on(day), held, "on day {day}");
        }
    }

    #[test]
    fn what_an_earlier_daemon_wrote_goes_too_even_if_no_new_event_comes() {
        let directory = Directory::new("quiet");
        let rotation = Rotation {
            longest: Some(Duration::from_secs(86_400)),
            kept: 0,
            ..Rotation::NEVER
        };
        let event = crate::control::events::line(Timestamp::ORIGIN, &serde_json::json!({}));
        fs::write(directory.log(), &event).expect("there is room");
        let mut file = EventFile::open(&directory.log(), rotation).expect("it can be opened");
        file.expire(Timestamp::from_secs(86_399));
        assert_eq!(directory.files(), named(&[("events.json", &event)]));
        file.expire(Timestamp::from_secs(86_400));
        assert_eq!(directory.files(), named(&[("events.json", "")]));
    }

    #[test]
    fn a_file_that_was_renamed_is_left_to_whoever_did_so() {
        let directory = Directory::new("reopened");
        let mut file = EventFile::open(&directory.log(), Rotation::NEVER).expect("it can be made");
        file.append(Timestamp::ORIGIN, b"one\n")
            .expect("there is room");
        fs::rename(directory.log(), directory.0.join("taken")).expect("it exists");
        file.append(Timestamp::ORIGIN, b"two\n")
            .expect("there is room");
        file.reopen().expect("it can be made");
        file.append(Timestamp::ORIGIN, b"three\n")
            .expect("there is room");
        file.flush().expect("there is room");
        let expected = [("events.json", "three\n"), ("taken", "one\ntwo\n")];
        assert_eq!(directory.files(), named(&expected));
    }

    #[test]
    fn a_file_that_cannot_be_renamed_grows() {
        let directory = Directory::new("stuck");
        let rotation = of_size(4, 1);
        let mut file = EventFile::open(&directory.log(), rotation).expect("it can be made");
        file.append(Timestamp::ORIGIN, b"one\n")
            .expect("there is room");
        // No file can be renamed over a directory.
        fs::create_dir(directory.0.join("events.json.1")).expect("there is room");
        file.append(Timestamp::ORIGIN, b"two\n")
            .expect("nothing is lost");
        file.flush().expect("there is room");
        let text = fs::read_to_string(directory.log()).expect("it can be read");
        assert_eq!(text, "one\ntwo\n");
    }
}
