//! Packets to start from, written octet by octet, and FastTrack's words.

use std::net::SocketAddrV4;

use crate::packet::Segment;

/// TCP's SYN flag as it stands in its octet.
pub(super) const SYN: u8 = 0x02;
/// TCP's ACK flag as it stands in its octet.
pub(super) const ACK: u8 = 0x10;

/// giFT's ping.
pub(super) const PING: &[u8] = b"\x27\0\0\0\x29\x80KaZaA\0";
/// What giFT and mldonkey always open a session with.
pub(super) const CONSTANT_OPENER: &[u8] = b"\xfa\x00\xb6\x2b\xfa\xcb\x12\x38\x32\x09\xd2\x32";
/// An opener as Kazaa sends it: as good as random.
pub(super) const RANDOM_OPENER: &[u8] = b"\x9e\x12\xc7\x3a\xf0\x5d\x88\x61\xe4\x1b\xd3\x97";
/// giFT's file request.
pub(super) const HASH_REQUEST: &[u8] =
    b"GET /.hash=0123456789abcdef0123456789abcdef01234567 HTTP/1.1\r\n\
Host: 198.18.0.5:2001\r\nUserAgent: giFT\r\nX-Kazaa-Network: KaZaA\r\n\r\n";
/// A peer's answer to a file request.
pub(super) const MARKED_RESPONSE: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\n\
Retry-After: 280\r\nX-Kazaa-IP: 198.18.0.5:2001\r\nX-Kazaa-SupernodeIP: 198.18.0.6:1214\r\n\r\n";

/// What is said on gateways, FastTrack's words and ordinary ones.
pub(super) const PHRASES: &[&[u8]] = &[
    PING,
    CONSTANT_OPENER,
    RANDOM_OPENER,
    HASH_REQUEST,
    MARKED_RESPONSE,
    b"\x28\0\0\0\x29\0\x04\x06\x14\x32\0KaZaA\0",
    b"\x29\0\0\0\x29\x01\0\0\0KaZaA\0",
    b"\x2a\x01\x02\x03\x04\x05",
    b"\x12\x44\0\x01\x80\x02\x41\0\x10\x09\x62\x01",
    b"GIVE 1234567890\r\n\r\n",
    b"GET /1234/some song.mp3 HTTP/1.1\r\nHost: 198.18.0.5\r\n\r\n",
    b"GET /.files HTTP/1.0\r\n\r\n",
    b"GET /index.html HTTP/1.1\r\nHost: example.org\r\n\r\n",
    b"POST /form HTTP/1.1\r\nX-Kazaa-Username: a\r\nContent-Length: 3\r\n\r\nabc",
    b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
    b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03",
    b"SSH-2.0-OpenSSH_9.2\r\n",
    b"220 mail.example.org ESMTP\r\n",
    b"\0\x01\0\0\0\x06\x01\x03\0\0\0\x01",
];

/// A segment that opens a connection.
pub(super) const fn syn(sequence: u32, acknowledgement: Option<u32>) -> Segment<'static> {
    Segment {
        syn: true,
        ..data(sequence, acknowledgement, &[])
    }
}

/// A segment with payload. Its ports are those of the packet that it becomes part of.
pub(super) const fn data(
    sequence: u32,
    acknowledgement: Option<u32>,
    payload: &[u8],
) -> Segment<'_> {
    Segment {
        source_port: 0,
        destination_port: 0,
        sequence,
        acknowledgement,
        syn: false,
        payload,
        payload_len: payload.len(),
    }
}

/// One TCP packet over IPv4.
pub(super) fn tcp(from: SocketAddrV4, to: SocketAddrV4, segment: &Segment<'_>) -> Vec<u8> {
    let mut octets = [from.port().to_be_bytes(), to.port().to_be_bytes()].concat();
    octets.extend(segment.sequence.to_be_bytes());
    octets.extend(segment.acknowledgement.unwrap_or(0).to_be_bytes());
    let syn = if segment.syn { SYN } else { 0 };
    let ack = segment.acknowledgement.map_or(0, |_| ACK);
    // Header of five words, flags, window, checksum (not looked at), urgent pointer.
    octets.extend([0x50, syn | ack, 0xfa, 0xf0, 0, 0, 0, 0]);
    octets.extend(segment.payload);
    let missing = segment.payload_len.saturating_sub(segment.payload.len());
    ipv4(from, to, 6, &octets, missing)
}

/// One UDP packet over IPv4.
pub(super) fn udp(from: SocketAddrV4, to: SocketAddrV4, payload: &[u8]) -> Vec<u8> {
    let mut octets = [from.port().to_be_bytes(), to.port().to_be_bytes()].concat();
    octets.extend(len16(8 + payload.len()));
    octets.extend([0, 0]);
    octets.extend(payload);
    ipv4(from, to, 17, &octets, 0)
}

/// `missing` octets were sent and not captured.
fn ipv4(
    from: SocketAddrV4,
    to: SocketAddrV4,
    protocol: u8,
    payload: &[u8],
    missing: usize,
) -> Vec<u8> {
    let len = len16(20 + payload.len() + missing);
    let mut packet = vec![0x45, 0, len[0], len[1], 0, 0, 0x40, 0, 64, protocol, 0, 0];
    packet.extend(from.ip().octets());
    packet.extend(to.ip().octets());
    packet.extend(payload);
    packet
}

fn len16(len: usize) -> [u8; 2] {
    u16::try_from(len).unwrap_or(u16::MAX).to_be_bytes()
}
