//! What the book lists and the code declares: both have to say the same.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use clap::CommandFactory as _;
use ftwall::cli::Cli;
use ftwall::control::config_file::{Layer, schema};
use ftwall::http::{Kind, METRICS};
use serde_json::Value;

/// Asks for the generated parts to be written anew.
const WRITE: &str = "BOOK";

/// Holds the part of a chapter between `<!-- begin: NAME -->` and `<!-- end: NAME -->` against what the code
/// says, or writes it.
pub(crate) fn check_generated(file: &Path, name: &str, expected: &str) {
    let text = fs::read_to_string(file).expect("the chapter is there");
    let (begin, end) = (
        format!("<!-- begin: {name} -->\n"),
        format!("<!-- end: {name} -->"),
    );
    let (before, rest) = text.split_once(&begin).expect("the part is marked");
    let (written, after) = rest.split_once(&end).expect("the part ends");
    if std::env::var(WRITE).is_ok_and(|value| value == "write") {
        let text = format!("{before}{begin}{expected}{end}{after}");
        fs::write(file, text).expect("the sources can be written to");
        return;
    }
    assert!(
        written == expected,
        "{} is not what the code says; BOOK=write writes:\n{expected}",
        file.display()
    );
}

/// Every setting as a row.
pub(crate) fn settings() -> String {
    let schema = schema();
    let properties = schema["properties"].as_object().expect("an object has");
    let mut table =
        String::from("| setting | takes | default | what it does |\n|---|---|---|---|\n");
    for (key, value) in properties {
        let Some(default) = value.get("default") else {
            continue;
        };
        let description = value["description"].as_str().unwrap_or_default().trim();
        let _ = writeln!(
            table,
            "| `{key}` | {} | `{default}` | {description} |",
            taken(value)
        );
    }
    table
}

/// What a setting takes, in words.
fn taken(schema: &Value) -> String {
    if let Some(names) = schema["enum"].as_array() {
        let names = names.iter().filter_map(Value::as_str);
        let names: Vec<_> = names.map(|name| format!("`\"{name}\"`")).collect();
        return names.join(", ");
    }
    match schema["type"].as_str() {
        Some("array") => format!("list: {}", taken(&schema["items"])),
        Some("boolean") => "`true`, `false`".to_owned(),
        Some("integer") => match schema["maximum"].as_u64() {
            Some(most) => format!("{} to {most}", schema["minimum"].as_u64().unwrap_or(0)),
            None => "a number".to_owned(),
        },
        _ => match schema["examples"][0].as_str() {
            Some(example) => format!("text, as in `\"{example}\"`"),
            None => "text".to_owned(),
        },
    }
}

/// Every family of metrics as a row.
pub(crate) fn metrics() -> String {
    let mut table = String::from("| metric | kind | what it says |\n|---|---|---|\n");
    for metric in METRICS {
        let kind = match metric.kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        let _ = writeln!(table, "| `{}` | {kind} | {} |", metric.name, metric.help);
    }
    table
}

/// Every command as a row.
pub(crate) fn commands() -> String {
    let mut table = String::from("| command | does |\n|---|---|\n");
    for command in Cli::command().get_subcommands() {
        if command.is_hide_set() {
            continue;
        }
        let about = command.get_about().map(ToString::to_string);
        let about = about.unwrap_or_default();
        let _ = writeln!(table, "| `ftwall {}` | {about} |", command.get_name());
    }
    table
}

/// The shipped file monitors, and what it has commented out is what holds without it.
pub(crate) fn check_shipped_configuration(file: &Path) {
    let text = fs::read_to_string(file).expect("it is shipped");
    let written = Layer::parse(file, &text).expect("it is a configuration");
    let mode = written.mode.expect("it says what is done at first").value;
    assert_eq!(mode.name(), "monitor");
    let is_setting = |line: &str| line.split_once(" = ").is_some_and(|(key, _)| is_key(key));
    let commented = text.lines().filter_map(|line| line.strip_prefix('#'));
    let commented: Vec<_> = commented.filter(|line| is_setting(line)).collect();
    assert!(commented.len() > 3, "{commented:?}");
    let schema = schema();
    for line in commented {
        let parsed = Layer::parse(file, line);
        assert!(parsed.is_ok(), "{line}: {parsed:?}");
        let (key, value) = line.split_once(" = ").expect("it is a setting");
        let value: Value = serde_json::from_str(value).expect("plain values are JSON too");
        let default = &schema["properties"][key]["default"];
        assert_eq!(&value, default, "{key} is not its default");
    }
}

fn is_key(text: &str) -> bool {
    text.chars().all(|it| it.is_ascii_lowercase() || it == '_')
}

/// Number of rows the comparison has: what people who run gateways were found to ask for.
const FEATURES: usize = 58;

/// Each row's word on ftwall is yes, partly or no, and each yes names something that proves it.
pub(crate) fn check_features(text: &str, workspace: &Path) {
    let rows = text.lines().filter(|line| line.starts_with("| "));
    let rows = rows.map(|line| line.trim_matches('|').split('|').map(str::trim));
    let rows: Vec<Vec<_>> = rows.map(Iterator::collect).collect();
    let rows = rows.iter().filter(|row| row[0].parse::<u8>().is_ok());
    let mut count = 0;
    for row in rows {
        count += 1;
        let [.., own, proof] = row[..] else {
            panic!("{row:?} is no row")
        };
        let quoted = proof.split('`').skip(1).step_by(2);
        let proofs: Vec<_> = quoted
            .filter_map(|quoted| quoted.split_once("::"))
            .collect();
        match own {
            "yes" => assert!(!proofs.is_empty(), "{row:?} is claimed only"),
            "partly" | "no" => assert!(!proof.is_empty(), "{row:?}: what is missing?"),
            other => panic!("{other:?} is no answer: {row:?}"),
        }
        for (file, name) in proofs {
            check_proof(&workspace.join(file), name);
        }
    }
    assert_eq!(count, FEATURES);
}

/// `name` is a test in that file, or a step of that script.
fn check_proof(file: &Path, name: &str) {
    let text = fs::read_to_string(file);
    let text = text.unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    let test = format!("#[test]\nfn {name}(");
    let nested = format!("#[test]\n    fn {name}(");
    let step = format!("\n{name}() {{");
    assert!(
        [test, nested, step].iter().any(|it| text.contains(it)),
        "{}: there is no test {name}",
        file.display()
    );
}
