//! Another program that is told of locked clients, over the network the gateway itself reaches.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};

use serde_json::Value;

use super::harness::{PATIENCE, ftwall, in_namespaces, words};
use super::network::{at, build_network, heard, ip, udp};
use super::operations::{CONFIG, PEER, ping, said, start, write};

pub(crate) const HOOK: &str = "203.0.113.5:8080";
const SIGNATURE: &str = "x-ftwall-signature-256: sha256=";
const SECRET: &str = "/run/etc/webhook.secret";

#[test]
fn a_locked_client_is_told_and_whoever_does_not_answer_holds_nobody_up() {
    in_namespaces(
        "webhook::a_locked_client_is_told_and_whoever_does_not_answer_holds_nobody_up",
        || {
            let config = format!(
                "inside = [\"10.77.0.0/16\"]\nprivacy = \"truncate\"\nlock_time = \"2s\"\n\
                 webhook = \"http://{HOOK}/hook\"\nwebhook_secret_file = \"{SECRET}\"\n\
                 webhook_window = \"0s\"\n"
            );
            assert_secret_is_asked_for(&config);
            fs::write(SECRET, "Jefe\n").expect("the place is ours");
            let Some((mut daemon, client)) = start(&config) else {
                return;
            };
            let receiver = at("out", || TcpListener::bind(HOOK)).expect("the port is free");
            ping(&client);
            daemon.wait_event("client.locked");
            let (stream, _) = receiver.accept().expect("the gateway comes");
            let (head, body) = posted(&stream);
            assert!(head.starts_with("POST /hook HTTP/1.1\r\n"), "{head}");
            assert!(head.to_ascii_lowercase().contains(SIGNATURE), "{head}");
            let [told] = &body["events"].as_array().expect("a list")[..] else {
                panic!("{body}");
            };
            assert_eq!(told["event_type"], "client.locked");
            assert_eq!(told["ftwall"]["client"], "10.77.1.0", "as in the log");

            // It has not answered yet, and does not: the next client is judged all the same.
            daemon.wait_event("client.released");
            let peer = udp("out", PEER);
            peer.set_nonblocking(true).expect("it is open");
            ping(&client);
            daemon.wait_event("client.locked");
            assert_eq!(heard(&peer), 0);
            answer(&stream);
            let (second, _) = receiver.accept().expect("the gateway comes again");
            posted(&second);
            answer(&second);
            daemon.signal("TERM");
            let counted = daemon.wait_event("stats");
            assert_eq!(counted["ftwall"]["webhook"]["failed"], 0, "{counted}");
            assert_eq!(counted["ftwall"]["webhook"]["dropped"], 0, "{counted}");
        },
    );
}

#[test]
fn a_reload_changes_who_is_told_as_a_whole_or_not_at_all() {
    in_namespaces(
        "webhook::a_reload_changes_who_is_told_as_a_whole_or_not_at_all",
        || {
            let plain = "inside = [\"10.77.0.0/16\"]\nlock_time = \"2s\"\n";
            let Some((mut daemon, client)) = start(plain) else {
                return;
            };
            let receiver = at("out", || TcpListener::bind(HOOK)).expect("the port is free");
            let told =
                format!("{plain}webhook = \"http://{HOOK}/hook\"\nwebhook_window = \"0s\"\n");
            let signed = format!("{told}webhook_secret_file = \"{SECRET}\"\n");
            write(&signed);
            let refused = ftwall(&["reload"]);
            assert_eq!(refused.status.code(), Some(78));
            let message = words(&refused.stderr);
            assert!(message.contains(SECRET), "{message}");
            // Nobody is told as yet, so that the first to be told of is the second to be locked.
            ping(&client);
            daemon.wait_event("client.locked");
            daemon.wait_event("client.released");

            fs::write(SECRET, "Jefe\n").expect("the place is ours");
            let taken = said(&["reload"], 0);
            assert!(!taken.contains("started again"), "{taken}");
            ping(&client);
            let locked = daemon.wait_event("client.locked");
            let (stream, _) = receiver.accept().expect("the gateway comes");
            let (head, body) = posted(&stream);
            assert!(head.to_ascii_lowercase().contains(SIGNATURE), "{head}");
            assert_eq!(body["events"], Value::Array(vec![locked]));
            answer(&stream);
            daemon.wait_event("client.released");

            write(&told);
            said(&["reload"], 0);
            ping(&client);
            daemon.wait_event("client.locked");
            let (stream, _) = receiver.accept().expect("the gateway comes again");
            let (head, _) = posted(&stream);
            assert!(!head.to_ascii_lowercase().contains(SIGNATURE), "{head}");
            answer(&stream);
            daemon.signal("TERM");
            let counted = daemon.wait_event("stats");
            assert_eq!(counted["ftwall"]["webhook"]["failed"], 0, "{counted}");
            assert_eq!(counted["ftwall"]["webhook"]["dropped"], 0, "{counted}");
        },
    );
}

/// Without its secret a daemon does not start: nobody would notice that deliveries are not signed.
fn assert_secret_is_asked_for(config: &str) {
    build_network();
    write(config);
    let refused = at("gw", || ftwall(&["run", "--config", CONFIG]));
    let said = words(&refused.stderr);
    assert_eq!(refused.status.code(), Some(78), "{said}");
    let expected = format!("cannot read the secret of webhook_secret_file in {SECRET}: ");
    assert!(said.contains(&expected), "{said}");
    for node in ["client", "gw", "out"] {
        ip(&["netns", "delete", node]);
    }
}

/// Head and body of a request.
pub(crate) fn posted(stream: &TcpStream) -> (String, Value) {
    stream
        .set_read_timeout(Some(PATIENCE))
        .expect("it is not zero");
    let mut reader = BufReader::new(stream);
    let (mut head, mut length) = (String::new(), 0);
    while !head.ends_with("\r\n\r\n") {
        let mut line = String::new();
        reader.read_line(&mut line).expect("a head is text");
        if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            length = value.trim().parse().expect("a number");
        }
        head += &line;
    }
    let mut body = vec![0; length];
    reader
        .read_exact(&mut body)
        .expect("it is as long as it says");
    (head, serde_json::from_slice(&body).expect("it is JSON"))
}

pub(crate) fn answer(mut stream: &TcpStream) {
    stream
        .write_all(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n")
        .expect("somebody listens");
}
