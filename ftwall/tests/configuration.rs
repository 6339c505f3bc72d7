//! The configuration as its users meet it: files, drop-ins, what was typed, and what comes of it.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

#[test]
fn a_dump_says_where_each_value_comes_from() {
    let main = store(
        "dump",
        &[
            (
                "ftwall.toml",
                "inside = [\"10.77.0.0/16\"]\nlock_time = \"5m\"\n",
            ),
            (
                "conf.d/20-later.toml",
                "lock_time = \"10m\"\n\n[[policy]]\nname = \"guests\"\n\
                match = { subnet = \"10.77.2.0/24\" }\nmode = \"monitor\"\n",
            ),
            (
                "conf.d/10-earlier.toml",
                "lock_time = \"1m\"\nstrictness = \"strict\"\n",
            ),
            ("conf.d/notes.txt", "not a configuration"),
            ("allow.d/bank.list", "# the bank\n198.51.100.7\n"),
        ],
    );
    let output = check(&main, &["--dump"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let directory = format!("{}/", main.parent().expect("it has one").display());
    insta::assert_snapshot!(text(&output.stdout).replace(&directory, ""));

    let again = store("dump-again", &[("ftwall.toml", &text(&output.stdout))]);
    let output = check(&again, &["--dump"]);
    assert_eq!(
        output.status.code(),
        Some(0),
        "a dump is a file: {}",
        text(&output.stderr)
    );

    let json: Value = serde_json::from_slice(&check(&main, &["-o", "json"]).stdout).expect("JSON");
    assert_eq!(json["settings"]["lock_time"]["value"], "10m");
    let from = json["settings"]["lock_time"]["from"]
        .as_str()
        .expect("text");
    assert!(from.ends_with("conf.d/20-later.toml:1"), "{from}");
    assert_eq!(json["settings"]["queue"]["from"], "default");
    assert_eq!(json["policy"][0]["value"]["name"], "guests");
    assert_eq!(json["allow_files"][0]["value"], "198.51.100.7");
}

#[test]
fn a_configuration_that_holds_together_is_told_so_in_one_line() {
    let main = store("ok", &[("ftwall.toml", "mode = \"enforce\"\n")]);
    let output = check(&main, &[]);
    let said = text(&output.stdout);
    assert!(
        said.starts_with("ok: 1 file, 0 policy entries, mode enforce ("),
        "{said}"
    );
    assert!(said.ends_with("ftwall.toml:1)\n"), "{said}");
}

#[test]
fn the_schema_is_json_and_knows_the_policy() {
    let output = ftwall(&["check", "--schema"]);
    let schema: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let policy = &schema["properties"]["policy"]["items"]["properties"];
    assert_eq!(
        policy["mode"]["enum"],
        serde_json::json!(["enforce", "monitor", "off"])
    );
    assert_eq!(schema["additionalProperties"], false);
}

#[test]
fn a_named_file_must_be_there() {
    let output = check(Path::new("/nonexistent/ftwall.toml"), &[]);
    assert_eq!(output.status.code(), Some(78));
    let said = text(&output.stderr);
    assert!(
        said.contains("/nonexistent/ftwall.toml: cannot read"),
        "{said}"
    );
}

#[test]
fn a_daemon_does_not_start_with_a_broken_configuration() {
    let main = store("broken", &[("ftwall.toml", "locktime = 5\n")]);
    let output = ftwall(&["run", "--config", &main.display().to_string()]);
    assert_eq!(output.status.code(), Some(78));
    let said = text(&output.stderr);
    assert!(said.contains("did you mean lock_time?"), "{said}");
}

fn check(main: &Path, more: &[&str]) -> Output {
    let main = main.display().to_string();
    ftwall(&[&["check", "--config", &main], more].concat())
}

fn ftwall(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_ftwall"))
        .args(arguments)
        .output()
        .expect("the binary was built for this test")
}

/// A configuration directory with these files; returns the main one.
fn store(name: &str, files: &[(&str, &str)]) -> PathBuf {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("configuration-{name}"));
    let _ = std::fs::remove_dir_all(&directory);
    for (file, text) in files {
        let path = directory.join(file);
        let parent = path.parent().expect("it is in a directory");
        std::fs::create_dir_all(parent).expect("room is left");
        std::fs::write(path, text).expect("room is left");
    }
    directory.join("ftwall.toml")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
