//! The sockets of every virtual host: what a kernel does between programs and packets.
//!
//! Programs bind, dial, write and close; packets come in and go out. What happens to a connection is
//! told as a program on Linux would hear of it, closing and lingering included as the simulator's own
//! socket shell does it (`simulator::net`).

use std::collections::{HashMap, VecDeque};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use foldhash::fast::FixedState;
use rand::rngs::SmallRng;
use rand::{Rng, RngExt, SeedableRng};
use simulator::report::Failure;

use super::packet::{self, Carried, Datagram, Flags, Reassembler, Segment};
use super::tcp::{self, Tcp};

type Map<K, V> = HashMap<K, V, FixedState>;

/// How long a connection closed here waits for the other side to close too.
const LINGER: Duration = Duration::from_secs(10);

/// With fewer octets than this still to be acknowledged, a writer that asked is told of room.
const LOW_WATER: usize = 128 * 1024;

/// Who a socket belongs to: an actor, and that actor's own name for the socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Owner {
    pub(super) actor: usize,
    pub(super) key: u64,
}

/// A connection, named for as long as the run lasts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ConnectionId(pub(super) u32);

/// Something a program hears of.
#[derive(Debug)]
pub(super) struct Arrival {
    pub(super) owner: Owner,
    pub(super) what: What,
}

/// What a program can hear of.
#[derive(Debug)]
pub(super) enum What {
    /// A dial came through.
    Connected,
    /// Somebody dialled a listening port.
    Accepted {
        id: ConnectionId,
        local: SocketAddrV4,
        remote: SocketAddrV4,
    },
    /// Octets of a stream.
    Data(ConnectionId, Vec<u8>),
    /// What was written has left; asked for by [`Sockets::tell_of_room`].
    Room(ConnectionId),
    /// A connection ended.
    Ended(ConnectionId, Failure),
    /// A datagram.
    Datagram {
        local: SocketAddrV4,
        remote: SocketAddrV4,
        payload: Vec<u8>,
    },
}

/// Which transport a port is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Transport {
    Tcp,
    Udp,
}

/// Who listens for connections, and how their writes are cut.
#[derive(Debug, Clone, Copy)]
struct Listener {
    owner: Owner,
    segment: Option<usize>,
}

#[derive(Debug)]
struct Connection {
    tcp: Tcp,
    /// None once the program has let go of it.
    owner: Option<Owner>,
    accepted: bool,
    closing: bool,
    lingers_until: Option<Duration>,
    wants_room: bool,
    touched: bool,
    armed: Option<Duration>,
}

/// Every socket of a run.
#[derive(Debug)]
pub(super) struct Sockets {
    rng: SmallRng,
    connections: Vec<Option<Box<Connection>>>,
    by_ends: Map<(SocketAddrV4, SocketAddrV4), u32>,
    dialling_from: Map<SocketAddrV4, u32>,
    at_address: Map<(Transport, SocketAddrV4), Listener>,
    at_port: Map<(Transport, u16), Listener>,
    port_ranges: Map<Ipv4Addr, (u16, u16)>,
    reassembler: Reassembler,
    touched: Vec<u32>,
    arrivals: VecDeque<Arrival>,
    outbox: VecDeque<Vec<u8>>,
    timers: Vec<(Duration, ConnectionId)>,
    spare: Vec<Vec<u8>>,
    next_packet: u16,
    refused: u64,
}

/// Linux's own range of ports for dials.
const EPHEMERAL: (u16, u16) = (32_768, 28_232);

/// Buffers kept for the next packets.
const SPARE_BUFFERS: usize = 1024;

impl Sockets {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            rng: SmallRng::seed_from_u64(seed),
            connections: Vec::new(),
            by_ends: Map::default(),
            dialling_from: Map::default(),
            at_address: Map::default(),
            at_port: Map::default(),
            port_ranges: Map::default(),
            reassembler: Reassembler::default(),
            touched: Vec::new(),
            arrivals: VecDeque::new(),
            outbox: VecDeque::new(),
            timers: Vec::new(),
            spare: Vec::new(),
            next_packet: 1,
            refused: 0,
        }
    }

    /// Packets that arrived malformed or altered: nothing on this network may cause any.
    pub(super) fn refused(&self) -> u64 {
        self.refused
    }

    // --- what programs ask for ---

    /// The ports that an address dials from: the first and how many.
    pub(super) fn set_port_range(&mut self, address: Ipv4Addr, range: (u16, u16)) {
        self.port_ranges.insert(address, range);
    }

    /// Listens at one address.
    pub(super) fn listen_at(
        &mut self,
        transport: Transport,
        address: SocketAddrV4,
        owner: Owner,
        segment: Option<usize>,
    ) {
        self.at_address
            .insert((transport, address), Listener { owner, segment });
    }

    /// Listens on a port of every outside address.
    pub(super) fn listen_on(
        &mut self,
        transport: Transport,
        port: u16,
        owner: Owner,
        segment: Option<usize>,
    ) {
        self.at_port
            .insert((transport, port), Listener { owner, segment });
    }

    /// Binds a UDP port; says whether it was free.
    pub(super) fn bind_udp(&mut self, address: SocketAddrV4, owner: Owner) -> bool {
        let key = (Transport::Udp, address);
        let free = !self.at_address.contains_key(&key);
        if free {
            self.at_address.insert(
                key,
                Listener {
                    owner,
                    segment: None,
                },
            );
        }
        free
    }

    /// Binds any free UDP port.
    pub(super) fn bind_any_udp(&mut self, ip: Ipv4Addr, owner: Owner) -> SocketAddrV4 {
        loop {
            let address = self.draw_port(ip);
            if self.bind_udp(address, owner) {
                return address;
            }
        }
    }

    /// Gives a UDP port back.
    pub(super) fn close_udp(&mut self, address: SocketAddrV4) {
        self.at_address.remove(&(Transport::Udp, address));
    }

    /// Sends a datagram.
    pub(super) fn send(&mut self, from: SocketAddrV4, to: SocketAddrV4, payload: &[u8]) {
        let mut packet = self.buffer();
        let datagram = Datagram { from, to, payload };
        packet::write_datagram(&mut packet, self.packet_id(), &datagram);
        self.outbox.push_back(packet);
    }

    /// Sends a datagram in IP fragments of `size` octets, last one first if so asked.
    pub(super) fn send_in_fragments(
        &mut self,
        [from, to]: [SocketAddrV4; 2],
        payload: &[u8],
        size: usize,
        reversed: bool,
    ) {
        let mut packet = self.buffer();
        let datagram = Datagram { from, to, payload };
        packet::write_datagram(&mut packet, self.packet_id(), &datagram);
        let mut pieces = packet::fragments(&packet, size);
        if reversed {
            pieces.reverse();
        }
        self.outbox.extend(pieces);
        self.recycle(packet);
    }

    /// Dials; returns the connection and the address it is dialled from.
    pub(super) fn dial(
        &mut self,
        from: Ipv4Addr,
        to: SocketAddrV4,
        owner: Owner,
        segment: Option<usize>,
    ) -> (ConnectionId, SocketAddrV4) {
        let mut local = self.draw_port(from);
        while self.dialling_from.contains_key(&local) {
            local = self.draw_port(from);
        }
        let tcp = Tcp::connect(local, to, self.rng.next_u32(), segment);
        let id = self.add(tcp, owner);
        self.dialling_from.insert(local, id.0);
        (id, local)
    }

    /// Writes to a connection.
    pub(super) fn write(&mut self, id: ConnectionId, bytes: &[u8]) {
        if let Some(connection) = self.connection(id) {
            if !connection.closing {
                connection.tcp.write(bytes);
            }
            self.touch(id);
        }
    }

    /// Octets written and not acknowledged yet.
    pub(super) fn backlog(&mut self, id: ConnectionId) -> usize {
        self.connection(id)
            .map_or(0, |connection| connection.tcp.backlog())
    }

    /// Asks to be told once little of what was written is left.
    pub(super) fn tell_of_room(&mut self, id: ConnectionId) {
        if let Some(connection) = self.connection(id) {
            connection.wants_room = true;
        }
    }

    /// Closes in good order, goes on reading, and gives the other side some time to close too.
    pub(super) fn close(&mut self, now: Duration, id: ConnectionId) {
        if let Some(connection) = self.connection(id).filter(|connection| !connection.closing) {
            connection.closing = true;
            connection.lingers_until = Some(now + LINGER);
            connection.tcp.close();
            self.touch(id);
        }
    }

    /// Lets go of a connection: it closes in good order by itself.
    pub(super) fn release(&mut self, id: ConnectionId) {
        if let Some(connection) = self.connection(id) {
            connection.owner = None;
            connection.closing = true;
            connection.lingers_until = None;
            connection.tcp.close();
            self.touch(id);
        }
    }

    /// Gives a connection up at once, unless it is being closed already.
    pub(super) fn abort(&mut self, id: ConnectionId) {
        if let Some(connection) = self.connection(id).filter(|connection| !connection.closing) {
            connection.owner = None;
            connection.tcp.abort();
            self.touch(id);
        }
    }

    /// Ends everything that belongs to an actor, as the end of its process would.
    pub(super) fn end_all_of(&mut self, actor: usize) {
        self.at_address
            .retain(|_, listener| listener.owner.actor != actor);
        self.at_port
            .retain(|_, listener| listener.owner.actor != actor);
        for place in 0..self.connections.len() {
            let Some(connection) = &mut self.connections[place] else {
                continue;
            };
            if connection.owner.is_some_and(|owner| owner.actor == actor) {
                connection.owner = None;
                connection.tcp.abort();
                self.touch(ConnectionId(place as u32));
            }
        }
    }

    // --- what the network hands over and takes ---

    /// A packet arrived at the host it is for.
    pub(super) fn receive(&mut self, now: Duration, packet: &[u8]) {
        if packet::is_fragment(packet) {
            if let Some(whole) = self.reassembler.take(packet) {
                self.receive(now, &whole.packet);
            }
            return;
        }
        match packet::read(packet) {
            Some(Carried::Segment(segment)) => self.receive_segment(now, &segment),
            Some(Carried::Datagram(datagram)) => self.receive_datagram(&datagram),
            None => self.refused += 1,
        }
    }

    /// The next thing a program hears of.
    pub(super) fn poll_arrival(&mut self) -> Option<Arrival> {
        self.arrivals.pop_front()
    }

    /// The next packet to be sent.
    pub(super) fn poll_packet(&mut self) -> Option<Vec<u8>> {
        self.outbox.pop_front()
    }

    /// The next timer to be set.
    pub(super) fn poll_timer(&mut self) -> Option<(Duration, ConnectionId)> {
        self.timers.pop()
    }

    /// A timer set by [`Self::poll_timer`] has run out; it may be one that was replaced since.
    pub(super) fn handle_timer(&mut self, now: Duration, id: ConnectionId) {
        let Some(connection) = self.connection(id).filter(|one| one.armed == Some(now)) else {
            return;
        };
        connection.armed = None;
        connection.tcp.handle_timeout(now);
        if connection.lingers_until.is_some_and(|until| until <= now) {
            connection.lingers_until = None;
            let owner = connection.owner.take();
            connection.tcp.abort();
            self.tell(owner, What::Ended(id, Failure::Timeout));
        }
        self.touch(id);
    }

    /// Gives a buffer back, to be filled again.
    pub(super) fn recycle(&mut self, buffer: Vec<u8>) {
        if self.spare.len() < SPARE_BUFFERS {
            self.spare.push(buffer);
        }
    }

    /// Does what follows from everything that happened: arrivals, packets and timers.
    pub(super) fn settle(&mut self, now: Duration) {
        while let Some(place) = self.touched.pop() {
            self.settle_connection(now, ConnectionId(place));
        }
    }

    fn settle_connection(&mut self, now: Duration, id: ConnectionId) {
        // Taken out and put back: what it does concerns most of the other fields.
        let Some(mut connection) = self.connections[id.0 as usize].take() else {
            return;
        };
        connection.touched = false;
        while let Some(happening) = connection.tcp.poll_happening() {
            self.hear(id, &mut connection, happening);
        }
        if connection.wants_room && connection.tcp.backlog() < LOW_WATER {
            connection.wants_room = false;
            self.tell(connection.owner, What::Room(id));
        }
        self.transmit(now, &mut connection.tcp);
        if connection.tcp.is_dead() {
            let ends = connection.tcp.ends();
            self.by_ends.remove(&ends);
            if self.dialling_from.get(&ends.0) == Some(&id.0) {
                self.dialling_from.remove(&ends.0);
            }
            return;
        }
        let due = connection
            .tcp
            .poll_timeout()
            .into_iter()
            .chain(connection.lingers_until)
            .min();
        // A timer set too early runs out, finds nothing due and is set anew: cheaper than a search.
        if let Some(due) = due.filter(|due| connection.armed.is_none_or(|armed| *due < armed)) {
            connection.armed = Some(due);
            self.timers.push((due, id));
        }
        self.connections[id.0 as usize] = Some(connection);
    }

    fn transmit(&mut self, now: Duration, tcp: &mut Tcp) {
        loop {
            let mut packet = self.buffer();
            let id = self.packet_id();
            if !tcp.poll_transmit(now, id, &mut packet) {
                self.recycle(packet);
                return;
            }
            self.outbox.push_back(packet);
        }
    }

    fn hear(&mut self, id: ConnectionId, connection: &mut Connection, happening: tcp::Happening) {
        let owner = connection.owner;
        match happening {
            tcp::Happening::Connected if connection.accepted => {
                let (local, remote) = connection.tcp.ends();
                self.tell(owner, What::Accepted { id, local, remote });
            }
            tcp::Happening::Connected => self.tell(owner, What::Connected),
            tcp::Happening::Data => {
                let mut data = self.buffer();
                connection.tcp.take_received(&mut data);
                if data.is_empty() {
                    self.recycle(data);
                } else {
                    self.tell(owner, What::Data(id, data));
                }
            }
            tcp::Happening::Closed => {
                // The program has read the end, and its socket closes with it.
                connection.owner = None;
                connection.lingers_until = None;
                connection.tcp.close();
                self.tell(owner, What::Ended(id, Failure::Closed));
            }
            tcp::Happening::Failed(why) => {
                connection.owner = None;
                connection.lingers_until = None;
                self.tell(owner, What::Ended(id, why));
            }
        }
    }

    fn tell(&mut self, owner: Option<Owner>, what: What) {
        match (owner, what) {
            (Some(owner), what) => self.arrivals.push_back(Arrival { owner, what }),
            (None, What::Data(_, buffer)) => self.recycle(buffer),
            (None, _) => {}
        }
    }

    fn receive_segment(&mut self, now: Duration, segment: &Segment<'_>) {
        if let Some(place) = self.by_ends.get(&(segment.to, segment.from)).copied() {
            let id = ConnectionId(place);
            if let Some(connection) = self.connection(id) {
                connection.tcp.handle_segment(now, segment);
                self.touch(id);
                return;
            }
        }
        let Flags { syn, ack, rst, .. } = segment.flags;
        match self.listener(Transport::Tcp, segment.to) {
            Some(listener) if syn && !ack => {
                let tcp = Tcp::accept(segment, self.rng.next_u32(), listener.segment);
                let id = self.add(tcp, listener.owner);
                if let Some(connection) = self.connection(id) {
                    connection.accepted = true;
                }
            }
            _ if !rst => self.refuse(segment),
            _ => {}
        }
    }

    /// Nobody is here: the sender is told so with a reset (RFC 9293, section 3.10.7.1).
    fn refuse(&mut self, segment: &Segment<'_>) {
        let Flags { syn, fin, ack, .. } = segment.flags;
        let length = segment.payload.len() as u32 + u32::from(syn) + u32::from(fin);
        let reset = Segment {
            from: segment.to,
            to: segment.from,
            sequence: if ack { segment.acknowledgement } else { 0 },
            acknowledgement: if ack {
                0
            } else {
                segment.sequence.wrapping_add(length)
            },
            flags: Flags {
                rst: true,
                ack: !ack,
                ..Flags::default()
            },
            payload: &[],
        };
        let mut packet = self.buffer();
        packet::write_segment(&mut packet, self.packet_id(), &reset, [&[], &[]]);
        self.outbox.push_back(packet);
    }

    /// A datagram that nobody listens for is silently lost: a program here takes an ICMP message for
    /// silence anyway.
    fn receive_datagram(&mut self, datagram: &Datagram<'_>) {
        let Some(listener) = self.listener(Transport::Udp, datagram.to) else {
            return;
        };
        let mut payload = self.buffer();
        payload.clear();
        payload.extend_from_slice(datagram.payload);
        let (local, remote) = (datagram.to, datagram.from);
        self.tell(
            Some(listener.owner),
            What::Datagram {
                local,
                remote,
                payload,
            },
        );
    }

    fn listener(&self, transport: Transport, address: SocketAddrV4) -> Option<Listener> {
        let at_address = self.at_address.get(&(transport, address));
        at_address
            .or_else(|| {
                let inside = self.port_ranges.contains_key(address.ip());
                self.at_port
                    .get(&(transport, address.port()))
                    .filter(|_| !inside)
            })
            .copied()
    }

    fn add(&mut self, tcp: Tcp, owner: Owner) -> ConnectionId {
        let id = ConnectionId(self.connections.len() as u32);
        self.by_ends.insert(tcp.ends(), id.0);
        self.connections.push(Some(Box::new(Connection {
            tcp,
            owner: Some(owner),
            accepted: false,
            closing: false,
            lingers_until: None,
            wants_room: false,
            touched: false,
            armed: None,
        })));
        self.touch(id);
        id
    }

    fn connection(&mut self, id: ConnectionId) -> Option<&mut Connection> {
        self.connections.get_mut(id.0 as usize)?.as_deref_mut()
    }

    fn touch(&mut self, id: ConnectionId) {
        if let Some(connection) = self.connection(id)
            && !std::mem::replace(&mut connection.touched, true)
        {
            self.touched.push(id.0);
        }
    }

    fn draw_port(&mut self, ip: Ipv4Addr) -> SocketAddrV4 {
        let (first, count) = self.port_ranges.get(&ip).copied().unwrap_or(EPHEMERAL);
        SocketAddrV4::new(ip, first + self.rng.random_range(0..count))
    }

    fn buffer(&mut self) -> Vec<u8> {
        self.spare
            .pop()
            .unwrap_or_else(|| Vec::with_capacity(packet::MTU))
    }

    fn packet_id(&mut self) -> u16 {
        self.next_packet = self.next_packet.wrapping_add(1);
        self.next_packet
    }
}
