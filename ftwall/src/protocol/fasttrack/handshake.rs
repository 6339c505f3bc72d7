//! FastTrack's session handshake: the initiator sends exactly 12 octets and waits; the responder
//! answers with 8, often with its encrypted network name behind them.
//!
//! Everything after that is encrypted with keys from these octets. The cipher is not needed: of
//! 11,400 foreign flows none had this pair of sizes.

use super::super::{Conversation, Head, Needs, Patience, Reading};
use crate::Evidence;

/// The first word that giFT and mldonkey always send; later Kazaa versions vary it.
const CONSTANT_WORD: [u8; 4] = [0xfa, 0x00, 0xb6, 0x2b];
/// "Random" word, client seed, encoded encryption type.
const OPENER_LEN: usize = 12;
/// Server seed and encoded encryption type, alone or with a network name and NUL: `KaZaA` (6),
/// `Grokster` (9), `fileshare` or `MusicCity` (10).
const ANSWER_LENS: [usize; 4] = [8, 8 + 6, 8 + 9, 8 + 10];
const LONGER_THAN_ANY_ANSWER: usize = 19;
/// From this length on, text with a mere line feed behind it is a line.
const CERTAIN_LINE_LEN: usize = 8;

/// Reads the heads of a conversation.
pub(super) fn read(conversation: &Conversation<'_>) -> Reading {
    let Some(opener) = opener(&conversation.initiator) else {
        let beginning = beginning(conversation);
        return Reading {
            evidence: beginning.map(|_| Evidence::OpenerBeginning),
            needs: beginning.map(Needs::Withholding),
        };
    };
    if opener == Evidence::ConstantOpener {
        return Reading {
            evidence: Some(opener),
            needs: None,
        };
    }
    read_answer(opener, &conversation.responder)
}

/// Reads what follows an opener that may be another protocol's. Where octets are lost, how far an answer
/// reaches says as much as what is in it.
fn read_answer(opener: Evidence, answer: &Head<'_>) -> Reading {
    match answer.extent {
        0 => Reading {
            evidence: Some(opener),
            needs: Some(Needs::More),
        },
        _ if opener == Evidence::TextOpener && begins_text(answer.octets) => Reading::default(),
        len if ANSWER_LENS.contains(&len) => Reading {
            evidence: Some(Evidence::HandshakePair),
            needs: None,
        },
        LONGER_THAN_ANY_ANSWER.. => Reading::default(),
        _ => Reading {
            evidence: Some(Evidence::AnswerBeginning),
            needs: Some(Needs::Withholding(Patience::Limited)),
        },
    }
}

/// How long the beginning of what may become an opener is withheld.
fn beginning(conversation: &Conversation<'_>) -> Option<Patience> {
    let Conversation {
        initiator,
        responder,
    } = conversation;
    let octets = initiator.octets;
    let is_beginning = (1..OPENER_LEN).contains(&octets.len())
        && responder.octets.is_empty()
        && !initiator.has_ended;
    match octets {
        _ if !is_beginning => None,
        _ if CONSTANT_WORD.starts_with(octets) => Some(Patience::Limited),
        _ if begins_tls(octets) => None,
        // Some network cards let the padding of an empty segment pass for payload.
        [0, 0, rest @ ..] if rest.iter().all(|octet| *octet == 0) => None,
        _ if is_line(octets) => None,
        _ => Some(Patience::OfSuspects),
    }
}

/// What the initiator's first octets look like.
fn opener(head: &Head<'_>) -> Option<Evidence> {
    let octets = head.octets;
    if octets.starts_with(&CONSTANT_WORD) {
        return Some(Evidence::ConstantOpener);
    }
    let opener: &[u8; OPENER_LEN] = octets.try_into().ok()?;
    match opener {
        _ if head.is_followed() || head.has_ended || is_known_elsewhere(opener) => None,
        _ if begins_request(opener) => None,
        _ if is_text(opener) => Some(Evidence::TextOpener),
        _ if looks_encrypted(opener) => Some(Evidence::EncryptedOpener),
        _ => Some(Evidence::OpenerShape),
    }
}

/// Whether twelve octets may be the beginning of an HTTP request, cut by its sender: a method in
/// capitals, a space, and text.
fn begins_request(opener: &[u8; OPENER_LEN]) -> bool {
    let method = opener.iter().take_while(|octet| octet.is_ascii_uppercase());
    let length = method.count();
    length >= 3 && opener.get(length).is_none_or(|next| *next == b' ') && is_text(opener)
}

/// A line of text that nobody would take for chance: three drawn octets are text and end with a line
/// feed in one opener of a thousand; eight of them, or what ends with CRLF, in one of 50,000.
fn is_line(octets: &[u8]) -> bool {
    let has_end = match octets {
        [_, .., b'\r', b'\n'] => true,
        [.., b'\n'] => octets.len() >= CERTAIN_LINE_LEN,
        _ => false,
    };
    has_end && is_text(octets)
}

fn begins_text(octets: &[u8]) -> bool {
    !octets.is_empty() && is_text(octets)
}

fn is_text(octets: &[u8]) -> bool {
    octets
        .iter()
        .all(|octet| matches!(octet, b' '..=b'~' | b'\t' | b'\r' | b'\n' | 0))
}

/// Twelve octets that another protocol is known to open with.
const fn is_known_elsewhere(opener: &[u8; OPENER_LEN]) -> bool {
    match opener {
        // Modbus/TCP: transaction, protocol 0, six octets follow. A read request is 12 octets.
        [_, _, 0, 0, 0, 6, ..] => true,
        // Binary Floor Control (RFC 8855, section 5.1): version 1, one of 18 primitives, no attributes.
        [0x20, 1..=18, 0, 0, ..] => true,
        // SOCKS 4: connect or bind, port, address, user name of three octets, NUL.
        [4, 1 | 2, .., 0] => true,
        _ => begins_tls(opener),
    }
}

/// Whether octets begin like the record of a ClientHello (RFC 8446, sections 4 and 5.1): handshake,
/// version, a length of at most 2^14 and a little, client_hello, a length below 2^16. Two octets are too
/// few to tell.
const fn begins_tls(octets: &[u8]) -> bool {
    match octets {
        [0x16, 3, 0..=4, 0..=0x41, _, kind, length, ..] => *kind == 1 && *length == 0,
        [0x16, 3, 0..=4, 0..=0x41, _, kind] => *kind == 1,
        [0x16, 3, 0..=4, 0..=0x41, ..] | [0x16, 3, 0..=4] => true,
        _ => false,
    }
}

/// About half of all bits set and not much of it printable. Passes 77 % of random strings and none
/// of the 12-octet openers seen in 11,400 foreign flows.
fn looks_encrypted(opener: &[u8; OPENER_LEN]) -> bool {
    let ones: u32 = opener.iter().map(|octet| octet.count_ones()).sum();
    let printable = |octets: &[u8]| octets.iter().filter(|octet| is_printable(**octet)).count();
    // 3.4 to 4.6 set bits per octet.
    (41..=55).contains(&ones) && printable(&opener[..6]) < 6 && printable(opener) <= OPENER_LEN / 2
}

fn is_printable(octet: u8) -> bool {
    matches!(octet, b' '..=b'~')
}

#[cfg(test)]
mod tests {
    use super::super::super::tests::{conversation, head};
    use super::*;

    /// What giFT and mldonkey always send.
    #[rustfmt::skip]
    const CONSTANT_OPENER: [u8; 12] = [
        0xfa, 0x00, 0xb6, 0x2b, // "random" word
        0xfa, 0xcb, 0x12, 0x38, // client seed
        0x32, 0x09, 0xd2, 0x32, // encoded encryption type 0x29
    ];
    /// Drawn at random.
    const ENCRYPTED: [u8; 12] = [
        0x9e, 0x12, 0xc7, 0x3a, 0xf0, 0x5d, 0x88, 0x61, 0xe4, 0x1b, 0xd3, 0x97,
    ];
    /// Neither text nor encrypted-looking.
    const SPARSE: [u8; 12] = [0, 1, 0, 0, 0, 4, 0, 0x80, 0, 2, 0, 1];

    #[test]
    fn the_constant_opener_is_known_by_its_first_word() {
        assert_eq!(
            opener(&head(&CONSTANT_OPENER)),
            Some(Evidence::ConstantOpener)
        );
        assert_eq!(
            opener(&head(&CONSTANT_OPENER[..4])),
            Some(Evidence::ConstantOpener)
        );
        assert_eq!(opener(&head(&CONSTANT_OPENER[..3])), None);
    }

    #[test]
    fn twelve_octets_alone_have_the_shape_of_an_opener() {
        assert_eq!(opener(&head(&ENCRYPTED)), Some(Evidence::EncryptedOpener));
        assert_eq!(opener(&head(&SPARSE)), Some(Evidence::OpenerShape));
        let reading = read(&conversation(&SPARSE, b""));
        assert_eq!(reading.needs, Some(Needs::More), "the answer will tell");
    }

    #[test]
    fn the_beginning_of_the_constant_opener_is_withheld() {
        for len in 1..CONSTANT_WORD.len() {
            let reading = read(&conversation(&CONSTANT_OPENER[..len], b""));
            assert_eq!(reading.evidence, Some(Evidence::OpenerBeginning), "{len}");
            let expected = Needs::Withholding(Patience::Limited);
            assert_eq!(reading.needs, Some(expected), "{len}");
        }
    }

    #[test]
    fn the_beginning_of_any_opener_is_withheld_from_suspects() {
        let one_octet = [
            &b"\n"[..],
            b"\0",
            b"a",
            b"\x16",
            b"\x16\x03",
            b"\x16\x03\xf0",
            b"\x16\x03\x04\xd7",
            b"\x16\x03\x04\x17\x00\x02",
            b"\x16\x03\x04\x17\x00\x01\x84",
        ];
        let beginnings = (1..OPENER_LEN).map(|len| &ENCRYPTED[..len]);
        for octets in beginnings.chain(one_octet) {
            let len = octets.len();
            let reading = read(&conversation(octets, b""));
            assert_eq!(reading.evidence, Some(Evidence::OpenerBeginning), "{len}");
            let expected = Needs::Withholding(Patience::OfSuspects);
            assert_eq!(reading.needs, Some(expected), "{len}");
        }
    }

    #[test]
    fn whole_lines_padding_the_beginning_of_tls_and_what_was_answered_are_silence() {
        for line in [&b"EHLO a\r\n"[..], b"QUIT\r\n", b"a\r\n", b"PASS me\n"] {
            assert_eq!(read(&conversation(line, b"")), Reading::default());
        }
        let cut_hello = b"\x16\x03\x01\x02";
        assert_eq!(read(&conversation(cut_hello, b"")), Reading::default());
        let padding = b"\0\0";
        assert_eq!(read(&conversation(padding, b"")), Reading::default());
        let more_than_padding = [&b"\0\0\x07"[..], b"\0\0\0\0\x01"];
        let chance = [
            &b"\x9e\x12\n"[..],
            b"h]\n",
            b"PASS m\n",
            b"\r\n",
            b"\x9e\r\n",
        ];
        for octets in more_than_padding.into_iter().chain(chance) {
            let reading = read(&conversation(octets, b""));
            assert_eq!(
                reading.evidence,
                Some(Evidence::OpenerBeginning),
                "{octets:02x?}"
            );
        }
        let socks5 = b"\x05\x01\x00";
        assert_eq!(read(&conversation(socks5, b"\x05\x00")), Reading::default());
    }

    #[test]
    fn eleven_or_thirteen_octets_are_silence() {
        assert_eq!(opener(&head(&ENCRYPTED[..11])), None);
        assert_eq!(opener(&head(&[&ENCRYPTED[..], &[0]].concat())), None);
    }

    #[test]
    fn twelve_octets_with_more_behind_them_are_silence() {
        let followed = Head {
            extent: 13,
            ..head(&ENCRYPTED)
        };
        let cut_short = Head {
            has_ended: true,
            ..head(&ENCRYPTED)
        };
        assert_eq!(opener(&followed), None);
        assert_eq!(opener(&cut_short), None);
    }

    #[test]
    fn openers_of_other_protocols_are_silence() {
        let foreign: [&[u8; 12]; 4] = [
            b"\x00\x01\x00\x00\x00\x06\x01\x03\x00\x6b\x00\x03", // Modbus/TCP read
            b"\x20\x0b\x00\x00\x3d\xdd\xed\xdb\x00\x01\xfb\xfc", // BFCP Hello
            b"\x04\x01\x00\x50\xc6\x12\x00\x05bob\x00",          // SOCKS 4
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\x9a", // TLS, cut
        ];
        for octets in foreign {
            assert_eq!(opener(&head(octets)), None, "{octets:02x?}");
        }
    }

    #[test]
    fn twelve_octets_of_text_are_told_apart_from_a_request_that_was_cut() {
        let lines: [&[u8; 12]; 3] = [
            b"NXSH-8.10.1\n", // NoMachine
            b"PASSsecrets\n",
            b"hLPDr28>D\t\\\n", // drawn
        ];
        for octets in lines {
            let reading = read(&conversation(octets, b""));
            assert_eq!(reading.evidence, Some(Evidence::TextOpener), "{octets:?}");
            assert_eq!(reading.needs, Some(Needs::More), "{octets:?}");
        }
        let requests = [
            b"GET /a/b/c.h",
            b"POST /upload",
            b"VERSIONCONTR",
            b"RFB 003.008\n",
            b"PASS secret\n",
        ];
        for octets in requests {
            assert_eq!(
                read(&conversation(octets, b"")),
                Reading::default(),
                "{octets:?}"
            );
        }
    }

    #[test]
    fn known_binary_openers_do_not_look_encrypted() {
        // iMesh's later protocol, as libprotoident lists it.
        let imesh_new = b"\x06\x00\x06\x00\x00\x00\x64\x00\x00\x00\x00\x00";
        assert_eq!(opener(&head(imesh_new)), Some(Evidence::OpenerShape));
    }

    #[test]
    fn text_does_not_look_encrypted_even_where_its_bits_do() {
        // 45 or 49 bits are set in each of these.
        let starts_with_text = b"KVWXZT\x80\x9d\xab\xc7\xd3\xe5";
        assert!(!looks_encrypted(starts_with_text));
        let five_of_six = b"KVWXZ\xc4\x80\x9d\xab\xc7\xd3\xe5";
        assert!(looks_encrypted(five_of_six));
        let seven_of_twelve = b"KV\xc4W\x80XZTF\xd3\xe5\x9d";
        assert!(!looks_encrypted(seven_of_twelve));
        let six_of_twelve = b"KV\xc4W\x80XZ\x94F\xd3\xe5\x9d";
        assert!(looks_encrypted(six_of_twelve));
    }

    #[test]
    fn three_quarters_of_random_openers_look_encrypted() {
        let mut state = 0x2545_f491_4f6c_dd1d_u64;
        let mut draw = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()
        };
        let count = (0..10_000)
            .filter(|_| {
                let octets = [draw(), draw()].concat();
                looks_encrypted(octets[..12].try_into().unwrap())
            })
            .count();
        assert!((7_000..8_500).contains(&count), "{count} of 10,000");
    }

    #[test]
    fn an_opener_and_an_answer_of_the_right_size_are_a_handshake() {
        for len in ANSWER_LENS {
            let reading = read(&conversation(&SPARSE, &[0x55; 18][..len]));
            assert_eq!(reading.evidence, Some(Evidence::HandshakePair), "{len}");
        }
    }

    #[test]
    fn an_answer_with_a_gap_is_told_by_how_far_it_reaches() {
        let withheld = Some(Needs::Withholding(Patience::Limited));
        let reaching = |octets, extent| {
            let mut conversation = conversation(&SPARSE, octets);
            conversation.responder.extent = extent;
            read(&conversation)
        };
        assert_eq!(reaching(b"", 1).needs, withheld);
        assert_eq!(reaching(&[0x55; 5], 13).needs, withheld);
        let pair = reaching(&[0x55; 5], 14);
        assert_eq!(pair.evidence, Some(Evidence::HandshakePair));
        assert_eq!(reaching(&[0x55; 5], 19), Reading::default());
    }

    #[test]
    fn text_is_answered_by_text_and_an_opener_that_reads_as_text_is_not() {
        let drawn = b";.^t<PSIhZye";
        let answer = b"\xab\xe9\x61\x1c\x37\x72\xea\x23\xe5\x13\xaf\xe6\x5b\xf2";
        let reading = read(&conversation(drawn, answer));
        assert_eq!(reading.evidence, Some(Evidence::HandshakePair));
        let line = read(&conversation(b"NXSH-8.10.1\n", b"NXD-8.10.1\r\n\r\n"));
        assert_eq!(line, Reading::default());
    }

    #[test]
    fn an_answer_that_may_still_grow_to_the_right_size_is_withheld() {
        for len in [1, 7, 9, 13, 15, 16] {
            let reading = read(&conversation(&SPARSE, &[0x55; 18][..len]));
            assert_eq!(reading.evidence, Some(Evidence::AnswerBeginning), "{len}");
            assert_eq!(
                reading.needs,
                Some(Needs::Withholding(Patience::Limited)),
                "{len}"
            );
        }
    }

    #[test]
    fn a_longer_answer_is_another_protocol() {
        assert_eq!(
            read(&conversation(&SPARSE, &[0x55; 19])),
            Reading::default()
        );
    }
}
