//! What becomes of packets that find a queue full, against a real kernel: the daemon is stopped, so that its
//! queues fill; that it answers nobody lets nothing pass (`when_down`).

use std::io::Write as _;
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use super::harness::{Daemon, in_namespaces};
use super::network::{at, dial_from, ip, udp};
use super::operations::ping;
use super::places::{counted, daemon_beside_a_guest, hears, remove_nodes};

/// A web port: dials of locked hosts to it are left to the payload.
const SERVER: &str = "203.0.113.5:80";
/// Connections, each with a window of segments under way: more than any queue or its socket has room for.
const FLOOD: usize = 420;
const WINDOW: usize = 10;
/// Each of them keeps to what one host may ask at once.
const FLOODERS: [&str; 4] = ["10.78.1.2", "10.78.1.3", "10.78.1.4", "10.78.1.5"];
/// What one host may ask at once.
const AT_ONCE: usize = 2_000;
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
    let connect = |node: &str, from: &str| {
        let client = at(node, || dial_from(from, SERVER)).expect("a handshake has no payload");
        client.set_nodelay(true).expect("it is TCP");
        let (server, _) = listener.accept().expect("the client comes");
        server.set_read_timeout(Some(VAIN)).expect("it is not zero");
        (client, server)
    };

    for address in FLOODERS {
        ip(&[
            "-n",
            "guest",
            "address",
            "add",
            &format!("{address}/16"),
            "dev",
            "eth0",
        ]);
    }
    daemon.signal("STOP");
    let flood: Vec<(TcpStream, TcpStream)> = (0..FLOOD)
        .map(|number| connect("guest", FLOODERS[number % FLOODERS.len()]))
        .collect();
    for (client, _) in &flood {
        (0..WINDOW).for_each(|_| say(client, b"x"));
    }
    let (guest, of_guest) = connect("guest", "10.78.1.1");
    say(&guest, b"late");
    assert_eq!(hears(&of_guest), passes, "nobody is against the guest");
    let (suspect, of_suspect) = connect("client", "10.77.1.1");
    say(&suspect, b"late");
    assert!(!hears(&of_suspect), "a locked host waits");
    let pings = udp("guest", "10.78.1.1:2301");
    (0..10 * AT_ONCE).for_each(|_| ping(&pings));
    let refused = counted("flooded", "no queue has room");
    assert!(
        refused > Some(0),
        "one host had the whole queue: {refused:?}"
    );

    daemon.signal("CONT");
    assert_eq!(daemon.end("TERM").code(), Some(0));
}

fn say(mut stream: &TcpStream, words: &[u8]) {
    stream
        .write_all(words)
        .expect("there is room in the socket");
}
