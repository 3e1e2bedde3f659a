//! Slow projections and policies keep their leases.

use std::{
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use tokio::{sync::Semaphore, task::JoinSet};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::engines_project::{Store, assert_equals_the_fold, deposit, source};
use es_core::{
    FoldResult, Keys, LogSource, Policy, PolicyError, PolicyRunner, Position, Projection, Projector, Recorded,
    backend::{Reader, Takeover},
    testing::account::{AccountEvent, Ledger, LedgerPage},
};

/// The lease of the workers in these tests.
const LEASE: Duration = Duration::from_secs(1);

/// A second owner, whose own leases expire at once, asks for the lease on the log.
async fn is_free(store: &impl Store, reader: &Reader) -> bool {
    let (shard, rival) = (LogSource::shard(), Uuid::now_v7());
    store.ensure_shards(reader, std::slice::from_ref(&shard)).await.expect("asked");
    let taken = store.acquire(reader, &shard, rival, Takeover::WhenFree, Duration::ZERO).await.expect("asked");
    taken.is_some()
}

/// Asks for three times the length of the lease.
async fn assert_it_is_kept(store: &impl Store, name: &str) {
    let (reader, _) = store.ensure_reader(name, "a worker has begun").await.expect("asked");
    let began = Instant::now();
    while began.elapsed() < LEASE * 3 {
        assert!(!is_free(store, &reader).await, "after {:?} the worker still lives", began.elapsed());
        tokio::time::sleep(LEASE / 20).await;
    }
}

/// Counts its folds. Each takes its time, and blocks the thread of the runtime that long.
#[derive(Debug, Clone)]
struct Ponderous {
    each: Duration,
    folds: Arc<AtomicU64>,
}

impl Projection for Ponderous {
    const NAME: &'static str = "ponderous";
    type Event = AccountEvent;
    type Document = LedgerPage;

    fn keys(&self, event: &Recorded<AccountEvent>) -> Keys {
        Ledger::<1>::default().keys(event)
    }

    fn fold(&self, page: &mut Option<Self::Document>, event: &Recorded<AccountEvent>) -> FoldResult {
        thread::sleep(self.each);
        self.folds.fetch_add(1, Ordering::Relaxed);
        Ledger::<1>::default().fold(page, event)
    }
}

/// A batch takes four times as long as the lease lasts. Seen to fail where the lease was renewed between batches: the
/// workers took it from each other, and folded each event several times.
pub async fn a_slow_batch_keeps_its_lease(store: &impl Store) {
    for amount in 1..=80 {
        deposit(store, amount).await;
    }
    let (folds, shutdown) = (Arc::new(AtomicU64::new(0)), CancellationToken::new());
    let mut workers = JoinSet::new();
    for _ in 0..3 {
        let (projection, shutdown) =
            (Ponderous { each: Duration::from_millis(50), folds: folds.clone() }, shutdown.clone());
        let worker = Projector::new(projection, LogSource::new(store.clone()), store.clone()).lease(LEASE);
        workers.spawn(async move { worker.run(shutdown).await });
    }
    assert_equals_the_fold(Ponderous { each: Duration::ZERO, folds: Arc::default() }, store).await;
    shutdown.cancel();
    for stopped in workers.join_all().await {
        stopped.expect("it stops in order");
    }
    assert_eq!(folds.load(Ordering::Relaxed), 80);
}

/// Blocks the thread of its runtime from the beginning of each fold until the test lets it go.
#[derive(Debug, Clone, Default)]
struct Blocked(Arc<(Mutex<Stage>, Condvar)>);

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Stage {
    #[default]
    Waiting,
    Folding,
    Released,
}

impl Blocked {
    fn advance(&self, stage: Stage) {
        *self.0.0.lock().expect("no panic under it") = stage;
        self.0.1.notify_all();
    }

    fn wait_for(&self, stage: Stage) {
        let now = self.0.0.lock().expect("no panic under it");
        drop(self.0.1.wait_while(now, |now| *now != stage).expect("no panic under it"));
    }
}

impl Projection for Blocked {
    const NAME: &'static str = "blocked";
    type Event = AccountEvent;
    type Document = u64;

    fn keys(&self, _: &Recorded<AccountEvent>) -> Keys {
        Keys::one("all")
    }

    fn fold(&self, folds: &mut Option<u64>, _: &Recorded<AccountEvent>) -> FoldResult {
        self.advance(Stage::Folding);
        self.wait_for(Stage::Released);
        *folds.get_or_insert_default() += 1;
        Ok(())
    }
}

/// One call of `fold` blocks the only thread of its runtime for longer than the lease lasts, so nothing else of that runtime
/// runs. Seen to fail where a task of the application renewed the lease.
pub async fn a_slow_event_keeps_its_lease(store: &impl Store) {
    deposit(store, 1).await;
    let (projection, shutdown) = (Blocked::default(), CancellationToken::new());
    let worker = Projector::new(projection.clone(), LogSource::new(store.clone()), store.clone()).lease(LEASE);
    let folding = thread::spawn({
        let shutdown = shutdown.clone();
        move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(worker.run(shutdown))
        }
    });
    let begun = tokio::task::spawn_blocking({
        let projection = projection.clone();
        move || projection.wait_for(Stage::Folding)
    });
    begun.await.expect("it folds");
    assert_it_is_kept(store, Blocked::NAME).await;
    projection.advance(Stage::Released);
    while store.reached(Blocked::NAME).await.expect("asked") == Position::ZERO {
        tokio::task::yield_now().await;
    }
    shutdown.cancel();
    let stopped = tokio::task::spawn_blocking(|| folding.join()).await.expect("no panic").expect("no panic");
    stopped.expect("it stops in order");
}

/// Reacts only when the test allows it.
#[derive(Debug)]
struct Slow {
    begun: Arc<Semaphore>,
    gate: Arc<Semaphore>,
}

#[async_trait]
impl Policy for Slow {
    const NAME: &'static str = "slow";
    type Event = AccountEvent;

    async fn react(&self, _: &Recorded<AccountEvent>) -> Result<(), PolicyError> {
        self.begun.add_permits(1);
        self.gate.acquire().await.map_err(|closed| PolicyError::Permanent(closed.into()))?.forget();
        Ok(())
    }
}

/// For several times the length of its lease.
pub async fn a_slow_reaction_keeps_its_lease(store: &impl Store) {
    deposit(store, 1).await;
    let (begun, gate) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
    let shutdown = CancellationToken::new();
    let policy = Slow { begun: begun.clone(), gate: gate.clone() };
    let runner = PolicyRunner::new(policy, source(store), store.clone()).lease(LEASE);
    let worker = tokio::spawn({
        let shutdown = shutdown.clone();
        async move { runner.run(shutdown).await }
    });
    begun.acquire().await.expect("open").forget();
    assert_it_is_kept(store, Slow::NAME).await;
    gate.add_permits(1);
    while store.reached(Slow::NAME).await.expect("asked") == Position::ZERO {
        tokio::task::yield_now().await;
    }
    shutdown.cancel();
    worker.await.expect("no panic").expect("it stops in order");
}
