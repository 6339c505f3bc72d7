//! A line of the event log that somebody asks about.

use std::net::{IpAddr, SocketAddr};

use serde_json::Value;

use crate::control::table::text;
use crate::control::wire::Failure;
use crate::gateway::failure::USAGE;

/// An event about a client, as it was written.
#[derive(Debug)]
pub(super) struct LoggedEvent {
    line: Value,
    client: IpAddr,
    /// The other end, if the event names one.
    peer: Option<IpAddr>,
}

impl LoggedEvent {
    /// Whether somebody gave a line of the log where an address may stand too.
    pub(super) fn is_meant(subject: &str) -> bool {
        subject.trim_start().starts_with('{')
    }

    /// Reads one line.
    pub(super) fn read(line: &str) -> Result<Self, Failure> {
        let wrong = |why: String| Failure::new(USAGE, why);
        let line: Value = serde_json::from_str(line).map_err(|error| {
            wrong(format!(
                "not an event: {error}; give one whole line of the event log, in quotes"
            ))
        })?;
        let Some(client) = line["ftwall"]["client"].as_str() else {
            return Err(wrong(
                "the event is about no client: there is nothing to explain".into(),
            ));
        };
        let client = client.parse().map_err(|_| {
            wrong(format!(
                "the event names its client \"{client}\": addresses are private there; \
                 give the client's own to ftwall explain"
            ))
        })?;
        let peer = peer_of(&line, client);
        Ok(Self { line, client, peer })
    }

    /// Whom it is about.
    pub(super) fn client(&self) -> String {
        self.client.to_string()
    }

    /// The event in a line for people.
    pub(super) fn heading(&self) -> String {
        let with = self.peer.map(|peer| format!(" and {peer}"));
        format!(
            "{} of {}, about {}{}",
            text(&self.line["event_type"]),
            text(&self.line["timestamp"]),
            self.client,
            with.unwrap_or_default()
        )
    }

    /// Leaves of a client's explanation what the event is about, and puts the event before it.
    pub(super) fn narrow(&self, explained: &mut Value) {
        if let Some(peer) = self.peer {
            let is_peers = |place: &Value| {
                let ip = |text: &str| text.parse().or_else(|_| end(text).ok_or(()));
                place.as_str().and_then(|text| ip(text).ok()) == Some(peer)
            };
            keep(explained, "incidents", |incident| {
                is_peers(&incident["src_ip"]) || is_peers(&incident["dest_ip"])
            });
            keep(explained, "peers", |known| is_peers(&known["peer"]));
        }
        explained["event"] = self.line.clone();
    }
}

fn peer_of(line: &Value, client: IpAddr) -> Option<IpAddr> {
    let named = line["ftwall"]["peer"].as_str().and_then(end);
    let ends = ["src_ip", "dest_ip"].into_iter();
    let mut others = ends.filter_map(|name| line[name].as_str()?.parse().ok());
    named.or_else(|| others.find(|other| *other != client))
}

/// The address of `ADDRESS:PORT`.
fn end(text: &str) -> Option<IpAddr> {
    text.parse().ok().map(|end: SocketAddr| end.ip())
}

fn keep(explained: &mut Value, list: &str, is_meant: impl Fn(&Value) -> bool) {
    if let Some(entries) = explained[list].as_array_mut() {
        entries.retain(is_meant);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const DROP: &str = r#"{"timestamp":"2026-01-02T03:04:05.000000Z","event_type":"packet.drop",
        "src_ip":"198.51.100.7","src_port":1214,"dest_ip":"10.77.1.1","dest_port":40000,"proto":"TCP",
        "ftwall":{"client":"10.77.1.1","verdict":{"action":"drop","reason":"condemned"}}}"#;

    #[test]
    fn an_event_leaves_of_its_clients_explanation_what_it_is_about() {
        let event = LoggedEvent::read(DROP).expect("it is an event");
        assert_eq!(event.client(), "10.77.1.1");
        assert_eq!(
            event.heading(),
            "packet.drop of 2026-01-02T03:04:05.000000Z, about 10.77.1.1 and 198.51.100.7"
        );
        let mut explained = json!({
            "incidents": [
                { "src_ip": "10.77.1.1", "dest_ip": "198.51.100.7" },
                { "src_ip": "198.51.100.7", "dest_ip": "10.77.1.1" },
                { "src_ip": "10.77.1.1", "dest_ip": "198.51.100.8" },
            ],
            "peers": [{ "peer": "198.51.100.7:1214" }, { "peer": "198.51.100.8:1214" }],
        });
        event.narrow(&mut explained);
        let left = |list: &str| explained[list].as_array().map(Vec::len);
        assert_eq!((left("incidents"), left("peers")), (Some(2), Some(1)));
        assert_eq!(explained["event"]["event_type"], "packet.drop");
    }

    #[test]
    fn what_cannot_be_explained_says_why() {
        for (line, why) in [
            ("{\"timestamp\":", "give one whole line"),
            (r#"{"event_type":"ready"}"#, "about no client"),
            (
                r#"{"ftwall":{"client":"10.77.1.0/24"}}"#,
                "addresses are private there",
            ),
        ] {
            let failure = LoggedEvent::read(line).expect_err("it is no event of a client");
            assert_eq!(failure.code, USAGE);
            assert!(failure.message.contains(why), "{}", failure.message);
        }
    }
}
