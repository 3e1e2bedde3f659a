//! One build of the tests with all mutants in it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::path::Path;
use std::process::Command;

use rustix::process::Signal;
use serde_json::Value;

use crate::children::{self, Group};
use crate::interrupt::Interrupt;
use crate::mutants::list::Mutant;
use crate::mutants::trials::Program;
use crate::mutants::weave::{SWITCH, Woven};
use crate::mutants::{PROFILE, TESTED, read, write};
use crate::{Failure, Result, say, tools};

/// The crate that is changed.
const ROOT: &str = "es-core/src/lib.rs";

/// How often it is compiled at most. Each time those mutants are left out that did not compile; the compiler finds wrong
/// types only where all names are known, and wrong borrows only where all types are right.
const ROUNDS: usize = 12;

/// A copy of the workspace whose tests have all mutants in them.
#[derive(Debug)]
pub(super) struct Schemata {
    pub(super) programs: Vec<Program>,
    /// The numbers of the mutants that do not compile.
    pub(super) unviable: BTreeSet<usize>,
    /// The numbers of those that cannot be switched at run time.
    pub(super) fixed: BTreeSet<usize>,
}

impl Schemata {
    /// Builds the tests in `copy`. Mutants have their places in the list as numbers, from 1; those in `skipped` are left out.
    pub(super) fn build(
        copy: &Path,
        target: &Path,
        mutants: &[Mutant],
        skipped: &BTreeSet<usize>,
        interrupt: &Interrupt,
    ) -> Result<Self> {
        let workspace = tools::workspace();
        let mut files: BTreeMap<&str, Vec<(usize, &Mutant)>> = BTreeMap::from([(ROOT, Vec::new())]);
        for (place, mutant) in mutants.iter().enumerate() {
            files.entry(&mutant.file).or_default().push((place + 1, mutant));
        }
        copy_sources(&workspace, copy, |name| files.contains_key(name))?;
        let sources = files.keys().map(|file| Ok((*file, read(&workspace.join(file))?)));
        let sources: BTreeMap<&str, String> = sources.collect::<Result<_>>()?;
        let mut built = Self { programs: Vec::new(), unviable: BTreeSet::new(), fixed: BTreeSet::new() };
        for round in 1..=ROUNDS {
            let mut texts = BTreeMap::new();
            for (file, all) in &files {
                let is_out =
                    |number: &usize| [skipped, &built.unviable, &built.fixed].iter().any(|set| set.contains(number));
                let some: Vec<_> = all.iter().copied().filter(|(number, _)| !is_out(number)).collect();
                let (mut woven, left) = Woven::new(&sources[file], &some)
                    .map_err(|error| Failure::cannot(format!("read {file}"), error))?;
                built.fixed.extend(left);
                if *file == ROOT {
                    woven.text += SWITCH;
                }
                write(&copy.join(file), &woven.text)?;
                texts.insert(*file, woven);
            }
            let messages = compile(copy, target, &TESTED, interrupt)?;
            let errors: Vec<_> = messages.iter().filter(|message| is_error(message)).collect();
            if errors.is_empty() {
                built.programs = messages.iter().filter_map(program).collect();
                let order = |directory: &Path| TESTED.iter().position(|package| directory.ends_with(package));
                built.programs.sort_by_key(|(_, directory)| order(directory));
                return Ok(built);
            }
            let before = built.unviable.len() + built.fixed.len();
            for error in &errors {
                built.leave_out(&error["message"], &texts, &sources, &files);
            }
            let out = built.unviable.len() + built.fixed.len() - before;
            say(format!("round {round}: {} errors, {out} mutants left out", errors.len()));
            if out == 0 {
                let first = errors[0]["message"]["rendered"].as_str().unwrap_or_default();
                return Err(Failure::cannot("compile the mutants", first));
            }
        }
        Err(Failure::cannot("compile the mutants", format!("errors after {ROUNDS} rounds")))
    }

    /// Leaves out the mutant that the compiler's error is about.
    fn leave_out(
        &mut self,
        error: &Value,
        texts: &BTreeMap<&str, Woven>,
        sources: &BTreeMap<&str, String>,
        files: &BTreeMap<&str, Vec<(usize, &Mutant)>>,
    ) {
        let mut places = Vec::new();
        collect_places(error, &mut places);
        let known = || places.iter().filter_map(|(file, place)| Some((*file, texts.get(file)?, place)));
        if let Some(mutant) = known().find_map(|(_, woven, place)| woven.mutant(place)) {
            self.unviable.insert(mutant);
        } else if let Some((file, woven, place)) = known().next() {
            // An error beside the mutants: one of this function is its cause, but not by itself. A `match` misses what only an
            // arm takes that is deleted.
            let line = woven.line(&sources[file], place.start);
            let around: Vec<_> = files[file].iter().filter(|(_, mutant)| mutant.is_around(line)).collect();
            let has_arm = around.iter().any(|(number, mutant)| is_arm(mutant) && !self.fixed.contains(number));
            let causes = around.iter().filter(|(_, mutant)| !has_arm || is_arm(mutant));
            self.fixed.extend(causes.map(|(number, _)| *number));
        }
    }
}

fn is_arm(mutant: &Mutant) -> bool {
    mutant.genre == "MatchArm"
}

/// The places that an error names, the most important ones first.
fn collect_places<'a>(message: &'a Value, places: &mut Vec<(&'a str, std::ops::Range<usize>)>) {
    let list = |value: &'a Value| value.as_array().map(Vec::as_slice).unwrap_or_default();
    let spans = list(&message["spans"]);
    let of = |is_primary| spans.iter().filter(move |span| span["is_primary"] == is_primary);
    for mut span in of(true).chain(of(false)) {
        while let Some(file) = span["file_name"].as_str() {
            let byte = |name| span[name].as_u64().and_then(|byte| usize::try_from(byte).ok()).unwrap_or(0);
            places.push((file, byte("byte_start")..byte("byte_end")));
            span = &span["expansion"]["span"];
        }
    }
    for child in list(&message["children"]) {
        collect_places(child, places);
    }
}

/// Compiles the tests of the packages, and returns what the compiler says.
pub(super) fn compile(copy: &Path, target: &Path, packages: &[&str], interrupt: &Interrupt) -> Result<Vec<Value>> {
    let log = copy.with_extension("json");
    let output = File::create(&log).map_err(|error| Failure::cannot(format!("create {}", log.display()), error))?;
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = children::mortal(Path::new(&cargo), Signal::TERM);
    command.current_dir(copy).args(["test", "--no-run", "--quiet", "--profile", PROFILE, "--lib", "--tests"]);
    command.args(["--message-format", "json"]).args(packages.iter().flat_map(|package| ["--package", package]));
    command.env("CARGO_TARGET_DIR", target).stdout(output);
    tools::forget_this_package(&mut command);
    let code = children::run_to_end(command, Group::Own, interrupt)?;
    let messages: Vec<Value> = read(&log)?.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    if code != 0 && !messages.iter().any(is_error) {
        return Err(Failure::cannot("compile the mutants", format!("cargo ended with {code}")));
    }
    Ok(messages)
}

pub(super) fn is_error(message: &Value) -> bool {
    message["message"]["level"] == "error"
}

/// The program of tests that cargo tells of.
pub(super) fn program(message: &Value) -> Option<Program> {
    let program = message["executable"].as_str().filter(|_| message["profile"]["test"] == true)?;
    Some((program.into(), Path::new(message["manifest_path"].as_str()?).parent()?.to_owned()))
}

/// Copies what git knows, and what it would take.
fn copy_sources(workspace: &Path, copy: &Path, is_woven: impl Fn(&str) -> bool) -> Result<()> {
    let mut command = Command::new("git");
    command.current_dir(workspace).args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"]);
    let list = command.output().map_err(|error| Failure::cannot("list the sources", error))?;
    for name in String::from_utf8_lossy(&list.stdout).split_terminator('\0') {
        // A file that is deleted may still be in the list.
        let Ok(content) = fs::read(workspace.join(name)) else { continue };
        // The woven ones are written later. An old one stays till then: cargo compiles again what is newer.
        if !is_woven(name) || !copy.join(name).exists() {
            write(&copy.join(name), content)?;
        }
    }
    Ok(())
}
