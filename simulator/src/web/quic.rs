//! QUIC by quinn: one bidirectional stream with a request line and an answer.
//!
//! The ALPN name is that of HTTP/3, so that hellos look like a browser's; inside, the request is one
//! line, as in HTTP/0.9, since nothing on the path can read it anyway.

use std::net::{Ipv4Addr, UdpSocket};
use std::ops::RangeInclusive;
use std::sync::Arc;

use anyhow::{Context, anyhow};
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{Endpoint, EndpointConfig, Incoming, RecvStream, SendStream, TokioRuntime, VarInt};
use rustls::version::TLS13;

use super::client::Visit;
use super::content::Expected;
use super::http::{bytes_target, content_of};
use super::kind::Service;
use super::tls::{self, SERVER_NAME};

/// HTTP/3 in the ALPN extension.
pub(super) const ALPN: &[u8] = b"h3";

/// The longest request line, in octets.
const LONGEST_REQUEST: usize = 1_024;

/// Octets of a download.
pub(super) const SIZES: RangeInclusive<u64> = 1_024..=128 * 1024;

/// The most octets handed to the stream at a time.
const PIECE: usize = 16 * 1024;

/// A server's endpoint on a bound socket.
pub(super) fn server(socket: UdpSocket, identity: &tls::Identity) -> anyhow::Result<Endpoint> {
    let crypto = QuicServerConfig::try_from(identity.server_config(&[&TLS13], &[ALPN])?)?;
    let config = quinn::ServerConfig::with_crypto(Arc::new(crypto));
    let runtime = Arc::new(TokioRuntime);
    Ok(Endpoint::new(
        EndpointConfig::default(),
        Some(config),
        socket,
        runtime,
    )?)
}

/// A client's endpoint, shared by all its connections as a browser's would be.
pub(super) fn client(bind: Ipv4Addr) -> anyhow::Result<Endpoint> {
    let mut endpoint =
        Endpoint::client((bind, 0).into()).with_context(|| format!("cannot use {bind}"))?;
    let crypto = QuicClientConfig::try_from(tls::client_config(&TLS13, ALPN)?)?;
    endpoint.set_default_client_config(quinn::ClientConfig::new(Arc::new(crypto)));
    Ok(endpoint)
}

/// Answers every connection until the endpoint ends.
pub(super) async fn answer_all(endpoint: Endpoint) -> anyhow::Result<()> {
    while let Some(incoming) = endpoint.accept().await {
        tokio::spawn(async move {
            if let Err(error) = answer(incoming).await {
                tracing::debug!("QUIC connection ended: {error:#}");
            }
        });
    }
    Err(anyhow!("the QUIC endpoint ended"))
}

async fn answer(incoming: Incoming) -> anyhow::Result<()> {
    let connection = incoming.await.context("no handshake")?;
    loop {
        let (send, receive) = connection.accept_bi().await?;
        answer_stream(send, receive).await?;
    }
}

async fn answer_stream(mut send: SendStream, mut receive: RecvStream) -> anyhow::Result<()> {
    let request = receive.read_to_end(LONGEST_REQUEST).await?;
    let target = std::str::from_utf8(&request)?
        .strip_prefix("GET ")
        .and_then(|rest| rest.strip_suffix("\r\n"))
        .ok_or_else(|| anyhow!("not a request line"))?;
    let mut content = content_of(target);
    while let Some(piece) = content.take(PIECE) {
        send.write_chunk(piece).await?;
    }
    Ok(send.finish()?)
}

/// One download over a connection of its own.
pub(super) async fn request(visit: &mut Visit) -> anyhow::Result<()> {
    let target = bytes_target(&mut visit.rng, SIZES);
    let server = visit.server(Service::Quic);
    let connecting = visit.site().quic.connect(server, SERVER_NAME)?;
    let connection = connecting
        .await
        .with_context(|| format!("cannot connect to {server}"))?;
    let (mut send, mut receive) = connection.open_bi().await?;
    send.write_all(format!("GET {target}\r\n").as_bytes())
        .await?;
    send.finish()?;
    let mut expected = Expected::new(content_of(&target));
    while let Some(chunk) = receive.read_chunk(PIECE, true).await? {
        visit.received().add(chunk.bytes.len());
        expected.check(&chunk.bytes)?;
    }
    connection.close(VarInt::from_u32(0), b"done");
    Ok(expected.finish()?)
}
