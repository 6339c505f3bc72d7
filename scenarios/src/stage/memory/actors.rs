//! Who acts on the virtual network: one file per kind of actor, each with the behaviour of the
//! program that plays the part in namespaces.

mod browser;
mod client;
mod downloader;
mod peers;
mod requests;
mod servers;

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::time::Duration;

pub(super) use browser::Browser;
pub(super) use client::Client;
pub(super) use downloader::{Downloader, SERVER as DOWNLOAD_SERVER};
pub(super) use peers::Peers;
pub(super) use servers::{Place, Servers};
use simulator::report::{Event, Line};

use super::gateway::EPOCH;
use super::script::Scripts;
use super::sockets::{Arrival, Sockets};

/// What every actor has before it.
#[derive(Debug)]
pub(super) struct Scene {
    /// Time since the stage was set.
    pub(super) now: Duration,
    /// Every socket.
    pub(super) sockets: Sockets,
    /// Conversations that clients have begun and servers are to answer.
    pub(super) scripts: Scripts,
    /// Hosts that have sent a FastTrack ping.
    pub(super) pinged: BTreeSet<Ipv4Addr>,
}

/// An actor: told what happened, and free to use its sockets.
pub(super) trait Actor {
    /// Its time has come to begin.
    fn start(&mut self, scene: &mut Scene);

    /// Something happened to one of its sockets.
    fn handle(&mut self, scene: &mut Scene, arrival: Arrival);

    /// Something may be due.
    fn handle_timeout(&mut self, scene: &mut Scene);

    /// When something is due.
    fn poll_timeout(&self, now: Duration) -> Option<Duration>;

    /// Whether it has ended of its own accord.
    fn is_done(&self) -> bool;

    /// It is told to end.
    fn stop(&mut self, scene: &mut Scene);

    /// What it reported.
    fn take_report(&mut self) -> Vec<Line>;
}

/// The report of an actor.
#[derive(Debug)]
struct Report {
    who: String,
    lines: Vec<Line>,
}

impl Report {
    fn new(who: &str) -> Self {
        Self {
            who: who.to_owned(),
            lines: Vec::new(),
        }
    }

    fn say(&mut self, now: Duration, event: Event) {
        self.lines.push(Line {
            t_us: micros(EPOCH + now),
            who: self.who.clone(),
            event,
        });
    }

    fn done(&mut self, now: Duration, reason: simulator::reporter::DoneReason) {
        let reason = reason.as_str().to_owned();
        self.say(now, Event::Done { reason });
    }
}

/// Whole microseconds, as reports have them.
pub(super) fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}
