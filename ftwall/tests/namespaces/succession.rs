//! One daemon after another without a packet lost or passed unseen, and what a service manager is told. The
//! manager is the test itself: it listens at `NOTIFY_SOCKET` and keeps what it is given.

use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::net::UdpSocket;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::event::{Timespec, poll};
use rustix::io::{FdFlags, fcntl_setfd};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg, sockopt};

use super::GIFT_PING;
use super::harness::{Daemon, PATIENCE, in_namespaces, ruleset, run};
use super::network::{at, build_network, ip, udp};

/// This client's pings are dropped, one and all.
const ENFORCED: &str = "10.77.1.1:2301";
/// This client's pings pass, one and all, after the daemon has seen them.
const MONITORED: &str = "10.77.2.1:2301";
const PEER: &str = "198.18.0.9:1214";
/// Of both clients together there are a thousand packets in a second.
const BETWEEN_PINGS: Duration = Duration::from_millis(2);

#[test]
fn a_daemon_that_is_asked_hands_over_without_a_packet_lost_or_passed_unseen() {
    in_namespaces(
        "succession::a_daemon_that_is_asked_hands_over_without_a_packet_lost_or_passed_unseen",
        || {
            let manager = Manager::new();
            let Some(mut test) = Test::start(&manager) else {
                return;
            };
            let process = test.daemon.child.id();
            let counted = test.under_load(|daemon, _| {
                for _ in 0..8 {
                    daemon.signal("USR2");
                    daemon.wait_event("ready");
                    daemon.wait_event("packet.would_drop");
                }
            });
            assert_nothing_lost_or_unseen(&counted);
            assert_eq!(test.daemon.child.id(), process);
            // What was learned went over, too.
            assert!(at("gw", ruleset).contains("10.77.1.1 timeout"));
            assert_eq!(test.daemon.end("TERM").code(), Some(0));
            assert_eq!(at("gw", ruleset), "");
        },
    );
}

#[test]
fn a_daemon_that_was_killed_is_succeeded_from_the_managers_store_and_no_packet_is_unseen() {
    in_namespaces(
        "succession::a_daemon_that_was_killed_is_succeeded_from_the_managers_store_and_no_packet_is_unseen",
        || {
            let manager = Manager::new();
            let Some(mut test) = Test::start(&manager) else {
                return;
            };
            let queues = manager.wait_stored(2);
            let counted = test.under_load(|daemon, manager| {
                daemon.signal("KILL");
                daemon.child.wait().expect("it was started here");
                *daemon = manager.start_with(&queues).expect("the first one started");
                daemon.wait_event("packet.would_drop");
            });
            assert_eq!(counted.enforced_heard, 0, "{counted:?}");
            // The kernel counts those as waiting that the dead daemon had taken and not yet answered.
            let lost = counted.monitored_sent - counted.monitored_heard;
            assert!(lost <= 2, "{counted:?}");
            assert!(at("gw", ruleset).contains("10.77.1.1 timeout"));
            assert_eq!(test.daemon.end("TERM").code(), Some(0));
        },
    );
}

#[test]
fn a_service_manager_is_told_how_the_daemon_is() {
    in_namespaces(
        "succession::a_service_manager_is_told_how_the_daemon_is",
        || {
            let manager = Manager::new();
            let Some(test) = Test::start(&manager) else {
                return;
            };
            manager.wait_said("READY=1");
            manager.wait_said("STATUS=mode enforce; 0 clients locked, 0 peers known");
            // Signs of life go on for longer than the time after which one would be missed.
            for _ in 0..6 {
                manager.wait_said("WATCHDOG=1");
            }
            test.daemon.signal("HUP");
            manager.wait_said("RELOADING=1");
            manager.wait_said("READY=1");
            assert_eq!(test.daemon.end("TERM").code(), Some(0));
            manager.wait_said("STOPPING=1");
        },
    );
}

#[test]
fn a_daemon_whose_main_thread_is_stopped_gives_no_sign_of_life() {
    in_namespaces(
        "succession::a_daemon_whose_main_thread_is_stopped_gives_no_sign_of_life",
        || {
            let manager = Manager::new();
            let Some(test) = Test::start(&manager) else {
                return;
            };
            manager.wait_said("WATCHDOG=1");
            test.daemon.signal("STOP");
            manager.expect_silence(Duration::from_secs(3));
            test.daemon.signal("CONT");
            manager.wait_said("WATCHDOG=1");
            assert_eq!(test.daemon.end("TERM").code(), Some(0));
        },
    );
}

#[test]
fn the_unit_leaves_little_exposed() {
    let unit = "../packaging/systemd/ftwall.service";
    let probe = Command::new("systemd-analyze").arg("--version").output();
    if probe.is_err() {
        let reason = "systemd-analyze is not installed";
        return super::harness::skip("the_unit_leaves_little_exposed", reason);
    }
    // A tenth of it for capset, by which threads that read packets give capabilities up.
    let options = ["security", "--offline=true", "--threshold=17", unit];
    let analysed = run("systemd-analyze", &options);
    let report = super::harness::words(&analysed.stdout);
    assert!(analysed.status.success(), "{report}");
    assert!(
        report.contains("Overall exposure level for ftwall.service: 1."),
        "{report}"
    );
}

fn assert_nothing_lost_or_unseen(counted: &Counted) {
    assert!(counted.monitored_sent > 100, "{counted:?}");
    assert_eq!(
        counted.monitored_heard, counted.monitored_sent,
        "{counted:?}"
    );
    assert!(counted.enforced_sent > 100, "{counted:?}");
    assert_eq!(counted.enforced_heard, 0, "{counted:?}");
}

/// What clients have sent and the peer has heard.
#[derive(Debug, Default)]
struct Counted {
    enforced_sent: u32,
    enforced_heard: u32,
    monitored_sent: u32,
    monitored_heard: u32,
}

/// A gateway between two clients and a peer.
struct Test<'a> {
    daemon: Daemon,
    manager: &'a Manager,
}

impl<'a> Test<'a> {
    fn start(manager: &'a Manager) -> Option<Self> {
        build_network();
        ip(&[
            "-n",
            "client",
            "address",
            "add",
            "10.77.2.1/16",
            "dev",
            "eth0",
        ]);
        std::fs::create_dir_all("/run/etc").expect("the disk is ours");
        std::fs::write(CONFIG, CONFIGURATION).expect("the disk is ours");
        let daemon = manager.start_with(&[])?;
        Some(Self { daemon, manager })
    }

    /// Both clients send while something is done to the daemon.
    fn under_load(&mut self, work: impl FnOnce(&mut Daemon, &Manager)) -> Counted {
        let peer = udp("out", "0.0.0.0:1214");
        // What waits for this thread must not be lost on its way to it.
        let _ = sockopt::set_socket_recv_buffer_size(&peer, 1 << 21);
        let clients = [udp("client", ENFORCED), udp("client", MONITORED)];
        let is_over = AtomicBool::new(false);
        let mut counted = Counted::default();
        std::thread::scope(|scope| {
            let sender = scope.spawn(|| send_until(&is_over, &clients));
            // Also if the work fails: the scope waits for the sender.
            let ends = SetWhenDropped(&is_over);
            work(&mut self.daemon, self.manager);
            drop(ends);
            let sent = sender.join().expect("it has no reason to fail");
            (counted.enforced_sent, counted.monitored_sent) = (sent, sent);
        });
        // Through the same queue, so that it overtakes nothing.
        clients[1].send_to(LAST, PEER).expect("the network is up");
        (counted.enforced_heard, counted.monitored_heard) = heard_until_last(&peer);
        counted
    }
}

struct SetWhenDropped<'a>(&'a AtomicBool);

impl Drop for SetWhenDropped<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Sends pings of both clients, and returns how many of each.
fn send_until(is_over: &AtomicBool, clients: &[UdpSocket; 2]) -> u32 {
    let pace = Timespec::try_from(BETWEEN_PINGS).expect("it is short");
    let mut sent = 0;
    while !is_over.load(Ordering::Relaxed) {
        for client in clients {
            client.send_to(GIFT_PING, PEER).expect("the network is up");
        }
        sent += 1;
        // Load is a matter of time; nothing is waited for.
        let _ = poll(&mut [], Some(&pace));
    }
    sent
}

/// How many pings of each client arrived.
fn heard_until_last(peer: &UdpSocket) -> (u32, u32) {
    let (mut enforced, mut monitored) = (0, 0);
    let mut octets = [0; 64];
    loop {
        let (len, from) = peer.recv_from(&mut octets).expect("the last one comes");
        match (&octets[..len], from.to_string().as_str()) {
            (LAST, _) => return (enforced, monitored),
            (_, ENFORCED) => enforced += 1,
            (_, MONITORED) => monitored += 1,
            (other, from) => panic!("{other:?} from {from}"),
        }
    }
}

/// A ping as well, of another network.
const LAST: &[u8] = b"\x27\x00\x00\x00\x29\x80fileshare\x00";
const CONFIG: &str = "/run/etc/ftwall.toml";
const CONFIGURATION: &str = "\
inside = [\"10.77.0.0/16\"]
when_down = \"pass\"
state_directory = \"/run/state\"
[[policy]]
name = \"watched\"
match = { subnet = \"10.77.2.0/24\" }
mode = \"monitor\"
";

/// A service manager: hears what is said, keeps what it is given, and starts daemons.
struct Manager {
    socket: UnixDatagram,
    place: PathBuf,
}

impl Manager {
    fn new() -> Self {
        let place = PathBuf::from("/run/notify");
        let socket = UnixDatagram::bind(&place).expect("the disk is ours");
        socket
            .set_read_timeout(Some(PATIENCE))
            .expect("it is not zero");
        Self { socket, place }
    }

    /// Starts a daemon at the gateway that finds these queues open, as systemd passes them.
    fn start_with(&self, queues: &[(String, OwnedFd)]) -> Option<Daemon> {
        let names: Vec<_> = queues.iter().map(|(name, _)| name.as_str()).collect();
        let mut shell = String::new();
        for (place, (_, queue)) in queues.iter().enumerate() {
            fcntl_setfd(queue, FdFlags::empty()).expect("it is open");
            shell += &format!("exec {}<&{}; ", 3 + place, queue.as_raw_fd());
        }
        shell += &format!(
            "LISTEN_PID=$$ LISTEN_FDS={} LISTEN_FDNAMES={} exec \"$@\"",
            queues.len(),
            names.join(":")
        );
        let program = env!("CARGO_BIN_EXE_ftwall");
        // Not every shell knows descriptors beyond 9.
        let mut command = Command::new("bash");
        command
            .args(["-c", &shell, "bash", program, "run", "--config", CONFIG])
            .env("NOTIFY_SOCKET", &self.place)
            .env("WATCHDOG_USEC", "4000000");
        at("gw", || Daemon::start_as(command))
    }

    /// The next datagram, and what came with it.
    fn hear(&self) -> Option<(String, Vec<OwnedFd>)> {
        let mut octets = [0; 512];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(8))];
        let mut attached = RecvAncillaryBuffer::new(&mut space);
        let mut text = [IoSliceMut::new(&mut octets)];
        let received = recvmsg(&self.socket, &mut text, &mut attached, RecvFlags::empty());
        let len = received.ok()?.bytes;
        let rights = attached.drain().filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
            _ => None,
        });
        let descriptors = rights.flatten().collect();
        Some((
            String::from_utf8_lossy(&octets[..len]).into_owned(),
            descriptors,
        ))
    }

    fn wait_said(&self, wanted: &str) {
        let said = std::iter::from_fn(|| self.hear());
        let mut lines = said.flat_map(|(text, _)| {
            let lines: Vec<_> = text.lines().map(str::to_owned).collect();
            lines
        });
        assert!(lines.any(|line| line == wanted), "nobody said {wanted}");
    }

    fn wait_stored(&self, count: usize) -> Vec<(String, OwnedFd)> {
        let said = std::iter::from_fn(|| self.hear());
        let stored = said.filter_map(|(text, descriptors)| {
            let name = text.lines().find_map(|line| line.strip_prefix("FDNAME="))?;
            assert!(
                text.contains("FDSTORE=1") && text.contains("FDPOLL=0"),
                "{text}"
            );
            Some((name.to_owned(), descriptors.into_iter().next()?))
        });
        stored.take(count).collect()
    }

    /// Nothing may come for so long; what is under way is heard before.
    fn expect_silence(&self, lasting: Duration) {
        self.socket
            .set_read_timeout(Some(lasting))
            .expect("it is not zero");
        while let Some((text, _)) = self.hear() {
            // What was sent just before it was stopped is heard at once, and nothing after that.
            assert!(
                text.starts_with("WATCHDOG=1") || text.starts_with("STATUS="),
                "{text}"
            );
            self.socket
                .set_read_timeout(Some(lasting))
                .expect("it is not zero");
        }
        self.socket
            .set_read_timeout(Some(PATIENCE))
            .expect("it is not zero");
    }
}
