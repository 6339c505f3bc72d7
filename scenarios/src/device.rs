//! Devices under test: what stands on the gateway while a scenario is played.

use std::fmt;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// What filters on the gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Device {
    /// The filter this project is about.
    Ftwall,
    /// Nothing.
    None,
    /// The advice of 2003: drop port 1214. Some 96 % of the peers listen elsewhere.
    #[value(name = "block-1214")]
    #[serde(rename = "block-1214")]
    Block1214,
    /// Strings of the kind that ipp2p matched: transfers and pongs, but no handshake.
    StringMatch,
}

impl Device {
    /// The name on the command line and in tables.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Ftwall => "ftwall",
            Self::None => "none",
            Self::Block1214 => "block-1214",
            Self::StringMatch => "string-match",
        }
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// The rules of [`Device::Block1214`], for `nft -f`.
pub(crate) const BLOCK_1214: &str = "\
table inet block_1214 {
  chain forward {
    type filter hook forward priority filter; policy accept;
    meta l4proto { tcp, udp } th dport 1214 drop
    meta l4proto { tcp, udp } th sport 1214 drop
  }
}
";

/// The rules of [`Device::StringMatch`], for `iptables-restore`: a datagram of more than 14 octets
/// that ends in `KaZaA` and NUL (in fact the 17-octet pong; the 12-octet ping is too short for the
/// rule as ipp2p has it), and the heads of transfers, each within one packet.
pub(crate) const STRING_MATCH: &str = "\
*filter
:INPUT ACCEPT [0:0]
:FORWARD ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
-A FORWARD -p udp -m length --length 43:1500 -m string --algo bm --hex-string \"|4b615a614100|\" -j DROP
-A FORWARD -p tcp -m string --algo bm --string \"X-Kazaa\" -j DROP
-A FORWARD -p tcp -m string --algo bm --string \"GET /.hash=\" -j DROP
-A FORWARD -p tcp -m string --algo bm --string \"GIVE \" -j DROP
COMMIT
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_has_one_name_on_the_command_line_in_tables_and_in_json() {
        for device in Device::value_variants() {
            let typed = device.to_possible_value().expect("none is hidden");
            assert_eq!(typed.get_name(), device.name());
            assert_eq!(serde_json::to_value(device).unwrap(), device.name());
        }
    }
}
