//! How the numbers change with the number of inside hosts and of learned peers: curves, not points.

use std::fmt::{self, Write as _};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use serde::{Deserialize, Serialize};

use super::configuration::Configuration;
use super::ends::{Exchanged, Style};
use super::load::{self, Values};
use super::office::Gateway;
use super::options::Options;
use super::plot;
use super::statistics::Spread;
use crate::gateway::kernel_sets::{BATCH, Batch, Element};
use crate::gateway::rules::Transport;
use crate::gateway::set_elements::SetWriter;

/// Inside hosts whose connections are measured.
const HOSTS: [u32; 4] = [1, 10, 100, 1_000];
/// Peers that kernel and engine know; as many elements as the kernel's set has room for at most.
const PEERS: [u32; 4] = [0, 10_000, 100_000, 1_000_000];

/// What was measured with so many hosts and peers.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Point {
    /// What the gateway did to packets.
    pub configuration: Configuration,
    /// Hosts that took turns.
    pub hosts: u32,
    /// Peers learned before.
    pub peers: u32,
    /// By name; names end in their unit.
    pub values: std::collections::BTreeMap<String, Spread>,
}

/// One curve after the other: hosts with no peer learned, peers with one host.
pub(super) fn measure(options: &Options) -> anyhow::Result<Vec<Point>> {
    let over_hosts = HOSTS.map(|hosts| (hosts, 0));
    let over_peers = PEERS[1..].iter().map(|&peers| (1, peers));
    let grid: Vec<(u32, u32)> = over_hosts.into_iter().chain(over_peers).collect();
    let progress = super::progress(grid.len() as u64);
    let mut points = Vec::new();
    for (hosts, peers) in grid {
        progress.set_message(format!("{hosts} hosts, {peers} peers"));
        let measured = measure_point(hosts, peers, options)
            .with_context(|| format!("measuring {hosts} hosts and {peers} learned peers"))?;
        points.extend(measured);
        progress.inc(1);
    }
    progress.finish_and_clear();
    Ok(points)
}

fn measure_point(hosts: u32, peers: u32, options: &Options) -> anyhow::Result<[Point; 2]> {
    let gateways = [Configuration::None, Configuration::Ftwall].map(|configuration| {
        let gateway = Gateway::build(configuration)?;
        if configuration == Configuration::Ftwall && peers > 0 {
            load_peers(&gateway, peers)?;
        }
        Ok(gateway)
    });
    let [off, on]: [anyhow::Result<Gateway>; 2] = gateways;
    let gateways = [off?, on?];
    let running = [gateways[0].start()?, gateways[1].start()?];
    let mut measured: [Vec<Values>; 2] = Default::default();
    for _ in 0..options.pairs {
        for (gateway, rows) in gateways.iter().zip(&mut measured) {
            rows.push(measure_once(gateway, hosts, options.lasting)?);
        }
    }
    for one in running {
        one.finish()?;
    }
    let [off, on] = measured;
    let point = |configuration, rows: &[Values]| Point {
        configuration,
        hosts,
        peers,
        values: Spread::by_name(rows),
    };
    Ok([
        point(Configuration::None, &off),
        point(Configuration::Ftwall, &on),
    ])
}

fn measure_once(gateway: &Gateway, hosts: u32, lasting: Duration) -> anyhow::Result<Values> {
    let mut values = Values::new();
    load::flood(gateway, None, lasting, &mut values)?;
    let _server = gateway.listen("out", &["server", "http"])?;
    let count = hosts.to_string();
    let sources = ["--from", Gateway::FIRST_HOST, "--hosts", &count];
    let Exchanged {
        connections,
        failures,
        seconds,
        latencies,
    } = load::exchange(gateway, Style::Http, lasting, &sources)?;
    values.insert(
        "connections_per_second".into(),
        connections as f64 / seconds,
    );
    values.insert("failed".into(), failures as f64);
    values.insert("p50_microseconds".into(), latencies.p50);
    values.insert("p99_microseconds".into(), latencies.p99);
    Ok(values)
}

/// Puts the rules in place and fills the kernel's set; the daemon then takes over what it finds.
fn load_peers(gateway: &Gateway, peers: u32) -> anyhow::Result<()> {
    let node = gateway.node("gw");
    let applied = node.run(&gateway.ftwall(&["rules", "apply"]))?;
    ensure!(applied.success(), "rules apply: {}", applied.stderr.trim());
    node.enter(|| write_peers(peers))?
}

fn write_peers(peers: u32) -> anyhow::Result<()> {
    const STAYS: Option<Duration> = Some(Duration::from_secs(7200));
    let mut writer = SetWriter::open()?;
    let numbers: Vec<u32> = (0..peers).collect();
    for part in numbers.chunks(BATCH) {
        let batch: Batch = part
            .iter()
            .map(|&number| (element(number), STAYS))
            .collect();
        writer.write(&batch)?;
    }
    Ok(())
}

/// A peer of one of a thousand clients that send nothing.
fn element(number: u32) -> Element {
    let client = Ipv4Addr::from_bits(Ipv4Addr::new(10, 77, 64, 0).to_bits() + number % 1000);
    let address = Ipv4Addr::from_bits(Ipv4Addr::new(60, 0, 0, 0).to_bits() + number);
    Element::Peer(client, SocketAddrV4::new(address, 1214), Transport::Tcp)
}

pub(super) fn write_table(text: &mut String, points: &[Point]) -> fmt::Result {
    writeln!(
        text,
        "\n{:<10}{:>6}{:>10}{:>16}{:>8}{:>9}{:>9}{:>16}",
        "", "hosts", "peers", "connections/s", "failed", "p50, us", "p99, us", "UDP delivered/s"
    )?;
    for point in points {
        let median = |name: &str| point.values.get(name).map_or(0.0, |spread| spread.median);
        writeln!(
            text,
            "{:<10}{:>6}{:>10}{:>16.0}{:>8.0}{:>9.0}{:>9.0}{:>16.0}",
            point.configuration,
            point.hosts,
            point.peers,
            median("connections_per_second"),
            median("failed"),
            median("p50_microseconds"),
            median("p99_microseconds"),
            median("delivered_per_second"),
        )?;
    }
    Ok(())
}

/// Two panels: new connections over hosts and over peers, ftwall as a share of no firewall.
pub(super) fn plot(points: &[Point]) -> String {
    let mut body = String::new();
    let over_hosts = curve(points, |point| (point.peers == 0).then_some(point.hosts));
    let over_peers = curve(points, |point| (point.hosts == 1).then_some(point.peers));
    draw_curve(&mut body, "over inside hosts", &over_hosts, 30.0);
    draw_curve(&mut body, "over learned peers", &over_peers, 240.0);
    plot::frame(
        &body,
        460.0,
        "new HTTP connections, ftwall as a share of no firewall",
    )
}

fn curve(points: &[Point], place: impl Fn(&Point) -> Option<u32>) -> Vec<(u32, f64)> {
    let speed = |point: &Point| {
        point
            .values
            .get("connections_per_second")
            .map(|one| one.median)
    };
    let of = |wanted: Configuration| move |point: &&Point| point.configuration == wanted;
    let shares = points
        .iter()
        .filter(of(Configuration::Ftwall))
        .filter_map(|on| {
            let off = points
                .iter()
                .filter(of(Configuration::None))
                .find(|off| (off.hosts, off.peers) == (on.hosts, on.peers))?;
            Some((place(on)?, speed(on)? / speed(off)?))
        });
    shares.collect()
}

fn draw_curve(body: &mut String, heading: &str, curve: &[(u32, f64)], top: f64) {
    const LEFT: f64 = 60.0;
    const WHOLE: f64 = 120.0;
    let step = 560.0 / curve.len().max(1) as f64;
    let spot = |(index, (_, share)): (usize, &(u32, f64))| {
        let x = LEFT + step * (index as f64 + 0.5);
        (x, top + 20.0 + WHOLE * (1.2 - share.clamp(0.0, 1.2)))
    };
    plot::write_text(body, 10.0, top, heading, "font-weight=\"bold\"");
    for share in [0.0, 0.5, 1.0] {
        let y = top + 20.0 + WHOLE * (1.2 - share);
        let _ = writeln!(body, "<path d=\"M{LEFT} {y}H640\" stroke=\"#ddd\"/>");
        plot::write_text(body, 20.0, y + 4.0, &format!("{share:.1}"), "");
    }
    let spots: Vec<(f64, f64)> = curve.iter().enumerate().map(spot).collect();
    let line: Vec<String> = spots
        .iter()
        .map(|(x, y)| format!("{x:.1},{y:.1}"))
        .collect();
    let _ = writeln!(
        body,
        "<polyline points=\"{}\" fill=\"none\" stroke=\"#0b7a4b\" stroke-width=\"2\"/>",
        line.join(" ")
    );
    for ((x, y), (place, share)) in spots.iter().zip(curve) {
        let _ = writeln!(
            body,
            "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\" fill=\"#0b7a4b\"/>"
        );
        plot::write_text(body, x - 12.0, y - 8.0, &format!("{share:.2}"), "");
        plot::write_text(body, x - 16.0, top + 182.0, &place.to_string(), "");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(configuration: Configuration, hosts: u32, peers: u32, speed: f64) -> Point {
        let spread = Spread::of([speed]).expect("one number");
        let values = [("connections_per_second".to_owned(), spread)].into();
        Point {
            configuration,
            hosts,
            peers,
            values,
        }
    }

    #[test]
    fn a_curve_compares_like_with_like() {
        let points = [
            point(Configuration::None, 1, 0, 1000.0),
            point(Configuration::Ftwall, 1, 0, 900.0),
            point(Configuration::None, 10, 0, 500.0),
            point(Configuration::Ftwall, 10, 0, 500.0),
            point(Configuration::None, 1, 10_000, 100.0),
            point(Configuration::Ftwall, 1, 10_000, 80.0),
        ];
        let over_hosts = curve(&points, |point| (point.peers == 0).then_some(point.hosts));
        assert_eq!(over_hosts, [(1, 0.9), (10, 1.0)]);
        let over_peers = curve(&points, |point| (point.hosts == 1).then_some(point.peers));
        assert_eq!(over_peers, [(0, 0.9), (10_000, 0.8)]);
        assert_eq!(plot(&points).matches("<circle").count(), 4);
    }
}
