//! The account of a soak: every round judged as the catalogue's runs are, what faults explain left out,
//! and what is left.

use std::collections::BTreeMap;
use std::time::Duration;

use ftwall::bench::Latencies;
use serde::Serialize;

use super::fault::Incident;
use super::place::LOCK_TIME;
use crate::judge::{Finding, HostTerms, Run, Terms, Weight, effect};
use crate::ledger::Ledger;
use crate::level::Level;
use crate::observe::{Observations, Site, towards_peers};
use crate::record::Record;
use crate::stage::namespaces::micros;
use crate::web::{End, Request, WebAccount};

/// Traffic is counted over so long at a time.
pub(super) const INTERVAL: Duration = Duration::from_secs(5);

/// What passed within one interval.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Interval {
    /// When it began, in microseconds since the Unix epoch.
    pub from_us: u64,
    /// Ordinary requests that began.
    pub requests: usize,
    /// Of those, how many failed, for whatever reason.
    pub failed: usize,
    /// How long the others took.
    pub web: Option<Latencies>,
    /// What clients tried.
    pub attempts: usize,
    /// Handshakes of clients that completed, web ports and first dials included.
    pub touched: usize,
    /// Anything more of theirs that arrived.
    pub contacts: usize,
}

/// Judges rounds, one after another.
#[derive(Debug)]
pub(crate) struct Account {
    terms: Terms,
    usual: WebAccount,
    /// When each host gave itself away in the last round in which it did.
    known: BTreeMap<String, u64>,
    /// The longest time for which a clean host was cut off in rounds in which nothing happened.
    pub(crate) calm_cut_us: u64,
    times: BTreeMap<u64, Vec<Duration>>,
    pub(super) intervals: BTreeMap<u64, Interval>,
    pub(crate) findings: Vec<Finding>,
    /// Contacts that only a gateway without rules let through.
    pub(crate) excused: usize,
    /// Requests that a fault explains.
    pub(crate) explained: usize,
    pub(crate) leaked: usize,
}

impl Account {
    /// Rounds are held against what is usual of the web in the `control` run.
    pub(crate) fn new(terms: Terms, control: &Run) -> Self {
        Self {
            terms,
            usual: control.web.clone(),
            known: BTreeMap::new(),
            calm_cut_us: 0,
            times: BTreeMap::new(),
            intervals: BTreeMap::new(),
            findings: Vec::new(),
            excused: 0,
            explained: 0,
            leaked: 0,
        }
    }

    /// How many hosts have given themselves away.
    pub(crate) fn known(&self) -> usize {
        self.known.len()
    }

    /// How many findings weigh so much.
    pub(crate) fn count(&self, weight: Weight) -> usize {
        let weighs = |finding: &&Finding| finding.weight() == weight;
        self.findings.iter().filter(weighs).count()
    }

    /// Judges one round, and enters into its incidents what they did to whom.
    pub(crate) fn enter(&mut self, site: &Site, mut record: Record, incidents: &mut [Incident]) {
        record.evidence.known_us = self.still_locked(record.evidence.ended_us);
        record.evidence.blind_us = incidents
            .iter()
            .filter(|incident| incident.fault.blinds())
            .map(Incident::blind_us)
            .collect();
        let mut observations = record.observations(site);
        let web = WebAccount::read(&record.evidence.clients);
        self.count_traffic(&observations, &web);
        if incidents.is_empty() {
            self.calm_cut_us = self.calm_cut_us.max(self.cut_us(&web, 0));
        }
        for incident in &mut *incidents {
            incident.clean_hosts_waited_us = self.waited_us(incident, &web);
            incident.clean_hosts_cut_us = self.cut_us(&web, incident.at_us);
            incident.clean_requests = felt(incident, &web).count();
            incident.clean_requests_failed = failed(incident, &web);
            let while_felt = incident.at_us..=incident.felt_until_us();
            let tried = towards_peers(site, &record.evidence.inside, &while_felt);
            incident.tried = tried.count();
            let known_us = &record.evidence.known_us;
            incident.refused_after_us = refused_after_us(incident, &observations, known_us);
        }
        self.excused += excuse(&mut observations, incidents);
        let terms = self.terms_for(&record.evidence.known_us, incidents);
        let mut ledger = Ledger::new(&observations);
        for (host, at_us) in &record.evidence.known_us {
            if let Some(row) = ledger.rows.get_mut(host) {
                row.identified_us = Some(*at_us);
            }
        }
        self.known.extend(observations.identified_us);
        let run = Run {
            ledger,
            web,
            mishaps: record.mishaps,
        };
        for finding in effect(&terms, &self.usual, &run) {
            self.take(finding, incidents);
        }
    }

    fn take(&mut self, finding: Finding, incidents: &[Incident]) {
        match &finding {
            Finding::WebFailed(request) | Finding::WebSlow { request, .. }
                if is_explained(request, incidents) =>
            {
                self.explained += 1;
                return;
            }
            Finding::Leak {
                contacts, allowed, ..
            } => self.leaked += contacts - allowed,
            _ => {}
        }
        self.findings.push(finding);
    }

    /// Hosts whose lock outlasts a round, and since when.
    fn still_locked(&self, ended_us: u64) -> BTreeMap<String, u64> {
        let lasts = |since_us: &u64| since_us + micros(LOCK_TIME) > ended_us;
        let known = self.known.iter().filter(|(_, since_us)| lasts(since_us));
        known.map(|(host, at)| (host.clone(), *at)).collect()
    }

    /// Of a host that is locked from the beginning nothing at all is allowed.
    fn terms_for(&self, known_us: &BTreeMap<String, u64>, incidents: &[Incident]) -> Terms {
        let forgets = |incident: &&Incident| incident.fault.forgets();
        let restarts = incidents.iter().filter(forgets).count();
        let mut terms = self.terms.clone();
        for (host, expected) in &mut terms.hosts {
            let is_known = known_us.contains_key(host);
            *expected = HostTerms {
                restarts,
                dials_in_flight: if is_known {
                    0
                } else {
                    expected.dials_in_flight
                },
                opens_unannounced: expected.opens_unannounced && !is_known,
                ..expected.clone()
            };
        }
        terms
    }

    fn waited_us(&self, incident: &Incident, web: &WebAccount) -> u64 {
        let waited = felt(incident, web).map(|request| {
            let usual = self.usual.usual(&request.kind).unwrap_or_default();
            micros(request.took().saturating_sub(usual))
        });
        waited.max().unwrap_or(0)
    }

    /// The longest time from which on nothing of a kind got through that a host asked for: a request that
    /// TCP sends again after a pause of its own waits longer than traffic was interrupted.
    fn cut_us(&self, web: &WebAccount, from_us: u64) -> u64 {
        let requests = web.requests.iter();
        let cut = requests
            .filter(|request| ended_us(request) >= from_us)
            .map(|request| {
                let usual = self.usual.usual(&request.kind).unwrap_or_default();
                let through_us = through_us(request, web).unwrap_or(ended_us(request));
                through_us.saturating_sub(request.began_us + micros(usual))
            });
        cut.max().unwrap_or(0)
    }

    fn count_traffic(&mut self, observations: &Observations, web: &WebAccount) {
        for request in &web.requests {
            let interval = self.interval(request.began_us);
            interval.requests += 1;
            match request.end {
                End::Ok(took) => self.times_of(request.began_us).push(took),
                End::Failed(..) => interval.failed += 1,
                End::Open(_) => {}
            }
        }
        for attempt in &observations.attempts {
            self.interval(attempt.at_us).attempts += 1;
        }
        for row in Ledger::new(observations).rows.values() {
            for level in Level::ALL {
                for sighting in row.at(level) {
                    let interval = self.interval(sighting.at_us);
                    match level {
                        Level::Touched => interval.touched += 1,
                        Level::ProbeOut
                        | Level::ProbeAnswered
                        | Level::Opened
                        | Level::Session
                        | Level::Transfer => interval.contacts += 1,
                    }
                }
            }
        }
    }

    fn times_of(&mut self, at_us: u64) -> &mut Vec<Duration> {
        self.times.entry(at_us / micros(INTERVAL)).or_default()
    }

    fn interval(&mut self, at_us: u64) -> &mut Interval {
        let number = at_us / micros(INTERVAL);
        self.intervals.entry(number).or_insert_with(|| Interval {
            from_us: number * micros(INTERVAL),
            ..Interval::default()
        })
    }

    /// What passed, interval by interval.
    pub(super) fn take_intervals(&mut self) -> Vec<Interval> {
        for (number, times) in std::mem::take(&mut self.times) {
            if let Some(interval) = self.intervals.get_mut(&number) {
                interval.web = Some(Latencies::of(times));
            }
        }
        std::mem::take(&mut self.intervals).into_values().collect()
    }
}

/// Leaves out what arrived while a gateway had no rules at all; returns how many contacts that were.
fn excuse(observations: &mut Observations, incidents: &[Incident]) -> usize {
    let is_excused = |at_us: u64| incidents.iter().any(|one| one.left_open(at_us));
    let before = observations.sightings.len();
    observations
        .sightings
        .retain(|sighting| !is_excused(sighting.at_us));
    before - observations.sightings.len()
}

fn is_explained(request: &Request, incidents: &[Incident]) -> bool {
    let explains = |one: &Incident| one.explains(request.began_us, ended_us(request));
    incidents.iter().any(explains)
}

/// Requests that were under way while a fault was felt.
fn felt<'a>(incident: &Incident, web: &'a WebAccount) -> impl Iterator<Item = &'a Request> {
    web.requests
        .iter()
        .filter(|request| incident.is_felt_between(request.began_us, ended_us(request)))
}

fn failed(incident: &Incident, web: &WebAccount) -> usize {
    let has_failed = |request: &&Request| matches!(request.end, End::Failed(..));
    felt(incident, web).filter(has_failed).count()
}

/// When the first of a kind got through that a host asked for no earlier than this.
fn through_us(request: &Request, web: &WebAccount) -> Option<u64> {
    let is_through = |other: &&Request| {
        other.kind == request.kind
            && other.began_us >= request.began_us
            && matches!(other.end, End::Ok(_))
    };
    let through = web.of(&request.host).filter(is_through);
    through.map(ended_us).min()
}

fn ended_us(request: &Request) -> u64 {
    request.began_us + micros(request.took())
}

/// Of hosts that were known before, completed handshakes on any port left out: on web ports they say
/// nothing.
fn refused_after_us(
    incident: &Incident,
    observations: &Observations,
    known_us: &BTreeMap<String, u64>,
) -> u64 {
    let was_known = |host: &str| {
        let known = known_us.get(host);
        let known = known.or_else(|| observations.identified_us.get(host));
        known.is_some_and(|at_us| *at_us < incident.at_us)
    };
    let after = observations.sightings.iter().filter(|sighting| {
        (incident.at_us..=incident.felt_until_us()).contains(&sighting.at_us)
            && sighting.level != Level::Touched
            && was_known(&sighting.host)
    });
    let last = after.map(|sighting| sighting.at_us).max();
    last.map_or(0, |at_us| at_us - incident.at_us)
}
