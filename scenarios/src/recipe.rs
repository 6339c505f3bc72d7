//! Scenarios that can be written down: what the generator draws, and what is kept of a failure.
//!
//! The catalogue is code, because each of its scenarios is about something. A recipe is nothing but
//! settings, so that a failure found in a hundred thousand random offices can be kept as a file,
//! cut down by hand, and played again for ever, whatever the generator draws by then.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, anyhow, ensure};
use clap::ValueEnum;
use lab::WireSettings;
use serde::{Deserialize, Serialize};
use simulator::profile::{HttpStyle, Opener, Pinging, Profile};
use simulator::web::KindList;

use crate::level::Level;
use crate::scenario::{
    Actor, Browser, Client, Office, Outage, PATIENCE_WITH_LOSS, Peers, Scenario,
};

/// One office with everything that happens in it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// What it shows, or where it comes from.
    pub about: String,
    /// Seed of both runs.
    pub seed: u64,
    /// Inside hosts.
    pub hosts: usize,
    /// Whether the gateway hides them behind its own address.
    #[serde(default)]
    pub nat: bool,
    /// The line to the outside.
    #[serde(default)]
    pub line: LineRecipe,
    /// Outside peers.
    pub population: usize,
    /// Octets per segment of what peers send; whole writes if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer_segment: Option<usize>,
    /// Infected hosts.
    pub clients: Vec<ClientRecipe>,
    /// Ordinary users.
    #[serde(default)]
    pub browsers: Vec<BrowserRecipe>,
    /// Options of `ftwall run`.
    #[serde(default)]
    pub ftwall: Vec<String>,
    /// When the daemon is killed, and started again.
    #[serde(default)]
    pub outages: Vec<OutageRecipe>,
    /// How long everybody acts, in milliseconds.
    pub window_ms: u64,
}

/// An imperfect line, both ways alike.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LineRecipe {
    /// One way, in milliseconds.
    pub delay_ms: u64,
    /// Packets lost, in percent.
    pub loss_pct: f64,
    /// Packets delivered twice, in percent.
    pub duplicate_pct: f64,
    /// Packets overtaken by later ones, in percent.
    pub reorder_pct: f64,
}

/// A FastTrack client.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClientRecipe {
    /// Number of its host.
    pub host: usize,
    /// Its family, as `simulator client --profile` takes it.
    pub profile: String,
    /// When it begins, in milliseconds.
    #[serde(default)]
    pub start_ms: u64,
    /// Another opener than its family's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub opener: Option<String>,
    /// Another way of writing requests than its family's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http_style: Option<String>,
    /// Octets per segment; whole writes if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub segment: Option<usize>,
    /// Octets per IP fragment of its pings; whole pings if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fragment: Option<usize>,
    /// Sources of files are dialled here; on their own port if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transfer_port: Option<u16>,
}

/// An ordinary user.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BrowserRecipe {
    /// Number of the host.
    pub host: usize,
    /// Kinds of requests, with commas between them.
    pub kinds: String,
    /// How many requests.
    pub requests: u32,
    /// Pause between them, in milliseconds.
    pub interval_ms: u64,
}

/// A time without a daemon.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OutageRecipe {
    /// When it is killed, in milliseconds.
    pub at_ms: u64,
    /// When another is started, in milliseconds after that.
    pub for_ms: u64,
}

impl Recipe {
    /// Reads a recipe.
    ///
    /// # Errors
    /// When the file cannot be read or is no recipe: with its name, and line and column within.
    pub fn read(file: &Path) -> anyhow::Result<Self> {
        let text =
            fs::read_to_string(file).with_context(|| format!("reading {}", file.display()))?;
        serde_json::from_str(&text).with_context(|| format!("{} is no recipe", file.display()))
    }

    /// Writes a recipe, for people to read and cut down.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write(&self, file: &Path) -> anyhow::Result<()> {
        let mut text = serde_json::to_string_pretty(self)?;
        text.push('\n');
        fs::write(file, text).with_context(|| format!("writing {}", file.display()))
    }

    /// The scenario it describes.
    ///
    /// # Errors
    /// When it names something that does not exist, or a host that is not there.
    pub fn scenario(&self, name: &str) -> anyhow::Result<Scenario> {
        let mut scenario = Scenario::new(name.to_owned(), self.about.clone(), self.hosts);
        scenario.seed = Some(self.seed);
        scenario.office = Office {
            nat: self.nat,
            wire: self.line.settings(),
            real_segments: self.line != LineRecipe::default(),
            ..scenario.office
        };
        scenario.population = self.population;
        scenario.window = Duration::from_millis(self.window_ms);
        scenario.ftwall.clone_from(&self.ftwall);
        scenario.outages = self.outages.iter().map(OutageRecipe::outage).collect();
        scenario.slow_grace += self.line.slow_grace() + self.outage_time();
        scenario.cast = vec![Actor::Peers(self.peers()), Actor::WebServer];
        for client in &self.clients {
            self.check_host(client.host)?;
            scenario.cast.push(client.actor()?.into());
        }
        for browser in &self.browsers {
            self.check_host(browser.host)?;
            let user = browser.actor()?;
            scenario.cast.push(if self.line.costs_patience() {
                user.on_a_lossy_line().into()
            } else {
                user.into()
            });
        }
        Ok(scenario)
    }

    fn check_host(&self, host: usize) -> anyhow::Result<()> {
        ensure!(
            (1..=self.hosts).contains(&host),
            "somebody sits at host {host} of an office of {}",
            self.hosts
        );
        Ok(())
    }

    fn peers(&self) -> Peers {
        let args = self
            .peer_segment
            .map(|octets| ["--segment".to_owned(), octets.to_string()]);
        Peers {
            args: args.into_iter().flatten().collect(),
        }
    }

    /// While no daemon answers, undecided packets are dropped; they are sent again after at most as
    /// long as was waited for the first repetition, and once more for the packet behind them.
    fn outage_time(&self) -> Duration {
        let longest = self.outages.iter().map(|outage| outage.for_ms).max();
        longest.map_or(Duration::ZERO, |ms| {
            Duration::from_millis(3 * ms) + 2 * SYN_REPETITION
        })
    }
}

/// What a lost SYN costs, and about what a lost question costs.
const SYN_REPETITION: Duration = Duration::from_secs(1);

impl LineRecipe {
    fn settings(&self) -> Option<WireSettings> {
        (*self != Self::default()).then(|| WireSettings {
            delay: Duration::from_millis(self.delay_ms),
            loss_pct: self.loss_pct,
            duplicate_pct: self.duplicate_pct,
            reorder_pct: self.reorder_pct,
            ..WireSettings::default()
        })
    }

    /// The line itself costs an unlucky request a lost SYN and its repetition (1 s + 2 s), which says
    /// nothing about the device.
    /// Whether requests take longer by chance: packets that overtake each other slow a sender as lost
    /// ones do.
    fn costs_patience(&self) -> bool {
        self.loss_pct > 0.0 || self.reorder_pct > 0.0
    }

    fn slow_grace(&self) -> Duration {
        if self.costs_patience() {
            PATIENCE_WITH_LOSS
        } else {
            Duration::ZERO
        }
    }
}

impl ClientRecipe {
    fn actor(&self) -> anyhow::Result<Client> {
        ensure!(
            Profile::by_name(&self.profile).is_some(),
            "the simulator knows no client family `{}`",
            self.profile
        );
        let mut client = Client::new(self.host, &self.profile);
        if let Some(opener) = &self.opener {
            client = client.opener(named::<Opener>(opener)?);
        }
        if let Some(style) = &self.http_style {
            named::<HttpStyle>(style)?;
        }
        let options = [
            ("--http-style", self.http_style.clone()),
            ("--segment", self.segment.map(|octets| octets.to_string())),
            ("--fragment", self.fragment.map(|octets| octets.to_string())),
            (
                "--transfer-port",
                self.transfer_port.map(|port| port.to_string()),
            ),
            (
                "--start-after",
                (self.start_ms > 0).then(|| format!("{}ms", self.start_ms)),
            ),
        ];
        for (option, value) in options {
            if let Some(value) = value {
                client.args.extend([option.to_owned(), value]);
            }
        }
        client.must_reach = BTreeSet::from([first_level(client.profile)]);
        Ok(client)
    }
}

/// What even an unlucky client of a family reaches through an open gateway: drawn lines lose packets,
/// drawn clients begin late, and not every one of them gets as far as its family can.
fn first_level(profile: &Profile) -> Level {
    match profile.pinging {
        Pinging::Never => Level::Touched,
        Pinging::Flood | Pinging::Bursts(_) | Pinging::AfterDial => Level::ProbeOut,
    }
}

/// The value of a name on the simulator's command line.
fn named<T: ValueEnum>(name: &str) -> anyhow::Result<T> {
    T::from_str(name, false).map_err(|_| {
        let known: Vec<_> = T::value_variants()
            .iter()
            .filter_map(|value| Some(value.to_possible_value()?.get_name().to_owned()))
            .collect();
        anyhow!("there is no `{name}`; known: {}", known.join(", "))
    })
}

impl BrowserRecipe {
    fn actor(&self) -> anyhow::Result<Browser> {
        self.kinds.parse::<KindList>()?;
        Ok(Browser {
            interval: Duration::from_millis(self.interval_ms),
            ..Browser::new(self.host, &self.kinds, self.requests)
        })
    }
}

impl OutageRecipe {
    fn outage(&self) -> Outage {
        let at = Duration::from_millis(self.at_ms);
        Outage {
            at,
            until: at + Duration::from_millis(self.for_ms),
        }
    }
}

/// The scenario of a recipe's file, named like the file.
///
/// # Errors
/// When the file cannot be read, is no recipe, or describes what does not exist.
pub fn read_scenario(file: &Path) -> anyhow::Result<Scenario> {
    let name = file.file_stem().unwrap_or_default().to_string_lossy();
    let recipe = Recipe::read(file)?;
    let mut scenario = recipe
        .scenario(&name)
        .with_context(|| format!("{} cannot be played", file.display()))?;
    scenario.file = Some(file.to_owned());
    Ok(scenario)
}

/// Whether a name on the command line is a recipe's file rather than a scenario of the catalogue.
#[must_use]
pub fn is_file_name(name: &str) -> bool {
    Path::new(name)
        .extension()
        .is_some_and(|extension| extension == "json")
}

/// The files of all recipes in a directory, in the order of their names.
///
/// # Errors
/// When the directory cannot be read.
pub fn files(directory: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut files: Vec<PathBuf> = fs::read_dir(directory)
        .with_context(|| format!("reading {}", directory.display()))?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<_, _>>()?;
    files.retain(|file| is_file_name(&file.to_string_lossy()));
    files.sort();
    Ok(files)
}
