//! What an engine is told of the one before it, and what has to be written down for the one after it.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use super::{Action, Engine, Remembered};
use crate::Timestamp;
use crate::config::NeverBlock;
use crate::suspects::{self, Origin};

impl Engine {
    /// How something that the engine has asked for came to be known; nothing if it is not known any more,
    /// or is nothing to be remembered.
    #[must_use]
    pub fn origin_of(&self, action: &Action, now: Timestamp) -> Option<Origin> {
        match *action {
            Action::LockHost { host, .. } => self.suspects.lock_origin(host, now),
            Action::LearnPeer { client, peer, .. } => self.suspects.peer_origin(client, peer, now),
            Action::ReleaseHost { .. }
            | Action::ForgetPeer { .. }
            | Action::ProveAddress { .. }
            | Action::Answer { .. }
            | Action::Probe { .. } => None,
        }
    }

    /// Takes over what the kernel holds, and why an earlier engine told it so. What is allowed or exempt by
    /// now is not taken over.
    pub fn recall(&mut self, now: Timestamp, left: Remembered, origin: Origin) {
        if self.is_no_longer_wanted(now, left) {
            return;
        }
        let (config, out) = (&self.config, &mut self.out);
        match left {
            Remembered::Locked { host, for_ } => {
                self.suspects
                    .remember_lock(config, host, (for_, origin), now, out);
            }
            Remembered::Peer { client, peer, for_ } => {
                let pair = (client, peer);
                self.suspects
                    .remember_peer(config, pair, (for_, origin), now, out);
            }
        }
    }

    /// As [`Self::recall`], for what the kernel does not hold: it is told by actions.
    pub fn restore(&mut self, now: Timestamp, left: Remembered, origin: Origin) {
        self.recall(now, left, origin);
        let out = &mut self.out;
        match left {
            Remembered::Locked { host, .. } => self.suspects.announce_lock(host, now, out),
            Remembered::Peer { client, peer, .. } => {
                self.suspects.announce_peer(client, peer, now, out);
            }
        }
    }

    /// Says that until now packets were dropped for want of an engine. Their senders repeat themselves, but
    /// may have more to say before they do.
    pub fn follow_gap(&mut self, now: Timestamp) {
        self.middles_until = now + REPEATED_WITHIN;
    }

    /// What the kernel's sets should hold at this moment, for a kernel that has lost them.
    #[must_use]
    pub fn announcements(&self, now: Timestamp) -> Vec<Action> {
        let mut actions = self.suspects.announcements(now);
        actions.retain(|action| self.is_to_be_done(action));
        actions
    }

    /// Goes on letting `target` through for what is left of the operator's word.
    pub fn restore_unblocked(&mut self, now: Timestamp, target: NeverBlock, for_: Duration) {
        self.by_hand.let_through(target, now + for_);
    }

    fn is_no_longer_wanted(&self, now: Timestamp, left: Remembered) -> bool {
        let passes = |host: Ipv4Addr| {
            let end = SocketAddr::from((host, 0));
            self.config.is_exempt(host.into()) || self.is_let_through(end, now).is_some()
        };
        match left {
            Remembered::Locked { host, .. } => passes(host),
            Remembered::Peer { client, peer, .. } => {
                passes(client)
                    || self.is_let_through(peer.into(), now).is_some()
                    || suspects::fixed_refusal(&self.config, peer).is_some()
            }
        }
    }
}

/// Within this time a sender repeats what got lost a moment ago: several times the least time that TCP waits
/// for a long line (RFC 6298).
const REPEATED_WITHIN: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use std::net::SocketAddrV4;

    use super::*;
    use crate::config::Mode;
    use crate::{EngineConfig, Evidence};

    const NOW: Timestamp = Timestamp::from_secs(100);
    const HOST: Ipv4Addr = Ipv4Addr::new(10, 77, 1, 1);
    const HOUR: Duration = Duration::from_secs(3600);

    #[test]
    fn a_lock_lasts_no_longer_than_a_new_one_unless_the_operator_said_so() {
        for (origin, seconds) in [
            (Origin::Evidence(Evidence::Give), 120),
            (Origin::TakenOver, 120),
            (Origin::Operator, 3600),
        ] {
            let mut engine = engine();
            engine.restore(NOW, lock(), origin);
            let clients = engine.clients(NOW);
            assert_eq!(clients[0].origin, origin);
            let until = NOW + Duration::from_secs(seconds);
            assert_eq!(clients[0].until, until, "{origin:?}");
            let for_ = Duration::from_secs(seconds);
            let told = Action::LockHost { host: HOST, for_ };
            assert_eq!(engine.origin_of(&told, NOW), Some(origin));
            assert_eq!(engine.poll_action(), Some(told));
        }
    }

    #[test]
    fn what_the_kernel_holds_it_is_not_told_again() {
        let mut engine = engine();
        engine.recall(NOW, lock(), Origin::Operator);
        assert_eq!(engine.clients(NOW).len(), 1);
        assert_eq!(engine.poll_action(), None);
    }

    #[test]
    fn what_is_allowed_by_now_is_not_locked_again() {
        let allowed: NeverBlock = ipnet::IpNet::from(std::net::IpAddr::V4(HOST)).into();
        let mut config = EngineConfig::default();
        config.allow.push(allowed);
        let mut by_file = Engine::new(config, 1);
        by_file.restore(NOW, lock(), Origin::TakenOver);
        let mut by_hand = engine();
        by_hand.restore_unblocked(NOW, allowed, HOUR);
        by_hand.restore(NOW, lock(), Origin::TakenOver);
        for mut engine in [by_file, by_hand] {
            assert!(engine.clients(NOW).is_empty());
            assert_eq!(engine.poll_action(), None);
        }
    }

    #[test]
    fn a_kernel_that_lost_its_sets_is_told_of_everything_that_is_enforced() {
        let peer = SocketAddrV4::new(Ipv4Addr::new(198, 18, 0, 1), 1214);
        let known = Remembered::Peer {
            client: HOST,
            peer,
            for_: HOUR,
        };
        for (mode, told) in [(Mode::Enforce, 2), (Mode::Monitor, 0)] {
            let config = EngineConfig {
                mode,
                ..EngineConfig::default()
            };
            let mut engine = Engine::new(config, 1);
            engine.recall(NOW, lock(), Origin::Operator);
            engine.recall(NOW, known, Origin::Operator);
            let later = NOW + Duration::from_secs(600);
            let announced = engine.announcements(later);
            assert_eq!(announced.len(), told, "{announced:?}");
            let for_ = Duration::from_secs(3000);
            let expected = [
                Action::LockHost { host: HOST, for_ },
                Action::LearnPeer {
                    client: HOST,
                    peer,
                    for_,
                    kernel_drop: true,
                },
            ];
            assert_eq!(announced, expected[..told]);
            assert_eq!(engine.poll_action(), None);
        }
    }

    fn engine() -> Engine {
        Engine::new(EngineConfig::default(), 1)
    }

    fn lock() -> Remembered {
        Remembered::Locked {
            host: HOST,
            for_: HOUR,
        }
    }
}
