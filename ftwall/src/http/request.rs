//! What a visitor asks for: the head of an HTTP/1 request, of which little is needed.

use std::net::IpAddr;

/// Octets of the longest head.
pub(super) const LONGEST_HEAD: usize = 4096;

/// A request that can be answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// What is asked for.
    pub document: Document,
    /// Only the head of the answer is wanted.
    pub head_only: bool,
    /// The visitor understands OpenMetrics.
    pub open_metrics: bool,
}

/// What there is to be seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Document {
    /// Numbers for programs.
    Metrics,
    /// The same and more for people.
    Page,
}

/// Why a request is not answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It is no HTTP/1.
    Malformed,
    /// There is nothing at this path.
    NotFound,
    /// Nothing can be changed here.
    Method,
    /// It comes from a page of somebody else's, whose name leads here.
    Misdirected,
    /// Its head is longer than 4096 octets.
    TooLong,
}

impl Refusal {
    /// The status line's code and words.
    #[must_use]
    pub const fn status(self) -> &'static str {
        match self {
            Self::Malformed => "400 Bad Request",
            Self::NotFound => "404 Not Found",
            Self::Method => "405 Method Not Allowed",
            Self::Misdirected => "421 Misdirected Request",
            Self::TooLong => "431 Request Header Fields Too Large",
        }
    }
}

impl Request {
    /// Reads a head; nothing if it is not whole yet.
    #[must_use]
    pub fn read(received: &[u8]) -> Option<Result<Self, Refusal>> {
        let end = received.windows(4).position(|four| four == b"\r\n\r\n");
        match end {
            Some(end) if end <= LONGEST_HEAD => Some(Self::parse(&received[..end])),
            None if received.len() <= LONGEST_HEAD => None,
            Some(_) | None => Some(Err(Refusal::TooLong)),
        }
    }

    fn parse(head: &[u8]) -> Result<Self, Refusal> {
        let head = str::from_utf8(head).map_err(|_| Refusal::Malformed)?;
        let mut lines = head.split("\r\n");
        let first: Vec<&str> = lines.next().unwrap_or_default().split(' ').collect();
        let &[method, target, "HTTP/1.0" | "HTTP/1.1"] = &first[..] else {
            return Err(Refusal::Malformed);
        };
        let fields: Vec<(&str, &str)> = lines.filter_map(|line| line.split_once(':')).collect();
        let field = |name: &str| {
            let mut fields = fields.iter();
            let found = fields.find(|(known, _)| known.eq_ignore_ascii_case(name));
            found.map(|(_, value)| value.trim())
        };
        if !field("host").is_none_or(is_our_own) {
            return Err(Refusal::Misdirected);
        }
        let head_only = match method {
            "GET" => false,
            "HEAD" => true,
            _ => return Err(Refusal::Method),
        };
        let document = match target.split('?').next() {
            Some("/metrics") => Document::Metrics,
            Some("/") => Document::Page,
            Some(_) | None => return Err(Refusal::NotFound),
        };
        let open_metrics = field("accept").is_some_and(|it| it.contains(OPEN_METRICS));
        Ok(Self {
            document,
            head_only,
            open_metrics,
        })
    }
}

/// The media type of OpenMetrics, without its version.
pub(super) const OPEN_METRICS: &str = "application/openmetrics-text";

/// Whether a host name is one that leads here by itself. A browser names the page it was told to open: were
/// another name taken, a page on the Internet whose name was made to lead here could read what it says.
fn is_our_own(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(v6) => v6.split(']').next(),
        None => host.split(':').next(),
    };
    name.is_some_and(|name| {
        name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok()
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn documents_are_found_by_their_paths() {
        let request = |document, head_only, open_metrics| {
            Some(Ok(Request {
                document,
                head_only,
                open_metrics,
            }))
        };
        let cases = [
            (
                "GET / HTTP/1.1\r\n\r\n",
                request(Document::Page, false, false),
            ),
            (
                "GET /metrics?x=1 HTTP/1.1\r\nHost: 127.0.0.1:9477\r\n\r\n",
                request(Document::Metrics, false, false),
            ),
            (
                "HEAD /metrics HTTP/1.0\r\nhost: [::1]:9477\r\nACCEPT: text/plain, application/openmetrics-text;version=1.0.0\r\n\r\n",
                request(Document::Metrics, true, true),
            ),
            ("GET /metrics HTTP/1.1\r\nHost: local", None),
            ("", None),
        ];
        for (text, expected) in cases {
            assert_eq!(Request::read(text.as_bytes()), expected, "{text}");
        }
    }

    #[test]
    fn whatever_else_is_asked_is_refused() {
        let cases = [
            ("POST / HTTP/1.1\r\n\r\n", Refusal::Method),
            ("GET /secrets HTTP/1.1\r\n\r\n", Refusal::NotFound),
            ("GET //metrics HTTP/1.1\r\n\r\n", Refusal::NotFound),
            ("GET / HTTP/2.0\r\n\r\n", Refusal::Malformed),
            ("GET /\r\n\r\n", Refusal::Malformed),
            ("\u{16}\u{3}\u{1}\r\n\r\n", Refusal::Malformed),
            (
                "GET / HTTP/1.1\r\nHost: rebound.example:9477\r\n\r\n",
                Refusal::Misdirected,
            ),
        ];
        for (text, expected) in cases {
            assert_eq!(
                Request::read(text.as_bytes()),
                Some(Err(expected)),
                "{text}"
            );
        }
        let endless = [b'x'; LONGEST_HEAD + 1];
        assert_eq!(Request::read(&endless), Some(Err(Refusal::TooLong)));
    }

    proptest! {
        #[test]
        fn whatever_is_sent_it_is_read_or_refused(
            octets in proptest::collection::vec(any::<u8>(), 0..200),
        ) {
            let _ = Request::read(&[&octets[..], b"\r\n\r\n"].concat());
        }
    }
}
