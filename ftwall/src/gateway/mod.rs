//! The shell: everything that touches the kernel, the clock, files or the command line.

pub mod backend;
pub mod failure;
pub mod marks;
pub mod nft;
pub mod nft_json;
pub mod program;
pub mod rules;
pub mod xt;
