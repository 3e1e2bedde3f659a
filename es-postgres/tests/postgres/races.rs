//! The races that a log can lose, those that are not in `appends.rs` already.

use es_core::{Append, AppendError, Conflict, EventStore, Expected, Metadata, Position, Version};
use es_postgres::PostgresStore;
use futures_util::StreamExt;
use sqlx::{Connection, PgConnection, Row};

use super::server::{Schema, Session, append, appended, event, exact, log, soon, stream};

/// The partial append: of three events the first version is taken by a rival who has not committed yet. An
/// insert that skips what conflicts would leave the other two.
///
/// It can lose: with `append_all()` inserting `ON CONFLICT (stream, version) DO NOTHING` it was told so of events that were
/// left out; with `append_batch()` doing that, and taking every expected version for the actual one, that it had written
/// version 3.
#[tokio::test(flavor = "multi_thread")]
async fn r1_an_append_of_many_that_loses_its_first_version_leaves_nothing() {
    let schema = Schema::new();
    let store = schema.store().await;
    for expected in [Expected::NoStream, exact(0)] {
        let id = format!("{expected:?}").to_lowercase().replace(['(', ')'], "");
        let before = log(&store).await.len();
        let (mut rival, mut watcher) = (schema.session().await, schema.session().await);
        rival.run("BEGIN").await;
        store.append_in(&mut rival.0, append(&id, expected, 1)).await.unwrap();
        let many = tokio::spawn({
            let (store, append) = (store.clone(), append(&id, expected, 3));
            async move { store.append(append).await }
        });
        watcher.until_blocked(&schema, 1).await;
        rival.run("COMMIT").await;
        let outcome = soon(many).await.unwrap();
        let Err(AppendError::Conflict(Conflict { actual, .. })) = outcome else { panic!("{outcome:?}") };
        assert_eq!(actual, Version::new(1));
        assert_eq!(log(&store).await.len(), before + 1);
        assert_eq!(store.read_stream(&stream(&id), Version::ZERO, 9).await.unwrap().len(), 1);
    }
}

/// The hole: an append that expects more than there is, while the events that would make it right are
/// written but may still roll back.
///
/// It can lose: in the same broken `append_batch()`, versions 3 and 4 stood in a stream without a first one.
#[tokio::test(flavor = "multi_thread")]
async fn r3_an_expectation_beyond_the_end_tears_no_hole() {
    let schema = Schema::new();
    let store = schema.store().await;
    for (end, id) in [("ROLLBACK", "rolled-back"), ("COMMIT", "committed")] {
        let (mut rival, mut watcher) = (schema.session().await, schema.session().await);
        rival.run("BEGIN").await;
        store.append_in(&mut rival.0, append(id, exact(0), 2)).await.unwrap();
        let beyond = tokio::spawn({
            let (store, append) = (store.clone(), append(id, exact(2), 2));
            async move { store.append(append).await }
        });
        watcher.until_blocked(&schema, 1).await;
        rival.run(end).await;
        let outcome = soon(beyond).await.unwrap();
        let versions = store.read_stream(&stream(id), Version::ZERO, 9).await.unwrap();
        let versions: Vec<_> = versions.iter().map(|event| event.version.get()).collect();
        if end == "COMMIT" {
            assert_eq!((outcome.unwrap().version.get(), versions), (4, vec![1, 2, 3, 4]));
        } else {
            let Err(AppendError::Conflict(Conflict { actual, .. })) = outcome else { panic!("{outcome:?}") };
            assert_eq!((actual, versions), (Version::ZERO, vec![]));
        }
    }
    assert_eq!(log(&store).await.len(), 4);
}

/// Every table of `from`, row by row and in any order, into the same tables of `to`: what a restore does
/// with the data of a dump.
async fn restore(from: &mut Session, to: &mut Session) {
    // As a restore has it: triggers and foreign keys wait.
    to.run("SET session_replication_role = replica").await;
    let tables = from.rows(
        "SELECT c.relname::text FROM pg_class c
          WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind = 'r' AND c.relname <> '_sqlx_migrations'",
    );
    for table in tables.await {
        let table: String = table.get(0);
        // What the migrations have put there gives way: the store's id comes with the dump.
        to.run(&format!("DELETE FROM {table}")).await;
        let dump = format!("COPY (SELECT * FROM {table} ORDER BY random()) TO STDOUT");
        let mut rows = from.0.copy_out_raw(&dump).await.unwrap();
        let mut copy = to.0.copy_in_raw(&format!("COPY {table} FROM STDIN")).await.unwrap();
        while let Some(row) = rows.next().await {
            copy.send(&*row.unwrap()).await.unwrap();
        }
        copy.finish().await.unwrap();
    }
}

/// A log is its content: rows in any physical order, in a database that never heard of the transactions
/// that wrote them. An order by transaction id would show none of them, or misorder what comes next.
///
/// It can lose: with a log that is read in its physical order, the restored one began at position 18.
#[tokio::test(flavor = "multi_thread")]
async fn r3_a_restored_log_is_read_whole_and_goes_on_densely() {
    let schema = Schema::new();
    let store = schema.store().await;
    let mut source = schema.session().await;
    let once = append("once", Expected::Any, 2);
    store.append(once.clone()).await.unwrap();
    for number in 0..40 {
        let mut event = event(&format!("[{number}]"));
        event.metadata = Metadata { actor: Some("Zoë".into()), ..Metadata::default() };
        store.append(Append::new(stream(&format!("s{}", number % 7)), Expected::Any, vec![event])).await.unwrap();
    }
    let written = store.read_log(Position::ZERO, 100).await.unwrap();
    source.run(&format!("CREATE DATABASE {} TEMPLATE template0", schema.0)).await;
    let elsewhere = format!("&dbname={}", schema.0);
    let options = || schema.options_with(&elsewhere);
    options().connect().await.unwrap().close().await.unwrap();
    let mut target = Session(PgConnection::connect(&schema.url_with(&elsewhere)).await.unwrap());
    target.run(&format!("SET search_path = {}", schema.0)).await;
    restore(&mut source, &mut target).await;

    let restored: PostgresStore = options().connect().await.unwrap();
    assert!(restored.read_log(Position::ZERO, 100).await.unwrap() == written);
    assert_eq!(restored.append(append("s0", exact(6), 2)).await.unwrap(), appended(8, 44));
    assert_eq!(restored.append(append("new", exact(0), 1)).await.unwrap(), appended(1, 45));
    // What was remembered is remembered there too.
    let again = restored.append(once).await.unwrap();
    assert_eq!((again.repeated, again.position), (true, Position::new(2)));
    assert_eq!(log(&restored).await.len(), 45);
    restored.close().await.unwrap();
    target.0.close().await.unwrap();
    source.run(&format!("DROP DATABASE {} WITH (FORCE)", schema.0)).await;
}

/// An old snapshot (a dump, an analyst) keeps every dead row alive and in the way. Appends leave none
/// behind, so they cost the same; a row that counts positions would leave one for each append.
///
/// It can lose: with a table `head` that every append updates, the count was 201.
#[tokio::test(flavor = "multi_thread")]
async fn r3_appends_leave_no_dead_rows_while_an_old_snapshot_is_open() {
    let schema = Schema::new();
    let store = schema.store().await;
    store.append(append("a", exact(0), 1)).await.unwrap();
    let mut old = schema.session().await;
    old.run("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM events").await;
    for number in 1..=200 {
        let expected = if number % 2 == 0 { Expected::Any } else { exact(number) };
        store.append(append("a", expected, 1)).await.unwrap();
    }
    assert_eq!(old.number("SELECT count(*) FROM events").await, 1, "it still sees the past");
    // A writer reports what it did when its session ends.
    store.close().await.unwrap();
    let mut watcher = schema.session().await;
    let gone =
        format!("SELECT (count(*) = 0)::int::bigint FROM pg_stat_activity WHERE application_name = '{}'", schema.0);
    watcher.until(&gone, 1).await;
    let dead = "SELECT sum(n_tup_upd + n_tup_del)::bigint FROM pg_stat_user_tables
         WHERE schemaname = current_schema() AND relname <> '_sqlx_migrations'";
    assert_eq!(watcher.number(dead).await, 0);
    let written =
        "SELECT n_tup_ins FROM pg_stat_user_tables WHERE schemaname = current_schema() AND relname = 'events'";
    assert_eq!(watcher.number(written).await, 201, "it was counted");
    old.run("COMMIT").await;
}
