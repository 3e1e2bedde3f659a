//! A record of another system as an event.

#[cfg(test)]
mod tests;

use chrono::{DateTime, Utc};
use es_core::{
    EventData, Metadata, Position, RecordedEvent, StreamId, Version,
    backend::{UNREADABLE, check_payload},
};
use serde_json::Value;
use uuid::Uuid;

use super::{
    declared::{Declared, RecordField},
    record::{Raw, Record, hex},
    structured, time,
};

/// The name spaces of ids: of a `CloudEvent`, of what a declared field identifies, and of a place in a topic. The same record has the
/// same id for ever: ids are in idempotency keys.
const OF_CLOUDEVENT: Uuid = Uuid::from_u128(0x6d1f_1b02_7c0e_4f0b_9a53_2f4f_0c1f_a001);
const OF_FIELD: Uuid = Uuid::from_u128(0x6d1f_1b02_7c0e_4f0b_9a53_2f4f_0c1f_a002);
const OF_PLACE: Uuid = Uuid::from_u128(0x6d1f_1b02_7c0e_4f0b_9a53_2f4f_0c1f_a003);
const OF_KEY: Uuid = Uuid::from_u128(0x6d1f_1b02_7c0e_4f0b_9a53_2f4f_0c1f_a004);

/// What a record says of a message.
#[derive(Default)]
pub(super) struct Attributes {
    pub(super) name: String,
    /// Source and id of a `CloudEvent`.
    pub(super) identity: Option<(String, String)>,
    pub(super) subject: Option<String>,
    pub(super) time: Option<DateTime<Utc>>,
    pub(super) correlation: Option<String>,
    pub(super) traceparent: Option<String>,
    pub(super) tracestate: Option<String>,
    pub(super) schema_version: Option<u32>,
    /// Other attributes that are kept.
    pub(super) extensions: Vec<(String, String)>,
    /// `None`: there are no data.
    pub(super) payload: Option<Vec<u8>>,
}

impl Declared {
    /// The event that `record` is, or that stands for it because it cannot be read; `None`: a tombstone that is passed over.
    pub(super) fn event(&self, record: &Record<'_>, category: &str) -> Option<RecordedEvent> {
        self.read(record, category).unwrap_or_else(|reason| Some(Self::unreadable(record, category, reason)))
    }

    /// The event that stands for `record`, which cannot be read.
    pub(super) fn unreadable(record: &Record<'_>, category: &str, reason: String) -> RecordedEvent {
        let unreadable = Attributes {
            name: UNREADABLE.to_owned(),
            payload: Some(Raw::of(record, reason).encode()),
            ..Attributes::default()
        };
        recorded(record, category, of_place(record), unreadable)
    }

    /// The event that `record` is; `None`: a tombstone that is passed over.
    ///
    /// # Errors
    /// Why it cannot be read, without values of the record.
    pub(super) fn read(&self, record: &Record<'_>, category: &str) -> Result<Option<RecordedEvent>, String> {
        if let Some(unreadable) = &record.unreadable {
            return Err(unreadable.name.to_string());
        }
        let structured = record.value.and_then(|value| structured::read(record.optional("content-type"), value));
        let attributes = if let Some(attributes) = structured {
            attributes?
        } else if record.has("ce_specversion") {
            let extensions = if self.keeps_extensions { extensions(record) } else { Vec::new() };
            Attributes { extensions, ..binary(record)? }
        } else if let Some(value) = record.value {
            return self.plain(record, value, category).map(Some);
        } else {
            let Some(name) = &self.tombstone else { return Ok(None) };
            let attributes = Attributes { name: name.clone(), ..of_headers(record) };
            return Ok(Some(recorded(record, category, of_place(record), attributes)));
        };
        check_name(&attributes.name)?;
        let id = attributes
            .identity
            .as_ref()
            .map(|(source, id)| Uuid::new_v5(&OF_CLOUDEVENT, format!("{}:{source}{id}", source.len()).as_bytes()));
        Ok(Some(recorded(record, category, id.unwrap_or_else(|| of_place(record)), attributes)))
    }

    fn plain(&self, record: &Record<'_>, value: &[u8], category: &str) -> Result<RecordedEvent, String> {
        let Some(name) = &self.name else {
            return Err("it is no CloudEvent, and it is not declared where plain JSON has its name".to_owned());
        };
        check_json(value)?;
        let parsed: Value = serde_json::from_slice(value).map_err(|_| "the value is no JSON".to_owned())?;
        let name = find(name, record, &parsed)?;
        check_name(&name)?;
        let id = match &self.id {
            Some(field) => {
                let id = find(field, record, &parsed)?;
                Uuid::new_v5(&OF_FIELD, format!("{}/{id}", record.topic).as_bytes())
            }
            None => of_place(record),
        };
        let attributes = Attributes { name, payload: Some(value.to_vec()), ..of_headers(record) };
        Ok(recorded(record, category, id, attributes))
    }
}

/// A `CloudEvent` in binary mode.
fn binary(record: &Record<'_>) -> Result<Attributes, String> {
    known_version(record.required("ce_specversion")?)?;
    if let Some(value) = record.value {
        if !is_json(record.optional("content-type")) {
            return Err("the data of the CloudEvent are not JSON".to_owned());
        }
        check_json(value)?;
    }
    let owned = |header| record.optional(header).map(str::to_owned);
    let of_headers = of_headers(record);
    Ok(Attributes {
        name: record.required("ce_type")?.to_owned(),
        identity: Some((record.required("ce_source")?.to_owned(), record.required("ce_id")?.to_owned())),
        subject: owned("ce_subject"),
        time: record.optional("ce_time").and_then(|time| time.parse().ok()),
        correlation: owned("ce_correlationid"),
        traceparent: of_headers.traceparent.or_else(|| owned("ce_traceparent")),
        tracestate: of_headers.tracestate.or_else(|| owned("ce_tracestate")),
        schema_version: record.optional("ce_schemaversion").and_then(|version| version.parse().ok()),
        payload: record.value.map(<[u8]>::to_vec),
        extensions: Vec::new(),
    })
}

/// The attributes of a `CloudEvent` in binary mode that have a place of their own in an event.
const PLACED: [&str; 10] = [
    "specversion",
    "id",
    "source",
    "type",
    "time",
    "subject",
    "correlationid",
    "schemaversion",
    "traceparent",
    "tracestate",
];

/// All other attributes of a `CloudEvent` in binary mode, by their names, which are in lower case.
pub(crate) fn extensions(record: &Record<'_>) -> Vec<(String, String)> {
    let attribute = |(header, value): &(&str, Option<&[u8]>)| {
        let name = header.get(3..).filter(|_| header[..3].eq_ignore_ascii_case("ce_"))?.to_ascii_lowercase();
        let value = std::str::from_utf8((*value)?).ok()?;
        (!PLACED.contains(&&*name)).then(|| (name, value.to_owned()))
    };
    record.headers.iter().filter_map(attribute).collect()
}

/// What may be in the headers of any record.
fn of_headers(record: &Record<'_>) -> Attributes {
    let owned = |header| record.optional(header).map(str::to_owned);
    Attributes { traceparent: owned("traceparent"), tracestate: owned("tracestate"), ..Attributes::default() }
}

/// The text in `field`.
fn find(field: &RecordField, record: &Record<'_>, value: &Value) -> Result<String, String> {
    match field {
        RecordField::Constant(text) => Ok(text.clone()),
        RecordField::Header(name) => record.required(name).map(str::to_owned),
        RecordField::Json(pointer) => match value.pointer(pointer) {
            Some(Value::String(text)) if !text.is_empty() => Ok(text.clone()),
            // Other numbers may be read as one although they are two.
            Some(Value::Number(number)) if number.is_i64() || number.is_u64() => Ok(number.to_string()),
            Some(_) => Err(format!("the value has neither a text nor a whole number at {pointer:?}")),
            None => Err(format!("the value has nothing at {pointer:?}")),
        },
    }
}

fn recorded(record: &Record<'_>, category: &str, id: Uuid, attributes: Attributes) -> RecordedEvent {
    let place = position(record).get();
    let mut metadata =
        Metadata { traceparent: attributes.traceparent, tracestate: attributes.tracestate, ..Metadata::default() };
    metadata.extra.extend(attributes.extensions);
    let mut keep = |name: &str, value: Option<String>| {
        metadata.extra.extend(value.map(|value| (name.to_owned(), value)));
    };
    let (source, message) = attributes.identity.unzip();
    keep("source", source);
    keep("id", message);
    keep("subject", attributes.subject);
    match attributes.correlation.map(|text| text.parse().map_err(|_| text)) {
        Some(Ok(id)) => metadata.correlation_id = Some(id),
        Some(Err(text)) => keep("correlationid", Some(text)),
        None => {}
    }
    RecordedEvent {
        position: Position::new(place),
        stream: stream(record, category),
        version: Version::new(place),
        id,
        recorded_at: attributes.time.or_else(|| record.millis.and_then(time)).unwrap_or(DateTime::UNIX_EPOCH),
        metadata,
        data: EventData {
            name: attributes.name.into(),
            schema_version: attributes.schema_version.filter(|version| *version > 0).unwrap_or(1),
            payload: attributes.payload.unwrap_or_else(|| b"{}".to_vec()).into(),
        },
    }
}

/// The position of the record in its partition.
pub(super) fn position(record: &Record<'_>) -> Position {
    Position::new(u64::try_from(record.offset).unwrap_or_default().saturating_add(1))
}

/// The stream of the record. Every key names one, and every record without a key is in that of its partition.
fn stream(record: &Record<'_>, category: &str) -> StreamId {
    let Some(key) = record.key else {
        return named(category, &format!("partition:{}", record.partition));
    };
    let text = std::str::from_utf8(key).ok().and_then(|text| StreamId::new(category, text).ok());
    let hex = || StreamId::new(category, &format!("hex:{}", hex::text(key))).ok();
    text.or_else(hex).unwrap_or_else(|| named(category, &format!("key:{}", Uuid::new_v5(&OF_KEY, key))))
}

/// A stream of a category that was checked.
fn named(category: &str, id: &str) -> StreamId {
    StreamId::new(category, id).expect("a category with a short id of plain characters")
}

fn of_place(record: &Record<'_>) -> Uuid {
    let Record { topic, partition, offset, .. } = record;
    Uuid::new_v5(&OF_PLACE, format!("{topic}/{partition}/{offset}").as_bytes())
}

/// No store keeps other names, and none can be declared for an event.
fn check_name(name: &str) -> Result<(), String> {
    if name.is_empty() || name.len() > 255 || name.chars().any(char::is_control) {
        return Err("its name is empty, longer than 255 bytes, or has control characters".to_owned());
    }
    if name == UNREADABLE {
        return Err("its name is reserved".to_owned());
    }
    Ok(())
}

fn check_json(value: &[u8]) -> Result<(), String> {
    check_payload(value).map_err(|_| "the value is no JSON".to_owned())
}

/// Whether data of this type are JSON: also where no type is given.
pub(super) fn is_json(content_type: Option<&str>) -> bool {
    let Some(content_type) = content_type else { return true };
    let essence = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    essence.is_empty() || essence.ends_with("/json") || essence.ends_with("+json")
}

/// Refuses other versions of `CloudEvents`.
pub(super) fn known_version(specversion: &str) -> Result<(), String> {
    if specversion == "1.0" { Ok(()) } else { Err("its version of CloudEvents is not 1.0".to_owned()) }
}
