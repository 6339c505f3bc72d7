//! The field's own yardsticks: iperf3 for streams, nginx and wrk for connections.

use std::fs;
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use lab::{Process, Spec};
use serde_json::Value;

use super::clock::{now, sleep_until};
use super::ends::Style;
use super::office::{Gateway, PATIENCE};

/// Programs that one load needs, and the Debian package that holds each.
pub(super) const IPERF: &[(&str, &str)] = &[("iperf3", "iperf3")];
/// As [`IPERF`].
pub(super) const WRK: &[(&str, &str)] = &[("wrk", "wrk"), ("nginx", "nginx-light")];
/// As [`IPERF`].
pub(super) const WRK_TLS: &[(&str, &str)] = &[
    ("wrk", "wrk"),
    ("nginx", "nginx-light"),
    ("openssl", "openssl"),
];

/// The server's address; all of the web's belong to one node.
const SERVER: &str = "203.0.113.80";

/// Packages whose programs are not on the path.
pub(super) fn missing(programs: &[(&str, &'static str)]) -> Vec<&'static str> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let is_there = |program: &str| {
        std::env::split_paths(&path).any(|directory| directory.join(program).is_file())
    };
    let absent = programs.iter().filter(|(program, _)| !is_there(program));
    absent.map(|(_, package)| *package).collect()
}

/// Megabits a second of one stream by iperf3, as received.
pub(super) fn stream(gateway: &Gateway, lasting: Duration) -> anyhow::Result<f64> {
    let server = Spec::new("iperf3").args(["-s", "-1", "--forceflush"]);
    let mut server = gateway.node("out").spawn(&server)?;
    server.wait_line(|line| line.contains("listening"), PATIENCE)?;
    let seconds = format!("{}", lasting.as_secs().max(1));
    let client = Spec::new("iperf3").args(["-c", SERVER, "-J", "-t", &seconds]);
    let output = gateway.node("client1").run(&client)?;
    let report: Value = serde_json::from_str(&output.stdout).context("reading iperf3's report")?;
    server.wait_exit(PATIENCE)?;
    let speed = report.pointer("/end/sum_received/bits_per_second");
    let bits = speed.and_then(Value::as_f64);
    bits.map(|bits| bits / 1e6)
        .with_context(|| format!("iperf3 measured nothing: {}", report["error"]))
}

/// New connections a second by wrk against nginx.
pub(super) fn connections(
    gateway: &Gateway,
    style: Style,
    lasting: Duration,
) -> anyhow::Result<f64> {
    let _server = start_nginx(gateway, style)?;
    let scheme = match style {
        Style::Http => "http",
        Style::Tls => "https",
    };
    let seconds = format!("{}s", lasting.as_secs().max(1));
    let client = Spec::new("wrk")
        .args(["-t1", "-c8", "-d", &seconds, "-H", "Connection: close"])
        .arg(format!("{scheme}://{SERVER}/"));
    let output = gateway.node("client1").run(&client)?;
    ensure!(output.success(), "wrk: {}", output.stderr.trim());
    let speed = output
        .stdout
        .lines()
        .find_map(|line| line.trim().strip_prefix("Requests/sec:"));
    let speed = speed.context("wrk does not say how many requests a second")?;
    Ok(speed.trim().parse()?)
}

fn start_nginx(gateway: &Gateway, style: Style) -> anyhow::Result<Process> {
    let directory = lab::capsule::private_dir().join("nginx");
    fs::create_dir_all(&directory).context("a directory for nginx")?;
    let path = directory.display().to_string();
    let certificate = format!("{path}/cert.pem");
    if style == Style::Tls && !fs::exists(&certificate)? {
        make_certificate(gateway, &certificate, &format!("{path}/key.pem"))?;
    }
    let configuration = directory.join("nginx.conf");
    fs::write(&configuration, nginx_configuration(style, &path)).context("configuring nginx")?;
    let file = configuration.display().to_string();
    let server = gateway
        .node("out")
        .spawn(&Spec::new("nginx").args(["-e", "stderr", "-p", &path, "-c", &file]))?;
    wait_listening(gateway, style)?;
    Ok(server)
}

fn make_certificate(gateway: &Gateway, certificate: &str, key: &str) -> anyhow::Result<()> {
    let request = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 \
        -subj /CN=bench.example";
    let spec = Spec::new("openssl").args(request.split_whitespace()).args([
        "-out",
        certificate,
        "-keyout",
        key,
    ]);
    let output = gateway.node("out").run(&spec)?;
    ensure!(output.success(), "openssl: {}", output.stderr.trim());
    Ok(())
}

/// One process without a change of user: a user namespace has only one.
fn nginx_configuration(style: Style, directory: &str) -> String {
    let listen = match style {
        Style::Http => "listen 80;".to_owned(),
        Style::Tls => format!(
            "listen 443 ssl; ssl_certificate {directory}/cert.pem; \
             ssl_certificate_key {directory}/key.pem;"
        ),
    };
    format!(
        "user root root; daemon off; master_process off; pid {directory}/nginx.pid;
events {{ worker_connections 4096; }}
http {{
    access_log off;
    client_body_temp_path {directory}/body; proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi; uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    server {{ {listen} location / {{ return 200 \"Hello, world\\n\"; }} }}
}}
"
    )
}

/// nginx does not say when it listens.
fn wait_listening(gateway: &Gateway, style: Style) -> anyhow::Result<()> {
    let port = match style {
        Style::Http => 80,
        Style::Tls => 443,
    };
    let deadline = now() + PATIENCE;
    while now() < deadline {
        let dialed = gateway
            .node("out")
            .enter(|| TcpStream::connect(("127.0.0.1", port)))?;
        if dialed.is_ok() {
            return Ok(());
        }
        sleep_until(now() + Duration::from_millis(5));
    }
    bail!("nginx does not listen on port {port}")
}
