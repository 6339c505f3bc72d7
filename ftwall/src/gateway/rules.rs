//! What the kernel is told to do with forwarded packets: a pure description, rendered as nft JSON.
//!
//! ```text
//!  forward hook            priority
//!  decide  (nft)             -160   pass, drop, or put question bits on the packet
//!  queue   (nft) or          -150   hand marked packets to the daemon: native `queue` statement,
//!  FTWALL  (mangle, xt)             or NFQUEUE where nft has none
//!  keep    (nft)             -140   move the daemon's answer into the connection, wipe the packet's bits
//!  filter  (administrator)      0   never skipped
//! ```
//!
//! Everything the kernel can decide alone is decided in `decide`; what is left to the daemon is always
//! more than its recognisers accept. Rules change by emptying and filling the chains in one
//! transaction: the sets keep what was learned, and no base chain is deleted while packets wait.

mod decide;
mod harmless;
mod shapes;

use std::fmt::{self, Write as _};
use std::net::Ipv4Addr;
use std::str::FromStr;
use std::time::Duration;

use ipnet::Ipv4Net;
use serde_json::{Value, json};
use thiserror::Error;

use super::backend::Backend;
use super::fan_out::{FanOut, QueueClass};
use super::marks::{MarkBit, MarkField};
use super::nft_json::{
    accept, add_chain, add_elements, add_expiring_set, add_forward_chain, add_network_set,
    add_output_chain, add_rule, add_table, address, clear_bits, compare, counter, ct, drop, equals,
    expiring, field, flush_chain, flush_set, flush_table, goto, has_bits, in_set, is_over, is_syn,
    masked, meta, prefix, queue, set_bits, update_set,
};
use super::queue::WhenOverloaded;
use super::xt;
use crate::protocol::{HarmlessShape, UdpShape};

/// Set of hosts that are locked.
pub const LOCKED: &str = "locked";
/// Set of learned peers, each for one inside host: client . peer . protocol . port.
pub const PEERS: &str = "peers";

/// Set of outside addresses that have proven to be something else than peers.
pub const PROVEN: &str = "proven";

/// Set of the questions that are being answered, each as it stands in a packet's mark; see
/// [`RuleSettings::answered_by`].
pub const ALIVE: &str = "alive";

const INSIDE: &str = "inside";
const EXEMPT: &str = "exempt";
const DECIDE: &str = "decide";
const INBOUND: &str = "inbound";
/// Set of inside hosts that are asking the daemon something, and how often they did of late.
const BUDGETS: &str = "budgets";
/// Sets that rules change from packets.
pub(super) const CHANGED_BY_RULES: [&str; 2] = [ALIVE, BUDGETS];
const SUSPECT: &str = "suspect";
const ENQUEUE: &str = "enqueue";
const QUEUE: &str = "queue";
const KEEP: &str = "keep";
const FLOODED: &str = "flooded";
const SIGNS: &str = "signs";

/// Before `mangle` (-150), where the xt queue statement has to live.
const DECIDE_PRIORITY: i32 = -160;
const QUEUE_PRIORITY: i32 = -150;
const KEEP_PRIORITY: i32 = -140;

/// Room in the sets: as many hosts as the engine holds, and over UDP and TCP half a million peers. The
/// kernel takes memory as elements come, so this only bounds an attack.
const LOCKED_SIZE: u32 = 1 << 17;
const PEERS_SIZE: u32 = 1 << 20;
/// As many as the engine holds; for others the daemon is asked.
const PROVEN_SIZE: u32 = 1 << 16;
/// As many as there can be workers.
const ALIVE_SIZE: u32 = 8;

/// As many as the hosts of an inside network of sixteen bits.
const BUDGETS_SIZE: u32 = 1 << 16;
/// Packets a second, and at once, that the daemon is asked about for one inside host: a sixth of what it can
/// answer, and less than a queue has room for, so that a host that floods does not speak for the others. One
/// that opens connections as fast as web servers can answer them, a proxy for many, asks half as often.
const BUDGET: [u32; 2] = [25_000, 2_000];
/// The kernel forgets a host that asks nothing for so long.
const BUDGET_LASTS: Duration = Duration::from_secs(10);

/// Where signs of life are addressed to on this machine: the port of RFC 863, which throws away what comes.
pub const SIGN_PORT: u16 = 9;
/// How long the kernel waits for the first sign of a worker that is about to start, or of its successor.
pub const STARTING_FOR: Duration = Duration::from_secs(10);

/// What happens to packets for the queue while no daemon listens, or one that hangs, except those of
/// locked hosts and those of FastTrack's own shape, which are always dropped then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhenDown {
    /// They are dropped: nothing undecided passes.
    Drop,
    /// They pass: the web goes on without protection.
    Pass,
}

/// How the kernel finds TCP packets that carry payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PayloadTest {
    /// Look at the first octet behind the TCP header (Linux 5.16, nft 1.0.1): exact.
    InnerHeader,
    /// Look at the length of the packet: queues acknowledgements with options as well.
    Length,
}

/// Connections from outside are dropped unless they go to one of these ports.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InboundBlock {
    /// Ports of inside hosts that stay reachable.
    pub open: Vec<OpenPort>,
}

/// A transport protocol that has ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Transport {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl Transport {
    /// Its name as nft writes it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Transport::Tcp => "tcp",
            Transport::Udp => "udp",
        }
    }
}

/// A port written as `tcp/443` or `udp/5060`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenPort {
    /// Protocol the port belongs to.
    pub transport: Transport,
    /// Its number, 1 to 65535.
    pub port: u16,
}

/// A port that was not written as `tcp/443`.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("\"{0}\" is not a port: write the protocol and the number, as in tcp/443 or udp/5060")]
pub struct OpenPortError(String);

impl FromStr for OpenPort {
    type Err = OpenPortError;

    fn from_str(text: &str) -> Result<OpenPort, OpenPortError> {
        let error = || OpenPortError(text.to_owned());
        let (transport, port) = text.split_once('/').ok_or_else(error)?;
        let transport = match transport {
            "tcp" => Transport::Tcp,
            "udp" => Transport::Udp,
            _ => return Err(error()),
        };
        match port.parse() {
            Ok(port) if port > 0 => Ok(OpenPort { transport, port }),
            _ => Err(error()),
        }
    }
}

impl fmt::Display for OpenPort {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.transport.name(), self.port)
    }
}

/// Everything the rules depend on.
#[derive(Clone, Debug)]
pub struct RuleSettings {
    /// Networks of inside hosts.
    pub inside: Vec<Ipv4Net>,
    /// Networks whose packets are never looked at.
    pub exempt: Vec<Ipv4Net>,
    /// The queues.
    pub queues: FanOut,
    /// Bits of the marks that ftwall uses.
    pub marks: MarkField,
    /// What to do without a daemon.
    pub when_down: WhenDown,
    /// How long a worker may give no sign of life before `when_down` holds, in whole seconds; for ever if zero.
    pub hung_after: Duration,
    /// What to do with packets that find a queue full, or that are too many of one host.
    pub when_overloaded: WhenOverloaded,
    /// Queue all UDP of locked hosts.
    pub strict: bool,
    /// Block connections from outside.
    pub inbound: Option<InboundBlock>,
    /// How payload is found.
    pub payload_test: PayloadTest,
    /// UDP datagrams that the daemon has to see.
    pub shapes: Vec<UdpShape>,
    /// First segments that clear their connections.
    pub harmless: &'static [HarmlessShape],
}

impl RuleSettings {
    /// The mark of the packets that wait for the worker of this shard, less the bits that say nothing of
    /// the queue; none if nobody minds how long they wait.
    #[must_use]
    pub fn answered_by(&self, shard: u16) -> Option<u32> {
        let asked = self.marks.bit(MarkBit::Payload) | self.marks.shard(shard);
        self.watches_workers().then_some(asked)
    }

    /// Whether this end of a packet, an address, is an inside host, or with `!=` is none. Every packet is asked
    /// this twice or more; to compare with one network costs a third of a look into a set of them.
    fn is_inside(&self, op: &str, end: &Value) -> Value {
        match Ipv4Net::aggregate(&self.inside)[..] {
            [only] if only.prefix_len() > 0 => compare(op, end, prefix(only)),
            _ => in_set(op, end, INSIDE),
        }
    }

    /// Whether the kernel is told that workers come round. Not only where `when_down` heeds it: a reload may
    /// change that, and workers begin when the daemon does.
    const fn watches_workers(&self) -> bool {
        !self.hung_after.is_zero()
    }
}

/// The commands that put the rules in place, or replace what is there, in one transaction.
pub fn commands(settings: &RuleSettings, backend: Backend) -> Vec<Value> {
    let mut commands = vec![add_table(), flush_table()];
    commands.extend(sets(settings));
    commands.extend(chains(settings, backend));
    commands.extend(decide::rules(settings));
    commands.extend(inbound_rules(settings));
    commands.extend(enqueue_rules(settings));
    commands.extend(queue_rules(settings, backend));
    commands.extend(keep_rules(settings.marks));
    if settings.watches_workers() {
        commands.push(sign_rule(settings));
    }
    commands
}

/// The commands that make rules in place drop what they would queue.
pub fn hold_commands() -> [Value; 2] {
    [
        flush_chain(ENQUEUE),
        add_rule(ENQUEUE, "a daemon is starting", &[counter(), drop()]),
    ]
}

/// What `ftwall rules print` shows: each input under the command line that takes it.
pub fn print(settings: &RuleSettings, backend: Backend) -> String {
    let mut text = String::from("# nft -j -f -\n{\"nftables\": [\n");
    let commands = commands(settings, backend);
    for (index, command) in commands.iter().enumerate() {
        let comma = if index + 1 < commands.len() { "," } else { "" };
        let _ = writeln!(text, "{command}{comma}");
    }
    text.push_str("]}\n");
    if let Some(tools) = backend.xt() {
        let input = xt::installation(&dispatches(settings), true);
        let _ = write!(text, "\n# {} --noflush\n{input}", tools.restore());
    }
    text
}

fn sets(settings: &RuleSettings) -> Vec<Value> {
    let peer = json!(["ipv4_addr", "ipv4_addr", "inet_proto", "inet_service"]);
    let mut commands = vec![
        add_expiring_set(LOCKED, &json!("ipv4_addr"), LOCKED_SIZE),
        add_expiring_set(PEERS, &peer, PEERS_SIZE),
        add_expiring_set(PROVEN, &json!("ipv4_addr"), PROVEN_SIZE),
        // A daemon that starts has not seen the proofs itself.
        flush_set(PROVEN),
        add_expiring_set(ALIVE, &json!("mark"), ALIVE_SIZE),
        flush_set(ALIVE),
        add_expiring_set(BUDGETS, &json!("ipv4_addr"), BUDGETS_SIZE),
    ];
    let shards = 0..settings.queues.shards().count();
    let alive: Vec<Value> = shards
        .filter_map(|shard| settings.answered_by(shard))
        .map(|mark| expiring(&json!(mark), STARTING_FOR.max(settings.hung_after)))
        .collect();
    if !alive.is_empty() {
        commands.push(add_elements(ALIVE, &alive));
    }
    commands.extend(network_set(INSIDE, &settings.inside));
    commands.extend(network_set(EXEMPT, &settings.exempt));
    commands
}

/// A set that holds exactly `nets`, whatever it held before.
fn network_set(name: &str, nets: &[Ipv4Net]) -> Vec<Value> {
    let mut commands = vec![add_network_set(name), flush_set(name)];
    // Aggregated, because the kernel refuses elements that overlap.
    let elements: Vec<Value> = Ipv4Net::aggregate(&nets.to_vec())
        .into_iter()
        .map(prefix)
        .collect();
    if !elements.is_empty() {
        commands.push(add_elements(name, &elements));
    }
    commands
}

fn chains(settings: &RuleSettings, backend: Backend) -> Vec<Value> {
    let mut commands = vec![
        add_chain(ENQUEUE),
        add_chain(SUSPECT),
        add_chain(FLOODED),
        add_forward_chain(DECIDE, DECIDE_PRIORITY),
        add_forward_chain(KEEP, KEEP_PRIORITY),
    ];
    if settings.watches_workers() {
        commands.push(add_output_chain(SIGNS, DECIDE_PRIORITY));
    }
    commands.extend(decide::CHAINS.map(add_chain));
    if settings.inbound.is_some() {
        commands.push(add_chain(INBOUND));
    }
    if backend == Backend::Nft {
        commands.push(add_forward_chain(QUEUE, QUEUE_PRIORITY));
    }
    commands
}

fn inbound_rules(settings: &RuleSettings) -> Vec<Value> {
    let Some(block) = &settings.inbound else {
        return Vec::new();
    };
    let leave = json!({ "return": null });
    let mut rules: Vec<Value> = block
        .open
        .iter()
        .map(|open| {
            let port = equals(&field(open.transport.name(), "dport"), open.port);
            add_rule(INBOUND, "open port", &[port, leave.clone()])
        })
        .collect();
    // A TCP packet without SYN that conntrack calls new belongs to a connection older than conntrack.
    rules.push(add_rule(
        INBOUND,
        "TCP from outside",
        &[is_syn(), counter(), drop()],
    ));
    rules.push(add_rule(
        INBOUND,
        "anything else from outside",
        &[compare("!=", &meta("l4proto"), "tcp"), counter(), drop()],
    ));
    rules
}

/// Puts the question bits on a packet; the queue statement looks at some of them.
fn enqueue_rules(settings: &RuleSettings) -> Vec<Value> {
    let marks = settings.marks;
    let mark = meta("mark");
    let ask = |bit| set_bits(&mark, marks.bit(bit));
    let mut rules = vec![
        add_rule(
            SUSPECT,
            "whoever sends it",
            &[ask(MarkBit::Suspect), goto(ENQUEUE)],
        ),
        add_rule(
            ENQUEUE,
            "from a locked host",
            &[in_set("==", &source(), LOCKED), ask(MarkBit::Suspect)],
        ),
        add_rule(
            ENQUEUE,
            "to a locked host",
            &[in_set("==", &destination(), LOCKED), ask(MarkBit::Suspect)],
        ),
        add_rule(
            ENQUEUE,
            "against the initiator",
            &[equals(&ct("direction"), "reply"), ask(MarkBit::Reply)],
        ),
        add_rule(
            ENQUEUE,
            "seen from its first SYN",
            &[
                has_bits(&ct("mark"), marks.bit(MarkBit::FromStart)),
                ask(MarkBit::FromStart),
            ],
        ),
    ];
    rules.extend(shard_rules(settings));
    rules.extend(budget_rules(settings));
    if settings.when_down == WhenDown::Pass && settings.watches_workers() {
        rules.push(unanswered_rule(marks));
    }
    rules
}

/// Takes the signs of life that workers give; see [`super::sign_of_life`]. A packet that renews an element
/// changes nothing for others: a program that did it would, four times a second, make everybody begin anew
/// who lists a large ruleset.
fn sign_rule(settings: &RuleSettings) -> Value {
    let mark = meta("mark");
    let shards = 0..settings.queues.shards().count();
    let marks: Vec<Value> = shards
        .filter_map(|shard| settings.answered_by(shard))
        .map(|mark| json!(mark))
        .collect();
    add_rule(
        SIGNS,
        "a worker comes round",
        &[
            equals(&field("ip", "daddr"), address(Ipv4Addr::LOCALHOST)),
            equals(&field("udp", "dport"), SIGN_PORT),
            compare("==", &mark, json!({ "set": marks })),
            counter(),
            update_set(ALIVE, &mark, settings.hung_after),
            drop(),
        ],
    )
}

/// Keeps one inside host from filling a queue that others wait in. A host that the set has no room for is
/// not held to anything.
fn budget_rules(settings: &RuleSettings) -> Vec<Value> {
    let marks = settings.marks;
    let is_over = |host: &Value| is_over(BUDGETS, host, BUDGET, BUDGET_LASTS);
    let mut rules = vec![
        add_rule(
            ENQUEUE,
            "too much from a host",
            &[
                settings.is_inside("==", &source()),
                is_over(&source()),
                goto(FLOODED),
            ],
        ),
        add_rule(
            ENQUEUE,
            "too much for a host",
            &[
                settings.is_inside("!=", &source()),
                is_over(&destination()),
                goto(FLOODED),
            ],
        ),
    ];
    let refuse = [counter(), drop()];
    if settings.when_overloaded == WhenOverloaded::Drop {
        rules.push(add_rule(FLOODED, "no queue has room", &refuse));
        return rules;
    }
    let is_suspect = has_bits(&meta("mark"), marks.bit(MarkBit::Suspect));
    let [counted, dropped] = refuse;
    rules.push(add_rule(
        FLOODED,
        "no queue has room for a suspect",
        &[is_suspect, counted, dropped],
    ));
    rules.push(add_rule(FLOODED, "no queue has room", &pass_unseen(marks)));
    rules
}

/// Whoever sees the connection next sees its middle.
fn pass_unseen(marks: MarkField) -> [Value; 4] {
    [
        counter(),
        clear_bits(&ct("mark"), marks.bit(MarkBit::FromStart)),
        clear_bits(&meta("mark"), marks.mask()),
        accept(),
    ]
}

/// Lets pass what waits for a worker that hangs: the kernel itself only knows whether a queue has a
/// listener. Suspects wait.
fn unanswered_rule(marks: MarkField) -> Value {
    let mark = meta("mark");
    let is_suspect = masked(&mark, marks.bit(MarkBit::Suspect));
    let tests = [
        equals(&is_suspect, 0),
        in_set("!=", &masked(&mark, marks.address()), ALIVE),
    ];
    let rule = [&tests[..], &pass_unseen(marks)].concat();
    add_rule(ENQUEUE, "nobody answers", &rule)
}

/// Writes the low bits of the inside host's address into the mark, one by one: together they are the
/// number of its shard. Of the two ends of a packet that comes here one is inside.
fn shard_rules(settings: &RuleSettings) -> Vec<Value> {
    let (mark, marks) = (meta("mark"), settings.marks);
    let bits = (0..settings.queues.shards().bits()).map(|bit| 1_u16 << bit);
    bits.flat_map(|bit| {
        let of_address = address(Ipv4Addr::from_bits(bit.into()));
        [source(), destination()].map(|end| {
            let has_bit = equals(&json!({ "&": [end, of_address] }), of_address.clone());
            let is_host = settings.is_inside("==", &end);
            let shard = set_bits(&mark, marks.shard(bit));
            add_rule(ENQUEUE, "shard of the host", &[is_host, has_bit, shard])
        })
    })
    .collect()
}

/// Which packets go to which queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Dispatch {
    pub(super) what: &'static str,
    /// Bits of the packet's mark that are looked at, and what they are.
    pub(super) mask: u32,
    pub(super) value: u32,
    pub(super) queue: u16,
    /// Pass while nobody listens.
    pub(super) bypass: bool,
}

/// Where the packets of each queue go, whoever puts them there. What a queue has no room for passes or is
/// dropped whosever it is, so where it may pass suspects go to the queue of which nothing does.
pub(super) fn dispatches(settings: &RuleSettings) -> Vec<Dispatch> {
    let marks = settings.marks;
    let may_pass = settings.when_down == WhenDown::Pass;
    let (payload, suspect) = (marks.bit(MarkBit::Payload), marks.bit(MarkBit::Suspect));
    let of_suspects = match settings.when_overloaded {
        WhenOverloaded::Drop => QueueClass::Payload,
        WhenOverloaded::Pass => QueueClass::Signalling,
    };
    let of_shard = |shard| {
        [
            ("signalling", suspect, QueueClass::Signalling, false),
            ("suspects", payload | suspect, of_suspects, false),
            ("others", payload, QueueClass::Payload, may_pass),
        ]
        .map(|(what, asked, class, bypass)| Dispatch {
            what,
            mask: marks.address(),
            value: asked | marks.shard(shard),
            queue: settings.queues.queue(shard, class),
            bypass,
        })
    };
    (0..settings.queues.shards().count())
        .flat_map(of_shard)
        .collect()
}

fn queue_rules(settings: &RuleSettings, backend: Backend) -> Vec<Value> {
    if backend != Backend::Nft {
        return Vec::new();
    }
    let rule = |dispatch: &Dispatch| {
        let is_meant = equals(&masked(&meta("mark"), dispatch.mask), dispatch.value);
        let queue = queue(dispatch.queue, dispatch.bypass);
        add_rule(QUEUE, dispatch.what, &[is_meant, queue])
    };
    let mut rules = vec![nothing_asked(QUEUE, settings.marks.address())];
    rules.extend(dispatches(settings).iter().map(rule));
    rules
}

/// Almost all packets leave here: no bit of `mask` is on them.
fn nothing_asked(chain: &str, mask: u32) -> Value {
    let is_empty = equals(&masked(&meta("mark"), mask), 0);
    add_rule(chain, "nothing was asked", &[is_empty, accept()])
}

/// Keeps the daemon's answer in the connection and gives the packet's mark back as it was.
fn keep_rules(marks: MarkField) -> Vec<Value> {
    let mark = meta("mark");
    let keep = |bit| {
        [
            has_bits(&mark, marks.bit(bit)),
            set_bits(&ct("mark"), marks.bit(bit)),
        ]
    };
    let (from_start, asked) = (marks.bit(MarkBit::FromStart), marks.questions());
    vec![
        nothing_asked(KEEP, marks.mask()),
        add_rule(KEEP, "answer: cleared", &keep(MarkBit::Cleared)),
        add_rule(KEEP, "answer: tolerated", &keep(MarkBit::Tolerated)),
        // Passed with the daemon's consent, or unseen without one: whoever sees the connection next
        // sees its middle. The daemon takes the question off what carried nothing.
        add_rule(
            KEEP,
            "its beginning has passed",
            &[
                compare("!=", &masked(&mark, asked), 0),
                has_bits(&ct("mark"), from_start),
                clear_bits(&ct("mark"), from_start),
            ],
        ),
        add_rule(
            KEEP,
            "nothing of ours stays on the packet",
            &[clear_bits(&mark, marks.mask())],
        ),
    ]
}

fn source() -> Value {
    field("ip", "saddr")
}

fn destination() -> Value {
    field("ip", "daddr")
}

#[cfg(test)]
mod tests {
    use super::super::fan_out::{self, Shards};
    use super::super::queue::QueueSettings;
    use super::*;
    use crate::protocol::{ByteMatch, Direction, HARMLESS_SHAPES};

    const PING: UdpShape = UdpShape {
        name: "ping",
        direction: Direction::Both,
        only_locked: false,
        payload_len: 10..=23,
        bytes: &[
            ByteMatch::exactly(0, 0x27),
            ByteMatch::exactly(1, 0),
            ByteMatch::exactly(5, 0x80),
        ],
    };

    const PONG: UdpShape = UdpShape {
        name: "pong",
        direction: Direction::Inbound,
        only_locked: true,
        payload_len: 5..=5,
        bytes: &[ByteMatch {
            offset: 0,
            mask: 0xfe,
            value: 0x28,
        }],
    };

    pub(super) fn settings() -> RuleSettings {
        RuleSettings {
            inside: vec!["10.77.0.0/16".parse().expect("a literal")],
            exempt: vec!["10.77.9.9/32".parse().expect("a literal")],
            queues: FanOut::default(),
            marks: MarkField::DEFAULT,
            when_down: WhenDown::Pass,
            hung_after: Duration::from_secs(1),
            when_overloaded: WhenOverloaded::Drop,
            strict: false,
            inbound: None,
            payload_test: PayloadTest::InnerHeader,
            shapes: vec![PING, PONG],
            harmless: HARMLESS_SHAPES,
        }
    }

    pub(super) fn rules_of(settings: &RuleSettings, backend: Backend, chain: &str) -> String {
        let commands = commands(settings, backend);
        let rules = commands
            .iter()
            .filter(|command| command["add"]["rule"]["chain"] == chain);
        rules
            .map(|rule| format!("{}\n", rule["add"]["rule"]["comment"]))
            .collect()
    }

    #[test]
    fn only_what_may_pass_unseen_passes_a_worker_that_hangs() {
        let order = |settings: &RuleSettings| rules_of(settings, Backend::Nft, ENQUEUE);
        assert!(order(&settings()).ends_with("\"nobody answers\"\n"));
        let drops = RuleSettings {
            when_down: WhenDown::Drop,
            ..settings()
        };
        assert!(!order(&drops).contains("nobody answers"));
        let waits = RuleSettings {
            hung_after: Duration::ZERO,
            ..settings()
        };
        assert!(!order(&waits).contains("nobody answers"));
        assert_eq!(waits.answered_by(0), None);
    }

    #[test]
    fn no_suspect_waits_in_a_queue_whose_overflow_passes() {
        let queues = |when_overloaded| {
            let settings = RuleSettings {
                when_overloaded,
                ..settings()
            };
            let overflow = |number, class| fan_out::settings(number, class, &settings);
            let dispatches = dispatches(&settings).into_iter();
            let shown = dispatches.map(|dispatch| {
                let (_, class) = settings.queues.of_queue(dispatch.queue).expect("ours");
                let queue = overflow(dispatch.queue, class);
                (
                    dispatch.what,
                    class,
                    queue.when_overloaded,
                    queue.copy_range,
                )
            });
            shown.collect::<Vec<_>>()
        };
        use QueueClass::{Payload, Signalling};
        use WhenOverloaded::{Drop, Pass};
        let whole = QueueSettings::of(0).copy_range;
        let expected = [
            ("signalling", Signalling, Drop, whole),
            ("suspects", Signalling, Drop, whole),
            ("others", Payload, Pass, whole),
        ];
        assert_eq!(queues(Pass), expected);
        let [signalling, suspects, others] = queues(Drop)[..] else {
            panic!("three ways");
        };
        assert!(signalling.3 < whole, "nothing long goes there");
        assert_eq!(suspects, ("suspects", Payload, Drop, whole));
        assert_eq!(others, ("others", Payload, Drop, whole));
    }

    #[test]
    fn what_passed_with_or_without_an_answer_ends_the_beginning_of_its_connection() {
        let marks = MarkField::DEFAULT;
        let rules = keep_rules(marks);
        let rules = rules.iter().map(|rule| &rule["add"]["rule"]);
        let [rule] = rules
            .filter(|rule| rule["comment"] == "its beginning has passed")
            .collect::<Vec<_>>()[..]
        else {
            panic!("one rule does so");
        };
        let question = &rule["expr"][0]["match"];
        assert_eq!(question["left"]["&"][1], marks.questions());
        let kept = &rule["expr"][2]["mangle"]["value"]["&"][1];
        assert_eq!(*kept, !marks.bit(MarkBit::FromStart));
    }

    #[test]
    fn the_rules_of_the_native_back_end_read_as_reviewed() {
        insta::assert_snapshot!(print(&settings(), Backend::Nft));
    }

    #[test]
    fn the_rules_of_the_xt_back_ends_read_as_reviewed() {
        insta::assert_snapshot!(print(&settings(), Backend::IptablesNft));
    }

    #[test]
    fn the_rules_of_several_workers_read_as_reviewed() {
        let shards = Shards::new(2).expect("a power of two");
        let marks = MarkField::DEFAULT.with_shards(shards);
        let settings = RuleSettings {
            queues: FanOut::new(6, shards).expect("there is room"),
            marks: marks.expect("one bit is left"),
            ..settings()
        };
        let commands = commands(&settings, Backend::Nft);
        let mut text = String::new();
        for command in &commands {
            let rule = &command["add"]["rule"];
            if rule["chain"] == QUEUE || rule["comment"] == "shard of the host" {
                let _ = writeln!(text, "{}", rule["expr"]);
            }
        }
        insta::assert_snapshot!(text);
        insta::assert_snapshot!(xt::installation(&dispatches(&settings), true));
    }

    #[test]
    fn only_the_native_back_end_queues_in_the_own_table() {
        assert_eq!(
            rules_of(&settings(), Backend::Nft, QUEUE),
            "\"nothing was asked\"\n\"signalling\"\n\"suspects\"\n\"others\"\n"
        );
        assert_eq!(rules_of(&settings(), Backend::IptablesLegacy, QUEUE), "");
    }

    #[test]
    fn open_ports_are_left_before_anything_is_dropped() {
        let open = vec!["tcp/443".parse().expect("a literal")];
        let blocking = RuleSettings {
            inbound: Some(InboundBlock { open }),
            ..settings()
        };
        insta::assert_snapshot!(rules_of(&blocking, Backend::Nft, INBOUND), @r#"
        "open port"
        "TCP from outside"
        "anything else from outside"
        "#);
    }

    #[test]
    fn suspects_are_queued_without_bypass_whatever_happens_to_others() {
        for when_down in [WhenDown::Pass, WhenDown::Drop] {
            let commands = commands(
                &RuleSettings {
                    when_down,
                    ..settings()
                },
                Backend::Nft,
            );
            let queues: Vec<&Value> = commands
                .iter()
                .filter(|command| command["add"]["rule"]["chain"] == QUEUE)
                .map(|command| &command["add"]["rule"]["expr"][1]["queue"])
                .collect();
            let [_, signalling, suspects, others] = queues[..] else {
                panic!("three queues: {queues:?}");
            };
            assert_eq!(*signalling, json!({ "num": 0 }));
            assert_eq!(*suspects, json!({ "num": 1 }));
            let bypasses = others["flags"] == "bypass";
            assert_eq!(bypasses, when_down == WhenDown::Pass);
        }
    }

    #[test]
    fn one_network_inside_is_compared_with_and_several_are_looked_up() {
        let test = |nets: &[&str]| {
            let inside = nets.iter().map(|net| net.parse().expect("a literal"));
            let settings = RuleSettings {
                inside: inside.collect(),
                ..settings()
            };
            settings.is_inside("==", &source())["match"]["right"].clone()
        };
        let whole = json!({ "prefix": { "addr": "10.0.0.0", "len": 8 } });
        assert_eq!(test(&["10.0.0.0/8"]), whole);
        assert_eq!(test(&["10.0.0.0/9", "10.128.0.0/9"]), whole);
        assert_eq!(test(&["10.0.0.0/8", "192.168.0.0/16"]), "@inside");
        // nft has no such prefix.
        assert_eq!(test(&["0.0.0.0/0"]), "@inside");
    }

    #[test]
    fn overlapping_networks_become_one_element() {
        let nets: Vec<Ipv4Net> = ["10.0.0.0/8", "10.77.0.0/16"]
            .map(|net| net.parse().expect("a literal"))
            .to_vec();
        let commands = network_set("inside", &nets);
        let elements = &commands[2]["add"]["element"]["elem"];
        assert_eq!(
            *elements,
            json!([{ "prefix": { "addr": "10.0.0.0", "len": 8 } }])
        );
    }

    #[test]
    fn ports_are_written_with_their_protocol() {
        assert_eq!(
            "udp/5060".parse::<OpenPort>().map(|open| open.to_string()),
            Ok("udp/5060".into())
        );
        for wrong in ["443", "tcp/0", "tcp/65536", "icmp/1", "tcp/"] {
            let error = wrong.parse::<OpenPort>().expect_err("it is not a port");
            assert!(error.to_string().contains("as in tcp/443"), "{error}");
        }
    }
}
