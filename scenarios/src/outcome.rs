//! What came of scenarios, ready for tables and for JSON.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::device::Device;
use crate::judge::{Finding, Run, Terms, Weight, touched_late};
use crate::ledger::Row;
use crate::level::Level;
use crate::timeline::Timelines;
use crate::web::{End, WebAccount};

/// What came of one scenario.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// The scenario.
    pub scenario: String,
    /// The device that was on.
    pub device: Device,
    /// The seed of both runs.
    pub seed: u64,
    /// Why it was not played, if it was not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub skipped: Option<String>,
    /// What the judge found.
    pub findings: Vec<Finding>,
    /// Both runs, per host.
    pub hosts: BTreeMap<String, HostOutcome>,
    /// How long both runs took together.
    pub took: Duration,
    /// What happened to each host, if that was asked for: it is a hundred times the rest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timelines: Option<Timelines>,
}

/// One host without and with the device.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostOutcome {
    /// Without a device.
    pub off: HostRun,
    /// With the device on.
    pub on: HostRun,
}

/// One host in one run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostRun {
    /// The worst level reached.
    pub level: Option<Level>,
    /// Contacts by level.
    pub contacts: BTreeMap<Level, usize>,
    /// Peers by the worst level reached with them.
    pub peers: BTreeMap<Level, usize>,
    /// Handshakes that completed although the host must have been known.
    pub touched_late: usize,
    /// Replies forged in a peer's name.
    pub forged: usize,
    /// Attempts of any kind.
    pub attempts: usize,
    /// Ordinary requests.
    pub web_requests: usize,
    /// Of those, how many failed.
    pub web_failed: usize,
    /// The longest that one took.
    pub web_worst: Duration,
}

/// The counts of the last line.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// Scenarios asked for.
    pub scenarios: usize,
    /// Scenarios that show nothing.
    pub void: usize,
    /// Scenarios in which contact was made that must not be.
    pub leaked: usize,
    /// Ordinary requests that failed or were slowed down, over all scenarios.
    pub web_failures: usize,
    /// Scenarios not played.
    pub skipped: usize,
}

impl Outcome {
    /// Sums up a scenario that was played.
    #[must_use]
    pub fn played(
        scenario: &str,
        device: Device,
        seed: u64,
        terms: &Terms,
        (off, on): (&Run, &Run),
        findings: Vec<Finding>,
    ) -> Self {
        let names = terms
            .hosts
            .keys()
            .chain(off.ledger.rows.keys())
            .chain(on.ledger.rows.keys());
        let hosts = names
            .map(|host| {
                (
                    host.clone(),
                    HostOutcome {
                        off: HostRun::of(host, off),
                        on: HostRun::of(host, on),
                    },
                )
            })
            .collect();
        Self {
            scenario: scenario.to_owned(),
            device,
            seed,
            skipped: None,
            findings,
            hosts,
            took: Duration::ZERO,
            timelines: None,
        }
    }

    /// A scenario that was not played, and why.
    #[must_use]
    pub fn skipped(scenario: &str, device: Device, seed: u64, why: String) -> Self {
        Self {
            skipped: Some(why),
            ..Self::empty(scenario, device, seed)
        }
    }

    /// A scenario whose stage could not be set or fell down.
    #[must_use]
    pub fn failed(scenario: &str, device: Device, seed: u64, what: String) -> Self {
        Self {
            findings: vec![Finding::Mishap { what }],
            ..Self::empty(scenario, device, seed)
        }
    }

    fn empty(scenario: &str, device: Device, seed: u64) -> Self {
        Self {
            scenario: scenario.to_owned(),
            device,
            seed,
            skipped: None,
            findings: Vec::new(),
            hosts: BTreeMap::new(),
            took: Duration::ZERO,
            timelines: None,
        }
    }

    /// How many findings weigh so.
    #[must_use]
    pub fn count(&self, weight: Weight) -> usize {
        self.findings
            .iter()
            .filter(|finding| finding.weight() == weight)
            .count()
    }

    /// One word for the heading of a table.
    #[must_use]
    pub fn word(&self) -> &'static str {
        if self.skipped.is_some() {
            "skipped"
        } else if self.count(Weight::Void) > 0 {
            "VOID"
        } else if self.count(Weight::Leak) > 0 {
            "LEAKED"
        } else if self.count(Weight::Web) > 0 {
            "WEB HURT"
        } else {
            "held"
        }
    }
}

impl HostRun {
    fn of(host: &str, run: &Run) -> Self {
        let mut summary = Self::default();
        if let Some(row) = run.ledger.rows.get(host) {
            summary.add_contacts(row);
        }
        summary.add_web(host, &run.web);
        summary
    }

    fn add_contacts(&mut self, row: &Row) {
        self.level = row.highest();
        self.contacts = row
            .levels()
            .into_iter()
            .map(|level| (level, row.count(level)))
            .collect();
        for level in row.peers().into_values() {
            *self.peers.entry(level).or_default() += 1;
        }
        self.touched_late = touched_late(row).len();
        self.forged = row.forged;
        self.attempts = row.attempts.values().sum();
    }

    fn add_web(&mut self, host: &str, web: &WebAccount) {
        for request in web.of(host) {
            self.web_requests += 1;
            self.web_failed += usize::from(matches!(request.end, End::Failed(..)));
            self.web_worst = self.web_worst.max(request.took());
        }
    }
}

impl Totals {
    /// Counts outcomes.
    #[must_use]
    pub fn of<'a>(outcomes: impl IntoIterator<Item = &'a Outcome>) -> Self {
        let mut totals = Self::default();
        for outcome in outcomes {
            totals.scenarios += 1;
            totals.void += usize::from(outcome.count(Weight::Void) > 0);
            totals.leaked += usize::from(outcome.count(Weight::Leak) > 0);
            totals.web_failures += outcome.count(Weight::Web);
            totals.skipped += usize::from(outcome.skipped.is_some());
        }
        totals
    }

    /// Whether everything held. A skipped scenario is no failure here; strict runs make it one.
    #[must_use]
    pub fn all_held(&self) -> bool {
        self.void == 0 && self.leaked == 0 && self.web_failures == 0
    }
}

impl fmt::Display for Totals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            scenarios,
            void,
            leaked,
            web_failures,
            skipped,
        } = self;
        write!(
            f,
            "scenarios={scenarios} void={void} leaked={leaked} web_failures={web_failures} \
             skipped={skipped}"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::judge::{Expectation, SLOW_GRACE};
    use crate::web::Request;

    fn outcome(findings: Vec<Finding>) -> Outcome {
        let terms = Terms {
            hosts: BTreeMap::new(),
            expectation: Expectation::Protected,
            slow_grace: SLOW_GRACE,
        };
        let runs = (&Run::default(), &Run::default());
        Outcome::played("cold_start", Device::Ftwall, 1, &terms, runs, findings)
    }

    fn mishap() -> Finding {
        Finding::Mishap {
            what: "ftwall ended by itself".to_owned(),
        }
    }

    fn failed_request() -> Finding {
        Finding::WebFailed(Request {
            host: "client2".to_owned(),
            kind: "http1".to_owned(),
            began_us: 0,
            end: End::Failed(Duration::from_secs(5), "timeout".to_owned()),
        })
    }

    #[test]
    fn the_last_line_counts_scenarios_and_failed_requests() {
        let skipped = Outcome::skipped("web_real", Device::Ftwall, 1, "no nginx".to_owned());
        let outcomes = [
            outcome(Vec::new()),
            outcome(vec![mishap(), mishap()]),
            outcome(vec![failed_request(), failed_request()]),
            skipped,
        ];
        let totals = Totals::of(&outcomes);
        let line = "scenarios=4 void=1 leaked=0 web_failures=2 skipped=1";
        assert_eq!(totals.to_string(), line);
        assert!(!totals.all_held());
    }

    #[test]
    fn a_skipped_scenario_alone_is_no_failure() {
        let skipped = Outcome::skipped("web_real", Device::Ftwall, 1, "no nginx".to_owned());
        assert!(Totals::of(&[skipped]).all_held());
    }

    #[test]
    fn void_outweighs_everything_in_the_heading() {
        assert_eq!(outcome(Vec::new()).word(), "held");
        assert_eq!(outcome(vec![failed_request()]).word(), "WEB HURT");
        assert_eq!(outcome(vec![failed_request(), mishap()]).word(), "VOID");
    }

    #[test]
    fn an_outcome_survives_the_way_out_of_its_capsule() {
        let sent = outcome(vec![mishap(), failed_request()]);
        let text = serde_json::to_string(&sent).unwrap();
        assert_eq!(serde_json::from_str::<Outcome>(&text).unwrap(), sent);
    }
}
