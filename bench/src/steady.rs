//! From a commit, through Kafka, until it is visible in a read model, at half of what writers, relay and projector carry together.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use es_core::{EventStore, Projector, QueryError, ReadModel, ReadToken, Repository};
use es_kafka::Relay;
use es_postgres::PostgresStore;
use hdrhistogram::Histogram;
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{
    account::{Account, Deposit},
    database::Server,
    follower::PATIENCE,
    history::EVENTS_PER_STREAM,
    kafka::Topics,
    measure::{Timing, histogram},
    ours::Balances,
    sheet::{Bound, Figure, Sheet},
};

/// How it is chosen on the command line.
const NAME: &str = "kafka-visible";

/// The writers. Each takes a new account after as many events as the accounts of the other rows have.
const WRITERS: u32 = 64;

/// How many of them wait after each write until it is visible.
const WAIT: u32 = 4;

/// The measurement.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Steady;

impl Steady {
    pub(crate) const NAME: &str = NAME;
    pub(crate) const TITLE: &str =
        "From a commit, through Kafka, until it is visible: 64 writers at half of what the way carries";

    /// Measures in a database and topics of its own in each round.
    pub(crate) async fn run(self, server: &Server, rounds: usize, timing: Timing) -> Result<Sheet> {
        let (mut most, mut medians, mut tails) = (Vec::new(), Vec::new(), Vec::new());
        for round in 1..=rounds {
            let way = Way::start(server).await?;
            let begun = Instant::now();
            let written = way.write(begun + timing.warm_up + timing.window, None).await?.written;
            let carried = rate(written, begun.elapsed());
            let end = Instant::now() + timing.warm_up + timing.window;
            let visible = way.write(end, Some(carried / 2.0)).await?.visible;
            let [p50, p99] = [0.5, 0.99].map(|share| milliseconds(&visible, share));
            eprintln!("{NAME:20} {round}/{rounds} {carried:>8.0}/s at most; at half: p50 {p50:.1} p99 {p99:.1} ms");
            way.end(server).await?;
            (most.push(carried), medians.push(p50), tails.push(p99));
        }
        let figures = vec![
            Figure::of("commands a second at most, until they are visible", most, None),
            Figure::of("at half of that, visible: p50 ms", medians, Some(Bound::AtMost(30.0))),
            Figure::of("at half of that, visible: p99 ms", tails, Some(Bound::AtMost(100.0))),
        ];
        Ok(Sheet { name: NAME.to_owned(), title: Self::TITLE.to_owned(), figures })
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
fn rate(count: u64, time: Duration) -> f64 {
    count as f64 / time.as_secs_f64()
}

#[expect(clippy::cast_precision_loss, reason = "latencies are far below 2^52 nanoseconds")]
fn milliseconds(times: &Histogram<u64>, share: f64) -> f64 {
    times.value_at_quantile(share) as f64 / 1e6
}

/// A log, its relay and a read model that follows Kafka.
struct Way {
    store: PostgresStore,
    topics: Topics,
    stop: CancellationToken,
    relay: JoinHandle<Result<()>>,
    projector: JoinHandle<Result<()>>,
}

/// What writers did.
struct Done {
    written: u64,
    /// From the answer to a write until it was visible, in nanoseconds.
    visible: Histogram<u64>,
}

impl Way {
    async fn start(server: &Server) -> Result<Self> {
        let url = server.create(NAME, Duration::ZERO).await?;
        let store = PostgresStore::options(&url).schema("public").connect().await?;
        let (topics, stop) = (Topics::create().await?, CancellationToken::new());
        let relay = Relay::new(store.clone(), topics.relay());
        let projector = Projector::new(Balances::<0>, topics.source(), store.clone());
        let (relay_stop, projector_stop) = (stop.clone(), stop.clone());
        let relay = tokio::spawn(async move { Ok(relay.run(relay_stop).await?) });
        let projector = tokio::spawn(async move { Ok(projector.run(projector_stop).await?) });
        let way = Self { store, topics, stop, relay, projector };
        // The first event creates what is not there yet, and the read model begins to serve.
        let repository = Repository::<Account>::new(way.store.clone());
        let token = repository.execute("first", Deposit { times: 1 }).await?.token;
        while let Err(QueryError::Building { .. }) = way.model().wait_for(token, PATIENCE).await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok(way)
    }

    fn model(&self) -> ReadModel<Balances> {
        ReadModel::new(self.store.clone())
    }

    /// Writes until `end`, as fast as the store answers or at this rate, and returns when all of it is visible.
    async fn write(&self, end: Instant, a_second: Option<f64>) -> Result<Done> {
        let (written, mut writers) = (Arc::new(AtomicU64::new(0)), JoinSet::new());
        let every = a_second.map(|rate| Duration::from_secs_f64(f64::from(WRITERS) / rate));
        let begun = Instant::now();
        for number in 0..WRITERS {
            let repository = Repository::<Account>::new(self.store.clone());
            let model = (every.is_some() && number < WAIT).then(|| self.model());
            let written = written.clone();
            writers.spawn(async move {
                let (mut account, mut written_here, mut visible) = (String::new(), 0_usize, histogram());
                // They take turns.
                let mut due = begun + every.unwrap_or_default() * number / WRITERS;
                while due.max(Instant::now()) < end {
                    tokio::time::sleep_until(due.into()).await;
                    if written_here.is_multiple_of(EVENTS_PER_STREAM) {
                        account = Uuid::now_v7().simple().to_string();
                    }
                    written_here += 1;
                    let receipt = repository.execute(account.as_str(), Deposit { times: 1 }).await?;
                    written.fetch_add(1, Ordering::Relaxed);
                    if let Some(model) = &model {
                        let answered = Instant::now();
                        model.wait_for(receipt.token, PATIENCE).await?;
                        visible.saturating_record(u64::try_from(answered.elapsed().as_nanos())?);
                    }
                    due += every.unwrap_or_default();
                    // Waiting took its time; that is no delay of the next write.
                    while model.is_some() && due < Instant::now() {
                        due += every.unwrap_or_default();
                    }
                }
                anyhow::Ok(visible)
            });
        }
        let mut visible = histogram();
        while let Some(writer) = writers.join_next().await {
            visible.add(&writer??)?;
        }
        let head = self.store.head().await?;
        self.model().wait_for(ReadToken(head), PATIENCE).await.context("the last write is not visible")?;
        Ok(Done { written: written.load(Ordering::Relaxed), visible })
    }

    async fn end(self, server: &Server) -> Result<()> {
        let Self { store, topics, stop, relay, projector } = self;
        stop.cancel();
        relay.await??;
        projector.await??;
        store.close().await?;
        topics.delete().await?;
        server.drop(NAME).await
    }
}
