//! The table of flows against a model that knows all the octets.
//!
//! Claims: the head of a stream is exactly the beginning of what was sent, whatever order, overlap or
//! cut it came in; once octets are known they stay as they are; a flow, and all flows together, hold a
//! bounded number of octets, and the table counts them right.

use std::net::SocketAddr;

use super::Target;
use super::input::Input;
use super::wire;
use crate::Timestamp;
use crate::flow::{
    Flow, FlowKey, FlowTable, HEAD_LIMIT, MAX_HELD_PER_STREAM, MAX_WAITING, Role, Start, State,
};
use crate::packet::Segment;

/// One octet of settings, then one segment after the other.
pub(super) const TARGET: Target = Target {
    name: "flow_reassembly",
    check,
    seeds,
};

fn check(octets: &[u8]) {
    let mut input = Input::new(octets);
    let Some(settings) = input.octet() else {
        return;
    };
    let mut model = Model::new(settings);
    while let Some(step) = Step::read(&mut input) {
        model.take(&step);
    }
}

/// A segment that is recorded, or something else that happens to a flow.
struct Step {
    flow: usize,
    role: Role,
    kind: u8,
    offset: u16,
    len: u8,
}

impl Step {
    fn read(input: &mut Input<'_>) -> Option<Self> {
        let (choices, offset, len) = (input.octet()?, input.word()?, input.octet()?);
        Some(Self {
            flow: usize::from(choices & 3),
            role: if choices & 4 == 0 {
                Role::Initiator
            } else {
                Role::Responder
            },
            kind: choices >> 3,
            offset,
            len,
        })
    }
}

/// Four flows in a table that is too small for them, and what each is known to have said.
struct Model {
    table: FlowTable,
    capacity: usize,
    hold_limit: usize,
    /// The sequence number of every stream's first octet.
    base: u32,
    /// Whether streams tell where they begin.
    has_syn: bool,
    now: Timestamp,
    sent: [[Sent; 2]; 4],
}

/// What the model knows about one stream.
#[derive(Debug, Clone, Default)]
struct Sent {
    /// Offsets below this were recorded without a gap, and while nothing was full or cut.
    contiguous: usize,
    /// The head as it was last.
    head: Vec<u8>,
    /// Something came that the model does not follow: another copy, a cut, another beginning.
    is_plain: bool,
}

impl Model {
    fn new(settings: u8) -> Self {
        let (capacity, hold_limit) = match settings & 3 {
            0 => (4, usize::MAX),
            1 => (2, usize::MAX),
            2 => (4, 3000),
            _ => (3, 100),
        };
        Self {
            table: FlowTable::new(capacity, hold_limit, 1),
            capacity,
            hold_limit,
            base: if settings & 4 == 0 {
                1000
            } else {
                u32::MAX - 5
            },
            has_syn: settings & 8 == 0,
            now: Timestamp::from_secs(1),
            sent: Default::default(),
        }
    }

    fn take(&mut self, step: &Step) {
        match step.kind {
            0 => self.open(step.flow),
            1 => self.settle(step),
            2 => self.pass_time(step),
            3 => self.record(step, Copy::Cut),
            4 => self.record(step, Copy::Another),
            5 => self.record(step, Copy::Syn),
            _ => self.record(step, Copy::Faithful),
        }
        self.check_table();
        self.check_flow(step.flow);
    }

    fn open(&mut self, flow: usize) {
        let (initiator, responder) = ends(flow);
        let start = if self.has_syn {
            Start::Seen
        } else {
            Start::Midstream
        };
        let opened = Flow::new(initiator, responder, start, self.now);
        self.table
            .open(FlowKey::new(initiator, responder), opened, self.now);
        self.sent[flow] = [fresh(), fresh()];
        if self.has_syn {
            for role in [Role::Initiator, Role::Responder] {
                self.record_segment(flow, role, &wire::syn(self.base.wrapping_sub(1), None));
            }
        }
    }

    fn settle(&mut self, step: &Step) {
        let (initiator, responder) = ends(step.flow);
        self.table.settle(
            &FlowKey::new(initiator, responder),
            State::Condemned,
            self.now,
        );
        for sent in &mut self.sent[step.flow] {
            *sent = Sent::default();
        }
    }

    fn pass_time(&mut self, step: &Step) {
        self.now = self.now + std::time::Duration::from_millis(step.offset.into());
        self.table.handle_timeout(self.now);
    }

    fn record(&mut self, step: &Step, copy: Copy) {
        let offset = usize::from(step.offset) % (2 * HEAD_LIMIT);
        let len = usize::from(step.len) * if step.len >= 0xf0 { 20 } else { 1 };
        let octets: Vec<u8> = (offset..offset + len).map(|at| octet(at, copy)).collect();
        let missing = if copy == Copy::Cut { 100 } else { 0 };
        let is_syn = copy == Copy::Syn;
        // A few octets before the beginning: keep-alive probes and whole retransmissions of it.
        let sequence = self.base.wrapping_add(offset as u32);
        let sequence = sequence.wrapping_sub(u32::from(is_syn));
        let segment = Segment {
            syn: is_syn,
            payload_len: octets.len() + missing,
            ..wire::data(sequence, None, &octets)
        };
        self.record_segment(step.flow, step.role, &segment);
        let sent = &mut self.sent[step.flow][index(step.role)];
        sent.is_plain &= copy == Copy::Faithful;
        if offset <= sent.contiguous {
            sent.contiguous = sent.contiguous.max(offset + len);
        }
    }

    fn record_segment(&mut self, flow: usize, role: Role, segment: &Segment<'_>) {
        let (initiator, responder) = ends(flow);
        let key = FlowKey::new(initiator, responder);
        self.table.record(&key, role, segment, self.now);
        self.table.keep(&key, false, self.now);
    }

    fn check_table(&self) {
        let held: usize = self.table.flows().map(Flow::held).sum();
        assert_eq!(held, self.table.held(), "the octets held are counted right");
        assert!(held <= self.hold_limit, "{held} octets held");
        assert!(self.table.flows().count() <= self.capacity);
    }

    fn check_flow(&mut self, flow: usize) {
        let (initiator, responder) = ends(flow);
        let key = FlowKey::new(initiator, responder);
        let Some(known) = self.table.get(&key, self.now) else {
            self.sent[flow] = Default::default();
            return;
        };
        for role in [Role::Initiator, Role::Responder] {
            let stream = known.stream(role);
            let held = stream.held();
            assert!(held <= MAX_HELD_PER_STREAM, "{held} octets");
            let pieces = stream.pieces();
            assert!(pieces <= MAX_WAITING, "{pieces} pieces");
            assert!(stream.head().len() <= HEAD_LIMIT);
            if self.has_syn {
                self.sent[flow][index(role)].check(stream.head(), self.hold_limit);
            }
        }
    }
}

impl Sent {
    /// Checks the head of a stream whose beginning is known.
    fn check(&mut self, head: &[u8], hold_limit: usize) {
        let known = self.head.len();
        assert!(
            head.starts_with(&self.head),
            "known octets stay as they are"
        );
        self.head.extend_from_slice(&head[known..]);
        if !self.is_plain {
            return;
        }
        let is_sent = |at: usize| head[at] == octet(at, Copy::Faithful);
        assert!(
            (known..head.len()).all(is_sent),
            "the beginning of what was sent"
        );
        let least = self.contiguous.min(HEAD_LIMIT);
        let is_there = head.len() >= least || hold_limit != usize::MAX;
        assert!(is_there, "{} of {least} octets in order", head.len());
    }
}

/// How a segment relates to what was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Copy {
    Faithful,
    /// The capture cut it short.
    Cut,
    /// Its octets are others.
    Another,
    /// It carries a SYN as well.
    Syn,
}

fn octet(at: usize, copy: Copy) -> u8 {
    let octet = (at % 251) as u8;
    if copy == Copy::Another { !octet } else { octet }
}

fn fresh() -> Sent {
    Sent {
        is_plain: true,
        ..Sent::default()
    }
}

fn ends(flow: usize) -> (SocketAddr, SocketAddr) {
    let port = 3000 + flow as u16;
    (
        ([10, 77, 1, 1], port).into(),
        ([198, 18, 0, 5], 2001).into(),
    )
}

const fn index(role: Role) -> usize {
    match role {
        Role::Initiator => 0,
        Role::Responder => 1,
    }
}

fn seeds() -> Vec<Vec<u8>> {
    let open = [0, 0, 0, 0];
    let at = |offset: u16, len: u8| {
        let [high, low] = offset.to_be_bytes();
        [6 << 3, high, low, len]
    };
    let script =
        |settings: u8, steps: &[[u8; 4]]| [&[settings][..], &open, &steps.concat()].concat();
    let backwards: Vec<_> = (0..40).rev().map(|piece| at(piece * 200, 100)).collect();
    vec![
        script(0, &[at(0, 10), at(10, 10), at(0, 10)]),
        script(0, &[at(20, 10), at(10, 15), at(0, 12)]),
        script(4, &[at(0, 0xff), at(4000, 200), at(3000, 0xf0)]),
        script(8, &backwards),
        script(10, &backwards),
        script(3, &[at(0, 90), [1 << 3, 0, 0, 0], at(0, 90)]),
        script(
            1,
            &[
                at(0, 50),
                [1, 0, 0, 0],
                [2, 0, 0, 0],
                [49, 0, 0, 9],
                [50, 0, 0, 9],
            ],
        ),
        script(
            0,
            &[
                at(0, 10),
                [3 << 3, 0, 10, 10],
                [4 << 3, 0, 5, 10],
                [5 << 3, 0, 0, 3],
            ],
        ),
    ]
}
