//! Every check can fail: hand-written accounts of runs, doctored one witness and one level at a time.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::time::Duration;

use etherparse::PacketBuilder;
use scenarios::judge::{
    Expectation, Finding, HostTerms, LOCK_GRACE, Run, SLOW_GRACE, Terms, Weight, judge,
};
use scenarios::ledger::Ledger;
use scenarios::level::Level;
use scenarios::observe::{
    Evidence, Frame, Host, HostLine, Observations, Site, UNKNOWN_HOST, Witness,
};
use scenarios::web::WebAccount;
use simulator::report::{AttemptId, AttemptKind, Event, Failure, Line, Mode, Part, RequestId};

// --- leaks: one per witness and level ---

#[test]
fn nothing_seen_is_no_leak() {
    assert_eq!(leaks(&protected(), &Story::default()), []);
}

#[test]
fn a_ping_on_the_outside_wire_alone_is_a_leak() {
    let story = Story::default()
        .attempt(1, AttemptKind::Ping)
        .out_udp(10, b"\x27ping");
    assert_eq!(
        leaks(&protected(), &story),
        [(Level::ProbeOut, Witness::OutsideWire)]
    );
}

#[test]
fn a_ping_that_a_peer_reports_alone_is_a_leak() {
    let story = Story::default().peer_got_datagram(10);
    assert_eq!(
        leaks(&protected(), &story),
        [(Level::ProbeOut, Witness::Peer)]
    );
}

#[test]
fn a_first_fragment_of_a_ping_on_the_outside_wire_is_a_leak() {
    let mut ping = udp(CLIENT, PEER, b"\x27\0\0\0\x29\x80KaZaA\0");
    ping[14 + 6] = 0x20; // more fragments follow
    let story = Story::default().frame_outside(10, ping);
    assert_eq!(
        leaks(&protected(), &story),
        [(Level::ProbeOut, Witness::OutsideWire)]
    );
}

#[test]
fn a_real_pong_on_the_inside_wire_is_a_leak() {
    let story = Story::default()
        .out_udp_in(9, b"\x28pong")
        .in_udp(10, b"\x28pong");
    assert_eq!(
        leaks(&protected(), &story),
        [(Level::ProbeAnswered, Witness::InsideWire)]
    );
}

#[test]
fn a_real_pong_that_the_client_reports_is_a_leak() {
    let story = Story::default()
        .attempt(1, AttemptKind::Ping)
        .peer_sent_datagram(9, "28aa")
        .received_datagram(10, 1, "28aa");
    assert_eq!(
        leaks(&protected(), &story),
        [(Level::ProbeAnswered, Witness::Client)]
    );
}

#[test]
fn a_forged_pong_is_counted_as_forged_and_not_as_an_answer() {
    let story = Story::default()
        .attempt(1, AttemptKind::Ping)
        .in_udp(10, b"\x28forged")
        .received_datagram(10, 1, "28666f72676564");
    assert_eq!(leaks(&protected(), &story), []);
    assert_eq!(story.run().ledger.rows["client1"].forged, 1);
}

#[test]
fn handshakes_beyond_the_dials_in_flight_are_a_leak() {
    let terms = protected_with(HostTerms {
        dials_in_flight: 1,
        ..HostTerms::default()
    });
    let one = Story::default()
        .attempt(1, AttemptKind::Dial)
        .connected(10, 1);
    assert_eq!(leaks(&terms, &one), []);
    let two = one.attempt(2, AttemptKind::Dial).connected(11, 2);
    assert_eq!(leaks(&terms, &two), [(Level::Touched, Witness::Client)]);
}

#[test]
fn a_connection_that_ended_makes_room_for_one_more_handshake() {
    let terms = protected_with(HostTerms {
        dials_in_flight: 1,
        ..HostTerms::default()
    });
    let story = Story::default()
        .attempt(1, AttemptKind::Dial)
        .connected(10, 1)
        .failed(11, 1, Failure::Closed)
        .attempt(2, AttemptKind::Dial)
        .connected(12, 2);
    assert_eq!(leaks(&terms, &story), []);
    let one_more = story.attempt(3, AttemptKind::Dial).connected(13, 3);
    assert_eq!(
        leaks(&terms, &one_more),
        [(Level::Touched, Witness::Client)]
    );
}

#[test]
fn a_handshake_on_the_inside_wire_or_at_the_peer_counts_too() {
    let inside = Story::default().in_tcp(10, 2000, "SA", 0, b"");
    assert_eq!(
        leaks(&protected(), &inside),
        [(Level::Touched, Witness::InsideWire)]
    );
    let outside = Story::default().out_tcp(10, 2000, "A", 1, b"");
    assert_eq!(
        leaks(&protected(), &outside),
        [(Level::Touched, Witness::OutsideWire)]
    );
    let peer = Story::default().peer_connected(10);
    assert_eq!(
        leaks(&protected(), &peer),
        [(Level::Touched, Witness::Peer)]
    );
}

#[test]
fn a_handshake_after_the_host_must_be_known_is_a_leak_however_many_dials_are_allowed() {
    let terms = protected_with(HostTerms {
        dials_in_flight: 5,
        ..HostTerms::default()
    });
    let pinged = Story::default()
        .attempt(1, AttemptKind::Ping)
        .sent(0, 1, Part::Ping);
    let grace = u64::try_from(LOCK_GRACE.as_micros()).unwrap();
    let early = pinged
        .clone()
        .attempt(2, AttemptKind::Dial)
        .connected(grace, 2);
    assert_eq!(leaks(&terms, &early), []);
    let late = pinged.attempt(2, AttemptKind::Dial).connected(grace + 1, 2);
    assert_eq!(leaks(&terms, &late), [(Level::Touched, Witness::Client)]);
}

#[test]
fn an_opener_gives_a_host_away_once_the_wire_to_the_gateway_has_carried_it() {
    let terms = protected_with(HostTerms {
        dials_in_flight: 5,
        ..HostTerms::default()
    });
    // Two openers are written at once; of the second, half gets as far as the gateway, and later all.
    let peers = [SocketAddrV4::new(Ipv4Addr::new(198, 18, 0, 8), 2000), PEER];
    let half = (1..)
        .zip(peers)
        .fold(Story::default(), |story, (id, peer)| {
            let from = SocketAddrV4::new(*CLIENT.ip(), CLIENT.port() + id - 1);
            let sent = if peer == PEER {
                &[0x80; 6][..]
            } else {
                &[0x80; 12]
            };
            story
                .attempt_at(id, AttemptKind::Dial, peer)
                .frame_inside(8, tcp(from, peer, "S", 99, b""))
                .sent(9, u64::from(id), Part::Opener)
                .frame_inside(10, tcp(from, peer, "A", 100, sent))
        });
    let touched = half
        .clone()
        .attempt(3, AttemptKind::Dial)
        .connected(LATE, 3);
    assert_eq!(leaks(&terms, &touched), []);
    let from = SocketAddrV4::new(*CLIENT.ip(), CLIENT.port() + 1);
    let whole = touched.frame_inside(11, tcp(from, PEER, "A", 106, &[0x80; 6]));
    assert_eq!(leaks(&terms, &whole), [(Level::Touched, Witness::Client)]);
}

#[test]
fn a_second_opener_gives_a_host_away_unless_the_device_began_anew_after_the_first() {
    let terms = protected_with(HostTerms {
        dials_in_flight: 5,
        ..HostTerms::default()
    });
    let openers = [
        (
            9,
            SocketAddrV4::new(Ipv4Addr::new(198, 18, 0, 8), 2000),
            1_u16,
        ),
        (3_000_000, PEER, 2),
    ];
    let mut story = openers
        .into_iter()
        .fold(Story::default(), |story, (at_us, peer, id)| {
            let from = SocketAddrV4::new(*CLIENT.ip(), CLIENT.port() + id - 1);
            story
                .attempt_at(id, AttemptKind::Dial, peer)
                .frame_inside(at_us, tcp(from, peer, "S", 99, b""))
                .sent(at_us, u64::from(id), Part::Opener)
                .frame_inside(at_us, tcp(from, peer, "A", 100, &[0x80; 12]))
        })
        .attempt(3, AttemptKind::Dial)
        .connected(LATE, 3);
    assert_eq!(leaks(&terms, &story), [(Level::Touched, Witness::Client)]);
    story.evidence.blind_us = vec![(2_000_000, 2_000_001)];
    assert_eq!(leaks(&terms, &story), []);
}

#[test]
fn on_a_line_that_loses_packets_an_answer_gives_a_host_away_when_it_was_sent_three_times() {
    let terms = protected_with(HostTerms {
        opens_unannounced: true,
        dials_in_flight: 5,
        ..HostTerms::default()
    });
    let answer = tcp(PEER, CLIENT, "A", 500, &[0x55; 14]);
    let once = Story::default()
        .dial()
        .opener_out()
        .frame_outside(9, tcp(PEER, CLIENT, "SA", 499, b""))
        .frame_outside(11, answer.clone())
        .attempt(2, AttemptKind::Dial)
        .connected(LATE, 2);
    assert_eq!(leaks(&terms, &once), [(Level::Touched, Witness::Client)]);
    let lost = Story {
        line_loses: true,
        ..once
    };
    assert_eq!(leaks(&terms, &lost), []);
    let thrice = lost
        .frame_outside(12, answer.clone())
        .frame_outside(13, answer);
    assert_eq!(leaks(&terms, &thrice), [(Level::Touched, Witness::Client)]);
}

#[test]
fn what_was_up_when_the_device_died_is_forgiven_to_hosts_that_nobody_knew() {
    let answered = Story::default()
        .dial()
        .frame_inside(9, tcp(PEER, CLIENT, "SA", 499, b""))
        .frame_outside(9, tcp(PEER, CLIENT, "SA", 499, b""))
        .opener_out()
        .frame_outside(20, tcp(PEER, CLIENT, "A", 500, &[0x55; 14]))
        .in_tcp(20, 2000, "A", 500, &[0x55; 14]);
    let unannounced = protected_with(HostTerms {
        opens_unannounced: true,
        ..some_dials_terms()
    });
    let session = [(Level::Session, Witness::InsideWire)];
    assert_eq!(leaks(&unannounced, &answered), session);
    let without_device = |from_us, until_us| {
        let mut story = answered.clone();
        story.evidence.blind_us = vec![(from_us, until_us)];
        story
    };
    assert_eq!(leaks(&unannounced, &without_device(15, 16)), []);
    let before = leaks(&unannounced, &without_device(25, 26));
    assert_eq!(before, session, "an answer that came before");
    let known = without_device(2_000_015, 2_000_016)
        .attempt(2, AttemptKind::Ping)
        .sent(0, 2, Part::Ping)
        .in_tcp(2_000_020, 2000, "A", 500, &[0x55; 14]);
    assert!(leaks(&unannounced, &known).contains(&session[0]));
}

#[test]
fn a_late_handshake_on_a_web_port_is_no_leak_but_a_byte_over_it_is() {
    let pinged = Story::default()
        .attempt(1, AttemptKind::Ping)
        .sent(0, 1, Part::Ping);
    let touched = pinged
        .out_tcp(LATE, 80, "S", 99, b"")
        .out_tcp(LATE, 80, "A", 100, b"");
    assert_eq!(leaks(&protected(), &touched), []);
    let opened = touched.out_tcp(LATE + 1, 80, "A", 100, b"\x80\x81\x82");
    assert_eq!(
        leaks(&protected(), &opened),
        [(Level::Opened, Witness::OutsideWire)]
    );
}

#[test]
fn an_opener_that_arrives_is_a_leak_unless_nothing_announced_it() {
    let opened = Story::default().dial().opener_out();
    assert_eq!(
        leaks(&some_dials(), &opened),
        [(Level::Opened, Witness::OutsideWire)]
    );
    let unannounced = HostTerms {
        opens_unannounced: true,
        ..some_dials_terms()
    };
    assert_eq!(leaks(&protected_with(unannounced), &opened), []);
}

#[test]
fn openers_beyond_the_dials_in_flight_are_a_leak_even_unannounced() {
    let terms = HostTerms {
        opens_unannounced: true,
        dials_in_flight: 1,
        ..HostTerms::default()
    };
    let story = Story::default()
        .peer_received(10, Part::Opener)
        .peer_received_from(11, CLIENT.port() + 1, Part::Opener);
    let found = leaks(&protected_with(terms.clone()), &story);
    assert_eq!(found, [(Level::Opened, Witness::Peer)]);
    let forgotten_once = HostTerms {
        restarts: 1,
        ..terms
    };
    assert_eq!(leaks(&protected_with(forgotten_once), &story), []);
}

#[test]
fn one_byte_of_the_answer_on_the_inside_wire_is_a_session() {
    let story = Story::default()
        .dial()
        .opener_out()
        .in_tcp(12, 2000, "A", 500, b"\x07");
    let found = leaks(&unannounced(), &story);
    assert_eq!(found, [(Level::Session, Witness::InsideWire)]);
}

#[test]
fn an_answer_that_the_client_reports_alone_is_a_session() {
    let story = Story::default()
        .attempt(1, AttemptKind::Dial)
        .received(12, 1, Part::Answer);
    assert_eq!(
        leaks(&unannounced(), &story),
        [(Level::Session, Witness::Client)]
    );
}

#[test]
fn more_than_an_opener_on_the_outside_wire_is_a_session() {
    let story = Story::default()
        .dial()
        .opener_out()
        .out_tcp(13, 2000, "A", 112, b"name\0\0");
    assert_eq!(
        leaks(&unannounced(), &story),
        [(Level::Session, Witness::OutsideWire)]
    );
}

#[test]
fn session_bytes_that_a_peer_reports_are_a_session() {
    let story = Story::default().peer_received(12, Part::Session);
    assert_eq!(
        leaks(&unannounced(), &story),
        [(Level::Session, Witness::Peer)]
    );
}

#[test]
fn the_first_byte_of_a_request_on_the_outside_wire_is_a_transfer() {
    let story = Story::default().syn().out_tcp(10, 2000, "A", 100, b"G");
    assert_eq!(
        leaks(&unannounced(), &story),
        [(Level::Transfer, Witness::OutsideWire)]
    );
}

#[test]
fn an_opener_that_happens_to_begin_with_g_is_no_transfer() {
    let story = Story::default().dial().out_tcp(10, 2000, "A", 100, b"G");
    assert_eq!(leaks(&unannounced(), &story), []);
}

#[test]
fn a_give_in_one_byte_segments_is_a_transfer_in_whatever_order_they_come() {
    let story = Story::default()
        .syn()
        .out_tcp(10, 2000, "A", 103, b"E")
        .out_tcp(11, 2000, "A", 102, b"V")
        .out_tcp(12, 2000, "A", 100, b"G")
        .out_tcp(13, 2000, "A", 101, b"I");
    assert_eq!(
        leaks(&unannounced(), &story),
        [(Level::Transfer, Witness::OutsideWire)]
    );
}

#[test]
fn a_response_head_on_the_inside_wire_is_a_transfer() {
    let story = Story::default()
        .syn()
        .in_tcp(12, 2000, "A", 500, b"HTTP/1.1 206 Partial Content");
    assert_eq!(
        leaks(&unannounced(), &story),
        [(Level::Transfer, Witness::InsideWire)]
    );
}

#[test]
fn a_request_that_a_peer_reports_is_a_transfer() {
    let story = Story::default().peer_received(12, Part::Request);
    assert_eq!(
        leaks(&unannounced(), &story),
        [(Level::Transfer, Witness::Peer)]
    );
}

#[test]
fn a_file_that_the_client_reports_is_a_transfer() {
    let story = Story::default()
        .attempt(1, AttemptKind::Download)
        .received(12, 1, Part::File);
    assert_eq!(
        leaks(&unannounced(), &story),
        [(Level::Transfer, Witness::Client)]
    );
}

#[test]
fn an_inside_host_that_is_called_and_opened_counts_as_opened() {
    let story = Story::default().in_tcp(10, 2000, "S", 99, b"").in_tcp(
        11,
        2000,
        "A",
        100,
        b"\x80\x81\x82\x83",
    );
    assert_eq!(
        leaks(&some_dials(), &story),
        [(Level::Opened, Witness::InsideWire)]
    );
}

#[test]
fn a_leak_of_nobody_known_is_still_a_leak() {
    let stranger = SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, 2), 4242);
    let story = Story::default().frame_outside(10, tcp(stranger, PEER, "A", 1, b"\x01"));
    let findings = judge(&unannounced(), &Run::default(), &story.run());
    let hosts: Vec<_> = findings
        .iter()
        .filter_map(|finding| match finding {
            Finding::Leak { sighting, .. } => Some(sighting.host.as_str()),
            _ => None,
        })
        .collect();
    assert_eq!(hosts, [UNKNOWN_HOST, UNKNOWN_HOST], "touched and opened");
}

#[test]
fn connections_that_ended_make_no_room_for_those_of_nobody_known() {
    let stranger = SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, 2), 4242);
    let story = Story::default().frame_outside(10, tcp(stranger, PEER, "A", 1, b""));
    let mut run = story.run();
    let row = run.ledger.rows.get_mut(UNKNOWN_HOST).expect("it was seen");
    row.ended = 5;
    let findings = judge(&unannounced(), &Run::default(), &run);
    assert!(weights(&findings).contains(&Weight::Leak), "{findings:?}");
}

#[test]
fn behind_nat_the_outside_wire_is_joined_by_port() {
    let masqueraded = SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, 2), CLIENT.port());
    let story = Story::default()
        .attempt(1, AttemptKind::Ping)
        .frame_outside(10, udp(masqueraded, PEER, b"\x27ping"));
    let run = story.run();
    assert_eq!(run.ledger.rows["client1"].highest(), Some(Level::ProbeOut));
    assert!(!run.ledger.rows.contains_key(UNKNOWN_HOST));
}

#[test]
fn of_several_sightings_the_earliest_is_reported() {
    let story = Story::default()
        .peer_got_datagram(20)
        .out_udp(10, b"\x27ping");
    assert_eq!(
        leaks(&protected(), &story),
        [(Level::ProbeOut, Witness::OutsideWire)]
    );
}

// --- what makes a scenario void ---

#[test]
fn a_level_missing_from_the_positive_control_is_void() {
    let must_reach = BTreeSet::from([Level::ProbeOut, Level::ProbeAnswered]);
    let terms = protected_with(HostTerms {
        must_reach,
        ..HostTerms::default()
    });
    let off = Story::default()
        .peer_got_datagram(1)
        .out_udp(1, b"\x27")
        .run();
    let findings = judge(&terms, &off, &Run::default());
    assert_eq!(
        findings,
        [Finding::ControlMissed {
            host: "client1".into(),
            level: Level::ProbeAnswered
        }]
    );
}

#[test]
fn a_client_that_does_not_even_try_is_void() {
    let terms = protected_with(HostTerms {
        must_try: BTreeSet::from([AttemptKind::Ping]),
        must_enter: BTreeSet::from([Mode::Port80]),
        ..HostTerms::default()
    });
    let findings = judge(&terms, &Run::default(), &Story::default().run());
    assert_eq!(weights(&findings), [Weight::Void, Weight::Void]);
    let tried = Story::default()
        .attempt(1, AttemptKind::Ping)
        .mode(Mode::Port80)
        .run();
    assert_eq!(judge(&terms, &Run::default(), &tried), []);
}

#[test]
fn a_client_that_was_not_answered_must_have_tried_everything() {
    let terms = protected_with(HostTerms {
        must_enter: BTreeSet::from([Mode::Port80]),
        ..HostTerms::default()
    });
    let pinged = Story::default().attempt(1, AttemptKind::Ping).run();
    let findings = judge(&terms, &Run::default(), &pinged);
    let expected = Finding::NotTried {
        host: "client1".into(),
        what: "Port80".into(),
    };
    assert_eq!(findings, [expected]);
}

#[test]
fn a_client_that_was_answered_need_not_have_tried_anything_else() {
    let terms = protected_with(HostTerms {
        must_enter: BTreeSet::from([Mode::Port80]),
        ..HostTerms::default()
    });
    let story = Story::default()
        .attempt(1, AttemptKind::Dial)
        .received(12, 1, Part::Answer);
    let findings = judge(&terms, &Run::default(), &story.run());
    let untried = |finding: &Finding| matches!(finding, Finding::NotTried { .. });
    assert!(!findings.iter().any(untried), "{findings:?}");
}

#[test]
fn a_datagram_that_only_the_client_saw_is_void() {
    let story = Story::default()
        .attempt(1, AttemptKind::Ping)
        .peer_sent_datagram(9, "28aa")
        .received_datagram(10, 1, "28aa");
    assert_disagreement(&story, "inside wire never carried");
}

#[test]
fn bytes_that_only_the_peer_saw_are_void() {
    assert_disagreement(
        &Story::default().peer_received(10, Part::Session),
        "outside wire never",
    );
}

#[test]
fn bytes_on_the_outside_wire_that_a_listening_peer_missed_are_void_until_the_run_closes() {
    let story = Story::default().out_udp(10, b"\x27ping");
    assert_disagreement(&story, "says it got nothing");
    let closing = Story::default().out_udp(END - 1, b"\x27ping");
    assert_eq!(closing.run().ledger.disagreements, []);
}

#[test]
fn a_recording_with_gaps_contradicts_nobody() {
    let mut story = Story::default().peer_received(10, Part::Session);
    story.evidence.lost_frames = 1;
    assert_eq!(story.run().ledger.disagreements, []);
}

#[test]
fn witnesses_that_agree_are_left_alone() {
    let story = Story::default()
        .attempt(1, AttemptKind::Ping)
        .out_udp(10, b"\x27ping")
        .peer_got_datagram(11)
        .peer_sent_datagram(12, "28aa")
        .out_udp_in(12, b"\x28\xaa")
        .in_udp(13, b"\x28\xaa")
        .received_datagram(14, 1, "28aa");
    assert_eq!(story.run().ledger.disagreements, []);
}

#[test]
fn a_run_that_went_wrong_is_void() {
    let on = Run {
        mishaps: vec!["ftwall left a rule behind".into()],
        ..Run::default()
    };
    let findings = judge(&protected(), &Run::default(), &on);
    assert_eq!(weights(&findings), [Weight::Void]);
}

#[test]
fn a_counter_example_that_protects_is_void() {
    let terms = Terms {
        expectation: Expectation::Breached(Level::Session),
        ..protected()
    };
    let findings = judge(&terms, &Run::default(), &Run::default());
    assert_eq!(
        findings,
        [Finding::NotBreached {
            level: Level::Session
        }]
    );
    assert_eq!(weights(&findings), [Weight::Void]);
}

#[test]
fn a_counter_example_that_is_breached_is_as_it_should_be() {
    let terms = Terms {
        expectation: Expectation::Breached(Level::Session),
        ..protected()
    };
    let story = Story::default().peer_received(10, Part::Session).out_tcp(
        9,
        2000,
        "A",
        100,
        b"\x80\x81\x82\x83",
    );
    assert_eq!(judge(&terms, &Run::default(), &story.run()), []);
}

// --- the web ---

#[test]
fn a_request_that_fails_with_the_device_on_hurts_the_web() {
    let off = web([(1, true, 10)]);
    let on = web([(1, false, 10)]);
    assert_eq!(weights(&judge(&browsing(), &off, &on)), [Weight::Web]);
}

#[test]
fn a_request_that_costs_a_lost_syn_is_slow_and_one_within_the_grace_is_not() {
    let off = web([(1, true, 10_000), (2, true, 12_000)]);
    let lost_syn = web([(1, true, 10_000), (2, true, 1_012_000)]);
    let findings = judge(&browsing(), &off, &lost_syn);
    let limit = Duration::from_millis(24) + SLOW_GRACE;
    assert!(matches!(findings[..], [Finding::WebSlow { limit: found, .. }] if found == limit));
    let late = web([(
        1,
        true,
        24_000 + u64::try_from(SLOW_GRACE.as_micros()).unwrap(),
    )]);
    assert_eq!(judge(&browsing(), &off, &late), []);
}

#[test]
fn a_request_left_open_for_long_counts_as_failed() {
    let off = web([(1, true, 10_000)]);
    let on = Run {
        web: WebAccount::read(&[asked(0, 1), done(2_000_000)]),
        ..Run::default()
    };
    assert!(matches!(
        judge(&browsing(), &off, &on)[..],
        [Finding::WebFailed(_)]
    ));
}

#[test]
fn a_request_that_had_only_begun_when_the_client_was_stopped_says_nothing() {
    let off = web([(1, true, 10_000)]);
    let on = Run {
        web: WebAccount::read(&[asked(0, 1), done(15_000)]),
        ..Run::default()
    };
    assert_eq!(judge(&browsing(), &off, &on), []);
}

#[test]
fn a_web_that_fails_even_without_a_device_is_void() {
    let off = web([(1, false, 10)]);
    let on = web([(1, true, 10)]);
    assert_eq!(weights(&judge(&browsing(), &off, &on)), [Weight::Void]);
}

#[test]
fn a_silent_control_group_is_void_in_either_run() {
    let spoken = web([(1, true, 10)]);
    assert_eq!(
        weights(&judge(&browsing(), &Run::default(), &spoken)),
        [Weight::Void]
    );
    assert_eq!(
        weights(&judge(&browsing(), &spoken, &Run::default())),
        [Weight::Void]
    );
}

// --- helpers: terms ---

const CLIENT: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(10, 77, 1, 1), 40_000);
const PEER: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(198, 18, 0, 7), 2000);

/// When the peers of every story are told to stop.
const END: u64 = 60_000_000;

/// Long after a host that showed itself at the start must be known.
const LATE: u64 = 30_000_000;

fn protected_with(terms: HostTerms) -> Terms {
    Terms {
        hosts: BTreeMap::from([("client1".to_owned(), terms)]),
        expectation: Expectation::Protected,
        slow_grace: SLOW_GRACE,
    }
}

fn protected() -> Terms {
    protected_with(HostTerms::default())
}

fn some_dials_terms() -> HostTerms {
    HostTerms {
        dials_in_flight: 5,
        ..HostTerms::default()
    }
}

fn some_dials() -> Terms {
    protected_with(some_dials_terms())
}

fn unannounced() -> Terms {
    protected_with(HostTerms {
        opens_unannounced: true,
        ..some_dials_terms()
    })
}

fn browsing() -> Terms {
    protected_with(HostTerms {
        browses: true,
        ..HostTerms::default()
    })
}

// --- helpers: findings ---

fn leaks(terms: &Terms, story: &Story) -> Vec<(Level, Witness)> {
    judge(terms, &Run::default(), &story.run())
        .into_iter()
        .filter_map(|finding| match finding {
            Finding::Leak { sighting, .. } => Some((sighting.level, sighting.witness)),
            _ => None,
        })
        .collect()
}

fn weights(findings: &[Finding]) -> Vec<Weight> {
    findings.iter().map(Finding::weight).collect()
}

fn disagreements(story: &Story) -> Vec<Finding> {
    story
        .run()
        .ledger
        .disagreements
        .into_iter()
        .map(Finding::WitnessesDisagree)
        .collect()
}

fn assert_disagreement(story: &Story, wanted: &str) {
    let findings = disagreements(story);
    let sentences: Vec<_> = findings.iter().map(ToString::to_string).collect();
    assert!(
        sentences.iter().any(|sentence| sentence.contains(wanted)),
        "nobody said `{wanted}`: {sentences:?}"
    );
    assert!(
        findings
            .iter()
            .all(|finding| finding.weight() == Weight::Void)
    );
}

// --- helpers: accounts of runs ---

/// The accounts of one run, written line by line and frame by frame.
#[derive(Debug, Clone, Default)]
struct Story {
    evidence: Evidence,
    line_loses: bool,
}

impl Story {
    fn run(&self) -> Run {
        let site = Site {
            peers: "198.18.0.0/15".parse().expect("it is a network"),
            listening: BTreeSet::from([PEER]),
            hosts: vec![Host {
                name: "client1".into(),
                address: *CLIENT.ip(),
            }],
            line_loses: self.line_loses,
        };
        let evidence = Evidence {
            ended_us: END,
            ..self.evidence.clone()
        };
        let ledger = Ledger::new(&Observations::join(&site, &evidence));
        Run {
            ledger,
            ..Run::default()
        }
    }

    fn client(mut self, t_us: u64, event: Event) -> Self {
        self.evidence.clients.push(host_line(t_us, event));
        self
    }

    fn peer(mut self, t_us: u64, event: Event) -> Self {
        self.evidence.peers.push(Line {
            t_us,
            who: "peers".into(),
            event,
        });
        self
    }

    fn frame_outside(mut self, at_us: u64, bytes: Vec<u8>) -> Self {
        self.evidence.outside.push(Frame { at_us, bytes });
        self
    }

    fn frame_inside(mut self, at_us: u64, bytes: Vec<u8>) -> Self {
        self.evidence.inside.push(Frame { at_us, bytes });
        self
    }

    /// Attempt `id` comes from its own port, one up from the last.
    fn attempt(self, id: u16, kind: AttemptKind) -> Self {
        self.attempt_at(id, kind, PEER)
    }

    fn attempt_at(self, id: u16, kind: AttemptKind, peer: SocketAddrV4) -> Self {
        let local = SocketAddr::from((*CLIENT.ip(), CLIENT.port() + id - 1));
        let id = AttemptId(u64::from(id));
        self.client(
            0,
            Event::Attempt {
                id,
                kind,
                local,
                peer: peer.into(),
            },
        )
    }

    fn connected(self, t_us: u64, id: u64) -> Self {
        self.client(t_us, Event::Connected { id: AttemptId(id) })
    }

    fn failed(self, t_us: u64, id: u64, why: Failure) -> Self {
        self.client(
            t_us,
            Event::Failed {
                id: AttemptId(id),
                why,
            },
        )
    }

    fn sent(self, t_us: u64, id: u64, part: Part) -> Self {
        self.client(
            t_us,
            Event::Sent {
                id: AttemptId(id),
                part,
                bytes: 12,
            },
        )
    }

    fn received(self, t_us: u64, id: u64, part: Part) -> Self {
        self.client(
            t_us,
            Event::Received {
                id: AttemptId(id),
                part,
                bytes: 8,
                hex: None,
            },
        )
    }

    fn received_datagram(self, t_us: u64, id: u64, hex: &str) -> Self {
        let hex = Some(hex.to_owned());
        self.client(
            t_us,
            Event::Received {
                id: AttemptId(id),
                part: Part::Pong,
                bytes: 2,
                hex,
            },
        )
    }

    fn mode(self, to: Mode) -> Self {
        self.client(
            1,
            Event::ModeChanged {
                from: Mode::UdpFlood,
                to,
            },
        )
    }

    fn peer_got_datagram(self, t_us: u64) -> Self {
        let (local, remote) = (PEER.into(), CLIENT.into());
        self.peer(
            t_us,
            Event::PeerGotDatagram {
                local,
                remote,
                part: Part::Ping,
                bytes: 12,
            },
        )
    }

    fn peer_sent_datagram(self, t_us: u64, hex: &str) -> Self {
        let (local, remote, hex) = (PEER.into(), CLIENT.into(), hex.to_owned());
        self.peer(
            t_us,
            Event::PeerSentDatagram {
                local,
                remote,
                part: Part::Pong,
                hex,
            },
        )
    }

    fn peer_connected(self, t_us: u64) -> Self {
        self.peer(
            t_us,
            Event::PeerConnected {
                local: PEER.into(),
                remote: CLIENT.into(),
            },
        )
    }

    fn peer_received(self, t_us: u64, part: Part) -> Self {
        self.peer_received_from(t_us, CLIENT.port(), part)
    }

    fn peer_received_from(self, t_us: u64, port: u16, part: Part) -> Self {
        let remote = SocketAddr::from((*CLIENT.ip(), port));
        self.peer(
            t_us,
            Event::PeerReceived {
                local: PEER.into(),
                remote,
                part,
                bytes: 12,
            },
        )
    }

    fn out_udp(self, at_us: u64, payload: &[u8]) -> Self {
        self.frame_outside(at_us, udp(CLIENT, PEER, payload))
    }

    fn out_udp_in(self, at_us: u64, payload: &[u8]) -> Self {
        self.frame_outside(at_us, udp(PEER, CLIENT, payload))
    }

    fn in_udp(self, at_us: u64, payload: &[u8]) -> Self {
        self.frame_inside(at_us, udp(PEER, CLIENT, payload))
    }

    fn out_tcp(self, at_us: u64, port: u16, flags: &str, sequence: u32, payload: &[u8]) -> Self {
        let peer = SocketAddrV4::new(*PEER.ip(), port);
        self.frame_outside(at_us, tcp(CLIENT, peer, flags, sequence, payload))
    }

    fn in_tcp(self, at_us: u64, port: u16, flags: &str, sequence: u32, payload: &[u8]) -> Self {
        let peer = SocketAddrV4::new(*PEER.ip(), port);
        self.frame_inside(at_us, tcp(peer, CLIENT, flags, sequence, payload))
    }

    /// A connection attempt of unknown purpose, seen on both wires.
    fn syn(mut self) -> Self {
        self = self.out_tcp(8, 2000, "S", 99, b"");
        self.frame_inside(8, tcp(CLIENT, PEER, "S", 99, b""))
    }

    fn dial(self) -> Self {
        self.attempt(1, AttemptKind::Dial).syn()
    }

    fn opener_out(self) -> Self {
        self.out_tcp(10, 2000, "A", 100, &[0x80; 12])
    }
}

fn host_line(t_us: u64, event: Event) -> HostLine {
    HostLine {
        host: "client1".into(),
        line: Line {
            t_us,
            who: "client1".into(),
            event,
        },
    }
}

fn udp(from: SocketAddrV4, to: SocketAddrV4, payload: &[u8]) -> Vec<u8> {
    let packet = PacketBuilder::ethernet2([2; 6], [4; 6])
        .ipv4(from.ip().octets(), to.ip().octets(), 64)
        .udp(from.port(), to.port());
    let mut bytes = Vec::new();
    packet
        .write(&mut bytes, payload)
        .expect("memory takes everything");
    bytes
}

fn tcp(
    from: SocketAddrV4,
    to: SocketAddrV4,
    flags: &str,
    sequence: u32,
    payload: &[u8],
) -> Vec<u8> {
    let mut packet = PacketBuilder::ethernet2([2; 6], [4; 6])
        .ipv4(from.ip().octets(), to.ip().octets(), 64)
        .tcp(from.port(), to.port(), sequence, 65_000);
    if flags.contains('S') {
        packet = packet.syn();
    }
    if flags.contains('A') {
        packet = packet.ack(1);
    }
    let mut bytes = Vec::new();
    packet
        .write(&mut bytes, payload)
        .expect("memory takes everything");
    bytes
}

// --- helpers: the control group ---

/// A run of control-group requests: number, success, microseconds.
fn web<const N: usize>(requests: [(u64, bool, u64); N]) -> Run {
    let lines: Vec<_> = requests
        .into_iter()
        .flat_map(|(id, ok, micros)| [asked(0, id), answered(id, ok, micros)])
        .collect();
    Run {
        web: WebAccount::read(&lines),
        ..Run::default()
    }
}

fn asked(t_us: u64, id: u64) -> HostLine {
    let server = SocketAddr::from(([203, 0, 113, 80], 80));
    host_line(
        t_us,
        Event::WebRequest {
            id: RequestId(id),
            kind: "http1".into(),
            server,
        },
    )
}

fn answered(id: u64, ok: bool, micros: u64) -> HostLine {
    let error = (!ok).then(|| "reset".to_owned());
    let (id, kind) = (RequestId(id), "http1".to_owned());
    host_line(
        micros,
        Event::WebResult {
            id,
            kind,
            ok,
            micros,
            bytes: 100,
            error,
        },
    )
}

fn done(t_us: u64) -> HostLine {
    host_line(
        t_us,
        Event::Done {
            reason: "signal".into(),
        },
    )
}
