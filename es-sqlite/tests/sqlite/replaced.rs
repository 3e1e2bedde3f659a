//! A file that is removed or replaced while it is open.

use std::{fs, time::Duration};

use es_core::{
    AppendError, EventStore, Expected, Position, Service,
    backend::{GenerationState, Generations, StoreMoved},
    error::with_causes,
    service::PartState,
    testing::account::Histories,
};
use es_sqlite::{CloseError, FileReplaced, SqliteStore};
use sqlx::Executor;

use super::fixture::{append, dense_log, foreign_connection, new_path, put};

/// (Seen to fail, as the next test, where a commit does not check the file: the append is acknowledged.)
#[tokio::test]
async fn r5_what_is_written_to_an_unlinked_file_is_not_acknowledged() {
    let path = new_path();
    let store = SqliteStore::open(&path).await.unwrap();
    put(&store, append("a", Expected::NoStream, 1)).await;
    assert_eq!(dense_log(&store).await.len(), 1);
    fs::remove_file(&path).unwrap();
    is_replaced(store.append(append("a", Expected::Any, 1)).await);
    let head = store.head().await.map(drop).expect_err("a service that asks for the head is not ready");
    let page = store.read_log(Position::ZERO, 10).await.map(drop).expect_err("although a connection is open");
    for read in [head, page] {
        assert!(!read.is_transient() && with_causes(&read).contains("was removed or replaced"), "{read:?}");
    }
    let made = store.ensure_generation("model", 1, GenerationState::Serving, "projection", &[]).await.unwrap_err();
    assert!(!made.is_transient() && with_causes(&made).contains("was removed or replaced"), "{made:?}");
    let closed = store.close().await.unwrap_err();
    assert!(matches!(closed, CloseError::Replaced(_)), "{closed:?}");
}

#[tokio::test]
async fn r5_a_replaced_file_takes_no_appends() {
    let path = new_path();
    let store = SqliteStore::open(&path).await.unwrap();
    put(&store, append("a", Expected::NoStream, 1)).await;
    let moved = path.with_file_name("moved.db");
    for suffix in ["", "-wal", "-shm"] {
        let name =
            |path: &std::path::Path| path.with_file_name(format!("{}{suffix}", path.file_name().unwrap().display()));
        fs::rename(name(&path), name(&moved)).unwrap();
    }
    let other = SqliteStore::open(&path).await.unwrap();
    put(&other, append("b", Expected::NoStream, 1)).await;
    is_replaced(store.append(append("a", Expected::Any, 1)).await);
    let read = store.read_log(Position::ZERO, 10).await.expect_err("the other file has this name");
    assert!(with_causes(&read).contains("was removed or replaced"), "{read:?}");
    assert!(store.close().await.is_err());
    assert_eq!(dense_log(&other).await.len(), 1, "nothing of it got into the other file");
    let moved = SqliteStore::open(&moved).await.unwrap();
    assert_eq!(dense_log(&moved).await.len(), 1, "what was acknowledged is where the file went");
}

/// (Seen to fail where a commit does not check the write-ahead log.)
#[tokio::test]
async fn r5_an_append_into_an_unlinked_write_ahead_log_is_not_acknowledged() {
    let path = new_path();
    let store = SqliteStore::open(&path).await.unwrap();
    put(&store, append("a", Expected::NoStream, 1)).await;
    fs::remove_file(path.with_file_name("events.db-wal")).unwrap();
    is_replaced(store.append(append("a", Expected::Any, 1)).await);
}

/// A backup is restored into the open file, as SQLite's own backup does it: in a transaction of another program.
///
/// (Seen to fail where the last append of the process counted for more than the file: the wait for a removed position
/// returned at once, again and again.)
#[tokio::test]
async fn r3_a_wait_follows_the_restored_log() {
    let path = new_path();
    let store = SqliteStore::open(&path).await.unwrap();
    put(&store, append("a", Expected::NoStream, 10)).await;
    let restored =
        "BEGIN IMMEDIATE; DROP TRIGGER events_are_not_deleted; DELETE FROM events WHERE position > 5; COMMIT";
    foreign_connection(&path).await.execute(restored).await.unwrap();
    let waiting = store.wait_past(Position::new(7));
    tokio::pin!(waiting);
    for missing in [2, 1] {
        assert!(tokio::time::timeout(Duration::from_millis(50), &mut waiting).await.is_err(), "{missing} are missing");
        put(&store, append("b", Expected::Any, missing)).await;
    }
    waiting.await.unwrap();
}

fn is_replaced(outcome: Result<es_core::Appended, AppendError>) {
    let error = outcome.expect_err("it is not acknowledged");
    assert!(!error.is_transient(), "{error:?}");
    let AppendError::Store(cause) = &error else { panic!("{error:?}") };
    let cause = cause.downcast_ref::<StoreMoved>().expect("the kind of failure at which engines stop");
    assert!(cause.0.downcast_ref::<FileReplaced>().is_some(), "{cause:?}");
}

/// (Seen to fail where the failure counted as one that may pass: the projector tried again without end.)
#[tokio::test]
async fn r11_a_part_whose_file_was_removed_stops_and_says_why() {
    let path = new_path();
    let store = SqliteStore::open(&path).await.unwrap();
    let service = Service::builder("accounts", store).projection(Histories).start().await.unwrap();
    service.settled(Duration::from_secs(30)).await.unwrap();
    fs::remove_file(&path).unwrap();
    let stopped = async {
        loop {
            let state = service.status().await.part("histories").unwrap().state.clone();
            if let PartState::Stopped { reason } = state {
                return reason;
            }
            tokio::task::yield_now().await;
        }
    };
    let reason = tokio::time::timeout(Duration::from_secs(30), stopped).await.expect("it stops");
    assert!(reason.contains("was removed or replaced"), "{reason}");
    assert!(!service.health().await.ready);
    service.shutdown(Duration::from_secs(10)).await.expect_err("the file is gone");
}
