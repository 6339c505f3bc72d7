//! Timelines read out of hand-written records: three voices, each heard for what it can know.

use std::collections::BTreeSet;
use std::net::SocketAddrV4;
use std::time::Duration;

use scenarios::level::Level;
use scenarios::observe::{Evidence, Host, HostLine, Site, Witness};
use scenarios::record::Record;
use scenarios::timeline::{Moment, Timeline, What};
use scenarios::web::End;
use simulator::report::{AttemptId, AttemptKind, Event, Failure, Line, Mode, Part, RequestId};

const BEGAN_US: u64 = 1_000_000_000;

#[test]
fn times_are_counted_from_when_the_hosts_were_let_loose() {
    let timeline = read([(1_500, attempt(1, AttemptKind::Ping))], [], "");
    assert_eq!(timeline.length, Duration::from_secs(6));
    let what = What::Attempt {
        kind: AttemptKind::Ping,
        peer: peer(),
    };
    let at = Duration::from_micros(1_500);
    assert_eq!(timeline.hosts["client1"], [Moment { at, what }]);
}

#[test]
fn a_reply_that_the_peer_sent_is_a_contact_and_any_other_is_forged() {
    let ping = || {
        [
            (10, attempt(1, AttemptKind::Ping)),
            (30, received(1, "28aa")),
        ]
    };
    let sent = Event::PeerSentDatagram {
        local: peer().into(),
        remote: client().into(),
        part: Part::Pong,
        hex: "28aa".to_owned(),
    };
    let genuine = whats(&read(ping(), [(20, sent)], ""));
    let answered = What::Reached {
        kind: Some(AttemptKind::Ping),
        level: Level::ProbeAnswered,
        peer: peer(),
        witness: Witness::Client,
    };
    assert!(genuine.contains(&answered), "{genuine:?}");
    let forged = whats(&read(ping(), [], ""));
    assert_eq!(forged[1..], [What::Forged { peer: peer() }]);
}

#[test]
fn a_level_is_told_once_by_whoever_saw_it_first() {
    let arrived = || Event::PeerConnected {
        local: peer().into(),
        remote: client().into(),
    };
    let dial = [
        (10, attempt(1, AttemptKind::Dial)),
        (40, Event::Connected { id: AttemptId(1) }),
    ];
    let timeline = read(dial, [(30, arrived()), (35, arrived())], "");
    let reached: Vec<_> = whats(&timeline)
        .into_iter()
        .filter(|what| matches!(what, What::Reached { .. }))
        .collect();
    let first = What::Reached {
        kind: Some(AttemptKind::Dial),
        level: Level::Touched,
        peer: peer(),
        witness: Witness::Peer,
    };
    assert_eq!(reached, [first]);
}

#[test]
fn of_what_an_attempt_sends_only_the_first_bytes_are_told() {
    let sent = |part| Event::Sent {
        id: AttemptId(1),
        part,
        bytes: 12,
    };
    let dial = [
        (10, attempt(1, AttemptKind::Dial)),
        (20, sent(Part::Opener)),
        (30, sent(Part::Session)),
        (
            40,
            Event::Failed {
                id: AttemptId(1),
                why: Failure::Timeout,
            },
        ),
        (
            50,
            Event::ModeChanged {
                from: Mode::UdpFlood,
                to: Mode::ParallelTcp,
            },
        ),
    ];
    let (kind, peer) = (AttemptKind::Dial, peer());
    assert_eq!(
        whats(&read(dial, [], "")),
        [
            What::Attempt { kind, peer },
            What::Sent {
                kind,
                part: Part::Opener,
                peer
            },
            What::Failed {
                kind,
                peer,
                why: Failure::Timeout
            },
            What::Mode {
                from: Mode::UdpFlood,
                to: Mode::ParallelTcp
            },
        ]
    );
}

#[test]
fn a_request_is_told_once_when_it_began_with_how_it_ended() {
    let asked = Event::WebRequest {
        id: RequestId(1),
        kind: "http1".to_owned(),
        server: "203.0.113.80:80".parse().unwrap(),
    };
    let ended = Event::WebResult {
        id: RequestId(1),
        kind: "http1".to_owned(),
        ok: true,
        micros: 700,
        bytes: 10,
        error: None,
    };
    let timeline = read([(100, asked), (800, ended)], [], "");
    let end = End::Ok(Duration::from_micros(700));
    assert_eq!(
        whats(&timeline),
        [What::Web {
            kind: "http1".to_owned(),
            end
        }]
    );
    assert_eq!(timeline.hosts["client1"][0].at, Duration::from_micros(100));
}

#[test]
fn the_device_is_heard_about_hosts_by_their_addresses() {
    let log = concat!(
        r#"{"timestamp":"1970-01-01T00:16:40.002000Z","event_type":"client.locked","#,
        r#""ftwall":{"client":"10.77.1.1","evidence":"udp_ping"}}"#,
    );
    let timeline = read([], [], log);
    let evidence = Some("udp_ping".to_owned());
    assert_eq!(whats(&timeline), [What::Locked { evidence }]);
    assert_eq!(timeline.hosts["client1"][0].at, Duration::from_millis(2));
}

#[test]
fn a_timeline_survives_the_way_out_of_a_capsule() {
    let timeline = read(
        [(10, attempt(1, AttemptKind::Ping)), (20, received(1, "28"))],
        [],
        "",
    );
    let text = serde_json::to_string(&timeline).unwrap();
    assert_eq!(serde_json::from_str::<Timeline>(&text).unwrap(), timeline);
}

fn read<const N: usize, const M: usize>(
    clients: [(u64, Event); N],
    peers: [(u64, Event); M],
    log: &str,
) -> Timeline {
    let line = |who: &str, (at, event)| Line {
        t_us: BEGAN_US + at,
        who: who.to_owned(),
        event,
    };
    let host_line = |said| HostLine {
        host: "client1".to_owned(),
        line: line("client1", said),
    };
    let evidence = Evidence {
        clients: clients.into_iter().map(host_line).collect(),
        peers: peers.into_iter().map(|said| line("peers", said)).collect(),
        // Frames are left out on purpose: their absence must not count against the reports.
        lost_frames: 1,
        ended_us: BEGAN_US + 6_000_000,
        ..Evidence::default()
    };
    let record = Record {
        began_us: BEGAN_US,
        evidence,
        device_events: log.to_owned(),
        mishaps: Vec::new(),
    };
    Timeline::read(&site(), &record)
}

fn whats(timeline: &Timeline) -> Vec<What> {
    timeline.hosts["client1"]
        .iter()
        .map(|moment| moment.what.clone())
        .collect()
}

fn attempt(id: u64, kind: AttemptKind) -> Event {
    Event::Attempt {
        id: AttemptId(id),
        kind,
        local: client().into(),
        peer: peer().into(),
    }
}

fn received(id: u64, hex: &str) -> Event {
    let hex = Some(hex.to_owned());
    Event::Received {
        id: AttemptId(id),
        part: Part::Pong,
        bytes: 2,
        hex,
    }
}

fn site() -> Site {
    Site {
        peers: "198.18.0.0/15".parse().expect("a literal"),
        listening: BTreeSet::from([peer()]),
        hosts: vec![Host {
            name: "client1".to_owned(),
            address: *client().ip(),
        }],
        line_loses: false,
    }
}

fn client() -> SocketAddrV4 {
    "10.77.1.1:2301".parse().expect("a literal")
}

fn peer() -> SocketAddrV4 {
    "198.18.0.1:1214".parse().expect("a literal")
}
