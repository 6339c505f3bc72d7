//! The first page: what did not hold, then every scenario in a line.

use std::collections::BTreeSet;
use std::time::Duration;

use maud::{Markup, html};

use super::Entry;
use super::drawing::{Drawing, px};
use super::page::{fact, page, wide};
use super::words::{
    badge, counted, finding as finding_text, findings, furthest, furthest_phrase, phrase, requests,
    summary,
};
use crate::judge::{Expectation, Weight};
use crate::level::Level;
use crate::outcome::Totals;

/// Findings of one scenario that are quoted here; its own page has them all.
const MOST_FINDINGS: usize = 3;

/// The page; `shown` are those of `entries` that have a page of their own.
pub(super) fn render(entries: &[Entry<'_>], shown: &[Entry<'_>], totals: &Totals) -> String {
    let unshown = entries.len() - shown.len();
    let body = html! {
        (headline(entries, totals))
        (troubles(shown))
        (wide("Scenarios", &table(shown)))
        @if unshown > 0 {
            p.note {
                "Of each scenario the first seed is listed, and every one that did not hold. "
                (unshown) " more held or were skipped."
            }
        }
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
        p.lead { "Each scenario was played without a device, to make contact, and with one, to prevent it." }
        dl.facts {
            (fact("played", &played.to_string()))
            @if totals.skipped > 0 { (fact("skipped", &totals.skipped.to_string())) }
            (fact("void", &totals.void.to_string()))
            (fact("leaked", &totals.leaked.to_string()))
            (fact("web requests ok", &share(entries)))
            (fact("hurt", &totals.web_failures.to_string()))
            @for (name, value) in setting(entries) { (fact(name, &value)) }
            (fact("time played", &format!("{:.0} s", took.as_secs_f64())))
        }
        p.totals { code { (totals) } }
    }
}

/// Ordinary requests with the device on that came through, of all.
fn share(entries: &[Entry<'_>]) -> String {
    let all = entries
        .iter()
        .map(|entry| requests(entry.outcome, |host| &host.on));
    let (asked, failed) = all.fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
    format!("{} of {asked}", asked - failed)
}

/// Device and seed; scenarios about a device of their own are left out.
fn setting(entries: &[Entry<'_>]) -> [(&'static str, String); 2] {
    let usual = entries
        .iter()
        .filter(|entry| entry.scenario.pinned.is_none());
    let devices: BTreeSet<_> = usual.map(|entry| entry.outcome.device.name()).collect();
    let devices: Vec<_> = devices.into_iter().collect();
    let seeds: BTreeSet<_> = entries.iter().map(|entry| entry.outcome.seed).collect();
    let seeds = match (seeds.first(), seeds.last()) {
        (Some(first), Some(last)) if first != last => format!("{first} to {last}"),
        (first, _) => first.map_or_else(|| "-".to_owned(), u64::to_string),
    };
    [("device", devices.join(", ")), ("seed", seeds)]
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
                    @for finding in findings(entry.outcome).into_iter().take(MOST_FINDINGS) {
                        li { (finding_text(finding, entry.outcome.timelines.as_ref())) }
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
                    th scope="col" { "scenario" }
                    th scope="col" { "result" }
                    th.minor scope="col" { "contact," br; "no device" }
                    th scope="col" { "contact," br; "with device" }
                    th.number.minor scope="col" { "web ok," br; "no device" }
                    th.number scope="col" { "web ok," br; "with device" }
                    th.number.minor scope="col" { "device" }
                    th.number.minor scope="col" { "seed" }
                    th.number.minor scope="col" { "took" }
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
                a href=(entry.file_name()) {
                    @for word in outcome.scenario.split_inclusive('_') { (word) wbr; }
                }
                span.about { (entry.scenario.about) }
            }
            td title=(summary(entry)) {
                (badge(outcome))
                @if matches!(entry.scenario.expectation, Expectation::Breached(_)) {
                    span.about { "counter-example" }
                }
            }
            @if outcome.skipped.is_some() {
                td.nothing.minor {}
                td.nothing colspan="2" { (summary(entry)) }
                td.nothing.minor {}
            } @else {
                td.minor { (ladder(furthest(outcome, |host| &host.off), "step reached")) }
                td { (ladder(furthest(outcome, |host| &host.on), looks(entry))) }
                td.number.minor { (web(requests(outcome, |host| &host.off))) }
                td.number { (web(requests(outcome, |host| &host.on))) }
            }
            td.number.minor { (outcome.device) }
            td.number.minor { (outcome.seed) }
            td.number.minor { (format!("{:.1} s", outcome.took.as_secs_f64())) }
        }
    }
}

fn web((asked, failed): (usize, usize)) -> Markup {
    html! {
        @if asked == 0 { span.nothing { "none" } } @else { (asked - failed) "/" (asked) }
    }
}

/// Steps are loud where contact was made that should not be, or that is to be shown.
fn looks(entry: Entry<'_>) -> &'static str {
    let is_leaked = entry.outcome.count(Weight::Leak) > 0;
    let is_shown = matches!(entry.scenario.expectation, Expectation::Breached(_));
    if is_leaked || is_shown {
        "step reached"
    } else {
        "step allowed"
    }
}

/// How far up the ladder, as steps and in words.
fn ladder(reached: Option<Level>, class: &str) -> Markup {
    const STEP: f64 = 9.0;
    const HEIGHT: f64 = 16.0;
    let words = furthest_phrase(reached);
    let content = html! {
        @for (number, level) in Level::ALL.into_iter().enumerate() {
            @let tall = 5.0 + 2.0 * number as f64;
            @let is_reached = reached.is_some_and(|reached| level <= reached);
            rect class=(if is_reached { class } else { "step" })
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
