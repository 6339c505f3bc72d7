//! The shell against a real kernel: every test runs itself again in user, network and mount namespaces
//! of its own, so that no rule of the machine it runs on is ever touched.

use std::fs::File;
use std::io::{BufRead as _, BufReader, ErrorKind, Read as _, Write as _};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::process::{Child, ChildStdout, Command, ExitStatus, Output, Stdio};
use std::time::Duration;

use nix::sched::{CloneFlags, setns};
use serde_json::Value;

/// Set for the copy of a test that runs inside.
const INSIDE: &str = "FTWALL_TEST_INSIDE";

/// Runs `body` in fresh namespaces, as the test called `name`.
fn in_namespaces(name: &str, body: fn()) {
    if std::env::var_os(INSIDE).is_some() {
        // iptables-legacy wants to lock a file there.
        assert!(
            run("mount", &["-t", "tmpfs", "tmpfs", "/run"])
                .status
                .success()
        );
        return body();
    }
    let probe = run("unshare", &["-Urnm", "true"]);
    if !probe.status.success() {
        return skip(
            name,
            &format!("no user namespaces here: {}", words(&probe.stderr)),
        );
    }
    let test = std::env::current_exe().expect("a test has a path");
    let inside = Command::new("unshare")
        .args(["-Urnm", "--fork", "--kill-child"])
        .arg(test)
        .args(["--exact", name, "--nocapture"])
        .env(INSIDE, "1")
        .status()
        .expect("unshare has just been run");
    assert!(inside.success(), "{name} failed inside its namespaces");
}

/// Says loudly what was not tested; where everything has to be, fails.
fn skip(name: &str, reason: &str) {
    assert!(
        std::env::var_os("LAB_REQUIRE").is_none(),
        "{name} has to run: {reason}"
    );
    eprintln!("SKIPPED {name}: {reason}");
}

#[test]
fn rules_of_native_nft_leave_the_ruleset_as_it_was() {
    in_namespaces("rules_of_native_nft_leave_the_ruleset_as_it_was", || {
        assert_leaves_nothing("nft");
    });
}

#[test]
fn rules_of_iptables_nft_leave_the_ruleset_as_it_was() {
    in_namespaces("rules_of_iptables_nft_leave_the_ruleset_as_it_was", || {
        assert_leaves_nothing("iptables-nft");
    });
}

#[test]
fn rules_of_iptables_legacy_leave_the_ruleset_as_it_was() {
    in_namespaces(
        "rules_of_iptables_legacy_leave_the_ruleset_as_it_was",
        || {
            assert_leaves_nothing("iptables-legacy");
        },
    );
}

/// Twice each: on an empty machine, and beside rules of an administrator's in the same places.
fn assert_leaves_nothing(backend: &str) {
    let tried = ftwall(&["rules", "apply", "--backend", backend]);
    let message = words(&tried.stderr);
    if message.contains("cannot queue packets") {
        return skip_back_end(backend, &message);
    }
    assert!(tried.status.success(), "{message}");
    assert!(ftwall(&["rules", "remove"]).status.success());
    for round in ["first", "second"] {
        assert_unchanged_by_rules(backend, round);
    }
    let administrator = match backend {
        "iptables-legacy" => "iptables-legacy-restore",
        _ => "iptables-nft-restore",
    };
    feed(
        administrator,
        &["--noflush"],
        "*mangle\n-A FORWARD -p tcp -j ACCEPT\nCOMMIT\n",
    );
    feed(
        "nft",
        &["-f", "-"],
        "table inet office {\nchain forward {\ntype filter hook forward priority 0\n}\n}\n",
    );
    for round in [
        "first, with an administrator",
        "second, with an administrator",
    ] {
        assert_unchanged_by_rules(backend, round);
    }
}

/// This machine's kernel decides which back ends exist; only a lane that has all of them may insist.
fn skip_back_end(backend: &str, reason: &str) {
    assert!(
        std::env::var_os("LAB_REQUIRE_BACKENDS").is_none(),
        "{backend}: {reason}"
    );
    eprintln!("SKIPPED back end {backend}: {reason}");
}

fn assert_unchanged_by_rules(backend: &str, round: &str) {
    let before = ruleset();
    for _ in 0..2 {
        let applied = ftwall(&["rules", "apply", "--backend", backend]);
        assert!(
            applied.status.success(),
            "{round}: {}",
            words(&applied.stderr)
        );
    }
    assert!(ruleset().contains("table inet ftwall"), "{round}");
    let once = ruleset();
    assert!(
        ftwall(&["rules", "apply", "--backend", backend])
            .status
            .success(),
        "{round}"
    );
    assert_eq!(ruleset(), once, "{round}: applying again changes something");
    assert!(ftwall(&["rules", "remove"]).status.success(), "{round}");
    assert_eq!(ruleset(), before, "{round}: something was left or taken");
    assert!(
        ftwall(&["rules", "remove"]).status.success(),
        "{round}: nothing is left to remove"
    );
}

#[test]
fn another_back_end_takes_over_without_leaving_rules_of_the_first() {
    in_namespaces(
        "another_back_end_takes_over_without_leaving_rules_of_the_first",
        || {
            let before = ruleset();
            for backend in ["iptables-nft", "iptables-legacy", "iptables-nft"] {
                let applied = ftwall(&["rules", "apply", "--backend", backend]);
                let message = words(&applied.stderr);
                if message.contains("cannot queue packets") {
                    return skip_back_end(backend, &message);
                }
                assert!(applied.status.success(), "{message}");
                let jumps = ruleset().matches("FTWALL").count();
                let legacy = words(&run("iptables-legacy", &["-t", "mangle", "-S"]).stdout);
                assert_eq!(
                    legacy.contains("FTWALL"),
                    backend == "iptables-legacy",
                    "{legacy}"
                );
                assert!(jumps > 0);
            }
            assert!(ftwall(&["rules", "remove"]).status.success());
            assert_eq!(ruleset(), before);
        },
    );
}

#[test]
fn the_kernel_accepts_what_rules_print_shows() {
    in_namespaces("the_kernel_accepts_what_rules_print_shows", || {
        for extra in [
            &[][..],
            &[
                "--strictness",
                "strict",
                "--block-inbound",
                "--open-port",
                "tcp/443",
            ],
        ] {
            let arguments = [&["rules", "print", "--backend", "iptables-nft"], extra].concat();
            let printed = words(&ftwall(&arguments).stdout);
            let (nft, xt) = printed
                .split_once("\n# iptables-nft-restore --noflush\n")
                .expect("two parts");
            let json = nft.strip_prefix("# nft -j -f -\n").expect("a heading");
            feed("nft", &["-c", "-j", "-f", "-"], json);
            feed("iptables-nft-restore", &["--test", "--noflush"], xt);
        }
        // Of the native back end everything but the statement that this kernel may lack.
        let native = words(&ftwall(&["rules", "print", "--backend", "nft"]).stdout);
        let lines = native
            .lines()
            .filter(|line| !line.starts_with('#') && !line.contains(r#""queue":{"#));
        let native: Vec<&str> = lines.collect();
        feed("nft", &["-c", "-j", "-f", "-"], &native.join("\n"));
        assert_eq!(ruleset(), "");
    });
}

#[test]
fn examining_the_machine_leaves_no_trace() {
    in_namespaces("examining_the_machine_leaves_no_trace", || {
        let report = ftwall(&["doctor", "-o", "json"]);
        let code = report.status.code();
        assert!(
            matches!(code, Some(0 | 4)),
            "{code:?}: {}",
            words(&report.stdout)
        );
        let report: Value = serde_json::from_slice(&report.stdout).expect("one object");
        let checks = report["checks"].as_array().expect("a list of checks");
        assert!(checks.len() > 10, "{report}");
        assert!(
            checks.iter().all(|check| check["state"] != "no_privilege"),
            "{report}"
        );
        assert_eq!(ruleset(), "");
    });
}

#[test]
fn a_daemon_asked_to_end_leaves_no_rule() {
    in_namespaces("a_daemon_asked_to_end_leaves_no_rule", || {
        let before = ruleset();
        for signal in ["TERM", "INT"] {
            let Some(daemon) = Daemon::start(&[]) else {
                return;
            };
            assert_eq!(daemon.ready["queue"], 0);
            assert!(ruleset().contains("table inet ftwall"));
            assert_eq!(daemon.end(signal).code(), Some(0));
            assert_eq!(ruleset(), before, "after SIG{signal}");
        }
    });
}

#[test]
fn a_second_daemon_on_the_same_queue_is_told_so_and_harms_nothing() {
    in_namespaces(
        "a_second_daemon_on_the_same_queue_is_told_so_and_harms_nothing",
        || {
            let Some(first) = Daemon::start(&["--queue", "5"]) else {
                return;
            };
            let rules = ruleset();
            let second = ftwall(&["run", "--queue", "5"]);
            let message = words(&second.stderr);
            assert_eq!(second.status.code(), Some(1), "{message}");
            assert!(
                message.contains("queue 5 is bound by another program"),
                "{message}"
            );
            assert!(message.contains("--queue"), "{message}");
            assert_eq!(ruleset(), rules);
            assert_eq!(first.end("TERM").code(), Some(0));
        },
    );
}

#[test]
fn a_daemon_takes_over_the_rules_of_a_killed_one() {
    in_namespaces("a_daemon_takes_over_the_rules_of_a_killed_one", || {
        let before = ruleset();
        let Some(killed) = Daemon::start(&[]) else {
            return;
        };
        assert_eq!(killed.end("KILL").code(), None);
        feed(
            "nft",
            &["-f", "-"],
            "add element inet ftwall locked { 10.77.1.1 timeout 100s }",
        );
        let heir = Daemon::start(&[]).expect("the first one started");
        assert!(ruleset().contains("10.77.1.1"), "what was learned stays");
        assert!(!ruleset().contains("a daemon is starting"));
        assert_eq!(heir.end("TERM").code(), Some(0));
        assert_eq!(ruleset(), before);
    });
}

#[test]
fn a_start_that_fails_leaves_no_rule() {
    in_namespaces("a_start_that_fails_leaves_no_rule", || {
        let output = ftwall(&["run", "--events", "/no/such/directory/events"]);
        assert_eq!(output.status.code(), Some(78), "{}", words(&output.stderr));
        assert_eq!(ruleset(), "");
    });
}

#[test]
fn without_privilege_the_missing_capability_is_named() {
    let probe = run("unshare", &["-U", "true"]);
    if !probe.status.success() {
        return skip("without_privilege", &words(&probe.stderr));
    }
    for (arguments, capability) in [
        (&["run"][..], "CAP_NET_RAW"),
        (&["run", "--reply", "none", "--no-reprobe"], "CAP_NET_ADMIN"),
        (&["rules", "apply"], "CAP_NET_ADMIN"),
        (&["rules", "remove"], "CAP_NET_ADMIN"),
    ] {
        // A user namespace alone: no power over the network namespace the test runs in.
        let output = Command::new("unshare")
            .args(["-U", env!("CARGO_BIN_EXE_ftwall")])
            .args(arguments)
            .output()
            .expect("unshare has just been run");
        let message = words(&output.stderr);
        assert_eq!(output.status.code(), Some(77), "{arguments:?}: {message}");
        assert!(message.contains(capability), "{arguments:?}: {message}");
    }
}

#[test]
fn a_ping_is_dropped_answered_and_locks_while_the_web_passes() {
    in_namespaces(
        "a_ping_is_dropped_answered_and_locks_while_the_web_passes",
        || {
            build_network();
            let Some(mut daemon) = at("gw", || Daemon::start(&["--inside", "10.77.0.0/16"])) else {
                return;
            };
            assert_eq!(
                fetch_page(),
                "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
            );

            let (client, peer) = (udp("client", "10.77.1.1:2301"), udp("out", "0.0.0.0:1214"));
            client
                .send_to(GIFT_PING, "198.18.0.9:1214")
                .expect("the network is up");
            let mut answer = [0; 64];
            let (len, from) = client.recv_from(&mut answer).expect("ftwall answers");
            assert_eq!((answer[0], len), (0x28, 17));
            assert_eq!(from.to_string(), "198.18.0.9:1214");

            // The peer hears another datagram of the same client, so it would have heard the ping.
            client
                .send_to(b"not a ping", "198.18.0.8:1214")
                .expect("the network is up");
            let mut heard = [0; 64];
            let (len, _) = peer.recv_from(&mut heard).expect("other datagrams pass");
            assert_eq!(&heard[..len], b"not a ping");

            daemon.wait_event("client.locked");
            wait_for("the kernel to know the lock", || {
                at("gw", ruleset).contains("10.77.1.1 timeout")
            });
            let listener =
                at("out", || TcpListener::bind("0.0.0.0:2000")).expect("the port is free");
            let dialed = at("client", || dial("198.18.0.10:2000"));
            assert_eq!(
                dialed.expect_err("the dial is dropped").kind(),
                ErrorKind::TimedOut
            );
            drop(listener);
            assert_eq!(
                fetch_page(),
                "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
            );

            daemon.signal("TERM");
            let verdicts = daemon.wait_event("stats")["ftwall"]["verdicts"].clone();
            assert_eq!(verdicts["drop/ping"], 1, "{verdicts}");
            // Each page's flow, and again for a segment that was queued before the mark was kept.
            let cleared = verdicts["clear/http"].as_u64();
            assert!(cleared >= Some(2), "{verdicts}");
            assert!(daemon.child.wait().expect("it was started here").success());
            assert_eq!(at("gw", ruleset), "");
        },
    );
}

/// The ping of giFT, from its source: type, least encryption word, 0x80, network name.
const GIFT_PING: &[u8] = b"\x27\x00\x00\x00\x29\x80KaZaA\x00";

/// client (10.77.1.1) -- gw -- out, which owns 198.18.0.0/15 and 203.0.113.0/24.
fn build_network() {
    for node in ["client", "gw", "out"] {
        ip(&["netns", "add", node]);
        ip(&["-n", node, "link", "set", "lo", "up"]);
    }
    for (gateway_end, node, address, gateway) in [
        ("lan0", "client", "10.77.1.1/16", "10.77.0.1/16"),
        ("wan0", "out", "192.0.2.1/24", "192.0.2.2/24"),
    ] {
        let peer = ["type", "veth", "peer", "name", "eth0", "netns", node];
        ip(&[&["-n", "gw", "link", "add", gateway_end][..], &peer].concat());
        for (node, end, address) in [(node, "eth0", address), ("gw", gateway_end, gateway)] {
            ip(&["-n", node, "address", "add", address, "dev", end]);
            ip(&["-n", node, "link", "set", end, "up"]);
        }
    }
    ip(&[
        "-n",
        "client",
        "route",
        "add",
        "default",
        "via",
        "10.77.0.1",
    ]);
    ip(&[
        "-n",
        "out",
        "route",
        "add",
        "10.77.0.0/16",
        "via",
        "192.0.2.2",
    ]);
    ip(&["-n", "gw", "route", "add", "default", "via", "192.0.2.1"]);
    for net in ["198.18.0.0/15", "203.0.113.0/24"] {
        ip(&["-n", "out", "route", "add", "local", net, "dev", "lo"]);
    }
    at("gw", || {
        std::fs::write("/proc/sys/net/ipv4/ip_forward", "1")
    })
    .expect("it is our namespace");
}

fn ip(arguments: &[&str]) {
    let output = run("ip", arguments);
    assert!(
        output.status.success(),
        "ip {arguments:?}: {}",
        words(&output.stderr)
    );
}

/// Does `work` at a node; sockets opened and processes started there stay there.
fn at<T: Send>(node: &str, work: impl FnOnce() -> T + Send) -> T {
    let namespace = File::open(format!("/run/netns/{node}")).expect("the node was built");
    std::thread::scope(|scope| {
        let worker = scope.spawn(move || {
            setns(namespace, CloneFlags::CLONE_NEWNET).expect("the namespaces are ours");
            work()
        });
        worker
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

fn udp(node: &str, address: &str) -> UdpSocket {
    let socket = at(node, || UdpSocket::bind(address)).expect("the port is free");
    socket
        .set_read_timeout(Some(PATIENCE))
        .expect("it is not zero");
    socket
}

fn dial(address: &str) -> std::io::Result<TcpStream> {
    let address = address.parse().expect("a literal");
    TcpStream::connect_timeout(&address, Duration::from_millis(500))
}

/// A page of a web server outside, as the client gets it.
fn fetch_page() -> String {
    let listener = at("out", || TcpListener::bind("203.0.113.5:80")).expect("the port is free");
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("the client comes");
        let mut request = [0; 512];
        let len = stream.read(&mut request).expect("the client asks");
        assert!(request[..len].ends_with(b"\r\n\r\n"));
        stream
            .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
            .expect("it listens");
    });
    let mut stream = at("client", || dial("203.0.113.5:80")).expect("the web is there");
    stream
        .write_all(b"GET / HTTP/1.1\r\nHost: example.org\r\n\r\n")
        .expect("it listens");
    let mut page = String::new();
    stream.read_to_string(&mut page).expect("the page is text");
    server.join().expect("the server has no reason to fail");
    page
}

/// How long anything that has to happen may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Asks until it is so; each asking runs a program, which takes long enough.
fn wait_for(what: &str, is_so: impl Fn() -> bool) {
    let asked = (0..500).any(|_| is_so());
    assert!(asked, "waited in vain for {what}");
}

/// A running `ftwall run` that has said it is ready.
struct Daemon {
    child: Child,
    ready: Value,
    events: BufReader<ChildStdout>,
}

impl Daemon {
    /// Starts one and waits for its first line; nothing if this kernel cannot queue at all.
    fn start(arguments: &[&str]) -> Option<Daemon> {
        let mut child = Command::new(env!("CARGO_BIN_EXE_ftwall"))
            .arg("run")
            .args(arguments)
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

    fn end(mut self, signal: &str) -> ExitStatus {
        self.signal(signal);
        self.child.wait().expect("it was started here")
    }

    fn signal(&self, signal: &str) {
        let id = self.child.id().to_string();
        assert!(run("kill", &["-s", signal, &id]).status.success());
    }

    /// The next event of this type; those before it are passed over.
    fn wait_event(&mut self, event_type: &str) -> Value {
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

fn ftwall(arguments: &[&str]) -> Output {
    run(env!("CARGO_BIN_EXE_ftwall"), arguments)
}

fn run(program: &str, arguments: &[&str]) -> Output {
    let output = Command::new(program).args(arguments).output();
    output.unwrap_or_else(|error| panic!("{program}: {error}"))
}

/// Hands `input` to a tool that must take it.
fn feed(program: &str, arguments: &[&str], input: &str) {
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

/// Every packet filter rule in this namespace, without counters.
fn ruleset() -> String {
    let nft = run("nft", &["-s", "list", "ruleset"]);
    assert!(nft.status.success(), "{}", words(&nft.stderr));
    let legacy = run("iptables-legacy", &["-t", "mangle", "-S"]);
    let legacy = words(&legacy.stdout);
    // What an untouched table says; the table itself cannot be taken out of a kernel again.
    let rules = legacy.lines().filter(|line| !line.starts_with("-P "));
    words(&nft.stdout) + &rules.map(|rule| format!("{rule}\n")).collect::<String>()
}

fn words(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
