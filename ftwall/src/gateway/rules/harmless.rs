//! Connections that the kernel clears by itself: those whose first segment proves them harmless, to
//! addresses that a daemon has seen to be something else than a peer.
//!
//! Both are asked for, so that nothing is cleared by bytes alone which a program could imitate, and so
//! that the daemon goes on seeing the first proof of every address. A host that is locked is never
//! believed here.

use serde_json::Value;

use super::{LOCKED, PROVEN, PayloadTest, RuleSettings, destination, source};
use crate::gateway::marks::MarkBit;
use crate::gateway::nft_json::{
    accept, add_rule, compare, ct, equals, has_bits, in_set, raw, set_bits, word_range,
};
use crate::protocol::{HarmlessShape, WordRange};

/// One rule of `chain`, where TCP from inside hosts goes, for each shape; none where payload cannot be
/// looked at, and the daemon is asked.
pub(super) fn rules(chain: &str, settings: &RuleSettings) -> Vec<Value> {
    match settings.payload_test {
        PayloadTest::InnerHeader => {
            let shapes = settings.harmless.iter();
            shapes.map(|shape| rule(chain, shape, settings)).collect()
        }
        PayloadTest::Length => Vec::new(),
    }
}

fn rule(chain: &str, shape: &HarmlessShape, settings: &RuleSettings) -> Value {
    let marks = settings.marks;
    let last = u32::from(shape.min_payload) - 1;
    let mut expressions = vec![
        // Until something of the connection has passed: what follows proves nothing.
        has_bits(&ct("mark"), marks.bit(MarkBit::FromStart)),
        equals(&ct("direction"), "original"),
        // The load fails, and the rule with it, in a shorter segment.
        compare(">=", &raw("ih", last * 8, 8), 0),
    ];
    expressions.extend(shape.words.iter().map(comparison));
    expressions.extend([
        in_set("!=", &source(), LOCKED),
        in_set("==", &destination(), PROVEN),
        set_bits(&ct("mark"), marks.bit(MarkBit::Cleared)),
        accept(),
    ]);
    add_rule(chain, shape.name, &expressions)
}

fn comparison(word: &WordRange) -> Value {
    let (offset, octets) = (u32::from(word.offset), u32::from(word.octets));
    equals(
        &raw("ih", offset * 8, octets * 8),
        word_range(word.low, word.high),
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::tests::settings;
    use super::*;

    fn expressions(settings: &RuleSettings) -> Vec<Value> {
        let [rule] = &rules("from_inside", settings)[..] else {
            panic!("one rule");
        };
        let expressions = rule["add"]["rule"]["expr"].as_array();
        expressions.expect("it has expressions").clone()
    }

    #[test]
    fn a_connection_is_cleared_at_its_beginning_by_its_initiator_who_is_not_locked_alone() {
        let expressions = expressions(&settings());
        for demanded in [
            equals(&ct("direction"), "original"),
            in_set("!=", &source(), LOCKED),
            in_set("==", &destination(), PROVEN),
        ] {
            assert!(expressions.contains(&demanded), "{demanded}");
        }
        assert_eq!(expressions.last(), Some(&accept()));
    }

    #[test]
    fn a_hello_reads_as_reviewed() {
        let expressions = expressions(&settings());
        let words: Vec<_> = expressions[2..7]
            .iter()
            .map(|test| (&test["match"]["left"]["payload"], &test["match"]["right"]))
            .collect();
        let at = |offset, len| json!({ "base": "ih", "offset": offset, "len": len });
        let expected = [
            (at(95 * 8, 8), json!(0)),
            (at(0, 24), json!({ "range": [0x16_03_00, 0x16_03_04] })),
            (at(24, 16), json!({ "range": [91, 16_384] })),
            (at(40, 16), json!(0x01_00)),
            (at(72, 16), json!({ "range": [0x03_00, 0x03_03] })),
        ];
        let expected: Vec<_> = expected.iter().map(|(left, right)| (left, right)).collect();
        assert_eq!(words, expected);
    }

    #[test]
    fn without_a_look_into_payload_the_daemon_is_asked() {
        let blind = RuleSettings {
            payload_test: PayloadTest::Length,
            ..settings()
        };
        assert_eq!(rules("from_inside", &blind), Vec::<Value>::new());
    }
}
