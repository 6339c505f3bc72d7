//! All workers, each on a thread of its own, and how the rest of the daemon speaks to them.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use thiserror::Error;
use tracing::warn;

use super::bell::Bell;
use super::confinement::{self, Lacking};
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
    /// Starts a thread for each worker, which confines itself before it takes the first packet.
    ///
    /// # Errors
    /// When the system has no threads or descriptors left.
    pub fn start(workers: Vec<Worker>) -> io::Result<Workers> {
        let ended = Bell::new()?;
        let (confined, lacking) = channel();
        let handles = workers
            .into_iter()
            .enumerate()
            .map(|(place, worker)| start(place, worker, &ended, confined.clone()))
            .collect::<io::Result<_>>()?;
        drop(confined);
        // The same for all, of the same kernel.
        let lacking: BTreeSet<Lacking> = lacking.iter().flatten().collect();
        for lacking in lacking {
            warn!(%lacking, "threads that read packets are confined by less than they could be");
        }
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

fn start(
    place: usize,
    mut worker: Worker,
    ended: &Bell,
    confined: Sender<Vec<Lacking>>,
) -> io::Result<Handle> {
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
        // Whoever starts a worker waits for this.
        let _ = confined.send(confinement::confine());
        drop(confined);
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

#[cfg(test)]
mod tests {
    use std::os::linux::net::SocketAddrExt as _;
    use std::os::unix::net::{SocketAddr, UnixDatagram};

    use super::super::clock::Clock;
    use super::super::event_log::EventLog;
    use super::super::interface_names::InterfaceNames;
    use super::super::kernel_sets::blocked;
    use super::super::marks::MarkField;
    use super::super::pulse::Pulse;
    use super::super::service_manager::ServiceManager;
    use super::super::worker::{Counted, neighbourhood};
    use super::*;
    use crate::control::events::EventWriter;
    use crate::{Engine, EngineConfig, Timestamp};

    #[test]
    fn one_worker_that_hangs_ends_the_signs_of_life_although_the_others_move() {
        let name = format!("ftwall-pulse-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).expect("it is short");
        let listener = UnixDatagram::bind_addr(&address).expect("the name is free");
        listener.set_nonblocking(true).expect("it is open");
        let manager = ServiceManager::at(&format!("@{name}"), Duration::from_secs(4));
        let mut pulse = Pulse::new(manager.expect("it listens"));
        let mut workers = start_workers(3);
        let mut beat = |workers: &mut Workers| {
            let all_move = workers.have_all_come_round();
            pulse.beat(Timestamp::ORIGIN, all_move, "running");
            heard(&listener)
        };
        workers.come_round(&[0, 1, 2]);
        assert!(beat(&mut workers).contains("WATCHDOG=1"));

        // The last one waits for something that does not come.
        let (go_on, never) = channel::<()>();
        let (has_begun, begun) = sync_channel(1);
        let never = std::sync::Mutex::new(Some(never));
        let _waiting = workers.ask(2, |reply| {
            let never = never.lock().expect("nobody panicked").take();
            let has_begun = has_begun.clone();
            Request::operate(reply, move |_, _| {
                let _ = has_begun.send(());
                never.map(|never| never.recv())
            })
        });
        begun.recv().expect("the worker runs");
        workers.come_round(&[0, 1]);
        // It may have come round once more before it hung.
        let _ = beat(&mut workers);
        for _ in 0..3 {
            workers.come_round(&[0, 1]);
            assert_eq!(beat(&mut workers), "");
        }

        drop(go_on);
        workers.come_round(&[0, 1, 2]);
        assert_eq!(beat(&mut workers), "WATCHDOG=1");
        workers.stop().expect("all can be stopped again");
    }

    impl Workers {
        /// Waits until each of these has begun another round: answers of two rounds have come.
        fn come_round(&self, places: &[usize]) {
            for place in places.iter().chain(places) {
                let answer = self.ask(*place, Request::Statistics);
                let answer = answer.expect("it runs").recv_timeout(LONGEST_ANSWER);
                answer.expect("it moves");
            }
        }
    }

    /// Workers without queues.
    fn start_workers(count: usize) -> Workers {
        let log =
            EventLog::start(EventWriter::to(io::sink()), Vec::new()).expect("threads are left");
        let config = EngineConfig::default();
        let workers = neighbourhood(count).into_iter().map(|neighbours| Worker {
            clock: Clock::start(),
            blocked: blocked(&config),
            engine: Engine::new(config.clone(), 1),
            marks: MarkField::DEFAULT,
            queues: Vec::new(),
            injector: None,
            interfaces: InterfaceNames::open(),
            sets: None,
            sign_of_life: None,
            neighbours,
            events: log.sender(),
            recorder: None,
            counted: Counted::default(),
            busy_poll: Duration::ZERO,
            served: Timestamp::ORIGIN,
        });
        Workers::start(workers.collect()).expect("threads are left")
    }

    /// Everything that was said since the last time.
    fn heard(listener: &UnixDatagram) -> String {
        let mut octets = [0; 64];
        let said = std::iter::from_fn(|| {
            let len = listener.recv(&mut octets).ok()?;
            Some(String::from_utf8_lossy(&octets[..len]).into_owned())
        });
        said.collect::<Vec<_>>().join("\n")
    }
}
