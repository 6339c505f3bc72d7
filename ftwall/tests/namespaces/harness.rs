//! Namespaces of a test's own, the programs run in them, and a daemon under test.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::process::{Child, ChildStdout, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// Set for the copy of a test that runs inside, to a file that it leaves to show that it came there.
pub(crate) const INSIDE: &str = "FTWALL_TEST_INSIDE";

/// Runs `body` in fresh namespaces, as the test called `name`, with the modules it is in.
pub(crate) fn in_namespaces(name: &str, body: impl FnOnce()) {
    in_namespaces_with(name, &[], body);
}

/// As [`in_namespaces`], with more options for the copy that runs inside.
pub(crate) fn in_namespaces_with(name: &str, options: &[&str], body: impl FnOnce()) {
    inside("-Urnm", name, options, body);
}

/// As [`in_namespaces`], with the users of the machine: for what another user than root is to do.
pub(crate) fn in_namespaces_of_root(name: &str, body: impl FnOnce()) {
    inside("-nm", name, &[], body);
}

/// `namespaces` as `unshare` is told.
fn inside(namespaces: &str, name: &str, options: &[&str], body: impl FnOnce()) {
    if let Some(came) = std::env::var_os(INSIDE) {
        std::fs::write(came, name).expect("whoever started this copy can write there");
        // iptables-legacy wants to lock a file there.
        assert!(
            run("mount", &["-t", "tmpfs", "tmpfs", "/run"])
                .status
                .success()
        );
        return body();
    }
    let probe = run("unshare", &[namespaces, "true"]);
    if !probe.status.success() {
        return skip(
            name,
            &format!("no such namespaces here: {}", words(&probe.stderr)),
        );
    }
    let test = std::env::current_exe().expect("a test has a path");
    let came = std::env::temp_dir().join(format!("ftwall-inside-{}", std::process::id()));
    let came = came.with_extension(name.replace("::", "-"));
    let inside = Command::new("unshare")
        .args([namespaces, "--fork", "--kill-child"])
        .arg(test)
        .args(["--exact", name, "--nocapture"])
        .args(options)
        .env(INSIDE, &came)
        .status()
        .expect("unshare has just been run");
    // A name that is not the test's own would choose no test, which counts as success.
    let found = std::fs::remove_file(&came);
    assert!(found.is_ok(), "there is no test {name} to run inside");
    assert!(inside.success(), "{name} failed inside its namespaces");
}

/// Says loudly what was not tested; where everything has to be, fails.
pub(crate) fn skip(name: &str, reason: &str) {
    assert!(
        std::env::var_os("LAB_REQUIRE").is_none(),
        "{name} has to run: {reason}"
    );
    eprintln!("SKIPPED {name}: {reason}");
}

/// This machine's kernel decides which back ends exist; only a lane that has all of them may insist.
pub(crate) fn skip_back_end(backend: &str, reason: &str) {
    assert!(
        std::env::var_os("LAB_REQUIRE_BACKENDS").is_none(),
        "{backend}: {reason}"
    );
    eprintln!("SKIPPED back end {backend}: {reason}");
}

/// How long anything that has to happen may take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// Asks until it is so; each asking runs a program, so that the processor is not kept from others.
#[expect(
    clippy::disallowed_methods,
    reason = "patience with other programs is counted in real time"
)]
pub(crate) fn wait_for(what: &str, is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + 3 * PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "waited in vain for {what}");
    }
}

/// A running `ftwall run` that has said it is ready.
pub(crate) struct Daemon {
    pub(crate) child: Child,
    pub(crate) ready: Value,
    events: BufReader<ChildStdout>,
}

impl Drop for Daemon {
    /// A test that failed leaves nobody behind.
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Daemon {
    /// Starts one and waits for its first line; nothing if this kernel cannot queue at all.
    pub(crate) fn start(arguments: &[&str]) -> Option<Daemon> {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ftwall"));
        command.arg("run").args(arguments);
        Daemon::start_as(command)
    }

    /// As [`start`](Self::start), by a command that comes to it.
    pub(crate) fn start_as(mut command: Command) -> Option<Daemon> {
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary was built for this test");
        let mut line = String::new();
        let mut events = BufReader::new(child.stdout.take().expect("it is piped"));
        events
            .read_line(&mut line)
            .expect("a daemon's output is text");
        if line.is_empty() {
            let output = child.wait_with_output().expect("it has ended");
            let message = words(&output.stderr);
            assert!(message.contains("cannot queue packets"), "{message}");
            skip_back_end("any", &message);
            return None;
        }
        let ready: Value = serde_json::from_str(&line).expect("one object per line");
        assert_eq!(ready["event_type"], "ready", "{line}");
        Some(Daemon {
            child,
            ready,
            events,
        })
    }

    pub(crate) fn end(mut self, signal: &str) -> ExitStatus {
        self.signal(signal);
        self.child.wait().expect("it was started here")
    }

    pub(crate) fn signal(&self, signal: &str) {
        let id = self.child.id().to_string();
        assert!(run("kill", &["-s", signal, &id]).status.success());
    }

    /// The next event of this type; those before it are passed over.
    pub(crate) fn wait_event(&mut self, event_type: &str) -> Value {
        let lines = self.events.by_ref().lines();
        let events = lines.map(|line| {
            let line = line.expect("a daemon's output is text");
            serde_json::from_str::<Value>(&line).expect("one object per line")
        });
        let mut wanted = events.filter(|event| event["event_type"] == event_type);
        wanted
            .next()
            .unwrap_or_else(|| panic!("the daemon ended without {event_type}"))
    }
}

pub(crate) fn ftwall(arguments: &[&str]) -> Output {
    run(env!("CARGO_BIN_EXE_ftwall"), arguments)
}

pub(crate) fn run(program: &str, arguments: &[&str]) -> Output {
    let output = Command::new(program).args(arguments).output();
    output.unwrap_or_else(|error| panic!("{program}: {error}"))
}

/// Hands `input` to a tool that must take it.
pub(crate) fn feed(program: &str, arguments: &[&str], input: &str) {
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{program}: {error}"));
    let mut stdin = child.stdin.take().expect("it is piped");
    stdin
        .write_all(input.as_bytes())
        .expect("the tool reads its input");
    drop(stdin);
    let output = child.wait_with_output().expect("it was started here");
    assert!(
        output.status.success(),
        "{program}: {}",
        words(&output.stderr)
    );
}

/// Every packet filter rule in this namespace, without counters and without signs of life, the elements that
/// come and go by themselves.
pub(crate) fn ruleset() -> String {
    let nft = run("nft", &["-s", "list", "ruleset"]);
    assert!(nft.status.success(), "{}", words(&nft.stderr));
    let nft = words(&nft.stdout);
    let lasting = nft.lines().filter(|line| !line.contains("elements = { 0x"));
    let legacy = run("iptables-legacy", &["-t", "mangle", "-S"]);
    let legacy = words(&legacy.stdout);
    // What an untouched table says; the table itself cannot be taken out of a kernel again.
    let rules = legacy.lines().filter(|line| !line.starts_with("-P "));
    lasting
        .chain(rules)
        .map(|rule| format!("{rule}\n"))
        .collect()
}

pub(crate) fn words(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
