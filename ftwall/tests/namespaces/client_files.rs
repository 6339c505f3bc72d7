//! A file for each locked client, for scripts that look into a directory.

use std::fs;

use super::harness::{Daemon, ftwall, in_namespaces, wait_for, words};
use super::network::at;
use super::operations::{CONFIG, ping, said, start, write};

const DIRECTORY: &str = "/run/clients";
const SETTINGS: &str = "inside = [\"10.77.0.0/16\"]\nclient_directory = \"/run/clients\"\n\
    state_directory = \"\"\n";

#[test]
fn a_directory_has_a_file_for_each_locked_client_and_for_nobody_else() {
    in_namespaces(
        "client_files::a_directory_has_a_file_for_each_locked_client_and_for_nobody_else",
        || {
            fs::create_dir_all(DIRECTORY).expect("the file system is ours");
            for left_over in ["10.77.9.9", "notes"] {
                fs::write(format!("{DIRECTORY}/{left_over}"), "of somebody").expect("it is ours");
            }
            let Some((mut daemon, client)) = start(SETTINGS) else {
                return;
            };
            assert_eq!(names(), ["notes"], "only what is named by an address goes");
            ping(&client);
            daemon.wait_event("client.locked");
            wait_for("the file", || names() == ["10.77.1.1", "notes"]);
            let said_there = fs::read_to_string(format!("{DIRECTORY}/10.77.1.1"));
            let said_there = said_there.expect("it was listed");
            assert!(said_there.starts_with("locked since 20"), "{said_there}");
            said(&["block", "10.77.3.3", "--for", "1h"], 0);
            wait_for("one more", || {
                names() == ["10.77.1.1", "10.77.3.3", "notes"]
            });
            said(&["unblock", "10.77.1.1", "--for", "1h"], 0);
            wait_for("one less", || names() == ["10.77.3.3", "notes"]);

            // The kernel remembers who is locked, and whoever comes next lists him.
            daemon.end("KILL");
            let daemon = at("gw", || Daemon::start(&["--config", CONFIG]));
            let daemon = daemon.expect("the first one started");
            assert_eq!(names(), ["10.77.3.3", "notes"]);
            assert_eq!(daemon.end("TERM").code(), Some(0));
            assert_eq!(names(), ["notes"], "nobody is locked any more");

            write("inside = [\"10.77.0.0/16\"]\nclient_directory = \"/proc/clients\"\n");
            let refused = at("gw", || ftwall(&["run", "--config", CONFIG]));
            assert_eq!(refused.status.code(), Some(78));
            let why = words(&refused.stderr);
            assert!(
                why.contains("cannot use the client_directory /proc/clients"),
                "{why}"
            );
        },
    );
}

fn names() -> Vec<String> {
    let entries = fs::read_dir(DIRECTORY).expect("it is there");
    let names = entries.map(|entry| entry.expect("it is there").file_name());
    let mut names: Vec<_> = names
        .map(|name| name.into_string().expect("it is text"))
        .collect();
    names.sort_unstable();
    names
}
