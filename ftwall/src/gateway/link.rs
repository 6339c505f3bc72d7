//! Link layers of captures: where in a frame the IP packet begins.
//!
//! Numbers are those of the tcpdump project's link-type registry.

use thiserror::Error;

/// A link type that is not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("link type {0} is not supported; convert the capture to Ethernet or raw IP")]
pub struct UnknownLinkType(pub i32);

/// What a frame holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content<'a> {
    /// A packet, from its IP header on.
    Ip(&'a [u8]),
    /// Something else: ARP, a control frame, encrypted or unknown data.
    Other,
    /// Too short for its own headers.
    Short,
}

/// Finds the IP packet in a frame of this link type.
///
/// # Errors
/// If the link type is not known.
pub fn content(link_type: i32, frame: &[u8]) -> Result<Content<'_>, UnknownLinkType> {
    let found = match link_type {
        NULL | LOOP => behind(frame, 4).map(ip),
        ETHERNET => ethernet(frame),
        PPP => ppp(frame),
        PPP_HDLC | C_HDLC => hdlc(frame),
        PPP_ETHER => pppoe(frame),
        RAW | RAW_BSD | RAW_OPENBSD | IPV4 | IPV6 => Some(ip(frame)),
        IEEE802_11 => wireless(frame),
        IEEE802_11_RADIOTAP => radiotap(frame),
        PPI => ppi(frame)?,
        LINUX_SLL => typed(frame, 14, 16),
        LINUX_SLL2 => typed(frame, 0, 20),
        unknown => return Err(UnknownLinkType(unknown)),
    };
    Ok(found.unwrap_or(Content::Short))
}

const NULL: i32 = 0;
const ETHERNET: i32 = 1;
const PPP: i32 = 9;
const RAW_BSD: i32 = 12;
const RAW_OPENBSD: i32 = 14;
const PPP_HDLC: i32 = 50;
const PPP_ETHER: i32 = 51;
const RAW: i32 = 101;
const C_HDLC: i32 = 104;
const IEEE802_11: i32 = 105;
const LOOP: i32 = 108;
const LINUX_SLL: i32 = 113;
const IEEE802_11_RADIOTAP: i32 = 127;
const PPI: i32 = 192;
const IPV4: i32 = 228;
const IPV6: i32 = 229;
const LINUX_SLL2: i32 = 276;

/// Tells IP by its version nibble, for link layers that say no more.
fn ip(octets: &[u8]) -> Content<'_> {
    match octets.first().map(|first| first >> 4) {
        Some(4 | 6) => Content::Ip(octets),
        Some(_) => Content::Other,
        None => Content::Short,
    }
}

fn ethernet(frame: &[u8]) -> Option<Content<'_>> {
    typed(frame, 12, 14)
}

/// A header of `len` octets with an EtherType in it.
fn typed(frame: &[u8], type_at: usize, len: usize) -> Option<Content<'_>> {
    ether_payload(word(frame, type_at)?, behind(frame, len)?)
}

fn ether_payload(ether_type: u16, payload: &[u8]) -> Option<Content<'_>> {
    match ether_type {
        0x0800 | 0x86dd => Some(Content::Ip(payload)),
        // IEEE 802.1Q, 802.1ad and what came before it; may be nested.
        0x8100 | 0x88a8 | 0x9100 => ether_payload(word(payload, 2)?, behind(payload, 4)?),
        0x8864 => pppoe(payload),
        0x8847 | 0x8848 => mpls(payload),
        // Up to 1500 the field is a length and IEEE 802.2 follows.
        0..=1500 => snap(payload),
        _ => Some(Content::Other),
    }
}

/// Logical link control with a subnetwork access header, or anything else.
fn snap(payload: &[u8]) -> Option<Content<'_>> {
    match payload {
        [0xaa, 0xaa, 3, 0, 0, 0, high, low, rest @ ..] => {
            ether_payload(u16::from_be_bytes([*high, *low]), rest)
        }
        _ => Some(Content::Other),
    }
}

fn mpls(mut payload: &[u8]) -> Option<Content<'_>> {
    loop {
        let is_last_label = payload.get(2)? & 1 == 1;
        payload = behind(payload, 4)?;
        if is_last_label {
            return Some(ip(payload));
        }
    }
}

/// RFC 2516: version and type, code, session, length; then PPP.
fn pppoe(payload: &[u8]) -> Option<Content<'_>> {
    ppp(behind(payload, 6)?)
}

/// RFC 1661, with or without the address and control octets of RFC 1662.
fn ppp(frame: &[u8]) -> Option<Content<'_>> {
    let frame = frame.strip_prefix(&[0xff, 3]).unwrap_or(frame);
    Some(match frame {
        [0, 0x21 | 0x57, rest @ ..] | [0x21 | 0x57, rest @ ..] => Content::Ip(rest),
        [] => Content::Short,
        _ => Content::Other,
    })
}

/// Cisco's framing, or PPP's where the address says so.
fn hdlc(frame: &[u8]) -> Option<Content<'_>> {
    if frame.starts_with(&[0xff, 3]) {
        ppp(frame)
    } else {
        typed(frame, 2, 4)
    }
}

fn radiotap(frame: &[u8]) -> Option<Content<'_>> {
    let len = u16::from_le_bytes([*frame.get(2)?, *frame.get(3)?]);
    wireless(behind(frame, len.into())?)
}

/// Per-packet information: a header of its own length, then a frame of another link type.
fn ppi(frame: &[u8]) -> Result<Option<Content<'_>>, UnknownLinkType> {
    let [_, _, len_low, len_high, type0, type1, type2, type3, ..] = *frame else {
        return Ok(None);
    };
    let inner = i32::from_le_bytes([type0, type1, type2, type3]);
    if inner == PPI {
        return Ok(Some(Content::Other));
    }
    let len = u16::from_le_bytes([len_low, len_high]);
    behind(frame, len.into())
        .map(|rest| content(inner, rest))
        .transpose()
}

/// An IEEE 802.11 frame: only data frames in the clear hold IP.
fn wireless(frame: &[u8]) -> Option<Content<'_>> {
    let (kind, flags) = (*frame.first()?, *frame.get(1)?);
    let (is_data, has_no_data) = (kind & 0x0c == 0x08, kind & 0x40 != 0);
    let is_encrypted = flags & 0x40 != 0;
    if !is_data || has_no_data || is_encrypted {
        return Some(Content::Other);
    }
    let fourth_address = if flags & 3 == 3 { 6 } else { 0 };
    let quality_of_service = if kind & 0x80 != 0 { 2 } else { 0 };
    let high_throughput = if quality_of_service > 0 && flags & 0x80 != 0 {
        4
    } else {
        0
    };
    snap(behind(
        frame,
        24 + fourth_address + quality_of_service + high_throughput,
    )?)
}

fn behind(octets: &[u8], len: usize) -> Option<&[u8]> {
    octets.get(len..)
}

fn word(octets: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes([*octets.get(at)?, *octets.get(at + 1)?]))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PACKET: &[u8] = &[0x45, 0, 0, 20];

    #[test]
    fn the_packet_is_found_behind_every_supported_header() {
        let headers: [(i32, &[u8]); 20] = [
            (NULL, &[2, 0, 0, 0]),
            (LOOP, &[0, 0, 0, 2]),
            (
                ETHERNET,
                b"\x01\x02\x03\x04\x05\x06\x01\x02\x03\x04\x05\x06\x08\x00",
            ),
            // One VLAN tag, then two.
            (ETHERNET, b"............\x81\x00\x00\x05\x08\x00"),
            (
                ETHERNET,
                b"............\x88\xa8\x00\x05\x81\x00\x00\x06\x08\x00",
            ),
            (
                ETHERNET,
                b"............\x88\x64\x11\x00\x00\x01\x00\x16\x00\x21",
            ),
            (
                ETHERNET,
                b"............\x88\x47\x00\x01\x00\x40\x00\x02\x01\x40",
            ),
            (
                ETHERNET,
                b"............\x00\x2e\xaa\xaa\x03\x00\x00\x00\x08\x00",
            ),
            (RAW, b""),
            (RAW_BSD, b""),
            (RAW_OPENBSD, b""),
            (IPV4, b""),
            (LINUX_SLL, b"..............\x08\x00"),
            (LINUX_SLL2, b"\x08\x00.................."),
            (PPP, b"\xff\x03\x00\x21"),
            (PPP, b"\x21"),
            (C_HDLC, b"\x0f\x00\x08\x00"),
            (PPP_HDLC, b"\xff\x03\x00\x21"),
            (PPP_ETHER, b"\x11\x00\x00\x01\x00\x16\x00\x21"),
            (
                IEEE802_11,
                b"\x08\x01......................\xaa\xaa\x03\x00\x00\x00\x08\x00",
            ),
        ];
        for (link_type, header) in headers {
            let frame = [header, PACKET].concat();
            assert_eq!(
                content(link_type, &frame),
                Ok(Content::Ip(PACKET)),
                "type {link_type}"
            );
        }
    }

    #[test]
    fn wireless_frames_are_found_behind_their_capture_headers() {
        let wireless = b"\x88\x01........................\xaa\xaa\x03\x00\x00\x00\x08\x00";
        let radiotap = [&b"\x00\x00\x08\x00...."[..], wireless, PACKET].concat();
        assert_eq!(
            content(IEEE802_11_RADIOTAP, &radiotap),
            Ok(Content::Ip(PACKET))
        );
        let ppi = [&b"\x00\x00\x08\x00\x69\x00\x00\x00"[..], wireless, PACKET].concat();
        assert_eq!(content(PPI, &ppi), Ok(Content::Ip(PACKET)));
    }

    #[test]
    fn what_is_not_ip_is_said_to_be_something_else() {
        assert_eq!(
            content(ETHERNET, b"............\x08\x06\x00\x01"),
            Ok(Content::Other)
        );
        assert_eq!(
            content(IEEE802_11, b"\x80\x00......................"),
            Ok(Content::Other)
        );
        assert_eq!(content(RAW, &[0x15]), Ok(Content::Other));
        assert_eq!(content(ETHERNET, b"....."), Ok(Content::Short));
    }

    #[test]
    fn an_unknown_link_type_is_named() {
        let error = content(147, b"....").unwrap_err();
        assert!(error.to_string().contains("link type 147"), "{error}");
    }

    proptest! {
        #[test]
        fn any_frame_of_any_type_is_read_or_refused(
            link_type in prop::sample::select(vec![0, 1, 9, 50, 51, 104, 105, 113, 127, 192, 276, 999]),
            frame in prop::collection::vec(any::<u8>(), 0..80),
        ) {
            let _ = content(link_type, &frame);
        }
    }
}
