//! The first datagrams of an OpenVPN session (protocol version 2, no key id, no HMAC). Its
//! acknowledgements begin with 0x28, as FastTrack's pongs do.
//!
//! Layout: opcode and key id in one octet, own session id, count of acknowledged packets, their
//! numbers, the other side's session id if any are acknowledged, own packet number, payload
//! (OpenVPN wire protocol, draft-openvpn-wire-protocol section 4).

use anyhow::ensure;
use rand::RngExt;
use rand::rngs::StdRng;

use super::client::Visit;
use super::datagram::{Addresses, Conversation};
use super::exchange::Turn;
use super::kind::Service;

/// Opcode 7: the client begins.
const HARD_RESET_CLIENT: u8 = 7 << 3;
/// Opcode 8: the server agrees.
const HARD_RESET_SERVER: u8 = 8 << 3;
/// Opcode 4: a piece of the TLS handshake.
const CONTROL: u8 = 4 << 3;
/// Opcode 5: acknowledgement alone; the octet 0x28.
const ACK: u8 = 5 << 3;

/// Octets of TLS in the client's control packet.
const PIECE: usize = 180;

/// The number of the client's control packet; its reset was number 0.
const CONTROL_NUMBER: [u8; 4] = 1u32.to_be_bytes();

type Session = [u8; 8];

/// Answers a reset with a reset and a control packet with an acknowledgement. The server keeps no
/// state: its session id follows from the client's.
pub(super) fn answer(datagram: &[u8], _: Addresses) -> Option<Vec<u8>> {
    let (opcode, rest) = datagram.split_first()?;
    let (client, rest) = rest.split_first_chunk::<8>()?;
    match *opcode {
        HARD_RESET_CLIENT if rest == [0, 0, 0, 0, 0] => Some(server_reset(client)),
        CONTROL if rest.len() > 4 && rest[0] == 0 => {
            Some(server_ack(client, rest[1..5].try_into().ok()?))
        }
        _ => None,
    }
}

/// Reset, reset, acknowledgement, control, acknowledgement.
pub(super) async fn shake_hands(visit: &mut Visit) -> anyhow::Result<()> {
    let client: Session = visit.rng.random();
    let hello: [u8; PIECE] = std::array::from_fn(|_| visit.rng.random());
    let conversation = Conversation::open(visit, Service::Openvpn).await?;
    let reset = conversation.ask(&client_reset(&client)).await?;
    ensure!(reset == server_reset(&client), "altered reset");
    conversation
        .tell(&ack(&client, 0, &server_session(&client)))
        .await?;
    let acknowledged = conversation.ask(&client_control(&client, &hello)).await?;
    ensure!(
        acknowledged == server_ack(&client, CONTROL_NUMBER),
        "altered acknowledgement"
    );
    Ok(())
}

/// Reset, reset, acknowledgement, control, acknowledgement.
pub(super) fn script(draws: &mut StdRng) -> Vec<Turn> {
    let client: Session = draws.random();
    let hello: [u8; PIECE] = std::array::from_fn(|_| draws.random());
    vec![
        Turn::client(client_reset(&client)),
        Turn::server(server_reset(&client)),
        Turn::client(ack(&client, 0, &server_session(&client))),
        Turn::client(client_control(&client, &hello)),
        Turn::server(server_ack(&client, CONTROL_NUMBER)),
    ]
}

fn client_control(client: &Session, hello: &[u8; PIECE]) -> Vec<u8> {
    [&[CONTROL][..], client, &[0], &CONTROL_NUMBER, hello].concat()
}

fn client_reset(client: &Session) -> Vec<u8> {
    [&[HARD_RESET_CLIENT][..], client, &[0], &0u32.to_be_bytes()].concat()
}

fn server_reset(client: &Session) -> Vec<u8> {
    let acknowledged = [&[1][..], &0u32.to_be_bytes(), client].concat();
    [
        &[HARD_RESET_SERVER][..],
        &server_session(client),
        &acknowledged,
        &0u32.to_be_bytes(),
    ]
    .concat()
}

fn server_ack(client: &Session, packet: [u8; 4]) -> Vec<u8> {
    ack(&server_session(client), u32::from_be_bytes(packet), client)
}

fn ack(own: &Session, packet: u32, other: &Session) -> Vec<u8> {
    [&[ACK][..], own, &[1], &packet.to_be_bytes(), other].concat()
}

fn server_session(client: &Session) -> Session {
    client.map(|octet| !octet)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::web::datagram::tests::ANYWHERE;

    const CLIENT: Session = [1, 2, 3, 4, 5, 6, 7, 8];

    #[test]
    fn a_reset_is_14_octets_and_its_answer_26() {
        let reset = client_reset(&CLIENT);
        assert_eq!((reset.len(), reset[0]), (14, 0x38));
        let reply = answer(&reset, ANYWHERE).unwrap();
        assert_eq!((reply.len(), reply[0]), (26, 0x40));
    }

    #[test]
    fn an_acknowledgement_begins_with_0x28_and_names_both_sessions() {
        let control = [&[0x20][..], &CLIENT, &[0, 0, 0, 0, 5, 0x16]].concat();
        let reply = answer(&control, ANYWHERE).unwrap();
        assert_eq!((reply.len(), reply[0]), (22, 0x28));
        assert_eq!(reply[9..14], [1, 0, 0, 0, 5]);
        assert_eq!(reply[14..], CLIENT);
    }

    #[test]
    fn acknowledgements_and_noise_are_not_answered() {
        assert_eq!(answer(&ack(&CLIENT, 0, &CLIENT), ANYWHERE), None);
        assert_eq!(answer(&[CONTROL; 9], ANYWHERE), None);
        assert_eq!(answer(&[], ANYWHERE), None);
    }
}
