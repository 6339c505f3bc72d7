//! SSH up to the key exchange offers (RFC 4253 sections 4.2, 6 and 7.1). The server speaks first.

use std::sync::Arc;

use anyhow::ensure;
use rand::RngExt;
use rand::rngs::StdRng;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

use super::client::Visit;
use super::exchange::Turn;
use super::kind::Service;
use super::server::Shared;
use super::stream::Lines;

const SERVER_IDENTIFICATION: &str = "SSH-2.0-OpenSSH_9.2p1 Debian-2+deb12u3";
const CLIENT_IDENTIFICATION: &str = "SSH-2.0-OpenSSH_9.7";

/// Message number of a key exchange offer (RFC 4250 section 4.1.2).
const KEXINIT: u8 = 20;

/// Packets are padded to multiples of this before there is a cipher (RFC 4253 section 6).
const BLOCK: usize = 8;

/// The longest packet every implementation has to take (RFC 4253 section 6.1).
const LONGEST_PACKET: u32 = 35_000;

/// The ten lists of an offer, in the order of RFC 4253 section 7.1.
const LISTS: [&str; 10] = [
    "sntrup761x25519-sha512@openssh.com,curve25519-sha256,ecdh-sha2-nistp256",
    "ssh-ed25519,ecdsa-sha2-nistp256,rsa-sha2-512,rsa-sha2-256",
    "chacha20-poly1305@openssh.com,aes128-ctr,aes256-gcm@openssh.com",
    "chacha20-poly1305@openssh.com,aes128-ctr,aes256-gcm@openssh.com",
    "umac-128-etm@openssh.com,hmac-sha2-256-etm@openssh.com",
    "umac-128-etm@openssh.com,hmac-sha2-256-etm@openssh.com",
    "none,zlib@openssh.com",
    "none,zlib@openssh.com",
    "",
    "",
];

/// Greets, then answers one offer.
pub(super) async fn answer(mut stream: TcpStream, _: Arc<Shared>) -> anyhow::Result<()> {
    stream
        .write_all(line(SERVER_IDENTIFICATION).as_bytes())
        .await?;
    let mut lines = Lines::new(stream);
    lines.next().await?;
    let offer = read_packet(lines.stream()).await?;
    let cookie = cookie_of(&offer)?;
    Ok(lines
        .stream()
        .write_all(&packet(&reply_cookie(cookie)))
        .await?)
}

/// Reads the greeting, then exchanges offers.
pub(super) async fn greet(visit: &mut Visit) -> anyhow::Result<()> {
    let cookie: [u8; 16] = visit.rng.random();
    let mut lines = Lines::new(visit.tcp(Service::Ssh).await?);
    lines.expect(SERVER_IDENTIFICATION).await?;
    let stream = lines.stream();
    stream
        .write_all(line(CLIENT_IDENTIFICATION).as_bytes())
        .await?;
    stream.write_all(&packet(&cookie)).await?;
    let offer = read_packet(stream).await?;
    ensure!(
        offer == packet(&reply_cookie(cookie))[4..],
        "altered key exchange offer"
    );
    Ok(())
}

/// Identifications and offers, server first.
pub(super) fn script(draws: &mut StdRng) -> Vec<Turn> {
    let cookie: [u8; 16] = draws.random();
    vec![
        Turn::server(line(SERVER_IDENTIFICATION)),
        Turn::client(line(CLIENT_IDENTIFICATION)),
        Turn::client(packet(&cookie)),
        Turn::server(packet(&reply_cookie(cookie))),
    ]
}

fn line(identification: &str) -> String {
    format!("{identification}\r\n")
}

/// The server's cookie, made from the client's so that the client can compare the whole offer.
fn reply_cookie(cookie: [u8; 16]) -> [u8; 16] {
    cookie.map(|octet| !octet)
}

/// An offer as a binary packet: length, padding length, payload, padding.
fn packet(cookie: &[u8; 16]) -> Vec<u8> {
    let mut payload = vec![KEXINIT];
    payload.extend(cookie);
    for list in LISTS {
        payload.extend((list.len() as u32).to_be_bytes());
        payload.extend(list.as_bytes());
    }
    // No guessed packet follows; four reserved octets.
    payload.extend([0; 5]);
    let mut padding = BLOCK - (5 + payload.len()) % BLOCK;
    if padding < 4 {
        padding += BLOCK;
    }
    let mut packet = ((1 + payload.len() + padding) as u32)
        .to_be_bytes()
        .to_vec();
    packet.push(padding as u8);
    packet.extend(payload);
    packet.resize(packet.len() + padding, 0);
    packet
}

/// A packet without its length field.
async fn read_packet<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S) -> anyhow::Result<Vec<u8>> {
    let length = stream.read_u32().await?;
    ensure!(length <= LONGEST_PACKET, "a packet of {length} octets");
    let mut packet = vec![0; length as usize];
    stream.read_exact(&mut packet).await?;
    Ok(packet)
}

fn cookie_of(packet: &[u8]) -> anyhow::Result<[u8; 16]> {
    match packet {
        [_, KEXINIT, rest @ ..] if rest.len() >= 16 => Ok(rest[..16].try_into()?),
        _ => anyhow::bail!("not a key exchange offer"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_offer_is_a_whole_number_of_blocks_with_enough_padding() {
        let packet = packet(&[7; 16]);
        assert_eq!(packet.len() % BLOCK, 0);
        assert!((4..4 + BLOCK).contains(&usize::from(packet[4])));
        let length = u32::from_be_bytes(packet[..4].try_into().unwrap());
        assert_eq!(length as usize, packet.len() - 4);
        assert_eq!(cookie_of(&packet[4..]).unwrap(), [7; 16]);
    }

    #[test]
    fn anything_but_an_offer_is_refused() {
        assert!(cookie_of(&[4, 21, 0, 0]).is_err());
        assert!(cookie_of(&[4, KEXINIT, 1, 2]).is_err());
    }
}
