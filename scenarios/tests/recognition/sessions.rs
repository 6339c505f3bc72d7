//! Session handshakes: openers and their answers x where they go, how they are cut, and what is
//! known of both ends.

use simulator::profile::Opener;

use crate::Tally;
use crate::site::{Connection, Cut, HOST, PEER, Role, STRANGER, Site, end};
use crate::written::{CONSTANT_OPENER, answers, openers, session_messages};

/// Random openers tried in each position.
const OPENERS: u64 = 40;

/// How often a sender repeats what does not get through.
const ROUNDS: usize = 4;

/// Where supernodes listened: the registered port, the old ephemeral range, ports of the web.
const PORTS: [u16; 5] = [1214, 2001, 4999, 80, 443];

/// Twelve octets look encrypted if 3.4 to 4.6 bits of each are set, their first half is not all
/// printable, and no more than half of them are. Of those that do, none was met elsewhere.
fn looks_encrypted(opener: &[u8; 12]) -> bool {
    let bits: u32 = opener.iter().map(|octet| octet.count_ones()).sum();
    let printable = |octets: &[u8]| {
        octets
            .iter()
            .filter(|octet| (0x20..0x7f).contains(*octet))
            .count()
    };
    (3.4..=4.6).contains(&(f64::from(bits) / 12.0))
        && printable(&opener[..6]) < 6
        && printable(opener) <= 6
}

/// An opener that is as good as random, and one that is not.
fn encrypted_and_plain() -> [[u8; 12]; 2] {
    let encrypted = openers(Opener::Random, OPENERS).find(looks_encrypted);
    let plain = openers(Opener::PlainLooking, 1).next();
    [encrypted, plain].map(|opener| opener.expect("one of forty looks encrypted"))
}

/// What must come of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Said {
    /// The most octets that may arrive in order.
    arrives: usize,
    evidence: &'static [&'static str],
    locks: bool,
    teaches: bool,
}

const fn caught(evidence: &'static [&'static str]) -> Said {
    Said {
        arrives: 0,
        evidence,
        locks: true,
        teaches: true,
    }
}

fn compare(
    site: &Site,
    peer: std::net::SocketAddrV4,
    evidence: &[&str],
    arrived: usize,
    expected: Said,
) -> Option<String> {
    let (locked, learned) = (site.is_locked(), site.has_learned(peer));
    let is_as_said = arrived <= expected.arrives
        && evidence == expected.evidence
        && locked == expected.locks
        && learned == expected.teaches;
    (!is_as_said).then(|| {
        format!(
            "arrived {arrived}, {evidence:?}, locked {locked}, learned {learned}, not {expected:?}"
        )
    })
}

/// Says `message` first on a connection from the host to `PEER`, at a site prepared by the caller.
fn open_with(
    mut site: Site,
    port: u16,
    message: &[u8],
    cut: Cut,
    expected: Said,
) -> Option<String> {
    let peer = end(PEER, port);
    let mark = site.mark();
    let Some(mut connection) = Connection::open(&mut site, end(HOST, 3000), peer) else {
        return (expected.arrives > 0).then(|| "the dial was refused".to_owned());
    };
    let arrived = connection.insists(&mut site, Role::Initiator, message, &cut, ROUNDS);
    compare(&site, peer, &site.evidence_since(&mark), arrived, expected)
}

#[test]
fn the_open_clients_opener_never_leaves_however_it_is_cut() {
    let mut tally = Tally::default();
    let expected = caught(&["constant_opener"]);
    for port in PORTS {
        for cut in Cut::all(CONSTANT_OPENER.len()) {
            let finding = open_with(Site::new(), port, &CONSTANT_OPENER, cut, expected);
            tally.check(finding.map(|found| format!("port {port} {cut:?}: {found}")));
        }
    }
    tally.conclude("constant openers", 100);
}

#[test]
fn a_random_opener_never_leaves_where_it_looks_encrypted_or_goes_to_a_port_of_the_web() {
    let mut tally = Tally::default();
    let both = openers(Opener::Random, OPENERS).chain(openers(Opener::PlainLooking, OPENERS));
    for opener in both {
        for port in PORTS {
            let expected = match (looks_encrypted(&opener), port) {
                (true, _) => caught(&["encrypted_opener"]),
                (false, 80 | 443) => caught(&["opener_shape"]),
                (false, _) => Said {
                    arrives: 12,
                    evidence: &["opener_shape"],
                    locks: false,
                    teaches: false,
                },
            };
            let finding = open_with(Site::new(), port, &opener, Cut::Whole, expected);
            tally.check(finding.map(|found| format!("port {port} {opener:02x?}: {found}")));
        }
    }
    tally.conclude("random openers", 400);
}

#[test]
fn an_opener_that_looks_encrypted_is_never_whole_however_it_is_cut() {
    let mut tally = Tally::default();
    let [opener, _] = encrypted_and_plain();
    for port in PORTS {
        // Its beginning may leave where nobody is suspect: every binary protocol has one.
        let arrives = if matches!(port, 80 | 443) { 0 } else { 11 };
        let expected = Said {
            arrives,
            ..caught(&["encrypted_opener"])
        };
        for cut in Cut::all(opener.len()) {
            let finding = open_with(Site::new(), port, &opener, cut, expected);
            tally.check(finding.map(|found| format!("port {port} {cut:?}: {found}")));
        }
    }
    tally.conclude("cut openers", 100);
}

#[test]
fn to_a_known_peer_no_opener_leaves_whatever_it_looks_like() {
    let mut tally = Tally::default();
    let names = [
        &["encrypted_opener"][..],
        &["opener_shape"],
        &["constant_opener"],
    ];
    let [encrypted, plain] = encrypted_and_plain();
    for (opener, evidence) in [encrypted, plain, CONSTANT_OPENER].into_iter().zip(names) {
        for port in [1214, 2001, 4999] {
            for cut in Cut::all(opener.len()) {
                let site = Site::with_known_peer(end(PEER, port));
                let finding = open_with(site, port, &opener, cut, caught(evidence));
                tally.check(
                    finding.map(|found| format!("port {port} {evidence:?} {cut:?}: {found}")),
                );
            }
        }
    }
    tally.conclude("openers to known peers", 200);
}

#[test]
fn a_locked_host_reaches_no_peer_at_all_and_on_ports_of_the_web_no_opener_leaves() {
    let mut tally = Tally::default();
    let [encrypted, plain] = encrypted_and_plain();
    for opener in [encrypted, plain, CONSTANT_OPENER] {
        for port in [1214, 2001, 4999] {
            let mut site = Site::with_locked_host();
            let is_refused =
                Connection::open(&mut site, end(HOST, 3000), end(PEER, port)).is_none();
            tally.check((!is_refused).then(|| format!("port {port} was reached")));
        }
        for port in [80, 443, 8080] {
            for cut in Cut::all(opener.len()) {
                let mut site = Site::with_locked_host();
                let dialled = Connection::open(&mut site, end(HOST, 3000), end(PEER, port));
                let mut connection = dialled.expect("a locked host may dial ports of the web");
                let arrived = connection.insists(&mut site, Role::Initiator, &opener, &cut, ROUNDS);
                tally
                    .check((arrived > 0).then(|| format!("port {port} {cut:?}: {arrived} octets")));
            }
        }
    }
    tally.conclude("locked hosts' openers", 200);
}

#[test]
fn the_second_of_two_plain_openers_is_caught_and_both_peers_are_learned() {
    let mut tally = Tally::default();
    for (first, second) in
        openers(Opener::PlainLooking, 20).zip(openers(Opener::PlainLooking, 21).skip(1))
    {
        let mut site = Site::new();
        let one = open_with_site(&mut site, PEER, &first);
        let other = open_with_site(&mut site, STRANGER, &second);
        let learned = [PEER, STRANGER].map(|address| site.has_learned(end(address, 2001)));
        let is_as_said = one == 12 && other == 0 && site.is_locked() && learned == [true; 2];
        tally
            .check((!is_as_said).then(|| format!("{one} and {other} octets, learned {learned:?}")));
    }
    tally.conclude("pairs of openers", 20);
}

fn open_with_site(site: &mut Site, address: std::net::Ipv4Addr, opener: &[u8]) -> usize {
    let dialled = Connection::open(site, end(HOST, 3000), end(address, 2001));
    let mut connection = dialled.expect("nothing is known yet");
    connection.insists(site, Role::Initiator, opener, &Cut::Whole, ROUNDS)
}

#[test]
fn no_octet_of_an_answer_arrives_however_it_is_cut_and_whoever_opened() {
    let mut tally = Tally::default();
    for opener in openers(Opener::PlainLooking, 3) {
        for answer in answers() {
            for cut in Cut::all(answer.len()) {
                for from_inside in [true, false] {
                    let finding = answered(&opener, &answer, &cut, from_inside);
                    tally.check(finding.map(|found| {
                        format!(
                            "{} octets {cut:?}, inside {from_inside}: {found}",
                            answer.len()
                        )
                    }));
                }
            }
        }
    }
    tally.conclude("answers", 3 * 4 * 2 * 20);
}

/// A plain opener leaves, or comes in; what becomes of its answer?
fn answered(opener: &[u8], answer: &[u8], cut: &Cut, from_inside: bool) -> Option<String> {
    let mut site = Site::new();
    let (host, peer) = (end(HOST, 3000), end(PEER, 2001));
    let (initiator, responder) = if from_inside {
        (host, peer)
    } else {
        (peer, host)
    };
    let mut connection = Connection::open(&mut site, initiator, responder)?;
    let opened = connection.insists(&mut site, Role::Initiator, opener, &Cut::Whole, ROUNDS);
    if opened < opener.len() {
        return Some(format!("only {opened} octets of the opener got through"));
    }
    let mark = site.mark();
    let arrived = connection.insists(&mut site, Role::Responder, answer, cut, ROUNDS);
    let expected = Said {
        teaches: from_inside,
        ..caught(&["handshake_pair"])
    };
    compare(&site, peer, &site.evidence_since(&mark), arrived, expected)
}

#[test]
fn an_outsiders_opener_locks_nobody() {
    let mut tally = Tally::default();
    let [encrypted, plain] = encrypted_and_plain();
    for (opener, arrives) in [(CONSTANT_OPENER, 0), (encrypted, 12), (plain, 12)] {
        let mut site = Site::new();
        let dialled = Connection::open(&mut site, end(PEER, 3000), end(HOST, 1214));
        let mut connection = dialled.expect("inbound dials are the administrator's");
        let arrived = connection.insists(&mut site, Role::Initiator, &opener, &Cut::Whole, ROUNDS);
        let is_silent = !site.has_locked_somebody() && !site.has_learned_something();
        tally.check(
            (arrived > arrives || !is_silent).then(|| format!("{opener:02x?}: {arrived} arrived")),
        );
    }
    tally.conclude("outsiders' openers", 3);
}

#[test]
fn a_session_of_a_locked_host_that_was_up_before_is_cut_and_of_others_it_is_left_alone() {
    let mut tally = Tally::default();
    for message in session_messages() {
        for role in [Role::Initiator, Role::Responder] {
            for is_locked in [true, false] {
                let mut site = Site::new();
                let mut connection = Connection::midstream(end(HOST, 3000), end(PEER, 2001));
                connection.says(&mut site, Role::Initiator, &[0x91]);
                if is_locked {
                    site.lock_host();
                }
                let mark = site.mark();
                let verdict = connection.says(&mut site, role, &message);
                let evidence = site.evidence_since(&mark);
                let is_as_said = verdict.is_drop() == is_locked
                    && evidence.is_empty()
                    && !site.has_learned_something();
                tally.check((!is_as_said).then(|| {
                    format!(
                        "{} octets, locked {is_locked}: {verdict:?} {evidence:?}",
                        message.len()
                    )
                }));
            }
        }
    }
    tally.conclude("sessions met midway", 20);
}

#[test]
fn behind_a_caught_handshake_nothing_arrives_in_either_direction() {
    let mut tally = Tally::default();
    for answer in answers() {
        for message in session_messages() {
            for role in [Role::Initiator, Role::Responder] {
                let mut site = Site::new();
                let opener = encrypted_and_plain()[1];
                let dialled = Connection::open(&mut site, end(HOST, 3000), end(PEER, 2001));
                let mut connection = dialled.expect("nothing is known yet");
                connection.says(&mut site, Role::Initiator, &opener);
                connection.says(&mut site, Role::Responder, &answer);
                let verdict = connection.says(&mut site, role, &message);
                tally.check(
                    (!verdict.is_drop())
                        .then(|| format!("{role:?} {} octets: {verdict:?}", message.len())),
                );
            }
        }
    }
    tally.conclude("session messages behind a handshake", 40);
}
