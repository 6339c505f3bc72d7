//! The client: makes the requests asked for, one at a time or a few at once, and reports each.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};
use std::num::{NonZeroU64, NonZeroUsize};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow};
use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio::net::{TcpSocket, UdpSocket};
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

use super::kind::{Kind, KindList, Service};
use super::server::MAX_OFFSET;
use super::stream::{Counted, Received};
use super::{
    bfcp, dns, game, http, modbus, nomachine, ntp, openvpn, quic, raw_http, smtp, socks, ssh, stun,
    tls,
};
use crate::report::{Event, RequestId};
use crate::reporter::{DoneReason, Reporter};

/// Options of the client.
#[derive(Debug, Clone, clap::Args)]
pub struct ClientOptions {
    /// Own address.
    #[arg(long, value_name = "IP")]
    pub bind: Ipv4Addr,
    /// The server's address.
    #[arg(long, value_name = "IP")]
    pub server: Ipv4Addr,
    /// Seed of every draw: names, sizes, message ids.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,
    /// What to ask for, in turn: all, or names with commas between them.
    #[arg(long, value_name = "KINDS", default_value_t)]
    pub kinds: KindList,
    /// Number of requests; without it and --duration, each kind once.
    #[arg(long, value_name = "N")]
    pub requests: Option<NonZeroU64>,
    /// How long to begin new requests.
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    pub duration: Option<Duration>,
    /// Time between the beginnings of two requests.
    #[arg(long, value_name = "TIME", default_value = "50ms", value_parser = humantime::parse_duration)]
    pub interval: Duration,
    /// When a request has failed.
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = humantime::parse_duration)]
    pub timeout: Duration,
    /// Requests that may be under way at once.
    #[arg(long, value_name = "N", default_value = "4")]
    pub concurrency: NonZeroUsize,
    /// The server's --port-offset.
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u16).range(..=MAX_OFFSET))]
    pub port_offset: u16,
}

impl ClientOptions {
    /// Every kind once, from `bind` to `server`, with everything else as it is by default.
    pub fn new(bind: Ipv4Addr, server: Ipv4Addr) -> Self {
        Self {
            bind,
            server,
            seed: 1,
            kinds: KindList::default(),
            requests: None,
            duration: None,
            interval: Duration::from_millis(50),
            timeout: Duration::from_secs(5),
            concurrency: NonZeroUsize::new(4).expect("4 is not 0"),
            port_offset: 0,
        }
    }

    /// The kinds in turn, numbered from 1, as many as were asked for.
    pub fn schedule(&self) -> impl Iterator<Item = (u64, Kind)> + use<> {
        let kinds = self.kinds.0.clone();
        let all_once = if self.duration.is_some() {
            u64::MAX
        } else {
            kinds.len() as u64
        };
        let count = self.requests.map_or(all_once, NonZeroU64::get);
        (1..=count).zip(kinds.into_iter().cycle())
    }
}

/// Makes requests until their number or the time is up; says which. Writes everything but the
/// report's last line, since the host may have more to do.
///
/// # Errors
///
/// If the client cannot start at all. A failed request is a line of the report.
pub async fn browse(options: ClientOptions, reporter: Reporter) -> anyhow::Result<DoneReason> {
    let site = Arc::new(Site::new(&options)?);
    reporter.ready();
    let mut end = pin!(after(options.duration));
    let mut pace = tokio::time::interval(options.interval.max(SHORTEST_INTERVAL));
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut running = JoinSet::new();
    let mut reason = DoneReason::Requests;
    for (number, kind) in options.schedule() {
        let turn = async {
            pace.tick().await;
            room_for_one_more(&mut running, options.concurrency).await
        };
        tokio::select! {
            biased;
            () = &mut end => {
                reason = DoneReason::Duration;
                break;
            }
            turn = turn => turn?,
        }
        running.spawn(report(
            kind,
            Visit::new(&site, number),
            site.timeout,
            reporter.clone(),
        ));
    }
    while let Some(finished) = running.join_next().await {
        finished.context("a request panicked")?;
    }
    Ok(reason)
}

/// Requests never begin closer together than this.
const SHORTEST_INTERVAL: Duration = Duration::from_micros(100);

/// Ends after `duration`, or never.
async fn after(duration: Option<Duration>) {
    match duration {
        Some(duration) => tokio::time::sleep(duration).await,
        None => std::future::pending().await,
    }
}

async fn room_for_one_more(running: &mut JoinSet<()>, most: NonZeroUsize) -> anyhow::Result<()> {
    while let Some(finished) = running.try_join_next() {
        finished.context("a request panicked")?;
    }
    while running.len() >= most.get() {
        let finished = running.join_next().await.expect("some are running");
        finished.context("a request panicked")?;
    }
    Ok(())
}

/// Makes one request and writes its two lines.
async fn report(kind: Kind, mut visit: Visit, timeout: Duration, reporter: Reporter) {
    let id = RequestId(visit.number);
    let server = visit.server(kind.service());
    reporter.emit(Event::WebRequest {
        id,
        kind: kind.name().to_owned(),
        server,
    });
    let started = reporter.clock().now();
    let outcome = tokio::time::timeout(timeout, request(kind, &mut visit)).await;
    let took = reporter.clock().now() - started;
    let outcome = outcome.unwrap_or_else(|_| {
        Err(anyhow!(
            "timed out after {}",
            humantime::format_duration(timeout)
        ))
    });
    reporter.emit(Event::WebResult {
        id,
        kind: kind.name().to_owned(),
        ok: outcome.is_ok(),
        micros: u64::try_from(took.as_micros()).unwrap_or(u64::MAX),
        bytes: visit.received.total(),
        error: outcome.err().map(|error| format!("{error:#}")),
    });
}

/// Makes one request: one arm per kind.
async fn request(kind: Kind, visit: &mut Visit) -> anyhow::Result<()> {
    match kind {
        Kind::Http1 => http::page(visit).await,
        Kind::HttpKeepAlive => http::keep_alive(visit).await,
        Kind::HttpBytes => http::download(visit).await,
        Kind::HttpDigits => http::digits(visit).await,
        Kind::HttpWellKnown => http::well_known(visit).await,
        Kind::HttpLargeHead => http::large_head(visit).await,
        Kind::HttpPost => http::upload(visit).await,
        Kind::PageAboutKazaa => http::page_about_kazaa(visit).await,
        Kind::UploadAboutKazaa => http::upload_about_kazaa(visit).await,
        Kind::HttpSplitHead => raw_http::split_head(visit).await,
        Kind::Http10 => raw_http::http10(visit).await,
        Kind::TlsH1 => tls::http1(visit).await,
        Kind::TlsH2 => tls::http2(visit).await,
        Kind::Quic => quic::request(visit).await,
        Kind::DnsUdp => dns::ask_udp(visit).await,
        Kind::DnsTcp => dns::ask_tcp(visit).await,
        Kind::SshBanner => ssh::greet(visit).await,
        Kind::SmtpBanner => smtp::deliver(visit).await,
        Kind::Ntp => ntp::ask(visit).await,
        Kind::Stun => stun::ask(visit).await,
        Kind::GameFanOut => game::fan_out(visit).await,
        Kind::OpenvpnUdp => openvpn::shake_hands(visit).await,
        Kind::Modbus => modbus::read(visit).await,
        Kind::Nomachine => nomachine::greet(visit).await,
        Kind::Bfcp => bfcp::greet(visit).await,
        Kind::Socks4 => socks::page(visit).await,
    }
}

/// What all requests of one client share.
pub(super) struct Site {
    bind: Ipv4Addr,
    server: Ipv4Addr,
    port_offset: u16,
    seed: u64,
    timeout: Duration,
    pub(super) tls: tls::Clients,
    pub(super) quic: quinn::Endpoint,
}

impl Site {
    fn new(options: &ClientOptions) -> anyhow::Result<Self> {
        Ok(Self {
            bind: options.bind,
            server: options.server,
            port_offset: options.port_offset,
            seed: options.seed,
            timeout: options.timeout,
            tls: tls::Clients::new()?,
            quic: quic::client(options.bind)?,
        })
    }
}

/// The draws of a client's request with that number.
pub(super) fn draws(seed: u64, number: u64) -> StdRng {
    StdRng::seed_from_u64(seed.rotate_left(32) ^ number)
}

/// One request under way: where to, with which draws, and what has arrived.
pub(super) struct Visit {
    site: Arc<Site>,
    number: u64,
    received: Received,
    /// Draws of this request alone.
    pub(super) rng: StdRng,
}

impl Visit {
    fn new(site: &Arc<Site>, number: u64) -> Self {
        Self {
            site: Arc::clone(site),
            number,
            received: Received::default(),
            rng: draws(site.seed, number),
        }
    }

    /// What all requests share.
    pub(super) fn site(&self) -> &Site {
        &self.site
    }

    /// The count of received octets.
    pub(super) fn received(&self) -> &Received {
        &self.received
    }

    /// Where a service is reached.
    pub(super) fn server(&self, service: Service) -> SocketAddr {
        self.at(self.site.server, service).into()
    }

    /// Where a service is reached at another address of the same network.
    pub(super) fn at(&self, address: Ipv4Addr, service: Service) -> SocketAddrV4 {
        SocketAddrV4::new(address, service.port().1 + self.site.port_offset)
    }

    /// The server's address.
    pub(super) fn server_address(&self) -> Ipv4Addr {
        self.site.server
    }

    /// Dials a service.
    pub(super) async fn tcp(&self, service: Service) -> anyhow::Result<Counted> {
        let server = self.server(service);
        let socket = TcpSocket::new_v4()?;
        socket
            .bind(self.own_address())
            .with_context(|| format!("cannot use {}", self.site.bind))?;
        let stream = socket
            .connect(server)
            .await
            .with_context(|| format!("cannot connect to {server}"))?;
        stream.set_nodelay(true)?;
        Ok(Counted::new(stream, self.received.clone()))
    }

    /// A UDP socket of its own.
    pub(super) async fn udp(&self) -> anyhow::Result<UdpSocket> {
        let own = self.own_address();
        UdpSocket::bind(own)
            .await
            .with_context(|| format!("cannot use {}", self.site.bind))
    }

    fn own_address(&self) -> SocketAddr {
        SocketAddr::new(IpAddr::V4(self.site.bind), 0)
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Typed {
        #[command(flatten)]
        options: ClientOptions,
    }

    fn typed(arguments: &[&str]) -> Result<ClientOptions, clap::Error> {
        let fixed = ["test", "--bind", "10.77.1.1", "--server", "203.0.113.80"];
        Typed::try_parse_from(fixed.iter().chain(arguments)).map(|typed| typed.options)
    }

    fn kinds(options: &ClientOptions, most: usize) -> Vec<Kind> {
        options
            .schedule()
            .take(most)
            .map(|(_, kind)| kind)
            .collect()
    }

    #[test]
    fn defaults_are_the_same_on_the_command_line_and_in_code() {
        let options = ClientOptions::new([10, 77, 1, 1].into(), [203, 0, 113, 80].into());
        assert_eq!(format!("{:?}", typed(&[]).unwrap()), format!("{options:?}"));
    }

    #[test]
    fn without_a_number_or_a_time_each_kind_is_asked_for_once() {
        assert_eq!(kinds(&typed(&[]).unwrap(), 1_000), Kind::all());
    }

    #[test]
    fn a_number_of_requests_goes_round_the_list() {
        let options = typed(&["--kinds", "ntp,stun", "--requests", "3"]).unwrap();
        assert_eq!(kinds(&options, 1_000), [Kind::Ntp, Kind::Stun, Kind::Ntp]);
    }

    #[test]
    fn with_a_time_alone_the_list_has_no_end() {
        let options = typed(&["--kinds", "ntp", "--duration", "8s"]).unwrap();
        assert_eq!(kinds(&options, 500).len(), 500);
    }

    #[test]
    fn unknown_kinds_no_requests_and_ports_past_the_last_are_refused() {
        for arguments in [
            ["--kinds", "gopher"],
            ["--requests", "0"],
            ["--port-offset", "62000"],
        ] {
            assert_eq!(
                typed(&arguments).unwrap_err().exit_code(),
                2,
                "{arguments:?}"
            );
        }
    }
}
