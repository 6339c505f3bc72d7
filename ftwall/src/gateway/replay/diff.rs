//! Replays captures under two configurations at once and says which verdicts differ.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};

use serde::Serialize;

use super::{Format, Judge, Options, ReplayError, Stopped, ends, flow, read_frames, write_json};
use crate::event::{PacketEnds, VerdictDetails};
use crate::gateway::capture::Capture;
use crate::gateway::link::Content;
use crate::packet::Packet;
use crate::{Action, EngineConfig, Timestamp, Verdict};

/// What differs in all captures together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Summary {
    /// Packets judged.
    pub verdicts: u64,
    /// Packets of which the two configurations say different things.
    pub different: u64,
    /// Flows with such packets.
    pub flows: u64,
    /// Inside hosts that only one configuration locked, or that taught them different peers.
    pub hosts: u64,
}

/// Replays captures under the configuration in `options` and under `other`, and writes what differs.
///
/// # Errors
/// As [`super::run`] does.
pub fn run(
    options: &Options,
    other: &EngineConfig,
    out: &mut impl Write,
) -> Result<Summary, ReplayError> {
    let mut summary = Summary::default();
    let mut failures = Vec::new();
    for file in &options.files {
        let mut comparison = Comparison::new(options, other);
        let read = Capture::open(file)
            .map_err(Stopped::from)
            .and_then(|capture| read_frames(capture, |at, content| comparison.take(at, content)));
        match read {
            Ok(()) => {}
            Err(Stopped::Capture(error)) => failures.push(error),
            Err(Stopped::Write(error)) => return Err(error.into()),
        }
        comparison.write(&file.display().to_string(), options.format, out)?;
        comparison.add_to(&mut summary);
    }
    write_summary(&summary, options.format, out)?;
    out.flush()?;
    if failures.is_empty() {
        Ok(summary)
    } else {
        Err(ReplayError::Captures(failures))
    }
}

/// One capture on its way through two engines.
struct Comparison {
    sides: [Side; 2],
    verdicts: u64,
    /// Nothing for packets that have no ports.
    changes: BTreeMap<Option<Flow>, Changes>,
}

type Flow = (&'static str, SocketAddr, SocketAddr);

/// What differs within one flow.
struct Changes {
    /// The first packet that the two say different things of.
    first: Option<PacketEnds>,
    at: Timestamp,
    /// What the two said, and of how many packets.
    pairs: BTreeMap<[Verdict; 2], u64>,
}

impl Comparison {
    fn new(options: &Options, other: &EngineConfig) -> Self {
        Self {
            sides: [&options.engine, other].map(|config| Side::new(config, options.seed)),
            verdicts: 0,
            changes: BTreeMap::new(),
        }
    }

    fn take(&mut self, at: Timestamp, content: Content<'_>) -> io::Result<()> {
        self.sides.iter_mut().for_each(|side| side.advance(at));
        if let Content::Ip(bytes) = content {
            let pair = self.sides.each_mut().map(|side| side.take(bytes));
            self.compare(bytes, pair);
        }
        Ok(())
    }

    fn compare(&mut self, bytes: &[u8], pair: [Verdict; 2]) {
        self.verdicts += 1;
        if pair[0] == pair[1] {
            return;
        }
        let first = Packet::parse(bytes).ok().and_then(|packet| ends(&packet));
        let at = self.sides[0].judge.now;
        let changes = self.changes.entry(first.map(flow)).or_insert(Changes {
            first,
            at,
            pairs: BTreeMap::new(),
        });
        *changes.pairs.entry(pair).or_default() += 1;
    }

    /// Inside hosts of which the two know different things.
    fn hosts(&self) -> impl Iterator<Item = HostLine<'_>> {
        let [one, other] = &self.sides;
        let hosts: BTreeSet<_> = one.hosts().chain(other.hosts()).collect();
        let line = |client| HostLine {
            event_type: "difference.host",
            client,
            ftwall: one.known_of(client),
            other: other.known_of(client),
        };
        hosts
            .into_iter()
            .map(line)
            .filter(|line| line.ftwall != line.other)
    }

    fn write(&self, file: &str, format: Format, out: &mut impl Write) -> io::Result<()> {
        for (changes, (pair, packets)) in self
            .changes
            .values()
            .flat_map(|changes| changes.pairs.iter().map(move |pair| (changes, pair)))
        {
            let [ftwall, other] = pair.map(VerdictDetails::from);
            let line = FlowLine {
                timestamp: changes.at.rfc3339().to_string(),
                pcap_filename: file,
                event_type: "difference.flow",
                packet: changes.first,
                packets: *packets,
                ftwall,
                other,
            };
            write_line(&line, format, out)?;
        }
        self.hosts()
            .try_for_each(|line| write_line(&line, format, out))
    }

    fn add_to(&self, summary: &mut Summary) {
        let packets = self
            .changes
            .values()
            .flat_map(|changes| changes.pairs.values());
        summary.verdicts += self.verdicts;
        summary.different += packets.sum::<u64>();
        summary.flows += self.changes.len() as u64;
        summary.hosts += self.hosts().count() as u64;
    }
}

/// One of the two configurations, and what it came to know.
struct Side {
    judge: Judge,
    locked: BTreeSet<Ipv4Addr>,
    learned: BTreeSet<(Ipv4Addr, SocketAddrV4)>,
}

impl Side {
    fn new(config: &EngineConfig, seed: u64) -> Self {
        Self {
            judge: Judge::new(config, seed),
            locked: BTreeSet::new(),
            learned: BTreeSet::new(),
        }
    }

    fn advance(&mut self, at: Timestamp) {
        self.judge.advance(at);
        while self.judge.expire_next().is_some() {
            self.drain();
        }
    }

    fn take(&mut self, bytes: &[u8]) -> Verdict {
        let verdict = self.judge.judge(bytes);
        self.drain();
        verdict
    }

    fn drain(&mut self) {
        while let Some(action) = self.judge.engine.poll_action() {
            match action {
                Action::LockHost { host, .. } => {
                    self.locked.insert(host);
                }
                Action::LearnPeer { client, peer, .. } => {
                    self.learned.insert((client, peer));
                }
                Action::ReleaseHost { .. }
                | Action::ProveAddress { .. }
                | Action::ForgetPeer { .. }
                | Action::Answer { .. }
                | Action::Probe { .. } => {}
            }
        }
        while self.judge.engine.poll_event().is_some() {}
    }

    fn hosts(&self) -> impl Iterator<Item = Ipv4Addr> {
        let taught = self.learned.iter().map(|(client, _)| *client);
        self.locked.iter().copied().chain(taught)
    }

    fn known_of(&self, host: Ipv4Addr) -> Known<'_> {
        let peers = self.learned.iter().filter(|(client, _)| *client == host);
        Known {
            locked: self.locked.contains(&host),
            peers: peers.map(|(_, peer)| peer).collect(),
        }
    }
}

/// What one configuration came to know of an inside host.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Known<'a> {
    locked: bool,
    peers: BTreeSet<&'a SocketAddrV4>,
}

/// What differs within one flow: a pair of verdicts and how many packets got it.
#[derive(Serialize)]
struct FlowLine<'a> {
    timestamp: String,
    pcap_filename: &'a str,
    event_type: &'static str,
    #[serde(flatten)]
    packet: Option<PacketEnds>,
    packets: u64,
    ftwall: VerdictDetails,
    other: VerdictDetails,
}

/// What differs about one host.
#[derive(Serialize)]
struct HostLine<'a> {
    event_type: &'static str,
    client: Ipv4Addr,
    ftwall: Known<'a>,
    other: Known<'a>,
}

fn write_line(
    line: &(impl Serialize + fmt::Display),
    format: Format,
    out: &mut impl Write,
) -> io::Result<()> {
    match format {
        Format::Json => write_json(out, line),
        Format::Human => writeln!(out, "{line}"),
    }
}

fn write_summary(summary: &Summary, format: Format, out: &mut impl Write) -> io::Result<()> {
    let Summary {
        verdicts,
        different,
        ..
    } = summary;
    match format {
        Format::Json => write_json(out, summary),
        Format::Human => writeln!(out, "{different} of {verdicts} verdicts differ"),
    }
}

impl fmt::Display for FlowLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let flow = match &self.packet {
            Some(ends) => format!(
                "{} {} -> {}",
                ends.proto,
                SocketAddr::new(ends.src_ip, ends.src_port),
                SocketAddr::new(ends.dest_ip, ends.dest_port)
            ),
            None => "packets without ports".to_owned(),
        };
        let verdict = |verdict: &VerdictDetails| format!("{} {}", verdict.action, verdict.reason);
        let (here, other) = (verdict(&self.ftwall), verdict(&self.other));
        write!(f, "{flow:<48} {:>6} x  {here:<24} -> {other}", self.packets)
    }
}

impl fmt::Display for HostLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let known = |known: &Known<'_>| {
            let lock = if known.locked { "locked" } else { "not locked" };
            format!("{lock}, {} peers", known.peers.len())
        };
        let (here, other) = (known(&self.ftwall), known(&self.other));
        let host = format!("host {}", self.client);
        write!(f, "{host:<48} {:>6}    {here:<24} -> {other}", "")
    }
}
