//! Connection tracking as far as rules and NAT can tell: who opened a connection, whether it was
//! answered, its mark and how long it is remembered.
//!
//! States and timeouts are those of `net/netfilter/nf_conntrack_proto_tcp.c` and `_udp.c` with their
//! defaults, windows left aside: no sender here leaves its window.

use std::collections::HashMap;
use std::time::Duration;

use super::super::ruleset::{Tracked, View};

/// Both ends of a packet, as its sender wrote them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Tuple {
    pub(super) source: u32,
    pub(super) destination: u32,
    pub(super) source_port: u16,
    pub(super) destination_port: u16,
    pub(super) protocol: u8,
}

impl Tuple {
    /// The ends of a packet; both ports are zero where its protocol has none.
    pub(super) fn of(packet: &View<'_>) -> Self {
        let [source, destination] = packet.addresses();
        let [source_port, destination_port] = packet.ports().unwrap_or_default();
        Self {
            source,
            destination,
            source_port,
            destination_port,
            protocol: packet.protocol(),
        }
    }

    /// Address and port of its sender.
    pub(super) fn from(&self) -> (u32, u16) {
        (self.source, self.source_port)
    }

    /// Address and port of its receiver.
    pub(super) fn to(&self) -> (u32, u16) {
        (self.destination, self.destination_port)
    }

    /// The ends of an answer.
    pub(super) fn reversed(self) -> Self {
        Self {
            source: self.destination,
            destination: self.source,
            source_port: self.destination_port,
            destination_port: self.source_port,
            protocol: self.protocol,
        }
    }
}

/// What is remembered of one connection.
#[derive(Debug, Clone, Copy)]
pub(super) struct Connection {
    /// As the initiator wrote its packets.
    pub(super) original: Tuple,
    /// As the responder writes its answers: different from the reverse where NAT is at work.
    pub(super) reply: Tuple,
    pub(super) mark: u32,
    was_answered: bool,
    phase: Phase,
    expires: Duration,
}

impl Connection {
    fn new(original: Tuple, phase: Phase, now: Duration) -> Self {
        Self {
            original,
            reply: original.reversed(),
            mark: 0,
            was_answered: false,
            phase,
            expires: now + phase.timeout(),
        }
    }

    /// The ends a packet of this connection has behind the gateway.
    pub(super) fn meant_by(&self, is_reply: bool) -> Tuple {
        let answer = if is_reply { self.original } else { self.reply };
        answer.reversed()
    }

    /// The connection as rules see it.
    pub(super) fn tracked(&self, is_reply: bool) -> Tracked {
        Tracked {
            mark: self.mark,
            is_new: !self.was_answered,
            is_reply,
        }
    }
}

/// How far a connection has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    SynSent,
    SynReceived,
    Established,
    /// One side has said that it is done.
    Closing,
    /// Both have.
    TimeWait,
    /// Reset.
    Closed,
    /// UDP and the rest.
    Unanswered,
    Answered,
}

impl Phase {
    const fn timeout(self) -> Duration {
        Duration::from_secs(match self {
            Phase::SynSent | Phase::Closing | Phase::TimeWait | Phase::Answered => 120,
            Phase::SynReceived => 60,
            Phase::Established => 5 * 24 * 3600,
            Phase::Closed => 10,
            Phase::Unanswered => 30,
        })
    }

    /// The phase that a first packet leads to; none if no connection begins like this.
    fn first(packet: &View<'_>) -> Option<Self> {
        let Some(flags) = packet.tcp_flags() else {
            let is_broken = packet.protocol() == super::super::ruleset::TCP;
            return (!is_broken).then_some(Phase::Unanswered);
        };
        match flags & (SYN | ACK | FIN | RST) {
            SYN => Some(Phase::SynSent),
            // A connection older than the table is picked up in its middle (nf_conntrack_tcp_loose).
            ACK => Some(Phase::Established),
            _ => None,
        }
    }

    /// The phase after one more packet, with these flags if it is TCP.
    fn after(self, flags: Option<u8>, is_reply: bool) -> Self {
        let Some(flags) = flags else {
            let answered = is_reply || self == Phase::Answered;
            return if answered {
                Phase::Answered
            } else {
                Phase::Unanswered
            };
        };
        let has = |bits| flags & bits == bits;
        match self {
            _ if has(RST) => Phase::Closed,
            Phase::SynSent if has(SYN | ACK) && is_reply => Phase::SynReceived,
            Phase::SynReceived if has(ACK) && !has(SYN) && !is_reply => Phase::established(flags),
            Phase::Established if has(FIN) => Phase::Closing,
            Phase::Closing if has(FIN) => Phase::TimeWait,
            same => same,
        }
    }

    fn established(flags: u8) -> Self {
        if flags & FIN != 0 {
            Phase::Closing
        } else {
            Phase::Established
        }
    }
}

const FIN: u8 = 0x01;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const ACK: u8 = 0x10;

/// A packet's connection.
#[derive(Debug, Clone, Copy)]
pub(super) enum Found {
    /// None, and the packet cannot open one.
    Invalid,
    /// This one, and whether the packet travels against its initiator.
    Known(usize, bool),
    /// One that does not count before its first packet has got through.
    New(Connection),
}

/// All connections.
#[derive(Debug, Default)]
pub(super) struct Table {
    connections: Vec<Connection>,
    /// Where a tuple's connection stands, and whether the tuple is that of its answers.
    places: HashMap<Tuple, (usize, bool), foldhash::fast::FixedState>,
    vacant: Vec<usize>,
    /// How many there may be before those that have run out are taken out.
    sweep_at: usize,
}

impl Table {
    /// Finds a packet's connection, and lets it go on with the packet.
    pub(super) fn track(&mut self, now: Duration, packet: &View<'_>) -> Found {
        let tuple = Tuple::of(packet);
        let flags = packet.tcp_flags();
        if let Some((place, is_reply)) = self.find(now, &tuple) {
            let connection = &mut self.connections[place];
            let reopens = flags.is_some_and(|flags| flags & (SYN | ACK) == SYN)
                && matches!(connection.phase, Phase::TimeWait | Phase::Closed);
            if !reopens {
                connection.was_answered |= is_reply;
                let phase = connection.phase.after(flags, is_reply);
                connection.phase = phase;
                connection.expires = now + phase.timeout();
                return Found::Known(place, is_reply);
            }
            self.remove(place);
        }
        match Phase::first(packet) {
            Some(phase) => Found::New(Connection::new(tuple, phase, now)),
            None => Found::Invalid,
        }
    }

    pub(super) fn connection(&mut self, place: usize) -> &mut Connection {
        &mut self.connections[place]
    }

    /// Remembers a connection whose first packet has got through.
    pub(super) fn confirm(&mut self, now: Duration, connection: Connection) {
        if self.is_taken(now, &connection.original) || self.is_taken(now, &connection.reply) {
            return;
        }
        self.sweep(now);
        let place = match self.vacant.pop() {
            Some(place) => {
                self.connections[place] = connection;
                place
            }
            None => {
                self.connections.push(connection);
                self.connections.len() - 1
            }
        };
        self.places.insert(connection.original, (place, false));
        self.places.insert(connection.reply, (place, true));
    }

    /// Whether a connection uses this tuple.
    pub(super) fn is_taken(&mut self, now: Duration, tuple: &Tuple) -> bool {
        self.find(now, tuple).is_some()
    }

    /// Where a tuple's connection stands, and whether the tuple is that of its answers.
    pub(super) fn find(&mut self, now: Duration, tuple: &Tuple) -> Option<(usize, bool)> {
        let (place, is_reply) = *self.places.get(tuple)?;
        if self.connections[place].expires <= now {
            self.remove(place);
            return None;
        }
        Some((place, is_reply))
    }

    fn remove(&mut self, place: usize) {
        let Connection {
            original, reply, ..
        } = self.connections[place];
        self.places.remove(&original);
        self.places.remove(&reply);
        self.vacant.push(place);
    }

    /// Takes out what has run out, each time there is twice as much as was left the last time.
    fn sweep(&mut self, now: Duration) {
        const SMALL: usize = 1024;
        if self.places.len() < self.sweep_at.max(SMALL) {
            return;
        }
        let ended: Vec<_> = self
            .places
            .values()
            .filter(|(place, is_reply)| !is_reply && self.connections[*place].expires <= now)
            .map(|(place, _)| *place)
            .collect();
        ended.into_iter().for_each(|place| self.remove(place));
        self.sweep_at = self.places.len() * 2;
    }
}
