//! Steps that may be refused on the way into a capsule, and what can be done about it.

use std::{fmt, io::Read, os::fd::OwnedFd};

/// Steps on the way into a capsule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SetupStep {
    /// unshare(2).
    MakeNamespaces,
    /// /proc/self/uid_map and its companions.
    MapUser,
    /// fork(2) and the chain of death signals.
    Fork,
    /// Mounts inside.
    Mount,
    /// Open-file limit and hook.
    Prepare,
}

impl SetupStep {
    const ALL: [Self; 5] = [
        Self::MakeNamespaces,
        Self::MapUser,
        Self::Fork,
        Self::Mount,
        Self::Prepare,
    ];

    /// The octet that stands for the step on the pipe.
    pub(super) fn code(self) -> u8 {
        match self {
            Self::MakeNamespaces => 0,
            Self::MapUser => 1,
            Self::Fork => 2,
            Self::Mount => 3,
            Self::Prepare => 4,
        }
    }
}

impl fmt::Display for SetupStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::MakeNamespaces => "make user, network, mount and process namespaces",
            Self::MapUser => "map the caller to uid 0",
            Self::Fork => "start the capsule's first process",
            Self::Mount => "mount a private /run and /proc",
            Self::Prepare => "prepare the program's process",
        })
    }
}

/// The step that was told through the pipe, if any was refused.
pub(super) fn read_step(told: OwnedFd) -> Option<SetupStep> {
    let mut code = [0];
    let read = std::fs::File::from(told).read(&mut code).ok()?;
    SetupStep::ALL
        .into_iter()
        .find(|step| read == 1 && step.code() == code[0])
}

/// What to do where a step is refused.
pub(super) struct Remedy(pub(super) SetupStep);

impl fmt::Display for Remedy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hints: Vec<&str> = SWITCHES
            .iter()
            .filter(|switch| switch.is_in_the_way())
            .map(|switch| switch.remedy)
            .collect();
        match (hints.as_slice(), self.0) {
            ([], SetupStep::Mount) => f.write_str(MASKED_PROC),
            ([], _) => f.write_str(NO_USER_NAMESPACES),
            (hints, _) => write!(f, " ({})", hints.join("; ")),
        }
    }
}

const MASKED_PROC: &str = " (in a container, parts of /proc may be masked: run it with \
    `--security-opt systempaths=unconfined --security-opt apparmor=unconfined`)";
const NO_USER_NAMESPACES: &str = " (allow unprivileged user namespaces, or run as root; in a container a \
    seccomp profile may forbid unshare: `--security-opt seccomp=unconfined`)";

/// A kernel switch that forbids user namespaces when it has a certain value.
struct Switch {
    path: &'static str,
    forbids: &'static str,
    remedy: &'static str,
}

impl Switch {
    fn is_in_the_way(&self) -> bool {
        std::fs::read_to_string(self.path).is_ok_and(|value| value.trim() == self.forbids)
    }
}

const SWITCHES: &[Switch] = &[
    Switch {
        path: "/proc/sys/kernel/apparmor_restrict_unprivileged_userns",
        forbids: "1",
        remedy: "AppArmor restricts user namespaces: sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0",
    },
    Switch {
        path: "/proc/sys/kernel/unprivileged_userns_clone",
        forbids: "0",
        remedy: "user namespaces are for root only: sudo sysctl -w kernel.unprivileged_userns_clone=1",
    },
    Switch {
        path: "/proc/sys/user/max_user_namespaces",
        forbids: "0",
        remedy: "no user namespaces at all: sudo sysctl -w user.max_user_namespaces=15000",
    },
];
