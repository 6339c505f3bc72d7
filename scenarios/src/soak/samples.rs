//! What a daemon takes from its machine, looked at once a second.

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use serde::Serialize;

use super::daemon::Watched;
use crate::stage::namespaces::epoch_us;

/// Time between two looks.
pub(super) const INTERVAL: Duration = Duration::from_secs(1);

/// A daemon that was stopped answers nobody.
const PATIENCE: Duration = Duration::from_millis(300);

/// One look at a daemon.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Sample {
    /// Microseconds since the Unix epoch.
    pub at_us: u64,
    /// Counts program images: each begins with memory of its own.
    pub life: u32,
    /// Resident memory.
    pub rss_kib: u64,
    /// Open descriptors.
    pub descriptors: usize,
    /// Packets that found a queue or its socket full since the daemon began; absent while it answers
    /// nobody.
    pub queue_drops: Option<u64>,
}

/// Looks until told to stop; sees nothing while there is no daemon.
pub(super) fn watch(watched: &Watched, metrics: &Path, stop: &Receiver<()>) -> Vec<Sample> {
    let mut samples = Vec::new();
    while stop.recv_timeout(INTERVAL) == Err(RecvTimeoutError::Timeout) {
        samples.extend(look(watched, metrics));
    }
    samples
}

/// Nothing if the daemon ends meanwhile.
fn look(watched: &Watched, metrics: &Path) -> Option<Sample> {
    let process = watched.process.load(Ordering::Relaxed);
    if process == 0 {
        return None;
    }
    let life = watched.life.load(Ordering::Relaxed);
    let directory = format!("/proc/{process}");
    let status = fs::read_to_string(format!("{directory}/status")).ok()?;
    // Before anything is asked of it: a visitor is a descriptor more.
    let descriptors = fs::read_dir(format!("{directory}/fd")).ok()?.count();
    Some(Sample {
        at_us: epoch_us(),
        life,
        rss_kib: resident_kib(&status)?,
        descriptors,
        queue_drops: page(metrics, PATIENCE).ok().map(|page| queue_drops(&page)),
    })
}

fn resident_kib(status: &str) -> Option<u64> {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Everything a daemon counts.
pub(super) fn page(metrics: &Path, patience: Duration) -> std::io::Result<String> {
    let mut visitor = UnixStream::connect(metrics)?;
    visitor.set_read_timeout(Some(patience))?;
    visitor.set_write_timeout(Some(patience))?;
    visitor.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut page = String::new();
    visitor.read_to_string(&mut page)?;
    Ok(page)
}

/// The sum of what queues have dropped, on a page of metrics.
fn queue_drops(page: &str) -> u64 {
    const FAMILIES: [&str; 2] = [
        "ftwall_queue_kernel_dropped_total",
        "ftwall_queue_user_dropped_total",
    ];
    sum(page, &FAMILIES)
}

/// The sum of every value whose line begins with one of these.
pub(super) fn sum(page: &str, families: &[&str]) -> u64 {
    let is_one = |line: &&str| families.iter().any(|family| line.starts_with(family));
    let values = page.lines().filter(is_one);
    values
        .filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok())
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resident_memory_is_read_off_what_the_kernel_says() {
        let status = "Name:\tftwall\nVmPeak:\t   90000 kB\nVmRSS:\t   12345 kB\n";
        assert_eq!(resident_kib(status), Some(12_345));
        assert_eq!(resident_kib("Name:\tftwall\n"), None);
    }

    #[test]
    fn drops_of_all_queues_are_added_and_nothing_else_is() {
        let page = "\
            # TYPE ftwall_queue_kernel_dropped counter\n\
            ftwall_queue_kernel_dropped_total{queue=\"0\"} 2\n\
            ftwall_queue_kernel_dropped_total{queue=\"1\"} 3\n\
            ftwall_queue_user_dropped_total{queue=\"0\"} 4\n\
            ftwall_events_lost_total 100\n";
        assert_eq!(queue_drops(page), 9);
    }
}
