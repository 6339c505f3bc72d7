//! Conversations written down beforehand: who says what, and how one side of them is played.
//!
//! The control group's conversations come from the simulator ([`simulator::web::exchange`]); large
//! downloads are said in place, octet by octet from a seed, so that nobody has to hold them.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::rc::Rc;
use std::time::Duration;

use foldhash::fast::FixedState;
use simulator::web;
pub(super) use simulator::web::Side;

use super::sockets::Transport;

/// First pause before datagrams that were not answered are repeated, doubled each time.
const FIRST_REPEAT: Duration = Duration::from_millis(500);

/// Octets handed to a socket at a time.
const PIECE: u64 = 16 * 1024;

/// What is said in one turn.
#[derive(Debug)]
pub(super) enum Content {
    /// These octets.
    Octets(Vec<u8>),
    /// So many octets drawn from a seed.
    Drawn { seed: u64, length: u64 },
}

/// One write to a stream, or one datagram.
#[derive(Debug)]
pub(super) struct Turn {
    pub(super) from: Side,
    pub(super) after: Duration,
    pub(super) content: Content,
}

/// One conversation with one server.
#[derive(Debug)]
pub(super) struct Script {
    pub(super) transport: Transport,
    pub(super) to: SocketAddrV4,
    pub(super) turns: Vec<Turn>,
}

/// What arrived is not what the other side was to say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Altered;

impl From<web::Conversation> for Script {
    fn from(conversation: web::Conversation) -> Self {
        let turn = |web::Turn { from, after, bytes }| Turn {
            from,
            after,
            content: Content::Octets(bytes),
        };
        Self {
            transport: match conversation.transport {
                web::Transport::Tcp => Transport::Tcp,
                web::Transport::Udp => Transport::Udp,
            },
            to: conversation.to,
            turns: conversation.turns.into_iter().map(turn).collect(),
        }
    }
}

impl Content {
    fn length(&self) -> u64 {
        match self {
            Self::Octets(octets) => octets.len() as u64,
            Self::Drawn { length, .. } => *length,
        }
    }

    /// Appends the octets from `from` on, `length` of them.
    fn append(&self, from: u64, length: u64, out: &mut Vec<u8>) {
        match self {
            Self::Octets(octets) => {
                out.extend_from_slice(&octets[from as usize..(from + length) as usize]);
            }
            Self::Drawn { seed, .. } => draw(*seed, from, length, out),
        }
    }

    fn begins_with(&self, from: u64, said: &[u8]) -> bool {
        match self {
            Self::Octets(octets) => octets[from as usize..].starts_with(said),
            Self::Drawn { seed, .. } => is_drawn(*seed, from, said),
        }
    }
}

/// Octets of the words that a drawn content consists of.
const WORD: usize = 8;

/// Appends drawn octets: each word is a function of its place, so that both sides can begin anywhere.
fn draw(seed: u64, from: u64, length: u64, out: &mut Vec<u8>) {
    let begin = out.len();
    out.resize(begin + length as usize, 0);
    let (place, skipped, split) = alignment(from, length);
    let (first, rest) = out[begin..].split_at_mut(split);
    let word = |place| word(seed, place).to_le_bytes();
    first.copy_from_slice(&word(place)[skipped..skipped + split]);
    let mut words = rest.chunks_exact_mut(WORD);
    let mut place = place + 1;
    for octets in &mut words {
        octets.copy_from_slice(&word(place));
        place += 1;
    }
    let last = words.into_remainder();
    last.copy_from_slice(&word(place)[..last.len()]);
}

fn is_drawn(seed: u64, from: u64, said: &[u8]) -> bool {
    let (place, skipped, split) = alignment(from, said.len() as u64);
    let (first, rest) = said.split_at(split);
    let mut words = rest.chunks_exact(WORD);
    let whole = words.len() as u64;
    // Folded instead of left early: content that is altered is rare, and so nothing branches.
    let difference = (&mut words)
        .zip(place + 1..)
        .fold(0, |difference, (octets, place)| {
            let octets: [u8; WORD] = octets.try_into().expect("chunks are words");
            difference | (u64::from_le_bytes(octets) ^ word(seed, place))
        });
    let last = words.remainder();
    difference == 0
        && first == &word(seed, place).to_le_bytes()[skipped..skipped + split]
        && last == &word(seed, place + 1 + whole).to_le_bytes()[..last.len()]
}

/// The word that octets from a place on begin in, how many of its octets come before them, and how many
/// of them lie in it.
fn alignment(from: u64, length: u64) -> (u64, usize, usize) {
    let skipped = from % WORD as u64;
    let split = (WORD as u64 - skipped).min(length);
    (from / WORD as u64, skipped as usize, split as usize)
}

/// SplitMix64 (Steele, Lea, Flood 2014) at a place of its stream.
fn word(seed: u64, place: u64) -> u64 {
    let value = seed.wrapping_add((place + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

/// Conversations under way, by the addresses their server sees.
#[derive(Debug, Default)]
pub(super) struct Scripts {
    by_ends: HashMap<(Transport, SocketAddrV4, SocketAddrV4), Rc<Script>, FixedState>,
    hidden_behind: Option<Ipv4Addr>,
}

impl Scripts {
    /// No conversations yet, of hosts hidden behind an address or not.
    pub(super) fn new(hidden_behind: Option<Ipv4Addr>) -> Self {
        Self {
            hidden_behind,
            ..Self::default()
        }
    }

    /// A client at `from` is about to begin a conversation.
    pub(super) fn announce(&mut self, from: SocketAddrV4, script: &Rc<Script>) {
        // Each host dials from ports of its own, which the gateway can therefore keep.
        let seen = SocketAddrV4::new(self.hidden_behind.unwrap_or(*from.ip()), from.port());
        self.by_ends
            .insert((script.transport, seen, script.to), Rc::clone(script));
    }

    /// The conversation that somebody seen as `remote` has begun with `local`.
    pub(super) fn find(
        &self,
        transport: Transport,
        remote: SocketAddrV4,
        local: SocketAddrV4,
    ) -> Option<Rc<Script>> {
        self.by_ends.get(&(transport, remote, local)).cloned()
    }
}

/// One side of a conversation over a stream.
#[derive(Debug)]
pub(super) struct StreamPlay {
    script: Rc<Script>,
    side: Side,
    turn: usize,
    said: u64,
    due: Duration,
}

impl StreamPlay {
    /// Begins as soon as the connection is up.
    pub(super) fn new(now: Duration, script: Rc<Script>, side: Side) -> Self {
        let mut play = Self {
            script,
            side,
            turn: 0,
            said: 0,
            due: Duration::ZERO,
        };
        play.due = now + play.pause();
        play
    }

    fn pause(&self) -> Duration {
        self.script
            .turns
            .get(self.turn)
            .map_or(Duration::ZERO, |turn| turn.after)
    }

    fn current(&self, side: Side) -> Option<&Turn> {
        self.script
            .turns
            .get(self.turn)
            .filter(|turn| turn.from == side)
    }

    /// Whether everything was said and heard.
    pub(super) fn is_over(&self) -> bool {
        self.turn == self.script.turns.len()
    }

    /// When something is to be said, if it is this side's turn.
    pub(super) fn poll_timeout(&self) -> Option<Duration> {
        self.current(self.side).map(|_| self.due)
    }

    /// Fills `piece` with what is to be said next; says whether there is anything.
    pub(super) fn poll_piece(&mut self, now: Duration, piece: &mut Vec<u8>) -> bool {
        piece.clear();
        let Some(turn) = self.current(self.side).filter(|_| self.due <= now) else {
            return false;
        };
        // Octets are said in one write, as programs do; drawn content is too long for that.
        let left = turn.content.length() - self.said;
        let length = match turn.content {
            Content::Octets(_) => left,
            Content::Drawn { .. } => left.min(PIECE),
        };
        turn.content.append(self.said, length, piece);
        self.advance(now, length);
        true
    }

    /// Compares what the other side said.
    pub(super) fn handle_data(&mut self, now: Duration, mut said: &[u8]) -> Result<(), Altered> {
        while !said.is_empty() {
            let script = Rc::clone(&self.script);
            let other = script
                .turns
                .get(self.turn)
                .filter(|turn| turn.from != self.side);
            let content = &other.ok_or(Altered)?.content;
            let left = content.length() - self.said;
            let (now_due, rest) = said.split_at(said.len().min(left as usize));
            if !content.begins_with(self.said, now_due) {
                return Err(Altered);
            }
            self.advance(now, now_due.len() as u64);
            said = rest;
        }
        Ok(())
    }

    fn advance(&mut self, now: Duration, octets: u64) {
        self.said += octets;
        let whole = self.script.turns[self.turn].content.length();
        if self.said == whole {
            self.turn += 1;
            self.said = 0;
            self.due = now + self.pause();
        }
    }
}

/// One side of a conversation by datagrams. Whoever began it repeats what is not answered; whoever
/// hears something again says again what it said then.
#[derive(Debug)]
pub(super) struct DatagramPlay {
    script: Rc<Script>,
    side: Side,
    /// The first turn of the flight that is being said or heard: turns of one side in a row.
    flight: usize,
    /// Turns of this flight that were heard, by their place in it.
    heard: Vec<bool>,
    next: usize,
    due: Duration,
    repeat_at: Duration,
    patience: Duration,
    /// The flight this side said last, to be said again.
    last_said: Option<(usize, usize)>,
    again: Option<(usize, usize)>,
}

impl DatagramPlay {
    pub(super) fn new(now: Duration, script: Rc<Script>, side: Side) -> Self {
        let mut play = Self {
            script,
            side,
            flight: 0,
            heard: Vec::new(),
            next: 0,
            due: now,
            repeat_at: now,
            patience: FIRST_REPEAT,
            last_said: None,
            again: None,
        };
        play.begin_flight(now, 0);
        play
    }

    /// Whether it is this conversation, and not an earlier one between the same ends.
    pub(super) fn is_of(&self, script: &Rc<Script>) -> bool {
        Rc::ptr_eq(&self.script, script)
    }

    fn begin_flight(&mut self, now: Duration, flight: usize) {
        self.flight = flight;
        self.next = flight;
        self.heard = vec![false; self.end_of(flight) - flight];
        let pause = self
            .script
            .turns
            .get(flight)
            .map_or(Duration::ZERO, |turn| turn.after);
        self.due = now + pause;
        self.patience = FIRST_REPEAT;
        self.repeat_at = now + self.patience;
    }

    /// Behind the last turn of a flight.
    fn end_of(&self, flight: usize) -> usize {
        let turns = &self.script.turns;
        let Some(first) = turns.get(flight) else {
            return flight;
        };
        let same = turns[flight..]
            .iter()
            .take_while(|turn| turn.from == first.from);
        flight + same.count()
    }

    fn is_own(&self) -> bool {
        self.script
            .turns
            .get(self.flight)
            .is_some_and(|turn| turn.from == self.side)
    }

    /// Whether everything was said and heard.
    pub(super) fn is_over(&self) -> bool {
        self.flight == self.script.turns.len()
    }

    /// When something is to be said, or said again.
    pub(super) fn poll_timeout(&self) -> Option<Duration> {
        if self.is_over() {
            None
        } else if self.is_own() {
            Some(self.due)
        } else {
            let repeats = self.side == Side::Client && self.last_said.is_some();
            repeats.then_some(self.repeat_at)
        }
    }

    /// The next datagram to be sent.
    pub(super) fn poll_datagram(&mut self, now: Duration) -> Option<Vec<u8>> {
        if let Some((next, end)) = self.again {
            self.again = (next + 1 < end).then_some((next + 1, end));
            return Some(self.datagram(next));
        }
        if self.is_own() {
            return (self.due <= now).then(|| self.say_next(now));
        }
        if self.poll_timeout().is_some_and(|at| at <= now) {
            self.patience *= 2;
            self.repeat_at = now + self.patience;
            self.again = self.last_said;
            return self.poll_datagram(now);
        }
        None
    }

    fn say_next(&mut self, now: Duration) -> Vec<u8> {
        let said = self.datagram(self.next);
        self.next += 1;
        if self.next == self.end_of(self.flight) {
            self.last_said = Some((self.flight, self.next));
            self.begin_flight(now, self.next);
        } else {
            self.due = now + self.script.turns[self.next].after;
        }
        said
    }

    fn datagram(&self, turn: usize) -> Vec<u8> {
        let content = &self.script.turns[turn].content;
        let mut octets = Vec::new();
        content.append(0, content.length(), &mut octets);
        octets
    }

    /// Compares a datagram with what the other side was to say, now or before.
    pub(super) fn handle_datagram(&mut self, now: Duration, said: &[u8]) -> Result<(), Altered> {
        let is_turn = |turn: &Turn| match &turn.content {
            Content::Octets(octets) => turn.from != self.side && octets == said,
            Content::Drawn { .. } => false,
        };
        let turns = &self.script.turns;
        let end = self.end_of(self.flight);
        let expected = (self.flight..end)
            .find(|place| !self.heard[place - self.flight] && is_turn(&turns[*place]));
        if let Some(place) = expected {
            self.heard[place - self.flight] = true;
            if self.heard.iter().all(|heard| *heard) {
                self.begin_flight(now, end);
            }
            return Ok(());
        }
        if turns[..end].iter().any(is_turn) {
            self.again = self.last_said.filter(|_| self.side == Side::Server);
            return Ok(());
        }
        Err(Altered)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turn(from: Side, octets: &[u8]) -> Turn {
        Turn {
            from,
            after: Duration::ZERO,
            content: Content::Octets(octets.to_vec()),
        }
    }

    fn script(turns: Vec<Turn>) -> Rc<Script> {
        let to = "203.0.113.80:80".parse().unwrap();
        Rc::new(Script {
            transport: Transport::Tcp,
            to,
            turns,
        })
    }

    #[test]
    fn drawn_octets_are_the_same_wherever_one_begins_and_a_changed_one_is_noticed() {
        let content = Content::Drawn {
            seed: 9,
            length: 100,
        };
        let mut whole = Vec::new();
        content.append(0, 100, &mut whole);
        for (from, length) in (0..20).flat_map(|from| (0..30).map(move |length| (from, length))) {
            let mut piece = Vec::new();
            content.append(from, length, &mut piece);
            assert_eq!(piece, whole[from as usize..][..length as usize]);
            assert!(content.begins_with(from, &piece), "{length} from {from}");
            for place in 0..piece.len() {
                piece[place] ^= 1;
                assert!(
                    !content.begins_with(from, &piece),
                    "{length} from {from}: {place}"
                );
                piece[place] ^= 1;
            }
        }
    }

    #[test]
    fn a_stream_may_be_cut_anywhere_and_not_changed_anywhere() {
        let script = script(vec![
            turn(Side::Client, b"ask"),
            turn(Side::Server, b"answer"),
            Turn {
                from: Side::Server,
                after: Duration::ZERO,
                content: Content::Drawn {
                    seed: 1,
                    length: 20_000,
                },
            },
        ]);
        let now = Duration::ZERO;
        let mut server = StreamPlay::new(now, Rc::clone(&script), Side::Server);
        assert!(server.handle_data(now, b"as").is_ok() && server.handle_data(now, b"k").is_ok());
        let (mut piece, mut said) = (Vec::new(), Vec::new());
        while server.poll_piece(now, &mut piece) {
            said.extend_from_slice(&piece);
        }
        assert_eq!(said.len(), 20_006);

        for size in [1, 5, 1460, 20_006] {
            let mut client = StreamPlay::new(now, Rc::clone(&script), Side::Client);
            assert!(client.poll_piece(now, &mut piece));
            let heard = said
                .chunks(size)
                .try_for_each(|part| client.handle_data(now, part));
            assert_eq!(
                (heard, client.is_over()),
                (Ok(()), true),
                "in pieces of {size}"
            );
        }
        said[15_000] ^= 1;
        let mut client = StreamPlay::new(now, script, Side::Client);
        client.poll_piece(now, &mut piece);
        assert_eq!(client.handle_data(now, &said), Err(Altered));
    }

    #[test]
    fn a_question_without_an_answer_is_asked_again_and_answered_again() {
        let script = script(vec![turn(Side::Client, b"who"), turn(Side::Server, b"me")]);
        let mut now = Duration::ZERO;
        let mut client = DatagramPlay::new(now, Rc::clone(&script), Side::Client);
        let mut server = DatagramPlay::new(now, script, Side::Server);
        assert_eq!(client.poll_datagram(now), Some(b"who".to_vec()));
        assert_eq!(client.poll_datagram(now), None);
        now = client.poll_timeout().unwrap();
        assert_eq!(now, FIRST_REPEAT);
        assert_eq!(client.poll_datagram(now), Some(b"who".to_vec()));

        for _ in 0..2 {
            assert_eq!(server.handle_datagram(now, b"who"), Ok(()));
            assert_eq!(server.poll_datagram(now), Some(b"me".to_vec()));
            assert_eq!(server.poll_datagram(now), None);
        }
        assert_eq!(client.handle_datagram(now, b"me"), Ok(()));
        assert!(client.is_over());
        assert_eq!(client.handle_datagram(now, b"you"), Err(Altered));
    }
}
