//! What can be typed: commands, options and what they mean, turned into settings.

pub mod allow;
pub mod events;
mod logged_event;
pub mod operator;
#[cfg(feature = "tui")]
pub mod top;

use std::path::PathBuf;
use std::time::Duration;

use allow::AllowCommand;
use clap::{Args, CommandFactory as _, Parser, Subcommand, ValueEnum};
use events::EventsArgs;
use ipnet::IpNet;
use operator::{BlockArgs, ExplainArgs, ListArgs, ModeArgs, ShowArgs, UnblockArgs};

#[cfg(feature = "bench")]
use crate::bench::{BenchArgs, ends::End};
use crate::config::{LockedDials, Mode, NeverBlock, Reply, Strictness};
use crate::control::config_file::{ConfigError, Given, Layer, Source, texts};
use crate::control::configuration::{Configuration, Files};
use crate::control::events::EventTarget;
use crate::control::setting::{
    BackendChoice, HttpListen, OptionalDirectory, Text, Textual as _, WholeSeconds,
};
use crate::control::values::{parse_duration, parse_net, parse_never_block};
use crate::gateway::backend::Backend;
use crate::gateway::beside::Firewall;
use crate::gateway::daemon::RunSettings;
use crate::gateway::failure::Misconfigured;
use crate::gateway::marks::MarkField;
use crate::gateway::operations::Load;
use crate::gateway::queue::{QueueReader, WhenOverloaded};
use crate::gateway::replay::{Format, Options};
use crate::gateway::rules::{OpenPort, WhenDown};
use crate::{EngineConfig, Timestamp};

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
    /// Measure in namespaces what ftwall costs a gateway; needs no root and touches no traffic
    #[cfg(feature = "bench")]
    Bench(BenchArgs),
    /// One end of a measurement of `bench`
    #[cfg(feature = "bench")]
    #[command(subcommand, hide = true)]
    BenchEnd(End),
    /// Say what this machine offers, what is missing and what to do about it
    Doctor(DoctorArgs),
    /// Say how the running daemon is
    Status(ShowArgs),
    /// Watch the running daemon: verdicts a second, locked hosts, known peers
    #[cfg(feature = "tui")]
    Top(top::TopArgs),
    /// List the hosts that are locked
    Clients(ListArgs),
    /// List the peers that clients are known to use
    Peers(ListArgs),
    /// Say why a client or a peer is treated as it is
    Explain(ExplainArgs),
    /// Let a client, a peer or a network through for a time
    Unblock(UnblockArgs),
    /// Lock a host for a time, or keep it from one peer
    Block(BlockArgs),
    /// Change the allow list
    #[command(subcommand)]
    Allow(AllowCommand),
    /// Enforce, monitor or leave hosts alone, for a time
    Mode(ModeArgs),
    /// Let the daemon read its configuration again
    Reload(ShowArgs),
    /// Let the daemon open its file of events anew, once the old one was renamed
    LogReopen(ShowArgs),
    /// Show events from the file they are written to, as they come if wanted
    Events(EventsArgs),
    /// Write completions for a shell
    Completions(CompletionsArgs),
    /// Write the manual
    Man(ManArgs),
    /// Check the configuration, or show what it comes to and where each value comes from
    Check(CheckArgs),
}

/// What to do with the rules.
#[derive(Debug, Subcommand)]
pub enum RulesCommand {
    /// Show what would be applied; touches nothing
    Print(PrintArgs),
    /// Put the rules in place, or replace those that are there
    Apply(RulesArgs),
    /// Compare the rules in the kernel with those that should be there; 4 if they differ
    Check(RulesArgs),
    /// Take everything of ftwall's away
    Remove(RemoveArgs),
}

/// Options of commands about rules.
#[derive(Debug, Args)]
pub struct RulesArgs {
    #[command(flatten)]
    rules: RuleArgs,
    #[command(flatten)]
    config: ConfigArgs,
}

/// Options of `rules print`.
#[derive(Debug, Args)]
pub struct PrintArgs {
    /// Show instead what another firewall on this machine has to be told
    #[arg(long = "for", value_enum, value_name = "FIREWALL")]
    pub beside: Option<Firewall>,
    #[command(flatten)]
    /// Which rules.
    pub rules: RulesArgs,
}

/// Options of `run`.
#[derive(Debug, Args)]
pub struct RunArgs {
    #[command(flatten)]
    rules: RuleArgs,
    #[command(flatten)]
    policy: PolicyArgs,
    #[command(flatten)]
    config: ConfigArgs,
    /// Who reads the packet queue: netlink answers many packets at once, nfq one by one
    /// [default: netlink]
    #[arg(long, value_name = "READER", help_heading = "Kernel rules")]
    queue_reader: Option<QueueReader>,
    /// Where events go, one JSON object per line: a file to append to, or - for standard output
    /// [default: -]
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    events: Option<EventTarget>,
    /// Seed of everything that is drawn at random; drawn itself if absent
    #[arg(long, value_name = "N", help_heading = "Output")]
    seed: Option<u64>,
    /// Where to listen for status, explain and their kin [default: /run/ftwall/control.sock]
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    control_socket: Option<PathBuf>,
    /// Where locks, peers and what was set by hand are kept over a restart; "" keeps nothing
    /// [default: /var/lib/ftwall, if it is there]
    #[arg(long, value_name = "DIRECTORY", value_parser = OptionalDirectory::read, help_heading = "Output")]
    state_directory: Option<OptionalDirectory>,
    /// Where to serve metrics and a status page, to this machine only: 127.0.0.1:9477, or a socket's path
    /// [default: off]
    #[arg(long, value_name = "ADDRESS|FILE", value_parser = HttpListen::read, help_heading = "Output")]
    http_listen: Option<HttpListen>,
}

/// Options of the kernel's part.
#[derive(Debug, Args)]
#[command(next_help_heading = "Kernel rules")]
pub struct RuleArgs {
    /// Number of the first packet queue; each worker has two, one behind the other [default: 0]
    #[arg(long, value_name = "N")]
    queue: Option<u16>,
    /// Workers that share the inside hosts, each on a core of its own: 1, 2, 4 or 8 [default: 1]
    #[arg(long, value_name = "N")]
    queues: Option<u16>,
    /// What queues packets: auto takes the first of nft, iptables-nft, iptables-legacy that works
    /// [default: auto]
    #[arg(long, value_parser = parse_backend, value_name = "BACKEND")]
    backend: Option<BackendChoice>,
    /// Lowest of the six neighbouring bits of packet and connection marks that ftwall uses; with 2, 4 or
    /// 8 workers they are one, two or three more [default: 24]
    #[arg(long, value_name = "BIT", value_parser = parse_mark_bit)]
    mark_bit: Option<u8>,
    /// What to do with undecided packets while no daemon runs; those of locked hosts are dropped anyway
    /// [default: pass]
    #[arg(long, value_enum)]
    when_down: Option<WhenDownArg>,
    /// How long the daemon may give no sign of life before it hangs, in whole seconds; 0 waits for ever
    /// [default: 1s]
    #[arg(long, value_name = "TIME", value_parser = WholeSeconds::read)]
    hung_after: Option<WholeSeconds>,
    /// What to do with undecided packets that find a queue full, or that are too many of one host; those of locked hosts are dropped anyway
    /// [default: drop]
    #[arg(long, value_enum)]
    when_overloaded: Option<WhenOverloadedArg>,
    /// Drop connections from outside to hosts inside; the gateway's own ports are left to other rules
    #[arg(long)]
    block_inbound: bool,
    /// Port of inside hosts that stays reachable, as in tcp/443; may be given several times
    #[arg(long, value_name = "PROTOCOL/PORT", requires = "block_inbound")]
    open_port: Vec<OpenPort>,
    /// What to do with traffic of a locked host that nothing is known about
    /// [default: precise]
    #[arg(long, value_enum)]
    strictness: Option<StrictnessArg>,
    #[command(flatten)]
    hosts: HostArgs,
}

/// Which files to read.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Configuration")]
pub struct ConfigArgs {
    /// Configuration file; conf.d and allow.d are looked for beside it
    /// [default: /etc/ftwall/ftwall.toml, if it is there]
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
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
    /// [default: 120s]
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    lock_time: Option<Duration>,
    /// What to do when a locked host dials an address that has not proven itself [default: drop]
    #[arg(long, value_enum)]
    locked_dials: Option<LockedDialsArg>,
    /// What a client's ping is answered with, in the peer's name [default: pong]
    #[arg(long, value_enum)]
    reply: Option<ReplyArg>,
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
    /// [default: 2h]
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    peer_expiry: Option<Duration>,
    /// What is done about hosts: enforce prevents contacts, monitor only reports what would have been
    /// done, off judges nothing [default: enforce]
    #[arg(long, value_enum)]
    mode: Option<ModeArg>,
}

/// Options of `completions`.
#[derive(Debug, Args)]
pub struct CompletionsArgs {
    /// Which shell
    #[arg(value_enum)]
    shell: clap_complete::Shell,
}

impl CompletionsArgs {
    /// The script for the shell.
    #[must_use]
    pub fn script(&self) -> Vec<u8> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), "ftwall", &mut script);
        script
    }
}

/// Options of `man`.
#[derive(Debug, Args)]
pub struct ManArgs {
    /// Write a page for each command into this directory, not the first one to standard output
    #[arg(long, value_name = "DIRECTORY")]
    directory: Option<PathBuf>,
}

impl ManArgs {
    /// The page for standard output; empty if pages were written elsewhere.
    ///
    /// # Errors
    /// When the directory cannot be written to.
    pub fn page(&self) -> std::io::Result<Vec<u8>> {
        let mut page = Vec::new();
        match &self.directory {
            Some(directory) => {
                std::fs::create_dir_all(directory)?;
                clap_mangen::generate_to(Cli::command(), directory)?;
            }
            None => clap_mangen::Man::new(Cli::command()).render(&mut page)?,
        }
        Ok(page)
    }
}

/// Options of `check`.
#[derive(Debug, Args)]
pub struct CheckArgs {
    /// Show the effective configuration, and where each value comes from
    #[arg(long)]
    pub dump: bool,
    /// Show the JSON schema of a configuration file instead
    #[arg(long, conflicts_with_all = ["dump", "config"])]
    pub schema: bool,
    /// How to say it
    #[arg(short, long, value_enum, default_value_t = OutputArg::Human)]
    pub output: OutputArg,
    #[command(flatten)]
    config: ConfigArgs,
}

impl CheckArgs {
    /// The configuration as `run` without options would have it.
    ///
    /// # Errors
    /// When it cannot be read or contradicts itself.
    pub fn configuration(&self) -> Result<Configuration, Misconfigured> {
        Ok(configuration(&self.config.files(), Layer::default())?)
    }
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
    pub const fn backend(&self) -> Option<Backend> {
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
    /// Judge as a gateway with this configuration file would; conf.d and allow.d are looked for beside it,
    /// what is typed here goes before, and every schedule holds
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Judge every flow as if its initiator were inside
    #[arg(long)]
    judge_all: bool,
    /// Say which verdicts this policy file would change; what it leaves out is as typed and configured here
    #[arg(long, value_name = "FILE")]
    diff: Option<PathBuf>,
    /// Load all captures into memory and replay them at once, over and over, for so long; says how many
    /// packets a second one core judges
    #[cfg(feature = "bench")]
    #[arg(
        long,
        value_name = "TIME",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "3s",
        value_parser = parse_duration,
        conflicts_with = "diff"
    )]
    pub bench: Option<Duration>,
    /// Seed of everything that is drawn at random
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    #[command(flatten)]
    hosts: HostArgs,
    #[command(flatten)]
    policy: PolicyArgs,
    /// What to do with traffic of a locked host that nothing is known about [default: precise]
    #[arg(long, value_enum, help_heading = "Policy")]
    strictness: Option<StrictnessArg>,
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

#[derive(Clone, Copy, Debug, ValueEnum)]
enum WhenOverloadedArg {
    /// Nothing passes unseen; a flood costs the connections that wait
    Drop,
    /// The web goes on, unseen as long as the queue is full
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

#[derive(Clone, Copy, Debug, ValueEnum)]
enum ModeArg {
    /// Prevent contacts
    Enforce,
    /// Let everything pass and report what would have been done
    Monitor,
    /// Judge nothing
    Off,
}

/// The settings that `ftwall run` would have with these options and without any file.
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
    let args = Run::try_parse_from(typed)?.args;
    let configuration = configuration(&Files::None, args.layer())?;
    Ok(args.settings(&configuration, Timestamp::ORIGIN))
}

/// The files and what was typed, put together.
fn configuration(files: &Files, typed: Layer) -> Result<Configuration, ConfigError> {
    let says_nothing = says_nothing_of_hosts(&typed);
    let configuration = Configuration::load(files, typed)?;
    let is_first_start = says_nothing && *files == Files::Usual && configuration.files().is_empty();
    Ok(if is_first_start {
        configuration.at_first_start()
    } else {
        configuration
    })
}

/// Whether nobody has said yet what is to be done about whom; where the queue is and where events go is
/// no answer to that.
fn says_nothing_of_hosts(typed: &Layer) -> bool {
    let about_hosts = Layer {
        queue: None,
        backend: None,
        mark_bit: None,
        queue_reader: None,
        events: None,
        control_socket: None,
        state_directory: None,
        client_directory: None,
        http_listen: None,
        webhook: None,
        webhook_secret_file: None,
        webhook_window: None,
        ..typed.clone()
    };
    about_hosts.is_empty()
}

/// A value that was typed.
const fn typed<T>(value: T) -> Option<Given<T>> {
    Some(Given::new(value, Source::CommandLine))
}

/// A value that was typed, if it was.
fn if_typed<T, U>(value: Option<T>, written: impl FnOnce(T) -> U) -> Option<Given<U>> {
    typed(written(value?))
}

/// A list that was typed, if any of it was.
fn list_if_typed<T: Clone>(values: &[T]) -> Option<Given<Vec<Text<T>>>> {
    (!values.is_empty()).then(|| Given::new(texts(values.to_vec()), Source::CommandLine))
}

impl ConfigArgs {
    fn files(&self) -> Files {
        self.config.clone().map_or(Files::Usual, Files::Named)
    }
}

impl RunArgs {
    /// What was configured, in files and here.
    ///
    /// # Errors
    /// When a file is wrong, or settings contradict each other.
    pub fn configuration(&self) -> Result<Configuration, Misconfigured> {
        Ok(configuration(&self.config.files(), self.layer())?)
    }

    /// How to read it again later.
    #[must_use]
    pub fn load(&self) -> Load {
        let (files, typed) = (self.config.files(), self.layer());
        Box::new(move || Ok(configuration(&files, typed.clone())?))
    }

    /// Settings of the daemon at this time of the week.
    #[must_use]
    pub fn settings(&self, configuration: &Configuration, now: Timestamp) -> RunSettings {
        let settings = configuration.settings();
        RunSettings {
            rules: configuration.rules(),
            engine: configuration.engine(now),
            backend: configuration.backend(),
            queue_reader: settings.queue_reader.value.0,
            busy_poll: settings.busy_poll.value.0,
            events: configuration.events(),
            state: configuration.state_directory(),
            client_directory: settings.client_directory.value.0.0.clone(),
            http: settings.http_listen.value.0.clone(),
            webhook: configuration.webhook(),
            seed: self.seed.unwrap_or_else(rand::random),
        }
    }

    fn layer(&self) -> Layer {
        let policy = self.policy.layer(&self.rules.hosts);
        Layer {
            queue_reader: if_typed(self.queue_reader, Text),
            events: if_typed(self.events.clone(), Text),
            control_socket: if_typed(self.control_socket.clone(), Text),
            state_directory: if_typed(self.state_directory.clone(), Text),
            http_listen: if_typed(self.http_listen.clone(), Text),
            ..self.rules.layer().over(policy)
        }
    }
}

impl RulesArgs {
    /// What `run` would take from the same files and options.
    ///
    /// # Errors
    /// When a file is wrong, no IPv4 host is inside, or queues or marks have no room for all workers.
    pub fn configuration(&self) -> Result<Configuration, Misconfigured> {
        Ok(configuration(&self.config.files(), self.rules.layer())?)
    }
}

impl RuleArgs {
    fn layer(&self) -> Layer {
        Layer {
            queue: if_typed(self.queue, |queue| queue),
            queues: if_typed(self.queues, |count| count),
            backend: if_typed(self.backend, Text),
            mark_bit: if_typed(self.mark_bit, |bit| bit),
            when_down: if_typed(self.when_down, |when| Text(when.into())),
            hung_after: if_typed(self.hung_after, Text),
            when_overloaded: if_typed(self.when_overloaded, |when| Text(when.into())),
            block_inbound: self
                .block_inbound
                .then(|| Given::new(true, Source::CommandLine)),
            open_port: list_if_typed(&self.open_port),
            strictness: if_typed(self.strictness, Strictness::from),
            ..self.hosts.layer()
        }
    }
}

impl ReplayArgs {
    /// What to replay, and how to say it. The machine's own configuration counts only where it is named: a
    /// capture may be from anywhere.
    ///
    /// # Errors
    /// When a file of the configuration cannot be read, or settings contradict each other.
    pub fn options(&self) -> Result<Options, Misconfigured> {
        let typed = Layer {
            strictness: if_typed(self.strictness, Strictness::from),
            ..self.policy.layer(&self.hosts)
        };
        let files = self.config.clone().map_or(Files::None, Files::Named);
        let engine = EngineConfig {
            judge_all: self.judge_all,
            ..Configuration::load(&files, typed)?.engine_at_any_time()
        };
        Ok(Options {
            files: self.files.clone(),
            engine,
            seed: self.seed,
            format: match self.output {
                OutputArg::Human => Format::Human,
                OutputArg::Json => Format::Json,
            },
        })
    }

    /// The configuration to compare with, if any.
    ///
    /// # Errors
    /// When its file cannot be read or says something that it must not.
    pub fn other(&self) -> Result<Option<EngineConfig>, Misconfigured> {
        let Some(file) = &self.diff else {
            return Ok(None);
        };
        Ok(Some(Layer::open(file)?.apply(self.options()?.engine)))
    }
}

impl HostArgs {
    fn layer(&self) -> Layer {
        Layer {
            inside: list_if_typed(&self.inside),
            exempt: list_if_typed(&self.exempt),
            ..Layer::default()
        }
    }
}

impl PolicyArgs {
    fn layer(&self, hosts: &HostArgs) -> Layer {
        let switched_off = |is_off: bool| is_off.then(|| Given::new(false, Source::CommandLine));
        Layer {
            mode: if_typed(self.mode, Mode::from),
            lock_time: if_typed(self.lock_time, Text),
            locked_dials: if_typed(self.locked_dials, LockedDials::from),
            reply: if_typed(self.reply, Reply::from),
            reprobe: switched_off(self.no_reprobe),
            block_udp: switched_off(self.no_block_udp),
            never_block: list_if_typed(&self.never_block),
            new_peers_per_minute: if_typed(self.new_peers_per_minute, |count| count),
            peer_expiry: if_typed(self.peer_expiry, Text),
            ..hosts.layer()
        }
    }
}

/// Names that are the same here and in the configuration.
macro_rules! same_names {
    ($($arg:ident => $setting:ident: $($name:ident),+;)+) => {
        $(impl From<$arg> for $setting {
            fn from(arg: $arg) -> Self {
                match arg {
                    $($arg::$name => Self::$name),+
                }
            }
        })+
    };
}

same_names! {
    StrictnessArg => Strictness: Precise, Strict;
    LockedDialsArg => LockedDials: Drop, Watch;
    ReplyArg => Reply: Pong, Pong2, Other, None;
    ModeArg => Mode: Enforce, Monitor, Off;
    WhenDownArg => WhenDown: Drop, Pass;
    WhenOverloadedArg => WhenOverloaded: Drop, Pass;
}

impl From<ConfigError> for Misconfigured {
    fn from(error: ConfigError) -> Self {
        Self(error.to_string())
    }
}

fn parse_backend(text: &str) -> Result<BackendChoice, String> {
    match text {
        "auto" => Ok(BackendChoice(None)),
        name => name.parse().map(|backend| BackendChoice(Some(backend))),
    }
}

fn parse_mark_bit(text: &str) -> Result<u8, String> {
    let bit = text
        .parse()
        .map_err(|_| "not the number of a bit, 0 to 26".to_owned())?;
    MarkField::new(bit).map_err(|error| error.to_string())?;
    Ok(bit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_contradicts_itself_nowhere() {
        Cli::command().debug_assert();
    }

    #[test]
    fn options_reach_the_engine_and_the_rules() {
        let typed = "ftwall run --inside 10.77.0.0/16 --exempt 10.77.9.9 --lock-time 0 \
            --strictness strict --reply none --no-reprobe --block-inbound --open-port tcp/443 \
            --when-down drop --when-overloaded pass --queue 3 --backend iptables-legacy";
        let cli = Cli::try_parse_from(typed.split_whitespace()).expect("all of it is documented");
        let Command::Run(args) = cli.command else {
            panic!("run was typed")
        };
        let configuration = configuration(&Files::None, args.layer()).expect("nothing contradicts");
        let settings = args.settings(&configuration, Timestamp::ORIGIN);
        assert_eq!(settings.engine.lock_time, Duration::ZERO);
        assert_eq!(settings.engine.strictness, Strictness::Strict);
        assert_eq!(
            settings.engine.inside,
            [parse_net("10.77.0.0/16").expect("a literal")]
        );
        assert!(!settings.engine.reprobe);
        assert_eq!(settings.backend, Some(Backend::IptablesLegacy));
        assert_eq!(settings.rules.queues.first(), 3);
        assert!(settings.rules.strict);
        assert_eq!(settings.rules.when_down, WhenDown::Drop);
        assert_eq!(settings.rules.when_overloaded, WhenOverloaded::Pass);
        let open = settings.rules.inbound.expect("inbound was blocked").open;
        assert_eq!(open, ["tcp/443".parse().expect("a literal")]);
    }

    #[test]
    fn options_of_run_become_settings_without_a_program() {
        let settings = run_settings(&["--lock-time", "5m", "--queue", "3"]).expect("documented");
        assert_eq!(settings.engine.lock_time, Duration::from_secs(300));
        assert_eq!(settings.rules.queues.first(), 3);
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
        let error = args
            .rules
            .configuration()
            .expect_err("FastTrack is IPv4 only");
        assert!(error.to_string().contains("--inside"), "{error}");
    }
}
