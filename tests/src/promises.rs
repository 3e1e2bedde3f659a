//! Each file and each test that `docs/promises.md` names exists.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

/// What a cell of the table names in code font.
fn named(cell: &str) -> impl Iterator<Item = &str> {
    cell.split('`').skip(1).step_by(2)
}

/// `a/{b,c}.rs` is two paths.
fn paths(text: &str) -> Vec<String> {
    let Some((before, rest)) = text.split_once('{') else { return vec![text.to_owned()] };
    let Some((choices, after)) = rest.split_once('}') else { return vec![text.to_owned()] };
    choices.split(',').map(|choice| format!("{before}{choice}{after}")).collect()
}

/// The names of all functions in Rust files below `folder`.
fn functions(folder: &Path, found: &mut BTreeSet<String>) {
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if path.is_dir() && name != "target" && !name.starts_with('.') {
            functions(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let code = fs::read_to_string(&path).expect("text");
            let names = code.split("fn ").skip(1).map(|rest| {
                rest.split(|letter: char| !letter.is_alphanumeric() && letter != '_').next().unwrap_or_default()
            });
            found.extend(names.filter(|name| !name.is_empty()).map(str::to_owned));
        }
    }
}

#[test]
fn every_file_and_test_that_a_promise_names_exists() {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..");
    let promises = fs::read_to_string(root.join("docs/promises.md")).expect("docs/promises.md");
    let mut known = BTreeSet::new();
    functions(&root, &mut known);

    let (mut looked_at, mut missing) = (0, Vec::new());
    for line in promises.lines().filter(|line| line.starts_with("| R")) {
        let cells: Vec<_> = line.split(" | ").collect();
        let [number, _, mechanism, tests] = cells[..] else { panic!("not four cells: {line}") };
        for text in named(mechanism).chain(named(tests)) {
            let is_test = text.starts_with('r') && text[1..].starts_with(|letter: char| letter.is_ascii_digit());
            if text.contains('/') && !text.contains(' ') {
                looked_at += 1;
                missing.extend(
                    paths(text)
                        .into_iter()
                        .filter(|path| !root.join(path).exists())
                        .map(|path| format!("{number}: {path}")),
                );
            } else if is_test {
                looked_at += 1;
                let exists = match text.strip_suffix('…') {
                    Some(start) => known.range(start.to_owned()..).next().is_some_and(|name| name.starts_with(start)),
                    None => known.contains(text),
                };
                if !exists {
                    missing.push(format!("{number}: {text}"));
                }
            }
        }
    }
    assert!(looked_at > 100, "the table was not read");
    assert!(missing.is_empty(), "{missing:#?}");
}
