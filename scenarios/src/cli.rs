//! What was typed.

use std::num::{NonZeroU32, NonZeroU64, NonZeroUsize};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::device::Device;
use crate::scenario::USUAL_SEED;
use crate::soak::Fault;

/// Plays scenarios without and with a filter on the gateway, and judges both runs.
///
/// The last line of `run` is `scenarios=N void=N leaked=N web_failures=N skipped=N`. Exit status: 0 if
/// nothing is void, leaked or hurt, 1 if something is, 2 for a mistyped command line.
#[derive(Debug, Parser)]
#[command(name = "scenarios", version)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// List the scenarios.
    List,
    /// Say what this machine can do, and which scenarios it cannot play.
    Doctor,
    /// Play scenarios and judge them.
    Run(RunOptions),
    /// Play offices drawn at random, in memory, and judge them.
    Random(RandomOptions),
    /// Play scenarios in namespaces and in memory, and say what differs.
    Compare(CompareOptions),
    /// Play round after round through one gateway while it is killed, flushed and cut off, and judge all.
    ///
    /// The last line is `soak: minutes=N seed=N rounds=N faults=N void=N leaked=N excused=N web_failures=N
    /// web_explained=N rss_first=KIB rss_last=KIB descriptors_first=N descriptors_last=N`. Exit status: 0 if nothing is void, leaked, hurt or
    /// grown, 1 if something is. An ordinary request may suffer from a fault that takes the gateway's ability
    /// to judge or its line, if it was under way between the beginning of the fault and as long again and a
    /// second after its end; reloads and hand-overs excuse nothing. What passes while somebody else has taken
    /// all rules away is counted as excused, and rules have to be back after three seconds. Memory in
    /// KiB may grow by a tenth or 2 MiB between the first and the last quarter of the longest life of a daemon,
    /// after a warm-up of ten minutes and if it lasted twenty; open descriptors by three over all.
    Soak(SoakOptions),
    /// Do something to a gateway under load, each fault to a gateway of its own, and say what became of it.
    ///
    /// The last line is `faults=N void=N leaked=N excused=N interrupted=N skipped=N`. Exit status: 0 if nothing
    /// is void, leaked or interrupted, 1 if something is. Traffic of clean hosts may be interrupted for a
    /// second beyond what the same does where there is no device; reloads and hand-overs may not be noticed.
    /// What passes while somebody else has taken all rules away is counted as excused.
    Faults(FaultsOptions),
    /// Measure in namespaces what ftwall costs a gateway; the same as `ftwall bench`.
    Bench(ftwall::bench::BenchArgs),
    /// Play one scenario in the capsule this process is in, and print its outcome as JSON.
    #[command(hide = true, name = crate::stage::INSIDE)]
    PlayInside(PlayOptions),
    /// Soak in the capsule this process is in.
    #[command(hide = true, name = crate::soak::INSIDE)]
    SoakInside(SoakOptions),
    /// Play faults in the capsule this process is in.
    #[command(hide = true, name = crate::faults::INSIDE)]
    FaultsInside(FaultsOptions),
}

/// Options of `scenarios run`.
#[derive(Debug, Args)]
pub struct RunOptions {
    /// Names of scenarios, files of recipes (`*.json`), or `all` for the catalogue.
    #[arg(value_name = "NAME", default_value = "all")]
    pub names: Vec<String>,
    /// What is the same inside and outside the capsule.
    #[command(flatten)]
    pub play: Common,
    /// Write every outcome to this file as JSON.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Write pages, `junit.xml` and `outcomes.json` into this directory; the records of scenarios that
    /// did not hold are kept beside them.
    #[arg(long, value_name = "DIR", conflicts_with = "keep")]
    pub report: Option<PathBuf>,
    /// How many scenarios at a time [default: as many as there are cores].
    #[arg(long, value_name = "N")]
    pub jobs: Option<NonZeroUsize>,
    /// Where to play.
    #[arg(long, value_enum, default_value_t = Stage::Namespaces)]
    pub stage: Stage,
    /// In memory: play this many seeds of each scenario, from --seed on, up to the first finding.
    #[arg(long, value_name = "N", default_value = "1")]
    pub seeds: NonZeroU64,
}

/// Options of `scenarios random`.
#[derive(Debug, Args)]
pub struct RandomOptions {
    /// How many offices.
    #[arg(long, value_name = "N", default_value = "1000")]
    pub runs: NonZeroU64,
    /// Seed of the first; each next one has the next seed.
    #[arg(long, value_name = "N", default_value_t = USUAL_SEED)]
    pub seed: u64,
    /// Stop after this many findings.
    #[arg(long, value_name = "N", default_value = "1")]
    pub findings: NonZeroUsize,
    /// Write the recipe of each finding into this directory.
    #[arg(long, value_name = "DIR")]
    pub keep: Option<PathBuf>,
    /// How many at a time [default: as many as there are cores].
    #[arg(long, value_name = "N")]
    pub jobs: Option<NonZeroUsize>,
}

/// Options of `scenarios compare`.
#[derive(Debug, Args)]
pub struct CompareOptions {
    /// Names of scenarios, files of recipes (`*.json`), or `all` for the catalogue.
    #[arg(value_name = "NAME", default_value = "all")]
    pub names: Vec<String>,
    /// Seed of everything that is drawn [default: the recipe's own, 1 for the catalogue].
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// How often each scenario is played in memory: what namespaces show is held against all that
    /// happened in any of these takes.
    #[arg(long, value_name = "N", default_value = "50")]
    pub takes: NonZeroU64,
    /// How many scenarios at a time [default: as many as there are cores].
    #[arg(long, value_name = "N")]
    pub jobs: Option<NonZeroUsize>,
}

/// Options of `scenarios soak`.
#[derive(Debug, Args)]
pub struct SoakOptions {
    /// How long; a round that has begun is played to its end.
    #[arg(long, value_name = "N", default_value = "60", value_parser = minutes)]
    pub minutes: f64,
    /// Seed of everything that is drawn: what happens when, and what clients do.
    #[arg(long, value_name = "N", default_value_t = USUAL_SEED)]
    pub seed: u64,
    /// Write `soak.json`, `soak.svg` and the daemons' log into this directory.
    #[arg(long, value_name = "DIR", default_value = "soak")]
    pub out: PathBuf,
    /// The device under test; faults of a daemon are left out where it has none.
    #[arg(long = "dut", value_name = "DEVICE", value_enum, default_value_t = Device::Ftwall)]
    pub device: Device,
    /// Give actors so many times as long, and the web as much more patience.
    #[arg(long, value_name = "N", default_value_t = NonZeroU32::MIN)]
    pub slowness: NonZeroU32,
}

impl SoakOptions {
    /// How long, as a duration.
    #[must_use]
    pub fn length(&self) -> Duration {
        Duration::from_secs_f64(self.minutes * 60.0)
    }
}

/// Options of `scenarios faults`.
#[derive(Debug, Args)]
pub struct FaultsOptions {
    /// Names of faults, with commas between them [default: all].
    #[arg(long, value_name = "NAME", value_delimiter = ',', value_parser = fault)]
    pub only: Vec<Fault>,
    /// Seed of everything that is drawn.
    #[arg(long, value_name = "N", default_value_t = USUAL_SEED)]
    pub seed: u64,
    /// Write `faults.json`, `faults.md`, `faults.html` and the daemons' logs into this directory.
    #[arg(long, value_name = "DIR", default_value = "faults")]
    pub out: PathBuf,
    /// The device under test; faults of a daemon are skipped where it has none.
    #[arg(long = "dut", value_name = "DEVICE", value_enum, default_value_t = Device::Ftwall)]
    pub device: Device,
    /// Give everybody so many times as long, and the web as much more patience.
    #[arg(long, value_name = "N", default_value_t = NonZeroU32::MIN)]
    pub slowness: NonZeroU32,
}

impl FaultsOptions {
    /// Those that are to be played, in the order of the table.
    pub fn faults(&self) -> impl Iterator<Item = Fault> + '_ {
        let is_wanted = |fault: &Fault| self.only.is_empty() || self.only.contains(fault);
        Fault::ALL.into_iter().filter(is_wanted)
    }
}

fn fault(text: &str) -> Result<Fault, String> {
    let named = Fault::ALL.into_iter().find(|fault| fault.name() == text);
    let names = || Fault::ALL.map(Fault::name).join(", ");
    named.ok_or_else(|| format!("none of {}", names()))
}

/// Longest soak: a week.
const MOST_MINUTES: f64 = 10_080.0;

fn minutes(text: &str) -> Result<f64, String> {
    let minutes: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    if minutes > 0.0 && minutes <= MOST_MINUTES {
        Ok(minutes)
    } else {
        Err(format!("more than 0 and at most {MOST_MINUTES}"))
    }
}

/// Where scenarios are played.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Stage {
    /// With real programs and a real kernel, in real time.
    Namespaces,
    /// On a virtual clock, without privileges.
    Memory,
}

/// Options of the hidden command.
#[derive(Debug, Args)]
pub struct PlayOptions {
    /// Name of the scenario.
    pub name: String,
    /// What is the same inside and outside the capsule.
    #[command(flatten)]
    pub play: Common,
    /// Say what happened to each host, too.
    #[arg(long)]
    pub timelines: bool,
}

/// Options that a capsule is given on.
#[derive(Debug, Args)]
pub struct Common {
    /// The device under test, for scenarios that are not about a certain one.
    #[arg(long = "dut", value_name = "DEVICE", value_enum, default_value_t = Device::Ftwall)]
    pub device: Device,
    /// Seed of everything that is drawn [default: the recipe's own, 1 for the catalogue].
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// Keep reports, logs, captures and rules in this directory.
    #[arg(long, value_name = "DIR")]
    pub keep: Option<PathBuf>,
    /// Option of `ftwall run` in every scenario, after its own, as in
    /// `--ftwall-option=--queue-reader=nfq`; may be given several times.
    #[arg(
        long = "ftwall-option",
        value_name = "OPTION",
        allow_hyphen_values = true
    )]
    pub ftwall_options: Vec<String>,
    /// Give actors so many times as long, and the web as much more patience, in namespaces: for
    /// machines as slow as an emulated one.
    #[arg(long, value_name = "N", default_value_t = NonZeroU32::MIN)]
    pub slowness: NonZeroU32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn definitions_are_consistent() {
        <Cli as clap::CommandFactory>::command().debug_assert();
    }

    #[test]
    fn options_of_ftwall_are_taken_although_they_look_like_our_own() {
        let typed = [
            "scenarios",
            "run",
            "--ftwall-option=--queue-reader=nfq",
            "web_only",
        ];
        let Command::Run(options) = Cli::parse_from(typed).command else {
            panic!("`run` was typed")
        };
        assert_eq!(options.play.ftwall_options, ["--queue-reader=nfq"]);
        assert_eq!(options.names, ["web_only"]);
    }

    #[test]
    fn without_a_name_the_whole_catalogue_is_run_against_ftwall() {
        let Command::Run(options) = Cli::parse_from(["scenarios", "run"]).command else {
            panic!("`run` was typed");
        };
        assert_eq!(options.names, ["all"]);
        assert_eq!(options.play.device, Device::Ftwall);
    }

    #[test]
    fn devices_are_named_as_in_the_tables() {
        for name in ["ftwall", "none", "block-1214", "string-match"] {
            let cli = Cli::parse_from(["scenarios", "run", "--dut", name]);
            let Command::Run(options) = cli.command else {
                panic!("`run` was typed")
            };
            assert_eq!(options.play.device.name(), name);
        }
    }
}
