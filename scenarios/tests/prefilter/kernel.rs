//! The interpreter against the real kernel: the same rules, the same packets, the same counters.

use std::io;
use std::net::SocketAddrV4;
use std::time::{Duration, Instant};

use ftwall::gateway::backend::Backend;
use ftwall::gateway::kernel_sets::{self, Batch, Element};
use ftwall::gateway::nft_json;
use ftwall::gateway::rules::{self, Transport};
use lab::capsule::{self, in_capsule};
use lab::presets::{Office, office};
use lab::requirements::{self, Feature};
use lab::{Lab, Spec};
use proptest::strategy::{Strategy as _, ValueTree as _};
use proptest::test_runner::TestRunner;
use scenarios::stage::memory::gateway::{Gateway, Side};
use serde_json::Value;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use crate::generate::{HOSTS, PEERS, Sent, talk};

const NAME: &str = "kernel::the_kernel_counts_what_the_interpreter_counts";

const CONVERSATIONS: usize = 80;

/// A rule in front of all others, so that arrivals can be waited for.
const ARRIVED: &str = "arrived";

/// What the gateway's own packets meet; nobody forwards those.
const OUTPUT_CHAIN: &str = "signs";

/// How long a packet may take through the gateway.
const PATIENCE: Duration = Duration::from_secs(10);

#[test]
fn the_kernel_counts_what_the_interpreter_counts() {
    if !capsule::is_inside() {
        let found = requirements::probe();
        if let Err(missing) = found.check(&[Feature::Capsule, Feature::Nftables]) {
            requirements::skip_or_fail(NAME, &missing.to_string());
            return;
        }
    }
    in_capsule(NAME, compare);
}

fn compare() {
    let lab = build();
    let commands = commands();
    load(&lab, &commands);
    let mut model = Gateway::of_rules(&commands).expect("the interpreter knows the rules");
    let (inside, outside) = (sender(&lab, "client1"), sender(&lab, "out"));
    let mut runner = TestRunner::deterministic();
    let (mut arrived, mut last_from) = (0, Side::Inside);
    for number in 0..CONVERSATIONS {
        let talk = talk()
            .new_tree(&mut runner)
            .expect("nothing is filtered")
            .current();
        for sent in talk.packets(number) {
            // The two sides are two queues in the kernel: nobody overtakes.
            if sent.from != last_from {
                wait_for_arrivals(&lab, arrived);
                last_from = sent.from;
            }
            let socket = if sent.from == Side::Inside {
                &inside
            } else {
                &outside
            };
            send(socket, &sent).expect("the network is up");
            arrived += 1;
            let now = Duration::from_millis(arrived);
            model.forward(now, sent.from, &mut sent.bytes.clone());
        }
    }
    wait_for_arrivals(&lab, arrived);
    let model = model.ruleset().expect("it has rules");
    let expected: Vec<_> = model
        .counters()
        .map(|(chain, comment, packets)| format!("{chain}: {comment}: {packets}"))
        .collect();
    let counted: Vec<_> = counters(&lab)
        .into_iter()
        .map(|(chain, comment, packets)| format!("{chain}: {comment}: {packets}"))
        .collect();
    assert_eq!(sorted(counted), sorted(expected));
    println!("{arrived} packets counted alike");
}

fn sorted(mut lines: Vec<String>) -> Vec<String> {
    lines.sort_unstable();
    lines
}

/// An office whose ends hear nothing, so that nobody but the test answers.
fn build() -> Lab {
    let topology = office(&Office::default());
    let lab = topology
        .plan()
        .expect("it is a preset")
        .apply()
        .expect("the capsule is ours");
    const MUTE: &str = "add table inet mute; add chain inet mute input \
        { type filter hook input priority 0; policy drop; }";
    for node in ["client1", "client2", "out"] {
        run(&lab, node, &["nft", MUTE]);
    }
    // Generated segments may be anywhere in a window; what rules say of them is not about that.
    const LIBERAL: &str = "/proc/sys/net/netfilter/nf_conntrack_tcp_be_liberal";
    let written = lab.node("gw").enter(|| std::fs::write(LIBERAL, "1"));
    written
        .expect("the node is ours")
        .expect("conntrack is there");
    lab
}

/// ftwall's rules without a queue, every rule counted, one host locked, one peer known and
/// one address proven.
fn commands() -> Vec<Value> {
    let options = ["--inside", "10.77.0.0/16", "--strictness", "strict"];
    let settings = ftwall::cli::run_settings(&options).expect("documented options");
    let mut commands = rules::commands(&settings.rules, Backend::IptablesNft);
    let first_rule = commands
        .iter()
        .position(|command| chain_of(command) == "decide");
    let arrived = nft_json::add_rule("decide", ARRIVED, &[]);
    commands.insert(first_rule.expect("there are rules"), arrived);
    commands.iter_mut().for_each(count);
    let hour = Some(Duration::from_secs(3600));
    let peer = SocketAddrV4::new(PEERS[1], 1214);
    let batch = Batch::from([
        (Element::Locked(HOSTS[0]), hour),
        (Element::Peer(HOSTS[0], peer, Transport::Tcp), hour),
        (Element::Peer(HOSTS[0], peer, Transport::Udp), hour),
        (Element::Proven(PEERS[2]), hour),
    ]);
    commands.extend(kernel_sets::commands(&batch));
    commands
}

fn chain_of(command: &Value) -> &str {
    command["add"]["rule"]["chain"].as_str().unwrap_or_default()
}

/// Adds a counter behind the tests of a rule that has none.
fn count(command: &mut Value) {
    let Some(expressions) = command["add"]["rule"]["expr"].as_array().cloned() else {
        return;
    };
    if expressions
        .iter()
        .any(|expression| expression.get("counter").is_some())
    {
        return;
    }
    let is_test = |expression: &&Value| {
        let asks = ["match", "set"];
        asks.iter().any(|kind| expression.get(kind).is_some())
    };
    let tests = expressions.iter().take_while(is_test).count();
    let mut counted = expressions;
    counted.insert(tests, nft_json::counter());
    command["add"]["rule"]["expr"] = Value::Array(counted);
}

fn load(lab: &Lab, commands: &[Value]) {
    let file = capsule::private_dir().join("rules.json");
    let text = serde_json::json!({ "nftables": commands }).to_string();
    std::fs::write(&file, text).expect("the directory is ours");
    run(
        lab,
        "gw",
        &["nft", "-j", "-f", file.to_str().expect("it is ASCII")],
    );
}

fn run(lab: &Lab, node: &str, command: &[&str]) -> String {
    let spec = Spec::new(command[0]).args(&command[1..]);
    let output = lab.node(node).run(&spec).expect("it is installed");
    assert!(output.success(), "{command:?}: {}", output.stderr);
    output.stdout
}

/// Chain, comment and packets of every rule the kernel has for what it forwards.
fn counters(lab: &Lab) -> Vec<(String, String, u64)> {
    let listing = run(lab, "gw", &["nft", "-j", "list", "table", "inet", "ftwall"]);
    let listing: Value = serde_json::from_str(&listing).expect("nft writes JSON");
    let objects = listing["nftables"].as_array().expect("a list of objects");
    let rules = objects
        .iter()
        .filter_map(|object| object.get("rule"))
        .filter(|rule| rule["chain"] != OUTPUT_CHAIN);
    let counted = rules.map(|rule| {
        let text = |key: &str| rule[key].as_str().unwrap_or_default().to_owned();
        let expressions = rule["expr"].as_array().expect("a rule has expressions");
        let packets = expressions
            .iter()
            .find_map(|part| part["counter"]["packets"].as_u64());
        (
            text("chain"),
            text("comment"),
            packets.expect("every rule is counted"),
        )
    });
    counted.collect()
}

fn wait_for_arrivals(lab: &Lab, expected: u64) {
    let arrived = || {
        let counters = counters(lab).into_iter();
        let arrived = counters.filter(|(_, comment, _)| comment == ARRIVED);
        arrived.map(|(_, _, packets)| packets).sum::<u64>()
    };
    let deadline = now() + PATIENCE;
    while arrived() < expected {
        assert!(
            now() < deadline,
            "{} of {expected} packets arrived",
            arrived()
        );
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "a deadline in real time, for a real kernel"
)]
fn now() -> Instant {
    Instant::now()
}

/// A socket that sends whole IPv4 packets, whatever source they name.
fn sender(lab: &Lab, node: &str) -> Socket {
    const RAW: i32 = 255; // IPPROTO_RAW
    let open = || Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(RAW)));
    let opened = lab.node(node).enter(open).expect("the node is ours");
    opened.expect("the capsule has the privilege")
}

fn send(socket: &Socket, sent: &Sent) -> io::Result<usize> {
    let octets: [u8; 4] = sent.bytes[16..20].try_into().expect("four octets");
    let to = SockAddr::from(SocketAddrV4::new(octets.into(), 0));
    socket.send_to(&sent.bytes, &to)
}
