//! A socket to netfilter in the kernel.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::sys::socket::SetSockOpt as _;
use nix::{libc, setsockopt_impl, sockopt_impl};
use rustix::io::{Errno, ioctl_fionbio};
use rustix::net::netlink::{self, SocketAddrNetlink};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, bind, getsockname, recv, send,
    socket_with, sockopt,
};
use thiserror::Error;

use super::Messages;

/// Why nothing could be received. The socket goes on working.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ReceiveError {
    /// What the kernel says.
    #[error(transparent)]
    Kernel(#[from] Errno),
    /// A datagram did not fit into the buffer and is lost.
    #[error("a datagram of {0} octets is longer than the buffer")]
    Truncated(usize),
}

/// A socket that never waits: the kernel answers a request before `send` returns.
#[derive(Debug)]
pub struct Socket {
    descriptor: OwnedFd,
}

impl Socket {
    /// Opens a socket with a port of its own.
    ///
    /// # Errors
    /// When the kernel has no netfilter or no descriptors are left.
    pub fn open() -> io::Result<Socket> {
        Socket::listening(0)
    }

    /// Opens a socket that also hears what is told to these multicast groups: bit 0 is the first group.
    ///
    /// # Errors
    /// As of [`open`](Self::open), and when the privilege to listen is missing.
    pub fn listening(groups: u32) -> io::Result<Socket> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let protocol = Some(netlink::NETFILTER);
        let descriptor = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, protocol)?;
        bind(&descriptor, &SocketAddrNetlink::new(0, groups))?;
        Ok(Socket { descriptor })
    }

    /// A socket that another process has opened, and left to this one.
    ///
    /// # Errors
    /// When it is no socket to netfilter.
    pub fn inherited(descriptor: OwnedFd) -> io::Result<Socket> {
        let domain = sockopt::socket_domain(&descriptor)?;
        let protocol = sockopt::socket_protocol(&descriptor)?;
        if domain != AddressFamily::NETLINK || protocol != Some(netlink::NETFILTER) {
            return Err(io::Error::other("it is no socket to netfilter"));
        }
        ioctl_fionbio(&descriptor, true)?;
        Ok(Socket { descriptor })
    }

    /// The port by which the kernel knows it.
    ///
    /// # Errors
    /// When the kernel does not say.
    pub fn port(&self) -> io::Result<u32> {
        let address = getsockname(self)?;
        let address = SocketAddrNetlink::try_from(address)?;
        Ok(address.pid())
    }

    /// Asks the kernel to go on with the next datagram when one finds no room. Otherwise it reports the
    /// loss and loses everything else, too, until the socket has been emptied.
    ///
    /// # Errors
    /// When the kernel knows no such option.
    pub fn go_on_after_overrun(&self) -> io::Result<()> {
        Ok(NoOverrunErrors.set(&self.descriptor, &true)?)
    }

    /// Asks for a receive buffer of `octets` as the kernel counts them, which is twice what is asked
    /// for. Beyond the system's limit only with privilege over the whole machine, so elsewhere the limit
    /// has to do; [`receive_buffer`](Self::receive_buffer) says what came of it.
    ///
    /// # Errors
    /// When the kernel refuses both.
    pub fn enlarge_receive_buffer(&self, octets: usize) -> io::Result<()> {
        let forced = sockopt::set_socket_recv_buffer_size_force(self, octets / 2);
        Ok(forced.or_else(|_| sockopt::set_socket_recv_buffer_size(self, octets / 2))?)
    }

    /// Octets the receive buffer holds, as the kernel counts them.
    ///
    /// # Errors
    /// When the kernel does not say.
    pub fn receive_buffer(&self) -> io::Result<usize> {
        Ok(sockopt::socket_recv_buffer_size(self)?)
    }

    /// Sends messages to the kernel, which has carried out or refused each when this returns.
    ///
    /// # Errors
    /// When they could not be handed over; none was carried out then.
    pub fn send(&self, messages: &[u8]) -> Result<(), Errno> {
        rustix::io::retry_on_intr(|| send(self, messages, SendFlags::empty())).map(drop)
    }

    /// The messages of the next datagram, if one waits.
    ///
    /// # Errors
    /// When the kernel reports a loss or the datagram was longer than `buffer`.
    pub fn receive<'a>(&self, buffer: &'a mut [u8]) -> Result<Option<Messages<'a>>, ReceiveError> {
        let (len, whole) = match recv(self, &mut *buffer, RecvFlags::TRUNC) {
            Ok(received) => received,
            Err(Errno::AGAIN | Errno::INTR) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        if whole > len {
            return Err(ReceiveError::Truncated(whole));
        }
        Ok(Some(Messages::new(&buffer[..len])))
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

sockopt_impl!(
    /// `NETLINK_NO_ENOBUFS`, which no crate wraps.
    NoOverrunErrors,
    SetOnly,
    libc::SOL_NETLINK,
    libc::NETLINK_NO_ENOBUFS,
    bool
);

#[cfg(test)]
mod tests {
    use super::super::{Header, MessageWriter};
    use super::*;

    #[test]
    fn a_request_without_privilege_or_sense_is_answered_at_once() {
        let socket = Socket::open().expect("this kernel has netfilter");
        let mut writer = MessageWriter::default();
        let nonsense = Header {
            kind: 0xff00,
            sequence: 42,
            ..Header::default()
        };
        writer.message(nonsense, |_| {});
        socket.send(writer.as_bytes()).expect("the kernel takes it");
        let mut buffer = [0; 512];
        let mut messages = socket
            .receive(&mut buffer)
            .expect("it answers")
            .expect("at once");
        let answer = messages.next().expect("one message").expect("a whole one");
        assert_eq!(answer.sequence, 42);
        assert!(
            matches!(answer.acknowledgement(), Some(Err(_))),
            "{answer:?}"
        );
        assert!(messages.next().is_none());
        assert_eq!(
            socket.receive(&mut [0; 512]).map(|more| more.is_some()),
            Ok(false)
        );
    }

    #[test]
    fn a_datagram_longer_than_the_buffer_is_an_error_and_not_half_a_message() {
        let socket = Socket::open().expect("this kernel has netfilter");
        let mut writer = MessageWriter::default();
        writer.message(
            Header {
                kind: 0xff00,
                ..Header::default()
            },
            |_| {},
        );
        socket.send(writer.as_bytes()).expect("the kernel takes it");
        let error = socket
            .receive(&mut [0; 8])
            .expect_err("an answer is longer");
        assert!(matches!(error, ReceiveError::Truncated(_)), "{error}");
    }
}
