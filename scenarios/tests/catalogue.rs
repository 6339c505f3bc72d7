//! The catalogue as tests, one per scenario: `cargo test -p scenarios --test catalogue cold_start`.
//!
//! `SCENARIOS_SEED` chooses another seed and `SCENARIOS_KEEP` a directory for reports and captures.
//! What this machine cannot do is ignored with the reason; `LAB_REQUIRE=1` makes that a failure.

use std::env;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::thread;

use libtest_mimic::{Arguments, Completion, Failed, Trial};
use scenarios::binaries::Binaries;
use scenarios::catalog;
use scenarios::device::Device;
use scenarios::outcome::{Outcome, Totals};
use scenarios::report::Table;
use scenarios::scenario::Scenario;
use scenarios::stage::{House, Settings};

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // Each scenario has a capsule and a dozen processes; more at once than cores only distorts times.
    arguments.test_threads = arguments
        .test_threads
        .or_else(|| thread::available_parallelism().ok().map(Into::into));
    if arguments.list {
        let nothing = |scenario: Scenario| Trial::test(scenario.name, || Ok(()));
        return libtest_mimic::run(
            &arguments,
            catalog::all().into_iter().map(nothing).collect(),
        )
        .exit_code();
    }
    let house = Arc::new(House::probe());
    let settings = Arc::new(settings());
    let trials = catalog::all()
        .into_iter()
        .map(|scenario| trial(scenario, &house, &settings))
        .collect();
    // Not a check but a record: what the results of this run stand on.
    eprint!("{}", house.requirements());
    libtest_mimic::run(&arguments, trials).exit_code()
}

fn settings() -> Settings {
    let seed = env::var("SCENARIOS_SEED").ok().map(|text| {
        text.parse()
            .unwrap_or_else(|_| panic!("SCENARIOS_SEED is a number, not `{text}`"))
    });
    Settings {
        program: PathBuf::from(env!("CARGO_BIN_EXE_scenarios")),
        device: Device::Ftwall,
        seed,
        keep: env::var_os("SCENARIOS_KEEP").map(PathBuf::from),
        ftwall_options: Vec::new(),
        slowness: NonZeroU32::MIN,
        timelines: false,
    }
}

fn trial(scenario: Scenario, house: &Arc<House>, settings: &Arc<Settings>) -> Trial {
    let (house, settings) = (Arc::clone(house), Arc::clone(settings));
    Trial::ignorable_test(scenario.name.clone(), move || {
        Binaries::find()?;
        verdict(&house.play(&scenario, &settings))
    })
}

fn verdict(outcome: &Outcome) -> Result<Completion, Failed> {
    if let Some(why) = &outcome.skipped {
        return Ok(Completion::ignored_with(why));
    }
    if Totals::of(std::slice::from_ref(outcome)).all_held() {
        return Ok(Completion::Completed);
    }
    Err(Table(outcome).to_string().into())
}
