//! The queue statement on kernels whose nft cannot queue: one chain in iptables' `mangle` table.
//!
//! nft decides and marks, this chain only looks at the mark. It lives in `mangle` because a packet
//! accepted by the daemon resumes at the next hook *function*: the rest of `mangle FORWARD` is skipped
//! for queued packets, the administrator's `filter FORWARD` never is. The chain is entered first, so
//! that no rule before it can let a suspect through.

use super::program::{self, ProgramError};
use super::rules::Dispatch;

/// ftwall's chain in the `mangle` table.
pub const CHAIN: &str = "FTWALL";
/// The rule that leads into it.
const JUMP: &str = "-A FORWARD -j FTWALL";
const TABLE: &str = "mangle";

/// The two families of iptables tools. A namespace should use one of them only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum XtTools {
    /// iptables on top of nf_tables; its rules show in `nft list ruleset`.
    Nft,
    /// The original iptables.
    Legacy,
}

impl XtTools {
    fn iptables(self) -> &'static str {
        match self {
            XtTools::Nft => "iptables-nft",
            XtTools::Legacy => "iptables-legacy",
        }
    }

    /// The tool that applies several rules as one change.
    pub fn restore(self) -> &'static str {
        match self {
            XtTools::Nft => "iptables-nft-restore",
            XtTools::Legacy => "iptables-legacy-restore",
        }
    }
}

/// Input for `iptables-*-restore --noflush` that puts the chain in place, or replaces its rules.
/// `with_jump` is false when `mangle FORWARD` leads there already.
pub(super) fn installation(dispatches: &[Dispatch], with_jump: bool) -> String {
    let questions = dispatches.iter().fold(0, |bits, each| bits | each.mask);
    // Almost all packets turn back here.
    let nothing_asked = format!("-A {CHAIN} -m mark --mark 0x0/{questions:#x} -j RETURN\n");
    let queues: String = dispatches.iter().map(queue_rule).collect();
    let jump = if with_jump {
        "-I FORWARD 1 -j FTWALL\n"
    } else {
        ""
    };
    format!("*{TABLE}\n:{CHAIN} - [0:0]\n{nothing_asked}{queues}{jump}COMMIT\n")
}

fn queue_rule(dispatch: &Dispatch) -> String {
    let Dispatch {
        mask, value, queue, ..
    } = dispatch;
    let bypass = if dispatch.bypass {
        " --queue-bypass"
    } else {
        ""
    };
    format!(
        "-A {CHAIN} -m mark --mark {value:#x}/{mask:#x} -j NFQUEUE --queue-num {queue}{bypass}\n"
    )
}

/// Puts the chain in place; a second time changes nothing.
///
/// # Errors
/// When the tools are missing or refuse; nothing has changed then.
pub(super) fn install(tools: XtTools, dispatches: &[Dispatch]) -> Result<(), ProgramError> {
    let with_jump = jumps(tools)? == 0;
    restore(tools, &installation(dispatches, with_jump))
}

/// Takes the chain and every jump to it away; without them does nothing.
///
/// # Errors
/// When the tools are missing or refuse.
pub fn uninstall(tools: XtTools) -> Result<(), ProgramError> {
    let jumps = jumps(tools)?;
    if jumps == 0 && !has_chain(tools)? {
        return Ok(());
    }
    let mut input = format!("*{TABLE}\n:{CHAIN} - [0:0]\n");
    input.push_str(&format!("-D FORWARD -j {CHAIN}\n").repeat(jumps));
    input.push_str(&format!("-X {CHAIN}\nCOMMIT\n"));
    restore(tools, &input)
}

/// What is missing of the chain and of the way to it, a sentence for each.
///
/// # Errors
/// When the tools are missing or refuse.
pub(super) fn faults(tools: XtTools, dispatches: &[Dispatch]) -> Result<Vec<String>, ProgramError> {
    let listed = program::run(tools.iptables(), &["-t", TABLE, "-S"], b"")?;
    let listed = String::from_utf8_lossy(&listed);
    Ok(faults_in(&listed, &installation(dispatches, true)))
}

/// Whether as many rules are listed as the installation brings: iptables shows them in other words.
fn faults_in(listed: &str, installation: &str) -> Vec<String> {
    let of_chain = format!("-A {CHAIN} ");
    let count = |text: &str| {
        let rules = text.lines().filter(|line| line.starts_with(&of_chain));
        rules.count()
    };
    let (there, wanted) = (count(listed), count(installation));
    let mut faults = Vec::new();
    if !listed.lines().any(|line| line.trim() == JUMP) {
        faults.push(format!("no rule of {TABLE} FORWARD leads to {CHAIN}"));
    }
    if there != wanted {
        faults.push(format!(
            "{TABLE} {CHAIN} has {there} rules instead of {wanted}"
        ));
    }
    faults
}

/// Whether the kernel takes the queue statement: done in a chain that no packet enters.
///
/// # Errors
/// Why it does not.
pub fn probe(tools: XtTools) -> Result<(), ProgramError> {
    const PROBE: &str = "FTWALL-PROBE";
    let input = format!(
        "*{TABLE}\n:{PROBE} - [0:0]\n\
         -A {PROBE} -m mark --mark 0x1/0x1 -j NFQUEUE --queue-num 0 --queue-bypass\nCOMMIT\n"
    );
    let tried = restore(tools, &input);
    if tried.is_ok() {
        restore(
            tools,
            &format!("*{TABLE}\n:{PROBE} - [0:0]\n-X {PROBE}\nCOMMIT\n"),
        )?;
    }
    tried
}

fn restore(tools: XtTools, input: &str) -> Result<(), ProgramError> {
    program::run(tools.restore(), &["--noflush"], input.as_bytes()).map(drop)
}

fn jumps(tools: XtTools) -> Result<usize, ProgramError> {
    let forward = program::run(tools.iptables(), &["-t", TABLE, "-S", "FORWARD"], b"")?;
    Ok(String::from_utf8_lossy(&forward)
        .lines()
        .filter(|line| line.trim() == JUMP)
        .count())
}

fn has_chain(tools: XtTools) -> Result<bool, ProgramError> {
    let chains = program::run(tools.iptables(), &["-t", TABLE, "-S"], b"")?;
    let declaration = format!("-N {CHAIN}");
    Ok(String::from_utf8_lossy(&chains)
        .lines()
        .any(|line| line.trim() == declaration))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SUSPECTS: Dispatch = Dispatch {
        what: "suspects",
        mask: 0x0300_0000,
        value: 0x0200_0000,
        queue: 7,
        bypass: false,
    };
    const OTHERS: Dispatch = Dispatch {
        what: "others",
        value: 0x0100_0000,
        queue: 8,
        bypass: true,
        ..SUSPECTS
    };

    #[test]
    fn suspects_wait_for_a_daemon_and_others_pass_without_one() {
        insta::assert_snapshot!(installation(&[SUSPECTS, OTHERS], true), @r"
        *mangle
        :FTWALL - [0:0]
        -A FTWALL -m mark --mark 0x0/0x3000000 -j RETURN
        -A FTWALL -m mark --mark 0x2000000/0x3000000 -j NFQUEUE --queue-num 7
        -A FTWALL -m mark --mark 0x1000000/0x3000000 -j NFQUEUE --queue-num 8 --queue-bypass
        -I FORWARD 1 -j FTWALL
        COMMIT
        ");
    }

    #[test]
    fn what_is_missing_of_the_chain_and_of_the_way_to_it_is_named() {
        let installation = installation(&[SUSPECTS, OTHERS], true);
        let listed = installation.replace("-I FORWARD 1 ", "-A FORWARD ");
        let without = |part: &str| {
            let lines = listed.lines().filter(|line| !line.contains(part));
            faults_in(&lines.collect::<Vec<_>>().join("\n"), &installation)
        };
        assert_eq!(without("nothing of the kind"), [""; 0]);
        assert_eq!(
            without("FORWARD"),
            ["no rule of mangle FORWARD leads to FTWALL"]
        );
        assert_eq!(
            without("0x2000000"),
            ["mangle FTWALL has 2 rules instead of 3"]
        );
        assert_eq!(without("").len(), 2);
    }

    #[test]
    fn a_jump_that_is_there_is_not_added_again() {
        let text = installation(&[SUSPECTS], false);
        assert!(!text.contains("FORWARD"), "{text}");
        assert!(!text.contains("bypass"), "{text}");
    }
}
