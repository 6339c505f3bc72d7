//! One office for each configuration, and what its gateway runs while it is loaded.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use lab::presets::{Office, office};
use lab::{Lab, Node, Process, Spec, Stream};
use rustix::param::clock_ticks_per_second;
use serde_json::Value;

use super::configuration::Configuration;
use super::ends::{Queued, READY};
use crate::gateway::backend;
use crate::gateway::queue::QueueReader;

/// Longest wait for a program to be ready or to end.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);
/// Longest wait for a daemon: `nft` takes minutes to list the million peers that it takes over.
const TAKING_OVER: Duration = Duration::from_secs(600);
/// What daemons that are measured are configured by, in a directory of the capsule's own: this machine's
/// files must not change what is measured, nor be changed.
const CONFIGURATION: &str = "/run/ftwall-bench/ftwall.toml";
const CONFIGURED: &str = "state_directory = \"\"\nhttp_listen = \"off\"\n";
/// The queue that takes everything; the daemon's has another number.
const EVERYTHING: &str = "7";

/// An office whose gateway has one configuration.
pub(super) struct Gateway {
    pub(super) configuration: Configuration,
    lab: Lab,
    program: PathBuf,
}

/// What a gateway runs during one measurement.
pub(super) struct Running<'a> {
    gateway: &'a Gateway,
    process: Option<Process>,
    processor_seconds: f64,
}

/// What was seen of it.
#[derive(Debug, Clone, Default)]
pub(super) struct Observed {
    /// Processor time of the process while it was loaded, in seconds.
    pub(super) processor_seconds: f64,
    /// The daemon's own statistics, where there was one.
    pub(super) statistics: Option<Value>,
}

impl Gateway {
    pub(super) fn build_all() -> anyhow::Result<Vec<Self>> {
        Configuration::ALL.into_iter().map(Self::build).collect()
    }

    pub(super) fn build(configuration: Configuration) -> anyhow::Result<Self> {
        let mut topology = office(&Office::default());
        // Thousands of connections a second must not fill the table of connections.
        topology.sysctl("gw", TIME_WAIT, "1")?;
        // One namespace stands for a thousand hosts where that many are asked for.
        let hosts = HOSTS.parse().expect("a literal");
        topology.owns("client1", hosts)?;
        // By one neighbour: the kernel's table of neighbours, one for all namespaces, ends at 1,024.
        topology.route("gw", hosts, Office::client_address(1))?;
        let gateway = Self {
            configuration,
            lab: topology.plan()?.apply()?,
            program: env::current_exe().context("the path of this program")?,
        };
        gateway.prepare()?;
        Ok(gateway)
    }

    /// First of the addresses that `client1` has besides its own.
    pub(super) const FIRST_HOST: &'static str = "10.77.128.1";

    fn prepare(&self) -> anyhow::Result<()> {
        let directory = Path::new(CONFIGURATION).parent().expect("it is in one");
        fs::create_dir_all(directory)
            .and_then(|()| fs::write(CONFIGURATION, CONFIGURED))
            .with_context(|| format!("writing {CONFIGURATION}"))?;
        match self.configuration {
            Configuration::Conntrack => self.command(&Spec::new("nft").arg(TRACK)),
            Configuration::QueueEverything => self.queue_everything(),
            Configuration::None | Configuration::Ftwall | Configuration::FtwallNfq => Ok(()),
        }
    }

    fn queue_everything(&self) -> anyhow::Result<()> {
        let backend = self.node("gw").enter(|| backend::choose(None))??;
        match backend.xt() {
            None => self.command(&Spec::new("nft").arg(QUEUE_BY_NFT)),
            Some(_) => {
                let rule = [
                    "-t",
                    "mangle",
                    "-A",
                    "FORWARD",
                    "-j",
                    "NFQUEUE",
                    "--queue-num",
                ];
                self.command(&Spec::new(backend.name()).args(rule).arg(EVERYTHING))
            }
        }
    }

    fn command(&self, spec: &Spec) -> anyhow::Result<()> {
        let output = self.node("gw").run(spec)?;
        ensure!(output.success(), "{spec}: {}", output.stderr.trim());
        Ok(())
    }

    pub(super) fn node(&self, name: &str) -> &Node {
        self.lab.node(name)
    }

    /// One of the ends in [`super::ends`].
    pub(super) fn end(&self, args: &[&str]) -> Spec {
        Spec::new(&self.program).arg("bench-end").args(args)
    }

    /// Starts an end that listens.
    pub(super) fn listen(&self, node: &str, args: &[&str]) -> anyhow::Result<Process> {
        let process = self.node(node).spawn(&self.end(args))?;
        process.wait_line(|line| line == READY, PATIENCE)?;
        Ok(process)
    }

    /// Runs an end until it says its numbers.
    pub(super) fn say<T: serde::de::DeserializeOwned>(
        &self,
        node: &str,
        args: &[&str],
    ) -> anyhow::Result<T> {
        let process = self.node(node).spawn(&self.end(args))?;
        numbers(process)
    }

    /// Starts what this gateway runs.
    pub(super) fn start(&self) -> anyhow::Result<Running<'_>> {
        let process = match self.configuration {
            Configuration::None | Configuration::Conntrack => None,
            Configuration::Ftwall | Configuration::FtwallNfq => Some(self.start_daemon()?),
            Configuration::QueueEverything => Some(self.read_queue(QueueReader::Netlink)?),
        };
        Ok(Running {
            gateway: self,
            process,
            processor_seconds: 0.0,
        })
    }

    /// Starts a program that accepts everything.
    pub(super) fn read_queue(&self, reader: QueueReader) -> anyhow::Result<Process> {
        self.listen("gw", &["queue-all", EVERYTHING, reader.name()])
    }

    /// A command of the product's that heeds rules, as if nothing was configured on this machine.
    pub(super) fn ftwall(&self, command: &[&str]) -> Spec {
        let inside = Office::LAN.to_string();
        let spec = Spec::new(&self.program).args(command);
        spec.args(["--config", CONFIGURATION, "--inside", &inside])
    }

    fn start_daemon(&self) -> anyhow::Result<Process> {
        let reader = self.configuration.daemon().unwrap_or_default();
        let spec = self
            .ftwall(&["run"])
            .args(["--queue-reader", reader.name()]);
        let process = self.node("gw").spawn(&spec)?;
        process.wait_line(|line| is_event(line, "ready"), TAKING_OVER)?;
        Ok(process)
    }
}

const TIME_WAIT: &str = "net.netfilter.nf_conntrack_tcp_timeout_time_wait";
/// Addresses of `client1`; see [`Gateway::FIRST_HOST`].
const HOSTS: &str = "10.77.128.0/21";
const TRACK: &str = "table inet bench {
    chain forward {
        type filter hook forward priority filter
        ct state invalid counter
    }
}";
const QUEUE_BY_NFT: &str = "table inet bench {
    chain forward {
        type filter hook forward priority mangle
        queue num 7
    }
}";

impl Running<'_> {
    /// Processor time is counted from here on.
    pub(super) fn begin(&mut self) -> anyhow::Result<()> {
        self.processor_seconds = self.processor_seconds()?;
        Ok(())
    }

    /// Processor time since [`Self::begin`], in seconds.
    pub(super) fn spent(&self) -> anyhow::Result<f64> {
        Ok(self.processor_seconds()? - self.processor_seconds)
    }

    /// The most memory its process has held so far, in KiB; nothing without a process.
    pub(super) fn most_memory(&self) -> anyhow::Result<Option<u64>> {
        let Some(process) = &self.process else {
            return Ok(None);
        };
        let file = format!("/proc/{}/status", process.id());
        let status = fs::read_to_string(&file).with_context(|| format!("reading {file}"))?;
        let most = most_memory_in(&status).with_context(|| format!("{file} has another shape"))?;
        Ok(Some(most))
    }

    /// Waits until the daemon has locked a host, where there is a daemon. Without it nothing is
    /// measured of a locked host.
    pub(super) fn wait_locked(&self) -> anyhow::Result<()> {
        if self.gateway.configuration.daemon().is_none() {
            return Ok(());
        }
        let process = self.process.as_ref().expect("a daemon was started");
        process
            .wait_line(|line| is_event(line, "client.locked"), PATIENCE)
            .context("the host was never locked")?;
        Ok(())
    }

    /// Ends it, and says what it has counted.
    pub(super) fn finish(mut self) -> anyhow::Result<Observed> {
        let processor_seconds = self.spent()?;
        let Some(mut process) = self.process.take() else {
            return Ok(Observed::default());
        };
        let stopped = process.stop(PATIENCE)?;
        ensure!(
            stopped.status.success() && !stopped.killed,
            "{} did not end well: {}",
            process.name(),
            process.text(Stream::Stderr).trim()
        );
        let said = process.text(Stream::Stdout);
        let statistics = said.lines().find(|line| is_event(line, "stats"));
        let statistics = statistics.and_then(|line| serde_json::from_str::<Value>(line).ok());
        Ok(Observed {
            processor_seconds,
            statistics: statistics.map(|line| line["ftwall"].clone()),
        })
    }

    fn processor_seconds(&self) -> anyhow::Result<f64> {
        let process = self.process.as_ref();
        process.map_or(Ok(0.0), |process| spent_by(process.id()))
    }
}

impl Observed {
    /// A number of the daemon's statistics, by its place there.
    pub(super) fn statistic(&self, place: &str) -> Option<f64> {
        self.statistics.as_ref()?.pointer(place)?.as_f64()
    }
}

/// The numbers of a reader that accepted everything, once it is asked to end.
pub(super) fn queued(mut process: Process) -> anyhow::Result<Queued> {
    process.stop(PATIENCE)?;
    last_line(&process)
}

/// The numbers of an end that ends by itself.
pub(super) fn numbers<T: serde::de::DeserializeOwned>(mut process: Process) -> anyhow::Result<T> {
    let status = process.wait_exit(PATIENCE)?;
    ensure!(
        status.success(),
        "{}: {}",
        process.name(),
        process.text(Stream::Stderr).trim()
    );
    last_line(&process)
}

fn last_line<T: serde::de::DeserializeOwned>(process: &Process) -> anyhow::Result<T> {
    let said = process.text(Stream::Stdout);
    let line = said.lines().last().unwrap_or_default();
    serde_json::from_str(line).with_context(|| format!("{} said `{line}`", process.name()))
}

fn is_event(line: &str, name: &str) -> bool {
    line.contains(&format!(r#""event_type":"{name}""#))
}

/// Processor time of a process and its threads (proc(5), fields 14 and 15), in seconds.
fn spent_by(process: u32) -> anyhow::Result<f64> {
    let file = format!("/proc/{process}/stat");
    let stat = fs::read_to_string(&file).with_context(|| format!("reading {file}"))?;
    let ticks = ticks_in(&stat).with_context(|| format!("{file} has another shape"))?;
    Ok(ticks as f64 / clock_ticks_per_second() as f64)
}

/// The program's name may hold anything, so fields are counted from its closing parenthesis.
fn ticks_in(stat: &str) -> Option<u64> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

/// Peak of the resident set (proc(5), `VmHWM`), in KiB.
fn most_memory_in(status: &str) -> Option<u64> {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processor_time_is_found_behind_any_name() {
        let stat = "7 (a ) b) S 1 7 7 0 -1 4194560 100 0 0 0 250 40 0 0 20 0 1 0 300";
        assert_eq!(ticks_in(stat), Some(290));
        assert_eq!(ticks_in("7 (cut"), None);
    }

    #[test]
    fn the_most_memory_is_read_off_its_line() {
        let status = "VmPeak:\t   9000 kB\nVmHWM:\t    8212 kB\nVmRSS:\t    7000 kB\n";
        assert_eq!(most_memory_in(status), Some(8212));
        assert_eq!(most_memory_in("Name:\tftwall\n"), None);
    }
}
