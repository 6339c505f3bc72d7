//! What was typed. Every value is checked here, so that the rest of the program cannot meet a bad one.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::ops::RangeInclusive;
use std::time::Duration;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, Parser, Subcommand, ValueEnum};
use ipnet::Ipv4Net;

use crate::client::ClientConfig;
use crate::dialer::WEB_PORTS;
use crate::net::{ClientRun, PeersRun};
use crate::peer::PeersConfig;
use crate::population::{Population, PopulationError};
use crate::profile::{HttpStyle, Opener, PROFILES, Profile};
use crate::seed::Seed;
use crate::web;

/// Synthetic FastTrack peers and a control group of ordinary web traffic.
///
/// Writes one JSON object per line: `ready` first, `done` last. Ends at SIGTERM.
#[derive(Debug, Parser)]
#[command(name = "simulator", version)]
pub struct Cli {
    /// What to play.
    #[command(subcommand)]
    pub command: Command,
    /// Name of this host in its report [default: the command's name].
    #[arg(long, global = true)]
    pub who: Option<String>,
}

/// What to play.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// A FastTrack client on an inside host.
    Client(Box<ClientOptions>),
    /// Every outside peer and supernode of a population, in one process.
    Peers(PeersOptions),
    /// The servers of the control group.
    WebServer(web::ServerOptions),
    /// The clients of the control group.
    WebClient(web::ClientOptions),
}

impl Command {
    /// The command's own name, for reports that were given none.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Client(_) => "client",
            Self::Peers(_) => "peers",
            Self::WebServer(_) => "web-server",
            Self::WebClient(_) => "web-client",
        }
    }
}

/// Which population lives outside.
#[derive(Debug, Clone, Copy, Args)]
pub struct PopulationOptions {
    /// Seed of the population; the same for clients and peers of one run.
    #[arg(long, default_value_t = 1)]
    pub population_seed: u64,
    /// How many peers.
    #[arg(long = "population", default_value_t = 200)]
    pub count: usize,
    /// Where their addresses are drawn from.
    #[arg(long, default_value = "198.18.0.0/15")]
    pub peers_net: Ipv4Net,
}

/// Options of `simulator client`.
#[derive(Debug, Args)]
pub struct ClientOptions {
    /// Client family or variant.
    #[arg(long, value_parser = profile_parser())]
    pub profile: &'static Profile,
    /// Seed of everything this client draws.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Own address.
    #[arg(long)]
    pub bind: Ipv4Addr,
    /// Which population lives outside.
    #[command(flatten)]
    pub population: PopulationOptions,
    /// How long to run.
    #[arg(long, default_value = "8s", value_parser = humantime::parse_duration)]
    pub duration: Duration,
    /// Part of that time to sit still before the first move, as a host that is switched on later.
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = humantime::parse_duration)]
    pub start_after: Duration,
    /// Factor on every wait of the protocol.
    #[arg(long, default_value_t = 0.1, value_parser = time_scale)]
    pub time_scale: f64,
    /// When to end.
    #[arg(long, value_enum, default_value_t = Until::End)]
    pub until: Until,
    /// The 12-byte opener [default: the profile's].
    #[arg(long, value_enum)]
    pub opener: Option<Opener>,
    /// How HTTP requests look [default: the profile's].
    #[arg(long, value_enum)]
    pub http_style: Option<HttpStyle>,
    /// Draw the UDP port from these: hosts behind one address can have ports of their own.
    #[arg(long, value_name = "FIRST-LAST", default_value = "1024-5000", value_parser = port_range)]
    pub udp_ports: RangeInclusive<u16>,
    /// Cut every TCP write into segments of this many octets.
    #[arg(long, value_name = "OCTETS", value_parser = at_least_one)]
    pub segment: Option<usize>,
    /// Send pings as IP fragments of this many octets; needs CAP_NET_RAW.
    #[arg(long, value_name = "OCTETS", value_parser = fragment_size)]
    pub fragment: Option<usize>,
    /// Dial sources of files on this port instead of their own.
    #[arg(long, value_parser = clap::builder::PossibleValuesParser::new(["80", "443"]).map(|port| if port == "80" { 80u16 } else { 443 }))]
    pub transfer_port: Option<u16>,
    /// At most this many dials in the second after a reset; real clients make tens of thousands.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..))]
    pub redials_per_second: u32,
    /// Browse this server from the same host meanwhile.
    #[arg(long, value_name = "SERVER")]
    pub web: Option<Ipv4Addr>,
    /// Also send well-formed pings to these addresses, as if they were peers.
    #[arg(long, value_name = "ADDRESS:PORT", value_delimiter = ',')]
    pub forge_pings: Vec<SocketAddrV4>,
}

/// When a client ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Until {
    /// Once everything the profile wants is reached, or at the end of its time.
    Contact,
    /// At the end of its time.
    End,
}

/// Options of `simulator peers`.
#[derive(Debug, Args)]
pub struct PeersOptions {
    /// Which population to play.
    #[command(flatten)]
    pub population: PopulationOptions,
    /// Seed of what the peers draw while they talk.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Cut every TCP write into segments of this many octets.
    #[arg(long, value_name = "OCTETS", value_parser = at_least_one)]
    pub segment: Option<usize>,
    /// Reset every TCP connection at once, and answer no ping.
    #[arg(long)]
    pub reset: bool,
    /// Factor on every wait of the protocol.
    #[arg(long, default_value_t = 0.1, value_parser = time_scale)]
    pub time_scale: f64,
    /// How long to run [default: until SIGTERM].
    #[arg(long, value_parser = humantime::parse_duration)]
    pub duration: Option<Duration>,
}

impl PopulationOptions {
    /// Draws the population.
    ///
    /// # Errors
    /// When there would be nobody, or more peers than addresses.
    pub fn generate(&self) -> Result<Population, PopulationError> {
        Population::generate(self.population_seed, self.count, self.peers_net)
    }
}

impl ClientOptions {
    /// The client that was asked for, on whatever sockets.
    pub fn run(&self) -> ClientRun {
        let mut profile = self.profile.clone();
        profile.opener = self.opener.unwrap_or(profile.opener);
        profile.http = self.http_style.unwrap_or(profile.http);
        let config = ClientConfig {
            profile,
            time_scale: self.time_scale,
            seed: Seed(self.seed),
            address: self.bind,
            transfer_port: self.transfer_port,
            web_ports: WEB_PORTS,
            dials_per_second: self.redials_per_second,
            forge_pings: self.forge_pings.clone(),
        };
        ClientRun {
            config,
            duration: self.duration,
            start_after: self.start_after,
            until: self.until,
            udp_ports: self.udp_ports.clone(),
            segment: self.segment,
            fragment: self.fragment,
        }
    }

    /// The browser beside it, if one was asked for.
    pub fn browsing(&self) -> Option<web::ClientOptions> {
        self.web.map(|server| web::ClientOptions {
            seed: self.seed,
            duration: Some(self.duration),
            ..web::ClientOptions::new(self.bind, server)
        })
    }
}

impl PeersOptions {
    /// The peers that were asked for, on whatever sockets.
    pub fn run(&self, population: Population) -> PeersRun {
        let config = PeersConfig {
            population,
            time_scale: self.time_scale,
            seed: Seed(self.seed),
            reset: self.reset,
        };
        PeersRun {
            config,
            duration: self.duration,
            segment: self.segment,
            web_ports: WEB_PORTS,
        }
    }
}

fn profile_parser() -> impl TypedValueParser<Value = &'static Profile> {
    PossibleValuesParser::new(PROFILES.map(|profile| profile.name))
        .map(|name| Profile::by_name(&name).expect("only listed names are accepted"))
}

fn time_scale(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(scale) if scale > 0.0 && scale <= 1000.0 => Ok(scale),
        Ok(_) | Err(_) => Err("expected a number above 0 and up to 1000, such as 0.1".to_owned()),
    }
}

fn at_least_one(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(octets) if octets > 0 => Ok(octets),
        Ok(_) | Err(_) => Err("expected a number of octets, 1 or more".to_owned()),
    }
}

fn port_range(text: &str) -> Result<RangeInclusive<u16>, String> {
    let ends = text.split_once('-');
    let ports = ends.and_then(|(first, last)| Some(first.parse().ok()?..=last.parse().ok()?));
    ports
        .filter(|ports| *ports.start() > 0 && !ports.is_empty())
        .ok_or_else(|| "expected the first and the last port, as in 1024-5000".to_owned())
}

fn fragment_size(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(octets) if octets > 0 && octets % 8 == 0 => Ok(octets),
        Ok(_) | Err(_) => Err(
            "expected a multiple of 8: IP counts fragment offsets in units of 8 octets".to_owned(),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(arguments: &[&str]) -> String {
        let typed = ["simulator"].iter().chain(arguments);
        let refusal = Cli::try_parse_from(typed).expect_err("these arguments are bad");
        assert_eq!(refusal.exit_code(), 2);
        refusal.to_string()
    }

    #[test]
    fn definitions_are_consistent() {
        <Cli as clap::CommandFactory>::command().debug_assert();
    }

    #[test]
    fn an_unknown_profile_is_refused_with_the_list_of_known_ones() {
        let text = refusal(&["client", "--profile", "morpheus", "--bind", "10.77.1.1"]);
        assert!(
            text.contains("morpheus") && text.contains("mldonkey"),
            "{text}"
        );
    }

    #[test]
    fn a_fragment_size_that_ip_cannot_express_is_refused_with_the_reason() {
        let text = refusal(&[
            "client",
            "--profile",
            "kazaa",
            "--bind",
            "10.77.1.1",
            "--fragment",
            "10",
        ]);
        assert!(text.contains("multiple of 8"), "{text}");
    }

    #[test]
    fn a_client_draws_its_udp_port_from_where_real_ones_do_or_from_where_it_is_told() {
        let client = [
            "simulator",
            "client",
            "--profile",
            "kazaa",
            "--bind",
            "10.77.1.1",
        ];
        let ports = |more: &[&str]| {
            let typed = client.iter().chain(more);
            match Cli::parse_from(typed).command {
                Command::Client(options) => options.run().udp_ports,
                _ => panic!("`client` was typed"),
            }
        };
        assert_eq!(ports(&[]), crate::population::PORT_RANGE);
        assert_eq!(ports(&["--udp-ports", "2000-2999"]), 2000..=2999);
        for wrong in ["2000", "2999-2000", "0-9", "1-70000"] {
            let typed = [&client[1..], &["--udp-ports", wrong]].concat();
            assert!(refusal(&typed).contains("1024-5000"), "{wrong}");
        }
    }

    #[test]
    fn a_malformed_network_a_zero_scale_and_a_zero_segment_are_refused() {
        refusal(&["peers", "--peers-net", "198.18.0.0/40"]);
        assert!(refusal(&["peers", "--time-scale", "0"]).contains("above 0"));
        assert!(refusal(&["peers", "--segment", "0"]).contains("1 or more"));
    }
}
