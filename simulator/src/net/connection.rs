//! One TCP connection as a task of its own: everything that happens to it goes to the loop that owns
//! the state machine, everything to be written comes from there.

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::time::Duration;

use nix::sys::socket::{MsgFlags, send};
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

use crate::report::{AttemptId, Event, Failure, Part};
use crate::reporter::Reporter;

/// Octets read at once.
const READ_BUFFER: usize = 16 * 1024;

/// How long a connection closed here waits for the other side to close too.
const LINGER: Duration = Duration::from_secs(10);

/// What happened to a connection.
#[derive(Debug)]
pub(super) enum Happening {
    /// It is up.
    Connected,
    /// Bytes came in.
    Data(Vec<u8>),
    /// It ended.
    Ended(Failure),
}

/// What is to be done with a connection.
#[derive(Debug)]
enum Order {
    Write { part: Part, bytes: Vec<u8> },
    Close,
}

/// Whose account of written bytes a connection belongs to.
#[derive(Debug, Clone, Copy)]
pub(super) enum Account {
    /// A client's attempt.
    Attempt(AttemptId),
    /// An outside peer's end.
    Peer {
        /// The peer.
        local: SocketAddr,
        /// The other side.
        remote: SocketAddr,
    },
}

impl Account {
    fn sent(self, part: Part, bytes: usize) -> Event {
        let bytes = bytes as u64;
        match self {
            Self::Attempt(id) => Event::Sent { id, part, bytes },
            Self::Peer { local, remote } => Event::PeerSent {
                local,
                remote,
                part,
                bytes,
            },
        }
    }
}

/// What a connection's task needs besides its socket.
pub(super) struct Setting<K> {
    /// The connection's name in [`Happening`]s.
    pub(super) key: K,
    /// Where they go.
    pub(super) happenings: mpsc::UnboundedSender<(K, Happening)>,
    /// Whose account.
    pub(super) account: Account,
    /// Where written bytes are reported.
    pub(super) reporter: Reporter,
    /// Octets per segment, if writes are to be cut.
    pub(super) segment: Option<usize>,
}

/// The loop's end of a connection. Dropping it resets the connection.
pub(super) struct Handle {
    orders: mpsc::UnboundedSender<Order>,
    task: AbortHandle,
    closing: bool,
}

impl Handle {
    /// Asks for bytes to be written.
    pub(super) fn write(&self, part: Part, bytes: Vec<u8>) {
        // A task that has ended has said so; what was still to be written is moot.
        let _ = self.orders.send(Order::Write { part, bytes });
    }

    /// Asks for an orderly close after everything written. The task ends by itself.
    pub(super) fn close(&mut self) {
        self.closing = true;
        let _ = self.orders.send(Order::Close);
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        if !self.closing {
            self.task.abort();
        }
    }
}

/// A TCP socket bound to `address`, and the address it got.
pub(super) fn bind(address: SocketAddr) -> io::Result<(Socket, SocketAddr)> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    let local = socket
        .local_addr()?
        .as_socket()
        .ok_or(io::ErrorKind::AddrNotAvailable)?;
    Ok((socket, local))
}

/// Sends the SYN before it returns; [`dial`] waits for the rest.
pub(super) fn begin_connect(socket: Socket, peer: SocketAddr) -> io::Result<TcpStream> {
    match socket.connect(&peer.into()) {
        Err(error) if error.raw_os_error() != Some(nix::libc::EINPROGRESS) => return Err(error),
        Ok(()) | Err(_) => {}
    }
    TcpStream::from_std(socket.into())
}

/// Waits until a connecting socket is up and serves the connection.
pub(super) fn dial<K: Copy + 'static>(stream: TcpStream, setting: Setting<K>) -> Handle {
    spawn(setting, async move {
        stream.writable().await?;
        stream.take_error()?.map_or(Ok(stream), Err)
    })
}

/// Serves a connection that came in.
pub(super) fn serve<K: Copy + 'static>(stream: TcpStream, setting: Setting<K>) -> Handle {
    spawn(setting, async move { Ok(stream) })
}

fn spawn<K: Copy + 'static>(
    setting: Setting<K>,
    stream: impl Future<Output = io::Result<TcpStream>> + 'static,
) -> Handle {
    let (orders, incoming) = mpsc::unbounded_channel();
    let task = tokio::task::spawn_local(async move {
        let why = match stream.await {
            Ok(stream) => converse(&stream, incoming, &setting).await,
            Err(error) => failure_of(&error),
        };
        setting.say(Happening::Ended(why));
    });
    Handle {
        orders,
        task: task.abort_handle(),
        closing: false,
    }
}

impl<K: Copy> Setting<K> {
    fn say(&self, happening: Happening) {
        // The loop ends first when the run is over.
        let _ = self.happenings.send((self.key, happening));
    }
}

async fn converse<K: Copy>(
    stream: &TcpStream,
    mut orders: mpsc::UnboundedReceiver<Order>,
    setting: &Setting<K>,
) -> Failure {
    if let Err(error) = prepare(stream) {
        return failure_of(&error);
    }
    setting.say(Happening::Connected);
    let reading = read_all(stream, setting);
    let writing = async {
        if let Err(error) = obey(stream, &mut orders, setting).await {
            return failure_of(&error);
        }
        // Closed here; the reader sees the other side's end, unless that never comes.
        tokio::time::sleep(LINGER).await;
        Failure::Timeout
    };
    tokio::select! {
        why = reading => why,
        why = writing => why,
    }
}

/// No waiting for full segments; and a connection given up is reset, not closed, so that a peer can
/// tell the two apart.
fn prepare(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    stream.set_zero_linger()
}

async fn read_all<K: Copy>(stream: &TcpStream, setting: &Setting<K>) -> Failure {
    let mut buffer = vec![0; READ_BUFFER];
    loop {
        let read = async {
            stream.readable().await?;
            stream.try_read(&mut buffer)
        };
        match read.await {
            Ok(0) => return closed_by_the_other_side(stream),
            Ok(len) => setting.say(Happening::Data(buffer[..len].to_vec())),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return failure_of(&error),
        }
    }
}

/// The other side is done, so this side's end need no longer be a reset, whoever comes first.
fn closed_by_the_other_side(stream: &TcpStream) -> Failure {
    match SockRef::from(stream).set_linger(None) {
        Ok(()) => Failure::Closed,
        Err(error) => failure_of(&error),
    }
}

async fn obey<K: Copy>(
    stream: &TcpStream,
    orders: &mut mpsc::UnboundedReceiver<Order>,
    setting: &Setting<K>,
) -> io::Result<()> {
    while let Some(order) = orders.recv().await {
        match order {
            Order::Write { part, bytes } => {
                write_all(stream, &bytes, setting.segment).await?;
                setting
                    .reporter
                    .emit(setting.account.sent(part, bytes.len()));
            }
            Order::Close => break,
        }
    }
    SockRef::from(stream).shutdown(std::net::Shutdown::Write)
}

/// Writes in pieces. `MSG_EOR` keeps Linux from joining a piece with the next while both wait in the
/// send queue, which turning Nagle's algorithm off does not.
async fn write_all(stream: &TcpStream, bytes: &[u8], segment: Option<usize>) -> io::Result<()> {
    let flags = MsgFlags::MSG_NOSIGNAL | segment.map_or(MsgFlags::empty(), |_| MsgFlags::MSG_EOR);
    for piece in bytes.chunks(segment.unwrap_or(bytes.len()).max(1)) {
        let mut left = piece;
        while !left.is_empty() {
            let write = || send(stream.as_raw_fd(), left, flags).map_err(io::Error::from);
            let written = stream.async_io(Interest::WRITABLE, write).await?;
            left = &left[written..];
        }
    }
    Ok(())
}

/// What a socket's error means to a client.
pub(super) fn failure_of(error: &io::Error) -> Failure {
    use io::ErrorKind::{
        BrokenPipe, ConnectionAborted, ConnectionRefused, ConnectionReset, HostUnreachable,
        NetworkUnreachable, PermissionDenied, TimedOut,
    };
    match error.kind() {
        TimedOut => Failure::Timeout,
        ConnectionRefused | ConnectionReset | ConnectionAborted | BrokenPipe | HostUnreachable => {
            Failure::Reset
        }
        // An ICMP "administratively prohibited" arrives as the first, "network unreachable" as the
        // second; without a route the second is local, and then every attempt says so.
        PermissionDenied | NetworkUnreachable => Failure::Reset,
        _ => Failure::Local,
    }
}
