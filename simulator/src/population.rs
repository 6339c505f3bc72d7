//! Who lives outside: a list of peers that a seed describes completely, so that the process playing
//! the peers and the processes playing the clients agree without exchanging a file.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddrV4};

use ipnet::Ipv4Net;
use rand::RngExt;
use rand::rngs::ChaCha8Rng;
use rand::seq::{IndexedRandom, index};

use crate::payload::SharedFile;
use crate::seed::Seed;
use crate::web::Service;
use crate::wire::Network;
use crate::wire::session::NodeEntry;

/// Kazaa's first, fixed port. About 4 % of real supernodes still used it (LKR slides; giFT's list).
pub const CLASSIC_PORT: u16 = 1214;

/// Where the other supernodes listened: the old ephemeral range (97 % of giFT's list).
pub const PORT_RANGE: std::ops::RangeInclusive<u16> = 1024..=5000;

/// Distinct listening ports in one population, so that one process can hold a socket for each.
pub const DISTINCT_PORTS: usize = 128;

/// How many peers, from the first, also listen on the two web ports: each needs a socket of its own,
/// since other programs own the wildcard address there.
pub const WEB_PORT_PEERS: usize = 256;

/// What a peer does for the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Takes children: answers pings with 0x28 and sessions with a node list.
    Supernode,
    /// A supernode without room: answers pings with 0x29 and hangs up on sessions.
    FullSupernode,
    /// An ordinary node whose address is still in many caches: as a full supernode to callers.
    Node,
}

/// One outside peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerSpec {
    /// Address and the one port that serves UDP, sessions and HTTP.
    pub address: SocketAddrV4,
    /// What it does for the network.
    pub role: Role,
    /// The network it belongs to.
    pub network: Network,
    /// Whether it shares the population's file.
    pub has_file: bool,
    /// Whether all its upload slots are taken: HTTP requests get 503.
    pub busy: bool,
    /// Whether it also listens on ports 80 and 443.
    pub has_web_ports: bool,
    /// Whether it sends its handshake answer and its name in one segment.
    pub coalesces: bool,
    /// Load in percent, in its pongs and in node lists.
    pub load_pct: u8,
    /// Bytes of its pongs that nobody explains. Drawn per peer, so that a forged pong shows.
    pub unexplained: [u8; 3],
}

impl PeerSpec {
    /// Whether a session opened here gets a node list.
    pub fn takes_children(&self) -> bool {
        self.role == Role::Supernode
    }

    /// Whether a download started here delivers the file.
    pub fn serves_file(&self) -> bool {
        self.has_file && !self.busy
    }

    /// Its line in a node list.
    pub fn entry(&self) -> NodeEntry {
        NodeEntry {
            address: self.address,
            minutes: 0,
            load_pct: self.load_pct,
        }
    }
}

/// Why a population cannot be drawn.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PopulationError {
    /// Nobody to talk to.
    #[error("a population needs at least one peer; give --population 1 or more")]
    Empty,
    /// More peers than addresses.
    #[error(
        "{count} peers do not fit into {net}, which has room for {room}; give fewer with --population or a larger --peers-net"
    )]
    TooMany {
        /// Peers asked for.
        count: usize,
        /// The network given.
        net: Ipv4Net,
        /// How many would fit.
        room: usize,
    },
}

/// Every outside peer of one run.
#[derive(Debug, Clone)]
pub struct Population {
    peers: Vec<PeerSpec>,
    places: BTreeMap<Ipv4Addr, usize>,
    file: SharedFile,
}

impl Population {
    /// Draws `count` peers with distinct addresses inside `net`.
    ///
    /// The first peer of each network is a supernode with room and the second has the file to give,
    /// so that even a small population can be joined and downloaded from.
    ///
    /// # Errors
    /// When there would be no peer, or more peers than addresses.
    pub fn generate(seed: u64, count: usize, net: Ipv4Net) -> Result<Self, PopulationError> {
        let addresses = draw_addresses(Seed(seed), count, net)?;
        let ports = draw_ports(Seed(seed));
        let peers: Vec<PeerSpec> = addresses
            .into_iter()
            .enumerate()
            .map(|(place, ip)| {
                draw_peer(Seed(seed).derive("peer", place as u64), place, ip, &ports)
            })
            .collect();
        let places = peers
            .iter()
            .enumerate()
            .map(|(place, peer)| (*peer.address.ip(), place))
            .collect();
        Ok(Self {
            peers,
            places,
            file: SharedFile::of(Seed(seed)),
        })
    }

    /// All peers, in the order drawn.
    pub fn peers(&self) -> &[PeerSpec] {
        &self.peers
    }

    /// The peer that owns an address; ports do not matter, since a host is one peer.
    pub fn peer(&self, ip: Ipv4Addr) -> Option<&PeerSpec> {
        self.places.get(&ip).map(|place| &self.peers[*place])
    }

    /// The file that `has_file` peers share.
    pub fn file(&self) -> &SharedFile {
        &self.file
    }

    /// Every distinct listening port, web ports not counted.
    pub fn ports(&self) -> BTreeSet<u16> {
        self.peers.iter().map(|peer| peer.address.port()).collect()
    }

    /// Peers of one network, in the order drawn.
    pub fn of_network(&self, network: Network) -> impl Iterator<Item = &PeerSpec> {
        self.peers
            .iter()
            .filter(move |peer| peer.network == network)
    }
}

fn draw_addresses(
    seed: Seed,
    count: usize,
    net: Ipv4Net,
) -> Result<Vec<Ipv4Addr>, PopulationError> {
    let size = 1usize << (32 - u32::from(net.prefix_len()));
    // Network and broadcast addresses are left alone, where a prefix has them.
    let room = if size > 2 { size - 2 } else { size };
    if count == 0 {
        return Err(PopulationError::Empty);
    }
    if count > room {
        return Err(PopulationError::TooMany { count, net, room });
    }
    let first = u32::from(net.network()) + u32::from(size > 2);
    let places = index::sample(&mut seed.derive("addresses", 0).rng(), room, count);
    Ok(places
        .into_iter()
        .map(|place| Ipv4Addr::from(first + place as u32))
        .collect())
}

/// Ports of the control group's services are left out: its servers may live on the same host, where
/// a peer's socket on every address would take the port from them.
fn draw_ports(seed: Seed) -> Vec<u16> {
    let taken: BTreeSet<u16> = Service::ALL
        .iter()
        .map(|service| service.port().1)
        .collect();
    let free: Vec<u16> = PORT_RANGE
        .filter(|port| *port != CLASSIC_PORT && !taken.contains(port))
        .collect();
    free.sample(&mut seed.derive("ports", 0).rng(), DISTINCT_PORTS - 1)
        .copied()
        .collect()
}

fn draw_peer(seed: Seed, place: usize, ip: Ipv4Addr, ports: &[u16]) -> PeerSpec {
    let mut rng = seed.rng();
    let networks = Network::ALL.len();
    let network = if place < 2 * networks {
        Network::ALL[place % networks]
    } else {
        draw_network(&mut rng)
    };
    let is_first = place < networks;
    let is_second = (networks..2 * networks).contains(&place);
    let port = if rng.random_ratio(1, 25) {
        CLASSIC_PORT
    } else {
        ports[rng.random_range(0..ports.len())]
    };
    let role = draw_role(&mut rng);
    let has_file = rng.random_ratio(1, 3);
    let busy = rng.random_ratio(1, 4);
    PeerSpec {
        address: SocketAddrV4::new(ip, port),
        role: if is_first { Role::Supernode } else { role },
        network,
        has_file: is_second || has_file,
        busy: busy && !is_second,
        has_web_ports: place < WEB_PORT_PEERS,
        coalesces: rng.random(),
        load_pct: rng.random_range(0..=100),
        unexplained: rng.random(),
    }
}

fn draw_network(rng: &mut ChaCha8Rng) -> Network {
    match rng.random_range(0..8) {
        0 => Network::Fileshare,
        1 => Network::Grokster,
        _ => Network::Kazaa,
    }
}

fn draw_role(rng: &mut ChaCha8Rng) -> Role {
    match rng.random_range(0..10) {
        0 => Role::Node,
        1 => Role::FullSupernode,
        _ => Role::Supernode,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn population(seed: u64, count: usize) -> Population {
        Population::generate(seed, count, "198.18.0.0/15".parse().unwrap()).unwrap()
    }

    #[test]
    fn the_same_seed_draws_the_same_peers() {
        assert_eq!(population(5, 200).peers(), population(5, 200).peers());
        assert_ne!(population(5, 200).peers(), population(6, 200).peers());
    }

    #[test]
    fn addresses_are_distinct_and_inside_the_network() {
        let net: Ipv4Net = "198.18.0.0/15".parse().unwrap();
        let population = population(1, 2000);
        let addresses: BTreeSet<_> = population
            .peers()
            .iter()
            .map(|peer| *peer.address.ip())
            .collect();
        assert_eq!(addresses.len(), 2000);
        assert!(addresses.iter().all(|ip| net.contains(ip)));
    }

    #[test]
    fn ports_are_few_and_about_one_in_twenty_five_is_the_classic_one() {
        let population = population(2, 10_000);
        let classic = population
            .peers()
            .iter()
            .filter(|peer| peer.address.port() == CLASSIC_PORT)
            .count();
        assert!(population.ports().len() <= DISTINCT_PORTS);
        assert!(
            (300..500).contains(&classic),
            "{classic} of 10,000 on port 1214"
        );
        assert!(
            population
                .ports()
                .iter()
                .all(|port| PORT_RANGE.contains(port))
        );
    }

    #[test]
    fn no_peer_listens_where_a_service_of_the_control_group_does() {
        let services: BTreeSet<_> = Service::ALL
            .iter()
            .map(|service| service.port().1)
            .collect();
        for seed in 0..50 {
            assert!(
                population(seed, 500).ports().is_disjoint(&services),
                "seed {seed}"
            );
        }
    }

    #[test]
    fn even_six_peers_offer_a_supernode_and_a_file_in_every_network() {
        let population = population(3, 6);
        for network in Network::ALL {
            assert!(
                population.of_network(network).any(PeerSpec::takes_children),
                "{network}"
            );
            assert!(
                population.of_network(network).any(PeerSpec::serves_file),
                "{network}"
            );
        }
    }

    #[test]
    fn a_network_can_be_filled_to_the_last_address_and_not_beyond() {
        let net: Ipv4Net = "192.0.2.0/28".parse().unwrap();
        assert_eq!(Population::generate(1, 14, net).unwrap().peers().len(), 14);
        let refused = Population::generate(1, 15, net).unwrap_err();
        assert_eq!(
            refused,
            PopulationError::TooMany {
                count: 15,
                net,
                room: 14
            }
        );
    }
}
