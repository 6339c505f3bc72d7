//! The file of events of a running daemon: who stands in it, and how it is set aside and followed.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};

use super::harness::{in_namespaces, run, wait_for};
use super::operations::{CONFIG, ping, said, start};

const LOG: &str = "/run/etc/events.json";

#[test]
fn events_are_private_if_wanted_and_their_file_can_be_set_aside_while_somebody_follows_it() {
    in_namespaces(
        "events::events_are_private_if_wanted_and_their_file_can_be_set_aside_while_somebody_follows_it",
        || {
            let config = format!(
                "inside = [\"10.77.0.0/16\"]\nevents = \"{LOG}\"\nprivacy = \"truncate\"\n"
            );
            let Some((daemon, client)) = start(&config) else {
                return;
            };
            let mut reader = Command::new(env!("CARGO_BIN_EXE_ftwall"))
                .args([
                    "events",
                    "--follow",
                    "--config",
                    CONFIG,
                    "--type",
                    "client.locked",
                ])
                .args(["--type", "client.released"])
                .stdout(Stdio::piped())
                .spawn()
                .expect("the binary was built for this test");
            let mut lines = BufReader::new(reader.stdout.take().expect("it is piped")).lines();
            let mut next = || lines.next().expect("somebody writes").expect("it is text");

            ping(&client);
            let locked = next();
            assert!(
                locked.contains("client.locked UDP 10.77.1.0:2301 > 198.18.0.9:1214"),
                "{locked}"
            );
            assert!(
                !fs::read_to_string(LOG)
                    .expect("it is there")
                    .contains("10.77.1.1\"")
            );

            // As logrotate does it: rename, then ask for a new file.
            fs::rename(LOG, "/run/etc/events.old").expect("it is there");
            assert_eq!(said(&["log-reopen"], 0), format!("events go to {LOG}\n"));
            wait_for("a new file of events", || fs::exists(LOG).unwrap_or(false));
            said(&["unblock", "10.77.1.1", "--for", "1h"], 0);
            let released = next();
            assert!(released.contains("client.released"), "{released}");
            let [old, new] = ["/run/etc/events.old", LOG]
                .map(|file| fs::read_to_string(file).expect("it is there"));
            assert!(
                old.contains("client.locked") && !old.contains("client.released"),
                "{old}"
            );
            assert!(
                new.contains("client.released") && !new.contains("client.locked"),
                "{new}"
            );

            // The signal does the same.
            fs::rename(LOG, "/run/etc/events.older").expect("it is there");
            daemon.signal("USR1");
            wait_for("another file of events", || {
                run("test", &["-e", LOG]).status.success()
            });
            assert_eq!(daemon.end("TERM").code(), Some(0));
            reader.kill().expect("it follows still");
            reader.wait().expect("it was started here");
        },
    );
}
