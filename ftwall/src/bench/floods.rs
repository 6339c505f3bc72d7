//! What becomes of a gateway, and of the web of another host, while somebody inside floods it.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use super::clock::now;
use super::configuration::Configuration;
use super::ends::{Exchanged, Stormed};
use super::load::{self, CLIENT2, PACED, Values};
use super::office::{Gateway, Running, numbers};
use super::options::Options;
use super::statistics::Spread;

/// One kind of flood.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[value(rename_all = "snake_case")]
pub enum Flood {
    /// Dials of a locked host to peers that are known
    Resets,
    /// Pings of a locked host
    Pings,
    /// Pings that name a million sources
    SpoofedPings,
    /// First words of a million connections
    NewFlows,
    /// First fragments whose others never come
    Fragments,
    /// Heads of requests that never end
    Heads,
    /// Segments of one octet
    Octets,
}

/// What was measured of one flood and one configuration.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Flooding {
    /// What was sent.
    pub flood: Flood,
    /// What the gateway did to packets.
    pub configuration: Configuration,
    /// By name; names end in their unit.
    pub values: BTreeMap<String, Spread>,
}

/// Any gateway with a firewall or NAT tracks connections, and floods fill its table.
const COMPARED: [Configuration; 2] = [Configuration::Conntrack, Configuration::Ftwall];
/// A web as slow as this many times its usual has not recovered.
const RECOVERED: f64 = 2.0;
/// How long the web is looked at each time until it has.
const LOOK: Duration = Duration::from_millis(100);
/// Longest wait for that.
const PATIENCE: Duration = Duration::from_secs(30);

impl Flood {
    const ALL: [Self; 7] = [
        Self::Resets,
        Self::Pings,
        Self::SpoofedPings,
        Self::NewFlows,
        Self::Fragments,
        Self::Heads,
        Self::Octets,
    ];

    /// Name in reports and on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Resets => "resets",
            Self::Pings => "pings",
            Self::SpoofedPings => "spoofed_pings",
            Self::NewFlows => "new_flows",
            Self::Fragments => "fragments",
            Self::Heads => "heads",
            Self::Octets => "octets",
        }
    }

    /// How much of it is tried, in a second.
    const fn per_second(self) -> u32 {
        match self {
            Self::Pings | Self::SpoofedPings | Self::NewFlows => 300_000,
            Self::Resets | Self::Heads | Self::Octets => 35_000,
            Self::Fragments => 20_000,
        }
    }

    /// Whether it is the flood of a host that is locked.
    const fn is_of_a_client(self) -> bool {
        matches!(self, Self::Resets | Self::Pings)
    }
}

impl fmt::Display for Flood {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Every flood against a gateway that only tracks connections and one with ftwall, in turn.
pub(super) fn measure(options: &Options) -> anyhow::Result<Vec<Flooding>> {
    let progress = super::progress((Flood::ALL.len() * COMPARED.len()) as u64);
    let mut floodings = Vec::new();
    for flood in Flood::ALL {
        let mut rows: [Vec<Values>; 2] = Default::default();
        for _ in 0..options.pairs {
            for (configuration, rows) in COMPARED.into_iter().zip(&mut rows) {
                progress.set_message(format!("{flood}, {configuration}"));
                // What an earlier flood has filled is gone with its gateway.
                let gateway = Gateway::build(configuration)?;
                let values = measure_once(&gateway, flood, options.lasting);
                rows.push(
                    values.with_context(|| format!("measuring {flood} with {configuration}"))?,
                );
            }
        }
        for (configuration, rows) in COMPARED.into_iter().zip(&rows) {
            progress.inc(1);
            floodings.push(Flooding {
                flood,
                configuration,
                values: Spread::by_name(rows),
            });
        }
    }
    progress.finish_and_clear();
    Ok(floodings)
}

fn measure_once(gateway: &Gateway, flood: Flood, lasting: Duration) -> anyhow::Result<Values> {
    let mut values = Values::new();
    let mut running = gateway.start()?;
    let _server = gateway.listen("out", &["server", "http"])?;
    let _drain = gateway.listen("out", &["drain"])?;
    if flood.is_of_a_client() {
        load::lock_client(gateway, &running)?;
    }
    let quiet = web(gateway, lasting)?;
    ensure!(quiet.connections > 0, "the web is down before the flood");
    let lost_before = load::losses(gateway)?;
    let queued_before = load::queued_packets(gateway)?;

    running.begin()?;
    // It begins before the web and ends after it.
    let longer = load::text(lasting + Duration::from_millis(300));
    let rate = flood.per_second().to_string();
    let flooding = gateway.end(&["flood", flood.name(), CLIENT2, &rate, &longer]);
    let flooding = gateway.node("client2").spawn(&flooding)?;
    let beside = web(gateway, lasting)?;
    let sent: Stormed = numbers(flooding)?;
    let ended = now();
    let spent = running.spent()?;
    ensure!(sent.sent > 0, "nothing was sent");

    let queued_after = load::queued_packets(gateway)?;
    values.extend(load::lost_between(&lost_before, load::losses(gateway)?));
    let queued = queued_before.zip(queued_after);
    let per_second = queued.map(|(before, after)| (after - before) as f64 / sent.seconds);
    values.extend(per_second.map(|queued| ("queued_per_second".into(), queued)));
    values.insert("sent_per_second".into(), sent.sent as f64 / sent.seconds);
    values.insert("daemon_processor_share".into(), spent / sent.seconds);
    values.insert("quiet_p99_microseconds".into(), quiet.latencies.p99);
    values.insert("web_p99_microseconds".into(), beside.latencies.p99);
    values.insert(
        "web_p99_to_quiet".into(),
        beside.latencies.p99 / quiet.latencies.p99,
    );
    values.insert("web_connections".into(), beside.connections as f64);
    values.insert("failed".into(), beside.failures as f64);
    loop {
        let again = web(gateway, LOOK)?;
        let is_usual = again.latencies.p99 <= quiet.latencies.p99 * RECOVERED;
        let is_well = again.connections > 0 && again.failures == 0 && is_usual;
        if is_well || ended.elapsed() > PATIENCE {
            break;
        }
    }
    let recovery = ended.elapsed().saturating_sub(LOOK);
    values.insert("recovery_milliseconds".into(), recovery.as_secs_f64() * 1e3);
    values.extend(memory(&running)?);
    running.finish()?;
    Ok(values)
}

fn web(gateway: &Gateway, lasting: Duration) -> anyhow::Result<Exchanged> {
    let lasting = load::text(lasting);
    gateway.say(
        "client1",
        &[&["client", "http", &lasting][..], PACED].concat(),
    )
}

fn memory(running: &Running<'_>) -> anyhow::Result<Option<(String, f64)>> {
    let most = running.most_memory()?;
    Ok(most.map(|kibibytes| {
        (
            "daemon_most_memory_mebibytes".into(),
            kibibytes as f64 / 1024.0,
        )
    }))
}

pub(super) fn write_table(text: &mut String, floodings: &[Flooding]) -> fmt::Result {
    writeln!(
        text,
        "\n{:<15}{:<10}{:>8}{:>10}{:>7}{:>7}{:>5}{:>7}{:>5}{:>6}",
        "flood", "gateway", "sent/s", "queued/s", "lost", "cores", "MiB", "p99, x", "bad", "ms"
    )?;
    for one in floodings {
        let median = |name: &str| one.values.get(name).map(|spread| spread.median);
        let shown = |name: &str, digits: usize| {
            median(name).map_or("-".to_owned(), |number| format!("{number:.digits$}"))
        };
        let lost =
            ["lost_queue_full", "lost_queue_buffer_full"].map(|name| median(name).unwrap_or(0.0));
        writeln!(
            text,
            "{:<15}{:<10}{:>8}{:>10}{:>7.0}{:>7}{:>5}{:>7}{:>5}{:>6}",
            one.flood,
            one.configuration,
            shown("sent_per_second", 0),
            shown("queued_per_second", 0),
            lost.iter().sum::<f64>(),
            shown("daemon_processor_share", 2),
            shown("daemon_most_memory_mebibytes", 0),
            shown("web_p99_to_quiet", 2),
            shown("failed", 0),
            shown("recovery_milliseconds", 0),
        )?;
    }
    writeln!(
        text,
        "lost: by the queue; p99, x: the web of another host, to its own before; bad: its\n\
         connections that failed; ms: until it was as before, once the flood was over"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_fits_a_terminal_and_shows_what_was_not_measured_as_such() {
        let values = [
            ("sent_per_second", 300_000.0),
            ("web_p99_to_quiet", 123.45),
            ("recovery_milliseconds", 29_999.0),
        ];
        let values = values
            .into_iter()
            .filter_map(|(name, value)| Some((name.to_owned(), Spread::of([value])?)));
        let flooding = Flooding {
            flood: Flood::SpoofedPings,
            configuration: Configuration::Conntrack,
            values: values.collect(),
        };
        let mut table = String::new();
        write_table(&mut table, &[flooding]).expect("a string takes everything");
        assert!(
            table.lines().all(|line| line.chars().count() <= 80),
            "{table}"
        );
        let row = table.lines().nth(2).expect("one row");
        let fields: Vec<_> = row.split_whitespace().collect();
        let expected = [
            "spoofed_pings",
            "conntrack",
            "300000",
            "-",
            "0",
            "-",
            "-",
            "123.45",
            "-",
            "29999",
        ];
        assert_eq!(fields, expected);
    }
}
