//! The order in which a topology is built: a list of steps that can be printed, compared and executed.
//!
//! Planning is pure. It checks names and next hops, gives every interface its index and hardware
//! address, and works out who needs a static neighbour entry for whom. Execution is `apply`'s.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::Ipv4Addr,
};

use ipnet::Ipv4Net;

use crate::{
    admin::AdminRules,
    apply::{self, ApplyError},
    live::Lab,
    sysctl::{self, Sysctl},
    topology::{End, NodeSpec, Role, Topology, TopologyError},
    wire::WireSettings,
};

/// Steps in the order of their execution.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    name: String,
    steps: Vec<Step>,
}

/// One thing done to the kernel.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// A new network namespace with its settings, loopback up.
    Namespace {
        /// The node that will live there.
        node: String,
        /// The part it plays.
        role: Role,
        /// Settings, in the order they are written.
        sysctls: Vec<Sysctl>,
    },
    /// The bridge of a switch, up, learning, without spanning tree.
    Bridge {
        /// The switch.
        node: String,
    },
    /// A veth pair: the first end is created here and up, the second in place inside its own
    /// namespace, and raised afterwards (the kernel refuses to create a peer that is up).
    Link {
        /// The end whose namespace issues the request.
        near: Port,
        /// The end created in the other namespace.
        far: Port,
    },
    /// An address on an interface.
    Address {
        /// Where.
        port: Port,
        /// Address and prefix length.
        address: Ipv4Net,
    },
    /// A local route: the node answers for every address of the network.
    Own {
        /// The node.
        node: String,
        /// The network.
        net: Ipv4Net,
    },
    /// A route by a next hop.
    Route {
        /// The node.
        node: String,
        /// Destination.
        to: Ipv4Net,
        /// Next hop.
        via: Ipv4Addr,
    },
    /// A permanent neighbour entry, in place of an ARP exchange.
    Neighbour {
        /// Where the entry is kept.
        port: Port,
        /// Whose hardware address it tells.
        address: Ipv4Addr,
        /// The hardware address.
        mac: Mac,
    },
    /// Checksum and segmentation offloads off.
    OffloadsOff {
        /// The interface concerned.
        port: Port,
    },
    /// The administrator's nftables rules.
    Rules {
        /// The node.
        node: String,
        /// The rules.
        rules: AdminRules,
    },
    /// The link emulator's thread between the two interfaces of a wire.
    Wire {
        /// The wire's node.
        node: String,
        /// Its interfaces, in the order they were linked.
        interfaces: [String; 2],
        /// What it does to frames.
        settings: WireSettings,
    },
}

/// An interface with everything that identifies it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Port {
    /// The node.
    pub node: String,
    /// Name of the interface there.
    pub interface: String,
    /// Interface index, chosen by the plan: no need to ask the kernel afterwards. No two interfaces of
    /// a plan share one: where both ends of a pair have the same number the kernel takes them for
    /// one device and may wait a second before it lets them send.
    pub index: u32,
    /// Hardware address, chosen by the plan.
    pub mac: Mac,
    /// Whether it becomes a port of the node's bridge.
    pub bridged: bool,
}

/// An Ethernet hardware address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mac(pub [u8; 6]);

impl Plan {
    /// The steps.
    #[must_use]
    pub fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// Name of the topology.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Builds the network. It stands as long as the value that is returned.
    ///
    /// # Errors
    /// When the kernel refuses a step; the error names the step, and what was built is gone again.
    pub fn apply(&self) -> Result<Lab, ApplyError> {
        apply::execute(self)
    }
}

/// Interface index of a switch's bridge.
pub(crate) const BRIDGE_INDEX: u32 = 2;
/// Name of a switch's bridge.
pub(crate) const BRIDGE: &str = "br0";
/// Index of the first end of the first link; the loopback is 1 in every namespace.
const FIRST_LINK_INDEX: u32 = 10;
/// IFNAMSIZ less the final zero.
const LONGEST_INTERFACE_NAME: usize = 15;

pub(crate) fn order(topology: &Topology) -> Result<Plan, TopologyError> {
    check_nodes(topology)?;
    let cabling = Cabling::of(topology)?;
    check_wires(topology, &cabling)?;
    check_routes(topology, &cabling)?;
    let steps = [
        namespaces(topology),
        links(&cabling),
        addresses(topology, &cabling),
        neighbours(topology, &cabling),
        services(topology, &cabling),
    ];
    Ok(Plan {
        name: topology.name().to_owned(),
        steps: steps.concat(),
    })
}

fn namespaces(topology: &Topology) -> Vec<Step> {
    let mut steps = Vec::new();
    for node in topology.nodes() {
        steps.push(Step::Namespace {
            node: node.name.clone(),
            role: node.role.clone(),
            sysctls: sysctl::for_role(&node.role, &node.sysctls),
        });
        if node.role == Role::Switch {
            steps.push(Step::Bridge {
                node: node.name.clone(),
            });
        }
    }
    steps
}

fn links(cabling: &Cabling<'_>) -> Vec<Step> {
    let mut steps = Vec::new();
    for cable in &cabling.cables {
        let (near, far) = if cable.ends[1].works_on_frames() {
            (&cable.ends[1], &cable.ends[0])
        } else {
            (&cable.ends[0], &cable.ends[1])
        };
        steps.push(Step::Link {
            near: near.port.clone(),
            far: far.port.clone(),
        });
        for (end, opposite) in [(near, far), (far, near)] {
            if !end.wish.offloads || opposite.on_wire() {
                steps.push(Step::OffloadsOff {
                    port: end.port.clone(),
                });
            }
        }
    }
    steps
}

fn addresses(topology: &Topology, cabling: &Cabling<'_>) -> Vec<Step> {
    let mut steps: Vec<Step> = cabling
        .stations()
        .map(|(end, address)| Step::Address {
            port: end.port.clone(),
            address,
        })
        .collect();
    for node in topology.nodes() {
        let name = &node.name;
        steps.extend(node.owned.iter().map(|&net| Step::Own {
            node: name.clone(),
            net,
        }));
        steps.extend(node.routes.iter().map(|&(to, via)| Step::Route {
            node: name.clone(),
            to,
            via,
        }));
    }
    steps
}

/// Routers know everybody on their segments and everybody knows the routers. Entries between two
/// plain hosts would grow with the square of their number; those two ask by ARP.
fn neighbours(topology: &Topology, cabling: &Cabling<'_>) -> Vec<Step> {
    let segments = cabling.segments(topology);
    let mut steps = Vec::new();
    for (keeper, _) in cabling.stations() {
        for (known, address) in cabling.stations() {
            let same_segment = segments[keeper.cable] == segments[known.cable];
            let router_between =
                keeper.node.role == Role::Router || known.node.role == Role::Router;
            if same_segment && router_between && keeper.port != known.port {
                let port = keeper.port.clone();
                steps.push(Step::Neighbour {
                    port,
                    address: address.addr(),
                    mac: known.port.mac,
                });
            }
        }
    }
    steps
}

fn services(topology: &Topology, cabling: &Cabling<'_>) -> Vec<Step> {
    let mut steps = Vec::new();
    for node in topology.nodes() {
        if !node.admin.is_empty() {
            steps.push(Step::Rules {
                node: node.name.clone(),
                rules: node.admin.clone(),
            });
        }
        if let (Role::Wire(settings), [left, right]) =
            (&node.role, cabling.ends_of(node).as_slice())
        {
            steps.push(Step::Wire {
                node: node.name.clone(),
                interfaces: [left.port.interface.clone(), right.port.interface.clone()],
                settings: settings.clone(),
            });
        }
    }
    steps
}

fn check_nodes(topology: &Topology) -> Result<(), TopologyError> {
    let mut names = BTreeSet::new();
    for node in topology.nodes() {
        if !names.insert(&node.name) {
            return Err(TopologyError::DuplicateNode(node.name.clone()));
        }
        if let Role::Wire(settings) = &node.role
            && !settings.percentages_are_sane()
        {
            return Err(TopologyError::BadPercentage(node.name.clone()));
        }
    }
    Ok(())
}

fn check_wires(topology: &Topology, cabling: &Cabling<'_>) -> Result<(), TopologyError> {
    for node in topology.nodes() {
        let links = cabling.ends_of(node).len();
        if matches!(node.role, Role::Wire(_)) && links != 2 {
            return Err(TopologyError::WireNeedsTwoLinks {
                node: node.name.clone(),
                links,
            });
        }
    }
    Ok(())
}

fn check_routes(topology: &Topology, cabling: &Cabling<'_>) -> Result<(), TopologyError> {
    for node in topology.nodes() {
        for &(to, via) in &node.routes {
            let reachable = cabling
                .ends_of(node)
                .iter()
                .any(|end| end.wish.address.is_some_and(|net| net.contains(&via)));
            if !reachable {
                return Err(TopologyError::UnreachableNextHop {
                    node: node.name.clone(),
                    to,
                    via,
                });
            }
        }
    }
    Ok(())
}

/// All links with their ends resolved.
struct Cabling<'a> {
    cables: Vec<Cable<'a>>,
}

struct Cable<'a> {
    ends: [CableEnd<'a>; 2],
}

struct CableEnd<'a> {
    node: &'a NodeSpec,
    wish: &'a End,
    port: Port,
    /// Place of the cable in [`Cabling::cables`].
    cable: usize,
}

impl CableEnd<'_> {
    fn works_on_frames(&self) -> bool {
        self.on_wire() || self.node.role == Role::Switch
    }

    fn on_wire(&self) -> bool {
        matches!(self.node.role, Role::Wire(_))
    }
}

impl<'a> Cabling<'a> {
    fn of(topology: &'a Topology) -> Result<Self, TopologyError> {
        let mut used = BTreeMap::new();
        let mut cables = Vec::new();
        for (cable, (one, other)) in topology.links().iter().enumerate() {
            let index = FIRST_LINK_INDEX + 2 * u32::try_from(cable).expect("fewer links than 2^31");
            let mut end = |wish, index| resolve(topology, wish, cable, index, &mut used);
            cables.push(Cable {
                ends: [end(one, index)?, end(other, index + 1)?],
            });
        }
        Ok(Self { cables })
    }

    fn ends(&self) -> impl Iterator<Item = &CableEnd<'a>> {
        self.cables.iter().flat_map(|cable| &cable.ends)
    }

    /// Ends that carry an address.
    fn stations(&self) -> impl Iterator<Item = (&CableEnd<'a>, Ipv4Net)> {
        self.ends().filter_map(|end| Some((end, end.wish.address?)))
    }

    fn ends_of(&self, node: &NodeSpec) -> Vec<&CableEnd<'a>> {
        self.ends()
            .filter(|end| end.node.name == node.name)
            .collect()
    }

    /// For each cable the number of its broadcast segment: switches and wires join their cables.
    fn segments(&self, topology: &Topology) -> Vec<usize> {
        let mut segment: Vec<usize> = (0..self.cables.len()).collect();
        for node in topology.nodes() {
            let joined: Vec<usize> = self
                .ends_of(node)
                .iter()
                .filter(|end| end.works_on_frames())
                .map(|end| segment[end.cable])
                .collect();
            let Some(&lowest) = joined.iter().min() else {
                continue;
            };
            for number in &mut segment {
                if joined.contains(number) {
                    *number = lowest;
                }
            }
        }
        segment
    }
}

/// Interfaces met so far, per node.
type UsedNames<'a> = BTreeMap<&'a str, Vec<&'a str>>;

fn resolve<'a>(
    topology: &'a Topology,
    wish: &'a End,
    cable: usize,
    index: u32,
    used: &mut UsedNames<'a>,
) -> Result<CableEnd<'a>, TopologyError> {
    let node = topology
        .nodes()
        .iter()
        .find(|node| node.name == wish.node)
        .ok_or_else(|| TopologyError::UnknownNode(wish.node.clone()))?;
    check_interface_name(&wish.interface)?;
    let names = used.entry(&node.name).or_default();
    if names.contains(&wish.interface.as_str()) {
        let (node, interface) = (node.name.clone(), wish.interface.clone());
        return Err(TopologyError::DuplicateInterface { node, interface });
    }
    names.push(&wish.interface);
    let bridged = node.role == Role::Switch;
    let port = Port {
        node: node.name.clone(),
        interface: wish.interface.clone(),
        index,
        mac: Mac::of(wish.address, index),
        bridged,
    };
    let end = CableEnd {
        node,
        wish,
        port,
        cable,
    };
    if end.works_on_frames() && wish.address.is_some() {
        return Err(TopologyError::AddressOnFrameNode(node.name.clone()));
    }
    Ok(end)
}

fn check_interface_name(name: &str) -> Result<(), TopologyError> {
    let length_ok = (1..=LONGEST_INTERFACE_NAME).contains(&name.len());
    let refused = |c: char| c == '/' || c.is_whitespace();
    if length_ok && !name.contains(refused) && name != "lo" && name != BRIDGE {
        return Ok(());
    }
    Err(TopologyError::BadInterfaceName(name.to_owned()))
}

impl Mac {
    /// Locally administered, and readable in a capture: `02:00:` and the IPv4 address, or `02:01:` and
    /// the interface's index where there is none.
    fn of(address: Option<Ipv4Net>, index: u32) -> Self {
        let (kind, tail) = match address {
            Some(net) => (0, net.addr().octets()),
            None => (1, index.to_be_bytes()),
        };
        let [a, b, c, d] = tail;
        Self([0x02, kind, a, b, c, d])
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.node, self.interface)
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "plan {}", self.name)?;
        self.steps.iter().try_for_each(|step| writeln!(f, "{step}"))
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Namespace {
                node,
                role,
                sysctls,
            } => {
                write!(f, "namespace {node} ({})", role.noun())?;
                sysctls
                    .iter()
                    .try_for_each(|setting| write!(f, "\n  {setting}"))
            }
            Self::Bridge { node } => write!(f, "bridge {node}/{BRIDGE}"),
            Self::Link { near, far } => {
                let bridged = if near.bridged { " in the bridge" } else { "" };
                write!(
                    f,
                    "link {near} ({}){bridged} -- {far} ({})",
                    near.mac, far.mac
                )
            }
            Self::Address { port, address } => write!(f, "address {port} {address}"),
            Self::Own { node, net } => write!(f, "own {node} every address of {net}"),
            Self::Route { node, to, via } => write!(f, "route {node} {to} via {via}"),
            Self::Neighbour { port, address, mac } => {
                write!(f, "neighbour {port} {address} is {mac}")
            }
            Self::OffloadsOff { port } => write!(f, "offloads off {port}"),
            Self::Rules { node, rules } => write!(f, "rules {node}\n{rules}"),
            Self::Wire {
                node,
                interfaces: [left, right],
                settings,
            } => {
                write!(f, "wire {node} {left} <-> {right}: {settings}")
            }
        }
    }
}

impl Role {
    /// One word for it.
    #[must_use]
    pub fn noun(&self) -> &'static str {
        match self {
            Self::Host => "host",
            Self::Router => "router",
            Self::Switch => "switch",
            Self::Wire(_) => "wire",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::presets::{Office, office};

    #[test]
    fn an_office_is_planned_in_the_order_it_can_be_built() {
        let wish = Office {
            clients: 1,
            nat: true,
            block_inbound: true,
            ..Office::default()
        };
        insta::assert_snapshot!(planned(&wish));
    }

    #[test]
    fn a_wire_joins_gateway_and_internet_and_takes_the_offloads_off_their_ends() {
        let wire = WireSettings {
            loss_pct: 2.5,
            seed: 9,
            ..WireSettings::default()
        };
        let plan = planned(&Office {
            clients: 0,
            wire: Some(wire),
            ..Office::default()
        });
        let concerned = |step: &&Step| {
            matches!(
                step,
                Step::OffloadsOff { .. } | Step::Wire { .. } | Step::Neighbour { .. }
            )
        };
        let lines: Vec<String> = plan
            .steps()
            .iter()
            .filter(concerned)
            .map(Step::to_string)
            .collect();
        insta::assert_snapshot!(lines.join("\n"));
    }

    #[test]
    fn hosts_get_entries_for_routers_and_routers_for_hosts_but_hosts_not_for_each_other() {
        let plan = planned(&Office {
            clients: 50,
            ..Office::default()
        });
        let entries = plan
            .steps()
            .iter()
            .filter(|step| matches!(step, Step::Neighbour { .. }));
        assert_eq!(
            entries.count(),
            2 * 50 + 2,
            "every client and `out`, both ways"
        );
    }

    #[test]
    fn no_two_interfaces_share_an_index_or_a_hardware_address() {
        let plan = planned(&Office {
            clients: 300,
            ..Office::default()
        });
        let ports: Vec<&Port> = plan
            .steps()
            .iter()
            .filter_map(link_ends)
            .flatten()
            .collect();
        let indexes: BTreeSet<u32> = ports.iter().map(|port| port.index).collect();
        assert_eq!(indexes.len(), ports.len());
        let macs: BTreeSet<[u8; 6]> = ports.iter().map(|port| port.mac.0).collect();
        assert_eq!(macs.len(), ports.len());
    }

    #[test]
    fn names_that_clash_or_lead_nowhere_are_told() {
        let twice = refusal(|t| {
            t.node("a", Role::Host).node("a", Role::Host);
        });
        assert_eq!(twice, TopologyError::DuplicateNode("a".into()));
        let loose = refusal(|t| {
            t.node("a", Role::Host)
                .link(End::new("a", "x"), End::new("b", "x"));
        });
        assert_eq!(loose, TopologyError::UnknownNode("b".into()));
        let same = refusal(|t| {
            t.node("a", Role::Host)
                .link(End::new("a", "x"), End::new("a", "x"));
        });
        let (node, interface) = ("a".into(), "x".into());
        assert_eq!(same, TopologyError::DuplicateInterface { node, interface });
    }

    #[test]
    fn interface_names_are_those_the_kernel_takes() {
        for bad in [
            "",
            "sixteen_octets__",
            "with space",
            "with/slash",
            "lo",
            "br0",
        ] {
            let told = refusal(|t| {
                t.node("a", Role::Host)
                    .link(End::new("a", bad), End::new("a", "x"));
            });
            assert_eq!(told, TopologyError::BadInterfaceName(bad.into()));
        }
    }

    #[test]
    fn a_wire_wants_two_links_and_sane_percentages() {
        let lonely = refusal(|t| {
            t.node("w", Role::Wire(WireSettings::default()));
        });
        assert_eq!(
            lonely,
            TopologyError::WireNeedsTwoLinks {
                node: "w".into(),
                links: 0
            }
        );
        for loss_pct in [-1.0, 101.0, f64::NAN] {
            let told = refusal(|t| {
                t.node(
                    "w",
                    Role::Wire(WireSettings {
                        loss_pct,
                        ..WireSettings::default()
                    }),
                );
            });
            assert_eq!(told, TopologyError::BadPercentage("w".into()));
        }
    }

    #[test]
    fn a_switch_carries_no_address() {
        let told = refusal(|t| {
            let net = Ipv4Net::new_assert(Ipv4Addr::new(10, 0, 0, 1), 8);
            t.node("s", Role::Switch).node("a", Role::Host);
            t.link(End::new("s", "p").address(net), End::new("a", "x"));
        });
        assert_eq!(told, TopologyError::AddressOnFrameNode("s".into()));
    }

    #[test]
    fn a_route_needs_a_next_hop_on_one_of_the_node_s_networks() {
        let (to, via) = (Ipv4Net::default(), Ipv4Addr::new(10, 0, 0, 1));
        let told = refusal(|t| {
            t.node("a", Role::Host)
                .route("a", to, via)
                .expect("the node is there");
        });
        assert_eq!(
            told,
            TopologyError::UnreachableNextHop {
                node: "a".into(),
                to,
                via
            }
        );
    }

    fn planned(wish: &Office) -> Plan {
        office(wish).plan().expect("a preset can be planned")
    }

    fn refusal(wish: impl FnOnce(&mut Topology)) -> TopologyError {
        let mut topology = Topology::new("test");
        wish(&mut topology);
        topology.plan().expect_err("it cannot be built")
    }

    fn link_ends(step: &Step) -> Option<[&Port; 2]> {
        let Step::Link { near, far } = step else {
            return None;
        };
        Some([near, far])
    }
}
