//! Commands that ask a running daemon, and how their answers are shown.

use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use ipnet::IpNet;
use serde_json::Value;

use super::logged_event::LoggedEvent;
use super::{ModeArg, OutputArg};
use crate::control::client::ask;
use crate::control::config_file::DEFAULT_SOCKET;
use crate::control::table::{CLIENTS, Columns, PEERS, csv, duration, origin, table, text};
use crate::control::values::{parse_duration, parse_net};
use crate::control::wire::{Command, Failure};
use crate::gateway::failure::{DEGRADED, FAILURE};

/// Incidents shown to people from the beginning, and as many from the end.
const INCIDENTS_SHOWN: usize = 5;
/// Peers shown to people.
const PEERS_SHOWN: usize = 10;

/// Where the daemon listens.
#[derive(Debug, Clone, Args)]
pub struct SocketArgs {
    /// Control socket of the daemon
    #[arg(long, value_name = "FILE", default_value = DEFAULT_SOCKET)]
    pub(super) socket: PathBuf,
}

/// For whom a list is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ListOutputArg {
    /// People
    Human,
    /// Programs
    Json,
    /// Spreadsheets
    Csv,
}

/// Options of commands that show one thing.
#[derive(Debug, Args)]
pub struct ShowArgs {
    /// How to say it
    #[arg(short, long, value_enum, default_value_t = OutputArg::Human)]
    output: OutputArg,
    #[command(flatten)]
    socket: SocketArgs,
}

/// Options of commands that list things.
#[derive(Debug, Args)]
pub struct ListArgs {
    /// How to say it
    #[arg(short, long, value_enum, default_value_t = ListOutputArg::Human)]
    output: ListOutputArg,
    /// Rows at most
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    limit: usize,
    #[command(flatten)]
    socket: SocketArgs,
}

/// Options of `explain`.
#[derive(Debug, Args)]
pub struct ExplainArgs {
    /// Client, peer or event: 10.77.1.1, 198.51.100.7, 198.51.100.7:1214, or a line of the event log;
    /// - reads such a line from standard input
    subject: String,
    #[command(flatten)]
    show: ShowArgs,
}

/// Options of `unblock`.
#[derive(Debug, Args)]
pub struct UnblockArgs {
    /// Client, peer or network, as in 10.77.1.1, 198.51.100.7:1214 or 10.77.2.0/24
    target: String,
    /// How long everything from and to it passes
    #[arg(long = "for", value_name = "TIME", default_value = "30m", value_parser = parse_duration)]
    for_: Duration,
    #[command(flatten)]
    show: ShowArgs,
}

/// Options of `block`.
#[derive(Debug, Args)]
pub struct BlockArgs {
    /// Inside host to lock
    client: Ipv4Addr,
    /// Keep it from this peer alone instead
    #[arg(long, value_name = "ADDRESS:PORT")]
    peer: Option<SocketAddrV4>,
    /// How long, at least
    #[arg(long = "for", value_name = "TIME", default_value = "30m", value_parser = parse_duration)]
    for_: Duration,
    #[command(flatten)]
    show: ShowArgs,
}

/// Options of `mode`.
#[derive(Debug, Args)]
pub struct ModeArgs {
    /// What is done about hosts from now on
    #[arg(value_enum)]
    mode: ModeArg,
    /// For how long; until the daemon ends if absent
    #[arg(long = "for", value_name = "TIME", value_parser = parse_duration)]
    for_: Option<Duration>,
    /// These hosts only
    #[arg(long, value_name = "NET", value_parser = parse_net)]
    subnet: Option<IpNet>,
    #[command(flatten)]
    show: ShowArgs,
}

/// What a command says, and the exit code that says it too.
pub type Said = Result<(String, u8), Failure>;

impl ShowArgs {
    /// `status`: how the daemon is.
    ///
    /// # Errors
    /// When no daemon answers.
    pub fn status(&self) -> Said {
        let status = self.ask(Command::Status)?;
        let code = if status["healthy"] == true {
            0
        } else {
            DEGRADED
        };
        Ok((self.shown(&status, show_status), code))
    }

    /// `reload`: read the configuration again.
    ///
    /// # Errors
    /// When no daemon answers, or the new configuration is wrong; the old one is kept then.
    pub fn reload(&self) -> Said {
        let reloaded = self.ask(Command::Reload)?;
        Ok((self.shown(&reloaded, show_reload), 0))
    }

    /// `log-reopen`: go on in the file that has the name of the file of events now.
    ///
    /// # Errors
    /// When no daemon answers.
    pub fn log_reopen(&self) -> Said {
        let reopened = self.ask(Command::LogReopen)?;
        let shown = |value: &Value| format!("events go to {}\n", text(&value["events"]));
        Ok((self.shown(&reopened, shown), 0))
    }

    fn ask(&self, command: Command) -> Result<Value, Failure> {
        ask(&self.socket.socket, command)
    }

    fn shown(&self, value: &Value, for_people: impl FnOnce(&Value) -> String) -> String {
        match self.output {
            OutputArg::Human => for_people(value),
            OutputArg::Json => format!("{value:#}\n"),
        }
    }
}

impl ListArgs {
    /// `clients`: which hosts are locked.
    ///
    /// # Errors
    /// When no daemon answers.
    pub fn clients(&self) -> Said {
        let list = ask(&self.socket.socket, Command::Clients)?;
        Ok((self.shown(&list, CLIENTS), 0))
    }

    /// `peers`: which peers clients are known to use.
    ///
    /// # Errors
    /// When no daemon answers.
    pub fn peers(&self) -> Said {
        let limit = self.limit;
        let list = ask(&self.socket.socket, Command::Peers { limit })?;
        Ok((self.shown(&list, PEERS), 0))
    }

    fn shown(&self, list: &Value, columns: Columns) -> String {
        let Columns { headings, row } = columns;
        let rows = list.as_array().into_iter().flatten().take(self.limit);
        let rows: Vec<_> = rows.map(row).collect();
        match self.output {
            ListOutputArg::Human => table(headings, &rows),
            ListOutputArg::Json => format!("{list:#}\n"),
            ListOutputArg::Csv => csv(headings, &rows),
        }
    }
}

impl ExplainArgs {
    /// `explain`: why something is treated as it is.
    ///
    /// # Errors
    /// When no daemon answers, or it is neither an address nor an event about a client.
    pub fn explain(&self) -> Said {
        let given = match self.subject.as_str() {
            "-" => read_line()?,
            given => given.to_owned(),
        };
        let event = LoggedEvent::is_meant(&given).then(|| LoggedEvent::read(&given));
        let event = event.transpose()?;
        let subject = event.as_ref().map_or(given, LoggedEvent::client);
        let mut explained = self.show.ask(Command::Explain {
            subject: subject.clone(),
        })?;
        let mut heading = String::new();
        if let Some(event) = event {
            event.narrow(&mut explained);
            heading = format!("{}\n\n", event.heading());
        }
        let shown = |value: &Value| heading + &show_explanation(&subject, value);
        Ok((self.show.shown(&explained, shown), 0))
    }
}

impl UnblockArgs {
    /// `unblock`: let something through for a time.
    ///
    /// # Errors
    /// When no daemon answers, or it is no address.
    pub fn unblock(&self) -> Said {
        let command = Command::Unblock {
            target: self.target.clone(),
            seconds: self.for_.as_secs(),
        };
        let unblocked = self.show.ask(command)?;
        let shown = |value: &Value| {
            let (clients, peers) = (&value["lifted"]["clients"], &value["lifted"]["peers"]);
            format!(
                "{} passes for {}; lifted: clients {clients}, peers {peers}\n",
                text(&value["target"]),
                duration(self.for_.as_secs()),
            )
        };
        Ok((self.show.shown(&unblocked, shown), 0))
    }
}

impl BlockArgs {
    /// `block`: lock a host, or keep it from a peer.
    ///
    /// # Errors
    /// When no daemon answers, or it must not be blocked.
    pub fn block(&self) -> Said {
        let (client, peer, seconds) = (self.client, self.peer, self.for_.as_secs());
        let command = Command::Block {
            client,
            peer,
            seconds,
        };
        let blocked = self.show.ask(command)?;
        let shown = |_: &Value| match peer {
            Some(peer) => format!("{client} is kept from {peer} for {}\n", duration(seconds)),
            None => format!("{client} is locked for {}\n", duration(seconds)),
        };
        Ok((self.show.shown(&blocked, shown), 0))
    }
}

impl ModeArgs {
    /// `mode`: another mode for a time.
    ///
    /// # Errors
    /// When no daemon answers.
    pub fn mode(&self) -> Said {
        let command = Command::Mode {
            mode: self.mode.into(),
            subnet: self.subnet,
            seconds: self.for_.map(|for_| for_.as_secs()),
        };
        let set = self.show.ask(command)?;
        let shown = |value: &Value| {
            let mut text = String::new();
            show_overrides(&mut text, &value["overrides"]);
            text
        };
        Ok((self.show.shown(&set, shown), 0))
    }
}

fn show_status(status: &Value) -> String {
    let mut shown = String::new();
    let health = if status["healthy"] == true {
        "healthy"
    } else {
        "degraded"
    };
    let _ = writeln!(shown, "ftwall {} is {health}", text(&status["version"]));
    for fault in status["faults"].as_array().into_iter().flatten() {
        let _ = writeln!(shown, "fault    {}", text(fault));
    }
    let mode = format!("{} ({})", text(&status["mode"]), text(&status["mode_from"]));
    let uptime = duration(status["uptime_seconds"].as_u64().unwrap_or(0));
    let counted = &status["counted"];
    for (name, value) in [
        ("mode", mode),
        ("uptime", uptime),
        ("backend", text(&status["backend"])),
        ("clients", format!("{} locked", status["clients"])),
        ("peers", format!("{} known", status["peers"])),
        ("flows", format!("{} followed", status["flows"])),
        ("packets", text(&counted["packets"])),
        ("lost", text(&counted["events_lost"]) + " events"),
    ] {
        let _ = writeln!(shown, "{name:<8} {value}");
    }
    show_overrides(&mut shown, &status["overrides"]);
    for file in status["files"].as_array().into_iter().flatten() {
        let _ = writeln!(shown, "file     {}", text(file));
    }
    shown
}

fn show_overrides(shown: &mut String, overrides: &Value) {
    for entry in overrides.as_array().into_iter().flatten() {
        let until = match &entry["until"] {
            Value::Null => "the daemon ends".to_owned(),
            until => text(until),
        };
        let (mode, subnet) = (text(&entry["mode"]), text(&entry["subnet"]));
        let _ = writeln!(shown, "set      {mode} for {subnet} until {until}");
    }
}

fn show_reload(reloaded: &Value) -> String {
    let files = reloaded["files"].as_array().map_or(0, Vec::len);
    let mut shown = format!("the configuration was read again: files {files}\n");
    for key in reloaded["needs_restart"].as_array().into_iter().flatten() {
        let _ = writeln!(shown, "{} changes when ftwall is started again", text(key));
    }
    shown
}

fn read_line() -> Result<String, Failure> {
    let mut line = String::new();
    std::io::stdin()
        .read_line(&mut line)
        .map_err(|error| Failure::new(FAILURE, format!("reading standard input: {error}")))?;
    Ok(line.trim().to_owned())
}

fn show_explanation(subject: &str, explained: &Value) -> String {
    let mut shown = String::new();
    let place = if explained["inside"] == true {
        "an inside host"
    } else {
        "outside"
    };
    let _ = writeln!(shown, "{subject} is {place}");
    let _ = writeln!(shown, "\nSeen and done, oldest first:");
    let incidents = explained["incidents"].as_array();
    if incidents.is_none_or(Vec::is_empty) {
        let _ = writeln!(shown, "  nothing");
    }
    let incidents = incidents.map_or(&[][..], Vec::as_slice);
    // How it began matters, and how it is now.
    let (first, latest) = incidents.split_at(incidents.len().min(INCIDENTS_SHOWN));
    let left_out = latest.len().saturating_sub(INCIDENTS_SHOWN);
    for incident in first {
        show_incident(&mut shown, incident);
    }
    show_left_out(&mut shown, left_out);
    for incident in &latest[left_out..] {
        show_incident(&mut shown, incident);
    }
    let _ = writeln!(shown, "\nState:");
    match &explained["lock"] {
        Value::Null => {
            let _ = writeln!(shown, "  not locked");
        }
        lock => {
            let (by, seen) = (origin(&lock["origin"]), text(&lock["sightings"]));
            let (since, until) = (text(&lock["since"]), text(&lock["until"]));
            let _ = writeln!(shown, "  locked by {by}, seen {seen} times");
            let _ = writeln!(shown, "  since {since}\n  until {until}");
        }
    }
    let peers = explained["peers"].as_array().map_or(&[][..], Vec::as_slice);
    for known in peers.iter().take(PEERS_SHOWN) {
        let (client, peer) = (text(&known["client"]), text(&known["peer"]));
        let (by, until) = (origin(&known["origin"]), text(&known["until"]));
        let _ = writeln!(shown, "  {client} and {peer}: by {by}, until {until}");
    }
    show_left_out(&mut shown, peers.len().saturating_sub(PEERS_SHOWN));
    if let Value::Object(policy) = &explained["policy"] {
        let entry = policy.get("entry").map_or("none".to_owned(), text);
        let _ = writeln!(
            shown,
            "\nPolicy: entry {entry}, mode {}, lock time {}, {}",
            text(&policy["mode"]),
            duration(policy["lock_time_seconds"].as_u64().unwrap_or(0)),
            text(&policy["strictness"]),
        );
    }
    if let Value::Object(place) = &explained["place"] {
        let said = |key: &str| place.get(key).map_or("unknown".to_owned(), text);
        let (interface, mac) = (said("interface"), said("mac"));
        let _ = writeln!(shown, "Last seen: interface {interface}, mac {mac}");
    }
    let tests = explained["tests"].as_array().into_iter().flatten();
    let holds = tests.filter(|test| test["holds"] == true);
    let holds: Vec<_> = holds.map(|test| text(&test["name"])).collect();
    let exceptions = if holds.is_empty() {
        "none".to_owned()
    } else {
        holds.join(", ")
    };
    let _ = writeln!(shown, "Exceptions that hold: {exceptions}");
    shown
}

fn show_left_out(shown: &mut String, count: usize) {
    if count > 0 {
        let _ = writeln!(shown, "  ... and {count} more; -o json shows all");
    }
}

fn show_incident(shown: &mut String, incident: &Value) {
    let end = |ip: &str, port: &str| format!("{}:{}", text(&incident[ip]), text(&incident[port]));
    let (from, to) = (end("src_ip", "src_port"), end("dest_ip", "dest_port"));
    let verdict = |name: &str| {
        let verdict = &incident[name];
        format!("{}/{}", text(&verdict["action"]), text(&verdict["reason"]))
    };
    let evidence = match &incident["evidence"] {
        Value::Null => String::new(),
        evidence => format!("{} -> ", text(evidence)),
    };
    let softened = match &incident["would_have"] {
        Value::Null => String::new(),
        _ => format!(", would have been {}", verdict("would_have")),
    };
    let _ = writeln!(
        shown,
        "  {} {} {from} > {to}\n    {evidence}{}{softened}, {} times",
        text(&incident["last"]),
        text(&incident["proto"]),
        verdict("verdict"),
        incident["packets"],
    );
}
