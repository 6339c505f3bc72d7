//! Captures that nobody here wrote: in none of them a FastTrack client speaks, so that nothing may
//! be dropped and nobody locked. Those of other file sharing are listed with what is recognised.
//!
//! The captures hold third parties' traffic and are no part of the project. They are looked for in
//! `FTWALL_CORPUS`, else in `../shared/corpus` beside the workspace; a run without them says so.
//! `manifest.csv` beside them says which kind each is: `file,sha256,kind,protocols,...`.

#![cfg(feature = "gateway")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use ftwall::EngineConfig;
use ftwall::gateway::replay::{self, Format, Options, ReplayError};
use serde_json::Value;

/// Most captures of these collections, so that an emptied folder proves nothing.
const LEAST_BENIGN: usize = 1_000;
const LEAST_P2P: usize = 10;

/// Most flows in them, for the same reason.
const LEAST_FLOWS: u64 = 5_000;

#[test]
fn in_captures_without_file_sharing_nothing_is_dropped_and_nobody_locked() {
    expect_silence("benign", LEAST_BENIGN, &EngineConfig::default());
}

#[test]
fn nothing_is_dropped_either_when_every_initiator_counts_as_inside() {
    let total = expect_silence("benign", LEAST_BENIGN, &judging_all());
    assert!(
        total
            .as_ref()
            .is_none_or(|total| total.flows() >= LEAST_FLOWS),
        "only {total:?}"
    );
}

/// BitTorrent, eD2k and Kad are file sharing, but not FastTrack: what a recogniser said of them
/// would be false.
#[test]
fn other_file_sharing_protocols_are_not_taken_for_fasttrack() {
    expect_silence("p2p", LEAST_P2P, &EngineConfig::default());
    expect_silence("p2p", LEAST_P2P, &judging_all());
}

fn judging_all() -> EngineConfig {
    EngineConfig {
        judge_all: true,
        ..EngineConfig::default()
    }
}

/// Replays every capture of one kind; prints a table of what there is to say, and fails if there was
/// a drop or a lock.
fn expect_silence(kind: &str, least: usize, engine: &EngineConfig) -> Option<Totals> {
    let corpus = Corpus::find()?;
    let entries = corpus.entries(kind);
    assert!(
        entries.len() >= least,
        "only {} captures of {kind}",
        entries.len()
    );
    let mut totals = Totals::default();
    let mut findings = Vec::new();
    for entry in &entries {
        let row = Row::of(entry, engine);
        if kind == "p2p" || !row.evidence.is_empty() {
            println!("{row}");
        }
        totals.add(&row);
        findings.extend(row.finding());
    }
    println!(
        "{kind}, judge_all {}: {} captures ({} not to their end), {} packets, {} TCP and {} UDP flows, {} dropped, {} hosts locked",
        engine.judge_all,
        entries.len(),
        totals.unreadable,
        totals.packets,
        totals.tcp_flows,
        totals.udp_flows,
        totals.dropped,
        totals.locked
    );
    assert_eq!(findings, Vec::<String>::new());
    Some(totals)
}

/// What was found in one capture.
#[derive(Debug)]
struct Row {
    file: String,
    protocols: String,
    packets: u64,
    tcp_flows: u64,
    udp_flows: u64,
    dropped: u64,
    locked: u64,
    /// By name; weak evidence is counted although nothing follows from it.
    evidence: BTreeMap<String, u64>,
    is_readable: bool,
    first_drop: String,
}

impl Row {
    fn of(entry: &Entry, engine: &EngineConfig) -> Self {
        let (text, is_readable) = judge(&entry.file, engine);
        let last = text.lines().last().expect("the summary is always written");
        let summary: Value = serde_json::from_str(last).expect("each line is an object");
        let count = |name: &str| summary[name].as_u64().expect("a number");
        let evidence = summary["evidence"].as_object().expect("an object");
        let mut drops = text
            .lines()
            .filter(|line| line.contains(r#""action":"drop""#));
        Self {
            file: entry
                .file
                .file_name()
                .map(|name| name.to_string_lossy().into_owned())
                .unwrap_or_default(),
            protocols: entry.protocols.clone(),
            packets: count("packets"),
            tcp_flows: count("tcp_flows"),
            udp_flows: count("udp_flows"),
            dropped: count("dropped"),
            locked: summary["locked"].as_array().expect("an array").len() as u64,
            evidence: evidence
                .iter()
                .map(|(name, count)| (name.clone(), count.as_u64().unwrap_or(0)))
                .collect(),
            is_readable,
            first_drop: drops.next().unwrap_or_default().to_owned(),
        }
    }

    fn finding(&self) -> Option<String> {
        let is_silent = self.dropped == 0 && self.locked == 0;
        (!is_silent).then(|| format!("{self}, first drop {}", self.first_drop))
    }
}

impl std::fmt::Display for Row {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{:<44} {:<32} {:>4} TCP {:>4} UDP {:>4} dropped {:>3} locked  {:?}",
            self.file,
            self.protocols,
            self.tcp_flows,
            self.udp_flows,
            self.dropped,
            self.locked,
            self.evidence
        )
    }
}

/// What was found in all captures of one kind.
#[derive(Debug, Default)]
struct Totals {
    packets: u64,
    tcp_flows: u64,
    udp_flows: u64,
    dropped: u64,
    locked: u64,
    unreadable: usize,
}

impl Totals {
    fn add(&mut self, row: &Row) {
        self.packets += row.packets;
        self.tcp_flows += row.tcp_flows;
        self.udp_flows += row.udp_flows;
        self.dropped += row.dropped;
        self.locked += row.locked;
        self.unreadable += usize::from(!row.is_readable);
    }

    fn flows(&self) -> u64 {
        self.tcp_flows + self.udp_flows
    }
}

/// What a replay says, and whether the capture could be read to its end. Some cannot on purpose.
fn judge(file: &Path, engine: &EngineConfig) -> (String, bool) {
    let options = Options {
        files: vec![file.to_owned()],
        engine: engine.clone(),
        seed: 1,
        format: Format::Json,
    };
    let mut out = Vec::new();
    let result = replay::run(&options, &mut out);
    if let Err(ReplayError::Captures(errors)) = &result {
        println!("{}", errors[0]);
    }
    let text = String::from_utf8(out).expect("the output is UTF-8");
    (text, result.is_ok())
}

/// The folder of captures.
struct Corpus {
    folder: PathBuf,
    manifest: String,
}

/// One capture and what its recorder says is in it.
struct Entry {
    file: PathBuf,
    protocols: String,
}

impl Corpus {
    /// The captures, or a sentence on why there are none.
    fn find() -> Option<Self> {
        let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/corpus");
        let folder = std::env::var_os("FTWALL_CORPUS").map_or(beside, PathBuf::from);
        let Ok(manifest) = fs::read_to_string(folder.join("manifest.csv")) else {
            println!("SKIPPED: no captures; set FTWALL_CORPUS to a folder with a manifest.csv");
            return None;
        };
        Some(Self { folder, manifest })
    }

    /// The captures of one kind, in the manifest's order. Every one named must be there.
    fn entries(&self, kind: &str) -> Vec<Entry> {
        let rows = self.manifest.lines().skip(1).map(columns);
        rows.filter(|row| row[2] == kind)
            .map(|row| Entry {
                file: self.folder.join(&row[0]),
                protocols: row[3].clone(),
            })
            .inspect(|entry| assert!(entry.file.is_file(), "{} is missing", entry.file.display()))
            .collect()
    }
}

/// The columns of one line (RFC 4180); commas in quotes do not part them.
fn columns(line: &str) -> Vec<String> {
    let mut columns = vec![String::new()];
    let mut is_quoted = false;
    for letter in line.chars() {
        match letter {
            '"' => is_quoted = !is_quoted,
            ',' if !is_quoted => columns.push(String::new()),
            _ => columns.last_mut().expect("there is one").push(letter),
        }
    }
    columns
}
