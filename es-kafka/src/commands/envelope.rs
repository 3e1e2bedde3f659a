//! A command as a record: `CloudEvents` 1.0 in binary mode, as the records of events.
//!
//! The value is the command as JSON, the key is the name of the aggregate's stream, and everything else is in headers.

use std::collections::BTreeMap;

use chrono::{DateTime, SecondsFormat, Utc};
use es_core::{
    CommandContext, IdempotencyKey, Metadata, RecordedEvent, StreamId, Version,
    backend::{CommandKey, CommandMessage, Fingerprint},
    codec,
};
use rdkafka::message::{Header, OwnedHeaders};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::foreign::record::hex;

/// One sending of a command.
pub(super) struct Sending<'a> {
    pub(super) id: Uuid,
    /// The name of the service that sends it.
    pub(super) service: &'a str,
    pub(super) stream: &'a StreamId,
    pub(super) context: &'a CommandContext,
    pub(super) deadline: DateTime<Utc>,
    pub(super) reply_to: &'a str,
}

fn written(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::Micros, true)
}

/// The name of the request `key` of `service`: at the owner the keys of all services are in one space. One that is too long is hashed.
fn of_service(service: &str, key: &str) -> String {
    let name = format!("{service}/{key}");
    if name.len() <= IdempotencyKey::MAX_BYTES { name } else { hex::text(&Sha256::digest(name.as_bytes())) }
}

impl Sending<'_> {
    /// The headers of the record.
    pub(super) fn headers(&self) -> OwnedHeaders {
        let Self { id, service, stream, context, deadline, reply_to } = self;
        let CommandContext { metadata, idempotency, if_version } = context;
        let mut headers = OwnedHeaders::new_with_capacity(20);
        let mut put = |key: &str, value: &str| {
            headers = std::mem::take(&mut headers).insert(Header { key, value: Some(value) });
        };
        put("content-type", "application/json");
        put("ce_specversion", "1.0");
        put("ce_id", &id.to_string());
        put("ce_source", &format!("/{service}"));
        put("ce_type", &format!("{}.command", stream.category()));
        put("ce_time", &written(Utc::now()));
        put("ce_subject", stream.as_str());
        put("ce_deadline", &written(*deadline));
        put("ce_replyto", reply_to);
        match idempotency {
            Some(CommandKey { key, fingerprint, .. }) => {
                put("ce_commandid", &of_service(service, key.as_str()));
                put("ce_commandcontent", &hex::text(fingerprint.as_bytes()));
            }
            // Each delivery of this sending is the same command.
            None => put("ce_commandid", &id.to_string()),
        }
        if let Some(version) = if_version {
            put("ce_ifversion", &version.to_string());
        }
        let ids = [("ce_correlationid", metadata.correlation_id), ("ce_causationid", metadata.causation_id)];
        for (name, id) in ids {
            if let Some(id) = id {
                put(name, &id.to_string());
            }
        }
        let texts = [
            ("ce_actor", &metadata.actor),
            ("traceparent", &metadata.traceparent),
            ("tracestate", &metadata.tracestate),
        ];
        for (name, text) in texts {
            if let Some(text) = text {
                put(name, text);
            }
        }
        if !metadata.extra.is_empty() {
            put("ce_metadata", &serde_json::to_string(&metadata.extra).expect("a map of texts"));
        }
        headers
    }
}

/// The command in `message`, of which all extensions were kept.
///
/// Only the aggregate must be named. Without an id of the command, the message is one of its own.
pub(super) fn read(message: &RecordedEvent) -> Result<CommandMessage, String> {
    let extra = |name: &str| message.metadata.extra.get(name).map(String::as_str);
    let invalid = |name: &str| format!("header ce_{name} does not fit");
    let subject = extra("subject").ok_or("header ce_subject is missing: it names the stream of the aggregate")?;
    let stream: StreamId = subject.parse().map_err(|_| "header ce_subject names no stream of an aggregate")?;
    let key = match extra("commandid") {
        Some(id) => IdempotencyKey::new(id).map_err(|_| invalid("commandid"))?,
        None => message.id.into(),
    };
    let fingerprint = match extra("commandcontent") {
        Some(text) => fingerprint(text).ok_or_else(|| invalid("commandcontent"))?,
        None => Fingerprint::of(&message.data.payload),
    };
    let deadline = extra("deadline").map(|text| text.parse::<DateTime<Utc>>().map_err(|_| invalid("deadline")));
    let if_version = extra("ifversion").map(|text| text.parse::<u64>().map_err(|_| invalid("ifversion")));
    let causation = extra("causationid").map(|text| text.parse::<Uuid>().map_err(|_| invalid("causationid")));
    let more = extra("metadata")
        .map(|text| codec::decode::<BTreeMap<String, String>>(text.as_bytes()).map_err(|_| invalid("metadata")));
    let Metadata { correlation_id, traceparent, tracestate, .. } = &message.metadata;
    Ok(CommandMessage {
        stream,
        key: CommandKey::new(key, fingerprint),
        if_version: if_version.transpose()?.map(Version::new),
        deadline: deadline.transpose()?,
        metadata: Metadata {
            correlation_id: *correlation_id,
            causation_id: causation.transpose()?,
            traceparent: traceparent.clone(),
            tracestate: tracestate.clone(),
            actor: extra("actor").map(str::to_owned),
            extra: more.transpose()?.unwrap_or_default(),
        },
        payload: message.data.payload.clone(),
    })
}

fn fingerprint(text: &str) -> Option<Fingerprint> {
    let mut bytes = [0; 32];
    if text.len() != 64 || !text.is_ascii() {
        return None;
    }
    for (place, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * place..2 * place + 2], 16).ok()?;
    }
    Some(Fingerprint::from(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r6_the_same_key_of_two_services_names_two_requests() {
        assert_eq!(of_service("orders", "payment/1/4711"), "orders/payment/1/4711");
        assert_ne!(of_service("orders", "payment/1/4711"), of_service("billing", "payment/1/4711"));
        let long = ["orders", "billing"].map(|service| of_service(service, &"k".repeat(IdempotencyKey::MAX_BYTES)));
        assert!(long[0] != long[1] && long.iter().all(|name| IdempotencyKey::new(name.as_str()).is_ok()));
    }
}
