//! An IPv4 packet as rules look at it: where its headers begin, and octets behind them.

/// A packet whose IPv4 header holds together. Whatever lies behind may be cut short; loads from there
/// fail then, as they do in the kernel.
#[derive(Debug, Clone, Copy)]
pub struct View<'a> {
    octets: &'a [u8],
    protocol: u8,
    /// Octets of the IPv4 header; nothing in a later fragment.
    transport: Option<usize>,
    /// Where the payload of TCP or UDP begins.
    inner: Option<usize>,
}

/// The protocol number of TCP.
pub const TCP: u8 = 6;
/// The protocol number of UDP.
pub const UDP: u8 = 17;

/// The shortest IPv4 header.
const SHORTEST_HEADER: usize = 20;
const UDP_HEADER: usize = 8;

/// Where an offset counts from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Base {
    Network,
    Transport,
    Inner,
}

impl<'a> View<'a> {
    /// Looks at a packet from its IPv4 header on; none if that header does not hold together.
    #[must_use]
    pub fn parse(octets: &'a [u8]) -> Option<Self> {
        let header = usize::from(octets.first()? & 0x0f) * 4;
        let is_ipv4 = octets[0] >> 4 == 4;
        if !is_ipv4 || header < SHORTEST_HEADER || octets.len() < header {
            return None;
        }
        let length = usize::from(u16::from_be_bytes([octets[2], octets[3]]));
        if length < header || length > octets.len() {
            return None;
        }
        let octets = &octets[..length];
        let protocol = octets[9];
        let fragment_offset = u16::from_be_bytes([octets[6], octets[7]]) & 0x1fff;
        let transport = (fragment_offset == 0).then_some(header);
        Some(Self {
            octets,
            protocol,
            transport,
            inner: transport.and_then(|start| inner(octets, protocol, start)),
        })
    }

    /// The packet, from its IPv4 header on.
    #[must_use]
    pub fn octets(&self) -> &'a [u8] {
        self.octets
    }

    /// The number of the protocol above IPv4.
    #[must_use]
    pub fn protocol(&self) -> u8 {
        self.protocol
    }

    /// Source and destination address.
    #[must_use]
    pub fn addresses(&self) -> [u32; 2] {
        [12, 16].map(|at| self.load(Base::Network, at, 4).unwrap_or_default())
    }

    /// Source and destination port of TCP or UDP.
    #[must_use]
    pub fn ports(&self) -> Option<[u16; 2]> {
        let ports = self.load(Base::Transport, 0, 4)?;
        let has_ports = matches!(self.protocol, TCP | UDP);
        has_ports.then_some([(ports >> 16) as u16, ports as u16])
    }

    /// The flags of TCP, as the octet that holds them.
    #[must_use]
    pub fn tcp_flags(&self) -> Option<u8> {
        let flags = self.load(Base::Transport, 13, 1)?;
        (self.protocol == TCP && self.inner.is_some()).then_some(flags as u8)
    }

    /// What TCP or UDP carries.
    #[must_use]
    pub fn payload(&self) -> Option<&'a [u8]> {
        self.octets.get(self.inner?..)
    }

    /// Up to four octets as a number in network order.
    pub(super) fn load(&self, base: Base, offset: u16, length: u8) -> Option<u32> {
        let base = match base {
            Base::Network => 0,
            Base::Transport => self.transport?,
            Base::Inner => self.inner?,
        };
        let start = base + usize::from(offset);
        let octets = self.octets.get(start..start + usize::from(length))?;
        let number = octets
            .iter()
            .fold(0, |number, octet| number << 8 | u32::from(*octet));
        Some(number)
    }
}

fn inner(octets: &[u8], protocol: u8, transport: usize) -> Option<usize> {
    match protocol {
        TCP => {
            let words = octets.get(transport + 12)? >> 4;
            let start = transport + usize::from(words) * 4;
            (words >= 5 && start <= octets.len()).then_some(start)
        }
        UDP => Some(transport + UDP_HEADER).filter(|start| *start <= octets.len()),
        _ => None,
    }
}
