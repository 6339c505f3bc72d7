//! A checked view of one IP packet. The only file that names etherparse.
//!
//! Bytes are checked once, here; what comes out can be read without failing. A packet may be cut
//! short by a copy range or a capture's snapshot length, and it may be larger than any link's
//! frame, because the kernel hands over segments it has merged (up to 64 KiB).

use std::net::{IpAddr, SocketAddr};

use etherparse::{IpNumber, LaxIpSlice, TcpSlice, UdpSlice};
use thiserror::Error;

/// One packet whose headers hold together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packet<'a> {
    /// Sender.
    pub source: IpAddr,
    /// Receiver.
    pub destination: IpAddr,
    /// What the packet carries.
    pub transport: Transport<'a>,
}

/// What a packet carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport<'a> {
    /// A TCP segment.
    Tcp(Segment<'a>),
    /// A UDP datagram.
    Udp(Datagram<'a>),
    /// A fragment without the transport header.
    LaterFragment,
    /// Another protocol.
    Other,
}

/// A TCP segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment<'a> {
    /// Sender's port.
    pub source_port: u16,
    /// Receiver's port.
    pub destination_port: u16,
    /// Sequence number of the first octet of payload, or of the SYN.
    pub sequence: u32,
    /// Acknowledgement number, if the ACK flag is set.
    pub acknowledgement: Option<u32>,
    /// SYN flag.
    pub syn: bool,
    /// As much of the payload as was captured.
    pub payload: &'a [u8],
    /// Length of the payload as it was sent, in octets.
    pub payload_len: usize,
}

/// A UDP datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Datagram<'a> {
    /// Sender's port.
    pub source_port: u16,
    /// Receiver's port.
    pub destination_port: u16,
    /// As much of the payload as was captured.
    pub payload: &'a [u8],
    /// Length of the payload as it was sent, in octets.
    pub payload_len: usize,
}

/// Why bytes are no packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Malformed {
    /// No IP header, or one that contradicts itself.
    #[error("no valid IP header")]
    Ip,
    /// No transport header, or one that contradicts itself.
    #[error("no valid transport header between {source_ip} and {destination_ip}")]
    Transport {
        /// Sender.
        source_ip: IpAddr,
        /// Receiver.
        destination_ip: IpAddr,
    },
}

impl<'a> Packet<'a> {
    /// Reads a packet from its IP header on.
    ///
    /// # Errors
    /// If the headers do not hold together. A payload that is cut short is no error.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let (ip, stopped) = LaxIpSlice::from_slice(bytes).map_err(|_| Malformed::Ip)?;
        let (source, destination) = (ip.source_addr(), ip.destination_addr());
        let malformed = Malformed::Transport {
            source_ip: source,
            destination_ip: destination,
        };
        if stopped.is_some() {
            return Err(malformed);
        }
        if contradicts_its_length(&ip) {
            return Err(Malformed::Ip);
        }
        let missing = announced_len(&ip).saturating_sub(bytes.len());
        let transport = match ip.payload_ip_number() {
            _ if is_later_fragment(&ip) => Transport::LaterFragment,
            IpNumber::TCP => segment(ip.payload().payload, missing).ok_or(malformed)?,
            IpNumber::UDP => datagram(ip.payload().payload, missing).ok_or(malformed)?,
            _ => Transport::Other,
        };
        Ok(Self {
            source,
            destination,
            transport,
        })
    }

    /// Both ends with their ports, if the packet has ports.
    #[must_use]
    pub fn ends(&self) -> Option<(SocketAddr, SocketAddr)> {
        let (source_port, destination_port) = match self.transport {
            Transport::Tcp(segment) => (segment.source_port, segment.destination_port),
            Transport::Udp(datagram) => (datagram.source_port, datagram.destination_port),
            Transport::LaterFragment | Transport::Other => return None,
        };
        let source = SocketAddr::new(self.source, source_port);
        Some((source, SocketAddr::new(self.destination, destination_port)))
    }
}

/// Length of the whole packet as its header announces it; zero where the sender left that to its
/// network card.
fn announced_len(ip: &LaxIpSlice<'_>) -> usize {
    match ip {
        LaxIpSlice::Ipv4(ip) => ip.header().total_len().into(),
        LaxIpSlice::Ipv6(ip) => {
            usize::from(ip.header().payload_length()) + ip.header().slice().len()
        }
    }
}

/// Whether a packet claims to be shorter than its own header. The kernel forwards none that does.
fn contradicts_its_length(ip: &LaxIpSlice<'_>) -> bool {
    match ip {
        LaxIpSlice::Ipv4(ip) => {
            (1..ip.header().slice().len()).contains(&usize::from(ip.header().total_len()))
        }
        LaxIpSlice::Ipv6(_) => false,
    }
}

fn is_later_fragment(ip: &LaxIpSlice<'_>) -> bool {
    match ip {
        LaxIpSlice::Ipv4(ip) => ip.header().fragments_offset().value() != 0,
        // Whether an IPv6 fragment is the first one makes no difference: IPv6 is not judged.
        LaxIpSlice::Ipv6(ip) => ip.is_payload_fragmented(),
    }
}

fn segment(bytes: &[u8], missing: usize) -> Option<Transport<'_>> {
    let tcp = TcpSlice::from_slice(bytes).ok()?;
    Some(Transport::Tcp(Segment {
        source_port: tcp.source_port(),
        destination_port: tcp.destination_port(),
        sequence: tcp.sequence_number(),
        acknowledgement: tcp.ack().then(|| tcp.acknowledgment_number()),
        syn: tcp.syn(),
        payload: tcp.payload(),
        payload_len: tcp.payload().len() + missing,
    }))
}

fn datagram(bytes: &[u8], missing: usize) -> Option<Transport<'_>> {
    let udp = UdpSlice::from_slice_lax(bytes).ok()?;
    let announced = usize::from(udp.length());
    // Zero announces a datagram too long for the field; 1 to 7 announce less than the header.
    if (1..UDP_HEADER_LEN).contains(&announced) {
        return None;
    }
    Some(Transport::Udp(Datagram {
        source_port: udp.source_port(),
        destination_port: udp.destination_port(),
        payload: udp.payload(),
        payload_len: match announced.checked_sub(UDP_HEADER_LEN) {
            Some(announced) => announced,
            None => udp.payload().len() + missing,
        },
    }))
}

const UDP_HEADER_LEN: usize = 8;

#[cfg(test)]
pub(crate) mod tests {
    use std::net::SocketAddrV4;

    use etherparse::PacketBuilder;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_datagram_is_read_with_its_ports_and_payload() {
        // Bytes of one giFT ping from 10.77.1.1:1214 to 198.18.0.5:2001.
        #[rustfmt::skip]
        let bytes = [
            0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, 17, 0, 0, // IPv4, 40 octets, protocol 17
            10, 77, 1, 1, 198, 18, 0, 5,                 // from, to
            0x04, 0xbe, 0x07, 0xd1, 0, 20, 0, 0,         // ports 1214 and 2001, length 20
            0x27, 0, 0, 0, 0x29, 0x80, b'K', b'a', b'Z', b'a', b'A', 0,
        ];
        let packet = Packet::parse(&bytes).unwrap();
        let (from, to) = packet.ends().unwrap();
        assert_eq!(from, "10.77.1.1:1214".parse().unwrap());
        assert_eq!(to, "198.18.0.5:2001".parse().unwrap());
        let Transport::Udp(datagram) = packet.transport else {
            panic!("{packet:?}")
        };
        assert_eq!(datagram.payload, &bytes[28..]);
        assert_eq!(datagram.payload_len, 12);
    }

    #[test]
    fn a_segment_cut_short_remembers_how_long_it_was() {
        let bytes = tcp("10.0.0.1:1", "198.18.0.1:2", 7, Some(9), false, &[1; 100]);
        let packet = Packet::parse(&bytes[..60]).unwrap();
        let Transport::Tcp(segment) = packet.transport else {
            panic!("{packet:?}")
        };
        assert_eq!((segment.payload.len(), segment.payload_len), (20, 100));
        assert_eq!((segment.sequence, segment.acknowledgement), (7, Some(9)));
    }

    #[test]
    fn a_datagram_cut_short_remembers_how_long_it_was() {
        let bytes = udp("10.0.0.1:1", "198.18.0.1:2", &[1; 100]);
        let packet = Packet::parse(&bytes[..40]).unwrap();
        let Transport::Udp(datagram) = packet.transport else {
            panic!("{packet:?}")
        };
        assert_eq!((datagram.payload.len(), datagram.payload_len), (12, 100));
    }

    #[test]
    fn padding_behind_a_datagram_is_no_part_of_it_however_much_of_it_was_captured() {
        let mut bytes = udp("10.0.0.1:1", "198.18.0.1:2", b"ping");
        bytes.extend([0; 20]);
        let total_len = bytes.len() as u8;
        bytes[3] = total_len;
        for captured in [bytes.len(), bytes.len() - 7] {
            let packet = Packet::parse(&bytes[..captured]).unwrap();
            let Transport::Udp(datagram) = packet.transport else {
                panic!("{packet:?}")
            };
            assert_eq!((datagram.payload, datagram.payload_len), (&b"ping"[..], 4));
        }
    }

    #[test]
    fn a_packet_of_64_kib_is_read_whole() {
        let payload = vec![5; 65_000];
        let bytes = tcp("10.0.0.1:1", "198.18.0.1:2", 1, None, false, &payload);
        let packet = Packet::parse(&bytes).unwrap();
        let Transport::Tcp(segment) = packet.transport else {
            panic!("{packet:?}")
        };
        assert_eq!(segment.payload, payload);
    }

    #[test]
    fn a_later_fragment_has_no_ports() {
        let mut bytes = udp("10.0.0.1:1", "198.18.0.1:2", &[1; 16]);
        bytes[6..8].copy_from_slice(&3_u16.to_be_bytes());
        let packet = Packet::parse(&bytes).unwrap();
        assert_eq!(packet.transport, Transport::LaterFragment);
        assert_eq!(packet.ends(), None);
    }

    #[test]
    fn headers_that_do_not_hold_together_are_named() {
        assert_eq!(Packet::parse(&[]), Err(Malformed::Ip));
        assert_eq!(Packet::parse(&[0x45; 12]), Err(Malformed::Ip));
        let mut announced_too_short = udp("10.0.0.1:1", "198.18.0.1:2", &[1; 4]);
        announced_too_short[2..4].copy_from_slice(&19_u16.to_be_bytes());
        assert_eq!(Packet::parse(&announced_too_short), Err(Malformed::Ip));
        let mut offset_beyond_the_end = tcp("10.0.0.1:1", "198.18.0.1:2", 1, None, false, &[]);
        offset_beyond_the_end[32] = 0xf0;
        let error = Packet::parse(&offset_beyond_the_end).unwrap_err();
        assert!(matches!(error, Malformed::Transport { .. }), "{error}");
        let mut shorter_than_its_header = udp("10.0.0.1:1", "198.18.0.1:2", &[1; 4]);
        shorter_than_its_header[24..26].copy_from_slice(&5_u16.to_be_bytes());
        let error = Packet::parse(&shorter_than_its_header).unwrap_err();
        assert!(matches!(error, Malformed::Transport { .. }), "{error}");
    }

    proptest! {
        #[test]
        fn any_bytes_at_all_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Packet::parse(&bytes);
        }

        #[test]
        fn any_bytes_behind_an_ip_header_are_read_or_refused(
            protocol in prop::sample::select(vec![6_u8, 17, 0, 51, 44]),
            tail in prop::collection::vec(any::<u8>(), 0..80),
        ) {
            let mut bytes = udp("10.0.0.1:1", "198.18.0.1:2", &[])[..20].to_vec();
            bytes[9] = protocol;
            bytes.extend(tail);
            let _ = Packet::parse(&bytes);
        }
    }

    /// One TCP packet over IPv4.
    pub(crate) fn tcp(
        from: &str,
        to: &str,
        sequence: u32,
        acknowledgement: Option<u32>,
        syn: bool,
        payload: &[u8],
    ) -> Vec<u8> {
        let (from, to): (SocketAddrV4, SocketAddrV4) = (from.parse().unwrap(), to.parse().unwrap());
        let mut builder = PacketBuilder::ipv4(from.ip().octets(), to.ip().octets(), 64).tcp(
            from.port(),
            to.port(),
            sequence,
            64_000,
        );
        if syn {
            builder = builder.syn();
        }
        if let Some(acknowledgement) = acknowledgement {
            builder = builder.ack(acknowledgement);
        }
        let mut bytes = Vec::new();
        builder.write(&mut bytes, payload).unwrap();
        bytes
    }

    /// One UDP packet over IPv4.
    pub(crate) fn udp(from: &str, to: &str, payload: &[u8]) -> Vec<u8> {
        let (from, to): (SocketAddrV4, SocketAddrV4) = (from.parse().unwrap(), to.parse().unwrap());
        let builder = PacketBuilder::ipv4(from.ip().octets(), to.ip().octets(), 64)
            .udp(from.port(), to.port());
        let mut bytes = Vec::new();
        builder.write(&mut bytes, payload).unwrap();
        bytes
    }
}
