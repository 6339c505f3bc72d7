//! What the kernel's sets still know of hosts and peers when a daemon takes over from one that died.
//!
//! Rules are replaced in one transaction that leaves the sets alone, so who was locked stays locked in
//! the kernel. The engine has to know it too, or it would pass what the kernel asks it about.
//!
//! Sets are asked by netlink, not by `nft`: the kernel hands a set out in parts and begins each part by
//! passing over all before it, so a million elements take it long enough once.

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use rustix::io::Errno;

use super::netlink::{Attribute, Header, Message, MessageWriter, Socket};
use super::rules::{LOCKED, PEERS};
use super::set_elements::{
    ELEM_EXPIRATION, ELEM_KEY, GETSETELEM, INET, LIST_ELEMENTS, as_io, name_set,
};
use crate::Remembered;

/// What was read, and whether it is all there is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KernelMemory {
    /// Locked hosts, then each client's peers.
    pub entries: Vec<Remembered>,
    /// Reading was given up: the kernel goes on dropping by what was not read.
    pub is_partial: bool,
}

/// Reads both sets in the network namespace of this thread for as long as `may_go_on` says so, locked
/// hosts first. A set that is not there holds nothing.
///
/// # Errors
/// When the kernel refuses to show a set.
pub fn read(mut may_go_on: impl FnMut() -> bool) -> io::Result<KernelMemory> {
    let socket = Socket::open()?;
    let mut entries = Vec::new();
    let has_all_locks = dump(&socket, LOCKED, &mut may_go_on, |key, for_| {
        entries.extend(host(key).map(|host| Remembered::Locked { host, for_ }));
    })?;
    // Each pair stands there once for TCP and once for UDP.
    let mut peers = BTreeMap::new();
    let has_all_peers = dump(&socket, PEERS, &mut may_go_on, |key, for_| {
        peers.extend(pair(key).map(|pair| (pair, for_)));
    })?;
    let peers = peers
        .into_iter()
        .map(|((client, peer), for_)| Remembered::Peer { client, peer, for_ });
    entries.extend(peers);
    Ok(KernelMemory {
        entries,
        is_partial: !(has_all_locks && has_all_peers),
    })
}

/// Hands every element of a set over, key and time left; false if that was given up before the end.
fn dump(
    socket: &Socket,
    set: &str,
    may_go_on: &mut impl FnMut() -> bool,
    mut take: impl FnMut(&[u8], Duration),
) -> io::Result<bool> {
    let mut request = MessageWriter::default();
    let header = Header {
        kind: GETSETELEM,
        flags: Header::DUMP,
        family: INET,
        ..Header::default()
    };
    request.message(header, |message| name_set(message, set));
    socket.send(request.as_bytes())?;
    let mut part = vec![0; LONGEST_PART];
    while may_go_on() {
        let Some(messages) = socket.receive(&mut part).map_err(as_io)? else {
            // The kernel has a part ready whenever it is asked, until it has said that it is done.
            return Err(io::ErrorKind::UnexpectedEof.into());
        };
        for message in messages.flatten() {
            match end_of_dump(&message) {
                Some(outcome) => return outcome.map(|()| true),
                None => elements(&message).for_each(|(key, for_)| take(key, for_)),
            }
        }
    }
    Ok(false)
}

/// How a dump has ended, if this message says that it has.
fn end_of_dump(message: &Message<'_>) -> Option<io::Result<()>> {
    if message.kind == DONE {
        return Some(Ok(()));
    }
    message.acknowledgement().map(|outcome| match outcome {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(error.into()),
    })
}

/// Key and time left of every element in a message; elements that stay for ever are not the daemon's.
fn elements<'a>(message: &Message<'a>) -> impl Iterator<Item = (&'a [u8], Duration)> {
    let list = message.attributes().of_kind(LIST_ELEMENTS);
    let elements = list
        .into_iter()
        .flat_map(|list| list.attributes().flatten());
    elements.filter_map(|element: Attribute<'a>| {
        let key = element.attributes().of_kind(ELEM_KEY)?.attributes();
        let left = element.attributes().of_kind(ELEM_EXPIRATION)?.value;
        let milliseconds = u64::from_be_bytes(*left.first_chunk()?);
        let left = Duration::from_millis(milliseconds.max(1));
        Some((key.flatten().next()?.value, left))
    })
}

fn host(key: &[u8]) -> Option<Ipv4Addr> {
    <[u8; 4]>::try_from(key).ok().map(Ipv4Addr::from)
}

/// Client, peer, protocol and port, each in words of its own.
fn pair(key: &[u8]) -> Option<(Ipv4Addr, SocketAddrV4)> {
    let (words, []) = key.as_chunks::<4>() else {
        return None;
    };
    let [client, peer, _, [high, low, ..]] = *words else {
        return None;
    };
    let port = u16::from_be_bytes([high, low]);
    Some((client.into(), SocketAddrV4::new(peer.into(), port)))
}

/// `NLMSG_DONE`.
const DONE: u16 = 3;
/// The kernel fills 32 KiB at most.
const LONGEST_PART: usize = 1 << 16;

#[cfg(test)]
mod tests {
    use super::super::netlink::Messages;
    use super::*;

    #[test]
    fn a_key_is_read_as_it_is_written_and_another_one_not_at_all() {
        let key = [10, 77, 1, 1, 198, 18, 0, 1, 17, 0, 0, 0, 0x04, 0xbe, 0, 0];
        let client = Ipv4Addr::new(10, 77, 1, 1);
        let peer = SocketAddrV4::new(Ipv4Addr::new(198, 18, 0, 1), 1214);
        assert_eq!(pair(&key), Some((client, peer)));
        assert_eq!(host(&key[..4]), Some(client));
        for cut in [0, 3, 5, 12, 15] {
            assert_eq!(pair(&key[..cut]), None, "{cut}");
        }
        assert_eq!(host(&key[..5]), None);
    }

    #[test]
    fn an_element_without_an_end_is_none_of_the_daemons() {
        let mut writer = MessageWriter::default();
        writer.message(Header::default(), |message| {
            message.nested(LIST_ELEMENTS, |list| {
                for expires in [Some(1500_u64), None] {
                    list.nested(1, |element| {
                        element.nested(ELEM_KEY, |data| data.attribute(1, &[10, 77, 1, 1]));
                        if let Some(expires) = expires {
                            element.attribute(ELEM_EXPIRATION, &expires.to_be_bytes());
                        }
                    });
                }
            });
        });
        let message = Messages::new(writer.as_bytes()).flatten().next();
        let message = message.expect("one");
        let read: Vec<_> = elements(&message).collect();
        let key: &[u8] = &[10, 77, 1, 1];
        assert_eq!(read, [(key, Duration::from_millis(1500))]);
    }
}
