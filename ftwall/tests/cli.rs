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
        "check",
        "status",
        "clients",
        "peers",
        "explain",
        "unblock",
        "block",
        "allow",
        "mode",
        "reload",
        "completions",
        "man",
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

#[test]
fn what_another_firewall_has_to_be_told_is_printed_without_privilege() {
    for (firewall, words) in [
        ("firewalld", "FlushAllOnReload=no\n"),
        ("shorewall", "# /etc/shorewall/started:\n"),
        ("ufw", "ufw route allow"),
        ("docker", "DOCKER-USER"),
        ("fw4", "flow_offloading '0'\n"),
    ] {
        let output = ftwall(&["rules", "print", "--for", firewall]);
        assert!(output.status.success());
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(text.contains(words), "{text}");
    }
}

#[test]
fn commands_that_need_a_daemon_say_that_none_runs() {
    let nowhere = ["--socket", "/no/such/directory/control.sock"];
    for command in [
        &["status"][..],
        &["clients"],
        &["peers"],
        &["explain", "10.77.1.1"],
        &["unblock", "10.77.1.1"],
        &["block", "10.77.1.1"],
        &["mode", "monitor"],
        &["reload"],
    ] {
        assert_refused(&[command, &nowhere].concat(), 3, &["ftwall is not running"]);
    }
}

#[test]
fn completions_and_manual_know_every_command() {
    for shell in ["bash", "zsh", "fish"] {
        let output = ftwall(&["completions", shell]);
        assert!(output.status.success(), "{shell}");
        let script = String::from_utf8_lossy(&output.stdout);
        assert!(
            script.contains("unblock") && script.contains("lock-time"),
            "{shell}"
        );
    }
    let page = ftwall(&["man"]);
    let page = String::from_utf8_lossy(&page.stdout).into_owned();
    assert!(
        page.starts_with(".ie") && page.contains("ftwall\\-explain"),
        "{page}"
    );
    let directory = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("manual");
    let directory = directory.display().to_string();
    assert!(ftwall(&["man", "--directory", &directory]).status.success());
    let page = std::fs::read_to_string(format!("{directory}/ftwall-unblock.1"));
    assert!(page.expect("one page each").contains("\\-\\-for"));
}

#[test]
fn the_allow_list_is_a_file_that_needs_no_daemon() {
    let directory = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("allow-list");
    let _ = std::fs::remove_dir_all(&directory);
    std::fs::create_dir_all(&directory).expect("room is left");
    let config = directory.join("ftwall.toml");
    std::fs::write(&config, "allow = [\"192.0.2.1\"]\n").expect("room is left");
    let config = config.display().to_string();
    let allow = |more: &[&str]| {
        let place = ["--config", &config, "--socket", "/no/such/control.sock"];
        let (command, targets) = more.split_at(1);
        let place = if command == ["list"] {
            &place[..2]
        } else {
            &place
        };
        let output = ftwall(&[&["allow"], command, targets, place].concat());
        (
            output.status.code(),
            String::from_utf8_lossy(&output.stdout).into_owned()
                + &String::from_utf8_lossy(&output.stderr),
        )
    };
    let added = allow(&["add", "198.51.100.7", "198.51.100.8:1214"]);
    assert_eq!(
        added,
        (
            Some(0),
            "added: 2, already there: 0; no daemon runs\n".into()
        )
    );
    let again = allow(&["add", "198.51.100.7"]);
    assert_eq!(
        again,
        (
            Some(0),
            "added: 0, already there: 1; no daemon runs\n".into()
        )
    );
    let removed = allow(&["remove", "198.51.100.7"]);
    assert_eq!(removed, (Some(0), "removed: 1; no daemon runs\n".into()));
    let (code, said) = allow(&["remove", "192.0.2.1"]);
    assert!(
        code == Some(1) && said.contains("ftwall allow list"),
        "{said}"
    );
    let more = directory.join("more.txt");
    std::fs::write(&more, "# ours\n203.0.113.0/24\n").expect("room is left");
    let imported = allow(&["import", &more.display().to_string()]);
    assert_eq!(
        imported,
        (
            Some(0),
            "added: 1, already there: 0; no daemon runs\n".into()
        )
    );
    let (_, listed) = allow(&["list"]);
    let place = directory.display();
    assert_eq!(
        listed,
        format!(
            "TARGET             FROM\n\
             192.0.2.1          {place}/ftwall.toml:1\n\
             198.51.100.8:1214  {place}/allow.d/operator.list:2\n\
             203.0.113.0/24     {place}/allow.d/operator.list:3\n"
        )
    );
    assert_refused(
        &["allow", "add", "bank.example"],
        2,
        &["bank.example", "192.0.2.7:1214"],
    );
}
