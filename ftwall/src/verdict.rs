//! Verdicts and their reasons: the same names in logs, counters, events and tests.

use serde::Serialize;

/// What becomes of one packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verdict {
    /// This packet passes; the next one of its flow is judged again.
    Pass(PassReason),
    /// The flow was watched for long enough without proof. It passes while neither end is locked.
    Tolerate(TolerateReason),
    /// The flow is proven harmless and need not be judged again.
    Clear(ClearReason),
    /// The packet is dropped, silently.
    Drop(DropReason),
}

impl Verdict {
    /// Stable name of what is done: `pass`, `tolerate`, `clear` or `drop`.
    #[must_use]
    pub const fn action(self) -> &'static str {
        match self {
            Self::Pass(_) => "pass",
            Self::Tolerate(_) => "tolerate",
            Self::Clear(_) => "clear",
            Self::Drop(_) => "drop",
        }
    }

    /// Stable name of why.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Pass(reason) => reason.name(),
            Self::Tolerate(reason) => reason.name(),
            Self::Clear(reason) => reason.name(),
            Self::Drop(reason) => reason.name(),
        }
    }

    /// Number of different verdicts.
    pub(crate) const COUNT: usize = PassReason::ALL.len()
        + TolerateReason::ALL.len()
        + ClearReason::ALL.len()
        + DropReason::ALL.len();

    /// Every verdict, in order.
    pub(crate) fn all() -> impl Iterator<Item = Self> {
        let pass = PassReason::ALL.iter().copied().map(Self::Pass);
        let tolerate = TolerateReason::ALL.iter().copied().map(Self::Tolerate);
        let clear = ClearReason::ALL.iter().copied().map(Self::Clear);
        let drop = DropReason::ALL.iter().copied().map(Self::Drop);
        pass.chain(tolerate).chain(clear).chain(drop)
    }

    /// Its place among all of them, counted from zero.
    pub(crate) const fn place(self) -> usize {
        let tolerate = PassReason::ALL.len();
        let clear = tolerate + TolerateReason::ALL.len();
        let drop = clear + ClearReason::ALL.len();
        match self {
            Self::Pass(reason) => reason as usize,
            Self::Tolerate(reason) => tolerate + reason as usize,
            Self::Clear(reason) => clear + reason as usize,
            Self::Drop(reason) => drop + reason as usize,
        }
    }

    /// Whether the packet is dropped.
    #[must_use]
    pub const fn is_drop(self) -> bool {
        matches!(self, Self::Drop(_))
    }
}

/// Declares a reason enum together with its stable names, so that neither can miss the other.
macro_rules! reasons {
    ($(#[$meta:meta])* $name:ident { $($(#[$doc:meta])* $variant:ident = $text:literal,)+ }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
        pub enum $name {
            $($(#[$doc])* #[serde(rename = $text)] $variant,)+
        }

        impl $name {
            /// Every reason of this kind.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// Stable name in snake case.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $text,)+
                }
            }
        }
    };
}

reasons! {
    /// Why one packet passes.
    PassReason {
        /// Both ends are inside, or both outside.
        NotCrossing = "not_crossing",
        /// One end is exempt by configuration.
        Exempt = "exempt",
        /// One end is on the allow list.
        Allowed = "allowed",
        /// One end was let through for a time by the operator.
        Unblocked = "unblocked",
        /// Nothing is judged of this host.
        PolicyOff = "policy_off",
        /// Would have been dropped, but this host is only monitored.
        Monitored = "monitored",
        /// IPv6: FastTrack exists on IPv4 only.
        Ipv6 = "ipv6",
        /// Neither TCP nor UDP.
        OtherProtocol = "other_protocol",
        /// A fragment without the transport header.
        LaterFragment = "later_fragment",
        /// Headers that do not hold together, of a host that is not locked.
        Malformed = "malformed",
        /// A TCP segment that carries no payload.
        NoPayload = "no_payload",
        /// A datagram that no recogniser knows.
        UnknownDatagram = "unknown_datagram",
        /// A datagram that is recognised while blocking of UDP is switched off.
        UdpNotBlocked = "udp_not_blocked",
        /// Not enough of the conversation has been seen to decide.
        Undecided = "undecided",
        /// The opener's shape alone, which ordinary programs have too: the answer will decide.
        UnconfirmedOpener = "unconfirmed_opener",
        /// Belongs to a flow cleared before.
        Cleared = "cleared",
        /// Bytes held back before, passed because the sender has nothing to add to them.
        Released = "released",
    }
}

reasons! {
    /// Why a flow is no longer watched although nothing was proven.
    TolerateReason {
        /// Its first bytes are of no protocol known here.
        Unrecognised = "unrecognised",
        /// It began before it could be watched.
        Midstream = "midstream",
        /// Its retransmissions contradict each other.
        Contradictory = "contradictory",
    }
}

reasons! {
    /// Why a flow is proven harmless.
    ClearReason {
        /// Complete HTTP request and response heads without a mark of FastTrack.
        Http = "http",
        /// Complete HTTP request head without a mark of FastTrack, to an address that has proven itself.
        HttpProvenServer = "http_proven_server",
        /// A request that FastTrack never sends: a method other than GET, or HTTP/2.
        HttpMethod = "http_method",
        /// A TLS ClientHello.
        TlsClientHello = "tls_client_hello",
        /// A QUIC Initial packet of a known version.
        QuicInitial = "quic_initial",
        /// An SSH identification string, which clients send without waiting for the server's.
        Ssh = "ssh",
        /// The responder spoke first, which a FastTrack peer never does.
        ServerSpoke = "server_spoke",
    }
}

reasons! {
    /// Why a packet is dropped.
    DropReason {
        /// A UDP ping (0x27).
        Ping = "ping",
        /// A UDP pong (0x28), second-kind pong (0x29) or its answer (0x2a), where they matter.
        Pong = "pong",
        /// Goes between a client and a peer it is known to use.
        KnownPeer = "known_peer",
        /// The open clients' constant opener.
        ConstantOpener = "constant_opener",
        /// The opener's shape, confirmed by something else.
        Opener = "opener",
        /// The answer to an opener.
        HandshakeAnswer = "handshake_answer",
        /// A file request or its marks.
        TransferRequest = "transfer_request",
        /// An answer to a file request.
        TransferResponse = "transfer_response",
        /// `GIVE`: a file's owner calls back.
        Push = "push",
        /// Belongs to a flow condemned before.
        Condemned = "condemned",
        /// Could still become FastTrack; TCP will bring these bytes again.
        Withheld = "withheld",
        /// A locked host dials an address that has not proven itself.
        LockedDial = "locked_dial",
        /// An unproven flow that was up when its host became locked.
        CutOnLock = "cut_on_lock",
        /// Unknown traffic of a locked host, in strict mode.
        Strict = "strict",
        /// Headers that do not hold together, of a locked host.
        MalformedLocked = "malformed_locked",
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_reason_has_a_name_of_its_own() {
        let pass = PassReason::ALL.iter().map(|reason| reason.name());
        let tolerate = TolerateReason::ALL.iter().map(|reason| reason.name());
        let clear = ClearReason::ALL.iter().map(|reason| reason.name());
        let drop = DropReason::ALL.iter().map(|reason| reason.name());
        let names: Vec<_> = pass.chain(tolerate).chain(clear).chain(drop).collect();
        let distinct: BTreeSet<_> = names.iter().collect();
        assert_eq!(distinct.len(), names.len());
    }

    #[test]
    fn a_verdict_names_what_is_done_and_why() {
        let verdict = Verdict::Drop(DropReason::KnownPeer);
        assert_eq!((verdict.action(), verdict.reason()), ("drop", "known_peer"));
        assert!(verdict.is_drop());
        assert!(!Verdict::Clear(ClearReason::Http).is_drop());
    }
}
