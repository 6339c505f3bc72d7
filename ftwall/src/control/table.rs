//! Lists as people read them, in columns, and as spreadsheets do.

use std::fmt::Write as _;

use serde_json::Value;

/// Rows under headings, as wide as their widest cell; only the last column may grow beyond that.
#[must_use]
pub fn table(headings: &[&str], rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.chain([headings[column].len()]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..headings.len()).map(width).collect();
    let headings: Vec<String> = headings.iter().map(|&heading| heading.to_owned()).collect();
    let mut text = String::new();
    for row in std::iter::once(&headings).chain(rows) {
        let cells = row.iter().zip(&widths);
        let line: Vec<String> = cells
            .map(|(cell, width)| format!("{cell:<width$}"))
            .collect();
        let _ = writeln!(text, "{}", line.join("  ").trim_end());
    }
    text
}

/// Rows under headings, separated by commas (RFC 4180).
#[must_use]
pub fn csv(headings: &[&str], rows: &[Vec<String>]) -> String {
    let quoted = |cell: &str| {
        if cell.contains(['"', ',', '\n', '\r']) {
            format!("\"{}\"", cell.replace('"', "\"\""))
        } else {
            cell.to_owned()
        }
    };
    let headings: Vec<String> = headings
        .iter()
        .map(|heading| heading.to_lowercase())
        .collect();
    let rows = std::iter::once(&headings).chain(rows);
    let lines = rows.map(|row| {
        let cells: Vec<String> = row.iter().map(|cell| quoted(cell)).collect();
        cells.join(",") + "\r\n"
    });
    lines.collect()
}

/// Whole seconds in the two largest units that say something.
#[must_use]
pub fn duration(seconds: u64) -> String {
    let (days, hours) = (seconds / 86_400, seconds / 3600 % 24);
    let (minutes, seconds) = (seconds / 60 % 60, seconds % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, _) => format!("{minutes}m{seconds:02}s"),
        (0, _, _) => format!("{hours}h{minutes:02}m"),
        (_, _, _) => format!("{days}d{hours:02}h"),
    }
}

/// A list of the daemon's as people see it: headings, and how an entry becomes a row under them.
#[derive(Clone, Copy, Debug)]
pub struct Columns {
    /// What stands above.
    pub headings: &'static [&'static str],
    /// The cells of an entry.
    pub row: fn(&Value) -> Vec<String>,
}

/// Locked hosts.
pub const CLIENTS: Columns = Columns {
    headings: &[
        "CLIENT",
        "LEFT",
        "MODE",
        "SEEN",
        "PEERS",
        "LOCKED BY",
        "POLICY",
    ],
    row: |client| {
        vec![
            text(&client["client"]),
            left(client),
            text(&client["mode"]),
            text(&client["sightings"]),
            text(&client["peers"]),
            origin(&client["origin"]),
            text(&client["policy"]),
        ]
    },
};

/// Peers that clients are known to use.
pub const PEERS: Columns = Columns {
    headings: &["CLIENT", "PEER", "LEFT", "LEARNED BY"],
    row: |known| {
        vec![
            text(&known["client"]),
            text(&known["peer"]),
            left(known),
            origin(&known["origin"]),
        ]
    },
};

/// A value as it stands in a cell.
#[must_use]
pub fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

/// How long a row of a list stays, as it stands in a cell.
#[must_use]
pub fn left(row: &Value) -> String {
    duration(row["left_seconds"].as_u64().unwrap_or(0))
}

/// Evidence by its name; everything else as it is.
#[must_use]
pub fn origin(origin: &Value) -> String {
    match origin {
        Value::Object(evidence) => evidence.values().map(text).collect(),
        other => text(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = [["10.77.1.1", "5s"], ["10.77.1.100", "2h00m"]];
        let rows = rows.map(|row| row.map(str::to_owned).to_vec());
        assert_eq!(
            table(&["CLIENT", "LEFT"], &rows),
            "CLIENT       LEFT\n10.77.1.1    5s\n10.77.1.100  2h00m\n"
        );
    }

    #[test]
    fn cells_that_would_break_a_row_are_quoted() {
        let rows = [vec!["a,b".to_owned(), "say \"no\"".to_owned()]];
        assert_eq!(
            csv(&["ONE", "TWO"], &rows),
            "one,two\r\n\"a,b\",\"say \"\"no\"\"\"\r\n"
        );
    }

    #[test]
    fn durations_have_two_units_at_most() {
        let written = [0, 59, 60, 3599, 3600, 90_000].map(duration);
        assert_eq!(written, ["0s", "59s", "1m00s", "59m59s", "1h00m", "1d01h"]);
    }
}
