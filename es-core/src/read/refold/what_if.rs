//! The documents of a read model, had the history been another one.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    fmt,
};

use bytes::Bytes;
use chrono::DateTime;
use uuid::Uuid;

use super::{PAGE, Refold, RefoldError, exceptions_of};
use crate::{
    event::{EventData, Metadata, RecordedEvent},
    read::{
        engine_error::EngineError,
        projection::Projection,
        projector::unique::{Owners, UniqueValues},
        read_model::{ReadModelStore, Treatment},
        touch::touch_with,
    },
    stream::{Position, StreamId, Version},
    write::store::{EventStore, is_last_page},
};

/// Changes of the history of a store, for a fold that leaves the store as it is: events left out, replaced or added.
#[derive(Debug, Clone, Default)]
pub struct WhatIf {
    /// The payload of the event at a position; `None` leaves it out.
    instead: BTreeMap<Position, Option<Bytes>>,
    /// By the position after which they stand.
    added: BTreeMap<Position, Vec<(StreamId, EventData)>>,
    last: Vec<(StreamId, EventData)>,
}

impl WhatIf {
    /// Leaves out the event at `position`. The events after it keep their positions and versions.
    pub fn without(mut self, position: Position) -> Self {
        self.instead.insert(position, None);
        self
    }

    /// Replaces the payload of the event at `position`; its name and schema version stay.
    pub fn replacing(mut self, position: Position, payload: impl Into<Bytes>) -> Self {
        self.instead.insert(position, Some(payload.into()));
        self
    }

    /// Adds an event of `stream` after the event at `position`, with the same position, and the time of that event. Its version
    /// is one more than that of the event of its stream before it.
    pub fn adding_after(mut self, position: Position, stream: StreamId, event: EventData) -> Self {
        self.added.entry(position).or_default().push((stream, event));
        self
    }

    /// Adds an event of `stream` after the last event of the log, with the position that the next event will get; otherwise as
    /// [`adding_after`](Self::adding_after).
    pub fn adding(mut self, stream: StreamId, event: EventData) -> Self {
        self.last.push((stream, event));
        self
    }

    /// Whether the event at `position` is left out or replaced.
    fn changes(&self, position: Position) -> bool {
        self.instead.contains_key(&position)
    }

    /// A position that is named and at which a log that ends at `end` has no event.
    fn missing(&self, end: Position) -> Option<Position> {
        self.instead.keys().chain(self.added.keys()).find(|at| **at == Position::ZERO || **at > end).copied()
    }
}

/// A document that would be another one.
#[derive(Clone, PartialEq, Eq)]
pub struct Alternative {
    /// Its key.
    pub key: String,
    /// Its JSON by the log as it is; `None` if there is no document.
    pub actual: Option<Bytes>,
    /// Its JSON by the changed history.
    pub hypothetical: Option<Bytes>,
}

impl fmt::Debug for Alternative {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Documents may be large, or hold personal data.
        let bytes = |document: &Option<Bytes>| document.as_ref().map_or(0, Bytes::len);
        write!(f, "{:?}: {} bytes, {} in the other history", self.key, bytes(&self.actual), bytes(&self.hypothetical))
    }
}

/// What would be other.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct Alternatives {
    /// The documents that would be others, in the order of their keys.
    pub documents: Vec<Alternative>,
    /// The documents that would not be folded to the end, in the order of their keys. They are compared as they are before the event.
    pub hindered: Vec<Hindered>,
}

/// A document that ends with an event which cannot be folded into it in the other history, and can be in the log as it is: the reader would
/// stop at the event, or park the key.
#[derive(Debug)]
#[non_exhaustive]
pub struct Hindered {
    /// Its key.
    pub key: String,
    /// The event; one that is added has the position after which it stands.
    pub position: Position,
    /// Why: also [`EngineError::NotUnique`].
    pub error: EngineError,
}

/// A step of both histories.
enum Step<'a> {
    Same(&'a RecordedEvent),
    Other { actual: Option<&'a RecordedEvent>, hypothetical: Option<&'a RecordedEvent> },
}

/// The documents that differ between the fold of the log and that of the history with `changes`, in the order of their keys.
///
/// Both are folded as the reader does: what an operator has skipped, edited or discarded, and what waits. This does not hold for an
/// event that is left out or replaced in the other history; what waits because of it goes on there.
///
/// A document is the fold of the events of its key. So only those are folded of which an event is left out, replaced or added, or
/// waits in one history alone, and no others are kept in memory. It reads the log twice: for the keys, and for the documents.
///
/// A value of a unique field may be that of any document: if there are such fields, all documents are folded, and kept.
pub(crate) async fn what_if<P: Projection>(
    projection: &P,
    log: &dyn EventStore,
    store: &dyn ReadModelStore,
    changes: &WhatIf,
) -> Result<Alternatives, RefoldError> {
    let mut keys = BTreeSet::new();
    let end = log.head().await?;
    let exceptions = exceptions_of::<P>(store).await?;
    let others = exceptions.without(|position| changes.changes(position));
    let goes_on = exceptions != others;
    walk(log, changes, end, |step| {
        let (actual, hypothetical) = match step {
            Step::Same(event) if goes_on => (Some(event), None),
            Step::Same(_) => return Ok(()),
            Step::Other { actual, hypothetical } => {
                if let Some(event) = hypothetical {
                    keys.extend(touch_with(projection, event, &others)?.into_keys());
                }
                (actual, hypothetical)
            }
        };
        let Some(event) = actual else { return Ok(()) };
        let touched = touch_with(projection, event, &exceptions)?;
        if hypothetical.is_some() || changes.changes(event.position) {
            keys.extend(touched.into_keys());
        } else {
            let goes_on = |key: &String| others.of(key, event.position) != Treatment::Wait;
            keys.extend(touched.waiting.into_iter().filter(goes_on));
        }
        Ok(())
    })
    .await?;
    let are_unique = UniqueValues::are_declared::<P>();
    let folded = |exceptions| {
        let wanted = |key: &str| are_unique || keys.contains(key);
        let owners = are_unique.then(Owners::default);
        Refold { is_ahead: true, owners, ..Refold::new(projection, log, wanted).with(exceptions) }
    };
    let (mut actual, mut hypothetical) = (folded(exceptions), folded(others));
    walk(log, changes, end, |step| {
        let (one, other) = match step {
            Step::Same(event) => (Some(event), Some(event)),
            Step::Other { actual, hypothetical } => (actual, hypothetical),
        };
        one.map_or(Ok(()), |event| actual.fold(event, &mut |_, _| {}))?;
        other.map_or(Ok(()), |event| hypothetical.fold(event, &mut |_, _| {}))?;
        Ok(())
    })
    .await?;
    if let Some(key) = keys.iter().find(|key| actual.ended.contains_key(*key))
        && let Some((_, error)) = actual.ended.remove(key)
    {
        return Err(error.into());
    }
    let ended = actual.ended.keys().chain(hypothetical.ended.keys());
    let compared: BTreeSet<_> = keys.iter().chain(ended).cloned().collect();
    let mut documents = Vec::new();
    for key in compared {
        if actual.document(&key) != hypothetical.document(&key) {
            let (actual, hypothetical) = (actual.encoded(&key)?, hypothetical.encoded(&key)?);
            documents.push(Alternative { key, actual, hypothetical });
        }
    }
    let (actual, hypothetical) = (actual.ended, hypothetical.ended);
    let is_new = |key: &str, at: Position| actual.get(key).is_none_or(|(position, _)| *position != at);
    let hindered = hypothetical.into_iter().filter(|(key, (position, _))| is_new(key, *position));
    let hindered = hindered.map(|(key, (position, error))| Hindered { key, position, error }).collect();
    Ok(Alternatives { documents, hindered })
}

/// Goes through both histories, up to position `end` of the log.
async fn walk(
    log: &dyn EventStore,
    changes: &WhatIf,
    end: Position,
    mut each: impl FnMut(Step<'_>) -> Result<(), RefoldError> + Send,
) -> Result<(), RefoldError> {
    if let Some(position) = changes.missing(end) {
        return Err(RefoldError::NoSuchPosition { position, head: end });
    }
    let added: HashSet<_> = changes.added.values().flatten().chain(&changes.last).map(|(stream, _)| stream).collect();
    let mut versions = HashMap::<StreamId, Version>::new();
    let mut at = (Position::ZERO, DateTime::UNIX_EPOCH);
    while at.0 < end {
        let limit = usize::try_from(end.get() - at.0.get()).unwrap_or(usize::MAX).min(PAGE);
        let events = log.read_log(at.0, limit).await?;
        for event in &events {
            match changes.instead.get(&event.position) {
                None => each(Step::Same(event))?,
                Some(None) => each(Step::Other { actual: Some(event), hypothetical: None })?,
                Some(Some(payload)) => {
                    let data = EventData { payload: payload.clone(), ..event.data.clone() };
                    let other = RecordedEvent { data, ..event.clone() };
                    each(Step::Other { actual: Some(event), hypothetical: Some(&other) })?;
                }
            }
            if added.contains(&event.stream) {
                versions.insert(event.stream.clone(), event.version);
            }
            at = (event.position, event.recorded_at);
            for (stream, data) in changes.added.get(&event.position).into_iter().flatten() {
                let event = made(stream, data, &mut versions, at);
                each(Step::Other { actual: None, hypothetical: Some(&event) })
                    .map_err(|error| of_added(&event, error))?;
            }
        }
        if is_last_page(&events, limit) && at.0 < end {
            return Err(RefoldError::ShortLog { reached: end, head: at.0 });
        }
        tokio::task::yield_now().await;
    }
    for (stream, data) in &changes.last {
        at.0 = at.0.next();
        let event = made(stream, data, &mut versions, at);
        each(Step::Other { actual: None, hypothetical: Some(&event) }).map_err(|error| of_added(&event, error))?;
    }
    Ok(())
}

/// Why the other history ends at `event`, which the log does not have.
fn of_added(event: &RecordedEvent, error: RefoldError) -> RefoldError {
    match error {
        RefoldError::Fold(cause) => {
            let EventData { name, schema_version, .. } = &event.data;
            RefoldError::Added {
                event: format!("{name} v{schema_version} of {}", event.stream),
                cause: Box::new(cause),
            }
        }
        error => error,
    }
}

/// An event that was never written.
fn made(
    stream: &StreamId,
    data: &EventData,
    versions: &mut HashMap<StreamId, Version>,
    (position, recorded_at): (Position, DateTime<chrono::Utc>),
) -> RecordedEvent {
    let version = versions.entry(stream.clone()).or_default();
    *version = version.next();
    let (version, data, stream) = (*version, data.clone(), stream.clone());
    RecordedEvent { position, stream, version, id: Uuid::nil(), recorded_at, metadata: Metadata::default(), data }
}
