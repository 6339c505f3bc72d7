//! The packet queue over ftwall's own netlink: drain, judge in place, answer many packets at once.
//!
//! A packet costs one system call to receive and a share of one to answer, and no allocation. Receiving
//! several datagrams by one call gains less than the noise of a measurement, so it is not done. Messages
//! and attributes are those of the kernel's `include/uapi/linux/netfilter/nfnetlink_queue.h`.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;

use super::netlink::{Header, Message, MessageWriter, ReceiveError, Socket};
use super::queue::{
    self, Answer, Fault, Faults, Hop, PacketQueue, QueueError, QueueSettings, QueuedPacket,
    WhenOverloaded,
};
use crate::HardwareAddress;

/// A bound queue.
#[derive(Debug)]
pub struct NetlinkQueue {
    socket: Socket,
    number: u16,
    /// Room for one datagram, used again for each.
    datagram: Vec<u8>,
    answers: Answers,
    faults: Faults,
}

impl NetlinkQueue {
    /// Binds a queue and sets it up completely, in one message: there is no moment at which packets come
    /// in another form than asked for.
    ///
    /// # Errors
    /// When another program has the queue, a privilege is missing or the kernel has no queues.
    pub fn open(settings: QueueSettings) -> Result<NetlinkQueue, QueueError> {
        NetlinkQueue::bind(settings).map_err(|error| QueueError::of_binding(settings.number, error))
    }

    /// As [`open`](Self::open), without finding out what the kernel means by "not permitted".
    pub(super) fn bind(settings: QueueSettings) -> io::Result<NetlinkQueue> {
        let socket = Socket::open()?;
        socket.go_on_after_overrun()?;
        socket.enlarge_receive_buffer(settings.wanted_buffer())?;
        let mut queue = NetlinkQueue {
            socket,
            number: settings.number,
            datagram: vec![0; usize::from(settings.copy_range) + METADATA],
            answers: Answers::new(settings.number),
            faults: Faults::default(),
        };
        queue.configure(settings)?;
        Ok(queue)
    }

    /// Goes on with a queue that a daemon before this one has bound to `socket`. What waits in it is taken
    /// in its turn; what that daemon took and never answered is dropped.
    ///
    /// # Errors
    /// When the socket is none of the kernel's queues, or not of this one.
    pub fn inherit(descriptor: OwnedFd, settings: QueueSettings) -> io::Result<NetlinkQueue> {
        let socket = Socket::inherited(descriptor)?;
        let reader = queue::standing(settings.number).map(|standing| standing.reader);
        if reader != Some(socket.port()?) {
            return Err(io::Error::other("another socket reads this queue"));
        }
        socket.enlarge_receive_buffer(settings.wanted_buffer())?;
        let mut request = MessageWriter::default();
        write_configuration(&mut request, settings, Binding::Done);
        // Refusals come back among the packets, and are counted as everything that goes wrong later.
        socket.send(request.as_bytes())?;
        Ok(NetlinkQueue {
            socket,
            number: settings.number,
            datagram: vec![0; LONGEST_COPY + METADATA],
            answers: Answers {
                inherited: true,
                ..Answers::new(settings.number)
            },
            faults: Faults::default(),
        })
    }

    fn configure(&mut self, settings: QueueSettings) -> io::Result<()> {
        let mut request = MessageWriter::default();
        write_configuration(&mut request, settings, Binding::ToDo);
        self.socket.send(request.as_bytes())?;
        while let Some(messages) = self.socket.receive(&mut self.datagram).map_err(as_io)? {
            for message in messages.flatten() {
                match message.acknowledgement() {
                    Some(answer) => return Ok(answer?),
                    // Rules of somebody else's feed this queue already; nobody judges yet.
                    None => self
                        .answers
                        .judge(&message, &mut self.faults, &mut |_| Answer::Drop),
                }
            }
        }
        Err(io::ErrorKind::UnexpectedEof.into())
    }

    /// Sends what was answered. Answers that cannot be handed over wait for the next time, since those
    /// which follow may count on them.
    fn send_answers(&mut self) {
        let answers = self.answers.finished();
        if answers.is_empty() {
            return;
        }
        match self.socket.send(answers.as_bytes()) {
            Ok(()) => answers.clear(),
            Err(error) => self.faults.count(error),
        }
    }
}

impl PacketQueue for NetlinkQueue {
    fn number(&self) -> u16 {
        self.number
    }

    fn receive_buffer(&self) -> io::Result<usize> {
        self.socket.receive_buffer()
    }

    fn serve(&mut self, most: usize, judge: &mut dyn FnMut(QueuedPacket<'_>) -> Answer) {
        for _ in 0..most {
            match self.socket.receive(&mut self.datagram) {
                Ok(Some(messages)) => {
                    for message in messages {
                        match message {
                            Ok(message) => self.answers.judge(&message, &mut self.faults, judge),
                            Err(_) => self.answers.note_unreadable(&mut self.faults),
                        }
                    }
                }
                Ok(None) => break,
                Err(ReceiveError::Kernel(error)) => self.faults.count(error),
                Err(ReceiveError::Truncated(_)) => self.answers.note_unreadable(&mut self.faults),
            }
        }
        self.send_answers();
    }

    fn faults(&self) -> &Faults {
        &self.faults
    }
}

impl AsFd for NetlinkQueue {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn as_io(error: ReceiveError) -> io::Error {
    match error {
        ReceiveError::Kernel(error) => error.into(),
        ReceiveError::Truncated(_) => io::Error::other(error),
    }
}

/// Octets of a packet that another daemon may have asked for.
const LONGEST_COPY: usize = 1 << 16;
/// Octets of a packet's message besides the packet: headers and a dozen small attributes.
const METADATA: usize = 4096;

const SUBSYSTEM: u16 = 3 << 8;
const MSG_PACKET: u16 = SUBSYSTEM;
const MSG_VERDICT: u16 = SUBSYSTEM | 1;
const MSG_CONFIG: u16 = SUBSYSTEM | 2;
const MSG_VERDICT_BATCH: u16 = SUBSYSTEM | 3;

const CFG_CMD: u16 = 1;
const CFG_PARAMS: u16 = 2;
const CFG_QUEUE_MAXLEN: u16 = 3;
const CFG_MASK: u16 = 4;
const CFG_FLAGS: u16 = 5;

const CMD_BIND: u8 = 1;
const COPY_PACKET: u8 = 2;
const F_FAIL_OPEN: u32 = 1;
const F_GSO: u32 = 4;

const PACKET_HDR: u16 = 1;
const VERDICT_HDR: u16 = 2;
const MARK: u16 = 3;
const IFINDEX_INDEV: u16 = 5;
const IFINDEX_OUTDEV: u16 = 6;
const HWADDR: u16 = 9;
const PAYLOAD: u16 = 10;

const DROP: u32 = 0;
const ACCEPT: u32 = 1;

/// Whether a queue has to be bound, or is already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Binding {
    ToDo,
    Done,
}

/// Bind, copy range, length and flags. Without `F_GSO` the kernel would cut each large packet into
/// segments before queueing, at a quarter of the throughput.
fn write_configuration(request: &mut MessageWriter, settings: QueueSettings, binding: Binding) {
    let header = Header {
        kind: MSG_CONFIG,
        flags: match binding {
            Binding::ToDo => Header::ACKNOWLEDGE,
            Binding::Done => 0,
        },
        resource: settings.number,
        ..Header::default()
    };
    let [a, b, c, d] = u32::from(settings.copy_range).to_be_bytes();
    let flags = match settings.when_overloaded {
        WhenOverloaded::Drop => F_GSO,
        WhenOverloaded::Pass => F_GSO | F_FAIL_OPEN,
    };
    request.message(header, |message| {
        if binding == Binding::ToDo {
            message.attribute(CFG_CMD, &[CMD_BIND, 0, 0, 0]);
        }
        message.attribute(CFG_PARAMS, &[a, b, c, d, COPY_PACKET]);
        message.attribute(CFG_QUEUE_MAXLEN, &settings.length.to_be_bytes());
        // One pair for all flags: of several the kernel would heed the last alone.
        message.attribute(CFG_MASK, &(F_GSO | F_FAIL_OPEN).to_be_bytes());
        message.attribute(CFG_FLAGS, &flags.to_be_bytes());
    });
}

/// A packet as the kernel hands it over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Received<'a> {
    /// Counted up by the kernel for each queue.
    id: u32,
    packet: QueuedPacket<'a>,
}

impl<'a> Received<'a> {
    fn read(message: &Message<'a>) -> Option<Received<'a>> {
        let mut id = None;
        let mut packet = QueuedPacket {
            bytes: &[],
            mark: 0,
            hop: Hop::default(),
        };
        for attribute in message.attributes() {
            let attribute = attribute.ok()?;
            match attribute.kind {
                PACKET_HDR => id = attribute.number(),
                MARK => packet.mark = attribute.number()?,
                IFINDEX_INDEV => packet.hop.entered = attribute.number()?,
                IFINDEX_OUTDEV => packet.hop.leaves = attribute.number()?,
                HWADDR => packet.hop.sender = hardware_address(attribute.value),
                PAYLOAD => packet.bytes = attribute.value,
                _ => {}
            }
        }
        Some(Received { id: id?, packet })
    }
}

/// The kernel's `struct nfqnl_msg_packet_hw`: two octets of length, two of nothing, room for eight.
fn hardware_address(value: &[u8]) -> Option<HardwareAddress> {
    match value {
        [0, 6, _, _, address @ ..] => Some(HardwareAddress(*address.first_chunk()?)),
        _ => None,
    }
}

/// Answers on their way to the kernel, as few messages as order allows.
///
/// A batch verdict accepts *every* packet up to a number that is still queued. So drops are written at
/// once, before the batch that covers their numbers, and a packet accepted with a mark of its own ends
/// the batch of those before it: a connection's packets leave in the order they came.
#[derive(Debug)]
struct Answers {
    queue: u16,
    messages: MessageWriter,
    /// Packets accepted as they are whose answer is not written yet.
    accepted: Option<Accepted>,
    /// Off once a message could not be read: a batch would let its packet pass unseen.
    batches: bool,
    /// Nothing was answered yet of a queue that another daemon has read: what came before the first
    /// packet to be answered was taken by that daemon, and a batch would let it pass.
    inherited: bool,
}

#[derive(Clone, Copy, Debug)]
struct Accepted {
    last: u32,
    count: usize,
}

impl Answers {
    fn new(queue: u16) -> Answers {
        Answers {
            queue,
            messages: MessageWriter::default(),
            accepted: None,
            batches: true,
            inherited: false,
        }
    }

    /// Takes up one message of the kernel's: a packet, or what went wrong with an earlier answer.
    fn judge(
        &mut self,
        message: &Message<'_>,
        faults: &mut Faults,
        judge: &mut dyn FnMut(QueuedPacket<'_>) -> Answer,
    ) {
        if let Some(answer) = message.acknowledgement() {
            answer
                .err()
                .into_iter()
                .for_each(|error: Errno| faults.count(error));
        } else if message.kind == MSG_PACKET {
            match Received::read(message) {
                Some(received) => self.add(received.id, judge(received.packet)),
                None => self.note_unreadable(faults),
            }
        }
    }

    fn note_unreadable(&mut self, faults: &mut Faults) {
        self.write_accepted();
        self.batches = false;
        faults.count(Fault::Unreadable);
    }

    fn add(&mut self, id: u32, answer: Answer) {
        if std::mem::take(&mut self.inherited) {
            self.write(MSG_VERDICT_BATCH, DROP, id.wrapping_sub(1), None);
        }
        match answer {
            Answer::Drop => self.write(MSG_VERDICT, DROP, id, None),
            Answer::Accept { mark: Some(mark) } => {
                self.write_accepted();
                self.write(MSG_VERDICT, ACCEPT, id, Some(mark));
            }
            Answer::Accept { mark: None } if self.batches => {
                let count = self.accepted.map_or(0, |accepted| accepted.count) + 1;
                self.accepted = Some(Accepted { last: id, count });
            }
            Answer::Accept { mark: None } => self.write(MSG_VERDICT, ACCEPT, id, None),
        }
    }

    /// Everything answered so far, ready to be sent.
    fn finished(&mut self) -> &mut MessageWriter {
        self.write_accepted();
        &mut self.messages
    }

    fn write_accepted(&mut self) {
        match self.accepted.take() {
            None => {}
            Some(Accepted { last, count: 1 }) => self.write(MSG_VERDICT, ACCEPT, last, None),
            Some(Accepted { last, .. }) => self.write(MSG_VERDICT_BATCH, ACCEPT, last, None),
        }
    }

    fn write(&mut self, kind: u16, verdict: u32, id: u32, mark: Option<u32>) {
        let header = Header {
            kind,
            resource: self.queue,
            ..Header::default()
        };
        let [a, b, c, d] = verdict.to_be_bytes();
        let [e, f, g, h] = id.to_be_bytes();
        self.messages.message(header, |message| {
            message.attribute(VERDICT_HDR, &[a, b, c, d, e, f, g, h]);
            if let Some(mark) = mark {
                message.attribute(MARK, &mark.to_be_bytes());
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::super::netlink::Messages;
    use super::*;

    const PASS: Answer = Answer::Accept { mark: None };

    /// The kernel's end: packets that wait, and in which order they went on.
    #[derive(Default)]
    struct Kernel {
        waiting: BTreeMap<u32, Option<u32>>,
        went_on: Vec<(u32, Option<u32>)>,
        refused: usize,
    }

    impl Kernel {
        fn take(&mut self, datagram: &[u8]) {
            for message in Messages::new(datagram) {
                let message = message.expect("we write whole messages");
                let mut attributes = message.attributes().map(|each| each.expect("whole"));
                let verdict = attributes.next().expect("each has a verdict");
                let mark = attributes.next().and_then(|mark| mark.number());
                let word = |at: usize| {
                    u32::from_be_bytes(verdict.value[at..at + 4].try_into().expect("four octets"))
                };
                self.answer(message.kind, word(0), word(4), mark);
            }
        }

        fn answer(&mut self, kind: u16, verdict: u32, id: u32, mark: Option<u32>) {
            let concerned: Vec<u32> = match kind {
                MSG_VERDICT_BATCH => self.waiting.range(..=id).map(|(id, _)| *id).collect(),
                _ => self
                    .waiting
                    .contains_key(&id)
                    .then_some(id)
                    .into_iter()
                    .collect(),
            };
            self.refused += usize::from(concerned.is_empty());
            for id in concerned {
                self.waiting.remove(&id);
                if verdict == ACCEPT {
                    self.went_on.push((id, mark));
                }
            }
        }
    }

    fn answered(given: &[(u32, Answer)]) -> (Answers, Kernel) {
        let mut answers = Answers::new(3);
        let mut kernel = Kernel::default();
        kernel
            .waiting
            .extend(given.iter().map(|(id, _)| (*id, None)));
        given
            .iter()
            .for_each(|(id, answer)| answers.add(*id, *answer));
        kernel.take(answers.finished().as_bytes());
        (answers, kernel)
    }

    fn kinds(answers: &Answers) -> Vec<u16> {
        Messages::new(answers.messages.as_bytes())
            .flatten()
            .map(|message| message.kind)
            .collect()
    }

    #[test]
    fn drops_go_first_and_one_batch_accepts_the_rest() {
        let (answers, kernel) = answered(&[
            (1, PASS),
            (2, Answer::Drop),
            (3, PASS),
            (4, Answer::Drop),
            (5, PASS),
        ]);
        assert_eq!(
            kinds(&answers),
            [MSG_VERDICT, MSG_VERDICT, MSG_VERDICT_BATCH]
        );
        assert_eq!(kernel.went_on, [(1, None), (3, None), (5, None)]);
    }

    #[test]
    fn a_mark_ends_the_batch_before_it_so_that_order_is_kept() {
        let marked = Answer::Accept {
            mark: Some(0x1000_0000),
        };
        let (answers, kernel) = answered(&[(1, PASS), (2, PASS), (3, marked), (4, PASS)]);
        assert_eq!(
            kinds(&answers),
            [MSG_VERDICT_BATCH, MSG_VERDICT, MSG_VERDICT]
        );
        let order: Vec<u32> = kernel.went_on.iter().map(|(id, _)| *id).collect();
        assert_eq!(order, [1, 2, 3, 4]);
        assert_eq!(kernel.went_on[2].1, Some(0x1000_0000));
    }

    #[test]
    fn after_an_unreadable_message_no_batch_can_cover_its_packet() {
        let mut answers = Answers::new(3);
        let mut faults = Faults::default();
        let mut kernel = Kernel::default();
        kernel.waiting.extend((1..=5).map(|id| (id, None)));
        for id in [1, 2] {
            answers.add(id, PASS);
        }
        answers.note_unreadable(&mut faults); // it was packet 3
        for id in [4, 5] {
            answers.add(id, PASS);
        }
        kernel.take(answers.finished().as_bytes());
        assert_eq!(kernel.waiting.into_keys().collect::<Vec<_>>(), [3]);
        assert_eq!(faults.iter().collect::<Vec<_>>(), [(Fault::Unreadable, 1)]);
    }

    #[test]
    fn what_a_dead_reader_took_and_never_answered_is_dropped_before_anything_passes() {
        let mut answers = Answers {
            inherited: true,
            ..Answers::new(3)
        };
        let mut kernel = Kernel::default();
        kernel.waiting.extend((1..=6).map(|id| (id, None)));
        for id in [4, 5, 6] {
            answers.add(id, PASS);
        }
        kernel.take(answers.finished().as_bytes());
        let passed: Vec<u32> = kernel.went_on.iter().map(|(id, _)| *id).collect();
        assert_eq!(passed, [4, 5, 6]);
        assert!(kernel.waiting.is_empty());
    }

    #[test]
    fn a_queue_that_was_left_is_set_up_without_binding_it_again() {
        let mut request = MessageWriter::default();
        write_configuration(&mut request, QueueSettings::of(7), Binding::Done);
        let mut messages = Messages::new(request.as_bytes());
        let message = messages.next().expect("one").expect("whole");
        let kinds: Vec<_> = message
            .attributes()
            .flatten()
            .map(|each| each.kind)
            .collect();
        assert_eq!(kinds, [CFG_PARAMS, CFG_QUEUE_MAXLEN, CFG_MASK, CFG_FLAGS]);
    }

    #[test]
    fn a_packet_is_read_with_its_mark_and_without_copying() {
        let mut writer = MessageWriter::default();
        writer.message(
            Header {
                kind: MSG_PACKET,
                ..Header::default()
            },
            |message| {
                message.attribute(PACKET_HDR, &[0, 0, 1, 2, 8, 0, 2]); // number, protocol, hook
                message.attribute(MARK, &[0, 0, 0, 7]);
                message.attribute(IFINDEX_INDEV, &[0, 0, 0, 3]);
                message.attribute(IFINDEX_OUTDEV, &[0, 0, 1, 4]);
                message.attribute(HWADDR, &[0, 6, 0, 0, 2, 0, 0, 0, 0, 9, 0, 0]);
                message.attribute(PAYLOAD, b"\x45packet");
            },
        );
        let message = Messages::new(writer.as_bytes())
            .next()
            .expect("one")
            .expect("whole");
        let packet = QueuedPacket {
            bytes: b"\x45packet",
            mark: 7,
            hop: Hop {
                entered: 3,
                leaves: 0x104,
                sender: Some(HardwareAddress([2, 0, 0, 0, 0, 9])),
            },
        };
        assert_eq!(
            Received::read(&message),
            Some(Received { id: 0x102, packet })
        );
    }

    #[test]
    fn an_address_that_is_not_of_ethernets_kind_is_none() {
        let infiniband = [0, 8, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8];
        assert_eq!(hardware_address(&infiniband), None);
        assert_eq!(hardware_address(&[0, 6, 0, 0, 1, 2]), None);
        assert_eq!(hardware_address(&[]), None);
    }

    #[test]
    fn everything_about_a_queue_is_said_in_one_message() {
        let mut request = MessageWriter::default();
        let settings = QueueSettings {
            when_overloaded: WhenOverloaded::Pass,
            ..QueueSettings::of(7)
        };
        write_configuration(&mut request, settings, Binding::ToDo);
        let message = Messages::new(request.as_bytes())
            .next()
            .expect("one")
            .expect("whole");
        let said: Vec<(u16, &[u8])> = message
            .attributes()
            .flatten()
            .map(|each| (each.kind, each.value))
            .collect();
        let expected: [(u16, &[u8]); 5] = [
            (CFG_CMD, &[1, 0, 0, 0]),
            (CFG_PARAMS, &[0, 0, 0x10, 0x78, 2]), // 4096 octets and the longest headers
            (CFG_QUEUE_MAXLEN, &[0, 0, 16, 0]),
            (CFG_MASK, &[0, 0, 0, 5]),
            (CFG_FLAGS, &[0, 0, 0, 5]),
        ];
        assert_eq!(said, expected);
    }

    fn an_answer() -> impl Strategy<Value = Answer> {
        prop_oneof![
            4 => Just(PASS),
            2 => Just(Answer::Drop),
            1 => any::<u32>().prop_map(|mark| Answer::Accept { mark: Some(mark) }),
        ]
    }

    proptest! {
        #[test]
        fn every_packet_is_answered_once_as_judged_and_in_order(
            judged in proptest::collection::vec(an_answer(), 0..80),
        ) {
            let given: Vec<(u32, Answer)> = (1..).zip(judged).collect();
            let (_, kernel) = answered(&given);
            let expected: Vec<(u32, Option<u32>)> = given
                .iter()
                .filter_map(|(id, answer)| match answer {
                    Answer::Accept { mark } => Some((*id, *mark)),
                    Answer::Drop => None,
                })
                .collect();
            prop_assert_eq!(kernel.went_on, expected);
            prop_assert!(kernel.waiting.is_empty());
            prop_assert_eq!(kernel.refused, 0);
        }
    }
}
