//! Vectors written by hand, every octet explained: `vectors/*.txt`, in the format that the README
//! beside them describes.

#[expect(dead_code, reason = "vectors need conversations only")]
mod support;

use std::collections::BTreeSet;
use std::fs;
use std::net::SocketAddrV4;
use std::path::{Path, PathBuf};

use ftwall::{EngineConfig, Verdict};
use support::{Connection, Gateway};

#[test]
fn every_vector_is_spoken_of_as_it_says_itself() {
    let files = files();
    for file in &files {
        let vector = Vector::read(file);
        let found = vector.play();
        assert_eq!(found, vector.expected(), "{}", file.display());
    }
    println!("{} vectors", files.len());
    assert!(files.len() >= 20, "only {} vectors", files.len());
}

#[test]
fn every_vector_names_its_provenance_and_explains_every_line_of_octets() {
    for file in files() {
        let text = fs::read_to_string(&file).expect("a readable file");
        let name = file.display();
        assert!(
            text.lines().any(|line| line.starts_with("# Provenance: ")),
            "{name}"
        );
        for line in octet_lines(&text) {
            assert!(line.contains("  "), "{name}: no words behind '{line}'");
        }
    }
}

#[test]
fn octets_are_read_from_hexadecimal_and_quotes_up_to_the_words() {
    assert_eq!(octets("27 00   type, \"quoted\" 00"), [0x27, 0]);
    assert_eq!(octets("\"a b  c\" 0d 0a  words"), *b"a b  c\r\n");
}

/// A conversation and what must be said of it.
struct Vector {
    transport: String,
    ends: [String; 2],
    messages: Vec<Message>,
    outcome: Outcome,
}

/// What one end says, and what becomes of it.
struct Message {
    is_from_first: bool,
    octets: Vec<u8>,
    action: String,
    evidence: String,
}

/// Who is suspect in the end.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Outcome {
    locked: bool,
    learned: BTreeSet<SocketAddrV4>,
}

/// Verdict and evidence of each message, and the outcome.
type Said = (Vec<(String, String)>, Outcome);

impl Vector {
    fn read(file: &Path) -> Self {
        let text = fs::read_to_string(file).expect("a readable file");
        let mut lines = text
            .lines()
            .filter(|line| !line.starts_with('#') && !line.is_empty());
        let head: Vec<_> = lines
            .next()
            .expect("a line of ends")
            .split_whitespace()
            .collect();
        let [transport, first, second] = head[..] else {
            panic!("{}: not a transport and two ends", file.display())
        };
        let mut vector = Self {
            transport: transport.to_owned(),
            ends: [first.to_owned(), second.to_owned()],
            messages: Vec::new(),
            outcome: Outcome {
                locked: false,
                learned: BTreeSet::new(),
            },
        };
        lines.for_each(|line| vector.read_line(line));
        vector
    }

    fn read_line(&mut self, line: &str) {
        match line.split_once(' ') {
            Some((mark @ (">" | "<"), said)) => {
                let (action, evidence) = said.split_once(' ').expect("verdict and evidence");
                self.messages.push(Message {
                    is_from_first: mark == ">",
                    octets: Vec::new(),
                    action: action.to_owned(),
                    evidence: evidence.to_owned(),
                });
            }
            Some(("locked:", answer)) => self.outcome.locked = answer == "yes",
            Some(("learned:", "-")) => {}
            Some(("learned:", peers)) => {
                let peers = peers
                    .split(' ')
                    .map(|peer| peer.parse::<SocketAddrV4>().expect("an address and a port"));
                self.outcome.learned.extend(peers);
            }
            _ => self
                .messages
                .last_mut()
                .expect("octets follow a verdict")
                .octets
                .extend(octets(line)),
        }
    }

    fn expected(&self) -> Said {
        let said = |message: &Message| (message.action.clone(), message.evidence.clone());
        (
            self.messages.iter().map(said).collect(),
            self.outcome.clone(),
        )
    }

    fn play(&self) -> Said {
        let mut gateway = Gateway::new(EngineConfig::default());
        let [first, second] = &self.ends;
        let mut connection =
            (self.transport == "tcp").then(|| Connection::open(&mut gateway, first, second));
        let mut said = Vec::new();
        for message in &self.messages {
            let before = gateway.engine.counters().evidence;
            let verdict = say(&mut gateway, connection.as_mut(), &self.ends, message);
            let counted = gateway.engine.counters().evidence;
            let mut new = counted
                .iter()
                .filter(|(name, count)| before.get(*name) != Some(*count));
            let evidence = new.next().map_or("-", |(name, _)| *name);
            said.push((verdict.action().to_owned(), evidence.to_owned()));
        }
        let inside = if first.starts_with("10.") {
            first
        } else {
            second
        };
        let host = inside.split(':').next().expect("an address");
        let outcome = Outcome {
            locked: gateway.is_locked(host),
            learned: gateway.learned().into_iter().collect(),
        };
        (said, outcome)
    }
}

fn say(
    gateway: &mut Gateway,
    connection: Option<&mut Connection>,
    [first, second]: &[String; 2],
    message: &Message,
) -> Verdict {
    let octets = &message.octets;
    match (connection, message.is_from_first) {
        (Some(connection), true) => connection.client_says(gateway, octets),
        (Some(connection), false) => connection.server_says(gateway, octets),
        (None, true) => gateway.datagram(first, second, octets),
        (None, false) => gateway.datagram(second, first, octets),
    }
}

/// The octets of a line, up to the words behind two spaces.
fn octets(line: &str) -> Vec<u8> {
    let mut octets = Vec::new();
    let mut rest = line;
    loop {
        if let Some(quoted) = rest.strip_prefix('"') {
            let (text, behind) = quoted.split_once('"').expect("a closing quote");
            octets.extend(text.as_bytes());
            rest = behind;
        } else {
            let (digits, behind) = rest.split_at(2);
            octets.push(u8::from_str_radix(digits, 16).expect("two digits"));
            rest = behind;
        }
        match rest.strip_prefix(' ') {
            Some(next) if !next.starts_with(' ') && !next.is_empty() => rest = next,
            _ => return octets,
        }
    }
}

/// The lines between a message's mark and the next empty line.
fn octet_lines(text: &str) -> impl Iterator<Item = &str> {
    let blocks = text
        .split("\n\n")
        .filter(|block| block.starts_with(['>', '<']));
    blocks.flat_map(|block| block.lines().skip(1))
}

fn files() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors");
    let entries = fs::read_dir(folder)
        .expect("the folder of vectors")
        .map(|entry| entry.expect("an entry").path());
    let mut files: Vec<_> = entries
        .filter(|file| file.extension().is_some_and(|end| end == "txt"))
        .collect();
    files.sort();
    files
}
