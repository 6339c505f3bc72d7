//! Two daemons on one gateway: the second has to go, whichever queues it was to read.

use super::harness::{Daemon, ftwall, in_namespaces, ruleset, words};
use super::network::{at, build_network, udp};
use super::operations::ping;

#[test]
fn a_second_daemon_is_refused_on_any_queue_and_the_first_goes_on() {
    in_namespaces(
        "two_daemons::a_second_daemon_is_refused_on_any_queue_and_the_first_goes_on",
        || {
            build_network();
            let inside = ["--inside", "10.77.0.0/16"];
            let Some(mut daemon) = at("gw", || Daemon::start(&inside)) else {
                return;
            };
            let before = at("gw", ruleset);
            for queue in ["0", "40"] {
                let other = [&["run", "--queue", queue], &inside[..]].concat();
                let refused = at("gw", || ftwall(&other));
                let said = words(&refused.stderr);
                assert_eq!(refused.status.code(), Some(1), "queue {queue}: {said}");
                let process = format!("as process {}:", daemon.child.id());
                assert!(said.contains("ftwall is running already, "), "{said}");
                assert!(said.contains(&process), "{said}");
            }
            assert_eq!(at("gw", ruleset), before, "nothing was touched");
            ping(&udp("client", "10.77.1.1:2301"));
            daemon.wait_event("client.locked");
            assert_eq!(daemon.end("TERM").code(), Some(0));

            let next = at("gw", || Daemon::start(&inside)).expect("the place is free");
            assert_eq!(next.end("TERM").code(), Some(0));
        },
    );
}
