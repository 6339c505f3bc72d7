//! Names of the interfaces that the kernel numbers in its messages.
//!
//! An interface may be renamed, and one that goes and comes back has another number, so a name is believed
//! for a few seconds only. Asking costs a system call, and only a policy by interface asks.

use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::net::{AddressFamily, SocketFlags, SocketType, netdevice, socket_with};
use tracing::warn;

use super::queue::Hop;
use crate::{InterfaceName, Link, Timestamp};

/// Names by number.
#[derive(Debug)]
pub struct InterfaceNames {
    /// Any socket does.
    socket: Option<OwnedFd>,
    /// So few that looking through them is quicker than a hash.
    known: Vec<Known>,
}

#[derive(Clone, Copy, Debug)]
struct Known {
    index: u32,
    /// Absent where the kernel knew none.
    name: Option<InterfaceName>,
    asked: Timestamp,
}

/// How long a name is believed.
const BELIEVED: Duration = Duration::from_secs(2);
/// Names remembered; beyond them all are asked for anew.
const MOST: usize = 64;

impl InterfaceNames {
    /// Opens the socket by which names are asked for, if any ever is: a later configuration may, and a
    /// thread that reads packets opens nothing any more.
    #[must_use]
    pub fn open() -> InterfaceNames {
        let socket =
            open().inspect_err(|error| warn!(%error, "interfaces cannot be asked for their names"));
        InterfaceNames {
            socket: socket.ok(),
            known: Vec::new(),
        }
    }

    /// A packet's way, in words of the engine's.
    pub fn link(&mut self, hop: Hop, now: Timestamp) -> Link {
        Link {
            entered: self.name(hop.entered, now),
            leaves: self.name(hop.leaves, now),
            sender: hop.sender,
        }
    }

    fn name(&mut self, index: u32, now: Timestamp) -> Option<InterfaceName> {
        if index == 0 {
            return None;
        }
        let place = self.known.iter().position(|known| known.index == index);
        if let Some(place) = place
            && now.saturating_since(self.known[place].asked) < BELIEVED
        {
            return self.known[place].name;
        }
        let known = Known {
            index,
            name: self.ask(index),
            asked: now,
        };
        match place {
            Some(place) => self.known[place] = known,
            None => {
                if self.known.len() == MOST {
                    self.known.clear();
                }
                self.known.push(known);
            }
        }
        known.name
    }

    fn ask(&self, index: u32) -> Option<InterfaceName> {
        let name = netdevice::index_to_name_inlined(self.socket.as_ref()?, index).ok()?;
        name.as_str().parse().ok()
    }
}

fn open() -> rustix::io::Result<OwnedFd> {
    socket_with(
        AddressFamily::UNIX,
        SocketType::DGRAM,
        SocketFlags::CLOEXEC,
        None,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_tells_a_name_which_is_then_believed_for_a_while() {
        let loopback =
            netdevice::name_to_index(open().expect("a socket"), "lo").expect("it is there");
        let mut names = InterfaceNames::open();
        let now = Timestamp::from_secs(1000);
        let hop = Hop {
            entered: loopback,
            ..Hop::default()
        };
        let link = names.link(hop, now);
        assert_eq!(
            link.entered.map(|name| name.to_string()),
            Some("lo".to_owned())
        );
        assert_eq!((link.leaves, link.sender), (None, None));

        let renamed: InterfaceName = "renamed".parse().expect("a name");
        names.known[0].name = Some(renamed);
        assert_eq!(names.link(hop, now + BELIEVED / 2).entered, Some(renamed));
        assert_eq!(names.link(hop, now + BELIEVED), link);
        assert_eq!(names.known.len(), 1);
    }

    #[test]
    fn numbers_that_no_interface_has_are_bounded_too() {
        let mut names = InterfaceNames::open();
        for index in 1..=1000 {
            let hop = Hop {
                entered: u32::MAX / 2 - index,
                ..Hop::default()
            };
            assert_eq!(names.link(hop, Timestamp::from_secs(1)), Link::default());
        }
        assert!(names.known.len() <= MOST);
    }
}
