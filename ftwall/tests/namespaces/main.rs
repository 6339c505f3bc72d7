//! The shell against a real kernel: every test runs itself again in user, network and mount namespaces
//! of its own, so that no rule of the machine it runs on is ever touched.

mod client_files;
mod confinement;
mod events;
mod firewalls;
mod hang;
mod harness;
mod limits;
#[cfg(feature = "http")]
mod monitoring;
mod network;
mod operations;
mod overload;
mod places;
mod queue;
mod restored_rules;
mod sets;
mod state;
mod succession;
mod two_daemons;
#[cfg(feature = "webhook")]
mod webhook;

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpListener;
use std::process::Command;

use ftwall::gateway::queue::{QueueReader, QueueSettings, open};
use serde_json::Value;

use harness::{
    Daemon, feed, ftwall, in_namespaces, ruleset, run, skip, skip_back_end, wait_for, words,
};
use network::{at, build_network, dial, fetch_page, udp};

#[test]
fn rules_of_native_nft_leave_the_ruleset_as_it_was() {
    in_namespaces("rules_of_native_nft_leave_the_ruleset_as_it_was", || {
        assert_leaves_nothing("nft");
    });
}

#[test]
fn rules_of_iptables_nft_leave_the_ruleset_as_it_was() {
    in_namespaces("rules_of_iptables_nft_leave_the_ruleset_as_it_was", || {
        assert_leaves_nothing("iptables-nft");
    });
}

#[test]
fn rules_of_iptables_legacy_leave_the_ruleset_as_it_was() {
    in_namespaces(
        "rules_of_iptables_legacy_leave_the_ruleset_as_it_was",
        || {
            assert_leaves_nothing("iptables-legacy");
        },
    );
}

/// Twice each: on an empty machine, and beside rules of an administrator's in the same places.
fn assert_leaves_nothing(backend: &str) {
    let tried = ftwall(&["rules", "apply", "--backend", backend]);
    let message = words(&tried.stderr);
    if message.contains("cannot queue packets") {
        return skip_back_end(backend, &message);
    }
    assert!(tried.status.success(), "{message}");
    assert!(ftwall(&["rules", "remove"]).status.success());
    for round in ["first", "second"] {
        assert_unchanged_by_rules(backend, round);
    }
    let administrator = match backend {
        "iptables-legacy" => "iptables-legacy-restore",
        _ => "iptables-nft-restore",
    };
    feed(
        administrator,
        &["--noflush"],
        "*mangle\n-A FORWARD -p tcp -j ACCEPT\nCOMMIT\n",
    );
    feed(
        "nft",
        &["-f", "-"],
        "table inet office {\nchain forward {\ntype filter hook forward priority 0\n}\n}\n",
    );
    for round in [
        "first, with an administrator",
        "second, with an administrator",
    ] {
        assert_unchanged_by_rules(backend, round);
    }
}

fn assert_unchanged_by_rules(backend: &str, round: &str) {
    let before = ruleset();
    for _ in 0..2 {
        let applied = ftwall(&["rules", "apply", "--backend", backend]);
        assert!(
            applied.status.success(),
            "{round}: {}",
            words(&applied.stderr)
        );
    }
    assert!(ruleset().contains("table inet ftwall"), "{round}");
    let once = ruleset();
    assert!(
        ftwall(&["rules", "apply", "--backend", backend])
            .status
            .success(),
        "{round}"
    );
    assert_eq!(ruleset(), once, "{round}: applying again changes something");
    assert!(ftwall(&["rules", "remove"]).status.success(), "{round}");
    assert_eq!(ruleset(), before, "{round}: something was left or taken");
    assert!(
        ftwall(&["rules", "remove"]).status.success(),
        "{round}: nothing is left to remove"
    );
}

#[test]
fn another_back_end_takes_over_without_leaving_rules_of_the_first() {
    in_namespaces(
        "another_back_end_takes_over_without_leaving_rules_of_the_first",
        || {
            let before = ruleset();
            for backend in ["iptables-nft", "iptables-legacy", "iptables-nft"] {
                let applied = ftwall(&["rules", "apply", "--backend", backend]);
                let message = words(&applied.stderr);
                if message.contains("cannot queue packets") {
                    return skip_back_end(backend, &message);
                }
                assert!(applied.status.success(), "{message}");
                let jumps = ruleset().matches("FTWALL").count();
                let legacy = words(&run("iptables-legacy", &["-t", "mangle", "-S"]).stdout);
                assert_eq!(
                    legacy.contains("FTWALL"),
                    backend == "iptables-legacy",
                    "{legacy}"
                );
                assert!(jumps > 0);
            }
            assert!(ftwall(&["rules", "remove"]).status.success());
            assert_eq!(ruleset(), before);
        },
    );
}

#[test]
fn a_rule_that_somebody_took_away_is_named() {
    in_namespaces("a_rule_that_somebody_took_away_is_named", || {
        let config = "/run/rules.toml";
        std::fs::write(
            config,
            "inside = [\"10.77.0.0/16\"]\nblock_inbound = true\n",
        )
        .expect("the file system is ours");
        let about_rules = |verb| {
            let output = ftwall(&[
                "rules",
                verb,
                "--backend",
                "iptables-nft",
                "--config",
                config,
            ]);
            (
                output.status.code(),
                words(&output.stdout),
                words(&output.stderr),
            )
        };
        let (code, said, _) = about_rules("print");
        assert_eq!(code, Some(0));
        assert!(
            said.contains("connections from outside"),
            "the file is read: {said}"
        );
        let (code, _, message) = about_rules("apply");
        if message.contains("cannot queue packets") {
            return skip_back_end("iptables-nft", &message);
        }
        assert_eq!(code, Some(0), "{message}");
        let (code, said, message) = about_rules("check");
        assert_eq!(
            (code, &*said),
            (Some(0), "the rules of iptables-nft are in place\n"),
            "{message}"
        );

        assert!(
            run("nft", &["flush", "chain", "inet", "ftwall", "keep"])
                .status
                .success()
        );
        assert!(
            run("iptables-nft", &["-t", "mangle", "-F", "FORWARD"])
                .status
                .success()
        );
        let (code, said, _) = about_rules("check");
        assert_eq!(code, Some(4));
        for fault in [
            "in keep a rule is missing: answer: cleared",
            "no rule of mangle FORWARD leads to FTWALL",
        ] {
            assert!(said.contains(fault), "{said}");
        }
        assert_eq!(about_rules("apply").0, Some(0));
        assert_eq!(about_rules("check").0, Some(0));
        assert!(ftwall(&["rules", "remove"]).status.success());
        let (code, said, _) = about_rules("check");
        assert_eq!(code, Some(4));
        assert!(
            said.starts_with("there is no table inet ftwall\n"),
            "{said}"
        );
    });
}

#[test]
fn the_kernel_accepts_what_rules_print_shows() {
    in_namespaces("the_kernel_accepts_what_rules_print_shows", || {
        for extra in [
            &[][..],
            &[
                "--strictness",
                "strict",
                "--block-inbound",
                "--open-port",
                "tcp/443",
            ],
            &["--queues", "4"],
        ] {
            let arguments = [&["rules", "print", "--backend", "iptables-nft"], extra].concat();
            let printed = words(&ftwall(&arguments).stdout);
            let (nft, xt) = printed
                .split_once("\n# iptables-nft-restore --noflush\n")
                .expect("two parts");
            let json = nft.strip_prefix("# nft -j -f -\n").expect("a heading");
            feed("nft", &["-c", "-j", "-f", "-"], json);
            feed("iptables-nft-restore", &["--test", "--noflush"], xt);
        }
        // Of the native back end everything but the statement that this kernel may lack.
        let native = words(&ftwall(&["rules", "print", "--backend", "nft"]).stdout);
        let lines = native
            .lines()
            .filter(|line| !line.starts_with('#') && !line.contains(r#""queue":{"#));
        let native: Vec<&str> = lines.collect();
        feed("nft", &["-c", "-j", "-f", "-"], &native.join("\n"));
        assert_eq!(ruleset(), "");
    });
}

#[test]
fn examining_the_machine_leaves_no_trace() {
    in_namespaces("examining_the_machine_leaves_no_trace", || {
        let report = ftwall(&["doctor", "-o", "json"]);
        let code = report.status.code();
        assert!(
            matches!(code, Some(0 | 4)),
            "{code:?}: {}",
            words(&report.stdout)
        );
        let report: Value = serde_json::from_slice(&report.stdout).expect("one object");
        let checks = report["checks"].as_array().expect("a list of checks");
        assert!(checks.len() > 10, "{report}");
        assert!(
            checks.iter().all(|check| check["state"] != "no_privilege"),
            "{report}"
        );
        assert_eq!(ruleset(), "");
    });
}

#[test]
fn a_daemon_asked_to_end_leaves_no_rule() {
    in_namespaces("a_daemon_asked_to_end_leaves_no_rule", || {
        let before = ruleset();
        for signal in ["TERM", "INT"] {
            let Some(daemon) = Daemon::start(&[]) else {
                return;
            };
            assert_eq!(daemon.ready["queue"], 0);
            assert!(ruleset().contains("table inet ftwall"));
            assert_eq!(daemon.end(signal).code(), Some(0));
            assert_eq!(ruleset(), before, "after SIG{signal}");
        }
    });
}

#[test]
fn a_queue_of_another_program_is_named_and_no_rule_is_loaded() {
    in_namespaces(
        "a_queue_of_another_program_is_named_and_no_rule_is_loaded",
        || {
            let Ok(_others) = open(QueueReader::Netlink, QueueSettings::of(5)) else {
                return skip_back_end("any", "this kernel does not queue");
            };
            let rules = ruleset();
            let refused = ftwall(&["run", "--queue", "5"]);
            let message = words(&refused.stderr);
            assert_eq!(refused.status.code(), Some(1), "{message}");
            assert!(
                message.contains("queue 5 is bound by another program"),
                "{message}"
            );
            assert!(message.contains("--queue"), "{message}");
            assert_eq!(ruleset(), rules);
        },
    );
}

#[test]
fn a_daemon_takes_over_the_rules_of_a_killed_one() {
    in_namespaces("a_daemon_takes_over_the_rules_of_a_killed_one", || {
        let before = ruleset();
        let Some(killed) = Daemon::start(&[]) else {
            return;
        };
        assert_eq!(killed.end("KILL").code(), None);
        feed(
            "nft",
            &["-f", "-"],
            "add element inet ftwall locked { 10.77.1.1 timeout 100s }",
        );
        let heir = Daemon::start(&[]).expect("the first one started");
        assert!(ruleset().contains("10.77.1.1"), "what was learned stays");
        assert!(!ruleset().contains("a daemon is starting"));
        assert_eq!(heir.end("TERM").code(), Some(0));
        assert_eq!(ruleset(), before);
    });
}

#[test]
fn a_connection_that_came_up_without_a_daemon_is_in_its_middle_for_the_next_one() {
    in_namespaces(
        "a_connection_that_came_up_without_a_daemon_is_in_its_middle_for_the_next_one",
        || {
            build_network();
            let start = || Daemon::start(&["--inside", "10.77.0.0/16", "--when-down", "pass"]);
            let Some(killed) = at("gw", start) else {
                return;
            };
            assert_eq!(killed.end("KILL").code(), None);
            let listener =
                at("out", || TcpListener::bind("203.0.113.7:5222")).expect("the port is free");
            let mut client = at("client", || dial("203.0.113.7:5222")).expect("nobody is locked");
            let (mut server, _) = listener.accept().expect("the client has come");
            let mut say = |octets: &[u8]| {
                client.write_all(octets).expect("the network is up");
                let mut heard = vec![0; octets.len()];
                server
                    .read_exact(&mut heard)
                    .expect("what is watched passes");
            };
            say(b"nobody sees this");

            let mut heir = at("gw", start).expect("the first one started");
            // As many as it takes until a connection that says nothing known is let go.
            for _ in 0..8 {
                say(b"\x00\x01\xfe\xffbinary");
            }
            heir.signal("TERM");
            let verdicts = heir.wait_event("stats")["ftwall"]["verdicts"].clone();
            assert!(verdicts["tolerate/midstream"].is_u64(), "{verdicts}");
            assert!(heir.child.wait().expect("it was started here").success());
        },
    );
}

#[test]
fn a_start_that_fails_leaves_no_rule() {
    in_namespaces("a_start_that_fails_leaves_no_rule", || {
        let output = ftwall(&["run", "--events", "/no/such/directory/events"]);
        assert_eq!(output.status.code(), Some(78), "{}", words(&output.stderr));
        assert_eq!(ruleset(), "");
    });
}

#[test]
fn without_privilege_the_missing_capability_is_named() {
    let probe = run("unshare", &["-U", "true"]);
    if !probe.status.success() {
        return skip("without_privilege", &words(&probe.stderr));
    }
    for (arguments, capability) in [
        (&["run"][..], "CAP_NET_RAW"),
        (&["run", "--reply", "none", "--no-reprobe"], "CAP_NET_ADMIN"),
        (&["rules", "apply"], "CAP_NET_ADMIN"),
        (&["rules", "remove"], "CAP_NET_ADMIN"),
    ] {
        // A user namespace alone: no power over the network namespace the test runs in.
        let output = Command::new("unshare")
            .args(["-U", env!("CARGO_BIN_EXE_ftwall")])
            .args(arguments)
            .output()
            .expect("unshare has just been run");
        let message = words(&output.stderr);
        assert_eq!(output.status.code(), Some(77), "{arguments:?}: {message}");
        assert!(message.contains(capability), "{arguments:?}: {message}");
    }
}

#[test]
fn a_ping_is_dropped_answered_and_locks_while_the_web_passes() {
    in_namespaces(
        "a_ping_is_dropped_answered_and_locks_while_the_web_passes",
        || {
            build_network();
            for reader in QueueReader::ALL {
                for workers in ["1", "4"] {
                    assert_ping_is_dropped_and_web_passes(reader, workers);
                }
            }
        },
    );
}

fn assert_ping_is_dropped_and_web_passes(reader: QueueReader, workers: &str) {
    let network = ["--inside", "10.77.0.0/16", "--queues", workers];
    let options = [&network[..], &["--queue-reader", reader.name()]].concat();
    let Some(mut daemon) = at("gw", || Daemon::start(&options)) else {
        return;
    };
    assert_eq!(daemon.ready["reader"], reader.name());
    let queues = daemon.ready["queues"].as_array().expect("a list of queues");
    let numbers = queues.iter().filter_map(|queue| queue["number"].as_u64());
    let all = 2 * workers.parse::<u64>().expect("a number");
    assert_eq!(numbers.collect::<Vec<_>>(), (0..all).collect::<Vec<_>>());
    assert_eq!(
        fetch_page(),
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
    );

    let (client, peer) = (udp("client", "10.77.1.1:2301"), udp("out", "0.0.0.0:1214"));
    client
        .send_to(GIFT_PING, "198.18.0.9:1214")
        .expect("the network is up");
    let mut answer = [0; 64];
    let (len, from) = client.recv_from(&mut answer).expect("ftwall answers");
    assert_eq!((answer[0], len), (0x28, 17));
    assert_eq!(from.to_string(), "198.18.0.9:1214");

    // The peer hears another datagram of the same client, so it would have heard the ping.
    client
        .send_to(b"not a ping", "198.18.0.8:1214")
        .expect("the network is up");
    let mut heard = [0; 64];
    let (len, _) = peer.recv_from(&mut heard).expect("other datagrams pass");
    assert_eq!(&heard[..len], b"not a ping");

    daemon.wait_event("client.locked");
    wait_for("the kernel to know the lock", || {
        at("gw", ruleset).contains("10.77.1.1 timeout")
    });
    let listener = at("out", || TcpListener::bind("0.0.0.0:2000")).expect("the port is free");
    let dialed = at("client", || dial("198.18.0.10:2000"));
    assert_eq!(
        dialed.expect_err("the dial is dropped").kind(),
        ErrorKind::TimedOut
    );
    drop(listener);
    assert_eq!(
        fetch_page(),
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
    );

    daemon.signal("TERM");
    let verdicts = daemon.wait_event("stats")["ftwall"]["verdicts"].clone();
    assert_eq!(verdicts["drop/ping"], 1, "{verdicts}");
    // Each page's flow, and again for a segment that was queued before the mark was kept.
    let cleared = verdicts["clear/http"].as_u64();
    assert!(cleared >= Some(2), "{verdicts}");
    assert!(daemon.child.wait().expect("it was started here").success());
    assert_eq!(at("gw", ruleset), "");
}

#[test]
fn a_reader_of_events_who_hangs_holds_up_neither_packets_nor_the_end() {
    in_namespaces(
        "a_reader_of_events_who_hangs_holds_up_neither_packets_nor_the_end",
        || {
            build_network();
            let options = ["--inside", "10.77.0.0/16", "--events", "-"];
            // Beyond its first line nobody reads what it writes.
            let Some(daemon) = at("gw", || Daemon::start(&options)) else {
                return;
            };
            let client = udp("client", "10.77.1.1:2301");
            // Each is reported twice, as a drop and as a peer: several times what a pipe holds.
            for peer in 0..600_u16 {
                let [high, low] = peer.to_be_bytes();
                let peer = std::net::SocketAddr::from(([198, 18, high, low], 1214));
                client.send_to(GIFT_PING, peer).expect("the network is up");
                let mut answer = [0; 64];
                client.recv_from(&mut answer).expect("ftwall answers");
            }
            assert!(fetch_page().ends_with("ok"));
            assert_eq!(daemon.end("TERM").code(), Some(0));
            assert_eq!(at("gw", ruleset), "");
        },
    );
}

/// The ping of giFT, from its source: type, least encryption word, 0x80, network name.
pub(crate) const GIFT_PING: &[u8] = b"\x27\x00\x00\x00\x29\x80KaZaA\x00";
