//! What can be typed: commands, options and what they mean, turned into settings.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use ipnet::{IpNet, Ipv4Net};

use crate::EngineConfig;
use crate::config::{LockedDials, NeverBlock, Reply, Strictness, private_ranges};
use crate::control::events::EventTarget;
use crate::control::policy_file::PolicyFile;
use crate::control::values::{parse_duration, parse_net, parse_never_block};
use crate::gateway::backend::Backend;
use crate::gateway::daemon::RunSettings;
use crate::gateway::failure::Misconfigured;
use crate::gateway::marks::MarkField;
use crate::gateway::queue::QueueReader;
use crate::gateway::replay::{Format, Options};
use crate::gateway::rules::{InboundBlock, OpenPort, PayloadTest, RuleSettings, WhenDown};
use crate::protocol::PROTOCOLS;

/// Keeps FastTrack peer-to-peer clients (Kazaa and its kin) from making contact through this gateway,
/// and leaves the web alone.
#[derive(Debug, Parser)]
#[command(name = "ftwall", version, max_term_width = 100, after_help = EXIT_CODES)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

const EXIT_CODES: &str = "\
Exit codes:
   0  ok
   1  failure
   2  usage
   3  not running
   4  degraded
  77  missing privilege
  78  configuration";

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Filter until SIGTERM or SIGINT, then leave no rule behind
    Run(RunArgs),
    /// Show the kernel rules, or put them in place or take them away without the daemon
    #[command(subcommand)]
    Rules(RulesCommand),
    /// Judge captured packets as the gateway would have; needs no privileges
    Replay(ReplayArgs),
    /// Say what this machine offers, what is missing and what to do about it
    Doctor(DoctorArgs),
}

/// What to do with the rules.
#[derive(Debug, Subcommand)]
pub enum RulesCommand {
    /// Show what would be applied; touches nothing
    Print(RuleArgs),
    /// Put the rules in place, or replace those that are there
    Apply(RuleArgs),
    /// Take everything of ftwall's away
    Remove(RemoveArgs),
}

/// Options of `run`.
#[derive(Debug, Args)]
pub struct RunArgs {
    #[command(flatten)]
    rules: RuleArgs,
    #[command(flatten)]
    policy: PolicyArgs,
    /// Who reads the packet queue: netlink answers many packets at once, nfq one by one
    #[arg(
        long,
        value_name = "READER",
        default_value_t,
        help_heading = "Kernel rules"
    )]
    queue_reader: QueueReader,
    /// Where events go, one JSON object per line: a file to append to, or - for standard output
    #[arg(
        long,
        value_name = "FILE",
        default_value = "-",
        help_heading = "Output"
    )]
    events: EventTarget,
    /// Seed of everything that is drawn at random; drawn itself if absent
    #[arg(long, value_name = "N", help_heading = "Output")]
    seed: Option<u64>,
}

/// Options of the kernel's part.
#[derive(Debug, Args)]
#[command(next_help_heading = "Kernel rules")]
pub struct RuleArgs {
    /// Number of the packet queue
    #[arg(long, value_name = "N", default_value_t = 0)]
    queue: u16,
    /// What queues packets: auto takes the first of nft, iptables-nft, iptables-legacy that works
    #[arg(long, default_value = "auto", value_parser = parse_backend, value_name = "BACKEND")]
    backend: BackendChoice,
    /// Lowest of the six neighbouring bits of packet and connection marks that ftwall uses
    #[arg(long, value_name = "BIT", default_value = "24", value_parser = parse_marks)]
    mark_bit: MarkField,
    /// What to do with undecided packets while no daemon runs; those of locked hosts are dropped anyway
    #[arg(long, value_enum, default_value_t = WhenDownArg::Pass)]
    when_down: WhenDownArg,
    /// Drop connections from outside to hosts inside; the gateway's own ports are left to other rules
    #[arg(long)]
    block_inbound: bool,
    /// Port of inside hosts that stays reachable, as in tcp/443; may be given several times
    #[arg(long, value_name = "PROTOCOL/PORT", requires = "block_inbound")]
    open_port: Vec<OpenPort>,
    /// What to do with traffic of a locked host that nothing is known about
    #[arg(long, value_enum, default_value_t = StrictnessArg::Precise)]
    strictness: StrictnessArg,
    #[command(flatten)]
    hosts: HostArgs,
}

/// Which hosts are meant.
#[derive(Debug, Args)]
#[command(next_help_heading = "Hosts")]
pub struct HostArgs {
    /// Network of inside hosts; may be given several times [default: the private ranges]
    #[arg(long, value_name = "NET", value_parser = parse_net)]
    inside: Vec<IpNet>,
    /// Host or network whose packets are never looked at; may be given several times
    #[arg(long, value_name = "NET", value_parser = parse_net)]
    exempt: Vec<IpNet>,
}

/// Options of the engine's part.
#[derive(Debug, Args)]
#[command(next_help_heading = "Policy")]
pub struct PolicyArgs {
    /// How long a host stays locked after the last evidence against it; 0 locks nobody
    #[arg(long, value_name = "TIME", default_value = "120s", value_parser = parse_duration)]
    lock_time: Duration,
    /// What to do when a locked host dials an address that has not proven itself
    #[arg(long, value_enum, default_value_t = LockedDialsArg::Drop)]
    locked_dials: LockedDialsArg,
    /// What a client's ping is answered with, in the peer's name
    #[arg(long, value_enum, default_value_t = ReplyArg::Pong)]
    reply: ReplyArg,
    /// Do not probe a locked host at half its lock time
    #[arg(long)]
    no_reprobe: bool,
    /// Let FastTrack datagrams pass; they still lock and teach
    #[arg(long)]
    no_block_udp: bool,
    /// Address never learned as a peer, with or without a port; may be given several times
    #[arg(long, value_name = "NET|ADDRESS[:PORT]", value_parser = parse_never_block)]
    never_block: Vec<NeverBlock>,
    /// Peers that one host may teach within a minute
    #[arg(long, value_name = "N")]
    new_peers_per_minute: Option<u32>,
    /// How long a learned peer is remembered after the last evidence
    #[arg(long, value_name = "TIME", default_value = "2h", value_parser = parse_duration)]
    peer_expiry: Duration,
}

/// Options of `rules remove`.
#[derive(Debug, Args)]
pub struct RemoveArgs {
    /// Also look for rules of this back end if nothing remembers that it was used
    #[arg(long, default_value = "auto", value_parser = parse_backend, value_name = "BACKEND")]
    backend: BackendChoice,
}

impl RemoveArgs {
    /// The back end to look at in any case.
    pub fn backend(&self) -> Option<Backend> {
        self.backend.0
    }
}

/// Options of `replay`.
#[derive(Debug, Args)]
pub struct ReplayArgs {
    /// Captures, pcap or pcapng, in the order in which they were taken
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// How to say it
    #[arg(short, long, value_enum, default_value_t = OutputArg::Human)]
    output: OutputArg,
    /// Judge every flow as if its initiator were inside
    #[arg(long)]
    judge_all: bool,
    /// Say which verdicts this policy file would change; what it leaves out is as typed here
    #[arg(long, value_name = "FILE")]
    diff: Option<PathBuf>,
    /// Seed of everything that is drawn at random
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    #[command(flatten)]
    hosts: HostArgs,
    #[command(flatten)]
    policy: PolicyArgs,
    /// What to do with traffic of a locked host that nothing is known about
    #[arg(long, value_enum, default_value_t = StrictnessArg::Precise, help_heading = "Policy")]
    strictness: StrictnessArg,
}

/// Options of `doctor`.
#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// How to say it
    #[arg(short, long, value_enum, default_value_t = OutputArg::Human)]
    pub output: OutputArg,
}

/// For whom output is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum OutputArg {
    /// People
    Human,
    /// Programs
    Json,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum WhenDownArg {
    /// Nothing undecided passes
    Drop,
    /// The web goes on without protection
    Pass,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum StrictnessArg {
    /// Pass it and watch
    Precise,
    /// Drop it
    Strict,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum LockedDialsArg {
    /// Drop the dial, unless it goes to a port of the web or below 1024
    Drop,
    /// Pass it, the first payload decides
    Watch,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum ReplyArg {
    /// A supernode with room
    Pong,
    /// The second kind of pong
    Pong2,
    /// A well-formed message of another type
    Other,
    /// No answer
    None,
}

/// A back end, or the best that works.
#[derive(Clone, Copy, Debug)]
struct BackendChoice(Option<Backend>);

/// The settings that `ftwall run` would have with these options.
///
/// # Errors
/// When an option is unknown or its value cannot be read, or options contradict each other.
pub fn run_settings(options: &[&str]) -> anyhow::Result<RunSettings> {
    #[derive(Parser)]
    #[command(name = "ftwall run")]
    struct Run {
        #[command(flatten)]
        args: RunArgs,
    }
    let typed = std::iter::once(&"ftwall run").chain(options);
    Ok(Run::try_parse_from(typed)?.args.settings()?)
}

impl RunArgs {
    /// Settings of the daemon.
    ///
    /// # Errors
    /// When options contradict each other.
    pub fn settings(self) -> Result<RunSettings, Misconfigured> {
        let engine = EngineConfig {
            strictness: self.rules.strictness.into(),
            ..self.policy.engine(&self.rules.hosts)
        };
        Ok(RunSettings {
            rules: self.rules.settings()?,
            engine,
            backend: self.rules.backend(),
            queue_reader: self.queue_reader,
            events: self.events,
            seed: self.seed.unwrap_or_else(rand::random),
        })
    }
}

impl RuleArgs {
    /// The back end asked for, if any.
    pub fn backend(&self) -> Option<Backend> {
        self.backend.0
    }

    /// Settings of the rules.
    ///
    /// # Errors
    /// When no IPv4 host is inside.
    pub fn settings(&self) -> Result<RuleSettings, Misconfigured> {
        let inside = ipv4(&self.hosts.inside());
        if inside.is_empty() {
            let message = "no inside network is IPv4, and FastTrack is IPv4 only: add --inside NET";
            return Err(Misconfigured(message.into()));
        }
        let open = self.open_port.clone();
        Ok(RuleSettings {
            inside,
            exempt: ipv4(&self.hosts.exempt),
            queue: self.queue,
            marks: self.mark_bit,
            when_down: match self.when_down {
                WhenDownArg::Drop => WhenDown::Drop,
                WhenDownArg::Pass => WhenDown::Pass,
            },
            strict: self.strictness == StrictnessArg::Strict,
            inbound: self.block_inbound.then_some(InboundBlock { open }),
            payload_test: PayloadTest::InnerHeader,
            shapes: PROTOCOLS
                .iter()
                .flat_map(|protocol| protocol.udp_shapes)
                .cloned()
                .collect(),
        })
    }
}

impl ReplayArgs {
    /// What to replay, and how to say it.
    pub fn options(&self) -> Options {
        let engine = EngineConfig {
            judge_all: self.judge_all,
            strictness: self.strictness.into(),
            ..self.policy.engine(&self.hosts)
        };
        Options {
            files: self.files.clone(),
            engine,
            seed: self.seed,
            format: match self.output {
                OutputArg::Human => Format::Human,
                OutputArg::Json => Format::Json,
            },
        }
    }

    /// The configuration to compare with, if any.
    ///
    /// # Errors
    /// When its file cannot be read or says something that it must not.
    pub fn other(&self) -> Result<Option<EngineConfig>, Misconfigured> {
        let Some(file) = &self.diff else {
            return Ok(None);
        };
        let policy = PolicyFile::open(file).map_err(|error| Misconfigured(error.to_string()))?;
        Ok(Some(policy.apply(self.options().engine)))
    }
}

impl HostArgs {
    fn inside(&self) -> Vec<IpNet> {
        if self.inside.is_empty() {
            private_ranges()
        } else {
            self.inside.clone()
        }
    }
}

impl PolicyArgs {
    fn engine(&self, hosts: &HostArgs) -> EngineConfig {
        let defaults = EngineConfig::default();
        EngineConfig {
            inside: hosts.inside(),
            exempt: hosts.exempt.clone(),
            lock_time: self.lock_time,
            locked_dials: match self.locked_dials {
                LockedDialsArg::Drop => LockedDials::Drop,
                LockedDialsArg::Watch => LockedDials::Watch,
            },
            reply: match self.reply {
                ReplyArg::Pong => Reply::Pong,
                ReplyArg::Pong2 => Reply::Pong2,
                ReplyArg::Other => Reply::Other,
                ReplyArg::None => Reply::None,
            },
            reprobe: !self.no_reprobe,
            block_udp: !self.no_block_udp,
            never_block: self.never_block.clone(),
            new_peers_per_minute: self
                .new_peers_per_minute
                .unwrap_or(defaults.new_peers_per_minute),
            peer_expiry: self.peer_expiry,
            ..defaults
        }
    }
}

impl From<StrictnessArg> for Strictness {
    fn from(arg: StrictnessArg) -> Strictness {
        match arg {
            StrictnessArg::Precise => Strictness::Precise,
            StrictnessArg::Strict => Strictness::Strict,
        }
    }
}

fn ipv4(nets: &[IpNet]) -> Vec<Ipv4Net> {
    let v4 = nets.iter().filter_map(|net| match net {
        IpNet::V4(net) => Some(*net),
        IpNet::V6(_) => None,
    });
    v4.collect()
}

fn parse_backend(text: &str) -> Result<BackendChoice, String> {
    match text {
        "auto" => Ok(BackendChoice(None)),
        name => name.parse().map(|backend| BackendChoice(Some(backend))),
    }
}

fn parse_marks(text: &str) -> Result<MarkField, String> {
    let bit = text
        .parse()
        .map_err(|_| "not the number of a bit, 0 to 26".to_owned())?;
    MarkField::new(bit).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_contradicts_itself_nowhere() {
        Cli::command().debug_assert();
    }

    #[test]
    fn options_reach_the_engine_and_the_rules() {
        let typed = "ftwall run --inside 10.77.0.0/16 --exempt 10.77.9.9 --lock-time 0 \
            --strictness strict --reply none --no-reprobe --block-inbound --open-port tcp/443 \
            --when-down drop --queue 3 --backend iptables-legacy";
        let cli = Cli::try_parse_from(typed.split_whitespace()).expect("all of it is documented");
        let Command::Run(args) = cli.command else {
            panic!("run was typed")
        };
        let settings = args.settings().expect("nothing contradicts");
        assert_eq!(settings.engine.lock_time, Duration::ZERO);
        assert_eq!(settings.engine.strictness, Strictness::Strict);
        assert_eq!(
            settings.engine.inside,
            [parse_net("10.77.0.0/16").expect("a literal")]
        );
        assert!(!settings.engine.reprobe);
        assert_eq!(settings.backend, Some(Backend::IptablesLegacy));
        assert_eq!((settings.rules.queue, settings.rules.strict), (3, true));
        assert_eq!(settings.rules.when_down, WhenDown::Drop);
        let open = settings.rules.inbound.expect("inbound was blocked").open;
        assert_eq!(open, ["tcp/443".parse().expect("a literal")]);
    }

    #[test]
    fn options_of_run_become_settings_without_a_program() {
        let settings = run_settings(&["--lock-time", "5m", "--queue", "3"]).expect("documented");
        assert_eq!(settings.engine.lock_time, Duration::from_secs(300));
        assert_eq!(settings.rules.queue, 3);
        let error = run_settings(&["--lock-tim", "5m"]).expect_err("it is mistyped");
        assert!(error.to_string().contains("--lock-time"), "{error}");
    }

    #[test]
    fn inside_hosts_without_an_ipv4_address_are_a_contradiction() {
        let typed = ["ftwall", "rules", "print", "--inside", "2001:db8::/32"];
        let cli = Cli::try_parse_from(typed).expect("it parses");
        let Command::Rules(RulesCommand::Print(args)) = cli.command else {
            panic!("print")
        };
        let error = args.settings().expect_err("FastTrack is IPv4 only");
        assert!(error.to_string().contains("--inside"), "{error}");
    }
}
