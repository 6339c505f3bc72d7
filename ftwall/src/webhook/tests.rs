use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;

use super::*;
use crate::control::events::line;
use crate::event::Details;
use crate::{Event, Timestamp};

const PATIENCE: Duration = Duration::from_secs(10);

#[test]
fn clients_that_are_locked_within_the_window_are_told_in_one_signed_post() {
    let server = Server::start();
    let secret = SecretFile::new("one", "Jefe\n");
    let webhook = start(&server.url(), Some(&secret.0), Duration::from_millis(200));
    let notifier = webhook.notifier();
    for last in 1..=3 {
        tell(&notifier, &locked(last));
    }
    let mut other = locked(9);
    other.event_type = EventType::ClientReleased;
    tell(&notifier, &other);

    let posted = server.next_answered(200);
    let body: Value = serde_json::from_str(&posted.body).expect("it is JSON");
    let events = body["events"].as_array().expect("a list");
    let clients: Vec<_> = events
        .iter()
        .map(|it| it["ftwall"]["client"].clone())
        .collect();
    assert_eq!(clients, ["10.77.1.1", "10.77.1.2", "10.77.1.3"]);
    assert_eq!(events[0]["event_type"], "client.locked");
    assert_eq!(events[0]["timestamp"], "2026-09-21T14:13:20.000000Z");
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, b"Jefe");
    let signature = posted
        .field("x-ftwall-signature-256")
        .expect("it is signed");
    let signed = signature.strip_prefix("sha256=").expect("it says by what");
    let tag: Vec<u8> = (0..signed.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&signed[at..at + 2], 16).expect("two digits"))
        .collect();
    assert!(ring::hmac::verify(&key, posted.body.as_bytes(), &tag).is_ok());

    wait_until(|| webhook.steering().delivered().sent == 3);
    assert_eq!(
        webhook.steering().delivered(),
        Delivered {
            sent: 3,
            failed: 0,
            dropped: 0
        }
    );
    drop(notifier);
    webhook.finish();
}

#[test]
fn a_receiver_that_is_down_is_told_when_it_comes_back() {
    let server = Server::start();
    let address = server.address;
    drop(server);
    let webhook = start(&format!("http://{address}/hook"), None, Duration::ZERO);
    let notifier = webhook.notifier();
    tell(&notifier, &locked(1));
    let server = Server::at(address);
    // It is not ready yet when it is asked first.
    let first = server.next_answered(503);
    let second = server.next_answered(200);
    assert_eq!(first.body, second.body);
    assert!(
        first.field("x-ftwall-signature-256").is_none(),
        "no secret, no signature"
    );
    wait_until(|| webhook.steering().delivered().sent == 1);
    drop(notifier);
    webhook.finish();
}

#[test]
fn a_receiver_that_refuses_for_good_is_not_asked_again() {
    let server = Server::start();
    let webhook = start(&server.url(), None, Duration::ZERO);
    let notifier = webhook.notifier();
    tell(&notifier, &locked(1));
    server.next_answered(404);
    wait_until(|| webhook.steering().delivered().failed == 1);
    tell(&notifier, &locked(2));
    assert!(server.next_answered(200).body.contains("10.77.1.2"));
    drop(notifier);
    webhook.finish();
}

#[test]
fn a_receiver_that_hangs_holds_nobody_up_and_what_is_dropped_is_counted() {
    let server = Server::start();
    let webhook = start(&server.url(), None, Duration::ZERO);
    let notifier = webhook.notifier();
    let many = u64::try_from(2 * BACKLOG).expect("it is small");
    for _ in 0..many {
        tell(&notifier, &locked(1));
    }
    let delivered = webhook.steering().delivered();
    assert!(delivered.dropped >= many / 2 - u64::try_from(MOST).expect("it is small"));
    assert_eq!((delivered.sent, delivered.failed), (0, 0));
}

#[test]
fn what_waits_goes_to_whom_it_was_changed_to_at_once() {
    let (old, new) = (Server::start(), Server::start());
    let secret = SecretFile::new("changed", "Jefe\n");
    let webhook = start(&old.url(), None, Duration::ZERO);
    let notifier = webhook.notifier();
    tell(&notifier, &locked(1));
    let first = old.next_answered(503);
    let second = old.next_answered(503);
    // It pauses by now, or is about to.
    let changed = settings(&new.url(), Some(&secret.0), Duration::ZERO);
    webhook.steering().tell(Some(changed));
    let third = new.next_answered(200);
    assert_eq!([&first.body, &second.body], [&third.body; 2]);
    assert!(third.field("x-ftwall-signature-256").is_some());
    wait_until(|| webhook.steering().delivered().sent == 1);

    webhook.steering().tell(None);
    tell(&notifier, &locked(2));
    webhook
        .steering()
        .tell(Some(settings(&new.url(), None, Duration::ZERO)));
    tell(&notifier, &locked(3));
    assert!(new.next_answered(200).body.contains("10.77.1.3"));
    wait_until(|| webhook.steering().delivered().sent == 2);
    let delivered = webhook.steering().delivered();
    assert_eq!(
        (delivered.failed, delivered.dropped),
        (0, 0),
        "who is off counts nothing"
    );
    drop(notifier);
    webhook.finish();
}

#[test]
fn pauses_double_until_the_longest() {
    assert_eq!(pause(1), FIRST_PAUSE);
    assert_eq!(pause(4), 8 * FIRST_PAUSE);
    assert_eq!(pause(40), LONGEST_PAUSE);
}

#[test]
fn a_receiver_that_refuses_connections_has_two_minutes_to_come_back() {
    let pauses: Duration = (1..ATTEMPTS).map(pause).sum();
    let promised = Duration::from_secs(120);
    assert!(pauses >= promised && pauses < promised + FIRST_PAUSE * 10);
}

fn start(url: &str, secret: Option<&PathBuf>, window: Duration) -> Webhook {
    let webhook = Webhook::start(Clock::start()).expect("threads are left");
    webhook.steering().tell(Some(settings(url, secret, window)));
    webhook
}

fn settings(url: &str, secret: Option<&PathBuf>, window: Duration) -> WebhookSettings {
    let receiver = Receiver::new(url, secret.map(PathBuf::as_path));
    WebhookSettings {
        receiver: receiver.expect("the secret can be read"),
        window,
    }
}

fn tell(notifier: &Notifier, event: &Event) {
    let line = line(Timestamp::from_secs(1_790_000_000), event);
    notifier.event(event.event_type, &line);
}

fn locked(last: u8) -> Event {
    Event {
        event_type: EventType::ClientLocked,
        packet: None,
        ftwall: Details {
            client: Some(Ipv4Addr::new(10, 77, 1, last)),
            ..Details::default()
        },
    }
}

/// What happens on another thread at once, or nearly.
fn wait_until(is_so: impl Fn() -> bool) {
    let clock = Clock::start();
    let until = clock.now() + PATIENCE;
    while !is_so() {
        assert!(clock.now() < until, "waited in vain");
        std::thread::yield_now();
    }
}

struct SecretFile(PathBuf);

impl SecretFile {
    fn new(name: &str, secret: &str) -> SecretFile {
        let id = std::process::id();
        let path = std::env::temp_dir().join(format!("ftwall-webhook-{name}-{id}"));
        std::fs::write(&path, secret).expect("the place is ours");
        SecretFile(path)
    }
}

impl Drop for SecretFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// A web server that answers when it is told to.
struct Server {
    listener: TcpListener,
    address: SocketAddr,
}

struct Posted {
    head: Vec<String>,
    body: String,
}

impl Posted {
    fn field(&self, name: &str) -> Option<&str> {
        let fields = self.head.iter().filter_map(|line| line.split_once(": "));
        let mut named = fields.filter(|(field, _)| field.eq_ignore_ascii_case(name));
        named.next().map(|(_, value)| value)
    }
}

impl Server {
    fn start() -> Server {
        Server::at(SocketAddr::from(([127, 0, 0, 1], 0)))
    }

    fn at(address: SocketAddr) -> Server {
        let listener = TcpListener::bind(address).expect("the port is free");
        let address = listener.local_addr().expect("it is bound");
        Server { listener, address }
    }

    fn url(&self) -> String {
        format!("http://{}/hook", self.address)
    }

    /// Takes the next request and answers with this code.
    fn next_answered(&self, code: u16) -> Posted {
        let (stream, _) = self.listener.accept().expect("somebody comes");
        stream
            .set_read_timeout(Some(PATIENCE))
            .expect("it is not zero");
        let mut reader = BufReader::new(stream);
        let lines = reader
            .by_ref()
            .lines()
            .map(|line| line.expect("a head is text"));
        let head: Vec<String> = lines.take_while(|line| !line.is_empty()).collect();
        assert_eq!(head[0], "POST /hook HTTP/1.1");
        let mut posted = Posted {
            head,
            body: String::new(),
        };
        let length = posted
            .field("content-length")
            .and_then(|it| it.parse().ok());
        let mut body = vec![0; length.expect("it says how long it is")];
        reader
            .read_exact(&mut body)
            .expect("it is as long as it says");
        posted.body = String::from_utf8(body).expect("it is text");
        let answer =
            format!("HTTP/1.1 {code} As told\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        reader
            .get_mut()
            .write_all(answer.as_bytes())
            .expect("it listens");
        posted
    }
}
