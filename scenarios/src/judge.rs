//! What a scenario's two runs mean: held, void, leaked, or the web hurt.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use simulator::report::{AttemptKind, Mode};

use crate::ledger::{Ledger, Row};
use crate::level::Level;
use crate::observe::{Disagreement, Sighting, UNKNOWN_HOST};
use crate::web::{End, Request, WebAccount};

/// How long after a host gave itself away its next dials may still complete: the time in which a
/// gateway gets a packet from the kernel, decides, and has the kernel know the host as locked, on
/// two cores that run a whole catalogue beside it.
pub const LOCK_GRACE: Duration = Duration::from_millis(500);

/// How much longer than twice its usual time a request may take before it counts as slow. On two
/// cores shared with other scenarios a thread may wait some hundred milliseconds for its turn; a
/// lost SYN costs one second and must not hide in the grace.
pub const SLOW_GRACE: Duration = Duration::from_millis(700);

/// Ports on which the first byte, not the SYN, tells a peer from a web server: dials there may
/// complete even once a host is known, but nothing may be said over them.
const WEB_PORTS: [u16; 2] = [80, 443];

/// What a scenario expects of one host.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HostTerms {
    /// The levels it must reach without a device, or the scenario proves nothing.
    pub must_reach: BTreeSet<Level>,
    /// What it must at least have tried with the device on, for silence is not protection.
    pub must_try: BTreeSet<AttemptKind>,
    /// Modes it must have gone through with the device on.
    pub must_enter: BTreeSet<Mode>,
    /// How many dials its kind of client has in flight at once, which bounds what may complete
    /// before a gateway can know the host.
    pub dials_in_flight: usize,
    /// Whether it gives no sign before its first opener, which then may arrive.
    pub opens_unannounced: bool,
    /// How often the device begins anew meanwhile. What it had noticed but held to be proof of nothing, a
    /// first opener among it, is forgotten then.
    pub restarts: usize,
    /// Whether it must have made ordinary requests.
    pub browses: bool,
}

/// What must come of the run with the device on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expectation {
    /// No contact, and the web as without a device.
    Protected,
    /// The device is a counter-example and must be seen to fail: some host reaches this level.
    Breached(Level),
}

/// What a scenario expects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Terms {
    /// Per host by name.
    pub hosts: BTreeMap<String, HostTerms>,
    /// With the device on.
    pub expectation: Expectation,
    /// Time allowed to a request over twice its usual time.
    pub slow_grace: Duration,
}

/// One run, ready to be judged.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Run {
    /// Contacts.
    pub ledger: Ledger,
    /// The control group.
    pub web: WebAccount,
    /// What went wrong with the run itself: a process that died, a device that did not stop.
    pub mishaps: Vec<String>,
}

/// Something a scenario's judgement rests on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "finding", rename_all = "snake_case")]
pub enum Finding {
    /// Without a device a host did not reach what it must: the run with it proves nothing.
    ControlMissed {
        /// The host.
        host: String,
        /// The level it should have reached.
        level: Level,
    },
    /// With the device on a host did not even try.
    NotTried {
        /// The host.
        host: String,
        /// What it should have tried.
        what: String,
    },
    /// The control group was silent, or failed even without a device.
    WebControl {
        /// The host.
        host: String,
        /// What was wrong.
        why: String,
    },
    /// Two witnesses contradict each other.
    WitnessesDisagree(Disagreement),
    /// A counter-example protected, so the stage does not show what it claims to.
    NotBreached {
        /// The level that should have been reached.
        level: Level,
    },
    /// The run itself went wrong.
    Mishap {
        /// What happened, as a sentence.
        what: String,
    },
    /// A contact that must not happen, with the first one seen.
    Leak {
        /// The first sighting beyond what is allowed.
        sighting: Sighting,
        /// How many contacts reached the level.
        contacts: usize,
        /// How many were allowed.
        allowed: usize,
    },
    /// An ordinary request failed with the device on.
    WebFailed(Request),
    /// An ordinary request was much slower than without the device.
    WebSlow {
        /// The request.
        request: Request,
        /// The longest time that would have passed.
        limit: Duration,
    },
}

/// What a finding does to the result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Weight {
    /// Nothing is shown, whatever else was seen.
    Void,
    /// Contact was made.
    Leak,
    /// The web was hurt.
    Web,
}

impl Finding {
    /// What the finding does to the result.
    #[must_use]
    pub fn weight(&self) -> Weight {
        match self {
            Self::ControlMissed { .. }
            | Self::NotTried { .. }
            | Self::WebControl { .. }
            | Self::WitnessesDisagree(_)
            | Self::NotBreached { .. }
            | Self::Mishap { .. } => Weight::Void,
            Self::Leak { .. } => Weight::Leak,
            Self::WebFailed(_) | Self::WebSlow { .. } => Weight::Web,
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ControlMissed { host, level } => {
                write!(f, "void: without a device {host} never reached {level}")
            }
            Self::NotTried { host, what } => {
                write!(f, "void: with the device on {host} never tried {what}")
            }
            Self::WebControl { host, why } => write!(f, "void: control group of {host}: {why}"),
            Self::WitnessesDisagree(disagreement) => {
                let sighting = &disagreement.sighting;
                write!(
                    f,
                    "void: {} ({}, {}, {})",
                    disagreement.sentence, sighting.host, sighting.level, sighting.flow
                )
            }
            Self::NotBreached { level } => {
                write!(
                    f,
                    "void: the device was to be shown failing, yet nobody reached {level}"
                )
            }
            Self::Mishap { what } => write!(f, "void: {what}"),
            Self::Leak {
                sighting,
                contacts,
                allowed,
            } => write!(
                f,
                "leak: {} {} times by {} ({allowed} allowed), first at {} us, {}, seen by the {}",
                sighting.level,
                contacts,
                sighting.host,
                sighting.at_us,
                sighting.flow,
                sighting.witness
            ),
            Self::WebFailed(request) => match &request.end {
                End::Failed(took, why) => write!(
                    f,
                    "web: {} of {} failed after {took:.1?}: {why}",
                    request.kind, request.host
                ),
                End::Ok(took) | End::Open(took) => write!(
                    f,
                    "web: {} of {} was still open after {took:.1?}",
                    request.kind, request.host
                ),
            },
            Self::WebSlow { request, limit } => write!(
                f,
                "web: {} of {} took {:.1?}, over the limit of {limit:.1?}",
                request.kind,
                request.host,
                request.took()
            ),
        }
    }
}

/// Judges a scenario by its run without a device and its run with one.
#[must_use]
pub fn judge(terms: &Terms, off: &Run, on: &Run) -> Vec<Finding> {
    let mut findings = control(terms, off);
    findings.extend(effect(terms, &off.web, on));
    findings
}

/// Judges a run without a device: whether the same run with one can show anything.
#[must_use]
pub fn control(terms: &Terms, off: &Run) -> Vec<Finding> {
    let mut findings = positive_control(terms, off);
    findings.extend(trouble(off));
    findings
}

/// Judges a run with a device on, by what is usual of the web without.
#[must_use]
pub fn effect(terms: &Terms, usual: &WebAccount, on: &Run) -> Vec<Finding> {
    let mut findings = effort(terms, on);
    findings.extend(trouble(on));
    match terms.expectation {
        Expectation::Protected => {
            findings.extend(leaks(terms, &on.ledger));
            findings.extend(web(terms, usual, on));
        }
        Expectation::Breached(level) => findings.extend(breach(level, &on.ledger)),
    }
    findings
}

/// What is wrong with a run itself.
fn trouble(run: &Run) -> impl Iterator<Item = Finding> {
    let disagreements = run.ledger.disagreements.iter().cloned();
    let mishaps = run.mishaps.iter().cloned();
    disagreements
        .map(Finding::WitnessesDisagree)
        .chain(mishaps.map(|what| Finding::Mishap { what }))
}

/// What the run without a device must have shown.
fn positive_control(terms: &Terms, off: &Run) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (host, expected) in &terms.hosts {
        let reached = off
            .ledger
            .rows
            .get(host)
            .map(Row::levels)
            .unwrap_or_default();
        findings.extend(expected.must_reach.difference(&reached).map(|&level| {
            Finding::ControlMissed {
                host: host.clone(),
                level,
            }
        }));
        if expected.browses && off.web.of(host).next().is_none() {
            findings.push(web_control(host, "no request without a device"));
        }
    }
    findings.extend(
        off.web
            .requests
            .iter()
            .filter_map(|request| match &request.end {
                End::Failed(_, why) => {
                    let why = format!("{} failed even without a device: {why}", request.kind);
                    Some(web_control(&request.host, &why))
                }
                End::Ok(_) | End::Open(_) => None,
            }),
    );
    findings
}

/// What the hosts must have tried with the device on: silence is not protection.
fn effort(terms: &Terms, on: &Run) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (host, expected) in &terms.hosts {
        let untried = untried(expected, on.ledger.rows.get(host));
        findings.extend(untried.into_iter().map(|what| Finding::NotTried {
            host: host.clone(),
            what,
        }));
        if expected.browses && on.web.of(host).next().is_none() {
            findings.push(web_control(host, "no request with the device on"));
        }
    }
    findings
}

/// What a host has left out; a host that was answered had no reason to try anything else.
fn untried(expected: &HostTerms, row: Option<&Row>) -> Vec<String> {
    let answers = [Level::ProbeAnswered, Level::Session, Level::Transfer];
    if row.is_some_and(|row| answers.iter().any(|level| row.count(*level) > 0)) {
        return Vec::new();
    }
    let tried = |kind: &&AttemptKind| row.is_some_and(|row| row.attempts.contains_key(kind));
    let entered = |mode: &&Mode| row.is_some_and(|row| row.modes.contains(mode));
    let kinds = expected.must_try.iter().filter(|kind| !tried(kind));
    let modes = expected.must_enter.iter().filter(|mode| !entered(mode));
    kinds
        .map(|kind| format!("{kind:?}"))
        .chain(modes.map(|mode| format!("{mode:?}")))
        .collect()
}

fn web_control(host: &str, why: &str) -> Finding {
    Finding::WebControl {
        host: host.to_owned(),
        why: why.to_owned(),
    }
}

/// Contacts beyond what is allowed, one finding per host and level.
fn leaks(terms: &Terms, ledger: &Ledger) -> Vec<Finding> {
    ledger
        .rows
        .iter()
        .flat_map(|(host, row)| {
            let expected = terms.hosts.get(host).cloned().unwrap_or_default();
            Level::ALL
                .into_iter()
                .filter_map(move |level| leak(&expected, host, row, level))
                .chain(late_touch(host, row))
        })
        .collect()
}

fn leak(expected: &HostTerms, host: &str, row: &Row, level: Level) -> Option<Finding> {
    let counted: Vec<_> = match level {
        Level::Touched => row
            .at(level)
            .into_iter()
            .filter(|sighting| !to_web_port(sighting))
            .collect(),
        Level::ProbeOut
        | Level::ProbeAnswered
        | Level::Opened
        | Level::Session
        | Level::Transfer => row.at(level),
    };
    let allowed = match level {
        _ if host == UNKNOWN_HOST => 0,
        Level::Touched => expected.dials_in_flight + row.ended,
        Level::Opened if expected.opens_unannounced => {
            expected.dials_in_flight * (1 + expected.restarts)
        }
        Level::ProbeOut
        | Level::ProbeAnswered
        | Level::Opened
        | Level::Session
        | Level::Transfer => 0,
    };
    let first = counted.get(allowed)?;
    Some(Finding::Leak {
        sighting: (*first).clone(),
        contacts: counted.len(),
        allowed,
    })
}

/// A handshake that completed although the host must have been known by then.
fn late_touch(host: &str, row: &Row) -> Option<Finding> {
    let late = touched_late(row);
    let first = late.first()?;
    debug_assert_eq!(first.host, host, "a row holds its own host's sightings");
    Some(Finding::Leak {
        sighting: (*first).clone(),
        contacts: late.len(),
        allowed: 0,
    })
}

/// Handshakes that completed after the host must have been known, web ports left out.
#[must_use]
pub fn touched_late(row: &Row) -> Vec<&Sighting> {
    let Some(identified_us) = row.identified_us else {
        return Vec::new();
    };
    let grace = u64::try_from(LOCK_GRACE.as_micros()).unwrap_or(u64::MAX);
    row.at(Level::Touched)
        .into_iter()
        .filter(|sighting| sighting.at_us > identified_us.saturating_add(grace))
        .filter(|sighting| !to_web_port(sighting))
        .collect()
}

fn to_web_port(sighting: &Sighting) -> bool {
    WEB_PORTS.contains(&sighting.flow.peer.port())
}

/// What the device did to the control group.
fn web(terms: &Terms, usual: &WebAccount, on: &Run) -> Vec<Finding> {
    on.web
        .requests
        .iter()
        .filter_map(|request| {
            let usual = usual.usual(&request.kind).unwrap_or_default();
            let limit = usual * 2 + terms.slow_grace;
            let late = request.took() > limit;
            match &request.end {
                End::Failed(..) => Some(Finding::WebFailed(request.clone())),
                End::Open(_) if late => Some(Finding::WebFailed(request.clone())),
                End::Ok(_) if late => Some(Finding::WebSlow {
                    request: request.clone(),
                    limit,
                }),
                End::Ok(_) | End::Open(_) => None,
            }
        })
        .collect()
}

/// Whether a counter-example failed to protect, as it must.
fn breach(level: Level, ledger: &Ledger) -> Option<Finding> {
    let breached = ledger
        .rows
        .values()
        .any(|row| row.levels().contains(&level));
    (!breached).then_some(Finding::NotBreached { level })
}
