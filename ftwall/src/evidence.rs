//! What a recogniser can say it saw; never a decision.

use serde::{Deserialize, Serialize};

/// Something seen on the wire that speaks for a file-sharing client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Evidence {
    /// The whole shape of a UDP ping (0x27).
    UdpPing,
    /// The whole shape of a UDP pong (0x28).
    UdpPong,
    /// The whole shape of a second-kind UDP pong (0x29).
    UdpPong2,
    /// The shape of the answer to a second-kind pong (0x2a). Five octets: weak alone.
    UdpPong2Answer,
    /// The constant first word with which both open clients open a session.
    ConstantOpener,
    /// Exactly twelve octets, alone, not text, that look fully encrypted.
    EncryptedOpener,
    /// Exactly twelve octets, alone, not text: weak alone.
    OpenerShape,
    /// Exactly twelve octets of text, alone, that begin no request: one drawn opener in 90,000 reads so,
    /// and other protocols' first lines do. Weak alone.
    TextOpener,
    /// An opener's shape and a first answer of 8, 14, 17 or 18 octets.
    HandshakePair,
    /// A request for `/.hash=` and forty hexadecimal digits.
    HashRequest,
    /// A request head with a mark of the Kazaa family.
    MarkedRequest,
    /// A response head with a mark of the Kazaa family.
    MarkedResponse,
    /// A request for `/<number>/...`, as old clients made: weak alone.
    NumberedRequest,
    /// A request for a path that FastTrack peers serve, like `/.files`: weak alone.
    SpecialPath,
    /// `GIVE <number>`: a file's owner calls back.
    Give,
    /// The beginning of a file request or of `GIVE`, as far as nobody else says it: weak alone.
    TransferBeginning,
    /// The beginning of what may become the answer to an opener: weak alone.
    AnswerBeginning,
    /// Less than twelve octets, not a line of text: what every opener begins with, and much else.
    OpenerBeginning,
}

impl Evidence {
    /// Every kind, in order.
    pub const ALL: [Self; Self::OpenerBeginning as usize + 1] = [
        Self::UdpPing,
        Self::UdpPong,
        Self::UdpPong2,
        Self::UdpPong2Answer,
        Self::ConstantOpener,
        Self::EncryptedOpener,
        Self::OpenerShape,
        Self::TextOpener,
        Self::HandshakePair,
        Self::HashRequest,
        Self::MarkedRequest,
        Self::MarkedResponse,
        Self::NumberedRequest,
        Self::SpecialPath,
        Self::Give,
        Self::TransferBeginning,
        Self::AnswerBeginning,
        Self::OpenerBeginning,
    ];

    /// Stable name in snake case.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::UdpPing => "udp_ping",
            Self::UdpPong => "udp_pong",
            Self::UdpPong2 => "udp_pong2",
            Self::UdpPong2Answer => "udp_pong2_answer",
            Self::ConstantOpener => "constant_opener",
            Self::EncryptedOpener => "encrypted_opener",
            Self::OpenerShape => "opener_shape",
            Self::TextOpener => "text_opener",
            Self::HandshakePair => "handshake_pair",
            Self::HashRequest => "hash_request",
            Self::MarkedRequest => "marked_request",
            Self::MarkedResponse => "marked_response",
            Self::NumberedRequest => "numbered_request",
            Self::SpecialPath => "special_path",
            Self::Give => "give",
            Self::TransferBeginning => "transfer_beginning",
            Self::AnswerBeginning => "answer_beginning",
            Self::OpenerBeginning => "opener_beginning",
        }
    }

    /// Whether ordinary programs say the same every day, so that it is not worth a word until it leads to
    /// a decision.
    #[must_use]
    pub const fn is_everyday(self) -> bool {
        matches!(
            self,
            Self::TransferBeginning
                | Self::OpenerBeginning
                | Self::AnswerBeginning
                | Self::TextOpener
        )
    }
}
