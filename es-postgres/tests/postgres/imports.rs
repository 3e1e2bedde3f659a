//! Histories from elsewhere.

use std::{collections::HashMap, convert::Infallible, time::Duration};

use chrono::{DateTime, TimeDelta, Utc};
use es_core::{
    AppendError, Condition, EventData, EventQuery, EventStore, Expected, LogSource, Metadata, Position, Projector,
    ReadModel, ReadToken, RecordedEvent, StreamId, Tag, Version,
    backend::{InvalidAppend, Witness},
    testing::account::{AccountEvent, Histories},
};
use es_postgres::{ImportError, ImportFailure, ImportProgress, Imported, PostgresStore};
use futures_util::{StreamExt, stream};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::server::{Schema, append, appended, exact, soon, stream as stream_id, wire};

/// `events` events of `streams` streams in turn, some with metadata, recorded long ago.
fn history(events: usize, streams: usize) -> Vec<Imported> {
    let event = |number: usize| Imported {
        stream: stream_id(&format!("s{}", number % streams)),
        id: Uuid::now_v7(),
        recorded_at: DateTime::from_timestamp_micros(1_000_000_000_000_000 + i64::try_from(number).unwrap()).unwrap(),
        data: EventData { name: "test.happened".into(), schema_version: 3, payload: format!("[{number}]").into() },
        metadata: Metadata { actor: (number % 2 == 1).then(|| format!("Zoë {number}")), ..Metadata::default() },
        tags: Vec::new(),
    };
    (0..events).map(event).collect()
}

async fn log(store: &PostgresStore) -> Vec<RecordedEvent> {
    store.read_log(Position::ZERO, 1_000_000).await.unwrap()
}

/// What the log must look like, whichever process has written it; returns the events with these ids, in order.
fn assert_dense(log: &[RecordedEvent]) {
    let mut versions = HashMap::new();
    for (event, position) in log.iter().zip(1..) {
        assert_eq!(event.position.get(), position);
        let version = versions.entry(&event.stream).or_insert(0);
        *version += 1;
        assert_eq!(event.version.get(), *version, "{}", event.stream);
    }
}

fn assert_holds(log: Vec<RecordedEvent>, history: &[Imported]) {
    assert_dense(&log);
    let ours: std::collections::HashSet<_> = history.iter().map(|event| event.id).collect();
    let found: Vec<_> = log.into_iter().filter(|event| ours.contains(&event.id)).map(Imported::from).collect();
    assert!(found == history, "{} of {} events, or in another order", found.len(), history.len());
}

fn reason(outcome: Result<ImportProgress, ImportError>) -> (u64, ImportFailure) {
    let error = outcome.unwrap_err();
    (error.progress.events, error.reason)
}

/// Two processes import histories that meet in the same streams, four tasks append to these, and a reader
/// remembers one number.
///
/// It can lose: without `take_append_lock()` in `begin_import_chunk()` a position was drawn twice, which the primary
/// key refused in three of three runs; with nothing learnt under the append lock of what others have written since
/// the streams were looked up, a version was, in three of three too.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn r3_imports_beside_appends_are_dense_and_a_reader_misses_nothing() {
    let schema = Schema::new();
    let stores = [schema.store().await, schema.store().await];
    let histories = [history(3_000, 40), history(3_000, 50)];
    let mut writers = JoinSet::new();
    for (number, history) in histories.iter().enumerate() {
        let (store, history) = (stores[number].clone(), history.clone());
        writers.spawn(async move {
            let import = store.import(format!("import {number}")).chunk_events(70);
            assert_eq!(import.events(history).await.unwrap().events, 3_000);
        });
    }
    for number in 0..4_usize {
        let store = stores[number % 2].clone();
        writers.spawn(async move {
            for event in 0..60 {
                let id = format!("s{}", (number * 7 + event) % 60);
                store.append(append(&id, Expected::Any, 1 + event % 3)).await.unwrap();
            }
        });
    }
    let reader = tokio::spawn({
        let store = stores[1].clone();
        async move {
            let mut seen = Vec::new();
            while seen.len() < 6_000 + 4 * 120 {
                let after = Position::new(seen.len() as u64);
                store.wait_past(after).await.unwrap();
                seen.extend(store.read_log(after, 100).await.unwrap());
            }
            seen
        }
    });
    soon(writers.join_all()).await;
    let seen = soon(reader).await.unwrap();
    assert!(seen == log(&stores[0]).await, "the reader saw what is there, in order");
    for history in &histories {
        assert_holds(seen.clone(), history);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn r3_versions_follow_those_of_existing_streams_across_chunks() {
    let schema = Schema::new();
    let store = schema.store().await;
    store.append(append("s0", exact(0), 12)).await.unwrap();
    let history = history(50, 3);
    let done = store.import("import").chunk_events(4).events(history.clone()).await.unwrap();
    let witness = Witness { event_id: history[49].id, recorded_at: history[49].recorded_at };
    let last = ImportProgress { events: 50, position: Position::new(62), last: Some(witness) };
    assert_eq!(done, last);
    assert_eq!(store.import("import").progress().await.unwrap(), last);
    assert_holds(log(&store).await, &history);
    let first = store.read_stream(&stream_id("s0"), Version::new(12), 1).await.unwrap();
    assert_eq!(Imported::from(first[0].clone()), history[0]);
    // Appends follow it, and this process's head was moved.
    assert_eq!(store.append(append("s0", exact(29), 1)).await.unwrap(), appended(30, 63));
}

#[tokio::test(flavor = "multi_thread")]
async fn r3_chunks_are_bounded_in_bytes_and_each_is_one_transaction() {
    let schema = Schema::new();
    let store = schema.store().await;
    let mut history = history(40, 2);
    for event in &mut history {
        event.data.payload = format!("\"{}\"", "x".repeat(900)).into();
    }
    store.import("import").chunk_bytes(10_000).events(history.clone()).await.unwrap();
    assert_holds(log(&store).await, &history);
    let transactions = "SELECT count(DISTINCT xmin::text) FROM events";
    assert_eq!(schema.session().await.number(transactions).await, 4, "ten events of 1,000 bytes and a bit");
    // A chunk holds an event, however large that is.
    assert_eq!(store.import("again").chunk_bytes(1).events(history).await.unwrap().events, 40);
}

/// A name, and a way to break a rule.
type Spoil = (&'static str, fn(&mut Imported));

#[tokio::test(flavor = "multi_thread")]
async fn r15_a_bad_event_is_named_and_nothing_of_its_chunk_is_written() {
    let schema = Schema::new();
    let store = schema.store().await;
    let good = history(30, 4);
    let spoil: [Spoil; 9] = [
        ("no JSON", |event| event.data.payload = "{".into()),
        ("NUL", |event| event.data.payload = "\"\\u0000\"".into()),
        ("number", |event| event.data.payload = "1e400".into()),
        ("nesting", |event| event.data.payload = format!("{}{}", "[".repeat(101), "]".repeat(101)).into()),
        ("large", |event| event.data.payload = format!("\"{}\"", "x".repeat(1_000_000)).into()),
        ("name", |event| event.data.name = "No Name".into()),
        ("schema", |event| event.data.schema_version = 0),
        ("metadata", |event| event.metadata.actor = Some("x".repeat(20_000))),
        ("instant", |event| event.recorded_at = DateTime::<Utc>::MIN_UTC),
    ];
    for (name, spoil) in spoil {
        let mut bad = good.clone();
        spoil(&mut bad[25]);
        let before = log(&store).await.len();
        let (events, reason) = reason(store.import(name).chunk_events(10).events(bad).await);
        assert_eq!(events, 20, "{name}");
        match reason {
            ImportFailure::Invalid { index, reason } => {
                assert_eq!(index, 25, "{name}");
                assert!(reason.to_string().starts_with("event 25: "), "{reason}");
                assert!((name == "NUL") == matches!(reason, InvalidAppend::Nul { .. }), "{reason}");
            }
            ImportFailure::RecordedAt { index, .. } => assert_eq!((index, name), (25, "instant")),
            other => panic!("{name}: {other:?}"),
        }
        assert_eq!(log(&store).await.len(), before + 20, "{name}");
        // The history was mended: it goes on where it stopped.
        assert_eq!(store.import(name).events(good.clone()).await.unwrap().events, 30);
        assert_eq!(log(&store).await.len(), before + 30, "{name}");
    }
    assert_dense(&log(&store).await);
    assert!(matches!(reason(store.import("").events(good).await).1, ImportFailure::Name));
}

#[tokio::test(flavor = "multi_thread")]
async fn r15_an_event_that_the_database_refuses_stops_the_import_before_its_chunk() {
    let schema = Schema::new();
    let store = schema.store().await;
    schema.session().await.run("ALTER TABLE events ADD CHECK (payload <> '[25]')").await;
    let (events, reason) = reason(store.import("import").chunk_events(10).events(history(30, 4)).await);
    assert!(matches!(reason, ImportFailure::Refused(_)), "{reason:?}");
    assert_eq!((events, log(&store).await.len()), (20, 20));
}

#[tokio::test(flavor = "multi_thread")]
async fn r6_an_import_that_comes_again_writes_nothing() {
    let schema = Schema::new();
    let store = schema.store().await;
    let all = history(30, 4);
    let first = store.import("import").chunk_events(7).events(all[..20].to_vec()).await.unwrap();
    assert_eq!(store.import("import").events(all[..20].to_vec()).await.unwrap(), first);
    // It goes on where the source can start there, and where it cannot.
    let import = store.import("import").starting_at(first.events);
    assert_eq!(import.events(all[20..25].to_vec()).await.unwrap().events, 25);
    assert_eq!(store.import("import").starting_at(10).events(all[10..].to_vec()).await.unwrap().events, 30);
    assert_holds(log(&store).await, &all);
    // The third is of a log that was restored: its last event was sent again and written at another time. (Seen to be taken
    // for the same history where an import kept the id alone.)
    let mut restored = all.clone();
    restored[29].recorded_at += TimeDelta::microseconds(1);
    for other in [history(30, 4), all[..29].to_vec(), restored] {
        let (events, reason) = reason(store.import("import").events(other).await);
        assert!(matches!(reason, ImportFailure::OtherHistory { index: 29 }), "{reason:?}");
        assert_eq!(events, 30);
    }
    let ahead = reason(store.import("import").starting_at(31).events(Vec::new()).await).1;
    assert!(matches!(ahead, ImportFailure::Ahead { start: 31, imported: 30 }), "{ahead:?}");
    assert_eq!(log(&store).await.len(), 30);
}

/// Two processes believe that the import is theirs: every event is written once, whichever wins a chunk.
///
/// It can lose: without the comparison with `a_from` in `begin_import_chunk()` both ended well, and the log
/// held 1,000 events.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn r6_an_import_that_runs_twice_at_once_writes_every_event_once() {
    let schema = Schema::new();
    let stores = [schema.store().await, schema.store().await];
    let all = history(500, 20);
    let (mut holder, mut watcher) = (schema.session().await, schema.session().await);
    holder.hold_append_lock().await;
    let mut imports = JoinSet::new();
    for store in stores.clone() {
        let all = all.clone();
        imports.spawn(async move { store.import("import").chunk_events(10).events(all).await });
    }
    watcher.until_blocked(&schema, 2).await;
    holder.run("COMMIT").await;
    let outcomes = soon(imports.join_all()).await;
    let overtaken = outcomes.iter().filter(|outcome| outcome.is_err()).count();
    assert_eq!(overtaken, 1, "both began with the first chunk: {outcomes:?}");
    let error = outcomes.into_iter().find_map(Result::err).unwrap();
    assert!(matches!(error.reason, ImportFailure::Overtaken { imported: 10.. }), "{error:?}");
    assert_holds(log(&stores[0]).await, &all);
}

/// The session is killed in the append lock, in the middle of the history.
#[tokio::test(flavor = "multi_thread")]
async fn r5_an_import_whose_session_is_killed_continues_after_its_last_chunk() {
    let schema = Schema::new();
    let store = schema.store().await;
    let all = history(30, 4);
    let (mut holder, mut watcher) = (schema.session().await, schema.session().await);
    let (first, rest) = (all[..10].to_vec(), all[10..].to_vec());
    let hold = stream::once(async move {
        holder.until("SELECT coalesce(sum(events), 0)::bigint FROM imports", 10).await;
        holder.hold_append_lock().await;
        stream::iter(rest).map(move |event| {
            // It lives as long as the history.
            let _ = &holder;
            Ok::<_, Infallible>(event)
        })
    });
    let source = stream::iter(first).map(Ok).chain(hold.flatten());
    let import = tokio::spawn({
        let store = store.clone();
        async move { store.import("import").chunk_events(10).stream(Box::pin(source)).await }
    });
    watcher.until_blocked(&schema, 1).await;
    let kill = format!(
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
          WHERE application_name = '{}' AND wait_event_type = 'Lock'",
        schema.0
    );
    assert_eq!(watcher.number(&kill).await, 1);
    let (events, reason) = reason(soon(import).await.unwrap());
    assert!(matches!(reason, ImportFailure::Store(_)), "{reason:?}");
    assert_eq!((events, log(&store).await.len()), (10, 10));
    assert_eq!(soon(store.import("import").events(all.clone())).await.unwrap().events, 30);
    assert_holds(log(&store).await, &all);
}

/// A deferred trigger holds the commit up, until the answer to it is bound to be lost: because the wire is
/// cut after the commit, or because the session is killed before it.
///
/// It can lose: with an import that continues after the last event that it *knows* of, the log held the chunk
/// that was committed twice.
#[tokio::test(flavor = "multi_thread")]
async fn r6_an_import_goes_on_although_the_outcome_of_its_last_commit_is_unknown() {
    for committed in [true, false] {
        let schema = Schema::new();
        let wire = wire().await;
        let store = schema.options_through(wire.port).connect().await.unwrap();
        let (mut holder, mut watcher) = (schema.session().await, schema.session().await);
        let gate = format!(
            "CREATE TABLE gate (); CREATE FUNCTION pass() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                 LOCK TABLE {0}.gate IN SHARE MODE; RETURN NULL; END $$;
             CREATE CONSTRAINT TRIGGER pass AFTER INSERT ON imports DEFERRABLE INITIALLY DEFERRED
                 FOR EACH ROW EXECUTE FUNCTION pass()",
            schema.0
        );
        holder.run(&gate).await;
        holder.run("BEGIN; LOCK TABLE gate").await;
        let all = history(20, 3);
        let import = tokio::spawn({
            let (store, all) = (store.clone(), all.clone());
            async move { store.import("import").chunk_events(10).events(all).await }
        });
        watcher.until_blocked(&schema, 1).await;
        if committed {
            wire.cut_next_answer();
        } else {
            let kill = format!(
                "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
                  WHERE application_name = '{}' AND wait_event_type = 'Lock'",
                schema.0
            );
            assert_eq!(watcher.number(&kill).await, 1);
        }
        holder.run("COMMIT").await;
        let (events, reason) = reason(soon(import).await.unwrap());
        assert!(matches!(reason, ImportFailure::Unknown(_)), "{reason:?}");
        assert_eq!(events, 0, "nothing is certain");
        assert_eq!(log(&store).await.len(), if committed { 10 } else { 0 });
        assert_eq!(soon(store.import("import").events(all.clone())).await.unwrap().events, 20);
        assert_holds(log(&store).await, &all);
    }
}

/// The server has given the append lock to an import that never hears of it and is dropped.
///
/// It can lose: as long as the wire kept the connection to the server open, the append waited the 30 seconds
/// after which the server ends a session that is idle in the append lock.
#[tokio::test(flavor = "multi_thread")]
async fn r7_the_append_lock_is_free_when_the_import_that_holds_it_is_dropped() {
    let schema = Schema::new();
    let wire = wire().await;
    let (store, other) = (schema.options_through(wire.port).connect().await.unwrap(), schema.store().await);
    let (mut holder, mut watcher) = (schema.session().await, schema.session().await);
    holder.hold_append_lock().await;
    let import = tokio::spawn(async move { store.import("import").events(history(30, 4)).await });
    watcher.until_blocked(&schema, 1).await;
    wire.mute(true);
    holder.run("COMMIT").await;
    let append = tokio::spawn({
        let other = other.clone();
        async move { other.append(append("a", exact(0), 1)).await }
    });
    watcher.until_blocked(&schema, 1).await;
    import.abort();
    assert_eq!(soon(append).await.unwrap().unwrap(), appended(1, 1));
    assert_eq!(log(&other).await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn r16_an_import_waits_for_the_append_lock_no_longer_than_its_patience() {
    let schema = Schema::new();
    let store = schema.options().patience(Duration::from_millis(50)).connect().await.unwrap();
    let mut holder = schema.session().await;
    holder.hold_append_lock().await;
    let (_, reason) = reason(soon(store.import("import").events(history(3, 1))).await);
    let ImportFailure::Store(cause) = reason else { panic!("{reason:?}") };
    let cause = cause.downcast_ref::<sqlx::Error>().unwrap();
    assert_eq!(cause.as_database_error().unwrap().code().as_deref(), Some("55P03"));
    holder.run("COMMIT").await;
    assert_eq!(store.import("import").events(history(3, 1)).await.unwrap().events, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn r16_close_lets_the_chunk_in_flight_end_and_no_other_begin() {
    let schema = Schema::new();
    let store = schema.store().await;
    let (mut holder, mut watcher) = (schema.session().await, schema.session().await);
    holder.hold_append_lock().await;
    let import = tokio::spawn({
        let store = store.clone();
        async move { store.import("import").chunk_events(10).events(history(30, 4)).await }
    });
    watcher.until_blocked(&schema, 1).await;
    let mut closing = Box::pin(store.close());
    tokio::select! { biased; _ = &mut closing => panic!("a chunk is in flight"), () = async {} => {} }
    holder.run("COMMIT").await;
    soon(closing).await.unwrap();
    let (events, reason) = reason(soon(import).await.unwrap());
    assert!(matches!(reason, ImportFailure::Closed), "{reason:?}");
    assert_eq!(events, 10);
    assert_eq!(log(&schema.store().await).await.len(), 10);
}

/// A source that fails has its error kept, and what came before it in whole chunks stays.
#[tokio::test(flavor = "multi_thread")]
async fn r11_a_history_that_cannot_be_read_any_further_stops_the_import() {
    let schema = Schema::new();
    let store = schema.store().await;
    let events = history(25, 3).into_iter().map(Ok).chain([Err(std::io::Error::other("torn"))]);
    let (events, reason) = reason(store.import("import").chunk_events(10).stream(stream::iter(events)).await);
    let ImportFailure::History(cause) = reason else { panic!("{reason:?}") };
    assert_eq!((events, cause.to_string().as_str()), (20, "torn"));
}

/// A projector that runs meanwhile, and one that starts afterwards.
#[tokio::test(flavor = "multi_thread")]
async fn r9_projections_see_imported_events_like_any_other() {
    let schema = Schema::new();
    let store = schema.store().await;
    let projector = || {
        let source = LogSource::new(store.clone()).batch(7);
        Projector::new(Histories, source, store.clone())
    };
    let shutdown = CancellationToken::new();
    let running = tokio::spawn({
        let (projector, shutdown) = (projector(), shutdown.clone());
        async move { projector.run(shutdown).await }
    });
    let deposits = (0..100).map(|number: u32| Imported {
        stream: StreamId::new("account", &format!("a{}", number % 10)).unwrap(),
        id: Uuid::now_v7(),
        recorded_at: Utc::now(),
        data: EventData::of(&AccountEvent::Deposited { amount: 1 }).unwrap(),
        metadata: Metadata::default(),
        tags: Vec::new(),
    });
    let done = store.import("import").chunk_events(9).events(deposits).await.unwrap();
    let model = ReadModel::<Histories>::new(store.clone());
    model.wait_for(ReadToken(done.position), Duration::from_mins(2)).await.unwrap();
    shutdown.cancel();
    soon(running).await.unwrap().unwrap();
    let truth = es_core::testing::project(&Histories, &log(&store).await).unwrap();
    assert_eq!(truth.len(), 10);
    for (key, document) in truth {
        assert_eq!(model.get(&key).await.unwrap(), Some(document));
    }
}

/// Imported events are found by their tags, in chunks that begin after others.
#[tokio::test(flavor = "multi_thread")]
async fn imported_events_are_found_by_their_tags() {
    let store = Schema::new().store().await;
    store.append(append("a", Expected::Any, 1)).await.unwrap();
    let tag = Tag::new("third").unwrap();
    let mut events = history(20, 4);
    for event in events.iter_mut().step_by(3) {
        event.tags = vec![tag.clone(), tag.clone()];
    }
    store.import("tagged").chunk_events(7).events(events).await.unwrap();
    let found = store.read_matching(&EventQuery::tagged([tag.clone()]), Position::ZERO, 100).await.unwrap();
    let positions: Vec<_> = found.iter().map(|event| event.position.get()).collect();
    assert_eq!(positions, (0..20).step_by(3).map(|index| index + 2).collect::<Vec<_>>());
    let condition = Condition::new(EventQuery::tagged([tag]), Position::new(17));
    let outcome = store.append(append("b", Expected::Any, 1).on(condition)).await;
    assert!(matches!(outcome, Err(AppendError::ConditionFailed { position }) if position == Position::new(20)));
}
