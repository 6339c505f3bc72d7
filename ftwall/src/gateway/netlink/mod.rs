//! Netlink as the packet queue and nf_tables speak it: a socket, a writer and a reader of messages.
//!
//! This room knows framing and nothing of what messages mean. It exists beside well-kept crates because
//! those hand out every message and attribute as a value of its own; here a message is written into a
//! buffer and read out of one that are both used again, so a packet costs no allocation. Framing is
//! described in the kernel's `include/uapi/linux/netlink.h` and `netfilter/nfnetlink.h`.

mod reader;
mod socket;
mod writer;

pub use reader::{Attribute, Attributes, Malformed, Message, Messages};
pub use socket::{ReceiveError, Socket};
pub use writer::{AttributeWriter, Header, MessageWriter};

/// Message type by which the kernel acknowledges or refuses.
const NLMSG_ERROR: u16 = 2;
/// Octets of the header that every message begins with: length, type, flags, sequence, port.
const MESSAGE_HEADER: usize = 16;
/// Octets of netfilter's own header behind it: family, version, resource.
const NETFILTER_HEADER: usize = 4;
/// Octets of an attribute's header: length, type.
const ATTRIBUTE_HEADER: usize = 4;
/// Bit in an attribute's type that says it holds attributes itself.
const NLA_F_NESTED: u16 = 0x8000;
/// Bit in an attribute's type that says its value is in network order.
const NLA_F_NET_BYTEORDER: u16 = 0x4000;

/// Messages and attributes begin at multiples of four octets.
const fn aligned(len: usize) -> usize {
    len.next_multiple_of(4)
}
