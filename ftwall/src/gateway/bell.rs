//! A bell one thread rings for another that waits for packets: an eventfd, to be polled beside sockets.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::event::{EventfdFlags, eventfd};

/// A bell. Its clones are the same bell.
#[derive(Clone, Debug)]
pub struct Bell {
    descriptor: Arc<OwnedFd>,
}

impl Bell {
    /// A bell that is silent.
    ///
    /// # Errors
    /// When the system has no descriptors left.
    pub fn new() -> io::Result<Bell> {
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        let descriptor = Arc::new(eventfd(0, flags)?);
        Ok(Bell { descriptor })
    }

    /// Rings; it stays readable until it is silenced, however often it was rung.
    pub fn ring(&self) {
        // Fails only when it was rung 2^64 - 2 times without being silenced, and rings anyway then.
        let _ = rustix::io::write(&self.descriptor, &1_u64.to_ne_bytes());
    }

    /// Silences the bell; true if it was rung since the last time.
    #[must_use]
    pub fn silence(&self) -> bool {
        rustix::io::read(&self.descriptor, &mut [0; 8]).is_ok()
    }
}

impl AsFd for Bell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bell_rung_twice_is_heard_once() {
        let bell = Bell::new().expect("descriptors are left");
        assert!(!bell.silence());
        let same = bell.clone();
        same.ring();
        same.ring();
        assert!(bell.silence());
        assert!(!bell.silence());
    }
}
