//! Traffic that wants a gateway to remember it: sources, connections, fragments and heads without end.

use std::io::{ErrorKind, Write as _};
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::time::Duration;

use etherparse::{PacketBuilder, PacketBuilderStep};
use rustix::net::{AddressFamily, SendFlags, SocketType, ipproto, sendto, socket};

use super::super::floods::Flood;
use super::storm::{self, PING, Stormed};

/// Where connections without end lead to.
const DRAIN: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(203, 0, 113, 80), 8080);
/// As many as a process may have descriptors by default, less some.
const CONNECTIONS: u64 = 500;
/// Sources that take turns: 10.64.0.0/12, one in sixteen of them inside.
const SOURCES: u64 = 1 << 20;
const FIRST_SOURCE: Ipv4Addr = Ipv4Addr::new(10, 64, 0, 0);
/// From one source to the next; odd, so that each has its turn.
const STEP: u64 = 0x9_e375;
const PEER_PORT: u16 = 1214;
/// What resembles no protocol.
const WORDS: &[u8] = b"words that no protocol begins with, of a length that says nothing";

/// Sends one kind of flood.
pub(super) fn send(
    flood: Flood,
    from: Ipv4Addr,
    rate: u32,
    lasting: Duration,
) -> anyhow::Result<Stormed> {
    match flood {
        Flood::Resets => storm::dial(from, rate, lasting),
        Flood::Pings => storm::ping(from, rate, lasting),
        Flood::SpoofedPings => packets(rate, lasting, spoofed_ping),
        Flood::NewFlows => packets(rate, lasting, |number| new_flow(from, number)),
        Flood::Fragments => packets(rate, lasting, |number| fragment(from, number)),
        Flood::Heads => connections(rate, lasting, b"GET / HTTP/1.1\r\n", b"X-More: more\r\n"),
        Flood::Octets => connections(rate, lasting, b"a", b"a"),
    }
}

/// Takes connections and whatever comes over them, until killed.
pub(super) fn drain() -> anyhow::Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, DRAIN.port()))?;
    super::say_ready()?;
    for stream in listener.incoming() {
        let mut stream = stream?;
        // A connection that fails is over.
        std::thread::spawn(move || std::io::copy(&mut stream, &mut std::io::sink()).is_ok());
    }
    Ok(())
}

/// Whole IPv4 packets, whatever source they name.
fn packets(
    rate: u32,
    lasting: Duration,
    mut draw: impl FnMut(u64) -> (Vec<u8>, SocketAddrV4),
) -> anyhow::Result<Stormed> {
    let raw: OwnedFd = socket(AddressFamily::INET, SocketType::RAW, Some(ipproto::RAW))?;
    storm::storm(rate, lasting, |number| {
        let (packet, to) = draw(number);
        sendto(&raw, &packet, SendFlags::empty(), &to).is_ok()
    })
}

fn spoofed_ping(number: u64) -> (Vec<u8>, SocketAddrV4) {
    let source = number.wrapping_mul(STEP) % SOURCES;
    let from = Ipv4Addr::from_bits(FIRST_SOURCE.to_bits() + source as u32);
    let to = SocketAddrV4::new(Ipv4Addr::new(198, 18, 0, 1), PEER_PORT);
    let builder = ipv4(from, *to.ip()).udp(2301, to.port());
    let mut packet = Vec::with_capacity(64);
    builder
        .write(&mut packet, PING)
        .expect("memory takes everything");
    (packet, to)
}

/// The first words of a connection that began before anybody looked.
fn new_flow(from: Ipv4Addr, number: u64) -> (Vec<u8>, SocketAddrV4) {
    let [.., third, high, low] = number.to_be_bytes();
    let to = SocketAddrV4::new(Ipv4Addr::new(198, 18, 1, third), 8080);
    let port = u16::from_be_bytes([high, low]).max(1);
    let builder = ipv4(from, *to.ip())
        .tcp(port, to.port(), 1, 60_000)
        .ack(1)
        .psh();
    let mut packet = Vec::with_capacity(128);
    builder
        .write(&mut packet, WORDS)
        .expect("memory takes everything");
    (packet, to)
}

/// The first part of a datagram whose second part never comes (RFC 791, 3.2).
fn fragment(from: Ipv4Addr, number: u64) -> (Vec<u8>, SocketAddrV4) {
    const MORE_FRAGMENTS: u8 = 0x20;
    let to = SocketAddrV4::new(Ipv4Addr::new(203, 0, 113, 81), 27015);
    let builder = ipv4(from, *to.ip()).udp(2301, to.port());
    let mut packet = Vec::with_capacity(1500);
    builder
        .write(&mut packet, &[0x2a; 1400])
        .expect("memory takes everything");
    let [.., high, low] = (number + 1).to_be_bytes();
    packet[4..6].copy_from_slice(&[high, low]);
    packet[6..8].copy_from_slice(&[MORE_FRAGMENTS, 0]);
    (packet, to)
}

/// The kernel fills in the checksum of a raw packet's header.
fn ipv4(from: Ipv4Addr, to: Ipv4Addr) -> PacketBuilderStep<etherparse::IpHeaders> {
    PacketBuilder::ipv4(from.octets(), to.octets(), 64)
}

/// Connections that never come to a point: each begins like something and goes on in small pieces.
fn connections(
    rate: u32,
    lasting: Duration,
    begins: &[u8],
    goes_on: &[u8],
) -> anyhow::Result<Stormed> {
    let open = |_| {
        let mut stream = TcpStream::connect(DRAIN)?;
        stream.set_nodelay(true)?;
        stream.write_all(begins)?;
        stream.set_nonblocking(true)?;
        Ok(stream)
    };
    let mut streams = (0..CONNECTIONS)
        .map(open)
        .collect::<std::io::Result<Vec<_>>>()?;
    storm::storm(rate, lasting, |number| {
        let stream = &mut streams[(number % CONNECTIONS) as usize];
        match stream.write(goes_on) {
            Ok(len) => len > 0,
            // The window is full.
            Err(error) if error.kind() == ErrorKind::WouldBlock => false,
            Err(_) => open(number).is_ok_and(|anew| {
                *stream = anew;
                true
            }),
        }
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::packet::Packet;

    #[test]
    fn every_packet_of_a_flood_is_well_formed_and_another() {
        let from = Ipv4Addr::new(10, 77, 1, 2);
        let draws: [&dyn Fn(u64) -> (Vec<u8>, SocketAddrV4); 3] =
            [&spoofed_ping, &|number| new_flow(from, number), &|number| {
                fragment(from, number)
            }];
        for draw in draws {
            let drawn: BTreeSet<Vec<u8>> = (0..1000).map(|number| draw(number * 60).0).collect();
            assert_eq!(drawn.len(), 1000);
            for packet in drawn {
                assert!(Packet::parse(&packet).is_ok(), "{packet:02x?}");
            }
        }
    }
}
