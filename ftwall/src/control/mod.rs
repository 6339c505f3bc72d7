//! What the daemon tells people and programs around it, and what they tell it.

pub mod client;
pub mod config_file;
pub mod configuration;
pub mod event_file;
pub mod events;
pub mod one_or_many;
pub mod privacy;
pub mod schedule;
pub mod server;
pub mod setting;
pub mod table;
pub mod values;
pub mod wire;
