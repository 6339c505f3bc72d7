//! Rules that somebody else takes away while a daemon runs.

use std::net::{Ipv4Addr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::event::{Timespec, poll};

use super::GIFT_PING;
use super::harness::{Daemon, ftwall, in_namespaces, ruleset, run, skip_back_end, wait_for, words};
use super::network::{at, build_network, dial, fetch_page, heard, udp};

const PEER: &str = "198.18.0.9:1214";
/// Of a peer that the client knows, on another port.
const OTHER_PORT: &str = "198.18.0.9:5222";

#[test]
fn flushed_rules_come_back_with_locks_and_peers_while_traffic_flows() {
    in_namespaces(
        "restored_rules::flushed_rules_come_back_with_locks_and_peers_while_traffic_flows",
        || {
            let flush: &[&[&str]] = &[&["nft", "flush", "ruleset"]];
            assert_come_back("iptables-nft", flush, "there is no table inet ftwall");
        },
    );
}

#[test]
fn a_single_rule_comes_back() {
    in_namespaces("restored_rules::a_single_rule_comes_back", || {
        let flush: &[&[&str]] = &[&["nft", "flush", "chain", "inet", "ftwall", "keep"]];
        let fault = "in keep a rule is missing: answer: cleared";
        assert_come_back("iptables-nft", flush, fault);
    });
}

#[test]
fn rules_of_iptables_come_back_whichever_it_is() {
    in_namespaces(
        "restored_rules::rules_of_iptables_come_back_whichever_it_is",
        || {
            build_network();
            for (backend, program) in [
                ("iptables-nft", "iptables-nft"),
                ("iptables-legacy", "iptables-legacy"),
            ] {
                let flush: &[&[&str]] = &[&[program, "-t", "mangle", "-F"]];
                let fault = "no rule of mangle FORWARD leads to FTWALL";
                come_back(backend, flush, fault);
            }
        },
    );
}

#[test]
fn flushed_rules_come_back_although_more_is_known_than_one_message_holds() {
    in_namespaces(
        "restored_rules::flushed_rules_come_back_although_more_is_known_than_one_message_holds",
        || {
            build_network();
            let inside = ["--inside", "10.77.0.0/16"];
            let many = ["--new-peers-per-minute", "10000"];
            let Some(mut daemon) = at("gw", || Daemon::start(&[inside, many].concat())) else {
                return skip_back_end("any", "this kernel does not queue");
            };
            let client = udp("client", "10.77.1.1:2301");
            for number in 1..=MANY {
                let [high, low] = u16::to_be_bytes(number);
                let peer = (Ipv4Addr::new(198, 18, high, low), 1214);
                client.send_to(GIFT_PING, peer).expect("the network is up");
                daemon.wait_event("peer.learned");
            }
            assert!(
                at("gw", || run("nft", &["flush", "ruleset"]))
                    .status
                    .success()
            );
            daemon.wait_event("rules.missing");
            let list = ["list", "set", "inet", "ftwall", "peers"];
            wait_for("the kernel to know all of them again", || {
                let peers = at("gw", || run("nft", &list));
                let peers = words(&peers.stdout).matches(". udp . 1214").count();
                peers == usize::from(MANY)
            });
            assert_eq!(daemon.end("TERM").code(), Some(0));
        },
    );
}

/// In a user namespace a message to the kernel is no larger than an ordinary socket's buffer.
const MANY: u16 = 4000;

fn assert_come_back(backend: &str, flush: &[&[&str]], fault: &str) {
    build_network();
    come_back(backend, flush, fault);
}

fn come_back(backend: &str, flush: &[&[&str]], fault: &str) {
    let Some(mut daemon) = start(backend) else {
        return;
    };
    let check = ["rules", "check", "--inside", "10.77.0.0/16", "--backend"];
    let checked = at("gw", || ftwall(&[&check[..], &[backend]].concat()));
    let said = words(&checked.stdout);
    assert_eq!(
        checked.status.code(),
        Some(0),
        "the guard sees the same: {said}"
    );
    let client = udp("client", "10.77.1.1:2301");
    let peer = udp("out", PEER);
    peer.set_nonblocking(true).expect("it is open");
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| send_until(&is_over, &client));
        daemon.wait_event("client.locked");
        for command in flush {
            assert!(at("gw", || run(command[0], &command[1..])).status.success());
        }
        let missing = daemon.wait_event("rules.missing");
        assert!(missing["faults"].to_string().contains(fault), "{missing}");
        assert_eq!(missing["waits_seconds"], 0);
        let restored = daemon.wait_event("rules.restored");
        assert_eq!(restored["restored"], 1);
        is_over.store(true, Ordering::Relaxed);
    });
    let leaked = heard(&peer);
    println!("{backend}: {leaked} pings at 1,000/s passed before the rules were back");

    let rules = at("gw", ruleset);
    for element in ["10.77.1.1 timeout", "198.18.0.9 . udp . 1214"] {
        assert!(rules.contains(element), "no {element} in {rules}");
    }
    for _ in 0..200 {
        client.send_to(GIFT_PING, PEER).expect("the network is up");
    }
    assert!(
        dial(OTHER_PORT).is_err(),
        "a locked host gets no connection"
    );
    // Comes through the same worker, which takes pings first.
    assert!(fetch_page().ends_with("ok"));
    assert_eq!(heard(&peer), 0, "the wall holds again");
    assert_eq!(at("gw", || ftwall(&["status"])).status.code(), Some(0));
    assert_eq!(daemon.end("TERM").code(), Some(0));
    let left = at("gw", ruleset);
    assert!(!left.to_lowercase().contains("ftwall"), "{left}");
}

fn start(backend: &str) -> Option<Daemon> {
    let options = ["--inside", "10.77.0.0/16", "--backend", backend];
    let daemon = at("gw", || Daemon::start(&options));
    if daemon.is_none() {
        skip_back_end(backend, "this kernel does not queue with it");
    }
    daemon
}

#[test]
fn who_takes_rules_away_again_and_again_is_given_way_to_and_the_operator_is_told() {
    in_namespaces(
        "restored_rules::who_takes_rules_away_again_and_again_is_given_way_to_and_the_operator_is_told",
        || {
            build_network();
            let Some(mut daemon) = start("iptables-nft") else {
                return;
            };
            let mut restored = 0;
            loop {
                assert!(
                    at("gw", || run("nft", &["flush", "ruleset"]))
                        .status
                        .success()
                );
                let missing = daemon.wait_event("rules.missing");
                if missing["waits_seconds"] != 0 {
                    break;
                }
                restored += 1;
                assert_eq!(daemon.wait_event("rules.restored")["restored"], restored);
            }
            assert_eq!(restored, 5);
            let status = at("gw", || ftwall(&["status"]));
            let shown = words(&status.stdout);
            assert_eq!(status.status.code(), Some(4), "{shown}");
            let fault =
                "rules are missing: there is no table inet ftwall; somebody takes them away";
            assert!(shown.contains(fault), "{shown}");

            assert_eq!(daemon.wait_event("rules.restored")["restored"], 6);
            assert!(at("gw", ruleset).contains("table inet ftwall"));
            let status = at("gw", || ftwall(&["status"]));
            let shown = words(&status.stdout);
            assert_eq!(status.status.code(), Some(0), "{shown}");
            assert_eq!(daemon.end("TERM").code(), Some(0));
        },
    );
}

fn send_until(is_over: &AtomicBool, client: &UdpSocket) {
    let pace = Timespec::try_from(Duration::from_millis(1)).expect("it is short");
    while !is_over.load(Ordering::Relaxed) {
        client.send_to(GIFT_PING, PEER).expect("the network is up");
        // Load is a matter of time; nothing is waited for.
        let _ = poll(&mut [], Some(&pace));
    }
}
