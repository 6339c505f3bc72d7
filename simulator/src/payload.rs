//! Bytes that look like nothing: the keystream over sessions and the content of the shared file.
//! Neither is FastTrack's; only sizes, directions and the look of randomness are.

use std::fmt;

use rand::Rng;
use rand::rngs::ChaCha8Rng;

use crate::seed::Seed;
use crate::wire::hex;

/// Size of the file that peers share, in octets: large enough for many segments, small enough that a
/// transfer in one-octet segments can be recorded whole.
pub const FILE_BYTES: u64 = 16_384;

/// One direction's keystream. Applying it twice from the same start gives the bytes back.
#[derive(Debug)]
pub struct Keystream {
    rng: ChaCha8Rng,
}

/// Which way a session's bytes travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From who opened the session.
    FromInitiator,
    /// From who answered.
    FromResponder,
}

impl Keystream {
    /// The keystream of one direction of a session, from the words both sides sent in the clear.
    pub fn of_session(opener: [u8; 12], answer: [u8; 8], direction: Direction) -> Self {
        let fold = |seed: Seed, byte: &u8| seed.derive("session", u64::from(*byte));
        let seed = opener.iter().chain(&answer).fold(Seed(0), fold);
        Self {
            rng: seed.derive("direction", direction as u64).rng(),
        }
    }

    /// Turns plain bytes into sent ones, or received ones into plain.
    pub fn apply(&mut self, bytes: &mut [u8]) {
        for byte in bytes {
            *byte ^= self.next_byte();
        }
    }

    /// One word a byte: wasteful, and independent of how a stream is cut into pieces.
    fn next_byte(&mut self) -> u8 {
        self.rng.next_u32().to_be_bytes()[0]
    }
}

/// A file known by its hash, its content drawn from a seed: whoever knows the seed can tell whether
/// it arrived unaltered.
#[derive(Clone, PartialEq, Eq)]
pub struct SharedFile {
    hash: [u8; 20],
    content: Vec<u8>,
}

impl SharedFile {
    /// The file that a population shares.
    pub fn of(seed: Seed) -> Self {
        let mut rng = seed.derive("file", 0).rng();
        let mut hash = [0; 20];
        rng.fill_bytes(&mut hash);
        let mut content = vec![0; FILE_BYTES as usize];
        rng.fill_bytes(&mut content);
        Self { hash, content }
    }

    /// The 40 hexadecimal digits that requests name it by.
    pub fn hash_hex(&self) -> String {
        hex(&self.hash)
    }

    /// The hash itself.
    pub fn hash(&self) -> [u8; 20] {
        self.hash
    }

    /// The content.
    pub fn content(&self) -> &[u8] {
        &self.content
    }
}

impl fmt::Debug for SharedFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "SharedFile({}, {} octets)",
            self.hash_hex(),
            self.content.len()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_keystream_undoes_itself_however_the_bytes_are_cut() {
        let stream = || Keystream::of_session([1; 12], [2; 8], Direction::FromInitiator);
        let plain = *b"KaZaA\0 and what follows it";
        let mut sent = plain;
        stream().apply(&mut sent);
        assert_ne!(sent, plain);

        let mut receiving = stream();
        for piece in sent.chunks_mut(3) {
            receiving.apply(piece);
        }
        assert_eq!(sent, plain);
    }

    #[test]
    fn the_two_directions_of_a_session_look_unrelated() {
        let mut out = [0; 64];
        let mut back = [0; 64];
        Keystream::of_session([1; 12], [2; 8], Direction::FromInitiator).apply(&mut out);
        Keystream::of_session([1; 12], [2; 8], Direction::FromResponder).apply(&mut back);
        assert_ne!(out, back);
    }
}
