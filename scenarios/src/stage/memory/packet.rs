//! IPv4 packets as octets: what virtual hosts write, read, cut into fragments and put together again.
//!
//! Headers are the real ones with the right checksums, so that gateway, witnesses and captures meet
//! what they would meet on a line. A packet that is malformed or altered on its way is not delivered.

use std::collections::{BTreeMap, HashMap};
use std::net::{Ipv4Addr, SocketAddrV4};

/// Octets of an IPv4 header without options.
pub(super) const IP_HEADER: usize = 20;

/// Octets of a TCP header without options.
pub(super) const TCP_HEADER: usize = 20;

/// Octets of a UDP header.
pub(super) const UDP_HEADER: usize = 8;

/// Octets of an Ethernet header.
pub(super) const ETHERNET_HEADER: usize = 14;

/// The longest packet a link carries, in octets from the IPv4 header on.
pub(super) const MTU: usize = 1500;

const TCP: u8 = 6;
const UDP: u8 = 17;

const DONT_FRAGMENT: u16 = 0x4000;
const MORE_FRAGMENTS: u16 = 0x2000;
const OFFSET_MASK: u16 = 0x1fff;

/// What the fields of a TCP header say, options left out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Flags {
    pub(super) syn: bool,
    pub(super) ack: bool,
    pub(super) fin: bool,
    pub(super) rst: bool,
    pub(super) psh: bool,
}

impl Flags {
    fn octet(self) -> u8 {
        u8::from(self.fin)
            | u8::from(self.syn) << 1
            | u8::from(self.rst) << 2
            | u8::from(self.psh) << 3
            | u8::from(self.ack) << 4
    }

    fn of(octet: u8) -> Self {
        Self {
            fin: octet & 0x01 != 0,
            syn: octet & 0x02 != 0,
            rst: octet & 0x04 != 0,
            psh: octet & 0x08 != 0,
            ack: octet & 0x10 != 0,
        }
    }
}

/// One TCP segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Segment<'a> {
    pub(super) from: SocketAddrV4,
    pub(super) to: SocketAddrV4,
    pub(super) sequence: u32,
    pub(super) acknowledgement: u32,
    pub(super) flags: Flags,
    pub(super) payload: &'a [u8],
}

/// One UDP datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Datagram<'a> {
    pub(super) from: SocketAddrV4,
    pub(super) to: SocketAddrV4,
    pub(super) payload: &'a [u8],
}

/// What a whole packet carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Carried<'a> {
    Segment(Segment<'a>),
    Datagram(Datagram<'a>),
}

/// What every host of this network announces as its window: more than it ever has in flight.
const WINDOW: u16 = u16::MAX;

/// Options of a SYN: a maximum segment size that fits the MTU (RFC 9293), and a window scale of 7
/// (RFC 7323), as Linux sends them.
const SYN_OPTIONS: [u8; 8] = [2, 4, 0x05, 0xb4, 1, 3, 3, 7];

/// Writes a segment into `out`, whatever was in it before.
pub(super) fn write_segment(
    out: &mut Vec<u8>,
    id: u16,
    segment: &Segment<'_>,
    payload: [&[u8]; 2],
) {
    let options: &[u8] = if segment.flags.syn { &SYN_OPTIONS } else { &[] };
    let header = TCP_HEADER + options.len();
    let length = header + payload[0].len() + payload[1].len();
    begin(
        out,
        id,
        DONT_FRAGMENT,
        TCP,
        [segment.from, segment.to],
        length,
    );
    out.extend(segment.sequence.to_be_bytes());
    out.extend(segment.acknowledgement.to_be_bytes());
    out.push(((header / 4) as u8) << 4);
    out.push(segment.flags.octet());
    out.extend(WINDOW.to_be_bytes());
    out.extend([0; 4]); // checksum, urgent pointer
    out.extend_from_slice(options);
    out.extend_from_slice(payload[0]);
    out.extend_from_slice(payload[1]);
    let checksum = transport_checksum(out);
    out[IP_HEADER + 16..IP_HEADER + 18].copy_from_slice(&checksum.to_be_bytes());
}

/// Writes a datagram into `out`, whatever was in it before.
pub(super) fn write_datagram(out: &mut Vec<u8>, id: u16, datagram: &Datagram<'_>) {
    let length = UDP_HEADER + datagram.payload.len();
    let flags = if IP_HEADER + length > MTU {
        0
    } else {
        DONT_FRAGMENT
    };
    begin(out, id, flags, UDP, [datagram.from, datagram.to], length);
    out.extend((length as u16).to_be_bytes());
    out.extend([0; 2]);
    out.extend_from_slice(datagram.payload);
    // No checksum is written as zero, so a sum of zero is written the other way (RFC 768).
    let checksum = match transport_checksum(out) {
        0 => u16::MAX,
        checksum => checksum,
    };
    out[IP_HEADER + 6..IP_HEADER + 8].copy_from_slice(&checksum.to_be_bytes());
}

/// The IPv4 header and the two ports that both transports begin with.
fn begin(
    out: &mut Vec<u8>,
    id: u16,
    flags: u16,
    protocol: u8,
    [from, to]: [SocketAddrV4; 2],
    length: usize,
) {
    out.clear();
    out.extend([0x45, 0]);
    out.extend(((IP_HEADER + length) as u16).to_be_bytes());
    out.extend(id.to_be_bytes());
    out.extend(flags.to_be_bytes());
    out.extend([64, protocol, 0, 0]);
    out.extend(from.ip().octets());
    out.extend(to.ip().octets());
    seal(out);
    out.extend(from.port().to_be_bytes());
    out.extend(to.port().to_be_bytes());
}

/// Writes the checksum of the IPv4 header.
fn seal(packet: &mut [u8]) {
    packet[10..12].fill(0);
    let checksum = !fold(sum(&packet[..IP_HEADER]));
    packet[10..12].copy_from_slice(&checksum.to_be_bytes());
}

/// The checksum over pseudo header and content of a packet whose checksum field is zero; zero for a
/// packet that carries the right one.
fn transport_checksum(packet: &[u8]) -> u16 {
    let content = &packet[IP_HEADER..];
    let pseudo = sum(&packet[12..20]) + u64::from(packet[9]) + content.len() as u64;
    !fold(pseudo + sum(content))
}

/// Sixteen-bit words added up, an odd octet last counting as the upper half of one (RFC 1071). Four
/// octets at a time: the carries of the upper halves meet the lower ones when folded.
fn sum(bytes: &[u8]) -> u64 {
    let words = bytes.chunks_exact(4);
    let rest = match words.remainder() {
        [] => 0,
        [a] => u32::from_be_bytes([*a, 0, 0, 0]),
        [a, b] => u32::from_be_bytes([*a, *b, 0, 0]),
        [a, b, c, ..] => u32::from_be_bytes([*a, *b, *c, 0]),
    };
    let whole: u64 = words
        .map(|word| u64::from(u32::from_be_bytes([word[0], word[1], word[2], word[3]])))
        .sum();
    whole + u64::from(rest)
}

fn fold(mut sum: u64) -> u16 {
    while sum > u64::from(u16::MAX) {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    sum as u16
}

/// Who sent a packet.
pub(super) fn source(packet: &[u8]) -> Ipv4Addr {
    address(packet, 12)
}

/// Whom a packet is for.
pub(super) fn destination(packet: &[u8]) -> Ipv4Addr {
    address(packet, 16)
}

fn address(packet: &[u8], at: usize) -> Ipv4Addr {
    Ipv4Addr::new(packet[at], packet[at + 1], packet[at + 2], packet[at + 3])
}

/// Whether a packet is a piece of a larger one.
pub(super) fn is_fragment(packet: &[u8]) -> bool {
    word(packet, 6) & (MORE_FRAGMENTS | OFFSET_MASK) != 0
}

fn word(packet: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([packet[at], packet[at + 1]])
}

/// Reads a whole packet as its receiver would; none if a checksum is wrong or a field impossible.
pub(super) fn read(packet: &[u8]) -> Option<Carried<'_>> {
    let header = packet.get(..IP_HEADER)?;
    if header[0] != 0x45
        || usize::from(word(header, 2)) != packet.len()
        || fold(sum(header)) != 0xffff
    {
        return None;
    }
    match header[9] {
        TCP => read_segment(packet).map(Carried::Segment),
        UDP => read_datagram(packet).map(Carried::Datagram),
        _ => None,
    }
}

fn read_segment(packet: &[u8]) -> Option<Segment<'_>> {
    let content = &packet[IP_HEADER..];
    let header = content.get(..TCP_HEADER)?;
    let payload = content.get(usize::from(header[12] >> 4) * 4..)?;
    (transport_checksum(packet) == 0).then(|| Segment {
        from: SocketAddrV4::new(source(packet), word(header, 0)),
        to: SocketAddrV4::new(destination(packet), word(header, 2)),
        sequence: u32::from_be_bytes([header[4], header[5], header[6], header[7]]),
        acknowledgement: u32::from_be_bytes([header[8], header[9], header[10], header[11]]),
        flags: Flags::of(header[13]),
        payload,
    })
}

fn read_datagram(packet: &[u8]) -> Option<Datagram<'_>> {
    let content = &packet[IP_HEADER..];
    let header = content.get(..UDP_HEADER)?;
    let unchecked = word(header, 6) == 0;
    let whole = usize::from(word(header, 4)) == content.len();
    (whole && (unchecked || transport_checksum(packet) == 0)).then(|| Datagram {
        from: SocketAddrV4::new(source(packet), word(header, 0)),
        to: SocketAddrV4::new(destination(packet), word(header, 2)),
        payload: &content[UDP_HEADER..],
    })
}

/// A packet with an Ethernet header before it, as a capture has it.
pub(super) fn frame(packet: &[u8], outward: bool) -> Vec<u8> {
    let (low, high) = ([0x02, 0, 0, 0, 0, 1], [0x02, 0, 0, 0, 0, 2]);
    let [to, from] = if outward { [low, high] } else { [high, low] };
    let mut frame = Vec::with_capacity(ETHERNET_HEADER + packet.len());
    frame.extend(to);
    frame.extend(from);
    frame.extend([0x08, 0x00]);
    frame.extend_from_slice(packet);
    frame
}

/// Cuts a packet into fragments whose payload is at most `size` octets, a multiple of 8.
pub(super) fn fragments(packet: &[u8], size: usize) -> Vec<Vec<u8>> {
    let content = &packet[IP_HEADER..];
    let last = content.len().saturating_sub(1) / size;
    content
        .chunks(size)
        .enumerate()
        .map(|(place, piece)| {
            let more = if place == last { 0 } else { MORE_FRAGMENTS };
            let mut fragment = packet[..IP_HEADER].to_vec();
            fragment.extend_from_slice(piece);
            let length = fragment.len() as u16;
            fragment[2..4].copy_from_slice(&length.to_be_bytes());
            let offset = (place * size / 8) as u16 | more;
            fragment[6..8].copy_from_slice(&offset.to_be_bytes());
            seal(&mut fragment);
            fragment
        })
        .collect()
}

/// Puts fragments together, as Linux does before connection tracking and before delivery.
#[derive(Debug, Default)]
pub(super) struct Reassembler {
    unfinished: HashMap<(Ipv4Addr, Ipv4Addr, u16, u8), Pieces>,
}

#[derive(Debug, Default)]
struct Pieces {
    by_offset: BTreeMap<usize, Vec<u8>>,
    length: Option<usize>,
    longest: usize,
}

/// A packet that came in pieces.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Reassembled {
    pub(super) packet: Vec<u8>,
    /// Octets of payload in the largest piece: Linux sends it on in pieces as large again.
    pub(super) largest: usize,
}

impl Reassembler {
    /// Takes a fragment; returns the packet once nothing is missing.
    pub(super) fn take(&mut self, fragment: &[u8]) -> Option<Reassembled> {
        let key = (
            source(fragment),
            destination(fragment),
            word(fragment, 4),
            fragment[9],
        );
        let pieces = self.unfinished.entry(key).or_default();
        pieces.add(fragment);
        let content = pieces.content()?;
        let largest = pieces.longest;
        self.unfinished.remove(&key);
        let mut packet = fragment[..IP_HEADER].to_vec();
        packet.extend(content);
        let length = packet.len() as u16;
        packet[2..4].copy_from_slice(&length.to_be_bytes());
        packet[6..8].fill(0);
        seal(&mut packet);
        Some(Reassembled { packet, largest })
    }
}

impl Pieces {
    fn add(&mut self, fragment: &[u8]) {
        let (field, payload) = (word(fragment, 6), &fragment[IP_HEADER..]);
        let offset = usize::from(field & OFFSET_MASK) * 8;
        if field & MORE_FRAGMENTS == 0 {
            self.length = Some(offset + payload.len());
        }
        self.longest = self.longest.max(payload.len());
        self.by_offset
            .entry(offset)
            .or_insert_with(|| payload.to_vec());
    }

    /// Everything in order, if there is no gap.
    fn content(&self) -> Option<Vec<u8>> {
        let length = self.length?;
        let mut content = Vec::with_capacity(length);
        for (offset, piece) in &self.by_offset {
            if *offset != content.len() {
                return None;
            }
            content.extend_from_slice(piece);
        }
        (content.len() == length).then_some(content)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ends() -> [SocketAddrV4; 2] {
        ["10.77.1.1:40000", "198.18.0.1:1214"].map(|text| text.parse().unwrap())
    }

    fn datagram(payload: &[u8]) -> Vec<u8> {
        let [from, to] = ends();
        let mut packet = Vec::new();
        write_datagram(&mut packet, 7, &Datagram { from, to, payload });
        packet
    }

    #[test]
    fn what_is_written_is_read_again() {
        let [from, to] = ends();
        let segment = Segment {
            from,
            to,
            sequence: 0xffff_fffe,
            acknowledgement: 5,
            flags: Flags {
                ack: true,
                psh: true,
                ..Flags::default()
            },
            payload: b"odd",
        };
        let mut packet = Vec::new();
        write_segment(&mut packet, 1, &segment, [b"o", b"dd"]);
        assert_eq!(read(&packet), Some(Carried::Segment(segment)));

        let packet = datagram(b"four");
        let expected = Datagram {
            from,
            to,
            payload: b"four",
        };
        assert_eq!(read(&packet), Some(Carried::Datagram(expected)));
    }

    #[test]
    fn a_second_implementation_finds_the_checksums_right() {
        let packet = datagram(b"a payload of odd length");
        let read = etherparse::PacketHeaders::from_ip_slice(&packet).unwrap();
        let Some(etherparse::TransportHeader::Udp(udp)) = read.transport else {
            panic!("UDP was written");
        };
        let etherparse::NetHeaders::Ipv4(ip, _) = read.net.unwrap() else {
            panic!("IPv4 was written");
        };
        assert_eq!(ip.header_checksum, ip.calc_header_checksum());
        let checksum = udp.calc_checksum_ipv4(&ip, read.payload.slice()).unwrap();
        assert_eq!(udp.checksum, checksum);
    }

    #[test]
    fn a_packet_altered_in_any_octet_that_a_sum_covers_is_not_read() {
        let packet = datagram(b"content");
        for place in 0..packet.len() {
            let mut altered = packet.clone();
            altered[place] ^= 0x10;
            assert_eq!(read(&altered), None, "octet {place}");
        }
    }

    #[test]
    fn fragments_come_together_again_in_any_order_and_twice_over() {
        let packet = datagram(&[7; 100]);
        let mut pieces = fragments(&packet, 16);
        assert_eq!(pieces.len(), 7);
        assert!(pieces.iter().all(|piece| is_fragment(piece)));
        pieces.reverse();
        let mut reassembler = Reassembler::default();
        assert_eq!(reassembler.take(&pieces[0]), None);
        let mut whole = pieces.iter().filter_map(|piece| reassembler.take(piece));
        let whole = whole.next().expect("every piece is there");
        assert_eq!(whole.largest, 16);
        assert_eq!(read(&whole.packet), read(&packet));
    }
}
