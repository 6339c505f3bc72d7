//! Judging a packet allocates nothing once what it belongs to is known: a counting allocator is this test's
//! own, so that no other test allocates beside it.

#[path = "../benches/engine/packets.rs"]
#[expect(
    dead_code,
    reason = "the benches write kinds that are not counted here"
)]
mod packets;

use std::alloc::{GlobalAlloc, Layout, System};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ftwall::config::{HostPolicy, Mode};
use ftwall::{
    Conntrack, Engine, EngineConfig, HardwareAddress, Ingress, Link, PassReason, Timestamp, Verdict,
};

use packets::{ACK, ipv6, tcp, udp};

/// The system's allocator, and how often it was asked for memory.
struct Counting;

static ASKED: AtomicU64 = AtomicU64::new(0);

// SAFETY: every call is handed on to the system's allocator as it is; counting touches no memory of it.
#[expect(unsafe_code, reason = "an allocator is implemented by an unsafe trait")]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ASKED.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller promises what the system's allocator asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn realloc(&self, place: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ASKED.fetch_add(1, Ordering::Relaxed);
        // SAFETY: as above.
        unsafe { System.realloc(place, layout, size) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(place, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const CLIENT: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(10, 77, 1, 1), 4000);
const SERVER: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(203, 0, 113, 1), 443);
const PEER: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(198, 18, 0, 1), 1214);
const PING: &[u8] = b"\x27\0\0\0\x29\x80KaZaA\0";
const HELLO: &[u8] = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\x9a\x11\x7c";

/// Packets that a gateway sees over and over.
const ROUNDS: u32 = 10_000;

#[test]
fn a_packet_whose_flow_or_host_is_known_costs_no_allocation() {
    let cases: [(&str, Vec<u8>, &str); 7] = [
        ("a datagram", udp(CLIENT, SERVER, &[0x51; 64]), "pass"),
        (
            "a segment without payload",
            tcp(CLIENT, SERVER, (1000, 5000), ACK, b""),
            "pass",
        ),
        (
            "a flow proven to be TLS",
            tcp(CLIENT, SERVER, (1000, 5000), ACK, HELLO),
            "clear",
        ),
        ("IPv6", ipv6(), "pass"),
        (
            "a packet that stays outside",
            udp(PEER, SERVER, b"x"),
            "pass",
        ),
        (
            "a packet that is cut",
            udp(CLIENT, SERVER, b"x")[..21].to_vec(),
            "pass",
        ),
        ("a locked host's ping", udp(CLIENT, PEER, PING), "drop"),
    ];
    let before = ASKED.load(Ordering::Relaxed);
    drop(std::hint::black_box(Box::new(7)));
    assert!(
        ASKED.load(Ordering::Relaxed) > before,
        "the allocator counts"
    );
    for (what, packet, action) in cases {
        let mut site = Site::new(EngineConfig::default(), None);
        // What is remembered of it, and room for what is said about it.
        (0..ROUNDS).for_each(|_| {
            site.judge(&packet);
        });
        let before = ASKED.load(Ordering::Relaxed);
        for _ in 0..ROUNDS {
            assert_eq!(site.judge(&packet).action(), action, "{what}");
        }
        let asked = ASKED.load(Ordering::Relaxed) - before;
        assert_eq!(asked, 0, "{what}: {asked} allocations in {ROUNDS} packets");
    }
    assert_that_places_cost_no_allocation();
}

/// A policy by interface costs none either. Not a test of its own, which would allocate beside the other.
fn assert_that_places_cost_no_allocation() {
    let guests = HostPolicy {
        interfaces: vec!["guest0".parse().expect("a name")],
        macs: vec![HardwareAddress([2; 6])],
        mode: Some(Mode::Off),
        ..HostPolicy::default()
    };
    let config = EngineConfig {
        policies: vec![guests],
        ..EngineConfig::default()
    };
    let link = Link {
        entered: "guest0".parse().ok(),
        leaves: "wan0".parse().ok(),
        sender: Some(HardwareAddress([2; 6])),
    };
    let mut site = Site::new(config, Some(link));
    let packet = udp(CLIENT, PEER, PING);
    site.judge(&packet);
    let before = ASKED.load(Ordering::Relaxed);
    for _ in 0..ROUNDS {
        assert_eq!(site.judge(&packet), Verdict::Pass(PassReason::PolicyOff));
    }
    assert_eq!(ASKED.load(Ordering::Relaxed) - before, 0);
}

/// An engine whose clock goes on by itself, and whoever drains it.
struct Site {
    engine: Engine,
    now: Timestamp,
    link: Option<Link>,
}

impl Site {
    fn new(config: EngineConfig, link: Option<Link>) -> Self {
        Self {
            engine: Engine::new(config, 7),
            now: Timestamp::from_secs(1_000_000),
            link,
        }
    }

    fn judge(&mut self, bytes: &[u8]) -> Verdict {
        self.now = self.now + Duration::from_micros(10);
        if self
            .engine
            .poll_timeout()
            .is_some_and(|due| due <= self.now)
        {
            self.engine.handle_timeout(self.now);
        }
        let conntrack = Some(Conntrack {
            reply: false,
            from_start: true,
        });
        let verdict = self.engine.handle_packet(
            self.now,
            Ingress {
                bytes,
                conntrack,
                link: self.link,
            },
        );
        while self.engine.poll_action().is_some() {}
        while self.engine.poll_event().is_some() {}
        verdict
    }
}
