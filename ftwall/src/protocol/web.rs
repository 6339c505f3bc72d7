//! Proof that a conversation is harmless: the web, and servers that speak first.
//!
//! What is proven here is cleared and never judged again, so each proof is something a FastTrack
//! client cannot say by chance.

use super::head::{MessageHead, RequestLine, is_status_line};
use super::{Conversation, HarmlessShape, Head, Standing, WordRange};
use crate::verdict::ClearReason;

/// What is known about a conversation that no recogniser has anything more to say about.
pub(super) fn standing(conversation: &Conversation<'_>) -> Standing {
    let Conversation {
        initiator,
        responder,
    } = conversation;
    if initiator.octets.is_empty() {
        return spoken_first(responder);
    }
    match opening(initiator) {
        Opening::Harmless(reason) => Standing::Harmless(reason),
        Opening::Request => answered(responder),
        Opening::Unfinished if responder.octets.is_empty() && !initiator.has_ended => {
            Standing::Open
        }
        Opening::Unfinished | Opening::Foreign => Standing::Unrecognised,
    }
}

/// Whether a datagram is a QUIC Initial packet (RFC 9000, section 17.2.2; RFC 9369 for version 2).
///
/// The first octet alone is shared with FastTrack's 0xC0 to 0xC3; the version is not.
pub(super) fn is_quic_initial(payload: &[u8]) -> bool {
    let [first, v0, v1, v2, v3, destination_id_len, ..] = *payload else {
        return false;
    };
    // Long header, fixed bit, and the type that means Initial in this version.
    let initial = match u32::from_be_bytes([v0, v1, v2, v3]) {
        QUIC_V1 | QUIC_DRAFT_29 => 0b1100,
        QUIC_V2 => 0b1101,
        _ => return false,
    };
    first >> 4 == initial
        && usize::from(destination_id_len) <= MAX_CONNECTION_ID
        && payload.len() >= MIN_INITIAL_LEN
}

const QUIC_V1: u32 = 1;
const QUIC_V2: u32 = 0x6b33_43cf;
const QUIC_DRAFT_29: u32 = 0xff00_001d;
const MAX_CONNECTION_ID: usize = 20;
/// A client pads its Initial to at least this (RFC 9000, section 14.1).
const MIN_INITIAL_LEN: usize = 1200;

/// The initiator has been silent so far: a FastTrack peer waits for it, other servers do not.
const fn spoken_first(responder: &Head<'_>) -> Standing {
    if responder.octets.is_empty() {
        Standing::Open
    } else {
        Standing::Harmless(ClearReason::ServerSpoke)
    }
}

/// What the initiator's first octets are.
enum Opening {
    Harmless(ClearReason),
    /// A whole HTTP request head; the answer completes the proof.
    Request,
    /// Can still become one of the others.
    Unfinished,
    Foreign,
}

fn opening(head: &Head<'_>) -> Opening {
    let octets = head.octets;
    if is_client_hello(octets) {
        return Opening::Harmless(ClearReason::TlsClientHello);
    }
    if octets.starts_with(HTTP2_PREFACE) {
        return Opening::Harmless(ClearReason::HttpMethod);
    }
    if octets.starts_with(SSH_BANNER) {
        return Opening::Harmless(ClearReason::Ssh);
    }
    let message = MessageHead::read(octets);
    let Some(line) = RequestLine::read(message.start_line) else {
        return unfinished_or_foreign(octets);
    };
    if message.start_line_is_whole && !line.has_version {
        return unfinished_or_foreign(octets);
    }
    match line.method {
        _ if !message.is_whole && !head.has_ended => Opening::Unfinished,
        b"GET" => Opening::Request,
        // FastTrack peers only ever `GET`, so that a body sent this way need not be watched.
        _ => Opening::Harmless(ClearReason::HttpMethod),
    }
}

/// The whole preface of RFC 9113 ends in `SM`; its first line suffices to tell it.
const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n";

/// RFC 4253, section 4.2.
const SSH_BANNER: &[u8] = b"SSH-2.0-";

/// Whether octets begin as a TLS ClientHello does (RFC 8446, sections 5.1 and 4.1.2).
fn is_client_hello(octets: &[u8]) -> bool {
    match octets {
        // Record: handshake, version, length. Message: ClientHello, length, version.
        [0x16, 3, 0..=4, high, low, 1, 0..=3, _, _, 3, 0..=3, ..] => {
            TLS_RECORD_LEN.contains(&u16::from_be_bytes([*high, *low]))
        }
        _ => false,
    }
}

/// From a message header alone up to the largest record.
const TLS_RECORD_LEN: std::ops::RangeInclusive<u16> = 4..=16_384;

/// A ClientHello as the kernel can tell it. Today's are of 180 octets and more; eight openers' worth keeps
/// openers out whatever their octets are, and drawn octets have all these words once in 10^20 times.
pub(super) const CLIENT_HELLO: HarmlessShape = HarmlessShape {
    name: "TLS ClientHello",
    min_payload: 8 * 12,
    words: &[
        // Record: handshake, version.
        WordRange {
            offset: 0,
            octets: 3,
            low: 0x16_03_00,
            high: 0x16_03_04,
        },
        // Its length: no less than what is there behind its header, no more than the largest.
        WordRange {
            offset: 3,
            octets: 2,
            low: 8 * 12 - 5,
            high: 16_384,
        },
        // Message: ClientHello, of less than 2^16 octets.
        WordRange {
            offset: 5,
            octets: 2,
            low: 0x01_00,
            high: 0x01_00,
        },
        // Its version.
        WordRange {
            offset: 9,
            octets: 2,
            low: 0x03_00,
            high: 0x03_03,
        },
    ],
};

/// Fewer octets than an opener has can still become anything.
const fn unfinished_or_foreign(octets: &[u8]) -> Opening {
    if octets.len() < 12 {
        Opening::Unfinished
    } else {
        Opening::Foreign
    }
}

/// A request without marks was answered so far.
fn answered(responder: &Head<'_>) -> Standing {
    if responder.octets.is_empty() {
        return Standing::Asked;
    }
    if !is_status_line(responder.octets) {
        return Standing::Unrecognised;
    }
    if MessageHead::read(responder.octets).is_whole || responder.has_ended {
        Standing::Harmless(ClearReason::Http)
    } else {
        Standing::Open
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::conversation;
    use super::*;

    const REQUEST: &[u8] = b"GET /index.html HTTP/1.1\r\nHost: example.org\r\n\r\n";

    #[test]
    fn http_is_proven_once_both_heads_are_whole() {
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";
        assert_eq!(stands(REQUEST, b""), Standing::Asked);
        assert_eq!(stands(REQUEST, &answer[..20]), Standing::Open);
        assert_eq!(
            stands(REQUEST, answer),
            Standing::Harmless(ClearReason::Http)
        );
        assert_eq!(stands(&REQUEST[..20], b""), Standing::Open);
    }

    #[test]
    fn an_answer_that_is_not_http_proves_nothing() {
        assert_eq!(stands(REQUEST, b"\x01\x02"), Standing::Unrecognised);
    }

    #[test]
    fn methods_that_fasttrack_never_uses_prove_themselves() {
        let harmless = Standing::Harmless(ClearReason::HttpMethod);
        assert_eq!(
            stands(b"POST /upload HTTP/1.1\r\nHost: a\r\n\r\nbody", b""),
            harmless
        );
        assert_eq!(stands(b"CONNECT a:443 HTTP/1.1\r\n\r\n", b""), harmless);
        assert_eq!(stands(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b""), harmless);
    }

    #[test]
    fn a_head_proves_nothing_before_it_is_whole_or_longer_than_any() {
        let unfinished = b"POST /upload HTTP/1.1\r\nX-Kaz";
        assert_eq!(stands(unfinished, b""), Standing::Open);
        let mut longer = conversation(unfinished, b"");
        longer.initiator.has_ended = true;
        let harmless = Standing::Harmless(ClearReason::HttpMethod);
        assert_eq!(standing(&longer), harmless);
        let mut answered = conversation(REQUEST, b"HTTP/1.1 200 OK\r\nSet-Cookie: ");
        assert_eq!(standing(&answered), Standing::Open);
        answered.responder.has_ended = true;
        assert_eq!(standing(&answered), Standing::Harmless(ClearReason::Http));
    }

    #[test]
    fn a_tls_client_hello_proves_itself() {
        // Record header, then ClientHello of 508 octets, version 3.3.
        let hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\x9a\x11\x7c";
        assert_eq!(
            stands(hello, b""),
            Standing::Harmless(ClearReason::TlsClientHello)
        );
        assert_eq!(stands(&hello[..10], b""), Standing::Open);
        assert_eq!(stands(&hello[..1], b""), Standing::Open);
    }

    #[test]
    fn what_the_kernel_clears_as_tls_the_recogniser_clears_too() {
        let mut hello = b"\x16\x03\x01\x00\x60\x01\x00\x00\x5c\x03\x03".to_vec();
        hello.resize(101, 0x9a);
        assert!(CLIENT_HELLO.matches(&hello));
        let harmless = Standing::Harmless(ClearReason::TlsClientHello);
        let mut state = 0x2545_f491_4f6c_dd1d_u64;
        let mut cleared = 0;
        for _ in 0..20_000 {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            let [octet, at, ..] = (state >> 16).to_be_bytes()[2..] else {
                unreachable!("eight octets")
            };
            let mut altered = hello.clone();
            altered[usize::from(at % 11)] = octet;
            if CLIENT_HELLO.matches(&altered) {
                cleared += 1;
                assert_eq!(stands(&altered, b""), harmless, "{altered:02x?}");
            }
        }
        assert!((1_000..19_000).contains(&cleared), "{cleared} of 20,000");
    }

    #[test]
    fn the_kernel_clears_nothing_as_short_as_an_opener_and_no_beginning_of_a_hello() {
        let mut hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec();
        hello.resize(517, 0x9a);
        assert!(CLIENT_HELLO.matches(&hello));
        for len in 0..usize::from(CLIENT_HELLO.min_payload) {
            assert!(!CLIENT_HELLO.matches(&hello[..len]), "{len}");
        }
        // Its record ends before what is there does.
        hello[3..5].copy_from_slice(&90_u16.to_be_bytes());
        assert!(!CLIENT_HELLO.matches(&hello));
    }

    #[test]
    fn other_tls_records_prove_nothing() {
        let server_hello = b"\x16\x03\x03\x00\x5a\x02\x00\x00\x56\x03\x03\x9a\x11";
        let data = b"\x17\x03\x03\x00\x5a\x01\x00\x00\x56\x03\x03\x9a\x11";
        assert_eq!(stands(server_hello, b""), Standing::Unrecognised);
        assert_eq!(stands(data, b""), Standing::Unrecognised);
    }

    #[test]
    fn a_server_that_speaks_first_is_no_fasttrack_peer() {
        let standing = stands(b"", b"SSH-2.0-OpenSSH_9.2\r\n");
        assert_eq!(standing, Standing::Harmless(ClearReason::ServerSpoke));
    }

    #[test]
    fn an_ssh_client_that_does_not_wait_proves_itself() {
        let standing = stands(b"SSH-2.0-OpenSSH_9.2\r\n", b"");
        assert_eq!(standing, Standing::Harmless(ClearReason::Ssh));
        assert_eq!(stands(b"SSH-2", b""), Standing::Open);
    }

    #[test]
    fn unknown_text_and_unknown_octets_stay_unproven() {
        assert_eq!(stands(b"NICK somebody\r\n", b""), Standing::Unrecognised);
        assert_eq!(stands(&[0x99; 40], b""), Standing::Unrecognised);
        assert_eq!(stands(b"\x01\x02", b""), Standing::Open);
        assert_eq!(stands(&[0x99; 11], b""), Standing::Open);
        assert_eq!(stands(&[0x99; 12], b""), Standing::Unrecognised);
        assert_eq!(stands(b"\x01\x02", b"\x03"), Standing::Unrecognised);
    }

    #[test]
    fn a_quic_initial_is_known_by_its_version() {
        let mut initial = vec![0xc3, 0, 0, 0, 1, 8];
        initial.resize(1200, 0x5a);
        assert!(is_quic_initial(&initial));
        assert!(!is_quic_initial(&initial[..1199]));
        initial[4] = 7;
        assert!(!is_quic_initial(&initial), "unknown version");
        initial[1..5].copy_from_slice(&QUIC_V2.to_be_bytes());
        assert!(!is_quic_initial(&initial), "Retry, in version 2");
        initial[0] = 0xd3;
        assert!(is_quic_initial(&initial));
        initial[5] = 20;
        assert!(is_quic_initial(&initial));
        initial[5] = 21;
        assert!(!is_quic_initial(&initial), "no connection id is so long");
        // FastTrack's 0xC0, which must not be taken for QUIC.
        assert!(!is_quic_initial(b"\xc0\x28\x00\x00\x00\x01\x08"));
    }

    fn stands(initiator: &[u8], responder: &[u8]) -> Standing {
        standing(&conversation(initiator, responder))
    }
}
