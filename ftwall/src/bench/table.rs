//! A report for people, in eighty columns.

use std::fmt::Write as _;

use super::configuration::Configuration;
use super::load::Load;
use super::report::Report;

/// What is shown of a load: the value's name, its heading.
type Row = (Load, &'static str, &'static str);

#[rustfmt::skip]
const ROWS: &[Row] = &[
    (Load::TcpStream, "megabits_per_second", "TCP stream, Mbit/s"),
    (Load::HttpConnections, "connections_per_second", "HTTP connections/s"),
    (Load::HttpConnections, "p50_microseconds", "  p50, us"),
    (Load::HttpConnections, "p99_microseconds", "  p99, us"),
    (Load::HttpConnections, "queued_per_connection", "  queued each"),
    (Load::TlsConnections, "connections_per_second", "TLS connections/s"),
    (Load::TlsConnections, "p50_microseconds", "  p50, us"),
    (Load::TlsConnections, "p99_microseconds", "  p99, us"),
    (Load::TlsConnections, "queued_per_connection", "  queued each"),
    (Load::UdpFlood, "delivered_per_second", "UDP delivered/s"),
    (Load::UdpFlood, "lost_share", "  share lost"),
    (Load::PingFlood, "quiet_p99_microseconds", "Ping flood: web p99"),
    (Load::PingFlood, "web_p99_microseconds", "  during, us"),
    (Load::PingFlood, "storm_daemon_processor_share", "  daemon, cores"),
    (Load::ResetStorm, "quiet_p99_microseconds", "Reset storm: web p99"),
    (Load::ResetStorm, "web_p99_microseconds", "  during, us"),
    (Load::ResetStorm, "storm_daemon_processor_share", "  daemon, cores"),
];

pub(super) fn of(report: &Report) -> String {
    let mut text = String::new();
    write(&mut text, report).expect("a string takes everything");
    text
}

fn write(text: &mut String, report: &Report) -> std::fmt::Result {
    let (pairs, lasting) = (report.options.pairs, report.options.lasting);
    writeln!(
        text,
        "ftwall {}, Linux {}, {} processors; medians of {pairs} x {lasting:?}",
        report.version, report.kernel, report.processors
    )?;
    if !report.optimised {
        writeln!(text, "built without optimisation: says little about speed")?;
    }
    if report.options.scaling {
        return super::scaling::write_table(text, &report.scaling);
    }
    if report.options.floods {
        return super::floods::write_table(text, &report.floods);
    }
    for (load, generator) in &report.generators {
        writeln!(text, "traffic of {load}: {generator}")?;
    }
    write_values(text, report)?;
    writeln!(
        text,
        "\nratios (ftwall to none unless named), least to most"
    )?;
    for (name, spread) in &report.ratio_spreads {
        let (least, most) = (spread.least, spread.most);
        writeln!(
            text,
            "{name:<34} {:>8.2}   {least:.2} to {most:.2}",
            spread.median
        )?;
    }
    write_costs(text, report)
}

fn write_values(text: &mut String, report: &Report) -> std::fmt::Result {
    write!(text, "\n{:<21}", "")?;
    for configuration in Configuration::ALL {
        write!(text, "{:>11}", heading(configuration))?;
    }
    writeln!(text)?;
    for (load, value, name) in ROWS {
        if !report.summary.contains_key(load) {
            continue;
        }
        write!(text, "{name:<21}")?;
        for configuration in Configuration::ALL {
            let median = report.median(*load, configuration, value);
            write!(text, "{:>11}", median.map_or("-".to_owned(), number))?;
        }
        writeln!(text)?;
    }
    Ok(())
}

fn write_costs(text: &mut String, report: &Report) -> std::fmt::Result {
    writeln!(text)?;
    if let Some(sets) = report.sets {
        let (p50, p99) = (sets.p50, sets.p99);
        writeln!(
            text,
            "set change in force after: p50 {p50:.0} us, p99 {p99:.0} us"
        )?;
    }
    for (reader, cost) in &report.readers {
        writeln!(
            text,
            "reader {reader:<8}{:>6.0} ns a packet, {:>7.0} packets/s at most, {:.1} % lost",
            cost.nanoseconds_per_packet.median,
            cost.most_packets_per_second.median,
            cost.lost_share.median * 100.0
        )?;
    }
    Ok(())
}

const fn heading(configuration: Configuration) -> &'static str {
    match configuration {
        Configuration::None => "none",
        Configuration::Conntrack => "conntrack",
        Configuration::Ftwall => "ftwall",
        Configuration::FtwallNfq => "with nfq",
        Configuration::QueueEverything => "all queued",
    }
}

/// As many digits as mean something.
fn number(value: f64) -> String {
    if value == 0.0 || value.abs() >= 100.0 {
        format!("{value:.0}")
    } else if value.abs() >= 1.0 {
        format!("{value:.1}")
    } else {
        format!("{value:.3}")
    }
}

#[cfg(test)]
mod tests {
    use super::super::report::tests::sample;
    use super::*;

    #[test]
    fn the_table_fits_a_terminal_and_shows_what_was_not_measured_as_such() {
        let table = of(&sample());
        assert!(
            table.lines().all(|line| line.chars().count() <= 80),
            "{table}"
        );
        assert!(table.contains("reader netlink"), "{table}");
        let stream = table.lines().find(|line| line.starts_with("TCP stream"));
        let fields: Vec<_> = stream
            .expect("it was measured")
            .split_whitespace()
            .collect();
        assert_eq!(fields[3..], ["750", "-", "700", "-", "-"]);
        assert!(table.contains("tcp_stream"), "{table}");
    }
}
