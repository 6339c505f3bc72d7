//! The `ftwall` program: parse what was typed, run it, answer with an exit code.

use std::io::{BufWriter, ErrorKind, IsTerminal as _, Write as _};
use std::process::ExitCode;

use clap::Parser as _;
use tracing_subscriber::EnvFilter;

use anyhow::Context as _;
use ftwall::cli::operator::Said;
use ftwall::cli::{
    CheckArgs, Cli, Command, OutputArg, PrintArgs, ReplayArgs, RulesArgs, RulesCommand, RunArgs,
};
use ftwall::control::config_file::{self, Source};
use ftwall::control::configuration::DEFAULT_FILE;
use ftwall::gateway::backend::{self, Backend};
use ftwall::gateway::clock::Clock;
use ftwall::gateway::daemon::ConfigurationSource;
use ftwall::gateway::replay::{self, ReplayError, diff};
use ftwall::gateway::rules::{self, RuleSettings};
use ftwall::gateway::{daemon, doctor, drift, failure};
use tracing::warn;

fn main() -> ExitCode {
    let cli = Cli::parse();
    log_to_stderr();
    match run(cli.command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("ftwall: {error:#}");
            failure::exit_code(&error)
        }
    }
}

/// Standard output belongs to events and answers.
fn log_to_stderr() {
    let filter = EnvFilter::try_from_env("FTWALL_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
}

fn run(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Run(args) => run_daemon(&args),
        Command::Rules(RulesCommand::Print(args)) => print_rules(&args),
        Command::Rules(RulesCommand::Apply(args)) => apply_rules(&args),
        Command::Rules(RulesCommand::Check(args)) => check_rules(&args),
        Command::Rules(RulesCommand::Remove(args)) => {
            let tools = args.backend().and_then(Backend::xt);
            backend::remove(tools).map(|()| ExitCode::SUCCESS)
        }
        Command::Replay(args) => replay(&args),
        Command::Check(args) => check(&args),
        #[cfg(feature = "bench")]
        Command::Bench(args) => {
            let program = std::env::current_exe()?;
            ftwall::bench::run(&program, &args).map(|()| ExitCode::SUCCESS)
        }
        #[cfg(feature = "bench")]
        Command::BenchEnd(end) => end.run().map(|()| ExitCode::SUCCESS),
        Command::Status(args) => say(args.status()),
        #[cfg(feature = "tui")]
        Command::Top(args) => say(args.top()),
        Command::Clients(args) => say(args.clients()),
        Command::Peers(args) => say(args.peers()),
        Command::Explain(args) => say(args.explain()),
        Command::Unblock(args) => say(args.unblock()),
        Command::Block(args) => say(args.block()),
        Command::Mode(args) => say(args.mode()),
        Command::Reload(args) => say(args.reload()),
        Command::LogReopen(args) => say(args.log_reopen()),
        Command::Events(args) => args
            .show(&mut std::io::stdout().lock())
            .map(|()| ExitCode::SUCCESS),
        Command::Allow(command) => {
            print(&command.run()?)?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Completions(args) => {
            print(&String::from_utf8_lossy(&args.script()))?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Man(args) => {
            let page = args.page().context("writing the manual")?;
            print(&String::from_utf8_lossy(&page))?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Doctor(args) => {
            let report = doctor::examine();
            print(&doctor::render(&report, args.output == OutputArg::Json))?;
            Ok(ExitCode::from(report.exit_code()))
        }
    }
}

fn run_daemon(args: &RunArgs) -> anyhow::Result<ExitCode> {
    let configuration = args.configuration()?;
    if configuration.settings().mode.source == Source::FirstStart {
        warn!(
            "nothing is configured yet: everything passes, and what would have been done is reported; \
            write {DEFAULT_FILE}, or start with --mode enforce"
        );
    }
    let settings = args.settings(&configuration, Clock::start().now());
    let load = args.load();
    let source = ConfigurationSource {
        configuration,
        load,
    };
    daemon::run(settings, source).map(|()| ExitCode::SUCCESS)
}

/// What a daemon was asked, and its answer or what kept it from giving one.
fn say(said: Said) -> anyhow::Result<ExitCode> {
    match said {
        Ok((text, code)) => {
            print(&text)?;
            Ok(ExitCode::from(code))
        }
        Err(failure) => {
            eprintln!("ftwall: {}", failure.message);
            Ok(ExitCode::from(failure.code))
        }
    }
}

fn check(args: &CheckArgs) -> anyhow::Result<ExitCode> {
    if args.schema {
        print(&format!("{:#}\n", config_file::schema()))?;
        return Ok(ExitCode::SUCCESS);
    }
    let configuration = args.configuration()?;
    print(&match (args.dump, args.output) {
        (false, OutputArg::Human) => configuration.summary(),
        (true, OutputArg::Human) => configuration.as_toml(),
        (_, OutputArg::Json) => format!("{:#}\n", configuration.as_json()),
    })?;
    Ok(ExitCode::SUCCESS)
}

/// Without a back end asked for, shows the best there is anywhere: printing touches nothing, so it
/// cannot try what works here.
fn print_rules(args: &PrintArgs) -> anyhow::Result<ExitCode> {
    if let Some(firewall) = args.beside {
        print(firewall.recipe())?;
        return Ok(ExitCode::SUCCESS);
    }
    let configuration = args.rules.configuration()?;
    let backend = configuration.backend().unwrap_or(Backend::LADDER[0]);
    print(&rules::print(&configuration.rules(), backend))?;
    Ok(ExitCode::SUCCESS)
}

fn apply_rules(args: &RulesArgs) -> anyhow::Result<ExitCode> {
    let (settings, backend) = rules_here(args)?;
    backend::apply(&settings, backend)?.keep();
    Ok(ExitCode::SUCCESS)
}

fn check_rules(args: &RulesArgs) -> anyhow::Result<ExitCode> {
    let (settings, backend) = rules_here(args)?;
    let faults = drift::look(&settings, backend).context("asking the kernel for its rules")?;
    if faults.is_empty() {
        print(&format!("the rules of {backend} are in place\n"))?;
        return Ok(ExitCode::SUCCESS);
    }
    let lines: String = faults.iter().map(|fault| format!("{fault}\n")).collect();
    print(&format!(
        "{lines}`ftwall rules apply` puts them in place again\n"
    ))?;
    Ok(ExitCode::from(failure::DEGRADED))
}

/// What is configured, as it is on this machine.
fn rules_here(args: &RulesArgs) -> anyhow::Result<(RuleSettings, Backend)> {
    let configuration = args.configuration()?;
    let backend = backend::choose(configuration.backend())?;
    let settings = RuleSettings {
        payload_test: backend::probe_payload_test(),
        ..configuration.rules()
    };
    Ok((settings, backend))
}

/// A reader that has seen enough, like `head`, is no failure.
fn print(text: &str) -> anyhow::Result<()> {
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(error.into()),
        Ok(()) | Err(_) => Ok(()),
    }
}

fn replay(args: &ReplayArgs) -> anyhow::Result<ExitCode> {
    let mut out = BufWriter::new(std::io::stdout().lock());
    let options = args.options()?;
    #[cfg(feature = "bench")]
    if let Some(lasting) = args.bench {
        replay::bench::run(&options, lasting, &mut out)?;
        return Ok(ExitCode::SUCCESS);
    }
    let replayed = match args.other()? {
        Some(other) => diff::run(&options, &other, &mut out).map(drop),
        None => replay::run(&options, &mut out).map(drop),
    };
    let flushed = out.flush().map_err(ReplayError::from);
    match replayed.and(flushed) {
        Err(ReplayError::Write(error)) if error.kind() == ErrorKind::BrokenPipe => {}
        Err(error) => return Err(error.into()),
        Ok(()) => {}
    }
    Ok(ExitCode::SUCCESS)
}
