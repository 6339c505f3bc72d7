//! Running the system's own tools (`nft`, the iptables family) and keeping what they say when they fail.

use std::io::{ErrorKind, Write};
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};

use thiserror::Error;

/// Why a tool did not do what it was asked.
#[derive(Debug, Error)]
pub enum ProgramError {
    /// The tool is not installed.
    #[error("{program} is not installed: install the package {package}")]
    Missing {
        /// What was to be run.
        program: &'static str,
        /// Where distributions keep it.
        package: &'static str,
    },
    /// The tool could not be started or spoken to.
    #[error("cannot run {program}: {source}")]
    NotRun {
        /// What was to be run.
        program: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
    /// The tool answered with an error.
    #[error("{program} refused: {message}")]
    Refused {
        /// What was run.
        program: &'static str,
        /// What it wrote to its error output, on one line.
        message: String,
    },
}

impl ProgramError {
    /// Whether the tool was missing, as opposed to refusing.
    pub fn is_missing(&self) -> bool {
        matches!(self, ProgramError::Missing { .. })
    }

    /// Whether the kernel refused for want of a privilege.
    pub fn is_privilege(&self) -> bool {
        match self {
            ProgramError::Refused { message, .. } => {
                message.contains("Operation not permitted") || message.contains("you must be root")
            }
            ProgramError::NotRun { source, .. } => source.kind() == ErrorKind::PermissionDenied,
            ProgramError::Missing { .. } => false,
        }
    }
}

/// Runs `program` with `arguments`, hands it `input` and returns its output.
///
/// # Errors
/// When the tool is missing, cannot be run or ends with anything but success.
pub fn run(
    program: &'static str,
    arguments: &[&str],
    input: &[u8],
) -> Result<Vec<u8>, ProgramError> {
    let not_run = |source| ProgramError::NotRun { program, source };
    let mut child = command(program, arguments)
        .spawn()
        .map_err(|source| match source.kind() {
            ErrorKind::NotFound => ProgramError::Missing {
                program,
                package: package(program),
            },
            _ => not_run(source),
        })?;
    let mut stdin = child
        .stdin
        .take()
        .expect("standard input was asked for as a pipe");
    // Written at one go: none of these tools answers at length before it has read everything. One that
    // refuses early closes its input, and its own words say more than the broken pipe.
    let written = stdin.write_all(input);
    drop(stdin);
    let output = child.wait_with_output().map_err(not_run)?;
    if !output.status.success() {
        let message = one_line(&output.stderr);
        return Err(ProgramError::Refused { program, message });
    }
    written.map_err(not_run)?;
    Ok(output.stdout)
}

fn command(program: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(program);
    command
        .args(arguments)
        .env("LC_ALL", "C")
        // Ctrl-C is for ftwall, which still needs its tools to take the rules away.
        .process_group(0)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    if program.starts_with("iptables-legacy")
        && let Some(path) = lock_file()
    {
        command.env("XTABLES_LOCKFILE", path);
    }
    command
}

/// iptables-legacy takes a lock below /run, which an unprivileged user namespace cannot write to; any
/// other file serves as well where nobody else manages the tables.
fn lock_file() -> Option<std::path::PathBuf> {
    const USUAL: &str = "/run/xtables.lock";
    if std::env::var_os("XTABLES_LOCKFILE").is_some() {
        return None;
    }
    let usual = std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(USUAL);
    match usual {
        Ok(_) => None,
        Err(_) => Some(std::env::temp_dir().join("ftwall-xtables.lock")),
    }
}

fn package(program: &str) -> &'static str {
    match program {
        "nft" => "nftables",
        _ => "iptables",
    }
}

fn one_line(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    text.lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect::<Vec<_>>()
        .join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn input_goes_in_and_output_comes_out() {
        let output = run("cat", &[], b"both ways").expect("cat is everywhere");
        assert_eq!(output, b"both ways");
    }

    #[test]
    fn a_missing_tool_names_its_package() {
        let error = run("ftwall-no-such-tool", &[], b"").expect_err("there is no such tool");
        assert!(error.is_missing());
        assert!(error.to_string().contains("install the package"), "{error}");
    }

    #[test]
    fn a_refusal_keeps_the_words_of_the_tool_on_one_line() {
        let error = run(
            "sh",
            &["-c", "echo first >&2; echo second >&2; exit 3"],
            b"",
        )
        .expect_err("the script ends with 3");
        assert_eq!(error.to_string(), "sh refused: first; second");
        assert!(!error.is_privilege());
    }

    #[test]
    fn a_refusal_for_want_of_privilege_is_told_apart() {
        let error = run(
            "sh",
            &["-c", "echo 'Operation not permitted' >&2; exit 1"],
            b"",
        )
        .expect_err("the script ends with 1");
        assert!(error.is_privilege());
    }
}
