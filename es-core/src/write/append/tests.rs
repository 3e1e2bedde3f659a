use uuid::Uuid;

use super::{Append, CommandKey, Fingerprint, IdempotencyKey, InvalidAppend, command_id, validate_together};
use crate::{
    Condition, EventData, EventQuery, Expected, NewEvent, Position, StreamId, Tag, Version,
    limits::{
        MAX_APPEND_BYTES, MAX_EVENT_NAME_BYTES, MAX_EVENTS, MAX_METADATA_BYTES, MAX_PAYLOAD_BYTES, MAX_TAG_BYTES,
        MAX_TAGS, PAGE_BYTES,
    },
};

fn data() -> EventData {
    EventData { name: "test.happened".into(), schema_version: 1, payload: "{}".into() }
}

fn stream(id: &str) -> StreamId {
    StreamId::new("test", id).expect("a stream")
}

fn of(id: &str, data: &EventData, events: usize) -> Append {
    let events = (0..events).map(|_| NewEvent::new(data.clone())).collect();
    Append::new(stream(id), Expected::NoStream, events)
}

/// An event whose payload has so many bytes.
fn sized(bytes: usize) -> EventData {
    EventData { payload: format!("\"{}\"", "x".repeat(bytes - 2)).into(), ..data() }
}

#[test]
fn r15_an_append_is_valid_up_to_its_limits() {
    let named = |name: String| of("a", &EventData { name: name.into(), ..data() }, 1).validate();
    assert_eq!(named("x".repeat(MAX_EVENT_NAME_BYTES)), Ok(()));
    assert!(matches!(named("x".repeat(MAX_EVENT_NAME_BYTES + 1)), Err(InvalidAppend::EventName { event: 0, .. })));
    for (name, valid) in [("a_b.c-1", true), ("", false), ("Ab", false), ("a b", false), ("ä", false), ("a/b", false)]
    {
        assert_eq!(named(name.into()).is_ok(), valid, "{name:?}");
    }
    let version = |schema_version| of("a", &EventData { schema_version, ..data() }, 1).validate();
    assert_eq!(version(i32::MAX as u32), Ok(()));
    assert_eq!(version(i32::MAX as u32 + 1), Err(InvalidAppend::SchemaVersion { event: 0 }));
    assert_eq!(version(0), Err(InvalidAppend::SchemaVersion { event: 0 }));
    assert_eq!(of("a", &data(), 0).validate(), Err(InvalidAppend::Empty));
    assert_eq!(of("a", &data(), MAX_EVENTS).validate(), Ok(()));
    let events = MAX_EVENTS + 1;
    assert_eq!(of("a", &data(), events).validate(), Err(InvalidAppend::TooManyEvents { events }));
    assert_eq!(of("a", &sized(MAX_PAYLOAD_BYTES), 1).validate(), Ok(()));
    let bytes = MAX_PAYLOAD_BYTES + 1;
    assert_eq!(of("a", &sized(bytes), 1).validate(), Err(InvalidAppend::PayloadTooLarge { event: 0, bytes }));
    let tagged = |tags: usize| {
        let tags = (0..tags).map(|nth| Tag::new(format!("n:{nth}")).expect("a tag"));
        Append::new(stream("a"), Expected::Any, vec![NewEvent::new(data()).with_tags(tags)])
    };
    assert_eq!(tagged(MAX_TAGS).validate(), Ok(()));
    let tags = MAX_TAGS + 1;
    assert_eq!(tagged(tags).validate(), Err(InvalidAppend::TooManyTags { event: 0, tags }));
    let noted = |bytes: usize| {
        let mut append = of("a", &data(), 1);
        append.events[0].metadata.extra.insert("note".into(), "x".repeat(bytes));
        append
    };
    let rest = MAX_METADATA_BYTES - noted(0).events[0].metadata.encode().expect("a note").len();
    assert_eq!(noted(rest).validate(), Ok(()));
    let bytes = MAX_METADATA_BYTES + 1;
    assert_eq!(noted(rest + 1).validate(), Err(InvalidAppend::MetadataTooLarge { event: 0, bytes }));
    let nothing = Condition::new(EventQuery::tagged([]), Position::ZERO);
    assert!(matches!(of("a", &data(), 1).on(nothing).validate(), Err(InvalidAppend::Condition(_))));
}

/// Logs hold what earlier versions let in, and an import or a copy of them must be let in too.
#[test]
fn r15_limits_do_not_shrink() {
    assert_eq!((MAX_APPEND_BYTES, PAGE_BYTES), (67_108_864, 8_388_608));
    assert_eq!((MAX_EVENTS, MAX_PAYLOAD_BYTES, MAX_METADATA_BYTES), (10_000, 1_000_000, 16_384));
}

/// The bytes are those of tags, which events share, so that the test needs neither the memory nor the time of 64 MiB.
#[test]
fn r15_an_append_as_a_whole_has_a_limit_in_bytes() {
    let tag = |nth: usize| Tag::new(format!("{nth:0MAX_TAG_BYTES$}")).expect("a tag");
    let tagged = NewEvent::new(data()).with_tags((0..MAX_TAGS).map(tag));
    let each = 2 + MAX_TAGS * MAX_TAG_BYTES;
    let mut full = of("a", &sized(MAX_APPEND_BYTES % each), 1);
    full.events.extend(std::iter::repeat_n(tagged, MAX_APPEND_BYTES / each));
    assert_eq!(full.validate(), Ok(()));
    assert_eq!(validate_together(std::slice::from_ref(&full)), Ok(()));
    let bytes = MAX_APPEND_BYTES + 2;
    let mut over = full.clone();
    over.events.push(NewEvent::new(data()));
    assert_eq!(over.validate(), Err(InvalidAppend::AppendTooLarge { bytes }));
    assert_eq!(validate_together(&[full, of("b", &data(), 1)]), Err(InvalidAppend::AppendTooLarge { bytes }));
}

#[test]
fn r15_appends_together_keep_the_limits_of_one() {
    assert_eq!(validate_together(&[]), Err(InvalidAppend::Empty));
    assert_eq!(validate_together(&[of("a", &data(), MAX_EVENTS - 1), of("b", &data(), 1)]), Ok(()));
    let events = MAX_EVENTS + 1;
    let over = validate_together(&[of("a", &data(), MAX_EVENTS), of("b", &data(), 1)]);
    assert_eq!(over, Err(InvalidAppend::TooManyEvents { events }));
    let twice = validate_together(&[of("a", &data(), 1), of("a", &data(), 1)]);
    assert_eq!(twice, Err(InvalidAppend::SameStream { stream: stream("a") }));
}

#[test]
fn r15_an_expected_version_leaves_room_for_the_events() {
    let highest = i64::MAX as u64 - MAX_EVENTS as u64;
    let at = |version| Append { expected: Expected::Exact(Version::new(version)), ..of("a", &data(), 1) }.validate();
    assert_eq!(at(highest), Ok(()));
    assert_eq!(at(highest + 1), Err(InvalidAppend::VersionOverflow));
}

#[test]
fn r6_an_append_is_remembered_by_its_command_or_its_first_event_where_no_version_tells() {
    let key = IdempotencyKey::new("request-1").expect("a key");
    let fingerprint = Fingerprint::of(b"content");
    let any = Append { expected: Expected::Any, ..of("a", &data(), 2) };
    let exact = Append { expected: Expected::Exact(Version::new(1)), ..any.clone() };
    assert_eq!(exact.remembered(), None);
    let first = any.events[0].id;
    let remembered = any.remembered().expect("its first event");
    // It begins as the event's id does, and goes on as a hash of it and the stream.
    let (id, hash) = (*remembered.id.as_bytes(), *command_id(&any.stream, &first.into()).as_bytes());
    assert_eq!((&id[..6], &id[6..]), (&first.as_bytes()[..6], &hash[6..]));
    assert_eq!(remembered.fingerprint, Fingerprint::of(first.as_bytes()));
    let command =
        |scope| Append { command: Some(CommandKey { key: key.clone(), fingerprint, scope }), ..exact.clone() };
    let remembered = command(None).remembered().expect("its command");
    assert_eq!((remembered.id, remembered.fingerprint), (command_id(&stream("a"), &key), fingerprint));
    let scoped = command(Some(stream("b"))).remembered().expect("its command");
    assert_eq!(scoped.id, command_id(&stream("b"), &key));
}

#[test]
fn r6_a_command_id_is_a_hash_of_both_its_parts() {
    let key = |text: &str| IdempotencyKey::new(text).expect("a key");
    // What stores have kept must be found again: this is the first half of a SHA-256.
    let id = command_id(&stream("a"), &key("b"));
    assert_eq!(id, Uuid::from_u128(0x5cb5_eb6b_6da2_82f1_b885_3c7d_e4e4_3fbd));
    assert_ne!(id, command_id(&stream("ab"), &key("b")));
    assert_ne!(id, command_id(&stream("a"), &key("c")));
    assert_eq!(Fingerprint::from(*Fingerprint::of(b"x").as_bytes()), Fingerprint::of(b"x"));
    assert_ne!(Fingerprint::of(b"x"), Fingerprint::of(b"y"));
}

#[test]
fn r15_a_key_has_1_to_255_bytes_without_control_characters() {
    for (text, valid) in [
        ("k".repeat(IdempotencyKey::MAX_BYTES), true),
        ("k".repeat(IdempotencyKey::MAX_BYTES + 1), false),
        (String::new(), false),
        ("a\nb".to_owned(), false),
    ] {
        assert_eq!(IdempotencyKey::new(text.clone()).map(|key| key.as_str().to_owned()).ok(), valid.then_some(text));
    }
    let id = Uuid::from_u128(7);
    assert_eq!(IdempotencyKey::from(id).as_str(), id.to_string());
}
