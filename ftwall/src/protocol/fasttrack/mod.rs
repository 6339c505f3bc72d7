//! FastTrack: the network of Kazaa, iMesh, Grokster and early Morpheus, and of the open clients
//! giFT and mldonkey. IPv4 only, on any port.
//!
//! Facts of the wire are those of the giFT-FastTrack project's PROTOCOL notes (2004), of what giFT
//! 0.8.9 and mldonkey were seen to send, and of measurements against foreign traffic.
//!
//! ```text
//!  client                                     supernode or peer
//!    |-- UDP 0x27 ping ------------------------->|          udp.rs
//!    |<------------------- UDP 0x28 pong --------|
//!    |== TCP: 12 octets ========================>|          handshake.rs
//!    |<============= 8 octets (+ 6, 9 or 10) ====|
//!    |== TCP: GET /.hash=... or GIVE n =========>|          http.rs
//! ```

mod handshake;
mod http;
mod udp;

use super::{Conversation, Protocol, Reading};

/// FastTrack's line in the list of protocols.
pub(super) const PROTOCOL: Protocol = Protocol {
    name: "fasttrack",
    udp_shapes: udp::SHAPES,
    datagram: udp::read,
    conversation,
    midstream: http::read_midstream,
    announced_peers: http::announced_peers,
    answer: udp::answer,
    probe: udp::probe,
};

fn conversation(conversation: &Conversation<'_>) -> Reading {
    let transfer = http::read(conversation);
    if transfer == Reading::default() {
        handshake::read(conversation)
    } else {
        transfer
    }
}
