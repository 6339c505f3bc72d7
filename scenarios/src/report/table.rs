//! Tables for people.

use std::fmt::{self, Display};
use std::time::Duration;

use crate::judge::Finding;
use crate::level::Level;
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
        self.write_ledgers(f)?;
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

    /// What the numbers of each infected host say, in plain words, run beside run.
    fn write_ledgers(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let infected = self
            .0
            .hosts
            .iter()
            .filter(|(_, host)| host.off.attempts > 0);
        for (name, host) in infected {
            writeln!(f, "  {name}, no device: {}", in_words(&host.off))?;
            let device = format!("{}:", self.0.device);
            writeln!(
                f,
                "  {:indent$}  {device:<10} {}",
                "",
                in_words(&host.on),
                indent = name.len()
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

/// What a host's contacts amount to.
fn in_words(run: &HostRun) -> String {
    let said: Vec<_> = run
        .contacts
        .iter()
        .map(|(level, count)| format!("{count} {}", noun(*level)))
        .collect();
    let forged = match run.forged {
        0 => String::new(),
        forged => format!("; {forged} replies were the device's own"),
    };
    let reached = match run.level {
        None => "nothing got through".to_owned(),
        Some(Level::Touched) => format!("{}, and not a byte over them", said.join(", ")),
        Some(_) => said.join(", "),
    };
    format!("{} attempts: {reached}{forged}", run.attempts)
}

fn noun(level: Level) -> &'static str {
    match level {
        Level::ProbeOut => "pings reached a peer",
        Level::ProbeAnswered => "answered",
        Level::Touched => "TCP handshakes",
        Level::Opened => "openers arrived",
        Level::Session => "sessions",
        Level::Transfer => "file transfers",
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::device::Device;
    use crate::observe::{Direction, Flow, Sighting, Transport, Witness};

    fn outcome(hosts: usize, findings: Vec<Finding>) -> Outcome {
        let mut outcome = Outcome::skipped("cold_start", Device::Ftwall, 7, String::new());
        outcome.skipped = None;
        outcome.findings = findings;
        outcome.hosts = (1..=hosts)
            .map(|number| (format!("client{number}"), HostOutcome::default()))
            .collect::<BTreeMap<_, _>>();
        outcome
    }

    fn leak() -> Finding {
        let flow = Flow {
            transport: Transport::Tcp,
            inside: "10.77.1.1:40000".parse().unwrap(),
            peer: "198.18.0.7:2000".parse().unwrap(),
        };
        let sighting = Sighting {
            at_us: 5,
            witness: Witness::OutsideWire,
            direction: Direction::Outward,
            host: "client1".to_owned(),
            flow,
            level: Level::Session,
        };
        Finding::Leak {
            sighting,
            contacts: 3,
            allowed: 0,
        }
    }

    #[test]
    fn a_leak_stands_in_the_row_of_its_host_and_below_the_table() {
        let text = Table(&outcome(2, vec![leak()])).to_string();
        let row = |name: &str| text.lines().find(|line| line.contains(name)).unwrap();
        assert!(
            row("client1").ends_with("session 198.18.0.7:2000 (outside wire)"),
            "{text}"
        );
        assert!(row("client2").ends_with('-'), "{text}");
        assert!(
            text.contains("leak: session 3 times by client1 (0 allowed)"),
            "{text}"
        );
    }

    #[test]
    fn in_a_large_office_the_hosts_that_only_browse_share_a_row() {
        let mut outcome = outcome(20, Vec::new());
        let infected = outcome.hosts.get_mut("client3").unwrap();
        infected.off.attempts = 200;
        for host in outcome.hosts.values_mut() {
            host.on.web_requests = 5;
        }
        let text = Table(&outcome).to_string();
        assert!(
            text.contains("client3 ") && text.contains("19 others"),
            "{text}"
        );
        assert!(text.contains("95/95 ok"), "{text}");
    }

    #[test]
    fn both_ledgers_of_an_infected_host_stand_below_each_other_in_words() {
        let mut outcome = outcome(1, Vec::new());
        let host = outcome.hosts.get_mut("client1").unwrap();
        host.off.attempts = 201;
        host.off.level = Some(Level::Session);
        host.off.contacts = BTreeMap::from([(Level::ProbeOut, 200), (Level::Session, 1)]);
        host.on.attempts = 203;
        host.on.forged = 200;
        let text = Table(&outcome).to_string();
        let lines: Vec<_> = text.lines().map(str::trim).collect();
        let off = "client1, no device: 201 attempts: 200 pings reached a peer, 1 sessions";
        let on = "ftwall:    203 attempts: nothing got through; 200 replies were the device's own";
        assert!(lines.windows(2).any(|pair| pair == [off, on]), "{text}");
    }

    #[test]
    fn findings_without_end_are_cut_short_and_counted() {
        let text = Table(&outcome(1, vec![leak(); 40])).to_string();
        assert!(text.ends_with("... and 28 findings more\n"), "{text}");
    }

    #[test]
    fn a_skipped_scenario_says_why() {
        let why = "nginx: not installed".to_owned();
        let text = Table(&Outcome::skipped("web_real", Device::Ftwall, 1, why)).to_string();
        assert!(
            text.contains("web_real: skipped") && text.contains("not installed"),
            "{text}"
        );
    }
}
