//! The live gateway: opens everything, starts the threads, waits for the end and takes it all down.
//!
//! Packets are the workers' affair (see [`super::worker`]). Everything that can be refused is asked for
//! before the rules are in place, and the rules go before the queues do, so that no packet ever waits
//! for a daemon that is not there.

use std::os::fd::{AsFd as _, OwnedFd};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use tracing::{info, warn};

use super::backend::{self, Backend, Installed};
use super::client_files::ClientFiles;
use super::clock::Clock;
use super::event_log::{EventLog, EventSender};
use super::failure::Misconfigured;
use super::inbound;
use super::inject::Injector;
use super::interface_names::InterfaceNames;
use super::kept_state::KeptState;
use super::kernel_memory;
use super::kernel_sets::{KernelSets, blocked};
use super::messenger::{Addressee, Messenger, Orders};
use super::only_one::OnlyOne;
use super::opening::{Leftovers, Ready, Way, find_way, open_queues};
use super::operations::{Load, Operations};
use super::pulse::Pulse;
use super::queue::{self, QueueReader};
use super::rules::{RuleSettings, WhenDown};
use super::rules_guard::{RulesGuard, Surroundings};
use super::service_manager::ServiceManager;
use super::sign_of_life::SignOfLife;
use super::signals::Signals;
use super::succession::{self, Inheritance, Successor};
#[cfg(feature = "http")]
use super::visitors::Visitors;
use super::worker::{self, Request, Worker};
use super::workers::Workers;
use super::{nft, surroundings, take_over};
use crate::config::Reply;
use crate::control::configuration::Configuration;
use crate::control::configuration::Hook;
use crate::control::events::{
    EventOutput, EventTarget, EventWriter, Notice, ReadyQueue, Statistics,
};
use crate::control::server::ControlServer;
use crate::control::setting::HttpListen;
use crate::{Engine, EngineConfig, Remembered, Timestamp};

/// How often refusals of the kernel's sets are looked for.
const BETWEEN_LOOKS: Duration = Duration::from_secs(1);
/// How often events are looked for that are too old.
const BETWEEN_EXPIRIES: Duration = Duration::from_secs(3_600);
/// How long undecided packets of everybody may be held back while the sets are read that an earlier daemon
/// has left.
const LONGEST_LOOK_BACK: Duration = Duration::from_secs(5);
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
    /// How long a worker looks for the next packet before it sleeps. A sleeping thread costs whoever wakes
    /// it more than the packet itself, above all in virtual machines.
    pub busy_poll: Duration,
    /// Where events go and how.
    pub events: EventOutput,
    /// Where what has to survive a restart is kept, if anywhere.
    pub state: Option<PathBuf>,
    /// Where there is a file for each locked client, if anywhere.
    pub client_directory: Option<PathBuf>,
    /// Where metrics and the status page are served.
    pub http: HttpListen,
    /// Who is told of locked clients.
    pub webhook: Option<Hook>,
    /// Seed of everything the engine draws.
    pub seed: u64,
}

/// What the settings were made of, and how to read it again.
pub struct ConfigurationSource {
    /// What was configured when the daemon started.
    pub configuration: Configuration,
    /// Reads it again.
    pub load: Load,
}

/// Runs until asked to end, and leaves no rule behind.
///
/// # Errors
/// When a privilege, a kernel feature or a file is missing at the start, a worker fails, or rules cannot
/// be removed.
pub fn run(settings: RunSettings, source: ConfigurationSource) -> anyhow::Result<()> {
    if settings.http != HttpListen::Off && cfg!(not(feature = "http")) {
        let message = "this ftwall was built without the feature http: http_listen must be off";
        return Err(Misconfigured(message.to_owned()).into());
    }
    let only_one = OnlyOne::claim()?;
    let clock = Clock::start();
    let webhook = Messenger::start(Addressee::new(settings.webhook.as_ref())?, clock)?;
    let client_files = settings
        .client_directory
        .map(ClientFiles::open)
        .transpose()?;
    let inheritance = Inheritance::take();
    let successor = Successor::of_this().context("looking for the program that runs")?;
    let signals = DaemonSignals::listen().context("taking over signals")?;
    let writer = open_events(&settings.events)?;
    let queues = settings.rules.queues;
    let injectors = (0..queues.shards().count()).map(|_| open_injector(&settings.engine));
    let injectors: Vec<_> = injectors.collect::<anyhow::Result<_>>()?;
    let reader = settings.queue_reader;
    let Way {
        backend,
        payload_test,
        left,
    } = find_way(settings.backend, reader, &settings.rules, inheritance)?;
    let rule_settings = RuleSettings {
        payload_test,
        ..settings.rules
    };
    let (queues, leftovers) = open_queues(&rule_settings, reader, left)?;
    let follows_gap = leftovers.led_nowhere() && rule_settings.when_down == WhenDown::Drop;
    let ready = Ready::of(backend, reader, &rule_settings, &queues)?;
    let of_clients = client_files.as_ref().map(ClientFiles::listener);
    let listeners = of_clients.into_iter().chain(webhook.listener()).collect();
    let events =
        EventLog::start(writer, listeners).context("starting the thread that writes events")?;
    let sets = KernelSets::start().context("starting the thread that writes sets")?;
    let neighbours = worker::neighbourhood(queues.len());
    let mut state = KeptState::open(settings.state, clock, events.sender());
    let operations = Operations::new(
        source.configuration,
        source.load,
        events.sender(),
        webhook.orders(),
        clock.now(),
        backend,
        payload_test,
    );
    let operations = operations.remembering(state.recorder(), &state.kept, clock.now());
    let config = operations.engine(clock.now());
    let parts = queues.into_iter().zip(injectors).zip(neighbours);
    let busy_poll = busy_poll(settings.busy_poll);
    let worker = |(shard, ((queues, injector), neighbours))| Worker {
        clock,
        blocked: blocked(&config),
        engine: Engine::new(config.clone(), settings.seed.wrapping_add(u64::from(shard))),
        marks: rule_settings.marks,
        queues,
        injector,
        interfaces: InterfaceNames::open(),
        sets: Some(sets.requests()),
        sign_of_life: rule_settings
            .answered_by(shard)
            .map(|mark| SignOfLife::of(mark, rule_settings.hung_after)),
        neighbours,
        events: events.sender(),
        recorder: state.recorder(),
        counted: worker::Counted::default(),
        busy_poll,
        served: Timestamp::ORIGIN,
    };
    let mut workers: Vec<Worker> = (0_u16..).zip(parts).map(worker).collect();
    let is_open = look_around(&rule_settings)?;
    let rules = backend::apply(&rule_settings, backend)?;
    let in_kernel = left_in_kernel(&leftovers, clock)?;
    let shards = rule_settings.queues.shards();
    take_over::run(&mut workers, shards, in_kernel, &state.kept);
    if let Some(files) = &client_files {
        list_clients(files, &workers, clock.now())?;
    }
    if follows_gap {
        workers.iter_mut().for_each(Worker::follow_gap);
    }
    leftovers.keep();
    let manager = ServiceManager::from_environment();
    let stored = copies(&manager, &workers)?;
    let control = open_control(&operations);
    #[cfg(feature = "http")]
    let visitors = Visitors::listen(&settings.http);
    let guard = RulesGuard::start(clock.now(), backend);
    // Before the workers, of whose events none may come first.
    announce(
        &ready,
        clock.now(),
        &events.sender(),
        &settings.events.target,
    )?;
    let workers = Workers::start(workers).context("starting the workers")?;
    let mut daemon = Daemon {
        clock,
        only_one,
        control,
        #[cfg(feature = "http")]
        visitors,
        queues: ready.queues.clone(),
        next_change: operations.next_change(clock.now()),
        guard,
        operations,
        events: events.sender(),
        next_expiry: clock.now(),
        sets,
        workers,
        counted: Counted::default(),
        pulse: Pulse::new(manager),
        successor,
        reader,
        told: webhook.orders(),
    };
    for (name, queue) in stored {
        daemon.pulse.manager().store(&name, queue.as_fd());
    }
    state.start(clock.now(), &daemon.events)?;
    if is_open {
        daemon.warn_open();
    }

    let served = daemon.serve(&signals);
    if let Ok(End::Succession) = served {
        return daemon.hand_over(rules, state, (events, webhook));
    }
    let ended = daemon.end(rules);
    state.finish();
    events.finish();
    webhook.finish();
    if let Some(Err(error)) = client_files.map(|files| files.clear()) {
        warn!(%error, "files of clients are left over");
    }
    served.and(ended)
}

/// Adds the clients that are locked when workers begin.
fn list_clients(files: &ClientFiles, workers: &[Worker], now: Timestamp) -> anyhow::Result<()> {
    for client in workers.iter().flat_map(|worker| worker.engine.clients(now)) {
        files
            .add(client.client, client.since)
            .context("adding to the client_directory")?;
    }
    Ok(())
}

/// Says that queues and rules are live: with the events, and on standard output wherever those go.
fn announce(
    ready: &Ready,
    now: Timestamp,
    events: &EventSender,
    target: &EventTarget,
) -> anyhow::Result<()> {
    let (backend, reader) = (ready.backend, ready.reader);
    info!(%backend, %reader, queues = ready.queues.len(), "queues and rules are live");
    events.notice(now, ready.notice());
    if *target != EventTarget::Stdout {
        let mut stdout = open_events(&EventTarget::Stdout.into())?;
        stdout.notice(now, &ready.notice());
        stdout.flush();
    }
    Ok(())
}

/// Why a daemon serves no longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// It was asked to end, or a worker has.
    Asked,
    /// Another is to take its place.
    Succession,
}

/// Everything that is asked of a daemon by signals.
struct DaemonSignals {
    end: Signals,
    reload: Signals,
    reopen: Signals,
    succession: Signals,
}

impl DaemonSignals {
    fn listen() -> std::io::Result<DaemonSignals> {
        Ok(DaemonSignals {
            end: Signals::end()?,
            reload: Signals::reload()?,
            reopen: Signals::reopen()?,
            succession: Signals::succession()?,
        })
    }

    fn sources(&self) -> [PollFd<'_>; 4] {
        let all = [&self.end, &self.reload, &self.reopen, &self.succession];
        all.map(|it| PollFd::new(it, PollFlags::IN))
    }
}

/// Copies of the queues' sockets by name, for a service manager to keep.
fn copies(manager: &ServiceManager, workers: &[Worker]) -> anyhow::Result<Vec<(String, OwnedFd)>> {
    let queues = workers.iter().flat_map(Worker::queues);
    let kept = queues.filter(|_| manager.is_there());
    let copies = kept.map(|queue| {
        let copy = queue.as_fd().try_clone_to_owned();
        copy.map(|copy| (succession::name_of(queue.number()), copy))
    });
    copies
        .collect::<Result<_, _>>()
        .context("copying the queues' sockets")
}

fn open_events(output: &EventOutput) -> anyhow::Result<EventWriter> {
    EventWriter::open(output).map_err(|error| {
        let target = &output.target;
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

/// A gateway that operators cannot speak to still does its work.
fn open_control(operations: &Operations) -> Option<ControlServer> {
    let path = &operations.configuration.settings().control_socket.value.0;
    let server = ControlServer::bind(path);
    if let Err(error) = &server {
        let path = path.display();
        warn!(%error, %path, "no control socket: status, explain and their kin will not work");
    }
    server.ok()
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

/// With one processor nobody can send a packet while a worker looks for one.
fn busy_poll(wanted: Duration) -> Duration {
    match std::thread::available_parallelism() {
        Ok(processors) if processors.get() > 1 => wanted,
        Ok(_) | Err(_) => Duration::ZERO,
    }
}

/// What the sets still hold that a daemon before this one has left; nothing if it has left no rules.
fn left_in_kernel(leftovers: &Leftovers, clock: Clock) -> anyhow::Result<Vec<Remembered>> {
    if !leftovers.have_sets() {
        return Ok(Vec::new());
    }
    let deadline = clock.now() + LONGEST_LOOK_BACK;
    let memory = kernel_memory::read(|| clock.now() < deadline);
    let memory = memory.context("asking the kernel what it remembers")?;
    if memory.is_partial {
        warn!(
            entries = memory.entries.len(),
            "the kernel remembers more than can be read in time, and goes on dropping by it"
        );
    }
    Ok(memory.entries)
}

/// What is left to the thread that started everything.
pub(super) struct Daemon {
    clock: Clock,
    only_one: OnlyOne,
    pub(super) operations: Operations,
    pub(super) guard: RulesGuard,
    control: Option<ControlServer>,
    #[cfg(feature = "http")]
    visitors: Option<Visitors>,
    /// All that are open.
    pub(super) queues: Vec<ReadyQueue>,
    /// When a schedule opens or closes, or a mode set for a time is over.
    next_change: Option<Timestamp>,
    events: EventSender,
    next_expiry: Timestamp,
    sets: KernelSets,
    pub(super) workers: Workers,
    counted: Counted,
    pulse: Pulse,
    successor: Successor,
    reader: QueueReader,
    told: Orders,
}

/// What no worker can count.
#[derive(Debug, Default)]
struct Counted {
    set_writes_failed: u64,
    next_set_report: Timestamp,
}

impl Daemon {
    fn warn_open(&mut self) {
        warn!("{}", inbound::OPEN);
        let message = inbound::OPEN.to_owned();
        let notice = Notice::InboundOpen { message };
        self.events.notice(self.clock.now(), notice);
    }

    /// Until a signal comes or a worker ends.
    fn serve(&mut self, signals: &DaemonSignals) -> anyhow::Result<End> {
        self.pulse.manager().ready();
        loop {
            self.give_sign_of_life();
            let mut sources = signals.sources().to_vec();
            sources.push(PollFd::new(self.workers.ended(), PollFlags::IN));
            sources.extend(self.guard.sources());
            sources.extend(self.control.iter().flat_map(ControlServer::sources));
            #[cfg(feature = "http")]
            sources.extend(self.visitors.iter().flat_map(Visitors::sources));
            let timeout = Timespec::try_from(BETWEEN_LOOKS).expect("a second fits");
            match poll(&mut sources, Some(&timeout)) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error).context("waiting for signals"),
            }
            drop(sources);
            if signals.end.arrived() || self.workers.ended().silence() {
                return Ok(End::Asked);
            }
            if signals.reopen.arrived() {
                self.events.reopen(self.clock.now());
            }
            if signals.succession.arrived() && self.may_be_succeeded() {
                return Ok(End::Succession);
            }
            if signals.reload.arrived() {
                self.pulse.manager().reloading();
                // What came of it is logged, and told by status.
                let _ = self.operations.reload(self.clock.now(), &self.workers);
                self.next_change = self.operations.next_change(self.clock.now());
                self.pulse.manager().ready();
            }
            self.only_one.turn_away();
            self.answer_operators();
            #[cfg(feature = "http")]
            self.answer_visitors();
            self.change_in_time();
            self.guard_rules();
            self.expire_events();
            self.report_set_failures();
        }
    }

    fn give_sign_of_life(&mut self) {
        let now = self.clock.now();
        if !self.pulse.is_due(now) {
            return;
        }
        let all_move = self.workers.have_all_come_round();
        let (clients, peers) = self.census();
        let mode = self.operations.configuration.settings().mode.value.name();
        let status = format!("mode {mode}; {clients} clients locked, {peers} peers known");
        self.pulse.beat(now, all_move, status);
    }

    /// How many hosts are locked and how many pairs of client and peer are known.
    pub(super) fn census(&self) -> (usize, usize) {
        let census = self
            .workers
            .ask_all(|reply| Request::operate(reply, |engine, _| engine.census()));
        let census = census.unwrap_or_default().into_iter();
        census.fold((0, 0), |sum, of_worker| {
            (sum.0 + of_worker.0, sum.1 + of_worker.1)
        })
    }

    /// A program that does not start must take nobody's place.
    fn may_be_succeeded(&self) -> bool {
        let checked = match self.reader {
            QueueReader::Netlink => self.successor.check(),
            QueueReader::Nfq => Err(anyhow!("the reader nfq cannot pass on its queues")),
        };
        if let Err(error) = &checked {
            let message = format!("{error:#}");
            warn!(message, "this daemon goes on: no other can take its place");
            let notice = Notice::SuccessionRefused { message };
            self.events.notice(self.clock.now(), notice);
        }
        checked.is_ok()
    }

    fn answer_operators(&mut self) {
        let Some(mut control) = self.control.take() else {
            return;
        };
        control.serve(&mut |request| {
            let now = self.clock.now();
            let statistics = self.statistics();
            let answer = self
                .operations
                .answer(now, &self.workers, &statistics, &request.command);
            self.next_change = self.operations.next_change(now);
            answer
        });
        self.control = Some(control);
    }

    #[cfg(feature = "http")]
    fn answer_visitors(&mut self) {
        let Some(mut visitors) = self.visitors.take() else {
            return;
        };
        visitors.serve(self.clock.now(), self);
        self.visitors = Some(visitors);
    }

    /// What is configured for a time of the week, or was set for a time.
    fn change_in_time(&mut self) {
        let now = self.clock.now();
        if self.next_change.is_none_or(|due| due > now) {
            return;
        }
        if let Err(error) = self.operations.change(now, &self.workers) {
            warn!(%error, "what the schedule says could not be put in force");
        }
        self.next_change = self.operations.next_change(now);
    }

    fn guard_rules(&mut self) {
        let mut around = Surroundings {
            clock: self.clock,
            operations: &mut self.operations,
            workers: &self.workers,
            events: &self.events,
        };
        self.guard.see_to(&mut around);
    }

    /// Old events go even where no new one comes.
    fn expire_events(&mut self) {
        let now = self.clock.now();
        if now >= self.next_expiry {
            self.events.expire(now);
            self.next_expiry = now + BETWEEN_EXPIRIES;
        }
    }

    /// What was counted so far; a worker that does not answer is left out.
    pub(super) fn statistics(&self) -> Statistics {
        let mut statistics = Statistics {
            set_writes_failed: self.counted.set_writes_failed,
            rules_restored: self.guard.restored(),
            ..Statistics::default()
        };
        let counted = self.workers.ask_all(Request::Statistics);
        let counted = counted.into_iter().flatten();
        counted.for_each(|counted| statistics += counted);
        let queues = self.queues.iter().map(|queue| queue.number);
        statistics.queue_losses = queue::losses_of(queues);
        statistics.events_lost = self.events.lost();
        statistics.webhook = self.told.delivered();
        statistics
    }

    /// A set that is full refuses every change from then on: all are counted, one a minute is told.
    fn report_set_failures(&mut self) {
        let now = self.clock.now();
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
                let notice = Notice::KernelSetsFailed { message };
                self.events.notice(now, notice);
            }
        }
    }

    /// Lets the program that is installed by now take the place of this one, with queues and rules live.
    /// Returns only if that fails; then the rules are taken away.
    fn hand_over(
        self,
        rules: Installed,
        state: KeptState,
        (events, webhook): (EventLog, Messenger),
    ) -> anyhow::Result<()> {
        self.pulse.manager().reloading();
        info!("another program takes the place of this one");
        let workers = self.workers.stop()?;
        let queues: Vec<_> = workers.into_iter().flat_map(Worker::into_queues).collect();
        self.sets.finish();
        let Daemon {
            successor,
            operations,
            events: sender,
            ..
        } = self;
        drop((operations, sender));
        state.finish();
        events.finish();
        webhook.finish();
        let sockets: Vec<_> = queues
            .iter()
            .map(|queue| (queue.number(), queue.as_fd()))
            .collect();
        let error = successor.take_place(&sockets);
        drop(rules);
        Err(error).context("executing the program that was to take over")
    }

    /// Takes the rules away between the last packet but those that wait and the end of the queues, and
    /// says what was counted.
    fn end(mut self, rules: Installed) -> anyhow::Result<()> {
        self.pulse.manager().stopping();
        self.report_set_failures();
        let stopped = self.workers.stop();
        self.sets.finish();
        let removed = rules.remove();
        let mut statistics = Statistics {
            set_writes_failed: self.counted.set_writes_failed,
            rules_restored: self.guard.restored(),
            ..Statistics::default()
        };
        let stopped = stopped.map(|workers| {
            let finished = workers.into_iter().map(Worker::finish);
            finished.for_each(|counted| statistics += counted);
        });
        statistics.events_lost = self.events.lost();
        statistics.webhook = self.told.delivered();
        info!(packets = statistics.packets, "ended");
        let notice = Notice::Stats {
            ftwall: Box::new(statistics),
        };
        self.events.notice(self.clock.now(), notice);
        stopped.and(removed)
    }
}

#[cfg(test)]
mod tests {
    use super::super::operations::guarded;
    use super::*;
    use crate::config::NeverBlock;

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
}
