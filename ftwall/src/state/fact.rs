//! What is kept, and how it changes.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use ipnet::IpNet;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use crate::config::{Mode, NeverBlock};
use crate::{Action, Engine, Origin, Remembered, Timestamp};

/// Something that is known and has to be known again after a restart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Fact {
    /// This host is locked.
    Lock {
        /// The inside host.
        host: Ipv4Addr,
        /// What locked it.
        #[serde(deserialize_with = "origin")]
        origin: Origin,
    },
    /// This client is known to use this peer.
    Peer {
        /// The inside host.
        client: Ipv4Addr,
        /// The outside peer.
        peer: SocketAddrV4,
        /// How it came to be known.
        #[serde(deserialize_with = "origin")]
        origin: Origin,
    },
    /// The operator lets this through.
    Unblocked {
        /// What is let through.
        #[serde(with = "text")]
        target: NeverBlock,
    },
    /// The operator has set this mode.
    Mode {
        /// For these hosts.
        subnet: IpNet,
        /// The mode.
        mode: Mode,
    },
}

/// What a fact is about: there is one fact for each at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Key {
    /// A host that may be locked.
    Lock {
        /// The inside host.
        host: Ipv4Addr,
    },
    /// A client and a peer that may belong together.
    Peer {
        /// The inside host.
        client: Ipv4Addr,
        /// The outside peer.
        peer: SocketAddrV4,
    },
    /// What may be let through.
    Unblocked {
        /// As the operator named it.
        #[serde(with = "text")]
        target: NeverBlock,
    },
    /// Hosts whose mode may be set.
    Mode {
        /// The hosts.
        subnet: IpNet,
    },
}

/// One change of what is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// This holds from now on.
    Keep {
        /// What.
        fact: Fact,
        /// Until when by the daemon's clock; until it is taken back if absent.
        until: Option<Timestamp>,
    },
    /// This holds no longer.
    Forget(Key),
}

/// A fact that was kept over a restart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kept {
    /// What.
    pub fact: Fact,
    /// For how long from now on; until it is taken back if absent.
    pub left: Option<Duration>,
}

impl Fact {
    /// What it is about.
    #[must_use]
    pub const fn key(&self) -> Key {
        match *self {
            Self::Lock { host, .. } => Key::Lock { host },
            Self::Peer { client, peer, .. } => Key::Peer { client, peer },
            Self::Unblocked { target } => Key::Unblocked { target },
            Self::Mode { subnet, .. } => Key::Mode { subnet },
        }
    }
}

impl Change {
    /// What changes by something that `engine` has just asked for, if anything has to be remembered of it.
    #[must_use]
    pub fn of(action: &Action, engine: &Engine, now: Timestamp) -> Option<Self> {
        let origin = || engine.origin_of(action, now).unwrap_or(Origin::TakenOver);
        let (fact, for_) = match *action {
            Action::LockHost { host, for_ } => {
                let origin = origin();
                (Fact::Lock { host, origin }, for_)
            }
            Action::LearnPeer {
                client, peer, for_, ..
            } => {
                let origin = origin();
                (
                    Fact::Peer {
                        client,
                        peer,
                        origin,
                    },
                    for_,
                )
            }
            Action::ReleaseHost { host } => return Some(Self::Forget(Key::Lock { host })),
            Action::ForgetPeer { client, peer } => {
                return Some(Self::Forget(Key::Peer { client, peer }));
            }
            Action::ProveAddress { .. } | Action::Answer { .. } | Action::Probe { .. } => {
                return None;
            }
        };
        let until = Some(now + for_);
        Some(Self::Keep { fact, until })
    }
}

impl Kept {
    /// What an engine has to know of it, and how it came to be known.
    #[must_use]
    pub fn remembered(&self) -> Option<(Remembered, Origin)> {
        let for_ = self.left.unwrap_or(Duration::MAX);
        match self.fact {
            Fact::Lock { host, origin } => Some((Remembered::Locked { host, for_ }, origin)),
            Fact::Peer {
                client,
                peer,
                origin,
            } => Some((Remembered::Peer { client, peer, for_ }, origin)),
            Fact::Unblocked { .. } | Fact::Mode { .. } => None,
        }
    }
}

/// An origin that a later ftwall has written and this one does not know is no reason to forget a fact.
fn origin<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Origin, D::Error> {
    let written = Value::deserialize(deserializer)?;
    Ok(Origin::deserialize(written).unwrap_or(Origin::TakenOver))
}

/// What an operator names, as an operator writes it.
mod text {
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    use crate::config::NeverBlock;
    use crate::control::values::parse_never_block;

    pub(super) fn serialize<S: Serializer>(
        target: &NeverBlock,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_str(target)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<NeverBlock, D::Error> {
        let written = String::deserialize(deserializer)?;
        parse_never_block(&written).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Block, EngineConfig, Evidence};

    #[test]
    fn what_an_engine_asks_for_is_kept_with_its_origin_and_end() {
        let now = Timestamp::from_secs(100);
        let mut engine = Engine::new(EngineConfig::default(), 1);
        let host = Ipv4Addr::new(10, 77, 1, 1);
        let for_ = Duration::from_secs(60);
        engine
            .block(now, Block::Client(host), for_)
            .expect("it is inside");
        let action = engine.poll_action().expect("the kernel has to know");
        let fact = Fact::Lock {
            host,
            origin: Origin::Operator,
        };
        let until = Some(Timestamp::from_secs(160));
        assert_eq!(
            Change::of(&action, &engine, now),
            Some(Change::Keep { fact, until })
        );
        let released = Action::ReleaseHost { host };
        assert_eq!(
            Change::of(&released, &engine, now),
            Some(Change::Forget(fact.key()))
        );
    }

    #[test]
    fn evidence_of_a_later_version_is_no_reason_to_forget() {
        let written = r#"{"lock":{"host":"10.77.1.1","origin":{"evidence":"seen_in_a_dream"}}}"#;
        let host = Ipv4Addr::new(10, 77, 1, 1);
        let read: Fact = serde_json::from_str(written).expect("it is whole");
        let origin = Origin::TakenOver;
        assert_eq!(read, Fact::Lock { host, origin });
        let known = written.replace("seen_in_a_dream", "give");
        let read: Fact = serde_json::from_str(&known).expect("it is whole");
        let origin = Origin::Evidence(Evidence::Give);
        assert_eq!(read, Fact::Lock { host, origin });
    }
}
