//! Reports as their readers get them: files that parse, pages that a browser lays out.
//!
//! What needs a browser is ignored where there is none; `LAB_REQUIRE=1` makes that a failure.
//! `CHROMIUM` names another browser of the family than `chromium`.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

use libtest_mimic::{Arguments, Completion, Failed, Trial};
use roxmltree::Document;
use scenarios::catalog;
use scenarios::device::Device;
use scenarios::judge::Finding;
use scenarios::level::Level;
use scenarios::observe::{Direction, Flow, Sighting, Transport, Witness};
use scenarios::outcome::{HostOutcome, HostRun, Outcome};
use scenarios::report::{Entry, Report, records_directory, settle_records};
use scenarios::scenario::{Browser, Client, Scenario};
use scenarios::timeline::{Moment, Timeline, Timelines, What};
use scenarios::web::End;
use simulator::report::AttemptKind;

/// What a test is given: a fresh directory, named after it.
type Test = fn(&Path);

const TESTS: &[(&str, Test)] = &[
    (
        "every_file_of_a_report_is_there_and_linked",
        every_file_is_there,
    ),
    (
        "a_leak_is_told_on_the_index_and_marked_in_the_ledger",
        a_leak_is_told,
    ),
    ("what_hostile_names_say_stays_text", hostile_names_stay_text),
    ("pages_fetch_nothing_and_run_nothing", pages_fetch_nothing),
    ("drawings_are_well_formed", drawings_are_well_formed),
    ("junit_counts_failures_errors_and_skips", junit_counts),
    ("outcomes_parse_back_as_they_were", outcomes_parse_back),
    (
        "a_flood_of_pings_stays_a_page_of_fair_size",
        a_flood_stays_small,
    ),
    ("of_many_seeds_only_the_telling_ones_get_a_page", many_seeds),
    ("records_stay_only_where_something_was_found", records_stay),
];

const BROWSER_TESTS: &[(&str, Test)] = &[
    ("a_browser_lays_out_tables_and_drawings", a_browser_lays_out),
    (
        "no_page_is_wider_than_a_phone",
        no_page_is_wider_than_a_phone,
    ),
    ("a_browser_paints_the_page", a_browser_paints),
];

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let plain = TESTS.iter().map(|&(name, test)| {
        Trial::test(name, move || {
            test(&fresh(name));
            Ok(())
        })
    });
    let in_browser = BROWSER_TESTS
        .iter()
        .map(|&(name, test)| Trial::ignorable_test(name, move || with_browser(name, test)));
    libtest_mimic::run(&arguments, plain.chain(in_browser).collect()).exit_code()
}

fn with_browser(name: &str, test: Test) -> Result<Completion, Failed> {
    match chromium() {
        Some(_) => {
            test(&fresh(name));
            Ok(Completion::Completed)
        }
        None if lab::requirements::is_strict() => Err("no chromium on this machine".into()),
        None => Ok(Completion::ignored_with("no chromium on this machine")),
    }
}

// --- files ---

fn every_file_is_there(directory: &Path) {
    let outcomes = [held(), leaked(), skipped()];
    write(directory, &outcomes);
    let index = read(directory, "index.html");
    for outcome in &outcomes {
        let page = format!("{}-1.html", outcome.scenario);
        assert!(
            index.contains(&format!("href=\"{page}\"")),
            "{page} is not linked"
        );
        let text = read(directory, &page);
        assert!(text.contains(&format!("scenarios run {}", outcome.scenario)));
    }
    for name in ["junit.xml", "outcomes.json"] {
        assert!(directory.join(name).is_file() && index.contains(name));
    }
    assert!(index.contains("scenarios=3 void=0 leaked=1 web_failures=0 skipped=1"));
}

fn a_leak_is_told(directory: &Path) {
    write(directory, &[held(), leaked()]);
    let index = read(directory, "index.html");
    assert!(index.contains("1 of 2 scenarios did not hold"));
    let said = "client1: 3 sessions (0 allowed), the first after 250 ms, \
                tcp 10.77.1.1:40000 - 198.18.0.7:2000, seen by the outside wire";
    assert!(index.contains(said), "{index}");
    let page = read(directory, "parallel_dial-1.html");
    assert!(page.contains(said));
    assert!(
        page.contains("<strong>3</strong> leak"),
        "the cell of the ledger is not marked"
    );
    assert!(page.contains("href=\"#host-client1\"") && page.contains("id=\"host-client1\""));
}

fn hostile_names_stay_text(directory: &Path) {
    const HOSTILE: &str =
        "</title><script>alert('x')</script>\"><img src=x onerror=alert(1)>&amp;\u{1}";
    let mut scenario = Scenario::new(HOSTILE, HOSTILE, 2)
        .with(Client::new(1, "kazaa"))
        .with(Browser::new(2, "http1", 1));
    scenario.ftwall = vec![HOSTILE.to_owned()];
    let mut outcome = Outcome {
        scenario: HOSTILE.to_owned(),
        ..leaked()
    };
    outcome.findings.push(Finding::Mishap {
        what: HOSTILE.to_owned(),
    });
    outcome
        .hosts
        .insert(HOSTILE.to_owned(), outcome.hosts["client1"].clone());
    let timelines = outcome.timelines.as_mut().expect("made with one");
    let moments = timelines
        .on
        .hosts
        .get_mut("client1")
        .expect("made with one");
    let text = || HOSTILE.to_owned();
    let end = End::Failed(Duration::from_secs(1), text());
    for what in [
        What::Dropped {
            reason: text(),
            evidence: Some(text()),
            peer: None,
        },
        What::Refused {
            peer: peer(1),
            why: text(),
        },
        What::Locked {
            evidence: Some(text()),
        },
        What::Web { kind: text(), end },
    ] {
        moments.push(Moment {
            at: Duration::from_millis(1),
            what,
        });
    }
    let entry = Entry {
        scenario: &scenario,
        outcome: &outcome,
    };
    Report::new(vec![entry])
        .write(directory)
        .expect("a place to write");
    let pages = pages(directory);
    assert_eq!(pages.len(), 2, "a hostile name must not become a path");
    for (name, page) in pages {
        assert!(
            !page.contains("<script") && !page.contains("<img"),
            "{name}"
        );
        assert_eq!(
            page.matches("<title>").count(),
            page.matches("</title>").count(),
            "{name}"
        );
    }
    let junit = read(directory, "junit.xml");
    let junit = Document::parse(&junit).expect("not even a control character breaks it");
    let name = junit
        .descendants()
        .find_map(|node| node.attribute("classname").and(node.attribute("name")));
    assert!(
        name.is_some_and(|name| name.contains("<script>")),
        "{name:?}"
    );
}

fn pages_fetch_nothing(directory: &Path) {
    write(directory, &[held(), leaked(), skipped()]);
    for (name, page) in pages(directory) {
        let page = page.replace("xmlns=\"http://www.w3.org/2000/svg\"", "");
        for reference in [
            "http:", "https:", "//", "<script", "<link", "@import", "url(", " src=", "srcset",
        ] {
            assert!(!page.contains(reference), "{name} contains {reference}");
        }
    }
}

fn drawings_are_well_formed(directory: &Path) {
    write(directory, &[held(), leaked()]);
    let page = read(directory, "cold_start-1.html");
    let drawings: Vec<_> = page.split("<svg").skip(1).collect();
    assert!(
        drawings.len() >= 4,
        "network, two hosts, latencies: {}",
        drawings.len()
    );
    for drawing in drawings {
        let end = drawing.find("</svg>").expect("every drawing ends");
        let text = format!("<svg{}</svg>", &drawing[..end]);
        let parsed = Document::parse(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
        let root = parsed.root_element();
        assert!(
            root.attribute("aria-label")
                .is_some_and(|label| !label.is_empty())
        );
        assert!(!text.contains("NaN") && !text.contains("inf\""), "{text}");
    }
}

fn junit_counts(directory: &Path) {
    let void = Outcome::failed(
        "burst_dial",
        Device::Ftwall,
        1,
        "ftwall is not ready".to_owned(),
    );
    write(directory, &[held(), leaked(), void, skipped()]);
    let text = read(directory, "junit.xml");
    let document = Document::parse(&text).expect("well formed");
    let suite = document
        .descendants()
        .find(|node| node.has_tag_name("testsuite"))
        .expect("one suite");
    let count = |name| {
        suite
            .attribute(name)
            .and_then(|text| text.parse::<u32>().ok())
    };
    assert_eq!(count("tests"), Some(4));
    assert_eq!(
        (count("failures"), count("errors"), count("skipped")),
        (Some(1), Some(1), Some(1))
    );
    let tagged = |name| {
        document
            .descendants()
            .filter(|node| node.has_tag_name(name))
            .collect::<Vec<_>>()
    };
    assert_eq!(tagged("testcase").len(), 4);
    assert_eq!(tagged("failure")[0].attribute("type"), Some("leaked"));
    assert!(
        tagged("error")[0]
            .text()
            .is_some_and(|text| text.contains("ftwall is not ready"))
    );
    assert_eq!(
        tagged("skipped")[0].attribute("message"),
        Some("nginx: not installed")
    );
}

fn outcomes_parse_back(directory: &Path) {
    let outcomes = vec![held(), leaked(), skipped()];
    write(directory, &outcomes);
    let text = read(directory, "outcomes.json");
    let document: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(document["totals"]["leaked"], 1);
    let back: Vec<Outcome> =
        serde_json::from_value(document["outcomes"].clone()).expect("outcomes");
    assert_eq!(back, outcomes);
}

fn a_flood_stays_small(directory: &Path) {
    let mut outcome = held();
    let timelines = outcome.timelines.as_mut().expect("made with one");
    let moments = timelines
        .on
        .hosts
        .get_mut("client1")
        .expect("made with one");
    for number in 0..50_000_u64 {
        let at = Duration::from_micros(number * 120);
        let peer = peer(u8::try_from(number % 250).expect("less than 250"));
        moments.push(Moment {
            at,
            what: What::Attempt {
                kind: AttemptKind::Ping,
                peer,
            },
        });
        moments.push(Moment {
            at,
            what: What::Forged { peer },
        });
    }
    write(directory, &[outcome]);
    let page = read(directory, "cold_start-1.html");
    assert!(page.len() < 300_000, "{} octets", page.len());
    assert!(page.contains(">50200<"), "all pings are counted");
}

fn many_seeds(directory: &Path) {
    let held = (1..=300).map(|seed| Outcome {
        seed,
        timelines: None,
        ..held()
    });
    let outcomes: Vec<_> = held
        .chain([Outcome {
            seed: 7,
            ..leaked()
        }])
        .collect();
    write(directory, &outcomes);
    let names: Vec<_> = pages(directory).into_iter().map(|(name, _)| name).collect();
    assert_eq!(
        names,
        ["cold_start-1.html", "index.html", "parallel_dial-7.html"]
    );
    let index = read(directory, "index.html");
    assert!(index.contains("299 more held"), "{index}");
    assert!(index.contains("scenarios=301 void=0 leaked=1"));
}

fn records_stay(directory: &Path) {
    for outcome in [held(), leaked()] {
        let place = records_directory(directory)
            .join(&outcome.scenario)
            .join("on");
        fs::create_dir_all(&place).expect("a place to write");
        fs::write(place.join("outside.pcap"), b"frames").expect("a place to write");
        settle_records(directory, &outcome).expect("they can be removed");
    }
    write(directory, &[held(), leaked()]);
    assert!(!records_directory(directory).join("cold_start").exists());
    let page = read(directory, "parallel_dial-1.html");
    assert!(page.contains("href=\"records/parallel_dial/on/outside.pcap\""));
}

// --- in a browser ---

/// Sizes as a browser lays them out, appended to a copy of a page: the pages themselves run nothing.
const MEASURE: &str = r#"<script>
const size = (node) => { const box = node.getBoundingClientRect(); return Math.round(Math.min(box.width, box.height)); };
const least = (name) => Math.min(...[...document.querySelectorAll(name)].map(size));
document.title = ["table", "svg", "svg circle", "svg rect.box", "svg text.label"].map((name) =>
  `${name}=${document.querySelectorAll(name).length}/${least(name)}`).join(";")
  + `;wide=${document.documentElement.scrollWidth}/${window.innerWidth}`;
</script>"#;

fn a_browser_lays_out(directory: &Path) {
    write(directory, &[held(), leaked()]);
    let index = measured(directory, "index.html", 1200);
    assert!(
        index.counted("table") == 1 && index.smallest("table") > 100,
        "{index:?}"
    );
    assert!(
        index.counted("svg") >= 4 && index.smallest("svg") > 10,
        "{index:?}"
    );
    let page = measured(directory, "cold_start-1.html", 1200);
    assert!(
        page.counted("table") >= 2 && page.smallest("table") > 50,
        "{page:?}"
    );
    assert!(
        page.counted("svg") >= 4 && page.smallest("svg") > 50,
        "{page:?}"
    );
    assert!(
        page.counted("svg circle") > 10 && page.smallest("svg circle") > 2,
        "{page:?}"
    );
    assert!(
        page.counted("svg rect.box") == 5 && page.smallest("svg rect.box") > 20,
        "{page:?}"
    );
    assert!(
        page.counted("svg text.label") > 10 && page.smallest("svg text.label") > 5,
        "{page:?}"
    );
}

fn no_page_is_wider_than_a_phone(directory: &Path) {
    write(directory, &[held(), leaked()]);
    // The narrowest window that the browser opens without a screen.
    for name in ["index.html", "cold_start-1.html", "parallel_dial-1.html"] {
        let page = measured(directory, name, 500);
        let (content, window) = page.size("wide");
        assert!(content <= window, "{name}: {page:?}");
    }
}

fn a_browser_paints(directory: &Path) {
    write(directory, &[held(), leaked()]);
    let picture = directory.join("index.png");
    let screenshot = format!("--screenshot={}", picture.display());
    browse(
        directory,
        "index.html",
        &["--window-size=1000,800", &screenshot],
    );
    let bytes = fs::read(&picture).expect("a picture was taken");
    assert_eq!(&bytes[1..4], b"PNG");
    assert_eq!(bytes[16..24], [0, 0, 3, 232, 0, 0, 3, 32], "1000 by 800");
    assert!(
        bytes.len() > 15_000,
        "an empty page takes less: {}",
        bytes.len()
    );
}

/// What a browser measured, as `name=number/size`, separated by semicolons.
#[derive(Debug)]
struct Measured(String);

impl Measured {
    fn size(&self, name: &str) -> (i64, i64) {
        let found = self
            .0
            .split(';')
            .find_map(|one| one.strip_prefix(name)?.strip_prefix('='));
        let (first, second) = found
            .and_then(|text| text.split_once('/'))
            .expect("it was measured");
        let number = |text: &str| text.parse().unwrap_or(0);
        (number(first), number(second))
    }

    fn counted(&self, name: &str) -> i64 {
        self.size(name).0
    }

    fn smallest(&self, name: &str) -> i64 {
        self.size(name).1
    }
}

fn measured(directory: &Path, name: &str, width: u32) -> Measured {
    let probe = format!("measured-{name}");
    let page = read(directory, name).replace("</body>", &format!("{MEASURE}</body>"));
    fs::write(directory.join(&probe), page).expect("a place to write");
    let window = format!("--window-size={width},900");
    let dom = browse(
        directory,
        &probe,
        &[&window, "--virtual-time-budget=2000", "--dump-dom"],
    );
    let title = dom
        .split("<title>")
        .nth(1)
        .and_then(|rest| rest.split("</title>").next());
    Measured(title.expect("a page has a title").to_owned())
}

/// Opens a page in a browser that knows nobody and asks nobody.
fn browse(directory: &Path, name: &str, options: &[&str]) -> String {
    let profile = directory.join(format!("profile-{name}"));
    let output = Command::new("timeout")
        .arg("120")
        .arg(chromium().expect("checked before"))
        .args([
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--no-first-run",
            "--hide-scrollbars",
        ])
        .args([
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
        ])
        .arg(format!("--user-data-dir={}", profile.display()))
        .args(options)
        .arg(format!("file://{}", directory.join(name).display()))
        .output()
        .expect("coreutils has timeout");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn chromium() -> Option<PathBuf> {
    if let Some(named) = env::var_os("CHROMIUM") {
        return Some(named.into());
    }
    let path = env::var_os("PATH").unwrap_or_else(|| OsString::from("/usr/bin"));
    env::split_paths(&path)
        .map(|directory| directory.join("chromium"))
        .find(|program| program.is_file())
}

// --- what is reported on ---

fn held() -> Outcome {
    let mut outcome = Outcome::skipped("cold_start", Device::Ftwall, 1, String::new());
    outcome.skipped = None;
    outcome.took = Duration::from_millis(12_500);
    let infected = HostOutcome {
        off: HostRun {
            level: Some(Level::Transfer),
            contacts: [
                (Level::ProbeOut, 200),
                (Level::Session, 5),
                (Level::Transfer, 1),
            ]
            .into(),
            attempts: 206,
            ..HostRun::default()
        },
        on: HostRun {
            attempts: 200,
            forged: 200,
            ..HostRun::default()
        },
    };
    let web = HostRun {
        web_requests: 20,
        web_worst: Duration::from_millis(30),
        ..HostRun::default()
    };
    let user = HostOutcome {
        off: web.clone(),
        on: web,
    };
    outcome.hosts = [
        ("client1".to_owned(), infected),
        ("client2".to_owned(), user),
    ]
    .into();
    outcome.timelines = Some(Timelines {
        off: timeline(true),
        on: timeline(false),
    });
    outcome
}

fn leaked() -> Outcome {
    let flow = Flow {
        transport: Transport::Tcp,
        inside: "10.77.1.1:40000".parse().expect("an address"),
        peer: "198.18.0.7:2000".parse().expect("an address"),
    };
    let sighting = Sighting {
        at_us: BEGAN_US + 250_000,
        witness: Witness::OutsideWire,
        direction: Direction::Outward,
        host: "client1".to_owned(),
        flow,
        level: Level::Session,
    };
    let mut outcome = Outcome {
        scenario: "parallel_dial".to_owned(),
        ..held()
    };
    outcome.findings = vec![Finding::Leak {
        sighting,
        contacts: 3,
        allowed: 0,
    }];
    let on = &mut outcome.hosts.get_mut("client1").expect("made with one").on;
    on.contacts = [(Level::Session, 3)].into();
    on.level = Some(Level::Session);
    outcome
}

fn skipped() -> Outcome {
    Outcome::skipped(
        "web_real",
        Device::Ftwall,
        1,
        "nginx: not installed".to_owned(),
    )
}

const BEGAN_US: u64 = 1_700_000_000_000_000;

/// Two hundred pings and five dials, of which something comes or nothing; and a user.
fn timeline(is_open: bool) -> Timeline {
    let mut client = Vec::new();
    for number in 0..200 {
        let (at, peer) = (Duration::from_micros(number * 90), peer(number as u8));
        client.push(Moment {
            at,
            what: What::Attempt {
                kind: AttemptKind::Ping,
                peer,
            },
        });
        if is_open {
            client.push(reached(at, peer, Level::ProbeOut));
        } else {
            client.push(Moment {
                at,
                what: What::Forged { peer },
            });
        }
    }
    if is_open {
        for level in [
            Level::Touched,
            Level::Opened,
            Level::Session,
            Level::Transfer,
        ] {
            client.push(reached(
                Duration::from_millis(30 + 10 * level as u64),
                peer(3),
                level,
            ));
        }
    } else {
        let evidence = Some("udp_ping".to_owned());
        client.push(Moment {
            at: Duration::from_millis(2),
            what: What::Locked { evidence },
        });
    }
    let request = |number: u64| Moment {
        at: Duration::from_millis(100 * number),
        what: What::Web {
            kind: ["http1", "tls_h1"][number as usize % 2].to_owned(),
            end: End::Ok(Duration::from_micros(900 + 731 * number)),
        },
    };
    let user = (0..20).map(request).collect();
    Timeline {
        began_us: BEGAN_US,
        length: Duration::from_secs(6),
        hosts: [("client1".to_owned(), client), ("client2".to_owned(), user)].into(),
    }
}

fn reached(at: Duration, peer: std::net::SocketAddrV4, level: Level) -> Moment {
    let what = What::Reached {
        kind: Some(AttemptKind::Dial),
        level,
        peer,
        witness: Witness::Peer,
    };
    Moment { at, what }
}

fn peer(number: u8) -> std::net::SocketAddrV4 {
    std::net::SocketAddrV4::new([198, 18, 0, number].into(), 1214)
}

// --- writing and reading ---

fn write(directory: &Path, outcomes: &[Outcome]) {
    let scenarios: Vec<_> = outcomes
        .iter()
        .map(|outcome| catalog::find(&outcome.scenario).expect("one of the catalogue"))
        .collect();
    let entries = scenarios
        .iter()
        .zip(outcomes)
        .map(|(scenario, outcome)| Entry { scenario, outcome });
    Report::new(entries.collect())
        .write(directory)
        .expect("a place to write");
}

fn read(directory: &Path, name: &str) -> String {
    fs::read_to_string(directory.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// Every page by name, in order.
fn pages(directory: &Path) -> Vec<(String, String)> {
    let mut names: Vec<_> = fs::read_dir(directory)
        .expect("it was written")
        .map(|entry| {
            entry
                .expect("readable")
                .file_name()
                .to_string_lossy()
                .into_owned()
        })
        .filter(|name| name.ends_with(".html"))
        .collect();
    names.sort();
    names
        .into_iter()
        .map(|name| (name.clone(), read(directory, &name)))
        .collect()
}

fn fresh(name: &str) -> PathBuf {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    if directory.exists() {
        fs::remove_dir_all(&directory).expect("left by an earlier run");
    }
    fs::create_dir_all(&directory).expect("a place to write");
    directory
}
