//! Sending datagrams in a peer's name: the answers a client waits for and the probes to a locked host.

use std::io;
use std::net::SocketAddrV4;
use std::os::fd::OwnedFd;

use rustix::net::{
    AddressFamily, SendFlags, SocketFlags, SocketType, ipproto, sendto, socket_with,
};

use super::failure::MissingPrivilege;

/// A socket that sends whole IPv4 packets.
#[derive(Debug)]
pub struct Injector {
    socket: OwnedFd,
}

impl Injector {
    /// Opens the socket.
    ///
    /// # Errors
    /// When the process lacks `CAP_NET_RAW`, by name, or the kernel refuses otherwise.
    pub fn open() -> anyhow::Result<Injector> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let opened = socket_with(
            AddressFamily::INET,
            SocketType::RAW,
            flags,
            Some(ipproto::RAW),
        );
        match opened {
            Ok(socket) => Ok(Injector { socket }),
            Err(error) if io::Error::from(error).kind() == io::ErrorKind::PermissionDenied => {
                Err(MissingPrivilege {
                    action: "answering pings in a peer's name",
                    capability: "CAP_NET_RAW",
                }
                .into())
            }
            Err(error) => Err(io::Error::from(error).into()),
        }
    }

    /// Sends `payload` from `from` to `to`. Never waits: a full send buffer loses the datagram, as a
    /// network would.
    ///
    /// # Errors
    /// When the kernel does not send it, for instance for want of a route.
    pub fn send(&self, from: SocketAddrV4, to: SocketAddrV4, payload: &[u8]) -> io::Result<()> {
        let packet = datagram(from, to, payload)?;
        sendto(&self.socket, &packet, SendFlags::empty(), &to)?;
        Ok(())
    }
}

const IPV4_HEADER: usize = 20;
const UDP_HEADER: usize = 8;
const PROTOCOL_UDP: u8 = 17;
const TIME_TO_LIVE: u8 = 64;

/// A whole UDP datagram over IPv4 (RFC 791, RFC 768).
///
/// # Errors
/// When the payload is longer than a datagram can be.
pub fn datagram(from: SocketAddrV4, to: SocketAddrV4, payload: &[u8]) -> io::Result<Vec<u8>> {
    let too_long = |_| io::Error::new(io::ErrorKind::InvalidInput, "longer than a datagram");
    let udp_len = u16::try_from(UDP_HEADER + payload.len()).map_err(too_long)?;
    let total_len = u16::try_from(IPV4_HEADER + usize::from(udp_len)).map_err(too_long)?;
    let mut packet = ipv4_header(from, to, total_len).to_vec();
    packet.extend(udp_header(from, to, udp_len, payload));
    packet.extend(payload);
    Ok(packet)
}

fn ipv4_header(from: SocketAddrV4, to: SocketAddrV4, total_len: u16) -> [u8; IPV4_HEADER] {
    let mut header = [0; IPV4_HEADER];
    header[0] = 0x45; // version 4, five words of header
    header[2..4].copy_from_slice(&total_len.to_be_bytes());
    header[6] = 0x40; // do not fragment
    header[8] = TIME_TO_LIVE;
    header[9] = PROTOCOL_UDP;
    header[12..16].copy_from_slice(&from.ip().octets());
    header[16..20].copy_from_slice(&to.ip().octets());
    let sum = checksum(sum_words(0, &header));
    header[10..12].copy_from_slice(&sum.to_be_bytes());
    header
}

fn udp_header(from: SocketAddrV4, to: SocketAddrV4, len: u16, payload: &[u8]) -> [u8; UDP_HEADER] {
    let mut header = [0; UDP_HEADER];
    header[0..2].copy_from_slice(&from.port().to_be_bytes());
    header[2..4].copy_from_slice(&to.port().to_be_bytes());
    header[4..6].copy_from_slice(&len.to_be_bytes());
    let pseudo = [&from.ip().octets()[..], &to.ip().octets()[..]].concat();
    let sum = sum_words(u32::from(PROTOCOL_UDP) + u32::from(len), &pseudo);
    // A sum of zero is sent as its other form, since zero means "no checksum".
    let sum = match checksum(sum_words(sum_words(sum, &header), payload)) {
        0 => 0xffff,
        sum => sum,
    };
    header[6..8].copy_from_slice(&sum.to_be_bytes());
    header
}

/// Adds 16-bit words; an odd last octet counts as the high half of one.
fn sum_words(start: u32, bytes: &[u8]) -> u32 {
    bytes.chunks(2).fold(start, |sum, word| {
        let low = word.get(1).copied().unwrap_or(0);
        sum + u32::from(u16::from_be_bytes([word[0], low]))
    })
}

/// The Internet checksum of a sum of words (RFC 1071).
fn checksum(mut sum: u32) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use etherparse::{Ipv4Slice, UdpSlice};

    use super::*;

    fn address(text: &str) -> SocketAddrV4 {
        text.parse().expect("a literal")
    }

    /// A pong as both open clients accept it.
    const PONG: &[u8] = b"\x28\x00\x00\x00\x29\x00\x04\x06\x14\x32\x00KaZaA\x00";

    #[test]
    fn an_injected_datagram_is_read_back_by_an_independent_parser() {
        let (from, to) = (address("198.18.0.1:1214"), address("10.77.1.1:2301"));
        let packet = datagram(from, to, PONG).expect("it is short");
        let ip = Ipv4Slice::from_slice(&packet).expect("a whole IPv4 packet");
        assert_eq!(ip.header().source_addr(), *from.ip());
        assert_eq!(ip.header().destination_addr(), *to.ip());
        assert_eq!(
            ip.header().header_checksum(),
            ip.header().to_header().calc_header_checksum()
        );
        let udp = UdpSlice::from_slice(ip.payload().payload).expect("a whole datagram");
        assert_eq!((udp.source_port(), udp.destination_port()), (1214, 2301));
        assert_eq!(udp.payload(), PONG);
        let sum = udp
            .to_header()
            .calc_checksum_ipv4(&ip.header().to_header(), PONG);
        assert_eq!(Ok(udp.checksum()), sum);
    }

    #[test]
    fn a_payload_of_odd_length_has_a_right_checksum_too() {
        let (from, to) = (address("198.18.0.1:65535"), address("10.77.1.1:1"));
        for len in 0..32 {
            let payload = vec![0xf5; len];
            let packet = datagram(from, to, &payload).expect("it is short");
            let ip = Ipv4Slice::from_slice(&packet).expect("a whole IPv4 packet");
            let udp = UdpSlice::from_slice(ip.payload().payload).expect("a whole datagram");
            let sum = udp
                .to_header()
                .calc_checksum_ipv4(&ip.header().to_header(), &payload);
            assert_eq!(Ok(udp.checksum()), sum, "payload of {len}");
        }
    }

    #[test]
    fn a_payload_longer_than_a_datagram_is_refused() {
        let (from, to) = (address("198.18.0.1:1214"), address("10.77.1.1:2301"));
        assert!(datagram(from, to, &vec![0; 65_507]).is_ok());
        let error = datagram(from, to, &vec![0; 65_508]).expect_err("one octet too many");
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    }
}
