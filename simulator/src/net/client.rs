//! The loop of `simulator client`.

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::ops::RangeInclusive;
use std::time::Duration;

use anyhow::Context;
use rand::RngExt;
use tokio::net::UdpSocket;
use tokio::sync::mpsc;

use super::connection::{self, Account, Handle, Happening, Setting, failure_of};
use super::datagram::Fragmenter;
use super::sleep_until;
use crate::cli::Until;
use crate::client::{Client, ClientConfig, Output};
use crate::population::Population;
use crate::report::{AttemptId, Event, Failure, Part};
use crate::reporter::{DoneReason, Reporter};

/// Larger than any datagram of the protocol.
const BUFFER: usize = 2048;

/// How often another random port is tried when the first is taken.
const PORT_ATTEMPTS: usize = 16;

/// What a client's run needs besides the client's own configuration.
#[derive(Debug, Clone)]
pub struct ClientRun {
    /// The client.
    pub config: ClientConfig,
    /// How long to run.
    pub duration: Duration,
    /// Part of that time to sit still before the first move.
    pub start_after: Duration,
    /// When to end.
    pub until: Until,
    /// The ports its own UDP port is drawn from.
    pub udp_ports: RangeInclusive<u16>,
    /// Octets per TCP segment, if writes are to be cut.
    pub segment: Option<usize>,
    /// Octets per IP fragment, if pings are to be cut.
    pub fragment: Option<usize>,
}

/// Runs a client on real sockets until its time is over or it has reached what it wants.
///
/// Must be called inside a `tokio::task::LocalSet`.
///
/// # Errors
/// When the client's address cannot be bound or raw sockets are not allowed.
pub async fn run_client(
    run: ClientRun,
    population: &Population,
    reporter: Reporter,
) -> anyhow::Result<DoneReason> {
    let mut shell = Shell::open(&run, population, reporter).await?;
    shell.reporter.ready();
    let (begin, end) = (shell.now() + run.start_after, shell.now() + run.duration);
    sleep_until(shell.reporter.clock(), Some(begin.min(end))).await;
    shell.client.handle_timeout(shell.now());
    loop {
        shell.drain().await?;
        if run.until == Until::Contact && shell.client.has_made_contact() {
            return Ok(DoneReason::Contact);
        }
        if shell.now() >= end {
            return Ok(DoneReason::Duration);
        }
        let due = shell
            .client
            .poll_timeout(shell.now())
            .map_or(end, |due| due.min(end));
        shell.handle_next(due).await;
    }
}

struct Shell {
    client: Client,
    reporter: Reporter,
    address: Ipv4Addr,
    segment: Option<usize>,
    fragmenter: Option<Fragmenter>,
    udp: UdpSocket,
    udp_ports: RangeInclusive<u16>,
    rng: rand::rngs::ChaCha8Rng,
    connections: BTreeMap<AttemptId, Handle>,
    happenings: mpsc::UnboundedReceiver<(AttemptId, Happening)>,
    sender: mpsc::UnboundedSender<(AttemptId, Happening)>,
}

impl Shell {
    async fn open(
        run: &ClientRun,
        population: &Population,
        reporter: Reporter,
    ) -> anyhow::Result<Self> {
        let address = run.config.address;
        let mut rng = run.config.seed.derive("ports", 0).rng();
        let udp = bind_udp(address, &run.udp_ports, &mut rng)
            .await
            .with_context(|| format!("binding UDP on {address}; is it an address of this host?"))?;
        let fragmenter = run.fragment.map(Fragmenter::open).transpose().context(
            "opening a raw socket for --fragment; it needs CAP_NET_RAW, so run as root or in a user namespace",
        )?;
        let mut client = Client::new(run.config.clone(), population);
        let now = reporter.clock().now();
        client.handle_udp_bound(now, udp.local_addr().context("asking for the UDP port")?);
        let (sender, happenings) = mpsc::unbounded_channel();
        let segment = run.segment;
        let connections = BTreeMap::new();
        Ok(Self {
            client,
            reporter,
            address,
            segment,
            fragmenter,
            udp,
            udp_ports: run.udp_ports.clone(),
            rng,
            connections,
            happenings,
            sender,
        })
    }

    fn now(&self) -> Duration {
        self.reporter.clock().now()
    }

    /// Waits for one thing to happen and hands it in.
    async fn handle_next(&mut self, due: Duration) {
        let mut buffer = [0; BUFFER];
        tokio::select! {
            datagram = self.udp.recv_from(&mut buffer) => {
                // An error here is an ICMP message about an earlier datagram: the peer is silent.
                if let Ok((len, SocketAddr::V4(from))) = datagram {
                    self.client.handle_datagram(self.now(), from, &buffer[..len]);
                }
            }
            Some((id, happening)) = self.happenings.recv() => self.handle_happening(id, happening),
            () = sleep_until(self.reporter.clock(), Some(due)) => self.client.handle_timeout(self.now()),
        }
    }

    fn handle_happening(&mut self, id: AttemptId, happening: Happening) {
        let now = self.now();
        match happening {
            Happening::Connected => self.client.handle_connected(now, id),
            Happening::Data(bytes) => self.client.handle_data(now, id, &bytes),
            Happening::Ended(why) => {
                self.connections.remove(&id);
                self.client.handle_closed(now, id, why);
            }
        }
    }

    /// Does everything that the client asks for.
    async fn drain(&mut self) -> anyhow::Result<()> {
        while let Some(output) = self.client.poll_output() {
            match output {
                Output::Report(event) => self.reporter.emit(event),
                Output::Datagram {
                    id,
                    to,
                    part,
                    payload,
                } => {
                    self.send_datagram(id, to, part, &payload).await;
                }
                Output::ChangeUdpPort => self.change_udp_port().await?,
                Output::Dial { id, peer } => self.dial(id, peer),
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
        Ok(())
    }

    async fn send_datagram(
        &mut self,
        id: Option<AttemptId>,
        to: SocketAddrV4,
        part: Part,
        payload: &[u8],
    ) {
        let sent = match (&mut self.fragmenter, part, self.udp.local_addr()) {
            (Some(fragmenter), Part::Ping, Ok(SocketAddr::V4(from))) => {
                fragmenter.send(from, to, payload)
            }
            _ => self.udp.send_to(payload, to).await.map(drop),
        };
        let Some(id) = id else { return };
        match sent {
            Ok(()) => self.reporter.emit(Event::Sent {
                id,
                part,
                bytes: payload.len() as u64,
            }),
            Err(error) => {
                tracing::debug!(%to, %error, "a datagram was not sent");
                self.reporter.emit(Event::Failed {
                    id,
                    why: Failure::Local,
                });
            }
        }
    }

    async fn change_udp_port(&mut self) -> anyhow::Result<()> {
        self.udp = bind_udp(self.address, &self.udp_ports, &mut self.rng)
            .await
            .context("changing the UDP port")?;
        let local = self.udp.local_addr().context("asking for the UDP port")?;
        self.client.handle_udp_bound(self.now(), local);
        Ok(())
    }

    /// The socket is bound before the attempt is reported, so that the report names the address that
    /// the other side will see; and it connects here and now, so that packets leave in the order in
    /// which the client asked for them.
    fn dial(&mut self, id: AttemptId, peer: SocketAddrV4) {
        let any_port = SocketAddr::from((self.address, 0));
        let bound = connection::bind(any_port);
        let local = bound.as_ref().map_or(any_port, |(_, local)| *local);
        if let Some(attempt) = self.client.handle_bound(id, local) {
            self.reporter.emit(attempt);
        }
        match bound.and_then(|(socket, _)| connection::begin_connect(socket, peer.into())) {
            Ok(stream) => {
                let setting = Setting {
                    key: id,
                    happenings: self.sender.clone(),
                    account: Account::Attempt(id),
                    reporter: self.reporter.clone(),
                    segment: self.segment,
                };
                self.connections
                    .insert(id, connection::dial(stream, setting));
            }
            Err(error) => {
                tracing::debug!(%peer, %error, "a dial did not leave this host");
                self.client
                    .handle_closed(self.now(), id, failure_of(&error));
            }
        }
    }
}

/// Binds a port as clients choose theirs.
async fn bind_udp(
    address: Ipv4Addr,
    ports: &RangeInclusive<u16>,
    rng: &mut rand::rngs::ChaCha8Rng,
) -> io::Result<UdpSocket> {
    for _ in 0..PORT_ATTEMPTS {
        match UdpSocket::bind((address, rng.random_range(ports.clone()))).await {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
            result => return result,
        }
    }
    UdpSocket::bind((address, 0)).await
}
