//! The kinds of packets: one line in the list for each, and what leads up to it.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddrV4};

use ftwall::Conntrack;

use crate::packets::{ACK, SYN, ipv6, tcp, udp};
use crate::state::{Arrival, Site};

/// One kind of packet.
pub(crate) struct Kind {
    name: &'static str,
    /// Action and reason of its verdict.
    expected: (&'static str, &'static str),
    /// Does what has to come first, and makes the packet.
    make: fn(&mut Site) -> Arrival,
}

#[rustfmt::skip]
pub(crate) const KINDS: &[Kind] = &[
    Kind::new("udp_benign", ("pass", "unknown_datagram"), |site| benign_datagram(site, 27_015, &[0x51; 64])),
    Kind::new("udp_dns", ("pass", "unknown_datagram"), |site| benign_datagram(site, 53, DNS_QUERY)),
    Kind::new("tcp_syn", ("pass", "no_payload"), |site| Flow::new(site, 80).syn()),
    Kind::new("http_request", ("pass", "undecided"), |site| Flow::new(site, 80).client(WEB_REQUEST)),
    Kind::new("http_answer", ("clear", "http"), http_answer),
    Kind::new("http_proven_server", ("clear", "http_proven_server"), http_proven_server),
    Kind::new("tls_hello", ("clear", "tls_client_hello"), |site| Flow::new(site, 443).client(TLS_HELLO)),
    Kind::new("cleared_later", ("clear", "tls_client_hello"), cleared_later),
    Kind::new("binary_first", ("pass", "undecided"), |site| Flow::new(site, 5222).client(&[0, 1, 0xfe, 0xff, 9, 9])),
    Kind::new("ping_first_sight", ("drop", "ping"), ping_first_sight),
    Kind::new("ping_new_peer", ("drop", "ping"), ping_new_peer),
    Kind::new("ping_repeated", ("drop", "ping"), |site| to_peer(site, PEER, PING)),
    Kind::new("pong", ("drop", "pong"), pong),
    Kind::new("locked_dial", ("drop", "locked_dial"), locked_dial),
    Kind::new("opener_constant", ("drop", "constant_opener"), |site| Flow::new(site, 2001).client(&CONSTANT_OPENER)),
    Kind::new("hash_request", ("drop", "transfer_request"), |site| Flow::new(site, 2001).client(HASH_REQUEST)),
    Kind::new("ipv6", ("pass", "ipv6"), |_| Arrival { bytes: ipv6(), conntrack: None }),
    Kind::new("malformed", ("pass", "malformed"), malformed),
    Kind::new("not_crossing", ("pass", "not_crossing"), not_crossing),
];

impl Kind {
    const fn new(
        name: &'static str,
        expected: (&'static str, &'static str),
        make: fn(&mut Site) -> Arrival,
    ) -> Self {
        Self {
            name,
            expected,
            make,
        }
    }

    pub(crate) fn next(&self, site: &mut Site) -> Arrival {
        (self.make)(site)
    }

    /// What the engine does with such a packet that is not expected of it: the first of them, or the
    /// second.
    pub(crate) fn surprise(&self) -> Option<String> {
        let mut site = Site::empty();
        (0..2).find_map(|_| {
            let packet = self.next(&mut site);
            let verdict = site.judge(&packet);
            let judged = (verdict.action(), verdict.reason());
            (judged != self.expected).then(|| {
                let expected = self.expected;
                format!("{}: {judged:?} instead of {expected:?}", self.name)
            })
        })
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

/// A TCP connection of a clean host's that nobody has seen before.
struct Flow {
    client: SocketAddrV4,
    server: SocketAddrV4,
}

impl Flow {
    fn new(site: &mut Site, port: u16) -> Self {
        Self::to(site, SocketAddrV4::new(SERVER, port))
    }

    fn to(site: &mut Site, server: SocketAddrV4) -> Self {
        Self {
            client: fresh_host(site),
            server,
        }
    }

    fn syn(&self) -> Arrival {
        let bytes = tcp(self.client, self.server, (999, 0), SYN, &[]);
        tracked(bytes, false)
    }

    fn client(&self, payload: &[u8]) -> Arrival {
        let bytes = tcp(self.client, self.server, (1000, 5000), ACK, payload);
        tracked(bytes, false)
    }

    /// The server's answer to what the client has said.
    fn server(&self, heard: &[u8], payload: &[u8]) -> Arrival {
        let heard = u32::try_from(heard.len()).expect("it went into a packet");
        let bytes = tcp(self.server, self.client, (5000, 1000 + heard), ACK, payload);
        tracked(bytes, true)
    }
}

/// The first answer of a server that nobody knows yet.
fn http_answer(site: &mut Site) -> Arrival {
    let server = fresh_server(site);
    answer_of(site, server)
}

/// A request to a server that has answered before: nothing more is waited for.
fn http_proven_server(site: &mut Site) -> Arrival {
    let server = fresh_server(site);
    let answer = answer_of(site, server);
    site.judge(&answer);
    Flow::to(site, server).client(WEB_REQUEST)
}

fn answer_of(site: &mut Site, server: SocketAddrV4) -> Arrival {
    let flow = Flow::to(site, server);
    site.judge(&flow.client(WEB_REQUEST));
    flow.server(WEB_REQUEST, WEB_ANSWER)
}

/// A segment that was queued before the kernel knew that its connection was cleared.
fn cleared_later(site: &mut Site) -> Arrival {
    let flow = Flow::new(site, 443);
    site.judge(&flow.client(TLS_HELLO));
    flow.server(TLS_HELLO, TLS_HELLO)
}

fn ping_first_sight(site: &mut Site) -> Arrival {
    let (client, peer) = (fresh_host(site), fresh_peer(site));
    datagram(client, peer, PING)
}

fn ping_new_peer(site: &mut Site) -> Arrival {
    let peer = fresh_peer(site);
    to_peer(site, peer, PING)
}

fn pong(site: &mut Site) -> Arrival {
    let ping = to_peer(site, PEER, PING);
    site.judge(&ping);
    let bytes = udp(PEER, SUSPECT, PONG);
    tracked(bytes, true)
}

fn locked_dial(site: &mut Site) -> Arrival {
    let ping = to_peer(site, PEER, PING);
    site.judge(&ping);
    let stranger = SocketAddrV4::new(*fresh_peer(site).ip(), 3000);
    tracked(tcp(SUSPECT, stranger, (999, 0), SYN, &[]), false)
}

fn benign_datagram(site: &mut Site, port: u16, payload: &[u8]) -> Arrival {
    let client = fresh_host(site);
    datagram(client, SocketAddrV4::new(SERVER, port), payload)
}

/// The header of a TCP segment says that it is longer than the segment.
fn malformed(site: &mut Site) -> Arrival {
    let mut arrival = Flow::new(site, 80).client(&[]);
    arrival.bytes[32] = 0xf0;
    arrival
}

fn not_crossing(site: &mut Site) -> Arrival {
    let client = fresh_host(site);
    datagram(client, SUSPECT, &[0x51; 64])
}

fn to_peer(_: &mut Site, peer: SocketAddrV4, payload: &[u8]) -> Arrival {
    datagram(SUSPECT, peer, payload)
}

fn datagram(from: SocketAddrV4, to: SocketAddrV4, payload: &[u8]) -> Arrival {
    tracked(udp(from, to, payload), false)
}

fn tracked(bytes: Vec<u8>, reply: bool) -> Arrival {
    let from_start = true;
    let conntrack = Some(Conntrack { reply, from_start });
    Arrival { bytes, conntrack }
}

/// An inside host that nothing is known about.
fn fresh_host(site: &mut Site) -> SocketAddrV4 {
    let address = Ipv4Addr::from_bits(CLEAN.to_bits() + site.draw());
    SocketAddrV4::new(address, 40_000)
}

fn fresh_server(site: &mut Site) -> SocketAddrV4 {
    SocketAddrV4::new(*fresh_peer(site).ip(), 80)
}

fn fresh_peer(site: &mut Site) -> SocketAddrV4 {
    let address = Ipv4Addr::from_bits(Ipv4Addr::new(80, 0, 0, 0).to_bits() + site.draw());
    SocketAddrV4::new(address, 1214)
}

/// First of the hosts that no full engine has locked.
const CLEAN: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 0);
const SUSPECT: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(10, 255, 0, 1), 2301);
const PEER: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(198, 18, 0, 1), 1214);
const SERVER: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 80);

/// giFT's ping.
const PING: &[u8] = b"\x27\0\0\0\x29\x80KaZaA\0";
const PONG: &[u8] = b"\x28\0\0\0\x29\0\x04\x06\x14\x32\0KaZaA\0";
/// What giFT and mldonkey always open a session with.
const CONSTANT_OPENER: [u8; 12] = [
    0xfa, 0x00, 0xb6, 0x2b, 0xfa, 0xcb, 0x12, 0x38, 0x32, 0x09, 0xd2, 0x32,
];
/// giFT's file request.
const HASH_REQUEST: &[u8] = b"GET /.hash=0123456789abcdef0123456789abcdef01234567 HTTP/1.1\r\n\
Host: 198.18.0.5:2001\r\nUserAgent: giFT\r\nX-Kazaa-Network: KaZaA\r\n\r\n";
const WEB_REQUEST: &[u8] = b"GET /index.html HTTP/1.1\r\nHost: example.org\r\n\
User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0\r\n\
Accept: text/html,application/xhtml+xml\r\nAccept-Language: en\r\nConnection: keep-alive\r\n\r\n";
const WEB_ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nServer: nginx\r\nContent-Type: text/html\r\n\
Content-Length: 5\r\nConnection: keep-alive\r\n\r\nhello";
/// A ClientHello of 508 octets, as far as it is looked at.
const TLS_HELLO: &[u8] = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\x9a\x11\x7c";
/// A query for the address of example.org.
const DNS_QUERY: &[u8] = b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0\x07example\x03org\0\0\x01\0\x01";
