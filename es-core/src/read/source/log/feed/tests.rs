//! What a feed reads before it is asked for, and what it keeps.

use super::{super::super::pages::Pages, *};
use crate::{
    Append, Expected, NewEvent, StreamId, event::Categories, memory::MemoryStore, read::projection::EventOrder,
    testing::account::AccountEvent, write::store::EventStore,
};

/// A feed of twelve events in batches of ten, of which so many shards are started.
async fn feed(shards: u32) -> LogFeed {
    let store = MemoryStore::new();
    let events = (0..12).map(|amount| NewEvent::of(&AccountEvent::Deposited { amount }).expect("an event")).collect();
    let stream = StreamId::new("account", "a").expect("a stream");
    store.append(Append::new(stream, Expected::Any, events)).await.expect("appended");
    let subscription = Subscription {
        reader: "test".into(),
        store: uuid::Uuid::nil(),
        categories: Categories::All,
        order: EventOrder::PerKey,
        split: Split { shards, by_stream: false },
        forwards: false,
    };
    let (pages, split) = (Arc::new(Pages::of(Arc::new(store))), Shard::split("log", shards));
    let mut feed = LogFeed::new(Pages::join(&pages), 10, &subscription, split.clone());
    for shard in &split {
        feed.start(shard, &Checkpoint::default()).await.expect("started");
    }
    feed
}

#[tokio::test]
async fn the_next_page_is_read_ahead_unless_the_last_one_is_there() {
    let mut feed = feed(1).await;
    for (end, ahead) in [(10, 1), (12, 0)] {
        let batch = feed.batch(0).await.expect("read").expect("a batch");
        assert_eq!((batch.checkpoint.position.get(), feed.ahead.len()), (end, ahead));
    }
}

#[tokio::test]
async fn r17_a_page_is_kept_where_another_shard_may_begin_there() {
    for (shards, is_kept) in [(1, false), (2, true)] {
        let mut feed = feed(shards).await;
        feed.batch(0).await.expect("read").expect("a batch");
        assert_eq!(feed.page.is_some(), is_kept, "{shards}");
    }
}
