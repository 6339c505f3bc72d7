//! What an operator does to an engine at work, and what it tells about itself, in virtual time.

#[expect(dead_code, reason = "an operator needs a part of its packets only")]
mod support;

use std::net::Ipv4Addr;
use std::time::Duration;

use ftwall::config::{HostPolicy, Mode, NeverBlock, Strictness};
use ftwall::{
    Action, Block, BlockError, DropReason, EngineConfig, EventType, Evidence, HardwareAddress,
    Link, Origin, PassReason, Place, Subject, Verdict,
};
use support::{CONSTANT_OPENER, Connection, Gateway, PING, WEB_ANSWER, WEB_REQUEST, end};

const HOST: Ipv4Addr = Ipv4Addr::new(10, 77, 1, 1);
const CLIENT: &str = "10.77.1.1:1214";
const PEER: &str = "198.18.0.5:2001";
const OTHER_PEER: &str = "198.18.0.6:2002";
const SHORT: Duration = Duration::from_secs(5);

#[test]
fn a_monitored_host_is_judged_and_reported_but_nothing_is_done_to_it() {
    let mut gateway = Gateway::new(EngineConfig {
        mode: Mode::Monitor,
        ..EngineConfig::default()
    });
    let verdict = gateway.datagram(CLIENT, PEER, PING);
    assert_eq!(verdict, Verdict::Pass(PassReason::Monitored));
    assert_eq!(gateway.actions, []);
    let event = gateway.events.last().expect("what would have been done");
    assert_eq!(event.event_type, EventType::PacketWouldDrop);
    let details = &event.ftwall;
    assert_eq!(details.mode, Some(Mode::Monitor));
    let would_have = details.would_have.expect("a drop").reason;
    assert_eq!(
        (would_have, details.verdict.expect("a pass").action),
        ("ping", "pass")
    );
    assert_eq!(
        gateway.engine.clients(gateway.now).len(),
        1,
        "it is known all the same"
    );

    let mut opener = Connection::open(&mut gateway, "10.77.1.1:40001", PEER);
    let verdict = opener.client_says(&mut gateway, &CONSTANT_OPENER);
    assert_eq!(verdict, Verdict::Pass(PassReason::Monitored));
    let mut web = Connection::open(&mut gateway, "10.77.1.1:40002", "203.0.113.7:80");
    web.client_says(&mut gateway, WEB_REQUEST);
    let proof = web.server_says(&mut gateway, WEB_ANSWER);
    assert!(matches!(proof, Verdict::Clear(_)), "{proof:?}");
}

#[test]
fn the_first_policy_that_names_a_host_counts() {
    let entry = |name: &str, subnet: &str, mode| HostPolicy {
        name: name.into(),
        subnets: vec![subnet.parse().expect("a literal")],
        mode: Some(mode),
        ..HostPolicy::default()
    };
    let mut gateway = Gateway::new(EngineConfig {
        policies: vec![
            entry("lab", "10.77.1.0/24", Mode::Off),
            entry("guests", "10.77.0.0/16", Mode::Monitor),
        ],
        ..EngineConfig::default()
    });
    for (client, expected) in [
        ("10.77.1.1:1214", Verdict::Pass(PassReason::PolicyOff)),
        ("10.77.2.1:1214", Verdict::Pass(PassReason::Monitored)),
        ("10.78.1.1:1214", Verdict::Drop(DropReason::Ping)),
    ] {
        assert_eq!(gateway.datagram(client, PEER, PING), expected, "{client}");
    }
    let clients = gateway.engine.clients(gateway.now);
    let policies: Vec<_> = clients
        .iter()
        .map(|client| client.policy.as_deref())
        .collect();
    assert_eq!(policies, [Some("guests"), None]);
}

#[test]
fn a_policy_by_interface_or_hardware_address_follows_where_a_host_is_seen() {
    let laptop = HardwareAddress([2, 0, 0, 0, 0, 7]);
    let entry = |name: &str, interface: &str, macs: &[HardwareAddress]| HostPolicy {
        name: name.into(),
        interfaces: vec![interface.parse().expect("a name")],
        macs: macs.to_vec(),
        mode: Some(Mode::Off),
        ..HostPolicy::default()
    };
    let monitored = HostPolicy {
        mode: Some(Mode::Monitor),
        ..entry("guests", "guest0", &[])
    };
    let mut gateway = Gateway::new(EngineConfig {
        policies: vec![entry("the laptop", "lan0", &[laptop]), monitored],
        ..EngineConfig::default()
    });
    let link = |entered: &str, leaves: &str, sender| Link {
        entered: entered.parse().ok(),
        leaves: leaves.parse().ok(),
        sender: Some(HardwareAddress(sender)),
    };
    let mut ping = |way: Option<Link>| {
        gateway.link = way;
        let verdict = gateway.datagram(CLIENT, PEER, PING);
        (verdict, gateway.is_locked("10.77.1.1"))
    };
    let enforced = (Verdict::Drop(DropReason::Ping), true);
    let monitored = (Verdict::Pass(PassReason::Monitored), false);
    assert_eq!(ping(None), enforced, "as in a capture");
    assert_eq!(ping(Some(link("lan0", "wan0", [2; 6]))), enforced);
    assert_eq!(ping(Some(link("guest0", "wan0", [2; 6]))), monitored);
    assert_eq!(ping(None), monitored, "it is where it was last seen");
    let off = (Verdict::Pass(PassReason::PolicyOff), false);
    assert_eq!(ping(Some(link("lan0", "wan0", laptop.0))), off);
    assert_eq!(ping(Some(link("lan0", "wan0", [2; 6]))), enforced);

    // What comes from outside has another sender; it names the interface towards the host.
    gateway.link = Some(link("wan0", "guest0", laptop.0));
    gateway.datagram(PEER, CLIENT, b"unknown");
    let explained = gateway.engine.explain(gateway.now, Subject::Host(HOST));
    let place = Place {
        interface: "guest0".parse().ok(),
        mac: Some(HardwareAddress([2; 6])),
    };
    assert_eq!(explained.place, Some(place));
    let entry = explained.policy.expect("it is inside").entry;
    assert_eq!(entry.as_deref(), Some("guests"));
    assert!(!gateway.is_locked("10.77.1.1"), "the kernel was told");
}

#[test]
fn every_list_of_a_match_has_to_name_the_host() {
    let policy = HostPolicy {
        subnets: vec!["10.77.1.0/24".parse().expect("a literal")],
        interfaces: vec!["lan0".parse().expect("a name")],
        ..HostPolicy::default()
    };
    let at = |interface: &str| Place {
        interface: interface.parse().ok(),
        mac: None,
    };
    assert!(policy.names(HOST.into(), at("lan0")));
    assert!(!policy.names(HOST.into(), at("lan1")));
    assert!(!policy.names(HOST.into(), Place::default()));
    assert!(!policy.names(Ipv4Addr::new(10, 77, 2, 1).into(), at("lan0")));
    assert!(
        !HostPolicy::default().names(HOST.into(), at("lan0")),
        "nobody"
    );
}

#[test]
fn a_policy_has_its_own_lock_time_and_strictness() {
    let policy = HostPolicy {
        subnets: vec!["10.77.1.0/24".parse().expect("a literal")],
        lock_time: Some(SHORT),
        strictness: Some(Strictness::Strict),
        ..HostPolicy::default()
    };
    let mut gateway = Gateway::new(EngineConfig {
        policies: vec![policy],
        ..EngineConfig::default()
    });
    assert!(gateway.engine.config().is_strict_anywhere());
    for client in [CLIENT, "10.77.2.1:1214"] {
        gateway.datagram(client, PEER, PING);
    }
    let unknown = |gateway: &mut Gateway, client| gateway.datagram(client, OTHER_PEER, b"unknown");
    assert_eq!(
        unknown(&mut gateway, CLIENT),
        Verdict::Drop(DropReason::Strict)
    );
    assert!(!unknown(&mut gateway, "10.77.2.1:1214").is_drop());
    gateway.wait(SHORT);
    assert!(!gateway.is_locked("10.77.1.1") && gateway.is_locked("10.77.2.1"));
}

#[test]
fn an_unblocked_client_is_free_at_once_and_for_its_time_only() {
    let mut gateway = Gateway::new(EngineConfig::default());
    gateway.datagram(CLIENT, PEER, PING);
    let lifted = unblock(&mut gateway, "10.77.1.1");
    assert_eq!((lifted.clients, lifted.peers), (1, 1));
    assert!(!gateway.is_locked("10.77.1.1"), "the kernel is told");
    let forgotten = Action::ForgetPeer {
        client: HOST,
        peer: end(PEER),
    };
    assert!(gateway.actions.contains(&forgotten));
    let verdict = gateway.datagram(CLIENT, PEER, PING);
    assert_eq!(verdict, Verdict::Pass(PassReason::Unblocked));
    gateway.wait(SHORT);
    let ended = gateway.events.iter().filter(|event| {
        event.event_type == EventType::OperatorUnblockEnded
            && event.ftwall.target == Some(target("10.77.1.1"))
    });
    assert_eq!(ended.count(), 1);
    assert_eq!(
        gateway.datagram(CLIENT, PEER, PING),
        Verdict::Drop(DropReason::Ping)
    );
}

#[test]
fn unblocking_one_port_of_a_peer_leaves_the_rest_as_it_is() {
    let mut gateway = Gateway::new(EngineConfig::default());
    gateway.datagram(CLIENT, PEER, PING);
    gateway.datagram(CLIENT, "198.18.0.5:2002", PING);
    let peer = NeverBlock {
        port: Some(2001),
        ..target("198.18.0.5")
    };
    let lifted = gateway.engine.unblock(gateway.now, peer, SHORT);
    assert_eq!((lifted.clients, lifted.peers), (0, 1));
    assert!(!gateway.datagram(CLIENT, PEER, PING).is_drop());
    assert!(gateway.datagram(CLIENT, "198.18.0.5:2002", PING).is_drop());
    assert!(gateway.is_locked("10.77.1.1"));
}

#[test]
fn a_client_blocked_by_hand_stays_locked_for_its_time_whatever_it_does() {
    let mut gateway = Gateway::new(EngineConfig::default());
    let hour = Duration::from_secs(3600);
    block(&mut gateway, Block::Client(HOST), hour).expect("it is inside");
    gateway.wait(Duration::from_secs(600));
    // Evidence renews a lock for two minutes; it must not shorten the operator's.
    gateway.datagram(CLIENT, PEER, PING);
    gateway.wait(Duration::from_secs(2900));
    assert!(gateway.is_locked("10.77.1.1"));
    let lock = &gateway.engine.clients(gateway.now)[0];
    assert_eq!((lock.origin, lock.sightings), (Origin::Operator, 1));
    let announced = gateway
        .actions
        .iter()
        .rev()
        .find_map(|action| match action {
            Action::LockHost { for_, .. } => Some(*for_),
            _ => None,
        });
    assert!(announced > Some(Duration::from_secs(2900)), "{announced:?}");
    gateway.wait(Duration::from_secs(101));
    assert!(!gateway.is_locked("10.77.1.1"));
}

#[test]
fn a_peer_blocked_by_hand_is_dropped_for_that_client() {
    let mut gateway = Gateway::new(EngineConfig::default());
    block(&mut gateway, Block::Peer(HOST, end(PEER)), SHORT).expect("nothing forbids it");
    assert_eq!(gateway.learned(), [end(PEER)]);
    let verdict = gateway.datagram(CLIENT, PEER, b"anything");
    assert_eq!(verdict, Verdict::Drop(DropReason::KnownPeer));
    assert!(
        !gateway
            .datagram("10.77.2.2:1214", PEER, b"anything")
            .is_drop()
    );
    gateway.wait(SHORT);
    assert!(!gateway.datagram(CLIENT, PEER, b"anything").is_drop());
}

#[test]
fn what_must_not_be_blocked_cannot_be_blocked_by_hand() {
    let mut gateway = Gateway::new(EngineConfig {
        allow: vec![target("10.77.9.9")],
        never_block: vec![target("198.18.7.7")],
        ..EngineConfig::default()
    });
    let outside = Ipv4Addr::new(198, 18, 0, 5);
    let bank = end("198.18.7.7:2001");
    let resolver = end("192.168.1.1:5300");
    let allowed = Ipv4Addr::new(10, 77, 9, 9);
    for (asked, expected) in [
        (Block::Client(outside), BlockError::NotInside(outside)),
        (Block::Client(allowed), BlockError::LetThrough(allowed)),
        (Block::Peer(HOST, bank), BlockError::NeverBlocked(bank)),
        (
            Block::Peer(HOST, resolver),
            BlockError::NeverBlocked(resolver),
        ),
    ] {
        assert_eq!(block(&mut gateway, asked, SHORT), Err(expected));
    }
    assert_eq!(gateway.actions, []);
}

#[test]
fn another_configuration_keeps_what_was_learned() {
    let mut gateway = Gateway::new(EngineConfig::default());
    gateway.datagram(CLIENT, PEER, PING);
    let (clients, peers) = listed(&gateway);
    reconfigure(
        &mut gateway,
        EngineConfig {
            peer_expiry: SHORT,
            ..EngineConfig::default()
        },
    );
    assert_eq!(listed(&gateway), (clients, peers));
    assert!(gateway.is_locked("10.77.1.1"));
}

#[test]
fn an_allow_entry_lifts_what_stands_against_it_at_once() {
    let mut gateway = Gateway::new(EngineConfig::default());
    gateway.datagram(CLIENT, PEER, PING);
    gateway.datagram(CLIENT, OTHER_PEER, PING);
    let allow = vec![target("198.18.0.5")];
    reconfigure(
        &mut gateway,
        EngineConfig {
            allow,
            ..EngineConfig::default()
        },
    );
    let peers: Vec<_> = gateway
        .engine
        .peers(gateway.now)
        .iter()
        .map(|known| known.peer)
        .collect();
    assert_eq!(peers, [end(OTHER_PEER)]);
    let verdict = gateway.datagram(CLIENT, PEER, PING);
    assert_eq!(verdict, Verdict::Pass(PassReason::Allowed));
}

#[test]
fn hosts_are_handed_to_the_kernel_when_monitoring_ends_and_taken_back_when_it_begins() {
    let monitor = EngineConfig {
        mode: Mode::Monitor,
        ..EngineConfig::default()
    };
    let mut gateway = Gateway::new(monitor.clone());
    gateway.datagram(CLIENT, PEER, PING);
    assert_eq!(gateway.actions, []);
    reconfigure(&mut gateway, EngineConfig::default());
    assert!(gateway.is_locked("10.77.1.1"));
    assert_eq!(gateway.learned(), [end(PEER)]);
    assert!(gateway.datagram(CLIENT, PEER, b"anything").is_drop());
    reconfigure(&mut gateway, monitor);
    assert!(!gateway.is_locked("10.77.1.1"));
    assert!(!gateway.datagram(CLIENT, PEER, b"anything").is_drop());
}

#[test]
fn an_explanation_goes_from_what_was_seen_to_what_is_done() {
    let mut gateway = Gateway::new(EngineConfig::default());
    for _ in 0..3 {
        gateway.datagram(CLIENT, PEER, PING);
    }
    let explained = gateway.engine.explain(gateway.now, Subject::Host(HOST));
    let policy = explained.policy.expect("it is inside");
    assert_eq!(
        (policy.entry, policy.mode, policy.lock_time_seconds),
        (None, Mode::Enforce, 120)
    );
    let lock = explained.lock.expect("it is locked");
    assert_eq!(
        (lock.origin, lock.sightings, lock.peers),
        (Origin::Evidence(Evidence::UdpPing), 3, 1)
    );
    assert_eq!(explained.peers.len(), 1);
    let incident = &explained.incidents[0];
    assert_eq!(
        (incident.packets, incident.evidence),
        (3, Some(Evidence::UdpPing))
    );
    assert_eq!(incident.verdict.reason, "ping");
    assert!(
        explained.tests.iter().all(|test| !test.holds),
        "{:?}",
        explained.tests
    );

    let explained = gateway
        .engine
        .explain(gateway.now, Subject::Peer(end(PEER)));
    assert!(!explained.inside && explained.lock.is_none());
    assert_eq!((explained.peers.len(), explained.incidents.len()), (1, 1));
    unblock(&mut gateway, "198.18.0.5");
    let explained = gateway
        .engine
        .explain(gateway.now, Subject::Peer(end(PEER)));
    let holds: Vec<_> = explained.tests.iter().filter(|test| test.holds).collect();
    assert_eq!(
        holds.iter().map(|test| test.name).collect::<Vec<_>>(),
        ["unblocked"]
    );
    assert_eq!(explained.peers.len(), 0);
}

fn target(text: &str) -> NeverBlock {
    let net: ipnet::IpNet = text.parse::<std::net::IpAddr>().expect("an address").into();
    net.into()
}

fn unblock(gateway: &mut Gateway, text: &str) -> ftwall::Lifted {
    let lifted = gateway.engine.unblock(gateway.now, target(text), SHORT);
    gateway.drain();
    lifted
}

fn block(gateway: &mut Gateway, block: Block, for_: Duration) -> Result<(), BlockError> {
    let blocked = gateway.engine.block(gateway.now, block, for_);
    gateway.drain();
    blocked
}

fn reconfigure(gateway: &mut Gateway, config: EngineConfig) {
    gateway.engine.reconfigure(gateway.now, config);
    gateway.drain();
}

fn listed(gateway: &Gateway) -> (Vec<ftwall::LockedClient>, Vec<ftwall::KnownPeer>) {
    (
        gateway.engine.clients(gateway.now),
        gateway.engine.peers(gateway.now),
    )
}
