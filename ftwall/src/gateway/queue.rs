//! The kernel's packet queue as the daemon sees it: packets come out, one answer goes back for each.
//!
//! Who speaks to the kernel is chosen at the start; all readers keep the same promises. A packet is
//! answered once and in the order of its arrival, and an error is counted and survived: the kernel also
//! reports on packets that are long gone.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::ops::AddAssign;
use std::os::fd::{AsFd, OwnedFd};
use std::str::FromStr;

use rustix::io::Errno;
use serde::Serialize;
use thiserror::Error;
use tracing::warn;

use super::failure::MissingPrivilege;
use super::fan_out::LONGEST_HEADERS;
use super::netlink_queue::NetlinkQueue;
use super::nfqueue::NfqQueue;
use crate::HardwareAddress;
use crate::flow::HEAD_LIMIT;

/// Takes packets out of a queue and answers them.
///
/// The descriptor is readable while packets wait.
pub trait PacketQueue: AsFd + Send {
    /// The queue's number.
    fn number(&self) -> u16;

    /// Octets the socket's buffer holds, as the kernel counts them.
    ///
    /// # Errors
    /// When the kernel does not say.
    fn receive_buffer(&self) -> io::Result<usize>;

    /// Has `judge` judge the packets that wait, `most` at most, and answers them all.
    fn serve(&mut self, most: usize, judge: &mut dyn FnMut(QueuedPacket<'_>) -> Answer);

    /// What went wrong so far.
    fn faults(&self) -> &Faults;
}

/// One packet that waits for an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueuedPacket<'a> {
    /// The packet from its IP header on, at most [`QueueSettings::copy_range`] octets. What goes out in
    /// several segments may still be one packet here, and its checksums need not be filled in yet.
    pub bytes: &'a [u8],
    /// The packet's mark.
    pub mark: u32,
    /// Its way through this machine.
    pub hop: Hop,
}

/// How a packet comes and goes, as the kernel says it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hop {
    /// Number of the interface it came in by; 0 if the kernel does not say.
    pub entered: u32,
    /// Number of the interface it leaves by; 0 if the kernel does not say.
    pub leaves: u32,
    /// Whose frame it came in, where frames have such addresses.
    pub sender: Option<HardwareAddress>,
}

/// What becomes of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It goes on to the next hook function, with a new mark if there is one.
    Accept {
        /// The whole mark, not only ftwall's bits.
        mark: Option<u32>,
    },
    /// It ends here.
    Drop,
}

/// Who speaks to the kernel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum QueueReader {
    /// ftwall's own netlink, which answers many packets at once.
    #[default]
    Netlink,
    /// The `nfq` crate, one system call for each packet and another for its answer.
    Nfq,
}

impl QueueReader {
    /// All readers.
    pub const ALL: [QueueReader; 2] = [QueueReader::Netlink, QueueReader::Nfq];

    /// The name on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            QueueReader::Netlink => "netlink",
            QueueReader::Nfq => "nfq",
        }
    }
}

impl fmt::Display for QueueReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for QueueReader {
    type Err = String;

    fn from_str(text: &str) -> Result<QueueReader, String> {
        let mut all = QueueReader::ALL.into_iter();
        all.find(|reader| reader.name() == text).ok_or_else(|| {
            let names = QueueReader::ALL.map(QueueReader::name).join(", ");
            format!("no such reader: choose one of {names}")
        })
    }
}

/// What happens to a packet that finds the queue or the socket's buffer full.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WhenOverloaded {
    /// It is dropped: nothing passes unseen, and a flood costs the connections that wait.
    #[default]
    Drop,
    /// It passes unseen.
    Pass,
}

/// How a queue is set up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueSettings {
    /// The queue's number.
    pub number: u16,
    /// Octets of each packet that are handed over, at least one.
    pub copy_range: u16,
    /// Packets that may wait at once.
    pub length: u32,
    /// What becomes of more packets than that.
    pub when_overloaded: WhenOverloaded,
}

impl QueueSettings {
    /// A queue of whole heads, even if the kernel has merged their segments into one packet; what lies
    /// behind is counted by the packet's own headers.
    #[must_use]
    pub const fn of(number: u16) -> QueueSettings {
        QueueSettings {
            number,
            copy_range: LONGEST_HEADERS + HEAD_LIMIT as u16,
            length: 4096,
            when_overloaded: WhenOverloaded::Drop,
        }
    }

    /// Octets that a whole queue takes in the socket's buffer, as the kernel counts them.
    pub(super) fn wanted_buffer(&self) -> usize {
        let packets = usize::try_from(self.length).unwrap_or(usize::MAX);
        packets.saturating_mul(OVERHEAD_PER_PACKET + usize::from(self.copy_range))
    }
}

/// What the kernel charges a socket for one queued packet besides the octets copied.
const OVERHEAD_PER_PACKET: usize = 768;

/// Why a queue cannot be used.
#[derive(Debug, Error)]
pub enum QueueError {
    /// Another program listens there.
    #[error(
        "queue {queue} is bound by another program: stop it (is ftwall running already?) \
         or choose another queue with --queue"
    )]
    Taken {
        /// The queue's number.
        queue: u16,
    },
    /// The kernel does not let this process bind any queue.
    #[error(transparent)]
    Privilege(#[from] MissingPrivilege),
    /// The kernel has no packet queue, or refused for another reason.
    #[error("cannot {action} queue {queue}: {source}")]
    Kernel {
        /// What was tried.
        action: &'static str,
        /// The queue's number.
        queue: u16,
        /// What the kernel said.
        source: io::Error,
    },
}

impl QueueError {
    /// An error of `action` on `queue`.
    pub(super) fn of<E: Into<io::Error>>(
        action: &'static str,
        queue: u16,
    ) -> impl FnOnce(E) -> QueueError {
        move |source| QueueError::Kernel {
            action,
            queue,
            source: source.into(),
        }
    }

    /// The kernel says "not permitted" both for a queue that is taken and for want of privilege; whether
    /// another queue can be bound tells them apart.
    pub(super) fn of_binding(queue: u16, source: io::Error) -> QueueError {
        if source.kind() != io::ErrorKind::PermissionDenied {
            return QueueError::of("bind", queue)(source);
        }
        match probe() {
            Ok(()) => QueueError::Taken { queue },
            Err(_) => MissingPrivilege {
                action: "binding a packet queue",
                capability: "CAP_NET_ADMIN",
            }
            .into(),
        }
    }
}

/// Binds a queue and sets it up completely. No rule may send packets there yet.
///
/// # Errors
/// When another program has the queue, a privilege is missing or the kernel has no queues.
pub fn open(
    reader: QueueReader,
    settings: QueueSettings,
) -> Result<Box<dyn PacketQueue>, QueueError> {
    Ok(match reader {
        QueueReader::Netlink => Box::new(NetlinkQueue::open(settings)?),
        QueueReader::Nfq => Box::new(NfqQueue::open(settings)?),
    })
}

/// Goes on with a queue of which a daemon before this one has left the socket; nothing, with a word about
/// it, if that cannot be done.
pub fn inherit(
    reader: QueueReader,
    descriptor: OwnedFd,
    settings: QueueSettings,
) -> Option<Box<dyn PacketQueue>> {
    let number = settings.number;
    match reader {
        QueueReader::Netlink => match NetlinkQueue::inherit(descriptor, settings) {
            Ok(queue) => Some(Box::new(queue)),
            Err(error) => {
                warn!(%error, number, "a queue that was left cannot be used");
                None
            }
        },
        QueueReader::Nfq => {
            warn!(
                number,
                "the reader nfq cannot go on with a queue that was left"
            );
            None
        }
    }
}

/// Whether queue `number` could be bound. What waits there is lost.
///
/// # Errors
/// As [`open`].
pub fn check_free(number: u16) -> Result<(), QueueError> {
    NetlinkQueue::open(QueueSettings::of(number)).map(drop)
}

/// Whether this process can bind a queue at all, tried on one that nobody uses.
///
/// # Errors
/// Why it cannot.
pub fn probe() -> io::Result<()> {
    let mut last = io::Error::other("every queue is taken");
    // From the top, where hardly anybody looks for a queue.
    for number in (u16::MAX - 8..=u16::MAX).rev() {
        match NetlinkQueue::bind(QueueSettings::of(number)) {
            Ok(_) => return Ok(()),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// What can go wrong with one packet, its answer or the socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// The packet was gone when its answer came, for instance with its interface.
    PacketGone,
    /// The kernel takes no answers from this process any more.
    NotPermitted,
    /// The socket's buffer was full and packets were lost; [`losses`] says how many.
    Overrun,
    /// A message could not be read; its packet stays where it is until the queue is closed.
    Unreadable,
    /// Anything else, by the kernel's number.
    Other(i32),
}

impl From<Errno> for Fault {
    fn from(error: Errno) -> Fault {
        match error {
            Errno::NOENT => Fault::PacketGone,
            Errno::PERM => Fault::NotPermitted,
            Errno::NOBUFS => Fault::Overrun,
            other => Fault::Other(other.raw_os_error()),
        }
    }
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Fault {
        Errno::from_io_error(&error).map_or(Fault::Unreadable, Fault::from)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::PacketGone => f.write_str("packet_gone"),
            Fault::NotPermitted => f.write_str("not_permitted"),
            Fault::Overrun => f.write_str("overrun"),
            Fault::Unreadable => f.write_str("unreadable"),
            Fault::Other(number) => write!(f, "errno_{number}"),
        }
    }
}

/// Faults, counted by kind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Faults(BTreeMap<Fault, u64>);

impl Faults {
    /// Counts one more.
    pub fn count(&mut self, fault: impl Into<Fault>) {
        let fault = fault.into();
        tracing::debug!(%fault, "the queue reports an error");
        *self.0.entry(fault).or_default() += 1;
    }

    /// How often each kind was seen.
    pub fn iter(&self) -> impl Iterator<Item = (Fault, u64)> + '_ {
        self.0.iter().map(|(fault, count)| (*fault, *count))
    }
}

/// Packets that never came to the reader.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Losses {
    /// Those that found the queue full.
    pub queue_full: u64,
    /// Those that found the socket's buffer full.
    pub buffer_full: u64,
}

impl AddAssign for Losses {
    fn add_assign(&mut self, other: Losses) {
        self.queue_full += other.queue_full;
        self.buffer_full += other.buffer_full;
    }
}

/// A queue as the kernel shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// The netlink port of the socket that reads it.
    pub reader: u32,
    /// Packets that wait for an answer, taken by the reader or not.
    pub waiting: u64,
    /// Packets that were handed over since the queue was bound.
    pub queued: u64,
    /// Packets that were lost since then.
    pub losses: Losses,
}

/// How queue `number` stands; nothing if the kernel does not say.
#[must_use]
pub fn standing(number: u16) -> Option<Standing> {
    // The calling thread's network namespace, which need not be the process's.
    let table = std::fs::read_to_string("/proc/thread-self/net/netfilter/nfnetlink_queue").ok()?;
    table.lines().find_map(|row| row_of(row, number))
}

/// What the kernel has lost of queue `number` since it was bound; nothing if it does not say.
#[must_use]
pub fn losses(number: u16) -> Option<Losses> {
    standing(number).map(|standing| standing.losses)
}

/// What the kernel has lost of all these queues, as far as it says.
pub fn losses_of(queues: impl IntoIterator<Item = u16>) -> Losses {
    let mut all = Losses::default();
    queues
        .into_iter()
        .filter_map(losses)
        .for_each(|losses| all += losses);
    all
}

/// One row of the kernel's table: queue, port, waiting, copy mode, copy range, dropped for want of room
/// in the queue, dropped for want of room in the buffer, last packet's number (from 1 on), 1.
fn row_of(row: &str, number: u16) -> Option<Standing> {
    let columns: Vec<u64> = row
        .split_whitespace()
        .map_while(|column| column.parse().ok())
        .collect();
    let [
        queue,
        reader,
        waiting,
        _,
        _,
        queue_full,
        buffer_full,
        queued,
        ..,
    ] = columns[..]
    else {
        return None;
    };
    let reader = u32::try_from(reader).ok()?;
    (queue == u64::from(number)).then_some(Standing {
        reader,
        waiting,
        queued,
        losses: Losses {
            queue_full,
            buffer_full,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn depth_and_losses_are_read_from_the_row_of_the_queue() {
        let row = "    5   2304     3 2  2048     7    11      900  1";
        let standing = Standing {
            reader: 2304,
            waiting: 3,
            queued: 900,
            losses: Losses {
                queue_full: 7,
                buffer_full: 11,
            },
        };
        assert_eq!(row_of(row, 5), Some(standing));
        assert_eq!(row_of(row, 6), None);
        assert_eq!(row_of("", 5), None);
    }

    #[test]
    fn faults_are_counted_by_kind() {
        let mut faults = Faults::default();
        for error in [
            Errno::NOENT,
            Errno::NOBUFS,
            Errno::NOENT,
            Errno::PERM,
            Errno::INVAL,
        ] {
            faults.count(error);
        }
        faults.count(io::Error::other("not of the kernel"));
        let counted: Vec<String> = faults
            .iter()
            .map(|(fault, count)| format!("{fault} {count}"))
            .collect();
        let expected = [
            "packet_gone 2",
            "not_permitted 1",
            "overrun 1",
            "unreadable 1",
            "errno_22 1",
        ];
        assert_eq!(counted, expected);
    }

    #[test]
    fn readers_have_one_name_each() {
        for reader in QueueReader::ALL {
            assert_eq!(reader.to_string().parse(), Ok(reader));
        }
        let error = "libnetfilter_queue"
            .parse::<QueueReader>()
            .expect_err("not ours");
        assert!(error.contains("netlink, nfq"), "{error}");
    }
}
