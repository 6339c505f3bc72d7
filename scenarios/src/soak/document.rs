//! What came of a soak: every sample and every fault as JSON, a drawing, and a last line.

use std::fmt;
use std::fs;
use std::path::Path;

use anyhow::Context;
use serde::Serialize;

use super::account::{Account, Interval};
use super::fault::{Fault, Incident, RESTORED_WITHIN};
use super::growth::{Growth, Growths};
use super::samples::Sample;
use crate::cli::SoakOptions;
use crate::device::Device;
use crate::judge::Weight;
use crate::report;
use crate::stage::namespaces::micros;

/// Everything a soak has to say.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Document {
    /// How long it was to be.
    pub minutes: f64,
    /// The seed of everything drawn.
    pub seed: u64,
    /// The device that was on.
    pub device: Device,
    /// The zero of its drawing, in microseconds since the Unix epoch.
    pub began_us: u64,
    /// How many rounds were played.
    pub rounds: u32,
    /// What was done to the gateway.
    pub faults: Vec<Incident>,
    /// Findings that show that nothing is shown.
    pub void: usize,
    /// Contacts that must not be.
    pub leaked: usize,
    /// Sightings of contacts while the gateway had no rules.
    pub excused: usize,
    /// Ordinary requests that failed or were slow for no reason.
    pub web_failures: usize,
    /// Those that a fault explains.
    pub web_explained: usize,
    /// Memory and descriptors at both ends.
    pub growths: Growths,
    /// What is wrong, as sentences.
    pub findings: Vec<String>,
    /// What passed, interval by interval.
    pub intervals: Vec<Interval>,
    /// What the daemon took from its machine.
    pub samples: Vec<Sample>,
    /// What was wrong with the daemons, as sentences.
    #[serde(skip)]
    pub(super) mishaps: Vec<String>,
}

impl Document {
    pub(super) fn new(options: &SoakOptions) -> Self {
        Self {
            minutes: options.minutes,
            seed: options.seed,
            device: options.device,
            began_us: 0,
            rounds: 0,
            faults: Vec::new(),
            void: 0,
            leaked: 0,
            excused: 0,
            web_failures: 0,
            web_explained: 0,
            growths: Growths::default(),
            findings: Vec::new(),
            intervals: Vec::new(),
            samples: Vec::new(),
            mishaps: Vec::new(),
        }
    }

    /// Adds up what was found.
    pub(super) fn conclude(&mut self, mut account: Account) {
        self.intervals = account.take_intervals();
        self.leaked = account.leaked;
        self.excused = account.excused;
        self.web_failures = account.count(Weight::Web);
        self.web_explained = account.explained;
        self.mishaps.extend(self.late_restorations());
        self.void = account.count(Weight::Void) + self.mishaps.len();
        let judged = account.findings.iter().map(ToString::to_string);
        let mishaps = self.mishaps.iter().map(|what| format!("void: {what}"));
        let grown = self.growths.complaints();
        self.findings = judged.chain(mishaps).chain(grown).collect();
    }

    fn late_restorations(&self) -> Vec<String> {
        let is_late = |one: &&Incident| {
            one.fault == Fault::Flush && one.lasted_us() > micros(RESTORED_WITHIN)
        };
        let late = self.faults.iter().filter(is_late);
        late.map(|one| format!("rules came back late: {}", line(one)))
            .collect()
    }

    /// Whether nothing is wrong.
    #[must_use]
    pub fn has_held(&self) -> bool {
        self.findings.is_empty()
    }

    /// Writes `soak.json` and `soak.svg`.
    pub(super) fn write(&self, directory: &Path) -> anyhow::Result<()> {
        let put = |name: &str, text: String| {
            let file = directory.join(name);
            fs::write(&file, text).with_context(|| format!("writing {}", file.display()))
        };
        put("soak.json", serde_json::to_string_pretty(self)?)?;
        put("soak.svg", report::soak_drawing(self))
    }
}

/// The last line.
impl fmt::Display for Document {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "soak: minutes={} seed={} rounds={} faults={} void={} leaked={} excused={} web_failures={} web_explained={}",
            self.minutes,
            self.seed,
            self.rounds,
            self.faults.len(),
            self.void,
            self.leaked,
            self.excused,
            self.web_failures,
            self.web_explained,
        )?;
        write_growth(f, "rss", self.growths.rss_kib)?;
        write_growth(f, "descriptors", self.growths.descriptors)
    }
}

fn write_growth(f: &mut fmt::Formatter<'_>, name: &str, growth: Option<Growth>) -> fmt::Result {
    let shown = |end: Option<f64>| end.map_or_else(|| "-".to_owned(), |end| format!("{end:.0}"));
    let first = shown(growth.map(|growth| growth.first));
    let last = shown(growth.map(|growth| growth.last));
    write!(f, " {name}_first={first} {name}_last={last}")
}

/// One fault in a line.
pub(super) fn line(incident: &Incident) -> String {
    let seconds = |micros: u64| micros as f64 / 1e6;
    format!(
        "{} over after {:.2} s; clean hosts waited {:.2} s; locked hosts were refused after {:.2} s",
        incident.fault.name(),
        seconds(incident.lasted_us()),
        seconds(incident.clean_hosts_waited_us),
        seconds(incident.refused_after_us),
    )
}
