//! The office in containers: one for each host's network, which only waits and holds the routes. Programs
//! join them, so that a daemon can die and another one come while the gateway stays.

use std::collections::BTreeMap;
use std::fmt;
use std::net::Ipv4Addr;

use anyhow::Context;
use lab::Node;
use lab::presets::Office as Plan;
use scenarios::scenario::host_name;

use crate::engine::{Image, Network, Place, Running, Wanted};

/// The address nginx answers at.
pub(crate) const NGINX: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 90);

/// ```text
///  client1 10.77.1.1/16 ─┐                                       ┌─ out   192.0.2.1/24
///  ...                   ├─ inside ─ 10.77.0.1 gw 192.0.2.2 ─ outside     owns 198.18.0.0/15 and the servers
///  clientN              ─┘ (Docker)                    (Docker)  └─ nginx 192.0.2.90/24
/// ```
///
/// Docker lends the wires only. Its own addresses and routes are taken off every host, and its machine
/// knows none of the office's, so it cannot forward anything past the gateway.
#[derive(Debug)]
pub(crate) struct Office {
    // Fields are dropped in this order: a network goes once nobody is in it.
    hosts: BTreeMap<String, Running>,
    _networks: [Network; 2],
}

impl Office {
    pub(crate) fn build(clients: usize) -> anyhow::Result<Self> {
        let [inside, outside] = [Network::create("inside")?, Network::create("outside")?];
        let gateway = host(&inside)?;
        gateway.connect(&outside)?;
        gateway.exec(&gateways_routes())?;
        let [out, nginx] = [host(&outside)?, host(&outside)?];
        out.exec(&outsides_routes())?;
        nginx.exec(&lone_host(NGINX, 24, &Plan::LAN, Plan::GATEWAY_WAN))?;
        let mut hosts: BTreeMap<_, _> = [("gw", gateway), ("out", out), ("nginx", nginx)]
            .map(|(name, host)| (name.to_owned(), host))
            .into();
        for number in 1..=clients {
            let client = host(&inside)?;
            let address = Plan::client_address(number);
            client.exec(&lone_host(address, 16, &"default", Plan::GATEWAY_LAN))?;
            hosts.insert(host_name(number), client);
        }
        Ok(Self {
            hosts,
            _networks: [inside, outside],
        })
    }

    /// The container that holds a host's network.
    ///
    /// # Panics
    /// When there is no such host.
    pub(crate) fn host(&self, name: &str) -> &Running {
        self.hosts
            .get(name)
            .unwrap_or_else(|| panic!("no host is called `{name}`"))
    }

    /// The same for recordings.
    pub(crate) fn node(&self, name: &str) -> anyhow::Result<Node> {
        Node::of_process(name, self.host(name).process()?)
            .context("only root can record what passes a container's interfaces")
    }
}

/// A host that waits. It may change its own routes, and nothing else that root may.
fn host(network: &Network) -> anyhow::Result<Running> {
    Running::start(Wanted {
        image: Image::Tools,
        place: Place::In(network),
        capabilities: &["NET_ADMIN"],
        sysctls: &[("net.ipv4.ip_forward", "1")],
        command: ["sh", "-c", "echo waiting; exec sleep 86400"]
            .map(str::to_owned)
            .into(),
        ready: "waiting",
    })
}

/// Takes what Docker has given to the first interface.
const BARE: &str = "ip route flush table main; ip address flush dev eth0";

fn lone_host(
    address: Ipv4Addr,
    prefix: u8,
    beyond: &dyn fmt::Display,
    gateway: Ipv4Addr,
) -> String {
    format!(
        "{BARE}; ip address add {address}/{prefix} dev eth0; ip route add {beyond} via {gateway}"
    )
}

fn gateways_routes() -> String {
    format!(
        "{BARE}; ip address flush dev eth1; \
         ip address add {}/16 dev eth0; ip address add {}/24 dev eth1; ip route add default via {}",
        Plan::GATEWAY_LAN,
        Plan::GATEWAY_WAN,
        Plan::OUTSIDE
    )
}

fn outsides_routes() -> String {
    let lone = lone_host(Plan::OUTSIDE, 24, &Plan::LAN, Plan::GATEWAY_WAN);
    format!(
        "{lone}; ip route add local {} dev lo; ip route add local {} dev lo",
        Plan::PEERS,
        Plan::WEB
    )
}
