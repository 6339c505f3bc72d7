//! How a conversation gets across an engine from one TCP to another: cut anywhere, out of order,
//! overlapping, repeated, and sent again where it does not arrive.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::ops::Range;

use ftwall::{Action, EngineConfig};
use proptest::prelude::*;

use crate::support::{Connection, Gateway};

/// Who of a connection speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Client,
    Server,
}

/// Who says what, in turn.
pub(crate) type Script = Vec<(Side, Vec<u8>)>;

/// How messages are cut and sent.
#[derive(Debug, Clone)]
pub(crate) struct Delivery {
    /// A kernel follows the connection and keeps its empty segments to itself; else, as in a capture,
    /// all of it is seen.
    pub(crate) is_tracked: bool,
    /// Lengths of the pieces, over and over.
    cuts: Vec<usize>,
    /// By how many octets each piece begins early, over and over.
    overlaps: Vec<usize>,
    /// Which groups of neighbouring pieces arrive the wrong way round, over and over.
    reversals: Vec<bool>,
    /// Which pieces arrive twice, over and over.
    repeats: Vec<bool>,
}

impl Delivery {
    /// One segment per message.
    pub(crate) fn whole(is_tracked: bool) -> Self {
        Self {
            is_tracked,
            cuts: vec![usize::MAX],
            overlaps: vec![0],
            reversals: vec![false],
            repeats: vec![false],
        }
    }

    /// Without segments out of order.
    pub(crate) fn in_order(self) -> Self {
        Self {
            reversals: vec![false],
            ..self
        }
    }

    /// The pieces of a message in the order in which they arrive.
    fn pieces(&self, len: usize) -> Vec<Range<usize>> {
        let mut pieces = Vec::new();
        let mut at = 0_usize;
        for (cut, overlap) in self.cuts.iter().cycle().zip(self.overlaps.iter().cycle()) {
            let end = at.saturating_add(*cut).min(len);
            pieces.push(at.saturating_sub(*overlap)..end);
            at = end;
            if at == len {
                break;
            }
        }
        let groups = pieces.chunks_mut(REORDERED_TOGETHER);
        for (group, _) in groups
            .zip(self.reversals.iter().cycle())
            .filter(|(_, is)| **is)
        {
            group.reverse();
        }
        let twice = pieces.iter().zip(self.repeats.iter().cycle());
        let again: Vec<_> = twice
            .filter(|(_, is)| **is)
            .map(|(piece, _)| piece.clone())
            .collect();
        pieces.extend(again);
        pieces
    }
}

/// Pieces that may arrive the wrong way round: fewer than the segments after which a flow whose first
/// segments say nothing is no longer watched.
const REORDERED_TOGETHER: usize = 3;

/// Any way of delivering messages.
pub(crate) fn delivery() -> impl Strategy<Value = Delivery> {
    let cut = prop_oneof![2 => 1_usize..4, 2 => 1_usize..40, 1 => Just(usize::MAX)];
    let lists = (
        prop::collection::vec(cut, 1..8),
        prop::collection::vec(0_usize..5, 1..6),
        prop::collection::vec(any::<bool>(), 1..5),
        prop::collection::vec(any::<bool>(), 1..5),
    );
    (any::<bool>(), lists).prop_map(
        |(is_tracked, (cuts, overlaps, reversals, repeats))| Delivery {
            is_tracked,
            cuts,
            overlaps,
            reversals,
            repeats,
        },
    )
}

/// What becomes of a conversation.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Fate {
    /// Every message arrived.
    pub(crate) is_complete: bool,
    /// How many messages arrived.
    pub(crate) turns: usize,
    /// How many octets, from its first on, of the message that did not.
    pub(crate) arrived: usize,
    pub(crate) locked: BTreeSet<Ipv4Addr>,
    pub(crate) learned: BTreeSet<SocketAddrV4>,
}

impl Fate {
    /// Carries a conversation across a new gateway until it is over or stuck.
    pub(crate) fn of(script: &Script, how: &Delivery, client: &str, server: &str) -> Self {
        let mut gateway = Gateway::new(EngineConfig::default());
        let mut connection = if how.is_tracked {
            Connection::established(client, server, Some(true))
        } else {
            Connection::open(&mut gateway, client, server)
        };
        let (mut turns, mut arrived) = (0, 0);
        for (side, message) in script {
            arrived = transmit(&mut gateway, &connection, *side, message, how);
            if arrived < message.len() {
                break;
            }
            let len = message.len() as u32;
            match side {
                Side::Client => connection.restart(len, 0),
                Side::Server => connection.restart(0, len),
            }
            turns += 1;
        }
        let locked = gateway.actions.iter().filter_map(|action| match action {
            Action::LockHost { host, .. } => Some(*host),
            _ => None,
        });
        Self {
            is_complete: turns == script.len(),
            turns,
            arrived,
            locked: locked.collect(),
            learned: gateway.learned().into_iter().collect(),
        }
    }
}

/// Sends a message until it has arrived or its sender gives up; how many of its octets the receiver
/// can read, from the first on.
fn transmit(
    gateway: &mut Gateway,
    connection: &Connection,
    side: Side,
    message: &[u8],
    how: &Delivery,
) -> usize {
    let mut has_arrived = vec![false; message.len()];
    let pieces = how.pieces(message.len());
    for _ in 0..=RETRANSMISSIONS {
        for piece in &pieces {
            if has_arrived[piece.clone()].iter().all(|has| *has) {
                continue;
            }
            let octets = &message[piece.clone()];
            let back = (piece.start as u32).wrapping_neg();
            let verdict = match side {
                Side::Client => connection.client_repeats(gateway, back, octets),
                Side::Server => connection.server_repeats(gateway, back, octets),
            };
            if !verdict.is_drop() {
                has_arrived[piece.clone()].fill(true);
            }
        }
    }
    has_arrived.iter().take_while(|has| **has).count()
}

/// How often a sender tries again: fewer times than any system does.
const RETRANSMISSIONS: usize = 5;
