//! Telling the kernel who is locked and which peers are known.
//!
//! The kernel lets one program at a time change its rules and sets, and nobody knows for how long: the
//! packet loop only hands changes over, and a thread writes all that have come together in one
//! transaction. A change that does not reach the kernel costs protection in depth, not the promise: the
//! engine knows it too.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddrV4};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, channel, sync_channel};
use std::time::Duration;

use serde_json::{Value, json};
use tracing::warn;

use super::confinement;
use super::nft_json::{add_elements, address, concat, delete_elements, expiring};
use super::rules::{ALIVE, LOCKED, PEERS, PROVEN, Transport};
use super::set_elements::{SetError, SetWriter};
use crate::suspects::{ANNOUNCE_INTERVAL, RELEARN_INTERVAL};
use crate::{Action, EngineConfig};

/// Changes that may wait to be written.
const BACKLOG: usize = 4096;
/// Changes written at once at most, so that a flood does not delay the first of them for long.
pub const BATCH: usize = 1024;
/// How long the end of the daemon waits for changes to be written, if somebody else keeps the kernel
/// busy: the rules go next, and the sets with them.
const LONGEST_FINISH: Duration = Duration::from_secs(1);

/// What an element says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Element {
    /// This host is locked.
    Locked(Ipv4Addr),
    /// This client knows this peer, over this protocol.
    Peer(Ipv4Addr, SocketAddrV4, Transport),
    /// This address has proven to be something else than a peer.
    Proven(Ipv4Addr),
    /// The worker that packets of this mark wait for comes round.
    Alive(u32),
}

impl Element {
    /// The set it belongs to.
    pub(super) fn set(&self) -> &'static str {
        match self {
            Element::Locked(_) => LOCKED,
            Element::Peer(..) => PEERS,
            Element::Proven(_) => PROVEN,
            Element::Alive(_) => ALIVE,
        }
    }
}

/// One change: for how long the element stays from now on, or that it goes.
pub type Change = (Element, Option<Duration>);

/// Changes of which the last for each element counts, written in one transaction.
pub type Batch = BTreeMap<Element, Option<Duration>>;

/// Hands changes over to the thread that writes them.
#[derive(Clone, Debug)]
pub struct SetRequests(SyncSender<Change>);

impl SetRequests {
    /// Hands a change over; false if too many wait already and it is lost.
    #[must_use]
    pub fn request(&self, change: Change) -> bool {
        self.0.try_send(change).is_ok()
    }
}

/// The thread that writes sets.
#[derive(Debug)]
pub struct KernelSets {
    changes: SetRequests,
    failures: Receiver<SetError>,
    /// Closed when the thread has ended.
    ended: Receiver<()>,
}

impl KernelSets {
    /// Starts the thread, which writes in the network namespace of its caller.
    ///
    /// # Errors
    /// When the kernel has no netfilter or the system no thread left.
    pub fn start() -> std::io::Result<KernelSets> {
        let mut writer = SetWriter::open()?;
        let (changes, received) = sync_channel(BACKLOG);
        let (failed, failures) = channel();
        let (end, ended) = channel();
        let work = move || {
            // What is lacking is said for the workers, who lack the same.
            let _ = confinement::confine();
            write_until_closed(&received, &failed, &mut writer);
            drop(end);
        };
        std::thread::Builder::new()
            .name("kernel-sets".into())
            .spawn(work)?;
        Ok(KernelSets {
            changes: SetRequests(changes),
            failures,
            ended,
        })
    }

    /// A way to hand changes over.
    #[must_use]
    pub fn requests(&self) -> SetRequests {
        self.changes.clone()
    }

    /// What the kernel refused since the last call.
    pub fn failures(&self) -> impl Iterator<Item = SetError> + '_ {
        self.failures.try_iter()
    }

    /// Writes what waits and ends the thread, unless that takes too long. All ways to hand changes over
    /// have to be gone.
    pub fn finish(self) {
        let KernelSets { changes, ended, .. } = self;
        drop(changes);
        if ended.recv_timeout(LONGEST_FINISH) == Err(RecvTimeoutError::Timeout) {
            warn!("the kernel is kept busy: the last changes of its sets are not waited for");
        }
    }
}

/// The transports over which the kernel keeps a client from a peer it is known to use.
pub const fn blocked(engine: &EngineConfig) -> &'static [Transport] {
    if engine.block_udp {
        &[Transport::Udp, Transport::Tcp]
    } else {
        &[Transport::Tcp]
    }
}

/// What an action changes in the kernel's sets, where peers are `blocked` over these transports. The
/// engine does not announce every renewal and takes out itself what has ended: elements stay longer by
/// the time a renewal may go unannounced, so that the kernel never forgets first.
pub fn set_changes(action: &Action, blocked: &[Transport]) -> impl Iterator<Item = Change> {
    let (single, peer) = match *action {
        Action::LockHost { host, for_ } => {
            let stays = for_.saturating_add(ANNOUNCE_INTERVAL);
            (Some((Element::Locked(host), Some(stays))), None)
        }
        Action::ReleaseHost { host } => (Some((Element::Locked(host), None)), None),
        // Half the time: the daemon has to see a proof now and then, or it would itself forget.
        Action::ProveAddress {
            address: IpAddr::V4(address),
            for_,
        } => (Some((Element::Proven(address), Some(for_ / 2))), None),
        Action::LearnPeer {
            client,
            peer,
            for_,
            kernel_drop: true,
        } => {
            let stays = for_.saturating_add(RELEARN_INTERVAL);
            (None, Some((client, peer, Some(stays))))
        }
        Action::ForgetPeer { client, peer } => (None, Some((client, peer, None))),
        // Ports of the web are decided by payload; the engine alone knows this peer.
        Action::LearnPeer {
            kernel_drop: false, ..
        }
        | Action::ProveAddress {
            address: IpAddr::V6(_),
            ..
        }
        | Action::Answer { .. }
        | Action::Probe { .. } => (None, None),
    };
    let peers = peer.into_iter().flat_map(move |(client, peer, stays)| {
        let element = move |transport: &Transport| Element::Peer(client, peer, *transport);
        blocked
            .iter()
            .map(move |transport| (element(transport), stays))
    });
    single.into_iter().chain(peers)
}

fn write_until_closed(
    changes: &Receiver<Change>,
    failed: &Sender<SetError>,
    writer: &mut SetWriter,
) {
    while let Ok(first) = changes.recv() {
        let batch: Batch = std::iter::once(first)
            .chain(changes.try_iter().take(BATCH - 1))
            .collect();
        let errors = write(&batch, |part| writer.write(part));
        for error in errors.into_iter().filter(matters) {
            // Nobody listens any more when the daemon ends; nothing is left to say then.
            let _ = failed.send(error);
        }
    }
}

/// A sign of life that is refused is given again before long. Where the set is gone so are the rules,
/// of which the daemon speaks itself.
fn matters(error: &SetError) -> bool {
    !matches!(error, SetError::Refused { set, .. } if *set == ALIVE)
}

/// Writes a batch with `apply`, and returns what that refused. If it refuses the whole, each set is
/// written apart, because a full set of peers must not keep a host from being locked.
pub fn write<E>(batch: &Batch, mut apply: impl FnMut(&Batch) -> Result<(), E>) -> Vec<E> {
    let Err(error) = apply(batch) else {
        return Vec::new();
    };
    let parts = SETS.map(|set| {
        let of_set = batch.iter().filter(|(element, _)| element.set() == set);
        of_set
            .map(|(element, stays)| (*element, *stays))
            .collect::<Batch>()
    });
    if parts.iter().any(|part| part.len() == batch.len()) {
        return vec![error];
    }
    let parts = parts.iter().filter(|part| !part.is_empty());
    parts.filter_map(|part| apply(part).err()).collect()
}

/// Every set that changes with packets, the most important first.
pub(super) const SETS: [&str; 4] = [LOCKED, PEERS, ALIVE, PROVEN];

/// A batch as `nft` would have to be told, for whoever models or checks what is written. Each element is
/// added, deleted and added again: adding alone need not renew the timeout of an element that is there,
/// and deleting alone fails for one that has just left.
pub fn commands(batch: &Batch) -> Vec<Value> {
    SETS.iter()
        .flat_map(|set| set_commands(set, batch))
        .collect()
}

fn set_commands(set: &str, batch: &Batch) -> Vec<Value> {
    let of_set = || batch.iter().filter(|(element, _)| element.set() == set);
    let touched: Vec<Value> = of_set().map(|(element, _)| key(element)).collect();
    if touched.is_empty() {
        return Vec::new();
    }
    let staying: Vec<Value> = of_set()
        .filter_map(|(element, stays)| Some(expiring(&key(element), (*stays)?)))
        .collect();
    let mut commands = vec![add_elements(set, &touched), delete_elements(set, &touched)];
    if !staying.is_empty() {
        commands.push(add_elements(set, &staying));
    }
    commands
}

fn key(element: &Element) -> Value {
    match *element {
        Element::Locked(host) => address(host),
        Element::Proven(server) => address(server),
        Element::Alive(mark) => json!(mark),
        Element::Peer(client, peer, transport) => concat(&[
            address(client),
            address(*peer.ip()),
            json!(transport.name()),
            json!(peer.port()),
        ]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOST: Ipv4Addr = Ipv4Addr::new(10, 77, 1, 1);
    const PEER: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(198, 18, 0, 1), 1214);

    fn lines(changes: &[Change]) -> String {
        let batch: Batch = changes.iter().copied().collect();
        commands(&batch)
            .iter()
            .map(|command| format!("{command}\n"))
            .collect()
    }

    #[test]
    fn a_renewed_lock_gets_a_new_timeout_whether_or_not_it_is_still_there() {
        insta::assert_snapshot!(lines(&[(
            Element::Locked(HOST),
            Some(Duration::from_secs(120))
        )]));
    }

    #[test]
    fn a_full_set_of_peers_keeps_no_host_from_being_locked() {
        let lasting = Some(Duration::from_secs(120));
        let peer = Element::Peer(HOST, PEER, Transport::Tcp);
        let batch = Batch::from([(Element::Locked(HOST), lasting), (peer, lasting)]);
        let mut written = Vec::new();
        let failures = write(&batch, |part| {
            if part.contains_key(&peer) {
                return Err("the set is full");
            }
            written.extend(part.keys().copied());
            Ok(())
        });
        assert_eq!(failures, ["the set is full"]);
        assert_eq!(written, [Element::Locked(HOST)]);
    }

    #[test]
    fn a_peer_is_known_for_each_protocol() {
        let learned = [Transport::Udp, Transport::Tcp].map(|transport| {
            let peer = Element::Peer(HOST, PEER, transport);
            (peer, Some(Duration::from_millis(1500)))
        });
        insta::assert_snapshot!(lines(&learned));
    }

    #[test]
    fn the_last_change_of_an_element_counts_and_removal_needs_no_timeout() {
        let locked = (Element::Locked(HOST), Some(Duration::from_secs(120)));
        insta::assert_snapshot!(lines(&[locked, (Element::Locked(HOST), None)]));
    }

    #[test]
    fn the_kernel_forgets_nobody_before_the_engine_does() {
        let (host, for_) = (Ipv4Addr::new(10, 77, 1, 1), Duration::from_secs(120));
        let changes = |action: &Action| set_changes(action, &[Transport::Tcp]).collect::<Vec<_>>();
        let lock = changes(&Action::LockHost { host, for_ });
        assert_eq!(
            lock,
            [(Element::Locked(host), Some(for_ + ANNOUNCE_INTERVAL))]
        );
        let learned = Action::LearnPeer {
            client: host,
            peer: SocketAddrV4::new(Ipv4Addr::new(198, 18, 0, 1), 1214),
            for_,
            kernel_drop: true,
        };
        assert_eq!(changes(&learned)[0].1, Some(for_ + RELEARN_INTERVAL));
    }

    #[test]
    fn the_daemon_sees_a_proof_again_before_it_forgets_one() {
        let for_ = Duration::from_secs(3600);
        let proves = |address| Action::ProveAddress { address, for_ };
        let changes = |action: &Action| set_changes(action, &[Transport::Tcp]).collect::<Vec<_>>();
        let server = Ipv4Addr::new(203, 0, 113, 1);
        assert_eq!(
            changes(&proves(server.into())),
            [(Element::Proven(server), Some(for_ / 2))]
        );
        assert_eq!(changes(&proves(server.to_ipv6_mapped().into())), []);
    }

    #[test]
    fn where_udp_is_not_blocked_a_known_peer_is_cut_off_over_tcp_alone() {
        let lenient = EngineConfig {
            block_udp: false,
            ..EngineConfig::default()
        };
        assert_eq!(blocked(&lenient), [Transport::Tcp]);
        assert_eq!(
            blocked(&EngineConfig::default()),
            [Transport::Udp, Transport::Tcp]
        );
    }
}
