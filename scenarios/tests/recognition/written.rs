//! Everything the simulator can write, by kind.

use std::net::SocketAddrV4;

use simulator::payload::SharedFile;
use simulator::profile::{HttpStyle, Opener};
use simulator::seed::Seed;
use simulator::wire::handshake::{draw_answer, draw_opener};
use simulator::wire::http::{
    Identity, Method, Status, encode_give, encode_request, encode_response,
};
use simulator::wire::session::{LIST_ENTRIES, Message, NodeEntry};
use simulator::wire::udp::Datagram;
use simulator::wire::{Network, handshake};

use crate::site::{HOST, PEER, end};

/// A supernode that heads name.
pub(crate) const SUPERNODE: &str = "198.18.200.9:1500";

/// The kinds of datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DatagramKind {
    Ping,
    Pong,
    Pong2,
    PongAnswer,
}

/// Every datagram, of every network.
pub(crate) fn datagrams() -> Vec<(DatagramKind, Vec<u8>)> {
    let asker = Some(end(HOST, 1214));
    let mut written = vec![
        (
            DatagramKind::Pong2,
            Datagram::Pong2 {
                id: 0xdead_beef,
                asker: None,
            }
            .encode(),
        ),
        (
            DatagramKind::Pong2,
            Datagram::Pong2 {
                id: 0xdead_beef,
                asker,
            }
            .encode(),
        ),
        (
            DatagramKind::PongAnswer,
            Datagram::PongAnswer { id: 0xdead_beef }.encode(),
        ),
    ];
    for network in Network::ALL {
        for encryption in [0x29, 0xa9] {
            let ping = Datagram::Ping {
                encryption,
                network,
            };
            written.push((DatagramKind::Ping, ping.encode()));
        }
        for (unexplained, load_pct) in [([0x3c, 0x13], 7), ([0x06, 0x14], 50), ([0x80, 0x0e], 100)]
        {
            let pong = Datagram::Pong {
                half_hours: 4,
                unexplained,
                load_pct,
                unexplained_last: 0,
                network,
            };
            written.push((DatagramKind::Pong, pong.encode()));
        }
    }
    written
}

/// What both open clients open with.
pub(crate) const CONSTANT_OPENER: [u8; 12] = handshake::CONSTANT_OPENER;

/// Random openers.
pub(crate) fn openers(kind: Opener, count: u64) -> impl Iterator<Item = [u8; 12]> {
    (0..count).map(move |number| draw_opener(kind, &mut Seed(7).derive("opener", number).rng()))
}

/// Answers to an opener: alone, and with the name of each network behind it.
pub(crate) fn answers() -> Vec<Vec<u8>> {
    let mut rng = Seed(8).rng();
    let names = Network::ALL.map(Network::name_len);
    let lengths = [0].into_iter().chain(names);
    lengths
        .map(|name_len| {
            // The name is encrypted: any octets look like it.
            let [answer, name] = [(); 2].map(|()| draw_answer(&mut rng));
            answer
                .into_iter()
                .chain(name.into_iter().cycle().take(name_len))
                .collect()
        })
        .collect()
}

/// Requests for a file that name its hash, in each style, and the odd one that is answered 501.
pub(crate) fn hash_requests(peer: SocketAddrV4) -> Vec<Vec<u8>> {
    let styles = [
        HttpStyle::Kazaa,
        HttpStyle::Gift,
        HttpStyle::Mldonkey,
        HttpStyle::Bare,
    ];
    let request = |method, style| encode_request(method, style, &identity(), peer, &file());
    let odd = request(Method::Head, HttpStyle::Kazaa);
    let gets = styles.map(|style| request(Method::Get, style));
    gets.into_iter().chain([odd]).collect()
}

/// The older request, by number and name, with every field of the family.
pub(crate) fn numbered_request(peer: SocketAddrV4) -> Vec<u8> {
    encode_request(Method::Get, HttpStyle::OldStyle, &identity(), peer, &file())
}

/// Every answer of an uploader.
pub(crate) fn responses() -> Vec<Vec<u8>> {
    [
        Status::PartialContent,
        Status::NotFound,
        Status::Busy,
        Status::NotImplemented,
    ]
    .map(|status| encode_response(status, &identity(), &file()))
    .to_vec()
}

/// Calls of a file's owner, with short and long numbers.
pub(crate) fn gives() -> Vec<Vec<u8>> {
    [1, 42, 1_234_567, u32::MAX].map(encode_give).to_vec()
}

/// What is said inside a session, as far as an outsider can tell: sizes.
pub(crate) fn session_messages() -> Vec<Vec<u8>> {
    let entry = NodeEntry {
        address: end(PEER, 1214),
        minutes: 0,
        load_pct: 50,
    };
    let messages = [
        Message::KeepAlive,
        Message::KeepAliveAnswer,
        Message::UserInfo {
            address: end(HOST, 1214),
            name: "someone".to_owned(),
        },
        Message::NodeList(vec![entry; LIST_ENTRIES]),
        Message::Stats { users: 3_000_000 },
    ];
    let mut key = 0x5a_u8;
    let mut encrypt = |byte: u8| {
        key = key.wrapping_mul(167).wrapping_add(13);
        byte ^ key
    };
    messages
        .iter()
        .map(|message| message.encode().into_iter().map(&mut encrypt).collect())
        .collect()
}

fn identity() -> Identity {
    Identity {
        user_name: "someone".to_owned(),
        network: Network::Kazaa,
        address: end(PEER, 2345),
        supernode: SUPERNODE.parse().expect("an address and a port"),
    }
}

fn file() -> SharedFile {
    SharedFile::of(Seed(1))
}
