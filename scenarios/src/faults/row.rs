//! What came of one fault, and whether that will do.

use std::fmt;
use std::time::Duration;

use serde::Serialize;

use super::Played;
use crate::judge::{Finding, Weight};
use crate::soak::{Fault, Incident};
use crate::stage::namespaces::micros;

/// The longest that traffic of clean hosts may be interrupted beyond what is normal.
const LONGEST: Duration = Duration::from_secs(1);

/// How long a clean host may be cut off by a fault. What promises that nobody notices has no more than
/// what a machine takes for a thread that waits for its turn.
pub(super) fn limit(fault: Fault, slow_grace: Duration, slowness: u32) -> Duration {
    if fault.may_hurt_the_web() {
        LONGEST * slowness
    } else {
        slow_grace
    }
}

/// A line of the table.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Row {
    /// The fault.
    pub fault: Fault,
    /// What was done, in words.
    pub about: &'static str,
    /// What came of it.
    #[serde(flatten)]
    pub end: End,
}

/// What became of a fault that was to be played.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "end", rename_all = "snake_case")]
pub enum End {
    /// It could not be brought about here.
    Skipped {
        /// Why.
        why: String,
    },
    /// It went wrong, and shows nothing.
    Failed {
        /// What.
        what: String,
    },
    /// It happened.
    Played(Box<Outcome>),
}

/// What a fault did.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Outcome {
    /// What happened when.
    pub incident: Incident,
    /// For how long clean hosts are cut off without the fault, or without a device if it is no fault of a
    /// device's; in microseconds.
    pub normal_us: u64,
    /// How much longer clean hosts may be cut off, in microseconds.
    pub limit_us: u64,
    /// Time from the end of its cause until the device said that nothing was wrong with it.
    pub whole_after_us: u64,
    /// Hosts that had given themselves away before.
    pub locked_hosts: usize,
    /// Findings that show that nothing is shown.
    pub void: usize,
    /// Contacts that must not be.
    pub leaked: usize,
    /// Sightings of contacts while the gateway had no rules.
    pub excused: usize,
    /// Ordinary requests that failed without the fault as a reason.
    pub web_failures: usize,
    /// What is wrong, as sentences.
    pub findings: Vec<String>,
}

impl Outcome {
    /// `without_us` is for how long clean hosts are cut off where there is no device.
    pub(super) fn new(played: &Played, without_us: u64, limit: Duration) -> Self {
        let Played {
            incident,
            account,
            whole_us,
        } = played;
        // Who gets through has what he wants, and falls silent.
        let silence = (incident.tried == 0 && account.leaked == 0)
            .then(|| "void: no client tried anything while it was felt".to_owned());
        let calm_us = account.calm_cut_us;
        let is_busy = (calm_us > micros(limit)).then(|| {
            let calm = seconds(calm_us);
            format!("void: clean hosts were cut off for {calm} before anything was done: the machine is too busy")
        });
        let complaints: Vec<_> = silence.into_iter().chain(is_busy).collect();
        // How slow is too slow is told by how long nothing got through.
        let is_slow = |finding: &&Finding| matches!(finding, Finding::WebSlow { .. });
        let findings = account.findings.iter().filter(|finding| !is_slow(finding));
        let has_failed = |finding: &&Finding| matches!(finding, Finding::WebFailed(_));
        Self {
            incident: incident.clone(),
            normal_us: without_us.max(calm_us),
            limit_us: micros(limit),
            whole_after_us: whole_us.saturating_sub(incident.ceased_us),
            locked_hosts: account.known(),
            void: account.count(Weight::Void) + complaints.len(),
            leaked: account.leaked,
            excused: account.excused,
            web_failures: account.findings.iter().filter(has_failed).count(),
            findings: findings
                .map(ToString::to_string)
                .chain(complaints)
                .collect(),
        }
    }

    /// Whether clean hosts were cut off for longer than they may be.
    #[must_use]
    pub fn has_interrupted(&self) -> bool {
        let cut_us = self.incident.clean_hosts_cut_us;
        cut_us > self.normal_us + self.limit_us || self.web_failures > 0
    }

    fn word(&self) -> &'static str {
        match self {
            _ if self.void > 0 => "void",
            _ if self.leaked > 0 => "leaked",
            _ if self.has_interrupted() => "interrupted",
            _ => "held",
        }
    }
}

impl Row {
    pub(super) fn skipped(fault: Fault, why: String) -> Self {
        Self::ending(fault, End::Skipped { why })
    }

    pub(super) fn failed(fault: Fault, what: String) -> Self {
        Self::ending(fault, End::Failed { what })
    }

    pub(super) fn played(fault: Fault, outcome: Outcome) -> Self {
        Self::ending(fault, End::Played(Box::new(outcome)))
    }

    fn ending(fault: Fault, end: End) -> Self {
        Self {
            fault,
            about: fault.about(),
            end,
        }
    }

    /// What it did, if it happened.
    #[must_use]
    pub fn outcome(&self) -> Option<&Outcome> {
        match &self.end {
            End::Played(outcome) => Some(outcome),
            End::Skipped { .. } | End::Failed { .. } => None,
        }
    }

    /// The result in a word.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match &self.end {
            End::Skipped { .. } => "skipped",
            End::Failed { .. } => "void",
            End::Played(outcome) => outcome.word(),
        }
    }

    /// Everything to be said besides numbers.
    #[must_use]
    pub fn remarks(&self) -> Vec<String> {
        match &self.end {
            End::Skipped { why } => vec![format!("skipped: {why}")],
            End::Failed { what } => vec![format!("void: {what}")],
            End::Played(outcome) => {
                let noted = outcome.incident.noted.iter();
                noted.chain(&outcome.findings).cloned().collect()
            }
        }
    }

    /// Its cells, as [`HEADINGS`] names them.
    #[must_use]
    pub fn cells(&self) -> [String; 11] {
        let Some(outcome) = self.outcome() else {
            let nothing = || "-".to_owned();
            let mut cells = std::array::from_fn(|_| nothing());
            cells[0] = self.fault.name().to_owned();
            cells[1] = self.word().to_owned();
            return cells;
        };
        let incident = &outcome.incident;
        [
            self.fault.name().to_owned(),
            self.word().to_owned(),
            seconds(incident.lasted_us()),
            seconds(outcome.whole_after_us),
            seconds(incident.clean_hosts_cut_us),
            seconds(outcome.normal_us),
            seconds(incident.clean_hosts_waited_us),
            format!(
                "{}/{}",
                incident.clean_requests_failed, incident.clean_requests
            ),
            format!("{} of {}", incident.tried, outcome.locked_hosts),
            seconds(incident.refused_after_us),
            outcome.leaked.to_string(),
        ]
    }
}

/// What the cells of a row say.
pub const HEADINGS: [&str; 11] = [
    "fault",
    "result",
    "lasted",
    "whole after",
    "clean cut",
    "normal cut",
    "one waited",
    "failed",
    "packets of locked",
    "last through",
    "leaked",
];

fn seconds(micros: u64) -> String {
    format!("{:.2} s", micros as f64 / 1e6)
}

/// One fault in a line, and what else there is to say of it.
impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.fault.name(), self.word())?;
        for remark in self.remarks() {
            write!(f, "\n  {remark}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRACE: Duration = Duration::from_millis(700);

    /// What a fault did that cut clean hosts off for so long, where that is normal for so long.
    fn outcome(fault: Fault, cut: Duration, normal: Duration) -> Outcome {
        Outcome {
            incident: Incident {
                fault,
                at_us: 0,
                ceased_us: 0,
                over_us: 0,
                noted: Vec::new(),
                clean_hosts_cut_us: micros(cut),
                clean_requests: 9,
                clean_requests_failed: 0,
                tried: 9,
                clean_hosts_waited_us: 0,
                refused_after_us: 0,
            },
            normal_us: micros(normal),
            limit_us: micros(limit(fault, GRACE, 1)),
            whole_after_us: 0,
            locked_hosts: 9,
            void: 0,
            leaked: 0,
            excused: 0,
            web_failures: 0,
            findings: Vec::new(),
        }
    }

    const NEVER: Duration = Duration::ZERO;

    #[test]
    fn a_second_is_what_a_fault_may_cost_and_nothing_what_promises_that_nobody_notices() {
        let second = Duration::from_millis(1_000);
        assert_eq!(outcome(Fault::Kill, second, NEVER).word(), "held");
        let more = Duration::from_millis(1_001);
        assert_eq!(outcome(Fault::Kill, more, NEVER).word(), "interrupted");
        for fault in [Fault::Reload, Fault::ReloadOften, Fault::HandOver] {
            assert_eq!(outcome(fault, second, NEVER).word(), "interrupted");
            assert_eq!(outcome(fault, GRACE, NEVER).word(), "held");
        }
    }

    #[test]
    fn what_happens_without_a_device_as_well_is_not_its_doing() {
        let cut = Duration::from_secs(3);
        let normal = Duration::from_secs(2);
        assert_eq!(outcome(Fault::LinkFlap, cut, normal).word(), "held");
        assert_eq!(outcome(Fault::LinkFlap, cut, NEVER).word(), "interrupted");
    }

    #[test]
    fn nothing_shown_comes_before_a_leak_and_a_leak_before_the_web() {
        let mut hurt = outcome(Fault::Kill, NEVER, NEVER);
        hurt.web_failures = 1;
        assert_eq!(hurt.word(), "interrupted");
        hurt.leaked = 1;
        assert_eq!(hurt.word(), "leaked");
        hurt.void = 1;
        assert_eq!(hurt.word(), "void");
    }

    #[test]
    fn a_fault_that_could_not_be_brought_about_is_named_with_the_reason() {
        let row = Row::skipped(Fault::WorkerStuck, "strace is not installed".to_owned());
        assert_eq!(row.word(), "skipped");
        assert_eq!(row.remarks(), ["skipped: strace is not installed"]);
        assert_eq!(row.cells()[..3], ["worker_stuck", "skipped", "-"]);
        let row = Row::failed(Fault::Kill, "no answer".to_owned());
        assert_eq!((row.word(), row.outcome()), ("void", None));
    }
}
