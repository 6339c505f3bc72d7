//! The limits of the unit, tried for real: its system calls, its capabilities, another user.

use std::collections::BTreeSet;
#[cfg(feature = "webhook")]
use std::net::{SocketAddrV4, TcpListener};
use std::os::unix::fs::chown;
use std::process::Command;

use seccompiler::{BpfProgram, TargetArch, apply_filter, compile_from_json};
use serde_json::json;

use super::GIFT_PING;
use super::harness::{
    Daemon, ftwall, in_namespaces, in_namespaces_of_root, run, skip, wait_for, words,
};
#[cfg(feature = "http")]
use super::monitoring::get;
use super::network::{at, build_network, dial, udp};
#[cfg(feature = "webhook")]
use super::webhook::{HOOK, answer, posted};

const UNIT: &str = include_str!("../../../packaging/systemd/ftwall.service");
const PROGRAM: &str = env!("CARGO_BIN_EXE_ftwall");
const CONFIG: &str = "/run/ftwall/etc/ftwall.toml";
const METRICS: &str = "127.0.0.1:9477";
const SECRET: &str = "/run/ftwall/etc/webhook.secret";
#[cfg(feature = "webhook")]
const RESOLVERS: &str = "/run/resolv.conf";
#[cfg(feature = "webhook")]
const NAME_SERVER: &str = "203.0.113.53";
/// Any that owns nothing.
const USER: u32 = 61234;

#[test]
fn every_system_call_of_a_daemons_life_is_in_the_units_filter() {
    let name = "limits::every_system_call_of_a_daemons_life_is_in_the_units_filter";
    for program in ["strace", "systemd-analyze"] {
        if !is_installed(program) {
            return skip(name, &format!("{program} is not installed"));
        }
    }
    in_namespaces(name, || {
        // The tracer is nobody's child, so that signals reach the daemon itself.
        let mut traced = Command::new("strace");
        traced.args(["-D", "-f", "-e", "signal=none", "-o", "/run/calls", PROGRAM]);
        traced.args(["run", "--config", CONFIG]);
        if !live(traced) {
            return;
        }
        wait_for("the tracer to write everything", || {
            words(&run("tail", &["-n", "1", "/run/calls"]).stdout).contains("+++ exited with 0 +++")
        });
        let trace = std::fs::read_to_string("/run/calls").expect("it was written");
        let made: BTreeSet<&str> = trace.lines().filter_map(call_of).collect();
        for expected in ["execve", "sendto", "poll", "eventfd2", "clone3", "wait4"] {
            assert!(made.contains(expected), "no {expected} in {made:?}");
        }
        let allowed = allowed_calls();
        let refused: Vec<_> = made.iter().filter(|it| !allowed.contains(**it)).collect();
        assert_eq!(refused, [&""; 0], "the unit's filter lacks them");
        println!("{} system calls, all allowed: {made:?}", made.len());
        let opened: BTreeSet<&str> = trace.lines().filter_map(family_of).collect();
        assert!(opened.contains("AF_NETLINK"), "{opened:?}");
        let families: Vec<_> = settings("RestrictAddressFamilies")
            .flat_map(str::split_whitespace)
            .collect();
        let refused: Vec<_> = opened.iter().filter(|it| !families.contains(it)).collect();
        assert_eq!(refused, [&""; 0], "the unit's address families lack them");
    });
}

#[test]
fn a_daemon_lives_under_the_units_filter_of_system_calls() {
    let name = "limits::a_daemon_lives_under_the_units_filter_of_system_calls";
    if !is_installed("systemd-analyze") {
        return skip(name, "systemd-analyze is not installed");
    }
    in_namespaces(name, || {
        let filter = filter(&allowed_calls());
        let mut confined = Command::new(PROGRAM);
        confined.args(["run", "--config", CONFIG]);
        live_after(confined, move || {
            apply_filter(&filter).expect("the kernel takes filters");
            let refused = run("mount", &["-t", "tmpfs", "tmpfs", "/mnt"]);
            let message = words(&refused.stderr);
            assert!(
                message.contains("permission denied"),
                "no filter is in force: {message}"
            );
        });
    });
}

#[test]
fn a_daemon_lives_as_another_user_with_the_units_capabilities_alone() {
    let name = "limits::a_daemon_lives_as_another_user_with_the_units_capabilities_alone";
    if !is_installed("setpriv") {
        return skip(name, "setpriv is not installed");
    }
    in_namespaces_of_root(name, || {
        let mut confined = as_the_units_user();
        confined.args([PROGRAM, "run", "--config", CONFIG]);
        live(confined);
    });
}

/// What somebody would try who has taken a daemon over: what for, how, and whether the unit's user and its
/// filter of system calls each stand in the way.
const ATTEMPTS: &[(&str, &str, [bool; 2])] = &[
    (
        "another file system",
        "mount -t tmpfs tmpfs /mnt",
        [true, true],
    ),
    ("another root", "chroot / true", [true, true]),
    ("namespaces of its own", "unshare -m true", [true, true]),
    (
        "a device",
        "mknod /run/attempt c 1 3 && rm /run/attempt",
        [true, false],
    ),
    (
        "root again",
        "setpriv --reuid 0 --regid 0 --clear-groups true",
        [true, true],
    ),
    ("passwords", "head -c 1 /etc/shadow", [true, false]),
    (
        "a program for others",
        "touch /usr/bin/attempt && rm /usr/bin/attempt",
        [true, false],
    ),
    ("somebody else's process", "kill -0 $PPID", [true, false]),
];

#[test]
fn whoever_takes_a_daemon_over_gets_no_further_and_verdicts_go_on() {
    let name = "limits::whoever_takes_a_daemon_over_gets_no_further_and_verdicts_go_on";
    for program in ["setpriv", "systemd-analyze"] {
        if !is_installed(program) {
            return skip(name, &format!("{program} is not installed"));
        }
    }
    in_namespaces_of_root(name, || {
        build_network();
        make_places();
        let mut daemon = as_the_units_user();
        daemon.args([PROGRAM, "run", "--config", CONFIG]);
        let Some(mut daemon) = at("gw", || Daemon::start_as(daemon)) else {
            return;
        };
        let attempt = |mut limits: Command, how: &str| {
            let tried = limits.args(["sh", "-c", how]).output();
            tried.expect("it is installed").status.success()
        };
        let filter = filter(&allowed_calls());
        let filtered = |how: &'static str| {
            let filter = &filter;
            std::thread::scope(|scope| {
                let tried = scope.spawn(move || {
                    apply_filter(filter).expect("the kernel takes filters");
                    attempt(Command::new("env"), how)
                });
                tried.join().expect("it was tried")
            })
        };
        assert!(
            attempt(as_the_units_user(), "true"),
            "ordinary work goes on"
        );
        assert!(filtered("true"), "ordinary work goes on");
        for &(what, how, [user, calls]) in ATTEMPTS {
            assert!(
                attempt(Command::new("env"), how),
                "{what}: not even root gets it"
            );
            assert_eq!(attempt(as_the_units_user(), how), !user, "{what}: the user");
            assert_eq!(filtered(how), !calls, "{what}: the filter");
        }
        let client = udp("client", "10.77.1.1:2301");
        client
            .send_to(GIFT_PING, "198.18.0.9:1214")
            .expect("the network is up");
        daemon.wait_event("client.locked");
        assert_eq!(daemon.end("TERM").code(), Some(0));
    });
}

/// What runs a command as the unit's user, with the unit's capabilities alone.
fn as_the_units_user() -> Command {
    let ambient = capabilities("AmbientCapabilities");
    let bounding = capabilities("CapabilityBoundingSet");
    let user = USER.to_string();
    let mut command = Command::new("setpriv");
    command.args(["--reuid", &user, "--regid", &user, "--clear-groups"]);
    command.args([
        "--no-new-privs",
        "--bounding-set",
        &format!("-all,{bounding}"),
    ]);
    command.args([
        "--inh-caps",
        &format!("-all,{ambient}"),
        "--ambient-caps",
        &ambient,
    ]);
    command.env("XTABLES_LOCKFILE", "/run/ftwall/xtables.lock");
    command
}

/// Everything that happens to a daemon: start, lock, questions, changes, reload, rules that go, succession,
/// end. False if this kernel cannot queue.
fn live(command: Command) -> bool {
    live_after(command, || {})
}

/// As [`live`], with something done before by the thread that starts it.
fn live_after(command: Command, prepare: impl FnOnce() + Send) -> bool {
    build_network();
    make_places();
    #[cfg(feature = "webhook")]
    let receiver = named_receiver();
    let start = || {
        prepare();
        Daemon::start_as(command)
    };
    let Some(mut daemon) = at("gw", start) else {
        return false;
    };
    let client = udp("client", "10.77.1.1:2301");
    client
        .send_to(GIFT_PING, "198.18.0.9:1214")
        .expect("the network is up");
    daemon.wait_event("client.locked");
    #[cfg(feature = "webhook")]
    assert_told(&receiver);
    for question in [
        &["status"][..],
        &["clients"],
        &["peers"],
        &["explain", "10.77.1.1"],
        &["block", "10.77.3.3", "--for", "1h"],
        &["unblock", "10.77.3.3", "--for", "1s"],
        &["mode", "monitor", "--subnet", "10.77.5.0/24", "--for", "1h"],
        &["log-reopen"],
        &["reload"],
    ] {
        said(question);
    }
    #[cfg(feature = "http")]
    assert!(at("gw", || get(METRICS, "/metrics", "")).contains("ftwall_rules_present"));
    assert!(
        at("gw", || run("nft", &["delete", "table", "inet", "ftwall"]))
            .status
            .success()
    );
    daemon.wait_event("rules.restored");
    assert!(
        dial("198.18.0.9:5222").is_err(),
        "a locked host gets no connection"
    );
    daemon.signal("USR2");
    daemon.wait_event("ready");
    assert!(said(&["clients"]).contains("10.77.1.1"));
    assert_eq!(daemon.end("TERM").code(), Some(0));
    true
}

/// What systemd makes for the unit: directories of the daemon's own.
fn make_places() {
    for directory in ["/run/ftwall/etc", "/run/ftwall/state"] {
        std::fs::create_dir_all(directory).expect("the disk is ours");
    }
    let configuration = format!(
        "inside = [\"10.77.0.0/16\"]\ncontrol_socket = \"/run/ftwall/control.sock\"\n\
         state_directory = \"/run/ftwall/state\"\nhttp_listen = \"{}\"\nwebhook = \"{}\"\n\
         webhook_secret_file = \"{SECRET}\"\nwebhook_window = \"0s\"\n",
        if cfg!(feature = "http") {
            METRICS
        } else {
            "off"
        },
        if cfg!(feature = "webhook") {
            "http://receiver.example:8080/hook"
        } else {
            "off"
        }
    );
    std::fs::write(SECRET, "Jefe").expect("the disk is ours");
    std::fs::write(CONFIG, configuration).expect("the disk is ours");
    for place in ["/run/ftwall", "/run/ftwall/etc", "/run/ftwall/state"] {
        // Nobody else is known where only root is.
        let _ = chown(place, Some(USER), Some(USER));
    }
}

/// Somebody outside who hears of locked clients, and whom only a name server knows.
#[cfg(feature = "webhook")]
fn named_receiver() -> TcpListener {
    std::fs::write(RESOLVERS, format!("nameserver {NAME_SERVER}\n")).expect("the disk is ours");
    let bound = run("mount", &["--bind", RESOLVERS, "/etc/resolv.conf"]);
    assert!(bound.status.success(), "{}", words(&bound.stderr));
    let server = udp("out", &format!("{NAME_SERVER}:53"));
    std::thread::spawn(move || {
        let mut query = [0; 512];
        while let Ok((len, from)) = server.recv_from(&mut query) {
            server
                .send_to(&named(&query[..len]), from)
                .expect("the network is up");
        }
    });
    at("out", || TcpListener::bind(HOOK)).expect("the port is free")
}

/// The answer to a question for addresses of four octets (RFC 1035, section 4.1); to others, that there is
/// none.
#[cfg(feature = "webhook")]
fn named(query: &[u8]) -> Vec<u8> {
    let name = query[12..].iter().position(|octet| *octet == 0);
    let end = 12 + name.expect("a name ends") + 5;
    let is_a = query[end - 4..end] == [0, 1, 0, 1];
    let mut answer = query[..2].to_vec();
    // An answer, recursive, to one question; nothing about authorities and nothing more.
    answer.extend([0x81, 0x80, 0, 1, 0, u8::from(is_a), 0, 0, 0, 0]);
    answer.extend(&query[12..end]);
    if is_a {
        // The same name; type A, class IN, for a minute, four octets.
        answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
        let host: SocketAddrV4 = HOOK.parse().expect("a literal");
        answer.extend(host.ip().octets());
    }
    answer
}

#[cfg(feature = "webhook")]
fn assert_told(receiver: &TcpListener) {
    let (stream, _) = receiver.accept().expect("the daemon comes");
    let (head, body) = posted(&stream);
    let head = head.to_ascii_lowercase();
    assert!(head.contains("host: receiver.example"), "{head}");
    assert!(head.contains("x-ftwall-signature-256: "), "{head}");
    assert_eq!(body["events"][0]["event_type"], "client.locked");
    answer(&stream);
}

fn said(arguments: &[&str]) -> String {
    let output = ftwall(arguments);
    let message = words(&output.stdout) + &words(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{arguments:?}: {message}");
    message
}

/// The values of a setting of the unit, in their order.
fn settings(name: &str) -> impl Iterator<Item = &'static str> {
    let lines = UNIT.lines().filter_map(move |line| line.strip_prefix(name));
    lines.filter_map(|rest| rest.strip_prefix('='))
}

/// As setpriv writes them.
fn capabilities(name: &str) -> String {
    let names = settings(name).flat_map(str::split_whitespace);
    let names = names.map(|name| name.replace("CAP_", "+").to_lowercase());
    names.collect::<Vec<_>>().join(",")
}

/// What is left of the unit's filter, one line after the other.
fn allowed_calls() -> BTreeSet<String> {
    // systemd adds this itself to every list of what is allowed.
    let mut allowed = expand("@default");
    for value in settings("SystemCallFilter") {
        let (is_refusal, names) = match value.strip_prefix('~') {
            Some(names) => (true, names),
            None => (false, value),
        };
        for name in names.split_whitespace().flat_map(expand) {
            if is_refusal {
                allowed.remove(&name);
            } else {
                allowed.insert(name);
            }
        }
    }
    allowed
}

/// The calls of a group, those of groups in it too; a call itself is its own group.
fn expand(name: &str) -> BTreeSet<String> {
    if !name.starts_with('@') {
        return BTreeSet::from([name.to_owned()]);
    }
    let listed = run("systemd-analyze", &["syscall-filter", name]);
    assert!(listed.status.success(), "{name}: {}", words(&listed.stderr));
    let listed = words(&listed.stdout);
    let members = listed.lines().skip(1).map(str::trim);
    members
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .flat_map(expand)
        .collect()
}

/// The call that a line of strace's is about; nothing if it is about something else.
pub(crate) fn call_of(line: &str) -> Option<&str> {
    let (_, rest) = line.split_once(' ')?;
    let rest = rest.trim_start();
    let rest = rest.strip_prefix("<... ").unwrap_or(rest);
    let end = rest.find(|it: char| !it.is_ascii_alphanumeric() && it != '_')?;
    Some(&rest[..end]).filter(|name| !name.is_empty())
}

/// The family of the socket that a line of strace's is about; nothing if it is about something else.
fn family_of(line: &str) -> Option<&str> {
    let (_, rest) = line.split_once(" socket(")?;
    rest.split([',', ')']).next()
}

/// As systemd makes it of `SystemCallErrorNumber=EPERM`.
fn filter(allowed: &BTreeSet<String>) -> BpfProgram {
    // systemd knows calls that other architectures and newer kernels have.
    let known = allowed.iter().filter(|name| compile(&[name]).is_some());
    let known: Vec<_> = known.map(String::as_str).collect();
    assert!(known.len() > 200, "{known:?}");
    compile(&known).expect("each of them compiled")
}

fn compile(names: &[&str]) -> Option<BpfProgram> {
    const EPERM: u32 = 1;
    let rules: Vec<_> = names
        .iter()
        .map(|name| json!({ "syscall": name }))
        .collect();
    let filters = json!({ "daemon": {
        "mismatch_action": { "errno": EPERM },
        "match_action": "allow",
        "filter": rules,
    }});
    let architecture = TargetArch::try_from(std::env::consts::ARCH).expect("it has seccomp");
    let mut compiled = compile_from_json(filters.to_string().as_bytes(), architecture).ok()?;
    compiled.remove("daemon")
}

pub(crate) fn is_installed(program: &str) -> bool {
    run("sh", &["-c", &format!("command -v {program}")])
        .status
        .success()
}
