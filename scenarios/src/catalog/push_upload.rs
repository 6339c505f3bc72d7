//! A file goes out: the owner dials and says GIVE, the request comes in.

use crate::scenario::{Browser, Client, Scenario};

/// An inside uploader whose connections carry the request in the other direction.
pub(super) fn scenario() -> Scenario {
    Scenario::new("push_upload", "an inside owner dials out with GIVE and is asked for the file", 2)
        .with(Client::new(1, "uploader"))
        .with(Browser::new(2, "http1,http_post,tls_h1", 21))
}
