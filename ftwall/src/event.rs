//! What the engine reports, in the outer shape of Suricata's EVE log.
//!
//! The shell adds `timestamp`; everything of our own stands in the `ftwall` object. Payload is
//! never part of an event.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};

use serde::Serialize;

use crate::config::{Mode, NeverBlock};
use crate::{Evidence, Verdict};

/// Something the engine reports.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Event {
    /// What happened.
    pub event_type: EventType,
    /// The packet that made it happen, if one did.
    #[serde(flatten)]
    pub packet: Option<PacketEnds>,
    /// Everything of our own.
    pub ftwall: Details,
}

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub enum EventType {
    /// A packet was dropped. Sampled per client: `suppressed` says how many were not reported.
    #[serde(rename = "packet.drop")]
    PacketDrop,
    /// A packet of a monitored host passed that would have been dropped. Sampled alike.
    #[serde(rename = "packet.would_drop")]
    PacketWouldDrop,
    /// An inside host was locked.
    #[serde(rename = "client.locked")]
    ClientLocked,
    /// A lock ran out.
    #[serde(rename = "client.released")]
    ClientReleased,
    /// A locked host was sent a probe.
    #[serde(rename = "client.probed")]
    ClientProbed,
    /// A peer was learned.
    #[serde(rename = "peer.learned")]
    PeerLearned,
    /// A peer was not learned, with the reason in `refusal`.
    #[serde(rename = "peer.refused")]
    PeerRefused,
    /// A peer was forgotten.
    #[serde(rename = "peer.expired")]
    PeerExpired,
    /// The operator lets `target` through for a time.
    #[serde(rename = "operator.unblocked")]
    OperatorUnblocked,
    /// The time for which the operator let `target` through is over.
    #[serde(rename = "operator.unblock_ended")]
    OperatorUnblockEnded,
    /// The operator locked a client, or blocked a peer of a client's.
    #[serde(rename = "operator.blocked")]
    OperatorBlocked,
}

/// The ends of the packet that an event is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct PacketEnds {
    /// Sender.
    pub src_ip: IpAddr,
    /// Sender's port.
    pub src_port: u16,
    /// Receiver.
    pub dest_ip: IpAddr,
    /// Receiver's port.
    pub dest_port: u16,
    /// `TCP` or `UDP`.
    pub proto: &'static str,
}

impl PacketEnds {
    /// The ends of a packet of protocol `proto` from `src` to `dest`.
    #[must_use]
    pub fn new(proto: &'static str, src: SocketAddr, dest: SocketAddr) -> Self {
        Self {
            src_ip: src.ip(),
            src_port: src.port(),
            dest_ip: dest.ip(),
            dest_port: dest.port(),
            proto,
        }
    }
}

/// The `ftwall` object of an event.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Details {
    /// The inside host concerned.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client: Option<Ipv4Addr>,
    /// The outside peer concerned.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peer: Option<SocketAddrV4>,
    /// What the operator named.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<NeverBlock>,
    /// What was seen.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub evidence: Option<Evidence>,
    /// What became of the packet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub verdict: Option<VerdictDetails>,
    /// What would have become of the packet, had its host not only been monitored.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub would_have: Option<VerdictDetails>,
    /// What is done about this client, if not everything.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<Mode>,
    /// Why a peer was not learned.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refusal: Option<Refusal>,
    /// How many events of this kind about this client were left out since the last one.
    #[serde(skip_serializing_if = "is_zero")]
    pub suppressed: u32,
}

/// What became of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct VerdictDetails {
    /// `pass`, `tolerate`, `clear` or `drop`.
    pub action: &'static str,
    /// Stable name of the reason.
    pub reason: &'static str,
}

impl From<Verdict> for VerdictDetails {
    fn from(verdict: Verdict) -> Self {
        Self {
            action: verdict.action(),
            reason: verdict.reason(),
        }
    }
}

/// Why a peer was not learned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Refusal {
    /// The configuration says never to block it.
    NeverBlock,
    /// It is a private, local or otherwise special address.
    SpecialAddress,
    /// It is a system port that no client listens on: somebody else's names, mail or remote work.
    SystemPort,
    /// It has proven itself harmless within the last hour.
    Proven,
    /// The host has taught its share for this minute.
    TooMany,
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "the signature serde asks for"
)]
const fn is_zero(number: &u32) -> bool {
    *number == 0
}
