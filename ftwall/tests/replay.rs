//! Captures written by hand, replayed: every file format, every failure, and the summary.

#![cfg(feature = "gateway")]

#[expect(dead_code, reason = "captures need its packets only")]
mod support;

use std::path::{Path, PathBuf};
use std::process::Command;

use ftwall::EngineConfig;
use ftwall::control::config_file::Layer;
use ftwall::gateway::replay::{self, Format, Options, ReplayError};
use serde_json::{Value, json};
use support::{CONSTANT_OPENER, PING, end, tcp, udp};

const CLIENT: &str = "10.77.1.1:1214";
const PEER: &str = "198.18.0.5:2001";

#[test]
fn the_summary_is_the_last_line_and_counts_exactly() {
    let packets = [
        udp(end(CLIENT), end(PEER), PING),
        udp(
            end("10.77.1.2:5000"),
            end("203.0.113.53:53"),
            b"\x27\x11\x01\0\0\x01",
        ),
        tcp(
            end("10.77.1.1:3000"),
            end("203.0.113.7:80"),
            7,
            None,
            2,
            &[],
        ),
        tcp(
            end("203.0.113.7:80"),
            end("10.77.1.1:3000"),
            99,
            Some(8),
            2,
            &[],
        ),
        tcp(
            end("10.77.1.1:3000"),
            end("203.0.113.7:80"),
            8,
            Some(100),
            0,
            &CONSTANT_OPENER,
        ),
        vec![0x45, 0, 0],
    ];
    let (lines, result) = replay(
        "counts.pcap",
        &pcap(Order::Little, Unit::Micros, 101, &packets),
    );
    assert!(result.is_ok());
    let expected = json!({
        "packets": 6, "tcp_flows": 1, "udp_flows": 2,
        "passed": 4, "cleared": 0, "dropped": 2, "malformed": 1,
        "locked": ["10.77.1.1"],
        "learned": ["198.18.0.5:2001", "203.0.113.7:80"],
        "evidence": { "constant_opener": 1, "udp_ping": 1 },
    });
    assert_eq!(lines.last(), Some(&expected));
}

#[test]
fn every_drop_and_every_event_is_a_line_with_the_time_of_its_packet() {
    let packets = [udp(end(CLIENT), end(PEER), PING)];
    let (lines, _) = replay(
        "lines.pcap",
        &pcap(Order::Little, Unit::Micros, 101, &packets),
    );
    let types: Vec<_> = lines
        .iter()
        .filter_map(|line| line["event_type"].as_str())
        .collect();
    assert_eq!(
        types,
        ["verdict", "client.locked", "peer.learned", "packet.drop"]
    );
    for line in &lines[..4] {
        assert_eq!(line["timestamp"], "2003-07-04T12:00:00.000250Z");
        assert_eq!(line["src_ip"], "10.77.1.1");
        assert_eq!(line["dest_port"], 2001);
        assert_eq!(line["proto"], "UDP");
    }
    assert_eq!(
        lines[0]["ftwall"]["verdict"],
        json!({ "action": "drop", "reason": "ping" })
    );
}

#[test]
fn captures_of_either_byte_order_and_resolution_say_the_same() {
    let packets = [udp(end(CLIENT), end(PEER), PING)];
    for (order, name) in [(Order::Little, "little"), (Order::Big, "big")] {
        for unit in [Unit::Micros, Unit::Nanos] {
            let name = format!("{name}-{unit:?}.pcap");
            let (lines, result) = replay(&name, &pcap(order, unit, 101, &packets));
            assert!(result.is_ok(), "{name}");
            assert_eq!(
                lines[0]["timestamp"], "2003-07-04T12:00:00.000250Z",
                "{name}"
            );
            assert_eq!(
                lines.last().map(|line| line["dropped"].clone()),
                Some(json!(1)),
                "{name}"
            );
        }
        let name = format!("{name}.pcapng");
        let (lines, result) = replay(&name, &pcapng(order, 101, &packets));
        assert!(result.is_ok(), "{name}");
        assert_eq!(
            lines[0]["timestamp"], "2003-07-04T12:00:00.000250Z",
            "{name}"
        );
        assert_eq!(
            lines.last().map(|line| line["dropped"].clone()),
            Some(json!(1)),
            "{name}"
        );
    }
}

#[test]
fn a_capture_cut_short_is_judged_as_far_as_it_goes_and_named() {
    let packets = [
        udp(end(CLIENT), end(PEER), PING),
        udp(end(CLIENT), end(PEER), PING),
    ];
    let whole = pcap(Order::Little, Unit::Micros, 101, &packets);
    let (lines, result) = replay("cut.pcap", &whole[..whole.len() - 5]);
    assert_eq!(
        lines.last().map(|line| line["dropped"].clone()),
        Some(json!(1))
    );
    let message = result.unwrap_err().to_string();
    assert!(
        message.contains("cut.pcap: the file ends in the middle of a block"),
        "{message}"
    );
    // The global header, then the first record of 16 + 40 octets.
    assert!(message.contains("block 3 at octet 80"), "{message}");
}

#[test]
fn an_unknown_link_type_is_named_with_its_file() {
    let packets = [udp(end(CLIENT), end(PEER), PING)];
    let (_, result) = replay(
        "usb.pcap",
        &pcap(Order::Little, Unit::Micros, 220, &packets),
    );
    let message = result.unwrap_err().to_string();
    assert!(
        message.contains("usb.pcap: link type 220 is not supported"),
        "{message}"
    );
}

#[test]
fn files_that_are_no_captures_are_named() {
    let cases: [(&str, &[u8], &str); 3] = [
        ("empty.pcap", b"", "the file is empty"),
        (
            "text.pcap",
            b"this is a letter, not a capture, and a long one",
            "neither pcap nor pcapng",
        ),
        ("short.pcap", b"\xd4\xc3\xb2\xa1\x02\x00", "cut short"),
    ];
    for (name, bytes, expected) in cases {
        let (lines, result) = replay(name, bytes);
        let message = result.unwrap_err().to_string();
        assert!(
            message.contains(name) && message.contains(expected),
            "{message}"
        );
        assert_eq!(lines[0]["packets"], 0, "there is always a summary");
    }
}

#[test]
fn garbage_behind_a_header_is_an_error_and_never_a_panic() {
    let mut state = 0x9e37_79b9_u32;
    for round in 0..50 {
        let mut bytes = pcap(Order::Little, Unit::Micros, 1, &[]);
        bytes.extend((0..400).map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        }));
        let (_, result) = replay(&format!("garbage-{round}.pcap"), &bytes);
        assert!(result.is_err());
    }
}

#[test]
fn several_captures_make_one_summary_and_do_not_know_each_other() {
    let ping = pcap(
        Order::Little,
        Unit::Micros,
        101,
        &[udp(end(CLIENT), end(PEER), PING)],
    );
    let dial = tcp(
        end("10.77.1.1:3000"),
        end("198.18.0.9:3000"),
        7,
        None,
        2,
        &[],
    );
    let dial = pcap(Order::Little, Unit::Micros, 101, &[dial]);
    let files = vec![store("first.pcap", &ping), store("second.pcap", &dial)];
    let (lines, result) = replay_files(files, Format::Json);
    assert!(result.is_ok());
    let summary = lines.last().expect("the summary");
    assert_eq!(
        (&summary["packets"], &summary["dropped"]),
        (&json!(2), &json!(1))
    );
}

#[test]
fn people_get_a_summary_in_words() {
    let packets = [udp(end(CLIENT), end(PEER), PING)];
    let file = store(
        "words.pcap",
        &pcap(Order::Little, Unit::Micros, 101, &packets),
    );
    let options = options(vec![file], Format::Human);
    let mut out = Vec::new();
    replay::run(&options, &mut out).expect("the capture is whole");
    let expected = "1 packets in 1 file(s), 0 TCP and 1 UDP flows\n\
                    0 passed, 0 cleared their flow, 1 dropped, 0 malformed\n\
                    locked hosts: 10.77.1.1\n\
                    learned peers: 198.18.0.5:2001\n\
                    evidence: udp_ping 1\n";
    assert_eq!(String::from_utf8_lossy(&out), expected);
}

#[test]
fn a_lock_runs_out_at_its_own_time_and_not_with_the_next_packet() {
    let ping = udp(end(CLIENT), end(PEER), PING);
    let other = udp(end("10.77.1.2:5000"), end("203.0.113.53:53"), b"hello");
    let mut bytes = pcap(Order::Little, Unit::Micros, 101, &[ping]);
    record(&mut bytes, Order::Little, SECONDS + 1000, 0, &other);
    let (lines, _) = replay("release.pcap", &bytes);
    let released = lines
        .iter()
        .find(|line| line["event_type"] == "client.released");
    let at = released.map(|line| line["timestamp"].clone());
    assert_eq!(at, Some(json!("2003-07-04T12:02:00.000250Z")));
}

#[test]
fn a_diff_says_of_each_flow_and_host_what_another_configuration_would_change() {
    let file = store(
        "diff.pcap",
        &pcap(Order::Little, Unit::Micros, 101, &pings_and_a_stranger()),
    );
    let (lines, summary) = diff(&file, "block_udp = false\nlock_time = 0\n", Format::Json);
    let lines: Vec<Value> = lines
        .lines()
        .map(|line| line.parse().expect("JSON"))
        .collect();
    let flow = json!({
        "timestamp": "2003-07-04T12:00:00.000250Z", "pcap_filename": file,
        "event_type": "difference.flow", "proto": "UDP",
        "src_ip": "10.77.1.1", "src_port": 1214, "dest_ip": "198.18.0.5", "dest_port": 2001,
        "packets": 2,
        "ftwall": { "action": "drop", "reason": "ping" },
        "other": { "action": "pass", "reason": "udp_not_blocked" },
    });
    let host = json!({
        "event_type": "difference.host", "client": "10.77.1.1",
        "ftwall": { "locked": true, "peers": ["198.18.0.5:2001"] },
        "other": { "locked": false, "peers": ["198.18.0.5:2001"] },
    });
    let total = json!({ "verdicts": 3, "different": 2, "flows": 1, "hosts": 1 });
    assert_eq!(lines, [flow, host, total]);
    assert_eq!((summary.different, summary.verdicts), (2, 3));
}

#[test]
fn people_get_the_differences_as_a_table() {
    let file = store(
        "diff-words.pcap",
        &pcap(Order::Little, Unit::Micros, 101, &pings_and_a_stranger()),
    );
    let (text, _) = diff(&file, "block_udp = false\nlock_time = 0\n", Format::Human);
    let lines: Vec<Vec<_>> = text
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    let expected = [
        "UDP 10.77.1.1:1214 -> 198.18.0.5:2001 2 x drop ping -> pass udp_not_blocked",
        "host 10.77.1.1 locked, 1 peers -> not locked, 1 peers",
        "2 of 3 verdicts differ",
    ];
    assert_eq!(
        lines,
        expected.map(|line| line.split(' ').collect::<Vec<_>>())
    );
}

#[test]
fn a_configuration_that_says_the_same_changes_nothing() {
    let file = store(
        "diff-same.pcap",
        &pcap(Order::Little, Unit::Micros, 101, &pings_and_a_stranger()),
    );
    let (text, _) = diff(&file, "lock_time = \"2m\"\n", Format::Human);
    assert_eq!(text, "0 of 3 verdicts differ\n");
}

#[test]
fn a_diff_of_a_capture_cut_short_says_what_it_can_and_fails() {
    let whole = pcap(Order::Little, Unit::Micros, 101, &pings_and_a_stranger());
    let file = store("diff-cut.pcap", &whole[..whole.len() - 3]);
    let other = EngineConfig {
        block_udp: false,
        ..EngineConfig::default()
    };
    let mut out = Vec::new();
    let result = replay::diff::run(&options(vec![file], Format::Human), &other, &mut out);
    let message = result.unwrap_err().to_string();
    assert!(
        message.contains("diff-cut.pcap: the file ends"),
        "{message}"
    );
    assert!(String::from_utf8_lossy(&out).ends_with("1 of 2 verdicts differ\n"));
}

#[test]
fn the_program_takes_a_policy_file_and_names_what_is_wrong_in_it() {
    let capture = store(
        "diff-program.pcap",
        &pcap(Order::Little, Unit::Micros, 101, &pings_and_a_stranger()),
    );
    let run = |policy: &Path| {
        Command::new(env!("CARGO_BIN_EXE_ftwall"))
            .args(["replay", "--lock-time", "0", "--diff"])
            .args([policy, &capture])
            .output()
            .expect("the program starts")
    };
    let good = run(&store("good.toml", b"block_udp = false\n"));
    assert_eq!(good.status.code(), Some(0));
    let text = String::from_utf8_lossy(&good.stdout).into_owned();
    // The lock time is the command line's on both sides: no host differs.
    assert!(
        text.ends_with("2 of 3 verdicts differ\n") && !text.contains("host"),
        "{text}"
    );
    let bad = run(&store("bad.toml", b"block_udp = false\nlocktime = 0\n"));
    assert_eq!(bad.status.code(), Some(78));
    let message = String::from_utf8_lossy(&bad.stderr).into_owned();
    assert!(
        message.contains("bad.toml:2:1:") && message.contains("lock_time"),
        "{message}"
    );
}

#[test]
fn the_program_judges_as_a_gateway_with_this_configuration_would() {
    let capture = store(
        "configured.pcap",
        &pcap(Order::Little, Unit::Micros, 101, &pings_and_a_stranger()),
    );
    let lenient = store(
        "lenient.toml",
        b"events = \"/nowhere/events.json\"\nqueues = 2\nmode = \"monitor\"\n",
    );
    let scheduled = store(
        "scheduled.toml",
        b"[[policy]]\nname = \"lab\"\nmatch = { subnet = \"10.77.1.0/24\" }\nmode = \"monitor\"\n\
          [policy.schedule]\nzone = \"UTC\"\n\
          windows = [{ days = [\"mon\"], from = \"08:00\", to = \"12:00\" }]\n",
    );
    let run = |options: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_ftwall"))
            .args(["replay", "-o", "json"])
            .arg(&capture)
            .args(options)
            .output()
            .expect("the program starts");
        let lines = String::from_utf8_lossy(&output.stdout).into_owned();
        let summary = lines.lines().last().map(serde_json::from_str::<Value>);
        (output, summary.map(|summary| summary.expect("an object")))
    };
    let dropped = |options: &[&str]| run(options).1.expect("it is replayed")["dropped"].clone();
    let [lenient, scheduled] =
        [&lenient, &scheduled].map(|file| file.to_str().expect("the build's folder has a name"));
    assert_eq!(dropped(&[]), 2);
    assert_eq!(dropped(&["--config", lenient]), 0);
    let typed = ["--config", lenient, "--mode", "enforce"];
    assert_eq!(dropped(&typed), 2, "what is typed goes before");
    // The capture is of a Friday.
    assert_eq!(dropped(&["--config", scheduled]), 0, "every schedule holds");
    let (missing, _) = run(&["--config", "nowhere.toml"]);
    assert_eq!(missing.status.code(), Some(78));
}

/// A host pings a peer twice, and another one asks for a name.
fn pings_and_a_stranger() -> [Vec<u8>; 3] {
    let ping = udp(end(CLIENT), end(PEER), PING);
    let question = udp(end("10.77.1.2:5000"), end("203.0.113.53:53"), b"hello");
    [ping.clone(), question, ping]
}

/// What a policy file would change, as text and in numbers.
fn diff(file: &Path, policy: &str, format: Format) -> (String, replay::diff::Summary) {
    let options = options(vec![file.to_owned()], format);
    let policy = Layer::parse(Path::new("other.toml"), policy).expect("a good policy");
    let other = policy.apply(options.engine.clone());
    let mut out = Vec::new();
    let summary = replay::diff::run(&options, &other, &mut out).expect("the capture is whole");
    (String::from_utf8(out).expect("text"), summary)
}

#[derive(Debug, Clone, Copy)]
enum Order {
    Little,
    Big,
}

impl Order {
    const fn word(self, value: u32) -> [u8; 4] {
        match self {
            Self::Little => value.to_le_bytes(),
            Self::Big => value.to_be_bytes(),
        }
    }

    const fn half(self, value: u16) -> [u8; 2] {
        match self {
            Self::Little => value.to_le_bytes(),
            Self::Big => value.to_be_bytes(),
        }
    }
}

#[derive(Debug, Clone, Copy)]
enum Unit {
    Micros,
    Nanos,
}

/// 2003-07-04T12:00:00Z.
const SECONDS: u32 = 1_057_320_000;

/// A legacy capture of packets that came 250 microseconds after noon.
fn pcap(order: Order, unit: Unit, link_type: u32, packets: &[Vec<u8>]) -> Vec<u8> {
    let (magic, fraction) = match unit {
        Unit::Micros => (0xa1b2_c3d4, 250),
        Unit::Nanos => (0xa1b2_3c4d, 250_000),
    };
    let mut bytes = Vec::new();
    bytes.extend(order.word(magic));
    bytes.extend([order.half(2), order.half(4)].concat());
    for value in [0, 0, 65_535, link_type] {
        bytes.extend(order.word(value));
    }
    for packet in packets {
        record(&mut bytes, order, SECONDS, fraction, packet);
    }
    bytes
}

fn record(bytes: &mut Vec<u8>, order: Order, seconds: u32, fraction: u32, packet: &[u8]) {
    let len = packet.len() as u32;
    for value in [seconds, fraction, len, len] {
        bytes.extend(order.word(value));
    }
    bytes.extend(packet);
}

/// The same as pcapng: section header, interface, one enhanced packet block each.
fn pcapng(order: Order, link_type: u16, packets: &[Vec<u8>]) -> Vec<u8> {
    let version = [order.half(1), order.half(0)].concat();
    let section = [&order.word(0x1a2b_3c4d)[..], &version, &[0xff; 8]].concat();
    let interface = [&order.half(link_type)[..], &[0, 0], &order.word(0)].concat();
    let mut bytes = [
        block(order, 0x0a0d_0d0a, &section),
        block(order, 1, &interface),
    ]
    .concat();
    let ticks = u64::from(SECONDS) * 1_000_000 + 250;
    for packet in packets {
        let len = packet.len() as u32;
        let mut body = Vec::new();
        for value in [0, (ticks >> 32) as u32, ticks as u32, len, len] {
            body.extend(order.word(value));
        }
        body.extend(packet);
        body.resize(body.len().next_multiple_of(4), 0);
        bytes.extend(block(order, 6, &body));
    }
    bytes
}

fn block(order: Order, kind: u32, body: &[u8]) -> Vec<u8> {
    let len = order.word(12 + body.len() as u32);
    [&order.word(kind)[..], &len, body, &len].concat()
}

fn replay(name: &str, bytes: &[u8]) -> (Vec<Value>, Result<(), ReplayError>) {
    replay_files(vec![store(name, bytes)], Format::Json)
}

fn replay_files(files: Vec<PathBuf>, format: Format) -> (Vec<Value>, Result<(), ReplayError>) {
    let mut out = Vec::new();
    let result = replay::run(&options(files, format), &mut out).map(drop);
    let text = String::from_utf8(out).expect("JSON lines are UTF-8");
    let parse = |line| serde_json::from_str(line).expect("each line is an object");
    (text.lines().map(parse).collect(), result)
}

fn options(files: Vec<PathBuf>, format: Format) -> Options {
    Options {
        files,
        engine: EngineConfig::default(),
        seed: 1,
        format,
    }
}

fn store(name: &str, bytes: &[u8]) -> PathBuf {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    let path = folder.join(name);
    std::fs::write(&path, bytes).expect("the build's own folder can be written");
    path
}
