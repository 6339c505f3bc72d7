//! How a worker tells the kernel that it comes round: a datagram to this machine itself, which carries the mark
//! of the packets that wait for it, and which a rule turns into an element of a second's life.
//!
//! The rule drops it, and the kernel says so to the sender: a sign that was not refused has met no rule.

use std::io;
use std::net::{Ipv4Addr, UdpSocket};
use std::time::Duration;

use nix::sys::socket::{setsockopt, sockopt};

use super::kernel_sets::{Element, SetRequests};
use super::rules::{SIGN_PORT, STARTING_FOR};
use crate::Timestamp;

/// Signs in the time that one is good for: enough that one that comes late does not look like the end.
const SIGNS: u32 = 4;

/// What one worker tells the kernel.
#[derive(Debug)]
pub(super) struct SignOfLife {
    mark: u32,
    lasts: Duration,
    due: Timestamp,
    socket: Option<UdpSocket>,
}

impl SignOfLife {
    /// For packets of this mark, due at once, each good for so long.
    pub(super) fn of(mark: u32, lasts: Duration) -> Self {
        SignOfLife {
            mark,
            lasts,
            due: Timestamp::ORIGIN,
            socket: open(mark).ok(),
        }
    }

    /// When the next is to be given.
    pub(super) const fn due(&self) -> Timestamp {
        self.due
    }

    /// Gives one; false if it is lost. Where no packet can give it - the loopback interface is down - the
    /// set is changed instead.
    pub(super) fn give(&mut self, now: Timestamp, sets: &SetRequests) -> bool {
        self.due = now + self.lasts / SIGNS;
        let to = (Ipv4Addr::LOCALHOST, SIGN_PORT);
        let sent = self.socket.as_ref().map(|socket| socket.send_to(&[], to));
        match sent {
            Some(Err(error)) if error.kind() == io::ErrorKind::PermissionDenied => true,
            Some(Ok(_) | Err(_)) | None => {
                sets.request((Element::Alive(self.mark), Some(self.lasts)))
            }
        }
    }

    /// Gives the last, good until a successor has begun; false if it is lost.
    pub(super) fn hand_over(&self, sets: &SetRequests) -> bool {
        let lasts = STARTING_FOR.max(self.lasts);
        sets.request((Element::Alive(self.mark), Some(lasts)))
    }
}

fn open(mark: u32) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    socket.set_nonblocking(true)?;
    setsockopt(&socket, sockopt::Mark, &mark)?;
    Ok(socket)
}
