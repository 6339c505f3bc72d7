//! Failures once found in drawn offices, each kept as a file and played again in memory.

use std::path::Path;

use scenarios::device::Device;
use scenarios::outcome::Totals;
use scenarios::recipe;
use scenarios::report::Table;
use scenarios::stage::memory;

#[test]
fn nothing_that_was_found_once_is_found_again() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("recipes");
    let files = recipe::files(&directory).expect("the directory is part of the project");
    assert!(!files.is_empty(), "{} holds no recipe", directory.display());
    let mut complaints = Vec::new();
    for file in &files {
        let scenario = recipe::read_scenario(file).expect("a kept recipe can be played");
        for seed in [scenario.seed(None), 1, 2, 3] {
            let played = memory::play(&scenario, Device::Ftwall, seed)
                .unwrap_or_else(|error| panic!("{}: {error:#}", file.display()));
            let outcome = played.played.outcome(false);
            if !Totals::of([&outcome]).all_held() {
                complaints.push(Table(&outcome).to_string());
            }
        }
    }
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
    println!("{} recipes held", files.len());
}
