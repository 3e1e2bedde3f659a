//! Mutation testing: what the tests of es-core do not notice, compared with what they need not notice.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use rustix::process::Signal;

use crate::cargo_tools::CargoTool;
use crate::children::{self, Group};
use crate::interrupt::Interrupt;
use crate::{Failure, Result, say, tools};

const MUTANTS: CargoTool = CargoTool { name: "cargo-mutants", version: "27.1.0" };

/// The survivors that are accepted, each with the reason.
const ACCEPTED: &str = "es-core/mutants-accepted.txt";

/// Changes es-core in one place after the other (only in `files`, if there are any), and runs its tests on each change.
/// Fails if one survives that is not accepted, or if an accepted one does not survive.
pub(crate) fn run(resume: bool, files: &[String]) -> Result<i32> {
    let interrupt = Interrupt::listen()?;
    let workspace = tools::workspace();
    let accepted = Accepted::parse(&read(&workspace.join(ACCEPTED))?)?;
    let output = workspace.join("target/mutants");
    fs::create_dir_all(&output).map_err(|error| Failure::cannot(format!("create {}", output.display()), error))?;
    let mut command = children::mortal(&MUTANTS.installed(&interrupt)?, Signal::TERM);
    command.current_dir(&workspace).args(["mutants", "--package", "es-core", "--output"]).arg(&output);
    command.args(resume.then_some("--iterate")).args(files.iter().flat_map(|file| ["--file", file]));
    tools::forget_this_package(&mut command);
    // It works in a copy of the workspace. The dependencies are compiled once for all runs.
    command.env("CARGO_TARGET_DIR", output.join("target"));
    let code = children::run_to_end(command, Group::Own, &interrupt)?;
    // 0: all noticed, 2: some survived, 3: some never ended, which the tests notice too.
    if ![0, 2, 3].contains(&code) {
        return Ok(code);
    }
    let list = |name: &str| read(&output.join("mutants.out").join(name));
    let (caught, endless, missed) = (list("caught.txt")?, list("timeout.txt")?, list("missed.txt")?);
    let count = |list: &str| list.lines().count();
    let noticed = caught + &endless;
    let (of, all) = (count(&noticed), count(&noticed) + count(&missed));
    say(format!(
        "noticed {of} of {all} mutants ({}.{} %), {} of them because a test did not end; {} did not compile",
        1_000 * of / all.max(1) / 10,
        1_000 * of / all.max(1) % 10,
        count(&endless),
        count(&list("unviable.txt")?),
    ));
    if all == 0 {
        say("no mutant was tested: do the tests compile?");
        return Ok(1);
    }
    let verdict = accepted.compare(&missed, &noticed);
    for survivor in &verdict.survivors {
        say(format!("survived, and is not accepted: {survivor}"));
    }
    for mutant in &verdict.outdated {
        say(format!("noticed by now; remove it from {ACCEPTED}: {mutant}"));
    }
    Ok(i32::from(!verdict.survivors.is_empty() || !verdict.outdated.is_empty()))
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).map_err(|error| Failure::cannot(format!("read {}", path.display()), error))
}

/// Mutants that may survive, with the reasons. They are named without their lines, which move: one entry stands for all
/// mutants of the same name in the same function.
#[derive(Debug)]
struct Accepted(BTreeMap<String, String>);

/// What is not as the list of accepted mutants says.
#[derive(Debug)]
struct Verdict<'a> {
    /// With their lines.
    survivors: Vec<&'a str>,
    outdated: Vec<&'a String>,
}

impl Accepted {
    /// A mutant a line, and its reason on the next line, indented. Lines that begin with `#` are comments.
    fn parse(text: &str) -> Result<Self> {
        let mut lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
        let mut accepted = BTreeMap::new();
        while let Some(mutant) = lines.next() {
            let reason = lines.next().filter(|reason| !mutant.starts_with(' ') && reason.starts_with(' '));
            let reason =
                reason.ok_or_else(|| Failure::cannot(format!("read {ACCEPTED}"), format!("no reason: {mutant}")))?;
            accepted.insert(mutant.to_owned(), reason.trim().to_owned());
        }
        Ok(Self(accepted))
    }

    fn compare<'a>(&'a self, missed: &'a str, noticed: &str) -> Verdict<'a> {
        let is_accepted = |line: &&str| self.0.contains_key(&name(line));
        let survived: BTreeSet<_> = missed.lines().map(name).collect();
        let noticed: BTreeSet<_> = noticed.lines().map(name).collect();
        let is_outdated = |mutant: &&String| noticed.contains(*mutant) && !survived.contains(*mutant);
        Verdict {
            survivors: missed.lines().filter(|line| !is_accepted(line)).collect(),
            outdated: self.0.keys().filter(is_outdated).collect(),
        }
    }
}

/// A mutant without its line and column: `es-core/src/tag.rs:12:5: replace …` becomes `es-core/src/tag.rs: replace …`.
fn name(line: &str) -> String {
    let mut parts = line.splitn(4, ':');
    let file = parts.next().unwrap_or_default();
    format!("{file}:{}", parts.nth(2).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: &str = "# comment\n\na.rs: replace + with - in f\n    equivalent: f(0) is not asked for\n";

    #[test]
    fn survivors_are_compared_without_their_lines() {
        let accepted = Accepted::parse(LIST).expect("a list");
        let verdict = accepted.compare("a.rs:7:9: replace + with - in f\na.rs:8:1: delete ! in f::<A, B>", "");
        assert_eq!(verdict.survivors, ["a.rs:8:1: delete ! in f::<A, B>"]);
        assert!(verdict.outdated.is_empty());
    }

    #[test]
    fn an_accepted_mutant_that_is_noticed_is_told() {
        let accepted = Accepted::parse(LIST).expect("a list");
        assert_eq!(accepted.compare("", "a.rs:7:9: replace + with - in f").outdated, ["a.rs: replace + with - in f"]);
        // Of several of that name one survives still.
        assert!(
            accepted.compare("a.rs:9:9: replace + with - in f", "a.rs:7:9: replace + with - in f").outdated.is_empty()
        );
        // It was not among those that were run.
        assert!(accepted.compare("", "b.rs:1:1: delete ! in g").outdated.is_empty());
    }

    #[test]
    fn every_accepted_mutant_has_a_reason() {
        assert!(Accepted::parse("a.rs: x\nb.rs: y\n    reason\n").is_err());
        assert!(Accepted::parse("a.rs: x\n").is_err());
        Accepted::parse(include_str!("../../es-core/mutants-accepted.txt")).expect("the list of es-core");
    }
}
