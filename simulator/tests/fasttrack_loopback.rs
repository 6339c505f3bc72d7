//! Clients and peers on real sockets of the loopback interface, with nothing between them: whatever a
//! gateway is later said to have stopped must happen here.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ipnet::Ipv4Net;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use simulator::cli::Until;
use simulator::client::ClientConfig;
use simulator::clock::Clock;
use simulator::net::{ClientRun, PeersRun, run_client, run_peers};
use simulator::peer::PeersConfig;
use simulator::population::{PORT_RANGE, Population};
use simulator::profile::{self, Opener, Profile};
use simulator::report::{AttemptKind, Event, Line, Part};
use simulator::reporter::{DoneReason, Reporter};
use simulator::seed::Seed;
use tokio::sync::oneshot;
use tokio::task::{JoinHandle, LocalSet};

/// Long enough for the slowest machine; no test waits for it unless it fails.
const PATIENCE: Duration = Duration::from_secs(30);

/// An ordinary user may bind these, unlike 80 and 443.
const WEB_PORTS: [u16; 2] = [10_080, 10_443];

#[test]
fn every_profile_joins_and_gets_or_gives_the_whole_file() {
    outside(None, |population| async move {
        for profile in profile::PROFILES {
            let (reason, lines) = inside(profile, &population, |_| {}).await;
            assert_eq!(reason, DoneReason::Contact, "{}", profile.name);
            assert_eq!(session_up(&lines), profile.joins(), "{}", profile.name);
            assert!(transfer_done(&lines), "{}", profile.name);
        }
    });
}

#[test]
fn a_client_that_starts_later_sits_still_until_then() {
    const LATER: Duration = Duration::from_millis(300);
    outside(None, |population| async move {
        let (reason, lines) =
            inside(&profile::GIFT, &population, |run| run.start_after = LATER).await;
        assert_eq!(reason, DoneReason::Contact);
        let at = |wanted: fn(&Event) -> bool| {
            let line = lines.iter().find(|line| wanted(&line.event));
            line.unwrap().t_us
        };
        let ready = at(|event| matches!(event, Event::Ready));
        let attempt = at(|event| matches!(event, Event::Attempt { .. }));
        assert!(
            attempt - ready >= LATER.as_micros() as u64,
            "{ready} {attempt}"
        );
    });
}

#[test]
fn both_sides_cut_to_single_bytes_still_make_contact_and_peers_see_every_byte_alone() {
    let lines = outside(Some(1), |population| async move {
        let (reason, lines) =
            inside(&profile::GIFT, &population, |run| run.segment = Some(1)).await;
        assert_eq!(reason, DoneReason::Contact);
        assert!(transfer_done(&lines));
    });
    let opener: u64 = lines
        .iter()
        .map(|line| received_by_peers(line, Part::Opener))
        .sum();
    assert!(opener >= 12, "{opener}");
}

#[test]
fn both_accounts_of_a_contact_name_the_same_addresses() {
    let found = Arc::new(Mutex::new(Vec::new()));
    let inside_lines = found.clone();
    let outside_lines = outside(None, |population| async move {
        let (_, lines) = inside(&profile::SEQUENTIAL, &population, |_| {}).await;
        *inside_lines.lock().unwrap() = lines;
    });
    let inside_lines = found.lock().unwrap();
    let dialled = inside_lines.iter().filter_map(|line| match line.event {
        Event::Attempt {
            kind: AttemptKind::Dial,
            local,
            peer,
            ..
        } => Some((local, peer)),
        _ => None,
    });
    let accepted: Vec<(SocketAddr, SocketAddr)> = outside_lines
        .iter()
        .filter_map(|line| match line.event {
            Event::PeerConnected { local, remote } => Some((remote, local)),
            _ => None,
        })
        .collect();
    for pair in dialled {
        assert!(accepted.contains(&pair), "{pair:?} in {accepted:?}");
    }
}

#[test]
fn openers_that_do_not_look_encrypted_and_transfers_on_a_web_port_make_contact_too() {
    outside(None, |population| async move {
        let (reason, lines) = inside(&profile::SILENT, &population, |run| {
            run.config.profile.opener = Opener::PlainLooking;
            run.config.transfer_port = Some(WEB_PORTS[1]);
        })
        .await;
        assert_eq!(reason, DoneReason::Contact);
        let downloads = lines.iter().filter_map(|line| match line.event {
            Event::Attempt {
                kind: AttemptKind::Download,
                peer,
                ..
            } => Some(peer.port()),
            _ => None,
        });
        assert!(downloads.into_iter().all(|port| port == WEB_PORTS[1]));
    });
}

#[test]
fn a_bad_argument_is_refused_with_a_remedy_and_exit_code_2() {
    for (arguments, remedy) in [
        (
            &["client", "--bind", "127.0.0.1", "--profile", "kaza"][..],
            "kazaa",
        ),
        (
            &["client", "--bind", "10.77.1.999", "--profile", "kazaa"],
            "--bind",
        ),
        (&["peers", "--population", "0"], "--population 1"),
        (
            &["peers", "--population", "40", "--peers-net", "192.0.2.0/28"],
            "--peers-net",
        ),
        (&["peer"], "peers"),
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_simulator"))
            .args(arguments)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {said}");
        assert!(said.contains(remedy), "{arguments:?}: {said}");
        assert!(output.stdout.is_empty());
    }
}

#[test]
fn an_address_of_another_host_is_a_clear_failure_with_exit_code_1() {
    let arguments = ["client", "--bind", "203.0.113.77", "--profile", "kazaa"];
    let output = Command::new(env!("CARGO_BIN_EXE_simulator"))
        .args(arguments)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(
        said.contains("203.0.113.77") && said.contains("address of this host"),
        "{said}"
    );
}

#[test]
fn sigterm_ends_a_client_with_done_as_the_last_line() {
    use std::io::{BufRead, BufReader};

    let arguments = [
        "client",
        "--bind",
        "127.0.0.1",
        "--profile",
        "silent",
        "--duration",
        "1h",
    ];
    let mut process = Command::new(env!("CARGO_BIN_EXE_simulator"))
        .args(arguments)
        .args(["--peers-net", "127.66.0.0/16", "--who", "host7"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
    let first: Line = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
    assert_eq!((first.event, first.who.as_str()), (Event::Ready, "host7"));

    kill(Pid::from_raw(process.id().cast_signed()), Signal::SIGTERM).unwrap();
    let last: Line = serde_json::from_str(&lines.map_while(Result::ok).last().unwrap()).unwrap();
    assert_eq!(
        last.event,
        Event::Done {
            reason: "signal".to_owned()
        }
    );
    assert!(process.wait().unwrap().success());
}

/// Runs `inside` while a population answers on loopback addresses, and returns the peers' report.
///
/// The population's ports come from its seed; where another program holds one of them, the next seed
/// is tried.
fn outside<F, R>(segment: Option<usize>, inside: F) -> Vec<Line>
where
    F: FnOnce(Population) -> R,
    R: Future<Output = ()>,
{
    // Test threads must not take the same ports or the same addresses from each other.
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _alone = ONE_AT_A_TIME
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    LocalSet::new().block_on(&runtime, async move {
        let (population, report, stop, peers) = start_peers(segment).await;
        inside(population).await;
        stop.send(()).expect("the peers are still there");
        assert_eq!(peers.await.unwrap().unwrap(), DoneReason::Signal);
        report.lines()
    })
}

type PeersTask = JoinHandle<anyhow::Result<DoneReason>>;

async fn start_peers(
    segment: Option<usize>,
) -> (Population, Report, oneshot::Sender<()>, PeersTask) {
    for seed in 1..=20 {
        let net: Ipv4Net = "127.64.0.0/16".parse().unwrap();
        let population = Population::generate(seed, 60, net).unwrap();
        let (report, ready) = Report::new();
        let (stop, stopped) = oneshot::channel();
        let stopped = async { stopped.await.expect("the test says when to stop") };
        let run = run_peers(
            peers_run(&population, segment),
            report.reporter("peers"),
            stopped,
        );
        let mut peers = tokio::task::spawn_local(run);
        tokio::select! {
            _ = ready => return (population, report, stop, peers),
            failed = &mut peers => eprintln!("seed {seed}: {:#}", failed.unwrap().unwrap_err()),
        }
    }
    panic!("no population found free ports");
}

fn peers_run(population: &Population, segment: Option<usize>) -> PeersRun {
    let config = PeersConfig {
        population: population.clone(),
        time_scale: 1.0,
        seed: Seed(1),
        reset: false,
    };
    PeersRun {
        config,
        duration: None,
        segment,
        web_ports: WEB_PORTS,
    }
}

async fn inside(
    profile: &Profile,
    population: &Population,
    adjust: impl FnOnce(&mut ClientRun),
) -> (DoneReason, Vec<Line>) {
    let config = ClientConfig {
        profile: profile.clone(),
        time_scale: 1.0,
        seed: Seed(1),
        address: Ipv4Addr::LOCALHOST,
        transfer_port: None,
        web_ports: WEB_PORTS,
        dials_per_second: 200,
        forge_pings: Vec::new(),
    };
    let mut run = ClientRun {
        config,
        duration: PATIENCE,
        start_after: Duration::ZERO,
        until: Until::Contact,
        udp_ports: PORT_RANGE,
        segment: None,
        fragment: None,
    };
    adjust(&mut run);
    let (report, _) = Report::new();
    let reason = run_client(run, population, report.reporter("client"))
        .await
        .unwrap();
    (reason, report.lines())
}

fn session_up(lines: &[Line]) -> bool {
    lines
        .iter()
        .any(|line| matches!(line.event, Event::SessionUp { .. }))
}

fn transfer_done(lines: &[Line]) -> bool {
    lines
        .iter()
        .any(|line| matches!(line.event, Event::TransferDone { bytes: 16_384, .. }))
}

fn received_by_peers(line: &Line, wanted: Part) -> u64 {
    match line.event {
        Event::PeerReceived { part, bytes, .. } if part == wanted => bytes,
        _ => 0,
    }
}

/// A report kept in memory, which says when its host is ready.
#[derive(Clone)]
struct Report {
    bytes: Arc<Mutex<Vec<u8>>>,
    ready: Arc<Mutex<Option<oneshot::Sender<()>>>>,
}

impl Report {
    fn new() -> (Self, oneshot::Receiver<()>) {
        let (sender, receiver) = oneshot::channel();
        (
            Self {
                bytes: Arc::default(),
                ready: Arc::new(Mutex::new(Some(sender))),
            },
            receiver,
        )
    }

    fn reporter(&self, who: &str) -> Reporter {
        Reporter::new(who, Clock::start(), self.clone())
    }

    fn lines(&self) -> Vec<Line> {
        let bytes = self.bytes.lock().unwrap();
        let text = std::str::from_utf8(&bytes).unwrap();
        text.lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }
}

impl Write for Report {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.bytes.lock().unwrap().extend_from_slice(bytes);
        // The first line is the one that says so.
        if let Some(ready) = self.ready.lock().unwrap().take() {
            let _ = ready.send(());
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
