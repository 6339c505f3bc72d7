//! How a datagram is judged: alone, by its whole shape.

use rand::RngExt;

use super::{Engine, Found, Parties};
use crate::event::PacketEnds;
use crate::flow::Role;
use crate::packet::Datagram;
use crate::policy;
use crate::protocol::{self, Answer, ShortPayload};
use crate::suspects::Ping;
use crate::verdict::{DropReason, PassReason};
use crate::{Evidence, Timestamp, Verdict};
use std::net::{IpAddr, SocketAddrV4};

impl Engine {
    pub(super) fn judge_datagram(
        &mut self,
        now: Timestamp,
        source: SocketAddrV4,
        destination: SocketAddrV4,
        datagram: &Datagram<'_>,
    ) -> Verdict {
        let parties = self.datagram_parties(now, source, destination);
        let is_whole = datagram.payload.len() == datagram.payload_len;
        let payload = if is_whole { datagram.payload } else { &[] };
        if let Some(found) = self.find_in_datagram(now, &parties, payload) {
            return self.carry_out_datagram(now, &parties, found, payload);
        }
        if self.config.block_udp && self.is_blocked_pair(now, &parties) {
            return Verdict::Drop(DropReason::KnownPeer);
        }
        if let Some(reason) = protocol::prove_datagram(payload) {
            return Verdict::Clear(reason);
        }
        let host = *parties.host.ip();
        let strictness = self.policy_of(host).strictness;
        let is_locked = self.suspects.is_locked(host, now);
        if is_locked && !policy::may_be_unknown_datagram(strictness, parties.peer.port()) {
            return Verdict::Drop(DropReason::Strict);
        }
        Verdict::Pass(PassReason::UnknownDatagram)
    }

    fn find_in_datagram(&self, now: Timestamp, parties: &Parties, payload: &[u8]) -> Option<Found> {
        let evidence = protocol::read_datagram(payload)?;
        let ruling = policy::rule(evidence, &self.situation(now, parties))?;
        Some(Found { evidence, ruling })
    }

    fn carry_out_datagram(
        &mut self,
        now: Timestamp,
        parties: &Parties,
        found: Found,
        payload: &[u8],
    ) -> Verdict {
        let verdict = if self.config.block_udp {
            Verdict::Drop(found.ruling.reason)
        } else {
            Verdict::Pass(PassReason::UdpNotBlocked)
        };
        self.count(found.evidence);
        self.carry_out(now, parties, found, verdict);
        if found.evidence == Evidence::UdpPing && parties.host_initiated {
            let (from, to) = (parties.host, parties.peer);
            if let Some(payload) = ShortPayload::of(&[payload]) {
                self.suspects.record_ping(Ping { from, to, payload }, now);
            }
            if verdict.is_drop() {
                self.answer(now, parties, payload);
            }
        }
        verdict
    }

    fn answer(&mut self, now: Timestamp, parties: &Parties, ping: &[u8]) {
        let (from, to) = (parties.peer, parties.host);
        let answer = Answer {
            ping,
            reply: self.config.reply,
            draw: self.rng.random(),
            client: to,
        };
        let Some(payload) = protocol::answer_to(&answer) else {
            return;
        };
        if self.suspects.may_answer(&self.config, *to.ip(), now) {
            self.out
                .actions
                .push_back(super::Action::Answer { from, to, payload });
        }
    }

    /// Which end of a datagram is the inside host's. Where both are inside or neither is, the one
    /// that is known to use the other, else the sender.
    fn datagram_parties(
        &self,
        now: Timestamp,
        source: SocketAddrV4,
        destination: SocketAddrV4,
    ) -> Parties {
        let is_inside = |end: SocketAddrV4| self.config.is_inside(IpAddr::V4(*end.ip()));
        let is_outbound = match (is_inside(source), is_inside(destination)) {
            (true, false) => true,
            (false, true) => false,
            _ => !self.suspects.is_pair(*destination.ip(), source, now),
        };
        let packet = PacketEnds::new("UDP", source.into(), destination.into());
        if is_outbound {
            Parties::new(packet, source, destination, Role::Initiator)
        } else {
            Parties::new(packet, destination, source, Role::Responder)
        }
    }
}
