//! What the daemon says to systemd, or to whoever else set `NOTIFY_SOCKET`: a datagram of `NAME=value`
//! lines, as `sd_notify(3)` describes. Without that variable nothing is said.

use std::fmt::Write as _;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::BorrowedFd;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use tracing::debug;

use super::clock::Clock;

/// Descriptors that are handed over by one datagram at most; the kernel's own limit is 253.
const MAX_DESCRIPTORS: usize = 64;

/// The way to the service manager, if there is one.
#[derive(Debug, Default)]
pub struct ServiceManager {
    socket: Option<UnixDatagram>,
    /// How long it waits for a sign of life before it kills the daemon.
    watchdog: Option<Duration>,
}

impl ServiceManager {
    /// The one that the environment names.
    #[must_use]
    pub fn from_environment() -> Self {
        let variable = |name| std::env::var(name).ok().filter(|it| !it.is_empty());
        let socket = variable("NOTIFY_SOCKET").and_then(|place| match connect(&place) {
            Ok(socket) => Some(socket),
            Err(error) => {
                debug!(%error, place, "the service manager cannot be reached");
                None
            }
        });
        let is_ours =
            variable("WATCHDOG_PID").is_none_or(|id| id == std::process::id().to_string());
        let watchdog = variable("WATCHDOG_USEC").and_then(|text| text.parse().ok());
        Self {
            socket,
            watchdog: watchdog.filter(|_| is_ours).map(Duration::from_micros),
        }
    }

    /// One that listens at `place`, for tests.
    #[cfg(test)]
    pub(super) fn at(place: &str, watchdog: Duration) -> io::Result<Self> {
        Ok(Self {
            socket: Some(connect(place)?),
            watchdog: Some(watchdog),
        })
    }

    /// How often a sign of life is given: four times within the time after which it is missed.
    #[must_use]
    pub fn watchdog_interval(&self) -> Option<Duration> {
        self.socket.as_ref()?;
        self.watchdog.map(|longest| longest / 4)
    }

    /// Whether anybody listens.
    #[must_use]
    pub const fn is_there(&self) -> bool {
        self.socket.is_some()
    }

    /// Queues and rules are live.
    pub fn ready(&self) {
        self.say("READY=1");
    }

    /// The configuration is being read again; [`Self::ready`] follows.
    pub fn reloading(&self) {
        let now = Clock::monotonic().as_micros();
        self.say(&format!("RELOADING=1\nMONOTONIC_USEC={now}"));
    }

    /// The end was asked for.
    pub fn stopping(&self) {
        self.say("STOPPING=1");
    }

    /// How the daemon is, in a line for people.
    pub fn status(&self, line: &str) {
        self.say(&format!("STATUS={line}"));
    }

    /// Everything that has to move has moved since the last time.
    pub fn alive(&self) {
        self.say("WATCHDOG=1");
    }

    /// Hands descriptors over for the next daemon, in case this one dies. `FDPOLL=0`: the manager must not
    /// take a queue that has lost packets for one whose other end is gone.
    pub fn store(&self, name: &str, descriptor: BorrowedFd<'_>) {
        let mut text = String::new();
        let _ = write!(text, "FDSTORE=1\nFDNAME={name}\nFDPOLL=0");
        self.send(&text, &[descriptor]);
    }

    fn say(&self, text: &str) {
        self.send(text, &[]);
    }

    /// Nobody who listens badly is waited for.
    fn send(&self, text: &str, descriptors: &[BorrowedFd<'_>]) {
        let Some(socket) = &self.socket else {
            return;
        };
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
        let mut attached = SendAncillaryBuffer::new(&mut space);
        if !descriptors.is_empty() {
            attached.push(SendAncillaryMessage::ScmRights(descriptors));
        }
        let text = [IoSlice::new(text.as_bytes())];
        if let Err(error) = sendmsg(socket, &text, &mut attached, SendFlags::DONTWAIT) {
            debug!(%error, "the service manager does not listen");
        }
    }
}

/// `place` is a path, or a name in the abstract namespace behind an `@`.
fn connect(place: &str) -> io::Result<UnixDatagram> {
    let address = match place.strip_prefix('@') {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(place)?,
    };
    let socket = UnixDatagram::unbound()?;
    socket.connect_addr(&address)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_arrives_by_path_and_by_abstract_name() {
        let id = std::process::id();
        let path = std::env::temp_dir().join(format!("ftwall-notify-{id}"));
        let name = format!("ftwall-notify-{id}");
        let abstract_name = SocketAddr::from_abstract_name(&name).expect("it is short");
        for (listener, place) in [
            (UnixDatagram::bind(&path), path.display().to_string()),
            (UnixDatagram::bind_addr(&abstract_name), format!("@{name}")),
        ] {
            let listener = listener.expect("the place is ours");
            let manager = ServiceManager {
                socket: Some(connect(&place).expect("it listens")),
                watchdog: Some(Duration::from_secs(20)),
            };
            manager.ready();
            manager.status("2 clients");
            let mut heard = [0; 64];
            for expected in ["READY=1", "STATUS=2 clients"] {
                let len = listener.recv(&mut heard).expect("something was said");
                assert_eq!(str::from_utf8(&heard[..len]), Ok(expected));
            }
            assert_eq!(manager.watchdog_interval(), Some(Duration::from_secs(5)));
        }
        std::fs::remove_file(path).expect("it was bound");
    }

    #[test]
    fn without_a_manager_nothing_is_said_and_nothing_is_due() {
        let manager = ServiceManager {
            socket: None,
            watchdog: Some(Duration::from_secs(20)),
        };
        manager.ready();
        assert_eq!(manager.watchdog_interval(), None);
        assert!(!manager.is_there());
    }
}
