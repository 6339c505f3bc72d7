//! What a network should look like: nodes, links between them, routes, addresses owned.
//!
//! Pure data with names for keys. Nothing here touches the kernel; [`Topology::plan`] checks the whole
//! and puts it in order (see [`crate::plan`]).

use std::{collections::BTreeMap, net::Ipv4Addr};

use ipnet::Ipv4Net;

use crate::{
    admin::AdminRules,
    plan::{self, Plan},
    wire::WireSettings,
};

/// A network described by its nodes and the links between them.
#[derive(Debug, Clone, PartialEq)]
pub struct Topology {
    name: String,
    nodes: Vec<NodeSpec>,
    links: Vec<(End, End)>,
}

/// The part a node plays. It decides the node's sysctls and what is built inside.
#[derive(Debug, Clone, PartialEq)]
pub enum Role {
    /// Sends and receives, never forwards.
    Host,
    /// Forwards IPv4 between its links.
    Router,
    /// An Ethernet switch: one bridge with every link of the node as a port. It has a namespace of its
    /// own so that frames between two stations never meet a router's netfilter hooks.
    Switch,
    /// Two links joined by the user-space link emulator.
    Wire(WireSettings),
}

/// One end of a link: a node, the interface's name there, and what the interface carries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct End {
    pub(crate) node: String,
    pub(crate) interface: String,
    pub(crate) address: Option<Ipv4Net>,
    pub(crate) offloads: bool,
}

impl End {
    /// The interface `interface` of node `node`, without an address.
    pub fn new(node: impl Into<String>, interface: impl Into<String>) -> Self {
        Self {
            node: node.into(),
            interface: interface.into(),
            address: None,
            offloads: true,
        }
    }

    /// Gives the interface an address; the prefix length says which network is on the link.
    #[must_use]
    pub fn address(mut self, address: Ipv4Net) -> Self {
        self.address = Some(address);
        self
    }

    /// Switches checksum and segmentation offloads off, so that every frame that leaves here looks as
    /// it would on a cable. Ends of a link to a wire are treated so in any case.
    #[must_use]
    pub fn without_offloads(mut self) -> Self {
        self.offloads = false;
        self
    }
}

/// A node as it was asked for; [`Topology::plan`] turns it into steps.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct NodeSpec {
    pub(crate) name: String,
    pub(crate) role: Role,
    pub(crate) routes: Vec<(Ipv4Net, Ipv4Addr)>,
    pub(crate) owned: Vec<Ipv4Net>,
    pub(crate) admin: AdminRules,
    pub(crate) sysctls: BTreeMap<String, String>,
}

/// A wish that cannot be built.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TopologyError {
    /// Two nodes carry the same name.
    #[error("node `{0}` is described twice")]
    DuplicateNode(String),
    /// A link, route or rule names a node that is not there.
    #[error("no node is called `{0}`")]
    UnknownNode(String),
    /// One node has two interfaces of the same name.
    #[error("node `{node}` has two interfaces called `{interface}`")]
    DuplicateInterface {
        /// The node.
        node: String,
        /// The name used twice.
        interface: String,
    },
    /// The kernel takes interface names of 1 to 15 octets without `/` and spaces.
    #[error("`{0}` cannot name an interface: 1 to 15 octets, no slash, no space")]
    BadInterfaceName(String),
    /// The next hop of a route lies in none of the node's networks.
    #[error("node `{node}` cannot reach next hop {via} for {to}: none of its networks holds it")]
    UnreachableNextHop {
        /// The node.
        node: String,
        /// Destination of the route.
        to: Ipv4Net,
        /// The next hop.
        via: Ipv4Addr,
    },
    /// A wire joins exactly two links.
    #[error("wire `{node}` joins {links} links; it needs two")]
    WireNeedsTwoLinks {
        /// The wire's node.
        node: String,
        /// How many links it has.
        links: usize,
    },
    /// Switches and wires work on frames and carry no addresses.
    #[error("`{0}` works on frames and cannot carry an address")]
    AddressOnFrameNode(String),
    /// Loss, duplication and reordering are percentages.
    #[error("wire `{0}`: percentages lie between 0 and 100")]
    BadPercentage(String),
}

impl Topology {
    /// An empty network.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            nodes: Vec::new(),
            links: Vec::new(),
        }
    }

    /// Adds a node. Nodes are built in the order they are added.
    pub fn node(&mut self, name: impl Into<String>, role: Role) -> &mut Self {
        self.nodes.push(NodeSpec {
            name: name.into(),
            role,
            routes: Vec::new(),
            owned: Vec::new(),
            admin: AdminRules::default(),
            sysctls: BTreeMap::new(),
        });
        self
    }

    /// Joins two ends by a pair of virtual Ethernet devices.
    pub fn link(&mut self, one: End, other: End) -> &mut Self {
        self.links.push((one, other));
        self
    }

    /// Adds a route at `node`: packets for `to` go to the next hop `via`.
    ///
    /// # Errors
    /// When there is no such node.
    pub fn route(
        &mut self,
        node: &str,
        to: Ipv4Net,
        via: Ipv4Addr,
    ) -> Result<&mut Self, TopologyError> {
        self.node_mut(node)?.routes.push((to, via));
        Ok(self)
    }

    /// Makes `node` answer for every address of `net` (AnyIP: a local route, no address per host), so
    /// that one namespace can be a whole internet of peers.
    ///
    /// # Errors
    /// When there is no such node.
    pub fn owns(&mut self, node: &str, net: Ipv4Net) -> Result<&mut Self, TopologyError> {
        self.node_mut(node)?.owned.push(net);
        Ok(self)
    }

    /// Sets the rules the gateway's administrator is supposed to have.
    ///
    /// # Errors
    /// When there is no such node.
    pub fn admin(&mut self, node: &str, rules: AdminRules) -> Result<&mut Self, TopologyError> {
        self.node_mut(node)?.admin = rules;
        Ok(self)
    }

    /// Overrides one sysctl of a node, by its dotted name.
    ///
    /// # Errors
    /// When there is no such node.
    pub fn sysctl(
        &mut self,
        node: &str,
        key: impl Into<String>,
        value: impl Into<String>,
    ) -> Result<&mut Self, TopologyError> {
        self.node_mut(node)?
            .sysctls
            .insert(key.into(), value.into());
        Ok(self)
    }

    /// Checks the whole and orders it into steps.
    ///
    /// # Errors
    /// When something that is wished for cannot be built.
    pub fn plan(&self) -> Result<Plan, TopologyError> {
        plan::order(self)
    }

    /// The name it was given.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn nodes(&self) -> &[NodeSpec] {
        &self.nodes
    }

    pub(crate) fn links(&self) -> &[(End, End)] {
        &self.links
    }

    fn node_mut(&mut self, name: &str) -> Result<&mut NodeSpec, TopologyError> {
        self.nodes
            .iter_mut()
            .find(|node| node.name == name)
            .ok_or_else(|| TopologyError::UnknownNode(name.to_owned()))
    }
}
