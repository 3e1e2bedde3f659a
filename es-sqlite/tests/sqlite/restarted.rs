//! A file that is opened again.

use std::time::Duration;

use bytes::Bytes;
use chrono::DateTime;
use es_core::{
    Appended, Expected, Position, Version,
    backend::{Changes, Checkpoint, Documents, GenerationState, Generations, Leases, Shard, Takeover, Witness},
};
use es_sqlite::SqliteStore;
use uuid::Uuid;

use super::fixture::{append, dense_log, new_path, put};

#[tokio::test]
async fn r3_r5_a_reopened_log_continues_where_it_ended() {
    let path = new_path();
    for round in 0..12 {
        let store = SqliteStore::open(&path).await.unwrap();
        let appended = put(&store, append("a", Expected::Exact(Version::new(round * 2)), 2)).await;
        assert_eq!(appended.position, Position::new(round * 2 + 2));
        store.close().await.unwrap();
    }
    let store = SqliteStore::open(&path).await.unwrap();
    assert_eq!(dense_log(&store).await.len(), 24);
}

#[tokio::test]
async fn r5_a_store_that_is_dropped_without_close_loses_nothing() {
    let path = new_path();
    for round in 0..5 {
        let store = SqliteStore::open(&path).await.unwrap();
        put(&store, append("a", Expected::Exact(Version::new(round)), 1)).await;
    }
    let store = SqliteStore::open(&path).await.unwrap();
    assert_eq!(dense_log(&store).await.len(), 5);
}

#[tokio::test]
async fn r6_a_retry_after_a_restart_returns_the_first_outcome() {
    let path = new_path();
    let store = SqliteStore::open(&path).await.unwrap();
    let (any, exact) = (append("a", Expected::Any, 3), append("b", Expected::NoStream, 2));
    let first = [put(&store, any.clone()).await, put(&store, exact.clone()).await];
    store.close().await.unwrap();
    let store = SqliteStore::open(&path).await.unwrap();
    put(&store, append("b", Expected::Any, 1)).await;
    let again = [put(&store, any).await, put(&store, exact).await];
    assert_eq!(again, first.map(|first| Appended { repeated: true, ..first }));
    assert_eq!(dense_log(&store).await.len(), 6);
}

#[tokio::test]
async fn r9_a_reopened_read_model_continues_at_its_checkpoint() {
    let (path, shard, ttl) = (new_path(), Shard::from("log"), Duration::from_mins(1));
    let store = SqliteStore::open(&path).await.unwrap();
    let generation = store.ensure_generation("model", 1, GenerationState::Serving, "projection", &[]).await.unwrap();
    let owner = Uuid::now_v7();
    store.ensure_shards(&generation.reader, std::slice::from_ref(&shard)).await.unwrap();
    let lease = store.acquire(&generation.reader, &shard, owner, Takeover::WhenFree, ttl).await.unwrap().unwrap();
    let recorded_at = DateTime::from_timestamp_micros(1_767_225_600_123_456).unwrap();
    let witness = Witness { event_id: Uuid::now_v7(), recorded_at };
    let checkpoint = Checkpoint { position: Position::new(7), witness: Some(witness), cursor: Some("offset 7".into()) };
    let upserts = vec![("key".to_owned(), Bytes::from_static(b"{}")), ("empty".to_owned(), Bytes::new())];
    let changes = Changes { upserts, checkpoint: checkpoint.clone(), ..Changes::default() };
    store.commit(&lease, changes).await.unwrap();
    store.close().await.unwrap();

    let store = SqliteStore::open(&path).await.unwrap();
    assert_eq!(
        store.generations("model").await.unwrap().serving.map(|serving| serving.generation),
        Some(generation.clone())
    );
    assert_eq!(store.get("model", "key").await.unwrap().unwrap().found.as_deref(), Some(&b"{}"[..]));
    assert_eq!(store.get("model", "empty").await.unwrap().unwrap().found.as_deref(), Some(&b""[..]));
    let rival = Uuid::now_v7();
    let again = store.acquire(&generation.reader, &shard, rival, Takeover::WhenFree, ttl).await.unwrap();
    let again = again.expect("the lease has ended with its store");
    assert_eq!(again.checkpoint, checkpoint);
    assert!(again.fencing_token > lease.fencing_token);
}
