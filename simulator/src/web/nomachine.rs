//! NoMachine: the client opens with a line of exactly 12 octets, the server answers with one of 11,
//! then both speak TLS. Seen in captures of version 8; there is no specification.

use std::sync::Arc;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::client::Visit;
use super::http::{Connection, page_target};
use super::kind::Service;
use super::server::Shared;
use super::stream::Lines;
use super::tls;

/// The client's first line.
pub(super) const CLIENT_HELLO: &str = "NXSH-8.10.1";
/// The server's.
pub(super) const SERVER_HELLO: &str = "NXD-8.10.1";

/// Greets back, then answers over TLS.
pub(super) async fn answer(stream: TcpStream, shared: Arc<Shared>) -> anyhow::Result<()> {
    let mut lines = Lines::new(stream);
    lines.expect(CLIENT_HELLO).await?;
    lines
        .stream()
        .write_all(format!("{SERVER_HELLO}\n").as_bytes())
        .await?;
    tls::answer(lines.into_stream(), shared).await
}

/// Greets, then fetches a page over TLS in place of a desktop.
pub(super) async fn greet(visit: &mut Visit) -> anyhow::Result<()> {
    let target = page_target(&mut visit.rng);
    let mut lines = Lines::new(visit.tcp(Service::Nomachine).await?);
    lines
        .stream()
        .write_all(format!("{CLIENT_HELLO}\n").as_bytes())
        .await?;
    lines.expect(SERVER_HELLO).await?;
    let stream = visit.site().tls.connect_http1(lines.into_stream()).await?;
    Connection::open(stream).await?.get(&target).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hello_is_12_octets_with_its_line_feed() {
        assert_eq!(CLIENT_HELLO.len() + 1, 12);
    }
}
