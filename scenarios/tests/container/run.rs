//! One run: everybody in containers, with ftwall, without it, or with one ftwall that dies and another
//! that comes.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail, ensure};
use lab::presets::Office as Plan;
use lab::{Capture, Frames};
use scenarios::observe::{Frame, HostLine};
use scenarios::record::Record;
use scenarios::scenario::Scenario;
use scenarios::stage::cast::{Cast, Part};
use simulator::report::{Event, Line, Mode, RequestId};

use crate::engine::{Image, Place, Running, Wanted};
use crate::office::{NGINX, Office};

/// Time for a program to end once told to.
const GRACE: Duration = Duration::from_secs(10);

/// What the gateway is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Gateway {
    /// Without ftwall.
    Open,
    /// With it.
    Guarded,
    /// With one that is killed once the clients have been locked for a while, and with another in its place.
    Replaced,
}

/// Plays a scenario; the host `fetching` has curl.
pub(crate) fn play(
    scenario: &Scenario,
    seed: u64,
    fetching: &str,
    gateway: Gateway,
) -> anyhow::Result<Record> {
    let office = Office::build(scenario.office.hosts)?;
    let wires = [
        office.node("gw")?.capture("eth0")?,
        office.node("out")?.capture("eth0")?,
    ];
    let cast = Cast::of(scenario, seed)?;
    let outside = Players::start(&office, cast.peers.iter().chain(&cast.servers))?;
    let _nginx = start_nginx(&office)?;
    let ftwall = match gateway {
        Gateway::Open => None,
        Gateway::Guarded | Gateway::Replaced => Some(start_ftwall(&office)?),
    };
    let mut record = Record {
        began_us: epoch_us(),
        ..Record::default()
    };
    let inside = Players::start(&office, &cast.inside)?;
    let curl = start_curl(&office, fetching, scenario.window)?;
    let ftwall = match (gateway, ftwall) {
        (Gateway::Replaced, Some(ftwall)) => {
            inside.await_change_of_mode()?;
            let (next, blind_us) = replace(&office, ftwall)?;
            record.evidence.blind_us.push(blind_us);
            Some(next)
        }
        (Gateway::Open | Gateway::Guarded | Gateway::Replaced, ftwall) => ftwall,
    };
    inside.await_end(&mut record.mishaps)?;
    record.evidence.clients = inside.reports(&mut record.mishaps)?;
    record.evidence.clients.extend(fetched(&curl, fetching)?);
    if let Some(ftwall) = ftwall {
        record.mishaps.extend(dismiss(&ftwall)?);
    }
    record.evidence.ended_us = epoch_us();
    outside.stop(&mut record.mishaps)?;
    let peers = outside.reports(&mut record.mishaps)?;
    record.evidence.peers = peers.into_iter().map(|said| said.line).collect();
    enter_frames(&mut record, wires)?;
    Ok(record)
}

fn enter_frames(record: &mut Record, wires: [Capture; 2]) -> anyhow::Result<()> {
    let [inside, outside] = wires;
    let [inside, outside] = [inside.stop()?, outside.stop()?];
    let lost = inside.lost + outside.lost;
    if lost > 0 {
        let what = format!("the recordings of the wires lost {lost} frames");
        record.mishaps.push(what);
    }
    record.evidence.lost_frames = lost;
    record.evidence.inside = frames(inside);
    record.evidence.outside = frames(outside);
    Ok(())
}

fn frames(recorded: Frames) -> Vec<Frame> {
    let frame = |frame: lab::Frame| Frame {
        at_us: micros(frame.at),
        bytes: frame.bytes,
    };
    recorded.frames.into_iter().map(frame).collect()
}

// --- the gateway ---

/// The daemon of the delivered image, whose configuration only monitors. Without CAP_NET_RAW it speaks in
/// nobody's name.
fn start_ftwall(office: &Office) -> anyhow::Result<Running> {
    let lan = Plan::LAN;
    let command = format!("run --inside {lan} --mode enforce --reply none --no-reprobe");
    Running::start(Wanted {
        image: Image::Ftwall,
        place: Place::With(office.host("gw")),
        capabilities: &["NET_ADMIN"],
        sysctls: &[],
        command: command.split(' ').map(str::to_owned).collect(),
        ready: r#""event_type":"ready""#,
    })
}

/// Kills a daemon and starts another one, which knows of the first only what the gateway's kernel does:
/// each container has a state directory of its own. Returns when nobody watched.
fn replace(office: &Office, ftwall: Running) -> anyhow::Result<(Running, (u64, u64))> {
    let from_us = epoch_us();
    ftwall.kill()?;
    drop(ftwall);
    let next = start_ftwall(office)?;
    Ok((next, (from_us, epoch_us())))
}

/// Ends a daemon; returns what was wrong with it.
fn dismiss(ftwall: &Running) -> anyhow::Result<Vec<String>> {
    let code = ftwall.stop(GRACE)?;
    let (_, log) = ftwall.said()?;
    let errors = log.lines().filter(|line| line.contains("ERROR"));
    let mut mishaps: Vec<_> = errors.map(|line| format!("ftwall: {line}")).collect();
    if code != Some(0) {
        mishaps.push(format!("ftwall ended with {code:?}: {log}"));
    }
    Ok(mishaps)
}

// --- the actors ---

/// Programs of a cast.
struct Players(Vec<Player>);

struct Player {
    node: String,
    who: String,
    program: Running,
}

impl Players {
    fn start<'a>(
        office: &Office,
        parts: impl IntoIterator<Item = &'a Part>,
    ) -> anyhow::Result<Self> {
        let start = |part: &Part| {
            let command = ["simulator".to_owned()]
                .into_iter()
                .chain(part.args.clone());
            Ok(Player {
                node: part.node.clone(),
                who: part.who.clone(),
                program: start_tool(office, &part.node, command.collect(), r#""event":"ready""#)?,
            })
        };
        parts
            .into_iter()
            .map(start)
            .collect::<anyhow::Result<_>>()
            .map(Self)
    }

    /// Waits until a client has given up a way of looking for peers: it has tried it for long, in vain,
    /// and has been locked since its beginning.
    fn await_change_of_mode(&self) -> anyhow::Result<()> {
        for player in &self.0 {
            for line in player.program.lines() {
                let line: Line = serde_json::from_str(&line?)?;
                match line.event {
                    Event::ModeChanged {
                        from: Mode::UdpFlood,
                        ..
                    } => return Ok(()),
                    Event::Done { .. } => break,
                    _ => {}
                }
            }
        }
        bail!("no client has ever changed its way of looking for peers")
    }

    /// Waits until everybody has ended by himself.
    fn await_end(&self, mishaps: &mut Vec<String>) -> anyhow::Result<()> {
        for player in &self.0 {
            for line in player.program.lines() {
                line?;
            }
            let code = player.program.exit_code()?;
            if code != Some(0) {
                let (_, complaints) = player.program.said()?;
                mishaps.push(format!("{} ended with {code:?}: {complaints}", player.who));
            }
        }
        Ok(())
    }

    fn stop(&self, mishaps: &mut Vec<String>) -> anyhow::Result<()> {
        for player in &self.0 {
            let code = player.program.stop(GRACE)?;
            if code != Some(0) {
                mishaps.push(format!("{} ended with {code:?}", player.who));
            }
        }
        Ok(())
    }

    /// What everybody reported; a report that does not end is a mishap.
    fn reports(&self, mishaps: &mut Vec<String>) -> anyhow::Result<Vec<HostLine>> {
        let mut reports = Vec::new();
        for player in &self.0 {
            let (said, _) = player.program.said()?;
            let read = |line| {
                let line = serde_json::from_str(line).with_context(|| line.to_owned())?;
                Ok(HostLine {
                    host: player.node.clone(),
                    line,
                })
            };
            let lines: Vec<HostLine> = said.lines().map(read).collect::<anyhow::Result<_>>()?;
            let last = lines.last().map(|said| &said.line.event);
            if !matches!(last, Some(Event::Done { .. })) {
                mishaps.push(format!(
                    "the report of {} does not end with `done`",
                    player.who
                ));
            }
            reports.extend(lines);
        }
        Ok(reports)
    }
}

/// A program that may do nothing that a user may not; ports below 1024 are everybody's in a container.
fn start_tool(
    office: &Office,
    host: &str,
    command: Vec<String>,
    ready: &'static str,
) -> anyhow::Result<Running> {
    Running::start(Wanted {
        image: Image::Tools,
        place: Place::With(office.host(host)),
        capabilities: &[],
        sysctls: &[],
        command,
        ready,
    })
}

// --- nginx and curl ---

fn start_nginx(office: &Office) -> anyhow::Result<Running> {
    let command = ["nginx", "-e", "/dev/stdout", "-c", "/site/nginx.conf"];
    start_tool(
        office,
        "nginx",
        command.map(str::to_owned).into(),
        "event method",
    )
}

/// Fetches the same page again and again, by HTTP and by HTTPS. Each line says what was fetched, how many
/// seconds it took, how it ended, and what curl complained about.
const FETCH: &str = r#"
end=$(($(date +%s) + $SECONDS_TO_GO))
echo fetching
while [ "$(date +%s)" -lt "$end" ]; do
  for scheme in http https; do
    rm -f /tmp/page
    took=$(curl --silent --show-error --fail --insecure --max-time 5 --write-out '%{time_total}' \
      --output /tmp/page "$scheme://$SERVER/page" 2>/tmp/complaint) && cmp -s /tmp/page /site/page
    echo "$scheme $took $? $(tr '\n' ' ' </tmp/complaint)"
  done
  sleep 0.1
done
"#;

fn start_curl(office: &Office, host: &str, window: Duration) -> anyhow::Result<Running> {
    let script = FETCH
        .replace("$SECONDS_TO_GO", &window.as_secs().to_string())
        .replace("$SERVER", &NGINX.to_string());
    let command = ["sh", "-c", &script].map(str::to_owned).into();
    start_tool(office, host, command, "fetching")
}

/// Waits until curl is done; its outcomes become lines like those of the simulator's users.
fn fetched(curl: &Running, host: &str) -> anyhow::Result<Vec<HostLine>> {
    let mut lines = Vec::new();
    for (id, line) in curl.lines().enumerate() {
        let line = line?;
        if line != "fetching" {
            lines.push(HostLine {
                host: host.to_owned(),
                line: outcome(id as u64, host, &line)?,
            });
        }
    }
    ensure!(!lines.is_empty(), "curl fetched nothing");
    Ok(lines)
}

fn outcome(id: u64, host: &str, line: &str) -> anyhow::Result<Line> {
    let mut words = line.splitn(4, ' ');
    let mut word = || words.next().with_context(|| format!("curl said `{line}`"));
    let (scheme, took, code) = (word()?, word()?, word()?);
    let complaint = word()?.trim();
    let took = Duration::try_from_secs_f64(took.parse()?)?;
    let ok = code == "0";
    Ok(Line {
        t_us: epoch_us(),
        who: format!("{host}-curl"),
        event: Event::WebResult {
            id: RequestId(id),
            kind: format!("nginx_{scheme}"),
            ok,
            micros: micros(took),
            bytes: 0,
            error: (!ok).then(|| format!("{complaint} (ended with {code})")),
        },
    })
}

// --- time ---

#[expect(
    clippy::disallowed_methods,
    reason = "a stage in real time: reports carry the time of the day"
)]
fn epoch_us() -> u64 {
    micros(
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default(),
    )
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}
