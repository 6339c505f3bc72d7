//! One scenario in namespaces: the same network, cast and seed without a device and with one.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context;
use lab::presets::{Office as OfficePlan, office};
use lab::{Capture, Frames, Lab, Process, Stream, WireSettings};
use simulator::report::{Event, Line};

use super::cast::{Cast, Part};
use super::gateway::{Residue, Running};
use super::{Played, keep, real_web, site};
use crate::binaries::Binaries;
use crate::device::Device;
use crate::observe::{Evidence, Frame, HostLine};
use crate::outcome::Outcome;
use crate::record::Record;
use crate::scenario::{Actor, Scenario, host_name};

/// Time for a server to be ready.
const READY: Duration = Duration::from_secs(20);

/// Time for a server to end once told to.
const GRACE: Duration = Duration::from_secs(5);

/// First port and number of ports that a host behind NAT draws from: ranges that do not overlap, so
/// that a port tells the host even where its address does not.
pub(super) const NAT_PORTS: (usize, usize) = (32_768, 4_000);

/// Plays one scenario in the capsule this process runs in; says what happened to each host if
/// `timelines` are wanted.
///
/// # Errors
/// When the stage cannot be set: the result is then void.
pub fn play(
    scenario: &Scenario,
    device: Device,
    seed: u64,
    keep: Option<&Path>,
    timelines: bool,
) -> anyhow::Result<Outcome> {
    let binaries = Binaries::find()?;
    let began = now();
    let stage = |device, name: &str| Stage {
        scenario,
        device,
        seed,
        binaries: &binaries,
        keep: keep.map(|directory| directory.join(&*scenario.name).join(name)),
    };
    let off = stage(Device::None, "off")
        .run()
        .context("without a device")?;
    let on = stage(device, "on")
        .run()
        .with_context(|| format!("with device {device}"))?;
    let played = Played {
        scenario,
        device,
        seed,
        site: site(scenario, seed)?,
        off,
        on,
    };
    let mut outcome = played.outcome(timelines);
    outcome.took = began.elapsed();
    Ok(outcome)
}

#[expect(
    clippy::disallowed_methods,
    reason = "the stage is a shell: it plays in real time"
)]
pub(crate) fn now() -> Instant {
    Instant::now()
}

#[expect(
    clippy::disallowed_methods,
    reason = "reports carry the time of the day"
)]
pub(crate) fn epoch_us() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    micros(since.unwrap_or_default())
}

pub(crate) fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// One run to be made, in a network of its own.
pub(crate) struct Stage<'a> {
    pub(crate) scenario: &'a Scenario,
    pub(crate) device: Device,
    pub(crate) seed: u64,
    pub(crate) binaries: &'a Binaries,
    pub(crate) keep: Option<PathBuf>,
}

/// What the programs of a run left, before the recordings of the wires are added.
#[derive(Default)]
struct Remains {
    record: Record,
    residue: Residue,
}

impl Stage<'_> {
    pub(crate) fn run(&self) -> anyhow::Result<Record> {
        let lab = build(self.scenario, self.seed)?;
        let wires = Wires::record(&lab, self.has_downloads())?;
        let Remains {
            mut record,
            residue,
        } = self.act(&lab)?;
        let (inside, outside) = wires.stop()?;
        record.evidence.lost_frames = inside.lost.saturating_add(outside.lost);
        record.mishaps.extend(self.blindness(&record.evidence));
        if let Some(directory) = &self.keep {
            keep(directory, &record, &residue, [&inside, &outside])
                .with_context(|| format!("keeping records in {}", directory.display()))?;
        }
        record.evidence.inside = frames(inside);
        record.evidence.outside = frames(outside);
        Ok(record)
    }

    /// A wire that says "nothing passed" must have seen everything. Without a device it is enough
    /// that it saw contact being made.
    fn blindness(&self, evidence: &Evidence) -> Option<String> {
        let lost = evidence.lost_frames;
        (self.device != Device::None && lost > 0)
            .then(|| format!("the recordings of the wires lost {lost} frames"))
    }

    fn has_downloads(&self) -> bool {
        self.scenario
            .cast
            .iter()
            .any(|actor| matches!(actor, Actor::RealWeb(_)))
    }

    /// Lets everybody act: servers first, then the device, then the hosts inside.
    fn act(&self, lab: &Lab) -> anyhow::Result<Remains> {
        let mut record = Record::default();
        let mut troupe = Troupe::open(lab, self.scenario, self.seed, &self.binaries.simulator)?;
        let mut device = Running::start(
            self.device,
            lab.node("gw"),
            self.binaries,
            &self.scenario.ftwall,
        )?;
        record.began_us = epoch_us();
        let acting_since = now();
        troupe.enter()?;
        let real = real_web::play(self.scenario, lab, &troupe.inside, self.seed)?;
        record.evidence.blind_us = device.suffer(&self.scenario.outages, acting_since)?;
        record
            .mishaps
            .extend(troupe.await_end(self.scenario.longest()));
        let mut residue = device.stop()?;
        record.evidence.ended_us = epoch_us();
        troupe.close(&mut record);
        record.evidence.clients.extend(real);
        record.mishaps.append(&mut residue.mishaps);
        record.device_events = std::mem::take(&mut residue.events);
        Ok(Remains { record, residue })
    }
}

/// Everybody who acts in a run, the device left out.
pub(crate) struct Troupe<'a> {
    lab: &'a Lab,
    simulator: &'a Path,
    outside: Players,
    servers: Players,
    waiting: Vec<Part>,
    inside: Players,
}

impl<'a> Troupe<'a> {
    /// Starts everybody outside and waits until they can be talked to.
    pub(crate) fn open(
        lab: &'a Lab,
        scenario: &Scenario,
        seed: u64,
        simulator: &'a Path,
    ) -> anyhow::Result<Self> {
        let cast = Cast::of(scenario, seed)?;
        let outside = Players::start(lab, &cast.peers, simulator)?;
        let servers = Players::start(lab, &cast.servers, simulator)?;
        outside.await_ready()?;
        servers.await_ready()?;
        Ok(Self {
            lab,
            simulator,
            outside,
            servers,
            waiting: cast.inside,
            inside: Players::default(),
        })
    }

    /// Lets the hosts inside loose.
    pub(crate) fn enter(&mut self) -> anyhow::Result<()> {
        self.inside = Players::start(self.lab, &self.waiting, self.simulator)?;
        Ok(())
    }

    /// Waits until everybody inside has ended by himself; returns what went wrong.
    pub(crate) fn await_end(&mut self, limit: Duration) -> Vec<String> {
        self.inside.await_end(limit)
    }

    /// Stops everybody outside, and enters what all of them reported.
    pub(crate) fn close(mut self, record: &mut Record) {
        record.mishaps.extend(self.outside.stop());
        record.mishaps.extend(self.servers.stop());
        record.evidence.clients = self.inside.host_lines(&mut record.mishaps);
        record.evidence.peers = self
            .outside
            .host_lines(&mut record.mishaps)
            .into_iter()
            .map(|said| said.line)
            .collect();
    }
}

/// The network of a scenario.
pub(crate) fn build(scenario: &Scenario, seed: u64) -> anyhow::Result<Lab> {
    let wished = &scenario.office;
    let wire = wished
        .wire
        .clone()
        .map(|wire| WireSettings { seed, ..wire });
    let mut topology = office(&OfficePlan {
        clients: wished.hosts,
        nat: wished.nat,
        block_inbound: false,
        wire,
        offloads: !wished.real_segments,
    });
    if wished.nat {
        for number in 1..=wished.hosts {
            let (first, count) = NAT_PORTS;
            let low = first + (number - 1) * count;
            let range = format!("{low}\t{}", low + count - 1);
            topology.sysctl(&host_name(number), "net.ipv4.ip_local_port_range", &range)?;
        }
    }
    Ok(topology.plan()?.apply()?)
}

/// Recordings on both sides of the gateway.
pub(crate) struct Wires {
    inside: Capture,
    outside: Capture,
}

impl Wires {
    /// Starts them; of everything, or of what goes to peers or comes from them only.
    pub(crate) fn record(lab: &Lab, peers_only: bool) -> anyhow::Result<Self> {
        let record = |node, interface| {
            if peers_only {
                lab.capture_for(node, interface, OfficePlan::PEERS)
            } else {
                lab.capture(node, interface)
            }
        };
        Ok(Self {
            inside: record("gw", "lan0")?,
            outside: record("out", "eth0")?,
        })
    }

    /// Stops both.
    pub(crate) fn stop(self) -> anyhow::Result<(Frames, Frames)> {
        Ok((self.inside.stop()?, self.outside.stop()?))
    }
}

/// A recording as witnesses read it.
pub(crate) fn frames(recorded: Frames) -> Vec<Frame> {
    let frame = |frame: lab::Frame| Frame {
        at_us: micros(frame.at),
        bytes: frame.bytes,
    };
    recorded.frames.into_iter().map(frame).collect()
}

/// Running programs of a cast.
#[derive(Default)]
pub(super) struct Players(Vec<Player>);

struct Player {
    node: String,
    who: String,
    process: Process,
}

impl Players {
    fn start(lab: &Lab, parts: &[Part], simulator: &Path) -> anyhow::Result<Self> {
        let start = |part: &Part| {
            Ok(Player {
                node: part.node.clone(),
                who: part.who.clone(),
                process: lab.node(&part.node).spawn(&part.spec(simulator))?,
            })
        };
        parts
            .iter()
            .map(start)
            .collect::<anyhow::Result<_>>()
            .map(Self)
    }

    fn await_ready(&self) -> anyhow::Result<()> {
        for player in &self.0 {
            player
                .process
                .wait_line(|line| line.contains(r#""event":"ready""#), READY)
                .with_context(|| format!("{} is not ready", player.who))?;
        }
        Ok(())
    }

    /// Waits until a program has said a line; nothing to wait for if it is not among these.
    pub(super) fn await_line(
        &self,
        who: &str,
        wanted: impl Fn(&str) -> bool,
    ) -> anyhow::Result<()> {
        for player in self.0.iter().filter(|player| player.who == who) {
            player.process.wait_line(&wanted, READY)?;
        }
        Ok(())
    }

    /// Waits until every program has ended by itself; returns what went wrong.
    fn await_end(&mut self, limit: Duration) -> Vec<String> {
        let end = now() + limit;
        let mut mishaps = Vec::new();
        for player in &mut self.0 {
            let left = end.saturating_duration_since(now());
            match player.process.wait_exit(left) {
                Ok(status) if status.success() => {}
                Ok(status) => mishaps.push(format!(
                    "{} ended with {status}: {}",
                    player.who,
                    player.process.text(Stream::Stderr).trim()
                )),
                Err(error) => mishaps.push(format!("{} did not end: {error}", player.who)),
            }
        }
        mishaps
    }

    fn stop(&mut self) -> Vec<String> {
        let mut mishaps = Vec::new();
        for player in &mut self.0 {
            if player.process.is_running().is_ok_and(|running| !running) {
                let last = player.process.text(Stream::Stderr);
                mishaps.push(format!(
                    "{} ended before the end: {}",
                    player.who,
                    last.trim()
                ));
            }
            match player.process.stop(GRACE) {
                Ok(stopped) if stopped.killed => {
                    mishaps.push(format!("{} did not heed SIGTERM", player.who));
                }
                Ok(_) => {}
                Err(error) => mishaps.push(format!("{} could not be stopped: {error}", player.who)),
            }
        }
        mishaps
    }

    /// What the programs reported; a report that cannot be read or does not end is a mishap.
    fn host_lines(&self, mishaps: &mut Vec<String>) -> Vec<HostLine> {
        let mut lines = Vec::new();
        for player in &self.0 {
            let before = lines.len();
            for text in player.process.text(Stream::Stdout).lines() {
                match serde_json::from_str::<Line>(text) {
                    Ok(line) => lines.push(HostLine {
                        host: player.node.clone(),
                        line,
                    }),
                    Err(error) => mishaps.push(format!("{} said `{text}`: {error}", player.who)),
                }
            }
            let complete = lines[before..]
                .last()
                .is_some_and(|said| matches!(said.line.event, Event::Done { .. }));
            if !complete {
                mishaps.push(format!(
                    "the report of {} does not end with `done`",
                    player.who
                ));
            }
        }
        lines
    }
}

/// Writes everything a run left into a directory.
fn keep(
    directory: &Path,
    record: &Record,
    residue: &Residue,
    captures: [&Frames; 2],
) -> anyhow::Result<()> {
    let texts = [
        ("rules.before", &residue.rules_before),
        ("rules.during", &residue.rules_during),
        ("rules.after", &residue.rules_after),
        ("ftwall.log", &residue.log),
    ];
    keep::write(directory, record, &texts)?;
    keep::write_captures(directory, captures)
}
