//! Two stores on one file. To SQLite they are as separate as two processes.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use es_core::{
    EventStore, Expected, Position, Version,
    backend::{Changes, Checkpoint, CommitError, Documents, GenerationState, Generations, Leases, Shard, Takeover},
};
use es_sqlite::SqliteStore;
use sqlx::Executor;
use tokio::{sync::Barrier, task::JoinSet};
use uuid::Uuid;

use super::fixture::{append, dense_log, foreign_connection, new_path, put};

async fn two_stores() -> [SqliteStore; 2] {
    let path = new_path();
    [SqliteStore::open(&path).await.unwrap(), SqliteStore::open(&path).await.unwrap()]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_file_may_be_opened_by_several_at_once() {
    let path = new_path();
    let (start, mut openers) = (Arc::new(Barrier::new(6)), JoinSet::new());
    for _ in 0..6 {
        let (path, start) = (path.clone(), start.clone());
        openers.spawn(async move {
            start.wait().await;
            SqliteStore::open(path).await
        });
    }
    for store in openers.join_all().await {
        put(&store.unwrap(), append("a", Expected::Any, 1)).await;
    }
    let store = SqliteStore::open(&path).await.unwrap();
    assert_eq!(dense_log(&store).await.len(), 6);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r2_of_concurrent_appends_through_two_stores_exactly_one_wins() {
    let stores = two_stores().await;
    for version in 0..20 {
        let (start, mut racers) = (Arc::new(Barrier::new(8)), JoinSet::new());
        for racer in 0..8 {
            let (store, start) = (stores[racer % 2].clone(), start.clone());
            racers.spawn(async move {
                let append = append("hot", Expected::Exact(Version::new(version)), 1);
                start.wait().await;
                store.append(append).await.is_ok()
            });
        }
        assert_eq!(racers.join_all().await.into_iter().filter(|won| *won).count(), 1);
    }
    assert_eq!(dense_log(&stores[0]).await.len(), 20);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r3_a_reader_misses_nothing_that_two_stores_append() {
    let stores = two_stores().await;
    let mut writers = JoinSet::new();
    for writer in 0..6 {
        let store = stores[writer % 2].clone();
        writers.spawn(async move {
            for _ in 0..30 {
                put(&store, append(&format!("w{writer}"), Expected::Any, 2)).await;
            }
        });
    }
    let mut after = Position::ZERO;
    while after < Position::new(360) {
        stores[0].wait_past(after).await.unwrap();
        for event in stores[0].read_log(after, 50).await.unwrap() {
            assert_eq!(event.position, after.next());
            after = event.position;
        }
    }
    writers.join_all().await;
    assert_eq!(dense_log(&stores[1]).await.len(), 360);
}

#[tokio::test]
async fn r3_an_append_through_another_store_wakes_a_reader() {
    let [reader, writer] = two_stores().await;
    let waiting = reader.wait_past(Position::ZERO);
    tokio::pin!(waiting);
    // The waiting reader has polled the file and found nothing.
    assert!(tokio::time::timeout(Duration::from_millis(1), &mut waiting).await.is_err());
    put(&writer, append("a", Expected::Any, 1)).await;
    waiting.await.unwrap();
}

#[tokio::test]
async fn r6_a_retry_through_another_store_writes_nothing() {
    let [one, two] = two_stores().await;
    for expected in [Expected::NoStream, Expected::Any] {
        let append = append(&format!("{expected:?}"), expected, 2);
        let first = put(&one, append.clone()).await;
        let again = put(&two, append).await;
        assert_eq!((again.position, again.version, again.repeated), (first.position, first.version, true));
    }
    assert_eq!(dense_log(&one).await.len(), 4);
}

#[tokio::test]
async fn r9_a_former_lease_holder_in_another_process_cannot_commit() {
    let [zombie, successor] = two_stores().await;
    let (shard, ttl) = (Shard::from("log"), Duration::from_mins(1));
    let changes = |position, document: &'static str| Changes {
        upserts: vec![("key".to_owned(), Bytes::from_static(document.as_bytes()))],
        checkpoint: Checkpoint { position: Position::new(position), ..Checkpoint::default() },
        ..Changes::default()
    };
    let generation = zombie.ensure_generation("model", 1, GenerationState::Serving, "projection", &[]).await.unwrap();
    // It stalls until its lease has run out. (A lease of length zero runs out at once.)
    zombie.ensure_shards(&generation.reader, std::slice::from_ref(&shard)).await.unwrap();
    let expired = zombie
        .acquire(&generation.reader, &shard, Uuid::now_v7(), Takeover::WhenFree, Duration::ZERO)
        .await
        .unwrap()
        .unwrap();
    let lease =
        successor.acquire(&generation.reader, &shard, Uuid::now_v7(), Takeover::WhenFree, ttl).await.unwrap().unwrap();
    // Both are at the same position, and the former holder commits first: only the fencing token tells them apart.
    let refused = zombie.commit(&expired, changes(1, "zombie")).await;
    assert!(matches!(refused, Err(CommitError::Fenced(_))), "{refused:?}");
    assert_eq!(
        successor.get("model", "key").await.unwrap().unwrap().found,
        None,
        "the former holder has written nothing"
    );
    successor.commit(&lease, changes(1, "successor")).await.unwrap();
    let repeated = successor.commit(&lease, changes(1, "twice")).await;
    assert!(matches!(repeated, Err(CommitError::Fenced(_))), "{repeated:?}");
    assert_eq!(zombie.get("model", "key").await.unwrap().unwrap().found.as_deref(), Some(&b"successor"[..]));
}

#[tokio::test]
async fn an_append_waits_for_the_write_lock_of_another_program() {
    let path = new_path();
    let store = SqliteStore::open(&path).await.unwrap();
    let mut foreign = foreign_connection(&path).await;
    foreign.execute("BEGIN IMMEDIATE").await.unwrap();
    let pending = store.append(append("a", Expected::NoStream, 1));
    tokio::pin!(pending);
    assert!(tokio::time::timeout(Duration::from_millis(20), &mut pending).await.is_err());
    assert_eq!(store.head().await.unwrap(), Position::ZERO, "readers do not wait for it");
    foreign.execute("COMMIT").await.unwrap();
    assert_eq!(pending.await.unwrap().position, Position::new(1));
}
