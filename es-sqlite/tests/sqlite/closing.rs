//! A store that is closed or dropped.

use std::time::Duration;

use es_core::{
    AppendError, EventStore, Expected, Position,
    backend::{Leases, Reader},
};
use es_sqlite::{CloseError, SqliteStore};
use sqlx::Executor;

use super::fixture::{append, dense_log, foreign_connection, new_path, put};

#[tokio::test]
async fn r16_close_finishes_what_is_queued() {
    let path = new_path();
    let store = SqliteStore::open(&path).await.unwrap();
    let appends = (0..40).map(|number| put(&store, append(&format!("s{number}"), Expected::NoStream, 1)));
    // The appends are polled first, so all of them are queued when close begins.
    let (_, closed) = futures_util::future::join(futures_util::future::join_all(appends), store.close()).await;
    closed.unwrap();
    let store = SqliteStore::open(&path).await.unwrap();
    assert_eq!(dense_log(&store).await.len(), 40);
}

#[tokio::test]
async fn r16_a_closed_store_refuses_everything() {
    let store = SqliteStore::open(new_path()).await.unwrap();
    let clone = store.clone();
    put(&store, append("a", Expected::NoStream, 1)).await;
    store.close().await.unwrap();
    assert!(matches!(clone.append(append("a", Expected::Any, 1)).await, Err(AppendError::Closed)));
    assert!(clone.head().await.is_err());
    assert!(clone.wait_past(Position::ZERO).await.is_err());
    assert!(clone.ensure_shards(&model(), &[]).await.is_err());
    clone.close().await.expect("closing again does nothing");
}

#[tokio::test]
async fn r16_close_ends_in_bounded_time_although_another_program_holds_the_write_lock() {
    let path = new_path();
    let store = SqliteStore::options(&path).close_within(Duration::from_millis(100)).open().await.unwrap();
    let mut foreign = foreign_connection(&path).await;
    foreign.execute("BEGIN IMMEDIATE").await.unwrap();
    // The append is polled first, so it is queued when close begins.
    let stuck = store.append(append("stuck", Expected::NoStream, 1));
    let (outcome, closed) = futures_util::future::join(stuck, store.close()).await;
    assert!(matches!(closed, Err(CloseError::Unfinished)), "{closed:?}");
    assert!(matches!(outcome, Err(AppendError::Store(_))), "its outcome is unknown: {outcome:?}");
}

fn model() -> Reader {
    Reader { id: 1, name: "model".into() }
}

#[tokio::test]
async fn r16_close_ends_waits_for_a_position() {
    let store = SqliteStore::open(new_path()).await.unwrap();
    let (waited, closed) = futures_util::future::join(store.wait_past(Position::ZERO), store.close()).await;
    assert!(waited.is_err());
    closed.unwrap();
}

#[tokio::test]
async fn r16_close_leaves_one_file() {
    let path = new_path();
    let store = SqliteStore::open(&path).await.unwrap();
    put(&store, append("a", Expected::NoStream, 10)).await;
    store.head().await.unwrap();
    store.close().await.unwrap();
    let names: Vec<_> = path.parent().unwrap().read_dir().unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["events.db"], "the write-ahead log has been moved into the file");
}

#[tokio::test]
async fn r16_the_writer_of_a_dropped_store_finishes_and_ends() {
    let path = new_path();
    let store = SqliteStore::open(&path).await.unwrap();
    let queued = store.clone();
    let pending = tokio::spawn(async move { queued.append(append("a", Expected::NoStream, 1)).await });
    drop(store);
    pending.await.unwrap().unwrap();
    let store = SqliteStore::open(&path).await.unwrap();
    assert_eq!(dense_log(&store).await.len(), 1);
}
