//! What was measured, and what it comes to. The shape of the JSON.

use std::collections::BTreeMap;
use std::fs;
use std::thread;

use serde::{Deserialize, Serialize};

use super::configuration::Configuration;
use super::floods::Flooding;
use super::load::Load;
use super::options::Options;
use super::scaling::Point;
use super::statistics::{Latencies, Spread};

/// Everything about one bench.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Report {
    /// Version of ftwall.
    pub version: String,
    /// Release of the kernel.
    pub kernel: String,
    /// Processors of the machine.
    pub processors: usize,
    /// Whether the code was optimised as in a release: otherwise it says little about speed.
    pub optimised: bool,
    /// What was asked for.
    pub options: Options,
    /// What made the traffic of each load.
    pub generators: BTreeMap<Load, String>,
    /// By name, ftwall on to no firewall unless the name says otherwise: medians over pairs.
    pub ratios: BTreeMap<String, f64>,
    /// The same with their spread.
    pub ratio_spreads: BTreeMap<String, Spread>,
    /// From the request of a set's change until the kernel heeds it, in microseconds.
    pub sets: Option<Latencies>,
    /// Cost of a queued packet by reader of the queue.
    pub readers: BTreeMap<String, ReaderCost>,
    /// Medians by load, configuration and what was measured.
    pub summary: BTreeMap<Load, BTreeMap<Configuration, BTreeMap<String, Spread>>>,
    /// Every single measurement.
    pub raw: Vec<Measurement>,
    /// Curves over hosts and peers.
    pub scaling: Vec<Point>,
    /// Floods from inside.
    pub floods: Vec<Flooding>,
}

/// One measurement.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Measurement {
    /// What the gateway was loaded with.
    pub load: Load,
    /// What it did to packets.
    pub configuration: Configuration,
    /// Measurements with the same number followed each other directly.
    pub pair: u32,
    /// By name; names end in their unit.
    pub values: BTreeMap<String, f64>,
}

/// What a reader of the queue costs.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct ReaderCost {
    /// Processor time of the reader for each packet that it accepts unread.
    pub nanoseconds_per_packet: Spread,
    /// Datagrams that came through in a flood.
    pub most_packets_per_second: Spread,
    /// Share of the flood that did not.
    pub lost_share: Spread,
}

/// A ratio: name, load, what of it, and the configurations compared.
type Ratio = (&'static str, Load, &'static str, [Configuration; 2]);

const ON_TO_OFF: [Configuration; 2] = [Configuration::Ftwall, Configuration::None];

#[rustfmt::skip]
const RATIOS: &[Ratio] = &[
    ("tcp_stream", Load::TcpStream, "megabits_per_second", ON_TO_OFF),
    ("http_connections", Load::HttpConnections, "connections_per_second", ON_TO_OFF),
    ("tls_connections", Load::TlsConnections, "connections_per_second", ON_TO_OFF),
    ("udp_flood", Load::UdpFlood, "delivered_per_second", ON_TO_OFF),
    ("http_p50", Load::HttpConnections, "p50_microseconds", ON_TO_OFF),
    ("http_p99", Load::HttpConnections, "p99_microseconds", ON_TO_OFF),
    ("tls_p50", Load::TlsConnections, "p50_microseconds", ON_TO_OFF),
    ("tls_p99", Load::TlsConnections, "p99_microseconds", ON_TO_OFF),
    ("web_p99_reset_storm", Load::ResetStorm, "web_p99_microseconds", ON_TO_OFF),
    ("web_p99_ping_flood", Load::PingFlood, "web_p99_microseconds", ON_TO_OFF),
    ("http_connections_to_conntrack", Load::HttpConnections, "connections_per_second", [Configuration::Ftwall, Configuration::Conntrack]),
];

/// What a storm does to the web of a gateway with ftwall: during it to before it.
const STORMS: &[(&str, Load)] = &[
    ("web_p99_reset_storm_to_quiet", Load::ResetStorm),
    ("web_p99_ping_flood_to_quiet", Load::PingFlood),
];

impl Report {
    pub(super) fn of(options: &Options) -> Self {
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        Self {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            kernel: kernel.trim().to_owned(),
            processors: thread::available_parallelism().map_or(1, usize::from),
            optimised: !cfg!(debug_assertions),
            options: options.clone(),
            generators: BTreeMap::new(),
            ratios: BTreeMap::new(),
            ratio_spreads: BTreeMap::new(),
            sets: None,
            readers: BTreeMap::new(),
            summary: BTreeMap::new(),
            raw: Vec::new(),
            scaling: Vec::new(),
            floods: Vec::new(),
        }
    }

    /// Works out medians and ratios from the single measurements.
    pub(super) fn conclude(&mut self) {
        self.summary = summary(&self.raw);
        let on_to_off = RATIOS
            .iter()
            .map(|&(name, load, value, of)| (name, self.ratio(load, of, [value; 2])));
        let to_quiet = STORMS.iter().map(|&(name, load)| {
            let values = ["web_p99_microseconds", "quiet_p99_microseconds"];
            (name, self.ratio(load, [Configuration::Ftwall; 2], values))
        });
        let known = on_to_off
            .chain(to_quiet)
            .filter_map(|(name, spread)| Some((name.to_owned(), spread?)));
        self.ratio_spreads = known.collect();
        let medians = self.ratio_spreads.iter();
        self.ratios = medians
            .map(|(name, spread)| (name.clone(), spread.median))
            .collect();
    }

    /// Spread of the quotients within pairs.
    fn ratio(&self, load: Load, of: [Configuration; 2], values: [&str; 2]) -> Option<Spread> {
        let quotients = (0..self.options.pairs).filter_map(|pair| {
            let above = self.value(load, of[0], pair, values[0])?;
            let below = self.value(load, of[1], pair, values[1])?;
            (below > 0.0).then_some(above / below)
        });
        Spread::of(quotients)
    }

    fn value(
        &self,
        load: Load,
        configuration: Configuration,
        pair: u32,
        name: &str,
    ) -> Option<f64> {
        let is_it = |one: &&Measurement| {
            (one.load, one.configuration, one.pair) == (load, configuration, pair)
        };
        let measurement = self.raw.iter().find(is_it)?;
        measurement.values.get(name).copied()
    }

    /// One of the medians.
    #[must_use]
    pub fn median(&self, load: Load, configuration: Configuration, name: &str) -> Option<f64> {
        let spread = self.summary.get(&load)?.get(&configuration)?.get(name)?;
        Some(spread.median)
    }
}

fn summary(
    raw: &[Measurement],
) -> BTreeMap<Load, BTreeMap<Configuration, BTreeMap<String, Spread>>> {
    let mut summary = BTreeMap::new();
    for one in raw {
        let by_name: &mut BTreeMap<_, _> = summary
            .entry(one.load)
            .or_insert_with(BTreeMap::new)
            .entry(one.configuration)
            .or_default();
        for name in one.values.keys() {
            let alike = raw
                .iter()
                .filter(|other| (other.load, other.configuration) == (one.load, one.configuration));
            let numbers = alike.filter_map(|other| other.values.get(name).copied());
            by_name.extend(Spread::of(numbers).map(|spread| (name.clone(), spread)));
        }
    }
    summary
}

#[cfg(test)]
pub(super) mod tests {
    use std::time::Duration;

    use super::super::load::Values;
    use super::super::options::Generators;
    use super::*;

    pub(in super::super) fn sample() -> Report {
        let options = Options {
            pairs: 2,
            lasting: Duration::from_secs(1),
            loads: vec![Load::TcpStream, Load::ResetStorm],
            generators: Generators::Own,
            scaling: false,
            floods: false,
            quick: false,
        };
        let mut report = Report::of(&options);
        for (pair, [off, on]) in [(0, [1000.0, 900.0]), (1, [500.0, 500.0])] {
            for (configuration, speed) in [(Configuration::None, off), (Configuration::Ftwall, on)]
            {
                report.raw.push(measurement(
                    Load::TcpStream,
                    configuration,
                    pair,
                    &[("megabits_per_second", speed)],
                ));
            }
            let times = [
                ("web_p99_microseconds", 300.0),
                ("quiet_p99_microseconds", 200.0),
            ];
            let storm = measurement(Load::ResetStorm, Configuration::Ftwall, pair, &times);
            report.raw.push(storm);
        }
        let spread = |number| Spread::of([number]).expect("one number");
        let cost = ReaderCost {
            nanoseconds_per_packet: spread(123_456.0),
            most_packets_per_second: spread(1_234_567.0),
            lost_share: spread(1.0),
        };
        report.readers.insert("netlink".to_owned(), cost);
        report.conclude();
        report
    }

    fn measurement(
        load: Load,
        configuration: Configuration,
        pair: u32,
        values: &[(&str, f64)],
    ) -> Measurement {
        let values: Values = values
            .iter()
            .map(|(name, value)| ((*name).to_owned(), *value))
            .collect();
        Measurement {
            load,
            configuration,
            pair,
            values,
        }
    }

    #[test]
    fn a_ratio_is_the_median_within_pairs_not_the_quotient_of_medians() {
        let report = sample();
        assert_eq!(report.ratios["tcp_stream"], 0.95);
        let spread = report.ratio_spreads["tcp_stream"];
        assert_eq!((spread.least, spread.most), (0.9, 1.0));
        let median = report.median(Load::TcpStream, Configuration::None, "megabits_per_second");
        assert_eq!(median, Some(750.0));
    }

    #[test]
    fn a_storm_is_compared_with_the_time_before_it_and_what_was_not_measured_is_left_out() {
        let report = sample();
        assert_eq!(report.ratios["web_p99_reset_storm_to_quiet"], 1.5);
        assert!(!report.ratios.contains_key("web_p99_reset_storm"));
        assert!(!report.ratios.contains_key("http_connections"));
    }

    #[test]
    fn a_report_survives_its_own_json() {
        let text = serde_json::to_string(&sample()).expect("it has only names and numbers");
        let read: Report = serde_json::from_str(&text).expect("it was just written");
        assert_eq!(read.ratios, sample().ratios);
        assert_eq!(read.raw.len(), sample().raw.len());
    }
}
