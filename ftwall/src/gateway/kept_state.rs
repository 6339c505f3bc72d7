//! What is kept over a restart, as far as starting and ending a daemon are concerned.

use std::path::PathBuf;

use anyhow::Context as _;
use tracing::warn;

use super::clock::Clock;
use super::event_log::EventSender;
use super::take_over;
use crate::Timestamp;
use crate::control::events::Notice;
use crate::state::{self, Found, Kept, Recorder, SetAside, StateKeeper};

/// What is kept over a restart, and what is to be said of it once the daemon is ready.
#[derive(Default)]
pub(super) struct KeptState {
    /// What was found.
    pub(super) kept: Vec<Kept>,
    keeper: Option<StateKeeper>,
    notices: Vec<Notice>,
}

impl KeptState {
    /// Reads what was kept in `directory`; one that cannot be used costs no more than that.
    pub(super) fn open(directory: Option<PathBuf>, clock: Clock, events: EventSender) -> KeptState {
        let Some(directory) = directory else {
            return KeptState::default();
        };
        let Found { kept, set_aside } = state::open(&directory, Clock::wall());
        let mut notices = Vec::new();
        if let Some(SetAside { message }) = set_aside {
            warn!(message, "kept state cannot be used");
            notices.push(Notice::StateSetAside { message });
        }
        if !kept.is_empty() {
            let (clients, peers) = take_over::count(&kept);
            notices.push(Notice::StateRestored { clients, peers });
        }
        KeptState {
            keeper: Some(StateKeeper::new(directory, &kept, clock, events)),
            kept,
            notices,
        }
    }

    /// A way to record changes, if anything is kept.
    pub(super) fn recorder(&self) -> Option<Recorder> {
        self.keeper.as_ref().map(StateKeeper::recorder)
    }

    /// Says what has to be said, and begins to write.
    pub(super) fn start(&mut self, now: Timestamp, events: &EventSender) -> anyhow::Result<()> {
        let notices = self.notices.drain(..);
        notices.for_each(|notice| events.notice(now, notice));
        let started = self.keeper.as_mut().map_or(Ok(()), StateKeeper::start);
        started.context("starting the thread that keeps state")
    }

    /// Waits until everything is written. All recorders have to be gone.
    pub(super) fn finish(self) {
        self.keeper.into_iter().for_each(StateKeeper::finish);
    }
}
