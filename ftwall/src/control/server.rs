//! The daemon's end of the control socket. It never waits for anybody: who reads slowly is written to
//! when there is room, and who says nothing is forgotten when somebody else comes.

use std::fs::Permissions;
use std::io::{self, ErrorKind, Read, Write as _};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use rustix::event::{PollFd, PollFlags};
use serde_json::Value;
use tracing::debug;

use super::wire::{Failure, LONGEST_REQUEST, Request, Response, VERSION};
use crate::gateway::failure::{FAILURE, NO_PRIVILEGE, USAGE};

/// Connections that are open at once.
const MAX_CONNECTIONS: usize = 16;
/// The owner and the group may connect; what the group may do is decided by [`Access`].
const SOCKET_MODE: u32 = 0o660;

/// Listens for requests.
#[derive(Debug)]
pub struct ControlServer {
    listener: UnixListener,
    path: PathBuf,
    /// The oldest first.
    connections: Vec<Connection>,
}

/// What somebody may ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Access {
    /// Everything: root, or whoever the daemon runs as.
    Everything,
    /// What changes nothing.
    Reading,
}

#[derive(Debug)]
struct Connection {
    stream: UnixStream,
    access: Access,
    /// Octets that are no whole request yet.
    received: Vec<u8>,
    /// Octets that there was no room for yet.
    unsent: Vec<u8>,
}

impl ControlServer {
    /// Listens at `path`, in place of a socket that a daemon before this one has left.
    ///
    /// # Errors
    /// When another daemon listens there, or the place cannot be written to.
    pub fn bind(path: &Path) -> io::Result<Self> {
        if let Some(directory) = path.parent() {
            std::fs::create_dir_all(directory)?;
        }
        if UnixStream::connect(path).is_ok() {
            return Err(ErrorKind::AddrInUse.into());
        }
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        let listener = UnixListener::bind(path)?;
        std::fs::set_permissions(path, Permissions::from_mode(SOCKET_MODE))?;
        listener.set_nonblocking(true)?;
        Ok(Self {
            listener,
            path: path.to_owned(),
            connections: Vec::new(),
        })
    }

    /// What to wait for.
    pub fn sources(&self) -> impl Iterator<Item = PollFd<'_>> {
        let listener = PollFd::from_borrowed_fd(self.listener.as_fd(), PollFlags::IN);
        let connections = self.connections.iter().map(Connection::source);
        std::iter::once(listener).chain(connections)
    }

    /// Takes up what has come and answers it.
    pub fn serve(&mut self, answer: &mut dyn FnMut(&Request) -> Result<Value, Failure>) {
        while let Ok((stream, _)) = self.listener.accept() {
            match Connection::new(stream) {
                Ok(connection) => self.admit(connection),
                Err(error) => debug!(%error, "a connection to the control socket came to nothing"),
            }
        }
        self.connections
            .retain_mut(|connection| connection.serve(answer).unwrap_or(false));
    }

    fn admit(&mut self, connection: Connection) {
        if self.connections.len() == MAX_CONNECTIONS {
            self.connections.remove(0);
        }
        self.connections.push(connection);
    }
}

impl Drop for ControlServer {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_file(&self.path) {
            debug!(%error, "the control socket is gone already");
        }
    }
}

impl Connection {
    fn new(stream: UnixStream) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        let peer = rustix::net::sockopt::socket_peercred(&stream)?;
        let is_ours = peer.uid.is_root() || peer.uid == rustix::process::geteuid();
        Ok(Self {
            stream,
            access: if is_ours {
                Access::Everything
            } else {
                Access::Reading
            },
            received: Vec::new(),
            unsent: Vec::new(),
        })
    }

    fn source(&self) -> PollFd<'_> {
        let wanted = if self.unsent.is_empty() {
            PollFlags::IN
        } else {
            PollFlags::OUT
        };
        let stream: BorrowedFd<'_> = self.stream.as_fd();
        PollFd::from_borrowed_fd(stream, wanted)
    }

    /// False once it is over. No request is read before the last answer is out.
    fn serve(
        &mut self,
        answer: &mut dyn FnMut(&Request) -> Result<Value, Failure>,
    ) -> io::Result<bool> {
        loop {
            if !self.send()? {
                return Ok(true);
            }
            if let Some(end) = self.received.iter().position(|octet| *octet == b'\n') {
                let line: Vec<u8> = self.received.drain(..=end).collect();
                self.respond(&line, answer);
            } else if self.received.len() > LONGEST_REQUEST {
                let message = format!("a request has at most {LONGEST_REQUEST} octets");
                self.queue(&Err(Failure::new(USAGE, message)).into());
                self.send()?;
                return Ok(false);
            } else {
                let mut octets = [0; LONGEST_REQUEST];
                match self.stream.read(&mut octets) {
                    Ok(0) => return Ok(false),
                    Ok(count) => self.received.extend(&octets[..count]),
                    Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(true),
                    Err(error) => return Err(error),
                }
            }
        }
    }

    fn respond(&mut self, line: &[u8], answer: &mut dyn FnMut(&Request) -> Result<Value, Failure>) {
        let outcome = self.admitted(line).and_then(|request| answer(&request));
        self.queue(&outcome.into());
    }

    fn admitted(&self, line: &[u8]) -> Result<Request, Failure> {
        let request: Request = serde_json::from_slice(line)
            .map_err(|error| Failure::new(USAGE, format!("not a request: {error}")))?;
        if request.version != VERSION {
            let message = format!(
                "this daemon speaks version {VERSION}, not {}",
                request.version
            );
            return Err(Failure::new(FAILURE, message));
        }
        if self.access == Access::Reading && !request.command.only_reads() {
            let message = "only root, or the user that ftwall runs as, may change anything";
            return Err(Failure::new(NO_PRIVILEGE, message));
        }
        Ok(request)
    }

    fn queue(&mut self, response: &Response) {
        let line = serde_json::to_vec(response).expect("answers are texts, numbers and lists");
        self.unsent.extend(line);
        self.unsent.push(b'\n');
    }

    /// Whether everything is out.
    fn send(&mut self) -> io::Result<bool> {
        while !self.unsent.is_empty() {
            match self.stream.write(&self.unsent) {
                Ok(count) => drop(self.unsent.drain(..count)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead as _, BufReader};

    use serde_json::json;

    use super::*;

    #[test]
    fn requests_are_answered_in_their_order_and_wrong_ones_told_so() {
        let mut test = Test::new("order");
        test.say(b"{\"version\":1,\"command\":\"clients\"}\n{\"version\":1,\"com");
        assert_eq!(test.hear(), json!({ "version": 1, "ok": "Clients" }));
        test.say(b"mand\":\"reload\"}\n");
        assert_eq!(test.hear(), json!({ "version": 1, "ok": "Reload" }));
        for (wrong, words) in [
            ("{\"version\":2,\"command\":\"status\"}\n", "version 1"),
            (
                "{\"version\":1,\"command\":\"halt\"}\n",
                "unknown variant `halt`",
            ),
            ("status\n", "not a request"),
        ] {
            test.say(wrong.as_bytes());
            let answer = test.hear();
            let message = answer["error"]["message"].as_str().expect("an error");
            assert!(message.contains(words), "{message}");
        }
    }

    #[test]
    fn a_request_without_an_end_is_cut_off() {
        let mut test = Test::new("long");
        test.say(&[b'x'; LONGEST_REQUEST + 1]);
        let answer = test.hear();
        let message = answer["error"]["message"].as_str().expect("an error");
        assert!(message.contains("at most 4096"), "{message}");
        assert!(test.server.connections.is_empty());
    }

    #[test]
    fn who_may_only_read_changes_nothing() {
        let mut test = Test::new("group");
        test.say(b"{\"version\":1,\"command\":\"status\"}\n");
        test.hear();
        test.server.connections[0].access = Access::Reading;
        test.say(b"{\"version\":1,\"command\":\"reload\"}\n");
        assert_eq!(test.hear()["error"]["code"], NO_PRIVILEGE);
        test.say(b"{\"version\":1,\"command\":\"clients\"}\n");
        assert_eq!(test.hear()["ok"], "Clients");
    }

    #[test]
    fn a_place_is_taken_from_the_dead_and_not_from_the_living() {
        let path = place("twice");
        drop(UnixListener::bind(&path).expect("room is left"));
        let living = ControlServer::bind(&path).expect("nobody listens");
        let error = ControlServer::bind(&path).expect_err("somebody listens");
        assert_eq!(error.kind(), ErrorKind::AddrInUse);
        drop(living);
        assert!(!path.exists());
    }

    struct Test {
        server: ControlServer,
        client: BufReader<UnixStream>,
    }

    impl Test {
        fn new(name: &str) -> Self {
            let path = place(name);
            let server = ControlServer::bind(&path).expect("nobody listens");
            let client = UnixStream::connect(path).expect("it listens");
            Self {
                server,
                client: BufReader::new(client),
            }
        }

        fn say(&mut self, octets: &[u8]) {
            self.client.get_mut().write_all(octets).expect("it is up");
            self.server
                .serve(&mut |request| Ok(format!("{:?}", request.command).into()));
        }

        fn hear(&mut self) -> Value {
            let mut line = String::new();
            self.client
                .read_line(&mut line)
                .expect("an answer is there");
            serde_json::from_str(&line).expect("one object per line")
        }
    }

    fn place(name: &str) -> PathBuf {
        let name = format!("ftwall-control-{}-{name}", std::process::id());
        std::env::temp_dir().join(name)
    }
}
