//! The two ends of a session: an ordinary node that joins, a supernode that takes it in.
//!
//! ```text
//! node                         supernode
//!   | 12  opener                   |
//!   |----------------------------->|
//!   |      8  answer  + n  name    |     in one segment or two
//!   |<-----------------------------|
//!   | n  name, 13+u  user info     |     in one segment or two
//!   |----------------------------->|
//!   | 1605  node list, chatter ... |
//!   |<-----------------------------|
//!   | search, results, keep-alives |
//! ```

use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use crate::conversation::{Step, received, time_out};
use crate::payload::{Direction, Keystream};
use crate::profile::Patience;
use crate::report::{Failure, Part};
use crate::wire::Network;
use crate::wire::handshake::{ANSWER_LEN, OPENER_LEN};
use crate::wire::session::{Deframer, Message, NodeEntry};

/// giFT leaves supernodes that claim fewer users.
const FEWEST_USERS: u32 = 100_000;

/// What simulated supernodes claim.
const USERS: u32 = 3_200_000;

/// The one search that clients make.
const SEARCH: Message = Message::Query {
    id: 1,
    text: String::new(),
};

/// What a joining node knows about itself.
#[derive(Debug, Clone)]
pub struct Joining {
    /// Its first flight.
    pub opener: [u8; OPENER_LEN],
    /// Its network.
    pub network: Network,
    /// Where it listens.
    pub address: SocketAddrV4,
    /// Its user's name.
    pub user_name: String,
    /// Whether name and user info share a segment.
    pub coalesces: bool,
    /// Its waits.
    pub patience: Patience,
}

/// The end that opened the session.
#[derive(Debug)]
pub struct Initiator {
    joining: Joining,
    stream: Option<Stream>,
    arrived: Vec<u8>,
    phase: Phase,
    deadline: Duration,
    keep_alive_sent: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    AwaitsAnswer,
    AwaitsName,
    AwaitsNodeList,
    Up,
}

impl Initiator {
    /// Begins on a connection that has just come up.
    pub fn start(now: Duration, joining: Joining) -> (Self, Vec<Step>) {
        let opener = Step::Send {
            part: Part::Opener,
            bytes: joining.opener.to_vec(),
        };
        let session = Self {
            deadline: now + joining.patience.handshake,
            joining,
            stream: None,
            arrived: Vec::new(),
            phase: Phase::AwaitsAnswer,
            keep_alive_sent: false,
        };
        (session, vec![opener])
    }

    /// Takes what arrived.
    pub fn handle_data(&mut self, now: Duration, bytes: &[u8]) -> Vec<Step> {
        let mut steps = Vec::new();
        match self.phase {
            Phase::AwaitsAnswer | Phase::AwaitsName => self.handle_handshake(bytes, &mut steps),
            Phase::AwaitsNodeList | Phase::Up => {
                steps.push(received(Part::Session, bytes.len()));
                self.stream_mut().push(bytes);
            }
        }
        if matches!(self.phase, Phase::AwaitsNodeList | Phase::Up) {
            self.handle_messages(now, &mut steps);
        }
        steps
    }

    /// The next instant at which something is due.
    pub fn poll_timeout(&self) -> Duration {
        self.deadline
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Duration) -> Vec<Step> {
        if now < self.deadline {
            return Vec::new();
        }
        if self.phase != Phase::Up || self.keep_alive_sent {
            return vec![Step::Fail(Failure::Timeout)];
        }
        self.keep_alive_sent = true;
        self.deadline = now + self.joining.patience.keep_alive_answer;
        vec![self.stream_mut().send(&[Message::KeepAlive])]
    }

    fn handle_handshake(&mut self, bytes: &[u8], steps: &mut Vec<Step>) {
        self.arrived.extend_from_slice(bytes);
        if self.phase == Phase::AwaitsAnswer
            && let Some((answer, _)) = self.arrived.split_first_chunk::<ANSWER_LEN>()
        {
            self.stream = Some(Stream::of_initiator(self.joining.opener, *answer));
            self.phase = Phase::AwaitsName;
            steps.push(self.send_name());
        }
        let whole = ANSWER_LEN + self.joining.network.name_len();
        let in_answer = bytes
            .len()
            .saturating_sub(self.arrived.len().saturating_sub(whole));
        steps.push(received(Part::Answer, in_answer));
        if self.phase == Phase::AwaitsName && self.arrived.len() >= whole {
            self.handle_name(whole, bytes.len() - in_answer, steps);
        }
    }

    fn handle_name(&mut self, whole: usize, beyond: usize, steps: &mut Vec<Step>) {
        let mut arrived = std::mem::take(&mut self.arrived);
        let rest = arrived.split_off(whole);
        let name = self.stream_mut().open(&mut arrived[ANSWER_LEN..]);
        if !is_name_of(self.joining.network, name) {
            steps.push(Step::Fail(Failure::Protocol));
            return;
        }
        self.phase = Phase::AwaitsNodeList;
        if !self.joining.coalesces {
            let info = self.user_info();
            steps.push(self.stream_mut().send(&[info]));
        }
        if beyond > 0 {
            steps.push(received(Part::Session, beyond));
            self.stream_mut().push(&rest);
        }
    }

    fn send_name(&mut self) -> Step {
        let mut plain = name_with_nul(self.joining.network);
        if self.joining.coalesces {
            plain.extend(self.user_info().encode());
        }
        self.stream_mut().send_plain(plain)
    }

    fn user_info(&self) -> Message {
        Message::UserInfo {
            address: self.joining.address,
            name: self.joining.user_name.clone(),
        }
    }

    fn handle_messages(&mut self, now: Duration, steps: &mut Vec<Step>) {
        loop {
            match self.stream_mut().pop() {
                Ok(Some(message)) => self.handle_message(now, message, steps),
                Ok(None) => return,
                Err(failure) => return steps.push(failure),
            }
        }
    }

    fn handle_message(&mut self, now: Duration, message: Message, steps: &mut Vec<Step>) {
        match message {
            Message::NodeList(entries) => {
                if self.phase != Phase::Up {
                    self.phase = Phase::Up;
                    self.deadline = now + self.joining.patience.keep_alive;
                    steps.push(Step::SessionUp);
                    steps.push(self.stream_mut().send(&[SEARCH]));
                }
                steps.push(Step::NodeList(entries));
            }
            Message::Results { sources, .. } => steps.push(Step::Sources(sources)),
            Message::Stats { users } if users < FEWEST_USERS => {
                steps.push(Step::Fail(Failure::Protocol));
            }
            Message::KeepAlive => {
                steps.push(self.stream_mut().send(&[Message::KeepAliveAnswer]));
            }
            Message::KeepAliveAnswer => {
                self.keep_alive_sent = false;
                self.deadline = now + self.joining.patience.keep_alive;
            }
            Message::UserInfo { .. }
            | Message::Query { .. }
            | Message::QueryEnd { .. }
            | Message::Stats { .. }
            | Message::ExternalAddress(_)
            | Message::Chatter { .. } => {}
        }
    }

    fn stream_mut(&mut self) -> &mut Stream {
        self.stream
            .as_mut()
            .expect("the answer has arrived, which is what sets the stream up")
    }
}

/// What a supernode hands to its children.
#[derive(Debug, Clone)]
pub struct Hosting {
    /// The clear-text answer it will give.
    pub answer: [u8; ANSWER_LEN],
    /// Its network.
    pub network: Network,
    /// Whether answer and name share a segment.
    pub coalesces: bool,
    /// Whether there is room for another child; without, it hangs up on the opener.
    pub has_room: bool,
    /// The node list it sends.
    pub list: Vec<NodeEntry>,
    /// Who has the file.
    pub sources: Vec<SocketAddrV4>,
    /// Whose session this is, as seen here.
    pub child: Ipv4Addr,
    /// Its waits.
    pub patience: Patience,
}

/// Silence after which a supernode forgets a caller that has not joined (giFT: 20 s).
const JOIN_PATIENCE_FACTOR: u32 = 2;

/// The end that answered.
#[derive(Debug)]
pub struct Responder {
    hosting: Hosting,
    stream: Option<Stream>,
    arrived: Vec<u8>,
    named: bool,
    deadline: Duration,
}

impl Responder {
    /// Begins on a connection that has just come in.
    pub fn start(now: Duration, hosting: Hosting) -> Self {
        let deadline = now + hosting.patience.handshake * JOIN_PATIENCE_FACTOR;
        Self {
            hosting,
            stream: None,
            arrived: Vec::new(),
            named: false,
            deadline,
        }
    }

    /// Takes what arrived.
    pub fn handle_data(&mut self, now: Duration, bytes: &[u8]) -> Vec<Step> {
        let mut steps = Vec::new();
        let mut bytes = bytes;
        if self.stream.is_none() {
            bytes = self.handle_opener(bytes, &mut steps);
        }
        if self.stream.is_some() && !bytes.is_empty() {
            steps.push(received(Part::Session, bytes.len()));
            self.handle_session(now, bytes, &mut steps);
        }
        steps
    }

    /// The next instant at which something is due.
    pub fn poll_timeout(&self) -> Duration {
        self.deadline
    }

    /// Does what is due: a child that says nothing for two keep-alive periods is gone.
    pub fn handle_timeout(&mut self, now: Duration) -> Vec<Step> {
        time_out(self.deadline, now)
    }

    /// Returns what lies behind the opener.
    fn handle_opener<'a>(&mut self, bytes: &'a [u8], steps: &mut Vec<Step>) -> &'a [u8] {
        let (mine, rest) = bytes.split_at(bytes.len().min(OPENER_LEN - self.arrived.len()));
        steps.push(received(Part::Opener, mine.len()));
        self.arrived.extend_from_slice(mine);
        let Ok(opener) = self.arrived.as_slice().try_into() else {
            return rest;
        };
        if !self.hosting.has_room {
            steps.push(Step::Close);
            return &[];
        }
        let stream = self
            .stream
            .insert(Stream::of_responder(opener, self.hosting.answer));
        let mut answer = self.hosting.answer.to_vec();
        let mut name = name_with_nul(self.hosting.network);
        stream.outgoing.apply(&mut name);
        if self.hosting.coalesces {
            answer.extend(name);
            steps.push(Step::Send {
                part: Part::Answer,
                bytes: answer,
            });
        } else {
            steps.push(Step::Send {
                part: Part::Answer,
                bytes: answer,
            });
            steps.push(Step::Send {
                part: Part::Answer,
                bytes: name,
            });
        }
        rest
    }

    fn handle_session(&mut self, now: Duration, bytes: &[u8], steps: &mut Vec<Step>) {
        let Some(stream) = &mut self.stream else {
            return;
        };
        self.deadline = now + self.hosting.patience.keep_alive * 2;
        if self.named {
            stream.push(bytes);
        } else {
            self.arrived.extend_from_slice(bytes);
            let whole = OPENER_LEN + self.hosting.network.name_len();
            if self.arrived.len() < whole {
                return;
            }
            let rest = self.arrived.split_off(whole);
            let name = stream.open(&mut self.arrived[OPENER_LEN..]);
            if !is_name_of(self.hosting.network, name) {
                steps.push(Step::Close);
                return;
            }
            self.named = true;
            stream.push(&rest);
        }
        self.handle_messages(steps);
    }

    fn handle_messages(&mut self, steps: &mut Vec<Step>) {
        let Some(stream) = &mut self.stream else {
            return;
        };
        loop {
            let message = match stream.pop() {
                Ok(Some(message)) => message,
                Ok(None) => return,
                Err(failure) => return steps.push(failure),
            };
            match message {
                Message::UserInfo { .. } => {
                    steps.push(stream.send(&[Message::NodeList(self.hosting.list.clone())]));
                    steps.push(stream.send(&welcome(self.hosting.child)));
                }
                Message::Query { id, .. } => {
                    let sources = self.hosting.sources.clone();
                    let results = Message::Results { id, sources };
                    steps.push(stream.send(&[results, Message::QueryEnd { id }]));
                }
                Message::KeepAlive => steps.push(stream.send(&[Message::KeepAliveAnswer])),
                Message::KeepAliveAnswer
                | Message::NodeList(_)
                | Message::Results { .. }
                | Message::QueryEnd { .. }
                | Message::Stats { .. }
                | Message::ExternalAddress(_)
                | Message::Chatter { .. } => {}
            }
        }
    }
}

/// What supernodes send after a join besides the list (PROTO: types 0x26, 0x1e, 0x23, 0x1d, 0x09,
/// 0x2c, 0x1f). The first byte of 0x26 is the version of Kazaa 2.6.2.
fn welcome(child: Ipv4Addr) -> Vec<Message> {
    let chatter = |kind, payload: &[u8]| Message::Chatter {
        kind,
        payload: payload.to_vec(),
    };
    vec![
        chatter(0x26, &[0x22, 0, 0, 0]),
        chatter(0x1e, &[0, 0]),
        chatter(0x23, &[0, 0, 0, 1]),
        chatter(0x1d, &[0; 6]),
        Message::Stats { users: USERS },
        Message::ExternalAddress(child),
        chatter(0x1f, &[0; 180]),
    ]
}

/// Both keystreams of a session and the messages inside.
#[derive(Debug)]
struct Stream {
    incoming: Keystream,
    outgoing: Keystream,
    deframer: Deframer,
}

impl Stream {
    fn of_initiator(opener: [u8; OPENER_LEN], answer: [u8; ANSWER_LEN]) -> Self {
        Self {
            incoming: Keystream::of_session(opener, answer, Direction::FromResponder),
            outgoing: Keystream::of_session(opener, answer, Direction::FromInitiator),
            deframer: Deframer::default(),
        }
    }

    fn of_responder(opener: [u8; OPENER_LEN], answer: [u8; ANSWER_LEN]) -> Self {
        let Self {
            incoming,
            outgoing,
            deframer,
        } = Self::of_initiator(opener, answer);
        Self {
            incoming: outgoing,
            outgoing: incoming,
            deframer,
        }
    }

    fn open<'a>(&mut self, bytes: &'a mut [u8]) -> &'a [u8] {
        self.incoming.apply(bytes);
        bytes
    }

    fn push(&mut self, bytes: &[u8]) {
        let mut bytes = bytes.to_vec();
        self.incoming.apply(&mut bytes);
        self.deframer.push(&bytes);
    }

    fn pop(&mut self) -> Result<Option<Message>, Step> {
        self.deframer
            .pop()
            .map_err(|_| Step::Fail(Failure::Protocol))
    }

    fn send(&mut self, messages: &[Message]) -> Step {
        self.send_plain(messages.iter().flat_map(Message::encode).collect())
    }

    fn send_plain(&mut self, mut bytes: Vec<u8>) -> Step {
        self.outgoing.apply(&mut bytes);
        Step::Send {
            part: Part::Session,
            bytes,
        }
    }
}

fn name_with_nul(network: Network) -> Vec<u8> {
    [network.name().as_bytes(), &[0]].concat()
}

fn is_name_of(network: Network, name: &[u8]) -> bool {
    matches!(name, [name @ .., 0] if Network::from_name(name) == Some(network))
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;
    use crate::profile::{GIFT, KAZAA, MLDONKEY, Profile};
    use crate::wire::session::LIST_ENTRIES;

    #[test]
    fn gift_joins_with_flights_of_12_8_6_6_and_20_and_gets_a_list_of_1605() {
        let mut pair = Pair::new(&GIFT, false);
        pair.run();
        let flights = pair.flights();
        assert_eq!(
            flights[..6],
            [
                ("->", 12),
                ("<-", 8),
                ("<-", 6),
                ("->", 6),
                ("->", 20),
                ("<-", 1605)
            ]
        );
    }

    #[test]
    fn mldonkey_sends_name_and_user_info_as_one_flight_of_25() {
        let mut pair = Pair::new(&MLDONKEY, false);
        pair.run();
        assert_eq!(
            pair.flights()[..4],
            [("->", 12), ("<-", 8), ("<-", 6), ("->", 25)]
        );
    }

    #[test]
    fn a_supernode_that_coalesces_answers_kazaa_with_14_imesh_with_18_and_grokster_with_17() {
        for (profile, len) in [
            (&KAZAA, 14),
            (&crate::profile::IMESH, 18),
            (&crate::profile::GROKSTER, 17),
        ] {
            let mut pair = Pair::new(profile, true);
            pair.run();
            assert_eq!(pair.flights()[1], ("<-", len), "{}", profile.name);
        }
    }

    #[test]
    fn a_joined_client_searches_and_learns_sources() {
        let mut pair = Pair::new(&KAZAA, true);
        pair.run();
        assert!(pair.said.contains(&Step::SessionUp));
        assert!(pair.said.contains(&Step::Sources(vec![Pair::source()])));
    }

    #[test]
    fn a_session_comes_up_over_segments_of_one_byte() {
        let mut pair = Pair::new(&GIFT, true);
        pair.cut = 1;
        pair.run();
        assert!(pair.said.contains(&Step::SessionUp));
        assert_eq!(pair.received_by_initiator(Part::Answer), 14);
    }

    #[test]
    fn a_client_of_another_network_hangs_up_after_the_name() {
        let mut pair = Pair::new(&KAZAA, true);
        pair.responder.hosting.network = Network::Grokster;
        pair.run();
        assert!(pair.said.contains(&Step::Fail(Failure::Protocol)));
        assert!(!pair.said.contains(&Step::SessionUp));
    }

    #[test]
    fn a_full_supernode_hangs_up_on_the_opener_without_a_byte() {
        let mut pair = Pair::new(&KAZAA, true);
        pair.responder.hosting.has_room = false;
        pair.run();
        assert_eq!(pair.flights(), [("->", 12)]);
    }

    #[test]
    fn an_idle_session_is_one_byte_each_way_and_ends_when_the_answer_fails_to_come() {
        let mut pair = Pair::new(&GIFT, true);
        pair.run();
        pair.flights.clear();
        let due = pair.initiator.poll_timeout();
        assert_eq!(due, GIFT.patience.keep_alive);
        let steps = pair.initiator.handle_timeout(due);
        pair.deliver(steps, true);
        assert_eq!(pair.flights(), [("->", 1), ("<-", 1)]);

        let due = pair.initiator.poll_timeout();
        assert!(matches!(
            pair.initiator.handle_timeout(due)[..],
            [Step::Send { .. }]
        ));
        let due = pair.initiator.poll_timeout();
        assert_eq!(
            pair.initiator.handle_timeout(due),
            [Step::Fail(Failure::Timeout)]
        );
    }

    #[test]
    fn an_unanswered_opener_is_given_up_after_the_handshake_patience() {
        let mut pair = Pair::new(&GIFT, true);
        assert_eq!(
            pair.initiator.handle_timeout(Duration::from_millis(9_999)),
            []
        );
        let steps = pair.initiator.handle_timeout(Duration::from_secs(10));
        assert_eq!(steps, [Step::Fail(Failure::Timeout)]);
    }

    /// Both ends of a session with nothing between them.
    struct Pair {
        initiator: Initiator,
        responder: Responder,
        opener: Vec<Step>,
        cut: usize,
        flights: Vec<(&'static str, usize)>,
        said: Vec<Step>,
    }

    impl Pair {
        fn new(profile: &Profile, coalesces: bool) -> Self {
            let joining = Joining {
                opener: [7; 12],
                network: profile.network,
                address: "10.77.1.1:2345".parse().unwrap(),
                user_name: "x".repeat(profile.user_name_len),
                coalesces: profile.coalesces,
                patience: profile.patience,
            };
            let entry = NodeEntry {
                address: Self::source(),
                minutes: 0,
                load_pct: 1,
            };
            let hosting = Hosting {
                answer: [9; 8],
                network: profile.network,
                coalesces,
                has_room: true,
                list: vec![entry; LIST_ENTRIES],
                sources: vec![Self::source()],
                child: Ipv4Addr::new(10, 77, 1, 1),
                patience: profile.patience,
            };
            let (initiator, opener) = Initiator::start(Duration::ZERO, joining);
            let responder = Responder::start(Duration::ZERO, hosting);
            Self {
                initiator,
                responder,
                opener,
                cut: usize::MAX,
                flights: vec![],
                said: vec![],
            }
        }

        fn source() -> SocketAddrV4 {
            "198.18.0.9:1214".parse().unwrap()
        }

        fn run(&mut self) {
            let opener = std::mem::take(&mut self.opener);
            self.deliver(opener, true);
        }

        /// Delivers in the order sent, as a network would.
        fn deliver(&mut self, steps: Vec<Step>, from_initiator: bool) {
            let mut under_way: VecDeque<_> = steps
                .into_iter()
                .map(|step| (step, from_initiator))
                .collect();
            while let Some((step, from_initiator)) = under_way.pop_front() {
                let Step::Send { bytes, .. } = &step else {
                    self.said.push(step);
                    continue;
                };
                self.flights
                    .push((if from_initiator { "->" } else { "<-" }, bytes.len()));
                for piece in bytes.chunks(self.cut.min(bytes.len())) {
                    let answer = if from_initiator {
                        self.responder.handle_data(Duration::ZERO, piece)
                    } else {
                        self.initiator.handle_data(Duration::ZERO, piece)
                    };
                    under_way.extend(answer.into_iter().map(|step| (step, !from_initiator)));
                }
            }
        }

        fn flights(&self) -> &[(&'static str, usize)] {
            &self.flights
        }

        fn received_by_initiator(&self, wanted: Part) -> u64 {
            let count = |step: &Step| match step {
                Step::Received { part, bytes } if *part == wanted => *bytes,
                _ => 0,
            };
            self.said.iter().map(count).sum()
        }
    }
}
