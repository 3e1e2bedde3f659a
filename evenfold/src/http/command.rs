//! The headers of a command: its correlation and trace, its idempotency key, and its condition.

use axum::{
    extract::FromRequestParts,
    http::{HeaderMap, StatusCode, request::Parts},
};
use es_core::{CommandContext, IdempotencyKey, Metadata, Version};
use uuid::Uuid;

use super::problem::Problem;

/// The headers of a command, as an extractor.
///
/// | header | becomes |
/// |---|---|
/// | `If-Match: "3"` | the condition that the aggregate is at version 3; `*` is no condition |
/// | `Idempotency-Key` | the key under which a repeated request gets its first receipt, of 1 to 255 bytes |
/// | `traceparent` | [`Metadata::traceparent`]; one that cannot be read is dropped, as W3C Trace Context asks |
/// | `X-Correlation-Id` | [`Metadata::correlation_id`], a UUID; a new one where it is missing |
///
/// A header that breaks these rules is answered with 400 and a [`Problem`] that names it.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct CommandHeaders {
    /// Correlation and trace.
    pub metadata: Metadata,
    /// `Idempotency-Key`.
    pub key: Option<IdempotencyKey>,
    /// `If-Match`.
    pub if_version: Option<Version>,
}

impl CommandHeaders {
    /// The context of a command by `actor`. `content` distinguishes this request from another one under the same idempotency key
    /// (422): usually it is the body, byte by byte or in a canonical form.
    ///
    /// A key is unique within the aggregate, so for a [`Repository`](crate::Repository) the body is enough. For
    /// [`Decisions`](crate::Decisions) it is unique within all decisions of the same name: `content` must then also hold
    /// what the path names. Otherwise the same key and body for another path gets the first receipt, and nothing is done.
    ///
    /// [`Decisions::decide_with`](crate::Decisions::decide_with) takes no `If-Match` and returns
    /// [`DecideError::VersionGiven`](crate::DecideError::VersionGiven), a problem with status 400 that names the header. To
    /// ignore the header instead, set [`if_version`](Self::if_version) to `None` before this call.
    pub fn context(self, actor: Option<&str>, content: &[u8]) -> CommandContext {
        let metadata = Metadata { actor: actor.map(str::to_owned), ..self.metadata };
        let command = CommandContext { if_version: self.if_version, ..CommandContext::from(metadata) };
        match self.key {
            Some(key) => command.idempotent(key, content),
            None => command,
        }
    }
}

impl<S: Send + Sync> FromRequestParts<S> for CommandHeaders {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let headers = &parts.headers;
        let correlation = header(headers, "X-Correlation-Id", |text| text.parse::<Uuid>().ok(), "expected a UUID")?;
        let metadata = Metadata {
            correlation_id: Some(correlation.unwrap_or_else(Uuid::now_v7)),
            traceparent: headers.get("traceparent").and_then(|value| traceparent(value.to_str().ok()?)),
            ..Metadata::default()
        };
        let key = header(headers, "Idempotency-Key", |text| IdempotencyKey::new(text).ok(), "expected 1 to 255 bytes")?;
        let if_match = header(headers, "If-Match", IfMatch::read, "expected one entity tag, such as \"3\", or *")?;
        let if_version = match if_match {
            Some(IfMatch::Version(version)) => Some(version),
            Some(IfMatch::Any) | None => None,
        };
        Ok(Self { metadata, key, if_version })
    }
}

/// The header `name`, read by `read`.
fn header<T>(
    headers: &HeaderMap,
    name: &str,
    read: impl Fn(&str) -> Option<T>,
    rule: &str,
) -> Result<Option<T>, Problem> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else { return Ok(None) };
    let found = value.to_str().ok().filter(|_| values.next().is_none()).and_then(|text| read(text.trim()));
    found.map(Some).ok_or_else(|| Problem::wrong_parameter(StatusCode::BAD_REQUEST, name, rule))
}

/// `"3"` is that version, `*` is any (RFC 9110, section 13.1.1).
#[derive(Debug, PartialEq, Eq)]
enum IfMatch {
    Any,
    Version(Version),
}

impl IfMatch {
    fn read(text: &str) -> Option<Self> {
        if text == "*" {
            return Some(Self::Any);
        }
        let digits = text.strip_prefix('"')?.strip_suffix('"')?;
        let number = digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())??;
        Some(Self::Version(Version::new(number)))
    }
}

/// `00-<trace>-<span>-<flags>` in lower-case hexadecimal digits (W3C Trace Context, section 3.2).
pub(super) fn traceparent(text: &str) -> Option<String> {
    let parts: Vec<_> = text.split('-').collect();
    let [version, trace, span, flags] = parts[..] else { return None };
    let hex = |part: &str, length: usize| {
        part.len() == length && part.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    };
    let set = |part: &str| part.bytes().any(|byte| byte != b'0');
    let valid = hex(version, 2) && version != "ff" && hex(trace, 32) && hex(span, 16) && hex(flags, 2);
    (valid && set(trace) && set(span)).then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn if_match_is_one_version_or_any() {
        assert_eq!(IfMatch::read("\"3\""), Some(IfMatch::Version(Version::new(3))));
        assert_eq!(IfMatch::read("*"), Some(IfMatch::Any));
        for wrong in ["3", "\"+3\"", "\"3\", \"4\"", "W/\"3\"", "\"\"", "\"99999999999999999999\""] {
            assert_eq!(IfMatch::read(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_trace_that_w3c_calls_invalid_is_dropped() {
        let valid = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        assert_eq!(traceparent(valid).as_deref(), Some(valid));
        for wrong in [
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-01",
        ] {
            assert_eq!(traceparent(wrong), None, "{wrong}");
        }
    }
}
