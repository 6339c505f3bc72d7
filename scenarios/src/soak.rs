//! One gateway for an hour, with everything that a bad day brings: round after round of every family of
//! clients and of users who must not notice, while daemons are killed and stopped, rules taken away and
//! lines cut at instants drawn from a seed.
//!
//! Every round is judged as a scenario of the catalogue is, by the same witnesses. A host that has given
//! itself away in one round is known in the next, and nothing of it may pass at all.

pub(crate) mod account;
pub(crate) mod connections;
mod daemon;
mod damage;
mod document;
pub(crate) mod fault;
mod flood;
pub(crate) mod gateway;
mod growth;
mod limit;
mod manager;
pub(crate) mod place;
mod programme;
mod samples;

use std::fs;
use std::path::Path;
use std::sync::mpsc;
use std::thread;
use std::time::Instant;

use anyhow::{Context, ensure};
use lab::Lab;
use lab::capsule::Capsule;

use self::account::Account;
use self::fault::{Deck, Progress};
use self::gateway::Gateway;
use self::growth::Growths;
use self::place::Place;
use crate::binaries::Binaries;
use crate::cli::SoakOptions;
use crate::device::Device;
use crate::judge::control;
use crate::record::Record;
use crate::scenario::Scenario;
use crate::stage::gateway::sleep_until;
use crate::stage::namespaces::{Stage, Troupe, Wires, build, epoch_us, frames, now};
use crate::stage::{House, site};

pub use account::Interval;
pub(crate) use daemon::{CLOCK, Watched, mount};
pub use document::Document;
pub use fault::{Fault, Incident};
pub use growth::Growth;
pub use programme::{round, round_lasting};
pub use samples::Sample;

/// The hidden command by which this program soaks inside a capsule.
pub const INSIDE: &str = "soak-inside";

/// Undecided packets of anybody are dropped while no daemon can judge them: hosts go on giving themselves
/// away in every round, and would be met by nobody.
const WHEN_DOWN: &str = "when_down = \"drop\"";

/// Where the daemons' log goes.
const LOG: &str = "ftwall.log";

/// Why no round can be played on this machine; none if one can.
#[must_use]
pub fn obstacle(device: Device) -> Option<String> {
    House::probe().obstacle(&round(), device)
}

/// Soaks in a capsule of its own; returns whether everything held.
///
/// # Errors
/// When this machine cannot do it, or something went wrong that is neither the device nor the web.
pub fn run(options: &SoakOptions) -> anyhow::Result<bool> {
    let words = [
        INSIDE.to_owned(),
        format!("--minutes={}", options.minutes),
        format!("--seed={}", options.seed),
        format!("--slowness={}", options.slowness),
    ];
    run_inside(options.device, &options.out, words)
}

/// Runs this program with these words in a capsule, told of the device and of where its reports go; returns
/// whether it held.
///
/// # Errors
/// When this machine cannot do it.
pub(crate) fn run_inside(
    device: Device,
    out: &Path,
    words: impl IntoIterator<Item = String>,
) -> anyhow::Result<bool> {
    Binaries::find()?;
    if let Some(why) = obstacle(device) {
        anyhow::bail!("this cannot be played here: {why}");
    }
    fs::create_dir_all(out).with_context(|| format!("creating {}", out.display()))?;
    let out = std::path::absolute(out).context("the path of the directory")?;
    let told = [
        format!("--dut={device}"),
        format!("--out={}", out.display()),
    ];
    let arguments = words.into_iter().chain(told);
    Ok(Capsule::current_exe(arguments)?.status()?.success())
}

/// Soaks in the capsule this process runs in; returns whether everything held.
///
/// # Errors
/// When the stage cannot be set or a program does not do what it is there for.
pub fn play_inside(options: &SoakOptions) -> anyhow::Result<bool> {
    ensure!(
        lab::capsule::is_inside(),
        "this command works inside a capsule only; use `soak`"
    );
    let binaries = Binaries::find()?;
    let scenario = round().on_a_machine_so_slow(options.slowness);
    let mut document = Document::new(options);
    let control_run = Stage {
        scenario: &scenario,
        device: Device::None,
        seed: options.seed,
        binaries: &binaries,
        keep: None,
    }
    .run()
    .context("without a device")?
    .judgeable(&site(&scenario, options.seed)?);
    let terms = scenario.terms();
    let void = control(&terms, &control_run);
    let mut account = Account::new(terms, &control_run);
    if void.is_empty() {
        println!("without a device everybody made contact");
        Soak {
            options,
            scenario: &scenario,
            binaries: &binaries,
        }
        .play(&mut account, &mut document)?;
    }
    account.findings.extend(void);
    document.conclude(account);
    document.write(&options.out)?;
    for finding in &document.findings {
        println!("{finding}");
    }
    if !document.growths.is_memory_judged {
        println!("memory was not judged: no daemon lived for twenty minutes");
    }
    println!("{document}");
    Ok(document.has_held())
}

/// A soak to be made, once it is known to show something.
struct Soak<'a> {
    options: &'a SoakOptions,
    scenario: &'a Scenario,
    binaries: &'a Binaries,
}

impl Soak<'_> {
    fn play(&self, account: &mut Account, document: &mut Document) -> anyhow::Result<()> {
        let (place, watched) = (Place::new("soak", WHEN_DOWN)?, Watched::default());
        let (daemon, metrics) = (&watched, place.metrics());
        let lab = build(self.scenario, self.options.seed)?;
        let program = &self.binaries.ftwall;
        let mut gateway = Gateway::start(&lab, self.options.device, program, &place, &watched)?;
        document.began_us = epoch_us();
        // Dropped when the rounds are over, however they end: that stops the other thread.
        let (going_on, stop) = mpsc::channel();
        thread::scope(|scope| {
            let watching = scope.spawn(move || samples::watch(daemon, &metrics, &stop));
            let played = self.play_rounds(&lab, &mut gateway, account, document);
            drop(going_on);
            document.samples = watching.join().expect("watching does not panic");
            // What was seen until then is worth keeping.
            let broken = played.err().map(|error| format!("{error:#}"));
            document.mishaps.extend(broken);
        });
        let (log, complaints) = gateway.stop()?;
        document.mishaps.extend(complaints);
        document.growths = Growths::of(&document.samples);
        let file = self.options.out.join(LOG);
        fs::write(&file, log).with_context(|| format!("writing {}", file.display()))
    }

    fn play_rounds(
        &self,
        lab: &Lab,
        gateway: &mut Gateway<'_>,
        account: &mut Account,
        document: &mut Document,
    ) -> anyhow::Result<()> {
        let mut deck = Deck::new(self.options.seed, self.options.device);
        let (began, length) = (now(), self.options.length());
        loop {
            let elapsed = now().saturating_duration_since(began);
            if elapsed >= length {
                return Ok(());
            }
            document.rounds += 1;
            let fault = deck.draw(Progress { elapsed, length });
            let (instant, outage) = deck.times();
            // What clients draw differs from round to round, and so do the peers they know.
            let seed = self.options.seed + u64::from(document.rounds);
            let round = Round {
                lab,
                scenario: self.scenario,
                seed,
                simulator: &self.binaries.simulator,
                peers_only: false,
            };
            let (record, mut incident) = round.play(|began| {
                sleep_until(began + instant);
                gateway.suffer(fault, outage)
            })?;
            let before = account.findings.len();
            let site = site(self.scenario, seed)?;
            account.enter(&site, record, std::slice::from_mut(&mut incident));
            println!(
                "{:>6.0} s {}",
                elapsed.as_secs_f64(),
                document::line(&incident)
            );
            for finding in &account.findings[before..] {
                println!("         {finding}");
            }
            document.faults.push(incident);
        }
    }
}

/// One round on a network that stands.
pub(crate) struct Round<'a> {
    pub(crate) lab: &'a Lab,
    pub(crate) scenario: &'a Scenario,
    pub(crate) seed: u64,
    pub(crate) simulator: &'a Path,
    /// Whether the wires record what goes to peers and comes from them only: nothing else is judged by them.
    pub(crate) peers_only: bool,
}

impl Round<'_> {
    /// Plays it while something is done from the moment on that is passed; returns what that came to.
    pub(crate) fn play<T>(
        &self,
        meanwhile: impl FnOnce(Instant) -> anyhow::Result<T>,
    ) -> anyhow::Result<(Record, T)> {
        let wires = Wires::record(self.lab, self.peers_only)?;
        let mut troupe = Troupe::open(self.lab, self.scenario, self.seed, self.simulator)?;
        let mut record = Record {
            began_us: epoch_us(),
            ..Record::default()
        };
        let began = now();
        troupe.enter()?;
        let done = meanwhile(began)?;
        record.mishaps = troupe.await_end(self.scenario.longest());
        record.evidence.ended_us = epoch_us();
        troupe.close(&mut record);
        let (inside, outside) = wires.stop()?;
        record.evidence.lost_frames = inside.lost.saturating_add(outside.lost);
        record.evidence.inside = frames(inside);
        record.evidence.outside = frames(outside);
        Ok((record, done))
    }
}
