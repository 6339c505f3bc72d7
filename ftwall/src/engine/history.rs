//! What was seen of each client lately and what became of it, so that an operator can be told why.

use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use serde::Serialize;

use crate::event::{PacketEnds, VerdictDetails};
use crate::expiring::Expiring;
use crate::{Evidence, Timestamp};

/// Packets of one kind between the same ends, one after the other.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Incident {
    /// When the first of them came.
    pub first: Timestamp,
    /// When the last of them came.
    pub last: Timestamp,
    /// How many they are.
    pub packets: u64,
    /// Between whom the first went.
    #[serde(flatten)]
    pub ends: PacketEnds,
    /// What was seen in them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub evidence: Option<Evidence>,
    /// What became of them.
    pub verdict: VerdictDetails,
    /// What would have become of them, had their host not only been monitored.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub would_have: Option<VerdictDetails>,
}

/// The latest incidents of the latest clients.
#[derive(Debug)]
pub(crate) struct History {
    clients: Expiring<Ipv4Addr, VecDeque<Incident>>,
}

impl History {
    pub(crate) fn new(seed: u64) -> Self {
        let clients = Expiring::new(MAX_CLIENTS, seed);
        Self { clients }
    }

    pub(crate) fn record(&mut self, client: Ipv4Addr, incident: Incident) {
        let now = incident.last;
        let ends = now + REMEMBERED_FOR;
        let Some(incidents) = self.clients.get_mut(&client, now) else {
            self.clients
                .insert(client, VecDeque::from([incident]), ends);
            return;
        };
        match incidents.back_mut() {
            Some(last) if is_alike(last, &incident) => {
                last.last = now;
                last.packets += incident.packets;
            }
            Some(_) | None => {
                if incidents.len() == MAX_INCIDENTS {
                    incidents.pop_front();
                }
                incidents.push_back(incident);
            }
        }
        self.clients.renew(&client, ends);
    }

    /// A client's incidents, oldest first.
    pub(crate) fn of(&self, client: Ipv4Addr, now: Timestamp) -> impl Iterator<Item = &Incident> {
        self.clients.get(&client, now).into_iter().flatten()
    }

    /// Incidents of all clients in which `is_meant` recognises an end, by their clients.
    pub(crate) fn with(
        &self,
        is_meant: impl Fn(SocketAddr) -> bool,
        now: Timestamp,
    ) -> Vec<Incident> {
        let mut found: Vec<(Ipv4Addr, &Incident)> = Vec::new();
        for (client, incidents, _) in self.clients.iter(now) {
            let meant = incidents.iter().filter(|incident| {
                let PacketEnds {
                    src_ip,
                    src_port,
                    dest_ip,
                    dest_port,
                    ..
                } = incident.ends;
                is_meant((src_ip, src_port).into()) || is_meant((dest_ip, dest_port).into())
            });
            found.extend(meant.map(|incident| (client, incident)));
        }
        found.sort_by_key(|(client, incident)| (*client, incident.first));
        found
            .into_iter()
            .map(|(_, incident)| incident.clone())
            .collect()
    }

    pub(crate) fn handle_timeout(&mut self, now: Timestamp) {
        while self.clients.pop_ended(now).is_some() {}
    }

    pub(crate) fn poll_timeout(&self) -> Option<Timestamp> {
        self.clients.next_end()
    }
}

/// Whether two incidents differ in nothing but ports that a client chooses anew for each attempt.
fn is_alike(one: &Incident, other: &Incident) -> bool {
    let key = |incident: &Incident| {
        let ends = incident.ends;
        let addresses = (ends.src_ip, ends.dest_ip, ends.dest_port, ends.proto);
        (
            addresses,
            incident.evidence,
            incident.verdict,
            incident.would_have,
        )
    };
    key(one) == key(other)
}

/// Incidents remembered per client: enough for one round through a client's cache of peers.
const MAX_INCIDENTS: usize = 64;
/// Clients of which incidents are remembered; at 120 octets an incident this bounds them to 16 MiB.
const MAX_CLIENTS: usize = 2048;
/// How long incidents are remembered after a client's last one: until tomorrow's complaint.
const REMEMBERED_FOR: Duration = Duration::from_secs(24 * 3600);

#[cfg(test)]
mod tests {
    use super::*;

    const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 77, 1, 1);

    #[test]
    fn attempts_that_differ_in_the_clients_port_alone_are_one_incident() {
        let mut history = History::new(1);
        for port in 0..10 {
            history.record(CLIENT, incident(port, 2000, u64::from(port)));
        }
        history.record(CLIENT, incident(11, 2001, 20));
        let seen: Vec<_> = history
            .of(CLIENT, Timestamp::from_secs(30))
            .map(|incident| (incident.packets, incident.first, incident.last))
            .collect();
        let at = Timestamp::from_secs;
        assert_eq!(seen, [(10, at(0), at(9)), (1, at(20), at(20))]);
    }

    #[test]
    fn what_is_remembered_of_one_client_is_bounded_and_ends() {
        let mut history = History::new(1);
        for port in 0..200 {
            history.record(CLIENT, incident(1, port, u64::from(port)));
        }
        let now = Timestamp::from_secs(200);
        assert_eq!(history.of(CLIENT, now).count(), MAX_INCIDENTS);
        let oldest = history.of(CLIENT, now).next().expect("there are some");
        assert_eq!(oldest.ends.dest_port, 200 - 64);
        let tomorrow = now + REMEMBERED_FOR;
        history.handle_timeout(tomorrow);
        assert_eq!(history.of(CLIENT, now).count(), 0);
    }

    #[test]
    fn a_peers_incidents_are_found_among_those_of_all_clients() {
        let mut history = History::new(1);
        history.record(Ipv4Addr::new(10, 77, 1, 2), incident(1, 2000, 1));
        history.record(CLIENT, incident(1, 2000, 2));
        history.record(CLIENT, incident(1, 2001, 3));
        let peer = SocketAddr::from(([198, 18, 0, 1], 2000));
        let found = history.with(|end| end == peer, Timestamp::from_secs(4));
        let times: Vec<_> = found.iter().map(|incident| incident.first).collect();
        assert_eq!(times, [Timestamp::from_secs(2), Timestamp::from_secs(1)]);
    }

    fn incident(src_port: u16, dest_port: u16, at: u64) -> Incident {
        let at = Timestamp::from_secs(at);
        let (from, to) = (
            SocketAddr::from((CLIENT, src_port)),
            SocketAddr::from(([198, 18, 0, 1], dest_port)),
        );
        Incident {
            first: at,
            last: at,
            packets: 1,
            ends: PacketEnds::new("TCP", from, to),
            evidence: Some(Evidence::ConstantOpener),
            verdict: VerdictDetails {
                action: "drop",
                reason: "constant_opener",
            },
            would_have: None,
        }
    }
}
