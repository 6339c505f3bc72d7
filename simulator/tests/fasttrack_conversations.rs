//! Whole conversations between a client and the outside population, in virtual time: minutes of
//! traffic in milliseconds, the same on every machine.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::collections::{BTreeMap, BTreeSet};
use std::net::{SocketAddr, SocketAddrV4};
use std::time::Duration;

use simulator::client::{self, Client, ClientConfig};
use simulator::dialer::WEB_PORTS;
use simulator::peer::{self, ConnectionId, Peers, PeersConfig};
use simulator::population::Population;
use simulator::profile::{self, Profile};
use simulator::report::{AttemptId, AttemptKind, Event, Failure, Mode, Part};
use simulator::seed::Seed;

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

#[test]
fn every_profile_reaches_all_it_wants_through_an_open_gateway() {
    for profile in profile::PROFILES {
        for seed in 1..=5 {
            let mut world = World::new(profile, seed, Weather::Open);
            world.run(2 * MINUTE);
            assert!(
                world.client.has_made_contact(),
                "{} with seed {seed}",
                profile.name
            );
            assert_eq!(
                world.sessions() > 0,
                profile.joins(),
                "{} with seed {seed}",
                profile.name
            );
        }
    }
}

#[test]
fn gift_dials_five_peers_and_then_pings_ten_others() {
    let mut world = World::new(&profile::GIFT, 1, Weather::Silence);
    world.run(Duration::ZERO);
    let attempts = world.attempts();
    let kinds: Vec<_> = attempts.iter().map(|(kind, _)| *kind).collect();
    assert_eq!(
        kinds,
        [vec![AttemptKind::Dial; 5], vec![AttemptKind::Ping; 10]].concat()
    );
    let distinct: BTreeSet<_> = attempts.iter().map(|(_, peer)| peer).collect();
    assert_eq!(distinct.len(), 15);
}

#[test]
fn mldonkey_dials_fifteen_peers_at_once_and_then_pings_the_same_ones() {
    let mut world = World::new(&profile::MLDONKEY, 1, Weather::Silence);
    world.run(Duration::ZERO);
    let attempts = world.attempts();
    let (dials, pings) = attempts.split_at(15);
    assert!(dials.iter().all(|(kind, _)| *kind == AttemptKind::Dial));
    assert!(pings.iter().all(|(kind, _)| *kind == AttemptKind::Ping));
    assert_eq!(
        dials.iter().map(|(_, peer)| peer).collect::<Vec<_>>(),
        pings.iter().map(|(_, peer)| peer).collect::<Vec<_>>()
    );
}

#[test]
fn kazaa_floods_its_whole_cache_of_200_before_it_dials_anybody() {
    let mut world = World::of_population(&profile::KAZAA, 1, 400, Weather::Silence);
    world.run(SECOND);
    assert_eq!(world.attempts().len(), 200);
    assert!(
        world
            .attempts()
            .iter()
            .all(|(kind, _)| *kind == AttemptKind::Ping)
    );
}

#[test]
fn kazaa_dials_only_peers_that_answered_0x28() {
    let mut world = World::new(&profile::KAZAA, 1, Weather::Open);
    world.run(SECOND);
    let with_room: BTreeSet<SocketAddr> = world.received(Part::Pong);
    let dialled = world.peers_of(AttemptKind::Dial);
    assert!(!dialled.is_empty());
    assert!(dialled.is_subset(&with_room), "{dialled:?}");
}

#[test]
fn a_0x29_invites_gift_and_never_kazaa() {
    for (profile, invited) in [(&profile::GIFT, true), (&profile::KAZAA, false)] {
        let mut world = World::new(profile, 1, Weather::Silence);
        world.run(SECOND);
        let pinged = world
            .attempts()
            .iter()
            .rfind(|(kind, _)| *kind == AttemptKind::Ping)
            .unwrap()
            .1;
        world.forged_datagram(pinged, &[0x29, 0, 0, 0, 0x29, 1, 0, 0, 0, 0, 0, 0, 7]);
        world.run(16 * SECOND);
        assert_eq!(
            world.peers_of(AttemptKind::Dial).contains(&pinged),
            invited,
            "{}",
            profile.name
        );
    }
}

#[test]
fn an_answer_of_any_other_type_keeps_kazaa_pinging_and_invites_no_dial() {
    let mut world = World::new(&profile::KAZAA, 1, Weather::Silence);
    for _ in 0..6 {
        world.run(world.now + 10 * SECOND);
        let pinged = world.attempts()[0].1;
        world.forged_datagram(pinged, &[0x2b, 0, 0, 0, 0x29]);
    }
    assert_eq!(world.mode_changes(), []);
    assert!(world.peers_of(AttemptKind::Dial).is_empty());
}

#[test]
fn kazaa_without_udp_goes_from_flood_to_parallel_to_serial_to_port_80_and_round_again() {
    let mut world = World::new(&profile::KAZAA, 1, Weather::Silence);
    world.run(100 * SECOND);
    let modes = [
        Mode::ParallelTcp,
        Mode::SerialTcp,
        Mode::Port80,
        Mode::UdpFlood,
        Mode::ParallelTcp,
    ];
    assert_eq!(world.mode_changes(), modes);
}

#[test]
fn kazaa_goes_back_to_udp_as_soon_as_a_ping_is_answered() {
    let mut world = World::new(&profile::KAZAA, 1, Weather::Silence);
    world.run(30 * SECOND);
    assert_eq!(world.mode_changes(), [Mode::ParallelTcp]);
    let pinged = world.attempts()[0].1;
    world.forged_datagram(pinged, b"\x28\0\0\0\x29\0\x04\x06\x14\x32\0KaZaA\0");
    // The dials under way since second 20 end at 35 and make room.
    world.run(36 * SECOND);
    assert_eq!(world.mode_changes(), [Mode::ParallelTcp, Mode::UdpFlood]);
    assert!(world.peers_of(AttemptKind::Dial).contains(&pinged));
}

#[test]
fn kazaa_reaches_the_network_over_tcp_where_only_udp_is_stopped() {
    let mut world = World::new(&profile::KAZAA, 1, Weather::NoUdp);
    world.run(MINUTE);
    assert_eq!(world.mode_changes(), [Mode::ParallelTcp]);
    assert!(world.client.has_made_contact());
}

#[test]
fn the_silent_profile_sends_no_datagram_in_ten_blocked_minutes() {
    let mut world = World::new(&profile::SILENT, 1, Weather::Silence);
    world.run(10 * MINUTE);
    assert!(world.peers_of(AttemptKind::Ping).is_empty());
    assert!(world.peers_of(AttemptKind::Dial).len() > 50);
}

#[test]
fn the_sequential_profile_never_has_two_dials_under_way() {
    let mut world = World::new(&profile::SEQUENTIAL, 1, Weather::Silence);
    world.run(5 * MINUTE);
    assert_eq!(world.most_dials_at_once(), 1);
    assert_eq!(world.attempts().len(), 21, "one every 15 s");
}

#[test]
fn the_port_80_profile_dials_ports_80_and_443_and_no_other() {
    let mut world = World::new(&profile::PORT80, 1, Weather::Silence);
    world.run(MINUTE);
    let ports: BTreeSet<_> = world
        .peers_of(AttemptKind::Dial)
        .iter()
        .map(SocketAddr::port)
        .collect();
    assert_eq!(ports, BTreeSet::from(WEB_PORTS));
}

#[test]
fn the_port_hopper_changes_its_own_udp_port_each_round_and_others_keep_theirs() {
    for (profile, changes) in [(&profile::PORT_HOPPER, true), (&profile::KAZAA, false)] {
        let mut world = World::new(profile, 1, Weather::Silence);
        world.run(2 * MINUTE);
        let own: BTreeSet<_> = world.ping_sources();
        assert_eq!(own.len() > 1, changes, "{}", profile.name);
    }
}

#[test]
fn silent_drops_cost_gift_15_seconds_a_dial() {
    let mut world = World::new(&profile::GIFT, 1, Weather::Silence);
    world.run(MINUTE - SECOND);
    assert_eq!(world.dials(), 20);
    assert_eq!(world.most_dials_at_once(), 5);
}

#[test]
fn resets_make_gift_dial_at_once_up_to_the_bound_a_second() {
    let mut world = World::new(&profile::GIFT, 1, Weather::Resets);
    world.run(10 * SECOND - Duration::from_millis(1));
    assert_eq!(world.dials(), 10 * World::DIALS_PER_SECOND as usize);
}

#[test]
fn an_emptied_cache_starts_over_with_the_shipped_list() {
    let mut world = World::of_population(&profile::GIFT, 1, 12, Weather::Silence);
    world.run(MINUTE);
    let known = world.population.of_network(profile::GIFT.network).count();
    assert!(
        world.dials() > known,
        "{} dials, {known} shipped",
        world.dials()
    );
    assert!(world.peers_of(AttemptKind::Dial).len() <= known);
}

#[test]
fn mldonkey_leaves_a_failed_peer_alone_for_ten_minutes() {
    let mut world = World::of_population(&profile::MLDONKEY, 1, 20, Weather::Silence);
    let known = world
        .population
        .of_network(profile::MLDONKEY.network)
        .count();
    world.run(10 * MINUTE);
    assert_eq!(world.dials(), known);
    world.run(13 * MINUTE);
    assert!(world.dials() > known);
}

#[test]
fn who_joins_is_sent_a_node_list_of_1605_octets() {
    let mut world = World::new(&profile::SEQUENTIAL, 1, Weather::Open);
    world.run(SECOND);
    let list = world.events.iter().filter_map(|(_, event)| match event {
        Event::PeerSent {
            part: Part::Session,
            bytes,
            ..
        } => Some(*bytes),
        _ => None,
    });
    assert!(list.into_iter().any(|bytes| bytes == 1605));
}

#[test]
fn an_idle_session_speaks_one_byte_each_way_every_two_minutes() {
    let mut world = World::new(&profile::SEQUENTIAL, 1, Weather::Open);
    world.run(MINUTE);
    let before = world.events.len();
    world.run(5 * MINUTE);
    let payloads: Vec<_> = world.events[before..]
        .iter()
        .filter_map(|(_, event)| match event {
            Event::Sent { part, bytes, .. } | Event::Received { part, bytes, .. } => {
                Some((*part, *bytes))
            }
            _ => None,
        })
        .collect();
    assert_eq!(payloads, [(Part::Session, 1); 4]);
}

#[test]
fn every_client_answers_an_unsolicited_ping_with_13_octets() {
    for profile in profile::PROFILES {
        let mut world = World::new(profile, 1, Weather::Silence);
        world.run(SECOND);
        let stranger = "203.0.113.9:1214".parse().unwrap();
        world.forged_datagram(stranger, b"\x27\0\0\0\x29\x80KaZaA\0");
        world.run(2 * SECOND);
        let answered = world.events.iter().any(|(_, event)| {
            matches!(event, Event::UnsolicitedAnswered { remote, part: Part::Pong2, hex }
                if *remote == stranger && hex.len() == 26)
        });
        assert!(answered, "{}", profile.name);
    }
}

#[test]
fn a_download_from_known_sources_begins_with_an_odd_question_and_ends_with_the_file() {
    let mut world = World::new(&profile::HTTP_ONLY, 1, Weather::Open);
    world.run(MINUTE);
    let first = world.attempts()[0].1;
    let ended = |event: &Event| {
        matches!(
            event,
            Event::Failed {
                id: AttemptId(1),
                why: Failure::Closed
            }
        )
    };
    assert!(
        world.events.iter().any(|(_, event)| ended(event)),
        "{first} answers 501"
    );
    assert!(
        world
            .events
            .iter()
            .any(|(_, event)| matches!(event, Event::TransferDone { bytes: 16_384, .. }))
    );
}

#[test]
fn an_uploader_says_give_is_asked_by_get_and_serves_the_whole_file() {
    let mut world = World::new(&profile::UPLOADER, 1, Weather::Open);
    world.run(MINUTE);
    let parts: Vec<_> = world
        .events
        .iter()
        .filter_map(|(_, event)| match event {
            Event::Sent {
                id: AttemptId(1),
                part,
                ..
            } => Some((">", *part)),
            Event::Received {
                id: AttemptId(1),
                part,
                ..
            } => Some(("<", *part)),
            _ => None,
        })
        .collect();
    assert_eq!(
        parts,
        [
            (">", Part::Give),
            ("<", Part::Request),
            (">", Part::Response),
            (">", Part::File)
        ]
    );
    assert!(world.client.has_made_contact());
}

#[test]
fn forged_pings_go_to_the_addresses_given_and_repeat() {
    let bank: SocketAddrV4 = "203.0.113.7:443".parse().unwrap();
    let mut world = World::new(&profile::SILENT, 1, Weather::Silence);
    world.client = World::client(&world.population, &profile::SILENT, 1, vec![bank]);
    world.run(MINUTE);
    assert_eq!(
        world.peers_of(AttemptKind::Ping),
        BTreeSet::from([SocketAddr::V4(bank)])
    );
    assert!(
        world
            .attempts()
            .iter()
            .filter(|(kind, _)| *kind == AttemptKind::Ping)
            .count()
            >= 3
    );
}

#[test]
fn no_two_peers_send_the_same_pong() {
    let mut world = World::new(&profile::KAZAA, 1, Weather::Open);
    world.run(SECOND);
    let pongs: Vec<_> = world
        .events
        .iter()
        .filter_map(|(_, event)| match event {
            Event::PeerSentDatagram {
                part: Part::Pong,
                hex,
                ..
            } => Some(hex),
            _ => None,
        })
        .collect();
    let distinct: BTreeSet<_> = pongs.iter().collect();
    assert!(pongs.len() > 100);
    assert_eq!(distinct.len(), pongs.len());
}

#[test]
fn a_peer_that_resets_completes_no_conversation_and_answers_no_ping() {
    let mut world = World::new(&profile::GIFT, 1, Weather::Open);
    world.peers = Peers::new(PeersConfig {
        reset: true,
        ..World::peers_config(&world.population)
    });
    world.run(5 * SECOND);
    let heard = |event: &Event| {
        matches!(
            event,
            Event::Received { .. } | Event::PeerSentDatagram { .. }
        )
    };
    assert!(!world.events.iter().any(|(_, event)| heard(event)));
    assert!(
        world
            .events
            .iter()
            .any(|(_, event)| matches!(event, Event::PeerConnected { .. }))
    );
}

#[test]
fn three_octets_of_a_cut_opener_are_reported_when_the_connection_ends() {
    let population = World::population(1, 200);
    let peer = population.peers()[0].address;
    let mut peers = Peers::new(World::peers_config(&population));
    let caller = "10.77.1.1:40000".parse().unwrap();
    peers.handle_connected(Duration::ZERO, ConnectionId(1), peer, caller);
    peers.handle_data(Duration::ZERO, ConnectionId(1), &[1, 2, 3]);
    peers.handle_shutdown();
    let reports: Vec<_> = std::iter::from_fn(|| peers.poll_output()).collect();
    let expected = Event::PeerReceived {
        local: peer.into(),
        remote: caller.into(),
        part: Part::Other,
        bytes: 3,
    };
    assert!(reports.contains(&peer::Output::Report(expected)));
}

/// What lies between the client and the peers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Weather {
    Open,
    NoUdp,
    /// Nothing gets through and nothing is said.
    Silence,
    /// Dials are reset at once, datagrams vanish.
    Resets,
}

/// A client, the population, and a network with a fixed delay.
struct World {
    population: Population,
    client: Client,
    peers: Peers,
    weather: Weather,
    now: Duration,
    started: bool,
    under_way: BTreeMap<(Duration, u64), Delivery>,
    sequence: u64,
    udp_port: u16,
    tcp_port: u16,
    remotes: BTreeMap<AttemptId, (SocketAddrV4, SocketAddrV4)>,
    events: Vec<(Duration, Event)>,
}

enum Delivery {
    ToPeer {
        peer: SocketAddrV4,
        payload: Vec<u8>,
    },
    ToClient {
        from: SocketAddrV4,
        payload: Vec<u8>,
    },
    Connected(AttemptId),
    DataToPeer(AttemptId, Vec<u8>),
    DataToClient(AttemptId, Vec<u8>),
    EndAtPeer(AttemptId),
    EndAtClient(AttemptId, Failure),
}

impl World {
    const DELAY: Duration = Duration::from_millis(10);
    const DIALS_PER_SECOND: u32 = 50;

    fn new(profile: &Profile, seed: u64, weather: Weather) -> Self {
        Self::of_population(profile, seed, 200, weather)
    }

    fn of_population(profile: &Profile, seed: u64, count: usize, weather: Weather) -> Self {
        let population = Self::population(seed, count);
        Self {
            client: Self::client(&population, profile, seed, Vec::new()),
            peers: Peers::new(Self::peers_config(&population)),
            population,
            weather,
            now: Duration::ZERO,
            started: false,
            under_way: BTreeMap::new(),
            sequence: 0,
            udp_port: 2345,
            tcp_port: 30_000,
            remotes: BTreeMap::new(),
            events: Vec::new(),
        }
    }

    fn population(seed: u64, count: usize) -> Population {
        Population::generate(seed, count, "198.18.0.0/15".parse().unwrap()).unwrap()
    }

    fn client(
        population: &Population,
        profile: &Profile,
        seed: u64,
        forge_pings: Vec<SocketAddrV4>,
    ) -> Client {
        let config = ClientConfig {
            profile: profile.clone(),
            time_scale: 1.0,
            seed: Seed(seed),
            address: "10.77.1.1".parse().unwrap(),
            transfer_port: None,
            web_ports: WEB_PORTS,
            dials_per_second: Self::DIALS_PER_SECOND,
            forge_pings,
        };
        Client::new(config, population)
    }

    fn peers_config(population: &Population) -> PeersConfig {
        PeersConfig {
            population: population.clone(),
            time_scale: 1.0,
            seed: Seed(9),
            reset: false,
        }
    }

    /// Runs until an instant, everything due at it included.
    fn run(&mut self, until: Duration) {
        if !self.started {
            self.started = true;
            self.client
                .handle_udp_bound(self.now, self.udp_local().into());
            self.client.handle_timeout(self.now);
        }
        loop {
            self.drain();
            let delivery = self.under_way.keys().next().map(|(at, _)| *at);
            let timeouts = self
                .client
                .poll_timeout(self.now)
                .into_iter()
                .chain(self.peers.poll_timeout());
            let Some(next) = timeouts.chain(delivery).min().filter(|next| *next <= until) else {
                break;
            };
            self.now = self.now.max(next);
            match delivery.filter(|at| *at <= self.now) {
                Some(_) => self.deliver(),
                None => {
                    self.client.handle_timeout(self.now);
                    self.peers.handle_timeout(self.now);
                }
            }
        }
        self.now = until;
    }

    /// A datagram that no peer sent.
    fn forged_datagram(&mut self, from: SocketAddr, payload: &[u8]) {
        let SocketAddr::V4(from) = from else {
            panic!("FastTrack is IPv4 only")
        };
        self.client.handle_datagram(self.now, from, payload);
    }

    fn udp_local(&self) -> SocketAddrV4 {
        SocketAddrV4::new("10.77.1.1".parse().unwrap(), self.udp_port)
    }

    fn schedule(&mut self, delivery: Delivery) {
        self.sequence += 1;
        self.under_way
            .insert((self.now + Self::DELAY, self.sequence), delivery);
    }

    fn drain(&mut self) {
        while let Some(output) = self.client.poll_output() {
            self.take_client_output(output);
        }
        while let Some(output) = self.peers.poll_output() {
            self.take_peers_output(output);
        }
    }

    fn take_client_output(&mut self, output: client::Output) {
        match output {
            client::Output::Report(event) => self.events.push((self.now, event)),
            client::Output::Datagram { to, payload, .. } => {
                if self.weather == Weather::Open {
                    self.schedule(Delivery::ToPeer { peer: to, payload });
                }
            }
            client::Output::ChangeUdpPort => {
                self.udp_port += 1;
                self.client
                    .handle_udp_bound(self.now, self.udp_local().into());
            }
            client::Output::Dial { id, peer } => {
                self.tcp_port += 1;
                let local = SocketAddrV4::new(*self.udp_local().ip(), self.tcp_port);
                let attempt = self.client.handle_bound(id, local.into());
                self.events.extend(attempt.map(|event| (self.now, event)));
                self.remotes.insert(id, (peer, local));
                match self.weather {
                    Weather::Open | Weather::NoUdp => self.schedule(Delivery::Connected(id)),
                    Weather::Silence => {}
                    Weather::Resets => self.schedule(Delivery::EndAtClient(id, Failure::Reset)),
                }
            }
            client::Output::Send { id, part, bytes } => {
                self.events.push((
                    self.now,
                    Event::Sent {
                        id,
                        part,
                        bytes: bytes.len() as u64,
                    },
                ));
                self.schedule(Delivery::DataToPeer(id, bytes));
            }
            client::Output::Close { id } | client::Output::Abort { id } => {
                self.schedule(Delivery::EndAtPeer(id));
            }
        }
    }

    fn take_peers_output(&mut self, output: peer::Output) {
        match output {
            peer::Output::Report(event) => self.events.push((self.now, event)),
            peer::Output::Datagram { from, payload, .. } => {
                self.schedule(Delivery::ToClient { from, payload });
            }
            peer::Output::Send { id, part, bytes } => {
                let (local, remote) = self.remotes[&AttemptId(id.0)];
                let (local, remote, len) = (local.into(), remote.into(), bytes.len() as u64);
                self.events.push((
                    self.now,
                    Event::PeerSent {
                        local,
                        remote,
                        part,
                        bytes: len,
                    },
                ));
                self.schedule(Delivery::DataToClient(AttemptId(id.0), bytes));
            }
            peer::Output::Close { id } => {
                self.schedule(Delivery::EndAtClient(AttemptId(id.0), Failure::Closed));
            }
            peer::Output::Abort { id } => {
                self.schedule(Delivery::EndAtClient(AttemptId(id.0), Failure::Reset));
            }
        }
    }

    fn deliver(&mut self) {
        let Some((_, delivery)) = self.under_way.pop_first() else {
            return;
        };
        match delivery {
            Delivery::ToPeer { peer, payload } => {
                self.peers
                    .handle_datagram(self.now, peer, self.udp_local(), &payload);
            }
            Delivery::ToClient { from, payload } => {
                self.client.handle_datagram(self.now, from, &payload);
            }
            Delivery::Connected(id) => {
                let (peer, local) = self.remotes[&id];
                self.peers
                    .handle_connected(self.now, ConnectionId(id.0), peer, local);
                self.client.handle_connected(self.now, id);
            }
            Delivery::DataToPeer(id, bytes) => {
                self.peers.handle_data(self.now, ConnectionId(id.0), &bytes);
            }
            Delivery::DataToClient(id, bytes) => self.client.handle_data(self.now, id, &bytes),
            Delivery::EndAtPeer(id) => self.peers.handle_closed(ConnectionId(id.0)),
            Delivery::EndAtClient(id, why) => {
                self.client.handle_closed(self.now, id, why);
                self.schedule(Delivery::EndAtPeer(id));
            }
        }
    }

    fn attempts(&self) -> Vec<(AttemptKind, SocketAddr)> {
        let attempt = |(_, event): &(Duration, Event)| match event {
            Event::Attempt { kind, peer, .. } => Some((*kind, *peer)),
            _ => None,
        };
        self.events.iter().filter_map(attempt).collect()
    }

    fn dials(&self) -> usize {
        self.attempts()
            .iter()
            .filter(|(kind, _)| *kind == AttemptKind::Dial)
            .count()
    }

    fn peers_of(&self, wanted: AttemptKind) -> BTreeSet<SocketAddr> {
        self.attempts()
            .into_iter()
            .filter(|(kind, _)| *kind == wanted)
            .map(|(_, peer)| peer)
            .collect()
    }

    /// Whom the client heard a part of a conversation from.
    fn received(&self, wanted: Part) -> BTreeSet<SocketAddr> {
        let peers: BTreeMap<_, _> = self
            .events
            .iter()
            .filter_map(|(_, event)| match event {
                Event::Attempt { id, peer, .. } => Some((*id, *peer)),
                _ => None,
            })
            .collect();
        let heard = |(_, event): &(Duration, Event)| match event {
            Event::Received { id, part, .. } if *part == wanted => Some(peers[id]),
            _ => None,
        };
        self.events.iter().filter_map(heard).collect()
    }

    fn ping_sources(&self) -> BTreeSet<SocketAddr> {
        let source = |(_, event): &(Duration, Event)| match event {
            Event::Attempt {
                kind: AttemptKind::Ping,
                local,
                ..
            } => Some(*local),
            _ => None,
        };
        self.events.iter().filter_map(source).collect()
    }

    fn mode_changes(&self) -> Vec<Mode> {
        let change = |(_, event): &(Duration, Event)| match event {
            Event::ModeChanged { to, .. } => Some(*to),
            _ => None,
        };
        self.events.iter().filter_map(change).collect()
    }

    fn sessions(&self) -> usize {
        self.events
            .iter()
            .filter(|(_, event)| matches!(event, Event::SessionUp { .. }))
            .count()
    }

    fn most_dials_at_once(&self) -> usize {
        let mut pending = BTreeSet::new();
        let mut most = 0;
        for (_, event) in &self.events {
            match event {
                Event::Attempt {
                    id,
                    kind: AttemptKind::Dial,
                    ..
                } => {
                    pending.insert(*id);
                }
                Event::Failed { id, .. } | Event::SessionUp { id } => {
                    pending.remove(id);
                }
                _ => {}
            }
            most = most.max(pending.len());
        }
        most
    }
}
