//! What the kernel sends, read in place: no octet is copied, and none is trusted.

use rustix::io::Errno;
use thiserror::Error;

use super::{
    ATTRIBUTE_HEADER, MESSAGE_HEADER, NETFILTER_HEADER, NLA_F_NESTED, NLA_F_NET_BYTEORDER,
    NLMSG_ERROR, aligned,
};

/// Octets that do not hold together as messages or attributes. What comes behind them is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Malformed {
    /// The length in a header is shorter than the header or longer than what was received.
    #[error("a header gives a length of {given} octets where {available} were received")]
    Length {
        /// What the header says.
        given: usize,
        /// Octets there are, the header's included.
        available: usize,
    },
    /// There are fewer octets than a header has.
    #[error("{0} octets are too few for a header")]
    Short(usize),
}

/// The messages of one datagram.
#[derive(Clone, Debug)]
pub struct Messages<'a>(Records<'a>);

impl<'a> Messages<'a> {
    /// The messages in `datagram`.
    #[must_use]
    pub fn new(datagram: &'a [u8]) -> Messages<'a> {
        Messages(Records(datagram))
    }
}

impl<'a> Iterator for Messages<'a> {
    type Item = Result<Message<'a>, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        let length = |header: &[u8; MESSAGE_HEADER]| {
            usize::try_from(u32::from_ne_bytes([
                header[0], header[1], header[2], header[3],
            ]))
            .unwrap_or(usize::MAX)
        };
        let record = self.0.next(length)?;
        Some(record.map(|(header, body)| Message {
            kind: u16::from_ne_bytes([header[4], header[5]]),
            sequence: u32::from_ne_bytes([header[8], header[9], header[10], header[11]]),
            body,
        }))
    }
}

/// One message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message<'a> {
    /// Subsystem of netfilter in the high octet, its message in the low one; below 16 netlink's own.
    pub kind: u16,
    /// That of the request this answers.
    pub sequence: u32,
    body: &'a [u8],
}

impl<'a> Message<'a> {
    /// What the kernel says about a request, if this message says so: success, or why it was refused.
    #[must_use]
    pub fn acknowledgement(&self) -> Option<Result<(), Errno>> {
        let code = self
            .body
            .first_chunk()
            .filter(|_| self.kind == NLMSG_ERROR)?;
        match i32::from_ne_bytes(*code) {
            0 => Some(Ok(())),
            code => Some(Err(Errno::from_raw_os_error(code.saturating_neg()))),
        }
    }

    /// The attributes of a message of netfilter's.
    #[must_use]
    pub fn attributes(&self) -> Attributes<'a> {
        Attributes(Records(
            self.body.get(NETFILTER_HEADER..).unwrap_or_default(),
        ))
    }
}

/// The attributes of a message, or of an attribute that holds others.
#[derive(Clone, Debug)]
pub struct Attributes<'a>(Records<'a>);

impl<'a> Attributes<'a> {
    /// The first attribute of a type, if it stands before anything malformed.
    #[must_use]
    pub fn of_kind(self, kind: u16) -> Option<Attribute<'a>> {
        self.flatten().find(|attribute| attribute.kind == kind)
    }
}

impl<'a> Iterator for Attributes<'a> {
    type Item = Result<Attribute<'a>, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        let length = |header: &[u8; ATTRIBUTE_HEADER]| {
            usize::from(u16::from_ne_bytes([header[0], header[1]]))
        };
        let record = self.0.next(length)?;
        Some(record.map(|(header, value)| Attribute {
            kind: u16::from_ne_bytes([header[2], header[3]])
                & !(NLA_F_NESTED | NLA_F_NET_BYTEORDER),
            value,
        }))
    }
}

/// One attribute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attribute<'a> {
    /// Its type, without the bits that say how the value is written.
    pub kind: u16,
    /// Its value, without padding.
    pub value: &'a [u8],
}

impl<'a> Attribute<'a> {
    /// The number in network order that the value begins with.
    #[must_use]
    pub fn number(&self) -> Option<u32> {
        self.value
            .first_chunk()
            .map(|octets| u32::from_be_bytes(*octets))
    }

    /// The attributes this one holds.
    #[must_use]
    pub fn attributes(&self) -> Attributes<'a> {
        Attributes(Records(self.value))
    }
}

/// Headers with a length in them, each followed by what it counts and by padding.
#[derive(Clone, Debug)]
struct Records<'a>(&'a [u8]);

/// A header and what it counts.
type Record<'a, const HEADER: usize> = (&'a [u8; HEADER], &'a [u8]);

impl<'a> Records<'a> {
    /// The next header and its body; after an error nothing more comes, as nobody knows where the next
    /// header would be.
    fn next<const HEADER: usize>(
        &mut self,
        length: impl Fn(&[u8; HEADER]) -> usize,
    ) -> Option<Result<Record<'a, HEADER>, Malformed>> {
        let octets = std::mem::take(&mut self.0);
        if octets.is_empty() {
            return None;
        }
        let Some(header) = octets.first_chunk::<HEADER>() else {
            return Some(Err(Malformed::Short(octets.len())));
        };
        let given = length(header);
        let Some(body) = octets.get(HEADER..given) else {
            return Some(Err(Malformed::Length {
                given,
                available: octets.len(),
            }));
        };
        // The last one need not be padded.
        self.0 = octets.get(aligned(given)..).unwrap_or_default();
        Some(Ok((header, body)))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::{Header, MessageWriter};
    use super::*;

    fn written(count: u32) -> MessageWriter {
        let mut writer = MessageWriter::default();
        for sequence in 0..count {
            let header = Header {
                kind: 0x0300,
                sequence,
                ..Header::default()
            };
            writer.message(header, |message| {
                message.attribute(1, &sequence.to_be_bytes());
                message.nested(2, |inner| inner.attribute(3, b"odd"));
            });
        }
        writer
    }

    #[test]
    fn what_was_written_is_read_back() {
        let writer = written(3);
        let messages: Vec<Message> = Messages::new(writer.as_bytes())
            .map(Result::unwrap)
            .collect();
        assert_eq!(messages.len(), 3);
        for (place, message) in (0..).zip(messages) {
            assert_eq!((message.kind, message.sequence), (0x0300, place));
            let attributes: Vec<_> = message.attributes().map(Result::unwrap).collect();
            assert_eq!(
                (attributes[0].kind, attributes[0].number()),
                (1, Some(place))
            );
            let inner = attributes[1].attributes().next().expect("one was written");
            assert_eq!(
                inner,
                Ok(Attribute {
                    kind: 3,
                    value: b"odd"
                })
            );
            assert_eq!(message.acknowledgement(), None);
        }
    }

    #[test]
    fn an_answer_is_success_or_the_kernels_reason() {
        let answer = |code: i32| {
            let mut octets = vec![36, 0, 0, 0, 2, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0];
            octets.extend(code.to_ne_bytes());
            octets.extend([0; 16]); // the header of the request
            octets
        };
        let read = |octets: &[u8]| {
            let message = Messages::new(octets).next().expect("one was written")?;
            Ok::<_, Malformed>((message.sequence, message.acknowledgement()))
        };
        assert_eq!(read(&answer(0)), Ok((9, Some(Ok(())))));
        assert_eq!(read(&answer(-2)), Ok((9, Some(Err(Errno::NOENT)))));
    }

    #[test]
    fn after_a_length_that_cannot_be_nothing_more_is_read() {
        let writer = written(2);
        for given in [0_u32, 15, 10_000, u32::MAX] {
            let mut octets = writer.as_bytes().to_vec();
            octets[..4].copy_from_slice(&given.to_ne_bytes());
            let mut messages = Messages::new(&octets);
            let error = messages
                .next()
                .expect("something is there")
                .expect_err("it lies");
            assert!(matches!(error, Malformed::Length { .. }), "{error}");
            assert_eq!(messages.next(), None);
        }
        assert_eq!(
            Messages::new(&[0; 15]).next(),
            Some(Err(Malformed::Short(15)))
        );
    }

    proptest! {
        #[test]
        fn hostile_octets_are_refused_without_a_panic_and_in_bounded_steps(
            octets in proptest::collection::vec(any::<u8>(), 0..512),
        ) {
            let steps = Messages::new(&octets).flatten().flat_map(|message| {
                let _ = message.acknowledgement();
                message.attributes().flatten().flat_map(|outer| {
                    let _ = outer.number();
                    outer.attributes()
                })
            });
            prop_assert!(steps.count() <= octets.len());
        }

        #[test]
        fn a_damaged_octet_never_makes_a_panic_or_a_value_from_elsewhere(
            place in 0_usize..120, value in any::<u8>(),
        ) {
            let mut octets = written(3).as_bytes().to_vec();
            octets[place] = value;
            for message in Messages::new(&octets).flatten() {
                let total: usize = message
                    .attributes()
                    .flatten()
                    .map(|attribute| attribute.value.len())
                    .sum();
                prop_assert!(total <= octets.len());
            }
        }
    }
}
