//! Whole conversations across the engine, in virtual time. Each reads like a trace.

mod support;

use std::time::Duration;

use ftwall::config::{LockedDials, Reply, Strictness};
use ftwall::protocol::ShortPayload;
use ftwall::{
    Action, ClearReason, Details, DropReason, EngineConfig, Event, EventType, Evidence, PassReason,
    Remembered, TolerateReason, Verdict,
};
use proptest::prelude::*;
use support::{
    CONSTANT_OPENER, Connection, Gateway, HASH_REQUEST, PING, PLAIN_OPENER, PONG, RANDOM_OPENER,
    TLS_HELLO, WEB_ANSWER, WEB_REQUEST, end, tcp, udp,
};

const HOST: &str = "10.77.1.1";
const CLIENT: &str = "10.77.1.1:1214";
const PEER: &str = "198.18.0.5:2001";
const WEB: &str = "203.0.113.7:80";

#[test]
fn udp_ping_from_inside_locks_the_host_and_teaches_the_peer() {
    let mut gateway = Gateway::new(EngineConfig::default());
    let verdict = gateway.datagram(CLIENT, PEER, PING);
    assert_eq!(verdict, Verdict::Drop(DropReason::Ping));
    assert!(gateway.is_locked(HOST));
    assert_eq!(gateway.learned(), [end(PEER)]);
    let types: Vec<_> = gateway
        .events
        .iter()
        .map(|event| event.event_type)
        .collect();
    assert_eq!(
        types,
        [
            EventType::ClientLocked,
            EventType::PeerLearned,
            EventType::PacketDrop
        ]
    );
}

#[test]
fn a_ping_is_answered_in_the_name_of_the_peer_and_the_network() {
    let mut gateway = Gateway::new(EngineConfig::default());
    gateway.datagram(CLIENT, PEER, b"\x27\0\0\0\xa9\x80Grokster\0");
    let answer = gateway
        .actions
        .iter()
        .find(|action| matches!(action, Action::Answer { .. }));
    let pong = b"\x28\0\0\0\x29\0\x04\x06\x14\x32\0Grokster\0";
    let payload = ShortPayload::of(&[pong]).expect("it is short");
    let expected = Action::Answer {
        from: end(PEER),
        to: end(CLIENT),
        payload,
    };
    assert_eq!(answer, Some(&expected));
}

#[test]
fn with_reply_none_a_ping_meets_silence() {
    let mut gateway = Gateway::new(EngineConfig {
        reply: Reply::None,
        ..EngineConfig::default()
    });
    gateway.datagram(CLIENT, PEER, PING);
    assert_eq!(gateway.answers(), 0);
}

#[test]
fn every_event_names_the_host_the_peer_and_what_was_seen() {
    let mut gateway = Gateway::new(EngineConfig::default());
    gateway.datagram(CLIENT, PEER, PING);
    gateway.wait(Duration::from_secs(3 * 3600));
    let told = |event: &Event| (event.event_type, event.ftwall.clone());
    let told: Vec<_> = gateway.events.iter().map(told).collect();
    let host = Details {
        client: Some(*end(CLIENT).ip()),
        ..Details::default()
    };
    let both = Details {
        peer: Some(end(PEER)),
        ..host.clone()
    };
    let seen = Some(Evidence::UdpPing);
    let dropped = Details {
        evidence: seen,
        verdict: Some(Verdict::Drop(DropReason::Ping).into()),
        ..both.clone()
    };
    let locked = Details {
        evidence: seen,
        ..host.clone()
    };
    let learned = Details {
        evidence: seen,
        ..both.clone()
    };
    let expected = [
        (EventType::ClientLocked, locked),
        (EventType::PeerLearned, learned),
        (EventType::PacketDrop, dropped),
        (EventType::ClientProbed, both.clone()),
        (EventType::ClientReleased, host),
        (EventType::PeerExpired, both),
    ];
    assert_eq!(told, expected);
}

#[test]
fn only_so_many_pings_of_a_host_are_answered_in_a_minute() {
    let mut gateway = Gateway::new(EngineConfig {
        answers_per_minute: 10,
        ..EngineConfig::default()
    });
    for port in 2000..2020 {
        gateway.datagram(CLIENT, &format!("198.18.0.5:{port}"), PING);
    }
    assert_eq!(gateway.answers(), 10);
    gateway.wait(Duration::from_secs(60));
    gateway.datagram(CLIENT, PEER, PING);
    assert_eq!(gateway.answers(), 11, "a new minute");
}

#[test]
fn packets_verdicts_and_evidence_are_counted() {
    let mut gateway = Gateway::new(EngineConfig::default());
    for _ in 0..3 {
        gateway.datagram(CLIENT, PEER, PING);
        gateway.datagram("10.77.1.2:5000", "203.0.113.53:53", b"\x01");
    }
    let counters = gateway.engine.counters();
    assert_eq!(counters.packets, 6);
    let ping = Verdict::Drop(DropReason::Ping);
    let unknown = Verdict::Pass(PassReason::UnknownDatagram);
    let verdicts: Vec<_> = counters.verdicts.iter().collect();
    assert_eq!(verdicts, [(&unknown, &3), (&ping, &3)]);
    assert_eq!(counters.evidence["udp_ping"], 3);
}

#[test]
fn what_is_remembered_is_counted() {
    let mut gateway = Gateway::new(EngineConfig::default());
    gateway.datagram(CLIENT, PEER, PING);
    gateway.datagram(CLIENT, "198.18.0.6:2002", PING);
    let mut web = Connection::open(&mut gateway, "10.77.1.2:3000", WEB);
    web.client_says(&mut gateway, WEB_REQUEST);
    let asked = gateway.engine.occupancy();
    assert_eq!((asked.hosts, asked.peers, asked.proven), (1, 2, 0));
    assert_eq!((asked.flows, asked.buffered), (1, WEB_REQUEST.len()));
    web.server_says(&mut gateway, WEB_ANSWER);
    let answered = gateway.engine.occupancy();
    assert_eq!(
        (answered.flows, answered.buffered, answered.proven),
        (1, 0, 1)
    );
}

#[test]
fn what_an_engine_before_this_one_knew_holds_for_as_long_as_it_was_left() {
    let mut gateway = Gateway::new(EngineConfig::default());
    let (host, peer) = (*end(CLIENT).ip(), end(PEER));
    let left = [
        Remembered::Locked {
            host,
            for_: Duration::from_secs(30),
        },
        Remembered::Peer {
            client: host,
            peer,
            for_: Duration::from_secs(90),
        },
    ];
    for entry in left {
        gateway.engine.remember(gateway.now, entry);
    }
    let dials = |gateway: &mut Gateway| {
        [PEER, "198.18.0.77:2002"]
            .map(|to| Connection::established("10.77.1.1:3000", to, None).dial(gateway))
    };
    let known = Verdict::Drop(DropReason::KnownPeer);
    let refused = Verdict::Drop(DropReason::LockedDial);
    let free = Verdict::Pass(PassReason::NoPayload);
    assert_eq!(dials(&mut gateway), [known, refused]);
    gateway.wait(Duration::from_secs(30));
    assert_eq!(dials(&mut gateway), [known, free], "the lock ran out");
    gateway.wait(Duration::from_secs(60));
    assert_eq!(dials(&mut gateway), [free, free], "the peer is forgotten");
}

#[test]
fn a_lock_taken_over_lasts_no_longer_than_a_new_one() {
    let mut gateway = Gateway::new(EngineConfig::default());
    let host = *end(CLIENT).ip();
    let for_ = Duration::from_secs(9000);
    gateway
        .engine
        .remember(gateway.now, Remembered::Locked { host, for_ });
    gateway.wait(Duration::from_secs(120));
    let released = Action::ReleaseHost { host };
    assert_eq!(gateway.actions, [released]);
}

#[test]
fn every_ping_of_a_flood_is_dropped_and_every_peer_learned() {
    let mut gateway = Gateway::new(EngineConfig::default());
    for host in 1..=200 {
        let peer = format!("198.18.7.{host}:{}", 1500 + host);
        assert_eq!(
            gateway.datagram(CLIENT, &peer, PING),
            Verdict::Drop(DropReason::Ping)
        );
    }
    assert_eq!(gateway.learned().len(), 200);
}

#[test]
fn a_pong_to_a_locked_host_never_arrives() {
    let mut gateway = Gateway::new(EngineConfig::default());
    let to_a_clean_host = gateway.datagram(PEER, CLIENT, PONG);
    assert_eq!(to_a_clean_host, Verdict::Pass(PassReason::UnknownDatagram));
    gateway.datagram(CLIENT, PEER, PING);
    assert_eq!(
        gateway.datagram(PEER, CLIENT, PONG),
        Verdict::Drop(DropReason::Pong)
    );
    let stranger = "198.18.9.9:3000";
    assert_eq!(
        gateway.datagram(stranger, CLIENT, PONG),
        Verdict::Drop(DropReason::Pong)
    );
}

#[test]
fn with_udp_not_blocked_pings_pass_and_still_lock() {
    let mut gateway = Gateway::new(EngineConfig {
        block_udp: false,
        ..EngineConfig::default()
    });
    let verdict = gateway.datagram(CLIENT, PEER, PING);
    assert_eq!(verdict, Verdict::Pass(PassReason::UdpNotBlocked));
    assert!(gateway.is_locked(HOST));
    assert_eq!(gateway.answers(), 0);
}

#[test]
fn an_outsider_that_pings_an_inside_host_is_dropped_and_locks_nobody() {
    let mut gateway = Gateway::new(EngineConfig::default());
    assert_eq!(
        gateway.datagram(PEER, CLIENT, PING),
        Verdict::Drop(DropReason::Ping)
    );
    assert!(gateway.actions.is_empty());
}

#[test]
fn a_lock_runs_out_unless_the_client_answers_the_probe_at_half_time() {
    let mut gateway = Gateway::new(EngineConfig::default());
    gateway.datagram(CLIENT, PEER, PING);
    gateway.wait(Duration::from_secs(61));
    let probe = Action::Probe {
        from: end(PEER),
        to: end(CLIENT),
        payload: ShortPayload::of(&[PING]).expect("it is short"),
    };
    assert_eq!(gateway.actions.last(), Some(&probe));
    assert_eq!(
        gateway.datagram(CLIENT, PEER, PONG),
        Verdict::Drop(DropReason::Pong)
    );
    gateway.wait(Duration::from_secs(119));
    assert!(gateway.is_locked(HOST), "the answer renewed the lock");
    gateway.wait(Duration::from_secs(2));
    assert!(
        !gateway.is_locked(HOST),
        "the second probe was not answered"
    );
}

#[test]
fn the_constant_opener_never_leaves_whatever_is_known_before() {
    let mut gateway = Gateway::new(EngineConfig::default());
    let mut dial = Connection::open(&mut gateway, "10.77.1.1:3000", PEER);
    let verdict = dial.client_says(&mut gateway, &CONSTANT_OPENER);
    assert_eq!(verdict, Verdict::Drop(DropReason::ConstantOpener));
    assert!(gateway.is_locked(HOST));
    let again = dial.client_repeats(&mut gateway, 12, &CONSTANT_OPENER);
    assert_eq!(again, Verdict::Drop(DropReason::KnownPeer));
}

#[test]
fn the_constant_opener_is_never_whole_even_in_one_octet_segments() {
    let mut gateway = Gateway::new(EngineConfig::default());
    let mut dial = Connection::open(&mut gateway, "10.77.1.1:3000", PEER);
    let verdicts = dial.client_says_cut(&mut gateway, &CONSTANT_OPENER, 1);
    assert!(
        verdicts[3..].iter().all(|verdict| verdict.is_drop()),
        "{verdicts:?}"
    );
}

#[test]
fn an_opener_that_looks_encrypted_never_leaves() {
    for peer in [PEER, "198.18.0.5:80", "198.18.0.5:443"] {
        let mut gateway = Gateway::new(EngineConfig::default());
        let mut dial = Connection::open(&mut gateway, "10.77.1.1:3000", peer);
        let verdict = dial.client_says(&mut gateway, &RANDOM_OPENER);
        assert_eq!(verdict, Verdict::Drop(DropReason::Opener), "{peer}");
        assert_eq!(gateway.learned(), [end(peer)]);
    }
}

#[test]
fn an_opener_stuck_in_a_window_of_single_octets_never_leaves_on_a_port_of_the_web() {
    for peer in ["198.18.0.5:80", "198.18.0.5:443"] {
        let mut gateway = Gateway::new(EngineConfig::default());
        let mut dial = Connection::open(&mut gateway, "10.77.1.1:3000", peer);
        let window = &RANDOM_OPENER[..10];
        let verdicts = dial.client_says_cut(&mut gateway, window, 1);
        assert!(
            verdicts.iter().all(|verdict| verdict.is_drop()),
            "{peer}: {verdicts:?}"
        );
        for repetition in 1..=4 {
            let verdict = dial.client_repeats(&mut gateway, 10, &window[..1]);
            assert!(
                verdict.is_drop(),
                "{peer}, repetition {repetition}: {verdict:?}"
            );
        }
        assert!(gateway.is_locked(HOST), "{peer}");
    }
}

#[test]
fn a_locked_hosts_opener_stuck_in_a_window_of_single_octets_never_leaves() {
    let mut gateway = Gateway::new(EngineConfig::default());
    let mut dial = Connection::open(&mut gateway, "10.77.1.1:3000", "198.18.0.5:1819");
    gateway.datagram(CLIENT, PEER, PING);
    dial.client_says_cut(&mut gateway, &RANDOM_OPENER[..11], 1);
    for repetition in 1..=4 {
        let verdict = dial.client_repeats(&mut gateway, 11, &RANDOM_OPENER[..1]);
        assert!(verdict.is_drop(), "repetition {repetition}: {verdict:?}");
    }
}

#[test]
fn the_middle_of_a_locked_hosts_request_waits_for_its_beginning() {
    // Whose first segments got lost, or were dropped while no daemon ran.
    let request = b"GET /.hash=6a263969aaad5d97beb5d32e5a90480825de58ff HTTP/1.1\r\nX-Kazaa-Username: n\r\n\r\n";
    let (missed, rest) = request.split_at(60);
    let mut gateway = Gateway::new(EngineConfig::default());
    let mut dial = Connection::established("10.77.1.1:3000", "198.18.0.5:443", Some(true));
    gateway.datagram(CLIENT, PEER, PING);
    dial.restart(60, 0);
    for verdict in dial.client_says_cut(&mut gateway, rest, 13) {
        assert_eq!(verdict, Verdict::Drop(DropReason::Withheld));
    }
    let verdict = dial.client_repeats(&mut gateway, request.len() as u32, missed);
    assert_eq!(verdict, Verdict::Drop(DropReason::TransferRequest));
}

#[test]
fn after_a_gap_the_middle_of_anybodys_request_waits_for_its_beginning() {
    for (follows_gap, waits) in [(false, false), (true, true)] {
        let mut gateway = Gateway::new(EngineConfig::default());
        if follows_gap {
            gateway.engine.follow_gap(gateway.now);
        }
        for (end, middle) in [
            ("10.77.1.1:3000", &b"-Kazaa-Username"[..]),
            ("10.77.1.1:3002", b"aza"),
        ] {
            let mut dial = Connection::established(end, PEER, Some(true));
            let verdict = dial.client_says(&mut gateway, middle);
            assert_eq!(verdict.is_drop(), waits, "{verdict:?}");
        }
        let mut binary = Connection::established("10.77.1.1:3003", PEER, Some(true));
        let verdict = binary.client_says(&mut gateway, b"\x04\x01\x00\x50\xc6\x12\x00\x05");
        assert!(!verdict.is_drop(), "{verdict:?}");
        gateway.wait(Duration::from_secs(60));
        let mut later = Connection::established("10.77.1.1:3001", PEER, Some(true));
        let verdict = later.client_says(&mut gateway, b"-Kazaa-Username");
        assert!(!verdict.is_drop(), "{verdict:?}");
    }
}

#[test]
fn a_locked_hosts_foreign_words_leave_once_they_come_again() {
    let mut gateway = Gateway::new(EngineConfig::default());
    let mut dial = Connection::established("10.77.1.1:3000", "198.18.0.5:443", Some(true));
    gateway.datagram(CLIENT, PEER, PING);
    let words = [0x99; 40];
    let verdict = dial.client_says(&mut gateway, &words);
    assert_eq!(verdict, Verdict::Drop(DropReason::Withheld));
    assert!(!dial.client_repeats(&mut gateway, 40, &words).is_drop());
    assert!(!dial.client_says(&mut gateway, &words).is_drop());
}

#[test]
fn a_numbered_request_stuck_in_its_window_never_leaves() {
    let mut gateway = Gateway::new(EngineConfig::default());
    let mut dial = Connection::open(&mut gateway, "10.77.1.1:3000", PEER);
    let window = &b"GET /40061/a_song.mp3 HTTP/1.1\r\nHost: 198.18.0.5"[..33];
    let verdicts = dial.client_says_cut(&mut gateway, window, 3);
    let numbered = verdicts.iter().skip(2);
    assert!(
        numbered.clone().all(|verdict| verdict.is_drop()),
        "{verdicts:?}"
    );
    for repetition in 1..=4 {
        let verdict = dial.client_repeats(&mut gateway, 33, &window[..3]);
        assert!(verdict.is_drop(), "repetition {repetition}: {verdict:?}");
    }
    assert!(gateway.is_locked(HOST));
}

#[test]
fn a_short_binary_message_that_waits_for_its_answer_leaves_on_a_port_of_the_web() {
    let mut gateway = Gateway::new(EngineConfig::default());
    let mut dial = Connection::open(&mut gateway, "10.77.1.1:3000", "198.18.0.5:443");
    let message = &RANDOM_OPENER[..10];
    assert!(dial.client_says(&mut gateway, message).is_drop());
    assert!(dial.client_repeats(&mut gateway, 10, message).is_drop());
    assert!(!dial.client_repeats(&mut gateway, 10, message).is_drop());
    assert!(!gateway.is_locked(HOST));
}

#[test]
fn the_answer_to_an_unconfirmed_opener_never_arrives_however_it_is_cut() {
    for (len, piece) in [
        (8, 8),
        (14, 14),
        (17, 17),
        (18, 18),
        (14, 8),
        (14, 1),
        (18, 5),
        (17, 9),
    ] {
        let mut gateway = Gateway::new(EngineConfig::default());
        let mut dial = Connection::open(&mut gateway, "10.77.1.1:3000", PEER);
        let verdict = dial.client_says(&mut gateway, &PLAIN_OPENER);
        assert_eq!(verdict, Verdict::Pass(PassReason::UnconfirmedOpener));
        for piece in [0x5a; 18][..len].chunks(piece) {
            let verdict = dial.server_says(&mut gateway, piece);
            assert!(verdict.is_drop(), "{len} octets in pieces: {verdict:?}");
        }
        assert!(gateway.is_locked(HOST), "{len} octets");
    }
}

#[test]
fn openers_to_two_peers_within_a_minute_confirm_each_other() {
    let mut gateway = Gateway::new(EngineConfig::default());
    let mut first = Connection::open(&mut gateway, "10.77.1.1:3000", PEER);
    let mut second = Connection::open(&mut gateway, "10.77.1.1:3001", "198.18.0.6:2002");
    assert!(!first.client_says(&mut gateway, &PLAIN_OPENER).is_drop());
    let verdict = second.client_says(&mut gateway, &PLAIN_OPENER);
    assert_eq!(verdict, Verdict::Drop(DropReason::Opener));
    assert_eq!(gateway.learned(), [end("198.18.0.6:2002"), end(PEER)]);
    assert!(first.server_says(&mut gateway, &[0x5a; 14]).is_drop());
}

#[test]
fn a_short_answer_to_twelve_octets_of_another_protocol_arrives_in_the_end() {
    let mut gateway = Gateway::new(EngineConfig::default());
    let mut flow = Connection::open(&mut gateway, "10.77.1.1:3000", PEER);
    flow.client_says(&mut gateway, &PLAIN_OPENER);
    assert_eq!(
        flow.server_says(&mut gateway, b"ok\n"),
        Verdict::Drop(DropReason::Withheld)
    );
    let repeats: Vec<_> = (0..3)
        .map(|_| flow.server_repeats(&mut gateway, 3, b"ok\n"))
        .collect();
    assert_eq!(repeats[2], Verdict::Pass(PassReason::Released));
    assert!(!gateway.is_locked(HOST));
}

#[test]
fn a_modbus_poll_is_left_alone() {
    let mut gateway = Gateway::new(EngineConfig::default());
    for host in 1..=3 {
        let server = format!("198.18.0.{host}:502");
        let mut poll = Connection::open(&mut gateway, "10.77.1.1:3000", &server);
        let request = b"\x00\x01\x00\x00\x00\x06\x01\x03\x00\x6b\x00\x03";
        let answer = b"\x00\x01\x00\x00\x00\x0b\x01\x03\x08\x02\x2b\x00\x00\x00\x64\x00\x01";
        assert!(!poll.client_says(&mut gateway, request).is_drop());
        assert!(
            !poll.server_says(&mut gateway, answer).is_drop(),
            "17 octets"
        );
    }
    assert!(!gateway.is_locked(HOST));
}

#[test]
fn no_octet_of_a_file_request_leaves_however_it_is_cut() {
    for piece in [1, 2, 5, 7, 40, HASH_REQUEST.len()] {
        let mut gateway = Gateway::new(EngineConfig::default());
        let mut dial = Connection::open(&mut gateway, "10.77.1.1:3000", PEER);
        let verdicts = dial.client_says_cut(&mut gateway, HASH_REQUEST, piece);
        assert!(
            verdicts.iter().all(|verdict| verdict.is_drop()),
            "{piece}: {verdicts:?}"
        );
        assert!(gateway.is_locked(HOST));
        assert_eq!(gateway.learned(), [end(PEER)]);
    }
}

#[test]
fn a_transfer_is_stopped_on_ports_of_the_web_too() {
    for port in [80, 443, 8080] {
        let mut gateway = Gateway::new(EngineConfig::default());
        let peer = format!("198.18.0.5:{port}");
        let mut dial = Connection::open(&mut gateway, "10.77.1.1:3000", &peer);
        let verdict = dial.client_says(&mut gateway, HASH_REQUEST);
        assert_eq!(
            verdict,
            Verdict::Drop(DropReason::TransferRequest),
            "{port}"
        );
        assert!(
            dial.server_says(&mut gateway, WEB_ANSWER).is_drop(),
            "the whole flow"
        );
    }
}

#[test]
fn the_supernode_is_learned_from_the_answer_to_an_old_style_request() {
    let mut gateway = Gateway::new(EngineConfig::default());
    let mut dial = Connection::open(&mut gateway, "10.77.1.1:3000", PEER);
    let request = b"GET /1234/song.mp3 HTTP/1.1\r\nHost: a\r\n\r\n";
    assert!(
        !dial.client_says(&mut gateway, request).is_drop(),
        "weak alone"
    );
    let answer = b"HTTP/1.0 503 Service Unavailable\r\nX-Kazaa-IP: 198.18.0.5:2001\r\n\
                   X-Kazaa-SupernodeIP: 198.18.44.4:1214\r\n\r\n";
    let verdict = dial.server_says(&mut gateway, answer);
    assert_eq!(verdict, Verdict::Drop(DropReason::TransferResponse));
    assert!(gateway.learned().contains(&end("198.18.44.4:1214")));
}

#[test]
fn an_inside_owner_that_calls_back_is_stopped_at_its_first_word() {
    for piece in [1, 3, 8] {
        let mut gateway = Gateway::new(EngineConfig::default());
        let mut dial = Connection::open(&mut gateway, "10.77.1.1:3000", PEER);
        let verdicts = dial.client_says_cut(&mut gateway, b"GIVE 1\r\n", piece);
        assert!(
            verdicts.iter().all(|verdict| verdict.is_drop()),
            "{piece}: {verdicts:?}"
        );
        let reversed = dial.server_says(&mut gateway, HASH_REQUEST);
        assert!(reversed.is_drop());
        assert!(gateway.is_locked(HOST));
    }
}

#[test]
fn a_file_request_from_outside_locks_the_inside_owner() {
    let mut gateway = Gateway::new(EngineConfig::default());
    let mut call = Connection::open(&mut gateway, PEER, CLIENT);
    let verdict = call.client_says(&mut gateway, HASH_REQUEST);
    assert_eq!(verdict, Verdict::Drop(DropReason::TransferRequest));
    assert!(gateway.is_locked(HOST));
    assert_eq!(
        gateway.learned(),
        [],
        "an outside initiator's port is not one it listens on"
    );
}

#[test]
fn an_inside_supernode_cannot_answer_an_opener_from_outside() {
    let mut gateway = Gateway::new(EngineConfig::default());
    let mut call = Connection::open(&mut gateway, PEER, CLIENT);
    call.client_says(&mut gateway, &RANDOM_OPENER);
    assert!(
        !gateway.is_locked(HOST),
        "what an outsider says locks nobody"
    );
    let verdict = call.server_says(&mut gateway, &[0x5a; 14]);
    assert_eq!(verdict, Verdict::Drop(DropReason::HandshakeAnswer));
    assert!(gateway.is_locked(HOST));
}

#[test]
fn the_web_is_cleared_once_both_heads_are_seen() {
    let mut gateway = Gateway::new(EngineConfig::default());
    let mut flow = Connection::open(&mut gateway, "10.77.1.2:3000", WEB);
    let request = flow.client_says(&mut gateway, WEB_REQUEST);
    assert_eq!(request, Verdict::Pass(PassReason::Undecided));
    let answer = flow.server_says(&mut gateway, WEB_ANSWER);
    assert_eq!(answer, Verdict::Clear(ClearReason::Http));
    let body = flow.server_says(&mut gateway, b"X-Kazaa-Username: in a page\r\n");
    assert_eq!(body, Verdict::Pass(PassReason::Cleared));
}

/// An address that has answered a request as web servers do.
fn prove(gateway: &mut Gateway, address: &str) {
    let mut flow = Connection::open(gateway, "10.77.1.9:3999", address);
    flow.client_says(gateway, WEB_REQUEST);
    let answer = flow.server_says(gateway, WEB_ANSWER);
    assert_eq!(answer, Verdict::Clear(ClearReason::Http));
}

#[test]
fn a_request_to_who_has_proven_himself_needs_no_answer_for_an_hour() {
    let mut gateway = Gateway::new(EngineConfig::default());
    prove(&mut gateway, WEB);
    let ask = |gateway: &mut Gateway, client: &str| {
        let mut flow = Connection::open(gateway, client, WEB);
        flow.client_says(gateway, WEB_REQUEST)
    };
    let believed = Verdict::Clear(ClearReason::HttpProvenServer);
    assert_eq!(ask(&mut gateway, "10.77.1.2:3000"), believed);
    // A request alone proves nobody anew.
    gateway.wait(Duration::from_secs(3_000));
    assert_eq!(ask(&mut gateway, "10.77.1.2:3001"), believed);
    gateway.wait(Duration::from_secs(1_000));
    let undecided = Verdict::Pass(PassReason::Undecided);
    assert_eq!(ask(&mut gateway, "10.77.1.2:3002"), undecided);
}

#[test]
fn a_request_is_not_believed_of_a_suspect_nor_with_a_mark_nor_in_part() {
    let mut gateway = Gateway::new(EngineConfig::default());
    prove(&mut gateway, WEB);
    let mut begun = Connection::open(&mut gateway, "10.77.1.2:3000", WEB);
    let (first, rest) = WEB_REQUEST.split_at(20);
    let undecided = Verdict::Pass(PassReason::Undecided);
    assert_eq!(begun.client_says(&mut gateway, first), undecided);
    let believed = Verdict::Clear(ClearReason::HttpProvenServer);
    assert_eq!(begun.client_says(&mut gateway, rest), believed);
    let mut marked = Connection::open(&mut gateway, "10.77.1.3:3000", WEB);
    let verdict = marked.client_says(
        &mut gateway,
        b"GET /a.mp3 HTTP/1.1\r\nX-Kazaa-Network: KaZaA\r\n\r\n",
    );
    assert_eq!(verdict, Verdict::Drop(DropReason::TransferRequest));
    gateway.datagram(CLIENT, PEER, PING);
    let mut suspect = Connection::open(&mut gateway, "10.77.1.1:3000", WEB);
    assert_eq!(suspect.client_says(&mut gateway, WEB_REQUEST), undecided);
}

#[test]
fn a_new_connection_between_the_ends_of_a_cleared_one_is_judged_anew() {
    let mut gateway = Gateway::new(EngineConfig::default());
    let mut web = Connection::established("10.77.1.2:3000", WEB, Some(true));
    web.client_says(&mut gateway, WEB_REQUEST);
    web.server_says(&mut gateway, WEB_ANSWER);
    let in_flight = web.client_repeats(&mut gateway, 0, b"still of the first");
    assert_eq!(in_flight, Verdict::Clear(ClearReason::Http));
    let elsewhere = 1 << 30;
    let successor = web.client_repeats(&mut gateway, elsewhere, HASH_REQUEST);
    assert_eq!(successor, Verdict::Drop(DropReason::TransferRequest));
}

#[test]
fn a_kernel_that_asks_again_about_a_cleared_flow_is_told_again() {
    let mut gateway = Gateway::new(EngineConfig::default());
    let mut flow = Connection::established("10.77.1.2:3000", WEB, Some(true));
    flow.client_says(&mut gateway, WEB_REQUEST);
    let cleared = Verdict::Clear(ClearReason::Http);
    assert_eq!(flow.server_says(&mut gateway, WEB_ANSWER), cleared);
    assert_eq!(flow.server_says(&mut gateway, b"more"), cleared);
}

#[test]
fn a_page_about_kazaa_arrives() {
    let mut gateway = Gateway::new(EngineConfig::default());
    let mut flow = Connection::open(&mut gateway, "10.77.1.2:3000", WEB);
    flow.client_says(
        &mut gateway,
        b"GET /x-kazaa/GIVE/.hash=.html HTTP/1.1\r\nHost: a\r\n\r\n",
    );
    let page = [
        b"HTTP/1.1 200 OK\r\n\r\n",
        HASH_REQUEST,
        b"X-Kazaa-IP: 1.2.3.4:5\r\n",
    ]
    .concat();
    assert_eq!(
        flow.server_says(&mut gateway, &page),
        Verdict::Clear(ClearReason::Http)
    );
    assert!(!gateway.is_locked("10.77.1.2"));
}

#[test]
fn a_server_that_speaks_first_is_cleared() {
    let mut gateway = Gateway::new(EngineConfig::default());
    let mut flow = Connection::open(&mut gateway, "10.77.1.2:3000", "203.0.113.7:2222");
    let banner = flow.server_says(&mut gateway, b"SSH-2.0-OpenSSH_9.2\r\n");
    assert_eq!(banner, Verdict::Clear(ClearReason::ServerSpoke));
}

#[test]
fn an_answer_to_octets_nobody_saw_is_not_taken_for_a_server_that_speaks_first() {
    let mut gateway = Gateway::new(EngineConfig::default());
    let mut flow = Connection::open(&mut gateway, "10.77.1.1:3000", PEER);
    let mut lost = Gateway::new(EngineConfig::default());
    flow.client_says(&mut lost, &PLAIN_OPENER);
    let answer = flow.server_says(&mut gateway, &[0x5a; 14]);
    assert_eq!(answer, Verdict::Pass(PassReason::Undecided));
}

#[test]
fn an_unknown_protocol_is_tolerated_after_a_while() {
    let mut gateway = Gateway::new(EngineConfig::default());
    let mut flow = Connection::open(&mut gateway, "10.77.1.2:3000", PEER);
    let verdicts: Vec<_> = (0..4)
        .map(|_| flow.client_says(&mut gateway, &[7; 40]))
        .collect();
    assert_eq!(verdicts[3], Verdict::Tolerate(TolerateReason::Unrecognised));
}

#[test]
fn a_tolerated_flow_is_cut_when_its_host_becomes_locked() {
    let mut gateway = Gateway::new(EngineConfig::default());
    let mut session = Connection::open(&mut gateway, "10.77.1.1:3000", PEER);
    for _ in 0..5 {
        session.client_says(&mut gateway, &[7; 40]);
    }
    gateway.datagram(CLIENT, "198.18.0.9:3000", PING);
    let keep_alive = session.client_says(&mut gateway, &[0x50]);
    assert_eq!(keep_alive, Verdict::Drop(DropReason::CutOnLock));
    assert!(session.server_says(&mut gateway, &[0x52]).is_drop());
}

#[test]
fn sessions_that_were_up_before_are_cut_and_web_sessions_are_not() {
    let mut gateway = Gateway::new(EngineConfig::default());
    gateway.datagram(CLIENT, "198.18.0.9:3000", PING);
    let mut session = Connection::established("10.77.1.1:3000", PEER, Some(false));
    assert_eq!(
        session.server_says(&mut gateway, &[0x52]),
        Verdict::Drop(DropReason::CutOnLock)
    );
    let mut web = Connection::established("10.77.1.1:3001", "203.0.113.7:443", Some(false));
    for _ in 0..10 {
        assert!(!web.server_says(&mut gateway, &[0x17; 100]).is_drop());
    }
}

#[test]
fn a_quic_initial_clears_its_flow_even_of_a_locked_host_in_strict_mode() {
    let mut gateway = Gateway::new(EngineConfig {
        strictness: Strictness::Strict,
        ..EngineConfig::default()
    });
    gateway.datagram(CLIENT, PEER, PING);
    let mut initial = b"\xc3\0\0\0\x01\x08".to_vec();
    initial.resize(1200, 0x5a);
    let verdict = gateway.datagram("10.77.1.1:4000", "203.0.113.7:4433", &initial);
    assert_eq!(verdict, Verdict::Clear(ClearReason::QuicInitial));
}

#[test]
fn a_locked_host_goes_on_browsing() {
    let mut gateway = Gateway::new(EngineConfig::default());
    gateway.datagram(CLIENT, PEER, PING);
    for server in [WEB, "203.0.113.7:8080"] {
        let mut flow = Connection::open(&mut gateway, "10.77.1.1:3000", server);
        assert!(!flow.client_says(&mut gateway, WEB_REQUEST).is_drop());
        let answer = flow.server_says(&mut gateway, WEB_ANSWER);
        assert_eq!(answer, Verdict::Clear(ClearReason::Http), "{server}");
    }
    let name = gateway.datagram("10.77.1.1:5353", "203.0.113.53:53", b"\x27\x11\x01\0\0\x01");
    assert_eq!(name, Verdict::Pass(PassReason::UnknownDatagram));
}

#[test]
fn a_locked_host_dials_no_strangers_but_proven_addresses() {
    let mut gateway = Gateway::new(EngineConfig::default());
    gateway.datagram(CLIENT, PEER, PING);
    let stranger = "198.18.0.77:2002";
    let mut dial = Connection::established("10.77.1.1:3000", stranger, None);
    assert_eq!(
        dial.dial(&mut gateway),
        Verdict::Drop(DropReason::LockedDial)
    );
    let mut known = Connection::established("10.77.1.1:3000", PEER, None);
    assert_eq!(
        known.dial(&mut gateway),
        Verdict::Drop(DropReason::KnownPeer)
    );
    let mut web = Connection::open(&mut gateway, "10.77.1.1:3001", WEB);
    web.client_says(&mut gateway, WEB_REQUEST);
    web.server_says(&mut gateway, WEB_ANSWER);
    let mut other_port = Connection::established("10.77.1.1:3002", "203.0.113.7:9000", None);
    assert!(
        !other_port.dial(&mut gateway).is_drop(),
        "the address has proven itself"
    );
}

#[test]
fn a_dial_under_way_when_its_host_becomes_locked_is_not_answered_afterwards() {
    let mut gateway = Gateway::new(EngineConfig::default());
    let mut dial = Connection::established("10.77.1.1:3000", "198.18.0.77:2002", None);
    let mut web = Connection::established("10.77.1.1:3001", WEB, None);
    assert!(!dial.dial(&mut gateway).is_drop() && !web.dial(&mut gateway).is_drop());
    gateway.datagram(CLIENT, PEER, PING);
    assert_eq!(
        dial.accept(&mut gateway),
        Verdict::Drop(DropReason::LockedDial)
    );
    assert!(!web.accept(&mut gateway).is_drop());
    let mut inbound = Connection::established("198.18.0.78:4000", CLIENT, None);
    assert!(!inbound.dial(&mut gateway).is_drop());
    assert!(
        !inbound.accept(&mut gateway).is_drop(),
        "the host dialled nobody"
    );
}

#[test]
fn with_locked_dials_watched_the_first_payload_decides() {
    let config = EngineConfig {
        locked_dials: LockedDials::Watch,
        ..EngineConfig::default()
    };
    let mut gateway = Gateway::new(config);
    gateway.datagram(CLIENT, PEER, PING);
    let mut dial = Connection::open(&mut gateway, "10.77.1.1:3000", "198.18.0.77:2002");
    let verdict = dial.client_says(&mut gateway, &PLAIN_OPENER);
    assert_eq!(verdict, Verdict::Drop(DropReason::Opener));
}

#[test]
fn strict_mode_drops_the_unknown_of_a_locked_host_and_leaves_its_web() {
    let config = EngineConfig {
        strictness: Strictness::Strict,
        ..EngineConfig::default()
    };
    let mut gateway = Gateway::new(config);
    gateway.datagram(CLIENT, PEER, PING);
    let mut unknown = Connection::open(&mut gateway, "10.77.1.1:3000", "203.0.113.9:80");
    let verdict = unknown.client_says(&mut gateway, &[7; 40]);
    assert_eq!(verdict, Verdict::Drop(DropReason::Strict));
    let mut web = Connection::open(&mut gateway, "10.77.1.1:3001", WEB);
    assert!(!web.client_says(&mut gateway, WEB_REQUEST).is_drop());
    assert!(!web.server_says(&mut gateway, WEB_ANSWER).is_drop());
    let game = gateway.datagram("10.77.1.1:4000", "203.0.113.9:27015", &[9; 50]);
    assert_eq!(game, Verdict::Drop(DropReason::Strict));
}

#[test]
fn a_forged_ping_to_a_bank_keeps_nobody_from_the_bank() {
    let mut gateway = Gateway::new(EngineConfig::default());
    let bank = "203.0.113.9:443";
    gateway.datagram(CLIENT, bank, PING);
    for client in ["10.77.1.1:3000", "10.77.1.2:3000"] {
        let mut flow = Connection::open(&mut gateway, client, bank);
        let verdict = flow.client_says(&mut gateway, TLS_HELLO);
        assert_eq!(
            verdict,
            Verdict::Clear(ClearReason::TlsClientHello),
            "{client}"
        );
    }
}

#[test]
fn what_one_client_taught_blocks_only_that_client() {
    let mut gateway = Gateway::new(EngineConfig::default());
    gateway.datagram(CLIENT, PEER, PING);
    let mut other = Connection::open(&mut gateway, "10.77.1.2:3000", PEER);
    assert!(!other.client_says(&mut gateway, WEB_REQUEST).is_drop());
    let mut infected = Connection::open(&mut gateway, "10.77.1.3:3000", PEER);
    let verdict = infected.client_says(&mut gateway, &PLAIN_OPENER);
    assert_eq!(
        verdict,
        Verdict::Drop(DropReason::Opener),
        "but it confirms an opener"
    );
}

#[test]
fn an_exempt_host_is_never_judged() {
    let exempt = vec!["10.77.1.1/32".parse().unwrap()];
    let mut gateway = Gateway::new(EngineConfig {
        exempt,
        ..EngineConfig::default()
    });
    assert_eq!(
        gateway.datagram(CLIENT, PEER, PING),
        Verdict::Pass(PassReason::Exempt)
    );
    assert!(gateway.actions.is_empty());
}

#[test]
fn what_does_not_cross_the_gateway_is_not_judged_unless_everything_is() {
    let mut gateway = Gateway::new(EngineConfig::default());
    let verdict = gateway.datagram("10.77.1.1:1214", "10.77.1.2:2001", PING);
    assert_eq!(verdict, Verdict::Pass(PassReason::NotCrossing));
    let mut gateway = Gateway::new(EngineConfig {
        judge_all: true,
        ..EngineConfig::default()
    });
    let verdict = gateway.datagram("198.18.0.1:1214", "198.18.0.2:2001", PING);
    assert_eq!(verdict, Verdict::Drop(DropReason::Ping));
    assert!(gateway.is_locked("198.18.0.1"));
}

#[test]
fn the_kernel_may_say_that_a_flow_was_seen_from_its_start() {
    let mut gateway = Gateway::new(EngineConfig::default());
    let mut dial = Connection::established("10.77.1.1:3000", PEER, Some(true));
    dial.client_says(&mut gateway, &PLAIN_OPENER);
    let answer = dial.server_says(&mut gateway, &[0x5a; 8]);
    assert_eq!(answer, Verdict::Drop(DropReason::HandshakeAnswer));
}

#[test]
fn a_file_request_on_a_flow_that_was_up_is_stopped_too() {
    let mut gateway = Gateway::new(EngineConfig::default());
    let mut flow = Connection::established("10.77.1.1:3000", PEER, Some(false));
    let verdict = flow.client_says(&mut gateway, HASH_REQUEST);
    assert_eq!(verdict, Verdict::Drop(DropReason::TransferRequest));
}

#[test]
fn a_second_copy_that_turns_a_request_into_a_file_request_is_dropped() {
    let mut gateway = Gateway::new(EngineConfig::default());
    let mut flow = Connection::open(&mut gateway, "10.77.1.1:3000", PEER);
    let harmless = [b'x'; 60];
    assert!(!flow.client_says(&mut gateway, &harmless).is_drop());
    let verdict = flow.client_repeats(&mut gateway, 60, &HASH_REQUEST[..60]);
    assert_eq!(verdict, Verdict::Drop(DropReason::TransferRequest));
}

#[test]
fn a_new_connection_between_the_ends_of_any_flow_is_judged_anew() {
    for earlier in [&[7; 40][..], &CONSTANT_OPENER, b"GET /never-finished"] {
        // As the kernel shows it: no dial, but it was seen, and other sequence numbers.
        let mut gateway = Gateway::new(EngineConfig::default());
        let mut connection = Connection::established(CLIENT, "198.18.0.5:443", Some(true));
        for _ in 0..5 {
            connection.client_says(&mut gateway, earlier);
        }
        connection.restart(1 << 30, 1 << 29);
        let hello = connection.client_says(&mut gateway, TLS_HELLO);
        assert_eq!(hello, Verdict::Clear(ClearReason::TlsClientHello));
        // As a capture shows it.
        let mut gateway = Gateway::new(EngineConfig::default());
        let mut connection = Connection::open(&mut gateway, CLIENT, "198.18.0.5:443");
        for _ in 0..5 {
            connection.client_says(&mut gateway, earlier);
        }
        connection.restart(100, 200);
        assert!(!connection.dial(&mut gateway).is_drop());
        let hello = connection.client_says(&mut gateway, TLS_HELLO);
        assert_eq!(hello, Verdict::Clear(ClearReason::TlsClientHello));
    }
}

#[test]
fn what_a_dropped_connection_repeats_is_no_new_connection() {
    let mut gateway = Gateway::new(EngineConfig::default());
    let mut dial = Connection::established(CLIENT, "198.18.0.5:443", Some(true));
    assert!(dial.client_says(&mut gateway, &CONSTANT_OPENER).is_drop());
    for back in [12, 6, 0] {
        let more = dial.client_repeats(&mut gateway, back, TLS_HELLO);
        assert_eq!(more, Verdict::Drop(DropReason::Condemned), "{back}");
    }
    // A lap of the sequence numbers, in steps that octets in flight can take.
    for _ in 0..2000 {
        dial.restart(1 << 21, 0);
        let more = dial.client_repeats(&mut gateway, 0, TLS_HELLO);
        assert_eq!(more, Verdict::Drop(DropReason::Condemned));
    }
}

#[test]
fn numbers_of_the_other_side_tell_a_new_connection_as_well() {
    let mut gateway = Gateway::new(EngineConfig::default());
    let mut connection = Connection::established(CLIENT, "198.18.0.5:443", Some(true));
    connection.client_says(&mut gateway, &CONSTANT_OPENER);
    connection.restart(0, 1 << 30);
    let hello = connection.client_says(&mut gateway, TLS_HELLO);
    assert_eq!(hello, Verdict::Clear(ClearReason::TlsClientHello));
}

#[test]
fn a_connection_that_passed_unseen_for_a_while_is_no_new_one() {
    let mut gateway = Gateway::new(EngineConfig::default());
    let mut session = Connection::established(CLIENT, PEER, Some(true));
    for _ in 0..5 {
        session.client_says(&mut gateway, &[7; 40]);
    }
    gateway.datagram(CLIENT, "198.18.0.9:3000", PING);
    session.restart(1 << 30, 1 << 29);
    session.from_start = Some(false);
    let later = session.client_says(&mut gateway, &[7; 40]);
    assert_eq!(later, Verdict::Drop(DropReason::CutOnLock));
}

#[test]
fn a_condemned_peer_is_not_freed_by_dialling_it_again() {
    let mut gateway = Gateway::new(EngineConfig::default());
    let mut dial = Connection::open(&mut gateway, CLIENT, PEER);
    dial.client_says(&mut gateway, &CONSTANT_OPENER);
    for _ in 0..3 {
        dial.restart(1 << 30, 1 << 29);
        let known = Verdict::Drop(DropReason::KnownPeer);
        assert_eq!(dial.dial(&mut gateway), known);
        assert_eq!(dial.client_says(&mut gateway, WEB_REQUEST), known);
    }
}

#[test]
fn a_dial_that_is_repeated_is_no_new_connection() {
    let mut gateway = Gateway::new(EngineConfig::default());
    let mut connection = Connection::open(&mut gateway, CLIENT, PEER);
    let mut late_copy = connection.clone();
    connection.client_says(&mut gateway, &PLAIN_OPENER);
    assert!(!late_copy.dial(&mut gateway).is_drop());
    let answer = connection.server_says(&mut gateway, &[0x5a; 14]);
    assert_eq!(answer, Verdict::Drop(DropReason::HandshakeAnswer));
}

#[test]
fn a_segment_without_payload_passes_whatever_was_decided() {
    let mut gateway = Gateway::new(EngineConfig::default());
    let mut dial = Connection::open(&mut gateway, CLIENT, "198.18.0.5:443");
    dial.client_says(&mut gateway, &CONSTANT_OPENER);
    let empty = dial.server_repeats(&mut gateway, 0, b"");
    assert_eq!(empty, Verdict::Pass(PassReason::NoPayload));
}

#[test]
fn who_speaks_first_of_a_flow_that_was_up_counts_for_its_initiator_unless_it_serves_the_web() {
    let mut gateway = Gateway::new(EngineConfig::default());
    let mut upload = Connection::established(CLIENT, PEER, None);
    upload.server_says(&mut gateway, b"");
    upload.client_says(&mut gateway, HASH_REQUEST);
    assert_eq!(
        gateway.learned(),
        [end(PEER)],
        "an empty segment says nothing"
    );
    // The locked host's web session stays up, whoever of it is heard first.
    let mut web = Connection::established("10.77.1.1:3001", "203.0.113.7:443", None);
    for _ in 0..10 {
        assert!(!web.server_says(&mut gateway, &[0x17; 100]).is_drop());
        assert!(!web.client_says(&mut gateway, &[0x17; 100]).is_drop());
    }
    let mut session = Connection::established("10.77.1.1:3002", "198.18.0.9:3000", None);
    let cut = Verdict::Drop(DropReason::CutOnLock);
    assert_eq!(session.server_says(&mut gateway, &[0x52]), cut);
}

#[test]
fn the_answer_to_a_dial_tells_who_dialled() {
    let mut gateway = Gateway::new(EngineConfig::default());
    let mut dial = Connection::established(CLIENT, PEER, None);
    dial.accept(&mut gateway);
    dial.client_says(&mut gateway, &RANDOM_OPENER);
    assert!(gateway.is_locked(HOST));
    assert_eq!(gateway.learned(), [end(PEER)]);
}

#[test]
fn when_every_flow_is_judged_its_initiator_counts_as_the_host() {
    let judge_all = EngineConfig {
        judge_all: true,
        ..EngineConfig::default()
    };
    let mut gateway = Gateway::new(judge_all);
    let mut dial = Connection::open(&mut gateway, "198.18.0.1:3000", PEER);
    dial.client_says(&mut gateway, &PLAIN_OPENER);
    let answer = dial.server_says(&mut gateway, &[0x5a; 14]);
    assert_eq!(answer, Verdict::Drop(DropReason::HandshakeAnswer));
    assert!(gateway.is_locked("198.18.0.1"));
    assert_eq!(gateway.learned(), [end(PEER)]);
}

#[test]
fn when_every_flow_is_judged_a_datagrams_host_is_still_the_inside_one() {
    let mut gateway = Gateway::new(EngineConfig {
        judge_all: true,
        inside: vec!["203.0.113.0/24".parse().unwrap()],
        ..EngineConfig::default()
    });
    let (inside, outside) = ("203.0.113.7:1214", "198.18.0.5:3000");
    // A call from outside: the two are known to belong together the other way round.
    let mut call = Connection::open(&mut gateway, outside, inside);
    call.client_says(&mut gateway, HASH_REQUEST);
    assert_eq!(gateway.learned(), [end(inside)]);
    gateway.datagram(inside, outside, PING);
    assert!(gateway.is_locked("203.0.113.7"));
}

#[test]
fn evidence_too_weak_alone_is_counted_once_for_each_flow() {
    let mut gateway = Gateway::new(EngineConfig::default());
    let mut flow = Connection::open(&mut gateway, CLIENT, PEER);
    flow.client_says_cut(
        &mut gateway,
        b"GET /2003/12/a.html HTTP/1.1\r\nHost: a\r\n\r\n",
        16,
    );
    flow.server_says(&mut gateway, b"HTTP/1.1 200 OK\r\n\r\n");
    let counted: Vec<_> = gateway.engine.counters().evidence.into_iter().collect();
    assert_eq!(counted, [("numbered_request", 1)]);
}

#[test]
fn nothing_but_an_opener_from_inside_confirms_another_opener() {
    let mut gateway = Gateway::new(EngineConfig::default());
    let mut web = Connection::open(&mut gateway, "10.77.1.1:3000", "198.18.0.6:2002");
    web.client_says(
        &mut gateway,
        b"GET /2003/12/a.html HTTP/1.1\r\nHost: a\r\n\r\n",
    );
    let mut call = Connection::open(&mut gateway, "198.18.0.7:4000", CLIENT);
    call.client_says(&mut gateway, &PLAIN_OPENER);
    let mut dial = Connection::open(&mut gateway, "10.77.1.1:3001", PEER);
    let verdict = dial.client_says(&mut gateway, &PLAIN_OPENER);
    assert_eq!(verdict, Verdict::Pass(PassReason::UnconfirmedOpener));
}

#[test]
fn a_file_request_does_not_confirm_what_may_have_been_an_opener() {
    let mut gateway = Gateway::new(EngineConfig::default());
    let mut other = Connection::open(&mut gateway, "10.77.1.1:3000", "198.18.0.6:2002");
    other.client_says(&mut gateway, &PLAIN_OPENER);
    let mut transfer = Connection::open(&mut gateway, "10.77.1.1:3001", PEER);
    transfer.client_says(&mut gateway, HASH_REQUEST);
    assert_eq!(gateway.learned(), [end(PEER)]);
}

#[test]
fn a_flow_that_contradicts_itself_is_never_proven_harmless() {
    let mut gateway = Gateway::new(EngineConfig::default());
    let mut flow = Connection::open(&mut gateway, "10.77.1.2:3000", WEB);
    flow.client_says(&mut gateway, b"POST /one HTTP/1.1\r\n");
    flow.client_repeats(&mut gateway, 10, b"TTP/1.0\r\n");
    let whole = flow.client_says(&mut gateway, b"Host: example.org\r\n\r\n");
    assert_eq!(whole, Verdict::Pass(PassReason::Undecided));
    let body = flow.client_says_cut(&mut gateway, b"body", 2);
    assert_eq!(body[1], Verdict::Tolerate(TolerateReason::Contradictory));
}

#[test]
fn a_request_that_never_ends_is_tolerated_once_it_is_longer_than_any_head() {
    let mut gateway = Gateway::new(EngineConfig::default());
    let mut flow = Connection::open(&mut gateway, "10.77.1.2:3000", WEB);
    let start = b"GET /index.html HTTP/1.1\r\nX-Slow: ";
    let slow = [&start[..], &[b'z'; 4096]].concat();
    let verdicts = flow.client_says_cut(&mut gateway, &slow, 1);
    assert_eq!(verdicts[4095], Verdict::Pass(PassReason::Undecided));
    let unrecognised = Verdict::Tolerate(TolerateReason::Unrecognised);
    assert_eq!(verdicts[4096], unrecognised);
}

#[test]
fn what_lies_behind_a_gap_for_ever_is_tolerated_in_the_end() {
    let mut gateway = Gateway::new(EngineConfig::default());
    let mut flow = Connection::open(&mut gateway, "10.77.1.2:3000", WEB);
    flow.restart(1, 0);
    let verdicts: Vec<_> = (0..4097)
        .map(|_| flow.client_says(&mut gateway, &[b'z'; 1000]))
        .collect();
    assert_eq!(verdicts[4095], Verdict::Pass(PassReason::Undecided));
    let unrecognised = Verdict::Tolerate(TolerateReason::Unrecognised);
    assert_eq!(verdicts[4096], unrecognised);
}

#[test]
fn repetitions_do_not_tire_the_watch_over_a_request_in_one_octet_segments() {
    let mut gateway = Gateway::new(EngineConfig::default());
    let mut dial = Connection::open(&mut gateway, CLIENT, PEER);
    let request = b"GET /1234/song.mp3 HTTP/1.1\r\nHost: 198.18.0.5\r\n\r\n";
    dial.client_says_cut(&mut gateway, request, 1);
    for _ in 0..3 {
        for back in (1..=request.len()).rev() {
            let octet = &request[request.len() - back..][..1];
            assert!(
                !dial
                    .client_repeats(&mut gateway, back as u32, octet)
                    .is_drop()
            );
        }
    }
    let answer = b"HTTP/1.0 503 Busy\r\nX-Kazaa-Username: bob\r\n\r\n";
    let answered = dial.server_says(&mut gateway, answer);
    assert_eq!(answered, Verdict::Drop(DropReason::TransferResponse));
}

#[test]
fn an_ordinary_answer_with_a_very_long_head_arrives_after_a_numbered_request() {
    let mut gateway = Gateway::new(EngineConfig::default());
    let mut flow = Connection::open(&mut gateway, "10.77.1.2:3000", WEB);
    flow.client_says(
        &mut gateway,
        b"GET /2003/a.html HTTP/1.1\r\nHost: a\r\n\r\n",
    );
    let head = format!(
        "HTTP/1.1 200 OK\r\nSet-Cookie: {}\r\n\r\n",
        "c".repeat(6000)
    );
    let pieces = head.as_bytes().chunks(1448).take(3);
    let verdicts: Vec<_> = pieces
        .map(|piece| flow.server_says(&mut gateway, piece))
        .collect();
    assert_eq!(verdicts[2], Verdict::Clear(ClearReason::Http));
    let again = flow.server_repeats(&mut gateway, 3 * 1448, &head.as_bytes()[..1448]);
    assert!(!again.is_drop(), "what was held back");
}

#[test]
fn a_new_connection_between_the_same_ends_is_judged_anew() {
    let mut gateway = Gateway::new(EngineConfig::default());
    let mut flow = Connection::open(&mut gateway, "10.77.1.2:3000", WEB);
    flow.client_says(&mut gateway, WEB_REQUEST);
    flow.server_says(&mut gateway, WEB_ANSWER);
    // Same ends, other sequence numbers.
    let syn = tcp(end("10.77.1.2:3000"), end(WEB), 777, None, 0x02, &[]);
    gateway.send(&syn, None);
    let opener = tcp(
        end("10.77.1.2:3000"),
        end(WEB),
        778,
        Some(1),
        0,
        &CONSTANT_OPENER,
    );
    assert_eq!(
        gateway.send(&opener, None),
        Verdict::Drop(DropReason::ConstantOpener)
    );
}

#[test]
fn malformed_packets_of_a_locked_host_are_dropped_and_others_pass() {
    let mut gateway = Gateway::new(EngineConfig::default());
    let mut broken = udp(end(CLIENT), end(PEER), PING);
    broken[24..26].copy_from_slice(&[0, 5]);
    assert_eq!(
        gateway.send(&broken, None),
        Verdict::Pass(PassReason::Malformed)
    );
    gateway.datagram(CLIENT, PEER, PING);
    assert_eq!(
        gateway.send(&broken, None),
        Verdict::Drop(DropReason::MalformedLocked)
    );
    assert_eq!(gateway.engine.counters().malformed, 2);
}

#[test]
fn equal_packets_and_seeds_give_equal_answers() {
    let run = || {
        let mut gateway = Gateway::new(EngineConfig {
            reply: Reply::Pong2,
            ..EngineConfig::default()
        });
        for port in 2000..2100 {
            gateway.datagram(CLIENT, &format!("198.18.0.5:{port}"), PING);
        }
        gateway.wait(Duration::from_secs(10_000));
        (gateway.actions, gateway.events)
    };
    assert_eq!(run(), run());
}

#[test]
fn a_full_flow_table_makes_room_and_goes_on_judging() {
    let mut config = EngineConfig::default();
    config.capacity.flows = 16;
    let mut gateway = Gateway::new(config);
    for port in 3000..3200 {
        let mut flow = Connection::open(&mut gateway, &format!("10.77.1.2:{port}"), PEER);
        flow.client_says(&mut gateway, &[7; 40]);
    }
    let mut dial = Connection::open(&mut gateway, "10.77.1.1:4000", PEER);
    assert!(dial.client_says(&mut gateway, &CONSTANT_OPENER).is_drop());
}

proptest! {
    #![proptest_config(support::cases())]
    #[test]
    fn any_bytes_at_all_get_a_verdict(
        packets in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..120), 1..20)
    ) {
        let mut gateway = Gateway::new(EngineConfig { judge_all: true, ..EngineConfig::default() });
        for bytes in packets {
            gateway.send(&bytes, None);
        }
    }

    #[test]
    fn any_payload_in_any_order_gets_a_verdict(
        segments in prop::collection::vec(
            (any::<bool>(), 0_u32..40, prop::collection::vec(any::<u8>(), 0..40)), 1..30
        )
    ) {
        let mut gateway = Gateway::new(EngineConfig::default());
        let flow = Connection::open(&mut gateway, "10.77.1.1:3000", PEER);
        for (from_client, back, payload) in segments {
            if from_client {
                flow.client_repeats(&mut gateway, back, &payload);
            } else {
                flow.server_repeats(&mut gateway, back, &payload);
            }
        }
    }

    #[test]
    fn a_transfer_is_stopped_however_its_request_is_cut(
        cuts in prop::collection::vec(1_usize..60, 1..40)
    ) {
        let mut gateway = Gateway::new(EngineConfig::default());
        let mut dial = Connection::open(&mut gateway, "10.77.1.1:3000", PEER);
        let mut rest = HASH_REQUEST;
        for cut in cuts.iter().cycle() {
            let (piece, behind) = rest.split_at((*cut).min(rest.len()));
            prop_assert!(dial.client_says(&mut gateway, piece).is_drop());
            rest = behind;
            if rest.is_empty() {
                break;
            }
        }
        prop_assert!(gateway.is_locked(HOST));
    }

    #[test]
    fn plain_web_is_never_dropped_in_whole_heads(
        path in "/[a-z]{1,20}(\\.[a-z]{1,4})?",
        fields in prop::collection::vec("[A-W][A-Za-z-]{0,15}: [ -~]{0,40}", 0..10),
        body in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        let mut gateway = Gateway::new(EngineConfig::default());
        let mut flow = Connection::open(&mut gateway, "10.77.1.2:3000", WEB);
        let fields = fields.join("\r\n");
        let request = format!("GET {path} HTTP/1.1\r\nHost: a\r\n{fields}\r\n\r\n");
        let head = format!("HTTP/1.1 200 OK\r\nDate: now\r\n{fields}\r\n\r\n");
        prop_assume!(!fields.contains("KazaaClient"));
        prop_assert!(!flow.client_says(&mut gateway, request.as_bytes()).is_drop());
        let answer = [head.as_bytes(), &body].concat();
        prop_assert_eq!(flow.server_says(&mut gateway, &answer), Verdict::Clear(ClearReason::Http));
    }
}

#[test]
fn a_file_request_that_never_gets_past_its_beginning_locks_its_host() {
    let mut gateway = Gateway::new(EngineConfig::default());
    let mut connection = Connection::open(&mut gateway, CLIENT, PEER);
    // A sender with a window of ten segments, an octet each.
    let beginning = b"GET /.hash";
    for verdict in connection.client_says_cut(&mut gateway, beginning, 1) {
        assert_eq!(verdict, Verdict::Drop(DropReason::Withheld));
    }
    assert!(!gateway.is_locked(HOST));
    for _ in 0..3 {
        let repeated = connection.client_repeats(&mut gateway, 10, beginning);
        assert!(repeated.is_drop());
    }
    assert!(gateway.is_locked(HOST));
    assert_eq!(gateway.learned(), [end(PEER)]);
}
