//! Elements of ftwall's sets, written to nf_tables by netlink: a transaction takes microseconds where
//! starting `nft` takes milliseconds.
//!
//! Messages and attributes are those of the kernel's `include/uapi/linux/netfilter/nf_tables.h` and
//! `nfnetlink.h`. The sets themselves are made with the rules.

use std::io;
use std::net::Ipv4Addr;
use std::time::Duration;

use rustix::io::Errno;
use thiserror::Error;

use super::kernel_sets::{Batch, Element, SETS};
use super::netlink::{AttributeWriter, Header, Message, MessageWriter, ReceiveError, Socket};
use super::nft_json::TABLE;
use super::rules::Transport;

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

/// How the time an element stays is set anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Renewal {
    /// By adding it again (Linux 6.12): a third of the work, and possible in a full set.
    ByAdding,
    /// By adding, deleting and adding it, since adding leaves an element alone that is there.
    ByReplacing,
}

/// Writes elements, one transaction at a time.
#[derive(Debug)]
pub struct SetWriter {
    socket: Socket,
    /// What this kernel can do, once it was tried.
    renewal: Option<Renewal>,
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
            renewal: None,
            transaction: MessageWriter::default(),
            answers: vec![0; LONGEST_ANSWER],
        })
    }

    /// Writes all changes of `batch`, or none. The kernel heeds them from the moment this returns.
    ///
    /// # Errors
    /// Which set could not be changed, and why.
    pub fn write(&mut self, batch: &Batch) -> Result<(), SetError> {
        if self.renewal.is_none() {
            // Fails where there are no sets, as the batch will, which then says so.
            self.renewal = self.try_renewal().ok();
        }
        self.write_with(self.renewal.unwrap_or(Renewal::ByReplacing), batch)
    }

    fn write_with(&mut self, renewal: Renewal, batch: &Batch) -> Result<(), SetError> {
        self.transaction.clear();
        write_transaction(&mut self.transaction, renewal, batch);
        let sent = self.socket.send(self.transaction.as_bytes());
        sent.map_err(io::Error::from)?;
        self.outcome()
    }

    /// Tries on an address that no packet comes from what this kernel can do.
    fn try_renewal(&mut self) -> Result<Renewal, SetError> {
        const FIRST: Duration = Duration::from_secs(60);
        const RENEWED: Duration = Duration::from_secs(120);
        let nobody = Element::Locked(Ipv4Addr::UNSPECIFIED);
        self.write_with(Renewal::ByReplacing, &Batch::from([(nobody, Some(FIRST))]))?;
        self.write_with(Renewal::ByAdding, &Batch::from([(nobody, Some(RENEWED))]))?;
        let timeout = self.timeout_of(&nobody)?;
        self.write_with(Renewal::ByReplacing, &Batch::from([(nobody, None)]))?;
        Ok(if timeout == Some(milliseconds(RENEWED)) {
            Renewal::ByAdding
        } else {
            Renewal::ByReplacing
        })
    }

    /// For how long an element was told to stay, in milliseconds, if it is there.
    fn timeout_of(&mut self, element: &Element) -> Result<Option<u64>, SetError> {
        self.transaction.clear();
        let header = Header {
            kind: GETSETELEM,
            family: INET,
            ..Header::default()
        };
        let asked = std::iter::once((element, Stay::Key));
        write_elements(&mut self.transaction, header, element.set(), asked);
        let sent = self.socket.send(self.transaction.as_bytes());
        sent.map_err(io::Error::from)?;
        let mut timeout = None;
        while let Some(messages) = self.socket.receive(&mut self.answers).map_err(as_io)? {
            timeout = timeout.or(messages.flatten().find_map(|message| timeout_in(&message)));
        }
        Ok(timeout)
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

pub(super) fn as_io(error: ReceiveError) -> io::Error {
    match error {
        ReceiveError::Kernel(error) => error.into(),
        ReceiveError::Truncated(_) => io::Error::other(error),
    }
}

/// A refusal repeats the message it refuses.
const LONGEST_ANSWER: usize = 1 << 16;

const SUBSYSTEM: u16 = 10;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const NEWSETELEM: u16 = SUBSYSTEM << 8 | 12;
pub(super) const GETSETELEM: u16 = SUBSYSTEM << 8 | 13;
const DELSETELEM: u16 = SUBSYSTEM << 8 | 14;

/// `NFPROTO_INET`: the family of ftwall's table.
pub(super) const INET: u8 = 1;

const LIST_TABLE: u16 = 1;
const LIST_SET: u16 = 2;
pub(super) const LIST_ELEMENTS: u16 = 3;
const LIST_ELEM: u16 = 1;
pub(super) const ELEM_KEY: u16 = 1;
const ELEM_TIMEOUT: u16 = 4;
pub(super) const ELEM_EXPIRATION: u16 = 5;
const DATA_VALUE: u16 = 1;

fn write_transaction(transaction: &mut MessageWriter, renewal: Renewal, batch: &Batch) {
    let bracket = |kind| Header {
        kind,
        resource: SUBSYSTEM,
        ..Header::default()
    };
    transaction.message(bracket(BATCH_BEGIN), |_| {});
    for (sequence, set) in (1..).zip(SETS) {
        write_set(transaction, renewal, (sequence, set), batch);
    }
    transaction.message(bracket(BATCH_END), |_| {});
}

/// What goes is added and deleted, because deleting alone fails for an element that has just left; so is,
/// where need be, what is added anew.
fn write_set(
    transaction: &mut MessageWriter,
    renewal: Renewal,
    (sequence, set): (u32, &str),
    batch: &Batch,
) {
    let touched = batch.iter().filter(|(element, _)| element.set() == set);
    let deleted = touched
        .clone()
        .filter(|(_, stays)| stays.is_none() || renewal == Renewal::ByReplacing)
        .map(|(element, _)| (element, Stay::Key));
    let added = touched.filter_map(|(element, stays)| {
        Some((element, Stay::For(milliseconds((*stays)?), renewal)))
    });
    let header = |kind| Header {
        kind,
        flags: Header::CREATE | Header::ACKNOWLEDGE,
        sequence,
        family: INET,
        resource: 0,
    };
    write_elements(transaction, header(NEWSETELEM), set, deleted.clone());
    write_elements(transaction, header(DELSETELEM), set, deleted);
    write_elements(transaction, header(NEWSETELEM), set, added);
}

/// What is said of an element besides its key.
#[derive(Clone, Copy)]
enum Stay {
    /// Nothing.
    Key,
    /// It stays for so many milliseconds.
    For(u64, Renewal),
}

/// Writes one message about elements; none about nothing.
fn write_elements<'a>(
    transaction: &mut MessageWriter,
    header: Header,
    set: &str,
    elements: impl Iterator<Item = (&'a Element, Stay)>,
) {
    let mut elements = elements.peekable();
    if elements.peek().is_none() {
        return;
    }
    transaction.message(header, |message| {
        name_set(message, set);
        message.nested(LIST_ELEMENTS, |list| {
            elements.for_each(|(element, stay)| write_element(list, element, stay));
        });
    });
}

fn write_element(list: &mut AttributeWriter<'_>, element: &Element, stay: Stay) {
    list.nested(LIST_ELEM, |elem| {
        elem.nested(ELEM_KEY, |data| write_key(data, element));
        if let Stay::For(milliseconds, renewal) = stay {
            elem.attribute(ELEM_TIMEOUT, &milliseconds.to_be_bytes());
            if renewal == Renewal::ByAdding {
                // Without it a timeout that was the same before is not begun anew.
                elem.attribute(ELEM_EXPIRATION, &milliseconds.to_be_bytes());
            }
        }
    });
}

/// Every part of a concatenation fills whole words.
fn write_key(data: &mut AttributeWriter<'_>, element: &Element) {
    match *element {
        Element::Locked(address) | Element::Proven(address) => {
            data.attribute(DATA_VALUE, &address.octets());
        }
        // Marks are numbers of the machine's own; everything else is as it travels.
        Element::Alive(mark) => data.attribute(DATA_VALUE, &mark.to_ne_bytes()),
        Element::Peer(client, peer, transport) => {
            let [a, b] = peer.port().to_be_bytes();
            let protocol = [protocol_number(transport), 0, 0, 0];
            let parts = [client.octets(), peer.ip().octets(), protocol, [a, b, 0, 0]];
            data.attribute(DATA_VALUE, parts.as_flattened());
        }
    }
}

/// The timeout of the element that a message tells about.
fn timeout_in(message: &Message<'_>) -> Option<u64> {
    let list = message.attributes().of_kind(LIST_ELEMENTS)?;
    let element = list.attributes().of_kind(LIST_ELEM)?;
    let timeout = element.attributes().of_kind(ELEM_TIMEOUT)?;
    timeout
        .value
        .first_chunk()
        .map(|octets| u64::from_be_bytes(*octets))
}

/// Says which set a message is about.
pub(super) fn name_set(message: &mut AttributeWriter<'_>, set: &str) {
    message.attribute(LIST_TABLE, &terminated(TABLE));
    message.attribute(LIST_SET, &terminated(set));
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
    use std::net::SocketAddrV4;

    use super::super::kernel_sets::BATCH;
    use super::super::netlink::Messages;
    use super::*;

    const HOST: Ipv4Addr = Ipv4Addr::new(10, 77, 1, 1);
    const PEER: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(198, 18, 0, 1), 1214);
    const LASTING: Option<Duration> = Some(Duration::from_millis(1500));

    fn written(renewal: Renewal, batch: &Batch) -> MessageWriter {
        let mut transaction = MessageWriter::default();
        write_transaction(&mut transaction, renewal, batch);
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
        let transaction = written(
            Renewal::ByReplacing,
            &Batch::from([(Element::Locked(HOST), LASTING)]),
        );
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
        let transaction = written(Renewal::ByAdding, &Batch::from([(peer, None)]));
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
        let batch: Batch = peers.collect();
        for renewal in [Renewal::ByAdding, Renewal::ByReplacing] {
            let transaction = written(renewal, &batch);
            assert_eq!(kinds(&transaction).last(), Some(&(BATCH_END, 0)));
            // What a socket may send at once unless told otherwise (net.core.wmem_default).
            assert!(transaction.as_bytes().len() < 212_992);
        }
    }

    #[test]
    fn where_adding_renews_an_element_is_written_once() {
        let locked = Element::Locked(HOST);
        let transaction = written(Renewal::ByAdding, &Batch::from([(locked, LASTING)]));
        let expected = [(BATCH_BEGIN, 0), (NEWSETELEM, 1), (BATCH_END, 0)];
        assert_eq!(kinds(&transaction), expected);
        let message = Messages::new(transaction.as_bytes()).flatten().nth(1);
        assert_eq!(timeout_in(&message.expect("three")), Some(1500));
    }
}
