//! Datagrams that are nobody's business, as many as there can be.

use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::time::Duration;

use rustix::net::sockopt::{set_socket_recv_buffer_size, set_socket_recv_buffer_size_force};
use serde::{Deserialize, Serialize};

use super::super::clock::{at_rate, now};

/// What was sent.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Flooded {
    /// Datagrams that the system took.
    pub sent: u64,
    /// From the first to the last.
    pub seconds: f64,
}

/// What arrived.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Sunk {
    /// Datagrams read.
    pub received: u64,
}

/// Twelve octets like nothing that is known.
const PAYLOAD: [u8; 12] = [0x51; 12];
/// Datagrams sent between two looks at the clock.
const BURST: u64 = 64;
/// So long after the last datagram none is still on its way.
const SILENCE: Duration = Duration::from_millis(500);
const WAIT_FOR_FIRST: Duration = Duration::from_secs(10);
const RECEIVE_BUFFER: usize = 16 << 20;

pub(super) fn sink(port: u16) -> anyhow::Result<Sunk> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port))?;
    // More than the host's limit is for root on the host only.
    set_socket_recv_buffer_size_force(&socket, RECEIVE_BUFFER)
        .or_else(|_| set_socket_recv_buffer_size(&socket, RECEIVE_BUFFER))?;
    socket.set_read_timeout(Some(WAIT_FOR_FIRST))?;
    super::say_ready()?;
    let mut octets = [0; 64];
    socket.recv(&mut octets)?;
    socket.set_read_timeout(Some(SILENCE))?;
    let mut received = 1;
    loop {
        match socket.recv(&mut octets) {
            Ok(_) => received += 1,
            Err(error) if is_timeout(&error) => return Ok(Sunk { received }),
            Err(error) => return Err(error.into()),
        }
    }
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}

pub(super) fn flood(
    to: SocketAddrV4,
    lasting: Duration,
    rate: Option<u32>,
) -> anyhow::Result<Flooded> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    socket.connect(to)?;
    let (begun, mut sent) = (now(), 0);
    // What the system does not take was not sent.
    let mut send = || sent += u64::from(socket.send(&PAYLOAD).is_ok());
    match rate {
        Some(rate) => {
            at_rate(rate, lasting, |_| send());
        }
        None => {
            while begun.elapsed() < lasting {
                (0..BURST).for_each(|_| send());
            }
        }
    }
    let seconds = begun.elapsed().as_secs_f64();
    Ok(Flooded { sent, seconds })
}
