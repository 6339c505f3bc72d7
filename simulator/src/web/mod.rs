//! The control group: ordinary traffic by the libraries that ordinary programs use, which must go
//! on through a gateway as if nothing were there.
//!
//! One server process answers every kind of request ([`serve`]); a client makes them one after the
//! other ([`browse`]) and reports each as a `web_request` and a `web_result` line. A request counts
//! as done only when every octet asked for arrived and was compared: both sides derive the content
//! from the request itself (see `content.rs`), so no state and no files are shared, and a status
//! code alone proves nothing.
//!
//! TLS and QUIC run with a self-signed certificate made at start. The client checks the handshake's
//! signatures but no certificate authority: this is traffic of a test network, and what proves the
//! answer is its content.
//!
//! The same requests exist without sockets, as scripts of what both sides write ([`exchange()`]).
//!
//! | file | what it speaks |
//! |---|---|
//! | `http.rs`, `raw_http.rs` | HTTP/1.1 by hyper; heads that hyper would not write |
//! | `tls.rs`, `quic.rs` | rustls, hyper's HTTP/2, quinn |
//! | `dns.rs` | hickory's messages |
//! | `ssh.rs`, `smtp.rs` | protocols in which the server speaks first |
//! | `ntp.rs`, `stun.rs`, `game.rs`, `openvpn.rs` | datagrams |
//! | `modbus.rs`, `nomachine.rs`, `bfcp.rs`, `socks.rs` | protocols that open with 12 octets |

mod bfcp;
mod client;
mod content;
mod datagram;
mod dns;
mod exchange;
mod game;
mod http;
mod kind;
mod modbus;
mod nomachine;
mod ntp;
mod openvpn;
mod quic;
mod raw_http;
mod server;
mod smtp;
mod socks;
mod ssh;
mod stream;
mod stun;
mod tls;

pub use client::{ClientOptions, browse};
pub use exchange::{Conversation, Exchange, Side, Turn, exchange};
pub use kind::{Kind, KindList, Service, Transport, UnknownKind};
pub use server::{ServerOptions, serve};
