//! What the kernel's sets still know of hosts and peers when a daemon takes over from one that died.
//!
//! Rules are replaced in one transaction that leaves the sets alone, so who was locked stays locked in
//! the kernel. The engine has to know it too, or it would pass what the kernel asks it about.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use serde_json::Value;

use super::nft::Listing;
use super::nft_json::{FAMILY, TABLE};
use super::rules::{LOCKED, PEERS};
use crate::Remembered;

/// Reads the sets out of a listing of the whole ruleset; elements of another shape are not ftwall's.
#[must_use]
pub fn read(listing: &Listing) -> Vec<Remembered> {
    let locked = elements(listing, LOCKED).filter_map(|(value, for_)| {
        let host = value.as_str()?.parse().ok()?;
        Some(Remembered::Locked { host, for_ })
    });
    let peers = elements(listing, PEERS).filter_map(|(value, for_)| Some((pair(value)?, for_)));
    // Each pair stands there once for TCP and once for UDP.
    let peers: BTreeMap<_, _> = peers.collect();
    let peers = peers
        .into_iter()
        .map(|((client, peer), for_)| Remembered::Peer { client, peer, for_ });
    locked.chain(peers).collect()
}

/// Each element of a set and how long it stays.
fn elements<'a>(
    listing: &'a Listing,
    name: &'a str,
) -> impl Iterator<Item = (&'a Value, Duration)> {
    let is_it =
        move |set: &&Value| set["family"] == FAMILY && set["table"] == TABLE && set["name"] == name;
    let sets = listing.objects("set").filter(is_it);
    let elements = sets.filter_map(|set| set["elem"].as_array()).flatten();
    elements.filter_map(|listed| {
        let element = listed.get("elem")?;
        // Whole seconds, rounded down; what is about to leave stays for the rest of its last second.
        let expires = element.get("expires")?.as_u64()?.max(1);
        Some((element.get("val")?, Duration::from_secs(expires)))
    })
}

fn pair(value: &Value) -> Option<(Ipv4Addr, SocketAddrV4)> {
    let [client, address, _, port] = value.get("concat")?.as_array()?.as_slice() else {
        return None;
    };
    let port = u16::try_from(port.as_u64()?).ok()?;
    let peer = SocketAddrV4::new(address.as_str()?.parse().ok()?, port);
    Some((client.as_str()?.parse().ok()?, peer))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As nft 1.0.6 lists it, handles and types left out.
    const LISTED: &[u8] = br#"{"nftables": [
        {"set": {"family": "inet", "name": "locked", "table": "ftwall", "elem": [
            {"elem": {"val": "10.77.1.1", "timeout": 120, "expires": 119}}]}},
        {"set": {"family": "inet", "name": "peers", "table": "ftwall", "elem": [
            {"elem": {"val": {"concat": ["10.77.1.1", "198.18.0.1", "tcp", 1214]}, "timeout": 7200, "expires": 0}},
            {"elem": {"val": {"concat": ["10.77.1.1", "198.18.0.1", "udp", 1214]}, "timeout": 7200, "expires": 0}},
            {"elem": {"val": {"concat": ["10.77.1.1", "not an address", "udp", 1214]}, "expires": 7}},
            "10.77.1.9"]}},
        {"set": {"family": "ip", "name": "locked", "table": "filter", "elem": [
            {"elem": {"val": "10.77.1.2", "timeout": 120, "expires": 119}}]}}
    ]}"#;

    #[test]
    fn locks_and_peers_are_read_once_each_and_other_tables_not_at_all() {
        let client = Ipv4Addr::new(10, 77, 1, 1);
        let expected = [
            Remembered::Locked {
                host: client,
                for_: Duration::from_secs(119),
            },
            Remembered::Peer {
                client,
                peer: SocketAddrV4::new(Ipv4Addr::new(198, 18, 0, 1), 1214),
                for_: Duration::from_secs(1),
            },
        ];
        assert_eq!(read(&Listing::parse(LISTED)), expected);
    }

    #[test]
    fn a_table_that_is_not_there_remembers_nothing() {
        assert_eq!(read(&Listing::parse(b"{}")), []);
    }
}
