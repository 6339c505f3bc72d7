//! How one daemon takes the place of another without a packet lost or passed unseen: the sockets of the
//! queues go from one to the other, and what comes meanwhile waits in them.
//!
//! There are two ways to succeed. A daemon that is asked to (SIGUSR2) lets the program be executed anew in
//! its own place, with the sockets left open. And a service manager keeps copies of them, from which it
//! starts another daemon after one has died; `sd_listen_fds(3)` describes how they are passed.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd};
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail};
use rustix::io::{FdFlags, fcntl_getfd, fcntl_setfd};
use tracing::warn;

/// Says to the program that is executed in place of this one which descriptors are its queues: the
/// process, then each queue's number and descriptor, as in `1234;0=7,1=9`.
const OWN_VARIABLE: &str = "FTWALL_QUEUES";
/// What the service manager passes: for whom, how many from the first on, and their names.
const LISTEN_PID: &str = "LISTEN_PID";
const LISTEN_FDS: &str = "LISTEN_FDS";
const LISTEN_FDNAMES: &str = "LISTEN_FDNAMES";
const FIRST_PASSED: RawFd = 3;

/// The queues' sockets that a daemon before this one has left, by the queues' numbers.
#[derive(Debug, Default)]
pub struct Inheritance(BTreeMap<u16, OwnedFd>);

impl Inheritance {
    /// Takes over what the environment names. To be called once, before anything else is opened.
    #[must_use]
    pub fn take() -> Self {
        let variable = |name| std::env::var(name).ok();
        let own = variable(OWN_VARIABLE).map(|text| parse_own(&text));
        let passed = || {
            let (process, count) = (variable(LISTEN_PID)?, variable(LISTEN_FDS)?);
            let names = variable(LISTEN_FDNAMES).unwrap_or_default();
            Some(parse_passed(&process, &count, &names))
        };
        let named = own.or_else(passed).unwrap_or_default();
        let adopted = named
            .into_iter()
            .filter_map(|(number, descriptor)| Some((number, adopt(descriptor)?)));
        Self(adopted.collect())
    }

    /// The socket of a queue, if it was left.
    pub fn claim(&mut self, queue: u16) -> Option<OwnedFd> {
        self.0.remove(&queue)
    }

    /// Whether there is a socket for each of these queues.
    pub fn covers(&self, queues: impl IntoIterator<Item = u16>) -> bool {
        queues.into_iter().all(|queue| self.0.contains_key(&queue))
    }
}

/// The name under which a queue's socket is stored.
#[must_use]
pub fn name_of(queue: u16) -> String {
    format!("queue-{queue}")
}

/// The program as it was started, to be executed again.
#[derive(Debug)]
pub struct Successor {
    /// Looked for by its path: what stands there now may be newer than what runs.
    program: PathBuf,
    arguments: Vec<OsString>,
}

impl Successor {
    /// The program that runs now.
    ///
    /// # Errors
    /// When the system does not say where it is.
    pub fn of_this() -> io::Result<Self> {
        Ok(Self {
            program: std::env::current_exe()?,
            arguments: std::env::args_os().skip(1).collect(),
        })
    }

    /// Whether it starts at all.
    ///
    /// # Errors
    /// Why not.
    pub fn check(&self) -> anyhow::Result<()> {
        let program = self.program.display();
        let mut command = Command::new(&self.program);
        command.arg("--version").stdin(Stdio::null());
        let tried = command
            .output()
            .with_context(|| format!("{program} does not start"))?;
        if !tried.status.success() {
            bail!("{program} --version: {}", tried.status);
        }
        Ok(())
    }

    /// Executes it in place of this process, which leaves it these queues. Returns only if that fails.
    pub fn take_place(&self, queues: &[(u16, BorrowedFd<'_>)]) -> io::Error {
        for (_, descriptor) in queues {
            if let Err(error) = fcntl_setfd(descriptor, FdFlags::empty()) {
                return error.into();
            }
        }
        let named = queues
            .iter()
            .map(|(number, descriptor)| format!("{number}={}", descriptor.as_raw_fd()));
        let named = named.collect::<Vec<_>>().join(",");
        let mut command = Command::new(&self.program);
        command.args(&self.arguments);
        command.env(OWN_VARIABLE, format!("{};{named}", std::process::id()));
        for passed in [LISTEN_PID, LISTEN_FDS, LISTEN_FDNAMES] {
            command.env_remove(passed);
        }
        command.exec()
    }
}

/// Queues by number and descriptor; nothing that was meant for another process.
type Named = Vec<(u16, RawFd)>;

fn parse_own(text: &str) -> Named {
    let Some((process, queues)) = text.split_once(';') else {
        return Named::new();
    };
    if !is_this(process) {
        return Named::new();
    }
    let queues = queues.split(',').filter_map(|queue| {
        let (number, descriptor) = queue.split_once('=')?;
        Some((number.parse().ok()?, descriptor.parse().ok()?))
    });
    queues.collect()
}

fn parse_passed(process: &str, count: &str, names: &str) -> Named {
    let count = count.parse().unwrap_or(0);
    if !is_this(process) {
        return Named::new();
    }
    let queues = names.split(':').zip(FIRST_PASSED..).take(count);
    let queues = queues.filter_map(|(name, descriptor)| {
        let number = name.strip_prefix("queue-")?.parse().ok()?;
        Some((number, descriptor))
    });
    queues.collect()
}

fn is_this(process: &str) -> bool {
    process == std::process::id().to_string()
}

/// Makes a descriptor that this process was started with its own.
#[expect(unsafe_code, reason = "descriptors come as numbers in the environment")]
fn adopt(descriptor: RawFd) -> Option<OwnedFd> {
    // SAFETY: borrowed for this check alone. Whatever the number stands for, asking for its flags harms
    // nobody, and a number that stands for nothing is an error.
    let is_open = fcntl_getfd(unsafe { BorrowedFd::borrow_raw(descriptor) }).is_ok();
    if !is_open || descriptor < FIRST_PASSED {
        warn!(descriptor, "a descriptor that was to be left is not there");
        return None;
    }
    // SAFETY: it is open, and nobody in this process owns it: it was open when the process started, and
    // whoever started it passed it on for this use. It is taken once, since `Inheritance::take` is.
    let owned = unsafe { OwnedFd::from_raw_fd(descriptor) };
    // It is not for the programs that this daemon runs.
    fcntl_setfd(&owned, FdFlags::CLOEXEC).ok()?;
    Some(owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_left_to_this_process_is_taken() {
        let this = std::process::id();
        let own = parse_own(&format!("{this};0=7,1=9"));
        assert_eq!(own, [(0, 7), (1, 9)]);
        assert_eq!(parse_own("1;0=7"), []);
        assert_eq!(parse_own("nonsense"), []);
        assert_eq!(parse_own(&format!("{this};nonsense,2=x,3=5")), [(3, 5)]);
    }

    #[test]
    fn of_what_a_service_manager_passes_the_queues_are_found_by_name() {
        let this = std::process::id().to_string();
        let names = "queue-4:control:queue-5:queue-x:queue-6";
        assert_eq!(parse_passed(&this, "4", names), [(4, 3), (5, 5)]);
        assert_eq!(parse_passed("1", "4", names), []);
        assert_eq!(parse_passed(&this, "none", names), []);
        assert_eq!(parse_passed(&this, "2", ""), []);
    }

    #[test]
    fn a_program_that_does_not_start_takes_nobodys_place() {
        let successor = Successor {
            program: "/nonexistent/ftwall".into(),
            arguments: Vec::new(),
        };
        let error = successor.check().expect_err("it is not there").to_string();
        assert_eq!(error, "/nonexistent/ftwall does not start");
        let broken = Successor {
            program: "/bin/false".into(),
            arguments: Vec::new(),
        };
        let error = broken.check().expect_err("it fails").to_string();
        assert_eq!(error, "/bin/false --version: exit status: 1");
    }
}
