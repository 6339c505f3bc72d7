//! A service manager, as far as a daemon speaks to one: hears what it says and keeps what it is given.

use std::collections::BTreeMap;
use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::Duration;

use anyhow::Context;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};

use crate::stage::namespaces::now;

/// A service manager.
pub(super) struct Manager {
    pub(super) socket: PathBuf,
    heard: Receiver<Heard>,
    /// What daemons have left, by the names they gave it.
    store: BTreeMap<String, OwnedFd>,
}

/// One datagram.
struct Heard {
    words: String,
    descriptors: Vec<OwnedFd>,
}

impl Manager {
    /// Listens; what a manager keeps outlives the daemon, so one that is to be gone for good has none.
    pub(super) fn listen(socket: &Path, has_store: bool) -> anyhow::Result<Self> {
        let ear = UnixDatagram::bind(socket).context("listening to the daemon")?;
        let (tell, heard) = mpsc::channel();
        // Ends when nobody wants to know any more, or with the capsule.
        thread::spawn(move || {
            while let Ok(mut one) = hear(&ear) {
                if !has_store {
                    one.descriptors.clear();
                }
                if tell.send(one).is_err() {
                    break;
                }
            }
        });
        Ok(Self {
            socket: socket.to_owned(),
            heard,
            store: BTreeMap::new(),
        })
    }

    /// Pays no heed to what was said so far; what was given is kept.
    pub(super) fn forget(&mut self) {
        while let Ok(one) = self.heard.try_recv() {
            self.keep(one);
        }
    }

    /// Waits until the daemon says a line.
    pub(super) fn wait_said(&mut self, wanted: &str, patience: Duration) -> anyhow::Result<()> {
        let end = now() + patience;
        loop {
            let left = end.saturating_duration_since(now());
            let said = self.heard.recv_timeout(left);
            let said = said.with_context(|| format!("the daemon never said {wanted}"))?;
            if self.keep(said).lines().any(|line| line == wanted) {
                return Ok(());
            }
        }
    }

    /// What was left to a successor.
    pub(super) fn take_store(&mut self) -> BTreeMap<String, OwnedFd> {
        self.forget();
        std::mem::take(&mut self.store)
    }

    /// Keeps what came with a datagram; returns its words.
    fn keep(&mut self, heard: Heard) -> String {
        let Heard { words, descriptors } = heard;
        let name = words.lines().find_map(|line| line.strip_prefix("FDNAME="));
        if let (Some(name), Some(descriptor)) = (name, descriptors.into_iter().next()) {
            self.store.insert(name.to_owned(), descriptor);
        }
        words
    }
}

fn hear(ear: &UnixDatagram) -> std::io::Result<Heard> {
    let mut octets = [0; 1024];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(8))];
    let mut attached = RecvAncillaryBuffer::new(&mut space);
    let mut text = [IoSliceMut::new(&mut octets)];
    let flags = RecvFlags::CMSG_CLOEXEC;
    let received = recvmsg(ear, &mut text, &mut attached, flags)?;
    let rights = attached.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
        _ => None,
    });
    let descriptors = rights.flatten().collect();
    let words = String::from_utf8_lossy(&octets[..received.bytes]).into_owned();
    Ok(Heard { words, descriptors })
}
