//! `simulator`: parse, run, exit code. 0: done; 1: could not run; 2: bad arguments.

use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use simulator::cli::{Cli, ClientOptions, Command};
use simulator::clock::Clock;
use simulator::net::{run_client, run_peers};
use simulator::population::Population;
use simulator::reporter::{DoneReason, Reporter};
use simulator::web;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::LocalSet;
use tracing_subscriber::EnvFilter;

/// Exit code for arguments that cannot be meant, as clap uses for those it finds itself.
const BAD_ARGUMENTS: u8 = 2;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("warn"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .init();
    let population = match population_of(&cli.command) {
        Ok(population) => population,
        Err(error) => {
            eprintln!("error: {error}");
            return ExitCode::from(BAD_ARGUMENTS);
        }
    };
    match run(cli, population) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The control group knows no population.
fn population_of(
    command: &Command,
) -> Result<Option<Population>, simulator::population::PopulationError> {
    let options = match command {
        Command::Client(options) => options.population,
        Command::Peers(options) => options.population,
        Command::WebServer(_) | Command::WebClient(_) => return Ok(None),
    };
    options.generate().map(Some)
}

fn run(cli: Cli, population: Option<Population>) -> anyhow::Result<()> {
    let who = cli.who.unwrap_or_else(|| cli.command.name().to_owned());
    let reporter = Reporter::new(who, Clock::start(), std::io::stdout());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("starting the runtime")?;
    let reason =
        LocalSet::new().block_on(&runtime, play(cli.command, population, reporter.clone()))?;
    reporter.done(reason);
    Ok(())
}

async fn play(
    command: Command,
    population: Option<Population>,
    reporter: Reporter,
) -> anyhow::Result<DoneReason> {
    let told_to_end = told_to_end()?;
    match (command, population) {
        (Command::Client(options), Some(population)) => {
            until(told_to_end, play_client(*options, &population, reporter)).await
        }
        (Command::Peers(options), Some(population)) => {
            run_peers(options.run(population), reporter, told_to_end).await
        }
        (Command::WebServer(options), _) => {
            let serve = async {
                web::serve(options, reporter)
                    .await
                    .map(|never| match never {})
            };
            until(told_to_end, serve).await
        }
        (Command::WebClient(options), _) => {
            until(told_to_end, web::browse(options, reporter)).await
        }
        (Command::Client(_) | Command::Peers(_), None) => {
            unreachable!("these two commands have a population")
        }
    }
}

/// SIGTERM and SIGINT, from the moment of the call.
fn told_to_end() -> anyhow::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate()).context("listening for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listening for SIGINT")?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

async fn until(
    told_to_end: impl Future<Output = ()>,
    run: impl Future<Output = anyhow::Result<DoneReason>>,
) -> anyhow::Result<DoneReason> {
    tokio::select! {
        () = told_to_end => Ok(DoneReason::Signal),
        reason = run => reason,
    }
}

/// The client, and a browser beside it if asked for: the host is done when both are.
async fn play_client(
    options: ClientOptions,
    population: &Population,
    reporter: Reporter,
) -> anyhow::Result<DoneReason> {
    let client = run_client(options.run(), population, reporter.clone());
    let Some(browsing) = options.browsing() else {
        return client.await;
    };
    let browser = async {
        web::browse(browsing, reporter)
            .await
            .context("browsing beside the client")
    };
    let (reason, _) = tokio::try_join!(client, browser)?;
    Ok(reason)
}
