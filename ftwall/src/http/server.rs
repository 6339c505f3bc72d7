//! The listener and its connections: few at a time, one request each, and none for long.

use std::fs::Permissions;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags};
use tracing::debug;

use super::request::{LONGEST_HEAD, Request};
use crate::Timestamp;
use crate::control::setting::HttpListen;

/// Connections that are open at once; a newcomer takes the place of the oldest.
const MAX_CONNECTIONS: usize = 16;
/// How long somebody may take to ask and to read the answer.
const LONGEST_VISIT: Duration = Duration::from_secs(10);
/// The owner and the group may look.
const SOCKET_MODE: u32 = 0o660;

/// A document and its media type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Body {
    /// The media type.
    pub media_type: &'static str,
    /// The document.
    pub text: String,
}

/// Listens for visitors.
#[derive(Debug)]
pub struct HttpServer {
    listener: Listener,
    /// The oldest first.
    connections: Vec<Connection>,
}

#[derive(Debug)]
enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener, PathBuf),
}

#[derive(Debug)]
enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

#[derive(Debug)]
struct Connection {
    stream: Stream,
    ends: Timestamp,
    received: Vec<u8>,
    /// What is left of the answer, once there is one.
    unsent: Option<Vec<u8>>,
}

impl HttpServer {
    /// Listens where it was configured; nothing if it was not.
    ///
    /// # Errors
    /// When the place is taken or cannot be written to.
    pub fn bind(place: &HttpListen) -> io::Result<Option<Self>> {
        let listener = match place {
            HttpListen::Off => return Ok(None),
            HttpListen::Tcp(address) => {
                let listener = TcpListener::bind(address)?;
                listener.set_nonblocking(true)?;
                Listener::Tcp(listener)
            }
            HttpListen::Unix(path) => Listener::Unix(bind_unix(path)?, path.clone()),
        };
        Ok(Some(Self {
            listener,
            connections: Vec::new(),
        }))
    }

    /// What to wait for.
    pub fn sources(&self) -> impl Iterator<Item = PollFd<'_>> {
        let listener: BorrowedFd<'_> = match &self.listener {
            Listener::Tcp(listener) => listener.as_fd(),
            Listener::Unix(listener, _) => listener.as_fd(),
        };
        let listener = PollFd::from_borrowed_fd(listener, PollFlags::IN);
        let connections = self.connections.iter().map(Connection::source);
        std::iter::once(listener).chain(connections)
    }

    /// Takes up what has come and answers it.
    pub fn serve(&mut self, now: Timestamp, answer: &mut dyn FnMut(Request) -> Body) {
        while let Some(stream) = self.accept() {
            if self.connections.len() == MAX_CONNECTIONS {
                self.connections.remove(0);
            }
            self.connections.push(Connection {
                stream,
                ends: now + LONGEST_VISIT,
                received: Vec::new(),
                unsent: None,
            });
        }
        self.connections.retain_mut(|connection| {
            connection.ends > now && connection.serve(answer).unwrap_or(false)
        });
    }

    fn accept(&self) -> Option<Stream> {
        match &self.listener {
            Listener::Tcp(listener) => {
                let (stream, _) = listener.accept().ok()?;
                stream.set_nonblocking(true).ok()?;
                Some(Stream::Tcp(stream))
            }
            Listener::Unix(listener, _) => {
                let (stream, _) = listener.accept().ok()?;
                stream.set_nonblocking(true).ok()?;
                Some(Stream::Unix(stream))
            }
        }
    }
}

impl Drop for HttpServer {
    fn drop(&mut self) {
        if let Listener::Unix(_, path) = &self.listener
            && let Err(error) = std::fs::remove_file(path)
        {
            debug!(%error, "the page's socket is gone already");
        }
    }
}

/// Listens at `path`, in place of a socket that a daemon before this one has left.
fn bind_unix(path: &PathBuf) -> io::Result<UnixListener> {
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
    Ok(listener)
}

impl Connection {
    fn source(&self) -> PollFd<'_> {
        let wanted = match self.unsent {
            None => PollFlags::IN,
            Some(_) => PollFlags::OUT,
        };
        PollFd::from_borrowed_fd(self.stream.as_fd(), wanted)
    }

    /// False once it is over.
    fn serve(&mut self, answer: &mut dyn FnMut(Request) -> Body) -> io::Result<bool> {
        while self.unsent.is_none() {
            let mut octets = [0; LONGEST_HEAD];
            match self.stream.read(&mut octets) {
                Ok(0) => return Ok(false),
                Ok(count) => self.received.extend(&octets[..count]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(true),
                Err(error) => return Err(error),
            }
            self.unsent = Request::read(&self.received).map(|request| match request {
                Ok(request) => response("200 OK", &answer(request), request.head_only),
                Err(refusal) => {
                    let media_type = "text/plain; charset=utf-8";
                    let text = format!("{}\n", refusal.status());
                    response(refusal.status(), &Body { media_type, text }, false)
                }
            });
        }
        self.send()
    }

    fn send(&mut self) -> io::Result<bool> {
        let unsent = self.unsent.get_or_insert_default();
        while !unsent.is_empty() {
            match self.stream.write(unsent) {
                Ok(count) => drop(unsent.drain(..count)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(true),
                Err(error) => return Err(error),
            }
        }
        Ok(false)
    }
}

/// A whole answer. Pages load nothing, run nothing and are framed by nobody.
fn response(status: &str, body: &Body, head_only: bool) -> Vec<u8> {
    let Body { media_type, text } = body;
    let length = text.len();
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {media_type}\r\nContent-Length: {length}\r\n\
        Connection: close\r\nCache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\n\
        Content-Security-Policy: default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'\r\n\r\n"
    );
    let text = if head_only { "" } else { text };
    [head.as_bytes(), text.as_bytes()].concat()
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(stream) => stream.as_fd(),
            Self::Unix(stream) => stream.as_fd(),
        }
    }
}

impl Read for Stream {
    fn read(&mut self, octets: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.read(octets),
            Self::Unix(stream) => stream.read(octets),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.write(octets),
            Self::Unix(stream) => stream.write(octets),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_visitor_gets_what_was_asked_for_and_is_shown_out() {
        let mut test = Test::new("asked");
        let mut visitor = test.visit(b"GET /metrics HT");
        test.serve_at(0);
        visitor.write_all(b"TP/1.1\r\n\r\n").expect("it is up");
        test.serve_at(1);
        let heard = hear(visitor);
        assert!(
            heard.starts_with(
                "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 7\r\n"
            ),
            "{heard}"
        );
        assert!(heard.ends_with("\r\n\r\nMetrics"), "{heard}");
        let visitor = test.visit(b"HEAD / HTTP/1.1\r\n\r\n");
        test.serve_at(1);
        let heard = hear(visitor);
        assert!(
            heard.contains("Content-Length: 4\r\n") && heard.ends_with("\r\n\r\n"),
            "{heard}"
        );
        let visitor = test.visit(b"DELETE / HTTP/1.1\r\n\r\n");
        test.serve_at(1);
        assert!(hear(visitor).starts_with("HTTP/1.1 405 "));
        assert!(test.server.connections.is_empty());
    }

    #[test]
    fn who_asks_slowly_or_never_is_not_waited_for() {
        let mut test = Test::new("slow");
        let visitor = test.visit(b"GET / HTTP/1.1\r\n");
        test.serve_at(0);
        test.serve_at(9);
        assert_eq!(test.server.connections.len(), 1);
        test.serve_at(10);
        assert!(test.server.connections.is_empty());
        assert_eq!(hear(visitor), "");
    }

    #[test]
    fn a_crowd_is_let_in_a_few_at_a_time() {
        let mut test = Test::new("crowd");
        let crowd: Vec<_> = (0..3 * MAX_CONNECTIONS)
            .map(|_| test.visit(b"GET "))
            .collect();
        test.serve_at(0);
        assert_eq!(test.server.connections.len(), MAX_CONNECTIONS);
        let latecomer = test.visit(b"GET / HTTP/1.1\r\n\r\n");
        test.serve_at(0);
        assert!(hear(latecomer).ends_with("Page"));
        drop(crowd);
    }

    #[test]
    fn a_place_is_taken_from_the_dead_and_not_from_the_living() {
        let path = place("twice");
        drop(UnixListener::bind(&path).expect("room is left"));
        let living = HttpServer::bind(&HttpListen::Unix(path.clone())).expect("nobody listens");
        let error = HttpServer::bind(&HttpListen::Unix(path.clone())).expect_err("somebody does");
        assert_eq!(error.kind(), ErrorKind::AddrInUse);
        drop(living);
        assert!(!path.exists());
        assert!(matches!(HttpServer::bind(&HttpListen::Off), Ok(None)));
    }

    struct Test {
        server: HttpServer,
        path: PathBuf,
    }

    impl Test {
        fn new(name: &str) -> Self {
            let path = place(name);
            let server = HttpServer::bind(&HttpListen::Unix(path.clone()));
            let server = server.expect("nobody listens").expect("it is on");
            Self { server, path }
        }

        fn visit(&self, octets: &[u8]) -> UnixStream {
            let mut visitor = UnixStream::connect(&self.path).expect("it listens");
            visitor.write_all(octets).expect("there is room");
            visitor
        }

        fn serve_at(&mut self, seconds: u64) {
            self.server
                .serve(Timestamp::from_secs(seconds), &mut |request| Body {
                    media_type: "text/plain",
                    text: format!("{:?}", request.document),
                });
        }
    }

    /// Everything until the other end closes.
    fn hear(mut visitor: UnixStream) -> String {
        let mut heard = String::new();
        visitor.read_to_string(&mut heard).expect("it is text");
        heard
    }

    fn place(name: &str) -> PathBuf {
        let name = format!("ftwall-http-{}-{name}", std::process::id());
        std::env::temp_dir().join(name)
    }
}
