//! A chapter as what can be tried of it. Comments of HTML, which a reader does not see, say what a block
//! cannot say itself:
//!
//! ```text
//! <!-- file: conf.d/guests.toml -->      the block below is this file in /etc/ftwall
//! <!-- broken -->                        it is meant to be refused
//! <!-- ends with 78 -->                  the commands of the block below end with this code, not with 0
//! <!-- not run: why -->                  the block below is not tried
//! <!-- meanwhile: a client appears -->   something happens in the network before the next block
//! ```
//!
//! A block of `console` holds commands behind `$`, and below each what it says: a line `...` stands for any
//! lines, `[..]` for anything within a line.

use std::fs;
use std::path::Path;

/// A chapter.
#[derive(Debug)]
pub(crate) struct Chapter {
    /// The file's name without its extension.
    pub(crate) name: String,
    /// The whole text.
    pub(crate) text: String,
    /// Its blocks, from top to bottom.
    pub(crate) pieces: Vec<Piece>,
}

/// Something to be tried.
#[derive(Debug)]
pub(crate) struct Piece {
    /// Where it begins, counted from 1.
    pub(crate) line: usize,
    /// What it is.
    pub(crate) what: What,
}

/// What a block is.
#[derive(Debug)]
pub(crate) enum What {
    /// A configuration, or a file of the gateway if it has a name.
    File {
        /// Its place below /etc/ftwall.
        name: Option<String>,
        /// What it says.
        text: String,
        /// It is meant to be refused.
        is_broken: bool,
    },
    /// Commands with what they say.
    Commands(Vec<Typed>),
    /// Commands that are not run, and why.
    NotRun(String),
    /// Something happens in the network.
    Meanwhile(String),
    /// A block in another language.
    Foreign(String),
}

/// A command with what it says.
#[derive(Debug)]
pub(crate) struct Typed {
    /// What is typed.
    pub(crate) command: String,
    /// What it says, with dots for what may differ.
    pub(crate) says: Vec<String>,
    /// What it ends with.
    pub(crate) code: i32,
}

/// What the comments before a block have said.
#[derive(Default)]
struct Remarks {
    file: Option<String>,
    is_broken: bool,
    code: i32,
    not_run: Option<String>,
}

impl Chapter {
    pub(crate) fn read(file: &Path) -> Self {
        let text =
            fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        let name = file.file_stem().expect("a file has a name");
        Self {
            name: name.to_string_lossy().into_owned(),
            pieces: pieces(&text),
            text,
        }
    }
}

/// Targets of links in Markdown, images included.
pub(crate) fn links(text: &str) -> impl Iterator<Item = String> {
    let targets = text.split("](").skip(1);
    targets.filter_map(|rest| Some(rest.split_once(')')?.0.to_owned()))
}

/// Whether `said` is what the book says.
pub(crate) fn matches(says: &[String], said: &[&str]) -> bool {
    match (says, said) {
        ([], []) => true,
        ([any], _) if any == "..." => true,
        ([any, rest @ ..], _) if any == "..." => {
            (0..=said.len()).any(|passed_over| matches(rest, &said[passed_over..]))
        }
        ([line, rest @ ..], [first, others @ ..]) => {
            line_matches(line, first) && matches(rest, others)
        }
        _ => false,
    }
}

fn line_matches(line: &str, said: &str) -> bool {
    match line.split_once("[..]") {
        None => line == said,
        Some((before, after)) => said.strip_prefix(before).is_some_and(|rest| {
            let ends = rest.char_indices().map(|(place, _)| place);
            ends.chain([rest.len()])
                .any(|end| line_matches(after, &rest[end..]))
        }),
    }
}

fn pieces(text: &str) -> Vec<Piece> {
    let mut pieces = Vec::new();
    let mut remarks = Remarks::default();
    let mut lines = (1..).zip(text.lines());
    while let Some((line, content)) = lines.next() {
        if let Some(remark) = remark(content) {
            if let Some(happening) = remark.strip_prefix("meanwhile: ") {
                let what = What::Meanwhile(happening.to_owned());
                pieces.push(Piece { line, what });
            } else {
                remarks.note(remark);
            }
        } else if let Some(language) = content.trim_start().strip_prefix("```") {
            let inside = lines.by_ref().map(|(_, content)| content);
            let block: Vec<_> = inside.take_while(|it| it.trim() != "```").collect();
            let what = std::mem::take(&mut remarks).block(language, &block);
            pieces.push(Piece { line, what });
        }
    }
    pieces
}

fn remark(line: &str) -> Option<&str> {
    let inner = line.strip_prefix("<!--")?.strip_suffix("-->")?;
    Some(inner.trim())
}

impl Remarks {
    fn note(&mut self, remark: &str) {
        if let Some(file) = remark.strip_prefix("file: ") {
            self.file = Some(file.to_owned());
        } else if let Some(code) = remark.strip_prefix("ends with ") {
            self.code = code.parse().expect("an exit code is a number");
        } else if let Some(reason) = remark.strip_prefix("not run: ") {
            self.not_run = Some(reason.to_owned());
        } else if remark == "broken" {
            self.is_broken = true;
        }
    }

    fn block(self, language: &str, lines: &[&str]) -> What {
        if let Some(reason) = self.not_run {
            return What::NotRun(reason);
        }
        match language {
            "console" => What::Commands(typed(lines, self.code)),
            _ if language == "toml" || self.file.is_some() => What::File {
                name: self.file,
                text: lines.join("\n") + "\n",
                is_broken: self.is_broken,
            },
            _ => What::Foreign(language.to_owned()),
        }
    }
}

fn typed(lines: &[&str], code: i32) -> Vec<Typed> {
    let mut commands: Vec<Typed> = Vec::new();
    for line in lines {
        if let Some(command) = line.strip_prefix("$ ") {
            commands.push(Typed {
                command: command.to_owned(),
                says: Vec::new(),
                code,
            });
        } else {
            let command = commands.last_mut().expect("a console begins with `$ `");
            command.says.push((*line).to_owned());
        }
    }
    commands
}

#[test]
fn dots_stand_for_lines_and_for_parts_of_a_line() {
    let says = |lines: &[&str]| lines.iter().map(|it| (*it).to_owned()).collect::<Vec<_>>();
    let said = ["one 1", "two", "three"];
    for (book, expected) in [
        (&["one [..]", "two", "three"][..], true),
        (&["one 1", "..."], true),
        (&["...", "three"], true),
        (&["...", "two", "..."], true),
        (&["...", "four", "..."], false),
        (&["one 1", "three"], false),
        (&["one [..]2", "..."], false),
        (&["one 1", "two", "three", "..."], true),
    ] {
        assert_eq!(matches(&says(book), &said), expected, "{book:?}");
    }
}

#[test]
fn comments_say_what_a_block_cannot() {
    let text = "<!-- ends with 3 -->\n```console\n$ ftwall status\nftwall: [..]\n```\n\
        <!-- not run: it would reboot the reader's machine -->\n```console\n$ reboot\n```\n\
        <!-- file: conf.d/a.toml -->\n```toml\nqueue = 1\n```\n";
    let pieces = pieces(text);
    let What::Commands(commands) = &pieces[0].what else {
        panic!("{pieces:?}")
    };
    assert_eq!((commands[0].code, commands[0].says.len()), (3, 1));
    assert!(matches!(&pieces[1].what, What::NotRun(reason) if reason.contains("reboot")));
    assert!(
        matches!(&pieces[2].what, What::File { name: Some(name), text, .. }
            if name == "conf.d/a.toml" && text == "queue = 1\n")
    );
    assert_eq!(pieces[2].line, 11);
}
