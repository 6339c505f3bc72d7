//! Datagrams that are nobody's business, as many as there can be.

use std::io::{self, ErrorKind, IoSlice};
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::time::{Duration, Instant};

use rustix::net::sockopt::{set_socket_recv_buffer_size, set_socket_recv_buffer_size_force};
use rustix::net::{MMsgHdr, SendAncillaryBuffer, SendFlags, sendmmsg};
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
const BURST: usize = 32;
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
    let begun = now();
    // What the system does not take was not sent.
    let sent = match rate {
        Some(rate) => {
            let mut sent = 0;
            at_rate(rate, lasting, |_| {
                sent += u64::from(socket.send(&PAYLOAD).is_ok());
            });
            sent
        }
        None => flood_until(&socket, begun + lasting),
    };
    let seconds = begun.elapsed().as_secs_f64();
    Ok(Flooded { sent, seconds })
}

/// Many at a time, so that the sender's system calls are not what is measured.
fn flood_until(socket: &UdpSocket, end: Instant) -> u64 {
    let payload = [IoSlice::new(&PAYLOAD)];
    let mut nothing_else: [SendAncillaryBuffer<'_, '_, '_>; BURST] = Default::default();
    let mut burst = nothing_else
        .each_mut()
        .map(|none| MMsgHdr::new(&payload, none));
    let mut sent = 0;
    while now() < end {
        sent += sendmmsg(socket, &mut burst, SendFlags::empty()).map_or(0, |sent| sent as u64);
    }
    sent
}
