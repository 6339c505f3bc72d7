//! The clear-text start of a session: 12 octets from who opens, 8 from who answers (PROTO).

use rand::{Rng, RngExt};

use crate::profile::Opener;

/// Octets of the first flight.
pub const OPENER_LEN: usize = 12;

/// Octets of the answer before the encrypted network name.
pub const ANSWER_LEN: usize = 8;

/// What both open clients send: a fixed first word, a fixed seed, and the encryption type they ask
/// for under a mask that depends on the seed alone (observed; MLD and giFT agree).
pub const CONSTANT_OPENER: [u8; OPENER_LEN] = [
    0xfa, 0x00, 0xb6, 0x2b, // "random" word
    0xfa, 0xcb, 0x12, 0x38, // client seed
    0x32, 0x09, 0xd2, 0x32, // masked encryption type
];

/// Draws a first flight.
pub fn draw_opener(kind: Opener, rng: &mut impl Rng) -> [u8; OPENER_LEN] {
    match kind {
        Opener::Random => rng.random(),
        Opener::Constant => CONSTANT_OPENER,
        // At most two bits set in each byte: less than the 3.4 of twelve encrypted bytes, and never
        // a letter.
        Opener::PlainLooking => {
            std::array::from_fn(|_| [0x00, 0x01, 0x02, 0x05][rng.random_range(0..4)])
        }
    }
}

/// Draws the answer: a server seed and a masked encryption type, both of which look random.
pub fn draw_answer(rng: &mut impl Rng) -> [u8; ANSWER_LEN] {
    rng.random()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seed::Seed;

    #[test]
    fn random_openers_differ_from_each_other_and_from_the_constant_one() {
        let mut rng = Seed(1).rng();
        let [one, two] = [(); 2].map(|()| draw_opener(Opener::Random, &mut rng));
        assert_ne!(one, two);
        assert_ne!(one, CONSTANT_OPENER);
    }

    #[test]
    fn a_plain_looking_opener_sets_too_few_bits_to_pass_for_encrypted() {
        let mut rng = Seed(2).rng();
        for _ in 0..100 {
            let opener = draw_opener(Opener::PlainLooking, &mut rng);
            let bits: u32 = opener.iter().map(|byte| byte.count_ones()).sum();
            assert!(bits <= 2 * OPENER_LEN as u32, "{opener:02x?}");
            assert!(opener.iter().all(|byte| !byte.is_ascii_graphic()));
        }
    }
}
