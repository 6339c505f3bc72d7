//! Text that rules are made of or compared with: options, policy files, nft's listings.
//!
//! Claims: what is read can be written and read back the same; an error points inside its text; any
//! settings that can be typed become commands of one verb each, in well-formed JSON, whose networks do
//! not overlap; a listing of any shape is searched to its end.

use std::path::Path;
use std::time::Duration;

use ipnet::Ipv4Net;
use serde_json::Value;

use super::Target;
use super::input::{self, Input};
use crate::EngineConfig;
use crate::control::config_file::{ConfigError, Layer};
use crate::control::values::{parse_duration, parse_net, parse_never_block};
use crate::gateway::backend::Backend;
use crate::gateway::fan_out::{FanOut, Shards};
use crate::gateway::inbound;
use crate::gateway::marks::MarkField;
use crate::gateway::nft::Listing;
use crate::gateway::queue::WhenOverloaded;
use crate::gateway::rules::{self, InboundBlock, OpenPort, PayloadTest, RuleSettings, WhenDown};
use crate::protocol::{HARMLESS_SHAPES, PROTOCOLS};

/// One octet that says what the rest is.
pub(super) const TARGET: Target = Target {
    name: "rules_text",
    check,
    seeds,
};

fn check(octets: &[u8]) {
    let mut input = Input::new(octets);
    match input.octet().map(|kind| kind % 4) {
        Some(0) => check_listing(input.rest()),
        Some(1) => check_policy(&String::from_utf8_lossy(input.rest())),
        Some(2) => check_values(&String::from_utf8_lossy(input.rest())),
        _ => check_rules(&mut input),
    }
}

/// What `nft -j list ruleset` may say.
fn check_listing(octets: &[u8]) {
    let listing = Listing::parse(octets);
    let chains = listing.objects("chain").count();
    let guard = inbound::find(&listing);
    assert!(guard.is_none() || chains > 0, "{guard:?}");
    for chain in listing.objects("chain") {
        assert!(listing.rules(chain).count() <= listing.objects("rule").count());
    }
    let is_ours = |table: &Value| table["family"] == "inet" && table["name"] == "ftwall";
    assert_eq!(listing.has_ftwall(), listing.objects("table").any(is_ours));
}

/// A policy file.
fn check_policy(text: &str) {
    match Layer::parse(Path::new("p.toml"), text) {
        Ok(policy) => {
            let once = policy.apply(EngineConfig::default());
            assert_eq!(
                policy.apply(once.clone()),
                once,
                "a file says everything at once"
            );
        }
        Err(ConfigError::Text {
            line,
            column,
            message,
            ..
        }) => {
            assert!(
                (1..=1 + text.matches('\n').count()).contains(&line),
                "line {line}"
            );
            let longest = text
                .split('\n')
                .nth(line - 1)
                .map_or(0, |line| line.chars().count());
            assert!(
                (1..=1 + longest).contains(&column),
                "column {column} of {longest}"
            );
            assert!(!message.is_empty());
        }
        Err(error @ (ConfigError::Read { .. } | ConfigError::Contradiction { .. })) => {
            panic!("one text was read, alone: {error}")
        }
    }
}

/// A value of an option.
fn check_values(text: &str) {
    if let Ok(port) = text.parse::<OpenPort>() {
        assert_eq!(port.to_string().parse(), Ok(port));
        assert_ne!(port.port, 0);
    }
    if let Ok(net) = parse_net(text) {
        assert_eq!(parse_net(&net.to_string()), Ok(net));
        assert_eq!(net, net.trunc());
    }
    if let Ok(never) = parse_never_block(text) {
        assert_eq!(never.net, never.net.trunc());
    }
    if let Ok(duration) = parse_duration(text) {
        let written = humantime::format_duration(duration).to_string();
        assert_eq!(parse_duration(&written), Ok(duration), "{written}");
    }
    if let Ok(bit) = text.parse() {
        let fits = MarkField::new(bit).is_ok_and(|marks| marks.mask().count_ones() == 6);
        assert_eq!(fits, bit <= 26);
    }
}

/// Rules of settings that can be typed.
fn check_rules(input: &mut Input<'_>) {
    let Some((settings, backend)) = read_settings(input).zip(input.octet()) else {
        return;
    };
    let backend = Backend::LADDER[usize::from(backend) % Backend::LADDER.len()];
    let commands = rules::commands(&settings, backend);
    commands.iter().for_each(check_command);
    check_print(&rules::print(&settings, backend), &commands);
}

fn read_settings(input: &mut Input<'_>) -> Option<RuleSettings> {
    let choices = input.octet()?;
    let is = |bit: u8| choices >> bit & 1 == 1;
    Some(RuleSettings {
        queues: FanOut::new(input.word()?, Shards::default()).ok()?,
        marks: MarkField::new(input.octet()? % 27).ok()?,
        when_down: if is(0) {
            WhenDown::Drop
        } else {
            WhenDown::Pass
        },
        hung_after: Duration::from_secs(u64::from(is(5))),
        when_overloaded: if is(4) {
            WhenOverloaded::Pass
        } else {
            WhenOverloaded::Drop
        },
        strict: is(1),
        inbound: is(2).then(|| InboundBlock {
            open: read_ports(input),
        }),
        payload_test: if is(3) {
            PayloadTest::Length
        } else {
            PayloadTest::InnerHeader
        },
        inside: read_nets(input),
        exempt: read_nets(input),
        shapes: PROTOCOLS
            .iter()
            .flat_map(|protocol| protocol.udp_shapes)
            .cloned()
            .collect(),
        harmless: HARMLESS_SHAPES,
    })
}

fn read_ports(input: &mut Input<'_>) -> Vec<OpenPort> {
    let count = input.octet().unwrap_or(0) % 8;
    let read = |_| {
        let (transport, port) = (
            ["tcp", "udp"][usize::from(input.octet()? & 1)],
            input.word()?,
        );
        format!("{transport}/{port}").parse().ok()
    };
    (0..count).filter_map(read).collect()
}

fn read_nets(input: &mut Input<'_>) -> Vec<Ipv4Net> {
    let count = input.octet().unwrap_or(0) % 16;
    let read = |_| {
        let [a, b, c, d, len] = *input.octets(5) else {
            return None;
        };
        Ipv4Net::new([a, b, c, d].into(), len % 33)
            .ok()
            .map(|net| net.trunc())
    };
    (0..count).filter_map(read).collect()
}

fn check_command(command: &Value) {
    let verbs = command.as_object().expect("a command is an object");
    assert_eq!(verbs.len(), 1, "{command}");
    // Of the sets that are filled from the beginning, this one alone holds no networks.
    if let Some(added) = command.pointer("/add/element")
        && added["name"] != rules::ALIVE
    {
        check_elements(added["elem"].as_array().expect("a list of elements"));
    }
}

/// The kernel refuses intervals that overlap.
fn check_elements(elements: &[Value]) {
    let net = |element: &Value| {
        let prefix = element.get("prefix")?;
        format!("{}/{}", prefix["addr"].as_str()?, prefix["len"])
            .parse::<Ipv4Net>()
            .ok()
    };
    let nets: Vec<_> = elements
        .iter()
        .map(|element| net(element).expect("a network"))
        .collect();
    for (index, net) in nets.iter().enumerate() {
        let overlaps = |other: &Ipv4Net| other.contains(net) || net.contains(other);
        assert!(
            !nets[..index].iter().any(overlaps),
            "{net} twice in {nets:?}"
        );
    }
}

/// What is shown is what is applied.
fn check_print(text: &str, commands: &[Value]) {
    let (_, nft) = text
        .split_once("# nft -j -f -\n")
        .expect("nft's input comes first");
    let shown = nft.split("\n\n#").next().unwrap_or_default();
    let shown: Value = serde_json::from_str(shown).expect("nft's input is JSON");
    assert_eq!(
        shown["nftables"].as_array().map(Vec::as_slice),
        Some(commands)
    );
}

fn seeds() -> Vec<Vec<u8>> {
    let text = |kind: u8, text: &str| [&[kind], text.as_bytes()].concat();
    let listing = r#"{"nftables": [{"metainfo": {"version": "1.0.6"}},
        {"table": {"family": "inet", "name": "ftwall"}},
        {"chain": {"family": "ip", "table": "filter", "name": "FORWARD", "hook": "forward", "policy": "drop"}},
        {"chain": {"family": "ip", "table": "filter", "name": "forward", "hook": "forward", "policy": "accept"}},
        {"chain": {"family": "ip", "table": "filter", "name": "wan"}},
        {"rule": {"family": "ip", "table": "filter", "chain": "forward", "expr": [{"jump": {"target": "wan"}}]}},
        {"rule": {"family": "ip", "table": "filter", "chain": "wan", "expr": [{"reject": null}]}},
        {"rule": {"family": "ip", "table": "nat", "chain": "post", "expr": [{"xt": {"name": "MASQUERADE"}}]}}]}"#;
    let policy = "inside = [\"10.77.0.0/16\"]\nexempt = [\"10.77.9.9\"]\nlock_time = \"5m\"\n\
        strictness = \"strict\"\nlocked_dials = \"watch\"\nreply = \"pong2\"\nreprobe = false\n\
        block_udp = false\nnever_block = [\"198.51.100.7:1214\"]\nnew_peers_per_minute = 7\n\
        peer_expiry = 90\n[[policy]]\nname = \"x\"\nmatch = { subnet = \"10.77.2.0/24\" }\n\
        schedule = { zone = \"UTC\", windows = [{ days = [\"fri\"], from = \"22:00\", to = \"06:00\" }] }\n";
    let nets = [2, 10, 0, 0, 0, 8, 10, 77, 0, 0, 16];
    let ports = [2, 0, 1, 187, 1, 19, 196];
    let settings =
        |choices: u8, ports: &[u8]| [&[3, choices, 0, 7, 24], ports, &nets, &[0, choices]].concat();
    let values = [
        "tcp/443",
        "udp/5060",
        "10.77.0.0/16",
        "2001:db8::/32",
        "192.0.2.7:1214",
        "2h 5m",
        "26",
    ];
    let mut seeds = vec![
        text(0, listing),
        text(1, policy),
        text(1, "locktime = 5"),
        settings(0, &[]),
        settings(0x0f, &ports),
        input::field(b"x"),
    ];
    seeds.extend(values.map(|value| text(2, value)));
    seeds
}
