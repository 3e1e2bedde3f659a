//! Rounds: in each, every participant once, in rotating order. What disturbs the machine for a while disturbs all of
//! them, so that the ratios within a round stay.

use std::{sync::Arc, time::Duration};

use anyhow::{Context, Result, bail, ensure};
use hdrhistogram::Histogram;
use uuid::Uuid;

use crate::{
    contender::{Contender, Task, Work},
    database::{Database, Server},
    embedded::Files,
    entrant::Entrant,
    import, kafka,
    measure::{self, Driver, Loop, Measurement, Timing},
    processes, rebuild, sagas, tables,
    workload::Workload,
};

/// Accounts that are prepared for being loaded.
const ACCOUNTS: usize = 16;

/// How many events each of them gets at once.
const EVENTS: u32 = 1_000;

/// How many more follow one by one, after a snapshot.
const TAIL: u64 = 20;

/// A participant and what it did in each round.
pub(crate) struct Series {
    pub(crate) entrant: Entrant,
    pub(crate) rounds: Vec<Measurement>,
}

/// A participant with its database, ready to be measured.
pub(crate) struct Prepared {
    entrant: Entrant,
    task: Task,
    work: Loop,
}

/// Runs all rounds of a workload, each participant on a new database.
pub(crate) async fn run(server: &Server, workload: &Workload, rounds: usize, timing: Timing) -> Result<Vec<Series>> {
    if workload.work.is_one_piece() {
        // Each time in a new database.
        let measure = async |entrant: &Entrant| match workload.work {
            Work::Rebuild | Work::CatchUp => rebuild::measure(server, *entrant, workload.work).await,
            Work::Tables => tables::measure(server, workload, *entrant).await,
            Work::Sagas | Work::Timers => sagas::measure(server, workload.work, *entrant).await,
            Work::Publish | Work::Follow => kafka::measure(server, *entrant, workload.work).await,
            _ => import::measure(server, *entrant).await,
        };
        return rotate(workload, &workload.entrants(), rounds, measure).await;
    }
    let files = workload.is_embedded().then(Files::new).transpose()?;
    let mut prepared = Vec::new();
    for entrant in workload.entrants() {
        let ready = async {
            let url = match &files {
                Some(files) => files.create(entrant.name()),
                None => server.create(entrant.name(), workload.commit_delay).await?,
            };
            let task = Task { url, work: workload.work, clients: workload.clients };
            entrant.prepare(&task).await?;
            Prepared::fill(entrant, task).await
        };
        prepared.push(ready.await.with_context(|| format!("{}: cannot prepare {}", workload.name, entrant.name()))?);
    }
    let series = interleave(&prepared, workload, rounds, timing).await?;
    for ready in prepared.iter().filter(|_| files.is_none()) {
        server.drop(ready.entrant.name()).await?;
    }
    Ok(series)
}

/// Measures each participant once in every round.
pub(crate) async fn interleave(
    prepared: &[Prepared],
    workload: &Workload,
    rounds: usize,
    timing: Timing,
) -> Result<Vec<Series>> {
    rotate(workload, prepared, rounds, async |ready| ready.measure(workload, timing).await).await
}

/// Measures each participant once in every round, and begins each with another one.
async fn rotate<P: Participant>(
    workload: &Workload,
    participants: &[P],
    rounds: usize,
    measure: impl AsyncFn(&P) -> Result<Measurement>,
) -> Result<Vec<Series>> {
    let series = participants.iter().map(|one| Series { entrant: one.entrant(), rounds: Vec::new() });
    let mut series: Vec<_> = series.collect();
    for round in 0..rounds {
        for turn in 0..participants.len() {
            let place = (round + turn) % participants.len();
            let name = participants[place].entrant().name();
            let measured = measure(&participants[place]).await;
            let measured = measured.with_context(|| format!("{}: {name}", workload.name))?;
            eprintln!("{:20} {}/{rounds} {name:20} {:>10.0}/s", workload.name, round + 1, measured.per_second());
            series[place].rounds.push(measured);
        }
    }
    Ok(series)
}

/// Who can be told apart in results.
trait Participant {
    fn entrant(&self) -> Entrant;
}

impl Participant for Prepared {
    fn entrant(&self) -> Entrant {
        self.entrant
    }
}

impl Participant for Entrant {
    fn entrant(&self) -> Entrant {
        *self
    }
}

impl Prepared {
    /// Writes what the work is going to read.
    pub(crate) async fn fill(entrant: Entrant, task: Task) -> Result<Self> {
        let work = match task.work {
            Work::Execute | Work::ExecuteUncached | Work::Boundary => Loop::OwnAccounts,
            Work::OneStream => Loop::OneAccount,
            Work::Load => accounts(&*entrant.connect(&task).await?, 0).await?,
            Work::LoadSnapshot => accounts(&*entrant.connect(&task).await?, TAIL).await?,
            Work::Head | Work::Page => Loop::Read,
            Work::Import
            | Work::Rebuild
            | Work::CatchUp
            | Work::Tables
            | Work::Sagas
            | Work::Timers
            | Work::Publish
            | Work::Follow => {
                bail!("it is no closed loop")
            }
        };
        Ok(Self { entrant, task, work })
    }

    async fn measure(&self, workload: &Workload, timing: Timing) -> Result<Measurement> {
        let mut database = Database::open(&self.task.url).await?;
        let contender = self.entrant.connect(&self.task).await?;
        let driver = Driver { contender: &*contender, work: &self.work, timing, database: &mut database };
        if let Some(processes) = workload.processes {
            let mut children = Vec::new();
            for _ in 0..processes {
                children.push(processes::start(self.entrant, &self.task, timing).await?);
            }
            return driver.measure(|_| processes::drive(children)).await;
        }
        let clients = measure::clients(&*contender, workload.clients).await?;
        let work = self.work.clone();
        let measured = driver.measure(|begin| measure::drive(clients, work, begin..begin + timing.window)).await?;
        let shortest = measured.latencies.as_ref().map_or(0, Histogram::min);
        let shortest = Duration::from_nanos(shortest);
        let alone = workload.clients == 1;
        ensure!(!alone || shortest >= workload.commit_delay, "the server has committed after {shortest:?} only");
        Ok(measured)
    }
}

/// Accounts with [`EVENTS`] events written at once and then `tail` one by one.
async fn accounts(contender: &dyn Contender, tail: u64) -> Result<Loop> {
    let mut client = contender.client().await?;
    let accounts: Arc<[Uuid]> = (0..ACCOUNTS).map(|_| Uuid::now_v7()).collect();
    for account in &*accounts {
        client.fill(*account, EVENTS).await?;
        for version in 0..tail {
            client.execute(*account, u64::from(EVENTS) + version).await?;
        }
    }
    Ok(Loop::Load(accounts, u64::from(EVENTS) + tail))
}
