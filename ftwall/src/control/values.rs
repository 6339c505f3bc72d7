//! How values are written, on the command line and in files alike.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use ipnet::IpNet;

use crate::config::NeverBlock;

/// Reads a network, or an address as a network of its own.
///
/// # Errors
/// In words that say what to write instead.
pub fn parse_net(text: &str) -> Result<IpNet, String> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok(address.into());
    }
    let net: IpNet = text.parse().map_err(|_| {
        "not a network: write an address and a prefix length, as in 192.168.0.0/16".to_owned()
    })?;
    if net.addr() != net.network() {
        return Err(format!(
            "has bits set beyond its prefix: did you mean {}?",
            net.trunc()
        ));
    }
    Ok(net)
}

/// Reads an address or network that is never learned, with or without a port.
///
/// # Errors
/// In words that say what to write instead.
pub fn parse_never_block(text: &str) -> Result<NeverBlock, String> {
    if let Ok(address) = text.parse::<SocketAddr>() {
        return Ok(NeverBlock {
            net: address.ip().into(),
            port: Some(address.port()),
        });
    }
    match parse_net(text) {
        Ok(net) => Ok(net.into()),
        Err(error) if text.contains('/') => Err(error),
        Err(_) => Err(
            "neither a network nor an address: write 192.0.2.0/24, 192.0.2.7 or \
            192.0.2.7:1214"
                .into(),
        ),
    }
}

/// Reads a duration. A number alone counts seconds, and zero needs no unit.
///
/// # Errors
/// In words that say what to write instead.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    if let Ok(seconds) = text.parse() {
        return Ok(Duration::from_secs(seconds));
    }
    humantime::parse_duration(text)
        .map_err(|_| "not a duration: write 120s, 5m or 2h, or 0 for none".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_are_read_with_and_without_a_prefix() {
        assert_eq!(
            parse_net("10.77.0.0/16"),
            Ok("10.77.0.0/16".parse().expect("a literal"))
        );
        assert_eq!(
            parse_net("10.77.1.1"),
            Ok("10.77.1.1/32".parse().expect("a literal"))
        );
        let slip = parse_net("10.77.1.1/16").expect_err("host bits are set");
        assert!(slip.contains("did you mean 10.77.0.0/16?"), "{slip}");
        let slip = parse_net("10.77.0.0/33").expect_err("there is no such prefix");
        assert!(slip.contains("192.168.0.0/16"), "{slip}");
    }

    #[test]
    fn what_is_never_blocked_may_have_a_port() {
        let with_port = parse_never_block("192.0.2.7:1214").expect("an address and a port");
        assert_eq!(with_port.port, Some(1214));
        let net = parse_never_block("192.0.2.0/24").expect("a network");
        assert_eq!((net.port, net.net.prefix_len()), (None, 24));
        assert!(
            parse_never_block("bank.example").is_err_and(|error| error.contains("192.0.2.7:1214"))
        );
    }

    #[test]
    fn durations_are_read_as_people_write_them() {
        assert_eq!(parse_duration("2h"), Ok(Duration::from_secs(7200)));
        assert_eq!(parse_duration("0"), Ok(Duration::ZERO));
        assert!(parse_duration("soon").is_err_and(|error| error.contains("120s")));
    }
}
