//! Policies by interface and hardware address, against a real kernel.

use std::io::{ErrorKind, Read as _};
use std::net::TcpStream;

use super::harness::{Daemon, in_namespaces, run, wait_for, words};
use super::network::{at, build_network, ip, udp};
use super::operations::{CONFIG, is_locked_in_kernel, ping, said, write};

#[test]
fn a_policy_tells_hosts_apart_by_interface_and_by_hardware_address() {
    in_namespaces(
        "places::a_policy_tells_hosts_apart_by_interface_and_by_hardware_address",
        || {
            for reader in ["netlink", "nfq"] {
                if !policies_tell_hosts_apart(reader) {
                    return;
                }
                for node in ["client", "guest", "gw", "out"] {
                    ip(&["netns", "delete", node]);
                }
            }
        },
    );
}

/// Whether this machine could show it.
fn policies_tell_hosts_apart(reader: &str) -> bool {
    build_network();
    add_guest();
    let configuration = |matches: &str| {
        format!(
            "inside = [\"10.77.0.0/16\", \"10.78.0.0/16\"]\nqueue_reader = \"{reader}\"\n\
             [[policy]]\nname = \"guests\"\nmatch = {{ {matches} }}\nmode = \"monitor\"\n"
        )
    };
    write(&configuration("interface = [\"dmz0\", \"guest0\"]"));
    let Some(mut daemon) = at("gw", || Daemon::start(&["--config", CONFIG])) else {
        return false;
    };
    let (client, guest) = (
        udp("client", "10.77.1.1:2301"),
        udp("guest", "10.78.1.1:2301"),
    );
    ping(&guest);
    let event = daemon.wait_event("packet.would_drop");
    assert_eq!(event["ftwall"]["client"], "10.78.1.1");
    ping(&client);
    let event = daemon.wait_event("packet.drop");
    assert_eq!(event["ftwall"]["client"], "10.77.1.1");
    wait_for("the kernel to know the lock", || {
        is_locked_in_kernel("10.77.1.1")
    });
    assert!(!is_locked_in_kernel("10.78.1.1"), "it is only monitored");
    let why = said(&["explain", "10.78.1.1"], 0);
    assert!(why.contains("Policy: entry guests, mode monitor"), "{why}");
    let mac = hardware_address("guest");
    assert!(
        why.contains(&format!("Last seen: interface guest0, mac {mac}")),
        "{why}"
    );

    // Now the entry is about the client's own hardware; the kernel hears of both.
    write(&configuration(&format!(
        "mac = \"{}\"",
        hardware_address("client")
    )));
    said(&["reload"], 0);
    wait_for("the kernel to change sides", || {
        is_locked_in_kernel("10.78.1.1") && !is_locked_in_kernel("10.77.1.1")
    });
    ping(&client);
    let event = daemon.wait_event("packet.would_drop");
    assert_eq!(event["ftwall"]["client"], "10.77.1.1");
    assert_eq!(daemon.end("TERM").code(), Some(0));
    true
}

/// A daemon with these further settings between a client, which it has locked, and a guest, of whom it knows
/// nothing. None where this machine cannot queue.
pub(crate) fn daemon_beside_a_guest(settings: &str) -> Option<Daemon> {
    build_network();
    add_guest();
    write(&format!(
        "inside = [\"10.77.0.0/16\", \"10.78.0.0/16\"]\n{settings}"
    ));
    let mut daemon = at("gw", || Daemon::start(&["--config", CONFIG]))?;
    ping(&udp("client", "10.77.1.1:2301"));
    daemon.wait_event("client.locked");
    wait_for("the kernel to know the lock", || {
        is_locked_in_kernel("10.77.1.1")
    });
    Some(daemon)
}

/// Takes away what [`daemon_beside_a_guest`] stands in.
pub(crate) fn remove_nodes() {
    for node in ["client", "guest", "gw", "out"] {
        ip(&["netns", "delete", node]);
    }
}

/// Whether anything comes before patience ends.
pub(crate) fn hears(mut stream: &TcpStream) -> bool {
    match stream.read(&mut [0; 16]) {
        Ok(len) => len > 0,
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::WouldBlock, "{error}");
            false
        }
    }
}

/// Packets that met the rule with this comment, if there is one.
pub(crate) fn counted(chain: &str, comment: &str) -> Option<u64> {
    let list = ["list", "chain", "inet", "ftwall", chain];
    let chain = at("gw", || run("nft", &list));
    let chain = words(&chain.stdout);
    let rule = chain.lines().find(|line| line.contains(comment))?;
    let (_, counted) = rule.split_once("counter packets ").expect("it counts");
    let packets = counted
        .split(' ')
        .next()
        .and_then(|packets| packets.parse().ok());
    Some(packets.expect("a number"))
}

/// guest (10.78.1.1) -- guest0, a second interface of the gateway's.
pub(crate) fn add_guest() {
    ip(&["netns", "add", "guest"]);
    let peer = ["type", "veth", "peer", "name", "eth0", "netns", "guest"];
    ip(&[&["-n", "gw", "link", "add", "guest0"][..], &peer].concat());
    for (node, end, address) in [
        ("guest", "eth0", "10.78.1.1/16"),
        ("gw", "guest0", "10.78.0.1/16"),
    ] {
        ip(&["-n", node, "address", "add", address, "dev", end]);
        ip(&["-n", node, "link", "set", end, "up"]);
    }
    ip(&["-n", "guest", "route", "add", "default", "via", "10.78.0.1"]);
    ip(&[
        "-n",
        "out",
        "route",
        "add",
        "10.78.0.0/16",
        "via",
        "192.0.2.2",
    ]);
}

fn hardware_address(node: &str) -> String {
    let shown = at(node, || run("ip", &["-o", "link", "show", "eth0"]));
    let shown = words(&shown.stdout);
    let mut columns = shown.split_whitespace();
    let address = columns
        .by_ref()
        .skip_while(|word| *word != "link/ether")
        .nth(1);
    address.expect("a veth has one").to_owned()
}
