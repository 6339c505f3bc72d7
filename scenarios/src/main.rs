//! The `scenarios` command: parse, play, print, exit status.

use std::fs;
use std::io::{self, Write};
use std::num::{NonZeroU32, NonZeroUsize};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};
use std::thread;

use anyhow::{Context, bail, ensure};
use clap::Parser;
use scenarios::binaries::Binaries;
use scenarios::campaign::{Campaign, Programme, Step, Tally};
use scenarios::catalog;
use scenarios::cli::{Cli, Command, CompareOptions, PlayOptions, RandomOptions, RunOptions, Stage};
use scenarios::device::Device;
use scenarios::faults;
use scenarios::generate;
use scenarios::outcome::{Outcome, Totals};
use scenarios::progress::Progress;
use scenarios::recipe;
use scenarios::report::{self, Entry, Report, Table};
use scenarios::scenario::Scenario;
use scenarios::soak;
use scenarios::stage::{House, Settings, memory, namespaces};
use scenarios::timeline::{Timeline, Timelines};

/// Exit status when something is void, leaked or hurt, or could not be done.
const FAILED: u8 = 1;

/// Exit status for a mistyped command line.
const USAGE: u8 = 2;

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::List => list(),
        Command::Doctor => doctor(),
        Command::Run(options) => run(&options),
        Command::Random(options) => random(&options),
        Command::Compare(options) => compare(&options),
        Command::Bench(args) => bench(&args),
        Command::Soak(options) => soak::run(&options).map(exit_code),
        Command::Faults(options) => faults::run(&options).map(exit_code),
        Command::PlayInside(options) => play_inside(&options),
        Command::SoakInside(options) => soak::play_inside(&options).map(exit_code),
        Command::FaultsInside(options) => faults::play_inside(&options).map(exit_code),
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
        let device = scenario.device(Device::Ftwall);
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
    let jobs = jobs(options.jobs);
    match options.stage {
        Stage::Namespaces => run_in_namespaces(options, &chosen, jobs),
        Stage::Memory => {
            let more = &options.play.ftwall_options;
            let chosen: Vec<_> = chosen.iter().map(|each| each.with_options(more)).collect();
            run_in_memory(options, &chosen, jobs)
        }
    }
}

fn jobs(wanted: Option<NonZeroUsize>) -> usize {
    let jobs = wanted.or_else(|| thread::available_parallelism().ok());
    jobs.map_or(1, NonZeroUsize::get)
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
        ftwall_options: options.play.ftwall_options.clone(),
        slowness: options.play.slowness,
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
    chosen: &[Scenario],
    jobs: usize,
) -> anyhow::Result<ExitCode> {
    let campaign = Campaign {
        programme: Programme::Scenarios(chosen.to_vec(), options.seeds.get()),
        device: options.play.device,
        seed: options.play.seed,
        jobs,
        findings: 1,
        timelines: options.report.is_some(),
    };
    let is_single = options.seeds.get() == 1;
    let progress = Progress::new();
    let wants_all = options.json.is_some() || options.report.is_some();
    let outcomes = Mutex::new(Vec::new());
    let tally = campaign.run(&|step| {
        if is_single {
            progress.clear();
            println!("{}", Table(step.outcome));
        }
        if wants_all {
            let mut outcomes = outcomes.lock().unwrap_or_else(PoisonError::into_inner);
            outcomes.push(step.outcome.clone());
        }
        draw(&progress, step);
    });
    progress.clear();
    for outcome in &tally.found {
        if !is_single {
            println!("{}", Table(outcome));
        }
        let scenario = chosen.iter().find(|one| one.name == outcome.scenario);
        let file = scenario.and_then(|scenario| scenario.file.as_deref());
        let name = file.map_or(outcome.scenario.clone(), |file| file.display().to_string());
        print_replay(&name, outcome);
    }
    if let Some(directory) = kept_in(options) {
        keep_records(options, chosen, &tally, &directory)?;
    }
    let outcomes = outcomes
        .into_inner()
        .unwrap_or_else(PoisonError::into_inner);
    write_down(options, chosen, &outcomes)?;
    print_speed(options.seeds.get(), &tally);
    Ok(conclude(&tally.totals))
}

/// Plays again what records are wanted of, which costs less than to record everything: of a single seed
/// every scenario, of more those with a finding.
fn keep_records(
    options: &RunOptions,
    chosen: &[Scenario],
    tally: &Tally,
    directory: &Path,
) -> anyhow::Result<()> {
    let finding = |scenario: &Scenario| {
        let is_of = |outcome: &&Outcome| outcome.scenario == scenario.name;
        tally.found.iter().find(is_of).map(|outcome| outcome.seed)
    };
    for scenario in chosen {
        let seed = match finding(scenario) {
            Some(seed) => seed,
            None if options.seeds.get() == 1 => scenario.seed(options.play.seed),
            None => continue,
        };
        let device = scenario.device(options.play.device);
        memory::keep(scenario, device, seed, directory)?;
    }
    Ok(())
}

/// Plays drawn offices and writes down each that shows something.
fn random(options: &RandomOptions) -> anyhow::Result<ExitCode> {
    let campaign = Campaign {
        programme: Programme::Drawn(options.runs.get()),
        device: Device::Ftwall,
        seed: Some(options.seed),
        jobs: jobs(options.jobs),
        findings: options.findings.get(),
        timelines: false,
    };
    let progress = Progress::new();
    let tally = campaign.run(&|step| draw(&progress, step));
    progress.clear();
    for outcome in &tally.found {
        println!("{}", Table(outcome));
        print_random_replay(options, outcome)?;
    }
    let reached = tally.control.iter();
    let reached: Vec<_> = reached
        .map(|(level, runs)| format!("{level}={runs}"))
        .collect();
    println!(
        "runs that got so far without a device: {}",
        reached.join(" ")
    );
    print_speed(options.runs.get(), &tally);
    Ok(conclude(&tally.totals))
}

/// Plays scenarios on both stages with the same seed: once in namespaces, several times in memory. What
/// differs from all of these is a finding about the lab or about the model of it.
fn compare(options: &CompareOptions) -> anyhow::Result<ExitCode> {
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
        device: Device::Ftwall,
        seed: options.seed,
        keep: None,
        ftwall_options: Vec::new(),
        slowness: NonZeroU32::MIN,
        timelines: true,
    };
    let outcomes = House::probe().play_all(&chosen, &settings, jobs(options.jobs), &|_| {});
    let (mut compared, mut skipped, mut found) = (0, 0, 0);
    for (scenario, real) in chosen.iter().zip(&outcomes) {
        let Some(real_times) = &real.timelines else {
            skipped += 1;
            let why = real
                .skipped
                .as_deref()
                .unwrap_or("it was not played to its end");
            println!("{}: skipped: {why}", scenario.name);
            continue;
        };
        let takes = (0..options.takes.get()).map(|take| {
            let performance = memory::play_take(scenario, real.device, real.seed, take)?;
            Ok(performance.played.timelines())
        });
        let differences = differences(real_times, &takes.collect::<anyhow::Result<Vec<_>>>()?);
        println!("{}: {} differences", scenario.name, differences.len());
        for difference in &differences {
            println!("  {difference}");
        }
        compared += 1;
        found += differences.len();
    }
    println!(
        "compared={compared} skipped={skipped} takes={} differences={found}",
        options.takes
    );
    Ok(exit_code(found == 0))
}

/// What happened in namespaces and in no take in memory, or in all of those and not in namespaces.
fn differences(namespaces: &Timelines, takes: &[Timelines]) -> Vec<String> {
    type Run = fn(&Timelines) -> &Timeline;
    let runs: [(&str, Run); 2] = [("off", |both| &both.off), ("on", |both| &both.on)];
    let mut sentences = Vec::new();
    for (name, run) in runs {
        let model: Vec<_> = takes.iter().map(|take| run(take).normalised()).collect();
        let differing = run(namespaces).normalised().difference_from_all(&model);
        sentences.extend(differing.iter().map(|one| format!("{name}: {one}")));
    }
    sentences
}

fn draw(progress: &Progress, step: &Step<'_>) {
    let (packets, name, seed) = (step.packets, &step.scenario.name, step.outcome.seed);
    let what = format!("{packets} packets, {name} {seed}");
    progress.draw(step.ended, step.all, &what);
}

fn print_speed(seeds: u64, tally: &Tally) {
    println!(
        "seeds={seeds} packets={} packets_per_second_and_core={:.0}",
        tally.packets,
        tally.packets_per_second()
    );
}

/// The commands that play a finding again.
fn print_replay(name: &str, outcome: &Outcome) {
    let Outcome { device, seed, .. } = outcome;
    for stage in ["memory", "namespaces"] {
        println!("  replay: scenarios run {name} --dut {device} --seed {seed} --stage {stage}");
    }
}

/// A drawn office is kept where that is wanted; what draws it may change tomorrow.
fn print_random_replay(options: &RandomOptions, outcome: &Outcome) -> anyhow::Result<()> {
    let Some(directory) = &options.keep else {
        let seed = outcome.seed;
        println!("  keep it: scenarios random --seed {seed} --runs 1 --keep DIR");
        return Ok(());
    };
    fs::create_dir_all(directory).with_context(|| format!("making {}", directory.display()))?;
    let file = directory.join(format!("{}.json", outcome.scenario));
    generate::recipe(outcome.seed).write(&file)?;
    print_replay(&file.display().to_string(), outcome);
    Ok(())
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
            let is_it = |one: &Scenario| one.name == outcome.scenario;
            let place = chosen.iter().position(is_it)?;
            let scenario = &chosen[place];
            Some((place, Entry { scenario, outcome }))
        };
        let mut entries: Vec<_> = outcomes.iter().filter_map(entry).collect();
        // Listed as in the catalogue, in whatever order they came to an end.
        entries.sort_by_key(|(place, entry)| (*place, entry.outcome.seed));
        let entries = entries.into_iter().map(|(_, entry)| entry).collect();
        Report::new(entries).write(directory)?;
        println!("report: {}", directory.join("index.html").display());
    }
    Ok(())
}

fn conclude(totals: &Totals) -> ExitCode {
    println!("{totals}");
    exit_code(totals.all_held())
}

fn exit_code(has_held: bool) -> ExitCode {
    if has_held {
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
        if recipe::is_file_name(name) {
            return recipe::read_scenario(Path::new(name)).map_err(|error| format!("{error:#}"));
        }
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

fn bench(args: &ftwall::bench::BenchArgs) -> anyhow::Result<ExitCode> {
    ftwall::bench::run(&Binaries::find()?.ftwall, args)?;
    Ok(ExitCode::SUCCESS)
}

fn play_inside(options: &PlayOptions) -> anyhow::Result<ExitCode> {
    ensure!(
        lab::capsule::is_inside(),
        "this command works inside a capsule only; use `run`"
    );
    let chosen = choose(std::slice::from_ref(&options.name)).map_err(anyhow::Error::msg)?;
    let [scenario] = chosen.as_slice() else {
        bail!("a capsule plays one scenario");
    };
    let play = &options.play;
    let scenario = scenario
        .with_options(&play.ftwall_options)
        .on_a_machine_so_slow(play.slowness);
    let device = scenario.device(play.device);
    let outcome = namespaces::play(
        &scenario,
        device,
        scenario.seed(play.seed),
        play.keep.as_deref(),
        options.timelines,
    )?;
    println!("{}", serde_json::to_string(&outcome)?);
    Ok(ExitCode::SUCCESS)
}
