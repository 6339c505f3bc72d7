//! A short soak: that it holds with ftwall, and that a gateway without is found out.
//!
//! What this machine cannot do is skipped with the reason; `LAB_REQUIRE=1` makes that a failure.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use scenarios::device::Device;
use scenarios::soak;
use serde_json::Value;

/// Two rounds, with something done to the gateway in each. The seed draws a kill and then a flush.
const SHORT: [&str; 5] = ["soak", "--minutes", "0.3", "--seed", "32"];

#[test]
fn a_gateway_to_which_things_happen_lets_no_contact_through_and_leaves_the_web_alone() {
    let name = "a_gateway_to_which_things_happen_lets_no_contact_through_and_leaves_the_web_alone";
    let Some((output, directory)) = play(name, Device::Ftwall) else {
        return;
    };
    let said = said(&output);
    assert!(output.status.success(), "{said}");
    let last = said.lines().last().expect("it has a last line");
    assert!(last.starts_with("soak: minutes=0.3 seed=32 "), "{last}");
    for expected in ["void=0", "leaked=0", "web_failures=0"] {
        assert!(last.contains(expected), "{last}");
    }
    let document = document(&directory);
    let faults = document["faults"].as_array().expect("they are listed");
    assert!(faults.len() >= 2, "{faults:?}");
    let samples = document["samples"].as_array().expect("they are listed");
    assert!(samples.len() > 5, "{} samples", samples.len());
    assert!(samples.iter().all(|one| one["rss_kib"].as_u64() > Some(0)));
    let attempts = document["intervals"].as_array().expect("they are listed");
    let attempts: u64 = attempts
        .iter()
        .filter_map(|one| one["attempts"].as_u64())
        .sum();
    assert!(attempts > 100, "silence is no protection: {attempts}");
    check_drawing(&directory, faults.len());
}

#[test]
fn a_gateway_without_a_device_is_found_out() {
    let Some((output, directory)) = play("a_gateway_without_a_device_is_found_out", Device::None)
    else {
        return;
    };
    let said = said(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    let document = document(&directory);
    assert!(document["leaked"].as_u64() > Some(0), "{said}");
    assert_eq!(document["void"], 0, "{said}");
    assert_eq!(document["web_failures"], 0, "{said}");
}

fn play(test: &str, device: Device) -> Option<(Output, PathBuf)> {
    if let Some(why) = soak::obstacle(device) {
        lab::requirements::skip_or_fail(test, &why);
        return None;
    }
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("soak-{device}"));
    let output = Command::new(env!("CARGO_BIN_EXE_scenarios"))
        .args(SHORT)
        .args(["--dut", device.name(), "--out"])
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
    let text = fs::read_to_string(directory.join("soak.json")).expect("it was written");
    serde_json::from_str(&text).expect("it is JSON")
}

/// A line for each fault, and a curve for each of what is shown.
fn check_drawing(directory: &Path, faults: usize) {
    let text = fs::read_to_string(directory.join("soak.svg")).expect("it was written");
    let drawing = roxmltree::Document::parse(&text).expect("it is XML");
    let count = |wanted: &dyn Fn(&roxmltree::Node<'_, '_>) -> bool| {
        drawing.descendants().filter(|node| wanted(node)).count()
    };
    assert_eq!(
        count(&|node| node.attribute("class") == Some("fault")),
        faults
    );
    let curves = |node: &roxmltree::Node<'_, '_>| {
        let points = node.attribute("points").unwrap_or_default();
        node.has_tag_name(("http://www.w3.org/2000/svg", "polyline")) && points.contains(' ')
    };
    assert_eq!(count(&curves), 8);
}
