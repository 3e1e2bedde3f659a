//! The keys that the events of the log touch, for all watches of a read model in this process.

use std::{
    collections::{HashMap, VecDeque},
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::OnceCell;

use super::WatchError;
use crate::{
    event::RecordedEvent,
    read::{
        engine_error::{EngineError, Location},
        panics::caught,
        projection::Projection,
        projector,
    },
    stream::Position,
    write::store::EventStore,
};

/// How many events are read at a time.
const EVENTS: u64 = 1_000;

/// How many pages are kept for watches that are a little behind.
const KEPT: usize = 16;

/// Tells which documents an event touches.
pub(crate) trait Touches: Send + Sync + 'static {
    /// Their keys.
    ///
    /// # Errors
    /// [`EngineError`], when the event cannot be decoded or its keys are none.
    fn touches(&self, event: &RecordedEvent) -> Result<Vec<String>, EngineError>;
}

/// The keys of the documents of `projection` that `event` touches.
pub(crate) fn keys_of<P: Projection>(projection: &P, event: &RecordedEvent) -> Result<Vec<String>, EngineError> {
    let keys = || match event.decode::<P::Event>()? {
        Some(event) => projector::keys(projection, &event),
        None => Ok(Vec::new()),
    };
    caught(keys).unwrap_or_else(|_| Err(EngineError::Panicked { event: Location::of(event) }))
}

/// A projection that is no part of a service.
pub(crate) struct Alone<P>(pub(crate) P);

impl<P: Projection> Touches for Alone<P> {
    fn touches(&self, event: &RecordedEvent) -> Result<Vec<String>, EngineError> {
        keys_of(&self.0, event)
    }
}

/// What the events of the log touch: a page of it is read once for all watches that want it.
///
/// That costs nothing while no watch is there, and neither a column nor an index in the store.
pub(crate) struct TouchedKeys {
    projection: Box<dyn Touches>,
    log: Arc<dyn EventStore>,
    kept: Mutex<VecDeque<Kept>>,
}

#[derive(Clone)]
struct Kept {
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
}

impl TouchedKeys {
    pub(crate) fn new(projection: impl Touches, log: Arc<dyn EventStore>) -> Self {
        Self { projection: Box::new(projection), log, kept: Mutex::default() }
    }

    /// A first part of what the events after `after` up to `until` touch, or all.
    pub(super) async fn page(&self, after: Position, until: Position) -> Result<Arc<Page>, WatchError> {
        let page = self.kept(after, until);
        page.get_or_try_init(|| self.read(after, until)).await.cloned()
    }

    /// The log may have another past than the one that was read.
    pub(super) fn forget(&self) {
        self.all_kept().clear();
    }

    fn all_kept(&self) -> MutexGuard<'_, VecDeque<Kept>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn kept(&self, after: Position, until: Position) -> Arc<OnceCell<Arc<Page>>> {
        let mut kept = self.all_kept();
        if let Some(found) = kept.iter().find(|kept| (kept.after, kept.until) == (after, until)) {
            return found.page.clone();
        }
        let page = Arc::default();
        kept.truncate(KEPT - 1);
        kept.push_front(Kept { after, until, page: Arc::clone(&page) });
        page
    }

    async fn read(&self, after: Position, until: Position) -> Result<Arc<Page>, WatchError> {
        let limit = usize::try_from((until.get() - after.get()).min(EVENTS)).unwrap_or(usize::MAX);
        let events = self.log.read_log(after, limit).await?;
        let Some(to) = events.last().map(|event| event.position) else {
            return Err(WatchError::History { reached: until, end: after });
        };
        let mut last = HashMap::new();
        for event in &events {
            for key in self.projection.touches(event).map_err(WatchError::Event)? {
                last.insert(key, event.position);
            }
        }
        let mut keys: Vec<_> = last.into_iter().collect();
        keys.sort_unstable_by(|(one, at), (other, then)| at.cmp(then).then_with(|| one.cmp(other)));
        Ok(Arc::new(Page { keys, to }))
    }
}

impl fmt::Debug for TouchedKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TouchedKeys").field("log", &self.log).finish_non_exhaustive()
    }
}
