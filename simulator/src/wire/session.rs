//! Messages inside a session: one-byte keep-alives, and framed messages of a type, a length and a
//! payload (PROTO). What FastTrack permutes and encrypts is in the clear here; `payload::Keystream`
//! goes over it.

use std::net::{Ipv4Addr, SocketAddrV4};

const KEEP_ALIVE: u8 = 0x50;
const KEEP_ALIVE_ANSWER: u8 = 0x52;
const FRAMED: u8 = 0x4b;

/// Octets before a framed message's payload.
const HEADER_LEN: usize = 5;

/// Entries in a supernode's list, and octets of each: 1,600, or 1,605 with the header.
pub const LIST_ENTRIES: usize = 200;
const ENTRY_LEN: usize = 8;

/// Largest payload accepted. The longest observed was 2,302 octets (MLD).
const LONGEST_PAYLOAD: usize = 4096;

/// One address in a node list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NodeEntry {
    /// Where it listens.
    pub address: SocketAddrV4,
    /// Minutes since the sender last heard of it.
    pub minutes: u8,
    /// Load in percent.
    pub load_pct: u8,
}

/// One message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// 0x50, alone.
    KeepAlive,
    /// 0x52, alone.
    KeepAliveAnswer,
    /// Type 0x00: addresses of supernodes.
    NodeList(Vec<NodeEntry>),
    /// Type 0x02: who the client is; 13 octets and the name.
    UserInfo {
        /// Where it listens.
        address: SocketAddrV4,
        /// Its user's name.
        name: String,
    },
    /// Type 0x06: a search.
    Query {
        /// Repeated in the results.
        id: u16,
        /// What is looked for.
        text: String,
    },
    /// Type 0x07: who has it.
    Results {
        /// The search's.
        id: u16,
        /// Where to download it.
        sources: Vec<SocketAddrV4>,
    },
    /// Type 0x08: no more results.
    QueryEnd {
        /// The search's.
        id: u16,
    },
    /// Type 0x09: size of the network.
    Stats {
        /// Users online. giFT leaves a supernode that knows fewer than 100,000.
        users: u32,
    },
    /// Type 0x2c: the client's address as seen outside.
    ExternalAddress(Ipv4Addr),
    /// Any other type: what supernodes send after a join and clients ignore.
    Chatter {
        /// Its type.
        kind: u16,
        /// Its payload.
        payload: Vec<u8>,
    },
}

/// The bytes cannot be a session's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a session message")]
pub struct Malformed;

impl Message {
    /// The octets.
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Self::KeepAlive => vec![KEEP_ALIVE],
            Self::KeepAliveAnswer => vec![KEEP_ALIVE_ANSWER],
            Self::NodeList(entries) => framed(
                0x00,
                &entries.iter().flat_map(encode_entry).collect::<Vec<_>>(),
            ),
            Self::UserInfo { address, name } => framed(0x02, &encode_user_info(*address, name)),
            Self::Query { id, text } => {
                framed(0x06, &[&id.to_be_bytes()[..], text.as_bytes()].concat())
            }
            Self::Results { id, sources } => framed(0x07, &encode_results(*id, sources)),
            Self::QueryEnd { id } => framed(0x08, &id.to_be_bytes()),
            Self::Stats { users } => framed(0x09, &users.to_be_bytes()),
            Self::ExternalAddress(ip) => framed(0x2c, &ip.octets()),
            Self::Chatter { kind, payload } => framed(*kind, payload),
        }
    }

    fn decode(kind: u16, payload: &[u8]) -> Result<Self, Malformed> {
        match kind {
            0x00 => decode_all(payload, decode_entry).map(Self::NodeList),
            0x02 => decode_user_info(payload),
            0x06 => decode_query(payload),
            0x07 => decode_results(payload),
            0x08 => Ok(Self::QueryEnd {
                id: u16::from_be_bytes(exactly(payload)?),
            }),
            0x09 => Ok(Self::Stats {
                users: u32::from_be_bytes(exactly(payload)?),
            }),
            0x2c => Ok(Self::ExternalAddress(Ipv4Addr::from(exactly(payload)?))),
            _ => Ok(Self::Chatter {
                kind,
                payload: payload.to_vec(),
            }),
        }
    }
}

/// Puts messages together from pieces of a stream.
#[derive(Debug, Default)]
pub struct Deframer {
    pending: Vec<u8>,
}

impl Deframer {
    /// Takes the next plain bytes.
    pub fn push(&mut self, bytes: &[u8]) {
        self.pending.extend_from_slice(bytes);
    }

    /// The next whole message, if one has arrived.
    ///
    /// # Errors
    /// When the stream cannot be a session's; nothing after it can be read either.
    pub fn pop(&mut self) -> Result<Option<Message>, Malformed> {
        let (message, len) = match *self.pending.as_slice() {
            [] => return Ok(None),
            [KEEP_ALIVE, ..] => (Message::KeepAlive, 1),
            [KEEP_ALIVE_ANSWER, ..] => (Message::KeepAliveAnswer, 1),
            [FRAMED, kind_high, kind_low, high, low, ref rest @ ..] => {
                let len = usize::from(u16::from_be_bytes([high, low]));
                if len > LONGEST_PAYLOAD {
                    return Err(Malformed);
                }
                let Some(payload) = rest.get(..len) else {
                    return Ok(None);
                };
                let kind = u16::from_be_bytes([kind_high, kind_low]);
                (Message::decode(kind, payload)?, HEADER_LEN + len)
            }
            [FRAMED, ..] => return Ok(None),
            _ => return Err(Malformed),
        };
        self.pending.drain(..len);
        Ok(Some(message))
    }
}

fn framed(kind: u16, payload: &[u8]) -> Vec<u8> {
    let len = u16::try_from(payload.len()).expect("no message here is longer than 65,535 octets");
    [
        &[FRAMED],
        &kind.to_be_bytes()[..],
        &len.to_be_bytes()[..],
        payload,
    ]
    .concat()
}

fn encode_address(address: SocketAddrV4) -> [u8; 6] {
    let [a, b, c, d] = address.ip().octets();
    let [high, low] = address.port().to_be_bytes();
    [a, b, c, d, high, low]
}

fn decode_address([a, b, c, d, high, low]: [u8; 6]) -> SocketAddrV4 {
    SocketAddrV4::new(Ipv4Addr::new(a, b, c, d), u16::from_be_bytes([high, low]))
}

fn encode_entry(entry: &NodeEntry) -> [u8; ENTRY_LEN] {
    let [a, b, c, d, high, low] = encode_address(entry.address);
    [a, b, c, d, high, low, entry.minutes, entry.load_pct]
}

fn decode_entry([a, b, c, d, high, low, minutes, load_pct]: [u8; ENTRY_LEN]) -> NodeEntry {
    NodeEntry {
        address: decode_address([a, b, c, d, high, low]),
        minutes,
        load_pct,
    }
}

/// Address, bandwidth (14 times the binary logarithm of kbit/s, and 59: 0xaa is about 240 kbit/s), a
/// zero, the name.
fn encode_user_info(address: SocketAddrV4, name: &str) -> Vec<u8> {
    [&encode_address(address)[..], &[0xaa, 0x00], name.as_bytes()].concat()
}

fn decode_user_info(payload: &[u8]) -> Result<Message, Malformed> {
    let (address, rest) = payload.split_first_chunk::<6>().ok_or(Malformed)?;
    let name = rest.get(2..).ok_or(Malformed)?;
    let name = String::from_utf8(name.to_vec()).map_err(|_| Malformed)?;
    Ok(Message::UserInfo {
        address: decode_address(*address),
        name,
    })
}

fn decode_query(payload: &[u8]) -> Result<Message, Malformed> {
    let (id, text) = payload.split_first_chunk::<2>().ok_or(Malformed)?;
    let text = String::from_utf8(text.to_vec()).map_err(|_| Malformed)?;
    Ok(Message::Query {
        id: u16::from_be_bytes(*id),
        text,
    })
}

fn encode_results(id: u16, sources: &[SocketAddrV4]) -> Vec<u8> {
    let sources = sources.iter().copied().flat_map(encode_address);
    id.to_be_bytes().into_iter().chain(sources).collect()
}

fn decode_results(payload: &[u8]) -> Result<Message, Malformed> {
    let (id, sources) = payload.split_first_chunk::<2>().ok_or(Malformed)?;
    let sources = decode_all(sources, decode_address)?;
    Ok(Message::Results {
        id: u16::from_be_bytes(*id),
        sources,
    })
}

fn decode_all<const N: usize, T>(
    payload: &[u8],
    decode: fn([u8; N]) -> T,
) -> Result<Vec<T>, Malformed> {
    let (entries, rest) = payload.as_chunks::<N>();
    if rest.is_empty() {
        Ok(entries.iter().copied().map(decode).collect())
    } else {
        Err(Malformed)
    }
}

fn exactly<const N: usize>(payload: &[u8]) -> Result<[u8; N], Malformed> {
    payload.try_into().map_err(|_| Malformed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(last: u8) -> SocketAddrV4 {
        SocketAddrV4::new(Ipv4Addr::new(198, 18, 0, last), 1214)
    }

    #[test]
    fn a_full_node_list_is_1605_octets() {
        let entry = NodeEntry {
            address: address(1),
            minutes: 0,
            load_pct: 50,
        };
        assert_eq!(
            Message::NodeList(vec![entry; LIST_ENTRIES]).encode().len(),
            1605
        );
    }

    #[test]
    fn user_info_is_13_octets_and_the_name() {
        let info = Message::UserInfo {
            address: address(2),
            name: "someone".to_owned(),
        };
        assert_eq!(info.encode().len(), 13 + 7);
    }

    #[test]
    fn keep_alives_are_lone_bytes() {
        assert_eq!(Message::KeepAlive.encode(), [0x50]);
        assert_eq!(Message::KeepAliveAnswer.encode(), [0x52]);
    }

    #[test]
    fn every_message_survives_a_stream_of_single_bytes() {
        let messages = [
            Message::NodeList(vec![NodeEntry {
                address: address(3),
                minutes: 4,
                load_pct: 5,
            }]),
            Message::KeepAlive,
            Message::UserInfo {
                address: address(6),
                name: "name".to_owned(),
            },
            Message::Query {
                id: 7,
                text: "song".to_owned(),
            },
            Message::Results {
                id: 7,
                sources: vec![address(8), address(9)],
            },
            Message::QueryEnd { id: 7 },
            Message::KeepAliveAnswer,
            Message::Stats { users: 3_000_000 },
            Message::ExternalAddress(Ipv4Addr::new(10, 77, 1, 1)),
            Message::Chatter {
                kind: 0x1f,
                payload: vec![1, 2, 3],
            },
        ];
        let mut deframer = Deframer::default();
        let mut read = Vec::new();
        for byte in messages.iter().flat_map(Message::encode) {
            deframer.push(&[byte]);
            read.extend(deframer.pop().unwrap());
        }
        assert_eq!(read, messages);
    }

    #[test]
    fn a_stream_that_starts_with_another_byte_is_refused() {
        let mut deframer = Deframer::default();
        deframer.push(b"HTTP/1.1");
        assert_eq!(deframer.pop(), Err(Malformed));
    }
}
