//! What holds for the engine whatever arrives: properties over generated packets, conversations and
//! times. `PROPTEST_CASES` sets how many of each are tried.

#[expect(dead_code, reason = "the properties need a part of its packets only")]
mod support;
mod transmission;

use std::net::SocketAddrV4;
use std::time::Duration;

use ftwall::packet::Packet;
use ftwall::{
    Action, ClearReason, Conntrack, DropReason, Engine, EngineConfig, Ingress, PassReason,
    Timestamp, Verdict,
};
use proptest::prelude::*;
use support::{
    CONSTANT_OPENER, Connection, Gateway, HASH_REQUEST, PING, PLAIN_OPENER, RANDOM_OPENER,
    TLS_HELLO, WEB_ANSWER, WEB_REQUEST, tcp, udp,
};
use transmission::{Delivery, Fate, Script, Side, delivery};

const HOST: &str = "10.77.1.1";
const CLIENT: &str = "10.77.1.1:1214";
const PEER: &str = "198.18.0.5:2001";
const STRANGER: &str = "198.18.9.9:3003";

// --- any bytes ---

proptest! {
    #![proptest_config(support::cases())]
    #[test]
    fn any_bytes_get_a_verdict_and_malformed_ones_are_counted(
        packets in prop::collection::vec((packet(), conntrack(), 0_u64..400_000), 1..60),
        judge_all: bool,
    ) {
        let mut engine = Engine::new(EngineConfig { judge_all, ..EngineConfig::default() }, 1);
        let mut now = Timestamp::from_secs(1_000_000);
        for (bytes, conntrack, pause) in &packets {
            now = now + Duration::from_millis(*pause);
            engine.handle_packet(now, Ingress { bytes, conntrack: *conntrack, link: None });
            engine.handle_timeout(now);
            prop_assert!(engine.poll_timeout().is_none_or(|next| next > now));
        }
        let is_malformed = |(bytes, ..): &&(Vec<u8>, _, _)| Packet::parse(bytes).is_err();
        let counters = engine.counters();
        prop_assert_eq!(counters.malformed as usize, packets.iter().filter(is_malformed).count());
        prop_assert_eq!(counters.packets as usize, packets.len());
        prop_assert_eq!(counters.verdicts.values().sum::<u64>(), counters.packets);
    }

    #[test]
    fn what_is_remembered_stays_within_its_bounds(
        packets in prop::collection::vec((packet(), conntrack(), 0_u64..3_000), 1..300),
    ) {
        let mut config = EngineConfig { judge_all: true, ..EngineConfig::default() };
        config.capacity.flows = 8;
        config.capacity.buffered = 600;
        config.capacity.hosts = 3;
        config.capacity.peers = 5;
        config.capacity.proven = 2;
        let capacity = config.capacity;
        let mut engine = Engine::new(config, 1);
        let mut now = Timestamp::from_secs(1_000_000);
        for (bytes, conntrack, pause) in &packets {
            now = now + Duration::from_millis(*pause);
            engine.handle_packet(now, Ingress { bytes, conntrack: *conntrack, link: None });
            let held = engine.occupancy();
            prop_assert!(held.flows <= capacity.flows, "{:?}", held);
            prop_assert!(held.buffered <= capacity.buffered, "{:?}", held);
            prop_assert_eq!(held.buffered, held.counted_buffered);
            prop_assert!(held.hosts <= capacity.hosts, "{:?}", held);
            prop_assert!(held.peers <= capacity.peers, "{:?}", held);
            prop_assert!(held.proven <= capacity.proven, "{:?}", held);
        }
        engine.handle_timeout(now + Duration::from_secs(24 * 3600));
        let left = engine.occupancy();
        prop_assert_eq!((left.flows, left.buffered, left.hosts), (0, 0, 0));
        prop_assert_eq!((left.peers, left.proven, engine.poll_timeout()), (0, 0, None));
    }
}

/// Anything from noise to packets of which only the payload is noise.
fn packet() -> impl Strategy<Value = Vec<u8>> {
    let noise = prop::collection::vec(any::<u8>(), 0..120);
    prop_oneof![
        1 => noise,
        2 => damaged(segment().boxed()),
        5 => segment(),
        2 => damaged(datagram().boxed()),
        4 => datagram(),
    ]
}

fn damaged(packet: BoxedStrategy<Vec<u8>>) -> impl Strategy<Value = Vec<u8>> {
    let damage = (any::<prop::sample::Index>(), any::<u8>(), 0_usize..60);
    (packet, damage).prop_map(|(mut packet, (place, value, cut))| {
        let place = place.index(packet.len());
        packet[place] = value;
        packet.truncate(packet.len().saturating_sub(cut));
        packet
    })
}

fn segment() -> impl Strategy<Value = Vec<u8>> {
    let numbers = (0_u32..64, prop::option::of(0_u32..64), any::<bool>());
    (ends(), numbers, payload()).prop_map(
        |((from, to), (sequence, acknowledged, is_syn), payload)| {
            let flags = if is_syn { 0x02 } else { 0 };
            tcp(from, to, sequence, acknowledged, flags, &payload)
        },
    )
}

fn datagram() -> impl Strategy<Value = Vec<u8>> {
    (ends(), payload()).prop_map(|((from, to), payload)| udp(from, to, &payload))
}

/// Few hosts and peers, so that they meet again.
fn ends() -> impl Strategy<Value = (SocketAddrV4, SocketAddrV4)> {
    let inside = (1_u8..9, 3000_u16..3003)
        .prop_map(|(host, port)| SocketAddrV4::new([10, 77, 1, host].into(), port));
    let outside = (
        1_u8..5,
        prop::sample::select(vec![80, 443, 2001, 2002, 8080]),
    )
        .prop_map(|(host, port)| SocketAddrV4::new([198, 18, 0, host].into(), port));
    (inside, outside, any::<bool>()).prop_map(|(inside, outside, is_outbound)| {
        if is_outbound {
            (inside, outside)
        } else {
            (outside, inside)
        }
    })
}

/// What the protocols say, whole and in part, and noise.
fn payload() -> impl Strategy<Value = Vec<u8>> {
    let known = prop::sample::select(vec![
        PING,
        support::PONG,
        b"\x29\0\0\0\x29\x01\0\0\0\xde\xad\xbe\xef",
        b"\x2a\xde\xad\xbe\xef",
        &CONSTANT_OPENER,
        &RANDOM_OPENER,
        &PLAIN_OPENER,
        HASH_REQUEST,
        b"GIVE 17\r\n",
        b"HTTP/1.0 503 Busy\r\nX-Kazaa-SupernodeIP: 198.18.0.9:1214\r\n\r\n",
        WEB_REQUEST,
        WEB_ANSWER,
        TLS_HELLO,
    ]);
    let part = (known.clone(), any::<prop::sample::Index>())
        .prop_map(|(known, len)| known[..len.index(known.len() + 1)].to_vec());
    prop_oneof![
        3 => known.prop_map(<[u8]>::to_vec),
        2 => part,
        2 => prop::collection::vec(any::<u8>(), 0..60),
        1 => Just(Vec::new()),
    ]
}

fn conntrack() -> impl Strategy<Value = Option<Conntrack>> {
    let tracked = (any::<bool>(), any::<bool>())
        .prop_map(|(reply, from_start)| Conntrack { reply, from_start });
    prop::option::of(tracked)
}

// --- however it is cut ---

/// A conversation with FastTrack in it, and how many octets of each of its messages show that at the
/// latest. An answer to an opener is known by its length: in pieces that are repeated before it has a
/// known one, it may get through as far as to its last octet but one.
fn file_sharing() -> impl Strategy<Value = (Script, Vec<usize>)> {
    let up_to = |octets: &[u8], mark: &[u8]| {
        let mut windows = octets.windows(mark.len());
        windows
            .position(|window| window == mark)
            .expect("it is in there")
            + mark.len()
    };
    let marked = b"GET /1234/song.mp3 HTTP/1.1\r\nHost: a\r\nX-Kazaa-Network: KaZaA\r\n\r\n";
    let marked_answer = b"HTTP/1.0 503 Busy\r\nX-Kazaa-Username: bob\r\n\r\n";
    let old_style = b"GET /1234/song.mp3 HTTP/1.1\r\nHost: a\r\n\r\n";
    let client = |octets: &[u8], shows: usize| (vec![(Side::Client, octets.to_vec())], vec![shows]);
    let session = |len: usize| {
        let answer = (Side::Server, [0x5a; 18][..len].to_vec());
        (
            vec![(Side::Client, PLAIN_OPENER.to_vec()), answer],
            vec![12, len],
        )
    };
    let transfer = vec![
        (Side::Client, old_style.to_vec()),
        (Side::Server, marked_answer.to_vec()),
    ];
    let answer_shows = up_to(marked_answer, b"X-Kazaa-Username:");
    prop::sample::select(vec![
        client(&CONSTANT_OPENER, 4),
        client(&RANDOM_OPENER, 12),
        client(HASH_REQUEST, up_to(HASH_REQUEST, b"ef01234567")),
        client(b"GIVE 4294967295\r\n", up_to(b"GIVE 4294967295\r", b"\r")),
        client(marked, up_to(marked, b"X-Kazaa-Network:")),
        session(8),
        session(14),
        session(17),
        session(18),
        (transfer, vec![old_style.len(), answer_shows]),
    ])
}

/// A conversation that has nothing to do with FastTrack.
fn ordinary() -> impl Strategy<Value = Script> {
    let ask = |request: &[u8], answer: &[u8]| {
        vec![
            (Side::Client, request.to_vec()),
            (Side::Server, answer.to_vec()),
        ]
    };
    let smtp = vec![
        (Side::Server, b"220 mail.example.org ESMTP\r\n".to_vec()),
        (Side::Client, b"EHLO a\r\n".to_vec()),
    ];
    prop::sample::select(vec![
        ask(WEB_REQUEST, WEB_ANSWER),
        ask(
            b"GET /.well-known/a HTTP/1.1\r\nHost: a\r\n\r\n",
            WEB_ANSWER,
        ),
        ask(b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n", WEB_ANSWER),
        ask(
            b"POST /a HTTP/1.1\r\nHost: a\r\n\r\nGET /.hash=",
            WEB_ANSWER,
        ),
        ask(TLS_HELLO, b"\x16\x03\x03\0\x5a\x02\0\0\x56\x03\x03"),
        ask(b"SSH-2.0-OpenSSH_9.2\r\n", b"SSH-2.0-OpenSSH_9.2\r\n"),
        ask(
            b"NICK somebody\r\nUSER a b c d\r\n",
            b":server 001 welcome\r\n",
        ),
        smtp,
    ])
}

proptest! {
    #![proptest_config(support::cases())]
    #[test]
    fn a_client_is_stopped_and_known_the_same_however_its_octets_are_cut(
        (script, shown_by) in file_sharing(),
        how in delivery(),
        port in prop::sample::select(vec![80, 443, 2001]),
    ) {
        let peer = format!("198.18.0.5:{port}");
        let whole = Fate::of(&script, &Delivery::whole(how.is_tracked), CLIENT, &peer);
        let cut = Fate::of(&script, &how, CLIENT, &peer);
        prop_assert!(!whole.is_complete && whole.arrived == 0, "{:?}", whole);
        prop_assert!(!cut.is_complete && cut.arrived < shown_by[cut.turns], "{:?}", cut);
        // What is cut too small to go on while it is held back is stopped in its own turn.
        prop_assert!(cut.turns <= whole.turns, "{:?}", cut);
        prop_assert_eq!(&cut.locked, &whole.locked);
        prop_assert_eq!(&cut.learned, &whole.learned);
    }

    // Live, nobody sees where a connection begins: of an ordinary one the first segment that arrives
    // is taken for the first that was sent.
    #[test]
    fn an_ordinary_conversation_arrives_and_locks_nobody_however_it_is_cut(
        script in ordinary(),
        how in delivery(),
        port in prop::sample::select(vec![80, 443, 8080, 2001]),
    ) {
        let how = if how.is_tracked { how.in_order() } else { how };
        let fate = Fate::of(&script, &how, CLIENT, &format!("198.18.0.5:{port}"));
        prop_assert!(fate.is_complete, "{:?}", fate);
        prop_assert!(fate.locked.is_empty() && fate.learned.is_empty(), "{:?}", fate);
    }
}

// --- the web ---

proptest! {
    #![proptest_config(support::cases())]
    #[test]
    fn plain_web_is_never_dropped_whoever_sends_it(
        (method, path) in request_line(),
        fields in prop::collection::vec(field(), 0..8),
        status in 100_u16..600,
        (request_body, answer_body) in (body(), body()),
        port in prop::sample::select(vec![80, 443, 8000, 8008, 8080, 8081, 8088, 8443, 8888]),
        is_locked: bool,
        is_tracked: bool,
    ) {
        let mut gateway = Gateway::new(EngineConfig::default());
        if is_locked {
            gateway.datagram(CLIENT, PEER, PING);
        }
        let server = format!("203.0.113.7:{port}");
        let mut flow = if is_tracked {
            Connection::established("10.77.1.1:3000", &server, Some(true))
        } else {
            Connection::open(&mut gateway, "10.77.1.1:3000", &server)
        };
        let fields = fields.concat();
        let request = format!("{method} {path} HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
        let answer = format!("HTTP/1.1 {status} Fine\r\n{fields}\r\n");
        let before = gateway.actions.len();
        let asked = flow.client_says(&mut gateway, &[request.as_bytes(), &request_body].concat());
        prop_assert!(!asked.is_drop(), "{:?}", asked);
        let answered = flow.server_says(&mut gateway, &[answer.as_bytes(), &answer_body].concat());
        prop_assert!(matches!(answered, Verdict::Clear(_) | Verdict::Pass(PassReason::Cleared)), "{:?}", answered);
        for _ in 0..3 {
            prop_assert!(!flow.server_says(&mut gateway, &answer_body).is_drop());
            prop_assert!(!flow.client_says(&mut gateway, &request_body).is_drop());
        }
        let is_proof = |action: &Action| matches!(action, Action::ProveAddress { .. });
        let later = &gateway.actions[before..];
        prop_assert!(later.iter().all(is_proof), "nobody is locked, nothing learned: {:?}", later);
    }
}

/// Methods and paths of the web, those included that old clients and pages about them have.
fn request_line() -> impl Strategy<Value = (String, String)> {
    let method = "GET|HEAD|POST|PUT|DELETE|OPTIONS|PROPFIND";
    let path = prop_oneof![
        "/[a-zA-Z0-9._~%?&=-]{0,60}",
        "/[0-9]{1,6}/[a-z]{0,20}(\\.html)?",
        "/\\.(status|files|network|supernode|htaccess|hash=[0-9a-f]{0,39})",
        "/[a-z]{1,9}/\\.hash=[0-9a-f]{40}",
    ];
    (method, path)
}

/// A header field of any program but the Kazaa family's.
fn field() -> impl Strategy<Value = String> {
    let field = prop_oneof![
        "[A-Za-z][A-Za-z0-9-]{0,20}: [ -~]{0,60}\r\n",
        "X-[A-JL-Z][a-z]{0,12}: [ -~]{0,60}\r\n",
        "(User-Agent|Server): [A-JL-Z][ -~]{0,60}\r\n",
        "(Referer|X-About): http://a/(X-Kazaa-Username|KazaaClient)/[ -~]{0,20}\r\n",
    ];
    field.prop_filter("a mark", |field| {
        let field = field.to_ascii_lowercase();
        !field.starts_with("x-kazaa") && !field.contains(": kazaaclient")
    })
}

/// Anything, and what would be a mark in a head.
fn body() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        prop::collection::vec(any::<u8>(), 0..200),
        Just(HASH_REQUEST.to_vec()),
        Just(b"X-Kazaa-Username: bob\r\nServer: KazaaClient\r\n\r\n".to_vec()),
    ]
}

// --- until its time is over ---

/// What may happen around a host and a peer.
#[derive(Debug, Clone, Copy)]
enum Happening {
    /// The host pings the peer: evidence against both.
    Ping,
    /// The host browses.
    Web,
    /// The host dials the peer and a stranger.
    Dials,
    /// Time passes.
    Wait(Duration),
}

fn happenings() -> impl Strategy<Value = Vec<Happening>> {
    let happening = prop_oneof![
        2 => Just(Happening::Ping),
        1 => Just(Happening::Web),
        4 => Just(Happening::Dials),
        4 => (0_u64..200_000).prop_map(|millis| Happening::Wait(Duration::from_millis(millis))),
    ];
    prop::collection::vec(happening, 1..40)
}

/// What lasts for a while, and every end it had.
#[derive(Debug, Default)]
struct Term {
    until: Option<Timestamp>,
    ends: Vec<Timestamp>,
}

impl Term {
    fn holds(&self, now: Timestamp) -> bool {
        self.until.is_some_and(|until| now < until)
    }

    fn renew(&mut self, now: Timestamp, until: Timestamp) {
        if !self.holds(now) {
            self.ends.extend(self.until);
        }
        self.until = Some(until);
    }
}

proptest! {
    #![proptest_config(support::cases())]
    #[test]
    fn a_lock_and_a_condemned_peer_last_exactly_until_their_expiry(
        happenings in happenings(),
        lock_secs in 1_u64..300,
        expiry_secs in 61_u64..900,
    ) {
        let lock_time = Duration::from_secs(lock_secs);
        let peer_expiry = Duration::from_secs(expiry_secs);
        let mut gateway = Gateway::new(EngineConfig { lock_time, peer_expiry, ..EngineConfig::default() });
        let (mut lock, mut peer) = (Term::default(), Term::default());
        for (port, happening) in (3000..).zip(happenings) {
            match happening {
                Happening::Ping => {
                    gateway.datagram(CLIENT, PEER, PING);
                    lock.renew(gateway.now, gateway.now + lock_time);
                    // What was announced less than a minute ago is not announced again.
                    let announced = gateway.now + peer_expiry.saturating_sub(MINUTE);
                    if !peer.until.is_some_and(|until| peer.holds(gateway.now) && announced < until) {
                        peer.renew(gateway.now, gateway.now + peer_expiry);
                    }
                }
                Happening::Web => browse(&mut gateway, port),
                Happening::Dials => {
                    let is_known = dial(&mut gateway, port, PEER) == Verdict::Drop(DropReason::KnownPeer);
                    prop_assert_eq!(is_known, peer.holds(gateway.now));
                    let is_refused = dial(&mut gateway, port, STRANGER) == Verdict::Drop(DropReason::LockedDial);
                    prop_assert_eq!(is_refused, lock.holds(gateway.now));
                }
                Happening::Wait(duration) => gateway.wait(duration),
            }
        }
        gateway.wait(Duration::from_secs(3600));
        let ends = |term: Term| term.ends.into_iter().chain(term.until).collect::<Vec<_>>();
        let is_release = |action: &Action| matches!(action, Action::ReleaseHost { .. });
        let is_forgotten = |action: &Action| matches!(action, Action::ForgetPeer { .. });
        prop_assert_eq!(times_of(&gateway, is_release), ends(lock));
        prop_assert_eq!(times_of(&gateway, is_forgotten), ends(peer));
    }
}

const MINUTE: Duration = Duration::from_secs(60);

fn times_of(gateway: &Gateway, is_meant: impl Fn(&Action) -> bool) -> Vec<Timestamp> {
    let actions = gateway.actions.iter().zip(&gateway.action_times);
    actions
        .filter(|(action, _)| is_meant(action))
        .map(|(_, time)| *time)
        .collect()
}

fn dial(gateway: &mut Gateway, port: u16, to: &str) -> Verdict {
    Connection::established(&format!("{HOST}:{port}"), to, None).dial(gateway)
}

/// A whole exchange with a web server, which arrives.
fn browse(gateway: &mut Gateway, port: u16) {
    let mut web = Connection::open(gateway, &format!("{HOST}:{port}"), "203.0.113.7:80");
    let asked = web.client_says(gateway, WEB_REQUEST);
    let answered = web.server_says(gateway, WEB_ANSWER);
    let by_answer = answered == Verdict::Clear(ClearReason::Http);
    // Where the server has proven itself before and nobody suspects the host.
    let by_request = asked == Verdict::Clear(ClearReason::HttpProvenServer);
    assert!(by_answer != by_request, "{asked:?}, {answered:?}");
}
