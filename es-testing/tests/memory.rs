//! The reference passes the suites that every backend must pass.

use es_core::{
    Append, EventData, EventOrder, EventStore, Expected, LogSource, MemoryStore, NewEvent, StreamId,
    backend::{Categories, Checkpoint, Delivery, EventSource, Split, Subscription},
};
use uuid::Uuid;

mod ports {
    use super::MemoryStore;

    es_testing::event_store_suite!(async { MemoryStore::new() });
    es_testing::snapshot_store_suite!(async { MemoryStore::new() });
    es_testing::read_model_store_suite!(async { MemoryStore::new() });
    es_testing::inspect_suite!(async { MemoryStore::new() });
    es_testing::engine_suite!(async { MemoryStore::new() });
    es_testing::service_suite!(async { MemoryStore::new() });
}

/// Each port is implemented for a shared store, too.
mod shared {
    use std::sync::Arc;

    use super::MemoryStore;

    es_testing::event_store_suite!(async { Arc::new(MemoryStore::new()) });
    es_testing::snapshot_store_suite!(async { Arc::new(MemoryStore::new()) });
    es_testing::read_model_store_suite!(async { Arc::new(MemoryStore::new()) });
    es_testing::inspect_suite!(async { Arc::new(MemoryStore::new()) });
}

#[tokio::test]
async fn r17_batches_hold_fewer_events_where_these_are_large() {
    let store = MemoryStore::new();
    let append = |id: &str, payload: String, events: usize| {
        let stream = StreamId::new("order", id).expect("a stream");
        let data = EventData { name: "order.noted".into(), schema_version: 1, payload: payload.into() };
        Append::new(stream, Expected::Any, (0..events).map(|_| NewEvent::new(data.clone())).collect())
    };
    store.append(append("a", format!("\"{}\"", "x".repeat(400_000)), 100)).await.expect("appended");
    store.append(append("b", "{}".into(), 500)).await.expect("appended");
    let subscription = Subscription {
        reader: "test".into(),
        store: Uuid::nil(),
        categories: Categories::All,
        order: EventOrder::PerKey,
        split: Split::NONE,
        forwards: false,
    };
    let mut feed = LogSource::new(store).open(&subscription).await.expect("opened");
    let mut sizes = Vec::new();
    while sizes.iter().sum::<usize>() < 600 {
        match feed.next().await.expect("a log") {
            Delivery::Assigned(shards) => feed.start(&shards[0], &Checkpoint::default()).await.expect("started"),
            Delivery::Batch(batch) => sizes.push(batch.events.len()),
            other => panic!("{other:?}"),
        }
    }
    // The last event of a batch is read again with the next one.
    assert_eq!(sizes, [21, 20, 20, 20, 519]);
}
