//! Read models after an older copy of the log was restored.

use std::time::Duration;

use chrono::DateTime;
use es_core::{
    Append, EngineError, EventStore, Expected, LogSource, MemoryStore, NewEvent, Position, Projection, Projector,
    ReadToken, StreamId,
    backend::{Changes, Checkpoint, GenerationState, SourceError, Takeover, Witness},
    testing::account::{AccountEvent, Histories, Ledger},
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::engines_project::{LEDGER, PATIENCE, Store, deposit, projector, read_model, spawn};

/// After a restore from an older copy, the log has another event at the checkpoint.
pub async fn a_checkpoint_of_another_history_is_refused(store: &impl Store) {
    deposit(store, 1).await;
    let generation = store.ensure_generation("ledger", 1, GenerationState::Serving, LEDGER, &[]).await.expect("made");
    let ttl = Duration::ZERO;
    store.ensure_shards(&generation.reader, &[LogSource::shard()]).await.expect("ensured");
    let lease = store.acquire(&generation.reader, &LogSource::shard(), Uuid::now_v7(), Takeover::Always, ttl).await;
    let foreign = Witness { event_id: Uuid::now_v7(), recorded_at: DateTime::UNIX_EPOCH };
    let checkpoint = Checkpoint { position: Position::new(1), witness: Some(foreign), cursor: None };
    let changes = Changes { checkpoint, ..Changes::default() };
    store.commit(&lease.expect("asked").expect("free"), changes).await.expect("committed");
    let error = projector(Ledger::<1>::default(), store).run(CancellationToken::new()).await.expect_err("it refuses");
    let EngineError::Source(SourceError::OtherHistory { position }) = error else { panic!("{error:?}") };
    assert_eq!(position, Position::new(1));
}

/// R3: an older copy of the log is restored, without A and B. X is written at A's position, and B is sent again with its
/// id: the checkpoint's event is at its old position, but after other events. In each half of the test one of the two logs
/// is the store's and the other one is in memory, so each of the two times of B is once the store's own.
/// (Seen to fail if a checkpoint holds only the id of the event.)
pub async fn r3_a_retry_in_a_restored_log_does_not_hide_another_past(store: &impl Store) {
    let [a, b, x, next] = [1, 2, 4, 8].map(new_deposit);
    let (restored, other) = (MemoryStore::new(), MemoryStore::new());
    append(&restored, [&x, &b, &next]).await;
    append(&other, [&x, &b]).await;

    append(store, [&a, &b]).await;
    fold_all::<Histories>(store, store).await;
    refuses_other_history::<Histories>(&restored, store).await;

    // Here the store's is the restored one.
    fold_all::<Ledger>(&other, store).await;
    append(store, [&next]).await;
    refuses_other_history::<Ledger>(store, store).await;
}

fn new_deposit(amount: u64) -> NewEvent {
    NewEvent::of(&AccountEvent::Deposited { amount }).expect("an event")
}

/// One append for each event.
async fn append<'a>(log: &impl EventStore, events: impl IntoIterator<Item = &'a NewEvent>) {
    let stream = StreamId::new("account", "a").expect("a stream");
    for event in events {
        log.append(Append::new(stream.clone(), Expected::Any, vec![event.clone()])).await.expect("appended");
    }
}

fn from_log<P: Projection + Default>(log: &(impl EventStore + Clone), store: &impl Store) -> Projector<P> {
    Projector::new(P::default(), LogSource::new(log.clone()), store.clone())
}

async fn fold_all<P: Projection + Default>(log: &(impl EventStore + Clone), store: &impl Store) {
    let shutdown = CancellationToken::new();
    let running = spawn(from_log::<P>(log, store), &shutdown);
    let head = log.head().await.expect("a head");
    read_model::<P>(store).wait_for(ReadToken(head), PATIENCE).await.expect("it catches up");
    shutdown.cancel();
    running.await.expect("no panic").expect("it stops in order");
}

async fn refuses_other_history<P: Projection + Default>(log: &(impl EventStore + Clone), store: &impl Store) {
    let (model, shutdown) = (read_model::<P>(store), CancellationToken::new());
    let reached = model.reached().await.expect("asked");
    let projector = from_log::<P>(log, store);
    tokio::select! {
        outcome = projector.run(shutdown) => match outcome {
            Err(EngineError::Source(SourceError::OtherHistory { position })) => assert_eq!(position, reached),
            other => panic!("{other:?}"),
        },
        passed = model.wait_for(ReadToken(reached.next()), PATIENCE) => panic!("it went on in another history: {passed:?}"),
    }
    assert_eq!(model.reached().await.expect("asked"), reached);
}
