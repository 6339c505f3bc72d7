//! Many seeds of many scenarios in memory, on every core, until something is found.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::device::Device;
use crate::outcome::{Outcome, Totals};
use crate::scenario::Scenario;
use crate::stage::memory;

/// What is to be played.
#[derive(Debug, Clone)]
pub struct Campaign {
    /// The scenarios.
    pub scenarios: Vec<Scenario>,
    /// The device of scenarios that do not pin one.
    pub device: Device,
    /// The first seed.
    pub seed: u64,
    /// How many seeds of each scenario, from the first.
    pub seeds: u64,
    /// How many runs at a time.
    pub jobs: usize,
    /// Whether outcomes are to say what happened to each host.
    pub timelines: bool,
}

/// What came of a campaign.
#[derive(Debug, Clone, Default)]
pub struct Tally {
    /// The counts of the last line; scenarios are runs here.
    pub totals: Totals,
    /// Packets that hosts and gateways sent.
    pub packets: u64,
    /// Time that all workers together spent, judging included.
    pub busy: Duration,
    /// The outcomes with a finding, in the order in which they would be played one by one.
    pub found: Vec<Outcome>,
}

impl Tally {
    /// Packets per second of one worker's time.
    #[must_use]
    pub fn packets_per_second(&self) -> f64 {
        let seconds = self.busy.as_secs_f64();
        if seconds > 0.0 {
            self.packets as f64 / seconds
        } else {
            0.0
        }
    }
}

/// One run that has ended.
#[derive(Debug)]
pub struct Step<'a> {
    /// What came of it.
    pub outcome: &'a Outcome,
    /// The scenario.
    pub scenario: &'a Scenario,
    /// Runs ended so far.
    pub ended: usize,
    /// Runs altogether.
    pub all: usize,
    /// Packets so far.
    pub packets: u64,
}

impl Campaign {
    /// Plays seed after seed of all scenarios and tells of each run as it ends; stops at the first
    /// finding, once the runs under way have ended.
    #[must_use]
    pub fn run(&self, told: &(dyn Fn(&Step<'_>) + Sync)) -> Tally {
        let next = AtomicUsize::new(0);
        let stopped = AtomicBool::new(false);
        let tally = Mutex::new((0, Tally::default()));
        thread::scope(|scope| {
            for _ in 0..self.jobs.max(1) {
                scope.spawn(|| {
                    while !stopped.load(Ordering::Relaxed) {
                        let place = next.fetch_add(1, Ordering::Relaxed);
                        let Some((scenario, seed)) = self.job(place) else {
                            break;
                        };
                        let began = now();
                        let (outcome, packets) = self.play(scenario, seed);
                        let mut tally = tally.lock().unwrap_or_else(PoisonError::into_inner);
                        let (ended, tally) = &mut *tally;
                        *ended += 1;
                        if tally.add(&outcome, packets, began.elapsed()) {
                            stopped.store(true, Ordering::Relaxed);
                        }
                        told(&Step {
                            outcome: &outcome,
                            scenario,
                            ended: *ended,
                            all: self.jobs_altogether(),
                            packets: tally.packets,
                        });
                    }
                });
            }
        });
        let (_, mut tally) = tally.into_inner().unwrap_or_else(PoisonError::into_inner);
        tally
            .found
            .sort_by_key(|outcome| (outcome.seed, self.place_of(&outcome.scenario)));
        tally
    }

    fn jobs_altogether(&self) -> usize {
        let seeds = usize::try_from(self.seeds).unwrap_or(usize::MAX);
        self.scenarios.len().saturating_mul(seeds)
    }

    /// Every scenario with one seed before the next seed, so that trouble shows early.
    fn job(&self, place: usize) -> Option<(&Scenario, u64)> {
        let scenario = self.scenarios.get(place % self.scenarios.len().max(1))?;
        let round = (place / self.scenarios.len()) as u64;
        (round < self.seeds).then(|| (scenario, self.seed.wrapping_add(round)))
    }

    fn place_of(&self, name: &str) -> Option<usize> {
        self.scenarios
            .iter()
            .position(|scenario| scenario.name == name)
    }

    fn play(&self, scenario: &Scenario, seed: u64) -> (Outcome, u64) {
        let device = scenario.device(self.device);
        let began = now();
        match memory::play(scenario, device, seed) {
            Ok(performance) => {
                let mut outcome = performance.played.outcome(self.timelines);
                outcome.took = began.elapsed();
                (outcome, performance.packets)
            }
            Err(error) => {
                let what = format!("{error:#}");
                (Outcome::failed(&scenario.name, device, seed, what), 0)
            }
        }
    }
}

impl Tally {
    /// Enters a run; says whether something was found in it.
    fn add(&mut self, outcome: &Outcome, packets: u64, took: Duration) -> bool {
        let run = Totals::of(std::slice::from_ref(outcome));
        self.totals.scenarios += run.scenarios;
        self.totals.void += run.void;
        self.totals.leaked += run.leaked;
        self.totals.web_failures += run.web_failures;
        self.totals.skipped += run.skipped;
        self.packets += packets;
        self.busy += took;
        if !run.all_held() {
            self.found.push(outcome.clone());
        }
        !run.all_held()
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the speed of a campaign is measured in real time"
)]
fn now() -> Instant {
    Instant::now()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog;

    fn campaign(names: [&str; 2], seeds: u64) -> Campaign {
        Campaign {
            scenarios: names
                .map(|name| catalog::find(name).expect("the catalogue holds it"))
                .into(),
            device: Device::Ftwall,
            seed: 5,
            seeds,
            jobs: 1,
            timelines: false,
        }
    }

    #[test]
    fn every_scenario_is_played_with_one_seed_before_the_next_seed() {
        let campaign = campaign(["cold_start", "nat"], 2);
        let jobs: Vec<_> = (0..6).map_while(|place| campaign.job(place)).collect();
        let jobs: Vec<_> = jobs
            .iter()
            .map(|(scenario, seed)| (&*scenario.name, *seed))
            .collect();
        assert_eq!(
            jobs,
            [("cold_start", 5), ("nat", 5), ("cold_start", 6), ("nat", 6)]
        );
    }

    #[test]
    fn a_campaign_stops_at_the_first_finding_and_counts_it() {
        let mut campaign = campaign(["udp_disabled", "sequential_dial"], 50);
        campaign.device = Device::None;
        let tally = campaign.run(&|_| {});
        assert_eq!((tally.totals.scenarios, tally.totals.leaked), (1, 1));
        assert_eq!(
            (&*tally.found[0].scenario, tally.found[0].seed),
            ("udp_disabled", 5)
        );
    }
}
