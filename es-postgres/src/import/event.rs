//! What a history from elsewhere consists of.

use chrono::{DateTime, Utc};
use es_core::{EventData, Metadata, RecordedEvent, StreamId, Tag};
use uuid::Uuid;

/// An event of a history that another store recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Imported {
    /// The stream it goes to. Its version there is the next one.
    pub stream: StreamId,
    /// Its identity, which it keeps.
    pub id: Uuid,
    /// When it was recorded, which it keeps to the microsecond. So an import that is made again after an older copy of
    /// the log was restored is not noticed by checkpoints that end with one of its events: see
    /// [`Witness`](es_core::backend::Witness).
    pub recorded_at: DateTime<Utc>,
    /// Its content.
    pub data: EventData,
    /// What is known about it.
    pub metadata: Metadata,
    /// By what queries find it.
    pub tags: Vec<Tag>,
}

/// An event of another log. Its position and its version are drawn anew; its tags, which no log gives
/// back, are to be added.
impl From<RecordedEvent> for Imported {
    fn from(event: RecordedEvent) -> Self {
        let RecordedEvent { stream, id, recorded_at, data, metadata, .. } = event;
        Self { stream, id, recorded_at, data, metadata, tags: Vec::new() }
    }
}
