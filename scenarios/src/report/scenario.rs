//! The page of one scenario: verdict, findings, network, ledger, what happened, web, how to repeat it.

use std::path::{Path, PathBuf};

use maud::{Markup, html};
use simulator::report::Mode;

use super::page::{fact, page, wide};
use super::scale::Axis;
use super::words::{badge, capitalised, counted, roles, summary};
use super::{Entry, lanes, latency, ledger, topology, words};
use crate::judge::{Expectation, Finding};
use crate::observe::{Sighting, UNKNOWN_HOST};
use crate::scenario::{Actor, host_name};
use crate::timeline::{Timeline, Timelines, What};

/// Findings beyond this many are folded away.
const MOST_FINDINGS: usize = 12;

/// Hosts on which only ordinary users sit are drawn one by one up to this many.
const MOST_USERS: usize = 4;

/// The whole page; `records` are files by path from the directory it will stand in.
pub(super) fn render(entry: Entry<'_>, records: &[PathBuf]) -> String {
    let outcome = entry.outcome;
    let body = html! {
        (head(entry))
        (findings(entry))
        (kept(records))
        (section("network", "Network", Some(topology::drawing(entry))))
        (section("ledger", "Ledger", ledger::table(outcome)))
        @if let Some(timelines) = &outcome.timelines {
            (section("timeline", "What happened", timeline(entry, timelines)))
            @let web = latency::section(timelines, outcome.device, entry.scenario.slow_grace);
            (section("web", "Ordinary requests", web))
        }
        (section("replay", "Play it again", Some(replay(entry))))
    };
    page(
        &format!("{}: {}", outcome.scenario, outcome.word()),
        false,
        &body,
    )
}

fn section(id: &str, heading: &str, content: Option<Markup>) -> Markup {
    html! {
        @if let Some(content) = content {
            section id=(id) aria-labelledby={ (id) "-heading" } {
                h2 id={ (id) "-heading" } { (heading) }
                (content)
            }
        }
    }
}

fn head(entry: Entry<'_>) -> Markup {
    let Entry { scenario, outcome } = entry;
    html! {
        h1 { (outcome.scenario) " " (badge(outcome)) }
        p.lead { (capitalised(&scenario.about)) "." }
        p.summary { (summary(entry)) }
        dl.facts {
            (fact("device", &outcome.device.to_string()))
            (fact("seed", &outcome.seed.to_string()))
            (fact("expected", expected(scenario.expectation)))
            (fact("both runs took", &format!("{:.1} s", outcome.took.as_secs_f64())))
            @if !scenario.ftwall.is_empty() { (fact("options", &scenario.ftwall.join(" "))) }
        }
    }
}

fn expected(expectation: Expectation) -> &'static str {
    match expectation {
        Expectation::Protected => "protection",
        Expectation::Breached(_) => "the device fails",
    }
}

fn findings(entry: Entry<'_>) -> Markup {
    let all = words::findings(entry.outcome);
    let (first, more) = all.split_at(all.len().min(MOST_FINDINGS));
    html! {
        @if !all.is_empty() {
            section.trouble aria-labelledby="findings-heading" {
                h2 #findings-heading { (counted(all.len(), "finding", "findings")) }
                (finding_list(entry, first))
                @if !more.is_empty() {
                    details {
                        summary { (more.len()) " more" }
                        (finding_list(entry, more))
                    }
                }
            }
        }
    }
}

fn finding_list(entry: Entry<'_>, findings: &[&Finding]) -> Markup {
    let timelines = entry.outcome.timelines.as_ref();
    html! {
        ul {
            @for finding in findings {
                li {
                    (words::finding(finding, timelines))
                    @if let Some(sighting) = sighting(finding) { (place(sighting, timelines)) }
                }
            }
        }
    }
}

fn sighting(finding: &Finding) -> Option<&Sighting> {
    match finding {
        Finding::Leak { sighting, .. } => Some(sighting),
        Finding::WitnessesDisagree(disagreement) => Some(&disagreement.sighting),
        Finding::ControlMissed { .. }
        | Finding::NotTried { .. }
        | Finding::WebControl { .. }
        | Finding::NotBreached { .. }
        | Finding::Mishap { .. }
        | Finding::WebFailed(_)
        | Finding::WebSlow { .. } => None,
    }
}

/// Where a sighting is drawn.
fn place(sighting: &Sighting, timelines: Option<&Timelines>) -> Markup {
    let is_drawn = timelines.is_some_and(|timelines| {
        timelines.on.hosts.contains_key(&sighting.host)
            || timelines.off.hosts.contains_key(&sighting.host)
    });
    html! {
        @if is_drawn { " " a href={ "#" (anchor(&sighting.host)) } { "see " (sighting.host) } }
    }
}

fn anchor(host: &str) -> String {
    format!("host-{}", host.replace(' ', "-"))
}

fn kept(records: &[PathBuf]) -> Markup {
    let of = |run: &'static str| {
        let is_of = move |record: &&PathBuf| record.parent().is_some_and(|at| at.ends_with(run));
        records.iter().filter(is_of)
    };
    html! {
        @if !records.is_empty() {
            section aria-labelledby="records-heading" {
                h2 #records-heading { "Records" }
                p { "Both wires as captured, rules, events and reports:" }
                dl.records {
                    @for (run, name) in [("off", "without a device"), ("on", "with the device")] {
                        dt { (name) }
                        @for record in of(run) { dd { (link(record)) } }
                    }
                }
            }
        }
    }
}

fn link(record: &Path) -> Markup {
    let name = record.file_name().unwrap_or_default().to_string_lossy();
    html! { a href=(record.display()) { (name) } }
}

fn timeline(entry: Entry<'_>, timelines: &Timelines) -> Option<Markup> {
    let hosts = hosts(entry, timelines);
    let axis = lanes::shared_axis(timelines);
    let figures: Vec<_> = hosts
        .drawn
        .iter()
        .filter_map(|host| figure(entry, timelines, host, axis))
        .collect();
    if figures.is_empty() {
        return None;
    }
    Some(html! {
        p.legend {
            span.key.client aria-hidden="true" {} "tried by the client  "
            span.key.witness aria-hidden="true" {} "contact, as the witnesses saw it  "
            span.key.device aria-hidden="true" {} "said by the device  "
            @if axis.enlarged().is_some() {
                span.key.enlarged aria-hidden="true" {} "beginning, enlarged  "
            }
            "Numbers at the right count marks. Marks on one spot share a larger one; its tooltip names them."
        }
        @for figure in figures { (figure) }
        @if hosts.left_out > 0 {
            p.note {
                (counted(hosts.left_out, "host", "hosts"))
                " with ordinary users only, to whom the device did nothing: see their requests below."
            }
        }
    })
}

struct Hosts {
    drawn: Vec<String>,
    left_out: usize,
}

/// Hosts in the order of their numbers; in a large office, those that only browse are left out.
fn hosts(entry: Entry<'_>, timelines: &Timelines) -> Hosts {
    let numbered = (1..=entry.scenario.office.hosts).map(host_name);
    let all = numbered.chain([UNKNOWN_HOST.to_owned()]);
    let (users, mut drawn): (Vec<_>, Vec<_>) = all
        .partition(|host| only_browses(&timelines.off, host) && only_browses(&timelines.on, host));
    let left_out = if users.len() > MOST_USERS {
        users.len()
    } else {
        0
    };
    if left_out == 0 {
        drawn.extend(users);
    }
    Hosts { drawn, left_out }
}

fn only_browses(timeline: &Timeline, host: &str) -> bool {
    timeline.hosts.get(host).is_some_and(|moments| {
        moments
            .iter()
            .all(|moment| matches!(moment.what, What::Web { .. }))
    })
}

fn figure(entry: Entry<'_>, timelines: &Timelines, host: &str, axis: Axis) -> Option<Markup> {
    let drawing = lanes::Subject {
        host,
        device: entry.outcome.device,
        first_mode: first_mode(entry, host),
        outages: &entry.scenario.outages,
        axis,
    }
    .drawing(timelines)?;
    let number = (1..=entry.scenario.office.hosts).find(|number| host_name(*number) == host);
    let family = number.and_then(|number| roles(entry, number).0);
    Some(html! {
        figure id=(anchor(host)) {
            figcaption {
                h3 { (host) @if let Some(family) = family { span.about { " " (family) } } }
            }
            (wide(&format!("What happened to {host}"), &drawing))
        }
    })
}

/// The mode that a host's client begins in, which it reports only once it leaves it.
fn first_mode(entry: Entry<'_>, host: &str) -> Option<Mode> {
    entry.scenario.cast.iter().find_map(|actor| match actor {
        Actor::Client(client) if host_name(client.host) == host => {
            client.profile.ladder.first().map(|rung| rung.mode)
        }
        Actor::Client(_)
        | Actor::Browser(_)
        | Actor::RealWeb(_)
        | Actor::Peers(_)
        | Actor::WebServer => None,
    })
}

fn replay(entry: Entry<'_>) -> Markup {
    let outcome = entry.outcome;
    let command = format!(
        "scenarios run {} --dut {} --seed {}",
        outcome.scenario, outcome.device, outcome.seed
    );
    html! {
        p { "In namespaces, with captures of both wires, rules, events and every report kept:" }
        pre tabindex="0" { code { (command) " --keep records" } }
        p { "On a virtual clock, without privileges:" }
        pre tabindex="0" { code { (command) " --stage memory" } }
    }
}
