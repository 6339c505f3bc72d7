//! Ways to break a configuration, each with the exact sentence that its author reads.

use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

/// What is wrong, and in which file of a configuration directory.
const BROKEN: &[(&str, &str)] = &[
    ("ftwall.toml", "locktime = 5"),
    ("ftwall.toml", "\n\n  lock-time = 5"),
    ("ftwall.toml", "colour = \"red\""),
    ("ftwall.toml", "lock_time = \"soon\""),
    ("ftwall.toml", "lock_time = -1"),
    ("ftwall.toml", "lock_time = 1.5"),
    ("ftwall.toml", "lock_time = true"),
    ("ftwall.toml", "lock_time = 5\nlock_time = 6"),
    ("ftwall.toml", "lock_time ="),
    ("ftwall.toml", "lock_time 5"),
    ("ftwall.toml", "peer_expiry = \"2 fortnights\""),
    ("ftwall.toml", "mode = \"enforced\""),
    ("ftwall.toml", "mode = 1"),
    ("ftwall.toml", "strictness = \"lax\""),
    ("ftwall.toml", "locked_dials = \"reject\""),
    ("ftwall.toml", "reply = \"ping\""),
    ("ftwall.toml", "reprobe = yes"),
    ("ftwall.toml", "reprobe = \"true\""),
    ("ftwall.toml", "inside = \"10.77.0.0/16\""),
    ("ftwall.toml", "inside = [\"10.77.0.0/33\"]"),
    ("ftwall.toml", "inside = [\"10.77.1.1/16\"]"),
    ("ftwall.toml", "inside = [\"office\"]"),
    ("ftwall.toml", "inside = [10]"),
    ("ftwall.toml", "inside = []"),
    ("ftwall.toml", "inside = [\"2001:db8::/32\"]"),
    ("ftwall.toml", "inside = [\"10.0.0.0/8\""),
    ("ftwall.toml", "exempt = [\"10.77.9.9:80\"]"),
    ("ftwall.toml", "allow = [\"bank.example\"]"),
    ("ftwall.toml", "never_block = [\n  \"192.0.2.7:65536\",\n]"),
    ("ftwall.toml", "new_peers_per_minute = -5"),
    ("ftwall.toml", "new_peers_per_minute = 5000000000"),
    ("ftwall.toml", "queue = 65536"),
    ("ftwall.toml", "queue = \"0\""),
    ("ftwall.toml", "backend = \"pf\""),
    ("ftwall.toml", "mark_bit = 27"),
    ("ftwall.toml", "when_down = \"reject\""),
    ("ftwall.toml", "when_overload = \"drop\""),
    ("ftwall.toml", "when_overloaded = \"queue\""),
    ("ftwall.toml", "open_port = [\"tcp/443\"]"),
    ("ftwall.toml", "block_inbound = true\nopen_port = [\"443\"]"),
    ("ftwall.toml", "queue_reader = \"libpcap\""),
    ("ftwall.toml", "events_limit_mib = -1"),
    ("ftwall.toml", "events_kept = 256"),
    ("ftwall.toml", "events_days = \"a week\""),
    ("ftwall.toml", "webhook = \"example.net/hook\""),
    ("ftwall.toml", "webhook = \"https://\""),
    ("ftwall.toml", "webhook = \"https://:443/hook\""),
    (
        "ftwall.toml",
        "webhook = \"https://example.net:99999/hook\"",
    ),
    ("ftwall.toml", "webhook = \"http://2001:db8::1/hook\""),
    ("ftwall.toml", "webhook = \"https://example.net/my hook\""),
    ("ftwall.toml", "webhook_secret_file = \"secret\""),
    ("ftwall.toml", "webhook_window = \"soon\""),
    ("ftwall.toml", "privacy = \"none\""),
    ("ftwall.toml", "schema_version = 2"),
    ("ftwall.toml", "schema_version = \"1\""),
    ("ftwall.toml", "[policy]\nname = \"x\""),
    (
        "ftwall.toml",
        "[[policy]]\nmatch = { subnet = \"10.0.0.0/8\" }",
    ),
    ("ftwall.toml", "[[policy]]\nname = \"x\""),
    ("ftwall.toml", "[[policies]]\nname = \"x\""),
    ("ftwall.toml", "[[policy]]\nname = \"x\"\nmatch = {}"),
    (
        "ftwall.toml",
        "[[policy]]\nname = \"x\"\nmatch = { subnet = [] }",
    ),
    (
        "ftwall.toml",
        "[[policy]]\nname = \"x\"\nmatch = { subnet = \"10.0.0.0/8\", mac = \"00:11:22:33:44\" }",
    ),
    (
        "ftwall.toml",
        "[[policy]]\nname = \"x\"\nmatch = { interface = \"guest network 0\" }",
    ),
    (
        "ftwall.toml",
        "[[policy]]\nname = \"x\"\nmatch = { interface = 2 }",
    ),
    (
        "ftwall.toml",
        "[[policy]]\nname = \"x\"\nmatch = { subnets = \"10.0.0.0/8\" }",
    ),
    (
        "ftwall.toml",
        "[[policy]]\nname = \"x\"\nmatch = { subnet = \"10.0.0.1/8\" }",
    ),
    (
        "ftwall.toml",
        "[[policy]]\nname = \"x\"\nmatch = { subnet = \"10.0.0.0/8\" }\nmod = \"off\"",
    ),
    (
        "ftwall.toml",
        "[[policy]]\nname = \"x\"\nmatch = { subnet = \"10.0.0.0/8\" }\n\n[[policy]]\nname = \"x\"\nmatch = { subnet = \"10.0.0.0/8\" }",
    ),
    (
        "ftwall.toml",
        "[[policy]]\nname = \"x\"\nmatch = { subnet = \"10.0.0.0/8\" }\nschedule = { windows = [] }",
    ),
    (
        "ftwall.toml",
        "[[policy]]\nname = \"x\"\nmatch = { subnet = \"10.0.0.0/8\" }\nschedule = { zone = \"UTC\", windows = [] }",
    ),
    (
        "ftwall.toml",
        "[[policy]]\nname = \"x\"\nmatch = { subnet = \"10.0.0.0/8\" }\nschedule = { zone = \"Europe/Atlantis\", windows = [] }",
    ),
    (
        "ftwall.toml",
        "[[policy]]\nname = \"x\"\nmatch = { subnet = \"10.0.0.0/8\" }\nschedule = { zone = \"UTC\", windows = [{ from = \"8:00\", to = \"12:00\" }] }",
    ),
    (
        "ftwall.toml",
        "[[policy]]\nname = \"x\"\nmatch = { subnet = \"10.0.0.0/8\" }\nschedule = { zone = \"UTC\", windows = [{ from = \"08:00\" }] }",
    ),
    (
        "ftwall.toml",
        "[[policy]]\nname = \"x\"\nmatch = { subnet = \"10.0.0.0/8\" }\nschedule = { zone = \"UTC\", windows = [{ days = [\"monday\"], from = \"08:00\", to = \"12:00\" }] }",
    ),
    ("ftwall.toml", "[lock_time]\nseconds = 5"),
    ("ftwall.toml", "\u{feff}\u{0}"),
    ("conf.d/10-lan.toml", "insides = [\"10.0.0.0/8\"]"),
    (
        "allow.d/bank.list",
        "# the bank\n198.51.100.7\n198.51.100.300\n",
    ),
    ("allow.d/bank.list", "  198.51.100.7, 198.51.100.8\n"),
];

#[test]
fn every_way_to_break_a_configuration_has_its_sentence() {
    assert!(BROKEN.len() >= 50);
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("broken-configuration");
    let mut shown = String::new();
    for (file, text) in BROKEN {
        let said = refusal(&directory, file, text);
        assert_eq!(said.lines().count(), 1, "{text}: {said}");
        assert!(!said.contains("panicked"), "{said}");
        let _ = write!(shown, "{}\n  {said}\n", text.escape_debug());
    }
    insta::assert_snapshot!(shown);
}

/// What `ftwall check` says of a configuration of one file.
fn refusal(directory: &Path, file: &str, text: &str) -> String {
    let _ = std::fs::remove_dir_all(directory);
    let path = directory.join(file);
    std::fs::create_dir_all(path.parent().expect("it is in a directory")).expect("room is left");
    std::fs::write(directory.join("ftwall.toml"), "").expect("room is left");
    std::fs::write(&path, text).expect("room is left");
    let output = Command::new(env!("CARGO_BIN_EXE_ftwall"))
        .arg("check")
        .arg("--config")
        .arg(directory.join("ftwall.toml"))
        .output()
        .expect("the binary was built for this test");
    let message = String::from_utf8(output.stderr).expect("messages are text");
    assert_eq!(output.status.code(), Some(78), "{text}: {message}");
    let directory = format!("{}/", directory.display());
    message.trim_end().replace(&directory, "")
}
