//! What a daemon says of itself at one moment.

use std::path::Path;

use serde_json::Value;

use crate::Timestamp;
use crate::control::client::ask;
use crate::control::wire::{Command, Failure};

/// Rows asked for; nobody scrolls further.
const MOST_PEERS: usize = 1_000;

/// The answers to three questions.
#[derive(Debug, Clone)]
pub(super) struct Sample {
    /// When they were asked.
    pub(super) at: Timestamp,
    /// `status`.
    pub(super) status: Value,
    /// `clients`.
    pub(super) clients: Vec<Value>,
    /// `peers`, the first of them.
    pub(super) peers: Vec<Value>,
}

impl Sample {
    /// Asks the daemon that listens at `socket`.
    ///
    /// # Errors
    /// When none answers.
    pub(super) fn take(socket: &Path, at: Timestamp) -> Result<Self, Failure> {
        let limit = MOST_PEERS;
        Ok(Self {
            at,
            status: ask(socket, Command::Status)?,
            clients: rows(ask(socket, Command::Clients)?),
            peers: rows(ask(socket, Command::Peers { limit })?),
        })
    }

    /// Packets by `action/reason`, since the daemon's start.
    pub(super) fn verdicts(&self) -> impl Iterator<Item = (&str, u64)> {
        let counted = self.status["counted"]["verdicts"].as_object();
        let counted = counted.into_iter().flatten();
        counted.map(|(name, count)| (name.as_str(), count.as_u64().unwrap_or(0)))
    }

    /// A number of the status, by the names that lead to it.
    pub(super) fn number(&self, path: &[&str]) -> u64 {
        let found = path.iter().fold(&self.status, |value, name| &value[*name]);
        found.as_u64().unwrap_or(0)
    }
}

fn rows(list: Value) -> Vec<Value> {
    match list {
        Value::Array(rows) => rows,
        _ => Vec::new(),
    }
}
