//! A program that accepts every packet of a queue unread: what queueing costs by itself, by reader.

use std::io;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

use crate::gateway::queue::{self, Answer, QueueReader, QueueSettings};
use crate::gateway::signals::Signals;

/// What went through a queue.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Queued {
    /// Packets accepted.
    pub packets: u64,
    /// Processor time of the program, in seconds.
    pub processor_seconds: f64,
}

const BATCH: usize = 64;

pub(super) fn serve(number: u16, reader: QueueReader) -> anyhow::Result<Queued> {
    let requests = Signals::end()?;
    let mut queue = queue::open(reader, QueueSettings::of(number))?;
    super::say_ready()?;
    let (begun, mut packets) = (processor_seconds(), 0);
    while !requests.arrived() {
        let mut sources = [
            PollFd::new(&queue, PollFlags::IN),
            PollFd::new(&requests, PollFlags::IN),
        ];
        match poll(&mut sources, None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(io::Error::from(error).into()),
        }
        queue.serve(BATCH, &mut |_| {
            packets += 1;
            Answer::Accept { mark: None }
        });
    }
    Ok(Queued {
        packets,
        processor_seconds: processor_seconds() - begun,
    })
}

fn processor_seconds() -> f64 {
    let spent = clock_gettime(ClockId::ProcessCPUTime);
    spent.tv_sec as f64 + spent.tv_nsec as f64 / 1e9
}
