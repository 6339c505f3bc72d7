//! Signs of life for the service manager, given only while every worker comes round.

use std::fmt;
use std::time::Duration;

use super::service_manager::ServiceManager;
use crate::Timestamp;

/// How often the status line is looked at where no sign of life is asked for.
const BETWEEN_STATUSES: Duration = Duration::from_secs(10);

/// What the service manager is told while the daemon runs.
#[derive(Debug)]
pub(super) struct Pulse {
    manager: ServiceManager,
    due: Timestamp,
    /// The status line that was said last.
    said: String,
}

impl Pulse {
    /// Begins at once.
    pub(super) const fn new(manager: ServiceManager) -> Self {
        Self {
            manager,
            due: Timestamp::ORIGIN,
            said: String::new(),
        }
    }

    /// Whom it goes to.
    pub(super) const fn manager(&self) -> &ServiceManager {
        &self.manager
    }

    /// Whether anybody wants to hear anything now.
    pub(super) fn is_due(&self, now: Timestamp) -> bool {
        self.manager.is_there() && self.due <= now
    }

    /// Says how the daemon is, and that it lives if `all_move`.
    pub(super) fn beat(&mut self, now: Timestamp, all_move: bool, status: impl fmt::Display) {
        let interval = self.manager.watchdog_interval();
        self.due = now + interval.unwrap_or(BETWEEN_STATUSES);
        if all_move && interval.is_some() {
            self.manager.alive();
        }
        let status = status.to_string();
        if status != self.said {
            self.manager.status(&status);
            self.said = status;
        }
    }
}
