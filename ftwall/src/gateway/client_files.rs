//! A file for each locked client, named by its address: what scripts of 2003's `-c` look for.
//!
//! What those files held is not known; here a file says since when its client is locked. The list is put in
//! order when the daemon starts and follows its events; whoever needs more asks `ftwall clients`.

use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use tracing::warn;

use super::event_log::Listener;
use super::failure::Misconfigured;
use crate::{EventType, Timestamp};

/// The directory.
#[derive(Clone, Debug)]
pub(super) struct ClientFiles {
    directory: PathBuf,
}

impl ClientFiles {
    /// A directory that is there, or can be made, without files of clients that an earlier daemon left.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(super) fn open(directory: PathBuf) -> Result<Self, Misconfigured> {
        let files = Self { directory };
        let opened = fs::create_dir_all(&files.directory).and_then(|()| files.clear());
        opened.map_err(|error| {
            let directory = files.directory.display();
            Misconfigured(format!(
                "cannot use the client_directory {directory}: {error}; name one that the daemon's user may write"
            ))
        })?;
        Ok(files)
    }

    /// What has to hear of each event.
    pub(super) fn listener(&self) -> Listener {
        let (files, mut has_failed) = (self.clone(), false);
        Box::new(move |now, event, _| {
            let Some(client) = event.ftwall.client else {
                return;
            };
            let done = match event.event_type {
                EventType::ClientLocked => files.add(client, now),
                EventType::OperatorBlocked if event.ftwall.peer.is_none() => files.add(client, now),
                EventType::ClientReleased => files.remove(client),
                _ => return,
            };
            if let Err(error) = done
                && !std::mem::replace(&mut has_failed, true)
            {
                let directory = files.directory.display();
                warn!(%client, %directory, %error, "the client directory is not kept up");
            }
        })
    }

    /// Adds a client that is locked.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub(super) fn add(&self, client: Ipv4Addr, since: Timestamp) -> io::Result<()> {
        let line = format!("locked since {}\n", since.rfc3339());
        fs::write(self.file(client), line)
    }

    /// Takes every client's file away, and nothing else.
    ///
    /// # Errors
    /// When one cannot be removed.
    pub(super) fn clear(&self) -> io::Result<()> {
        for entry in fs::read_dir(&self.directory)? {
            let name = entry?.file_name();
            if let Some(client) = name.to_str().and_then(|name| name.parse().ok()) {
                self.remove(client)?;
            }
        }
        Ok(())
    }

    fn remove(&self, client: Ipv4Addr) -> io::Result<()> {
        match fs::remove_file(self.file(client)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed,
        }
    }

    fn file(&self, client: Ipv4Addr) -> PathBuf {
        Path::new(&self.directory).join(client.to_string())
    }
}
