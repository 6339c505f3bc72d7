//! The gateway's side of a run: the device under test, and the rules before and after it.

use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use lab::presets::Office;
use lab::{Node, Process, Spec, Stream};

use super::namespaces::{epoch_us, now};
use crate::binaries::Binaries;

use crate::device::{BLOCK_1214, Device, STRING_MATCH};
use crate::scenario::Outage;

/// Time for a device to be ready, or to be gone again.
const PATIENCE: Duration = Duration::from_secs(10);

/// A device that is on.
pub(super) struct Running<'a> {
    gateway: &'a Node,
    rules_before: String,
    daemon: Option<Daemon<'a>>,
}

/// ftwall's daemon, the first or, after an outage, a later one.
struct Daemon<'a> {
    program: &'a Path,
    options: &'a [String],
    process: Process,
    /// What those before it said.
    events: String,
    log: String,
}

/// What a device left behind once it was taken off.
#[derive(Debug, Default)]
pub(super) struct Residue {
    /// What went wrong, as sentences.
    pub(super) mishaps: Vec<String>,
    /// The rules before it was put on.
    pub(super) rules_before: String,
    /// The rules while it was on.
    pub(super) rules_during: String,
    /// The rules after it was taken off.
    pub(super) rules_after: String,
    /// ftwall's events, one JSON object per line.
    pub(super) events: String,
    /// ftwall's log.
    pub(super) log: String,
}

impl<'a> Running<'a> {
    /// Puts a device on the gateway and waits until it filters.
    pub(super) fn start(
        device: Device,
        gateway: &'a Node,
        binaries: &'a Binaries,
        options: &'a [String],
    ) -> anyhow::Result<Self> {
        let rules_before = rules(gateway)?;
        let mut daemon = None;
        match device {
            Device::None => {}
            Device::Ftwall => daemon = Some(Daemon::start(gateway, &binaries.ftwall, options)?),
            Device::Block1214 => load(gateway, "nft", &["-f"], BLOCK_1214)?,
            Device::StringMatch => load(gateway, "iptables-restore", &[], STRING_MATCH)?,
        }
        Ok(Self {
            gateway,
            rules_before,
            daemon,
        })
    }

    /// Lets the daemon die and another one take over, as often as the scenario says; does nothing to
    /// a device without one. Times count from `began`. Returns when nobody watched, in microseconds
    /// since the Unix epoch.
    pub(super) fn suffer(
        &mut self,
        outages: &[Outage],
        began: Instant,
    ) -> anyhow::Result<Vec<(u64, u64)>> {
        let mut blind_us = Vec::new();
        let Some(daemon) = &mut self.daemon else {
            return Ok(blind_us);
        };
        for outage in outages {
            sleep_until(began + outage.at);
            let from = epoch_us();
            daemon.die()?;
            sleep_until(began + outage.until);
            daemon.rise(self.gateway)?;
            blind_us.push((from, epoch_us()));
        }
        Ok(blind_us)
    }

    /// Takes the device off. Rules that belong to a device without a process stay with the
    /// gateway, which goes with the run; a device with one must tidy up after itself.
    pub(super) fn stop(self) -> anyhow::Result<Residue> {
        let mut residue = Residue {
            rules_during: rules(self.gateway)?,
            rules_before: self.rules_before,
            ..Residue::default()
        };
        if let Some(mut daemon) = self.daemon {
            let alive = daemon.process.is_running()?;
            let stopped = daemon.process.stop(PATIENCE)?;
            daemon.collect();
            residue.events = daemon.events;
            residue.log = daemon.log;
            residue.rules_after = rules(self.gateway)?;
            residue.mishaps = complaints(&residue, alive, stopped.killed, stopped.status.code());
        }
        Ok(residue)
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the scenario's own time: nothing happens at its end that could be waited for instead"
)]
pub(crate) fn sleep_until(instant: Instant) {
    thread::sleep(instant.saturating_duration_since(now()));
}

impl<'a> Daemon<'a> {
    fn start(gateway: &Node, program: &'a Path, options: &'a [String]) -> anyhow::Result<Self> {
        Ok(Self {
            program,
            options,
            process: start_ftwall(gateway, program, options)?,
            events: String::new(),
            log: String::new(),
        })
    }

    /// Without a chance to tidy up.
    fn die(&mut self) -> anyhow::Result<()> {
        self.process.kill().context("killing ftwall")?;
        self.collect();
        Ok(())
    }

    fn rise(&mut self, gateway: &Node) -> anyhow::Result<()> {
        self.process = start_ftwall(gateway, self.program, self.options)?;
        Ok(())
    }

    fn collect(&mut self) {
        self.events.push_str(&self.process.text(Stream::Stdout));
        self.log.push_str(&self.process.text(Stream::Stderr));
    }
}

fn complaints(residue: &Residue, alive: bool, killed: bool, code: Option<i32>) -> Vec<String> {
    let errors = residue
        .log
        .lines()
        .filter(|line| line.contains("ERROR"))
        .count();
    let last = residue.log.lines().last().unwrap_or_default();
    [
        (!alive).then(|| format!("ftwall ended by itself: {last}")),
        killed.then(|| "ftwall did not heed SIGTERM".to_owned()),
        (!killed && code != Some(0)).then(|| format!("ftwall ended with status {code:?}: {last}")),
        (residue.rules_after != residue.rules_before).then(|| {
            format!(
                "ftwall left rules behind: {}",
                difference(&residue.rules_before, &residue.rules_after)
            )
        }),
        (errors > 0).then(|| format!("ftwall logged {errors} errors")),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// The lines of `after` that `before` has not.
fn difference(before: &str, after: &str) -> String {
    let known: Vec<_> = before.lines().collect();
    let new: Vec<_> = after.lines().filter(|line| !known.contains(line)).collect();
    if new.is_empty() {
        "fewer than before".to_owned()
    } else {
        new.join(" | ")
    }
}

fn start_ftwall(gateway: &Node, program: &Path, options: &[String]) -> anyhow::Result<Process> {
    let inside = Office::LAN.to_string();
    let spec = Spec::new(program)
        .args(["run", "--inside", &inside])
        .args(options);
    let process = gateway.spawn(&spec)?;
    process
        .wait_line(|line| line.contains(r#""event_type":"ready""#), PATIENCE)
        .context("ftwall is not ready")?;
    Ok(process)
}

/// The gateway's rules as text, without counters.
fn rules(gateway: &Node) -> anyhow::Result<String> {
    let output = gateway.run(&Spec::new("nft").args(["-s", "list", "ruleset"]))?;
    ensure!(
        output.success(),
        "cannot list the gateway's rules: {}",
        output.stderr.trim()
    );
    Ok(output.stdout)
}

fn load(gateway: &Node, program: &str, options: &[&str], rules: &str) -> anyhow::Result<()> {
    let file = private_file("device.rules");
    std::fs::write(&file, rules).with_context(|| format!("writing {}", file.display()))?;
    let output = gateway.run(&Spec::new(program).args(options).arg(&file))?;
    ensure!(
        output.success(),
        "{program} refused the device's rules: {}",
        output.stderr.trim()
    );
    Ok(())
}

fn private_file(name: &str) -> PathBuf {
    lab::capsule::private_dir().join(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn residue(after: &str, log: &str) -> Residue {
        Residue {
            rules_before: "table inet admin".to_owned(),
            rules_after: after.to_owned(),
            log: log.to_owned(),
            ..Residue::default()
        }
    }

    #[test]
    fn a_device_that_ends_well_and_leaves_nothing_is_no_mishap() {
        let clean = residue("table inet admin", "INFO ended");
        assert_eq!(complaints(&clean, true, false, Some(0)), [""; 0]);
    }

    #[test]
    fn a_rule_left_behind_is_named() {
        let left = residue("table inet admin\ntable inet ftwall", "");
        let said = complaints(&left, true, false, Some(0));
        assert_eq!(said, ["ftwall left rules behind: table inet ftwall"]);
    }

    #[test]
    fn a_device_that_died_was_killed_or_logged_an_error_is_a_mishap() {
        let clean = residue("table inet admin", "");
        assert_eq!(complaints(&clean, false, false, Some(0)).len(), 1);
        assert_eq!(complaints(&clean, true, true, None).len(), 1);
        assert_eq!(complaints(&clean, true, false, Some(1)).len(), 1);
        let complaining = residue("table inet admin", "ERROR the queue is gone");
        assert_eq!(complaints(&complaining, true, false, Some(0)).len(), 1);
    }
}
