//! An answer as a record.

use chrono::{SecondsFormat, Utc};
use es_core::{Position, ReadToken, Receipt, Version, backend::CommandAnswer, codec};
use rdkafka::message::{Header, OwnedHeaders};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::address::Address;

/// The value of the record. Its name says which of the fields there are.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Body {
    /// The version of the aggregate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    version: Option<u64>,
    /// The position of the command's last event in the log of the owner, which is its read token there too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    position: Option<u64>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    repeated: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

const DONE: &str = "command.done";
const REJECTED: &str = "command.rejected";
const EXPIRED: &str = "command.expired";
const FAILED: &str = "command.failed";

/// The header by which a sender knows to which of its messages a record is the answer.
pub(super) const CAUSE: &str = "ce_causationid";

/// The headers and the value of `answer`, from `service`.
pub(super) fn written(answer: &CommandAnswer, to: &Address, service: &str) -> (OwnedHeaders, Vec<u8>) {
    let of = |reason: &str| Body { reason: Some(reason.to_owned()), ..Body::default() };
    let (name, body) = match answer {
        CommandAnswer::Done(Receipt { version, position, repeated, .. }) => {
            let (version, position) = (Some(version.get()), position.map(Position::get));
            (DONE, Body { version, position, repeated: *repeated, reason: None })
        }
        CommandAnswer::Rejected { reason } => (REJECTED, of(reason)),
        CommandAnswer::Expired => (EXPIRED, Body::default()),
        CommandAnswer::Failed { reason } => (FAILED, of(reason)),
        other => (FAILED, of(&format!("the owner knows an answer that this program does not: {other:?}"))),
    };
    let (id, time) = (Uuid::now_v7().to_string(), Utc::now().to_rfc3339_opts(SecondsFormat::Micros, true));
    let source = format!("/{service}");
    let fixed = [
        ("content-type", Some("application/json")),
        ("ce_specversion", Some("1.0")),
        ("ce_id", Some(&*id)),
        ("ce_source", Some(&*source)),
        ("ce_type", Some(name)),
        ("ce_time", Some(&*time)),
        (CAUSE, Some(&*to.cause)),
        ("ce_subject", to.subject.as_deref()),
        ("ce_commandid", to.command.as_deref()),
        ("ce_correlationid", to.correlation.as_deref()),
        ("traceparent", to.traceparent.as_deref()),
    ];
    let headers = fixed.into_iter().filter(|(_, value)| value.is_some());
    let headers = headers.fold(OwnedHeaders::new(), |all, (key, value)| all.insert(Header { key, value }));
    (headers, serde_json::to_vec(&body).expect("texts and numbers"))
}

/// The answer in a record of this name and value.
///
/// # Errors
/// Why it is none.
pub(super) fn read(name: &str, value: &[u8]) -> Result<CommandAnswer, String> {
    let body: Body = codec::decode(value).map_err(|misfit| format!("the value does not fit: {misfit}"))?;
    let reason = || body.reason.clone().unwrap_or_default();
    Ok(match name {
        DONE => {
            let position = body.position.map(Position::new);
            let version = Version::new(body.version.ok_or("it has no version")?);
            let token = ReadToken(position.unwrap_or(Position::ZERO));
            CommandAnswer::Done(Receipt { version, position, token, repeated: body.repeated })
        }
        REJECTED => CommandAnswer::Rejected { reason: reason() },
        EXPIRED => CommandAnswer::Expired,
        FAILED => CommandAnswer::Failed { reason: reason() },
        _ => return Err("this program does not know such an answer".to_owned()),
    })
}

#[cfg(test)]
mod tests {
    use rdkafka::message::Headers;

    use super::*;

    #[test]
    fn an_answer_is_read_as_it_was_written() {
        let (version, position) = (Version::new(3), Position::new(17));
        let done = Receipt { version, position: Some(position), token: ReadToken(position), repeated: true };
        let nothing = Receipt { position: None, token: ReadToken(Position::ZERO), repeated: false, ..done };
        let reason = "the balance is 0".to_owned();
        let to = Address { cause: "1".to_owned(), ..Address::default() };
        for answer in [
            CommandAnswer::Done(done),
            CommandAnswer::Done(nothing),
            CommandAnswer::Rejected { reason: reason.clone() },
            CommandAnswer::Expired,
            CommandAnswer::Failed { reason },
        ] {
            let (headers, value) = written(&answer, &to, "bank");
            let name = headers.iter().find(|header| header.key == "ce_type").and_then(|header| header.value);
            assert_eq!(read(std::str::from_utf8(name.unwrap_or_default()).unwrap_or_default(), &value), Ok(answer));
        }
        assert!(read("command.done", b"{}").is_err() && read("command.lost", b"{}").is_err());
    }
}
