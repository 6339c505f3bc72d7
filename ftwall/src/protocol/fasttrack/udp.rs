//! FastTrack's datagrams: ping (0x27), pong (0x28), second-kind pong (0x29) and the answer to it
//! (0x2a).
//!
//! Only the whole shape counts. First octets and lengths alone are shared with DNS, OpenVPN and
//! many others; the whole shapes of ping and pong had no hit in 34,605 foreign datagrams.

use super::super::{Answer, ByteMatch, Direction, ShortPayload, UdpShape};
use crate::Evidence;
use crate::config::Reply;

const PING: u8 = 0x27;
const PONG: u8 = 0x28;
const PONG2: u8 = 0x29;
const PONG2_ANSWER: u8 = 0x2a;
/// A message that names the receiver's address and asks for nothing (PROTOCOL notes, 0xC1).
const YOUR_ADDRESS: u8 = 0xc1;

/// Follows the encryption word of a ping.
const PING_FLAG: u8 = 0x80;
/// Lengths of network names: `KaZaA` has 5 octets, `fileshare` and `MusicCity` have 9.
const NAME_LEN: std::ops::RangeInclusive<usize> = 3..=16;

/// What the kernel hands over: everything `read` accepts, said in octets it can compare.
pub(super) const SHAPES: &[UdpShape] = &[
    UdpShape {
        name: "fasttrack_ping",
        direction: Direction::Both,
        only_locked: false,
        payload_len: 7 + 3..=7 + 16,
        bytes: &[
            ByteMatch::exactly(0, PING),
            ByteMatch::exactly(1, 0),
            ByteMatch::exactly(2, 0),
            ByteMatch::exactly(3, 0),
            ByteMatch::exactly(5, PING_FLAG),
        ],
    },
    UdpShape {
        name: "fasttrack_pong",
        direction: Direction::Both,
        only_locked: true,
        payload_len: 12 + 3..=12 + 16,
        bytes: &[
            ByteMatch::exactly(0, PONG),
            ByteMatch::exactly(1, 0),
            ByteMatch::exactly(2, 0),
            ByteMatch::exactly(3, 0),
            ByteMatch::exactly(5, 0),
        ],
    },
    UdpShape {
        name: "fasttrack_pong2",
        direction: Direction::Both,
        only_locked: true,
        payload_len: 13..=21,
        bytes: &[
            ByteMatch::exactly(0, PONG2),
            ByteMatch::exactly(1, 0),
            ByteMatch::exactly(2, 0),
            ByteMatch::exactly(3, 0),
            ByteMatch::exactly(7, 0),
            ByteMatch::exactly(8, 0),
        ],
    },
    UdpShape {
        name: "fasttrack_pong2_answer",
        direction: Direction::Both,
        only_locked: true,
        payload_len: 5..=5,
        bytes: &[ByteMatch::exactly(0, PONG2_ANSWER)],
    },
];

/// Reads one whole datagram.
pub(super) fn read(payload: &[u8]) -> Option<Evidence> {
    match payload {
        [PING, ..] => network_name(payload).map(|_| Evidence::UdpPing),
        // Encryption word, zero, counter, two unknown octets, load, unknown octet, name.
        [PONG, 0, 0, 0, _, 0, _, _, _, _, _, name @ .., 0] if is_name(name) => {
            Some(Evidence::UdpPong)
        }
        // Encryption word, 1 or 2, flag, two zero octets, id; with the flag an address follows.
        [PONG2, 0, 0, 0, _, 1 | 2, 0, 0, 0, _, _, _, _] => Some(Evidence::UdpPong2),
        [PONG2, 0, 0, 0, _, 1 | 2, 1, 0, 0, rest @ ..] if rest.len() == 12 => {
            Some(Evidence::UdpPong2)
        }
        [PONG2_ANSWER, _, _, _, _] => Some(Evidence::UdpPong2Answer),
        _ => None,
    }
}

/// The answer to a ping that the configuration asks for, well-formed: a malformed pong makes giFT
/// stop pinging, and then nothing more would be learned from it.
pub(super) fn answer(answer: &Answer<'_>) -> Option<ShortPayload> {
    let name = network_name(answer.ping)?;
    let encryption = 0x29;
    match answer.reply {
        // Counter, unknown word and load as seen in real pongs; both open clients accept it.
        Reply::Pong => {
            let fields = [PONG, 0, 0, 0, encryption, 0, 0x04, 0x06, 0x14, 0x32, 0];
            ShortPayload::of(&[&fields, name, &[0]])
        }
        Reply::Pong2 => {
            let fields = [PONG2, 0, 0, 0, encryption, 1, 0, 0, 0];
            ShortPayload::of(&[&fields, &answer.draw.to_be_bytes()])
        }
        Reply::Other => ShortPayload::of(&[&[YOUR_ADDRESS, 0, 0], &answer.client.ip().octets()]),
        Reply::None => None,
    }
}

/// A ping in the network that an earlier ping named: a client that still runs reacts to it.
pub(super) fn probe(ping: &[u8]) -> Option<ShortPayload> {
    network_name(ping).and_then(|_| ShortPayload::of(&[ping]))
}

/// The network a ping names, if it is a whole ping: type, encryption word below 256, 0x80, name,
/// one NUL, nothing else.
fn network_name(payload: &[u8]) -> Option<&[u8]> {
    match payload {
        [PING, 0, 0, 0, _, PING_FLAG, name @ .., 0] if is_name(name) => Some(name),
        _ => None,
    }
}

fn is_name(name: &[u8]) -> bool {
    NAME_LEN.contains(&name.len()) && name.iter().all(u8::is_ascii_graphic)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// giFT 0.8.9: encryption word 0x29.
    #[rustfmt::skip]
    const GIFT_PING: &[u8] = &[
        0x27, 0, 0, 0, 0x29,            // type, encryption word
        0x80,                           // always
        b'K', b'a', b'Z', b'a', b'A', 0, // network, NUL
    ];

    #[test]
    fn the_pings_of_both_open_clients_are_pings() {
        let mldonkey = b"\x27\0\0\0\xa9\x80KaZaA\0";
        assert_eq!(read(GIFT_PING), Some(Evidence::UdpPing));
        assert_eq!(read(mldonkey), Some(Evidence::UdpPing));
    }

    #[test]
    fn a_ping_of_any_network_is_a_ping() {
        for (name, len) in [
            ("KaZaA", 12),
            ("Grokster", 15),
            ("fileshare", 16),
            ("MusicCity", 16),
        ] {
            let ping = ping(name);
            assert_eq!(ping.len(), len);
            assert_eq!(read(&ping), Some(Evidence::UdpPing), "{name}");
        }
    }

    #[test]
    fn pongs_of_both_kinds_and_their_answer_are_read() {
        // Accepted by both open clients in the lab.
        let pong = b"\x28\0\0\0\x29\0\x04\x06\x14\x32\0KaZaA\0";
        assert_eq!((pong.len(), read(pong)), (17, Some(Evidence::UdpPong)));
        let imesh = b"\x28\0\0\0\x29\0\x04\x3c\x13\x20\0fileshare\0";
        assert_eq!((imesh.len(), read(imesh)), (21, Some(Evidence::UdpPong)));
        let plain = b"\x29\0\0\0\x29\x01\0\0\0\xde\xad\xbe\xef";
        assert_eq!((plain.len(), read(plain)), (13, Some(Evidence::UdpPong2)));
        let flagged = b"\x29\0\0\0\x29\x02\x01\0\0\xde\xad\xbe\xef\xc6\x12\0\x05\x07\xd1\0\0";
        assert_eq!(
            (flagged.len(), read(flagged)),
            (21, Some(Evidence::UdpPong2))
        );
        assert_eq!(
            read(b"\x2a\xde\xad\xbe\xef"),
            Some(Evidence::UdpPong2Answer)
        );
    }

    #[test]
    fn near_misses_of_a_ping_are_silence() {
        let misses: [&[u8]; 9] = [
            b"\x27\0\0\0\x29\x80KaZaA",          // no NUL
            b"\x27\0\0\0\x29\x80KaZaA\0\0",      // two NULs
            b"\x27\0\0\0\x29\x81KaZaA\0",        // not 0x80
            b"\x27\0\0\x01\x29\x80KaZaA\0",      // encryption word above 255
            b"\x27\0\0\0\x29\x80Ka\x01aA\0",     // name not printable
            b"\x27\0\0\0\x29\x80\0",             // no name
            b"\x27\0\0\0\x29\x80ab\0",           // name too short
            b"\x27\x4d\x01\0\0\x01\0\0\0\0\0\0", // a DNS query with id 0x274d
            b"\x28\0\0\0\x29\x80KaZaA\0",        // another type
        ];
        for miss in misses {
            assert_eq!(read(miss), None, "{miss:02x?}");
        }
    }

    #[test]
    fn near_misses_of_pongs_are_silence() {
        let misses: [&[u8]; 9] = [
            b"\x28\0\0\0\x29\0\x04\x06\x14\x32\0Ka\x01aA\0", // name not printable
            b"\x28\0\0\0\x29\0\x04\x06\x14\x32\0ab\0",       // name too short
            b"\x28\0\0\0\x29\0\x04\x06\x14\x32\0KaZaA",      // no NUL
            b"\x28\0\0\0\x29\x01\x04\x06\x14\x32\0KaZaA\0",  // not zero behind the word
            b"\x29\0\0\0\x29\x03\0\0\0\xde\xad\xbe\xef",     // neither 1 nor 2
            b"\x29\0\0\0\x29\x01\x01\0\0\xde\xad\xbe\xef",   // flagged, but no address
            b"\x29\0\0\0\x29\x01\0\0\0\xde\xad\xbe\xef\0",   // an octet too many
            b"\x2a\xde\xad\xbe",                             // an octet short
            b"\x2a\xde\xad\xbe\xef\0",                       // an octet too many
        ];
        for miss in misses {
            assert_eq!(read(miss), None, "{miss:02x?}");
        }
    }

    #[test]
    fn the_kernel_hands_over_names_of_exactly_the_lengths_that_are_read() {
        for (shape, start) in [
            (&SHAPES[0], &b"\x27\0\0\0\x29\x80"[..]),
            (&SHAPES[1], b"\x28\0\0\0\x29\0\x04\x06\x14\x32\0"),
        ] {
            for len in 0..40 {
                let payload = [start, &b"a".repeat(len), b"\0"].concat();
                let is_handed_over = shape.matches(payload.len() as u16, &payload);
                assert_eq!(
                    read(&payload).is_some(),
                    is_handed_over,
                    "{} {len}",
                    shape.name
                );
            }
        }
    }

    #[test]
    fn openvpn_and_dns_that_share_a_first_octet_are_silence() {
        // P_ACK_V1, key id 0, session id, one acknowledged packet.
        let openvpn =
            b"\x28\x9a\x41\x0c\x5f\x11\x02\x77\xe0\x01\0\0\0\0\x31\x7d\x9c\xfe\x02\x45\x01\x08";
        assert_eq!(read(openvpn), None);
        assert_eq!(read(b"\x29\x02\x81\x80\0\x01\0\x01\0\0\0\0\x03"), None);
        assert_eq!(read(b"\x2a\x10\x01\0\0\x01"), None);
    }

    #[test]
    fn the_answer_is_well_formed_and_in_the_network_of_the_ping() {
        let ping = ping("fileshare");
        let reply = |reply| {
            answer(&Answer {
                ping: &ping,
                reply,
                draw: 7,
                client: client(),
            })
        };
        let pong = reply(Reply::Pong).unwrap();
        assert_eq!(read(&pong), Some(Evidence::UdpPong));
        assert!(pong.ends_with(b"fileshare\0"));
        assert_eq!(
            read(&reply(Reply::Pong2).unwrap()),
            Some(Evidence::UdpPong2)
        );
        let other = reply(Reply::Other).unwrap();
        assert!(!matches!(other[0], PING | PONG | PONG2 | PONG2_ANSWER));
        assert_eq!(&other[3..], &[10, 77, 1, 1]);
        assert_eq!(reply(Reply::None), None);
    }

    #[test]
    fn nothing_but_a_ping_is_answered() {
        let pong = b"\x28\0\0\0\x29\0\x04\x06\x14\x32\0KaZaA\0";
        let answer = answer(&Answer {
            ping: pong,
            reply: Reply::Pong,
            draw: 0,
            client: client(),
        });
        assert_eq!(answer, None);
        assert_eq!(probe(pong), None);
        assert_eq!(probe(GIFT_PING).as_deref(), Some(GIFT_PING));
    }

    proptest! {
        #[test]
        fn whatever_is_recognised_is_handed_over_by_the_kernel(
            start in prop::sample::select(vec![
                &b"\x27\0\0\0\x29\x80"[..],
                b"\x28\0\0\0\x29\0\x04\x06\x14\x32\0",
                b"\x29\0\0\0\x29\x01\0\0\0",
                b"\x29\0\0\0\x29\x02\x01\0\0",
                b"\x2a",
            ]),
            mut rest in prop::collection::vec(prop_oneof![Just(b'a'), any::<u8>()], 0..24),
            ends_in_nul: bool,
        ) {
            if ends_in_nul {
                rest.push(0);
            }
            let payload = [start, &rest].concat();
            let is_handed_over =
                SHAPES.iter().any(|shape| shape.matches(payload.len() as u16, &payload));
            prop_assert!(read(&payload).is_none() || is_handed_over);
        }

        #[test]
        fn any_bytes_are_read(payload in prop::collection::vec(any::<u8>(), 0..40)) {
            let _ = read(&payload);
        }
    }

    fn ping(name: &str) -> Vec<u8> {
        [b"\x27\0\0\0\x29\x80", name.as_bytes(), b"\0"].concat()
    }

    fn client() -> std::net::SocketAddrV4 {
        "10.77.1.1:1214".parse().unwrap()
    }
}
