//! Where a daemon keeps what it keeps, and what it is told when it starts.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use lab::Spec;
use lab::presets::Office;

/// How long a host stays locked after the last evidence against it.
pub(crate) const LOCK_TIME: Duration = Duration::from_secs(120);

/// How long a learned peer is remembered: short, so that a soak sees many come and go.
const PEER_EXPIRY: &str = "1m";

/// Where a daemon keeps what it keeps: everything in a place that goes with the capsule.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    directory: PathBuf,
    /// Lines of configuration besides those that every daemon has.
    settings: String,
    environment: Vec<(&'static str, String)>,
    has_store: bool,
}

impl Place {
    /// Makes it, for daemons with these settings besides.
    pub(crate) fn new(name: &str, settings: impl Into<String>) -> anyhow::Result<Self> {
        let directory = lab::capsule::private_dir().join(name);
        let place = Self {
            directory,
            settings: settings.into(),
            environment: Vec::new(),
            has_store: false,
        };
        fs::create_dir_all(place.state()).context("making a place for the daemon")?;
        Ok(place)
    }

    /// The same for daemons with a variable in their environment.
    pub(crate) fn with_variable(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.environment.push((name, value.into()));
        self
    }

    /// The same for daemons whose service manager keeps descriptors.
    pub(crate) fn with_store(mut self) -> Self {
        self.has_store = true;
        self
    }

    /// Whether it does.
    pub(super) fn has_store(&self) -> bool {
        self.has_store
    }

    /// A file in it.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// Where metrics are served.
    pub(crate) fn metrics(&self) -> PathBuf {
        self.file("metrics.sock")
    }

    /// Where operators are heard.
    pub(super) fn control(&self) -> PathBuf {
        self.file("control.sock")
    }

    /// Where what survives a restart is kept.
    pub(crate) fn state(&self) -> PathBuf {
        self.file("state")
    }

    /// How a daemon is started here.
    pub(super) fn spec(&self, program: impl AsRef<Path>) -> Spec {
        self.equip(Spec::new(program.as_ref()))
            .args(["run", "--config"])
            .arg(self.configuration())
    }

    /// What every daemon here finds in its environment.
    pub(super) fn equip(&self, spec: Spec) -> Spec {
        let variables = self.environment.iter();
        variables.fold(spec, |spec, (name, value)| spec.env(name, value))
    }

    /// What daemons read.
    pub(super) fn configuration(&self) -> PathBuf {
        self.file("ftwall.toml")
    }

    /// Versions differ in something that changes rules and concerns nobody.
    pub(super) fn write_configuration(&self, version: u8) -> anyhow::Result<()> {
        let text = format!(
            "inside = [\"{lan}\"]\n\
             lock_time = \"{lock_time}s\"\n\
             peer_expiry = \"{PEER_EXPIRY}\"\n\
             exempt = [\"10.77.250.{version}\"]\n\
             state_directory = \"{state}\"\n\
             control_socket = \"{control}\"\n\
             http_listen = \"{metrics}\"\n\
             {settings}\n",
            lan = Office::LAN,
            lock_time = LOCK_TIME.as_secs(),
            state = self.state().display(),
            control = self.control().display(),
            metrics = self.metrics().display(),
            settings = self.settings,
        );
        fs::write(self.configuration(), text).context("writing the configuration")
    }
}
