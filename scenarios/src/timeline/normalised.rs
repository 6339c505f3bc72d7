//! What is the same about two plays of one scenario with one seed, wherever they were played.
//!
//! Clocks differ from stage to stage, and with them times, ports and numbers. What a client tries,
//! how far it gets, what the device recognises and does about it must not.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::SocketAddrV4;

use serde::{Deserialize, Serialize};
use simulator::report::{AttemptKind, Mode};

use super::{Moment, Timeline, What};
use crate::level::Level;
use crate::web::End;

/// A timeline without what depends on a clock. Its [`Display`](fmt::Display) has a line per host and
/// aspect, so that two of them can be put beside each other with `diff`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Normalised {
    /// Per host, what happened to it.
    pub hosts: BTreeMap<String, HostSummary>,
}

/// What happened to one host, without times and numbers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostSummary {
    /// The modes the client went through, in order.
    pub modes: Vec<Mode>,
    /// Kinds of attempts, with the levels that any attempt of the kind got to.
    pub attempts: BTreeMap<AttemptKind, BTreeSet<Level>>,
    /// Levels of contacts that the host did not begin.
    pub called: BTreeSet<Level>,
    /// Kinds of ordinary requests, with how they ended.
    pub web: BTreeMap<String, BTreeSet<WebEnd>>,
    /// Whether replies were forged for it.
    pub forged: bool,
    /// What the device recognised.
    pub evidence: BTreeSet<String>,
    /// Why the device dropped its packets.
    pub drops: BTreeSet<String>,
    /// Whether the device locked it.
    pub locked: bool,
    /// The peers that the device learned from it.
    pub learned: BTreeSet<SocketAddrV4>,
}

/// How an ordinary request ended. One cut short by the end of the run ended in no way at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WebEnd {
    /// Well.
    Ok,
    /// Badly.
    Failed,
}

/// One kind of thing by which two plays are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Aspect {
    /// Whether anything happened to the host at all.
    Presence,
    /// Modes, in order.
    Modes,
    /// Kinds of attempts.
    Attempts,
    /// Levels reached by a kind of attempt, or by being called.
    Levels,
    /// Ordinary requests.
    Web,
    /// Forged replies.
    Forged,
    /// What was recognised.
    Evidence,
    /// Reasons of drops.
    Drops,
    /// Locks.
    Locked,
    /// Peers learned.
    Learned,
}

/// Something that is not the same in two plays.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Difference {
    /// The host.
    pub host: String,
    /// In what they differ.
    pub aspect: Aspect,
    /// How, as a sentence that calls the plays the first and the second.
    pub sentence: String,
}

impl Normalised {
    /// Leaves out of a timeline what depends on a clock.
    #[must_use]
    pub fn of(timeline: &Timeline) -> Self {
        let summary =
            |(host, moments): (&String, &Vec<Moment>)| (host.clone(), HostSummary::of(moments));
        Self {
            hosts: timeline.hosts.iter().map(summary).collect(),
        }
    }

    /// Everything in which the two differ; none if they agree.
    #[must_use]
    pub fn difference(&self, other: &Self) -> Vec<Difference> {
        let hosts: BTreeSet<_> = self.hosts.keys().chain(other.hosts.keys()).collect();
        hosts
            .into_iter()
            .flat_map(|host| match (self.hosts.get(host), other.hosts.get(host)) {
                (Some(first), Some(second)) => Comparison::new(host).summaries(first, second),
                (Some(_), None) => Comparison::new(host).missing("second"),
                (None, Some(_)) => Comparison::new(host).missing("first"),
                (None, None) => unreachable!("the name was taken from one of them"),
            })
            .collect()
    }
}

impl HostSummary {
    fn of(moments: &[Moment]) -> Self {
        let mut summary = Self::default();
        for moment in moments {
            summary.take(&moment.what);
        }
        summary
    }

    fn take(&mut self, what: &What) {
        match what {
            What::Attempt { kind, .. } => {
                self.attempts.entry(*kind).or_default();
            }
            What::Reached { kind, level, .. } => {
                let levels = match kind {
                    Some(kind) => self.attempts.entry(*kind).or_default(),
                    None => &mut self.called,
                };
                levels.insert(*level);
            }
            What::Mode { from, to } => {
                if self.modes.is_empty() {
                    self.modes.push(*from);
                }
                self.modes.push(*to);
            }
            What::Web { kind, end } => {
                let ends = self.web.entry(kind.clone()).or_default();
                ends.extend(WebEnd::of(end));
            }
            What::Forged { .. } => self.forged = true,
            What::Dropped {
                reason, evidence, ..
            } => {
                self.drops.insert(reason.clone());
                self.evidence.extend(evidence.clone());
            }
            What::Locked { evidence } => {
                self.locked = true;
                self.evidence.extend(evidence.clone());
            }
            What::Learned { peer, evidence } => {
                self.learned.insert(*peer);
                self.evidence.extend(evidence.clone());
            }
            // How an attempt failed, when a lock ended and how many drops went unreported are the
            // clock's doing.
            What::Sent { .. }
            | What::Failed { .. }
            | What::Unreported { .. }
            | What::Released
            | What::Probed
            | What::Refused { .. }
            | What::Forgotten { .. } => {}
        }
    }
}

impl WebEnd {
    fn of(end: &End) -> Option<Self> {
        match end {
            End::Ok(_) => Some(Self::Ok),
            End::Failed(..) => Some(Self::Failed),
            End::Open(_) => None,
        }
    }
}

/// The differences of one host, as they are found.
struct Comparison<'a> {
    host: &'a str,
    found: Vec<Difference>,
}

impl<'a> Comparison<'a> {
    fn new(host: &'a str) -> Self {
        Self {
            host,
            found: Vec::new(),
        }
    }

    fn missing(mut self, which: &str) -> Vec<Difference> {
        self.say(
            Aspect::Presence,
            &format!("had nothing happen to it in the {which}"),
        );
        self.found
    }

    fn summaries(mut self, first: &HostSummary, second: &HostSummary) -> Vec<Difference> {
        self.modes(&first.modes, &second.modes);
        let kinds = |summary: &HostSummary| summary.attempts.keys().map(named).collect();
        self.sets(Aspect::Attempts, "tried", &kinds(first), &kinds(second));
        self.levels(first, second);
        self.web(first, second);
        self.flags(
            Aspect::Forged,
            "got forged replies",
            first.forged,
            second.forged,
        );
        self.sets(
            Aspect::Evidence,
            "was recognised by",
            &first.evidence,
            &second.evidence,
        );
        self.sets(
            Aspect::Drops,
            "had packets dropped as",
            &first.drops,
            &second.drops,
        );
        self.flags(Aspect::Locked, "was locked", first.locked, second.locked);
        let peers = |summary: &HostSummary| summary.learned.iter().map(named).collect();
        self.sets(Aspect::Learned, "gave away", &peers(first), &peers(second));
        self.found
    }

    /// The end of the run may cut a client short just before its next mode; anything else counts.
    fn modes(&mut self, first: &[Mode], second: &[Mode]) {
        let common = first.len().min(second.len());
        let is_prefix = first[..common] == second[..common];
        if !is_prefix || first.len().abs_diff(second.len()) > 1 {
            let (first, second) = (sequence(first), sequence(second));
            self.say(
                Aspect::Modes,
                &format!("went through {first} in the first and through {second} in the second"),
            );
        }
    }

    fn levels(&mut self, first: &HostSummary, second: &HostSummary) {
        let named_levels = |levels: &BTreeSet<Level>| levels.iter().map(named).collect();
        for (kind, levels) in &first.attempts {
            let Some(others) = second.attempts.get(kind) else {
                continue;
            };
            let verb = format!("by {} got to", name(kind));
            self.sets(
                Aspect::Levels,
                &verb,
                &named_levels(levels),
                &named_levels(others),
            );
        }
        let (first, second) = (named_levels(&first.called), named_levels(&second.called));
        self.sets(Aspect::Levels, "being called got to", &first, &second);
    }

    fn web(&mut self, first: &HostSummary, second: &HostSummary) {
        let ends = |summary: &HostSummary| {
            let each = summary.web.iter().flat_map(|(kind, ends)| {
                ends.iter()
                    .map(move |end| format!("{kind} ending {}", name(end)))
            });
            each.collect()
        };
        self.sets(Aspect::Web, "made requests of", &ends(first), &ends(second));
    }

    fn flags(&mut self, aspect: Aspect, verb: &str, first: bool, second: bool) {
        match (first, second) {
            (true, false) => self.say(aspect, &format!("{verb} in the first only")),
            (false, true) => self.say(aspect, &format!("{verb} in the second only")),
            (true, true) | (false, false) => {}
        }
    }

    fn sets(
        &mut self,
        aspect: Aspect,
        verb: &str,
        first: &BTreeSet<String>,
        second: &BTreeSet<String>,
    ) {
        for (one, other, which) in [(first, second, "first"), (second, first, "second")] {
            let only: Vec<_> = one.difference(other).map(String::as_str).collect();
            if !only.is_empty() {
                self.say(
                    aspect,
                    &format!("{verb} {} in the {which} only", only.join(", ")),
                );
            }
        }
    }

    fn say(&mut self, aspect: Aspect, how: &str) {
        let sentence = format!("{} {how}", self.host);
        self.found.push(Difference {
            host: self.host.to_owned(),
            aspect,
            sentence,
        });
    }
}

/// The name that something has in JSON, which is the one in every table.
fn name(thing: &impl Serialize) -> String {
    match serde_json::to_value(thing) {
        Ok(serde_json::Value::String(name)) => name,
        Ok(other) => other.to_string(),
        Err(error) => unreachable!("names always serialise: {error}"),
    }
}

fn named<T: Serialize>(thing: &T) -> String {
    name(thing)
}

fn sequence(modes: &[Mode]) -> String {
    if modes.is_empty() {
        return "one mode alone".to_owned();
    }
    modes.iter().map(name).collect::<Vec<_>>().join(", ")
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.sentence)
    }
}

impl fmt::Display for Normalised {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (host, summary) in &self.hosts {
            writeln!(f, "{host} modes: {}", sequence(&summary.modes))?;
            for (kind, levels) in &summary.attempts {
                writeln!(
                    f,
                    "{host} {}: {}",
                    name(kind),
                    list(levels.iter().map(name))
                )?;
            }
            writeln!(
                f,
                "{host} called: {}",
                list(summary.called.iter().map(name))
            )?;
            for (kind, ends) in &summary.web {
                writeln!(f, "{host} web {kind}: {}", list(ends.iter().map(name)))?;
            }
            writeln!(f, "{host} forged replies: {}", summary.forged)?;
            writeln!(
                f,
                "{host} evidence: {}",
                list(summary.evidence.iter().cloned())
            )?;
            writeln!(f, "{host} drops: {}", list(summary.drops.iter().cloned()))?;
            writeln!(f, "{host} locked: {}", summary.locked)?;
            for peer in &summary.learned {
                writeln!(f, "{host} learned: {peer}")?;
            }
        }
        Ok(())
    }
}

fn list(names: impl Iterator<Item = String>) -> String {
    let names: Vec<_> = names.collect();
    if names.is_empty() {
        "-".to_owned()
    } else {
        names.join(", ")
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::observe::Witness;

    const PEER: SocketAddrV4 = SocketAddrV4::new(std::net::Ipv4Addr::new(198, 18, 0, 1), 1214);

    fn play(whats: impl IntoIterator<Item = What>) -> Normalised {
        // Times are as odd as the number of things that happened, for nothing may depend on them.
        let moments: Vec<_> = whats.into_iter().collect();
        let step = Duration::from_micros(7 + moments.len() as u64);
        let at = |number: usize| step * u32::try_from(number).unwrap();
        let moments = moments.into_iter().enumerate();
        let moments = moments
            .map(|(number, what)| Moment {
                at: at(number),
                what,
            })
            .collect();
        let hosts = BTreeMap::from([("client1".to_owned(), moments)]);
        Timeline {
            hosts,
            ..Timeline::default()
        }
        .normalised()
    }

    fn ping() -> What {
        What::Attempt {
            kind: AttemptKind::Ping,
            peer: PEER,
        }
    }

    fn reached(level: Level) -> What {
        let kind = Some(AttemptKind::Ping);
        What::Reached {
            kind,
            level,
            peer: PEER,
            witness: Witness::Peer,
        }
    }

    fn dropped(reason: &str) -> What {
        What::Dropped {
            reason: reason.to_owned(),
            evidence: None,
            peer: Some(PEER),
        }
    }

    fn mode(from: Mode, to: Mode) -> What {
        What::Mode { from, to }
    }

    fn sentences(first: &Normalised, second: &Normalised) -> Vec<String> {
        first
            .difference(second)
            .iter()
            .map(ToString::to_string)
            .collect()
    }

    #[test]
    fn numbers_and_times_make_no_difference() {
        let few = play([ping(), dropped("ping"), What::Released]);
        let many = play([
            ping(),
            ping(),
            ping(),
            dropped("ping"),
            What::Probed,
            dropped("ping"),
        ]);
        assert_eq!(few.difference(&many), []);
        assert_eq!(few.to_string(), many.to_string());
    }

    #[test]
    fn a_level_reached_in_one_play_only_is_a_difference() {
        let (first, second) = (play([ping(), reached(Level::ProbeOut)]), play([ping()]));
        let said = "client1 by ping got to probe_out in the first only";
        assert_eq!(sentences(&first, &second), [said]);
        assert_eq!(first.difference(&second)[0].aspect, Aspect::Levels);
    }

    #[test]
    fn reasons_locks_and_peers_are_compared_each_way() {
        let lock = What::Locked {
            evidence: Some("udp_ping".to_owned()),
        };
        let learned = What::Learned {
            peer: PEER,
            evidence: None,
        };
        let first = play([dropped("ping"), lock]);
        let second = play([dropped("opener"), learned]);
        let said = sentences(&first, &second);
        assert_eq!(
            said,
            [
                "client1 was recognised by udp_ping in the first only",
                "client1 had packets dropped as ping in the first only",
                "client1 had packets dropped as opener in the second only",
                "client1 was locked in the first only",
                "client1 gave away 198.18.0.1:1214 in the second only",
            ]
        );
    }

    #[test]
    fn the_end_may_cut_off_one_mode_but_not_change_the_order() {
        let (udp, many, one) = (Mode::UdpFlood, Mode::ParallelTcp, Mode::SerialTcp);
        let whole = play([mode(udp, many), mode(many, one)]);
        assert_eq!(whole.difference(&play([mode(udp, many)])), []);
        assert_eq!(
            whole.difference(&play([])).len(),
            1,
            "two modes are missing"
        );
        let other = play([mode(udp, one), mode(one, many)]);
        let said = "client1 went through udp_flood, parallel_tcp, serial_tcp in the first and \
                    through udp_flood, serial_tcp, parallel_tcp in the second";
        assert_eq!(sentences(&whole, &other), [said]);
    }

    #[test]
    fn a_request_cut_short_by_the_end_says_nothing_and_a_failed_one_does() {
        let web = |end| What::Web {
            kind: "http1".to_owned(),
            end,
        };
        let ok = || web(End::Ok(Duration::from_millis(3)));
        let open = web(End::Open(Duration::from_millis(1)));
        assert_eq!(play([ok()]).difference(&play([ok(), open])), []);
        let failed = web(End::Failed(Duration::from_secs(5), "timeout".to_owned()));
        let said = sentences(&play([ok()]), &play([ok(), failed]));
        assert_eq!(
            said,
            ["client1 made requests of http1 ending failed in the second only"]
        );
    }

    #[test]
    fn a_host_that_only_one_play_knows_is_one_difference() {
        let said = sentences(&play([ping()]), &Normalised::default());
        assert_eq!(said, ["client1 had nothing happen to it in the second"]);
    }
}
