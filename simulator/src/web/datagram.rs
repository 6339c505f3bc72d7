//! Datagram services: each answer leaves from the address its question was sent to, so that one
//! wildcard socket answers for a whole network.

use std::io::{self, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::Context;
use quinn_udp::{RecvMeta, Transmit, UdpSocketState};
use tokio::io::Interest;
use tokio::net::UdpSocket;

use super::client::Visit;
use super::kind::Service;

/// Large enough for any datagram, offloaded ones included.
const BUFFER: usize = 65_535;

/// First pause before a question is repeated, doubled each time (RFC 8489 section 6.2.1 proposes
/// 500 ms for STUN; resolvers are no quicker).
const FIRST_REPEAT: Duration = Duration::from_millis(500);

/// Where a datagram came from and which address it was sent to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Addresses {
    /// Who asks.
    pub(super) client: SocketAddr,
    /// Who was asked.
    pub(super) server: IpAddr,
}

/// A UDP socket that knows the local address of each datagram.
pub(super) struct Socket {
    socket: UdpSocket,
    state: UdpSocketState,
}

impl Socket {
    /// Takes over a bound, non-blocking socket.
    pub(super) fn new(socket: socket2::Socket) -> io::Result<Self> {
        let socket = UdpSocket::from_std(socket.into())?;
        let state = UdpSocketState::new((&socket).into())?;
        Ok(Self { socket, state })
    }

    async fn receive(&self, buffer: &mut [u8]) -> io::Result<RecvMeta> {
        let mut meta = [RecvMeta::default()];
        let receive = || {
            let mut slices = [IoSliceMut::new(buffer)];
            self.state
                .recv((&self.socket).into(), &mut slices, &mut meta)
        };
        self.socket.async_io(Interest::READABLE, receive).await?;
        Ok(meta[0])
    }

    async fn send(&self, addresses: Addresses, contents: &[u8]) -> io::Result<()> {
        let transmit = Transmit {
            destination: addresses.client,
            ecn: None,
            contents,
            segment_size: None,
            src_ip: Some(addresses.server),
        };
        let send = || self.state.try_send((&self.socket).into(), &transmit);
        self.socket.async_io(Interest::WRITABLE, send).await
    }
}

/// Answers every datagram that `answer` has an answer to.
pub(super) async fn answer_all(
    socket: Socket,
    answer: fn(&[u8], Addresses) -> Option<Vec<u8>>,
) -> anyhow::Result<()> {
    let mut buffer = vec![0; BUFFER];
    loop {
        let meta = match socket.receive(&mut buffer).await {
            Ok(meta) => meta,
            Err(error) => {
                // An ICMP error of an earlier answer; the next datagram may be well.
                tracing::debug!(%error, "cannot receive a datagram");
                continue;
            }
        };
        let server = meta.dst_ip.unwrap_or(Ipv4Addr::UNSPECIFIED.into());
        let addresses = Addresses {
            client: meta.addr,
            server,
        };
        for question in buffer[..meta.len].chunks(meta.stride.max(1)) {
            let Some(reply) = answer(question, addresses) else {
                continue;
            };
            if let Err(error) = socket.send(addresses, &reply).await {
                tracing::debug!(%error, client = %meta.addr, "cannot answer a datagram");
            }
        }
    }
}

/// A client's socket to one service.
pub(super) struct Conversation<'a> {
    visit: &'a Visit,
    socket: UdpSocket,
}

impl<'a> Conversation<'a> {
    /// Binds a socket of its own, as a program would for each question.
    pub(super) async fn open(visit: &'a Visit, service: Service) -> anyhow::Result<Self> {
        let socket = visit.udp().await?;
        let server = visit.server(service);
        socket
            .connect(server)
            .await
            .with_context(|| format!("cannot reach {server}"))?;
        Ok(Self { visit, socket })
    }

    /// Asks until an answer comes; whoever calls it sets the limit.
    pub(super) async fn ask(&self, question: &[u8]) -> anyhow::Result<Vec<u8>> {
        let mut buffer = vec![0; BUFFER];
        let mut patience = FIRST_REPEAT;
        loop {
            self.tell(question).await?;
            let Ok(received) = tokio::time::timeout(patience, self.socket.recv(&mut buffer)).await
            else {
                patience *= 2;
                continue;
            };
            let length = received.context("no answer")?;
            self.visit.received().add(length);
            buffer.truncate(length);
            return Ok(buffer);
        }
    }

    /// Sends a datagram that has no answer.
    pub(super) async fn tell(&self, datagram: &[u8]) -> anyhow::Result<()> {
        self.socket.send(datagram).await.context("cannot send")?;
        Ok(())
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Addresses for answers that do not depend on them.
    pub(in crate::web) const ANYWHERE: Addresses = Addresses {
        client: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 1_024),
        server: IpAddr::V4(Ipv4Addr::LOCALHOST),
    };
}
