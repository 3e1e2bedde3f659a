//! Appends as they were sent to a store.

use std::fmt;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::query::{About, Given};
use es_core::{Expected, StreamId, Version, backend::Ending};

/// An append as it was sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sent {
    /// The stream.
    pub stream: StreamId,
    /// The expected state of the stream.
    pub expected: Expectation,
    /// The events.
    pub events: Vec<Written>,
    /// The command of which it is the outcome.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<Key>,
    /// Its condition.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Given>,
    /// The flaw that makes it invalid, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flaw: Option<Flaw>,
}

impl fmt::Display for Sent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "append {} events to {}, expecting {}",
            self.events.len(),
            self.stream,
            Expected::from(self.expected)
        )?;
        if let Some(first) = self.events.first() {
            write!(f, ", first {}", first.id)?;
            if let Some(about) = &first.about {
                write!(f, ", about {:?}", about.tags)?;
            }
        }
        if let Some(key) = &self.key {
            write!(f, ", under {} for {}", key.key, key.content)?;
        }
        for Given { query, after } in &self.conditions {
            write!(f, ", if nothing after {after} matches {:?}", query.items)?;
        }
        if let Some(flaw) = self.flaw {
            write!(f, ", flawed: {flaw:?}")?;
        }
        Ok(())
    }
}

/// An event of an append.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Written {
    /// Its identity.
    pub id: Uuid,
    /// A checksum of everything that must come back as it was written.
    pub content: u32,
    /// The name and tags by which queries find it, if it has tags.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub about: Option<About>,
}

/// An idempotency key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Key {
    /// The key itself.
    pub key: String,
    /// The content of the command.
    pub content: String,
}

/// The expected state of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "as in Expected")]
pub enum Expectation {
    Any,
    NoStream,
    StreamExists,
    Exact(u64),
    Last { version: u64, event_id: Uuid },
}

impl From<Expectation> for Expected {
    fn from(expectation: Expectation) -> Self {
        match expectation {
            Expectation::Any => Self::Any,
            Expectation::NoStream => Self::NoStream,
            Expectation::StreamExists => Self::StreamExists,
            Expectation::Exact(version) => Self::Exact(Version::new(version)),
            Expectation::Last { version, event_id } => {
                Self::Last { version: Version::new(version), last: Ending::sent(event_id) }
            }
        }
    }
}

/// A flaw that makes an append invalid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the names say it")]
pub enum Flaw {
    Empty,
    Oversize,
    NotJson,
    NotUtf8,
    Nul,
    EventName,
    SchemaVersion,
    Metadata,
    Overflow,
    /// A condition on nothing.
    Query,
    /// It is made together with another append to the same stream.
    SameStream,
    /// A constraint of the store, which the port does not know.
    Refused,
}

impl Flaw {
    /// The flaws that every store refuses in any append.
    pub(super) const INVALID: [Self; 10] = [
        Self::Empty,
        Self::Oversize,
        Self::NotJson,
        Self::NotUtf8,
        Self::Nul,
        Self::EventName,
        Self::SchemaVersion,
        Self::Metadata,
        Self::Overflow,
        Self::Query,
    ];

    /// The variant of [`InvalidAppend`](es_core::backend::InvalidAppend) that names it.
    pub(super) fn reason(self) -> Option<&'static str> {
        match self {
            Self::Empty => Some("Empty"),
            Self::Oversize => Some("PayloadTooLarge"),
            Self::NotJson => Some("NotJson"),
            Self::NotUtf8 => Some("NotUtf8"),
            Self::Nul => Some("Nul"),
            Self::EventName => Some("EventName"),
            Self::SchemaVersion => Some("SchemaVersion"),
            Self::Metadata => Some("MetadataTooLarge"),
            Self::Overflow => Some("VersionOverflow"),
            Self::Query => Some("Condition"),
            Self::SameStream => Some("SameStream"),
            Self::Refused => None,
        }
    }
}
