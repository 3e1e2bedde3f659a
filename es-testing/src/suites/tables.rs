//! Table projections, on every SQL store.

mod failures;
mod topic;

pub use failures::*;
pub use topic::*;

use std::{
    collections::BTreeSet,
    marker::PhantomData,
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::{
    engines_failures::{Fault, Faults, LIMIT, amount_of, deposit, eventually, stops},
    engines_project::{PATIENCE, Store, load},
};
use es_core::{
    Act, EngineError, EventStore, FailurePolicy, LogSource, MemoryStore, Operations, Position, QueryError, ReadToken,
    Recorded, Service, ServiceStore, TableProjection, TableProjector, Tables, Throttle,
    backend::{BoxError, CreateTablesError, GenerationState, Generations, TableReading, TableStore},
    read::refold::{Moment, RefoldError, WhatIf},
    service::{PartState, Parts, Unsettled},
    testing::account::{Account, AccountEvent},
};

/// Tests table projections on a store: `table_suite!(Fixture, async { … })` with a [`TableFixture`] and an expression that makes an
/// empty store.
#[macro_export]
macro_rules! table_suite {
    ($fixture:ty, $make:expr) => {
        $crate::table_suite! { $fixture, $make,
            r9_killed_workers_write_each_event_once
            r9_a_failed_batch_leaves_nothing
            r11_an_event_that_cannot_be_written_stops_the_projector_before_it
            r11_an_event_that_no_program_knows_in_time_stops_the_projector
            r11_tables_that_cannot_be_made_change_nothing
            r12_readings_see_one_generation_while_others_are_promoted
            r12_a_reading_lasts_across_a_promotion_and_its_next_page_is_told
            r12_a_raised_version_is_written_beside_the_one_that_serves
            r12_an_interrupted_rebuild_continues
            r12_a_build_that_is_throttled_ends
            r13_a_read_waits_for_its_write
            r13_a_service_has_not_settled_where_another_definition_keeps_its_tables
            r19_a_failing_event_holds_up_its_key_and_nothing_else
            r19_a_retry_writes_the_letters_of_a_key_once
            r19_an_event_that_is_written_at_the_last_attempt_is_not_parked
            r19_a_projector_stops_before_one_letter_too_many
            r9_a_message_that_its_producer_repeats_is_written_once
            r9_a_message_that_another_worker_has_handled_meanwhile_is_not_written
            r12_a_raised_version_of_a_topic_serves_when_it_has_what_the_one_has_that_serves
            r13_nothing_waits_for_tables_of_a_topic
            r14_a_message_that_could_not_be_read_is_written_once_when_it_can
            r14_messages_of_unknown_types_are_passed_over_or_parked_as_declared
            r19_a_message_that_cannot_be_written_holds_up_its_key_in_its_partition
            a_service_keeps_and_rebuilds_tables
            a_batch_is_handed_over_whole
            other_migrations_need_another_version
        }
    };
    ($fixture:ty, $make:expr, $($claim:ident)*) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $claim() {
                $crate::suites::tables::$claim::<$fixture>(&($make).await).await;
            }
        )*
    };
}

/// The SQL of a database for the suite: one table `entries`, whose key is the position.
#[async_trait]
pub trait TableFixture: Send + Sync + 'static {
    /// The store.
    type Store: Store + TableStore;

    /// Scripts that make the table; at least two.
    const MIGRATIONS: &'static [&'static str];

    /// Scripts of which the last one fails.
    const BROKEN: &'static [&'static str];

    /// Inserts `entries` with one statement, which fails if one of them is there.
    ///
    /// # Errors
    /// The database's.
    async fn insert(tables: &mut <Self::Store as TableStore>::Tables<'_>, entries: &[Entry]) -> Result<(), BoxError>;

    /// The entries after position `after`, in order of positions, at most `limit` of them.
    async fn entries(reading: &mut <Self::Store as TableStore>::Reading, after: i64, limit: i64) -> Vec<Entry>;

    /// How many tables of retired or discarded generations are left in the database of `store`.
    async fn remains(store: &Self::Store, projection: &str) -> usize;
}

/// A row.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry {
    /// The position of the event.
    pub position: i64,
    /// The account.
    pub account: String,
    /// The amount, times the version of the projection.
    pub amount: i64,
}

/// Enters the amount of each event, times the version.
struct Entries<F, const V: u32 = 1> {
    faults: Faults,
    /// A fault is gone once its event has failed alone.
    heals: bool,
    /// The sizes of the batches that were written.
    batches: Arc<Mutex<Vec<usize>>>,
    /// What is written waits until this one has measured how long appends take.
    throttle: Option<Throttle>,
    fixture: PhantomData<fn() -> F>,
}

impl<F, const V: u32> Default for Entries<F, V> {
    fn default() -> Self {
        Self { faults: Faults::default(), heals: false, batches: Arc::default(), throttle: None, fixture: PhantomData }
    }
}

#[async_trait]
impl<F: TableFixture, const V: u32> TableProjection<F::Store> for Entries<F, V> {
    const NAME: &'static str = "entries";
    const VERSION: u32 = V;
    const MIGRATIONS: &'static [&'static str] = F::MIGRATIONS;
    type Event = AccountEvent;

    async fn write(
        &self,
        tables: &mut <F::Store as TableStore>::Tables<'_>,
        events: &[Recorded<AccountEvent>],
    ) -> Result<(), BoxError> {
        self.batches.lock().expect("no panic under it").push(events.len());
        if let Some(throttle) = &self.throttle {
            let measured = async {
                while throttle.state().append_p99.is_none() {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            };
            tokio::time::timeout(PATIENCE, measured).await?;
        }
        let entries: Vec<_> = events.iter().map(|event| entry(event, V)).collect();
        // Before a fault, so that something is to be rolled back.
        F::insert(tables, &entries).await?;
        for event in events {
            let fault = self.faults.0.lock().expect("no panic under it").get(&amount_of(event)).copied();
            if self.heals && fault.is_some() && events.len() == 1 {
                self.faults.mend();
            }
            match fault {
                None => {}
                // The database refuses it.
                Some(Fault::Refuse) => F::insert(tables, &entries).await?,
                Some(Fault::Panic) => panic!("as the test wants it"),
                Some(Fault::Slow) => tokio::time::sleep(LIMIT * 20).await,
            }
        }
        Ok(())
    }
}

fn entry(event: &Recorded<AccountEvent>, version: u32) -> Entry {
    Entry {
        position: event.position.to_i64(),
        account: event.stream.id().to_owned(),
        amount: amount_of(event).cast_signed() * i64::from(version),
    }
}

/// Its tables cannot be made.
struct Broken<F>(PhantomData<fn() -> F>);

#[async_trait]
impl<F: TableFixture> TableProjection<F::Store> for Broken<F> {
    const NAME: &'static str = "entries";
    const VERSION: u32 = 2;
    const MIGRATIONS: &'static [&'static str] = F::BROKEN;
    type Event = AccountEvent;

    async fn write(
        &self,
        _: &mut <F::Store as TableStore>::Tables<'_>,
        _: &[Recorded<AccountEvent>],
    ) -> Result<(), BoxError> {
        Ok(())
    }
}

fn projector<F: TableFixture, const V: u32>(
    projection: Entries<F, V>,
    store: &F::Store,
) -> TableProjector<Entries<F, V>, F::Store> {
    // Small batches, so that a test has many of them.
    let source = LogSource::new(store.clone()).batch(7);
    TableProjector::new(projection, source, store.clone()).lease(Duration::from_millis(300))
}

fn tables<F: TableFixture, const V: u32>(store: &F::Store) -> Tables<Entries<F, V>, F::Store> {
    Tables::new(store.clone())
}

fn spawn<F: TableFixture, const V: u32>(
    projector: TableProjector<Entries<F, V>, F::Store>,
    shutdown: &CancellationToken,
) -> JoinHandle<Result<(), EngineError>> {
    let shutdown = shutdown.clone();
    tokio::spawn(async move { projector.run(shutdown).await })
}

/// Builds the tables from what the log holds.
async fn build<F: TableFixture, const V: u32>(store: &F::Store) {
    let built = projector(Entries::<F, V>::default(), store).rebuild(CancellationToken::new()).await;
    built.expect("rebuilt").expect("it was not interrupted");
}

async fn all<F: TableFixture, const V: u32>(store: &F::Store) -> Vec<Entry> {
    let mut reading = tables::<F, V>(store).read().await.expect("it serves");
    F::entries(&mut reading, 0, i64::MAX).await
}

/// What the log holds, without the entries at `left_out`.
async fn expected<F: TableFixture>(store: &F::Store, version: u32, left_out: &[i64]) -> Vec<Entry> {
    let log = store.read_log(Position::ZERO, 100_000).await.expect("the log");
    let events = log.iter().filter(|event| !left_out.contains(&event.position.to_i64()));
    events.map(|event| entry(&event.decode().expect("decoded").expect("an event of an account"), version)).collect()
}

async fn reaches<F: TableFixture, const V: u32>(store: &F::Store, position: Position) {
    tables::<F, V>(store).wait_for(ReadToken(position), PATIENCE).await.expect("it catches up");
}

/// R9: the key of a row is the position, so an event that is written twice is refused and stops the projector, and a lost one is
/// missed at the end.
pub async fn r9_killed_workers_write_each_event_once<F: TableFixture>(store: &F::Store) {
    let clients = load(store, 30);
    let shutdown = CancellationToken::new();
    let start = || [(); 3].map(|()| spawn(projector(Entries::<F>::default(), store), &shutdown));
    let mut workers = Vec::from(start());
    tables::<F, 1>(store).patience(PATIENCE).read().await.expect("it serves");
    for quarter in 1..=3 {
        reaches::<F, 1>(store, Position::new(quarter * 75)).await;
        workers.drain(..).for_each(|worker| worker.abort());
        workers.extend(start());
    }
    clients.join_all().await;
    reaches::<F, 1>(store, store.head().await.expect("a head")).await;
    assert_eq!(all::<F, 1>(store).await, expected::<F>(store, 1, &[]).await);
    shutdown.cancel();
    for worker in workers {
        worker.await.expect("no panic").expect("it stops in order");
    }
}

/// R11, R12: the error names the migration, nothing of it is left, and what serves goes on.
pub async fn r11_tables_that_cannot_be_made_change_nothing<F: TableFixture>(store: &F::Store) {
    let shutdown = CancellationToken::new();
    let running = spawn(projector(Entries::<F>::default(), store), &shutdown);
    let last = deposit(store, &[("a", 1)]).await;
    tables::<F, 1>(store).patience(PATIENCE).read().await.expect("it serves");
    let broken = TableProjector::new(Broken::<F>(PhantomData), LogSource::new(store.clone()), store.clone());
    for _ in 0..2 {
        match broken.run(CancellationToken::new()).await.expect_err("it stops") {
            EngineError::Tables(CreateTablesError::Migration { number, .. }) => assert_eq!(number, F::BROKEN.len()),
            other => panic!("expected a failed migration, got {other:?}"),
        }
    }
    let next = deposit(store, &[("a", 2)]).await;
    assert!(next > last);
    reaches::<F, 1>(store, next).await;
    assert_eq!(all::<F, 1>(store).await, expected::<F>(store, 1, &[]).await);
    assert_eq!(F::remains(store, "entries").await, 0);
    stops(running, &shutdown).await;
}

/// R12: while generations of two versions are promoted in turn, no reading fails, none sees entries of two of them, and none goes
/// back in time.
pub async fn r12_readings_see_one_generation_while_others_are_promoted<F: TableFixture>(store: &F::Store) {
    build::<F, 1>(store).await;
    for amount in 1..=20 {
        deposit(store, &[("a", amount)]).await;
    }
    build::<F, 1>(store).await;
    let done = CancellationToken::new();
    let readers: Vec<_> = (0..2)
        .map(|_| {
            let (store, done) = (store.clone(), done.clone());
            tokio::spawn(async move {
                let mut seen = BTreeSet::new();
                while !done.is_cancelled() {
                    let reading = match tables::<F, 2>(&store).read().await {
                        Ok(reading) => Ok(reading),
                        Err(QueryError::OtherVersion { .. }) => tables::<F, 1>(&store).read().await,
                        Err(other) => panic!("{other}"),
                    };
                    // Replaced in between by version 2.
                    let Ok(mut reading) = reading else { continue };
                    let version = i64::from(reading.generation().version);
                    let mut entries = F::entries(&mut reading, 0, 10).await;
                    tokio::task::yield_now().await;
                    entries.extend(F::entries(&mut reading, 10, 10).await);
                    let amounts: Vec<_> = entries.iter().map(|entry| entry.amount).collect();
                    assert_eq!(amounts, (1..=20).map(|amount| amount * version).collect::<Vec<_>>());
                    seen.insert(reading.generation().reader.id);
                }
                seen.len()
            })
        })
        .collect();
    for _ in 0..5 {
        build::<F, 2>(store).await;
        build::<F, 1>(store).await;
    }
    done.cancel();
    for reader in readers {
        assert!(reader.await.expect("no panic") > 1, "it has seen several generations");
    }
    eventually("the tables of replaced generations are dropped", async || {
        (F::remains(store, "entries").await == 0).then_some(())
    })
    .await;
}

/// R12: a reading that has begun goes on, and a page of a replaced generation is refused.
pub async fn r12_a_reading_lasts_across_a_promotion_and_its_next_page_is_told<F: TableFixture>(store: &F::Store) {
    deposit(store, &[("a", 1), ("a", 2)]).await;
    build::<F, 1>(store).await;
    let model = tables::<F, 1>(store);
    let mut reading = model.read().await.expect("it serves");
    let generation = reading.generation().reader.id;
    assert_eq!(F::entries(&mut reading, 0, 1).await[0].amount, 1);
    model.read_in(generation).await.expect("the same generation");
    build::<F, 1>(store).await;
    assert_eq!(F::entries(&mut reading, 1, 1).await[0].amount, 2);
    assert!(matches!(model.read_in(generation).await, Err(QueryError::Replaced { .. })));
    drop(reading);
    assert_eq!(all::<F, 1>(store).await.len(), 2);
}

/// R12: code of two versions at once, as in a rolling deploy.
pub async fn r12_a_raised_version_is_written_beside_the_one_that_serves<F: TableFixture>(store: &F::Store) {
    let shutdown = CancellationToken::new();
    let old = spawn(projector(Entries::<F>::default(), store).standby(Duration::from_millis(20)), &shutdown);
    deposit(store, &[("a", 1), ("b", 2), ("a", 3)]).await;
    tables::<F, 1>(store).patience(PATIENCE).read().await.expect("it serves");
    assert!(matches!(tables::<F, 2>(store).read().await, Err(QueryError::OtherVersion { serving: 1, ours: 2, .. })));
    let new = spawn(projector(Entries::<F, 2>::default(), store), &shutdown);
    tables::<F, 2>(store).patience(PATIENCE).read().await.expect("it serves");
    let last = deposit(store, &[("c", 4)]).await;
    reaches::<F, 2>(store, last).await;
    assert_eq!(all::<F, 2>(store).await, expected::<F>(store, 2, &[]).await);
    assert!(matches!(tables::<F, 1>(store).read().await, Err(QueryError::OtherVersion { serving: 2, ours: 1, .. })));
    shutdown.cancel();
    for worker in [old, new] {
        worker.await.expect("no panic").expect("it stops in order");
    }
}

/// R12: each event is written once into the new generation, wherever the rebuild was interrupted.
pub async fn r12_an_interrupted_rebuild_continues<F: TableFixture>(store: &F::Store) {
    load(store, 5).join_all().await;
    for _ in 0..3 {
        let rebuilding = projector(Entries::<F>::default(), store);
        let rebuild = rebuilding.rebuild(CancellationToken::new());
        // Dropped at any point.
        let _ = tokio::time::timeout(Duration::from_millis(30), rebuild).await;
    }
    build::<F, 1>(store).await;
    assert_eq!(all::<F, 1>(store).await, expected::<F>(store, 1, &[]).await);
}

/// R12: a throttle measures while a source that it slows down is open. (Seen to fail where [`TableProjector::run`] builds from the source
/// itself: what is written waits for ever.)
pub async fn r12_a_build_that_is_throttled_ends<F: TableFixture>(store: &F::Store) {
    deposit(store, &[("a", 1), ("b", 2)]).await;
    let throttle = Throttle::keeping(Duration::ZERO, MemoryStore::new());
    let entries = Entries::<F> { throttle: Some(throttle.clone()), ..Entries::default() };
    let shutdown = CancellationToken::new();
    let running = spawn(projector(entries, store).throttle(throttle), &shutdown);
    let model = tables::<F, 1>(store).patience(PATIENCE);
    drop(model.read().await.expect("it serves"));
    assert_eq!(all::<F, 1>(store).await, expected::<F>(store, 1, &[]).await);
    stops(running, &shutdown).await;
}

/// R13
pub async fn r13_a_read_waits_for_its_write<F: TableFixture>(store: &F::Store) {
    let model = tables::<F, 1>(store);
    assert!(matches!(model.read().await, Err(QueryError::Building { .. })));
    let shutdown = CancellationToken::new();
    let running = spawn(projector(Entries::<F>::default(), store), &shutdown);
    for amount in 1..=10 {
        let last = deposit(store, &[("a", amount)]).await;
        model.wait_for(ReadToken(last), PATIENCE).await.expect("it catches up");
        assert!(model.reached().await.expect("it serves") >= last);
        assert_eq!(all::<F, 1>(store).await.len(), usize::try_from(amount).expect("small"));
    }
    let beyond = ReadToken(Position::new(11));
    assert!(matches!(model.wait_for(beyond, Duration::ZERO).await, Err(QueryError::Lagging { .. })));
    stops(running, &shutdown).await;
}

/// As of documents.
pub async fn r13_a_service_has_not_settled_where_another_definition_keeps_its_tables<F: TableFixture>(store: &F::Store)
where
    F::Store: ServiceStore,
{
    let (other, serving) = ("projection Count of account in per-key order", GenerationState::Serving);
    store.ensure_generation("entries", 1, serving, other, &[]).await.expect("made");
    let builder = Service::builder("entries", store.clone()).aggregate::<Account>();
    let builder = builder.table_projection(Entries::<F>::default(), store.clone()).parts(Parts::None);
    let service = builder.start().await.expect("it starts");
    let settled = service.settled(PATIENCE).await;
    assert!(matches!(&settled, Err(Unsettled::OtherDefinition { reader, .. }) if reader == "entries"), "{settled:?}");
    service.shutdown(PATIENCE).await.expect("in good order");
}

/// As any other read model, but for what needs documents.
pub async fn a_service_keeps_and_rebuilds_tables<F: TableFixture>(store: &F::Store)
where
    F::Store: ServiceStore,
{
    let service = Service::builder("entries", store.clone()).aggregate::<Account>();
    let entries = Entries::<F> { faults: Faults::of([(2, Fault::Refuse)]), heals: true, ..Entries::default() };
    let service = service.table_projection(entries, store.clone()).on_failure(FailurePolicy::park());
    let service = service.start().await.expect("it starts");
    service.settled(PATIENCE).await.expect("the tables of the empty log serve");
    let last = deposit(store, &[("a", 1), ("b", 2)]).await;
    let tables = service.tables::<Entries<F>, F::Store>().expect("registered");
    tables.wait_for(ReadToken(last), PATIENCE).await.expect("it is kept");
    assert_eq!(service.failures_after("entries", 0).expect("known").0, 1);
    assert!(service.tables::<Entries<F, 2>, F::Store>().is_none());
    let act = Act::new("ada", "a look").expect("valid");
    store.pause("entries", &act).await.expect("paused");
    eventually("its state says so", async || {
        let status = service.status().await;
        status.part("entries").is_some_and(|part| matches!(part.state, PartState::Paused { .. })).then_some(())
    })
    .await;
    store.resume("entries", &act).await.expect("resumed");
    let plan = service.plan_rebuild("entries").await.expect("planned");
    assert_eq!((plan.events, plan.bytes), (2, 24));
    let source = LogSource::new(store.clone());
    let built = service.rebuild_named("entries", source, CancellationToken::new()).await.expect("rebuilt");
    assert!(built.is_some_and(|built| &*built.reader.name == "entries"));
    assert_eq!(all::<F, 1>(store).await, expected::<F>(store, 1, &[]).await);
    let refused = service.as_of_named("entries", "account-a", Moment::Now).await;
    assert!(matches!(refused, Err(RefoldError::NoDocuments { .. })), "{refused:?}");
    let refused = service.what_if_named("entries", &WhatIf::default().without(Position::new(1))).await;
    assert!(matches!(refused, Err(RefoldError::NoDocuments { .. })), "{refused:?}");
    service.shutdown(PATIENCE).await.expect("in good order");
}

/// All that the source has read at once.
pub async fn a_batch_is_handed_over_whole<F: TableFixture>(store: &F::Store) {
    for amount in 1..=20 {
        deposit(store, &[("a", amount)]).await;
    }
    let projection = Entries::<F>::default();
    let batches = projection.batches.clone();
    projector(projection, store).rebuild(CancellationToken::new()).await.expect("rebuilt");
    assert_eq!(*batches.lock().expect("no panic under it"), [7, 7, 6]);
    assert_eq!(all::<F, 1>(store).await.len(), 20);
}

/// The tables of one version are those of its migrations.
pub async fn other_migrations_need_another_version<F: TableFixture>(store: &F::Store) {
    build::<F, 2>(store).await;
    let other = TableProjector::new(Broken::<F>(PhantomData), LogSource::new(store.clone()), store.clone());
    let ended = other.run(CancellationToken::new()).await;
    assert!(matches!(ended, Err(EngineError::OtherDefinition { .. })), "{ended:?}");
}
