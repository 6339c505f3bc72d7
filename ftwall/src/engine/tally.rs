//! What an engine counts, in places known beforehand: counting a packet is one addition.

use super::Counters;
use crate::{Evidence, Verdict};

/// Numbers of everything that can be counted.
#[derive(Debug)]
pub(super) struct Tally {
    packets: u64,
    malformed: u64,
    verdicts: [u64; Verdict::COUNT],
    evidence: [u64; Evidence::ALL.len()],
}

impl Default for Tally {
    fn default() -> Self {
        Self {
            packets: 0,
            malformed: 0,
            verdicts: [0; Verdict::COUNT],
            evidence: [0; Evidence::ALL.len()],
        }
    }
}

impl Tally {
    /// Counts a judged packet.
    pub(super) const fn count_verdict(&mut self, verdict: Verdict) {
        self.packets += 1;
        self.verdicts[verdict.place()] += 1;
    }

    pub(super) const fn count_malformed(&mut self) {
        self.malformed += 1;
    }

    pub(super) const fn count_evidence(&mut self, evidence: Evidence) {
        self.evidence[evidence as usize] += 1;
    }

    /// The same by name, without what was never counted.
    pub(super) fn counters(&self) -> Counters {
        let verdicts = Verdict::all().zip(self.verdicts);
        let evidence = Evidence::ALL.iter().map(|one| one.name());
        let evidence = evidence.zip(self.evidence);
        Counters {
            packets: self.packets,
            malformed: self.malformed,
            verdicts: verdicts.filter(|(_, count)| *count > 0).collect(),
            evidence: evidence.filter(|(_, count)| *count > 0).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_is_counted_in_a_place_of_its_own() {
        let mut tally = Tally::default();
        for (number, verdict) in (1..).zip(Verdict::all()) {
            (0..number).for_each(|_| tally.count_verdict(verdict));
        }
        for (number, evidence) in (1..).zip(Evidence::ALL) {
            (0..number).for_each(|_| tally.count_evidence(evidence));
        }
        let counters = tally.counters();
        assert_eq!(counters.verdicts.len(), Verdict::COUNT);
        for (number, verdict) in (1..).zip(Verdict::all()) {
            assert_eq!(counters.verdicts[&verdict], number, "{verdict:?}");
        }
        for (number, evidence) in (1..).zip(Evidence::ALL) {
            assert_eq!(counters.evidence[evidence.name()], number, "{evidence:?}");
        }
        let packets = counters.verdicts.values().sum::<u64>();
        assert_eq!(counters.packets, packets);
    }

    #[test]
    fn what_never_came_is_not_listed() {
        assert_eq!(Tally::default().counters(), Counters::default());
    }
}
