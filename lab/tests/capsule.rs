//! What a capsule keeps in, and that nothing is left of it.

use std::{
    fs,
    io::{BufRead, BufReader},
    os::fd::OwnedFd,
    process::{Child, Command, Stdio},
    time::Duration,
};

use lab::{
    capsule::{self, Capsule, Privilege, in_capsule},
    requirements,
};
use rustix::{
    event::{PollFd, PollFlags, poll},
    process::{Pid, PidfdFlags, pidfd_open},
    time::Timespec,
};

#[test]
fn a_capsule_has_processes_links_and_directories_of_its_own() {
    in_capsule(
        "a_capsule_has_processes_links_and_directories_of_its_own",
        || {
            assert!(capsule::is_inside());
            assert_eq!(
                std::process::id(),
                2,
                "init is 1, this test the first process after it"
            );
            assert_eq!(rustix::process::getuid().as_raw(), 0);
            let links = fs::read_to_string("/proc/net/dev").expect("a fresh /proc");
            assert_eq!(
                links.lines().skip(2).count(),
                1,
                "the loopback only:\n{links}"
            );
            let private: Vec<_> = fs::read_dir("/run").expect("readable").flatten().collect();
            assert_eq!(
                private.len(),
                1,
                "a /run of its own, with the private directory in it"
            );
            fs::write(capsule::private_dir().join("note"), "here").expect("writable");
        },
    );
}

#[test]
fn orphans_are_reaped_by_the_capsule_s_init() {
    in_capsule("orphans_are_reaped_by_the_capsule_s_init", || {
        // The shell ends at once and leaves a child behind, which nobody but init can reap.
        let output = Command::new("sh")
            .args(["-c", "true & echo $!"])
            .stdin(Stdio::null())
            .output();
        let said = String::from_utf8(output.expect("sh runs").stdout).expect("digits");
        let orphan = format!("/proc/{}", said.trim());
        assert!(said.trim().parse::<u32>().is_ok(), "a process id: {said}");
        // The kernel announces the end of a process, but not that it was reaped.
        let gone = (0..MOST_LOOKS).any(|_| {
            std::thread::yield_now();
            !fs::exists(&orphan).expect("a fresh /proc")
        });
        assert!(gone, "{orphan} is still there");
    });
}

#[test]
#[should_panic(expected = "failed inside its capsule")]
fn a_panic_inside_fails_the_test_outside() {
    if Privilege::available().is_err() && !requirements::is_strict() {
        panic!("skipped, as if it had failed inside its capsule");
    }
    in_capsule("a_panic_inside_fails_the_test_outside", || panic!("inside"));
}

#[test]
#[should_panic(expected = "no test of this binary is called")]
fn a_name_that_is_no_test_does_not_pass_for_one() {
    if Privilege::available().is_err() && !requirements::is_strict() {
        panic!("skipped, as if no test of this binary is called so");
    }
    in_capsule("no_such_test", || {});
}

#[test]
fn the_exit_status_is_the_program_s_own_and_signals_count_from_128() {
    if !capsules_work("the_exit_status_is_the_program_s_own_and_signals_count_from_128") {
        return;
    }
    let status = |script| sh(script).status().expect("capsules work").code();
    assert_eq!(status("exit 42"), Some(42));
    assert_eq!(status("kill -TERM $$"), Some(128 + 15));
}

#[test]
fn a_program_that_is_not_there_is_named() {
    if !capsules_work("a_program_that_is_not_there_is_named") {
        return;
    }
    let refusal = Capsule::command("/no/such/program", [""; 0])
        .status()
        .expect_err("nothing to run");
    assert!(
        refusal.to_string().contains("/no/such/program"),
        "{refusal}"
    );
}

#[test]
fn only_the_listed_environment_is_handed_over() {
    if !capsules_work("only_the_listed_environment_is_handed_over") {
        return;
    }
    let output = Capsule::command("env", [""; 0])
        .env("GIVEN", "on purpose")
        .output()
        .expect("env runs");
    let text = String::from_utf8_lossy(&output.stdout);
    let names: Vec<&str> = text
        .lines()
        .filter_map(|line| line.split_once('='))
        .map(|(name, _)| name)
        .collect();
    for name in &names {
        let listed = capsule::PASSED_ON.contains(name)
            || capsule::PASSED_PREFIXES
                .iter()
                .any(|prefix| name.starts_with(prefix))
            || ["GIVEN", "LANG", "PATH", "TZ", "TMPDIR"].contains(name);
        assert!(listed, "{name} slipped in");
    }
    assert!(
        names.contains(&"GIVEN") && names.contains(&"TMPDIR"),
        "{names:?}"
    );
}

#[test]
fn killing_the_keeper_ends_every_process_of_the_capsule() {
    if !capsules_work("killing_the_keeper_ends_every_process_of_the_capsule") {
        return;
    }
    let mut keeper = sh(ANNOUNCE_AND_STAY)
        .stdout(Stdio::piped())
        .spawn()
        .expect("capsules work");
    let inner = inner_processes(&mut keeper);
    keeper.kill().expect("it is ours");
    keeper.wait().expect("it is ours");
    assert_all_end(&inner);
}

#[test]
fn kill_9_of_whoever_made_the_capsule_leaves_no_process() {
    if std::env::var_os(MAKER).is_some() {
        sh(ANNOUNCE_AND_STAY).status().expect("capsules work");
        return;
    }
    if !capsules_work("kill_9_of_whoever_made_the_capsule_leaves_no_process") {
        return;
    }
    let mut maker = Command::new(std::env::current_exe().expect("a test binary is running"))
        .args([
            "--exact",
            "kill_9_of_whoever_made_the_capsule_leaves_no_process",
            "--nocapture",
        ])
        .env(MAKER, "1")
        .stdout(Stdio::piped())
        .spawn()
        .expect("this binary runs");
    let inner = inner_processes(&mut maker);
    maker.kill().expect("it is ours");
    maker.wait().expect("it is ours");
    assert_all_end(&inner);
}

/// Set in the process that makes a capsule in order to be killed.
const MAKER: &str = "LAB_TEST_MAKER";
/// Starts a second process, says that both stand, and stays; its name is an argument nobody else has.
const ANNOUNCE_AND_STAY: &str = "sleep 86399 & echo standing; sleep 86399";
const STANDING: &str = "standing";
/// Looks at /proc before giving up; a look takes a few microseconds, so this is seconds.
const MOST_LOOKS: u32 = 1_000_000;
/// The kernel needs milliseconds; the rest is for a busy machine.
const END_LIMIT: Timespec = Timespec {
    tv_sec: 10,
    tv_nsec: 0,
};

fn sh(script: &str) -> Capsule {
    Capsule::command("sh", ["-c", script]).stdin(Stdio::null())
}

fn capsules_work(test: &str) -> bool {
    let refusal = Privilege::available().err();
    if let Some(refusal) = &refusal {
        requirements::skip_or_fail(test, &refusal.to_string());
    }
    refusal.is_none()
}

/// Descriptors of all descendants of `maker`, once the program inside has said that it stands.
fn inner_processes(maker: &mut Child) -> Vec<OwnedFd> {
    let said = BufReader::new(maker.stdout.take().expect("a pipe was asked for"));
    let standing = said
        .lines()
        .map_while(Result::ok)
        .any(|line| line.ends_with(STANDING));
    assert!(standing, "the program inside announces itself");
    let inner = descendants(maker.id());
    assert!(
        inner.len() >= 3,
        "init, the shell and its child at least: {inner:?}"
    );
    inner
        .into_iter()
        .map(|pid| pidfd_open(pid, PidfdFlags::empty()).expect("it stays"))
        .collect()
}

fn descendants(pid: u32) -> Vec<Pid> {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
    let threads = fs::read_dir(format!("/proc/{pid}/task"))
        .into_iter()
        .flatten()
        .flatten();
    let of_all_threads = threads.map(|thread| fs::read_to_string(thread.path().join("children")));
    let listed = of_all_threads
        .chain([children])
        .flatten()
        .collect::<Vec<_>>()
        .join(" ");
    let mut found: Vec<u32> = listed
        .split_whitespace()
        .filter_map(|pid| pid.parse().ok())
        .collect();
    found.sort_unstable();
    found.dedup();
    let below = found.clone().into_iter().flat_map(descendants);
    let own = found
        .into_iter()
        .filter_map(|pid| Pid::from_raw(i32::try_from(pid).ok()?));
    own.chain(below).collect()
}

fn assert_all_end(processes: &[OwnedFd]) {
    for process in processes {
        let mut fds = [PollFd::new(process, PollFlags::IN)];
        let ended = poll(&mut fds, Some(&END_LIMIT)).expect("pidfds can be polled");
        assert_eq!(
            ended,
            1,
            "still running after {:?}",
            Duration::try_from(END_LIMIT)
        );
    }
}
