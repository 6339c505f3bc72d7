//! Programs inside a node: readiness lines, deadlines, stopping, output.

use std::{fs, time::Duration};

use lab::{
    Lab, Process, ProcessError, Role, Signal, Spec, Stream, Topology,
    capsule::{self, in_capsule},
};

#[test]
fn a_readiness_line_is_found_whether_it_came_before_or_comes_yet() {
    in_capsule(
        "a_readiness_line_is_found_whether_it_came_before_or_comes_yet",
        || {
            let lab = one_node();
            let program = start(&lab, "echo first; echo ready 7; exec sleep 86399");
            let ready = program
                .wait_line(|line| line.starts_with("ready"), LIMIT)
                .expect("it says so");
            assert_eq!(ready, "ready 7");
            assert_eq!(
                program
                    .wait_line(|line| line == "first", LIMIT)
                    .expect("said before"),
                "first"
            );
        },
    );
}

#[test]
fn silence_and_an_early_end_are_told_apart_and_quote_what_was_said() {
    in_capsule(
        "silence_and_an_early_end_are_told_apart_and_quote_what_was_said",
        || {
            let lab = one_node();
            let silent = start(&lab, "echo busy; exec sleep 86399");
            silent
                .wait_line(|line| line == "busy", LIMIT)
                .expect("it says so");
            let error = silent
                .wait_line(|line| line == "ready", SHORT)
                .expect_err("it never says so");
            assert!(
                matches!(error, ProcessError::Silent { .. }) && error.to_string().contains("busy")
            );

            let broken = start(&lab, "echo no configuration; exit 3");
            let error = broken
                .wait_line(|line| line == "ready", LIMIT)
                .expect_err("it ends");
            assert!(matches!(error, ProcessError::Ended { .. }), "{error}");
            assert!(error.to_string().contains("no configuration"), "{error}");
        },
    );
}

#[test]
fn stopping_asks_first_and_kills_what_does_not_listen() {
    in_capsule("stopping_asks_first_and_kills_what_does_not_listen", || {
        let lab = one_node();
        let mut polite = start(
            &lab,
            "trap 'echo bye; exit 5' TERM; echo up; sleep 86399 & wait",
        );
        let mut stubborn = start(&lab, "trap '' TERM; echo up; exec sleep 86399");
        for program in [&polite, &stubborn] {
            program
                .wait_line(|line| line == "up", LIMIT)
                .expect("it says so");
        }
        let ended = polite.stop(LIMIT).expect("it can be stopped");
        assert_eq!((ended.status.code(), ended.killed), (Some(5), false));
        assert!(
            polite.text(Stream::Stdout).ends_with("bye\n"),
            "its last words are kept"
        );
        assert!(stubborn.stop(SHORT).expect("it can be killed").killed);
    });
}

#[test]
fn a_finished_program_gives_status_both_streams_and_a_log_file() {
    in_capsule(
        "a_finished_program_gives_status_both_streams_and_a_log_file",
        || {
            let lab = one_node();
            let log = capsule::private_dir().join("log");
            let spec = Spec::new("sh").args(["-c", "echo out; echo $WORD >&2; exit 4"]);
            let output = lab
                .node("alone")
                .run(&spec.env("WORD", "err").log_to(&log))
                .expect("sh runs");
            assert_eq!(output.status.code(), Some(4));
            assert_eq!(
                (output.stdout.as_str(), output.stderr.as_str()),
                ("out\n", "err\n")
            );
            let mut logged: Vec<_> = fs::read_to_string(log)
                .expect("written")
                .lines()
                .map(str::to_owned)
                .collect();
            logged.sort();
            assert_eq!(logged, ["err", "out"]);
        },
    );
}

#[test]
fn a_program_that_takes_too_long_is_an_error_and_a_missing_one_is_named() {
    in_capsule(
        "a_program_that_takes_too_long_is_an_error_and_a_missing_one_is_named",
        || {
            let lab = one_node();
            let node = lab.node("alone");
            let late = node
                .run_within(&Spec::new("sleep").arg("86399"), SHORT)
                .expect_err("too long");
            assert!(matches!(late, ProcessError::StillRunning { .. }), "{late}");
            let missing = node
                .spawn(&Spec::new("no-such-program"))
                .expect_err("it is not there");
            assert!(missing.to_string().contains("no-such-program"), "{missing}");
            assert!(missing.to_string().contains("alone"), "{missing}");
        },
    );
}

#[test]
fn a_signal_reaches_the_program_and_a_second_one_after_its_end_is_harmless() {
    in_capsule(
        "a_signal_reaches_the_program_and_a_second_one_after_its_end_is_harmless",
        || {
            let lab = one_node();
            let mut program = start(&lab, "exec sleep 86399");
            assert!(program.is_running().expect("the system can tell"));
            program.signal(Signal::KILL).expect("it runs");
            assert!(!program.wait_exit(LIMIT).expect("it ends").success());
            program.signal(Signal::KILL).expect("no error");
            assert!(!program.is_running().expect("the system can tell"));
        },
    );
}

/// For what is expected to happen: far more than it takes.
const LIMIT: Duration = Duration::from_secs(10);
/// For what is expected not to happen.
const SHORT: Duration = Duration::from_millis(100);

fn one_node() -> Lab {
    let mut topology = Topology::new("one");
    topology.node("alone", Role::Host);
    topology
        .plan()
        .expect("one node is a network")
        .apply()
        .expect("a capsule may build it")
}

fn start(lab: &Lab, script: &str) -> Process {
    lab.node("alone")
        .spawn(&Spec::new("sh").args(["-c", script]))
        .expect("sh runs")
}
