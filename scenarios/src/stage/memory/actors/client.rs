//! `simulator client` on virtual sockets.

use std::collections::BTreeMap;
use std::net::{SocketAddr, SocketAddrV4};
use std::ops::RangeInclusive;
use std::time::Duration;

use rand::RngExt;
use rand::rngs::ChaCha8Rng;
use simulator::cli::Until;
use simulator::client::{self, Output};
use simulator::net::ClientRun;
use simulator::population::Population;
use simulator::report::{AttemptId, Event, Line, Part};
use simulator::reporter::DoneReason;

use super::{Actor, Report, Scene};
use crate::stage::memory::sockets::{Arrival, ConnectionId, Owner, What};

/// How often another random UDP port is tried when the first is taken.
const PORT_ATTEMPTS: usize = 16;

/// A FastTrack client on an inside host.
pub(in crate::stage::memory) struct Client {
    actor: usize,
    client: client::Client,
    run: Run,
    rng: ChaCha8Rng,
    udp: Option<SocketAddrV4>,
    connections: BTreeMap<AttemptId, ConnectionId>,
    fragmented: u64,
    /// When its process started: its own clock's zero.
    started: Duration,
    begun: bool,
    done: bool,
    report: Report,
}

/// What is left of the command line once the client itself has its part.
struct Run {
    address: std::net::Ipv4Addr,
    duration: Duration,
    start_after: Duration,
    until: Until,
    udp_ports: RangeInclusive<u16>,
    segment: Option<usize>,
    fragment: Option<usize>,
}

impl Client {
    pub(in crate::stage::memory) fn new(
        actor: usize,
        who: &str,
        run: ClientRun,
        population: &Population,
    ) -> Self {
        // Named one by one: an option that is added must be dealt with here.
        let ClientRun {
            config,
            duration,
            start_after,
            until,
            udp_ports,
            segment,
            fragment,
        } = run;
        let address = config.address;
        let rng = config.seed.derive("ports", 0).rng();
        Self {
            actor,
            client: client::Client::new(config, population),
            run: Run {
                address,
                duration,
                start_after,
                until,
                udp_ports,
                segment,
                fragment,
            },
            rng,
            udp: None,
            connections: BTreeMap::new(),
            fragmented: 0,
            started: Duration::ZERO,
            begun: false,
            done: false,
            report: Report::new(who),
        }
    }

    fn owner(&self, id: AttemptId) -> Owner {
        Owner {
            actor: self.actor,
            key: id.0,
        }
    }

    /// The time on its own clock.
    fn clock(&self, scene: &Scene) -> Duration {
        scene.now.saturating_sub(self.started)
    }

    /// Binds a port as clients choose theirs.
    fn bind_udp(&mut self, scene: &mut Scene) {
        let owner = self.owner(AttemptId(0));
        if let Some(old) = self.udp.take() {
            scene.sockets.close_udp(old);
        }
        let drawn = (0..PORT_ATTEMPTS).find_map(|_| {
            let port = self.rng.random_range(self.run.udp_ports.clone());
            let address = SocketAddrV4::new(self.run.address, port);
            scene.sockets.bind_udp(address, owner).then_some(address)
        });
        let address = drawn.unwrap_or_else(|| scene.sockets.bind_any_udp(self.run.address, owner));
        self.udp = Some(address);
        self.client
            .handle_udp_bound(self.clock(scene), address.into());
    }

    /// Does everything that the client asks for, and ends when it is time to.
    fn drain(&mut self, scene: &mut Scene) {
        while let Some(output) = self.client.poll_output() {
            self.obey(scene, output);
        }
        if self.run.until == Until::Contact && self.client.has_made_contact() {
            self.end(scene, DoneReason::Contact);
        } else if self.clock(scene) >= self.run.duration {
            self.end(scene, DoneReason::Duration);
        }
    }

    fn obey(&mut self, scene: &mut Scene, output: Output) {
        match output {
            Output::Report(event) => self.report.say(scene.now, event),
            Output::Datagram {
                id,
                to,
                part,
                payload,
            } => {
                self.send_datagram(scene, to, part, &payload);
                let bytes = payload.len() as u64;
                if let Some(id) = id {
                    self.report.say(scene.now, Event::Sent { id, part, bytes });
                }
            }
            Output::ChangeUdpPort => self.bind_udp(scene),
            Output::Dial { id, peer } => self.dial(scene, id, peer),
            Output::Send { id, part, bytes } => {
                if let Some(connection) = self.connections.get(&id) {
                    scene.sockets.write(*connection, &bytes);
                    let bytes = bytes.len() as u64;
                    self.report.say(scene.now, Event::Sent { id, part, bytes });
                }
            }
            Output::Close { id } => {
                if let Some(connection) = self.connections.get(&id) {
                    scene.sockets.close(scene.now, *connection);
                }
            }
            Output::Abort { id } => {
                if let Some(connection) = self.connections.remove(&id) {
                    scene.sockets.abort(connection);
                }
            }
        }
    }

    fn send_datagram(&mut self, scene: &mut Scene, to: SocketAddrV4, part: Part, payload: &[u8]) {
        let Some(from) = self.udp else { return };
        if part == Part::Ping {
            scene.pinged.insert(self.run.address);
        }
        match (self.run.fragment, part) {
            (Some(size), Part::Ping) => {
                let reversed = self.fragmented % 2 == 1;
                self.fragmented += 1;
                scene
                    .sockets
                    .send_in_fragments([from, to], payload, size, reversed);
            }
            _ => scene.sockets.send(from, to, payload),
        }
    }

    fn dial(&mut self, scene: &mut Scene, id: AttemptId, peer: SocketAddrV4) {
        let owner = self.owner(id);
        let (connection, local) =
            scene
                .sockets
                .dial(self.run.address, peer, owner, self.run.segment);
        self.connections.insert(id, connection);
        if let Some(attempt) = self.client.handle_bound(id, SocketAddr::V4(local)) {
            self.report.say(scene.now, attempt);
        }
    }

    fn end(&mut self, scene: &mut Scene, reason: DoneReason) {
        if !self.done {
            self.done = true;
            scene.sockets.end_all_of(self.actor);
            self.report.done(scene.now, reason);
        }
    }
}

impl Actor for Client {
    fn start(&mut self, scene: &mut Scene) {
        self.started = scene.now;
        self.bind_udp(scene);
        self.report.say(scene.now, Event::Ready);
        self.handle_timeout(scene);
    }

    fn handle(&mut self, scene: &mut Scene, arrival: Arrival) {
        let (now, id) = (self.clock(scene), AttemptId(arrival.owner.key));
        match arrival.what {
            What::Connected => self.client.handle_connected(now, id),
            What::Data(_, bytes) => {
                self.client.handle_data(now, id, &bytes);
                scene.sockets.recycle(bytes);
            }
            What::Ended(_, why) => {
                self.connections.remove(&id);
                self.client.handle_closed(now, id, why);
            }
            What::Datagram {
                remote, payload, ..
            } => {
                self.client.handle_datagram(now, remote, &payload);
                scene.sockets.recycle(payload);
            }
            What::Accepted { .. } | What::Room(_) => {}
        }
        self.drain(scene);
    }

    fn handle_timeout(&mut self, scene: &mut Scene) {
        let now = self.clock(scene);
        if self.done {
            return;
        }
        // A host switched on later sits still until then, but not beyond its time.
        if !self.begun && now < self.run.start_after.min(self.run.duration) {
            return;
        }
        self.begun = true;
        self.client.handle_timeout(now);
        self.drain(scene);
    }

    fn poll_timeout(&self, now: Duration) -> Option<Duration> {
        if self.done {
            return None;
        }
        let due = if self.begun {
            self.client.poll_timeout(now.saturating_sub(self.started))
        } else {
            Some(self.run.start_after)
        };
        let due = due.map_or(self.run.duration, |due| due.min(self.run.duration));
        Some(self.started + due)
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
