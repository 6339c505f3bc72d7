//! The packet view against a second reading of the same octets.
//!
//! Claims: addresses, ports, numbers and flags are those that RFC 791, 8200, 9293 and 768 put there; the
//! payload lies inside the packet and is never longer than it was sent; of a packet cut short the same
//! is said, save for the payload that is missing; padding behind a packet is no part of it.

use std::net::IpAddr;

use super::Target;
use super::wire;
use crate::packet::{Datagram, Packet, Segment, Transport};

/// One packet, from its IP header on.
pub(super) const TARGET: Target = Target {
    name: "packet_view",
    check,
    seeds,
};

fn check(octets: &[u8]) {
    let Ok(packet) = Packet::parse(octets) else {
        return;
    };
    check_addresses(&packet, octets);
    if let Transport::Tcp(segment) = packet.transport {
        check_segment(&segment, octets);
    }
    if let Transport::Udp(datagram) = packet.transport {
        check_datagram(&datagram, octets);
    }
    check_ends(&packet);
    check_prefixes(&packet, octets);
    check_padding(&packet, octets);
}

fn check_addresses(packet: &Packet<'_>, octets: &[u8]) {
    let address = |at: usize, len: usize| octets[at..at + len].to_vec();
    let (source, destination) = match octets[0] >> 4 {
        4 => (address(12, 4), address(16, 4)),
        6 => (address(8, 16), address(24, 16)),
        version => panic!("version {version} is no IP"),
    };
    assert_eq!(octets_of(packet.source), source);
    assert_eq!(octets_of(packet.destination), destination);
}

fn octets_of(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

fn check_segment(segment: &Segment<'_>, octets: &[u8]) {
    assert!(segment.payload.len() <= segment.payload_len);
    let payload_at = offset_in(segment.payload, octets);
    let Some(header) = transport_header(octets) else {
        return;
    };
    let word = |at: usize| u16::from_be_bytes([header[at], header[at + 1]]);
    let double = |at: usize| u32::from(word(at)) << 16 | u32::from(word(at + 2));
    let (flags, header_len) = (header[13], usize::from(header[12] >> 4) * 4);
    assert_eq!(
        (segment.source_port, segment.destination_port),
        (word(0), word(2))
    );
    assert_eq!(segment.sequence, double(4));
    let acknowledgement = (flags & wire::ACK != 0).then(|| double(8));
    assert_eq!(segment.acknowledgement, acknowledgement);
    assert_eq!(segment.syn, flags & wire::SYN != 0);
    if let Some(payload_at) = payload_at {
        assert_eq!(
            payload_at,
            offset_in(header, octets).unwrap_or(0) + header_len
        );
    }
}

fn check_datagram(datagram: &Datagram<'_>, octets: &[u8]) {
    assert!(datagram.payload.len() <= datagram.payload_len);
    let payload_at = offset_in(datagram.payload, octets);
    let Some(header) = transport_header(octets) else {
        return;
    };
    let word = |at: usize| u16::from_be_bytes([header[at], header[at + 1]]);
    assert_eq!(
        (datagram.source_port, datagram.destination_port),
        (word(0), word(2))
    );
    if let Some(payload_at) = payload_at {
        assert_eq!(payload_at, offset_in(header, octets).unwrap_or(0) + 8);
    }
}

/// What follows an IPv4 header without extensions.
fn transport_header(octets: &[u8]) -> Option<&[u8]> {
    let is_plain = octets[0] >> 4 == 4 && matches!(octets[9], 6 | 17);
    let header_len = usize::from(octets[0] & 0x0f) * 4;
    is_plain.then(|| &octets[header_len..])
}

/// Where `part` begins inside `whole`; nothing, if it is empty.
fn offset_in(part: &[u8], whole: &[u8]) -> Option<usize> {
    if part.is_empty() {
        return None;
    }
    let (inner, outer) = (part.as_ptr_range(), whole.as_ptr_range());
    assert!(outer.start <= inner.start && inner.end <= outer.end);
    Some(inner.start.addr() - outer.start.addr())
}

fn check_ends(packet: &Packet<'_>) {
    let has_ports = matches!(packet.transport, Transport::Tcp(_) | Transport::Udp(_));
    assert_eq!(packet.ends().is_some(), has_ports);
    if let Some((source, destination)) = packet.ends() {
        assert_eq!(
            (source.ip(), destination.ip()),
            (packet.source, packet.destination)
        );
    }
}

/// A packet cut short loses payload and nothing else.
fn check_prefixes(packet: &Packet<'_>, octets: &[u8]) {
    // A sender that leaves the length to its network card does not say what is missing.
    let announces_its_length = octets[0] >> 4 == 4 && octets[2..4] != [0, 0];
    if !announces_its_length {
        return;
    }
    for len in [octets.len() / 2, octets.len().saturating_sub(1)] {
        let Ok(cut) = Packet::parse(&octets[..len]) else {
            continue;
        };
        assert_eq!(
            (cut.source, cut.destination),
            (packet.source, packet.destination)
        );
        match (cut.transport, packet.transport) {
            (Transport::Tcp(cut), Transport::Tcp(whole)) => {
                assert!(whole.payload.starts_with(cut.payload));
                assert_eq!(cut.payload_len, whole.payload_len);
                assert_eq!((cut.sequence, cut.syn), (whole.sequence, whole.syn));
            }
            (Transport::Udp(cut), Transport::Udp(whole)) => {
                assert!(whole.payload.starts_with(cut.payload));
                assert_eq!(cut.payload_len, whole.payload_len);
            }
            (cut, whole) => assert_eq!(cut, whole),
        }
    }
}

/// Short frames of Ethernet are padded behind the packet.
fn check_padding(packet: &Packet<'_>, octets: &[u8]) {
    let announced = match octets[0] >> 4 {
        4 => usize::from(u16::from_be_bytes([octets[2], octets[3]])),
        _ => 40 + usize::from(u16::from_be_bytes([octets[4], octets[5]])),
    };
    let is_whole =
        (1..=octets.len()).contains(&announced) && (octets[0] >> 4 == 4 || announced > 40);
    if !is_whole {
        return;
    }
    let padded = [octets, &[0; 6]].concat();
    assert_eq!(Packet::parse(&padded).as_ref(), Ok(packet));
}

fn seeds() -> Vec<Vec<u8>> {
    let (client, peer) = (end("10.77.1.1:1214"), end("198.18.0.5:2001"));
    let dial = wire::tcp(client, peer, &wire::syn(0xffff_fff0, None));
    let request = wire::data(0xffff_fff0, Some(9), wire::HASH_REQUEST);
    let cut_short = Segment {
        payload_len: 1400,
        ..request
    };
    let mut later_fragment = wire::udp(client, peer, wire::PING);
    later_fragment[7] = 3;
    let mut with_options = dial.clone();
    with_options[32] = 0x60;
    with_options[3] += 4;
    with_options.extend([2, 4, 5, 180]);
    // IPv6, hop-by-hop options, UDP.
    let ipv6 = [
        &[0x60, 0, 0, 0, 0, 20, 0, 64][..],
        &[0xfd; 16],
        &[0x20; 16],
        &[17, 0, 1, 4, 0, 0, 0, 0],
        &[4, 0xbe, 7, 0xd1, 0, 12, 0, 0],
        b"ping",
    ]
    .concat();
    vec![
        wire::udp(client, peer, wire::PING),
        dial,
        wire::tcp(client, peer, &request),
        wire::tcp(client, peer, &cut_short),
        later_fragment,
        with_options,
        ipv6,
    ]
}

fn end(text: &str) -> std::net::SocketAddrV4 {
    text.parse().expect("a literal")
}
