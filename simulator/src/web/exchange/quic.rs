//! A download over QUIC version 1 (RFC 9000): long headers while the handshake lasts, then short
//! ones. Everything behind the headers is encrypted, so random octets stand for it.

use rand::rngs::StdRng;
use rand::{Rng, RngExt};

use super::Turn;
use crate::web::http::bytes_target;
use crate::web::quic::SIZES;

/// Version 1, in every long header.
const VERSION_1: [u8; 4] = [0, 0, 0, 1];

/// First octet of a long header: form and fixed bit, type; the low four bits are encrypted.
const INITIAL: u8 = 0xc0;
const HANDSHAKE: u8 = 0xe0;
/// First octet of a short header: the fixed bit; the rest is encrypted.
const SHORT: u8 = 0x40;

/// The least that a datagram with an Initial packet holds (RFC 9000 section 14.1), and what fits
/// everywhere.
const DATAGRAM: usize = 1_200;

/// Octets of a connection id as quinn draws them.
const ID: usize = 8;

/// Octets of a short header with its packet number, and of the tag that seals a packet.
const SHORT_OVERHEAD: usize = 1 + ID + 2 + 16;

/// Datagrams of a download that one acknowledgement answers.
const ACKNOWLEDGED: usize = 8;

/// Handshake, request, content, acknowledgements, goodbye.
pub(super) fn download(draws: &mut StdRng) -> Vec<Turn> {
    let target = bytes_target(draws, SIZES);
    let [first, client, server] = [(); 3].map(|()| draws.random::<[u8; ID]>());
    let mut turns = vec![
        Turn::client(initial(&first, &client, draws)),
        // The hello and the certificate, over two datagrams; the second holds the signature.
        Turn::server(hello_and_handshake(&client, &server, draws)),
        Turn::server(handshake(&client, &server, 520, draws)),
        Turn::client(initial(&server, &client, draws)),
        Turn::client(handshake(&server, &client, 52, draws)),
        Turn::client(short(&server, "GET \r\n".len() + target.len() + 8, draws)),
    ];
    let content = crate::web::http::content_of(&target).remaining();
    turns.extend(pieces(content, &client, &server, draws));
    turns.push(Turn::client(short(&server, 12, draws)));
    turns
}

/// The content in full datagrams, acknowledged now and then.
fn pieces(content: u64, client: &[u8; ID], server: &[u8; ID], draws: &mut StdRng) -> Vec<Turn> {
    let most = DATAGRAM - SHORT_OVERHEAD;
    let mut left = usize::try_from(content).expect("downloads fit in memory");
    let mut turns = Vec::new();
    while left > 0 {
        let piece = left.min(most);
        left -= piece;
        turns.push(Turn::server(short(client, piece, draws)));
        if turns.len() % (ACKNOWLEDGED + 1) == ACKNOWLEDGED {
            turns.push(Turn::client(short(server, 6, draws)));
        }
    }
    turns
}

/// A datagram with one Initial packet, padded.
fn initial(to: &[u8; ID], from: &[u8; ID], draws: &mut StdRng) -> Vec<u8> {
    let mut datagram = long_header(INITIAL, to, from, draws);
    datagram.push(0); // no token
    fill(&mut datagram, DATAGRAM, draws);
    datagram
}

/// A datagram with an Initial and a Handshake packet, together as long as allowed.
fn hello_and_handshake(to: &[u8; ID], from: &[u8; ID], draws: &mut StdRng) -> Vec<u8> {
    let mut datagram = long_header(INITIAL, to, from, draws);
    datagram.push(0);
    fill(&mut datagram, 150, draws);
    datagram.extend(handshake(to, from, DATAGRAM - 150, draws));
    datagram
}

/// A Handshake packet of `length` octets.
fn handshake(to: &[u8; ID], from: &[u8; ID], length: usize, draws: &mut StdRng) -> Vec<u8> {
    let mut packet = long_header(HANDSHAKE, to, from, draws);
    fill(&mut packet, length, draws);
    packet
}

/// First octet, version and both connection ids behind their lengths (RFC 9000 section 17.2).
fn long_header(kind: u8, to: &[u8; ID], from: &[u8; ID], draws: &mut StdRng) -> Vec<u8> {
    let protected: u8 = draws.random_range(0..0x10);
    let id = [ID as u8];
    [&[kind | protected], &VERSION_1[..], &id, to, &id, from].concat()
}

/// Adds the length field and random octets, up to `length` in all.
fn fill(packet: &mut Vec<u8>, length: usize, draws: &mut StdRng) {
    // Two octets whose first two bits say so (RFC 9000 section 16).
    let rest = length - packet.len() - 2;
    packet.extend((0x4000 | rest as u16).to_be_bytes());
    push_random(packet, rest, draws);
}

/// A packet with a short header that carries `frames` octets (RFC 9000 section 17.3).
fn short(to: &[u8; ID], frames: usize, draws: &mut StdRng) -> Vec<u8> {
    let protected: u8 = draws.random_range(0..0x40);
    let mut packet = [&[SHORT | protected][..], to].concat();
    push_random(&mut packet, SHORT_OVERHEAD - 1 - ID + frames, draws);
    packet
}

fn push_random(packet: &mut Vec<u8>, count: usize, draws: &mut StdRng) {
    let start = packet.len();
    packet.resize(start + count, 0);
    draws.fill_bytes(&mut packet[start..]);
}
