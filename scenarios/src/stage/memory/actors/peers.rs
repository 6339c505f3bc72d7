//! `simulator peers` on virtual sockets.

use std::collections::BTreeMap;
use std::net::SocketAddrV4;
use std::time::Duration;

use simulator::net::PeersRun;
use simulator::peer::{self, Output, PeersConfig};
use simulator::report::{Event, Line, Part};
use simulator::reporter::DoneReason;

use super::{Actor, Report, Scene};
use crate::stage::memory::sockets::{Arrival, ConnectionId, Owner, Transport, What};

/// Every outside peer.
pub(in crate::stage::memory) struct Peers {
    actor: usize,
    peers: peer::Peers,
    /// What is bound, until it is.
    to_bind: Vec<Listening>,
    duration: Option<Duration>,
    segment: Option<usize>,
    connections: BTreeMap<peer::ConnectionId, (ConnectionId, SocketAddrV4, SocketAddrV4)>,
    names: BTreeMap<ConnectionId, peer::ConnectionId>,
    accepted: u64,
    done: bool,
    report: Report,
}

enum Listening {
    /// Any outside address, both transports.
    Port(u16),
    /// One peer's own port of the web, TCP alone.
    Web(SocketAddrV4),
}

impl Peers {
    pub(in crate::stage::memory) fn new(actor: usize, who: &str, run: PeersRun) -> Self {
        // Named one by one: an option that is added must be dealt with here.
        let PeersRun {
            config,
            duration,
            segment,
            web_ports,
        } = run;
        Self {
            actor,
            to_bind: listening(&config, web_ports),
            peers: peer::Peers::new(config),
            duration,
            segment,
            connections: BTreeMap::new(),
            names: BTreeMap::new(),
            accepted: 0,
            done: false,
            report: Report::new(who),
        }
    }

    fn drain(&mut self, scene: &mut Scene) {
        while let Some(output) = self.peers.poll_output() {
            self.obey(scene, output);
        }
        if self.duration.is_some_and(|end| scene.now >= end) {
            self.end(scene, DoneReason::Duration);
        }
    }

    fn obey(&mut self, scene: &mut Scene, output: Output) {
        match output {
            Output::Report(event) => self.report.say(scene.now, event),
            Output::Datagram { from, to, payload } => scene.sockets.send(from, to, &payload),
            Output::Send { id, part, bytes } => self.send(scene, id, part, &bytes),
            Output::Close { id } => {
                if let Some((connection, ..)) = self.connections.get(&id) {
                    scene.sockets.close(scene.now, *connection);
                }
            }
            Output::Abort { id } => {
                if let Some((connection, ..)) = self.connections.remove(&id) {
                    self.names.remove(&connection);
                    scene.sockets.abort(connection);
                }
            }
        }
    }

    fn send(&mut self, scene: &mut Scene, id: peer::ConnectionId, part: Part, bytes: &[u8]) {
        let Some((connection, local, remote)) = self.connections.get(&id) else {
            return;
        };
        scene.sockets.write(*connection, bytes);
        let event = Event::PeerSent {
            local: (*local).into(),
            remote: (*remote).into(),
            part,
            bytes: bytes.len() as u64,
        };
        self.report.say(scene.now, event);
    }

    fn accept(
        &mut self,
        now: Duration,
        connection: ConnectionId,
        [local, remote]: [SocketAddrV4; 2],
    ) {
        let id = peer::ConnectionId(self.accepted);
        self.accepted += 1;
        self.connections.insert(id, (connection, local, remote));
        self.names.insert(connection, id);
        self.peers.handle_connected(now, id, local, remote);
    }

    fn end(&mut self, scene: &mut Scene, reason: DoneReason) {
        if self.done {
            return;
        }
        self.done = true;
        self.peers.handle_shutdown();
        while let Some(output) = self.peers.poll_output() {
            self.obey(scene, output);
        }
        scene.sockets.end_all_of(self.actor);
        self.report.done(scene.now, reason);
    }
}

fn listening(config: &PeersConfig, web_ports: [u16; 2]) -> Vec<Listening> {
    let population = &config.population;
    let ports = population.ports().into_iter().map(Listening::Port);
    let web = population
        .peers()
        .iter()
        .filter(|peer| peer.has_web_ports)
        .flat_map(|peer| web_ports.map(|port| SocketAddrV4::new(*peer.address.ip(), port)))
        .map(Listening::Web);
    ports.chain(web).collect()
}

impl Actor for Peers {
    fn start(&mut self, scene: &mut Scene) {
        let owner = Owner {
            actor: self.actor,
            key: 0,
        };
        for listening in self.to_bind.drain(..) {
            match listening {
                Listening::Port(port) => {
                    scene.sockets.listen_on(Transport::Udp, port, owner, None);
                    scene
                        .sockets
                        .listen_on(Transport::Tcp, port, owner, self.segment);
                }
                Listening::Web(address) => {
                    scene
                        .sockets
                        .listen_at(Transport::Tcp, address, owner, self.segment);
                }
            }
        }
        self.report.say(scene.now, Event::Ready);
        self.drain(scene);
    }

    fn handle(&mut self, scene: &mut Scene, arrival: Arrival) {
        let now = scene.now;
        match arrival.what {
            What::Accepted { id, local, remote } => self.accept(now, id, [local, remote]),
            What::Data(connection, bytes) => {
                if let Some(id) = self.names.get(&connection) {
                    self.peers.handle_data(now, *id, &bytes);
                }
                scene.sockets.recycle(bytes);
            }
            What::Ended(connection, _) => {
                if let Some(id) = self.names.remove(&connection) {
                    self.connections.remove(&id);
                    self.peers.handle_closed(id);
                }
            }
            What::Datagram {
                local,
                remote,
                payload,
            } => {
                self.peers.handle_datagram(now, local, remote, &payload);
                scene.sockets.recycle(payload);
            }
            What::Connected | What::Room(_) => {}
        }
        self.drain(scene);
    }

    fn handle_timeout(&mut self, scene: &mut Scene) {
        if !self.done {
            self.peers.handle_timeout(scene.now);
            self.drain(scene);
        }
    }

    fn poll_timeout(&self, _: Duration) -> Option<Duration> {
        let due = self
            .peers
            .poll_timeout()
            .into_iter()
            .chain(self.duration)
            .min();
        due.filter(|_| !self.done)
    }

    fn is_done(&self) -> bool {
        self.done
    }

    fn stop(&mut self, scene: &mut Scene) {
        self.end(scene, DoneReason::Signal);
    }

    fn take_report(&mut self) -> Vec<Line> {
        std::mem::take(&mut self.report.lines)
    }
}
