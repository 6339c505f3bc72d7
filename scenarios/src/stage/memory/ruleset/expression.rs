//! What rules are made of once compiled: loads, tests and statements.

use std::cell::RefCell;
use std::collections::HashMap;
use std::time::Duration;

use super::Passage;
use super::set::{Key, LONGEST_KEY, Set};
use super::view::Base;

/// Where a number comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    /// Octets of the packet, if it is of that protocol.
    Octets {
        base: Base,
        offset: u16,
        length: u8,
        protocol: Option<u8>,
    },
    PacketMark,
    Family,
    Protocol,
    ConnectionMark,
    ConnectionState,
    ConnectionDirection,
}

/// `NFPROTO_IPV4` of `include/uapi/linux/netfilter.h`; no other packet is looked at here.
pub(super) const FAMILY_IPV4: u32 = 2;
/// The bits of `ct state` as nft writes them.
pub(super) const STATE_INVALID: u32 = 1;
pub(super) const STATE_ESTABLISHED: u32 = 2;
pub(super) const STATE_NEW: u32 = 8;

/// A number read from a packet, its mark or its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Load {
    pub(super) source: Source,
    pub(super) mask: u32,
}

impl Load {
    /// Nothing if the packet has no such thing.
    fn read(&self, passage: &Passage<'_>) -> Option<u32> {
        let packet = &passage.packet;
        let number = match self.source {
            Source::Octets {
                base,
                offset,
                length,
                protocol,
            } => {
                if protocol.is_some_and(|wanted| wanted != packet.protocol()) {
                    return None;
                }
                packet.load(base, offset, length)?
            }
            Source::PacketMark => passage.mark,
            Source::Family => FAMILY_IPV4,
            Source::Protocol => u32::from(packet.protocol()),
            Source::ConnectionMark => passage.connection?.mark,
            Source::ConnectionDirection => u32::from(passage.connection?.is_reply),
            Source::ConnectionState => match passage.connection {
                None => STATE_INVALID,
                Some(connection) if connection.is_new => STATE_NEW,
                Some(_) => STATE_ESTABLISHED,
            },
        };
        Some(number & self.mask)
    }
}

/// What a number is held against.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Comparison {
    /// Both ends included.
    Within(u32, u32),
    Outside(u32, u32),
    AnyBit(u32),
    /// No number satisfies it.
    Never,
}

/// One test of a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Test {
    Compare(Load, Comparison),
    Member {
        /// As many as the set's keys have fields.
        key: Vec<Load>,
        set: usize,
        expected: bool,
    },
    /// Whether this key has had more than its share.
    Over(Load, Budgets),
}

impl Test {
    /// False as well if the test cannot be made.
    pub(super) fn holds(&self, passage: &Passage<'_>, sets: &[Set], now: Duration) -> bool {
        match self {
            Test::Compare(load, comparison) => load
                .read(passage)
                .is_some_and(|number| comparison.holds(number)),
            Test::Member { key, set, expected } => read_key(key, passage)
                .is_some_and(|key| sets[*set].contains(&key, now) == *expected),
            Test::Over(key, budgets) => key
                .read(passage)
                .is_some_and(|key| !budgets.spend(key, now)),
        }
    }
}

/// What each key may still have: a bucket that fills at a rate, as the kernel's (`net/netfilter/nft_limit.c`).
/// A cell, so that a rule is not borrowed for writing while its sets are read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Budgets {
    /// Time that one packet costs, and that is saved at most.
    cost: Duration,
    most: Duration,
    /// Time saved, and when.
    saved: RefCell<HashMap<u32, (Duration, Duration), foldhash::fast::FixedState>>,
}

impl Budgets {
    /// So many packets a second, and `burst` at once.
    pub(super) fn new(rate: u32, burst: u32) -> Self {
        let cost = Duration::from_secs(1) / rate;
        Self {
            cost,
            most: cost * burst,
            saved: RefCell::default(),
        }
    }

    /// Whether there was enough for one more.
    fn spend(&self, key: u32, now: Duration) -> bool {
        let mut saved = self.saved.borrow_mut();
        let (left, since) = saved.entry(key).or_insert((self.most, now));
        let available = (*left + now.saturating_sub(*since)).min(self.most);
        let rest = available.checked_sub(self.cost);
        (*left, *since) = (rest.unwrap_or(available), now);
        rest.is_some()
    }
}

impl Comparison {
    fn holds(self, number: u32) -> bool {
        match self {
            Comparison::Within(low, high) => (low..=high).contains(&number),
            Comparison::Outside(low, high) => !(low..=high).contains(&number),
            Comparison::AnyBit(bits) => number & bits != 0,
            Comparison::Never => false,
        }
    }
}

fn read_key(loads: &[Load], passage: &Passage<'_>) -> Option<Key> {
    let mut key = [0; LONGEST_KEY];
    for (field, load) in key.iter_mut().zip(loads) {
        *field = load.read(passage)?;
    }
    Some(key)
}

/// What a matching rule does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Statement {
    /// Every rule is counted; the statement makes no difference here.
    Count,
    MarkPacket(MarkChange),
    MarkConnection(MarkChange),
    Accept,
    Drop,
    Return,
    Jump(usize),
    Goto(usize),
    Queue {
        number: u16,
        bypass: bool,
    },
}

/// `mark & kept | added`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct MarkChange {
    pub(super) kept: u32,
    pub(super) added: u32,
}

impl MarkChange {
    pub(super) fn applied(self, mark: u32) -> u32 {
        mark & self.kept | self.added
    }
}
