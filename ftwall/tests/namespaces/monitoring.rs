//! Metrics as a real Prometheus scrapes them, the shipped alerts and dashboard against it, and the status
//! page in a real browser.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use ftwall::http::METRICS;
use serde_json::Value;

use super::GIFT_PING;
use super::harness::{Daemon, in_namespaces, run, skip, wait_for, words};
use super::network::{at, build_network, udp};

const ADDRESS: &str = "127.0.0.1:9477";
const PROMETHEUS: &str = "127.0.0.1:9090";
const ALERTS: &str = "../packaging/prometheus/alerts.yml";
const DASHBOARD: &str = "../packaging/grafana/ftwall.json";

#[test]
fn every_metric_that_alerts_and_dashboard_name_exists() {
    let known: Vec<_> = METRICS.iter().map(|metric| metric.name).collect();
    for (file, least) in [(ALERTS, 6), (DASHBOARD, 15)] {
        let text = std::fs::read_to_string(file).expect("it is shipped");
        let named = metrics_in(&text);
        assert!(named.len() >= least, "{file}: {named:?}");
        for name in named {
            assert!(known.contains(&name.as_str()), "{file}: there is no {name}");
        }
    }
}

#[test]
fn a_real_prometheus_scrapes_a_locked_client_and_knows_every_query_that_is_shipped() {
    let name = "monitoring::a_real_prometheus_scrapes_a_locked_client_and_knows_every_query_that_is_shipped";
    for program in ["prometheus", "promtool", "curl"] {
        if !is_installed(program) {
            return skip(name, &format!("{program} is not installed"));
        }
    }
    in_namespaces(name, || {
        let Some(daemon) = daemon_with_a_locked_client() else {
            return;
        };
        let checked = run("promtool", &["check", "rules", ALERTS]);
        assert!(checked.status.success(), "{}", words(&checked.stderr));
        let metrics = get(ADDRESS, "/metrics", "");
        assert_lints(&metrics);
        assert!(
            metrics.contains("ftwall_clients{state=\"locked\"} 1\n"),
            "{metrics}"
        );
        assert!(
            !metrics.contains("10.77.1.1"),
            "no address is a label: {metrics}"
        );

        let prometheus = Prometheus::start();
        wait_for("a scrape", || query("ftwall_clients == 1").is_some());
        assert_eq!(query("up{job=\"ftwall\"}").as_deref(), Some("1"));
        assert_eq!(query("ftwall_rules_present").as_deref(), Some("1"));
        assert_eq!(query("ftwall_peers_learned_total").as_deref(), Some("1"));
        assert_eq!(query("ftwall_state_writable").as_deref(), Some("1"));
        for expression in dashboard_queries() {
            let answer = asked(&expression);
            assert_eq!(answer["status"], "success", "{expression}: {answer}");
        }
        let rules = json(&curl("/api/v1/rules", &[]));
        let groups = rules["data"]["groups"][0]["rules"].as_array();
        assert_eq!(groups.map(Vec::len), Some(7), "{rules}");

        // What an administrator's flush does to the rules is seen, and mended.
        assert!(
            at("gw", || run("nft", &["delete", "table", "inet", "ftwall"]))
                .status
                .success()
        );
        wait_for("the loss to be seen", || {
            query("ftwall_rules_restored_total == 1").is_some()
        });
        assert_eq!(query("ftwall_rules_present").as_deref(), Some("1"));
        drop(prometheus);
        daemon.end("TERM");
    });
}

#[test]
fn the_status_page_shows_a_locked_client_in_a_browser() {
    let name = "monitoring::the_status_page_shows_a_locked_client_in_a_browser";
    if !is_installed("chromium") {
        return skip(name, "chromium is not installed");
    }
    in_namespaces(name, || {
        let Some(daemon) = daemon_with_a_locked_client() else {
            return;
        };
        let dom = words(&browse(&["--dump-dom", &format!("http://{ADDRESS}/")]).stdout);
        for shown in [
            "healthy",
            "<td>10.77.1.1</td>",
            "<td>198.18.0.9:1214</td>",
            "<svg",
        ] {
            assert!(dom.contains(shown), "no {shown} in {dom}");
        }
        // The page forbids scripts, so that a copy of it is measured.
        let page = get(ADDRESS, "/", "").replace("</body>", &format!("{MEASURE}</body>"));
        std::fs::write("/run/measured.html", page).expect("the disk is ours");
        let options = [
            "--window-size=500,900",
            "--virtual-time-budget=2000",
            "--dump-dom",
        ];
        let measured = browse(&[&options[..], &["file:///run/measured.html"]].concat());
        let measured = words(&measured.stdout);
        let title = measured
            .split("<title>")
            .nth(1)
            .expect("a page has a title");
        let sizes: Vec<u32> = title
            .split("</title>")
            .next()
            .into_iter()
            .flat_map(|title| title.split(' '))
            .map(|size| size.parse().expect("a whole number"))
            .collect();
        let [tables, drawing, content, window] = sizes[..] else {
            panic!("{title}");
        };
        assert!(tables == 3 && drawing > 50, "{sizes:?}");
        assert!(content <= window, "wider than a phone: {sizes:?}");
        let picture = "/run/page.png";
        let page = format!("http://{ADDRESS}/");
        browse(&[
            "--window-size=900,900",
            &format!("--screenshot={picture}"),
            &page,
        ]);
        let octets = std::fs::read(picture).expect("a picture was taken");
        assert!(
            octets.starts_with(b"\x89PNG") && octets.len() > 10_000,
            "{}",
            octets.len()
        );
        daemon.end("TERM");
    });
}

/// Tables, the drawing's height, and the widths of content and window.
const MEASURE: &str = r#"<script>
const box = (name) => document.querySelector(name).getBoundingClientRect();
document.title = [document.querySelectorAll("table").length, Math.round(box("svg").height),
  document.documentElement.scrollWidth, window.innerWidth].join(" ");
</script>"#;

#[test]
fn a_socket_shows_the_same_to_whom_its_permissions_let_in() {
    let name = "monitoring::a_socket_shows_the_same_to_whom_its_permissions_let_in";
    if !is_installed("curl") {
        return skip(name, "curl is not installed");
    }
    in_namespaces(name, || {
        let socket = "/run/ftwall-http.sock";
        let Some(daemon) = Daemon::start(&["--http-listen", socket]) else {
            return;
        };
        let asked = [
            "-s",
            "-H",
            "Accept: application/openmetrics-text",
            "--unix-socket",
            socket,
        ];
        let answer = run(
            "curl",
            &[&asked[..], &["http://localhost/metrics"]].concat(),
        );
        let text = words(&answer.stdout);
        assert!(text.contains("# TYPE ftwall_packets counter\n"), "{text}");
        assert!(text.ends_with("# EOF\n"), "{text}");
        let foreign = ["-s", "--unix-socket", socket, "http://rebound.example/"];
        assert_eq!(
            words(&run("curl", &foreign).stdout),
            "421 Misdirected Request\n"
        );
        assert_eq!(daemon.end("TERM").code(), Some(0));
        assert!(!Path::new(socket).exists());
    });
}

fn daemon_with_a_locked_client() -> Option<Daemon> {
    build_network();
    let options = [
        "--inside",
        "10.77.0.0/16",
        "--state-directory",
        "/run/state",
    ];
    let options = [&options[..], &["--http-listen", ADDRESS]].concat();
    let mut daemon = at("gw", || Daemon::start(&options))?;
    let client = udp("client", "10.77.1.1:2301");
    client
        .send_to(GIFT_PING, "198.18.0.9:1214")
        .expect("the network is up");
    daemon.wait_event("client.locked");
    Some(daemon)
}

/// Prometheus with a job for ftwall and the shipped alerts.
struct Prometheus(Child);

impl Prometheus {
    fn start() -> Self {
        let alerts = std::fs::canonicalize(ALERTS).expect("it is shipped");
        let config = format!(
            "global: {{scrape_interval: 1s, evaluation_interval: 1s}}\n\
            rule_files: [\"{}\"]\n\
            scrape_configs:\n- job_name: ftwall\n  static_configs: [{{targets: [\"{ADDRESS}\"]}}]\n",
            alerts.display()
        );
        std::fs::write("/run/prometheus.yml", config).expect("the disk is ours");
        let mut child = at("gw", || {
            Command::new("prometheus")
                .args([
                    "--config.file=/run/prometheus.yml",
                    "--storage.tsdb.path=/run/tsdb",
                ])
                .arg(format!("--web.listen-address={PROMETHEUS}"))
                .stderr(Stdio::piped())
                .spawn()
                .expect("it is installed")
        });
        let log = BufReader::new(child.stderr.take().expect("it is piped"));
        let mut lines = log.lines().map_while(Result::ok);
        let is_ready = lines.any(|line| line.contains("Server is ready to receive web requests"));
        assert!(is_ready, "prometheus ended before it was ready");
        // Its log must not fill the pipe.
        std::thread::spawn(move || lines.for_each(drop));
        Self(child)
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The first value that an expression has now.
fn query(expression: &str) -> Option<String> {
    let answer = asked(expression);
    let value = answer["data"]["result"][0]["value"][1].as_str();
    value.map(str::to_owned)
}

fn asked(expression: &str) -> Value {
    let query = format!("query={expression}");
    json(&curl("/api/v1/query", &["-G", "--data-urlencode", &query]))
}

fn curl(path: &str, options: &[&str]) -> Output {
    let address = format!("http://{PROMETHEUS}{path}");
    at("gw", || run("curl", &[&["-s", &address], options].concat()))
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", words(&output.stdout)))
}

/// Every expression of the dashboard, with what Grafana would put in.
fn dashboard_queries() -> Vec<String> {
    let text = std::fs::read_to_string(DASHBOARD).expect("it is shipped");
    let dashboard: Value = serde_json::from_str(&text).expect("it is JSON");
    let panels = dashboard["panels"].as_array().expect("a list of panels");
    let targets = panels
        .iter()
        .filter_map(|panel| panel["targets"].as_array())
        .flatten();
    let expressions = targets.filter_map(|target| target["expr"].as_str());
    let filled = expressions.map(|expression| {
        let expression = expression.replace("$__rate_interval", "1m");
        expression.replace("$instance", ".*")
    });
    let filled: Vec<_> = filled.collect();
    assert!(filled.len() > 20, "{filled:?}");
    filled
}

/// Every name of a metric in a text, without what histograms add.
fn metrics_in(text: &str) -> Vec<String> {
    let words = text.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_');
    let names = words.filter(|word| word.starts_with("ftwall_"));
    let mut names: Vec<_> = names
        .map(|name| {
            let endings = ["_bucket", "_sum", "_count"];
            let family = endings.iter().find_map(|ending| name.strip_suffix(ending));
            family.unwrap_or(name).to_owned()
        })
        .collect();
    names.sort();
    names.dedup();
    names
}

fn assert_lints(metrics: &str) {
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it is installed");
    let mut input = promtool.stdin.take().expect("it is piped");
    input.write_all(metrics.as_bytes()).expect("it reads");
    drop(input);
    let output = promtool.wait_with_output().expect("it was started here");
    let complaints = words(&output.stdout) + &words(&output.stderr);
    assert!(
        output.status.success() && complaints.is_empty(),
        "{complaints}"
    );
}

/// The body of a document.
pub(crate) fn get(address: &str, path: &str, fields: &str) -> String {
    let mut stream = at("gw", || TcpStream::connect(address)).expect("it listens");
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\n{fields}\r\n");
    stream.write_all(request.as_bytes()).expect("it reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("it is text");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    body.to_owned()
}

/// A browser on the gateway that knows nobody.
fn browse(options: &[&str]) -> Output {
    let output = at("gw", || {
        Command::new("timeout")
            .args([
                "120",
                "chromium",
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
            ])
            .args([
                "--no-first-run",
                "--hide-scrollbars",
                "--disable-background-networking",
            ])
            .args([
                "--disable-component-update",
                "--disable-sync",
                "--disable-dev-shm-usage",
            ])
            .arg("--user-data-dir=/run/profile")
            .args(options)
            .output()
            .expect("coreutils has timeout")
    });
    assert!(output.status.success(), "{}", words(&output.stderr));
    output
}

fn is_installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|directory| directory.join(program).is_file())
}
