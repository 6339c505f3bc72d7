//! The page for people: how the daemon is, what it did within the hour, whom it holds back. It asks for
//! itself again every few seconds and runs nothing.

use std::time::Duration;

use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::history::{History, STEP, Sample};
use super::overview::{Lists, Overview};
use crate::{Origin, Timestamp};

/// Seconds between two looks.
const REFRESH: u64 = 10;

/// The page.
#[must_use]
pub fn page(overview: &Overview, lists: &Lists, history: &History) -> String {
    let faults = faults(overview);
    let body = html! {
        h1 {
            "ftwall "
            @if faults.is_empty() { span.good { "healthy" } } @else { span.bad { "degraded" } }
        }
        @for fault in &faults { p.fault { (fault) } }
        (facts(overview))
        h2 { "Verdicts, last hour" }
        (drawing(history))
        h2 { "Queues" }
        (queues(overview))
        h2 { "Locked clients" }
        (clients(overview, lists))
        h2 { "Known peers" }
        (peers(overview, lists))
        p.note { "Numbers for programs: " a href="/metrics" { "/metrics" } }
    };
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta http-equiv="refresh" content=(REFRESH);
                title { "ftwall" }
                style { (PreEscaped(STYLE)) }
            }
            body { (body) }
        }
    }
    .into_string()
}

/// What somebody should look at.
fn faults(overview: &Overview) -> Vec<String> {
    let mut faults = Vec::new();
    if overview.rules_present == Some(false) {
        faults.push("The rules are gone: nothing comes to ftwall.".to_owned());
    }
    if !overview.reload.0 {
        faults
            .push("The configuration could not be read again; the old one is in force.".to_owned());
    }
    if overview.counted.set_writes_failed > 0 {
        faults.push("The kernel refuses changes of its sets.".to_owned());
    }
    let failure = overview
        .state
        .as_ref()
        .and_then(|health| health.failure.as_ref());
    faults.extend(failure.map(|failure| format!("State cannot be written: {failure}.")));
    faults
}

fn facts(overview: &Overview) -> Markup {
    let up = Duration::from_secs(overview.uptime.as_secs());
    let facts = [
        ("mode", overview.mode.name().to_owned()),
        ("up", humantime::format_duration(up).to_string()),
        ("packets judged", overview.counted.packets.to_string()),
        ("locked clients", overview.clients.to_string()),
        ("known peers", overview.peers.to_string()),
        ("version", env!("CARGO_PKG_VERSION").to_owned()),
    ];
    html! {
        dl.facts {
            @for (name, value) in facts { div { dt { (name) } dd { (value) } } }
        }
    }
}

const WIDTH: usize = 720;
const HEIGHT: usize = 140;
/// Where bars stand on.
const FLOOR: usize = HEIGHT - 20;

/// A bar for each step, dropped packets upon passed ones, the newest at the right.
fn drawing(history: &History) -> Markup {
    let highest = history.samples().map(all).max().unwrap_or(0).max(1);
    let height = |count: u64| count as f64 / highest as f64 * (FLOOR - 14) as f64;
    let bars = history.samples().rev().enumerate();
    let x = |age: usize| WIDTH - 2 * (age + 1);
    let minutes = |minutes: usize| (WIDTH - minutes * 60 * 2 / STEP.as_secs() as usize, minutes);
    html! {
        svg.verdicts viewBox=(format!("0 0 {WIDTH} {HEIGHT}")) role="img"
            aria-label="Packets passed and dropped within the last hour" {
            line.floor x1="0" y1=(FLOOR) x2=(WIDTH) y2=(FLOOR) {}
            @for (age, sample) in bars {
                (bar("passed", x(age), height(sample.passed), 0.0))
                (bar("dropped", x(age), height(sample.dropped), height(sample.passed)))
            }
            @for (x, minutes) in [45, 30, 15].map(minutes) {
                text x=(x) y=(HEIGHT - 6) text-anchor="middle" { (minutes) " min ago" }
            }
            text x="2" y="10" { "at most " (highest) " packets in " (STEP.as_secs()) " s" }
        }
        p.legend { span.passed { "passed" } " " span.dropped { "dropped" } }
    }
}

fn bar(class: &str, x: usize, height: f64, below: f64) -> Markup {
    html! {
        @if height > 0.0 {
            rect class=(class) x=(x) width="2" y=(format!("{:.1}", FLOOR as f64 - below - height))
                height=(format!("{height:.1}")) {}
        }
    }
}

const fn all(sample: Sample) -> u64 {
    sample.passed + sample.dropped
}

fn queues(overview: &Overview) -> Markup {
    html! {
        div.wide { table {
            tr { th { "queue" } th { "for" } th { "waiting" } th { "lost, queue full" } th { "lost, buffer full" } }
            @for queue in &overview.queues {
                tr {
                    td { (queue.number) }
                    td { (queue.class.name()) }
                    td { @match queue.waiting { Some(waiting) => (waiting), None => "?" } }
                    td.bad[queue.losses.queue_full > 0] { (queue.losses.queue_full) }
                    td.bad[queue.losses.buffer_full > 0] { (queue.losses.buffer_full) }
                }
            }
        } }
    }
}

fn clients(overview: &Overview, lists: &Lists) -> Markup {
    html! {
        @if lists.clients.is_empty() { p.note { "Nobody is locked." } } @else {
            div.wide { table {
                tr { th { "client" } th { "left" } th { "peers" } th { "sightings" } th { "locked by" } th { "mode" } }
                @for client in &lists.clients {
                    tr {
                        td { (client.client) }
                        td { (left(overview.now, client.until)) }
                        td { (client.peers) }
                        td { (client.sightings) }
                        td { (origin(client.origin)) }
                        td { (client.mode.name()) }
                    }
                }
            } }
            (more(overview.clients, lists.clients.len()))
        }
    }
}

fn peers(overview: &Overview, lists: &Lists) -> Markup {
    html! {
        @if lists.peers.is_empty() { p.note { "None." } } @else {
            div.wide { table {
                tr { th { "client" } th { "peer" } th { "left" } th { "learned by" } }
                @for known in &lists.peers {
                    tr {
                        td { (known.client) }
                        td { (known.peer) }
                        td { (left(overview.now, known.until)) }
                        td { (origin(known.origin)) }
                    }
                }
            } }
            (more(overview.peers, lists.peers.len()))
        }
    }
}

fn more(all: usize, shown: usize) -> Markup {
    html! {
        @if all > shown { p.note { (all - shown) " more; see the commands of the same names." } }
    }
}

fn left(now: Timestamp, until: Timestamp) -> String {
    let left = until.saturating_since(now).as_secs();
    humantime::format_duration(Duration::from_secs(left)).to_string()
}

const fn origin(origin: Origin) -> &'static str {
    match origin {
        Origin::Evidence(evidence) => evidence.name(),
        Origin::TakenOver => "the daemon before this one",
        Origin::Operator => "the operator",
    }
}

const STYLE: &str = "
:root { color-scheme: light dark; --line: #8885; --good: #2a7d3c; --bad: #c0392b; --passed: #4a90d9; }
body { font: 15px/1.45 system-ui, sans-serif; margin: 1.5rem auto; max-width: 46rem; padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.05rem; margin: 1.6rem 0 .4rem; }
h1 span { font-size: .9rem; padding: .15rem .6rem; border-radius: 1rem; color: #fff; vertical-align: middle; }
h1 .good { background: var(--good); } h1 .bad { background: var(--bad); }
.fault, td.bad { color: var(--bad); font-weight: 600; }
.facts { display: flex; flex-wrap: wrap; gap: .6rem 2rem; margin: 0; } .facts dt { font-size: .8rem; opacity: .7; }
.facts dd { margin: 0; font-weight: 600; }
.wide { overflow-x: auto; } table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: .25rem .8rem .25rem 0; border-bottom: 1px solid var(--line); white-space: nowrap; }
th { font-size: .8rem; opacity: .7; }
.verdicts { width: 100%; height: auto; } .verdicts text { font-size: 10px; fill: currentColor; opacity: .7; }
.floor { stroke: var(--line); } rect.passed { fill: var(--passed); } rect.dropped { fill: var(--bad); }
.legend { margin: 0; font-size: .8rem; } .legend span::before { content: '\\25a0 '; }
.legend .passed { color: var(--passed); } .legend .dropped { color: var(--bad); }
.note { opacity: .7; font-size: .85rem; }
";

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::super::metrics::tests::overview;
    use super::*;
    use crate::config::Mode;
    use crate::control::events::Statistics;
    use crate::{Evidence, KnownPeer, LockedClient};

    #[test]
    fn a_page_shows_who_is_locked_why_and_for_how_long() {
        let page = page(&overview(), &lists(), &history());
        for words in [
            r#"<span class="good">healthy</span>"#,
            "<td>10.77.1.1</td><td>2m</td><td>7</td><td>9</td><td>udp_ping</td><td>enforce</td>",
            "<td>10.77.1.1</td><td>198.18.0.9:1214</td><td>1h</td><td>the operator</td>",
            "199 more",
            "<td>signalling</td><td>5</td>",
        ] {
            assert!(page.contains(words), "no {words} in {page}");
        }
    }

    #[test]
    fn a_page_loads_nothing_and_runs_nothing() {
        let page = page(&overview(), &lists(), &history());
        for forbidden in [
            "<script", "src=", "http://", "https://", "@import", "url(", "onload",
        ] {
            assert!(!page.contains(forbidden), "{forbidden}");
        }
    }

    #[test]
    fn every_step_with_packets_has_a_bar_no_higher_than_the_drawing() {
        let page = page(&overview(), &Lists::default(), &history());
        assert_eq!(page.matches(r#"<rect class="passed""#).count(), 2);
        assert_eq!(page.matches(r#"<rect class="dropped""#).count(), 1);
        let tops = page.split(" y=\"").skip(1);
        let tops = tops.filter_map(|rest| rest.split('"').next()?.parse::<f64>().ok());
        assert!(tops.clone().count() > 3 && tops.clone().all(|top| top >= 0.0));
    }

    #[test]
    fn what_is_wrong_stands_at_the_top() {
        let mut overview = overview();
        overview.rules_present = Some(false);
        overview.reload.0 = false;
        overview.counted.set_writes_failed = 1;
        if let Some(health) = &mut overview.state {
            health.failure = Some("/var/lib/ftwall: No space <left>".to_owned());
        }
        let page = page(&overview, &Lists::default(), &History::default());
        assert!(
            page.contains(r#"<span class="bad">degraded</span>"#),
            "{page}"
        );
        assert_eq!(page.matches("<p class=\"fault\">").count(), 4);
        assert!(page.contains("No space &lt;left&gt;"), "{page}");
    }

    fn history() -> History {
        let mut history = History::default();
        let mut counted = Statistics::default();
        for (passed, dropped) in [(10, 0), (10, 0), (15, 5)] {
            counted.verdicts.insert("pass/undecided".into(), passed);
            counted.verdicts.insert("drop/ping".into(), dropped);
            history.record(Timestamp::ORIGIN, &counted);
        }
        history
    }

    fn lists() -> Lists {
        let (now, client) = (overview().now, Ipv4Addr::new(10, 77, 1, 1));
        let locked = LockedClient {
            client,
            mode: Mode::Enforce,
            policy: None,
            since: now,
            until: now + Duration::from_secs(120),
            origin: Origin::Evidence(Evidence::UdpPing),
            sightings: 9,
            peers: 7,
        };
        let known = KnownPeer {
            client,
            peer: "198.18.0.9:1214".parse().expect("a literal"),
            origin: Origin::Operator,
            until: now + Duration::from_secs(3600),
        };
        Lists {
            clients: vec![locked],
            peers: vec![known],
        }
    }
}
