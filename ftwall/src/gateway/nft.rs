//! Speaking to the `nft` program: apply a transaction, check one, list what there is.

use serde_json::Value;

use super::nft_json::{FAMILY, TABLE, transaction};
use super::program::{self, ProgramError};

/// The program's name.
pub const PROGRAM: &str = "nft";

/// Applies `commands` together or not at all.
///
/// # Errors
/// When nft is missing or the kernel refuses one of the commands; nothing has changed then.
pub fn apply(commands: &[Value]) -> Result<(), ProgramError> {
    let input = transaction(commands).to_string();
    program::run(PROGRAM, &["-j", "-f", "-"], input.as_bytes()).map(drop)
}

/// Whether the kernel would take `commands`; changes nothing.
///
/// # Errors
/// Why it would not.
pub fn check(commands: &[Value]) -> Result<(), ProgramError> {
    let input = transaction(commands).to_string();
    program::run(PROGRAM, &["-c", "-j", "-f", "-"], input.as_bytes()).map(drop)
}

/// Everything nf_tables holds in this network namespace, but for the elements of sets: those can be
/// millions.
///
/// # Errors
/// When nft is missing or may not look.
pub fn list() -> Result<Listing, ProgramError> {
    let output = program::run(PROGRAM, &["-j", "-t", "list", "ruleset"], b"")?;
    Ok(Listing::parse(&output))
}

/// Whether ftwall's own table is there, asked without its sets, however large they are.
///
/// # Errors
/// When nft is missing or may not look.
pub fn has_own_table() -> Result<bool, ProgramError> {
    let output = program::run(PROGRAM, &["-j", "list", "tables"], b"")?;
    Ok(Listing::parse(&output).has_ftwall())
}

/// What `nft -j -t list ruleset` shows.
#[derive(Clone, Debug, Default)]
pub struct Listing {
    objects: Vec<Value>,
}

impl Listing {
    /// Reads nft's output; anything unreadable counts as nothing there.
    pub fn parse(output: &[u8]) -> Listing {
        let mut value: Value = serde_json::from_slice(output).unwrap_or_default();
        let objects = match value.get_mut("nftables").map(Value::take) {
            Some(Value::Array(objects)) => objects,
            _ => Vec::new(),
        };
        Listing { objects }
    }

    /// All objects of one kind: `table`, `chain`, `rule`, `flowtable` ...
    pub fn objects<'a>(&'a self, kind: &'a str) -> impl Iterator<Item = &'a Value> {
        self.objects
            .iter()
            .filter_map(move |object| object.get(kind))
    }

    /// Whether there is a table `name` of `family`.
    pub fn has_table(&self, family: &str, name: &str) -> bool {
        self.objects("table")
            .any(|table| table["family"] == family && table["name"] == name)
    }

    /// Whether there is a chain `name` in that table.
    pub fn has_chain(&self, family: &str, table: &str, name: &str) -> bool {
        self.chains(family, table)
            .any(|chain| chain["name"] == name)
    }

    /// The chains of one table.
    pub fn chains<'a>(
        &'a self,
        family: &'a str,
        table: &'a str,
    ) -> impl Iterator<Item = &'a Value> {
        self.objects("chain")
            .filter(move |c| c["family"] == family && c["table"] == table)
    }

    /// The rules of one chain.
    pub fn rules<'a>(&'a self, chain: &'a Value) -> impl Iterator<Item = &'a Value> {
        self.objects("rule").filter(move |rule| {
            rule["family"] == chain["family"]
                && rule["table"] == chain["table"]
                && rule["chain"] == chain["name"]
        })
    }

    /// Whether ftwall's own table has a set `name`.
    pub fn has_own_set(&self, name: &str) -> bool {
        self.objects("set")
            .any(|set| set["family"] == FAMILY && set["table"] == TABLE && set["name"] == name)
    }

    /// Whether ftwall's own table is there.
    pub fn has_ftwall(&self) -> bool {
        self.has_table(FAMILY, TABLE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LISTED: &[u8] = br#"{"nftables": [
        {"metainfo": {"version": "1.0.6"}},
        {"table": {"family": "ip", "name": "mangle", "handle": 2}},
        {"chain": {"family": "ip", "table": "mangle", "name": "FORWARD", "hook": "forward"}},
        {"rule": {"family": "ip", "table": "mangle", "chain": "FORWARD", "expr": [{"drop": null}]}},
        {"rule": {"family": "ip6", "table": "mangle", "chain": "FORWARD", "expr": []}}
    ]}"#;

    #[test]
    fn a_listing_is_read_by_table_chain_and_rule() {
        let listing = Listing::parse(LISTED);
        assert!(listing.has_table("ip", "mangle"));
        assert!(!listing.has_table("ip6", "mangle"));
        assert!(listing.has_chain("ip", "mangle", "FORWARD"));
        assert!(!listing.has_ftwall());
        let chain = listing
            .chains("ip", "mangle")
            .next()
            .expect("it was listed");
        assert_eq!(listing.rules(chain).count(), 1);
    }

    #[test]
    fn unreadable_output_lists_nothing() {
        for output in [&b"not json"[..], b"", b"31", b"[]", b"\"nftables\"", b"{}"] {
            assert_eq!(Listing::parse(output).objects("table").count(), 0);
        }
        assert_eq!(
            Listing::parse(br#"{"nftables": 3}"#)
                .objects("table")
                .count(),
            0
        );
    }
}
