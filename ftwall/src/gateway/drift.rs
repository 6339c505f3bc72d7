//! What differs between the rules that should be in the kernel and those that are.
//!
//! Rules are told apart by chain and comment, which every rule of ftwall's has: nft shows expressions in
//! other words than it was given. Those of iptables, which have no comments, are counted.

use std::collections::BTreeMap;

use serde_json::Value;

use super::backend::Backend;
use super::nft::{self, Listing};
use super::nft_json::{FAMILY, TABLE};
use super::program::ProgramError;
use super::rules::{self, RuleSettings};
use super::xt;

/// Looks whether the rules of `backend` are in place in this network namespace. What is wrong, a sentence
/// for each; none if nothing is.
///
/// # Errors
/// When a tool is missing or may not look.
pub fn look(settings: &RuleSettings, backend: Backend) -> Result<Vec<String>, ProgramError> {
    let mut faults = find(&rules::commands(settings, backend), &nft::list()?);
    if let Some(tools) = backend.xt() {
        faults.extend(xt::faults(tools, &rules::dispatches(settings))?);
    }
    Ok(faults)
}

/// What is wrong in ftwall's own table: `expected` are the commands that put it in place, `listing` what
/// nft shows.
fn find(expected: &[Value], listing: &Listing) -> Vec<String> {
    if !listing.has_ftwall() {
        return vec![format!("there is no table {FAMILY} {TABLE}")];
    }
    let mut faults = Vec::new();
    for set in added(expected, "set") {
        let is_same = |other: &&Value| is_ours(other) && other["name"] == set["name"];
        if !listing.objects("set").any(|other| is_same(&other)) {
            faults.push(format!("the set {} is missing", name(set)));
        }
    }
    for chain in added(expected, "chain") {
        faults.extend(chain_fault(chain, listing));
    }
    let (wanted, present) = (by_chain(added(expected, "rule")), by_chain(listed(listing)));
    for (chain, rules) in &wanted {
        let there = present.get(chain).map_or(&[][..], Vec::as_slice);
        faults.extend(rule_faults(chain, rules, there));
    }
    faults
}

fn chain_fault(chain: &Value, listing: &Listing) -> Option<String> {
    let mut chains = listing.chains(FAMILY, TABLE);
    let Some(there) = chains.find(|other| other["name"] == chain["name"]) else {
        return Some(format!("the chain {} is missing", name(chain)));
    };
    let altered = ["hook", "prio", "policy"]
        .into_iter()
        .find(|key| there[*key] != chain[*key])?;
    Some(format!(
        "the chain {} has {altered} {} instead of {}",
        name(chain),
        there[altered],
        chain[altered]
    ))
}

/// Rules that are missing or too many; if neither, whether they are in another order.
fn rule_faults(chain: &str, wanted: &[&str], there: &[&str]) -> Vec<String> {
    let count = |rules: &[&str], rule: &str| rules.iter().filter(|other| **other == rule).count();
    let mut faults = Vec::new();
    let mut seen = Vec::new();
    for rule in wanted.iter().chain(there) {
        if seen.contains(rule) {
            continue;
        }
        seen.push(rule);
        let (wanted, there) = (count(wanted, rule), count(there, rule));
        if there < wanted {
            faults.push(format!("in {chain} a rule is missing: {rule}"));
        } else if there > wanted {
            faults.push(format!("in {chain} a rule is not ours: {rule}"));
        }
    }
    if faults.is_empty() && wanted != there {
        faults.push(format!("in {chain} the rules are in another order"));
    }
    faults
}

fn added<'a>(commands: &'a [Value], kind: &'a str) -> impl Iterator<Item = &'a Value> {
    commands
        .iter()
        .filter_map(move |command| command["add"].get(kind))
}

fn listed(listing: &Listing) -> impl Iterator<Item = &Value> {
    listing.objects("rule").filter(|rule| is_ours(rule))
}

fn by_chain<'a>(rules: impl Iterator<Item = &'a Value>) -> BTreeMap<&'a str, Vec<&'a str>> {
    let mut chains: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for rule in rules {
        let chain = rule["chain"].as_str().unwrap_or_default();
        let comment = rule["comment"].as_str().unwrap_or("without a comment");
        chains.entry(chain).or_default().push(comment);
    }
    chains
}

fn is_ours(object: &Value) -> bool {
    object["family"] == FAMILY && object["table"] == TABLE
}

fn name(object: &Value) -> &str {
    object["name"].as_str().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::nft_json::{
        add_chain, add_expiring_set, add_forward_chain, add_rule, add_table, counter, drop,
    };
    use super::*;

    fn expected() -> Vec<Value> {
        vec![
            add_table(),
            add_expiring_set("locked", &json!("ipv4_addr"), 8),
            add_chain("enqueue"),
            add_forward_chain("decide", -160),
            add_rule("decide", "first", &[counter()]),
            add_rule("decide", "second", &[drop()]),
        ]
    }

    /// What nft would list of these commands.
    fn listing(commands: &[Value]) -> Listing {
        let objects: Vec<_> = commands
            .iter()
            .map(|command| command["add"].clone())
            .collect();
        Listing::parse(json!({ "nftables": objects }).to_string().as_bytes())
    }

    fn faults(alter: impl FnOnce(&mut Vec<Value>)) -> Vec<String> {
        let mut present = expected();
        alter(&mut present);
        find(&expected(), &listing(&present))
    }

    #[test]
    fn rules_in_place_have_no_fault_whatever_their_counters_say() {
        let faults = faults(|there| {
            there[4]["add"]["rule"]["expr"] = json!([{ "counter": { "packets": 7 } }]);
        });
        assert_eq!(faults, [""; 0]);
    }

    #[test]
    fn what_is_gone_is_named() {
        assert_eq!(faults(Vec::clear), ["there is no table inet ftwall"]);
        assert_eq!(
            faults(|there| drop_at(there, 1)),
            ["the set locked is missing"]
        );
        assert_eq!(
            faults(|there| drop_at(there, 2)),
            ["the chain enqueue is missing"]
        );
        assert_eq!(
            faults(|there| drop_at(there, 5)),
            ["in decide a rule is missing: second"]
        );
    }

    fn drop_at(there: &mut Vec<Value>, place: usize) {
        there.remove(place);
    }

    #[test]
    fn what_was_altered_or_added_is_named() {
        assert_eq!(
            faults(|there| there[3]["add"]["chain"]["prio"] = json!(0)),
            ["the chain decide has prio 0 instead of -160"]
        );
        assert_eq!(
            faults(|there| there.push(add_rule("decide", "let all pass", &[counter()]))),
            ["in decide a rule is not ours: let all pass"]
        );
        assert_eq!(
            faults(|there| there.swap(4, 5)),
            ["in decide the rules are in another order"]
        );
    }
}
