//! Event stores: order, conflicts, retries.

use std::{collections::HashSet, fmt, sync::Arc};

use es_core::{
    Append, AppendError, Appended, Conflict, EventData, EventStore, Expected, IdempotencyKey, Metadata, NewEvent,
    Position, RecordedEvent, StreamId, Version,
    backend::{CommandKey, Fingerprint},
};
use tokio::task::JoinSet;
use uuid::Uuid;

/// Tests an event store: `event_store_suite!(async { … })` with an expression that makes an
/// empty store which implements [`EventStore`] and `Clone`.
#[macro_export]
macro_rules! event_store_suite {
    ($make:expr) => {
        $crate::__suite! { event_store, $make,
            r1_an_append_of_many_events_is_whole_and_in_order
            r2_a_stale_version_is_a_conflict_that_tells_the_actual_one
            r2_every_expectation_is_checked
            r2_of_concurrent_appends_exactly_one_wins
            r3_positions_and_versions_are_dense_and_agree
            r3_a_reader_that_remembers_one_number_misses_nothing
            r3_versions_cross_ten_and_pages_in_order
            r3_a_waiting_reader_is_woken
            r6_the_same_append_again_writes_nothing
            r6_an_append_to_any_version_again_writes_nothing
            r6_a_remembered_command_returns_its_first_outcome
            r6_a_key_reused_for_another_command_is_refused
            r6_concurrent_retries_write_once
            r7_a_dropped_append_leaves_nothing_or_the_whole
            events_come_back_as_they_were_written
            a_probe_leaves_the_log_as_it_is
        }
        $crate::__suite! { event_store_together, $make,
            r1_appends_made_together_are_all_there_or_none
            r2_of_overlapping_appends_made_together_one_wins
            r2_an_append_can_expect_the_last_event_itself
            r2_chains_of_appends_are_written_in_order
            r3_an_append_after_an_event_of_another_time_is_refused
            r3_a_stale_append_is_refused_also_together_with_the_event_that_is_written_again
            r6_appends_made_together_again_write_nothing
            r15_what_cannot_be_made_together_is_refused
        }
        $crate::__suite! { event_store_large, $make,
            r1_a_large_append_is_judged_and_written_like_a_small_one
            r1_large_appends_keep_conditions_commands_and_neighbours
            r17_a_page_ends_with_the_event_that_reaches_its_bytes
        }
        $crate::__suite! { event_store_boundary, $make,
            queries_find_all_tags_any_name_and_either_item
            r1_a_failed_condition_fails_all_that_are_made_together
            r2_of_concurrent_claims_of_one_name_one_wins
            r2_no_course_is_overbooked
            r2_each_query_of_a_condition_has_a_position_of_its_own
            r2_of_concurrent_appends_on_all_events_one_wins
            r6_a_conditional_append_again_returns_its_first_outcome
            r15_tags_and_queries_have_limits
            r17_concurrent_reads_find_each_what_its_own_query_matches
        }
        $crate::__suite! { event_store_input, $make,
            r15_an_empty_append_is_refused
            r15_oversize_input_is_refused
            r15_broken_text_is_refused
            r15_json_that_not_every_decoder_reads_is_refused
            r15_an_overflowing_version_is_refused
            r15_a_refused_append_leaves_its_neighbours_alone
        }
    };
}

/// Beside appends, which a probe neither stops nor follows.
pub async fn a_probe_leaves_the_log_as_it_is(store: &(impl EventStore + Clone)) {
    let mut writers = JoinSet::new();
    for writer in 0..4 {
        let store = store.clone();
        writers.spawn(async move {
            for _ in 0..5 {
                store.append(append(&writer.to_string(), Expected::Any, 1)).await.expect("appended");
                store.probe().await.expect("probed");
            }
        });
    }
    writers.join_all().await;
    assert_eq!(store.head().await.expect("a head").get(), 20);
    store.probe().await.expect("probed");
    let log = store.read_log(Position::ZERO, 100).await.expect("a log");
    assert_eq!(log.len(), 20);
}

pub(crate) fn stream(id: &str) -> StreamId {
    StreamId::new("suite", id).expect("a valid name")
}

pub(crate) fn event(payload: &str) -> NewEvent {
    let data = EventData { name: "suite.happened".into(), schema_version: 1, payload: payload.to_owned().into() };
    NewEvent::new(data)
}

pub(crate) fn append(id: &str, expected: Expected, events: usize) -> Append {
    Append::new(stream(id), expected, (0..events).map(|number| event(&format!("{{\"n\":{number}}}"))).collect())
}

async fn all(store: &impl EventStore) -> Vec<RecordedEvent> {
    store.read_log(Position::ZERO, 100_000).await.expect("the log can be read")
}

async fn put(store: &impl EventStore, append: Append) -> Appended {
    store.append(append).await.expect("the append succeeds")
}

#[track_caller]
pub(crate) fn conflict<T: fmt::Debug>(outcome: Result<T, AppendError>) -> Conflict {
    match outcome {
        Err(AppendError::Conflict(conflict)) => conflict,
        other => panic!("expected a conflict, got {other:?}"),
    }
}

/// R1
pub async fn r1_an_append_of_many_events_is_whole_and_in_order(store: &impl EventStore) {
    let events = append("a", Expected::NoStream, 50);
    let ids: Vec<Uuid> = events.events.iter().map(|event| event.id).collect();
    let appended = put(store, events).await;
    assert_eq!(appended, Appended { version: Version::new(50), position: Position::new(50), repeated: false });
    let stored = store.read_stream(&stream("a"), Version::ZERO, 100).await.expect("a read");
    assert_eq!(stored.iter().map(|event| event.id).collect::<Vec<_>>(), ids);
    conflict(store.append(append("a", Expected::Exact(Version::new(7)), 3)).await);
    assert_eq!(all(store).await.len(), 50, "nothing of the refused append is there");
}

/// R2
pub async fn r2_a_stale_version_is_a_conflict_that_tells_the_actual_one(store: &impl EventStore) {
    put(store, append("a", Expected::NoStream, 3)).await;
    let expected = Expected::Exact(Version::new(2));
    let found = conflict(store.append(append("a", expected, 1)).await);
    assert_eq!(found, Conflict { stream: stream("a"), expected, actual: Version::new(3) });
}

/// R2
pub async fn r2_every_expectation_is_checked(store: &impl EventStore) {
    let exact = |version| Expected::Exact(Version::new(version));
    conflict(store.append(append("a", Expected::StreamExists, 1)).await);
    // An append after a version beyond the end would leave a gap in the versions.
    conflict(store.append(append("a", exact(5), 1)).await);
    put(store, append("a", Expected::Any, 1)).await;
    conflict(store.append(append("a", Expected::NoStream, 1)).await);
    conflict(store.append(append("a", exact(0), 1)).await);
    conflict(store.append(append("a", exact(2), 1)).await);
    put(store, append("a", exact(1), 1)).await;
    put(store, append("a", Expected::StreamExists, 1)).await;
    let last = put(store, append("a", Expected::Any, 1)).await;
    assert_eq!(last.version, Version::new(4));
    put(store, append("b", exact(0), 1)).await;
    assert_eq!(all(store).await.len(), 5);
}

/// R2
pub async fn r2_of_concurrent_appends_exactly_one_wins<S: EventStore + Clone>(store: &S) {
    for round in 0..10 {
        let mut racers = JoinSet::new();
        let start = Arc::new(tokio::sync::Barrier::new(16));
        for _ in 0..16 {
            let (store, start) = (store.clone(), start.clone());
            racers.spawn(async move {
                let append = append("hot", Expected::Exact(Version::new(round * 2)), 2);
                start.wait().await;
                store.append(append).await
            });
        }
        let outcomes = racers.join_all().await;
        assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 1);
        for outcome in outcomes.into_iter().filter(Result::is_err) {
            assert_eq!(conflict(outcome).actual, Version::new(round * 2 + 2));
        }
    }
    assert_eq!(all(store).await.len(), 20);
}

/// R3
pub async fn r3_positions_and_versions_are_dense_and_agree<S: EventStore + Clone>(store: &S) {
    let mut writers = JoinSet::new();
    for writer in 0..8 {
        let store = store.clone();
        writers.spawn(async move {
            for number in 0..20 {
                // Every third append is refused. It must not leave a gap.
                let expected = if number % 3 == 0 { Expected::Exact(Version::new(1_000)) } else { Expected::Any };
                let _ = store.append(append(&format!("s{}", (writer + number) % 5), expected, 1 + number % 3)).await;
            }
        });
    }
    writers.join_all().await;
    let log = all(store).await;
    let mut versions = std::collections::HashMap::new();
    for (index, event) in log.iter().enumerate() {
        assert_eq!(event.position.get(), index as u64 + 1, "dense positions");
        let version = versions.entry(event.stream.clone()).or_insert(0);
        *version += 1;
        assert_eq!(event.version.get(), *version, "versions agree with positions");
    }
    assert_eq!(store.head().await.expect("a head").get(), log.len() as u64);
    for (stream, version) in versions {
        let events = store.read_stream(&stream, Version::ZERO, 100_000).await.expect("a read");
        assert_eq!(events.len() as u64, version);
        assert!(events.iter().all(|event| log[usize::try_from(event.position.get()).expect("small") - 1] == *event));
    }
}

/// R3
pub async fn r3_a_reader_that_remembers_one_number_misses_nothing<S: EventStore + Clone>(store: &S) {
    let mut writers = JoinSet::new();
    for writer in 0..6 {
        let store = store.clone();
        writers.spawn(async move {
            for _ in 0..40 {
                put(&store, append(&format!("w{writer}"), Expected::Any, 1)).await;
            }
        });
    }
    let (mut seen, mut after) = (HashSet::new(), Position::ZERO);
    while seen.len() < 240 {
        store.wait_past(after).await.expect("the store is up");
        for event in store.read_log(after, 7).await.expect("a read") {
            assert_eq!(event.position, after.next(), "nothing is missed");
            assert!(seen.insert(event.id), "nothing is seen twice");
            after = event.position;
        }
    }
    writers.join_all().await;
}

/// R3
pub async fn r3_versions_cross_ten_and_pages_in_order(store: &impl EventStore) {
    for version in 0..25 {
        put(store, append("a", Expected::Exact(Version::new(version)), 1)).await;
    }
    let mut after = Version::ZERO;
    loop {
        let page = store.read_stream(&stream("a"), after, 4).await.expect("a read");
        if page.is_empty() {
            break;
        }
        for event in page {
            assert_eq!(event.version, after.next());
            after = event.version;
        }
    }
    assert_eq!(after, Version::new(25));
    assert_eq!(store.read_stream(&stream("a"), Version::new(24), 0).await.expect("a read"), []);
    assert_eq!(store.read_stream(&stream("none"), Version::ZERO, 10).await.expect("a read"), []);
}

/// R3
pub async fn r3_a_waiting_reader_is_woken<S: EventStore + Clone>(store: &S) {
    put(store, append("a", Expected::Any, 1)).await;
    store.wait_past(Position::ZERO).await.expect("there is an event already");
    let waiting = tokio::spawn({
        let store = store.clone();
        async move { store.wait_past(Position::new(1)).await }
    });
    put(store, append("a", Expected::Any, 1)).await;
    waiting.await.expect("no panic").expect("woken");
}

/// R6
pub async fn r6_the_same_append_again_writes_nothing(store: &impl EventStore) {
    let first = append("a", Expected::NoStream, 2);
    let outcome = put(store, first.clone()).await;
    let second = append("a", Expected::Exact(Version::new(2)), 3);
    let second_outcome = put(store, second.clone()).await;
    put(store, append("a", Expected::Any, 1)).await;
    assert_eq!(put(store, first).await, Appended { repeated: true, ..outcome });
    assert_eq!(put(store, second).await, Appended { repeated: true, ..second_outcome });
    assert_eq!(all(store).await.len(), 6);
}

/// R6
pub async fn r6_an_append_to_any_version_again_writes_nothing(store: &impl EventStore) {
    for expected in [Expected::Any, Expected::StreamExists] {
        let append = append("a", expected, 2);
        let outcome = put(store, append.clone()).await;
        put(store, super::event_store::append("a", Expected::Any, 1)).await;
        assert_eq!(put(store, append).await, Appended { repeated: true, ..outcome });
    }
    assert_eq!(all(store).await.len(), 6);
}

fn commanded(id: &str, expected: Expected, key: &str, content: &str) -> Append {
    let key = IdempotencyKey::new(key).expect("a valid key");
    let fingerprint = Fingerprint::of(content.as_bytes());
    Append { command: Some(CommandKey::new(key, fingerprint)), ..append(id, expected, 2) }
}

/// R6
pub async fn r6_a_remembered_command_returns_its_first_outcome(store: &impl EventStore) {
    let key = IdempotencyKey::new("k").expect("a valid key");
    assert_eq!(store.find_command(&stream("a"), &key).await.expect("a look-up"), None);
    let outcome = put(store, commanded("a", Expected::NoStream, "k", "x")).await;
    put(store, append("a", Expected::Any, 3)).await;
    // The retry was decided on another version and has other event ids: only the key counts.
    let again = put(store, commanded("a", Expected::Exact(Version::new(5)), "k", "x")).await;
    assert_eq!(again, Appended { repeated: true, ..outcome });
    let found = store.find_command(&stream("a"), &key).await.expect("a look-up").expect("it is remembered");
    assert_eq!((found.appended, found.fingerprint), (outcome, Fingerprint::of(b"x")));
    // A key is unique within one stream only.
    assert!(!put(store, commanded("b", Expected::NoStream, "k", "x")).await.repeated);
    assert_eq!(all(store).await.len(), 7);
}

/// R6
pub async fn r6_a_key_reused_for_another_command_is_refused(store: &impl EventStore) {
    put(store, commanded("a", Expected::NoStream, "k", "x")).await;
    let outcome = store.append(commanded("a", Expected::Exact(Version::new(2)), "k", "y")).await;
    assert!(matches!(outcome, Err(AppendError::KeyReused)), "{outcome:?}");
    assert_eq!(all(store).await.len(), 2);
}

/// R6
pub async fn r6_concurrent_retries_write_once<S: EventStore + Clone>(store: &S) {
    for expected in [Expected::NoStream, Expected::Any] {
        let id = format!("{expected:?}");
        let append = append(&id, expected, 3);
        let mut racers = JoinSet::new();
        for _ in 0..16 {
            let (store, append) = (store.clone(), append.clone());
            racers.spawn(async move { put(&store, append).await });
        }
        let outcomes = racers.join_all().await;
        assert_eq!(outcomes.iter().filter(|outcome| !outcome.repeated).count(), 1);
        assert!(outcomes.iter().all(|outcome| outcome.position == outcomes[0].position));
        assert_eq!(store.read_stream(&stream(&id), Version::ZERO, 100).await.expect("a read").len(), 3);
    }
}

/// R7
pub async fn r7_a_dropped_append_leaves_nothing_or_the_whole<S: EventStore + Clone>(store: &S) {
    // Each append is dropped a little later than the one before.
    for steps in 0..50 {
        let append = append(&format!("s{steps}"), Expected::NoStream, 3);
        let mut future = Box::pin(store.append(append));
        for _ in 0..steps {
            if futures_poll(&mut future) {
                break;
            }
            tokio::task::yield_now().await;
        }
    }
    // Appends have an order, so once this one is done the dropped ones have ended too.
    put(store, append("last", Expected::NoStream, 1)).await;
    let log = all(store).await;
    assert!(log.iter().enumerate().all(|(index, event)| event.position.get() == index as u64 + 1));
    for steps in 0..50 {
        let events = store.read_stream(&stream(&format!("s{steps}")), Version::ZERO, 10).await.expect("a read");
        assert!(events.is_empty() || events.len() == 3, "half an append: {events:?}");
    }
}

/// Polls once. Returns whether it is done.
fn futures_poll<F: Future + Unpin>(future: &mut F) -> bool {
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    std::pin::Pin::new(future).poll(&mut context).is_ready()
}

/// An event is read as it was written.
pub async fn events_come_back_as_they_were_written(store: &impl EventStore) {
    let metadata = Metadata {
        correlation_id: Some(Uuid::now_v7()),
        causation_id: Some(Uuid::now_v7()),
        traceparent: Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".into()),
        tracestate: Some("vendor=value".into()),
        actor: Some("Zoë 🦀".into()),
        extra: [("tenant".to_owned(), "t1".to_owned())].into(),
    };
    // Bytes are kept as written: white space, the order of fields, the form of numbers.
    let mut rich =
        event("{ \"b\": 1.50,\n \"a\": \"ü\\u20ac🦀\", \"big\": 12345678901234567890 }").with_metadata(metadata);
    rich.data.schema_version = 7;
    let plain = event("{}");
    put(store, Append::new(stream("a-b/ü"), Expected::NoStream, vec![rich.clone(), plain.clone()])).await;
    let stored = all(store).await;
    assert_eq!(stored[0].stream, stream("a-b/ü"));
    for (new, stored) in [rich, plain].into_iter().zip(stored) {
        assert_eq!((new.id, new.data, new.metadata), (stored.id, stored.data, stored.metadata));
        assert!((chrono::Utc::now() - stored.recorded_at).num_minutes().abs() < 5, "{}", stored.recorded_at);
    }
}
