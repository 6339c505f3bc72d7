//! Reads an input front to back, and writes one the same way.

/// What is left of an input. Every reader answers `None` once nothing is left, and with less than was
/// asked for where that makes sense, so that no input is too short for a script.
#[derive(Debug, Clone, Copy)]
pub(super) struct Input<'a> {
    rest: &'a [u8],
}

impl<'a> Input<'a> {
    pub(super) const fn new(octets: &'a [u8]) -> Self {
        Self { rest: octets }
    }

    pub(super) fn octet(&mut self) -> Option<u8> {
        let (first, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(*first)
    }

    /// Two octets, the high one first.
    pub(super) fn word(&mut self) -> Option<u16> {
        Some(u16::from_be_bytes([self.octet()?, self.octet()?]))
    }

    /// Up to `len` octets.
    pub(super) fn octets(&mut self, len: usize) -> &'a [u8] {
        let (taken, rest) = self.rest.split_at(len.min(self.rest.len()));
        self.rest = rest;
        taken
    }

    /// Octets behind their length in two octets.
    pub(super) fn field(&mut self) -> Option<&'a [u8]> {
        let len = self.word()?;
        Some(self.octets(len.into()))
    }

    pub(super) fn rest(&mut self) -> &'a [u8] {
        self.octets(usize::MAX)
    }
}

/// What [`Input::field`] reads back as `octets`.
pub(super) fn field(octets: &[u8]) -> Vec<u8> {
    let len = u16::try_from(octets.len()).expect("a seed is shorter than 64 KiB");
    [&len.to_be_bytes(), octets].concat()
}
