//! The book under test: every command in it is run on the lab's gateway and has to say what the book says,
//! every file in it has to be one that ftwall takes, and what is listed has to be the code's own list.
//!
//! `BOOK=write cargo test -p scenarios --test book` writes the generated tables anew.

mod chapter;
mod gateway;
mod lists;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use ftwall::control::config_file::Layer;
use lab::capsule::{self, in_capsule};
use lab::requirements::{self, Feature};

use chapter::{Chapter, Piece, What};
use gateway::Place;

/// Languages of blocks that hold nothing to type on a gateway.
const FOREIGN: [&str; 6] = ["rust", "json", "text", "mermaid", "ini", "yaml"];

/// Words a reason needs at least to be one.
const REASON_WORDS: usize = 4;

/// The chapters whose commands need a gateway: a test each, for libtest shows them one by one.
macro_rules! tried_on_a_gateway {
    ($($name:ident),+ $(,)?) => {
        const TRIED: &[&str] = &[$(stringify!($name)),+];

        $(#[test]
        fn $name() {
            let name = stringify!($name);
            if !capsule::is_inside() {
                let found = requirements::probe();
                if let Err(missing) = found.check(&[Feature::Capsule, Feature::Nftables]) {
                    return requirements::skip_or_fail(name, &missing.to_string());
                }
                if !found.has_queue() {
                    return requirements::skip_or_fail(name, "nothing here can queue packets");
                }
            }
            in_capsule(name, || try_out(name));
        })+
    };
}

tried_on_a_gateway! {
    install,
    decisions,
    settings,
    operating,
    troubleshooting,
    upgrading,
    migration,
    metrics,
    beside,
    scenario,
}

#[test]
fn every_chapter_with_commands_is_tried() {
    for chapter in chapters() {
        let has_commands = chapter
            .pieces
            .iter()
            .any(|piece| matches!(piece.what, What::Commands(_)));
        let is_tried = TRIED.contains(&chapter.name.as_str());
        assert_eq!(has_commands, is_tried, "{}", chapter.name);
    }
}

#[test]
fn the_summary_names_every_chapter_and_no_other() {
    let summary = fs::read_to_string(source().join("SUMMARY.md")).expect("the book has a summary");
    let named: BTreeSet<_> = chapter::links(&summary).collect();
    let files = fs::read_dir(source()).expect("the book has sources");
    let names = files.map(|file| file.expect("it can be listed").file_name());
    let present: BTreeSet<_> = names
        .map(|name| name.into_string().expect("names are plain"))
        .filter(|name| name.ends_with(".md") && name != "SUMMARY.md")
        .collect();
    assert_eq!(named, present);
}

#[test]
fn every_link_within_the_book_leads_somewhere() {
    for chapter in chapters() {
        for link in chapter::links(&chapter.text).filter(|link| !link.contains("://")) {
            let file = link.split('#').next().unwrap_or_default();
            let target = source().join(file);
            assert!(
                file.is_empty() || target.exists(),
                "{}: {link}",
                chapter.name
            );
        }
    }
}

#[test]
fn whatever_is_not_run_has_a_reason_and_whatever_is_run_is_marked_as_a_console() {
    for chapter in chapters() {
        for Piece { line, what } in &chapter.pieces {
            let at = format!("{}.md:{line}", chapter.name);
            match what {
                What::NotRun(reason) => {
                    let words = reason.split_whitespace().count();
                    assert!(words >= REASON_WORDS, "{at}: {reason:?} is no reason");
                }
                What::Foreign(language) => {
                    assert!(
                        FOREIGN.contains(&language.as_str()),
                        "{at}: a block of {language:?}"
                    );
                }
                What::File { .. } | What::Commands(_) | What::Meanwhile(_) => {}
            }
        }
    }
}

#[test]
fn every_configuration_in_the_book_is_one() {
    for chapter in chapters() {
        for Piece { line, what } in &chapter.pieces {
            let What::File {
                name,
                text,
                is_broken,
            } = what
            else {
                continue;
            };
            if name.as_ref().is_some_and(|name| !name.ends_with(".toml")) {
                continue;
            }
            let parsed = Layer::parse(Path::new("book.toml"), text);
            assert_eq!(
                parsed.is_err(),
                *is_broken,
                "{}.md:{line}: {parsed:?}",
                chapter.name
            );
        }
    }
}

#[test]
fn the_shipped_configuration_says_the_defaults_and_monitors() {
    lists::check_shipped_configuration(&workspace().join("packaging/ftwall.toml"));
}

#[test]
fn the_table_of_settings_is_the_codes_own() {
    lists::check_generated(
        &source().join("settings.md"),
        "settings",
        &lists::settings(),
    );
}

#[test]
fn the_table_of_metrics_is_the_codes_own() {
    lists::check_generated(&source().join("metrics.md"), "metrics", &lists::metrics());
}

#[test]
fn the_table_of_commands_is_the_codes_own() {
    lists::check_generated(
        &source().join("operating.md"),
        "commands",
        &lists::commands(),
    );
}

#[test]
fn every_yes_of_the_feature_table_names_tests_that_exist() {
    let text = fs::read_to_string(source().join("features.md")).expect("the book compares");
    lists::check_features(&text, &workspace());
}

/// Types the chapter's commands on a gateway of its own, from top to bottom.
fn try_out(name: &str) {
    let chapter = Chapter::read(&source().join(format!("{name}.md")));
    let mut place = Place::build();
    for Piece { line, what } in &chapter.pieces {
        let at = format!("{name}.md:{line}");
        match what {
            What::File {
                name: Some(name),
                text,
                ..
            } => place.write(name, text),
            What::Commands(commands) => {
                for command in commands {
                    place.try_out(&at, command);
                }
            }
            What::Meanwhile(happening) => place.let_happen(&at, happening),
            What::File { name: None, .. } | What::NotRun(_) | What::Foreign(_) => {}
        }
    }
    place.end();
}

fn chapters() -> Vec<Chapter> {
    let summary = fs::read_to_string(source().join("SUMMARY.md")).expect("the book has a summary");
    let files = chapter::links(&summary).map(|file| Chapter::read(&source().join(file)));
    files.collect()
}

fn source() -> PathBuf {
    workspace().join("docs/src")
}

fn workspace() -> PathBuf {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    own.parent().expect("it is a member").to_owned()
}
