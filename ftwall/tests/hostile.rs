//! What somebody gains who knows how ftwall learns, and what he does not. `SECURITY.md` lists the same.

#[expect(dead_code, reason = "hostility needs a part of its packets only")]
mod support;

use std::time::Duration;

use ftwall::config::NeverBlock;
use ftwall::{DropReason, EngineConfig, PassReason, Verdict};
use support::{
    Connection, Gateway, PING, PONG, RANDOM_OPENER, TLS_HELLO, WEB_ANSWER, WEB_REQUEST, end,
};

const FORGER: &str = "10.77.1.1";
const FORGERS_PORT: &str = "10.77.1.1:1214";
const NEIGHBOUR: &str = "10.77.1.2:3000";
const DNS_QUERY: &[u8] = b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0\x07example\x03org\0\0\x01\0\x01";

fn guarded(own: &str) -> Gateway {
    let own: NeverBlock = own.parse::<ipnet::IpNet>().expect("a literal").into();
    Gateway::new(EngineConfig {
        never_block: vec![own],
        ..EngineConfig::default()
    })
}

#[test]
fn a_forged_ping_to_the_resolver_keeps_nobody_from_asking_it() {
    let resolver = "198.51.100.53:53";
    let mut gateway = guarded("198.51.100.53/32");
    gateway.datagram(FORGERS_PORT, resolver, PING);
    assert!(gateway.is_locked(FORGER), "it harms himself");
    assert!(gateway.learned().is_empty());
    for host in ["10.77.1.1:5353", NEIGHBOUR] {
        assert!(
            !gateway.datagram(host, resolver, DNS_QUERY).is_drop(),
            "{host}"
        );
    }
}

/// Unguarded he only cuts off himself.
#[test]
fn a_forged_ping_to_somebody_elses_server_costs_the_forger_alone() {
    let server = "198.51.100.9:27015";
    let mut gateway = Gateway::new(EngineConfig::default());
    gateway.datagram(FORGERS_PORT, server, PING);
    assert_eq!(gateway.learned(), [end(server)]);
    assert!(
        !gateway
            .datagram(NEIGHBOUR, server, b"how are you")
            .is_drop()
    );
    let mut neighbours = Connection::open(&mut gateway, NEIGHBOUR, server);
    assert!(!neighbours.client_says(&mut gateway, WEB_REQUEST).is_drop());
    assert!(!neighbours.server_says(&mut gateway, WEB_ANSWER).is_drop());
}

#[test]
fn what_an_outsider_sends_unasked_locks_and_teaches_nobody() {
    let (outsider, host) = ("198.18.0.5:2001", "10.77.1.2:1214");
    for datagram in [PING, PONG] {
        let mut gateway = Gateway::new(EngineConfig::default());
        gateway.datagram(outsider, host, datagram);
        assert!(!gateway.is_locked("10.77.1.2"));
        assert!(gateway.learned().is_empty());
    }
    let mut gateway = Gateway::new(EngineConfig::default());
    let mut call = Connection::open(&mut gateway, outsider, host);
    call.client_says(&mut gateway, &RANDOM_OPENER);
    assert!(!gateway.is_locked("10.77.1.2"));
    assert!(gateway.learned().is_empty());
}

#[test]
fn one_host_cannot_lock_another_by_what_it_sends_him() {
    let mut gateway = Gateway::new(EngineConfig::default());
    let verdict = gateway.datagram(FORGERS_PORT, NEIGHBOUR, PING);
    assert_eq!(verdict, Verdict::Pass(PassReason::NotCrossing));
    assert!(!gateway.is_locked(FORGER) && !gateway.is_locked("10.77.1.2"));
}

/// Whether a datagram comes from whom it names, nobody can see in it; the gateway's reverse path filter
/// and policies by hardware address are against that.
#[test]
fn who_sends_in_a_neighbours_name_locks_him_for_a_time_and_his_browser_goes_on() {
    let mut gateway = Gateway::new(EngineConfig::default());
    gateway.datagram("10.77.1.2:1214", "198.18.0.5:2001", PING);
    assert!(gateway.is_locked("10.77.1.2"));
    let mut page = Connection::open(&mut gateway, "10.77.1.2:3001", "203.0.113.9:443");
    assert!(!page.client_says(&mut gateway, TLS_HELLO).is_drop());
    gateway.wait(EngineConfig::default().lock_time + Duration::from_secs(1));
    assert!(!gateway.is_locked("10.77.1.2"));
}

#[test]
fn who_names_the_whole_internet_teaches_what_his_minute_allows() {
    let config = EngineConfig::default();
    let most = usize::try_from(config.new_peers_per_minute).expect("it fits");
    let mut gateway = Gateway::new(config);
    for number in 0..5 * most {
        let [.., third, fourth] = u32::try_from(number).expect("it fits").to_be_bytes();
        let peer = format!("60.7.{third}.{fourth}:1214");
        let verdict = gateway.datagram(FORGERS_PORT, &peer, PING);
        assert_eq!(verdict, Verdict::Drop(DropReason::Ping), "{peer}");
    }
    assert_eq!(gateway.learned().len(), most);
}

#[test]
fn a_page_full_of_fasttracks_words_is_a_page() {
    let mut gateway = Gateway::new(EngineConfig::default());
    let mut page = Connection::open(&mut gateway, NEIGHBOUR, "203.0.113.9:80");
    assert!(!page.client_says(&mut gateway, WEB_REQUEST).is_drop());
    let body = "GET /.hash=0123456789abcdef0123456789abcdef01234567 HTTP/1.1\r\nX-Kazaa-Username: joe\r\n\
                X-Kazaa-Network: KaZaA\r\nGIVE 17\r\nKaZaA Grokster iMesh";
    let answer = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    assert!(!page.server_says(&mut gateway, answer.as_bytes()).is_drop());
    assert!(!gateway.is_locked("10.77.1.2"));
}
