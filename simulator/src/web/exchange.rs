//! The control group without sockets: what both sides of each kind of request write, as a script.
//!
//! A virtual network plays the turns; nothing here reads or waits. Where a protocol's octets are
//! written by this crate, the script and the socket version share the functions that write them, and
//! the same seed and number make the same draws. Where a library writes them (hyper, rustls,
//! quinn), the script writes what it would: heads with the same fields, and records and datagrams
//! of the same layout and sizes around random octets.
//!
//! A new kind of traffic is one arm in `scripts` and a `script` beside its socket version.

mod hypertext;
mod quic;
mod tls;

use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use rand::rngs::StdRng;

use super::client::draws;
use super::kind::{Kind, Transport};
use super::{bfcp, dns, game, modbus, ntp, openvpn, smtp, ssh, stun};

/// One request of the control group and everything said for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exchange {
    /// What is asked for.
    pub kind: Kind,
    /// What is said, with whom. All begin at the same time; those over UDP leave from one socket.
    pub conversations: Vec<Conversation>,
}

/// What the client and one server say to each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conversation {
    /// How the server is reached.
    pub transport: Transport,
    /// The server.
    pub to: SocketAddrV4,
    /// What is said, in turn: a side takes its turn once everything before it has arrived.
    pub turns: Vec<Turn>,
}

/// One write to a TCP connection, or one datagram.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Turn {
    /// Who writes.
    pub from: Side,
    /// How long that side thinks before it writes.
    pub after: Duration,
    /// What it writes, at least one octet.
    pub bytes: Vec<u8>,
}

/// One side of a conversation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Side {
    /// Who asks.
    Client,
    /// Who answers.
    Server,
}

impl Turn {
    /// The client's next write, made at once.
    pub(super) fn client(bytes: impl Into<Vec<u8>>) -> Self {
        Self::at_once(Side::Client, bytes.into())
    }

    /// The server's next write, made at once.
    pub(super) fn server(bytes: impl Into<Vec<u8>>) -> Self {
        Self::at_once(Side::Server, bytes.into())
    }

    fn at_once(from: Side, bytes: Vec<u8>) -> Self {
        Self {
            from,
            after: Duration::ZERO,
            bytes,
        }
    }
}

/// Writes down request `number` of a client with `seed`, to the server at `server`.
///
/// The same arguments give the same octets. Ports are those of [`super::Service::port`], without an
/// offset.
pub fn exchange(kind: Kind, server: Ipv4Addr, seed: u64, number: u64) -> Exchange {
    let scripts = scripts(kind, server, &mut draws(seed, number)).into_iter();
    Exchange {
        kind,
        conversations: scripts
            .map(|(server, turns)| conversation(kind, server, turns))
            .collect(),
    }
}

fn conversation(kind: Kind, server: Ipv4Addr, turns: Vec<Turn>) -> Conversation {
    let (transport, port) = kind.service().port();
    Conversation {
        transport,
        to: SocketAddrV4::new(server, port),
        turns,
    }
}

/// What is said with each server, and mostly there is one: one arm per kind.
fn scripts(kind: Kind, server: Ipv4Addr, draws: &mut StdRng) -> Vec<(Ipv4Addr, Vec<Turn>)> {
    let turns = match kind {
        Kind::GameFanOut => return game::scripts(server, draws),
        Kind::Http1 => hypertext::page(draws),
        Kind::HttpKeepAlive => hypertext::keep_alive(draws),
        Kind::HttpBytes => hypertext::download(draws),
        Kind::HttpDigits => hypertext::digits(draws),
        Kind::HttpWellKnown => hypertext::well_known(draws),
        Kind::HttpLargeHead => hypertext::large_head(draws),
        Kind::HttpSplitHead => hypertext::split_head(draws),
        Kind::Http10 => hypertext::http10(draws),
        Kind::HttpPost => hypertext::upload(draws),
        Kind::PageAboutKazaa => hypertext::page_about_kazaa(),
        Kind::UploadAboutKazaa => hypertext::upload_about_kazaa(),
        Kind::TlsH1 => tls::http1(draws),
        Kind::TlsH2 => tls::http2(draws),
        Kind::Quic => quic::download(draws),
        Kind::DnsUdp => dns::script_of_datagrams(draws),
        Kind::DnsTcp => dns::script_of_stream(draws),
        Kind::SshBanner => ssh::script(draws),
        Kind::SmtpBanner => smtp::script(draws),
        Kind::Ntp => ntp::script(draws),
        Kind::Stun => stun::script(draws),
        Kind::OpenvpnUdp => openvpn::script(draws),
        Kind::Modbus => modbus::script(draws),
        Kind::Nomachine => tls::nomachine(draws),
        Kind::Bfcp => bfcp::script(draws),
        Kind::Socks4 => hypertext::socks(draws),
    };
    vec![(server, turns)]
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const SERVER: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 80);

    fn every_exchange() -> impl Iterator<Item = Exchange> {
        let kinds = Kind::all().iter().copied();
        kinds.flat_map(|kind| (0..5).map(move |number| exchange(kind, SERVER, 7, number)))
    }

    #[test]
    fn in_every_conversation_both_sides_speak_and_nobody_says_nothing() {
        for Exchange {
            kind,
            conversations,
        } in every_exchange()
        {
            assert!(!conversations.is_empty(), "{kind}");
            for conversation in conversations {
                let speakers: BTreeSet<_> =
                    conversation.turns.iter().map(|turn| turn.from).collect();
                assert_eq!(speakers.len(), 2, "{kind}");
                assert!(
                    conversation.turns.iter().all(|turn| !turn.bytes.is_empty()),
                    "{kind}"
                );
            }
        }
    }

    #[test]
    fn every_conversation_goes_to_the_service_of_its_kind() {
        for Exchange {
            kind,
            conversations,
        } in every_exchange()
        {
            for conversation in conversations {
                let (transport, port) = kind.service().port();
                assert_eq!(conversation.transport, transport, "{kind}");
                assert_eq!(conversation.to.port(), port, "{kind}");
                let network = conversation.to.ip().octets()[..3].to_vec();
                assert_eq!(network, [203, 0, 113], "{kind}");
            }
        }
    }

    #[test]
    fn equal_arguments_give_equal_octets_and_another_number_gives_others() {
        // The page about Kazaa is the same for everybody.
        let fixed = [Kind::PageAboutKazaa, Kind::UploadAboutKazaa];
        for kind in Kind::all() {
            let one = exchange(*kind, SERVER, 7, 1);
            assert_eq!(one, exchange(*kind, SERVER, 7, 1), "{kind}");
            let differs = one != exchange(*kind, SERVER, 7, 2);
            assert_eq!(differs, !fixed.contains(kind), "{kind}");
        }
    }

    #[test]
    fn a_datagram_fits_on_any_link() {
        for Exchange {
            kind,
            conversations,
        } in every_exchange()
        {
            let datagrams = conversations
                .iter()
                .filter(|conversation| conversation.transport == Transport::Udp)
                .flat_map(|conversation| &conversation.turns);
            for turn in datagrams {
                assert!(turn.bytes.len() <= 1_200, "{kind}: {}", turn.bytes.len());
            }
        }
    }

    #[test]
    fn the_first_octets_of_each_kind_are_those_of_its_protocol() {
        let first = |kind| {
            let exchange = exchange(kind, SERVER, 1, 1);
            exchange.conversations[0].turns[0].clone()
        };
        assert!(first(Kind::Http10).bytes.starts_with(b"GET /news/"));
        assert!(first(Kind::HttpPost).bytes.starts_with(b"POST /bytes/"));
        assert_eq!(first(Kind::TlsH2).bytes[..2], [0x16, 3]);
        assert_eq!(first(Kind::SshBanner).from, Side::Server);
        assert_eq!(first(Kind::SmtpBanner).from, Side::Server);
        for kind in [Kind::Modbus, Kind::Nomachine, Kind::Bfcp, Kind::Socks4] {
            assert_eq!(first(kind).bytes.len(), 12, "{kind}");
        }
        let initial = first(Kind::Quic).bytes;
        assert_eq!((initial.len(), initial[0] >> 4), (1_200, 0b1100));
        assert_eq!(initial[1..5], [0, 0, 0, 1]);
    }
}
