//! Beside other firewalls: the real programs, started and reloaded around a running daemon.
//!
//! Each lets the inside out, as an office's would. What they write to /etc and /var is written to copies
//! that go with the mount namespace.

use std::net::UdpSocket;
use std::process::{Child, Command};

use serde_json::Value;

use super::GIFT_PING;
use super::harness::{
    Daemon, feed, ftwall, in_namespaces, ruleset, run, skip, skip_back_end, wait_for, words,
};
use super::network::{at, build_network, dial, fetch_page, heard, udp};

const PEER: &str = "198.18.0.9:1214";
const OTHER_PORT: &str = "198.18.0.9:5222";

#[test]
fn the_wall_holds_beside_nftables_rules_that_are_loaded_anew() {
    let firewall = Firewall {
        programs: &["nft"],
        start: load_nftables,
        reload: load_nftables_again,
        has: "table inet office",
        takes_rules: true,
    };
    beside(
        "firewalls::the_wall_holds_beside_nftables_rules_that_are_loaded_anew",
        &firewall,
    );
}

#[test]
fn the_wall_holds_beside_firewalld() {
    let firewall = Firewall {
        programs: &[
            "/usr/sbin/firewalld",
            "/usr/bin/firewall-cmd",
            "dbus-daemon",
        ],
        start: start_firewalld,
        reload: || bash("/usr/bin/python3 /usr/bin/firewall-cmd --reload"),
        has: "table inet firewalld",
        takes_rules: true,
    };
    beside("firewalls::the_wall_holds_beside_firewalld", &firewall);
}

#[test]
fn the_wall_holds_beside_shorewall() {
    let firewall = Firewall {
        programs: &["shorewall"],
        start: start_shorewall,
        reload: || bash("shorewall restart"),
        has: "chain lan_frwd",
        takes_rules: true,
    };
    beside("firewalls::the_wall_holds_beside_shorewall", &firewall);
}

#[test]
fn the_wall_holds_beside_ufw() {
    let firewall = Firewall {
        programs: &["/usr/sbin/ufw"],
        start: start_ufw,
        reload: || bash("/usr/bin/python3 /usr/sbin/ufw reload"),
        has: "chain ufw-before-forward",
        takes_rules: false,
    };
    beside("firewalls::the_wall_holds_beside_ufw", &firewall);
}

#[test]
fn the_wall_holds_beside_the_rules_of_docker() {
    let firewall = Firewall {
        programs: &["iptables-restore"],
        start: load_docker_rules,
        reload: || bash(DOCKER_STARTS_AGAIN),
        has: "chain DOCKER-USER",
        takes_rules: false,
    };
    beside(
        "firewalls::the_wall_holds_beside_the_rules_of_docker",
        &firewall,
    );
}

/// Another firewall, as far as this test has to know it.
struct Firewall {
    /// What has to be installed.
    programs: &'static [&'static str],
    /// Loads its rules at the gateway; what has to go on running for it.
    start: fn() -> Vec<Running>,
    /// What its administrator does to it later.
    reload: fn(),
    /// What the ruleset shows of it.
    has: &'static str,
    /// Whether that takes rules of ftwall's away.
    takes_rules: bool,
}

fn beside(name: &str, firewall: &Firewall) {
    let is_there = |program: &&&str| {
        run("sh", &["-c", &format!("command -v {program}")])
            .status
            .success()
    };
    if let Some(missing) = firewall.programs.iter().find(|it| !is_there(it)) {
        return skip(name, &format!("{missing} is not installed"));
    }
    in_namespaces(name, || {
        build_network();
        let running = at("gw", firewall.start);
        assert_has(firewall);
        let options = [
            "--inside",
            "10.77.0.0/16",
            "--control-socket",
            "/run/ftwall.sock",
        ];
        let Some(mut daemon) = at("gw", || Daemon::start(&options)) else {
            return skip_back_end("any", "this kernel cannot queue");
        };
        let client = udp("client", "10.77.1.1:2301");
        let peer = udp("out", PEER);
        peer.set_nonblocking(true).expect("it is open");
        client.send_to(GIFT_PING, PEER).expect("the network is up");
        daemon.wait_event("client.locked");
        assert_holds(&client, &peer);

        at("gw", firewall.reload);
        if firewall.takes_rules {
            daemon.wait_event("rules.restored");
        }
        wait_for("the rules", || {
            at("gw", || {
                ftwall(&["rules", "check", "--inside", "10.77.0.0/16"])
            })
            .status
            .success()
        });
        assert_has(firewall);
        // What came through while the rules were away.
        heard(&peer);
        assert_holds(&client, &peer);
        assert_eq!(restored() > 0, firewall.takes_rules);
        assert_eq!(daemon.end("TERM").code(), Some(0));
        assert!(!at("gw", ruleset).to_lowercase().contains("ftwall"));
        assert_has(firewall);
        drop(running);
    });
}

/// How often the daemon has put rules back; a restart may take them away in several steps.
fn restored() -> u64 {
    let status = ftwall(&["status", "-o", "json", "--socket", "/run/ftwall.sock"]);
    let status: Value = serde_json::from_slice(&status.stdout).expect("JSON was asked for");
    let restored = &status["counted"]["rules_restored"];
    restored.as_u64().expect("it is counted")
}

/// A locked host reaches no peer, and the web.
fn assert_holds(client: &UdpSocket, peer: &UdpSocket) {
    for _ in 0..100 {
        client.send_to(GIFT_PING, PEER).expect("the network is up");
    }
    assert!(
        dial(OTHER_PORT).is_err(),
        "a locked host gets no connection"
    );
    // Comes through the same worker, which takes pings first.
    assert!(fetch_page().ends_with("ok"));
    assert_eq!(heard(peer), 0);
}

fn assert_has(firewall: &Firewall) {
    let rules = at("gw", ruleset);
    assert!(
        rules.contains(firewall.has),
        "no {} in {rules}",
        firewall.has
    );
}

/// What nftables.service does when it is restarted.
fn load_nftables() -> Vec<Running> {
    feed("nft", &["-f", "-"], NFTABLES_CONF);
    Vec::new()
}

fn load_nftables_again() {
    load_nftables();
}

const NFTABLES_CONF: &str = "\
flush ruleset
table inet office {
  chain forward {
    type filter hook forward priority filter; policy drop;
    ct state established,related accept
    iifname lan0 accept
  }
}
";

fn start_shorewall() -> Vec<Running> {
    bash(
        "mkdir -p /run/shorewall /var/lib/shorewall
        cp -r /etc/shorewall /run/shorewall/etc
        mount --bind /run/shorewall/etc /etc/shorewall
        mount -t tmpfs tmpfs /var/lib/shorewall
        mount -t tmpfs tmpfs /var/log
        cd /etc/shorewall
        printf 'fw firewall\\nlan ipv4\\nnet ipv4\\n' >zones
        printf '?FORMAT 2\\nlan lan0\\nnet wan0\\n' >interfaces
        printf 'lan net ACCEPT\\nfw all ACCEPT\\nnet all DROP\\nall all REJECT\\n' >policy
        sed -i 's/^STARTUP_ENABLED=.*/STARTUP_ENABLED=Yes/; s/^IP_FORWARDING=.*/IP_FORWARDING=Keep/' shorewall.conf
        shorewall start",
    );
    Vec::new()
}

fn start_ufw() -> Vec<Running> {
    bash(
        "mkdir -p /run/ufw
        cp -r /etc/ufw /run/ufw/etc
        mount --bind /run/ufw/etc /etc/ufw
        ufw() { /usr/bin/python3 /usr/sbin/ufw \"$@\"; }
        ufw --force enable
        ufw route allow in on lan0 out on wan0",
    );
    Vec::new()
}

/// As dockerd 20.10 writes them, with the administrator's own in DOCKER-USER.
fn load_docker_rules() -> Vec<Running> {
    bash(&format!("iptables-restore <<'END'\n{DOCKER_RULES}END"));
    Vec::new()
}

const DOCKER_RULES: &str = "\
*nat
:DOCKER - [0:0]
-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
-A OUTPUT ! -d 127.0.0.0/8 -m addrtype --dst-type LOCAL -j DOCKER
-A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE
-A DOCKER -i docker0 -j RETURN
COMMIT
*filter
:FORWARD DROP [0:0]
:DOCKER - [0:0]
:DOCKER-ISOLATION-STAGE-1 - [0:0]
:DOCKER-ISOLATION-STAGE-2 - [0:0]
:DOCKER-USER - [0:0]
-A FORWARD -j DOCKER-USER
-A FORWARD -j DOCKER-ISOLATION-STAGE-1
-A FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A FORWARD -o docker0 -j DOCKER
-A FORWARD -i docker0 ! -o docker0 -j ACCEPT
-A FORWARD -i docker0 -o docker0 -j ACCEPT
-A DOCKER-ISOLATION-STAGE-1 -i docker0 ! -o docker0 -j DOCKER-ISOLATION-STAGE-2
-A DOCKER-ISOLATION-STAGE-1 -j RETURN
-A DOCKER-ISOLATION-STAGE-2 -o docker0 -j DROP
-A DOCKER-ISOLATION-STAGE-2 -j RETURN
-A DOCKER-USER -i lan0 -o wan0 -j ACCEPT
-A DOCKER-USER -i wan0 -o lan0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A DOCKER-USER -j RETURN
COMMIT
";

/// It moves its chains to the front again.
const DOCKER_STARTS_AGAIN: &str = "\
iptables -D FORWARD -j DOCKER-ISOLATION-STAGE-1
iptables -F DOCKER-ISOLATION-STAGE-1
iptables -I FORWARD -j DOCKER-ISOLATION-STAGE-1
iptables -D FORWARD -j DOCKER-USER
iptables -I FORWARD -j DOCKER-USER";

/// On a bus of its own.
fn start_firewalld() -> Vec<Running> {
    bash(
        "mkdir -p /run/dbus /run/firewalld-etc
        cp -r /etc/firewalld/. /run/firewalld-etc
        mount --bind /run/firewalld-etc /etc/firewalld
        mkdir -p /etc/firewalld/zones",
    );
    std::fs::write("/run/dbus.conf", BUS).expect("the disk is ours");
    std::fs::write("/etc/firewalld/zones/trusted.xml", TRUSTED).expect("the disk is ours");
    let bus = Running::start(
        "dbus-daemon",
        &["--config-file=/run/dbus.conf", "--nofork", "--nopidfile"],
    );
    wait_for("the bus", || {
        run("test", &["-S", "/run/dbus/system_bus_socket"])
            .status
            .success()
    });
    let firewalld = [
        "/usr/sbin/firewalld",
        "--nofork",
        "--nopid",
        "--log-file",
        "/run/firewalld.log",
    ];
    let firewalld = Running::start("/usr/bin/python3", &firewalld);
    wait_for("firewalld", || {
        run("/usr/bin/python3", &["/usr/bin/firewall-cmd", "--state"])
            .status
            .success()
    });
    vec![firewalld, bus]
}

const BUS: &str = r#"<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>system</type>
  <listen>unix:path=/run/dbus/system_bus_socket</listen>
  <auth>EXTERNAL</auth>
  <policy context="default"><allow send_destination="*"/><allow eavesdrop="true"/><allow own="*"/></policy>
</busconfig>
"#;

const TRUSTED: &str = r#"<?xml version="1.0" encoding="utf-8"?>
<zone target="ACCEPT">
  <short>Trusted</short>
  <interface name="lan0"/>
  <interface name="wan0"/>
  <forward/>
</zone>
"#;

/// A program that has to go on running; ended when dropped.
struct Running(Child);

impl Running {
    fn start(program: &str, arguments: &[&str]) -> Running {
        let child = Command::new(program).args(arguments).spawn();
        Running(child.unwrap_or_else(|error| panic!("{program}: {error}")))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A script of which every command has to succeed.
fn bash(script: &str) {
    let output = run("bash", &["-ec", script]);
    assert!(
        output.status.success(),
        "{}{}",
        words(&output.stdout),
        words(&output.stderr)
    );
}
