//! Projectors, rebuilds and policies, on every store.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use es_core::{
    EngineError, FoldResult, KeyRange, Keys, LogSource, Position, Projection, Projector, QueryError, ReadModel,
    ReadToken, Recorded, Repository, Throttle,
    backend::{
        AggregateStore, Batch, Checkpoint, Delivery, EventFeed, EventSource, GenerationState, ReadModelStore, Shard,
        SourceError, Subscription, Takeover,
    },
    testing::{
        account::{Account, AccountCommand, AccountEvent, Histories, Ledger, Turnover},
        project,
    },
};
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;

/// How long a read waits for its write. Only a failing test waits this long.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

/// The definition of [`Ledger`].
pub(super) const LEDGER: &str = "projection Ledger of account in per-key order";

/// All three ports in one.
pub trait Store: AggregateStore + ReadModelStore + Clone {}
impl<S: AggregateStore + ReadModelStore + Clone> Store for S {}

pub(super) fn source(store: &impl Store) -> LogSource {
    // Small batches, so that a test has many of them.
    LogSource::new(store.clone()).batch(7)
}

pub(super) fn projector<P: Projection>(projection: P, store: &impl Store) -> Projector<P> {
    Projector::new(projection, source(store), store.clone()).lease(Duration::from_millis(100))
}

pub(super) fn read_model<P: Projection>(store: &impl Store) -> ReadModel<P> {
    ReadModel::new(store.clone())
}

pub(super) type Running = JoinHandle<Result<(), EngineError>>;

pub(super) fn spawn<P: Projection>(projector: Projector<P>, shutdown: &CancellationToken) -> Running {
    let shutdown = shutdown.clone();
    tokio::spawn(async move { projector.run(shutdown).await })
}

/// Ten clients make deposits on ten accounts.
pub(super) fn load(store: &impl Store, each: u64) -> JoinSet<()> {
    let accounts = Repository::<Account>::new(store.clone()).attempts(1_000);
    let mut clients = JoinSet::new();
    for client in 0..10 {
        let accounts = accounts.clone();
        clients.spawn(async move {
            for number in 0..each {
                let id = format!("a{}", (client + number) % 10);
                accounts.execute(&id, AccountCommand::Deposit(1)).await.expect("executed");
            }
        });
    }
    clients
}

pub(super) async fn deposit(store: &impl Store, amount: u64) -> ReadToken {
    let accounts = Repository::<Account>::new(store.clone());
    accounts.execute("a", AccountCommand::Deposit(amount)).await.expect("executed").token
}

/// Waits for the read model and compares it with the fold of the log.
pub(super) async fn assert_equals_the_fold<P: Projection>(projection: P, store: &impl Store)
where
    P::Document: PartialEq + std::fmt::Debug,
{
    let head = store.head().await.expect("a head");
    let model = read_model::<P>(store);
    model.wait_for(ReadToken(head), PATIENCE).await.expect("it catches up");
    let log = store.read_log(Position::ZERO, 100_000).await.expect("the log");
    let truth: Vec<_> = project(&projection, &log).expect("the fold").into_iter().collect();
    assert_eq!(model.scan(KeyRange::default(), 100_000).await.expect("a scan").documents, truth);
}

/// R9
pub async fn r9_killed_workers_leave_the_fold_of_the_log(store: &impl Store) {
    let clients = load(store, 30);
    let shutdown = CancellationToken::new();
    let start = || {
        [
            spawn(projector(Histories, store), &shutdown),
            spawn(projector(Ledger::<1>::default(), store), &shutdown),
            spawn(projector(Ledger::<1>::default(), store), &shutdown),
        ]
    };
    let mut workers = Vec::from(start());
    let ledger = read_model::<Ledger>(store);
    for quarter in 1..=3 {
        // Dropped at any point, as soon as they have folded another quarter of the log.
        ledger.wait_for(ReadToken(Position::new(quarter * 75)), PATIENCE).await.expect("they make progress");
        workers.drain(..).for_each(|worker| worker.abort());
        workers.extend(start());
    }
    clients.join_all().await;
    assert_equals_the_fold(Histories, store).await;
    assert_equals_the_fold(Ledger::<1>::default(), store).await;
    shutdown.cancel();
    for worker in workers {
        worker.await.expect("no panic").expect("it stops in order");
    }
}

/// R9: the reference fold must not count the event twice either, or both would agree on a wrong sum.
pub async fn r9_a_document_that_is_named_twice_sees_the_event_once(store: &impl Store) {
    for amount in [1, 10, 100] {
        deposit(store, amount).await;
    }
    let shutdown = CancellationToken::new();
    let worker = spawn(projector(Turnover, store), &shutdown);
    assert_equals_the_fold(Turnover, store).await;
    let model = read_model::<Turnover>(store);
    for key in ["a", "all"] {
        assert_eq!(model.get(key).await.expect("a read"), Some(111));
    }
    shutdown.cancel();
    worker.await.expect("no panic").expect("it stops in order");
}

/// Keeps the balances that are not 0.
pub(super) struct Funded;

impl Projection for Funded {
    const NAME: &'static str = "funded";
    type Event = AccountEvent;
    type Document = u64;

    fn keys(&self, event: &Recorded<AccountEvent>) -> Keys {
        Keys::one(event.stream.id())
    }

    fn fold(&self, balance: &mut Option<u64>, event: &Recorded<AccountEvent>) -> FoldResult {
        let known = balance.unwrap_or_default();
        let now = match event.data {
            AccountEvent::Deposited { amount } => known + amount,
            AccountEvent::Withdrawn { amount } => known - amount,
        };
        *balance = Some(now).filter(|now| *now > 0);
        Ok(())
    }
}

/// Seen to fail where a commit leaves out the documents that were removed.
pub async fn r9_a_document_that_the_projection_removes_is_gone(store: &impl Store) {
    let shutdown = CancellationToken::new();
    let worker = spawn(projector(Funded, store), &shutdown);
    let (accounts, model) = (Repository::<Account>::new(store.clone()), read_model::<Funded>(store));
    for (command, expected) in [
        (AccountCommand::Deposit(5), Some(5)),
        (AccountCommand::Withdraw(5), None),
        (AccountCommand::Deposit(2), Some(2)),
    ] {
        let token = accounts.execute("a", command).await.expect("executed").token;
        model.wait_for(token, PATIENCE).await.expect("it is folded");
        assert_eq!(model.get("a").await.expect("a read"), expected);
    }
    assert_equals_the_fold(Funded, store).await;
    shutdown.cancel();
    worker.await.expect("no panic").expect("it stops in order");
}

/// The log under another name: for checkpoints this is another source.
#[derive(Debug)]
pub(super) struct Copy(pub(super) LogSource);

#[derive(Debug)]
struct CopyFeed(Box<dyn EventFeed>);

fn copied() -> Shard {
    Shard::from("copy")
}

#[async_trait]
impl EventSource for Copy {
    async fn open(&self, subscription: &Subscription) -> Result<Box<dyn EventFeed>, SourceError> {
        Ok(Box::new(CopyFeed(self.0.open(subscription).await?)))
    }
}

#[async_trait]
impl EventFeed for CopyFeed {
    fn shards(&self) -> Vec<Shard> {
        vec![copied()]
    }

    fn takeover(&self) -> Takeover {
        self.0.takeover()
    }

    async fn next(&mut self) -> Result<Delivery, SourceError> {
        Ok(match self.0.next().await? {
            Delivery::Assigned(_) => Delivery::Assigned(self.shards()),
            Delivery::Batch(batch) => Delivery::Batch(Batch { shard: copied(), ..batch }),
            other => other,
        })
    }

    async fn start(&mut self, _: &Shard, checkpoint: &Checkpoint) -> Result<(), SourceError> {
        self.0.start(&LogSource::shard(), checkpoint).await
    }
}

/// R9
pub async fn r9_a_change_of_source_folds_nothing_twice(store: &impl Store) {
    let sources: [Arc<dyn EventSource>; 2] = [Arc::new(source(store)), Arc::new(Copy(source(store)))];
    for round in 0..4 {
        load(store, 2).join_all().await;
        let shutdown = CancellationToken::new();
        let projector = Projector::new(Ledger::<1>::default(), sources[round % 2].clone(), store.clone());
        let worker = spawn(projector, &shutdown);
        assert_equals_the_fold(Ledger::<1>::default(), store).await;
        shutdown.cancel();
        worker.await.expect("no panic").expect("it stops in order");
    }
}

/// R11
pub async fn r11_an_event_that_cannot_be_folded_stops_the_projector_before_it(store: &impl Store) {
    for amount in [1, 2, 666, 3] {
        deposit(store, amount).await;
    }
    let one_by_one = LogSource::new(store.clone()).batch(1);
    let read_models: Arc<dyn ReadModelStore> = Arc::new(store.clone());
    let poisoned = Projector::new(Ledger::<1> { poison: Some(666) }, one_by_one.clone(), read_models.clone());
    let error = poisoned.run(CancellationToken::new()).await.expect_err("it stops");
    match &error {
        EngineError::Unfoldable { key, event, .. } => {
            assert_eq!((key.as_str(), event.position, event.event.as_str()), ("all", Position::new(3), "account-a@3"));
        }
        other => panic!("expected the poison, got {other:?}"),
    }
    match read_model::<Ledger>(store).reached().await {
        Err(QueryError::Building { reached, .. }) => assert_eq!(reached, Position::new(2)),
        other => panic!("half of it does not serve, got {other:?}"),
    }
    // Corrected code continues with the event at which the projector stopped.
    let shutdown = CancellationToken::new();
    let corrected = spawn(Projector::new(Ledger::<1>::default(), one_by_one, read_models), &shutdown);
    assert_equals_the_fold(Ledger::<1>::default(), store).await;
    shutdown.cancel();
    corrected.await.expect("no panic").expect("it stops in order");
}

/// R12
pub async fn r12_a_rebuild_under_load_ends_equal_to_the_fold_of_the_log(store: &impl Store) {
    let shutdown = CancellationToken::new();
    let serving = spawn(projector(Ledger::<1>::default(), store), &shutdown);
    load(store, 10).join_all().await;
    assert_equals_the_fold(Ledger::<1>::default(), store).await;
    let before = store
        .generations(Ledger::<1>::NAME)
        .await
        .expect("asked")
        .serving
        .map(|serving| serving.generation)
        .expect("one serves");

    let clients = load(store, 30);
    let watcher = tokio::spawn({
        let (model, shutdown) = (read_model::<Ledger>(store), shutdown.clone());
        async move {
            let mut seen = 0;
            while !shutdown.is_cancelled() {
                let page = model.get("all").await.expect("a read").expect("it never goes away");
                assert!(page.positions.len() >= seen, "readers never go back in time");
                seen = page.positions.len();
                tokio::task::yield_now().await;
            }
        }
    });
    let rebuilt = projector(Ledger::<1>::default(), store).rebuild(shutdown.clone()).await.expect("rebuilt");
    assert_ne!(rebuilt.expect("it was not interrupted").reader, before.reader);
    clients.join_all().await;
    // The worker of the old generation was fenced and follows the new one.
    assert_equals_the_fold(Ledger::<1>::default(), store).await;
    shutdown.cancel();
    watcher.await.expect("the reader was content");
    serving.await.expect("no panic").expect("it stops in order");
}

/// R12: no append is as fast as this throttle asks for, so the rebuild gets the least part of the time, under writers too.
pub async fn r12_a_throttled_rebuild_goes_on_and_ends_equal_to_the_fold_of_the_log(store: &impl Store) {
    load(store, 4).join_all().await;
    let clients = load(store, 2);
    let throttle = Throttle::keeping(Duration::ZERO, store.clone());
    let projector = projector(Histories, store).throttle(throttle.clone());
    // The last one is slow throughout.
    let mut is_slow = false;
    while !is_slow {
        is_slow = throttle.state().share < 0.1;
        projector.rebuild(CancellationToken::new()).await.expect("rebuilt").expect("it was not interrupted");
    }
    clients.join_all().await;
    assert_equals_the_fold(Histories, store).await;
}

/// R12: with no events, with one event less than a batch, a full batch, and one more.
pub async fn r12_a_rebuild_ends_wherever_the_log_does(store: &impl Store) {
    for more in [0, 6, 1, 1] {
        for _ in 0..more {
            deposit(store, 1).await;
        }
        let rebuilt = projector(Ledger::<1>::default(), store).rebuild(CancellationToken::new()).await;
        rebuilt.expect("rebuilt").expect("it was not interrupted");
        assert_equals_the_fold(Ledger::<1>::default(), store).await;
    }
}

/// R12: killed after a write, with documents in memory that are not written. Documents are written after each batch, after some
/// of them, and only at the end.
pub async fn r12_a_killed_rebuild_continues_after_its_last_write(store: &impl Store) {
    load(store, 20).join_all().await;
    for bytes in [100, 3_000, 1_000_000] {
        let mut killed_at = Position::ZERO;
        loop {
            let rebuilding = projector(Histories, store).document_bytes(bytes).lease(Duration::from_millis(100));
            let rebuilding = tokio::spawn(async move { rebuilding.rebuild(CancellationToken::new()).await });
            let reached = async || {
                let found = store.generations(Histories::NAME).await.expect("asked");
                found.building.map_or(Position::ZERO, |building| building.reached)
            };
            while !rebuilding.is_finished() && reached().await.get() <= killed_at.get() + 60 {
                tokio::task::yield_now().await;
            }
            if rebuilding.is_finished() {
                rebuilding.await.expect("no panic").expect("rebuilt").expect("it was not interrupted");
                break;
            }
            rebuilding.abort();
            let reached = reached().await;
            assert!(reached >= killed_at, "it continues");
            killed_at = reached;
        }
        assert_equals_the_fold(Histories, store).await;
    }
}

/// R12: the worker that waits for the lease of the other one ends when that one ends.
pub async fn r12_of_two_workers_that_rebuild_both_end(store: &impl Store) {
    load(store, 5).join_all().await;
    let rebuild = || {
        let rebuilding = projector(Ledger::<1>::default(), store);
        tokio::spawn(async move { rebuilding.rebuild(CancellationToken::new()).await })
    };
    for rebuilding in [rebuild(), rebuild()] {
        rebuilding.await.expect("no panic").expect("rebuilt").expect("it was not interrupted");
    }
    assert_equals_the_fold(Ledger::<1>::default(), store).await;
}

/// R12
pub async fn r12_an_interrupted_rebuild_continues(store: &impl Store) {
    load(store, 5).join_all().await;
    let poisoned = Ledger::<1> { poison: Some(666) };
    deposit(store, 666).await;
    projector(poisoned, store).rebuild(CancellationToken::new()).await.expect_err("it cannot pass the poison");
    let building = store.ensure_generation("ledger", 1, GenerationState::Building, LEDGER, &[]).await.expect("asked");
    let reached = store.generations("ledger").await.expect("asked").building.expect("it is there").reached;
    assert!(reached > Position::ZERO, "what was folded is kept");
    assert_eq!(store.generations("ledger").await.expect("asked").serving.map(|serving| serving.generation), None);
    let corrected = projector(Ledger::<1>::default(), store).rebuild(CancellationToken::new()).await.expect("rebuilt");
    assert_eq!(corrected, Some(building), "it continued with the same generation");
    assert_equals_the_fold(Ledger::<1>::default(), store).await;
}

/// R13
pub async fn r13_a_read_waits_for_its_write(store: &impl Store) {
    let model = read_model::<Ledger>(store);
    let token = deposit(store, 1).await;
    match model.wait_for(token, Duration::from_millis(1)).await {
        Err(QueryError::Building { reached, .. }) => assert_eq!(reached, Position::ZERO),
        other => panic!("no worker runs, got {other:?}"),
    }
    let shutdown = CancellationToken::new();
    let worker = spawn(projector(Ledger::<1>::default(), store), &shutdown);
    for amount in 1..20 {
        let token = deposit(store, amount).await;
        model.wait_for(token, PATIENCE).await.expect("it catches up");
        let page = model.get("all").await.expect("a read").expect("it is there");
        assert_eq!(page.positions.last(), Some(&token.0.get()), "its own write is in it");
    }
    shutdown.cancel();
    worker.await.expect("no panic").expect("it stops in order");
    let (before, token) = (model.reached().await.expect("it serves"), deposit(store, 1).await);
    match model.wait_for(token, Duration::from_millis(1)).await {
        Err(QueryError::Lagging { reached, wanted }) => assert_eq!((reached, wanted), (before, token.0)),
        other => panic!("no worker runs any more, got {other:?}"),
    }
}

/// R13: `Instant::now() + Duration::MAX` panics.
pub async fn r13_a_read_may_wait_without_end(store: &impl Store) {
    let (token, model) = (deposit(store, 1).await, read_model::<Ledger>(store).patience(Duration::MAX));
    let reader = tokio::spawn(async move {
        model.wait_for(token, Duration::MAX).await?;
        model.get("all").await
    });
    let shutdown = CancellationToken::new();
    let worker = spawn(projector(Ledger::<1>::default(), store), &shutdown);
    let page = reader.await.expect("no panic").expect("an answer").expect("it is there");
    assert_eq!(page.positions, [token.0.get()]);
    shutdown.cancel();
    worker.await.expect("no panic").expect("it stops in order");
}

/// R16
pub async fn r16_shutdown_hands_the_shards_over_at_once(store: &impl Store) {
    // Leases last an hour, so a successor can start only if they are released.
    for round in 1..=3 {
        let token = deposit(store, round).await;
        let shutdown = CancellationToken::new();
        let worker = spawn(projector(Ledger::<1>::default(), store).lease(Duration::from_hours(1)), &shutdown);
        read_model::<Ledger>(store).wait_for(token, PATIENCE).await.expect("it catches up");
        shutdown.cancel();
        let stopped = tokio::time::timeout(PATIENCE, worker).await.expect("in bounded time");
        stopped.expect("no panic").expect("it stops in order");
    }
}
