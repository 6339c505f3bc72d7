//! What other firewalls on the same machine have to be told, for `ftwall rules print --for`.
//!
//! Nothing of it is needed for the wall to hold: a running daemon puts back what they take away (see
//! `rules_guard`). It closes the moment in between, and names the settings that would lead packets past.

use clap::ValueEnum;

/// A program that manages packet filter rules beside ftwall.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Firewall {
    /// firewalld, with either of its back ends
    Firewalld,
    /// Shorewall, which writes every table of iptables anew
    Shorewall,
    /// Ubuntu's ufw
    Ufw,
    /// Docker, as far as it writes rules of iptables
    Docker,
    /// OpenWrt's firewall4
    Fw4,
}

impl Firewall {
    /// What belongs into which file, with the reason, as text to be read and copied.
    #[must_use]
    pub const fn recipe(self) -> &'static str {
        match self {
            Self::Firewalld => FIREWALLD,
            Self::Shorewall => SHOREWALL,
            Self::Ufw => UFW,
            Self::Docker => DOCKER,
            Self::Fw4 => FW4,
        }
    }
}

const FIREWALLD: &str = "\
# firewalld with its nftables back end (the default) touches its own table alone: nothing to do.
# With FirewallBackend=iptables, a reload also empties the chain that queues, unless told not to.
# /etc/firewalld/firewalld.conf:
FlushAllOnReload=no
";

const SHOREWALL: &str = "\
# Shorewall replaces the tables of iptables whenever it is started or restarted. ftwall decides in a
# table of its own, but where iptables queues for it, the chain FTWALL in mangle goes with the rest.
# Shorewall runs this after it has put its own rules in place.
# /etc/shorewall/started:
ftwall status >/dev/null 2>&1; [ $? = 3 ] || ftwall reload
";

const UFW: &str = "\
# ufw touches chains of its own and the policies of the filter table: nothing to do.
# That inside hosts may dial out at all is its affair:
# ufw route allow in on lan0 out on wan0
";

const DOCKER: &str = "\
# Docker touches the tables filter and nat: nothing to do. It sets the policy of FORWARD to drop, so
# that other hosts pass only where its chain for the administrator says so:
# iptables -I DOCKER-USER -i lan0 -o wan0 -j ACCEPT
# iptables -I DOCKER-USER -i wan0 -o lan0 -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT
";

const FW4: &str = "\
# fw4 flushes its own table alone: nothing to do for the rules. But packets of offloaded connections never
# come to any rule:
# /etc/config/firewall:
config defaults
	option flow_offloading '0'
	option flow_offloading_hw '0'
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_recipe_names_its_firewall_and_where_each_line_belongs() {
        for firewall in Firewall::value_variants() {
            let recipe = firewall.recipe();
            let name = firewall.to_possible_value().expect("none is hidden");
            let mut words = recipe[2..].split(' ');
            let named = words.next().expect("it says something");
            assert_eq!(named.to_lowercase(), name.get_name());
            let to_copy = recipe.lines().position(|line| !line.starts_with('#'));
            if let Some(first) = to_copy {
                let file = recipe.lines().nth(first - 1).expect("a line says where");
                assert!(file.starts_with("# /etc/") && file.ends_with(':'), "{file}");
            }
        }
    }
}
