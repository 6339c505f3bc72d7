//! What a daemon knows before its first packet: what the kernel's sets still hold of one that died, and what
//! was written down by the one before.
//!
//! The kernel knows best who is blocked at this moment and for how long; the file knows why, what the kernel
//! was never told, and everything if the machine was started anew. Each is asked for what it knows best.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use tracing::{info, warn};

use super::fan_out::Shards;
use super::kernel_sets::{self, BATCH, Batch, Change};
use super::set_elements::SetWriter;
use super::worker::Worker;
use crate::state::{Fact, Kept};
use crate::{Hearsay, Origin, Remembered};

/// Something that is known of a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Known {
    /// What.
    pub left: Remembered,
    /// How it came to be known.
    pub origin: Origin,
    /// Whether the kernel's sets hold it.
    pub in_kernel: bool,
}

/// Puts together what the kernel holds and what was kept: of what both know, the longer time counts, and
/// the origin that was written down.
#[must_use]
pub fn join(in_kernel: Vec<Remembered>, kept: &[Kept]) -> Vec<Known> {
    let mut known: BTreeMap<Subject, Known> = in_kernel
        .into_iter()
        .map(|left| {
            let origin = Origin::TakenOver;
            let known = Known {
                left,
                origin,
                in_kernel: true,
            };
            (subject(left), known)
        })
        .collect();
    for (left, origin) in kept.iter().filter_map(Kept::remembered) {
        let of_kernel = known.get(&subject(left)).map(|known| known.left);
        let known_now = Known {
            left: of_kernel.map_or(left, |held| longer(held, left)),
            origin,
            in_kernel: of_kernel.is_some(),
        };
        known.insert(subject(left), known_now);
    }
    known.into_values().collect()
}

/// Lets each worker know what concerns its hosts, and the kernel what it does not hold. No worker runs yet.
pub fn run(workers: &mut [Worker], shards: Shards, in_kernel: Vec<Remembered>, kept: &[Kept]) {
    for worker in &mut *workers {
        kept.iter().for_each(|kept| worker.let_through(kept));
    }
    let known = join(in_kernel, kept);
    if known.is_empty() {
        return;
    }
    info!(
        entries = known.len(),
        "taken over from a daemon before this one"
    );
    for entry in known {
        let own = usize::from(shards.of(entry.left.host()));
        for (place, worker) in workers.iter_mut().enumerate() {
            if place == own {
                worker.take_over(entry);
            } else if let Remembered::Peer { peer, for_, .. } = entry.left {
                worker.believe(Hearsay::Peer { peer, for_ });
            }
        }
    }
    let changes: Vec<Change> = workers.iter_mut().flat_map(Worker::announced).collect();
    tell_kernel(&changes);
}

/// What it refuses costs protection in depth, not the promise: the engines know it.
fn tell_kernel(changes: &[Change]) {
    if changes.is_empty() {
        return;
    }
    let mut writer = match SetWriter::open() {
        Ok(writer) => writer,
        Err(error) => return warn!(%error, "the kernel is not told of what was kept"),
    };
    for part in changes.chunks(BATCH) {
        let batch: Batch = part.iter().copied().collect();
        for error in kernel_sets::write(&batch, |part| writer.write(part)) {
            warn!(%error, "the kernel refuses some of what was kept");
        }
    }
}

/// How many hosts and how many peers of theirs were kept.
#[must_use]
pub fn count(kept: &[Kept]) -> (usize, usize) {
    let of = |is_it: fn(&Fact) -> bool| kept.iter().filter(|kept| is_it(&kept.fact)).count();
    let clients = of(|fact| matches!(fact, Fact::Lock { .. }));
    (clients, of(|fact| matches!(fact, Fact::Peer { .. })))
}

/// Whom something concerns: a host, or a host and a peer.
type Subject = (Ipv4Addr, Option<SocketAddrV4>);

const fn subject(left: Remembered) -> Subject {
    match left {
        Remembered::Locked { host, .. } => (host, None),
        Remembered::Peer { client, peer, .. } => (client, Some(peer)),
    }
}

fn longer(one: Remembered, other: Remembered) -> Remembered {
    if for_(one) >= for_(other) { one } else { other }
}

const fn for_(left: Remembered) -> Duration {
    match left {
        Remembered::Locked { for_, .. } | Remembered::Peer { for_, .. } => for_,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOST: Ipv4Addr = Ipv4Addr::new(10, 77, 1, 1);
    const OTHER: Ipv4Addr = Ipv4Addr::new(10, 77, 1, 2);

    #[test]
    fn of_what_both_know_the_longer_time_counts_and_the_origin_that_was_written_down() {
        for (in_kernel, kept_for, expected) in [(60, 50, 60), (60, 3000, 3000)] {
            let joined = join(vec![lock(HOST, in_kernel)], &[kept(HOST, kept_for)]);
            let known = Known {
                left: lock(HOST, expected),
                origin: Origin::Operator,
                in_kernel: true,
            };
            assert_eq!(joined, [known]);
        }
    }

    #[test]
    fn what_only_one_of_them_knows_is_known_too() {
        let joined = join(vec![lock(HOST, 60)], &[kept(OTHER, 50)]);
        let expected = [
            Known {
                left: lock(HOST, 60),
                origin: Origin::TakenOver,
                in_kernel: true,
            },
            Known {
                left: lock(OTHER, 50),
                origin: Origin::Operator,
                in_kernel: false,
            },
        ];
        assert_eq!(joined, expected);
    }

    #[test]
    fn hosts_and_peers_are_counted_apart() {
        let peer = Fact::Peer {
            client: HOST,
            peer: SocketAddrV4::new(OTHER, 1214),
            origin: Origin::Operator,
        };
        let peer = Kept {
            fact: peer,
            left: None,
        };
        assert_eq!(count(&[kept(HOST, 1), peer, kept(OTHER, 1)]), (2, 1));
    }

    fn lock(host: Ipv4Addr, seconds: u64) -> Remembered {
        let for_ = Duration::from_secs(seconds);
        Remembered::Locked { host, for_ }
    }

    fn kept(host: Ipv4Addr, seconds: u64) -> Kept {
        let origin = Origin::Operator;
        Kept {
            fact: Fact::Lock { host, origin },
            left: Some(Duration::from_secs(seconds)),
        }
    }
}
