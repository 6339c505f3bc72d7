//! Packets with right lengths; checksums are nobody's concern here.

use std::net::{Ipv4Addr, SocketAddrV4};

pub(crate) const SYN: u8 = 0x02;
pub(crate) const ACK: u8 = 0x10;

const TCP: u8 = 6;
const UDP: u8 = 17;

/// A TCP segment with a header of five words.
pub(crate) fn tcp(
    from: SocketAddrV4,
    to: SocketAddrV4,
    (sequence, acknowledged): (u32, u32),
    flags: u8,
    payload: &[u8],
) -> Vec<u8> {
    let mut segment = ports(from, to);
    segment.extend(sequence.to_be_bytes());
    segment.extend(acknowledged.to_be_bytes());
    // Header length in words, flags, window, checksum, urgent pointer.
    segment.extend([0x50, flags, 0xfa, 0xf0, 0, 0, 0, 0]);
    segment.extend(payload);
    ipv4(*from.ip(), *to.ip(), TCP, &segment)
}

/// A UDP datagram.
pub(crate) fn udp(from: SocketAddrV4, to: SocketAddrV4, payload: &[u8]) -> Vec<u8> {
    let mut datagram = ports(from, to);
    datagram.extend(length(8 + payload.len()));
    datagram.extend([0, 0]);
    datagram.extend(payload);
    ipv4(*from.ip(), *to.ip(), UDP, &datagram)
}

/// An IPv6 packet without a transport header.
pub(crate) fn ipv6() -> Vec<u8> {
    let mut packet = vec![0; 40];
    packet[0] = 0x60;
    // No next header (RFC 8200), one hop left.
    (packet[6], packet[7]) = (59, 1);
    packet
}

fn ports(from: SocketAddrV4, to: SocketAddrV4) -> Vec<u8> {
    [from.port().to_be_bytes(), to.port().to_be_bytes()].concat()
}

fn ipv4(from: Ipv4Addr, to: Ipv4Addr, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let len = length(20 + payload.len());
    let mut packet = vec![0x45, 0, len[0], len[1], 0, 0, 0x40, 0, 64, protocol, 0, 0];
    packet.extend(from.octets());
    packet.extend(to.octets());
    packet.extend(payload);
    packet
}

fn length(octets: usize) -> [u8; 2] {
    let octets = u16::try_from(octets).expect("no packet here is longer than 64 KiB");
    octets.to_be_bytes()
}
