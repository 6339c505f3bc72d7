//! Signals as something that can be waited for: SIGTERM and SIGINT ask the process to end, SIGHUP to read
//! its configuration again, SIGUSR1 to open its file of events anew, SIGUSR2 to hand over to the program
//! that is installed by now.

use std::io::{self, IsTerminal as _, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGUSR2};
use signal_hook::low_level::pipe;

/// Becomes readable when one of some signals has come.
#[derive(Debug)]
pub struct Signals {
    reader: UnixStream,
    /// A reader without any writer would be readable for ever.
    #[expect(
        dead_code,
        reason = "held, never written to: handlers have copies of it"
    )]
    writer: UnixStream,
}

impl Signals {
    /// Takes over the signals that ask to end; from here on they no longer end the process by themselves.
    /// A terminal that goes away is one of them: rules must not outlive it.
    ///
    /// # Errors
    /// When the system has no descriptors left.
    pub fn end() -> io::Result<Signals> {
        if io::stderr().is_terminal() {
            Signals::listen(&[SIGTERM, SIGINT, SIGHUP])
        } else {
            Signals::listen(&[SIGTERM, SIGINT])
        }
    }

    /// Takes over the signal that asks to read the configuration again, where it is not a terminal that
    /// sends it.
    ///
    /// # Errors
    /// When the system has no descriptors left.
    pub fn reload() -> io::Result<Signals> {
        if io::stderr().is_terminal() {
            Signals::listen(&[])
        } else {
            Signals::listen(&[SIGHUP])
        }
    }

    /// Takes over the signal that asks for the file of events to be opened anew: it was renamed.
    ///
    /// # Errors
    /// When the system has no descriptors left.
    pub fn reopen() -> io::Result<Signals> {
        Signals::listen(&[SIGUSR1])
    }

    /// Takes over the signal that asks for the program to be executed anew in its own place.
    ///
    /// # Errors
    /// When the system has no descriptors left.
    pub fn succession() -> io::Result<Signals> {
        Signals::listen(&[SIGUSR2])
    }

    fn listen(signals: &[i32]) -> io::Result<Signals> {
        let (reader, writer) = UnixStream::pair()?;
        reader.set_nonblocking(true)?;
        for signal in signals {
            pipe::register(*signal, writer.try_clone()?)?;
        }
        Ok(Signals { reader, writer })
    }

    /// Whether a signal has come since the last look.
    #[must_use]
    pub fn arrived(&self) -> bool {
        (&self.reader)
            .read(&mut [0; 1])
            .is_ok_and(|count| count > 0)
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.reader.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_to_end_is_seen_once_it_arrives() {
        let requests = Signals::end().expect("descriptors are left");
        assert!(!requests.arrived());
        signal_hook::low_level::raise(SIGTERM).expect("a process may signal itself");
        assert!(requests.arrived());
        assert!(!requests.arrived());
    }
}
