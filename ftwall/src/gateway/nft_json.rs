//! The words of nft's JSON that ftwall's rules are written in (libnftables-json(5)).
//!
//! Each function builds one expression, statement or command and knows nothing of what it is used for.
//! JSON is spoken because it needs no quoting, because errors come back with the command they belong
//! to, and because a listing in it can be read without guessing.

use std::net::Ipv4Addr;
use std::time::Duration;

use ipnet::Ipv4Net;
use serde_json::{Value, json};

/// Family of the table: IPv4 and IPv6 packets take the same way.
pub const FAMILY: &str = "inet";
/// The only table ftwall writes to.
pub const TABLE: &str = "ftwall";

/// A whole input for `nft -j -f -`: all its commands take effect together or not at all.
pub fn transaction(commands: &[Value]) -> Value {
    json!({ "nftables": commands })
}

/// Creates the table unless it is there.
pub fn add_table() -> Value {
    json!({ "add": { "table": { "family": FAMILY, "name": TABLE } } })
}

/// Empties every chain of the table; chains and sets stay.
pub fn flush_table() -> Value {
    json!({ "flush": { "table": { "family": FAMILY, "name": TABLE } } })
}

/// Deletes the table with all that is in it.
pub fn delete_table() -> Value {
    json!({ "delete": { "table": { "family": FAMILY, "name": TABLE } } })
}

/// A set whose elements leave by themselves; `types` is the type of its key.
pub fn add_expiring_set(name: &str, types: &Value, size: u32) -> Value {
    json!({ "add": { "set": {
        "family": FAMILY, "table": TABLE, "name": name,
        "type": types, "flags": ["timeout"], "size": size,
    } } })
}

/// A set of networks.
pub fn add_network_set(name: &str) -> Value {
    json!({ "add": { "set": {
        "family": FAMILY, "table": TABLE, "name": name,
        "type": "ipv4_addr", "flags": ["interval"],
    } } })
}

/// Empties a set.
pub fn flush_set(name: &str) -> Value {
    json!({ "flush": { "set": { "family": FAMILY, "table": TABLE, "name": name } } })
}

/// Adds elements to a set.
pub fn add_elements(name: &str, elements: &[Value]) -> Value {
    elements_command("add", name, elements)
}

/// Deletes elements from a set; one that is not there fails the transaction.
pub fn delete_elements(name: &str, elements: &[Value]) -> Value {
    elements_command("delete", name, elements)
}

fn elements_command(verb: &str, name: &str, elements: &[Value]) -> Value {
    json!({ verb: { "element": {
        "family": FAMILY, "table": TABLE, "name": name, "elem": elements,
    } } })
}

/// An element that leaves after `timeout`, rounded up to whole seconds since nft counts in those.
pub fn expiring(key: &Value, timeout: Duration) -> Value {
    let seconds = timeout.as_secs() + u64::from(timeout.subsec_nanos() > 0);
    json!({ "elem": { "val": key, "timeout": seconds.max(1) } })
}

/// A chain that rules jump to.
pub fn add_chain(name: &str) -> Value {
    json!({ "add": { "chain": { "family": FAMILY, "table": TABLE, "name": name } } })
}

/// A chain the kernel enters for every forwarded packet, at `priority` among its neighbours.
pub fn add_forward_chain(name: &str, priority: i32) -> Value {
    json!({ "add": { "chain": {
        "family": FAMILY, "table": TABLE, "name": name,
        "type": "filter", "hook": "forward", "prio": priority, "policy": "accept",
    } } })
}

/// A chain the kernel enters for every packet that this machine itself sends.
pub fn add_output_chain(name: &str, priority: i32) -> Value {
    json!({ "add": { "chain": {
        "family": FAMILY, "table": TABLE, "name": name,
        "type": "filter", "hook": "output", "prio": priority, "policy": "accept",
    } } })
}

/// Adds `key`, as the packet has it, to a set, or renews it there.
pub fn update_set(name: &str, key: &Value, timeout: Duration) -> Value {
    let element = expiring(key, timeout);
    json!({ "set": { "op": "update", "elem": element, "set": format!("@{name}") } })
}

/// Holds where `key`, as the packet has it, has had more than its share: so many packets a second, and
/// `burst` at once. Set `name` remembers it for `timeout` after the last.
pub fn is_over(name: &str, key: &Value, [rate, burst]: [u32; 2], timeout: Duration) -> Value {
    let element = expiring(key, timeout);
    let limit = json!({ "limit": { "rate": rate, "per": "second", "burst": burst, "inv": true } });
    json!({ "set": { "op": "update", "elem": element, "set": format!("@{name}"), "stmt": [limit] } })
}

/// Empties a chain.
pub fn flush_chain(name: &str) -> Value {
    json!({ "flush": { "chain": { "family": FAMILY, "table": TABLE, "name": name } } })
}

/// A rule at the end of `chain`; `comment` is what `nft list ruleset` shows beside it.
pub fn add_rule(chain: &str, comment: &str, expressions: &[Value]) -> Value {
    json!({ "add": { "rule": {
        "family": FAMILY, "table": TABLE, "chain": chain, "comment": comment, "expr": expressions,
    } } })
}

/// `left op right`; a rule ends at its first comparison that is false or cannot be made.
pub fn compare(op: &str, left: &Value, right: impl Into<Value>) -> Value {
    json!({ "match": { "op": op, "left": left, "right": right.into() } })
}

/// `left == right`
pub fn equals(left: &Value, right: impl Into<Value>) -> Value {
    compare("==", left, right)
}

/// Packet in set (or, with `!=`, not in set).
pub fn in_set(op: &str, key: &Value, set: &str) -> Value {
    compare(op, key, format!("@{set}"))
}

/// All bits of `bits` are set in `key`.
pub fn has_bits(key: &Value, bits: u32) -> Value {
    equals(&masked(key, bits), bits)
}

/// `key & mask`
pub fn masked(key: &Value, mask: u32) -> Value {
    json!({ "&": [key, mask] })
}

/// `low-high`, both included, of up to four octets.
pub fn word_range(low: u32, high: u32) -> Value {
    if low == high {
        json!(low)
    } else {
        json!({ "range": [low, high] })
    }
}

/// `low-high`, both included.
pub fn range(low: u16, high: u16) -> Value {
    word_range(low.into(), high.into())
}

/// Sets `bits` in `key`, a packet mark or a conntrack mark.
pub fn set_bits(key: &Value, bits: u32) -> Value {
    json!({ "mangle": { "key": key, "value": { "|": [key, bits] } } })
}

/// Clears `bits` in `key`.
pub fn clear_bits(key: &Value, bits: u32) -> Value {
    json!({ "mangle": { "key": key, "value": { "&": [key, !bits] } } })
}

/// A property of the packet outside its headers.
pub fn meta(key: &str) -> Value {
    json!({ "meta": { "key": key } })
}

/// A property of the packet's connection; without a connection the rule does not match.
pub fn ct(key: &str) -> Value {
    json!({ "ct": { "key": key } })
}

/// A header field; implies that the packet has that header.
pub fn field(protocol: &str, field: &str) -> Value {
    json!({ "payload": { "protocol": protocol, "field": field } })
}

/// `length` bits at bit `offset` after `base`: `th` the transport header, `ih` what follows it. The load
/// fails, and so does the rule, where the packet ends earlier.
pub fn raw(base: &str, offset: u32, length: u32) -> Value {
    json!({ "payload": { "base": base, "offset": offset, "len": length } })
}

/// Several keys as one.
pub fn concat(keys: &[Value]) -> Value {
    json!({ "concat": keys })
}

/// TCP flags among SYN and ACK: SYN alone opens a connection.
pub fn is_syn() -> Value {
    equals(
        &json!({ "&": [field("tcp", "flags"), { "|": ["syn", "ack"] }] }),
        "syn",
    )
}

/// TCP flags among SYN and ACK: both of them answer one that opens a connection.
pub fn is_syn_ack() -> Value {
    let both = json!({ "|": ["syn", "ack"] });
    equals(&json!({ "&": [field("tcp", "flags"), both] }), both)
}

/// The packet opens a connection that conntrack has not seen before.
pub fn is_new() -> Value {
    compare("in", &ct("state"), json!(["new"]))
}

/// A network as an element of an interval set.
pub fn prefix(net: Ipv4Net) -> Value {
    json!({ "prefix": { "addr": net.network(), "len": net.prefix_len() } })
}

/// An address as an element of a set.
pub fn address(address: Ipv4Addr) -> Value {
    json!(address)
}

/// Counts the packets that come this far.
pub fn counter() -> Value {
    json!({ "counter": null })
}

/// Ends this chain; later hooks still see the packet.
pub fn accept() -> Value {
    json!({ "accept": null })
}

/// Ends the packet.
pub fn drop() -> Value {
    json!({ "drop": null })
}

/// Goes on in `chain` and does not come back.
pub fn goto(chain: &str) -> Value {
    json!({ "goto": { "target": chain } })
}

/// Hands the packet to queue `number`; with `bypass` it passes while nobody listens there.
pub fn queue(number: u16, bypass: bool) -> Value {
    if bypass {
        json!({ "queue": { "num": number, "flags": "bypass" } })
    } else {
        json!({ "queue": { "num": number } })
    }
}
