//! Writes the inputs that every target starts from into its corpus: once for a new target, and again
//! after a change of what its inputs mean.
//!
//! ```text
//! cargo run --manifest-path ftwall/fuzz/Cargo.toml --example seeds
//! ```

use std::io;
use std::path::Path;

fn main() -> io::Result<()> {
    for target in ftwall::fuzzing::TARGETS {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("corpus")
            .join(target.name);
        std::fs::create_dir_all(&folder)?;
        for (number, seed) in (target.seeds)().iter().enumerate() {
            std::fs::write(folder.join(format!("seed-{number:02}")), seed)?;
        }
    }
    Ok(())
}
