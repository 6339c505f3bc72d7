//! Reading the file when the daemon starts. Nothing that stands in it can keep a daemon from starting: what
//! is whole is used, and what is not is set aside for whoever wants to know.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, ErrorKind, Read as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use thiserror::Error;

use super::fact::{Fact, Kept, Key};
use super::line::{BadLine, End, Record};
use super::{DAMAGED, FILE, VERSION};
use crate::Timestamp;

/// Octets of the longest file that is read: a full snapshot and its journal take less.
const MAX_OCTETS: u64 = 128 << 20;

/// With what a file begins; a space and the version follow.
pub(super) const MAGIC: &str = "ftwall-state";

/// What a state directory held.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// What is known.
    pub kept: Vec<Kept>,
    /// What could not be used, and where it is now.
    pub set_aside: Option<SetAside>,
}

/// A file that could not be used, or not as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetAside {
    /// What is wrong with it, where it is now, and what was used of it.
    pub message: String,
}

/// What is wrong with a file.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Damage {
    /// It cannot be opened or read.
    #[error("it cannot be read: {0}")]
    Unreadable(String),
    /// Nothing stands in it.
    #[error("it is empty")]
    Empty,
    /// Somebody else has written it.
    #[error("it is not a state file of ftwall")]
    Foreign,
    /// A later ftwall has written it.
    #[error("it is of version {0}, and this ftwall knows versions up to {VERSION}")]
    Future(u32),
    /// It is longer than any that ftwall writes.
    #[error("it is longer than {} MiB", MAX_OCTETS >> 20)]
    TooLong,
    /// A line is not what was written.
    #[error("line {line} is damaged")]
    Damaged {
        /// Which, counted from 1.
        line: usize,
    },
    /// The last line has no end: the machine or the disk gave up while it was written.
    #[error("line {line} is cut off")]
    CutOff {
        /// Which, counted from 1.
        line: usize,
    },
    /// A line says something that this version does not know.
    #[error("line {line} says something that this ftwall does not know")]
    Unknown {
        /// Which, counted from 1.
        line: usize,
    },
}

/// Reads the file of a state directory at `now` by the wall clock, and sets it aside if it is damaged. A
/// directory or file that is not there holds nothing.
#[must_use]
pub fn open(directory: &Path, now: Timestamp) -> Found {
    let file = directory.join(FILE);
    let (kept, damage) = match read(&file) {
        Ok(None) => return Found::default(),
        Ok(Some(octets)) => parse(&octets, now),
        Err(damage) => (Vec::new(), Some(damage)),
    };
    let set_aside = damage.map(|damage| set_aside(&file, &directory.join(DAMAGED), &damage, &kept));
    Found { kept, set_aside }
}

fn read(file: &Path) -> Result<Option<Vec<u8>>, Damage> {
    let unreadable = |error: io::Error| Damage::Unreadable(error.to_string());
    let opened = match File::open(file) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        opened => opened.map_err(unreadable)?,
    };
    let mut octets = Vec::new();
    let longest = opened.take(MAX_OCTETS + 1).read_to_end(&mut octets);
    longest.map_err(unreadable)?;
    if octets.len() as u64 > MAX_OCTETS {
        return Err(Damage::TooLong);
    }
    Ok(Some(octets))
}

fn set_aside(file: &Path, aside: &PathBuf, damage: &Damage, kept: &[Kept]) -> SetAside {
    let used = match kept.len() {
        0 => "nothing of it is used".to_owned(),
        1 => "1 entry before that is used".to_owned(),
        count => format!("{count} entries before that are used"),
    };
    let whereabouts = match std::fs::rename(file, aside) {
        Ok(()) => format!("it is now {}", aside.display()),
        Err(error) => format!("it cannot be set aside: {error}"),
    };
    let message = format!("{}: {damage}; {used}; {whereabouts}", file.display());
    SetAside { message }
}

/// What a file says at `now` by the wall clock, as far as it is whole, and what is wrong with the rest.
#[must_use]
pub fn parse(octets: &[u8], now: Timestamp) -> (Vec<Kept>, Option<Damage>) {
    let mut lines = octets.split_inclusive(|octet| *octet == b'\n');
    if let Err(damage) = check_header(lines.next()) {
        return (Vec::new(), Some(damage));
    }
    let mut facts = BTreeMap::new();
    let damage = lines
        .enumerate()
        .find_map(|(index, line)| apply(&mut facts, index + 2, line).err());
    let lasting = facts.into_values();
    let kept = lasting.filter_map(|(fact, end)| keep(fact, end, now));
    (kept.collect(), damage)
}

fn check_header(line: Option<&[u8]>) -> Result<(), Damage> {
    let line = line.ok_or(Damage::Empty)?;
    let text = str::from_utf8(line).map_err(|_| Damage::Foreign)?;
    let version = text.strip_prefix(MAGIC).and_then(|rest| {
        let number = rest.strip_prefix(' ')?.strip_suffix('\n')?;
        number.parse().ok()
    });
    match version {
        None | Some(0) => Err(Damage::Foreign),
        Some(VERSION) => Ok(()),
        Some(later) => Err(Damage::Future(later)),
    }
}

type Facts = BTreeMap<Key, (Fact, Option<End>)>;

fn apply(facts: &mut Facts, number: usize, line: &[u8]) -> Result<(), Damage> {
    let whole = line
        .strip_suffix(b"\n")
        .ok_or(Damage::CutOff { line: number })?;
    let record = Record::read(whole).map_err(|bad| match bad {
        BadLine::Damaged => Damage::Damaged { line: number },
        BadLine::Unknown => Damage::Unknown { line: number },
    })?;
    match record {
        Record::Keep { what, end } => facts.insert(what.key(), (what, end)),
        Record::Forget(key) => facts.remove(&key),
    };
    Ok(())
}

/// What is left of a fact. A wall clock that was set back must not make it last longer than it had left.
fn keep(fact: Fact, end: Option<End>, now: Timestamp) -> Option<Kept> {
    let Some(end) = end else {
        return Some(Kept { fact, left: None });
    };
    let left = Timestamp::from_millis(end.ends_ms).saturating_since(now);
    let left = left.min(Duration::from_millis(end.left_ms));
    let lasts = !left.is_zero();
    lasts.then_some(Kept {
        fact,
        left: Some(left),
    })
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use proptest::prelude::*;

    use super::*;
    use crate::Origin;

    const NOW: Timestamp = Timestamp::from_secs(1_790_000_000);

    #[test]
    fn every_kind_of_broken_file_is_told_in_its_own_words_and_costs_nothing_else() {
        let good = file(&[keep_line(1, 60), keep_line(2, 60)]);
        let cut = good[..good.len() - 9].to_vec();
        let mut rotten = good.clone();
        let in_the_second_record = good.len() - 20;
        rotten[in_the_second_record] ^= 1;
        let unknown = file(&[keep_line(1, 60), line(r#"{"dream":{"of":"sheep"}}"#)]);
        let cases: [(&str, Vec<u8>, &str, usize); 13] = [
            ("empty", b"".into(), "it is empty", 0),
            (
                "spaces",
                b" \n".into(),
                "it is not a state file of ftwall",
                0,
            ),
            (
                "somebody else's",
                b"{\"version\": 1}\n".into(),
                "it is not a state file of ftwall",
                0,
            ),
            (
                "binary",
                vec![0xff; 4096],
                "it is not a state file of ftwall",
                0,
            ),
            (
                "a header cut off",
                b"ftwall-sta".into(),
                "it is not a state file of ftwall",
                0,
            ),
            (
                "a header without an end",
                b"ftwall-state 1".into(),
                "it is not a state file of ftwall",
                0,
            ),
            (
                "version zero",
                b"ftwall-state 0\n".into(),
                "it is not a state file of ftwall",
                0,
            ),
            (
                "the future",
                b"ftwall-state 2\nwhatever\n".into(),
                "it is of version 2, and this ftwall knows versions up to 1",
                0,
            ),
            ("cut off", cut, "line 3 is cut off", 1),
            ("one wrong bit", rotten, "line 3 is damaged", 1),
            (
                "a lost line end",
                good[..good.len() - 1].into(),
                "line 3 is cut off",
                1,
            ),
            (
                "an empty line",
                [good.clone(), b"\n".into()].concat(),
                "line 4 is damaged",
                2,
            ),
            (
                "more than is understood",
                unknown,
                "line 3 says something that this ftwall does not know",
                1,
            ),
        ];
        for (name, octets, words, used) in cases {
            let (kept, damage) = parse(&octets, NOW);
            assert_eq!(damage.expect("it is broken").to_string(), words, "{name}");
            assert_eq!(kept.len(), used, "{name}");
        }
        assert_eq!(parse(&good, NOW).1, None);
    }

    #[test]
    fn a_broken_file_is_set_aside_with_its_message_and_the_next_start_finds_none() {
        let directory = directory("aside");
        std::fs::write(directory.join(FILE), b"ftwall-state 9\n").expect("room is left");
        let found = open(&directory, NOW);
        let place = directory.display();
        let message = format!(
            "{place}/state: it is of version 9, and this ftwall knows versions up to 1; \
            nothing of it is used; it is now {place}/state.damaged"
        );
        assert_eq!(found.set_aside, Some(SetAside { message }));
        let aside = std::fs::read(directory.join(DAMAGED)).expect("it was set aside");
        assert_eq!(aside, b"ftwall-state 9\n");
        assert_eq!(open(&directory, NOW), Found::default());
        // Something else in its place is set aside, too.
        std::fs::create_dir(directory.join(FILE)).expect("room is left");
        std::fs::remove_file(directory.join(DAMAGED)).expect("it is there");
        let message = open(&directory, NOW).set_aside.expect("no file").message;
        assert!(
            message.contains("it cannot be read: Is a directory"),
            "{message}"
        );
        std::fs::remove_dir_all(directory).expect("it is ours");
    }

    #[test]
    fn what_was_forgotten_or_has_ended_is_not_kept() {
        let forgotten = line(r#"{"forget":{"lock":{"host":"10.77.1.1"}}}"#);
        let octets = file(&[
            keep_line(1, 60),
            keep_line(2, 60),
            keep_line(3, 5),
            forgotten,
        ]);
        let later = NOW + Duration::from_secs(5);
        let (kept, damage) = parse(&octets, later);
        assert_eq!(damage, None);
        assert_eq!(kept, [lock(2, 55)]);
    }

    #[test]
    fn a_wall_clock_that_was_set_back_makes_nothing_last_longer() {
        let octets = file(&[keep_line(1, 60)]);
        let (kept, _) = parse(&octets, Timestamp::from_secs(1));
        assert_eq!(kept, [lock(1, 60)]);
    }

    proptest! {
        #[test]
        fn whatever_stands_in_a_file_it_is_read_or_refused(
            octets in proptest::collection::vec(any::<u8>(), 0..200),
        ) {
            let _ = parse(&octets, NOW);
            let _ = parse(&[file(&[keep_line(1, 60)]), octets].concat(), NOW);
        }
    }

    fn lock(number: u8, seconds: u64) -> Kept {
        let host = Ipv4Addr::new(10, 77, 1, number);
        let origin = Origin::Operator;
        Kept {
            fact: Fact::Lock { host, origin },
            left: Some(Duration::from_secs(seconds)),
        }
    }

    fn keep_line(number: u8, seconds: u64) -> Vec<u8> {
        let ends = NOW + Duration::from_secs(seconds);
        let mut text = Vec::new();
        let end = End {
            ends_ms: ends.since_origin().as_millis() as u64,
            left_ms: seconds * 1000,
        };
        let record = Record::Keep {
            what: lock(number, seconds).fact,
            end: Some(end),
        };
        record.write(&mut text);
        text
    }

    /// A line with a checksum that fits, whatever it says.
    fn line(json: &str) -> Vec<u8> {
        format!(
            "{:08x} {json}\n",
            super::super::line::crc32(json.as_bytes())
        )
        .into_bytes()
    }

    fn file(lines: &[Vec<u8>]) -> Vec<u8> {
        [format!("{MAGIC} {VERSION}\n").into_bytes(), lines.concat()].concat()
    }

    fn directory(name: &str) -> PathBuf {
        let name = format!("ftwall-state-{}-{name}", std::process::id());
        let directory = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&directory).expect("room is left");
        directory
    }
}
