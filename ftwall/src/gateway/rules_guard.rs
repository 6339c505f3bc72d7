//! Puts the rules back that somebody else takes away: another firewall that is started anew, an
//! administrator's `nft flush ruleset`.
//!
//! The kernel tells at once of a change in nf_tables, and the rules are looked at slowly besides. What is
//! missing comes back in one transaction together with the locks and peers the engines know. Somebody who
//! takes the rules away again and again is given way to for longer and longer, and the operator is told.

use std::os::fd::AsFd as _;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags};
use tracing::{info, warn};

use super::backend::{self, Backend};
use super::clock::Clock;
use super::drift;
use super::event_log::EventSender;
use super::kernel_sets::{self, BATCH, Batch, blocked, set_changes};
use super::operations::Operations;
use super::rules_watch::RulesWatch;
use super::set_elements::SetWriter;
use super::worker::Request;
use super::workers::{Unresponsive, Workers};
use crate::control::events::Notice;
use crate::{Action, Timestamp};

/// How often the rules are looked at although nothing was heard of them.
const BETWEEN_LOOKS: Duration = Duration::from_secs(10);
/// The same where nothing ever is heard: rules of the original iptables, or a kernel that does not tell.
const BETWEEN_LOOKS_UNTOLD: Duration = Duration::from_secs(2);
/// Elements that go into the transaction with the rules. Locks come first, and the rest follows at once by
/// netlink. A transaction is one message to the kernel, which takes none larger than a socket's buffer: in a
/// user namespace that is what `net.core.wmem_max` says, and by default three thousand elements are too many.
const MOST_WITH_RULES: usize = 1 << 9;
/// Faults that are named in an event.
const MOST_NAMED: usize = 5;

/// What is done about missing rules, and when.
#[derive(Debug)]
pub(super) struct RulesGuard {
    /// Absent where the kernel does not tell.
    watch: Option<RulesWatch>,
    next_look: Timestamp,
    patience: Patience,
    /// Whether the rules were missing when they were last looked at.
    is_missing: bool,
    restored: u64,
}

/// Whom the guard speaks to.
pub(super) struct Surroundings<'a> {
    pub(super) clock: Clock,
    pub(super) operations: &'a mut Operations,
    pub(super) workers: &'a Workers,
    pub(super) events: &'a EventSender,
}

impl RulesGuard {
    /// Listens from now on, in the network namespace of this thread.
    pub(super) fn start(now: Timestamp, backend: Backend) -> RulesGuard {
        let watch = RulesWatch::open()
            .inspect_err(|error| warn!(%error, "the kernel does not tell when rules are changed"));
        RulesGuard {
            watch: watch.ok().filter(|_| backend != Backend::IptablesLegacy),
            next_look: now + BETWEEN_LOOKS_UNTOLD,
            patience: Patience::default(),
            is_missing: false,
            restored: 0,
        }
    }

    /// What to wait for.
    pub(super) fn sources(&self) -> impl Iterator<Item = PollFd<'_>> {
        let watch = self.watch.iter();
        watch.map(|watch| PollFd::from_borrowed_fd(watch.as_fd(), PollFlags::IN))
    }

    /// Whether the rules were missing when they were last looked at.
    #[cfg_attr(not(feature = "http"), expect(dead_code, reason = "only visitors ask"))]
    pub(super) const fn is_missing(&self) -> bool {
        self.is_missing
    }

    /// How often the rules were put back.
    pub(super) const fn restored(&self) -> u64 {
        self.restored
    }

    /// Looks at the rules if something was heard of them or it is time, and puts back what is missing.
    pub(super) fn see_to(&mut self, around: &mut Surroundings<'_>) {
        let now = around.clock.now();
        let heard = self.watch.as_mut().is_some_and(RulesWatch::heard);
        if !heard && now < self.next_look {
            return;
        }
        let between = match self.watch {
            Some(_) => BETWEEN_LOOKS,
            None => BETWEEN_LOOKS_UNTOLD,
        };
        self.next_look = now + between;
        let operations = &around.operations;
        match drift::look(&operations.rules(), operations.backend()) {
            Ok(faults) if faults.is_empty() => self.all_is_well(around),
            Ok(faults) => self.lost(now, &faults, around),
            Err(error) => warn!(%error, "the rules cannot be looked at"),
        }
    }

    /// Somebody else may have put them back, but knows nothing of what was learned.
    fn all_is_well(&mut self, around: &mut Surroundings<'_>) {
        if !self.is_missing {
            return;
        }
        match elements(around)
            .map_err(anyhow::Error::from)
            .and_then(write)
        {
            Ok(()) => info!("the rules are there again"),
            Err(error) => warn!(%error, "the rules are there again, without what was learned"),
        }
        self.in_place(around);
    }

    fn lost(&mut self, now: Timestamp, faults: &[String], around: &mut Surroundings<'_>) {
        let wait = self.patience.wait(now);
        if !self.is_missing {
            self.is_missing = true;
            warn!(missing = faults[0], "somebody has taken rules away");
            let faults = faults.iter().take(MOST_NAMED).cloned().collect();
            let notice = Notice::RulesMissing {
                faults,
                waits_seconds: wait.as_secs(),
            };
            around.events.notice(now, notice);
        }
        let outcome = match wait {
            Duration::ZERO => put_back(around),
            _ => Err(anyhow::anyhow!(
                "somebody takes them away again and again, the next attempt is in {} s",
                wait.as_secs()
            )),
        };
        match outcome {
            Ok(()) => {
                self.patience.used(now);
                self.restored += 1;
                self.in_place(around);
            }
            Err(error) => {
                let fault = format!("rules are missing: {}; {error:#}", faults[0]);
                around.operations.rules_fault = Some(fault);
                self.next_look = now + wait.max(RETRY).min(BETWEEN_LOOKS);
            }
        }
    }

    fn in_place(&mut self, around: &mut Surroundings<'_>) {
        self.is_missing = false;
        around.operations.rules_fault = None;
        let restored = self.restored;
        info!(restored, "the rules are in place again");
        let notice = Notice::RulesRestored { restored };
        around.events.notice(around.clock.now(), notice);
    }
}

/// In one transaction, with the sets as the engines know them.
fn put_back(around: &Surroundings<'_>) -> anyhow::Result<()> {
    let mut with_rules = elements(around)?;
    let after = match with_rules.keys().nth(MOST_WITH_RULES) {
        Some(first) => with_rules.split_off(&first.clone()),
        None => Batch::new(),
    };
    let operations = &around.operations;
    let commands = kernel_sets::commands(&with_rules);
    backend::apply_with(&operations.rules(), operations.backend(), commands)?.keep();
    write(after)
}

/// What the sets should hold.
fn elements(around: &Surroundings<'_>) -> Result<Batch, Unresponsive> {
    let known = around.workers.ask_all(|reply| {
        Request::operate(reply, |engine, now| {
            let blocked = blocked(engine.config());
            (engine.announcements(now), blocked)
        })
    })?;
    let changes = known.iter().flat_map(|(actions, blocked)| {
        let of_action = |action: &Action| set_changes(action, blocked).collect::<Vec<_>>();
        actions.iter().flat_map(of_action)
    });
    Ok(changes.collect())
}

/// Into sets that are there. What they refuse the engines still know.
fn write(elements: Batch) -> anyhow::Result<()> {
    let mut writer = SetWriter::open()?;
    let elements: Vec<_> = elements.into_iter().collect();
    for part in elements.chunks(BATCH) {
        let batch: Batch = part.iter().copied().collect();
        for error in kernel_sets::write(&batch, |part| writer.write(part)) {
            warn!(%error, "the kernel refuses some of what was learned");
        }
    }
    Ok(())
}

/// After an attempt that failed.
const RETRY: Duration = Duration::from_secs(1);

/// How long rules that were put back and taken away again are left alone.
#[derive(Debug, Default)]
struct Patience {
    /// Times they were put back without a long peace in between.
    times: u32,
    last: Timestamp,
}

impl Patience {
    /// For how long from now on they are not to be put back.
    fn wait(&self, now: Timestamp) -> Duration {
        let pause = match self.times.checked_sub(AT_ONCE) {
            None => Duration::ZERO,
            Some(_) if now.saturating_since(self.last) >= PEACE => Duration::ZERO,
            Some(beyond) => LONGEST_PAUSE.min(FIRST_PAUSE * 2_u32.pow(beyond.min(16))),
        };
        (self.last + pause).saturating_since(now)
    }

    /// They were put back.
    fn used(&mut self, now: Timestamp) {
        if now.saturating_since(self.last) >= PEACE {
            self.times = 0;
        }
        self.times += 1;
        self.last = now;
    }
}

/// One restart of a firewall may take rules away in several steps.
const AT_ONCE: u32 = 5;
const FIRST_PAUSE: Duration = Duration::from_secs(2);
const LONGEST_PAUSE: Duration = Duration::from_secs(300);
/// After so long nobody is at war any more.
const PEACE: Duration = Duration::from_secs(600);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_put_back_at_once_until_somebody_takes_them_away_again_and_again() {
        let mut patience = Patience::default();
        let mut now = Timestamp::from_secs(1_000_000);
        let mut waits = Vec::new();
        for _ in 0..20 {
            let wait = patience.wait(now);
            waits.push(wait.as_secs());
            now = now + wait;
            assert_eq!(patience.wait(now), Duration::ZERO, "the pause is over");
            patience.used(now);
        }
        assert_eq!(waits[..10], [0, 0, 0, 0, 0, 2, 4, 8, 16, 32]);
        assert_eq!(waits[19], 300);

        now = now + PEACE;
        assert_eq!(patience.wait(now), Duration::ZERO);
        patience.used(now);
        assert_eq!(patience.wait(now), Duration::ZERO, "peace was long enough");
    }

    #[test]
    fn a_pause_that_has_begun_gets_shorter() {
        let mut patience = Patience::default();
        let now = Timestamp::from_secs(1_000_000);
        (0..=AT_ONCE).for_each(|_| patience.used(now));
        assert_eq!(patience.wait(now), Duration::from_secs(4));
        let later = now + Duration::from_secs(3);
        assert_eq!(patience.wait(later), Duration::from_secs(1));
    }
}
