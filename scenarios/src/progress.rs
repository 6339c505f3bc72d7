//! One line on a terminal that says how far a long search is.
//!
//! Written by hand: a crate for progress bars would bring five others along for this one line.

use std::io::{self, IsTerminal, Write};
use std::sync::{Mutex, PoisonError};

/// Characters of the bar.
const WIDTH: usize = 30;

/// A line that is drawn over and over on standard error, if that is a terminal.
#[derive(Debug)]
pub struct Progress {
    drawn: Mutex<String>,
    is_seen: bool,
}

impl Progress {
    /// A line that nobody has seen yet.
    #[must_use]
    pub fn new() -> Self {
        Self {
            drawn: Mutex::default(),
            is_seen: io::stderr().is_terminal(),
        }
    }

    /// Draws the line anew if it would look different.
    pub fn draw(&self, done: usize, all: usize, what: &str) {
        if !self.is_seen {
            return;
        }
        let line = line(done, all, what);
        let mut drawn = self.drawn.lock().unwrap_or_else(PoisonError::into_inner);
        if *drawn != line {
            // A terminal that is gone needs no line.
            let _ = write!(io::stderr(), "\r\x1b[K{line}");
            *drawn = line;
        }
    }

    /// Takes the line away, so that something else can stand there.
    pub fn clear(&self) {
        let drawn = std::mem::take(&mut *self.drawn.lock().unwrap_or_else(PoisonError::into_inner));
        if !drawn.is_empty() {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }
}

impl Default for Progress {
    fn default() -> Self {
        Self::new()
    }
}

fn line(done: usize, all: usize, what: &str) -> String {
    let filled = WIDTH * done.min(all) / all.max(1);
    let bar: String = (0..WIDTH)
        .map(|place| if place < filled { '#' } else { '.' })
        .collect();
    format!("[{bar}] {done}/{all} {what}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bar_fills_with_what_is_done() {
        assert_eq!(line(0, 10, "x"), format!("[{}] 0/10 x", ".".repeat(30)));
        assert_eq!(
            line(5, 10, "x"),
            format!("[{}{}] 5/10 x", "#".repeat(15), ".".repeat(15))
        );
        assert_eq!(line(10, 10, "x"), format!("[{}] 10/10 x", "#".repeat(30)));
        assert_eq!(line(0, 0, ""), format!("[{}] 0/0 ", ".".repeat(30)));
    }
}
