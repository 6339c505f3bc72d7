//! The protocols that are recognised: one line each in [`PROTOCOLS`], each with its kernel
//! pre-filter as data.

use std::ops::RangeInclusive;

/// A protocol that is recognised.
#[derive(Debug, Clone, Copy)]
pub struct Protocol {
    /// Stable name.
    pub name: &'static str,
    /// The datagrams the kernel must hand over: a superset of what the recogniser accepts.
    pub udp_shapes: &'static [UdpShape],
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

/// Every protocol that is recognised.
pub const PROTOCOLS: &[Protocol] = &[Protocol {
    name: "fasttrack",
    udp_shapes: FASTTRACK_SHAPES,
}];

const FASTTRACK_SHAPES: &[UdpShape] = &[
    UdpShape {
        name: "fasttrack_ping",
        direction: Direction::Both,
        only_locked: false,
        payload_len: 10..=23,
        bytes: &[
            ByteMatch::exactly(0, 0x27),
            ByteMatch::exactly(1, 0),
            ByteMatch::exactly(2, 0),
            ByteMatch::exactly(3, 0),
            ByteMatch::exactly(5, 0x80),
        ],
    },
    UdpShape {
        name: "fasttrack_pong",
        direction: Direction::Both,
        only_locked: true,
        payload_len: 15..=28,
        bytes: &[
            ByteMatch::exactly(0, 0x28),
            ByteMatch::exactly(1, 0),
            ByteMatch::exactly(2, 0),
            ByteMatch::exactly(3, 0),
            ByteMatch::exactly(5, 0),
        ],
    },
    UdpShape {
        name: "fasttrack_pong2",
        direction: Direction::Both,
        only_locked: true,
        payload_len: 13..=21,
        bytes: &[
            ByteMatch::exactly(0, 0x29),
            ByteMatch::exactly(1, 0),
            ByteMatch::exactly(2, 0),
            ByteMatch::exactly(3, 0),
        ],
    },
    UdpShape {
        name: "fasttrack_pong2_answer",
        direction: Direction::Both,
        only_locked: true,
        payload_len: 5..=5,
        bytes: &[ByteMatch::exactly(0, 0x2a)],
    },
];
