//! Where the programs under test are: cargo tells a package the paths of its own binaries only.

use std::env;
use std::path::{Path, PathBuf};

use thiserror::Error;

/// Names another `ftwall` than the one beside the current program.
pub const FTWALL_OVERRIDE: &str = "FTWALL_BIN";

/// Names another `simulator` than the one beside the current program.
pub const SIMULATOR_OVERRIDE: &str = "SIMULATOR_BIN";

/// The programs a stage runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Binaries {
    /// The filter.
    pub ftwall: PathBuf,
    /// The synthetic peers and the control group.
    pub simulator: PathBuf,
}

/// A program that is not where it should be.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum MissingBinary {
    /// An override names a file that does not exist.
    #[error("{variable} names {path}, which is no file", path = path.display())]
    Override {
        /// The variable.
        variable: &'static str,
        /// What it says.
        path: PathBuf,
    },
    /// It has not been built.
    #[error(
        "`{name}` is not beside {beside}: build it with `cargo build -p {name}` (with `--release` \
         if this program was), or name it in {variable}",
        beside = beside.display()
    )]
    NotBuilt {
        /// The program.
        name: &'static str,
        /// Where it was looked for.
        beside: PathBuf,
        /// The variable that overrides the search.
        variable: &'static str,
    },
}

impl Binaries {
    /// Finds both programs: by their override variables, else beside the current program, else one
    /// directory up (a test binary lives in `deps/`).
    ///
    /// # Errors
    /// When one of them is in none of these places.
    pub fn find() -> Result<Self, MissingBinary> {
        let own = env::current_exe().unwrap_or_default();
        Ok(Self {
            ftwall: find(
                "ftwall",
                FTWALL_OVERRIDE,
                &own,
                env::var_os(FTWALL_OVERRIDE).map(Into::into),
            )?,
            simulator: find(
                "simulator",
                SIMULATOR_OVERRIDE,
                &own,
                env::var_os(SIMULATOR_OVERRIDE).map(Into::into),
            )?,
        })
    }
}

fn find(
    name: &'static str,
    variable: &'static str,
    own: &Path,
    named: Option<PathBuf>,
) -> Result<PathBuf, MissingBinary> {
    if let Some(path) = named {
        return if path.is_file() {
            Ok(path)
        } else {
            Err(MissingBinary::Override { variable, path })
        };
    }
    let beside = own.parent().unwrap_or(Path::new("."));
    beside
        .ancestors()
        .take(2)
        .map(|directory| directory.join(name))
        .find(|path| path.is_file())
        .ok_or_else(|| MissingBinary::NotBuilt {
            name,
            beside: beside.to_owned(),
            variable,
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A path that exists on every system with tests: this program's own.
    fn own() -> PathBuf {
        env::current_exe().unwrap()
    }

    #[test]
    fn an_override_wins_and_must_exist() {
        assert_eq!(
            find("ftwall", FTWALL_OVERRIDE, &own(), Some(own())),
            Ok(own())
        );
        let path = PathBuf::from("/nonexistent/ftwall");
        assert_eq!(
            find("ftwall", FTWALL_OVERRIDE, &own(), Some(path.clone())),
            Err(MissingBinary::Override {
                variable: FTWALL_OVERRIDE,
                path
            })
        );
    }

    #[test]
    fn a_program_that_was_not_built_is_reported_with_the_command_that_builds_it() {
        let error = find("no-such-program", FTWALL_OVERRIDE, &own(), None).unwrap_err();
        assert!(
            error.to_string().contains("cargo build -p no-such-program"),
            "{error}"
        );
    }
}
