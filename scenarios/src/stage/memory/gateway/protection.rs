//! ftwall on the gateway: its rules in the kernel and its daemon beside it, alive or not.

use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use anyhow::Context as _;
use ftwall::cli::run_settings;
use ftwall::config::NeverBlock;
use ftwall::control::events::{self, Notice, Statistics};
use ftwall::gateway::backend::Backend;
use ftwall::gateway::daemon::RunSettings;
use ftwall::gateway::fan_out;
use ftwall::gateway::inject;
use ftwall::gateway::kernel_sets::{self, Batch, Element};
use ftwall::gateway::queue::Answer;
use ftwall::gateway::rules::WhenDown;
use ftwall::gateway::{rules, worker};
use ftwall::{Action, Engine, Hearsay, Ingress, Remembered, Timestamp};
use ipnet::{IpNet, Ipv4Net};
use lab::presets::Office;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use super::super::ruleset::{Passage, Ruleset, RulesetError, Station};
use super::Counts;

/// Where virtual time begins in the daemon's calendar: 4 July 2003, 00:00 UTC.
pub const EPOCH: Duration = Duration::from_secs(1_057_276_800);

/// How long the kernel takes at least and at most to change a set, in microseconds. Of real changes half
/// take less than 25 us, and one in a hundred more than 175 us.
const WRITE_US: (f64, f64) = (10.0, 5_000.0);

/// Longer than any scenario.
const FOR_EVER: Duration = Duration::from_secs(1 << 30);

/// Addresses the daemon would find around a real gateway, and never block.
const SURROUNDINGS: [Ipv4Addr; 4] = [
    Ipv4Addr::LOCALHOST,
    Office::GATEWAY_LAN,
    Office::GATEWAY_WAN,
    Office::OUTSIDE,
];

/// Rules, sets and the daemon.
#[derive(Debug)]
pub(super) struct Protection {
    settings: RunSettings,
    pub(super) rules: Ruleset,
    daemon: Option<Daemon>,
    /// The change of sets that is on its way into the kernel; it arrives even if its writer dies.
    writing: Option<Writing>,
    rng: StdRng,
    pub(super) events: String,
    /// Packets the gateway sends itself.
    pub(super) injected: VecDeque<Vec<u8>>,
    /// How many of them conntrack has seen.
    pub(super) tracked: usize,
}

/// What lives and dies with the process.
#[derive(Debug)]
struct Daemon {
    /// One for each shard.
    engines: Vec<Engine>,
    /// Changes of sets that wait for the write before them.
    waiting: Batch,
    set_writes_failed: u64,
}

impl Daemon {
    fn tell_others(&mut self, now: Duration, shard: usize, action: &Action) {
        let Some(found) = Hearsay::of(action) else {
            return;
        };
        for (place, engine) in self.engines.iter_mut().enumerate() {
            if place != shard {
                engine.hear(instant(now), found);
            }
        }
    }
}

#[derive(Debug)]
struct Writing {
    done: Duration,
    batch: Batch,
}

impl Protection {
    pub(super) fn new(options: &[&str], seed: u64) -> anyhow::Result<Self> {
        let inside = Office::LAN.to_string();
        let options = [&["--inside", &inside], options].concat();
        let mut settings = run_settings(&options)?;
        let own = SURROUNDINGS.map(|address| NeverBlock::from(IpNet::V4(Ipv4Net::from(address))));
        settings.engine.never_block.extend(own);
        Ok(Self {
            settings,
            rules: Ruleset::new(),
            daemon: None,
            writing: None,
            rng: StdRng::seed_from_u64(seed),
            events: String::new(),
            injected: VecDeque::new(),
            tracked: 0,
        })
    }

    /// Whether a packet passes the rules and, where they ask it, the daemon.
    pub(super) fn judge(
        &mut self,
        now: Duration,
        passage: &mut Passage<'_>,
        counts: &mut Counts,
    ) -> bool {
        self.settle(now);
        let mut station = self.rules.enter(now, passage);
        loop {
            let (number, bypass, resume) = match station {
                Station::Accepted => return true,
                Station::Dropped => return false,
                Station::Queued {
                    number,
                    bypass,
                    resume,
                } => (number, bypass, resume),
            };
            match self.ask(now, number, passage) {
                Some(answer) => {
                    counts.queued += 1;
                    match answer {
                        Answer::Accept { mark } => passage.mark = mark.unwrap_or(passage.mark),
                        Answer::Drop => return false,
                    }
                }
                None if bypass => counts.bypassed += 1,
                None => return false,
            }
            station = self.rules.resume(now, passage, resume);
        }
    }

    pub(super) fn poll_timeout(&self) -> Option<Duration> {
        let engine = self
            .daemon
            .iter()
            .flat_map(|daemon| &daemon.engines)
            .filter_map(Engine::poll_timeout)
            .min();
        let engine = engine.map(|due| due.since_origin().saturating_sub(EPOCH));
        let write = self.writing.as_ref().map(|writing| writing.done);
        [engine, write].into_iter().flatten().min()
    }

    pub(super) fn handle_timeout(&mut self, now: Duration) {
        self.settle(now);
        if let Some(daemon) = &mut self.daemon {
            for engine in &mut daemon.engines {
                engine.handle_timeout(instant(now));
            }
        }
        self.drain(now);
    }

    pub(super) fn start(&mut self, now: Duration) -> anyhow::Result<()> {
        if self.daemon.is_some() {
            return Ok(());
        }
        self.settle(now);
        let rules = &self.settings.rules;
        // Rules that led nowhere until now.
        let follows_gap =
            rules.when_down == WhenDown::Drop && self.rules.elements(rules::LOCKED, now).is_some();
        self.rules
            .apply(now, &rules::commands(rules, Backend::Nft))
            .context("the virtual kernel refused ftwall's rules")?;
        self.show_life(now, FOR_EVER)?;
        let shards = self.settings.rules.queues.shards();
        let mut engines: Vec<Engine> = (0..shards.count())
            .map(|_| Engine::new(self.settings.engine.clone(), self.rng.random()))
            .collect();
        if follows_gap {
            engines
                .iter_mut()
                .for_each(|engine| engine.follow_gap(instant(now)));
        }
        for left in self.remembered(now) {
            engines[usize::from(shards.of(left.host()))].remember(instant(now), left);
        }
        self.daemon = Some(Daemon {
            engines,
            waiting: Batch::new(),
            set_writes_failed: 0,
        });
        let ready = Notice::Ready {
            backend: Backend::Nft.name(),
            queue: self.settings.rules.queues.first(),
            reader: self.settings.queue_reader.name(),
            queues: Vec::new(),
        };
        self.events += &events::line(instant(now), &ready);
        Ok(())
    }

    /// What the sets still know from a daemon before this one.
    fn remembered(&self, now: Duration) -> Vec<Remembered> {
        let locked = self.rules.leaving(rules::LOCKED, now);
        let locked = locked.map(|(key, for_)| Remembered::Locked {
            host: key[0].into(),
            for_,
        });
        let peers = self.rules.leaving(rules::PEERS, now);
        let peers = peers.filter_map(|(key, for_)| {
            let port = u16::try_from(key[3]).ok()?;
            Some(Remembered::Peer {
                client: key[0].into(),
                peer: SocketAddrV4::new(key[1].into(), port),
                for_,
            })
        });
        let mut all: Vec<_> = locked.chain(peers).collect();
        all.sort_unstable();
        all
    }

    pub(super) fn kill(&mut self, now: Duration) {
        self.settle(now);
        if self.daemon.take().is_some() {
            self.show_life(now, self.settings.rules.hung_after)
                .expect("the rules are there as long as the daemon");
        }
    }

    /// Stands for the signs of life that workers give, until the last of them has run out.
    fn show_life(&mut self, now: Duration, lasts: Duration) -> Result<(), RulesetError> {
        let rules = &self.settings.rules;
        let shards = 0..rules.queues.shards().count();
        let marks = shards.filter_map(|shard| rules.answered_by(shard));
        let signs: Batch = marks
            .map(|mark| (Element::Alive(mark), Some(lasts)))
            .collect();
        self.rules.apply(now, &kernel_sets::commands(&signs))
    }

    pub(super) fn stop(&mut self, now: Duration) {
        self.settle(now);
        if let Some(ftwall) = self.statistics() {
            self.events += &events::line(
                instant(now),
                &Notice::Stats {
                    ftwall: Box::new(ftwall),
                },
            );
        }
        self.daemon = None;
        self.writing = None;
        self.rules = Ruleset::new();
    }

    pub(super) fn statistics(&self) -> Option<Statistics> {
        let daemon = self.daemon.as_ref()?;
        let mut statistics = Statistics {
            set_writes_failed: daemon.set_writes_failed,
            ..Statistics::default()
        };
        for engine in &daemon.engines {
            statistics += Statistics::from(engine.counters());
        }
        Some(statistics)
    }

    /// The daemon's answer; none if there is no daemon.
    fn ask(&mut self, now: Duration, number: u16, passage: &Passage<'_>) -> Option<Answer> {
        let rules = &self.settings.rules;
        let marks = rules.marks;
        let (shard, class) = rules.queues.of_queue(number)?;
        let queue = fan_out::settings(number, class, rules);
        let range = usize::from(queue.copy_range);
        let octets = passage.packet.octets();
        let daemon = self.daemon.as_mut()?;
        let ingress = Ingress {
            bytes: octets.get(..range).unwrap_or(octets),
            conntrack: Some(worker::question(marks, passage.mark)),
            link: None,
        };
        let engine = daemon.engines.get_mut(usize::from(shard))?;
        let verdict = engine.handle_packet(instant(now), ingress);
        self.drain(now);
        Some(worker::answer(marks, passage.mark, verdict))
    }

    /// Carries out and writes down what the engines have to say.
    fn drain(&mut self, now: Duration) {
        let Some(daemon) = &mut self.daemon else {
            return;
        };
        for shard in 0..daemon.engines.len() {
            while let Some(action) = daemon.engines[shard].poll_action() {
                daemon.tell_others(now, shard, &action);
                let blocked = kernel_sets::blocked(&self.settings.engine);
                let changes = kernel_sets::set_changes(&action, blocked);
                daemon.waiting.extend(changes);
                if let Action::Answer { from, to, payload } | Action::Probe { from, to, payload } =
                    action
                {
                    let packet = inject::datagram(from, to, &payload);
                    self.injected.extend(packet);
                }
            }
            while let Some(event) = daemon.engines[shard].poll_event() {
                self.events += &events::line(instant(now), &event);
            }
        }
        if self.writing.is_none() {
            self.begin_write(now);
        }
    }

    /// Writes what waits, if anything does.
    fn begin_write(&mut self, now: Duration) {
        let waiting = self
            .daemon
            .as_mut()
            .map(|daemon| std::mem::take(&mut daemon.waiting));
        if let Some(batch) = waiting.filter(|batch| !batch.is_empty()) {
            let done = now + self.draw_write();
            self.writing = Some(Writing { done, batch });
        }
    }

    /// Draws how long a write takes: half of them 40 us or less, one in ten a millisecond or more. Seeds
    /// thus meet a late one more often than gateways do, and a timely one often enough.
    fn draw_write(&mut self) -> Duration {
        let (least, most) = WRITE_US;
        let micros = least / (1.0 - self.rng.random::<f64>()).powi(2);
        Duration::from_micros(micros.min(most) as u64)
    }

    /// Lets writes arrive that are done by now.
    fn settle(&mut self, now: Duration) {
        while let Some(Writing { done, batch }) =
            self.writing.take_if(|writing| writing.done <= now)
        {
            let rules = &mut self.rules;
            let failures = kernel_sets::write(&batch, |part| {
                rules.apply(done, &kernel_sets::commands(part))
            });
            for failure in failures {
                let message = failure.to_string();
                let notice = Notice::KernelSetsFailed { message };
                self.events += &events::line(instant(done), &notice);
                if let Some(daemon) = &mut self.daemon {
                    daemon.set_writes_failed += 1;
                }
            }
            self.begin_write(done);
        }
    }
}

fn instant(now: Duration) -> Timestamp {
    Timestamp::after_origin(EPOCH + now)
}
