//! TLS as rustls speaks it: hellos that any TLS library can read, records of the layout and size
//! that belong to each flight (RFC 5246, RFC 8446), random octets wherever a real handshake has
//! keys, signatures, certificates or ciphertext.

use rand::Rng;
use rand::rngs::StdRng;

use super::{Side, Turn, hypertext};
use crate::web::http::{bytes_target, content_of, page_target};
use crate::web::nomachine;
use crate::web::tls::{ALPN_HTTP1, ALPN_HTTP2, HTTP1_SIZES, HTTP2_SIZES, SERVER_NAME};

// Content types of records (RFC 8446 section 5.1).
const CHANGE_CIPHER_SPEC: u8 = 20;
const HANDSHAKE: u8 = 22;
const APPLICATION_DATA: u8 = 23;

// Handshake messages (RFC 8446 section 4, RFC 5246 section 7.4).
const CLIENT_HELLO: u8 = 1;
const SERVER_HELLO: u8 = 2;
const CERTIFICATE: u8 = 11;
const SERVER_KEY_EXCHANGE: u8 = 12;
const SERVER_HELLO_DONE: u8 = 14;
const CLIENT_KEY_EXCHANGE: u8 = 16;

/// TLS 1.2, which later versions name too where old devices look.
const TLS12: [u8; 2] = [3, 3];
const TLS13: [u8; 2] = [3, 4];

/// Cipher suites offered, whichever version: three of TLS 1.3, six of TLS 1.2, and the sign that
/// renegotiation is safe (RFC 5746 section 3.3).
const SUITES: [u8; 20] = [
    0x13, 0x02, 0x13, 0x01, 0x13, 0x03, // 1.3
    0xc0, 0x2c, 0xc0, 0x2b, 0xcc, 0xa9, 0xc0, 0x30, 0xc0, 0x2f, 0xcc, 0xa8, // 1.2
    0x00, 0xff,
];

/// Groups offered: X25519, secp256r1, secp384r1.
const GROUPS: [u8; 6] = [0, 0x1d, 0, 0x17, 0, 0x18];
/// The first of them, which the server takes.
const X25519: [u8; 2] = [0, 0x1d];
const X25519_KEY: usize = 32;

/// Signatures accepted: ECDSA, Ed25519, RSA-PSS and RSA PKCS #1, the stronger hash first.
const SIGNATURES: [u8; 18] = [5, 3, 4, 3, 8, 7, 8, 6, 8, 5, 8, 4, 6, 1, 5, 1, 4, 1];
/// ECDSA with P-256 and SHA-256, which a self-signed certificate here has.
const ECDSA_SHA256: [u8; 2] = [4, 3];
/// Octets of such a signature in DER, mostly.
const SIGNATURE: usize = 71;
/// Octets of such a certificate.
const CERTIFICATE_LEN: usize = 362;

/// The most octets that one record seals.
const LONGEST_RECORD: usize = 16_384;

/// A download over HTTP/1.1 and TLS 1.2.
pub(super) fn http1(draws: &mut StdRng) -> Vec<Turn> {
    let target = bytes_target(draws, HTTP1_SIZES);
    hypertext_over_tls12(&target, draws)
}

/// Two lines, then a page over HTTP/1.1 and TLS 1.2.
pub(super) fn nomachine(draws: &mut StdRng) -> Vec<Turn> {
    let target = page_target(draws);
    let lines = [
        Turn::client(format!("{}\n", nomachine::CLIENT_HELLO)),
        Turn::server(format!("{}\n", nomachine::SERVER_HELLO)),
    ];
    let page = hypertext_over_tls12(&target, draws);
    lines.into_iter().chain(page).collect()
}

/// Three downloads over HTTP/2 and TLS 1.3, asked for together.
pub(super) fn http2(draws: &mut StdRng) -> Vec<Turn> {
    let targets: [String; 3] = std::array::from_fn(|_| bytes_target(draws, HTTP2_SIZES));
    let mut session = Session::begin(Version::Tls13, ALPN_HTTP2, draws);
    session.says(Side::Client, PREFACE);
    // Two tickets for later connections, then settings and the acknowledgement of the client's.
    session.says(Side::Server, 2 * TICKET);
    session.says(Side::Server, SETTINGS + FRAME);
    let requests = targets.iter().map(|target| FRAME + FIELDS + target.len());
    session.says(Side::Client, FRAME + requests.sum::<usize>());
    for target in &targets {
        session.says(Side::Server, FRAME + ANSWER_FIELDS);
        let content = usize::try_from(content_of(target).remaining());
        let mut left = content.expect("downloads fit in memory");
        while left > 0 {
            let piece = left.min(LONGEST_RECORD - FRAME);
            session.says(Side::Server, FRAME + piece);
            left -= piece;
        }
    }
    session.turns
}

// HTTP/2 (RFC 9113), in octets before they are sealed.
/// Header of a frame.
const FRAME: usize = 9;
/// Settings: four of six octets.
const SETTINGS: usize = FRAME + 24;
/// The connection preface, settings, and a larger window.
const PREFACE: usize = 24 + SETTINGS + FRAME + 4;
/// A browser's compressed fields without the path.
const FIELDS: usize = 120;
/// A server's: status, length, date.
const ANSWER_FIELDS: usize = 32;
/// A session ticket of rustls.
const TICKET: usize = 180;

fn hypertext_over_tls12(target: &str, draws: &mut StdRng) -> Vec<Turn> {
    let mut session = Session::begin(Version::Tls12, ALPN_HTTP1, draws);
    for turn in hypertext::get(target) {
        session.says(turn.from, turn.bytes.len());
    }
    session.turns
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Version {
    Tls12,
    Tls13,
}

impl Version {
    /// What sealing adds to a record: a nonce and a tag, or a content type and a tag.
    fn overhead(self) -> usize {
        match self {
            Self::Tls12 => 8 + 16,
            Self::Tls13 => 1 + 16,
        }
    }

    /// The suite that the server takes: AES-256-GCM.
    fn suite(self) -> [u8; 2] {
        match self {
            Self::Tls12 => [0xc0, 0x2c],
            Self::Tls13 => [0x13, 0x02],
        }
    }

    /// As the extension names it (RFC 8446 section 4.2.1).
    fn number(self) -> [u8; 2] {
        match self {
            Self::Tls12 => TLS12,
            Self::Tls13 => TLS13,
        }
    }
}

/// A handshake and what is said after it.
struct Session<'a> {
    version: Version,
    turns: Vec<Turn>,
    draws: &'a mut StdRng,
}

impl<'a> Session<'a> {
    /// Shakes hands.
    fn begin(version: Version, alpn: &[u8], draws: &'a mut StdRng) -> Self {
        let turns = match version {
            Version::Tls12 => handshake12(alpn, draws),
            Version::Tls13 => handshake13(alpn, draws),
        };
        Self {
            version,
            turns,
            draws,
        }
    }

    /// One side says that many octets, in as few records as they fit in.
    fn says(&mut self, from: Side, octets: usize) {
        let mut bytes = Vec::new();
        let mut left = octets;
        while left > 0 {
            let piece = left.min(LONGEST_RECORD);
            bytes.extend(sealed(APPLICATION_DATA, piece, self.version, self.draws));
            left -= piece;
        }
        self.turns.push(match from {
            Side::Client => Turn::client(bytes),
            Side::Server => Turn::server(bytes),
        });
    }
}

/// RFC 5246 section 7.3, with an ephemeral key (RFC 8422).
fn handshake12(alpn: &[u8], draws: &mut StdRng) -> Vec<Turn> {
    let key = list(1, &random(X25519_KEY, draws));
    let signature = list(2, &random(SIGNATURE, draws));
    let key_exchange = [&[3][..], &X25519, &key, &ECDSA_SHA256, &signature].concat();
    let certificate = list(3, &list(3, &random(CERTIFICATE_LEN, draws)));
    let server = [
        message(SERVER_HELLO, &server_hello12(alpn, draws)),
        message(CERTIFICATE, &certificate),
        message(SERVER_KEY_EXCHANGE, &key_exchange),
        message(SERVER_HELLO_DONE, &[]),
    ];
    let key = list(1, &random(X25519_KEY, draws));
    let client_finished = finished12(draws);
    vec![
        Turn::client(client_hello(Version::Tls12, alpn, draws)),
        Turn::server(record(HANDSHAKE, &server.concat())),
        Turn::client([plain(CLIENT_KEY_EXCHANGE, &key), client_finished].concat()),
        Turn::server(finished12(draws)),
    ]
}

/// The change of ciphers and the first sealed record: 12 octets that prove the handshake.
fn finished12(draws: &mut StdRng) -> Vec<u8> {
    let finished = sealed(HANDSHAKE, 4 + 12, Version::Tls12, draws);
    [record(CHANGE_CIPHER_SPEC, &[1]), finished].concat()
}

/// RFC 8446 section 2, with the records for old devices of appendix D.4.
fn handshake13(alpn: &[u8], draws: &mut StdRng) -> Vec<Turn> {
    let hello = client_hello(Version::Tls13, alpn, draws);
    let change = record(CHANGE_CIPHER_SPEC, &[1]);
    let chosen = 4 + list(2, &extension(16, &list(2, &list(1, alpn)))).len();
    let certificate = 4 + 1 + 3 + 3 + CERTIFICATE_LEN + 2;
    let verify = 4 + 2 + 2 + SIGNATURE;
    let finished = 4 + 48;
    let flight = chosen + certificate + verify + finished;
    let mut seal = |octets| sealed(APPLICATION_DATA, octets, Version::Tls13, draws);
    let (flight, client_finished) = (seal(flight), seal(finished));
    let server_hello = plain(SERVER_HELLO, &server_hello13(draws));
    vec![
        Turn::client(hello),
        Turn::server([server_hello, change.clone(), flight].concat()),
        Turn::client([change, client_finished].concat()),
    ]
}

/// RFC 8446 section 4.1.2, in a record that names TLS 1.0 as the first one may (section 5.1).
fn client_hello(version: Version, alpn: &[u8], draws: &mut StdRng) -> Vec<u8> {
    let session = match version {
        Version::Tls12 => Vec::new(),
        Version::Tls13 => random(32, draws),
    };
    let extensions = [extensions(version, alpn), extensions_of(version, draws)].concat();
    let hello = [
        &TLS12[..],
        &random(32, draws),
        &list(1, &session),
        &list(2, &SUITES),
        &list(1, &[0]),
        &list(2, &extensions),
    ]
    .concat();
    let mut record = plain(CLIENT_HELLO, &hello);
    record[2] = 1;
    record
}

/// Extensions of both versions: name, certificate status, groups, signatures, protocols, versions.
fn extensions(version: Version, alpn: &[u8]) -> Vec<u8> {
    let name = [&[0][..], &list(2, SERVER_NAME.as_bytes())].concat();
    [
        extension(0, &list(2, &name)),
        extension(5, &[1, 0, 0, 0, 0]),
        extension(10, &list(2, &GROUPS)),
        extension(13, &list(2, &SIGNATURES)),
        extension(16, &list(2, &list(1, alpn))),
        extension(43, &list(1, &version.number())),
    ]
    .concat()
}

fn extensions_of(version: Version, draws: &mut StdRng) -> Vec<u8> {
    match version {
        // Uncompressed points, extended master secret, tickets.
        Version::Tls12 => [
            extension(11, &list(1, &[0])),
            extension(23, &[]),
            extension(35, &[]),
        ]
        .concat(),
        // How tickets may be used, a key.
        Version::Tls13 => {
            let key = [&X25519[..], &list(2, &random(X25519_KEY, draws))].concat();
            [extension(45, &list(1, &[1])), extension(51, &list(2, &key))].concat()
        }
    }
}

fn server_hello12(alpn: &[u8], draws: &mut StdRng) -> Vec<u8> {
    let extensions = [
        extension(0xff01, &[0]),
        extension(11, &list(1, &[0])),
        extension(23, &[]),
        extension(16, &list(2, &list(1, alpn))),
    ]
    .concat();
    let session = random(32, draws);
    server_hello(Version::Tls12, &session, &extensions, draws)
}

fn server_hello13(draws: &mut StdRng) -> Vec<u8> {
    let key = [&X25519[..], &list(2, &random(X25519_KEY, draws))].concat();
    let extensions = [extension(51, &key), extension(43, &TLS13)].concat();
    let session = random(32, draws);
    server_hello(Version::Tls13, &session, &extensions, draws)
}

/// RFC 8446 section 4.1.3.
fn server_hello(
    version: Version,
    session: &[u8],
    extensions: &[u8],
    draws: &mut StdRng,
) -> Vec<u8> {
    [
        &TLS12[..],
        &random(32, draws),
        &list(1, session),
        &version.suite(),
        &[0],
        &list(2, extensions),
    ]
    .concat()
}

fn extension(kind: u16, body: &[u8]) -> Vec<u8> {
    [&kind.to_be_bytes()[..], &list(2, body)].concat()
}

/// A handshake message in a record of its own.
fn plain(kind: u8, body: &[u8]) -> Vec<u8> {
    record(HANDSHAKE, &message(kind, body))
}

fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    [&[kind][..], &list(3, body)].concat()
}

/// A record with so many octets of plaintext.
fn sealed(kind: u8, octets: usize, version: Version, draws: &mut StdRng) -> Vec<u8> {
    record(kind, &random(octets + version.overhead(), draws))
}

fn record(kind: u8, body: &[u8]) -> Vec<u8> {
    [&[kind][..], &TLS12, &list(2, body)].concat()
}

/// A length of `width` octets, and what it counts.
fn list(width: usize, body: &[u8]) -> Vec<u8> {
    let length = (body.len() as u32).to_be_bytes();
    [&length[4 - width..], body].concat()
}

fn random(octets: usize, draws: &mut StdRng) -> Vec<u8> {
    let mut bytes = vec![0; octets];
    draws.fill_bytes(&mut bytes);
    bytes
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rand::SeedableRng;
    use rustls::server::Acceptor;
    use rustls::version;

    use super::*;
    use crate::web::tls;

    /// Sizes of the records that both sides write until the handshake is done.
    fn flights_of_rustls(
        version: &'static rustls::SupportedProtocolVersion,
        alpn: &[u8],
    ) -> [Vec<u8>; 3] {
        let identity = tls::Identity::generate().unwrap();
        let client = Arc::new(tls::client_config(version, alpn).unwrap());
        let name = SERVER_NAME.try_into().unwrap();
        let mut client = rustls::ClientConnection::new(client, name).unwrap();
        let server = tls::server_config(&identity).unwrap();
        let mut server = rustls::ServerConnection::new(server).unwrap();
        let hello = written(&mut client);
        read(&mut server, &hello);
        let answer = written(&mut server);
        read(&mut client, &answer);
        [hello, answer, written(&mut client)]
    }

    fn written<S>(side: &mut rustls::ConnectionCommon<S>) -> Vec<u8> {
        let mut bytes = Vec::new();
        while side.wants_write() {
            side.write_tls(&mut bytes).unwrap();
        }
        bytes
    }

    fn read<S>(side: &mut rustls::ConnectionCommon<S>, mut bytes: &[u8])
    where
        rustls::ConnectionCommon<S>: Sized,
    {
        while !bytes.is_empty() {
            side.read_tls(&mut bytes).unwrap();
            side.process_new_packets().unwrap();
        }
    }

    /// Content types and lengths of a run of whole records.
    fn records(mut bytes: &[u8]) -> Vec<(u8, usize)> {
        let mut found = Vec::new();
        while let [kind, 3, 1..=3, high, low, rest @ ..] = bytes {
            let length = usize::from(u16::from_be_bytes([*high, *low]));
            found.push((*kind, length));
            bytes = &rest[length..];
        }
        assert!(bytes.is_empty(), "not a record: {bytes:02x?}");
        found
    }

    #[test]
    fn a_client_hello_is_read_by_rustls_with_its_name_and_protocol() {
        let mut draws = StdRng::seed_from_u64(1);
        for (version, alpn) in [(Version::Tls12, ALPN_HTTP1), (Version::Tls13, ALPN_HTTP2)] {
            let hello = client_hello(version, alpn, &mut draws);
            let mut acceptor = Acceptor::default();
            acceptor.read_tls(&mut hello.as_slice()).unwrap();
            let accepted = acceptor.accept().ok().flatten().expect("a whole hello");
            let hello = accepted.client_hello();
            assert_eq!(hello.server_name(), Some(SERVER_NAME));
            let protocols: Vec<_> = hello.alpn().expect("protocols").collect();
            assert_eq!(protocols, [alpn]);
        }
    }

    #[test]
    fn both_handshakes_have_the_records_of_rustls() {
        let mut draws = StdRng::seed_from_u64(2);
        for (rustls_version, version, alpn) in [
            (&version::TLS12, Version::Tls12, ALPN_HTTP1),
            (&version::TLS13, Version::Tls13, ALPN_HTTP2),
        ] {
            let session = Session::begin(version, alpn, &mut draws);
            let real = flights_of_rustls(rustls_version, alpn);
            for (turn, real) in session.turns.iter().zip(&real) {
                let (scripted, real) = (records(&turn.bytes), records(real));
                let kinds = |records: &[(u8, usize)]| -> Vec<u8> {
                    records.iter().map(|(kind, _)| *kind).collect()
                };
                assert_eq!(kinds(&scripted), kinds(&real), "{scripted:?} {real:?}");
                for ((_, scripted_len), (_, real_len)) in scripted.iter().zip(&real) {
                    // Signatures and the times in a certificate vary by some octets.
                    assert!(
                        scripted_len.abs_diff(*real_len) <= 12,
                        "{scripted:?} {real:?}"
                    );
                }
            }
        }
    }

    #[test]
    fn every_turn_of_a_session_is_a_run_of_whole_records() {
        let mut draws = StdRng::seed_from_u64(3);
        for turns in [http1(&mut draws), http2(&mut draws)] {
            assert!(turns.iter().all(|turn| !records(&turn.bytes).is_empty()));
        }
        let turns = nomachine(&mut draws);
        assert_eq!(turns[0].bytes, b"NXSH-8.10.1\n");
        assert!(
            turns[2..]
                .iter()
                .all(|turn| !records(&turn.bytes).is_empty())
        );
    }
}
