//! The event log: one JSON object per line, in the outer shape of Suricata's EVE log.
//!
//! The engine's events get their timestamp here and the daemon's own are added. How often a client that
//! is being dropped is reported is the engine's affair.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, BufWriter, Write};
use std::ops::AddAssign;
use std::path::PathBuf;
use std::str::FromStr;

use serde::Serialize;
use tracing::warn;

use super::event_file::{EventFile, Rotation};
use super::privacy::{Privacy, Pseudonyms};
use crate::gateway::fan_out::QueueClass;
use crate::gateway::latency::Latency;
use crate::gateway::queue::Losses;
use crate::{Counters, Event, Timestamp};

/// Where events go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EventTarget {
    /// Standard output, written `-`.
    Stdout,
    /// The end of this file.
    File(PathBuf),
}

impl FromStr for EventTarget {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<EventTarget, Self::Err> {
        Ok(match text {
            "-" => EventTarget::Stdout,
            path => EventTarget::File(path.into()),
        })
    }
}

impl fmt::Display for EventTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            EventTarget::Stdout => f.write_str("standard output"),
            EventTarget::File(path) => path.display().fmt(f),
        }
    }
}

/// Where events go and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventOutput {
    /// Where they go.
    pub target: EventTarget,
    /// When a file of them has grown enough.
    pub rotation: Rotation,
    /// How inside addresses are written.
    pub privacy: Privacy,
}

impl From<EventTarget> for EventOutput {
    /// Everything as it is, for as long as there is room.
    fn from(target: EventTarget) -> EventOutput {
        EventOutput {
            target,
            rotation: Rotation::NEVER,
            privacy: Privacy::Full,
        }
    }
}

/// A queue that is live.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct ReadyQueue {
    /// Its number.
    pub number: u16,
    /// The worker that reads it, counted from 0.
    pub worker: u16,
    /// What it is for.
    pub class: QueueClass,
    /// Octets its socket's buffer holds, as the kernel counts them.
    pub receive_buffer: usize,
}

/// What the daemon itself has to report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "event_type")]
pub enum Notice {
    /// Queue and rules are live.
    #[serde(rename = "ready")]
    Ready {
        /// The mechanism that queues.
        backend: &'static str,
        /// The number of the first queue.
        queue: u16,
        /// Who reads the queues.
        reader: &'static str,
        /// All queues.
        queues: Vec<ReadyQueue>,
    },
    /// Hosts outside can open connections to hosts inside, as far as can be seen.
    #[serde(rename = "inbound.open")]
    InboundOpen {
        /// What was looked at and what to do.
        message: String,
    },
    /// The kernel refused to take locked hosts or learned peers; the daemon still knows them.
    #[serde(rename = "kernel_sets.failed")]
    KernelSetsFailed {
        /// What the kernel said.
        message: String,
    },
    /// What was kept over a restart is known again.
    #[serde(rename = "state.restored")]
    StateRestored {
        /// Locked hosts.
        clients: usize,
        /// Peers of clients.
        peers: usize,
    },
    /// The file with what was kept over a restart cannot be used, or not as a whole.
    #[serde(rename = "state.set_aside")]
    StateSetAside {
        /// What is wrong with it, and where it is now.
        message: String,
    },
    /// What should be kept over a restart cannot be written.
    #[serde(rename = "state.unwritable")]
    StateUnwritable {
        /// Where, and why not.
        message: String,
    },
    /// Another program was to take the place of this one, and cannot; the daemon goes on.
    #[serde(rename = "succession.refused")]
    SuccessionRefused {
        /// Why not.
        message: String,
    },
    /// Somebody else has taken rules away.
    #[serde(rename = "rules.missing")]
    RulesMissing {
        /// What is missing, the first of it.
        faults: Vec<String>,
        /// How long whoever did it is given way to; 0 unless it happens again and again.
        waits_seconds: u64,
    },
    /// The rules are in place again, with what was learned.
    #[serde(rename = "rules.restored")]
    RulesRestored {
        /// How often that was done so far.
        restored: u64,
    },
    /// What was counted, once at the end.
    #[serde(rename = "stats")]
    Stats {
        /// The numbers.
        ftwall: Box<Statistics>,
    },
}

/// What a daemon has counted from its start.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Statistics {
    /// Packets that came through the queue.
    pub packets: u64,
    /// Those whose headers do not hold together.
    pub malformed: u64,
    /// Packets by `action/reason`.
    pub verdicts: BTreeMap<String, u64>,
    /// Evidence by name.
    pub evidence: BTreeMap<&'static str, u64>,
    /// Errors of the queue's socket, by kind.
    pub queue_errors: BTreeMap<String, u64>,
    /// Packets the kernel dropped because nobody took them in time.
    pub queue_losses: Losses,
    /// Answers and probes the network did not take.
    pub injections_failed: u64,
    /// Changes of the kernel's sets that were lost because too many waited.
    pub set_changes_lost: u64,
    /// What one worker found out and another was too busy to hear.
    pub hearsay_lost: u64,
    /// Writes of several changes at once that the kernel refused.
    pub set_writes_failed: u64,
    /// How often rules were put back that somebody had taken away.
    pub rules_restored: u64,
    /// Events that could not be written.
    pub events_lost: u64,
    /// What became of events that another program is told.
    pub webhook: Delivered,
    /// Locks of inside hosts, renewals not counted.
    pub clients_locked: u64,
    /// Pairs of client and peer that became known.
    pub peers_learned: u64,
    /// How long packets waited for their verdicts.
    #[serde(skip)]
    pub latency: Latency,
}

/// What became of events that another program is told, in their number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Delivered {
    /// The receiver has taken them.
    pub sent: u64,
    /// It did not, however often it was asked.
    pub failed: u64,
    /// Too many waited.
    pub dropped: u64,
}

impl From<Counters> for Statistics {
    /// What the engine has counted; nothing of what only the shell can count.
    fn from(counters: Counters) -> Statistics {
        let verdicts = counters
            .verdicts
            .iter()
            .map(|(verdict, count)| (format!("{}/{}", verdict.action(), verdict.reason()), *count));
        Statistics {
            packets: counters.packets,
            malformed: counters.malformed,
            verdicts: verdicts.collect(),
            evidence: counters.evidence,
            ..Statistics::default()
        }
    }
}

impl AddAssign for Statistics {
    /// Adds what another part of the daemon has counted.
    fn add_assign(&mut self, other: Statistics) {
        self.packets += other.packets;
        self.malformed += other.malformed;
        add_each(&mut self.verdicts, other.verdicts);
        add_each(&mut self.evidence, other.evidence);
        add_each(&mut self.queue_errors, other.queue_errors);
        self.queue_losses += other.queue_losses;
        self.injections_failed += other.injections_failed;
        self.set_changes_lost += other.set_changes_lost;
        self.hearsay_lost += other.hearsay_lost;
        self.set_writes_failed += other.set_writes_failed;
        self.rules_restored += other.rules_restored;
        self.events_lost += other.events_lost;
        self.webhook.sent += other.webhook.sent;
        self.webhook.failed += other.webhook.failed;
        self.webhook.dropped += other.webhook.dropped;
        self.clients_locked += other.clients_locked;
        self.peers_learned += other.peers_learned;
        self.latency += other.latency;
    }
}

fn add_each<K: Ord>(sums: &mut BTreeMap<K, u64>, counts: BTreeMap<K, u64>) {
    for (name, count) in counts {
        *sums.entry(name).or_default() += count;
    }
}

/// Writes events to their target.
pub struct EventWriter {
    out: Out,
    pseudonyms: Pseudonyms,
    lost: u64,
}

enum Out {
    Stream(BufWriter<Box<dyn Write + Send>>),
    File(EventFile),
}

impl EventWriter {
    /// Opens the target.
    ///
    /// # Errors
    /// When a file cannot be opened for appending.
    pub fn open(output: &EventOutput) -> io::Result<EventWriter> {
        let out = match &output.target {
            EventTarget::Stdout => Out::Stream(BufWriter::new(Box::new(io::stdout()))),
            EventTarget::File(path) => Out::File(EventFile::open(path, output.rotation)?),
        };
        Ok(EventWriter {
            out,
            pseudonyms: Pseudonyms::new(output.privacy),
            lost: 0,
        })
    }

    /// A writer to `out`, of everything as it is.
    pub fn to(out: impl Write + Send + 'static) -> EventWriter {
        EventWriter {
            out: Out::Stream(BufWriter::new(Box::new(out))),
            pseudonyms: Pseudonyms::new(Privacy::Full),
            lost: 0,
        }
    }

    /// Reports what the engine reports, and returns the line. What an operator names is written as it was
    /// named.
    pub fn event(&mut self, now: Timestamp, event: &Event) -> String {
        let mut line = line(now, event);
        if let Some(client) = event.ftwall.client {
            self.pseudonyms.hide(now, client, &mut line);
        }
        self.write(now, &line);
        line
    }

    /// Reports what the daemon has to say.
    pub fn notice(&mut self, now: Timestamp, notice: &Notice) {
        self.write(now, &line(now, notice));
    }

    /// Goes on in the file that has the target's name now. What is written to a stream goes on there.
    pub fn reopen(&mut self) {
        if let Out::File(file) = &mut self.out
            && let Err(error) = file.reopen()
        {
            warn!(%error, "the file of events cannot be opened anew: the old one stays in use");
        }
    }

    /// Removes events that are too old, as far as they are in files of ours.
    pub fn expire(&mut self, now: Timestamp) {
        if let Out::File(file) = &mut self.out {
            file.expire(now);
        }
    }

    /// Hands everything written so far to readers.
    pub fn flush(&mut self) {
        let flushed = match &mut self.out {
            Out::Stream(stream) => stream.flush(),
            Out::File(file) => file.flush(),
        };
        self.note_loss(flushed);
    }

    /// Events that could not be written.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.lost
    }

    fn write(&mut self, now: Timestamp, line: &str) {
        let written = match &mut self.out {
            Out::Stream(stream) => stream.write_all(line.as_bytes()),
            Out::File(file) => file.append(now, line.as_bytes()),
        };
        self.note_loss(written);
    }

    /// A full disk must not end the protection of a network: said once, then counted.
    fn note_loss(&mut self, result: io::Result<()>) {
        if let Err(error) = result {
            if self.lost == 0 {
                warn!(%error, "events cannot be written any more");
            }
            self.lost += 1;
        }
    }
}

/// An [`Event`] or a [`Notice`] as it stands in the log, with the end of its line.
#[must_use]
pub fn line(now: Timestamp, content: &impl Serialize) -> String {
    #[derive(Serialize)]
    struct Line<'a, T> {
        timestamp: String,
        #[serde(flatten)]
        content: &'a T,
    }
    let line = Line {
        timestamp: now.rfc3339().to_string(),
        content,
    };
    let mut text = serde_json::to_string(&line).expect("events hold only names and numbers");
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::sync::{Arc, Mutex};

    use serde_json::Value;

    use super::*;
    use crate::{Details, EventType, PacketEnds, VerdictDetails};

    const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 77, 1, 1);

    /// A target that a test can read afterwards.
    #[derive(Clone, Default)]
    struct Page(Arc<Mutex<Vec<u8>>>);

    impl Write for Page {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0
                .lock()
                .expect("nobody panicked")
                .extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Page {
        fn lines(&self) -> Vec<Value> {
            let bytes = self.0.lock().expect("nobody panicked");
            let lines = bytes
                .split(|byte| *byte == b'\n')
                .filter(|line| !line.is_empty());
            lines
                .map(|line| serde_json::from_slice(line).expect("one object per line"))
                .collect()
        }
    }

    fn drop_of(client: Ipv4Addr) -> Event {
        let packet = PacketEnds::new(
            "UDP",
            "10.77.1.1:2301".parse().expect("a literal"),
            "198.18.0.1:1214".parse().expect("a literal"),
        );
        let verdict = VerdictDetails {
            action: "drop",
            reason: "ping",
        };
        Event {
            event_type: EventType::PacketDrop,
            packet: Some(packet),
            ftwall: Details {
                client: Some(client),
                verdict: Some(verdict),
                ..Details::default()
            },
        }
    }

    #[test]
    fn an_event_has_the_outer_shape_of_eve() {
        let page = Page::default();
        let mut writer = EventWriter::to(page.clone());
        writer.event(Timestamp::from_secs(1_057_363_199), &drop_of(CLIENT));
        writer.flush();
        let lines = page.lines();
        assert_eq!(lines.len(), 1);
        assert_eq!(lines[0]["timestamp"], "2003-07-04T23:59:59.000000Z");
        assert_eq!(lines[0]["event_type"], "packet.drop");
        assert_eq!(lines[0]["dest_port"], 1214);
        assert_eq!(lines[0]["ftwall"]["verdict"]["reason"], "ping");
    }

    #[test]
    fn an_inside_address_is_written_as_it_may_be_and_an_outside_one_as_it_is() {
        let page = Page::default();
        let mut writer = EventWriter::to(page.clone());
        writer.pseudonyms = Pseudonyms::new(Privacy::Truncate);
        writer.event(Timestamp::ORIGIN, &drop_of(CLIENT));
        writer.flush();
        let line = &page.lines()[0];
        assert_eq!(line["src_ip"], "10.77.1.0");
        assert_eq!(line["ftwall"]["client"], "10.77.1.0");
        assert_eq!(line["dest_ip"], "198.18.0.1");
    }

    #[test]
    fn the_ready_line_names_back_end_reader_and_queues() {
        let page = Page::default();
        let mut writer = EventWriter::to(page.clone());
        writer.notice(
            Timestamp::ORIGIN,
            &Notice::Ready {
                backend: "iptables-nft",
                queue: 7,
                reader: "netlink",
                queues: vec![ReadyQueue {
                    number: 7,
                    worker: 0,
                    class: QueueClass::Signalling,
                    receive_buffer: 212_992,
                }],
            },
        );
        writer.flush();
        let line = &page.lines()[0];
        assert_eq!(line["event_type"], "ready");
        assert_eq!(
            (&line["backend"], &line["queue"]),
            (&"iptables-nft".into(), &7.into())
        );
        assert_eq!(line["reader"], "netlink");
        let queue = &line["queues"][0];
        assert_eq!(queue["class"], "signalling");
        assert_eq!(queue["receive_buffer"], 212_992);
    }

    #[test]
    fn a_target_that_fails_is_counted_and_survived() {
        struct Full;
        impl Write for Full {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::StorageFull.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let mut writer = EventWriter::to(Full);
        writer.event(Timestamp::ORIGIN, &drop_of(CLIENT));
        writer.flush();
        assert_eq!(writer.lost(), 1);
    }
}
