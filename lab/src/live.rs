//! A network that stands: its nodes, and what can be done in and with them.

use std::{collections::BTreeMap, fs, io, net::Ipv4Addr, path::Path, sync::Arc, time::Duration};

use ipnet::Ipv4Net;

use crate::{
    capsule,
    capture::{Capture, CaptureError},
    netns::Namespace,
    plan::Plan,
    process::{Output, Process, ProcessError, Spec},
    topology::Role,
    wire::{Wire, WireReport},
};

/// A built network. Dropping it stops the wires and lets the namespaces go; processes end with their
/// own [`Process`] values, which should be dropped first.
#[derive(Debug)]
pub struct Lab {
    // Fields are dropped in this order: wires hold sockets inside the nodes.
    pub(crate) wires: BTreeMap<String, Wire>,
    pub(crate) nodes: BTreeMap<String, Node>,
    pub(crate) plan: Plan,
}

/// One node of a built network: a network namespace with a name.
#[derive(Debug, Clone)]
pub struct Node {
    pub(crate) name: String,
    pub(crate) role: Role,
    pub(crate) address: Option<Ipv4Addr>,
    pub(crate) namespace: Arc<Namespace>,
}

impl Lab {
    /// The node of that name.
    ///
    /// # Panics
    /// When there is none; the message lists those there are.
    #[must_use]
    pub fn node(&self, name: &str) -> &Node {
        let known = || {
            self.nodes
                .keys()
                .map(String::as_str)
                .collect::<Vec<_>>()
                .join(", ")
        };
        self.nodes
            .get(name)
            .unwrap_or_else(|| panic!("no node is called `{name}`; there are: {}", known()))
    }

    /// All nodes by name.
    pub fn nodes(&self) -> impl Iterator<Item = &Node> {
        self.nodes.values()
    }

    /// The plan it was built from.
    #[must_use]
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Starts recording every frame of an interface. Frames that pass after this call has returned are
    /// in the recording.
    ///
    /// # Errors
    /// When the interface does not exist or packet sockets are refused.
    ///
    /// # Panics
    /// When there is no such node.
    pub fn capture(&self, node: &str, interface: &str) -> Result<Capture, CaptureError> {
        self.node(node).capture(interface)
    }

    /// As [`Lab::capture`], keeping only the first `octets` of each frame: for long downloads.
    ///
    /// # Errors
    /// When the interface does not exist or packet sockets are refused.
    ///
    /// # Panics
    /// When there is no such node.
    pub fn capture_heads(
        &self,
        node: &str,
        interface: &str,
        octets: usize,
    ) -> Result<Capture, CaptureError> {
        Capture::start(self.node(node), interface, octets)
    }

    /// Makes the nodes known to `ip netns` by their names, for people who look around: each namespace
    /// is mounted below `/run/netns`. Only inside a capsule, where that directory is private.
    ///
    /// # Errors
    /// Outside a capsule, or when a mount is refused.
    pub fn publish_names(&self) -> io::Result<()> {
        if !capsule::is_inside() {
            return Err(io::Error::other(
                "names are published inside a capsule only",
            ));
        }
        fs::create_dir_all(NAMED_NAMESPACES)?;
        self.nodes.values().try_for_each(|node| {
            node.namespace
                .mount_at(&Path::new(NAMED_NAMESPACES).join(&node.name))
        })
    }

    /// As [`Lab::capture`], for IPv4 frames to or from a network only.
    ///
    /// # Errors
    /// When the interface does not exist or packet sockets are refused.
    ///
    /// # Panics
    /// When there is no such node.
    pub fn capture_for(
        &self,
        node: &str,
        interface: &str,
        network: Ipv4Net,
    ) -> Result<Capture, CaptureError> {
        Capture::start_for(self.node(node), interface, network)
    }

    /// What the wire of that name has done so far; `None` where there is no such wire.
    #[must_use]
    pub fn wire_report(&self, name: &str) -> Option<WireReport> {
        self.wires.get(name).map(Wire::report)
    }
}

/// Where ip-netns(8) looks for names.
const NAMED_NAMESPACES: &str = "/run/netns";

impl Node {
    /// A host that somebody else has set up, a container say, by a process that lives in it.
    ///
    /// # Errors
    /// When there is no such process, or another user's.
    pub fn of_process(name: impl Into<String>, process: u32) -> io::Result<Self> {
        Ok(Self {
            name: name.into(),
            role: Role::Host,
            address: None,
            namespace: Arc::new(Namespace::of_process(process)?),
        })
    }

    /// Starts recording every frame of one of its interfaces, as [`Lab::capture`] does.
    ///
    /// # Errors
    /// When the interface does not exist or packet sockets are refused.
    pub fn capture(&self, interface: &str) -> Result<Capture, CaptureError> {
        Capture::start(self, interface, Capture::WHOLE)
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its first address.
    ///
    /// # Panics
    /// For switches and wires, which have none.
    #[must_use]
    pub fn address(&self) -> Ipv4Addr {
        self.address
            .unwrap_or_else(|| panic!("{} `{}` has no address", self.role.noun(), self.name))
    }

    /// The part it plays.
    #[must_use]
    pub fn role(&self) -> &Role {
        &self.role
    }

    /// Starts a program inside the node.
    ///
    /// # Errors
    /// When the program cannot be started.
    pub fn spawn(&self, spec: &Spec) -> Result<Process, ProcessError> {
        Process::spawn(self, spec)
    }

    /// Runs a program inside the node to its end, at most [`Node::RUN_LIMIT`].
    ///
    /// # Errors
    /// When it cannot be started, or has to be killed because it did not end. A program that ends with
    /// a failure is no error here: see [`Output::success`].
    pub fn run(&self, spec: &Spec) -> Result<Output, ProcessError> {
        self.run_within(spec, Self::RUN_LIMIT)
    }

    /// Longest time a program may take under [`Node::run`].
    pub const RUN_LIMIT: Duration = Duration::from_secs(60);

    /// As [`Node::run`] with a limit of its own.
    ///
    /// # Errors
    /// As [`Node::run`].
    pub fn run_within(&self, spec: &Spec, limit: Duration) -> Result<Output, ProcessError> {
        let mut process = self.spawn(spec)?;
        process.wait_exit(limit)?;
        Ok(process.into_output())
    }

    /// Does `work` on a thread inside the node: sockets opened there belong to the node and may be
    /// used from anywhere afterwards.
    ///
    /// # Errors
    /// When the namespace cannot be entered.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> io::Result<T> {
        self.namespace.run(work)
    }
}
