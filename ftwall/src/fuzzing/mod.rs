//! The bodies of the fuzz targets: one file each, one line each in [`TARGETS`].
//!
//! A body takes any octets and panics where something is claimed that does not hold; that it comes back
//! at all is the least of its claims. The fuzzer in `ftwall/fuzz` searches for such octets; the unit
//! tests run every body over the committed corpora and over all past findings, so that nothing found
//! once can come back unseen.
//!
//! Inputs are scripts that an `Input` reads front to back. The format is our own, octet by octet, so
//! that a seed can be written by hand and a corpus stays valid whatever a library changes.

mod engine;
mod flow_reassembly;
mod http_head;
mod input;
mod packet_view;
mod wire;

#[cfg(feature = "gateway")]
mod capture;
#[cfg(feature = "gateway")]
mod rules_text;

/// A fuzz target.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// Name of the target, of its corpus and of its findings.
    pub name: &'static str,
    /// Checks one input.
    pub check: fn(&[u8]),
    /// Inputs to start from.
    pub seeds: fn() -> Vec<Vec<u8>>,
}

/// Every target.
pub const TARGETS: &[Target] = &[
    packet_view::TARGET,
    http_head::TARGET,
    flow_reassembly::TARGET,
    engine::TARGET,
    #[cfg(feature = "gateway")]
    rules_text::TARGET,
    #[cfg(feature = "gateway")]
    capture::TARGET,
];

/// Checks one input of the target `name`.
///
/// # Panics
/// If there is no such target, or if the input breaks one of its claims.
pub fn check(name: &str, octets: &[u8]) {
    let target = TARGETS.iter().find(|target| target.name == name);
    (target.expect("a target of this name").check)(octets);
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use super::*;

    #[test]
    fn every_seed_holds() {
        for target in TARGETS {
            let seeds = (target.seeds)();
            assert!(!seeds.is_empty(), "{} starts from nothing", target.name);
            seeds.iter().for_each(|seed| (target.check)(seed));
        }
    }

    #[test]
    fn every_input_of_the_committed_corpora_holds() {
        for target in TARGETS {
            let count = replay("corpus", target);
            println!("{}: {count} inputs of its corpus", target.name);
            assert!(count > 0, "{} has lost its corpus", target.name);
        }
    }

    #[test]
    fn no_past_finding_comes_back() {
        let counts = TARGETS.iter().map(|target| replay("findings", target));
        println!("{} past findings", counts.sum::<usize>());
    }

    /// Checks every file of a target in a folder; how many there were.
    fn replay(folder: &str, target: &Target) -> usize {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("fuzz")
            .join(folder)
            .join(target.name);
        let files = files(&folder);
        for file in &files {
            let octets = std::fs::read(file).expect("it was listed");
            let outcome = std::panic::catch_unwind(|| (target.check)(&octets));
            assert!(outcome.is_ok(), "{} no longer holds", file.display());
        }
        files.len()
    }

    fn files(folder: &Path) -> Vec<PathBuf> {
        let Ok(entries) = std::fs::read_dir(folder) else {
            return Vec::new();
        };
        let mut files: Vec<_> = entries
            .map(|entry| entry.expect("it can be listed").path())
            .collect();
        files.sort();
        files
    }
}
