//! What survives a restart: locked hosts, known peers, what an operator let through, and modes set by
//! hand, in one file that a thread of its own writes.
//!
//! ```text
//! ftwall-state 1                                   magic and version
//! 5d0b3a71 {"keep":{"what":{"lock":...},...}}      the snapshot: checksum, then what is known
//! ...
//! 91c40f2e {"forget":{"lock":...}}                 the journal: what has changed since
//! ```
//!
//! Snapshot and journal share a file, so that one `rename` replaces both: a snapshot is written beside it,
//! made durable, and takes its place once the journal has outgrown it. A crash of the daemon loses nothing
//! that was written, a crash of the machine at most what came since the last snapshot.
//!
//! Ends are absolute and counted by the wall clock, the only one that goes on while nothing runs. It may
//! have been set meanwhile: no entry lasts longer after a restart than it had left when it was written.

mod fact;
mod journal;
mod keeper;
mod line;
mod reading;

pub use fact::{Change, Fact, Kept, Key};
pub use keeper::{Health, Recorder, StateKeeper};
pub use reading::{Damage, Found, SetAside, open, parse};

/// The file in the state directory.
pub const FILE: &str = "state";
/// Where a file goes that cannot be used, in place of an earlier one.
pub const DAMAGED: &str = "state.damaged";
/// A snapshot that is being written.
const NEW: &str = "state.new";

/// The newest version of the file that is understood, and the one that is written.
pub const VERSION: u32 = 1;

/// Facts that are kept at most. What is known beyond this survives in the kernel's sets alone.
pub const MAX_FACTS: usize = 1 << 18;
