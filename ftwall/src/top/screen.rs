//! How it looks: a header, what is done with packets, the list, and the keys.

use super::view::{List, View};
use crate::control::table::{CLIENTS, Columns, PEERS, duration, text};
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Style, Stylize as _};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Paragraph, Row, Sparkline, Table};

/// Rows of the upper half, with its frame.
const UPPER_ROWS: u16 = 9;
/// Columns of the curve and the gauges beside the verdicts.
const RIGHT_COLUMNS: u16 = 34;

/// Draws everything.
pub(super) fn draw(frame: &mut Frame<'_>, view: &View) {
    let [header, upper, list, keys] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(UPPER_ROWS),
        Constraint::Min(3),
        Constraint::Length(1),
    ])
    .areas(frame.area());
    let [verdicts, right] =
        Layout::horizontal([Constraint::Min(20), Constraint::Length(RIGHT_COLUMNS)]).areas(upper);
    let [curve, gauges] =
        Layout::vertical([Constraint::Length(4), Constraint::Min(3)]).areas(right);
    frame.render_widget(header_line(view), header);
    draw_verdicts(frame, view, verdicts);
    draw_curve(frame, view, curve);
    draw_gauges(frame, view, gauges);
    draw_list(frame, view, list);
    frame.render_widget(key_line(view), keys);
}

fn header_line(view: &View) -> Line<'static> {
    let status = &view.latest.status;
    let uptime = duration(view.latest.number(&["uptime_seconds"]));
    let mut spans = vec![
        Span::from(format!("ftwall {}", text(&status["version"]))).bold(),
        Span::from(format!(
            "  mode {} ({})  up {uptime}  {}  ",
            text(&status["mode"]),
            text(&status["mode_from"]),
            text(&status["backend"]),
        )),
    ];
    spans.push(match (&view.trouble, status["healthy"] == true) {
        (Some(trouble), _) => Span::styled(format!("no answer: {trouble}"), Color::Red),
        (None, true) => Span::styled("healthy", Color::Green),
        (None, false) => {
            let faults = status["faults"].as_array().into_iter().flatten();
            let faults: Vec<_> = faults.map(text).collect();
            Span::styled(format!("degraded: {}", faults.join("; ")), Color::Yellow)
        }
    });
    Line::from(spans)
}

/// The most frequent verdicts now, then those that were most frequent before.
fn draw_verdicts(frame: &mut Frame<'_>, view: &View, area: Rect) {
    let mut verdicts: Vec<_> = view
        .latest
        .verdicts()
        .map(|(name, count)| (name, count, view.rates.get(name).copied().unwrap_or(0.0)))
        .collect();
    verdicts.sort_by(|(one, count, rate), (other, other_count, other_rate)| {
        let by_rate = other_rate.total_cmp(rate);
        by_rate.then(other_count.cmp(count)).then(one.cmp(other))
    });
    let rows = verdicts.into_iter().map(|(name, count, rate)| {
        let row = Row::new([name.to_owned(), count.to_string(), format!("{rate:.1}")]);
        if name.starts_with("drop/") {
            row.style(Style::new().red())
        } else {
            row
        }
    });
    let widths = [
        Constraint::Min(20),
        Constraint::Length(10),
        Constraint::Length(8),
    ];
    let table = Table::new(rows, widths)
        .header(Row::new(["VERDICT", "PACKETS", "A SECOND"]).bold())
        .block(Block::bordered().title("Verdicts"));
    frame.render_widget(table, area);
}

fn draw_curve(frame: &mut Frame<'_>, view: &View, area: Rect) {
    let latest = view.history.back().copied().unwrap_or(0);
    let block = Block::bordered().title(format!("Judged a second: {latest}"));
    let room = usize::from(block.inner(area).width);
    let shown = view.history.len().saturating_sub(room);
    let curve = Sparkline::default()
        .data(view.history.iter().skip(shown).copied())
        .block(block);
    frame.render_widget(curve, area);
}

fn draw_gauges(frame: &mut Frame<'_>, view: &View, area: Rect) {
    let number = |path: &[&str]| view.latest.number(path);
    let lost = number(&["counted", "queue_losses", "queue_full"])
        + number(&["counted", "queue_losses", "buffer_full"]);
    let refused = number(&["counted", "set_writes_failed"]);
    let warned = |text: String, count: u64| {
        let style = if count > 0 {
            Style::new().red()
        } else {
            Style::new()
        };
        Line::styled(text, style)
    };
    let (clients, peers, flows) = (number(&["clients"]), number(&["peers"]), number(&["flows"]));
    let lines = vec![
        Line::from(format!("locked {clients}  peers {peers}  flows {flows}")),
        warned(format!("packets lost by queues: {lost}"), lost),
        warned(format!("set changes refused: {refused}"), refused),
    ];
    let gauges = Paragraph::new(lines).block(Block::bordered().title("State"));
    frame.render_widget(gauges, area);
}

fn draw_list(frame: &mut Frame<'_>, view: &View, area: Rect) {
    let (title, Columns { headings, row }, widths, list): (_, _, &[u16], _) = match view.list {
        List::Clients => (
            "Locked hosts",
            CLIENTS,
            &[15, 7, 8, 7, 6, 18, 10],
            &view.latest.clients,
        ),
        List::Peers => ("Known peers", PEERS, &[15, 21, 7, 18], &view.latest.peers),
    };
    let title = match list.len() {
        0 => format!("{title}: none"),
        count => format!("{title}: {} to {count}", view.first_row + 1),
    };
    let rows = list.iter().skip(view.first_row).map(|it| Row::new(row(it)));
    let table = Table::new(rows, widths.iter().copied().map(Constraint::Length))
        .header(Row::new(headings.to_vec()).bold())
        .block(Block::bordered().title(title));
    frame.render_widget(table, area);
}

fn key_line(view: &View) -> Line<'static> {
    let other = match view.list {
        List::Clients => "peers",
        List::Peers => "clients",
    };
    let hold = if view.is_held { "go on" } else { "hold" };
    Line::from(format!(
        "q quit   Tab {other}   Up Down scroll   Space {hold}"
    ))
    .dim()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use super::super::as_text;
    use super::super::sample::Sample;
    use super::super::view::Key;
    use super::*;
    use crate::Timestamp;

    fn sample(second: u64) -> Sample {
        let client = |address: &str, evidence: &str| {
            json!({
                "client": address, "left_seconds": 119, "mode": "enforce", "sightings": 41,
                "peers": 200, "origin": { "evidence": evidence }, "policy": "lab",
            })
        };
        let peer = json!({
            "client": "10.77.1.1", "peer": "198.18.0.7:1214", "left_seconds": 7199,
            "origin": { "evidence": "udp_ping" },
        });
        Sample {
            at: Timestamp::after_origin(Duration::from_secs(second)),
            status: json!({
                "version": "0.1.0", "healthy": true, "faults": [], "mode": "enforce",
                "mode_from": "default", "uptime_seconds": 62 + second, "backend": "nft",
                "clients": 2, "peers": 201, "flows": 12,
                "counted": {
                    "verdicts": { "drop/ping": 200 + 40 * second, "clear/http": 3, "pass/no_evidence": 9 },
                    "queue_losses": { "queue_full": 0, "buffer_full": 0 },
                    "set_writes_failed": 0,
                },
            }),
            clients: vec![
                client("10.77.1.1", "udp_ping"),
                client("10.77.1.2", "hash_request"),
            ],
            peers: vec![peer],
        }
    }

    #[test]
    fn a_screen_of_locked_hosts_and_verdicts_fits_eighty_columns() {
        let mut view = View::new(sample(0));
        view.update(Ok(sample(2)));
        insta::assert_snapshot!(as_text(&view));
    }

    #[test]
    fn the_other_list_shows_peers() {
        let mut view = View::new(sample(0));
        view.press(Key::OtherList);
        let shown = as_text(&view);
        assert!(shown.contains("Known peers: 1 to 1"), "{shown}");
        assert!(shown.contains("198.18.0.7:1214"), "{shown}");
        assert!(shown.contains("Tab clients"), "{shown}");
    }

    #[test]
    fn what_is_wrong_stands_in_the_first_line() {
        let mut degraded = sample(0);
        degraded.status["healthy"] = json!(false);
        degraded.status["faults"] = json!(["the kernel refuses changes of its sets"]);
        let first_line = |view: &View| as_text(view).lines().next().map(str::to_owned);
        let mut view = View::new(degraded);
        let said = first_line(&view).expect("a screen has lines");
        assert!(said.contains("degraded: the kernel"), "{said}");
        let gone = crate::control::wire::Failure::new(3, "ftwall is not running");
        view.update(Err(gone));
        let said = first_line(&view).expect("a screen has lines");
        assert!(said.contains("no answer: ftwall is not"), "{said}");
    }
}
