//! The queue statement on kernels whose nft cannot queue: one chain in iptables' `mangle` table.
//!
//! nft decides and marks, this chain only looks at the mark. It lives in `mangle` because a packet
//! accepted by the daemon resumes at the next hook *function*: the rest of `mangle FORWARD` is skipped
//! for queued packets, the administrator's `filter FORWARD` never is. The chain is entered first, so
//! that no rule before it can let a suspect through.

use super::marks::{MarkBit, MarkField};
use super::program::{self, ProgramError};

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
pub fn installation(queue: u16, marks: MarkField, bypass: bool, with_jump: bool) -> String {
    let suspects = queue_rule(queue, marks.bit(MarkBit::Suspect), false);
    let others = queue_rule(queue, marks.bit(MarkBit::Watched), bypass);
    let jump = if with_jump {
        "-I FORWARD 1 -j FTWALL\n"
    } else {
        ""
    };
    format!("*{TABLE}\n:{CHAIN} - [0:0]\n{suspects}{others}{jump}COMMIT\n")
}

fn queue_rule(queue: u16, bit: u32, bypass: bool) -> String {
    let bypass = if bypass { " --queue-bypass" } else { "" };
    format!("-A {CHAIN} -m mark --mark {bit:#x}/{bit:#x} -j NFQUEUE --queue-num {queue}{bypass}\n")
}

/// Puts the chain in place; a second time changes nothing.
///
/// # Errors
/// When the tools are missing or refuse; nothing has changed then.
pub fn install(
    tools: XtTools,
    queue: u16,
    marks: MarkField,
    bypass: bool,
) -> Result<(), ProgramError> {
    let with_jump = jumps(tools)? == 0;
    restore(tools, &installation(queue, marks, bypass, with_jump))
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

    #[test]
    fn suspects_wait_for_a_daemon_and_others_pass_without_one() {
        insta::assert_snapshot!(installation(7, MarkField::DEFAULT, true, true), @r"
        *mangle
        :FTWALL - [0:0]
        -A FTWALL -m mark --mark 0x2000000/0x2000000 -j NFQUEUE --queue-num 7
        -A FTWALL -m mark --mark 0x1000000/0x1000000 -j NFQUEUE --queue-num 7 --queue-bypass
        -I FORWARD 1 -j FTWALL
        COMMIT
        ");
    }

    #[test]
    fn a_jump_that_is_there_is_not_added_again() {
        let text = installation(0, MarkField::DEFAULT, false, false);
        assert!(!text.contains("FORWARD"), "{text}");
        assert!(!text.contains("bypass"), "{text}");
    }
}
