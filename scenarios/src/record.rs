//! What one run left behind, the same from every stage, and how it is made ready for the judge.

use crate::judge::Run;
use crate::ledger::Ledger;
use crate::observe::{Evidence, Observations, Site};
use crate::web::WebAccount;

/// Everything one run left behind.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Record {
    /// When the hosts inside were let loose, in microseconds since the Unix epoch (or since the start
    /// of virtual time): the zero of every timeline.
    pub began_us: u64,
    /// What the witnesses recorded.
    pub evidence: Evidence,
    /// The device's own events, one JSON object per line. Shown, never judged by.
    pub device_events: String,
    /// What went wrong with the run itself, as sentences.
    pub mishaps: Vec<String>,
}

impl Record {
    /// The witnesses' accounts, joined.
    #[must_use]
    pub fn observations(&self, site: &Site) -> Observations {
        Observations::join(site, &self.evidence)
    }

    /// The run as the judge reads it.
    #[must_use]
    pub fn judgeable(&self, site: &Site) -> Run {
        Run {
            ledger: Ledger::new(&self.observations(site)),
            web: WebAccount::read(&self.evidence.clients),
            mishaps: self.mishaps.clone(),
        }
    }
}
