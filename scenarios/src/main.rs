//! The `scenarios` command: parse, play, print, exit status.

use std::fs;
use std::io::{self, Write};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::thread;

use anyhow::{Context, ensure};
use clap::Parser;
use scenarios::binaries::Binaries;
use scenarios::catalog;
use scenarios::cli::{Cli, Command, PlayOptions, RunOptions};
use scenarios::outcome::{Outcome, Totals};
use scenarios::report::{self, Entry, Report, Table};
use scenarios::scenario::Scenario;
use scenarios::stage::{House, Settings, namespaces};

/// Exit status when something is void, leaked or hurt, or could not be done.
const FAILED: u8 = 1;

/// Exit status for a mistyped command line.
const USAGE: u8 = 2;

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::List => list(),
        Command::Doctor => doctor(),
        Command::Run(options) => run(&options),
        Command::PlayInside(options) => play_inside(&options),
    };
    done.unwrap_or_else(|error| {
        eprintln!("scenarios: {error:#}");
        ExitCode::from(FAILED)
    })
}

fn list() -> anyhow::Result<ExitCode> {
    let mut out = io::stdout().lock();
    for scenario in catalog::all() {
        let written = writeln!(out, "{:<20} {}", scenario.name, scenario.about);
        match written {
            // Whoever reads has read enough, as `head` does.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => break,
            written => written?,
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn doctor() -> anyhow::Result<ExitCode> {
    let house = House::probe();
    print!("{}", house.requirements());
    for scenario in catalog::all() {
        let device = scenario.device(scenarios::device::Device::Ftwall);
        if let Some(why) = house.obstacle(&scenario, device) {
            println!("{} cannot be played: {why}", scenario.name);
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn run(options: &RunOptions) -> anyhow::Result<ExitCode> {
    let chosen = match choose(&options.names) {
        Ok(chosen) => chosen,
        Err(complaint) => {
            eprintln!("scenarios: {complaint}");
            return Ok(ExitCode::from(USAGE));
        }
    };
    Binaries::find()?;
    let settings = Settings {
        program: std::env::current_exe().context("the path of this program")?,
        device: options.play.device,
        seed: options.play.seed,
        keep: kept_in(options),
        timelines: options.report.is_some(),
    };
    let jobs = options
        .jobs
        .or_else(|| thread::available_parallelism().ok());
    let jobs = jobs.map_or(1, NonZeroUsize::get);
    let outcomes = House::probe().play_all(&chosen, &settings, jobs, &|outcome| {
        println!("{}", Table(outcome));
        if let Some(directory) = &options.report {
            settle_records(directory, outcome);
        }
    });
    let totals = Totals::of(&outcomes);
    if let Some(file) = &options.json {
        write_json(file, &totals, &outcomes)?;
    }
    if let Some(directory) = &options.report {
        let entry = |(scenario, outcome)| Entry { scenario, outcome };
        let entries = chosen.iter().zip(&outcomes).map(entry).collect();
        Report::new(entries).write(directory)?;
        println!("report: {}", directory.join("index.html").display());
    }
    println!("{totals}");
    Ok(if totals.all_held() {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(FAILED)
    })
}

/// Where records are kept while scenarios are played; a report wants those of scenarios that fail.
fn kept_in(options: &RunOptions) -> Option<PathBuf> {
    let report = options.report.as_deref().map(report::records_directory);
    options.play.keep.clone().or(report)
}

/// Records that could not be removed are in nobody's way.
fn settle_records(directory: &Path, outcome: &Outcome) {
    if let Err(error) = report::settle_records(directory, outcome) {
        eprintln!("scenarios: {error:#}");
    }
}

/// The scenarios that were named, or a sentence about the name that is none.
fn choose(names: &[String]) -> Result<Vec<Scenario>, String> {
    if names.iter().any(|name| name == "all") {
        return Ok(catalog::all());
    }
    let choose_one = |name: &String| {
        catalog::find(name).map_err(|nearest| match nearest.as_slice() {
            [] => format!("no scenario is called `{name}`; `scenarios list` names them all"),
            nearest => format!(
                "no scenario is called `{name}`; perhaps {}",
                nearest.join(", ")
            ),
        })
    };
    names.iter().map(choose_one).collect()
}

fn write_json(file: &Path, totals: &Totals, outcomes: &[Outcome]) -> anyhow::Result<()> {
    let document = serde_json::json!({ "totals": totals, "outcomes": outcomes });
    let text = serde_json::to_string_pretty(&document)?;
    fs::write(file, text).with_context(|| format!("writing {}", file.display()))
}

fn play_inside(options: &PlayOptions) -> anyhow::Result<ExitCode> {
    ensure!(
        lab::capsule::is_inside(),
        "this command works inside a capsule only; use `run`"
    );
    let scenario = catalog::find(&options.name)
        .map_err(|_| anyhow::anyhow!("no scenario is called `{}`", options.name))?;
    let play = &options.play;
    let device = scenario.device(play.device);
    let outcome = namespaces::play(
        &scenario,
        device,
        play.seed,
        play.keep.as_deref(),
        options.timelines,
    )?;
    println!("{}", serde_json::to_string(&outcome)?);
    Ok(ExitCode::SUCCESS)
}
