//! What the engine may be told: every knob of the policy, with the defaults of the product.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use ipnet::{IpNet, Ipv4Net};
use serde::{Deserialize, Serialize, Serializer};

use crate::link::{HardwareAddress, InterfaceName, Place};

/// The engine's configuration. `EngineConfig::default()` is the product as installed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineConfig {
    /// Networks whose hosts are protected from making contact. Default: the private ranges.
    pub inside: Vec<IpNet>,
    /// How long a host stays locked after the last evidence against it; zero locks nobody.
    pub lock_time: Duration,
    /// What happens to traffic of a locked host that nothing is known about.
    pub strictness: Strictness,
    /// What happens when a locked host dials an address that has not proven itself.
    pub locked_dials: LockedDials,
    /// What a client's ping is answered with, in the peer's name.
    pub reply: Reply,
    /// Whether a locked host is probed at half its lock time, so that a client still running
    /// renews its own lock.
    pub reprobe: bool,
    /// How many probes in a row may renew a lock with nothing but their answers as evidence.
    pub reprobe_limit: u32,
    /// Whether FastTrack datagrams are dropped. Without it they still lock and teach.
    pub block_udp: bool,
    /// Inside or outside addresses that are never judged.
    pub exempt: Vec<IpNet>,
    /// Inside or outside ends that are never judged nor learned, of all ports or of one.
    pub allow: Vec<NeverBlock>,
    /// What is done about hosts of which no entry of `policies` speaks.
    pub mode: Mode,
    /// What the operator says about hosts for now, over everything else; the first network counts.
    pub mode_overrides: Vec<(IpNet, Mode)>,
    /// What holds for some of the inside hosts instead. The first entry that names a host counts.
    pub policies: Vec<HostPolicy>,
    /// Addresses that are never learned as peers, besides the private ranges: the gateway's own,
    /// its resolvers, whatever must not be blocked because an inside host forged a ping to it.
    pub never_block: Vec<NeverBlock>,
    /// How many peers one host may teach within a minute.
    pub new_peers_per_minute: u32,
    /// How many pings of one host are answered within a minute.
    pub answers_per_minute: u32,
    /// How long a learned peer is remembered after the last evidence.
    pub peer_expiry: Duration,
    /// How long an address that served a proven harmless flow counts as proven.
    pub proven_expiry: Duration,
    /// Within which time two opener shapes of one host to different peers confirm each other.
    pub opener_window: Duration,
    /// Judge every flow as if its initiator were inside, for captures taken anywhere.
    pub judge_all: bool,
    /// Upper bounds of every table.
    pub capacity: Capacity,
}

impl Default for EngineConfig {
    fn default() -> Self {
        Self {
            inside: private_ranges(),
            lock_time: Duration::from_secs(120),
            strictness: Strictness::Precise,
            locked_dials: LockedDials::Drop,
            reply: Reply::Pong,
            reprobe: true,
            reprobe_limit: 30,
            block_udp: true,
            exempt: Vec::new(),
            allow: Vec::new(),
            mode: Mode::Enforce,
            mode_overrides: Vec::new(),
            policies: Vec::new(),
            never_block: Vec::new(),
            new_peers_per_minute: 600,
            answers_per_minute: 6_000,
            peer_expiry: Duration::from_secs(2 * 3600),
            proven_expiry: Duration::from_secs(3600),
            opener_window: Duration::from_secs(60),
            judge_all: false,
            capacity: Capacity::default(),
        }
    }
}

impl EngineConfig {
    /// Whether `address` is one of the protected hosts.
    #[must_use]
    pub fn is_inside(&self, address: IpAddr) -> bool {
        self.inside.iter().any(|net| net.contains(&address))
    }

    /// Whether `address` is never judged.
    #[must_use]
    pub fn is_exempt(&self, address: IpAddr) -> bool {
        self.exempt.iter().any(|net| net.contains(&address))
    }

    /// Whether `end` is on the allow list.
    #[must_use]
    pub fn is_allowed(&self, end: SocketAddr) -> bool {
        self.allow.iter().any(|allowed| allowed.contains(end))
    }

    /// What holds for an inside host that was last seen at `place`.
    #[must_use]
    pub fn policy_of(&self, host: IpAddr, place: Place) -> EffectivePolicy {
        let mut policies = self.policies.iter();
        let entry = policies.position(|policy| policy.names(host, place));
        let policy = entry.map(|index| &self.policies[index]);
        let mut overrides = self.mode_overrides.iter();
        let overridden = overrides
            .find(|(net, _)| net.contains(&host))
            .map(|(_, mode)| *mode);
        EffectivePolicy {
            entry,
            mode: overridden
                .or(policy.and_then(|policy| policy.mode))
                .unwrap_or(self.mode),
            lock_time: policy
                .and_then(|policy| policy.lock_time)
                .unwrap_or(self.lock_time),
            strictness: policy
                .and_then(|policy| policy.strictness)
                .unwrap_or(self.strictness),
        }
    }

    /// Whether it matters where a host is seen.
    #[must_use]
    pub fn asks_for_places(&self) -> bool {
        let mut policies = self.policies.iter();
        policies.any(|policy| !policy.interfaces.is_empty() || !policy.macs.is_empty())
    }

    /// Whether unknown traffic of some locked host is dropped, so that the kernel has to ask about it.
    #[must_use]
    pub fn is_strict_anywhere(&self) -> bool {
        let stricts = self.policies.iter().filter_map(|policy| policy.strictness);
        stricts
            .chain([self.strictness])
            .any(|strictness| strictness == Strictness::Strict)
    }
}

/// What is done about hosts that give themselves away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Contacts are prevented.
    #[default]
    Enforce,
    /// Everything passes; what would have been done is reported.
    Monitor,
    /// Nothing is judged.
    Off,
}

impl Mode {
    /// Stable name in snake case.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Enforce => "enforce",
            Self::Monitor => "monitor",
            Self::Off => "off",
        }
    }
}

/// What holds for some of the inside hosts. What an entry leaves out is as it is for everybody.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HostPolicy {
    /// What people call it.
    pub name: String,
    /// Networks of the hosts; of all networks if there is none.
    pub subnets: Vec<IpNet>,
    /// The gateway's interfaces towards the hosts; behind all of them if there is none. No host of a
    /// capture is behind any.
    pub interfaces: Vec<InterfaceName>,
    /// What the hosts send from; from anything if there is none. As for interfaces, no host of a capture does.
    pub macs: Vec<HardwareAddress>,
    /// What is done about them.
    pub mode: Option<Mode>,
    /// How long they stay locked after the last evidence; zero locks nobody.
    pub lock_time: Option<Duration>,
    /// What happens to traffic that nothing is known about once they are locked.
    pub strictness: Option<Strictness>,
}

impl HostPolicy {
    /// Whether the entry is about a host that was last seen at `place`: each list that says anything names
    /// it. An entry of which no list says anything is about nobody.
    #[must_use]
    pub fn names(&self, host: IpAddr, place: Place) -> bool {
        let is_listed = |found: bool, is_empty: bool| found || is_empty;
        let has_interface = place
            .interface
            .is_some_and(|it| self.interfaces.contains(&it));
        let has_mac = place.mac.is_some_and(|it| self.macs.contains(&it));
        let is_in_net = self.subnets.iter().any(|net| net.contains(&host));
        (has_interface || has_mac || is_in_net)
            && is_listed(is_in_net, self.subnets.is_empty())
            && is_listed(has_interface, self.interfaces.is_empty())
            && is_listed(has_mac, self.macs.is_empty())
    }
}

/// What holds for one host, all entries considered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EffectivePolicy {
    /// Index of the entry that names the host, if one does.
    pub entry: Option<usize>,
    /// What is done about it.
    pub mode: Mode,
    /// How long it stays locked.
    pub lock_time: Duration,
    /// What happens to its unknown traffic.
    pub strictness: Strictness,
}

/// What happens to traffic of a locked host that nothing is known about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Strictness {
    /// Pass it and watch.
    #[default]
    Precise,
    /// Drop it.
    Strict,
}

/// What happens when a locked host dials an address that has not proven itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LockedDials {
    /// Drop the SYN, unless it goes to a port of the web or below 1024.
    #[default]
    Drop,
    /// Pass it; the first payload decides.
    Watch,
}

/// What a client's ping is answered with, in the peer's name.
///
/// What each reply makes a client do is known from the open clients and the protocol notes: a pong
/// invites a TCP dial (which is then dropped) and keeps the client in its UDP mode; a second-kind
/// pong is "never" dialled by Kazaa; any other type says "up but full".
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// Type 0x28: a supernode with room.
    #[default]
    Pong,
    /// Type 0x29.
    Pong2,
    /// A well-formed message of another type.
    Other,
    /// No answer.
    None,
}

/// Addresses, of all ports or of one: never learned as peers, allowed, blocked by hand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NeverBlock {
    /// The addresses.
    pub net: IpNet,
    /// Only this port of them; all ports if absent.
    pub port: Option<u16>,
}

impl NeverBlock {
    /// Whether `end` is one of these.
    #[must_use]
    pub fn contains(&self, end: SocketAddr) -> bool {
        self.net.contains(&end.ip()) && self.port.is_none_or(|port| port == end.port())
    }
}

impl fmt::Display for NeverBlock {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_address = self.net.prefix_len() == self.net.max_prefix_len();
        match self.port {
            Some(port) if is_address => SocketAddr::new(self.net.addr(), port).fmt(formatter),
            Some(port) => write!(formatter, "{}:{port}", self.net),
            None if is_address => self.net.addr().fmt(formatter),
            None => self.net.fmt(formatter),
        }
    }
}

/// As it is displayed.
impl Serialize for NeverBlock {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl From<IpNet> for NeverBlock {
    fn from(net: IpNet) -> Self {
        Self { net, port: None }
    }
}

/// Upper bounds of every table. A full table makes room by forgetting what would end first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capacity {
    /// Flows watched at once.
    pub flows: usize,
    /// Octets of first payload held at once, over all flows.
    pub buffered: usize,
    /// Hosts locked at once.
    pub hosts: usize,
    /// (client, peer) pairs known at once.
    pub peers: usize,
    /// Addresses remembered as proven at once.
    pub proven: usize,
}

impl Default for Capacity {
    fn default() -> Self {
        Self {
            flows: 1 << 16,
            buffered: 64 << 20,
            hosts: 1 << 17,
            peers: 1 << 20,
            proven: 1 << 16,
        }
    }
}

/// The IPv4 ranges of RFC 1918 and the IPv6 range of RFC 4193: who is inside unless told otherwise.
#[must_use]
pub fn private_ranges() -> Vec<IpNet> {
    let v4 = [
        ([10, 0, 0, 0], 8),
        ([172, 16, 0, 0], 12),
        ([192, 168, 0, 0], 16),
    ];
    let v4 = v4.map(|(address, len)| IpNet::V4(Ipv4Net::new_assert(address.into(), len)));
    let v6 = ipnet::Ipv6Net::new_assert([0xfc00, 0, 0, 0, 0, 0, 0, 0].into(), 7);
    v4.into_iter().chain([IpNet::V6(v6)]).collect()
}
