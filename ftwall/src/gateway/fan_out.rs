//! Which queues there are, and which packet goes to which.
//!
//! Hosts are dealt out to *shards* by the low bits of their address, so that both directions of all
//! their connections meet one worker, whoever computes it: a rule, an iptables match or this program.
//! Addresses are given out one after the other, so low bits spread hosts as evenly as a hash would.
//!
//! Each shard has two queues. *Signalling* is what FastTrack clients find each other with: short, and
//! answered at once. *Payload* is the safety net, which sees the beginning of every undecided
//! connection. A flood in one takes no room from the other.

use std::net::Ipv4Addr;

use serde::Serialize;
use thiserror::Error;

use super::queue::{QueueSettings, WhenOverloaded};
use super::rules::RuleSettings;

/// What a queue is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum QueueClass {
    /// Datagrams of FastTrack's shapes, dials of locked hosts and the answers to those.
    Signalling,
    /// TCP payload of undecided connections.
    Payload,
}

impl QueueClass {
    /// How many there are, and queues of a shard.
    pub const COUNT: usize = 2;

    /// Both, the most urgent first.
    pub const ALL: [QueueClass; Self::COUNT] = [QueueClass::Signalling, QueueClass::Payload];

    /// Stable name in snake case.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            QueueClass::Signalling => "signalling",
            QueueClass::Payload => "payload",
        }
    }

    const fn offset(self) -> u16 {
        match self {
            QueueClass::Signalling => 0,
            QueueClass::Payload => 1,
        }
    }
}

/// How many workers share the hosts: a power of two, since bits of addresses decide.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shards {
    /// Bits of an address that decide.
    bits: u8,
}

const MOST_BITS: u8 = 3;

impl Shards {
    /// So many.
    ///
    /// # Errors
    /// When it is another number than 1, 2, 4 or 8.
    pub fn new(count: u16) -> Result<Shards, FanOutError> {
        let mut all = (0..=MOST_BITS).map(|bits| Shards { bits });
        let found = all.find(|shards| shards.count() == count);
        found.ok_or(FanOutError::Shards(count))
    }

    /// Bits of an address that decide.
    #[must_use]
    pub const fn bits(self) -> u8 {
        self.bits
    }

    /// How many there are.
    #[must_use]
    pub const fn count(self) -> u16 {
        1 << self.bits
    }

    /// The shard of a host.
    #[must_use]
    pub const fn of(self, host: Ipv4Addr) -> u16 {
        let [.., last] = host.octets();
        last as u16 & (self.count() - 1)
    }
}

/// The numbers of all queues: neighbours, two for each shard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FanOut {
    first: u16,
    shards: Shards,
}

/// Why there cannot be such queues.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum FanOutError {
    /// Bits of addresses cannot decide among so many.
    #[error("queues can be read by 1, 2, 4 or 8 workers, not {0}")]
    Shards(u16),
    /// The numbers would go beyond the last one a queue can have.
    #[error("queues are numbered up to 65535, too few for {shards} workers from {first} on")]
    Numbers {
        /// The lowest number.
        first: u16,
        /// Workers, with two queues each.
        shards: u16,
    },
}

impl FanOut {
    /// Queues from number `first` on.
    ///
    /// # Errors
    /// When there are not so many numbers.
    pub fn new(first: u16, shards: Shards) -> Result<FanOut, FanOutError> {
        let last_offset = 2 * shards.count() - 1;
        match first.checked_add(last_offset) {
            Some(_) => Ok(FanOut { first, shards }),
            None => Err(FanOutError::Numbers {
                first,
                shards: shards.count(),
            }),
        }
    }

    /// The lowest number.
    #[must_use]
    pub const fn first(self) -> u16 {
        self.first
    }

    /// The shards.
    #[must_use]
    pub const fn shards(self) -> Shards {
        self.shards
    }

    /// The number of a shard's queue.
    #[must_use]
    pub const fn queue(self, shard: u16, class: QueueClass) -> u16 {
        self.first + 2 * shard + class.offset()
    }

    /// Shard and class of a queue.
    #[must_use]
    pub fn of_queue(self, number: u16) -> Option<(u16, QueueClass)> {
        let place = number.checked_sub(self.first)?;
        let shard = place / 2;
        let class = QueueClass::ALL[usize::from(place % 2)];
        (shard < self.shards.count()).then_some((shard, class))
    }

    /// All numbers with shard and class.
    pub fn queues(self) -> impl Iterator<Item = (u16, u16, QueueClass)> {
        (0..self.shards.count()).flat_map(move |shard| {
            QueueClass::ALL.map(|class| (self.queue(shard, class), shard, class))
        })
    }
}

/// How the queues of a class are set up. Signalling is short and needs little of the socket's buffer,
/// unless all UDP of locked hosts is asked about, or their payload goes there too. It never overflows into
/// the open: a dial or a ping that passes unseen is a contact.
#[must_use]
pub fn settings(number: u16, class: QueueClass, rules: &RuleSettings) -> QueueSettings {
    let settings = QueueSettings::of(number);
    if class == QueueClass::Payload {
        return QueueSettings {
            when_overloaded: rules.when_overloaded,
            ..settings
        };
    }
    if rules.strict || rules.when_overloaded == WhenOverloaded::Pass {
        return settings;
    }
    let shapes = rules.shapes.iter();
    let longest = shapes.map(|shape| *shape.payload_len.end()).max();
    QueueSettings {
        copy_range: LONGEST_HEADERS + longest.unwrap_or(0),
        ..settings
    }
}

/// Octets of an IPv4 and a TCP header with all options.
pub(super) const LONGEST_HEADERS: u16 = 60 + 60;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::config_file::Layer;
    use crate::control::configuration::{Configuration, Files};

    #[test]
    fn every_host_has_one_shard_and_neighbours_have_different_ones() {
        for count in [1, 2, 4, 8] {
            let shards = Shards::new(count).expect("a power of two");
            let mut hosts = vec![0; usize::from(shards.count())];
            for last in 0..=255 {
                hosts[usize::from(shards.of(Ipv4Addr::new(10, 77, 3, last)))] += 1;
            }
            assert_eq!(hosts, vec![256 / hosts.len(); hosts.len()]);
        }
        for wrong in [0, 3, 16] {
            assert_eq!(Shards::new(wrong), Err(FanOutError::Shards(wrong)));
        }
    }

    #[test]
    fn a_queue_leads_back_to_its_shard_and_class() {
        let fan_out =
            FanOut::new(10, Shards::new(4).expect("a power of two")).expect("there is room");
        let numbers: Vec<u16> = fan_out.queues().map(|(number, ..)| number).collect();
        assert_eq!(numbers, (10..18).collect::<Vec<_>>());
        for (number, shard, class) in fan_out.queues() {
            assert_eq!(fan_out.of_queue(number), Some((shard, class)));
        }
        assert_eq!((fan_out.of_queue(9), fan_out.of_queue(18)), (None, None));
    }

    #[test]
    fn numbers_beyond_the_last_are_refused() {
        assert!(FanOut::new(u16::MAX - 1, Shards::default()).is_ok());
        let error = FanOut::new(u16::MAX, Shards::default()).expect_err("two are needed");
        assert!(
            error.to_string().contains("1 workers from 65535"),
            "{error}"
        );
    }

    #[test]
    fn signalling_is_copied_whole_and_no_more() {
        let range = |class, strict| {
            let rules = RuleSettings {
                strict,
                ..Configuration::load(&Files::None, Layer::default())
                    .expect("nothing is wrong with the product as installed")
                    .rules()
            };
            settings(0, class, &rules).copy_range
        };
        let signalling = range(QueueClass::Signalling, false);
        assert!((140..=256).contains(&signalling), "{signalling}");
        assert_eq!(
            range(QueueClass::Signalling, true),
            range(QueueClass::Payload, false)
        );
    }
}
