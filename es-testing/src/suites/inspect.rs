//! What operators see of a store.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use es_core::{
    Append, EventData, EventStore, Expected, NewEvent, Position, StreamId, Version,
    backend::{
        Changes, Checkpoint, GenerationState, GenerationSummary, Inspect, LeaseSummary, Promotion, ReadModelStore,
        ReaderSummary, Takeover, Witness,
    },
};
use uuid::Uuid;

use super::read_model_store::{DEFINITION, MODEL, TTL, building, lease, serving, shard};

/// Tests what operators see of a store: `inspect_suite!(async { … })` with an expression that makes an empty store which
/// implements [`Inspect`], `EventStore` and `ReadModelStore`.
#[macro_export]
macro_rules! inspect_suite {
    ($make:expr) => {
        $crate::__suite! { inspect, $make,
            streams_are_listed_in_byte_order_with_their_last_event
            streams_are_listed_page_by_page
            readers_are_listed_with_their_checkpoints
            a_lease_is_shown_as_long_as_it_holds
            a_replaced_generation_is_not_listed
            an_examination_names_what_it_has_examined
        }
    };
}

async fn append(store: &impl EventStore, names: &[&str]) {
    for name in names {
        let data = EventData { name: "suite.noted".into(), schema_version: 1, payload: "{}".into() };
        let stream: StreamId = name.parse().expect("a stream");
        store.append(Append::new(stream, Expected::Any, vec![NewEvent::new(data)])).await.expect("appended");
    }
}

async fn names(store: &impl Inspect, prefix: &str, after: Option<&str>, limit: usize) -> Vec<String> {
    let page = store.list_streams(prefix, after, limit).await.expect("listed");
    page.iter().map(|summary| summary.stream.to_string()).collect()
}

/// The clocks of the test and of the store may differ.
fn is_now(time: DateTime<Utc>) -> bool {
    (Utc::now() - time).abs() < TimeDelta::minutes(1)
}

/// Prefixes are bytes and no patterns.
pub async fn streams_are_listed_in_byte_order_with_their_last_event<S: EventStore + Inspect>(store: &S) {
    append(store, &["b-1", "a-2", "a-10", "a-ü", "a_c-1", "a-1%", "a-10", "b-1", "a-Z"]).await;
    assert_eq!(names(store, "", None, 100).await, ["a-1%", "a-10", "a-2", "a-Z", "a-ü", "a_c-1", "b-1"]);
    assert_eq!(names(store, "a-1", None, 100).await, ["a-1%", "a-10"]);
    assert_eq!(names(store, "a_", None, 100).await, ["a_c-1"]);
    assert_eq!(names(store, "%", None, 100).await, [""; 0]);
    let page = store.list_streams("a-10", None, 100).await.expect("listed");
    assert_eq!((page[0].version, page[0].position), (Version::new(2), Position::new(7)));
    let last = store.read_stream(&page[0].stream, Version::new(1), 1).await.expect("read");
    assert_eq!(page[0].recorded_at, last[0].recorded_at);
}

/// A cursor need not be the name of a stream, nor start with the prefix.
pub async fn streams_are_listed_page_by_page<S: EventStore + Inspect>(store: &S) {
    let all: Vec<_> = (0..25).map(|number| format!("page-{number:02}")).collect();
    append(store, &all.iter().map(String::as_str).collect::<Vec<_>>()).await;
    append(store, &["aaa-1", "zzz-1"]).await;
    let (mut found, mut after) = (Vec::new(), None);
    loop {
        let page = names(store, "page-", after.as_deref(), 10).await;
        let Some(last) = page.last() else { break };
        after = Some(last.clone());
        found.extend(page);
    }
    assert_eq!(found, all);
    assert_eq!(names(store, "page-", Some("page-22x"), 10).await, ["page-23", "page-24"]);
    assert_eq!(names(store, "page-", Some("aaa-1"), 1).await, ["page-00"]);
    assert_eq!(names(store, "page-", Some("zzz-1"), 1).await, [""; 0]);
}

async fn only(store: &impl Inspect) -> ReaderSummary {
    let mut readers = store.list_readers().await.expect("listed");
    assert_eq!(readers.len(), 1, "{readers:?}");
    readers.remove(0)
}

/// Shards are in the order of their numbers, and a reader of the log has reached what its slowest shard has. What a consumer reads is
/// not the log.
pub async fn readers_are_listed_with_their_checkpoints<S: ReadModelStore + Inspect>(store: &S) {
    assert_eq!(store.list_readers().await.expect("listed"), []);
    let new = building(store).await;
    let old = serving(store).await;
    let (policy, _) = store.ensure_reader("a-policy", "policy Suite").await.expect("made");
    let (consumer, _) = store.ensure_reader("the-consumer", "consumer Suite").await.expect("made");
    let shards: Vec<_> = (0..11).map(|number| shard(&format!("topic/{number}"))).collect();
    store.ensure_shards(&old.reader, &shards).await.expect("ensured");
    let recorded_at = DateTime::from_timestamp_micros(1_700_000_000_123_456).expect("a time");
    for (shard, position) in shards.iter().zip(5..) {
        let held = store.acquire(&old.reader, shard, Uuid::now_v7(), Takeover::Always, TTL).await.expect("asked");
        let witness = Some(Witness { event_id: Uuid::now_v7(), recorded_at });
        let checkpoint = Checkpoint { position: Position::new(position), witness, cursor: Some("c".into()) };
        store.commit(&held.expect("free"), Changes { checkpoint, ..Changes::default() }).await.expect("committed");
    }
    let readers = store.list_readers().await.expect("listed");
    let heads: Vec<_> = readers.iter().map(|found| (&found.reader, found.generation)).collect();
    let summary = |version, state| Some(GenerationSummary { version, state });
    let (serves, builds) = (summary(1, GenerationState::Serving), summary(2, GenerationState::Building));
    assert_eq!(heads, [(&policy, None), (&old.reader, serves), (&new.reader, builds), (&consumer, None)]);
    let definitions: Vec<_> = readers.iter().map(|found| found.definition.as_str()).collect();
    assert_eq!(definitions, ["policy Suite", DEFINITION, DEFINITION, "consumer Suite"]);
    assert_eq!(readers[0].shards, []);
    assert_eq!(readers[1].reached(), Some(Position::new(5)));
    assert_eq!(readers[1].shards.iter().map(|found| found.shard.clone()).collect::<Vec<_>>(), shards);
    assert_eq!(readers[1].shards[10].position, Position::new(15));
    assert_eq!(readers[1].shards[10].recorded_at, Some(recorded_at));
    assert_eq!(readers[2].reached(), Some(Position::ZERO));
    assert_eq!((readers[3].kind(), readers[3].reached()), ("consumer", None));
}

/// It tells since when the holder has it, which no renewal changes.
pub async fn a_lease_is_shown_as_long_as_it_holds<S: ReadModelStore + Inspect>(store: &S) {
    let generation = serving(store).await;
    let held = lease(store, &generation, "log").await;
    let first = only(store).await.shards[0].lease.expect("it holds");
    assert_eq!((first.owner, first.fencing_token, is_now(first.since)), (held.owner, held.fencing_token, true));
    let checkpoint = Checkpoint { position: Position::new(1), ..Checkpoint::default() };
    store.commit(&held, Changes { checkpoint: checkpoint.clone(), ..Changes::default() }).await.expect("committed");
    store.confirm(&held).await.expect("it holds");
    assert_eq!(only(store).await.shards[0].lease, Some(first), "the same holder, since the same time");

    let again = lease(store, &generation, "log").await;
    let second = only(store).await.shards[0].lease.expect("it holds");
    let LeaseSummary { owner, fencing_token, since } = second;
    assert_eq!((owner, fencing_token), (again.owner, again.fencing_token));
    assert!(since >= first.since, "{since} is not after {}", first.since);

    store.release(&again).await.expect("released");
    assert_eq!(only(store).await.shards[0].lease, None);

    let brief = Duration::from_millis(1);
    let taken = store.acquire(&generation.reader, &shard("log"), Uuid::now_v7(), Takeover::Always, brief).await;
    taken.expect("asked").expect("free");
    // What keeps leases alive for a store renews none that its worker has not asked for since.
    let expired = async {
        while only(store).await.shards[0].lease.is_some() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), expired).await.expect("it expires");
}

/// Nor is a discarded one.
pub async fn a_replaced_generation_is_not_listed<S: ReadModelStore + Inspect>(store: &S) {
    serving(store).await;
    let new = building(store).await;
    store.promote(&new, Promotion::Automatic).await.expect("promoted");
    assert_eq!(only(store).await.reader, new.reader);
    let third =
        store.ensure_generation(MODEL, 3, GenerationState::Building, DEFINITION, &[]).await.expect("a generation");
    store.discard(&third).await.expect("discarded");
    assert_eq!(only(store).await.reader, new.reader);
}

/// Whatever is not in order comes with advice.
pub async fn an_examination_names_what_it_has_examined<S: Inspect>(store: &S) {
    let findings = store.diagnose().await.expect("examined");
    assert!(!findings.is_empty());
    for finding in &findings {
        assert!(!finding.check.is_empty() && !finding.found.is_empty(), "{finding:?}");
        assert_eq!(finding.advice.is_some(), finding.severity > es_core::backend::Severity::Ok, "{finding:?}");
    }
}
