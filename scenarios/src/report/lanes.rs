//! What happened to one host as a drawing: a lane per kind of thing, time to the right, the run
//! without a device above the run with it on the same scale.
//!
//! Three shapes for three voices: upright strokes are what the client tried, discs are contacts as
//! the witnesses saw them, squares are what the device says it did. Where several fall on the same
//! spot they share a mark that grows with their number, so that a flood of pings costs no more than a
//! line of marks.

use std::collections::BTreeMap;
use std::time::Duration;

use maud::{Markup, html};
use simulator::report::{AttemptKind, Mode};

use super::drawing::{Drawing, axis, px};
use super::scale::Axis;
use super::words;
use crate::device::Device;
use crate::level::Level;
use crate::scenario::Outage;
use crate::timeline::{Moment, Timeline, Timelines, What};
use crate::web::End;

const WIDTH: f64 = 980.0;
const LEFT: f64 = 178.0;
const RIGHT: f64 = 916.0;
const LANE: f64 = 20.0;
const BAND: f64 = 20.0;
const HEADING: f64 = 24.0;
const AXIS: f64 = 24.0;
const GAP: f64 = 14.0;

/// Marks closer together than this share one.
const SPOT: f64 = 4.0;

/// Peers named in the tooltip of a shared mark.
const MOST_NAMES: usize = 3;

/// Who speaks in a lane, and so the shape of its marks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Voice {
    Client,
    Witness,
    Device,
}

/// A lane's place among the others: by voice, then by what stands in it.
type Key = (Voice, usize, String);

/// One thing in a lane.
struct Mark {
    at: Duration,
    what: String,
}

/// Everything that is drawn of one run.
#[derive(Default)]
struct Panel {
    lanes: BTreeMap<Key, Vec<Mark>>,
    modes: Vec<(Duration, Mode)>,
    locks: Vec<Bar>,
    outages: Vec<Bar>,
    web: Vec<Bar>,
    unreported: u64,
}

/// Something that lasted.
struct Bar {
    from: Duration,
    to: Duration,
    label: String,
    title: String,
    is_bad: bool,
}

/// The axis that all hosts of a scenario share: what matters tends to be settled at once, and most
/// of a run is waiting.
pub(super) fn shared_axis(timelines: &Timelines) -> Axis {
    let length = timelines.off.length.max(timelines.on.length);
    let mut settled: Vec<_> = timelines
        .off
        .hosts
        .values()
        .filter_map(|all| settled(all))
        .collect();
    settled.sort_unstable();
    let usual = settled.get(settled.len() / 2).copied().unwrap_or_default();
    Axis::new(length, usual, LEFT, RIGHT)
}

/// When a host had got as far as it got; none if it got nowhere.
fn settled(moments: &[Moment]) -> Option<Duration> {
    let mut first = BTreeMap::<Level, Duration>::new();
    for Moment { at, what } in moments {
        if let What::Reached { level, .. } = what {
            first.entry(*level).or_insert(*at);
        }
    }
    first.into_values().max()
}

/// A host, and what its drawing needs beside its timelines.
pub(super) struct Subject<'a> {
    pub(super) host: &'a str,
    pub(super) device: Device,
    /// The mode that its client begins in.
    pub(super) first_mode: Option<Mode>,
    /// Times without a daemon, with the device on.
    pub(super) outages: &'a [Outage],
    pub(super) axis: Axis,
}

impl Subject<'_> {
    /// The drawing; none if nothing happened to the host in either run.
    pub(super) fn drawing(&self, timelines: &Timelines) -> Option<Markup> {
        let (host, device) = (self.host, self.device);
        let off = self.panel(&timelines.off);
        let mut on = self.panel(&timelines.on);
        if off.is_empty() && on.is_empty() {
            return None;
        }
        on.outages = self.outages.iter().map(outage).collect();
        let layout = Layout::new(&off, &on, self.axis);
        let heights = (layout.height(&off), layout.height(&on));
        let content = html! {
            (layout.panel(&off, "without a device", 0.0))
            (layout.panel(&on, &format!("with {device}"), heights.0 + GAP))
        };
        let frame = Drawing {
            class: "lanes",
            width: WIDTH,
            height: heights.0 + GAP + heights.1,
            title: &format!("What happened to {host}, without a device and with {device}"),
        };
        Some(frame.draw(&content))
    }

    fn panel(&self, timeline: &Timeline) -> Panel {
        let moments = timeline
            .hosts
            .get(self.host)
            .map(Vec::as_slice)
            .unwrap_or_default();
        Panel::of(moments, timeline.length, self.first_mode)
    }
}

fn outage(outage: &Outage) -> Bar {
    let label = "no daemon".to_owned();
    let (from, to) = (outage.at, outage.until);
    let title = format!("{} to {}: no daemon", words::time(from), words::time(to));
    Bar {
        from,
        to,
        label,
        title,
        is_bad: false,
    }
}

impl Panel {
    fn of(moments: &[Moment], length: Duration, first_mode: Option<Mode>) -> Self {
        let mut panel = Self::default();
        panel
            .modes
            .extend(first_mode.map(|mode| (Duration::ZERO, mode)));
        for moment in moments {
            panel.take(moment);
        }
        for lock in &mut panel.locks {
            lock.to = lock.to.min(length);
        }
        panel
    }

    fn take(&mut self, Moment { at, what }: &Moment) {
        let at = *at;
        match what {
            What::Attempt { kind, peer } => {
                self.mark(
                    Voice::Client,
                    *kind as usize,
                    tried(*kind),
                    at,
                    format!("{} to {peer}", words::attempt(*kind)),
                );
            }
            What::Sent { part, peer, .. } => {
                let said = format!("{} sent to {peer}", words::part(*part));
                self.mark(Voice::Client, 8, "first bytes sent", at, said);
            }
            What::Failed { kind, peer, why } => {
                let said = format!(
                    "{} to {peer} {}",
                    words::attempt(*kind),
                    words::failure(*why)
                );
                self.mark(Voice::Client, 9, "attempts ended", at, said);
            }
            What::Mode { from, to } => {
                if self.modes.is_empty() {
                    self.modes.push((Duration::ZERO, *from));
                }
                self.modes.push((at, *to));
            }
            What::Reached {
                level,
                peer,
                witness,
                ..
            } => {
                let said = format!("{}, {peer}, seen by the {witness}", words::phrase(*level));
                self.mark(
                    Voice::Witness,
                    *level as usize,
                    words::heading(*level),
                    at,
                    said,
                );
            }
            What::Forged { peer } => {
                self.mark(
                    Voice::Device,
                    0,
                    "replies forged",
                    at,
                    format!("reply in the name of {peer}"),
                );
            }
            What::Learned { peer, .. } => {
                self.mark(
                    Voice::Device,
                    1,
                    "peers learned",
                    at,
                    format!("learned {peer}"),
                );
            }
            What::Refused { peer, why } => {
                self.mark(
                    Voice::Device,
                    2,
                    "peers not learned",
                    at,
                    format!("not learned {peer}: {why}"),
                );
            }
            What::Dropped {
                reason,
                evidence,
                peer,
            } => {
                let peer = peer.map(|peer| format!(" {peer}")).unwrap_or_default();
                let evidence = evidence
                    .as_ref()
                    .map(|kind| format!(", {kind}"))
                    .unwrap_or_default();
                let said = format!("dropped{peer}: {reason}{evidence}");
                self.mark(Voice::Device, 3, &format!("dropped: {reason}"), at, said);
            }
            What::Unreported { count } => self.unreported += count,
            What::Probed => self.mark(Voice::Device, 4, "probes sent", at, "probe".to_owned()),
            What::Locked { evidence } => self.lock(at, evidence.as_deref()),
            What::Released => {
                if let Some(lock) = self.locks.last_mut() {
                    lock.to = at;
                }
            }
            What::Forgotten { .. } => {}
            What::Web { kind, end } => self.request(at, kind, end),
        }
    }

    fn mark(&mut self, voice: Voice, place: usize, lane: &str, at: Duration, what: String) {
        let key = (voice, place, lane.to_owned());
        self.lanes.entry(key).or_default().push(Mark { at, what });
    }

    fn lock(&mut self, from: Duration, evidence: Option<&str>) {
        let label = format!("locked on {}", evidence.unwrap_or("unnamed evidence"));
        let title = format!("{}: {label}", words::time(from));
        self.locks.push(Bar {
            from,
            to: Duration::MAX,
            label,
            title,
            is_bad: false,
        });
    }

    fn request(&mut self, from: Duration, kind: &str, end: &End) {
        let (took, how, is_bad) = match end {
            End::Ok(took) => (*took, "came through".to_owned(), false),
            End::Failed(took, why) => (*took, format!("failed ({why})"), true),
            End::Open(took) => (*took, "was still open".to_owned(), false),
        };
        let title = format!(
            "{}: {kind} {how} after {}",
            words::time(from),
            words::time(took)
        );
        self.web.push(Bar {
            from,
            to: from + took,
            label: String::new(),
            title,
            is_bad,
        });
    }
}

fn tried(kind: AttemptKind) -> &'static str {
    match kind {
        AttemptKind::Ping => "pings sent",
        AttemptKind::Dial => "dials",
        AttemptKind::Download => "dials for files",
        AttemptKind::Give => "offers of files",
    }
}

/// Lanes and scale that both panels of a host share, so that they can be compared by eye.
struct Layout {
    scale: Axis,
    shared: Vec<Key>,
    has_modes: bool,
    has_web: bool,
}

impl Layout {
    fn new(off: &Panel, on: &Panel, scale: Axis) -> Self {
        let mut shared: Vec<_> = off.lanes.keys().chain(on.lanes.keys()).cloned().collect();
        shared.retain(|(voice, ..)| *voice != Voice::Device);
        shared.sort();
        shared.dedup();
        Self {
            scale,
            shared,
            has_modes: !(off.modes.is_empty() && on.modes.is_empty()),
            has_web: !(off.web.is_empty() && on.web.is_empty()),
        }
    }

    fn lanes<'a>(&'a self, panel: &'a Panel) -> impl Iterator<Item = &'a Key> {
        let own = panel
            .lanes
            .keys()
            .filter(|(voice, ..)| *voice == Voice::Device);
        self.shared.iter().chain(own)
    }

    fn height(&self, panel: &Panel) -> f64 {
        let bands = usize::from(self.has_modes) + panel.bands() + usize::from(self.has_web);
        HEADING + bands as f64 * BAND + self.lanes(panel).count() as f64 * LANE + AXIS
    }

    fn panel(&self, panel: &Panel, heading: &str, top: f64) -> Markup {
        let first = top + HEADING;
        let bottom = top + self.height(panel) - AXIS;
        let mut y = first;
        let mut rows = Vec::new();
        if self.has_modes {
            rows.push(self.modes(panel, y));
            y += BAND;
        }
        for key in self.lanes(panel) {
            let marks = panel.lanes.get(key).map(Vec::as_slice).unwrap_or_default();
            rows.push(self.lane(key, marks, y));
            y += LANE;
        }
        if !panel.locks.is_empty() {
            rows.push(self.bars("lock", "locked", &panel.locks, y));
            y += BAND;
        }
        if !panel.outages.is_empty() {
            rows.push(self.bars("outage", "outages", &panel.outages, y));
            y += BAND;
        }
        if self.has_web {
            rows.push(self.bars("request", "ordinary requests", &panel.web, y));
        }
        html! {
            text.heading x="0" y=(px(top + 15.0)) { (heading) }
            @if panel.unreported > 0 {
                text.note x=(px(WIDTH)) y=(px(top + 15.0)) text-anchor="end" {
                    "and " (panel.unreported) " drops the device did not report one by one"
                }
            }
            @if let Some((from, to)) = self.scale.enlarged() {
                rect.enlarged x=(px(from)) y=(px(first)) width=(px(to - from)) height=(px(bottom - first)) {}
            }
            (axis(&self.scale.ticks(), first, bottom))
            @for row in rows { (row) }
        }
    }

    fn modes(&self, panel: &Panel, y: f64) -> Markup {
        let ends = panel
            .modes
            .iter()
            .skip(1)
            .map(|(at, _)| self.scale.place(*at))
            .chain([RIGHT]);
        html! {
            (label("looks by", y))
            g.modes {
                @for ((number, (at, mode)), end) in panel.modes.iter().enumerate().zip(ends) {
                    @let x = self.scale.place(*at);
                    @let name = words::mode(*mode);
                    g {
                        title { (words::time(*at)) ": " (name) }
                        rect class=[(number % 2 == 1).then_some("odd")] x=(px(x)) y=(px(y + 2.0))
                            width=(px((end - x).max(1.0))) height=(px(BAND - 4.0)) {}
                        @if end - x > 7.0 * name.len() as f64 {
                            text x=(px(x + 5.0)) y=(px(y + 14.0)) { (name) }
                        }
                    }
                }
            }
        }
    }

    fn lane(&self, (voice, _, name): &Key, marks: &[Mark], y: f64) -> Markup {
        let class = match voice {
            Voice::Client => "client",
            Voice::Witness => "witness",
            Voice::Device => "device",
        };
        html! {
            (label(name, y))
            (count(marks.len(), y))
            line.floor x1=(px(LEFT)) y1=(px(y + LANE - 1.0)) x2=(px(RIGHT)) y2=(px(y + LANE - 1.0)) {}
            g class=(class) {
                @for (x, marks) in self.spots(marks) {
                    (shape(*voice, x, y, &marks))
                }
            }
        }
    }

    /// Marks by the spot they fall on.
    fn spots<'a>(&self, marks: &'a [Mark]) -> Vec<(f64, Vec<&'a Mark>)> {
        let mut spots = BTreeMap::<u64, Vec<_>>::new();
        for mark in marks {
            let spot = (self.scale.place(mark.at) / SPOT).floor();
            spots.entry(spot as u64).or_default().push(mark);
        }
        spots
            .into_iter()
            .map(|(spot, marks)| ((spot as f64 + 0.5) * SPOT, marks))
            .collect()
    }

    fn bars(&self, class: &str, name: &str, bars: &[Bar], y: f64) -> Markup {
        html! {
            (label(name, y))
            (count(bars.len(), y))
            g class=(class) {
                @for bar in bars {
                    @let x = self.scale.place(bar.from);
                    @let end = self.scale.place(bar.to);
                    @let width = (end - x).max(2.0);
                    g class=[bar.is_bad.then_some("bad")] {
                        title { (bar.title) }
                        rect x=(px(x)) y=(px(y + 3.0)) width=(px(width)) height=(px(BAND - 6.0)) {}
                        @if bar.is_bad {
                            text x=(px(x)) y=(px(y + 14.0)) { "✕" }
                        } @else if !bar.label.is_empty() {
                            (bar_label(&bar.label, x, width, y))
                        }
                    }
                }
            }
        }
    }
}

impl Panel {
    fn is_empty(&self) -> bool {
        self.lanes.is_empty() && self.locks.is_empty() && self.web.is_empty()
    }

    fn bands(&self) -> usize {
        usize::from(!self.locks.is_empty()) + usize::from(!self.outages.is_empty())
    }
}

/// A bar's label inside it, or left of it where the bar is too short.
fn bar_label(text: &str, x: f64, width: f64, y: f64) -> Markup {
    let fits = width > 6.5 * text.len() as f64;
    let (x, anchor) = if fits {
        (x + 5.0, "start")
    } else {
        (x - 5.0, "end")
    };
    html! {
        text class=[(!fits).then_some("beside")] x=(px(x)) y=(px(y + 14.0)) text-anchor=(anchor) { (text) }
    }
}

fn shape(voice: Voice, x: f64, y: f64, marks: &[&Mark]) -> Markup {
    // Grows with the logarithm: one and two hundred must both be seen.
    let weight = (marks.len() as f64).log2();
    html! {
        g {
            title { (tooltip(marks)) }
            @match voice {
                Voice::Client => {
                    @let height = (5.0 + 1.6 * weight).min(LANE - 3.0);
                    rect x=(px(x - 1.0)) y=(px(y + LANE - 1.0 - height)) width="2" height=(px(height)) {}
                }
                Voice::Witness => {
                    @let radius = (3.0 + 0.6 * weight).min(LANE / 2.0 - 2.0);
                    circle cx=(px(x)) cy=(px(y + LANE / 2.0)) r=(px(radius)) {}
                }
                Voice::Device => {
                    @let side = (4.0 + weight).min(LANE - 6.0);
                    rect x=(px(x - 1.5)) y=(px(y + (LANE - side) / 2.0)) width="3" height=(px(side)) {}
                }
            }
        }
    }
}

fn tooltip(marks: &[&Mark]) -> String {
    let at = marks
        .first()
        .map(|mark| words::time(mark.at))
        .unwrap_or_default();
    let names: Vec<_> = marks
        .iter()
        .take(MOST_NAMES)
        .map(|mark| mark.what.as_str())
        .collect();
    let more = match marks.len() {
        all if all > MOST_NAMES => format!("; and {} more", all - MOST_NAMES),
        _ => String::new(),
    };
    format!("{at}: {}{more}", names.join("; "))
}

fn label(name: &str, y: f64) -> Markup {
    html! { text.label x=(px(LEFT - 10.0)) y=(px(y + 14.0)) text-anchor="end" { (name) } }
}

fn count(count: usize, y: f64) -> Markup {
    html! {
        text class=(if count == 0 { "count nothing" } else { "count" })
            x=(px(WIDTH - 4.0)) y=(px(y + 14.0)) text-anchor="end" { (count) }
    }
}
