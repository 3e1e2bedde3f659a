//! Batches that are written without a look at the log first.

use chrono::TimeDelta;
use es_core::{
    Append, AppendError, Expected, IdempotencyKey, RecordedEvent, Version,
    backend::{CommandKey, Ending, Fingerprint, Witness},
};
use es_sqlite::SqliteStore;

use super::fixture::{append, dense_log, described, event, in_one_batch, new_path, new_store, put, stream, tag};

/// One that expects `last` to be the second event of the stream "a".
fn after(last: Ending) -> Append {
    append("a", Expected::Last { version: Version::new(2), last }, 1)
}

/// An append under the one key that is used here.
fn under_key(id: &str, expected: Version, content: &[u8]) -> Append {
    let command = CommandKey::new(IdempotencyKey::new("k").unwrap(), Fingerprint::of(content));
    Append { command: Some(command), ..append(id, Expected::Exact(expected), 1) }
}

/// A store that has written all of its log itself, so it writes before it looks: the positions 1 and 2 of the stream "a", and
/// 3 of the stream "b".
async fn store_and_log() -> (SqliteStore, Vec<RecordedEvent>) {
    let store = new_store().await;
    put(&store, append("a", Expected::NoStream, 2)).await;
    put(&store, under_key("b", Version::ZERO, b"first")).await;
    let log = dense_log(&store).await;
    (store, log)
}

/// The others of its batch are written. (The first two were seen to fail without the checks of id and of time in
/// `append_events.sql`.)
#[tokio::test]
async fn r2_r3_r6_a_lost_optimistic_insert_is_retried_with_checks() {
    type Case = (&'static str, fn(Witness) -> Append, &'static str);
    let cases: [Case; 8] = [
        ("the last event", |last| after(Ending::read(last)), "[5]"),
        ("an older version", |_| append("a", Expected::Exact(Version::new(1)), 1), "found version 2"),
        ("a later version", |_| append("a", Expected::Exact(Version::new(3)), 1), "found version 2"),
        ("an empty stream", |_| append("a", Expected::NoStream, 1), "found version 2"),
        ("another last event", |_| after(Ending::sent(event("x").id)), "found version 2"),
        (
            "a last event of another time",
            |last| after(Ending::read(Witness { recorded_at: last.recorded_at - TimeDelta::microseconds(1), ..last })),
            "found version 2",
        ),
        ("a key that another request has used", |_| under_key("b", Version::new(1), b"second"), "another command"),
        ("a key that this request has used", |_| under_key("b", Version::new(1), b"first"), "[3]"),
    ];
    for (what, case, expected) in cases {
        let (store, log) = store_and_log().await;
        let last = Witness { event_id: log[1].id, recorded_at: log[1].recorded_at };
        let tagged = Append::new(stream("d"), Expected::NoStream, vec![event("test.d").with_tags([tag("d")])]);
        let outcomes =
            in_one_batch(&store, [vec![tagged], vec![case(last)], vec![append("e", Expected::NoStream, 1)]]).await;
        let described = described(&outcomes);
        assert!(described[1].contains(expected), "{what}: {described:?}");
        let written = if described[1] == "[5]" { ["[4]", "[6]"] } else { ["[4]", "[5]"] };
        assert_eq!([&*described[0], &*described[2]], written, "{what}");
        dense_log(&store).await;
    }
}

#[tokio::test]
async fn r2_in_one_batch_appends_build_on_each_other() {
    let (store, _) = store_and_log().await;
    let first = append("c", Expected::NoStream, 2);
    let end = |append: &Append| Ending::sent(append.events[append.events.len() - 1].id);
    let second = append("c", Expected::Last { version: Version::new(2), last: end(&first) }, 1);
    let third = append("c", Expected::Last { version: Version::new(3), last: end(&second) }, 1);
    let stale = append("c", Expected::Last { version: Version::new(3), last: end(&first) }, 1);
    let follow = [vec![first], vec![second], vec![third]];
    assert_eq!(described(&in_one_batch(&store, follow).await), ["[5]", "[6]", "[7]"]);
    let outcomes = in_one_batch(&store, [vec![append("d", Expected::NoStream, 1)], vec![stale]]).await;
    assert_eq!(described(&outcomes[..1]), ["[8]"]);
    assert!(matches!(outcomes[1], Err(AppendError::Conflict(_))), "{outcomes:?}");
    dense_log(&store).await;
}

/// The position that the store takes for the next one is that of the other store's append. (Seen to fail where the positions of
/// a refused statement are taken for written ones: then the append is reported as a first one.)
#[tokio::test]
async fn r3_r6_another_process_may_have_appended_meanwhile() {
    let path = new_path();
    let (store, other) = (SqliteStore::open(&path).await.unwrap(), SqliteStore::open(&path).await.unwrap());
    for version in 0..2 {
        put(&store, append("a", Expected::Exact(Version::new(version)), 1)).await;
    }
    for (request, id) in [(append("b", Expected::NoStream, 1), "d"), (under_key("c", Version::ZERO, b"first"), "e")] {
        let first = put(&other, request.clone()).await;
        let again = put(&store, request).await;
        assert_eq!((first.position, first.repeated, again.repeated), (again.position, false, true));
        // With the second one the store writes before it looks again.
        put(&store, append(id, Expected::NoStream, 1)).await;
        put(&store, append(id, Expected::Exact(Version::new(1)), 1)).await;
    }
    dense_log(&store).await;
}
