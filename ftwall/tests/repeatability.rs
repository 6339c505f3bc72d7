//! Replays are exact: the same captures, clock, seed and configuration say the same to the last octet,
//! in one process after the other. Each process draws its own hash keys, if any were drawn.

#![cfg(feature = "gateway")]

#[expect(dead_code, reason = "captures need its packets only")]
mod support;

use std::net::SocketAddrV4;
use std::path::{Path, PathBuf};
use std::process::Command;

use ftwall::EngineConfig;
use ftwall::gateway::replay::{self, Format, Options};
use support::{CONSTANT_OPENER, HASH_REQUEST, PING, PONG, RANDOM_OPENER, WEB_ANSWER, WEB_REQUEST};

const PROCESSES: usize = 3;

#[test]
fn one_process_after_the_other_says_the_same_of_a_crowd() {
    let file = store("crowd.pcap", &pcap(&crowd(400)));
    let outputs: Vec<_> = (0..PROCESSES)
        .map(|_| replay_in_a_process(&[&file], &[]))
        .collect();
    let lines = outputs[0].lines().count();
    assert!(lines > 1_000, "a crowd has much to tell, not {lines} lines");
    assert!(outputs.windows(2).all(|pair| pair[0] == pair[1]));
}

#[test]
fn a_call_of_the_library_says_what_the_program_says() {
    let file = store("library.pcap", &pcap(&crowd(50)));
    let options = Options {
        files: vec![file.clone()],
        engine: EngineConfig::default(),
        seed: 0,
        format: Format::Json,
    };
    let mut out = Vec::new();
    replay::run(&options, &mut out).expect("the capture is whole");
    assert_eq!(
        String::from_utf8_lossy(&out),
        replay_in_a_process(&[&file], &[])
    );
}

#[test]
fn a_seed_draws_answers_and_changes_no_verdict() {
    let file = store("seeds.pcap", &pcap(&crowd(100)));
    let one = replay_in_a_process(&[&file], &["--seed", "1"]);
    assert_eq!(one, replay_in_a_process(&[&file], &["--seed", "2"]));
}

#[test]
fn full_tables_make_room_in_the_same_order_every_time() {
    let file = store("full.pcap", &pcap(&crowd(300)));
    let mut engine = EngineConfig::default();
    engine.capacity.flows = 64;
    engine.capacity.hosts = 16;
    engine.capacity.peers = 32;
    let options = Options {
        files: vec![file],
        engine,
        seed: 1,
        format: Format::Json,
    };
    let [first, second] = [(); 2].map(|()| {
        let mut out = Vec::new();
        replay::run(&options, &mut out).expect("the capture is whole");
        out
    });
    assert!(first == second);
}

/// The captures are no part of the project; see `corpus.rs`.
#[test]
fn one_process_after_the_other_says_the_same_of_captures_nobody_here_wrote() {
    let files = foreign_captures();
    if files.is_empty() {
        println!("SKIPPED: no captures; set FTWALL_CORPUS to a folder with benign/*.pcap");
        return;
    }
    let files: Vec<_> = files.iter().map(PathBuf::as_path).collect();
    let [first, second] =
        [(); 2].map(|()| replay_in_a_process(&files, &["--judge-all", "--strictness", "strict"]));
    println!("{} captures, {} lines", files.len(), first.lines().count());
    assert!(first == second);
}

/// What the program writes; whether it could read every file to its end is no matter here.
fn replay_in_a_process(files: &[&Path], options: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_ftwall"))
        .args(["replay", "--output", "json"])
        .args(options)
        .args(files)
        .output()
        .expect("the program starts");
    assert!(matches!(output.status.code(), Some(0 | 1)), "{output:?}");
    String::from_utf8(output.stdout).expect("JSON lines are UTF-8")
}

/// Hosts that ping, dial, browse and ask for files, all at once, so that every table has entries whose
/// order could show.
fn crowd(hosts: u16) -> Vec<Vec<u8>> {
    (0..hosts).flat_map(member).collect()
}

fn member(number: u16) -> Vec<Vec<u8>> {
    let [high, low] = number.to_be_bytes();
    let host = SocketAddrV4::new([10, 77, high, low].into(), 1214);
    let peer = SocketAddrV4::new([198, 18, low, high].into(), 2000 + number % 7);
    let web = SocketAddrV4::new([203, 0, 113, low].into(), 80);
    let mut packets = match number % 4 {
        0 => vec![
            support::udp(host, peer, PING),
            support::udp(peer, host, PONG),
        ],
        1 => conversation(
            host,
            peer,
            &CONSTANT_OPENER,
            b"\x01\x02\x03\x04\x05\x06\x07\x08",
        ),
        2 => conversation(
            host,
            peer,
            &RANDOM_OPENER,
            b"\x01\x02\x03\x04\x05\x06\x07\x08",
        ),
        _ => conversation(
            host,
            peer,
            HASH_REQUEST,
            b"HTTP/1.1 503 Service Unavailable\r\n\r\n",
        ),
    };
    packets.extend(conversation(host, web, WEB_REQUEST, WEB_ANSWER));
    packets
}

fn conversation(
    host: SocketAddrV4,
    peer: SocketAddrV4,
    says: &[u8],
    answers: &[u8],
) -> Vec<Vec<u8>> {
    const SYN: u8 = 2;
    let answered = 101 + says.len() as u32;
    vec![
        support::tcp(host, peer, 100, None, SYN, &[]),
        support::tcp(peer, host, 500, Some(101), SYN, &[]),
        support::tcp(host, peer, 101, Some(501), 0, says),
        support::tcp(peer, host, 501, Some(answered), 0, answers),
    ]
}

/// A capture of raw IP, one packet every 300 ms: long enough for locks to run out.
fn pcap(packets: &[Vec<u8>]) -> Vec<u8> {
    let mut file = [0xa1b2_c3d4_u32, 0x0004_0002, 0, 0, 65_535, 101]
        .map(u32::to_le_bytes)
        .concat();
    for (number, packet) in (0_u32..).zip(packets) {
        let (seconds, micros) = (1_057_320_000 + number * 3 / 10, number * 3 % 10 * 100_000);
        let len = packet.len() as u32;
        file.extend([seconds, micros, len, len].map(u32::to_le_bytes).concat());
        file.extend(packet);
    }
    file
}

fn store(name: &str, octets: &[u8]) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::write(&path, octets).expect("the build's own folder can be written");
    path
}

fn foreign_captures() -> Vec<PathBuf> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/corpus");
    let corpus = std::env::var_os("FTWALL_CORPUS").map_or(beside, PathBuf::from);
    let mut files: Vec<_> = ["benign", "p2p"]
        .iter()
        .filter_map(|kind| std::fs::read_dir(corpus.join(kind)).ok())
        .flatten()
        .map(|entry| entry.expect("it can be listed").path())
        .collect();
    files.sort();
    files
}
