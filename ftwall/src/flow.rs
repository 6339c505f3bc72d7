//! TCP flows: key, direction, and the first octets of each direction, put in order.
//!
//! Only the head of a conversation is gathered, because only heads are ever judged. Of octets sent
//! twice the first copy counts; a second copy that differs is reported, never stored.

use std::net::SocketAddr;
use std::time::Duration;

use crate::expiring::Expiring;
use crate::packet::Segment;
use crate::verdict::{ClearReason, TolerateReason};
use crate::{Evidence, Timestamp};

/// Octets gathered of each direction: what a FastTrack peer accepts as a request at most (giFT's
/// HTTP server).
pub(crate) const HEAD_LIMIT: usize = 4096;

/// Both ends of a flow in an order of their own, so that either direction finds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct FlowKey {
    low: SocketAddr,
    high: SocketAddr,
}

impl FlowKey {
    pub(crate) fn new(source: SocketAddr, destination: SocketAddr) -> Self {
        Self {
            low: source.min(destination),
            high: source.max(destination),
        }
    }
}

/// Who of a flow is speaking.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Initiator,
    Responder,
}

impl Role {
    pub(crate) const fn other(self) -> Self {
        match self {
            Self::Initiator => Self::Responder,
            Self::Responder => Self::Initiator,
        }
    }
}

/// How much is known about a flow's beginning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Start {
    /// Its SYN was seen, here or by the kernel: the first payload seen is the first there was.
    Seen,
    /// It was up before; who initiated it is a guess.
    Midstream,
}

/// What was decided about a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    Watched,
    Tolerated(TolerateReason),
    Cleared(ClearReason),
    Condemned,
}

/// One TCP flow.
#[derive(Debug)]
pub(crate) struct Flow {
    pub(crate) initiator: SocketAddr,
    pub(crate) responder: SocketAddr,
    pub(crate) start: Start,
    pub(crate) began: Timestamp,
    pub(crate) state: State,
    /// Retransmissions since the flow last had something new to say.
    pub(crate) stalls: u8,
    /// Something came again: by then its sender has brought what it begins with.
    pub(crate) came_again: bool,
    /// Segments so far that had something new to say, or may have had.
    pub(crate) payload_segments: u32,
    /// Evidence seen that was too weak alone.
    pub(crate) noted: Option<Evidence>,
    /// Its retransmissions contradict each other, so nothing about it can be proven.
    pub(crate) contradictory: bool,
    pub(crate) from_initiator: Stream,
    pub(crate) from_responder: Stream,
}

impl Flow {
    pub(crate) fn new(
        initiator: SocketAddr,
        responder: SocketAddr,
        start: Start,
        began: Timestamp,
    ) -> Self {
        Self {
            initiator,
            responder,
            start,
            began,
            state: State::Watched,
            stalls: 0,
            came_again: false,
            payload_segments: 0,
            noted: None,
            contradictory: false,
            from_initiator: Stream::default(),
            from_responder: Stream::default(),
        }
    }

    pub(crate) fn role_of(&self, source: SocketAddr) -> Role {
        if source == self.initiator {
            Role::Initiator
        } else {
            Role::Responder
        }
    }

    pub(crate) const fn stream(&self, role: Role) -> &Stream {
        match role {
            Role::Initiator => &self.from_initiator,
            Role::Responder => &self.from_responder,
        }
    }

    /// Whether a segment can be one of this flow's. Another connection between the same ends has
    /// sequence numbers of its own, which a clock moves on (RFC 6528).
    pub(crate) fn fits(&self, role: Role, segment: &Segment<'_>) -> bool {
        let acknowledged = self.stream(role.other());
        self.stream(role).is_near(first_sequence(segment))
            && segment
                .acknowledgement
                .is_none_or(|acknowledgement| acknowledged.is_near(acknowledgement))
    }

    /// Takes in one segment; `room` is how many octets may still be held.
    fn record(&mut self, role: Role, segment: &Segment<'_>, room: usize) -> Growth {
        let (own, other) = match role {
            Role::Initiator => (&mut self.from_initiator, &mut self.from_responder),
            Role::Responder => (&mut self.from_responder, &mut self.from_initiator),
        };
        if let Some(acknowledgement) = segment.acknowledgement {
            other.learn_base(acknowledgement);
            other.latest = Some(acknowledgement);
        }
        own.latest = Some(first_sequence(segment));
        let growth = own.record(segment, room);
        if segment.payload_len > 0 {
            let may_be_new = growth.grew || own.has_ended();
            self.payload_segments = self.payload_segments.saturating_add(may_be_new.into());
            self.came_again |= !growth.grew;
            self.stalls = if growth.grew {
                0
            } else {
                self.stalls.saturating_add(1)
            };
        }
        self.contradictory |= growth.contradicts;
        growth
    }

    pub(crate) fn held(&self) -> usize {
        self.from_initiator.held() + self.from_responder.held()
    }
}

/// What one segment added to a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Growth {
    /// There are octets that were not known before.
    pub(crate) grew: bool,
    /// Octets known before came again with other values.
    pub(crate) contradicts: bool,
}

/// The first octets of one direction, put in order.
#[derive(Debug, Default)]
pub(crate) struct Stream {
    base: Option<Base>,
    /// The last sequence number of this direction that either side named.
    latest: Option<u32>,
    head: Vec<u8>,
    /// Octets behind a gap, by their offset.
    waiting: Vec<(usize, Vec<u8>)>,
    ended: bool,
}

/// Sequence number of a direction's first octet.
#[derive(Debug, Clone, Copy)]
struct Base {
    sequence: u32,
    /// Said by a SYN or by the other side's acknowledgement, not guessed from the first segment.
    is_certain: bool,
}

impl Stream {
    /// The first octets, without a gap.
    pub(crate) fn head(&self) -> &[u8] {
        &self.head
    }

    /// Nothing will be added any more: the limit is reached or octets are lost to view.
    pub(crate) const fn has_ended(&self) -> bool {
        self.ended
    }

    /// Octets behind a gap are known to exist.
    pub(crate) fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Where the furthest octet known to exist ends, counted from the first.
    pub(crate) fn extent(&self) -> usize {
        let ends = self
            .waiting
            .iter()
            .map(|(offset, octets)| offset + octets.len());
        ends.max().unwrap_or_default().max(self.head.len())
    }

    /// Sequence number of the first octet, if known for sure.
    pub(crate) fn certain_base(&self) -> Option<u32> {
        self.base
            .filter(|base| base.is_certain)
            .map(|base| base.sequence)
    }

    /// Whether a sequence number lies as close to the last one as octets in flight can.
    fn is_near(&self, sequence: u32) -> bool {
        let distance = |latest| sequence.wrapping_sub(latest).cast_signed();
        self.latest
            .is_none_or(|latest| distance(latest).unsigned_abs() <= MAX_IN_FLIGHT)
    }

    /// The head as it would be if this segment's copy counted where both copies exist.
    pub(crate) fn with_second_copy(&self, segment: &Segment<'_>) -> Vec<u8> {
        let mut head = self.head.clone();
        let Some(base) = self.base else { return head };
        let distance = first_sequence(segment).wrapping_sub(base.sequence);
        for (offset, octet) in (distance as usize..).zip(segment.payload) {
            match head.get_mut(offset) {
                Some(known) => *known = *octet,
                None => break,
            }
        }
        head
    }

    /// The other side has said what it expects first.
    fn learn_base(&mut self, sequence: u32) {
        if self.base.is_none() {
            self.base = Some(Base {
                sequence,
                is_certain: true,
            });
        }
    }

    fn record(&mut self, segment: &Segment<'_>, room: usize) -> Growth {
        let sequence = first_sequence(segment);
        if segment.syn {
            self.base = Some(Base {
                sequence,
                is_certain: true,
            });
        }
        if segment.payload_len == 0 || self.ended {
            return Growth::default();
        }
        let base = *self.base.get_or_insert(Base {
            sequence,
            is_certain: false,
        });
        let distance = sequence.wrapping_sub(base.sequence).cast_signed();
        let (offset, payload) = match usize::try_from(distance) {
            Ok(offset) => (offset, segment.payload),
            Err(_) if !base.is_certain && distance >= -MAX_REORDERING => {
                self.rebase(sequence, distance.unsigned_abs() as usize);
                (0, segment.payload)
            }
            Err(_) => (0, after(segment.payload, distance.unsigned_abs() as usize)),
        };
        if payload.is_empty() && segment.payload.len() == segment.payload_len {
            return Growth::default();
        }
        let growth = self.place(offset, payload, room);
        let is_cut_short = segment.payload.len() < segment.payload_len;
        self.ended |= self.head.len() >= HEAD_LIMIT
            || (is_cut_short && self.head.len() <= offset + payload.len());
        growth
    }

    /// The first segment seen was not the first one sent: everything moves back. What is furthest
    /// back makes room, since a sender may do this as often as it likes.
    fn rebase(&mut self, sequence: u32, distance: usize) {
        self.base = Some(Base {
            sequence,
            is_certain: false,
        });
        for (offset, _) in &mut self.waiting {
            *offset += distance;
        }
        let head = std::mem::take(&mut self.head);
        if !head.is_empty() {
            self.waiting.push((distance, head));
        }
        for (offset, octets) in &mut self.waiting {
            octets.truncate(HEAD_LIMIT.saturating_sub(*offset));
        }
        self.waiting.retain(|(_, octets)| !octets.is_empty());
        self.waiting.sort_by_key(|(offset, _)| *offset);
        self.waiting.truncate(MAX_WAITING);
    }

    fn place(&mut self, offset: usize, payload: &[u8], room: usize) -> Growth {
        if offset > self.head.len() {
            return self.keep_waiting(offset, payload, room);
        }
        let known = payload.len().min(self.head.len() - offset);
        let contradicts = self.head[offset..offset + known] != payload[..known];
        let grew = self.append(&payload[known..], room);
        self.join_waiting(room);
        Growth { grew, contradicts }
    }

    fn append(&mut self, octets: &[u8], room: usize) -> bool {
        let room = room.min(HEAD_LIMIT.saturating_sub(self.head.len()));
        self.ended |= octets.len() > room;
        self.head
            .extend_from_slice(&octets[..octets.len().min(room)]);
        !octets.is_empty()
    }

    fn keep_waiting(&mut self, offset: usize, payload: &[u8], room: usize) -> Growth {
        let fits = offset + payload.len() <= HEAD_LIMIT && payload.len() <= room;
        let is_known = self.waiting.iter().any(|(known_offset, known)| {
            *known_offset <= offset && offset + payload.len() <= known_offset + known.len()
        });
        if fits && !is_known && self.waiting.len() < MAX_WAITING {
            self.waiting.push((offset, payload.to_vec()));
        }
        Growth {
            grew: !is_known,
            contradicts: false,
        }
    }

    /// Appends whatever no longer lies behind a gap.
    fn join_waiting(&mut self, room: usize) {
        while let Some(index) = self
            .waiting
            .iter()
            .position(|(at, _)| *at <= self.head.len())
        {
            let (offset, octets) = self.waiting.swap_remove(index);
            let known = self.head.len() - offset;
            self.append(after(&octets, known), room);
        }
    }

    pub(crate) fn held(&self) -> usize {
        self.head.len()
            + self
                .waiting
                .iter()
                .map(|(_, octets)| octets.len())
                .sum::<usize>()
    }

    /// Pieces behind a gap that are held.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(crate) const fn pieces(&self) -> usize {
        self.waiting.len()
    }

    /// Forgets the octets once nothing depends on them any more.
    fn end(&mut self) {
        self.head = Vec::new();
        self.waiting = Vec::new();
        self.ended = true;
    }
}

/// Sequence number of a segment's first octet of payload: the SYN takes a number of its own.
fn first_sequence(segment: &Segment<'_>) -> u32 {
    segment.sequence.wrapping_add(u32::from(segment.syn))
}

fn after(octets: &[u8], count: usize) -> &[u8] {
    octets.get(count..).unwrap_or_default()
}

/// How far before the first segment seen the first one sent may lie, in octets.
const MAX_REORDERING: i32 = 1 << 16;
/// How far apart the octets of an undecided flow may be, one segment to the next: more than anybody
/// sends before the other side has answered. A clock of 4 us a number (RFC 6528) passes it within 17 s,
/// before the ends of a closed connection may be used again (RFC 9293, TIME-WAIT).
const MAX_IN_FLIGHT: u32 = 1 << 22;
/// Pieces behind a gap that are kept per direction.
pub(crate) const MAX_WAITING: usize = 16;
/// Octets held of one direction at most: its head, and pieces of no more than a head's length.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) const MAX_HELD_PER_STREAM: usize = (1 + MAX_WAITING) * HEAD_LIMIT;

/// Every flow that is followed.
#[derive(Debug)]
pub(crate) struct FlowTable {
    flows: Expiring<FlowKey, Flow>,
    held: usize,
    hold_limit: usize,
}

impl FlowTable {
    pub(crate) fn new(capacity: usize, hold_limit: usize, seed: u64) -> Self {
        Self {
            flows: Expiring::new(capacity, seed),
            held: 0,
            hold_limit,
        }
    }

    pub(crate) fn get(&self, key: &FlowKey, now: Timestamp) -> Option<&Flow> {
        self.flows.get(key, now)
    }

    pub(crate) fn get_mut(&mut self, key: &FlowKey, now: Timestamp) -> Option<&mut Flow> {
        self.flows.get_mut(key, now)
    }

    /// Follows a flow, in place of an earlier one between the same ends.
    pub(crate) fn open(&mut self, key: FlowKey, flow: Flow, now: Timestamp) {
        if let Some(earlier) = self.flows.get(&key, Timestamp::ORIGIN) {
            self.held = self.held.saturating_sub(earlier.held());
        }
        if let Some((_, displaced)) = self.flows.insert(key, flow, now + WATCHED_IDLE) {
            self.held = self.held.saturating_sub(displaced.held());
        }
    }

    /// Takes in one segment of a flow and keeps the flow alive.
    pub(crate) fn record(
        &mut self,
        key: &FlowKey,
        role: Role,
        segment: &Segment<'_>,
        now: Timestamp,
    ) -> Growth {
        let room = self.hold_limit.saturating_sub(self.held);
        let Some(flow) = self.flows.get_mut(key, now) else {
            return Growth::default();
        };
        let before = flow.held();
        let growth = flow.record(role, segment, room);
        self.held = self.held.saturating_sub(before) + flow.held();
        growth
    }

    /// Decides a flow: its octets are no longer needed.
    pub(crate) fn settle(&mut self, key: &FlowKey, state: State, now: Timestamp) {
        let Some(flow) = self.flows.get_mut(key, now) else {
            return;
        };
        self.held = self.held.saturating_sub(flow.held());
        flow.state = state;
        flow.from_initiator.end();
        flow.from_responder.end();
    }

    /// Keeps a flow for as long as its state deserves. `is_tracked`: the kernel remembers the
    /// decision itself, so that only packets already on their way can still ask.
    pub(crate) fn keep(&mut self, key: &FlowKey, is_tracked: bool, now: Timestamp) {
        let Some(flow) = self.flows.get(key, now) else {
            return;
        };
        let idle = match flow.state {
            State::Watched | State::Condemned => WATCHED_IDLE,
            State::Tolerated(_) | State::Cleared(_) if is_tracked => TRACKED_LINGER,
            State::Tolerated(_) | State::Cleared(_) => SETTLED_IDLE,
        };
        self.flows.renew(key, now + idle);
    }

    /// Forgets every flow that was idle for too long.
    pub(crate) fn handle_timeout(&mut self, now: Timestamp) {
        while let Some((_, flow)) = self.flows.pop_ended(now) {
            self.held = self.held.saturating_sub(flow.held());
        }
    }

    pub(crate) fn poll_timeout(&self) -> Option<Timestamp> {
        self.flows.next_end()
    }

    /// Octets held of all flows together.
    pub(crate) const fn held(&self) -> usize {
        self.held
    }

    /// Every flow, in no order.
    pub(crate) fn flows(&self) -> impl Iterator<Item = &Flow> {
        self.flows.values()
    }
}

/// Longer than the longest pause of a living FastTrack session (a keep-alive every 120 s).
const WATCHED_IDLE: Duration = Duration::from_secs(300);
const TRACKED_LINGER: Duration = Duration::from_secs(30);
/// As long as connection tracking commonly remembers a flow at least.
const SETTLED_IDLE: Duration = Duration::from_secs(2 * 3600);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn either_direction_finds_the_same_flow() {
        let (a, b) = (
            "10.0.0.1:1".parse().unwrap(),
            "198.18.0.1:2".parse().unwrap(),
        );
        assert_eq!(FlowKey::new(a, b), FlowKey::new(b, a));
    }

    #[test]
    fn segments_out_of_order_are_put_in_order() {
        let mut stream = started_at(100);
        assert!(stream.record(&segment(105, b"world"), 99).grew);
        assert_eq!(stream.head(), b"");
        assert!(stream.is_waiting());
        assert_eq!(stream.extent(), 10);
        stream.record(&segment(100, b"hello"), 99);
        assert_eq!(stream.head(), b"helloworld");
        assert!(!stream.is_waiting());
    }

    #[test]
    fn a_retransmission_adds_nothing() {
        let mut stream = started_at(100);
        stream.record(&segment(100, b"hello"), 99);
        let again = stream.record(&segment(100, b"hello"), 99);
        assert_eq!(
            again,
            Growth {
                grew: false,
                contradicts: false
            }
        );
    }

    #[test]
    fn of_two_differing_copies_the_first_counts_and_the_second_is_reported() {
        let mut stream = started_at(100);
        stream.record(&segment(100, b"hello"), 99);
        let second = segment(103, b"pXY");
        let growth = stream.record(&second, 99);
        assert_eq!(
            growth,
            Growth {
                grew: true,
                contradicts: true
            }
        );
        assert_eq!(stream.head(), b"helloY");
        assert_eq!(stream.with_second_copy(&second), b"helpXY");
    }

    #[test]
    fn without_a_syn_an_earlier_segment_moves_the_beginning() {
        let mut stream = Stream::default();
        stream.record(&segment(105, b"world"), 99);
        stream.record(&segment(100, b"hello"), 99);
        assert_eq!(stream.head(), b"helloworld");
    }

    #[test]
    fn a_beginning_that_moves_back_for_ever_holds_no_more_than_any_other() {
        let mut stream = Stream::default();
        for sequence in (0..200_u32).rev() {
            stream.record(&segment(sequence * 10, b"GET /"), usize::MAX);
            assert!(stream.pieces() <= MAX_WAITING);
            assert!(stream.held() <= MAX_HELD_PER_STREAM);
        }
        assert_eq!(stream.head(), b"GET /");
    }

    #[test]
    fn octets_before_the_beginning_count_for_nothing() {
        let mut stream = started_at(100);
        let probe = stream.record(&segment(99, b"\0"), 99);
        assert_eq!(probe, Growth::default());
        stream.record(&segment(98, b"..hello"), 99);
        assert_eq!(stream.head(), b"hello");
    }

    #[test]
    fn sequence_numbers_may_wrap() {
        let mut stream = started_at(u32::MAX - 1);
        stream.record(&segment(u32::MAX - 1, b"hell"), 99);
        stream.record(&segment(2, b"o"), 99);
        assert_eq!(stream.head(), b"hello");
    }

    #[test]
    fn a_segment_cut_short_ends_the_head() {
        let mut stream = started_at(100);
        let cut = Segment {
            payload_len: 100,
            ..segment(100, b"GET /")
        };
        stream.record(&cut, 99);
        assert!(stream.has_ended());
        assert_eq!(stream.head(), b"GET /");
    }

    #[test]
    fn no_more_is_held_than_there_is_room_for() {
        let mut stream = started_at(0);
        stream.record(&segment(0, &[1; 100]), 10);
        assert_eq!(stream.head().len(), 10);
        assert!(stream.has_ended());
        let mut stream = started_at(0);
        stream.record(&segment(0, &[1; 65_000]), usize::MAX);
        assert_eq!(stream.head().len(), HEAD_LIMIT);
    }

    #[test]
    fn an_acknowledgement_says_where_the_other_side_begins() {
        let mut flow = flow();
        let first = Segment {
            acknowledgement: Some(500),
            ..segment(100, b"hello")
        };
        flow.record(Role::Initiator, &first, 99);
        flow.record(Role::Responder, &segment(503, b"there"), 99);
        assert_eq!(flow.from_responder.head(), b"");
        flow.record(Role::Responder, &segment(500, b"hi "), 99);
        assert_eq!(flow.from_responder.head(), b"hi there");
    }

    #[test]
    fn the_table_gives_back_what_a_decided_flow_held() {
        let mut table = FlowTable::new(4, 1000, 1);
        let (key, now) = (open_flow(&mut table), Timestamp::from_secs(1));
        table.record(&key, Role::Initiator, &segment(100, &[1; 600]), now);
        assert_eq!(table.held, 600);
        table.settle(&key, State::Condemned, now);
        assert_eq!(table.held, 0);
        table.handle_timeout(now + WATCHED_IDLE);
        assert!(table.get(&key, now).is_none());
    }

    #[test]
    fn without_a_syn_pieces_behind_gaps_move_back_too() {
        let mut stream = Stream::default();
        stream.record(&segment(110, b"c"), 99);
        stream.record(&segment(113, b"f"), 99);
        stream.record(&segment(108, b"a"), 99);
        assert_eq!(stream.head(), b"a");
        stream.record(&segment(109, b"b"), 99);
        assert_eq!(stream.head(), b"abc");
        stream.record(&segment(111, b"de"), 99);
        assert_eq!(stream.head(), b"abcdef");
    }

    #[test]
    fn without_a_syn_a_segment_of_long_ago_is_not_the_beginning() {
        let mut stream = Stream::default();
        stream.record(&segment(1 << 20, b"now"), 99);
        let reordered = stream.record(&segment((1 << 20) - (1 << 16), b"old"), 99);
        assert!(reordered.grew);
        let mut stream = Stream::default();
        stream.record(&segment(1 << 20, b"now"), 99);
        stream.record(&segment((1 << 20) - (1 << 16) - 1, b"old"), 99);
        assert_eq!((stream.head(), stream.is_waiting()), (&b"now"[..], false));
    }

    #[test]
    fn a_segment_without_payload_is_no_repetition_and_no_beginning() {
        let mut flow = flow();
        flow.record(Role::Initiator, &segment(200, b""), 99);
        flow.record(Role::Initiator, &segment(100, b"hello"), 99);
        flow.record(Role::Initiator, &segment(105, b""), 99);
        assert_eq!((flow.payload_segments, flow.stalls), (1, 0));
        assert_eq!(flow.from_initiator.head(), b"hello");
        flow.record(Role::Initiator, &segment(100, b"hello"), 99);
        assert_eq!((flow.payload_segments, flow.stalls), (1, 1));
    }

    #[test]
    fn a_segment_of_which_only_headers_were_captured_ends_the_head() {
        let mut stream = started_at(100);
        let headers_only = Segment {
            payload_len: 100,
            ..segment(100, b"")
        };
        stream.record(&headers_only, 99);
        assert!(stream.has_ended());
        let mut stream = started_at(100);
        stream.record(&segment(90, b"long ago"), 99);
        assert!(!stream.has_ended(), "whole, but old");
    }

    #[test]
    fn octets_that_just_fit_do_not_end_the_head() {
        let mut stream = started_at(0);
        stream.record(&segment(0, &[1; 10]), 10);
        assert!(!stream.has_ended());
        stream.record(&segment(10, &[1; HEAD_LIMIT - 11]), HEAD_LIMIT);
        assert!(!stream.has_ended());
        stream.record(&segment(HEAD_LIMIT as u32 - 1, &[1]), HEAD_LIMIT);
        assert!(stream.has_ended());
    }

    #[test]
    fn behind_a_gap_no_more_is_kept_than_there_is_room_for() {
        let limit = HEAD_LIMIT as u32;
        for (offset, len, room, is_kept) in [
            (limit - 10, 10, 10, true),
            (limit - 10, 11, 99, false),
            (limit + 10, 1, 99, false),
            (5, 10, 9, false),
        ] {
            let mut stream = started_at(0);
            assert!(stream.record(&segment(offset, &[1; 11][..len]), room).grew);
            assert_eq!(stream.is_waiting(), is_kept, "{len} at {offset}");
        }
    }

    #[test]
    fn pieces_behind_a_gap_are_kept_once_each_and_only_so_many() {
        let mut stream = started_at(0);
        assert!(stream.record(&segment(10, b"0123456789"), 99).grew);
        for (offset, piece) in [(10, &b"0123456789"[..]), (10, b"0123"), (15, b"56789")] {
            assert!(!stream.record(&segment(offset, piece), 99).grew);
        }
        assert_eq!(stream.held(), 10);
        for (offset, piece) in [(9, &b"."[..]), (20, b"."), (15, b"56789.")] {
            assert!(stream.record(&segment(offset, piece), 99).grew);
        }
        assert_eq!(stream.held(), 18);
        for index in 0..100 {
            stream.record(&segment(100 + 2 * index, b"."), 99);
        }
        assert_eq!(stream.waiting.len(), MAX_WAITING);
    }

    #[test]
    fn a_sequence_number_is_near_as_far_as_octets_in_flight_reach() {
        let mut flow = flow();
        let far = |number: u32| Segment {
            acknowledgement: Some(number),
            ..segment(100, b"")
        };
        assert!(
            flow.fits(Role::Initiator, &far(1 << 31)),
            "nothing is known"
        );
        flow.record(Role::Initiator, &far(7_000_000), 99);
        for (number, fits) in [
            (7_000_000 + MAX_IN_FLIGHT, true),
            (7_000_001 + MAX_IN_FLIGHT, false),
            (7_000_000 - MAX_IN_FLIGHT, true),
            (6_999_999 - MAX_IN_FLIGHT, false),
        ] {
            assert_eq!(flow.fits(Role::Initiator, &far(number)), fits, "{number}");
            let from_responder = segment(number, b"");
            assert_eq!(
                flow.fits(Role::Responder, &from_responder),
                fits,
                "{number}"
            );
        }
    }

    #[test]
    fn a_decided_flow_gathers_nothing_more() {
        let mut table = FlowTable::new(4, 1000, 1);
        let (key, now) = (open_flow(&mut table), Timestamp::from_secs(1));
        for role in [Role::Initiator, Role::Responder] {
            table.record(&key, role, &segment(100, b"head"), now);
            table.record(&key, role, &segment(110, b"behind a gap"), now);
        }
        assert_eq!(table.held, 32);
        table.settle(&key, State::Condemned, now);
        table.record(&key, Role::Initiator, &segment(104, b"more"), now);
        assert_eq!((table.held, table.get(&key, now).unwrap().held()), (0, 0));
    }

    #[test]
    fn flows_that_are_replaced_displaced_or_idle_give_back_what_they_held() {
        let mut table = FlowTable::new(1, 1000, 1);
        let (key, now) = (open_flow(&mut table), Timestamp::from_secs(1));
        table.record(&key, Role::Initiator, &segment(100, b"hello"), now);
        table.open(key, flow(), now);
        assert_eq!(table.held, 0, "replaced");
        table.record(&key, Role::Initiator, &segment(100, b"hello"), now);
        let other = FlowKey::new("10.0.0.1:9".parse().unwrap(), key.high);
        table.open(other, flow(), now);
        assert_eq!(table.held, 0, "displaced");
        table.record(&other, Role::Initiator, &segment(100, b"hello"), now);
        assert_eq!(table.poll_timeout(), Some(now + WATCHED_IDLE));
        table.handle_timeout(now + WATCHED_IDLE);
        assert_eq!((table.held, table.poll_timeout()), (0, None), "idle");
    }

    #[test]
    fn a_flow_is_remembered_as_long_as_its_state_deserves() {
        let cleared = State::Cleared(ClearReason::Http);
        let tolerated = State::Tolerated(TolerateReason::Midstream);
        for (state, is_tracked, idle) in [
            (State::Watched, false, 300),
            (State::Condemned, true, 300),
            (cleared, true, 30),
            (cleared, false, 7200),
            (tolerated, true, 30),
            (tolerated, false, 7200),
        ] {
            let mut table = FlowTable::new(4, 1000, 1);
            let (key, last) = (open_flow(&mut table), Timestamp::from_secs(200));
            table.settle(&key, state, last);
            table.keep(&key, is_tracked, last);
            let after = |secs: u64| Timestamp::from_secs(200 + secs);
            assert!(table.get(&key, after(idle - 1)).is_some(), "{state:?}");
            assert!(table.get(&key, after(idle)).is_none(), "{state:?}");
        }
    }

    proptest! {
        #[test]
        fn a_message_is_the_same_however_it_is_cut_and_shuffled(
            message in prop::collection::vec(any::<u8>(), 1..60),
            cuts in prop::collection::vec(1_usize..8, 1..60),
            order in prop::collection::vec(any::<prop::sample::Index>(), 1..14),
        ) {
            let mut pieces = Vec::new();
            let mut at = 0;
            for cut in cuts.iter().cycle() {
                let end = message.len().min(at + cut);
                pieces.push((at, &message[at..end]));
                at = end;
                if at == message.len() {
                    break;
                }
            }
            for (index, swap) in order.iter().enumerate() {
                let first = index % pieces.len();
                let second = swap.index(pieces.len());
                // Displace no piece further than the pieces kept behind a gap.
                if first.abs_diff(second) < MAX_WAITING / 2 {
                    pieces.swap(first, second);
                }
            }
            let mut stream = started_at(7);
            for (at, piece) in pieces.iter().chain(pieces.iter()) {
                stream.record(&segment(7 + *at as u32, piece), 1000);
            }
            prop_assert_eq!(stream.head(), &message[..]);
        }
    }

    fn started_at(sequence: u32) -> Stream {
        let mut stream = Stream::default();
        let syn = Segment {
            syn: true,
            ..segment(sequence.wrapping_sub(1), b"")
        };
        stream.record(&syn, 99);
        stream
    }

    fn segment(sequence: u32, payload: &[u8]) -> Segment<'_> {
        Segment {
            source_port: 1,
            destination_port: 2,
            sequence,
            acknowledgement: None,
            syn: false,
            payload,
            payload_len: payload.len(),
        }
    }

    /// A flow followed since the first second.
    fn open_flow(table: &mut FlowTable) -> FlowKey {
        let flow = flow();
        let key = FlowKey::new(flow.initiator, flow.responder);
        table.open(key, flow, Timestamp::from_secs(1));
        key
    }

    fn flow() -> Flow {
        let (a, b) = (
            "10.0.0.1:1".parse().unwrap(),
            "198.18.0.1:2".parse().unwrap(),
        );
        Flow::new(a, b, Start::Seen, Timestamp::ORIGIN)
    }
}
