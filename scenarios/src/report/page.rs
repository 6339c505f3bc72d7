//! The frame that every page stands in.

use maud::{DOCTYPE, Markup, PreEscaped, html};

/// Colours for light and dark, type, tables, drawings.
const STYLE: &str = include_str!("style.css");

/// A whole page. Its `body` holds everything below the line at the top.
pub(super) fn page(title: &str, is_index: bool, body: &Markup) -> String {
    let markup = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (title) }
                style { (PreEscaped(STYLE)) }
            }
            body {
                a.skip href="#content" { "Skip to content" }
                header.top {
                    @if is_index {
                        span.mark { "ftwall" } " scenarios"
                    } @else {
                        a href="index.html" { span.mark { "ftwall" } " scenarios" }
                    }
                }
                main #content { (body) }
            }
        }
    };
    markup.into_string()
}

/// Something wider than a phone, which scrolls by itself and can be reached by keyboard.
pub(super) fn wide(label: &str, content: &Markup) -> Markup {
    html! {
        div.wide role="region" aria-label=(label) tabindex="0" { (content) }
    }
}

/// One fact of a `dl.facts`: its name above, its value below.
pub(super) fn fact(name: &str, value: &str) -> Markup {
    html! { div { dt { (name) } dd { (value) } } }
}
