//! What the headers of a command say: who asks in which conversation, under which key, and on which
//! condition.

use axum::{
    extract::FromRequestParts,
    http::{HeaderMap, request::Parts},
};
use es_core::{CommandContext, IdempotencyKey, Metadata, Version};
use uuid::Uuid;

use super::problem::{Kind, Problem};

/// The headers of a command.
pub(super) struct Conditions {
    pub(super) metadata: Metadata,
    pub(super) key: Option<IdempotencyKey>,
    pub(super) if_version: Option<Version>,
}

impl Conditions {
    /// The context of a command by `actor`; `request` is what tells it from another one.
    pub(super) fn context(self, actor: &str, request: &[u8]) -> CommandContext {
        let metadata = Metadata { actor: Some(actor.to_owned()), ..self.metadata };
        let context = CommandContext { if_version: self.if_version, ..CommandContext::from(metadata) };
        match self.key {
            Some(key) => context.idempotent(key, request),
            None => context,
        }
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Conditions {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let headers = &parts.headers;
        let correlation = header(headers, "X-Correlation-Id", |text| text.parse::<Uuid>().ok(), "expected a UUID")?;
        let metadata = Metadata {
            correlation_id: Some(correlation.unwrap_or_else(Uuid::now_v7)),
            // A trace that cannot be read is begun anew, says W3C.
            traceparent: header(headers, "traceparent", traceparent, "").unwrap_or_default(),
            ..Metadata::default()
        };
        let key = header(headers, "Idempotency-Key", |text| IdempotencyKey::new(text).ok(), "expected 1 to 255 bytes")?;
        let if_match = header(headers, "If-Match", IfMatch::read, "expected one ETag, such as \"3\", or *")?;
        let if_version = match if_match {
            Some(IfMatch::Version(version)) => Some(version),
            Some(IfMatch::Any) | None => None,
        };
        Ok(Self { metadata, key, if_version })
    }
}

fn header<T>(
    headers: &HeaderMap,
    name: &str,
    read: impl Fn(&str) -> Option<T>,
    rule: &str,
) -> Result<Option<T>, Problem> {
    let Some(value) = headers.get(name) else { return Ok(None) };
    let read = value.to_str().ok().and_then(|text| read(text.trim()));
    read.map(Some).ok_or_else(|| Problem::with(Kind::Parameter, name, rule))
}

/// `"3"` is that version, `*` is any.
enum IfMatch {
    Any,
    Version(Version),
}

impl IfMatch {
    fn read(text: &str) -> Option<Self> {
        if text == "*" {
            return Some(Self::Any);
        }
        let number = text.strip_prefix('"')?.strip_suffix('"')?.parse().ok()?;
        Some(Self::Version(Version::new(number)))
    }
}

/// `00-<trace>-<span>-<flags>`, in lower-case hexadecimal digits.
fn traceparent(text: &str) -> Option<String> {
    let lengths = text.split('-').map(str::len).eq([2, 32, 16, 2]);
    let digits = text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f' | b'-'));
    (lengths && digits).then(|| text.to_owned())
}
