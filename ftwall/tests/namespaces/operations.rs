//! What an operator asks of a running daemon, and what it does then, against a real kernel.

use std::net::UdpSocket;
use std::process::Output;

use serde_json::Value;

use super::GIFT_PING;
use super::harness::{Daemon, ftwall, in_namespaces, ruleset, wait_for, words};
use super::network::{at, build_network, udp};

pub(crate) const CONFIG: &str = "/run/etc/ftwall.toml";
pub(crate) const PEER: &str = "198.18.0.9:1214";

#[test]
fn an_operator_sees_and_lifts_and_sets_what_a_daemon_does() {
    in_namespaces(
        "operations::an_operator_sees_and_lifts_and_sets_what_a_daemon_does",
        || {
            let Some((mut daemon, client)) = start("inside = [\"10.77.0.0/16\"]\n") else {
                return;
            };
            assert_eq!(
                said(&["status"], 0).lines().nth(1),
                Some("mode     enforce (default)")
            );
            ping(&client);
            let locked = daemon.wait_event("client.locked");
            wait_for("the kernel to know the lock", || {
                is_locked_in_kernel("10.77.1.1")
            });

            let clients = json(&["clients"]);
            assert_eq!(clients[0]["client"], "10.77.1.1");
            assert_eq!(clients[0]["origin"]["evidence"], "udp_ping");
            let shown = said(&["clients"], 0);
            assert!(shown.lines().all(|line| line.len() <= 80), "{shown}");
            let peers = said(&["peers", "-o", "csv"], 0);
            assert!(
                peers.starts_with("client,peer,left,learned by\r\n10.77.1.1,198.18.0.9:1214,"),
                "{peers}"
            );
            let why = said(&["explain", "10.77.1.1"], 0);
            for words in [
                "udp_ping -> drop/ping, 1 times",
                "locked by udp_ping",
                "mode enforce",
            ] {
                assert!(why.contains(words), "no {words:?} in: {why}");
            }
            let why = said(&["explain", &locked.to_string()], 0);
            let heading = why.lines().next().expect("it says what is asked about");
            assert!(heading.starts_with("client.locked of "), "{why}");
            assert!(heading.ends_with("10.77.1.1 and 198.18.0.9"), "{why}");
            assert!(why.contains("locked by udp_ping"), "{why}");
            assert_eq!(json(&["explain", PEER])["peers"][0]["client"], "10.77.1.1");

            // At once, and over by itself.
            let lifted = said(&["unblock", "10.77.1.1", "--for", "2s"], 0);
            assert_eq!(
                lifted,
                "10.77.1.1 passes for 2s; lifted: clients 1, peers 1\n"
            );
            wait_for("the kernel to let it go", || {
                !is_locked_in_kernel("10.77.1.1")
            });
            let peer = udp("out", "0.0.0.0:1214");
            ping(&client);
            let mut heard = [0; 64];
            let (len, _) = peer.recv_from(&mut heard).expect("it passes for now");
            assert_eq!(&heard[..len], GIFT_PING);
            daemon.wait_event("operator.unblock_ended");
            ping(&client);
            daemon.wait_event("client.locked");

            said(&["mode", "monitor", "--subnet", "10.77.1.0/24"], 0);
            wait_for("the kernel to let it go", || {
                !is_locked_in_kernel("10.77.1.1")
            });
            ping(&client);
            let event = daemon.wait_event("packet.would_drop");
            assert_eq!(event["ftwall"]["would_have"]["reason"], "ping");
            peer.recv_from(&mut heard)
                .expect("what is monitored passes");
            said(&["mode", "enforce", "--subnet", "10.77.1.0/24"], 0);
            wait_for("the kernel to know the lock again", || {
                is_locked_in_kernel("10.77.1.1")
            });

            said(&["block", "10.77.3.3", "--for", "1h"], 0);
            wait_for("the kernel to know it", || is_locked_in_kernel("10.77.3.3"));
            let refused = ftwall(&["block", "198.18.0.9"]);
            assert_eq!(refused.status.code(), Some(1));
            assert!(words(&refused.stderr).contains("not an inside host"));
            assert_eq!(daemon.end("TERM").code(), Some(0));
            assert_eq!(ftwall(&["status"]).status.code(), Some(3));
        },
    );
}

#[test]
fn a_new_configuration_is_taken_as_a_whole_or_not_at_all_and_nothing_is_forgotten() {
    in_namespaces(
        "operations::a_new_configuration_is_taken_as_a_whole_or_not_at_all_and_nothing_is_forgotten",
        || {
            let good = "inside = [\"10.77.0.0/16\"]\n";
            let Some((mut daemon, client)) = start(good) else {
                return;
            };
            ping(&client);
            daemon.wait_event("client.locked");
            wait_for("the kernel to know the lock", || {
                is_locked_in_kernel("10.77.1.1")
            });

            // Broken: the old one is kept, and everybody is told.
            write("inside = [\"10.77.0.0/16\"]\nlocktime = 5\n");
            let refused = ftwall(&["reload"]);
            assert_eq!(refused.status.code(), Some(78));
            let message = words(&refused.stderr);
            assert!(
                message.contains("ftwall.toml:2:1: there is no key \"locktime\""),
                "{message}"
            );
            let status = said(&["status"], 4);
            assert!(
                status.contains("degraded") && status.contains("locktime"),
                "{status}"
            );
            assert!(is_locked_in_kernel("10.77.1.1"));

            // Whole: rules and policy change, and what was learned stays.
            write(&format!(
                "{good}exempt = [\"10.77.9.9\"]\nlock_time = \"10m\"\nqueue = 7\n"
            ));
            daemon.signal("HUP");
            wait_for("the daemon to take it", || {
                ftwall(&["status"]).status.code() == Some(0)
            });
            let rules = at("gw", ruleset);
            assert!(
                rules.contains("10.77.9.9") && rules.contains("10.77.1.1 timeout"),
                "{rules}"
            );
            assert_eq!(json(&["clients"])[0]["origin"]["evidence"], "udp_ping");
            ping(&client);
            wait_for("the new lock time", || {
                json(&["clients"])[0]["left_seconds"].as_u64() > Some(500)
            });
            let again = said(&["reload"], 0);
            assert!(
                again.contains("queue changes when ftwall is started again"),
                "{again}"
            );

            // An allow entry lifts what stands against it at once.
            let added = said(&["allow", "add", "10.77.1.1", "--config", CONFIG], 0);
            assert_eq!(added, "added: 1, already there: 0; the daemon knows\n");
            wait_for("the kernel to let it go", || {
                !is_locked_in_kernel("10.77.1.1")
            });
            assert_eq!(json(&["clients"]), Value::Array(Vec::new()));
            assert_eq!(daemon.end("TERM").code(), Some(0));
            assert_eq!(at("gw", ruleset), "");
        },
    );
}

#[test]
fn a_first_start_without_any_configuration_only_monitors_and_says_so() {
    in_namespaces(
        "operations::a_first_start_without_any_configuration_only_monitors_and_says_so",
        || {
            build_network();
            let Some(mut daemon) = at("gw", || Daemon::start(&[])) else {
                return;
            };
            let status = json(&["status"]);
            assert_eq!(status["mode"], "monitor");
            assert_eq!(status["mode_from"], "nothing is configured yet");
            ping(&udp("client", "10.77.1.1:2301"));
            daemon.wait_event("packet.would_drop");
            assert!(!is_locked_in_kernel("10.77.1.1"));
            assert_eq!(daemon.end("TERM").code(), Some(0));
        },
    );
}

/// A daemon on the gateway with this configuration, and a client's socket.
pub(crate) fn start(config: &str) -> Option<(Daemon, UdpSocket)> {
    build_network();
    write(config);
    let daemon = at("gw", || Daemon::start(&["--config", CONFIG]))?;
    Some((daemon, udp("client", "10.77.1.1:2301")))
}

pub(crate) fn write(config: &str) {
    std::fs::create_dir_all("/run/etc").expect("the file system is ours");
    std::fs::write(CONFIG, config).expect("the file system is ours");
}

pub(crate) fn ping(client: &UdpSocket) {
    client.send_to(GIFT_PING, PEER).expect("the network is up");
}

pub(crate) fn is_locked_in_kernel(host: &str) -> bool {
    at("gw", ruleset).contains(&format!("{host} timeout"))
}

pub(crate) fn said(arguments: &[&str], code: i32) -> String {
    let output: Output = ftwall(arguments);
    let message = words(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {message}");
    words(&output.stdout)
}

pub(crate) fn json(arguments: &[&str]) -> Value {
    let text = said(&[arguments, &["-o", "json"]].concat(), 0);
    serde_json::from_str(&text).expect("JSON was asked for")
}
