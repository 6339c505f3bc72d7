//! The Docker engine of this machine; the one file that names testcontainers, and the `docker` command for
//! what that crate has no word for.

use std::collections::HashMap;
use std::env;
use std::fmt;
use std::io::{BufRead, Read};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, ensure};
use testcontainers::core::WaitFor;
use testcontainers::runners::SyncRunner;
use testcontainers::{Container, GenericImage, ImageExt};

/// Both images have this name; their tags tell them apart.
const REPOSITORY: &str = "ftwall-container-test";

/// Time for a container to say that it is ready.
const READY: Duration = Duration::from_secs(60);

/// Why no containers can be had here; none if they can.
pub(crate) fn obstacle() -> Option<String> {
    let answer = docker(&["info", "--format", "{{.ServerVersion}}"]);
    if let Err(error) = answer {
        return Some(format!("no Docker engine answers: {error:#}"));
    }
    [Image::Ftwall, Image::Tools]
        .into_iter()
        .find(|image| docker(&["image", "inspect", &image.to_string()]).is_err())
        .map(|image| format!("there is no image {image}: `ci/container` builds it"))
}

/// An image that `ci/container` builds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Image {
    /// ftwall's own, as it is delivered.
    Ftwall,
    /// Simulator, nginx, curl and a shell.
    Tools,
}

impl Image {
    fn tag(self) -> &'static str {
        match self {
            Self::Ftwall => "ftwall",
            Self::Tools => "tools",
        }
    }
}

impl fmt::Display for Image {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{REPOSITORY}:{}", self.tag())
    }
}

/// A network between containers, removed with this value.
#[derive(Debug)]
pub(crate) struct Network {
    name: String,
}

impl Network {
    pub(crate) fn create(purpose: &str) -> anyhow::Result<Self> {
        let name = format!("ftwall-{purpose}-{}", std::process::id());
        docker(&["network", "create", &name])?;
        Ok(Self { name })
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        if let Err(error) = docker(&["network", "rm", &self.name]) {
            eprintln!("network {} is left behind: {error:#}", self.name);
        }
    }
}

/// Whose network a container has.
#[derive(Debug)]
pub(crate) enum Place<'a> {
    /// An interface of its own in a network.
    In(&'a Network),
    /// That of another container, which goes on when this one dies.
    With(&'a Running),
}

/// A container to be started.
#[derive(Debug)]
pub(crate) struct Wanted<'a> {
    pub(crate) image: Image,
    pub(crate) place: Place<'a>,
    /// What it may do beyond what anybody may; everything else is taken from it.
    pub(crate) capabilities: &'static [&'static str],
    /// Settings of its network.
    pub(crate) sysctls: &'static [(&'static str, &'static str)],
    pub(crate) command: Vec<String>,
    /// What it says once it can be used.
    pub(crate) ready: &'static str,
}

/// A container, removed with this value.
#[derive(Debug)]
pub(crate) struct Running(Container<GenericImage>);

impl Running {
    pub(crate) fn start(wanted: Wanted<'_>) -> anyhow::Result<Self> {
        let network = match wanted.place {
            Place::In(network) => network.name.clone(),
            Place::With(other) => format!("container:{}", other.id()),
        };
        let words = wanted.command.join(" ");
        let owned = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect();
        let capabilities: Vec<String> = owned(wanted.capabilities);
        let sysctls: HashMap<_, _> = wanted
            .sysctls
            .iter()
            .map(|&(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        GenericImage::new(REPOSITORY, wanted.image.tag())
            .with_wait_for(WaitFor::message_on_stdout(wanted.ready))
            .with_cmd(wanted.command)
            .with_startup_timeout(READY)
            // `with_network` would make a network of the name "container:...", and ports be published.
            .with_host_config_modifier(move |host| {
                host.network_mode = Some(network.clone());
                host.publish_all_ports = None;
                host.port_bindings = None;
                host.sysctls = Some(sysctls.clone());
                host.cap_drop = Some(vec!["ALL".to_owned()]);
                host.cap_add = Some(capabilities.clone());
            })
            .start()
            .map(Self)
            .with_context(|| format!("starting {}: {words}", wanted.image))
    }

    /// Gives it an interface in a second network.
    pub(crate) fn connect(&self, network: &Network) -> anyhow::Result<()> {
        docker(&["network", "connect", &network.name, self.id()]).map(drop)
    }

    /// Lets the shell inside do something.
    pub(crate) fn exec(&self, script: &str) -> anyhow::Result<String> {
        docker(&["exec", self.id(), "sh", "-ec", script])
    }

    /// Its first process, as this machine numbers it.
    pub(crate) fn process(&self) -> anyhow::Result<u32> {
        let number = docker(&["inspect", "--format", "{{.State.Pid}}", self.id()])?;
        number.trim().parse().context("the number of a process")
    }

    /// What it says from its first word on, until it ends.
    pub(crate) fn lines(&self) -> impl Iterator<Item = std::io::Result<String>> {
        self.0.stdout(true).lines()
    }

    /// What it has said, and what it has complained about.
    pub(crate) fn said(&self) -> anyhow::Result<(String, String)> {
        let mut said = (String::new(), String::new());
        self.0.stdout(false).read_to_string(&mut said.0)?;
        self.0.stderr(false).read_to_string(&mut said.1)?;
        Ok(said)
    }

    /// Asks it to end; returns its exit code, none if it had to be killed.
    pub(crate) fn stop(&self, grace: Duration) -> anyhow::Result<Option<i64>> {
        let seconds = i32::try_from(grace.as_secs()).context("a grace of years")?;
        self.0.stop_with_timeout(Some(seconds))?;
        let code = self.0.exit_code()?;
        Ok(code.filter(|code| *code != KILLED))
    }

    /// Ends it without a chance to tidy up.
    pub(crate) fn kill(&self) -> anyhow::Result<()> {
        docker(&["kill", "--signal", "KILL", self.id()])?;
        ensure!(!self.0.is_running()?, "it outlived SIGKILL");
        Ok(())
    }

    /// The exit code of a container that ended by itself.
    pub(crate) fn exit_code(&self) -> anyhow::Result<Option<i64>> {
        Ok(self.0.exit_code()?)
    }

    fn id(&self) -> &str {
        self.0.id()
    }
}

/// What a process killed by SIGKILL ends with.
const KILLED: i64 = 128 + 9;

/// Where the engine itself is, if `DOCKER_HOST` names a translator before it.
const ENGINE: &str = "ENGINE";

fn docker(words: &[&str]) -> anyhow::Result<String> {
    let engine = env::var_os(ENGINE).or_else(|| env::var_os("DOCKER_HOST"));
    let output = Command::new("docker")
        .envs(engine.map(|engine| ("DOCKER_HOST", engine)))
        .args(words)
        .output()
        .context("running docker")?;
    ensure!(
        output.status.success(),
        "docker {}: {}",
        words.join(" "),
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
