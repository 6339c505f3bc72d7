//! The daemons of a gateway, one after another, and what is done to them.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Write as _;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use lab::{Node, Process, Signal, Spec, Stream};
use rustix::io::{FdFlags, fcntl_setfd};
use rustix::net::sockopt;

use super::fault::Effect;
use super::flood::Flood;
use super::manager::Manager;
use super::place::Place;
use super::{damage, limit, samples};
use crate::stage::gateway::sleep_until;
use crate::stage::namespaces::now;

/// Time for a daemon to do what it was asked to. What it took is recorded; this only tells slow from never.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

/// How often another configuration is read.
const RELOADS: u32 = 1_000;

/// Time for a daemon that may not run to say so.
const REFUSED_WITHIN: Duration = Duration::from_secs(10);

/// Hosts that are blocked by hand: what is written of them is more than a page of memory.
const MUCH_TO_KEEP: u8 = 60;

/// Octets of memory that a daemon may take beyond what it has.
const SPARE_MEMORY: u64 = 64 << 10;

/// Octets of a buffer that has room for a few packets.
const SMALL_BUFFER: usize = 16 << 10;

/// Packets that found a queue full.
const QUEUE_FULL: &str = "ftwall_queue_kernel_dropped_total";

/// Packets that found a socket's buffer full.
const BUFFER_FULL: &str = "ftwall_queue_user_dropped_total";

/// The file that a clock is set by.
pub(crate) const CLOCK: &str = "clock";

/// The daemon of the moment, for whoever watches from another thread.
#[derive(Debug, Default)]
pub(crate) struct Watched {
    /// Its process id; zero while there is none.
    pub(super) process: AtomicU32,
    /// Counts program images.
    pub(super) life: AtomicU32,
}

/// The daemon of the moment, and what those before it said.
pub(super) struct Daemon<'a> {
    node: &'a Node,
    program: &'a Path,
    place: &'a Place,
    watched: &'a Watched,
    process: Process,
    manager: Manager,
    /// Events of this process that were waited for, by type.
    heard: [u32; 3],
    version: u8,
    log: String,
}

/// Events of a daemon that are waited for.
#[derive(Clone, Copy)]
enum Awaited {
    Ready,
    RulesRestored,
    StateUnwritable,
}

impl Awaited {
    fn event_type(self) -> &'static str {
        match self {
            Self::Ready => r#""event_type":"ready""#,
            Self::RulesRestored => r#""event_type":"rules.restored""#,
            Self::StateUnwritable => r#""event_type":"state.unwritable""#,
        }
    }
}

impl<'a> Daemon<'a> {
    /// Starts the first and waits until it filters.
    pub(super) fn start(
        node: &'a Node,
        program: &'a Path,
        place: &'a Place,
        watched: &'a Watched,
    ) -> anyhow::Result<Self> {
        place.write_configuration(0)?;
        let manager = Manager::listen(&place.file("notify.sock"), place.has_store())?;
        let process = node.spawn(&Self::spec(program, place, &manager))?;
        let mut daemon = Self {
            node,
            program,
            place,
            watched,
            process,
            manager,
            heard: [0; 3],
            version: 0,
            log: String::new(),
        };
        daemon.greet()?;
        Ok(daemon)
    }

    fn spec(program: &Path, place: &Place, manager: &Manager) -> Spec {
        let spec = place.spec(program);
        spec.env("NOTIFY_SOCKET", &manager.socket)
    }

    /// Is killed, and another one started a while later.
    pub(super) fn die_for(&mut self, outage: Duration) -> anyhow::Result<Effect> {
        let until = now() + outage;
        self.end()?;
        sleep_until(until);
        let effect = Effect::ceased();
        self.rise()?;
        Ok(effect)
    }

    /// Is stopped for a while.
    pub(super) fn stop_for(&mut self, outage: Duration) -> anyhow::Result<Effect> {
        let until = now() + outage;
        self.process.signal(Signal::STOP)?;
        sleep_until(until);
        self.process.signal(Signal::CONT)?;
        Ok(Effect::ceased())
    }

    /// Hands over to a successor in its own process.
    pub(super) fn hand_over(&mut self) -> anyhow::Result<Effect> {
        self.process.signal(Signal::USR2)?;
        let effect = Effect::ceased();
        self.greet()?;
        Ok(effect)
    }

    /// Reads another configuration.
    pub(super) fn reload(&mut self) -> anyhow::Result<Effect> {
        let effect = Effect::ceased();
        self.read_another()?;
        Ok(effect)
    }

    /// Puts rules back that somebody takes away.
    pub(super) fn lose_rules(
        &mut self,
        take: &dyn Fn(&Node) -> anyhow::Result<()>,
    ) -> anyhow::Result<Effect> {
        take(self.node)?;
        let effect = Effect::ceased();
        self.wait_event(Awaited::RulesRestored)?;
        Ok(effect)
    }

    /// Reads one configuration after another.
    pub(super) fn reload_often(&mut self) -> anyhow::Result<Effect> {
        let began = now();
        for _ in 0..RELOADS {
            self.read_another()?;
        }
        let took = now().saturating_duration_since(began).as_secs_f64();
        Ok(Effect::ceased().noting(format!("{RELOADS} reloads took {took:.1} s")))
    }

    /// Puts rules of iptables back, if there are any of its own.
    pub(super) fn lose_iptables(&mut self) -> anyhow::Result<Effect> {
        let ready = self.process.text(Stream::Stdout);
        let own = ["iptables-nft", "iptables-legacy"];
        let own = own
            .into_iter()
            .find(|own| ready.contains(&format!(r#""backend":"{own}""#)));
        let restore = format!("{}-restore", own.unwrap_or("iptables-nft"));
        damage::rewrite_iptables(self.node, &restore)?;
        let effect = Effect::ceased();
        if own.is_none() {
            return Ok(effect.noting("the daemon has no rule in iptables here"));
        }
        self.wait_event(Awaited::RulesRestored)?;
        Ok(effect)
    }

    /// Goes on while others are started and have to refuse: one on the same queues, one on others.
    pub(super) fn refuse_others(&mut self) -> anyhow::Result<Effect> {
        let mut effect = Effect::ceased();
        for queue in ["0", "40"] {
            let spec = self.place.spec(self.program).args(["--queue", queue]);
            let other = self.node.run_within(&spec, REFUSED_WITHIN);
            let other = other.with_context(|| format!("a second daemon on queue {queue}"))?;
            ensure!(
                !other.success(),
                "a second daemon on queue {queue} ended well"
            );
            let last = other.stderr.lines().last().unwrap_or_default();
            effect = effect.noting(format!("on queue {queue} the second said: {last}"));
        }
        Ok(effect)
    }

    /// Has no room on its disk for a while.
    pub(super) fn fill_disk_for(&mut self, outage: Duration) -> anyhow::Result<Effect> {
        let until = now() + outage;
        let filler = self.place.state().join("filler");
        let mut file = File::create(&filler).context("filling the disk")?;
        // Ends when there is no more room.
        while file.write_all(&[0; 4096]).is_ok() {}
        drop(file);
        self.have_something_to_keep()?;
        self.wait_event(Awaited::StateUnwritable)?;
        sleep_until(until);
        fs::remove_file(&filler).context("making room on the disk")?;
        Ok(Effect::ceased().noting("the daemon said that it cannot write"))
    }

    /// Blocks hosts that nobody has until that is more than a page.
    fn have_something_to_keep(&self) -> anyhow::Result<()> {
        for host in 1..=MUCH_TO_KEEP {
            let host = format!("10.77.251.{host}");
            let spec = Spec::new(self.program).args(["block", &host, "--for", "1h", "--socket"]);
            let said = self.node.run(&spec.arg(self.place.control()))?;
            ensure!(said.success(), "block: {}", said.stderr);
        }
        Ok(())
    }

    /// Dies, and its successor may not write for a while.
    pub(super) fn lose_disk_for(&mut self, outage: Duration) -> anyhow::Result<Effect> {
        self.end()?;
        let state = self.place.state().display().to_string();
        mount(&["-t", "tmpfs", "-o", "ro", "tmpfs", &state])?;
        self.rise()?;
        let until = now() + outage;
        self.wait_event(Awaited::StateUnwritable)?;
        sleep_until(until);
        mount(&["-o", "remount,rw", &state])?;
        Ok(Effect::ceased().noting("the daemon said that it cannot write"))
    }

    /// May open nothing more for a while, and is asked to do something that needs it.
    pub(super) fn run_out_of_descriptors_for(
        &mut self,
        outage: Duration,
    ) -> anyhow::Result<Effect> {
        let until = now() + outage;
        let process = self.process.id();
        let open = fs::read_dir(format!("/proc/{process}/fd"))?.count();
        let before = limit::descriptors(process, u64::try_from(open).ok())?;
        self.read_another()?;
        sleep_until(until);
        limit::descriptors(process, before)?;
        let effect = Effect::ceased();
        self.read_another()?;
        Ok(effect.noting(format!("it had {open} descriptors and no more")))
    }

    /// Gets no more memory for a while although there is more and more to remember. It may die of that, and
    /// is started again then.
    pub(super) fn run_out_of_memory_for(
        &mut self,
        outage: Duration,
        flood: &Flood,
    ) -> anyhow::Result<Effect> {
        let until = now() + outage;
        let process = self.process.id();
        let most = limit::memory_used(process)? + SPARE_MEMORY;
        limit::memory(process, Some(most))?;
        flood.send()?;
        // It may be too far gone to answer.
        let _ = self.process.signal(Signal::HUP);
        sleep_until(until);
        if self.process.is_running()? {
            limit::memory(process, None)?;
            let effect = Effect::ceased();
            self.read_another()?;
            return Ok(effect.noting("it went on without"));
        }
        self.collect();
        let effect = Effect::ceased();
        self.rise()?;
        Ok(effect.noting("it died, and was started again"))
    }

    /// Stands still while more comes than its queue holds.
    pub(super) fn overflow(&mut self, flood: &Flood) -> anyhow::Result<Effect> {
        self.miss(flood, QUEUE_FULL, "found the queue full")
    }

    /// The same where the queues' sockets have hardly any room.
    pub(super) fn overrun(&mut self, flood: &Flood) -> anyhow::Result<Effect> {
        let queues = self.manager.take_store();
        ensure!(
            !queues.is_empty(),
            "the daemon has left no queue in the store"
        );
        for queue in queues.values() {
            sockopt::set_socket_recv_buffer_size(queue, SMALL_BUFFER)
                .context("making a buffer smaller")?;
        }
        self.miss(flood, BUFFER_FULL, "found the socket's buffer full")
    }

    fn miss(&mut self, flood: &Flood, counter: &str, what: &str) -> anyhow::Result<Effect> {
        let before = self.counted(&[counter])?;
        self.pause()?;
        flood.send()?;
        self.go_on()?;
        let effect = Effect::ceased();
        self.await_counted(&[counter], before)?;
        let missed = self.counted(&[counter])? - before;
        Ok(effect.noting(format!("{missed} packets {what}, and were counted")))
    }

    /// Is stopped until told otherwise.
    pub(super) fn pause(&self) -> anyhow::Result<()> {
        Ok(self.process.signal(Signal::STOP)?)
    }

    /// Goes on.
    pub(super) fn go_on(&self) -> anyhow::Result<()> {
        Ok(self.process.signal(Signal::CONT)?)
    }

    /// Is left with one worker that moves, the other being held up by a debugger.
    pub(super) fn hold_worker_for(&mut self, outage: Duration) -> anyhow::Result<Effect> {
        let until = now() + outage;
        let thread = thread_called(self.process.id(), "worker-0")?;
        let lasting = format!("inject=all:delay_enter={}", outage.as_micros());
        let spec = Spec::new("strace").args(["-qq", "-o", "/dev/null", "-e", &lasting, "-p"]);
        let mut debugger = self.node.spawn(&spec.arg(thread.to_string()))?;
        let held = format!("/proc/{}/task/{thread}/stat", self.process.id());
        while !fs::read_to_string(&held)?.contains(") t ") {
            ensure!(now() < until, "no debugger has come");
            thread::yield_now();
        }
        sleep_until(until);
        debugger.kill()?;
        Ok(Effect::ceased())
    }

    /// Sees the system's clock being set, once forward and once back.
    pub(super) fn set_clock(&mut self, outage: Duration) -> anyhow::Result<Effect> {
        for jump in ["+7200", "-3600"] {
            let until = now() + outage;
            fs::write(self.place.file(CLOCK), jump).context("setting the clock")?;
            sleep_until(until);
        }
        Ok(Effect::ceased())
    }

    /// The sum of some counters on its page.
    pub(super) fn counted(&self, families: &[&str]) -> anyhow::Result<u64> {
        let page = samples::page(&self.place.metrics(), PATIENCE).context("reading metrics")?;
        Ok(samples::sum(&page, families))
    }

    /// Waits until counters have moved on.
    pub(super) fn await_counted(&self, families: &[&str], from: u64) -> anyhow::Result<()> {
        let end = now() + PATIENCE;
        while self.counted(families)? <= from {
            ensure!(now() < end, "nothing was counted: {families:?}");
        }
        Ok(())
    }

    fn end(&mut self) -> anyhow::Result<()> {
        self.watched.process.store(0, Ordering::Relaxed);
        self.process.kill().context("killing ftwall")?;
        self.collect();
        Ok(())
    }

    /// The next one, which finds what the service manager has kept.
    fn rise(&mut self) -> anyhow::Result<()> {
        let store = self.manager.take_store();
        let spec = Self::spec(self.program, self.place, &self.manager);
        let spec = if store.is_empty() {
            spec
        } else {
            self.passing(&store)?
        };
        self.process = self.node.spawn(&spec)?;
        drop(store);
        self.heard = [0; 3];
        self.greet()
    }

    /// As `sd_listen_fds(3)` has it: from descriptor 3 on, and only a shell knows its process id in time.
    fn passing(&self, store: &BTreeMap<String, OwnedFd>) -> anyhow::Result<Spec> {
        let mut shell = String::new();
        for (number, queue) in (3..).zip(store.values()) {
            fcntl_setfd(queue, FdFlags::empty()).context("passing on a descriptor")?;
            shell += &format!("exec {number}<&{}; ", queue.as_raw_fd());
        }
        let names = store.keys().map(String::as_str).collect::<Vec<_>>();
        shell += &format!(
            "LISTEN_PID=$$ LISTEN_FDS={} LISTEN_FDNAMES={} exec \"$@\"",
            store.len(),
            names.join(":")
        );
        let spec = Spec::new("bash").args(["-c", &shell, "bash"]);
        let spec = spec.arg(self.program).args(["run", "--config"]);
        let spec = spec.arg(self.place.configuration());
        Ok(self
            .place
            .equip(spec)
            .env("NOTIFY_SOCKET", &self.manager.socket))
    }

    fn read_another(&mut self) -> anyhow::Result<()> {
        self.version = 1 - self.version;
        self.place.write_configuration(self.version)?;
        self.manager.forget();
        self.process.signal(Signal::HUP)?;
        self.manager.wait_said("READY=1", PATIENCE)
    }

    /// What it says of itself, for those who wonder why it does not do what is waited for.
    pub(super) fn status(&self) -> String {
        match self.ask_status() {
            Ok((_, said)) => said,
            Err(error) => error.to_string(),
        }
    }

    /// Waits until it says of itself that nothing is wrong.
    pub(super) fn await_health(&self) -> anyhow::Result<()> {
        let end = now() + PATIENCE;
        loop {
            // Asking takes time enough.
            let (is_well, said) = self.ask_status()?;
            if is_well {
                return Ok(());
            }
            if now() >= end {
                bail!("the daemon is not well: {said}");
            }
        }
    }

    fn ask_status(&self) -> anyhow::Result<(bool, String)> {
        let spec = Spec::new(self.program).args(["status", "--socket"]);
        let said = self.node.run(&spec.arg(self.place.control()))?;
        Ok((said.success(), said.stdout + &said.stderr))
    }

    /// Waits until a program that has begun filters.
    fn greet(&mut self) -> anyhow::Result<()> {
        self.wait_event(Awaited::Ready)?;
        self.watched.life.fetch_add(1, Ordering::Relaxed);
        let process = self.process.id();
        self.watched.process.store(process, Ordering::Relaxed);
        Ok(())
    }

    /// Waits for the next event of a type.
    fn wait_event(&mut self, awaited: Awaited) -> anyhow::Result<()> {
        let heard = &mut self.heard[awaited as usize];
        // Each line is looked at once, from the first on.
        let seen = Cell::new(0);
        let is_next = |line: &str| {
            seen.set(seen.get() + u32::from(line.contains(awaited.event_type())));
            seen.get() > *heard
        };
        self.process.wait_line(is_next, PATIENCE)?;
        *heard += 1;
        Ok(())
    }

    fn collect(&mut self) {
        self.log.push_str(&self.process.text(Stream::Stderr));
    }

    /// Ends it; returns the log of all, and what was wrong with them, as sentences.
    pub(super) fn stop(mut self) -> anyhow::Result<(String, Vec<String>)> {
        let mut complaints = Vec::new();
        self.watched.process.store(0, Ordering::Relaxed);
        if !self.process.is_running()? {
            complaints.push("ftwall ended by itself".to_owned());
        }
        let stopped = self.process.stop(PATIENCE)?;
        self.collect();
        if stopped.killed || stopped.status.code() != Some(0) {
            complaints.push(format!("ftwall did not end well: {}", stopped.status));
        }
        let errors = self.log.lines().filter(|line| line.contains("ERROR"));
        match errors.count() {
            0 => {}
            count => complaints.push(format!("ftwall logged {count} errors")),
        }
        Ok((self.log, complaints))
    }
}

/// The number of a thread by its name.
fn thread_called(process: u32, name: &str) -> anyhow::Result<u32> {
    for entry in fs::read_dir(format!("/proc/{process}/task"))? {
        let path = entry?.path();
        if fs::read_to_string(path.join("comm"))?.trim() == name {
            let number = path.file_name().and_then(OsStr::to_str).unwrap_or_default();
            return number.parse().context("the number of a thread");
        }
    }
    bail!("no thread is called {name}")
}

/// Mounts something where only this capsule sees it.
pub(crate) fn mount(arguments: &[&str]) -> anyhow::Result<()> {
    let output = Command::new("mount").args(arguments).output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success(),
        "mount {arguments:?}: {}",
        said.trim()
    );
    Ok(())
}
