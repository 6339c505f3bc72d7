use std::net::{Ipv4Addr, SocketAddrV4};

use ftwall::gateway::backend::Backend;
use ftwall::gateway::inject::datagram;
use ftwall::gateway::kernel_sets::{self, Batch, Element};
use ftwall::gateway::nft_json as nft;
use ftwall::gateway::rules::{self, Transport};
use serde_json::json;

use super::*;

const NOW: Duration = Duration::from_secs(1_000);
const HOST: Ipv4Addr = Ipv4Addr::new(10, 77, 1, 1);
const PEER: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(198, 18, 0, 1), 1214);

/// The rules as the daemon loads them, with these options of `ftwall run`.
fn loaded(options: &[&str]) -> Ruleset {
    let options = [&["--inside", "10.77.0.0/16"], options].concat();
    let settings = ftwall::cli::run_settings(&options).expect("documented options");
    let mut ruleset = Ruleset::new();
    let commands = rules::commands(&settings.rules, Backend::Nft);
    ruleset.apply(NOW, &commands).expect("all of it is known");
    ruleset
}

/// One chain with one rule that drops what these expressions match.
fn dropping(expressions: &[Value]) -> Ruleset {
    try_dropping(expressions).expect("all of it is known")
}

fn try_dropping(expressions: &[Value]) -> Result<Ruleset, RulesetError> {
    let expressions = [expressions, &[nft::drop()]].concat();
    let mut ruleset = Ruleset::new();
    ruleset.apply(
        NOW,
        &[
            nft::add_table(),
            nft::add_network_set("nets"),
            nft::add_elements(
                "nets",
                &[nft::prefix("10.77.0.0/16".parse().expect("a net"))],
            ),
            nft::add_expiring_set("hosts", &json!("ipv4_addr"), 2),
            nft::add_forward_chain("only", 0),
            nft::add_rule("only", "it", &expressions),
        ],
    )?;
    Ok(ruleset)
}

fn udp(payload: &[u8]) -> Vec<u8> {
    datagram(SocketAddrV4::new(HOST, 2301), PEER, payload).expect("it is short")
}

/// A segment from [`HOST`] to [`PEER`], its checksum left out: rules never look.
fn tcp(flags: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = udp(&[&[0; 12], payload].concat());
    packet[9] = 6;
    packet[20 + 12] = 5 << 4;
    packet[20 + 13] = flags;
    packet
}

fn passage(packet: &[u8]) -> Passage<'_> {
    Passage {
        packet: View::parse(packet).expect("it is whole"),
        mark: 0,
        connection: Some(Tracked {
            mark: 0,
            is_new: true,
            is_reply: false,
        }),
    }
}

fn drops(ruleset: &Ruleset, packet: &[u8]) -> bool {
    ruleset.enter(NOW, &mut passage(packet)) == Station::Dropped
}

#[test]
fn an_address_is_compared_with_a_network() {
    let inside = |op, net: &str| {
        let net = nft::prefix(net.parse().expect("a net"));
        dropping(&[nft::compare(op, &nft::field("ip", "saddr"), net)])
    };
    for (net, holds) in [
        ("10.77.0.0/16", true),
        ("10.78.0.0/16", false),
        ("10.76.0.0/15", true),
        ("10.77.1.1/32", true),
    ] {
        assert_eq!(drops(&inside("==", net), &udp(b"hello")), holds, "{net}");
        assert_eq!(drops(&inside("!=", net), &udp(b"hello")), !holds, "{net}");
    }
}

#[test]
fn every_kind_of_expression_the_rules_use_says_what_nft_would_say() {
    let source = nft::field("ip", "saddr");
    let first = nft::raw("th", 64, 16);
    let cases: &[(&[Value], bool)] = &[
        (&[nft::equals(&nft::meta("nfproto"), "ipv6")], false),
        (&[nft::equals(&nft::meta("l4proto"), "udp")], true),
        (&[nft::equals(&nft::meta("l4proto"), "tcp")], false),
        (&[nft::in_set("==", &source, "nets")], true),
        (
            &[nft::in_set("!=", &nft::field("ip", "daddr"), "nets")],
            true,
        ),
        (&[nft::in_set("==", &source, "hosts")], false),
        (
            &[nft::equals(
                &nft::field("udp", "length"),
                nft::range(10, 12),
            )],
            true,
        ),
        (&[nft::equals(&nft::field("udp", "length"), 13)], false),
        (
            &[nft::compare(">=", &nft::field("th", "dport"), 1214)],
            true,
        ),
        (&[nft::compare(">", &nft::field("ip", "length"), 31)], false),
        (&[nft::compare(">=", &nft::field("tcp", "dport"), 0)], false),
        (&[nft::equals(&first, 0x2700)], true),
        (&[nft::equals(&nft::masked(&first, 0xfe00), 0x2600)], true),
        (&[nft::compare(">=", &nft::raw("ih", 0, 8), 0)], true),
        (&[nft::compare(">=", &nft::raw("ih", 24, 8), 0)], false),
        (&[nft::is_new()], true),
        (&[nft::equals(&nft::ct("direction"), "reply")], false),
        (&[nft::has_bits(&nft::ct("mark"), 4)], false),
        (&[nft::is_syn()], false),
    ];
    let packet = udp(&[0x27, 0, 1]);
    for (expressions, expected) in cases {
        assert_eq!(
            drops(&dropping(expressions), &packet),
            *expected,
            "{expressions:?}"
        );
    }
}

#[test]
fn a_syn_opens_alone_and_payload_begins_behind_the_options() {
    let is_syn = dropping(&[nft::is_syn()]);
    assert!(drops(&is_syn, &tcp(0x02, b"")));
    assert!(!drops(&is_syn, &tcp(0x12, b"")));
    let has_payload = dropping(&[nft::compare(">=", &nft::raw("ih", 0, 8), 0)]);
    assert!(!drops(&has_payload, &tcp(0x10, b"")));
    let mut with_options = tcp(0x10, &[1; 4]);
    assert!(drops(&has_payload, &with_options));
    with_options[20 + 12] = 6 << 4;
    assert!(!drops(&has_payload, &with_options));
}

#[test]
fn a_test_that_cannot_be_made_ends_its_rule_whatever_it_asks() {
    let packet = udp(b"");
    let not_that_port = dropping(&[nft::compare("!=", &nft::field("tcp", "dport"), 80)]);
    assert!(!drops(&not_that_port, &packet));
    let unmarked = dropping(&[nft::compare("!=", &nft::ct("mark"), 1)]);
    let mut untracked = Passage {
        connection: None,
        ..passage(&packet)
    };
    assert_eq!(unmarked.enter(NOW, &mut untracked), Station::Accepted);
    assert!(drops(&unmarked, &packet));
}

#[test]
fn what_is_unknown_is_an_error_that_names_it() {
    let unknown = [
        (nft::equals(&nft::meta("iifname"), "wan0"), "iifname"),
        (nft::equals(&nft::field("tcp", "window"), 1), "window"),
        (nft::equals(&nft::ct("helper"), "ftp"), "helper"),
        (
            nft::compare("in", &nft::ct("state"), json!(["related"])),
            "related",
        ),
        (nft::compare("~", &nft::ct("mark"), 1), "~"),
        (json!({ "limit": { "rate": 4, "per": "minute" } }), "limit"),
        (
            json!({ "queue": { "num": 0, "flags": ["bypass", "fanout"] } }),
            "fanout",
        ),
        (
            nft::in_set("==", &nft::field("ip", "saddr"), "nowhere"),
            "nowhere",
        ),
        (nft::goto("nowhere"), "nowhere"),
    ];
    for (expression, name) in unknown {
        let error = try_dropping(&[expression]).expect_err(name);
        assert!(error.to_string().contains(name), "{error}");
    }
    let late = [nft::counter(), nft::equals(&nft::ct("mark"), 1)];
    assert!(matches!(
        try_dropping(&late),
        Err(RulesetError::Unknown { .. })
    ));
}

#[test]
fn each_key_has_a_budget_of_its_own_that_fills_at_its_rate() {
    let lasts = Duration::from_secs(10);
    let source = nft::field("ip", "saddr");
    let ruleset = dropping(&[nft::is_over("hosts", &source, [10, 3], lasts)]);
    let host = SocketAddrV4::new(HOST, 2301);
    let [one, other] = [(host, PEER), (PEER, host)]
        .map(|(from, to)| datagram(from, to, b"words").expect("it is short"));
    let passed = |packet: &[u8], now| {
        let enters = || ruleset.enter(now, &mut passage(packet)) == Station::Accepted;
        (0..5).filter(|_| enters()).count()
    };
    assert_eq!(passed(&one, NOW), 3);
    assert_eq!(passed(&other, NOW), 3, "it has its own");
    let later = |milliseconds| NOW + Duration::from_millis(milliseconds);
    assert_eq!(passed(&one, later(99)), 0);
    assert_eq!(passed(&one, later(200)), 2);
    assert_eq!(
        passed(&one, later(60_000)),
        3,
        "no more is saved than a burst"
    );
}

#[test]
fn an_element_leaves_when_its_time_is_over_and_comes_back_when_it_is_renewed() {
    let mut ruleset = loaded(&[]);
    let lock = |ruleset: &mut Ruleset, now, stays: Option<Duration>| {
        let batch = Batch::from([(Element::Locked(HOST), stays)]);
        ruleset
            .apply(now, &kernel_sets::commands(&batch))
            .expect("there is room");
    };
    lock(&mut ruleset, NOW, Some(Duration::from_secs(120)));
    let after = |seconds| NOW + Duration::from_secs(seconds);
    assert_eq!(ruleset.elements(rules::LOCKED, after(119)), Some(1));
    assert_eq!(ruleset.elements(rules::LOCKED, after(120)), Some(0));
    lock(&mut ruleset, after(119), Some(Duration::from_secs(120)));
    assert_eq!(ruleset.elements(rules::LOCKED, after(238)), Some(1));
    lock(&mut ruleset, after(120), None);
    assert_eq!(ruleset.elements(rules::LOCKED, after(120)), Some(0));
}

#[test]
fn a_full_set_refuses_the_whole_transaction_and_has_room_again_for_what_ran_out() {
    let mut ruleset = dropping(&[]);
    let host = |number: u8| nft::address(Ipv4Addr::new(10, 77, 1, number));
    let lasting = |number| nft::expiring(&host(number), Duration::from_secs(10));
    ruleset
        .apply(NOW, &[nft::add_elements("hosts", &[lasting(1)])])
        .expect("there is room");
    let two_more = [nft::add_elements("hosts", &[lasting(2), lasting(3)])];
    let refused = ruleset.apply(NOW, &two_more);
    assert_eq!(refused, Err(RulesetError::Full("hosts".into())));
    assert_eq!(ruleset.elements("hosts", NOW), Some(1));
    let later = NOW + Duration::from_secs(10);
    ruleset.apply(later, &two_more).expect("the first has left");
    assert_eq!(ruleset.elements("hosts", later), Some(2));
    let gone = [nft::delete_elements("hosts", &[host(1)])];
    assert!(matches!(
        ruleset.apply(later, &gone),
        Err(RulesetError::Missing { .. })
    ));
}

#[test]
fn a_peer_of_a_client_is_dropped_both_ways_and_counted_by_the_comment() {
    let mut ruleset = loaded(&[]);
    let peer = Element::Peer(HOST, PEER, Transport::Udp);
    let batch = Batch::from([(peer, Some(Duration::from_secs(60)))]);
    ruleset
        .apply(NOW, &kernel_sets::commands(&batch))
        .expect("there is room");
    let there = udp(b"anything");
    let back = datagram(PEER, SocketAddrV4::new(HOST, 2301), b"anything").expect("it is short");
    assert!(drops(&ruleset, &there) && drops(&ruleset, &there) && drops(&ruleset, &back));
    assert!(!drops(&ruleset, &tcp(0x02, b"")), "TCP was not learned");
    assert_eq!(ruleset.packets("to a known peer"), Some(2));
    assert_eq!(ruleset.packets("from a known peer"), Some(1));
    assert_eq!(ruleset.packets("no such rule"), None);
}

#[test]
fn a_ping_is_queued_without_bypass_and_an_undecided_segment_with_it() {
    const PING: &[u8] = b"\x27\x00\x00\x00\x29\x80KaZaA\x00";
    let ruleset = loaded(&[]);
    let (ping, data) = (udp(PING), tcp(0x18, b"GET / HTTP/1.1\r\n"));
    let bypass_of = |packet: &[u8]| match ruleset.enter(NOW, &mut passage(packet)) {
        Station::Queued { bypass, .. } => Some(bypass),
        Station::Accepted | Station::Dropped => None,
    };
    assert_eq!(bypass_of(&ping), Some(false));
    assert_eq!(bypass_of(&data), Some(true));
    assert_eq!(bypass_of(&tcp(0x10, b"")), None);
    assert_eq!(bypass_of(&udp(b"anything else")), None);
}

#[test]
fn replacing_the_rules_keeps_what_the_sets_have_learned() {
    let mut ruleset = loaded(&[]);
    let batch = Batch::from([(Element::Locked(HOST), Some(Duration::from_secs(60)))]);
    ruleset
        .apply(NOW, &kernel_sets::commands(&batch))
        .expect("there is room");
    let settings = ftwall::cli::run_settings(&["--strictness", "strict"]).expect("documented");
    let commands = rules::commands(&settings.rules, Backend::Nft);
    ruleset.apply(NOW, &commands).expect("all of it is known");
    assert_eq!(ruleset.elements(rules::LOCKED, NOW), Some(1));
    let strict = "strict: datagrams of a locked host";
    assert_eq!(ruleset.packets(strict), Some(0));
}
