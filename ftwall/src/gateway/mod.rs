//! The shell: everything that touches the kernel, the clock, files or the command line.
//!
//! [`daemon`] is the recipe, [`worker`] what is done with packets; the other files each know one thing it needs.

pub mod backend;
pub mod bell;
pub mod beside;
pub mod capture;
mod client_files;
pub mod clock;
pub mod confinement;
pub mod daemon;
pub mod doctor;
pub mod drift;
pub mod event_log;
pub mod failure;
pub mod fan_out;
pub mod inbound;
pub mod inject;
pub mod interface_names;
mod kept_state;
pub mod kernel_memory;
pub mod kernel_sets;
pub mod latency;
pub mod link;
pub mod marks;
mod messenger;
pub mod netlink;
pub mod netlink_queue;
pub mod nfqueue;
pub mod nft;
pub mod nft_json;
mod only_one;
mod opening;
pub mod operations;
pub mod program;
mod pulse;
pub mod queue;
pub mod replay;
pub mod rules;
mod rules_guard;
mod rules_watch;
pub mod service_manager;
pub mod set_elements;
mod sign_of_life;
pub mod signals;
pub mod succession;
pub mod surroundings;
pub mod take_over;
#[cfg(feature = "http")]
mod visitors;
pub mod worker;
pub mod workers;
pub mod xt;
