//! Runs the tests for each mutant: those that reach it.

use std::collections::{BTreeMap, VecDeque};
use std::fs::{self, File};
use std::mem;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::children::{self, TICK};
use crate::interrupt::Interrupt;
use crate::mutants::{SKIPPED, read};
use crate::{Failure, Result, say};

/// How long the tests of a mutant may run at least. Most take less than a second, on a quiet machine.
const LEAST: Duration = Duration::from_secs(30);

/// How many times longer than the slowest of them, without a mutant, they may run.
const FACTOR: u32 = 10;

/// What a run of tests may use at least. Many tests together may use the processor for [`BUSY`] times as long as they take one by
/// one without a mutant.
const LEAST_CPU: Duration = Duration::from_secs(10);
const BUSY: u32 = 3;
const MAX_BYTES: u64 = 4 << 30;

/// How many programs of tests run on a processor: with many mutants they wait for what does not happen.
const PER_PROCESSOR: usize = 3;

/// How many of the quickest tests of a mutant run before the others.
const QUICK: usize = 16;

/// What the tests did with a mutant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// A test failed, or the process did.
    Noticed(String),
    /// The tests did not end.
    Endless,
    /// All tests passed that reach it.
    Survived,
    /// No test reaches it.
    Unreached,
}

/// A program of tests, and its directory.
pub(super) type Program = (PathBuf, PathBuf);

/// One test.
#[derive(Clone, Debug)]
struct Test {
    program: usize,
    name: String,
    /// How long it ran without a mutant.
    took: Duration,
}

/// A run of tests of one program, which is not empty.
#[derive(Clone, Debug)]
struct Job {
    /// 0 for none.
    mutant: usize,
    tests: Vec<Test>,
    /// The runs that follow if all of them pass.
    then: VecDeque<Vec<Test>>,
}

impl Job {
    /// How long its tests take one by one without a mutant.
    fn took(&self) -> Duration {
        self.tests.iter().map(|test| test.took).sum()
    }
}

/// The programs of tests, and where they write.
pub(super) struct Trials<'a> {
    pub(super) programs: &'a [Program],
    pub(super) logs: &'a Path,
    pub(super) interrupt: &'a Interrupt,
}

/// The tests that reach each mutant.
#[derive(Debug, Default)]
pub(super) struct Reach {
    by_mutant: BTreeMap<usize, Vec<Test>>,
    /// Of those that pass without a mutant.
    all: Vec<Test>,
}

impl Trials<'_> {
    /// Runs each test by itself without a mutant, to learn which mutants it reaches and how long it takes.
    pub(super) fn reach(&self) -> Result<Reach> {
        let mut jobs = VecDeque::new();
        for program in 0..self.programs.len() {
            for name in self.names(program)? {
                let test = Test { program, name, took: 10 * LEAST };
                jobs.push_back(Job { mutant: 0, tests: vec![test], then: VecDeque::new() });
            }
        }
        say(format!("looking for the mutants that each of {} tests reaches", jobs.len()));
        let mut reach = Reach::default();
        self.run_all(jobs, |job, outcome, took, asked| {
            let Some(test) = job.tests.first() else { return Ok(()) };
            if outcome != Outcome::Survived {
                say(format!("left out, it fails without a mutant: {}", test.name));
                return Ok(());
            }
            let test = Test { took, ..test.clone() };
            for mutant in asked.lines().filter_map(|line| line.parse().ok()) {
                reach.by_mutant.entry(mutant).or_default().push(test.clone());
            }
            reach.all.push(test);
            Ok(())
        })?;
        Ok(reach)
    }

    /// Runs the tests that reach each of the mutants until one notices it.
    pub(super) fn run(
        &self,
        mutants: &[usize],
        reach: &Reach,
        mut tell: impl FnMut(usize, Outcome) -> Result<()>,
    ) -> Result<()> {
        let mut jobs = VecDeque::new();
        for mutant in mutants.iter().copied() {
            let mut then = reach.runs(mutant);
            match then.pop_front() {
                Some(tests) => jobs.push_back(Job { mutant, tests, then }),
                None => tell(mutant, Outcome::Unreached)?,
            }
        }
        self.run_all(jobs, |job, outcome, _, _| tell(job.mutant, outcome))
    }

    /// Runs all tests of the first programs, which have a mutant in them that is always on, until one notices it.
    pub(super) fn run_whole(&self, reach: &Reach) -> Result<Outcome> {
        let tests: Vec<_> = reach.all.iter().filter(|test| test.program < self.programs.len()).cloned().collect();
        let mut runs: VecDeque<_> =
            tests.chunk_by(|one, other| one.program == other.program).map(<[Test]>::to_vec).collect();
        let Some(tests) = runs.pop_front() else { return Ok(Outcome::Unreached) };
        let mut found = Outcome::Unreached;
        self.run_all(VecDeque::from([Job { mutant: 0, tests, then: runs }]), |_, outcome, _, _| {
            found = outcome;
            Ok(())
        })?;
        Ok(found)
    }

    /// The names of the tests in a program.
    fn names(&self, program: usize) -> Result<Vec<String>> {
        let (program, directory) = &self.programs[program];
        let mut command = Command::new(program);
        command.current_dir(directory).args(["--list", "--format", "terse"]).args(skipped());
        let failed = |error| Failure::cannot(format!("list the tests of {}", program.display()), error);
        let output = command.output().map_err(failed)?;
        let list = String::from_utf8_lossy(&output.stdout).into_owned();
        Ok(list.lines().filter_map(|line| line.strip_suffix(": test")).map(str::to_owned).collect())
    }

    /// Runs the jobs, several at a time. `done` gets each with its outcome, how long it took and the mutants that were asked
    /// for.
    fn run_all(
        &self,
        mut jobs: VecDeque<Job>,
        mut done: impl FnMut(&Job, Outcome, Duration, &str) -> Result<()>,
    ) -> Result<()> {
        let slots = PER_PROCESSOR * thread::available_parallelism().map_or(1, usize::from);
        let logs: Vec<_> = (0..slots).map(|slot| self.logs.join(format!("trial-{slot}.log"))).collect();
        let mut running: Vec<Option<Trial>> = logs.iter().map(|_| None).collect();
        while !jobs.is_empty() || running.iter().any(Option::is_some) {
            for (place, log) in running.iter_mut().zip(&logs) {
                if let Some(trial) = place
                    && let Some(outcome) = trial.outcome(log)?
                {
                    let Job { mutant, then, .. } = &mut trial.job;
                    let next = then.pop_front().filter(|_| outcome == Outcome::Survived);
                    if let Some(tests) = next {
                        jobs.push_front(Job { mutant: *mutant, tests, then: mem::take(then) });
                    } else {
                        let asked = if *mutant == 0 { read(&asked(log))? } else { String::new() };
                        done(&trial.job, outcome, trial.started.elapsed(), &asked)?;
                    }
                    *place = None;
                }
                if place.is_none() {
                    *place = jobs.pop_front().map(|job| self.start(job, log)).transpose()?;
                }
            }
            if let Err(stopped) = self.interrupt.check() {
                running.iter_mut().flatten().for_each(Trial::end);
                return Err(stopped);
            }
            thread::sleep(TICK);
        }
        Ok(())
    }

    fn start(&self, job: Job, log: &Path) -> Result<Trial> {
        let (program, directory) = &self.programs[job.tests[0].program];
        let failed = |error| Failure::cannot(format!("run {}", program.display()), error);
        let output = File::create(log).map_err(failed)?;
        File::create(asked(log)).map_err(failed)?;
        let mut command = children::mortal(program, Signal::KILL);
        command.current_dir(directory).env("CARGO_MANIFEST_DIR", directory).arg("--exact");
        command.args(job.tests.iter().map(|test| &test.name));
        command.env("MUTANT", job.mutant.to_string());
        if job.mutant == 0 {
            command.env("MUTANTS_ASKED", asked(log));
        }
        command.stdin(Stdio::null()).stderr(output.try_clone().map_err(failed)?).stdout(output);
        let child = command.spawn().map_err(failed)?;
        limit(&child, LEAST_CPU.max(BUSY * job.took()));
        Ok(Trial { child, started: Instant::now(), job })
    }
}

impl Reach {
    /// The runs of the tests that reach a mutant: the quickest tests first, which notice most mutants.
    fn runs(&self, mutant: usize) -> VecDeque<Vec<Test>> {
        let mut tests = self.by_mutant.get(&mutant).cloned().unwrap_or_default();
        tests.sort_by_key(|test| test.took);
        let slow = tests.split_off(tests.len().min(QUICK));
        let mut runs = VecDeque::new();
        for mut part in [tests, slow] {
            part.sort_by_key(|test| test.program);
            runs.extend(part.chunk_by(|one, other| one.program == other.program).map(<[Test]>::to_vec));
        }
        runs
    }
}

/// A process that runs tests.
struct Trial {
    child: Child,
    started: Instant,
    job: Job,
}

impl Trial {
    /// How it ended, if it did. It need not run on after the first test that fails.
    fn outcome(&mut self, log: &Path) -> Result<Option<Outcome>> {
        let ended = self.child.try_wait().map_err(|error| Failure::cannot("wait for the tests", error))?;
        let said = String::from_utf8_lossy(&fs::read(log).unwrap_or_default()).into_owned();
        let outcome = match (failed_test(&said), ended) {
            (Some(name), _) => Outcome::Noticed(name.to_owned()),
            (None, Some(status)) if status.success() => Outcome::Survived,
            (None, Some(status)) if status.signal() == Some(Signal::XCPU.as_raw()) => Outcome::Endless,
            (None, Some(status)) => Outcome::Noticed(how(status)),
            (None, None) if self.started.elapsed() > self.limit() => Outcome::Endless,
            (None, None) => return Ok(None),
        };
        self.end();
        Ok(Some(outcome))
    }

    fn limit(&self) -> Duration {
        let slowest = self.job.tests.iter().map(|test| test.took).max();
        LEAST.max(2 * self.job.took()).max(FACTOR * slowest.unwrap_or_default())
    }

    fn end(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The file in which the tests of a log write the mutants that they reach.
fn asked(log: &Path) -> PathBuf {
    log.with_extension("asked")
}

fn skipped() -> impl Iterator<Item = &'static str> {
    SKIPPED.iter().flat_map(|name| ["--skip", name])
}

/// Some mutants fill the memory, and many compute without end: this is noticed earlier than by the clock, and on a loaded machine
/// as soon as on an idle one.
#[cfg(target_os = "linux")]
fn limit(child: &Child, cpu: Duration) {
    use rustix::process::{Pid, Resource, Rlimit, prlimit};

    for (resource, most) in [(Resource::Data, MAX_BYTES), (Resource::Cpu, cpu.as_secs())] {
        // The first of both limits ends it with a signal that tells why. It may have ended already.
        let limit = Rlimit { current: Some(most), maximum: Some(most + 5) };
        let _ = prlimit(Some(Pid::from_child(child)), resource, limit);
    }
}

#[cfg(not(target_os = "linux"))]
fn limit(_: &Child, _: Duration) {}

/// The first test that failed, in the output of the test harness.
fn failed_test(output: &str) -> Option<&str> {
    output.lines().find_map(|line| line.strip_prefix("test ")?.strip_suffix(" ... FAILED"))
}

/// How a process ended that did not succeed.
fn how(status: ExitStatus) -> String {
    status.signal().map_or_else(|| format!("{status}"), |signal| format!("signal {signal}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_test_that_failed_is_found() {
        let output = "running 3 tests\ntest a ... ok\ntest b::c - should panic ... FAILED\ntest d ... FAILED\n";
        assert_eq!(failed_test(output), Some("b::c - should panic"));
        assert_eq!(failed_test("test a ... ok\n"), None);
    }

    #[test]
    fn the_quickest_tests_run_first() {
        let test = |place: u64| Test {
            program: usize::from(place % 2 == 1),
            name: place.to_string(),
            took: Duration::from_secs(100 - place),
        };
        let reach = Reach { by_mutant: BTreeMap::from([(7, (0..20).map(test).collect())]), all: Vec::new() };
        let names = |run: &Vec<Test>| run.iter().map(|test| test.name.clone()).collect::<Vec<_>>().join(" ");
        assert_eq!(
            reach.runs(7).iter().map(names).collect::<Vec<_>>(),
            ["18 16 14 12 10 8 6 4", "19 17 15 13 11 9 7 5", "2 0", "3 1"]
        );
        assert!(reach.runs(8).is_empty());
    }
}
