//! The gateway that lives through all rounds: its daemons, one after another, and what is done to it.

use std::cell::Cell;
use std::fs;
use std::net::Ipv4Addr;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::Duration;

use anyhow::{Context, ensure};
use lab::presets::Office;
use lab::{Lab, Node, Process, Signal, Spec, Stream};

use super::fault::{Fault, Incident};
use crate::device::Device;
use crate::stage::gateway::sleep_until;
use crate::stage::namespaces::{epoch_us, now};

/// How long a host stays locked after the last evidence against it.
pub(super) const LOCK_TIME: Duration = Duration::from_secs(120);

/// Time for a daemon to do what it was asked to. What it took is recorded; this only tells slow from never.
const PATIENCE: Duration = Duration::from_secs(30);

/// How long a learned peer is remembered: short, so that a soak sees many come and go.
const PEER_EXPIRY: &str = "1m";

/// The second address that the gateway has outside at times.
const OTHER_WAN: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 3);

/// The daemon of the moment, for whoever watches from another thread.
#[derive(Debug, Default)]
pub(super) struct Watched {
    /// Its process id; zero while there is none.
    pub(super) process: AtomicU32,
    /// Counts program images.
    pub(super) life: AtomicU32,
}

/// Where a daemon keeps what it keeps: everything in a place that goes with the capsule.
#[derive(Debug, Clone)]
pub(super) struct Place(PathBuf);

impl Place {
    /// Makes it.
    pub(super) fn new() -> anyhow::Result<Self> {
        let directory = lab::capsule::private_dir().join("soak");
        fs::create_dir_all(directory.join("state")).context("making a place for the daemon")?;
        Ok(Self(directory))
    }

    /// Where metrics are served.
    pub(super) fn metrics(&self) -> PathBuf {
        self.0.join("metrics.sock")
    }

    fn configuration(&self) -> PathBuf {
        self.0.join("ftwall.toml")
    }

    /// Undecided packets of anybody are dropped while no daemon can judge them. Versions differ in
    /// something that changes rules and concerns nobody.
    fn write_configuration(&self, version: u8) -> anyhow::Result<()> {
        let Self(directory) = self;
        let text = format!(
            "inside = [\"{}\"]\n\
             when_down = \"drop\"\n\
             lock_time = \"{}s\"\n\
             peer_expiry = \"{PEER_EXPIRY}\"\n\
             exempt = [\"10.77.250.{version}\"]\n\
             state_directory = \"{directory}/state\"\n\
             control_socket = \"{directory}/control.sock\"\n\
             http_listen = \"{metrics}\"\n",
            Office::LAN,
            LOCK_TIME.as_secs(),
            directory = directory.display(),
            metrics = self.metrics().display(),
        );
        fs::write(self.configuration(), text).context("writing the configuration")
    }
}

/// A gateway in a network that stands.
pub(super) struct Gateway<'a> {
    node: &'a Node,
    outside: &'a Node,
    address: Ipv4Addr,
    daemon: Option<Daemon<'a>>,
}

impl<'a> Gateway<'a> {
    /// Puts the device on, if it is ftwall; other devices stay off.
    pub(super) fn start(
        lab: &'a Lab,
        device: Device,
        program: &'a Path,
        place: &'a Place,
        watched: &'a Watched,
    ) -> anyhow::Result<Self> {
        let node = lab.node("gw");
        let daemon = (device == Device::Ftwall)
            .then(|| Daemon::start(node, program, place, watched))
            .transpose()?;
        Ok(Self {
            node,
            outside: lab.node("out"),
            address: Office::GATEWAY_WAN,
            daemon,
        })
    }

    /// Does something to it and waits until it is whole again; `outage` is how long that takes where
    /// nothing else decides.
    pub(super) fn suffer(&mut self, fault: Fault, outage: Duration) -> anyhow::Result<Incident> {
        let at_us = epoch_us();
        match fault {
            Fault::LinkFlap => self.flap(outage),
            Fault::NewAddress => self.move_outside(),
            Fault::Kill | Fault::Stop | Fault::HandOver | Fault::Reload | Fault::Flush => {
                let daemon = self.daemon.as_mut();
                let daemon = daemon.context("there is no daemon to do something to")?;
                let done = daemon.suffer(self.node, fault, outage);
                done.with_context(|| daemon.status(self.node))
            }
        }
        .with_context(|| fault.name())?;
        Ok(Incident {
            fault,
            at_us,
            over_us: epoch_us(),
            clean_hosts_waited_us: 0,
            refused_after_us: 0,
        })
    }

    fn flap(&self, outage: Duration) -> anyhow::Result<()> {
        let until = now() + outage;
        ip(self.node, "link set wan0 down")?;
        sleep_until(until);
        ip(self.node, "link set wan0 up")?;
        self.restore_route()
    }

    fn move_outside(&mut self) -> anyhow::Result<()> {
        let next = match self.address {
            Office::GATEWAY_WAN => OTHER_WAN,
            _ => Office::GATEWAY_WAN,
        };
        ip(
            self.node,
            &format!("address del {}/24 dev wan0", self.address),
        )?;
        ip(self.node, &format!("address add {next}/24 dev wan0"))?;
        self.address = next;
        self.restore_route()?;
        let back = format!("route replace {} via {next}", Office::LAN);
        ip(self.outside, &back)
    }

    /// The kernel forgets routes over a line that goes down.
    fn restore_route(&self) -> anyhow::Result<()> {
        ip(
            self.node,
            &format!("route replace default via {}", Office::OUTSIDE),
        )
    }

    /// Takes the device off; returns the daemons' log, and what was wrong with them, as sentences.
    pub(super) fn stop(self) -> anyhow::Result<(String, Vec<String>)> {
        let Some(daemon) = self.daemon else {
            return Ok(Default::default());
        };
        let (log, mut complaints) = daemon.stop()?;
        let rules = run(self.node, "nft", "list ruleset")?;
        if rules.to_lowercase().contains("ftwall") {
            complaints.push("ftwall left rules behind".to_owned());
        }
        Ok((log, complaints))
    }
}

fn ip(node: &Node, words: &str) -> anyhow::Result<()> {
    run(node, "ip", words).map(drop)
}

fn run(node: &Node, program: &str, words: &str) -> anyhow::Result<String> {
    let output = node.run(&Spec::new(program).args(words.split(' ')))?;
    ensure!(
        output.success(),
        "{program} {words}: {}",
        output.stderr.trim()
    );
    Ok(output.stdout)
}

/// The daemon of the moment, and what those before it said.
struct Daemon<'a> {
    program: &'a Path,
    place: &'a Place,
    watched: &'a Watched,
    process: Process,
    manager: Manager,
    /// Events of this process that were waited for, by type.
    heard: [u32; 2],
    version: u8,
    log: String,
}

/// Events of a daemon that are waited for.
#[derive(Clone, Copy)]
enum Awaited {
    Ready,
    RulesRestored,
}

impl Awaited {
    fn event_type(self) -> &'static str {
        match self {
            Self::Ready => r#""event_type":"ready""#,
            Self::RulesRestored => r#""event_type":"rules.restored""#,
        }
    }
}

impl<'a> Daemon<'a> {
    fn start(
        node: &Node,
        program: &'a Path,
        place: &'a Place,
        watched: &'a Watched,
    ) -> anyhow::Result<Self> {
        place.write_configuration(0)?;
        let manager = Manager::listen(&place.0.join("notify.sock"))?;
        let process = node.spawn(&Self::spec(program, place, &manager))?;
        let mut daemon = Self {
            program,
            place,
            watched,
            process,
            manager,
            heard: [0; 2],
            version: 0,
            log: String::new(),
        };
        daemon.greet()?;
        Ok(daemon)
    }

    fn spec(program: &Path, place: &Place, manager: &Manager) -> Spec {
        Spec::new(program)
            .args(["run", "--config"])
            .arg(place.configuration())
            .env("NOTIFY_SOCKET", &manager.socket)
    }

    fn suffer(&mut self, node: &Node, fault: Fault, outage: Duration) -> anyhow::Result<()> {
        match fault {
            Fault::Kill => self.die_for(node, outage),
            Fault::Stop => {
                let until = now() + outage;
                self.process.signal(Signal::STOP)?;
                sleep_until(until);
                Ok(self.process.signal(Signal::CONT)?)
            }
            Fault::HandOver => {
                self.process.signal(Signal::USR2)?;
                self.greet()
            }
            Fault::Reload => {
                self.version = 1 - self.version;
                self.place.write_configuration(self.version)?;
                self.manager.forget();
                self.process.signal(Signal::HUP)?;
                self.manager.wait_said("READY=1")
            }
            Fault::Flush => {
                run(node, "nft", "flush ruleset")?;
                self.wait_event(Awaited::RulesRestored)
            }
            Fault::LinkFlap | Fault::NewAddress => Ok(()),
        }
    }

    fn die_for(&mut self, node: &Node, outage: Duration) -> anyhow::Result<()> {
        let until = now() + outage;
        self.watched.process.store(0, Ordering::Relaxed);
        self.process.kill().context("killing ftwall")?;
        self.collect();
        sleep_until(until);
        self.process = node.spawn(&Self::spec(self.program, self.place, &self.manager))?;
        self.heard = [0; 2];
        self.greet()
    }

    /// What it says of itself, for those who wonder why it does not do what is waited for.
    fn status(&self, node: &Node) -> String {
        let socket = self.place.0.join("control.sock");
        let spec = Spec::new(self.program).args(["status", "--socket"]);
        match node.run(&spec.arg(socket)) {
            Ok(said) => said.stdout + &said.stderr,
            Err(error) => error.to_string(),
        }
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

    fn stop(mut self) -> anyhow::Result<(String, Vec<String>)> {
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

/// A service manager, as far as a daemon speaks to one.
struct Manager {
    socket: PathBuf,
    said: Receiver<String>,
}

impl Manager {
    fn listen(socket: &Path) -> anyhow::Result<Self> {
        let ear = UnixDatagram::bind(socket).context("listening to the daemon")?;
        let (tell, said) = mpsc::channel();
        // Ends when nobody wants to know any more, or with the capsule.
        thread::spawn(move || {
            let mut octets = [0; 1024];
            while let Ok(len) = ear.recv(&mut octets) {
                let words = String::from_utf8_lossy(&octets[..len]).into_owned();
                if tell.send(words).is_err() {
                    break;
                }
            }
        });
        Ok(Self {
            socket: socket.to_owned(),
            said,
        })
    }

    fn forget(&self) {
        self.said.try_iter().for_each(drop);
    }

    fn wait_said(&self, wanted: &str) -> anyhow::Result<()> {
        let end = now() + PATIENCE;
        loop {
            let left = end.saturating_duration_since(now());
            let said = self.said.recv_timeout(left);
            let said = said.with_context(|| format!("the daemon never said {wanted}"))?;
            if said.lines().any(|line| line == wanted) {
                return Ok(());
            }
        }
    }
}
