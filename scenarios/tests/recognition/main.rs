//! The recognition matrix: every packet kind that the simulator writes, in every position that it can
//! have, and what must be said of it; and every near miss, one field off at a time, and silence.
//!
//! Writer and recogniser share no code. What is expected stands here as data and comes from the
//! protocol's documentation and from the promise (see ARCHITECTURE.md), never from a run.
//!
//! | file | holds |
//! |---|---|
//! | `site.rs` | a gateway in virtual time, hosts, connections that are cut and repeat themselves |
//! | `written.rs` | everything the simulator writes |
//! | `datagrams.rs`, `sessions.rs`, `transfers.rs` | kind x position |
//! | `near_misses.rs` | one field off, and silence |

mod datagrams;
mod near_misses;
mod sessions;
mod site;
mod transfers;
mod written;

/// Counts cases and collects what was found, so that one run names all of it.
#[derive(Default)]
struct Tally {
    cases: usize,
    findings: Vec<String>,
}

/// Findings that are printed; the rest are counted.
const SHOWN: usize = 20;

impl Tally {
    /// Counts a case; `finding` says what is wrong with it, if something is.
    fn check(&mut self, finding: Option<String>) {
        self.cases += 1;
        self.findings.extend(finding);
    }

    /// Prints the number of cases, and fails if there are fewer than `least` or findings.
    #[track_caller]
    fn conclude(self, name: &str, least: usize) {
        println!("{name}: {} cases checked", self.cases);
        let shown = self.findings[..self.findings.len().min(SHOWN)].join("\n");
        assert!(
            self.findings.is_empty(),
            "{} of {} cases of {name}:\n{shown}",
            self.findings.len(),
            self.cases
        );
        assert!(self.cases >= least, "{name}: only {} cases", self.cases);
    }
}
