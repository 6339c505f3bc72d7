//! The table of all faults: for the terminal, for a browser, as Markdown and as JSON.

use std::fmt::{self, Write as _};
use std::fs;
use std::path::Path;

use anyhow::Context;
use serde::Serialize;

use super::row::{End, HEADINGS, Outcome, Row};
use crate::cli::FaultsOptions;
use crate::device::Device;
use crate::judge::Finding;
use crate::report;

/// Everything that faults have to say.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Document {
    /// The seed of everything drawn.
    pub seed: u64,
    /// The device that was on.
    pub device: Device,
    /// Why the run without a device shows nothing; nothing if it does.
    pub void: Vec<Finding>,
    /// The faults.
    pub rows: Vec<Row>,
}

impl Document {
    pub(super) fn new(options: &FaultsOptions) -> Self {
        Self {
            seed: options.seed,
            device: options.device,
            void: Vec::new(),
            rows: Vec::new(),
        }
    }

    /// Whether nothing is wrong.
    #[must_use]
    pub fn has_held(&self) -> bool {
        let holds = |row: &Row| matches!(row.word(), "held" | "skipped");
        self.void.is_empty() && self.rows.iter().all(holds)
    }

    /// Writes `faults.json`, `faults.md` and `faults.html`.
    pub(super) fn write(&self, directory: &Path) -> anyhow::Result<()> {
        let put = |name: &str, text: String| {
            let file = directory.join(name);
            fs::write(&file, text).with_context(|| format!("writing {}", file.display()))
        };
        put("faults.json", serde_json::to_string_pretty(self)?)?;
        put("faults.md", self.markdown())?;
        put("faults.html", report::fault_page(self))
    }

    /// The table for a terminal, with what is wrong without a device above it.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::new();
        for finding in &self.void {
            let _ = writeln!(text, "{finding}");
        }
        let mut lines = vec![HEADINGS.map(str::to_owned)];
        lines.extend(self.rows.iter().map(Row::cells));
        let widths: [usize; HEADINGS.len()] = std::array::from_fn(|column| {
            let cells = lines.iter().map(|line| line[column].len());
            cells.max().unwrap_or(0)
        });
        for line in &lines {
            let cells = line.iter().zip(widths);
            let cells = cells.map(|(cell, width)| format!("{cell:<width$}"));
            let line = cells.collect::<Vec<_>>().join("  ");
            let _ = writeln!(text, "{}", line.trim_end());
        }
        text
    }

    fn markdown(&self) -> String {
        let mut text = String::new();
        let row = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
        text += &row(&HEADINGS.map(str::to_owned));
        text += &row(&HEADINGS.map(|_| "---".to_owned()));
        for one in &self.rows {
            text += &row(&one.cells());
        }
        text += "\n";
        for one in &self.rows {
            let _ = writeln!(text, "- `{}`: {}", one.fault.name(), one.about);
            for remark in one.remarks() {
                let _ = writeln!(text, "  - {remark}");
            }
        }
        let _ = writeln!(text, "\n`{self}`");
        text
    }

    fn sum(&self, of: impl Fn(&Outcome) -> usize) -> usize {
        self.rows.iter().filter_map(Row::outcome).map(of).sum()
    }
}

/// The last line.
impl fmt::Display for Document {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count =
            |is_it: fn(&End) -> bool| self.rows.iter().filter(|row| is_it(&row.end)).count();
        let failed = count(|end| matches!(end, End::Failed { .. }));
        write!(
            f,
            "faults={} void={} leaked={} excused={} interrupted={} skipped={}",
            self.rows.len(),
            self.void.len() + failed + self.sum(|outcome| outcome.void),
            self.sum(|outcome| outcome.leaked),
            self.sum(|outcome| outcome.excused),
            self.sum(|outcome| usize::from(outcome.has_interrupted())),
            count(|end| matches!(end, End::Skipped { .. })),
        )
    }
}
