//! Whether anything on this machine keeps connections from outside away from hosts inside: a client
//! that can be called from outside makes contact without ever dialling.
//!
//! Somebody else's rules cannot be understood in general. What is looked for are the three things that
//! gateways do in practice, and the answer says which of them was seen, not that it suffices.

use std::collections::BTreeSet;
use std::fmt;

use serde_json::Value;

use super::nft::Listing;
use super::nft_json::{FAMILY, TABLE};

/// What was seen that may block connections from outside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InboundGuard {
    /// A forward chain that drops what no rule accepts.
    Policy(String),
    /// A rule in a forward chain that drops or rejects.
    Rule(String),
    /// Inside addresses are hidden behind the gateway's own.
    Translation(String),
}

impl fmt::Display for InboundGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            InboundGuard::Policy(chain) => write!(f, "{chain} drops what it does not accept"),
            InboundGuard::Rule(chain) => write!(f, "{chain} drops or rejects something"),
            InboundGuard::Translation(chain) => {
                write!(
                    f,
                    "{chain} hides inside addresses (forwarded ports still lead inside)"
                )
            }
        }
    }
}

/// The best guard that a listing shows, ftwall's own rules left aside. Rules of iptables-legacy are not
/// in the listing.
#[must_use]
pub fn find(listing: &Listing) -> Option<InboundGuard> {
    let forward = || {
        listing
            .objects("chain")
            .filter(|chain| is_foreign(chain, "forward"))
    };
    let postrouting = || {
        listing
            .objects("chain")
            .filter(|chain| is_foreign(chain, "postrouting"))
    };
    let policy = forward().find(|chain| chain["policy"] == "drop");
    let rule = || forward().find(|chain| reaches(listing, chain, is_refusal));
    let translation = || postrouting().find(|chain| reaches(listing, chain, is_translation));
    policy
        .map(|chain| InboundGuard::Policy(name(chain)))
        .or_else(|| rule().map(|chain| InboundGuard::Rule(name(chain))))
        .or_else(|| translation().map(|chain| InboundGuard::Translation(name(chain))))
}

/// What to say when nothing was found.
pub const OPEN: &str = "nothing seems to block connections from outside to hosts inside, so a client \
    can be called without dialling: add --block-inbound, or block them in your own rules \
    (looked at: policies and rules of forward chains and address translation in nf_tables)";

fn is_foreign(chain: &Value, hook: &str) -> bool {
    let ours = chain["family"] == FAMILY && chain["table"] == TABLE;
    chain["hook"] == hook && !ours
}

/// Whether a rule of `chain`, or of a chain it leads to, has a statement for which `wanted` holds.
fn reaches(listing: &Listing, chain: &Value, wanted: fn(&Value) -> bool) -> bool {
    let mut seen = BTreeSet::new();
    let mut ahead = vec![chain];
    while let Some(chain) = ahead.pop() {
        if !seen.insert(name(chain)) {
            continue;
        }
        let statements = || {
            listing
                .rules(chain)
                .filter_map(|rule| rule["expr"].as_array())
                .flatten()
        };
        if statements().any(wanted) {
            return true;
        }
        let targets: Vec<&Value> = statements().filter_map(target).collect();
        ahead.extend(listing.objects("chain").filter(|next| {
            next["family"] == chain["family"]
                && next["table"] == chain["table"]
                && targets.contains(&&next["name"])
        }));
    }
    false
}

fn target(statement: &Value) -> Option<&Value> {
    let jump = statement.get("jump").or_else(|| statement.get("goto"))?;
    jump.get("target")
}

fn is_refusal(statement: &Value) -> bool {
    statement.get("drop").is_some()
        || statement.get("reject").is_some()
        || is_xt(statement, &["REJECT", "DROP"])
}

fn is_translation(statement: &Value) -> bool {
    statement.get("masquerade").is_some()
        || statement.get("snat").is_some()
        || is_xt(statement, &["MASQUERADE", "SNAT"])
}

fn is_xt(statement: &Value, targets: &[&str]) -> bool {
    statement["xt"]["name"]
        .as_str()
        .is_some_and(|name| targets.contains(&name))
}

fn name(chain: &Value) -> String {
    let part = |key: &str| chain[key].as_str().unwrap_or("?").to_owned();
    format!(
        "chain {} {} {}",
        part("family"),
        part("table"),
        part("name")
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn listing(objects: &[Value]) -> Listing {
        Listing::parse(json!({ "nftables": objects }).to_string().as_bytes())
    }

    fn chain(table: &str, name: &str, hook: &str, policy: &str) -> Value {
        json!({ "chain": { "family": "inet", "table": table, "name": name, "hook": hook,
            "policy": policy } })
    }

    fn rule(table: &str, chain: &str, statement: &Value) -> Value {
        json!({ "rule": { "family": "inet", "table": table, "chain": chain, "expr": [statement] } })
    }

    #[test]
    fn a_forward_policy_of_drop_guards() {
        let found = find(&listing(&[chain("filter", "forward", "forward", "drop")]));
        assert_eq!(
            found,
            Some(InboundGuard::Policy("chain inet filter forward".into()))
        );
    }

    #[test]
    fn a_drop_behind_a_jump_guards() {
        let found = find(&listing(&[
            chain("filter", "forward", "forward", "accept"),
            chain("filter", "from_wan", "", ""),
            rule(
                "filter",
                "forward",
                &json!({ "jump": { "target": "from_wan" } }),
            ),
            rule("filter", "from_wan", &json!({ "reject": null })),
        ]));
        assert_eq!(
            found,
            Some(InboundGuard::Rule("chain inet filter forward".into()))
        );
    }

    #[test]
    fn hidden_addresses_guard_a_little() {
        let masquerade = json!({ "xt": { "type": "target", "name": "MASQUERADE" } });
        let found = find(&listing(&[
            chain("nat", "postrouting", "postrouting", "accept"),
            rule("nat", "postrouting", &masquerade),
        ]));
        assert!(
            matches!(found, Some(InboundGuard::Translation(_))),
            "{found:?}"
        );
    }

    #[test]
    fn ftwalls_own_drops_do_not_count_and_loops_of_chains_end() {
        let found = find(&listing(&[
            chain("ftwall", "decide", "forward", "accept"),
            rule("ftwall", "decide", &json!({ "drop": null })),
            chain("filter", "forward", "forward", "accept"),
            rule(
                "filter",
                "forward",
                &json!({ "jump": { "target": "forward" } }),
            ),
            chain("filter", "input", "input", "drop"),
        ]));
        assert_eq!(found, None);
    }
}
