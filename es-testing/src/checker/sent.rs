//! What is asked of a store when it is to write.

use std::fmt;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::query::{About, Given};
use es_core::{Ending, Expected, StreamId, Version};

/// An append as it was sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sent {
    /// Where to.
    pub stream: StreamId,
    /// In which state the stream must be.
    pub expected: Expectation,
    /// What to write.
    pub events: Vec<Written>,
    /// The command that it is the outcome of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<Key>,
    /// What must not have happened meanwhile.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Given>,
    /// What is wrong with it.
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
    /// By what queries find it, if it has tags.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub about: Option<About>,
}

/// An idempotency key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Key {
    /// The key itself.
    pub key: String,
    /// What the command asks for.
    pub content: String,
}

/// What an append expects.
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

/// What is wrong with an append.
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
    /// It is to be made together with another to the same stream.
    SameStream,
    /// Nothing that the port knows of: the store has a constraint of its own.
    Refused,
}

impl Flaw {
    /// Those that every store refuses in any append.
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

    /// The variant of [`InvalidAppend`](es_core::InvalidAppend) that names it.
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
