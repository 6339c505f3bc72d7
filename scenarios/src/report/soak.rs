//! A soak as a drawing that stands by itself: what a daemon took from its machine, what the web and what
//! clients got through it, and a line wherever something was done to it.

use std::time::Duration;

use maud::{Markup, html};

use super::drawing::{Drawing, axis, px};
use super::scale::Axis;
use crate::soak::{Document, Incident, Interval, Sample};

const WIDTH: f64 = 1000.0;
const LEFT: f64 = 90.0;
const RIGHT: f64 = 975.0;
const TOP: f64 = 28.0;
const PANEL: f64 = 96.0;
const GAP: f64 = 40.0;
const AXIS: f64 = 30.0;

/// Colours and type: nothing else styles a drawing that stands by itself.
const STYLE: &str = "\
    text { font: 12px sans-serif; fill: #333 } \
    .axis line { stroke: #ddd } \
    .heading { font-weight: bold } \
    .last { font-size: 9px } \
    polyline { fill: none; stroke-width: 1.5 } \
    .one { stroke: #0b7a4b; fill: none } .two { stroke: #c05621; fill: none } .three { stroke: #c53030; fill: none } \
    text.one { fill: #0b7a4b; stroke: none } text.two { fill: #c05621; stroke: none } \
    text.three { fill: #c53030; stroke: none } \
    .fault { stroke: #7b8794; stroke-dasharray: 2 3 }";

/// A line of a panel, by its name.
struct Series {
    name: &'static str,
    points: Vec<(Duration, f64)>,
}

/// Something that is shown over time.
struct Panel {
    heading: &'static str,
    series: Vec<Series>,
}

const COLOURS: [&str; 3] = ["one", "two", "three"];

/// The drawing as the text of an SVG file.
#[must_use]
pub fn drawing(soak: &Document) -> String {
    let panels = panels(soak);
    let end = soak.intervals.iter().map(|interval| interval.from_us);
    let end = end.chain(soak.samples.iter().map(|sample| sample.at_us));
    let length = since(soak, end.max().unwrap_or(soak.began_us));
    let scale = Axis::new(length, Duration::ZERO, LEFT, RIGHT);
    let height = TOP + panels.len() as f64 * (PANEL + GAP) + AXIS;
    let content = html! {
        style { (STYLE) }
        rect width="100%" height="100%" fill="#fff" {}
        (axis(&scale.ticks(), TOP, height - GAP - AXIS))
        @for incident in &soak.faults { (fault(soak, incident, &scale, height - GAP - AXIS)) }
        @for (number, panel) in panels.iter().enumerate() {
            (panel.draw(TOP + number as f64 * (PANEL + GAP), &scale))
        }
        text.last x=(px(RIGHT)) y=(px(height - 8.0)) text-anchor="end" { (soak) }
    };
    let title = format!(
        "A soak of {} minutes with {}, seed {}",
        soak.minutes, soak.device, soak.seed
    );
    Drawing {
        class: "soak",
        width: WIDTH,
        height,
        title: &title,
    }
    .draw(&content)
    .into_string()
}

fn panels(soak: &Document) -> Vec<Panel> {
    let sampled = |value: &dyn Fn(&Sample) -> Option<f64>| -> Vec<_> {
        let point = |sample: &Sample| Some((since(soak, sample.at_us), value(sample)?));
        soak.samples.iter().filter_map(point).collect()
    };
    let counted = |value: &dyn Fn(&Interval) -> Option<f64>| -> Vec<_> {
        let point = |interval: &Interval| Some((since(soak, interval.from_us), value(interval)?));
        soak.intervals.iter().filter_map(point).collect()
    };
    let series = |name, points| Series { name, points };
    vec![
        Panel {
            heading: "resident memory, MiB",
            series: vec![series(
                "",
                sampled(&|one| Some(one.rss_kib as f64 / 1024.0)),
            )],
        },
        Panel {
            heading: "open descriptors",
            series: vec![series("", sampled(&|one| Some(one.descriptors as f64)))],
        },
        Panel {
            heading: "packets dropped by full queues, since the daemon began",
            series: vec![series(
                "",
                sampled(&|one| one.queue_drops.map(|drops| drops as f64)),
            )],
        },
        Panel {
            heading: "ordinary requests, ms to the last octet",
            series: vec![
                series("p50", counted(&|one| Some(one.web?.p50 / 1000.0))),
                series("p99", counted(&|one| Some(one.web?.p99 / 1000.0))),
            ],
        },
        Panel {
            heading: "clients, in five seconds",
            series: vec![
                series("attempts", counted(&|one| Some(one.attempts as f64))),
                series("empty handshakes", counted(&|one| Some(one.touched as f64))),
                series("more than that", counted(&|one| Some(one.contacts as f64))),
            ],
        },
    ]
}

fn since(soak: &Document, at_us: u64) -> Duration {
    Duration::from_micros(at_us.saturating_sub(soak.began_us))
}

fn fault(soak: &Document, incident: &Incident, scale: &Axis, bottom: f64) -> Markup {
    let x = px(scale.place(since(soak, incident.at_us)));
    html! {
        g.fault {
            line x1=(x) y1=(px(TOP)) x2=(x) y2=(px(bottom)) {
                title { (incident.fault.name()) }
            }
        }
    }
}

impl Panel {
    fn draw(&self, top: f64, scale: &Axis) -> Markup {
        let values = self.series.iter().flat_map(|series| &series.points);
        let most = values.map(|(_, value)| *value).fold(0.0, f64::max);
        let bottom = top + PANEL;
        let place = |value: f64| bottom - value / most.max(f64::MIN_POSITIVE) * PANEL;
        html! {
            text.heading x=(px(LEFT)) y=(px(top - 6.0)) { (self.heading) }
            text x=(px(LEFT - 8.0)) y=(px(top + 8.0)) text-anchor="end" { (label(most)) }
            text x=(px(LEFT - 8.0)) y=(px(bottom)) text-anchor="end" { "0" }
            @for (number, series) in self.series.iter().enumerate() {
                polyline class=(COLOURS[number]) points=(series.path(scale, &place)) {}
                text class=(COLOURS[number]) x=(px(RIGHT - 120.0 * number as f64)) y=(px(top - 6.0))
                    text-anchor="end" { (series.name) }
            }
        }
    }
}

impl Series {
    fn path(&self, scale: &Axis, place: &impl Fn(f64) -> f64) -> String {
        let points = self.points.iter().map(|(at, value)| {
            let (x, y) = (scale.place(*at), place(*value));
            format!("{},{}", px(x), px(y))
        });
        points.collect::<Vec<_>>().join(" ")
    }
}

/// Few digits: whoever wants more reads the file beside it.
fn label(value: f64) -> String {
    if value < 10.0 {
        format!("{}", (value * 10.0).round() / 10.0)
    } else {
        format!("{value:.0}")
    }
}
