//! Heads of HTTP messages: the same answer whatever the cut.
//!
//! Claims: what is read of a head stays true of it, whatever follows; what the body says makes no
//! difference; a request that convicts its sender when it comes in one segment does so in any pieces,
//! and the other way round; of a request for a hash no octet beyond what ordinary requests share is let
//! through before.

use std::net::SocketAddrV4;

use super::Target;
use super::input::{self, Input};
use super::wire::{self, HASH_REQUEST, MARKED_RESPONSE, PHRASES};
use crate::packet::Segment;
use crate::protocol::{self, head::MessageHead};
use crate::verdict::DropReason;
use crate::{Engine, EngineConfig, Ingress, Timestamp, Verdict};

/// Where to cut, as a field; then the octets of the message.
pub(super) const TARGET: Target = Target {
    name: "http_head",
    check,
    seeds,
};

fn check(octets: &[u8]) {
    let mut input = Input::new(octets);
    let Some(cuts) = input.field() else { return };
    let message = input.rest();
    let cuts = if cuts.is_empty() { &[1] } else { cuts };
    check_prefixes(message, cuts);
    check_body(message);
    if is_comparable(message, cuts) {
        check_cuts(message, cuts);
    }
}

/// A head only ever grows.
fn check_prefixes(message: &[u8], cuts: &[u8]) {
    let whole = MessageHead::read(message);
    let mut len = 0;
    for piece in pieces(message, cuts) {
        len += piece.len();
        let part = MessageHead::read(&message[..len]);
        // A line that is not whole may end in half a line end.
        let line = part.start_line;
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        assert!(whole.start_line.starts_with(line));
        if part.start_line_is_whole {
            assert_eq!(part.start_line, whole.start_line);
            assert!(whole.start_line_is_whole);
        }
        if part.is_whole {
            assert_eq!(part, whole, "nothing behind a whole head belongs to it");
        }
        let (known, all) = (part.fields().count(), whole.fields().count());
        assert!(known <= all, "{known} of {all} fields");
    }
}

/// Bodies are never read, and never name a peer.
fn check_body(message: &[u8]) {
    let head = MessageHead::read(message);
    if !head.is_whole {
        return;
    }
    let with_body = [message, b"\r\nX-Kazaa-IP: 192.0.2.1:1214\r\n"].concat();
    assert_eq!(MessageHead::read(&with_body), head);
    assert_eq!(
        protocol::announced_peers(&with_body),
        protocol::announced_peers(message)
    );
    assert_eq!(
        protocol::read_midstream(&with_body),
        protocol::read_midstream(message)
    );
}

/// Requests that begin as text does: twelve other octets can be an opener, which is one only while
/// nothing follows. Every piece reads the head anew, so that more of them only take time.
fn is_comparable(message: &[u8], cuts: &[u8]) -> bool {
    let is_text = |octet: &u8| matches!(octet, b' '..=b'~' | b'\t' | b'\r' | b'\n');
    let starts_as_text = message.iter().take(12).all(is_text);
    let fits = message.len() <= 2 * crate::flow::HEAD_LIMIT;
    fits && message.starts_with(b"GET ") && starts_as_text && pieces(message, cuts).len() <= 512
}

/// One message in one segment and in pieces.
fn check_cuts(message: &[u8], cuts: &[u8]) {
    for port in [2001, 80] {
        let whole = converse(port, &[message]);
        let cut = converse(port, &pieces(message, cuts));
        assert_eq!(whole.convicted, cut.convicted, "port {port}");
        if is_hash_request(message) {
            assert_eq!(
                cut.passed, 0,
                "port {port}: octets of a file request got through"
            );
        }
    }
}

fn is_hash_request(message: &[u8]) -> bool {
    const START: &[u8] = b"GET /.hash=";
    let digits = message.get(START.len()..START.len() + 40);
    message.starts_with(START)
        && digits.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
}

/// What became of a message.
struct Outcome {
    convicted: bool,
    /// Octets that were let through.
    passed: usize,
}

/// A client sends a message to a server, in these segments.
fn converse(port: u16, segments: &[&[u8]]) -> Outcome {
    let client = SocketAddrV4::new([10, 77, 1, 1].into(), 3000);
    let server = SocketAddrV4::new([198, 18, 0, 5].into(), port);
    let mut engine = Engine::new(EngineConfig::default(), 1);
    let mut send = |from, to, segment: &Segment<'_>| {
        let bytes = &wire::tcp(from, to, segment);
        engine.handle_packet(
            Timestamp::from_secs(1),
            Ingress {
                bytes,
                conntrack: None,
                link: None,
            },
        )
    };
    send(client, server, &wire::syn(99, None));
    send(server, client, &wire::syn(499, Some(100)));
    let mut outcome = Outcome {
        convicted: false,
        passed: 0,
    };
    let mut sequence = 100;
    for payload in segments {
        let verdict = send(client, server, &wire::data(sequence, Some(500), payload));
        sequence += payload.len() as u32;
        match verdict {
            Verdict::Drop(DropReason::Withheld) => {}
            Verdict::Drop(_) => outcome.convicted = true,
            Verdict::Pass(_) | Verdict::Tolerate(_) | Verdict::Clear(_) => {
                outcome.passed += payload.len();
            }
        }
    }
    outcome
}

/// A message in pieces of these lengths, over and over.
fn pieces<'a>(message: &'a [u8], cuts: &[u8]) -> Vec<&'a [u8]> {
    let mut pieces = Vec::new();
    let mut rest = message;
    for cut in cuts.iter().cycle() {
        if rest.is_empty() {
            break;
        }
        let len = usize::from(*cut).clamp(1, rest.len());
        let (piece, behind) = rest.split_at(len);
        pieces.push(piece);
        rest = behind;
    }
    pieces
}

fn seeds() -> Vec<Vec<u8>> {
    let seed = |cuts: &[u8], message: &[u8]| [input::field(cuts), message.to_vec()].concat();
    let mut seeds = vec![
        seed(&[1], HASH_REQUEST),
        seed(&[10, 3], HASH_REQUEST),
        seed(&[7], MARKED_RESPONSE),
        seed(
            &[20],
            b"GET / HTTP/1.0\r\nUser-Agent: KazaaClient\r\nHost: a\n\nbody",
        ),
        seed(&[50, 1], b"GET /a b c HTTP/1.1\r\nX-KazaaTag: 3=x\r\n\r\n"),
    ];
    seeds.extend(PHRASES.iter().map(|phrase| seed(&[5], phrase)));
    seeds
}
