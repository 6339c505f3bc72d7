//! The loop of `simulator peers`: one process that owns every outside address.

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::rc::Rc;
use std::time::Duration;

use anyhow::Context;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use super::connection::{self, Account, Handle, Happening, Setting};
use super::datagram::{AnyAddressSocket, Arrival};
use super::sleep_until;
use crate::peer::{ConnectionId, Output, Peers, PeersConfig};
use crate::population::Population;
use crate::reporter::{DoneReason, Reporter};

/// What the peers' run needs besides their own configuration.
#[derive(Debug, Clone)]
pub struct PeersRun {
    /// The peers.
    pub config: PeersConfig,
    /// How long to run; without, until told to end.
    pub duration: Option<Duration>,
    /// Octets per TCP segment, if writes are to be cut.
    pub segment: Option<usize>,
    /// The two ports that peers listen on besides their own.
    pub web_ports: [u16; 2],
}

/// Runs every peer on real sockets.
///
/// Must be called inside a `tokio::task::LocalSet`.
///
/// # Errors
/// When a port cannot be bound.
pub async fn run_peers(
    run: PeersRun,
    reporter: Reporter,
    shutdown: impl Future<Output = ()>,
) -> anyhow::Result<DoneReason> {
    let mut shell = Shell::open(&run, reporter).await?;
    shell.reporter.ready();
    let end = run.duration.map(|duration| shell.now() + duration);
    tokio::pin!(shutdown);
    let reason = loop {
        shell.drain().await;
        let due = shell.peers.poll_timeout().into_iter().chain(end).min();
        tokio::select! {
            () = &mut shutdown => break DoneReason::Signal,
            () = shell.handle_next(due) => {}
        }
        if end.is_some_and(|end| shell.now() >= end) {
            break DoneReason::Duration;
        }
    };
    shell.peers.handle_shutdown();
    shell.drain().await;
    Ok(reason)
}

/// Something that came in on one of the many sockets.
enum Arriving {
    Datagram(Arrival),
    Connection(TcpStream, SocketAddrV4, SocketAddrV4),
}

struct Shell {
    peers: Peers,
    reporter: Reporter,
    segment: Option<usize>,
    udp: BTreeMap<u16, Rc<AnyAddressSocket>>,
    arrivals: mpsc::UnboundedReceiver<Arriving>,
    connections: BTreeMap<ConnectionId, Handle>,
    accepted: u64,
    happenings: mpsc::UnboundedReceiver<(ConnectionId, Happening)>,
    sender: mpsc::UnboundedSender<(ConnectionId, Happening)>,
}

impl Shell {
    async fn open(run: &PeersRun, reporter: Reporter) -> anyhow::Result<Self> {
        let population = &run.config.population;
        let (arriving, arrivals) = mpsc::unbounded_channel();
        let mut udp = BTreeMap::new();
        for port in population.ports() {
            let socket = AnyAddressSocket::bind(port)
                .await
                .with_context(|| binding("UDP", port))?;
            let socket = Rc::new(socket);
            tokio::task::spawn_local(receive_all(socket.clone(), arriving.clone()));
            udp.insert(port, socket);
            let listener =
                listen(Ipv4Addr::UNSPECIFIED, port).with_context(|| binding("TCP", port))?;
            tokio::task::spawn_local(accept_all(listener, arriving.clone()));
        }
        for listener in listen_on_web_ports(population, run.web_ports)? {
            tokio::task::spawn_local(accept_all(listener, arriving.clone()));
        }
        let (sender, happenings) = mpsc::unbounded_channel();
        Ok(Self {
            peers: Peers::new(run.config.clone()),
            reporter,
            segment: run.segment,
            udp,
            arrivals,
            connections: BTreeMap::new(),
            accepted: 0,
            happenings,
            sender,
        })
    }

    fn now(&self) -> Duration {
        self.reporter.clock().now()
    }

    /// Waits for one thing to happen and hands it in.
    async fn handle_next(&mut self, due: Option<Duration>) {
        tokio::select! {
            Some(arriving) = self.arrivals.recv() => self.handle_arriving(arriving),
            Some((id, happening)) = self.happenings.recv() => self.handle_happening(id, happening),
            () = sleep_until(self.reporter.clock(), due) => self.peers.handle_timeout(self.now()),
        }
    }

    fn handle_arriving(&mut self, arriving: Arriving) {
        match arriving {
            Arriving::Datagram(Arrival {
                local,
                remote,
                payload,
            }) => {
                self.peers
                    .handle_datagram(self.now(), local, remote, &payload);
            }
            Arriving::Connection(stream, local, remote) => {
                let id = ConnectionId(self.accepted);
                self.accepted += 1;
                let setting = Setting {
                    key: id,
                    happenings: self.sender.clone(),
                    account: Account::Peer {
                        local: local.into(),
                        remote: remote.into(),
                    },
                    reporter: self.reporter.clone(),
                    segment: self.segment,
                };
                self.connections
                    .insert(id, connection::serve(stream, setting));
                self.peers.handle_connected(self.now(), id, local, remote);
            }
        }
    }

    fn handle_happening(&mut self, id: ConnectionId, happening: Happening) {
        match happening {
            Happening::Connected => {}
            Happening::Data(bytes) => self.peers.handle_data(self.now(), id, &bytes),
            Happening::Ended(_) => {
                self.connections.remove(&id);
                self.peers.handle_closed(id);
            }
        }
    }

    /// Does everything that the peers ask for.
    async fn drain(&mut self) {
        while let Some(output) = self.peers.poll_output() {
            match output {
                Output::Report(event) => self.reporter.emit(event),
                Output::Datagram { from, to, payload } => {
                    self.send_datagram(from, to, &payload).await;
                }
                Output::Send { id, part, bytes } => {
                    if let Some(connection) = self.connections.get(&id) {
                        connection.write(part, bytes);
                    }
                }
                Output::Close { id } => {
                    if let Some(connection) = self.connections.get_mut(&id) {
                        connection.close();
                    }
                }
                Output::Abort { id } => drop(self.connections.remove(&id)),
            }
        }
    }

    async fn send_datagram(&self, from: SocketAddrV4, to: SocketAddrV4, payload: &[u8]) {
        let Some(socket) = self.udp.get(&from.port()) else {
            return;
        };
        if let Err(error) = socket.send(*from.ip(), to, payload).await {
            tracing::warn!(%from, %to, %error, "an answer was not sent");
        }
    }
}

/// Ends with the loop that listens.
async fn receive_all(socket: Rc<AnyAddressSocket>, arriving: mpsc::UnboundedSender<Arriving>) {
    while !arriving.is_closed() {
        match socket.receive().await {
            Ok(arrival) => drop(arriving.send(Arriving::Datagram(arrival))),
            Err(error) => tracing::debug!(%error, "a UDP socket reports"),
        }
    }
}

/// Ends with the loop that listens.
async fn accept_all(listener: TcpListener, arriving: mpsc::UnboundedSender<Arriving>) {
    while !arriving.is_closed() {
        match accept(&listener).await {
            Ok(Some(connection)) => drop(arriving.send(connection)),
            Ok(None) => {}
            Err(error) => tracing::warn!(%error, "a connection was not accepted"),
        }
    }
}

async fn accept(listener: &TcpListener) -> io::Result<Option<Arriving>> {
    let (stream, remote) = listener.accept().await?;
    let local = stream.local_addr()?;
    Ok(match (local, remote) {
        (SocketAddr::V4(local), SocketAddr::V4(remote)) => {
            Some(Arriving::Connection(stream, local, remote))
        }
        _ => None,
    })
}

/// Ports of a browser: one socket for each peer, since a web server may own the same ports on other
/// addresses of this host. Where they need a privilege that is missing, the rest still works.
fn listen_on_web_ports(
    population: &Population,
    ports: [u16; 2],
) -> anyhow::Result<Vec<TcpListener>> {
    let mut listeners = Vec::new();
    for peer in population.peers().iter().filter(|peer| peer.has_web_ports) {
        for port in ports {
            match listen(*peer.address.ip(), port) {
                Ok(listener) => listeners.push(listener),
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                    tracing::warn!(
                        "ports {} and {} need root (or a user namespace): profile port80 and --transfer-port will find nobody",
                        ports[0],
                        ports[1],
                    );
                    return Ok(listeners);
                }
                Err(error) => {
                    let peer = peer.address.ip();
                    return Err(error).with_context(|| {
                        format!("binding TCP {peer}:{port}; are the peers' addresses routed to this host (ip route add local NET dev lo)?")
                    });
                }
            }
        }
    }
    Ok(listeners)
}

fn listen(ip: Ipv4Addr, port: u16) -> io::Result<TcpListener> {
    let socket = tokio::net::TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(SocketAddr::from((ip, port)))?;
    socket.listen(1024)
}

fn binding(protocol: &str, port: u16) -> String {
    format!("binding {protocol} port {port}; is another `simulator peers` running here?")
}
