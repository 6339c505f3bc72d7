//! A client that does not give up: pings to its whole cache, and dials to the same peers, one after
//! another without a pause, as an open client does whose dials are reset.

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::time::Duration;

use rustix::net::{AddressFamily, SendFlags, SocketType, ipproto, sendto, socket};
use serde::{Deserialize, Serialize};

use super::super::clock::{at_rate, now};

/// What was sent.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Stormed {
    /// Pings or dials.
    pub sent: u64,
    /// From the first to the last.
    pub seconds: f64,
}

/// giFT's ping.
pub(super) const PING: &[u8] = b"\x27\0\0\0\x29\x80KaZaA\0";
/// A usual size of a client's cache.
const PEERS: u64 = 200;
/// Where the client listens.
const CLIENT_PORT: u16 = 2301;
const PEER_PORT: u16 = 1214;

fn peer(number: u64) -> SocketAddrV4 {
    let [.., last] = (number % PEERS + 1).to_be_bytes();
    SocketAddrV4::new(Ipv4Addr::new(198, 18, 0, last), PEER_PORT)
}

pub(super) fn ping(from: Ipv4Addr, rate: u32, lasting: Duration) -> anyhow::Result<Stormed> {
    let socket = UdpSocket::bind((from, CLIENT_PORT))?;
    socket.set_nonblocking(true)?;
    storm(rate, lasting, |number| {
        // Answers are taken, so that they do not pile up; refusals of an earlier ping come with them.
        let _ = socket.recv(&mut [0; 64]);
        socket.send_to(PING, peer(number)).is_ok()
    })
}

pub(super) fn dial(from: Ipv4Addr, rate: u32, lasting: Duration) -> anyhow::Result<Stormed> {
    let raw = socket(AddressFamily::INET, SocketType::RAW, Some(ipproto::RAW))
        .map_err(io::Error::from)?;
    storm(rate, lasting, |number| {
        let to = peer(number);
        // A client's ports go up one by one.
        let [.., high, low] = number.to_be_bytes();
        let port = u16::from_be_bytes([high, low]) | 0x8000;
        let packet = syn(SocketAddrV4::new(from, port), to);
        sendto(&raw, &packet, SendFlags::empty(), &to).is_ok()
    })
}

/// Sends at a rate; counts what `send` says was sent.
pub(super) fn storm(
    rate: u32,
    lasting: Duration,
    mut send: impl FnMut(u64) -> bool,
) -> anyhow::Result<Stormed> {
    let (begun, mut sent) = (now(), 0);
    at_rate(rate, lasting, |number| sent += u64::from(send(number)));
    let seconds = begun.elapsed().as_secs_f64();
    Ok(Stormed { sent, seconds })
}

/// A SYN without options (RFC 9293), with a right checksum: connection tracking looks at it.
fn syn(from: SocketAddrV4, to: SocketAddrV4) -> [u8; 40] {
    let mut packet = [0; 40];
    packet[..10].copy_from_slice(&[0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, 6]);
    packet[12..16].copy_from_slice(&from.ip().octets());
    packet[16..20].copy_from_slice(&to.ip().octets());
    packet[20..22].copy_from_slice(&from.port().to_be_bytes());
    packet[22..24].copy_from_slice(&to.port().to_be_bytes());
    packet[24..28].copy_from_slice(&[0x1c, 0x40, 0x07, 0x00]);
    // Five words, SYN, window 64240.
    packet[32..36].copy_from_slice(&[0x50, 0x02, 0xfa, 0xf0]);
    let sum = checksum(&packet);
    packet[36..38].copy_from_slice(&sum.to_be_bytes());
    packet
}

/// TCP's checksum over addresses, protocol, length and segment (RFC 9293, 3.1).
fn checksum(packet: &[u8; 40]) -> u16 {
    let words = packet[12..]
        .chunks_exact(2)
        .map(|word| u32::from(u16::from_be_bytes([word[0], word[1]])));
    let mut sum: u32 = words.sum::<u32>() + 6 + 20;
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).expect("it was folded")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dial_has_a_right_checksum_and_goes_to_the_peer_that_was_pinged() {
        let to = peer(7);
        let mut packet = syn("10.77.1.2:33000".parse().expect("an address"), to);
        let carried = u16::from_be_bytes([packet[36], packet[37]]);
        packet[36..38].fill(0);
        assert_eq!(checksum(&packet), carried);
        assert_eq!(packet[16..20], to.ip().octets());
        assert_eq!(peer(7), peer(7 + PEERS));
    }
}
