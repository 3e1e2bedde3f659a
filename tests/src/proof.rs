//! The proof of a rebuild: a log of any size, writers beside it, a rebuild that is killed (`kill -9`) again and again, and the
//! comparison with an independent fold. `cargo xtask prove-rebuild` runs it in its full size.

mod accounts;
mod process;
mod report;
mod role;

use std::{
    collections::HashMap,
    path::PathBuf,
    time::{Duration, Instant},
};

use chrono::Utc;
use es_core::{
    EventStore, KeyRange, Metadata, ReadToken, Service,
    backend::{BoxError, Documents},
    service::Parts,
};
use es_postgres::{Imported, PostgresStore};
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use uuid::Uuid;

use self::{
    accounts::{Balance, Balances},
    process::{Rebuilding, Writers},
    role::{Rebuild, Told},
};
pub use self::{
    report::{Report, Survived},
    role::Role,
};

/// How many documents are compared at once.
const PAGE: usize = 10_000;

/// How long readers may take to catch up.
const PATIENCE: Duration = Duration::from_mins(10);

/// What is proved.
#[derive(Debug, Clone)]
pub struct Proof {
    /// The program that takes the [`Role`]s of child processes.
    pub program: PathBuf,
    /// The database, with parameters or without.
    pub database: String,
    /// The events of the log before the writers begin.
    pub events: u64,
    /// How many documents they make.
    pub accounts: u64,
    /// Appends a second.
    pub rate: u32,
    /// For how long the quiet appends are measured.
    pub quiet: Duration,
    /// How often the rebuild is killed.
    pub kills: u32,
    /// The limit of the throttle; without one, 1.25 times the 99th percentile of quiet appends.
    pub append_p99: Option<Duration>,
    /// For the rebuild that is killed.
    pub document_bytes: Option<usize>,
    /// Whether a rebuild waits where it is to be killed: a short one would be over before.
    pub waits: bool,
    /// Whether to measure also what is not about being killed: cost, memory, and what an unthrottled rebuild does to appends.
    pub measures: bool,
}

impl Proof {
    /// Runs it in two schemas of its own, which it removes.
    ///
    /// # Errors
    /// Those of the database, and of child processes.
    pub async fn run(&self) -> Result<Report, BoxError> {
        let run = Uuid::now_v7().simple().to_string();
        let schemas = ["large", "small"].map(|name| format!("proof_{}_{name}", &run[20..]));
        let report = self.run_in(&schemas).await;
        let mut connection = PgConnection::connect(&self.database).await?;
        for schema in &schemas {
            let drop = format!("DROP SCHEMA IF EXISTS {schema} CASCADE");
            sqlx::raw_sql(AssertSqlSafe(drop)).execute(&mut connection).await?;
        }
        connection.close().await?;
        report
    }

    async fn run_in(&self, [large, small]: &[String; 2]) -> Result<Report, BoxError> {
        let mut report = Report { events: self.events, accounts: self.accounts, rate: self.rate, ..Report::default() };
        let (url, store) = self.fill(large, self.events).await?;
        if self.measures {
            let (small, few) = self.fill(small, self.events / 100).await?;
            let mut costs = Vec::new();
            for _ in 0..5 {
                costs.push(took(self.rebuild(&small, None, None)?.done().await?)?);
            }
            costs.sort_unstable();
            few.close().await?;
            report.took_small = Some(costs[costs.len() / 2]);
            say(format!(
                "a hundredth of them took {:.2} s; rebuilding all without writers",
                costs[costs.len() / 2].as_secs_f64()
            ));
            let told = self.rebuild(&url, None, None)?.done().await?;
            (report.took_large, report.peak) = (Some(took(told)?), Some(told.peak));
            say(format!("that took {}; again, within a tenth of the memory of the model", took_and_peak(told)?));
            let model = model_bytes(&store).await?;
            let bytes = usize::try_from(model / 80)?.max(1);
            let told = self.rebuild(&url, None, Some(bytes))?.done().await?;
            (report.took_bounded, report.peak_bounded) = (Some(took(told)?), Some((bytes * 8, told.peak)));
            say(format!("that took {}", took_and_peak(told)?));
        }

        say("measuring appends without a rebuild");
        let writers = Writers::start(&self.program, &url, self.rate, self.accounts)?;
        while writers.take()?.is_empty() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        tokio::time::sleep(self.quiet / 10).await;
        writers.take()?;
        report.probe_quiet = self.probes(&store).await?;
        report.quiet = p99(writers.take()?);
        say(format!("99 of 100 appends within {:?}", report.quiet));
        if self.measures {
            say("rebuilding beside writers, not throttled");
            let told = self.rebuild(&url, None, None)?.done().await?;
            (report.took_unthrottled, report.unthrottled) = (Some(took(told)?), p99(writers.take()?));
            say(format!("that took {}; 99 of 100 appends within {:?}", took_and_peak(told)?, report.unthrottled));
            // What it has left to autovacuum and checkpoints is not ours.
            tokio::time::sleep(self.quiet / 2).await;
            writers.take()?;
        }

        say(format!("rebuilding beside writers, throttled, with {} times kill -9", self.kills));
        let limit = self.append_p99.or(report.quiet.map(|quiet| quiet.mul_f64(1.25)));
        report.limit = limit;
        let began = Instant::now();
        for kill in 1..=self.kills {
            let at = self.events * u64::from(kill) / u64::from(self.kills + 1);
            let killed = self.kill(&store, &url, limit, at).await?;
            report.resumes(killed.first);
            report.survived.push(killed);
        }
        let last = self.rebuild(&url, limit, self.document_bytes)?.done().await?;
        report.resumes(last.first);
        (report.took_throttled, report.throttled) = (Some(began.elapsed()), p99(writers.take()?));
        report.share = last.share;
        drop(writers);

        say("comparing the documents with an independent fold");
        (report.documents, report.model, report.differing) = compare(&store).await?;
        Ok(report)
    }

    /// Fills a log with so many events.
    async fn fill(&self, schema: &str, events: u64) -> Result<(String, PostgresStore), BoxError> {
        let began = Instant::now();
        let separator = if self.database.contains('?') { '&' } else { '?' };
        let url = format!("{}{separator}schema={schema}", self.database);
        let store = PostgresStore::connect(&url).await?;
        let accounts = (self.accounts * events / self.events).max(1);
        let imported = move |number| {
            let (stream, data) = accounts::deposit(number, accounts);
            let (id, recorded_at) = (Uuid::now_v7(), Utc::now());
            Imported { stream, id, recorded_at, data, metadata: Metadata::default(), tags: Vec::new() }
        };
        store.import("history").events((0..events).map(imported)).await?;
        let mut connection = PgConnection::connect(&self.database).await?;
        let vacuum = format!("VACUUM (ANALYZE) {schema}.events");
        sqlx::raw_sql(AssertSqlSafe(vacuum)).execute(&mut connection).await?;
        connection.close().await?;
        say(format!("{events} events are in the log after {:.1} s", began.elapsed().as_secs_f64()));
        Ok((url, store))
    }

    fn rebuild(
        &self,
        url: &str,
        append_p99: Option<Duration>,
        document_bytes: Option<usize>,
    ) -> Result<Rebuilding, BoxError> {
        self.rebuild_to(url, append_p99, document_bytes, None)
    }

    fn rebuild_to(
        &self,
        url: &str,
        append_p99: Option<Duration>,
        document_bytes: Option<usize>,
        waits_at: Option<u64>,
    ) -> Result<Rebuilding, BoxError> {
        let url = url.to_owned();
        Rebuilding::start(&self.program, Rebuild { url, append_p99, document_bytes, waits_at })
    }

    /// Rebuilds and kills that with `kill -9` when it has folded the event `at` and has written something.
    async fn kill(
        &self,
        store: &PostgresStore,
        url: &str,
        limit: Option<Duration>,
        at: u64,
    ) -> Result<Survived, BoxError> {
        let before = written(store).await?;
        let waits_at = self.waits.then_some(at);
        let mut rebuilding = self.rebuild_to(url, limit, self.document_bytes, waits_at)?;
        let told = loop {
            let told = rebuilding.next().await?;
            if told.took.is_some() {
                return Err("the rebuild was done before it could be killed".into());
            }
            if told.waits || (told.folded >= at && written(store).await? > before) {
                break told;
            }
        };
        rebuilding.kill().await?;
        let (first, folded) = (told.first, told.folded);
        say(format!("killed at {folded}, after it had begun at {first}"));
        Ok(Survived { first, folded, written: written(store).await?, next: None })
    }

    /// How long probes take beside the writers, while their appends are measured.
    async fn probes(&self, store: &PostgresStore) -> Result<Option<Duration>, BoxError> {
        let (began, mut probes) = (Instant::now(), Vec::new());
        while began.elapsed() < self.quiet {
            probes.push(store.probe().await?);
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
        Ok(p99(probes))
    }
}

fn say(what: impl std::fmt::Display) {
    eprintln!("{} {what}", Utc::now().format("%H:%M:%S"));
}

/// What is told of a rebuild that is done.
fn took_and_peak(told: Told) -> Result<String, BoxError> {
    Ok(format!("{:.1} s and {} MiB", took(told)?.as_secs_f64(), told.peak >> 20))
}

fn took(told: Told) -> Result<Duration, BoxError> {
    told.took.ok_or_else(|| "it is not done".into())
}

/// The 99th percentile; `None` of nothing.
fn p99(mut latencies: Vec<Duration>) -> Option<Duration> {
    latencies.sort_unstable();
    latencies.get((latencies.len() * 99).div_ceil(100).checked_sub(1)?).copied()
}

/// The last position that a rebuild has written; 0 where none is at work.
async fn written(store: &PostgresStore) -> Result<u64, BoxError> {
    let found = store.generations("balances").await?;
    Ok(found.building.map_or(0, |building| building.reached.get()))
}

/// What all documents and their keys have in bytes.
async fn model_bytes(store: &PostgresStore) -> Result<u64, BoxError> {
    let mut bytes = 0;
    each_document(store, |key, document| bytes += key.len() as u64 + document.len() as u64).await?;
    Ok(bytes)
}

async fn each_document(store: &PostgresStore, mut look: impl FnMut(&str, &[u8])) -> Result<(), BoxError> {
    let mut after: Option<String> = None;
    loop {
        let range = KeyRange { after: after.take(), ..KeyRange::default() };
        let page = store.scan("balances", range, PAGE).await?.ok_or("no generation serves")?.found;
        for (key, document) in &page {
            look(key, document);
        }
        match page.last() {
            Some((key, _)) => after = Some(key.clone()),
            None => return Ok(()),
        }
    }
}

/// Lets the new generation catch up, and compares it: the number of documents, their bytes, and how many differ.
async fn compare(store: &PostgresStore) -> Result<(u64, u64, u64), BoxError> {
    let builder = Service::builder("proof", store.clone()).projection(Balances::default());
    let service = builder.parts(Parts::All).start().await?;
    let head = ReadToken(store.head().await?);
    service.read_model::<Balances>().wait_for(head, PATIENCE).await?;
    let mut folded: HashMap<String, Balance> = accounts::independent_fold(store).await?;
    let (mut documents, mut bytes, mut differing) = (0, 0, 0);
    each_document(store, |key, document| {
        documents += 1;
        bytes += key.len() as u64 + document.len() as u64;
        let stored = serde_json::from_slice::<Balance>(document).ok();
        differing += u64::from(stored.is_none() || stored != folded.remove(key));
    })
    .await?;
    // It closes the store too.
    service.shutdown(PATIENCE).await?;
    // Those that are left have no document.
    Ok((documents, bytes, differing + folded.len() as u64))
}
