//! The devices ftwall is compared with: what their rules say, as predicates.

use super::super::ruleset::{TCP, UDP, View};

/// Whether [`crate::device::BLOCK_1214`] drops a packet.
pub(super) fn blocks_1214(packet: &View<'_>) -> bool {
    packet.ports().is_some_and(|ports| ports.contains(&1214))
}

/// Whether [`crate::device::STRING_MATCH`] drops a packet.
pub(super) fn matches_string(packet: &View<'_>) -> bool {
    let octets = packet.octets();
    let holds = |wanted: &[u8]| octets.windows(wanted.len()).any(|window| window == wanted);
    match packet.protocol() {
        UDP => (43..=1500).contains(&octets.len()) && holds(b"KaZaA\0"),
        TCP => [&b"X-Kazaa"[..], b"GET /.hash=", b"GIVE "]
            .into_iter()
            .any(holds),
        _ => false,
    }
}
