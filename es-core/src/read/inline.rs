//! Read models that a store folds in the transaction of each append: what a store and the model's projector say to each other.

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeSet, HashMap},
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use uuid::Uuid;

use crate::{
    event::RecordedEvent,
    read::{
        engine_error::EngineError,
        known_progress::KnownProgress,
        read_model::{Changes, Checkpoint, Lease, Reader, Shard, Taken},
        source::LogSource,
    },
    stream::Position,
    write::store::AppendError,
};

/// So many events before those of an append may be missing in an inline read model: the append folds them too. If more are missing, or
/// more than a page of [`PAGE_BYTES`](crate::backend::PAGE_BYTES), the append waits for the projector.
pub const MOST_MISSING: usize = 1_000;

/// The inline read models of a store, as a process has registered them. Clones share them.
///
/// A store looks here before it writes. While there are none, that is one load and the store works as if it knew nothing of them.
#[derive(Clone, Default)]
pub struct InlineModels(Arc<Shared>);

#[derive(Default)]
struct Shared {
    are_any: AtomicBool,
    models: Mutex<Vec<Arc<dyn InlineModel>>>,
    /// The generations that this program cannot fold past the event at this position, because only newer code knows it; by the ids of
    /// their readers.
    unknown: Mutex<HashMap<i64, Position>>,
}

/// A read model that is folded in the transaction of each append. It is a projector: the store has the transaction, and the
/// projector the code.
pub trait InlineModel: Send + Sync + 'static {
    /// The name of the projection.
    fn name(&self) -> &'static str;

    /// The version of the projection.
    fn version(&self) -> u32;

    /// The definition with which its generations are stored.
    fn definition(&self) -> String;

    /// Begins to fold `events`, which follow directly on the checkpoint of `at`.
    ///
    /// # Errors
    /// [`InlineFailure`].
    fn begin(self: Arc<Self>, at: &InlineState, events: &[RecordedEvent])
    -> Result<Box<dyn InlineFold>, InlineFailure>;
}

/// A fold of events in one transaction.
pub trait InlineFold: Send {
    /// The keys of the documents that it needs. It knows the others.
    fn missing(&self) -> &[String];

    /// How many bytes of them may be loaded.
    fn budget(&self) -> usize;

    /// Folds the events. `stored` are the documents under the first of [`missing`](Self::missing), as far as they fit into the
    /// budget. What it returns is to be committed together with the events.
    ///
    /// # Errors
    /// [`InlineFailure`].
    fn fold(&mut self, stored: Vec<Option<Bytes>>) -> Result<Changes, InlineFailure>;

    /// The failure where the store refuses to commit the changes, because of a value of a unique field.
    fn refused(&self, taken: Taken) -> InlineFailure;

    /// The changes are committed. (If they are not, it is dropped, and nothing is known any more.)
    fn committed(self: Box<Self>);
}

/// Why events cannot be folded.
#[derive(Debug)]
pub struct InlineFailure {
    /// Of which read model.
    pub projection: &'static str,
    /// The position of the event that fails; `None` if that is not known.
    pub position: Option<Position>,
    /// Why.
    pub reason: Box<EngineError>,
}

/// A generation as a store finds it in the transaction of an append, with its checkpoint locked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InlineState {
    /// The generation.
    pub reader: Reader,
    /// The version that folds it.
    pub version: u32,
    /// The definition with which it is stored.
    pub definition: String,
    /// The fencing token of its checkpoint. A store that moves the checkpoint while a worker holds the lease takes the lease away, and
    /// raises the fencing token: the worker would fold into documents that it takes for older ones, and stop at an event.
    pub fencing_token: i64,
    /// How far it has come; `None` if it has no checkpoint in the log, since it was fed by another source or in several shards. Its
    /// projector alone folds it until it follows the log.
    pub checkpoint: Option<Checkpoint>,
    /// An operator has paused it, or keys of it are parked: its projector alone folds it.
    pub is_detached: bool,
}

impl InlineState {
    /// The shard in which it follows the log.
    pub fn shard() -> Shard {
        LogSource::shard()
    }

    /// How far it has come.
    pub fn reached(&self) -> Position {
        self.checkpoint.as_ref().map_or(Position::ZERO, |checkpoint| checkpoint.position)
    }

    /// What a commit compares: the fencing token and the position as they were found.
    pub fn lease(&self) -> Lease {
        let checkpoint = self.checkpoint.clone().unwrap_or_default();
        Lease::new(self.reader.clone(), Self::shard(), Uuid::nil(), self.fencing_token, Duration::ZERO, checkpoint)
    }
}

/// Why appends were not written: an inline read model could not be folded with them.
#[derive(Debug)]
pub enum InlineObstacle {
    /// An event of the appends fails, or all of them together.
    Failed(InlineFailure),
    /// The read model does not have the events before those of the appends. No append is to blame.
    Behind(InlineBehind),
}

/// An inline read model that does not have the events before those of an append.
#[derive(Debug, Clone)]
pub struct InlineBehind {
    /// Which read model.
    pub projection: &'static str,
    /// The position that it has reached.
    pub reached: Position,
    /// The last position of the log, without the append.
    pub head: Position,
    /// Why it cannot be folded up to there; `None` if so much is missing that its projector has to do that first.
    pub reason: Option<Arc<EngineError>>,
}

impl InlineBehind {
    /// So much is missing that the projector has to fold it.
    fn waiting(projection: &'static str, state: &InlineState, head: Position) -> Self {
        Self { projection, reached: state.reached(), head, reason: None }
    }

    /// What stops the fold of `state`, which no append is to blame for.
    fn stopped(projection: &'static str, state: &InlineState, head: Position, reason: EngineError) -> Self {
        Self { projection, reached: state.reached(), head, reason: Some(Arc::new(reason)) }
    }

    /// Whether it is likely to have them soon.
    pub fn may_pass(&self) -> bool {
        self.reason.is_none()
    }
}

impl From<InlineBehind> for AppendError {
    fn from(behind: InlineBehind) -> Self {
        let InlineBehind { projection, reached, head, reason } = behind;
        Self::InlineBehind { projection, reached, head, reason: reason.map(Into::into) }
    }
}

impl From<InlineFailure> for AppendError {
    /// For an append that was written alone.
    fn from(InlineFailure { projection, reason, .. }: InlineFailure) -> Self {
        Self::Unfoldable { projection, reason }
    }
}

/// What was folded in a transaction, each with the name of its projection.
pub type InlineFolds = Vec<(&'static str, Box<dyn InlineFold>)>;

/// What a store that folds inline read models keeps: these, and who waits for them.
#[derive(Debug, Clone, Default)]
pub struct Inline {
    /// The read models.
    pub models: InlineModels,
    /// How far they have come, for callers that wait.
    pub progress: KnownProgress,
}

impl Inline {
    /// The transaction of `folds` was committed.
    pub fn committed(&self, folds: InlineFolds) {
        for (projection, fold) in folds {
            fold.committed();
            self.progress.moved(projection);
        }
    }
}

/// A generation that is to be folded, and how.
pub type InlineDue = (Arc<dyn InlineModel>, InlineState);

impl InlineModels {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        !self.0.are_any.load(Ordering::Acquire)
    }

    /// Adds `model`, for as long as what is returned is kept.
    pub fn register(&self, model: Arc<dyn InlineModel>) -> InlineRegistration {
        let mut models = self.models();
        models.push(model.clone());
        self.0.are_any.store(true, Ordering::Release);
        InlineRegistration { models: self.clone(), model }
    }

    /// Their names, each once, in order.
    pub fn names(&self) -> Vec<&'static str> {
        self.models().iter().map(|model| model.name()).collect::<BTreeSet<_>>().into_iter().collect()
    }

    /// The one that folds the generations of this `name` and `version`.
    pub fn of(&self, name: &str, version: u32) -> Option<Arc<dyn InlineModel>> {
        self.models().iter().find(|model| model.name() == name && model.version() == version).cloned()
    }

    /// Those of `states` that this process folds with appends after `head`, in the order of the readers' ids. A generation of another
    /// version is left to the processes that have this version, and one that does not follow the log to its projector; also one
    /// whose next events only newer code knows.
    ///
    /// # Errors
    /// [`InlineBehind`] for a generation that another definition has folded.
    pub fn due(&self, mut states: Vec<InlineState>, head: Position) -> Result<Vec<InlineDue>, InlineBehind> {
        states.sort_by_key(|state| state.reader.id);
        let mut due = Vec::with_capacity(states.len());
        let mut unknown = self.unknown();
        unknown.retain(|id, position| states.iter().all(|state| state.reader.id != *id || state.reached() < *position));
        let is_left = |state: &InlineState| {
            state.is_detached || state.checkpoint.is_none() || unknown.contains_key(&state.reader.id)
        };
        for state in states.into_iter().filter(|state| !is_left(state)) {
            let Some(model) = self.of(&state.reader.name, state.version) else { continue };
            let (name, ours) = (model.name(), model.definition());
            if state.definition != ours {
                let reason = EngineError::OtherDefinition { name, stored: state.definition.clone(), ours };
                return Err(InlineBehind::stopped(name, &state, head, reason));
            }
            due.push((model, state));
        }
        Ok(due)
    }

    /// Begins to fold the events up to `head` that are `missing` in the read model of `at`, before those of an append, so that no append
    /// is blamed for them. `page` are the first of them: all, or as many as [`InlineState::page`] says and
    /// [`PAGE_BYTES`](crate::backend::PAGE_BYTES) allow. `None`: the read model is left out, since only newer code can fold them.
    ///
    /// # Errors
    /// [`InlineBehind`] if they are too many, or one of them fails.
    pub fn begin_missing(
        &self,
        model: &Arc<dyn InlineModel>,
        at: &InlineState,
        page: &[RecordedEvent],
        missing: usize,
        head: Position,
    ) -> Result<Option<Box<dyn InlineFold>>, InlineBehind> {
        let are_all = page.len() == missing;
        // Of too many events the first tells whether their projector has stopped there.
        let events = if are_all { page } else { &page[..page.len().min(1)] };
        match model.clone().begin(at, events) {
            Ok(fold) if are_all => Ok(Some(fold)),
            Ok(_) => Err(InlineBehind::waiting(model.name(), at, head)),
            Err(failure) => self.missing_failed(failure, at, events.len(), head).map(|()| None),
        }
    }

    /// What the failure of `missing` events up to `head` means for appends: `Ok` if the read model of `at` is left out, because
    /// only newer code can fold one of them.
    ///
    /// # Errors
    /// [`InlineBehind`] otherwise. It may pass if the events are too many for one commit: the projector makes several.
    pub fn missing_failed(
        &self,
        failure: InlineFailure,
        at: &InlineState,
        missing: usize,
        head: Position,
    ) -> Result<(), InlineBehind> {
        let InlineFailure { projection, position, reason } = failure;
        match (position, *reason) {
            (Some(position), reason) if reason.awaits_newer_code() => {
                self.unknown().insert(at.reader.id, position);
                Ok(())
            }
            (_, EngineError::TooLarge { .. }) if missing > 1 => Err(InlineBehind::waiting(projection, at, head)),
            (_, reason) => Err(InlineBehind::stopped(projection, at, head, reason)),
        }
    }

    fn models(&self) -> MutexGuard<'_, Vec<Arc<dyn InlineModel>>> {
        self.0.models.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn unknown(&self) -> MutexGuard<'_, HashMap<i64, Position>> {
        self.0.unknown.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl InlineState {
    /// How many events up to `head` are missing in it.
    ///
    /// # Errors
    /// [`InlineBehind`] if the log does not reach so far as it does, because it was restored.
    pub fn missing(&self, projection: &'static str, head: Position) -> Result<usize, InlineBehind> {
        let missing = head.get().checked_sub(self.reached().get());
        let missing = missing.map(|missing| usize::try_from(missing).unwrap_or(usize::MAX));
        missing.ok_or_else(|| InlineBehind::waiting(projection, self, head))
    }

    /// How many of `missing` events are to be read for an append: all, or of too many the first.
    pub fn page(missing: usize) -> usize {
        if missing <= MOST_MISSING { missing } else { 1 }
    }
}

impl fmt::Debug for InlineModels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.names()).finish()
    }
}

/// Keeps an inline read model registered.
pub struct InlineRegistration {
    models: InlineModels,
    model: Arc<dyn InlineModel>,
}

impl Drop for InlineRegistration {
    fn drop(&mut self) {
        let mut models = self.models.models();
        if let Some(index) = models.iter().position(|model| Arc::ptr_eq(model, &self.model)) {
            models.swap_remove(index);
        }
        self.models.0.are_any.store(!models.is_empty(), Ordering::Release);
    }
}

impl fmt::Debug for InlineRegistration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("InlineRegistration").field(&self.model.name()).finish()
    }
}
