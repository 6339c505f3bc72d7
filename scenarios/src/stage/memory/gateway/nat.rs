//! Rewriting one end of a packet, its checksums kept right (RFC 1624).

use super::super::ruleset::{TCP, UDP, View};

/// The end of a packet that is rewritten.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    Source,
    Destination,
}

/// Where the IPv4 header's checksum stands.
const IP_SUM: usize = 10;

/// Gives one end of a packet another address and, where its protocol has ports, another port.
pub(super) fn rewrite(packet: &mut [u8], end: End, address: u32, port: u16) {
    let Some(view) = View::parse(packet) else {
        return;
    };
    let (protocol, has_ports) = (view.protocol(), view.ports().is_some());
    let transport = usize::from(packet[0] & 0x0f) * 4;
    let (address_at, port_at) = match end {
        End::Source => (12, transport),
        End::Destination => (16, transport + 2),
    };
    let sum = match protocol {
        TCP => Some(transport + 16),
        UDP => Some(transport + 6),
        _ => None,
    };
    let sum = sum.filter(|at| has_ports && packet.len() >= at + 2);
    // A datagram without a checksum stays without one (RFC 768).
    let sum = sum.filter(|at| protocol != UDP || word(packet, *at) != 0);
    for (at, new) in [
        (address_at, (address >> 16) as u16),
        (address_at + 2, address as u16),
    ] {
        replace(packet, at, new, &[Some(IP_SUM), sum]);
    }
    if has_ports {
        replace(packet, port_at, port, &[sum]);
    }
    if let Some(at) = sum.filter(|at| protocol == UDP && word(packet, *at) == 0) {
        packet[at..at + 2].copy_from_slice(&u16::MAX.to_be_bytes());
    }
}

fn word(packet: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([packet[at], packet[at + 1]])
}

/// Writes a word and corrects the sums over it: `HC' = ~(~HC + ~m + m')`, equation 3 of RFC 1624.
fn replace(packet: &mut [u8], at: usize, new: u16, sums: &[Option<usize>]) {
    let old = word(packet, at);
    packet[at..at + 2].copy_from_slice(&new.to_be_bytes());
    for sum in sums.iter().flatten() {
        let total = u32::from(!word(packet, *sum)) + u32::from(!old) + u32::from(new);
        let folded = (total & 0xffff) + (total >> 16);
        let folded = (folded & 0xffff) + (folded >> 16);
        packet[*sum..sum + 2].copy_from_slice(&(!(folded as u16)).to_be_bytes());
    }
}
