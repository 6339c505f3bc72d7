//! Messages to the kernel, written one behind the other into a buffer that is used again and again.

use super::{ATTRIBUTE_HEADER, MESSAGE_HEADER, NETFILTER_HEADER, NLA_F_NESTED, aligned};

/// What stands before the attributes of a message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Header {
    /// Subsystem of netfilter in the high octet, its message in the low one.
    pub kind: u16,
    /// Flags besides `NLM_F_REQUEST`, which is always set.
    pub flags: u16,
    /// Comes back in the kernel's answer.
    pub sequence: u32,
    /// Family of protocols (`NFPROTO_*`).
    pub family: u8,
    /// What the subsystem wants to know beforehand: the number of a queue, for instance.
    pub resource: u16,
}

impl Header {
    /// Ask for an answer even if all is well.
    pub const ACKNOWLEDGE: u16 = 0x4;
    /// Show all there is (`NLM_F_ROOT` and `NLM_F_MATCH`).
    pub const DUMP: u16 = 0x300;
    /// Create what is not there.
    pub const CREATE: u16 = 0x400;

    const REQUEST: u16 = 0x1;

    fn octets(self) -> [u8; MESSAGE_HEADER + NETFILTER_HEADER] {
        let mut octets = [0; MESSAGE_HEADER + NETFILTER_HEADER];
        octets[4..6].copy_from_slice(&self.kind.to_ne_bytes());
        octets[6..8].copy_from_slice(&(self.flags | Self::REQUEST).to_ne_bytes());
        octets[8..12].copy_from_slice(&self.sequence.to_ne_bytes());
        octets[16] = self.family;
        octets[18..20].copy_from_slice(&self.resource.to_be_bytes());
        octets
    }
}

/// A buffer of messages.
#[derive(Debug, Default)]
pub struct MessageWriter {
    octets: Vec<u8>,
}

impl MessageWriter {
    /// Forgets all messages and keeps the memory.
    pub fn clear(&mut self) {
        self.octets.clear();
    }

    /// Whether nothing was written.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.octets.is_empty()
    }

    /// All messages, ready to be sent.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.octets
    }

    /// Writes a message with the attributes that `body` writes.
    ///
    /// # Panics
    /// When an attribute is longer than its header can say.
    pub fn message(&mut self, header: Header, body: impl FnOnce(&mut AttributeWriter<'_>)) {
        let start = self.octets.len();
        self.octets.extend_from_slice(&header.octets());
        body(&mut AttributeWriter(&mut self.octets));
        let len =
            u32::try_from(self.octets.len() - start).expect("a message is shorter than 4 GiB");
        self.octets[start..start + 4].copy_from_slice(&len.to_ne_bytes());
    }
}

/// Writes the attributes of one message, or of one attribute that holds others.
#[derive(Debug)]
pub struct AttributeWriter<'a>(&'a mut Vec<u8>);

impl AttributeWriter<'_> {
    /// Writes an attribute.
    ///
    /// # Panics
    /// When `value` has more than 65,531 octets.
    pub fn attribute(&mut self, kind: u16, value: &[u8]) {
        self.framed(kind, |writer| writer.0.extend_from_slice(value));
    }

    /// Writes an attribute that holds those which `body` writes.
    ///
    /// # Panics
    /// When those have more than 65,531 octets together.
    pub fn nested(&mut self, kind: u16, body: impl FnOnce(&mut AttributeWriter<'_>)) {
        self.framed(kind | NLA_F_NESTED, body);
    }

    fn framed(&mut self, kind: u16, body: impl FnOnce(&mut AttributeWriter<'_>)) {
        let start = self.0.len();
        self.0.extend_from_slice(&[0; ATTRIBUTE_HEADER]);
        body(&mut AttributeWriter(self.0));
        let len = u16::try_from(self.0.len() - start).expect("callers bound what they write");
        self.0[start..start + 2].copy_from_slice(&len.to_ne_bytes());
        self.0[start + 2..start + 4].copy_from_slice(&kind.to_ne_bytes());
        self.0.resize(start + aligned(usize::from(len)), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_count_headers_but_not_the_padding_behind_the_last_octet() {
        let mut writer = MessageWriter::default();
        let header = Header {
            kind: 0x0a0c,
            flags: Header::ACKNOWLEDGE,
            sequence: 7,
            family: 1,
            resource: 0x0102,
        };
        writer.message(header, |message| {
            message.nested(3, |list| list.attribute(2, b"abcde"));
        });
        let mut expected = Vec::new();
        expected.extend(36_u32.to_ne_bytes()); // length of the message
        expected.extend(0x0a0c_u16.to_ne_bytes()); // subsystem and message
        expected.extend(5_u16.to_ne_bytes()); // request, acknowledge
        expected.extend(7_u32.to_ne_bytes()); // sequence
        expected.extend([0; 4]); // port: the kernel's
        expected.extend([1, 0, 1, 2]); // family, version, resource in network order
        expected.extend(16_u16.to_ne_bytes()); // length of the outer attribute
        expected.extend(0x8003_u16.to_ne_bytes()); // nested, type 3
        expected.extend(9_u16.to_ne_bytes()); // length of the inner attribute
        expected.extend(2_u16.to_ne_bytes()); // type 2
        expected.extend(b"abcde\0\0\0"); // value, padding
        assert_eq!(writer.as_bytes(), expected);
    }

    #[test]
    fn a_buffer_is_used_again_without_growing() {
        let mut writer = MessageWriter::default();
        let write = |writer: &mut MessageWriter| {
            writer.message(Header::default(), |message| message.attribute(1, &[0; 64]));
        };
        write(&mut writer);
        let (first, room) = (writer.as_bytes().to_vec(), writer.octets.capacity());
        writer.clear();
        assert!(writer.is_empty());
        write(&mut writer);
        assert_eq!(
            (writer.as_bytes(), writer.octets.capacity()),
            (&first[..], room)
        );
    }
}
