//! Every kernel setting that a node's behaviour depends on, said out loud.
//!
//! A new network namespace inherits IPv4 settings from whatever the host happens to have (forwarding is
//! on wherever Docker runs), so a lab that relied on defaults would differ from machine to machine.

use std::{collections::BTreeMap, fmt};

use crate::topology::Role;

/// One setting: dotted name, value, and whether a kernel may lack it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sysctl {
    /// Dotted name, as `sysctl(8)` prints it.
    pub key: String,
    /// Value as written to the file.
    pub value: String,
    /// Absence is no error: the kernel may have been built without the feature.
    pub optional: bool,
}

impl fmt::Display for Sysctl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mark = if self.optional {
            " (where present)"
        } else {
            ""
        };
        write!(f, "{} = {}{mark}", self.key, self.value)
    }
}

impl Sysctl {
    /// Path of the file that holds the setting, for the namespace of the thread that opens it.
    #[must_use]
    pub fn path(&self) -> String {
        path_of(&self.key)
    }
}

/// Path below `/proc/sys` of a dotted name.
pub(crate) fn path_of(key: &str) -> String {
    format!("/proc/sys/{}", key.replace('.', "/"))
}

/// The settings of a node that plays `role`, with `overrides` put in place or added.
pub(crate) fn for_role(role: &Role, overrides: &BTreeMap<String, String>) -> Vec<Sysctl> {
    let mut settings: Vec<Sysctl> = table(role)
        .into_iter()
        .map(|(key, value, presence)| Sysctl {
            key: key.to_owned(),
            value: value.to_owned(),
            optional: presence == Optional,
        })
        .collect();
    for (key, value) in overrides {
        settings.retain(|setting| setting.key != *key);
        settings.push(Sysctl {
            key: key.clone(),
            value: value.clone(),
            optional: false,
        });
    }
    settings
}

fn table(role: &Role) -> Vec<Row> {
    match role {
        Role::Host => [NOT_FORWARDING, QUIET_IPV4, NO_IPV6, TCP_ENDPOINT].concat(),
        Role::Router => [FORWARDING, QUIET_IPV4, NO_IPV6, TCP_ENDPOINT, CONNTRACK].concat(),
        Role::Switch => [NOT_FORWARDING, NO_IPV6, PLAIN_BRIDGE].concat(),
        Role::Wire(_) => [NOT_FORWARDING, NO_IPV6].concat(),
    }
}

type Row = (&'static str, &'static str, Presence);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Presence {
    Required,
    Optional,
}
use Presence::{Optional, Required};

/// Setting this one also sets `conf.all.forwarding` and `conf.default.forwarding`.
const FORWARDING: &[Row] = &[("net.ipv4.ip_forward", "1", Required)];
const NOT_FORWARDING: &[Row] = &[("net.ipv4.ip_forward", "0", Required)];

/// No reverse-path filter (a filter's injected answers carry foreign source addresses, and AnyIP nodes
/// answer from any), no redirects that would rewrite routes in the middle of a run.
const QUIET_IPV4: &[Row] = &[
    ("net.ipv4.conf.all.rp_filter", "0", Required),
    ("net.ipv4.conf.default.rp_filter", "0", Required),
    ("net.ipv4.conf.lo.rp_filter", "0", Required),
    ("net.ipv4.conf.all.send_redirects", "0", Required),
    ("net.ipv4.conf.default.send_redirects", "0", Required),
    ("net.ipv4.conf.all.accept_redirects", "0", Required),
    ("net.ipv4.conf.default.accept_redirects", "0", Required),
    ("net.ipv4.ip_nonlocal_bind", "0", Required),
];

/// Router solicitations and duplicate-address detection would add frames that no scenario sent.
const NO_IPV6: &[Row] = &[
    ("net.ipv6.conf.default.disable_ipv6", "1", Optional),
    ("net.ipv6.conf.all.disable_ipv6", "1", Optional),
];

/// One SYN retry makes a dropped connect fail after about 3 s instead of 2 minutes. The port range is
/// fixed because a wire leaves kernel-chosen ports out of a flow's identity (see `wire::fate`).
const TCP_ENDPOINT: &[Row] = &[
    ("net.ipv4.tcp_syn_retries", "1", Required),
    ("net.ipv4.tcp_synack_retries", "2", Required),
    ("net.ipv4.tcp_syncookies", "1", Optional),
    ("net.ipv4.tcp_timestamps", "1", Required),
    ("net.ipv4.tcp_ecn", "2", Required),
    ("net.ipv4.ip_local_port_range", "32768 60999", Required),
    // The kernel's own default since Linux 5.4. Some later ones hide it from user namespaces.
    ("net.core.somaxconn", "4096", Optional),
];

/// Packet counts per connection are needed by rules that look at `ct packets`.
const CONNTRACK: &[Row] = &[
    ("net.netfilter.nf_conntrack_acct", "1", Optional),
    ("net.netfilter.nf_conntrack_tcp_loose", "1", Optional),
    ("net.netfilter.nf_conntrack_tcp_be_liberal", "0", Optional),
];

/// With `br_netfilter` loaded, bridged frames would visit the IP hooks of the switch's namespace.
const PLAIN_BRIDGE: &[Row] = &[
    ("net.bridge.bridge-nf-call-iptables", "0", Optional),
    ("net.bridge.bridge-nf-call-ip6tables", "0", Optional),
    ("net.bridge.bridge-nf-call-arptables", "0", Optional),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_role_says_whether_it_forwards() {
        for (role, value) in [(Role::Host, "0"), (Role::Router, "1"), (Role::Switch, "0")] {
            let settings = for_role(&role, &BTreeMap::new());
            let forward = settings
                .iter()
                .find(|s| s.key == "net.ipv4.ip_forward")
                .expect("explicit");
            assert_eq!(forward.value, value, "{role:?}");
        }
    }

    #[test]
    fn an_override_replaces_the_role_s_value_and_must_exist() {
        let overrides = BTreeMap::from([("net.ipv4.tcp_syn_retries".to_owned(), "3".to_owned())]);
        let settings = for_role(&Role::Host, &overrides);
        let retries: Vec<_> = settings
            .iter()
            .filter(|s| s.key == "net.ipv4.tcp_syn_retries")
            .collect();
        assert_eq!(retries.len(), 1);
        assert_eq!(
            (retries[0].value.as_str(), retries[0].optional),
            ("3", false)
        );
    }

    #[test]
    fn a_dotted_name_becomes_a_path() {
        assert_eq!(
            path_of("net.ipv4.ip_forward"),
            "/proc/sys/net/ipv4/ip_forward"
        );
    }
}
