//! The catalogue in memory: every scenario with a few seeds, and what the stage itself must show.
//!
//! `SCENARIOS_SEEDS` plays more seeds.

use std::env;

use scenarios::catalog;
use scenarios::device::Device;
use scenarios::judge::{Finding, Weight};
use scenarios::level::Level;
use scenarios::outcome::{Outcome, Totals};
use scenarios::report::Table;
use scenarios::scenario::Scenario;
use scenarios::stage::memory::{self, Performance};

/// Seeds of each scenario unless more are asked for.
const SEEDS: u64 = 2;

fn seeds() -> std::ops::RangeInclusive<u64> {
    let asked = env::var("SCENARIOS_SEEDS").ok().map(|text| {
        text.parse()
            .unwrap_or_else(|_| panic!("SCENARIOS_SEEDS is a number, not `{text}`"))
    });
    1..=asked.unwrap_or(SEEDS)
}

fn scenario(name: &str) -> Scenario {
    catalog::find(name).expect("the catalogue holds it")
}

fn play(scenario: &Scenario, device: Device, seed: u64) -> Performance<'_> {
    memory::play(scenario, device, seed)
        .unwrap_or_else(|error| panic!("{} with seed {seed}: {error:#}", scenario.name))
}

fn outcome(scenario: &Scenario, device: Device, seed: u64) -> Outcome {
    play(scenario, device, seed).played.outcome(false)
}

#[test]
fn every_scenario_of_the_catalogue_holds() {
    let mut complaints = Vec::new();
    for scenario in catalog::all() {
        for seed in seeds() {
            let outcome = outcome(&scenario, scenario.device(Device::Ftwall), seed);
            if !Totals::of(std::slice::from_ref(&outcome)).all_held() {
                complaints.push(Table(&outcome).to_string());
            }
        }
    }
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
}

#[test]
fn the_same_seed_leaves_the_same_octets_and_another_one_others() {
    for name in ["cold_start", "lossy_wan", "nat", "web_only"] {
        let scenario = scenario(name);
        let [one, again, other] =
            [3, 3, 4].map(|seed| play(&scenario, Device::Ftwall, seed).played);
        assert_eq!(one.off, again.off, "{name} without a device");
        assert_eq!(one.on, again.on, "{name} with ftwall");
        let text = |outcome: &Outcome| serde_json::to_string(outcome).expect("plain data");
        assert_eq!(
            text(&one.outcome(true)),
            text(&again.outcome(true)),
            "{name}"
        );
        assert_ne!(one.on, other.on, "{name}");
    }
}

#[test]
fn a_gateway_that_filters_nothing_is_found_out_in_every_scenario_with_a_client() {
    for scenario in catalog::all() {
        let clients = scenario
            .terms()
            .hosts
            .values()
            .any(|host| !host.must_reach.is_empty());
        if scenario.pinned.is_some() || !clients {
            continue;
        }
        let outcome = outcome(&scenario, Device::None, 1);
        assert!(outcome.count(Weight::Leak) > 0, "{}", Table(&outcome));
        assert_eq!(outcome.count(Weight::Void), 0, "{}", Table(&outcome));
        assert_eq!(outcome.count(Weight::Web), 0, "{}", Table(&outcome));
    }
}

#[test]
fn a_counter_example_is_found_out_to_leak_what_it_is_said_to_leak() {
    // Strings in pongs do stop a client that dials nobody else: giFT does.
    let examples = [
        ("cold_start", Device::Block1214, Level::Transfer),
        ("parallel_dial", Device::StringMatch, Level::Session),
    ];
    for (name, device, level) in examples {
        let outcome = outcome(&scenario(name), device, 1);
        let leaks = outcome.findings.iter().any(
            |finding| matches!(finding, Finding::Leak { sighting, .. } if sighting.level == level),
        );
        assert!(leaks, "{}", Table(&outcome));
    }
}

#[test]
fn an_option_that_the_simulator_does_not_know_is_an_error_that_names_it() {
    let mut scenario = scenario("parallel_dial");
    for actor in &mut scenario.cast {
        if let scenarios::scenario::Actor::Client(client) = actor {
            client.args.push("--shout".to_owned());
        }
    }
    let error = memory::play(&scenario, Device::Ftwall, 1).expect_err("there is no such option");
    assert!(format!("{error:#}").contains("--shout"), "{error:#}");
}
