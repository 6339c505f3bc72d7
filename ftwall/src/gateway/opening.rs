//! The queues of every shard, opened before any rule feeds them or taken over while rules go on feeding them.

use std::os::fd::OwnedFd;

use anyhow::Context as _;
use tracing::info;

use super::backend::{self, Backend, Installed};
use super::fan_out::{self, QueueClass};
use super::nft;
use super::queue::{self, PacketQueue, QueueError, QueueReader};
use super::rules::{PayloadTest, RuleSettings};
use super::succession::Inheritance;
use crate::control::events::{Notice, ReadyQueue};

/// The queues of one shard, the most urgent first.
pub(super) type ShardQueues = Vec<Box<dyn PacketQueue>>;

/// What a daemon before this one has left in the kernel.
pub(super) enum Leftovers {
    /// No rule.
    Nothing,
    /// Rules that lead nowhere: they are held, and go with this value unless it is kept.
    Held(Installed),
    /// Rules that go on feeding the queues that were taken over.
    Live,
}

impl Leftovers {
    /// Whether there are sets that remember anything.
    pub(super) const fn have_sets(&self) -> bool {
        match self {
            Self::Nothing => false,
            Self::Held(_) | Self::Live => true,
        }
    }

    /// Whether rules asked a daemon that was not there.
    pub(super) const fn led_nowhere(&self) -> bool {
        matches!(self, Self::Held(_))
    }

    /// Leaves the rules to those that were put in their place.
    pub(super) fn keep(self) {
        match self {
            Self::Held(rules) => rules.keep(),
            Self::Nothing | Self::Live => {}
        }
    }
}

/// How packets come to the queues.
pub(super) struct Way {
    pub(super) backend: Backend,
    pub(super) payload_test: PayloadTest,
    /// The queues that rules in place go on feeding. Without it what was left is closed, and they are free.
    pub(super) left: Option<Inheritance>,
}

/// The way that rules in place go on with the queues that were left, if all were; else the best there is,
/// found by trying. While packets wait nothing may be tried: the kernel drops all that wait in any queue
/// whenever a base chain goes, and one that is only tried goes at once.
pub(super) fn find_way(
    requested: Option<Backend>,
    reader: QueueReader,
    rules: &RuleSettings,
    inheritance: Inheritance,
) -> anyhow::Result<Way> {
    let mut numbers = rules.queues.queues().map(|(number, ..)| number);
    if reader == QueueReader::Netlink && inheritance.covers(&mut numbers) {
        let in_place = backend::in_place(&nft::list()?);
        let is_wanted = |backend| requested.is_none_or(|requested| requested == backend);
        if let Some((backend, payload_test)) = in_place.filter(|(backend, _)| is_wanted(*backend)) {
            return Ok(Way {
                backend,
                payload_test,
                left: Some(inheritance),
            });
        }
    }
    drop(inheritance);
    Ok(Way {
        backend: backend::choose(requested)?,
        payload_test: backend::probe_payload_test(),
        left: None,
    })
}

/// Goes on with queues that were left, or binds them while no rule feeds them. Rules that a killed daemon
/// has left are held meanwhile: a queue would lose packets that come before it is set up.
pub(super) fn open_queues(
    rules: &RuleSettings,
    reader: QueueReader,
    left: Option<Inheritance>,
) -> anyhow::Result<(Vec<ShardQueues>, Leftovers)> {
    let leftovers = if left.is_some() {
        Leftovers::Live
    } else if backend::is_applied()? {
        let mut numbers = rules.queues.queues().map(|(number, ..)| number);
        numbers.try_for_each(queue::check_free)?;
        Leftovers::Held(backend::hold()?)
    } else {
        Leftovers::Nothing
    };
    let mut left = left.unwrap_or_default();
    let mut open = |shard, class| {
        let number = rules.queues.queue(shard, class);
        let settings = fan_out::settings(number, class, rules);
        let go_on = |descriptor: OwnedFd| queue::inherit(reader, descriptor, settings);
        match left.claim(number).and_then(go_on) {
            Some(queue) => Ok(queue),
            None => queue::open(reader, settings),
        }
    };
    let mut of_shard = |shard| -> Result<ShardQueues, QueueError> {
        QueueClass::ALL
            .map(|class| open(shard, class))
            .into_iter()
            .collect()
    };
    let queues = (0..rules.queues.shards().count()).map(&mut of_shard);
    Ok((queues.collect::<Result<_, _>>()?, leftovers))
}

/// What is said once everything is live.
pub(super) struct Ready {
    pub(super) backend: Backend,
    pub(super) reader: QueueReader,
    pub(super) queues: Vec<ReadyQueue>,
}

impl Ready {
    /// Asks every queue how large its buffer has become.
    ///
    /// # Errors
    /// When the kernel does not say.
    pub(super) fn of(
        backend: Backend,
        reader: QueueReader,
        rules: &RuleSettings,
        queues: &[ShardQueues],
    ) -> anyhow::Result<Ready> {
        let layout = rules.queues.queues();
        let queues = layout.zip(queues.iter().flatten());
        let ready = queues.map(|((number, worker, class), queue)| {
            let receive_buffer = queue
                .receive_buffer()
                .context("asking for the size of a buffer")?;
            let wanted = fan_out::settings(number, class, rules);
            info!(
                number,
                worker,
                ?class,
                receive_buffer,
                wanted = wanted.wanted_buffer(),
                "queue is open"
            );
            Ok(ReadyQueue {
                number,
                worker,
                class,
                receive_buffer,
            })
        });
        Ok(Ready {
            backend,
            reader,
            queues: ready.collect::<anyhow::Result<_>>()?,
        })
    }

    /// As an event.
    pub(super) fn notice(&self) -> Notice {
        Notice::Ready {
            backend: self.backend.name(),
            queue: self.queues.first().map_or(0, |queue| queue.number),
            reader: self.reader.name(),
            queues: self.queues.clone(),
        }
    }
}
