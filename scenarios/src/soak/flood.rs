//! Hosts inside that send more than a gateway bargains for. They share the place of one that is judged, under
//! addresses of their own: whatever of theirs arrives at a peer is nobody's whom anyone knows.

use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};

use anyhow::Context;
use lab::Node;
use lab::presets::Office;

use super::damage::ip;

/// Addresses of hosts that flood, all owned by one.
const FLOODERS: &str = "10.77.200.0/24";

/// Where clients are told to listen.
const PEER_PORT: u16 = 1214;

/// A ping as the open clients send it.
const PING: &[u8] = b"\x27\x00\x00\x00\x29\x80KaZaA\x00";

/// Hosts that are ready to flood.
#[derive(Debug)]
pub(super) struct Flood {
    hosts: Vec<UdpSocket>,
    pings: u16,
}

impl Flood {
    /// So many hosts, with so many pings each.
    pub(super) fn prepare(node: &Node, hosts: u8, pings: u16) -> anyhow::Result<Self> {
        own(node)?;
        let bind = || (1..=hosts).map(|host| UdpSocket::bind(flooder(host)));
        let hosts = node.enter(|| bind().collect::<std::io::Result<_>>())?;
        let hosts = hosts.context("binding the sockets of a flood")?;
        Ok(Self { hosts, pings })
    }

    /// Sends all of them, each to another peer.
    pub(super) fn send(&self) -> anyhow::Result<()> {
        for number in 0..self.pings {
            for (host, socket) in (0_u16..).zip(&self.hosts) {
                let to = peer(host.wrapping_mul(self.pings).wrapping_add(number));
                socket.send_to(PING, to).context("flooding")?;
            }
        }
        Ok(())
    }
}

/// Every address of the flood is the node's own, as if it had a thousand interfaces.
fn own(node: &Node) -> anyhow::Result<()> {
    ip(node, &format!("route replace local {FLOODERS} dev lo"))
}

fn flooder(host: u8) -> SocketAddrV4 {
    SocketAddrV4::new(Ipv4Addr::new(10, 77, 200, host), 0)
}

fn peer(number: u16) -> SocketAddrV4 {
    let [high, low] = number.to_be_bytes();
    let [first, second, ..] = Office::PEERS.addr().octets();
    SocketAddrV4::new(Ipv4Addr::new(first, second, high, low), PEER_PORT)
}
