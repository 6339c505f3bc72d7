//! NTP version 4, client and server mode (RFC 5905 section 7.3): 48 octets each way.
//!
//! The server owns no clock. It answers as if the request had taken exactly one second to arrive,
//! so that the client can compare every octet.

use anyhow::ensure;
use rand::RngExt;
use rand::rngs::StdRng;

use super::client::Visit;
use super::datagram::{Addresses, Conversation};
use super::exchange::Turn;
use super::kind::Service;

const LENGTH: usize = 48;

/// No leap warning, version 4, client.
const CLIENT_MODE: u8 = 0x23;
/// No leap warning, version 4, server.
const SERVER_MODE: u8 = 0x24;

/// One second in the format of NTP: 32 bits of seconds, 32 of their fractions.
const ONE_SECOND: u64 = 1 << 32;

/// Answers a request of client mode.
pub(super) fn answer(request: &[u8], _: Addresses) -> Option<Vec<u8>> {
    let request: &[u8; LENGTH] = request.try_into().ok()?;
    (request[0] == CLIENT_MODE).then(|| reply(transmit_time(request)).to_vec())
}

/// Asks for the time.
pub(super) async fn ask(visit: &mut Visit) -> anyhow::Result<()> {
    let now: u64 = visit.rng.random();
    let conversation = Conversation::open(visit, Service::Ntp).await?;
    let answer = conversation.ask(&request(now)).await?;
    ensure!(answer == reply(now), "altered time: {answer:02x?}");
    Ok(())
}

/// Request and reply.
pub(super) fn script(draws: &mut StdRng) -> Vec<Turn> {
    let now = draws.random();
    vec![Turn::client(request(now)), Turn::server(reply(now))]
}

/// A request as modern clients send it: nothing but mode and transmit time, here a random number
/// (draft-ietf-ntp-data-minimization).
fn request(now: u64) -> [u8; LENGTH] {
    let mut packet = [0; LENGTH];
    packet[0] = CLIENT_MODE;
    packet[40..].copy_from_slice(&now.to_be_bytes());
    packet
}

fn reply(asked_at: u64) -> [u8; LENGTH] {
    let mut packet = [0; LENGTH];
    // Mode, stratum 2, poll interval 2^6 s, precision 2^-23 s.
    packet[..4].copy_from_slice(&[SERVER_MODE, 2, 6, 0xe9]);
    // Root delay and dispersion of some milliseconds, 16.16 fixed point; reference 192.0.2.123.
    packet[4..16].copy_from_slice(&[0, 0, 1, 0x2c, 0, 0, 0, 0x80, 192, 0, 2, 123]);
    let now = asked_at.wrapping_add(ONE_SECOND);
    packet[16..24].copy_from_slice(&now.wrapping_sub(60 * ONE_SECOND).to_be_bytes());
    packet[24..32].copy_from_slice(&asked_at.to_be_bytes());
    packet[32..40].copy_from_slice(&now.to_be_bytes());
    packet[40..].copy_from_slice(&now.to_be_bytes());
    packet
}

fn transmit_time(packet: &[u8; LENGTH]) -> u64 {
    u64::from_be_bytes(*packet.last_chunk().expect("48 octets hold 8"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::web::datagram::tests::ANYWHERE;

    #[test]
    fn a_reply_names_the_request_and_comes_one_second_later() {
        let reply = answer(&request(0x1122_3344_5566_7788), ANYWHERE).unwrap();
        assert_eq!(reply.len(), 48);
        // Leap 0, version 4, mode 4; stratum 2.
        assert_eq!(reply[..2], [0x24, 2]);
        assert_eq!(
            reply[24..32],
            [0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88],
            "originate"
        );
        assert_eq!(
            reply[32..40],
            [0x11, 0x22, 0x33, 0x45, 0x55, 0x66, 0x77, 0x88],
            "receive"
        );
    }

    #[test]
    fn only_requests_of_client_mode_are_answered() {
        assert_eq!(answer(&reply(1), ANYWHERE), None);
        assert_eq!(answer(&request(1)[..47], ANYWHERE), None);
    }
}
