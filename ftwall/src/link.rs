//! Where a packet came in and who put it on the wire: what a live gateway knows besides a packet's bytes, and
//! a capture does not.
//!
//! Everything here is small and copied, so that nothing is allocated for a packet.

use std::fmt;
use std::str::FromStr;

use serde::{Serialize, Serializer};

/// The name of a network interface.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InterfaceName {
    /// Filled up with zeros.
    octets: [u8; LONGEST_NAME],
}

/// Octets of the longest name: `IFNAMSIZ` of the kernel's `include/uapi/linux/if.h`, less the zero behind it.
const LONGEST_NAME: usize = 15;

impl InterfaceName {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        let end = self.octets.iter().position(|octet| *octet == 0);
        let name = &self.octets[..end.unwrap_or(LONGEST_NAME)];
        std::str::from_utf8(name).expect("it was made of text")
    }
}

impl FromStr for InterfaceName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        // The kernel's own rule, `dev_valid_name`.
        let is_refused = |char: char| char == '/' || char == ':' || char.is_whitespace();
        if text.is_empty()
            || text.len() > LONGEST_NAME
            || text.contains(is_refused)
            || text.contains('\0')
        {
            return Err(
                "not the name of an interface: write one as ip link shows it, as in lan0"
                    .to_owned(),
            );
        }
        let mut octets = [0; LONGEST_NAME];
        octets[..text.len()].copy_from_slice(text.as_bytes());
        Ok(Self { octets })
    }
}

impl fmt::Display for InterfaceName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

impl fmt::Debug for InterfaceName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), formatter)
    }
}

impl Serialize for InterfaceName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// The hardware address of an Ethernet-like interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HardwareAddress(pub [u8; 6]);

impl FromStr for HardwareAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let slip = || {
            "not a hardware address: write six pairs of hexadecimal digits, as in 02:00:5e:10:00:01"
                .to_owned()
        };
        let mut octets = [0; 6];
        let mut pairs = text.split([':', '-']);
        for octet in &mut octets {
            let pair = pairs.next().filter(|pair| pair.len() == 2);
            let digits = pair.filter(|pair| pair.bytes().all(|digit| digit.is_ascii_hexdigit()));
            let value = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok());
            *octet = value.ok_or_else(slip)?;
        }
        match pairs.next() {
            None => Ok(Self(octets)),
            Some(_) => Err(slip()),
        }
    }
}

impl fmt::Display for HardwareAddress {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, f] = self.0;
        write!(formatter, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}")
    }
}

impl Serialize for HardwareAddress {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A packet's way through the gateway, as far as the kernel says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Link {
    /// The interface it came in by.
    pub entered: Option<InterfaceName>,
    /// The interface it leaves by.
    pub leaves: Option<InterfaceName>,
    /// Who put it on the wire before the gateway: behind another router, that router.
    pub sender: Option<HardwareAddress>,
}

/// Where an inside host was last seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Place {
    /// The gateway's interface towards it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interface: Option<InterfaceName>,
    /// What it sends from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mac: Option<HardwareAddress>,
}

impl Place {
    /// Where a host is that was here until now and has sent a packet on this way.
    #[must_use]
    pub fn after_sending(self, link: Link) -> Self {
        Self {
            interface: link.entered.or(self.interface),
            mac: link.sender.or(self.mac),
        }
    }

    /// Where it is when a packet goes to it on this way, which says nothing of what it sends from.
    #[must_use]
    pub fn before_receiving(self, link: Link) -> Self {
        Self {
            interface: link.leaves.or(self.interface),
            ..self
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_or_an_address_is_read_as_it_is_shown() {
        for name in ["lan0", "eth0.17", "enp0s31f6", "abcdefghijklmno"] {
            assert_eq!(
                name.parse().map(|it: InterfaceName| it.to_string()),
                Ok(name.into())
            );
        }
        for wrong in ["", "abcdefghijklmnop", "lan 0", "lan/0", "eth0:1", "a\0b"] {
            assert!(wrong.parse::<InterfaceName>().is_err(), "{wrong}");
        }
        let address = HardwareAddress([0x02, 0, 0x5e, 0x10, 0, 0xff]);
        assert_eq!("02:00:5E:10:00:ff".parse(), Ok(address));
        assert_eq!("02-00-5e-10-00-ff".parse(), Ok(address));
        assert_eq!(address.to_string(), "02:00:5e:10:00:ff");
        for wrong in [
            "",
            "02:00:5e:10:00",
            "02:00:5e:10:00:01:02",
            "2:0:5e:10:0:1",
            "+2:00:5e:10:00:01",
        ] {
            assert!(wrong.parse::<HardwareAddress>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_goes_to_a_host_says_nothing_of_what_it_sends_from() {
        let name = |text: &str| text.parse::<InterfaceName>().ok();
        let (client, router) = (HardwareAddress([2; 6]), HardwareAddress([4; 6]));
        let sent = Link {
            entered: name("lan0"),
            leaves: name("wan0"),
            sender: Some(client),
        };
        let received = Link {
            entered: name("wan0"),
            leaves: name("lan1"),
            sender: Some(router),
        };
        let place = Place::default().after_sending(sent);
        let expected = Place {
            interface: name("lan0"),
            mac: Some(client),
        };
        assert_eq!(place, expected);
        let moved = Place {
            interface: name("lan1"),
            ..expected
        };
        assert_eq!(place.before_receiving(received), moved);
        assert_eq!(place.before_receiving(Link::default()), place);
    }
}
