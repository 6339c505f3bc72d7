//! What a run left, written into a directory for people to look at.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use lab::{Frames, Heading};
use simulator::report::Line;

use crate::observe::Frame;
use crate::record::Record;

/// Writes reports, events and mishaps, and `more` texts under their names; none that is empty.
pub(super) fn write(
    directory: &Path,
    record: &Record,
    more: &[(&str, &String)],
) -> anyhow::Result<()> {
    fs::create_dir_all(directory).with_context(|| format!("creating {}", directory.display()))?;
    let clients = record.evidence.clients.iter().map(|said| &said.line);
    let texts = [
        ("ftwall.events.jsonl", &record.device_events),
        ("clients.jsonl", &json_lines(clients)?),
        ("peers.jsonl", &json_lines(&record.evidence.peers)?),
        ("mishaps.txt", &record.mishaps.join("\n")),
    ];
    for (name, text) in texts.iter().chain(more) {
        if !text.is_empty() {
            fs::write(directory.join(name), text).with_context(|| format!("writing {name}"))?;
        }
    }
    Ok(())
}

/// Writes the recordings of both wires.
pub(super) fn write_captures(
    directory: &Path,
    [inside, outside]: [&Frames; 2],
) -> anyhow::Result<()> {
    inside.write_pcap(directory.join("inside.pcap"))?;
    outside.write_pcap(directory.join("outside.pcap"))?;
    Ok(())
}

/// A recording as it would have come off a real wire.
pub(super) fn recording(frames: &[Frame]) -> Frames {
    let frame = |frame: &Frame| lab::Frame {
        at: Duration::from_micros(frame.at_us),
        heading: Heading::In,
        length: frame.bytes.len(),
        bytes: frame.bytes.clone(),
    };
    Frames {
        frames: frames.iter().map(frame).collect(),
        lost: 0,
    }
}

fn json_lines<'a>(lines: impl IntoIterator<Item = &'a Line>) -> serde_json::Result<String> {
    let mut text = String::new();
    for line in lines {
        text.push_str(&serde_json::to_string(line)?);
        text.push('\n');
    }
    Ok(text)
}
