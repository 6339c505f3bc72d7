//! Sets: networks, and hashed elements that leave by themselves.

use std::collections::HashMap;
use std::time::Duration;

use super::RulesetError;

/// The most fields a key can have.
pub(super) const LONGEST_KEY: usize = 4;

/// A key: its fields one after the other, zeros behind.
pub(super) type Key = [u32; LONGEST_KEY];

/// What one field of a key is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Field {
    Address,
    Protocol,
    Port,
    Mark,
}

/// A named set.
#[derive(Debug, Clone)]
pub(super) struct Set {
    pub(super) name: String,
    pub(super) fields: Vec<Field>,
    pub(super) content: Content,
}

#[derive(Debug, Clone)]
pub(super) enum Content {
    /// First and last address of each network.
    Networks(Vec<(u32, u32)>),
    /// Keys and when they run out, if ever.
    Hashed {
        elements: HashMap<Key, Option<Duration>, foldhash::fast::FixedState>,
        size: Option<usize>,
    },
}

/// One change of a set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Change {
    AddNetwork(u32, u32),
    /// Adds an element that leaves after so long, if ever; one that is there stays as it is.
    Add(Key, Option<Duration>),
    Delete(Key),
}

/// What an element was before it was changed.
#[derive(Debug)]
pub(super) struct Before(Key, Option<Option<Duration>>);

impl Set {
    pub(super) fn contains(&self, key: &Key, now: Duration) -> bool {
        match &self.content {
            Content::Networks(networks) => {
                let holds = |(first, last): &(u32, u32)| (*first..=*last).contains(&key[0]);
                networks.iter().any(holds)
            }
            Content::Hashed { elements, .. } => elements
                .get(key)
                .is_some_and(|expiry| is_alive(*expiry, now)),
        }
    }

    pub(super) fn len(&self, now: Duration) -> usize {
        match &self.content {
            Content::Networks(networks) => networks.len(),
            Content::Hashed { elements, .. } => {
                let alive = elements.values().filter(|expiry| is_alive(**expiry, now));
                alive.count()
            }
        }
    }

    /// Keys of elements that leave by themselves, and how long each still stays.
    pub(super) fn leaving(&self, now: Duration) -> impl Iterator<Item = (&Key, Duration)> {
        let elements = match &self.content {
            Content::Networks(_) => None,
            Content::Hashed { elements, .. } => Some(elements),
        };
        elements
            .into_iter()
            .flatten()
            .filter_map(move |(key, expiry)| {
                let left = (*expiry)?.checked_sub(now)?;
                (!left.is_zero()).then_some((key, left))
            })
    }

    pub(super) fn clear(&mut self) {
        match &mut self.content {
            Content::Networks(networks) => networks.clear(),
            Content::Hashed { elements, .. } => elements.clear(),
        }
    }

    pub(super) fn change(
        &mut self,
        now: Duration,
        change: &Change,
    ) -> Result<Before, RulesetError> {
        match (change, &mut self.content) {
            (Change::AddNetwork(first, last), Content::Networks(networks)) => {
                networks.push((*first, *last));
                Ok(Before([0; LONGEST_KEY], None))
            }
            (Change::Add(key, stays), Content::Hashed { elements, size }) => {
                let before = elements.get(key).copied();
                if before.is_some_and(|expiry| is_alive(expiry, now)) {
                    return Ok(Before(*key, before));
                }
                if size.is_some_and(|size| elements.len() >= size) {
                    elements.retain(|_, expiry| is_alive(*expiry, now));
                }
                if size.is_some_and(|size| elements.len() >= size) {
                    return Err(RulesetError::Full(self.name.clone()));
                }
                elements.insert(*key, stays.map(|stays| now + stays));
                Ok(Before(*key, before))
            }
            (Change::Delete(key), Content::Hashed { elements, .. }) => {
                let before = elements.remove(key);
                if before.is_none_or(|expiry| !is_alive(expiry, now)) {
                    return Err(super::compile::missing("element in set", &self.name));
                }
                Ok(Before(*key, before))
            }
            (change, _) => Err(RulesetError::Unknown {
                what: "this change of this kind of set",
                text: format!("{change:?} of {}", self.name),
            }),
        }
    }

    /// Takes a change of a hashed set back.
    pub(super) fn restore(&mut self, Before(key, before): Before) {
        if let Content::Hashed { elements, .. } = &mut self.content {
            match before {
                Some(expiry) => elements.insert(key, expiry),
                None => elements.remove(&key),
            };
        }
    }
}

fn is_alive(expiry: Option<Duration>, now: Duration) -> bool {
    expiry.is_none_or(|expiry| now < expiry)
}
