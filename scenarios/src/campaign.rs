//! Many seeds of many scenarios in memory, on every core, until something is found.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::device::Device;
use crate::generate;
use crate::level::Level;
use crate::outcome::{Outcome, Totals};
use crate::scenario::{Scenario, USUAL_SEED};
use crate::stage::memory;

/// What is to be played.
#[derive(Debug, Clone)]
pub struct Campaign {
    /// The scenarios.
    pub programme: Programme,
    /// The device of scenarios that do not pin one.
    pub device: Device,
    /// The first seed, if not each scenario's own.
    pub seed: Option<u64>,
    /// How many runs at a time.
    pub jobs: usize,
    /// After how many findings to stop.
    pub findings: usize,
    /// Whether outcomes are to say what happened to each host.
    pub timelines: bool,
}

/// Which scenarios a campaign plays.
#[derive(Debug, Clone)]
pub enum Programme {
    /// Each of these with so many seeds.
    Scenarios(Vec<Scenario>, u64),
    /// So many offices drawn at random, one from each seed.
    Drawn(u64),
}

/// What came of a campaign.
#[derive(Debug, Clone, Default)]
pub struct Tally {
    /// The counts of the last line; scenarios are runs here.
    pub totals: Totals,
    /// Packets that hosts and gateways sent.
    pub packets: u64,
    /// Processor time that all workers together spent, judging included.
    pub busy: Duration,
    /// Runs in which somebody got so far without a device: what the findings, or their absence, rest on.
    pub control: BTreeMap<Level, usize>,
    /// The outcomes with a finding, in the order in which they would be played one by one.
    pub found: Vec<Outcome>,
}

impl Tally {
    /// Packets per second of processor time, which a busy machine does not change.
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
    /// Plays seed after seed of all scenarios and tells of each run as it ends; stops once there are
    /// findings enough and the runs under way have ended.
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
                        let began = processor_time();
                        let (outcome, packets) = self.play(&scenario, seed);
                        let took = processor_time().saturating_sub(began);
                        let mut tally = tally.lock().unwrap_or_else(PoisonError::into_inner);
                        let (ended, tally) = &mut *tally;
                        *ended += 1;
                        tally.add(&outcome, packets, took);
                        if tally.found.len() >= self.findings {
                            stopped.store(true, Ordering::Relaxed);
                        }
                        told(&Step {
                            outcome: &outcome,
                            scenario: &scenario,
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
        let jobs = match &self.programme {
            Programme::Scenarios(scenarios, seeds) => seeds.saturating_mul(scenarios.len() as u64),
            Programme::Drawn(runs) => *runs,
        };
        usize::try_from(jobs).unwrap_or(usize::MAX)
    }

    /// Every scenario with one seed before the next seed, so that trouble shows early.
    fn job(&self, place: usize) -> Option<(Cow<'_, Scenario>, u64)> {
        match &self.programme {
            Programme::Scenarios(scenarios, seeds) => {
                let scenario = scenarios.get(place % scenarios.len().max(1))?;
                let round = (place / scenarios.len()) as u64;
                let seed = scenario.seed(self.seed).wrapping_add(round);
                (round < *seeds).then_some((Cow::Borrowed(scenario), seed))
            }
            Programme::Drawn(runs) => {
                let seed = self.seed.unwrap_or(USUAL_SEED).wrapping_add(place as u64);
                let scenario = generate::recipe(seed)
                    .scenario(&format!("drawn_{seed}"))
                    .expect("the generator draws nothing that does not exist");
                ((place as u64) < *runs).then_some((Cow::Owned(scenario), seed))
            }
        }
    }

    fn place_of(&self, name: &str) -> Option<usize> {
        match &self.programme {
            Programme::Scenarios(scenarios, _) => {
                scenarios.iter().position(|scenario| scenario.name == name)
            }
            Programme::Drawn(_) => None,
        }
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
    fn add(&mut self, outcome: &Outcome, packets: u64, took: Duration) {
        let run = Totals::of(std::slice::from_ref(outcome));
        self.totals.scenarios += run.scenarios;
        self.totals.void += run.void;
        self.totals.leaked += run.leaked;
        self.totals.web_failures += run.web_failures;
        self.totals.skipped += run.skipped;
        self.packets += packets;
        self.busy += took;
        let reached = outcome
            .hosts
            .values()
            .flat_map(|host| host.off.contacts.keys());
        for level in reached.copied().collect::<BTreeSet<_>>() {
            *self.control.entry(level).or_default() += 1;
        }
        if !run.all_held() {
            self.found.push(outcome.clone());
        }
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "a table says how long a run took"
)]
fn now() -> Instant {
    Instant::now()
}

/// What this thread has had of a processor so far.
fn processor_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::try_from(time).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog;

    fn campaign(names: [&str; 2], seeds: u64) -> Campaign {
        let find = |name: &str| catalog::find(name).expect("the catalogue holds it");
        Campaign {
            programme: Programme::Scenarios(names.map(find).into(), seeds),
            device: Device::Ftwall,
            seed: Some(5),
            jobs: 1,
            findings: 1,
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
        let all = [("cold_start", 5), ("nat", 5), ("cold_start", 6), ("nat", 6)];
        assert_eq!(jobs, all);
    }

    #[test]
    fn every_drawn_office_has_the_next_seed_up_to_the_last() {
        let mut campaign = campaign(["cold_start", "nat"], 1);
        campaign.programme = Programme::Drawn(2);
        let jobs: Vec<_> = (0..4).map_while(|place| campaign.job(place)).collect();
        let seeds: Vec<_> = jobs.iter().map(|(_, seed)| *seed).collect();
        assert_eq!(seeds, [5, 6]);
        assert_eq!((&*jobs[1].0.name, jobs[1].0.seed), ("drawn_6", Some(6)));
    }

    #[test]
    fn a_campaign_stops_at_the_first_finding_and_counts_it() {
        let mut campaign = campaign(["udp_disabled", "sequential_dial"], 50);
        campaign.device = Device::None;
        let tally = campaign.run(&|_| {});
        assert_eq!((tally.totals.scenarios, tally.totals.leaked), (1, 1));
        let found = &tally.found[0];
        assert_eq!((&*found.scenario, found.seed), ("udp_disabled", 5));
        assert_eq!(tally.control.get(&Level::Session), Some(&1));
    }
}
