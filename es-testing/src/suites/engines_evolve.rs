//! Projectors, policies and reads while code of several versions runs, on every store.

use std::time::Duration;

use async_trait::async_trait;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::{
    engines_failures::act,
    engines_project::{
        LEDGER, PATIENCE, Store, assert_equals_the_fold, deposit, load, projector, read_model, source, spawn,
    },
    standby::{Idle, RETRY, idle, until_standing_by, until_working},
};
use es_core::{
    ActError, EngineError, FoldResult, Generation, KeyRange, Keys, LogSource, Policy, PolicyError, PolicyRunner,
    Position, Projection, Projector, QueryError, ReadToken, Recorded,
    backend::{
        Batch, Checkpoint, Delivery, EventFeed, EventSource, GenerationSet, Shard, SourceError, Subscription, Takeover,
    },
    testing::account::{AccountEvent, Histories, Ledger, LedgerPage},
};

async fn generations(store: &impl Store) -> GenerationSet {
    store.generations(Ledger::<1>::NAME).await.expect("asked")
}

async fn until_serving(store: &impl Store, version: u32) {
    while generations(store).await.serving.is_none_or(|serving| serving.generation.version != version) {
        tokio::task::yield_now().await;
    }
}

#[track_caller]
fn other_version<T: std::fmt::Debug>(outcome: Result<T, QueryError>, versions: (u32, u32)) {
    match outcome {
        Err(QueryError::OtherVersion { serving, ours, .. }) => assert_eq!((serving, ours), versions),
        other => panic!("expected another version, got {other:?}"),
    }
}

/// R12 in a rolling deploy: the worker of the old program does not end, and its reads return neither `None` nor `Ok`.
pub async fn r12_a_new_version_is_rebuilt_beside_the_old_one(store: &impl Store) {
    let shutdown = CancellationToken::new();
    let first = projector(Ledger::<1>::default(), store).standby(RETRY);
    let mut first_state = first.state();
    let first = spawn(first, &shutdown);
    load(store, 5).join_all().await;
    assert_equals_the_fold(Ledger::<1>::default(), store).await;
    let new = read_model::<Ledger<2>>(store);
    other_version(new.get("all").await, (1, 2));
    let waiting = tokio::spawn({
        let new = new.clone().patience(PATIENCE);
        async move { new.get("all").await }
    });
    let second = spawn(projector(Ledger::<2>::default(), store), &shutdown);
    let page = waiting.await.expect("no panic").expect("it waits for its version").expect("it is there");
    assert_eq!(page.balance, Some(50));
    let token = deposit(store, 1).await;
    new.wait_for(token, PATIENCE).await.expect("it catches up");
    assert_equals_the_fold(Ledger::<2>::default(), store).await;
    let old = read_model::<Ledger<1>>(store);
    other_version(old.get("all").await, (2, 1));
    other_version(old.scan(KeyRange::default(), 10).await, (2, 1));
    other_version(old.reached().await, (2, 1));
    other_version(old.wait_for(token, Duration::from_millis(1)).await, (2, 1));
    let reason = until_standing_by(&mut first_state).await;
    assert!(reason.contains("version 2"), "{reason}");
    assert!(!first.is_finished(), "it stands by");
    shutdown.cancel();
    first.await.expect("no panic").expect("it stops in order");
    second.await.expect("no panic").expect("it stops in order");
}

/// R12: a read model that is new on an existing log is complete or does not serve yet.
pub async fn r12_a_new_read_model_does_not_serve_before_it_has_caught_up(store: &impl Store) {
    let model = read_model::<Ledger>(store);
    let building = async || match model.get("all").await {
        Err(QueryError::Building { reached, .. }) => reached,
        other => panic!("it is not complete, got {other:?}"),
    };
    assert_eq!(building().await, Position::ZERO);
    load(store, 5).join_all().await;
    let shutdown = CancellationToken::new();
    let endless = Endless(source(store));
    let worker = Projector::new(Ledger::<1>::default(), endless, store.clone());
    let worker = spawn(worker, &shutdown);
    // It has all events, but the worker does not know yet that there are no more.
    while building().await < Position::new(50) {
        tokio::task::yield_now().await;
    }
    assert!(matches!(model.scan(KeyRange::default(), 10).await, Err(QueryError::Building { .. })));
    assert!(matches!(model.reached().await, Err(QueryError::Building { .. })));
    let waited = model.wait_for(ReadToken(Position::new(1)), Duration::ZERO).await;
    assert!(matches!(waited, Err(QueryError::Building { .. })), "{waited:?}");
    shutdown.cancel();
    worker.await.expect("no panic").expect("it stops in order");
    let shutdown = CancellationToken::new();
    let worker = spawn(projector(Ledger::<1>::default(), store), &shutdown);
    assert_equals_the_fold(Ledger::<1>::default(), store).await;
    shutdown.cancel();
    worker.await.expect("no panic").expect("it stops in order");
}

/// The ledger of version 2, which can read the documents of version 1.
#[derive(Debug)]
struct Compatible;

impl Projection for Compatible {
    const NAME: &'static str = Ledger::<2>::NAME;
    const VERSION: u32 = 2;
    const READS_SINCE: u32 = 1;
    type Event = AccountEvent;
    type Document = LedgerPage;

    fn keys(&self, event: &Recorded<AccountEvent>) -> Keys {
        Ledger::<2>::default().keys(event)
    }

    fn fold(&self, page: &mut Option<LedgerPage>, event: &Recorded<AccountEvent>) -> FoldResult {
        Ledger::<2>::default().fold(page, event)
    }
}

/// R12: the version is raised in the only process, and no read fails.
pub async fn r12_reads_continue_where_the_new_code_reads_the_old_documents(store: &impl Store) {
    load(store, 5).join_all().await;
    projector(Ledger::<1>::default(), store).rebuild(CancellationToken::new()).await.expect("rebuilt");
    let model = read_model::<Compatible>(store);
    let token = deposit(store, 1).await;
    assert!(matches!(model.wait_for(token, Duration::ZERO).await, Err(QueryError::Lagging { .. })));
    let shutdown = CancellationToken::new();
    let worker = spawn(projector(Compatible, store), &shutdown);
    loop {
        let page = model.get("all").await.expect("no read fails").expect("it is there");
        assert!(page.positions.len() >= 50);
        if page.balance.is_some() {
            break;
        }
    }
    model.wait_for(token, PATIENCE).await.expect("it has caught up");
    shutdown.cancel();
    worker.await.expect("no panic").expect("it stops in order");
}

/// R12: a deploy is rolled back and later repeated.
pub async fn r12_an_older_version_serves_again_on_purpose(store: &impl Store) {
    load(store, 2).join_all().await;
    let shutdown = CancellationToken::new();
    let (first, second) = (projector(Ledger::<1>::default(), store), projector(Ledger::<2>::default(), store));
    let (first, second) = (first.standby(RETRY), second.standby(RETRY));
    let (mut first_state, mut second_state) = (first.state(), second.state());
    let second = spawn(second, &shutdown);
    until_serving(store, 2).await;
    let first = spawn(first, &shutdown);
    until_standing_by(&mut first_state).await;

    let back = projector(Ledger::<1>::default(), store).rebuild(shutdown.clone()).await.expect("rebuilt");
    assert_eq!(back.expect("it was not interrupted").version, 1);
    let reason = until_standing_by(&mut second_state).await;
    assert!(reason.contains("version 2 was withdrawn"), "{reason}");
    until_working(&mut first_state).await;
    deposit(store, 1).await;
    assert_equals_the_fold(Ledger::<1>::default(), store).await;
    // Another rebuild of the older version withdraws the newer one too.
    projector(Ledger::<1>::default(), store).rebuild(shutdown.clone()).await.expect("rebuilt");
    tokio::time::sleep(RETRY * 5).await;
    let found = generations(store).await;
    assert_eq!((found.withdrawn, found.building), (2, None), "the newer version is not rebuilt unasked");
    assert_equals_the_fold(Ledger::<1>::default(), store).await;

    projector(Ledger::<2>::default(), store).rebuild(shutdown.clone()).await.expect("rebuilt");
    until_working(&mut second_state).await;
    until_standing_by(&mut first_state).await;
    deposit(store, 1).await;
    assert_equals_the_fold(Ledger::<2>::default(), store).await;
    shutdown.cancel();
    for worker in [first, second] {
        worker.await.expect("no panic").expect("it stops in order");
    }
}

/// A log that never ends: it delivers nothing after the first event.
#[derive(Debug)]
struct Endless(LogSource);

#[derive(Debug)]
struct EndlessFeed(Box<dyn EventFeed>);

#[async_trait]
impl EventSource for Endless {
    async fn open(&self, subscription: &Subscription) -> Result<Box<dyn EventFeed>, SourceError> {
        Ok(Box::new(EndlessFeed(self.0.open(subscription).await?)))
    }
}

#[async_trait]
impl EventFeed for EndlessFeed {
    fn shards(&self) -> Vec<Shard> {
        self.0.shards()
    }

    fn takeover(&self) -> Takeover {
        self.0.takeover()
    }

    async fn next(&mut self) -> Result<Delivery, SourceError> {
        Ok(match self.0.next().await? {
            Delivery::Batch(batch) => Delivery::Batch(Batch { end: None, ..batch }),
            other => other,
        })
    }

    async fn start(&mut self, shard: &Shard, checkpoint: &Checkpoint) -> Result<(), SourceError> {
        self.0.start(shard, checkpoint).await
    }
}

/// R12: two rebuilds do not discard each other's work without end. (Seen to fail if each attempt of a rebuild starts from
/// the beginning: the earlier one never ends.)
pub async fn r12_the_later_of_two_rebuilds_wins(store: &impl Store) {
    load(store, 2).join_all().await;
    projector(Ledger::<2>::default(), store).rebuild(CancellationToken::new()).await.expect("rebuilt");
    let endless = Endless(source(store));
    let earlier = Projector::new(Ledger::<1>::default(), endless, store.clone());
    let earlier = earlier.lease(Duration::from_millis(100));
    let earlier = tokio::spawn(async move { earlier.rebuild(CancellationToken::new()).await });
    while generations(store).await.building.is_none_or(|building| building.reached == Position::ZERO) {
        assert!(!earlier.is_finished(), "it replaces a newer version");
        tokio::task::yield_now().await;
    }
    let later = projector(Ledger::<2>::default(), store).rebuild(CancellationToken::new()).await.expect("rebuilt");
    let error = tokio::time::timeout(PATIENCE, earlier).await.expect("it ends").expect("no panic");
    assert!(matches!(error, Err(EngineError::Discarded)), "{error:?}");
    let found = generations(store).await;
    assert_eq!((found.serving.map(|serving| serving.generation), found.building), (later, None));
}

/// R12: pages of one scan, with a promotion between them.
pub async fn r12_all_pages_of_a_scan_are_of_one_generation(store: &impl Store) {
    load(store, 2).join_all().await;
    let rebuild = async || {
        projector(Histories, store).rebuild(CancellationToken::new()).await.expect("rebuilt");
    };
    rebuild().await;
    let model = read_model::<Histories>(store);
    let first = model.scan(KeyRange::default(), 4).await.expect("a page");
    let second = model.scan(KeyRange::default().resume(first.next.clone().expect("there is more")), 4).await;
    let second = second.expect("a page");
    let third = model.scan(KeyRange::default().resume(second.next.expect("there is more")), 4).await.expect("a page");
    assert_eq!((third.documents.len(), third.next), (2, None));
    let keys = [first.documents, second.documents, third.documents].concat().into_iter().map(|(key, _)| key);
    assert_eq!(keys.collect::<Vec<_>>(), (0..10).map(|number| format!("a{number}")).collect::<Vec<_>>());
    let exactly = model.scan(KeyRange::default(), 10).await.expect("a page");
    assert_eq!((exactly.documents.len(), exactly.next), (10, None));
    rebuild().await;
    let resumed = model.scan(KeyRange::default().resume(first.next.expect("there is more")), 4).await;
    assert!(matches!(resumed, Err(QueryError::Replaced { .. })), "{resumed:?}");
}

/// R13, while other generations are promoted.
///
/// Seen to fail (in memory) if a separate call looks up the serving generation: `reached` was 0.
pub async fn r13_reached_never_falls_while_generations_are_promoted(store: &impl Store) {
    load(store, 1).join_all().await;
    let token = ReadToken(store.head().await.expect("a head"));
    projector(Ledger::<1>::default(), store).rebuild(CancellationToken::new()).await.expect("rebuilt");
    let done = CancellationToken::new();
    let readers: Vec<_> = (0..2)
        .map(|_| {
            let (model, done) = (read_model::<Ledger>(store), done.clone());
            tokio::spawn(async move {
                while !done.is_cancelled() {
                    assert_eq!(model.reached().await.expect("it serves"), token.0);
                    model.wait_for(token, Duration::ZERO).await.expect("it is there");
                    tokio::task::yield_now().await;
                }
            })
        })
        .collect();
    for _ in 0..15 {
        projector(Ledger::<1>::default(), store).rebuild(CancellationToken::new()).await.expect("rebuilt");
    }
    done.cancel();
    for reader in readers {
        reader.await.expect("it never fell");
    }
}

mod namesake {
    //! Other readers with the names of [`super::Ledger`] and [`super::Idle`].

    use async_trait::async_trait;

    use super::{AccountEvent, FoldResult, Keys, Policy, PolicyError, Projection, Recorded};

    #[derive(Debug)]
    pub(super) struct Count<const V: u32>;

    impl<const V: u32> Projection for Count<V> {
        /// The third has the name of the policy.
        const NAME: &'static str = if V == 3 { super::Idle::NAME } else { super::Ledger::<1>::NAME };
        const VERSION: u32 = V;
        type Event = AccountEvent;
        type Document = u64;

        fn keys(&self, _: &Recorded<AccountEvent>) -> Keys {
            Keys::one("all")
        }

        fn fold(&self, count: &mut Option<u64>, _: &Recorded<AccountEvent>) -> FoldResult {
            *count.get_or_insert_default() += 1;
            Ok(())
        }
    }

    #[derive(Debug)]
    pub(super) struct Watch<const N: usize>;

    #[async_trait]
    impl<const N: usize> Policy for Watch<N> {
        const NAME: &'static str = [super::Ledger::<1>::NAME, super::Idle::NAME, super::Idle::NAME][N];
        type Event = AccountEvent;

        fn identity() -> &'static str {
            // The last of them is the former `Idle` after it was renamed.
            if N == 2 { "Idle" } else { "Watch" }
        }

        async fn react(&self, _: &Recorded<AccountEvent>) -> Result<(), PolicyError> {
            Ok(())
        }
    }
}

async fn refused<T: std::fmt::Debug>(run: impl Future<Output = Result<T, EngineError>>, definitions: (&str, &str)) {
    match tokio::time::timeout(PATIENCE, run).await.expect("it ends") {
        Err(EngineError::OtherDefinition { stored, ours, .. }) => {
            assert_eq!((stored.as_str(), ours.as_str()), definitions);
        }
        other => panic!("expected to be refused, got {other:?}"),
    }
}

/// The second of two definitions would continue with what the first has folded.
pub async fn a_name_belongs_to_one_projection_or_policy(store: &impl Store) {
    let count = "projection Count of account in per-key order";
    deposit(store, 1).await;
    let forever = CancellationToken::new;
    projector(Ledger::<1>::default(), store).rebuild(forever()).await.expect("rebuilt");
    refused(projector(namesake::Count::<1>, store).run(forever()), (LEDGER, count)).await;
    refused(projector(namesake::Count::<1>, store).rebuild(forever()), (LEDGER, count)).await;
    refused(idle(namesake::Watch::<0>, store).run(forever()), (LEDGER, "policy Watch")).await;
    assert_equals_the_fold(Ledger::<1>::default(), store).await;
    // After a change of its definition, a projection needs a higher version.
    projector(namesake::Count::<2>, store).rebuild(forever()).await.expect("rebuilt");
    assert_equals_the_fold(namesake::Count::<2>, store).await;

    follow(idle(Idle, store), store).await;
    refused(idle(namesake::Watch::<1>, store).run(forever()), ("policy Idle", "policy Watch")).await;
    refused(projector(namesake::Count::<3>, store).run(forever()), ("policy Idle", count)).await;
    refused(projector(namesake::Count::<3>, store).rebuild(forever()), ("policy Idle", count)).await;
    follow(idle(namesake::Watch::<2>, store), store).await;
}

/// Runs a policy with the name `idle` until it has reached the end of the log.
async fn follow<P: Policy>(runner: PolicyRunner<P>, store: &impl Store) {
    let token = deposit(store, 1).await;
    let shutdown = CancellationToken::new();
    let stop = async {
        while store.reached(Idle::NAME).await.expect("asked") < token.0 {
            tokio::task::yield_now().await;
        }
        shutdown.cancel();
    };
    let (ran, stopped) = tokio::join!(runner.run(shutdown.clone()), tokio::time::timeout(PATIENCE, stop));
    ran.expect("it stops in order");
    stopped.expect("in time");
}

/// A rebuild that has begun and waits, since its reader is paused.
async fn paused_rebuild(store: &impl Store) -> JoinHandle<Result<Option<Generation>, EngineError>> {
    store.pause(Histories::NAME, &act()).await.expect("paused");
    let worker = projector(Histories, store);
    let rebuilding = tokio::spawn(async move { worker.rebuild(CancellationToken::new()).await });
    while store.generations(Histories::NAME).await.expect("asked").building.is_none() {
        tokio::task::yield_now().await;
    }
    rebuilding
}

/// R22: a rebuild waits while its reader is paused, and ends when an operator cancels it; the old generation serves.
pub async fn r22_a_rebuild_can_be_paused_and_cancelled(store: &impl Store) {
    projector(Histories, store).rebuild(CancellationToken::new()).await.expect("rebuilt").expect("not interrupted");
    deposit(store, 1).await;
    let rebuilding = paused_rebuild(store).await;
    store.resume(Histories::NAME, &act()).await.expect("resumed");
    let rebuilt = rebuilding.await.expect("no panic").expect("rebuilt").expect("not interrupted");
    let rebuilding = paused_rebuild(store).await;
    // One that has just begun looks for its generation again, and begins another.
    while !rebuilding.is_finished() {
        let cancelled = store.cancel_rebuild(Histories::NAME, &act()).await;
        assert!(matches!(cancelled, Ok(()) | Err(ActError::NotBuilding(_))), "{cancelled:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let cancelled = rebuilding.await.expect("no panic");
    assert!(matches!(cancelled, Err(EngineError::Discarded)), "{cancelled:?}");
    let left = store.generations(Histories::NAME).await.expect("asked");
    assert_eq!(left.iter().map(|progress| progress.generation.clone()).collect::<Vec<_>>(), [rebuilt]);
}
