//! Small helpers over byte streams: lines, and a count of what arrived.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use anyhow::{anyhow, ensure};
use tokio::io::{
    AsyncBufRead, AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, BufReader, ReadBuf,
};
use tokio::net::TcpStream;

/// The longest line of a text protocol here, in octets.
const LONGEST_LINE: u64 = 2_048;

/// Octets received so far, shared between a request and the streams it opens.
#[derive(Debug, Clone, Default)]
pub(super) struct Received(Arc<AtomicU64>);

impl Received {
    /// Adds to the count.
    pub(super) fn add(&self, octets: usize) {
        self.0.fetch_add(octets as u64, Ordering::Relaxed);
    }

    /// The count.
    pub(super) fn total(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A TCP stream that counts what it receives, whichever library reads it.
pub(super) struct Counted {
    stream: TcpStream,
    received: Received,
}

impl Counted {
    /// Counts what `stream` receives from now on.
    pub(super) fn new(stream: TcpStream, received: Received) -> Self {
        Self { stream, received }
    }
}

impl AsyncRead for Counted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buffer);
        self.received.add(buffer.filled().len() - before);
        polled
    }
}

impl AsyncWrite for Counted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        octets: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, octets)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// A text protocol's stream: read by lines, written directly.
pub(super) struct Lines<S> {
    stream: BufReader<S>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Lines<S> {
    /// Reads lines from `stream`.
    pub(super) fn new(stream: S) -> Self {
        Self {
            stream: BufReader::new(stream),
        }
    }

    /// The next line without its end; an error if the stream ends first.
    pub(super) async fn next(&mut self) -> anyhow::Result<String> {
        read_line(&mut self.stream).await
    }

    /// Takes the next line, which must be `wanted`.
    pub(super) async fn expect(&mut self, wanted: &str) -> anyhow::Result<()> {
        let line = self.next().await?;
        ensure!(line == wanted, "expected '{wanted}', got '{line}'");
        Ok(())
    }

    /// The stream itself, to write to it or to read what is not text.
    pub(super) fn stream(&mut self) -> &mut BufReader<S> {
        &mut self.stream
    }

    /// The stream with whatever it has buffered, for the protocol that follows the text.
    pub(super) fn into_stream(self) -> BufReader<S> {
        self.stream
    }
}

/// Reads one line and drops its end (LF or CR LF).
async fn read_line<R: AsyncBufRead + Unpin>(reader: &mut R) -> anyhow::Result<String> {
    let mut line = String::new();
    reader.take(LONGEST_LINE).read_line(&mut line).await?;
    let text = line
        .strip_suffix('\n')
        .ok_or_else(|| anyhow!("no whole line, only '{line}'"))?;
    Ok(text.strip_suffix('\r').unwrap_or(text).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn lines_lose_their_end_and_nothing_else() {
        let mut input: &[u8] = b"220 ready\r\nNXD-8.10.1\nrest";
        assert_eq!(read_line(&mut input).await.unwrap(), "220 ready");
        assert_eq!(read_line(&mut input).await.unwrap(), "NXD-8.10.1");
        assert!(
            read_line(&mut input)
                .await
                .unwrap_err()
                .to_string()
                .contains("only 'rest'")
        );
    }

    #[tokio::test]
    async fn an_endless_line_is_refused() {
        let endless = vec![b'a'; 10_000];
        assert!(read_line(&mut endless.as_slice()).await.is_err());
    }
}
