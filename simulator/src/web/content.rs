//! Octets that both sides derive from a name: the server sends them, the client compares them.
//!
//! Nothing here depends on either side's `--seed`, so any client can check any server.

use hyper::body::Bytes;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// Octets made at a time; also the most that [`Content::take`] yields at once.
const BLOCK: usize = 16 * 1024;

/// Octets drawn for each content. A block repeats them: drawing every octet would cost an
/// unoptimised build more than the transfer, and show up as latency.
const PATTERN: usize = 1_024;

/// A run of octets, made as it is read.
pub(super) struct Content {
    pattern: Vec<u8>,
    blocks: u64,
    block: Bytes,
    remaining: u64,
}

impl Content {
    /// `length` octets that depend on `name` and on their place alone.
    pub(super) fn named(name: &str, length: u64) -> Self {
        let mut pattern = vec![0; PATTERN];
        StdRng::seed_from_u64(digest(name.as_bytes())).fill_bytes(&mut pattern);
        Self {
            pattern,
            blocks: 0,
            block: Bytes::new(),
            remaining: length,
        }
    }

    /// Exactly these octets.
    pub(super) fn fixed(octets: impl Into<Bytes>) -> Self {
        let block = octets.into();
        let remaining = block.len() as u64;
        Self {
            pattern: Vec::new(),
            blocks: 0,
            block,
            remaining,
        }
    }

    /// Octets not yet taken.
    pub(super) fn remaining(&self) -> u64 {
        self.remaining
    }

    /// The next octets, at least one and at most `most`; none at the end.
    pub(super) fn take(&mut self, most: usize) -> Option<Bytes> {
        if self.remaining == 0 || most == 0 {
            return None;
        }
        if self.block.is_empty() {
            self.block = self.next_block();
        }
        let length = most.min(self.block.len());
        self.remaining -= length as u64;
        Some(self.block.split_to(length))
    }

    /// The pattern again and again, with the block's number in front, so that no two blocks of a
    /// content are alike.
    fn next_block(&mut self) -> Bytes {
        let mut block = self.pattern.repeat(BLOCK / PATTERN);
        block[..8].copy_from_slice(&self.blocks.to_be_bytes());
        self.blocks += 1;
        block.truncate(usize::try_from(self.remaining).unwrap_or(BLOCK));
        block.into()
    }
}

/// The first difference between what was asked for and what arrived.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Altered {
    /// An octet differs.
    #[error("content altered at octet {at}")]
    Differs {
        /// Octets before it.
        at: u64,
    },
    /// More arrived than there is.
    #[error("content goes on after its {length} octets")]
    TooLong {
        /// The whole length.
        length: u64,
    },
    /// The end came early.
    #[error("content ended after {at} octets, {missing} missing")]
    TooShort {
        /// Octets that arrived.
        at: u64,
        /// Octets that did not.
        missing: u64,
    },
}

/// Compares what arrives, piece by piece, with the content asked for.
pub(super) struct Expected {
    content: Content,
    at: u64,
}

impl Expected {
    /// Expects all of `content`.
    pub(super) fn new(content: Content) -> Self {
        Self { content, at: 0 }
    }

    /// Compares the next piece.
    pub(super) fn check(&mut self, mut piece: &[u8]) -> Result<(), Altered> {
        while !piece.is_empty() {
            let Some(want) = self.content.take(piece.len()) else {
                return Err(Altered::TooLong { length: self.at });
            };
            let (got, rest) = piece.split_at(want.len());
            // Whole pieces first: octet by octet, an unoptimised build would distort latencies.
            if *got != *want {
                let same = got
                    .iter()
                    .zip(&want)
                    .take_while(|(got, want)| got == want)
                    .count();
                return Err(Altered::Differs {
                    at: self.at + same as u64,
                });
            }
            self.at += want.len() as u64;
            piece = rest;
        }
        Ok(())
    }

    /// Says whether everything has arrived.
    pub(super) fn finish(self) -> Result<(), Altered> {
        match self.content.remaining() {
            0 => Ok(()),
            missing => Err(Altered::TooShort {
                at: self.at,
                missing,
            }),
        }
    }
}

/// FNV-1a over 64 bits: a name as a number. It guards against accidents, not against forgers.
pub(super) fn digest(octets: &[u8]) -> u64 {
    const OFFSET_BASIS: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0000_0100_0000_01b3;
    octets.iter().fold(OFFSET_BASIS, |sum, octet| {
        (sum ^ u64::from(*octet)).wrapping_mul(PRIME)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(mut content: Content, piece: usize) -> Vec<u8> {
        std::iter::from_fn(|| content.take(piece))
            .flatten()
            .collect()
    }

    #[test]
    fn the_same_name_gives_the_same_octets_however_they_are_cut() {
        let length = BLOCK as u64 + 77;
        let once = whole(Content::named("/bytes/1", length), BLOCK);
        assert_eq!(once.len() as u64, length);
        assert_eq!(once, whole(Content::named("/bytes/1", length), 13));
        assert_ne!(once, whole(Content::named("/bytes/2", length), BLOCK));
    }

    #[test]
    fn no_block_of_a_content_is_like_another() {
        let octets = whole(Content::named("/bytes/1", 2 * BLOCK as u64), BLOCK);
        assert_ne!(octets[..BLOCK], octets[BLOCK..]);
    }

    #[test]
    fn an_unaltered_copy_passes_in_pieces_of_any_size() {
        let octets = whole(Content::named("x", 40_000), BLOCK);
        for size in [1, 7, 1_460, 40_000] {
            let mut expected = Expected::new(Content::named("x", 40_000));
            assert!(
                octets
                    .chunks(size)
                    .all(|piece| expected.check(piece).is_ok())
            );
            assert_eq!(expected.finish(), Ok(()));
        }
    }

    #[test]
    fn one_altered_octet_is_found_and_its_place_named() {
        let mut octets = whole(Content::named("x", 20_000), BLOCK);
        octets[17_000] ^= 1;
        let mut expected = Expected::new(Content::named("x", 20_000));
        assert_eq!(
            expected.check(&octets),
            Err(Altered::Differs { at: 17_000 })
        );
    }

    #[test]
    fn a_truncated_or_lengthened_copy_is_found() {
        let mut expected = Expected::new(Content::fixed("abc"));
        assert_eq!(expected.check(b"ab"), Ok(()));
        assert_eq!(
            expected.finish(),
            Err(Altered::TooShort { at: 2, missing: 1 })
        );
        let mut expected = Expected::new(Content::fixed("abc"));
        assert_eq!(expected.check(b"abcd"), Err(Altered::TooLong { length: 3 }));
    }

    #[test]
    fn the_digest_is_fnv_1a() {
        // Vectors of the reference distribution (Fowler, Noll, Vo).
        assert_eq!(digest(b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(digest(b"foobar"), 0x8594_4171_f739_67e8);
    }
}
