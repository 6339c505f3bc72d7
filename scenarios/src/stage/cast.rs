//! Who acts in a run, as command lines.

use std::net::Ipv4Addr;
use std::path::Path;

use anyhow::Context;
use clap::ValueEnum;
use lab::Spec;
use lab::presets::Office;

use crate::scenario::{Actor, Browser, Client, POPULATION, Peers, Scenario, host_name};

/// The web server that everybody browses.
pub(super) const WEB_SERVER: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 80);

/// A program of a run and where it runs.
pub(super) struct Part {
    /// The node.
    pub(super) node: String,
    /// Its name in reports.
    pub(super) who: String,
    /// What to run.
    pub(super) spec: Spec,
}

/// The programs of a scenario: those outside, which must be ready first, and those inside.
pub(super) struct Cast {
    pub(super) peers: Vec<Part>,
    pub(super) servers: Vec<Part>,
    pub(super) inside: Vec<Part>,
}

impl Cast {
    /// Writes the command lines of a scenario.
    pub(super) fn of(scenario: &Scenario, seed: u64, simulator: &Path) -> anyhow::Result<Self> {
        let mut cast = Self {
            peers: Vec::new(),
            servers: Vec::new(),
            inside: Vec::new(),
        };
        for (place, actor) in scenario.cast.iter().enumerate() {
            let command = Command {
                scenario,
                simulator,
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
fn derive(seed: u64, place: usize) -> u64 {
    seed.wrapping_mul(1000).wrapping_add(place as u64)
}

struct Command<'a> {
    scenario: &'a Scenario,
    simulator: &'a Path,
    seed: u64,
}

impl Command<'_> {
    fn simulator(&self, command: &str, who: &str) -> Spec {
        Spec::new(self.simulator).args([command, "--who", who, "--seed", &self.seed.to_string()])
    }

    fn peers(&self, peers: &Peers, population_seed: u64) -> Part {
        let spec = population(self.simulator("peers", "peers"), population_seed).args(&peers.args);
        Part {
            node: "out".to_owned(),
            who: "peers".to_owned(),
            spec,
        }
    }

    fn web_server(&self) -> Part {
        let spec = self
            .simulator("web-server", "web")
            .args(["--bind", &WEB_SERVER.to_string()]);
        Part {
            node: "out".to_owned(),
            who: "web".to_owned(),
            spec,
        }
    }

    fn client(&self, client: &Client, population_seed: u64) -> anyhow::Result<Part> {
        let node = host_name(client.host);
        let mut spec = population(self.simulator("client", &node), population_seed)
            .args(["--profile", client.profile.name])
            .args(["--bind", &Office::client_address(client.host).to_string()])
            .args(["--duration", &milliseconds(self.scenario.window)]);
        if let Some(opener) = client.opener {
            let value = opener
                .to_possible_value()
                .context("an opener without a name")?;
            spec = spec.args(["--opener", value.get_name()]);
        }
        Ok(Part {
            who: node.clone(),
            node,
            spec: spec.args(&client.args),
        })
    }

    fn browser(&self, browser: &Browser) -> Part {
        let node = host_name(browser.host);
        let who = format!("{node}-browser");
        let spec = self
            .simulator("web-client", &who)
            .args(["--bind", &Office::client_address(browser.host).to_string()])
            .args(["--server", &WEB_SERVER.to_string()])
            .args(["--kinds", &browser.kinds])
            .args(["--requests", &browser.requests.to_string()])
            .args(["--interval", &milliseconds(browser.interval)]);
        Part { node, who, spec }
    }
}

fn population(spec: Spec, seed: u64) -> Spec {
    spec.args(["--population-seed", &seed.to_string()])
        .args(["--population", &POPULATION.to_string()])
        .args(["--peers-net", &Office::PEERS.to_string()])
}

fn milliseconds(time: std::time::Duration) -> String {
    format!("{}ms", time.as_millis())
}
