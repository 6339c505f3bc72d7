//! What can be typed after `lab`, and what is done about it.

use std::{
    env,
    ffi::OsString,
    process::{Command as Program, ExitCode, ExitStatus},
    time::{Duration, Instant},
};

use anyhow::Context;
use clap::{Parser, ValueEnum};
use lab::{
    Feature, Lab,
    capsule::{self, Capsule},
    presets::{self, Office, Preset, office},
    requirements,
};

/// Small networks of Linux namespaces.
#[derive(Debug, Parser)]
#[command(version)]
pub(crate) enum Command {
    /// Try what this machine can do for a lab; exit status 77 if it cannot make one at all
    Doctor {
        /// How to print the findings
        #[arg(short, long, value_enum, default_value_t = Format::Human)]
        output: Format,
        /// Also measure how long a network of that many hosts takes to build
        #[arg(long, value_name = "HOSTS", num_args = 0..=1, default_missing_value = "100")]
        bench: Option<usize>,
    },
    /// Raise a network in a capsule and open a shell in it
    Shell {
        /// Name of the network; without one, the names there are
        preset: Option<String>,
        /// Program to run in place of an interactive shell, with its arguments
        #[arg(last = true)]
        program: Vec<OsString>,
    },
    /// Print the steps that build a network
    Plan {
        /// Name of the network
        preset: String,
    },
    /// Part of `doctor --bench`, inside the capsule
    #[command(hide = true)]
    BenchInside {
        /// Clients of the office
        hosts: usize,
    },
}

/// How findings are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// Lines for people.
    Human,
    /// One JSON object.
    Json,
}

impl Command {
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        match self {
            Self::Doctor { output, bench } => doctor(output, bench),
            Self::Shell { preset: None, .. } => Ok(list_presets()),
            Self::Shell {
                preset: Some(name),
                program,
            } => shell(find(&name)?, &program),
            Self::Plan { preset } => print_plan(find(&preset)?),
            Self::BenchInside { hosts } => bench_inside(hosts),
        }
    }
}

/// sysexits.h EX_NOPERM, which the project uses for a missing privilege everywhere.
const MISSING_PRIVILEGE: u8 = 77;

fn doctor(format: Format, bench: Option<usize>) -> anyhow::Result<ExitCode> {
    let found = requirements::probe();
    match format {
        Format::Human => print!("{found}"),
        Format::Json => println!("{}", serde_json::to_string(&found)?),
    }
    if !found.has(Feature::Capsule) {
        return Ok(ExitCode::from(MISSING_PRIVILEGE));
    }
    match bench {
        Some(hosts) => run_self(["bench-inside".into(), hosts.to_string().into()]),
        None => Ok(ExitCode::SUCCESS),
    }
}

fn bench_inside(hosts: usize) -> anyhow::Result<ExitCode> {
    let plan = office(&Office {
        clients: hosts,
        ..Office::default()
    })
    .plan()?;
    let start = now();
    let lab = plan.apply()?;
    let built = start.elapsed();
    let start = now();
    drop(lab);
    println!(
        "{hosts} hosts built in {built:.1?}, {:.2} ms a host",
        per_host(built, hosts)
    );
    println!(
        "let go in {:.1?}; the kernel clears up behind",
        start.elapsed()
    );
    Ok(ExitCode::SUCCESS)
}

fn per_host(whole: Duration, hosts: usize) -> f64 {
    let hosts = u32::try_from(hosts.max(1)).unwrap_or(u32::MAX);
    whole.as_secs_f64() * 1e3 / f64::from(hosts)
}

#[expect(clippy::disallowed_methods, reason = "a measurement of real time")]
fn now() -> Instant {
    Instant::now()
}

fn list_presets() -> ExitCode {
    for preset in presets::ALL {
        println!("{:<12} {}", preset.name, preset.summary);
    }
    ExitCode::SUCCESS
}

fn find(name: &str) -> anyhow::Result<&'static Preset> {
    let known = || {
        presets::ALL
            .iter()
            .map(|preset| preset.name)
            .collect::<Vec<_>>()
            .join(", ")
    };
    presets::find(name)
        .with_context(|| format!("no network is called `{name}`; there are: {}", known()))
}

fn print_plan(preset: &Preset) -> anyhow::Result<ExitCode> {
    print!("{}", (preset.topology)().plan()?);
    Ok(ExitCode::SUCCESS)
}

/// Outside, runs the same command again in a capsule; inside, builds the network and opens the shell.
fn shell(preset: &Preset, program: &[OsString]) -> anyhow::Result<ExitCode> {
    if !capsule::is_inside() {
        return run_self(env::args_os().skip(1));
    }
    let lab = (preset.topology)().plan()?.apply()?;
    lab.publish_names()
        .context("naming the nodes for `ip netns`")?;
    if program.is_empty() {
        greet(preset, &lab);
    }
    let status = shell_program(program)
        .status()
        .context("starting the shell")?;
    Ok(exit_code(status))
}

fn greet(preset: &Preset, lab: &Lab) {
    println!("{}: {}. Nodes:", preset.name, preset.summary);
    for node in lab.nodes() {
        println!("  {:<10} {}", node.name(), node.role().noun());
    }
    println!(
        "Enter one with `ip netns exec NODE PROGRAM`; leave with `exit`, and all of it is gone."
    );
}

fn shell_program(program: &[OsString]) -> Program {
    let Some((first, rest)) = program.split_first() else {
        return Program::new(env::var_os("SHELL").unwrap_or_else(|| "sh".into()));
    };
    let mut command = Program::new(first);
    command.args(rest);
    command
}

fn run_self(args: impl IntoIterator<Item = OsString>) -> anyhow::Result<ExitCode> {
    let status = Capsule::current_exe(args)?.status()?;
    Ok(exit_code(status))
}

fn exit_code(status: ExitStatus) -> ExitCode {
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    code.map_or(ExitCode::FAILURE, ExitCode::from)
}
