//! The protocols that are recognised: one line each in [`PROTOCOLS`], each with its kernel
//! pre-filter as data.
//!
//! A recogniser reads the heads of a conversation and says what it sees. It never sees a body,
//! knows no host or peer, and decides nothing.

mod fasttrack;
pub(crate) mod head;
mod short_payload;
mod web;

use std::net::SocketAddrV4;
use std::ops::RangeInclusive;

use crate::Evidence;
use crate::config::Reply;
use crate::verdict::ClearReason;
pub use short_payload::ShortPayload;

/// First segments whose connections the kernel may clear by itself, where no host is locked and the
/// address is known to serve something else than FastTrack.
pub const HARMLESS_SHAPES: &[HarmlessShape] = &[web::CLIENT_HELLO];

/// Every protocol that is recognised.
pub const PROTOCOLS: &[Protocol] = &[fasttrack::PROTOCOL];

/// A protocol that is recognised.
#[derive(Debug, Clone, Copy)]
pub struct Protocol {
    /// Stable name.
    pub name: &'static str,
    /// The datagrams the kernel must hand over: a superset of what the recogniser accepts.
    pub udp_shapes: &'static [UdpShape],
    datagram: fn(&[u8]) -> Option<Evidence>,
    conversation: fn(&Conversation<'_>) -> Reading,
    midstream: fn(&[u8]) -> Option<Evidence>,
    announced_peers: fn(&[u8]) -> Vec<SocketAddrV4>,
    answer: fn(&Answer<'_>) -> Option<ShortPayload>,
    probe: fn(&[u8]) -> Option<ShortPayload>,
}

/// The first octets of both directions of one TCP conversation.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Conversation<'a> {
    pub(crate) initiator: Head<'a>,
    pub(crate) responder: Head<'a>,
}

/// The first octets of one direction.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Head<'a> {
    pub(crate) octets: &'a [u8],
    /// No more will be gathered, although there may be more.
    pub(crate) has_ended: bool,
    /// Where the furthest octet known to exist ends: beyond `octets` if there is a gap.
    pub(crate) extent: usize,
}

impl Head<'_> {
    /// Whether more octets are known to follow behind a gap.
    pub(crate) const fn is_followed(&self) -> bool {
        self.extent > self.octets.len()
    }
}

/// What a protocol's recogniser says about a conversation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Reading {
    pub(crate) evidence: Option<Evidence>,
    /// What this recogniser needs if its evidence is not enough; nothing, if it has seen enough.
    pub(crate) needs: Option<Needs>,
}

/// What a recogniser needs before it can say more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Needs {
    /// More octets; those seen so far may pass.
    More,
    /// More octets; those seen so far must not pass.
    Withholding(Patience),
}

/// How long octets are withheld from a sender that has nothing to add to them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Patience {
    /// Ordinary programs say this all the time: let through at once, unless whole it would be held
    /// against the sender.
    OfSuspects,
    /// Every web request begins like this: let through at once where the web is expected.
    Least,
    /// Ordinary programs say this too: a sender that keeps repeating it is let through.
    Limited,
    /// Nobody else says this.
    Endless,
}

/// What is known about a conversation that no evidence speaks against.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    /// Proven harmless.
    Harmless(ClearReason),
    /// A whole request of the web without a mark, not answered yet: harmless if who is asked has proven
    /// itself before, else it can still become anything.
    Asked,
    /// It can still become anything.
    Open,
    /// It can still become FastTrack, and must not get through if it does.
    Withheld(Patience),
    /// It will never be recognised.
    Unrecognised,
}

/// Reads a whole datagram.
pub(crate) fn read_datagram(payload: &[u8]) -> Option<Evidence> {
    PROTOCOLS
        .iter()
        .find_map(|protocol| (protocol.datagram)(payload))
}

/// Whether a datagram proves its flow harmless.
pub(crate) fn prove_datagram(payload: &[u8]) -> Option<ClearReason> {
    web::is_quic_initial(payload).then_some(ClearReason::QuicInitial)
}

/// Reads the heads of a conversation that is followed from its beginning.
pub(crate) fn read_conversation(conversation: &Conversation<'_>) -> (Option<Evidence>, Standing) {
    let mut needs_more = false;
    let mut weak = None;
    for protocol in PROTOCOLS {
        let reading = (protocol.conversation)(conversation);
        match reading.needs {
            Some(Needs::Withholding(patience)) => {
                return (reading.evidence, Standing::Withheld(patience));
            }
            Some(Needs::More) => needs_more = true,
            None => {}
        }
        weak = weak.or(reading.evidence);
    }
    let standing = if needs_more {
        Standing::Open
    } else {
        web::standing(conversation)
    };
    match (weak, standing) {
        (Some(_), Standing::Asked) => (weak, Standing::Open),
        (weak, standing) => (weak, standing),
    }
}

/// Reads the first payload seen of a conversation that was up before.
pub(crate) fn read_midstream(octets: &[u8]) -> Option<Evidence> {
    PROTOCOLS
        .iter()
        .find_map(|protocol| (protocol.midstream)(octets))
}

/// Further peers that the head of a message names.
pub(crate) fn announced_peers(octets: &[u8]) -> Vec<SocketAddrV4> {
    PROTOCOLS
        .iter()
        .flat_map(|protocol| (protocol.announced_peers)(octets))
        .collect()
}

/// What a client's ping is to be answered with.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Answer<'a> {
    pub(crate) ping: &'a [u8],
    pub(crate) reply: Reply,
    /// Drawn by the caller, for fields that a real peer would fill at random.
    pub(crate) draw: u32,
    pub(crate) client: SocketAddrV4,
}

/// A well-formed answer to a ping, in the network the ping names.
pub(crate) fn answer_to(answer: &Answer<'_>) -> Option<ShortPayload> {
    PROTOCOLS
        .iter()
        .find_map(|protocol| (protocol.answer)(answer))
}

/// A datagram that a client running in the ping's network reacts to.
pub(crate) fn probe_for(ping: &[u8]) -> Option<ShortPayload> {
    PROTOCOLS.iter().find_map(|protocol| (protocol.probe)(ping))
}

/// A kind of datagram that the kernel must hand over, said in bytes a packet filter can compare.
#[derive(Debug, Clone)]
pub struct UdpShape {
    /// Stable name.
    pub name: &'static str,
    /// Which way such a datagram travels to matter.
    pub direction: Direction,
    /// Whether it matters only to or from a locked host.
    pub only_locked: bool,
    /// Length of the payload in octets.
    pub payload_len: RangeInclusive<u16>,
    /// Octets that must have these values.
    pub bytes: &'static [ByteMatch],
}

impl UdpShape {
    /// Whether a payload of `len` octets that starts with `bytes` has this shape.
    #[must_use]
    pub fn matches(&self, len: u16, bytes: &[u8]) -> bool {
        self.payload_len.contains(&len)
            && self.bytes.iter().all(|wanted| {
                bytes
                    .get(usize::from(wanted.offset))
                    .is_some_and(|byte| byte & wanted.mask == wanted.value)
            })
    }
}

/// A first segment that proves its connection harmless as it stands, said in words a packet filter can
/// compare: always less than the recogniser takes for proof, and never as short as an opener.
#[derive(Debug, Clone, Copy)]
pub struct HarmlessShape {
    /// Stable name.
    pub name: &'static str,
    /// Octets of payload in the segment, at least.
    pub min_payload: u16,
    /// What its first octets are.
    pub words: &'static [WordRange],
}

impl HarmlessShape {
    /// Whether the payload of a segment has this shape.
    #[must_use]
    pub fn matches(&self, payload: &[u8]) -> bool {
        payload.len() >= usize::from(self.min_payload)
            && self.words.iter().all(|word| word.matches(payload))
    }
}

/// Neighbouring octets of a payload, and between what they are as a number in network order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WordRange {
    /// Distance from the first octet of the payload.
    pub offset: u8,
    /// How many octets, one to four.
    pub octets: u8,
    /// The least number.
    pub low: u32,
    /// The greatest number.
    pub high: u32,
}

impl WordRange {
    fn matches(self, payload: &[u8]) -> bool {
        let start = usize::from(self.offset);
        let octets = payload.get(start..start + usize::from(self.octets));
        octets.is_some_and(|octets| {
            let number = octets
                .iter()
                .fold(0, |number, octet| number << 8 | u32::from(*octet));
            (self.low..=self.high).contains(&number)
        })
    }
}

/// Which way a datagram travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Direction {
    /// From inside to outside.
    Outbound,
    /// From outside to inside.
    Inbound,
    /// Either way.
    Both,
}

/// One octet of a payload and what it must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ByteMatch {
    /// Distance from the first octet of the payload.
    pub offset: u8,
    /// Bits that are compared.
    pub mask: u8,
    /// What these bits must be.
    pub value: u8,
}

impl ByteMatch {
    /// The whole octet at `offset` must be `value`.
    #[must_use]
    pub const fn exactly(offset: u8, value: u8) -> Self {
        Self {
            offset,
            mask: 0xff,
            value,
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    #[test]
    fn a_shape_is_told_by_its_length_and_its_octets_as_far_as_they_are_compared() {
        const BYTES: &[ByteMatch] = &[
            ByteMatch::exactly(0, 0x27),
            ByteMatch {
                offset: 1,
                mask: 0xf0,
                value: 0x40,
            },
        ];
        let shape = UdpShape {
            name: "test",
            direction: Direction::Both,
            only_locked: false,
            payload_len: 3..=5,
            bytes: BYTES,
        };
        assert!(shape.matches(3, b"\x27\x4f\0") && shape.matches(5, b"\x27\x40\0\0\0"));
        assert!(!shape.matches(2, b"\x27\x4f") && !shape.matches(6, b"\x27\x4f\0\0\0\0"));
        assert!(!shape.matches(3, b"\x28\x4f\0") && !shape.matches(3, b"\x27\x5f\0"));
        assert!(!shape.matches(3, b"\x27"), "cut short");
    }

    /// The head of one direction, for tests.
    pub(crate) fn head(octets: &[u8]) -> Head<'_> {
        Head {
            octets,
            has_ended: false,
            extent: octets.len(),
        }
    }

    /// A conversation in which both sides have said so much.
    pub(crate) fn conversation<'a>(initiator: &'a [u8], responder: &'a [u8]) -> Conversation<'a> {
        Conversation {
            initiator: head(initiator),
            responder: head(responder),
        }
    }
}
