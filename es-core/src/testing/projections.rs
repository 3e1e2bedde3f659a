//! Projections without a database.

use std::collections::BTreeMap;

use crate::{
    event::RecordedEvent,
    read::{engine_error::EngineError, projection::Projection, projector},
};

/// The documents of `projection` after `events`: *the* fold, with which every read model must
/// agree (R9). The events are those of a [`History`](super::History), or come from a log.
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
