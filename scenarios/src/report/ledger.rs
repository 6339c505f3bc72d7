//! The ledger as a table: a host's two runs beneath each other, a column per level.

use maud::{Markup, html};

use super::page::wide;
use super::words::{furthest_phrase, heading};
use crate::judge::Finding;
use crate::level::Level;
use crate::outcome::{HostRun, Outcome};

/// Hosts that tried or reached anything; none if nobody did.
pub(super) fn table(outcome: &Outcome) -> Option<Markup> {
    let mut hosts: Vec<_> = outcome
        .hosts
        .iter()
        .filter(|(_, host)| is_involved(&host.off) || is_involved(&host.on))
        .collect();
    if hosts.is_empty() {
        return None;
    }
    // By number: client2 before client10.
    hosts.sort_by_key(|(name, _)| (name.len(), name.as_str()));
    let table = html! {
        table.ledger {
            caption { "Contacts by how far they got, as the witnesses saw them" }
            thead {
                tr {
                    th scope="col" { "host" }
                    th scope="col" { "device" }
                    th.number scope="col" { "attempts" }
                    @for level in Level::ALL {
                        th.number scope="col" title=(level.name()) { (heading(level)) }
                    }
                    th.number scope="col" title="replies forged in a peer's name" { "forged replies" }
                    th scope="col" { "furthest" }
                }
            }
            @for (name, host) in hosts {
                tbody {
                    tr {
                        th scope="rowgroup" rowspan="2" { (name) }
                        th.run scope="row" { "none" }
                        (cells(outcome, None, &host.off))
                    }
                    tr.on {
                        th.run scope="row" { (outcome.device) }
                        (cells(outcome, Some(name), &host.on))
                    }
                }
            }
        }
    };
    Some(wide("Ledger", &table))
}

fn is_involved(run: &HostRun) -> bool {
    run.attempts > 0 || run.level.is_some()
}

/// A run's numbers; those that a finding objects to are marked with a word, not by colour alone.
fn cells(outcome: &Outcome, host: Option<&String>, run: &HostRun) -> Markup {
    html! {
        td.number { (run.attempts) }
        @for level in Level::ALL {
            @let count = run.contacts.get(&level).copied().unwrap_or(0);
            @if host.is_some_and(|host| is_leak(outcome, host, level)) {
                td.number.leak { strong { (count) } " leak" }
            } @else if count == 0 {
                td.number.nothing { "0" }
            } @else {
                td.number { (count) }
            }
        }
        td.number class=[(run.forged == 0).then_some("nothing")] { (run.forged) }
        td.furthest class=[run.level.is_none().then_some("nothing")] { (furthest_phrase(run.level)) }
    }
}

fn is_leak(outcome: &Outcome, host: &str, wanted: Level) -> bool {
    outcome.findings.iter().any(|finding| match finding {
        Finding::Leak { sighting, .. } => sighting.host == host && sighting.level == wanted,
        _ => false,
    })
}
