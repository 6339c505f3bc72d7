//! A small office: clients on a switch, one gateway, and one namespace that is the whole internet.

use std::{net::Ipv4Addr, time::Duration};

use ipnet::Ipv4Net;

use crate::{
    admin::AdminRules,
    topology::{End, Role, Topology},
    wire::WireSettings,
};

/// What can be chosen about an office.
#[derive(Debug, Clone, PartialEq)]
pub struct Office {
    /// Number of clients, `client1` and up; at most 60,000.
    pub clients: usize,
    /// The gateway hides the LAN behind its outer address.
    pub nat: bool,
    /// The administrator's rules let no connection in from outside.
    pub block_inbound: bool,
    /// A user-space wire between gateway and internet.
    pub wire: Option<WireSettings>,
    /// Checksum and segmentation offloads. Without them every frame of a capture has a right checksum
    /// and fits the MTU, and nothing goes as fast.
    pub offloads: bool,
}

impl Default for Office {
    /// Two clients, no NAT, open to the outside, no wire, offloads on.
    fn default() -> Self {
        Self {
            clients: 2,
            nat: false,
            block_inbound: false,
            wire: None,
            offloads: true,
        }
    }
}

impl Office {
    /// The LAN.
    pub const LAN: Ipv4Net = net([10, 77, 0, 0], 16);
    /// The gateway's address in the LAN (`gw`, interface `lan0`).
    pub const GATEWAY_LAN: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
    /// The gateway's outer address (`gw`, interface `wan0`).
    pub const GATEWAY_WAN: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
    /// The internet's own address (`out`, interface `eth0`).
    pub const OUTSIDE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
    /// Addresses of outside peers, all owned by `out`: 131,072 of them.
    pub const PEERS: Ipv4Net = net([198, 18, 0, 0], 15);
    /// Addresses of outside web servers, all owned by `out`.
    pub const WEB: Ipv4Net = net([203, 0, 113, 0], 24);

    /// Address of client `number`, counted from 1: 10.77.1.1, 10.77.1.2 ... 10.77.1.250, 10.77.2.1.
    #[must_use]
    pub fn client_address(number: usize) -> Ipv4Addr {
        let place = u32::try_from(number.saturating_sub(1)).unwrap_or(u32::MAX);
        let [third, fourth] = [1 + place / CLIENTS_PER_BLOCK, 1 + place % CLIENTS_PER_BLOCK];
        Ipv4Addr::from(u32::from(Self::LAN.addr()) + (third << 8) + fourth)
    }
}

/// Clients per value of the third octet: round numbers are easier to read back from a capture.
const CLIENTS_PER_BLOCK: u32 = 250;
const MOST_CLIENTS: usize = 60_000;
const DEFAULT_ROUTE: Ipv4Net = net([0, 0, 0, 0], 0);

/// Describes an office.
///
/// ```text
///  client1 eth0 10.77.1.1/16 ─┐
///  client2 eth0 10.77.1.2/16 ─┤ lan (switch)     gw               wan (wire, if asked for)     out
///  ...                        ├─ br0 ─────── lan0 10.77.0.1/16
///  clientN                   ─┘              wan0 192.0.2.2/24 ── left ≈≈≈≈≈≈≈ right ── eth0 192.0.2.1/24
///                                            forwards, NAT and                           owns 198.18.0.0/15
///                                            inbound block if asked for                  and  203.0.113.0/24
/// ```
///
/// `out` knows the way back to the LAN only where there is no NAT.
///
/// # Panics
/// With more than 60,000 clients, which the LAN has no room for.
#[must_use]
pub fn office(wish: &Office) -> Topology {
    assert!(
        wish.clients <= MOST_CLIENTS,
        "an office holds at most {MOST_CLIENTS} clients"
    );
    let mut topology = Topology::new("office");
    topology
        .node("lan", Role::Switch)
        .node("gw", Role::Router)
        .node("out", Role::Host);
    topology.link(
        wish.end("gw", "lan0", Office::GATEWAY_LAN, 16),
        End::new("lan", "gw"),
    );
    connect_outside(&mut topology, wish);
    for number in 1..=wish.clients {
        add_client(&mut topology, wish, number);
    }
    add_routes_and_rules(&mut topology, wish).expect("every node named here was added above");
    topology
}

fn connect_outside(topology: &mut Topology, wish: &Office) {
    let gateway = wish.end("gw", "wan0", Office::GATEWAY_WAN, 24);
    let outside = wish.end("out", "eth0", Office::OUTSIDE, 24);
    match &wish.wire {
        None => topology.link(gateway, outside),
        Some(settings) => topology
            .node("wan", Role::Wire(settings.clone()))
            .link(gateway, End::new("wan", "left"))
            .link(outside, End::new("wan", "right")),
    };
}

fn add_client(topology: &mut Topology, wish: &Office, number: usize) {
    let name = format!("client{number}");
    let client = wish.end(&name, "eth0", Office::client_address(number), 16);
    topology
        .node(&name, Role::Host)
        .link(client, End::new("lan", name.as_str()));
}

fn add_routes_and_rules(
    topology: &mut Topology,
    wish: &Office,
) -> Result<(), crate::TopologyError> {
    for number in 1..=wish.clients {
        topology.route(
            &format!("client{number}"),
            DEFAULT_ROUTE,
            Office::GATEWAY_LAN,
        )?;
    }
    topology.route("gw", DEFAULT_ROUTE, Office::OUTSIDE)?;
    topology
        .owns("out", Office::PEERS)?
        .owns("out", Office::WEB)?;
    if !wish.nat {
        topology.route("out", Office::LAN, Office::GATEWAY_WAN)?;
    }
    let outer = |wished: bool| wished.then(|| "wan0".to_owned());
    let rules = AdminRules {
        masquerade: outer(wish.nat),
        block_inbound: outer(wish.block_inbound),
    };
    topology.admin("gw", rules)?;
    Ok(())
}

impl Office {
    fn end(&self, node: &str, interface: &str, address: Ipv4Addr, prefix: u8) -> End {
        let end = End::new(node, interface).address(net(address.octets(), prefix));
        if self.offloads {
            end
        } else {
            end.without_offloads()
        }
    }
}

/// `Ipv4Net::new` where the prefix is known to be right, usable in constants.
const fn net([a, b, c, d]: [u8; 4], prefix: u8) -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), prefix)
}

pub(super) fn plain() -> Topology {
    office(&Office::default())
}

pub(super) fn nat() -> Topology {
    office(&Office {
        nat: true,
        block_inbound: true,
        ..Office::default()
    })
}

pub(super) fn wan() -> Topology {
    let wire = WireSettings {
        delay: Duration::from_millis(20),
        loss_pct: 1.0,
        ..WireSettings::default()
    };
    office(&Office {
        wire: Some(wire),
        ..Office::default()
    })
}
