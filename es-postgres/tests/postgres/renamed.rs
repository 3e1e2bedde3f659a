//! A schema gets another name, and another schema its name, under a store that is open.

use std::{error::Error, time::Duration};

use es_core::{
    EngineError, EventStore, Expected, LogSource, Position, Projector, Repository,
    backend::{Documents, SourceError, StoreMoved},
    testing::account::{Account, AccountCommand, Histories},
};
use es_postgres::{PostgresStore, SchemaMoved};
use tokio_util::sync::CancellationToken;

use super::server::{Schema, append, appended, exact, log, soon};

async fn rename(schema: &Schema) -> Schema {
    let other = Schema::new();
    schema.session().await.run(&format!("ALTER SCHEMA {} RENAME TO {}", schema.0, other.0)).await;
    other
}

fn assert_moved(error: &(dyn Error + 'static)) {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(moved) = error.downcast_ref::<StoreMoved>() {
            assert!(moved.0.is::<SchemaMoved>(), "{moved:?}");
            return;
        }
        cause = error.source();
    }
    panic!("{error:?}");
}

fn projector(store: &PostgresStore) -> Projector<Histories> {
    Projector::new(Histories, LogSource::new(store.clone()), store.clone())
}

async fn deposit(store: &PostgresStore) {
    Repository::<Account>::new(store.clone()).execute("a", AccountCommand::Deposit(1)).await.unwrap();
}

/// Everything that the store can be asked for, in a schema that is gone, and in another one of its name, which stays empty.
///
/// It can lose: with functions that were created with the path of their schema, and nothing that asked for its oid,
/// `append_in` wrote into the other log and returned `Ok`.
#[tokio::test(flavor = "multi_thread")]
async fn r3_a_store_does_not_follow_the_name_of_its_schema() {
    let schema = Schema::new();
    let store = schema.options().patience(Duration::from_secs(5)).connect().await.unwrap();
    store.append(append("a", exact(0), 2)).await.unwrap();
    store.read_log(Position::ZERO, 10).await.unwrap();
    let renamed = rename(&schema).await;
    let mut other = None;
    for replaced in [false, true] {
        if replaced {
            other = Some(schema.store().await);
        }
        for expected in [exact(2), Expected::Any] {
            let refused = soon(store.append(append("a", expected, 1))).await.unwrap_err();
            assert!(!refused.is_transient());
            assert_moved(&refused);
        }
        let mut caller = schema.session().await;
        caller.run("BEGIN").await;
        let refused = store.append_in(&mut caller.0, append("a", Expected::Any, 1)).await.unwrap_err();
        assert_moved(&refused);
        // A read on an idle connection is made again on a fresh one, which tells; so does the next.
        let _ = store.head().await;
        assert_moved(&store.read_log(Position::ZERO, 10).await.unwrap_err());
        assert_moved(&store.generations("histories").await.unwrap_err());
    }
    assert_eq!(log(&other.unwrap()).await, []);
    // Under its new name everything is as it was, functions that others call included.
    let store = soon(renamed.store()).await;
    assert_eq!(store.append(append("a", exact(2), 1)).await.unwrap(), appended(3, 3));
    let mut caller = renamed.session().await;
    caller.run("SET search_path = public; BEGIN").await;
    assert_eq!(store.append_in(&mut caller.0, append("a", exact(3), 1)).await.unwrap(), appended(4, 4));
    assert_eq!(caller.text("SHOW search_path").await, "public", "the caller's path is its own");
    caller.run("COMMIT").await;
    assert_eq!(log(&store).await.len(), 4);
}

/// So many events are read by a `COPY`, whose guard is written in another way. (Seen to fail without it: the events of the other
/// schema came.)
#[tokio::test(flavor = "multi_thread")]
async fn r3_a_long_page_does_not_follow_the_name_either() {
    let schema = Schema::new();
    let store = schema.store().await;
    store.append(append("a", exact(0), 1_000)).await.unwrap();
    assert_eq!(store.read_log(Position::ZERO, 1_000).await.unwrap().len(), 1_000);
    rename(&schema).await;
    schema.store().await.append(append("b", exact(0), 1_000)).await.unwrap();
    for _ in 0..2 {
        assert_moved(&store.read_log(Position::ZERO, 1_000).await.unwrap_err());
    }
}

/// A projector that is at work, or waits for news, ends and says why.
///
/// It can lose: without the oid it stood still for ever.
#[tokio::test(flavor = "multi_thread")]
async fn r11_a_projector_ends_when_its_schema_moves() {
    for replaced in [false, true] {
        let schema = Schema::new();
        let store = schema.store().await;
        deposit(&store).await;
        let running = tokio::spawn({
            let projector = projector(&store);
            async move { projector.run(CancellationToken::new()).await }
        });
        let folded = "SELECT coalesce(max(position), 0) FROM checkpoints";
        schema.session().await.until(folded, 1).await;
        rename(&schema).await;
        if replaced {
            schema.store().await;
        }
        let ended = soon(running).await.unwrap().unwrap_err();
        assert!(matches!(ended, EngineError::Store(_) | EngineError::Source(SourceError::Read(_))), "{ended:?}");
        assert_moved(&ended);
    }
}

/// The owner grants in the schema that the function is in, whatever that is called.
#[tokio::test(flavor = "multi_thread")]
async fn rights_are_granted_in_a_renamed_schema() {
    let schema = Schema::new();
    schema.store().await.close().await.unwrap();
    let renamed = rename(&schema).await;
    let mut owner = renamed.session().await;
    let role = format!("{}_app", renamed.0);
    owner
        .run(&format!("CREATE ROLE {role}; SET search_path = public; SELECT {}.grant_application('{role}')", renamed.0))
        .await;
    let may = format!("SELECT has_table_privilege('{role}', '{}.events', 'INSERT')::int::bigint", renamed.0);
    assert_eq!(owner.number(&may).await, 1);
    owner.run(&format!("DROP OWNED BY {role}; DROP ROLE {role}")).await;
}
