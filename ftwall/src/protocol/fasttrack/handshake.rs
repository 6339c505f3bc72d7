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
/// First octet of a TLS record that carries a handshake message (RFC 8446, section 5.1).
const TLS_HANDSHAKE: u8 = 0x16;

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
    match conversation.responder.octets.len() {
        0 => Reading {
            evidence: Some(opener),
            needs: Some(Needs::More),
        },
        len if ANSWER_LENS.contains(&len) => Reading {
            evidence: Some(Evidence::HandshakePair),
            needs: None,
        },
        LONGER_THAN_ANY_ANSWER.. => Reading::default(),
        _ => Reading {
            evidence: None,
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
        [TLS_HANDSHAKE, 3, ..] => None,
        // Some network cards let the padding of an empty segment pass for payload.
        [0, 0, rest @ ..] if rest.iter().all(|octet| *octet == 0) => None,
        [_, _, .., b'\n'] if is_text(octets) => None,
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
    if head.is_followed || head.has_ended || is_text(opener) || is_known_elsewhere(opener) {
        return None;
    }
    Some(if looks_encrypted(opener) {
        Evidence::EncryptedOpener
    } else {
        Evidence::OpenerShape
    })
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
        // SOCKS 4: connect or bind, port, address, user name of three octets, NUL.
        [4, 1 | 2, .., 0] => true,
        // The beginning of a TLS handshake record, cut by the sender.
        [TLS_HANDSHAKE, 3, 0..=4, ..] => true,
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
        let one_octet = [&b"\n"[..], b"\0", b"a", b"\x16"];
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
        assert_eq!(read(&conversation(b"EHLO a\r\n", b"")), Reading::default());
        let cut_hello = b"\x16\x03\x01\x02";
        assert_eq!(read(&conversation(cut_hello, b"")), Reading::default());
        let padding = b"\0\0";
        assert_eq!(read(&conversation(padding, b"")), Reading::default());
        let more_than_padding = [&b"\0\0\x07"[..], b"\0\0\0\0\x01", b"\x9e\x12\n"];
        for octets in more_than_padding {
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
            is_followed: true,
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
        let foreign: [&[u8; 12]; 6] = [
            b"\x00\x01\x00\x00\x00\x06\x01\x03\x00\x6b\x00\x03", // Modbus/TCP read
            b"NXSH-8.10.1\n",                                    // NoMachine
            b"RFB 003.008\n",                                    // VNC
            b"PASS secret\n",                                    // FTP
            b"\x04\x01\x00\x50\xc6\x12\x00\x05bob\x00",          // SOCKS 4
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\x9a", // TLS, cut
        ];
        for octets in foreign {
            assert_eq!(opener(&head(octets)), None, "{octets:02x?}");
        }
    }

    #[test]
    fn known_binary_openers_do_not_look_encrypted() {
        // BFCP: version 1, primitive 11 (Hello), conference, transaction, user.
        let bfcp = b"\x20\x0b\x00\x00\x00\x00\x00\x01\x00\x01\x00\x02";
        assert_eq!(opener(&head(bfcp)), Some(Evidence::OpenerShape));
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
    fn an_answer_that_may_still_grow_to_the_right_size_is_withheld() {
        for len in [1, 7, 9, 13, 15, 16] {
            let reading = read(&conversation(&SPARSE, &[0x55; 18][..len]));
            assert_eq!(reading.evidence, None, "{len}");
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
