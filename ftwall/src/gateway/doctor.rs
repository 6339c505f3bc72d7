//! What this machine offers and what is missing: each feature is tried, none is guessed from a version,
//! and nothing tried is left behind.

use std::fmt::{self, Write as _};
use std::fs;

use serde::Serialize;
use serde_json::{Value, json};

use super::backend::Backend;
use super::confinement::{Lacking, Layer, confine};
use super::failure::{DEGRADED, NO_PRIVILEGE};
use super::inject::Injector;
use super::nft::{self, Listing};
use super::nft_json::{
    accept, add_expiring_set, add_forward_chain, add_rule, add_table, compare, ct, equals, meta,
    raw, set_bits,
};
use super::program::ProgramError;
use super::{inbound, queue, surroundings};

/// How one feature fares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// There.
    Ok,
    /// Not there, and not needed because something else does its work.
    Unneeded,
    /// Not there; ftwall works without it, less well.
    Degraded,
    /// Not there; ftwall does not work without it.
    Missing,
    /// Not to be found out, or not to be used, without a privilege.
    NoPrivilege,
}

impl State {
    fn label(self) -> &'static str {
        match self {
            State::Ok => "ok",
            State::Unneeded => "not needed",
            State::Degraded => "degraded",
            State::Missing => "missing",
            State::NoPrivilege => "no privilege",
        }
    }
}

/// One feature.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// Stable name.
    pub name: &'static str,
    /// How it fares.
    pub state: State,
    /// What was seen.
    pub detail: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remedy: Option<&'static str>,
}

/// The whole examination.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The mechanism `ftwall run` would queue with.
    pub backend: Option<Backend>,
    /// Every feature, in the order of a packet's way.
    pub checks: Vec<Check>,
}

impl Report {
    /// 0 if everything works, 77 if a privilege is missing, 4 if something else is.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        let has = |states: &[State]| {
            self.checks
                .iter()
                .any(|check| states.contains(&check.state))
        };
        if has(&[State::NoPrivilege]) {
            NO_PRIVILEGE
        } else if has(&[State::Missing, State::Degraded]) {
            DEGRADED
        } else {
            0
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Check {
            name,
            state,
            detail,
            remedy,
        } in &self.checks
        {
            writeln!(f, "{name:<18} {:<12} {detail}", state.label())?;
            if let Some(remedy) = remedy {
                writeln!(f, "{:31} -> {remedy}", "")?;
            }
        }
        match self.backend {
            Some(backend) => writeln!(f, "\nftwall run would queue with {backend}"),
            None => writeln!(
                f,
                "\nftwall run would not start: nothing here can queue packets"
            ),
        }
    }
}

/// Examines the network namespace this process is in.
#[must_use]
pub fn examine() -> Report {
    let listing = nft::list();
    let mut checks = vec![check_nft(listing.as_ref().err())];
    checks.extend(nft_features());
    let (backend, ladder) = climb();
    checks.extend(ladder);
    checks.push(check_queue());
    checks.push(check_raw_socket());
    checks.push(check_buffer());
    checks.push(check_forwarding());
    checks.push(check_accounting());
    checks.push(check_confinement(&lacking()));
    let listing = listing.unwrap_or_default();
    checks.push(check_inbound(&listing));
    checks.push(check_flow_tables(&listing));
    Report { backend, checks }
}

fn good(name: &'static str, detail: impl Into<String>) -> Check {
    Check {
        name,
        state: State::Ok,
        detail: detail.into(),
        remedy: None,
    }
}

fn bad(name: &'static str, state: State, detail: impl Into<String>, remedy: &'static str) -> Check {
    Check {
        name,
        state,
        detail: detail.into(),
        remedy: Some(remedy),
    }
}

const AS_ROOT: &str = "run as root, or with CAP_NET_ADMIN and CAP_NET_RAW";

/// `state` if the kernel lacks something, or that the privilege to find out is missing.
fn refused(name: &'static str, state: State, error: &ProgramError, remedy: &'static str) -> Check {
    if error.is_privilege() {
        bad(name, State::NoPrivilege, error.to_string(), AS_ROOT)
    } else {
        bad(name, state, error.to_string(), remedy)
    }
}

fn check_nft(error: Option<&ProgramError>) -> Check {
    let remedy = "install the package nftables and a kernel with nf_tables";
    match error {
        None => good("nft", "speaks JSON and lists the rules"),
        Some(error) => refused("nft", State::Missing, error, remedy),
    }
}

/// Parts of the rules that older kernels or tools lack, each in a transaction that is only checked.
fn nft_features() -> [Check; 3] {
    let mark = ct("mark");
    let expiring = [
        add_table(),
        add_expiring_set("probe", &json!("ipv4_addr"), 1),
    ];
    let conntrack = in_chain(&[set_bits(&mark, 1)]);
    let payload = in_chain(&[
        equals(&meta("l4proto"), "tcp"),
        compare(">=", &raw("ih", 0, 8), 0),
        accept(),
    ]);
    [
        feature(
            "expiring sets",
            State::Missing,
            &expiring,
            "a kernel with nf_tables sets is needed",
        ),
        feature(
            "connection marks",
            State::Missing,
            &conntrack,
            "a kernel with nft_ct and nf_conntrack marks is needed",
        ),
        feature(
            "payload test",
            State::Degraded,
            &payload,
            "Linux 5.16 and nft 1.0.1 find payload exactly; until then bare acknowledgements and TLS are queued too",
        ),
    ]
}

fn in_chain(expressions: &[Value]) -> [Value; 3] {
    [
        add_table(),
        add_forward_chain("probe", 0),
        add_rule("probe", "probe", expressions),
    ]
}

fn feature(name: &'static str, state: State, commands: &[Value], remedy: &'static str) -> Check {
    match nft::check(commands) {
        Ok(()) => good(name, "the kernel takes them"),
        Err(error) => refused(name, state, &error, remedy),
    }
}

/// Tries the mechanisms until one works. The rest is left untried: trying iptables-legacy would load
/// its tables into a machine that does not use them.
fn climb() -> (Option<Backend>, Vec<Check>) {
    let mut chosen = None;
    let mut checks = Vec::new();
    for backend in Backend::LADDER {
        let name = rung(backend);
        if let Some(better) = chosen {
            checks.push(Check {
                name,
                state: State::Unneeded,
                detail: format!("not tried, {better} works"),
                remedy: None,
            });
            continue;
        }
        match backend.probe() {
            Ok(()) => {
                chosen = Some(backend);
                checks.push(good(name, "queues"));
            }
            Err(error) => checks.push(refused(name, State::Unneeded, &error, rung_remedy(backend))),
        }
    }
    if chosen.is_none() {
        forbid(&mut checks);
    }
    (chosen, checks)
}

/// With no rung that holds, every broken one counts.
fn forbid(checks: &mut [Check]) {
    for check in checks
        .iter_mut()
        .filter(|check| check.state == State::Unneeded)
    {
        check.state = State::Missing;
    }
}

fn rung(backend: Backend) -> &'static str {
    match backend {
        Backend::Nft => "nft queue",
        Backend::IptablesNft => "iptables-nft",
        Backend::IptablesLegacy => "iptables-legacy",
    }
}

fn rung_remedy(backend: Backend) -> &'static str {
    match backend {
        Backend::Nft => "a kernel with nft_queue (CONFIG_NFT_QUEUE) queues without iptables",
        Backend::IptablesNft => "the package iptables and a kernel with xt_NFQUEUE",
        Backend::IptablesLegacy => "iptables-legacy and a kernel with ip_tables and xt_NFQUEUE",
    }
}

fn check_queue() -> Check {
    match queue::probe() {
        Ok(()) => good("packet queue", "can be bound"),
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => bad(
            "packet queue",
            State::NoPrivilege,
            error.to_string(),
            AS_ROOT,
        ),
        Err(error) => bad(
            "packet queue",
            State::Missing,
            error.to_string(),
            "a kernel with nfnetlink_queue is needed",
        ),
    }
}

fn check_raw_socket() -> Check {
    match Injector::open() {
        Ok(_) => good("raw socket", "pings can be answered"),
        Err(error) => bad(
            "raw socket",
            State::NoPrivilege,
            error.to_string(),
            "give CAP_NET_RAW, or use --reply none --no-reprobe",
        ),
    }
}

/// What the queue's socket gets without privilege over the whole machine, in octets.
const ENOUGH_BUFFER: u64 = 4 << 20;

fn check_buffer() -> Check {
    let name = "receive buffer";
    match number("/proc/sys/net/core/rmem_max") {
        Some(limit) if limit < ENOUGH_BUFFER => bad(
            name,
            State::Degraded,
            format!("limited to {limit} octets, bursts may be lost unless ftwall runs as root"),
            "set net.core.rmem_max=4194304",
        ),
        Some(limit) => good(name, format!("up to {limit} octets")),
        None => good(name, "the limit cannot be read here"),
    }
}

fn check_forwarding() -> Check {
    if surroundings::forwards() {
        good("forwarding", "IPv4 packets are forwarded")
    } else {
        bad(
            "forwarding",
            State::Degraded,
            "this machine does not forward IPv4 packets, so there is nothing to filter",
            "set net.ipv4.ip_forward=1",
        )
    }
}

fn check_accounting() -> Check {
    let detail = match number("/proc/sys/net/netfilter/nf_conntrack_acct") {
        Some(0) => "off, which ftwall does not mind",
        Some(_) => "on",
        None => "cannot be read here, which ftwall does not mind",
    };
    good("conntrack counters", detail)
}

/// What does not hold a thread that is to be confined, tried on one that does nothing else.
fn lacking() -> Vec<Lacking> {
    std::thread::scope(|scope| {
        let tried = scope.spawn(confine).join();
        tried.expect("what cannot be had is said and not a panic")
    })
}

fn check_confinement(lacking: &[Lacking]) -> Check {
    let name = "confined threads";
    if lacking.is_empty() {
        return good(name, "whoever reads packets reaches nothing else");
    }
    let is_doubled = |lacking: &Lacking| lacking.layer == Layer::Landlock;
    let state = if lacking.iter().all(is_doubled) {
        // The filter of system calls refuses the same.
        State::Unneeded
    } else {
        State::Degraded
    };
    let detail: Vec<String> = lacking.iter().map(Lacking::to_string).collect();
    let remedy = "a kernel with CONFIG_SECCOMP_FILTER and CONFIG_SECURITY_LANDLOCK; on processors without a filter, the unit";
    bad(name, state, detail.join("; "), remedy)
}

fn check_inbound(listing: &Listing) -> Check {
    match inbound::find(listing) {
        Some(guard) => good("inbound block", guard.to_string()),
        None => bad(
            "inbound block",
            State::Degraded,
            inbound::OPEN,
            "ftwall run --block-inbound",
        ),
    }
}

fn check_flow_tables(listing: &Listing) -> Check {
    if listing.objects("flowtable").next().is_none() {
        return good("flow tables", "none, all packets can be seen");
    }
    bad(
        "flow tables",
        State::Degraded,
        "packets that take a flow table are never seen by ftwall",
        "remove the flow table, or add flows to it only after their first packets",
    )
}

fn number(path: &str) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// The report for people or for programs.
#[must_use]
pub fn render(report: &Report, as_json: bool) -> String {
    let mut text = String::new();
    let written = if as_json {
        let json = serde_json::to_string(report).expect("a report holds only names and words");
        writeln!(text, "{json}")
    } else {
        write!(text, "{report}")
    };
    written.expect("a string takes everything");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(states: &[State]) -> Report {
        let checks = states
            .iter()
            .map(|state| Check {
                name: "feature",
                state: *state,
                detail: "seen".into(),
                remedy: None,
            })
            .collect();
        Report {
            backend: Some(Backend::IptablesNft),
            checks,
        }
    }

    #[test]
    fn the_exit_code_tells_healthy_degraded_and_unprivileged_apart() {
        assert_eq!(report(&[State::Ok, State::Unneeded]).exit_code(), 0);
        assert_eq!(report(&[State::Ok, State::Degraded]).exit_code(), 4);
        assert_eq!(report(&[State::Missing]).exit_code(), 4);
        assert_eq!(
            report(&[State::Missing, State::NoPrivilege]).exit_code(),
            77
        );
    }

    #[test]
    fn a_flow_table_that_leads_packets_past_is_a_fault_with_a_remedy() {
        let table = r#"{"table": {"family": "inet", "name": "fw4"}}"#;
        let flow_table = r#"{"flowtable": {"family": "inet", "name": "ft", "table": "fw4",
            "handle": 4, "hook": "ingress", "prio": 0, "dev": ["lan0", "wan0"]}}"#;
        let check = |listed: &str| {
            let listing = Listing::parse(format!(r#"{{"nftables": [{listed}]}}"#).as_bytes());
            check_flow_tables(&listing)
        };
        assert_eq!(check(table).state, State::Ok);
        let found = check(&format!("{table}, {flow_table}"));
        assert_eq!(found.state, State::Degraded);
        assert!(found.remedy.is_some_and(|it| it.contains("remove")));
        let report = Report {
            backend: Some(Backend::Nft),
            checks: vec![found],
        };
        assert_eq!(report.exit_code(), 4);
        let shown = render(&report, false);
        assert!(
            shown.starts_with("flow tables        degraded     packets that take a flow table"),
            "{shown}"
        );
    }

    #[test]
    fn a_thread_without_landlock_is_confined_by_its_filter_and_without_a_filter_by_less() {
        let lacking = |layer| Lacking {
            layer,
            reason: "this kernel has none".to_owned(),
        };
        assert_eq!(check_confinement(&[]).state, State::Ok);
        let without_landlock = check_confinement(&[lacking(Layer::Landlock)]);
        assert_eq!(without_landlock.state, State::Unneeded);
        assert_eq!(without_landlock.detail, "Landlock: this kernel has none");
        let without_both = [lacking(Layer::Landlock), lacking(Layer::Seccomp)];
        assert_eq!(check_confinement(&without_both).state, State::Degraded);
    }

    #[test]
    fn a_report_in_json_keeps_names_and_states() {
        let json = render(&report(&[State::Degraded]), true);
        let value: Value = serde_json::from_str(&json).expect("it is JSON");
        assert_eq!(value["backend"], "iptables-nft");
        assert_eq!(value["checks"][0]["state"], "degraded");
    }

    #[test]
    fn a_report_for_people_ends_with_what_would_be_used() {
        let text = render(&report(&[State::Ok]), false);
        assert!(
            text.ends_with("ftwall run would queue with iptables-nft\n"),
            "{text}"
        );
    }
}
