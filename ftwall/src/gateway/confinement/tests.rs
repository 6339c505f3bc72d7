use std::fs::{self, File};
use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt as _;
use std::os::unix::thread::JoinHandleExt as _;
use std::process::{Child, Command};
use std::sync::mpsc::{Receiver, channel, sync_channel};
use std::thread;

use nix::sched::{CloneFlags, unshare};
use nix::sys::pthread::pthread_kill;
use nix::sys::ptrace;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::net::{AddressFamily, SocketType, connect, socket};
use rustix::thread::no_new_privs;

use super::super::clock::Clock;
use super::super::inject::Injector;
use super::super::netlink::{Header, MessageWriter, Socket};
use super::*;

/// What an attempt is made upon.
struct Around {
    child: Child,
    /// Somebody who may be called.
    listener: (TcpListener, SocketAddr),
    /// One that is open and leads nowhere yet.
    tcp: OwnedFd,
}

impl Around {
    fn new() -> Around {
        let child = Command::new("sleep").arg("600").spawn();
        let listener = TcpListener::bind("127.0.0.1:0").expect("ports are left");
        let address = listener.local_addr().expect("it is bound");
        Around {
            child: child.expect("it is everywhere"),
            listener: (listener, address),
            tcp: socket(AddressFamily::INET, SocketType::STREAM, None)
                .expect("descriptors are left"),
        }
    }

    fn child(&self) -> Pid {
        Pid::from_raw(self.child.id().cast_signed())
    }
}

impl Drop for Around {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

type Attempt = fn(&Around) -> io::Result<()>;

/// What somebody would try who runs code of his own in a thread. None of it needs a privilege.
const ATTEMPTS: &[(&str, Attempt)] = &[
    ("a file", |_| File::open("/proc/self/status").map(drop)),
    ("a directory", |_| fs::read_dir("/").map(drop)),
    ("a file in memory", |_| {
        Ok(memfd_create("attempt", MemfdFlags::empty()).map(drop)?)
    }),
    ("a program", |_| Command::new("true").status().map(drop)),
    ("a thread", |_| {
        let thread = thread::Builder::new().spawn(|| ())?;
        thread.join().map_err(|_| io::Error::other("it panicked"))
    }),
    ("a socket", |_| UdpSocket::bind("127.0.0.1:0").map(drop)),
    ("a connection", |around| {
        Ok(connect(&around.tcp, &around.listener.1)?)
    }),
    ("word to a process", |around| {
        Ok(kill(around.child(), None)?)
    }),
    ("a process's memory", |around| {
        Ok(ptrace::seize(around.child(), ptrace::Options::empty())?)
    }),
    ("privileges", |_| {
        Ok(set_capabilities(None, capabilities(None)?)?)
    }),
    ("a namespace", |_| Ok(unshare(CloneFlags::CLONE_FS)?)),
];

/// What comes of `what`, done by a thread of its own.
fn by_a_thread<T: Send>(what: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| scope.spawn(what).join().expect("it does not panic"))
}

#[test]
fn whoever_runs_code_in_a_confined_thread_reaches_nothing_that_others_reach() {
    for (what, attempt) in ATTEMPTS {
        let free = by_a_thread(|| attempt(&Around::new()));
        assert!(free.is_ok(), "{what}: nobody gets it: {free:?}");
        let around = Around::new();
        let confined = by_a_thread(|| {
            let lacking = confine();
            assert_eq!(lacking, [], "this kernel lacks a layer");
            attempt(&around)
        });
        let kind = confined.map_err(|error| error.kind());
        assert_eq!(kind, Err(io::ErrorKind::PermissionDenied), "{what}");
    }
    let after = by_a_thread(|| File::open("/proc/self/status").map(drop));
    assert!(after.is_ok(), "other threads are as free as before");
}

#[test]
fn the_work_of_packets_goes_on_in_a_confined_thread() {
    let netlink = Socket::open().expect("this kernel has netfilter");
    let (here, there) = (udp(), udp());
    let to = there.local_addr().expect("it is bound");
    let (questions, asked) = channel::<u8>();
    let (answer, answers) = sync_channel(1);
    let clock = Clock::start();
    let worker = thread::spawn(move || {
        assert_eq!(confine(), []);
        for question in asked {
            assert!(is_answered(&netlink), "netlink");
            here.send_to(&[question], to).expect("the network is up");
            // More than an arena of the allocator's holds, moved and given back.
            let mut hoard: Vec<Vec<u8>> = (0..64).map(|_| vec![question; 1 << 20]).collect();
            hoard
                .iter_mut()
                .for_each(|part| part.resize(3 << 20, question));
            let keys = std::collections::HashSet::from([clock.now()]);
            let sum = keys.len() + hoard.iter().map(Vec::len).sum::<usize>();
            answer.send(sum).expect("somebody asked");
        }
    });
    for question in 0..3 {
        questions.send(question).expect("it runs");
        assert_eq!(answers.recv(), Ok(1 + 64 * (3 << 20)));
        let mut octet = [0; 1];
        there.recv(&mut octet).expect("it was sent");
        assert_eq!(octet, [question]);
    }
    drop(questions);
    worker.join().expect("a confined thread comes to its end");
}

#[test]
fn landlock_alone_keeps_a_thread_from_files_ports_and_processes() {
    let around = Around::new();
    let denied = by_a_thread(|| {
        reach::nothing().expect("this kernel has Landlock");
        let denied = |(what, attempt): &(&'static str, Attempt)| {
            let error = attempt(&around).err()?;
            (error.kind() == io::ErrorKind::PermissionDenied).then_some(*what)
        };
        ATTEMPTS.iter().filter_map(denied).collect::<Vec<_>>()
    });
    for what in ["a file", "a directory", "a program", "a process's memory"] {
        assert!(denied.contains(&what), "{what}: {denied:?}");
    }
    assert!(!denied.contains(&"a socket"), "datagrams are its work");
}

#[test]
fn capabilities_that_are_given_up_do_not_come_back() {
    let held = capabilities(None).expect("the kernel says").effective;
    if !held.contains(CapabilitySet::NET_ADMIN | CapabilitySet::NET_RAW) {
        eprintln!(
            "SKIPPED capabilities_that_are_given_up_do_not_come_back: there are none to give up"
        );
        return;
    }
    by_a_thread(|| {
        assert!(Injector::open().is_ok(), "with the capability it opens");
        let before = capabilities(None).expect("the kernel says");
        give_up_all_but(NEEDED).expect("everybody may");
        let left = capabilities(None).expect("the kernel says");
        assert_eq!((left.effective, left.permitted), (NEEDED, NEEDED));
        assert!(left.inheritable.is_empty());
        assert_eq!(set_capabilities(None, before), Err(rustix::io::Errno::PERM));
        assert!(Injector::open().is_err(), "without it does not");
    });
}

#[test]
fn nothing_that_a_confined_thread_would_execute_gets_more_than_it_has() {
    let (free, confined) = by_a_thread(|| {
        let free = no_new_privs().expect("the kernel says");
        set_no_new_privs(true).expect("everybody may");
        (free, no_new_privs().expect("the kernel says"))
    });
    assert!(confined);
    assert_eq!(no_new_privs(), Ok(free), "other threads are as they were");
}

/// Set for the copy of this program in which a confined thread is to fail, to how.
const FAILURE: &str = "FTWALL_TEST_FAILURE";

#[test]
fn a_fault_in_a_confined_thread_ends_the_process_and_does_not_come_again_for_ever() {
    match std::env::var(FAILURE).as_deref() {
        Ok("overflow") => by_a_thread(|| {
            assert_eq!(confine(), []);
            deeper(1);
        }),
        Ok(_) => fault(),
        Err(_) => {
            for (how, signal) in [("overflow", Signal::SIGABRT), ("fault", Signal::SIGSEGV)] {
                assert_eq!(end_of(how), Some(signal as i32), "{how}");
            }
        }
    }
}

/// The signal that ends a copy of this test which fails like this.
fn end_of(how: &str) -> Option<i32> {
    let name = "gateway::confinement::tests::a_fault_in_a_confined_thread_ends_the_process_and_does_not_come_again_for_ever";
    let test = std::env::current_exe().expect("a test has a path");
    let copy = Command::new(test)
        .args(["--exact", name])
        .env(FAILURE, how)
        .output();
    copy.expect("it is this program").status.signal()
}

/// Uses up the stack.
fn deeper(depth: u64) -> u64 {
    let room = std::hint::black_box([depth; 512]);
    if room[1] == 0 {
        return 0;
    }
    room[0] + deeper(std::hint::black_box(depth + 1)) + room[511]
}

/// Tells a confined thread again and again that it has touched what is not there; its handler lets that pass
/// once, and takes itself away.
fn fault() {
    let (confined, is_confined) = channel();
    let (_waits, waits) = channel::<()>();
    let thread = thread::spawn(move || wait_confined(&confined, &waits));
    is_confined.recv().expect("it runs");
    for _ in 0..1_000_000 {
        pthread_kill(thread.as_pthread_t(), Signal::SIGSEGV).expect("it runs");
        thread::yield_now();
    }
}

fn wait_confined(confined: &std::sync::mpsc::Sender<()>, waits: &Receiver<()>) {
    assert_eq!(confine(), []);
    confined.send(()).expect("somebody waits");
    let _ = waits.recv();
}

fn udp() -> UdpSocket {
    UdpSocket::bind("127.0.0.1:0").expect("ports are left")
}

#[test]
#[ignore = "a measurement: run it alone, with --nocapture"]
fn cost_of_a_call() {
    const CALLS: u32 = 1_000_000;
    let netlink = Socket::open().expect("this kernel has netfilter");
    let clock = Clock::start();
    let of_a_call = || {
        let began = clock.now();
        for _ in 0..CALLS {
            assert!(matches!(netlink.receive(&mut [0; 16]), Ok(None)));
        }
        clock.now().saturating_since(began) / CALLS
    };
    for round in 0..5 {
        let (free, landlock, all) = by_a_thread(|| {
            let free = of_a_call();
            reach::nothing().expect("this kernel has Landlock");
            let landlock = of_a_call();
            calls::packets_alone().expect("this kernel has filters");
            (free, landlock, of_a_call())
        });
        println!("{round}: {free:?} free, {landlock:?} with Landlock, {all:?} with the filter too");
    }
}

/// Whether the kernel says what it makes of nonsense.
fn is_answered(netlink: &Socket) -> bool {
    let mut writer = MessageWriter::default();
    let nonsense = Header {
        kind: 0xff00,
        ..Header::default()
    };
    writer.message(nonsense, |_| {});
    netlink.send(writer.as_bytes()).is_ok() && matches!(netlink.receive(&mut [0; 512]), Ok(Some(_)))
}
