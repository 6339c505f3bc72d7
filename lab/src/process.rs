//! Programs inside a node: started, waited for by what they say, stopped, and all they said kept.
//!
//! Nothing here sleeps: output is awaited on a condition variable that the reader threads signal, the
//! end of a process on its pidfd.

use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    fmt,
    fs::File,
    io::{self, BufRead, BufReader, Read, Write},
    os::fd::OwnedFd,
    path::PathBuf,
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

use rustix::{
    event::{PollFd, PollFlags, poll},
    process::{Pid, PidfdFlags, pidfd_open, pidfd_send_signal},
    time::Timespec,
};

pub use rustix::process::Signal;

use crate::live::Node;

/// What to run: a program, its arguments, and what differs from the caller's environment.
#[derive(Debug, Clone)]
pub struct Spec {
    program: OsString,
    args: Vec<OsString>,
    env: BTreeMap<OsString, OsString>,
    dir: Option<PathBuf>,
    log: Option<PathBuf>,
}

impl Spec {
    /// Runs `program`, found by `PATH` if it has no slash.
    pub fn new(program: impl AsRef<OsStr>) -> Self {
        Self {
            program: program.as_ref().to_owned(),
            args: Vec::new(),
            env: BTreeMap::new(),
            dir: None,
            log: None,
        }
    }

    /// Adds an argument.
    #[must_use]
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.args.push(arg.as_ref().to_owned());
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<A: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.args
            .extend(args.into_iter().map(|arg| arg.as_ref().to_owned()));
        self
    }

    /// Sets an environment variable.
    #[must_use]
    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.env
            .insert(name.as_ref().to_owned(), value.as_ref().to_owned());
        self
    }

    /// Sets the working directory.
    #[must_use]
    pub fn dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.dir = Some(dir.into());
        self
    }

    /// Copies every line of output to a file too, as it comes.
    #[must_use]
    pub fn log_to(mut self, path: impl Into<PathBuf>) -> Self {
        self.log = Some(path.into());
        self
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.args(&self.args).envs(&self.env);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        if let Some(dir) = &self.dir {
            command.current_dir(dir);
        }
        command
    }
}

/// The command line, for messages.
impl fmt::Display for Spec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.program.display())?;
        self.args
            .iter()
            .try_for_each(|arg| write!(f, " {}", arg.display()))
    }
}

/// Where a line was said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// One line of output, without its line break; bytes that are not UTF-8 are replaced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Where it was said.
    pub stream: Stream,
    /// What was said.
    pub text: String,
}

/// All a finished program said, and how it ended.
#[derive(Debug, Clone)]
pub struct Output {
    /// How it ended.
    pub status: ExitStatus,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Output {
    /// Whether it ended with status 0.
    #[must_use]
    pub fn success(&self) -> bool {
        self.status.success()
    }
}

/// How a process was brought to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stopped {
    /// How it ended.
    pub status: ExitStatus,
    /// It did not heed SIGTERM in time and was killed.
    pub killed: bool,
}

/// Something a process should have done and did not. Every message carries the last lines it said.
#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    /// It could not be started.
    #[error("cannot start `{command}` in {node}: {source}")]
    Spawn {
        /// The command line.
        command: String,
        /// The node.
        node: String,
        /// What the system said.
        source: io::Error,
    },
    /// The awaited line did not come in time.
    #[error("`{name}` did not say what was awaited within {waited:?}; it said:\n{tail}")]
    Silent {
        /// Program and node.
        name: String,
        /// How long was waited.
        waited: Duration,
        /// The end of its output.
        tail: String,
    },
    /// It closed its output before the awaited line came.
    #[error("`{name}` ended before it said what was awaited; it said:\n{tail}")]
    Ended {
        /// Program and node.
        name: String,
        /// The end of its output.
        tail: String,
    },
    /// It was still running after the time given to it.
    #[error("`{name}` was still running after {waited:?}; it said:\n{tail}")]
    StillRunning {
        /// Program and node.
        name: String,
        /// How long was waited.
        waited: Duration,
        /// The end of its output.
        tail: String,
    },
    /// The system refused to signal it or to wait for it.
    #[error("cannot {doing} `{name}`: {source}")]
    System {
        /// What was tried.
        doing: &'static str,
        /// Program and node.
        name: String,
        /// What the system said.
        source: io::Error,
    },
}

/// A running program. Dropping it kills it.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    pidfd: OwnedFd,
    transcript: Arc<Transcript>,
    status: Option<ExitStatus>,
}

impl Process {
    pub(crate) fn spawn(node: &Node, spec: &Spec) -> Result<Self, ProcessError> {
        Self::try_spawn(node, spec).map_err(|source| ProcessError::Spawn {
            command: spec.to_string(),
            node: node.name().to_owned(),
            source,
        })
    }

    fn try_spawn(node: &Node, spec: &Spec) -> io::Result<Self> {
        let log = spec.log.as_ref().map(File::create).transpose()?;
        let mut command = spec.command();
        let mut child = node.enter(|| command.spawn())??;
        let pidfd = pidfd_open(Pid::from_child(&child), PidfdFlags::empty())?;
        let transcript = Arc::new(Transcript::new(log));
        let stdout = child.stdout.take().expect("stdout was asked to be a pipe");
        let stderr = child.stderr.take().expect("stderr was asked to be a pipe");
        transcript.follow(Stream::Stdout, stdout)?;
        transcript.follow(Stream::Stderr, stderr)?;
        let name = format!("{}@{}", spec.program.display(), node.name());
        Ok(Self {
            name,
            child,
            pidfd,
            transcript,
            status: None,
        })
    }

    /// Its process id, in the process namespace of the caller.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Program and node, for messages.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Waits for a line of standard output that `wanted` accepts, among those said already and those
    /// to come, and returns the first.
    ///
    /// # Errors
    /// When the time is over or the output ends first.
    pub fn wait_line(
        &self,
        wanted: impl Fn(&str) -> bool,
        timeout: Duration,
    ) -> Result<String, ProcessError> {
        match self.transcript.wait_line(&wanted, timeout) {
            Awaited::Line(text) => Ok(text),
            Awaited::End => Err(ProcessError::Ended {
                name: self.name.clone(),
                tail: self.tail(),
            }),
            Awaited::Nothing => Err(ProcessError::Silent {
                name: self.name.clone(),
                waited: timeout,
                tail: self.tail(),
            }),
        }
    }

    /// Everything said so far, both streams, in order of arrival.
    #[must_use]
    pub fn lines(&self) -> Vec<Line> {
        self.transcript.state().lines.clone()
    }

    /// Everything said so far on one stream.
    #[must_use]
    pub fn text(&self, stream: Stream) -> String {
        self.transcript.text(stream)
    }

    /// Whether it still runs.
    ///
    /// # Errors
    /// When the system cannot tell.
    pub fn is_running(&mut self) -> Result<bool, ProcessError> {
        Ok(!self.ended_within(Duration::ZERO)?)
    }

    /// Waits for its end. All it has said is in [`Process::lines`] afterwards.
    ///
    /// # Errors
    /// When it still runs after `timeout`.
    pub fn wait_exit(&mut self, timeout: Duration) -> Result<ExitStatus, ProcessError> {
        if !self.ended_within(timeout)? {
            let (name, tail) = (self.name.clone(), self.tail());
            return Err(ProcessError::StillRunning {
                name,
                waited: timeout,
                tail,
            });
        }
        let status = self
            .child
            .wait()
            .map_err(|source| self.failed("wait for", source))?;
        self.status = Some(status);
        self.transcript.wait_end(OUTPUT_AFTER_EXIT);
        Ok(status)
    }

    /// Asks it to end (SIGTERM) and kills it when it has not done so within `grace`.
    ///
    /// # Errors
    /// When it cannot be signalled, or outlives even that.
    pub fn stop(&mut self, grace: Duration) -> Result<Stopped, ProcessError> {
        self.signal(Signal::TERM)?;
        if self.ended_within(grace)? {
            let status = self.wait_exit(Duration::ZERO)?;
            return Ok(Stopped {
                status,
                killed: false,
            });
        }
        let status = self.kill()?;
        Ok(Stopped {
            status,
            killed: true,
        })
    }

    /// Kills it (SIGKILL) and waits for its end.
    ///
    /// # Errors
    /// When it cannot be signalled, or does not end.
    pub fn kill(&mut self) -> Result<ExitStatus, ProcessError> {
        self.signal(Signal::KILL)?;
        self.wait_exit(DEATH_AFTER_KILL)
    }

    /// Sends a signal. A process that has ended already is no error.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn signal(&self, signal: Signal) -> Result<(), ProcessError> {
        match pidfd_send_signal(&self.pidfd, signal) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
            Err(refusal) => Err(self.failed("signal", refusal.into())),
        }
    }

    /// What a process that has ended said and how it ended.
    pub(crate) fn into_output(self) -> Output {
        Output {
            status: self.status.expect("only called after its end was awaited"),
            stdout: self.text(Stream::Stdout),
            stderr: self.text(Stream::Stderr),
        }
    }

    fn ended_within(&self, timeout: Duration) -> Result<bool, ProcessError> {
        if self.status.is_some() {
            return Ok(true);
        }
        readable_within(&self.pidfd, timeout).map_err(|source| self.failed("wait for", source))
    }

    fn failed(&self, doing: &'static str, source: io::Error) -> ProcessError {
        ProcessError::System {
            doing,
            name: self.name.clone(),
            source,
        }
    }

    fn tail(&self) -> String {
        let state = self.transcript.state();
        let start = state.lines.len().saturating_sub(TAIL_LINES);
        let lines: Vec<&str> = state.lines[start..]
            .iter()
            .map(|line| line.text.as_str())
            .collect();
        lines.join("\n")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.status.is_none()
            && let Err(error) = self.kill()
        {
            tracing::warn!(process = %self.name, %error, "could not be ended");
        }
    }
}

/// A killed process ends at once unless the kernel is stuck in a system call of it.
const DEATH_AFTER_KILL: Duration = Duration::from_secs(5);
/// Longest wait for the end of output after the end of the process: its children may hold the pipes.
const OUTPUT_AFTER_EXIT: Duration = Duration::from_millis(500);
/// Lines of output in an error message.
const TAIL_LINES: usize = 20;

/// Waits until a file descriptor is readable; a pidfd is when its process has ended.
pub(crate) fn readable_within(fd: &OwnedFd, timeout: Duration) -> io::Result<bool> {
    let timeout = Timespec::try_from(timeout).map_err(io::Error::other)?;
    let mut fds = [PollFd::new(fd, PollFlags::IN)];
    Ok(rustix::io::retry_on_intr(|| poll(&mut fds, Some(&timeout)))? > 0)
}

/// What a process has said, shared between its reader threads and whoever waits.
#[derive(Debug)]
struct Transcript {
    state: Mutex<TranscriptState>,
    changed: Condvar,
}

#[derive(Debug)]
struct TranscriptState {
    lines: Vec<Line>,
    open_streams: usize,
    stdout_open: bool,
    log: Option<File>,
}

enum Awaited {
    Line(String),
    End,
    Nothing,
}

impl Transcript {
    fn new(log: Option<File>) -> Self {
        let state = TranscriptState {
            lines: Vec::new(),
            open_streams: 0,
            stdout_open: true,
            log,
        };
        Self {
            state: Mutex::new(state),
            changed: Condvar::new(),
        }
    }

    /// Reads a stream to its end on a thread of its own.
    fn follow(
        self: &Arc<Self>,
        stream: Stream,
        source: impl Read + Send + 'static,
    ) -> io::Result<()> {
        self.state().open_streams += 1;
        let transcript = Arc::clone(self);
        thread::Builder::new()
            .name(format!("{stream:?}"))
            .spawn(move || transcript.read(stream, source))?;
        Ok(())
    }

    fn read(&self, stream: Stream, source: impl Read) {
        for line in BufReader::new(source).split(b'\n') {
            match line {
                Ok(bytes) => self.record(stream, &bytes),
                Err(error) => {
                    tracing::warn!(?stream, %error, "output can no longer be read");
                    break;
                }
            }
        }
        self.close(stream);
    }

    fn record(&self, stream: Stream, bytes: &[u8]) {
        let text = String::from_utf8_lossy(bytes)
            .trim_end_matches('\r')
            .to_owned();
        let mut state = self.state();
        if let Some(log) = &mut state.log
            && let Err(error) = writeln!(log, "{text}")
        {
            tracing::warn!(%error, "output log cannot be written any more");
            state.log = None;
        }
        state.lines.push(Line { stream, text });
        drop(state);
        self.changed.notify_all();
    }

    fn close(&self, stream: Stream) {
        let mut state = self.state();
        state.open_streams -= 1;
        state.stdout_open &= stream != Stream::Stdout;
        drop(state);
        self.changed.notify_all();
    }

    fn wait_line(&self, wanted: &dyn Fn(&str) -> bool, timeout: Duration) -> Awaited {
        let mut looked_at = 0;
        let mut found = None;
        let keep_waiting = |state: &mut TranscriptState| {
            let fresh = &state.lines[looked_at..];
            let hit = fresh
                .iter()
                .find(|line| line.stream == Stream::Stdout && wanted(&line.text));
            found = hit.map(|line| line.text.clone());
            looked_at = state.lines.len();
            found.is_none() && state.stdout_open
        };
        let waited = self
            .changed
            .wait_timeout_while(self.state(), timeout, keep_waiting);
        let (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        match found {
            Some(text) => Awaited::Line(text),
            None if state.stdout_open => Awaited::Nothing,
            None => Awaited::End,
        }
    }

    fn wait_end(&self, timeout: Duration) {
        // Whether the streams closed or time ran out makes no difference: what is here is here.
        drop(
            self.changed
                .wait_timeout_while(self.state(), timeout, |state| state.open_streams > 0),
        );
    }

    fn text(&self, stream: Stream) -> String {
        let state = self.state();
        let said = state.lines.iter().filter(|line| line.stream == stream);
        said.fold(String::new(), |text, line| text + &line.text + "\n")
    }

    /// A reader that panicked leaves whole lines behind, so the lock's poison says nothing.
    fn state(&self) -> MutexGuard<'_, TranscriptState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
