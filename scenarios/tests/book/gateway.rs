//! The gateway on which the book's commands are typed: the lab's, with a configuration of its own, two
//! clients inside and 200 peers outside.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use lab::capsule::private_dir;
use lab::presets::{Office, office};
use lab::{Lab, Process, Spec};
use scenarios::binaries::Binaries;

use crate::chapter::{Typed, matches};

/// How long a command of the book may take, and what it waits for.
const PATIENCE: Duration = Duration::from_secs(60);
const CONFIGURATION: &str = "/etc/ftwall";
const POPULATION: [&str; 4] = ["--population-seed", "7", "--population", "200"];

/// A gateway and what runs around it.
pub(crate) struct Place {
    lab: Lab,
    binaries: Binaries,
    daemon: Option<Process>,
    /// Hosts inside and outside, the latest last.
    hosts: Vec<Process>,
}

impl Place {
    /// Builds the network, without a daemon and without a configuration.
    pub(crate) fn build() -> Self {
        own_etc();
        let plan = office(&Office::default()).plan().expect("the preset holds");
        let lab = plan.apply().expect("capsules can build it");
        let binaries = Binaries::find().unwrap_or_else(|missing| panic!("{missing}"));
        fs::create_dir_all("/run/ftwall").expect("/run is the capsule's own");
        Self {
            lab,
            binaries,
            daemon: None,
            hosts: Vec::new(),
        }
    }

    /// Writes a file of the configuration.
    pub(crate) fn write(&self, name: &str, text: &str) {
        let file = Path::new(CONFIGURATION).join(name);
        fs::create_dir_all(file.parent().expect("it is in a directory")).expect("it is our /etc");
        fs::write(file, text).expect("it is our /etc");
    }

    /// Types a command; panics if it does not say what the book says.
    pub(crate) fn try_out(&mut self, at: &str, typed: &Typed) {
        let words: Vec<_> = typed.command.split_whitespace().collect();
        let (said, code) = match words[..] {
            ["systemctl", ref verbs @ .., "ftwall"] => (self.systemctl(at, verbs), 0),
            _ => self.shell(&typed.command),
        };
        let lines: Vec<_> = said.lines().map(str::trim_end).collect();
        assert!(
            matches(&typed.says, &lines),
            "{at}: `{}` says otherwise:\n{said}",
            typed.command
        );
        assert_eq!(code, typed.code, "{at}: `{}`:\n{said}", typed.command);
    }

    /// Lets something happen in the network that the book speaks of.
    pub(crate) fn let_happen(&mut self, at: &str, happening: &str) {
        match happening {
            "a Kazaa client appears" => self.start_client("client1", "10.77.1.1"),
            "another Kazaa client appears" => self.start_client("client2", "10.77.1.2"),
            _ => self.await_event(at, happening),
        }
    }

    fn await_event(&self, at: &str, awaited: &str) {
        if let Some(event) = awaited.strip_prefix("the event ") {
            let daemon = self.daemon.as_ref().expect("the chapter starts it before");
            wait_event(at, daemon, event);
        } else if let Some(event) = awaited.strip_prefix("the file of events has ") {
            wait_event(at, &self.follow_events(), event);
        } else {
            panic!("{at}: nobody knows how to let {awaited:?} happen");
        }
    }

    fn follow_events(&self) -> Process {
        let spec =
            Spec::new(&self.binaries.ftwall).args(["events", "--follow", "--output", "json"]);
        let follower = self.lab.node("gw").spawn(&spec);
        follower.expect("the program is there")
    }

    /// Ends the daemon if the chapter has not done so.
    pub(crate) fn end(mut self) {
        self.hosts.clear();
        self.stop();
    }

    fn shell(&self, command: &str) -> (String, i32) {
        let spec = Spec::new("bash")
            .args(["-c", &format!("exec 2>&1\n{command}")])
            .env("PATH", self.path())
            .env("COLUMNS", "100")
            .dir(private_dir());
        let output = self.lab.node("gw").run_within(&spec, PATIENCE);
        let output = output.unwrap_or_else(|error| panic!("{command}: {error}"));
        (output.stdout, output.status.code().unwrap_or(-1))
    }

    /// What systemd does with the unit, whose PID 1 a capsule does not have.
    fn systemctl(&mut self, at: &str, verbs: &[&str]) -> String {
        match verbs {
            ["start"] | ["enable", "--now"] => self.start(),
            ["restart"] => {
                self.stop();
                self.start();
            }
            ["stop"] | ["disable", "--now"] => self.stop(),
            ["reload"] => {
                let (said, code) = self.shell("ftwall reload");
                assert_eq!(code, 0, "{at}: {said}");
            }
            _ => panic!("{at}: systemctl {verbs:?} is not known here"),
        }
        String::new()
    }

    fn start(&mut self) {
        let spec = Spec::new(&self.binaries.ftwall)
            .arg("run")
            .env("STATE_DIRECTORY", private_dir().join("state"));
        let daemon = self.lab.node("gw").spawn(&spec);
        let daemon = daemon.expect("the program is there");
        daemon
            .wait_line(|line| line.contains("\"event_type\":\"ready\""), PATIENCE)
            .unwrap_or_else(|error| panic!("{error}"));
        self.daemon = Some(daemon);
    }

    fn stop(&mut self) {
        if let Some(mut daemon) = self.daemon.take() {
            let stopped = daemon.stop(PATIENCE).expect("it listens to signals");
            assert!(stopped.status.success(), "{stopped:?}");
        }
    }

    fn start_client(&mut self, node: &str, address: &str) {
        if self.hosts.is_empty() {
            let peers = Spec::new(&self.binaries.simulator)
                .arg("peers")
                .args(POPULATION);
            self.start_host("out", &peers);
        }
        let client = Spec::new(&self.binaries.simulator)
            .args(["client", "--profile", "kazaa", "--seed", "7"])
            .args(["--bind", address, "--duration", "600s"])
            .args(POPULATION);
        self.start_host(node, &client);
    }

    fn start_host(&mut self, node: &str, spec: &Spec) {
        let host = self.lab.node(node).spawn(spec);
        let host = host.expect("the program is there");
        host.wait_line(|line| line.contains("\"event\":\"ready\""), PATIENCE)
            .unwrap_or_else(|error| panic!("{error}"));
        self.hosts.push(host);
    }

    /// The built programs before everything else.
    fn path(&self) -> OsString {
        let own = self.binaries.ftwall.parent().map(PathBuf::from);
        let usual = std::env::var_os("PATH").unwrap_or_default();
        let system = ["/usr/sbin", "/usr/bin", "/sbin", "/bin"].map(PathBuf::from);
        let all = own.into_iter().chain(std::env::split_paths(&usual));
        std::env::join_paths(all.chain(system)).expect("no directory has a colon in its name")
    }
}

/// Waits until a program has written this event.
fn wait_event(at: &str, program: &Process, event: &str) {
    let text = format!("\"event_type\":\"{event}\"");
    program
        .wait_line(|line| line.contains(&text), PATIENCE)
        .unwrap_or_else(|error| panic!("{at}: {error}"));
}

/// An /etc that can be written to and goes with the capsule.
fn own_etc() {
    let layers = private_dir().join("etc");
    let (upper, work) = (layers.join("upper"), layers.join("work"));
    for directory in [&upper, &work] {
        fs::create_dir_all(directory).expect("the directory is the capsule's own");
    }
    let options = format!(
        "userxattr,lowerdir=/etc,upperdir={},workdir={}",
        upper.display(),
        work.display()
    );
    let mounted = Command::new("mount")
        .args(["-t", "overlay", "overlay", "/etc", "-o", &options])
        .output()
        .expect("mount is part of every system");
    let said = String::from_utf8_lossy(&mounted.stderr);
    assert!(mounted.status.success(), "no /etc of our own: {said}");
    fs::create_dir_all(CONFIGURATION).expect("it is our /etc");
    assert!(
        fs::read_dir(CONFIGURATION).is_ok_and(|mut files| files.next().is_none()),
        "this machine has a configuration of ftwall's: the book begins without one"
    );
}
