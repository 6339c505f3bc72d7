//! All workers, each on a thread of its own, and how the rest of the daemon speaks to them.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use thiserror::Error;

use super::bell::Bell;
use super::worker::{Inbox, Reply, Request, Worker};

/// Requests that may wait for one worker.
const BACKLOG: usize = 64;
/// How long a worker is waited for: it looks at requests after every batch of packets.
const LONGEST_ANSWER: Duration = Duration::from_secs(2);

/// A worker has ended, or does not come to answering.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("worker {0} does not answer")]
pub struct Unresponsive(
    /// Its place among the workers, counted from 0.
    pub usize,
);

/// Workers that run.
#[derive(Debug)]
pub struct Workers {
    handles: Vec<Handle>,
    /// Rung when a worker ends, asked to or not.
    ended: Bell,
}

#[derive(Debug)]
struct Handle {
    requests: SyncSender<Request>,
    bell: Bell,
    /// Counted up by the worker in each of its rounds.
    rounds: Arc<AtomicU64>,
    /// Rounds when they were last looked at.
    seen: u64,
    thread: JoinHandle<(Worker, anyhow::Result<()>)>,
}

impl Workers {
    /// Starts a thread for each worker.
    ///
    /// # Errors
    /// When the system has no threads or descriptors left.
    pub fn start(workers: Vec<Worker>) -> io::Result<Workers> {
        let ended = Bell::new()?;
        let handles = workers
            .into_iter()
            .enumerate()
            .map(|(place, worker)| start(place, worker, &ended))
            .collect::<io::Result<_>>()?;
        Ok(Workers { handles, ended })
    }

    /// Readable once a worker has ended.
    #[must_use]
    pub const fn ended(&self) -> &Bell {
        &self.ended
    }

    /// Whether every worker has come round since this was last true. Each does so every second at least,
    /// if nothing holds it up.
    #[must_use]
    pub fn have_all_come_round(&mut self) -> bool {
        let rounds: Vec<u64> = self.handles.iter().map(Handle::rounds).collect();
        let mut pairs = rounds.iter().zip(&self.handles);
        let all = pairs.all(|(rounds, handle)| *rounds != handle.seen);
        if all {
            let handles = self.handles.iter_mut();
            handles
                .zip(rounds)
                .for_each(|(handle, now)| handle.seen = now);
        }
        all
    }

    /// Asks all workers at once; `request` makes a request out of where its answer goes. The answers are
    /// in the order of the workers.
    ///
    /// # Errors
    /// The first worker that does not answer in time.
    pub fn ask_all<T>(
        &self,
        request: impl Fn(Reply<T>) -> Request,
    ) -> Result<Vec<T>, Unresponsive> {
        let asked: Vec<_> = (0..self.handles.len())
            .map(|place| self.ask(place, &request))
            .collect::<Result<_, _>>()?;
        let answers = asked.iter().enumerate();
        answers
            .map(|(place, answer)| {
                let answer = answer.recv_timeout(LONGEST_ANSWER);
                answer.map_err(|_| Unresponsive(place))
            })
            .collect()
    }

    /// Lets all workers stop taking packets, and gives them back with their queues still open.
    ///
    /// # Errors
    /// Why a worker ended before it was asked to; the others are gone as well then.
    pub fn stop(self) -> anyhow::Result<Vec<Worker>> {
        for handle in &self.handles {
            handle.request(Request::Stop);
        }
        let stopped: Vec<_> = self.handles.into_iter().map(Handle::join).collect();
        stopped.into_iter().collect()
    }

    fn ask<T>(
        &self,
        place: usize,
        request: impl Fn(Reply<T>) -> Request,
    ) -> Result<Receiver<T>, Unresponsive> {
        let (reply, answer) = sync_channel(1);
        let handle = self.handles.get(place).ok_or(Unresponsive(place))?;
        if handle.request(request(reply)) {
            Ok(answer)
        } else {
            Err(Unresponsive(place))
        }
    }
}

impl Handle {
    fn rounds(&self) -> u64 {
        self.rounds.load(Ordering::Relaxed)
    }

    /// False if too many requests wait, or nobody does for them.
    fn request(&self, request: Request) -> bool {
        let is_sent = self.requests.try_send(request).is_ok();
        self.bell.ring();
        is_sent
    }

    fn join(self) -> anyhow::Result<Worker> {
        let ended = self.thread.join();
        let (worker, served) = ended.map_err(|_| anyhow!("a worker panicked"))?;
        served.context("a worker failed")?;
        Ok(worker)
    }
}

fn start(place: usize, mut worker: Worker, ended: &Bell) -> io::Result<Handle> {
    let (requests, received) = sync_channel(BACKLOG);
    let bell = Bell::new()?;
    let rounds = Arc::new(AtomicU64::new(0));
    let inbox = Inbox {
        requests: received,
        bell: bell.clone(),
        rounds: Arc::clone(&rounds),
    };
    let last_ring = RungWhenDropped(ended.clone());
    let work = move || {
        let _last_ring = last_ring;
        let served = worker.serve(&inbox);
        (worker, served)
    };
    let thread = std::thread::Builder::new()
        .name(format!("worker-{place}"))
        .spawn(work)?;
    Ok(Handle {
        requests,
        bell,
        rounds,
        seen: 0,
        thread,
    })
}

/// Says that a thread has ended even if it panics.
struct RungWhenDropped(Bell);

impl Drop for RungWhenDropped {
    fn drop(&mut self) {
        self.0.ring();
    }
}
