//! The bits ftwall uses in packet marks and conntrack marks: the only channel between the kernel's
//! rules and the daemon that exists on every kernel.
//!
//! Rules set the question bits on their way to the queue, the daemon adds an answer bit to a packet it
//! accepts, and a later chain keeps the answer in the connection. A question that is still there then
//! says that something of the connection has passed: the daemon takes it off what carries nothing. All
//! bits lie in one field whose place can be chosen, and everything outside that field is left as the
//! administrator set it.

use thiserror::Error;

use super::fan_out::Shards;

/// What one bit of the field says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MarkBit {
    /// Packet: queue it; it carries TCP payload, and may pass while no daemon listens, if so configured
    /// and not suspect.
    Payload,
    /// Packet: queue it; a locked host is at one end or its shape is FastTrack's, so it never passes
    /// unseen. Without payload it is signalling.
    Suspect,
    /// Packet: it travels against the initiator of its connection.
    Reply,
    /// Packet and connection: the first SYN of the connection was seen here, and nothing that it
    /// carries has passed yet.
    FromStart,
    /// Packet and connection: proven harmless, never queued again.
    Cleared,
    /// Packet and connection: watched long enough; not queued while neither end is locked.
    Tolerated,
}

impl MarkBit {
    /// Place of the bit inside the field.
    const fn position(self) -> u8 {
        match self {
            MarkBit::Payload => 0,
            MarkBit::Suspect => 1,
            MarkBit::Reply => 2,
            MarkBit::FromStart => 3,
            MarkBit::Cleared => 4,
            MarkBit::Tolerated => 5,
        }
    }
}

/// Six neighbouring bits of a 32-bit mark, and above them as many as a number of shards has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MarkField {
    shift: u8,
    shard_bits: u8,
}

/// The field does not fit into a mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error(
    "a mark has 32 bits and ftwall needs {width} of them: the lowest can be bit 0 to {}, not {shift}",
    MARK_BITS - .width
)]
pub struct MarkFieldError {
    shift: u8,
    width: u8,
}

/// Bits in the field without those of the shard.
const WIDTH: u8 = 6;
const MARK_BITS: u8 = 32;

impl MarkField {
    /// Bits 24 to 29: above what mwan3 (0x3f00), Kubernetes (0xc000) and Tailscale (0xff0000) use, and
    /// away from the small numbers people choose by hand.
    pub const DEFAULT: MarkField = MarkField {
        shift: 24,
        shard_bits: 0,
    };

    /// The field whose lowest bit is bit `shift` of the mark.
    ///
    /// # Errors
    /// When the field would reach beyond bit 31.
    pub fn new(shift: u8) -> Result<MarkField, MarkFieldError> {
        let field = MarkField {
            shift,
            shard_bits: 0,
        };
        field.checked()
    }

    /// The field with room for the numbers of `shards`.
    ///
    /// # Errors
    /// When the field would reach beyond bit 31.
    pub fn with_shards(self, shards: Shards) -> Result<MarkField, MarkFieldError> {
        let field = MarkField {
            shard_bits: shards.bits(),
            ..self
        };
        field.checked()
    }

    fn checked(self) -> Result<MarkField, MarkFieldError> {
        let (shift, width) = (self.shift, WIDTH + self.shard_bits);
        if shift > MARK_BITS - width {
            return Err(MarkFieldError { shift, width });
        }
        Ok(self)
    }

    /// A shard's number as it stands in a packet's mark.
    pub const fn shard(self, shard: u16) -> u32 {
        (shard as u32) << (self.shift + WIDTH)
    }

    /// What of a packet's mark says which queue it is for.
    pub const fn address(self) -> u32 {
        self.questions() | self.shard((1 << self.shard_bits) - 1)
    }

    /// All bits of the field.
    pub const fn mask(self) -> u32 {
        // In 64 bits, because the field may end with the mark.
        (((1_u64 << (WIDTH + self.shard_bits)) - 1) << self.shift) as u32
    }

    /// One bit of the field as it stands in a mark.
    pub const fn bit(self, bit: MarkBit) -> u32 {
        1 << (self.shift + bit.position())
    }

    /// The bits that send a packet to the queue.
    pub const fn questions(self) -> u32 {
        self.bit(MarkBit::Payload) | self.bit(MarkBit::Suspect)
    }

    /// `mark` without the bits that send a packet to the queue.
    pub const fn without_questions(self, mark: u32) -> u32 {
        mark & !self.questions()
    }

    /// Whether `mark` carries `bit`.
    pub const fn is_set(self, mark: u32, bit: MarkBit) -> bool {
        mark & self.bit(bit) != 0
    }

    /// `mark` with `bit` added and every other bit as it was.
    pub const fn with(self, mark: u32, bit: MarkBit) -> u32 {
        mark | self.bit(bit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [MarkBit; 6] = [
        MarkBit::Payload,
        MarkBit::Suspect,
        MarkBit::Reply,
        MarkBit::FromStart,
        MarkBit::Cleared,
        MarkBit::Tolerated,
    ];

    #[test]
    fn every_bit_has_its_own_place_inside_the_field() {
        let field = MarkField::DEFAULT;
        let together = ALL.into_iter().fold(0, |mark, bit| {
            assert_eq!(mark & field.bit(bit), 0, "{bit:?} shares its place");
            field.with(mark, bit)
        });
        assert_eq!(together, field.mask());
        assert_eq!(together, 0x3f00_0000);
    }

    #[test]
    fn an_answer_leaves_the_marks_of_the_administrator_alone() {
        let field = MarkField::DEFAULT;
        let marked = field.with(0x8000_0042, MarkBit::Cleared);
        assert_eq!(marked & !field.mask(), 0x8000_0042);
        assert!(field.is_set(marked, MarkBit::Cleared));
        assert!(!field.is_set(marked, MarkBit::Tolerated));
    }

    #[test]
    fn shards_take_the_bits_above_the_field_as_long_as_there_are_some() {
        let four = Shards::new(4).expect("a power of two");
        let field = MarkField::DEFAULT.with_shards(four).expect("two are left");
        assert_eq!(field.mask(), 0xff00_0000);
        assert_eq!((field.shard(1), field.shard(3)), (0x4000_0000, 0xc000_0000));
        assert_eq!(field.address(), 0xc300_0000);
        let eight = Shards::new(8).expect("a power of two");
        let error = MarkField::DEFAULT.with_shards(eight).expect_err("33 bits");
        assert!(error.to_string().contains("bit 0 to 23, not 24"), "{error}");
    }

    #[test]
    fn a_field_beyond_the_last_bit_is_refused_by_name() {
        assert_eq!(MarkField::new(26).map(MarkField::mask), Ok(0xfc00_0000));
        let error = MarkField::new(27).expect_err("33 bits are needed");
        assert!(error.to_string().contains("bit 0 to 26, not 27"), "{error}");
    }
}
