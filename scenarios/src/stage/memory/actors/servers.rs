//! The servers of the control group: they answer whatever conversation a client has begun.

use std::collections::BTreeMap;
use std::net::SocketAddrV4;
use std::rc::Rc;
use std::time::Duration;

use simulator::report::Line;

use super::{Actor, Scene};
use crate::stage::memory::script::{DatagramPlay, Side, StreamPlay};
use crate::stage::memory::sockets::{Arrival, ConnectionId, Owner, Transport, What};

/// With more octets than this under way, a server waits before it says more.
const HIGH_WATER: usize = 256 * 1024;

/// Every ordinary server.
pub(in crate::stage::memory) struct Servers {
    actor: usize,
    listening: Vec<(Transport, Place)>,
    streams: BTreeMap<ConnectionId, StreamPlay>,
    datagrams: BTreeMap<(SocketAddrV4, SocketAddrV4), DatagramPlay>,
    /// What is being written, to be filled again.
    piece: Vec<u8>,
    done: bool,
}

/// Where a server listens.
#[derive(Debug, Clone, Copy)]
pub(in crate::stage::memory) enum Place {
    /// At one address.
    At(SocketAddrV4),
    /// On a port of every outside address.
    Everywhere(u16),
}

impl Servers {
    pub(in crate::stage::memory) fn new(actor: usize, listening: Vec<(Transport, Place)>) -> Self {
        Self {
            actor,
            listening,
            streams: BTreeMap::new(),
            datagrams: BTreeMap::new(),
            piece: Vec::new(),
            done: false,
        }
    }

    fn accept(&mut self, scene: &mut Scene, id: ConnectionId, [local, remote]: [SocketAddrV4; 2]) {
        match scene.scripts.find(Transport::Tcp, remote, local) {
            Some(script) => {
                self.streams
                    .insert(id, StreamPlay::new(scene.now, script, Side::Server));
                self.speak(scene, id);
            }
            // Somebody who is no browser.
            None => scene.sockets.abort(id),
        }
    }

    fn hear(&mut self, scene: &mut Scene, id: ConnectionId, bytes: &[u8]) {
        let Some(play) = self.streams.get_mut(&id) else {
            return;
        };
        if play.handle_data(scene.now, bytes).is_err() {
            // What arrives altered is not a request; a server hangs up.
            self.streams.remove(&id);
            scene.sockets.abort(id);
        } else {
            self.speak(scene, id);
        }
    }

    fn speak(&mut self, scene: &mut Scene, id: ConnectionId) {
        let Some(play) = self.streams.get_mut(&id) else {
            return;
        };
        while scene.sockets.backlog(id) < HIGH_WATER {
            if !play.poll_piece(scene.now, &mut self.piece) {
                return;
            }
            scene.sockets.write(id, &self.piece);
        }
        scene.sockets.tell_of_room(id);
    }

    fn hear_datagram(
        &mut self,
        scene: &mut Scene,
        [local, remote]: [SocketAddrV4; 2],
        payload: &[u8],
    ) {
        let now = scene.now;
        let Some(script) = scene.scripts.find(Transport::Udp, remote, local) else {
            return;
        };
        let play = self
            .datagrams
            .entry((local, remote))
            .or_insert_with(|| DatagramPlay::new(now, Rc::clone(&script), Side::Server));
        // A host may draw a port again that it had before.
        if !play.is_of(&script) {
            *play = DatagramPlay::new(now, script, Side::Server);
        }
        // What makes no sense to a server is not answered.
        if play.handle_datagram(now, payload).is_ok() {
            say_datagrams(scene, play, [local, remote]);
        }
    }
}

fn say_datagrams(scene: &mut Scene, play: &mut DatagramPlay, [local, remote]: [SocketAddrV4; 2]) {
    while let Some(datagram) = play.poll_datagram(scene.now) {
        scene.sockets.send(local, remote, &datagram);
    }
}

impl Actor for Servers {
    fn start(&mut self, scene: &mut Scene) {
        let owner = Owner {
            actor: self.actor,
            key: 0,
        };
        for (transport, place) in self.listening.drain(..) {
            match place {
                Place::At(address) => scene.sockets.listen_at(transport, address, owner, None),
                Place::Everywhere(port) => {
                    scene.sockets.listen_on(transport, port, owner, None);
                }
            }
        }
    }

    fn handle(&mut self, scene: &mut Scene, arrival: Arrival) {
        match arrival.what {
            What::Accepted { id, local, remote } => self.accept(scene, id, [local, remote]),
            What::Data(id, bytes) => {
                self.hear(scene, id, &bytes);
                scene.sockets.recycle(bytes);
            }
            What::Room(id) => self.speak(scene, id),
            What::Ended(id, _) => drop(self.streams.remove(&id)),
            What::Datagram {
                local,
                remote,
                payload,
            } => {
                self.hear_datagram(scene, [local, remote], &payload);
                scene.sockets.recycle(payload);
            }
            What::Connected => {}
        }
    }

    fn handle_timeout(&mut self, scene: &mut Scene) {
        let now = scene.now;
        let due = |play: &StreamPlay| play.poll_timeout().is_some_and(|at| at <= now);
        let ready: Vec<_> = self
            .streams
            .iter()
            .filter(|(_, play)| due(play))
            .map(|(id, _)| *id)
            .collect();
        for id in ready {
            self.speak(scene, id);
        }
        for ((local, remote), play) in &mut self.datagrams {
            say_datagrams(scene, play, [*local, *remote]);
        }
    }

    /// Only what a server thinks about before it is said; what waits for room is told of it.
    fn poll_timeout(&self, now: Duration) -> Option<Duration> {
        let streams = self.streams.values().filter_map(StreamPlay::poll_timeout);
        let datagrams = self
            .datagrams
            .values()
            .filter_map(DatagramPlay::poll_timeout);
        streams.chain(datagrams).filter(|at| *at > now).min()
    }

    fn is_done(&self) -> bool {
        self.done
    }

    fn stop(&mut self, scene: &mut Scene) {
        self.done = true;
        scene.sockets.end_all_of(self.actor);
    }

    fn take_report(&mut self) -> Vec<Line> {
        Vec::new()
    }
}
