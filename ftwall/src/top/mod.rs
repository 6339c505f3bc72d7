//! `ftwall top`: a running daemon on a terminal, drawn anew every second from what its control socket
//! says.
//!
//! ```text
//!  control socket ── sample ──> view ──> screen ── terminal
//! ```

mod sample;
mod screen;
mod view;

use std::io::{self, IsTerminal as _};
use std::path::Path;
use std::time::Duration;

use ratatui::Terminal;
use ratatui::backend::{Backend, TestBackend};
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use crate::control::wire::Failure;
use crate::gateway::clock::Clock;
use crate::gateway::failure::{FAILURE, USAGE};
use sample::Sample;
use view::{Key, View};

/// Columns and rows of a terminal nobody has made larger.
const USUAL_SIZE: (u16, u16) = (80, 24);

/// Shows the daemon that listens at `socket` until a key ends it, asking it again every `interval`. A
/// daemon that goes away is waited for.
///
/// # Errors
/// When standard output is no terminal, no daemon answers at first, or the terminal fails.
pub fn live(socket: &Path, interval: Duration) -> Result<(), Failure> {
    if !io::stdout().is_terminal() {
        let remedy = "print one screen with --once, or ask for `ftwall status`";
        return Err(Failure::new(
            USAGE,
            format!("standard output is no terminal: {remedy}"),
        ));
    }
    let clock = Clock::start();
    let first = Sample::take(socket, clock.now())?;
    let mut view = View::new(first);
    let mut terminal = ratatui::try_init().map_err(|error| unusable(&error))?;
    let ended = watch(&mut terminal, &mut view, socket, &clock, interval);
    ratatui::try_restore().map_err(|error| unusable(&error))?;
    ended
}

/// One screen as text, as large as a terminal usually is.
///
/// # Errors
/// When no daemon answers.
pub fn once(socket: &Path) -> Result<String, Failure> {
    let view = View::new(Sample::take(socket, Clock::start().now())?);
    Ok(as_text(&view))
}

fn as_text(view: &View) -> String {
    let (columns, rows) = USUAL_SIZE;
    let mut terminal =
        Terminal::new(TestBackend::new(columns, rows)).unwrap_or_else(|never| match never {});
    terminal
        .draw(|frame| screen::draw(frame, view))
        .unwrap_or_else(|never| match never {});
    let buffer = terminal.backend().buffer();
    let lines = buffer.content.chunks(usize::from(columns)).map(|cells| {
        let line: String = cells.iter().map(ratatui::buffer::Cell::symbol).collect();
        line.trim_end().to_owned() + "\n"
    });
    lines.collect()
}

fn watch<B: Backend<Error = io::Error>>(
    terminal: &mut Terminal<B>,
    view: &mut View,
    socket: &Path,
    clock: &Clock,
    interval: Duration,
) -> Result<(), Failure> {
    let mut due = clock.now() + interval;
    loop {
        terminal
            .draw(|frame| screen::draw(frame, view))
            .map_err(|error| unusable(&error))?;
        let patience = due.saturating_since(clock.now());
        if event::poll(patience).map_err(|error| unusable(&error))? {
            match key(&event::read().map_err(|error| unusable(&error))?) {
                Some(Key::Quit) => return Ok(()),
                Some(key) => view.press(key),
                None => {}
            }
        }
        let now = clock.now();
        if now >= due {
            due = now + interval;
            view.update(Sample::take(socket, now));
        }
    }
}

/// What a key means; the screen is drawn anew after any other event as well.
fn key(event: &Event) -> Option<Key> {
    let Event::Key(KeyEvent {
        code,
        modifiers,
        kind: KeyEventKind::Press,
        ..
    }) = event
    else {
        return None;
    };
    match code {
        KeyCode::Char('q') | KeyCode::Esc => Some(Key::Quit),
        KeyCode::Char('c') if modifiers.contains(KeyModifiers::CONTROL) => Some(Key::Quit),
        KeyCode::Tab => Some(Key::OtherList),
        KeyCode::Char(' ') => Some(Key::Hold),
        KeyCode::Down | KeyCode::Char('j') => Some(Key::Down),
        KeyCode::Up | KeyCode::Char('k') => Some(Key::Up),
        _ => None,
    }
}

fn unusable(error: &io::Error) -> Failure {
    Failure::new(FAILURE, format!("the terminal cannot be used: {error}"))
}
