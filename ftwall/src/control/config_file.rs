//! One source of settings: a configuration file, or what was typed.
//!
//! ```toml
//! inside = ["10.77.0.0/16"]
//! lock_time = "5m"
//! never_block = ["198.51.100.7:1214"]
//!
//! [[policy]]
//! name = "guests at night"
//! match = { subnet = "10.77.2.0/24" }
//! mode = "off"
//! schedule = { zone = "Europe/Berlin", windows = [{ from = "22:00", to = "06:00" }] }
//! ```
//!
//! What a source leaves out stays as it was. What it says wrongly is an error that names the place. The
//! keys are declared once, with their defaults and what the schema says of them.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnet::IpNet;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value, json};
use thiserror::Error;
use toml::Spanned;

use super::events::EventTarget;
use super::one_or_many::OneOrMany;
use super::privacy::Privacy;
use super::schedule::{Day, Schedule};
use super::setting::{
    BackendChoice, HttpListen, OptionalDirectory, SecretFile, Setting, Text, Textual as _,
    WebhookUrl, WholeSeconds,
};
use crate::config::{HostPolicy, LockedDials, Mode, NeverBlock, Reply, Strictness, private_ranges};
use crate::gateway::queue::{QueueReader, WhenOverloaded};
use crate::gateway::rules::{OpenPort, WhenDown};
use crate::{EngineConfig, HardwareAddress, InterfaceName};

/// Where a value comes from.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// The product as installed.
    Default,
    /// Nothing is configured yet: nothing is done yet.
    FirstStart,
    /// This line of this file.
    File(PathBuf, usize),
    /// What was typed.
    CommandLine,
}

impl fmt::Display for Source {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => formatter.write_str("default"),
            Self::FirstStart => formatter.write_str("nothing is configured yet"),
            Self::File(path, line) => write!(formatter, "{}:{line}", path.display()),
            Self::CommandLine => formatter.write_str("command line"),
        }
    }
}

/// A value, and where it comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Given<T> {
    /// The value.
    pub value: T,
    /// Where it comes from.
    pub source: Source,
}

impl<T> Given<T> {
    /// A value from this source.
    pub const fn new(value: T, source: Source) -> Self {
        Self { value, source }
    }
}

/// One line of a listing of settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// The key.
    pub key: &'static str,
    /// The value as JSON, which is TOML too for everything that stands here.
    pub value: Value,
    /// Where it comes from.
    pub source: Source,
}

/// Declares every key once: what it means, how it is written, and what holds if nobody says anything.
macro_rules! settings {
    ($($(#[doc = $doc:literal])+ $key:ident: $type:ty = $default:expr;)+) => {
        #[derive(Default, Deserialize)]
        #[serde(default, deny_unknown_fields)]
        struct Keys {
            schema_version: Option<Spanned<SchemaVersion>>,
            $($key: Option<Spanned<$type>>,)+
            policy: Vec<Spanned<PolicyEntry>>,
        }

        /// What one source says.
        #[derive(Clone, Debug, Default, PartialEq)]
        pub struct Layer {
            $($(#[doc = $doc])+ pub $key: Option<Given<$type>>,)+
            /// Entries of the policy, in order.
            pub policies: Vec<Given<PolicyEntry>>,
        }

        /// What all sources say together.
        #[derive(Clone, Debug, PartialEq)]
        pub struct Settings {
            $($(#[doc = $doc])+ pub $key: Given<$type>,)+
            /// Entries of the policy, in order.
            pub policies: Vec<Given<PolicyEntry>>,
            /// What the allow list's files add.
            pub allow_files: Vec<Given<NeverBlock>>,
        }

        impl Keys {
            fn layer(self, source: impl Fn(usize) -> Source) -> Layer {
                fn given<T>(written: Spanned<T>, source: impl Fn(usize) -> Source) -> Given<T> {
                    let source = source(written.span().start);
                    Given::new(written.into_inner(), source)
                }
                let policies = self.policy.into_iter();
                Layer {
                    $($key: self.$key.map(|written| given(written, &source)),)+
                    policies: policies.map(|written| given(written, &source)).collect(),
                }
            }
        }

        impl Layer {
            /// This source's word, and where it has none that of an `earlier` one. Lists of entries are
            /// put one behind the other.
            #[must_use]
            pub fn over(self, earlier: Self) -> Self {
                Self {
                    $($key: self.$key.or(earlier.$key),)+
                    policies: [earlier.policies, self.policies].concat(),
                }
            }

            /// Whether the source says nothing at all.
            #[must_use]
            pub fn is_empty(&self) -> bool {
                *self == Self::default()
            }

            /// What holds in the end.
            #[must_use]
            pub fn resolve(self) -> Settings {
                Settings {
                    $($key: self.$key.unwrap_or_else(|| Given::new($default, Source::Default)),)+
                    policies: self.policies,
                    allow_files: Vec::new(),
                }
            }
        }

        impl Settings {
            /// Every setting in the order of their declaration, without entries of lists.
            #[must_use]
            pub fn listing(&self) -> Vec<Listed> {
                vec![$(Listed {
                    key: stringify!($key),
                    value: as_json(&self.$key.value),
                    source: self.$key.source.clone(),
                }),+]
            }
        }

        /// What the schema says of each key.
        fn properties() -> Map<String, Value> {
            let mut properties = Map::new();
            $({
                let mut schema = <$type as Setting>::schema();
                let doc = [$($doc.trim()),+].join(" ");
                schema["description"] = doc.into();
                schema["default"] = as_json(&{ let default: $type = $default; default });
                properties.insert(stringify!($key).to_owned(), schema);
            })+
            properties
        }
    };
}

settings! {
    /// What is done about hosts of which no entry of the policy speaks.
    mode: Mode = Mode::Enforce;
    /// Networks of inside hosts.
    inside: Vec<Text<IpNet>> = texts(private_ranges());
    /// Hosts and networks whose packets never come to the daemon: a rule of the kernel passes them.
    exempt: Vec<Text<IpNet>> = Vec::new();
    /// Ends that are never judged nor learned, of all ports or of one.
    allow: Vec<Text<NeverBlock>> = Vec::new();
    /// Addresses never learned as peers; what they say is still judged.
    never_block: Vec<Text<NeverBlock>> = Vec::new();
    /// How long a host stays locked after the last evidence against it; 0 locks nobody.
    lock_time: Text<Duration> = Text(EngineConfig::default().lock_time);
    /// What to do with traffic of a locked host that nothing is known about.
    strictness: Strictness = EngineConfig::default().strictness;
    /// What to do when a locked host dials an address that has not proven itself.
    locked_dials: LockedDials = EngineConfig::default().locked_dials;
    /// What a client's ping is answered with, in the peer's name.
    reply: Reply = EngineConfig::default().reply;
    /// Whether a locked host is probed at half its lock time.
    reprobe: bool = EngineConfig::default().reprobe;
    /// Whether FastTrack datagrams are dropped; without it they still lock and teach.
    block_udp: bool = EngineConfig::default().block_udp;
    /// Peers that one host may teach within a minute.
    new_peers_per_minute: u32 = EngineConfig::default().new_peers_per_minute;
    /// How long a learned peer is remembered after the last evidence.
    peer_expiry: Text<Duration> = Text(EngineConfig::default().peer_expiry);
    /// Number of the first packet queue; each worker has two, one behind the other.
    queue: u16 = 0;
    /// Workers that share the inside hosts, each on a core of its own: 1, 2, 4 or 8.
    queues: u16 = 1;
    /// What queues packets; auto takes the first of nft, iptables-nft, iptables-legacy that works.
    backend: Text<BackendChoice> = Text(BackendChoice(None));
    /// Lowest of the six neighbouring bits of packet and connection marks that ftwall uses.
    mark_bit: u8 = 24;
    /// What to do with undecided packets while no daemon runs, or one hangs; those of locked hosts wait or are dropped anyway.
    when_down: Text<WhenDown> = Text(WhenDown::Pass);
    /// How long the daemon may give no sign of life before it hangs, in whole seconds; 0 waits for ever.
    hung_after: Text<WholeSeconds> = Text(WholeSeconds(DEFAULT_HUNG_AFTER));
    /// What to do with undecided packets that find a queue full, or that are too many of one host; those of locked hosts are dropped anyway.
    when_overloaded: Text<WhenOverloaded> = Text(WhenOverloaded::default());
    /// Whether connections from outside to hosts inside are dropped.
    block_inbound: bool = false;
    /// Ports of inside hosts that stay reachable then.
    open_port: Vec<Text<OpenPort>> = Vec::new();
    /// Who reads the packet queue: netlink answers many packets at once, nfq one by one.
    queue_reader: Text<QueueReader> = Text(QueueReader::default());
    /// How long to look for the next packet before sleeping, where there is more than one processor: for gateways with one to spare.
    busy_poll: Text<Duration> = Text(DEFAULT_BUSY_POLL);
    /// Where events go, one JSON object per line.
    events: Text<EventTarget> = Text(EventTarget::Stdout);
    /// MiB from which a file of events is set aside and a new one begun; 0 lets it grow.
    events_limit_mib: u32 = 64;
    /// Files of events that are kept then, as NAME.1, the youngest, and so on.
    events_kept: u8 = 4;
    /// Days after which an event goes, file by file and within the hour; 0 leaves it to their number and size.
    events_days: u16 = 0;
    /// How inside addresses stand in events: full, truncate (their /24), hash_daily (a name for a day).
    privacy: Privacy = Privacy::Full;
    /// Where the daemon listens for operators.
    control_socket: Text<PathBuf> = Text(DEFAULT_SOCKET.into());
    /// Where locks, peers and what was set by hand are kept over a restart; "" keeps nothing.
    state_directory: Text<OptionalDirectory> = Text(OptionalDirectory(Some(DEFAULT_STATE.into())));
    /// Where there is a file for each locked client, named by its address, for scripts; "" has none.
    client_directory: Text<OptionalDirectory> = Text(OptionalDirectory(None));
    /// Where metrics and a status page are served, to this machine only; off serves none.
    http_listen: Text<HttpListen> = Text(HttpListen::Off);
    /// Who is told of clients that were locked, as JSON in a POST; off tells nobody.
    webhook: Text<WebhookUrl> = Text(WebhookUrl(None));
    /// A file with the secret that deliveries are signed with; "" leaves them unsigned.
    webhook_secret_file: Text<SecretFile> = Text(SecretFile(None));
    /// For how long clients are gathered into one delivery, after the first.
    webhook_window: Text<Duration> = Text(DEFAULT_WEBHOOK_WINDOW);
}

/// An entry of the policy as it is written.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct PolicyEntry {
    /// What people call it.
    pub name: String,
    /// Which hosts it is about.
    #[serde(rename = "match")]
    pub matches: Match,
    /// What is done about them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<Mode>,
    /// How long they stay locked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lock_time: Option<Text<Duration>>,
    /// What to do with their unknown traffic once they are locked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub strictness: Option<Strictness>,
    /// When the entry holds; always if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub schedule: Option<Schedule>,
}

/// Which hosts an entry is about: those that every list names which says anything.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Match {
    /// Their networks.
    #[serde(default, skip_serializing_if = "OneOrMany::is_empty")]
    pub subnet: OneOrMany<IpNet>,
    /// The gateway's interfaces towards them.
    #[serde(default, skip_serializing_if = "OneOrMany::is_empty")]
    pub interface: OneOrMany<InterfaceName>,
    /// Their hardware addresses; of hosts behind another router, that router's.
    #[serde(default, skip_serializing_if = "OneOrMany::is_empty")]
    pub mac: OneOrMany<HardwareAddress>,
}

impl Match {
    /// Whether it is about nobody.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.subnet.is_empty() && self.interface.is_empty() && self.mac.is_empty()
    }
}

/// The only version there has been so far.
struct SchemaVersion;

impl<'de> Deserialize<'de> for SchemaVersion {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match u64::deserialize(deserializer)? {
            SCHEMA_VERSION => Ok(Self),
            other => Err(serde::de::Error::custom(format_args!(
                "this ftwall reads schema_version {SCHEMA_VERSION}, not {other}"
            ))),
        }
    }
}

/// Where a daemon listens unless told otherwise.
pub const DEFAULT_SOCKET: &str = "/run/ftwall/control.sock";

/// Longer than any round of a worker's takes, and no longer than a user waits without wondering.
const DEFAULT_HUNG_AFTER: Duration = Duration::from_secs(1);
/// Clients of one network often start together, and nobody wants a message each.
const DEFAULT_WEBHOOK_WINDOW: Duration = Duration::from_secs(10);

/// Where state is kept unless told otherwise, if it is there.
pub const DEFAULT_STATE: &str = "/var/lib/ftwall";
/// Where the ends share the processors with the gateway, looking costs them more than being woken costs it:
/// with two processors 50 us of it took 8 % off the rate of new connections.
const DEFAULT_BUSY_POLL: Duration = Duration::ZERO;

/// The version of the keys' meaning.
pub const SCHEMA_VERSION: u64 = 1;

/// A configuration cannot be read.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// A file cannot be read at all.
    #[error("{}: cannot read: {source}", file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A file says something that it must not.
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
    /// Settings contradict each other or the machine.
    #[error("{origin}: {message}")]
    Contradiction {
        /// Where the setting comes from that cannot stay.
        origin: Source,
        /// What is wrong.
        message: String,
    },
}

impl Layer {
    /// Reads a file.
    ///
    /// # Errors
    /// If there is no such file, or it says something that it must not.
    pub fn open(file: &Path) -> Result<Self, ConfigError> {
        Self::parse(file, &read(file)?)
    }

    /// Reads the text of `file`.
    ///
    /// # Errors
    /// If it says something that it must not.
    pub fn parse(file: &Path, text: &str) -> Result<Self, ConfigError> {
        let keys: Keys = toml::from_str(text).map_err(|error| {
            let span = error.span().unwrap_or(0..0);
            let (line, column) = place(text, span.start);
            let written = text.get(span).unwrap_or_default();
            ConfigError::Text {
                file: file.into(),
                line,
                column,
                message: explain(error.message(), written),
            }
        })?;
        Ok(keys.layer(|octet| Source::File(file.into(), place(text, octet).0)))
    }

    /// `base`, with everything that this source says of the engine instead. Schedules are taken as
    /// holding: a capture is judged by the policy, not by the clock.
    #[must_use]
    pub fn apply(&self, base: EngineConfig) -> EngineConfig {
        fn said<T: Clone>(given: &Option<Given<T>>, base: T) -> T {
            given.as_ref().map_or(base, |given| given.value.clone())
        }
        let policies = self.policies.iter().map(|entry| entry.value.host_policy());
        EngineConfig {
            mode: said(&self.mode, base.mode),
            inside: values(&said(&self.inside, texts(base.inside))),
            exempt: values(&said(&self.exempt, texts(base.exempt))),
            allow: values(&said(&self.allow, texts(base.allow))),
            never_block: values(&said(&self.never_block, texts(base.never_block))),
            lock_time: said(&self.lock_time, Text(base.lock_time)).0,
            strictness: said(&self.strictness, base.strictness),
            locked_dials: said(&self.locked_dials, base.locked_dials),
            reply: said(&self.reply, base.reply),
            reprobe: said(&self.reprobe, base.reprobe),
            block_udp: said(&self.block_udp, base.block_udp),
            new_peers_per_minute: said(&self.new_peers_per_minute, base.new_peers_per_minute),
            peer_expiry: said(&self.peer_expiry, Text(base.peer_expiry)).0,
            policies: if self.policies.is_empty() {
                base.policies
            } else {
                policies.collect()
            },
            ..base
        }
    }
}

impl PolicyEntry {
    /// What the engine is told while the entry holds.
    #[must_use]
    pub fn host_policy(&self) -> HostPolicy {
        HostPolicy {
            name: self.name.clone(),
            subnets: values(&self.matches.subnet.0),
            interfaces: values(&self.matches.interface.0),
            macs: values(&self.matches.mac.0),
            mode: self.mode,
            lock_time: self.lock_time.as_ref().map(|time| time.0),
            strictness: self.strictness,
        }
    }
}

/// The JSON schema of a configuration file, for editors and other programs that write one.
#[must_use]
pub fn schema() -> Value {
    let mut properties = Map::new();
    properties.insert("schema_version".into(), json!({ "const": SCHEMA_VERSION }));
    properties.extend(self::properties());
    let policy = json!({ "type": "array", "items": policy_schema() });
    properties.insert("policy".into(), policy);
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "ftwall.toml",
        "type": "object",
        "additionalProperties": false,
        "properties": properties,
    })
}

fn policy_schema() -> Value {
    let time = json!({ "type": "string", "pattern": "^[0-9]{2}:[0-9]{2}$" });
    let window = object(
        &["from", "to"],
        json!({
            "days": { "type": "array", "items": { "enum": Day::ALL } },
            "from": time,
            "to": time,
        }),
    );
    let schedule = json!({
        "zone": { "type": "string" },
        "windows": { "type": "array", "items": window },
    });
    let mut matches = object(
        &[],
        json!({
            "subnet": OneOrMany::<IpNet>::schema(),
            "interface": OneOrMany::<InterfaceName>::schema(),
            "mac": OneOrMany::<HardwareAddress>::schema(),
        }),
    );
    matches["minProperties"] = json!(1);
    object(
        &["name", "match"],
        json!({
            "name": { "type": "string" },
            "match": matches,
            "mode": Mode::schema(),
            "lock_time": <Text<Duration> as Setting>::schema(),
            "strictness": Strictness::schema(),
            "schedule": object(&["zone", "windows"], schedule),
        }),
    )
}

#[expect(
    clippy::needless_pass_by_value,
    reason = "json! makes values, not references"
)]
fn object(required: &[&str], properties: Value) -> Value {
    json!({
        "type": "object",
        "additionalProperties": false,
        "required": required,
        "properties": properties,
    })
}

/// Reads an allow list in plain text: an address, a network or an address with a port on each line;
/// `#` begins a comment.
///
/// # Errors
/// If there is no such file, or a line says something else.
pub fn read_allow_list(file: &Path) -> Result<Vec<Given<NeverBlock>>, ConfigError> {
    let text = read(file)?;
    let mut entries = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let entry = line.split('#').next().unwrap_or_default().trim();
        if entry.is_empty() {
            continue;
        }
        let value = NeverBlock::read(entry).map_err(|slip| ConfigError::Text {
            file: file.into(),
            line: index + 1,
            column: 1 + line.chars().take_while(|char| char.is_whitespace()).count(),
            message: format!("\"{entry}\": {slip}"),
        })?;
        entries.push(Given::new(value, Source::File(file.into(), index + 1)));
    }
    Ok(entries)
}

fn read(file: &Path) -> Result<String, ConfigError> {
    std::fs::read_to_string(file).map_err(|source| ConfigError::Read {
        file: file.into(),
        source,
    })
}

/// Values as they stand in a file.
pub(crate) fn texts<T>(values: Vec<T>) -> Vec<Text<T>> {
    values.into_iter().map(Text).collect()
}

/// Values out of a file.
pub(crate) fn values<T: Clone>(texts: &[Text<T>]) -> Vec<T> {
    texts.iter().map(|text| text.0.clone()).collect()
}

fn as_json(value: &impl Serialize) -> Value {
    serde_json::to_value(value).expect("settings are texts, numbers and lists of them")
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
    let expected = message
        .strip_prefix("unknown field ")
        .and_then(|rest| rest.split_once(", expected "));
    let Some((_, expected)) = expected else {
        return message.lines().collect::<Vec<_>>().join(" ");
    };
    // Every other piece between backquotes is a name.
    let known: Vec<&str> = expected.split('`').skip(1).step_by(2).collect();
    let likeness = |known: &&str| (strsim::jaro_winkler(key, known) * 1000.0) as u32;
    let nearest = known.iter().copied().max_by_key(likeness);
    match nearest.filter(|nearest| likeness(nearest) >= LEAST_LIKENESS) {
        Some(nearest) => format!("there is no key \"{key}\": did you mean {nearest}?"),
        None => format!("there is no key \"{key}\": there are {}", known.join(", ")),
    }
}

/// In thousandths: below this a guess confuses more than it helps.
const LEAST_LIKENESS: u32 = 750;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::values::{parse_net, parse_never_block};

    #[test]
    fn every_key_of_the_engine_says_what_its_option_says() {
        let config = parse(EVERY_ENGINE_KEY)
            .expect("all of it is documented")
            .apply(EngineConfig::default());
        assert_eq!(config.mode, Mode::Monitor);
        assert_eq!(config.inside, [parse_net("10.77.0.0/16").unwrap()]);
        assert_eq!(config.exempt, [parse_net("10.77.9.9").unwrap()]);
        assert_eq!(config.allow, [parse_never_block("192.0.2.7").unwrap()]);
        assert_eq!(config.lock_time, Duration::from_secs(300));
        assert_eq!(config.strictness, Strictness::Strict);
        assert_eq!(config.locked_dials, LockedDials::Watch);
        assert_eq!(config.reply, Reply::Pong2);
        assert!(!config.reprobe && !config.block_udp);
        let never_block = [parse_never_block("198.51.100.7:1214").unwrap()];
        assert_eq!(config.never_block, never_block);
        assert_eq!(config.new_peers_per_minute, 7);
        assert_eq!(config.peer_expiry, Duration::from_secs(90));
        let guests = HostPolicy {
            name: "guests".into(),
            subnets: vec![parse_net("10.77.2.0/24").unwrap()],
            interfaces: vec!["guest0".parse().unwrap()],
            macs: vec![
                HardwareAddress([2, 0, 0, 0, 0, 1]),
                HardwareAddress([2, 0, 0, 0, 0, 2]),
            ],
            mode: Some(Mode::Off),
            lock_time: Some(Duration::from_secs(60)),
            strictness: None,
        };
        assert_eq!(config.policies, [guests]);
    }

    #[test]
    fn what_a_file_leaves_out_stays_as_it_was() {
        let base = EngineConfig {
            lock_time: Duration::from_secs(9),
            ..EngineConfig::default()
        };
        let changed = parse("reply = \"none\"").unwrap().apply(base.clone());
        let expected = EngineConfig {
            reply: Reply::None,
            ..base
        };
        assert_eq!(changed, expected);
    }

    #[test]
    fn the_later_word_counts_and_entries_of_the_policy_add_up() {
        let entry = |name: &str| {
            format!("[[policy]]\nname = \"{name}\"\nmatch = {{ subnet = \"10.77.2.0/24\" }}\n")
        };
        let first = parse(&format!("lock_time = 60\nqueue = 3\n{}", entry("one"))).unwrap();
        let later = parse(&format!("\nlock_time = 90\n{}", entry("two"))).unwrap();
        let settings = later.over(first).resolve();
        let from = |line| Source::File("ftwall.toml".into(), line);
        assert_eq!(
            settings.lock_time,
            Given::new(Text(Duration::from_secs(90)), from(2))
        );
        assert_eq!(settings.queue, Given::new(3, from(2)));
        assert_eq!(settings.peer_expiry.source, Source::Default);
        let entries = settings.policies.iter();
        let names: Vec<_> = entries.map(|entry| entry.value.name.as_str()).collect();
        assert_eq!(names, ["one", "two"]);
    }

    #[test]
    fn what_nobody_says_is_the_product_as_installed() {
        let said = Layer::default().resolve().listing();
        let file: String = said
            .iter()
            .map(|listed| format!("{} = {}\n", listed.key, listed.value))
            .collect();
        let defaults = parse(&file).expect("a listing is a file");
        assert_eq!(
            defaults.apply(EngineConfig::default()),
            EngineConfig::default()
        );
    }

    #[test]
    fn the_schema_names_every_key() {
        let schema = schema();
        let known = schema["properties"].as_object().expect("an object");
        for listed in Layer::default().resolve().listing() {
            assert_eq!(known[listed.key]["default"], listed.value);
            assert!(known[listed.key]["description"].is_string());
        }
        assert!(known.contains_key("policy") && known.contains_key("schema_version"));
    }

    #[test]
    fn an_allow_list_may_have_comments_and_names_the_line_that_is_wrong() {
        let file = std::env::temp_dir().join(format!("ftwall-allow-{}.list", std::process::id()));
        std::fs::write(
            &file,
            "# the bank\n198.51.100.7  # its web\n\n192.0.2.0/24\n",
        )
        .unwrap();
        let entries = read_allow_list(&file).unwrap();
        let written: Vec<_> = entries
            .iter()
            .map(|entry| entry.value.to_string())
            .collect();
        assert_eq!(written, ["198.51.100.7", "192.0.2.0/24"]);
        assert_eq!(entries[1].source, Source::File(file.clone(), 4));
        std::fs::write(&file, "198.51.100.7\n  bank.example\n").unwrap();
        let message = read_allow_list(&file).unwrap_err().to_string();
        assert!(
            message.contains(":2:3: \"bank.example\": neither"),
            "{message}"
        );
        std::fs::remove_file(file).unwrap();
    }

    #[test]
    fn a_file_that_is_not_there_is_named() {
        let message = Layer::open(Path::new("/nonexistent/p.toml"))
            .unwrap_err()
            .to_string();
        assert!(
            message.starts_with("/nonexistent/p.toml: cannot read"),
            "{message}"
        );
    }

    const EVERY_ENGINE_KEY: &str = r#"
schema_version = 1
mode = "monitor"
inside = ["10.77.0.0/16"]
exempt = ["10.77.9.9"]
allow = ["192.0.2.7"]
lock_time = "5m"
strictness = "strict"
locked_dials = "watch"
reply = "pong2"
reprobe = false
block_udp = false
never_block = ["198.51.100.7:1214"]
new_peers_per_minute = 7
peer_expiry = 90

[[policy]]
name = "guests"
mode = "off"
lock_time = 60

[policy.match]
subnet = "10.77.2.0/24"
interface = "guest0"
mac = ["02:00:00:00:00:01", "02-00-00-00-00-02"]
"#;

    fn parse(text: &str) -> Result<Layer, ConfigError> {
        Layer::parse(Path::new("ftwall.toml"), text)
    }
}
