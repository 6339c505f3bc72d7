//! Who acts in a run, as command lines: run in namespaces or containers, read by the same definitions in
//! memory.

use std::net::Ipv4Addr;
use std::path::Path;

use anyhow::Context;
use clap::ValueEnum;
use lab::Spec;
use lab::presets::Office;
use simulator::population::PORT_RANGE;

use crate::scenario::{Actor, Browser, Client, Peers, Scenario, host_name};

/// The web server that everybody browses.
pub const WEB_SERVER: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 80);

/// A program of a run and where it runs.
pub struct Part {
    /// The node.
    pub node: String,
    /// Its name in reports.
    pub who: String,
    /// What the simulator is told, its own name left out.
    pub args: Vec<String>,
}

impl Part {
    /// The program to run.
    pub(super) fn spec(&self, simulator: &Path) -> Spec {
        Spec::new(simulator).args(&self.args)
    }
}

/// The programs of a scenario: those outside, which must be ready first, and those inside.
pub struct Cast {
    /// Outside peers.
    pub peers: Vec<Part>,
    /// The servers of the control group.
    pub servers: Vec<Part>,
    /// Everybody inside.
    pub inside: Vec<Part>,
}

impl Cast {
    /// Writes the command lines of a scenario.
    ///
    /// # Errors
    /// When a client's opener has no name on the command line.
    pub fn of(scenario: &Scenario, seed: u64) -> anyhow::Result<Self> {
        let mut cast = Self {
            peers: Vec::new(),
            servers: Vec::new(),
            inside: Vec::new(),
        };
        for (place, actor) in scenario.cast.iter().enumerate() {
            let command = Command {
                scenario,
                seed: derive(seed, place),
            };
            match actor {
                Actor::Peers(peers) => cast.peers.push(command.peers(peers, seed)),
                Actor::WebServer => cast.servers.push(command.web_server()),
                Actor::Client(client) => cast.inside.push(command.client(client, seed)?),
                Actor::Browser(browser) => cast.inside.push(command.browser(browser)),
                Actor::RealWeb(_) => {}
            }
        }
        Ok(cast)
    }
}

/// A seed of an actor's own, so that no two draw alike.
pub(super) fn derive(seed: u64, place: usize) -> u64 {
    seed.wrapping_mul(1000).wrapping_add(place as u64)
}

struct Command<'a> {
    scenario: &'a Scenario,
    seed: u64,
}

impl Command<'_> {
    fn simulator(&self, command: &str, who: &str) -> Words {
        Words(Vec::new()).add([command, "--who", who, "--seed", &self.seed.to_string()])
    }

    fn population(&self, words: Words, seed: u64) -> Words {
        words
            .add(["--population-seed", &seed.to_string()])
            .add(["--population", &self.scenario.population.to_string()])
            .add(["--peers-net", &Office::PEERS.to_string()])
    }

    fn peers(&self, peers: &Peers, population_seed: u64) -> Part {
        let words = self.population(self.simulator("peers", "peers"), population_seed);
        Part {
            node: "out".to_owned(),
            who: "peers".to_owned(),
            args: words.add(peers.args.iter().map(String::as_str)).0,
        }
    }

    fn web_server(&self) -> Part {
        let words = self
            .simulator("web-server", "web")
            .add(["--bind", &WEB_SERVER.to_string()]);
        Part {
            node: "out".to_owned(),
            who: "web".to_owned(),
            args: words.0,
        }
    }

    fn client(&self, client: &Client, population_seed: u64) -> anyhow::Result<Part> {
        let node = host_name(client.host);
        let mut words = self
            .population(self.simulator("client", &node), population_seed)
            .add(["--profile", client.profile.name])
            .add(["--bind", &Office::client_address(client.host).to_string()])
            .add(["--duration", &milliseconds(self.scenario.window)]);
        if self.scenario.office.nat {
            words = words.add(["--udp-ports", &self.own_ports(client.host)]);
        }
        if let Some(opener) = client.opener {
            let value = opener
                .to_possible_value()
                .context("an opener without a name")?;
            words = words.add(["--opener", value.get_name()]);
        }
        Ok(Part {
            who: node.clone(),
            node,
            args: words.add(client.args.iter().map(String::as_str)).0,
        })
    }

    /// An equal part of the ports that clients draw from: behind one address, ports tell hosts apart.
    fn own_ports(&self, host: usize) -> String {
        let (first, last) = (
            usize::from(*PORT_RANGE.start()),
            usize::from(*PORT_RANGE.end()),
        );
        let each = (last + 1 - first) / self.scenario.office.hosts;
        let first = first + (host - 1) * each;
        format!("{first}-{}", first + each - 1)
    }

    fn browser(&self, browser: &Browser) -> Part {
        let node = host_name(browser.host);
        let who = format!("{node}-browser");
        let words = self
            .simulator("web-client", &who)
            .add(["--bind", &Office::client_address(browser.host).to_string()])
            .add(["--server", &WEB_SERVER.to_string()])
            .add(["--kinds", &browser.kinds])
            .add(["--requests", &browser.requests.to_string()])
            .add(["--interval", &milliseconds(browser.interval)])
            .add(["--timeout", &milliseconds(browser.patience)]);
        Part {
            node,
            who,
            args: words.0,
        }
    }
}

/// A command line being written.
struct Words(Vec<String>);

impl Words {
    fn add<'a>(mut self, words: impl IntoIterator<Item = &'a str>) -> Self {
        self.0.extend(words.into_iter().map(str::to_owned));
        self
    }
}

fn milliseconds(time: std::time::Duration) -> String {
    format!("{}ms", time.as_millis())
}
