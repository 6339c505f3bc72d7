//! How long a change of the kernel's sets takes from the request until the kernel heeds it.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};

use super::clock::now;
use super::configuration::Configuration;
use super::office::{Gateway, PATIENCE};
use super::options::Options;
use super::statistics::Latencies;
use crate::gateway::kernel_sets::{Element, KernelSets, SetRequests};
use crate::gateway::netlink::{Header, MessageWriter, Socket};
use crate::gateway::rules::{PEERS, Transport};

/// Times of single changes, by the thread that the daemon hands them to, in the namespace of a gateway
/// that has ftwall's rules.
pub(super) fn measure(gateways: &[Gateway], options: &Options) -> anyhow::Result<Latencies> {
    let has_sets = |gateway: &&Gateway| gateway.configuration == Configuration::Ftwall;
    let gateway = gateways.iter().find(has_sets).context("no such gateway")?;
    let running = gateway.start()?;
    let rounds = if options.quick { 50 } else { 1000 };
    let latencies = gateway.node("gw").enter(|| measure_here(rounds))??;
    running.finish()?;
    Ok(latencies)
}

fn measure_here(rounds: u32) -> anyhow::Result<Latencies> {
    let sets = KernelSets::start().context("starting the thread that writes sets")?;
    let (requests, socket) = (sets.requests(), Socket::open()?);
    let times = (0..rounds).map(|round| time_of_one(&requests, &socket, round));
    let times = times.collect::<anyhow::Result<Vec<Duration>>>()?;
    drop(requests);
    let refused: Vec<String> = sets.failures().map(|error| error.to_string()).collect();
    ensure!(refused.is_empty(), "{}", refused.join("; "));
    sets.finish();
    Ok(Latencies::of(times))
}

fn time_of_one(sets: &SetRequests, socket: &Socket, round: u32) -> anyhow::Result<Duration> {
    let client = Ipv4Addr::from_bits(Ipv4Addr::new(10, 77, 200, 0).to_bits() + round);
    let peer = SocketAddrV4::new(Ipv4Addr::new(198, 18, 0, 1), 1214);
    let element = Element::Peer(client, peer, Transport::Tcp);
    let begun = now();
    ensure!(
        sets.request((element, Some(Duration::from_secs(60)))),
        "too many changes wait"
    );
    while !is_known(socket, client, peer)? {
        if begun.elapsed() > PATIENCE {
            bail!("a change of the set {PEERS} never came to the kernel");
        }
        thread::yield_now();
    }
    Ok(begun.elapsed())
}

/// Asks the kernel for one element of the set of peers (`NFT_MSG_GETSETELEM` of nf_tables.h).
fn is_known(socket: &Socket, client: Ipv4Addr, peer: SocketAddrV4) -> anyhow::Result<bool> {
    const GET_ELEMENT: u16 = 10 << 8 | 13;
    const FAMILY_INET: u8 = 1;
    const TCP: u8 = 6;
    let mut request = MessageWriter::default();
    let header = Header {
        kind: GET_ELEMENT,
        family: FAMILY_INET,
        ..Header::default()
    };
    let [high, low] = peer.port().to_be_bytes();
    let key = [
        client.octets(),
        peer.ip().octets(),
        [TCP, 0, 0, 0],
        [high, low, 0, 0],
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
    socket.send(request.as_bytes())?;
    let mut answer = [0; 4096];
    let messages = socket.receive(&mut answer);
    let mut messages = messages
        .map_err(|error| anyhow::anyhow!("asking for an element: {error:?}"))?
        .context("the kernel did not answer")?;
    let first = messages.next().context("the answer is empty")?;
    let first = first.map_err(|error| anyhow::anyhow!("the answer is cut: {error:?}"))?;
    // An acknowledgement without an element is an error: there is none.
    Ok(first.acknowledgement().is_none())
}
