//! Captures: any octets read as a file, through its link layers, to the engine.
//!
//! Claims: no more octets come out than went in; a packet lies inside its frame; every frame is judged
//! once and the summary adds up; every line written is JSON; and reading it again says the same, to the
//! last octet.

use std::io::Cursor;
use std::path::PathBuf;

use serde_json::Value;

use super::Target;
use super::wire::{self, HASH_REQUEST, PING};
use crate::EngineConfig;
use crate::gateway::capture::Capture;
use crate::gateway::link::{self, Content};
use crate::gateway::replay::{self, Format, Options, ReplayError, Summary};

/// A whole file, pcap or pcapng.
pub(super) const TARGET: Target = Target {
    name: "capture",
    check,
    seeds,
};

fn check(octets: &[u8]) {
    let frames = check_frames(octets);
    let (summary, lines) = replay(octets);
    assert!(
        summary.packets <= frames,
        "{} of {frames} frames",
        summary.packets
    );
    check_summary(&summary);
    for line in lines
        .split(|octet| *octet == b'\n')
        .filter(|line| !line.is_empty())
    {
        assert!(serde_json::from_slice::<Value>(line).is_ok(), "{line:?}");
    }
    assert_eq!(replay(octets), (summary, lines), "a replay can be repeated");
}

/// Reads every frame; how many there are.
fn check_frames(octets: &[u8]) -> u64 {
    let Ok(mut capture) = Capture::read(&name(), Cursor::new(octets.to_vec())) else {
        return 0;
    };
    let (mut frames, mut captured) = (0, 0);
    while let Ok(Some(frame)) = capture.next_frame() {
        frames += 1;
        captured += RECORD_HEADER + frame.octets.len();
        assert!(
            captured <= octets.len(),
            "{captured} of {} octets",
            octets.len()
        );
        if let Ok(Content::Ip(packet)) = link::content(frame.link_type, frame.octets) {
            let (inner, outer) = (packet.as_ptr_range(), frame.octets.as_ptr_range());
            assert!(outer.start <= inner.start && inner.end == outer.end);
        }
    }
    frames
}

/// The least that stands around a frame: a simple packet block's type, two lengths and frame length.
const RECORD_HEADER: usize = 16;

fn replay(octets: &[u8]) -> (Summary, Vec<u8>) {
    let file = name();
    let options = Options {
        files: vec![file.clone()],
        engine: EngineConfig::default(),
        seed: 1,
        format: Format::Json,
    };
    let mut out = Vec::new();
    let capture = Capture::read(&file, Cursor::new(octets.to_vec()));
    match replay::run_captures(&options, std::iter::once((&file, capture)), &mut out) {
        Ok(summary) => (summary, out),
        Err(ReplayError::Captures(errors)) => {
            assert!(
                errors
                    .iter()
                    .all(|error| error.offset <= octets.len() as u64)
            );
            (summary_of(&out), out)
        }
        Err(ReplayError::Write(error)) => panic!("memory can be written: {error}"),
    }
}

/// The numbers that the last line tells.
fn summary_of(lines: &[u8]) -> Summary {
    let last = lines
        .trim_ascii_end()
        .rsplit(|octet| *octet == b'\n')
        .next();
    let last: Value = serde_json::from_slice(last.unwrap_or_default()).unwrap_or_default();
    let number = |name: &str| last[name].as_u64().expect("the summary is the last line");
    Summary {
        packets: number("packets"),
        passed: number("passed"),
        cleared: number("cleared"),
        dropped: number("dropped"),
        malformed: number("malformed"),
        ..Summary::default()
    }
}

fn check_summary(summary: &Summary) {
    let Summary {
        packets,
        passed,
        cleared,
        dropped,
        malformed,
        ..
    } = *summary;
    assert_eq!(passed + cleared + dropped, packets);
    assert!(malformed <= packets);
}

fn name() -> PathBuf {
    PathBuf::from("fuzzed")
}

fn seeds() -> Vec<Vec<u8>> {
    let packets = packets();
    let ethernet: Vec<_> = packets
        .iter()
        .map(|packet| {
            [
                b"\x01\x02\x03\x04\x05\x06\x01\x02\x03\x04\x05\x06\x08\x00",
                &packet[..],
            ]
            .concat()
        })
        .collect();
    let wireless: Vec<_> = packets
        .iter()
        .map(|packet| {
            let header = b"\x00\x00\x08\x00....\x88\x01........................\xaa\xaa\x03\x00\x00\x00\x08\x00";
            [header, &packet[..]].concat()
        })
        .collect();
    vec![
        pcap(101, &packets),
        pcap(1, &ethernet),
        pcap(127, &wireless),
        pcapng(101, &packets, &[]),
        pcapng(1, &ethernet, &[]),
        // Resolution of nanoseconds, and an offset of one hour.
        pcapng(
            101,
            &packets,
            b"\x09\0\x01\0\x09\0\0\0\x0e\0\x08\0\x10\x0e\0\0\0\0\0\0\0\0\0\0",
        ),
    ]
}

/// A ping, a dial, a file request, and something that is no packet.
fn packets() -> Vec<Vec<u8>> {
    let client = std::net::SocketAddrV4::new([10, 77, 1, 1].into(), 1214);
    let peer = std::net::SocketAddrV4::new([198, 18, 0, 5].into(), 2001);
    vec![
        wire::tcp(client, peer, &wire::syn(9, None)),
        wire::tcp(client, peer, &wire::data(10, None, HASH_REQUEST)),
        wire::udp(client, peer, PING),
        b"\x45\0\0".to_vec(),
    ]
}

fn pcap(link_type: u32, frames: &[Vec<u8>]) -> Vec<u8> {
    let mut file = [0xa1b2_c3d4_u32, 0x0004_0002, 0, 0, 65_535, link_type]
        .map(u32::to_le_bytes)
        .concat();
    for frame in frames {
        let len = frame.len() as u32;
        file.extend(
            [1_057_320_000, 250, len, len]
                .map(u32::to_le_bytes)
                .concat(),
        );
        file.extend(frame);
    }
    file
}

fn pcapng(link_type: u16, frames: &[Vec<u8>], interface_options: &[u8]) -> Vec<u8> {
    let section = [
        &0x1a2b_3c4d_u32.to_le_bytes()[..],
        &[1, 0, 0, 0],
        &[0xff; 8],
    ]
    .concat();
    let interface = [&link_type.to_le_bytes()[..], &[0; 6], interface_options].concat();
    let mut file = [block(0x0a0d_0d0a, &section), block(1, &interface)].concat();
    for frame in frames {
        let len = frame.len() as u32;
        let header = [0, 0x0003_c1a0, 0x1f40_0000, len, len]
            .map(u32::to_le_bytes)
            .concat();
        file.extend(block(6, &[&header[..], frame].concat()));
        file.extend(block(3, &[&len.to_le_bytes()[..], frame].concat()));
    }
    file
}

fn block(kind: u32, body: &[u8]) -> Vec<u8> {
    let mut body = body.to_vec();
    body.resize(body.len().next_multiple_of(4), 0);
    let len = (12 + body.len() as u32).to_le_bytes();
    [&kind.to_le_bytes()[..], &len, &body, &len].concat()
}
