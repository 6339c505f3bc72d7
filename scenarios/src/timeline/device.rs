//! The device's own events, read as the log lines they are.
//!
//! Only names and addresses are taken from them. A line of another shape is no error here: the log is
//! shown beside what the witnesses saw, and nothing rests on it.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::UNIX_EPOCH;

use serde_json::Value;

use super::What;

/// One event about one inside host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct DeviceEvent {
    /// Microseconds since the Unix epoch.
    pub(super) at_us: u64,
    /// The inside host.
    pub(super) client: Ipv4Addr,
    /// What it was.
    pub(super) what: What,
}

/// The events about inside hosts among the lines of a log, in its order.
pub(super) fn events(log: &str) -> impl Iterator<Item = DeviceEvent> {
    log.lines().flat_map(event).flatten()
}

/// A line's events: a drop may also say how many before it went unreported.
fn event(line: &str) -> Option<impl Iterator<Item = DeviceEvent> + use<>> {
    let line: Value = serde_json::from_str(line).ok()?;
    let at_us = micros(line["timestamp"].as_str()?)?;
    let details = &line["ftwall"];
    let client = details["client"].as_str()?.parse().ok()?;
    let whats = [unreported(details), what(&line["event_type"], details)];
    let about = move |what| DeviceEvent {
        at_us,
        client,
        what,
    };
    Some(whats.into_iter().flatten().map(about))
}

fn unreported(details: &Value) -> Option<What> {
    let count = details["suppressed"].as_u64()?;
    Some(What::Unreported { count })
}

fn what(event_type: &Value, details: &Value) -> Option<What> {
    let evidence = text(&details["evidence"]);
    let peer = peer(&details["peer"]);
    match event_type.as_str()? {
        "packet.drop" => Some(What::Dropped {
            reason: text(&details["verdict"]["reason"])?,
            evidence,
            peer,
        }),
        "client.locked" => Some(What::Locked { evidence }),
        "client.released" => Some(What::Released),
        "client.probed" => Some(What::Probed),
        "peer.learned" => peer.map(|peer| What::Learned { peer, evidence }),
        "peer.refused" => Some(What::Refused {
            peer: peer?,
            why: text(&details["refusal"])?,
        }),
        "peer.expired" => peer.map(|peer| What::Forgotten { peer }),
        _ => None,
    }
}

fn text(value: &Value) -> Option<String> {
    value.as_str().map(str::to_owned)
}

fn peer(value: &Value) -> Option<SocketAddrV4> {
    value.as_str()?.parse().ok()
}

fn micros(timestamp: &str) -> Option<u64> {
    let time = humantime::parse_rfc3339(timestamp).ok()?;
    let since = time.duration_since(UNIX_EPOCH).ok()?;
    u64::try_from(since.as_micros()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = r#"{"timestamp":"1970-01-01T00:00:02.500000Z","event_type":"#;

    fn one(rest: &str) -> Option<DeviceEvent> {
        let mut all = events(&format!("{HEAD}{rest}")).collect::<Vec<_>>();
        assert!(all.len() <= 1, "{all:?}");
        all.pop()
    }

    #[test]
    fn a_drop_has_its_reason_evidence_and_peer() {
        let event = one(
            r#""packet.drop","src_ip":"10.77.1.1","ftwall":{"client":"10.77.1.1","peer":"198.18.0.1:1214","evidence":"udp_ping","verdict":{"action":"drop","reason":"ping"}}}"#,
        )
        .unwrap();
        assert_eq!(
            (event.at_us, event.client),
            (2_500_000, [10, 77, 1, 1].into())
        );
        let dropped = What::Dropped {
            reason: "ping".to_owned(),
            evidence: Some("udp_ping".to_owned()),
            peer: Some("198.18.0.1:1214".parse().unwrap()),
        };
        assert_eq!(event.what, dropped);
    }

    #[test]
    fn a_drop_after_silence_also_says_how_many_went_unreported() {
        let line = r#""packet.drop","ftwall":{"client":"10.77.1.1","verdict":{"action":"drop","reason":"opener"},"suppressed":41}}"#;
        let whats: Vec<_> = events(&format!("{HEAD}{line}"))
            .map(|event| event.what)
            .collect();
        assert_eq!(whats.len(), 2);
        assert_eq!(whats[0], What::Unreported { count: 41 });
    }

    #[test]
    fn the_count_of_unreported_drops_stands_alone_too() {
        let event = one(r#""packet.drop","ftwall":{"client":"10.77.1.1","suppressed":7}}"#);
        assert_eq!(event.unwrap().what, What::Unreported { count: 7 });
    }

    #[test]
    fn lines_about_no_host_and_lines_that_are_none_are_passed_over() {
        assert_eq!(one(r#""ready","backend":"nft","queue":0}"#), None);
        assert_eq!(
            one(r#""stats","ftwall":{"evidence":{"udp_ping":3}}}"#),
            None
        );
        assert_eq!(events("not json\n\n{}\n").count(), 0);
    }
}
