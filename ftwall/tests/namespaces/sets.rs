//! Sets written by netlink, against what `nft` shows and what it writes itself.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use ftwall::gateway::kernel_sets::{self, Batch, Change, Element, KernelSets, commands};
use ftwall::gateway::netlink::{Header, MessageWriter, Socket};
use ftwall::gateway::nft;
use ftwall::gateway::rules::Transport;
use ftwall::gateway::set_elements::SetWriter;
use serde_json::{Value, json};

use super::harness::{feed, in_namespaces, run, words};

const HOST: Ipv4Addr = Ipv4Addr::new(10, 77, 1, 1);

/// Both sets as the rules make them, but for room for `peers` only.
fn make_sets(peers: u32) {
    feed("nft", &["-f", "-"], &format!("
        table inet ftwall {{
            set locked {{ type ipv4_addr; flags timeout; size 131072; }}
            set peers {{ type ipv4_addr . ipv4_addr . inet_proto . inet_service; flags timeout; size {peers}; }}
        }}"));
}

#[test]
fn what_netlink_writes_is_what_nft_would_have_written() {
    in_namespaces(
        "sets::what_netlink_writes_is_what_nft_would_have_written",
        || {
            make_sets(1 << 20);
            let mut changes: Vec<Change> = learned(HOST, 20, Duration::from_secs(7200));
            changes.push((Element::Locked(HOST), Some(Duration::from_secs(120))));
            changes.push((
                Element::Locked(Ipv4Addr::new(10, 77, 255, 254)),
                Some(Duration::from_secs(1)),
            ));
            assert_eq!(write(&changes), [""; 0]);
            let by_netlink = (listed("locked"), listed("peers"));
            feed(
                "nft",
                &["-f", "-"],
                "flush set inet ftwall locked\nflush set inet ftwall peers",
            );
            let batch: Batch = changes.into_iter().collect();
            nft::apply(&commands(&batch)).expect("nft takes what it always took");
            assert_eq!(by_netlink, (listed("locked"), listed("peers")));
            assert_eq!((by_netlink.0.len(), by_netlink.1.len()), (2, 40));
            let peer = r#"{"concat":["10.77.1.1","198.18.0.1","udp",1215]} 7200"#;
            assert!(by_netlink.1.contains(peer), "{:?}", by_netlink.1);
        },
    );
}

#[test]
fn an_element_is_renewed_taken_away_and_may_be_gone_already() {
    in_namespaces(
        "sets::an_element_is_renewed_taken_away_and_may_be_gone_already",
        || {
            make_sets(1 << 20);
            let lock = Element::Locked(HOST);
            feed(
                "nft",
                &["-f", "-"],
                "add element inet ftwall locked { 10.77.1.1 timeout 100s expires 10s }",
            );
            for seconds in [100, 300, 200] {
                assert_eq!(
                    write(&[(lock, Some(Duration::from_secs(seconds)))]),
                    [""; 0]
                );
                assert_eq!(
                    listed("locked"),
                    [format!("\"10.77.1.1\" {seconds}")].into()
                );
                let left = elements("locked")[0]["elem"]["expires"]
                    .as_u64()
                    .expect("it expires");
                assert!(
                    (seconds - 10..=seconds).contains(&left),
                    "{left} of {seconds} s are left"
                );
            }
            for _ in 0..2 {
                assert_eq!(write(&[(lock, None)]), [""; 0]);
                assert_eq!(listed("locked").len(), 0);
            }
        },
    );
}

#[test]
fn a_full_set_of_peers_is_reported_and_a_host_locked_all_the_same() {
    in_namespaces(
        "sets::a_full_set_of_peers_is_reported_and_a_host_locked_all_the_same",
        || {
            make_sets(2);
            let mut changes = learned(HOST, 2, Duration::from_secs(7200));
            changes.push((Element::Locked(HOST), Some(Duration::from_secs(120))));
            assert_eq!(write(&changes), ["the set peers is full"]);
            assert_eq!(listed("locked").len(), 1);
            assert_eq!(listed("peers").len(), 0, "all or nothing");
        },
    );
}

#[test]
fn sets_that_are_not_there_are_named() {
    in_namespaces("sets::sets_that_are_not_there_are_named", || {
        let lock = (Element::Locked(HOST), Some(Duration::from_secs(120)));
        let failures = write(&[lock]);
        assert_eq!(failures.len(), 1);
        assert!(
            failures[0].contains("the set locked: No such file"),
            "{failures:?}"
        );
    });
}

/// Prints how long a change takes to be in force, by the thread that writes and by the `nft` program.
#[test]
#[ignore = "a measurement: run it alone, with --nocapture"]
fn latency_of_changes() {
    in_namespaces_ignored("sets::latency_of_changes", || {
        make_sets(1 << 20);
        for (what, count) in [("one peer", 1), ("200 peers", 200)] {
            let sets = KernelSets::start().expect("the kernel has sets");
            let requests = sets.requests();
            let by_netlink = measure(300, count, |changes| {
                changes
                    .into_iter()
                    .for_each(|change| assert!(requests.request(change)));
            });
            println!("{what:>9}, netlink: {by_netlink}");
            let (batches, received) = channel::<Batch>();
            let writer = std::thread::spawn(move || {
                received
                    .iter()
                    .for_each(|batch| nft::apply(&commands(&batch)).expect("it works"));
            });
            let by_nft = measure(50, count, |changes| {
                batches
                    .send(changes.into_iter().collect())
                    .expect("it listens");
            });
            drop(batches);
            writer.join().expect("nft worked");
            println!("{what:>9}, nft:     {by_nft}");
        }
    });
}

/// As [`in_namespaces`], for a test that is ignored unless asked for.
fn in_namespaces_ignored(name: &str, body: impl FnOnce()) {
    super::harness::in_namespaces_with(name, &["--ignored"], body);
}

/// Times until the last of `count` new peers over both protocols is in the kernel: median and p99.
fn measure(rounds: u16, count: u16, write: impl Fn(Vec<Change>)) -> String {
    let socket = Socket::open().expect("the kernel has netfilter");
    let mut times: Vec<Duration> = (0..rounds)
        .map(|_| {
            let client = Ipv4Addr::from_bits(FRESH.fetch_add(1, Ordering::Relaxed));
            let changes = learned(client, count, Duration::from_secs(7200));
            let (Element::Peer(_, last, _), _) = changes[changes.len() - 1] else {
                panic!("only peers are learned");
            };
            let begun = now();
            write(changes);
            while !is_known(&socket, client, last) {
                std::thread::yield_now();
            }
            now() - begun
        })
        .collect();
    times.sort();
    let at = |share: usize| times[(times.len() - 1) * share / 100];
    format!("p50 {:?}, p99 {:?}, {rounds} rounds", at(50), at(99))
}

static FRESH: AtomicU32 = AtomicU32::new(0x0a4d_0000);

#[expect(clippy::disallowed_methods, reason = "time is what is measured")]
fn now() -> Instant {
    Instant::now()
}

/// Asks the kernel for one element of the set of peers (`NFT_MSG_GETSETELEM`).
fn is_known(socket: &Socket, client: Ipv4Addr, peer: SocketAddrV4) -> bool {
    let mut request = MessageWriter::default();
    let header = Header {
        kind: 10 << 8 | 13,
        family: 1,
        ..Header::default()
    };
    let [a, b] = peer.port().to_be_bytes();
    let key = [
        client.octets(),
        peer.ip().octets(),
        [6, 0, 0, 0],
        [a, b, 0, 0],
    ];
    request.message(header, |message| {
        message.attribute(1, b"ftwall\0");
        message.attribute(2, b"peers\0");
        message.nested(3, |list| {
            list.nested(1, |element| {
                element.nested(1, |data| data.attribute(1, key.as_flattened()));
            });
        });
    });
    socket
        .send(request.as_bytes())
        .expect("the kernel takes it");
    let mut answer = [0; 4096];
    let mut messages = socket
        .receive(&mut answer)
        .expect("it answers")
        .expect("at once");
    let first = messages.next().expect("one message").expect("a whole one");
    first.acknowledgement().is_none()
}

/// `count` peers of `client`, over UDP and TCP each, the last of them over TCP.
fn learned(client: Ipv4Addr, count: u16, stays: Duration) -> Vec<Change> {
    let peers = (1..=count).map(|number| {
        let [high, low] = number.to_be_bytes();
        SocketAddrV4::new(Ipv4Addr::new(198, 18, high, low), 1214 + number)
    });
    peers
        .flat_map(|peer| {
            [Transport::Udp, Transport::Tcp]
                .map(|transport| (Element::Peer(client, peer, transport), Some(stays)))
        })
        .collect()
}

/// Has changes written together, and returns what the kernel refused.
fn write(changes: &[Change]) -> Vec<String> {
    let batch: Batch = changes.iter().copied().collect();
    let mut writer = SetWriter::open().expect("the kernel has sets");
    let refused = kernel_sets::write(&batch, |part| writer.write(part));
    refused.iter().map(ToString::to_string).collect()
}

/// The elements of a set as `nft` shows them: key and timeout, without the time that is left.
fn listed(set: &str) -> BTreeSet<String> {
    let shown = elements(set).into_iter().map(|element| {
        let element = &element["elem"];
        format!("{} {}", element["val"], element["timeout"])
    });
    shown.collect()
}

fn elements(set: &str) -> Vec<Value> {
    let output = run("nft", &["-j", "list", "set", "inet", "ftwall", set]);
    assert!(output.status.success(), "{}", words(&output.stderr));
    let listing: Value = serde_json::from_slice(&output.stdout).expect("nft speaks JSON");
    let objects = listing["nftables"].as_array().expect("a list of objects");
    let set = objects
        .iter()
        .find_map(|object| object.get("set"))
        .expect("the set was asked for");
    set.get("elem")
        .unwrap_or(&json!([]))
        .as_array()
        .expect("a list of elements")
        .clone()
}
