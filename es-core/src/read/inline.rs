//! Read models that a store folds in the transaction of each append: what a store and the model's projector say to each other.

#[cfg(test)]
mod tests;

use std::{
    collections::BTreeSet,
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

/// So many events before those of an append may be missing in an inline read model: the append folds them too. If more are missing,
/// the append waits for the projector.
pub const MOST_MISSING: u64 = 1_000;

/// The inline read models of a store, as a process has registered them. Clones share them.
///
/// A store looks here before it writes. While there are none, that is one load and the store works as if it knew nothing of them.
#[derive(Clone, Default)]
pub struct InlineModels(Arc<Shared>);

#[derive(Default)]
struct Shared {
    are_any: AtomicBool,
    models: Mutex<Vec<Arc<dyn InlineModel>>>,
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
    /// How far it has come; `None` if it has no checkpoint in the log, since it was fed by another source.
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

impl InlineFailure {
    /// What it means for appends after `head`.
    pub fn into_obstacle(self, state: &InlineState, head: Position) -> InlineObstacle {
        match self.position {
            Some(position) if position <= head => {
                InlineObstacle::Behind(InlineBehind::stopped(self.projection, state, head, *self.reason))
            }
            _ => InlineObstacle::Failed(self),
        }
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
    /// version is left to the processes that have this version.
    ///
    /// # Errors
    /// [`InlineBehind`] for a generation that another definition has folded.
    pub fn due(&self, mut states: Vec<InlineState>, head: Position) -> Result<Vec<InlineDue>, InlineBehind> {
        states.sort_by_key(|state| state.reader.id);
        let mut due = Vec::with_capacity(states.len());
        for state in states.into_iter().filter(|state| !state.is_detached) {
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

    fn models(&self) -> MutexGuard<'_, Vec<Arc<dyn InlineModel>>> {
        self.0.models.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl InlineState {
    /// How many events up to `head` an append has to fold beside its own.
    ///
    /// # Errors
    /// [`InlineBehind`] if they are too many.
    pub fn missing(&self, projection: &'static str, head: Position) -> Result<usize, InlineBehind> {
        let missing = head.get().checked_sub(self.reached().get()).filter(|missing| *missing <= MOST_MISSING);
        let missing = missing.filter(|_| self.checkpoint.is_some());
        let behind = || InlineBehind { projection, reached: self.reached(), head, reason: None };
        missing.map(|missing| usize::try_from(missing).unwrap_or(usize::MAX)).ok_or_else(behind)
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
