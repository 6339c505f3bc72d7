//! STUN binding requests (RFC 8489), with a fingerprint on both messages.

use std::net::{IpAddr, Ipv4Addr};

use anyhow::{Context, ensure};
use rand::RngExt;
use rand::rngs::StdRng;

use super::client::Visit;
use super::datagram::{Addresses, Conversation};
use super::exchange::Turn;
use super::kind::Service;

const BINDING_REQUEST: u16 = 0x0001;
const BINDING_SUCCESS: u16 = 0x0101;
const XOR_MAPPED_ADDRESS: u16 = 0x0020;
const FINGERPRINT: u16 = 0x8028;
const MAGIC_COOKIE: u32 = 0x2112_a442;

/// What a fingerprint's checksum is combined with (RFC 8489 section 14.7).
const FINGERPRINT_MASK: u32 = 0x5354_554e;

/// Octets of a message before its attributes.
const HEADER: usize = 20;
/// Octets of a whole fingerprint attribute.
const FINGERPRINT_LENGTH: usize = 8;

type TransactionId = [u8; 12];

/// Answers a binding request with the address it came from.
pub(super) fn answer(request: &[u8], addresses: Addresses) -> Option<Vec<u8>> {
    let id = open(request, BINDING_REQUEST)?;
    let IpAddr::V4(client) = addresses.client.ip() else {
        return None;
    };
    Some(success(id, client, addresses.client.port()))
}

/// Asks for the own address. Behind NAT it is not the socket's, so its port and address are not
/// compared; the fingerprint covers them.
pub(super) async fn ask(visit: &mut Visit) -> anyhow::Result<()> {
    let id: TransactionId = visit.rng.random();
    let conversation = Conversation::open(visit, Service::Stun).await?;
    let reply = conversation.ask(&message(BINDING_REQUEST, id, &[])).await?;
    let answered = open(&reply, BINDING_SUCCESS).context("altered or not a success response")?;
    ensure!(answered == id, "answer to another request");
    ensure!(
        reply[HEADER..HEADER + 2] == XOR_MAPPED_ADDRESS.to_be_bytes(),
        "no mapped address"
    );
    Ok(())
}

/// Request and answer. The answer names some address outside, as behind NAT.
pub(super) fn script(draws: &mut StdRng) -> Vec<Turn> {
    let id: TransactionId = draws.random();
    let port = draws.random_range(1_024..=u16::MAX);
    vec![
        Turn::client(message(BINDING_REQUEST, id, &[])),
        Turn::server(success(id, Ipv4Addr::new(192, 0, 2, 2), port)),
    ]
}

fn success(id: TransactionId, client: Ipv4Addr, port: u16) -> Vec<u8> {
    message(BINDING_SUCCESS, id, &mapped_address(client, port))
}

fn message(kind: u16, id: TransactionId, attributes: &[u8]) -> Vec<u8> {
    let length = attributes.len() + FINGERPRINT_LENGTH;
    let mut message = kind.to_be_bytes().to_vec();
    message.extend((length as u16).to_be_bytes());
    message.extend(MAGIC_COOKIE.to_be_bytes());
    message.extend(id);
    message.extend(attributes);
    let fingerprint = crc32(&message) ^ FINGERPRINT_MASK;
    message.extend(attribute(FINGERPRINT, &fingerprint.to_be_bytes()));
    message
}

/// The transaction id of an unaltered message of that kind.
fn open(message: &[u8], kind: u16) -> Option<TransactionId> {
    let covered = message
        .len()
        .checked_sub(FINGERPRINT_LENGTH)
        .filter(|end| *end >= HEADER)?;
    let fingerprint = crc32(&message[..covered]) ^ FINGERPRINT_MASK;
    let whole = message[..2] == kind.to_be_bytes()
        && message[4..8] == MAGIC_COOKIE.to_be_bytes()
        && message[covered..] == attribute(FINGERPRINT, &fingerprint.to_be_bytes());
    whole.then(|| message[8..HEADER].try_into().expect("an id has 12 octets"))
}

fn mapped_address(address: Ipv4Addr, port: u16) -> Vec<u8> {
    let port = port ^ (MAGIC_COOKIE >> 16) as u16;
    let address = u32::from(address) ^ MAGIC_COOKIE;
    let family_ipv4 = [0, 1];
    let value = [
        &family_ipv4[..],
        &port.to_be_bytes(),
        &address.to_be_bytes(),
    ]
    .concat();
    attribute(XOR_MAPPED_ADDRESS, &value)
}

/// An attribute whose value fills whole words.
fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    [
        &kind.to_be_bytes()[..],
        &(value.len() as u16).to_be_bytes(),
        value,
    ]
    .concat()
}

/// CRC-32 of ISO 3309, bit by bit.
fn crc32(octets: &[u8]) -> u32 {
    const POLYNOMIAL: u32 = 0xedb8_8320;
    !octets.iter().fold(u32::MAX, |sum, octet| {
        (0..8).fold(sum ^ u32::from(*octet), |sum, _| {
            if sum & 1 == 1 {
                (sum >> 1) ^ POLYNOMIAL
            } else {
                sum >> 1
            }
        })
    })
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;

    const CLIENT: Addresses = Addresses {
        client: SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), 32853),
        server: IpAddr::V4(Ipv4Addr::LOCALHOST),
    };

    #[test]
    fn the_checksum_is_crc_32() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
    }

    #[test]
    fn the_mapped_address_is_that_of_the_rfc() {
        // RFC 5769 section 2.2: 192.0.2.1 port 32853.
        let reply = answer(&message(BINDING_REQUEST, [9; 12], &[]), CLIENT).unwrap();
        assert_eq!(
            reply[HEADER..HEADER + 12],
            *b"\x00\x20\x00\x08\x00\x01\xa1\x47\xe1\x12\xa6\x43"
        );
        assert_eq!(open(&reply, BINDING_SUCCESS), Some([9; 12]));
    }

    #[test]
    fn any_altered_octet_is_noticed() {
        let request = message(BINDING_REQUEST, [9; 12], &[]);
        for place in 0..request.len() {
            let mut altered = request.clone();
            altered[place] ^= 0x10;
            assert_eq!(answer(&altered, CLIENT), None, "octet {place}");
        }
        assert_eq!(answer(&request[..12], CLIENT), None);
    }
}
