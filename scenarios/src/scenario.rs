//! A scenario as data: who is on stage, with what, and what must come of it.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use lab::WireSettings;
use lab::requirements::Feature;
use simulator::profile::{Opener, Pinging, Profile, Transfer};
use simulator::report::{AttemptKind, Mode};

use crate::device::Device;
use crate::judge::{Expectation, HostTerms, SLOW_GRACE, Terms};
use crate::level::Level;

/// How long the actors of a scenario act unless it says otherwise: at a tenth of real time, longer
/// than the longest wait of a client (30 s for a TCP handshake) and the re-probe of a lock.
pub const WINDOW: Duration = Duration::from_secs(6);

/// The seed of scenarios that have none of their own.
pub const USUAL_SEED: u64 = 1;

/// Peers outside unless a scenario says otherwise: a Kazaa cache's worth.
pub const POPULATION: usize = 200;

/// One thing that must hold.
#[derive(Debug, Clone)]
pub struct Scenario {
    /// Its name on the command line.
    pub name: Cow<'static, str>,
    /// What it is about, in one sentence.
    pub about: Cow<'static, str>,
    /// The recipe it was read from, if it is not of the catalogue.
    pub file: Option<PathBuf>,
    /// The seed it was found with, which is its own unless another is asked for.
    pub seed: Option<u64>,
    /// The network it is played in.
    pub office: Office,
    /// Who acts.
    pub cast: Vec<Actor>,
    /// How many peers live outside.
    pub population: usize,
    /// Options of `ftwall run` beyond the usual ones.
    pub ftwall: Vec<String>,
    /// Times without a daemon, in order; other devices have none.
    pub outages: Vec<Outage>,
    /// The device it is about, if not the one asked for.
    pub pinned: Option<Device>,
    /// What must come of it with the device on.
    pub expectation: Expectation,
    /// How long the actors act.
    pub window: Duration,
    /// Time allowed to an ordinary request over twice its usual time.
    pub slow_grace: Duration,
    /// What it needs beyond the usual; without it, it is skipped with the reason.
    pub needs: &'static [Feature],
}

/// The network of a scenario.
#[derive(Debug, Clone, Default)]
pub struct Office {
    /// Inside hosts, `client1` and up.
    pub hosts: usize,
    /// Whether the gateway hides them behind its own address.
    pub nat: bool,
    /// An imperfect line between the gateway and the outside.
    pub wire: Option<WireSettings>,
    /// Whether frames keep to the MTU and carry right checksums, as off a real line.
    pub real_segments: bool,
}

/// A time in which nobody answers the kernel: the daemon is killed, and later another is started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outage {
    /// When it is killed, from the beginning of the scenario.
    pub at: Duration,
    /// When the next one is started.
    pub until: Duration,
}

/// Somebody on stage.
#[derive(Debug, Clone)]
pub enum Actor {
    /// Every outside peer.
    Peers(Peers),
    /// The servers of the control group.
    WebServer,
    /// A FastTrack client.
    Client(Client),
    /// An ordinary user.
    Browser(Browser),
    /// Debian's nginx outside and curl inside.
    RealWeb(RealWeb),
}

/// Every outside peer, in one process.
#[derive(Debug, Clone, Default)]
pub struct Peers {
    /// Options of `simulator peers` beyond the usual ones.
    pub args: Vec<String>,
}

/// A FastTrack client on an inside host.
#[derive(Debug, Clone)]
pub struct Client {
    /// Number of the host.
    pub host: usize,
    /// Its family.
    pub profile: &'static Profile,
    /// Options of `simulator client` beyond the usual ones.
    pub args: Vec<String>,
    /// Another opener than its family's.
    pub opener: Option<Opener>,
    /// Levels it must reach without a device.
    pub must_reach: BTreeSet<Level>,
    /// What it must at least have tried with the device on.
    pub must_try: BTreeSet<AttemptKind>,
    /// Modes it must have gone through with the device on.
    pub must_enter: BTreeSet<Mode>,
}

/// An ordinary user on an inside host.
#[derive(Debug, Clone)]
pub struct Browser {
    /// Number of the host.
    pub host: usize,
    /// Kinds of requests, as `simulator web-client --kinds` takes them.
    pub kinds: String,
    /// How many requests, one after the other; at most as many as the window allows.
    pub requests: u32,
    /// Pause between them.
    pub interval: Duration,
    /// How long a request may take.
    pub patience: Duration,
}

/// Real programs across the gateway.
#[derive(Debug, Clone)]
pub struct RealWeb {
    /// Numbers of the hosts that fetch.
    pub hosts: Vec<usize>,
    /// Octets of the large download.
    pub download: u64,
}

/// Time for an actor to end after the window.
const CURTAIN: Duration = Duration::from_secs(20);

impl Scenario {
    /// How long it may take until everybody inside has ended.
    #[must_use]
    pub fn longest(&self) -> Duration {
        let patience = self.cast.iter().filter_map(|actor| match actor {
            Actor::Browser(user) => Some(user.patience),
            Actor::Peers(_) | Actor::WebServer | Actor::Client(_) | Actor::RealWeb(_) => None,
        });
        self.window + CURTAIN.max(2 * patience.max().unwrap_or_default())
    }

    /// The scenario with more options of `ftwall run`, after its own.
    #[must_use]
    pub fn with_options(&self, options: &[String]) -> Self {
        let mut scenario = self.clone();
        scenario.ftwall.extend_from_slice(options);
        scenario
    }

    /// The scenario with so many times the time for everything that takes time.
    #[must_use]
    pub fn on_a_machine_so_slow(mut self, slowness: NonZeroU32) -> Self {
        let slowness = slowness.get();
        if slowness > 1 {
            // A worker that waits for a processor is not a worker that hangs.
            self.ftwall.push(format!("--hung-after={slowness}s"));
        }
        self.window *= slowness;
        self.slow_grace *= slowness;
        for actor in &mut self.cast {
            if let Actor::Browser(user) = actor {
                user.patience *= slowness;
            }
        }
        self
    }

    /// A scenario in an office of `hosts` hosts with the usual peers and web servers outside.
    #[must_use]
    pub fn new(
        name: impl Into<Cow<'static, str>>,
        about: impl Into<Cow<'static, str>>,
        hosts: usize,
    ) -> Self {
        Self {
            name: name.into(),
            about: about.into(),
            file: None,
            seed: None,
            office: Office {
                hosts,
                ..Office::default()
            },
            cast: vec![Actor::Peers(Peers::default()), Actor::WebServer],
            population: POPULATION,
            ftwall: Vec::new(),
            outages: Vec::new(),
            pinned: None,
            expectation: Expectation::Protected,
            window: WINDOW,
            slow_grace: SLOW_GRACE,
            needs: &[],
        }
    }

    /// Adds an actor.
    #[must_use]
    pub fn with(mut self, actor: impl Into<Actor>) -> Self {
        self.cast.push(actor.into());
        self
    }

    /// The seed it is played with when `wanted` is asked for, or none is.
    #[must_use]
    pub fn seed(&self, wanted: Option<u64>) -> u64 {
        wanted.or(self.seed).unwrap_or(USUAL_SEED)
    }

    /// The device it is played with when `wanted` is asked for.
    #[must_use]
    pub fn device(&self, wanted: Device) -> Device {
        self.pinned.unwrap_or(wanted)
    }

    /// What its two runs are judged by.
    #[must_use]
    pub fn terms(&self) -> Terms {
        let mut hosts = BTreeMap::<String, HostTerms>::new();
        for actor in &self.cast {
            match actor {
                Actor::Peers(_) | Actor::WebServer => {}
                Actor::Client(client) => {
                    client.add_to(hosts.entry(host_name(client.host)).or_default());
                }
                Actor::Browser(browser) => {
                    hosts.entry(host_name(browser.host)).or_default().browses = true;
                }
                Actor::RealWeb(web) => {
                    for host in &web.hosts {
                        hosts.entry(host_name(*host)).or_default().browses = true;
                    }
                }
            }
        }
        for terms in hosts.values_mut() {
            terms.restarts = self.outages.len();
        }
        Terms {
            hosts,
            expectation: self.expectation,
            slow_grace: self.slow_grace,
        }
    }
}

/// The name of an inside host.
#[must_use]
pub fn host_name(number: usize) -> String {
    format!("client{number}")
}

impl Client {
    /// A client that must reach what its family is made for: a session and a file if it joins the
    /// network, a file alone if it only transfers, and answers to its pings if it sends any.
    ///
    /// # Panics
    /// When the simulator knows no such family: a mistake in the catalogue.
    #[must_use]
    pub fn new(host: usize, profile: &str) -> Self {
        let profile = Profile::by_name(profile)
            .unwrap_or_else(|| panic!("the simulator knows no client family `{profile}`"));
        Self {
            host,
            profile,
            args: Vec::new(),
            opener: None,
            must_reach: made_for(profile),
            must_try: tries(profile),
            must_enter: BTreeSet::new(),
        }
    }

    /// Adds options of `simulator client`.
    #[must_use]
    pub fn args<'a>(mut self, args: impl IntoIterator<Item = &'a str>) -> Self {
        self.args.extend(args.into_iter().map(str::to_owned));
        self
    }

    /// Sets the opener.
    #[must_use]
    pub fn opener(mut self, opener: Opener) -> Self {
        self.opener = Some(opener);
        self
    }

    /// Names modes it must go through with the device on.
    #[must_use]
    pub fn entering(mut self, modes: impl IntoIterator<Item = Mode>) -> Self {
        self.must_enter.extend(modes);
        self
    }

    /// The most dials it ever has in flight at once.
    fn dials_in_flight(&self) -> usize {
        let looking = self
            .profile
            .ladder
            .iter()
            .map(|rung| rung.parallel)
            .max()
            .unwrap_or(0);
        looking.max(1)
    }

    /// Whether nothing tells it before its first opener has arrived: no ping, no opener that is
    /// always the same, no port on which twelve such bytes are suspicious by themselves.
    fn opens_unannounced(&self) -> bool {
        let opener = self.opener.unwrap_or(self.profile.opener);
        let on_web_ports_only = self
            .profile
            .ladder
            .iter()
            .all(|rung| rung.mode == Mode::Port80);
        self.profile.pinging == Pinging::Never
            && opener != Opener::Constant
            && self.profile.joins()
            && !on_web_ports_only
    }

    fn add_to(&self, terms: &mut HostTerms) {
        terms.must_reach.extend(&self.must_reach);
        terms.must_try.extend(&self.must_try);
        terms.must_enter.extend(&self.must_enter);
        terms.dials_in_flight += self.dials_in_flight();
        terms.opens_unannounced |= self.opens_unannounced();
    }
}

fn made_for(profile: &Profile) -> BTreeSet<Level> {
    let mut levels = BTreeSet::from([Level::Touched, Level::Transfer]);
    if profile.joins() {
        levels.extend([Level::Opened, Level::Session]);
    }
    if profile.pinging != Pinging::Never {
        levels.extend([Level::ProbeOut, Level::ProbeAnswered]);
    }
    levels
}

/// What a client of a family tries first, whatever becomes of it.
fn tries(profile: &Profile) -> BTreeSet<AttemptKind> {
    let mut kinds = BTreeSet::new();
    if profile.pinging != Pinging::Never {
        kinds.insert(AttemptKind::Ping);
    }
    match profile.transfer {
        Transfer::AfterSearch if profile.pinging != Pinging::Flood => {
            kinds.insert(AttemptKind::Dial);
        }
        Transfer::AfterSearch => {}
        Transfer::FromKnownSources => {
            kinds.insert(AttemptKind::Download);
        }
        Transfer::GiveAway => {
            kinds.insert(AttemptKind::Give);
        }
    }
    kinds
}

/// How long an ordinary request may take; on a line that loses packets, more often than not.
const PATIENCE: Duration = Duration::from_secs(5);

/// On a line that loses packets: a SYN lost five times over costs 1 + 2 + 4 + 8 + 16 s, and says nothing
/// about the device.
pub const PATIENCE_WITH_LOSS: Duration = Duration::from_secs(31);

impl Browser {
    /// The same user on a line that loses packets.
    #[must_use]
    pub fn on_a_lossy_line(self) -> Self {
        Self {
            patience: PATIENCE_WITH_LOSS,
            ..self
        }
    }

    /// A user who asks for one thing of each kind named, several times over.
    #[must_use]
    pub fn new(host: usize, kinds: &str, requests: u32) -> Self {
        Self {
            host,
            kinds: kinds.to_owned(),
            requests,
            interval: Duration::from_millis(50),
            patience: PATIENCE,
        }
    }
}

impl From<Client> for Actor {
    fn from(client: Client) -> Self {
        Self::Client(client)
    }
}

impl From<Browser> for Actor {
    fn from(browser: Browser) -> Self {
        Self::Browser(browser)
    }
}

impl From<RealWeb> for Actor {
    fn from(web: RealWeb) -> Self {
        Self::RealWeb(web)
    }
}
