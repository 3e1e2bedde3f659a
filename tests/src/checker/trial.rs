//! One run, from the seed to the findings.

use std::{
    collections::{BTreeMap, HashSet},
    fmt, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use es_core::EventStore;
use es_testing::checker::{Fault, Finding, History, Outcome, Plan, Record, Recorder, Size, check, run};

use super::{faults::Faults, ground::Ground};

/// A run that is ready to begin.
#[derive(Debug)]
pub struct Trial {
    ground: Ground,
    plan: Arc<Plan>,
    stores: Vec<Arc<dyn EventStore>>,
    history: PathBuf,
}

impl Trial {
    /// Opens `ground` for the run with `seed`, with `stores` stores in this process. Its history will be written to
    /// `directory`.
    pub async fn prepare(seed: u64, size: &Size, ground: Ground, stores: usize, directory: &Path) -> Self {
        let stores = ground.open(stores).await;
        let refuses = ground.refuse().await;
        let size = Size { refuses, ..size.clone() };
        let plan = Arc::new(Plan::new(seed, &size));
        let history = directory.join(format!("seed-{seed}.jsonl"));
        Self { ground, plan, stores, history }
    }

    /// Its store.
    pub fn ground(&self) -> &Ground {
        &self.ground
    }

    /// Runs it. `program` is the program that takes [parts](super::Part).
    ///
    /// # Errors
    /// Those of the history and of the processes.
    pub async fn run(self, program: &Path) -> io::Result<Report> {
        match std::fs::remove_file(&self.history) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let recorder = Arc::new(Recorder::append_to(&self.history)?);
        let faults = Faults::prepare(&self.plan, &self.ground, program, &self.history, &recorder).await?;
        let log = run(&self.plan, self.stores, &recorder, &faults).await;
        let history = recorder.history()?;
        let findings = check(&history, &log);
        let report = Report::new(&self.plan, &history, log.len(), findings, self.history);
        if report.findings.is_empty() {
            std::fs::remove_file(&report.history)?;
            self.ground.remove().await;
        }
        Ok(report)
    }
}

/// The result of a run.
#[derive(Debug)]
pub struct Report {
    /// Its seed.
    pub seed: u64,
    /// The broken promises; empty when all were kept.
    pub findings: Vec<Finding>,
    /// The history; it is kept only if there are findings.
    pub history: PathBuf,
    operations: u64,
    events: usize,
    outcomes: BTreeMap<&'static str, u64>,
    faults: BTreeMap<&'static str, u64>,
}

impl Report {
    fn new(plan: &Plan, history: &History, events: usize, findings: Vec<Finding>, file: PathBuf) -> Self {
        let (mut outcomes, mut faults) = (BTreeMap::new(), BTreeMap::new());
        let mut appends = HashSet::new();
        for record in &history.records {
            match record {
                Record::Called { id, call, .. } if !call.sent().is_empty() => drop(appends.insert(*id)),
                Record::Returned { id, outcome } => {
                    *outcomes.entry(name(outcome, appends.contains(id))).or_default() += 1;
                }
                Record::Injected(fault) => {
                    let name = match fault {
                        Fault::Sessions => "sessions cut",
                        Fault::Server => "crashes",
                        Fault::Process(_) => "processes killed",
                    };
                    *faults.entry(name).or_default() += 1;
                }
                _ => {}
            }
        }
        Self { seed: plan.seed, findings, history: file, operations: plan.operations(), events, outcomes, faults }
    }

    /// How many calls had this outcome.
    pub fn count(&self, outcome: &str) -> u64 {
        self.outcomes.get(outcome).copied().unwrap_or(0)
    }
}

fn name(outcome: &Outcome, is_append: bool) -> &'static str {
    match outcome {
        Outcome::Appended { repeated: false, .. } => "appended",
        Outcome::Appended { repeated: true, .. } => "repeated",
        Outcome::Together(all) => match all.first() {
            Some(Outcome::Appended { repeated: true, .. }) => "repeated together",
            _ => "appended together",
        },
        Outcome::Conflict { .. } => "conflicts",
        Outcome::ConditionFailed { .. } => "conditions failed",
        Outcome::Invalid { .. } => "invalid",
        Outcome::KeyReused => "keys reused",
        Outcome::Refused { .. } => "refused",
        Outcome::Dropped => "dropped",
        Outcome::Failed { .. } if is_append => "unknown",
        Outcome::Failed { .. } => "failed reads",
        _ => "reads",
    }
}

/// One line.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "seed {}: {} operations, {} events", self.seed, self.operations, self.events)?;
        for (name, count) in self.outcomes.iter().chain(&self.faults) {
            write!(f, ", {count} {name}")?;
        }
        write!(f, ", {} findings", self.findings.len())
    }
}
