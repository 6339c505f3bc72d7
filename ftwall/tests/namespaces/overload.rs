//! What becomes of packets that find a queue full, against a real kernel: the daemon is stopped, so that its
//! queues fill; that it answers nobody lets nothing pass (`when_down`).

use std::io::Write as _;
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use super::harness::{Daemon, in_namespaces};
use super::network::{at, dial};
use super::places::{daemon_beside_a_guest, hears, remove_nodes};

/// A web port: dials of locked hosts to it are left to the payload.
const SERVER: &str = "203.0.113.5:80";
/// Connections, each with a window of segments under way: more than any queue or its socket has room for.
const FLOOD: usize = 420;
const WINDOW: usize = 10;
/// How long what is dropped is waited for.
const VAIN: Duration = Duration::from_secs(1);

#[test]
fn a_queue_without_room_lets_pass_what_was_chosen_and_no_suspect() {
    in_namespaces(
        "overload::a_queue_without_room_lets_pass_what_was_chosen_and_no_suspect",
        || {
            for (when_overloaded, passes) in [("drop", false), ("pass", true)] {
                let settings =
                    format!("when_overloaded = \"{when_overloaded}\"\nwhen_down = \"drop\"\n");
                let Some(daemon) = daemon_beside_a_guest(&settings) else {
                    return;
                };
                assert_overflow(daemon, passes);
                remove_nodes();
            }
        },
    );
}

fn assert_overflow(daemon: Daemon, passes: bool) {
    let listener = at("out", || TcpListener::bind(SERVER)).expect("the port is free");
    let connect = |node: &str| {
        let client = at(node, || dial(SERVER)).expect("a handshake has no payload");
        client.set_nodelay(true).expect("it is TCP");
        let (server, _) = listener.accept().expect("the client comes");
        server.set_read_timeout(Some(VAIN)).expect("it is not zero");
        (client, server)
    };

    daemon.signal("STOP");
    let flood: Vec<(TcpStream, TcpStream)> = (0..FLOOD).map(|_| connect("guest")).collect();
    for (client, _) in &flood {
        (0..WINDOW).for_each(|_| say(client, b"x"));
    }
    let (guest, of_guest) = connect("guest");
    say(&guest, b"late");
    assert_eq!(hears(&of_guest), passes, "nobody is against the guest");
    let (suspect, of_suspect) = connect("client");
    say(&suspect, b"late");
    assert!(!hears(&of_suspect), "a locked host waits");

    daemon.signal("CONT");
    assert_eq!(daemon.end("TERM").code(), Some(0));
}

fn say(mut stream: &TcpStream, words: &[u8]) {
    stream
        .write_all(words)
        .expect("there is room in the socket");
}
