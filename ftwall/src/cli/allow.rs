//! The operator's own allow list: a plain file beside the configuration, so that it outlives the daemon
//! and works without one.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::{Args, Subcommand};

use super::operator::{ListOutputArg, SocketArgs};
use super::{ConfigArgs, configuration};
use crate::config::NeverBlock;
use crate::control::client::ask;
use crate::control::config_file::{Layer, read_allow_list};
use crate::control::configuration::DEFAULT_FILE;
use crate::control::table::{csv, table};
use crate::control::values::parse_never_block;
use crate::control::wire::Command;
use crate::gateway::failure::{Misconfigured, NOT_RUNNING};

/// What to do with the allow list.
#[derive(Debug, Subcommand)]
pub enum AllowCommand {
    /// Let these through from now on; what stands against them is lifted at once
    Add(EntriesArgs),
    /// Take these off the list again
    Remove(EntriesArgs),
    /// Show every entry and where it stands
    List(AllowListArgs),
    /// Add every entry of a plain text file, one on each line
    Import(ImportArgs),
}

/// Options of `allow add` and `allow remove`.
#[derive(Debug, Args)]
pub struct EntriesArgs {
    /// Clients, peers or networks, as in 10.77.1.1, 198.51.100.7:1214 or 198.51.100.0/24
    #[arg(required = true, value_name = "TARGET", value_parser = parse_never_block)]
    entries: Vec<NeverBlock>,
    #[command(flatten)]
    place: PlaceArgs,
}

/// Options of `allow list`.
#[derive(Debug, Args)]
pub struct AllowListArgs {
    /// How to say it
    #[arg(short, long, value_enum, default_value_t = ListOutputArg::Human)]
    output: ListOutputArg,
    #[command(flatten)]
    config: ConfigArgs,
}

/// Options of `allow import`.
#[derive(Debug, Args)]
pub struct ImportArgs {
    /// The file
    file: PathBuf,
    #[command(flatten)]
    place: PlaceArgs,
}

/// Where the list is, and who has to know.
#[derive(Debug, Args)]
struct PlaceArgs {
    #[command(flatten)]
    config: ConfigArgs,
    #[command(flatten)]
    socket: SocketArgs,
}

impl AllowCommand {
    /// Does it, and says what was done.
    ///
    /// # Errors
    /// When a file cannot be read or written, an entry is not on the list, or the daemon refuses it.
    pub fn run(&self) -> anyhow::Result<String> {
        match self {
            Self::Add(args) => args.place.add(&args.entries),
            Self::Remove(args) => args.place.remove(&args.entries),
            Self::List(args) => args.list(),
            Self::Import(args) => {
                let entries = read_allow_list(&args.file).map_err(Misconfigured::from)?;
                let entries: Vec<_> = entries.into_iter().map(|entry| entry.value).collect();
                args.place.add(&entries)
            }
        }
    }
}

impl AllowListArgs {
    fn list(&self) -> anyhow::Result<String> {
        let configuration =
            configuration(&self.config.files(), Layer::default()).map_err(Misconfigured::from)?;
        let settings = configuration.settings();
        let inline = settings.allow.value.iter();
        let inline = inline.map(|entry| (entry.0, &settings.allow.source));
        let files = settings.allow_files.iter();
        let all = inline.chain(files.map(|entry| (entry.value, &entry.source)));
        let rows: Vec<_> = all
            .map(|(entry, source)| vec![entry.to_string(), source.to_string()])
            .collect();
        let headings = ["TARGET", "FROM"];
        Ok(match self.output {
            ListOutputArg::Human => table(&headings, &rows),
            ListOutputArg::Csv => csv(&headings, &rows),
            ListOutputArg::Json => {
                let rows = rows
                    .iter()
                    .map(|row| serde_json::json!({ "target": row[0], "from": row[1] }));
                format!("{:#}\n", rows.collect::<serde_json::Value>())
            }
        })
    }
}

impl PlaceArgs {
    fn add(&self, entries: &[NeverBlock]) -> anyhow::Result<String> {
        let mut list = self.read()?;
        let before = list.len();
        for entry in entries {
            if !list.contains(entry) {
                list.push(*entry);
            }
        }
        let added = list.len() - before;
        self.write(&list)?;
        let told = self.tell_daemon()?;
        Ok(format!(
            "added: {added}, already there: {}; {told}\n",
            entries.len() - added
        ))
    }

    fn remove(&self, entries: &[NeverBlock]) -> anyhow::Result<String> {
        let mut list = self.read()?;
        if let Some(missing) = entries.iter().find(|entry| !list.contains(entry)) {
            let file = self.file();
            let hint = "'ftwall allow list' says where each entry stands";
            anyhow::bail!("{missing} is not in {}: {hint}", file.display());
        }
        list.retain(|entry| !entries.contains(entry));
        self.write(&list)?;
        let told = self.tell_daemon()?;
        Ok(format!("removed: {}; {told}\n", entries.len()))
    }

    fn file(&self) -> PathBuf {
        let main = self.config.config.clone();
        let main = main.unwrap_or_else(|| DEFAULT_FILE.into());
        let directory = main.parent().unwrap_or(Path::new("."));
        directory.join("allow.d").join("operator.list")
    }

    fn read(&self) -> anyhow::Result<Vec<NeverBlock>> {
        let file = self.file();
        match file.try_exists() {
            Ok(false) => Ok(Vec::new()),
            _ => {
                let entries = read_allow_list(&file).map_err(Misconfigured::from)?;
                Ok(entries.into_iter().map(|entry| entry.value).collect())
            }
        }
    }

    /// As a whole: a reader finds the old list or the new one.
    fn write(&self, entries: &[NeverBlock]) -> anyhow::Result<()> {
        let file = self.file();
        let mut text = String::from("# Written by 'ftwall allow'; one entry on each line.\n");
        for entry in entries {
            let _ = writeln!(text, "{entry}");
        }
        let directory = file.parent().unwrap_or(Path::new("."));
        let next = file.with_extension("next");
        std::fs::create_dir_all(directory)
            .and_then(|()| std::fs::write(&next, text))
            .and_then(|()| std::fs::rename(&next, &file))
            .with_context(|| format!("writing {}", file.display()))
    }

    fn tell_daemon(&self) -> anyhow::Result<&'static str> {
        match ask(&self.socket.socket, Command::Reload) {
            Ok(_) => Ok("the daemon knows"),
            Err(failure) if failure.code == NOT_RUNNING => Ok("no daemon runs"),
            Err(failure) => anyhow::bail!(
                "the list is written, but the daemon says: {}",
                failure.message
            ),
        }
    }
}
