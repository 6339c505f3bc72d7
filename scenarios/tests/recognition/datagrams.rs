//! Datagrams: every kind of every network x who sends it to whom, and what is known of both.

use ftwall::Verdict;

use crate::Tally;
use crate::site::{HOST, PEER, STRANGER, Site, end};
use crate::written::{DatagramKind, datagrams};

/// Where a datagram stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Position {
    /// The first packet of all, from inside.
    FirstOut,
    /// The first packet of all, from outside.
    FirstIn,
    /// From inside, sent for the second and third time.
    Repeated,
    /// From a locked host to somebody nobody knows.
    LockedOut,
    /// To a locked host from somebody nobody knows.
    LockedIn,
    /// From a host that nothing is known of to a neighbour's peer.
    KnownOut,
    /// The other way round.
    KnownIn,
    /// From inside to port 80.
    Port80,
    /// From inside to port 443.
    Port443,
}

/// What must be said of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Said {
    /// It passes, and nobody remembers it.
    Nothing,
    /// It is dropped; the host is locked, the peer learned.
    LocksAndTeaches,
    /// It is dropped; the host's lock begins or is renewed.
    Locks,
    /// It is dropped, and nothing follows from it.
    Dropped,
}

/// A ping is dropped wherever it is met; only what an inside host sends itself speaks against it.
/// Answers mean something only where the host is locked, as the kernel asks about no others, and what a
/// stranger sends to a locked host must not keep it locked; neither must five octets alone. A peer is learned once.
#[rustfmt::skip]
const TABLE: [(Position, [Said; 4]); 9] = [
    //                    ping                    pong           pong 2         its answer
    (Position::FirstOut,  [Said::LocksAndTeaches, Said::Nothing, Said::Nothing, Said::Nothing]),
    (Position::FirstIn,   [Said::Dropped,         Said::Nothing, Said::Nothing, Said::Nothing]),
    (Position::Repeated,  [Said::Locks,           Said::Nothing, Said::Nothing, Said::Nothing]),
    (Position::LockedOut, [Said::LocksAndTeaches, Said::Locks,   Said::Locks,   Said::Dropped]),
    (Position::LockedIn,  [Said::Dropped,         Said::Dropped, Said::Dropped, Said::Dropped]),
    (Position::KnownOut,  [Said::LocksAndTeaches, Said::Nothing, Said::Nothing, Said::Nothing]),
    (Position::KnownIn,   [Said::Dropped,         Said::Nothing, Said::Nothing, Said::Nothing]),
    (Position::Port80,    [Said::LocksAndTeaches, Said::Nothing, Said::Nothing, Said::Nothing]),
    (Position::Port443,   [Said::LocksAndTeaches, Said::Nothing, Said::Nothing, Said::Nothing]),
];

#[test]
fn every_datagram_in_every_position_is_spoken_of_as_the_table_says() {
    let mut tally = Tally::default();
    for (position, row) in TABLE {
        for (kind, bytes) in datagrams() {
            let expected = row[kind as usize];
            let finding = play(position, kind, &bytes, expected);
            tally.check(finding.map(|found| format!("{position:?} {bytes:02x?}: {found}")));
        }
    }
    tally.conclude("datagrams", 9 * 18);
}

fn play(position: Position, kind: DatagramKind, bytes: &[u8], expected: Said) -> Option<String> {
    let port = match position {
        Position::Port80 => 80,
        Position::Port443 => 443,
        _ => 2001,
    };
    let (host, peer) = (end(HOST, 1214), end(PEER, port));
    let stranger = end(STRANGER, 2001);
    let (mut site, from, to) = match position {
        Position::FirstOut | Position::Repeated | Position::Port80 | Position::Port443 => {
            (Site::new(), host, peer)
        }
        Position::FirstIn => (Site::new(), peer, host),
        Position::LockedOut => (Site::with_locked_host(), host, stranger),
        Position::LockedIn => (Site::with_locked_host(), stranger, host),
        Position::KnownOut => (Site::with_known_peer(peer), host, peer),
        Position::KnownIn => (Site::with_known_peer(peer), peer, host),
    };
    if position == Position::Repeated {
        site.datagram(from, to, bytes);
        site.datagram(from, to, bytes);
    }
    let other = if from == host { to } else { from };
    let mark = site.mark();
    let verdict = site.datagram(from, to, bytes);
    let evidence = site.evidence_since(&mark);
    let said = said(&site, verdict, site.has_learned(other));
    let expected_evidence: &[&str] = match expected {
        Said::Nothing => &[],
        _ => &[evidence_of(kind)],
    };
    (said != Some(expected) || evidence != expected_evidence)
        .then(|| format!("{verdict:?} {said:?} {evidence:?}, not {expected:?}"))
}

/// What a case came to; nothing, if it is none of the four.
fn said(site: &Site, verdict: Verdict, has_learned: bool) -> Option<Said> {
    match (verdict.is_drop(), site.is_locked(), has_learned) {
        (false, false, false) => Some(Said::Nothing),
        (true, false, false) => Some(Said::Dropped),
        (true, true, false) => Some(Said::Locks),
        (true, true, true) => Some(Said::LocksAndTeaches),
        _ => None,
    }
}

fn evidence_of(kind: DatagramKind) -> &'static str {
    match kind {
        DatagramKind::Ping => "udp_ping",
        DatagramKind::Pong => "udp_pong",
        DatagramKind::Pong2 => "udp_pong2",
        DatagramKind::PongAnswer => "udp_pong2_answer",
    }
}
