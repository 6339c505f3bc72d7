//! What came of a run, for people: a table on the terminal, pages in a directory.
//!
//! The pages are files of their own: styles and drawings stand inside them, nothing is fetched, and
//! no script runs. Whatever was measured is data here and escaped where it is written.

mod drawing;
mod faults;
mod index;
mod junit;
mod lanes;
mod latency;
mod ledger;
mod page;
mod scale;
mod scenario;
mod soak;
mod table;
mod topology;
mod words;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;

pub use faults::fault_page;
pub use soak::drawing as soak_drawing;
pub use table::Table;

use crate::outcome::{Outcome, Totals};
use crate::scenario::Scenario;

/// One scenario as it was played.
#[derive(Debug, Clone, Copy)]
pub struct Entry<'a> {
    /// The scenario.
    pub scenario: &'a Scenario,
    /// What came of it; the drawings need its timelines.
    pub outcome: &'a Outcome,
}

/// Everything a run of scenarios has to say.
#[derive(Debug)]
pub struct Report<'a> {
    entries: Vec<Entry<'a>>,
    totals: Totals,
}

/// Up to so many plays, each gets a page.
const MOST_PAGES: usize = 200;

/// Where under a report's directory the records of failed scenarios are kept.
const RECORDS: &str = "records";

impl<'a> Report<'a> {
    /// A report on scenarios in the order in which they are to be listed.
    #[must_use]
    pub fn new(entries: Vec<Entry<'a>>) -> Self {
        let totals = Totals::of(entries.iter().map(|entry| entry.outcome));
        Self { entries, totals }
    }

    /// Writes `index.html`, a page per scenario, `junit.xml` and `outcomes.json` into a directory,
    /// which is created if need be.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn write(&self, directory: &Path) -> anyhow::Result<()> {
        fs::create_dir_all(directory)
            .with_context(|| format!("creating {}", directory.display()))?;
        let put = |name: &str, text: String| {
            let path = directory.join(name);
            fs::write(&path, text).with_context(|| format!("writing {}", path.display()))
        };
        // Only goes if it is empty, which is as it should be.
        let _some_did_not_hold = fs::remove_dir(records_directory(directory));
        let shown = self.shown();
        for entry in &shown {
            let records = entry.records(directory)?;
            put(&entry.file_name(), scenario::render(*entry, &records))?;
        }
        put("junit.xml", junit::document(&self.entries))?;
        put("outcomes.json", self.json()?)?;
        // Last, so that whoever finds an index finds what it links to.
        put(
            "index.html",
            index::render(&self.entries, &shown, &self.totals),
        )
    }

    /// The entries that get a page. Of many seeds, the first of each scenario and those that did not
    /// hold: nobody opens a thousand pages that all say the same.
    fn shown(&self) -> Vec<Entry<'a>> {
        if self.entries.len() <= MOST_PAGES {
            return self.entries.clone();
        }
        let mut seen = BTreeSet::new();
        let is_worth_a_page = |entry: &&Entry<'_>| {
            seen.insert(entry.scenario.name.clone()) || !entry.outcome.findings.is_empty()
        };
        self.entries
            .iter()
            .filter(is_worth_a_page)
            .copied()
            .collect()
    }

    fn json(&self) -> anyhow::Result<String> {
        let outcomes: Vec<_> = self.entries.iter().map(|entry| entry.outcome).collect();
        let document = serde_json::json!({ "totals": self.totals, "outcomes": outcomes });
        Ok(document.to_string())
    }
}

impl Entry<'_> {
    /// The name of its page. A scenario may be played with several seeds, each with a page.
    fn file_name(self) -> String {
        format!(
            "{}-{}.html",
            file_safe(&self.outcome.scenario),
            self.outcome.seed
        )
    }

    /// Files kept of it, by path from the report's directory.
    fn records(self, directory: &Path) -> anyhow::Result<Vec<PathBuf>> {
        let mut found = Vec::new();
        for run in ["off", "on"] {
            let place = Path::new(RECORDS).join(&self.outcome.scenario).join(run);
            let Ok(entries) = fs::read_dir(directory.join(&place)) else {
                continue;
            };
            for entry in entries {
                found.push(place.join(entry?.file_name()));
            }
        }
        found.sort();
        Ok(found)
    }
}

/// A name as it may stand in a path and in a link.
fn file_safe(name: &str) -> String {
    let safe = |letter: char| {
        let is_safe = letter.is_ascii_alphanumeric() || "_-".contains(letter);
        if is_safe { letter } else { '_' }
    };
    name.chars().map(safe).collect()
}

/// The directory in which a run that is to be reported on keeps its records meanwhile.
#[must_use]
pub fn records_directory(report: &Path) -> PathBuf {
    report.join(RECORDS)
}

/// Removes the records of a scenario that held: nobody will look at them.
///
/// # Errors
/// When they are there and cannot be removed.
pub fn settle_records(report: &Path, outcome: &Outcome) -> anyhow::Result<()> {
    let directory = records_directory(report).join(&outcome.scenario);
    if !outcome.findings.is_empty() || !directory.exists() {
        return Ok(());
    }
    fs::remove_dir_all(&directory).with_context(|| format!("removing {}", directory.display()))
}
