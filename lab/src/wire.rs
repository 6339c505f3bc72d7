//! A link emulator in user space: delay, loss, duplication, reordering and rate on any kernel.
//!
//! Two packet sockets in a namespace between two others, and one thread. What happens to a frame is
//! decided by the pure `emulator`; this file gives it frames and the time. The kernel's netem would be
//! faster, is missing on some kernels, and mixes all flows into one stream of draws, so that a single
//! stray frame changes everybody's fate.

mod emulator;
mod fate;

use std::{
    fmt, io,
    os::fd::{AsFd, OwnedFd},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use rustix::{
    event::{EventfdFlags, PollFd, PollFlags, eventfd, poll},
    time::Timespec,
};

use crate::{
    capture::raise,
    live::Node,
    packet_socket::{Outgoing, PacketSocket},
};
pub use emulator::{Direction, Emulator};

/// What a wire does to the frames of each direction. ARP frames are let through untouched and at once.
#[derive(Debug, Clone, PartialEq)]
pub struct WireSettings {
    /// Time each frame takes, one way.
    pub delay: Duration,
    /// Share of frames lost, in percent.
    pub loss_pct: f64,
    /// Share of frames delivered twice, in percent.
    pub duplicate_pct: f64,
    /// Share of frames held back for [`WireSettings::REORDER_HOLD`], in percent: later ones overtake.
    pub reorder_pct: f64,
    /// Bits per second of Ethernet frames; frames that would have to queue for more than
    /// [`WireSettings::LONGEST_QUEUE`] are dropped. `None` for no limit.
    pub rate_bits_per_second: Option<u64>,
    /// Decides the fates. A frame's fate depends on this, on its flow and on its place in the flow.
    pub seed: u64,
}

impl WireSettings {
    /// How long a frame that is to be overtaken waits in addition.
    pub const REORDER_HOLD: Duration = Duration::from_millis(5);
    /// Longest time in the queue in front of a limited rate.
    pub const LONGEST_QUEUE: Duration = Duration::from_millis(500);

    pub(crate) fn percentages_are_sane(&self) -> bool {
        [self.loss_pct, self.duplicate_pct, self.reorder_pct]
            .iter()
            .all(|pct| (0.0..=100.0).contains(pct))
    }
}

impl Default for WireSettings {
    /// A perfect wire.
    fn default() -> Self {
        Self {
            delay: Duration::ZERO,
            loss_pct: 0.0,
            duplicate_pct: 0.0,
            reorder_pct: 0.0,
            rate_bits_per_second: None,
            seed: 0,
        }
    }
}

impl fmt::Display for WireSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "delay {:?}", self.delay)?;
        let shares = [
            ("loss", self.loss_pct),
            ("duplicates", self.duplicate_pct),
            ("reorder", self.reorder_pct),
        ];
        for (what, pct) in shares.into_iter().filter(|(_, pct)| *pct > 0.0) {
            write!(f, ", {what} {pct} %")?;
        }
        if let Some(rate) = self.rate_bits_per_second {
            write!(f, ", {rate} bit/s")?;
        }
        write!(f, ", seed {}", self.seed)
    }
}

/// What a wire has done so far; "left" is the side of the interface that was linked first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct WireReport {
    /// Frames that entered on the left.
    pub left_to_right: DirectionReport,
    /// Frames that entered on the right.
    pub right_to_left: DirectionReport,
}

/// Counts of frames in one direction.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct DirectionReport {
    /// Entered.
    pub received: u64,
    /// Lost by lot.
    pub lost: u64,
    /// Delivered twice by lot.
    pub duplicated: u64,
    /// Held back by lot.
    pub reordered: u64,
    /// Dropped because the queue in front of the rate was too long.
    pub overflowed: u64,
    /// Handed to the kernel on the other side.
    pub sent: u64,
    /// Refused by the kernel on the other side.
    pub refused: u64,
}

/// A wire at work. Dropping it ends its thread and cuts the link.
#[derive(Debug)]
pub(crate) struct Wire {
    name: String,
    stop: Arc<OwnedFd>,
    report: Arc<Mutex<WireReport>>,
    thread: Option<JoinHandle<io::Result<()>>>,
}

impl Wire {
    /// Joins two interfaces of `node`.
    pub(crate) fn start(
        node: &Node,
        interfaces: &[String; 2],
        settings: &WireSettings,
    ) -> io::Result<Self> {
        let [left, right] = interfaces;
        let sockets = node.enter(|| -> io::Result<_> {
            Ok([
                PacketSocket::open(left, Outgoing::Ignored)?,
                PacketSocket::open(right, Outgoing::Ignored)?,
            ])
        })??;
        let stop = Arc::new(eventfd(0, EventfdFlags::CLOEXEC)?);
        let report = Arc::new(Mutex::new(WireReport::default()));
        let relay = Relay {
            sockets,
            stop: Arc::clone(&stop),
            report: Arc::clone(&report),
            emulator: Emulator::new(settings.clone()),
            buffer: vec![0; LONGEST_FRAME],
            started: now(),
        };
        let name = node.name().to_owned();
        let thread = std::thread::Builder::new()
            .name(format!("wire {name}"))
            .spawn(move || relay.run())?;
        Ok(Self {
            name,
            stop,
            report,
            thread: Some(thread),
        })
    }

    pub(crate) fn report(&self) -> WireReport {
        *lock(&self.report)
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        let Some(thread) = self.thread.take() else {
            return;
        };
        let ended = raise(&self.stop).and_then(|()| {
            thread
                .join()
                .unwrap_or_else(|_| Err(io::Error::other("panic")))
        });
        if let Err(error) = ended {
            tracing::warn!(wire = %self.name, %error, "a wire did not end well");
        }
    }
}

/// Offloads are off at the outer ends, so no frame is longer than an MTU; room for jumbo frames.
const LONGEST_FRAME: usize = 1 << 16;
/// Frames taken from one side before the other side and due frames get their turn.
const BATCH: usize = 64;

/// The shell around the emulator.
struct Relay {
    sockets: [PacketSocket; 2],
    stop: Arc<OwnedFd>,
    report: Arc<Mutex<WireReport>>,
    emulator: Emulator,
    buffer: Vec<u8>,
    started: Instant,
}

impl Relay {
    fn run(mut self) -> io::Result<()> {
        while !self.wait()? {
            for direction in Direction::BOTH {
                self.take_in(direction)?;
            }
            self.hand_out();
            *lock(&self.report) = self.emulator.report();
        }
        Ok(())
    }

    /// Waits until frames arrive, one is due or the sign to stop comes; says whether it was the latter.
    fn wait(&self) -> io::Result<bool> {
        let timeout = self
            .emulator
            .next_due()
            .map(|due| due.saturating_sub(self.now()));
        let timeout = timeout
            .map(Timespec::try_from)
            .transpose()
            .map_err(io::Error::other)?;
        let [left, right] = &self.sockets;
        let mut fds = [
            PollFd::new(&*self.stop, PollFlags::IN),
            PollFd::from_borrowed_fd(left.as_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(right.as_fd(), PollFlags::IN),
        ];
        rustix::io::retry_on_intr(|| poll(&mut fds, timeout.as_ref()))?;
        Ok(!fds[0].revents().is_empty())
    }

    fn take_in(&mut self, direction: Direction) -> io::Result<()> {
        for _ in 0..BATCH {
            let Some(received) = self.sockets[direction.from()].receive(&mut self.buffer)? else {
                break;
            };
            let now = self.now();
            let frame = &self.buffer[..received.length.min(self.buffer.len())];
            self.emulator.accept(now, direction, frame);
        }
        Ok(())
    }

    fn hand_out(&mut self) {
        let now = self.now();
        while let Some((direction, frame)) = self.emulator.poll_frame(now) {
            let sent = self.sockets[direction.to()].send(&frame);
            if let Err(error) = &sent {
                tracing::debug!(?direction, %error, "frame refused");
            }
            self.emulator.record_delivery(direction, sent.is_ok());
        }
    }

    fn now(&self) -> Duration {
        now().duration_since(self.started)
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the wire delays real frames: this is its one clock"
)]
fn now() -> Instant {
    Instant::now()
}

/// The report is plain numbers: whoever panicked while holding it left it whole.
fn lock(report: &Mutex<WireReport>) -> MutexGuard<'_, WireReport> {
    report.lock().unwrap_or_else(PoisonError::into_inner)
}
