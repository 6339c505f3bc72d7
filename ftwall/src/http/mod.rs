//! Numbers for Prometheus at `/metrics` and a page for people at `/`, both read-only, on loopback or a Unix
//! socket.
//!
//! Like the control socket it is served by the daemon's main thread, which never waits for anybody: a thread,
//! a runtime and a crate that speaks all of HTTP would be more to trust than two documents are worth.
//! Numbers are written as text by a page of our own code, because they are counted elsewhere already: a
//! registry of atomics beside the engines' counters would count everything twice.

mod history;
mod metrics;
mod overview;
mod page;
mod request;
mod server;

pub use history::{History, Sample};
pub use metrics::{Format, Kind, METRICS, Metric, exposition};
pub use overview::{Lists, Overview, QueueState};
pub use page::page;
pub use request::{Document, Refusal, Request};
pub use server::{Body, HttpServer};
