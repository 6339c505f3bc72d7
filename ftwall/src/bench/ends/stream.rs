//! One TCP stream.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::super::clock::now;

/// What came of a stream.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Streamed {
    /// Octets written or read.
    pub octets: u64,
    /// Seconds from the first to the last.
    pub seconds: f64,
}

/// What one call writes or reads: large enough that calls cost nothing.
const PIECE: usize = 256 * 1024;

pub(super) fn sink(port: u16) -> anyhow::Result<Streamed> {
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port))?;
    super::say_ready()?;
    let (mut stream, _) = listener.accept()?;
    let (begun, mut octets) = (now(), 0);
    let mut piece = vec![0; PIECE];
    loop {
        match stream.read(&mut piece)? {
            0 => break,
            read => octets += read as u64,
        }
    }
    let seconds = begun.elapsed().as_secs_f64();
    Ok(Streamed { octets, seconds })
}

pub(super) fn source(to: SocketAddrV4, lasting: Duration) -> anyhow::Result<Streamed> {
    let mut stream = TcpStream::connect(to)?;
    let (begun, mut octets) = (now(), 0);
    // No protocol begins like this, so it takes as long to be let go as anything can.
    let piece = vec![0x51; PIECE];
    while begun.elapsed() < lasting {
        octets += stream.write(&piece)? as u64;
    }
    let seconds = begun.elapsed().as_secs_f64();
    Ok(Streamed { octets, seconds })
}
