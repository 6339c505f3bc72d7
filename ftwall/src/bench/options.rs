//! What can be asked of a bench.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use serde::{Deserialize, Serialize};

use super::load::Load;
use crate::control::values::parse_duration;

/// Options of `bench`.
#[derive(Debug, Clone, Args)]
pub struct BenchArgs {
    /// How often everything is measured, the configurations in turn
    #[arg(long, value_name = "N", default_value = "5", value_parser = clap::value_parser!(u32).range(1..))]
    pairs: u32,
    /// How long each measurement takes
    #[arg(long, value_name = "TIME", default_value = "3s", value_parser = parse_duration)]
    seconds: Duration,
    /// Measure these loads only; may be given several times
    #[arg(long, value_enum, value_name = "LOAD", num_args = 1..)]
    only: Vec<Load>,
    /// One pair of moments: shows that it works, says little about speed
    #[arg(long, conflicts_with_all = ["pairs", "seconds"])]
    quick: bool,
    /// What makes the traffic: auto takes iperf3, wrk and nginx where they are installed
    #[arg(long, value_enum, value_name = "WHICH", default_value_t)]
    generators: Generators,
    /// Measure how the numbers change with hosts and learned peers instead
    #[arg(long, conflicts_with = "only")]
    scaling: bool,
    /// Measure what floods from inside do to the web of another host instead
    #[arg(long, conflicts_with_all = ["only", "scaling", "plot"])]
    floods: bool,
    /// Write everything that was measured to this file as JSON
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Draw it into this file as SVG
    #[arg(long, value_name = "FILE")]
    pub plot: Option<PathBuf>,
}

/// What makes the traffic.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Generators {
    /// Real programs where they are installed
    #[default]
    Auto,
    /// ftwall's own ends
    Own,
    /// Real programs, or a failure that names what is missing
    Real,
}

/// What is measured.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Options {
    /// How often.
    pub pairs: u32,
    /// How long each time.
    pub lasting: Duration,
    /// What loads the gateways.
    pub loads: Vec<Load>,
    /// What makes the traffic.
    pub generators: Generators,
    /// Curves over hosts and peers instead.
    pub scaling: bool,
    /// Floods from inside instead.
    pub floods: bool,
    /// Less of everything.
    pub quick: bool,
}

impl BenchArgs {
    /// What was typed, with the defaults filled in.
    #[must_use]
    pub fn options(&self) -> Options {
        let loads = if self.only.is_empty() {
            Load::ALL.to_vec()
        } else {
            self.only.clone()
        };
        let (pairs, lasting) = if self.quick {
            (1, Duration::from_millis(300))
        } else {
            (self.pairs, self.seconds)
        };
        Options {
            pairs,
            lasting,
            loads,
            generators: self.generators,
            scaling: self.scaling,
            floods: self.floods,
            quick: self.quick,
        }
    }
}
