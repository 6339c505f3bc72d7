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
    /// What the device learned from it. Whom a client turns to next depends on who answered before, so
    /// which of its peers they are is chance; that they are its peers is not.
    pub learned: BTreeSet<Learned>,
}

/// Whom a device learned from a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Learned {
    /// Somebody that the host had to do with.
    ItsPeers,
    /// Somebody else.
    Strangers,
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
    /// What the host did or met with, as the beginning of a sentence.
    pub verb: String,
    /// What it did so or met with in one of the plays and not in the other.
    pub things: BTreeSet<String>,
    /// In which.
    pub only_in: Which,
}

/// One of two plays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Which {
    /// The one that is asked for differences.
    First,
    /// The one it is held against.
    Second,
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
            .flat_map(|host| {
                let mut comparison = Comparison::new(host);
                match (self.hosts.get(host), other.hosts.get(host)) {
                    (Some(first), Some(second)) => comparison.summaries(first, second),
                    (first, second) => comparison.flags(
                        Aspect::Presence,
                        "took",
                        "part",
                        first.is_some(),
                        second.is_some(),
                    ),
                }
                comparison.found
            })
            .collect()
    }

    /// In what this play differs from every one of `takes`: what happened here and in none of them, and
    /// what happened in all of them and not here. Where chance decides which of two things comes first,
    /// one play shows what may happen, and many show what can.
    #[must_use]
    pub fn difference_from_all(&self, takes: &[Self]) -> Vec<Difference> {
        let mut takes = takes.iter().map(|take| self.difference(take));
        let Some(first) = takes.next() else {
            return Vec::new();
        };
        takes.fold(first, |everywhere, here| {
            let common = everywhere.iter().filter_map(|one| one.common(&here));
            common.collect()
        })
    }
}

impl Difference {
    /// What is left of this difference if it must be among `others`, too.
    fn common(&self, others: &[Self]) -> Option<Self> {
        let same = |other: &&Self| {
            (&other.host, other.aspect, &other.verb, other.only_in)
                == (&self.host, self.aspect, &self.verb, self.only_in)
        };
        let other = others.iter().find(same)?;
        let things: BTreeSet<_> = self.things.intersection(&other.things).cloned().collect();
        (!things.is_empty()).then(|| Self {
            things,
            ..self.clone()
        })
    }
}

impl HostSummary {
    fn of(moments: &[Moment]) -> Self {
        let mut summary = Self::default();
        let peers = moments.iter().filter_map(|moment| moment.what.met());
        let peers: BTreeSet<_> = peers.collect();
        for moment in moments {
            summary.take(&moment.what, &peers);
        }
        summary
    }

    fn take(&mut self, what: &What, peers: &BTreeSet<SocketAddrV4>) {
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
                self.learned.insert(if peers.contains(peer) {
                    Learned::ItsPeers
                } else {
                    Learned::Strangers
                });
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

impl What {
    /// The peer that a host tried to reach or was in contact with.
    fn met(&self) -> Option<SocketAddrV4> {
        match self {
            Self::Attempt { peer, .. } | Self::Reached { peer, .. } => Some(*peer),
            _ => None,
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

    fn summaries(&mut self, first: &HostSummary, second: &HostSummary) {
        self.modes(&first.modes, &second.modes);
        let kinds = |summary: &HostSummary| summary.attempts.keys().map(named).collect();
        self.sets(Aspect::Attempts, "tried", &kinds(first), &kinds(second));
        self.levels(first, second);
        self.web(first, second);
        self.flags(
            Aspect::Forged,
            "got",
            "forged replies",
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
        self.flags(Aspect::Locked, "was", "locked", first.locked, second.locked);
        let learned = |summary: &HostSummary| summary.learned.iter().map(named).collect();
        self.sets(
            Aspect::Learned,
            "gave away",
            &learned(first),
            &learned(second),
        );
    }

    /// The end of the run may cut a client short just before its next mode; anything else counts.
    fn modes(&mut self, first: &[Mode], second: &[Mode]) {
        let common = first.len().min(second.len());
        let is_prefix = first[..common] == second[..common];
        if !is_prefix || first.len().abs_diff(second.len()) > 1 {
            let [first, second] = [first, second].map(|modes| BTreeSet::from([sequence(modes)]));
            self.sets(Aspect::Modes, "went through", &first, &second);
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

    fn flags(&mut self, aspect: Aspect, verb: &str, thing: &str, first: bool, second: bool) {
        let things = |is_so: bool| is_so.then(|| thing.to_owned()).into_iter().collect();
        self.sets(aspect, verb, &things(first), &things(second));
    }

    fn sets(
        &mut self,
        aspect: Aspect,
        verb: &str,
        first: &BTreeSet<String>,
        second: &BTreeSet<String>,
    ) {
        for (one, other, only_in) in [
            (first, second, Which::First),
            (second, first, Which::Second),
        ] {
            let things: BTreeSet<_> = one.difference(other).cloned().collect();
            if !things.is_empty() {
                self.found.push(Difference {
                    host: self.host.to_owned(),
                    aspect,
                    verb: verb.to_owned(),
                    things,
                    only_in,
                });
            }
        }
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
        let things: Vec<_> = self.things.iter().map(String::as_str).collect();
        let which = match self.only_in {
            Which::First => "first",
            Which::Second => "second",
        };
        let (host, verb) = (&self.host, &self.verb);
        write!(f, "{host} {verb} {} in the {which} only", things.join(", "))
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
            writeln!(
                f,
                "{host} learned: {}",
                list(summary.learned.iter().map(name))
            )?;
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
                "client1 gave away strangers in the second only",
            ]
        );
    }

    #[test]
    fn which_of_its_peers_a_host_gives_away_is_chance() {
        let other = SocketAddrV4::new(*PEER.ip(), 1215);
        let attempt = |peer| What::Attempt {
            kind: AttemptKind::Ping,
            peer,
        };
        let learned = |peer| What::Learned {
            peer,
            evidence: None,
        };
        let first = play([attempt(PEER), attempt(other), learned(PEER)]);
        let second = play([attempt(PEER), attempt(other), learned(other)]);
        assert_eq!(first.difference(&second), []);
        let stranger = play([attempt(PEER), learned(other)]);
        assert_eq!(
            sentences(&first, &stranger),
            [
                "client1 gave away its_peers in the first only",
                "client1 gave away strangers in the second only",
            ]
        );
    }

    #[test]
    fn the_end_may_cut_off_one_mode_but_not_change_the_order() {
        let (udp, many, one) = (Mode::UdpFlood, Mode::ParallelTcp, Mode::SerialTcp);
        let whole = play([mode(udp, many), mode(many, one)]);
        assert_eq!(whole.difference(&play([mode(udp, many)])), []);
        assert_ne!(whole.difference(&play([])), [], "two modes are missing");
        let other = play([mode(udp, one), mode(one, many)]);
        assert_eq!(
            sentences(&whole, &other),
            [
                "client1 went through udp_flood, parallel_tcp, serial_tcp in the first only",
                "client1 went through udp_flood, serial_tcp, parallel_tcp in the second only",
            ]
        );
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
        assert_eq!(said, ["client1 took part in the first only"]);
    }

    #[test]
    fn of_many_takes_only_what_happened_in_none_or_in_all_of_them_is_held_against_a_play() {
        let takes = [
            play([dropped("ping"), dropped("opener")]),
            play([dropped("ping"), dropped("cut_on_lock")]),
        ];
        let said = |real: &Normalised| {
            let differences = real.difference_from_all(&takes);
            differences
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
        };
        assert_eq!(
            said(&play([dropped("ping")])),
            [""; 0],
            "either may stay away"
        );
        assert_eq!(
            said(&play([
                dropped("ping"),
                dropped("opener"),
                dropped("probe")
            ])),
            ["client1 had packets dropped as probe in the first only"]
        );
        assert_eq!(
            said(&play([dropped("opener")])),
            ["client1 had packets dropped as ping in the second only"]
        );
        assert_eq!(play([]).difference_from_all(&[]), []);
    }
}
