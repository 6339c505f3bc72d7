//! Downloads from sources known already, in every style and down to one-byte segments.

use crate::scenario::{Browser, Client, Scenario};

/// One client per way of asking; each also meets busy sources (503) and asks oddly once (501).
pub(super) fn scenario() -> Scenario {
    Scenario::new("http_transfer", "file requests: by hash, old style, HTTP/1.0, bare, in pieces", 7)
        .with(Client::new(1, "http-only").args(["--http-style", "kazaa"]))
        .with(Client::new(2, "http-only").args(["--http-style", "gift"]))
        .with(Client::new(3, "http-only").args(["--http-style", "mldonkey"]))
        .with(Client::new(4, "http-only").args(["--http-style", "old-style"]))
        .with(Client::new(5, "http-only").args(["--http-style", "bare"]))
        .with(Client::new(6, "http-only").args(["--http-style", "kazaa", "--segment", "1"]))
        .with(Browser::new(7, "http1,http_digits,http_well_known,http_split_head,http10", 25))
}
