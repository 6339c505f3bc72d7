//! `top`: the daemon on a terminal.

use std::time::Duration;

use clap::Args;

use super::operator::{Said, SocketArgs};
use crate::control::values::parse_duration;
use crate::top;

/// Options of `top`.
#[derive(Debug, Args)]
pub struct TopArgs {
    /// Print one screen and end; needs no terminal
    #[arg(long)]
    once: bool,
    /// How often the daemon is asked
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = parse_duration)]
    interval: Duration,
    #[command(flatten)]
    socket: SocketArgs,
}

impl TopArgs {
    /// `top`: the daemon on a terminal, until a key ends it.
    ///
    /// # Errors
    /// When no daemon answers, or there is no terminal.
    pub fn top(&self) -> Said {
        if self.once {
            return Ok((top::once(&self.socket.socket)?, 0));
        }
        top::live(&self.socket.socket, self.interval)?;
        Ok((String::new(), 0))
    }
}
