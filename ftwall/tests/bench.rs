//! The benches, run for a moment: that they measure what they say, never how fast this machine is.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

fn ftwall(arguments: &[&str]) -> Output {
    let output = Command::new(env!("CARGO_BIN_EXE_ftwall"))
        .args(arguments)
        .output()
        .expect("cargo has built it");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {said}");
    output
}

/// Says why it is skipped, or fails where skipping is forbidden.
fn namespaces_work(test: &str) -> bool {
    let requirements = lab::requirements::probe();
    let missing = if requirements.has(lab::Feature::Capsule) && requirements.has_queue() {
        return true;
    } else {
        requirements.to_string()
    };
    lab::requirements::skip_or_fail(test, &missing);
    false
}

fn scratch(name: &str) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(name)
}

#[test]
fn a_quick_bench_measures_every_load_and_every_ratio() {
    if !namespaces_work("a_quick_bench_measures_every_load_and_every_ratio") {
        return;
    }
    let (json, plot) = (scratch("bench.json"), scratch("bench.svg"));
    let output = ftwall(&[
        "bench",
        "--quick",
        "--generators",
        "own",
        "--json",
        &json.display().to_string(),
        "--plot",
        &plot.display().to_string(),
    ]);
    let table = String::from_utf8_lossy(&output.stdout);
    let is_path = |line: &&str| line.starts_with("json:") || line.starts_with("plot:");
    let mut lines = table.lines().filter(|line| !is_path(line));
    assert!(lines.all(|line| line.chars().count() <= 80), "{table}");

    let report: Value = serde_json::from_str(&fs::read_to_string(json).expect("it was written"))
        .expect("it is JSON");
    for name in RATIOS {
        let ratio = report["ratios"][name].as_f64();
        assert!(ratio.is_some_and(|ratio| ratio > 0.0), "{name}: {ratio:?}");
    }
    let generators = report["generators"].as_object().expect("an object");
    assert!(
        generators.values().all(|one| one == "own"),
        "{generators:?}"
    );
    // Six loads, five configurations.
    assert_eq!(report["raw"].as_array().map(Vec::len), Some(30));
    assert_queueing(&report["summary"]);
    assert!(report["sets"]["p99"].as_f64() > Some(0.0));
    for reader in ["netlink", "nfq"] {
        let cost = &report["readers"][reader]["nanoseconds_per_packet"]["median"];
        assert!(cost.as_f64() > Some(0.0), "{reader}: {cost}");
    }
    let plot = fs::read_to_string(plot).expect("it was written");
    assert!(plot.contains("one TCP stream") && plot.ends_with("</svg>\n"));
}

const RATIOS: &[&str] = &[
    "tcp_stream",
    "http_connections",
    "tls_connections",
    "udp_flood",
    "http_p50",
    "http_p99",
    "web_p99_reset_storm",
    "web_p99_ping_flood",
];

/// What is queued does not depend on how fast the machine is.
fn assert_queueing(summary: &Value) {
    let median = |load: &str, name: &str| summary[load]["ftwall"][name]["median"].as_f64();
    let http = median("http_connections", "queued_per_connection");
    assert!(
        http.is_some_and(|packets| packets > 0.0 && packets <= 4.0),
        "{http:?}"
    );
    let tls = median("tls_connections", "queued_per_connection");
    assert_eq!(tls, Some(0.0));
    assert_eq!(median("udp_flood", "queued_packets"), Some(0.0));
    let failed = median("http_connections", "failed");
    assert_eq!(failed, Some(0.0));
}

#[test]
fn floods_are_answered_and_bounded_in_memory() {
    if !namespaces_work("floods_are_answered_and_bounded_in_memory") {
        return;
    }
    let json = scratch("floods.json");
    let file = json.display().to_string();
    let output = ftwall(&["bench", "--floods", "--quick", "--json", &file]);
    let table = String::from_utf8_lossy(&output.stdout);
    let mut lines = table.lines().filter(|line| !line.starts_with("json:"));
    assert!(lines.all(|line| line.chars().count() <= 80), "{table}");

    let report: Value = serde_json::from_str(&fs::read_to_string(json).expect("it was written"))
        .expect("it is JSON");
    let floods = report["floods"].as_array().expect("a list");
    // Seven floods, two configurations.
    assert_eq!(floods.len(), 14, "{table}");
    for flooding in floods {
        let median = |name: &str| flooding["values"][name]["median"].as_f64();
        assert!(median("sent_per_second") > Some(0.0), "{flooding}");
        let memory = median("daemon_most_memory_mebibytes");
        if flooding["configuration"] == "ftwall" {
            assert!(
                memory.is_some_and(|most| most < MOST_MEBIBYTES),
                "{flooding}"
            );
        } else {
            assert_eq!(memory, None, "{flooding}");
        }
    }
    let queued = |flood: &str| {
        let is_it = |one: &&Value| one["flood"] == flood && one["configuration"] == "ftwall";
        let values = &floods.iter().find(is_it).expect("it was listed")["values"];
        values["queued_per_second"]["median"].as_f64()
    };
    // Where the kernel counts: what is new is for the daemon to see, what never comes whole is for nobody.
    if let Some(seen) = queued("new_flows") {
        assert!(seen > 0.0, "{table}");
        assert!(
            queued("fragments").is_some_and(|seen| seen < 1_500.0),
            "{table}"
        );
    }
}

/// What the unit allows a daemon, whatever it is flooded with.
const MOST_MEBIBYTES: f64 = 1024.0;

#[test]
fn the_ends_of_a_bench_refuse_to_run_outside_a_capsule() {
    let output = Command::new(env!("CARGO_BIN_EXE_ftwall"))
        .args(["bench-end", "datagram-sink", "27015"])
        .output()
        .expect("cargo has built it");
    assert!(!output.status.success());
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("inside a capsule only"), "{said}");
}

/// A capture (pcap, raw IPv4) of one datagram, sent `count` times a millisecond apart.
fn capture(name: &str, count: u32) -> PathBuf {
    let mut file: Vec<u8> = Vec::new();
    for word in [0xa1b2_c3d4_u32, 0x0004_0002, 0, 0, 65_535, 101] {
        file.extend(word.to_le_bytes());
    }
    let mut packet = vec![0x45, 0, 0, 32, 0, 0, 0x40, 0, 64, 17, 0, 0];
    packet.extend([
        10, 77, 1, 1, 203, 0, 113, 1, 0x9c, 0x40, 0, 53, 0, 12, 0, 0, 1, 2, 3, 4,
    ]);
    for number in 0..count {
        for word in [1_000 + number / 1_000, number % 1_000 * 1_000, 32, 32] {
            file.extend(word.to_le_bytes());
        }
        file.extend(&packet);
    }
    let path = scratch(name);
    fs::write(&path, file).expect("a directory of cargo's own");
    path
}

#[test]
fn captures_are_replayed_from_memory_as_one() {
    let files = [capture("few.pcap", 3), capture("many.pcap", 500)];
    let files = files.map(|file| file.display().to_string());
    let output = ftwall(&["replay", "--bench=10ms", "-o", "json", &files[0], &files[1]]);
    let speed: Value = serde_json::from_slice(&output.stdout).expect("one object");
    assert_eq!(
        (&speed["captures"], &speed["packets"]),
        (&2.into(), &503.into())
    );
    assert!(speed["rounds"].as_u64() > Some(1), "{speed}");
    assert!(speed["packets_per_second"]["median"].as_f64() > Some(0.0));
    let output = ftwall(&["replay", "--bench=1ms", &files[0]]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        text.contains("million packets a second on one core"),
        "{text}"
    );
}
