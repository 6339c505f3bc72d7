//! The first page: what did not hold, then every scenario in a line.

use std::time::Duration;

use maud::{Markup, html};

use super::Entry;
use super::drawing::{Drawing, px};
use super::page::{page, wide};
use super::words::{badge, counted, furthest, phrase, requests, summary};
use crate::judge::Expectation;
use crate::level::Level;
use crate::outcome::Totals;

/// Findings of one scenario that are quoted here; its own page has them all.
const MOST_FINDINGS: usize = 3;

pub(super) fn render(entries: &[Entry<'_>], totals: &Totals) -> String {
    let body = html! {
        (headline(entries, totals))
        (troubles(entries))
        (wide("Scenarios", &table(entries)))
        (legend())
        p.files {
            "For programs: "
            a href="junit.xml" { "junit.xml" } " and "
            a href="outcomes.json" { "outcomes.json" } "."
        }
    };
    page("ftwall scenarios", true, &body)
}

fn headline(entries: &[Entry<'_>], totals: &Totals) -> Markup {
    let played = totals.scenarios - totals.skipped;
    let broken = entries
        .iter()
        .filter(|entry| !entry.outcome.findings.is_empty())
        .count();
    let took: Duration = entries.iter().map(|entry| entry.outcome.took).sum();
    let scenarios = counted(played, "scenario", "scenarios");
    html! {
        h1 {
            @if broken == 0 { "All held" } @else { (broken) " of " (scenarios) " did not hold" }
        }
        p.lead {
            (scenarios) " played"
            @if totals.skipped > 0 { ", " (totals.skipped) " skipped" }
            ", each without a device and with one: "
            (totals.void) " void, " (totals.leaked) " leaked, "
            (counted(totals.web_failures, "ordinary request", "ordinary requests")) " hurt. "
            (setting(entries)) " " (format!("{:.0}", took.as_secs_f64())) " s of playing."
        }
        p.totals { code { (totals) } }
    }
}

/// Device and seed where they are the same for all; a scenario may be about a device of its own.
fn setting(entries: &[Entry<'_>]) -> String {
    let mut devices: Vec<_> = entries
        .iter()
        .filter(|entry| entry.scenario.pinned.is_none())
        .map(|entry| entry.outcome.device.name())
        .collect();
    devices.sort_unstable();
    devices.dedup();
    let mut seeds: Vec<_> = entries.iter().map(|entry| entry.outcome.seed).collect();
    seeds.sort_unstable();
    seeds.dedup();
    let seeds = match seeds.as_slice() {
        [] => String::new(),
        [seed] => format!("Seed {seed}."),
        seeds => format!("{} seeds.", seeds.len()),
    };
    match devices.as_slice() {
        [] => seeds,
        devices => format!("Device {}. {seeds}", devices.join(", ")),
    }
}

/// What did not hold comes first: it is what the page is opened for.
fn troubles(entries: &[Entry<'_>]) -> Markup {
    let broken = entries
        .iter()
        .filter(|entry| !entry.outcome.findings.is_empty());
    html! {
        @for entry in broken {
            section.trouble {
                h2 {
                    a href=(entry.file_name()) { (entry.outcome.scenario) } " "
                    (badge(entry.outcome))
                }
                ul {
                    @for finding in entry.outcome.findings.iter().take(MOST_FINDINGS) {
                        li { (finding) }
                    }
                }
                @let unsaid = entry.outcome.findings.len().saturating_sub(MOST_FINDINGS);
                @if unsaid > 0 { p { "and " (counted(unsaid, "finding", "findings")) " more" } }
            }
        }
    }
}

fn table(entries: &[Entry<'_>]) -> Markup {
    html! {
        table.index {
            caption { "Every scenario: how far contact got, and what became of the web" }
            thead {
                tr {
                    th scope="col" rowspan="2" { "scenario" }
                    th scope="col" rowspan="2" { "result" }
                    th scope="colgroup" colspan="2" { "furthest contact" }
                    th.number scope="colgroup" colspan="2" { "web requests ok" }
                    th.number scope="col" rowspan="2" { "device" }
                    th.number scope="col" rowspan="2" { "seed" }
                    th.number scope="col" rowspan="2" { "took" }
                }
                tr {
                    th scope="col" { "no device" }
                    th scope="col" { "with it" }
                    th.number scope="col" { "no device" }
                    th.number scope="col" { "with it" }
                }
            }
            tbody { @for entry in entries { (row(*entry)) } }
        }
    }
}

fn row(entry: Entry<'_>) -> Markup {
    let outcome = entry.outcome;
    html! {
        tr {
            th scope="row" {
                a href=(entry.file_name()) { (outcome.scenario) }
                span.about { (entry.scenario.about) }
            }
            td title=(summary(entry)) {
                (badge(outcome))
                @if matches!(entry.scenario.expectation, Expectation::Breached(_)) {
                    span.about { "counter-example" }
                }
            }
            @if outcome.skipped.is_some() {
                td.nothing colspan="4" { (summary(entry)) }
            } @else {
                td { (ladder(furthest(outcome, |host| &host.off))) }
                td { (ladder(furthest(outcome, |host| &host.on))) }
                td.number { (web(requests(outcome, |host| &host.off))) }
                td.number { (web(requests(outcome, |host| &host.on))) }
            }
            td.number { (outcome.device) }
            td.number { (outcome.seed) }
            td.number { (format!("{:.1} s", outcome.took.as_secs_f64())) }
        }
    }
}

fn web((asked, failed): (usize, usize)) -> Markup {
    html! {
        @if asked == 0 { span.nothing { "none" } } @else { (asked - failed) "/" (asked) }
    }
}

/// How far up the ladder, as steps and in words.
fn ladder(reached: Option<Level>) -> Markup {
    const STEP: f64 = 9.0;
    const HEIGHT: f64 = 16.0;
    let steps = Level::ALL.into_iter().enumerate();
    let words = reached.map_or("nothing", phrase);
    let content = html! {
        @for (number, level) in steps {
            @let tall = 5.0 + 2.0 * number as f64;
            @let is_reached = reached.is_some_and(|reached| level <= reached);
            rect class=(if is_reached { "step reached" } else { "step" })
                x=(px(number as f64 * STEP)) y=(px(HEIGHT - tall))
                width=(px(STEP - 2.0)) height=(px(tall)) {}
        }
    };
    let drawing = Drawing {
        class: "ladder",
        width: 6.0 * STEP,
        height: HEIGHT,
        title: words,
    };
    html! { (drawing.draw(&content)) span.about { (words) } }
}

fn legend() -> Markup {
    html! {
        section.notes {
            h2 { "How to read this" }
            p {
                "Each scenario is played twice with the same seed. Without a device its clients must make \
                 contact, or it shows nothing and is " strong { "void" } ". With the device on, a contact \
                 beyond what is allowed makes it " strong { "leaked" } "; an ordinary request that fails or \
                 is much slower makes it " strong { "web hurt" } "; else it has " strong { "held" } ". In a "
                em { "counter-example" } " the device must be seen to fail."
            }
            p {
                "The steps of the ladder: "
                @for (number, level) in Level::ALL.into_iter().enumerate() {
                    @if number > 0 { ", " }
                    (phrase(level))
                }
                ". A TCP handshake without a byte over it is allowed until a host is known."
            }
        }
    }
}
