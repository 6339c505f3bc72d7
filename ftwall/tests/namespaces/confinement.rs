//! What holds the threads that read packets, as the kernel shows it while they work.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use super::harness::{Daemon, in_namespaces, run, skip, wait_for, words};
use super::limits::{call_of, is_installed};
use super::network::{at, build_network, fetch_page, ip, udp};
use super::operations::{CONFIG, is_locked_in_kernel, json, ping, said, write};

const PROGRAM: &str = env!("CARGO_BIN_EXE_ftwall");
/// Datagrams at once: more than a worker takes in one round.
const BURST: usize = 2_000;
/// CAP_NET_ADMIN, as the kernel writes it.
const NET_ADMIN: &str = "0000000000001000";

#[test]
fn workers_do_all_their_work_confined_and_their_successors_too() {
    let name = "confinement::workers_do_all_their_work_confined_and_their_successors_too";
    in_namespaces(name, || {
        for reader in ["netlink", "nfq"] {
            let mut daemon = Command::new(PROGRAM);
            daemon.args(["run", "--config", CONFIG]);
            if !live(reader, daemon) {
                return;
            }
            remove_nodes();
        }
    });
}

#[test]
fn nothing_that_a_worker_asks_of_the_kernel_in_its_life_is_refused() {
    let name = "confinement::nothing_that_a_worker_asks_of_the_kernel_in_its_life_is_refused";
    if !is_installed("strace") {
        return skip(name, "strace is not installed");
    }
    in_namespaces(name, || {
        for reader in ["netlink", "nfq"] {
            let trace = format!("/run/calls-{reader}");
            // The tracer is nobody's child, so that signals reach the daemon itself.
            let mut traced = Command::new("strace");
            traced.args(["-D", "-f", "-Y", "-e", "signal=none", "-o", &trace]);
            traced.args([PROGRAM, "run", "--config", CONFIG]);
            if !live(reader, traced) {
                return;
            }
            wait_for("the tracer to write everything", || {
                words(&run("tail", &["-n", "1", &trace]).stdout).contains("+++ exited with 0 +++")
            });
            let trace = fs::read_to_string(trace).expect("it was written");
            assert_nothing_refused(reader, &trace);
            remove_nodes();
        }
    });
}

fn assert_nothing_refused(reader: &str, trace: &str) {
    let is_confined = |line: &&str| line.contains("<worker-") || line.contains("<kernel-sets>");
    let lines: Vec<&str> = trace.lines().filter(is_confined).collect();
    let made: BTreeSet<&str> = lines.iter().filter_map(|line| call_of(line)).collect();
    for expected in ["seccomp", "recvfrom", "sendto", "futex", "ioctl", "exit"] {
        assert!(
            made.contains(expected),
            "{reader}: no {expected} in {made:?}"
        );
    }
    let refused = lines.iter().filter(|line| line.contains("= -1 EPERM"));
    let refused: BTreeSet<&str> = refused.filter_map(|line| call_of(line)).collect();
    // The rules drop each sign of life, and say so to its sender.
    assert_eq!(refused, BTreeSet::from(["sendto"]), "{reader}");
    println!("{reader}: {} calls of {made:?}", lines.len());
}

/// Packets, answers in a peer's name, changes of sets, more packets than one round takes, another
/// configuration, another daemon in the same place, the end. False if this kernel cannot queue.
fn live(reader: &str, command: Command) -> bool {
    build_network();
    configure(reader, "5m");
    let Some(mut daemon) = at("gw", || Daemon::start_as(command)) else {
        return false;
    };
    let client = udp("client", "10.77.1.1:2301");
    let is_answered = || {
        ping(&client);
        let (_, from) = client.recv_from(&mut [0; 64]).expect("ftwall answers");
        assert_eq!(from.to_string(), "198.18.0.9:1214");
    };
    is_answered();
    daemon.wait_event("client.locked");
    wait_for("the kernel to know the lock", || {
        is_locked_in_kernel("10.77.1.1")
    });
    assert_confined(&daemon);
    assert!(fetch_page().ends_with("ok"), "the web passes");

    (0..BURST).for_each(|_| ping(&client));
    configure(reader, "1h");
    daemon.signal("HUP");
    wait_for("the new lock time", || {
        ping(&client);
        json(&["clients"])[0]["left_seconds"].as_u64() > Some(3_000)
    });
    let counted = &json(&["status"])["counted"];
    assert!(counted["packets"].as_u64() > Some(100), "{counted}");
    assert_eq!(
        counted["queue_errors"].get("not_permitted"),
        None,
        "{counted}"
    );
    assert_eq!(counted["set_writes_failed"], 0, "{counted}");

    if reader == "netlink" {
        daemon.signal("USR2");
        daemon.wait_event("ready");
        // The burst has left answers behind that were not taken.
        client.set_nonblocking(true).expect("it is open");
        while client.recv_from(&mut [0; 64]).is_ok() {}
        client.set_nonblocking(false).expect("it is open");
        is_answered();
        assert!(said(&["clients"], 0).contains("10.77.1.1"));
        assert_confined(&daemon);
        assert!(fetch_page().ends_with("ok"), "the web passes");
    }
    assert_eq!(daemon.end("TERM").code(), Some(0));
    true
}

/// With an entry by interface, so that workers ask for the names of interfaces.
fn configure(reader: &str, lock_time: &str) {
    write(&format!(
        "inside = [\"10.77.0.0/16\"]\nqueue_reader = \"{reader}\"\nlock_time = \"{lock_time}\"\n\
         [[policy]]\nname = \"guests\"\nmatch = {{ interface = \"guest0\" }}\nmode = \"monitor\"\n"
    ));
}

/// Those that read packets and write sets have given everything up, the one that starts others nothing.
fn assert_confined(daemon: &Daemon) {
    let fields = ["NoNewPrivs", "Seccomp", "CapPrm", "CapEff", "CapInh"];
    let process = format!("/proc/{}", daemon.child.id());
    let own = fs::read_to_string("/proc/self/status").expect("we run");
    let main = fs::read_to_string(format!("{process}/status")).expect("it runs");
    for field in fields {
        assert_eq!(value(&main, field), value(&own, field), "{field}");
    }
    let mut names = BTreeSet::new();
    for task in fs::read_dir(format!("{process}/task")).expect("it runs") {
        let task = task.expect("it runs").path();
        let name = fs::read_to_string(task.join("comm")).expect("it runs");
        let status = fs::read_to_string(task.join("status")).expect("it runs");
        if name.starts_with("worker-") || name == "kernel-sets\n" {
            let held = fields.map(|field| value(&status, field));
            let nothing = "0000000000000000";
            assert_eq!(held, ["1", "2", NET_ADMIN, NET_ADMIN, nothing], "{name}");
            names.insert(name);
        }
    }
    let expected = ["kernel-sets\n", "worker-0\n"].map(str::to_owned);
    assert!(names.is_superset(&expected.into()), "{names:?}");
}

fn value<'a>(status: &'a str, field: &str) -> &'a str {
    let mut lines = status.lines().filter_map(|line| line.split_once(":\t"));
    let found = lines.find(|(name, _)| *name == field);
    found.expect("the kernel has it").1
}

fn remove_nodes() {
    for node in ["client", "gw", "out"] {
        ip(&["netns", "delete", node]);
    }
}
