//! Damaged files.

use std::io::{Seek, SeekFrom, Write};

use es_core::{
    EventStore, Expected, Position, ReadError, Version,
    backend::{Ending, Snapshot, SnapshotStore},
    error::with_causes,
};
use es_sqlite::SqliteStore;
use sqlx::{AssertSqlSafe, Executor};
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
async fn r14_a_value_that_cannot_be_decoded_fails_the_page() {
    let path = new_path();
    let store = SqliteStore::open(&path).await.unwrap();
    put(&store, append("a", Expected::NoStream, 3)).await;
    let mut foreign = foreign_connection(&path).await;
    foreign.execute("DROP TRIGGER events_are_not_changed").await.unwrap();
    for (damage, repair, told) in [
        ("stream = CAST(x'FF' AS TEXT)", "stream = 'test-a'", "utf-8"),
        ("stream = 'a'", "stream = 'test-a'", "stream"),
        ("name = CAST(x'FF' AS TEXT)", "name = 'test.happened'", "utf-8"),
        ("schema_version = 4294967296", "schema_version = 1", "schema_version"),
    ] {
        foreign.execute(AssertSqlSafe(format!("UPDATE events SET {damage} WHERE position = 2"))).await.unwrap();
        let error = store.read_log(Position::ZERO, 100).await.unwrap_err();
        assert!(matches!(error, ReadError::Store(_)) && with_causes(&error).contains(told), "{damage}: {error:?}");
        foreign.execute(AssertSqlSafe(format!("UPDATE events SET {repair} WHERE position = 2"))).await.unwrap();
        assert_eq!(store.read_log(Position::ZERO, 100).await.unwrap().len(), 3, "the next page is read as ever");
    }
}

#[tokio::test]
async fn r14_a_damaged_file_fails_the_page() {
    let path = new_path();
    let store = SqliteStore::open(&path).await.unwrap();
    put(&store, append("a", Expected::NoStream, 5_000)).await;
    store.close().await.unwrap();
    let mut file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
    let half = file.metadata().unwrap().len() / 2;
    file.seek(SeekFrom::Start(half)).unwrap();
    file.write_all(&vec![0xFF; usize::try_from(half).unwrap()]).unwrap();
    let store = SqliteStore::open(&path).await.unwrap();
    let error = store.read_log(Position::ZERO, 5_000).await.unwrap_err();
    assert!(matches!(error, ReadError::Store(_)) && with_causes(&error).contains("malformed"), "{error:?}");
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
