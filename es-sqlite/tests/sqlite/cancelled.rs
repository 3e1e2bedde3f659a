//! Futures that are dropped before they are done.

use std::{task::Poll, time::Duration};

use bytes::Bytes;
use es_core::{
    EventStore, Expected, Position, Version,
    backend::{Changes, Checkpoint, Documents, GenerationState, Generations, Leases, Shard, Takeover},
};
use uuid::Uuid;

use super::fixture::{append, dense_log, new_store, put, stream};

/// Polls `future` up to `polls` times, lets other tasks run in between, and drops it.
async fn drop_after(polls: usize, future: impl Future) {
    let mut future = std::pin::pin!(future);
    for _ in 0..polls {
        if std::future::poll_fn(|context| Poll::Ready(future.as_mut().poll(context))).await.is_ready() {
            return;
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn r7_a_dropped_append_leaves_nothing_or_the_whole() {
    let store = new_store().await;
    for polls in 0..40 {
        drop_after(polls, store.append(append(&format!("s{polls}"), Expected::NoStream, 3))).await;
    }
    put(&store, append("last", Expected::NoStream, 1)).await;
    assert_eq!(dense_log(&store).await.len() % 3, 1);
    for polls in 1..40 {
        let events = store.read_stream(&stream(&format!("s{polls}")), Version::ZERO, 10).await.unwrap();
        assert_eq!(events.len(), 3, "a queued append is written, also if its caller is dropped");
    }
}

#[tokio::test]
async fn r7_a_dropped_commit_leaves_nothing_or_the_whole() {
    let store = new_store().await;
    let (shard, ttl) = (Shard::from("log"), Duration::from_mins(1));
    let generation = store.ensure_generation("model", 1, GenerationState::Serving, "projection", &[]).await.unwrap();
    let owner = Uuid::now_v7();
    let keys = ["a".to_owned(), "b".to_owned()];
    for polls in 0..40 {
        store.ensure_shards(&generation.reader, std::slice::from_ref(&shard)).await.unwrap();
        let lease = store.acquire(&generation.reader, &shard, owner, Takeover::WhenFree, ttl).await.unwrap().unwrap();
        let position = lease.checkpoint.position.next();
        let document = Bytes::from(position.to_string());
        let upserts = keys.iter().map(|key| (key.clone(), document.clone())).collect();
        let checkpoint = Checkpoint { position, ..Checkpoint::default() };
        drop_after(polls, store.commit(&lease, Changes { upserts, checkpoint, ..Changes::default() })).await;
        // Writes have an order, so once this one is done the dropped one has ended too.
        store.ensure_shards(&generation.reader, std::slice::from_ref(&shard)).await.unwrap();
        let reached = store.reached("model").await.unwrap();
        let expected = (reached > Position::ZERO).then(|| Bytes::from(reached.to_string()));
        assert_eq!(store.load(&generation.reader, &keys, usize::MAX).await.unwrap(), [expected.clone(), expected]);
    }
}

#[tokio::test]
async fn r7_dropped_reads_leave_no_trace() {
    let store = new_store().await;
    put(&store, append("a", Expected::NoStream, 1_000)).await;
    for polls in 0..30 {
        drop_after(polls, store.read_log(Position::ZERO, 1_000)).await;
        drop_after(polls, store.head()).await;
        drop_after(polls, store.wait_past(Position::new(1_000))).await;
    }
    assert_eq!(dense_log(&store).await.len(), 1_000);
}
