//! An event as a Kafka record: `CloudEvents` 1.0 in binary mode.
//!
//! The value is the payload as it was written, the key is the stream's name, and everything else is
//! in headers: the attributes of `CloudEvents` as `ce_…`, the trace context as plain `traceparent`
//! and `tracestate`. The record's own timestamp is the time of publishing; when the event was
//! recorded stands in `ce_time`, since retention would act on an old timestamp.

use std::{collections::BTreeMap, fmt::Display, str::FromStr};

use bytes::Bytes;
use chrono::{DateTime, SecondsFormat, Utc};
use es_core::{EventData, Metadata, Position, RecordedEvent, StreamId, Version, backend::Witness, codec};
use rdkafka::{
    Message,
    message::{Header, Headers, OwnedHeaders},
};
use uuid::Uuid;

use crate::{
    claim::{self, Claim},
    claim_check::ClaimCheck,
    headers::headers_of,
};

/// How many headers an event has at most.
const MAX_HEADERS: usize = 17 + claim::HEADERS;

/// The headers of `event`. `source` is the `ce_source`: who writes these events, as a URI reference
/// such as `/orders`. `previous` is the position of the event before it in its partition, 0 for the first
/// one: by it a reader knows that nothing is missing between the two, and nothing was put there.
pub fn headers(event: &RecordedEvent, source: &str, previous: Position) -> OwnedHeaders {
    let stream = event.stream.as_str();
    let metadata = &event.metadata;
    // Micros, unless the store knows more: the round trip is exact.
    let precision = if event.recorded_at.timestamp_subsec_nanos().is_multiple_of(1_000) {
        SecondsFormat::Micros
    } else {
        SecondsFormat::Nanos
    };
    let mut headers = OwnedHeaders::new_with_capacity(MAX_HEADERS);
    let mut put = |key, value: &str| {
        let grown = std::mem::take(&mut headers).insert(Header { key, value: Some(value) });
        headers = grown;
    };
    put("content-type", "application/json");
    put("ce_specversion", "1.0");
    put("ce_id", &event.id.to_string());
    put("ce_source", source);
    put("ce_type", &event.data.name);
    put("ce_time", &event.recorded_at.to_rfc3339_opts(precision, true));
    put("ce_subject", stream);
    put("ce_position", &event.position.to_string());
    put("ce_previous", &previous.to_string());
    put("ce_version", &event.version.to_string());
    put("ce_schemaversion", &event.data.schema_version.to_string());
    if let Some(id) = metadata.correlation_id {
        put("ce_correlationid", &id.to_string());
    }
    if let Some(id) = metadata.causation_id {
        put("ce_causationid", &id.to_string());
    }
    if let Some(actor) = &metadata.actor {
        put("ce_actor", actor);
    }
    if let Some(traceparent) = &metadata.traceparent {
        put("traceparent", traceparent);
    }
    if let Some(tracestate) = &metadata.tracestate {
        put("tracestate", tracestate);
    }
    if !metadata.extra.is_empty() {
        let extra = serde_json::to_string(&metadata.extra).expect("a map of texts");
        put("ce_metadata", &extra);
    }
    headers
}

/// The headers of `event`, and the value of its record: empty, and not null, if its payload is elsewhere.
pub(crate) fn written<'a>(
    event: &'a RecordedEvent,
    source: &str,
    previous: Position,
    claim: Option<&Claim>,
) -> (OwnedHeaders, &'a [u8]) {
    let headers = headers(event, source, previous);
    match claim {
        Some(claim) => (claim.put(headers), &[]),
        None => (headers, &event.data.payload),
    }
}

/// What a batch of records, a record and each of its headers take beside texts, at most.
const FRAME: usize = 61 + 32;
const HEADER_FRAME: usize = 10;

/// How many bytes `event` takes as the only record of its batch, before it is compressed: at most.
pub(crate) fn size(event: &RecordedEvent, source: &str, claim_check: Option<&ClaimCheck>) -> usize {
    let headers = headers(event, source, event.position);
    let headers = headers.iter().map(|header| HEADER_FRAME + header.key.len() + header.value.map_or(0, <[u8]>::len));
    let payload = match claim_check.filter(|check| check.takes(event)) {
        Some(check) => claim::HEADERS * HEADER_FRAME + check.header_bytes(),
        None => event.data.payload.len(),
    };
    FRAME + event.stream.as_str().len() + payload + headers.sum::<usize>()
}

pub(crate) fn place(record: &impl Message) -> String {
    place_of(record.topic(), record.partition(), record.offset())
}

pub(crate) fn place_of(topic: &str, partition: i32, offset: i64) -> String {
    format!("{topic}/{partition} offset {offset}")
}

/// What a record says of its place, readable also where the rest is not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Heading {
    pub(crate) position: Position,
    /// The position of the record before it in its partition.
    pub(crate) previous: Position,
    pub(crate) witness: Witness,
}

impl Heading {
    pub(crate) fn of(record: &impl Message) -> Result<Self, String> {
        let heading = Self::claimed(record)?;
        if heading.previous < heading.position {
            Ok(heading)
        } else {
            Err(format!("position {} follows position {}", heading.position, heading.previous))
        }
    }

    /// The same, also where it cannot be right.
    pub(crate) fn claimed(record: &impl Message) -> Result<Self, String> {
        record.headers().ok_or("there are no headers")?;
        let find = |name: &str| {
            let header = headers_of(record).filter_map(Result::ok).find(|header| header.key == name);
            let value = header.and_then(|header| header.value);
            std::str::from_utf8(value.ok_or_else(|| format!("header {name} is missing"))?)
                .map_err(|_| format!("header {name} is not UTF-8"))
        };
        let number = |name: &str| -> Result<Position, String> {
            let number = find(name)?.parse().map_err(|reason| format!("header {name}: {reason}"))?;
            Ok(Position::new(number))
        };
        let event_id = find("ce_id")?.parse().map_err(|reason| format!("header ce_id: {reason}"))?;
        let recorded_at = find("ce_time")?.parse().map_err(|reason| format!("header ce_time: {reason}"))?;
        let witness = Witness { event_id, recorded_at };
        Ok(Self { position: number("ce_position")?, previous: number("ce_previous")?, witness })
    }
}

/// The event that a record holds. Where it has a claim, its payload is elsewhere, and here it is empty.
pub(crate) fn parse(record: &impl Message) -> Result<(RecordedEvent, Option<Claim>), String> {
    let fields = Fields::of(record)?;
    let specversion: String = fields.required("ce_specversion")?;
    if specversion != "1.0" {
        return Err("ce_specversion is not 1.0".to_owned());
    }
    let key = record.key().ok_or("the key is missing")?;
    let stream: StreamId = std::str::from_utf8(key)
        .map_err(|_| "the key is not UTF-8")?
        .parse()
        .map_err(|reason| format!("the key: {reason}"))?;
    if fields.text("ce_subject").is_some_and(|subject| subject != stream.as_str()) {
        return Err("ce_subject is not the key".to_owned());
    }
    let name: String = fields.required("ce_type")?;
    let extra = match fields.text("ce_metadata") {
        Some(text) => codec::decode(text.as_bytes()).map_err(|reason| format!("ce_metadata: {reason}"))?,
        None => BTreeMap::new(),
    };
    let owned = |name| fields.text(name).map(str::to_owned);
    let claim = Claim::read(|name| fields.text(name))?;
    let value = record.payload().ok_or("the value is missing")?;
    if claim.is_some() && !value.is_empty() {
        return Err("it has a value, and its payload is elsewhere".to_owned());
    }
    let event = RecordedEvent {
        position: Position::new(fields.required("ce_position")?),
        stream,
        version: Version::new(fields.required("ce_version")?),
        id: fields.required("ce_id")?,
        recorded_at: fields.required::<DateTime<Utc>>("ce_time")?,
        metadata: Metadata {
            correlation_id: fields.optional::<Uuid>("ce_correlationid")?,
            causation_id: fields.optional::<Uuid>("ce_causationid")?,
            actor: owned("ce_actor"),
            traceparent: owned("traceparent"),
            tracestate: owned("tracestate"),
            extra,
        },
        data: EventData {
            name: name.into(),
            schema_version: fields.required("ce_schemaversion")?,
            payload: Bytes::copy_from_slice(value),
        },
    };
    Ok((event, claim))
}

/// The headers of a record; a dozen is searched faster than hashed.
struct Fields<'a>(Vec<(&'a str, &'a str)>);

impl<'a> Fields<'a> {
    fn of(record: &'a impl Message) -> Result<Self, String> {
        let headers = record.headers().ok_or("there are no headers")?;
        let mut fields = Vec::with_capacity(headers.count());
        for header in headers_of(record) {
            let header = header.map_err(|unreadable| unreadable.to_string())?;
            let Some(value) = header.value else { continue };
            let value = std::str::from_utf8(value).map_err(|_| format!("header {} is not UTF-8", header.key))?;
            fields.push((header.key, value));
        }
        Ok(Self(fields))
    }

    fn text(&self, name: &str) -> Option<&'a str> {
        self.0.iter().find(|(key, _)| *key == name).map(|(_, value)| *value)
    }

    fn optional<T: FromStr<Err: Display>>(&self, name: &str) -> Result<Option<T>, String> {
        self.text(name).map(|value| value.parse().map_err(|reason| format!("header {name}: {reason}"))).transpose()
    }

    fn required<T: FromStr<Err: Display>>(&self, name: &str) -> Result<T, String> {
        self.optional(name)?.ok_or_else(|| format!("header {name} is missing"))
    }
}

/// `event` as the relay publishes it.
#[cfg(test)]
pub(crate) fn published(
    event: &RecordedEvent,
    topic: &str,
    partition: i32,
    offset: i64,
    previous: Position,
) -> rdkafka::message::OwnedMessage {
    rdkafka::message::OwnedMessage::new(
        Some(event.data.payload.to_vec()),
        Some(event.stream.as_str().as_bytes().to_vec()),
        topic.to_owned(),
        rdkafka::Timestamp::NotAvailable,
        partition,
        offset,
        Some(headers(event, "/test", previous)),
    )
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "that is how a test fails")]
mod tests {
    use rdkafka::{Timestamp, message::OwnedMessage};

    use super::*;
    use crate::payloads::decode;

    fn event(metadata: Metadata) -> RecordedEvent {
        RecordedEvent {
            position: Position::new(42),
            stream: StreamId::new("order", "ORD-1 ü").unwrap(),
            version: Version::new(7),
            id: Uuid::now_v7(),
            recorded_at: DateTime::from_timestamp_micros(1_700_000_000_000_001).unwrap(),
            metadata,
            data: EventData {
                name: "order.placed".into(),
                schema_version: 2,
                payload: Bytes::from_static(b"{ \"a\": 1}"),
            },
        }
    }

    fn message(event: &RecordedEvent, headers: OwnedHeaders) -> OwnedMessage {
        OwnedMessage::new(
            Some(event.data.payload.to_vec()),
            Some(event.stream.as_str().as_bytes().to_vec()),
            "order-events".to_owned(),
            Timestamp::NotAvailable,
            3,
            17,
            Some(headers),
        )
    }

    #[test]
    fn a_record_gives_back_the_very_event() {
        let rich = Metadata {
            correlation_id: Some(Uuid::now_v7()),
            causation_id: Some(Uuid::now_v7()),
            traceparent: Some("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".into()),
            tracestate: Some("a=b".into()),
            actor: Some("Ä. Müller".into()),
            extra: BTreeMap::from([("tenant".into(), "blue".into())]),
        };
        for metadata in [Metadata::default(), rich] {
            let event = event(metadata);
            assert_eq!(decode(&message(&event, headers(&event, "/orders", Position::new(40)))).unwrap(), event);
        }
        let mut precise = event(Metadata::default());
        precise.recorded_at += chrono::TimeDelta::nanoseconds(1);
        assert_eq!(decode(&message(&precise, headers(&precise, "/orders", Position::new(40)))).unwrap(), precise);
    }

    #[test]
    fn attributes_have_the_names_of_cloudevents() {
        let event = event(Metadata::default());
        let message = message(&event, headers(&event, "/orders", Position::new(40)));
        let fields = Fields::of(&message).unwrap();
        assert_eq!(fields.text("content-type"), Some("application/json"));
        assert_eq!(fields.text("ce_source"), Some("/orders"));
        assert_eq!(fields.text("ce_time"), Some("2023-11-14T22:13:20.000001Z"));
        assert_eq!(fields.text("ce_subject"), Some("order-ORD-1 ü"));
        assert_eq!(fields.text("ce_metadata"), None);
        assert_eq!(fields.text("tracestate"), None);
    }

    #[test]
    fn r14_an_error_about_a_record_repeats_nothing_of_it() {
        let event = event(Metadata::default());
        for (damaged, value) in [
            ("ce_metadata", r#"{"a":["hunter2"]}"#),
            ("ce_metadata", r#""hunter2""#),
            ("ce_position", "hunter2"),
            ("ce_specversion", "hunter2"),
        ] {
            let sound = headers(&event, "/orders", Position::new(40));
            let others = sound.iter().filter(|header| header.key != damaged);
            let mut all = OwnedHeaders::new().insert(Header { key: damaged, value: Some(value) });
            for header in others {
                all = all.insert(header);
            }
            let error = decode(&message(&event, all)).unwrap_err();
            let text = format!("{error} {error:?}");
            assert!(text.contains(damaged) && !text.contains("hunter2"), "{text}");
        }
    }

    #[test]
    fn a_damaged_record_is_an_error_that_names_its_place() {
        let event = event(Metadata::default());
        let foreign = OwnedHeaders::new().insert(Header { key: "ce_specversion", value: Some("1.0") });
        let error = decode(&message(&event, foreign)).unwrap_err().to_string();
        assert_eq!(error, "the record at order-events/3 offset 17 is damaged: header ce_type is missing");
    }
}
