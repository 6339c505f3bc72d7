//! Carries out a plan, step by step, on a thread that ends with it.

use std::{
    collections::BTreeMap,
    fmt, fs,
    io::{self, Write},
    process::{Command, Stdio},
    sync::Arc,
};

use crate::{
    admin::AdminRules,
    live::{Lab, Node},
    netlink::Netlink,
    netns::{self, Namespace},
    packet_socket,
    plan::{Plan, Port, Step},
    sysctl::Sysctl,
    topology::Role,
    wire::{Wire, WireSettings},
};

/// A step that the kernel, or a program needed for it, refused.
#[derive(Debug, thiserror::Error)]
#[error("step `{step}`: {source}{}", Remedy(source))]
pub struct ApplyError {
    /// The step, as the plan prints it (first line).
    pub step: String,
    /// What went wrong.
    #[source]
    pub source: io::Error,
}

/// What to do about the refusals people meet.
struct Remedy<'a>(&'a io::Error);

impl fmt::Display for Remedy<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.kind() {
            io::ErrorKind::PermissionDenied => {
                write!(
                    f,
                    " (networks are built inside a capsule, or as root; `lab doctor` says which works here)"
                )
            }
            _ if self.0.raw_os_error() == Some(nix::libc::EMFILE) => {
                write!(
                    f,
                    " (two descriptors a node: raise `ulimit -n`; capsules do so by themselves)"
                )
            }
            _ => Ok(()),
        }
    }
}

/// Builds everything on a thread of its own, since building hops from namespace to namespace.
pub(crate) fn execute(plan: &Plan) -> Result<Lab, ApplyError> {
    netns::on_own_thread(|| {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .build()
            .map_err(|source| ApplyError {
                step: "start".to_owned(),
                source,
            })?;
        runtime.block_on(Site::default().build(plan))
    })
}

/// What has been built so far.
#[derive(Default)]
struct Site {
    nodes: BTreeMap<String, Node>,
    netlinks: BTreeMap<String, Netlink>,
    wires: BTreeMap<String, Wire>,
}

impl Site {
    async fn build(mut self, plan: &Plan) -> Result<Lab, ApplyError> {
        for step in plan.steps() {
            self.take(step).await.map_err(|source| ApplyError {
                step: first_line(step),
                source,
            })?;
        }
        Ok(Lab {
            wires: self.wires,
            nodes: self.nodes,
            plan: plan.clone(),
        })
    }

    async fn take(&mut self, step: &Step) -> io::Result<()> {
        match step {
            Step::Namespace {
                node,
                role,
                sysctls,
            } => self.add_namespace(node, role, sysctls).await,
            Step::Bridge { node } => self.netlink(node).add_bridge().await,
            Step::Link { near, far } => self.add_link(near, far).await,
            Step::Address { port, address } => {
                self.node_mut(&port.node)
                    .address
                    .get_or_insert(address.addr());
                self.netlink(&port.node)
                    .add_address(port.index, *address)
                    .await
            }
            Step::Own { node, net } => self.netlink(node).own(*net).await,
            Step::Route { node, to, via } => self.netlink(node).add_route(*to, *via).await,
            Step::Neighbour { port, address, mac } => {
                self.netlink(&port.node)
                    .add_neighbour(port.index, *address, *mac)
                    .await
            }
            Step::OffloadsOff { port } => self.switch_offloads_off(port),
            Step::Rules { node, rules } => self.load_rules(node, rules),
            Step::Wire {
                node,
                interfaces,
                settings,
            } => self.start_wire(node, interfaces, settings),
        }
    }

    async fn add_namespace(
        &mut self,
        name: &str,
        role: &Role,
        sysctls: &[Sysctl],
    ) -> io::Result<()> {
        let namespace = Arc::new(Namespace::unshare_thread()?);
        sysctls.iter().try_for_each(write_sysctl)?;
        let netlink = Netlink::in_current_namespace()?;
        netlink.raise(LOOPBACK_INDEX).await?;
        self.netlinks.insert(name.to_owned(), netlink);
        let node = Node {
            name: name.to_owned(),
            role: role.clone(),
            address: None,
            namespace,
        };
        self.nodes.insert(name.to_owned(), node);
        Ok(())
    }

    async fn add_link(&self, near: &Port, far: &Port) -> io::Result<()> {
        self.netlink(&near.node)
            .add_link(near, far, &self.node(&far.node).namespace)
            .await?;
        self.netlink(&far.node).raise(far.index).await?;
        self.netlink(&near.node).settle(near.index).await?;
        self.netlink(&far.node).settle(far.index).await
    }

    fn switch_offloads_off(&self, port: &Port) -> io::Result<()> {
        self.node(&port.node)
            .namespace
            .run(|| packet_socket::switch_offloads_off(&port.interface))?
    }

    fn load_rules(&self, node: &str, rules: &AdminRules) -> io::Result<()> {
        self.node(node)
            .namespace
            .run(|| load_nft(&rules.to_string()))?
    }

    fn start_wire(
        &mut self,
        name: &str,
        interfaces: &[String; 2],
        settings: &WireSettings,
    ) -> io::Result<()> {
        let wire = Wire::start(self.node(name), interfaces, settings)?;
        self.wires.insert(name.to_owned(), wire);
        Ok(())
    }

    fn node(&self, name: &str) -> &Node {
        self.nodes
            .get(name)
            .expect("plans create a node before they use it")
    }

    fn node_mut(&mut self, name: &str) -> &mut Node {
        self.nodes
            .get_mut(name)
            .expect("plans create a node before they use it")
    }

    fn netlink(&self, name: &str) -> &Netlink {
        self.netlinks
            .get(name)
            .expect("plans create a node before they use it")
    }
}

/// The loopback has index 1 in every namespace.
pub(crate) const LOOPBACK_INDEX: u32 = 1;

fn first_line(step: &Step) -> String {
    step.to_string()
        .lines()
        .next()
        .unwrap_or_default()
        .to_owned()
}

/// Writes a setting of the namespace the calling thread is in.
fn write_sysctl(setting: &Sysctl) -> io::Result<()> {
    match fs::write(setting.path(), &setting.value) {
        Err(error) if error.kind() == io::ErrorKind::NotFound && setting.optional => Ok(()),
        Err(error) => Err(io::Error::new(
            error.kind(),
            format!("{}: {error}", setting.key),
        )),
        Ok(()) => Ok(()),
    }
}

/// Loads rules in the namespace the calling thread is in.
fn load_nft(rules: &str) -> io::Result<()> {
    let mut nft = Command::new("nft")
        .args(["-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| {
            io::Error::new(error.kind(), format!("nft (package nftables): {error}"))
        })?;
    let mut input = nft.stdin.take().expect("stdin was asked to be a pipe");
    input.write_all(rules.as_bytes())?;
    drop(input);
    let output = nft.wait_with_output()?;
    if output.status.success() {
        return Ok(());
    }
    Err(io::Error::other(
        String::from_utf8_lossy(&output.stderr).into_owned(),
    ))
}
