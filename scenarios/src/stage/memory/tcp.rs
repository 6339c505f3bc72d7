//! One end of a TCP connection on the virtual clock (RFC 9293), with Linux's timers.
//!
//! Told the time and what arrived, asked what to send. Retransmission backs off as Linux has it: a
//! SYN after 1 s, 2 s, 4 s and so on, data after 200 ms over the round trip, doubled each time; three
//! duplicate acknowledgements repeat a segment at once (RFC 6582); a silent line is probed with one
//! segment more (RFC 8985). Selective and delayed acknowledgements are left out: they make Linux quicker,
//! never different.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddrV4;
use std::time::Duration;

use simulator::report::Failure;

use super::packet::{self, Flags, Segment};

/// Payload of a full segment: the MTU without two headers.
pub(super) const MSS: usize = packet::MTU - packet::IP_HEADER - packet::TCP_HEADER;

/// Wait before a SYN is sent again, and before data is where no round trip was measured yet.
const FIRST_TIMEOUT: Duration = Duration::from_secs(1);

/// What Linux adds to the round trip at least (`TCP_RTO_MIN`).
const LEAST_TIMEOUT: Duration = Duration::from_millis(200);

/// What is added to two round trips before a silent line is probed: two ticks of Linux's clock.
const PROBE_SLACK: Duration = Duration::from_millis(5);

/// The longest wait between two copies (`TCP_RTO_MAX`).
const LONGEST_TIMEOUT: Duration = Duration::from_secs(120);

/// How often a SYN is repeated (`tcp_syn_retries`): after 127 s the dial has failed.
const SYN_RETRIES: u32 = 6;

/// How often an answer to a SYN is repeated (`tcp_synack_retries`).
const SYN_ACK_RETRIES: u32 = 5;

/// How often data is repeated (`tcp_retries2`).
const DATA_RETRIES: u32 = 15;

/// Segments in flight at first (RFC 6928).
const FIRST_FLIGHT: u64 = 10;

/// Segments in flight at most: what a gigabit line and a default socket buffer allow.
const MOST_IN_FLIGHT: u64 = 256;

/// Duplicate acknowledgements that mean a loss (RFC 5681).
const DUPLICATES: u32 = 3;

/// Octets kept of what came before its turn, counted from what is next.
const REORDER_WINDOW: u64 = 1 << 20;

/// How far an end has got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// A SYN is under way.
    SynSent,
    /// A SYN was answered.
    SynReceived,
    /// Both SYNs were acknowledged; closing happens in here too.
    Established,
    /// Reset, given up, or never answered.
    Dead,
}

/// What happened to an end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Happening {
    /// The handshake is complete.
    Connected,
    /// Octets came in: [`Tcp::take_received`].
    Data,
    /// The other side will send no more.
    Closed,
    /// It is over.
    Failed(Failure),
}

/// One end of a connection.
///
/// Places in a stream are counted from the SYN, which has place 0; the first octet has place 1.
#[derive(Debug)]
pub(super) struct Tcp {
    local: SocketAddrV4,
    remote: SocketAddrV4,
    state: State,
    sender: Sender,
    receiver: Receiver,
    happenings: VecDeque<Happening>,
    owes_ack: bool,
    owes_reset: bool,
}

#[derive(Debug)]
struct Sender {
    first_sequence: u32,
    /// The first place not acknowledged.
    unacknowledged: u64,
    /// The place to be sent next; goes back when a timer has run out.
    next: u64,
    /// Behind everything ever sent.
    highest: u64,
    /// Behind everything ever written.
    written: u64,
    /// What was written and not acknowledged.
    buffer: VecDeque<u8>,
    /// Octets per segment, if writes are to be cut, and where the writes begin and end.
    cut: Option<(u64, VecDeque<(u64, u64)>)>,
    closes: bool,
    congestion: Congestion,
    round_trip: RoundTrip,
    deadline: Option<Duration>,
    retries: u32,
    /// The first segment is to be repeated at once.
    repeats_first: bool,
    /// When one segment more than the window allows is to be sent, if nothing is heard until then.
    probe_at: Option<Duration>,
    probes: bool,
    /// Such a one was sent since the last acknowledgement.
    has_probed: bool,
    /// Where the last segment begins that was sent for the first time.
    last: u64,
}

/// How much may be in flight, in segments.
#[derive(Debug)]
struct Congestion {
    window: u64,
    threshold: u64,
    acknowledged: u64,
    duplicates: u32,
    /// Until this place is acknowledged, the loss that was noticed is being mended.
    mends_until: Option<u64>,
}

/// The smoothed round trip, and the segment that is being timed.
#[derive(Debug, Default)]
struct RoundTrip {
    smoothed: Option<Duration>,
    timed: Option<(u64, Duration)>,
}

#[derive(Debug, Default)]
struct Receiver {
    first_sequence: u32,
    /// The place expected next.
    next: u64,
    ready: Vec<u8>,
    early: BTreeMap<u64, Vec<u8>>,
    fin: Option<u64>,
    fin_taken: bool,
}

impl Tcp {
    /// An end that dials.
    pub(super) fn connect(
        local: SocketAddrV4,
        remote: SocketAddrV4,
        first_sequence: u32,
        segment: Option<usize>,
    ) -> Self {
        Self::new([local, remote], State::SynSent, first_sequence, segment)
    }

    /// An end that answers a SYN.
    pub(super) fn accept(syn: &Segment<'_>, first_sequence: u32, segment: Option<usize>) -> Self {
        let mut end = Self::new(
            [syn.to, syn.from],
            State::SynReceived,
            first_sequence,
            segment,
        );
        end.receiver.begin(syn.sequence);
        end
    }

    fn new(
        [local, remote]: [SocketAddrV4; 2],
        state: State,
        first_sequence: u32,
        segment: Option<usize>,
    ) -> Self {
        Self {
            local,
            remote,
            state,
            sender: Sender::new(first_sequence, segment),
            receiver: Receiver::default(),
            happenings: VecDeque::new(),
            owes_ack: false,
            owes_reset: false,
        }
    }

    /// The two ends' addresses, this one's first.
    pub(super) fn ends(&self) -> (SocketAddrV4, SocketAddrV4) {
        (self.local, self.remote)
    }

    /// Octets written and not acknowledged yet.
    pub(super) fn backlog(&self) -> usize {
        self.sender.buffer.len()
    }

    /// Whether nothing will ever come of it any more.
    pub(super) fn is_dead(&self) -> bool {
        self.state == State::Dead && !self.owes_reset
    }

    /// Takes octets to be sent.
    pub(super) fn write(&mut self, bytes: &[u8]) {
        if !self.sender.closes && self.state != State::Dead {
            self.sender.write(bytes);
        }
    }

    /// Sends no more after everything written; goes on receiving.
    pub(super) fn close(&mut self) {
        self.sender.closes = true;
    }

    /// Ends at once: with a reset, or silently if the handshake was not complete.
    pub(super) fn abort(&mut self) {
        self.owes_reset |= matches!(self.state, State::SynReceived | State::Established);
        self.die();
    }

    /// The next thing that happened.
    pub(super) fn poll_happening(&mut self) -> Option<Happening> {
        self.happenings.pop_front()
    }

    /// Exchanges what came in, in order, for an empty buffer.
    pub(super) fn take_received(&mut self, buffer: &mut Vec<u8>) {
        buffer.clear();
        std::mem::swap(buffer, &mut self.receiver.ready);
    }

    /// When a timer runs out.
    pub(super) fn poll_timeout(&self) -> Option<Duration> {
        let timers = [self.sender.deadline, self.sender.probe_at];
        timers.into_iter().flatten().min()
    }

    /// A timer has run out: everything unacknowledged is sent again, slowly, or given up.
    pub(super) fn handle_timeout(&mut self, now: Duration) {
        if self.sender.probe_at.is_some_and(|at| at <= now) {
            self.sender.probe(now);
            return;
        }
        if self.sender.deadline.is_none_or(|deadline| deadline > now) {
            return;
        }
        let patience = match self.state {
            State::SynSent => SYN_RETRIES,
            State::SynReceived => SYN_ACK_RETRIES,
            State::Established | State::Dead => DATA_RETRIES,
        };
        if self.sender.retries >= patience {
            self.fail(Failure::Timeout);
            return;
        }
        self.sender.start_over();
    }

    /// A segment arrived.
    pub(super) fn handle_segment(&mut self, now: Duration, segment: &Segment<'_>) {
        match self.state {
            State::SynSent => self.handle_answer(now, segment),
            State::SynReceived | State::Established => self.handle_next(now, segment),
            State::Dead => {}
        }
    }

    /// The answer to a SYN.
    fn handle_answer(&mut self, now: Duration, segment: &Segment<'_>) {
        let acknowledged = segment.flags.ack
            && segment.acknowledgement == self.sender.first_sequence.wrapping_add(1);
        if !acknowledged {
            return;
        }
        if segment.flags.rst {
            self.fail(Failure::Reset);
        } else if segment.flags.syn {
            self.receiver.begin(segment.sequence);
            self.sender.acknowledge(now, 1);
            self.establish();
            self.owes_ack = true;
        }
    }

    fn establish(&mut self) {
        self.state = State::Established;
        self.happenings.push_back(Happening::Connected);
    }

    fn handle_next(&mut self, now: Duration, segment: &Segment<'_>) {
        let Flags {
            syn, ack, fin, rst, ..
        } = segment.flags;
        let place = self.receiver.place_of(segment.sequence);
        if rst {
            if place == Some(self.receiver.next) {
                self.fail(Failure::Reset);
            }
            return;
        }
        if syn {
            self.handle_repeated_syn();
            return;
        }
        if !ack {
            return;
        }
        if !self.take_acknowledgement(now, segment) {
            return;
        }
        if segment.payload.is_empty() && !fin {
            // Answered, two ends could acknowledge each other's acknowledgements for ever.
            return;
        }
        self.owes_ack = true;
        if let Some(place) = place {
            self.receive(place, segment.payload, fin);
        }
    }

    /// The other side has not heard the answer to its SYN, or the answer to that.
    fn handle_repeated_syn(&mut self) {
        match self.state {
            State::SynReceived => self.sender.next = 0,
            State::SynSent | State::Established | State::Dead => self.owes_ack = true,
        }
    }

    /// Whether the acknowledgement is for something that was sent.
    fn take_acknowledgement(&mut self, now: Duration, segment: &Segment<'_>) -> bool {
        let Some(place) = self.sender.place_of(segment.acknowledgement) else {
            return false;
        };
        if self.state == State::SynReceived {
            if place == 0 {
                return false;
            }
            self.establish();
        }
        let bare = segment.payload.is_empty() && !segment.flags.fin;
        if place > self.sender.unacknowledged {
            self.sender.acknowledge(now, place);
        } else if place == self.sender.unacknowledged && bare {
            self.sender.handle_duplicate();
        }
        true
    }

    fn receive(&mut self, place: u64, payload: &[u8], fin: bool) {
        if self.receiver.take(place, payload, fin) {
            self.happenings.push_back(Happening::Data);
        }
        if self.receiver.is_complete() && !self.receiver.fin_taken {
            self.receiver.fin_taken = true;
            self.happenings.push_back(Happening::Closed);
        }
    }

    fn fail(&mut self, why: Failure) {
        self.die();
        self.happenings.push_back(Happening::Failed(why));
    }

    fn die(&mut self) {
        self.state = State::Dead;
        self.owes_ack = false;
        self.sender.deadline = None;
        self.sender.buffer = VecDeque::new();
        self.receiver.early.clear();
    }

    /// Writes the next packet to be sent into `out`; says whether there was one.
    pub(super) fn poll_transmit(&mut self, now: Duration, id: u16, out: &mut Vec<u8>) -> bool {
        if std::mem::take(&mut self.owes_reset) {
            let flags = Flags {
                rst: true,
                ack: true,
                ..Flags::default()
            };
            self.emit(id, out, self.sender.highest, flags, 0);
            return true;
        }
        match self.state {
            State::Dead => false,
            State::SynSent | State::SynReceived => self.transmit_syn(now, id, out),
            State::Established => self.transmit_data(now, id, out) || self.transmit_ack(id, out),
        }
    }

    fn transmit_syn(&mut self, now: Duration, id: u16, out: &mut Vec<u8>) -> bool {
        if self.sender.next > 0 {
            return false;
        }
        let ack = self.state == State::SynReceived;
        self.emit(
            id,
            out,
            0,
            Flags {
                syn: true,
                ack,
                ..Flags::default()
            },
            0,
        );
        self.sender.note_sent(now, 0, 1);
        true
    }

    fn transmit_data(&mut self, now: Duration, id: u16, out: &mut Vec<u8>) -> bool {
        let Some((place, length)) = self.sender.next_segment() else {
            return false;
        };
        let end = place + length as u64;
        let fin = self.sender.closes && end == self.sender.written;
        let psh = length > 0 && end == self.sender.written;
        self.emit(
            id,
            out,
            place,
            Flags {
                ack: true,
                psh,
                fin,
                ..Flags::default()
            },
            length,
        );
        self.sender.note_sent(now, place, end + u64::from(fin));
        true
    }

    fn transmit_ack(&mut self, id: u16, out: &mut Vec<u8>) -> bool {
        if !self.owes_ack {
            return false;
        }
        let place = self.sender.highest;
        self.emit(
            id,
            out,
            place,
            Flags {
                ack: true,
                ..Flags::default()
            },
            0,
        );
        true
    }

    fn emit(&mut self, id: u16, out: &mut Vec<u8>, place: u64, flags: Flags, length: usize) {
        let segment = Segment {
            from: self.local,
            to: self.remote,
            sequence: self.sender.sequence_of(place),
            acknowledgement: if flags.ack {
                self.receiver.acknowledgement()
            } else {
                0
            },
            flags,
            payload: &[],
        };
        self.owes_ack = false;
        packet::write_segment(out, id, &segment, self.sender.octets(place, length));
    }
}

impl Sender {
    fn new(first_sequence: u32, segment: Option<usize>) -> Self {
        Self {
            first_sequence,
            unacknowledged: 0,
            next: 0,
            highest: 0,
            written: 1,
            buffer: VecDeque::new(),
            cut: segment.map(|size| (size as u64, VecDeque::new())),
            closes: false,
            congestion: Congestion {
                window: FIRST_FLIGHT,
                threshold: MOST_IN_FLIGHT,
                acknowledged: 0,
                duplicates: 0,
                mends_until: None,
            },
            round_trip: RoundTrip::default(),
            deadline: None,
            retries: 0,
            repeats_first: false,
            probe_at: None,
            probes: false,
            has_probed: false,
            last: 0,
        }
    }

    fn sequence_of(&self, place: u64) -> u32 {
        self.first_sequence.wrapping_add(place as u32)
    }

    /// The place that an acknowledgement names; none if nothing was ever sent there.
    fn place_of(&self, acknowledgement: u32) -> Option<u64> {
        let expected = self.sequence_of(self.unacknowledged);
        let distance = acknowledgement.wrapping_sub(expected) as i32;
        let place = self
            .unacknowledged
            .checked_add_signed(i64::from(distance))?;
        (place <= self.highest).then_some(place)
    }

    fn write(&mut self, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        let begin = self.written;
        self.buffer.extend(bytes);
        self.written += bytes.len() as u64;
        if let Some((_, writes)) = &mut self.cut {
            writes.push_back((begin, self.written));
        }
    }

    /// The octets from a place on, in the two parts in which the buffer holds them.
    fn octets(&self, place: u64, length: usize) -> [&[u8]; 2] {
        if length == 0 {
            return [&[], &[]];
        }
        let from = (place - self.unacknowledged.max(1)) as usize;
        let (front, back) = self.buffer.as_slices();
        let middle = front.len();
        if from >= middle {
            return [&back[from - middle..][..length], &[]];
        }
        let first = length.min(middle - from);
        [&front[from..from + first], &back[..length - first]]
    }

    /// Where the next segment begins and how many octets it carries; none if none may be sent now. A
    /// segment without octets is a FIN alone.
    fn next_segment(&mut self) -> Option<(u64, usize)> {
        if std::mem::take(&mut self.repeats_first) {
            return Some((self.unacknowledged, self.length_at(self.unacknowledged)));
        }
        let probes = std::mem::take(&mut self.probes);
        if probes && !self.has_unsent() {
            return Some((self.last, self.length_at(self.last)));
        }
        let room = self.congestion.window * self.unit();
        let has_room = self.next - self.unacknowledged < room;
        let may = self.has_unsent() && (probes || has_room);
        may.then(|| (self.next, self.length_at(self.next)))
    }

    const fn has_unsent(&self) -> bool {
        self.next < self.written + self.closes as u64
    }

    /// Whether silence is to be met with one segment before everything is repeated (RFC 8985, section 7):
    /// of what was not sent yet, or else the last one. With one in flight Linux waits as long as for the
    /// repetition itself.
    const fn may_probe(&self) -> bool {
        let is_new_silence = !self.has_probed && self.retries == 0;
        let is_mending = self.congestion.mends_until.is_some();
        let has_any = self.has_unsent() || self.last > self.unacknowledged;
        is_new_silence && !is_mending && self.round_trip.smoothed.is_some() && has_any
    }

    fn probe(&mut self, now: Duration) {
        self.probe_at = None;
        self.has_probed = true;
        self.probes = true;
        self.deadline = Some(now + self.timeout());
    }

    /// Octets of the segment that begins at a place: never across a cut, never beyond the MTU.
    fn length_at(&self, place: u64) -> usize {
        let left = self.written.saturating_sub(place).min(MSS as u64);
        let Some((size, writes)) = &self.cut else {
            return left as usize;
        };
        let current = writes.partition_point(|(_, end)| *end <= place);
        let Some((begin, end)) = writes.get(current) else {
            return left as usize;
        };
        let piece = size - (place - begin) % size;
        left.min(piece).min(end - place) as usize
    }

    fn unit(&self) -> u64 {
        let size = self.cut.as_ref().map_or(MSS as u64, |(size, _)| *size);
        size.min(MSS as u64)
    }

    fn note_sent(&mut self, now: Duration, place: u64, end: u64) {
        if place >= self.highest && self.round_trip.timed.is_none() {
            self.round_trip.timed = Some((end, now));
        }
        self.next = self.next.max(end);
        if end > self.highest {
            self.last = place;
        }
        self.highest = self.highest.max(end);
        self.deadline.get_or_insert(now + self.timeout());
        self.probe_at = self
            .may_probe()
            .then(|| now + self.round_trip.probe_timeout());
    }

    fn timeout(&self) -> Duration {
        let first = self.round_trip.timeout();
        first
            .saturating_mul(1 << self.retries.min(16))
            .min(LONGEST_TIMEOUT)
    }

    /// Everything before a place has arrived.
    fn acknowledge(&mut self, now: Duration, place: u64) {
        let is_handshake = self.unacknowledged == 0;
        let octets = place
            .min(self.written)
            .saturating_sub(self.unacknowledged.max(1));
        self.buffer
            .drain(..(octets as usize).min(self.buffer.len()));
        self.unacknowledged = place;
        self.next = self.next.max(place);
        self.retries = 0;
        if let Some((_, writes)) = &mut self.cut {
            while writes.front().is_some_and(|(_, end)| *end <= place) {
                writes.pop_front();
            }
        }
        self.round_trip.acknowledge(now, place);
        // The answer to a SYN opens no window.
        self.repeats_first = !is_handshake && self.congestion.acknowledge(place);
        self.has_probed = false;
        self.probe_at = None;
        self.deadline = (place < self.highest).then(|| now + self.timeout());
    }

    fn handle_duplicate(&mut self) {
        if self.unacknowledged < self.next && self.congestion.handle_duplicate(self.highest) {
            self.repeats_first = true;
            self.round_trip.timed = None;
        }
    }

    /// Sends everything unacknowledged again, beginning with one segment.
    fn start_over(&mut self) {
        self.retries += 1;
        self.deadline = None;
        self.probe_at = None;
        self.next = self.unacknowledged;
        self.round_trip.timed = None;
        self.congestion.collapse();
    }
}

impl Congestion {
    /// Returns whether the next hole is to be filled at once.
    fn acknowledge(&mut self, place: u64) -> bool {
        self.duplicates = 0;
        match self.mends_until {
            Some(until) if place < until => return true,
            Some(_) => {
                self.mends_until = None;
                self.window = self.threshold;
            }
            None => self.grow(),
        }
        false
    }

    fn grow(&mut self) {
        self.acknowledged += 1;
        if self.window < self.threshold || self.acknowledged >= self.window {
            self.acknowledged = 0;
            self.window = (self.window + 1).min(MOST_IN_FLIGHT);
        }
    }

    /// Returns whether a segment must have been lost.
    fn handle_duplicate(&mut self, highest: u64) -> bool {
        self.duplicates += 1;
        if self.mends_until.is_some() {
            self.window = (self.window + 1).min(MOST_IN_FLIGHT);
            return false;
        }
        if self.duplicates < DUPLICATES {
            return false;
        }
        self.threshold = (self.window / 2).max(2);
        self.window = self.threshold + u64::from(DUPLICATES);
        self.mends_until = Some(highest);
        true
    }

    fn collapse(&mut self) {
        self.threshold = (self.window / 2).max(2);
        self.window = 1;
        self.duplicates = 0;
        self.mends_until = None;
    }
}

impl RoundTrip {
    fn timeout(&self) -> Duration {
        self.smoothed
            .map_or(FIRST_TIMEOUT, |smoothed| smoothed + LEAST_TIMEOUT)
    }

    fn probe_timeout(&self) -> Duration {
        self.smoothed
            .map_or(FIRST_TIMEOUT, |smoothed| smoothed * 2 + PROBE_SLACK)
    }

    /// Measures segments that were sent once only (Karn's rule).
    fn acknowledge(&mut self, now: Duration, place: u64) {
        let Some((_, sent)) = self.timed.take_if(|(timed, _)| *timed <= place) else {
            return;
        };
        let measured = now.saturating_sub(sent);
        self.smoothed = Some(
            self.smoothed
                .map_or(measured, |smoothed| (smoothed * 7 + measured) / 8),
        );
    }
}

impl Receiver {
    fn begin(&mut self, first_sequence: u32) {
        self.first_sequence = first_sequence;
        self.next = 1;
    }

    /// The place of a sequence number; none if it lies too far ahead, or before the stream.
    fn place_of(&self, sequence: u32) -> Option<u64> {
        let expected = self.first_sequence.wrapping_add(self.next as u32);
        let distance = sequence.wrapping_sub(expected) as i32;
        let place = self.next.checked_add_signed(i64::from(distance))?;
        (place <= self.next + REORDER_WINDOW).then_some(place)
    }

    fn acknowledgement(&self) -> u32 {
        let fin = u64::from(self.is_complete());
        self.first_sequence.wrapping_add((self.next + fin) as u32)
    }

    fn is_complete(&self) -> bool {
        self.fin == Some(self.next)
    }

    /// Takes octets at a place; returns whether any became ready.
    fn take(&mut self, place: u64, payload: &[u8], fin: bool) -> bool {
        let end = place + payload.len() as u64;
        if fin {
            self.fin = Some(end);
        }
        let before = self.next;
        if place > self.next {
            let known = self.early.get(&place).map_or(0, Vec::len);
            if payload.len() > known {
                self.early.insert(place, payload.to_vec());
            }
            return false;
        }
        self.append(place, payload);
        while let Some(entry) = self
            .early
            .first_entry()
            .filter(|entry| *entry.key() <= self.next)
        {
            let (place, payload) = entry.remove_entry();
            self.append(place, &payload);
        }
        self.next > before
    }

    /// Appends what is new of a run of octets that begins at or before the expected place.
    fn append(&mut self, place: u64, payload: &[u8]) {
        let known = (self.next - place) as usize;
        if let Some(new) = payload.get(known..) {
            self.ready.extend_from_slice(new);
            self.next += new.len() as u64;
        }
    }
}

#[cfg(test)]
mod tests {
    use rand::rngs::SmallRng;
    use rand::{RngExt, SeedableRng};

    use super::*;
    use crate::stage::memory::packet::Carried;

    const MS: Duration = Duration::from_millis(1);

    /// Two ends and a line between them that loses, repeats and delays as asked.
    struct Line {
        ends: Vec<Tcp>,
        under_way: BTreeMap<(Duration, u64), (usize, Vec<u8>)>,
        rng: SmallRng,
        trouble: f64,
        cut_at: Option<Duration>,
        listens: bool,
        segment: Option<usize>,
        now: Duration,
        sent: u64,
        received: [Vec<u8>; 2],
        said: [Vec<Happening>; 2],
        payloads: Vec<(u32, usize)>,
    }

    impl Line {
        fn new(seed: u64, trouble: f64, segment: Option<usize>) -> Self {
            let [local, remote] =
                ["10.77.1.1:40000", "198.18.0.1:1214"].map(|text| text.parse().unwrap());
            Self {
                ends: vec![Tcp::connect(local, remote, u32::MAX - 100, segment)],
                under_way: BTreeMap::new(),
                rng: SmallRng::seed_from_u64(seed),
                trouble,
                cut_at: None,
                listens: true,
                segment,
                now: Duration::ZERO,
                sent: 0,
                received: Default::default(),
                said: Default::default(),
                payloads: Vec::new(),
            }
        }

        fn run(&mut self, until: Duration) {
            loop {
                (0..self.ends.len()).for_each(|end| self.send_all(end));
                let arrival = self.under_way.keys().next().map(|(at, _)| *at);
                let timers = self.ends.iter().filter_map(Tcp::poll_timeout);
                let Some(next) = timers.chain(arrival).min().filter(|next| *next <= until) else {
                    break;
                };
                self.now = self.now.max(next);
                if arrival.is_some_and(|at| at <= self.now) {
                    self.deliver();
                } else {
                    self.ends
                        .iter_mut()
                        .for_each(|end| end.handle_timeout(self.now));
                }
                self.listen();
            }
            self.now = until;
        }

        fn send_all(&mut self, end: usize) {
            let mut packet = Vec::new();
            while self.ends[end].poll_transmit(self.now, 0, &mut packet) {
                let Some(Carried::Segment(segment)) = packet::read(&packet) else {
                    panic!("an end writes whole segments");
                };
                if !segment.payload.is_empty() {
                    self.payloads
                        .push((segment.sequence, segment.payload.len()));
                }
                let cut = self.cut_at.is_some_and(|at| self.now >= at);
                if cut || self.rng.random_bool(self.trouble) {
                    continue;
                }
                for _ in 0..1 + usize::from(self.rng.random_bool(self.trouble)) {
                    let late = self.rng.random_bool(self.trouble);
                    let delay = MS * (10 + 20 * u32::from(late));
                    self.sent += 1;
                    self.under_way
                        .insert((self.now + delay, self.sent), (1 - end, packet.clone()));
                }
            }
        }

        fn deliver(&mut self) {
            let (_, (to, packet)) = self.under_way.pop_first().expect("one is due");
            let Some(Carried::Segment(segment)) = packet::read(&packet) else {
                panic!("nothing alters packets");
            };
            match self.ends.get_mut(to) {
                Some(end) => end.handle_segment(self.now, &segment),
                None if segment.flags.syn && self.listens => {
                    self.ends.push(Tcp::accept(&segment, 77, self.segment));
                }
                None => {}
            }
        }

        fn listen(&mut self) {
            let mut buffer = Vec::new();
            for (place, end) in self.ends.iter_mut().enumerate() {
                while let Some(happening) = end.poll_happening() {
                    self.said[place].push(happening);
                    end.take_received(&mut buffer);
                    self.received[place].extend_from_slice(&buffer);
                }
            }
        }

        fn failure(&self, end: usize) -> Option<Failure> {
            self.said[end].iter().find_map(|happening| match happening {
                Happening::Failed(why) => Some(*why),
                _ => None,
            })
        }
    }

    /// An end that knows its round trip and has a stream of one-byte segments to send, but no answers.
    fn silenced(length: usize) -> Line {
        let mut line = Line::new(1, 0.0, Some(1));
        line.run(MS * 100);
        line.cut_at = Some(line.now);
        line.ends[0].write(&content(length));
        line.run(line.now + MS);
        line
    }

    #[test]
    fn ten_segments_leave_before_anything_is_acknowledged_whatever_the_handshake_took() {
        assert_eq!(silenced(30).payloads.len(), 10);
    }

    #[test]
    fn silence_is_probed_with_one_new_segment_before_anything_is_repeated() {
        let mut line = silenced(30);
        line.run(line.now + MS * 100);
        assert_eq!(line.payloads.len(), 11, "two round trips and a little");
        assert_eq!(line.ends[0].sender.highest, 1 + 11);
        line.run(line.now + MS * 200);
        assert_eq!(line.payloads.len(), 12, "then the first is repeated");
        assert_eq!(line.ends[0].sender.highest, 1 + 11);
    }

    #[test]
    fn where_all_was_sent_silence_is_probed_with_the_last_segment() {
        let mut line = silenced(5);
        line.run(line.now + MS * 100);
        let [.., last, probe] = line.payloads[..] else {
            panic!("five segments and one more: {:?}", line.payloads);
        };
        assert_eq!((line.payloads.len(), probe), (6, last));
        line.run(line.now + MS * 200);
        assert_eq!(line.payloads.len(), 7);
        assert_eq!(
            line.payloads[6], line.payloads[0],
            "then the first is repeated"
        );
    }

    #[test]
    fn a_segment_alone_is_not_probed() {
        let mut line = silenced(1);
        line.run(line.now + MS * 150);
        assert_eq!(line.payloads.len(), 1);
    }

    fn content(length: usize) -> Vec<u8> {
        (0..length).map(|place| (place % 251) as u8).collect()
    }

    #[test]
    fn everything_arrives_once_and_in_order_however_bad_the_line_is() {
        for seed in 0..40 {
            let trouble = [0.0, 0.02, 0.2][seed as usize % 3];
            let mut line = Line::new(seed, trouble, None);
            let (there, back) = (content(20_000), content(50_001));
            line.ends[0].write(&there);
            line.ends[0].close();
            line.run(130_000 * MS);
            line.ends[1].write(&back);
            line.ends[1].close();
            line.run(600_000 * MS);
            assert_eq!(line.received[1], there, "seed {seed}");
            assert_eq!(line.received[0], back, "seed {seed}");
            assert_eq!(line.said[1].last(), Some(&Happening::Closed), "seed {seed}");
            assert_eq!(line.said[0].last(), Some(&Happening::Closed), "seed {seed}");
        }
    }

    #[test]
    fn writes_are_cut_into_segments_of_their_own_even_when_sent_again() {
        for trouble in [0.0, 0.1] {
            let mut line = Line::new(3, trouble, Some(1));
            line.ends[0].write(b"GIVE 17\r\n\r\n");
            line.ends[0].write(b"more");
            line.run(60_000 * MS);
            assert_eq!(line.received[1], b"GIVE 17\r\n\r\nmore");
            assert!(
                line.payloads.iter().all(|(_, length)| *length == 1),
                "{:?}",
                line.payloads
            );
        }
        let mut line = Line::new(3, 0.0, Some(4));
        line.ends[0].write(b"seven o");
        line.ends[0].write(b"x");
        line.run(60_000 * MS);
        assert_eq!(
            line.payloads
                .iter()
                .map(|(_, length)| *length)
                .collect::<Vec<_>>(),
            [4, 3, 1]
        );
    }

    #[test]
    fn a_syn_that_nobody_answers_is_repeated_after_1_3_7_15_31_63_seconds_and_fails_at_127() {
        let mut line = Line::new(1, 0.0, None);
        line.listens = false;
        let mut copies = Vec::new();
        for second in 0..200_u64 {
            line.run(Duration::from_secs(second));
            copies.push(line.sent);
        }
        let at = |count| copies.iter().position(|sent| *sent == count);
        assert_eq!(
            [1, 2, 3, 4, 5, 6, 7].map(at),
            [0, 1, 3, 7, 15, 31, 63].map(Some)
        );
        assert_eq!(line.failure(0), Some(Failure::Timeout));
        line.run(Duration::from_secs(300));
        assert_eq!(line.sent, 7);
    }

    #[test]
    fn data_on_a_line_gone_dead_is_repeated_after_200_ms_and_twice_as_long_each_time() {
        let mut line = Line::new(1, 0.0, None);
        line.run(100 * MS);
        line.cut_at = Some(line.now);
        line.ends[0].write(b"anybody?");
        let mut copies = Vec::new();
        for _ in 0..16 {
            line.run(line.now + 100 * MS);
            copies.push(line.payloads.len());
        }
        // Sent at 0.1 s; 20 ms of round trip and 200 ms later again, then 440, 880 ms later.
        assert_eq!(copies, [1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 3, 3, 3, 3, 3, 4]);
        line.run(2_000_000 * MS);
        assert_eq!(line.failure(0), Some(Failure::Timeout));
    }

    #[test]
    fn one_lost_segment_of_many_is_sent_again_after_three_duplicates_without_a_timer() {
        let mut line = Line::new(1, 0.0, None);
        line.run(100 * MS);
        line.ends[0].write(&content(8 * MSS));
        let mut packet = Vec::new();
        assert!(
            line.ends[0].poll_transmit(line.now, 0, &mut packet),
            "lost on purpose"
        );
        line.run(line.now + 50 * MS);
        assert_eq!(line.received[1], content(8 * MSS));
    }

    #[test]
    fn an_end_given_up_tells_the_other_with_a_reset_but_not_before_the_handshake() {
        let mut line = Line::new(1, 0.0, None);
        line.run(100 * MS);
        line.ends[0].abort();
        line.run(200 * MS);
        assert_eq!(line.failure(1), Some(Failure::Reset));
        assert!(line.ends.iter().all(Tcp::is_dead));

        let mut dial = Line::new(1, 0.0, None);
        dial.ends[0].abort();
        dial.run(100 * MS);
        assert_eq!(dial.sent, 0);
    }
}
