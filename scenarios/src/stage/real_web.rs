//! Real programs across the gateway: Debian's nginx outside, curl inside.
//!
//! curl's outcomes become lines like those of the simulator's control group, so that the judge treats
//! them alike.

use std::fs::{self, File};
use std::io::{BufReader, BufWriter, Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use lab::{Lab, Node, Process, Spec};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use simulator::report::{Event, Line, RequestId};

use super::namespaces::{Players, epoch_us};
use crate::observe::HostLine;
use crate::scenario::{Actor, RealWeb, Scenario, host_name};

/// The address nginx answers at.
const SERVER: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 90);

/// Octets of the page that is fetched again and again.
const PAGE: u64 = 20_000;

/// How often the page is fetched each way.
const REPEATS: usize = 5;

/// Time for nginx to open its ports.
const READY: Duration = Duration::from_secs(10);

/// After so long curl gives up.
const PATIENCE: Duration = Duration::from_secs(30);

/// One way of fetching: name, what curl is told, scheme, file, and the version it must have used.
struct Way {
    kind: &'static str,
    options: &'static [&'static str],
    scheme: &'static str,
    file: &'static str,
    version: &'static str,
}

const WAYS: [Way; 4] = [
    Way {
        kind: "curl_http1",
        options: &["--http1.1"],
        scheme: "http",
        file: "page",
        version: "1.1",
    },
    Way {
        kind: "curl_https_h1",
        options: &["--http1.1", "--insecure"],
        scheme: "https",
        file: "page",
        version: "1.1",
    },
    Way {
        kind: "curl_https_h2",
        options: &["--http2", "--insecure"],
        scheme: "https",
        file: "page",
        version: "2",
    },
    DOWNLOAD,
];

const DOWNLOAD: Way = Way {
    kind: "curl_download",
    options: &["--http1.1"],
    scheme: "http",
    file: "download",
    version: "1.1",
};

/// Lets nginx and curl act while the others do; returns nothing where no scenario asks for it.
pub(super) fn play(
    scenario: &Scenario,
    lab: &Lab,
    inside: &Players,
    seed: u64,
) -> anyhow::Result<Vec<HostLine>> {
    let mut lines = Vec::new();
    for actor in &scenario.cast {
        if let Actor::RealWeb(web) = actor {
            lines.extend(fetch_everything(web, lab, inside, seed)?);
        }
    }
    Ok(lines)
}

fn fetch_everything(
    web: &RealWeb,
    lab: &Lab,
    inside: &Players,
    seed: u64,
) -> anyhow::Result<Vec<HostLine>> {
    let directory = lab::capsule::private_dir().join("real-web");
    let mut nginx = start_nginx(lab.node("out"), &directory, web.download, seed)?;
    // An infected host is to be locked by the time its curl begins.
    for host in &web.hosts {
        inside.await_line(&host_name(*host), |line| line.contains(r#""part":"ping""#))?;
    }
    let fetched = thread::scope(|scope| {
        let fetching: Vec<_> = web
            .hosts
            .iter()
            .map(|host| {
                let name = host_name(*host);
                let directory = &directory;
                scope.spawn(move || {
                    User {
                        node: lab.node(&name),
                        name,
                        directory,
                    }
                    .fetch_all()
                })
            })
            .collect();
        fetching
            .into_iter()
            .map(|thread| thread.join().expect("fetching does not panic"))
            .collect::<anyhow::Result<Vec<_>>>()
    });
    nginx.stop(Duration::from_secs(5))?;
    fs::remove_dir_all(&directory).context("removing the site")?;
    Ok(fetched?.into_iter().flatten().collect())
}

/// Writes a site and serves it. One process without a change of user: a user namespace has only one.
fn start_nginx(
    outside: &Node,
    directory: &Path,
    download: u64,
    seed: u64,
) -> anyhow::Result<Process> {
    let site = directory.join("site");
    fs::create_dir_all(&site)?;
    write_file(&site.join("page"), PAGE, seed)?;
    write_file(&site.join("download"), download, seed.wrapping_add(1))?;
    let made = rcgen::generate_simple_self_signed(["web.example".to_owned()])?;
    fs::write(directory.join("cert.pem"), made.cert.pem())?;
    fs::write(directory.join("key.pem"), made.signing_key.serialize_pem())?;
    let configuration = directory.join("nginx.conf");
    fs::write(&configuration, nginx_conf(directory))?;
    let spec = Spec::new("nginx")
        .args(["-e", "/dev/stdout", "-p"])
        .arg(directory);
    let process = outside.spawn(&spec.arg("-c").arg(&configuration))?;
    // Said once the ports are open.
    process
        .wait_line(|line| line.contains("event method"), READY)
        .context("nginx is not ready")?;
    Ok(process)
}

fn nginx_conf(directory: &Path) -> String {
    let at = directory.display();
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .iter()
        .map(|kind| format!("  {kind}_temp_path {at}/{kind};\n"))
        .collect();
    format!(
        "user root root;\ndaemon off;\nmaster_process off;\npid {at}/nginx.pid;\nerror_log /dev/stdout notice;\n\
         events {{}}\n\
         http {{\n  access_log off;\n{temporary}\
         \x20 server {{\n    listen {SERVER}:80;\n    listen {SERVER}:443 ssl http2;\n    \
         ssl_certificate {at}/cert.pem;\n    ssl_certificate_key {at}/key.pem;\n    \
         root {at}/site;\n  }}\n}}\n"
    )
}

fn write_file(path: &Path, octets: u64, seed: u64) -> anyhow::Result<()> {
    let mut file = BufWriter::new(File::create(path)?);
    let mut rng = SmallRng::seed_from_u64(seed);
    let mut chunk = vec![0; 1 << 16];
    let mut left = octets;
    while left > 0 {
        let length = usize::try_from(left).unwrap_or(usize::MAX).min(chunk.len());
        rng.fill_bytes(&mut chunk[..length]);
        file.write_all(&chunk[..length])?;
        left -= length as u64;
    }
    file.flush()
        .with_context(|| format!("writing {}", path.display()))
}

/// Somebody with curl on an inside host.
struct User<'a> {
    node: &'a Node,
    name: String,
    directory: &'a Path,
}

impl User<'_> {
    fn fetch_all(&self) -> anyhow::Result<Vec<HostLine>> {
        let pages = WAYS.iter().filter(|way| way.kind != DOWNLOAD.kind);
        let ways: Vec<_> = (0..REPEATS)
            .flat_map(|_| pages.clone())
            .chain([&DOWNLOAD])
            .collect();
        let mut lines = Vec::new();
        for (id, way) in ways.into_iter().enumerate() {
            lines.extend(self.fetch(RequestId(id as u64), way)?);
        }
        Ok(lines)
    }

    /// Fetches once; a failure is a line of the report.
    fn fetch(&self, id: RequestId, way: &Way) -> anyhow::Result<[HostLine; 2]> {
        let port = if way.scheme == "https" { 443 } else { 80 };
        let server = SocketAddr::from((SERVER, port));
        let asked = self.line(Event::WebRequest {
            id,
            kind: way.kind.to_owned(),
            server,
        });
        let into = self.directory.join(format!("{}-{}", self.name, way.kind));
        let began_us = asked.line.t_us;
        let fetched = self.curl(way, &into);
        let micros = epoch_us().saturating_sub(began_us);
        let checked = fetched.and_then(|said| self.check(way, &said, &into));
        // A connection refused leaves no file, and no further trace is wanted of one that was made.
        drop(fs::remove_file(&into));
        let event = Event::WebResult {
            id,
            kind: way.kind.to_owned(),
            ok: checked.is_ok(),
            micros,
            bytes: *checked.as_ref().unwrap_or(&0),
            error: checked.err().map(|error| format!("{error:#}")),
        };
        Ok([asked, self.line(event)])
    }

    fn line(&self, event: Event) -> HostLine {
        let who = format!("{}-curl", self.name);
        HostLine {
            host: self.name.clone(),
            line: Line {
                t_us: epoch_us(),
                who,
                event,
            },
        }
    }

    fn curl(&self, way: &Way, into: &PathBuf) -> anyhow::Result<String> {
        let spec = Spec::new("curl")
            .args(["--silent", "--show-error", "--fail", "--max-time"])
            .arg(PATIENCE.as_secs().to_string())
            .args(["--write-out", "%{http_version} %{http_code}", "--output"])
            .arg(into)
            .args(way.options)
            .arg(format!("{}://{SERVER}/{}", way.scheme, way.file));
        let output = self.node.run(&spec)?;
        ensure!(output.success(), "curl: {}", output.stderr.trim());
        Ok(output.stdout)
    }

    /// Compares version, status and every octet; returns how many there were.
    fn check(&self, way: &Way, said: &str, got: &Path) -> anyhow::Result<u64> {
        let wanted = format!("{} 200", way.version);
        ensure!(
            said.trim() == wanted,
            "curl says `{}`, not `{wanted}`",
            said.trim()
        );
        same_octets(&self.directory.join("site").join(way.file), got)
    }
}

fn same_octets(one: &Path, other: &Path) -> anyhow::Result<u64> {
    let mut one = BufReader::new(File::open(one)?);
    let mut other = BufReader::new(File::open(other)?);
    let mut chunks = (vec![0; 1 << 16], vec![0; 1 << 16]);
    let mut compared = 0;
    loop {
        let lengths = (
            read_full(&mut one, &mut chunks.0)?,
            read_full(&mut other, &mut chunks.1)?,
        );
        if lengths.0 != lengths.1 || chunks.0[..lengths.0] != chunks.1[..lengths.1] {
            bail!(
                "the file that arrived differs within {} octets of {compared}",
                chunks.0.len()
            );
        }
        if lengths.0 == 0 {
            return Ok(compared);
        }
        compared += lengths.0 as u64;
    }
}

/// Fills the buffer unless the file ends first; returns how much was read.
fn read_full(from: &mut impl Read, into: &mut [u8]) -> anyhow::Result<usize> {
    let mut filled = 0;
    while filled < into.len() {
        match from.read(&mut into[filled..])? {
            0 => break,
            read => filled += read,
        }
    }
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file of this test process alone, removed at the end.
    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str, octets: u64, seed: u64) -> Self {
            let name = format!("scenarios-{}-{name}", std::process::id());
            let path = std::env::temp_dir().join(name);
            write_file(&path, octets, seed).expect("the temporary directory takes files");
            Self(path)
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            drop(fs::remove_file(&self.0));
        }
    }

    #[test]
    fn files_of_the_same_seed_are_equal_to_the_last_octet() {
        let (one, other) = (
            Scratch::new("one", 100_000, 5),
            Scratch::new("other", 100_000, 5),
        );
        assert_eq!(same_octets(&one.0, &other.0).unwrap(), 100_000);
    }

    #[test]
    fn a_changed_octet_and_a_missing_end_are_noticed() {
        let site = Scratch::new("site", 100_000, 5);
        let changed = Scratch::new("changed", 100_000, 5);
        let mut content = fs::read(&changed.0).unwrap();
        content[70_000] ^= 1;
        fs::write(&changed.0, &content).unwrap();
        assert!(same_octets(&site.0, &changed.0).is_err());
        let short = Scratch::new("short", 99_999, 5);
        assert!(same_octets(&site.0, &short.0).is_err());
    }
}
