//! The run as JUnit XML, which build machines read.
//!
//! A leak or a hurt request is a failure; a scenario that shows nothing is an error.

use maud::{Markup, PreEscaped, html};

use super::{Entry, Table};
use crate::judge::Weight;
use crate::outcome::Outcome;

/// The whole document.
pub(super) fn document(entries: &[Entry<'_>]) -> String {
    let outcomes = || entries.iter().map(|entry| entry.outcome);
    let failed = outcomes().filter(|outcome| is_failed(outcome)).count();
    let void = outcomes().filter(|outcome| is_void(outcome)).count();
    let skipped = outcomes()
        .filter(|outcome| outcome.skipped.is_some())
        .count();
    let took: f64 = outcomes().map(|outcome| outcome.took.as_secs_f64()).sum();
    let suite = html! {
        testsuite name="scenarios" tests=(entries.len()) failures=(failed) errors=(void)
            skipped=(skipped) time=(seconds(took)) {
            @for outcome in outcomes() { (case(outcome)) }
        }
    };
    let markup = html! {
        (PreEscaped("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n"))
        testsuites { (suite) }
    };
    markup.into_string()
}

fn case(outcome: &Outcome) -> Markup {
    let name = format!("{} seed {}", outcome.scenario, outcome.seed);
    let class = format!("scenarios.{}", outcome.device);
    let text = without_controls(&Table(outcome).to_string());
    let message = outcome
        .findings
        .first()
        .map(|finding| without_controls(&finding.to_string()));
    html! {
        testcase name=(without_controls(&name)) classname=(class)
            time=(seconds(outcome.took.as_secs_f64())) {
            @if let Some(why) = &outcome.skipped {
                skipped message=(without_controls(why)) {}
            } @else if is_void(outcome) {
                error type="void" message=[message] { (text) }
            } @else if is_failed(outcome) {
                failure type=(outcome.word().to_lowercase()) message=[message] { (text) }
            }
        }
    }
}

fn is_void(outcome: &Outcome) -> bool {
    outcome.count(Weight::Void) > 0
}

fn is_failed(outcome: &Outcome) -> bool {
    !outcome.findings.is_empty() && !is_void(outcome)
}

fn seconds(time: f64) -> String {
    format!("{time:.3}")
}

/// XML has no way at all to write most control characters, not even escaped.
fn without_controls(text: &str) -> String {
    let allowed = |character: char| match character {
        '\n' | '\t' => character,
        '\u{fffe}' | '\u{ffff}' => '\u{fffd}',
        character if character.is_control() => '\u{fffd}',
        character => character,
    };
    text.chars().map(allowed).collect()
}
