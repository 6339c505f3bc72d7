use std::net::SocketAddrV4;

use etherparse::{Ipv4Slice, PacketBuilder, TcpSlice, UdpSlice};
use ftwall::gateway::marks::{MarkBit, MarkField};
use ftwall::gateway::rules::{LOCKED, PEERS};
use lab::presets::Office;

use super::*;

const PING: &[u8] = b"\x27\x00\x00\x00\x29\x80KaZaA\x00";
const PONG: &[u8] = b"\x28\x00\x00\x00\x29\x00\x04\x06\x14\x32\x00KaZaA\x00";
const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: example.org\r\n\r\n";
const RESPONSE: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
const OWN: Ipv4Addr = Office::GATEWAY_WAN;

fn host() -> SocketAddrV4 {
    "10.77.1.1:3456".parse().expect("a literal")
}

fn peer() -> SocketAddrV4 {
    "198.18.0.9:1214".parse().expect("a literal")
}

fn server() -> SocketAddrV4 {
    "203.0.113.5:80".parse().expect("a literal")
}

/// A gateway, and a clock that goes on by a tenth of a second with every packet.
struct Bench {
    gateway: Gateway,
    now: Duration,
}

impl Bench {
    fn new(options: &[&str], nat: Option<Ipv4Addr>) -> Self {
        Self {
            gateway: Gateway::new(Device::Ftwall, options, nat, 1).expect("documented options"),
            now: Duration::from_secs(1),
        }
    }

    fn wait(&mut self, time: Duration) {
        let until = self.now + time;
        while let Some(due) = self.gateway.poll_timeout().filter(|due| *due <= until) {
            self.now = self.now.max(due);
            self.gateway.handle_timeout(self.now);
        }
        self.now = until;
    }

    /// Sends a packet from the side its sender is on; what left the gateway, if it passed.
    fn send(&mut self, mut packet: Vec<u8>) -> Option<Vec<u8>> {
        self.wait(Duration::from_millis(100));
        let from = if packet[12] == 10 {
            Side::Inside
        } else {
            Side::Outside
        };
        let verdict = self.gateway.forward(self.now, from, &mut packet);
        (verdict == Forward::Pass).then_some(packet)
    }

    fn udp(&mut self, from: SocketAddrV4, to: SocketAddrV4, payload: &[u8]) -> Option<Vec<u8>> {
        self.send(udp(from, to, payload))
    }

    /// A handshake from inside; what came out at last.
    fn connect(&mut self, from: SocketAddrV4, to: SocketAddrV4) -> Option<Vec<u8>> {
        self.send(tcp(from, to, (1000, 0), "S", b""))?;
        self.send(tcp(to, from, (5000, 1001), "SA", b""))?;
        self.send(tcp(from, to, (1001, 5001), "A", b""))
    }

    fn queued(&self) -> u64 {
        self.gateway.counts().queued
    }

    fn verdicts(&self, name: &str) -> u64 {
        let statistics = self.gateway.statistics().expect("a daemon runs");
        statistics.verdicts.get(name).copied().unwrap_or(0)
    }
}

fn udp(from: SocketAddrV4, to: SocketAddrV4, payload: &[u8]) -> Vec<u8> {
    let builder =
        PacketBuilder::ipv4(from.ip().octets(), to.ip().octets(), 64).udp(from.port(), to.port());
    let mut packet = Vec::new();
    builder
        .write(&mut packet, payload)
        .expect("memory takes it");
    packet
}

fn tcp(
    from: SocketAddrV4,
    to: SocketAddrV4,
    (sequence, acknowledgement): (u32, u32),
    flags: &str,
    payload: &[u8],
) -> Vec<u8> {
    let mut builder = PacketBuilder::ipv4(from.ip().octets(), to.ip().octets(), 64).tcp(
        from.port(),
        to.port(),
        sequence,
        65_000,
    );
    for flag in flags.chars() {
        builder = match flag {
            'S' => builder.syn(),
            'A' => builder.ack(acknowledgement),
            'F' => builder.fin(),
            'R' => builder.rst(),
            other => panic!("no flag is called {other}"),
        };
    }
    let mut packet = Vec::new();
    builder
        .write(&mut packet, payload)
        .expect("memory takes it");
    packet
}

/// Source and destination of a packet whose checksums are all right.
fn ends(packet: &[u8]) -> (SocketAddrV4, SocketAddrV4) {
    let ip = Ipv4Slice::from_slice(packet).expect("a whole packet");
    let header = ip.header().to_header();
    assert_eq!(header.header_checksum, header.calc_header_checksum());
    let (source, destination) = (ip.header().source_addr(), ip.header().destination_addr());
    let payload = ip.payload().payload;
    let (from, to) = if packet[9] == 6 {
        let tcp = TcpSlice::from_slice(payload).expect("a whole segment");
        let sum = tcp.calc_checksum_ipv4(header.source, header.destination);
        assert_eq!(Ok(tcp.checksum()), sum);
        (tcp.source_port(), tcp.destination_port())
    } else {
        let udp = UdpSlice::from_slice(payload).expect("a whole datagram");
        let sum = udp.to_header().calc_checksum_ipv4(&header, udp.payload());
        assert_eq!(Ok(udp.checksum()), sum);
        (udp.source_port(), udp.destination_port())
    };
    (
        SocketAddrV4::new(source, from),
        SocketAddrV4::new(destination, to),
    )
}

#[test]
fn a_web_request_passes_is_cleared_and_leaves_the_queue() {
    let mut bench = Bench::new(&[], None);
    bench.connect(host(), server()).expect("nobody is locked");
    assert_eq!(bench.queued(), 0, "a handshake says nothing");
    assert!(
        bench
            .send(tcp(host(), server(), (1001, 5001), "A", REQUEST))
            .is_some()
    );
    let answer = tcp(server(), host(), (5001, 1039), "A", RESPONSE);
    assert!(bench.send(answer).is_some());
    assert_eq!((bench.queued(), bench.verdicts("clear/http")), (2, 1));
    let body = tcp(server(), host(), (5042, 1039), "A", &[0; 1000]);
    assert!(bench.send(body).is_some());
    assert_eq!(bench.queued(), 2);
    let rules = bench.gateway.ruleset().expect("they are in place");
    assert_eq!(rules.packets("cleared connection"), Some(1));
}

#[test]
fn a_ping_is_dropped_and_answered_in_the_peers_name() {
    let mut bench = Bench::new(&[], None);
    assert_eq!(bench.udp(host(), peer(), PING), None);
    let answer = bench.gateway.poll_injected().expect("ftwall answers");
    assert_eq!(ends(&answer), (peer(), host()));
    assert_eq!(answer[28], 0x28, "a pong");
    assert_eq!(bench.gateway.poll_injected(), None);
    let events = bench.gateway.events();
    assert!(
        events.starts_with(r#"{"timestamp":"2003-07-04T00:00:00.000000Z""#),
        "{events}"
    );
    for event in ["ready", "client.locked"] {
        assert!(
            events.contains(&format!(r#""event_type":"{event}""#)),
            "{events}"
        );
    }
    assert_eq!(bench.gateway.events(), "");
}

#[test]
fn a_locked_host_cannot_dial_a_strange_port_until_its_lock_has_run_out() {
    let mut bench = Bench::new(&["--lock-time", "60s", "--no-reprobe"], None);
    let stranger = "198.18.7.7:2000".parse().expect("a literal");
    assert!(bench.connect(host(), stranger).is_some());
    assert_eq!(bench.udp(host(), peer(), PING), None);
    let dial = |from: u16| {
        let from = SocketAddrV4::new(*host().ip(), from);
        tcp(from, stranger, (1000, 0), "S", b"")
    };
    assert_eq!(bench.send(dial(3500)), None);
    assert_eq!(bench.verdicts("drop/locked_dial"), 1);
    bench.wait(Duration::from_secs(61));
    let now = bench.now;
    let rules = bench.gateway.ruleset().expect("they are in place");
    assert_eq!(rules.elements(LOCKED, now), Some(0));
    assert!(bench.send(dial(3501)).is_some());
}

#[test]
fn a_known_peer_is_dropped_in_the_kernel_once_the_set_is_written() {
    let mut bench = Bench::new(&[], None);
    assert_eq!(bench.udp(host(), peer(), PING), None);
    let now = bench.now;
    let rules = bench.gateway.ruleset().expect("they are in place");
    assert_eq!(
        rules.elements(PEERS, now),
        Some(0),
        "a write takes its time"
    );
    bench.wait(Duration::from_millis(20));
    let queued = bench.queued();
    assert_eq!(bench.send(tcp(host(), peer(), (1, 0), "S", b"")), None);
    assert_eq!(bench.udp(peer(), host(), b"anything"), None);
    assert_eq!(bench.queued(), queued, "nobody is asked about either");
    let rules = bench.gateway.ruleset().expect("they are in place");
    assert_eq!(rules.packets("to a known peer"), Some(1));
    assert_eq!(rules.packets("from a known peer"), Some(1));
}

#[test]
fn the_answer_to_a_probe_in_a_known_peers_name_reaches_the_daemon_and_renews_the_lock() {
    let mut bench = Bench::new(&["--lock-time", "60s"], None);
    bench.udp(host(), peer(), PING);
    bench.gateway.poll_injected().expect("ftwall answers");
    bench.wait(Duration::from_secs(40));
    let probe = bench
        .gateway
        .poll_injected()
        .expect("ftwall asks at half time");
    assert_eq!((ends(&probe), probe[28]), ((peer(), host()), PING[0]));
    assert_eq!(bench.udp(host(), peer(), PONG), None);
    assert_eq!(bench.verdicts("drop/pong"), 1);
    bench.wait(Duration::from_secs(40));
    let now = bench.now;
    let rules = bench.gateway.ruleset().expect("they are in place");
    assert_eq!(rules.elements(LOCKED, now), Some(1));
}

#[test]
fn hidden_hosts_talk_through_the_gateways_address_both_ways_with_right_checksums() {
    let mut bench = Bench::new(&[], Some(OWN));
    let second = SocketAddrV4::new(Ipv4Addr::new(10, 77, 1, 2), host().port());
    let out = bench
        .send(tcp(host(), server(), (1000, 0), "S", b""))
        .expect("it passes");
    assert_eq!(
        ends(&out),
        (SocketAddrV4::new(OWN, host().port()), server())
    );
    let out = bench
        .send(tcp(second, server(), (1000, 0), "S", b""))
        .expect("it passes");
    let (hidden, _) = ends(&out);
    assert_ne!(hidden.port(), host().port(), "that one is taken");
    let back = bench
        .send(tcp(server(), hidden, (5000, 1001), "SA", b""))
        .expect("it passes");
    assert_eq!(ends(&back), (server(), second));
    let asked = bench.udp(host(), server(), b"question").expect("it passes");
    assert_eq!(
        ends(&asked),
        (SocketAddrV4::new(OWN, host().port()), server())
    );
    let own = SocketAddrV4::new(OWN, host().port());
    let answer = bench.udp(server(), own, b"answer").expect("it passes");
    assert_eq!(ends(&answer), (server(), host()));
    let uninvited = SocketAddrV4::new(OWN, 4000);
    assert_eq!(bench.udp(server(), uninvited, b"anyone?"), None);
}

#[test]
fn without_a_daemon_the_web_passes_and_suspects_do_not() {
    let mut bench = Bench::new(&["--when-down", "pass"], None);
    bench.gateway.kill(bench.now);
    bench.connect(host(), server()).expect("nobody is locked");
    assert!(
        bench
            .send(tcp(host(), server(), (1001, 5001), "A", REQUEST))
            .is_some()
    );
    assert_eq!(bench.gateway.counts().bypassed, 1);
    assert_eq!(bench.udp(host(), peer(), PING), None);
    assert_eq!(bench.gateway.poll_injected(), None);
}

#[test]
fn without_a_daemon_nothing_undecided_passes_if_so_asked() {
    let mut bench = Bench::new(&["--when-down", "drop"], None);
    bench.gateway.kill(bench.now);
    bench
        .connect(host(), server())
        .expect("a handshake is nobody's business");
    assert_eq!(
        bench.send(tcp(host(), server(), (1001, 5001), "A", REQUEST)),
        None
    );
}

#[test]
fn a_new_daemon_finds_the_marks_of_connections_and_the_locks_of_the_old_one() {
    let mut bench = Bench::new(&[], None);
    bench.connect(host(), server()).expect("nobody is locked");
    bench.send(tcp(host(), server(), (1001, 5001), "A", REQUEST));
    bench.send(tcp(server(), host(), (5001, 1039), "A", RESPONSE));
    bench.udp(host(), peer(), PING);
    bench.wait(Duration::from_millis(20));
    bench.gateway.kill(bench.now);
    bench.gateway.start(bench.now).expect("the rules are known");
    let more = tcp(host(), server(), (1039, 5042), "A", REQUEST);
    assert!(bench.send(more).is_some());
    assert_eq!(
        bench.queued(),
        3,
        "cleared connections are not asked about again"
    );
    let now = bench.now;
    let rules = bench.gateway.ruleset().expect("they are in place");
    assert_eq!(rules.elements(LOCKED, now), Some(1));
}

/// Whether the daemon takes what a connection says for its middle, after `before` has happened to it.
fn is_taken_for_middle(before: impl Fn(&mut Bench)) -> bool {
    let mut bench = Bench::new(&["--when-down", "pass"], None);
    bench.connect(host(), service()).expect("nobody is locked");
    before(&mut bench);
    for number in 0..WATCHED_SEGMENTS {
        let sequence = (1011 + 9 * number, 5001);
        bench.send(tcp(host(), service(), sequence, "A", b"\x00\x01binary\xff"));
    }
    bench.verdicts("tolerate/midstream") > 0
}

/// More segments than the engine watches before it makes up its mind.
const WATCHED_SEGMENTS: u32 = 20;

fn service() -> SocketAddrV4 {
    "203.0.113.7:5222".parse().expect("a literal")
}

fn beginning() -> Vec<u8> {
    tcp(host(), service(), (1001, 5001), "A", b"unseen....")
}

#[test]
fn the_middle_of_a_connection_that_came_up_without_a_daemon_is_no_beginning() {
    assert!(is_taken_for_middle(|bench| {
        bench.gateway.kill(bench.now);
        bench.send(beginning()).expect("watched connections bypass");
        bench.gateway.start(bench.now).expect("the rules are known");
    }));
}

#[test]
fn the_middle_of_a_connection_that_a_daemon_now_gone_has_seen_is_no_beginning() {
    assert!(is_taken_for_middle(|bench| {
        bench.send(beginning()).expect("it is harmless");
        bench.gateway.kill(bench.now);
        bench.gateway.start(bench.now).expect("the rules are known");
    }));
}

#[test]
fn the_middle_of_a_connection_that_the_daemon_has_forgotten_is_no_beginning() {
    assert!(is_taken_for_middle(|bench| {
        bench.send(beginning()).expect("it is harmless");
        bench.wait(Duration::from_secs(600));
    }));
}

#[test]
fn the_beginning_of_a_connection_dialed_under_another_daemon_is_a_beginning() {
    assert!(!is_taken_for_middle(|bench| {
        bench.gateway.kill(bench.now);
        bench.gateway.start(bench.now).expect("the rules are known");
        bench.send(beginning()).expect("it is harmless");
    }));
}

#[test]
fn the_dial_of_a_locked_host_that_may_pass_does_not_end_the_beginning() {
    let mut bench = Bench::new(&["--locked-dials", "watch"], None);
    bench.udp(host(), peer(), PING);
    let stranger = "198.18.7.7:2000".parse().expect("a literal");
    bench
        .connect(host(), stranger)
        .expect("dials are watched only");
    assert_eq!(
        bench.verdicts("pass/no_payload"),
        2,
        "the dial and its answer"
    );
    let first = tcp(host(), stranger, (1001, 5001), "A", b"hello\r\n");
    let mark = bench
        .gateway
        .connection_mark(bench.now, &first)
        .expect("it is up");
    let from_start = MarkField::DEFAULT.is_set(mark, MarkBit::FromStart);
    assert!(from_start, "{mark:#x}");
}

#[test]
fn every_other_device_drops_what_its_rules_say() {
    let pass = |device, packet: &[u8]| {
        let mut gateway = Gateway::new(device, &[], None, 1).expect("it has no options");
        let forward = gateway.forward(Duration::ZERO, Side::Inside, &mut packet.to_vec());
        forward == Forward::Pass
    };
    let dial = tcp(host(), peer(), (1, 0), "S", b"");
    let ping = udp(host(), "198.18.0.9:2000".parse().expect("a literal"), PING);
    let pong = udp(host(), "198.18.0.9:2000".parse().expect("a literal"), PONG);
    let transfer = tcp(host(), server(), (1, 1), "A", b"GET /.hash=00");
    assert!(pass(Device::None, &dial) && pass(Device::None, &pong));
    assert!(!pass(Device::Block1214, &dial) && pass(Device::Block1214, &transfer));
    assert!(pass(Device::StringMatch, &ping) && !pass(Device::StringMatch, &pong));
    assert!(!pass(Device::StringMatch, &transfer) && pass(Device::StringMatch, &dial));
}

#[test]
fn a_closed_door_lets_answers_in_and_nobody_else() {
    let mut gateway = Gateway::new(Device::None, &[], None, 1)
        .expect("it has no options")
        .with_closed_door();
    let mut send = |from, mut packet: Vec<u8>| gateway.forward(Duration::ZERO, from, &mut packet);
    let call = tcp(peer(), host(), (1, 0), "S", b"");
    assert_eq!(send(Side::Outside, call), Forward::Drop);
    let dial = tcp(host(), server(), (1, 0), "S", b"");
    assert_eq!(send(Side::Inside, dial), Forward::Pass);
    let answer = tcp(server(), host(), (1, 2), "SA", b"");
    assert_eq!(send(Side::Outside, answer), Forward::Pass);
}

#[test]
fn a_daemon_that_is_asked_to_end_takes_its_rules_and_says_what_it_counted() {
    let mut bench = Bench::new(&[], None);
    bench.udp(host(), peer(), PING);
    bench.gateway.stop(bench.now);
    let events = bench.gateway.events();
    assert!(events.contains(r#""drop/ping":1"#), "{events}");
    assert!(bench.udp(host(), peer(), PING).is_some());
}

#[test]
fn equal_seeds_give_equal_answers() {
    let play = || {
        let mut bench = Bench::new(&[], None);
        bench.udp(host(), peer(), PING);
        bench.wait(Duration::from_secs(90));
        (bench.gateway.poll_injected(), bench.gateway.events())
    };
    assert_eq!(play(), play());
}
