//! When a fault happens, how long it lasts, and what a daemon is told that is to suffer it.

use std::fs;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::Context;

use crate::device::Device;
use crate::scenario::Scenario;
use crate::soak::place::Place;
use crate::soak::{CLOCK, Fault, connections, mount, round, round_lasting};

/// When it happens: everybody is busy by then.
const AT: Duration = Duration::from_secs(3);

/// How long the round is in which a thousand configurations are read.
const LONG_WINDOW: Duration = Duration::from_secs(60);

/// How one fault is played.
#[derive(Debug)]
pub(super) struct Plan {
    fault: Fault,
    name: String,
    slowness: NonZeroU32,
    /// When it happens, after the round has begun.
    pub(super) at: Duration,
    /// How long it takes where that is a matter of choice.
    pub(super) outage: Duration,
    /// Whether the wires record nothing but what goes to peers and comes from them.
    pub(super) peers_only: bool,
}

impl Plan {
    pub(super) fn of(fault: Fault, device: Device, slowness: NonZeroU32) -> Self {
        Self {
            fault,
            name: format!("{}-{device}", fault.name()),
            slowness,
            at: AT * slowness.get(),
            outage: outage(fault) * slowness.get(),
            peers_only: fault == Fault::ConntrackFull,
        }
    }

    /// The round in which it happens.
    pub(super) fn scenario(&self) -> Scenario {
        let scenario = match self.fault {
            Fault::ReloadOften => round_lasting(LONG_WINDOW),
            _ => round(),
        };
        scenario.on_a_machine_so_slow(self.slowness)
    }

    /// Where the daemon lives: everything as it is by default, but for what a slow machine or the fault
    /// itself needs.
    pub(super) fn place(&self) -> anyhow::Result<Place> {
        let mut settings = String::new();
        if self.slowness > NonZeroU32::MIN {
            // A worker that waits for a processor is not a worker that hangs.
            settings = format!("hung_after = \"{}s\"\n", self.slowness);
        }
        if self.fault == Fault::WorkerStuck {
            settings += "queues = 2\n";
        }
        let place = Place::new(&self.name, settings)?;
        if self.fault == Fault::DiskFull {
            let state = place.state().display().to_string();
            mount(&["-t", "tmpfs", "-o", SMALL_DISK, "tmpfs", &state])?;
        }
        if self.needs_the_store() {
            return Ok(place.with_store());
        }
        if self.fault == Fault::ClockJump {
            return with_a_clock_of_its_own(place);
        }
        Ok(place)
    }

    fn needs_the_store(&self) -> bool {
        matches!(self.fault, Fault::StoreRestart | Fault::BufferOverrun)
    }
}

/// How a disk is mounted that is soon full.
const SMALL_DISK: &str = "size=4m";

fn with_a_clock_of_its_own(place: Place) -> anyhow::Result<Place> {
    let library = false_clock().context("no library stands before the clock")?;
    let file = place.file(CLOCK);
    fs::write(&file, "+0").context("setting the clock")?;
    Ok(place
        .with_variable("LD_PRELOAD", library.display().to_string())
        .with_variable("FAKETIME_TIMESTAMP_FILE", file.display().to_string())
        .with_variable("FAKETIME_NO_CACHE", "1")
        .with_variable("FAKETIME_DONT_FAKE_MONOTONIC", "1"))
}

/// The library of `faketime`, which shows one process another time.
fn false_clock() -> Option<PathBuf> {
    let of_machine = fs::read_dir("/usr/lib").ok()?;
    let places = of_machine.filter_map(|entry| Some(entry.ok()?.path()));
    let mut files = places.map(|place| place.join("faketime/libfaketime.so.1"));
    files.find(|file| file.is_file())
}

/// Why a fault cannot be brought about on this machine.
pub(super) fn obstacle(fault: Fault) -> Option<String> {
    let lacks = |program: &str| {
        let tried = Command::new(program).arg("-V").output();
        tried
            .is_err()
            .then(|| format!("{program} is not installed"))
    };
    match fault {
        Fault::WorkerStuck => lacks("strace"),
        Fault::ClockJump if false_clock().is_none() => {
            Some("libfaketime is not installed, and a namespace has no clock of its own".to_owned())
        }
        Fault::ConntrackFull => connections::obstacle(),
        _ => None,
    }
}

fn outage(fault: Fault) -> Duration {
    match fault {
        // Several times as long as a daemon may hang before it is passed by.
        Fault::Stop | Fault::WorkerStuck => Duration::from_secs(4),
        Fault::Kill | Fault::StoreRestart => Duration::from_secs(1),
        Fault::LinkFlap | Fault::VerdictFlushed => Duration::from_millis(500),
        _ => Duration::from_secs(2),
    }
}
