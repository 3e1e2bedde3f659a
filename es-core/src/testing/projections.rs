//! Projections without a database.

use std::collections::BTreeMap;

use chrono::DateTime;
use uuid::Uuid;

use crate::{
    event::{Event, EventData, Metadata, Recorded, RecordedEvent},
    read::{engine_error::EngineError, projection::Projection, projector},
    stream::{Position, StreamId, Version},
};

/// The documents of `projection` after `events`: *the* fold, with which every read model must
/// agree (R9).
///
/// # Errors
/// [`EngineError`] at the first event that cannot be folded, and for a document that a read model would refuse.
pub fn project<'a, P: Projection>(
    projection: &P,
    events: impl IntoIterator<Item = &'a RecordedEvent>,
) -> Result<BTreeMap<String, P::Document>, EngineError> {
    let mut documents = BTreeMap::new();
    for event in events {
        if let Some(event) = event.decode::<P::Event>()? {
            for key in projector::keys(projection, &event)? {
                let document = documents.entry(key.clone()).or_default();
                projector::fold(projection, &key, document, &event)?;
            }
        }
    }
    let documents = documents.into_iter().filter_map(|(key, document)| Some((key, document?)));
    documents.map(|(key, document)| projector::encode::<P>(&key, &document).map(|_| (key, document))).collect()
}

/// `events` of the aggregates with the given ids as the log would return them, on 1 January 2026,
/// one second apart.
///
/// # Panics
/// When an id cannot be part of a stream's name.
pub fn recorded<E: Event>(events: impl IntoIterator<Item = (&'static str, E)>) -> Vec<RecordedEvent> {
    let mut versions: BTreeMap<&str, Version> = BTreeMap::new();
    let mut log = Vec::new();
    for (id, event) in events {
        let version = versions.entry(id).or_default();
        *version = version.next();
        let position = Position::new(log.len() as u64 + 1);
        log.push(Recorded {
            position,
            stream: StreamId::new(E::CATEGORY, id).expect("a test names its aggregates well"),
            version: *version,
            id: Uuid::from_u128(u128::from(position.get())),
            recorded_at: DateTime::from_timestamp(1_767_225_600 + position.to_i64(), 0).expect("a time in 2026"),
            metadata: Metadata::default(),
            data: EventData::of(&event).expect("an event of a test can be written"),
        });
    }
    log
}
