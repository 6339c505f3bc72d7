//! Transfers: requests by hash and by number, answers with the family's fields and `GIVE` x where
//! they go, who says them, how they are cut, and what is known of both ends.

use crate::Tally;
use crate::site::{Connection, Cut, HOST, Mark, PEER, Role, Site, end};
use crate::written::{SUPERNODE, gives, hash_requests, numbered_request, responses};

/// How often a sender repeats what does not get through.
const ROUNDS: usize = 4;

/// Where sources listened.
const PORTS: [u16; 4] = [1214, 2001, 80, 443];

/// An ordinary request, and the older one of FastTrack without a mark.
const UNMARKED_REQUESTS: [&[u8]; 2] = [
    b"GET /index.html HTTP/1.1\r\nHost: 198.18.0.5\r\n\r\n",
    b"GET /12345/a_song.mp3 HTTP/1.1\r\nHost: 198.18.0.5\r\n\r\n",
];

const WEB_REQUEST: &[u8] = b"GET /index.html HTTP/1.1\r\nHost: www.example.test\r\n\r\n";
const WEB_ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";

/// Requests and calls with the evidence they are, as they are said to `PEER` at `port`.
fn requests(port: u16) -> Vec<(&'static str, Vec<u8>)> {
    let peer = end(PEER, port);
    let hash = hash_requests(peer)
        .into_iter()
        .map(|request| ("hash_request", request));
    let numbered = [("marked_request", numbered_request(peer))];
    let gives = gives().into_iter().map(|give| ("give", give));
    hash.chain(numbered).chain(gives).collect()
}

/// What is known before the request is said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Known {
    Nothing,
    /// A neighbour uses the peer.
    Peer,
    /// The host is locked, and dialled a port of the web.
    Host,
}

#[test]
fn no_octet_of_a_request_leaves_however_it_is_cut() {
    let mut tally = Tally::default();
    for port in PORTS {
        for (evidence, request) in requests(port) {
            for cut in Cut::all(request.len()) {
                let finding = said_from_inside(Known::Nothing, port, evidence, &request, &cut);
                tally.check(finding.map(|found| format!("port {port} {cut:?}: {found}")));
            }
        }
    }
    tally.conclude("requests from inside", 10_000);
}

#[test]
fn no_octet_of_a_request_leaves_for_a_known_peer_or_from_a_locked_host() {
    let mut tally = Tally::default();
    for (known, port) in [(Known::Peer, 2001), (Known::Host, 80), (Known::Host, 8080)] {
        for (evidence, request) in requests(port) {
            for cut in Cut::all(request.len()) {
                let finding = said_from_inside(known, port, evidence, &request, &cut);
                tally.check(finding.map(|found| format!("{known:?} port {port} {cut:?}: {found}")));
            }
        }
    }
    tally.conclude("requests of suspects", 5_000);
}

fn said_from_inside(
    known: Known,
    port: u16,
    evidence: &str,
    request: &[u8],
    cut: &Cut,
) -> Option<String> {
    let peer = end(PEER, port);
    let mut site = match known {
        Known::Nothing => Site::new(),
        Known::Peer => Site::with_known_peer(peer),
        Known::Host => Site::with_locked_host(),
    };
    let mut connection =
        Connection::open(&mut site, end(HOST, 3000), peer).expect("the dial passes");
    let mark = site.mark();
    let arrived = connection.insists(&mut site, Role::Initiator, request, cut, ROUNDS);
    let found = strong_evidence(&site, &mark);
    // The older request's path is enough where the peer is known, before a field is read.
    let by_path = known == Known::Peer && evidence == "marked_request" && found.is_empty();
    let is_as_said = arrived == 0
        && (found == [evidence] || by_path)
        && site.is_locked()
        && site.has_learned(peer);
    (!is_as_said).then(|| {
        let line = String::from_utf8_lossy(&request[..request.len().min(24)]).into_owned();
        format!(
            "{line:?}: {arrived} octets, {found:?}, locked {}",
            site.is_locked()
        )
    })
}

#[test]
fn no_octet_of_a_request_comes_in_and_the_host_it_is_made_to_is_locked() {
    let mut tally = Tally::default();
    for (evidence, request) in requests(1214) {
        for cut in Cut::all(request.len()) {
            let mut site = Site::new();
            let peer = end(PEER, 3000);
            let dialled = Connection::open(&mut site, peer, end(HOST, 1214));
            let mut connection = dialled.expect("inbound dials are the administrator's");
            let mark = site.mark();
            let arrived = connection.insists(&mut site, Role::Initiator, &request, &cut, ROUNDS);
            let found = strong_evidence(&site, &mark);
            let is_as_said =
                arrived == 0 && found == [evidence] && site.is_locked() && !site.has_learned(peer);
            tally.check(
                (!is_as_said).then(|| format!("{evidence} {cut:?}: {arrived} octets, {found:?}")),
            );
        }
    }
    tally.conclude("requests from outside", 2_000);
}

/// Evidence without the older request's path, which anybody's may be and which is noted as such
/// before a mark turns up.
fn strong_evidence(site: &Site, mark: &Mark) -> Vec<&'static str> {
    let found = site.evidence_since(mark).into_iter();
    found.filter(|name| *name != "numbered_request").collect()
}

#[test]
fn nothing_is_served_behind_a_request_or_a_call() {
    let mut tally = Tally::default();
    for (evidence, request) in requests(2001) {
        let reversed = requests(3000).into_iter().map(|(_, request)| request);
        for answer in responses().into_iter().chain(reversed) {
            let mut site = Site::new();
            let dialled = Connection::open(&mut site, end(HOST, 3000), end(PEER, 2001));
            let mut connection = dialled.expect("nothing is known yet");
            connection.says(&mut site, Role::Initiator, &request);
            let arrived = connection.insists(&mut site, Role::Responder, &answer, &Cut::Octets, 1);
            tally.check((arrived > 0).then(|| format!("behind {evidence}: {arrived} octets")));
        }
    }
    tally.conclude("answers to requests", 100);
}

#[test]
fn an_answer_with_the_familys_fields_is_cut_off_before_the_first_of_them_is_whole() {
    let mut tally = Tally::default();
    for request in UNMARKED_REQUESTS {
        for response in responses() {
            for cut in Cut::all(response.len()) {
                let finding = answered(request, &response, &cut);
                tally.check(finding.map(|found| {
                    let line = String::from_utf8_lossy(&response[..24]).into_owned();
                    format!("{line:?} {cut:?}: {found}")
                }));
            }
        }
    }
    tally.conclude("marked answers", 2_000);
}

fn answered(request: &[u8], response: &[u8], cut: &Cut) -> Option<String> {
    let mut site = Site::new();
    let peer = end(PEER, 2001);
    let mut connection = Connection::open(&mut site, end(HOST, 3000), peer)?;
    connection.insists(&mut site, Role::Initiator, request, &Cut::Whole, ROUNDS);
    let mark = site.mark();
    let arrived = connection.insists(&mut site, Role::Responder, response, cut, ROUNDS);
    let found = strong_evidence(&site, &mark);
    let supernode = SUPERNODE.parse().expect("an address and a port");
    let is_as_said = arrived <= end_of_first_mark(response)
        && found == ["marked_response"]
        && site.is_locked()
        && site.has_learned(peer);
    // Of a head that is cut, only the part up to the first mark has been read when it is judged.
    let knows_supernode = *cut != Cut::Whole || site.has_learned(supernode);
    (!is_as_said || !knows_supernode).then(|| {
        format!(
            "{arrived} octets, {found:?}, locked {}, supernode {knows_supernode}",
            site.is_locked()
        )
    })
}

/// Where the first word ends that only the family says: the agent in `Server`, or a field's name.
fn end_of_first_mark(response: &[u8]) -> usize {
    let marks = [&b"KazaaClient"[..], b"X-Kazaa-"];
    let ends = marks.iter().filter_map(|mark| {
        let at = response
            .windows(mark.len())
            .position(|octets| octets == *mark)?;
        Some(at + mark.len())
    });
    ends.min().expect("every answer carries marks")
}

#[test]
fn a_request_met_midway_is_known_and_what_is_cleared_is_left_alone() {
    let mut tally = Tally::default();
    for (evidence, request) in requests(2001) {
        // `GIVE` is the first thing on a connection or nothing.
        if evidence != "give" {
            let mut site = Site::new();
            let mut connection = Connection::midstream(end(HOST, 3000), end(PEER, 2001));
            let mark = site.mark();
            let verdict = connection.says(&mut site, Role::Initiator, &request);
            let found = strong_evidence(&site, &mark);
            let is_as_said = verdict.is_drop() && found == [evidence] && site.is_locked();
            tally.check((!is_as_said).then(|| format!("midway: {verdict:?} {found:?}")));
        }
        tally
            .check(behind_web(&request).map(|found| format!("{evidence} behind the web: {found}")));
    }
    tally.conclude("requests midway and behind the web", 16);
}

/// A connection that is proven to be the web leaves the queue for good; another one between the
/// same ends does not.
fn behind_web(request: &[u8]) -> Option<String> {
    let mut site = Site::new();
    let (host, peer) = (end(HOST, 3000), end(PEER, 80));
    let mut connection = Connection::open(&mut site, host, peer)?;
    connection.says(&mut site, Role::Initiator, WEB_REQUEST);
    connection.says(&mut site, Role::Responder, WEB_ANSWER);
    let mark = site.mark();
    let verdict = connection.says(&mut site, Role::Initiator, request);
    if verdict.is_drop() || !strong_evidence(&site, &mark).is_empty() {
        return Some(format!("{verdict:?} on a cleared connection"));
    }
    let mut another = Connection::open(&mut site, end(HOST, 3001), peer)?;
    let arrived = another.insists(&mut site, Role::Initiator, request, &Cut::Whole, ROUNDS);
    (arrived > 0 || !site.is_locked()).then(|| format!("{arrived} octets on another connection"))
}
