//! A line that loses one packet in fifty and takes twenty milliseconds.

use std::time::Duration;

use lab::WireSettings;

use crate::scenario::{Browser, Client, Office, PATIENCE_WITH_LOSS, Scenario};

/// Retransmissions cross a filter that may have dropped, or passed, the first copy.
pub(super) fn scenario() -> Scenario {
    let mut scenario = Scenario::new("lossy_wan", "two per cent of loss and 20 ms each way", 3)
        .with(Client::new(1, "kazaa"))
        .with(Client::new(2, "gift"))
        .with(Browser::new(3, "http1,http_bytes,tls_h1", 18).on_a_lossy_line());
    let wire = WireSettings {
        delay: Duration::from_millis(20),
        loss_pct: 2.0,
        ..WireSettings::default()
    };
    scenario.office = Office { wire: Some(wire), real_segments: true, ..scenario.office };
    scenario.slow_grace = PATIENCE_WITH_LOSS;
    scenario
}
