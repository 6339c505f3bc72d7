//! The list of what the control group does (`Kind`) and where it is answered (`Service`).
//!
//! A new kind of traffic is one row in [`Kind`], one in [`Kind::row`], one arm in `client.rs`, and,
//! if no server answers it yet, a file and a row in [`Service`].

use std::fmt;
use std::str::FromStr;

use clap::ValueEnum;

/// One kind of control-group request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, ValueEnum)]
#[value(rename_all = "snake_case")]
pub enum Kind {
    /// One page over HTTP/1.1.
    Http1,
    /// Several pages over one HTTP/1.1 connection.
    HttpKeepAlive,
    /// A download of some hundred kilobytes.
    HttpBytes,
    /// A path that starts with digits, as old-style FastTrack requests do.
    HttpDigits,
    /// A path that starts with a dot, as `/.hash=` does.
    HttpWellKnown,
    /// A request head of several segments.
    HttpLargeHead,
    /// A request head cut in two at any place.
    HttpSplitHead,
    /// A request of HTTP/1.0 with a `User-Agent`.
    Http10,
    /// An upload.
    HttpPost,
    /// A page that describes the FastTrack protocol, examples included.
    PageAboutKazaa,
    /// An upload of that page.
    UploadAboutKazaa,
    /// HTTP/1.1 over TLS 1.2.
    TlsH1,
    /// HTTP/2 over TLS 1.3, several streams at once.
    TlsH2,
    /// One bidirectional QUIC stream.
    Quic,
    /// A DNS question over UDP, with message ids that begin like FastTrack datagrams.
    DnsUdp,
    /// A DNS question over TCP, with an answer too long for a datagram.
    DnsTcp,
    /// SSH: identification strings, server first, then key exchange offers.
    SshBanner,
    /// SMTP: greeting, server first, then one mail.
    SmtpBanner,
    /// NTP, client mode.
    Ntp,
    /// A STUN binding request.
    Stun,
    /// Game-like datagrams from one socket to many outside addresses.
    GameFanOut,
    /// An OpenVPN handshake's first datagrams; acknowledgements begin with 0x28.
    OpenvpnUdp,
    /// A Modbus/TCP read: exactly 12 octets, initiator first.
    Modbus,
    /// A NoMachine hello: exactly 12 octets, initiator first.
    Nomachine,
    /// A BFCP Hello: exactly 12 octets, initiator first.
    Bfcp,
    /// A SOCKS4 request of exactly 12 octets, granted with 8, then HTTP.
    Socks4,
}

impl Kind {
    /// Every kind, in the order of the list.
    pub fn all() -> &'static [Self] {
        Self::value_variants()
    }

    /// The name in reports and on the command line.
    pub fn name(self) -> &'static str {
        self.row().0
    }

    /// Who answers it.
    pub fn service(self) -> Service {
        self.row().1
    }

    fn row(self) -> (&'static str, Service) {
        match self {
            Self::Http1 => ("http1", Service::Http),
            Self::HttpKeepAlive => ("http_keep_alive", Service::Http),
            Self::HttpBytes => ("http_bytes", Service::Http),
            Self::HttpDigits => ("http_digits", Service::Http),
            Self::HttpWellKnown => ("http_well_known", Service::Http),
            Self::HttpLargeHead => ("http_large_head", Service::Http),
            Self::HttpSplitHead => ("http_split_head", Service::Http),
            Self::Http10 => ("http10", Service::Http),
            Self::HttpPost => ("http_post", Service::Http),
            Self::PageAboutKazaa => ("page_about_kazaa", Service::Http),
            Self::UploadAboutKazaa => ("upload_about_kazaa", Service::Http),
            Self::TlsH1 => ("tls_h1", Service::Tls),
            Self::TlsH2 => ("tls_h2", Service::Tls),
            Self::Quic => ("quic", Service::Quic),
            Self::DnsUdp => ("dns_udp", Service::DnsUdp),
            Self::DnsTcp => ("dns_tcp", Service::DnsTcp),
            Self::SshBanner => ("ssh_banner", Service::Ssh),
            Self::SmtpBanner => ("smtp_banner", Service::Smtp),
            Self::Ntp => ("ntp", Service::Ntp),
            Self::Stun => ("stun", Service::Stun),
            Self::GameFanOut => ("game_fan_out", Service::Game),
            Self::OpenvpnUdp => ("openvpn_udp", Service::Openvpn),
            Self::Modbus => ("modbus", Service::Modbus),
            Self::Nomachine => ("nomachine", Service::Nomachine),
            Self::Bfcp => ("bfcp", Service::Bfcp),
            Self::Socks4 => ("socks4", Service::Socks),
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Kinds as typed on the command line: `all`, or names with commas between them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KindList(pub Vec<Kind>);

impl Default for KindList {
    fn default() -> Self {
        Self(Kind::all().to_vec())
    }
}

impl FromStr for KindList {
    type Err = UnknownKind;

    fn from_str(text: &str) -> Result<Self, UnknownKind> {
        if text == "all" {
            return Ok(Self::default());
        }
        text.split(',')
            .map(find)
            .collect::<Result<_, _>>()
            .map(Self)
    }
}

fn find(name: &str) -> Result<Kind, UnknownKind> {
    let known = Kind::all().iter().copied().find(|kind| kind.name() == name);
    known.ok_or_else(|| UnknownKind(name.to_owned()))
}

impl fmt::Display for KindList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Self::default() {
            return f.write_str("all");
        }
        let names: Vec<_> = self.0.iter().map(|kind| kind.name()).collect();
        f.write_str(&names.join(","))
    }
}

/// A name that is not in the list.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("no kind of traffic is called '{0}'; known: all, {known}", known = names())]
pub struct UnknownKind(String);

fn names() -> String {
    Kind::all()
        .iter()
        .map(|kind| kind.name())
        .collect::<Vec<_>>()
        .join(", ")
}

/// How a service is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// A listening TCP socket.
    Tcp,
    /// A UDP socket.
    Udp,
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
        })
    }
}

/// One socket of the control group's server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Service {
    /// Pages, downloads and uploads in the clear.
    Http,
    /// The same over TLS.
    Tls,
    /// The same over QUIC.
    Quic,
    /// DNS over UDP.
    DnsUdp,
    /// DNS over TCP.
    DnsTcp,
    /// A greeting like that of an SSH server.
    Ssh,
    /// A mail server that keeps nothing.
    Smtp,
    /// A time server without a clock.
    Ntp,
    /// A STUN server.
    Stun,
    /// A game server on every local address.
    Game,
    /// The first answers of an OpenVPN server.
    Openvpn,
    /// A Modbus/TCP device.
    Modbus,
    /// The greeting of a NoMachine server.
    Nomachine,
    /// A BFCP floor control server.
    Bfcp,
    /// A SOCKS4 proxy in front of the pages.
    Socks,
}

impl Service {
    /// Every service, in the order in which their sockets are bound.
    pub const ALL: [Self; 15] = [
        Self::Http,
        Self::Tls,
        Self::Quic,
        Self::DnsUdp,
        Self::DnsTcp,
        Self::Ssh,
        Self::Smtp,
        Self::Ntp,
        Self::Stun,
        Self::Game,
        Self::Openvpn,
        Self::Modbus,
        Self::Nomachine,
        Self::Bfcp,
        Self::Socks,
    ];

    /// The transport and the registered or customary port, before any `--port-offset`.
    pub fn port(self) -> (Transport, u16) {
        match self {
            Self::Http => (Transport::Tcp, 80),
            Self::Tls => (Transport::Tcp, 443),
            Self::Quic => (Transport::Udp, 443),
            Self::DnsUdp => (Transport::Udp, 53),
            Self::DnsTcp => (Transport::Tcp, 53),
            Self::Ssh => (Transport::Tcp, 22),
            Self::Smtp => (Transport::Tcp, 25),
            Self::Ntp => (Transport::Udp, 123),
            Self::Stun => (Transport::Udp, 3478),
            // Call of Duty and Xbox Live; datagrams there do begin with 0x28 and 0x29.
            Self::Game => (Transport::Udp, 3074),
            Self::Openvpn => (Transport::Udp, 1194),
            Self::Modbus => (Transport::Tcp, 502),
            Self::Nomachine => (Transport::Tcp, 4000),
            // BFCP has no registered port (RFC 8856 negotiates it); conference systems use this.
            Self::Bfcp => (Transport::Tcp, 3238),
            Self::Socks => (Transport::Tcp, 1080),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_is_found_by_its_own_name() {
        for kind in Kind::all() {
            assert_eq!(kind.name().parse::<KindList>(), Ok(KindList(vec![*kind])));
            assert_eq!(kind.to_possible_value().unwrap().get_name(), kind.name());
        }
    }

    #[test]
    fn a_list_keeps_its_order_and_all_means_every_kind() {
        let two: KindList = "quic,http1".parse().unwrap();
        assert_eq!(two, KindList(vec![Kind::Quic, Kind::Http1]));
        assert_eq!(two.to_string(), "quic,http1");
        assert_eq!("all".parse::<KindList>().unwrap().0, Kind::all());
        assert_eq!(KindList::default().to_string(), "all");
    }

    #[test]
    fn an_unknown_kind_is_refused_with_the_known_ones_named() {
        let error = "http1,gopher".parse::<KindList>().unwrap_err().to_string();
        assert!(
            error.contains("'gopher'") && error.contains("page_about_kazaa"),
            "{error}"
        );
    }

    #[test]
    fn no_two_services_share_a_transport_and_port() {
        let mut ports: Vec<_> = Service::ALL.iter().map(|service| service.port()).collect();
        ports.sort_by_key(|(transport, port)| (*transport as u8, *port));
        ports.dedup();
        assert_eq!(ports.len(), Service::ALL.len());
    }

    #[test]
    fn every_service_answers_at_least_one_kind() {
        for service in Service::ALL {
            assert!(
                Kind::all().iter().any(|kind| kind.service() == service),
                "{service:?}"
            );
        }
    }
}
