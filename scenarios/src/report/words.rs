//! Words that several pages use: verdicts, levels, families, times.

use std::cmp::Reverse;
use std::time::Duration;

use maud::{Markup, html};
use simulator::report::{AttemptKind, Failure, Mode, Part};

use super::Entry;
use crate::judge::{Expectation, Finding, Weight};
use crate::level::Level;
use crate::outcome::{HostOutcome, HostRun, Outcome};
use crate::scenario::Actor;
use crate::timeline::Timelines;

/// The verdict as a badge: a sign, a word, and only then a colour.
pub(super) fn badge(outcome: &Outcome) -> Markup {
    let (class, sign) = look(outcome);
    html! {
        span class={ "badge " (class) } {
            span aria-hidden="true" { (sign) } " " (outcome.word().to_lowercase())
        }
    }
}

fn look(outcome: &Outcome) -> (&'static str, &'static str) {
    if outcome.skipped.is_some() {
        ("skipped", "○")
    } else if outcome.findings.is_empty() {
        ("held", "✓")
    } else if outcome.count(Weight::Void) > 0 {
        ("void", "?")
    } else {
        ("bad", "✕")
    }
}

/// What came of a scenario, in a sentence or two.
pub(super) fn summary(entry: Entry<'_>) -> String {
    let Entry { scenario, outcome } = entry;
    if let Some(why) = &outcome.skipped {
        return format!("Not played: {why}.");
    }
    if outcome.hosts.is_empty() {
        return "The stage could not be set or fell down.".to_owned();
    }
    let device = outcome.device;
    match scenario.expectation {
        Expectation::Protected => format!("{}{}", contacts(outcome), web(outcome)),
        Expectation::Breached(level) => {
            let reached = furthest(outcome, |host| &host.on);
            format!(
                "A counter-example: {device} is shown failing, and somebody must get as far as {}. \
                 {} was reached.",
                phrase(level),
                reached.map_or("Nothing".to_owned(), |level| capitalised(phrase(level))),
            )
        }
    }
}

fn contacts(outcome: &Outcome) -> String {
    let tried: usize = outcome.hosts.values().map(|host| host.on.attempts).sum();
    if tried == 0 {
        return String::new();
    }
    let device = outcome.device;
    match furthest(outcome, |host| &host.on) {
        None => format!("{tried} attempts with {device} on, and nothing got through. "),
        Some(Level::Touched) => format!(
            "{tried} attempts with {device} on: {} empty TCP handshakes, and not a byte over them. ",
            reached(outcome, Level::Touched)
        ),
        Some(level) => format!(
            "{tried} attempts with {device} on; the furthest got to {} ({} times). ",
            phrase(level),
            reached(outcome, level)
        ),
    }
}

fn reached(outcome: &Outcome, level: Level) -> usize {
    let count = |host: &HostOutcome| host.on.contacts.get(&level).copied().unwrap_or(0);
    outcome.hosts.values().map(count).sum()
}

fn web(outcome: &Outcome) -> String {
    let (asked, failed) = requests(outcome, |host| &host.on);
    match (asked, failed) {
        (0, _) => String::new(),
        (asked, 0) => format!("All {asked} ordinary requests came through."),
        (asked, failed) => format!("{failed} of {asked} ordinary requests failed."),
    }
}

/// Ordinary requests of one of the two runs: how many, and how many of them failed.
pub(super) fn requests(outcome: &Outcome, run: fn(&HostOutcome) -> &HostRun) -> (usize, usize) {
    outcome
        .hosts
        .values()
        .map(run)
        .fold((0, 0), |(asked, failed), run| {
            (asked + run.web_requests, failed + run.web_failed)
        })
}

/// The worst level that any host got to in one of the two runs.
pub(super) fn furthest(outcome: &Outcome, run: fn(&HostOutcome) -> &HostRun) -> Option<Level> {
    outcome
        .hosts
        .values()
        .filter_map(|host| run(host).level)
        .max()
}

/// A finding as a sentence, with times counted from the beginning of the run it was made in.
pub(super) fn finding(finding: &Finding, timelines: Option<&Timelines>) -> String {
    let Finding::Leak {
        sighting,
        contacts,
        allowed,
    } = finding
    else {
        return capitalised(&finding.to_string());
    };
    let when = timelines.map_or_else(String::new, |timelines| {
        let since = sighting.at_us.saturating_sub(timelines.on.began_us);
        format!(" after {}", time(Duration::from_micros(since)))
    });
    let first = if *allowed == 0 {
        "the first"
    } else {
        "the first too many"
    };
    format!(
        "{}: {contacts} {} ({allowed} allowed), {first}{when}, {}, seen by the {}",
        sighting.host,
        heading(sighting.level),
        sighting.flow,
        sighting.witness
    )
}

/// An outcome's findings, the worst contacts first.
pub(super) fn findings(outcome: &Outcome) -> Vec<&Finding> {
    let mut findings: Vec<_> = outcome.findings.iter().collect();
    findings.sort_by_key(|finding| {
        let level = if let Finding::Leak { sighting, .. } = finding {
            Some(sighting.level)
        } else {
            None
        };
        (finding.weight(), Reverse(level))
    });
    findings
}

/// A level as a reader who does not know its name would say it.
pub(super) fn phrase(level: Level) -> &'static str {
    match level {
        Level::ProbeOut => "a ping that arrived",
        Level::ProbeAnswered => "an answered ping",
        Level::Touched => "a TCP handshake",
        Level::Opened => "an opener that arrived",
        Level::Session => "a session",
        Level::Transfer => "a file transfer",
    }
}

/// The furthest a host got, as briefly as a column asks for: nothing beyond an empty handshake.
pub(super) fn furthest_phrase(level: Option<Level>) -> &'static str {
    match level {
        None => "nothing",
        Some(Level::ProbeOut) => "ping arrived",
        Some(Level::ProbeAnswered) => "ping answered",
        Some(Level::Touched) => "empty handshake",
        Some(Level::Opened) => "opener",
        Some(Level::Session) => "session",
        Some(Level::Transfer) => "file transfer",
    }
}

/// A heading for a column of counts.
pub(super) fn heading(level: Level) -> &'static str {
    match level {
        Level::ProbeOut => "pings arrived",
        Level::ProbeAnswered => "pings answered",
        Level::Touched => "handshakes",
        Level::Opened => "openers arrived",
        Level::Session => "sessions",
        Level::Transfer => "transfers",
    }
}

pub(super) fn mode(mode: Mode) -> &'static str {
    match mode {
        Mode::UdpFlood => "UDP pings",
        Mode::ParallelTcp => "parallel dials",
        Mode::SerialTcp => "one dial at a time",
        Mode::Port80 => "dials to port 80",
    }
}

pub(super) fn attempt(kind: AttemptKind) -> &'static str {
    match kind {
        AttemptKind::Ping => "ping",
        AttemptKind::Dial => "dial",
        AttemptKind::Download => "request for a file",
        AttemptKind::Give => "offer of a file",
    }
}

pub(super) fn part(part: Part) -> &'static str {
    match part {
        Part::Ping => "ping",
        Part::Pong | Part::Pong2 | Part::PongAnswer => "pong",
        Part::Opener => "opener",
        Part::Answer => "handshake answer",
        Part::Session => "session",
        Part::Request => "file request",
        Part::Give => "GIVE",
        Part::Response => "response",
        Part::File => "file",
        Part::Other => "other bytes",
    }
}

pub(super) fn failure(why: Failure) -> &'static str {
    match why {
        Failure::Timeout => "timed out",
        Failure::Reset => "was reset",
        Failure::Closed => "was closed",
        Failure::Protocol => "got a wrong answer",
        Failure::Local => "was refused by its own system",
    }
}

/// What acts on a host, if anything does: the family of its client, and whether somebody browses.
pub(super) fn roles(entry: Entry<'_>, number: usize) -> (Option<&'static str>, bool) {
    let mut family = None;
    let mut browses = false;
    for actor in &entry.scenario.cast {
        match actor {
            Actor::Client(client) if client.host == number => family = Some(client.profile.name),
            Actor::Browser(browser) if browser.host == number => browses = true,
            Actor::RealWeb(web) if web.hosts.contains(&number) => browses = true,
            Actor::Client(_)
            | Actor::Browser(_)
            | Actor::RealWeb(_)
            | Actor::Peers(_)
            | Actor::WebServer => {}
        }
    }
    (family, browses)
}

/// A time as people read it: `0.3 ms`, `42 ms`, `1.25 s`.
pub(super) fn time(time: Duration) -> String {
    let ms = time.as_secs_f64() * 1000.0;
    if ms >= 1000.0 {
        format!("{:.2} s", ms / 1000.0)
    } else if ms >= 10.0 {
        format!("{ms:.0} ms")
    } else {
        format!("{ms:.1} ms")
    }
}

/// A number and a noun in the fitting number.
pub(super) fn counted(count: usize, one: &str, more: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { more })
}

pub(super) fn capitalised(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| {
        first.to_uppercase().chain(letters).collect()
    })
}
