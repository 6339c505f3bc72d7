//! FastTrack's transfers: HTTP requests and responses in the clear, on any port, and `GIVE`, with
//! which a file's owner calls the requester back.
//!
//! Clients differ in everything but `/.hash=` and forty digits: giFT says HTTP/1.1 and `UserAgent`
//! (sic), mldonkey HTTP/1.0 and no agent, early versions no `X-Kazaa` field at all. Errors (503,
//! 501) still carry every `X-Kazaa` field. Only heads are read: a page that describes the protocol
//! says all of this in its body.

use std::net::SocketAddrV4;

use super::super::head::{MessageHead, RequestLine, is_status_line};
use super::super::{Conversation, Head, Needs, Patience, Reading};
use crate::Evidence;

/// Requests for a file. Peers answer other methods than GET with 501 and every mark they have, so
/// that asking is contact as well.
const HASH_REQUESTS: [&[u8]; 2] = [b"GET /.hash=", b"HEAD /.hash="];
const HASH_PATH: &[u8] = b"/.hash=";
/// SHA-like file hash of FastTrack (UUHash), 20 octets in hexadecimal.
const HASH_DIGITS: usize = 40;
/// As much of a file request, from its end, as ordinary requests do not share: `hash=`.
const OWN_PART: usize = b"hash=".len();

const GIVE: &[u8] = b"GIVE ";
/// As much of `GIVE ` as other text protocols share (`GIV ` of Gnutella).
const SHARED_WITH_GIVE: usize = b"GIV".len();
/// A push id is a number of 32 bits.
const PUSH_ID_DIGITS: usize = 10;

/// Paths that peers serve (PROTOCOL notes, l7-filter). Others serve `/.status` too.
const SPECIAL_PATHS: [&[u8]; 5] = [
    b"/.download/",
    b"/.supernode",
    b"/.status",
    b"/.network",
    b"/.files",
];

/// Reads the heads of a conversation.
pub(super) fn read(conversation: &Conversation<'_>) -> Reading {
    let request = read_request(&conversation.initiator);
    let response = read_response(&conversation.responder);
    match (request, response) {
        (_, Response::Marked) => Reading {
            evidence: Some(Evidence::MarkedResponse),
            needs: None,
        },
        // `GIVE` turns the roles around; the request may also come from the responder.
        (_, Response::Request(evidence)) => Reading {
            evidence: Some(evidence),
            needs: None,
        },
        (Request::Evidence(evidence), _) => Reading {
            evidence: Some(evidence),
            needs: None,
        },
        (Request::Prefix(patience), _) => Reading {
            evidence: (patience == Patience::Endless).then_some(Evidence::TransferBeginning),
            needs: Some(Needs::Withholding(patience)),
        },
        (Request::Numbered { is_whole }, response) => {
            let is_open = !is_whole || response == Response::Unfinished;
            Reading {
                evidence: Some(Evidence::NumberedRequest),
                needs: is_open.then_some(Needs::Withholding(Patience::Limited)),
            }
        }
        (Request::Special, _) => Reading {
            evidence: Some(Evidence::SpecialPath),
            needs: None,
        },
        (Request::Other, Response::Unfinished | Response::Unmarked) => Reading::default(),
    }
}

/// Reads the first payload seen of a conversation that was up before. It may be the middle of a
/// body, so only a whole start line counts.
pub(super) fn read_midstream(octets: &[u8]) -> Option<Evidence> {
    let head = MessageHead::read(octets);
    if !head.start_line_is_whole {
        return None;
    }
    if is_status_line(octets) {
        return is_marked(&head).then_some(Evidence::MarkedResponse);
    }
    let line = RequestLine::read(head.start_line).filter(|line| line.has_version)?;
    if is_hash_path(line.path) {
        return Some(Evidence::HashRequest);
    }
    is_marked(&head).then_some(Evidence::MarkedRequest)
}

/// The peers that a marked head names: who sent it, and the supernode behind it. The dependable
/// place is the response; requests of the open clients name neither.
pub(super) fn announced_peers(octets: &[u8]) -> Vec<SocketAddrV4> {
    let announces = |name: &[u8]| {
        name.eq_ignore_ascii_case(b"X-Kazaa-IP")
            || name.eq_ignore_ascii_case(b"X-Kazaa-SupernodeIP")
    };
    let fields = MessageHead::read(octets).fields();
    let values = fields
        .filter(|(name, _)| announces(name))
        .map(|(_, value)| value);
    values
        .filter_map(|value| std::str::from_utf8(value).ok()?.parse().ok())
        .collect()
}

/// What the initiator's first octets are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Request {
    Evidence(Evidence),
    /// Can still become a file request or `GIVE`.
    Prefix(Patience),
    /// `/<number>/...` without marks so far.
    Numbered {
        is_whole: bool,
    },
    Special,
    Other,
}

fn read_request(head: &Head<'_>) -> Request {
    let octets = head.octets;
    if octets.is_empty() {
        return Request::Other;
    }
    if let Some(request) = read_hash_request(octets).or_else(|| read_give(octets)) {
        return request;
    }
    let message = MessageHead::read(octets);
    let Some(line) = RequestLine::read(message.start_line) else {
        return Request::Other;
    };
    if is_hash_path(line.path) {
        return Request::Evidence(Evidence::HashRequest);
    }
    // Fields behind a line that is not HTTP/1 are not read: in pieces, such a flow is given up before
    // they come.
    if message.start_line_is_whole && !line.has_version {
        return Request::Other;
    }
    if is_marked(&message) {
        return Request::Evidence(Evidence::MarkedRequest);
    }
    if is_numbered(line.path, message.start_line_is_whole) {
        return Request::Numbered {
            is_whole: message.is_whole || head.has_ended,
        };
    }
    let is_special = SPECIAL_PATHS.iter().any(|path| line.path.starts_with(path));
    if message.start_line_is_whole && is_special {
        Request::Special
    } else {
        Request::Other
    }
}

/// A request for a hash of forty digits, or a beginning of it.
fn read_hash_request(octets: &[u8]) -> Option<Request> {
    HASH_REQUESTS
        .iter()
        .find_map(|request| read_hash_request_as(octets, request))
}

fn read_hash_request_as(octets: &[u8], request: &[u8]) -> Option<Request> {
    match rest_behind(octets, request) {
        Behind::Prefix(len) if len <= request.len() - OWN_PART => {
            Some(Request::Prefix(Patience::Least))
        }
        Behind::Prefix(_) => Some(Request::Prefix(Patience::Endless)),
        Behind::Rest(rest) => match leading_digits(rest, HASH_DIGITS, u8::is_ascii_hexdigit) {
            HASH_DIGITS => Some(Request::Evidence(Evidence::HashRequest)),
            digits if digits == rest.len() => Some(Request::Prefix(Patience::Endless)),
            _ => None,
        },
        Behind::Foreign => None,
    }
}

/// `GIVE <number>` and the end of the line, or a beginning of it.
fn read_give(octets: &[u8]) -> Option<Request> {
    match rest_behind(octets, GIVE) {
        Behind::Prefix(len) if len <= SHARED_WITH_GIVE => Some(Request::Prefix(Patience::Limited)),
        Behind::Prefix(_) => Some(Request::Prefix(Patience::Endless)),
        Behind::Rest(rest) => {
            let digits = leading_digits(rest, PUSH_ID_DIGITS, u8::is_ascii_digit);
            match rest.get(digits) {
                None => Some(Request::Prefix(Patience::Endless)),
                Some(b'\r' | b'\n') if digits > 0 => Some(Request::Evidence(Evidence::Give)),
                Some(_) => None,
            }
        }
        Behind::Foreign => None,
    }
}

/// How octets relate to a constant that they may begin with.
enum Behind<'a> {
    /// So many octets of the constant, and nothing more.
    Prefix(usize),
    /// The whole constant, and this behind it.
    Rest(&'a [u8]),
    Foreign,
}

fn rest_behind<'a>(octets: &'a [u8], constant: &[u8]) -> Behind<'a> {
    let len = octets.len().min(constant.len());
    if !octets[..len].eq_ignore_ascii_case(&constant[..len]) {
        return Behind::Foreign;
    }
    match octets.get(constant.len()..) {
        Some(rest) => Behind::Rest(rest),
        None => Behind::Prefix(len),
    }
}

fn leading_digits(octets: &[u8], most: usize, is_digit: fn(&u8) -> bool) -> usize {
    octets
        .iter()
        .take(most)
        .take_while(|octet| is_digit(octet))
        .count()
}

fn is_hash_path(path: &[u8]) -> bool {
    matches!(rest_behind(path, HASH_PATH), Behind::Rest(rest)
        if leading_digits(rest, HASH_DIGITS, u8::is_ascii_hexdigit) == HASH_DIGITS)
}

/// `/<number>/...`; of an unfinished line also `/<number>`, which can still become that.
fn is_numbered(path: &[u8], line_is_whole: bool) -> bool {
    let Some(rest) = path.strip_prefix(b"/") else {
        return false;
    };
    let digits = leading_digits(rest, rest.len(), u8::is_ascii_digit);
    match rest.get(digits) {
        Some(b'/') => digits > 0,
        Some(_) => false,
        None => digits > 0 && !line_is_whole,
    }
}

/// What the responder's first octets are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Response {
    /// Carries a mark of the Kazaa family.
    Marked,
    /// Is no response but a request that speaks for itself.
    Request(Evidence),
    /// Can still become a marked response.
    Unfinished,
    /// A whole head without marks, something else, or nothing.
    Unmarked,
}

fn read_response(head: &Head<'_>) -> Response {
    let octets = head.octets;
    if octets.is_empty() {
        return Response::Unmarked;
    }
    if !is_status_line(octets) {
        return read_midstream(octets).map_or(Response::Unmarked, Response::Request);
    }
    let message = MessageHead::read(octets);
    match (is_marked(&message), message.is_whole || head.has_ended) {
        (true, _) => Response::Marked,
        (false, false) => Response::Unfinished,
        (false, true) => Response::Unmarked,
    }
}

/// Whether a header field is one that only the Kazaa family sends.
fn is_marked(head: &MessageHead<'_>) -> bool {
    head.fields().any(|(name, value)| {
        starts_with_ignoring_case(name, b"X-Kazaa-")
            || name.eq_ignore_ascii_case(b"X-KazaaTag")
            || (names_a_program(name) && starts_with_ignoring_case(value, b"KazaaClient"))
    })
}

/// `UserAgent`, as Kazaa misspells it, and what it should have been.
fn names_a_program(name: &[u8]) -> bool {
    [&b"UserAgent"[..], b"User-Agent", b"Server"]
        .iter()
        .any(|known| name.eq_ignore_ascii_case(known))
}

fn starts_with_ignoring_case(octets: &[u8], prefix: &[u8]) -> bool {
    octets
        .get(..prefix.len())
        .is_some_and(|start| start.eq_ignore_ascii_case(prefix))
}

#[cfg(test)]
mod tests {
    use super::super::super::tests::{conversation, head};
    use super::*;

    const HASH: &str = "0123456789abcdef0123456789ABCDEF01234567";

    #[test]
    fn the_requests_of_both_open_clients_are_file_requests() {
        let gift = format!(
            "GET /.hash={HASH} HTTP/1.1\r\nHost: 198.18.0.5:2001\r\nUserAgent: giFT/0.8.9\r\n\
             Connection: close\r\nX-Kazaa-Network: KaZaA\r\nRange: bytes=0-99\r\n\r\n"
        );
        let mldonkey = format!(
            "GET /.hash={HASH} HTTP/1.0\r\nConnection: Keep-Alive\r\nHost: 198.18.0.5\r\n\r\n"
        );
        assert_eq!(request(&gift), Request::Evidence(Evidence::HashRequest));
        assert_eq!(request(&mldonkey), Request::Evidence(Evidence::HashRequest));
    }

    #[test]
    fn a_hash_counts_with_or_without_a_slash_behind_it() {
        let with_slash = format!("GET /.hash={HASH}/song.mp3 HTTP/1.1\r\n");
        assert_eq!(
            request(&with_slash),
            Request::Evidence(Evidence::HashRequest)
        );
        let first_digits_of_the_line = format!("GET /.hash={HASH}");
        assert_eq!(
            request(&first_digits_of_the_line),
            Request::Evidence(Evidence::HashRequest)
        );
    }

    #[test]
    fn every_beginning_of_a_file_request_is_withheld() {
        for (method, shared) in [("GET", "GET /."), ("HEAD", "HEAD /.")] {
            let whole = format!("{method} /.hash={HASH}");
            for len in 1..whole.len() {
                let expected = if len <= shared.len() {
                    Patience::Least
                } else {
                    Patience::Endless
                };
                let beginning = &whole[..len];
                assert_eq!(request(beginning), Request::Prefix(expected), "{beginning}");
            }
        }
    }

    #[test]
    fn a_short_or_other_hash_is_an_ordinary_request() {
        for text in [
            "GET /.hash=0123 HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET /.hash=zz",
            "GET /.htaccess HTTP/1.1\r\n\r\n",
            "GET /.well-known/acme HTTP/1.1\r\n\r\n",
            "GET /.env HTTP/1.1\r\n\r\n",
            "GET sha1:ABC HTTP/1.1\r\n\r\n", // Ares
        ] {
            assert_eq!(request(text), Request::Other, "{text}");
        }
    }

    #[test]
    fn a_mark_in_the_header_block_is_evidence_under_any_path() {
        for field in [
            "X-Kazaa-Username: bob",
            "x-kazaa-network: KaZaA",
            "UserAgent: KazaaClient Nov  3 2002 20:29:03",
            "User-Agent: KazaaClient",
        ] {
            let text = format!("GET /1234/song.mp3 HTTP/1.1\r\nHost: a\r\n{field}\r\n\r\n");
            assert_eq!(
                request(&text),
                Request::Evidence(Evidence::MarkedRequest),
                "{field}"
            );
        }
    }

    #[test]
    fn a_mark_in_a_body_or_in_a_value_is_silence() {
        for text in [
            "POST /mail HTTP/1.1\r\nHost: a\r\n\r\nX-Kazaa-Username: bob\r\n",
            "GET / HTTP/1.1\r\nReferer: http://a/X-Kazaa-Username:\r\n\r\n",
            "GET / HTTP/1.1\r\nUser-Agent: Mozilla (not KazaaClient)\r\n\r\n",
            "GET / HTTP/1.1\r\nX-About: KazaaClient\r\n\r\n",
        ] {
            assert_eq!(request(text), Request::Other, "{text}");
        }
    }

    #[test]
    fn a_numbered_request_is_weak_evidence_and_its_head_is_withheld_until_it_is_whole() {
        let whole = "GET /1234/song.mp3 HTTP/1.1\r\nHost: a\r\n\r\n";
        assert_eq!(request(whole), Request::Numbered { is_whole: true });
        let reading = read(&conversation(b"GET /1234/song.mp3 HT", b""));
        assert_eq!(reading.evidence, Some(Evidence::NumberedRequest));
        assert_eq!(reading.needs, Some(Needs::Withholding(Patience::Limited)));
        let reading = read(&conversation(whole.as_bytes(), b"HTTP/1.0 20"));
        assert_eq!(reading.needs, Some(Needs::Withholding(Patience::Limited)));
        let reading = read(&conversation(whole.as_bytes(), b"HTTP/1.0 200 OK\r\n\r\n"));
        assert_eq!(reading.needs, None);
        for beginning in ["GET /2003/", "GET /2003", "GET /1", "PUT /2003"] {
            let numbered = Request::Numbered { is_whole: false };
            assert_eq!(request(beginning), numbered, "{beginning}");
        }
        for other in ["PUT /", "GET //a HTTP/1.1\r\n", "GET /a/1/ HTTP/1.1\r\n"] {
            assert_eq!(request(other), Request::Other, "{other}");
        }
        assert_eq!(request("GET /2003 HTTP/1.1\r\n"), Request::Other);
    }

    #[test]
    fn special_paths_are_weak_evidence() {
        for path in [
            "/.files",
            "/.supernode",
            "/.status",
            "/.network",
            "/.download/1/a",
        ] {
            let text = format!("GET {path} HTTP/1.1\r\n\r\n");
            assert_eq!(request(&text), Request::Special, "{path}");
        }
    }

    #[test]
    fn give_and_a_number_is_a_push() {
        for text in ["GIVE 1\r\n", "GIVE 4294967295\r\n", "GIVE 42\n"] {
            assert_eq!(request(text), Request::Evidence(Evidence::Give), "{text}");
        }
        assert_eq!(request("GIVE 12"), Request::Prefix(Patience::Endless));
        assert_eq!(request("GIVE "), Request::Prefix(Patience::Endless));
        assert_eq!(request("GIV"), Request::Prefix(Patience::Limited));
        assert_eq!(request("GIVE"), Request::Prefix(Patience::Endless));
    }

    #[test]
    fn words_that_only_begin_like_give_are_silence() {
        for text in [
            "GIV 1:abc/file\n\n",
            "GIVE me\r\n",
            "GIVEN 1\r\n",
            "GIVE \r\n",
            "GIVE 1 2\r\n",
        ] {
            assert_eq!(request(text), Request::Other, "{text}");
        }
    }

    #[test]
    fn answers_of_every_status_are_known_by_their_marks() {
        for status in [
            "206 Partial Content",
            "503 Service Unavailable",
            "501 Not Implemented",
        ] {
            let text = format!(
                "HTTP/1.0 {status}\r\nServer: KazaaClient Nov  3 2002 20:29:03\r\n\
                 X-Kazaa-Username: bob\r\nX-Kazaa-IP: 198.18.0.5:2001\r\n\r\n"
            );
            assert_eq!(
                read_response(&head(text.as_bytes())),
                Response::Marked,
                "{status}"
            );
        }
        let tag_only = b"HTTP/1.1 200 OK\r\nX-KazaaTag: 4=title\r\n\r\n";
        assert_eq!(read_response(&head(tag_only)), Response::Marked);
    }

    #[test]
    fn a_page_about_the_protocol_is_an_unmarked_answer() {
        let page = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n\
                     GET /.hash=0123456789abcdef0123456789abcdef01234567 HTTP/1.1\r\n\
                     X-Kazaa-Username: bob\r\nServer: KazaaClient\r\n";
        assert_eq!(read_response(&head(page)), Response::Unmarked);
        let reading = read(&conversation(b"GET /protocol.html HTTP/1.1\r\n\r\n", page));
        assert_eq!(reading, Reading::default());
    }

    #[test]
    fn a_request_from_the_responder_is_evidence() {
        let reversed = format!("GET /.hash={HASH} HTTP/1.1\r\n\r\n");
        let reading = read(&conversation(b"hello", reversed.as_bytes()));
        assert_eq!(reading.evidence, Some(Evidence::HashRequest));
    }

    #[test]
    fn of_a_conversation_that_was_up_only_whole_start_lines_count() {
        let whole = format!("GET /.hash={HASH} HTTP/1.1\r\n");
        assert_eq!(
            read_midstream(whole.as_bytes()),
            Some(Evidence::HashRequest)
        );
        assert_eq!(read_midstream(&whole.as_bytes()[..51]), None);
        assert_eq!(read_midstream(format!("see {whole}").as_bytes()), None);
        let marked = b"HTTP/1.0 503 Busy\r\nX-Kazaa-Network: KaZaA\r\n";
        assert_eq!(read_midstream(marked), Some(Evidence::MarkedResponse));
    }

    #[test]
    fn the_supernode_and_the_sender_are_learned_from_a_head() {
        let response = b"HTTP/1.0 503 Busy\r\nX-Kazaa-IP: 198.18.0.5:2001\r\n\
                         X-Kazaa-SupernodeIP: 198.18.0.9:1214\r\nX-Kazaa-Username: 1.2.3.4:5\r\n\r\n";
        let expected = [("198.18.0.5:2001"), ("198.18.0.9:1214")].map(|text| text.parse().unwrap());
        assert_eq!(announced_peers(response), expected);
        assert_eq!(
            announced_peers(b"HTTP/1.0 503 Busy\r\nX-Kazaa-IP: bob\r\n\r\n"),
            []
        );
    }

    fn request(text: &str) -> Request {
        read_request(&head(text.as_bytes()))
    }
}
