//! `CloudEvents` in structured mode: all of the event in the value.

use es_core::codec;
use serde::Deserialize;
use serde_json::{Value, value::RawValue};

use super::read::{Attributes, is_json, known_version};

#[derive(Deserialize)]
struct Envelope<'a> {
    specversion: String,
    id: String,
    source: String,
    #[serde(rename = "type")]
    name: String,
    subject: Option<String>,
    time: Option<String>,
    datacontenttype: Option<String>,
    /// As it was written.
    #[serde(borrow)]
    data: Option<&'a RawValue>,
    data_base64: Option<String>,
    correlationid: Option<String>,
    traceparent: Option<String>,
    tracestate: Option<String>,
    schemaversion: Option<Value>,
}

/// What `content_type` says is in the value; `None`: it is no structured event.
pub(super) fn read(content_type: Option<&str>, value: &[u8]) -> Option<Result<Attributes, String>> {
    let essence = content_type?.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    match essence.strip_prefix("application/cloudevents")? {
        "+json" => Some(event(value)),
        "-batch+json" => Some(Err("it is a batch of CloudEvents: produce a record for each".to_owned())),
        _ => Some(Err("its CloudEvent is not in JSON".to_owned())),
    }
}

fn event(value: &[u8]) -> Result<Attributes, String> {
    let envelope: Envelope<'_> =
        codec::decode(value).map_err(|misfit| format!("the value is no CloudEvent in JSON: {misfit}"))?;
    known_version(&envelope.specversion)?;
    if envelope.id.is_empty() || envelope.source.is_empty() {
        return Err("id or source of the CloudEvent is empty".to_owned());
    }
    if envelope.data_base64.is_some() || !is_json(envelope.datacontenttype.as_deref()) {
        return Err("the data of the CloudEvent are not JSON".to_owned());
    }
    let schema_version = envelope.schemaversion.and_then(|version| match version {
        Value::String(text) => text.parse().ok(),
        version => version.as_u64().and_then(|version| u32::try_from(version).ok()),
    });
    Ok(Attributes {
        name: envelope.name,
        identity: Some((envelope.source, envelope.id)),
        subject: envelope.subject,
        time: envelope.time.and_then(|time| time.parse().ok()),
        correlation: envelope.correlationid,
        traceparent: envelope.traceparent,
        tracestate: envelope.tracestate,
        schema_version,
        payload: envelope.data.map(|data| data.get().as_bytes().to_vec()),
        extensions: Vec::new(),
    })
}
