//! Game-like fan-out: one socket, many outside addresses, small datagrams, as a server browser or a
//! voice chat makes them.
//!
//! The leading octets are those of FastTrack's datagrams on purpose, and some lengths too; what
//! follows is not: no zero octets where a FastTrack datagram has them, no network name at the end.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::ensure;
use rand::RngExt;
use rand::rngs::StdRng;
use tokio::net::UdpSocket;

use super::client::Visit;
use super::content::digest;
use super::datagram::Addresses;
use super::exchange::Turn;
use super::kind::Service;

/// Outside addresses that one request talks to.
const ADDRESSES: usize = 32;

/// Leading octets, used in turn.
const LEADS: [u8; 8] = [0x27, 0x28, 0x29, 0x2a, 0xc0, 0xc1, 0x80, 0xff];

/// Lengths, used in turn; 12 and 17 are those of FastTrack's commonest datagrams.
const LENGTHS: [usize; 5] = [18, 27, 12, 48, 17];

/// What stands behind the leading octet.
const TAG: [u8; 3] = *b"gs1";

/// Pause before those who have not answered are asked again.
const REPEAT: Duration = Duration::from_millis(500);

/// Longer than any answer.
const BUFFER: usize = 256;

/// Answers a datagram of this game, with the address that was asked.
pub(super) fn answer(question: &[u8], addresses: Addresses) -> Option<Vec<u8>> {
    match (question, addresses.server) {
        ([_, a, b, c, ..], IpAddr::V4(server)) if [*a, *b, *c] == TAG => {
            Some(reply(question, server))
        }
        _ => None,
    }
}

/// The question's leading octet, the tag, the address asked and a digest of all of it.
fn reply(question: &[u8], server: Ipv4Addr) -> Vec<u8> {
    let mut reply = question[..1 + TAG.len()].to_vec();
    reply.extend(server.octets());
    reply.extend(digest(&[question, &server.octets()].concat()).to_be_bytes());
    reply
}

/// Asks every address until each has answered.
pub(super) async fn fan_out(visit: &mut Visit) -> anyhow::Result<()> {
    let socket = visit.udp().await?;
    let mut unanswered = questions(visit.server_address(), &mut visit.rng);
    while !unanswered.is_empty() {
        for (server, question) in &unanswered {
            socket
                .send_to(question, visit.at(*server, Service::Game))
                .await?;
        }
        let replies = collect(&socket, visit, &mut unanswered);
        if let Ok(outcome) = tokio::time::timeout(REPEAT, replies).await {
            outcome?;
        }
    }
    Ok(())
}

/// Takes answers until nobody is left to answer.
async fn collect(
    socket: &UdpSocket,
    visit: &Visit,
    unanswered: &mut BTreeMap<Ipv4Addr, Vec<u8>>,
) -> anyhow::Result<()> {
    let mut buffer = [0; BUFFER];
    while !unanswered.is_empty() {
        let (length, from) = socket.recv_from(&mut buffer).await?;
        visit.received().add(length);
        let SocketAddr::V4(from) = from else { continue };
        // An answer that was repeated has been compared before.
        let Some(question) = unanswered.remove(from.ip()) else {
            continue;
        };
        ensure!(
            buffer[..length] == reply(&question, *from.ip()),
            "altered answer from {from}"
        );
    }
    Ok(())
}

/// One question and its answer for each address.
pub(super) fn scripts(server: Ipv4Addr, draws: &mut StdRng) -> Vec<(Ipv4Addr, Vec<Turn>)> {
    let turns = |(server, question): (Ipv4Addr, Vec<u8>)| {
        let reply = reply(&question, server);
        (server, vec![Turn::client(question), Turn::server(reply)])
    };
    questions(server, draws).into_iter().map(turns).collect()
}

/// One question for each of the server's neighbours in its /24.
fn questions(server: Ipv4Addr, draws: &mut StdRng) -> BTreeMap<Ipv4Addr, Vec<u8>> {
    let [a, b, c, _] = server.octets();
    let first: u8 = draws.random_range(1..=(255 - ADDRESSES as u8));
    (0..ADDRESSES)
        .map(|index| {
            (
                Ipv4Addr::new(a, b, c, first + index as u8),
                question(draws, index),
            )
        })
        .collect()
}

fn question(draws: &mut StdRng, index: usize) -> Vec<u8> {
    let mut question = vec![LEADS[index % LEADS.len()]];
    question.extend(TAG);
    // Never zero: a FastTrack datagram ends in one.
    question.resize_with(LENGTHS[index % LENGTHS.len()], || {
        draws.random_range(1..=255)
    });
    question
}
