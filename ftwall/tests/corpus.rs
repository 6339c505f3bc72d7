//! Captures that nobody here wrote: in none of them a FastTrack client speaks, so that nothing may
//! be dropped and nobody locked.
//!
//! The captures hold third parties' traffic and are no part of the project. They are looked for in
//! `FTWALL_CORPUS`, else in `../shared/corpus` beside the workspace; a run without them says so.

#![cfg(feature = "gateway")]

use std::path::{Path, PathBuf};

use ftwall::EngineConfig;
use ftwall::gateway::replay::{self, Format, Options, ReplayError};

#[test]
fn in_captures_without_file_sharing_nothing_is_dropped_and_nobody_locked() {
    let findings = replay_all("benign", &EngineConfig::default());
    assert_eq!(findings, Vec::<String>::new());
}

#[test]
fn nothing_is_dropped_either_when_every_initiator_counts_as_inside() {
    let config = EngineConfig {
        judge_all: true,
        ..EngineConfig::default()
    };
    let findings = replay_all("benign", &config);
    assert_eq!(findings, Vec::<String>::new());
}

#[test]
fn other_file_sharing_protocols_are_read_to_the_end() {
    let config = EngineConfig {
        judge_all: true,
        ..EngineConfig::default()
    };
    for finding in replay_all("p2p", &config) {
        println!("other file sharing: {finding}");
    }
}

/// One sentence per capture in which something was dropped or somebody locked.
fn replay_all(kind: &str, engine: &EngineConfig) -> Vec<String> {
    let Some(folder) = corpus().map(|corpus| corpus.join(kind)) else {
        println!("SKIPPED: no captures; set FTWALL_CORPUS to a folder with {kind}/*.pcap");
        return Vec::new();
    };
    let files = captures(&folder);
    assert!(!files.is_empty(), "no captures in {}", folder.display());
    let mut unreadable = 0;
    let mut findings = Vec::new();
    for file in &files {
        let (finding, is_readable) = replay_one(file, engine);
        unreadable += usize::from(!is_readable);
        findings.extend(finding);
    }
    println!(
        "{} captures of {kind}, {unreadable} of them not to their end",
        files.len()
    );
    findings
}

fn replay_one(file: &Path, engine: &EngineConfig) -> (Option<String>, bool) {
    let (files, engine) = (vec![file.to_owned()], engine.clone());
    let options = Options {
        files,
        engine,
        seed: 1,
        format: Format::Json,
    };
    let mut out = Vec::new();
    let result = replay::run(&options, &mut out);
    if let Err(ReplayError::Captures(errors)) = &result {
        println!("{}", errors[0]);
    }
    let text = String::from_utf8(out).expect("JSON lines are UTF-8");
    let last = text.lines().last().expect("the summary is always written");
    let summary: serde_json::Value = serde_json::from_str(last).expect("each line is an object");
    let is_clean = summary["dropped"] == 0 && summary["locked"] == serde_json::json!([]);
    let drops = || {
        text.lines()
            .filter(|line| line.contains(r#""action":"drop""#))
    };
    let finding = (!is_clean).then(|| {
        let first = drops().next().unwrap_or_default();
        format!(
            "{}: {} dropped, first {first}",
            file.display(),
            summary["dropped"]
        )
    });
    (finding, result.is_ok())
}

fn captures(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).expect("the corpus has this folder");
    let mut files: Vec<_> = entries
        .map(|entry| entry.expect("it can be listed").path())
        .collect();
    files.retain(|file| {
        file.extension()
            .is_some_and(|end| end == "pcap" || end == "pcapng" || end == "cap")
    });
    files.sort();
    files
}

fn corpus() -> Option<PathBuf> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/corpus");
    let folder = std::env::var_os("FTWALL_CORPUS").map_or(beside, PathBuf::from);
    folder.is_dir().then_some(folder)
}
