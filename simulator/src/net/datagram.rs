//! UDP as the peers and the more unusual clients need it: answers that leave from the address that was
//! asked, and pings cut into IP fragments.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::AsRawFd;

use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, SockaddrIn, recvmsg, sendmsg, setsockopt,
    sockopt,
};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::Interest;
use tokio::net::UdpSocket;

/// Larger than any datagram of the protocol.
const BUFFER: usize = 2048;

/// A UDP socket on every local address, which knows where each datagram was sent to.
pub(super) struct AnyAddressSocket {
    socket: UdpSocket,
    port: u16,
}

/// A datagram and its two addresses.
pub(super) struct Arrival {
    /// Where it was sent to.
    pub(super) local: SocketAddrV4,
    /// Who sent it.
    pub(super) remote: SocketAddrV4,
    /// The octets.
    pub(super) payload: Vec<u8>,
}

impl AnyAddressSocket {
    /// Binds `0.0.0.0:port`.
    pub(super) async fn bind(port: u16) -> io::Result<Self> {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port)).await?;
        setsockopt(&socket, sockopt::Ipv4PacketInfo, &true)?;
        Ok(Self { socket, port })
    }

    /// Waits for a datagram.
    pub(super) async fn receive(&self) -> io::Result<Arrival> {
        self.socket
            .async_io(Interest::READABLE, || self.try_receive())
            .await
    }

    /// Sends from one of the local addresses.
    pub(super) async fn send(
        &self,
        from: Ipv4Addr,
        to: SocketAddrV4,
        payload: &[u8],
    ) -> io::Result<()> {
        self.socket
            .async_io(Interest::WRITABLE, || self.try_send(from, to, payload))
            .await
    }

    fn try_receive(&self) -> io::Result<Arrival> {
        let mut buffer = [0; BUFFER];
        let mut slices = [IoSliceMut::new(&mut buffer)];
        let mut control = nix::cmsg_space!(nix::libc::in_pktinfo);
        let message = recvmsg::<SockaddrIn>(
            self.socket.as_raw_fd(),
            &mut slices,
            Some(&mut control),
            MsgFlags::MSG_DONTWAIT,
        )?;
        let missing = || io::Error::other("the kernel left out a datagram's addresses");
        let remote = message
            .address
            .map(SocketAddrV4::from)
            .ok_or_else(missing)?;
        let local = message.cmsgs()?.find_map(|one| match one {
            ControlMessageOwned::Ipv4PacketInfo(info) => {
                Some(Ipv4Addr::from(u32::from_be(info.ipi_addr.s_addr)))
            }
            _ => None,
        });
        let local = SocketAddrV4::new(local.ok_or_else(missing)?, self.port);
        let len = message.bytes;
        Ok(Arrival {
            local,
            remote,
            payload: buffer[..len].to_vec(),
        })
    }

    fn try_send(&self, from: Ipv4Addr, to: SocketAddrV4, payload: &[u8]) -> io::Result<()> {
        let info = nix::libc::in_pktinfo {
            ipi_ifindex: 0,
            ipi_spec_dst: nix::libc::in_addr {
                s_addr: u32::from(from).to_be(),
            },
            ipi_addr: nix::libc::in_addr { s_addr: 0 },
        };
        sendmsg(
            self.socket.as_raw_fd(),
            &[IoSlice::new(payload)],
            &[ControlMessage::Ipv4PacketInfo(&info)],
            MsgFlags::MSG_DONTWAIT,
            Some(&SockaddrIn::from(to)),
        )?;
        Ok(())
    }
}

/// Sends UDP datagrams as IP fragments, in order and in reverse order by turns.
pub(super) struct Fragmenter {
    raw: Socket,
    size: usize,
    sent: u16,
}

impl Fragmenter {
    /// Opens the raw socket; fragments carry `size` octets, a multiple of 8.
    pub(super) fn open(size: usize) -> io::Result<Self> {
        let raw = Socket::new(
            Domain::IPV4,
            Type::RAW,
            Some(Protocol::from(nix::libc::IPPROTO_RAW)),
        )?;
        Ok(Self { raw, size, sent: 0 })
    }

    /// Sends one datagram.
    pub(super) fn send(
        &mut self,
        from: SocketAddrV4,
        to: SocketAddrV4,
        payload: &[u8],
    ) -> io::Result<()> {
        let mut packets = fragments(from, to, payload, self.size, self.sent);
        if self.sent % 2 == 1 {
            packets.reverse();
        }
        self.sent = self.sent.wrapping_add(1);
        for packet in packets {
            self.raw.send_to(&packet, &to.into())?;
        }
        Ok(())
    }
}

const IP_HEADER_LEN: usize = 20;
const UDP_HEADER_LEN: usize = 8;
const MORE_FRAGMENTS: u16 = 0x2000;

/// The IP packets of one UDP datagram. The kernel fills in the IP header's checksum (ip(7)).
fn fragments(
    from: SocketAddrV4,
    to: SocketAddrV4,
    payload: &[u8],
    size: usize,
    id: u16,
) -> Vec<Vec<u8>> {
    let datagram = udp_datagram(from, to, payload);
    let pieces = datagram.chunks(size);
    let last = pieces.len() - 1;
    pieces
        .enumerate()
        .map(|(place, piece)| {
            let more = if place == last { 0 } else { MORE_FRAGMENTS };
            let offset = (place * size / 8) as u16 | more;
            [&ip_header(from, to, piece.len(), id, offset)[..], piece].concat()
        })
        .collect()
}

fn ip_header(
    from: SocketAddrV4,
    to: SocketAddrV4,
    len: usize,
    id: u16,
    offset: u16,
) -> [u8; IP_HEADER_LEN] {
    let mut header = [0; IP_HEADER_LEN];
    header[0] = 0x45; // version 4, five words
    header[2..4].copy_from_slice(&((IP_HEADER_LEN + len) as u16).to_be_bytes());
    // The kernel would choose another for each packet if this were 0.
    header[4..6].copy_from_slice(&(id | 0x8000).to_be_bytes());
    header[6..8].copy_from_slice(&offset.to_be_bytes());
    header[8] = 64; // time to live
    header[9] = 17; // UDP
    header[12..16].copy_from_slice(&from.ip().octets());
    header[16..20].copy_from_slice(&to.ip().octets());
    header
}

/// Without a checksum, which IPv4 allows (RFC 768).
fn udp_datagram(from: SocketAddrV4, to: SocketAddrV4, payload: &[u8]) -> Vec<u8> {
    let len = (UDP_HEADER_LEN + payload.len()) as u16;
    let words = [from.port(), to.port(), len, 0];
    words
        .into_iter()
        .flat_map(u16::to_be_bytes)
        .chain(payload.iter().copied())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ping_of_12_octets_becomes_fragments_of_8_8_and_4() {
        let [from, to] = ["10.77.1.1:2345", "198.18.0.1:1214"].map(|text| text.parse().unwrap());
        let packets = fragments(from, to, &[7; 12], 8, 3);
        assert_eq!(
            packets
                .iter()
                .map(|packet| packet.len() - 20)
                .collect::<Vec<_>>(),
            [8, 8, 4]
        );

        // Flags and offset: more to come at 0 and at 8 octets, the last at 16.
        let offsets: Vec<_> = packets
            .iter()
            .map(|packet| [packet[6], packet[7]])
            .collect();
        assert_eq!(offsets, [[0x20, 0], [0x20, 1], [0x00, 2]]);
        assert!(
            packets
                .iter()
                .all(|packet| packet[4..6] == packets[0][4..6]),
            "one identification"
        );

        // Ports 2345 and 1214, length 20, no checksum.
        assert_eq!(packets[0][20..], [0x09, 0x29, 0x04, 0xbe, 0, 20, 0, 0]);
        assert_eq!([&packets[1][20..], &packets[2][20..]].concat(), [7; 12]);
    }
}
