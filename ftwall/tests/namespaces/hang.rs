//! A daemon that hangs while it listens: the kernel's own `bypass` does nothing then.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use super::harness::{Daemon, in_namespaces, run, wait_for, words};
use super::network::{at, build_network, dial, heard, ip, udp};
use super::operations::{CONFIG, PEER, is_locked_in_kernel, ping, write};
use super::places::add_guest;

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
                build_network();
                add_guest();
                write(&format!(
                    "inside = [\"10.77.0.0/16\", \"10.78.0.0/16\"]\nwhen_down = \"{when_down}\"\n"
                ));
                let Some(daemon) = at("gw", || Daemon::start(&["--config", CONFIG])) else {
                    return;
                };
                assert_hang(daemon, passes);
                for node in ["client", "guest", "gw", "out"] {
                    ip(&["netns", "delete", node]);
                }
            }
        },
    );
}

fn assert_hang(mut daemon: Daemon, passes: bool) {
    ping(&udp("client", "10.77.1.1:2301"));
    daemon.wait_event("client.locked");
    wait_for("the kernel to know the lock", || {
        is_locked_in_kernel("10.77.1.1")
    });
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
    assert_eq!(unseen(), passes.then_some(0));

    daemon.signal("STOP");
    assert_eq!(says_something("guest"), passes);
    ping(&udp("guest", "10.78.1.1:2301"));
    assert!(!says_something("client"), "a locked host waits");
    assert_eq!(
        heard(&peer),
        0,
        "what looks like FastTrack waits, whoever sends it"
    );
    assert_eq!(unseen().is_some_and(|packets| packets > 0), passes);

    daemon.signal("CONT");
    // The guest's ping has waited all the time.
    assert_eq!(
        daemon.wait_event("client.locked")["ftwall"]["client"],
        "10.78.1.1"
    );
    assert_eq!(heard(&peer), 0);
    if passes {
        wait_for("signs of life", || {
            let set = at("gw", || {
                run("nft", &["list", "set", "inet", "ftwall", "alive"])
            });
            words(&set.stdout).contains("expires")
        });
    }
    assert_eq!(daemon.end("TERM").code(), Some(0));
}

/// Packets that passed since nobody answered, if there is a rule that lets them.
fn unseen() -> Option<u64> {
    let chain = at("gw", || {
        run("nft", &["list", "chain", "inet", "ftwall", "enqueue"])
    });
    let chain = words(&chain.stdout);
    let rule = chain.lines().find(|line| line.contains("nobody answers"))?;
    let (_, counted) = rule.split_once("counter packets ").expect("it counts");
    let packets = counted
        .split(' ')
        .next()
        .and_then(|packets| packets.parse().ok());
    Some(packets.expect("a number"))
}

/// Whether anything comes before patience ends.
fn hears(mut stream: &TcpStream) -> bool {
    match stream.read(&mut [0; 16]) {
        Ok(len) => len > 0,
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::WouldBlock, "{error}");
            false
        }
    }
}
