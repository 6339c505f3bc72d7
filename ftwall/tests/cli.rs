//! The command line as its users meet it: exit codes, and sentences that name the remedy.

use std::process::{Command, Output};

fn ftwall(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_ftwall"))
        .args(arguments)
        .output()
        .expect("the binary was built for this test")
}

/// Asserts that ftwall refuses `arguments` with `code`, in a sentence that contains `words`.
#[track_caller]
fn assert_refused(arguments: &[&str], code: i32, words: &[&str]) {
    let output = ftwall(arguments);
    let message = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{message}");
    for word in words {
        assert!(message.contains(word), "no {word:?} in: {message}");
    }
    assert!(!message.contains("panicked"), "{message}");
}

#[test]
fn an_unknown_flag_is_a_matter_of_usage() {
    assert_refused(&["run", "--no-such-flag"], 2, &["--no-such-flag"]);
    assert_refused(&["frobnicate"], 2, &["frobnicate"]);
    assert_refused(&[], 2, &["Usage"]);
}

#[test]
fn a_malformed_network_is_named_with_how_to_write_it() {
    assert_refused(
        &["run", "--inside", "10.77.0.0/33"],
        2,
        &["10.77.0.0/33", "192.168.0.0/16"],
    );
    assert_refused(
        &["run", "--inside", "10.77.1.1/16"],
        2,
        &["did you mean 10.77.0.0/16?"],
    );
    assert_refused(
        &["rules", "print", "--exempt", "lan"],
        2,
        &["lan", "prefix length"],
    );
    assert_refused(
        &["run", "--never-block", "bank.example"],
        2,
        &["192.0.2.7:1214"],
    );
}

#[test]
fn a_malformed_option_is_named_with_how_to_write_it() {
    assert_refused(&["run", "--lock-time", "soon"], 2, &["soon", "120s"]);
    assert_refused(&["run", "--backend", "pf"], 2, &["pf", "iptables-nft"]);
    assert_refused(&["run", "--mark-bit", "30"], 2, &["0 to 26"]);
    assert_refused(
        &["run", "--block-inbound", "--open-port", "443"],
        2,
        &["tcp/443"],
    );
    assert_refused(&["run", "--open-port", "tcp/443"], 2, &["--block-inbound"]);
    assert_refused(&["run", "--queue", "70000"], 2, &["70000"]);
}

#[test]
fn inside_networks_without_ipv4_are_a_matter_of_configuration() {
    assert_refused(
        &["rules", "print", "--inside", "2001:db8::/32"],
        78,
        &["IPv4", "--inside"],
    );
}

#[test]
fn an_event_file_that_cannot_be_written_is_a_matter_of_configuration() {
    let arguments = ["run", "--events", "/no/such/directory/events.json"];
    assert_refused(
        &arguments,
        78,
        &["/no/such/directory/events.json", "--events"],
    );
}

#[test]
fn help_tells_every_command_and_every_exit_code() {
    let output = ftwall(&["--help"]);
    assert!(output.status.success());
    let help = String::from_utf8_lossy(&output.stdout);
    for word in [
        "run",
        "rules",
        "replay",
        "doctor",
        "77  missing privilege",
        "78  configuration",
    ] {
        assert!(help.contains(word), "no {word:?} in: {help}");
    }
}

#[test]
fn printing_rules_needs_no_privilege_and_names_who_takes_them() {
    let output = ftwall(&[
        "rules",
        "print",
        "--backend",
        "iptables-nft",
        "--inside",
        "10.77.0.0/16",
    ]);
    assert!(output.status.success());
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        text.starts_with("# nft -j -f -\n{\"nftables\": [\n"),
        "{text}"
    );
    assert!(
        text.contains("\n# iptables-nft-restore --noflush\n*mangle\n"),
        "{text}"
    );
}
