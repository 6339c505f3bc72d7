//! The packet queue by way of the `nfq` crate, which is named in this file only.
//!
//! Two habits of the crate shape this file. Its setters throw away packets that arrive while they wait
//! for the kernel's answer, so all of them are called before any rule sends packets. It keeps its
//! socket to itself, so the descriptor is found among the process's own, to be waited for together
//! with signals and to be given a buffer that holds more than 256 packets.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, RawFd};

use nfq::Verdict;
use rustix::net::{AddressFamily, netlink, sockopt};

use super::queue::{
    Answer, Faults, Hop, PacketQueue, QueueError, QueueSettings, QueuedPacket, WhenOverloaded,
};
use crate::HardwareAddress;

/// A bound queue.
pub struct NfqQueue {
    queue: nfq::Queue,
    socket: RawFd,
    number: u16,
    faults: Faults,
}

impl NfqQueue {
    /// Binds a queue and sets it up completely. No rule may send packets there yet.
    ///
    /// # Errors
    /// When another program has the queue, a privilege is missing or the kernel has no queues.
    pub fn open(settings: QueueSettings) -> Result<NfqQueue, QueueError> {
        let number = settings.number;
        let before = netfilter_sockets();
        let mut queue = nfq::Queue::open().map_err(QueueError::of("open a socket for", number))?;
        let socket = netfilter_sockets()
            .into_iter()
            .find(|fd| !before.contains(fd));
        let socket = socket.expect("the crate holds its socket open as long as it lives");
        queue
            .bind(number)
            .map_err(|error| QueueError::of_binding(number, error))?;
        configure(&mut queue, settings).map_err(QueueError::of("set up", number))?;
        queue.set_nonblocking(true);
        let queue = NfqQueue {
            queue,
            socket,
            number,
            faults: Faults::default(),
        };
        queue
            .enlarge_buffer(settings.wanted_buffer())
            .map_err(QueueError::of("enlarge the buffer of", number))?;
        Ok(queue)
    }

    /// Beyond the system's limit only with privilege over the whole machine, so the limit has to do
    /// elsewhere. The kernel doubles what is asked for.
    fn enlarge_buffer(&self, octets: usize) -> rustix::io::Result<()> {
        sockopt::set_socket_recv_buffer_size_force(self, octets / 2)
            .or_else(|_| sockopt::set_socket_recv_buffer_size(self, octets / 2))
    }

    fn judge(
        &mut self,
        mut message: nfq::Message,
        judge: &mut dyn FnMut(QueuedPacket<'_>) -> Answer,
    ) {
        let packet = QueuedPacket {
            bytes: message.get_payload(),
            mark: message.get_nfmark(),
            hop: Hop {
                entered: message.get_indev(),
                leaves: message.get_outdev(),
                sender: message.get_hw_addr().and_then(hardware_address),
            },
        };
        match judge(packet) {
            Answer::Accept { mark } => {
                message.set_verdict(Verdict::Accept);
                mark.into_iter().for_each(|mark| message.set_nfmark(mark));
            }
            Answer::Drop => message.set_verdict(Verdict::Drop),
        }
        if let Err(error) = self.queue.verdict(message) {
            self.faults.count(error);
        }
    }
}

fn hardware_address(octets: &[u8]) -> Option<HardwareAddress> {
    octets.try_into().ok().map(HardwareAddress)
}

fn configure(queue: &mut nfq::Queue, settings: QueueSettings) -> io::Result<()> {
    let number = settings.number;
    queue.set_copy_range(number, settings.copy_range)?;
    queue.set_queue_max_len(number, settings.length)?;
    queue.set_recv_gso(number, true)?;
    queue.set_fail_open(number, settings.when_overloaded == WhenOverloaded::Pass)
}

impl PacketQueue for NfqQueue {
    fn number(&self) -> u16 {
        self.number
    }

    fn receive_buffer(&self) -> io::Result<usize> {
        Ok(sockopt::socket_recv_buffer_size(self)?)
    }

    fn serve(&mut self, most: usize, judge: &mut dyn FnMut(QueuedPacket<'_>) -> Answer) {
        for _ in 0..most {
            match self.queue.recv() {
                Ok(message) => self.judge(message, judge),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) => self.faults.count(error),
            }
        }
    }

    fn faults(&self) -> &Faults {
        &self.faults
    }
}

impl AsFd for NfqQueue {
    fn as_fd(&self) -> BorrowedFd<'_> {
        borrow(self.socket)
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
    // SAFETY: an `NfqQueue` lends its descriptor no longer than it is itself borrowed, and it is open as
    // long as the `nfq::Queue` beside it lives. The scan only asks for socket options, which a
    // descriptor closed meanwhile answers with an error; it is never -1.
    unsafe { BorrowedFd::borrow_raw(fd) }
}
