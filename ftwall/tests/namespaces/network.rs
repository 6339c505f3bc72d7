//! A gateway between a client and the outside, each in a namespace.

use std::fs::File;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use nix::sched::{CloneFlags, setns};
use rustix::net::{AddressFamily, SocketType, bind, connect, socket};

use super::harness::{PATIENCE, run, words};

/// client (10.77.1.1) -- gw -- out, which owns 198.18.0.0/15 and 203.0.113.0/24.
pub(crate) fn build_network() {
    for node in ["client", "gw", "out"] {
        ip(&["netns", "add", node]);
        ip(&["-n", node, "link", "set", "lo", "up"]);
    }
    for (gateway_end, node, address, gateway) in [
        ("lan0", "client", "10.77.1.1/16", "10.77.0.1/16"),
        ("wan0", "out", "192.0.2.1/24", "192.0.2.2/24"),
    ] {
        let peer = ["type", "veth", "peer", "name", "eth0", "netns", node];
        ip(&[&["-n", "gw", "link", "add", gateway_end][..], &peer].concat());
        for (node, end, address) in [(node, "eth0", address), ("gw", gateway_end, gateway)] {
            ip(&["-n", node, "address", "add", address, "dev", end]);
            ip(&["-n", node, "link", "set", end, "up"]);
        }
    }
    ip(&[
        "-n",
        "client",
        "route",
        "add",
        "default",
        "via",
        "10.77.0.1",
    ]);
    ip(&[
        "-n",
        "out",
        "route",
        "add",
        "10.77.0.0/16",
        "via",
        "192.0.2.2",
    ]);
    ip(&["-n", "gw", "route", "add", "default", "via", "192.0.2.1"]);
    for net in ["198.18.0.0/15", "203.0.113.0/24"] {
        ip(&["-n", "out", "route", "add", "local", net, "dev", "lo"]);
    }
    at("gw", || {
        std::fs::write("/proc/sys/net/ipv4/ip_forward", "1")
    })
    .expect("it is our namespace");
}

pub(crate) fn ip(arguments: &[&str]) {
    let output = run("ip", arguments);
    assert!(
        output.status.success(),
        "ip {arguments:?}: {}",
        words(&output.stderr)
    );
}

/// Does `work` at a node; sockets opened and processes started there stay there.
pub(crate) fn at<T: Send>(node: &str, work: impl FnOnce() -> T + Send) -> T {
    let namespace = File::open(format!("/run/netns/{node}")).expect("the node was built");
    std::thread::scope(|scope| {
        let worker = scope.spawn(move || {
            setns(namespace, CloneFlags::CLONE_NEWNET).expect("the namespaces are ours");
            work()
        });
        worker
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

pub(crate) fn udp(node: &str, address: &str) -> UdpSocket {
    let socket = at(node, || UdpSocket::bind(address)).expect("the port is free");
    socket
        .set_read_timeout(Some(PATIENCE))
        .expect("it is not zero");
    socket
}

/// How many datagrams have come by now to a socket that never waits.
pub(crate) fn heard(peer: &UdpSocket) -> usize {
    let more = || match peer.recv_from(&mut [0; 64]) {
        Err(error) if error.kind() == ErrorKind::WouldBlock => None,
        received => Some(received.expect("it is open")),
    };
    std::iter::from_fn(more).count()
}

pub(crate) fn dial(address: &str) -> std::io::Result<TcpStream> {
    let address = address.parse().expect("a literal");
    TcpStream::connect_timeout(&address, Duration::from_millis(500))
}

/// Dials from one of a node's addresses.
pub(crate) fn dial_from(source: &str, address: &str) -> std::io::Result<TcpStream> {
    let source: Ipv4Addr = source.parse().expect("a literal");
    let address: SocketAddrV4 = address.parse().expect("a literal");
    let dialed = socket(AddressFamily::INET, SocketType::STREAM, None)?;
    bind(&dialed, &SocketAddrV4::new(source, 0))?;
    connect(&dialed, &address)?;
    Ok(TcpStream::from(dialed))
}

/// A page of a web server outside, as the client gets it.
pub(crate) fn fetch_page() -> String {
    let listener = at("out", || TcpListener::bind("203.0.113.5:80")).expect("the port is free");
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("the client comes");
        let mut request = [0; 512];
        let len = stream.read(&mut request).expect("the client asks");
        assert!(request[..len].ends_with(b"\r\n\r\n"));
        stream
            .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
            .expect("it listens");
    });
    let mut stream = at("client", || dial("203.0.113.5:80")).expect("the web is there");
    stream
        .write_all(b"GET / HTTP/1.1\r\nHost: example.org\r\n\r\n")
        .expect("it listens");
    let mut page = String::new();
    stream.read_to_string(&mut page).expect("the page is text");
    server.join().expect("the server has no reason to fail");
    page
}
