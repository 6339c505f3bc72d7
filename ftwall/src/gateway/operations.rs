//! What an operator asks of a running daemon: answered on its main thread, which asks the workers.
//!
//! Also what changes by itself: schedules that open and close, modes that were set for a time.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use ipnet::{IpNet, Ipv4Net};
use serde::Serialize;
use serde_json::{Value, json};
use tracing::{info, warn};

use super::backend::{self, Backend};
use super::event_log::EventSender;
use super::failure::{CONFIGURATION, FAILURE, Misconfigured, USAGE};
use super::messenger::{Addressee, Orders};
use super::rules::{PayloadTest, RuleSettings};
use super::surroundings;
use super::worker::{Reply, Request};
use super::workers::{Unresponsive, Workers};
use crate::config::{Mode, NeverBlock};
use crate::control::configuration::Configuration;
use crate::control::events::Statistics;
use crate::control::values::parse_never_block;
use crate::control::wire::{Command, Failure};
use crate::state::{Change, Fact, Health, Kept, Recorder};
use crate::{Block, Engine, EngineConfig, Lifted, Subject, Timestamp};

/// Reads the configuration again, as it was read at the start.
pub type Load = Box<dyn Fn() -> Result<Configuration, Misconfigured>>;

/// Everything that is configured, now and for a time.
pub struct Operations {
    pub(super) configuration: Configuration,
    /// What was configured at the start, when queues were bound and marks chosen.
    started_with: Configuration,
    load: Load,
    events: EventSender,
    messenger: Orders,
    started: Timestamp,
    backend: Backend,
    payload_test: PayloadTest,
    overrides: Vec<Override>,
    last_reload: Option<Reloaded>,
    /// When what is in force was read.
    read_at: Timestamp,
    /// Absent where nothing is kept over a restart.
    recorder: Option<Recorder>,
    /// What is wrong with the rules in the kernel, if anything is.
    pub(super) rules_fault: Option<String>,
}

/// A mode that the operator has set.
#[derive(Clone, Debug, Serialize)]
struct Override {
    subnet: IpNet,
    mode: Mode,
    /// Until the daemon ends if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    until: Option<Timestamp>,
}

/// How reading the configuration again went.
#[derive(Clone, Debug, Serialize)]
struct Reloaded {
    at: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

impl fmt::Debug for Operations {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = formatter.debug_struct("Operations");
        shown.field("overrides", &self.overrides);
        shown.finish_non_exhaustive()
    }
}

impl Operations {
    /// What is configured at the start.
    #[must_use]
    pub(super) fn new(
        configuration: Configuration,
        load: Load,
        events: EventSender,
        messenger: Orders,
        started: Timestamp,
        backend: Backend,
        payload_test: PayloadTest,
    ) -> Self {
        Self {
            started_with: configuration.clone(),
            configuration,
            load,
            events,
            messenger,
            started,
            backend,
            payload_test,
            overrides: Vec::new(),
            last_reload: None,
            read_at: started,
            recorder: None,
            rules_fault: None,
        }
    }

    /// The same, going on with modes that were set before a restart, and recording those to come.
    #[must_use]
    pub fn remembering(
        mut self,
        recorder: Option<Recorder>,
        kept: &[Kept],
        now: Timestamp,
    ) -> Self {
        self.overrides = kept
            .iter()
            .filter_map(|kept| match kept.fact {
                Fact::Mode { subnet, mode } => Some(Override {
                    subnet,
                    mode,
                    until: kept.left.map(|left| now + left),
                }),
                Fact::Lock { .. } | Fact::Peer { .. } | Fact::Unblocked { .. } => None,
            })
            .collect();
        self.recorder = recorder;
        self
    }

    /// What engines are told at this moment.
    #[must_use]
    pub fn engine(&self, now: Timestamp) -> EngineConfig {
        let config = self.configuration.engine(now);
        let overrides = self.overrides.iter().rev();
        guarded(EngineConfig {
            mode_overrides: overrides.map(|it| (it.subnet, it.mode)).collect(),
            ..config
        })
    }

    /// When something changes by itself next.
    #[must_use]
    pub fn next_change(&self, now: Timestamp) -> Option<Timestamp> {
        let ends = self.overrides.iter().filter_map(|it| it.until);
        ends.chain(self.configuration.next_change(now)).min()
    }

    /// Ends modes whose time is over, and tells the engines what holds now.
    ///
    /// # Errors
    /// When a worker does not answer.
    pub fn change(&mut self, now: Timestamp, workers: &Workers) -> Result<(), Unresponsive> {
        self.overrides
            .retain(|it| it.until.is_none_or(|until| until > now));
        self.reconfigure(now, workers)
    }

    /// Does what is asked.
    ///
    /// # Errors
    /// Why it is not done.
    pub fn answer(
        &mut self,
        now: Timestamp,
        workers: &Workers,
        statistics: &Statistics,
        command: &Command,
    ) -> Result<Value, Failure> {
        match command {
            Command::Status => self.status(now, workers, statistics),
            Command::Clients => clients(now, workers),
            Command::Peers { limit } => peers(now, workers, *limit),
            Command::Explain { subject } => explain(workers, subject),
            Command::Unblock { target, seconds } => {
                let target = parse_never_block(target)
                    .map_err(|slip| Failure::new(USAGE, format!("\"{target}\": {slip}")))?;
                let for_ = Duration::from_secs(*seconds);
                let lifted = unblock(workers, target, for_)?;
                let fact = Fact::Unblocked { target };
                let until = Some(now + for_);
                self.record(Change::Keep { fact, until });
                Ok(lifted)
            }
            Command::Block {
                client,
                peer,
                seconds,
            } => block(workers, *client, *peer, Duration::from_secs(*seconds)),
            Command::Mode {
                mode,
                subnet,
                seconds,
            } => {
                let until = seconds.map(|seconds| now + Duration::from_secs(seconds));
                self.set_mode(*mode, *subnet, until);
                self.reconfigure(now, workers).map_err(unresponsive)?;
                Ok(json!({ "overrides": self.overrides }))
            }
            Command::Reload => self.reload(now, workers),
            Command::LogReopen => {
                self.events.reopen(now);
                Ok(json!({ "events": self.started_with.settings().events.value }))
            }
        }
    }

    /// Reads the configuration again and puts it in force as a whole, or keeps the one that is.
    ///
    /// # Errors
    /// What is wrong with the new one.
    pub fn reload(&mut self, now: Timestamp, workers: &Workers) -> Result<Value, Failure> {
        let reloaded = self.try_reload(now, workers);
        let error = reloaded
            .as_ref()
            .err()
            .map(|failure| failure.message.clone());
        match &error {
            None => info!("the configuration was read again"),
            Some(error) => warn!(
                error,
                "the configuration in force is kept: the new one is wrong"
            ),
        }
        if error.is_none() {
            self.read_at = now;
        }
        self.last_reload = Some(Reloaded { at: now, error });
        reloaded
    }

    fn try_reload(&mut self, now: Timestamp, workers: &Workers) -> Result<Value, Failure> {
        let wrong = |error: Misconfigured| Failure::new(CONFIGURATION, error.to_string());
        let new = (self.load)().map_err(wrong)?;
        let addressee = Addressee::new(new.webhook().as_ref()).map_err(wrong)?;
        let waiting = needs_restart(&self.started_with, &new);
        // In one transaction, and the sets keep what was learned.
        backend::apply(&self.rules_of(&new), self.backend)
            .map_err(|error| Failure::new(FAILURE, format!("{error:#}")))?
            .keep();
        self.messenger.tell(addressee);
        self.configuration = new;
        self.reconfigure(now, workers).map_err(unresponsive)?;
        Ok(json!({ "files": self.configuration.files(), "needs_restart": waiting }))
    }

    /// The rules that should be in the kernel.
    #[must_use]
    pub fn rules(&self) -> RuleSettings {
        self.rules_of(&self.configuration)
    }

    /// Queues stay bound, full or not, marks are on connections, and workers give signs as often as they did:
    /// all are as they were at the start.
    fn rules_of(&self, configuration: &Configuration) -> RuleSettings {
        let fixed = self.started_with.rules();
        RuleSettings {
            payload_test: self.payload_test,
            queues: fixed.queues,
            marks: fixed.marks,
            when_overloaded: fixed.when_overloaded,
            hung_after: fixed.hung_after,
            ..configuration.rules()
        }
    }

    /// The mechanism that queues.
    #[must_use]
    pub const fn backend(&self) -> Backend {
        self.backend
    }

    fn reconfigure(&self, now: Timestamp, workers: &Workers) -> Result<(), Unresponsive> {
        let config = self.engine(now);
        workers.ask_all(|reply| Request::Reconfigure(Box::new(config.clone()), reply))?;
        Ok(())
    }

    /// The later word counts; one about the same hosts replaces an earlier one.
    fn set_mode(&mut self, mode: Mode, subnet: Option<IpNet>, until: Option<Timestamp>) {
        let subnet = subnet.unwrap_or_else(|| IpNet::V4(Ipv4Net::default()));
        self.overrides.retain(|it| it.subnet != subnet);
        self.overrides.push(Override {
            subnet,
            mode,
            until,
        });
        let fact = Fact::Mode { subnet, mode };
        match until {
            Some(_) => self.record(Change::Keep { fact, until }),
            // It was asked for until the end of the daemon.
            None => self.record(Change::Forget(fact.key())),
        }
    }

    /// Keeps something over a restart.
    fn record(&self, change: Change) {
        self.recorder.iter().for_each(|it| it.record(change));
    }

    fn status(
        &self,
        now: Timestamp,
        workers: &Workers,
        statistics: &Statistics,
    ) -> Result<Value, Failure> {
        let sizes = workers
            .ask_all(|reply| Request::operate(reply, |engine, _| engine.occupancy()))
            .map_err(unresponsive)?;
        let locked = workers
            .ask_all(|reply| Request::operate(reply, |engine, now| engine.clients(now).len()))
            .map_err(unresponsive)?;
        let faults = self.faults(statistics);
        let settings = self.configuration.settings();
        Ok(json!({
            "version": env!("CARGO_PKG_VERSION"),
            "healthy": faults.is_empty(),
            "faults": faults,
            "uptime_seconds": self.uptime(now).as_secs(),
            "mode": settings.mode.value,
            "mode_from": settings.mode.source.to_string(),
            "overrides": self.overrides,
            "backend": self.backend.name(),
            "workers": sizes.len(),
            "clients": locked.iter().sum::<usize>(),
            "peers": sizes.iter().map(|size| size.peers).sum::<usize>(),
            "flows": sizes.iter().map(|size| size.flows).sum::<usize>(),
            "files": self.configuration.files(),
            "last_reload": self.last_reload,
            "counted": statistics,
        }))
    }

    /// For how long the daemon has run.
    #[must_use]
    pub fn uptime(&self, now: Timestamp) -> Duration {
        now.saturating_since(self.started)
    }

    /// Whether reading the configuration last succeeded, and when it last did.
    #[must_use]
    pub fn last_reading(&self) -> (bool, Timestamp) {
        let failed = |reloaded: &Reloaded| reloaded.error.is_some();
        (!self.last_reload.as_ref().is_some_and(failed), self.read_at)
    }

    /// How state is kept, if it is.
    #[must_use]
    pub fn state_health(&self) -> Option<Health> {
        self.recorder.as_ref().map(Recorder::health)
    }

    /// What keeps the daemon from doing all of its work.
    fn faults(&self, statistics: &Statistics) -> Vec<String> {
        let mut faults = Vec::new();
        let reload = self.last_reload.as_ref();
        if let Some(error) = reload.and_then(|reloaded| reloaded.error.as_ref()) {
            faults.push(format!(
                "the configuration could not be read again: {error}"
            ));
        }
        faults.extend(self.rules_fault.clone());
        if statistics.set_writes_failed > 0 {
            faults.push("the kernel refuses changes of its sets".to_owned());
        }
        if let Some(failure) = self.state_health().and_then(|health| health.failure) {
            faults.push(format!("state cannot be written: {failure}"));
        }
        faults
    }
}

/// The engine's configuration with the machine's own surroundings never blocked.
#[must_use]
pub fn guarded(mut engine: EngineConfig) -> EngineConfig {
    engine
        .never_block
        .extend(surroundings::addresses().into_iter().map(NeverBlock::from));
    engine
}

/// Settings that differ and are looked at when the daemon starts only.
fn needs_restart(old: &Configuration, new: &Configuration) -> Vec<&'static str> {
    let fixed = [
        "queue",
        "backend",
        "mark_bit",
        "queue_reader",
        "when_overloaded",
        "hung_after",
        "busy_poll",
        "events",
        "events_limit_mib",
        "events_kept",
        "events_days",
        "privacy",
        "control_socket",
        "state_directory",
        "client_directory",
        "http_listen",
    ];
    let (old, new) = (old.settings().listing(), new.settings().listing());
    let pairs = old.iter().zip(&new);
    let changed = pairs.filter(|(old, new)| old.value != new.value);
    let keys = changed.map(|(old, _)| old.key);
    keys.filter(|key| fixed.contains(key)).collect()
}

fn clients(now: Timestamp, workers: &Workers) -> Result<Value, Failure> {
    let lists = ask(workers, |engine, now| engine.clients(now))?;
    let mut clients: Vec<_> = lists.into_iter().flatten().collect();
    clients.sort_unstable_by_key(|client| client.client);
    let rows = clients.iter().map(|client| row(client, now, client.until));
    Ok(rows.collect())
}

fn peers(now: Timestamp, workers: &Workers, limit: usize) -> Result<Value, Failure> {
    let lists = ask(workers, |engine, now| engine.peers(now))?;
    let mut peers: Vec<_> = lists.into_iter().flatten().collect();
    peers.sort_unstable_by_key(|known| (known.client, known.peer));
    let rows = peers.iter().take(limit);
    Ok(rows.map(|known| row(known, now, known.until)).collect())
}

/// A row of a list, with how long it stays from now on.
fn row(value: &impl Serialize, now: Timestamp, until: Timestamp) -> Value {
    let mut row = serde_json::to_value(value).expect("rows are texts and numbers");
    row["left_seconds"] = until.saturating_since(now).as_secs().into();
    row
}

fn explain(workers: &Workers, subject: &str) -> Result<Value, Failure> {
    let subject = parse_subject(subject)?;
    let explained = ask(workers, move |engine, now| engine.explain(now, subject))?;
    // Only the worker whose hosts it concerns has anything to tell.
    let fullest = explained
        .into_iter()
        .max_by_key(|it| (it.lock.is_some(), it.incidents.len(), it.peers.len()));
    let explained = serde_json::to_value(fullest).expect("an explanation is texts and numbers");
    Ok(explained)
}

fn parse_subject(text: &str) -> Result<Subject, Failure> {
    if let Ok(peer) = text.parse::<SocketAddrV4>() {
        return Ok(Subject::Peer(peer));
    }
    text.parse::<Ipv4Addr>().map(Subject::Host).map_err(|_| {
        let remedy = "write an IPv4 address, with a port or without";
        Failure::new(
            USAGE,
            format!("\"{text}\" is neither a client nor a peer: {remedy}"),
        )
    })
}

fn unblock(workers: &Workers, target: NeverBlock, for_: Duration) -> Result<Value, Failure> {
    let lifted = ask(workers, move |engine, now| {
        engine.unblock(now, target, for_)
    })?;
    let total = lifted.iter().fold(Lifted::default(), |sum, lifted| Lifted {
        clients: sum.clients + lifted.clients,
        peers: sum.peers + lifted.peers,
    });
    Ok(json!({ "target": target, "seconds": for_.as_secs(), "lifted": total }))
}

fn block(
    workers: &Workers,
    client: Ipv4Addr,
    peer: Option<SocketAddrV4>,
    for_: Duration,
) -> Result<Value, Failure> {
    let wanted = peer.map_or(Block::Client(client), |peer| Block::Peer(client, peer));
    let blocked = ask(workers, move |engine, now| engine.block(now, wanted, for_))?;
    for outcome in blocked {
        outcome.map_err(|error| Failure::new(FAILURE, error.to_string()))?;
    }
    Ok(json!({ "client": client, "peer": peer, "seconds": for_.as_secs() }))
}

fn ask<T: Send + 'static>(
    workers: &Workers,
    question: impl Fn(&mut Engine, Timestamp) -> T + Clone + Send + 'static,
) -> Result<Vec<T>, Failure> {
    let request = |reply: Reply<T>| Request::operate(reply, question.clone());
    workers.ask_all(request).map_err(unresponsive)
}

fn unresponsive(error: Unresponsive) -> Failure {
    Failure::new(FAILURE, error.to_string())
}
