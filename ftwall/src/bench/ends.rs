//! The two ends of what is measured, and whatever else runs inside a node: each a program of its own,
//! started as `ftwall bench-end`, that says `ready` when it listens and its numbers as one JSON object.
//!
//! They work inside a capsule only, so that no address but the namespaces' own is ever touched.

mod datagrams;
mod exchange;
mod flood;
mod queue_all;
mod storm;
mod stream;

use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use anyhow::ensure;
use clap::Subcommand;
use serde::Serialize;

pub use datagrams::{Flooded, Sunk};
pub use exchange::{Exchanged, Style};
pub use queue_all::Queued;
pub use storm::Stormed;
pub use stream::Streamed;

use super::floods::Flood;
use crate::control::values::parse_duration;
use crate::gateway::queue::QueueReader;

/// One program at one end.
#[derive(Debug, Subcommand)]
pub enum End {
    /// Measure everything, in the capsule this process is in, and print the report
    Measure {
        /// The options, as JSON
        options: String,
    },
    /// Take one stream and count its octets
    StreamSink {
        /// Where to listen
        port: u16,
    },
    /// Write one stream as fast as it goes
    StreamSource {
        /// Where to
        to: SocketAddrV4,
        /// For how long
        #[arg(value_parser = parse_duration)]
        lasting: Duration,
    },
    /// Answer connections
    Server {
        /// What is said in them
        style: Style,
    },
    /// Open one connection after the other
    Client {
        /// What is said in them
        style: Style,
        /// For how long
        #[arg(value_parser = parse_duration)]
        lasting: Duration,
        /// How many at a time
        #[arg(long, default_value_t = 1)]
        threads: usize,
        /// Pause between the beginnings of two; none if absent
        #[arg(long, value_parser = parse_duration)]
        interval: Option<Duration>,
        /// Sources to take turns, from this address on
        #[arg(long)]
        from: Option<Ipv4Addr>,
        /// How many sources
        #[arg(long, default_value_t = 1)]
        hosts: u32,
    },
    /// Count datagrams until they end
    DatagramSink {
        /// Where to listen
        port: u16,
    },
    /// Send datagrams as fast as they go
    DatagramFlood {
        /// Where to
        to: SocketAddrV4,
        /// For how long
        #[arg(value_parser = parse_duration)]
        lasting: Duration,
        /// How many a second at most
        #[arg(long)]
        rate: Option<u32>,
    },
    /// Ping many peers as a client does
    Pings {
        /// Own address
        from: Ipv4Addr,
        /// How many a second
        rate: u32,
        /// For how long
        #[arg(value_parser = parse_duration)]
        lasting: Duration,
    },
    /// Dial the same peers, as often as a client that is reset
    Resets {
        /// Own address
        from: Ipv4Addr,
        /// How many a second
        rate: u32,
        /// For how long
        #[arg(value_parser = parse_duration)]
        lasting: Duration,
    },
    /// Flood the gateway
    Flood {
        /// With what
        flood: Flood,
        /// Own address
        from: Ipv4Addr,
        /// How much a second
        rate: u32,
        /// For how long
        #[arg(value_parser = parse_duration)]
        lasting: Duration,
    },
    /// Take connections that never come to a point
    Drain,
    /// Accept every packet of a queue
    QueueAll {
        /// Number of the queue
        queue: u16,
        /// Who reads it
        reader: QueueReader,
    },
}

impl End {
    /// Does it.
    ///
    /// # Errors
    /// Outside a capsule, and when the system refuses a socket.
    pub fn run(self) -> anyhow::Result<()> {
        ensure!(
            lab::capsule::is_inside(),
            "this command works inside a capsule only; use `ftwall bench`"
        );
        match self {
            Self::Measure { options } => say(&super::measure_inside(&options)?),
            Self::StreamSink { port } => say(&stream::sink(port)?),
            Self::StreamSource { to, lasting } => say(&stream::source(to, lasting)?),
            Self::Server { style } => exchange::serve(style),
            Self::Client {
                style,
                lasting,
                threads,
                interval,
                from,
                hosts,
            } => {
                let sources = from.map(|first| exchange::Sources { first, hosts });
                let plan = exchange::Plan {
                    style,
                    lasting,
                    threads,
                    interval,
                    sources,
                };
                say(&plan.run())
            }
            Self::DatagramSink { port } => say(&datagrams::sink(port)?),
            Self::DatagramFlood { to, lasting, rate } => say(&datagrams::flood(to, lasting, rate)?),
            Self::Pings {
                from,
                rate,
                lasting,
            } => say(&storm::ping(from, rate, lasting)?),
            Self::Resets {
                from,
                rate,
                lasting,
            } => say(&storm::dial(from, rate, lasting)?),
            Self::Flood {
                flood,
                from,
                rate,
                lasting,
            } => say(&flood::send(flood, from, rate, lasting)?),
            Self::Drain => flood::drain(),
            Self::QueueAll { queue, reader } => say(&queue_all::serve(queue, reader)?),
        }
    }
}

/// The line that says that an end listens.
pub(super) const READY: &str = "ready";

fn say_ready() -> std::io::Result<()> {
    writeln!(std::io::stdout(), "{READY}")
}

fn say(numbers: &impl Serialize) -> anyhow::Result<()> {
    let text = serde_json::to_string(numbers)?;
    writeln!(std::io::stdout(), "{text}")?;
    Ok(())
}
