//! The ledger: how far each inside host got with each outside peer.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddrV4;

use simulator::report::{AttemptKind, Mode};

use crate::level::Level;
use crate::observe::{Disagreement, FlowKey, Observations, Sighting};

/// One run's contacts, per host.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ledger {
    /// One row per host that tried or reached anything.
    pub rows: BTreeMap<String, Row>,
    /// Witnesses that contradict each other.
    pub disagreements: Vec<Disagreement>,
}

/// One host's contacts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Row {
    contacts: BTreeMap<FlowKey, Contact>,
    /// Attempts by kind.
    pub attempts: BTreeMap<AttemptKind, usize>,
    /// The modes the client went through, in order.
    pub modes: Vec<Mode>,
    /// Replies that somebody forged in a peer's name.
    pub forged: usize,
    /// Connections that ended without having reached their goal: each makes room for another dial.
    pub ended: usize,
    /// When the host had given itself away beyond doubt, in microseconds since the Unix epoch.
    pub identified_us: Option<u64>,
}

/// One contact: for each level reached, the sighting that saw it first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Contact {
    first: BTreeMap<Level, Sighting>,
}

impl Ledger {
    /// Enters the observations of one run.
    #[must_use]
    pub fn new(observations: &Observations) -> Self {
        let mut ledger = Self {
            disagreements: observations.disagreements.clone(),
            ..Self::default()
        };
        for attempt in &observations.attempts {
            *ledger
                .row(&attempt.host)
                .attempts
                .entry(attempt.kind)
                .or_default() += 1;
        }
        for (host, modes) in &observations.modes {
            ledger.row(host).modes.clone_from(modes);
        }
        for (host, forged) in &observations.forged {
            ledger.row(host).forged = *forged;
        }
        for (host, ended) in &observations.ended {
            ledger.row(host).ended = *ended;
        }
        for (host, at_us) in &observations.identified_us {
            ledger.row(host).identified_us = Some(*at_us);
        }
        for sighting in &observations.sightings {
            ledger.row(&sighting.host).enter(sighting);
        }
        ledger
    }

    fn row(&mut self, host: &str) -> &mut Row {
        self.rows.entry(host.to_owned()).or_default()
    }
}

impl Row {
    fn enter(&mut self, sighting: &Sighting) {
        let contact = self.contacts.entry(sighting.flow.key()).or_default();
        let first = contact
            .first
            .entry(sighting.level)
            .or_insert_with(|| sighting.clone());
        if sighting.at_us < first.at_us {
            *first = sighting.clone();
        }
    }

    /// The worst level reached with any peer.
    #[must_use]
    pub fn highest(&self) -> Option<Level> {
        self.contacts.values().filter_map(Contact::highest).max()
    }

    /// The worst level reached with each peer.
    #[must_use]
    pub fn peers(&self) -> BTreeMap<SocketAddrV4, Level> {
        let mut peers = BTreeMap::new();
        for (key, contact) in &self.contacts {
            let Some(level) = contact.highest() else {
                continue;
            };
            let worst = peers.entry(key.peer).or_insert(level);
            *worst = level.max(*worst);
        }
        peers
    }

    /// First sightings of a level, one per contact, in order of time.
    #[must_use]
    pub fn at(&self, level: Level) -> Vec<&Sighting> {
        let mut sightings: Vec<_> = self
            .contacts
            .values()
            .filter_map(|contact| contact.first.get(&level))
            .collect();
        sightings.sort_by_key(|sighting| (sighting.at_us, sighting.flow));
        sightings
    }

    /// How many contacts reached a level.
    #[must_use]
    pub fn count(&self, level: Level) -> usize {
        self.contacts
            .values()
            .filter(|contact| contact.first.contains_key(&level))
            .count()
    }

    /// The levels reached, by any contact.
    #[must_use]
    pub fn levels(&self) -> BTreeSet<Level> {
        self.contacts
            .values()
            .flat_map(|contact| contact.first.keys().copied())
            .collect()
    }
}

impl Contact {
    fn highest(&self) -> Option<Level> {
        self.first.keys().next_back().copied()
    }
}
