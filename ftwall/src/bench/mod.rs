//! What a gateway's speed loses by ftwall: gateways of several configurations side by side in namespaces,
//! real traffic through each in turn, and the ratios between them. Needs no root.
//!
//! ```text
//!  client1 ─┐                      ┌─ none
//!  client2 ─┴─ lan ── gw ── out    ├─ conntrack
//!                      └───────────┼─ ftwall              one office each, all standing at once;
//!                                  ├─ ftwall_nfq          one of them is loaded at a time
//!                                  └─ queue_everything
//! ```
//!
//! Measurements of one pair follow each other directly, so that whatever else the machine does falls on
//! all of them; a ratio is the median of the ratios within pairs. Whoever calls [`measure`] lives outside:
//! the work is done by the `ftwall` program in a capsule of its own.

mod clock;
mod configuration;
pub mod ends;
mod floods;
mod load;
mod office;
pub mod options;
mod plot;
mod programs;
mod report;
mod scaling;
mod sets;
mod statistics;
mod table;

use std::path::Path;
use std::process::Stdio;

use anyhow::{Context as _, ensure};
use indicatif::{ProgressBar, ProgressStyle};
use lab::capsule::Capsule;

pub use configuration::Configuration;
pub use floods::{Flood, Flooding};
pub use load::Load;
pub use options::{BenchArgs, Generators, Options};
pub use report::{Measurement, Report};
pub use statistics::{Latencies, Spread};

use office::Gateway;

/// Measures in a capsule, by the `ftwall` at `program`.
///
/// # Errors
/// When capsules are refused here, a program is missing, or something was not measured at all.
pub fn measure(program: &Path, options: &Options) -> anyhow::Result<Report> {
    let options = serde_json::to_string(options)?;
    let child = Capsule::command(program, ["bench-end", "measure", &options])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .context("ftwall bench needs namespaces; `ftwall doctor` says what else is missing")?;
    let output = child.wait_with_output()?;
    ensure!(
        output.status.success(),
        "nothing was measured: see the lines above"
    );
    serde_json::from_slice(&output.stdout).context("reading the report")
}

/// Measures, prints the table and writes the files asked for: all that a command line does.
///
/// # Errors
/// As [`measure`], and when a file cannot be written.
pub fn run(program: &Path, args: &BenchArgs) -> anyhow::Result<()> {
    let report = measure(program, &args.options())?;
    print!("{}", table::of(&report));
    if let Some(file) = &args.json {
        let text = serde_json::to_string_pretty(&report)?;
        std::fs::write(file, text).with_context(|| format!("writing {}", file.display()))?;
        println!("json: {}", file.display());
    }
    if let Some(file) = &args.plot {
        std::fs::write(file, plot::of(&report))
            .with_context(|| format!("writing {}", file.display()))?;
        println!("plot: {}", file.display());
    }
    Ok(())
}

/// Measures in the capsule this process is in.
fn measure_inside(options: &str) -> anyhow::Result<Report> {
    let options: Options = serde_json::from_str(options).context("reading the options")?;
    let mut report = Report::of(&options);
    if options.scaling {
        report.scaling = scaling::measure(&options)?;
        return Ok(report);
    }
    if options.floods {
        report.floods = floods::measure(&options)?;
        return Ok(report);
    }
    let progress = progress(steps(&options));
    let gateways = Gateway::build_all()?;
    for &load in &options.loads {
        let generator = load.generator(options.generators)?;
        report.generators.insert(load, generator.name().to_owned());
        for pair in 0..options.pairs {
            // Every other pair backwards: whoever comes later meets a warmer machine.
            let mut order: Vec<&Gateway> = gateways.iter().collect();
            if pair % 2 == 1 {
                order.reverse();
            }
            for gateway in order {
                progress.set_message(format!("{load}, {}", gateway.configuration));
                let values = load
                    .measure(gateway, generator, &options)
                    .with_context(|| format!("measuring {load} with {}", gateway.configuration))?;
                report.raw.push(Measurement {
                    load,
                    configuration: gateway.configuration,
                    pair,
                    values,
                });
                progress.inc(1);
            }
        }
    }
    progress.set_message("sets and queues");
    report.sets = Some(sets::measure(&gateways, &options)?);
    report.readers = load::measure_readers(&gateways, &options)?;
    progress.finish_and_clear();
    report.conclude();
    Ok(report)
}

fn steps(options: &Options) -> u64 {
    let configurations = Configuration::ALL.len() as u64;
    u64::from(options.pairs) * options.loads.len() as u64 * configurations
}

/// Drawn on a terminal only.
pub(crate) fn progress(steps: u64) -> ProgressBar {
    let style = ProgressStyle::with_template("{bar:24} {pos}/{len} {msg}")
        .expect("the template is a literal");
    ProgressBar::new(steps).with_style(style)
}
