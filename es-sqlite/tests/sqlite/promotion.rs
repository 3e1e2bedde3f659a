//! Promotion: the next generation replaces the serving one.

use std::time::Duration;

use bytes::Bytes;
use es_core::{
    Generation, KeyRange, Position,
    backend::{Changes, Checkpoint, Documents, GenerationState, Generations, Leases, Promotion, Shard, Takeover},
};
use es_sqlite::SqliteStore;
use sqlx::{AssertSqlSafe, Executor, Row, SqliteConnection};
use uuid::Uuid;

use super::fixture::{foreign_connection, new_path};

/// More than one transaction of a sweep deletes.
const DOCUMENTS: usize = 2_500;

async fn fill(store: &SqliteStore, generation: &Generation, document: &'static str) {
    let (shard, ttl) = (Shard::from("log"), Duration::from_mins(1));
    store.ensure_shards(&generation.reader, std::slice::from_ref(&shard)).await.unwrap();
    let lease =
        store.acquire(&generation.reader, &shard, Uuid::now_v7(), Takeover::WhenFree, ttl).await.unwrap().unwrap();
    let changes = Changes {
        upserts: (0..DOCUMENTS).map(|key| (format!("{key:05}"), Bytes::from_static(document.as_bytes()))).collect(),
        checkpoint: Checkpoint { position: lease.checkpoint.position.next(), ..Checkpoint::default() },
        ..Changes::default()
    };
    store.commit(&lease, changes).await.unwrap();
}

/// Waits until `query` counts none: the background sweep has deleted the rows.
async fn until_none(foreign: &mut SqliteConnection, count: &str) {
    let swept = async {
        while foreign.fetch_one(AssertSqlSafe(count)).await.unwrap().get::<i64, _>(0) > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), swept).await.expect("swept");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r12_readers_see_the_whole_old_or_the_whole_new_generation() {
    let path = new_path();
    let store = SqliteStore::open(&path).await.unwrap();
    let old = store.ensure_generation("model", 1, GenerationState::Serving, "projection", &[]).await.unwrap();
    fill(&store, &old, "old").await;
    let new = store.ensure_generation("model", 2, GenerationState::Building, "projection", &[]).await.unwrap();
    fill(&store, &new, "new").await;
    let reader = tokio::spawn({
        let store = store.clone();
        async move {
            let mut scans = 0;
            loop {
                let found = store.scan("model", KeyRange::default(), usize::MAX).await.unwrap().unwrap().found;
                assert_eq!(found.len(), DOCUMENTS);
                assert!(found.iter().all(|(_, document)| *document == found[0].1));
                scans += 1;
                if found[0].1 == "new" {
                    return scans;
                }
            }
        }
    });
    store.promote(&new, Promotion::Automatic).await.unwrap();
    assert!(reader.await.unwrap() >= 1);
    assert_eq!(store.reached("model").await.unwrap(), Position::new(1));
    // SQL users see the same.
    let mut foreign = foreign_connection(&path).await;
    let old = format!("SELECT count(*) FROM documents WHERE generation = {}", old.reader.id);
    until_none(&mut foreign, &old).await;
    let query = "SELECT count(*) FROM read_models WHERE projection = 'model' AND version = 2 AND document = 'new'";
    assert_eq!(foreign.fetch_one(query).await.unwrap().get::<i64, _>(0), i64::try_from(DOCUMENTS).unwrap());
}

#[tokio::test]
async fn r12_what_an_interrupted_promotion_left_is_swept_at_the_next_start() {
    let path = new_path();
    let store = SqliteStore::open(&path).await.unwrap();
    let old = store.ensure_generation("model", 1, GenerationState::Building, "projection", &[]).await.unwrap();
    fill(&store, &old, "old").await;
    store.close().await.unwrap();
    // The state after a promotion and before the end of its sweep.
    let mut foreign = foreign_connection(&path).await;
    foreign
        .execute("DELETE FROM generations; UPDATE readers SET is_retired = 1; DELETE FROM checkpoints")
        .await
        .unwrap();
    let store = SqliteStore::open(&path).await.unwrap();
    until_none(&mut foreign, "SELECT (SELECT count(*) FROM documents) + (SELECT count(*) FROM readers)").await;
    let new = store.ensure_generation("model", 2, GenerationState::Building, "projection", &[]).await.unwrap();
    assert_ne!(new.reader.id, old.reader.id, "an id never comes back");
}
