//! The way into a capsule: what a freshly forked process does until the program takes its place.
#![expect(
    unsafe_code,
    reason = "fork, _exit and code between fork and exec have no safe form"
)]

use std::{
    ffi::CStr,
    io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::process::CommandExt,
    },
    process::Command,
};

use nix::{
    errno::Errno,
    fcntl::{OFlag, open},
    libc,
    mount::{MsFlags, mount},
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sched::{CloneFlags, unshare},
    sys::{
        prctl,
        resource::{Resource, getrlimit, setrlimit},
        signal::Signal,
        stat::Mode,
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::{Pid, dup2_stdin, getgid, getpid, getppid, getuid, mkdir, pipe2},
};

use super::{Privilege, refusal::SetupStep};

/// Everything the way in needs, prepared before the fork.
pub(super) struct Setup {
    privilege: Privilege,
    caller: Pid,
    user_map: Vec<u8>,
    group_map: Vec<u8>,
    before_exec: Option<fn() -> nix::Result<()>>,
    /// Where a refused step is told to the caller.
    tell: OwnedFd,
}

/// A refusal and the step that met it.
type Refusal = (SetupStep, Errno);

impl Setup {
    pub(super) fn new(
        privilege: Privilege,
        before_exec: Option<fn() -> nix::Result<()>>,
        tell: OwnedFd,
    ) -> Self {
        Self {
            privilege,
            caller: getpid(),
            user_map: format!("0 {} 1\n", getuid()).into_bytes(),
            group_map: format!("0 {} 1\n", getgid()).into_bytes(),
            before_exec,
            tell,
        }
    }

    /// Makes `command` start its program inside.
    pub(super) fn arrange(self, command: &mut Command) {
        // SAFETY: between fork and exec `enter` makes system calls on memory prepared before the fork
        // and neither allocates nor takes a lock.
        unsafe { command.pre_exec(move || self.enter()) };
    }

    /// Turns the freshly forked process into keeper, init and program; returns in the program only.
    fn enter(&self) -> io::Result<()> {
        self.become_program().map_err(|(step, errno)| {
            // The reader may be gone; the error itself reaches the caller in any case.
            let _ = nix::unistd::write(&self.tell, &[step.code()]);
            errno.into()
        })
    }

    fn become_program(&self) -> Result<(), Refusal> {
        self.make_namespaces()
            .map_err(|errno| (SetupStep::MakeNamespaces, errno))?;
        self.map_user()
            .map_err(|errno| (SetupStep::MapUser, errno))?;
        // Only now: the kernel forgets the signal when credentials change.
        die_with_parent().map_err(|errno| (SetupStep::Fork, errno))?;
        if getppid() != self.caller {
            exit(ABANDONED);
        }
        fork_below_keeper().map_err(|errno| (SetupStep::Fork, errno))?;
        mount_private_tree().map_err(|errno| (SetupStep::Mount, errno))?;
        fork_below_init().map_err(|errno| (SetupStep::Fork, errno))?;
        self.prepare_program()
            .map_err(|errno| (SetupStep::Prepare, errno))
    }

    fn make_namespaces(&self) -> nix::Result<()> {
        let always = CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWPID;
        match self.privilege {
            Privilege::UserNamespace => unshare(always | CloneFlags::CLONE_NEWUSER),
            Privilege::Root => unshare(always),
        }
    }

    /// user_namespaces(7): an unprivileged process may map its own ids, once it has given up setgroups.
    fn map_user(&self) -> nix::Result<()> {
        match self.privilege {
            Privilege::Root => Ok(()),
            Privilege::UserNamespace => {
                write_file(c"/proc/self/setgroups", b"deny")?;
                write_file(c"/proc/self/uid_map", &self.user_map)?;
                write_file(c"/proc/self/gid_map", &self.group_map)
            }
        }
    }

    fn prepare_program(&self) -> nix::Result<()> {
        let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
        setrlimit(Resource::RLIMIT_NOFILE, most, most)?;
        self.before_exec.map_or(Ok(()), |hook| hook())
    }
}

/// Forks; the parent stays behind as the keeper, the child goes on as pid 1 of the capsule.
fn fork_below_keeper() -> nix::Result<()> {
    // Init holds the reading end: its end of file tells that the keeper died before the death signal
    // was armed, which getppid cannot tell across process namespaces.
    let (keeper_lives, keeper) = pipe2(OFlag::O_CLOEXEC)?;
    match fork()? {
        Forked::Parent(init) => {
            dup2_stdin(&keeper)?;
            close_all_but_standard();
            exit(wait_for(init));
        }
        Forked::Child => {
            drop(keeper);
            die_with_parent()?;
            if has_hung_up(&keeper_lives)? {
                exit(ABANDONED);
            }
            Ok(())
        }
    }
}

/// Forks; the parent stays behind as init and reaps, the child goes on to become the program.
fn fork_below_init() -> nix::Result<()> {
    match fork()? {
        Forked::Parent(program) => {
            // Also the pipe on which the caller awaits the exec, which init would hold open for ever.
            close_all_but_standard();
            exit(wait_for(program));
        }
        Forked::Child => Ok(()),
    }
}

fn mount_private_tree() -> nix::Result<()> {
    let nothing = None::<&CStr>;
    mount(
        nothing,
        c"/",
        nothing,
        MsFlags::MS_REC | MsFlags::MS_PRIVATE,
        nothing,
    )?;
    let plain = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mount(
        Some(c"tmpfs"),
        c"/run",
        Some(c"tmpfs"),
        plain,
        Some(c"mode=0755"),
    )?;
    mkdir(PRIVATE_DIR, Mode::S_IRWXU)?;
    mkdir(PRIVATE_TMPDIR, Mode::S_IRWXU)?;
    mount(
        Some(c"proc"),
        c"/proc",
        Some(c"proc"),
        plain | MsFlags::MS_NOEXEC,
        nothing,
    )
}

fn die_with_parent() -> nix::Result<()> {
    prctl::set_pdeathsig(Signal::SIGKILL)
}

fn has_hung_up(pipe: &OwnedFd) -> nix::Result<bool> {
    let mut fds = [PollFd::new(pipe.as_fd(), PollFlags::POLLIN)];
    Ok(poll(&mut fds, PollTimeout::ZERO)? > 0)
}

/// Waits for `child`, reaping whatever else ends meanwhile, and says which status to exit with.
fn wait_for(child: Pid) -> i32 {
    loop {
        match waitpid(None, Some(WaitPidFlag::empty())) {
            Ok(WaitStatus::Exited(pid, code)) if pid == child => return code,
            Ok(WaitStatus::Signaled(pid, signal, _)) if pid == child => {
                return SIGNALLED + signal as i32;
            }
            Ok(_) | Err(Errno::EINTR) => {}
            Err(_) => return ABANDONED,
        }
    }
}

fn write_file(path: &CStr, content: &[u8]) -> nix::Result<()> {
    let file = open(path, OFlag::O_WRONLY | OFlag::O_CLOEXEC, Mode::empty())?;
    nix::unistd::write(&file, content).map(drop)
}

/// See [`super::private_dir`].
const PRIVATE_DIR: &CStr = c"/run/lab";
const PRIVATE_TMPDIR: &CStr = c"/run/lab/tmp";

/// Shells report a death by signal so.
const SIGNALLED: i32 = 128;
/// Exit status of a keeper or init that has nobody left to work for.
const ABANDONED: i32 = 125;

enum Forked {
    Parent(Pid),
    Child,
}

fn fork() -> nix::Result<Forked> {
    // SAFETY: the process is itself a fresh fork with one thread, and both sides go on with system
    // calls only until they exec or exit.
    match unsafe { nix::unistd::fork() }? {
        nix::unistd::ForkResult::Parent { child } => Ok(Forked::Parent(child)),
        nix::unistd::ForkResult::Child => Ok(Forked::Child),
    }
}

/// Leaves without running the exit handlers that belong to the caller's program.
fn exit(status: i32) -> ! {
    // SAFETY: _exit has no preconditions.
    unsafe { libc::_exit(status) }
}

fn close_all_but_standard() {
    // SAFETY: the process goes on to wait and exit and uses none of these descriptors again.
    // Failure (a kernel before 5.9) would keep the caller waiting and is impossible where capsules run.
    unsafe { libc::close_range(3, libc::c_uint::MAX, 0) };
}
