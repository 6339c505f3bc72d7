//! Seeds, and how one becomes many: every draw of the simulator is repeatable, and two subjects never
//! share a stream, so that adding a draw in one place moves nothing elsewhere.

use rand::SeedableRng;
use rand::rngs::ChaCha8Rng;

/// Where a stream of draws begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Seed(pub u64);

impl Seed {
    /// The seed of one subject: what it is and its number.
    #[must_use]
    pub fn derive(self, label: &str, index: u64) -> Self {
        let label = label
            .bytes()
            .fold(0, |hash, byte| mix(hash ^ u64::from(byte)));
        Self(mix(mix(self.0 ^ label) ^ index))
    }

    /// A generator whose stream is the same on every machine and in every version of the library.
    pub fn rng(self) -> ChaCha8Rng {
        ChaCha8Rng::seed_from_u64(self.0)
    }
}

/// SplitMix64's finaliser (Steele, Lea, Flood 2014): every input bit reaches every output bit.
fn mix(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subjects_of_one_seed_draw_from_different_streams() {
        let seed = Seed(1);
        let derived = [
            seed,
            seed.derive("peer", 0),
            seed.derive("peer", 1),
            seed.derive("file", 0),
        ];
        for (place, one) in derived.iter().enumerate() {
            assert!(!derived[..place].contains(one), "{one:?} twice");
        }
    }

    #[test]
    fn the_same_subject_of_the_same_seed_is_the_same_stream() {
        assert_eq!(Seed(7).derive("peer", 3), Seed(7).derive("peer", 3));
    }
}
