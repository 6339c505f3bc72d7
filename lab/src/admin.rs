//! The rules a gateway's administrator had before any filter was installed: NAT and a closed front door.
//!
//! They live in a table of their own, `inet lab_admin`, because the device under test must get along
//! with rules it did not write. Rendered as text here, loaded by `nft -f -` in [`crate::apply`].

use std::fmt;

/// Which of the administrator's rules a node carries.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AdminRules {
    /// Source NAT (masquerade) for what leaves by this interface.
    pub masquerade: Option<String>,
    /// Drop new connections that arrive by this interface to be forwarded.
    pub block_inbound: Option<String>,
}

impl AdminRules {
    /// Name of the table, family included.
    pub const TABLE: &str = "inet lab_admin";

    /// Whether there is nothing to load.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// The rules in the language of `nft -f`.
impl fmt::Display for AdminRules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "table {} {{", Self::TABLE)?;
        if let Some(interface) = &self.block_inbound {
            writeln!(f, "  chain forward {{")?;
            writeln!(
                f,
                "    type filter hook forward priority filter; policy accept;"
            )?;
            writeln!(f, "    ct state established,related accept")?;
            writeln!(f, "    iifname \"{interface}\" counter drop")?;
            writeln!(f, "  }}")?;
        }
        if let Some(interface) = &self.masquerade {
            writeln!(f, "  chain postrouting {{")?;
            writeln!(
                f,
                "    type nat hook postrouting priority srcnat; policy accept;"
            )?;
            writeln!(f, "    oifname \"{interface}\" masquerade")?;
            writeln!(f, "  }}")?;
        }
        writeln!(f, "}}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_rules_go_into_one_table() {
        let outer = Some("wan0".to_owned());
        let rules = AdminRules {
            masquerade: outer.clone(),
            block_inbound: outer,
        };
        insta::assert_snapshot!(rules);
    }

    #[test]
    fn no_wish_means_no_rules() {
        assert!(AdminRules::default().is_empty());
    }
}
