//! Failures that have an exit code of their own, so that whoever starts ftwall can tell them apart.

use std::process::ExitCode;

use thiserror::Error;

/// Something went wrong.
pub const FAILURE: u8 = 1;
/// What was asked cannot be understood.
pub const USAGE: u8 = 2;
/// No daemon runs.
pub const NOT_RUNNING: u8 = 3;
/// It works, but not as well as it could.
pub const DEGRADED: u8 = 4;
/// A privilege is missing (`EX_NOPERM`).
pub const NO_PRIVILEGE: u8 = 77;
/// The configuration contradicts itself (`EX_CONFIG`).
pub const CONFIGURATION: u8 = 78;

/// The kernel would do it for somebody with this capability.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{action} needs {capability}: run ftwall as root, or give it the capability (AmbientCapabilities={capability} in a systemd unit, setcap {lowered}+ep on the binary)", lowered = .capability.to_lowercase())]
pub struct MissingPrivilege {
    /// What was tried.
    pub action: &'static str,
    /// What it takes.
    pub capability: &'static str,
}

/// The options contradict each other or the machine.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{0}")]
pub struct Misconfigured(pub String);

/// The exit code that says what kind of failure `error` is.
#[must_use]
pub fn exit_code(error: &anyhow::Error) -> ExitCode {
    ExitCode::from(code(error))
}

fn code(error: &anyhow::Error) -> u8 {
    if error.downcast_ref::<MissingPrivilege>().is_some() {
        NO_PRIVILEGE
    } else if error.downcast_ref::<Misconfigured>().is_some() {
        CONFIGURATION
    } else {
        FAILURE
    }
}

#[cfg(test)]
mod tests {
    use anyhow::anyhow;

    use super::*;

    #[test]
    fn a_cause_keeps_its_exit_code_below_any_context() {
        let privilege = MissingPrivilege {
            action: "binding a queue",
            capability: "CAP_NET_ADMIN",
        };
        let wrapped = anyhow::Error::new(privilege)
            .context("starting")
            .context("running");
        assert_eq!(code(&wrapped), NO_PRIVILEGE);
        let wrapped = anyhow::Error::new(Misconfigured("no inside".into())).context("starting");
        assert_eq!(code(&wrapped), CONFIGURATION);
        assert_eq!(code(&anyhow!("anything else")), FAILURE);
    }

    #[test]
    fn a_privilege_named_as_context_of_a_tools_error_counts() {
        let privilege = MissingPrivilege {
            action: "changing rules",
            capability: "CAP_NET_ADMIN",
        };
        let error = anyhow!("nft refused")
            .context(privilege)
            .context("applying the rules");
        assert_eq!(code(&error), NO_PRIVILEGE);
    }

    #[test]
    fn a_missing_privilege_says_how_to_get_it() {
        let privilege = MissingPrivilege {
            action: "binding a queue",
            capability: "CAP_NET_ADMIN",
        };
        assert!(
            privilege.to_string().contains("setcap cap_net_admin+ep"),
            "{privilege}"
        );
    }
}
