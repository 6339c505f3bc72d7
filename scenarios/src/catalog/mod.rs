//! The catalogue: one file per scenario, one line here.

use crate::scenario::Scenario;

/// Declares the scenarios' files and the list of them, in one line each.
macro_rules! catalogue {
    ($($name:ident),* $(,)?) => {
        $(mod $name;)*

        /// Every scenario, in the order in which they are listed and run.
        #[must_use]
        pub fn all() -> Vec<Scenario> {
            vec![$($name::scenario()),*]
        }
    };
}

catalogue! {
    cold_start,
    parallel_dial,
    burst_dial,
    sequential_dial,
    mode_switching,
    port_hopping,
    port_80_fallback,
    udp_disabled,
    encrypted_only,
    http_transfer,
    push_upload,
    mixed_lan,
    same_host_browses,
    web_only,
    page_about_kazaa,
    nat,
    fragments,
    tiny_segments,
    lossy_wan,
    poisoned_learning,
    ftwall_off,
    block_1214_only,
    string_match_only,
    web_real,
}

/// How alike a mistyped name and a suggestion must be, between 0 and 1.
const LIKENESS: f64 = 0.6;

/// The scenario of a name.
///
/// # Errors
/// When there is none: the nearest names, best first.
pub fn find(name: &str) -> Result<Scenario, Vec<String>> {
    let mut scenarios = all();
    if let Some(place) = scenarios.iter().position(|scenario| scenario.name == name) {
        return Ok(scenarios.swap_remove(place));
    }
    let known = scenarios.iter().map(|scenario| scenario.name.as_ref());
    let nearest = nearest(name, known);
    Err(nearest.into_iter().map(str::to_owned).collect())
}

fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let mut ranked: Vec<_> = known
        .map(|known| (strsim::jaro_winkler(name, known), known))
        .filter(|(likeness, _)| *likeness >= LIKENESS)
        .collect();
    ranked.sort_by(|(one, _), (other, _)| other.total_cmp(one));
    ranked.into_iter().map(|(_, known)| known).take(3).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::judge::Expectation;

    #[test]
    fn names_are_distinct_and_like_their_files() {
        let names: BTreeSet<_> = all().into_iter().map(|scenario| scenario.name).collect();
        assert_eq!(names.len(), all().len());
    }

    #[test]
    fn a_mistyped_name_is_answered_with_the_nearest_ones() {
        assert_eq!(find("cold_strat").unwrap_err()[0], "cold_start");
        assert_eq!(find("mixedlan").unwrap_err()[0], "mixed_lan");
        assert!(find("zzz").unwrap_err().is_empty());
    }

    #[test]
    fn every_scenario_names_a_positive_control_or_checks_the_web() {
        for scenario in all() {
            let terms = scenario.terms();
            let controlled = terms
                .hosts
                .values()
                .any(|host| !host.must_reach.is_empty() || host.browses);
            assert!(controlled, "{} proves nothing", scenario.name);
        }
    }

    #[test]
    fn only_counter_examples_pin_a_device() {
        for scenario in all() {
            let counter_example = matches!(scenario.expectation, Expectation::Breached(_));
            assert_eq!(
                scenario.pinned.is_some(),
                counter_example,
                "{}",
                scenario.name
            );
        }
    }
}
