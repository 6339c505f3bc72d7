//! The kernel's packet queue: the only file that names the `nfq` crate.
//!
//! Two habits of the crate shape this file. Its setters throw away packets that arrive while they wait
//! for the kernel's answer, so all of them are called before any rule sends packets. It keeps its
//! socket to itself, so the descriptor is found among the process's own, to be waited for together
//! with signals and to be given a buffer that holds more than 256 packets.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, RawFd};

use nfq::Verdict;
use rustix::net::{AddressFamily, netlink, sockopt};
use thiserror::Error;

use super::failure::MissingPrivilege;

/// Octets of each packet that the kernel hands over. The longest head that is judged fits in; what
/// lies behind is counted by the packet's own headers.
pub const COPY_RANGE: u16 = 2048;
/// Packets that may wait for an answer at once.
pub const QUEUE_LENGTH: u32 = 4096;
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

/// A bound queue.
pub struct Queue {
    queue: nfq::Queue,
    socket: RawFd,
    number: u16,
}

/// One packet that waits for an answer. Dropping it without one leaves it waiting in the kernel.
#[derive(Debug)]
pub struct Packet(nfq::Message);

impl Packet {
    /// The packet from its IP header on, at most [`COPY_RANGE`] octets.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        self.0.get_payload()
    }

    /// The packet's mark.
    #[must_use]
    pub fn mark(&self) -> u32 {
        self.0.get_nfmark()
    }
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

impl Queue {
    /// Binds queue `number` and sets it up completely. No rule may send packets there yet.
    ///
    /// # Errors
    /// When another program has the queue, a privilege is missing or the kernel has no queues.
    pub fn open(number: u16) -> Result<Queue, QueueError> {
        let kernel = |action| {
            move |source| QueueError::Kernel {
                action,
                queue: number,
                source,
            }
        };
        let before = netfilter_sockets();
        let mut queue = nfq::Queue::open().map_err(kernel("open a socket for"))?;
        let socket = netfilter_sockets()
            .into_iter()
            .find(|fd| !before.contains(fd));
        let socket = socket.expect("the crate holds its socket open as long as it lives");
        queue
            .bind(number)
            .map_err(|error| bind_error(number, error))?;
        queue
            .set_copy_range(number, COPY_RANGE)
            .map_err(kernel("set the copy range of"))?;
        queue
            .set_queue_max_len(number, QUEUE_LENGTH)
            .map_err(kernel("set the length of"))?;
        queue
            .set_recv_gso(number, true)
            .map_err(kernel("ask for unsegmented packets from"))?;
        // A full queue must not let suspects through.
        queue
            .set_fail_open(number, false)
            .map_err(kernel("set the overflow policy of"))?;
        queue.set_nonblocking(true);
        let queue = Queue {
            queue,
            socket,
            number,
        };
        queue
            .enlarge_buffer()
            .map_err(|error| kernel("enlarge the buffer of")(error.into()))?;
        Ok(queue)
    }

    /// The queue's number.
    #[must_use]
    pub fn number(&self) -> u16 {
        self.number
    }

    /// Octets the socket's buffer holds, as the kernel counts them.
    ///
    /// # Errors
    /// When the kernel does not say.
    pub fn receive_buffer(&self) -> io::Result<usize> {
        Ok(sockopt::socket_recv_buffer_size(self)?)
    }

    /// The next packet, or nothing if none waits.
    ///
    /// # Errors
    /// What the kernel reports about this or an earlier packet. The queue goes on working.
    pub fn receive(&mut self) -> io::Result<Option<Packet>> {
        match self.queue.recv() {
            Ok(message) => Ok(Some(Packet(message))),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Says what becomes of a packet.
    ///
    /// # Errors
    /// When the kernel does not take the answer, for instance because the packet is gone.
    pub fn answer(&mut self, packet: Packet, answer: Answer) -> io::Result<()> {
        let Packet(mut message) = packet;
        match answer {
            Answer::Accept { mark } => {
                message.set_verdict(Verdict::Accept);
                mark.into_iter().for_each(|mark| message.set_nfmark(mark));
            }
            Answer::Drop => message.set_verdict(Verdict::Drop),
        }
        self.queue.verdict(message)
    }

    /// Asks for room for a whole queue; the kernel doubles what is asked for. Beyond the system's
    /// limit only with privilege over the whole machine, so the limit has to do elsewhere.
    fn enlarge_buffer(&self) -> rustix::io::Result<()> {
        let wanted = QUEUE_LENGTH as usize * (OVERHEAD_PER_PACKET + usize::from(COPY_RANGE)) / 2;
        sockopt::set_socket_recv_buffer_size_force(self, wanted)
            .or_else(|_| sockopt::set_socket_recv_buffer_size(self, wanted))
    }
}

impl AsFd for Queue {
    fn as_fd(&self) -> BorrowedFd<'_> {
        borrow(self.socket)
    }
}

/// Whether queue `number` could be bound. What waits there is lost.
///
/// # Errors
/// As [`Queue::open`].
pub fn check_free(number: u16) -> Result<(), QueueError> {
    let open = nfq::Queue::open().and_then(|mut queue| queue.bind(number));
    open.map_err(|error| bind_error(number, error))
}

/// Whether this process can bind a queue at all, tried on one that nobody uses.
///
/// # Errors
/// Why it cannot.
pub fn probe() -> io::Result<()> {
    let mut last = io::Error::other("every queue is taken");
    // From the top, where hardly anybody looks for a queue.
    for number in (u16::MAX - 8..=u16::MAX).rev() {
        let mut queue = nfq::Queue::open()?;
        match queue.bind(number).and_then(|()| queue.unbind(number)) {
            Ok(()) => return Ok(()),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// The kernel says "not permitted" both for a queue that is taken and for want of privilege; whether
/// another queue can be bound tells them apart.
fn bind_error(queue: u16, source: io::Error) -> QueueError {
    if source.kind() != io::ErrorKind::PermissionDenied {
        return QueueError::Kernel {
            action: "bind",
            queue,
            source,
        };
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

/// The process's own sockets of netlink's netfilter protocol.
fn netfilter_sockets() -> Vec<RawFd> {
    let Ok(directory) = std::fs::read_dir("/proc/self/fd") else {
        return Vec::new();
    };
    let names = directory.flatten().map(|entry| entry.file_name());
    names
        .filter_map(|name| name.to_str()?.parse().ok())
        .filter(|&fd| is_netfilter(fd))
        .collect()
}

fn is_netfilter(fd: RawFd) -> bool {
    let domain = sockopt::socket_domain(borrow(fd));
    let protocol = sockopt::socket_protocol(borrow(fd));
    domain == Ok(AddressFamily::NETLINK) && protocol == Ok(Some(netlink::NETFILTER))
}

#[expect(unsafe_code, reason = "the nfq crate does not lend its descriptor")]
fn borrow<'a>(fd: RawFd) -> BorrowedFd<'a> {
    // SAFETY: a `Queue` lends its descriptor no longer than it is itself borrowed, and it is open as
    // long as the `nfq::Queue` beside it lives. The scan only asks for socket options, which a
    // descriptor closed meanwhile answers with an error; it is never -1.
    unsafe { BorrowedFd::borrow_raw(fd) }
}
