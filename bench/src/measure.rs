//! One measurement: clients in closed loops, a warm-up, a window, and the proof that the work was done.

use std::{
    ops::Range,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::{
    account::Account,
    contender::{Client, Contender},
    database::Database,
    usage::{self, Meter, Usage},
};

/// How many commands an account gets before the client turns to a new one.
const COMMANDS_PER_ACCOUNT: u64 = 10;

/// How long things take.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Timing {
    /// Before anything counts.
    pub(crate) warm_up: Duration,
    /// In which everything counts.
    pub(crate) window: Duration,
}

/// What each client repeats.
#[derive(Debug, Clone)]
pub(crate) enum Loop {
    /// Commands on accounts of its own.
    OwnAccounts,
    /// Commands of all clients on one account, a new one for each measurement.
    OneAccount,
    /// Loads of these, each of which has so many events.
    Load(Arc<[Uuid]>, u64),
    /// Reads of the log.
    Read,
}

impl Loop {
    fn writes(&self) -> bool {
        matches!(self, Self::OwnAccounts | Self::OneAccount)
    }
}

/// What the clients did.
pub(crate) struct Finished {
    /// The latencies of what ended within the window, in nanoseconds.
    pub(crate) latencies: Histogram<u64>,
    /// How many operations were done, before and after the window too.
    pub(crate) done: u64,
    /// Seconds of processor time that the clients' process used in the window.
    pub(crate) client_seconds: Option<f64>,
}

/// What came of it.
#[derive(Debug, Clone)]
pub(crate) struct Measurement {
    /// How long the window was.
    pub(crate) window: Duration,
    /// How many operations ended in it.
    pub(crate) operations: u64,
    /// Their latencies in nanoseconds; none where the work is one piece.
    pub(crate) latencies: Option<Histogram<u64>>,
    /// What it cost.
    pub(crate) usage: Usage,
    /// Seconds of processor time of the clients.
    pub(crate) client_seconds: Option<f64>,
}

impl Measurement {
    /// Operations per second.
    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
    pub(crate) fn per_second(&self) -> f64 {
        self.operations as f64 / self.window.as_secs_f64()
    }

    /// The latency that a share of the operations did not exceed, in microseconds.
    #[expect(clippy::cast_precision_loss, reason = "latencies are far below 2^52 nanoseconds")]
    pub(crate) fn quantile_us(&self, share: f64) -> Option<f64> {
        Some(self.latencies.as_ref()?.value_at_quantile(share) as f64 / 1e3)
    }
}

/// What is measured, and by whom.
pub(crate) struct Driver<'a> {
    /// Who counts the log.
    pub(crate) contender: &'a dyn Contender,
    /// What the clients repeat.
    pub(crate) work: &'a Loop,
    /// How long.
    pub(crate) timing: Timing,
    /// A connection to the contender's database.
    pub(crate) database: &'a mut Database,
}

impl Driver<'_> {
    /// Measures while `drive` lets the clients work; it is given the moment when the window begins.
    ///
    /// Fails unless the log has grown by exactly the number of acknowledged commands.
    pub(crate) async fn measure<F>(self, drive: impl FnOnce(Instant) -> F) -> Result<Measurement>
    where
        F: Future<Output = Result<Finished>> + Send + 'static,
    {
        self.database.analyze().await?;
        let before = events(self.contender, self.database).await?;
        let begin = Instant::now() + self.timing.warm_up;
        let driven = tokio::spawn(drive(begin));
        tokio::time::sleep_until(begin.into()).await;
        let meter = Meter::start(self.database).await?;
        tokio::time::sleep_until((begin + self.timing.window).into()).await;
        let usage = meter.stop(self.database).await?;
        let Finished { latencies, done, client_seconds } = driven.await??;
        ensure!(!latencies.is_empty(), "nothing was done");
        let written = events(self.contender, self.database).await? - before;
        let acknowledged = if self.work.writes() { done } else { 0 };
        ensure!(written == acknowledged, "{acknowledged} commands acknowledged, but the log has grown by {written}");
        let operations = latencies.len();
        Ok(Measurement { window: self.timing.window, operations, latencies: Some(latencies), usage, client_seconds })
    }
}

/// Connects the clients of a measurement.
pub(crate) async fn clients(contender: &dyn Contender, number: usize) -> Result<Vec<Box<dyn Client>>> {
    let mut clients = Vec::with_capacity(number);
    for _ in 0..number {
        clients.push(contender.client().await?);
    }
    Ok(clients)
}

/// Lets the clients repeat `work` in this process until the end of the window.
pub(crate) async fn drive(clients: Vec<Box<dyn Client>>, work: Loop, window: Range<Instant>) -> Result<Finished> {
    let shared = Uuid::now_v7();
    let mut running = JoinSet::new();
    for (number, client) in clients.into_iter().enumerate() {
        running.spawn(repeat(client, work.clone(), number, shared, window.clone()));
    }
    tokio::time::sleep_until(window.start.into()).await;
    let before = usage::own_seconds();
    tokio::time::sleep_until(window.end.into()).await;
    let after = usage::own_seconds();
    let mut all = Finished { latencies: histogram(), done: 0, client_seconds: None };
    all.client_seconds = before.zip(after).map(|(before, after)| after - before);
    while let Some(finished) = running.join_next().await {
        let (latencies, done) = finished??;
        all.latencies.add(&latencies).context("histograms of one kind")?;
        all.done += done;
    }
    Ok(all)
}

/// One closed loop; gives its latencies within the window and how many operations it did at all.
async fn repeat(
    mut client: Box<dyn Client>,
    work: Loop,
    number: usize,
    shared: Uuid,
    window: Range<Instant>,
) -> Result<(Histogram<u64>, u64)> {
    let mut latencies = histogram();
    let mut done = 0;
    let mut own = Uuid::now_v7();
    loop {
        let asked = Instant::now();
        if asked >= window.end {
            return Ok((latencies, done));
        }
        match &work {
            Loop::OwnAccounts => {
                let version = done % COMMANDS_PER_ACCOUNT;
                if version == 0 {
                    own = Uuid::now_v7();
                }
                client.execute(own, version).await?;
            }
            Loop::OneAccount => client.execute(shared, done).await?,
            Loop::Load(accounts, events) => {
                // Each client begins at another place.
                let turn = usize::try_from(done)? + number * accounts.len() / 4;
                let loaded = client.load(accounts[turn % accounts.len()]).await?;
                ensure!(loaded == Account { balance: *events, changes: *events }, "{events} events make {loaded:?}");
            }
            Loop::Read => client.read().await?,
        }
        let answered = Instant::now();
        done += 1;
        if window.contains(&answered) {
            latencies.saturating_record(u64::try_from((answered - asked).as_nanos()).unwrap_or(u64::MAX));
        }
    }
}

/// Up to an hour, three digits.
pub(crate) fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 3_600_000_000_000, 3).expect("valid bounds")
}

/// How many events the contender's log holds.
pub(crate) async fn events(contender: &dyn Contender, database: &mut Database) -> Result<u64> {
    database.count(contender.count()).await
}

/// Measures one piece of work, which has no latencies.
pub(crate) async fn piece(
    database: &mut Database,
    operations: usize,
    work: impl Future<Output = Result<()>>,
) -> Result<Measurement> {
    let meter = Meter::start(database).await?;
    let (before, begin) = (usage::own_seconds(), Instant::now());
    work.await?;
    let (window, after) = (begin.elapsed(), usage::own_seconds());
    Ok(Measurement {
        window,
        operations: u64::try_from(operations)?,
        latencies: None,
        usage: meter.stop(database).await?,
        client_seconds: before.zip(after).map(|(before, after)| after - before),
    })
}
