//! The office preset on a real kernel: who reaches whom, with and without NAT, rules and a wire.

use std::{
    fs,
    io::{self, ErrorKind},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    time::Duration,
};

use lab::{
    Heading, Lab, Node, WireSettings,
    capsule::in_capsule,
    presets::{Office, office},
};

#[test]
fn clients_reach_every_outside_address_by_the_gateway() {
    in_capsule("clients_reach_every_outside_address_by_the_gateway", || {
        let lab = build(&Office::default());
        for outside in [Office::OUTSIDE, LOWEST_PEER, HIGHEST_PEER, WEB_SERVER] {
            assert!(reaches(lab.node("client1"), outside), "{outside}");
        }
        assert!(
            reaches(lab.node("client2"), lab.node("client1").address()),
            "across the switch"
        );
        assert!(
            reaches(lab.node("out"), lab.node("client2").address()),
            "back inside without NAT"
        );
    });
}

#[test]
fn a_peer_sees_the_client_s_own_address_without_nat_and_the_gateway_s_with_it() {
    in_capsule(
        "a_peer_sees_the_client_s_own_address_without_nat_and_the_gateway_s_with_it",
        || {
            let open = build(&Office::default());
            assert_eq!(address_seen_outside(&open), Office::client_address(1));
            let hidden = build(&Office {
                nat: true,
                ..Office::default()
            });
            assert_eq!(address_seen_outside(&hidden), Office::GATEWAY_WAN);
        },
    );
}

#[test]
fn a_blocked_front_door_lets_answers_in_and_calls_not() {
    in_capsule("a_blocked_front_door_lets_answers_in_and_calls_not", || {
        let closed = build(&Office {
            block_inbound: true,
            ..Office::default()
        });
        assert!(
            !reaches(closed.node("out"), Office::client_address(1)),
            "a call from outside"
        );
        assert!(
            reaches(closed.node("client1"), LOWEST_PEER),
            "an answer from outside"
        );
        assert_eq!(address_seen_outside(&closed), Office::client_address(1));
    });
}

#[test]
fn settings_are_the_role_s_own_whatever_the_surrounding_namespace_has() {
    in_capsule(
        "settings_are_the_role_s_own_whatever_the_surrounding_namespace_has",
        || {
            fs::write("/proc/sys/net/ipv4/ip_forward", "1").expect("the capsule's own setting");
            fs::write("/proc/sys/net/ipv4/conf/all/rp_filter", "1")
                .expect("the capsule's own setting");
            let lab = build(&Office {
                clients: 1,
                ..Office::default()
            });
            let forwarding = |node: &str| setting(lab.node(node), "net/ipv4/ip_forward");
            assert_eq!(
                ["client1", "gw", "out", "lan"].map(forwarding),
                ["0", "1", "0", "0"]
            );
            assert_eq!(setting(lab.node("gw"), "net/ipv4/conf/wan0/rp_filter"), "0");
            assert_eq!(
                setting(lab.node("client1"), "net/ipv4/conf/all/rp_filter"),
                "0"
            );
            assert_eq!(
                setting(lab.node("client1"), "net/ipv4/tcp_syn_retries"),
                "1"
            );
        },
    );
}

#[test]
fn a_hundred_clients_stand_and_the_last_reaches_the_first_and_the_outside() {
    in_capsule(
        "a_hundred_clients_stand_and_the_last_reaches_the_first_and_the_outside",
        || {
            let lab = build(&Office {
                clients: 100,
                ..Office::default()
            });
            assert_eq!(lab.nodes().count(), 103);
            let last = lab.node("client100");
            assert!(reaches(last, lab.node("client1").address()));
            assert!(reaches(last, HIGHEST_PEER));
        },
    );
}

#[test]
fn a_recording_of_the_wan_shows_both_ways_of_a_connection_and_nothing_else() {
    in_capsule(
        "a_recording_of_the_wan_shows_both_ways_of_a_connection_and_nothing_else",
        || {
            let lab = build(&Office {
                offloads: false,
                ..Office::default()
            });
            let recording = lab.capture("gw", "wan0").expect("packet sockets work");
            assert!(reaches(lab.node("client1"), LOWEST_PEER));
            let recorded = recording.stop().expect("nothing went wrong");
            let headings: Vec<Heading> =
                recorded.frames.iter().map(|frame| frame.heading).collect();
            assert_eq!(
                headings,
                [Heading::Out, Heading::In],
                "a SYN and a reset, no ARP, no IPv6"
            );
            assert_eq!(recorded.lost, 0);
            assert!(recorded.frames[0].at <= recorded.frames[1].at);
            let client = Office::client_address(1).octets();
            assert_eq!(
                recorded.frames[0].bytes[26..30],
                client,
                "IPv4 source of the SYN"
            );
        },
    );
}

#[test]
fn a_recording_for_a_network_holds_what_goes_there_and_comes_from_there_only() {
    in_capsule(
        "a_recording_for_a_network_holds_what_goes_there_and_comes_from_there_only",
        || {
            let lab = build(&Office::default());
            let recording = lab
                .capture_for("gw", "lan0", Office::PEERS)
                .expect("packet sockets work");
            assert!(reaches(lab.node("client1"), WEB_SERVER));
            assert!(reaches(lab.node("client1"), HIGHEST_PEER));
            let recorded = recording.stop().expect("nothing went wrong");
            let peer = HIGHEST_PEER.octets();
            let ends: Vec<_> = recorded
                .frames
                .iter()
                .map(|frame| (frame.bytes[26..30] == peer, frame.bytes[30..34] == peer))
                .collect();
            assert_eq!(ends, [(false, true), (true, false)], "a SYN and a reset");
        },
    );
}

#[test]
fn a_wire_loses_the_same_datagrams_for_the_same_seed_and_others_for_another() {
    in_capsule(
        "a_wire_loses_the_same_datagrams_for_the_same_seed_and_others_for_another",
        || {
            let [first, again, other] = [7, 7, 8].map(datagrams_that_arrive);
            assert_eq!(first, again);
            assert_ne!(first, other);
            assert!(
                (40..=95).contains(&first.len()),
                "30 % of 100 are lost, give or take: {}",
                first.len()
            );
        },
    );
}

#[test]
fn a_wire_takes_its_time_and_counts_what_it_does() {
    in_capsule("a_wire_takes_its_time_and_counts_what_it_does", || {
        let delay = Duration::from_millis(30);
        let lab = build(&Office {
            wire: Some(WireSettings {
                delay,
                ..WireSettings::default()
            }),
            ..Office::default()
        });
        let recording = lab.capture("gw", "wan0").expect("packet sockets work");
        assert!(reaches(lab.node("client1"), WEB_SERVER));
        let frames = recording.stop().expect("nothing went wrong").frames;
        let round_trip = frames.last().expect("an answer").at - frames[0].at;
        assert!(round_trip >= 2 * delay, "{round_trip:?}");
        let report = lab.wire_report("wan").expect("there is a wire");
        assert_eq!(report.left_to_right.received, 1, "the SYN");
        assert_eq!(report.right_to_left.sent, 1, "the reset");
    });
}

#[test]
fn bridged_frames_stay_away_from_the_switch_s_ip_hooks() {
    in_capsule(
        "bridged_frames_stay_away_from_the_switch_s_ip_hooks",
        || {
            let lab = build(&Office::default());
            let drop_all = "table ip closed {
            chain forward { type filter hook forward priority 0; policy drop; }
        }";
            let nft = lab
                .node("lan")
                .run(&lab::Spec::new("nft").arg(drop_all))
                .expect("nft runs");
            assert!(nft.success(), "{}", nft.stderr);
            assert!(reaches(lab.node("client1"), lab.node("client2").address()));
        },
    );
}

const LOWEST_PEER: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 1);
const HIGHEST_PEER: Ipv4Addr = Ipv4Addr::new(198, 19, 255, 254);
const WEB_SERVER: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 80);
/// Nothing listens here, so a reset proves that a packet went there and its answer came back.
const CLOSED_PORT: u16 = 9;
const PORT: u16 = 1214;
/// Far above a round trip in a lab, far below the three seconds of a lost SYN.
const REACH_LIMIT: Duration = Duration::from_millis(1500);
const DATAGRAMS: u8 = 100;
/// After so long without a datagram the last one has arrived.
const QUIET: Duration = Duration::from_millis(300);

fn build(wish: &Office) -> Lab {
    office(wish)
        .plan()
        .expect("a preset can be planned")
        .apply()
        .expect("a capsule may build it")
}

fn reaches(from: &Node, to: Ipv4Addr) -> bool {
    let target = SocketAddr::from((to, CLOSED_PORT));
    let attempt = from
        .enter(|| TcpStream::connect_timeout(&target, REACH_LIMIT))
        .expect("the node is there");
    matches!(attempt, Err(refusal) if refusal.kind() == ErrorKind::ConnectionRefused)
}

fn address_seen_outside(lab: &Lab) -> Ipv4Addr {
    let listener = inside(lab.node("out"), || TcpListener::bind((LOWEST_PEER, PORT)));
    let _caller = inside(lab.node("client1"), || {
        TcpStream::connect((LOWEST_PEER, PORT))
    });
    match listener.accept().expect("the connection stands").1 {
        SocketAddr::V4(caller) => *caller.ip(),
        SocketAddr::V6(caller) => panic!("an IPv6 caller in an IPv4 lab: {caller}"),
    }
}

/// Opens a socket of a node.
fn inside<T: Send>(node: &Node, open: impl FnOnce() -> io::Result<T> + Send) -> T {
    node.enter(open)
        .expect("the node is there")
        .expect("the socket opens")
}

fn setting(node: &Node, path: &str) -> String {
    let read = node
        .enter(|| fs::read_to_string(format!("/proc/sys/{path}")))
        .expect("the node is there");
    read.expect("the setting is there").trim().to_owned()
}

/// Numbers of the datagrams that get from client1 to a peer over a wire that loses 30 %.
fn datagrams_that_arrive(seed: u64) -> Vec<u8> {
    let wire = WireSettings {
        loss_pct: 30.0,
        seed,
        ..WireSettings::default()
    };
    let lab = build(&Office {
        wire: Some(wire),
        ..Office::default()
    });
    let peer = inside(lab.node("out"), || UdpSocket::bind((LOWEST_PEER, PORT)));
    let client = inside(lab.node("client1"), || UdpSocket::bind(("0.0.0.0", 0)));
    for number in 0..DATAGRAMS {
        client
            .send_to(&[number], (LOWEST_PEER, PORT))
            .expect("there is a route");
    }
    peer.set_read_timeout(Some(QUIET))
        .expect("a timeout above zero");
    let mut datagram = [0];
    std::iter::from_fn(|| received(peer.recv(&mut datagram)).map(|_| datagram[0])).collect()
}

/// `None` once nothing comes any more.
fn received(answer: io::Result<usize>) -> Option<usize> {
    match answer {
        Err(quiet) if quiet.kind() == ErrorKind::WouldBlock => None,
        other => Some(other.expect("a datagram or silence")),
    }
}
