//! The live gateway: take a packet, let the engine judge it, answer the kernel, carry out what the
//! engine asks for, sleep until something happens.
//!
//! Everything that can be refused is asked for before the rules are in place, and the rules go before
//! the queue does, so that no packet ever waits for a daemon that is not there.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use anyhow::Context as _;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tracing::{debug, info, trace, warn};

use super::backend::{self, Backend, Installed};
use super::clock::Clock;
use super::failure::Misconfigured;
use super::inbound;
use super::inject::Injector;
use super::kernel_memory;
use super::kernel_sets::{Change, Element, KernelSets};
use super::marks::{MarkBit, MarkField};
use super::queue::{self, Answer, PacketQueue, QueueReader, QueueSettings, QueuedPacket};
use super::rules::{RuleSettings, Transport};
use super::signals::EndRequests;
use super::{nft, surroundings};
use crate::config::{NeverBlock, Reply};
use crate::control::events::{EventTarget, EventWriter, Notice, Statistics};
use crate::suspects::{ANNOUNCE_INTERVAL, RELEARN_INTERVAL};
use crate::{Action, Conntrack, Engine, EngineConfig, Ingress, PassReason, Timestamp, Verdict};

/// Packets taken at once before actions and events are seen to.
const BATCH: usize = 64;
/// How long to sleep at most, so that refusals of the kernel's sets are reported in time.
const LONGEST_SLEEP: Duration = Duration::from_secs(1);
const BETWEEN_SET_REPORTS: Duration = Duration::from_secs(60);

/// Everything a daemon is told when it starts.
#[derive(Debug)]
pub struct RunSettings {
    /// The kernel's part.
    pub rules: RuleSettings,
    /// The engine's part.
    pub engine: EngineConfig,
    /// The mechanism to queue with; the best that works if absent.
    pub backend: Option<Backend>,
    /// Who reads the queue.
    pub queue_reader: QueueReader,
    /// Where events go.
    pub events: EventTarget,
    /// Seed of everything the engine draws.
    pub seed: u64,
}

/// Runs until asked to end, and leaves no rule behind.
///
/// # Errors
/// When a privilege, a kernel feature or a file is missing at the start, or rules cannot be removed.
pub fn run(settings: RunSettings) -> anyhow::Result<()> {
    let requests = EndRequests::listen().context("taking over signals")?;
    let events = open_events(&settings.events)?;
    let injector = open_injector(&settings.engine)?;
    let backend = backend::choose(settings.backend)?;
    let payload_test = backend::probe_payload_test();
    let rule_settings = RuleSettings {
        payload_test,
        ..settings.rules
    };
    let (queue, leftovers) = open_queue(rule_settings.queue, settings.queue_reader)?;
    let mut daemon = Daemon {
        clock: Clock::start(),
        blocked: blocked(&settings.engine),
        engine: Engine::new(guarded(settings.engine), settings.seed),
        marks: rule_settings.marks,
        queue,
        sets: KernelSets::start().context("starting the thread that writes sets")?,
        injector,
        events,
        counted: Counted::default(),
    };
    let is_open = look_around(&rule_settings)?;
    let rules = backend::apply(&rule_settings, backend)?;
    if leftovers.is_some() {
        daemon.take_over()?;
    }
    leftovers.into_iter().for_each(Installed::keep);
    daemon.announce(backend, &settings.events)?;
    if is_open {
        daemon.warn_open();
    }

    let served = daemon.serve(&requests);
    daemon.sets.finish();
    let removed = rules.remove();
    daemon.finish();
    served.and(removed)
}

fn open_events(target: &EventTarget) -> anyhow::Result<EventWriter> {
    EventWriter::open(target).map_err(|error| {
        let message = format!("cannot write events to {target}: {error}; choose another --events");
        Misconfigured(message).into()
    })
}

/// Needed only where something is to be sent in a peer's name.
fn open_injector(engine: &EngineConfig) -> anyhow::Result<Option<Injector>> {
    if engine.reply == Reply::None && !engine.reprobe {
        return Ok(None);
    }
    Injector::open().map(Some)
}

/// Binds the queue while no rule feeds it. Rules that a killed daemon has left are held meanwhile: the
/// queue would lose packets that come before it is set up.
fn open_queue(
    number: u16,
    reader: QueueReader,
) -> anyhow::Result<(Box<dyn PacketQueue>, Option<Installed>)> {
    let leftovers = if backend::is_applied()? {
        queue::check_free(number)?;
        Some(backend::hold()?)
    } else {
        None
    };
    let queue = queue::open(reader, QueueSettings::of(number))?;
    Ok((queue, leftovers))
}

/// The transports over which the kernel keeps a client from a peer it is known to use.
pub const fn blocked(engine: &EngineConfig) -> &'static [Transport] {
    if engine.block_udp {
        &[Transport::Udp, Transport::Tcp]
    } else {
        &[Transport::Tcp]
    }
}

/// The engine's configuration with the machine's own surroundings never blocked.
fn guarded(mut engine: EngineConfig) -> EngineConfig {
    engine
        .never_block
        .extend(surroundings::addresses().into_iter().map(NeverBlock::from));
    engine
}

/// Says what will keep ftwall from doing its work although everything starts; true if hosts inside
/// seem to be reachable from outside.
fn look_around(rules: &RuleSettings) -> anyhow::Result<bool> {
    if !surroundings::forwards() {
        warn!("this machine does not forward IPv4 packets: set net.ipv4.ip_forward=1");
    }
    let listing = nft::list()?;
    if listing.objects("flowtable").next().is_some() {
        warn!("a flow table is in use: packets that take it never come to ftwall");
    }
    Ok(rules.inbound.is_none() && inbound::find(&listing).is_none())
}

struct Daemon {
    clock: Clock,
    engine: Engine,
    marks: MarkField,
    /// What is dropped between a client and a peer it is known to use.
    blocked: &'static [Transport],
    queue: Box<dyn PacketQueue>,
    sets: KernelSets,
    injector: Option<Injector>,
    events: EventWriter,
    counted: Counted,
}

/// What only the shell can count.
#[derive(Debug, Default)]
struct Counted {
    injections_failed: u64,
    set_changes_lost: u64,
    set_writes_failed: u64,
    next_set_report: Timestamp,
}

impl Daemon {
    /// Says that queue and rules are live, first thing on standard output wherever events go.
    fn announce(&mut self, backend: Backend, target: &EventTarget) -> anyhow::Result<()> {
        let ready = Notice::Ready {
            backend: backend.name(),
            queue: self.queue.number(),
        };
        let now = self.clock.now();
        let buffer = self
            .queue
            .receive_buffer()
            .context("asking for the size of the buffer")?;
        info!(%backend, queue = self.queue.number(), buffer, "queue and rules are live");
        self.events.notice(now, &ready);
        self.events.flush();
        if *target != EventTarget::Stdout {
            let mut stdout = open_events(&EventTarget::Stdout)?;
            stdout.notice(now, &ready);
            stdout.flush();
        }
        Ok(())
    }

    /// Learns from the kernel what a daemon that died knew of hosts and peers.
    fn take_over(&mut self) -> anyhow::Result<()> {
        let listing = nft::list().context("asking the kernel what it remembers")?;
        let left = kernel_memory::read(&listing);
        info!(
            entries = left.len(),
            "taken over from a daemon before this one"
        );
        let now = self.clock.now();
        for entry in left {
            self.engine.remember(now, entry);
        }
        Ok(())
    }

    fn warn_open(&mut self) {
        warn!("{}", inbound::OPEN);
        let message = inbound::OPEN.to_owned();
        self.events
            .notice(self.clock.now(), &Notice::InboundOpen { message });
        self.events.flush();
    }

    fn serve(&mut self, requests: &EndRequests) -> anyhow::Result<()> {
        loop {
            self.sleep(requests).context("waiting for packets")?;
            if requests.arrived() {
                return Ok(());
            }
            self.take_packets();
            self.see_to_time();
            self.carry_out_actions();
            self.report();
        }
    }

    /// Until a packet or a signal comes, or the engine wants to be called.
    fn sleep(&self, requests: &EndRequests) -> rustix::io::Result<()> {
        let now = self.clock.now();
        let wanted = self
            .engine
            .poll_timeout()
            .map(|due| due.saturating_since(now));
        let timeout = wanted.unwrap_or(LONGEST_SLEEP).min(LONGEST_SLEEP);
        let timeout = Timespec::try_from(timeout).expect("a second fits");
        let mut sources = [
            PollFd::new(&self.queue, PollFlags::IN),
            PollFd::new(requests, PollFlags::IN),
        ];
        match poll(&mut sources, Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn take_packets(&mut self) {
        let Daemon {
            clock,
            engine,
            marks,
            queue,
            ..
        } = self;
        queue.serve(BATCH, &mut |packet| {
            judge(engine, clock.now(), *marks, packet)
        });
    }

    fn see_to_time(&mut self) {
        let now = self.clock.now();
        if self.engine.poll_timeout().is_some_and(|due| due <= now) {
            self.engine.handle_timeout(now);
        }
    }

    fn carry_out_actions(&mut self) {
        while let Some(action) = self.engine.poll_action() {
            for change in set_changes(&action, self.blocked) {
                self.change_set(change);
            }
            if let Action::Answer { from, to, payload } | Action::Probe { from, to, payload } =
                action
            {
                self.inject(from, to, &payload);
            }
        }
    }

    fn change_set(&mut self, change: Change) {
        if !self.sets.request(change) {
            self.counted.set_changes_lost += 1;
        }
    }

    fn inject(&mut self, from: SocketAddrV4, to: SocketAddrV4, payload: &[u8]) {
        let Some(injector) = &self.injector else {
            return;
        };
        if let Err(error) = injector.send(from, to, payload) {
            debug!(%error, %to, "a datagram could not be sent");
            self.counted.injections_failed += 1;
        }
    }

    fn report(&mut self) {
        let now = self.clock.now();
        while let Some(event) = self.engine.poll_event() {
            self.events.event(now, &event);
        }
        self.report_set_failures(now);
        self.events.flush();
    }

    /// A set that is full refuses every change from then on: all are counted, one a minute is told.
    fn report_set_failures(&mut self, now: Timestamp) {
        let failures: Vec<String> = self
            .sets
            .failures()
            .map(|error| error.to_string())
            .collect();
        for message in failures {
            self.counted.set_writes_failed += 1;
            if self.counted.next_set_report <= now {
                self.counted.next_set_report = now + BETWEEN_SET_REPORTS;
                warn!(message, "the kernel refuses changes of its sets");
                self.events
                    .notice(now, &Notice::KernelSetsFailed { message });
            }
        }
    }

    /// Answers what still waits, now that no rule sends more, and says what was counted.
    fn finish(mut self) {
        self.take_packets();
        self.carry_out_actions();
        self.report();
        let statistics = self.statistics();
        info!(packets = statistics.packets, "ended");
        self.events
            .notice(self.clock.now(), &Notice::Stats { ftwall: statistics });
        self.events.flush();
    }

    fn statistics(&self) -> Statistics {
        let faults = self.queue.faults().iter();
        Statistics {
            queue_errors: faults
                .map(|(fault, count)| (fault.to_string(), count))
                .collect(),
            queue_losses: queue::losses(self.queue.number()).unwrap_or_default(),
            injections_failed: self.counted.injections_failed,
            set_changes_lost: self.counted.set_changes_lost,
            set_writes_failed: self.counted.set_writes_failed,
            events_lost: self.events.lost(),
            ..Statistics::from(self.engine.counters())
        }
    }
}

fn judge(
    engine: &mut Engine,
    now: Timestamp,
    marks: MarkField,
    packet: QueuedPacket<'_>,
) -> Answer {
    let ingress = Ingress {
        bytes: packet.bytes,
        conntrack: Some(question(marks, packet.mark)),
    };
    let verdict = engine.handle_packet(now, ingress);
    trace!(
        action = verdict.action(),
        reason = verdict.reason(),
        "judged"
    );
    answer(marks, packet.mark, verdict)
}

/// What the kernel has written into the mark of a packet that it hands over.
#[must_use]
pub const fn question(marks: MarkField, mark: u32) -> Conntrack {
    Conntrack {
        reply: marks.is_set(mark, MarkBit::Reply),
        from_start: marks.is_set(mark, MarkBit::FromStart),
    }
}

/// What an action changes in the kernel's sets, where peers are `blocked` over these transports. The
/// engine does not announce every renewal and takes out itself what has ended: elements stay longer by
/// the time a renewal may go unannounced, so that the kernel never forgets first.
pub fn set_changes(action: &Action, blocked: &[Transport]) -> Vec<Change> {
    let peer = |client: Ipv4Addr, peer: SocketAddrV4, stays: Option<Duration>| {
        let change = |transport: &Transport| (Element::Peer(client, peer, *transport), stays);
        blocked.iter().map(change).collect()
    };
    match *action {
        Action::LockHost { host, for_ } => {
            vec![(
                Element::Locked(host),
                Some(for_.saturating_add(ANNOUNCE_INTERVAL)),
            )]
        }
        Action::ReleaseHost { host } => vec![(Element::Locked(host), None)],
        Action::LearnPeer {
            client,
            peer: at,
            for_,
            kernel_drop: true,
        } => peer(client, at, Some(for_.saturating_add(RELEARN_INTERVAL))),
        // Ports of the web are decided by payload; the engine alone knows this peer.
        Action::LearnPeer {
            kernel_drop: false, ..
        } => Vec::new(),
        Action::ForgetPeer { client, peer: at } => peer(client, at, None),
        Action::Answer { .. } | Action::Probe { .. } => Vec::new(),
    }
}

/// What the kernel is told: a proof travels in the packet's mark, beside whatever else is there.
#[must_use]
pub const fn answer(marks: MarkField, mark: u32, verdict: Verdict) -> Answer {
    match verdict {
        // The beginning of its connection is still to come.
        Verdict::Pass(PassReason::NoPayload) => Answer::Accept {
            mark: Some(marks.without_questions(mark)),
        },
        Verdict::Pass(_) => Answer::Accept { mark: None },
        Verdict::Tolerate(_) => Answer::Accept {
            mark: Some(marks.with(mark, MarkBit::Tolerated)),
        },
        Verdict::Clear(_) => Answer::Accept {
            mark: Some(marks.with(mark, MarkBit::Cleared)),
        },
        Verdict::Drop(_) => Answer::Drop,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ClearReason, DropReason, TolerateReason};

    #[test]
    fn a_proof_is_added_to_the_marks_that_are_there_and_a_mere_pass_of_payload_changes_none() {
        let marks = MarkField::DEFAULT;
        let cases = [
            (
                Verdict::Pass(PassReason::Undecided),
                Answer::Accept { mark: None },
            ),
            (
                Verdict::Pass(PassReason::NoPayload),
                Answer::Accept {
                    mark: Some(0x0000_0007),
                },
            ),
            (
                Verdict::Clear(ClearReason::Http),
                Answer::Accept {
                    mark: Some(0x1100_0007),
                },
            ),
            (
                Verdict::Tolerate(TolerateReason::Midstream),
                Answer::Accept {
                    mark: Some(0x2100_0007),
                },
            ),
            (Verdict::Drop(DropReason::Ping), Answer::Drop),
        ];
        for (verdict, expected) in cases {
            assert_eq!(answer(marks, 0x0100_0007, verdict), expected, "{verdict:?}");
        }
    }

    #[test]
    fn the_kernel_forgets_nobody_before_the_engine_does() {
        let (host, for_) = (Ipv4Addr::new(10, 77, 1, 1), Duration::from_secs(120));
        let lock = set_changes(&Action::LockHost { host, for_ }, &[]);
        assert_eq!(
            lock,
            [(Element::Locked(host), Some(for_ + ANNOUNCE_INTERVAL))]
        );
        let learned = Action::LearnPeer {
            client: host,
            peer: SocketAddrV4::new(Ipv4Addr::new(198, 18, 0, 1), 1214),
            for_,
            kernel_drop: true,
        };
        let stays = set_changes(&learned, &[Transport::Tcp]);
        assert_eq!(stays[0].1, Some(for_ + RELEARN_INTERVAL));
    }

    #[test]
    fn the_machines_own_addresses_are_never_blocked() {
        let own = surroundings::addresses();
        let guarded = guarded(EngineConfig::default());
        for net in own {
            assert!(
                guarded
                    .never_block
                    .contains(&NeverBlock { net, port: None }),
                "{net}"
            );
        }
    }

    #[test]
    fn where_udp_is_not_blocked_a_known_peer_is_cut_off_over_tcp_alone() {
        let lenient = EngineConfig {
            block_udp: false,
            ..EngineConfig::default()
        };
        assert_eq!(blocked(&lenient), [Transport::Tcp]);
        assert_eq!(
            blocked(&EngineConfig::default()),
            [Transport::Udp, Transport::Tcp]
        );
    }
}
