//! Which mechanism queues packets on this machine, and putting the rules in place and taking them away.
//!
//! The mechanisms are tried in the order of the list, by doing, and never two of them are used: rules
//! of both iptables families in one namespace are a trap of their own.

use std::fmt;
use std::str::FromStr;

use anyhow::{Context as _, anyhow};
use serde::Serialize;
use serde_json::{Value, json};
use tracing::warn;

use super::failure::MissingPrivilege;
use super::nft::{self, Listing};
use super::nft_json::{
    FAMILY, TABLE, add_chain, add_forward_chain, add_rule, add_table, compare, delete_table,
    equals, meta, queue, raw,
};
use super::program::ProgramError;
use super::rules::{self, PayloadTest, RuleSettings};
use super::xt::{self, XtTools};

/// A mechanism that hands packets to a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Backend {
    /// nft's own `queue` statement.
    Nft,
    /// The NFQUEUE target, put in place by iptables on nf_tables.
    IptablesNft,
    /// The NFQUEUE target, put in place by the original iptables.
    IptablesLegacy,
}

impl Backend {
    /// All mechanisms, the best first.
    pub const LADDER: [Backend; 3] = [Backend::Nft, Backend::IptablesNft, Backend::IptablesLegacy];

    /// The name on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Backend::Nft => "nft",
            Backend::IptablesNft => "iptables-nft",
            Backend::IptablesLegacy => "iptables-legacy",
        }
    }

    /// The iptables family that holds the queue statement, if it is not nft itself.
    #[must_use]
    pub const fn xt(self) -> Option<XtTools> {
        match self {
            Backend::Nft => None,
            Backend::IptablesNft => Some(XtTools::Nft),
            Backend::IptablesLegacy => Some(XtTools::Legacy),
        }
    }

    /// Whether it works here; leaves nothing behind.
    ///
    /// # Errors
    /// Why it does not.
    pub fn probe(self) -> Result<(), ProgramError> {
        match self {
            Backend::Nft => nft::check(&[
                add_table(),
                add_forward_chain("probe", 0),
                add_rule("probe", "probe", &[queue(0, true)]),
            ]),
            Backend::IptablesNft => probe_iptables_nft(),
            Backend::IptablesLegacy => xt::probe(XtTools::Legacy),
        }
    }
}

/// The first mechanism that works here, or the requested one.
///
/// # Errors
/// When none works, with the reason of each, or when the requested one does not.
pub fn choose(requested: Option<Backend>) -> anyhow::Result<Backend> {
    let candidates = requested.map_or(Backend::LADDER.to_vec(), |backend| vec![backend]);
    let mut refusals = Vec::new();
    for backend in candidates {
        match backend.probe() {
            Ok(()) => return Ok(backend),
            Err(error) if error.is_privilege() => return Err(explain(error)),
            Err(error) => refusals.push(format!("{backend}: {error}")),
        }
    }
    Err(anyhow!(
        "this machine cannot queue packets ({}); \
         a kernel with nft_queue or xt_NFQUEUE is needed, see `ftwall doctor`",
        refusals.join("; ")
    ))
}

/// How payload can be found here.
#[must_use]
pub fn probe_payload_test() -> PayloadTest {
    let inner_header = compare(">=", &raw("ih", 0, 8), 0);
    let tcp = equals(&meta("l4proto"), "tcp");
    let checked = nft::check(&[
        add_table(),
        add_forward_chain("probe", 0),
        add_rule("probe", "probe", &[tcp, inner_header]),
    ]);
    match checked {
        Ok(()) => PayloadTest::InnerHeader,
        Err(error) => {
            warn!(
                %error,
                "nft cannot look behind TCP headers here: bare acknowledgements with options and TLS are queued too"
            );
            PayloadTest::Length
        }
    }
}

/// Rules that are in place. Taken away when dropped, unless that was done or left to others before.
#[derive(Debug)]
#[must_use = "dropping this takes the rules away"]
pub struct Installed {
    tools: Option<XtTools>,
    in_place: bool,
}

impl Installed {
    /// Takes the rules away.
    ///
    /// # Errors
    /// What could not be taken away; everything else is gone.
    pub fn remove(mut self) -> anyhow::Result<()> {
        self.in_place = false;
        remove(self.tools)
    }

    /// Leaves the rules to whoever removes them later.
    pub fn keep(mut self) {
        self.in_place = false;
    }
}

impl Drop for Installed {
    fn drop(&mut self) {
        if self.in_place
            && let Err(error) = remove(self.tools)
        {
            warn!(%error, "rules could not be taken away; try `ftwall rules remove`");
        }
    }
}

/// Puts the rules in place or replaces those that are there. What fails half way leaves nothing.
///
/// # Errors
/// When a tool is missing or the kernel refuses.
pub fn apply(settings: &RuleSettings, backend: Backend) -> anyhow::Result<Installed> {
    apply_with(settings, backend, Vec::new())
}

/// As [`apply`], and puts `elements` into the sets in the same transaction: a host that is to be locked
/// is from the first packet on.
///
/// # Errors
/// As of [`apply`].
pub fn apply_with(
    settings: &RuleSettings,
    backend: Backend,
    elements: Vec<Value>,
) -> anyhow::Result<Installed> {
    let leftovers = nft::list().map_err(explain)?;
    report(take_away_xt(&leftovers, backend.xt())).context("removing another back end's rules")?;
    let before = nft::list().map_err(explain)?;
    let mut commands = rules::commands(settings, backend);
    // nft gives a set that rules change the flag `dynamic`, which its JSON has no word for, and then refuses
    // to add it again without.
    for name in rules::CHANGED_BY_RULES {
        if before.has_own_set(name) {
            commands.retain(|command| command["add"]["set"]["name"] != name);
        }
    }
    commands.extend(memory(backend, &before));
    commands.extend(elements);
    nft::check(&commands)
        .map_err(explain)
        .context("checking the rules")?;

    let installed = Installed {
        tools: backend.xt(),
        in_place: true,
    };
    if let Some(tools) = backend.xt() {
        xt::install(tools, &rules::dispatches(settings)).map_err(explain)?;
    }
    // From here on packets are marked, and the statement that looks at the marks is there already.
    nft::apply(&commands)
        .map_err(explain)
        .context("applying the rules")?;
    Ok(installed)
}

/// Lets rules that are in place drop what they would queue, until they are applied anew or, with the
/// returned value, taken away.
///
/// # Errors
/// When a tool is missing or the kernel refuses.
pub fn hold() -> anyhow::Result<Installed> {
    nft::apply(&rules::hold_commands())
        .map_err(explain)
        .context("holding the rules in place")?;
    Ok(Installed {
        tools: None,
        in_place: true,
    })
}

/// Takes everything of ftwall's away; with nothing there does nothing. `also` names an iptables family
/// to look at even if ftwall's own table, which remembers it, is gone.
///
/// # Errors
/// What could not be taken away; everything else is gone.
pub fn remove(also: Option<XtTools>) -> anyhow::Result<()> {
    let listing = nft::list().map_err(explain)?;
    let mut failures = Vec::new();
    // The table first: without marks nothing is queued any more.
    if listing.has_ftwall() {
        failures.extend(nft::apply(&[delete_table()]).err());
    }
    failures.extend(take_away_xt(&listing, None));
    if also == Some(XtTools::Legacy) && !remembers(&listing, QUEUED_BY_LEGACY) {
        failures.extend(xt::uninstall(XtTools::Legacy).err());
    }
    report(failures)
}

/// Whether any rule of ftwall's is in place.
///
/// # Errors
/// When nft is missing or may not look.
pub fn is_applied() -> anyhow::Result<bool> {
    Ok(nft::list().map_err(explain)?.has_ftwall())
}

/// How rules that are in place queue packets and find payload; nothing without rules. Touches nothing.
#[must_use]
pub fn in_place(listing: &Listing) -> Option<(Backend, PayloadTest)> {
    if !listing.has_ftwall() {
        return None;
    }
    let backend = if remembers(listing, QUEUED_BY_LEGACY) {
        Backend::IptablesLegacy
    } else if listing.has_chain("ip", MANGLE, xt::CHAIN) {
        Backend::IptablesNft
    } else {
        Backend::Nft
    };
    let chains = listing.chains(FAMILY, TABLE);
    let mut rules = chains.flat_map(|chain| listing.rules(chain));
    let payload_test = match rules.any(|rule| rule.to_string().contains(r#""base":"ih""#)) {
        true => PayloadTest::InnerHeader,
        false => PayloadTest::Length,
    };
    Some((backend, payload_test))
}

/// Empty chains in ftwall's table that remember, for whoever removes the rules later, what else was
/// created for them. They are the only memory that lives exactly as long as the rules.
const MADE_TABLE: &str = "made_ip_mangle";
const MADE_FORWARD: &str = "made_ip_mangle_forward";
const QUEUED_BY_LEGACY: &str = "queued_by_iptables_legacy";

const MANGLE: &str = "mangle";
const FORWARD: &str = "FORWARD";

/// Commands that make the memory say what `backend` is about to create, given what is there `before`.
fn memory(backend: Backend, before: &Listing) -> Vec<Value> {
    let lacks_table = !before.has_table("ip", MANGLE);
    let lacks_forward = !before.has_chain("ip", MANGLE, FORWARD);
    let facts = match backend {
        Backend::Nft => [
            (MADE_TABLE, false),
            (MADE_FORWARD, false),
            (QUEUED_BY_LEGACY, false),
        ],
        Backend::IptablesNft => [
            (MADE_TABLE, lacks_table || remembers(before, MADE_TABLE)),
            (
                MADE_FORWARD,
                lacks_forward || remembers(before, MADE_FORWARD),
            ),
            (QUEUED_BY_LEGACY, false),
        ],
        Backend::IptablesLegacy => [
            (MADE_TABLE, false),
            (MADE_FORWARD, false),
            (QUEUED_BY_LEGACY, true),
        ],
    };
    facts
        .into_iter()
        .filter_map(|(chain, holds)| remember(before, chain, holds))
        .collect()
}

fn remember(before: &Listing, chain: &str, holds: bool) -> Option<Value> {
    match (remembers(before, chain), holds) {
        (false, true) => Some(add_chain(chain)),
        (true, false) => Some(delete_chain(FAMILY, TABLE, chain)),
        (true, true) | (false, false) => None,
    }
}

fn remembers(listing: &Listing, chain: &str) -> bool {
    listing.has_chain(FAMILY, TABLE, chain)
}

/// Takes the xt rules away that `listing` shows or remembers, except those of `keep`.
fn take_away_xt(listing: &Listing, keep: Option<XtTools>) -> Vec<ProgramError> {
    let mut failures = Vec::new();
    if keep != Some(XtTools::Nft) && listing.has_chain("ip", MANGLE, xt::CHAIN) {
        failures.extend(xt::uninstall(XtTools::Nft).err());
        let made_table = remembers(listing, MADE_TABLE);
        let made_forward = remembers(listing, MADE_FORWARD);
        failures.extend(tidy_mangle(made_table, made_forward).err());
    }
    if keep != Some(XtTools::Legacy) && remembers(listing, QUEUED_BY_LEGACY) {
        failures.extend(xt::uninstall(XtTools::Legacy).err());
    }
    failures
}

/// Deletes what iptables-nft created on ftwall's behalf, unless somebody else uses it by now.
fn tidy_mangle(made_table: bool, made_forward: bool) -> Result<(), ProgramError> {
    let listing = nft::list()?;
    let is_empty = |chain: &Value| listing.rules(chain).next().is_none();
    let is_forward = |chain: &Value| chain["name"] == FORWARD;
    let chains: Vec<&Value> = listing.chains("ip", MANGLE).collect();
    if made_table
        && chains
            .iter()
            .all(|chain| is_forward(chain) && is_empty(chain))
    {
        return match listing.has_table("ip", MANGLE) {
            true => nft::apply(&[delete("table", &json!({ "family": "ip", "name": MANGLE }))]),
            false => Ok(()),
        };
    }
    if made_forward
        && chains
            .iter()
            .any(|chain| is_forward(chain) && is_empty(chain))
    {
        return nft::apply(&[delete_chain("ip", MANGLE, FORWARD)]);
    }
    Ok(())
}

/// Tries the NFQUEUE target without leaving a table behind that iptables had to create for it.
fn probe_iptables_nft() -> Result<(), ProgramError> {
    let before = nft::list()?;
    let probed = xt::probe(XtTools::Nft);
    tidy_mangle(
        !before.has_table("ip", MANGLE),
        !before.has_chain("ip", MANGLE, FORWARD),
    )?;
    probed
}

fn delete_chain(family: &str, table: &str, name: &str) -> Value {
    delete(
        "chain",
        &json!({ "family": family, "table": table, "name": name }),
    )
}

fn delete(kind: &str, object: &Value) -> Value {
    json!({ "delete": { kind: object } })
}

/// One error that names all failures, or none.
fn report(mut failures: Vec<ProgramError>) -> anyhow::Result<()> {
    if let Some(place) = failures.iter().position(ProgramError::is_privilege) {
        return Err(explain(failures.swap_remove(place)));
    }
    if failures.is_empty() {
        return Ok(());
    }
    let all: Vec<String> = failures.iter().map(ToString::to_string).collect();
    Err(anyhow!("{}", all.join("; ")))
}

/// Says which capability is missing, where that is what is wrong.
fn explain(error: ProgramError) -> anyhow::Error {
    if error.is_privilege() {
        let privilege = MissingPrivilege {
            action: "changing packet filter rules",
            capability: "CAP_NET_ADMIN",
        };
        return anyhow::Error::new(error).context(privilege);
    }
    error.into()
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Backend {
    type Err = String;

    fn from_str(text: &str) -> Result<Backend, String> {
        let names = Backend::LADDER.map(Backend::name).join(", ");
        Backend::LADDER
            .into_iter()
            .find(|backend| backend.name() == text)
            .ok_or_else(|| format!("no such back end: choose one of auto, {names}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_in_place_show_how_they_were_put_there() {
        let table = r#"{"table": {"family": "inet", "name": "ftwall"}}"#;
        let mangle = r#"{"chain": {"family": "ip", "table": "mangle", "name": "FTWALL"}}"#;
        let legacy = r#"{"chain": {"family": "inet", "table": "ftwall", "name": "queued_by_iptables_legacy"}}"#;
        let rule = r#"{"chain": {"family": "inet", "table": "ftwall", "name": "decide"}},
            {"rule": {"family": "inet", "table": "ftwall", "chain": "decide", "expr": [{"match": {"op": ">=",
            "left": {"payload": {"base": "ih", "offset": 0, "len": 8}}, "right": 0}}]}}"#;
        for (listed, expected) in [
            (mangle.to_owned(), None),
            (table.to_owned(), Some((Backend::Nft, PayloadTest::Length))),
            (
                format!("{table}, {mangle}, {rule}"),
                Some((Backend::IptablesNft, PayloadTest::InnerHeader)),
            ),
            (
                format!("{table}, {legacy}"),
                Some((Backend::IptablesLegacy, PayloadTest::Length)),
            ),
        ] {
            let listing = Listing::parse(format!(r#"{{"nftables": [{listed}]}}"#).as_bytes());
            assert_eq!(in_place(&listing), expected, "{listed}");
        }
    }
}
