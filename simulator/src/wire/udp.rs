//! Datagrams: pings and the three kinds of answer (PROTO). Byte 0 is the type; integers are
//! big-endian; names end in one NUL.

use std::net::{Ipv4Addr, SocketAddrV4};

use super::Network;
use crate::report::Part;

const PING: u8 = 0x27;
const PONG: u8 = 0x28;
const PONG2: u8 = 0x29;
const PONG_ANSWER: u8 = 0x2a;

/// Stands before the name in a ping.
const PING_NAME_MARK: u8 = 0x80;

/// One FastTrack datagram.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Datagram {
    /// 0x27: "are you a supernode?", 7 octets and the name.
    Ping {
        /// Last byte of the encryption word: 0x29 from giFT, 0xa9 from mldonkey.
        encryption: u8,
        /// Whose network.
        network: Network,
    },
    /// 0x28: "I am a supernode with room", 12 octets and the name.
    Pong {
        /// Counts half hours, nearly equal across a network.
        half_hours: u8,
        /// Two octets nobody explains.
        unexplained: [u8; 2],
        /// Load in percent.
        load_pct: u8,
        /// One more octet nobody explains.
        unexplained_last: u8,
        /// Whose network.
        network: Network,
    },
    /// 0x29: "here, but without room", 13 octets, or 21 with the asker's address.
    Pong2 {
        /// To be repeated in a 0x2a.
        id: u32,
        /// The asker's address as seen by the answerer, where it wants a 0x2a.
        asker: Option<SocketAddrV4>,
    },
    /// 0x2a: answer to a 0x29 that carried the asker's address, 5 octets.
    PongAnswer {
        /// From that 0x29.
        id: u32,
    },
}

impl Datagram {
    /// The octets.
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Self::Ping {
                encryption,
                network,
            } => {
                let mut bytes = vec![PING, 0, 0, 0, *encryption, PING_NAME_MARK];
                push_name(&mut bytes, *network);
                bytes
            }
            Self::Pong {
                half_hours,
                unexplained,
                load_pct,
                unexplained_last,
                network,
            } => {
                let mut bytes = vec![PONG, 0, 0, 0, 0x29, 0, *half_hours];
                bytes.extend(unexplained);
                bytes.extend([*load_pct, *unexplained_last]);
                push_name(&mut bytes, *network);
                bytes
            }
            Self::Pong2 { id, asker } => encode_pong2(*id, *asker),
            Self::PongAnswer { id } => [&[PONG_ANSWER], &id.to_be_bytes()[..]].concat(),
        }
    }

    /// Reads a datagram of exactly the right shape; anything else is `None`.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        match *bytes {
            [PING, 0, 0, 0, encryption, PING_NAME_MARK, ref name @ ..] => Some(Self::Ping {
                encryption,
                network: parse_name(name)?,
            }),
            [
                PONG,
                0,
                0,
                0,
                _,
                0,
                half_hours,
                a,
                b,
                load_pct,
                unexplained_last,
                ref name @ ..,
            ] => {
                let network = parse_name(name)?;
                Some(Self::Pong {
                    half_hours,
                    unexplained: [a, b],
                    load_pct,
                    unexplained_last,
                    network,
                })
            }
            [PONG2, 0, 0, 0, _, _, flag, 0, 0, a, b, c, d, ref rest @ ..] => {
                let id = u32::from_be_bytes([a, b, c, d]);
                Some(Self::Pong2 {
                    id,
                    asker: parse_asker(flag, rest)?,
                })
            }
            [PONG_ANSWER, a, b, c, d] => Some(Self::PongAnswer {
                id: u32::from_be_bytes([a, b, c, d]),
            }),
            _ => None,
        }
    }

    /// Its name in reports.
    pub fn part(&self) -> Part {
        match self {
            Self::Ping { .. } => Part::Ping,
            Self::Pong { .. } => Part::Pong,
            Self::Pong2 { .. } => Part::Pong2,
            Self::PongAnswer { .. } => Part::PongAnswer,
        }
    }
}

/// What a datagram is called in reports, whatever its shape.
pub fn part_of(bytes: &[u8]) -> Part {
    Datagram::parse(bytes).map_or(Part::Other, |datagram| datagram.part())
}

fn push_name(bytes: &mut Vec<u8>, network: Network) {
    bytes.extend_from_slice(network.name().as_bytes());
    bytes.push(0);
}

fn parse_name(bytes: &[u8]) -> Option<Network> {
    let (&0, name) = bytes.split_last()? else {
        return None;
    };
    Network::from_name(name)
}

fn encode_pong2(id: u32, asker: Option<SocketAddrV4>) -> Vec<u8> {
    let mut bytes = vec![PONG2, 0, 0, 0, 0x29, 0x01, u8::from(asker.is_some()), 0, 0];
    bytes.extend(id.to_be_bytes());
    if let Some(asker) = asker {
        bytes.extend(asker.ip().octets());
        bytes.extend(asker.port().to_be_bytes());
        bytes.extend([0, 0]);
    }
    bytes
}

/// The outer `None` means a wrong shape, the inner one a 0x29 without an address.
fn parse_asker(flag: u8, rest: &[u8]) -> Option<Option<SocketAddrV4>> {
    match (flag, rest) {
        (0, []) => Some(None),
        (1, &[a, b, c, d, high, low, _, _]) => {
            let ip = Ipv4Addr::new(a, b, c, d);
            Some(Some(SocketAddrV4::new(ip, u16::from_be_bytes([high, low]))))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Observed from giFT 0.8.9 (PROTO).
    const GIFT_PING: [u8; 12] = [
        0x27, // type
        0x00, 0x00, 0x00, 0x29, // encryption word
        0x80, // before the name
        b'K', b'a', b'Z', b'a', b'A', 0x00, // network name
    ];

    /// Accepted by giFT and mldonkey.
    const PONG_BOTH_ACCEPT: [u8; 17] = [
        0x28, // type
        0x00, 0x00, 0x00, 0x29, // encryption word
        0x00, // always
        0x04, // half hours
        0x06, 0x14, // unexplained
        0x32, // load, 50 %
        0x00, // unexplained
        b'K', b'a', b'Z', b'a', b'A', 0x00, // network name
    ];

    #[test]
    fn the_ping_of_gift_is_written_byte_for_byte() {
        let ping = Datagram::Ping {
            encryption: 0x29,
            network: Network::Kazaa,
        };
        assert_eq!(ping.encode(), GIFT_PING);
        assert_eq!(Datagram::parse(&GIFT_PING), Some(ping));
    }

    #[test]
    fn the_ping_of_mldonkey_differs_in_the_encryption_word_only() {
        let ping = Datagram::Ping {
            encryption: 0xa9,
            network: Network::Kazaa,
        }
        .encode();
        let differing: Vec<usize> = (0..ping.len())
            .filter(|place| ping[*place] != GIFT_PING[*place])
            .collect();
        assert_eq!(differing, [4]);
    }

    #[test]
    fn the_pong_that_both_open_clients_accept_is_written_byte_for_byte() {
        let pong = Datagram::Pong {
            half_hours: 4,
            unexplained: [0x06, 0x14],
            load_pct: 50,
            unexplained_last: 0,
            network: Network::Kazaa,
        };
        assert_eq!(pong.encode(), PONG_BOTH_ACCEPT);
        assert_eq!(Datagram::parse(&PONG_BOTH_ACCEPT), Some(pong));
    }

    #[test]
    fn lengths_are_those_of_every_network() {
        let ping = |network| {
            Datagram::Ping {
                encryption: 0x29,
                network,
            }
            .encode()
            .len()
        };
        let pong = |network| {
            let [half_hours, load_pct, unexplained_last] = [0; 3];
            let unexplained = [0; 2];
            Datagram::Pong {
                half_hours,
                unexplained,
                load_pct,
                unexplained_last,
                network,
            }
            .encode()
            .len()
        };
        assert_eq!(Network::ALL.map(ping), [12, 16, 15]);
        assert_eq!(Network::ALL.map(pong), [17, 21, 20]);
    }

    #[test]
    fn the_second_pong_is_13_octets_or_21_with_the_askers_address_and_its_answer_5() {
        let asker = Some("10.77.1.1:2345".parse().unwrap());
        let short = Datagram::Pong2 { id: 7, asker: None };
        let long = Datagram::Pong2 { id: 7, asker };
        let answer = Datagram::PongAnswer { id: 7 };
        assert_eq!(
            [&short, &long, &answer].map(|one| one.encode().len()),
            [13, 21, 5]
        );
        for one in [short, long, answer] {
            assert_eq!(Datagram::parse(&one.encode()), Some(one));
        }
    }

    #[test]
    fn a_datagram_with_one_octet_too_many_or_too_few_is_none_of_these() {
        assert_eq!(Datagram::parse(&GIFT_PING[..11]), None);
        assert_eq!(Datagram::parse(&[&GIFT_PING[..], &[0]].concat()), None);
        assert_eq!(part_of(&[0x28, 0x01]), Part::Other);
        assert_eq!(part_of(&[]), Part::Other);
    }
}
