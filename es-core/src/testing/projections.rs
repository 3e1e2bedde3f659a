//! Projections without a database.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    event::RecordedEvent,
    read::{
        engine_error::EngineError,
        live::{Live, LiveError, LiveProjection},
        projection::Projection,
        projector,
        read_model::Exceptions,
        watch::keys_of,
    },
    stream::Position,
    write::store::{EventStore, is_last_page},
};

/// How many events are read at a time.
const PAGE: usize = 1_000;

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

/// The keys whose document is another one when it is read live than in the fold of the whole `log`, which is kept in memory: for
/// these [`LiveProjection::events_of`](crate::LiveProjection::events_of) misses events that
/// [`keys`](crate::Projection::keys) gives to the key.
///
/// # Errors
/// [`LiveError`](crate::LiveError) at the first event that cannot be read or folded.
pub async fn live_differences<P: LiveProjection>(
    live: &Live<P>,
    log: &impl EventStore,
) -> Result<Vec<String>, LiveError> {
    let mut events = Vec::new();
    loop {
        let after = events.last().map_or(Position::ZERO, |event: &RecordedEvent| event.position);
        let page = log.read_log(after, PAGE).await?;
        let is_last = is_last_page(&page, PAGE);
        events.extend(page);
        if is_last {
            break;
        }
    }
    let (mut documents, mut keys) = (project(live.projection(), &events)?, BTreeSet::new());
    for event in &events {
        keys.extend(keys_of(live.projection(), event, &Exceptions::default())?);
    }
    let mut differing = Vec::new();
    for key in keys {
        if live.get(&key).await? != documents.remove(&key) {
            differing.push(key);
        }
    }
    Ok(differing)
}
