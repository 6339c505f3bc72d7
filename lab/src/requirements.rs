//! What this machine can do for a lab, found by doing it once in a capsule, never by version numbers.

use std::{env, fmt, io::Write};

use serde::Serialize;

use crate::{
    capsule::{Capsule, CapsuleError, Privilege},
    packet_socket,
};

/// The environment variable that turns "skipped, because it cannot be done here" into a failure.
pub const STRICT: &str = "LAB_REQUIRE";

/// Something a lab, or a scenario on it, may need.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Feature {
    /// Namespaces of one's own.
    Capsule,
    /// Raw sockets on interfaces: captures and wires.
    PacketSockets,
    /// nftables: tables, sets, connection tracking.
    Nftables,
    /// The native `queue` statement of nftables.
    NftQueue,
    /// The NFQUEUE target by iptables-nft.
    IptablesNftQueue,
    /// The NFQUEUE target by iptables-legacy.
    IptablesLegacyQueue,
    /// A real web server.
    Nginx,
    /// A real web client.
    Curl,
}

/// One feature and what trying it showed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The feature.
    pub feature: Feature,
    /// Why it does not work here; `None` when it does.
    pub missing: Option<String>,
}

/// What this machine can do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Requirements {
    /// How capsules are made here, if at all.
    pub privilege: Option<Privilege>,
    /// One finding per feature.
    pub findings: Vec<Finding>,
}

/// Features that were asked for and are not here, each with the reason.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
pub struct Missing(pub Vec<Finding>);

/// Tries everything.
#[must_use]
pub fn probe() -> Requirements {
    let privilege = Privilege::available();
    let try_out = |feature: Feature| match (&privilege, feature) {
        (Ok(_), _) => feature.try_out().err(),
        (Err(refusal), Feature::Capsule) => Some(refusal.to_string()),
        (Err(_), _) => Some("there is no capsule to try it in".to_owned()),
    };
    let finding = |&feature: &Feature| Finding {
        feature,
        missing: try_out(feature),
    };
    let findings = Feature::ALL.iter().map(finding).collect();
    Requirements {
        privilege: privilege.ok(),
        findings,
    }
}

impl Requirements {
    /// Whether a feature works.
    #[must_use]
    pub fn has(&self, feature: Feature) -> bool {
        self.findings
            .iter()
            .any(|finding| finding.feature == feature && finding.missing.is_none())
    }

    /// Checks that all of `features` work.
    ///
    /// # Errors
    /// Those that do not, with reasons.
    pub fn check(&self, features: &[Feature]) -> Result<(), Missing> {
        let lacks =
            |finding: &&Finding| features.contains(&finding.feature) && finding.missing.is_some();
        let missing: Vec<Finding> = self.findings.iter().filter(lacks).cloned().collect();
        if missing.is_empty() {
            Ok(())
        } else {
            Err(Missing(missing))
        }
    }

    /// Whether packets can be queued to user space at all, by whichever mechanism.
    #[must_use]
    pub fn has_queue(&self) -> bool {
        [
            Feature::NftQueue,
            Feature::IptablesNftQueue,
            Feature::IptablesLegacyQueue,
        ]
        .into_iter()
        .any(|mechanism| self.has(mechanism))
    }
}

impl fmt::Display for Requirements {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.privilege {
            Some(privilege) => writeln!(f, "capsules by {privilege}")?,
            None => writeln!(f, "no capsules")?,
        }
        self.findings
            .iter()
            .try_for_each(|finding| writeln!(f, "{finding}"))
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.missing {
            None => write!(f, "{:<22} ok", self.feature.name()),
            Some(reason) => write!(
                f,
                "{:<22} missing: {reason} [{}]",
                self.feature.name(),
                self.feature.remedy()
            ),
        }
    }
}

/// Whether skipping is forbidden (`LAB_REQUIRE=1`).
#[must_use]
pub fn is_strict() -> bool {
    env::var_os(STRICT).is_some_and(|value| value == "1")
}

/// Says loudly that a test was skipped and why, past libtest's capture of output.
///
/// # Panics
/// Under [`STRICT`], so that a machine that is meant to run everything does.
pub fn skip_or_fail(what: &str, reason: &str) {
    assert!(
        !is_strict(),
        "`{what}` cannot run here and {STRICT}=1 forbids to skip it: {reason}"
    );
    // Nobody is left to tell if standard error is closed.
    drop(writeln!(std::io::stderr(), "SKIPPED {what}: {reason}"));
}

impl Feature {
    /// Every feature, in the order of the report.
    pub const ALL: &[Self] = &[
        Self::Capsule,
        Self::PacketSockets,
        Self::Nftables,
        Self::NftQueue,
        Self::IptablesNftQueue,
        Self::IptablesLegacyQueue,
        Self::Nginx,
        Self::Curl,
    ];

    /// Name in reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Capsule => "capsule",
            Self::PacketSockets => "packet_sockets",
            Self::Nftables => "nftables",
            Self::NftQueue => "nft_queue",
            Self::IptablesNftQueue => "iptables_nft_queue",
            Self::IptablesLegacyQueue => "iptables_legacy_queue",
            Self::Nginx => "nginx",
            Self::Curl => "curl",
        }
    }

    /// What to do where it is missing.
    #[must_use]
    pub fn remedy(self) -> &'static str {
        match self {
            Self::Capsule => "allow unprivileged user namespaces or run as root",
            Self::PacketSockets => "kernel option CONFIG_PACKET",
            Self::Nftables => "package nftables; kernel module nf_tables",
            Self::NftQueue => "kernel module nft_queue; not needed where an iptables queue works",
            Self::IptablesNftQueue | Self::IptablesLegacyQueue => {
                "package iptables; kernel modules xt_NFQUEUE and nfnetlink_queue; one mechanism is enough"
            }
            Self::Nginx => "package nginx-light",
            Self::Curl => "package curl",
        }
    }

    /// Does it once, in a capsule of its own, and says what was in the way.
    fn try_out(self) -> Result<(), String> {
        match self {
            Self::Capsule => succeeds(Capsule::command("true", NO_ARGS)),
            Self::PacketSockets => {
                succeeds(Capsule::command("true", NO_ARGS).before_exec(packet_socket::are_allowed))
            }
            Self::Nftables => succeeds(Capsule::command("nft", [NFT_TABLE])),
            Self::NftQueue => succeeds(Capsule::command("nft", [NFT_QUEUE])),
            Self::IptablesNftQueue => succeeds(Capsule::command("iptables-nft", XT_QUEUE)),
            Self::IptablesLegacyQueue => succeeds(Capsule::command("iptables-legacy", XT_QUEUE)),
            Self::Nginx => succeeds(Capsule::command("nginx", ["-v"])),
            Self::Curl => succeeds(Capsule::command("curl", ["--version"])),
        }
    }
}

const NO_ARGS: [&str; 0] = [];
/// Uses what every filter needs: a forward hook, connection marks, a set whose elements expire.
const NFT_TABLE: &str = "table inet lab_probe {
    set peers { type ipv4_addr; flags timeout; }
    chain forward {
        type filter hook forward priority filter
        ct mark 1 accept
        ip daddr @peers drop
    }
}";
const NFT_QUEUE: &str = "table inet lab_probe {
    chain forward {
        type filter hook forward priority filter
        queue num 0
    }
}";
const XT_QUEUE: [&str; 6] = ["-A", "FORWARD", "-j", "NFQUEUE", "--queue-num", "0"];

fn succeeds(capsule: Capsule) -> Result<(), String> {
    let output = capsule
        .output()
        .map_err(|error: CapsuleError| error.to_string())?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(said
        .lines()
        .next()
        .unwrap_or("it failed without a word")
        .trim()
        .to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_check_names_what_is_missing_and_only_that() {
        let requirements = with_missing(&[Feature::NftQueue, Feature::Curl]);
        assert_eq!(
            requirements.check(&[Feature::Capsule, Feature::Nftables]),
            Ok(())
        );
        let Missing(missing) = requirements
            .check(&[Feature::Capsule, Feature::Curl])
            .unwrap_err();
        assert_eq!(missing.len(), 1);
        assert_eq!(missing[0].feature, Feature::Curl);
        assert!(
            missing[0].to_string().contains("package curl"),
            "says what to do"
        );
    }

    #[test]
    fn one_way_to_queue_packets_is_enough() {
        assert!(with_missing(&[Feature::NftQueue, Feature::IptablesNftQueue]).has_queue());
        let none = [
            Feature::NftQueue,
            Feature::IptablesNftQueue,
            Feature::IptablesLegacyQueue,
        ];
        assert!(!with_missing(&none).has_queue());
    }

    #[test]
    fn probing_reports_every_feature_once_and_names_are_stable() {
        let found = probe();
        let features: Vec<Feature> = found
            .findings
            .iter()
            .map(|finding| finding.feature)
            .collect();
        assert_eq!(features, Feature::ALL);
        assert_eq!(found.has(Feature::Capsule), found.privilege.is_some());
        for feature in Feature::ALL {
            let json = serde_json::to_value(feature).expect("a name");
            assert_eq!(json, feature.name(), "the same word in both reports");
        }
    }

    fn with_missing(missing: &[Feature]) -> Requirements {
        let finding = |&feature: &Feature| Finding {
            feature,
            missing: missing
                .contains(&feature)
                .then(|| "not in this test".to_owned()),
        };
        let findings = Feature::ALL.iter().map(finding).collect();
        Requirements {
            privilege: Some(Privilege::UserNamespace),
            findings,
        }
    }
}
