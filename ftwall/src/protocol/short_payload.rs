//! Payloads short enough to lie where they are needed, so that answering allocates nothing.

use std::fmt;
use std::ops::Deref;

/// The payload of a datagram that is sent in a peer's name: [`ShortPayload::MAX`] octets at most.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct ShortPayload {
    len: u8,
    octets: [u8; Self::MAX],
}

impl ShortPayload {
    /// More than the longest pong has: header, a network name of 16 octets, NUL.
    pub const MAX: usize = 31;

    /// These parts one behind the other; nothing if they do not fit.
    #[must_use]
    pub fn of(parts: &[&[u8]]) -> Option<Self> {
        let mut octets = [0; Self::MAX];
        let mut len = 0;
        for part in parts {
            octets.get_mut(len..len + part.len())?.copy_from_slice(part);
            len += part.len();
        }
        let len = u8::try_from(len).ok()?;
        Some(Self { len, octets })
    }
}

impl Deref for ShortPayload {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.octets[..usize::from(self.len)]
    }
}

impl fmt::Debug for ShortPayload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02x?}", &**self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_put_one_behind_the_other_as_long_as_they_fit() {
        let payload = ShortPayload::of(&[b"ab", b"", b"c"]).expect("it fits");
        assert_eq!(*payload, *b"abc");
        let full = [7; ShortPayload::MAX];
        assert_eq!(ShortPayload::of(&[&full]).as_deref(), Some(&full[..]));
        assert_eq!(ShortPayload::of(&[&full, b"x"]), None);
    }
}
