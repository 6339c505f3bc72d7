//! One run on the virtual clock: owns everybody and everything, and turns the clock.
//!
//! ```text
//!  inside hosts ── lan ──┬─ inside witness ─┬── gateway box ──── wan or wire ── outside witness ── outside hosts
//!                        └ fragments whole ─┘
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::ops::RangeInclusive;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Parser;
use lab::WireSettings;
use lab::presets::Office;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use simulator::cli::{Cli, Command};
use simulator::report::{Event, Line};
use simulator::web::{ServerOptions, Service};

use super::actors::{
    Actor, Browser, Client, DOWNLOAD_SERVER, Downloader, Peers, Place, Scene, Servers, micros,
};
use super::gateway::{EPOCH, Forward, Gateway, Side};
use super::network::{Agenda, Lane, Line as Wan, Wire};
use super::packet::{self, Reassembler};
use super::script::Scripts;
use super::sockets::{ConnectionId, Sockets, Transport};
use crate::device::Device;
use crate::observe::{Frame, HostLine};
use crate::record::Record;
use crate::scenario::{Actor as Part, RealWeb, Scenario, host_name};
use crate::stage::cast::{self, Cast};

/// Time for what is under way to arrive before the peers are told to stop.
const SETTLING: Duration = Duration::from_millis(200);

/// Programs do not start in the same instant: inside hosts begin within this time.
const START_SPREAD_US: u64 = 30_000;

/// What hosts take to send a packet, in microseconds: a system call and its way through the stack. A
/// program that writes octet by octet in a namespace takes 11. Without it a cache of 200 addresses would
/// be dialled in one instant, before any gateway could say anything.
const SENDING_US: RangeInclusive<u64> = 2..=20;

/// The least step of the clock where an actor wants to be called at once again.
const STEP: Duration = Duration::from_micros(1);

/// One run to be made.
#[derive(Debug, Clone, Copy)]
pub(super) struct Setting<'a> {
    pub(super) scenario: &'a Scenario,
    pub(super) device: Device,
    pub(super) seed: u64,
    /// Which of the ways that things may go with this seed: when each program starts, how the line
    /// jitters, how long the kernel takes. What the actors draw is the same in all of them.
    pub(super) take: u64,
    /// Whether the witnesses are to record what does not concern peers, too.
    pub(super) records_all: bool,
}

/// A run that was made.
#[derive(Debug)]
pub(super) struct Ran {
    pub(super) record: Record,
    /// Packets that hosts and gateway sent.
    pub(super) packets: u64,
}

/// What is due at an instant.
#[derive(Debug)]
enum Due {
    /// An inside host gets round to sending a packet.
    Sends(Vec<u8>),
    /// A packet reaches the gateway.
    AtGateway { outward: bool, packet: Vec<u8> },
    /// A packet reaches the host it is for.
    AtHost(Vec<u8>),
    /// A packet reaches the outside end of the line.
    Outside(Vec<u8>),
    /// The imperfect wire has something to hand out.
    Wire,
    /// A timer of a connection.
    Connection(ConnectionId),
    /// An actor begins.
    Start(usize),
    /// An actor has something due.
    Actor(usize),
    /// The gateway has something due.
    Gateway,
    /// The daemon dies, or another is started.
    Daemon { lives: bool },
    /// What was under way has arrived.
    End,
}

/// Somebody on stage.
struct Player {
    actor: Box<dyn Actor>,
    /// The inside host it lives on; none outside.
    host: Option<String>,
    who: String,
    started: bool,
    armed: Option<Duration>,
}

/// Everything there is in a run.
struct World {
    scene: Scene,
    agenda: Agenda<Due>,
    players: Vec<Player>,
    /// The stage's own.
    draws: SmallRng,
    gateway: Gateway,
    gateway_armed: Option<Duration>,
    reassembler: Reassembler,
    /// By inside host.
    transmitters: BTreeMap<Ipv4Addr, Transmitter>,
    lan: [Wan; 2],
    wan: [Wan; 2],
    wire: Option<Wire>,
    wire_armed: Option<Duration>,
    witnesses: Witnesses,
    /// Times without a daemon.
    blind_us: Vec<(u64, u64)>,
    pinged_seen: usize,
    ending: bool,
    packets: u64,
    mishaps: Vec<String>,
}

/// What an inside host sends with, one packet after another.
#[derive(Debug)]
struct Transmitter {
    /// What a packet takes.
    sending: Duration,
    /// When everything is sent that it was given.
    idle_at: Duration,
}

impl Transmitter {
    const fn new(sending: Duration) -> Self {
        Self {
            sending,
            idle_at: Duration::ZERO,
        }
    }

    /// Takes a packet; returns when it is sent.
    fn take(&mut self, now: Duration) -> Duration {
        let at = now.max(self.idle_at);
        self.idle_at = at + self.sending;
        at
    }
}

/// Recordings of both wires. The judge reads nothing but what concerns peers.
#[derive(Default)]
struct Witnesses {
    everything: bool,
    inside: Vec<Frame>,
    outside: Vec<Frame>,
}

/// Plays one run.
///
/// # Errors
/// When the scenario cannot be played in memory: an option without a meaning here, or rules that the
/// interpreter does not know.
pub(super) fn run(setting: Setting<'_>) -> anyhow::Result<Ran> {
    let mut world = World::set(setting)?;
    world.play(setting.scenario.longest())?;
    Ok(world.strike())
}

impl World {
    fn set(setting: Setting<'_>) -> anyhow::Result<Self> {
        let Setting {
            scenario,
            device,
            seed,
            take,
            records_all: _,
        } = setting;
        let nat = scenario.office.nat.then_some(Office::GATEWAY_WAN);
        let options: Vec<_> = scenario.ftwall.iter().map(String::as_str).collect();
        let mut draws = SmallRng::seed_from_u64(seed ^ SEED_OF_STAGE ^ take);
        let mut sockets = Sockets::new(draws.random());
        for number in 1..=scenario.office.hosts {
            sockets.set_port_range(Office::client_address(number), port_range(scenario, number));
        }
        let wire = scenario
            .office
            .wire
            .clone()
            .map(|wire| WireSettings { seed, ..wire });
        let mut world = Self {
            scene: Scene {
                now: Duration::ZERO,
                sockets,
                scripts: Scripts::new(nat),
                pinged: BTreeSet::new(),
            },
            agenda: Agenda::new(),
            players: Vec::new(),
            gateway: Gateway::new(device, &options, nat, draws.random())?,
            gateway_armed: None,
            draws: SmallRng::seed_from_u64(draws.random()),
            reassembler: Reassembler::default(),
            transmitters: BTreeMap::new(),
            lan: [Wan::new(draws.random()), Wan::new(draws.random())],
            wan: [Wan::new(draws.random()), Wan::new(draws.random())],
            wire: wire.map(Wire::new),
            wire_armed: None,
            witnesses: Witnesses {
                everything: setting.records_all,
                ..Witnesses::default()
            },
            blind_us: Vec::new(),
            pinged_seen: 0,
            ending: false,
            packets: 0,
            mishaps: Vec::new(),
        };
        world.cast(setting)?;
        for player in 0..world.players.len() {
            let inside = world.players[player].host.is_some();
            let spread = if inside {
                draws.random_range(1..START_SPREAD_US)
            } else {
                0
            };
            world
                .agenda
                .add(Duration::from_micros(spread), Due::Start(player));
        }
        for outage in &scenario.outages {
            world.agenda.add(outage.at, Due::Daemon { lives: false });
            world.agenda.add(outage.until, Due::Daemon { lives: true });
        }
        Ok(world)
    }

    // --- the cast ---

    /// Puts everybody on stage, reading the very command lines that namespaces would run.
    fn cast(&mut self, setting: Setting<'_>) -> anyhow::Result<()> {
        let cast = Cast::of(setting.scenario, setting.seed)?;
        for part in cast.peers.iter().chain(&cast.servers) {
            self.engage(part, None)?;
        }
        for part in &cast.inside {
            self.engage(part, Some(&part.node))?;
        }
        for (place, actor) in setting.scenario.cast.iter().enumerate() {
            if let Part::RealWeb(web) = actor {
                self.engage_downloaders(web, setting, cast::derive(setting.seed, place));
            }
        }
        Ok(())
    }

    fn engage(&mut self, part: &cast::Part, host: Option<&str>) -> anyhow::Result<()> {
        let words = std::iter::once("simulator").chain(part.args.iter().map(String::as_str));
        let cli = Cli::try_parse_from(words)
            .with_context(|| format!("the command line of {}", part.who))?;
        let who = cli.who.as_deref().unwrap_or(cli.command.name());
        let actor = self.players.len();
        match cli.command {
            Command::Client(options) => {
                let population = options.population.generate()?;
                let client = Client::new(actor, who, options.run(), &population);
                self.join(Box::new(client), who, host);
                if let Some(browsing) = options.browsing() {
                    let browser = Browser::new(actor + 1, who, &browsing, false)?;
                    self.join(Box::new(browser), who, host);
                }
            }
            Command::Peers(options) => {
                let population = options.population.generate()?;
                self.join(
                    Box::new(Peers::new(actor, who, options.run(population))),
                    who,
                    host,
                );
            }
            Command::WebServer(options) => {
                let servers = Servers::new(actor, services(&options)?);
                self.join(Box::new(servers), who, host);
            }
            Command::WebClient(options) => {
                let browser = Browser::new(actor, who, &options, true)
                    .with_context(|| format!("the command line of {who}"))?;
                self.join(Box::new(browser), who, host);
            }
        }
        Ok(())
    }

    fn engage_downloaders(&mut self, web: &RealWeb, setting: Setting<'_>, seed: u64) {
        let listening = [80, 443].map(|port| {
            let address = SocketAddrV4::new(DOWNLOAD_SERVER, port);
            (Transport::Tcp, Place::At(address))
        });
        let servers = Servers::new(self.players.len(), listening.into());
        self.join(Box::new(servers), "nginx", None);
        for host in &web.hosts {
            let is_infected =
                |actor: &Part| matches!(actor, Part::Client(client) if client.host == *host);
            let waits = setting.scenario.cast.iter().any(is_infected);
            let (name, address) = (host_name(*host), Office::client_address(*host));
            let who = format!("{name}-curl");
            let actor = self.players.len();
            let downloader = Downloader::new(actor, &who, address, [seed, web.download], waits);
            self.join(Box::new(downloader), &who, Some(&name));
        }
    }

    fn join(&mut self, actor: Box<dyn Actor>, who: &str, host: Option<&str>) {
        self.players.push(Player {
            actor,
            host: host.map(str::to_owned),
            who: who.to_owned(),
            started: false,
            armed: None,
        });
    }

    // --- the clock ---

    fn play(&mut self, limit: Duration) -> anyhow::Result<()> {
        while let Some((at, due)) = self.agenda.pop() {
            if at > limit && !self.ending {
                self.name_the_late();
                return Ok(());
            }
            self.scene.now = at;
            if matches!(due, Due::End) {
                return Ok(());
            }
            self.handle(due)?;
            self.react();
            self.arm_gateway();
            self.consider_ending();
        }
        bail!("nothing was left to happen before the actors were done")
    }

    fn handle(&mut self, due: Due) -> anyhow::Result<()> {
        let now = self.scene.now;
        match due {
            Due::Sends(packet) => self.enter_lan(packet),
            Due::AtGateway { outward, packet } => self.arrive_at_gateway(outward, packet),
            Due::AtHost(packet) => {
                self.scene.sockets.receive(now, &packet);
                self.scene.sockets.recycle(packet);
            }
            Due::Outside(packet) => {
                self.witnesses.see(now, false, true, &packet);
                self.scene.sockets.receive(now, &packet);
                self.scene.sockets.recycle(packet);
            }
            Due::Wire => self.hand_out_wire(),
            Due::Connection(id) => self.scene.sockets.handle_timer(now, id),
            Due::Start(player) => {
                self.players[player].started = true;
                self.players[player].actor.start(&mut self.scene);
                self.arm(player);
            }
            Due::Actor(player) => {
                if self.players[player].armed == Some(now) {
                    self.players[player].armed = None;
                    self.players[player].actor.handle_timeout(&mut self.scene);
                    self.arm(player);
                }
            }
            Due::Gateway => {
                if self.gateway_armed == Some(now) {
                    self.gateway_armed = None;
                    self.gateway.handle_timeout(now);
                    self.send_injected();
                }
            }
            Due::Daemon { lives: false } => {
                self.gateway.kill(now);
                self.blind_us.push((epoch_us(now), u64::MAX));
            }
            Due::Daemon { lives: true } => {
                self.gateway.start(now)?;
                if let Some((_, until)) = self.blind_us.last_mut() {
                    *until = epoch_us(now);
                }
            }
            Due::End => {}
        }
        Ok(())
    }

    /// Lets everybody hear of what happened and do what follows.
    fn react(&mut self) {
        loop {
            self.scene.sockets.settle(self.scene.now);
            while let Some(packet) = self.scene.sockets.poll_packet() {
                self.leave_host(packet);
            }
            while let Some((at, id)) = self.scene.sockets.poll_timer() {
                self.agenda.add(at, Due::Connection(id));
            }
            if let Some(arrival) = self.scene.sockets.poll_arrival() {
                let player = arrival.owner.actor;
                self.players[player].actor.handle(&mut self.scene, arrival);
                self.arm(player);
            } else if self.scene.pinged.len() > self.pinged_seen {
                self.pinged_seen = self.scene.pinged.len();
                self.wake_all();
            } else {
                return;
            }
        }
    }

    /// Somebody may have waited for the first ping of a host.
    fn wake_all(&mut self) {
        for player in 0..self.players.len() {
            if self.players[player].started {
                self.players[player].actor.handle_timeout(&mut self.scene);
                self.arm(player);
            }
        }
    }

    fn arm(&mut self, player: usize) {
        let (now, player_index) = (self.scene.now, player);
        let player = &mut self.players[player];
        let Some(due) = player.actor.poll_timeout(now) else {
            return;
        };
        let due = due.max(now + STEP);
        if player.armed.is_none_or(|armed| due < armed) {
            player.armed = Some(due);
            self.agenda.add(due, Due::Actor(player_index));
        }
    }

    fn arm_gateway(&mut self) {
        let Some(due) = self.gateway.poll_timeout() else {
            return;
        };
        let due = due.max(self.scene.now + STEP);
        if self.gateway_armed.is_none_or(|armed| due < armed) {
            self.gateway_armed = Some(due);
            self.agenda.add(due, Due::Gateway);
        }
    }

    fn consider_ending(&mut self) {
        if self.ending {
            return;
        }
        let mut inside = self.players.iter().filter(|player| player.host.is_some());
        if inside.all(|player| player.actor.is_done()) {
            self.ending = true;
            self.agenda.add(self.scene.now + SETTLING, Due::End);
        }
    }

    fn name_the_late(&mut self) {
        let late = self
            .players
            .iter()
            .filter(|player| player.host.is_some() && !player.actor.is_done())
            .map(|player| format!("{} did not end", player.who));
        self.mishaps.extend(late);
    }

    // --- the way of a packet ---

    fn leave_host(&mut self, packet: Vec<u8>) {
        self.packets += 1;
        let now = self.scene.now;
        let source = packet::source(&packet);
        if Office::LAN.contains(&source) {
            let transmitter = self.transmitters.entry(source).or_insert_with(|| {
                let sending = Duration::from_micros(self.draws.random_range(SENDING_US));
                Transmitter::new(sending)
            });
            let at = transmitter.take(now);
            if at > now {
                self.agenda.add(at, Due::Sends(packet));
            } else {
                self.enter_lan(packet);
            }
        } else {
            self.witnesses.see(now, false, false, &packet);
            match &mut self.wire {
                Some(wire) => {
                    wire.accept(now, false, &packet);
                    self.scene.sockets.recycle(packet);
                    self.arm_wire();
                }
                None => {
                    let at = self.wan[1].carry(now, packet.len());
                    let outward = false;
                    self.agenda.add_in_lane(
                        Lane::FromOutside,
                        at,
                        Due::AtGateway { outward, packet },
                    );
                }
            }
        }
    }

    fn enter_lan(&mut self, packet: Vec<u8>) {
        let at = self.lan[0].carry(self.scene.now, packet.len());
        let outward = true;
        self.agenda
            .add_in_lane(Lane::FromInside, at, Due::AtGateway { outward, packet });
    }

    fn arrive_at_gateway(&mut self, outward: bool, packet: Vec<u8>) {
        if outward {
            self.witnesses.see(self.scene.now, true, true, &packet);
        }
        if !packet::is_fragment(&packet) {
            self.cross(outward, packet, None);
            return;
        }
        if let Some(whole) = self.reassembler.take(&packet) {
            self.cross(outward, whole.packet, Some(whole.largest));
        }
    }

    fn cross(&mut self, outward: bool, mut packet: Vec<u8>, fragments: Option<usize>) {
        let now = self.scene.now;
        let from = if outward { Side::Inside } else { Side::Outside };
        let passes = self.gateway.forward(now, from, &mut packet) == Forward::Pass;
        self.send_injected();
        match (passes, fragments) {
            (false, _) => self.scene.sockets.recycle(packet),
            (true, None) => self.leave_gateway(outward, packet),
            // Linux sends on in pieces what came in pieces.
            (true, Some(size)) => {
                for piece in packet::fragments(&packet, size) {
                    self.leave_gateway(outward, piece);
                }
            }
        }
    }

    fn leave_gateway(&mut self, outward: bool, packet: Vec<u8>) {
        let now = self.scene.now;
        if !outward {
            self.witnesses.see(now, true, false, &packet);
            let at = self.lan[1].carry(now, packet.len());
            self.agenda
                .add_in_lane(Lane::ToInside, at, Due::AtHost(packet));
        } else if let Some(wire) = &mut self.wire {
            wire.accept(now, true, &packet);
            self.scene.sockets.recycle(packet);
            self.arm_wire();
        } else {
            let at = self.wan[0].carry(now, packet.len());
            self.agenda
                .add_in_lane(Lane::ToOutside, at, Due::Outside(packet));
        }
    }

    /// What the gateway says in a peer's name.
    fn send_injected(&mut self) {
        while let Some(packet) = self.gateway.poll_injected() {
            self.packets += 1;
            self.leave_gateway(false, packet);
        }
    }

    fn arm_wire(&mut self) {
        let Some(due) = self.wire.as_ref().and_then(Wire::next_due) else {
            return;
        };
        let due = due.max(self.scene.now);
        if self.wire_armed.is_none_or(|armed| due < armed) {
            self.wire_armed = Some(due);
            self.agenda.add(due, Due::Wire);
        }
    }

    fn hand_out_wire(&mut self) {
        let now = self.scene.now;
        if self.wire_armed.is_some_and(|armed| armed <= now) {
            self.wire_armed = None;
        }
        while let Some((outward, packet)) = self.wire.as_mut().and_then(|wire| wire.poll(now)) {
            if outward {
                self.witnesses.see(now, false, true, &packet);
                self.scene.sockets.receive(now, &packet);
            } else {
                self.arrive_at_gateway(false, packet);
            }
        }
        self.arm_wire();
    }

    // --- the end ---

    /// Ends what still runs and collects what everybody left.
    fn strike(mut self) -> Ran {
        let now = self.scene.now;
        self.gateway.stop(now);
        for player in self
            .players
            .iter_mut()
            .filter(|player| player.host.is_none())
        {
            player.actor.stop(&mut self.scene);
        }
        if self.scene.sockets.refused() > 0 {
            let refused = self.scene.sockets.refused();
            self.mishaps
                .push(format!("{refused} packets arrived malformed"));
        }
        let mut record = Record {
            began_us: epoch_us(Duration::ZERO),
            device_events: self.gateway.events(),
            mishaps: self.mishaps,
            ..Record::default()
        };
        record.evidence.ended_us = epoch_us(now);
        record.evidence.blind_us = self.blind_us;
        record.evidence.inside = self.witnesses.inside;
        record.evidence.outside = self.witnesses.outside;
        collect(self.players, &mut record);
        Ran {
            record,
            packets: self.packets,
        }
    }
}

/// Sets the stage's own draws apart from those of its actors, which share the seed. Takes are numbered
/// below it.
const SEED_OF_STAGE: u64 = 0x7374_6167_6500_0000;

/// Linux's own range; behind NAT each host has a range of its own, so that a port tells the host even
/// where its address does not.
fn port_range(scenario: &Scenario, number: usize) -> (u16, u16) {
    if !scenario.office.nat {
        return (32_768, 28_232);
    }
    let (first, count) = crate::stage::namespaces::NAT_PORTS;
    ((first + (number - 1) * count) as u16, count as u16)
}

fn epoch_us(now: Duration) -> u64 {
    micros(EPOCH + now)
}

/// Where the servers of the control group listen.
fn services(options: &ServerOptions) -> anyhow::Result<Vec<(Transport, Place)>> {
    // Named one by one: an option that is added must be dealt with here. How a server cuts its
    // answers is written down in the conversations, so that its seed draws nothing here.
    let ServerOptions {
        bind,
        seed: _,
        port_offset,
    } = options;
    anyhow::ensure!(
        *port_offset == 0,
        "--port-offset has no meaning in memory, where every port is free"
    );
    let place = |service: Service| {
        let (transport, port) = service.port();
        let transport = match transport {
            simulator::web::Transport::Tcp => Transport::Tcp,
            simulator::web::Transport::Udp => Transport::Udp,
        };
        let place = if service == Service::Game {
            Place::Everywhere(port)
        } else {
            Place::At(SocketAddrV4::new(*bind, port))
        };
        (transport, place)
    };
    Ok(Service::ALL.map(place).into())
}

impl Witnesses {
    fn see(&mut self, now: Duration, inside: bool, outward: bool, packet: &[u8]) {
        let concerns = |address: Ipv4Addr| Office::PEERS.contains(&address);
        if self.everything
            || concerns(packet::source(packet))
            || concerns(packet::destination(packet))
        {
            let frame = Frame {
                at_us: epoch_us(now),
                bytes: packet::frame(packet, outward),
            };
            if inside {
                &mut self.inside
            } else {
                &mut self.outside
            }
            .push(frame);
        }
    }
}

/// Takes everybody's report. Actors that share a name share a report.
fn collect(players: Vec<Player>, record: &mut Record) {
    let mut reports: Vec<(Option<String>, String, Vec<Line>)> = Vec::new();
    for mut player in players {
        let lines = player.actor.take_report();
        let same = |(host, who, _): &&mut (Option<String>, String, Vec<Line>)| {
            *host == player.host && *who == player.who
        };
        match reports.iter_mut().find(same) {
            Some((_, _, report)) => {
                report.extend(lines);
                report.sort_by_key(|line| (matches!(line.event, Event::Done { .. }), line.t_us));
            }
            None => reports.push((player.host, player.who, lines)),
        }
    }
    for (host, _, lines) in reports {
        match host {
            Some(host) => {
                let lines = lines.into_iter().map(|line| HostLine {
                    host: host.clone(),
                    line,
                });
                record.evidence.clients.extend(lines);
            }
            None => record.evidence.peers.extend(lines),
        }
    }
}
