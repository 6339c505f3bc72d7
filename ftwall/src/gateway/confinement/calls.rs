//! The system calls of a thread that judges packets, by way of the `seccompiler` crate, which is named in
//! this file only.
//!
//! Any other call is refused like one without permission. To end the thread instead would hand whoever finds
//! a call that is missing here a way to end the gateway's filter with one packet.

use seccompiler::{BpfProgram, apply_filter};

/// Lets this thread make no other calls than those listed here.
pub(super) fn packets_alone() -> anyhow::Result<()> {
    Ok(apply_filter(&program()?)?)
}

#[cfg(not(target_pointer_width = "64"))]
fn program() -> anyhow::Result<BpfProgram> {
    anyhow::bail!("there is no filter for this processor")
}

#[cfg(target_pointer_width = "64")]
fn program() -> anyhow::Result<BpfProgram> {
    use seccompiler::{SeccompAction, SeccompFilter, TargetArch};

    let processor = TargetArch::try_from(std::env::consts::ARCH)?;
    let always = listed::ALWAYS.iter().map(|call| (*call, Vec::new()));
    let rules = always.chain(listed::with_conditions()?).collect();
    let refusal = SeccompAction::Errno(nix::libc::EPERM.unsigned_abs());
    let filter = SeccompFilter::new(rules, refusal, SeccompAction::Allow, processor)?;
    Ok(filter.try_into()?)
}

#[cfg(target_pointer_width = "64")]
mod listed {
    use nix::libc;
    use seccompiler::{
        BackendError, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompRule,
    };

    /// Whatever their arguments. The kernel keeps the answer for such a call and runs no filter for it.
    pub(super) const ALWAYS: &[i64] = &[
        // Packets, verdicts, answers in a peer's name, signs of life; bells, and lines for standard error.
        libc::SYS_recvfrom,
        libc::SYS_sendto,
        libc::SYS_read,
        libc::SYS_write,
        libc::SYS_writev,
        libc::SYS_close,
        // Waiting.
        #[cfg(target_arch = "x86_64")]
        libc::SYS_poll,
        libc::SYS_ppoll,
        libc::SYS_restart_syscall,
        libc::SYS_futex,
        libc::SYS_sched_yield,
        // Time, where it is not read from memory.
        libc::SYS_clock_gettime,
        // Memory; an allocator of glibc's asks for the number of processors.
        libc::SYS_brk,
        libc::SYS_munmap,
        libc::SYS_mremap,
        libc::SYS_madvise,
        libc::SYS_sched_getaffinity,
        // Keys of hash tables.
        libc::SYS_getrandom,
        // Signals that come to this thread, its own end, and a panic.
        libc::SYS_rt_sigreturn,
        libc::SYS_rt_sigprocmask,
        libc::SYS_sigaltstack,
        libc::SYS_getpid,
        libc::SYS_gettid,
        libc::SYS_exit,
    ];

    /// Of these only what is harmless.
    pub(super) fn with_conditions() -> Result<Vec<(i64, Vec<SeccompRule>)>, BackendError> {
        let not_executable = || when(&[(2, has_none_of(libc::PROT_EXEC), 0)]);
        let restores = |signal| when(&[(0, SeccompCmpOp::Eq, number(signal))]);
        let this_process = u64::from(std::process::id());
        Ok(vec![
            (libc::SYS_mmap, vec![not_executable()?]),
            (libc::SYS_mprotect, vec![not_executable()?]),
            // The name of an interface.
            (
                libc::SYS_ioctl,
                vec![when(&[(1, SeccompCmpOp::Eq, libc::SIOCGIFNAME)])?],
            ),
            // A build with its assertions asks whether what it closes is open.
            (
                libc::SYS_fcntl,
                vec![when(&[(1, SeccompCmpOp::Eq, number(libc::F_GETFD))])?],
            ),
            // A handler of a fault takes itself away: refused, the fault would come again for ever.
            (
                libc::SYS_rt_sigaction,
                vec![
                    restores(libc::SIGSEGV)?,
                    restores(libc::SIGBUS)?,
                    restores(libc::SIGABRT)?,
                ],
            ),
            // `abort`, after a second panic or an overflow of the stack.
            (
                libc::SYS_tgkill,
                vec![when(&[
                    (0, SeccompCmpOp::Eq, this_process),
                    (2, SeccompCmpOp::Eq, number(libc::SIGABRT)),
                ])?],
            ),
        ])
    }

    /// Where all of these hold: an argument counted from 0, how it compares, with what.
    fn when(conditions: &[(u8, SeccompCmpOp, u64)]) -> Result<SeccompRule, BackendError> {
        let conditions = conditions.iter().map(|(argument, compares, with)| {
            // Each of them is an `int` in C.
            SeccompCondition::new(*argument, SeccompCmpArgLen::Dword, compares.clone(), *with)
        });
        SeccompRule::new(conditions.collect::<Result<_, _>>()?)
    }

    fn has_none_of(bits: i32) -> SeccompCmpOp {
        SeccompCmpOp::MaskedEq(number(bits))
    }

    fn number(number: i32) -> u64 {
        u64::from(number.unsigned_abs())
    }
}
