//! The table of faults as a page that needs nothing but a browser.

use maud::{Markup, html};

use super::page::{page, wide};
use crate::faults::{Document, HEADINGS, Row};

/// The page as the text of an HTML file.
#[must_use]
pub fn fault_page(document: &Document) -> String {
    let title = format!(
        "Faults of a gateway with {}, seed {}",
        document.device, document.seed
    );
    let body = html! {
        h1 { (title) }
        p { code { (document) } }
        @for finding in &document.void { p { (finding) } }
        (wide("faults", &table(document)))
        @for row in &document.rows { (remarks(row)) }
    };
    page(&title, true, &body)
}

fn table(document: &Document) -> Markup {
    html! {
        table {
            thead { tr { @for heading in HEADINGS { th scope="col" { (heading) } } } }
            tbody {
                @for row in &document.rows {
                    tr { @for cell in row.cells() { td { (cell) } } }
                }
            }
        }
    }
}

fn remarks(row: &Row) -> Markup {
    html! {
        h2 { (row.fault.name()) ": " (row.word()) }
        p { (row.about) }
        ul { @for remark in row.remarks() { li { (remark) } } }
    }
}
