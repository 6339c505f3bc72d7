//! What must hold: no contact succeeds while ftwall is on, and the web goes on as if it were not.
//!
//! A scenario is data ([`scenario`], [`catalog`]); a stage plays it without and with a device under
//! test ([`stage`], [`device`]); three witnesses account for it ([`observe`]), the ledger counts
//! ([`ledger`]) and the judge decides ([`judge`]). Nothing here knows how ftwall recognises or
//! decides anything.

pub mod binaries;
pub mod campaign;
pub mod catalog;
pub mod cli;
pub mod device;
pub mod faults;
pub mod generate;
pub mod judge;
pub mod ledger;
pub mod level;
pub mod observe;
pub mod outcome;
pub mod progress;
pub mod recipe;
pub mod record;
pub mod report;
pub mod scenario;
pub mod soak;
pub mod stage;
pub mod timeline;
pub mod web;
