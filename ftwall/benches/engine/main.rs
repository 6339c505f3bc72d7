//! What judging one packet costs, by kind of packet, in an engine that knows nothing and in one that is
//! as full as a large network makes it; and what that fullness takes in memory.
//!
//! `cargo bench -p ftwall --bench engine` prints nanoseconds and allocations per packet.
//! A kind whose verdict is not the expected one ends the run: it would measure another path.

mod kinds;
mod packets;
mod state;

use std::cell::RefCell;

use divan::{AllocProfiler, Bencher};

use kinds::{KINDS, Kind};
use state::{Fullness, Site};

/// Counts allocations while a kind is measured.
#[global_allocator]
static ALLOCATOR: AllocProfiler = AllocProfiler::system();

fn main() {
    let surprises: Vec<String> = KINDS.iter().filter_map(Kind::surprise).collect();
    assert!(surprises.is_empty(), "{}", surprises.join("\n"));
    Fullness::report_memory();
    divan::main();
}

#[divan::bench(args = KINDS, sample_count = SAMPLES, sample_size = PACKETS_PER_SAMPLE)]
fn empty(bencher: Bencher<'_, '_>, kind: &Kind) {
    measure(bencher, kind, Site::empty());
}

#[divan::bench(args = KINDS, sample_count = SAMPLES, sample_size = PACKETS_PER_SAMPLE)]
fn loaded(bencher: Bencher<'_, '_>, kind: &Kind) {
    measure(bencher, kind, Site::loaded());
}

/// Times a packet as the daemon sees it: timeouts that are due, the verdict, actions and events.
fn measure(bencher: Bencher<'_, '_>, kind: &Kind, site: Site) {
    let site = RefCell::new(site);
    bencher
        .with_inputs(|| kind.next(&mut site.borrow_mut()))
        .bench_local_refs(|packet| site.borrow_mut().judge(packet));
}

const SAMPLES: u32 = 60;
/// Few enough that what prepares a sample is still remembered when the sample is judged.
const PACKETS_PER_SAMPLE: u32 = 1000;
