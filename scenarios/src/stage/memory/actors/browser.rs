//! `simulator web-client` on virtual sockets: the control group's requests, one after the other.

use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::ensure;
use simulator::report::{Event, Line, RequestId};
use simulator::reporter::DoneReason;
use simulator::web::{self, Kind};

use super::requests::{Requests, Wish};
use super::{Actor, Report, Scene};
use crate::stage::memory::script::Script;
use crate::stage::memory::sockets::Arrival;

/// Requests never begin closer together than this, as in the simulator.
const SHORTEST_INTERVAL: Duration = Duration::from_micros(100);

/// How late a request may begin without the next one being put off, too (tokio's own tolerance).
const LATE: Duration = Duration::from_millis(5);

/// An ordinary user.
pub(in crate::stage::memory) struct Browser {
    server: Ipv4Addr,
    seed: u64,
    schedule: Box<dyn Iterator<Item = (u64, Kind)>>,
    next: Option<(u64, Kind)>,
    next_tick: Duration,
    interval: Duration,
    most_at_once: usize,
    duration: Option<Duration>,
    end: Option<Duration>,
    requests: Requests,
    /// Whether its report has a first and a last line of its own.
    announces: bool,
    done: bool,
    report: Report,
}

impl Browser {
    /// A user with a report of its own, or one whose lines are part of a client's.
    ///
    /// # Errors
    /// When an option has no meaning in memory.
    pub(in crate::stage::memory) fn new(
        actor: usize,
        who: &str,
        options: &web::ClientOptions,
        announces: bool,
    ) -> anyhow::Result<Self> {
        let schedule = Box::new(options.schedule());
        // Named one by one: an option that is added must be dealt with here.
        let web::ClientOptions {
            bind,
            server,
            seed,
            kinds: _,
            requests: _,
            duration,
            interval,
            timeout,
            concurrency,
            port_offset,
        } = *options;
        ensure!(
            port_offset == 0,
            "--port-offset has no meaning in memory, where every port is free"
        );
        Ok(Self {
            server,
            seed,
            schedule,
            next: None,
            next_tick: Duration::ZERO,
            interval: interval.max(SHORTEST_INTERVAL),
            most_at_once: concurrency.get(),
            duration,
            end: None,
            requests: Requests::new(actor, bind, timeout),
            announces,
            done: false,
            report: Report::new(who),
        })
    }

    fn is_over(&self, now: Duration) -> bool {
        self.end.is_some_and(|end| now >= end)
    }

    fn may_begin(&self, now: Duration) -> bool {
        self.next.is_some() && !self.is_over(now) && self.requests.running() < self.most_at_once
    }

    fn proceed(&mut self, scene: &mut Scene) {
        while self.may_begin(scene.now) && self.next_tick <= scene.now {
            if let Some((number, kind)) = self.next.take() {
                self.begin(scene, number, kind);
                self.next = self.schedule.next();
                let late = scene.now.saturating_sub(self.next_tick) > LATE;
                let from = if late { scene.now } else { self.next_tick };
                self.next_tick = from + self.interval;
            }
        }
        let all_begun = self.next.is_none() || self.is_over(scene.now);
        if all_begun && self.requests.running() == 0 {
            let reason = match self.next {
                None => DoneReason::Requests,
                Some(_) => DoneReason::Duration,
            };
            self.finish(scene, reason);
        }
    }

    fn begin(&mut self, scene: &mut Scene, number: u64, kind: Kind) {
        let exchange = web::exchange(kind, self.server, self.seed, number);
        let wish = Wish {
            id: RequestId(number),
            kind: kind.name().to_owned(),
            server: std::net::SocketAddrV4::new(self.server, kind.service().port().1),
            scripts: exchange
                .conversations
                .into_iter()
                .map(Script::from)
                .collect(),
        };
        self.requests.begin(scene, &mut self.report, wish);
    }

    fn finish(&mut self, scene: &mut Scene, reason: DoneReason) {
        if !std::mem::replace(&mut self.done, true) && self.announces {
            self.report.done(scene.now, reason);
        }
    }
}

impl Actor for Browser {
    fn start(&mut self, scene: &mut Scene) {
        self.next = self.schedule.next();
        self.next_tick = scene.now;
        self.end = self.duration.map(|duration| scene.now + duration);
        if self.announces {
            self.report.say(scene.now, Event::Ready);
        }
        self.proceed(scene);
    }

    fn handle(&mut self, scene: &mut Scene, arrival: Arrival) {
        self.requests.handle(scene, &mut self.report, arrival);
        self.proceed(scene);
    }

    fn handle_timeout(&mut self, scene: &mut Scene) {
        if !self.done {
            self.requests.handle_timeout(scene, &mut self.report);
            self.proceed(scene);
        }
    }

    fn poll_timeout(&self, now: Duration) -> Option<Duration> {
        if self.done {
            return None;
        }
        let begin = self.may_begin(now).then_some(self.next_tick);
        let end = self.end.filter(|end| *end > now);
        self.requests
            .poll_timeout()
            .into_iter()
            .chain(begin)
            .chain(end)
            .min()
    }

    fn is_done(&self) -> bool {
        self.done
    }

    fn stop(&mut self, scene: &mut Scene) {
        self.finish(scene, DoneReason::Signal);
    }

    fn take_report(&mut self) -> Vec<Line> {
        std::mem::take(&mut self.report.lines)
    }
}
