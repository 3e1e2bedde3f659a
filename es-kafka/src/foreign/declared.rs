//! What is declared of a topic.

use chrono::{DateTime, Utc};

/// Where in a record a text is found.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum RecordField {
    /// In the header of this name.
    Header(String),
    /// In the value, at this JSON pointer: a text, or a whole number.
    Json(String),
    /// It is this text in every record.
    Constant(String),
}

impl RecordField {
    /// The header `name`.
    pub fn header(name: impl Into<String>) -> Self {
        Self::Header(name.into())
    }

    /// The text or whole number in the value at the JSON `pointer`, such as `/payment/id`.
    pub fn json(pointer: impl Into<String>) -> Self {
        Self::Json(pointer.into())
    }

    /// `text` in every record.
    pub fn constant(text: impl Into<String>) -> Self {
        Self::Constant(text.into())
    }
}

/// Where a consumer begins that has no checkpoint yet.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum TopicStart {
    /// At the first record that the topic holds.
    #[default]
    First,
    /// After the last record. Partitions that are added while a consumer runs are read from their first record; of one that is added
    /// while none runs, what was written until then is not read. [`Since`](Self::Since) has no such case.
    End,
    /// At the first record of each partition whose timestamp is this or later.
    Since(DateTime<Utc>),
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Declared {
    pub(crate) name: Option<RecordField>,
    pub(crate) id: Option<RecordField>,
    pub(crate) tombstone: Option<String>,
    pub(crate) start: TopicStart,
    pub(crate) passes_lost: bool,
    /// Whether the extensions of `CloudEvents` in binary mode that have no place in an event are kept in `extra`, by their names.
    pub(crate) keeps_extensions: bool,
}

/// A category that looks like the name of the topic.
pub(crate) fn category_of(topic: &str) -> String {
    let plain = |character: char| match character.to_ascii_lowercase() {
        character if character.is_ascii_alphanumeric() => character,
        _ => '_',
    };
    topic.chars().map(plain).collect()
}
