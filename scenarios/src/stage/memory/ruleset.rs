//! The kernel's part of the gateway: an interpreter of the nft commands that ftwall renders.
//!
//! It reads the very JSON that the daemon hands to `nft`, so that rules and daemon are tested together
//! where there is no kernel. Commands are compiled once; a packet meets enums and hashed sets, and
//! nothing is allocated for it. What is not known here is an error that names it, never passed over.
//!
//! Semantics follow nft(8): a rule ends at its first test that is false or cannot be made; tests of a
//! rule stand before its statements.

mod compile;
mod expression;
mod set;
mod view;

use std::cell::Cell;
use std::time::Duration;

use serde_json::Value;
use thiserror::Error;

use compile::Command;
use expression::{Statement, Test};
use set::Set;
pub use view::{TCP, UDP, View};

/// Why a command was refused. Nothing of its transaction took effect.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum RulesetError {
    /// The interpreter does not know this, as it stands in the command.
    #[error("the interpreter does not know {what}: {text}")]
    Unknown {
        /// The kind of thing.
        what: &'static str,
        /// Its JSON.
        text: String,
    },
    /// The command names something that is not there.
    #[error("there is no {kind} {name}")]
    Missing {
        /// What was to be there.
        kind: &'static str,
        /// Its name.
        name: String,
    },
    /// A set holds as many elements as it may.
    #[error("set {0} is full")]
    Full(String),
}

/// What a connection is to its packet, as far as rules can ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tracked {
    /// The connection's mark; rules change it.
    pub mark: u32,
    /// No packet has travelled against the initiator yet.
    pub is_new: bool,
    /// The packet travels against the initiator.
    pub is_reply: bool,
}

/// One packet on its way through the hook.
#[derive(Debug, Clone, Copy)]
pub struct Passage<'a> {
    /// The packet.
    pub packet: View<'a>,
    /// The packet's mark; rules change it.
    pub mark: u32,
    /// Its connection; none if conntrack calls it invalid.
    pub connection: Option<Tracked>,
}

/// What becomes of a packet at one station of its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Station {
    /// No chain objects: it is forwarded.
    Accepted,
    /// A rule, or a chain's policy, drops it.
    Dropped,
    /// It is handed to a queue. If it comes back it resumes at chain number `resume`.
    Queued {
        /// The queue's number.
        number: u16,
        /// It resumes, too, where nobody listens to the queue.
        bypass: bool,
        /// For [`Ruleset::resume`].
        resume: usize,
    },
}

/// The rules and sets of one table.
#[derive(Debug, Clone, Default)]
pub struct Ruleset {
    exists: bool,
    chains: Vec<Chain>,
    /// Chains that the forward hook enters, in order of priority.
    entrances: Vec<usize>,
    sets: Vec<Set>,
}

#[derive(Debug, Clone)]
struct Chain {
    name: String,
    /// Priority among the chains of the hook; none for chains that rules jump to.
    priority: Option<i64>,
    /// Met by the gateway's own packets only: its rules are not kept.
    is_elsewhere: bool,
    drops_by_policy: bool,
    rules: Vec<Rule>,
}

#[derive(Debug, Clone)]
struct Rule {
    comment: String,
    tests: Box<[Test]>,
    statements: Box<[Statement]>,
    /// Packets that met every test. A cell, so that a rule is not borrowed for writing while its sets
    /// are read.
    packets: Cell<u64>,
}

impl Ruleset {
    /// A kernel without any rule.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Carries out commands in one transaction: all of them or none.
    ///
    /// # Errors
    /// The first command that is unknown or impossible.
    pub fn apply(&mut self, now: Duration, commands: &[Value]) -> Result<(), RulesetError> {
        if commands.iter().all(compile::concerns_elements) {
            return self.apply_to_elements(now, commands);
        }
        let mut changed = self.clone();
        for command in commands {
            let command = compile::command(command, &changed.chains, &changed.sets)?;
            changed.carry_out(now, command)?;
        }
        *self = changed;
        Ok(())
    }

    /// Sends a packet through all chains of the forward hook.
    pub fn enter(&self, now: Duration, passage: &mut Passage<'_>) -> Station {
        self.resume(now, passage, 0)
    }

    /// Sends a packet through the chains of the forward hook from number `from` on.
    pub fn resume(&self, now: Duration, passage: &mut Passage<'_>, from: usize) -> Station {
        for (place, entrance) in self.entrances.iter().enumerate().skip(from) {
            let chain = &self.chains[*entrance];
            match self.walk(chain, now, passage) {
                Some(Verdict::Accept) => {}
                None if !chain.drops_by_policy => {}
                Some(Verdict::Drop) | None => return Station::Dropped,
                Some(Verdict::Queue { number, bypass }) => {
                    let resume = place + 1;
                    return Station::Queued {
                        number,
                        bypass,
                        resume,
                    };
                }
            }
        }
        Station::Accepted
    }

    /// Packets that met every test of the rules with this comment; none if no rule has it.
    #[must_use]
    pub fn packets(&self, comment: &str) -> Option<u64> {
        let rules = self.chains.iter().flat_map(|chain| &chain.rules);
        let counts = rules.filter(|rule| rule.comment == comment);
        counts
            .map(|rule| rule.packets.get())
            .reduce(|sum, count| sum + count)
    }

    /// Every rule's chain, comment and packets, in order.
    pub fn counters(&self) -> impl Iterator<Item = (&str, &str, u64)> {
        self.chains.iter().flat_map(|chain| {
            let rules = chain.rules.iter();
            rules.map(|rule| (&*chain.name, &*rule.comment, rule.packets.get()))
        })
    }

    /// Elements of a set that have not run out; none if there is no such set.
    #[must_use]
    pub fn elements(&self, set: &str, now: Duration) -> Option<usize> {
        let set = self.sets.iter().find(|each| each.name == set)?;
        Some(set.len(now))
    }

    /// Elements of a set that leave by themselves, field by field, and how long each still stays.
    pub fn leaving(&self, set: &str, now: Duration) -> impl Iterator<Item = (&[u32], Duration)> {
        let set = self.sets.iter().find(|each| each.name == set);
        let elements = set.into_iter().flat_map(move |set| set.leaving(now));
        elements.map(|(key, left)| (key.as_slice(), left))
    }

    /// `None` at the end of the chain, or where a rule returns from it.
    fn walk(&self, chain: &Chain, now: Duration, passage: &mut Passage<'_>) -> Option<Verdict> {
        for rule in &chain.rules {
            let holds = |test: &Test| test.holds(passage, &self.sets, now);
            if !rule.tests.iter().all(holds) {
                continue;
            }
            rule.packets.set(rule.packets.get() + 1);
            for statement in &rule.statements {
                match *statement {
                    Statement::Count => {}
                    Statement::MarkPacket(change) => passage.mark = change.applied(passage.mark),
                    Statement::MarkConnection(change) => match &mut passage.connection {
                        Some(connection) => connection.mark = change.applied(connection.mark),
                        None => break,
                    },
                    Statement::Accept => return Some(Verdict::Accept),
                    Statement::Drop => return Some(Verdict::Drop),
                    Statement::Queue { number, bypass } => {
                        return Some(Verdict::Queue { number, bypass });
                    }
                    Statement::Return => return None,
                    Statement::Goto(target) => {
                        return self.walk(&self.chains[target], now, passage);
                    }
                    Statement::Jump(target) => {
                        let verdict = self.walk(&self.chains[target], now, passage);
                        if verdict.is_some() {
                            return verdict;
                        }
                    }
                }
            }
        }
        None
    }

    /// Changes of elements are frequent and sets are large: undone if one fails, instead of copied.
    fn apply_to_elements(&mut self, now: Duration, commands: &[Value]) -> Result<(), RulesetError> {
        let mut undo = Vec::new();
        let mut change = || -> Result<(), RulesetError> {
            for command in commands {
                let command = compile::command(command, &self.chains, &self.sets)?;
                if let Command::ChangeElements { set, changes } = command {
                    for change in changes {
                        undo.push((set, self.sets[set].change(now, &change)?));
                    }
                }
            }
            Ok(())
        };
        let changed = change();
        if changed.is_err() {
            for (set, before) in undo.into_iter().rev() {
                self.sets[set].restore(before);
            }
        }
        changed
    }

    fn carry_out(&mut self, now: Duration, command: Command) -> Result<(), RulesetError> {
        let is_table = matches!(command, Command::AddTable | Command::DeleteTable);
        if !self.exists && !is_table {
            return Err(compile::missing("table", "that is filled"));
        }
        match command {
            Command::AddTable => self.exists = true,
            Command::DeleteTable => *self = Self::new(),
            Command::FlushTable => {
                self.chains.iter_mut().for_each(|chain| chain.rules.clear());
            }
            Command::AddChain(chain) => {
                if !self.chains.iter().any(|known| known.name == chain.name) {
                    self.chains.push(chain);
                    self.sort_entrances();
                }
            }
            Command::Elsewhere => {}
            Command::FlushChain(chain) => self.chains[chain].rules.clear(),
            Command::AddRule { chain, rule } => self.chains[chain].rules.push(rule),
            Command::AddSet(set) => {
                if !self.sets.iter().any(|known| known.name == set.name) {
                    self.sets.push(set);
                }
            }
            Command::FlushSet(set) => self.sets[set].clear(),
            Command::ChangeElements { set, changes } => {
                for change in changes {
                    self.sets[set].change(now, &change)?;
                }
            }
        }
        Ok(())
    }

    fn sort_entrances(&mut self) {
        let numbered = self.chains.iter().enumerate();
        let mut entrances: Vec<_> = numbered
            .filter_map(|(number, chain)| Some((chain.priority?, number)))
            .collect();
        entrances.sort_unstable();
        self.entrances = entrances.into_iter().map(|(_, number)| number).collect();
    }
}

/// What ends a packet's way through one chain of the hook.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Accept,
    Drop,
    Queue { number: u16, bypass: bool },
}

#[cfg(test)]
mod tests;
