//! The `scenarios` command: parse, play, print, exit status.

use std::fs;
use std::io::{self, Write};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};
use std::thread;

use anyhow::{Context, ensure};
use clap::Parser;
use scenarios::binaries::Binaries;
use scenarios::campaign::Campaign;
use scenarios::catalog;
use scenarios::cli::{Cli, Command, PlayOptions, RunOptions, Stage};
use scenarios::outcome::{Outcome, Totals};
use scenarios::progress::Progress;
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
    let jobs = options
        .jobs
        .or_else(|| thread::available_parallelism().ok());
    let jobs = jobs.map_or(1, NonZeroUsize::get);
    match options.stage {
        Stage::Namespaces => run_in_namespaces(options, &chosen, jobs),
        Stage::Memory => run_in_memory(options, chosen, jobs),
    }
}

fn run_in_namespaces(
    options: &RunOptions,
    chosen: &[Scenario],
    jobs: usize,
) -> anyhow::Result<ExitCode> {
    ensure!(
        options.seeds.get() == 1,
        "--seeds is for --stage memory: in namespaces, name one with --seed"
    );
    Binaries::find()?;
    let settings = Settings {
        program: std::env::current_exe().context("the path of this program")?,
        device: options.play.device,
        seed: options.play.seed,
        keep: kept_in(options),
        timelines: options.report.is_some(),
    };
    let outcomes = House::probe().play_all(chosen, &settings, jobs, &|outcome| {
        println!("{}", Table(outcome));
        if let Some(directory) = &options.report {
            settle_records(directory, outcome);
        }
    });
    write_down(options, chosen, &outcomes)?;
    Ok(conclude(&Totals::of(&outcomes)))
}

/// Plays seeds until something is found; a single seed of each scenario gets its table, of more only
/// what was found.
fn run_in_memory(
    options: &RunOptions,
    chosen: Vec<Scenario>,
    jobs: usize,
) -> anyhow::Result<ExitCode> {
    ensure!(
        options.play.keep.is_none(),
        "--keep is for --stage namespaces: replay a finding there to keep its records"
    );
    let campaign = Campaign {
        scenarios: chosen,
        device: options.play.device,
        seed: options.play.seed,
        seeds: options.seeds.get(),
        jobs,
        timelines: options.report.is_some(),
    };
    let progress = Progress::new();
    let wants_all = options.json.is_some() || options.report.is_some();
    let outcomes = Mutex::new(Vec::new());
    let tally = campaign.run(&|step| {
        if campaign.seeds == 1 {
            progress.clear();
            println!("{}", Table(step.outcome));
        }
        if wants_all {
            let mut outcomes = outcomes.lock().unwrap_or_else(PoisonError::into_inner);
            outcomes.push(step.outcome.clone());
        }
        let what = format!(
            "{} packets, {} {}",
            step.packets, step.scenario.name, step.outcome.seed
        );
        progress.draw(step.ended, step.all, &what);
    });
    progress.clear();
    for outcome in &tally.found {
        if campaign.seeds > 1 {
            println!("{}", Table(outcome));
        }
        print_replay(outcome);
    }
    let outcomes = outcomes
        .into_inner()
        .unwrap_or_else(PoisonError::into_inner);
    write_down(options, &campaign.scenarios, &outcomes)?;
    println!(
        "seeds={} packets={} packets_per_second_and_core={:.0}",
        campaign.seeds,
        tally.packets,
        tally.packets_per_second()
    );
    Ok(conclude(&tally.totals))
}

/// The commands that play a finding again.
fn print_replay(outcome: &Outcome) {
    let Outcome {
        scenario,
        device,
        seed,
        ..
    } = outcome;
    for stage in ["memory", "namespaces"] {
        println!("  replay: scenarios run {scenario} --dut {device} --seed {seed} --stage {stage}");
    }
}

/// Writes what was asked for besides tables.
fn write_down<'a>(
    options: &RunOptions,
    chosen: &'a [Scenario],
    outcomes: &'a [Outcome],
) -> anyhow::Result<()> {
    if let Some(file) = &options.json {
        write_json(file, &Totals::of(outcomes), outcomes)?;
    }
    if let Some(directory) = &options.report {
        let entry = |outcome: &'a Outcome| {
            let scenario = chosen.iter().find(|one| one.name == outcome.scenario)?;
            Some(Entry { scenario, outcome })
        };
        let entries = outcomes.iter().filter_map(entry).collect();
        Report::new(entries).write(directory)?;
        println!("report: {}", directory.join("index.html").display());
    }
    Ok(())
}

fn conclude(totals: &Totals) -> ExitCode {
    println!("{totals}");
    if totals.all_held() {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(FAILED)
    }
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
