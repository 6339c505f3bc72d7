//! Network namespaces, known by file descriptor only; the one file that enters them.
//!
//! A namespace belongs to a thread, and a thread that changed its namespace must not be handed back to
//! anybody. So work inside a namespace runs on a thread of its own, which ends with the work.

use std::{
    fs::File,
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    path::Path,
    thread,
};

use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, setns, unshare},
};

/// A network namespace. It lives as long as this value, a process or a socket inside it lives.
#[derive(Debug)]
pub(crate) struct Namespace {
    fd: OwnedFd,
}

impl Namespace {
    /// Moves the calling thread into a new namespace and returns it.
    pub(crate) fn unshare_thread() -> io::Result<Self> {
        unshare(CloneFlags::CLONE_NEWNET)?;
        Self::of_thread()
    }

    /// The calling thread's namespace.
    pub(crate) fn of_thread() -> io::Result<Self> {
        Ok(Self {
            fd: File::open("/proc/thread-self/ns/net")?.into(),
        })
    }

    /// The namespace a process lives in.
    pub(crate) fn of_process(process: u32) -> io::Result<Self> {
        Ok(Self {
            fd: File::open(format!("/proc/{process}/ns/net"))?.into(),
        })
    }

    /// Moves the calling thread into this namespace, for good.
    pub(crate) fn enter_thread(&self) -> io::Result<()> {
        Ok(setns(&self.fd, CloneFlags::CLONE_NEWNET)?)
    }

    /// Gives the namespace a name in the file system, for programs that know no descriptors.
    pub(crate) fn mount_at(&self, path: &Path) -> io::Result<()> {
        File::create(path)?;
        let source = format!("/proc/self/fd/{}", self.fd.as_raw_fd());
        let nothing = None::<&str>;
        Ok(mount(
            Some(source.as_str()),
            path,
            nothing,
            MsFlags::MS_BIND,
            nothing,
        )?)
    }

    /// Does `work` inside the namespace, on a thread of its own. What it starts (sockets, processes)
    /// stays inside when the thread has ended.
    pub(crate) fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> io::Result<T> {
        on_own_thread(|| {
            self.enter_thread()?;
            Ok(work())
        })
    }
}

impl AsFd for Namespace {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Runs `work` on a new thread and hands its result, or its panic, back.
pub(crate) fn on_own_thread<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| match scope.spawn(work).join() {
        Ok(result) => result,
        Err(panic) => std::panic::resume_unwind(panic),
    })
}
