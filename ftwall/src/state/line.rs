//! One line of the file: a checksum, a space, a record as JSON.

use serde::{Deserialize, Serialize};

use super::fact::{Fact, Key};

/// What a line says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum Record {
    /// This holds.
    Keep {
        what: Fact,
        /// Until when; until it is forgotten if absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        end: Option<End>,
    },
    /// This holds no longer.
    Forget(Key),
}

/// When something ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct End {
    /// In milliseconds since the Unix epoch by the wall clock.
    pub(super) ends_ms: u64,
    /// In milliseconds after it was written: the wall clock may have been set since.
    pub(super) left_ms: u64,
}

/// Why a line cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BadLine {
    /// It is not what was written.
    Damaged,
    /// It is what was written, by somebody who says more than this version understands.
    Unknown,
}

impl Record {
    /// Adds the record's line to `text`.
    pub(super) fn write(&self, text: &mut Vec<u8>) {
        let json = serde_json::to_vec(self).expect("records are texts and numbers");
        text.extend(format!("{:08x} ", crc32(&json)).as_bytes());
        text.extend(json);
        text.push(b'\n');
    }

    /// Reads a line without its end.
    pub(super) fn read(line: &[u8]) -> Result<Self, BadLine> {
        let (sum, json) = line.split_at_checked(8).ok_or(BadLine::Damaged)?;
        let json = json.strip_prefix(b" ").ok_or(BadLine::Damaged)?;
        if sum != format!("{:08x}", crc32(json)).as_bytes() {
            return Err(BadLine::Damaged);
        }
        serde_json::from_slice(json).map_err(|_| BadLine::Unknown)
    }
}

/// The checksum of IEEE 802.3, as `gzip` and everybody else computes it.
pub(super) fn crc32(octets: &[u8]) -> u32 {
    let sum = octets.iter().fold(!0_u32, |sum, octet| {
        let index = (sum ^ u32::from(*octet)) & 0xff;
        CRC_TABLE[index as usize] ^ (sum >> 8)
    });
    !sum
}

const CRC_TABLE: [u32; 256] = crc_table();

const fn crc_table() -> [u32; 256] {
    const REVERSED_POLYNOMIAL: u32 = 0xedb8_8320;
    let mut table = [0; 256];
    let mut index = 0;
    while index < 256 {
        let mut sum = index as u32;
        let mut bit = 0;
        while bit < 8 {
            let carry = if sum & 1 == 1 { REVERSED_POLYNOMIAL } else { 0 };
            sum = (sum >> 1) ^ carry;
            bit += 1;
        }
        table[index] = sum;
        index += 1;
    }
    table
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::config::Mode;
    use crate::control::values::{parse_net, parse_never_block};
    use crate::{Evidence, Origin};

    #[test]
    fn the_checksum_is_the_one_that_everybody_knows() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
        assert_eq!(crc32(b""), 0);
    }

    #[test]
    fn every_record_is_read_as_it_was_written() {
        let host = Ipv4Addr::new(10, 77, 1, 1);
        let peer = "198.18.0.9:1214".parse().expect("a literal");
        let end = Some(End {
            ends_ms: 1_790_000_000_000,
            left_ms: 120_000,
        });
        let facts = [
            Fact::Lock {
                host,
                origin: Origin::Evidence(Evidence::UdpPing),
            },
            Fact::Peer {
                client: host,
                peer,
                origin: Origin::TakenOver,
            },
            Fact::Unblocked {
                target: parse_never_block("192.0.2.7:1214").expect("a literal"),
            },
            Fact::Mode {
                subnet: parse_net("10.77.2.0/24").expect("a literal"),
                mode: Mode::Monitor,
            },
        ];
        for fact in facts {
            for end in [end, None] {
                assert_same(Record::Keep { what: fact, end });
            }
            assert_same(Record::Forget(fact.key()));
        }
    }

    fn assert_same(record: Record) {
        let mut text = Vec::new();
        record.write(&mut text);
        let line = text.strip_suffix(b"\n").expect("lines end");
        assert!(!line.contains(&b'\n'), "{record:?}");
        assert_eq!(Record::read(line), Ok(record));
    }

    #[test]
    fn one_wrong_bit_anywhere_is_noticed() {
        let mut text = Vec::new();
        let subnet = parse_net("10.77.2.0/24").expect("a literal");
        Record::Forget(Key::Mode { subnet }).write(&mut text);
        text.pop();
        for bit in 0..text.len() * 8 {
            let mut damaged = text.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Record::read(&damaged), Err(BadLine::Damaged), "bit {bit}");
        }
    }
}
