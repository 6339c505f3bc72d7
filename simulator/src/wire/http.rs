//! HTTP transfers: request heads as the families write them, response heads with `X-Kazaa-*` fields,
//! and `GIVE` (PROTO; samples captured by MLD's authors).

use std::net::SocketAddrV4;

use crate::payload::{FILE_BYTES, SharedFile};
use crate::profile::HttpStyle;
use crate::wire::Network;

/// Longest head accepted (giFT: 4,096 octets).
pub const LONGEST_HEAD: usize = 4096;

/// The agent of a real client, as captured.
const AGENT: &str = "KazaaClient Nov  3 2002 20:29:03";

/// Name of the shared file in old-style requests.
const FILE_NAME: &str = "a_song.mp3";

/// Where a head ends.
const HEAD_END: &[u8] = b"\r\n\r\n";

/// Who says something over HTTP, as the `X-Kazaa-*` fields have it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// `X-Kazaa-Username`.
    pub user_name: String,
    /// `X-Kazaa-Network`.
    pub network: Network,
    /// `X-Kazaa-IP`.
    pub address: SocketAddrV4,
    /// `X-Kazaa-SupernodeIP`.
    pub supernode: SocketAddrV4,
}

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// The file.
    Get,
    /// Something odd: real clients answer 501.
    Head,
}

/// Writes the head of a request for the whole shared file to `source`.
pub fn encode_request(
    method: Method,
    style: HttpStyle,
    who: &Identity,
    source: SocketAddrV4,
    file: &SharedFile,
) -> Vec<u8> {
    let verb = match method {
        Method::Get => "GET",
        Method::Head => "HEAD",
    };
    let hash = file.hash_hex();
    let range = format!("Range: bytes=0-{}", FILE_BYTES - 1);
    let host = format!("Host: {source}");
    let user = format!("X-Kazaa-Username: {}", who.user_name);
    let network = format!("X-Kazaa-Network: {}", who.network);
    let lines = match style {
        HttpStyle::Kazaa => {
            let first = format!("{verb} /.hash={hash} HTTP/1.1");
            kazaa_lines(first, who, [host, user, network, range], file)
        }
        HttpStyle::OldStyle => {
            let first = format!("{verb} /{}/{FILE_NAME} HTTP/1.1", old_style_id(file));
            kazaa_lines(first, who, [host, user, network, range], file)
        }
        HttpStyle::Gift => {
            let first = format!("{verb} /.hash={hash} HTTP/1.1");
            let uid = format!("X-Kazaa-XferUid: {}", transfer_uid(file));
            let agent = "UserAgent: giFT-FastTrack/0.8.9".to_owned();
            filled(
                vec![first, network, host, agent, uid, range, user],
                GIFT_HEAD_LEN,
            )
        }
        HttpStyle::Mldonkey => {
            let first = format!("{verb} /.hash={hash} HTTP/1.0");
            let keep = "Connection: Keep-Alive".to_owned();
            filled(
                vec![first, host, keep.clone(), network, range, keep, user],
                MLDONKEY_HEAD_LEN,
            )
        }
        HttpStyle::Bare => {
            let first = format!("{verb} /.hash={hash} HTTP/1.1");
            vec![first, host, "User-Agent: client".to_owned(), range]
        }
    };
    head(&lines)
}

/// Sizes of the two open clients' requests, as measured.
pub const GIFT_HEAD_LEN: usize = 279;
/// See [`GIFT_HEAD_LEN`].
pub const MLDONKEY_HEAD_LEN: usize = 211;

fn kazaa_lines(
    first: String,
    who: &Identity,
    [host, user, network, range]: [String; 4],
    file: &SharedFile,
) -> Vec<String> {
    let agent = format!("UserAgent: {AGENT}");
    let address = format!("X-Kazaa-IP: {}", who.address);
    let supernode = format!("X-Kazaa-SupernodeIP: {}", who.supernode);
    let number = format!("X-Kazaa-XferId: {}", old_style_id(file));
    let uid = format!("X-Kazaa-XferUid: {}", transfer_uid(file));
    let close = "Connection: close".to_owned();
    vec![
        first, host, agent, user, network, address, supernode, range, close, number, uid,
    ]
}

/// Fills up the last line, the user's name, so that the head has the size measured: a real name's
/// length is nobody's business, and `Host` varies.
fn filled(mut lines: Vec<String>, len: usize) -> Vec<String> {
    let missing = len.saturating_sub(head(&lines).len());
    if let Some(user) = lines.last_mut() {
        user.extend(std::iter::repeat_n('x', missing));
    }
    lines
}

/// The number that old-style requests name the file by.
fn old_style_id(file: &SharedFile) -> u32 {
    let [a, b, ..] = file.hash();
    u32::from(u16::from_be_bytes([a, b]))
}

/// 44 characters of base64, as `X-Kazaa-XferUid` has.
fn transfer_uid(file: &SharedFile) -> String {
    let mut bytes = [0; 32];
    bytes[..20].copy_from_slice(&file.hash());
    base64(&bytes)
}

/// What an uploader answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// Here it is.
    PartialContent,
    /// Not here.
    NotFound,
    /// Not now.
    Busy,
    /// Not understood.
    NotImplemented,
}

/// Seconds in `Retry-After` of a busy uploader (captured: 284 and 300).
pub const RETRY_AFTER_SECONDS: u64 = 300;

/// Writes the head of a response. Errors carry the `X-Kazaa-*` fields too, as captured.
pub fn encode_response(status: Status, who: &Identity, file: &SharedFile) -> Vec<u8> {
    let mut lines = match status {
        Status::PartialContent => vec![
            "HTTP/1.1 206 Partial Content".to_owned(),
            format!("Content-Range: bytes 0-{}/{FILE_BYTES}", FILE_BYTES - 1),
            format!("Content-Length: {FILE_BYTES}"),
            "Accept-Ranges: bytes".to_owned(),
        ],
        Status::NotFound => error_lines("HTTP/1.0 404 Not Found"),
        Status::Busy => {
            let mut lines = error_lines("HTTP/1.0 503 Service Unavailable");
            lines.push(format!("Retry-After: {RETRY_AFTER_SECONDS}"));
            lines
        }
        Status::NotImplemented => error_lines("HTTP/1.0 501 Not Implemented"),
    };
    lines.push(format!("Server: {AGENT}"));
    lines.push("Connection: close".to_owned());
    lines.push(format!("X-Kazaa-Username: {}", who.user_name));
    lines.push(format!("X-Kazaa-Network: {}", who.network));
    lines.push(format!("X-Kazaa-IP: {}", who.address));
    lines.push(format!("X-Kazaa-SupernodeIP: {}", who.supernode));
    if status == Status::PartialContent {
        lines.push(format!("X-KazaaTag: 3=={}", base64(&file.hash())));
        lines.push("Content-Type: audio/mpeg".to_owned());
    }
    head(&lines)
}

fn error_lines(first: &str) -> Vec<String> {
    vec![first.to_owned(), "Content-Length: 0".to_owned()]
}

/// `GIVE` with a push id, which tells the downloader what the call is about.
pub fn encode_give(push_id: u32) -> Vec<u8> {
    format!("GIVE {push_id}\r\n").into_bytes()
}

/// Takes a whole `GIVE` line off the front of `bytes`.
pub fn take_give(bytes: &mut Vec<u8>) -> Option<u32> {
    let line = take_until(bytes, b"\r\n")?;
    String::from_utf8(line)
        .ok()?
        .strip_prefix("GIVE ")?
        .trim_end()
        .parse()
        .ok()
}

/// Takes a whole head, its blank line included, off the front of `bytes`.
pub fn take_head(bytes: &mut Vec<u8>) -> Option<Vec<u8>> {
    take_until(bytes, HEAD_END)
}

fn take_until(bytes: &mut Vec<u8>, end: &[u8]) -> Option<Vec<u8>> {
    let place = bytes.windows(end.len()).position(|window| window == end)?;
    let rest = bytes.split_off(place + end.len());
    Some(std::mem::replace(bytes, rest))
}

/// What a request head asks of an uploader that shares `file`.
pub fn judge_request(head: &[u8], file: &SharedFile) -> Status {
    let text = String::from_utf8_lossy(head);
    let mut words = text.lines().next().unwrap_or_default().split(' ');
    let (Some("GET"), Some(path), Some("HTTP/1.0" | "HTTP/1.1")) =
        (words.next(), words.next(), words.next())
    else {
        return Status::NotImplemented;
    };
    let by_hash = format!("/.hash={}", file.hash_hex());
    let by_number = format!("/{}/{FILE_NAME}", old_style_id(file));
    if path.eq_ignore_ascii_case(&by_hash) || path == by_number {
        Status::PartialContent
    } else {
        Status::NotFound
    }
}

/// A response head, as a downloader needs it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ResponseHead {
    /// The status code.
    pub code: u16,
    /// Octets of content that follow.
    pub content_len: u64,
    /// Seconds in `Retry-After`, if any.
    pub retry_after_seconds: Option<u64>,
}

/// Reads a response head.
pub fn parse_response(head: &[u8]) -> Option<ResponseHead> {
    let text = std::str::from_utf8(head).ok()?;
    let code = text
        .strip_prefix("HTTP/1.")?
        .split(' ')
        .nth(1)?
        .parse()
        .ok()?;
    let number = |name| field(text, name).and_then(|value| value.parse().ok());
    Some(ResponseHead {
        code,
        content_len: number("Content-Length")?,
        retry_after_seconds: number("Retry-After"),
    })
}

fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(found, _)| found.eq_ignore_ascii_case(name))
        .map(|(_, value)| value.trim())
}

fn head(lines: &[String]) -> Vec<u8> {
    let mut bytes = lines.join("\r\n").into_bytes();
    bytes.extend_from_slice(HEAD_END);
    bytes
}

fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let padded = [
            chunk[0],
            *chunk.get(1).unwrap_or(&0),
            *chunk.get(2).unwrap_or(&0),
        ];
        let bits = u32::from_be_bytes([0, padded[0], padded[1], padded[2]]);
        for place in 0..4 {
            let digit = ALPHABET[(bits >> (18 - 6 * place)) as usize & 63];
            text.push(if place <= chunk.len() {
                char::from(digit)
            } else {
                '='
            });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seed::Seed;

    fn identity() -> Identity {
        Identity {
            user_name: "anyone".to_owned(),
            network: Network::Kazaa,
            address: "10.77.1.1:2345".parse().unwrap(),
            supernode: "198.18.3.4:1214".parse().unwrap(),
        }
    }

    fn request(style: HttpStyle, source: &str) -> String {
        let file = SharedFile::of(Seed(1));
        let bytes = encode_request(
            Method::Get,
            style,
            &identity(),
            source.parse().unwrap(),
            &file,
        );
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn the_open_clients_requests_have_the_sizes_measured_whatever_the_address() {
        for source in ["127.64.0.1:80", "198.18.12.34:1214", "198.19.255.254:4999"] {
            assert_eq!(request(HttpStyle::Gift, source).len(), GIFT_HEAD_LEN);
            assert_eq!(
                request(HttpStyle::Mldonkey, source).len(),
                MLDONKEY_HEAD_LEN
            );
        }
    }

    #[test]
    fn gift_misspells_its_agent_and_says_nothing_of_its_supernode() {
        let text = request(HttpStyle::Gift, "198.18.12.34:1214");
        assert!(text.starts_with("GET /.hash=") && text.contains(" HTTP/1.1\r\n"));
        assert!(text.contains("\r\nUserAgent: ") && text.contains("\r\nX-Kazaa-Username: "));
        assert!(!text.contains("X-Kazaa-IP") && !text.contains("X-Kazaa-SupernodeIP"));
    }

    #[test]
    fn mldonkey_asks_in_http_1_0_twice_for_the_connection_and_names_no_agent() {
        let text = request(HttpStyle::Mldonkey, "198.18.12.34:1214");
        assert!(text.contains(" HTTP/1.0\r\n"));
        assert_eq!(text.matches("Connection: Keep-Alive\r\n").count(), 2);
        assert!(!text.to_lowercase().contains("agent"));
    }

    #[test]
    fn kazaa_sends_every_field_of_its_own_and_the_bare_style_none() {
        let text = request(HttpStyle::Kazaa, "198.18.12.34:1214");
        for name in [
            "Username",
            "Network",
            "IP",
            "SupernodeIP",
            "XferId",
            "XferUid",
        ] {
            assert!(text.contains(&format!("\r\nX-Kazaa-{name}: ")), "{name}");
        }
        assert!(!request(HttpStyle::Bare, "198.18.12.34:1214").contains("X-Kazaa"));
    }

    #[test]
    fn the_old_style_names_a_number_and_a_file() {
        let text = request(HttpStyle::OldStyle, "198.18.12.34:1214");
        let path = text.split(' ').nth(1).unwrap();
        let (number, name) = path[1..].split_once('/').unwrap();
        assert!(
            number.parse::<u32>().is_ok() && name.ends_with(".mp3"),
            "{path}"
        );
    }

    #[test]
    fn every_style_of_request_is_understood_and_an_odd_one_is_not() {
        let file = SharedFile::of(Seed(1));
        let styles = [
            HttpStyle::Kazaa,
            HttpStyle::Gift,
            HttpStyle::Mldonkey,
            HttpStyle::OldStyle,
            HttpStyle::Bare,
        ];
        for style in styles {
            let head = request(style, "198.18.12.34:1214");
            assert_eq!(
                judge_request(head.as_bytes(), &file),
                Status::PartialContent,
                "{style:?}"
            );
        }
        let odd = request(HttpStyle::Kazaa, "198.18.12.34:1214").replace("GET", "HEAD");
        assert_eq!(judge_request(odd.as_bytes(), &file), Status::NotImplemented);
        assert_eq!(
            judge_request(b"GET / HTTP/1.1\r\n\r\n", &file),
            Status::NotFound
        );
    }

    #[test]
    fn errors_carry_all_four_fields_of_their_sender_too() {
        let file = SharedFile::of(Seed(1));
        for (status, code) in [
            (Status::Busy, 503),
            (Status::NotImplemented, 501),
            (Status::NotFound, 404),
        ] {
            let bytes = encode_response(status, &identity(), &file);
            let text = std::str::from_utf8(&bytes).unwrap();
            for name in ["Username", "Network", "IP", "SupernodeIP"] {
                assert!(
                    text.contains(&format!("\r\nX-Kazaa-{name}: ")),
                    "{status:?} {name}"
                );
            }
            assert_eq!(parse_response(&bytes).unwrap().code, code);
        }
    }

    #[test]
    fn a_busy_uploader_says_when_to_come_back() {
        let bytes = encode_response(Status::Busy, &identity(), &SharedFile::of(Seed(1)));
        assert_eq!(
            parse_response(&bytes).unwrap().retry_after_seconds,
            Some(RETRY_AFTER_SECONDS)
        );
    }

    #[test]
    fn heads_and_give_lines_are_taken_whole_or_not_at_all() {
        let mut bytes = b"GIVE 17\r\nGET / HTTP/1.1\r\n\r".to_vec();
        assert_eq!(take_give(&mut bytes), Some(17));
        assert_eq!(take_head(&mut bytes), None);
        bytes.push(b'\n');
        assert_eq!(take_head(&mut bytes).unwrap(), b"GET / HTTP/1.1\r\n\r\n");
        assert!(bytes.is_empty());
    }

    #[test]
    fn base64_is_that_of_rfc_4648() {
        assert_eq!(
            ["", "f", "fo", "foo", "foob"].map(|text| base64(text.as_bytes())),
            ["", "Zg==", "Zm8=", "Zm9v", "Zm9vYg=="]
        );
        assert_eq!(transfer_uid(&SharedFile::of(Seed(1))).len(), 44);
    }
}
