//! A worker: it takes packets, lets its engine judge them, answers the kernel, carries out what the
//! engine asks for, and sleeps until something happens.
//!
//! Everything a packet meets belongs to one worker, which runs on one thread: queues, engine, injector.
//! What leaves it goes through bounded channels that are never waited for, and what comes to it are
//! [`Request`]s, taken up between packets. So no packet meets a lock, and nobody who is slow - a reader
//! of events, the kernel's sets, an operator - holds one up.

use std::fmt;
use std::net::SocketAddrV4;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use anyhow::Context as _;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tracing::{debug, trace};

use super::bell::Bell;
use super::clock::Clock;
use super::event_log::EventSender;
use super::fan_out::QueueClass;
use super::inject::Injector;
use super::interface_names::InterfaceNames;
use super::kernel_sets::{Change, SetRequests, blocked, set_changes};
use super::latency::Latency;
use super::marks::{MarkBit, MarkField};
use super::queue::{self, Answer, PacketQueue, QueuedPacket};
use super::rules::Transport;
use super::sign_of_life::SignOfLife;
use super::take_over::Known;
use crate::control::events::Statistics;
use crate::state::{self, Fact, Kept, Recorder};
use crate::{
    Action, Conntrack, Engine, EngineConfig, EventType, Hearsay, Ingress, Link, PassReason,
    Timestamp, Verdict,
};

/// Packets taken of one queue at once before others, requests and time are seen to.
const BATCH: usize = 64;
/// Packets of one queue that are answered at the end, at most: no rule sends more by then.
const LAST_BATCH: usize = 1 << 14;
/// How long to sleep at most, so that what neighbours say does not pile up.
const LONGEST_SLEEP: Duration = Duration::from_secs(1);
/// What may wait to be heard by one worker.
const HEARSAY_BACKLOG: usize = 1 << 12;

/// What a worker is asked between two packets.
#[derive(Debug)]
pub enum Request {
    /// What was counted so far.
    Statistics(Reply<Statistics>),
    /// Something an operator wants of the engine.
    Operate(Operation),
    /// Another configuration.
    Reconfigure(Box<EngineConfig>, Reply<()>),
    /// Take no more packets. Those that come meanwhile wait in the queues.
    Stop,
}

/// What an operator wants of an engine; the answer goes where the operation itself knows.
pub struct Operation(Ask);

type Ask = Box<dyn FnOnce(&mut Engine, Timestamp) + Send>;

impl fmt::Debug for Operation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Operation")
    }
}

impl Request {
    /// Asks the engine, and sends what it says.
    pub fn operate<T: Send + 'static>(
        reply: Reply<T>,
        ask: impl FnOnce(&mut Engine, Timestamp) -> T + Send + 'static,
    ) -> Request {
        let operation = move |engine: &mut Engine, now: Timestamp| {
            let _ = reply.send(ask(engine, now));
        };
        Request::Operate(Operation(Box::new(operation)))
    }
}

/// Where an answer to a [`Request`] goes; has room for one. Who asked may have given up.
pub type Reply<T> = SyncSender<T>;

/// Where requests come from.
#[derive(Debug)]
pub(super) struct Inbox {
    pub(super) requests: Receiver<Request>,
    /// Rung after each request.
    pub(super) bell: Bell,
    /// Counted up once in each round: a worker that hangs stops counting.
    pub(super) rounds: Arc<AtomicU64>,
}

/// Everything that packets of some hosts meet.
pub struct Worker {
    pub(super) clock: Clock,
    pub(super) engine: Engine,
    pub(super) marks: MarkField,
    /// What is dropped between a client and a peer it is known to use.
    pub(super) blocked: &'static [Transport],
    /// The most urgent first.
    pub(super) queues: Vec<Box<dyn PacketQueue>>,
    pub(super) injector: Option<Injector>,
    pub(super) interfaces: InterfaceNames,
    /// Absent once stopped: the sets go with the rules.
    pub(super) sets: Option<SetRequests>,
    /// Absent where nothing passes without a worker.
    pub(super) sign_of_life: Option<SignOfLife>,
    pub(super) neighbours: Neighbours,
    pub(super) events: EventSender,
    /// Absent where nothing is kept over a restart.
    pub(super) recorder: Option<Recorder>,
    pub(super) counted: Counted,
    /// How long to look for more packets without sleep after each.
    pub(super) busy_poll: Duration,
    /// When packets were last taken.
    pub(super) served: Timestamp,
}

/// What there is to do after a sleep.
#[derive(Clone, Copy, Debug, Default)]
struct Ready {
    queues: [bool; QueueClass::COUNT],
    bell: bool,
}

impl Ready {
    const ALL: Ready = Ready {
        queues: [true; QueueClass::COUNT],
        bell: true,
    };

    fn of([queues @ .., bell]: &[PollFd<'_>; QueueClass::COUNT + 1]) -> Ready {
        let is_ready = |source: &PollFd<'_>| !source.revents().is_empty();
        Ready {
            queues: std::array::from_fn(|place| is_ready(&queues[place])),
            bell: is_ready(bell),
        }
    }
}

/// What only the shell can count.
#[derive(Debug, Default)]
pub(super) struct Counted {
    injections_failed: u64,
    set_changes_lost: u64,
    hearsay_lost: u64,
    clients_locked: u64,
    peers_learned: u64,
    latency: Latency,
}

impl Counted {
    fn note(&mut self, event_type: EventType) {
        match event_type {
            EventType::ClientLocked => self.clients_locked += 1,
            EventType::PeerLearned => self.peers_learned += 1,
            _ => {}
        }
    }
}

/// The other workers: what they have found out is heard before packets are taken, and what this one
/// finds out is told to all.
#[derive(Debug)]
pub(super) struct Neighbours {
    heard: Receiver<Hearsay>,
    told: Vec<SyncSender<Hearsay>>,
}

/// Brings `count` workers together.
pub(super) fn neighbourhood(count: usize) -> Vec<Neighbours> {
    let (mouths, ears): (Vec<_>, Vec<_>) =
        (0..count).map(|_| sync_channel(HEARSAY_BACKLOG)).unzip();
    let neighbours = ears.into_iter().enumerate().map(|(own, heard)| {
        let others = mouths.iter().enumerate().filter(|(place, _)| *place != own);
        let told = others.map(|(_, mouth)| mouth.clone()).collect();
        Neighbours { heard, told }
    });
    neighbours.collect()
}

impl Worker {
    /// Takes over what a daemon before this one knew of a host. Not yet told to others.
    pub fn take_over(&mut self, entry: Known) {
        let now = self.clock.now();
        let Known {
            left,
            origin,
            in_kernel,
        } = entry;
        if in_kernel {
            self.engine.recall(now, left, origin);
        } else {
            self.engine.restore(now, left, origin);
        }
    }

    /// Says that packets were dropped until now, for want of a daemon.
    pub fn follow_gap(&mut self) {
        self.engine.follow_gap(self.clock.now());
    }

    /// Goes on letting through what an operator let through, if that is what was kept.
    pub fn let_through(&mut self, kept: &Kept) {
        if let Fact::Unblocked { target } = kept.fact {
            let left = kept.left.unwrap_or(Duration::MAX);
            self.engine
                .restore_unblocked(self.clock.now(), target, left);
        }
    }

    /// What the kernel has to be told of what was taken over.
    pub fn announced(&mut self) -> Vec<Change> {
        let actions = std::iter::from_fn(|| self.engine.poll_action());
        let changes = actions.map(|action| set_changes(&action, self.blocked).collect());
        changes.collect::<Vec<Vec<Change>>>().concat()
    }

    /// Believes another worker.
    pub fn believe(&mut self, said: Hearsay) {
        self.engine.hear(self.clock.now(), said);
    }

    /// Serves until asked to stop.
    ///
    /// # Errors
    /// When the system does not let it wait for packets.
    pub(super) fn serve(&mut self, inbox: &Inbox) -> anyhow::Result<()> {
        loop {
            inbox.rounds.fetch_add(1, Ordering::Relaxed);
            let ready = self.sleep(inbox).context("waiting for packets")?;
            if ready.bell && self.answer_requests(inbox).is_break() {
                // Whoever follows is given the time to begin.
                if let (Some(sign), Some(sets)) = (&self.sign_of_life, &self.sets)
                    && !sign.hand_over(sets)
                {
                    self.counted.set_changes_lost += 1;
                }
                self.sets = None;
                return Ok(());
            }
            self.hear();
            self.take_packets(BATCH, ready);
            self.see_to_time();
            self.drain();
            self.give_sign_of_life();
        }
    }

    /// Only between two rounds: a worker that hangs gives none.
    fn give_sign_of_life(&mut self) {
        let now = self.clock.now();
        let (Some(sign), Some(sets)) = (&mut self.sign_of_life, &self.sets) else {
            return;
        };
        if sign.due() <= now && !sign.give(now, sets) {
            self.counted.set_changes_lost += 1;
        }
    }

    /// The queues, the most urgent first.
    pub(super) fn queues(&self) -> impl Iterator<Item = &dyn PacketQueue> {
        self.queues.iter().map(|queue| &**queue)
    }

    /// Gives up the queues, for another daemon to go on with. What waits in them goes on waiting.
    pub(super) fn into_queues(mut self) -> Vec<Box<dyn PacketQueue>> {
        self.drain();
        self.queues
    }

    /// Answers what still waits, now that no rule sends more, and says what was counted.
    pub fn finish(mut self) -> Statistics {
        self.take_packets(LAST_BATCH, Ready::ALL);
        self.drain();
        let queues = self.queues().map(PacketQueue::number);
        Statistics {
            queue_losses: queue::losses_of(queues),
            ..self.statistics()
        }
    }

    /// Until a packet or a request comes, or the engine wants to be called.
    fn sleep(&self, inbox: &Inbox) -> rustix::io::Result<Ready> {
        let timeout = Timespec::try_from(self.patience()).expect("a second fits");
        let mut sources: [_; QueueClass::COUNT + 1] = std::array::from_fn(|place| {
            let queue = self.queues.get(place).map(readable);
            queue.unwrap_or_else(|| readable(&inbox.bell))
        });
        match poll(&mut sources, Some(&timeout)) {
            Ok(0) | Err(rustix::io::Errno::INTR) => Ok(Ready::default()),
            Ok(_) => Ok(Ready::of(&sources)),
            Err(error) => Err(error),
        }
    }

    /// How long to sleep at most: not at all while packets may be expected any moment, since to wake a
    /// thread takes longer than to judge what it is woken for.
    fn patience(&self) -> Duration {
        let now = self.clock.now();
        if now.saturating_since(self.served) < self.busy_poll {
            return Duration::ZERO;
        }
        let sign = self.sign_of_life.as_ref().map(SignOfLife::due);
        let due = [self.engine.poll_timeout(), sign]
            .into_iter()
            .flatten()
            .min();
        let wanted = due.map(|due| due.saturating_since(now));
        wanted.unwrap_or(LONGEST_SLEEP).min(LONGEST_SLEEP)
    }

    fn answer_requests(&mut self, inbox: &Inbox) -> ControlFlow<()> {
        if inbox.bell.silence() {
            for request in inbox.requests.try_iter() {
                self.answer(request)?;
            }
        }
        ControlFlow::Continue(())
    }

    fn answer(&mut self, request: Request) -> ControlFlow<()> {
        match request {
            Request::Statistics(reply) => {
                let _ = reply.send(self.statistics());
                ControlFlow::Continue(())
            }
            Request::Operate(Operation(operation)) => {
                operation(&mut self.engine, self.clock.now());
                ControlFlow::Continue(())
            }
            Request::Reconfigure(config, reply) => {
                self.blocked = blocked(&config);
                self.engine.reconfigure(self.clock.now(), *config);
                let _ = reply.send(());
                ControlFlow::Continue(())
            }
            Request::Stop => ControlFlow::Break(()),
        }
    }

    /// What is lost of it only confirms; every worker judges its own hosts by what they do themselves.
    fn hear(&mut self) {
        let now = self.clock.now();
        for said in self.neighbours.heard.try_iter() {
            self.engine.hear(now, said);
        }
    }

    /// At most `most` of each queue that has any.
    fn take_packets(&mut self, most: usize, ready: Ready) {
        let Worker {
            clock,
            engine,
            marks,
            queues,
            counted,
            served,
            interfaces,
            ..
        } = self;
        let asks_for_places = engine.config().asks_for_places();
        for (queue, is_ready) in queues.iter_mut().zip(ready.queues) {
            if !is_ready {
                continue;
            }
            let (began, mut packets) = (clock.now(), 0);
            queue.serve(most, &mut |packet| {
                packets += 1;
                let now = clock.now();
                let link = asks_for_places.then(|| interfaces.link(packet.hop, now));
                judge(engine, now, *marks, (packet, link))
            });
            if packets > 0 {
                *served = clock.now();
                let took = served.saturating_since(began);
                counted.latency.record(took, packets);
            }
        }
    }

    fn see_to_time(&mut self) {
        let now = self.clock.now();
        if self.engine.poll_timeout().is_some_and(|due| due <= now) {
            self.engine.handle_timeout(now);
        }
    }

    /// Passes on what the engine has to say.
    fn drain(&mut self) {
        while let Some(action) = self.engine.poll_action() {
            self.carry_out(&action);
        }
        let now = self.clock.now();
        while let Some(event) = self.engine.poll_event() {
            self.counted.note(event.event_type);
            self.events.event(now, event);
        }
    }

    fn carry_out(&mut self, action: &Action) {
        if let Some(sets) = &self.sets {
            let changes = set_changes(action, self.blocked);
            let lost = changes.filter(|change| !sets.request(*change)).count();
            self.counted.set_changes_lost += u64::try_from(lost).unwrap_or(u64::MAX);
        }
        if let Some(recorder) = &self.recorder {
            let change = state::Change::of(action, &self.engine, self.clock.now());
            change
                .into_iter()
                .for_each(|change| recorder.record(change));
        }
        if let Some(found) = Hearsay::of(action) {
            let told = self.neighbours.told.iter();
            let lost = told.filter(|told| told.try_send(found).is_err()).count();
            self.counted.hearsay_lost += u64::try_from(lost).unwrap_or(u64::MAX);
        }
        if let Action::Answer { from, to, payload } | Action::Probe { from, to, payload } = action {
            self.inject(*from, *to, payload);
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

    /// What the kernel alone has counted is left out: a thread that opens no file cannot read it.
    fn statistics(&self) -> Statistics {
        let mut statistics = Statistics {
            injections_failed: self.counted.injections_failed,
            set_changes_lost: self.counted.set_changes_lost,
            hearsay_lost: self.counted.hearsay_lost,
            clients_locked: self.counted.clients_locked,
            peers_learned: self.counted.peers_learned,
            latency: self.counted.latency,
            ..Statistics::from(self.engine.counters())
        };
        for queue in &self.queues {
            for (fault, count) in queue.faults().iter() {
                *statistics
                    .queue_errors
                    .entry(fault.to_string())
                    .or_default() += count;
            }
        }
        statistics
    }
}

fn readable(source: &impl std::os::fd::AsFd) -> PollFd<'_> {
    PollFd::new(source, PollFlags::IN)
}

fn judge(
    engine: &mut Engine,
    now: Timestamp,
    marks: MarkField,
    (packet, link): (QueuedPacket<'_>, Option<Link>),
) -> Answer {
    let ingress = Ingress {
        bytes: packet.bytes,
        conntrack: Some(question(marks, packet.mark)),
        link,
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
}
