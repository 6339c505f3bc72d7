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

mod entry;
mod refusal;

use std::{
    env,
    ffi::{OsStr, OsString},
    fmt, io,
    path::Path,
    process::{Child, Command, ExitStatus, Output, Stdio},
    sync::OnceLock,
};

use nix::{
    fcntl::OFlag,
    unistd::{Uid, pipe2},
};

pub use refusal::SetupStep;

use self::{
    entry::Setup,
    refusal::{Remedy, read_step},
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
        setup.arrange(&mut self.command);
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
        .chain([("PATH".into(), with_system_programs(env::var_os("PATH")))])
}

/// An ordinary user's search path leaves out where distributions put nft and iptables; inside a
/// capsule that user is root.
fn with_system_programs(path: Option<OsString>) -> OsString {
    let mut path = path.unwrap_or_else(|| "/usr/local/bin:/usr/bin:/bin".into());
    path.push(":/usr/local/sbin:/usr/sbin:/sbin");
    path
}

const TMPDIR_INSIDE: &str = "/run/lab/tmp";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn system_programs_are_found_behind_the_callers_own() {
        let found = with_system_programs(Some("/home/me/bin:/usr/bin".into()));
        assert_eq!(
            found,
            "/home/me/bin:/usr/bin:/usr/local/sbin:/usr/sbin:/sbin"
        );
        let without = with_system_programs(None);
        let without = without.to_string_lossy();
        assert!(without.contains(":/bin:") && without.ends_with(":/usr/sbin:/sbin"));
    }
}
