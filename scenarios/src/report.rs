//! Tables for people.

use std::fmt::{self, Display};
use std::time::Duration;

use crate::judge::Finding;
use crate::outcome::{HostOutcome, HostRun, Outcome};

/// One scenario's outcome as a heading, a row per host, and the findings below.
#[derive(Debug)]
pub struct Table<'a>(pub &'a Outcome);

/// More hosts than this are summed up: a row each would say nothing more.
const MOST_ROWS: usize = 12;

/// Findings beyond this many are only counted; JSON has them all.
const MOST_FINDINGS: usize = 12;

impl Display for Table<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Outcome {
            scenario,
            device,
            seed,
            took,
            ..
        } = self.0;
        let word = self.0.word();
        writeln!(
            f,
            "{scenario}: {word} (device {device}, seed {seed}, {:.1} s)",
            took.as_secs_f64()
        )?;
        if let Some(why) = &self.0.skipped {
            return writeln!(f, "  skipped: {why}");
        }
        self.write_hosts(f)?;
        for finding in self.0.findings.iter().take(MOST_FINDINGS) {
            writeln!(f, "  {finding}")?;
        }
        let unsaid = self.0.findings.len().saturating_sub(MOST_FINDINGS);
        if unsaid > 0 {
            writeln!(f, "  ... and {unsaid} findings more")?;
        }
        Ok(())
    }
}

impl Table<'_> {
    fn write_hosts(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.hosts.is_empty() {
            return Ok(());
        }
        writeln!(
            f,
            "  {:<16} {:<15} {:<15} {:>11} {:>11} {:>9} {:>9}  first leak",
            "client", "level off", "level on", "web off", "web on", "worst off", "worst on"
        )?;
        for (name, host) in self.rows() {
            writeln!(
                f,
                "  {:<16} {:<15} {:<15} {:>11} {:>11} {:>9} {:>9}  {}",
                name,
                level(&host.off),
                level(&host.on),
                web(&host.off),
                web(&host.on),
                worst(&host.off),
                worst(&host.on),
                self.first_leak(&name),
            )?;
        }
        Ok(())
    }

    /// A row per host; in a large office, hosts that only browse share one.
    fn rows(&self) -> Vec<(String, HostOutcome)> {
        if self.0.hosts.len() <= MOST_ROWS {
            return self.0.hosts.clone().into_iter().collect();
        }
        let (infected, users): (Vec<_>, Vec<_>) = self
            .0
            .hosts
            .clone()
            .into_iter()
            .partition(|(_, host)| host.off.attempts > 0);
        let label = format!("{} others", users.len());
        let sum = users
            .into_iter()
            .fold(HostOutcome::default(), |sum, (_, host)| HostOutcome {
                off: add(sum.off, &host.off),
                on: add(sum.on, &host.on),
            });
        infected.into_iter().chain([(label, sum)]).collect()
    }

    fn first_leak(&self, name: &str) -> String {
        let mut leaks: Vec<_> = self
            .0
            .findings
            .iter()
            .filter_map(|finding| match finding {
                Finding::Leak { sighting, .. } if sighting.host == name => Some(sighting),
                _ => None,
            })
            .collect();
        leaks.sort_by_key(|sighting| sighting.at_us);
        leaks.first().map_or_else(
            || "-".to_owned(),
            |sighting| {
                format!(
                    "{} {} ({})",
                    sighting.level, sighting.flow.peer, sighting.witness
                )
            },
        )
    }
}

fn add(sum: HostRun, host: &HostRun) -> HostRun {
    HostRun {
        level: sum.level.max(host.level),
        web_requests: sum.web_requests + host.web_requests,
        web_failed: sum.web_failed + host.web_failed,
        web_worst: sum.web_worst.max(host.web_worst),
        ..sum
    }
}

fn level(run: &HostRun) -> String {
    run.level
        .map_or_else(|| "-".to_owned(), |level| level.to_string())
}

fn web(run: &HostRun) -> String {
    if run.web_requests == 0 {
        return "-".to_owned();
    }
    format!(
        "{}/{} ok",
        run.web_requests - run.web_failed,
        run.web_requests
    )
}

fn worst(run: &HostRun) -> String {
    if run.web_requests == 0 {
        "-".to_owned()
    } else {
        milliseconds(run.web_worst)
    }
}

fn milliseconds(time: Duration) -> String {
    format!("{} ms", time.as_millis())
}
