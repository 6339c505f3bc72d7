//! Near misses: what the simulator writes with one field off at a time, and what other programs say
//! that comes close. Nobody is locked, nothing is learned, no evidence is noted, and it arrives.

use crate::Tally;
use crate::site::{Connection, Cut, HOST, PEER, Role, STRANGER, Site, end};
use crate::written::{CONSTANT_OPENER, DatagramKind, datagrams, hash_requests, responses};

/// How often a sender repeats what does not get through. Beginnings that ordinary programs share
/// are let through after two repetitions; a sender in segments of one octet repeats each.
const ROUNDS: usize = 600;

// --- datagrams ---

#[test]
fn a_datagram_with_one_field_off_is_met_with_silence() {
    let mut tally = Tally::default();
    for (kind, bytes) in datagrams() {
        for near in near_datagrams(kind, &bytes) {
            for is_locked in [false, true] {
                for outbound in [true, false] {
                    let finding = silence_over(&near, is_locked, outbound);
                    tally.check(
                        finding.map(|found| format!("{near:02x?} locked {is_locked}: {found}")),
                    );
                }
            }
        }
    }
    tally.conclude("near misses of datagrams", 50_000);
}

/// A stranger's datagram to or from the host; to know nothing of the peer is part of the case.
fn silence_over(payload: &[u8], is_locked: bool, outbound: bool) -> Option<String> {
    let mut site = if is_locked {
        Site::with_locked_host()
    } else {
        Site::new()
    };
    let (host, stranger) = (end(HOST, 1214), end(STRANGER, 2001));
    let (from, to) = if outbound {
        (host, stranger)
    } else {
        (stranger, host)
    };
    let mark = site.mark();
    let verdict = site.datagram(from, to, payload);
    let found = site.evidence_since(&mark);
    let is_silent = !verdict.is_drop()
        && found.is_empty()
        && !site.has_locked_somebody()
        && !site.has_learned_something();
    (!is_silent).then(|| format!("{verdict:?} {found:?}"))
}

/// One field off at a time.
fn near_datagrams(kind: DatagramKind, bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut near = Vec::new();
    let types = (0..=255u8).filter(|other| *other != bytes[0] && !is_type_of(*other, bytes));
    near.extend(types.map(|other| with(bytes, 0, other)));
    for place in zeros_and_marks(kind) {
        let others = (0..=255u8).filter(|other| !may_be(kind, bytes, *place, *other));
        near.extend(others.map(|other| with(bytes, *place, other)));
    }
    if let Some(start) = name_start(kind) {
        near.extend(near_names(bytes, start));
    }
    // Longer by an octet that is not a NUL: a second NUL is among the names. Shorter by one, two, ...
    near.extend([1, b'a', 0xff].map(|octet| [bytes, &[octet]].concat()));
    near.extend((0..bytes.len()).map(|length| bytes[..length].to_vec()));
    near.retain(|one| !one.is_empty());
    near
}

/// Lengths that kinds share must not turn one into another by accident.
fn is_type_of(other: u8, bytes: &[u8]) -> bool {
    matches!((other, bytes.len()), (0x2a, 5))
}

/// Octets that have one value, or few.
fn zeros_and_marks(kind: DatagramKind) -> &'static [usize] {
    match kind {
        // Encryption word below 256, 0x80.
        DatagramKind::Ping => &[1, 2, 3, 5],
        // Encryption word, zero.
        DatagramKind::Pong => &[1, 2, 3, 5],
        // Encryption word, 1 or 2, flag, two zeros.
        DatagramKind::Pong2 => &[1, 2, 3, 5, 6, 7, 8],
        DatagramKind::PongAnswer => &[],
    }
}

/// Whether that octet would be right in that place.
fn may_be(kind: DatagramKind, bytes: &[u8], place: usize, value: u8) -> bool {
    match (kind, place) {
        (DatagramKind::Pong2, 5) => matches!(value, 1 | 2),
        _ => bytes[place] == value,
    }
}

fn name_start(kind: DatagramKind) -> Option<usize> {
    match kind {
        DatagramKind::Ping => Some(6),
        DatagramKind::Pong => Some(11),
        DatagramKind::Pong2 | DatagramKind::PongAnswer => None,
    }
}

/// Names that are empty, not printable in one place, without a NUL, with two, or longer than any.
fn near_names(bytes: &[u8], start: usize) -> Vec<Vec<u8>> {
    let (head, name) = (&bytes[..start], &bytes[start..bytes.len() - 1]);
    let mut near = vec![
        [head, b"\0"].concat(),
        [head, name].concat(),
        [head, name, b"\0\0"].concat(),
        [head, b"\0", name, b"\0"].concat(),
        [head, &b"K".repeat(40), b"\0"].concat(),
    ];
    let strange = (0..=0x1f).chain(0x7f..=0xff);
    let places = start..bytes.len() - 1;
    near.extend(
        places
            .flat_map(|place| strange.clone().map(move |octet| (place, octet)))
            .map(|(place, octet)| with(bytes, place, octet)),
    );
    near
}

fn with(bytes: &[u8], place: usize, value: u8) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes[place] = value;
    bytes
}

/// Datagrams of other programs that share first octets or lengths.
#[test]
fn other_programs_datagrams_are_met_with_silence_even_from_a_locked_host() {
    let mut tally = Tally::default();
    let quic = [&[0xc3, 0, 0, 0, 1, 8][..], &[0x5a; 1194]].concat();
    let foreign: [&[u8]; 9] = [
        // DNS questions whose identifiers begin like a ping and its answers.
        b"\x27\x4d\x01\0\0\x01\0\0\0\0\0\0\x01a\x04test\0\0\x01\0\x01",
        b"\x28\0\x01\0\0\x01\0\0\0\0\0\0\x01a\x04test\0\0\x01\0\x01",
        b"\x29\x02\x81\x80\0\x01\0\x01\0\0\0\0\x03",
        // OpenVPN: an acknowledgement of 22 octets.
        b"\x28\x9a\x41\x0c\x5f\x11\x02\x77\xe0\x01\0\0\0\0\x31\x7d\x9c\xfe\x02\x45\x01\x08",
        // GTP echo on port 3386 begins 27 00 00 00 and ends in NUL.
        b"\x27\0\0\0\x1f\0\0\x0c\0\0\0\0\0\0\0\0\0\0\0\0\x0e\x01\0\x02\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0",
        // NAT-PMP, a request of 12 octets.
        b"\0\x01\0\0\x04\xd2\x04\xd2\0\0\x0e\x10",
        // A game's server query, 18 octets with a pong's first.
        b"\x28gs1\x91\xe2\x33\x17\x88\x9f\xa1\x10\x42\x55\x61\x72\x18\x19",
        // The network's name in somebody's text.
        b"what is KaZaA\0",
        &quic,
    ];
    for payload in foreign {
        for (is_locked, outbound) in [(false, true), (false, false), (true, true), (true, false)] {
            let finding = silence_over(payload, is_locked, outbound);
            tally.check(finding.map(|found| format!("{payload:02x?}: {found}")));
        }
    }
    tally.conclude("other programs' datagrams", 36);
}

// --- openers and their answers ---

#[test]
fn a_first_flight_of_any_other_length_is_met_with_silence() {
    let mut tally = Tally::default();
    for length in (1..=64).filter(|length| *length != 12) {
        for seed in 0..20 {
            let flight = noise(length, seed);
            let finding = silence_about(&[(Role::Initiator, &flight)], 2001, Cut::Whole);
            tally.check(finding.map(|found| format!("{flight:02x?}: {found}")));
        }
    }
    tally.conclude("first flights", 1_000);
}

#[test]
fn one_bit_off_the_constant_word_and_an_octet_too_many_is_met_with_silence() {
    let mut tally = Tally::default();
    for bit in 0..32 {
        let mut flight = CONSTANT_OPENER.to_vec();
        flight[bit / 8] ^= 0x80 >> (bit % 8);
        flight.push(0x77);
        for port in [2001, 80, 443] {
            let finding = silence_about(&[(Role::Initiator, &flight)], port, Cut::Whole);
            tally.check(finding.map(|found| format!("bit {bit} port {port}: {found}")));
        }
    }
    tally.conclude("near constant openers", 96);
}

#[test]
fn twelve_octets_of_other_programs_are_met_with_silence_on_every_port() {
    let mut tally = Tally::default();
    let foreign: [&[u8; 12]; 7] = [
        b"NXSH-8.10.1\n",                                // NoMachine
        b"RFB 003.008\n",                                // VNC, a client that does not wait
        b"PASS secret\n",                                // FTP, met late
        b"\x01\x02\0\0\0\x06\x09\x03\x0a\x0b\0\x04",     // Modbus/TCP, a read
        b"\x04\x01\0\x50\xcb\0\x71\x50bob\0",            // SOCKS 4
        b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03\x9a", // TLS, a hello cut by its sender
        b"EHLO a.test\n",
    ];
    for flight in foreign {
        for port in [2001, 502, 1080, 80, 443] {
            let finding = silence_about(&[(Role::Initiator, flight)], port, Cut::Whole);
            tally.check(finding.map(|found| format!("{flight:02x?} port {port}: {found}")));
        }
    }
    tally.conclude("other programs' twelve octets", 35);
}

#[test]
fn an_answer_of_any_other_length_is_no_handshake() {
    let mut tally = Tally::default();
    // BFCP Hello: twelve octets of a conference system, few bits set.
    let hello = b"\x20\x0b\0\0\0\0\0\x09\0\x01\0\x07";
    for length in (1..=40).filter(|length| ![8, 14, 17, 18].contains(length)) {
        for seed in 0..10 {
            let answer = noise(length, seed);
            let mut site = Site::new();
            let dialled = Connection::open(&mut site, end(HOST, 3000), end(PEER, 3238));
            let mut connection = dialled.expect("nothing is known yet");
            connection.says(&mut site, Role::Initiator, hello);
            let arrived =
                connection.insists(&mut site, Role::Responder, &answer, &Cut::Whole, ROUNDS);
            let is_silent =
                arrived == length && !site.has_locked_somebody() && !site.has_learned_something();
            tally.check((!is_silent).then(|| format!("{length} octets: {arrived} arrived")));
        }
    }
    tally.conclude("answers of other lengths", 360);
}

// --- transfers ---

/// Near misses of requests, each as the head of an ordinary exchange.
fn near_requests() -> Vec<Vec<u8>> {
    let hash = "0123456789abcdef0123456789ABCDEF01234567";
    let mut near: Vec<String> = vec![
        format!("GET /.hash={} HTTP/1.1", &hash[..39]),
        "GET /.hash= HTTP/1.1".to_owned(),
        "GET /.hash HTTP/1.1".to_owned(),
        format!("GET /.hash/{hash} HTTP/1.1"),
        format!("GET /.hash:{hash} HTTP/1.1"),
        format!("GET /.hasg={hash} HTTP/1.1"),
        format!("GET /hash={hash} HTTP/1.1"),
        format!("GET /..hash={hash} HTTP/1.1"),
        format!("GET /a/.hash={hash} HTTP/1.1"),
        format!("GET /?.hash={hash} HTTP/1.1"),
        format!("GET /{hash} HTTP/1.1"),
        "GET /.well-known/security.txt HTTP/1.1".to_owned(),
        "GET /.env HTTP/1.1".to_owned(),
        "GET /12345/app.apk HTTP/1.1".to_owned(),
        "GET /12345 HTTP/1.1".to_owned(),
        "GET / HTTP/1.0".to_owned(),
    ];
    // A digit that is none, in each place.
    near.extend((0..40).map(|place| {
        let mut digits = hash.as_bytes().to_vec();
        digits[place] = b'g';
        let digits = String::from_utf8_lossy(&digits).into_owned();
        format!("GET /.hash={digits} HTTP/1.1")
    }));
    let lines = near
        .into_iter()
        .map(|line| format!("{line}\r\nHost: www.example.test\r\n\r\n"));
    lines.chain(near_fields()).map(String::into_bytes).collect()
}

/// Ordinary requests whose fields come close to the family's: each letter of a name another one,
/// marks in values, in the path and behind the head.
fn near_fields() -> Vec<String> {
    let mark = b"X-Kazaa-";
    let spoilt = (0..mark.len()).map(|place| {
        let mut name = mark.to_vec();
        name[place] = if name[place] == b'-' { b'_' } else { b'q' };
        format!("{}IP: 10.77.1.1:1214", String::from_utf8_lossy(&name))
    });
    let others = [
        "Referer: http://www.example.test/?X-Kazaa-IP: 1",
        "X-Note: X-Kazaa-Username: someone",
        "XKazaa-IP: 10.77.1.1:1214",
        "Y-X-Kazaa-IP: 10.77.1.1:1214",
        "X-Kazaa: yes",
        "Cookie: X-Kazaa-IP=1; UserAgent=KazaaClient",
        "User-Agent: Mozilla/5.0 (compatible; like KazaaClient)",
        "User-Agent: Kazaa reader",
        "UserAgent: Mozilla/5.0",
    ];
    let fields = spoilt.chain(others.map(str::to_owned));
    let mut near: Vec<String> = fields
        .map(|field| format!("GET /news HTTP/1.1\r\nHost: www.example.test\r\n{field}\r\n\r\n"))
        .collect();
    near.push(
        "GET /?q=X-Kazaa-IP:+KazaaClient HTTP/1.1\r\nHost: www.example.test\r\n\r\n".to_owned(),
    );
    near
}

/// Calls that are none; the responder's answer decides nothing about them.
const NEAR_GIVES: [&[u8]; 9] = [
    b"GIVE \r\n",
    b"GIVE abc\r\n",
    b"GIVE 1a\r\n",
    b"GIVE -1\r\n",
    b"GIVES 1\r\n",
    b"GIVE1\r\n",
    b"GIV 1:0123456789ABCDEF0123456789ABCDEF/a.mp3\n\n",
    b"GIVE 12345678901\r\n",
    b"give me 1 minute\r\n",
];

const WEB_ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";

#[test]
fn a_request_with_one_field_off_is_met_with_silence_however_it_is_cut() {
    let mut tally = Tally::default();
    for request in near_requests() {
        for cut in Cut::all(request.len()) {
            let said = [
                (Role::Initiator, &request[..]),
                (Role::Responder, WEB_ANSWER),
            ];
            let finding = silence_about(&said, 80, cut);
            let line = String::from_utf8_lossy(&request[..request.len().min(90)]).into_owned();
            tally.check(finding.map(|found| format!("{line:?} {cut:?}: {found}")));
        }
    }
    tally.conclude("near requests", 10_000);
}

#[test]
fn a_call_with_one_field_off_is_met_with_silence() {
    let mut tally = Tally::default();
    for call in NEAR_GIVES {
        for port in [2001, 6346, 80] {
            let finding = silence_about(&[(Role::Initiator, call)], port, Cut::Whole);
            tally.check(
                finding.map(|found| {
                    format!("{:?} port {port}: {found}", String::from_utf8_lossy(call))
                }),
            );
        }
    }
    tally.conclude("near calls", 27);
}

#[test]
fn an_answer_with_one_letter_off_in_each_mark_or_marks_in_its_body_is_met_with_silence() {
    let mut tally = Tally::default();
    let request: &[u8] = b"GET /index.html HTTP/1.1\r\nHost: www.example.test\r\n\r\n";
    let marked_body = [
        &b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 9999\r\n\r\n"[..],
        &hash_requests(end(PEER, 2001))[0],
        &responses()[0],
    ]
    .concat();
    let spoilt = responses().into_iter().map(|response| {
        let text = String::from_utf8(response).expect("heads are text");
        let text = text.replace("KazaaClient", "KazabClient");
        text.replace("X-Kazaa-", "X-Kazab-")
            .replace("X-KazaaTag", "X-KazabTag")
            .into_bytes()
    });
    for answer in spoilt.chain([marked_body]) {
        for cut in Cut::all(answer.len()) {
            let mut site = Site::new();
            let dialled = Connection::open(&mut site, end(HOST, 3000), end(PEER, 80));
            let mut connection = dialled.expect("nothing is known yet");
            connection.insists(&mut site, Role::Initiator, request, &Cut::Whole, ROUNDS);
            let mark = site.mark();
            let arrived = connection.insists(&mut site, Role::Responder, &answer, &cut, ROUNDS);
            let found = site.evidence_since(&mark);
            let is_silent =
                arrived == answer.len() && found.is_empty() && !site.has_locked_somebody();
            tally.check(
                (!is_silent).then(|| format!("{cut:?}: {arrived} of {}, {found:?}", answer.len())),
            );
        }
    }
    tally.conclude("near answers", 3_000);
}

/// A conversation of which all arrives and nothing is noted; the first message is cut. Evidence that
/// is weak by its nature (old style paths) may be noted.
fn silence_about(said: &[(Role, &[u8])], port: u16, cut: Cut) -> Option<String> {
    let mut site = Site::new();
    let mark = site.mark();
    let dialled = Connection::open(&mut site, end(HOST, 3000), end(PEER, port));
    let mut connection = dialled.expect("nothing is known yet");
    for (number, (role, message)) in said.iter().enumerate() {
        let cut = if number == 0 { cut } else { Cut::Whole };
        let arrived = connection.insists(&mut site, *role, message, &cut, ROUNDS);
        if arrived < message.len() {
            return Some(format!("{arrived} octets of {} arrived", message.len()));
        }
    }
    let strong: Vec<_> = site.evidence_since(&mark);
    let strong: Vec<_> = strong
        .iter()
        .filter(|name| **name != "numbered_request")
        .collect();
    let is_silent =
        strong.is_empty() && !site.has_locked_somebody() && !site.has_learned_something();
    (!is_silent).then(|| format!("{strong:?}"))
}

/// Octets that mean nothing.
fn noise(length: usize, seed: u64) -> Vec<u8> {
    use rand::{Rng, SeedableRng, rngs::StdRng};
    let mut octets = vec![0; length];
    StdRng::seed_from_u64(seed).fill_bytes(&mut octets);
    // Neither text nor the word that both open clients begin with.
    octets[0] = 0x91;
    octets
}
