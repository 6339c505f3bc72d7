//! Modbus/TCP: reading holding registers (Modbus Application Protocol 1.1b3, section 6.3). The
//! request is exactly 12 octets and the first thing on the connection.

use std::sync::Arc;

use anyhow::ensure;
use rand::RngExt;
use rand::rngs::StdRng;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::client::Visit;
use super::content::digest;
use super::exchange::Turn;
use super::kind::Service;
use super::server::Shared;

const REQUEST_LENGTH: usize = 12;
const READ_HOLDING_REGISTERS: u8 = 3;

/// The most registers of one answer.
const MOST_REGISTERS: u16 = 125;

type Request = [u8; REQUEST_LENGTH];

/// Answers reads until the client hangs up.
pub(super) async fn answer(mut stream: TcpStream, _: Arc<Shared>) -> anyhow::Result<()> {
    let mut request: Request = [0; REQUEST_LENGTH];
    loop {
        stream.read_exact(&mut request).await?;
        ensure!(is_read(&request), "not a read of holding registers");
        stream.write_all(&reply(&request)).await?;
    }
}

/// Reads some registers three times, as a poller does. Four registers make an answer of 17 octets,
/// a length that FastTrack's handshake also has.
pub(super) async fn read(visit: &mut Visit) -> anyhow::Result<()> {
    let mut stream = visit.tcp(Service::Modbus).await?;
    for request in requests(&mut visit.rng) {
        stream.write_all(&request).await?;
        let wanted = reply(&request);
        let mut got = vec![0; wanted.len()];
        stream.read_exact(&mut got).await?;
        ensure!(got == wanted, "altered registers: {got:02x?}");
    }
    Ok(())
}

/// Three reads and their answers.
pub(super) fn script(draws: &mut StdRng) -> Vec<Turn> {
    let requests = requests(draws);
    let turns = |request| [Turn::client(request), Turn::server(reply(&request))];
    requests.into_iter().flat_map(turns).collect()
}

fn requests(draws: &mut StdRng) -> [Request; 3] {
    let unit = draws.random_range(1..=247);
    let first: u16 = draws.random();
    [0, 1, 2].map(|number| {
        let count = draws.random_range(1..=10);
        request(first.wrapping_add(number), unit, draws.random(), count)
    })
}

/// Transaction, protocol 0, 6 octets follow, unit, function, first register, count.
fn request(transaction: u16, unit: u8, register: u16, count: u16) -> Request {
    let [t0, t1] = transaction.to_be_bytes();
    let [r0, r1] = register.to_be_bytes();
    let [c0, c1] = count.to_be_bytes();
    [
        t0,
        t1,
        0,
        0,
        0,
        6,
        unit,
        READ_HOLDING_REGISTERS,
        r0,
        r1,
        c0,
        c1,
    ]
}

fn is_read(request: &Request) -> bool {
    request[2..6] == [0, 0, 0, 6]
        && request[7] == READ_HOLDING_REGISTERS
        && (1..=MOST_REGISTERS).contains(&count_of(request))
}

fn count_of(request: &Request) -> u16 {
    u16::from_be_bytes([request[10], request[11]])
}

/// Registers whose values follow from unit and number.
fn reply(request: &Request) -> Vec<u8> {
    let count = count_of(request);
    let first = u16::from_be_bytes([request[8], request[9]]);
    let octets = 2 * count;
    let mut reply = request[..4].to_vec();
    reply.extend((3 + octets).to_be_bytes());
    reply.extend([request[6], READ_HOLDING_REGISTERS, octets as u8]);
    for number in 0..count {
        let [high, low] = first.wrapping_add(number).to_be_bytes();
        reply.extend((digest(&[request[6], high, low]) as u16).to_be_bytes());
    }
    reply
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_read_is_12_octets_and_four_registers_answer_with_17() {
        let request = request(0x0102, 9, 0x0a0b, 4);
        assert_eq!(request, [1, 2, 0, 0, 0, 6, 9, 3, 0x0a, 0x0b, 0, 4]);
        assert!(is_read(&request));
        let reply = reply(&request);
        assert_eq!(reply.len(), 17);
        assert_eq!(reply[..9], [1, 2, 0, 0, 0, 11, 9, 3, 8]);
    }

    #[test]
    fn writes_and_absurd_counts_are_not_reads() {
        assert!(!is_read(&[1, 2, 0, 0, 0, 6, 9, 6, 0, 0, 0, 1]));
        assert!(!is_read(&request(1, 1, 0, 0)));
        assert!(!is_read(&request(1, 1, 0, 126)));
    }
}
