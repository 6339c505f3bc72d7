//! Hears from the kernel when somebody changes tables in which ftwall has rules.
//!
//! Messages and attributes are those of the kernel's `include/uapi/linux/netfilter/nf_tables.h` and
//! `nfnetlink.h`. Rules of the original iptables are no part of nf_tables: of those nothing is heard.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use super::netlink::{Message, ReceiveError, Socket};
use super::nft_json::TABLE;

/// A socket to which the kernel tells every change of nf_tables.
#[derive(Debug)]
pub(super) struct RulesWatch {
    socket: Socket,
    /// Room for one datagram, used again for each.
    datagram: Vec<u8>,
}

impl RulesWatch {
    /// Listens in the network namespace of this thread.
    ///
    /// # Errors
    /// When the kernel has no netfilter or the privilege to listen is missing.
    pub(super) fn open() -> io::Result<RulesWatch> {
        Ok(RulesWatch {
            socket: Socket::listening(NFNLGRP_NFTABLES)?,
            datagram: vec![0; LONGEST_DATAGRAM],
        })
    }

    /// Whether a table that matters was changed since the last call, by whomever. What the kernel could
    /// not tell for want of room may have been such a change.
    pub(super) fn heard(&mut self) -> bool {
        let mut heard = false;
        loop {
            match self.socket.receive(&mut self.datagram) {
                Ok(None) => return heard,
                Ok(Some(mut messages)) => {
                    heard |= messages.any(|message| message.is_ok_and(|it| matters(&it)));
                }
                Err(ReceiveError::Truncated(_)) => heard = true,
                // The kernel reports a loss once; any other error is met again at the next call.
                Err(ReceiveError::Kernel(_)) => return true,
            }
        }
    }
}

impl AsFd for RulesWatch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Elements come and go with packets, and a generation ends with every change of anything.
fn matters(message: &Message<'_>) -> bool {
    let [subsystem, what] = message.kind.to_be_bytes();
    let is_structure = (NEWTABLE..NEWSETELEM).contains(&what);
    let is_of = |table: &str| {
        let name = message.attributes().of_kind(TABLE_NAME);
        name.is_some_and(|name| name.value.strip_suffix(&[0]) == Some(table.as_bytes()))
    };
    subsystem == NFTABLES && is_structure && (is_of(TABLE) || is_of(MANGLE))
}

/// Group 7, `NFNLGRP_NFTABLES`.
const NFNLGRP_NFTABLES: u32 = 1 << 6;
/// `NFNL_SUBSYS_NFTABLES`.
const NFTABLES: u8 = 10;
/// `NFT_MSG_NEWTABLE`: tables, chains, rules and sets from here on.
const NEWTABLE: u8 = 0;
/// `NFT_MSG_NEWSETELEM`.
const NEWSETELEM: u8 = 12;
/// `NFTA_TABLE_NAME`, `NFTA_CHAIN_TABLE`, `NFTA_RULE_TABLE` and `NFTA_SET_TABLE` alike.
const TABLE_NAME: u16 = 1;
/// Where iptables on nf_tables has the statement that queues.
const MANGLE: &str = "mangle";
/// The kernel puts at most a page of notifications into one datagram, unless a single one is longer.
const LONGEST_DATAGRAM: usize = 1 << 16;

#[cfg(test)]
mod tests {
    use super::super::netlink::{Header, MessageWriter, Messages};
    use super::*;

    fn is_heard(what: u8, table: &[u8]) -> bool {
        let mut writer = MessageWriter::default();
        let header = Header {
            kind: u16::from_be_bytes([NFTABLES, what]),
            ..Header::default()
        };
        writer.message(header, |message| message.attribute(TABLE_NAME, table));
        let message = Messages::new(writer.as_bytes()).flatten().next();
        matters(&message.expect("one was written"))
    }

    #[test]
    fn tables_with_rules_of_ours_matter_and_nothing_that_comes_with_packets() {
        const DELTABLE: u8 = 2;
        const DELRULE: u8 = 8;
        const DELSETELEM: u8 = 14;
        const NEWGEN: u8 = 15;
        assert!(is_heard(DELTABLE, b"ftwall\0"));
        assert!(is_heard(DELRULE, b"mangle\0"));
        assert!(!is_heard(DELRULE, b"filter\0"), "an administrator's own");
        assert!(!is_heard(DELSETELEM, b"ftwall\0"), "a lock has ended");
        assert!(!is_heard(NEWGEN, &[0, 0, 0, 7]));
    }
}
