//! Snapshots that only a damaged table, or a person with psql, can hold (R8).

use std::sync::Arc;

use es_core::{Expected, backend::AggregateStore};
use tokio::task::JoinSet;

use super::server::{Schema, append, stream};

/// A caller that loads alone and callers that share a statement get the events, at once or in pages.
///
/// It can lose: it did where the ids of snapshot and event were not compared, and where a stream that does not come so far as
/// its snapshot was taken for an empty one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r8_a_snapshot_that_was_never_written_is_none() {
    let schema = Schema::new();
    let store = Arc::new(schema.store().await);
    es_core::EventStore::append(&*store, append("a", Expected::NoStream, 3)).await.unwrap();
    let mut session = schema.session().await;
    let second = format!("(SELECT event_id FROM events WHERE stream = '{}' AND version = 2)", stream("a"));
    let (other, whole) = ("gen_random_uuid()", "0000000100000001");
    for (version, event_id, sealed) in [
        (0, other, whole),
        (-1, other, whole),
        (i64::MIN, other, whole),
        (1, other, whole),
        (2, other, whole),
        (9, other, whole),
        (9, &second, whole),
        (1, &second, whole),
        (2, &second, ""),
        (2, &second, "00000001000000"),
    ] {
        session
            .run(&format!(
                "DELETE FROM snapshots;
                 INSERT INTO snapshots (stream, version, event_id, sealed)
                 VALUES ('{}', {version}, {event_id}, '\\x{sealed}')",
                stream("a")
            ))
            .await;
        let mut loads = JoinSet::new();
        for _ in 0..32 {
            let store = store.clone();
            loads.spawn(async move { store.load_stream(&stream("a"), true, 100).await.unwrap() });
        }
        for loaded in loads.join_all().await {
            assert!(loaded.snapshot.is_none(), "{version} {event_id} {sealed}");
            assert_eq!(loaded.events.len(), if loaded.more { 0 } else { 3 }, "{version} {event_id} {sealed}");
        }
    }
}
