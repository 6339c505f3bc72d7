//! The whole configuration: files, drop-ins, allow lists and what was typed, put together and checked.
//!
//! ```text
//! /etc/ftwall/ftwall.toml         first
//! /etc/ftwall/conf.d/*.toml       in the order of their names; the later word counts
//! /etc/ftwall/allow.d/*.list      added to the allow list
//! command line                    last
//! ```

use std::fmt::Write as _;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnet::{IpNet, Ipv4Net};
use serde_json::{Value, json};

use super::config_file::{ConfigError, Given, Layer, Settings, Source, read_allow_list, values};
use super::event_file::Rotation;
use super::events::EventOutput;
use super::schedule::Schedule;
use crate::config::{Mode, NeverBlock};
use crate::gateway::backend::Backend;
use crate::gateway::fan_out::{FanOut, FanOutError, Shards};
use crate::gateway::marks::{MarkField, MarkFieldError};
use crate::gateway::rules::{InboundBlock, PayloadTest, RuleSettings};
use crate::protocol::{HARMLESS_SHAPES, PROTOCOLS};
use crate::{EngineConfig, Timestamp};

/// Where the configuration is looked for unless told otherwise.
pub const DEFAULT_FILE: &str = "/etc/ftwall/ftwall.toml";

/// Everything that was configured, checked.
#[derive(Clone, Debug, PartialEq)]
pub struct Configuration {
    settings: Settings,
    files: Vec<PathBuf>,
}

/// Who is told of clients that were locked, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hook {
    /// Where a POST goes.
    pub url: String,
    /// What it is signed with.
    pub secret_file: Option<PathBuf>,
    /// For how long clients are gathered, after the first.
    pub window: Duration,
}

/// Which files to read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Files {
    /// None: what was typed is everything.
    None,
    /// The usual one if it is there, and what belongs to it.
    Usual,
    /// This one, which must be there, and what belongs to it.
    Named(PathBuf),
}

impl Configuration {
    /// Reads the files and puts what was typed over them.
    ///
    /// # Errors
    /// When a file cannot be read or something in it is wrong, or settings contradict each other.
    pub fn load(files: &Files, typed: Layer) -> Result<Self, ConfigError> {
        let (main, must_exist) = match files {
            Files::None => return Self::of(typed, Vec::new(), Vec::new()),
            Files::Usual => (PathBuf::from(DEFAULT_FILE), false),
            Files::Named(file) => (file.clone(), true),
        };
        let directory = main.parent().unwrap_or(Path::new(".")).to_owned();
        let mut read = Vec::new();
        let mut layers = Layer::default();
        if must_exist || main.exists() {
            read.push(main);
        }
        read.extend(listed(&directory.join("conf.d"), "toml")?);
        for file in &read {
            layers = Layer::open(file)?.over(layers);
        }
        let mut allowed = Vec::new();
        for file in listed(&directory.join("allow.d"), "list")? {
            allowed.extend(read_allow_list(&file)?);
            read.push(file);
        }
        Self::of(typed.over(layers), allowed, read)
    }

    fn of(
        layer: Layer,
        allow_files: Vec<Given<NeverBlock>>,
        files: Vec<PathBuf>,
    ) -> Result<Self, ConfigError> {
        let settings = Settings {
            allow_files,
            ..layer.resolve()
        };
        let configuration = Self { settings, files };
        configuration.check()?;
        Ok(configuration)
    }

    /// Every host is only monitored, because nobody has configured anything yet.
    #[must_use]
    pub fn at_first_start(mut self) -> Self {
        self.settings.mode = Given::new(Mode::Monitor, Source::FirstStart);
        self
    }

    /// Files that were read.
    #[must_use]
    pub fn files(&self) -> &[PathBuf] {
        &self.files
    }

    /// What was configured.
    #[must_use]
    pub const fn settings(&self) -> &Settings {
        &self.settings
    }

    /// What the engine is told at this time of the week.
    #[must_use]
    pub fn engine(&self, now: Timestamp) -> EngineConfig {
        self.engine_where(|schedule| schedule.holds(now))
    }

    /// What an engine is told that judges a capture: by the policy, not by the clock.
    #[must_use]
    pub fn engine_at_any_time(&self) -> EngineConfig {
        self.engine_where(|_| true)
    }

    fn engine_where(&self, holds: impl Fn(&Schedule) -> bool) -> EngineConfig {
        let settings = &self.settings;
        let holding = settings.policies.iter().filter(|entry| {
            let schedule = entry.value.schedule.as_ref();
            schedule.is_none_or(&holds)
        });
        let mut allow = values(&settings.allow.value);
        allow.extend(settings.allow_files.iter().map(|entry| entry.value));
        EngineConfig {
            mode: settings.mode.value,
            policies: holding.map(|entry| entry.value.host_policy()).collect(),
            inside: values(&settings.inside.value),
            exempt: values(&settings.exempt.value),
            allow,
            never_block: values(&settings.never_block.value),
            lock_time: settings.lock_time.value.0,
            strictness: settings.strictness.value,
            locked_dials: settings.locked_dials.value,
            reply: settings.reply.value,
            reprobe: settings.reprobe.value,
            block_udp: settings.block_udp.value,
            new_peers_per_minute: settings.new_peers_per_minute.value,
            peer_expiry: settings.peer_expiry.value.0,
            ..EngineConfig::default()
        }
    }

    /// When a schedule opens or closes next.
    #[must_use]
    pub fn next_change(&self, now: Timestamp) -> Option<Timestamp> {
        let entries = self.settings.policies.iter();
        let schedules = entries.filter_map(|entry| entry.value.schedule.as_ref());
        schedules
            .filter_map(|schedule| schedule.next_change(now))
            .min()
    }

    fn fan_out(&self) -> Result<FanOut, FanOutError> {
        let shards = Shards::new(self.settings.queues.value)?;
        FanOut::new(self.settings.queue.value, shards)
    }

    fn marks(&self) -> Result<MarkField, MarkFieldError> {
        let shards = Shards::new(self.settings.queues.value).unwrap_or_default();
        MarkField::new(self.settings.mark_bit.value)?.with_shards(shards)
    }

    /// Where events go and how.
    #[must_use]
    pub fn events(&self) -> EventOutput {
        let settings = &self.settings;
        EventOutput {
            target: settings.events.value.0.clone(),
            rotation: Rotation {
                limit: u64::from(settings.events_limit_mib.value) << 20,
                kept: settings.events_kept.value,
                longest: match settings.events_days.value {
                    0 => None,
                    days => Some(Duration::from_secs(86_400 * u64::from(days))),
                },
            },
            privacy: settings.privacy.value,
        }
    }

    /// Who is told of locked clients, if anybody.
    #[must_use]
    pub fn webhook(&self) -> Option<Hook> {
        let settings = &self.settings;
        Some(Hook {
            url: settings.webhook.value.0.0.clone()?,
            secret_file: settings.webhook_secret_file.value.0.0.clone(),
            window: settings.webhook_window.value.0,
        })
    }

    /// What the kernel is told.
    #[must_use]
    pub fn rules(&self) -> RuleSettings {
        let settings = &self.settings;
        let strict_entry = |entry: &Given<super::config_file::PolicyEntry>| {
            entry.value.strictness == Some(crate::config::Strictness::Strict)
        };
        RuleSettings {
            inside: ipv4(&values(&settings.inside.value)),
            exempt: ipv4(&values(&settings.exempt.value)),
            queues: self.fan_out().expect("checked when it was loaded"),
            marks: self.marks().expect("checked when it was loaded"),
            when_down: settings.when_down.value.0,
            hung_after: settings.hung_after.value.0.0,
            when_overloaded: settings.when_overloaded.value.0,
            // The daemon knows for whom; the kernel asks about all.
            strict: settings.strictness.value == crate::config::Strictness::Strict
                || settings.policies.iter().any(strict_entry),
            inbound: settings.block_inbound.value.then(|| InboundBlock {
                open: values(&settings.open_port.value),
            }),
            payload_test: PayloadTest::InnerHeader,
            shapes: PROTOCOLS
                .iter()
                .flat_map(|protocol| protocol.udp_shapes)
                .cloned()
                .collect(),
            harmless: HARMLESS_SHAPES,
        }
    }

    /// The back end asked for; the best that works if absent.
    #[must_use]
    pub const fn backend(&self) -> Option<Backend> {
        self.settings.backend.value.0.0
    }

    /// Where state is kept: what was configured; else where systemd says; else in the usual place if
    /// somebody has made it, so that a daemon started by hand leaves nothing behind.
    #[must_use]
    pub fn state_directory(&self) -> Option<PathBuf> {
        let Given { value, source } = &self.settings.state_directory;
        let configured = value.0.0.clone();
        if *source != Source::Default {
            return configured;
        }
        let of_systemd = std::env::var("STATE_DIRECTORY").ok();
        let of_systemd = of_systemd.as_deref().and_then(|all| all.split(':').next());
        match of_systemd {
            Some(directory) if !directory.is_empty() => Some(directory.into()),
            Some(_) | None => configured.filter(|usual| usual.is_dir()),
        }
    }

    /// One line for somebody who only wanted to know whether it holds together.
    #[must_use]
    pub fn summary(&self) -> String {
        let read = match self.files.len() {
            0 => "no file".to_owned(),
            1 => "1 file".to_owned(),
            count => format!("{count} files"),
        };
        let Given {
            value: mode,
            source,
        } = &self.settings.mode;
        let policies = self.settings.policies.len();
        let mode = mode.name();
        format!("ok: {read}, {policies} policy entries, mode {mode} ({source})\n")
    }

    /// The effective configuration as a file that says the same, with where each value comes from.
    #[must_use]
    pub fn as_toml(&self) -> String {
        let mut text = String::new();
        for listed in self.settings.listing() {
            let line = format!("{} = {}", listed.key, listed.value);
            let _ = writeln!(text, "{line:<40} # {}", listed.source);
        }
        for entry in &self.settings.allow_files {
            let _ = writeln!(text, "# also allowed: {} # {}", entry.value, entry.source);
        }
        for entry in &self.settings.policies {
            let _ = writeln!(text, "\n[[policy]] # {}", entry.source);
            let value = serde_json::to_value(&entry.value).expect("it was read as text");
            for (key, value) in value.as_object().into_iter().flatten() {
                let _ = writeln!(text, "{key} = {}", inline(value));
            }
        }
        text
    }

    /// The same for programs.
    #[must_use]
    pub fn as_json(&self) -> Value {
        let settings = self.settings.listing().into_iter().map(|listed| {
            let value = json!({ "value": listed.value, "from": listed.source.to_string() });
            (listed.key.to_owned(), value)
        });
        let entries = self.settings.policies.iter();
        let policies =
            entries.map(|entry| json!({ "value": entry.value, "from": entry.source.to_string() }));
        let allowed = self
            .settings
            .allow_files
            .iter()
            .map(|entry| json!({ "value": entry.value, "from": entry.source.to_string() }));
        json!({
            "files": self.files,
            "settings": settings.collect::<serde_json::Map<_, _>>(),
            "policy": policies.collect::<Vec<_>>(),
            "allow_files": allowed.collect::<Vec<_>>(),
        })
    }

    /// What each value cannot know of the others.
    fn check(&self) -> Result<(), ConfigError> {
        let settings = &self.settings;
        let wrong = |source: &Source, message: String| {
            let origin = source.clone();
            Err(ConfigError::Contradiction { origin, message })
        };
        if ipv4(&values(&settings.inside.value)).is_empty() {
            let message = "no inside network is IPv4, and FastTrack is IPv4 only: add --inside NET, \
                or inside = [\"NET\"]";
            return wrong(&settings.inside.source, message.to_owned());
        }
        if let Err(error) = self.fan_out() {
            return wrong(&settings.queues.source, error.to_string());
        }
        if let Err(error) = self.marks() {
            return wrong(&settings.mark_bit.source, error.to_string());
        }
        if !settings.open_port.value.is_empty() && !settings.block_inbound.value {
            let message = "open_port says what stays reachable, but nothing is blocked: \
                add block_inbound = true";
            return wrong(&settings.open_port.source, message.to_owned());
        }
        let mut names = Vec::new();
        for Given { value, source } in &settings.policies {
            if value.matches.is_empty() {
                let message = format!(
                    "policy \"{}\" is about no host: its match needs a subnet, interface or mac",
                    value.name
                );
                return wrong(source, message);
            }
            if value
                .schedule
                .as_ref()
                .is_some_and(|it| it.windows.is_empty())
            {
                let message = format!("the schedule of policy \"{}\" has no window", value.name);
                return wrong(source, message);
            }
            if names.contains(&&value.name) {
                let message = format!("there is another policy \"{}\" before this one", value.name);
                return wrong(source, message);
            }
            names.push(&value.name);
        }
        Ok(())
    }
}

/// Files of a directory with this extension, by name; none if there is no such directory.
fn listed(directory: &Path, extension: &str) -> Result<Vec<PathBuf>, ConfigError> {
    let unreadable = |source| ConfigError::Read {
        file: directory.into(),
        source,
    };
    let entries = match std::fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(unreadable(error)),
    };
    let paths = entries.map(|entry| entry.map(|entry| entry.path()));
    let mut files = paths.collect::<io::Result<Vec<_>>>().map_err(unreadable)?;
    files.retain(|file| file.extension().is_some_and(|it| it == extension));
    files.sort();
    Ok(files)
}

fn ipv4(nets: &[IpNet]) -> Vec<Ipv4Net> {
    let v4 = nets.iter().filter_map(|net| match net {
        IpNet::V4(net) => Some(*net),
        IpNet::V6(_) => None,
    });
    v4.collect()
}

/// A value as TOML, on one line.
fn inline(value: &Value) -> String {
    match value {
        Value::Object(pairs) => {
            let pairs = pairs
                .iter()
                .map(|(key, value)| format!("{key} = {}", inline(value)));
            format!("{{ {} }}", pairs.collect::<Vec<_>>().join(", "))
        }
        Value::Array(values) => {
            let values = values.iter().map(inline);
            format!("[{}]", values.collect::<Vec<_>>().join(", "))
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value.to_string(),
    }
}
