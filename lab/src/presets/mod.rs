//! Ready-made networks. A new one is a new file and one line in [`ALL`].

mod office;

pub use office::{Office, office};

use crate::topology::Topology;

/// A network that `lab shell` can raise by its name.
#[derive(Debug, Clone, Copy)]
pub struct Preset {
    /// Name on the command line.
    pub name: &'static str,
    /// What it is, in a line.
    pub summary: &'static str,
    /// Builds the description.
    pub topology: fn() -> Topology,
}

/// Every preset.
pub const ALL: &[Preset] = &[
    Preset {
        name: "office",
        summary: "two clients, a gateway, an internet",
        topology: office::plain,
    },
    Preset {
        name: "office-nat",
        summary: "the same behind NAT, inbound blocked",
        topology: office::nat,
    },
    Preset {
        name: "office-wan",
        summary: "the same with 20 ms and 1 % loss to the internet",
        topology: office::wan,
    },
];

/// The preset of that name.
#[must_use]
pub fn find(name: &str) -> Option<&'static Preset> {
    ALL.iter().find(|preset| preset.name == name)
}
