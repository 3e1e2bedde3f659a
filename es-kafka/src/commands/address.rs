//! Where the answer to a command goes.

use es_core::{RecordedEvent, backend::UNREADABLE};

use super::create::is_for_replies;
use crate::foreign::{
    read::extensions,
    record::{Raw, Record},
};

/// Where the answer to a command goes, and what it says of the command.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Address {
    pub(super) topic: String,
    /// The id of the message.
    pub(super) cause: String,
    pub(super) subject: Option<String>,
    pub(super) command: Option<String>,
    pub(super) correlation: Option<String>,
    pub(super) traceparent: Option<String>,
}

impl Address {
    /// The sender of `message`, which may be one that could not be read; `None` if it wants no answer, or names no place for it.
    pub(super) fn of(message: &RecordedEvent) -> Option<Self> {
        if &*message.data.name == UNREADABLE {
            let raw = Raw::decode(&message.data.payload).ok()?;
            return Self::of_record(&raw.record());
        }
        let metadata = &message.metadata;
        let extra = |name: &str| metadata.extra.get(name).cloned();
        Self {
            topic: extra("replyto")?,
            cause: extra("id")?,
            subject: extra("subject"),
            command: extra("commandid"),
            correlation: metadata.correlation_id.map(|id| id.to_string()),
            traceparent: metadata.traceparent.clone(),
        }
        .checked()
    }

    fn of_record(record: &Record<'_>) -> Option<Self> {
        let extensions = extensions(record);
        let extension = |name: &str| {
            let mut found = extensions.iter().filter(|(known, _)| known == name);
            found.next().map(|(_, value)| value.clone())
        };
        let header = |name: &str| record.optional(name).map(str::to_owned);
        Self {
            topic: extension("replyto")?,
            cause: header("ce_id")?,
            subject: header("ce_subject"),
            command: extension("commandid"),
            correlation: header("ce_correlationid"),
            traceparent: header("traceparent"),
        }
        .checked()
    }

    fn checked(self) -> Option<Self> {
        if is_for_replies(&self.topic) {
            return Some(self);
        }
        tracing::warn!("a command names a topic for its answer that is none for answers");
        None
    }
}
