//! What happens before the first append.

use std::task::{Context, Poll, Waker};

use es_core::{EventStore, Expected, Position, backend::Documents};
use es_postgres::{ConnectError, PostgresStore};
use tokio::task::JoinSet;

use super::server::{Schema, append, exact, soon};

#[test]
fn without_a_runtime_a_store_does_not_connect() {
    let connecting = std::pin::pin!(PostgresStore::connect("postgres://localhost"));
    let connected = connecting.poll(&mut Context::from_waker(Waker::noop()));
    assert!(matches!(connected, Poll::Ready(Err(ConnectError::NoRuntime))), "{connected:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_processes_that_start_at_once_migrate_once() {
    let schema = Schema::new();
    let mut starts = JoinSet::new();
    for _ in 0..8 {
        starts.spawn(schema.options().connect());
    }
    for store in soon(starts.join_all()).await {
        store.unwrap().close().await.unwrap();
    }
    let twice = "SELECT count(*) - count(DISTINCT version) FROM _sqlx_migrations WHERE success";
    assert_eq!(schema.session().await.number(twice).await, 0);
    schema.store().await.close().await.unwrap();
}

/// A server that only pretends to lock (there was one) is told from one that does.
#[tokio::test(flavor = "multi_thread")]
async fn r3_a_server_that_does_not_keep_the_append_lock_is_refused() {
    let schema = Schema::new();
    schema.store().await.close().await.unwrap();
    let pretend = "CREATE OR REPLACE FUNCTION take_append_lock() RETURNS boolean LANGUAGE sql AS 'SELECT true'";
    schema.session().await.run(pretend).await;
    assert!(matches!(schema.options().connect().await, Err(ConnectError::NoAppendLock)));
}

/// The check of the append lock waits for a session that holds it, and takes that wait as proof that the lock works.
#[tokio::test(flavor = "multi_thread")]
async fn a_store_opens_while_others_append() {
    let schema = Schema::new();
    let store = schema.store().await;
    let mut appends = JoinSet::new();
    for number in 0..50 {
        let store = store.clone();
        appends.spawn(async move { store.append(append(&format!("n{number}"), exact(0), 1)).await });
    }
    for _ in 0..5 {
        soon(schema.store()).await.close().await.unwrap();
    }
    assert!(soon(appends.join_all()).await.iter().all(Result::is_ok));
}

#[tokio::test(flavor = "multi_thread")]
async fn r15_what_is_no_database_is_a_typed_error() {
    assert!(matches!(PostgresStore::connect("http://[").await, Err(ConnectError::Url(_))));
    assert!(matches!(PostgresStore::connect("postgres://h/d?schema=Es").await, Err(ConnectError::Schema { .. })));
    // A port on which no server listens.
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let outcome = PostgresStore::connect(&format!("postgres://127.0.0.1:{closed}/db")).await;
    assert!(matches!(outcome, Err(ConnectError::Connect(_))));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_does_not_show_how_it_connects() {
    let schema = Schema::new();
    let shown = format!("{:?}", schema.store().await);
    assert_eq!(shown, format!("PostgresStore {{ schema: {:?}, .. }}", schema.0));
}

/// Statements are prepared while the tables are empty and must use the indexes all the same, and use
/// them to look up, not to read the table in another order.
///
/// It can lose: with `NOT EXISTS` for the look-up of commands, which is planned as a hash of the whole
/// table, appends that expect any version were six times slower than the others.
#[tokio::test(flavor = "multi_thread")]
async fn plans_made_for_empty_tables_look_rows_up() {
    let schema = Schema::new();
    let store = schema.store().await;
    let mut session = schema.session().await;
    let scans = "SELECT coalesce(sum(seq_scan), 0)::bigint FROM pg_stat_user_tables
                  WHERE schemaname = current_schema() AND relname IN ('events', 'commands', 'documents')";
    let before = session.number(scans).await;
    for _ in 0..40 {
        store.append(append("a", Expected::Any, 1)).await.unwrap();
        store.read_log(Position::new(5), 5).await.unwrap();
        store.get("model", "key").await.unwrap();
    }
    // Sessions report what they did when they end.
    store.close().await.unwrap();
    let gone =
        format!("SELECT (count(*) = 0)::int::bigint FROM pg_stat_activity WHERE application_name = '{}'", schema.0);
    session.until(&gone, 1).await;
    assert_eq!(session.number(scans).await, before);
    let read = "SELECT sum(idx_tup_read)::bigint FROM pg_stat_user_indexes
                 WHERE schemaname = current_schema() AND relname = 'commands'";
    assert_eq!(session.number(read).await, 0, "no append was made twice, so no look-up finds a row");
}

/// An operator who mistypes a schema must not get an empty store, and looking must not migrate a schema away from older programs.
#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_may_not_migrate_changes_nothing() {
    let schema = Schema::new();
    let error = schema.options().migrate(false).connect().await.unwrap_err();
    assert!(matches!(&error, ConnectError::NotMigrated { missing } if missing[0] == 1), "{error:?}");
    let there = format!("SELECT count(*) FROM pg_namespace WHERE nspname = '{}'", schema.0);
    assert_eq!(schema.session().await.number(&there).await, 0);
    schema.store().await.close().await.unwrap();
    schema.options().migrate(false).connect().await.unwrap().close().await.unwrap();
}
