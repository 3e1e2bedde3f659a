#![expect(clippy::unwrap_used, reason = "that is how a test fails")]

use es_core::backend::EventSource as _;

use super::*;

const VALUE: &[u8] = br#"{"type":"captured","paymentId":7,"cents":100}"#;

fn record<'a>(key: Option<&'a [u8]>, headers: &[(&'a str, &'a str)], value: Option<&'a [u8]>) -> Record<'a> {
    let headers = headers.iter().map(|(name, value)| (*name, Some(value.as_bytes()))).collect();
    Record {
        topic: "payments",
        partition: 3,
        offset: 41,
        millis: Some(1_700_000_000_000),
        key,
        headers,
        value,
        unreadable: None,
    }
}

fn json() -> Declared {
    let (name, id) = (Some(RecordField::json("/type")), Some(RecordField::json("/paymentId")));
    Declared { name, id, ..Declared::default() }
}

const BINARY: [(&str, &str); 8] = [
    ("ce_specversion", "1.0"),
    ("ce_id", "17"),
    ("ce_source", "/acme"),
    ("ce_type", "captured"),
    ("ce_time", "2026-01-31T12:00:00Z"),
    ("ce_correlationid", "c7a1d7a0-0000-4000-8000-000000000001"),
    ("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
    ("Content-Type", "application/json; charset=utf-8"),
];

#[test]
fn a_cloudevent_is_the_same_message_in_both_modes() {
    let binary = record(Some(b"P-1"), &BINARY, Some(br#"{"cents": 1.50}"#));
    let binary = Declared::default().event(&binary, "payment").unwrap();
    assert_eq!((binary.stream.as_str(), &*binary.data.name), ("payment-P-1", "captured"));
    assert_eq!((binary.position.get(), binary.version.get(), binary.data.schema_version), (42, 42, 1));
    assert_eq!(binary.recorded_at.to_rfc3339(), "2026-01-31T12:00:00+00:00");
    assert_eq!(binary.metadata.correlation_id.unwrap().as_u128() & 0xff, 1);
    assert_eq!((binary.metadata.extra["source"].as_str(), binary.metadata.extra["id"].as_str()), ("/acme", "17"));
    assert!(binary.metadata.traceparent.is_some());

    let value = br#"{"specversion":"1.0","id":"17","source":"/acme","type":"captured","time":"2026-01-31T12:00:00Z",
        "correlationid":"c7a1d7a0-0000-4000-8000-000000000001","data":{"cents": 1.50},"other":{"a":[]},
        "traceparent":"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"}"#;
    let headers = [("content-type", "application/CloudEvents+JSON; charset=UTF-8")];
    let structured = Declared::default().event(&record(Some(b"P-1"), &headers, Some(value)), "payment").unwrap();
    assert_eq!(structured, binary, "to the digits of the data");
}

/// Ids are in idempotency keys: another version of this code must make the same ones.
#[test]
fn r9_a_message_has_the_same_id_wherever_its_producer_repeats_it() {
    let read = |declared: &Declared, record: &Record<'_>| declared.event(record, "payment").unwrap().id;
    let elsewhere = |record| Record { partition: 4, offset: 99, ..record };
    let event = || record(Some(b"P-1"), &BINARY, Some(VALUE));
    let plain = || record(Some(b"P-1"), &[], Some(VALUE));
    let of_place = Declared { id: None, ..json() };
    assert_eq!(read(&json(), &event()).to_string(), "92e1953c-f6c8-5b7e-baa6-c42696d2e2b8");
    assert_eq!(read(&json(), &plain()).to_string(), "a9a90f00-0f5e-5556-ba4a-88baca8cec94");
    assert_eq!(read(&of_place, &plain()).to_string(), "39c3d023-0c88-53ee-b4f6-a33426474eff");
    assert_eq!(read(&json(), &event()), read(&json(), &elsewhere(event())));
    assert_eq!(read(&json(), &plain()), read(&json(), &elsewhere(plain())));
    assert_ne!(read(&of_place, &plain()), read(&of_place, &elsewhere(plain())));
    // What runs into each other to the same text is not the same.
    let mut other = BINARY;
    (other[1].1, other[2].1) = ("e17", "/acm");
    assert_ne!(read(&json(), &event()), read(&json(), &record(None, &other, Some(VALUE))));
}

#[test]
fn plain_json_has_its_name_and_id_where_that_is_declared() {
    let event = json().event(&record(Some(b"P-1"), &[], Some(VALUE)), "payment").unwrap();
    assert_eq!((&*event.data.name, &event.data.payload[..]), ("captured", VALUE));
    assert_eq!(event.recorded_at.timestamp_millis(), 1_700_000_000_000);
    let declared = Declared {
        name: Some(RecordField::constant("payment")),
        id: Some(RecordField::header("message-id")),
        ..Declared::default()
    };
    let headers = [("message-id", "m-1"), ("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")];
    let event = declared.event(&record(None, &headers, Some(VALUE)), "payment").unwrap();
    assert_eq!((&*event.data.name, event.metadata.traceparent.is_some()), ("payment", true));
}

#[test]
fn every_key_names_a_stream() {
    let long = [b'x'; 2_000];
    let stream = |key: Option<&[u8]>| {
        json().event(&record(key, &[], Some(VALUE)), "payment").unwrap().stream.as_str().to_owned()
    };
    assert_eq!(stream(None), "payment-partition:3");
    assert_eq!(stream(Some(b"")), "payment-hex:");
    assert_eq!(stream(Some(&[0, 255])), "payment-hex:00ff");
    assert_eq!(stream(Some("größe 1".as_bytes())), "payment-größe 1");
    assert!(stream(Some(&long)).starts_with("payment-key:"));
    assert_ne!(stream(Some(&long)), stream(Some(&long[1..])));
}

#[test]
fn a_tombstone_is_passed_over_or_handed_over() {
    let tombstone = record(Some(b"P-1"), &[], None);
    assert_eq!(json().event(&tombstone, "payment"), None);
    let declared = Declared { tombstone: Some("deleted".to_owned()), ..json() };
    let event = declared.event(&tombstone, "payment").unwrap();
    assert_eq!((&*event.data.name, &event.data.payload[..]), ("deleted", &b"{}"[..]));
    assert_eq!(event.stream.as_str(), "payment-P-1");
    // A CloudEvent without data has a type of its own.
    let event = declared.event(&record(Some(b"P-1"), &BINARY, None), "payment").unwrap();
    assert_eq!((&*event.data.name, &event.data.payload[..]), ("captured", &b"{}"[..]));
}

/// The dead letter has all of the record, and nothing else tells values of it (R14).
#[test]
fn r11_a_record_that_cannot_be_read_is_an_event_that_holds_it() {
    let cloud = |name: &'static str, value: &'static str| -> Vec<(&'static str, &'static str)> {
        BINARY.iter().map(|(key, was)| (*key, if *key == name { value } else { *was })).collect()
    };
    let structured = vec![("content-type", "application/cloudevents+json")];
    let batch = vec![("content-type", "application/cloudevents-batch+json")];
    for (declared, headers, value, reason) in [
        (Declared::default(), vec![], VALUE, "it is no CloudEvent"),
        (json(), vec![], &b"hunter2"[..], "no JSON"),
        (json(), vec![], &[b'"', 0xff, b'"'][..], "no JSON"),
        (json(), vec![], br#"{"type":"hunter2"}"#, "nothing at \"/paymentId\""),
        (json(), vec![], br#"{"type":["hunter2"],"paymentId":1}"#, "neither a text nor a whole number at \"/type\""),
        (json(), vec![], br#"{"type":"hunter2","paymentId":1.5}"#, "neither a text nor a whole number"),
        (json(), vec![], b"{\"type\":\"hunter2\\u0000\",\"paymentId\":1}", "control characters"),
        (json(), cloud("ce_specversion", "hunter2"), VALUE, "not 1.0"),
        (json(), cloud("ce_id", ""), VALUE, "header ce_id is missing"),
        (json(), cloud("ce_type", UNREADABLE), VALUE, "reserved"),
        (json(), cloud("Content-Type", "application/avro"), VALUE, "not JSON"),
        (json(), cloud("Content-Type", "application/json"), b"hunter2", "no JSON"),
        (json(), structured, br#"{"specversion":"1.0","id":["hunter2"]}"#, "no CloudEvent in JSON"),
        (json(), batch, b"[]", "a record for each"),
    ] {
        let raw = record(Some(b"P-1"), &headers, Some(value));
        let event = declared.event(&raw, "payment").unwrap();
        assert_eq!((&*event.data.name, event.stream.as_str(), event.position.get()), (UNREADABLE, "payment-P-1", 42));
        let told = declared.read(&raw, "payment").unwrap_err();
        assert!(told.contains(reason) && !told.contains("hunter2"), "{told}");
        // It is read again, and fails in the same way.
        let kept = Raw::decode(&event.data.payload).unwrap();
        assert_eq!(kept, Raw::of(&kept.record(), told.clone()));
        assert_eq!((kept.record().value, kept.record().headers), (Some(value), raw.headers));
        assert_eq!(declared.read(&kept.record(), "payment").unwrap_err(), told);
    }
}

#[test]
fn r11_what_was_declared_wrongly_is_read_again_as_it_is_declared_now() {
    let wrong = Declared { name: Some(RecordField::json("/kind")), ..json() };
    let event = wrong.event(&record(Some(b"P-1"), &[], Some(VALUE)), "payment").unwrap();
    let topic = |pointer| super::super::KafkaTopic::new("", "payments").named_by(RecordField::json(pointer));
    assert!(topic("/kind").read_again(&event).is_err());
    let read = topic("/type").read_again(&event).unwrap();
    assert_eq!((&*read.data.name, &read.data.payload[..], read.position), ("captured", VALUE, event.position));
}
