//! What a simulated host says about its own sockets, one JSON object per line.
//!
//! This is the contract between the simulator and whoever judges it. A line states what one socket
//! saw and nothing else: no verdicts, no guesses about what a gateway did. Contacts carry the
//! attempt's id on the client's side; the two sides are joined by address pair.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

/// One line of a report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// Microseconds since the Unix epoch (or since the start of virtual time).
    pub t_us: u64,
    /// Name of the simulated host, as given on the command line.
    pub who: String,
    /// What happened.
    #[serde(flatten)]
    pub event: Event,
}

/// Number of one contact attempt, unique within one reporting host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct AttemptId(pub u64);

/// Number of one control-group request, unique within one reporting host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RequestId(pub u64);

/// How a client tries to reach a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AttemptKind {
    /// One UDP ping (0x27).
    Ping,
    /// A TCP dial that opens a session with the 12-byte opener.
    Dial,
    /// A TCP dial that asks for a file over HTTP.
    Download,
    /// A TCP dial by a file's owner that starts with `GIVE`.
    Give,
}

/// The part of a conversation that a run of payload bytes belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// UDP 0x27.
    Ping,
    /// UDP 0x28.
    Pong,
    /// UDP 0x29.
    Pong2,
    /// UDP 0x2A.
    PongAnswer,
    /// The initiator's first 12 bytes.
    Opener,
    /// The responder's 8 bytes, with or without the network name behind them.
    Answer,
    /// Anything inside an established session: name, user info, node list, search, keep-alive.
    Session,
    /// An HTTP request head for a file, in either direction.
    Request,
    /// `GIVE <digits>`.
    Give,
    /// An HTTP response head.
    Response,
    /// Bytes of a shared file.
    File,
    /// Bytes that fit none of the above.
    Other,
}

/// Why an attempt ended without reaching its goal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Failure {
    /// No answer within the client's own patience.
    Timeout,
    /// The connection was refused or reset, or an ICMP error came back.
    Reset,
    /// The other side closed before the goal.
    Closed,
    /// The answer was not what the protocol asks for.
    Protocol,
    /// The local system refused (no route, no descriptor).
    Local,
}

/// How a client looks for the network at present.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// UDP pings to the whole cache, dialling who answers.
    UdpFlood,
    /// Several TCP dials at once.
    ParallelTcp,
    /// One TCP dial at a time.
    SerialTcp,
    /// TCP dials to port 80.
    Port80,
}

/// What a simulated host saw on its own sockets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// Sockets are bound; the host can be talked to.
    Ready,

    // --- client side of a contact ---
    /// A contact attempt begins.
    Attempt {
        /// Its number.
        id: AttemptId,
        /// What is tried.
        kind: AttemptKind,
        /// Own address; for TCP known once the socket is bound.
        local: SocketAddr,
        /// The outside peer.
        peer: SocketAddr,
    },
    /// A TCP handshake of an attempt completed.
    Connected {
        /// The attempt.
        id: AttemptId,
    },
    /// Payload was handed to the socket.
    Sent {
        /// The attempt.
        id: AttemptId,
        /// Which part.
        part: Part,
        /// Octets.
        bytes: u64,
    },
    /// Payload came out of the socket.
    Received {
        /// The attempt.
        id: AttemptId,
        /// Which part.
        part: Part,
        /// Octets.
        bytes: u64,
        /// The datagram in hex, for UDP parts only: a reply forged by a gateway differs from any
        /// that the peer says it sent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        hex: Option<String>,
    },
    /// A session is up: names exchanged, node list received.
    SessionUp {
        /// The attempt.
        id: AttemptId,
    },
    /// A file arrived whole and unaltered.
    TransferDone {
        /// The attempt.
        id: AttemptId,
        /// Octets of the file.
        bytes: u64,
    },
    /// An attempt ended without its goal.
    Failed {
        /// The attempt.
        id: AttemptId,
        /// Why.
        why: Failure,
    },
    /// A datagram arrived that answers no ping of this client: a gateway's re-probe, say, or a peer
    /// that calls of its own accord.
    Unsolicited {
        /// Who sent it, by its source address.
        remote: SocketAddr,
        /// What it is.
        part: Part,
        /// Octets.
        bytes: u64,
        /// The datagram in hex.
        hex: String,
    },
    /// The client answered such a datagram.
    UnsolicitedAnswered {
        /// To whom.
        remote: SocketAddr,
        /// What it is.
        part: Part,
        /// The datagram in hex.
        hex: String,
    },
    /// The client changed its way of looking for the network.
    ModeChanged {
        /// Before.
        from: Mode,
        /// After.
        to: Mode,
    },

    // --- peer side of a contact ---
    /// A datagram arrived at an outside peer.
    PeerGotDatagram {
        /// The peer's address it was sent to.
        local: SocketAddr,
        /// Who sent it, as seen outside.
        remote: SocketAddr,
        /// What it is.
        part: Part,
        /// Octets.
        bytes: u64,
    },
    /// An outside peer answered by UDP.
    PeerSentDatagram {
        /// The peer's address.
        local: SocketAddr,
        /// To whom.
        remote: SocketAddr,
        /// What it is.
        part: Part,
        /// The datagram in hex.
        hex: String,
    },
    /// An outside peer completed a TCP handshake (dialled or was dialled).
    PeerConnected {
        /// The peer's address.
        local: SocketAddr,
        /// The other side, as seen outside.
        remote: SocketAddr,
    },
    /// TCP payload arrived at an outside peer.
    PeerReceived {
        /// The peer's address.
        local: SocketAddr,
        /// The other side.
        remote: SocketAddr,
        /// Which part.
        part: Part,
        /// Octets in this run.
        bytes: u64,
    },
    /// An outside peer handed TCP payload to its socket.
    PeerSent {
        /// The peer's address.
        local: SocketAddr,
        /// The other side.
        remote: SocketAddr,
        /// Which part.
        part: Part,
        /// Octets in this run.
        bytes: u64,
    },

    // --- control group ---
    /// A control-group request begins.
    WebRequest {
        /// Its number.
        id: RequestId,
        /// Kind by name: `http1`, `tls_h1`, `tls_h2`, `quic`, `dns_udp`, `dns_tcp`, `ssh_banner`, ...
        kind: String,
        /// The server.
        server: SocketAddr,
    },
    /// A control-group request ended.
    WebResult {
        /// Its number.
        id: RequestId,
        /// Kind by name, again, so that a line stands alone.
        kind: String,
        /// Whether everything asked for arrived unaltered.
        ok: bool,
        /// From start to last byte, in microseconds.
        micros: u64,
        /// Octets received.
        bytes: u64,
        /// What went wrong, in words.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        error: Option<String>,
    },

    /// The host has done what it was asked to do; the last line of every report.
    Done {
        /// In words: `contact`, `duration`, `requests`, `signal`.
        reason: String,
    },
}
