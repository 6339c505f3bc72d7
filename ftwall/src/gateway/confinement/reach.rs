//! What a thread may reach by names, numbers and ports, by way of the `landlock` crate, which is named in
//! this file only.
//!
//! The filter of system calls refuses the same. This holds where a processor has no such filter, and where
//! a call that looked harmless turns out not to be.

use anyhow::bail;
use landlock::{
    ABI, Access as _, AccessFs, AccessNet, Ruleset, RulesetAttr as _, RulesetStatus, Scope,
};

/// Lets this thread reach nothing that is not open already: no file, no TCP port, no Unix socket by name,
/// no process by a signal. As much of that as the kernel knows.
pub(super) fn nothing() -> anyhow::Result<()> {
    // Of the network TCP alone: a thread that tells the kernel of its life sends datagrams.
    let ruleset = Ruleset::default()
        .handle_access(AccessFs::from_all(ABI::V10))?
        .handle_access(AccessNet::BindTcp | AccessNet::ConnectTcp)?
        .scope(Scope::AbstractUnixSocket | Scope::Signal)?;
    match ruleset.create()?.restrict_self()?.ruleset {
        RulesetStatus::FullyEnforced | RulesetStatus::PartiallyEnforced => Ok(()),
        RulesetStatus::NotEnforced => bail!("this kernel has none, or it is switched off"),
    }
}
