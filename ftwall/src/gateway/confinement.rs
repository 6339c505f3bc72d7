//! What a thread gives up before it reads what anybody may have sent: new privileges, capabilities, files
//! and other sockets, and all system calls but those it lives on.
//!
//! All of it is of one thread alone. The thread that started everything keeps what it has, since it runs
//! `nft` and executes its successor, which inherits from nobody else. Threads share their memory: whoever
//! runs code of his own in a confined one may still write what another reads, so this stands beside the
//! limits of the process, which a service manager sets, and not in their place.
//!
//! A kernel that lacks a layer leaves the others in force.

mod calls;
mod reach;
#[cfg(test)]
mod tests;

use std::fmt;

use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, clear_ambient_capability_set, set_capabilities,
    set_no_new_privs,
};

/// One thing that a thread is held by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Layer {
    /// No program that it executes gets more than it has.
    NoNewPrivileges,
    /// What it may do as if it were root.
    Capabilities,
    /// Which files, sockets and processes it may reach.
    Landlock,
    /// Which system calls it may make.
    Seccomp,
}

impl fmt::Display for Layer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Layer::NoNewPrivileges => "no_new_privs",
            Layer::Capabilities => "capabilities",
            Layer::Landlock => "Landlock",
            Layer::Seccomp => "seccomp",
        })
    }
}

/// A layer that is not in force, and why.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Lacking {
    /// Which.
    pub layer: Layer,
    /// Why not.
    pub reason: String,
}

impl fmt::Display for Lacking {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.layer, self.reason)
    }
}

/// The one capability left: the kernel takes verdicts and changes of sets only from who has it when he
/// sends them. Sockets that wanted another when they were opened ask for it no more.
const NEEDED: CapabilitySet = CapabilitySet::NET_ADMIN;

/// Puts a layer in force for this thread.
type Apply = fn() -> anyhow::Result<()>;

/// Confines this thread, for good, to what it takes to judge packets by sockets that are open; says what
/// does not hold.
pub fn confine() -> Vec<Lacking> {
    // Without new privileges, since the kernel wants that of who takes the other layers on; the filter
    // last, since it refuses to set up anything.
    let layers: [(Layer, Apply); 4] = [
        (Layer::NoNewPrivileges, || Ok(set_no_new_privs(true)?)),
        (Layer::Capabilities, || Ok(give_up_all_but(NEEDED)?)),
        (Layer::Landlock, reach::nothing),
        (Layer::Seccomp, calls::packets_alone),
    ];
    let lacking = layers.into_iter().filter_map(|(layer, apply)| {
        let reason = format!("{:#}", apply().err()?);
        Some(Lacking { layer, reason })
    });
    lacking.collect()
}

fn give_up_all_but(needed: CapabilitySet) -> rustix::io::Result<()> {
    let held = capabilities(None)?;
    clear_ambient_capability_set()?;
    let left = CapabilitySets {
        effective: held.effective & needed,
        permitted: held.permitted & needed,
        inheritable: CapabilitySet::empty(),
    };
    set_capabilities(None, left)
}
