//! SIGTERM, SIGINT and SIGHUP as something that can be waited for beside the queue.

use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::low_level::pipe;

/// Becomes readable when the process is asked to end.
#[derive(Debug)]
pub struct EndRequests {
    reader: UnixStream,
}

impl EndRequests {
    /// Takes over the signals; from here on they no longer end the process by themselves. A terminal that
    /// goes away is one of them: rules must not outlive it.
    ///
    /// # Errors
    /// When the system has no descriptors left.
    pub fn listen() -> io::Result<EndRequests> {
        let (reader, writer) = UnixStream::pair()?;
        reader.set_nonblocking(true)?;
        for signal in [SIGTERM, SIGINT, SIGHUP] {
            pipe::register(signal, writer.try_clone()?)?;
        }
        Ok(EndRequests { reader })
    }

    /// Whether the process was asked to end.
    #[must_use]
    pub fn arrived(&self) -> bool {
        (&self.reader)
            .read(&mut [0; 1])
            .is_ok_and(|count| count > 0)
    }
}

impl AsFd for EndRequests {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.reader.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_to_end_is_seen_once_it_arrives() {
        let requests = EndRequests::listen().expect("descriptors are left");
        assert!(!requests.arrived());
        signal_hook::low_level::raise(SIGTERM).expect("a process may signal itself");
        assert!(requests.arrived());
        assert!(!requests.arrived());
    }
}
