//! Numbers as Prometheus reads them. No address ever is a label: there may be a million of them.

use std::fmt::{self, Write as _};

use super::overview::Overview;
use crate::config::Mode;
use crate::control::events::Delivered;
use crate::gateway::latency::BOUNDS_US;

/// What kind of number a metric is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It only grows until the daemon ends.
    Counter,
    /// It goes up and down.
    Gauge,
    /// How often something was at most so much.
    Histogram,
}

/// A family of numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metric {
    /// Its name, with the unit and what counters end in.
    pub name: &'static str,
    /// Its kind.
    pub kind: Kind,
    /// What it says, in a sentence.
    pub help: &'static str,
}

/// How numbers are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Prometheus' own text format, version 0.0.4.
    Text,
    /// OpenMetrics 1.0.0: families of counters are named without `_total`, and the end is marked.
    OpenMetrics,
}

impl Format {
    /// The media type.
    #[must_use]
    pub const fn media_type(self) -> &'static str {
        match self {
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// Declares every family once: a name to use here, and what readers are told.
macro_rules! metrics {
    ($($constant:ident: $kind:ident $name:literal, $help:literal;)+) => {
        $(const $constant: Metric = Metric { name: $name, kind: Kind::$kind, help: $help };)+

        /// Every family, in the order in which they are written.
        pub const METRICS: &[Metric] = &[$($constant),+];
    };
}

metrics! {
    BUILD_INFO: Gauge "ftwall_build_info", "What runs here; always 1.";
    UPTIME: Gauge "ftwall_uptime_seconds", "For how long the daemon has run.";
    PACKETS: Counter "ftwall_packets_total", "Packets that came through the queues, by verdict and its reason.";
    MALFORMED: Counter "ftwall_malformed_packets_total", "Packets whose headers do not hold together.";
    VERDICT_DURATION: Histogram "ftwall_verdict_duration_seconds",
        "From taking a batch of packets out of a queue to having answered it, counted once for each packet.";
    QUEUE_LENGTH: Gauge "ftwall_queue_length", "Packets that wait for a verdict.";
    QUEUE_KERNEL_DROPPED: Counter "ftwall_queue_kernel_dropped_total", "Packets that found the queue full.";
    QUEUE_USER_DROPPED: Counter "ftwall_queue_user_dropped_total", "Packets that found the socket's buffer full.";
    QUEUE_ERRORS: Counter "ftwall_queue_errors_total", "Errors of the queues' sockets, by kind.";
    CLIENTS: Gauge "ftwall_clients", "Inside hosts by state.";
    PEERS: Gauge "ftwall_peers", "Pairs of client and peer that are known, by where the knowledge comes from.";
    PEERS_LEARNED: Counter "ftwall_peers_learned_total", "Pairs of client and peer that became known.";
    CLIENTS_LOCKED: Counter "ftwall_clients_locked_total", "Locks of inside hosts, renewals not counted.";
    DETECTIONS: Counter "ftwall_detections_total", "Evidence found, by signature.";
    RULES_PRESENT: Gauge "ftwall_rules_present", "Whether the rules that feed the queues are in place.";
    RULES_RESTORED: Counter "ftwall_rules_restored_total",
        "How often rules were put back that somebody had taken away.";
    MODE: Gauge "ftwall_mode", "What is done about hosts of which no policy speaks; 1 for the mode in force.";
    RELOAD_SUCCESSFUL: Gauge "ftwall_config_last_reload_successful",
        "Whether the last reading of the configuration succeeded.";
    RELOAD_TIME: Gauge "ftwall_config_last_reload_success_timestamp_seconds",
        "When the configuration in force was read.";
    WEBHOOK: Counter "ftwall_webhook_events_total", "Events that another program was to be told, by what became of them.";
    EVENTS_LOST: Counter "ftwall_events_lost_total", "Events that could not be written.";
    SET_CHANGES_LOST: Counter "ftwall_kernel_set_changes_lost_total",
        "Changes of the kernel's sets that were lost because too many waited.";
    SET_WRITES_FAILED: Counter "ftwall_kernel_set_writes_failed_total",
        "Writes of the kernel's sets that were refused.";
    INJECTIONS_FAILED: Counter "ftwall_injections_failed_total",
        "Answers and probes that the network did not take.";
    STATE_WRITABLE: Gauge "ftwall_state_writable", "Whether what has to survive a restart can be written.";
    STATE_FACTS: Gauge "ftwall_state_facts", "Facts that would survive a restart.";
    STATE_LOST: Counter "ftwall_state_changes_lost_total",
        "Changes that would not survive a restart because too many waited.";
}

/// All numbers, as text.
#[must_use]
pub fn exposition(overview: &Overview, format: Format) -> String {
    let mut text = Exposition {
        text: String::new(),
        format,
    };
    text.product(overview);
    text.packets(overview);
    text.queues(overview);
    text.suspects(overview);
    text.operation(overview);
    text.state(overview);
    if format == Format::OpenMetrics {
        text.text.push_str("# EOF\n");
    }
    text.text
}

struct Exposition {
    text: String,
    format: Format,
}

impl Exposition {
    fn product(&mut self, overview: &Overview) {
        let version = env!("CARGO_PKG_VERSION");
        self.family(BUILD_INFO);
        self.sample(BUILD_INFO, &[("version", version)], 1);
        self.family(UPTIME);
        self.sample(UPTIME, &[], overview.uptime.as_secs_f64());
    }

    fn packets(&mut self, overview: &Overview) {
        let counted = &overview.counted;
        self.family(PACKETS);
        for (verdict, count) in &counted.verdicts {
            let (verdict, reason) = verdict.split_once('/').unwrap_or((verdict, "none"));
            self.sample(PACKETS, &[("verdict", verdict), ("reason", reason)], count);
        }
        self.family(MALFORMED);
        self.sample(MALFORMED, &[], counted.malformed);
        self.latency(overview);
    }

    fn latency(&mut self, overview: &Overview) {
        let latency = &overview.counted.latency;
        let Metric { name, .. } = VERDICT_DURATION;
        self.family(VERDICT_DURATION);
        let mut within = 0;
        let bounds = BOUNDS_US.map(|bound| (bound as f64 / 1e6).to_string());
        let bounds = bounds.iter().map(String::as_str).chain(["+Inf"]);
        for (bound, count) in bounds.zip(latency.steps) {
            within += count;
            self.line(&format!("{name}_bucket"), &[("le", bound)], within);
        }
        self.line(&format!("{name}_sum"), &[], latency.total.as_secs_f64());
        self.line(&format!("{name}_count"), &[], latency.count());
    }

    fn queues(&mut self, overview: &Overview) {
        for metric in [QUEUE_LENGTH, QUEUE_KERNEL_DROPPED, QUEUE_USER_DROPPED] {
            self.family(metric);
            for queue in &overview.queues {
                let number = queue.number.to_string();
                let labels = [("queue", number.as_str()), ("class", queue.class.name())];
                // Where the kernel does not say, nothing is said.
                let Some(waiting) = queue.waiting else {
                    continue;
                };
                match metric {
                    QUEUE_LENGTH => self.sample(metric, &labels, waiting),
                    QUEUE_KERNEL_DROPPED => self.sample(metric, &labels, queue.losses.queue_full),
                    _ => self.sample(metric, &labels, queue.losses.buffer_full),
                }
            }
        }
        self.family(QUEUE_ERRORS);
        for (kind, count) in &overview.counted.queue_errors {
            self.sample(QUEUE_ERRORS, &[("kind", kind)], count);
        }
    }

    fn suspects(&mut self, overview: &Overview) {
        let counted = &overview.counted;
        self.family(CLIENTS);
        self.sample(CLIENTS, &[("state", "locked")], overview.clients);
        self.family(PEERS);
        self.sample(PEERS, &[("origin", "local")], overview.peers);
        self.family(PEERS_LEARNED);
        self.sample(PEERS_LEARNED, &[("origin", "local")], counted.peers_learned);
        self.family(CLIENTS_LOCKED);
        self.sample(CLIENTS_LOCKED, &[], counted.clients_locked);
        self.family(DETECTIONS);
        for (signature, count) in &counted.evidence {
            self.sample(DETECTIONS, &[("signature", signature)], count);
        }
    }

    fn operation(&mut self, overview: &Overview) {
        let counted = &overview.counted;
        self.family(RULES_PRESENT);
        if let Some(present) = overview.rules_present {
            let table = [("table", "inet ftwall")];
            self.sample(RULES_PRESENT, &table, u8::from(present));
        }
        self.family(RULES_RESTORED);
        self.sample(RULES_RESTORED, &[], counted.rules_restored);
        self.family(MODE);
        for mode in [Mode::Enforce, Mode::Monitor, Mode::Off] {
            let is_it = u8::from(overview.mode == mode);
            self.sample(MODE, &[("mode", mode.name())], is_it);
        }
        let (successful, read_at) = overview.reload;
        self.family(RELOAD_SUCCESSFUL);
        self.sample(RELOAD_SUCCESSFUL, &[], u8::from(successful));
        self.family(RELOAD_TIME);
        self.sample(RELOAD_TIME, &[], read_at.since_origin().as_secs_f64());
        self.family(WEBHOOK);
        let Delivered {
            sent,
            failed,
            dropped,
        } = counted.webhook;
        for (outcome, count) in [("sent", sent), ("failed", failed), ("dropped", dropped)] {
            self.sample(WEBHOOK, &[("outcome", outcome)], count);
        }
        for (metric, count) in [
            (EVENTS_LOST, counted.events_lost),
            (SET_CHANGES_LOST, counted.set_changes_lost),
            (SET_WRITES_FAILED, counted.set_writes_failed),
            (INJECTIONS_FAILED, counted.injections_failed),
        ] {
            self.family(metric);
            self.sample(metric, &[], count);
        }
    }

    /// Where nothing is kept, nothing is said.
    fn state(&mut self, overview: &Overview) {
        let health = overview.state.as_ref();
        for metric in [STATE_WRITABLE, STATE_FACTS, STATE_LOST] {
            self.family(metric);
            let Some(health) = health else {
                continue;
            };
            match metric {
                STATE_WRITABLE => self.sample(metric, &[], u8::from(health.failure.is_none())),
                STATE_FACTS => self.sample(metric, &[], health.facts),
                _ => self.sample(metric, &[], health.lost),
            }
        }
    }

    fn family(&mut self, metric: Metric) {
        let name = match self.format {
            Format::Text => metric.name,
            Format::OpenMetrics => metric.name.trim_end_matches("_total"),
        };
        let kind = match metric.kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        let help = metric.help;
        let _ = writeln!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn sample(&mut self, metric: Metric, labels: &[(&str, &str)], value: impl fmt::Display) {
        self.line(metric.name, labels, value);
    }

    fn line(&mut self, name: &str, labels: &[(&str, &str)], value: impl fmt::Display) {
        self.text.push_str(name);
        for (index, (label, text)) in labels.iter().enumerate() {
            let opening = if index == 0 { '{' } else { ',' };
            // Label values are names of our own; only a queue's errors come from elsewhere.
            let text = text.replace(['\\', '"', '\n'], " ");
            let _ = write!(self.text, "{opening}{label}=\"{text}\"");
        }
        let closing = if labels.is_empty() { "" } else { "}" };
        let _ = writeln!(self.text, "{closing} {value}");
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use super::super::overview::QueueState;
    use super::*;
    use crate::Timestamp;
    use crate::control::events::Statistics;
    use crate::gateway::fan_out::QueueClass;
    use crate::gateway::latency::Latency;
    use crate::gateway::queue::Losses;
    use crate::state::Health;

    /// Of everything something.
    pub(in super::super) fn overview() -> Overview {
        let mut latency = Latency::default();
        latency.record(Duration::from_micros(20), 3);
        latency.record(Duration::from_secs(1), 1);
        let verdicts = [("drop/ping".to_owned(), 12), ("clear/http".to_owned(), 7)];
        Overview {
            now: Timestamp::from_secs(1_790_000_100),
            uptime: Duration::from_secs(100),
            counted: Statistics {
                packets: 19,
                verdicts: verdicts.into(),
                evidence: [("udp_ping", 12)].into(),
                queue_errors: BTreeMap::from([("odd \"name\"".to_owned(), 1)]),
                latency,
                peers_learned: 200,
                clients_locked: 1,
                ..Statistics::default()
            },
            clients: 1,
            peers: 200,
            queues: vec![QueueState {
                number: 0,
                class: QueueClass::Signalling,
                waiting: Some(5),
                losses: Losses {
                    queue_full: 2,
                    buffer_full: 3,
                },
            }],
            rules_present: Some(true),
            mode: Mode::Enforce,
            reload: (true, Timestamp::from_secs(1_790_000_000)),
            state: Some(Health {
                facts: 201,
                ..Health::default()
            }),
        }
    }

    #[test]
    fn every_family_that_is_declared_is_written_once_and_in_order() {
        let text = exposition(&overview(), Format::Text);
        let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
        let names: Vec<_> = types.filter_map(|line| line.split(' ').next()).collect();
        let declared: Vec<_> = METRICS.iter().map(|metric| metric.name).collect();
        assert_eq!(names, declared);
        for metric in METRICS {
            let is_total = metric.name.ends_with("_total");
            assert_eq!(is_total, metric.kind == Kind::Counter, "{}", metric.name);
            let samples = text.lines().filter(|line| line.starts_with(metric.name));
            assert!(samples.count() > 0, "no {}", metric.name);
        }
    }

    #[test]
    fn numbers_are_written_as_their_readers_expect() {
        let text = exposition(&overview(), Format::Text);
        for line in [
            r#"ftwall_packets_total{verdict="drop",reason="ping"} 12"#,
            r#"ftwall_queue_length{queue="0",class="signalling"} 5"#,
            r#"ftwall_queue_kernel_dropped_total{queue="0",class="signalling"} 2"#,
            r#"ftwall_queue_user_dropped_total{queue="0",class="signalling"} 3"#,
            r#"ftwall_queue_errors_total{kind="odd  name "} 1"#,
            r#"ftwall_verdict_duration_seconds_bucket{le="0.00001"} 0"#,
            r#"ftwall_verdict_duration_seconds_bucket{le="0.000025"} 3"#,
            r#"ftwall_verdict_duration_seconds_bucket{le="+Inf"} 4"#,
            "ftwall_verdict_duration_seconds_sum 1.00006",
            "ftwall_verdict_duration_seconds_count 4",
            r#"ftwall_mode{mode="monitor"} 0"#,
            "ftwall_config_last_reload_success_timestamp_seconds 1790000000",
        ] {
            assert!(
                text.lines().any(|written| written == line),
                "no {line} in {text}"
            );
        }
    }

    #[test]
    fn open_metrics_names_families_of_counters_without_their_ending() {
        let text = exposition(&overview(), Format::OpenMetrics);
        assert!(
            text.contains("# TYPE ftwall_packets counter\nftwall_packets_total{"),
            "{text}"
        );
        assert!(text.ends_with("\n# EOF\n"));
    }

    #[test]
    fn what_nobody_can_tell_is_left_out() {
        let mut overview = overview();
        overview.rules_present = None;
        overview.state = None;
        overview.queues[0].waiting = None;
        let text = exposition(&overview, Format::Text);
        let samples: Vec<_> = text.lines().filter(|line| !line.starts_with('#')).collect();
        for name in [
            "ftwall_rules_present",
            "ftwall_state",
            "ftwall_queue_length",
        ] {
            assert!(!samples.iter().any(|line| line.starts_with(name)), "{name}");
        }
    }
}
