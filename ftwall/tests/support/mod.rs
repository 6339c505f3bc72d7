//! Hosts that talk to each other across an engine, in virtual time, with packets written by hand.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use ftwall::{Action, Conntrack, Engine, EngineConfig, Event, Ingress, Link, Timestamp, Verdict};
use proptest::test_runner::{Config, FileFailurePersistence};

/// How properties are tried: the usual way, with failures kept beside the test. A test has no `lib.rs`
/// above it, which is where proptest would look for a place.
pub(crate) fn cases() -> Config {
    let failures = FileFailurePersistence::WithSource("regressions");
    Config {
        failure_persistence: Some(Box::new(failures)),
        ..Config::default()
    }
}

/// An engine on a gateway whose clock the test turns.
pub(crate) struct Gateway {
    pub(crate) engine: Engine,
    pub(crate) now: Timestamp,
    pub(crate) actions: Vec<Action>,
    /// When each of the actions was asked for.
    pub(crate) action_times: Vec<Timestamp>,
    pub(crate) events: Vec<Event>,
    /// The way that packets take, as a kernel would say it.
    pub(crate) link: Option<Link>,
}

impl Gateway {
    pub(crate) fn new(config: EngineConfig) -> Self {
        let engine = Engine::new(config, 7);
        let now = Timestamp::from_secs(1_000_000);
        Self {
            engine,
            now,
            actions: Vec::new(),
            action_times: Vec::new(),
            events: Vec::new(),
            link: None,
        }
    }

    /// Lets time pass; timeouts happen when they are due.
    pub(crate) fn wait(&mut self, duration: Duration) {
        let end = self.now + duration;
        while let Some(due) = self.engine.poll_timeout().filter(|due| *due <= end) {
            self.now = self.now.max(due);
            self.engine.handle_timeout(self.now);
            self.drain();
            let next = self.engine.poll_timeout();
            assert!(next.is_none_or(|next| next > self.now), "nothing stays due");
        }
        self.now = end;
    }

    pub(crate) fn send(&mut self, bytes: &[u8], conntrack: Option<Conntrack>) -> Verdict {
        self.wait(Duration::from_millis(1));
        let verdict = self.engine.handle_packet(
            self.now,
            Ingress {
                bytes,
                conntrack,
                link: self.link,
            },
        );
        self.drain();
        verdict
    }

    pub(crate) fn datagram(&mut self, from: &str, to: &str, payload: &[u8]) -> Verdict {
        self.send(&udp(end(from), end(to), payload), None)
    }

    pub(crate) fn is_locked(&self, host: &str) -> bool {
        let host: Ipv4Addr = host.parse().expect("an address");
        let last = self.actions.iter().rev().find_map(|action| match action {
            Action::LockHost { host: locked, .. } if *locked == host => Some(true),
            Action::ReleaseHost { host: released } if *released == host => Some(false),
            _ => None,
        });
        last.unwrap_or(false)
    }

    pub(crate) fn learned(&self) -> Vec<SocketAddrV4> {
        let peers = self.actions.iter().filter_map(|action| match action {
            Action::LearnPeer { peer, .. } => Some(*peer),
            _ => None,
        });
        peers.collect()
    }

    /// How many pings were answered.
    pub(crate) fn answers(&self) -> usize {
        let is_answer = |action: &&Action| matches!(action, Action::Answer { .. });
        self.actions.iter().filter(is_answer).count()
    }

    pub(crate) fn drain(&mut self) {
        while let Some(action) = self.engine.poll_action() {
            self.actions.push(action);
            self.action_times.push(self.now);
        }
        self.events
            .extend(std::iter::from_fn(|| self.engine.poll_event()));
    }
}

/// One TCP connection across a gateway. Each side's sequence numbers advance with what it sends,
/// whether or not the gateway lets it through.
#[derive(Clone)]
pub(crate) struct Connection {
    client: SocketAddrV4,
    server: SocketAddrV4,
    client_next: u32,
    server_next: u32,
    /// What the kernel would say: nothing (a capture), or whether it saw the SYN.
    pub(crate) from_start: Option<bool>,
}

impl Connection {
    /// A connection whose handshake the engine sees, as in a capture.
    pub(crate) fn open(gateway: &mut Gateway, client: &str, server: &str) -> Self {
        let mut connection = Self::established(client, server, None);
        assert!(!connection.dial(gateway).is_drop(), "the dial passes");
        connection.accept(gateway);
        connection
    }

    /// A connection that is up, of which the kernel knows this much.
    pub(crate) fn established(client: &str, server: &str, from_start: Option<bool>) -> Self {
        let (client_next, server_next) = (u32::MAX - 4, 9_000_000);
        Self {
            client: end(client),
            server: end(server),
            client_next,
            server_next,
            from_start,
        }
    }

    /// The client's SYN.
    pub(crate) fn dial(&mut self, gateway: &mut Gateway) -> Verdict {
        let syn = tcp(
            self.client,
            self.server,
            self.client_next.wrapping_sub(1),
            None,
            SYN,
            &[],
        );
        gateway.send(&syn, self.conntrack(false))
    }

    /// The server's answer to it.
    pub(crate) fn accept(&mut self, gateway: &mut Gateway) -> Verdict {
        let sequence = self.server_next.wrapping_sub(1);
        let answer = tcp(
            self.server,
            self.client,
            sequence,
            Some(self.client_next),
            SYN,
            &[],
        );
        gateway.send(&answer, self.conntrack(true))
    }

    /// Goes on so many sequence numbers further, as a later connection between the same ends does.
    pub(crate) fn restart(&mut self, client_further: u32, server_further: u32) {
        self.client_next = self.client_next.wrapping_add(client_further);
        self.server_next = self.server_next.wrapping_add(server_further);
    }

    pub(crate) fn client_says(&mut self, gateway: &mut Gateway, payload: &[u8]) -> Verdict {
        let verdict = self.client_repeats(gateway, 0, payload);
        self.client_next = self.client_next.wrapping_add(payload.len() as u32);
        verdict
    }

    pub(crate) fn server_says(&mut self, gateway: &mut Gateway, payload: &[u8]) -> Verdict {
        let verdict = self.server_repeats(gateway, 0, payload);
        self.server_next = self.server_next.wrapping_add(payload.len() as u32);
        verdict
    }

    /// The client sends octets that began `back` octets ago.
    pub(crate) fn client_repeats(
        &self,
        gateway: &mut Gateway,
        back: u32,
        payload: &[u8],
    ) -> Verdict {
        let sequence = self.client_next.wrapping_sub(back);
        let packet = tcp(
            self.client,
            self.server,
            sequence,
            Some(self.server_next),
            0,
            payload,
        );
        gateway.send(&packet, self.conntrack(false))
    }

    /// The server sends octets that began `back` octets ago.
    pub(crate) fn server_repeats(
        &self,
        gateway: &mut Gateway,
        back: u32,
        payload: &[u8],
    ) -> Verdict {
        let sequence = self.server_next.wrapping_sub(back);
        let packet = tcp(
            self.server,
            self.client,
            sequence,
            Some(self.client_next),
            0,
            payload,
        );
        gateway.send(&packet, self.conntrack(true))
    }

    /// The client says something in pieces; the verdict of each.
    pub(crate) fn client_says_cut(
        &mut self,
        gateway: &mut Gateway,
        payload: &[u8],
        piece: usize,
    ) -> Vec<Verdict> {
        payload
            .chunks(piece)
            .map(|piece| self.client_says(gateway, piece))
            .collect()
    }

    fn conntrack(&self, reply: bool) -> Option<Conntrack> {
        self.from_start
            .map(|from_start| Conntrack { reply, from_start })
    }
}

pub(crate) fn end(text: &str) -> SocketAddrV4 {
    text.parse().expect("an address and a port")
}

const SYN: u8 = 0x02;
const ACK: u8 = 0x10;

pub(crate) fn tcp(
    from: SocketAddrV4,
    to: SocketAddrV4,
    sequence: u32,
    acknowledgement: Option<u32>,
    flags: u8,
    payload: &[u8],
) -> Vec<u8> {
    let flags = flags | acknowledgement.map_or(0, |_| ACK);
    let mut segment = ports(from, to);
    segment.extend(sequence.to_be_bytes());
    segment.extend(acknowledgement.unwrap_or(0).to_be_bytes());
    // Header of five words, flags, window, checksum (not looked at), urgent pointer.
    segment.extend([0x50, flags, 0xfa, 0xf0, 0, 0, 0, 0]);
    segment.extend(payload);
    ipv4(from, to, 6, &segment)
}

pub(crate) fn udp(from: SocketAddrV4, to: SocketAddrV4, payload: &[u8]) -> Vec<u8> {
    let mut datagram = ports(from, to);
    datagram.extend((8 + payload.len() as u16).to_be_bytes());
    datagram.extend([0, 0]);
    datagram.extend(payload);
    ipv4(from, to, 17, &datagram)
}

fn ports(from: SocketAddrV4, to: SocketAddrV4) -> Vec<u8> {
    [from.port().to_be_bytes(), to.port().to_be_bytes()].concat()
}

fn ipv4(from: SocketAddrV4, to: SocketAddrV4, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let len = (20 + payload.len() as u16).to_be_bytes();
    let mut packet = vec![0x45, 0, len[0], len[1], 0, 0, 0x40, 0, 64, protocol, 0, 0];
    packet.extend(from.ip().octets());
    packet.extend(to.ip().octets());
    packet.extend(payload);
    packet
}

/// What giFT and mldonkey always open a session with.
pub(crate) const CONSTANT_OPENER: [u8; 12] = [
    0xfa, 0x00, 0xb6, 0x2b, 0xfa, 0xcb, 0x12, 0x38, 0x32, 0x09, 0xd2, 0x32,
];
/// An opener as Kazaa sends it: as good as random.
pub(crate) const RANDOM_OPENER: [u8; 12] = [
    0x9e, 0x12, 0xc7, 0x3a, 0xf0, 0x5d, 0x88, 0x61, 0xe4, 0x1b, 0xd3, 0x97,
];
/// Twelve octets that do not look encrypted, as one random opener in four.
pub(crate) const PLAIN_OPENER: [u8; 12] = [
    0x12, 0x44, 0, 1, 0x80, 0x02, 0x41, 0, 0x10, 0x09, 0x62, 0x01,
];
/// giFT's ping.
pub(crate) const PING: &[u8] = b"\x27\0\0\0\x29\x80KaZaA\0";
/// A pong that both open clients accept.
pub(crate) const PONG: &[u8] = b"\x28\0\0\0\x29\0\x04\x06\x14\x32\0KaZaA\0";
/// giFT's file request.
pub(crate) const HASH_REQUEST: &[u8] =
    b"GET /.hash=0123456789abcdef0123456789abcdef01234567 HTTP/1.1\r\n\
Host: 198.18.0.5:2001\r\nUserAgent: giFT\r\nX-Kazaa-Network: KaZaA\r\n\r\n";
pub(crate) const WEB_REQUEST: &[u8] = b"GET /index.html HTTP/1.1\r\nHost: example.org\r\n\r\n";
pub(crate) const WEB_ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";
/// A ClientHello of 508 octets, as far as it is looked at.
pub(crate) const TLS_HELLO: &[u8] = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\x9a\x11\x7c";
