//! The other end of the control socket: a command asks a daemon and shows what it says.

use std::io::{self, BufRead as _, BufReader, ErrorKind, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use super::wire::{Command, Failure, Outcome, Request, Response, VERSION};
use crate::gateway::failure::{FAILURE, NO_PRIVILEGE, NOT_RUNNING};

/// Longer than a daemon waits for its workers.
const LONGEST_ANSWER: Duration = Duration::from_secs(10);

/// Asks the daemon that listens at `socket`.
///
/// # Errors
/// When none listens, or it does not do what is asked.
pub fn ask(socket: &Path, command: Command) -> Result<Value, Failure> {
    let response = exchange(socket, command).map_err(|error| refused(socket, &error))?;
    match response.outcome {
        Outcome::Ok(value) => Ok(value),
        Outcome::Error(failure) => Err(failure),
    }
}

fn exchange(socket: &Path, command: Command) -> io::Result<Response> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(LONGEST_ANSWER))?;
    let request = Request {
        version: VERSION,
        command,
    };
    let mut line = serde_json::to_vec(&request)?;
    line.push(b'\n');
    stream.write_all(&line)?;
    let mut answer = String::new();
    BufReader::new(stream).read_line(&mut answer)?;
    Ok(serde_json::from_str(&answer)?)
}

fn refused(socket: &Path, error: &io::Error) -> Failure {
    let socket = socket.display();
    match error.kind() {
        ErrorKind::NotFound | ErrorKind::ConnectionRefused => {
            let message = format!("ftwall is not running: nobody listens at {socket}");
            Failure::new(NOT_RUNNING, message)
        }
        ErrorKind::PermissionDenied => {
            let message = format!("{socket} is not for you: ask root, or join the socket's group");
            Failure::new(NO_PRIVILEGE, message)
        }
        _ => Failure::new(FAILURE, format!("asking at {socket}: {error}")),
    }
}
