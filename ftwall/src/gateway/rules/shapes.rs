//! The datagrams that locked hosts only, or all hosts, cannot exchange unseen.

use serde_json::Value;

use super::SUSPECT;
use super::decide::Way;
use crate::gateway::nft_json::{add_rule, compare, equals, goto, masked, range, raw};
use crate::protocol::{ByteMatch, Direction, UdpShape};

/// Octets of a UDP header; what nft calls `udp length` counts them.
const UDP_HEADER: u16 = 8;

/// One rule for each shape that goes this way, those of all hosts first. Most datagrams are longer than
/// all of them and meet one comparison only.
pub(super) fn rules(way: Way, shapes: &[UdpShape]) -> Vec<Value> {
    let applies = |shape: &&UdpShape| [way.direction, Direction::Both].contains(&shape.direction);
    let mut applying: Vec<&UdpShape> = shapes.iter().filter(applies).collect();
    applying.sort_by_key(|shape| shape.only_locked);
    let lengths = applying.iter().map(|shape| &shape.payload_len);
    let shortest = lengths.clone().map(|length| *length.start()).min();
    let longest = lengths.map(|length| *length.end()).max();
    let mut rules = Vec::new();
    if let (Some(shortest), Some(longest)) = (shortest, longest) {
        let other_length = compare("!=", &length(), udp_length(shortest, longest));
        rules.push(add_rule(
            way.datagrams,
            "of no shape's length",
            &[other_length, goto(way.known)],
        ));
    }
    rules.extend(applying.into_iter().map(|shape| rule(way, shape)));
    rules.push(add_rule(way.datagrams, "of no shape", &[goto(way.known)]));
    rules
}

/// FastTrack's own shapes are suspect whoever sends them: no other protocol is known to have them.
fn rule(way: Way, shape: &UdpShape) -> Value {
    let (low, high) = (*shape.payload_len.start(), *shape.payload_len.end());
    let of_length = equals(&length(), udp_length(low, high));
    let words = words(shape.bytes).into_iter().map(Word::comparison);
    // Of the datagrams of about this length, the first word tells most from the shape.
    let mut expressions: Vec<Value> = words.collect();
    expressions.insert(expressions.len().min(1), of_length);
    if shape.only_locked {
        expressions.push(way.is_locked());
    }
    expressions.push(goto(SUSPECT));
    add_rule(way.datagrams, shape.name, &expressions)
}

/// The field that nft calls `udp length`; said so, nft would ask in every rule anew whether this is UDP.
fn length() -> Value {
    raw("th", 4 * 8, 2 * 8)
}

fn udp_length(shortest: u16, longest: u16) -> Value {
    range(
        shortest.saturating_add(UDP_HEADER),
        longest.saturating_add(UDP_HEADER),
    )
}

/// Neighbouring octets of a payload that are compared at once, four at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Word {
    /// Distance of the first octet from the start of the payload.
    offset: u32,
    octets: u32,
    mask: u32,
    value: u32,
}

impl Word {
    fn with(self, byte: &ByteMatch) -> Word {
        Word {
            octets: self.octets + 1,
            mask: self.mask << 8 | u32::from(byte.mask),
            value: self.value << 8 | u32::from(byte.value),
            ..self
        }
    }

    fn comparison(self) -> Value {
        let octet = raw(
            "th",
            (u32::from(UDP_HEADER) + self.offset) * 8,
            self.octets * 8,
        );
        let whole = u32::MAX >> (32 - self.octets * 8);
        if self.mask == whole {
            equals(&octet, self.value)
        } else {
            equals(&masked(&octet, self.mask), self.value)
        }
    }
}

fn words(bytes: &[ByteMatch]) -> Vec<Word> {
    let mut words: Vec<Word> = Vec::new();
    for byte in bytes {
        let offset = u32::from(byte.offset);
        match words.last_mut() {
            Some(last) if last.offset + last.octets == offset && last.octets < 4 => {
                *last = last.with(byte);
            }
            _ => words.push(
                Word {
                    offset,
                    octets: 0,
                    mask: 0,
                    value: 0,
                }
                .with(byte),
            ),
        }
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbouring_octets_are_compared_in_one_word_of_four_at_most() {
        let bytes: Vec<ByteMatch> = (0..6).map(|at| ByteMatch::exactly(at, at)).collect();
        let words = words(&bytes);
        assert_eq!(words.len(), 2);
        assert_eq!((words[0].octets, words[0].value), (4, 0x0001_0203));
        assert_eq!(
            (words[1].offset, words[1].octets, words[1].value),
            (4, 2, 0x0405)
        );
    }
}
