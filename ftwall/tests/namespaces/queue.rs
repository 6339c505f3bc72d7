//! Every reader against the kernel's packet queue: datagrams and streams of this namespace's loopback
//! interface pass queue 3 on their way out.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use ftwall::gateway::queue::{
    self, Answer, Fault, Losses, PacketQueue, QueueError, QueueReader, QueueSettings, QueuedPacket,
    WhenOverloaded,
};

use super::harness::{PATIENCE, in_namespaces, in_namespaces_with, run, skip_back_end, words};

const QUEUE: u16 = 3;
const PASS: Answer = Answer::Accept { mark: None };
/// The hook behind the queue drops packets with this mark.
const DROPPED_LATER: u32 = 0x42;

/// Runs `body` once for each reader, in one namespace with rules that queue.
fn with_each_reader(name: &str, body: fn(QueueReader)) {
    in_namespaces(&format!("queue::{name}"), || {
        if send_through_queue() {
            QueueReader::ALL.into_iter().for_each(body);
        }
    });
}

/// Makes rules that queue what goes to port 9000; false where this kernel has none such.
fn send_through_queue() -> bool {
    ip(&["link", "set", "lo", "mtu", "1500", "up"]);
    let rules = [
        "-A OUTPUT -p udp --dport 9000 -j MARK --set-mark 0x7",
        "-A OUTPUT -p udp --dport 9000 -j NFQUEUE --queue-num 3",
        "-A OUTPUT -p tcp --dport 9000 -j NFQUEUE --queue-num 3",
        "-A POSTROUTING -m mark --mark 0x42 -j DROP",
    ];
    rules.into_iter().all(|rule| {
        let rule: Vec<&str> = rule.split(' ').collect();
        let added = run("iptables-nft", &[&["-t", "mangle"], &rule[..]].concat());
        if !added.status.success() {
            skip_back_end("iptables-nft", &words(&added.stderr));
        }
        added.status.success()
    })
}

#[test]
fn packets_leave_in_order_as_they_were_judged() {
    with_each_reader("packets_leave_in_order_as_they_were_judged", |reader| {
        let mut queue = open(reader, settings());
        let wire = Wire::new();
        (0..200).for_each(|number| wire.send(number));
        serve(&mut *queue, 200, &mut |packet| {
            assert_eq!(packet.mark, 0x7, "{reader}");
            match number_in(packet) {
                number if number % 3 == 0 => Answer::Drop,
                number if number % 5 == 0 => Answer::Accept {
                    mark: Some(DROPPED_LATER),
                },
                number if number % 7 == 0 => Answer::Accept { mark: Some(1) },
                _ => PASS,
            }
        });
        let expected: Vec<u32> = (0..200)
            .filter(|number| number % 3 != 0 && number % 5 != 0)
            .collect();
        assert_eq!(wire.receive(expected.len()), expected, "{reader}");
        assert!(wire.is_empty(), "{reader}");
        assert_eq!(queue.faults().iter().count(), 0, "{reader}");
    });
}

#[test]
fn a_packet_larger_than_the_link_comes_whole_and_only_its_head_is_copied() {
    with_each_reader(
        "a_packet_larger_than_the_link_comes_whole_and_only_its_head_is_copied",
        |reader| {
            let mut queue = open(reader, settings());
            let listener = TcpListener::bind("127.0.0.1:9000").expect("the port is free");
            let sent: Vec<u8> = (0..1_000_000_u32)
                .map(|at| at as u8 ^ (at >> 8) as u8)
                .collect();
            let (source, received) = std::thread::scope(|scope| {
                let source = scope.spawn(|| {
                    let mut stream = TcpStream::connect("127.0.0.1:9000").expect("it listens");
                    stream.write_all(&sent).expect("it reads");
                });
                let received = scope.spawn(|| {
                    let (mut stream, _) = listener.accept().expect("it connects");
                    let mut received = Vec::new();
                    stream
                        .read_to_end(&mut received)
                        .map(|_| received)
                        .expect("it writes")
                });
                let mut longest = 0;
                while !received.is_finished() {
                    wait_readable(&*queue, Duration::from_millis(50));
                    queue.serve(64, &mut |packet| {
                        assert!(
                            packet.bytes.len() <= usize::from(settings().copy_range),
                            "{reader}"
                        );
                        longest =
                            longest.max(u16::from_be_bytes([packet.bytes[2], packet.bytes[3]]));
                        PASS
                    });
                }
                assert!(
                    longest > 1500,
                    "{reader}: the longest packet has {longest} octets"
                );
                (source.join(), received.join())
            });
            source.expect("the source wrote everything");
            assert!(
                received.expect("the sink read everything") == sent,
                "{reader}"
            );
        },
    );
}

#[test]
fn a_burst_larger_than_the_queue_loses_what_the_kernel_counts() {
    with_each_reader(
        "a_burst_larger_than_the_queue_loses_what_the_kernel_counts",
        |reader| {
            let mut queue = open(
                reader,
                QueueSettings {
                    length: 16,
                    ..settings()
                },
            );
            let wire = Wire::new();
            (0..50).for_each(|number| wire.send(number));
            serve(&mut *queue, 16, &mut |_| PASS);
            assert_eq!(wire.receive(16), (0..16).collect::<Vec<u32>>(), "{reader}");
            let lost = Losses {
                queue_full: 34,
                buffer_full: 0,
            };
            assert_eq!(queue::losses(QUEUE), Some(lost), "{reader}");
            assert_goes_on(&mut *queue, &wire, reader);
        },
    );
}

#[test]
fn a_queue_that_passes_what_it_has_no_room_for_loses_nothing() {
    with_each_reader(
        "a_queue_that_passes_what_it_has_no_room_for_loses_nothing",
        |reader| {
            let when_overloaded = WhenOverloaded::Pass;
            let mut queue = open(
                reader,
                QueueSettings {
                    length: 16,
                    when_overloaded,
                    ..settings()
                },
            );
            let wire = Wire::new();
            (0..50).for_each(|number| wire.send(number));
            // Those which found no room overtake those which wait.
            assert_eq!(wire.receive(34), (16..50).collect::<Vec<u32>>(), "{reader}");
            serve(&mut *queue, 16, &mut |_| PASS);
            assert_eq!(wire.receive(16), (0..16).collect::<Vec<u32>>(), "{reader}");
        },
    );
}

#[test]
fn a_buffer_that_overruns_is_survived_and_its_losses_are_known() {
    with_each_reader(
        "a_buffer_that_overruns_is_survived_and_its_losses_are_known",
        |reader| {
            let mut queue = open(reader, settings());
            // Room for some twenty small packets.
            rustix::net::sockopt::set_socket_recv_buffer_size(&queue, 8192)
                .expect("a socket has a buffer");
            let wire = Wire::new();
            let burst = 200;
            (0..burst).for_each(|number| wire.send(number));
            let mut served = 0;
            while is_readable(&*queue) {
                queue.serve(64, &mut |_| {
                    served += 1;
                    Answer::Drop
                });
            }
            let lost = queue::losses(QUEUE).expect("the queue is bound");
            assert_eq!(lost.queue_full, 0, "{reader}");
            assert!(lost.buffer_full > 0, "{reader}: {served} of {burst} came");
            assert_eq!(served + lost.buffer_full, u64::from(burst), "{reader}");
            assert_goes_on(&mut *queue, &wire, reader);
        },
    );
}

#[test]
fn a_packet_that_is_gone_when_its_answer_comes_is_counted() {
    with_each_reader(
        "a_packet_that_is_gone_when_its_answer_comes_is_counted",
        |reader| {
            let mut queue = open(reader, settings());
            let wire = Wire::new();
            wire.send(1);
            serve(&mut *queue, 1, &mut |_| {
                // The kernel forgets packets of an interface that goes down.
                ip(&["link", "set", "lo", "down"]);
                PASS
            });
            ip(&["link", "set", "lo", "up"]);
            queue.serve(1, &mut |_| unreachable!("nothing waits"));
            assert_eq!(
                queue.faults().iter().collect::<Vec<_>>(),
                [(Fault::PacketGone, 1)],
                "{reader}"
            );
            assert_goes_on(&mut *queue, &wire, reader);
        },
    );
}

#[test]
fn a_queue_has_one_reader_at_a_time_and_the_next_one_begins_empty() {
    with_each_reader(
        "a_queue_has_one_reader_at_a_time_and_the_next_one_begins_empty",
        |reader| {
            let first = open(reader, settings());
            for other in QueueReader::ALL {
                let refused = queue::open(other, settings()).err().expect("it is taken");
                assert!(
                    matches!(refused, QueueError::Taken { queue: QUEUE }),
                    "{refused}"
                );
            }
            assert!(matches!(
                queue::check_free(QUEUE),
                Err(QueueError::Taken { .. })
            ));
            let wire = Wire::new();
            wire.send(1);
            drop(first);
            let mut second = open(reader, settings());
            assert!(
                !is_readable(&*second),
                "{reader}: what waited went with the first reader"
            );
            assert_goes_on(&mut *second, &wire, reader);
        },
    );
}

/// Prints what one queued packet costs the reader, received and answered, in a drain of many.
#[test]
#[ignore = "a measurement: run it alone, with --nocapture"]
fn cost_of_a_packet() {
    in_namespaces_with("queue::cost_of_a_packet", &["--ignored"], || {
        if !send_through_queue() {
            return;
        }
        for (what, answer) in [("drop", Answer::Drop), ("accept", PASS)] {
            for reader in QueueReader::ALL {
                println!(
                    "{what:>6}, {reader:<7}: {:?} a packet",
                    median_cost(reader, answer)
                );
            }
        }
    });
}

fn median_cost(reader: QueueReader, answer: Answer) -> Duration {
    const ROUNDS: usize = 15;
    const SOURCES: u32 = 16;
    const EACH: u32 = 200;
    let mut queue = open(reader, settings());
    let wire = Wire::new();
    let sources: Vec<Wire> = (0..SOURCES).map(|_| wire.with_another_source()).collect();
    let mut costs: Vec<Duration> = (0..ROUNDS)
        .map(|_| {
            sources
                .iter()
                .for_each(|source| (0..EACH).for_each(|number| source.send(number)));
            let begun = now();
            let mut judged = 0;
            while judged < SOURCES * EACH {
                let before = judged;
                queue.serve(64, &mut |_| {
                    judged += 1;
                    answer
                });
                assert!(judged > before, "{reader}: {judged} packets came");
            }
            let taken = now() - begun;
            wire.drain();
            taken / (SOURCES * EACH)
        })
        .collect();
    costs.sort();
    costs[ROUNDS / 2]
}

#[expect(clippy::disallowed_methods, reason = "time is what is measured")]
fn now() -> Instant {
    Instant::now()
}

fn settings() -> QueueSettings {
    QueueSettings::of(QUEUE)
}

fn open(reader: QueueReader, settings: QueueSettings) -> Box<dyn PacketQueue> {
    queue::open(reader, settings).unwrap_or_else(|error| panic!("{reader}: {error}"))
}

/// Serves until `count` packets were judged.
fn serve(
    queue: &mut dyn PacketQueue,
    count: usize,
    judge: &mut dyn FnMut(QueuedPacket<'_>) -> Answer,
) {
    let mut judged = 0;
    while judged < count {
        assert!(
            wait_readable(queue, PATIENCE),
            "{judged} of {count} packets came"
        );
        queue.serve(64, &mut |packet| {
            judged += 1;
            judge(packet)
        });
    }
}

/// A datagram still passes, and nothing else waits.
fn assert_goes_on(queue: &mut dyn PacketQueue, wire: &Wire, reader: QueueReader) {
    wire.send(7777);
    serve(queue, 1, &mut |packet| {
        assert_eq!(number_in(packet), 7777, "{reader}");
        PASS
    });
    assert_eq!(wire.receive(1), [7777], "{reader}");
    assert!(wire.is_empty(), "{reader}");
}

fn is_readable(queue: &dyn PacketQueue) -> bool {
    wait_readable(queue, Duration::ZERO)
}

fn wait_readable(queue: &dyn PacketQueue, patience: Duration) -> bool {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let mut sources = [PollFd::new(&queue, PollFlags::IN)];
    let timeout = Timespec::try_from(patience).expect("it is short");
    poll(&mut sources, Some(&timeout)).expect("polling works") > 0
}

/// The number in a datagram of [`Wire`]'s, behind the smallest headers of IPv4 and UDP.
fn number_in(packet: QueuedPacket<'_>) -> u32 {
    u32::from_be_bytes(packet.bytes[28..32].try_into().expect("four octets"))
}

/// Both ends of a way that leads through the queue.
struct Wire {
    source: UdpSocket,
    sink: UdpSocket,
}

impl Wire {
    fn new() -> Wire {
        let sink = UdpSocket::bind("127.0.0.1:9000").expect("the port is free");
        sink.set_read_timeout(Some(PATIENCE))
            .expect("it is not zero");
        Wire::to(sink)
    }

    fn with_another_source(&self) -> Wire {
        Wire::to(self.sink.try_clone().expect("descriptors are left"))
    }

    fn to(sink: UdpSocket) -> Wire {
        let source = UdpSocket::bind("127.0.0.1:0").expect("a port is free");
        // A packet that waits in the queue is charged to its source.
        rustix::net::sockopt::set_socket_send_buffer_size(&source, 1 << 20)
            .expect("it is a socket");
        source.set_nonblocking(true).expect("it is a socket");
        Wire { source, sink }
    }

    /// A send that a full queue refuses is a packet lost, as it would be on a wire.
    fn send(&self, number: u32) {
        let sink: SocketAddr = ([127, 0, 0, 1], 9000).into();
        let _ = self.source.send_to(&number.to_be_bytes(), sink);
    }

    fn receive(&self, count: usize) -> Vec<u32> {
        let next = || {
            let mut octets = [0; 4];
            self.sink.recv(&mut octets).expect("a datagram comes");
            u32::from_be_bytes(octets)
        };
        (0..count).map(|_| next()).collect()
    }

    fn is_empty(&self) -> bool {
        self.drain() == 0
    }

    /// Takes everything that has arrived; how many datagrams that was.
    fn drain(&self) -> usize {
        self.sink.set_nonblocking(true).expect("it is a socket");
        let arrived = std::iter::from_fn(|| self.sink.recv(&mut [0; 4]).ok()).count();
        self.sink.set_nonblocking(false).expect("it is a socket");
        arrived
    }
}

fn ip(arguments: &[&str]) {
    let output = run("ip", arguments);
    assert!(
        output.status.success(),
        "ip {arguments:?}: {}",
        words(&output.stderr)
    );
}
