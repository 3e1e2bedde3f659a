//! Long pages of the log, which are read by `COPY`.

use std::{future::poll_fn, pin::Pin, task::Poll, time::Duration};

use es_core::{
    Append, EventStore, Expected, Metadata, NewEvent, Position, StreamId, Version,
    backend::{GenerationState, Generations, PAGE_BYTES, is_last_page},
};
use es_postgres::PostgresStore;

use super::server::{Schema, append, event, exact, soon, stream};

/// Enough for pages that are read by `COPY`.
const EVENTS: usize = 1_200;

async fn filled(schema: &Schema) -> PostgresStore {
    let store = schema.options().reader_connections(1).connect().await.unwrap();
    store.append(append("a", exact(0), EVENTS)).await.unwrap();
    store
}

/// The log in pages of `limit` events.
async fn paged(store: &PostgresStore, limit: usize) -> Vec<es_core::RecordedEvent> {
    let (mut log, mut after) = (Vec::new(), Position::ZERO);
    loop {
        let page = store.read_log(after, limit).await.unwrap();
        let is_last = is_last_page(&page, limit);
        log.extend(page);
        after = log.last().map_or(after, |event| event.position);
        if is_last {
            return log;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn r3_a_long_page_shows_what_short_ones_show() {
    let schema = Schema::new();
    let store = schema.store().await;
    let metadata =
        Metadata { actor: Some("Zoë".into()), correlation_id: Some(uuid::Uuid::nil()), ..Metadata::default() };
    let odd = |n: usize| {
        let mut odd = event(&format!("{{\"text\":\"{}\"}}", "ß".repeat(n * 7 % 5_000)));
        (odd.data.schema_version, odd.data.name) =
            (u32::try_from(n % 3 + 1).unwrap(), format!("test.n{}", n % 5).into());
        if n.is_multiple_of(2) { odd.with_metadata(metadata.clone()) } else { odd }
    };
    for stream in ["a", "Å-1 2", "c"] {
        let events: Vec<NewEvent> = (0..300).map(odd).collect();
        store.append(Append::new(StreamId::new("test", stream).unwrap(), Expected::Any, events)).await.unwrap();
    }
    let log = paged(&store, 100).await;
    assert_eq!(log.len(), 900);
    for limit in [250, 300, 899, 900, 901, 100_000] {
        assert!(paged(&store, limit).await == log, "pages of {limit}");
    }
    assert_eq!(store.read_stream(&log[300].stream, Version::ZERO, 1_000).await.unwrap(), log[300..600]);
}

/// R17: seen to fail where the page ended with its last event.
#[tokio::test(flavor = "multi_thread")]
async fn r17_a_long_page_ends_with_the_event_that_reaches_its_bytes() {
    let schema = Schema::new();
    let store = schema.store().await;
    let payload = format!("\"{}\"", "x".repeat(40_000));
    for _ in 0..6 {
        let events = (0..50).map(|_| event(&payload)).collect();
        store.append(Append::new(stream("large"), Expected::Any, events)).await.unwrap();
    }
    let page = store.read_log(Position::ZERO, 1_000).await.unwrap();
    assert_eq!(page.len(), PAGE_BYTES.div_ceil(payload.len()));
    assert!(!is_last_page(&page, 1_000));
    assert_eq!(paged(&store, 1_000).await.len(), 300);
}

/// The pages before have shown small events, so the server is not asked to add up the bytes.
#[tokio::test(flavor = "multi_thread")]
async fn r17_a_long_page_of_large_events_ends_also_after_small_ones() {
    let schema = Schema::new();
    let store = filled(&schema).await;
    let payload = format!("\"{}\"", "x".repeat(40_000));
    for _ in 0..6 {
        let events = (0..50).map(|_| event(&payload)).collect();
        store.append(Append::new(stream("large"), Expected::Any, events)).await.unwrap();
    }
    for limit in [1_000, 400] {
        let small = store.read_log(Position::ZERO, limit).await.unwrap();
        assert_eq!(small.len(), limit);
        let after = Position::new(EVENTS as u64 - 10);
        let page = store.read_log(after, limit).await.unwrap();
        assert_eq!(page.len(), 10 + PAGE_BYTES.div_ceil(payload.len()), "{limit}");
        assert!(!is_last_page(&page, limit));
        assert_eq!(store.read_log(after, limit).await.unwrap().len(), page.len(), "{limit}");
    }
    assert_eq!(paged(&store, 1_000).await.len(), EVENTS + 300);
}

/// It is dropped wherever it waits, from the first word to the last row. What the server still sends reaches no other reader.
#[tokio::test(flavor = "multi_thread")]
async fn r7_a_cancelled_long_page_leaves_no_trace() {
    let schema = Schema::new();
    let store = filled(&schema).await;
    // More than the buffers between server and client hold.
    let payload = format!("\"{}\"", "x".repeat(6_000));
    store.append(Append::new(stream("b"), exact(0), (0..EVENTS).map(|_| event(&payload)).collect())).await.unwrap();
    let all = 2 * EVENTS;
    for polls in 1.. {
        let mut read = Box::pin(store.read_log(Position::ZERO, all));
        let done = soon(polled(read.as_mut(), polls)).await;
        drop(read);
        let other = soon(store.read_stream(&stream("a"), Version::new(EVENTS as u64 - 1), 10)).await.unwrap();
        assert_eq!(other.len(), 1, "after {polls} polls");
        soon(store.ensure_generation("model", polls, GenerationState::Building, "projection", &[])).await.unwrap();
        if let Some(page) = done {
            assert_eq!(page.unwrap().len(), all);
            // How often it waits depends on how much has come each time.
            assert!(polls > 1, "it was never dropped");
            break;
        }
    }
}

/// What `future` returns within so many polls.
async fn polled<T>(mut future: Pin<&mut (impl Future<Output = T> + ?Sized)>, polls: u32) -> Option<T> {
    let mut left = polls;
    poll_fn(|context| match future.as_mut().poll(context) {
        Poll::Ready(done) => Poll::Ready(Some(done)),
        Poll::Pending => {
            left -= 1;
            if left == 0 { Poll::Ready(None) } else { Poll::Pending }
        }
    })
    .await
}

/// The driver leaves a word of the server unread when a `COPY` fails before its first row. (Seen to fail where the connection was
/// used again: the next write took that word for its answer.)
#[tokio::test(flavor = "multi_thread")]
async fn r16_a_connection_whose_long_page_failed_is_not_used_again() {
    let schema = Schema::new();
    let limit = Duration::from_secs(2);
    let store = schema.options().answer_within(limit).reader_connections(1).connect().await.unwrap();
    store.append(append("a", exact(0), EVENTS)).await.unwrap();
    let (mut holder, mut watcher) = (schema.session().await, schema.session().await);
    holder.run("BEGIN; LOCK TABLE events IN ACCESS EXCLUSIVE MODE").await;
    // The server gives it up a little before the client does.
    assert!(soon(store.read_log(Position::ZERO, EVENTS)).await.is_err());
    soon(store.ensure_generation("model", 1, GenerationState::Building, "projection", &[])).await.unwrap();
    holder.run("COMMIT").await;
    let waiting = "SELECT (count(*) = 0)::int::bigint FROM pg_locks WHERE NOT granted";
    watcher.until(waiting, 1).await;
    assert_eq!(soon(store.read_log(Position::ZERO, EVENTS)).await.unwrap().len(), EVENTS);
}

/// Another process has written since this one looked last: the first page is read as a short one, and shows how far the log has
/// come.
#[tokio::test(flavor = "multi_thread")]
async fn r3_pages_are_whole_where_another_process_writes() {
    let schema = Schema::new();
    let (reader, writer) = (schema.store().await, filled(&schema).await);
    for limit in [300, 1_000, 5_000] {
        assert_eq!(paged(&reader, limit).await.len(), EVENTS);
    }
    writer.append(append("b", exact(0), EVENTS)).await.unwrap();
    assert_eq!(paged(&reader, 1_000).await.len(), 2 * EVENTS);
}
