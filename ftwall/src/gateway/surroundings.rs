//! The machine's own place in the network: addresses that must never be blocked, because an inside host
//! can forge a ping to any address and everybody loses the network if the wrong one is learned.

use std::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;

/// The machine's addresses, its resolvers and its default gateways. What cannot be read is left out.
#[must_use]
pub fn addresses() -> Vec<IpNet> {
    let read = |path| std::fs::read_to_string(path).unwrap_or_default();
    let mut addresses = own_addresses();
    addresses.extend(resolvers(&read("/etc/resolv.conf")));
    addresses.extend(
        default_gateways(&read("/proc/net/route"))
            .into_iter()
            .map(IpAddr::V4),
    );
    addresses.sort_unstable();
    addresses.dedup();
    addresses.into_iter().map(IpNet::from).collect()
}

/// Whether the machine forwards IPv4 at all; without that no packet ever comes to ftwall.
#[must_use]
pub fn forwards() -> bool {
    std::fs::read_to_string("/proc/sys/net/ipv4/ip_forward").is_ok_and(|text| text.trim() == "1")
}

fn own_addresses() -> Vec<IpAddr> {
    let Ok(interfaces) = nix::ifaddrs::getifaddrs() else {
        return Vec::new();
    };
    let addresses = interfaces.filter_map(|interface| {
        let address = interface.address?;
        let v4 = address
            .as_sockaddr_in()
            .map(|address| IpAddr::V4(address.ip()));
        v4.or_else(|| {
            address
                .as_sockaddr_in6()
                .map(|address| IpAddr::V6(address.ip()))
        })
    });
    addresses.collect()
}

/// The `nameserver` lines of resolv.conf(5).
fn resolvers(text: &str) -> Vec<IpAddr> {
    let servers = text
        .lines()
        .filter_map(|line| line.trim().strip_prefix("nameserver"));
    servers
        .filter_map(|server| server.split('%').next()?.trim().parse().ok())
        .collect()
}

/// Gateways of the routes to everywhere in /proc/net/route: destination in the second column, gateway
/// in the third, both as hexadecimal words in the machine's byte order, mask in the eighth.
fn default_gateways(text: &str) -> Vec<Ipv4Addr> {
    let routes = text
        .lines()
        .skip(1)
        .map(|line| line.split_whitespace().collect::<Vec<_>>());
    routes
        .filter(|columns| {
            columns.get(1) == Some(&"00000000") && columns.get(7) == Some(&"00000000")
        })
        .filter_map(|columns| u32::from_str_radix(columns.get(2)?, 16).ok())
        .filter(|gateway| *gateway != 0)
        .map(|gateway| Ipv4Addr::from(gateway.to_ne_bytes()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resolvers_are_read_with_and_without_a_zone() {
        let text =
            "# comment\nsearch example.org\nnameserver 192.0.2.53\n nameserver fe80::1%eth0\n";
        let expected: [IpAddr; 2] =
            ["192.0.2.53", "fe80::1"].map(|text| text.parse().expect("a literal"));
        assert_eq!(resolvers(text), expected);
    }

    #[cfg(target_endian = "little")]
    #[test]
    fn only_routes_to_everywhere_name_a_default_gateway() {
        let text = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n\
            wan0\t00000000\t010200C0\t0003\t0\t0\t0\t00000000\t0\t0\t0\n\
            wan0\t000200C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n\
            ppp0\t00000000\t00000000\t0001\t0\t0\t0\t00000000\t0\t0\t0\n";
        assert_eq!(default_gateways(text), [Ipv4Addr::new(192, 0, 2, 1)]);
    }

    #[test]
    fn the_loopback_address_is_one_of_our_own() {
        let own = own_addresses();
        assert!(
            own.is_empty() || own.iter().any(IpAddr::is_loopback),
            "{own:?}"
        );
    }
}
