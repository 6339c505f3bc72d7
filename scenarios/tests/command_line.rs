//! The `scenarios` command as typed, without a stage: lists, mistakes, exit statuses.

use std::process::{Command, Output};

fn scenarios(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_scenarios"))
        .args(arguments)
        .output()
        .expect("cargo has built the program")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn list_names_every_scenario_of_the_catalogue_with_a_sentence() {
    let output = scenarios(&["list"]);
    assert!(output.status.success());
    let listed = text(&output.stdout);
    let names: Vec<_> = listed
        .lines()
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    let known: Vec<_> = scenarios::catalog::all()
        .into_iter()
        .map(|scenario| scenario.name)
        .collect();
    assert_eq!(names, known);
    assert!(
        listed
            .lines()
            .all(|line| line.split_whitespace().count() > 3)
    );
}

#[test]
fn an_unknown_name_is_no_scenario_to_compare_either() {
    let output = scenarios(&["compare", "cold_strat"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("cold_start"));
}

#[test]
fn an_unknown_name_is_answered_with_the_nearest_and_status_2() {
    let output = scenarios(&["run", "cold_strat"]);
    assert_eq!(output.status.code(), Some(2));
    let said = text(&output.stderr);
    assert!(
        said.contains("`cold_strat`") && said.contains("cold_start"),
        "{said}"
    );
}

#[test]
fn an_unknown_device_is_a_usage_error() {
    let output = scenarios(&["run", "--dut", "ipp2p"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("string-match"));
}

#[test]
fn a_missing_program_is_named_with_its_remedy_before_anything_is_played() {
    let output = Command::new(env!("CARGO_BIN_EXE_scenarios"))
        .args(["run", "cold_start"])
        .env("FTWALL_BIN", "/nonexistent/ftwall")
        .output()
        .expect("cargo has built the program");
    assert_eq!(output.status.code(), Some(1));
    let said = text(&output.stderr);
    assert!(
        said.contains("FTWALL_BIN names /nonexistent/ftwall"),
        "{said}"
    );
    assert!(output.stdout.is_empty());
}

#[test]
fn the_inner_command_refuses_to_play_outside_a_capsule() {
    let output = scenarios(&["play-inside", "cold_start"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("inside a capsule"));
}
