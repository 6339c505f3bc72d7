//! The product's rule on one page: evidence and what is known about both ends in, ruling out.
//!
//! Recognisers say what they see, [`crate::suspects`] remembers; only this file decides.

use crate::EngineConfig;
use crate::Evidence;
use crate::config::{LockedDials, Strictness};
use crate::protocol::Patience;
use crate::verdict::DropReason;

/// What is known about both ends of a conversation when evidence comes up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Situation {
    /// The inside host is locked.
    pub(crate) host_is_locked: bool,
    /// The inside host opened the conversation, or sent the datagram.
    pub(crate) host_initiated: bool,
    /// Some client is known to use the outside peer.
    pub(crate) peer_is_known: bool,
    /// The outside peer proved itself harmless within the last hour.
    pub(crate) peer_is_proven: bool,
    /// The responder's port.
    pub(crate) port: u16,
    /// The host opened another conversation in the same shape within the last minute.
    pub(crate) is_second_opener: bool,
    /// Octets held back came again this often without a word more.
    pub(crate) repeats: u8,
    /// What was held back fills its sender's first window with segments of a few octets each.
    pub(crate) fills_window: bool,
    /// What its sender said first is not known to be what it begins with.
    pub(crate) may_be_middle: bool,
    /// It may be of a request's head, and until a moment ago packets were dropped because nobody was there
    /// to judge them.
    pub(crate) follows_gap: bool,
}

impl Situation {
    const fn has_nothing_to_add(&self) -> bool {
        self.repeats >= MAX_REPEATS
    }
}

/// Retransmissions after which a sender is taken to have nothing to add.
const MAX_REPEATS: u8 = 2;

/// What evidence leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ruling {
    pub(crate) reason: DropReason,
    /// Lock the inside host, or renew its lock.
    pub(crate) locks: bool,
    /// Learn the outside peer.
    pub(crate) teaches: bool,
}

/// What evidence leads to; nothing, if it is too weak in this situation.
///
/// Outsiders can send anything to an inside host. What one of them says alone never locks the host,
/// except for HTTP marks, which need an open connection and name the host's own trade. Nor is an
/// outside initiator learned: its port is not one it listens on.
pub(crate) fn rule(evidence: Evidence, situation: &Situation) -> Option<Ruling> {
    let Situation {
        host_is_locked,
        host_initiated,
        peer_is_known,
        ..
    } = *situation;
    let drop = |reason| Ruling {
        reason,
        locks: true,
        teaches: host_initiated,
    };
    match evidence {
        Evidence::UdpPing => Some(Ruling {
            locks: host_initiated,
            ..drop(DropReason::Ping)
        }),
        // The kernel asks about pongs of locked hosts only. No other host is sent one by a peer: its
        // ping would have had to get out.
        Evidence::UdpPong | Evidence::UdpPong2 => host_is_locked.then_some(Ruling {
            reason: DropReason::Pong,
            locks: host_initiated || peer_is_known,
            teaches: false,
        }),
        Evidence::UdpPong2Answer => host_is_locked.then_some(Ruling {
            reason: DropReason::Pong,
            locks: peer_is_known,
            teaches: false,
        }),
        Evidence::ConstantOpener => Some(Ruling {
            locks: host_initiated,
            ..drop(DropReason::ConstantOpener)
        }),
        Evidence::EncryptedOpener => {
            // Numbers in a foreign protocol's opener may look encrypted by chance: to who has proven
            // to be something else, that is not enough.
            let is_foreign = situation.peer_is_proven;
            ((host_initiated && !is_foreign) || confirms_opener(situation)).then_some(Ruling {
                locks: host_initiated,
                ..drop(DropReason::Opener)
            })
        }
        Evidence::OpenerShape => confirms_opener(situation).then_some(Ruling {
            locks: host_initiated,
            ..drop(DropReason::Opener)
        }),
        // Lines of other protocols are said on ports of their own.
        Evidence::TextOpener => {
            let is_place = !is_system_port(situation.port);
            (host_is_locked && host_initiated && is_place).then_some(drop(DropReason::Opener))
        }
        Evidence::HandshakePair => Some(drop(DropReason::HandshakeAnswer)),
        Evidence::HashRequest | Evidence::MarkedRequest => Some(drop(DropReason::TransferRequest)),
        Evidence::MarkedResponse => Some(drop(DropReason::TransferResponse)),
        Evidence::Give => Some(drop(DropReason::Push)),
        // In segments so small that the rest never comes while these are held back.
        Evidence::TransferBeginning => situation
            .has_nothing_to_add()
            .then_some(drop(DropReason::TransferRequest)),
        Evidence::AnswerBeginning => {
            is_stuck_in_window(situation).then_some(drop(DropReason::HandshakeAnswer))
        }
        Evidence::OpenerBeginning => {
            confirms_beginning(situation).then_some(drop(DropReason::Opener))
        }
        Evidence::NumberedRequest | Evidence::SpecialPath if confirms_path(situation) => {
            Some(Ruling {
                locks: peer_is_known,
                ..drop(DropReason::TransferRequest)
            })
        }
        // Cut so small, its marks never come while it is held back, and nothing else is cut so.
        Evidence::NumberedRequest => {
            is_stuck_in_window(situation).then_some(drop(DropReason::TransferRequest))
        }
        Evidence::SpecialPath => None,
    }
}

/// Twelve octets alone mean nothing. These make them an opener.
fn confirms_opener(situation: &Situation) -> bool {
    situation.host_is_locked
        || situation.peer_is_known
        || (situation.host_initiated && is_contested_port(situation.port))
        || situation.is_second_opener
}

/// What its sender repeats without adding to it counts as the opener it may be, towards a known peer,
/// and where a window full of single octets could not grow to twelve, be it the host's second one.
fn confirms_beginning(situation: &Situation) -> bool {
    let is_place =
        situation.host_is_locked || situation.is_second_opener || is_contested_port(situation.port);
    let is_known = situation.peer_is_known && situation.has_nothing_to_add();
    situation.host_initiated && (is_known || (is_place && is_stuck_in_window(situation)))
}

/// Whether a sender cannot go on before something of what it cut so small is acknowledged. No ordinary
/// program begins so.
const fn is_stuck_in_window(situation: &Situation) -> bool {
    situation.has_nothing_to_add() && situation.fills_window
}

/// A locked host goes on browsing, so that its being locked says nothing about a path on a port of
/// the web or at a proven address.
fn confirms_path(situation: &Situation) -> bool {
    situation.peer_is_known
        || (situation.host_is_locked && !situation.peer_is_proven && !is_web_port(situation.port))
}

/// Whether a locked host may open a connection to this port.
pub(crate) fn may_dial(config: &EngineConfig, port: u16, peer_is_proven: bool) -> bool {
    match config.locked_dials {
        LockedDials::Watch => true,
        LockedDials::Drop => peer_is_proven || is_web_port(port),
    }
}

/// Whether an unproven flow that was up before its host was locked may stay up.
pub(crate) const fn may_stay_up(responder_port: u16) -> bool {
    is_web_port(responder_port)
}

/// Whether a whole request without a mark needs no answer to be believed: nobody suspects its host, and
/// who is asked has answered as something else than a peer within the hour.
pub(crate) const fn may_be_believed(situation: &Situation) -> bool {
    situation.host_initiated
        && !situation.host_is_locked
        && !situation.peer_is_known
        && situation.peer_is_proven
}

/// What becomes of octets that may yet become FastTrack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Withholding {
    /// They are dropped; TCP brings them again.
    Drop,
    /// They were never worth holding back here.
    Pass,
    /// They were held back, and their sender has nothing to add to them.
    Release,
}

/// Whether what resembles nothing waits for what its sender begins with. A suspect's request may have
/// lost its beginning on the way here, and anybody's while no daemon ran; TCP brings that again, and first.
pub(crate) const fn awaits_beginning(situation: &Situation) -> bool {
    situation.may_be_middle
        && (situation.host_is_locked || situation.peer_is_known || situation.follows_gap)
        && !is_system_port(situation.port)
}

/// What becomes of octets that may yet become FastTrack.
pub(crate) fn withhold(patience: Patience, situation: &Situation) -> Withholding {
    let is_suspect = situation.host_is_locked || situation.peer_is_known;
    let has_nothing_to_add = situation.has_nothing_to_add();
    match patience {
        Patience::OfSuspects if !confirms_opener(situation) => Withholding::Pass,
        // A locked host's other programs speak on these ports too, save on the contested ones.
        Patience::OfSuspects
            if has_nothing_to_add && !(is_suspect && is_contested_port(situation.port)) =>
        {
            Withholding::Release
        }
        // No client falls back to the web's other ports, and hardly any supernode listened there.
        Patience::Least if is_alternative_web_port(situation.port) && !is_suspect => {
            Withholding::Pass
        }
        Patience::Least | Patience::Limited if has_nothing_to_add && !is_suspect => {
            Withholding::Release
        }
        Patience::OfSuspects | Patience::Least | Patience::Limited | Patience::Endless => {
            Withholding::Drop
        }
    }
}

/// Whether traffic of a locked host may pass although nothing is known about it.
pub(crate) const fn may_be_unknown(strictness: Strictness) -> bool {
    match strictness {
        Strictness::Precise => true,
        Strictness::Strict => false,
    }
}

/// Whether a datagram of a locked host may pass although nothing is known about it: to or from a
/// system port (names, time, HTTP/3) it may in either mode.
pub(crate) const fn may_be_unknown_datagram(strictness: Strictness, peer_port: u16) -> bool {
    may_be_unknown(strictness) || peer_port < FIRST_USER_PORT
}

/// Ports that clients fall back to because nobody can block them: only payload decides there.
pub(crate) const fn is_contested_port(port: u16) -> bool {
    matches!(port, 80 | 443)
}

/// Ports below 1024 that no client falls back to. Of 976 real supernodes none listened below 1024.
pub(crate) const fn is_system_port(port: u16) -> bool {
    port < FIRST_USER_PORT && !is_contested_port(port)
}

/// Ports where a locked host's own web, mail and remote work live. Of 976 real supernodes none
/// listened below 1024.
const fn is_web_port(port: u16) -> bool {
    port < FIRST_USER_PORT || is_alternative_web_port(port)
}

const fn is_alternative_web_port(port: u16) -> bool {
    matches!(port, 8000 | 8008 | 8080 | 8081 | 8088 | 8443 | 8888)
}

const FIRST_USER_PORT: u16 = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    const OUTBOUND: Situation = Situation {
        host_is_locked: false,
        host_initiated: true,
        peer_is_known: false,
        peer_is_proven: false,
        port: 2001,
        is_second_opener: false,
        repeats: 0,
        fills_window: false,
        may_be_middle: false,
        follows_gap: false,
    };
    const INBOUND: Situation = Situation {
        host_initiated: false,
        ..OUTBOUND
    };

    #[test]
    fn certain_evidence_from_inside_drops_locks_and_teaches() {
        for evidence in [
            Evidence::UdpPing,
            Evidence::ConstantOpener,
            Evidence::EncryptedOpener,
            Evidence::HandshakePair,
            Evidence::HashRequest,
            Evidence::MarkedRequest,
            Evidence::MarkedResponse,
            Evidence::Give,
        ] {
            let ruling = rule(evidence, &OUTBOUND).unwrap();
            assert!(ruling.locks && ruling.teaches, "{evidence:?}");
        }
    }

    #[test]
    fn an_outsider_alone_neither_locks_by_datagram_or_opener_nor_is_learned() {
        for evidence in [Evidence::UdpPing, Evidence::ConstantOpener] {
            let ruling = rule(evidence, &INBOUND).unwrap();
            assert!(!ruling.locks && !ruling.teaches, "{evidence:?}");
        }
        assert_eq!(rule(Evidence::EncryptedOpener, &INBOUND), None);
    }

    #[test]
    fn a_handshake_that_an_inside_host_answered_locks_it() {
        let ruling = rule(Evidence::HandshakePair, &INBOUND).unwrap();
        assert!(ruling.locks && !ruling.teaches);
    }

    #[test]
    fn an_opener_from_outside_to_a_known_peers_client_is_dropped_and_locks_nobody() {
        let known = Situation {
            peer_is_known: true,
            ..INBOUND
        };
        for evidence in [Evidence::EncryptedOpener, Evidence::OpenerShape] {
            let ruling = rule(evidence, &known).unwrap();
            assert!(!ruling.locks && !ruling.teaches, "{evidence:?}");
            let from_inside = Situation {
                host_initiated: true,
                ..known
            };
            assert!(rule(evidence, &from_inside).unwrap().locks, "{evidence:?}");
        }
    }

    #[test]
    fn the_shape_of_an_opener_needs_confirmation() {
        assert_eq!(rule(Evidence::OpenerShape, &OUTBOUND), None);
        for confirmed in [
            Situation {
                host_is_locked: true,
                ..OUTBOUND
            },
            Situation {
                peer_is_known: true,
                ..OUTBOUND
            },
            Situation {
                port: 80,
                ..OUTBOUND
            },
            Situation {
                port: 443,
                ..OUTBOUND
            },
            Situation {
                is_second_opener: true,
                ..OUTBOUND
            },
        ] {
            let ruling = rule(Evidence::OpenerShape, &confirmed).unwrap();
            assert_eq!(ruling.reason, DropReason::Opener, "{confirmed:?}");
        }
    }

    #[test]
    fn an_opener_that_only_looks_encrypted_is_no_reason_to_cut_off_who_has_proven_himself() {
        let proven = Situation {
            peer_is_proven: true,
            ..OUTBOUND
        };
        assert_eq!(rule(Evidence::EncryptedOpener, &proven), None);
        let locked = Situation {
            host_is_locked: true,
            ..proven
        };
        assert!(rule(Evidence::EncryptedOpener, &locked).is_some());
    }

    #[test]
    fn a_line_of_text_is_an_opener_from_a_locked_host_alone_and_not_on_system_ports() {
        assert_eq!(rule(Evidence::TextOpener, &OUTBOUND), None);
        let locked = Situation {
            host_is_locked: true,
            ..OUTBOUND
        };
        for port in [80, 443, 2001] {
            let ruling = rule(Evidence::TextOpener, &Situation { port, ..locked }).unwrap();
            assert!(ruling.locks && ruling.teaches, "{port}");
        }
        let mail = Situation { port: 25, ..locked };
        assert_eq!(rule(Evidence::TextOpener, &mail), None);
        let called = Situation {
            host_is_locked: true,
            ..INBOUND
        };
        assert_eq!(rule(Evidence::TextOpener, &called), None);
    }

    #[test]
    fn a_beginning_is_waited_for_from_suspects_and_after_a_gap_while_it_may_be_missing() {
        let later = Situation {
            may_be_middle: true,
            ..OUTBOUND
        };
        assert!(!awaits_beginning(&later));
        for suspect in [
            Situation {
                host_is_locked: true,
                ..later
            },
            Situation {
                peer_is_known: true,
                ..later
            },
            Situation {
                follows_gap: true,
                ..later
            },
        ] {
            assert!(awaits_beginning(&suspect), "{suspect:?}");
            let first = Situation {
                may_be_middle: false,
                ..suspect
            };
            assert!(!awaits_beginning(&first), "{first:?}");
            let names = Situation {
                port: 53,
                ..suspect
            };
            assert!(!awaits_beginning(&names), "{names:?}");
        }
    }

    #[test]
    fn the_beginning_of_an_answer_counts_where_its_sender_is_stuck() {
        assert_eq!(rule(Evidence::AnswerBeginning, &OUTBOUND), None);
        let stuck = Situation {
            repeats: MAX_REPEATS,
            fills_window: true,
            ..OUTBOUND
        };
        let ruling = rule(Evidence::AnswerBeginning, &stuck).unwrap();
        assert_eq!(ruling.reason, DropReason::HandshakeAnswer);
        assert!(ruling.locks);
    }

    #[test]
    fn the_beginning_of_a_transfer_counts_once_its_sender_has_nothing_to_add() {
        assert_eq!(rule(Evidence::TransferBeginning, &OUTBOUND), None);
        let stuck = Situation {
            repeats: MAX_REPEATS,
            ..OUTBOUND
        };
        let ruling = rule(Evidence::TransferBeginning, &stuck).unwrap();
        assert!(ruling.locks && ruling.teaches);
    }

    #[test]
    fn the_beginning_of_an_opener_counts_where_a_known_peer_gets_nothing_more() {
        let stuck = Situation {
            repeats: MAX_REPEATS,
            ..OUTBOUND
        };
        assert_eq!(rule(Evidence::OpenerBeginning, &stuck), None);
        let known = Situation {
            peer_is_known: true,
            ..stuck
        };
        assert!(rule(Evidence::OpenerBeginning, &known).unwrap().locks);
        let outsider = Situation {
            peer_is_known: true,
            repeats: MAX_REPEATS,
            ..INBOUND
        };
        assert_eq!(rule(Evidence::OpenerBeginning, &outsider), None);
    }

    #[test]
    fn a_numbered_request_stuck_in_its_window_counts() {
        let stuck = Situation {
            repeats: MAX_REPEATS,
            fills_window: true,
            ..OUTBOUND
        };
        let ruling = rule(Evidence::NumberedRequest, &stuck).unwrap();
        assert!(ruling.locks && ruling.teaches);
        assert_eq!(rule(Evidence::SpecialPath, &stuck), None);
        let whole = Situation {
            fills_window: false,
            ..stuck
        };
        assert_eq!(rule(Evidence::NumberedRequest, &whole), None);
    }

    #[test]
    fn a_window_of_single_octets_counts_as_an_opener_of_a_locked_host_and_on_a_port_of_the_web() {
        let filled = Situation {
            port: 443,
            repeats: MAX_REPEATS,
            fills_window: true,
            ..OUTBOUND
        };
        assert!(rule(Evidence::OpenerBeginning, &filled).unwrap().locks);
        let locked = Situation {
            port: 2001,
            host_is_locked: true,
            ..filled
        };
        assert!(rule(Evidence::OpenerBeginning, &locked).unwrap().locks);
        let second = Situation {
            port: 2001,
            is_second_opener: true,
            ..filled
        };
        assert!(rule(Evidence::OpenerBeginning, &second).unwrap().locks);
        for weaker in [
            Situation {
                port: 2001,
                ..filled
            },
            Situation {
                repeats: MAX_REPEATS - 1,
                ..filled
            },
            Situation {
                fills_window: false,
                ..filled
            },
            Situation {
                host_initiated: false,
                ..filled
            },
        ] {
            assert_eq!(rule(Evidence::OpenerBeginning, &weaker), None, "{weaker:?}");
        }
    }

    #[test]
    fn the_beginning_of_an_opener_passes_where_nobody_is_suspect() {
        let rule = |situation| withhold(Patience::OfSuspects, &situation);
        assert_eq!(rule(OUTBOUND), Withholding::Pass);
        let locked = Situation {
            host_is_locked: true,
            ..OUTBOUND
        };
        let contested = Situation {
            port: 443,
            ..OUTBOUND
        };
        assert_eq!(rule(locked), Withholding::Drop);
        assert_eq!(rule(contested), Withholding::Drop);
    }

    #[test]
    fn a_sender_with_nothing_to_add_is_let_through_but_a_suspect_is_not() {
        let locked = Situation {
            host_is_locked: true,
            ..OUTBOUND
        };
        let locked_on_443 = Situation {
            port: 443,
            ..locked
        };
        for (patience, situation, expected) in [
            (Patience::Limited, OUTBOUND, Withholding::Release),
            (Patience::Limited, locked, Withholding::Drop),
            (Patience::OfSuspects, locked, Withholding::Release),
            (Patience::OfSuspects, locked_on_443, Withholding::Drop),
            (Patience::Endless, OUTBOUND, Withholding::Drop),
        ] {
            for (repeats, expected) in [
                (MAX_REPEATS - 1, Withholding::Drop),
                (MAX_REPEATS, expected),
            ] {
                let situation = Situation {
                    repeats,
                    ..situation
                };
                let ruling = withhold(patience, &situation);
                assert_eq!(ruling, expected, "{patience:?} {situation:?}");
            }
        }
    }

    #[test]
    fn pongs_matter_only_where_the_kernel_asks_about_them() {
        for evidence in [
            Evidence::UdpPong,
            Evidence::UdpPong2,
            Evidence::UdpPong2Answer,
        ] {
            let locked = Situation {
                host_is_locked: true,
                ..INBOUND
            };
            let of_a_known_peer = Situation {
                peer_is_known: true,
                ..INBOUND
            };
            assert!(rule(evidence, &locked).is_some());
            assert_eq!(rule(evidence, &INBOUND), None);
            assert_eq!(rule(evidence, &of_a_known_peer), None);
        }
    }

    #[test]
    fn a_stranger_cannot_keep_a_host_locked_with_forged_pongs() {
        let locked = Situation {
            host_is_locked: true,
            ..INBOUND
        };
        assert!(!rule(Evidence::UdpPong, &locked).unwrap().locks);
    }

    #[test]
    fn a_locked_host_that_sends_a_pong_or_gets_one_from_a_known_peer_runs_its_client_still() {
        let answers_a_probe = Situation {
            host_is_locked: true,
            ..OUTBOUND
        };
        let is_answered = Situation {
            host_is_locked: true,
            peer_is_known: true,
            ..INBOUND
        };
        for situation in [answers_a_probe, is_answered] {
            for evidence in [Evidence::UdpPong, Evidence::UdpPong2] {
                let ruling = rule(evidence, &situation).unwrap();
                assert!(ruling.locks && !ruling.teaches, "{situation:?}");
            }
        }
    }

    #[test]
    fn five_octets_that_may_answer_a_pong_lock_only_beside_a_known_peer() {
        let locked = Situation {
            host_is_locked: true,
            ..OUTBOUND
        };
        let known = Situation {
            peer_is_known: true,
            ..locked
        };
        let locks = |situation| rule(Evidence::UdpPong2Answer, &situation).unwrap().locks;
        assert!(!locks(locked) && locks(known));
    }

    #[test]
    fn the_beginning_of_a_web_request_passes_where_only_the_web_is_expected() {
        let elsewhere = Situation {
            port: 8080,
            ..OUTBOUND
        };
        let locked = Situation {
            host_is_locked: true,
            ..elsewhere
        };
        let known = Situation {
            peer_is_known: true,
            ..elsewhere
        };
        let rule = |situation| withhold(Patience::Least, &situation);
        assert_eq!(rule(elsewhere), Withholding::Pass);
        for suspect in [OUTBOUND, locked, known] {
            assert_eq!(rule(suspect), Withholding::Drop, "{suspect:?}");
        }
        let contested = Situation {
            port: 80,
            ..OUTBOUND
        };
        assert_eq!(
            rule(contested),
            Withholding::Drop,
            "clients fall back to it"
        );
    }

    #[test]
    fn a_numbered_path_renews_no_lock_unless_the_peer_is_known() {
        let locked = Situation {
            host_is_locked: true,
            ..OUTBOUND
        };
        let known = Situation {
            peer_is_known: true,
            ..OUTBOUND
        };
        for evidence in [Evidence::NumberedRequest, Evidence::SpecialPath] {
            assert!(!rule(evidence, &locked).unwrap().locks, "{evidence:?}");
            assert!(rule(evidence, &known).unwrap().locks, "{evidence:?}");
        }
    }

    #[test]
    fn ports_below_1024_are_the_systems_and_80_and_443_are_contested() {
        assert!(is_system_port(1023) && !is_system_port(1024));
        assert!(may_stay_up(1023) && !may_stay_up(1024));
        for port in [80, 443] {
            assert!(is_contested_port(port) && !is_system_port(port), "{port}");
        }
    }

    #[test]
    fn a_locked_host_may_browse_numbered_paths() {
        let locked = Situation {
            host_is_locked: true,
            ..OUTBOUND
        };
        for web in [
            Situation { port: 80, ..locked },
            Situation {
                port: 8080,
                ..locked
            },
            Situation {
                peer_is_proven: true,
                ..locked
            },
        ] {
            assert_eq!(rule(Evidence::NumberedRequest, &web), None, "{web:?}");
        }
        assert!(rule(Evidence::NumberedRequest, &locked).is_some());
        assert!(
            rule(
                Evidence::SpecialPath,
                &Situation {
                    peer_is_known: true,
                    ..OUTBOUND
                }
            )
            .is_some()
        );
    }

    #[test]
    fn a_locked_host_dials_the_web_and_proven_addresses_only() {
        let config = EngineConfig::default();
        assert!(may_dial(&config, 443, false) && may_dial(&config, 22, false));
        assert!(may_dial(&config, 8080, false) && may_dial(&config, 2001, true));
        assert!(!may_dial(&config, 2001, false));
        let watch = EngineConfig {
            locked_dials: LockedDials::Watch,
            ..config
        };
        assert!(may_dial(&watch, 2001, false));
    }

    #[test]
    fn strict_mode_leaves_names_time_and_the_web() {
        let strict = Strictness::Strict;
        assert!(!may_be_unknown(strict) && !may_be_unknown_datagram(strict, 2001));
        assert!(may_be_unknown_datagram(strict, 53) && may_be_unknown_datagram(strict, 443));
        assert!(may_be_unknown_datagram(strict, 1023) && !may_be_unknown_datagram(strict, 1024));
        assert!(may_be_unknown(Strictness::default()));
    }
}
