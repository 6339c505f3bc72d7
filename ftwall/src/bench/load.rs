//! What a gateway is loaded with, and what is read off meanwhile.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use super::configuration::Configuration;
use super::ends::{Exchanged, Flooded, Stormed, Streamed, Style, Sunk};
use super::office::{Gateway, Observed, Running, numbers, queued};
use super::options::{Generators, Options};
use super::programs::{self, IPERF, WRK, WRK_TLS};
use super::report::ReaderCost;
use super::statistics::Spread;
use crate::gateway::queue::{self, QueueReader, Standing};

/// A load.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[value(rename_all = "snake_case")]
pub enum Load {
    /// One TCP stream from inside
    TcpStream,
    /// New HTTP connections
    HttpConnections,
    /// New TLS connections
    TlsConnections,
    /// Harmless datagrams, as many as there can be
    UdpFlood,
    /// Pings of a locked host, and the web of another
    PingFlood,
    /// Dials of a locked host to known peers, and the web of another
    ResetStorm,
}

/// What makes the traffic of one load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Generator {
    /// The ends of this program.
    Own,
    /// Programs of others.
    Real(&'static str),
}

/// What was read off, by name; names end in their unit.
pub(super) type Values = BTreeMap<String, f64>;

/// A dialling client that is reset dials again so often.
const RESETS_PER_SECOND: u32 = 35_000;
const PINGS_PER_SECOND: u32 = 20_000;
/// Pings that teach a gateway the whole cache of a client: each peer once, and some again.
const TEACHING: &[&str] = &["4000", "100ms"];
const SERVER: &str = "203.0.113.80";
const STREAM_PORT: &str = "5201";
const FLOOD_PORT: &str = "27015";

impl Load {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::TcpStream,
        Self::HttpConnections,
        Self::TlsConnections,
        Self::UdpFlood,
        Self::PingFlood,
        Self::ResetStorm,
    ];

    /// Name in reports and on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::TcpStream => "tcp_stream",
            Self::HttpConnections => "http_connections",
            Self::TlsConnections => "tls_connections",
            Self::UdpFlood => "udp_flood",
            Self::PingFlood => "ping_flood",
            Self::ResetStorm => "reset_storm",
        }
    }

    /// What makes its traffic here.
    pub(super) fn generator(self, wanted: Generators) -> anyhow::Result<Generator> {
        let Some((name, programs)) = self.real() else {
            return Ok(Generator::Own);
        };
        let missing = match wanted {
            Generators::Own => return Ok(Generator::Own),
            Generators::Auto | Generators::Real => programs::missing(programs),
        };
        if missing.is_empty() {
            return Ok(Generator::Real(name));
        }
        if wanted == Generators::Real {
            bail!(
                "{self} needs real programs: apt-get install {}",
                missing.join(" ")
            );
        }
        Ok(Generator::Own)
    }

    /// What is said in its connections, if it is about connections.
    const fn style(self) -> Option<Style> {
        match self {
            Self::HttpConnections => Some(Style::Http),
            Self::TlsConnections => Some(Style::Tls),
            Self::TcpStream | Self::UdpFlood | Self::PingFlood | Self::ResetStorm => None,
        }
    }

    /// Programs of others that make this load, where there are any.
    const fn real(self) -> Option<(&'static str, &'static [(&'static str, &'static str)])> {
        match self {
            Self::TcpStream => Some(("iperf3", IPERF)),
            Self::HttpConnections => Some(("wrk, nginx", WRK)),
            Self::TlsConnections => Some(("wrk, nginx, openssl", WRK_TLS)),
            Self::UdpFlood | Self::PingFlood | Self::ResetStorm => None,
        }
    }

    /// Loads a gateway once.
    pub(super) fn measure(
        self,
        gateway: &Gateway,
        generator: Generator,
        options: &Options,
    ) -> anyhow::Result<Values> {
        let mut values = Values::new();
        let mut running = gateway.start()?;
        let lost_before = losses(gateway)?;
        running.begin()?;
        let lasting = options.lasting;
        match self {
            Self::TcpStream => {
                let speed = match generator {
                    Generator::Real(_) => programs::stream(gateway, lasting)?,
                    Generator::Own => stream(gateway, lasting)?,
                };
                values.insert("megabits_per_second".into(), speed);
            }
            Self::HttpConnections => {
                connections(gateway, Style::Http, generator, lasting, &mut values)?;
            }
            Self::TlsConnections => {
                connections(gateway, Style::Tls, generator, lasting, &mut values)?;
            }
            Self::UdpFlood => flood(gateway, None, lasting, &mut values)?,
            Self::PingFlood => {
                let rate = PINGS_PER_SECOND.to_string();
                let storm = ["pings", CLIENT2, &rate];
                web_beside(gateway, &mut running, storm, lasting, &mut values)?;
            }
            Self::ResetStorm => {
                let rate = RESETS_PER_SECOND.to_string();
                let storm = ["resets", CLIENT2, &rate];
                web_beside(gateway, &mut running, storm, lasting, &mut values)?;
            }
        }
        values.extend(lost_between(&lost_before, losses(gateway)?));
        note(&running.finish()?, lasting, &mut values);
        if let Some(style) = self.style()
            && let Some(packets) = queued_per_connection(gateway, style)?
        {
            values.insert("queued_per_connection".into(), packets);
        }
        Ok(values)
    }
}

impl fmt::Display for Load {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl Generator {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Own => "own",
            Self::Real(name) => name,
        }
    }
}

/// The host that is locked; `client1` is clean.
pub(super) const CLIENT2: &str = "10.77.1.2";

pub(super) fn text(lasting: Duration) -> String {
    format!("{}ms", lasting.as_millis())
}

fn stream(gateway: &Gateway, lasting: Duration) -> anyhow::Result<f64> {
    let sink = gateway.listen("out", &["stream-sink", STREAM_PORT])?;
    let to = format!("{SERVER}:{STREAM_PORT}");
    let _: Streamed = gateway.say("client1", &["stream-source", &to, &text(lasting)])?;
    let Streamed { octets, seconds } = numbers(sink)?;
    Ok(octets as f64 * 8.0 / 1e6 / seconds)
}

/// Connections a second with as many at once as are good for it, and times of one after the other.
fn connections(
    gateway: &Gateway,
    style: Style,
    generator: Generator,
    lasting: Duration,
    values: &mut Values,
) -> anyhow::Result<()> {
    if generator != Generator::Own {
        let speed = programs::connections(gateway, style, lasting)?;
        values.insert("connections_per_second".into(), speed);
    }
    let _server = gateway.listen("out", &["server", style_name(style)])?;
    if generator == Generator::Own {
        let several = exchange(gateway, style, lasting, &["--threads", "4"])?;
        let speed = several.connections as f64 / several.seconds;
        values.insert("connections_per_second".into(), speed);
        values.insert("failed".into(), several.failures as f64);
    }
    let single = exchange(gateway, style, lasting, &[])?;
    values.insert("p50_microseconds".into(), single.latencies.p50);
    values.insert("p99_microseconds".into(), single.latencies.p99);
    *values.entry("failed".into()).or_default() += single.failures as f64;
    Ok(())
}

const fn style_name(style: Style) -> &'static str {
    match style {
        Style::Http => "http",
        Style::Tls => "tls",
    }
}

pub(super) fn exchange(
    gateway: &Gateway,
    style: Style,
    lasting: Duration,
    more: &[&str],
) -> anyhow::Result<Exchanged> {
    let lasting = text(lasting);
    let args = [&["client", style_name(style), &lasting][..], more].concat();
    let exchanged: Exchanged = gateway.say("client1", &args)?;
    ensure!(exchanged.connections > 0, "no connection came to its end");
    Ok(exchanged)
}

/// Packets queued for each connection, by a daemon that sees nothing else; nothing without a daemon.
fn queued_per_connection(gateway: &Gateway, style: Style) -> anyhow::Result<Option<f64>> {
    if gateway.configuration.daemon().is_none() {
        return Ok(None);
    }
    let running = gateway.start()?;
    let _server = gateway.listen("out", &["server", style_name(style)])?;
    // What is asked about the first connections to an address is not what a connection costs.
    exchange(gateway, style, AUDIT, &[])?;
    let before = queued_packets(gateway)?;
    let exchanged = exchange(gateway, style, AUDIT, &[])?;
    let after = queued_packets(gateway)?;
    running.finish()?;
    let queued = before.zip(after).map(|(before, after)| after - before);
    Ok(queued.map(|packets| packets as f64 / exchanged.connections as f64))
}

/// Some hundred connections are enough to count packets.
const AUDIT: Duration = Duration::from_millis(200);

/// How the queues that are bound stand; none where the kernel does not say.
fn standings(gateway: &Gateway) -> anyhow::Result<Vec<Standing>> {
    let read = || QUEUES.into_iter().filter_map(queue::standing).collect();
    Ok(gateway.node("gw").enter(read)?)
}

/// Packets that all queues have handed over; nothing where the kernel does not say.
pub(super) fn queued_packets(gateway: &Gateway) -> anyhow::Result<Option<u64>> {
    let queued = standings(gateway)?.into_iter().map(|one| one.queued);
    Ok(queued.reduce(|sum, queued| sum + queued))
}

/// The daemon's queue of each class, and the one that takes everything.
const QUEUES: [u16; 3] = [0, 1, 7];

pub(super) fn flood(
    gateway: &Gateway,
    rate: Option<u32>,
    lasting: Duration,
    values: &mut Values,
) -> anyhow::Result<()> {
    let sink = gateway.listen("out", &["datagram-sink", FLOOD_PORT])?;
    let to = format!("{SERVER}:{FLOOD_PORT}");
    let (lasting, rate) = (text(lasting), rate.map(|rate| rate.to_string()));
    let mut args = vec!["datagram-flood", &to, &lasting];
    args.extend(rate.iter().flat_map(|rate| ["--rate", rate]));
    let flooded: Flooded = gateway.say("client1", &args)?;
    let Sunk { received } = numbers(sink)?;
    ensure!(flooded.sent > 0, "no datagram was sent");
    let sent = flooded.sent as f64;
    values.insert(
        "delivered_per_second".into(),
        received as f64 / flooded.seconds,
    );
    values.insert("sent_per_second".into(), sent / flooded.seconds);
    values.insert(
        "lost_share".into(),
        (sent - received as f64).max(0.0) / sent,
    );
    Ok(())
}

/// Pings every peer that storms go to; where there is a daemon, until the client is locked.
pub(super) fn lock_client(gateway: &Gateway, running: &Running<'_>) -> anyhow::Result<()> {
    let taught = [&["pings", CLIENT2], TEACHING].concat();
    let _: Stormed = gateway.say("client2", &taught)?;
    running.wait_locked()
}

/// Times of the web of a clean host, first alone, then beside a client that storms. Where there is a
/// daemon the client is locked before; without that nothing is measured.
fn web_beside(
    gateway: &Gateway,
    running: &mut Running<'_>,
    storm: [&str; 3],
    lasting: Duration,
    values: &mut Values,
) -> anyhow::Result<()> {
    let _server = gateway.listen("out", &["server", "http"])?;
    lock_client(gateway, running)?;
    let quiet = exchange(gateway, Style::Http, lasting, PACED)?;
    values.insert("quiet_p50_microseconds".into(), quiet.latencies.p50);
    values.insert("quiet_p99_microseconds".into(), quiet.latencies.p99);

    running.begin()?;
    // The storm begins before the web and ends after it.
    let longer = text(lasting + Duration::from_millis(300));
    let [what, from, rate] = storm;
    let storming = gateway.end(&[what, from, rate, &longer]);
    let storming = gateway.node("client2").spawn(&storming)?;
    let web = exchange(gateway, Style::Http, lasting, PACED)?;
    let storm: Stormed = numbers(storming)?;
    let spent = running.spent()?;
    ensure!(storm.sent > 0, "nothing stormed");
    values.insert("web_p50_microseconds".into(), web.latencies.p50);
    values.insert("web_p99_microseconds".into(), web.latencies.p99);
    values.insert("failed".into(), (web.failures + quiet.failures) as f64);
    values.insert("storm_per_second".into(), storm.sent as f64 / storm.seconds);
    values.insert("storm_daemon_processor_share".into(), spent / storm.seconds);
    Ok(())
}

/// A thousand connections a second at most: the web of an office, not another flood.
pub(super) const PACED: &[&str] = &["--interval", "1ms"];

/// What was lost on the way so far, by cause: queues and their sockets' buffers (where the kernel tells),
/// interfaces of the gateway, sockets outside.
pub(super) fn losses(gateway: &Gateway) -> anyhow::Result<Values> {
    let mut values = Values::new();
    for Standing { losses, .. } in standings(gateway)? {
        *values.entry("lost_queue_full".into()).or_default() += losses.queue_full as f64;
        *values.entry("lost_queue_buffer_full".into()).or_default() += losses.buffer_full as f64;
    }
    let read = |node, file: &'static str| {
        let text = gateway.node(node).enter(|| fs::read_to_string(file));
        text?.with_context(|| format!("reading {file}"))
    };
    let interfaces = dropped_by_interfaces(&read("gw", "/proc/thread-self/net/dev")?);
    values.insert("lost_by_interfaces".into(), interfaces);
    let sockets = udp_counter(&read("out", "/proc/thread-self/net/snmp")?, "RcvbufErrors");
    values.extend(sockets.map(|lost| ("lost_by_sockets".into(), lost)));
    Ok(values)
}

/// What was lost between two looks.
pub(super) fn lost_between(before: &Values, after: Values) -> impl Iterator<Item = (String, f64)> {
    let before = before.clone();
    after.into_iter().map(move |(cause, lost)| {
        let earlier = before.get(&cause).copied().unwrap_or(0.0);
        (cause, lost - earlier)
    })
}

/// Sum of the columns of dropped packets, received and sent (proc(5), `net/dev`).
fn dropped_by_interfaces(table: &str) -> f64 {
    let rows = table.lines().filter_map(|line| line.split_once(':'));
    let dropped = rows.map(|(_, numbers)| {
        let numbers: Vec<f64> = numbers
            .split_whitespace()
            .filter_map(|number| number.parse().ok())
            .collect();
        numbers.get(3).unwrap_or(&0.0) + numbers.get(11).unwrap_or(&0.0)
    });
    dropped.sum()
}

/// One of the counters of UDP: a line of names, then a line of numbers.
fn udp_counter(table: &str, name: &str) -> Option<f64> {
    let mut lines = table.lines().filter(|line| line.starts_with("Udp:"));
    let (names, numbers) = (lines.next()?, lines.next()?);
    let place = names.split_whitespace().position(|one| one == name)?;
    numbers.split_whitespace().nth(place)?.parse().ok()
}

/// What the gateway's own process has to say.
fn note(observed: &Observed, lasting: Duration, values: &mut Values) {
    if observed.statistics.is_none() {
        return;
    }
    let share = observed.processor_seconds / lasting.as_secs_f64();
    values.insert("daemon_processor_share".into(), share);
    let packets = observed.statistic("/packets").unwrap_or(0.0);
    values.insert("queued_packets".into(), packets);
    let overruns = observed.statistic("/queue_errors/overrun").unwrap_or(0.0);
    values.insert("queue_overruns".into(), overruns);
}

/// Cost of a queued packet by reader, at a rate that both can keep up with.
pub(super) fn measure_readers(
    gateways: &[Gateway],
    options: &Options,
) -> anyhow::Result<BTreeMap<String, ReaderCost>> {
    let everything = |gateway: &&Gateway| gateway.configuration == Configuration::QueueEverything;
    let Some(gateway) = gateways.iter().find(everything) else {
        return Ok(BTreeMap::new());
    };
    let mut measured: BTreeMap<&str, Vec<[f64; 3]>> = BTreeMap::new();
    for _ in 0..options.pairs {
        for reader in QueueReader::ALL {
            let cost = measure_reader(gateway, reader, options.lasting)?;
            measured.entry(reader.name()).or_default().push(cost);
        }
    }
    let cost = |rows: &[[f64; 3]]| {
        let column = |at: usize| Spread::of(rows.iter().map(|row| row[at]));
        Some(ReaderCost {
            nanoseconds_per_packet: column(0)?,
            most_packets_per_second: column(1)?,
            lost_share: column(2)?,
        })
    };
    let named = measured
        .iter()
        .filter_map(|(reader, rows)| Some(((*reader).to_owned(), cost(rows)?)));
    Ok(named.collect())
}

/// Paced first, for the cost of one packet; then as many as there can be, for the most.
fn measure_reader(
    gateway: &Gateway,
    reader: QueueReader,
    lasting: Duration,
) -> anyhow::Result<[f64; 3]> {
    let process = gateway.read_queue(reader)?;
    let mut paced = Values::new();
    flood(gateway, Some(PACED_DATAGRAMS), lasting, &mut paced)?;
    let queued = queued(process)?;
    ensure!(queued.packets > 0, "no packet was queued");
    let nanoseconds = queued.processor_seconds * 1e9 / queued.packets as f64;

    let _process = gateway.read_queue(reader)?;
    let mut most = Values::new();
    flood(gateway, None, lasting, &mut most)?;
    let [delivered, lost] = ["delivered_per_second", "lost_share"].map(|name| most[name]);
    Ok([nanoseconds, delivered, lost])
}

/// Datagrams a second that every reader keeps up with.
const PACED_DATAGRAMS: u32 = 30_000;
