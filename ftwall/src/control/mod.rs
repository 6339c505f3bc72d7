//! What the daemon tells people and programs around it.

pub mod events;
pub mod policy_file;
pub mod values;
