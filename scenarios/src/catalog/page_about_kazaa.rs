//! A page that describes the protocol is not the protocol.

use crate::scenario::{Browser, Client, Scenario};

/// Pages and uploads full of `X-Kazaa` and `/.hash=`, from a clean host and from an infected one.
pub(super) fn scenario() -> Scenario {
    Scenario::new("page_about_kazaa", "pages and uploads that describe the protocol", 2)
        .with(Client::new(1, "kazaa"))
        .with(Browser::new(1, "page_about_kazaa,upload_about_kazaa", 16))
        .with(Browser::new(2, "page_about_kazaa,upload_about_kazaa,http_digits,http_well_known", 24))
}
