//! Who has done what, and when: every event of the log, also of types that do not exist yet.

use chrono::{DateTime, Utc};
use evenfold::{EventData, FoldResult, KeyRange, Keys, Position, Projection, Recorded, StreamId, Version};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Keeps one [`AuditEntry`] for each event, under its position.
#[derive(Debug, Clone, Copy)]
pub struct AuditTrail;

impl AuditTrail {
    /// The entries after `position`.
    pub fn range(position: Position) -> KeyRange {
        KeyRange::default().after(key(position))
    }
}

/// What the audit trail says about an event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AuditEntry {
    /// Its position in the log.
    pub position: Position,
    /// Who sent the command.
    pub actor: Option<String>,
    /// Its wire name.
    pub event: String,
    /// To which aggregate.
    pub stream: StreamId,
    /// Its version in the stream of that aggregate.
    pub version: Version,
    /// When it was written.
    pub recorded_at: DateTime<Utc>,
    /// Its own id.
    pub event_id: Uuid,
    /// The correlation id of the request that led to it.
    pub correlation_id: Option<Uuid>,
    /// The event that caused it.
    pub causation_id: Option<Uuid>,
}

impl Projection for AuditTrail {
    const NAME: &'static str = "audit-trail";

    type Event = EventData;
    type Document = AuditEntry;

    fn keys(&self, event: &Recorded<EventData>) -> Keys {
        Keys::one(key(event.position))
    }

    fn fold(&self, document: &mut Option<AuditEntry>, event: &Recorded<EventData>) -> FoldResult {
        *document = Some(AuditEntry {
            position: event.position,
            actor: event.metadata.actor.clone(),
            event: event.data.name.to_string(),
            stream: event.stream.clone(),
            version: event.version,
            recorded_at: event.recorded_at,
            event_id: event.id,
            correlation_id: event.metadata.correlation_id,
            causation_id: event.metadata.causation_id,
        });
        Ok(())
    }
}

/// All keys have the same length, so their byte order is the order of the positions.
fn key(position: Position) -> String {
    format!("{position:020}")
}
