//! What others do to rules and lines of a gateway, with the tools they would use.

use std::fs;

use anyhow::{Context, ensure};
use lab::{Node, Spec};

/// What whoever does not know of ftwall does.
pub(super) fn flush(node: &Node) -> anyhow::Result<()> {
    run(node, "nft", "flush ruleset").map(drop)
}

/// As an administrator who cleans up.
pub(super) fn delete_table(node: &Node) -> anyhow::Result<()> {
    run(node, "nft", "delete table inet ftwall").map(drop)
}

/// As a tool that takes a chain for its own.
pub(super) fn delete_chain(node: &Node) -> anyhow::Result<()> {
    run(node, "nft", "delete chain inet ftwall decide").map(drop)
}

/// As somebody who wants to get something through.
pub(super) fn insert_rule(node: &Node) -> anyhow::Result<()> {
    run(node, "nft", "insert rule inet ftwall decide accept").map(drop)
}

/// As Docker when it starts, after a firewall that writes whole tables.
pub(super) fn rewrite_iptables(node: &Node, restore: &str) -> anyhow::Result<()> {
    let file = lab::capsule::private_dir().join("docker.rules");
    fs::write(&file, DOCKER).context("writing rules")?;
    run(node, restore, &file.display().to_string()).map(drop)
}

/// What Docker loads on a machine that forwards already, and nothing else.
const DOCKER: &str = "\
*mangle
COMMIT
*nat
:PREROUTING ACCEPT [0:0]
:INPUT ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
:DOCKER - [0:0]
-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
-A OUTPUT ! -d 127.0.0.0/8 -m addrtype --dst-type LOCAL -j DOCKER
-A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE
-A DOCKER -i docker0 -j RETURN
COMMIT
*filter
:INPUT ACCEPT [0:0]
:FORWARD ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
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
-A DOCKER-USER -j RETURN
COMMIT
";

/// Runs `ip`.
pub(super) fn ip(node: &Node, words: &str) -> anyhow::Result<()> {
    run(node, "ip", words).map(drop)
}

/// Runs a program that has to succeed; returns what it said.
pub(super) fn run(node: &Node, program: &str, words: &str) -> anyhow::Result<String> {
    let output = node.run(&Spec::new(program).args(words.split(' ')))?;
    ensure!(
        output.success(),
        "{program} {words}: {}",
        output.stderr.trim()
    );
    Ok(output.stdout)
}
