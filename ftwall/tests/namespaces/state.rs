//! What survives a restart, on a real disk and in a real kernel.

use std::net::UdpSocket;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::GIFT_PING;
use super::harness::{Daemon, ftwall, in_namespaces, ruleset, wait_for, words};
use super::network::{at, build_network, udp};

const PEER: &str = "198.18.0.9:1214";

#[test]
fn locks_peers_and_what_was_set_by_hand_survive_kill_and_clean_end_and_a_new_kernel() {
    in_namespaces(
        "state::locks_peers_and_what_was_set_by_hand_survive_kill_and_clean_end_and_a_new_kernel",
        || {
            build_network();
            let place = Place::new("survives");
            let Some(mut daemon) = place.start() else {
                return;
            };
            ping(&udp("client", "10.77.1.1:2301"));
            daemon.wait_event("client.locked");
            said(&["block", "10.77.3.3", "--for", "1h"]);
            said(&["unblock", "10.77.4.4", "--for", "1h"]);
            said(&["mode", "monitor", "--subnet", "10.77.5.0/24", "--for", "1h"]);
            place.wait_written(&[
                "10.77.1.1",
                "198.18.0.9:1214",
                "10.77.3.3",
                "10.77.4.4",
                "10.77.5.0/24",
            ]);
            daemon.end("KILL");

            // The kernel still holds its sets.
            let mut daemon = place.start().expect("the first one started");
            place.assert_known(&mut daemon);
            // A clean end takes rules and sets away, as a new start of the machine does.
            assert_eq!(daemon.end("TERM").code(), Some(0));
            assert_eq!(at("gw", ruleset), "");

            let mut daemon = place.start().expect("the first one started");
            place.assert_known(&mut daemon);
            let rules = at("gw", ruleset);
            for element in [
                "10.77.1.1 timeout",
                "10.77.3.3 timeout",
                "198.18.0.9 . udp . 1214",
            ] {
                assert!(rules.contains(element), "no {element} in {rules}");
            }
            assert_eq!(daemon.end("TERM").code(), Some(0));
        },
    );
}

#[test]
fn a_state_file_that_cannot_be_used_is_set_aside_and_costs_nothing_else() {
    in_namespaces(
        "state::a_state_file_that_cannot_be_used_is_set_aside_and_costs_nothing_else",
        || {
            build_network();
            let place = Place::new("broken");
            for (octets, words) in [
                (&b"ftwall-state 7\n"[..], "it is of version 7"),
                (b"\x7fELF\x02\x01\x01", "it is not a state file of ftwall"),
                (b"ftwall-state 1\n00000000 {}\n", "line 2 is damaged"),
            ] {
                std::fs::create_dir_all(&place.0).expect("the disk is ours");
                std::fs::write(place.file("state"), octets).expect("the disk is ours");
                let Some(mut daemon) = place.start() else {
                    return;
                };
                let event = daemon.wait_event("state.set_aside");
                let message = event["message"].as_str().expect("a message");
                assert!(message.contains(words), "{message}");
                assert!(message.ends_with("state.damaged"), "{message}");
                let aside = std::fs::read(place.file("state.damaged"));
                assert_eq!(aside.expect("it was set aside"), octets);
                ping(&udp("client", "10.77.1.1:2301"));
                daemon.wait_event("client.locked");
                place.wait_written(&["10.77.1.1"]);
                assert_eq!(daemon.end("TERM").code(), Some(0));
            }
        },
    );
}

#[test]
fn a_directory_that_cannot_be_written_to_is_reported_and_the_daemon_goes_on() {
    in_namespaces(
        "state::a_directory_that_cannot_be_written_to_is_reported_and_the_daemon_goes_on",
        || {
            build_network();
            let place = Place::new("unwritable");
            // Not even root makes a directory in a file.
            std::fs::write(&place.0, "a file").expect("the disk is ours");
            let Some(mut daemon) = place.start() else {
                return;
            };
            let event = daemon.wait_event("state.unwritable");
            let message = event["message"].as_str().expect("a message");
            assert!(message.starts_with("/run/unwritable: "), "{message}");
            ping(&udp("client", "10.77.1.1:2301"));
            daemon.wait_event("client.locked");
            let status = ftwall(&["status"]);
            assert_eq!(status.status.code(), Some(4));
            let shown = words(&status.stdout);
            assert!(
                shown.contains("state cannot be written: /run/unwritable"),
                "{shown}"
            );
            assert_eq!(daemon.end("TERM").code(), Some(0));
        },
    );
}

/// A state directory on the test's own file system.
struct Place(PathBuf);

impl Place {
    fn new(name: &str) -> Self {
        Self(Path::new("/run").join(name))
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    fn start(&self) -> Option<Daemon> {
        let directory = self.0.to_str().expect("a literal");
        let options = ["--inside", "10.77.0.0/16", "--state-directory", directory];
        at("gw", || Daemon::start(&options))
    }

    /// Waits until the file says all of this.
    fn wait_written(&self, texts: &[&str]) {
        wait_for("the state to be written", || {
            // Asking the daemon takes about as long as writing does.
            ftwall(&["status"]);
            let written = std::fs::read_to_string(self.file("state")).unwrap_or_default();
            texts.iter().all(|text| written.contains(text))
        });
    }

    /// Asks a daemon that has just started for everything that the one before it was told.
    fn assert_known(&self, daemon: &mut Daemon) {
        let restored = daemon.wait_event("state.restored");
        assert_eq!(
            (&restored["clients"], &restored["peers"]),
            (&2.into(), &1.into())
        );
        let clients = json(&["clients"]);
        assert_eq!(clients[0]["client"], "10.77.1.1");
        assert_eq!(clients[0]["origin"]["evidence"], "udp_ping");
        assert_eq!(clients[1]["origin"], "operator");
        // Longer than any lock that nobody asked for.
        assert!(
            clients[1]["left_seconds"].as_u64() > Some(3000),
            "{clients}"
        );
        let peers = json(&["peers"]);
        assert_eq!(
            (&peers[0]["client"], &peers[0]["peer"]),
            (&"10.77.1.1".into(), &PEER.into())
        );
        let passes = json(&["explain", "10.77.4.4"])["tests"].to_string();
        assert!(
            passes.contains(r#"{"holds":true,"name":"unblocked"}"#),
            "{passes}"
        );
        assert_eq!(json(&["status"])["overrides"][0]["subnet"], "10.77.5.0/24");
    }
}

fn ping(client: &UdpSocket) {
    client.send_to(GIFT_PING, PEER).expect("the network is up");
}

fn said(arguments: &[&str]) -> String {
    let output = ftwall(arguments);
    let message = words(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{arguments:?}: {message}");
    words(&output.stdout)
}

fn json(arguments: &[&str]) -> Value {
    let text = said(&[arguments, &["-o", "json"]].concat());
    serde_json::from_str(&text).expect("JSON was asked for")
}
