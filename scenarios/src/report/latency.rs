//! How long ordinary requests took without a device and with it: every request is a dot.

use std::collections::BTreeMap;
use std::time::Duration;

use maud::{Markup, html};

use super::drawing::{Drawing, axis, px};
use super::page::wide;
use super::scale::Logarithmic;
use super::words;
use crate::device::Device;
use crate::timeline::{Timeline, Timelines, What};
use crate::web::End;

const WIDTH: f64 = 980.0;
const LEFT: f64 = 200.0;
const RIGHT: f64 = 860.0;
const ROW: f64 = 13.0;
const GAP: f64 = 9.0;
const AXIS: f64 = 34.0;
const TOP: f64 = 12.0;

/// The requests of one kind in both runs.
#[derive(Default)]
struct Kind {
    off: Times,
    on: Times,
}

/// The requests of one kind in one run.
#[derive(Default)]
struct Times {
    /// Those that came through, by time.
    ok: Vec<Duration>,
    failed: usize,
}

/// Drawing and table; none if nobody asked for anything.
pub(super) fn section(timelines: &Timelines, device: Device, grace: Duration) -> Option<Markup> {
    let kinds = kinds(timelines);
    if kinds.is_empty() {
        return None;
    }
    Some(html! {
        p.legend {
            span.key.off aria-hidden="true" {} "without a device  "
            span.key.on aria-hidden="true" {} "with " (device) "  "
            span.key.limit aria-hidden="true" {} "slower than this counts as hurt"
        }
        (wide("Times of ordinary requests, drawn", &plot(&kinds, device, grace)))
        (wide("Times of ordinary requests", &table(&kinds, device)))
    })
}

fn kinds(timelines: &Timelines) -> BTreeMap<&str, Kind> {
    let mut kinds = BTreeMap::<_, Kind>::new();
    for (kind, end) in requests(&timelines.off) {
        kinds.entry(kind).or_default().off.take(end);
    }
    for (kind, end) in requests(&timelines.on) {
        kinds.entry(kind).or_default().on.take(end);
    }
    for kind in kinds.values_mut() {
        kind.off.ok.sort_unstable();
        kind.on.ok.sort_unstable();
    }
    kinds
}

fn requests(timeline: &Timeline) -> impl Iterator<Item = (&str, &End)> {
    timeline.hosts.values().flatten().filter_map(|moment| {
        let What::Web { kind, end } = &moment.what else {
            return None;
        };
        Some((kind.as_str(), end))
    })
}

impl Times {
    fn take(&mut self, end: &End) {
        match end {
            End::Ok(took) => self.ok.push(*took),
            End::Failed(..) => self.failed += 1,
            // Cut short by the end of the run: says nothing about how long it would have taken.
            End::Open(_) => {}
        }
    }

    fn median(&self) -> Option<Duration> {
        self.ok.get(self.ok.len() / 2).copied()
    }
}

impl Kind {
    /// The judge's limit: twice what was usual without a device, and the scenario's grace.
    fn limit(&self, grace: Duration) -> Option<Duration> {
        let rank = (self.off.ok.len() * 99).div_ceil(100).checked_sub(1)?;
        Some(self.off.ok[rank] * 2 + grace)
    }
}

fn plot(kinds: &BTreeMap<&str, Kind>, device: Device, grace: Duration) -> Markup {
    let times = || {
        kinds
            .values()
            .flat_map(|kind| kind.off.ok.iter().chain(&kind.on.ok))
            .copied()
    };
    let limits = kinds.values().filter_map(|kind| kind.limit(grace));
    let scale = Logarithmic::new(times().chain(limits), LEFT, RIGHT);
    let bottom = TOP + kinds.len() as f64 * (2.0 * ROW + GAP);
    let content = html! {
        (axis(&scale.ticks(), TOP, bottom))
        text.note x=(px((LEFT + RIGHT) / 2.0)) y=(px(bottom + 30.0)) text-anchor="middle" {
            "time to the last octet, logarithmic"
        }
        @for (number, (name, kind)) in kinds.iter().enumerate() {
            @let y = TOP + number as f64 * (2.0 * ROW + GAP);
            text.label x=(px(LEFT - 12.0)) y=(px(y + ROW + 4.0)) text-anchor="end" { (name) }
            @if let Some(limit) = kind.limit(grace) {
                @let x = px(scale.place(limit));
                line.limit x1=(x) y1=(px(y + 2.0)) x2=(x) y2=(px(y + 2.0 * ROW)) {
                    title { "limit " (words::time(limit)) }
                }
            }
            (dots("off", &kind.off, scale, y + ROW / 2.0))
            (dots("on", &kind.on, scale, y + ROW * 1.5))
            (failures(&kind.on, y + ROW * 1.5))
        }
    };
    let title = format!("Times of ordinary requests by kind, without a device and with {device}");
    let height = bottom + AXIS;
    Drawing {
        class: "latency",
        width: WIDTH,
        height,
        title: &title,
    }
    .draw(&content)
}

fn dots(class: &str, times: &Times, scale: Logarithmic, y: f64) -> Markup {
    let mut spots = BTreeMap::<u64, Vec<Duration>>::new();
    for time in &times.ok {
        spots
            .entry(scale.place(*time).round() as u64)
            .or_default()
            .push(*time);
    }
    html! {
        g class=(class) {
            @for (x, times) in spots {
                circle cx=(x) cy=(px(y)) r=(px(3.2 + (times.len() as f64).log2() * 0.5)) {
                    title {
                        (words::time(times[0]))
                        @if times.len() > 1 { ", " (times.len()) " requests" }
                    }
                }
            }
            @if let Some(median) = times.median() {
                @let x = px(scale.place(median));
                line.median x1=(x) y1=(px(y - 6.0)) x2=(x) y2=(px(y + 6.0)) {
                    title { "median " (words::time(median)) }
                }
            }
        }
    }
}

fn failures(times: &Times, y: f64) -> Markup {
    html! {
        @if times.failed > 0 {
            text.failed x=(px(RIGHT + 14.0)) y=(px(y + 4.0)) { "✕ " (times.failed) " failed" }
        }
    }
}

fn table(kinds: &BTreeMap<&str, Kind>, device: Device) -> Markup {
    html! {
        table.times {
            caption { "Times of ordinary requests by kind" }
            thead {
                tr {
                    th scope="col" rowspan="2" { "kind" }
                    th.number scope="colgroup" colspan="2" { "came through" }
                    th.number scope="colgroup" colspan="2" { "median" }
                    th.number scope="colgroup" colspan="2" { "longest" }
                }
                tr {
                    @for _ in 0..3 {
                        th.number scope="col" { "none" }
                        th.number scope="col" { (device) }
                    }
                }
            }
            tbody {
                @for (name, kind) in kinds {
                    tr {
                        th scope="row" { (name) }
                        @for times in [&kind.off, &kind.on] {
                            td.number { (times.ok.len()) "/" (times.ok.len() + times.failed) }
                        }
                        @for times in [&kind.off, &kind.on] { td.number { (maybe(times.median())) } }
                        @for times in [&kind.off, &kind.on] {
                            td.number { (maybe(times.ok.last().copied())) }
                        }
                    }
                }
            }
        }
    }
}

fn maybe(time: Option<Duration>) -> String {
    time.map_or_else(|| "-".to_owned(), words::time)
}
