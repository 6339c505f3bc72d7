//! Elements of ftwall's sets, written to nf_tables by netlink: a transaction takes microseconds where
//! starting `nft` takes milliseconds.
//!
//! Messages and attributes are those of the kernel's `include/uapi/linux/netfilter/nf_tables.h` and
//! `nfnetlink.h`. The sets themselves are made with the rules.

use std::io;
use std::time::Duration;

use rustix::io::Errno;
use thiserror::Error;

use super::kernel_sets::{Batch, Element};
use super::netlink::{AttributeWriter, Header, MessageWriter, ReceiveError, Socket};
use super::nft_json::TABLE;
use super::rules::{LOCKED, PEERS, Transport};

/// Why elements could not be written; nothing of the transaction was then.
#[derive(Debug, Error)]
pub enum SetError {
    /// The set holds as many elements as it may.
    #[error("the set {set} is full")]
    Full {
        /// Its name.
        set: &'static str,
    },
    /// The kernel refuses what concerns one set.
    #[error("the kernel refuses to change the set {set}: {source}")]
    Refused {
        /// Its name.
        set: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// The kernel refuses the transaction, or could not be asked.
    #[error("cannot change the kernel's sets: {0}")]
    Transaction(#[from] io::Error),
}

/// Writes elements, one transaction at a time.
#[derive(Debug)]
pub struct SetWriter {
    socket: Socket,
    transaction: MessageWriter,
    /// Room for the kernel's answers.
    answers: Vec<u8>,
}

impl SetWriter {
    /// Opens a socket to nf_tables in the network namespace of this thread.
    ///
    /// # Errors
    /// When the kernel has no netfilter or no descriptors are left.
    pub fn open() -> io::Result<SetWriter> {
        Ok(SetWriter {
            socket: Socket::open()?,
            transaction: MessageWriter::default(),
            answers: vec![0; LONGEST_ANSWER],
        })
    }

    /// Writes all changes of `batch`, or none. The kernel heeds them from the moment this returns.
    ///
    /// # Errors
    /// Which set could not be changed, and why.
    pub fn write(&mut self, batch: &Batch) -> Result<(), SetError> {
        self.transaction.clear();
        write_transaction(&mut self.transaction, batch);
        let sent = self.socket.send(self.transaction.as_bytes());
        sent.map_err(io::Error::from)?;
        self.outcome()
    }

    /// Reads all answers: the first refusal is the reason, and without any answer nobody knows.
    fn outcome(&mut self) -> Result<(), SetError> {
        let mut outcome = Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        let mut is_refused = false;
        while let Some(messages) = self.socket.receive(&mut self.answers).map_err(as_io)? {
            for message in messages.flatten() {
                match message.acknowledgement() {
                    Some(Err(error)) if !is_refused => {
                        is_refused = true;
                        outcome = Err(refusal(message.sequence, error));
                    }
                    Some(Ok(())) if !is_refused => outcome = Ok(()),
                    Some(_) | None => {}
                }
            }
        }
        outcome
    }
}

/// Says what an error concerns; the messages of each set carry the set's place in [`SETS`], counted
/// from 1, as their sequence.
fn refusal(sequence: u32, error: Errno) -> SetError {
    let place = usize::try_from(sequence)
        .ok()
        .and_then(|place| place.checked_sub(1));
    match place.and_then(|place| SETS.get(place)) {
        Some(&set) if error == Errno::NFILE => SetError::Full { set },
        Some(&set) => SetError::Refused {
            set,
            source: error.into(),
        },
        None => io::Error::from(error).into(),
    }
}

fn as_io(error: ReceiveError) -> io::Error {
    match error {
        ReceiveError::Kernel(error) => error.into(),
        ReceiveError::Truncated(_) => io::Error::other(error),
    }
}

const SETS: [&str; 2] = [LOCKED, PEERS];

/// A refusal repeats the message it refuses.
const LONGEST_ANSWER: usize = 1 << 16;

const SUBSYSTEM: u16 = 10;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const NEWSETELEM: u16 = SUBSYSTEM << 8 | 12;
const DELSETELEM: u16 = SUBSYSTEM << 8 | 14;

/// `NFPROTO_INET`: the family of ftwall's table.
const INET: u8 = 1;

const LIST_TABLE: u16 = 1;
const LIST_SET: u16 = 2;
const LIST_ELEMENTS: u16 = 3;
const LIST_ELEM: u16 = 1;
const ELEM_KEY: u16 = 1;
const ELEM_TIMEOUT: u16 = 4;
const DATA_VALUE: u16 = 1;

fn write_transaction(transaction: &mut MessageWriter, batch: &Batch) {
    let bracket = |kind| Header {
        kind,
        resource: SUBSYSTEM,
        ..Header::default()
    };
    transaction.message(bracket(BATCH_BEGIN), |_| {});
    for (sequence, set) in (1..).zip(SETS) {
        write_set(transaction, sequence, set, batch);
    }
    transaction.message(bracket(BATCH_END), |_| {});
}

/// Each element is added, deleted and added again. Adding alone renews the timeout of an element that
/// is there since Linux 6.12 only, and deleting alone fails for one that has just left.
fn write_set(transaction: &mut MessageWriter, sequence: u32, set: &str, batch: &Batch) {
    let touched = batch.iter().filter(|(element, _)| element.set() == set);
    let keys = touched.clone().map(|(element, _)| (element, None));
    let staying = touched.filter_map(|(element, stays)| Some((element, Some((*stays)?))));
    let header = |kind, flags| Header {
        kind,
        flags,
        sequence,
        family: INET,
        resource: 0,
    };
    let [add, delete] = [
        header(NEWSETELEM, Header::CREATE),
        header(DELSETELEM, Header::ACKNOWLEDGE),
    ];
    write_elements(transaction, add, set, keys.clone());
    write_elements(transaction, delete, set, keys);
    write_elements(transaction, add, set, staying);
}

/// Writes one message about elements, each with the time it stays if it does; none about nothing.
fn write_elements<'a>(
    transaction: &mut MessageWriter,
    header: Header,
    set: &str,
    elements: impl Iterator<Item = (&'a Element, Option<Duration>)>,
) {
    let mut elements = elements.peekable();
    if elements.peek().is_none() {
        return;
    }
    transaction.message(header, |message| {
        message.attribute(LIST_TABLE, &terminated(TABLE));
        message.attribute(LIST_SET, &terminated(set));
        message.nested(LIST_ELEMENTS, |list| {
            elements.for_each(|(element, stays)| write_element(list, element, stays));
        });
    });
}

fn write_element(list: &mut AttributeWriter<'_>, element: &Element, stays: Option<Duration>) {
    list.nested(LIST_ELEM, |elem| {
        elem.nested(ELEM_KEY, |key| match *element {
            Element::Locked(host) => key.attribute(DATA_VALUE, &host.octets()),
            Element::Peer(client, peer, transport) => {
                // Every part of a concatenation fills whole words.
                let [a, b] = peer.port().to_be_bytes();
                let protocol = [protocol_number(transport), 0, 0, 0];
                let parts = [client.octets(), peer.ip().octets(), protocol, [a, b, 0, 0]];
                key.attribute(DATA_VALUE, parts.as_flattened());
            }
        });
        if let Some(stays) = stays {
            elem.attribute(ELEM_TIMEOUT, &milliseconds(stays).to_be_bytes());
        }
    });
}

/// Zero would mean "for ever".
fn milliseconds(stays: Duration) -> u64 {
    u64::try_from(stays.as_millis()).unwrap_or(u64::MAX).max(1)
}

const fn protocol_number(transport: Transport) -> u8 {
    match transport {
        Transport::Tcp => 6,
        Transport::Udp => 17,
    }
}

/// A name as the kernel reads it.
fn terminated(name: &str) -> Vec<u8> {
    [name.as_bytes(), &[0]].concat()
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddrV4};

    use super::super::kernel_sets::BATCH;
    use super::super::netlink::{Message, Messages};
    use super::*;

    const HOST: Ipv4Addr = Ipv4Addr::new(10, 77, 1, 1);
    const PEER: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(198, 18, 0, 1), 1214);
    const LASTING: Option<Duration> = Some(Duration::from_millis(1500));

    fn written(batch: &Batch) -> MessageWriter {
        let mut transaction = MessageWriter::default();
        write_transaction(&mut transaction, batch);
        transaction
    }

    fn kinds(transaction: &MessageWriter) -> Vec<(u16, u32)> {
        let messages = Messages::new(transaction.as_bytes()).flatten();
        messages
            .map(|message| (message.kind, message.sequence))
            .collect()
    }

    /// Key and timeout of every element in a message.
    fn elements(message: &Message) -> Vec<(Vec<u8>, Option<Vec<u8>>)> {
        let list = message
            .attributes()
            .flatten()
            .find(|each| each.kind == LIST_ELEMENTS);
        let elements = list
            .expect("every message has a list")
            .attributes()
            .flatten();
        elements
            .map(|element| {
                let part = |kind| {
                    element
                        .attributes()
                        .flatten()
                        .find(|part| part.kind == kind)
                };
                let key = part(ELEM_KEY).expect("it has a key").attributes().next();
                let key = key.expect("a value").expect("a whole one").value.to_vec();
                (
                    key,
                    part(ELEM_TIMEOUT).map(|timeout| timeout.value.to_vec()),
                )
            })
            .collect()
    }

    #[test]
    fn a_lock_is_added_deleted_and_added_with_its_timeout_in_one_transaction() {
        let transaction = written(&Batch::from([(Element::Locked(HOST), LASTING)]));
        let expected = [
            (BATCH_BEGIN, 0),
            (NEWSETELEM, 1),
            (DELSETELEM, 1),
            (NEWSETELEM, 1),
            (BATCH_END, 0),
        ];
        assert_eq!(kinds(&transaction), expected);
        let last = Messages::new(transaction.as_bytes())
            .flatten()
            .nth(3)
            .expect("five");
        let timeout = 1500_u64.to_be_bytes().to_vec();
        assert_eq!(elements(&last), [(vec![10, 77, 1, 1], Some(timeout))]);
    }

    #[test]
    fn the_parts_of_a_peer_fill_whole_words_in_the_order_of_the_set() {
        let peer = Element::Peer(HOST, PEER, Transport::Udp);
        let transaction = written(&Batch::from([(peer, None)]));
        assert_eq!(
            kinds(&transaction)[1..3],
            [(NEWSETELEM, 2), (DELSETELEM, 2)]
        );
        assert_eq!(kinds(&transaction).len(), 4, "what goes is not added again");
        let message = Messages::new(transaction.as_bytes())
            .flatten()
            .nth(2)
            .expect("four");
        let key = vec![
            10, 77, 1, 1, // client
            198, 18, 0, 1, // peer
            17, 0, 0, 0, // UDP
            0x04, 0xbe, 0, 0, // port 1214
        ];
        assert_eq!(elements(&message), [(key, None)]);
    }

    #[test]
    fn a_refusal_names_the_set_it_concerns() {
        let said = |sequence, error| refusal(sequence, error).to_string();
        assert_eq!(said(2, Errno::NFILE), "the set peers is full");
        assert!(said(1, Errno::NOENT).contains("the set locked: No such file"));
        assert!(said(0, Errno::PERM).starts_with("cannot change the kernel's sets: "));
    }

    #[test]
    fn the_largest_batch_can_be_framed_and_sent() {
        let peers = (0..u16::try_from(BATCH).expect("it is small")).map(|port| {
            let peer = SocketAddrV4::new(*PEER.ip(), port);
            (Element::Peer(HOST, peer, Transport::Tcp), LASTING)
        });
        let transaction = written(&peers.collect());
        assert_eq!(kinds(&transaction).len(), 5);
        // What a socket may send at once unless told otherwise (net.core.wmem_default).
        assert!(transaction.as_bytes().len() < 212_992);
    }
}
