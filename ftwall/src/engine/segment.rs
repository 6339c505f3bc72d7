//! How a segment is judged: by what the first octets of its flow's two directions say.

use std::net::{IpAddr, SocketAddr, SocketAddrV4};

use super::{Conntrack, Engine, Found, Parties};
use crate::event::PacketEnds;
use crate::flow::{Flow, FlowKey, Growth, Role, Start, State, Stream};
use crate::packet::Segment;
use crate::policy::{self, Situation, Withholding};
use crate::protocol::head::may_be_of_head;
use crate::protocol::{self, Conversation, Head, Patience, Standing};
use crate::suspects::Sighting;
use crate::verdict::{ClearReason, DropReason, PassReason, TolerateReason};
use crate::{Evidence, Timestamp, Verdict};

/// A segment on its way through the rooms.
#[derive(Debug, Clone, Copy)]
pub(super) struct Arrival<'a> {
    pub(super) now: Timestamp,
    pub(super) source: SocketAddrV4,
    pub(super) destination: SocketAddrV4,
    pub(super) segment: &'a Segment<'a>,
    pub(super) tracked: Option<Conntrack>,
}

impl Arrival<'_> {
    fn key(&self) -> FlowKey {
        FlowKey::new(self.source.into(), self.destination.into())
    }

    const fn is_dial(&self) -> bool {
        self.segment.syn && self.segment.acknowledgement.is_none()
    }

    const fn answers_dial(&self) -> bool {
        self.segment.syn && self.segment.acknowledgement.is_some()
    }
}

impl Engine {
    pub(super) fn judge_segment(&mut self, arrival: &Arrival<'_>) -> Verdict {
        let (key, now) = (arrival.key(), arrival.now);
        self.follow(&key, arrival);
        let Some(flow) = self.flows.get(&key, now) else {
            return self.judge_unfollowed(arrival);
        };
        let (state, role) = (flow.state, flow.role_of(arrival.source.into()));
        let parties = self.segment_parties(arrival, role);
        let verdict = match state {
            // A kernel that still asks has not heard the answer yet: it is told again.
            State::Cleared(reason) if arrival.tracked.is_some() => Verdict::Clear(reason),
            State::Cleared(_) => Verdict::Pass(PassReason::Cleared),
            _ if self.is_blocked_pair(now, &parties) => Verdict::Drop(DropReason::KnownPeer),
            _ if self.is_refused_dial(arrival, &parties) => Verdict::Drop(DropReason::LockedDial),
            State::Condemned | State::Tolerated(_) | State::Watched => {
                let growth = self.flows.record(&key, role, arrival.segment, now);
                self.judge_recorded(&key, arrival, &parties, growth)
            }
        };
        self.flows.keep(&key, arrival.tracked.is_some(), now);
        verdict
    }

    /// A segment without payload, of a flow that nothing is known about.
    fn judge_unfollowed(&self, arrival: &Arrival<'_>) -> Verdict {
        let parties = self.segment_parties(arrival, Role::Initiator);
        if self.is_blocked_pair(arrival.now, &parties) {
            Verdict::Drop(DropReason::KnownPeer)
        } else {
            Verdict::Pass(PassReason::NoPayload)
        }
    }

    fn judge_recorded(
        &mut self,
        key: &FlowKey,
        arrival: &Arrival<'_>,
        parties: &Parties,
        growth: Growth,
    ) -> Verdict {
        let now = arrival.now;
        let Some(flow) = self
            .flows
            .get(key, now)
            .filter(|_| arrival.segment.payload_len > 0)
        else {
            return Verdict::Pass(PassReason::NoPayload);
        };
        match flow.state {
            State::Condemned => Verdict::Drop(DropReason::Condemned),
            State::Cleared(_) => Verdict::Pass(PassReason::Cleared),
            State::Tolerated(_) | State::Watched if self.is_cut(now, flow, parties) => {
                self.cut(key, now, parties)
            }
            State::Tolerated(reason) => Verdict::Tolerate(reason),
            State::Watched if is_late(flow, arrival) => self.judge_midstream(key, arrival, parties),
            State::Watched => self.judge_conversation(key, arrival, parties, growth),
        }
    }

    /// Follows a flow from the first segment that says something about it.
    fn follow(&mut self, key: &FlowKey, arrival: &Arrival<'_>) {
        let Arrival { now, segment, .. } = *arrival;
        let (source, destination) = (arrival.source.into(), arrival.destination.into());
        let known = self.flows.get(key, now);
        let begins_anew = known.is_none_or(|flow| is_successor(flow, arrival));
        let says_something = segment.syn || segment.payload_len > 0;
        if !begins_anew || !says_something {
            return;
        }
        let (initiator, responder, start) = match (segment.syn, arrival.tracked) {
            (true, _) if arrival.is_dial() => (source, destination, Start::Seen),
            (true, _) => (destination, source, Start::Seen),
            (false, Some(tracked)) => tracked_ends(source, destination, tracked),
            (false, None) => guessed_ends(source, destination),
        };
        self.flows
            .open(*key, Flow::new(initiator, responder, start, now), now);
    }

    /// Which end of a segment is the inside host's, when its sender has this role in its flow.
    fn segment_parties(&self, arrival: &Arrival<'_>, role: Role) -> Parties {
        let Arrival {
            source,
            destination,
            ..
        } = *arrival;
        let source_is_host = if self.config.judge_all {
            role == Role::Initiator
        } else {
            self.config.is_inside(IpAddr::V4(*source.ip()))
        };
        let packet = PacketEnds::new("TCP", source.into(), destination.into());
        if source_is_host {
            Parties::new(packet, source, destination, role)
        } else {
            Parties::new(packet, destination, source, role.other())
        }
    }

    /// Whether a locked host dials where it must not, or is answered there: a dial that was under way
    /// when its host became locked is not to complete later.
    fn is_refused_dial(&self, arrival: &Arrival<'_>, parties: &Parties) -> bool {
        let Parties { host, peer, .. } = *parties;
        (arrival.is_dial() || arrival.answers_dial())
            && parties.host_initiated
            && self.suspects.is_locked(*host.ip(), arrival.now)
            && !policy::may_dial(&self.config, peer.port(), self.is_proven(arrival.now, peer))
    }

    /// Whether an unproven flow was up when its host became locked, and must go.
    fn is_cut(&self, now: Timestamp, flow: &Flow, parties: &Parties) -> bool {
        let Some(since) = self.suspects.locked_since(*parties.host.ip(), now) else {
            return false;
        };
        let was_up = flow.start == Start::Midstream || flow.began < since;
        was_up
            && !policy::may_stay_up(flow.responder.port())
            && !(parties.host_initiated && self.is_proven(now, parties.peer))
    }

    fn cut(&mut self, key: &FlowKey, now: Timestamp, parties: &Parties) -> Verdict {
        self.condemn(key, now, parties, DropReason::CutOnLock)
    }

    fn is_proven(&self, now: Timestamp, peer: SocketAddrV4) -> bool {
        self.suspects.is_proven(IpAddr::V4(*peer.ip()), now)
    }

    /// Judges the first payload seen of each direction of a flow that was up before.
    fn judge_midstream(
        &mut self,
        key: &FlowKey,
        arrival: &Arrival<'_>,
        parties: &Parties,
    ) -> Verdict {
        let Arrival { now, segment, .. } = *arrival;
        let Some(flow) = self.flows.get_mut(key, now) else {
            return Verdict::Pass(PassReason::Undecided);
        };
        flow.start = Start::Midstream;
        let segments = flow.payload_segments;
        let stream = flow.stream(flow.role_of(arrival.source.into()));
        let is_first = stream.head() == segment.payload;
        let evidence = is_first
            .then(|| protocol::read_midstream(segment.payload))
            .flatten();
        let situation = self.situation(now, parties);
        if let Some(found) = evidence.and_then(|evidence| find(evidence, &situation)) {
            let peers = protocol::announced_peers(segment.payload);
            return self.convict(key, now, parties, found, &peers);
        }
        self.judge_unrecognised(key, now, parties, segments, TolerateReason::Midstream)
    }

    /// Judges a flow by both its heads.
    fn judge_conversation(
        &mut self,
        key: &FlowKey,
        arrival: &Arrival<'_>,
        parties: &Parties,
        growth: Growth,
    ) -> Verdict {
        let Arrival { now, segment, .. } = *arrival;
        let Some(flow) = self.flows.get(key, now) else {
            return Verdict::Pass(PassReason::Undecided);
        };
        let conversation = conversation(flow);
        let (first_copy, standing) = protocol::read_conversation(&conversation);
        let second_copy = growth
            .contradicts
            .then(|| read_second_copy(flow, arrival.source.into(), segment))
            .flatten();
        let sightings = [first_copy, second_copy].into_iter().flatten();
        let situation = Situation {
            repeats: flow.stalls,
            fills_window: fills_window(flow),
            may_be_middle: may_be_middle(flow, arrival),
            follows_gap: now < self.middles_until && may_be_of_head(arrival.segment.payload),
            ..self.situation(now, parties)
        };
        let mut findings = sightings.filter_map(|seen| find(seen, &situation));
        if let Some(found) = findings.next() {
            let peers = [conversation.initiator, conversation.responder]
                .map(|head| protocol::announced_peers(head.octets))
                .concat();
            return self.convict(key, now, parties, found, &peers);
        }
        let is_worth_noting = |seen: &Evidence| !seen.is_everyday() && flow.noted != Some(*seen);
        if let Some(weak) = first_copy.filter(is_worth_noting) {
            self.note(key, now, parties, weak);
        }
        self.judge_standing(key, now, parties, standing, &situation)
    }

    /// Judges a flow that no evidence speaks against, or none that is strong enough.
    fn judge_standing(
        &mut self,
        key: &FlowKey,
        now: Timestamp,
        parties: &Parties,
        standing: Standing,
        situation: &Situation,
    ) -> Verdict {
        let Some(flow) = self.flows.get(key, now) else {
            return Verdict::Pass(PassReason::Undecided);
        };
        let segments = flow.payload_segments;
        let unproven = match standing {
            Standing::Unrecognised | Standing::Withheld(Patience::OfSuspects)
                if policy::awaits_beginning(situation) =>
            {
                return Verdict::Drop(DropReason::Withheld);
            }
            Standing::Withheld(patience) => return withhold(patience, situation),
            Standing::Harmless(reason) if !flow.contradictory => {
                return self.clear(key, now, parties, reason);
            }
            Standing::Asked if !flow.contradictory && policy::may_be_believed(situation) => {
                // The address is not proven anew: that takes an answer.
                return self.settle_cleared(key, now, ClearReason::HttpProvenServer);
            }
            Standing::Asked | Standing::Open if segments <= MAX_OPEN_SEGMENTS => {
                let is_opener = flow.noted.is_some_and(is_opener);
                let opener = is_opener.then_some(PassReason::UnconfirmedOpener);
                return Verdict::Pass(opener.unwrap_or(PassReason::Undecided));
            }
            Standing::Harmless(_) => TolerateReason::Contradictory,
            Standing::Asked | Standing::Open | Standing::Unrecognised => {
                TolerateReason::Unrecognised
            }
        };
        self.judge_unrecognised(key, now, parties, segments, unproven)
    }

    fn clear(
        &mut self,
        key: &FlowKey,
        now: Timestamp,
        parties: &Parties,
        reason: ClearReason,
    ) -> Verdict {
        if parties.host_initiated {
            let address = IpAddr::V4(*parties.peer.ip());
            self.suspects
                .prove(&self.config, address, now, &mut self.out);
        }
        self.settle_cleared(key, now, reason)
    }

    fn settle_cleared(&mut self, key: &FlowKey, now: Timestamp, reason: ClearReason) -> Verdict {
        self.flows.settle(key, State::Cleared(reason), now);
        Verdict::Clear(reason)
    }

    /// Nothing will ever be proven about this flow.
    fn judge_unrecognised(
        &mut self,
        key: &FlowKey,
        now: Timestamp,
        parties: &Parties,
        segments: u32,
        reason: TolerateReason,
    ) -> Verdict {
        let host = *parties.host.ip();
        if self.suspects.is_locked(host, now) {
            if self.suspects.is_pair(host, parties.peer, now) {
                return self.condemn(key, now, parties, DropReason::KnownPeer);
            }
            let strictness = self.policy_of(host).strictness;
            if !policy::may_be_unknown(strictness) {
                return self.condemn(key, now, parties, DropReason::Strict);
            }
        }
        if segments < MIN_WATCHED_SEGMENTS {
            return Verdict::Pass(PassReason::Undecided);
        }
        self.flows.settle(key, State::Tolerated(reason), now);
        Verdict::Tolerate(reason)
    }

    /// Remembers evidence that was too weak alone.
    fn note(&mut self, key: &FlowKey, now: Timestamp, parties: &Parties, evidence: Evidence) {
        self.count(evidence);
        if let Some(flow) = self.flows.get_mut(key, now) {
            flow.noted = Some(evidence);
        }
        if is_opener(evidence) && parties.host_initiated {
            let host = *parties.host.ip();
            self.suspects
                .record_opener(&self.config, host, parties.peer, now);
        }
    }

    /// Drops the flow from here on and draws every conclusion from the evidence.
    fn convict(
        &mut self,
        key: &FlowKey,
        now: Timestamp,
        parties: &Parties,
        found: Found,
        announced: &[SocketAddrV4],
    ) -> Verdict {
        let host = *parties.host.ip();
        let sighting = Sighting {
            evidence: found.evidence,
            packet: parties.packet,
        };
        let earlier = self.suspects.other_opener(host, parties.peer, now);
        let confirmed = earlier.filter(|_| is_opener(found.evidence) && found.ruling.teaches);
        let verdict = Verdict::Drop(found.ruling.reason);
        self.flows.settle(key, State::Condemned, now);
        self.count(found.evidence);
        self.carry_out(now, parties, found, verdict);
        let others = announced.iter().copied().filter(|peer| *peer.ip() != host);
        for peer in others.chain(confirmed) {
            self.suspects
                .learn(&self.config, host, peer, sighting, now, &mut self.out);
        }
        verdict
    }

    /// Drops the flow from here on.
    fn condemn(
        &mut self,
        key: &FlowKey,
        now: Timestamp,
        parties: &Parties,
        reason: DropReason,
    ) -> Verdict {
        self.flows.settle(key, State::Condemned, now);
        let verdict = Verdict::Drop(reason);
        self.report_drop(now, parties, None, verdict);
        verdict
    }
}

fn find(evidence: Evidence, situation: &Situation) -> Option<Found> {
    let ruling = policy::rule(evidence, situation)?;
    Some(Found { evidence, ruling })
}

/// Holds octets back that may yet become FastTrack: TCP brings them again. A sender that has nothing
/// to add is let through if ordinary programs say the same and nobody is suspect.
fn withhold(patience: Patience, situation: &Situation) -> Verdict {
    match policy::withhold(patience, situation) {
        Withholding::Drop => Verdict::Drop(DropReason::Withheld),
        Withholding::Pass => Verdict::Pass(PassReason::Undecided),
        Withholding::Release => Verdict::Pass(PassReason::Released),
    }
}

/// Ends and beginning as the kernel remembers them.
const fn tracked_ends(
    source: SocketAddr,
    destination: SocketAddr,
    tracked: Conntrack,
) -> (SocketAddr, SocketAddr, Start) {
    let start = if tracked.from_start {
        Start::Seen
    } else {
        Start::Midstream
    };
    if tracked.reply {
        (destination, source, start)
    } else {
        (source, destination, start)
    }
}

/// Nobody saw who dialled. A port of the web is the responder's; else whoever speaks is taken for
/// the initiator.
fn guessed_ends(source: SocketAddr, destination: SocketAddr) -> (SocketAddr, SocketAddr, Start) {
    let source_serves = policy::may_stay_up(source.port());
    if source_serves && !policy::may_stay_up(destination.port()) {
        (destination, source, Start::Midstream)
    } else {
        (source, destination, Start::Midstream)
    }
}

/// Whether a segment belongs to a later connection between the ends of a flow. A new dial says so; a
/// repeated one does not. The kernel does not queue most dials, but it says that it saw one, and the
/// sequence numbers are others. It says so only of segments that belong to the connection: others
/// are invalid to it, and what passed unseen lost the mark.
fn is_successor(flow: &Flow, arrival: &Arrival<'_>) -> bool {
    let Arrival { segment, .. } = arrival;
    let role = flow.role_of(arrival.source.into());
    if arrival.is_dial() {
        let begins = Some(segment.sequence.wrapping_add(1));
        return role == Role::Responder || flow.stream(role).certain_base() != begins;
    }
    let was_tracked = arrival.tracked.is_some_and(|tracked| tracked.from_start);
    was_tracked && !flow.fits(role, segment)
}

/// Whether the beginning of a flow was missed: it says so, or the responder acknowledges octets of
/// the initiator that nobody here has seen.
fn is_late(flow: &Flow, arrival: &Arrival<'_>) -> bool {
    let initiator = flow.stream(Role::Initiator);
    let is_silent = initiator.head().is_empty() && !initiator.is_waiting();
    let answers_silence = arrival.segment.acknowledgement == initiator.certain_base();
    let responder_speaks = flow.role_of(arrival.source.into()) == Role::Responder;
    flow.start == Start::Midstream || (responder_speaks && is_silent && !answers_silence)
}

/// Whether what a sender said first may have been said later: the other side has not told what it expects
/// first, and nothing came again.
fn may_be_middle(flow: &Flow, arrival: &Arrival<'_>) -> bool {
    let role = flow.role_of(arrival.source.into());
    flow.stream(role).certain_base().is_none() && !flow.came_again
}

/// Whether one side has sent as many segments as a first window allows, hardly an octet in each, and is
/// not at the end of a head: then it cannot go on before some are acknowledged.
fn fills_window(flow: &Flow) -> bool {
    let segments = flow.payload_segments as usize;
    let is_cut_small = |role| {
        let stream = flow.stream(role);
        (FIRST_WINDOW_SEGMENTS..=segments * MOST_OCTETS_OF_TINY).contains(&stream.extent())
            && !stream.head().ends_with(b"\r\n\r\n")
    };
    segments >= FIRST_WINDOW_SEGMENTS
        && (is_cut_small(Role::Initiator) || is_cut_small(Role::Responder))
}

fn conversation(flow: &Flow) -> Conversation<'_> {
    Conversation {
        initiator: head_of(flow.stream(Role::Initiator)),
        responder: head_of(flow.stream(Role::Responder)),
    }
}

fn head_of(stream: &Stream) -> Head<'_> {
    Head {
        octets: stream.head(),
        has_ended: stream.has_ended(),
        extent: stream.extent(),
    }
}

/// What the conversation would say if a contradicting segment's octets counted.
fn read_second_copy(flow: &Flow, source: SocketAddr, segment: &Segment<'_>) -> Option<Evidence> {
    let role = flow.role_of(source);
    let octets = flow.stream(role).with_second_copy(segment);
    let mut conversation = conversation(flow);
    match role {
        Role::Initiator => conversation.initiator.octets = &octets,
        Role::Responder => conversation.responder.octets = &octets,
    }
    protocol::read_conversation(&conversation).0
}

const fn is_opener(evidence: Evidence) -> bool {
    matches!(evidence, Evidence::OpenerShape | Evidence::EncryptedOpener)
}

/// Segments that a sender may have under way before the first is acknowledged (RFC 6928).
const FIRST_WINDOW_SEGMENTS: usize = 10;
/// Octets per segment, on average, that no ordinary program writes ten times in a row.
const MOST_OCTETS_OF_TINY: usize = 16;
/// Segments with payload after which an unrecognised flow is no longer watched.
const MIN_WATCHED_SEGMENTS: u32 = 4;
/// Segments with payload after which an undecided flow counts as unrecognised: as many as the longest
/// head has octets, so that cutting it small gains nothing.
const MAX_OPEN_SEGMENTS: u32 = 4096;
