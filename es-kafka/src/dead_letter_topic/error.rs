//! Why dead letters cannot be read or replayed.

use es_core::backend::SourceError;

/// Why something cannot be done with a dead-letter topic.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DeadLetterError {
    /// There is no such record, or its time was over.
    #[error("there is no record at {place}")]
    Gone {
        /// Topic, partition and offset.
        place: String,
    },
    /// A topic into which a record was to be produced is not there.
    #[error("there is no topic {topic:?}")]
    NoTopic {
        /// Its name.
        topic: String,
    },
    /// It is not known which handler the record is for.
    #[error("the record at {place} names no handler")]
    NoHandler {
        /// Topic, partition and offset.
        place: String,
    },
    /// It has a header whose name is not UTF-8, with which it cannot be produced as it was.
    #[error("the record at {place} has a header whose name is not UTF-8, and cannot be produced with it")]
    HeaderName {
        /// Topic, partition and offset.
        place: String,
    },
    /// Kafka cannot be read or written.
    #[error(transparent)]
    Kafka(#[from] SourceError),
}

impl DeadLetterError {
    /// Whether trying again may help.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Kafka(error) if error.is_transient())
    }
}
