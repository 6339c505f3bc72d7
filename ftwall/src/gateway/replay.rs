//! Replays captures through the engine: the same verdicts as on a gateway, without privileges.
//!
//! Every file meets a fresh engine. The output depends on nothing but the files and the options.

#[cfg(feature = "bench")]
pub mod bench;
pub mod diff;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::path::{Path, PathBuf};

use serde::Serialize;
use thiserror::Error;

use super::capture::{Capture, CaptureError, Problem};
use super::link::{self, Content};
use crate::event::{Details, PacketEnds};
use crate::packet::{Packet, Transport};
use crate::{Action, Engine, EngineConfig, Ingress, Timestamp, Verdict};

/// What to replay, and how to say what happened.
#[derive(Debug, Clone)]
pub struct Options {
    /// The captures, each on its own.
    pub files: Vec<PathBuf>,
    /// The engine's configuration.
    pub engine: EngineConfig,
    /// The engine's seed.
    pub seed: u64,
    /// For whom the output is.
    pub format: Format,
}

/// For whom the output is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// People: one summary.
    Human,
    /// Programs: one object a line, the last one the summary.
    Json,
}

/// What was found in all captures together.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Summary {
    /// Frames read.
    pub packets: u64,
    /// Distinct pairs of TCP ends.
    pub tcp_flows: u64,
    /// Distinct pairs of UDP ends.
    pub udp_flows: u64,
    /// Frames passed, those of tolerated flows included. Together with `cleared` and `dropped`
    /// these are all frames.
    pub passed: u64,
    /// Frames that proved their flow harmless.
    pub cleared: u64,
    /// Frames dropped.
    pub dropped: u64,
    /// Frames whose headers do not hold together; each is counted above as well.
    pub malformed: u64,
    /// Inside hosts that were locked.
    pub locked: BTreeSet<Ipv4Addr>,
    /// Peers that were learned.
    pub learned: BTreeSet<SocketAddrV4>,
    /// Evidence by name.
    pub evidence: BTreeMap<&'static str, u64>,
}

/// Why a replay failed.
#[derive(Debug, Error)]
pub enum ReplayError {
    /// Captures could not be read to their end. What could be read was judged and reported.
    #[error("{}", one_per_line(.0))]
    Captures(Vec<CaptureError>),
    /// The output could not be written.
    #[error("cannot write the results: {0}")]
    Write(#[from] io::Error),
}

/// Replays captures and writes what happened.
///
/// # Errors
/// If a capture cannot be read to its end, after everything that could be read was judged and the
/// summary written; or if the output cannot be written.
pub fn run(options: &Options, out: &mut impl Write) -> Result<Summary, ReplayError> {
    let captures = options.files.iter().map(|file| (file, Capture::open(file)));
    run_captures(options, captures, out)
}

/// Replays captures that were opened or could not be.
pub(crate) fn run_captures<'a>(
    options: &Options,
    captures: impl Iterator<Item = (&'a PathBuf, Result<Capture, CaptureError>)>,
    out: &mut impl Write,
) -> Result<Summary, ReplayError> {
    let mut summary = Summary::default();
    let mut failures = Vec::new();
    for (file, capture) in captures {
        let mut replay = Replay::new(options, file, &mut summary, out);
        match capture
            .map_err(Stopped::from)
            .and_then(|capture| replay.run(capture))
        {
            Ok(()) => {}
            Err(Stopped::Capture(error)) => failures.push(error),
            Err(Stopped::Write(error)) => return Err(error.into()),
        }
        replay.finish();
    }
    write_summary(options, &summary, out)?;
    out.flush()?;
    if failures.is_empty() {
        Ok(summary)
    } else {
        Err(ReplayError::Captures(failures))
    }
}

/// Hands out what every frame holds, up to the first frame that cannot be read.
fn read_frames(
    mut capture: Capture,
    mut take: impl FnMut(Timestamp, Content<'_>) -> io::Result<()>,
) -> Result<(), Stopped> {
    while let Some(frame) = capture.next_frame()? {
        match link::content(frame.link_type, frame.octets) {
            Ok(content) => take(frame.at, content)?,
            Err(unknown) => return Err(capture.error(Problem::LinkType(unknown)).into()),
        }
    }
    Ok(())
}

/// An engine on a capture's clock.
struct Judge {
    engine: Engine,
    /// The latest time so far: captures merged from several places may step back.
    now: Timestamp,
}

impl Judge {
    fn new(config: &EngineConfig, seed: u64) -> Self {
        Self {
            engine: Engine::new(config.clone(), seed),
            now: Timestamp::ORIGIN,
        }
    }

    /// A frame was captured at this time.
    fn advance(&mut self, at: Timestamp) {
        self.now = self.now.max(at);
    }

    /// Lets the engine's next timeout happen if it is due by now, and says when it was: not when the
    /// next frame comes.
    fn expire_next(&mut self) -> Option<Timestamp> {
        let due = self.engine.poll_timeout().filter(|due| *due <= self.now)?;
        self.engine.handle_timeout(due);
        Some(due)
    }

    fn judge(&mut self, bytes: &[u8]) -> Verdict {
        let conntrack = None;
        self.engine.handle_packet(
            self.now,
            Ingress {
                bytes,
                conntrack,
                link: None,
            },
        )
    }
}

/// One capture on its way through one engine.
struct Replay<'a, W> {
    judge: Judge,
    flows: BTreeSet<(&'static str, SocketAddr, SocketAddr)>,
    short_frames: u64,
    format: Format,
    file: String,
    summary: &'a mut Summary,
    out: &'a mut W,
}

enum Stopped {
    Capture(CaptureError),
    Write(io::Error),
}

impl From<CaptureError> for Stopped {
    fn from(error: CaptureError) -> Self {
        Self::Capture(error)
    }
}

impl From<io::Error> for Stopped {
    fn from(error: io::Error) -> Self {
        Self::Write(error)
    }
}

impl<'a, W: Write> Replay<'a, W> {
    fn new(options: &Options, file: &Path, summary: &'a mut Summary, out: &'a mut W) -> Self {
        Self {
            judge: Judge::new(&options.engine, options.seed),
            flows: BTreeSet::new(),
            short_frames: 0,
            format: options.format,
            file: file.display().to_string(),
            summary,
            out,
        }
    }

    fn run(&mut self, capture: Capture) -> Result<(), Stopped> {
        read_frames(capture, |at, content| {
            self.judge.advance(at);
            while let Some(due) = self.judge.expire_next() {
                self.drain(due)?;
            }
            self.take(content)
        })
    }

    fn take(&mut self, content: Content<'_>) -> io::Result<()> {
        self.summary.packets += 1;
        match content {
            Content::Ip(bytes) => self.take_packet(bytes),
            Content::Other => {
                self.summary.passed += 1;
                Ok(())
            }
            Content::Short => {
                self.summary.passed += 1;
                self.short_frames += 1;
                Ok(())
            }
        }
    }

    fn take_packet(&mut self, bytes: &[u8]) -> io::Result<()> {
        let ends = Packet::parse(bytes).ok().and_then(|packet| ends(&packet));
        self.flows.extend(ends.map(flow));
        let verdict = self.judge.judge(bytes);
        match verdict {
            Verdict::Pass(_) | Verdict::Tolerate(_) => self.summary.passed += 1,
            Verdict::Clear(_) => self.summary.cleared += 1,
            Verdict::Drop(_) => self.summary.dropped += 1,
        }
        if !matches!(verdict, Verdict::Pass(_)) {
            self.write_verdict(ends, verdict)?;
        }
        self.drain(self.judge.now)
    }

    fn drain(&mut self, at: Timestamp) -> io::Result<()> {
        while let Some(action) = self.judge.engine.poll_action() {
            match action {
                Action::LockHost { host, .. } => {
                    self.summary.locked.insert(host);
                }
                Action::LearnPeer { peer, .. } => {
                    self.summary.learned.insert(peer);
                }
                Action::ReleaseHost { .. }
                | Action::ProveAddress { .. }
                | Action::ForgetPeer { .. }
                | Action::Answer { .. }
                | Action::Probe { .. } => {}
            }
        }
        while let Some(event) = self.judge.engine.poll_event() {
            self.write_line(at, &event)?;
        }
        Ok(())
    }

    fn write_verdict(&mut self, packet: Option<PacketEnds>, verdict: Verdict) -> io::Result<()> {
        let ftwall = Details {
            verdict: Some(verdict.into()),
            ..Details::default()
        };
        self.write_line(
            self.judge.now,
            &VerdictLine {
                event_type: "verdict",
                packet,
                ftwall,
            },
        )
    }

    fn write_line(&mut self, at: Timestamp, content: &impl Serialize) -> io::Result<()> {
        if self.format == Format::Human {
            return Ok(());
        }
        let timestamp = at.rfc3339().to_string();
        let line = Line {
            timestamp,
            pcap_filename: &self.file,
            content,
        };
        write_json(self.out, &line)
    }

    /// Adds what the engine counted to the summary.
    fn finish(self) {
        let counters = self.judge.engine.counters();
        self.summary.malformed += counters.malformed + self.short_frames;
        for (name, count) in &counters.evidence {
            *self.summary.evidence.entry(name).or_default() += count;
        }
        let tcp = self
            .flows
            .iter()
            .filter(|(proto, ..)| *proto == TCP)
            .count() as u64;
        self.summary.tcp_flows += tcp;
        self.summary.udp_flows += self.flows.len() as u64 - tcp;
    }
}

/// One line of output for programs. `pcap_filename` is what Suricata calls it.
#[derive(Serialize)]
struct Line<'a, T> {
    timestamp: String,
    pcap_filename: &'a str,
    #[serde(flatten)]
    content: &'a T,
}

/// A verdict other than pass, in the shape of an event.
#[derive(Serialize)]
struct VerdictLine {
    event_type: &'static str,
    #[serde(flatten)]
    packet: Option<PacketEnds>,
    ftwall: Details,
}

/// The same for both directions.
fn flow(ends: PacketEnds) -> (&'static str, SocketAddr, SocketAddr) {
    let source = SocketAddr::new(ends.src_ip, ends.src_port);
    let destination = SocketAddr::new(ends.dest_ip, ends.dest_port);
    (ends.proto, source.min(destination), source.max(destination))
}

fn ends(packet: &Packet<'_>) -> Option<PacketEnds> {
    let (source, destination) = packet.ends()?;
    let proto = match packet.transport {
        Transport::Tcp(_) => TCP,
        Transport::Udp(_) => UDP,
        Transport::LaterFragment | Transport::Other => return None,
    };
    Some(PacketEnds::new(proto, source, destination))
}

const TCP: &str = "TCP";
const UDP: &str = "UDP";

fn write_summary(options: &Options, summary: &Summary, out: &mut impl Write) -> io::Result<()> {
    match options.format {
        Format::Json => write_json(out, summary),
        Format::Human => write_for_people(options, summary, out),
    }
}

fn write_json(out: &mut impl Write, line: &impl Serialize) -> io::Result<()> {
    serde_json::to_writer(&mut *out, line)?;
    out.write_all(b"\n")
}

fn write_for_people(options: &Options, summary: &Summary, out: &mut impl Write) -> io::Result<()> {
    let Summary {
        packets,
        tcp_flows,
        udp_flows,
        passed,
        cleared,
        dropped,
        ..
    } = summary;
    let files = options.files.len();
    writeln!(
        out,
        "{packets} packets in {files} file(s), {tcp_flows} TCP and {udp_flows} UDP flows"
    )?;
    writeln!(
        out,
        "{passed} passed, {cleared} cleared their flow, {dropped} dropped, {} malformed",
        summary.malformed
    )?;
    write_list(out, "locked hosts", &summary.locked)?;
    write_list(out, "learned peers", &summary.learned)?;
    let evidence = summary
        .evidence
        .iter()
        .map(|(name, count)| format!("{name} {count}"));
    write_list(out, "evidence", evidence)
}

fn write_list(
    out: &mut impl Write,
    title: &str,
    items: impl IntoIterator<Item: ToString>,
) -> io::Result<()> {
    let items: Vec<_> = items.into_iter().map(|item| item.to_string()).collect();
    let text = if items.is_empty() {
        "none".to_owned()
    } else {
        items.join(", ")
    };
    writeln!(out, "{title}: {text}")
}

fn one_per_line(errors: &[CaptureError]) -> String {
    errors
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join("\n")
}
