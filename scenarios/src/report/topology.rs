//! The network of a scenario as a drawing: hosts to the left, the gateway, the world outside.

use std::collections::BTreeMap;

use lab::WireSettings;
use lab::presets::Office;
use maud::{Markup, html};

use super::Entry;
use super::drawing::{Drawing, px};
use super::page::wide;
use super::words::{roles, time};
use crate::device::Device;
use crate::scenario::{Actor, host_name};

/// More hosts than this are drawn by what they do, several to a box.
const MOST_BOXES: usize = 8;

const WIDTH: f64 = 980.0;
const BOX_HEIGHT: f64 = 44.0;
const GAP: f64 = 12.0;
const MARGIN: f64 = 8.0;

/// A box of the drawing: what stands in it, and whether a client of FastTrack is behind it.
struct Card {
    name: String,
    about: String,
    is_infected: bool,
}

/// Where a box stands.
#[derive(Clone, Copy)]
struct Place {
    x: f64,
    y: f64,
    width: f64,
}

pub(super) fn drawing(entry: Entry<'_>) -> Markup {
    let inside = inside(entry);
    let outside = outside(entry);
    let rows = inside.len().max(outside.len()).max(1) as f64;
    let height = rows * (BOX_HEIGHT + GAP) - GAP + 2.0 * MARGIN;
    let middle = height / 2.0;
    let lan = 310.0;
    let gateway = Place {
        x: 380.0,
        y: middle - BOX_HEIGHT / 2.0,
        width: 200.0,
    };
    let wan = 690.0;
    let content = html! {
        (column(&inside, Place { x: MARGIN, y: middle, width: 210.0 }, Some(lan)))
        (trunk(&inside, middle, lan))
        line.link x1=(px(lan)) y1=(px(middle)) x2=(px(gateway.x)) y2=(px(middle)) {}
        (card(&gateway_card(entry), gateway))
        line.link x1=(px(gateway.x + gateway.width)) y1=(px(middle)) x2=(px(wan)) y2=(px(middle)) {}
        (wire(entry.scenario.office.wire.as_ref(), gateway.x + gateway.width + 55.0, middle))
        (trunk(&outside, middle, wan))
        (column(&outside, Place { x: 738.0, y: middle, width: 220.0 }, Some(wan)))
    };
    let title = format!(
        "The network of {}: {}",
        entry.scenario.name,
        sentence(&inside, entry)
    );
    let frame = Drawing {
        class: "topology",
        width: WIDTH,
        height,
        title: &title,
    };
    wide("Network", &frame.draw(&content))
}

fn sentence(inside: &[Card], entry: Entry<'_>) -> String {
    let hosts: Vec<_> = inside
        .iter()
        .map(|card| format!("{} ({})", card.name, card.about))
        .collect();
    format!(
        "{} behind a gateway with device {}",
        hosts.join(", "),
        entry.outcome.device
    )
}

fn inside(entry: Entry<'_>) -> Vec<Card> {
    let hosts = entry.scenario.office.hosts;
    if hosts <= MOST_BOXES {
        return (1..=hosts).map(|number| host_card(entry, number)).collect();
    }
    let mut by_role = BTreeMap::<_, Vec<usize>>::new();
    for number in 1..=hosts {
        by_role
            .entry(roles(entry, number))
            .or_default()
            .push(number);
    }
    let mut groups: Vec<_> = by_role.into_iter().collect();
    groups.sort_by_key(|(_, numbers)| numbers[0]);
    groups
        .into_iter()
        .map(|((family, browses), numbers)| Card {
            name: several(&numbers),
            about: role(family, browses),
            is_infected: family.is_some(),
        })
        .collect()
}

fn several(numbers: &[usize]) -> String {
    match numbers {
        [one] => host_name(*one),
        numbers => format!("{} hosts", numbers.len()),
    }
}

fn host_card(entry: Entry<'_>, number: usize) -> Card {
    let (family, browses) = roles(entry, number);
    Card {
        name: format!("{} · {}", host_name(number), Office::client_address(number)),
        about: role(family, browses),
        is_infected: family.is_some(),
    }
}

fn role(family: Option<&str>, browses: bool) -> String {
    match (family, browses) {
        (Some(family), true) => format!("infected: {family}, and a browser"),
        (Some(family), false) => format!("infected: {family}"),
        (None, true) => "a browser".to_owned(),
        (None, false) => "nobody at work".to_owned(),
    }
}

fn gateway_card(entry: Entry<'_>) -> Card {
    let device = match entry.outcome.device {
        Device::None => "no device".to_owned(),
        device => format!("device: {device}"),
    };
    let name = if entry.scenario.office.nat {
        "gateway with NAT"
    } else {
        "gateway"
    };
    Card {
        name: name.to_owned(),
        about: device,
        is_infected: false,
    }
}

fn outside(entry: Entry<'_>) -> Vec<Card> {
    let mut cards = Vec::new();
    for actor in &entry.scenario.cast {
        let (name, about) = match actor {
            Actor::Peers(_) => {
                let peers = format!("{} peers", entry.scenario.population);
                (peers, Office::PEERS.to_string())
            }
            Actor::WebServer => ("web servers".to_owned(), "the control group".to_owned()),
            Actor::RealWeb(_) => ("nginx".to_owned(), "asked by curl".to_owned()),
            Actor::Client(_) | Actor::Browser(_) => continue,
        };
        let is_infected = matches!(actor, Actor::Peers(_));
        cards.push(Card {
            name,
            about,
            is_infected,
        });
    }
    cards
}

/// Boxes above each other around the middle, each with a line to a trunk.
fn column(cards: &[Card], place: Place, trunk: Option<f64>) -> Markup {
    html! {
        @for (number, item) in cards.iter().enumerate() {
            @let y = top(cards.len(), number, place.y);
            @if let Some(trunk) = trunk {
                @let edge = if trunk > place.x { place.x + place.width } else { place.x };
                @let level = px(y + BOX_HEIGHT / 2.0);
                line.link x1=(px(edge)) y1=(level) x2=(px(trunk)) y2=(level) {}
            }
            (card(item, Place { y, ..place }))
        }
    }
}

fn top(count: usize, number: usize, middle: f64) -> f64 {
    let all = count as f64 * (BOX_HEIGHT + GAP) - GAP;
    middle - all / 2.0 + number as f64 * (BOX_HEIGHT + GAP)
}

/// The line that the boxes of a column hang on.
fn trunk(cards: &[Card], middle: f64, x: f64) -> Markup {
    let last = cards.len().saturating_sub(1);
    let half = BOX_HEIGHT / 2.0;
    let (from, to) = (
        top(cards.len(), 0, middle) + half,
        top(cards.len(), last, middle) + half,
    );
    html! { line.link x1=(px(x)) y1=(px(from)) x2=(px(x)) y2=(px(to)) {} }
}

fn card(card: &Card, Place { x, y, width }: Place) -> Markup {
    let middle = px(x + width / 2.0);
    html! {
        g class=[card.is_infected.then_some("infected")] {
            rect.box x=(px(x)) y=(px(y)) width=(px(width)) height=(px(BOX_HEIGHT)) rx="6" {}
            text.name x=(middle) y=(px(y + 18.0)) text-anchor="middle" { (card.name) }
            text.about x=(middle) y=(px(y + 35.0)) text-anchor="middle" { (card.about) }
        }
    }
}

/// What the line does to frames, written on it.
fn wire(settings: Option<&WireSettings>, x: f64, middle: f64) -> Markup {
    let Some(settings) = settings else {
        return html! {};
    };
    let mut words = vec![format!("{} each way", time(settings.delay))];
    let shares = [
        (settings.loss_pct, "lost"),
        (settings.duplicate_pct, "twice"),
        (settings.reorder_pct, "late"),
    ];
    words.extend(
        shares
            .iter()
            .filter(|(share, _)| *share > 0.0)
            .map(|(share, what)| format!("{share} % {what}")),
    );
    if let Some(rate) = settings.rate_bits_per_second {
        words.push(format!("{} kbit/s", rate / 1000));
    }
    html! {
        @for (number, word) in words.iter().enumerate() {
            @let y = if number == 0 { middle - 8.0 } else { middle + 4.0 + number as f64 * 14.0 };
            text.about x=(px(x)) y=(px(y)) text-anchor="middle" { (word) }
        }
    }
}
