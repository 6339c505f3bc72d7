//! The fault table: each fault on a gateway of its own, while every family of clients tries everything and
//! users go about their business beside them.
//!
//! First a round in which clients give themselves away and are locked, then one in which the fault happens.
//! Both are judged as a scenario of the catalogue is, by the same witnesses. What happens to any gateway, with
//! or without a device, is played without one too: only what comes on top of that is the device's doing.

mod document;
mod plan;
mod row;

use std::fs;
use std::path::Path;

use anyhow::{Context, ensure};

pub use document::Document;
pub use row::{End, HEADINGS, Outcome, Row};

use self::plan::Plan;
use crate::binaries::Binaries;
use crate::cli::FaultsOptions;
use crate::device::Device;
use crate::judge::{Finding, Run, Terms, control};
use crate::scenario::Scenario;
use crate::soak::account::Account;
use crate::soak::gateway::Gateway;
use crate::soak::{self, Fault, Incident, Round, Watched, round};
use crate::stage::gateway::sleep_until;
use crate::stage::namespaces::{Stage, build, epoch_us};
use crate::stage::site;

/// The hidden command by which this program plays faults inside a capsule.
pub const INSIDE: &str = "faults-inside";

/// Plays faults in a capsule of its own; returns whether everything held.
///
/// # Errors
/// When this machine cannot do it.
pub fn run(options: &FaultsOptions) -> anyhow::Result<bool> {
    let mut words = vec![
        INSIDE.to_owned(),
        format!("--seed={}", options.seed),
        format!("--slowness={}", options.slowness),
    ];
    let only = options.only.iter();
    words.extend(only.map(|fault| format!("--only={}", fault.name())));
    soak::run_inside(options.device, &options.out, words)
}

/// Plays faults in the capsule this process runs in; returns whether everything held.
///
/// # Errors
/// When the stage cannot be set or something cannot be written.
pub fn play_inside(options: &FaultsOptions) -> anyhow::Result<bool> {
    ensure!(
        lab::capsule::is_inside(),
        "this command works inside a capsule only; use `faults`"
    );
    let binaries = Binaries::find()?;
    let scenario = round().on_a_machine_so_slow(options.slowness);
    let usual = Stage {
        scenario: &scenario,
        device: Device::None,
        seed: options.seed,
        binaries: &binaries,
        keep: None,
    }
    .run()
    .context("without a device")?
    .judgeable(&site(&scenario, options.seed)?);
    let trial = Trial {
        options,
        scenario: &scenario,
        binaries: &binaries,
        terms: scenario.terms(),
        usual,
    };
    let mut document = Document::new(options);
    document.void = control(&trial.terms, &trial.usual);
    if document.void.is_empty() {
        println!("without a device everybody made contact");
        for fault in options.faults() {
            let row = trial.row(fault);
            println!("{row}");
            document.rows.push(row);
        }
    }
    document.write(&options.out)?;
    print!("{}", document.text());
    println!("{document}");
    Ok(document.has_held())
}

/// What all faults are played with.
struct Trial<'a> {
    options: &'a FaultsOptions,
    scenario: &'a Scenario,
    binaries: &'a Binaries,
    terms: Terms,
    /// The run without a device and without a fault.
    usual: Run,
}

/// What one play of a fault left.
struct Played {
    incident: Incident,
    account: Account,
    /// When the device said that nothing was wrong with it any more.
    whole_us: u64,
}

impl Trial<'_> {
    /// One fault, whatever comes of it.
    fn row(&self, fault: Fault) -> Row {
        if let Some(why) = self.obstacle(fault) {
            return Row::skipped(fault, why);
        }
        match self.outcome(fault) {
            Ok(outcome) => Row::played(fault, outcome),
            Err(error) => Row::failed(fault, format!("{error:#}")),
        }
    }

    fn obstacle(&self, fault: Fault) -> Option<String> {
        let device = self.options.device;
        if fault.needs_a_daemon() && device != Device::Ftwall {
            return Some(format!("device {device} has no daemon"));
        }
        plan::obstacle(fault)
    }

    fn outcome(&self, fault: Fault) -> anyhow::Result<Outcome> {
        let normal_us = if fault.needs_a_daemon() {
            0
        } else {
            let without = self.play(fault, Device::None);
            let without = without.context("without a device")?;
            without.incident.clean_hosts_cut_us
        };
        let played = self.play(fault, self.options.device)?;
        let slow_grace = self.scenario.slow_grace;
        let limit = row::limit(fault, slow_grace, self.options.slowness.get());
        Ok(Outcome::new(&played, normal_us, limit))
    }

    /// A network of its own, clients that give themselves away, and then the fault.
    fn play(&self, fault: Fault, device: Device) -> anyhow::Result<Played> {
        let plan = Plan::of(fault, device, self.options.slowness);
        let (place, watched) = (plan.place()?, Watched::default());
        let lab = build(self.scenario, self.options.seed)?;
        let program = &self.binaries.ftwall;
        let mut gateway = Gateway::start(&lab, device, program, &place, &watched)?;
        let mut account = Account::new(self.terms.clone(), &self.usual);
        let longer = plan.scenario();
        let round = |number| Round {
            lab: &lab,
            scenario: if number == 2 { &longer } else { self.scenario },
            seed: self.options.seed + number,
            simulator: &self.binaries.simulator,
            peers_only: plan.peers_only,
        };
        let site = |number| site(self.scenario, self.options.seed + number);
        if device == Device::Ftwall {
            let (record, ()) = round(1).play(|_| Ok(()))?;
            account.enter(&site(1)?, record, &mut []);
            let nobody = account.known() == 0;
            account.mishap(nobody.then(|| "nobody gave himself away".to_owned()));
        }
        let (record, (mut incident, whole_us)) = round(2).play(|began| {
            sleep_until(began + plan.at);
            let incident = gateway.suffer(fault, plan.outage)?;
            gateway.await_health()?;
            Ok((incident, epoch_us()))
        })?;
        account.enter(&site(2)?, record, std::slice::from_mut(&mut incident));
        let (log, complaints) = gateway.stop()?;
        account.mishap(complaints);
        self.keep_log(fault, device, &log)?;
        Ok(Played {
            incident,
            account,
            whole_us,
        })
    }

    fn keep_log(&self, fault: Fault, device: Device, log: &str) -> anyhow::Result<()> {
        if device == Device::None {
            return Ok(());
        }
        let file = log_file(&self.options.out, fault);
        fs::write(&file, log).with_context(|| format!("writing {}", file.display()))
    }
}

fn log_file(directory: &Path, fault: Fault) -> std::path::PathBuf {
    directory.join(format!("{}.log", fault.name()))
}

impl Account {
    /// Enters what went wrong with the device.
    fn mishap(&mut self, what: impl IntoIterator<Item = String>) {
        let mishaps = what.into_iter().map(|what| Finding::Mishap { what });
        self.findings.extend(mishaps);
    }
}
