//! Heads of HTTP/1 messages: the start line and the header block, never a body.

/// The head of a message, or as much of it as there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct MessageHead<'a> {
    /// The start line, without its end; cut short if `start_line_is_whole` is false.
    pub(crate) start_line: &'a [u8],
    pub(crate) start_line_is_whole: bool,
    /// The header lines with their ends.
    fields: &'a [u8],
    /// The empty line was seen.
    pub(crate) is_whole: bool,
}

impl<'a> MessageHead<'a> {
    /// Cuts the head off the first octets of a message.
    pub(crate) fn read(octets: &'a [u8]) -> Self {
        let Some(end) = octets.iter().position(|&octet| octet == b'\n') else {
            let (start_line, start_line_is_whole) = (octets, false);
            return Self {
                start_line,
                start_line_is_whole,
                fields: &[],
                is_whole: false,
            };
        };
        let (line, rest) = octets.split_at(end + 1);
        let (fields, is_whole) = fields_until_empty_line(rest);
        Self {
            start_line: trim_line_end(line),
            start_line_is_whole: true,
            fields,
            is_whole,
        }
    }

    /// Name and value of every header field, the last one perhaps cut short.
    pub(crate) fn fields(&self) -> impl Iterator<Item = (&'a [u8], &'a [u8])> + use<'a> {
        self.fields
            .split(|&octet| octet == b'\n')
            .filter_map(|line| {
                let colon = line.iter().position(|&octet| octet == b':')?;
                Some((&line[..colon], line[colon + 1..].trim_ascii()))
            })
    }
}

/// Whether octets may be from anywhere in a head: they are text.
pub(crate) fn may_be_of_head(octets: &[u8]) -> bool {
    octets
        .iter()
        .all(|octet| matches!(octet, b' '..=b'~' | b'\t' | b'\r' | b'\n'))
}

/// The part of `octets` before the empty line, and whether there is one.
fn fields_until_empty_line(octets: &[u8]) -> (&[u8], bool) {
    let mut at = 0;
    for line in octets.split_inclusive(|&octet| octet == b'\n') {
        if matches!(line, b"\r\n" | b"\n") {
            return (&octets[..at], true);
        }
        at += line.len();
    }
    (octets, false)
}

fn trim_line_end(line: &[u8]) -> &[u8] {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    line.strip_suffix(b"\r").unwrap_or(line)
}

/// A request line taken apart, or as much of it as there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RequestLine<'a> {
    pub(crate) method: &'a [u8],
    pub(crate) path: &'a [u8],
    /// `HTTP/1.` follows the path.
    pub(crate) has_version: bool,
}

impl<'a> RequestLine<'a> {
    /// Takes a line apart that starts with a method.
    pub(crate) fn read(line: &'a [u8]) -> Option<Self> {
        let space = line.iter().position(|&octet| octet == b' ')?;
        let (method, rest) = (&line[..space], &line[space + 1..]);
        let is_method = (3..=16).contains(&method.len())
            && method
                .iter()
                .all(|octet| octet.is_ascii_uppercase() || *octet == b'_');
        if !is_method {
            return None;
        }
        let end = rest.iter().rposition(|&octet| octet == b' ');
        let (path, version) = match end {
            Some(end) => (&rest[..end], &rest[end + 1..]),
            None => (rest, &[][..]),
        };
        Some(Self {
            method,
            path,
            has_version: version.starts_with(b"HTTP/1."),
        })
    }
}

/// Whether octets are, or can still become, a response's status line.
pub(crate) fn is_status_line(octets: &[u8]) -> bool {
    let len = octets.len().min(STATUS_LINE.len());
    len > 0 && octets[..len] == STATUS_LINE[..len]
}

const STATUS_LINE: &[u8] = b"HTTP/1.";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_ends_at_the_empty_line() {
        let head =
            MessageHead::read(b"GET / HTTP/1.1\r\nHost: a\r\n\r\nX-Kazaa-IP: in the body\r\n");
        assert_eq!(head.start_line, b"GET / HTTP/1.1");
        assert!(head.is_whole);
        assert_eq!(
            head.fields().collect::<Vec<_>>(),
            [(&b"Host"[..], &b"a"[..])]
        );
    }

    #[test]
    fn bare_line_feeds_end_lines_too() {
        let head = MessageHead::read(b"GET / HTTP/1.0\nA:b\n\nbody");
        assert!(head.is_whole);
        assert_eq!(head.fields().count(), 1);
    }

    #[test]
    fn an_unfinished_head_gives_what_it_has() {
        let head = MessageHead::read(b"GET /a HTT");
        assert!(!head.start_line_is_whole && !head.is_whole);
        let head = MessageHead::read(b"GET /a HTTP/1.1\r\nHost: exam");
        assert!(head.start_line_is_whole && !head.is_whole);
        assert_eq!(
            head.fields().collect::<Vec<_>>(),
            [(&b"Host"[..], &b"exam"[..])]
        );
    }

    #[test]
    fn a_request_line_comes_apart_into_method_path_and_version() {
        let line = RequestLine::read(b"GET /1/a b.mp3 HTTP/1.1").unwrap();
        assert_eq!((line.method, line.path), (&b"GET"[..], &b"/1/a b.mp3"[..]));
        assert!(line.has_version);
        assert!(!RequestLine::read(b"GET /").unwrap().has_version);
        assert_eq!(RequestLine::read(b"NICK"), None);
        assert_eq!(RequestLine::read(b"get / HTTP/1.0"), None);
    }

    #[test]
    fn a_status_line_is_known_by_its_beginning() {
        assert!(is_status_line(b"H") && is_status_line(b"HTTP/1.0 503 Service Unavailable"));
        assert!(!is_status_line(b"") && !is_status_line(b"HELO"));
    }
}
