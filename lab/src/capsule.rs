//! Capsules: a program in user, network, mount and process namespaces of its own.
//!
//! ```text
//! caller
//!  └─ keeper    enters the new namespaces, waits, hands the exit status back      killed with the caller's thread
//!      └─ init  pid 1 of the capsule: fresh /proc, tmpfs on /run, reaps orphans   killed with the keeper
//!          └─ the program, uid 0 inside                                           killed with init, like everything else
//! ```
//!
//! Whoever is killed, everything below goes too: the kernel ends a process namespace with its pid 1, a
//! network namespace with its last process, a mount namespace with its mounts. Nothing is left for
//! anybody to tidy up, and root is not needed.
#![expect(
    unsafe_code,
    reason = "fork, _exit and code between fork and exec have no safe form"
)]

use std::{
    env,
    ffi::{CStr, OsStr, OsString},
    fmt,
    io::{self, Read},
    os::{
        fd::{AsFd, OwnedFd},
        unix::process::CommandExt,
    },
    path::Path,
    process::{Child, Command, ExitStatus, Output, Stdio},
    sync::OnceLock,
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
    unistd::{Pid, Uid, dup2_stdin, getgid, getpid, getppid, getuid, mkdir, pipe2},
};

use crate::requirements;

/// A program about to be started in a capsule.
#[derive(Debug)]
pub struct Capsule {
    command: Command,
    before_exec: Option<fn() -> nix::Result<()>>,
}

/// How a capsule gets the right to make namespaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Privilege {
    /// A user namespace that maps the caller to uid 0. Works for everybody, and is first choice for
    /// root too, so that both see the same.
    UserNamespace,
    /// The caller is root and user namespaces are refused: the other namespaces without that one.
    Root,
}

/// A capsule that could not be made, or not be waited for.
#[derive(Debug, thiserror::Error)]
pub enum CapsuleError {
    /// A step between fork and exec was refused.
    #[error("no capsule: cannot {step}: {source}{}", Remedy(*.step))]
    Refused {
        /// The step.
        step: SetupStep,
        /// What the kernel said.
        source: io::Error,
    },
    /// The program could not be started.
    #[error("cannot start `{program}` in a capsule: {source}")]
    Start {
        /// The program.
        program: String,
        /// What the system said.
        source: io::Error,
    },
}

/// Steps on the way into a capsule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SetupStep {
    /// unshare(2).
    MakeNamespaces,
    /// /proc/self/uid_map and its companions.
    MapUser,
    /// fork(2) and the chain of death signals.
    Fork,
    /// Mounts inside.
    Mount,
    /// Open-file limit and hook.
    Prepare,
}

impl Capsule {
    /// `program` with `args`, to be started in a capsule.
    ///
    /// The environment is not the caller's: only the variables of [`PASSED_ON`] and those with a prefix
    /// of [`PASSED_PREFIXES`] are handed over, `TMPDIR` points to [`private_dir`], locale and time zone
    /// are fixed. Whatever else the program needs is set by [`Capsule::env`].
    pub fn command<A: AsRef<OsStr>>(
        program: impl AsRef<OsStr>,
        args: impl IntoIterator<Item = A>,
    ) -> Self {
        let mut command = Command::new(program);
        command.args(args).env_clear().envs(environment());
        Self {
            command,
            before_exec: None,
        }
    }

    /// The running program itself with other arguments: how a binary moves its own work into a capsule.
    ///
    /// # Errors
    /// When the system cannot say what the running program is.
    pub fn current_exe<A: AsRef<OsStr>>(args: impl IntoIterator<Item = A>) -> io::Result<Self> {
        Ok(Self::command(env::current_exe()?, args))
    }

    /// Sets an environment variable inside.
    #[must_use]
    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    /// Where standard input comes from; the caller's if not said.
    #[must_use]
    pub fn stdin(mut self, from: impl Into<Stdio>) -> Self {
        self.command.stdin(from);
        self
    }

    /// Where standard output goes; the caller's if not said.
    #[must_use]
    pub fn stdout(mut self, to: impl Into<Stdio>) -> Self {
        self.command.stdout(to);
        self
    }

    /// Where standard error goes; the caller's if not said.
    #[must_use]
    pub fn stderr(mut self, to: impl Into<Stdio>) -> Self {
        self.command.stderr(to);
        self
    }

    /// Does something in the program's process before the program starts, to probe by doing. It runs
    /// between fork and exec, so it may make system calls and nothing else: no memory, no locks.
    pub(crate) fn before_exec(mut self, hook: fn() -> nix::Result<()>) -> Self {
        self.before_exec = Some(hook);
        self
    }

    /// Starts the program. It is killed, with everything it started, when the *thread* that called
    /// this ends, so keep that thread alive; [`Child::kill`] does the same at once.
    ///
    /// The exit status is the program's own, or 128 and the signal's number when a signal ended it.
    ///
    /// # Errors
    /// When the kernel refuses capsules or the program cannot be started.
    pub fn spawn(self) -> Result<Child, CapsuleError> {
        self.spawn_with(Privilege::available()?)
    }

    /// Runs the program to its end.
    ///
    /// # Errors
    /// As [`Capsule::spawn`].
    pub fn status(self) -> Result<ExitStatus, CapsuleError> {
        let program = self.program();
        let mut child = self.spawn()?;
        child
            .wait()
            .map_err(|source| CapsuleError::Start { program, source })
    }

    /// Runs the program to its end and collects what it writes.
    ///
    /// # Errors
    /// As [`Capsule::spawn`].
    pub fn output(self) -> Result<Output, CapsuleError> {
        let program = self.program();
        let child = self
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        child
            .wait_with_output()
            .map_err(|source| CapsuleError::Start { program, source })
    }

    fn program(&self) -> String {
        self.command.get_program().display().to_string()
    }

    fn spawn_with(mut self, privilege: Privilege) -> Result<Child, CapsuleError> {
        let program = self.program();
        let failed = |source| CapsuleError::Start {
            program: program.clone(),
            source,
        };
        let (told, tell) =
            pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK).map_err(|e| failed(e.into()))?;
        let setup = Setup::new(privilege, self.before_exec, tell);
        // SAFETY: between fork and exec `Setup::enter` makes system calls on memory prepared here and
        // neither allocates nor takes a lock.
        unsafe { self.command.pre_exec(move || setup.enter()) };
        let spawned = self.command.spawn();
        // The command owns the writing end: with it gone, reading what was told cannot wait.
        drop(self.command);
        spawned.map_err(|source| match read_step(told) {
            Some(step) => CapsuleError::Refused { step, source },
            None => failed(source),
        })
    }
}

impl Privilege {
    /// The first privilege that works here, found by starting a capsule that does nothing; asked of
    /// the kernel once per process.
    ///
    /// # Errors
    /// When none works.
    pub fn available() -> Result<Self, CapsuleError> {
        static FOUND: OnceLock<Privilege> = OnceLock::new();
        if let Some(found) = FOUND.get() {
            return Ok(*found);
        }
        let found = Self::probe()?;
        Ok(*FOUND.get_or_init(|| found))
    }

    fn probe() -> Result<Self, CapsuleError> {
        match Self::UserNamespace.try_out() {
            Ok(()) => Ok(Self::UserNamespace),
            Err(_) if Uid::effective().is_root() && Self::Root.try_out().is_ok() => Ok(Self::Root),
            Err(refusal) => Err(refusal),
        }
    }

    fn try_out(self) -> Result<(), CapsuleError> {
        let capsule = Capsule::command("true", [""; 0]).stdin(Stdio::null());
        let status = capsule.spawn_with(self)?.wait();
        status.map(drop).map_err(|source| CapsuleError::Start {
            program: "true".to_owned(),
            source,
        })
    }
}

impl fmt::Display for Privilege {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::UserNamespace => "user namespace",
            Self::Root => "plain root",
        })
    }
}

/// Whether this process runs inside a capsule.
#[must_use]
pub fn is_inside() -> bool {
    env::var_os(INSIDE).is_some() && private_dir().is_dir()
}

/// A writable directory that only the capsule sees and that goes with it.
#[must_use]
pub fn private_dir() -> &'static Path {
    Path::new("/run/lab")
}

/// Runs the body of a `#[test]` in a capsule, by running the test binary again for this one test.
///
/// `name` is the test's name as libtest prints it, modules included. A panic inside fails the test and
/// its output is shown as the test's own. Where capsules are refused the test is skipped with a line on
/// standard error, or fails under [`requirements::STRICT`].
///
/// ```no_run
/// # mod tests {
/// #[test]
/// fn pings_cross_the_gateway() {
///     lab::capsule::in_capsule("pings_cross_the_gateway", || { /* build a lab here */ });
/// }
/// # }
/// ```
///
/// # Panics
/// When the body does, or when `name` is not the name of the test.
pub fn in_capsule(name: &str, body: impl FnOnce()) {
    if env::var_os(INSIDE_TEST).is_some_and(|inside| inside == name) {
        println!("{ENTERED} {name}");
        body();
        return;
    }
    if let Err(refusal) = Privilege::available() {
        requirements::skip_or_fail(name, &refusal.to_string());
        return;
    }
    let output = Capsule::current_exe(["--exact", name, "--nocapture", "--test-threads=1"])
        .map_err(|source| CapsuleError::Start {
            program: name.to_owned(),
            source,
        })
        .and_then(|capsule| capsule.env(INSIDE_TEST, name).output())
        .unwrap_or_else(|error| panic!("{error}"));
    let said = String::from_utf8_lossy(&output.stdout);
    print!("{said}{}", String::from_utf8_lossy(&output.stderr));
    // libtest is content with a name that matches no test; a test that ran nothing must not pass.
    assert!(
        said.contains(ENTERED),
        "no test of this binary is called `{name}`"
    );
    assert!(
        output.status.success(),
        "`{name}` failed inside its capsule: {}",
        output.status
    );
}

/// Variables handed over where the caller has them.
pub const PASSED_ON: &[&str] = &[
    "PATH",
    "HOME",
    "TERM",
    "COLUMNS",
    "NO_COLOR",
    "LD_LIBRARY_PATH",
    "LLVM_PROFILE_FILE",
    "PROPTEST_CASES",
];
/// Prefixes of variables handed over where the caller has them.
pub const PASSED_PREFIXES: &[&str] = &[
    "LAB_",
    "FTWALL_",
    "SIMULATOR_",
    "SCENARIOS_",
    "RUST_",
    "CARGO_",
    "INSTA_",
];

/// Set inside every capsule.
const INSIDE: &str = "LAB_INSIDE_CAPSULE";
/// Names the test whose body is to run.
const INSIDE_TEST: &str = "LAB_INSIDE_TEST";
/// Said by a test that runs inside.
const ENTERED: &str = "in its capsule:";

fn environment() -> impl Iterator<Item = (OsString, OsString)> {
    let passes = |name: &OsString| {
        name.to_str().is_some_and(|name| {
            PASSED_ON.contains(&name)
                || PASSED_PREFIXES
                    .iter()
                    .any(|prefix| name.starts_with(prefix))
        })
    };
    let fixed = [
        ("LANG", "C.UTF-8"),
        ("TZ", "UTC"),
        ("TMPDIR", TMPDIR_INSIDE),
        (INSIDE, "1"),
    ];
    env::vars_os()
        .filter(move |(name, _)| passes(name))
        .chain(fixed.map(|(name, value)| (name.into(), value.into())))
}

const TMPDIR_INSIDE: &str = "/run/lab/tmp";
const PRIVATE_DIR: &CStr = c"/run/lab";
const PRIVATE_TMPDIR: &CStr = c"/run/lab/tmp";

/// Everything the way in needs, prepared before the fork.
struct Setup {
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
    fn new(
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

impl SetupStep {
    const ALL: [Self; 5] = [
        Self::MakeNamespaces,
        Self::MapUser,
        Self::Fork,
        Self::Mount,
        Self::Prepare,
    ];

    /// The octet that stands for the step on the pipe.
    fn code(self) -> u8 {
        match self {
            Self::MakeNamespaces => 0,
            Self::MapUser => 1,
            Self::Fork => 2,
            Self::Mount => 3,
            Self::Prepare => 4,
        }
    }
}

impl fmt::Display for SetupStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::MakeNamespaces => "make user, network, mount and process namespaces",
            Self::MapUser => "map the caller to uid 0",
            Self::Fork => "start the capsule's first process",
            Self::Mount => "mount a private /run and /proc",
            Self::Prepare => "prepare the program's process",
        })
    }
}

fn read_step(told: OwnedFd) -> Option<SetupStep> {
    let mut code = [0];
    let read = std::fs::File::from(told).read(&mut code).ok()?;
    SetupStep::ALL
        .into_iter()
        .find(|step| read == 1 && step.code() == code[0])
}

/// What to do where a step is refused.
struct Remedy(SetupStep);

impl fmt::Display for Remedy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hints: Vec<&str> = SWITCHES
            .iter()
            .filter(|switch| switch.is_in_the_way())
            .map(|switch| switch.remedy)
            .collect();
        match (hints.as_slice(), self.0) {
            ([], SetupStep::Mount) => f.write_str(MASKED_PROC),
            ([], _) => f.write_str(NO_USER_NAMESPACES),
            (hints, _) => write!(f, " ({})", hints.join("; ")),
        }
    }
}

const MASKED_PROC: &str = " (in a container, parts of /proc may be masked: run it with \
    `--security-opt systempaths=unconfined --security-opt apparmor=unconfined`)";
const NO_USER_NAMESPACES: &str = " (allow unprivileged user namespaces, or run as root; in a container a \
    seccomp profile may forbid unshare: `--security-opt seccomp=unconfined`)";

/// A kernel switch that forbids user namespaces when it has a certain value.
struct Switch {
    path: &'static str,
    forbids: &'static str,
    remedy: &'static str,
}

impl Switch {
    fn is_in_the_way(&self) -> bool {
        std::fs::read_to_string(self.path).is_ok_and(|value| value.trim() == self.forbids)
    }
}

const SWITCHES: &[Switch] = &[
    Switch {
        path: "/proc/sys/kernel/apparmor_restrict_unprivileged_userns",
        forbids: "1",
        remedy: "AppArmor restricts user namespaces: sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0",
    },
    Switch {
        path: "/proc/sys/kernel/unprivileged_userns_clone",
        forbids: "0",
        remedy: "user namespaces are for root only: sudo sysctl -w kernel.unprivileged_userns_clone=1",
    },
    Switch {
        path: "/proc/sys/user/max_user_namespaces",
        forbids: "0",
        remedy: "no user namespaces at all: sudo sysctl -w user.max_user_namespaces=15000",
    },
];
