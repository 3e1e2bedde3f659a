//! Event stores: input that is refused before anything is written (R15).

use super::event_store::{append, event, stream};
use es_core::{
    Append, AppendError, Appended, EventStore, Expected, Metadata, Position, Version,
    backend::{InvalidAppend, MAX_EVENTS, MAX_METADATA_BYTES, MAX_PAYLOAD_BYTES},
    limits::MAX_NESTING,
};

#[track_caller]
fn invalid(outcome: Result<Appended, AppendError>) -> InvalidAppend {
    match outcome {
        Err(AppendError::Invalid(reason)) => reason,
        other => panic!("expected a refusal of the input, got {other:?}"),
    }
}

async fn try_payload(store: &impl EventStore, payload: impl Into<bytes::Bytes>) -> Result<Appended, AppendError> {
    let mut bad = event("");
    bad.data.payload = payload.into();
    store.append(Append::new(stream("bad"), Expected::Any, vec![event("{}"), bad])).await
}

async fn assert_empty(store: &impl EventStore) {
    assert_eq!(store.head().await.expect("a head"), Position::ZERO);
}

/// R15
pub async fn r15_an_empty_append_is_refused(store: &impl EventStore) {
    assert_eq!(invalid(store.append(append("a", Expected::Any, 0)).await), InvalidAppend::Empty);
    assert_empty(store).await;
}

/// R15
pub async fn r15_oversize_input_is_refused(store: &impl EventStore) {
    let events = MAX_EVENTS + 1;
    let reason = invalid(store.append(append("a", Expected::Any, events)).await);
    assert_eq!(reason, InvalidAppend::TooManyEvents { events });
    let bytes = MAX_PAYLOAD_BYTES + 1;
    let reason = invalid(try_payload(store, format!("\"{}\"", "x".repeat(bytes - 2))).await);
    assert_eq!(reason, InvalidAppend::PayloadTooLarge { event: 1, bytes });
    let huge =
        event("{}").with_metadata(Metadata { actor: Some("x".repeat(MAX_METADATA_BYTES)), ..Metadata::default() });
    let reason = invalid(store.append(Append::new(stream("a"), Expected::Any, vec![huge])).await);
    assert!(matches!(reason, InvalidAppend::MetadataTooLarge { event: 0, .. }), "{reason}");
    assert_empty(store).await;
    let largest = format!("\"{}\"", "x".repeat(MAX_PAYLOAD_BYTES - 2));
    try_payload(store, largest.clone()).await.expect("the limit itself is allowed");
    let stored = store.read_log(Position::new(1), 1).await.expect("a read");
    assert_eq!(stored[0].data.payload, largest);
}

/// R15
pub async fn r15_broken_text_is_refused(store: &impl EventStore) {
    let reason = invalid(try_payload(store, &b"\"\xff\""[..]).await);
    assert_eq!(reason, InvalidAppend::NotUtf8 { event: 1 });
    for nul in [r#""a\u0000b""#, r#"{"a":["\u0000"]}"#, r#"{"\u0000":1}"#] {
        assert_eq!(invalid(try_payload(store, nul).await), InvalidAppend::Nul { event: 1 });
    }
    for broken in ["", "{", "nul", "{} {}", r#""\ud800""#, "\"\0\""] {
        let reason = invalid(try_payload(store, broken).await);
        assert!(matches!(reason, InvalidAppend::NotJson { event: 1, .. }), "{broken:?}: {reason}");
    }
    let mut named = event("{}");
    for name in ["", "Order Placed", "a\0b", &"x".repeat(129)] {
        named.data.name = name.into();
        let reason = invalid(store.append(Append::new(stream("a"), Expected::Any, vec![named.clone()])).await);
        assert!(matches!(reason, InvalidAppend::EventName { event: 0, .. }), "{name:?}: {reason}");
    }
    let mut versioned = event("{}");
    for version in [0, u32::MAX] {
        versioned.data.schema_version = version;
        let reason = invalid(store.append(Append::new(stream("a"), Expected::Any, vec![versioned.clone()])).await);
        assert_eq!(reason, InvalidAppend::SchemaVersion { event: 0 });
    }
    assert_empty(store).await;
    try_payload(store, r#""\\u0000 is no NUL""#).await.expect("an escaped backslash is harmless");
}

/// R15: JSON that one decoder refuses is refused, also if another decoder does not check.
pub async fn r15_json_that_not_every_decoder_reads_is_refused(store: &impl EventStore) {
    let nested = |levels, inner: &str| format!("{}{inner}{}", "[".repeat(levels), "]".repeat(levels));
    for inner in ["", r#""\u0041""#, r#"{"a":"[[[["}"#] {
        for levels in [MAX_NESTING + 1, 127, 128, 490_000] {
            let reason = invalid(try_payload(store, nested(levels, inner)).await);
            assert_eq!(reason, InvalidAppend::TooDeep { event: 1 }, "{levels} {inner}");
        }
    }
    let long = format!("0.{}1", "0".repeat(20_000));
    for number in ["1e400", "-1e400", "1e200000", "1e-20000", "0e400000", "1E99999999999", &"9".repeat(400), &long] {
        let after_a_quote = format!(r#"["{}\"",{number}]"#, "a".repeat(40));
        let after_a_letter = format!(r#"["\u0041",{number}]"#);
        for payload in [number.to_owned(), format!(r#"{{"a":[{number}]}}"#), after_a_letter, after_a_quote] {
            let reason = invalid(try_payload(store, payload).await);
            assert_eq!(reason, InvalidAppend::Number { event: 1 }, "{number:.20}");
        }
    }
    for half in [r#""\ud800""#, r#"{"\udc00":1}"#, r#"["\ud800\u0041"]"#, r#""\udc00\ud800""#] {
        let reason = invalid(try_payload(store, half).await);
        assert!(matches!(reason, InvalidAppend::NotJson { event: 1, .. }), "{half}: {reason}");
    }
    assert_empty(store).await;
    let sound = [
        nested(MAX_NESTING, ""),
        format!("[{}]", ["[]"; 1_000].join(",")),
        format!("[{}]", [r#"{"a":1}"#; 1_000].join(",")),
        format!(r#""{}""#, "[".repeat(200)),
        r#""\ud83e\udd80\\u0000""#.to_owned(),
        r#""\ud800\udc00\ud800\udc01""#.to_owned(),
        format!("[{},{},{}]", f64::MAX, f64::MIN_POSITIVE, 5e-324),
        format!("[{:?},-0.0,1E+5,{},{}]", f64::MAX, u64::MAX, i128::MIN),
    ];
    for payload in &sound {
        try_payload(store, payload.clone()).await.expect(payload);
    }
    let stored = store.read_log(Position::ZERO, 100).await.expect("a read");
    for (stored, payload) in stored.iter().skip(1).step_by(2).zip(&sound) {
        assert_eq!(stored.data.payload, *payload);
        serde_json::from_slice::<serde_json::Value>(&stored.data.payload).expect("every reader reads it");
    }
}

/// R15
pub async fn r15_an_overflowing_version_is_refused(store: &impl EventStore) {
    for version in [u64::MAX, i64::MAX as u64] {
        let reason = invalid(store.append(append("a", Expected::Exact(Version::new(version)), 1)).await);
        assert_eq!(reason, InvalidAppend::VersionOverflow);
    }
    assert_eq!(store.read_log(Position::new(u64::MAX), 1).await.expect("a read"), []);
    assert_eq!(store.read_stream(&stream("a"), Version::new(u64::MAX), 1).await.expect("a read"), []);
    assert_empty(store).await;
}

/// R4, R15
pub async fn r15_a_refused_append_leaves_its_neighbours_alone<S: EventStore + Clone>(store: &S) {
    let mut appends = tokio::task::JoinSet::new();
    for number in 0..60 {
        let store = store.clone();
        appends.spawn(async move {
            let id = format!("s{number}");
            if number % 3 == 0 {
                invalid(store.append(append(&id, Expected::Any, 0)).await);
            } else {
                store.append(append(&id, Expected::NoStream, 1)).await.expect("a good one succeeds");
            }
        });
    }
    appends.join_all().await;
    assert_eq!(store.head().await.expect("a head"), Position::new(40));
}
