//! A report as a drawing (SVG 1.1): each load, each configuration, as a share of no firewall at all.

use std::fmt::Write as _;

use super::configuration::Configuration;
use super::load::Load;
use super::report::Report;

/// What is drawn: heading, load, value.
const PANELS: &[(&str, Load, &str)] = &[
    ("one TCP stream", Load::TcpStream, "megabits_per_second"),
    (
        "HTTP connections",
        Load::HttpConnections,
        "connections_per_second",
    ),
    (
        "TLS connections",
        Load::TlsConnections,
        "connections_per_second",
    ),
    (
        "UDP flood delivered",
        Load::UdpFlood,
        "delivered_per_second",
    ),
];

const WIDTH: f64 = 720.0;
const LEFT: f64 = 150.0;
/// Length of a bar that is as fast as no firewall.
const WHOLE: f64 = 420.0;
const BAR: f64 = 14.0;
const GAP: f64 = 34.0;
/// Longer bars are cut: more than half as fast again is noise.
const LONGEST: f64 = 1.3;

pub(super) fn of(report: &Report) -> String {
    if report.options.scaling {
        return super::scaling::plot(&report.scaling);
    }
    let mut body = String::new();
    let mut top = 30.0;
    for (heading, load, value) in PANELS {
        let bars = bars(report, *load, value);
        if bars.is_empty() {
            continue;
        }
        top = draw_panel(&mut body, heading, &bars, top);
    }
    frame(
        &body,
        top + 10.0,
        "shares of no firewall; whiskers: least to most",
    )
}

/// A bar: configuration, share, least and most.
type Bar = (Configuration, [f64; 3]);

fn bars(report: &Report, load: Load, value: &str) -> Vec<Bar> {
    let base = report.median(load, Configuration::None, value);
    let Some(base) = base.filter(|base| *base > 0.0) else {
        return Vec::new();
    };
    let bar = |configuration: Configuration| {
        let spread = report.summary.get(&load)?.get(&configuration)?.get(value)?;
        let shares = [spread.median, spread.least, spread.most];
        Some((configuration, shares.map(|number| number / base)))
    };
    Configuration::ALL.into_iter().filter_map(bar).collect()
}

fn draw_panel(body: &mut String, heading: &str, bars: &[Bar], top: f64) -> f64 {
    let mut y = top;
    write_text(body, 10.0, y, heading, "font-weight=\"bold\"");
    for (configuration, shares) in bars {
        y += BAR + 4.0;
        let [share, least, most] = shares.map(|share| share.min(LONGEST) * WHOLE);
        let color = color(*configuration);
        write_text(body, 10.0, y + BAR - 3.0, configuration.name(), "");
        let middle = y + BAR / 2.0;
        let _ = writeln!(
            body,
            "<rect x=\"{LEFT}\" y=\"{y}\" width=\"{share:.1}\" height=\"{BAR}\" fill=\"{color}\"/>\
             <path d=\"M{:.1} {middle}H{:.1}\" stroke=\"#222\"/>",
            LEFT + least,
            LEFT + most
        );
        let label = format!("{:.2}", shares[0]);
        write_text(body, LEFT + most + 6.0, y + BAR - 3.0, &label, "");
    }
    y + GAP
}

fn color(configuration: Configuration) -> &'static str {
    match configuration {
        Configuration::None => "#9aa5b1",
        Configuration::Conntrack => "#7b8794",
        Configuration::Ftwall => "#0b7a4b",
        Configuration::FtwallNfq => "#6cbf99",
        Configuration::QueueEverything => "#c05621",
    }
}

pub(super) fn write_text(body: &mut String, x: f64, y: f64, text: &str, more: &str) {
    let _ = writeln!(body, "<text x=\"{x:.1}\" y=\"{y:.1}\" {more}>{text}</text>");
}

/// The drawing around its content, on white so that it can be read anywhere.
pub(super) fn frame(body: &str, height: f64, caption: &str) -> String {
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n{body}\
         <text x=\"10\" y=\"{:.0}\" fill=\"#555\">{caption}</text>\n</svg>\n",
        height - 8.0
    )
}

#[cfg(test)]
mod tests {
    use super::super::report::tests::sample;
    use super::*;

    #[test]
    fn each_configuration_measured_has_a_bar_as_long_as_its_share() {
        let drawing = of(&sample());
        assert!(drawing.starts_with("<svg ") && drawing.ends_with("</svg>\n"));
        assert_eq!(drawing.matches("height=\"14\"").count(), 2);
        // 700 of 750.
        assert!(drawing.contains("width=\"392.0\""), "{drawing}");
    }
}
