//! SOCKS4 (Ying-Da Lee's memo of 1992): a request whose user name makes it exactly 12 octets, a
//! grant of 8, then HTTP through the proxy. Both lengths are those of a FastTrack handshake.

use std::sync::Arc;

use anyhow::ensure;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::client::Visit;
use super::http::{self, Connection, page_target};
use super::kind::Service;
use super::server::Shared;

/// Version 4, command 1: connect.
const CONNECT: [u8; 2] = [4, 1];

/// Version 0, code 90: granted. Six octets follow that a client ignores.
pub(super) const GRANTED: [u8; 8] = [0, 90, 0, 0, 0, 0, 0, 0];

/// A user name of three letters and the octet that ends it.
const USER: [u8; 4] = *b"bob\0";

/// The target of every request here: port 80 of 203.0.113.80.
const TARGET: [u8; 6] = [0, 80, 203, 0, 113, 80];

/// Grants the one request this proxy knows and answers in the target's place.
pub(super) async fn answer(mut stream: TcpStream, shared: Arc<Shared>) -> anyhow::Result<()> {
    let mut got = [0; 12];
    stream.read_exact(&mut got).await?;
    ensure!(got == request(), "not a known SOCKS4 request");
    stream.write_all(&GRANTED).await?;
    http::serve_http1(stream, shared).await
}

/// Fetches a page through the proxy.
pub(super) async fn page(visit: &mut Visit) -> anyhow::Result<()> {
    let target = page_target(&mut visit.rng);
    let mut stream = visit.tcp(Service::Socks).await?;
    stream.write_all(&request()).await?;
    let mut grant = [0; GRANTED.len()];
    stream.read_exact(&mut grant).await?;
    ensure!(grant == GRANTED, "not granted: {grant:02x?}");
    Connection::open(stream).await?.get(&target).await
}

/// The request: version and command, port, address, user.
pub(super) fn request() -> [u8; 12] {
    let [v, c] = CONNECT;
    let [p0, p1, a, b, d, e] = TARGET;
    let [u0, u1, u2, end] = USER;
    [v, c, p0, p1, a, b, d, e, u0, u1, u2, end]
}
