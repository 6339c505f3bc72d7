//! How many packets a second one core judges: captures loaded into memory, merged as if they had been
//! taken at the same time, and replayed through a fresh engine over and over.
//!
//! Only the engine's work is timed: verdicts, timeouts, and taking its actions and events out.

use std::hint::black_box;
use std::io::{self, Write};
use std::ops::Range;
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use rustix::time::{ClockId, clock_gettime};
use serde::Serialize;

use super::{Capture, Content, Format, Judge, Options, Stopped, read_frames, write_json};
use crate::bench::{Spread, progress};
use crate::{EngineConfig, Timestamp};

/// What a bench of replaying shows.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Speed {
    /// Captures read.
    pub captures: usize,
    /// Captures that end before their last frame; what came before counts.
    pub cut_short: usize,
    /// Packets in memory.
    pub packets: usize,
    /// Frames that hold no IP packet, left out.
    pub other_frames: usize,
    /// How often all packets were replayed.
    pub rounds: usize,
    /// Packets of each round for each second of processor time.
    pub packets_per_second: Spread,
    /// Processor time for each packet, in the median round.
    pub nanoseconds_per_packet: f64,
}

/// Loads the captures, replays them for so long and says how fast that was.
///
/// # Errors
/// When no capture holds a packet, or the output cannot be written.
pub fn run(options: &Options, lasting: Duration, out: &mut impl Write) -> anyhow::Result<Speed> {
    let load = Load::read(options)?;
    let rounds = load.replay(&options.engine, options.seed, lasting);
    let packets = load.packets.len();
    let speeds = rounds
        .iter()
        .map(|spent| packets as f64 / spent.as_secs_f64());
    let packets_per_second = Spread::of(speeds).context("not one round was played")?;
    let speed = Speed {
        captures: options.files.len(),
        cut_short: load.cut_short,
        packets,
        other_frames: load.other_frames,
        rounds: rounds.len(),
        packets_per_second,
        nanoseconds_per_packet: 1e9 / packets_per_second.median,
    };
    match options.format {
        Format::Json => write_json(out, &speed)?,
        Format::Human => write_for_people(&speed, out)?,
    }
    out.flush()?;
    Ok(speed)
}

/// Packets in memory, in the order of their times.
#[derive(Default)]
struct Load {
    octets: Vec<u8>,
    packets: Vec<(Timestamp, Range<usize>)>,
    other_frames: usize,
    cut_short: usize,
}

impl Load {
    fn read(options: &Options) -> anyhow::Result<Self> {
        let mut load = Self::default();
        let progress = progress(options.files.len() as u64);
        for file in &options.files {
            progress.set_message("captures read");
            load.add(file)?;
            progress.inc(1);
        }
        progress.finish_and_clear();
        load.packets.sort_by_key(|(at, _)| *at);
        anyhow::ensure!(!load.packets.is_empty(), "no capture holds a packet");
        Ok(load)
    }

    /// Adds a capture, its time counted from its first frame on.
    fn add(&mut self, file: &Path) -> anyhow::Result<()> {
        let capture = Capture::open(file)?;
        let mut first = None;
        let read = read_frames(capture, |at, content| {
            let first = *first.get_or_insert(at);
            match content {
                Content::Ip(bytes) => self.push(at.saturating_since(first), bytes),
                Content::Other | Content::Short => self.other_frames += 1,
            }
            Ok(())
        });
        match read {
            Ok(()) => Ok(()),
            Err(Stopped::Capture(error)) => {
                tracing::warn!(%error, "the rest of this capture is left out");
                self.cut_short += 1;
                Ok(())
            }
            Err(Stopped::Write(error)) => Err(error.into()),
        }
    }

    fn push(&mut self, after: Duration, bytes: &[u8]) {
        let begin = self.octets.len();
        self.octets.extend_from_slice(bytes);
        let at = Timestamp::after_origin(after);
        self.packets.push((at, begin..self.octets.len()));
    }

    /// Processor time of each round.
    fn replay(&self, config: &EngineConfig, seed: u64, lasting: Duration) -> Vec<Duration> {
        let progress = progress(u64::try_from(lasting.as_millis()).unwrap_or(u64::MAX));
        let (mut rounds, mut spent) = (Vec::new(), Duration::ZERO);
        while spent < lasting || rounds.is_empty() {
            let mut judge = Judge::new(config, seed);
            let begun = processor_time();
            self.play(&mut judge);
            let round = processor_time() - begun;
            // The clock's own resolution: a round of few packets may seem to take no time at all.
            let round = round.max(Duration::from_nanos(1));
            spent += round;
            rounds.push(round);
            progress.set_position(u64::try_from(spent.as_millis()).unwrap_or(u64::MAX));
        }
        progress.finish_and_clear();
        rounds
    }

    fn play(&self, judge: &mut Judge) {
        for (at, range) in &self.packets {
            judge.advance(*at);
            while judge.expire_next().is_some() {
                drain(judge);
            }
            black_box(judge.judge(&self.octets[range.clone()]));
            drain(judge);
        }
    }
}

fn drain(judge: &mut Judge) {
    while let Some(action) = judge.engine.poll_action() {
        black_box(action);
    }
    while let Some(event) = judge.engine.poll_event() {
        black_box(event);
    }
}

/// Of this thread: what others do on the machine is not the engine's cost.
fn processor_time() -> Duration {
    let spent = clock_gettime(ClockId::ThreadCPUTime);
    Duration::try_from(spent).unwrap_or_default()
}

fn write_for_people(speed: &Speed, out: &mut impl Write) -> io::Result<()> {
    let Speed {
        captures,
        cut_short,
        packets,
        other_frames,
        rounds,
        packets_per_second:
            Spread {
                median,
                least,
                most,
            },
        nanoseconds_per_packet,
    } = speed;
    writeln!(
        out,
        "{packets} packets of {captures} captures in memory ({cut_short} captures cut short, \
         {other_frames} frames without a packet), {rounds} rounds"
    )?;
    writeln!(
        out,
        "{:.2} million packets a second on one core ({:.2} to {:.2}), {nanoseconds_per_packet:.0} ns a packet",
        median / 1e6,
        least / 1e6,
        most / 1e6
    )
}
