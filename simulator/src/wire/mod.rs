//! Bytes on the wire: how FastTrack messages are written and read. Sources in the comments: PROTO is
//! the protocol notes of the giFT-FastTrack project (2004), giFT that client's observed behaviour,
//! MLD mldonkey's.
//!
//! Nothing here keeps state across messages, and nothing here encrypts as FastTrack does: sessions
//! carry real messages under a seeded keystream of the simulator's own (see `payload`), which gives
//! the same sizes and the same look.

pub mod handshake;
pub mod http;
pub mod session;
pub mod udp;

use std::fmt;

/// A FastTrack network, told apart by the name in pings and at the start of sessions (PROTO).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Network {
    /// Kazaa and Kazaa Lite; the open clients too.
    Kazaa,
    /// iMesh.
    Fileshare,
    /// Grokster.
    Grokster,
}

impl Network {
    /// Every network of the simulated population.
    pub const ALL: [Self; 3] = [Self::Kazaa, Self::Fileshare, Self::Grokster];

    /// The name as it travels, without its terminating NUL.
    pub fn name(self) -> &'static str {
        match self {
            Self::Kazaa => "KaZaA",
            Self::Fileshare => "fileshare",
            Self::Grokster => "Grokster",
        }
    }

    /// Reads a name. Letter case does not matter (giFT).
    pub fn from_name(name: &[u8]) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|network| network.name().as_bytes().eq_ignore_ascii_case(name))
    }

    /// Octets of the name with its NUL: 6, 10 or 9.
    pub fn name_len(self) -> usize {
        self.name().len() + 1
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Lower-case hexadecimal, as reports and request paths write bytes.
pub fn hex(bytes: &[u8]) -> String {
    use fmt::Write;
    bytes
        .iter()
        .fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
            write!(text, "{byte:02x}").expect("writing to a string cannot fail");
            text
        })
}
