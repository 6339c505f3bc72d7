//! Where scenarios are played: in namespaces, with real programs and a real kernel, and in memory, with
//! the same state machines on a virtual clock.
//!
//! In namespaces every scenario gets a capsule of its own, in which this program runs itself again with
//! the hidden command [`INSIDE`]; what it finds comes back as one line of JSON.

pub mod cast;
pub(crate) mod gateway;
mod keep;
pub mod memory;
pub mod namespaces;
mod real_web;

use std::collections::VecDeque;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::thread;

use anyhow::{Context, bail};
use lab::Requirements;
use lab::capsule::Capsule;
use lab::presets::Office;
use lab::requirements::{self, Feature};
use simulator::population::Population;

use crate::device::Device;
use crate::judge::judge;
use crate::observe::{Host, Site};
use crate::outcome::Outcome;
use crate::record::Record;
use crate::scenario::{Scenario, host_name};
use crate::timeline::{Timeline, Timelines};

/// The hidden command by which this program plays one scenario inside a capsule.
pub const INSIDE: &str = "play-inside";

/// What is the same for every scenario of a run.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The program to run inside capsules: `scenarios` itself.
    pub program: PathBuf,
    /// The device under test of scenarios that do not pin one.
    pub device: Device,
    /// The seed that every other seed is derived from, if not each scenario's own.
    pub seed: Option<u64>,
    /// Where to keep reports, logs, captures and rules; nothing is kept without.
    pub keep: Option<PathBuf>,
    /// Options of `ftwall run` in every scenario, after its own.
    pub ftwall_options: Vec<String>,
    /// How many times as long everything may take as on an ordinary machine.
    pub slowness: NonZeroU32,
    /// Whether outcomes are to say what happened to each host.
    pub timelines: bool,
}

/// Both runs of a scenario, wherever they were played.
#[derive(Debug, Clone)]
pub struct Played<'a> {
    /// The scenario.
    pub scenario: &'a Scenario,
    /// The device that was on.
    pub device: Device,
    /// The seed of both runs.
    pub seed: u64,
    /// Who lived where.
    pub site: Site,
    /// What the run without a device left.
    pub off: Record,
    /// What the run with the device on left.
    pub on: Record,
}

impl Played<'_> {
    /// Judges the two runs; says what happened to each host if `timelines` are wanted.
    #[must_use]
    pub fn outcome(&self, timelines: bool) -> Outcome {
        let terms = self.scenario.terms();
        let off = self.off.judgeable(&self.site);
        let on = self.on.judgeable(&self.site);
        let findings = judge(&terms, &off, &on);
        let runs = (&off, &on);
        let name = &self.scenario.name;
        let mut outcome = Outcome::played(name, self.device, self.seed, &terms, runs, findings);
        outcome.timelines = timelines.then(|| self.timelines());
        outcome
    }

    /// What happened to each host in both runs.
    #[must_use]
    pub fn timelines(&self) -> Timelines {
        Timelines {
            off: Timeline::read(&self.site, &self.off),
            on: Timeline::read(&self.site, &self.on),
        }
    }
}

/// Who lives where in a scenario played with a seed.
///
/// # Errors
/// When the peers' network does not hold the scenario's population.
pub fn site(scenario: &Scenario, seed: u64) -> anyhow::Result<Site> {
    let population = Population::generate(seed, scenario.population, Office::PEERS)?;
    let hosts = (1..=scenario.office.hosts)
        .map(|number| Host {
            name: host_name(number),
            address: Office::client_address(number),
        })
        .collect();
    let wire = scenario.office.wire.as_ref();
    let listening = population.peers().iter().map(|peer| peer.address).collect();
    Ok(Site {
        peers: Office::PEERS,
        listening,
        hosts,
        line_loses: wire.is_some_and(|wire| wire.loss_pct > 0.0 || wire.reorder_pct > 0.0),
    })
}

/// What this machine can do, with every scenario's needs checked against it.
#[derive(Debug)]
pub struct House {
    requirements: Requirements,
    /// Whether a scenario that cannot be played counts as void instead of skipped.
    strict: bool,
}

impl House {
    /// Tries what this machine can do.
    #[must_use]
    pub fn probe() -> Self {
        Self {
            requirements: requirements::probe(),
            strict: requirements::is_strict(),
        }
    }

    /// What was found.
    #[must_use]
    pub fn requirements(&self) -> &Requirements {
        &self.requirements
    }

    /// Why a scenario cannot be played here; none if it can.
    #[must_use]
    pub fn obstacle(&self, scenario: &Scenario, device: Device) -> Option<String> {
        let needs = [BASICS, scenario.needs].concat();
        if let Err(missing) = self.requirements.check(&needs) {
            // Written for a list with columns; here it stands in a sentence.
            let words: Vec<_> = missing.0.iter().map(ToString::to_string).collect();
            let words = words.join("; ");
            return Some(words.split_whitespace().collect::<Vec<_>>().join(" "));
        }
        let queueless = device == Device::Ftwall && !self.requirements.has_queue();
        queueless.then(|| "no way to queue packets to user space".to_owned())
    }

    /// Plays a scenario, or says why not.
    #[must_use]
    pub fn play(&self, scenario: &Scenario, settings: &Settings) -> Outcome {
        let device = scenario.device(settings.device);
        let (name, seed) = (&scenario.name, scenario.seed(settings.seed));
        match self.obstacle(scenario, device) {
            Some(why) if self.strict => Outcome::failed(name, device, seed, why),
            Some(why) => Outcome::skipped(name, device, seed, why),
            None => in_capsule(scenario, settings)
                .unwrap_or_else(|error| Outcome::failed(name, device, seed, format!("{error:#}"))),
        }
    }

    /// Plays scenarios, `jobs` at a time, and hands each outcome over as it comes; returns them in
    /// the order of the list.
    #[must_use]
    pub fn play_all(
        &self,
        scenarios: &[Scenario],
        settings: &Settings,
        jobs: usize,
        heard: &(dyn Fn(&Outcome) + Sync),
    ) -> Vec<Outcome> {
        let waiting: Mutex<VecDeque<_>> = Mutex::new(scenarios.iter().enumerate().collect());
        let next = || {
            waiting
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .pop_front()
        };
        let done = Mutex::new(Vec::new());
        // A capsule dies with the thread that started it, so each worker stays with its own.
        thread::scope(|scope| {
            for _ in 0..jobs.max(1) {
                scope.spawn(|| {
                    while let Some((place, scenario)) = next() {
                        let outcome = self.play(scenario, settings);
                        let mut done = done.lock().unwrap_or_else(PoisonError::into_inner);
                        heard(&outcome);
                        done.push((place, outcome));
                    }
                });
            }
        });
        let mut outcomes = done.into_inner().unwrap_or_else(PoisonError::into_inner);
        outcomes.sort_by_key(|(place, _)| *place);
        outcomes.into_iter().map(|(_, outcome)| outcome).collect()
    }
}

/// What every scenario needs.
const BASICS: &[Feature] = &[Feature::Capsule, Feature::PacketSockets, Feature::Nftables];

fn in_capsule(scenario: &Scenario, settings: &Settings) -> anyhow::Result<Outcome> {
    let file = scenario.file.as_deref().map(absolute).transpose()?;
    let name = file.map(|file| file.display().to_string());
    let mut args: Vec<_> = [
        INSIDE,
        name.as_deref().unwrap_or(&scenario.name),
        "--dut",
        settings.device.name(),
        "--seed",
    ]
    .map(str::to_owned)
    .into();
    args.push(scenario.seed(settings.seed).to_string());
    if settings.timelines {
        args.push("--timelines".to_owned());
    }
    let options = settings.ftwall_options.iter();
    args.extend(options.map(|option| format!("--ftwall-option={option}")));
    args.extend(["--slowness".to_owned(), settings.slowness.to_string()]);
    if let Some(directory) = &settings.keep {
        args.push("--keep".to_owned());
        args.push(absolute(directory)?.display().to_string());
    }
    let output = Capsule::command(&settings.program, &args).output()?;
    let said = String::from_utf8_lossy(&output.stdout);
    let complaints = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        bail!(
            "{} ended with {}: {}",
            scenario.name,
            output.status,
            complaints.trim()
        );
    }
    let line = said.lines().last().context("the capsule said nothing")?;
    serde_json::from_str(line).with_context(|| format!("the capsule said: {line} {complaints}"))
}

fn absolute(directory: &Path) -> anyhow::Result<PathBuf> {
    std::path::absolute(directory).with_context(|| format!("the path of {}", directory.display()))
}
