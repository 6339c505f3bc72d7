//! What a process may take of its machine.

use std::fs;

use anyhow::Context;
use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};

/// Bounds the descriptors it may have open, or no longer does; returns the bound before.
pub(super) fn descriptors(process: u32, most: Option<u64>) -> anyhow::Result<Option<u64>> {
    set(process, Resource::Nofile, most)
}

/// Bounds the octets of its address space, or no longer does.
pub(super) fn memory(process: u32, most: Option<u64>) -> anyhow::Result<()> {
    set(process, Resource::As, most).map(drop)
}

/// Octets of its address space.
pub(super) fn memory_used(process: u32) -> anyhow::Result<u64> {
    let status = fs::read_to_string(format!("/proc/{process}/status"))?;
    let size = status.lines().find_map(|line| line.strip_prefix("VmSize:"));
    let size = size.and_then(|text| text.split_whitespace().next());
    let kib: u64 = size.context("the size of a process")?.parse()?;
    Ok(kib << 10)
}

/// The hard limit, which only an administrator of the machine may raise, stays.
fn set(process: u32, resource: Resource, most: Option<u64>) -> anyhow::Result<Option<u64>> {
    let process = i32::try_from(process).ok().and_then(Pid::from_raw);
    let maximum = getrlimit(resource).maximum;
    let new = Rlimit {
        current: most.or(maximum),
        maximum,
    };
    let before = prlimit(process, resource, new).context("setting a limit")?;
    Ok(before.current)
}
