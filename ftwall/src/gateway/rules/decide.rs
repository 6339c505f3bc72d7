//! The way of a packet through the kernel's part of the decision, in order.
//!
//! ```text
//!  decide ── cleared, exempt, does not cross, IPv6 ──▶ passes
//!     ├─▶ from_inside ─┬─ TCP: known peer, watched, dial, harmless, payload
//!     │                └─▶ udp_from_inside ── shapes ──▶ known_from_inside
//!     └─▶ to_inside ───┬─ TCP
//!                      └─▶ udp_to_inside ──── shapes ──▶ known_to_inside
//! ```
//!
//! What is asked of a packet depends on its direction and its protocol, so these are asked once and
//! first: a cleared connection meets two rules here, an ordinary datagram eight.

use serde_json::{Value, json};

use super::{
    DECIDE, ENQUEUE, EXEMPT, INBOUND, LOCKED, PEERS, PayloadTest, RuleSettings, destination,
    harmless, shapes, source,
};
use crate::gateway::marks::{MarkBit, MarkField};
use crate::gateway::nft_json::{
    accept, add_rule, clear_bits, compare, concat, counter, ct, drop, equals, field, goto,
    has_bits, in_set, is_new, is_syn, is_syn_ack, masked, meta, raw, set_bits,
};
use crate::protocol::Direction;

/// Locked hosts' connection attempts below this port are left to the payload.
const FIRST_DIALED_PORT: u16 = 1024;
/// An IPv4 packet of TCP that is not longer than its two smallest headers, in octets, has no payload.
const EMPTY_TCP_PACKET: u16 = 40;

/// Chains that rules of this file lead to.
pub(super) const CHAINS: [&str; 6] = [
    OUTWARD.chain,
    OUTWARD.datagrams,
    OUTWARD.known,
    INWARD.chain,
    INWARD.datagrams,
    INWARD.known,
];

/// One of the two directions in which a packet crosses the gateway.
#[derive(Clone, Copy, Debug)]
pub(super) struct Way {
    pub(super) direction: Direction,
    /// Where a packet that crosses this way goes on.
    pub(super) chain: &'static str,
    /// Where it does if it is a datagram.
    pub(super) datagrams: &'static str,
    /// Where a datagram does that has none of the shapes.
    pub(super) known: &'static str,
}

const OUTWARD: Way = Way {
    direction: Direction::Outbound,
    chain: "from_inside",
    datagrams: "udp_from_inside",
    known: "known_from_inside",
};

const INWARD: Way = Way {
    direction: Direction::Inbound,
    chain: "to_inside",
    datagrams: "udp_to_inside",
    known: "known_to_inside",
};

impl Way {
    fn is_outward(self) -> bool {
        self.direction == Direction::Outbound
    }

    /// The address of the inside host.
    pub(super) fn host(self) -> Value {
        if self.is_outward() {
            source()
        } else {
            destination()
        }
    }

    /// The address of the other end.
    fn peer(self) -> Value {
        if self.is_outward() {
            destination()
        } else {
            source()
        }
    }

    /// The port of the other end.
    fn peer_port(self, protocol: &str) -> Value {
        let port = if self.is_outward() { "dport" } else { "sport" };
        field(protocol, port)
    }

    pub(super) fn is_locked(self) -> Value {
        in_set("==", &self.host(), LOCKED)
    }
}

/// All rules from the hook on to where a packet passes, is dropped, or is asked about.
pub(super) fn rules(settings: &RuleSettings) -> Vec<Value> {
    let mut rules = entrance_rules(settings);
    for way in [OUTWARD, INWARD] {
        rules.extend(crossing_rules(way, settings));
        rules.extend(shapes::rules(way, &settings.shapes));
        rules.extend(known_rules(way, settings.strict));
    }
    rules
}

/// Packets that are none of ftwall's business leave here; the others go their way.
fn entrance_rules(settings: &RuleSettings) -> Vec<Value> {
    let (mark, field) = (meta("mark"), settings.marks.mask());
    let mut rules = vec![
        add_rule(
            DECIDE,
            "bits of this field are ours",
            &[
                compare("!=", &masked(&mark, field), 0),
                clear_bits(&mark, field),
            ],
        ),
        add_rule(
            DECIDE,
            "cleared connection",
            &[
                has_bits(&ct("mark"), settings.marks.bit(MarkBit::Cleared)),
                accept(),
            ],
        ),
    ];
    // Most gateways exempt nobody; their packets need not be looked up.
    if !settings.exempt.is_empty() {
        rules.push(add_rule(
            DECIDE,
            "exempt source",
            &[in_set("==", &source(), EXEMPT), accept()],
        ));
        rules.push(add_rule(
            DECIDE,
            "exempt destination",
            &[in_set("==", &destination(), EXEMPT), accept()],
        ));
    }
    rules.push(add_rule(
        DECIDE,
        "from an inside host",
        &[settings.is_inside("==", &source()), goto(OUTWARD.chain)],
    ));
    rules.push(add_rule(
        DECIDE,
        "to an inside host",
        &[settings.is_inside("==", &destination()), goto(INWARD.chain)],
    ));
    rules.push(add_rule(
        DECIDE,
        "FastTrack is IPv4 only",
        &[equals(&meta("nfproto"), "ipv6"), counter(), accept()],
    ));
    rules
}

/// A packet on its way in one direction: datagrams leave for a chain of their own, the rest is TCP.
fn crossing_rules(way: Way, settings: &RuleSettings) -> Vec<Value> {
    let marks = settings.marks;
    let mut rules = Vec::new();
    if way.is_outward() {
        rules.push(add_rule(
            way.chain,
            "stays inside",
            &[settings.is_inside("==", &destination()), accept()],
        ));
    } else if settings.inbound.is_some() {
        rules.push(add_rule(
            way.chain,
            "connections from outside",
            &[is_new(), json!({ "jump": { "target": INBOUND } })],
        ));
    }
    let protocol = meta("l4proto");
    rules.push(add_rule(
        way.chain,
        "datagram",
        &[equals(&protocol, "udp"), goto(way.datagrams)],
    ));
    rules.push(add_rule(
        way.chain,
        "neither TCP nor UDP",
        &[compare("!=", &protocol, "tcp"), accept()],
    ));
    rules.push(remember_start(way, marks));
    rules.push(known_peer_rule(way, way.chain));
    rules.push(tolerated_rule(way, marks));
    rules.push(if way.is_outward() {
        dial_rule(way)
    } else {
        dial_answer_rule(way)
    });
    if way.is_outward() {
        rules.extend(harmless::rules(way.chain, settings));
    }
    rules.push(payload_rule(way, settings.payload_test, marks));
    rules
}

/// What is left of datagrams once the shapes have been asked about. A ping is answered, and an answer
/// renews the lock of its host, so known peers are dropped after them.
fn known_rules(way: Way, strict: bool) -> Vec<Value> {
    let mut rules = vec![known_peer_rule(way, way.known)];
    if strict {
        rules.push(add_rule(
            way.known,
            "strict: datagrams of a locked host",
            &[way.is_locked(), goto(ENQUEUE)],
        ));
    }
    rules
}

fn remember_start(way: Way, marks: MarkField) -> Value {
    add_rule(
        way.chain,
        "first SYN seen",
        &[
            is_syn(),
            is_new(),
            set_bits(&ct("mark"), marks.bit(MarkBit::FromStart)),
        ],
    )
}

fn known_peer_rule(way: Way, chain: &str) -> Value {
    let key = concat(&[way.host(), way.peer(), meta("l4proto"), way.peer_port("th")]);
    let comment = if way.is_outward() {
        "to a known peer"
    } else {
        "from a known peer"
    };
    add_rule(
        chain,
        comment,
        &[in_set("==", &key, PEERS), counter(), drop()],
    )
}

fn tolerated_rule(way: Way, marks: MarkField) -> Value {
    add_rule(
        way.chain,
        "watched long enough, nobody locked",
        &[
            has_bits(&ct("mark"), marks.bit(MarkBit::Tolerated)),
            in_set("!=", &way.host(), LOCKED),
            accept(),
        ],
    )
}

fn dial_rule(way: Way) -> Value {
    add_rule(
        way.chain,
        "a locked host dials",
        &[
            is_syn(),
            way.is_locked(),
            compare(">=", &way.peer_port("tcp"), FIRST_DIALED_PORT),
            goto(ENQUEUE),
        ],
    )
}

/// A dial may have left before its host was locked, and be answered, or answered again, after that.
fn dial_answer_rule(way: Way) -> Value {
    add_rule(
        way.chain,
        "a dial of a locked host is answered",
        &[
            is_syn_ack(),
            way.is_locked(),
            compare(">=", &way.peer_port("tcp"), FIRST_DIALED_PORT),
            goto(ENQUEUE),
        ],
    )
}

fn payload_rule(way: Way, test: PayloadTest, marks: MarkField) -> Value {
    let has_payload = match test {
        // Always true where there is such an octet; without one the load fails, and the rule with it.
        PayloadTest::InnerHeader => compare(">=", &raw("ih", 0, 8), 0),
        PayloadTest::Length => compare(">", &field("ip", "length"), EMPTY_TCP_PACKET),
    };
    add_rule(
        way.chain,
        "TCP payload, undecided",
        &[
            has_payload,
            set_bits(&meta("mark"), marks.bit(MarkBit::Payload)),
            goto(ENQUEUE),
        ],
    )
}

#[cfg(test)]
mod tests {
    use super::super::tests::{rules_of, settings};
    use super::super::{InboundBlock, RuleSettings};
    use super::*;
    use crate::gateway::backend::Backend;

    fn strict() -> RuleSettings {
        RuleSettings {
            strict: true,
            inbound: Some(InboundBlock::default()),
            ..settings()
        }
    }

    #[test]
    fn a_packet_meets_the_rules_in_the_order_of_the_promise() {
        let order = |chain| rules_of(&strict(), Backend::IptablesNft, chain);
        insta::assert_snapshot!(order(DECIDE));
        insta::assert_snapshot!(order(OUTWARD.chain));
        insta::assert_snapshot!(order(INWARD.chain));
    }

    #[test]
    fn a_datagram_is_asked_about_before_its_peer_is_dropped() {
        let order = |chain| rules_of(&strict(), Backend::IptablesNft, chain);
        insta::assert_snapshot!(order(OUTWARD.datagrams));
        insta::assert_snapshot!(order(INWARD.datagrams));
        insta::assert_snapshot!(order(INWARD.known));
    }

    #[test]
    fn who_exempts_nobody_looks_nobody_up() {
        let nobody = RuleSettings {
            exempt: Vec::new(),
            ..settings()
        };
        let rules = rules_of(&nobody, Backend::Nft, DECIDE);
        assert!(!rules.contains("exempt"), "{rules}");
    }
}
