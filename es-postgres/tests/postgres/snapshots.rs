//! Snapshots that only a damaged table, or a person with psql, can hold (R8).

use std::sync::Arc;

use es_core::{AggregateStore, Expected};
use tokio::task::JoinSet;

use super::server::{Schema, append, stream};

/// Whoever loads alone and whoever shares a statement gets the events, at once or in pages.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r8_a_snapshot_of_numbers_that_nobody_writes_is_none() {
    let schema = Schema::new();
    let store = Arc::new(schema.store().await);
    es_core::EventStore::append(&*store, append("a", Expected::NoStream, 3)).await.unwrap();
    let mut session = schema.session().await;
    for (version, state_version, checksum) in
        [(0, 1, 1), (-1, 1, 1), (i64::MIN, 1, 1), (2, -1, 1), (2, i64::MAX, 1), (2, 1, -1), (2, 1, 1), (9, 1, 1)]
    {
        session
            .run(&format!(
                "DELETE FROM snapshots;
                 INSERT INTO snapshots (stream, version, event_id, state_version, checksum, state)
                 VALUES ('{}', {version}, gen_random_uuid(), {state_version}, {checksum}, '{{}}')",
                stream("a")
            ))
            .await;
        let mut loads = JoinSet::new();
        for _ in 0..32 {
            let store = store.clone();
            loads.spawn(async move { store.load_stream(&stream("a"), true, 100).await.unwrap() });
        }
        for loaded in loads.join_all().await {
            assert!(loaded.snapshot.is_none(), "{version} {state_version} {checksum}");
            assert_eq!(loaded.events.len(), if loaded.more { 0 } else { 3 }, "{version} {state_version} {checksum}");
        }
    }
}
