//! How inside addresses stand in the event log. They are personal data in many places; outside
//! addresses are what the log is for, and stay.

use std::hash::{BuildHasher as _, RandomState};
use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

use crate::Timestamp;

const DAY_S: u64 = 24 * 60 * 60;

/// How inside addresses are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Privacy {
    /// As they are.
    #[default]
    Full,
    /// As the network of 256 addresses they are in.
    Truncate,
    /// As a name that stays the same for a day (UTC), or until the daemon ends.
    HashDaily,
}

/// Writes inside addresses as they may be written.
#[derive(Debug)]
pub struct Pseudonyms {
    privacy: Privacy,
    /// The key of a day. It is never written anywhere, so that a name cannot be tried against all four
    /// thousand million addresses.
    key: (u64, RandomState),
}

impl Pseudonyms {
    /// As `privacy` says.
    #[must_use]
    pub fn new(privacy: Privacy) -> Pseudonyms {
        Pseudonyms {
            privacy,
            key: (0, RandomState::new()),
        }
    }

    /// Writes `client` otherwise wherever it stands as a value of its own in `line`, a line of JSON.
    pub fn hide(&mut self, now: Timestamp, client: Ipv4Addr, line: &mut String) {
        let hidden = match self.privacy {
            Privacy::Full => return,
            Privacy::Truncate => {
                let [first, second, third, _] = client.octets();
                Ipv4Addr::new(first, second, third, 0).to_string()
            }
            Privacy::HashDaily => self.name(now, client),
        };
        *line = line.replace(&format!("\"{client}\""), &format!("\"{hidden}\""));
    }

    fn name(&mut self, now: Timestamp, client: Ipv4Addr) -> String {
        let day = now.since_origin().as_secs() / DAY_S;
        if self.key.0 != day {
            self.key = (day, RandomState::new());
        }
        format!("client-{:016x}", self.key.1.hash_one(client))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 77, 1, 1);

    fn event() -> Value {
        json!({
            "src_ip": "10.77.1.1", "dest_ip": "10.77.1.10", "src_port": 10,
            "ftwall": { "client": "10.77.1.1", "peer": "198.18.0.1:1214" },
        })
    }

    fn hidden(pseudonyms: &mut Pseudonyms, now: Timestamp) -> Value {
        let mut line = event().to_string();
        pseudonyms.hide(now, CLIENT, &mut line);
        serde_json::from_str(&line).expect("it is JSON still")
    }

    #[test]
    fn a_truncated_client_is_its_network_and_the_peer_stays() {
        let event = hidden(&mut Pseudonyms::new(Privacy::Truncate), Timestamp::ORIGIN);
        assert_eq!(event["src_ip"], "10.77.1.0");
        assert_eq!(event["ftwall"]["client"], "10.77.1.0");
        assert_eq!(event["dest_ip"], "10.77.1.10", "somebody else");
        assert_eq!(event["ftwall"]["peer"], "198.18.0.1:1214");
    }

    #[test]
    fn a_client_has_one_name_for_a_day_and_another_on_the_next() {
        let mut pseudonyms = Pseudonyms::new(Privacy::HashDaily);
        let mut name = |second| {
            let event = hidden(&mut pseudonyms, Timestamp::from_secs(second));
            assert_eq!(event["src_ip"], event["ftwall"]["client"]);
            event["src_ip"].as_str().expect("it is a text").to_owned()
        };
        let (morning, evening, tomorrow) = (name(DAY_S), name(2 * DAY_S - 1), name(2 * DAY_S));
        assert!(morning.starts_with("client-"), "{morning}");
        assert_eq!(morning, evening);
        assert_ne!(evening, tomorrow);
    }

    #[test]
    fn two_clients_have_two_names() {
        let mut pseudonyms = Pseudonyms::new(Privacy::HashDaily);
        let names =
            [1, 2].map(|host| pseudonyms.name(Timestamp::ORIGIN, Ipv4Addr::new(10, 77, 1, host)));
        assert_ne!(names[0], names[1]);
    }

    #[test]
    fn plain_addresses_stay() {
        let written = hidden(&mut Pseudonyms::new(Privacy::Full), Timestamp::ORIGIN);
        assert_eq!(written, event());
    }
}
