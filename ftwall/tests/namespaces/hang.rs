//! A daemon that hangs while it listens: the kernel's own `bypass` does nothing then.

use std::io::Write as _;
use std::net::TcpListener;
use std::time::Duration;

use super::harness::{Daemon, in_namespaces, run, wait_for, words};
use super::network::{at, dial, heard, udp};
use super::operations::{PEER, ping};
use super::places::{counted, daemon_beside_a_guest, hears, remove_nodes};

const SERVER: &str = "203.0.113.5:80";
/// Several times as long as the kernel believes a daemon that gives no sign of life, and as TCP waits
/// before it says something again.
const VAIN: Duration = Duration::from_secs(4);

#[test]
fn who_is_clean_passes_a_daemon_that_hangs_and_who_is_locked_does_not() {
    in_namespaces(
        "hang::who_is_clean_passes_a_daemon_that_hangs_and_who_is_locked_does_not",
        || {
            for (when_down, passes) in [("pass", true), ("drop", false)] {
                let settings = format!("when_down = \"{when_down}\"\n");
                let Some(daemon) = daemon_beside_a_guest(&settings) else {
                    return;
                };
                assert_hang(daemon, passes);
                remove_nodes();
            }
        },
    );
}

fn assert_hang(mut daemon: Daemon, passes: bool) {
    let peer = udp("out", PEER);
    peer.set_nonblocking(true).expect("it is open");
    let listener = at("out", || TcpListener::bind(SERVER)).expect("the port is free");
    let says_something = |node: &str| {
        let mut client = at(node, || dial(SERVER)).expect("a handshake has no payload");
        let (server, _) = listener.accept().expect("the client comes");
        server.set_read_timeout(Some(VAIN)).expect("it is not zero");
        client.write_all(b"hello").expect("there is room");
        hears(&server)
    };
    assert!(says_something("guest"), "nobody is against the guest");
    let before = unseen();
    assert_eq!(before.is_some(), passes, "there is a rule where it may be");

    daemon.signal("STOP");
    assert_eq!(says_something("guest"), passes);
    ping(&udp("guest", "10.78.1.1:2301"));
    assert!(!says_something("client"), "a locked host waits");
    assert_eq!(
        heard(&peer),
        0,
        "what looks like FastTrack waits, whoever sends it"
    );
    assert_eq!(unseen() > before, passes);

    daemon.signal("CONT");
    // The guest's ping has waited all the time.
    assert_eq!(
        daemon.wait_event("client.locked")["ftwall"]["client"],
        "10.78.1.1"
    );
    assert_eq!(heard(&peer), 0);
    // Whatever when_down says: a reload may change that.
    wait_for("signs of life", || {
        let set = at("gw", || {
            run("nft", &["list", "set", "inet", "ftwall", "alive"])
        });
        words(&set.stdout).contains("expires")
    });
    assert!(
        counted("signs", "a worker comes round") > Some(0),
        "a packet gives them, not a change of the set"
    );
    assert_eq!(daemon.end("TERM").code(), Some(0));
}

/// Packets that passed since nobody answered, if there is a rule that lets them.
fn unseen() -> Option<u64> {
    counted("enqueue", "nobody answers")
}
