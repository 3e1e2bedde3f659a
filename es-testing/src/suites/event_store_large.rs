//! Event stores: appends so large that a store may write them in another way (R17).

use super::event_store::{append, conflict, event, stream};
use es_core::{
    Append, AppendError, Appended, Condition, EventQuery, EventStore, Expected, IdempotencyKey, Position, Tag, Version,
    backend::{CommandKey, Fingerprint, PAGE_BYTES, is_last_page},
    write::rooms::LARGE_BYTES,
};

fn exact(version: u64) -> Expected {
    Expected::Exact(Version::new(version))
}

fn appended(version: u64, position: u64) -> Appended {
    Appended { version: Version::new(version), position: Position::new(position), repeated: false }
}

fn tag() -> Tag {
    Tag::new("size:large").expect("a tag")
}

/// An append of `events` events that are large together, with a tag at the last one.
fn large(id: &str, expected: Expected, events: usize) -> Append {
    let payload = format!("\"{}\"", "large ".repeat(LARGE_BYTES / events / 6 + 1));
    let mut events: Vec<_> = (0..events).map(|_| event(&payload)).collect();
    let last = events.pop().expect("an event").with_tags([tag()]);
    Append::new(stream(id), expected, events.into_iter().chain([last]).collect())
}

/// The streams, versions and bytes of the log, which must be dense.
async fn log(store: &impl EventStore) -> Vec<(String, u64, usize)> {
    let log = store.read_log(Position::ZERO, 10_000).await.expect("the log can be read");
    assert!(log.iter().zip(1..).all(|(event, position)| event.position == Position::new(position)), "a gap");
    log.into_iter().map(|event| (event.stream.id().to_owned(), event.version.get(), event.data.payload.len())).collect()
}

/// R1, R2, R3, R6: few large events, or many smaller ones.
pub async fn r1_a_large_append_is_judged_and_written_like_a_small_one(store: &impl EventStore) {
    for (id, events) in [("few", 2), ("some", 100), ("many", 2_000)] {
        let before = store.head().await.expect("the head").get();
        let count = events as u64;
        store.append(append(id, Expected::NoStream, 1)).await.expect("appended");
        let found = conflict(store.append(large(id, Expected::NoStream, events)).await);
        assert_eq!(found.actual, Version::new(1));
        let expected = large(id, exact(1), events);
        let written = appended(count + 1, before + count + 1);
        assert_eq!(store.append(expected.clone()).await.expect("appended"), written);
        let again = store.append(expected).await.expect("known");
        assert_eq!(again, Appended { repeated: true, ..written });
        let any = large(id, Expected::Any, events);
        let written = appended(2 * count + 1, before + 2 * count + 1);
        assert_eq!(store.append(any.clone()).await.expect("appended"), written);
        assert_eq!(store.append(any).await.expect("known"), Appended { repeated: true, ..written });
        let next = store.append(append(id, exact(2 * count + 1), 1)).await.expect("appended");
        assert_eq!(next, appended(2 * count + 2, before + 2 * count + 2));
        let log = log(store).await;
        let own: Vec<_> = log.iter().filter(|(stream, ..)| stream == id).collect();
        assert!(own.iter().zip(1..).all(|((_, version, _), number)| *version == number), "a gap in the stream");
        let bytes: usize = own.iter().map(|(.., bytes)| bytes).sum();
        assert!(bytes > 2 * LARGE_BYTES, "{bytes} bytes came back");
    }
}

/// R1, R2, R6: conditions, commands, and appends that are made together.
pub async fn r1_large_appends_keep_conditions_commands_and_neighbours(store: &impl EventStore) {
    let (key, other) = (IdempotencyKey::new("key").expect("a key"), Fingerprint::of(b"other"));
    let command = CommandKey::new(key.clone(), Fingerprint::of(b"first"));
    let made = |events, command| Append { command: Some(command), ..large("a", Expected::Any, events) };
    assert_eq!(store.append(made(2, command.clone())).await.expect("appended"), appended(2, 2));
    let again = store.append(made(3, command)).await.expect("known");
    assert_eq!(again, Appended { repeated: true, ..appended(2, 2) });
    let reused = store.append(made(2, CommandKey::new(key, other))).await;
    assert!(matches!(reused, Err(AppendError::KeyReused)), "{reused:?}");

    let claim = |after| Condition::new(EventQuery::tagged([tag()]), Position::new(after));
    let failed = store.append(large("b", Expected::NoStream, 2).on(claim(1))).await;
    let Err(AppendError::ConditionFailed { position }) = failed else { panic!("{failed:?}") };
    assert_eq!(position, Position::new(2));
    assert_eq!(store.append(large("b", Expected::NoStream, 2).on(claim(2))).await.expect("appended"), appended(2, 4));
    let tagged = store.read_matching(&EventQuery::tagged([tag()]), Position::ZERO, 10).await.expect("read");
    assert_eq!(tagged.iter().map(|event| event.position.get()).collect::<Vec<_>>(), [2, 4]);

    let one_is_stale = vec![large("c", Expected::NoStream, 2), append("b", exact(1), 1)];
    assert_eq!(conflict(store.append_together(one_is_stale).await).stream, stream("b"));
    let all = vec![append("b", exact(2), 1), large("c", Expected::NoStream, 2), append("a", Expected::Any, 1)];
    let written = store.append_together(all).await.expect("appended");
    assert_eq!(written, [appended(3, 5), appended(2, 7), appended(3, 8)]);
    let log = log(store).await;
    assert_eq!(log.iter().map(|(stream, ..)| &**stream).collect::<Vec<_>>(), ["a", "a", "b", "b", "b", "c", "c", "a"]);
}

/// R17: a page of the log, of a stream or of a query has at most [`PAGE_BYTES`] and one event more, however many were asked
/// for; a reader does not take its end for the end of what it reads. Seen to fail where a query had no limit of bytes.
pub async fn r17_a_page_ends_with_the_event_that_reaches_its_bytes(store: &impl EventStore) {
    let payload = format!("\"{}\"", "x".repeat(900_000));
    for version in 0..12 {
        let events = vec![event(&payload).with_tags([tag()])];
        store.append(Append::new(stream("large"), exact(version), events)).await.expect("appended");
    }
    let query = EventQuery::tagged([tag()]);
    let fits = PAGE_BYTES.div_ceil(payload.len());
    for (after, expected) in [(0, fits), (fits as u64, 12 - fits)] {
        let (position, version) = (Position::new(after), Version::new(after));
        let pages = [
            store.read_log(position, 1_000).await.expect("read"),
            store.read_stream(&stream("large"), version, 1_000).await.expect("read"),
            store.read_matching(&query, position, 1_000).await.expect("read"),
        ];
        for page in pages {
            assert_eq!(page.len(), expected);
            assert_eq!(page[0].position, position.next());
            assert_eq!(is_last_page(&page, 1_000), after > 0);
        }
    }
}
