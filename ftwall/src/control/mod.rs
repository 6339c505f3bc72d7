//! What the daemon tells people and programs around it, and what they tell it.

pub mod config_file;
pub mod configuration;
pub mod events;
pub mod schedule;
pub mod setting;
pub mod values;
