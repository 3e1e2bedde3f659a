//! The keys that the events of the log touch, for all watches of a read model in this process.

use std::{
    collections::{HashMap, VecDeque},
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::OnceCell;

use super::{WatchError, since::witness};
use crate::{
    event::RecordedEvent,
    read::{
        engine_error::EngineError,
        projection::Projection,
        query::QueryError,
        read_model::{Exceptions, Operations, Reader},
        touch::touch_with,
    },
    stream::Position,
    write::store::{EventStore, ReadError},
};

/// How many events are read at a time.
const EVENTS: u64 = 1_000;

/// How many pages are kept for watches that are a little behind.
const KEPT: usize = 16;

/// Tells which documents an event touches.
pub(crate) trait Touches: Send + Sync + 'static {
    /// Their keys, for a reader that makes these `exceptions`.
    ///
    /// # Errors
    /// [`EngineError`], when the event cannot be decoded or its keys are none, and the reader has not passed it.
    fn touches(&self, event: &RecordedEvent, exceptions: &Exceptions) -> Result<Vec<String>, EngineError>;
}

/// The keys of the documents of `projection` that `event` touches, for a reader that makes these `exceptions`.
pub(crate) fn keys_of<P: Projection>(
    projection: &P,
    event: &RecordedEvent,
    exceptions: &Exceptions,
) -> Result<Vec<String>, EngineError> {
    touch_with(projection, event, exceptions).map(|touch| touch.into_keys().collect())
}

/// A projection that is no part of a service.
pub(crate) struct Alone<P>(pub(crate) P);

impl<P: Projection> Touches for Alone<P> {
    fn touches(&self, event: &RecordedEvent, exceptions: &Exceptions) -> Result<Vec<String>, EngineError> {
        keys_of(&self.0, event, exceptions)
    }
}

/// What the events of the log touch: a page of it is read once for all watches that want it.
///
/// That costs nothing while no watch is there, and neither a column nor an index in the store.
pub(crate) struct TouchedKeys {
    projection: Box<dyn Touches>,
    log: Arc<dyn EventStore>,
    /// What operators have decided about events, if that is known here.
    operations: Option<Arc<dyn Operations>>,
    kept: Mutex<VecDeque<Kept>>,
}

#[derive(Clone)]
struct Kept {
    reader: i64,
    after: Position,
    until: Position,
    page: Arc<OnceCell<Arc<Page>>>,
}

/// The keys that events touch which follow each other.
pub(super) struct Page {
    /// Each key once, with the position of the last event that touches it, in the order of these.
    pub(super) keys: Vec<(String, Position)>,
    /// The position of the last event.
    pub(super) to: Position,
    /// What tells this event from others.
    pub(super) witness: u32,
}

impl TouchedKeys {
    pub(crate) fn new(projection: impl Touches, log: Arc<dyn EventStore>) -> Self {
        Self { projection: Box::new(projection), log, operations: None, kept: Mutex::default() }
    }

    /// It knows what operators have decided about events.
    pub(crate) fn heeding(self, operations: Arc<dyn Operations>) -> Self {
        Self { operations: Some(operations), ..self }
    }

    /// A first part of what the events after `after` up to `until`, which `reader` has reached, touch, or all.
    pub(super) async fn page(
        &self,
        reader: &Reader,
        after: Position,
        until: Position,
    ) -> Result<Arc<Page>, WatchError> {
        let page = self.kept(reader.id, after, until);
        page.get_or_try_init(|| self.read(reader, after, until)).await.cloned()
    }

    /// What tells the event at `position` from others; `None` if the log has none there.
    pub(super) async fn witness(&self, position: Position) -> Result<Option<u32>, ReadError> {
        let Some(before) = position.get().checked_sub(1) else { return Ok(None) };
        let events = self.log.read_log(Position::new(before), 1).await?;
        Ok(events.first().map(witness))
    }

    /// The log may have another past than the one that was read.
    pub(super) fn forget(&self) {
        self.all_kept().clear();
    }

    fn all_kept(&self) -> MutexGuard<'_, VecDeque<Kept>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn kept(&self, reader: i64, after: Position, until: Position) -> Arc<OnceCell<Arc<Page>>> {
        let mut kept = self.all_kept();
        let is_it = |kept: &&Kept| (kept.reader, kept.after, kept.until) == (reader, after, until);
        if let Some(found) = kept.iter().find(is_it) {
            return found.page.clone();
        }
        let page = Arc::default();
        kept.truncate(KEPT - 1);
        kept.push_front(Kept { reader, after, until, page: Arc::clone(&page) });
        page
    }

    async fn read(&self, reader: &Reader, after: Position, until: Position) -> Result<Arc<Page>, WatchError> {
        let limit = usize::try_from((until.get() - after.get()).min(EVENTS)).unwrap_or(usize::MAX);
        let events = self.log.read_log(after, limit).await?;
        let Some(last) = events.last() else {
            return Err(WatchError::History { reached: until, end: after });
        };
        let (to, witness) = (last.position, witness(last));
        let (mut last, mut exceptions) = (HashMap::new(), None);
        for event in &events {
            let none = Exceptions::default();
            let touched = match (self.projection.touches(event, exceptions.as_ref().unwrap_or(&none)), &self.operations)
            {
                // The reader has passed it: perhaps an operator has skipped it, or its key is parked.
                (Err(_), Some(operations)) if exceptions.is_none() => {
                    let found = operations.exceptions(reader).await.map_err(QueryError::from)?;
                    self.projection.touches(event, exceptions.insert(found))
                }
                (touched, _) => touched,
            };
            for key in touched.map_err(WatchError::Event)? {
                last.insert(key, event.position);
            }
        }
        let mut keys: Vec<_> = last.into_iter().collect();
        keys.sort_unstable_by(|(one, at), (other, then)| at.cmp(then).then_with(|| one.cmp(other)));
        Ok(Arc::new(Page { keys, to, witness }))
    }
}

impl fmt::Debug for TouchedKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TouchedKeys").field("log", &self.log).finish_non_exhaustive()
    }
}
