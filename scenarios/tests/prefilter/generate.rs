//! Conversations as packets: what the simulator can write and what is nearly that, cut, reordered,
//! repeated and altered.

use std::net::{Ipv4Addr, SocketAddrV4};

use etherparse::{PacketBuilder, TcpOptionElement};
use proptest::collection::vec;
use proptest::prelude::*;
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use scenarios::stage::memory::gateway::Side;
use simulator::payload::SharedFile;
use simulator::profile::{HttpStyle, Opener};
use simulator::seed::Seed;
use simulator::wire::Network;
use simulator::wire::handshake::{draw_answer, draw_opener};
use simulator::wire::http::{Identity, Method, encode_give, encode_request};
use simulator::wire::udp::Datagram;

/// Hosts inside; the first is locked where a test wants one.
pub(crate) const HOSTS: [Ipv4Addr; 2] = [Ipv4Addr::new(10, 77, 1, 1), Ipv4Addr::new(10, 77, 1, 2)];
/// Addresses outside.
pub(crate) const PEERS: [Ipv4Addr; 3] = [
    Ipv4Addr::new(198, 18, 0, 1),
    Ipv4Addr::new(198, 18, 0, 2),
    Ipv4Addr::new(203, 0, 113, 1),
];
const PORTS: [u16; 7] = [1214, 80, 443, 25, 2000, 3531, 8080];

/// One packet of a conversation.
#[derive(Debug, Clone)]
pub(crate) struct Sent {
    pub(crate) from: Side,
    pub(crate) bytes: Vec<u8>,
    /// It opens the conversation.
    pub(crate) is_syn: bool,
    pub(crate) has_payload: bool,
}

/// What a conversation is about.
#[derive(Debug, Clone)]
enum Script {
    Opener(Opener),
    Session,
    Request(HttpStyle),
    Give,
    Web,
    /// A TLS ClientHello with this many octets behind its header, and its answer.
    Tls(u16),
    ServerFirst,
    Noise(Vec<u8>),
    Datagrams(Vec<Vec<u8>>),
}

/// How a conversation is told in packets.
#[derive(Debug, Clone)]
pub(crate) struct Talk {
    host: usize,
    peer: usize,
    port: usize,
    host_initiates: bool,
    has_handshake: bool,
    has_options: bool,
    script: Script,
    /// Lengths of segments, over and over.
    cuts: Vec<usize>,
    /// Segments that change places with the one behind.
    swapped: Option<usize>,
    repeated: Option<usize>,
    /// An octet of what is said first and what it becomes.
    altered: Option<(usize, u8)>,
    ends_with_reset: bool,
    seed: u64,
}

/// Any conversation.
pub(crate) fn talk() -> impl Strategy<Value = Talk> {
    let ends = (
        0..HOSTS.len(),
        0..PEERS.len(),
        0..PORTS.len(),
        prop::bool::weighted(0.8),
    );
    let form = (prop::bool::weighted(0.85), any::<bool>(), any::<bool>());
    let cuts = prop_oneof![Just(vec![1]), vec(1..40_usize, 1..4), Just(vec![1400])];
    let accidents = (
        prop::option::weighted(0.2, 0..4_usize),
        prop::option::weighted(0.2, 0..4_usize),
        prop::option::weighted(0.3, (0..24_usize, any::<u8>())),
    );
    (ends, form, script(), cuts, accidents, any::<u64>()).prop_map(
        |(ends, form, script, cuts, (swapped, repeated, altered), seed)| Talk {
            host: ends.0,
            peer: ends.1,
            port: ends.2,
            host_initiates: ends.3,
            has_handshake: form.0,
            has_options: form.1,
            ends_with_reset: form.2,
            script,
            cuts,
            swapped,
            repeated,
            altered,
            seed,
        },
    )
}

/// A request that locks the host it is made to, and another of whose first octet nothing is left.
pub(crate) fn nul_where_a_suspect_is_asked() -> [Talk; 2] {
    let request = |style| Talk {
        host: 1,
        peer: 0,
        port: 0,
        host_initiates: false,
        has_handshake: false,
        has_options: false,
        script: Script::Request(style),
        cuts: vec![1400],
        swapped: None,
        repeated: None,
        altered: None,
        ends_with_reset: false,
        seed: 0,
    };
    let altered = Talk {
        has_handshake: true,
        altered: Some((0, 0)),
        ..request(HttpStyle::OldStyle)
    };
    [request(HttpStyle::Kazaa), altered]
}

fn script() -> impl Strategy<Value = Script> {
    let style = prop_oneof![
        Just(HttpStyle::Kazaa),
        Just(HttpStyle::Gift),
        Just(HttpStyle::Mldonkey),
        Just(HttpStyle::OldStyle),
        Just(HttpStyle::Bare),
    ];
    let opener = prop_oneof![
        Just(Opener::Random),
        Just(Opener::Constant),
        Just(Opener::PlainLooking),
    ];
    prop_oneof![
        2 => opener.prop_map(Script::Opener),
        2 => Just(Script::Session),
        2 => style.prop_map(Script::Request),
        1 => Just(Script::Give),
        2 => Just(Script::Web),
        3 => (0..600_u16).prop_map(Script::Tls),
        1 => Just(Script::ServerFirst),
        1 => vec(any::<u8>(), 1..64).prop_map(Script::Noise),
        5 => vec(datagram(), 1..6).prop_map(Script::Datagrams),
    ]
}

/// FastTrack's datagrams, cut or lengthened at will, and others that begin like them.
fn datagram() -> impl Strategy<Value = Vec<u8>> {
    let network = prop_oneof![
        Just(Network::Kazaa),
        Just(Network::Fileshare),
        Just(Network::Grokster),
    ];
    let pong = (network.clone(), any::<[u8; 5]>()).prop_map(|(network, fields)| Datagram::Pong {
        half_hours: fields[0],
        unexplained: [fields[1], fields[2]],
        load_pct: fields[3],
        unexplained_last: fields[4],
        network,
    });
    let pong2 = (any::<u32>(), any::<bool>()).prop_map(|(id, asks)| Datagram::Pong2 {
        id,
        asker: asks.then_some(SocketAddrV4::new(HOSTS[0], 2301)),
    });
    let known = prop_oneof![
        3 => (any::<u8>(), network).prop_map(|(encryption, network)| Datagram::Ping { encryption, network }),
        1 => pong,
        1 => pong2,
        1 => any::<u32>().prop_map(|id| Datagram::PongAnswer { id }),
    ];
    let exact = known.prop_map(|datagram| datagram.encode());
    let near = (exact.clone(), 0..30_usize, any::<u8>()).prop_map(|(mut octets, len, filler)| {
        octets.resize(len, filler);
        octets
    });
    let begun = (0x26..0x2c_u8, vec(any::<u8>(), 0..32)).prop_map(|(kind, rest)| {
        let mut octets = vec![kind];
        octets.extend(rest);
        octets
    });
    prop_oneof![4 => exact, 2 => near, 1 => begun]
}

impl Talk {
    /// Whether no packet overtakes another.
    pub(crate) fn is_orderly(&self) -> bool {
        self.swapped.is_none()
    }

    /// The packets, in the order in which they arrive at the gateway. `number` keeps conversations
    /// apart by the initiator's port.
    pub(crate) fn packets(&self, number: usize) -> Vec<Sent> {
        let own_port = 20_000 + (number % 40_000) as u16;
        let (host, peer) = (HOSTS[self.host], PEERS[self.peer]);
        let port = PORTS[self.port];
        let (client, server) = if self.host_initiates {
            (
                SocketAddrV4::new(host, own_port),
                SocketAddrV4::new(peer, port),
            )
        } else {
            (
                SocketAddrV4::new(peer, own_port),
                SocketAddrV4::new(host, port),
            )
        };
        let mut rng = StdRng::seed_from_u64(self.seed);
        let mut turns = self.turns(&mut rng, client, server);
        if let Some((at, octet)) = self.altered
            && let Some(place) = turns.first_mut().and_then(|(_, octets)| octets.get_mut(at))
        {
            *place = octet;
        }
        let mut line = Line {
            ends: [client, server],
            next: [rng.random(), rng.random()],
            has_options: self.has_options,
            client_is_inside: self.host_initiates,
            sent: Vec::new(),
        };
        if let Script::Datagrams(_) = self.script {
            for (from_server, octets) in &turns {
                line.datagram(*from_server, octets);
            }
        } else {
            self.segments(&mut line, &turns);
        }
        self.with_accidents(line.sent)
    }

    fn segments(&self, line: &mut Line, turns: &[(bool, Vec<u8>)]) {
        if self.has_handshake {
            line.segment(false, SYN, b"");
            line.segment(true, SYN | ACK, b"");
            line.segment(false, ACK, b"");
        }
        let mut cuts = self.cuts.iter().cycle();
        for (from_server, octets) in turns {
            let mut rest = &octets[..];
            while !rest.is_empty() {
                let length = *cuts.next().expect("there is a cut at least");
                let (now, later) = rest.split_at(length.min(rest.len()));
                line.segment(*from_server, ACK, now);
                rest = later;
            }
            line.segment(!from_server, ACK, b"");
        }
        line.segment(
            false,
            if self.ends_with_reset { RST } else { FIN | ACK },
            b"",
        );
    }

    /// Nothing happens to a handshake.
    fn with_accidents(&self, mut sent: Vec<Sent>) -> Vec<Sent> {
        let first = sent
            .iter()
            .position(|packet| packet.has_payload)
            .unwrap_or(0);
        let place = |at: Option<usize>| at.map(|at| first + at).filter(|at| at + 1 < sent.len());
        let (swapped, repeated) = (place(self.swapped), place(self.repeated));
        if let Some(at) = repeated {
            sent.insert(at + 1, sent[at].clone());
        }
        if let Some(at) = swapped {
            sent.swap(at, at + 1);
        }
        sent
    }

    /// Who says what: true for the responder.
    fn turns(
        &self,
        rng: &mut StdRng,
        client: SocketAddrV4,
        server: SocketAddrV4,
    ) -> Vec<(bool, Vec<u8>)> {
        match &self.script {
            Script::Opener(kind) => vec![(false, draw_opener(*kind, rng).into())],
            Script::Session => {
                let mut answer = draw_answer(rng).to_vec();
                answer.extend(rng.random::<[u8; 20]>());
                vec![
                    (false, draw_opener(Opener::Random, rng).into()),
                    (true, answer),
                ]
            }
            Script::Request(style) => {
                let who = Identity {
                    user_name: "someone".to_owned(),
                    network: Network::Kazaa,
                    address: client,
                    supernode: server,
                };
                let file = SharedFile::of(Seed(self.seed));
                let request = encode_request(Method::Get, *style, &who, server, &file);
                let response = b"HTTP/1.1 206 Partial Content\r\nX-Kazaa-Network: KaZaA\r\n\r\n";
                vec![(false, request), (true, response.to_vec())]
            }
            Script::Give => vec![(false, encode_give(rng.random()))],
            Script::Web => vec![
                (
                    false,
                    b"GET /index.html HTTP/1.1\r\nHost: example.org\r\n\r\n".to_vec(),
                ),
                (
                    true,
                    b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nyes".to_vec(),
                ),
            ],
            Script::Tls(length) => vec![
                (false, client_hello(*length, rng)),
                (true, [&[0x16, 3, 3, 0, 90, 2][..], &[0x5a; 89]].concat()),
                (false, [&[0x17, 3, 3, 0, 40][..], &[0xa5; 40]].concat()),
            ],
            Script::ServerFirst => vec![
                (true, b"220 mail.example.org ESMTP\r\n".to_vec()),
                (false, b"EHLO client\r\n".to_vec()),
            ],
            Script::Noise(octets) => vec![(false, octets.clone()), (true, octets.clone())],
            Script::Datagrams(datagrams) => {
                let turns = datagrams
                    .iter()
                    .map(|octets| (rng.random(), octets.clone()));
                turns.collect()
            }
        }
    }
}

/// A record of handshake with a ClientHello of `length` octets in it.
fn client_hello(length: u16, rng: &mut StdRng) -> Vec<u8> {
    let [high, low] = length.to_be_bytes();
    let [record_high, record_low] = (length + 4).to_be_bytes();
    let mut hello = vec![0x16, 3, 1, record_high, record_low, 1, 0, high, low, 3, 3];
    let mut drawn = vec![0; usize::from(length).saturating_sub(2)];
    rng.fill(&mut drawn[..]);
    hello.extend(drawn);
    hello
}

const FIN: u8 = 0x01;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const ACK: u8 = 0x10;

/// The two ends of a conversation while it is written down.
struct Line {
    /// Initiator, responder.
    ends: [SocketAddrV4; 2],
    /// The next sequence number of each.
    next: [u32; 2],
    has_options: bool,
    client_is_inside: bool,
    sent: Vec<Sent>,
}

impl Line {
    fn segment(&mut self, from_server: bool, flags: u8, payload: &[u8]) {
        let [own, other] = if from_server { [1, 0] } else { [0, 1] };
        let (from, to) = (self.ends[own], self.ends[other]);
        let mut builder = PacketBuilder::ipv4(from.ip().octets(), to.ip().octets(), 64).tcp(
            from.port(),
            to.port(),
            self.next[own],
            60_000,
        );
        if flags & SYN != 0 {
            builder = builder.syn();
        }
        if flags & ACK != 0 {
            builder = builder.ack(self.next[other]);
        }
        if flags & FIN != 0 {
            builder = builder.fin();
        }
        if flags & RST != 0 {
            builder = builder.rst();
        }
        if self.has_options {
            let timestamp = TcpOptionElement::Timestamp(1, 2);
            let options = [TcpOptionElement::Noop, TcpOptionElement::Noop, timestamp];
            builder = builder.options(&options).expect("they fit");
        }
        let mut bytes = Vec::new();
        builder.write(&mut bytes, payload).expect("memory takes it");
        let counted = payload.len() as u32 + u32::from(flags & (SYN | FIN) != 0);
        self.next[own] = self.next[own].wrapping_add(counted);
        self.push(from_server, flags & (SYN | ACK) == SYN, payload, bytes);
    }

    fn datagram(&mut self, from_server: bool, payload: &[u8]) {
        let [own, other] = if from_server { [1, 0] } else { [0, 1] };
        let (from, to) = (self.ends[own], self.ends[other]);
        let builder = PacketBuilder::ipv4(from.ip().octets(), to.ip().octets(), 64)
            .udp(from.port(), to.port());
        let mut bytes = Vec::new();
        builder.write(&mut bytes, payload).expect("memory takes it");
        self.push(from_server, false, payload, bytes);
    }

    fn push(&mut self, from_server: bool, is_syn: bool, payload: &[u8], bytes: Vec<u8>) {
        let is_inside = self.client_is_inside != from_server;
        self.sent.push(Sent {
            from: if is_inside {
                Side::Inside
            } else {
                Side::Outside
            },
            bytes,
            is_syn,
            has_payload: !payload.is_empty(),
        });
    }
}
