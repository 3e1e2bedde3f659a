//! Mutation testing: what the tests of es-core do not notice, compared with what they need not notice.
//!
//! cargo-mutants lists the mutants. It would compile for each of them; here all are compiled together ([`weave`],
//! [`schemata`]) and switched by an environment variable ([`trials`]). The few that cannot be switched at run time are compiled one
//! by one ([`alone`]).

mod accepted;
mod alone;
mod list;
mod schemata;
mod trials;
mod weave;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use crate::cargo_tools::CargoTool;
use crate::interrupt::Interrupt;
use crate::mutants::accepted::Accepted;
use crate::mutants::alone::Alone;
use crate::mutants::list::Mutant;
use crate::mutants::schemata::Schemata;
use crate::mutants::trials::{Outcome, Trials};
use crate::{Failure, Result, say, tools};

const MUTANTS: CargoTool = CargoTool { name: "cargo-mutants", version: "27.1.0" };

/// The survivors that are accepted, each with the reason.
const ACCEPTED: &str = "es-core/mutants-accepted.txt";

/// The packages whose tests must notice the mutants of es-core: its own, the suites on the memory store, and those on `SQLite`,
/// which has tables.
const TESTED: [&str; 3] = ["es-core", "es-testing", "es-sqlite"];

/// The tests that are left out: they wait for leases to run out (12 s), or test the checker.
const SKIPPED: [&str; 2] = ["a_slow_", "checker::"];

/// The profile of cargo that they are compiled with.
const PROFILE: &str = "mutants";

/// Changes es-core in one place after the other (only in `files`, if there are any), and runs its tests on each change.
/// Fails if one survives that is not accepted, or if an accepted one does not survive.
pub(crate) fn run(resume: bool, files: &[String]) -> Result<i32> {
    let interrupt = Interrupt::listen()?;
    let started = Instant::now();
    let workspace = tools::workspace();
    let accepted = Accepted::parse(&read(&workspace.join(ACCEPTED))?)?;
    let output = workspace.join("target/mutants");
    let cargo_mutants = MUTANTS.installed(&interrupt)?;
    let mutants = list(&cargo_mutants, files)?;
    let mut results = Results::open(&output.join("results.txt"), resume)?;
    let skipped: BTreeSet<usize> = mutants
        .iter()
        .enumerate()
        .filter(|(_, mutant)| results.found.contains_key(&mutant.name))
        .map(|(place, _)| place + 1)
        .collect();
    let (copy, target) = (output.join("copy"), output.join("target"));
    let built = Schemata::build(&copy, &target, &mutants, &skipped, &interrupt)?;
    let name = |number: usize| mutants[number - 1].name.as_str();
    for number in &built.unviable {
        results.add_outcome(name(*number), None)?;
    }
    say(format!(
        "{} mutants, {} of them known, {} do not compile, {} cannot be switched ({})",
        mutants.len(),
        skipped.len(),
        built.unviable.len(),
        built.fixed.len(),
        minutes(started),
    ));
    let is_done = |number: &usize| [&skipped, &built.unviable, &built.fixed].iter().any(|set| set.contains(number));
    let switched: Vec<_> = (1..=mutants.len()).filter(|number| !is_done(number)).collect();
    let trials = Trials { programs: &built.programs, logs: &output, interrupt: &interrupt };
    let reach = trials.reach()?;
    say(format!("running the tests for {} mutants ({})", switched.len(), minutes(started)));
    trials.run(&switched, &reach, |number, outcome| results.add_outcome(name(number), Some(outcome)))?;
    say(format!("now those that cannot be switched ({})", minutes(started)));
    let alone = Alone::new(&copy, &target, &mutants)?;
    for number in &built.fixed {
        let tried = alone.compile(&mutants[number - 1], &interrupt)?;
        let outcome = tried.map(|programs| Trials { programs: &programs, ..trials }.run_whole(&reach)).transpose()?;
        results.add_outcome(name(*number), outcome)?;
    }
    Ok(verdict(&mutants, &results, &accepted, files.is_empty()))
}

/// All mutants of es-core, or those in `files`, in the order of cargo-mutants.
fn list(cargo_mutants: &Path, files: &[String]) -> Result<Vec<Mutant>> {
    let mut command = Command::new(cargo_mutants);
    command.current_dir(tools::workspace()).args(["mutants", "--list", "--json", "--package", "es-core"]);
    command.args(files.iter().flat_map(|file| ["--file", file]));
    let output = command.output().map_err(|error| Failure::cannot("list the mutants", error))?;
    if !output.status.success() {
        return Err(Failure::cannot("list the mutants", String::from_utf8_lossy(&output.stderr)));
    }
    Mutant::parse(&output.stdout)
}

fn minutes(started: Instant) -> String {
    format!("{} min", started.elapsed().as_secs() / 60)
}

/// What is known of the mutants, in a file that grows with each result, so that an interrupted run can go on.
struct Results {
    file: File,
    /// The outcome of each mutant, by its name.
    found: BTreeMap<String, String>,
}

impl Results {
    /// With what an earlier run has found, or without it. Mutants that survived are tried again.
    fn open(path: &Path, resume: bool) -> Result<Self> {
        let failed = |error| Failure::cannot(format!("open {}", path.display()), error);
        if !resume {
            write(path, "")?;
        }
        let file = OpenOptions::new().create(true).append(true).open(path).map_err(failed)?;
        let mut found = BTreeMap::new();
        for line in read(path)?.lines() {
            let mut columns = line.split('\t');
            if let (Some(outcome), Some(name)) = (columns.next(), columns.next()) {
                found.insert(name.to_owned(), outcome.to_owned());
            }
        }
        found.retain(|_, outcome| outcome != "survived");
        Ok(Self { file, found })
    }

    /// Adds what the tests did with a mutant; `None` if it does not compile.
    fn add_outcome(&mut self, name: &str, outcome: Option<Outcome>) -> Result<()> {
        match outcome {
            None => self.add(name, "unviable", "it does not compile"),
            Some(Outcome::Noticed(by)) => self.add(name, "noticed", &by),
            Some(Outcome::Endless) => self.add(name, "endless", "the tests did not end"),
            Some(Outcome::Survived) => self.add(name, "survived", "all tests passed that reach it"),
            Some(Outcome::Unreached) => self.add(name, "survived", "no test reaches it"),
        }
    }

    fn add(&mut self, name: &str, outcome: &str, reason: &str) -> Result<()> {
        self.found.insert(name.to_owned(), outcome.to_owned());
        writeln!(self.file, "{outcome}\t{name}\t{reason}").map_err(|error| Failure::cannot("write the results", error))
    }
}

/// Tells the result, and the exit code.
fn verdict(mutants: &[Mutant], results: &Results, accepted: &Accepted, is_whole: bool) -> i32 {
    let names = |outcome: &str| {
        let is_so = |mutant: &&Mutant| results.found.get(&mutant.name).is_some_and(|found| found == outcome);
        mutants.iter().filter(is_so).map(|mutant| mutant.name.as_str()).collect::<Vec<_>>()
    };
    let (noticed, endless, missed) = (names("noticed"), names("endless"), names("survived"));
    let of = noticed.len() + endless.len();
    let all = of + missed.len();
    say(format!(
        "noticed {of} of {all} mutants ({}.{} %), {} of them because a test did not end; {} did not compile",
        1_000 * of / all.max(1) / 10,
        1_000 * of / all.max(1) % 10,
        endless.len(),
        names("unviable").len(),
    ));
    if all == 0 {
        say("no mutant was tested: do the tests compile?");
        return 1;
    }
    let (missed, noticed) = (missed.join("\n"), [noticed, endless].concat().join("\n"));
    let verdict = accepted.compare(&missed, &noticed, is_whole);
    for survivor in &verdict.survivors {
        say(format!("survived, and is not accepted: {survivor}"));
    }
    for mutant in &verdict.outdated {
        say(format!("noticed by now, or no more; remove it from {ACCEPTED}: {mutant}"));
    }
    i32::from(!verdict.survivors.is_empty() || !verdict.outdated.is_empty())
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).map_err(|error| Failure::cannot(format!("read {}", path.display()), error))
}

/// Writes the file if it is not so already: cargo compiles what is newer.
fn write(path: &Path, content: impl AsRef<[u8]>) -> Result<()> {
    let failed = |error| Failure::cannot(format!("write {}", path.display()), error);
    if fs::read(path).is_ok_and(|old| old == content.as_ref()) {
        return Ok(());
    }
    fs::create_dir_all(path.parent().unwrap_or(path)).map_err(failed)?;
    fs::write(path, content).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_survivors_are_tried_again() {
        let directory = std::env::temp_dir().join(format!("xtask-mutants-{}", std::process::id()));
        let path = directory.join("results.txt");
        let mut results = Results::open(&path, false).expect("a file");
        results.add("a", "noticed", "t").expect("a line");
        results.add("b", "survived", "").expect("a line");
        let again = Results::open(&path, true).expect("the file");
        assert_eq!(again.found.keys().collect::<Vec<_>>(), ["a"]);
        assert!(Results::open(&path, false).expect("the file").found.is_empty());
        fs::remove_dir_all(directory).expect("a directory");
    }
}
