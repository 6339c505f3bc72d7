//! The kernel's pre-filter hands over whatever the engine needs: an engine that sees every packet
//! decides as one that sees what the kernel queues.
//!
//! One difference is allowed, and counted. An engine that has not seen the SYN does not know where a
//! connection begins. Where packets change places, or a suspect says what resembles nothing, it may hold
//! back what the other lets pass, or cuts for good. From there on the two remember different things, and
//! the comparison ends.
//!
//! `PREFILTER_PACKETS` says how many generated packets are tried at least, 10,000 if unset.

mod generate;
mod kernel;

use std::cell::Cell;
use std::env;
use std::time::Duration;

use ftwall::{
    Action, Conntrack, DropReason, Engine, Ingress, PassReason, Timestamp, TolerateReason, Verdict,
};
use lab::presets::Office;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestCaseError, TestRunner};
use scenarios::device::Device;
use scenarios::stage::memory::gateway::{EPOCH, Forward, Gateway};

use generate::{Sent, Talk, talk};

/// Options of `ftwall run` that change what is handed over or what is done with it.
const VARIANTS: [&[&str]; 5] = [
    &[],
    &["--queues", "4"],
    &["--strictness", "strict"],
    &["--locked-dials", "watch", "--no-block-udp"],
    // Both run out between two packets: set elements begin a moment later than what the engine remembers.
    &["--lock-time", "3005ms", "--peer-expiry", "5005ms"],
];

/// Conversations of a case at least, and packets of a conversation.
const FEWEST_TALKS: usize = 4;
const FEWEST_PACKETS: usize = 1;

/// Longer than a change of sets takes, so that engine and kernel agree on who is known.
const BETWEEN_PACKETS: Duration = Duration::from_millis(10);

#[test]
fn whatever_the_engine_would_not_plainly_pass_is_queued_or_decided_in_the_kernel() {
    let wanted = env::var("PREFILTER_PACKETS").map_or(10_000, |text| {
        text.parse().expect("PREFILTER_PACKETS is a number")
    });
    let fewest = FEWEST_TALKS * FEWEST_PACKETS;
    let mut runner = TestRunner::new(Config {
        cases: u32::try_from(wanted / fewest).expect("fewer than four thousand million"),
        failure_persistence: None,
        ..Config::default()
    });
    let talks = (0..VARIANTS.len(), vec(talk(), FEWEST_TALKS..12));
    let seen = Cell::new(Tally::default());
    let result = runner.run(&talks, |(variant, talks)| {
        let tally = compare(VARIANTS[variant], &talks)?;
        seen.set(seen.get().plus(tally));
        Ok(())
    });
    let seen = seen.get();
    println!("{seen:?}");
    if let Err(failure) = result {
        panic!("{failure}");
    }
    assert!(seen.packets >= wanted, "{seen:?}");
    assert!(
        seen.queued > wanted / 10 && seen.dropped > wanted / 100,
        "{seen:?}"
    );
    assert!(seen.parted < seen.packets / 500, "{seen:?}");
    assert!(
        seen.spared > wanted / 10,
        "the kernel spares the daemon something: {seen:?}"
    );
}

/// A suspect's first words resemble nothing: a gateway that has not seen the SYN holds them back once,
/// one that has cuts the connection. Only one of them takes the answer for the first word it hears.
#[test]
fn what_the_gateway_withholds_and_a_watcher_cuts_is_where_they_part() {
    const STRICT: &[&str] = VARIANTS[2];
    let compared = compare(STRICT, &generate::nul_where_a_suspect_is_asked());
    let tally = compared.expect("the one difference that is allowed");
    assert_eq!(tally.parted, 1, "{tally:?}");
}

/// What a comparison has seen.
#[derive(Debug, Clone, Copy, Default)]
struct Tally {
    packets: usize,
    queued: usize,
    dropped: usize,
    /// Neither queued nor dropped.
    spared: usize,
    /// Cases that ended where the gateway held back what an engine that sees everything passes or cuts.
    parted: usize,
}

impl Tally {
    fn plus(self, other: Self) -> Self {
        Self {
            packets: self.packets + other.packets,
            queued: self.queued + other.queued,
            dropped: self.dropped + other.dropped,
            spared: self.spared + other.spared,
            parted: self.parted + other.parted,
        }
    }
}

/// Plays conversations one after the other to a gateway and to an engine that sees everything.
fn compare(options: &[&str], talks: &[Talk]) -> Result<Tally, TestCaseError> {
    let mut gateway = Gateway::new(Device::Ftwall, options, None, 7).expect("documented options");
    let mut watcher = Watcher::new(options);
    let mut now = Duration::from_secs(1);
    let mut tally = Tally::default();
    let (mut is_orderly, mut withheld) = (true, 0);
    for (number, talk) in talks.iter().enumerate() {
        is_orderly &= talk.is_orderly();
        // What conntrack knows: a connection begins with the first packet that gets through.
        let (mut is_fresh, mut opened_by) = (false, None);
        for sent in talk.packets(number) {
            now += BETWEEN_PACKETS;
            while gateway.poll_timeout().is_some_and(|due| due <= now) {
                gateway.handle_timeout(now);
            }
            while gateway.poll_injected().is_some() {}
            let queued_before = gateway.counts().queued;
            let forward = gateway.forward(now, sent.from, &mut sent.bytes.clone());
            let is_queued = gateway.counts().queued > queued_before;
            let is_dropped = forward == Forward::Drop;
            let conntrack = Conntrack {
                reply: opened_by.is_some_and(|side| side != sent.from),
                from_start: is_fresh,
            };
            let seen = watcher.watch(now, &sent, conntrack);
            let what = || format!("{} of conversation {number}, {talk:?}", Shown(&sent));
            let is_handed_over = is_queued || is_dropped;
            prop_assert!(
                !seen.is_notable || is_handed_over,
                "{}: {}",
                seen.verdict,
                what()
            );
            prop_assert!(!seen.is_drop || is_dropped, "{}: {}", seen.verdict, what());
            tally = tally.plus(Tally {
                packets: 1,
                queued: usize::from(is_queued),
                dropped: usize::from(is_dropped),
                spared: usize::from(!is_handed_over),
                ..Tally::default()
            });
            let withheld_before = withheld;
            if is_queued && is_dropped {
                withheld = withheld_by(&gateway);
            }
            let waits = withheld > withheld_before;
            if is_dropped && !seen.is_drop || waits && !seen.is_withheld {
                let may_be_middle = seen.is_nothing_known && sent.has_payload;
                prop_assert!(!is_orderly || may_be_middle, "{}: {}", seen.verdict, what());
                tally.parted += 1;
                return Ok(tally);
            }
            if !is_dropped {
                is_fresh = sent.is_syn || is_fresh && !sent.has_payload;
                opened_by.get_or_insert(sent.from);
            } else if sent.is_syn {
                break;
            }
        }
    }
    Ok(tally)
}

/// How many packets the gateway's daemon has held back until their senders repeat them.
fn withheld_by(gateway: &Gateway) -> u64 {
    let statistics = gateway.statistics().expect("its daemon runs");
    let withheld = Verdict::Drop(DropReason::Withheld);
    let name = format!("{}/{}", withheld.action(), withheld.reason());
    statistics.verdicts.get(&name).copied().unwrap_or_default()
}

/// An engine that is shown every packet, with what conntrack would know of it.
struct Watcher {
    engine: Engine,
}

/// What the watcher makes of one packet.
struct Seen {
    verdict: String,
    is_drop: bool,
    /// Dropped until its sender repeats it.
    is_withheld: bool,
    /// Dropped, taken for evidence, or followed by an action.
    is_notable: bool,
    /// It resembles nothing.
    is_nothing_known: bool,
}

impl Watcher {
    fn new(options: &[&str]) -> Self {
        let inside = Office::LAN.to_string();
        let options = [&["--inside", &inside], options].concat();
        let settings = ftwall::cli::run_settings(&options).expect("documented options");
        Self {
            engine: Engine::new(settings.engine, 7),
        }
    }

    fn watch(&mut self, now: Duration, sent: &Sent, conntrack: Conntrack) -> Seen {
        let now = Timestamp::after_origin(EPOCH + now);
        while self.engine.poll_timeout().is_some_and(|due| due <= now) {
            self.engine.handle_timeout(now);
        }
        while self.engine.poll_action().is_some() {}
        let evidence = self.evidence();
        let ingress = Ingress {
            bytes: &sent.bytes,
            conntrack: Some(conntrack),
            link: None,
        };
        let verdict = self.engine.handle_packet(now, ingress);
        let actions = std::iter::from_fn(|| self.engine.poll_action());
        // A proof is for other engines to hear; the kernel may have had it before.
        let is_held_against = |action: Action| !matches!(action, Action::ProveAddress { .. });
        let acts = actions.map(is_held_against).fold(false, |any, is| any | is);
        while self.engine.poll_event().is_some() {}
        Seen {
            verdict: format!("{}/{}", verdict.action(), verdict.reason()),
            is_drop: verdict.is_drop(),
            is_withheld: verdict == Verdict::Drop(DropReason::Withheld),
            is_nothing_known: matches!(
                verdict,
                Verdict::Pass(PassReason::Undecided)
                    | Verdict::Drop(DropReason::Strict | DropReason::KnownPeer)
                    | Verdict::Tolerate(TolerateReason::Unrecognised)
            ),
            is_notable: verdict.is_drop() || acts || self.evidence() > evidence,
        }
    }

    fn evidence(&self) -> u64 {
        self.engine.counters().evidence.values().sum()
    }
}

/// A packet in a sentence.
struct Shown<'a>(&'a Sent);

impl std::fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "from {:?}: {:02x?}", self.0.from, self.0.bytes)
    }
}
