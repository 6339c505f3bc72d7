//! One daemon for a machine, or rather for a network namespace: two would change each other's rules, whichever
//! queues they read.
//!
//! An abstract Unix address belongs to a network namespace, as rules do, and goes with its process however that
//! ends. Anybody may bind it, so whoever has it is believed only if he could change rules himself.

use std::io::ErrorKind;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener};

use anyhow::{Context as _, bail};
use nix::sys::socket::sockopt::PeerCredentials;
use nix::sys::socket::{UnixCredentials, getsockopt};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
use tracing::warn;

/// The address.
const NAME: &str = "ftwall/run";

/// The bit of `CAP_NET_ADMIN`.
const NET_ADMIN: u64 = 1 << 12;

/// That this daemon is the only one. Nothing where somebody else has the address who is none.
#[derive(Debug)]
pub(super) struct OnlyOne(Option<UnixListener>);

impl OnlyOne {
    /// Keeps other daemons from starting.
    ///
    /// # Errors
    /// When another one runs.
    pub(super) fn claim() -> anyhow::Result<OnlyOne> {
        let address = SocketAddr::from_abstract_name(NAME).context("an abstract address")?;
        let claimed = UnixListener::bind_addr(&address).and_then(|listener| {
            listener.set_nonblocking(true)?;
            Ok(listener)
        });
        match claimed {
            Ok(listener) => Ok(OnlyOne(Some(listener))),
            Err(error) if error.kind() == ErrorKind::AddrInUse => {
                if let Some(process) = daemon_there() {
                    bail!(
                        "ftwall is running already, as process {process}: two daemons would change \
                         each other's rules"
                    );
                }
                warn!(
                    "somebody who is no daemon has the address @{NAME}: another daemon could start"
                );
                Ok(OnlyOne(None))
            }
            Err(error) => {
                warn!(%error, "another daemon could start beside this one");
                Ok(OnlyOne(None))
            }
        }
    }

    /// Lets go of those who came to see who is here.
    pub(super) fn turn_away(&self) {
        if let Some(listener) = &self.0 {
            while listener.accept().is_ok() {}
        }
    }
}

/// The process that listens, if it could change rules.
fn daemon_there() -> Option<i32> {
    // Who listens and accepts nobody must not hold anybody up.
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let stream = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None).ok()?;
    let address = SocketAddrUnix::new_abstract_name(NAME.as_bytes()).ok()?;
    connect(&stream, &address).ok()?;
    let holder = getsockopt(&stream, PeerCredentials).ok()?;
    is_able(&holder).then_some(holder.pid())
}

/// Of a process that cannot be looked at, its user has to do.
fn is_able(holder: &UnixCredentials) -> bool {
    match std::fs::read_to_string(format!("/proc/{}/status", holder.pid())) {
        Ok(status) => may_change_rules(&status),
        Err(_) => [0, rustix::process::geteuid().as_raw()].contains(&holder.uid()),
    }
}

fn may_change_rules(status: &str) -> bool {
    let capabilities = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let capabilities = capabilities.and_then(|text| u64::from_str_radix(text.trim(), 16).ok());
    capabilities.is_some_and(|capabilities| capabilities & NET_ADMIN != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_may_change_rules_is_read_off_what_the_kernel_says() {
        assert!(may_change_rules(
            "Name:\tftwall\nCapEff:\t0000000000003000\n"
        ));
        assert!(!may_change_rules(
            "Name:\tnobody\nCapEff:\t0000000000002000\n"
        ));
        assert!(!may_change_rules("Name:\tnobody\n"));
    }
}
