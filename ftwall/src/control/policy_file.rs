//! The policy as a TOML file: the command line's options under the same names, in snake case.
//!
//! ```toml
//! inside = ["10.77.0.0/16"]
//! lock_time = "5m"
//! strictness = "strict"
//! never_block = ["198.51.100.7:1214"]
//! ```
//!
//! What a file leaves out stays as it was. What it says wrongly is an error that names the place.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnet::IpNet;
use serde::de::{self, Deserialize, Deserializer, Unexpected, Visitor};
use thiserror::Error;

use super::values::{parse_duration, parse_net, parse_never_block};
use crate::EngineConfig;
use crate::config::{LockedDials, NeverBlock, Reply, Strictness};

/// What a file says about the policy.
#[derive(Debug, Clone, PartialEq, Eq, Default, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PolicyFile {
    inside: Option<Vec<Net>>,
    exempt: Option<Vec<Net>>,
    lock_time: Option<Time>,
    strictness: Option<Strictness>,
    locked_dials: Option<LockedDials>,
    reply: Option<Reply>,
    reprobe: Option<bool>,
    block_udp: Option<bool>,
    never_block: Option<Vec<Never>>,
    new_peers_per_minute: Option<u32>,
    peer_expiry: Option<Time>,
}

/// Every key, to find the nearest to one that does not exist.
const KEYS: [&str; 11] = [
    "inside",
    "exempt",
    "lock_time",
    "strictness",
    "locked_dials",
    "reply",
    "reprobe",
    "block_udp",
    "never_block",
    "new_peers_per_minute",
    "peer_expiry",
];

/// A policy cannot be read.
#[derive(Debug, Error)]
pub enum PolicyError {
    /// The file cannot be read at all.
    #[error("{}: cannot read: {source}", file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The file says something that it must not.
    #[error("{}:{line}:{column}: {message}", file.display())]
    Text {
        /// The file.
        file: PathBuf,
        /// Where, counted from 1.
        line: usize,
        /// Where in this line, in characters, counted from 1.
        column: usize,
        /// What is wrong, and what to write instead where that can be told.
        message: String,
    },
}

impl PolicyFile {
    /// Reads a file.
    ///
    /// # Errors
    /// If there is no such file, or it says something that it must not.
    pub fn open(file: &Path) -> Result<Self, PolicyError> {
        let text = std::fs::read_to_string(file).map_err(|source| PolicyError::Read {
            file: file.into(),
            source,
        })?;
        Self::parse(file, &text)
    }

    /// Reads the text of `file`.
    ///
    /// # Errors
    /// If it says something that it must not.
    pub fn parse(file: &Path, text: &str) -> Result<Self, PolicyError> {
        toml::from_str(text).map_err(|error| {
            let span = error.span().unwrap_or(0..0);
            let (line, column) = place(text, span.start);
            let written = text.get(span).unwrap_or_default();
            PolicyError::Text {
                file: file.into(),
                line,
                column,
                message: explain(error.message(), written),
            }
        })
    }

    /// `base`, with everything that the file says instead.
    #[must_use]
    pub fn apply(&self, base: EngineConfig) -> EngineConfig {
        let time = |time: &Option<Time>, base| time.as_ref().map_or(base, |time| time.0);
        EngineConfig {
            inside: nets(self.inside.as_deref(), base.inside),
            exempt: nets(self.exempt.as_deref(), base.exempt),
            lock_time: time(&self.lock_time, base.lock_time),
            strictness: self.strictness.unwrap_or(base.strictness),
            locked_dials: self.locked_dials.unwrap_or(base.locked_dials),
            reply: self.reply.unwrap_or(base.reply),
            reprobe: self.reprobe.unwrap_or(base.reprobe),
            block_udp: self.block_udp.unwrap_or(base.block_udp),
            never_block: match &self.never_block {
                Some(never) => never.iter().map(|never| never.0).collect(),
                None => base.never_block,
            },
            new_peers_per_minute: self
                .new_peers_per_minute
                .unwrap_or(base.new_peers_per_minute),
            peer_expiry: time(&self.peer_expiry, base.peer_expiry),
            ..base
        }
    }
}

fn nets(written: Option<&[Net]>, base: Vec<IpNet>) -> Vec<IpNet> {
    written.map_or(base, |nets| nets.iter().map(|net| net.0).collect())
}

/// Line and column of an octet, both counted from 1.
fn place(text: &str, octet: usize) -> (usize, usize) {
    let before = text.get(..octet).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |end| end + 1);
    let line = 1 + before.matches('\n').count();
    (line, 1 + before[line_start..].chars().count())
}

/// TOML's message; for a key that does not exist, the nearest one that does.
fn explain(message: &str, written: &str) -> String {
    let key = written.trim_matches(['"', '\'']);
    if !message.starts_with("unknown field") || KEYS.contains(&key) {
        return message.lines().collect::<Vec<_>>().join(" ");
    }
    let likeness = |known: &&str| (strsim::jaro_winkler(key, known) * 1000.0) as u32;
    let nearest = KEYS.iter().copied().max_by_key(likeness);
    match nearest.filter(|nearest| likeness(nearest) >= LEAST_LIKENESS) {
        Some(nearest) => format!("there is no key \"{key}\": did you mean {nearest}?"),
        None => format!("there is no key \"{key}\"; there are {}", KEYS.join(", ")),
    }
}

/// In thousandths: below this a guess confuses more than it helps.
const LEAST_LIKENESS: u32 = 750;

/// A network as the command line writes it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Net(IpNet);

impl<'de> Deserialize<'de> for Net {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let written = Written {
            expected: "a network as text",
            read: |text| parse_net(text).map(Self),
            count: None,
        };
        deserializer.deserialize_any(written)
    }
}

/// An address or network that is never learned.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Never(NeverBlock);

impl<'de> Deserialize<'de> for Never {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let written = Written {
            expected: "an address or network as text",
            read: |text| parse_never_block(text).map(Self),
            count: None,
        };
        deserializer.deserialize_any(written)
    }
}

/// A duration: text as on the command line, or a number of seconds.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Time(Duration);

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let written = Written {
            expected: "a duration: \"120s\", \"5m\" or \"2h\", or 0 for none",
            read: |text| parse_duration(text).map(Self),
            count: Some(|seconds| Self(Duration::from_secs(seconds))),
        };
        deserializer.deserialize_any(written)
    }
}

/// Reads a value while its place in the file is still known: an error from a visitor names it.
struct Written<T> {
    expected: &'static str,
    read: fn(&str) -> Result<T, String>,
    /// What a number stands for, where one may be written.
    count: Option<fn(u64) -> T>,
}

impl<T> Visitor<'_> for Written<T> {
    type Value = T;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.expected)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
        (self.read)(text).map_err(|slip| E::custom(format_args!("\"{text}\": {slip}")))
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<T, E> {
        let unexpected = || E::invalid_type(Unexpected::Signed(number), &self);
        let count = u64::try_from(number).map_err(|_| unexpected())?;
        self.count
            .map(|stands_for| stands_for(count))
            .ok_or_else(unexpected)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_says_what_its_option_says() {
        let config = parse(EVERY_KEY)
            .expect("all of it is documented")
            .apply(EngineConfig::default());
        assert_eq!(config.inside, [parse_net("10.77.0.0/16").unwrap()]);
        assert_eq!(config.exempt, [parse_net("10.77.9.9").unwrap()]);
        assert_eq!(config.lock_time, Duration::from_secs(300));
        assert_eq!(config.strictness, Strictness::Strict);
        assert_eq!(config.locked_dials, LockedDials::Watch);
        assert_eq!(config.reply, Reply::Pong2);
        assert!(!config.reprobe && !config.block_udp);
        assert_eq!(
            config.never_block,
            [parse_never_block("198.51.100.7:1214").unwrap()]
        );
        assert_eq!(config.new_peers_per_minute, 7);
        assert_eq!(config.peer_expiry, Duration::from_secs(90));
    }

    #[test]
    fn the_list_of_keys_is_complete() {
        let mut written: Vec<_> = EVERY_KEY
            .lines()
            .filter_map(|line| Some(line.split_once(" =")?.0))
            .collect();
        assert_eq!(written, KEYS);
        written.push("other");
        let message = parse("other = 1").unwrap_err().to_string();
        assert!(message.ends_with(&KEYS.join(", ")), "{message}");
    }

    #[test]
    fn what_a_file_leaves_out_stays_as_it_was() {
        let base = EngineConfig {
            lock_time: Duration::from_secs(9),
            ..EngineConfig::default()
        };
        let changed = parse("reply = \"none\"").unwrap().apply(base.clone());
        assert_eq!(
            changed,
            EngineConfig {
                reply: Reply::None,
                ..base
            }
        );
    }

    #[test]
    fn a_slip_is_named_with_its_place_and_what_was_meant() {
        let cases = [
            (
                "\nlocktime = 5",
                "p.toml:2:1: there is no key \"locktime\": did you mean lock_time?",
            ),
            ("strictness = \"lax\"", "p.toml:1:14: unknown variant `lax`"),
            (
                "inside = [\"10.0.0.0/8\", \"10.77.1.1/16\"]",
                "did you mean 10.77.0.0/16?",
            ),
            (
                "reply = \"pong\"\nlock_time = \"soon\"",
                "p.toml:2:13: \"soon\": not a duration",
            ),
            (
                "lock_time = -1",
                "p.toml:1:13: invalid type: integer `-1`, expected a duration",
            ),
            (
                "never_block = [\n  \"bank.example\",\n]",
                "p.toml:2:3: \"bank.example\": neither",
            ),
            ("reprobe = yes", "p.toml:1:11: "),
            (
                "reprobe = true\nreprobe = false",
                "p.toml:2:1: duplicate key",
            ),
        ];
        for (text, expected) in cases {
            let message = parse(text).unwrap_err().to_string();
            assert!(message.contains(expected), "{text:?}: {message}");
            assert_eq!(message.lines().count(), 1, "{message}");
        }
    }

    #[test]
    fn a_file_that_is_not_there_is_named() {
        let message = PolicyFile::open(Path::new("/nonexistent/p.toml"))
            .unwrap_err()
            .to_string();
        assert!(
            message.starts_with("/nonexistent/p.toml: cannot read"),
            "{message}"
        );
    }

    const EVERY_KEY: &str = r#"
inside = ["10.77.0.0/16"]
exempt = ["10.77.9.9"]
lock_time = "5m"
strictness = "strict"
locked_dials = "watch"
reply = "pong2"
reprobe = false
block_udp = false
never_block = ["198.51.100.7:1214"]
new_peers_per_minute = 7
peer_expiry = 90
"#;

    fn parse(text: &str) -> Result<PolicyFile, PolicyError> {
        PolicyFile::parse(Path::new("p.toml"), text)
    }
}
