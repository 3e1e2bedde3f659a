//! Damaged files.

use es_core::{
    EventStore, Expected, Position, ReadError, Version,
    backend::{Ending, Snapshot, SnapshotStore},
};
use es_sqlite::SqliteStore;
use sqlx::Executor;
use uuid::Uuid;

use super::fixture::{append, foreign_connection, new_path, put, stream};

#[tokio::test]
async fn r3_a_missing_event_is_an_error() {
    let path = new_path();
    let store = SqliteStore::open(&path).await.unwrap();
    put(&store, append("a", Expected::NoStream, 12)).await;
    let mut foreign = foreign_connection(&path).await;
    foreign.execute("DROP TRIGGER events_are_not_deleted; DELETE FROM events WHERE position = 10").await.unwrap();
    let (nine, eleven) = (Position::new(9), Position::new(11));
    for after in [Position::ZERO, nine] {
        let error = store.read_log(after, 100).await.unwrap_err();
        assert!(matches!(error, ReadError::Gap { after, found } if (after, found) == (nine, eleven)), "{error:?}");
    }
}

#[tokio::test]
async fn r14_a_damaged_row_is_named() {
    let path = new_path();
    let store = SqliteStore::open(&path).await.unwrap();
    put(&store, append("a", Expected::NoStream, 3)).await;
    let mut foreign = foreign_connection(&path).await;
    foreign
        .execute("DROP TRIGGER events_are_not_changed; UPDATE events SET metadata = x'FF' WHERE position = 2")
        .await
        .unwrap();
    let error = store.read_log(Position::ZERO, 100).await.unwrap_err();
    let two = Position::new(2);
    assert!(matches!(error, ReadError::Damaged { position, .. } if position == two), "{error:?}");
}

#[tokio::test]
async fn r8_a_damaged_snapshot_row_is_ignored_and_replaced() {
    let path = new_path();
    let store = SqliteStore::open(&path).await.unwrap();
    let snapshot = Snapshot {
        stream: stream("a"),
        version: Version::new(3),
        last: Ending::sent(Uuid::now_v7()),
        state_version: u32::MAX,
        state: "{}".into(),
        checksum: u32::MAX,
    };
    store.save_snapshot(snapshot.clone()).await.unwrap();
    let mut foreign = foreign_connection(&path).await;
    foreign.execute("UPDATE snapshots SET event_id = x'01'").await.unwrap();
    assert_eq!(store.load_snapshot(&snapshot.stream).await.unwrap(), None);
    store.save_snapshot(snapshot.clone()).await.unwrap();
    assert_eq!(store.load_snapshot(&snapshot.stream).await.unwrap(), Some(snapshot));
}
