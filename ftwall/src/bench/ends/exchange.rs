//! Many short connections: a request, an answer, the end. The server closes first, so that what waits
//! for late segments waits there and no client runs out of ports.

use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use clap::ValueEnum;
use rustix::net::{AddressFamily, SocketType, bind, connect, socket};
use serde::{Deserialize, Serialize};

use super::super::clock::{now, sleep_until};
use super::super::statistics::Latencies;

/// What is said in a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Style {
    /// A page without keep-alive, on port 80.
    Http,
    /// Records of the sizes and kinds that TLS begins with, on port 443; nothing is encrypted, so that
    /// the network is measured and not the cipher.
    Tls,
}

/// What came of many connections.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Exchanged {
    /// Connections in which everything was said.
    pub connections: u64,
    /// Those in which something was not.
    pub failures: u64,
    /// From the first to the last.
    pub seconds: f64,
    /// From the dial to the end of the answer.
    pub latencies: Latencies,
}

impl Style {
    const fn port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Tls => 443,
        }
    }

    fn request(self) -> Vec<u8> {
        match self {
            Self::Http => {
                b"GET / HTTP/1.1\r\nHost: bench.example\r\nConnection: close\r\n\r\n".into()
            }
            Self::Tls => client_hello(),
        }
    }

    fn answer(self) -> Vec<u8> {
        match self {
            Self::Http => {
                b"HTTP/1.1 200 OK\r\nContent-Length: 13\r\nConnection: close\r\n\r\nHello, world\n"
                    .into()
            }
            // A handshake record (RFC 8446, 5.1) as long as a server's first flight.
            Self::Tls => [&[0x16, 0x03, 0x03, 0x04, 0x00, 0x02][..], &[0x2a; 1023]].concat(),
        }
    }
}

/// A ClientHello of 512 octets in a record of its own (RFC 8446, 4.1.2), a usual length: version,
/// random, session, three suites, no compression, and padding for extensions.
fn client_hello() -> Vec<u8> {
    let mut body = vec![0x03, 0x03];
    body.extend([0x9a; 32]);
    body.push(32);
    body.extend([0x5c; 32]);
    body.extend([0x00, 0x06, 0x13, 0x01, 0x13, 0x02, 0x13, 0x03]);
    body.extend([0x01, 0x00]);
    let padding = 512 - 4 - body.len() - 6;
    let of = |len: usize| u16::try_from(len).expect("it is below 512").to_be_bytes();
    body.extend(of(padding + 4));
    // Extension 21 (RFC 7685): padding.
    body.extend([0x00, 0x15]);
    body.extend(of(padding));
    body.resize(512 - 4, 0);
    let mut record = vec![0x16, 0x03, 0x01];
    record.extend(of(512));
    record.extend([0x01, 0x00]);
    record.extend(of(body.len()));
    record.extend(body);
    record
}

const SERVER_THREADS: usize = 2;
/// Nobody who is still there takes so long.
const PATIENCE: Duration = Duration::from_secs(5);

/// Answers until killed.
pub(super) fn serve(style: Style) -> anyhow::Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, style.port()))?;
    super::say_ready()?;
    thread::scope(|scope| {
        for _ in 0..SERVER_THREADS {
            scope.spawn(|| {
                let (asked, answer) = (style.request().len(), style.answer());
                // A connection that fails is the client's to count.
                listener.incoming().flatten().for_each(|stream| {
                    let _ = answer_one(stream, asked, &answer);
                });
            });
        }
    });
    Ok(())
}

fn answer_one(mut stream: TcpStream, asked: usize, answer: &[u8]) -> io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut request = vec![0; asked];
    stream.read_exact(&mut request)?;
    stream.write_all(answer)
}

/// What a client does.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) style: Style,
    pub(super) lasting: Duration,
    pub(super) threads: usize,
    pub(super) interval: Option<Duration>,
    pub(super) sources: Option<Sources>,
}

/// Addresses that take turns as sources.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sources {
    pub(super) first: Ipv4Addr,
    pub(super) hosts: u32,
}

/// What one thread has counted.
#[derive(Default)]
struct Tally {
    times: Vec<Duration>,
    failures: u64,
}

impl Plan {
    pub(super) fn run(&self) -> Exchanged {
        let begun = now();
        let tallies: Vec<Tally> = thread::scope(|scope| {
            let threads: Vec<_> = (0..self.threads)
                .map(|number| scope.spawn(move || self.work(number, begun + self.lasting)))
                .collect();
            let join = |thread: thread::ScopedJoinHandle<'_, Tally>| {
                thread.join().expect("a client that fails counts it")
            };
            threads.into_iter().map(join).collect()
        });
        let seconds = begun.elapsed().as_secs_f64();
        let failures = tallies.iter().map(|tally| tally.failures).sum();
        let times: Vec<Duration> = tallies.into_iter().flat_map(|tally| tally.times).collect();
        Exchanged {
            connections: times.len() as u64,
            failures,
            seconds,
            latencies: Latencies::of(times),
        }
    }

    fn work(&self, thread: usize, end: Instant) -> Tally {
        let (request, expected) = (self.style.request(), self.style.answer().len());
        let mut tally = Tally::default();
        let mut turn = u32::try_from(thread).expect("there are few threads");
        let mut begun = now();
        while begun < end {
            match self.exchange(turn, &request, expected) {
                Ok(()) => tally.times.push(begun.elapsed()),
                Err(_) => tally.failures += 1,
            }
            turn = turn.wrapping_add(1);
            if let Some(interval) = self.interval {
                sleep_until(begun + interval);
            }
            begun = now();
        }
        tally
    }

    fn exchange(&self, turn: u32, request: &[u8], expected: usize) -> io::Result<()> {
        let to = SocketAddrV4::new(server_address(turn), self.style.port());
        let mut stream = self.dial(turn, to)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(request)?;
        let mut answer = Vec::with_capacity(expected + 1);
        stream.read_to_end(&mut answer)?;
        if answer.len() == expected {
            Ok(())
        } else {
            Err(io::ErrorKind::UnexpectedEof.into())
        }
    }

    fn dial(&self, turn: u32, to: SocketAddrV4) -> io::Result<TcpStream> {
        let Some(Sources { first, hosts }) = self.sources else {
            return TcpStream::connect(to);
        };
        let source = Ipv4Addr::from_bits(first.to_bits() + turn % hosts);
        let dialed = socket(AddressFamily::INET, SocketType::STREAM, None)?;
        rustix::net::sockopt::set_socket_reuseaddr(&dialed, true)?;
        bind(&dialed, &SocketAddrV4::new(source, 0))?;
        connect(&dialed, &to)?;
        Ok(TcpStream::from(dialed))
    }
}

/// Servers take turns, so that ports of one pair of addresses last.
fn server_address(turn: u32) -> Ipv4Addr {
    let [.., last] = (turn % 250 + 1).to_be_bytes();
    Ipv4Addr::new(203, 0, 113, last)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verdict::ClearReason;
    use crate::{Conntrack, Engine, EngineConfig, Ingress, Timestamp, Verdict};

    #[test]
    fn the_client_hello_is_one_to_the_engine() {
        let hello = client_hello();
        assert_eq!(hello.len(), 5 + 512);
        let mut packet = vec![0x45, 0];
        packet.extend((40 + 517_u16).to_be_bytes());
        packet.extend([0, 0, 0x40, 0, 64, 6, 0, 0, 10, 77, 1, 1, 203, 0, 113, 1]);
        packet.extend([
            0x9c, 0x40, 0x01, 0xbb, 0, 0, 0, 1, 0, 0, 0, 1, 0x50, 0x10, 0xfa, 0xf0, 0, 0, 0, 0,
        ]);
        packet.extend(hello);
        let mut engine = Engine::new(EngineConfig::default(), 7);
        let ingress = Ingress {
            bytes: &packet,
            conntrack: Some(Conntrack {
                reply: false,
                from_start: true,
            }),
            link: None,
        };
        let verdict = engine.handle_packet(Timestamp::from_secs(1), ingress);
        assert_eq!(verdict, Verdict::Clear(ClearReason::TlsClientHello));
    }
}
