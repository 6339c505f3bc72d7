//! BFCP, floor control of video conferences (RFC 8855). A Hello has no attributes, so that it is
//! exactly the 12 octets of the common header, and it is the first thing on the connection.

use std::sync::Arc;

use anyhow::ensure;
use rand::RngExt;
use rand::rngs::StdRng;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::client::Visit;
use super::exchange::Turn;
use super::kind::Service;
use super::server::Shared;

/// Octets of the common header (RFC 8855 section 5.1).
const HEADER: usize = 12;

/// Version 1, no flags: messages over a reliable transport.
const VERSION_1: u8 = 0x20;

// Primitives (section 5.1).
const HELLO: u8 = 11;
const HELLO_ACK: u8 = 12;

// Attribute types with the mandatory bit (section 5.2): the type fills the upper seven bits.
const SUPPORTED_ATTRIBUTES: u8 = 10 << 1 | 1;
const SUPPORTED_PRIMITIVES: u8 = 11 << 1 | 1;

/// What this server knows: the attributes of the floor request messages.
const ATTRIBUTES: [u8; 6] = [1 << 1, 2 << 1, 3 << 1, 4 << 1, 5 << 1, 6 << 1];
/// Floor request, release, status, status and query messages, Hello and its acknowledgement.
const PRIMITIVES: [u8; 6] = [1, 2, 4, 8, HELLO, HELLO_ACK];

type Header = [u8; HEADER];

/// Acknowledges Hellos until the client hangs up.
pub(super) async fn answer(mut stream: TcpStream, _: Arc<Shared>) -> anyhow::Result<()> {
    let mut header: Header = [0; HEADER];
    loop {
        stream.read_exact(&mut header).await?;
        ensure!(header[..4] == [VERSION_1, HELLO, 0, 0], "not a Hello");
        stream.write_all(&hello_ack(&header)).await?;
    }
}

/// Says Hello twice, the second time as a keep-alive.
pub(super) async fn greet(visit: &mut Visit) -> anyhow::Result<()> {
    let mut stream = visit.tcp(Service::Bfcp).await?;
    for hello in hellos(&mut visit.rng) {
        stream.write_all(&hello).await?;
        let wanted = hello_ack(&hello);
        let mut got = vec![0; wanted.len()];
        stream.read_exact(&mut got).await?;
        ensure!(got == wanted, "altered acknowledgement: {got:02x?}");
    }
    Ok(())
}

/// Both Hellos and their acknowledgements.
pub(super) fn script(draws: &mut StdRng) -> Vec<Turn> {
    let turns = |hello| [Turn::client(hello), Turn::server(hello_ack(&hello))];
    hellos(draws).into_iter().flat_map(turns).collect()
}

fn hellos(draws: &mut StdRng) -> [Header; 2] {
    let ids: [u8; 6] = draws.random();
    [1, 2].map(|transaction| hello(ids, transaction))
}

/// Header: version and flags, primitive, payload length in words, conference, transaction, user.
fn hello(ids: [u8; 6], transaction: u16) -> Header {
    let [c0, c1, c2, c3, u0, u1] = ids;
    let [t0, t1] = transaction.to_be_bytes();
    [VERSION_1, HELLO, 0, 0, c0, c1, c2, c3, t0, t1, u0, u1]
}

fn hello_ack(hello: &Header) -> Vec<u8> {
    let payload = [
        attribute(SUPPORTED_PRIMITIVES, PRIMITIVES),
        attribute(SUPPORTED_ATTRIBUTES, ATTRIBUTES),
    ]
    .concat();
    let words = (payload.len() / 4) as u16;
    let head = [
        &[VERSION_1, HELLO_ACK][..],
        &words.to_be_bytes(),
        &hello[4..],
    ]
    .concat();
    [head, payload].concat()
}

/// Type, length with these two octets, value; six octets of value need no padding.
fn attribute(kind: u8, value: [u8; 6]) -> Vec<u8> {
    [&[kind, 2 + value.len() as u8][..], &value].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hello_is_the_bare_header_and_its_answer_counts_in_words() {
        let hello = hello([0, 0, 0, 9, 0, 7], 1);
        assert_eq!(hello, [0x20, 11, 0, 0, 0, 0, 0, 9, 0, 1, 0, 7]);
        let ack = hello_ack(&hello);
        assert_eq!(ack.len(), HEADER + 16);
        assert_eq!(ack[..4], [0x20, 12, 0, 4]);
        assert_eq!(ack[4..12], hello[4..]);
    }
}
