//! The stage in memory: the same scenarios on one virtual clock, without privileges.
//!
//! The simulator's own state machines talk over a small TCP/IP of this folder, across the gateway box
//! with the daemon's own rules and engine in it. What a run leaves is what it leaves in namespaces,
//! and the same judge reads it. A seed decides everything.
//!
//! | file | what it holds |
//! |---|---|
//! | `world.rs` | one run: everybody, everything, and the clock |
//! | `actors/` | the programs of a scenario, on virtual sockets |
//! | `sockets.rs`, `tcp.rs`, `packet.rs` | what a host's kernel does for them |
//! | `script.rs` | ordinary conversations, written down beforehand |
//! | `network.rs` | lines, and what is due when |
//! | `gateway.rs`, `ruleset.rs` | the gateway box: conntrack, NAT, rules, daemon |

mod actors;
pub mod gateway;
mod network;
mod packet;
pub mod ruleset;
mod script;
mod sockets;
mod tcp;
mod world;

use std::path::Path;

use anyhow::Context;

use super::keep::recording;
use super::{Played, site};
use crate::device::Device;
use crate::scenario::Scenario;
use world::Setting;

/// Both runs of a scenario, and what they took.
#[derive(Debug, Clone)]
pub struct Performance<'a> {
    /// The runs.
    pub played: Played<'a>,
    /// Packets that hosts and gateway sent in them.
    pub packets: u64,
}

/// Plays a scenario without a device and with one.
///
/// # Errors
/// When it cannot be played in memory: an option that has no meaning here, or rules that the
/// interpreter does not know.
pub fn play(scenario: &Scenario, device: Device, seed: u64) -> anyhow::Result<Performance<'_>> {
    perform(scenario, device, seed, 0, false)
}

/// Plays a scenario as [`play`] does, with other draws of what the seed of the actors leaves open: when
/// each program starts, how the line jitters, how long the kernel takes. Take 0 is [`play`]'s.
///
/// # Errors
/// As [`play`].
pub fn play_take(
    scenario: &Scenario,
    device: Device,
    seed: u64,
    take: u64,
) -> anyhow::Result<Performance<'_>> {
    perform(scenario, device, seed, take, false)
}

/// Plays a scenario and writes what both runs left into a directory.
///
/// # Errors
/// As [`play`], and when the directory cannot be written.
pub fn keep(
    scenario: &Scenario,
    device: Device,
    seed: u64,
    directory: &Path,
) -> anyhow::Result<()> {
    let Performance { played, .. } = perform(scenario, device, seed, 0, true)?;
    for (name, record) in [("off", &played.off), ("on", &played.on)] {
        let directory = directory.join(&*scenario.name).join(name);
        super::keep::write(&directory, record, &[])?;
        let evidence = &record.evidence;
        let [inside, outside] =
            [&evidence.inside, &evidence.outside].map(|frames| recording(frames));
        super::keep::write_captures(&directory, [&inside, &outside])?;
    }
    Ok(())
}

fn perform(
    scenario: &Scenario,
    device: Device,
    seed: u64,
    take: u64,
    records_all: bool,
) -> anyhow::Result<Performance<'_>> {
    let run = |device| {
        world::run(Setting {
            scenario,
            device,
            seed,
            take,
            records_all,
        })
    };
    let off = run(Device::None).context("without a device")?;
    let on = run(device).with_context(|| format!("with device {device}"))?;
    let played = Played {
        scenario,
        device,
        seed,
        site: site(scenario, seed)?,
        off: off.record,
        on: on.record,
    };
    Ok(Performance {
        played,
        packets: off.packets + on.packets,
    })
}
