//! The control group on loopback: every kind of request passes, an altered answer never does, and
//! a server that is not there costs one timeout and no more.

use std::collections::BTreeSet;
use std::collections::btree_map::{BTreeMap, Entry};
use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, UdpSocket};
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use simulator::clock::Clock;
use simulator::report::{Event, Line};
use simulator::reporter::{DoneReason, Reporter};
use simulator::web::{
    ClientOptions, Kind, KindList, ServerOptions, Service, Transport, browse, serve,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

const LOCALHOST: Ipv4Addr = Ipv4Addr::LOCALHOST;

// --- every kind passes ---

/// One test for each kind, and a list of the kinds that have one.
macro_rules! each_kind_passes {
    ($($sentence:ident: $kind:ident,)*) => {
        const TESTED: &[Kind] = &[$(Kind::$kind),*];
        $(
            #[tokio::test]
            async fn $sentence() {
                passes(Kind::$kind).await;
            }
        )*
    };
}

each_kind_passes! {
    a_page_arrives_over_http1: Http1,
    several_pages_arrive_over_one_connection: HttpKeepAlive,
    a_download_arrives_whole: HttpBytes,
    a_path_of_digits_is_an_ordinary_path: HttpDigits,
    a_path_with_a_leading_dot_is_an_ordinary_path: HttpWellKnown,
    a_head_of_several_segments_is_understood: HttpLargeHead,
    a_head_in_two_writes_is_understood: HttpSplitHead,
    http10_is_answered_to_its_end: Http10,
    an_upload_is_compared_by_the_server: HttpPost,
    a_page_about_kazaa_arrives_like_any_other: PageAboutKazaa,
    a_page_about_kazaa_can_be_uploaded: UploadAboutKazaa,
    http1_runs_over_tls_1_2: TlsH1,
    http2_runs_over_tls_1_3_with_several_streams: TlsH2,
    a_download_arrives_over_quic: Quic,
    dns_answers_over_udp: DnsUdp,
    dns_answers_over_tcp: DnsTcp,
    ssh_exchanges_banners_and_offers: SshBanner,
    smtp_takes_a_mail: SmtpBanner,
    ntp_tells_the_time: Ntp,
    stun_tells_the_own_address: Stun,
    a_game_reaches_32_addresses_from_one_socket: GameFanOut,
    openvpn_shakes_hands: OpenvpnUdp,
    modbus_reads_registers: Modbus,
    nomachine_greets_and_goes_on_in_tls: Nomachine,
    bfcp_acknowledges_a_hello: Bfcp,
    socks4_grants_and_relays: Socks4,
}

#[test]
fn every_kind_in_the_list_has_a_test() {
    assert_eq!(TESTED, Kind::all());
}

/// Three requests with draws of their own arrive whole, and the report says so.
async fn passes(kind: Kind) {
    let ports = Ports::claim();
    let _server = Server::start(&ports, LOCALHOST).await;
    let options = ClientOptions {
        requests: 3.try_into().ok(),
        ..ports.client(&[kind])
    };
    let outcome = run(options).await;
    assert_eq!(outcome.reason, DoneReason::Requests);
    assert_eq!(outcome.results.len(), 3);
    for result in &outcome.results {
        assert!(result.ok && result.error.is_none(), "{result:?}");
        assert!(result.bytes > 0 && result.micros > 0, "{result:?}");
        assert_eq!(result.kind, kind.name());
    }
}

// --- altered, missing, silent ---

#[tokio::test]
async fn an_answer_altered_on_its_way_is_never_ok() {
    let outcome = through_a_relay(flip_last_octet).await;
    assert_eq!(outcome.results.len(), Kind::all().len());
    for result in &outcome.results {
        assert!(!result.ok && result.error.is_some(), "{result:?}");
    }
}

#[tokio::test]
async fn an_unaltered_answer_passes_through_the_same_relay() {
    let outcome = through_a_relay(|_| {}).await;
    assert_eq!(outcome.failures(), Vec::<&WebResult>::new());
    assert_eq!(outcome.results.len(), Kind::all().len());
}

#[tokio::test]
async fn a_server_that_never_answers_costs_one_timeout() {
    let ports = Ports::claim();
    let _silent = silent_sockets(&ports);
    let timeout = Duration::from_millis(700);
    let options = ClientOptions {
        timeout,
        ..ports.client(Kind::all())
    };
    for result in run(options).await.results {
        assert_eq!(
            result.error.as_deref(),
            Some("timed out after 700ms"),
            "{result:?}"
        );
        assert!((700_000..3_000_000).contains(&result.micros), "{result:?}");
        assert!(!result.ok && result.bytes == 0, "{result:?}");
    }
}

#[tokio::test]
async fn a_server_that_is_not_there_is_reported_and_the_next_request_is_made() {
    let ports = Ports::claim();
    let options = ClientOptions {
        requests: 2.try_into().ok(),
        ..ports.client(&[Kind::Http1])
    };
    let results = run(options).await.results;
    assert_eq!(results.len(), 2);
    for result in results {
        let error = result.error.unwrap();
        assert!(
            !result.ok && error.contains("cannot connect to 127.0.0.1:"),
            "{error}"
        );
    }
}

// --- the server's sockets ---

#[tokio::test]
async fn a_port_that_is_taken_is_named_with_a_remedy() {
    let ports = Ports::claim();
    let taken = ports.at(LOCALHOST, Service::Smtp);
    let _holder = TcpListener::bind(taken).unwrap();
    let (reporter, mut lines) = report("server");
    let error = serve(ports.server(LOCALHOST), reporter)
        .await
        .unwrap_err()
        .to_string();
    assert!(error.contains(&format!("TCP {taken} (Smtp)")), "{error}");
    assert!(
        error.contains("stop the program that holds the port"),
        "{error}"
    );
    assert!(lines.recv().await.is_none(), "nothing is ready");
}

#[tokio::test]
async fn a_foreign_address_is_named_with_a_remedy() {
    let ports = Ports::claim();
    let (reporter, _lines) = report("server");
    let foreign = Ipv4Addr::new(192, 0, 2, 77);
    let error = serve(ports.server(foreign), reporter)
        .await
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("192.0.2.77") && error.contains("another --bind"),
        "{error}"
    );
}

#[tokio::test]
async fn a_wildcard_server_answers_from_the_address_that_was_asked() {
    let ports = Ports::claim();
    let _server = Server::start(&ports, Ipv4Addr::UNSPECIFIED).await;
    let server = Ipv4Addr::new(127, 0, 0, 99);
    let outcome = run(ClientOptions {
        server,
        ..ports.client(Kind::all())
    })
    .await;
    assert_eq!(outcome.failures(), Vec::<&WebResult>::new());
}

#[tokio::test]
async fn the_server_takes_its_own_address_beside_a_wildcard_listener() {
    let ports = Ports::claim();
    let _peers = wildcard_listener(&ports, Service::Http);
    let _server = Server::start(&ports, LOCALHOST).await;
    let outcome = run(ports.client(&[Kind::Http1])).await;
    assert_eq!(outcome.failures(), Vec::<&WebResult>::new());
}

// --- the client's schedule ---

#[tokio::test]
async fn every_request_has_a_number_and_exactly_one_result() {
    let ports = Ports::claim();
    let _server = Server::start(&ports, LOCALHOST).await;
    let requests = 40.try_into().ok();
    let kinds = [Kind::Http1, Kind::Ntp, Kind::DnsUdp];
    let outcome = run(ClientOptions {
        requests,
        ..ports.client(&kinds)
    })
    .await;
    assert_eq!(outcome.begun, (1..=40).collect::<Vec<_>>());
    let mut ended: Vec<_> = outcome.results.iter().map(|result| result.id).collect();
    ended.sort_unstable();
    assert_eq!(ended, outcome.begun);
}

#[tokio::test]
async fn no_request_begins_once_the_time_is_up() {
    let ports = Ports::claim();
    let _server = Server::start(&ports, LOCALHOST).await;
    let options = ClientOptions {
        duration: Some(Duration::from_millis(300)),
        interval: Duration::from_millis(20),
        ..ports.client(&[Kind::Ntp])
    };
    let outcome = run(options).await;
    assert_eq!(outcome.reason, DoneReason::Duration);
    assert!(
        (2..=16).contains(&outcome.begun.len()),
        "{} requests",
        outcome.begun.len()
    );
    assert_eq!(outcome.results.len(), outcome.begun.len());
}

#[tokio::test]
async fn the_same_seed_asks_for_the_same_things() {
    let ports = Ports::claim();
    let _server = Server::start(&ports, LOCALHOST).await;
    let sizes = async |seed| {
        let requests = 4.try_into().ok();
        let options = ClientOptions {
            seed,
            requests,
            ..ports.client(&[Kind::HttpBytes])
        };
        let mut results = run(options).await.results;
        results.sort_by_key(|result| result.id);
        results
            .iter()
            .map(|result| result.bytes)
            .collect::<Vec<_>>()
    };
    let first = sizes(7).await;
    assert_eq!(first, sizes(7).await);
    assert_ne!(first, sizes(8).await);
}

// --- helpers: ports ---

/// Offsets are multiples of this, under which all ports in use differ: two offsets never share one.
const STRIDE: u16 = 37;

/// No service listens here; who holds it holds the offset.
const CLAIM_PORT: u16 = 1;

/// Why the tests' own sockets can be bound.
const CLAIMED: &str = "the port was claimed";

/// A port offset that no other test uses, in this process or another.
struct Ports {
    offset: u16,
    _claim: UdpSocket,
}

impl Ports {
    /// Offsets that keep every port above the privileged and below the ephemeral ones.
    fn claim() -> Self {
        let first = std::process::id() as usize;
        let offsets: Vec<u16> = (5_000 / STRIDE..28_000 / STRIDE)
            .map(|n| n * STRIDE)
            .collect();
        let turn = offsets
            .iter()
            .cycle()
            .skip(first % offsets.len())
            .take(offsets.len());
        turn.copied()
            .find_map(Self::try_claim)
            .expect("some offset is free")
    }

    fn try_claim(offset: u16) -> Option<Self> {
        let claim = UdpSocket::bind((LOCALHOST, CLAIM_PORT + offset)).ok()?;
        let ports = Self {
            offset,
            _claim: claim,
        };
        Service::ALL
            .iter()
            .all(|service| ports.is_free(*service))
            .then_some(ports)
    }

    fn is_free(&self, service: Service) -> bool {
        let local = self.at(Ipv4Addr::UNSPECIFIED, service);
        match service.port().0 {
            Transport::Tcp => TcpListener::bind(local).is_ok(),
            Transport::Udp => UdpSocket::bind(local).is_ok(),
        }
    }

    fn at(&self, address: Ipv4Addr, service: Service) -> SocketAddrV4 {
        SocketAddrV4::new(address, service.port().1 + self.offset)
    }

    fn server(&self, bind: Ipv4Addr) -> ServerOptions {
        ServerOptions {
            bind,
            seed: 1,
            port_offset: self.offset,
        }
    }

    /// Options that ask for each of `kinds` once, without waiting in between.
    fn client(&self, kinds: &[Kind]) -> ClientOptions {
        ClientOptions {
            kinds: KindList(kinds.to_vec()),
            interval: Duration::ZERO,
            concurrency: NonZeroUsize::new(32).expect("32 is not 0"),
            port_offset: self.offset,
            ..ClientOptions::new(LOCALHOST, LOCALHOST)
        }
    }
}

#[test]
fn no_two_port_offsets_share_a_port() {
    let ports = Service::ALL
        .iter()
        .map(|service| service.port().1)
        .chain([CLAIM_PORT]);
    let distinct: BTreeSet<u16> = ports.collect();
    let residues: BTreeSet<u16> = distinct.iter().map(|port| port % STRIDE).collect();
    assert_eq!(distinct.len(), residues.len());
}

// --- helpers: both ends ---

/// A server that has said it is ready, until dropped.
struct Server {
    _task: JoinSet<()>,
}

impl Server {
    async fn start(ports: &Ports, bind: Ipv4Addr) -> Self {
        let (reporter, mut lines) = report("server");
        let options = ports.server(bind);
        let mut task = JoinSet::new();
        task.spawn(async move {
            let ended = serve(options, reporter).await;
            panic!("the server ended: {ended:?}");
        });
        assert_eq!(
            lines.recv().await.expect("the server starts").event,
            Event::Ready
        );
        Self { _task: task }
    }
}

/// What a client's report says.
struct Outcome {
    reason: DoneReason,
    begun: Vec<u64>,
    results: Vec<WebResult>,
}

impl Outcome {
    fn failures(&self) -> Vec<&WebResult> {
        self.results.iter().filter(|result| !result.ok).collect()
    }
}

#[derive(Debug, PartialEq)]
struct WebResult {
    id: u64,
    kind: String,
    ok: bool,
    micros: u64,
    bytes: u64,
    error: Option<String>,
}

/// Runs a client to its end and reads its report.
async fn run(options: ClientOptions) -> Outcome {
    let (reporter, mut lines) = report("client");
    let reason = browse(options, reporter).await.expect("the client starts");
    let mut outcome = Outcome {
        reason,
        begun: Vec::new(),
        results: Vec::new(),
    };
    assert_eq!(
        lines.recv().await.expect("a client says it is ready").event,
        Event::Ready
    );
    while let Some(line) = lines.recv().await {
        match line.event {
            Event::WebRequest { id, .. } => outcome.begun.push(id.0),
            Event::WebResult {
                id,
                kind,
                ok,
                micros,
                bytes,
                error,
            } => {
                outcome.results.push(WebResult {
                    id: id.0,
                    kind,
                    ok,
                    micros,
                    bytes,
                    error,
                });
            }
            other => panic!("not a line of a browsing client: {other:?}"),
        }
    }
    outcome
}

/// A reporter and the lines it writes.
fn report(who: &str) -> (Reporter, mpsc::UnboundedReceiver<Line>) {
    let (lines, receiver) = mpsc::unbounded_channel();
    (
        Reporter::new(who, Clock::start(), LineSink(Mutex::new(lines))),
        receiver,
    )
}

/// Hands on every line written to it; a reporter writes whole lines.
struct LineSink(Mutex<mpsc::UnboundedSender<Line>>);

impl Write for LineSink {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        let line = serde_json::from_slice(text).expect("a report line is JSON");
        // Nobody has to listen to the end.
        let _ = self.0.get_mut().expect("nobody panics with it").send(line);
        Ok(text.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

// --- helpers: things in between ---

/// Something that is done to octets on their way to the client.
type Alteration = fn(&mut [u8]);

fn flip_last_octet(octets: &mut [u8]) {
    if let Some(last) = octets.last_mut() {
        *last ^= 1;
    }
}

/// Every kind once, through a relay in front of the server.
async fn through_a_relay(alter: Alteration) -> Outcome {
    let (behind, front) = (Ports::claim(), Ports::claim());
    let _server = Server::start(&behind, LOCALHOST).await;
    let mut relays = JoinSet::new();
    for service in Service::ALL {
        for address in addresses_of(service) {
            let (from, to) = (front.at(address, service), behind.at(address, service));
            match service.port().0 {
                Transport::Tcp => relays.spawn(relay_tcp(listen(from).await, to, alter)),
                Transport::Udp => relays.spawn(relay_udp(bind(from).await, to, alter)),
            };
        }
    }
    run(ClientOptions {
        timeout: Duration::from_secs(4),
        ..front.client(Kind::all())
    })
    .await
}

/// Where clients look for a service on loopback.
fn addresses_of(service: Service) -> Vec<Ipv4Addr> {
    match service {
        Service::Game => (1..=254)
            .map(|host| Ipv4Addr::new(127, 0, 0, host))
            .collect(),
        _ => vec![LOCALHOST],
    }
}

async fn listen(local: SocketAddrV4) -> tokio::net::TcpListener {
    tokio::net::TcpListener::bind(local).await.expect(CLAIMED)
}

async fn bind(local: SocketAddrV4) -> tokio::net::UdpSocket {
    tokio::net::UdpSocket::bind(local).await.expect(CLAIMED)
}

async fn relay_tcp(listener: tokio::net::TcpListener, to: SocketAddrV4, alter: Alteration) {
    let mut connections = JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        let server = tokio::net::TcpStream::connect(to)
            .await
            .expect("the server is up");
        let (from_client, to_client) = client.into_split();
        let (from_server, to_server) = server.into_split();
        connections.spawn(pump(from_client, to_server, |_| {}));
        connections.spawn(pump(from_server, to_client, alter));
    }
}

async fn pump(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    alter: Alteration,
) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        alter(&mut buffer[..length]);
        if to.write_all(&buffer[..length]).await.is_err() {
            return;
        }
    }
}

/// Relays datagrams, with a socket of its own towards the server for each client.
async fn relay_udp(front: tokio::net::UdpSocket, to: SocketAddrV4, alter: Alteration) {
    let front = Arc::new(front);
    let mut clients = BTreeMap::new();
    let mut answers = JoinSet::new();
    let mut buffer = vec![0; 64 * 1024];
    while let Ok((length, client)) = front.recv_from(&mut buffer).await {
        let server = match clients.entry(client) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(new) => {
                let server = Arc::new(bind(SocketAddrV4::new(LOCALHOST, 0)).await);
                server.connect(to).await.expect("loopback is reachable");
                answers.spawn(pump_datagrams(server.clone(), front.clone(), client, alter));
                new.insert(server)
            }
        };
        server
            .send(&buffer[..length])
            .await
            .expect("loopback is reachable");
    }
}

async fn pump_datagrams(
    server: Arc<tokio::net::UdpSocket>,
    front: Arc<tokio::net::UdpSocket>,
    client: std::net::SocketAddr,
    alter: Alteration,
) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(length) = server.recv(&mut buffer).await {
        alter(&mut buffer[..length]);
        if front.send_to(&buffer[..length], client).await.is_err() {
            return;
        }
    }
}

/// Sockets that take everything and say nothing.
fn silent_sockets(ports: &Ports) -> (Vec<TcpListener>, Vec<UdpSocket>) {
    let (tcp, udp): (Vec<Service>, _) = Service::ALL
        .iter()
        .partition(|service| service.port().0 == Transport::Tcp);
    let everywhere = |service: &Service| ports.at(Ipv4Addr::UNSPECIFIED, *service);
    (
        tcp.iter()
            .map(|service| TcpListener::bind(everywhere(service)).expect(CLAIMED))
            .collect(),
        udp.iter()
            .map(|service| UdpSocket::bind(everywhere(service)).expect(CLAIMED))
            .collect(),
    )
}

/// A listener as the outside peers have it: every address of one port, shared with its own kind.
fn wildcard_listener(ports: &Ports, service: Service) -> tokio::net::TcpListener {
    let everywhere = ports.at(Ipv4Addr::UNSPECIFIED, service).into();
    let listen = || {
        let socket = tokio::net::TcpSocket::new_v4()?;
        socket.set_reuseaddr(true)?;
        socket.set_reuseport(true)?;
        socket.bind(everywhere)?;
        socket.listen(16)
    };
    listen().expect(CLAIMED)
}
