//! `events`: the file of events, for people or programs, as it is or as it grows.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Write};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Args;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use rustix::io::Errno;
use serde_json::Value;

use super::{ConfigArgs, OutputArg, configuration};
use crate::control::config_file::Layer;
use crate::control::events::EventTarget;
use crate::control::table::{origin, text};
use crate::gateway::failure::Misconfigured;

/// Options of `events`.
#[derive(Debug, Args)]
pub struct EventsArgs {
    /// File to read [default: the one the configuration names]
    file: Option<PathBuf>,
    /// Go on with what is written from now on
    #[arg(short, long)]
    follow: bool,
    /// Only events of this type, as in client.locked; may be given several times
    #[arg(long = "type", value_name = "TYPE")]
    types: Vec<String>,
    /// Only events of these letters, as ftwall 2003 named them: u and t for UDP and TCP dropped, U and T
    /// for UDP and TCP let through though recognised, c for locked clients, p for peers
    #[arg(long, value_name = "LETTERS", conflicts_with = "types", value_parser = parse_letters)]
    letters: Option<Letters>,
    /// How to say it
    #[arg(short, long, value_enum, default_value_t = OutputArg::Human)]
    output: OutputArg,
    #[command(flatten)]
    config: ConfigArgs,
}

impl EventsArgs {
    /// Writes what is wanted to `out`; with --follow, until nobody reads it any more.
    ///
    /// # Errors
    /// When there is no such file, or it cannot be read.
    pub fn show(&self, out: &mut impl Write) -> anyhow::Result<()> {
        let path = self.path()?;
        let ended = if self.follow {
            self.follow(&path, out)
        } else {
            open(&path)?
                .into_iter()
                .try_for_each(|file| self.pass(file, out))
        };
        match ended {
            Err(error) if is_closed(&error) => Ok(()),
            ended => ended,
        }
    }

    fn path(&self) -> anyhow::Result<PathBuf> {
        if let Some(file) = &self.file {
            return Ok(file.clone());
        }
        let configuration = configuration(&self.config.files(), Layer::default())?;
        match configuration.events().target {
            EventTarget::File(path) => Ok(path),
            EventTarget::Stdout => {
                let message = "events go to standard output: read them where that goes \
                    (journalctl -u ftwall -o cat), or set `events` to a file";
                Err(Misconfigured(message.to_owned()).into())
            }
        }
    }

    /// Reads on whenever the directory says that something was written, and in the next file once this
    /// one was set aside.
    fn follow(&self, path: &Path, out: &mut impl Write) -> anyhow::Result<()> {
        let directory = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let watch = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)
            .context("watching a directory")?;
        let changes = WatchFlags::MODIFY | WatchFlags::CREATE | WatchFlags::MOVED_TO;
        inotify::add_watch(&watch, directory, changes)
            .with_context(|| format!("watching {}", directory.display()))?;
        let mut file = open(path)?;
        loop {
            if let Some(current) = &mut file {
                self.pass(current, out)?;
            }
            out.flush()?;
            let next = open(path)?;
            if file.as_ref().map(Lines::identity) != next.as_ref().map(Lines::identity) {
                // What came between reading on and setting aside stands in the old one.
                file.iter_mut().try_for_each(|old| self.pass(old, out))?;
                file = next;
                continue;
            }
            wait(&watch).context("waiting for events")?;
        }
    }

    fn pass(
        &self,
        mut lines: impl std::borrow::BorrowMut<Lines>,
        out: &mut impl Write,
    ) -> anyhow::Result<()> {
        let lines = lines.borrow_mut();
        while let Some(line) = lines.next()? {
            match serde_json::from_str::<Value>(&line) {
                Ok(event) if self.wants(&event) => match self.output {
                    OutputArg::Json => writeln!(out, "{line}")?,
                    OutputArg::Human => writeln!(out, "{}", sentence(&event))?,
                },
                Ok(_) => {}
                Err(error) => {
                    let (path, number) = (lines.path.display(), lines.number);
                    eprintln!("ftwall: {path}:{number}: left out: {error}");
                }
            }
        }
        Ok(())
    }

    fn wants(&self, event: &Value) -> bool {
        if let Some(Letters(letters)) = &self.letters {
            return letter(event).is_some_and(|letter| letters.contains(letter));
        }
        let has = |wanted: &String| event["event_type"] == wanted.as_str();
        self.types.is_empty() || self.types.iter().any(has)
    }
}

/// Some of the letters that [`letter`] gives.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Letters(String);

fn parse_letters(text: &str) -> Result<Letters, String> {
    match text.chars().find(|letter| !"uUtTcp".contains(*letter)) {
        Some(letter) => Err(format!(
            "there is no letter {letter}: write some of u, U, t, T, c and p"
        )),
        None => Ok(Letters(text.to_owned())),
    }
}

/// The class of events that the ftwall of 2003 would have put an event into.
fn letter(event: &Value) -> Option<char> {
    match (event["event_type"].as_str()?, event["proto"].as_str()) {
        ("packet.drop", Some("UDP")) => Some('u'),
        ("packet.drop", Some("TCP")) => Some('t'),
        ("packet.would_drop", Some("UDP")) => Some('U'),
        ("packet.would_drop", Some("TCP")) => Some('T'),
        ("client.locked", _) => Some('c'),
        ("peer.learned", _) => Some('p'),
        _ => None,
    }
}

/// Whole lines of a file that grows.
struct Lines {
    path: PathBuf,
    reader: BufReader<File>,
    /// The beginning of a line whose end is not written yet.
    begun: String,
    number: usize,
}

impl Lines {
    fn next(&mut self) -> anyhow::Result<Option<String>> {
        self.reader
            .read_line(&mut self.begun)
            .with_context(|| format!("reading {}", self.path.display()))?;
        if !self.begun.ends_with('\n') {
            return Ok(None);
        }
        self.number += 1;
        let line = std::mem::take(&mut self.begun);
        Ok(Some(line.trim_end().to_owned()))
    }

    /// What a file keeps under another name.
    fn identity(&self) -> Option<(u64, u64)> {
        let metadata = self.reader.get_ref().metadata().ok()?;
        Some((metadata.dev(), metadata.ino()))
    }
}

/// Opens the file; one that is not there yet may come.
fn open(path: &Path) -> anyhow::Result<Option<Lines>> {
    match File::open(path) {
        Ok(file) => Ok(Some(Lines {
            path: path.to_owned(),
            reader: BufReader::new(file),
            begun: String::new(),
            number: 0,
        })),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("opening {}", path.display())),
    }
}

/// Waits until something in the directory has changed, or nobody reads standard output any more.
fn wait(watch: &impl std::os::fd::AsFd) -> rustix::io::Result<()> {
    let stdout = io::stdout();
    let mut sources = [
        PollFd::new(watch, PollFlags::IN),
        PollFd::new(&stdout, PollFlags::ERR),
    ];
    match poll(&mut sources, None) {
        Ok(_) | Err(Errno::INTR) => {}
        Err(error) => return Err(error),
    }
    let mut heard = [0; 4096];
    while rustix::io::read(watch, &mut heard).is_ok() {}
    if sources[1].revents().contains(PollFlags::ERR) {
        return Err(Errno::PIPE);
    }
    Ok(())
}

fn is_closed(error: &anyhow::Error) -> bool {
    let by_writing = error.downcast_ref::<io::Error>();
    let by_waiting = error.downcast_ref::<Errno>();
    by_writing.is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
        || by_waiting.is_some_and(|errno| *errno == Errno::PIPE)
}

/// An event on one line, for people.
fn sentence(event: &Value) -> String {
    let ours = &event["ftwall"];
    let mut words = vec![text(&event["timestamp"]), text(&event["event_type"])];
    if event["src_ip"].is_string() {
        let end = |ip: &str, port: &str| format!("{}:{}", text(&event[ip]), text(&event[port]));
        let (from, to) = (end("src_ip", "src_port"), end("dest_ip", "dest_port"));
        words.push(format!("{} {from} > {to}", text(&event["proto"])));
    } else {
        words.extend(["client", "peer", "target"].map(|name| text(&ours[name])));
    }
    words.push(origin(&ours["evidence"]));
    for (name, prefix) in [("verdict", ""), ("would_have", "would have been ")] {
        if let Value::Object(verdict) = &ours[name] {
            words.push(format!(
                "{prefix}{}/{}",
                text(&verdict["action"]),
                text(&verdict["reason"])
            ));
        }
    }
    words.push(text(&event["message"]));
    words.retain(|word| !word.is_empty());
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(types: &[&str], output: OutputArg) -> EventsArgs {
        EventsArgs {
            file: None,
            follow: false,
            types: types.iter().map(|name| (*name).to_owned()).collect(),
            letters: None,
            output,
            config: ConfigArgs { config: None },
        }
    }

    const DROP: &str = r#"{"timestamp":"2003-07-04T00:00:00.000001Z","event_type":"packet.drop","src_ip":"10.77.1.1","src_port":3094,"dest_ip":"198.18.0.1","dest_port":1214,"proto":"UDP","ftwall":{"client":"10.77.1.1","evidence":"udp_ping","verdict":{"action":"drop","reason":"ping"}}}"#;
    const RELEASED: &str = r#"{"timestamp":"2003-07-04T00:02:00.000001Z","event_type":"client.released","ftwall":{"client":"10.77.1.1"}}"#;

    /// What `args` show of a file that holds `text`.
    fn shown(args: &EventsArgs, text: &str) -> String {
        let name = format!("ftwall-shown-{}-{}", std::process::id(), text.len());
        let path = std::env::temp_dir().join(name);
        std::fs::write(&path, text).expect("there is room");
        let mut out = Vec::new();
        let lines = open(&path).expect("it can be read").expect("it is there");
        args.pass(lines, &mut out).expect("memory has room");
        std::fs::remove_file(&path).expect("it is there");
        String::from_utf8(out).expect("it was text")
    }

    #[test]
    fn an_event_is_a_line_for_people() {
        let text = format!("{DROP}\n{RELEASED}\n");
        assert_eq!(
            shown(&args(&[], OutputArg::Human), &text),
            "2003-07-04T00:00:00.000001Z packet.drop UDP 10.77.1.1:3094 > 198.18.0.1:1214 udp_ping drop/ping\n\
             2003-07-04T00:02:00.000001Z client.released 10.77.1.1\n"
        );
    }

    #[test]
    fn programs_get_chosen_events_as_they_were_written() {
        let text = format!("{DROP}\n{RELEASED}\n\n");
        let args = args(&["client.released"], OutputArg::Json);
        assert_eq!(shown(&args, &text), format!("{RELEASED}\n"));
    }

    #[test]
    fn the_letters_of_2003_choose_the_same_classes() {
        let locked = DROP.replace("packet.drop", "client.locked");
        let let_through = DROP.replace("packet.drop", "packet.would_drop");
        let tcp = DROP.replace("UDP", "TCP");
        let text = format!("{DROP}\n{tcp}\n{let_through}\n{locked}\n{RELEASED}\n");
        for (letters, expected) in [
            ("u", format!("{DROP}\n")),
            ("Uc", format!("{let_through}\n{locked}\n")),
            ("tT", format!("{tcp}\n")),
            ("p", String::new()),
        ] {
            let args = EventsArgs {
                letters: Some(parse_letters(letters).expect("they are documented")),
                ..args(&[], OutputArg::Json)
            };
            assert_eq!(shown(&args, &text), expected, "{letters}");
        }
        assert!(parse_letters("ux").is_err_and(|error| error.contains("no letter x")));
    }

    #[test]
    fn a_line_without_its_end_is_not_shown_yet() {
        let text = format!("{RELEASED}\n{DROP}");
        assert_eq!(
            shown(&args(&[], OutputArg::Json), &text),
            format!("{RELEASED}\n")
        );
    }
}
