//! The gateway box in memory: conntrack, NAT, the rules and ftwall itself between two sides of a
//! network, on a clock that the caller moves.
//!
//! ```text
//!  packet ──> conntrack ──> undo NAT ──> rules <──> ftwall ──> administrator's door ──> NAT ──> out
//! ```
//!
//! What is modelled is the kernel. Options, rules, marks, set changes and events are ftwall's own
//! functions, called as its daemon calls them.

mod conntrack;
mod nat;
mod other_device;
mod protection;

use std::net::Ipv4Addr;
use std::time::Duration;

use ftwall::control::events::Statistics;
use serde_json::Value;

use super::ruleset::{Passage, Ruleset, RulesetError, Station, View};
use crate::device::Device;
use conntrack::{Connection, Found, Table, Tuple};
use nat::End;
pub use protection::EPOCH;
use protection::Protection;

/// A side of the gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The network of the hosts that are protected.
    Inside,
    /// The world.
    Outside,
}

/// What the gateway does with a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Forward {
    /// It leaves by the other side, as it is in the buffer now.
    Pass,
    /// It ends here.
    Drop,
}

/// Packets by what became of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Packets that came.
    pub packets: u64,
    /// Those that were forwarded.
    pub passed: u64,
    /// Those the daemon judged.
    pub queued: u64,
    /// Those that went to a queue nobody listened to, and passed.
    pub bypassed: u64,
}

/// A virtual gateway.
#[derive(Debug)]
pub struct Gateway {
    connections: Table,
    device: Guard,
    /// The address that connections from inside are hidden behind.
    nat: Option<Ipv4Addr>,
    /// The administrator drops connections from outside.
    is_door_closed: bool,
    counts: Counts,
}

/// What stands between the two sides.
#[derive(Debug)]
enum Guard {
    Nothing,
    Ftwall(Box<Protection>),
    Block1214,
    StringMatch,
    Rules(Ruleset),
}

impl Gateway {
    /// A gateway with a device that is on from the start. `options` are those of `ftwall run` beyond
    /// `--inside`, `nat` the address that connections from inside are hidden behind, if any; `seed`
    /// decides what the daemon draws and how long the kernel takes to change a set.
    ///
    /// # Errors
    /// When the options are not `ftwall run`'s, or the rules hold something the interpreter does not
    /// know.
    pub fn new(
        device: Device,
        options: &[&str],
        nat: Option<Ipv4Addr>,
        seed: u64,
    ) -> anyhow::Result<Self> {
        let device = match device {
            Device::None => Guard::Nothing,
            Device::Ftwall => Guard::Ftwall(Box::new(Protection::new(options, seed)?)),
            Device::Block1214 => Guard::Block1214,
            Device::StringMatch => Guard::StringMatch,
        };
        let mut gateway = Self::with(device, nat);
        gateway.start(Duration::ZERO)?;
        Ok(gateway)
    }

    /// A gateway with nothing but these nft commands carried out, and nobody at its queues.
    ///
    /// # Errors
    /// When a command holds something the interpreter does not know.
    pub fn of_rules(commands: &[Value]) -> Result<Self, RulesetError> {
        let mut rules = Ruleset::new();
        rules.apply(Duration::ZERO, commands)?;
        Ok(Self::with(Guard::Rules(rules), None))
    }

    fn with(device: Guard, nat: Option<Ipv4Addr>) -> Self {
        Self {
            connections: Table::default(),
            device,
            nat,
            is_door_closed: false,
            counts: Counts::default(),
        }
    }

    /// The same with the administrator's own rule that drops connections from outside, behind
    /// whatever device there is.
    #[must_use]
    pub fn with_closed_door(mut self) -> Self {
        self.is_door_closed = true;
        self
    }

    /// Takes a whole IPv4 packet that arrived on one side, and rewrites it if it has to. `now` never
    /// runs backwards.
    pub fn forward(&mut self, now: Duration, from: Side, packet: &mut [u8]) -> Forward {
        self.counts.packets += 1;
        let passes = self.route(now, from, packet);
        self.track_injected(now);
        if passes.is_none() {
            return Forward::Drop;
        }
        self.counts.passed += 1;
        Forward::Pass
    }

    /// The next packet the gateway itself sends to an inside host.
    pub fn poll_injected(&mut self) -> Option<Vec<u8>> {
        let protection = self.protection_mut()?;
        protection.tracked = protection.tracked.saturating_sub(1);
        protection.injected.pop_front()
    }

    /// When [`Self::handle_timeout`] wants to be called next.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Duration> {
        self.protection()?.poll_timeout()
    }

    /// Ends what has run out and changes what is due.
    pub fn handle_timeout(&mut self, now: Duration) {
        if let Some(protection) = self.protection_mut() {
            protection.handle_timeout(now);
        }
        self.track_injected(now);
    }

    /// The daemon is gone without a word; its rules and what was learned stay in the kernel.
    pub fn kill(&mut self, now: Duration) {
        if let Some(protection) = self.protection_mut() {
            protection.kill(now);
        }
    }

    /// A new daemon takes over whatever is there. A running one stays.
    ///
    /// # Errors
    /// When the rules hold something the interpreter does not know.
    pub fn start(&mut self, now: Duration) -> anyhow::Result<()> {
        match self.protection_mut() {
            Some(protection) => protection.start(now),
            None => Ok(()),
        }
    }

    /// The daemon is asked to end, and takes its rules along.
    pub fn stop(&mut self, now: Duration) {
        if let Some(protection) = self.protection_mut() {
            protection.stop(now);
        }
    }

    /// The daemon's event lines since the last call; instants count from [`EPOCH`].
    pub fn events(&mut self) -> String {
        let protection = self.protection_mut();
        protection.map_or_else(String::new, |protection| {
            std::mem::take(&mut protection.events)
        })
    }

    /// What the running daemon has counted.
    #[must_use]
    pub fn statistics(&self) -> Option<Statistics> {
        self.protection()?.statistics()
    }

    /// What became of packets.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// The rules and sets in the kernel; none with a device that is modelled without.
    #[must_use]
    pub fn ruleset(&self) -> Option<&Ruleset> {
        match &self.device {
            Guard::Ftwall(protection) => Some(&protection.rules),
            Guard::Rules(rules) => Some(rules),
            Guard::Nothing | Guard::Block1214 | Guard::StringMatch => None,
        }
    }

    /// The mark of the connection that a packet, as its sender wrote it, belongs to.
    #[must_use]
    pub fn connection_mark(&mut self, now: Duration, packet: &[u8]) -> Option<u32> {
        let tuple = Tuple::of(&View::parse(packet)?);
        let (place, _) = self.connections.find(now, &tuple)?;
        Some(self.connections.connection(place).mark)
    }

    fn protection(&self) -> Option<&Protection> {
        match &self.device {
            Guard::Ftwall(protection) => Some(protection),
            Guard::Nothing | Guard::Block1214 | Guard::StringMatch | Guard::Rules(_) => None,
        }
    }

    fn protection_mut(&mut self) -> Option<&mut Protection> {
        match &mut self.device {
            Guard::Ftwall(protection) => Some(protection),
            Guard::Nothing | Guard::Block1214 | Guard::StringMatch | Guard::Rules(_) => None,
        }
    }

    /// Nothing if the packet ends here.
    fn route(&mut self, now: Duration, from: Side, packet: &mut [u8]) -> Option<()> {
        let view = View::parse(packet)?;
        let found = self.connections.track(now, &view);
        let is_for_gateway = self
            .nat
            .is_some_and(|own| own.to_bits() == view.addresses()[1]);
        match found {
            Found::Known(place, is_reply) => {
                let connection = *self.connections.connection(place);
                let arrived = Tuple::of(&view);
                let meant = connection.meant_by(is_reply);
                if arrived.to() != meant.to() {
                    let (address, port) = meant.to();
                    nat::rewrite(packet, End::Destination, address, port);
                }
            }
            Found::New(_) | Found::Invalid if is_for_gateway => return None,
            Found::New(_) | Found::Invalid => {}
        }
        let found = self.decide(now, from, packet, found)?;
        self.leave(now, from, packet, found);
        Some(())
    }

    /// Asks the device and the administrator's rule; returns the connection with its new mark.
    fn decide(
        &mut self,
        now: Duration,
        from: Side,
        packet: &[u8],
        mut found: Found,
    ) -> Option<Found> {
        let connection = match &found {
            Found::Invalid => None,
            Found::Known(place, is_reply) => {
                Some(self.connections.connection(*place).tracked(*is_reply))
            }
            Found::New(connection) => Some(connection.tracked(false)),
        };
        let mut passage = Passage {
            packet: View::parse(packet)?,
            mark: 0,
            connection,
        };
        let passes = match &mut self.device {
            Guard::Nothing => true,
            Guard::Ftwall(protection) => protection.judge(now, &mut passage, &mut self.counts),
            Guard::Block1214 => !other_device::blocks_1214(&passage.packet),
            Guard::StringMatch => !other_device::matches_string(&passage.packet),
            Guard::Rules(rules) => passes_alone(rules, now, &mut passage),
        };
        if let Some(tracked) = passage.connection {
            match &mut found {
                Found::Known(place, _) => self.connections.connection(*place).mark = tracked.mark,
                Found::New(connection) => connection.mark = tracked.mark,
                Found::Invalid => {}
            }
        }
        let is_invited = connection.is_some_and(|connection| !connection.is_new);
        let is_refused = self.is_door_closed && from == Side::Outside && !is_invited;
        (passes && !is_refused).then_some(found)
    }

    /// Hides the source where it has to be, and remembers a new connection.
    fn leave(&mut self, now: Duration, from: Side, packet: &mut [u8], found: Found) {
        match found {
            Found::Invalid => {}
            Found::Known(place, is_reply) => {
                let connection = *self.connections.connection(place);
                let (address, port) = connection.meant_by(is_reply).from();
                let arrived = View::parse(packet).map(|view| Tuple::of(&view).from());
                if arrived != Some((address, port)) {
                    nat::rewrite(packet, End::Source, address, port);
                }
            }
            Found::New(mut connection) => {
                if let Some(own) = self.nat.filter(|_| from == Side::Inside) {
                    self.hide(now, own, &mut connection);
                    let (address, port) = connection.meant_by(false).from();
                    nat::rewrite(packet, End::Source, address, port);
                }
                self.connections.confirm(now, connection);
            }
        }
    }

    /// Masquerade: the initiator's own port if it is free, else the next that is.
    fn hide(&mut self, now: Duration, own: Ipv4Addr, connection: &mut Connection) {
        connection.reply.destination = own.to_bits();
        let has_ports = connection.original.source_port != 0;
        for _ in 0..=u16::MAX {
            if !has_ports || !self.connections.is_taken(now, &connection.reply) {
                return;
            }
            let next = connection.reply.destination_port.wrapping_add(1);
            connection.reply.destination_port = next.max(FIRST_HIDDEN_PORT);
        }
    }

    /// What the gateway sends itself belongs to connections, too.
    fn track_injected(&mut self, now: Duration) {
        let Guard::Ftwall(protection) = &mut self.device else {
            return;
        };
        for packet in protection.injected.iter().skip(protection.tracked) {
            let view = View::parse(packet);
            if let Some(Found::New(connection)) =
                view.map(|view| self.connections.track(now, &view))
            {
                self.connections.confirm(now, connection);
            }
        }
        protection.tracked = protection.injected.len();
    }
}

/// Whether a packet passes rules whose queues nobody listens to.
fn passes_alone(rules: &Ruleset, now: Duration, passage: &mut Passage<'_>) -> bool {
    let mut station = rules.enter(now, passage);
    while let Station::Queued {
        bypass: true,
        resume,
        ..
    } = station
    {
        station = rules.resume(now, passage, resume);
    }
    station == Station::Accepted
}

/// Ports below are not given out to connections that cannot keep their own.
const FIRST_HIDDEN_PORT: u16 = 1024;

#[cfg(test)]
mod tests;
