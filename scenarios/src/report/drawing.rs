//! What all drawings share: a frame with a title for those who cannot see it, axes, lengths as text.

use maud::{Markup, html};

use super::scale::Tick;

/// A drawing of a size in its own units, scaled to the width it is given.
pub(super) struct Drawing<'a> {
    pub(super) class: &'a str,
    pub(super) width: f64,
    pub(super) height: f64,
    /// What it shows, in a sentence.
    pub(super) title: &'a str,
}

impl Drawing<'_> {
    pub(super) fn draw(&self, content: &Markup) -> Markup {
        let view = format!("0 0 {} {}", px(self.width), px(self.height));
        html! {
            svg class=(self.class) viewBox=(view) width=(px(self.width)) height=(px(self.height))
                role="img" aria-label=(self.title) xmlns="http://www.w3.org/2000/svg" {
                title { (self.title) }
                (content)
            }
        }
    }
}

/// Labelled ticks with a line through everything between `top` and `bottom`.
pub(super) fn axis(ticks: &[Tick], top: f64, bottom: f64) -> Markup {
    html! {
        g.axis {
            @for tick in ticks {
                line x1=(px(tick.x)) y1=(px(top)) x2=(px(tick.x)) y2=(px(bottom)) {}
                text x=(px(tick.x)) y=(px(bottom + 14.0)) text-anchor="middle" { (tick.label) }
            }
        }
    }
}

/// A length, to a tenth of a unit: more digits only make files longer.
pub(super) fn px(length: f64) -> String {
    let rounded = (length * 10.0).round() / 10.0;
    format!("{rounded}")
}
