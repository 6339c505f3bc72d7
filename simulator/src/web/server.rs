//! One process that answers every kind of control-group request.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::kind::{Service, Transport};
use super::{
    bfcp, datagram, dns, game, http, modbus, nomachine, ntp, openvpn, quic, smtp, socks, ssh, stun,
    tls,
};
use crate::reporter::Reporter;

/// Options of the server.
#[derive(Debug, Clone, clap::Args)]
pub struct ServerOptions {
    /// Address to answer at; 0.0.0.0 answers at every local address, each from itself.
    #[arg(long, value_name = "IP")]
    pub bind: Ipv4Addr,
    /// Seed of the server's own draws: how answers are cut into pieces.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,
    /// Added to every port, so that the server runs without privileges.
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u16).range(..=MAX_OFFSET))]
    pub port_offset: u16,
}

/// The highest port offset that leaves every service a port (the highest is 4000).
pub(super) const MAX_OFFSET: i64 = 65_535 - 4_000;

/// How long one connection may last; a client that went away is forgotten after it.
const PATIENCE: Duration = Duration::from_secs(120);

/// Connections the kernel holds until they are accepted.
const BACKLOG: i32 = 1_024;

/// Pause after `accept` failed, which means that descriptors ran out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);

/// What every connection of the server may draw on.
pub(super) struct Shared {
    pub(super) seed: u64,
    pub(super) tls: Arc<rustls::ServerConfig>,
}

/// Binds every service, says so, and answers until dropped.
///
/// # Errors
///
/// If a socket cannot be bound, named with the remedy, or if a service stops.
pub async fn serve(options: ServerOptions, reporter: Reporter) -> anyhow::Result<Infallible> {
    let certificate = tls::Identity::generate()?;
    let shared = Arc::new(Shared {
        seed: options.seed,
        tls: tls::server_config(&certificate)?,
    });
    let mut services = JoinSet::new();
    for service in Service::ALL {
        let socket = bind(service, &options)?;
        start(&mut services, service, socket, &shared, &certificate)?;
    }
    reporter.ready();
    let ended = services.join_next().await.expect("there are services");
    Err(ended
        .context("a service panicked")?
        .err()
        .unwrap_or_else(|| anyhow!("a service stopped")))
}

/// Starts a service on its bound socket: one arm each.
fn start(
    services: &mut JoinSet<anyhow::Result<()>>,
    service: Service,
    socket: Socket,
    shared: &Arc<Shared>,
    certificate: &tls::Identity,
) -> anyhow::Result<()> {
    let tcp = |socket| listener(socket, shared);
    let udp = datagram::Socket::new;
    match service {
        Service::Http => services.spawn(accept(tcp(socket)?, http::answer)),
        Service::Tls => services.spawn(accept(tcp(socket)?, tls::answer)),
        Service::DnsTcp => services.spawn(accept(tcp(socket)?, dns::answer_stream)),
        Service::Ssh => services.spawn(accept(tcp(socket)?, ssh::answer)),
        Service::Smtp => services.spawn(accept(tcp(socket)?, smtp::answer)),
        Service::Modbus => services.spawn(accept(tcp(socket)?, modbus::answer)),
        Service::Nomachine => services.spawn(accept(tcp(socket)?, nomachine::answer)),
        Service::Bfcp => services.spawn(accept(tcp(socket)?, bfcp::answer)),
        Service::Socks => services.spawn(accept(tcp(socket)?, socks::answer)),
        Service::DnsUdp => services.spawn(datagram::answer_all(udp(socket)?, dns::answer)),
        Service::Ntp => services.spawn(datagram::answer_all(udp(socket)?, ntp::answer)),
        Service::Stun => services.spawn(datagram::answer_all(udp(socket)?, stun::answer)),
        Service::Game => services.spawn(datagram::answer_all(udp(socket)?, game::answer)),
        Service::Openvpn => services.spawn(datagram::answer_all(udp(socket)?, openvpn::answer)),
        Service::Quic => {
            let endpoint = quic::server(socket.into(), certificate)?;
            services.spawn(quic::answer_all(endpoint))
        }
    };
    Ok(())
}

fn listener(socket: Socket, shared: &Arc<Shared>) -> io::Result<(TcpListener, Arc<Shared>)> {
    Ok((TcpListener::from_std(socket.into())?, Arc::clone(shared)))
}

/// Hands every connection to its own task; a failed one is the client's to report.
async fn accept<H, F>(
    (listener, shared): (TcpListener, Arc<Shared>),
    answer: H,
) -> anyhow::Result<()>
where
    H: Fn(TcpStream, Arc<Shared>) -> F,
    F: Future<Output = anyhow::Result<()>> + Send + 'static,
{
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "connection ended before it began");
            continue;
        }
        let conversation = tokio::time::timeout(PATIENCE, answer(stream, Arc::clone(&shared)));
        tokio::spawn(async move {
            if let Ok(Err(error)) = conversation.await {
                tracing::debug!("connection ended: {error:#}");
            }
        });
    }
}

/// Binds one service, or says which port, why not, and what to do.
fn bind(service: Service, options: &ServerOptions) -> anyhow::Result<Socket> {
    let (transport, port) = service.port();
    // Fan-out goes to many addresses, and every one of them has to answer.
    let address = if service == Service::Game {
        Ipv4Addr::UNSPECIFIED
    } else {
        options.bind
    };
    let local = SocketAddrV4::new(address, port + options.port_offset);
    try_bind(transport, local).map_err(|error| {
        anyhow!(
            "cannot listen on {transport} {local} ({service:?}): {error}: {}",
            remedy(&error)
        )
    })
}

/// A socket that may stand beside a wildcard socket of the same port, as the outside peers' of the
/// test network do. The kernel prefers the more specific address.
fn try_bind(transport: Transport, local: SocketAddrV4) -> io::Result<Socket> {
    let (kind, protocol) = match transport {
        Transport::Tcp => (Type::STREAM, Protocol::TCP),
        Transport::Udp => (Type::DGRAM, Protocol::UDP),
    };
    let socket = Socket::new(Domain::IPV4, kind, Some(protocol))?;
    socket.set_nonblocking(true)?;
    socket.set_reuse_address(transport == Transport::Tcp)?;
    socket.set_reuse_port(true)?;
    socket.bind(&local.into())?;
    if transport == Transport::Tcp {
        socket.listen(BACKLOG)?;
    }
    Ok(socket)
}

fn remedy(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::PermissionDenied => {
            "run as root, grant CAP_NET_BIND_SERVICE, or move all ports with --port-offset 10000"
        }
        io::ErrorKind::AddrInUse => {
            "stop the program that holds the port (`ss -lnp` names it) or use --port-offset"
        }
        io::ErrorKind::AddrNotAvailable => "give this machine the address or choose another --bind",
        _ => "see the system's message",
    }
}
