//! What the daemon tells people and programs around it.

pub mod events;
