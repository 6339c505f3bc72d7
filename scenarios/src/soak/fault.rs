//! What is done to a gateway meanwhile, which of it is drawn when, and what may come of it.

use std::time::Duration;

use rand::rngs::ChaCha8Rng;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use serde::Serialize;

use crate::device::Device;
use crate::stage::namespaces::{epoch_us, micros};

/// Something that happens to a gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// The daemon is killed, and another one started a while later.
    Kill,
    /// The daemon is stopped for a while.
    Stop,
    /// The daemon hands over to a successor in its own process.
    HandOver,
    /// The daemon is asked to read another configuration.
    Reload,
    /// Somebody takes all rules away.
    Flush,
    /// The line outside goes down for a while.
    LinkFlap,
    /// The gateway gets another address outside.
    NewAddress,
    /// The daemon is asked to read another configuration a thousand times.
    ReloadOften,
    /// The daemon is killed, and the next one finds its queues open in a service manager's store.
    StoreRestart,
    /// Somebody deletes the daemon's table.
    TableDeleted,
    /// Somebody deletes one of the daemon's base chains.
    ChainDeleted,
    /// Somebody puts a rule of his own before the daemon's.
    RuleAltered,
    /// Somebody writes all tables of iptables anew, as Docker and firewalls do when they start.
    IptablesRewritten,
    /// The line outside gets another name.
    InterfaceRenamed,
    /// Somebody starts a second daemon.
    SecondDaemon,
    /// The disk fills up.
    DiskFull,
    /// The daemon is killed, and the next one finds a disk that it cannot write to.
    StateUnwritable,
    /// The daemon runs out of file descriptors and is asked to do something.
    Descriptors,
    /// The daemon gets no more memory while hosts flood it.
    Memory,
    /// The daemon is stopped for a moment while hosts fill its queue.
    QueueFull,
    /// The same where its sockets have no room for what the queue holds.
    BufferOverrun,
    /// The line goes down while packets wait, and the daemon answers afterwards.
    VerdictFlushed,
    /// One of two workers gets stuck.
    WorkerStuck,
    /// The table of connections fills up.
    ConntrackFull,
    /// The system's clock is set.
    ClockJump,
}

impl Fault {
    /// All of them.
    pub const ALL: [Self; 25] = [
        Self::Kill,
        Self::StoreRestart,
        Self::Stop,
        Self::WorkerStuck,
        Self::HandOver,
        Self::Reload,
        Self::ReloadOften,
        Self::Flush,
        Self::TableDeleted,
        Self::ChainDeleted,
        Self::RuleAltered,
        Self::IptablesRewritten,
        Self::LinkFlap,
        Self::InterfaceRenamed,
        Self::NewAddress,
        Self::VerdictFlushed,
        Self::QueueFull,
        Self::BufferOverrun,
        Self::ConntrackFull,
        Self::SecondDaemon,
        Self::DiskFull,
        Self::StateUnwritable,
        Self::Descriptors,
        Self::Memory,
        Self::ClockJump,
    ];

    /// Those that are over soon and may come again and again in one life.
    pub const SOAKED: [Self; 7] = [
        Self::Kill,
        Self::Stop,
        Self::HandOver,
        Self::Reload,
        Self::Flush,
        Self::LinkFlap,
        Self::NewAddress,
    ];

    /// Its name in reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Kill => "kill",
            Self::Stop => "stop",
            Self::HandOver => "hand_over",
            Self::Reload => "reload",
            Self::Flush => "flush",
            Self::LinkFlap => "link_flap",
            Self::NewAddress => "new_address",
            Self::ReloadOften => "reload_1000",
            Self::StoreRestart => "store_restart",
            Self::TableDeleted => "table_deleted",
            Self::ChainDeleted => "chain_deleted",
            Self::RuleAltered => "rule_altered",
            Self::IptablesRewritten => "iptables_rewritten",
            Self::InterfaceRenamed => "interface_renamed",
            Self::SecondDaemon => "second_daemon",
            Self::DiskFull => "disk_full",
            Self::StateUnwritable => "state_unwritable",
            Self::Descriptors => "descriptors",
            Self::Memory => "memory",
            Self::QueueFull => "queue_full",
            Self::BufferOverrun => "buffer_overrun",
            Self::VerdictFlushed => "verdict_flushed",
            Self::WorkerStuck => "worker_stuck",
            Self::ConntrackFull => "conntrack_full",
            Self::ClockJump => "clock_jump",
        }
    }

    /// What is done, in a few words.
    #[must_use]
    pub fn about(self) -> &'static str {
        match self {
            Self::Kill => "the daemon is killed, and another one started",
            Self::Stop => "the daemon is stopped for longer than it may hang",
            Self::HandOver => "a successor takes the daemon's place",
            Self::Reload => "another configuration is read",
            Self::Flush => "`nft flush ruleset`",
            Self::LinkFlap => "the line outside goes down",
            Self::NewAddress => "the gateway gets another address outside",
            Self::ReloadOften => "another configuration is read 1,000 times",
            Self::StoreRestart => {
                "the daemon is killed, and succeeded from the store of descriptors"
            }
            Self::TableDeleted => "`nft delete table inet ftwall`",
            Self::ChainDeleted => "`nft delete chain inet ftwall decide`",
            Self::RuleAltered => "a rule that accepts everything is put before the daemon's",
            Self::IptablesRewritten => "all of iptables is written anew, with Docker's chains",
            Self::InterfaceRenamed => "the line outside goes down and comes up under another name",
            Self::SecondDaemon => "a second daemon is started, on the same queues and on others",
            Self::DiskFull => "the disk with the state is full",
            Self::StateUnwritable => {
                "the daemon is killed, and the next one finds its state on a read-only disk"
            }
            Self::Descriptors => "the daemon may open no more descriptors, and is asked to reload",
            Self::Memory => "the daemon gets no more memory while 250 hosts give themselves away",
            Self::QueueFull => {
                "the daemon stands still while 16,000 pings come to a queue of 4,096"
            }
            Self::BufferOverrun => "the same, and the queue's socket has room for a few",
            Self::VerdictFlushed => {
                "packets wait, the line goes down and takes them along, then the daemon answers"
            }
            Self::WorkerStuck => "one of two workers is held up in a system call",
            Self::ConntrackFull => "a host fills the table of connections",
            Self::ClockJump => "the clock is set two hours ahead, then an hour back",
        }
    }

    /// Whether it happens to a daemon; the others happen to any gateway, and what they do to one without a
    /// device is normal.
    pub(crate) fn needs_a_daemon(self) -> bool {
        !matches!(
            self,
            Self::LinkFlap
                | Self::NewAddress
                | Self::InterfaceRenamed
                | Self::VerdictFlushed
                | Self::ConntrackFull
        )
    }

    /// Whether another program image goes on afterwards, with memory of its own.
    pub(super) fn begins_a_life(self) -> bool {
        matches!(self, Self::Kill | Self::HandOver)
    }

    /// Whether what the daemon had noticed but held to be proof of nothing is forgotten.
    pub(super) fn forgets(self) -> bool {
        matches!(
            self,
            Self::Kill | Self::StoreRestart | Self::StateUnwritable | Self::Memory
        )
    }

    /// Whether nobody judges packets meanwhile.
    pub(super) fn blinds(self) -> bool {
        let is_away = matches!(
            self,
            Self::Kill
                | Self::StoreRestart
                | Self::Stop
                | Self::WorkerStuck
                | Self::StateUnwritable
                | Self::Memory
                | Self::QueueFull
                | Self::BufferOverrun
                | Self::VerdictFlushed
        );
        is_away || self.opens()
    }

    /// Whether the gateway stands open meanwhile: nobody can drop a packet by rules that are gone.
    pub(super) fn opens(self) -> bool {
        matches!(
            self,
            Self::Flush
                | Self::TableDeleted
                | Self::ChainDeleted
                | Self::RuleAltered
                | Self::IptablesRewritten
        )
    }

    /// Whether ordinary requests may suffer. A daemon that hands over or reads another configuration
    /// promises that they do not.
    pub(crate) fn may_hurt_the_web(self) -> bool {
        !matches!(self, Self::HandOver | Self::Reload | Self::ReloadOften)
    }
}

/// A fault that happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Incident {
    /// What was done.
    pub fault: Fault,
    /// When it began, in microseconds since the Unix epoch.
    pub at_us: u64,
    /// When its cause was gone: another daemon was started, the line was up again.
    pub ceased_us: u64,
    /// When the gateway was seen to be whole again.
    pub over_us: u64,
    /// What was seen of it, in sentences.
    pub noted: Vec<String>,
    /// The longest time from its beginning on, up to the end of the round, in which nothing of a kind that a
    /// clean host asked for got through, beyond what is usual.
    pub clean_hosts_cut_us: u64,
    /// Requests of clean hosts that were under way while it was felt.
    pub clean_requests: usize,
    /// Those that failed.
    pub clean_requests_failed: usize,
    /// Packets that came from hosts inside, on their way to peers, while it was felt.
    pub tried: usize,
    /// The most that a request of a clean host took longer than usual because of it, as far as can be
    /// told: longer than 99 in 100 of its kind take without a device.
    pub clean_hosts_waited_us: u64,
    /// How long after its beginning something of a locked host got through for the last time; nothing
    /// did if this is zero.
    pub refused_after_us: u64,
}

/// What whoever did something to a gateway knows of it.
#[derive(Debug)]
pub(super) struct Effect {
    ceased_us: u64,
    noted: Vec<String>,
}

impl Effect {
    /// Its cause is gone at this moment.
    pub(super) fn ceased() -> Self {
        Self {
            ceased_us: epoch_us(),
            noted: Vec::new(),
        }
    }

    /// The same with something that was seen.
    pub(super) fn noting(mut self, what: impl Into<String>) -> Self {
        self.noted.push(what.into());
        self
    }
}

/// TCP doubles its pauses: what was lost while a gateway was away for so long is sent again no later
/// than as long again afterwards. This is for the rest: a SYN's first pause.
pub(super) const AFTERMATH: Duration = Duration::from_secs(1);

/// Rules that were taken away are back after this, or something is wrong.
pub(super) const RESTORED_WITHIN: Duration = Duration::from_secs(3);

/// Packets that passed a gateway without rules reach the outside wire so much later.
const UNDER_WAY: Duration = Duration::from_millis(50);

impl Incident {
    /// Nothing has come of it yet.
    pub(super) fn new(fault: Fault, at_us: u64, effect: Effect) -> Self {
        Self {
            fault,
            at_us,
            ceased_us: effect.ceased_us,
            over_us: epoch_us(),
            noted: effect.noted,
            clean_hosts_cut_us: 0,
            clean_requests: 0,
            clean_requests_failed: 0,
            tried: 0,
            clean_hosts_waited_us: 0,
            refused_after_us: 0,
        }
    }

    /// When nobody judged packets.
    pub(super) fn blind_us(&self) -> (u64, u64) {
        (self.at_us, self.over_us)
    }

    /// How long the gateway was not whole.
    #[must_use]
    pub fn lasted_us(&self) -> u64 {
        self.over_us.saturating_sub(self.at_us)
    }

    /// Until when its effects may be felt.
    pub(super) fn felt_until_us(&self) -> u64 {
        self.over_us + self.lasted_us() + micros(AFTERMATH)
    }

    /// Whether a request that was under way then may have suffered.
    pub(crate) fn explains(&self, began_us: u64, ended_us: u64) -> bool {
        self.fault.may_hurt_the_web() && self.is_felt_between(began_us, ended_us)
    }

    /// Whether its effects may have been felt within that time.
    pub(super) fn is_felt_between(&self, began_us: u64, ended_us: u64) -> bool {
        began_us <= self.felt_until_us() && ended_us >= self.at_us
    }

    /// Whether the gateway had no rules when something arrived.
    pub(super) fn left_open(&self, at_us: u64) -> bool {
        let until = self.over_us + micros(UNDER_WAY);
        self.fault.opens() && (self.at_us..=until).contains(&at_us)
    }
}

/// Faults in an order drawn from a seed: all of them come before one comes again.
#[derive(Debug)]
pub(super) struct Deck {
    rng: ChaCha8Rng,
    device: Device,
    cards: Vec<Fault>,
    /// When rules may be taken away next.
    next_flush: Duration,
}

/// How far a soak has got.
#[derive(Debug, Clone, Copy)]
pub(super) struct Progress {
    pub(super) elapsed: Duration,
    pub(super) length: Duration,
}

/// A daemon that puts rules back gives way to whoever takes them away more often.
const BETWEEN_FLUSHES: Duration = Duration::from_secs(310);

/// The last daemon is to live long enough to show whether it grows.
const LAST_LIFE: f64 = 2.0 / 3.0;

/// First and last instant of a round at which something is done to the gateway.
const INSTANTS_MS: std::ops::Range<u64> = 1_000..6_500;

/// How long an outage may be.
const OUTAGES_MS: std::ops::Range<u64> = 200..1_500;

impl Deck {
    pub(super) fn new(seed: u64, device: Device) -> Self {
        Self {
            rng: ChaCha8Rng::seed_from_u64(seed),
            device,
            cards: Vec::new(),
            next_flush: Duration::ZERO,
        }
    }

    /// The next fault.
    pub(super) fn draw(&mut self, progress: Progress) -> Fault {
        loop {
            let fault = self.next_card();
            if self.is_possible(fault, progress) {
                if fault == Fault::Flush {
                    self.next_flush = progress.elapsed + BETWEEN_FLUSHES;
                }
                return fault;
            }
        }
    }

    /// When in a round it happens, and how long it takes where that is a matter of choice.
    pub(super) fn times(&mut self) -> (Duration, Duration) {
        let mut within = |range| Duration::from_millis(self.rng.random_range(range));
        (within(INSTANTS_MS), within(OUTAGES_MS))
    }

    fn next_card(&mut self) -> Fault {
        if self.cards.is_empty() {
            self.cards = Fault::SOAKED.to_vec();
            self.cards.shuffle(&mut self.rng);
        }
        self.cards.pop().expect("the deck was filled")
    }

    fn is_possible(&self, fault: Fault, progress: Progress) -> bool {
        let left = 1.0 - progress.elapsed.as_secs_f64() / progress.length.as_secs_f64();
        (self.device == Device::Ftwall || !fault.needs_a_daemon())
            && (left > LAST_LIFE || !fault.begins_a_life())
            && (fault != Fault::Flush || progress.elapsed >= self.next_flush)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drawn(device: Device, elapsed_s: u64) -> Vec<Fault> {
        let mut deck = Deck::new(7, device);
        let progress = Progress {
            elapsed: Duration::from_secs(elapsed_s),
            length: Duration::from_secs(3600),
        };
        (0..40).map(|_| deck.draw(progress)).collect()
    }

    #[test]
    fn everything_happens_at_first_and_rules_are_not_taken_away_all_the_time() {
        let faults = drawn(Device::Ftwall, 0);
        assert!(Fault::SOAKED.iter().all(|fault| faults.contains(fault)));
        let flushes = faults.iter().filter(|fault| **fault == Fault::Flush);
        assert_eq!(flushes.count(), 1);
    }

    #[test]
    fn the_last_daemon_is_left_alive() {
        let faults = drawn(Device::Ftwall, 1300);
        assert!(!faults.iter().any(|fault| fault.begins_a_life()));
        assert!(faults.contains(&Fault::Stop));
    }

    #[test]
    fn nothing_is_done_to_a_daemon_where_there_is_none() {
        let faults = drawn(Device::None, 0);
        assert!(!faults.iter().any(|fault| fault.needs_a_daemon()));
    }

    fn incident(fault: Fault) -> Incident {
        Incident {
            fault,
            at_us: 10_000_000,
            ceased_us: 10_400_000,
            over_us: 10_500_000,
            noted: Vec::new(),
            clean_hosts_cut_us: 0,
            clean_requests: 0,
            clean_requests_failed: 0,
            tried: 0,
            clean_hosts_waited_us: 0,
            refused_after_us: 0,
        }
    }

    #[test]
    fn an_outage_explains_what_was_under_way_until_as_long_again_and_a_second_after_it() {
        let kill = incident(Fault::Kill);
        assert!(kill.explains(9_000_000, 10_000_000));
        assert!(kill.explains(12_000_000, 17_000_000));
        assert!(!kill.explains(12_000_001, 17_000_000));
        assert!(!kill.explains(9_000_000, 9_999_999));
    }

    #[test]
    fn a_reload_and_a_hand_over_explain_nothing() {
        for fault in [Fault::Reload, Fault::HandOver] {
            assert!(!incident(fault).explains(10_100_000, 10_200_000));
        }
    }

    #[test]
    fn a_gateway_is_open_only_while_its_rules_are_away() {
        let flush = incident(Fault::Flush);
        assert!(flush.left_open(10_000_000) && flush.left_open(10_549_000));
        assert!(!flush.left_open(10_551_000));
        assert!(!incident(Fault::Kill).left_open(10_100_000));
    }
}
