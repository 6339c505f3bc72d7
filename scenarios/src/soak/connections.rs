//! A table of connections without room: more of them than a gateway can keep track of.

use std::fs;
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};

use anyhow::{Context, ensure};
use lab::Node;
use lab::presets::Office;

use super::damage::run;

const COUNT: &str = "/proc/sys/net/netfilter/nf_conntrack_count";
const MOST: &str = "/proc/sys/net/netfilter/nf_conntrack_max";

/// No more of them than this are made: it would take too long.
const MOST_MADE: u32 = 1 << 19;

/// Room that counts as none: the kernel makes some as it goes on.
const FULL_SHARE: f64 = 0.98;

/// Why it cannot be done on this machine.
pub(crate) fn obstacle() -> Option<String> {
    let text = fs::read_to_string(MOST).unwrap_or_default();
    match text.trim().parse::<u32>() {
        Ok(most) if most <= MOST_MADE => None,
        Ok(most) => Some(format!(
            "the kernel keeps track of {most} connections, and a namespace cannot bound that"
        )),
        Err(_) => Some(format!("{MOST} cannot be read")),
    }
}

/// Lets `host` send to one port after another until `gateway` has no room for another connection.
pub(super) fn fill(host: &Node, gateway: &Node) -> anyhow::Result<String> {
    // A gateway without rules keeps track of nothing.
    run(gateway, "nft", "add table inet tracking")?;
    let chain = "add chain inet tracking forward { type filter hook forward priority 0 ; }";
    run(gateway, "nft", chain)?;
    run(
        gateway,
        "nft",
        "add rule inet tracking forward ct state invalid counter",
    )?;
    let most = number(gateway, MOST)?;
    let socket = host.enter(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)))?;
    let socket = socket.context("binding the socket of a flood")?;
    let last_octets = Office::WEB.hosts().cycle();
    for (number, address) in (0..most + most / 8).zip(last_octets) {
        // Ports that nobody listens on, all of an address before the next comes round.
        let port = 20_000 + u16::try_from(number / 254).unwrap_or(0);
        // Refusals of ports come back as errors of a later one.
        let _ = socket.send_to(b"anybody?", SocketAddrV4::new(address, port));
    }
    let count = number(gateway, COUNT)?;
    ensure!(
        f64::from(count) >= f64::from(most) * FULL_SHARE,
        "only {count} of {most} connections came about"
    );
    Ok(format!("{count} of {most} connections were kept track of"))
}

fn number(gateway: &Node, file: &str) -> anyhow::Result<u32> {
    let text = run(gateway, "cat", file)?;
    text.trim()
        .parse()
        .with_context(|| format!("reading {file}"))
}
