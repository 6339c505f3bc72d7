//! An engine on a gateway whose clock goes on by itself, empty or full.

use std::fs;
use std::hint::black_box;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use ftwall::{Conntrack, Engine, EngineConfig, Ingress, Remembered, Timestamp, Verdict};

/// Peers that a full engine knows, each of one host: ten for each host.
const PEERS: u32 = 1_000_000;
/// Hosts that a full engine has locked.
const HOSTS: u32 = 100_000;
/// A hundred thousand packets a second come to the daemon.
const BETWEEN_PACKETS: Duration = Duration::from_micros(10);
const SEED: u64 = 7;
const LONG: Duration = Duration::from_secs(7200);

/// How much an engine knows when measuring begins.
pub(crate) struct Fullness {
    peers: u32,
    hosts: u32,
}

/// One packet and what the kernel says of it.
pub(crate) struct Arrival {
    pub(crate) bytes: Vec<u8>,
    pub(crate) conntrack: Option<Conntrack>,
}

/// A gateway: an engine, its clock, and numbers for hosts and flows that were not there before.
pub(crate) struct Site {
    engine: Engine,
    now: Timestamp,
    drawn: u32,
}

impl Site {
    pub(crate) fn empty() -> Self {
        Fullness::EMPTY.site()
    }

    pub(crate) fn loaded() -> Self {
        Fullness::LOADED.site()
    }

    /// What the daemon does for a packet, save the system calls.
    pub(crate) fn judge(&mut self, arrival: &Arrival) -> Verdict {
        self.now = self.now + BETWEEN_PACKETS;
        if self
            .engine
            .poll_timeout()
            .is_some_and(|due| due <= self.now)
        {
            self.engine.handle_timeout(self.now);
        }
        let Arrival { bytes, conntrack } = arrival;
        let conntrack = *conntrack;
        let verdict = self.engine.handle_packet(
            self.now,
            Ingress {
                bytes,
                conntrack,
                link: None,
            },
        );
        while let Some(action) = self.engine.poll_action() {
            black_box(action);
        }
        while let Some(event) = self.engine.poll_event() {
            black_box(event);
        }
        verdict
    }

    /// A number that was not given out before.
    pub(crate) fn draw(&mut self) -> u32 {
        self.drawn += 1;
        self.drawn
    }
}

impl Fullness {
    const EMPTY: Self = Self { peers: 0, hosts: 0 };
    const LOADED: Self = Self {
        peers: PEERS,
        hosts: HOSTS,
    };

    /// Says what the full engine takes, as the kernel counts the pages of this process.
    pub(crate) fn report_memory() {
        let before = resident();
        let site = Self::LOADED.site();
        let taken = resident().saturating_sub(before);
        println!("{PEERS} learned peers and {HOSTS} locked hosts: {taken} MiB");
        drop(site);
    }

    fn site(&self) -> Site {
        let now = Timestamp::from_secs(1_000_000);
        let mut engine = Engine::new(config(), SEED);
        for number in 0..self.hosts {
            let host = known_host(number);
            engine.remember(now, Remembered::Locked { host, for_: LONG });
        }
        for number in 0..self.peers {
            let (client, peer) = (known_host(number % HOSTS), known_peer(number));
            let for_ = LONG;
            engine.remember(now, Remembered::Peer { client, peer, for_ });
        }
        while engine.poll_action().is_some() {}
        Site {
            engine,
            now,
            drawn: 0,
        }
    }
}

/// The product's, but that no host's share of a minute is ever used up and nothing ends meanwhile.
fn config() -> EngineConfig {
    EngineConfig {
        new_peers_per_minute: u32::MAX,
        answers_per_minute: u32::MAX,
        lock_time: LONG,
        ..EngineConfig::default()
    }
}

fn known_host(number: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(Ipv4Addr::new(10, 128, 0, 0).to_bits() + number)
}

fn known_peer(number: u32) -> SocketAddrV4 {
    let address = Ipv4Addr::from_bits(Ipv4Addr::new(60, 0, 0, 0).to_bits() + number);
    SocketAddrV4::new(address, 1214)
}

/// Resident set of this process in MiB; nothing where the kernel does not say.
fn resident() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kibibytes = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse().ok());
    kibibytes.unwrap_or(0_u64) / 1024
}
