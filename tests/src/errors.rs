//! Each public error has `is_transient()`, by the rule in `es-core/src/error.rs`, unless it is one of these.

use std::{fs, path::Path};

/// Errors about an input alone: the same input is refused again.
const OF_INPUT: [&str; 20] = [
    "Conflict",
    "DecodeError",
    "EncodeError",
    "InvalidAct",
    "InvalidAppend",
    "InvalidCursor",
    "InvalidFieldValue",
    "InvalidKey",
    "InvalidPattern",
    "InvalidQuery",
    "InvalidRoute",
    "InvalidSettings",
    "InvalidStream",
    "InvalidTag",
    "InvalidToken",
    "NewEventError",
    "TagError",
    "Undecodable",
    "Unencodable",
    "UnusableSettings",
];

/// There is nothing to do again: a service ends once.
const LAST: [&str; 1] = ["ShutdownError"];

/// What a check has found is no failure of the check.
const FOUND: [&str; 1] = ["Violation"];

/// Calls `look` with each Rust file below `folder` that is no test.
fn each_file(folder: &Path, look: &mut impl FnMut(&Path, &str)) {
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        let is_test = path.file_stem().is_some_and(|name| name == "tests" || name == "testing");
        if path.is_dir() && !is_test {
            each_file(&path, look);
        } else if path.extension().is_some_and(|extension| extension == "rs") && !is_test {
            look(&path, &fs::read_to_string(&path).expect("text"));
        }
    }
}

/// The names of the public errors of `code`.
fn errors(code: &str) -> Vec<&str> {
    let derived = code.split("#[derive(").skip(1).filter_map(|rest| rest.split_once(")]"));
    let errors = derived.filter(|(derives, _)| derives.contains("thiserror::Error"));
    let named = errors.filter_map(|(_, rest)| {
        let line = rest.lines().find(|line| line.starts_with("pub ") || line.starts_with("pub("))?;
        let line = line.strip_prefix("pub enum ").or_else(|| line.strip_prefix("pub struct "))?;
        line.split(|letter: char| !letter.is_alphanumeric()).next()
    });
    named.collect()
}

/// Whether an `impl` block of `name` in `code` has the function.
fn has_it(code: &str, name: &str) -> bool {
    let blocks = code.split("\nimpl").skip(1).map(|block| block.split("\n}").next().unwrap_or_default());
    let mut own = blocks.filter(|block| {
        let head = block.lines().next().unwrap_or_default();
        !head.contains(" for ") && head.split(|letter: char| !letter.is_alphanumeric()).any(|word| word == name)
    });
    own.any(|block| block.contains("pub fn is_transient(&self) -> bool"))
}

#[test]
fn every_public_error_says_whether_trying_again_may_help() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let (mut found, mut without) = (0, Vec::new());
    for package in ["es-core", "es-postgres", "es-sqlite", "es-kafka", "evenfold"] {
        each_file(&root.join(package).join("src"), &mut |path, code| {
            for name in errors(code) {
                found += 1;
                let is_exempt = [&OF_INPUT[..], &LAST, &FOUND].iter().any(|exempt| exempt.contains(&name));
                if is_exempt == has_it(code, name) {
                    without.push(format!("{}: {name}", path.display()));
                }
            }
        });
    }
    assert!(found > 40, "only {found} errors were found");
    assert!(without.is_empty(), "{without:#?}");
}
