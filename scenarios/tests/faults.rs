//! A few faults that are soon over: that they hold with ftwall, that a gateway without is found out, and that
//! nothing is left out in silence.
//!
//! What this machine cannot do is skipped with the reason; `LAB_REQUIRE=1` makes that a failure.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use scenarios::device::Device;

use scenarios::soak::{self, Fault};
use serde_json::Value;

#[test]
fn a_kill_a_flush_and_a_second_daemon_let_no_contact_through_and_leave_clean_hosts_alone() {
    let name =
        "a_kill_a_flush_and_a_second_daemon_let_no_contact_through_and_leave_clean_hosts_alone";
    let Some((output, directory)) = play(name, Device::Ftwall, "kill,flush,second_daemon") else {
        return;
    };
    let said = said(&output);
    assert!(output.status.success(), "{said}");
    let last = said.lines().last().expect("it has a last line");
    assert!(last.starts_with("faults=3 void=0 leaked=0 "), "{last}");
    assert!(last.ends_with(" interrupted=0 skipped=0"), "{last}");
    let document = document(&directory);
    let rows = document["rows"].as_array().expect("they are listed");
    for row in rows {
        assert!(row["locked_hosts"].as_u64() > Some(5), "{row}");
        let incident = &row["incident"];
        assert!(incident["tried"].as_u64() > Some(0), "{row}");
        assert!(incident["clean_requests"].as_u64() > Some(0), "{row}");
    }
    let refusals = rows[2]["incident"]["noted"].to_string();
    assert!(refusals.contains("is running already"), "{refusals}");
    let table = fs::read_to_string(directory.join("faults.md")).expect("it was written");
    assert!(table.contains(last), "{table}");
    let page = fs::read_to_string(directory.join("faults.html")).expect("it was written");
    for fault in [Fault::Kill, Fault::Flush, Fault::SecondDaemon] {
        assert!(page.contains(fault.name()), "{page}");
    }
}

#[test]
fn a_gateway_without_a_device_leaks_and_what_needs_a_daemon_is_skipped_by_name() {
    let name = "a_gateway_without_a_device_leaks_and_what_needs_a_daemon_is_skipped_by_name";
    let Some((output, _)) = play(name, Device::None, "kill,link_flap") else {
        return;
    };
    let said = said(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(
        said.contains("kill: skipped\n  skipped: device none has no daemon"),
        "{said}"
    );
    let last = said.lines().last().expect("it has a last line");
    assert!(last.starts_with("faults=2 void=0 leaked="), "{last}");
    assert!(!last.contains("leaked=0 "), "{last}");
    assert!(last.ends_with(" skipped=1"), "{last}");
}

#[test]
fn a_fault_that_there_is_not_is_a_mistyped_command_line() {
    let output = Command::new(env!("CARGO_BIN_EXE_scenarios"))
        .args(["faults", "--only", "kill,earthquake"])
        .output()
        .expect("cargo has built the program");
    assert_eq!(output.status.code(), Some(2));
    let said = said(&output);
    assert!(
        said.contains("'earthquake'") && said.contains("link_flap"),
        "{said}"
    );
}

fn play(test: &str, device: Device, only: &str) -> Option<(Output, PathBuf)> {
    if let Some(why) = soak::obstacle(device) {
        lab::requirements::skip_or_fail(test, &why);
        return None;
    }
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("faults-{device}"));
    let output = Command::new(env!("CARGO_BIN_EXE_scenarios"))
        .args(["faults", "--only", only, "--dut", device.name(), "--out"])
        .arg(&directory)
        .output()
        .expect("cargo has built the program");
    Some((output, directory))
}

fn said(output: &Output) -> String {
    let complaints = String::from_utf8_lossy(&output.stderr);
    complaints.into_owned() + &String::from_utf8_lossy(&output.stdout)
}

fn document(directory: &Path) -> Value {
    let text = fs::read_to_string(directory.join("faults.json")).expect("it was written");
    serde_json::from_str(&text).expect("it is JSON")
}
