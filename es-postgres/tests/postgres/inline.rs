//! Read models that are folded in the transaction of each append, over connections that break.

use std::time::Duration;

use es_core::{
    Append, AppendError, Event, EventStore, Expected, KeyRange, LogSource, NewEvent, Position, Projection, Service,
    ServiceStore, StreamId,
    backend::{
        Changes, Checkpoint, Documents, GenerationState, Generations, Leases, NewLetter, Promotion, Takeover, Witness,
    },
    service::Parts,
    testing::{
        account::{Account, AccountCommand, AccountEvent, Histories, Ledger},
        project,
    },
};
use es_postgres::{InlineModelsMissed, PostgresStore};
use sqlx::{Connection, PgConnection};
use tokio::{sync::watch, task::JoinSet};
use uuid::Uuid;

use super::server::{SOON, Schema, append, log, soon, url, wire};

/// A service on `store` whose read model serves.
async fn service(store: &PostgresStore) -> Service {
    let builder = Service::builder("accounts", store.clone()).aggregate::<Account>();
    let service = builder.inline(Histories).start().await.unwrap();
    service.read_model::<Histories>().patience(SOON).get("none").await.unwrap();
    service
}

async fn deposit(service: &Service, id: &str) {
    service.repository::<Account>().execute(id, AccountCommand::Deposit(1)).await.unwrap();
}

async fn assert_is_the_fold(service: &Service) {
    let store = service.store();
    assert_eq!(store.reached("histories").await.unwrap(), store.head().await.unwrap());
    let events = store.read_log(Position::ZERO, 100_000).await.unwrap();
    let truth: Vec<_> = project(&Histories, &events).unwrap().into_iter().collect();
    let found = service.read_model::<Histories>().scan(KeyRange::default(), 100_000).await.unwrap();
    assert_eq!(found.documents, truth);
}

/// Ends the sessions that append, in the middle of their transactions.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn r5_r9_terminated_backends_leave_the_fold_of_the_log() {
    let schema = Schema::new();
    let store = schema.store().await;
    let service = service(&store).await;
    let (acknowledged, kills) = (watch::Sender::new(0), watch::Sender::new(0));
    let mut session = schema.session().await;
    let kill = format!(
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
          WHERE application_name = '{}' AND xact_start IS NOT NULL
            AND (query ~ 'append_(all|batch)|inline_states|commit_changes' OR state = 'idle in transaction')",
        schema.0
    );
    let killer = tokio::spawn({
        let (mut acknowledged, kills) = (acknowledged.subscribe(), kills.clone());
        async move {
            for round in 0..10 {
                acknowledged.wait_for(|count| *count > round * 10).await.unwrap();
                while session.number(&kill).await == 0 {}
                kills.send_modify(|count| *count += 1);
            }
        }
    });
    let mut clients = JoinSet::new();
    for client in 0..8 {
        let (service, acknowledged, kills) = (service.clone(), acknowledged.clone(), kills.subscribe());
        clients.spawn(async move {
            let mut written = 0;
            while *kills.borrow() < 10 {
                deposit(&service, &format!("a{client}")).await;
                written += 1;
                acknowledged.send_modify(|count| *count += 1);
            }
            written
        });
    }
    let written: usize = soon(clients.join_all()).await.into_iter().sum();
    soon(killer).await.unwrap();
    assert_eq!(log(&store).await.len(), written);
    assert_is_the_fold(&service).await;
    service.shutdown(SOON).await.unwrap();
}

/// The server has committed, and the connection breaks before the writer hears of it: the second attempt finds both the events and the
/// documents.
#[tokio::test(flavor = "multi_thread")]
async fn r5_r9_a_commit_whose_answer_is_lost_is_folded_once() {
    let schema = Schema::new();
    let wire = wire().await;
    let store = schema.options_through(wire.port).connect().await.unwrap();
    let service = service(&store).await;
    for _ in 0..3 {
        deposit(&service, "a").await;
        wire.cut_answer_to(|request| request.windows(6).any(|text| text == b"COMMIT"));
        soon(deposit(&service, "a")).await;
        assert!(wire.has_cut());
    }
    assert_eq!(log(&store).await.len(), 6);
    assert_is_the_fold(&service).await;
    service.shutdown(SOON).await.unwrap();
}

#[tokio::test]
async fn r9_an_append_in_the_callers_transaction_is_refused_where_read_models_are_inline() {
    let schema = Schema::new();
    let store = schema.store().await;
    let service = service(&store).await;
    let mut connection = PgConnection::connect(&url()).await.unwrap();
    let mut transaction = connection.begin().await.unwrap();
    let refused = store.append_in(&mut transaction, append("a", Expected::Any, 1)).await;
    let Err(AppendError::Refused(cause)) = refused else { panic!("{refused:?}") };
    assert_eq!(cause.downcast_ref(), Some(&InlineModelsMissed { names: vec!["histories"] }));
    drop(service);
    while !store.inline_models().unwrap().is_empty() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    store.append_in(&mut transaction, append("a", Expected::Any, 1)).await.unwrap();
    transaction.commit().await.unwrap();
    assert_eq!(log(&store).await.len(), 1);
}

/// The generation of [`Ledger`] serves, has folded one event, and no process runs its projector. What is returned folds it with appends.
async fn observer(schema: &Schema, store: &PostgresStore) -> Service {
    let builder = |store: PostgresStore| {
        Service::builder("accounts", store).aggregate::<Account>().inline(Ledger::<1>::default())
    };
    // The shutdown closes its store.
    let service = builder(schema.store().await).start().await.unwrap();
    service.read_model::<Ledger>().patience(SOON).get("none").await.unwrap();
    deposit(&service, "a").await;
    service.shutdown(SOON).await.unwrap();
    drop(service);
    builder(store.clone()).parts(Parts::None).start().await.unwrap()
}

/// The positions that the document of [`Ledger`] has.
async fn positions(service: &Service) -> Vec<u64> {
    service.read_model::<Ledger>().get("all").await.unwrap().unwrap().positions
}

/// R19: a worker of a program that does not know the read model as inline (as in a rolling deploy) parks a key, and its commit is on its way
/// when an append looks at the read model.
#[tokio::test(flavor = "multi_thread")]
async fn r19_an_append_that_waits_for_a_commit_that_parks_a_key_folds_nothing_behind_it() {
    let schema = Schema::new();
    let (store, other) = (schema.store().await, schema.store().await);
    let observer = observer(&schema, &store).await;
    // The event that the other program cannot fold.
    let stream = StreamId::new(AccountEvent::CATEGORY, "p").unwrap();
    let event = NewEvent::of(&AccountEvent::Deposited { amount: 666 }).unwrap();
    other.append(Append::new(stream, Expected::Any, vec![event])).await.unwrap();
    let event = other.read_log(Position::new(1), 1).await.unwrap().remove(0);
    let reader = other.generations(Ledger::<1>::NAME).await.unwrap().serving.unwrap().generation.reader;
    let (shard, owner) = (LogSource::shard(), Uuid::now_v7());
    let lease = other.acquire(&reader, &shard, owner, Takeover::WhenFree, SOON).await.unwrap().unwrap();
    assert_eq!(lease.checkpoint.position, Position::new(1));
    let letter = NewLetter { key: "all".into(), event: event.clone(), cause: Some("poison".into()), attempts: 1 };
    let checkpoint =
        Checkpoint { position: event.position, witness: Some(Witness::of(&event)), ..Checkpoint::default() };
    let changes = Changes { checkpoint, letters: vec![letter], ..Changes::default() };

    let (mut rival, mut watcher) = (schema.session().await, schema.session().await);
    // The commit has locked the checkpoint when it comes to the parked keys.
    rival.run("BEGIN; LOCK TABLE parked_keys IN SHARE MODE").await;
    let parking = tokio::spawn(async move { other.commit(&lease, changes).await });
    watcher.until_blocked(&schema, 1).await;
    let appending = tokio::spawn({
        let observer = observer.clone();
        async move { deposit(&observer, "b").await }
    });
    watcher.until_blocked(&schema, 2).await;
    rival.run("COMMIT").await;
    soon(parking).await.unwrap().unwrap();
    soon(appending).await.unwrap();
    assert_eq!(positions(&observer).await, [1], "the key is parked at position 2");
}

/// R22: what is paused does not change any more, also if an append waits for the pause.
#[tokio::test(flavor = "multi_thread")]
async fn r22_an_append_that_waits_for_a_pause_folds_nothing() {
    let schema = Schema::new();
    let store = schema.store().await;
    let observer = observer(&schema, &store).await;
    let (mut operator, mut watcher) = (schema.session().await, schema.session().await);
    operator.run("BEGIN; SELECT pause_reader('ledger', 'ada', 'a test')").await;
    let appending = tokio::spawn({
        let observer = observer.clone();
        async move { deposit(&observer, "b").await }
    });
    watcher.until_blocked(&schema, 1).await;
    operator.run("COMMIT").await;
    soon(appending).await.unwrap();
    assert_eq!(positions(&observer).await, [1], "it is paused");
}

/// An act of an operator locks the checkpoints of all generations, in their order; so must a promotion.
#[tokio::test(flavor = "multi_thread")]
async fn r12_a_promotion_and_an_act_of_an_operator_do_not_wait_for_each_other() {
    let schema = Schema::new();
    let store = schema.store().await;
    let observer = observer(&schema, &store).await;
    let serving = store.generations(Ledger::<1>::NAME).await.unwrap().serving.unwrap();
    let building = store
        .ensure_generation(Ledger::<1>::NAME, 1, GenerationState::Building, &serving.definition, &[])
        .await
        .unwrap();
    store.ensure_shards(&building.reader, &[LogSource::shard()]).await.unwrap();
    let (mut operator, mut watcher) = (schema.session().await, schema.session().await);
    // As note_act() begins.
    operator
        .run(
            "BEGIN; SELECT 1 FROM checkpoints c JOIN generations g ON g.id = c.reader
              WHERE g.projection = 'ledger' AND g.state = 'serving' FOR UPDATE OF c",
        )
        .await;
    let promoting = tokio::spawn({
        let store = store.clone();
        async move { store.promote(&building, Promotion::OnPurpose).await }
    });
    watcher.until_blocked(&schema, 1).await;
    operator.run("SELECT note_act('retry', 'ledger', 'k', NULL, 'ada', 'a test'); COMMIT").await;
    soon(promoting).await.unwrap().unwrap();
    assert_eq!(positions(&observer).await, [1]);
}
