//! Records the frames of an interface, inside this process: rootless namespaces cannot run tcpdump.

use std::{
    fs::File,
    io::{self, BufWriter},
    os::fd::{AsFd, OwnedFd},
    path::Path,
    sync::Arc,
    thread::JoinHandle,
    time::Duration,
};

use ipnet::Ipv4Net;
use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};

use crate::{
    live::Node,
    packet_socket::{Outgoing, PacketSocket},
    pcap,
};

/// One recorded frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// When the kernel saw it, since the Unix epoch.
    pub at: Duration,
    /// Which way it went, seen from the node.
    pub heading: Heading,
    /// Octets it had; `bytes` may hold fewer.
    pub length: usize,
    /// The frame from its Ethernet header on.
    pub bytes: Vec<u8>,
}

/// Which way a frame went, seen from the node whose interface was recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heading {
    /// Into the node.
    In,
    /// Out of the node.
    Out,
}

/// A finished recording.
#[derive(Debug, Clone, Default)]
pub struct Frames {
    /// The frames, in the order the kernel saw them.
    pub frames: Vec<Frame>,
    /// Frames that passed and are missing here, because the kernel's buffer was full. A witness that
    /// says "nothing passed" must have lost nothing.
    pub lost: u32,
}

/// Something in the way of a recording.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    /// The socket could not be opened.
    #[error("cannot record {interface} of {node}: {source}")]
    Open {
        /// The node.
        node: String,
        /// The interface.
        interface: String,
        /// What the system said.
        source: io::Error,
    },
    /// Reading stopped in the middle.
    #[error("the recording of {0} broke off: {1}")]
    Broken(String, #[source] io::Error),
}

/// A recording under way. Dropping it discards what was recorded.
#[derive(Debug)]
pub struct Capture {
    name: String,
    stop: Arc<OwnedFd>,
    reader: Option<JoinHandle<io::Result<Frames>>>,
}

impl Capture {
    /// Keeps frames whole.
    pub(crate) const WHOLE: usize = 1 << 18;

    /// Records frames to or from a network only.
    pub(crate) fn start_for(
        node: &Node,
        interface: &str,
        network: Ipv4Net,
    ) -> Result<Self, CaptureError> {
        let open = || PacketSocket::open_for(interface, Outgoing::Shown, network);
        Self::try_start(node, interface, open, Self::WHOLE)
            .map_err(|source| not_opened(node, interface, source))
    }

    pub(crate) fn start(
        node: &Node,
        interface: &str,
        kept_octets: usize,
    ) -> Result<Self, CaptureError> {
        let open = || PacketSocket::open(interface, Outgoing::Shown);
        Self::try_start(node, interface, open, kept_octets)
            .map_err(|source| not_opened(node, interface, source))
    }

    fn try_start(
        node: &Node,
        interface: &str,
        open: impl FnOnce() -> io::Result<PacketSocket> + Send,
        kept_octets: usize,
    ) -> io::Result<Self> {
        let socket = node.enter(open)??;
        let stop = Arc::new(eventfd(0, EventfdFlags::CLOEXEC)?);
        let name = format!("{}/{interface}", node.name());
        let recorder = Recorder {
            socket,
            stop: Arc::clone(&stop),
            buffer: vec![0; kept_octets.max(1)],
        };
        let thread = std::thread::Builder::new().name(format!("capture {name}"));
        Ok(Self {
            name,
            stop,
            reader: Some(thread.spawn(move || recorder.record())?),
        })
    }

    /// Ends the recording; every frame that passed before this call is in it.
    ///
    /// # Errors
    /// When reading had failed in between.
    pub fn stop(mut self) -> Result<Frames, CaptureError> {
        let name = std::mem::take(&mut self.name);
        self.finish()
            .map_err(|source| CaptureError::Broken(name, source))
    }

    fn finish(&mut self) -> io::Result<Frames> {
        let Some(reader) = self.reader.take() else {
            return Ok(Frames::default());
        };
        raise(&self.stop)?;
        reader
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

fn not_opened(node: &Node, interface: &str, source: io::Error) -> CaptureError {
    CaptureError::Open {
        node: node.name().to_owned(),
        interface: interface.to_owned(),
        source,
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        if let Err(error) = self.finish() {
            tracing::warn!(capture = %self.name, %error, "a recording nobody asked for had failed");
        }
    }
}

impl Frames {
    /// Writes the recording as a pcap file with nanosecond stamps.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write_pcap(&self, path: impl AsRef<Path>) -> io::Result<()> {
        pcap::write(BufWriter::new(File::create(path)?), &self.frames)
    }
}

/// Makes an eventfd readable: the sign for a thread to finish.
pub(crate) fn raise(event: &OwnedFd) -> io::Result<()> {
    rustix::io::write(event, &1_u64.to_ne_bytes())?;
    Ok(())
}

struct Recorder {
    socket: PacketSocket,
    stop: Arc<OwnedFd>,
    buffer: Vec<u8>,
}

impl Recorder {
    fn record(mut self) -> io::Result<Frames> {
        let mut frames = Vec::new();
        loop {
            let stopping = self.wait()?;
            // What has already arrived is fetched even when the sign to stop came with it.
            self.fetch(&mut frames)?;
            if stopping {
                return Ok(Frames {
                    frames,
                    lost: self.socket.lost()?,
                });
            }
        }
    }

    /// Waits for frames or for the sign to stop, and says whether it was the latter.
    fn wait(&self) -> io::Result<bool> {
        let mut fds = [
            PollFd::from_borrowed_fd(self.socket.as_fd(), PollFlags::IN),
            PollFd::new(&*self.stop, PollFlags::IN),
        ];
        rustix::io::retry_on_intr(|| poll(&mut fds, None))?;
        Ok(!fds[1].revents().is_empty())
    }

    fn fetch(&mut self, frames: &mut Vec<Frame>) -> io::Result<()> {
        while let Some(received) = self.socket.receive(&mut self.buffer)? {
            let kept = received.length.min(self.buffer.len());
            frames.push(Frame {
                at: received.at,
                heading: if received.outgoing {
                    Heading::Out
                } else {
                    Heading::In
                },
                length: received.length,
                bytes: self.buffer[..kept].to_vec(),
            });
        }
        Ok(())
    }
}
