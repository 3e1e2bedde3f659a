//! The port to read models: documents, and the checkpoints that commit with them.

use std::{fmt, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use chrono::{DateTime, SecondsFormat, Utc};
use uuid::Uuid;

use crate::{
    cursor::Cursor,
    error::{BoxError, StoreMoved},
    event::Recorded,
    stream::Position,
};

/// Keeps the documents of read models together with the checkpoints of their projectors.
///
/// A read model is a projection's documents in one or more *generations*: one serves the readers,
/// another may be under construction. A generation is fed through *shards* of its source, each
/// with a checkpoint of its own.
///
/// # Cancel safety
/// Dropping the future of any call leaves either nothing or the whole (R7).
#[async_trait]
pub trait ReadModelStore: fmt::Debug + Send + Sync + 'static {
    /// The generation that serves `projection`.
    ///
    /// # Errors
    /// [`ReadModelError`].
    async fn serving(&self, projection: &str) -> Result<Option<Generation>, ReadModelError>;

    /// The generations of `projection` and how far each is, all at one moment: a promotion falls
    /// before it or after it.
    ///
    /// # Errors
    /// [`ReadModelError`].
    async fn generations(&self, projection: &str) -> Result<Generations, ReadModelError>;

    /// The generation in `state` of `projection`; where there is none, a new and empty one of
    /// `version`. Two callers at once get the same one.
    ///
    /// # Errors
    /// [`ReadModelError`].
    async fn ensure_generation(
        &self,
        projection: &str,
        version: u32,
        state: GenerationState,
    ) -> Result<Generation, ReadModelError>;

    /// Records what `generation` is folded by, unless it is recorded already: the first definition
    /// stays.
    ///
    /// # Errors
    /// [`ReadModelError`].
    async fn define(&self, generation: &Generation, definition: &str) -> Result<(), ReadModelError>;

    /// What `generation` is there for; `None` when it was replaced or discarded.
    ///
    /// # Errors
    /// [`ReadModelError`].
    async fn state(&self, generation: &Generation) -> Result<Option<GenerationState>, ReadModelError>;

    /// Which store this is: the same at each call and in each process, and another one for each database. A
    /// copy of a database has the id of what it was copied from.
    ///
    /// # Errors
    /// [`ReadModelError`].
    async fn id(&self) -> Result<Uuid, ReadModelError>;

    /// Puts the building generation in the place of the serving one, in one step: readers see the
    /// whole old or the whole new one, and workers of the old one are fenced (R12). The documents
    /// of the old one are deleted.
    ///
    /// Where a newer version served, that one and those up to it are withdrawn: only
    /// [`Promotion::OnPurpose`] makes them serve again.
    ///
    /// # Errors
    /// [`PromoteError::Behind`] when it has not reached what readers may have seen already: in each
    /// shard of the old one it must be as far, or, where it has no such shard because it reads from
    /// another source, its slowest shard must; and its slowest shard must be as far as the slowest
    /// of the old one, so that what readers have [reached](Generations::serving) never falls.
    /// [`PromoteError::Withdrawn`] when its version was withdrawn, or is older than the one that
    /// serves, and `promotion` is not on purpose.
    async fn promote(&self, building: &Generation, promotion: Promotion) -> Result<(), PromoteError>;

    /// Deletes a building generation with its documents and checkpoints; no-op where there is none.
    ///
    /// # Errors
    /// [`ReadModelError`].
    async fn discard(&self, building: &Generation) -> Result<(), ReadModelError>;

    /// Makes sure that `generation` is fed through `shards`, which all belong to one source
    /// ([`Shard::source`]), and that each of them has a checkpoint.
    ///
    /// A generation is fed by one source at a time. Where it was fed by another one, the shards
    /// change over: if all of the old ones stand at the same position, they are replaced by the
    /// new ones, which go on from there, so that nothing is folded twice.
    ///
    /// # Errors
    /// [`ReadModelError`].
    async fn ensure_shards(&self, generation: &Generation, shards: &[Shard]) -> Result<Changeover, ReadModelError>;

    /// Takes the lease on a shard and fences its former owner: later commits under the former
    /// token fail (R9).
    ///
    /// `None` where there is no such shard, and, with [`Takeover::WhenFree`], where another owner
    /// holds the lease and has not let it expire.
    ///
    /// # Errors
    /// [`ReadModelError`].
    async fn acquire(
        &self,
        generation: &Generation,
        shard: &Shard,
        owner: Uuid,
        takeover: Takeover,
        ttl: Duration,
    ) -> Result<Option<Lease>, ReadModelError>;

    /// Keeps the lease for at least `ttl` from now, if it still holds. A store may leave the writing to one statement
    /// that renews all leases of the process; so a lease whose worker is gone may last for twice its length.
    ///
    /// # Errors
    /// [`CommitError::Fenced`] when it is lost.
    async fn renew(&self, lease: &Lease, ttl: Duration) -> Result<(), CommitError>;

    /// Gives the lease back, so that another owner need not wait for its end. No-op when it is lost.
    ///
    /// # Errors
    /// [`ReadModelError`].
    async fn release(&self, lease: &Lease) -> Result<(), ReadModelError>;

    /// Writes documents and checkpoint in one transaction, if the checkpoint still is what `lease`
    /// says (compare-and-set on token and position). It prolongs the lease by `ttl` too.
    ///
    /// # Errors
    /// [`CommitError::Fenced`]: nothing was written; take the lease again to learn why.
    async fn commit(&self, lease: &Lease, changes: Changes, ttl: Duration) -> Result<(), CommitError>;

    /// The documents under the first of `keys` in `generation`, in the order of `keys`: all of them, or as many
    /// as hold `budget` bytes together, the last one being that with which they reach it. No more than that is
    /// brought into memory (R17).
    ///
    /// # Errors
    /// [`ReadModelError`].
    async fn load(
        &self,
        generation: &Generation,
        keys: &[String],
        budget: usize,
    ) -> Result<Vec<Option<Bytes>>, ReadModelError>;

    /// The document under `key` in the generation that serves `projection` at this moment, with that
    /// generation; `None` where none serves.
    ///
    /// # Errors
    /// [`ReadModelError`].
    async fn get(&self, projection: &str, key: &str) -> Result<Option<Served<Option<Bytes>>>, ReadModelError>;

    /// Documents of the serving generation whose keys lie in `range`, in byte order of the keys, with
    /// that generation; `None` where none serves. All are of one moment.
    ///
    /// # Errors
    /// [`ReadModelError`].
    async fn scan(
        &self,
        projection: &str,
        range: KeyRange,
        limit: usize,
    ) -> Result<Option<Served<Vec<(String, Bytes)>>>, ReadModelError>;

    /// The position up to which `generation` holds everything: the least of its checkpoints, 0
    /// where it has none or was replaced. Queries ask [`generations`](Self::generations).
    ///
    /// # Errors
    /// [`ReadModelError`].
    async fn reached(&self, generation: &Generation) -> Result<Position, ReadModelError>;
}

/// One copy of a read model.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Generation {
    /// Its number, unique in the store.
    pub id: i64,
    /// [`Projection::NAME`](crate::Projection::NAME).
    pub projection: String,
    /// [`Projection::VERSION`](crate::Projection::VERSION) that folds it.
    pub version: u32,
}

/// What a generation is there for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GenerationState {
    /// Readers see it.
    Serving,
    /// It is being rebuilt beside the one that serves.
    Building,
}

impl GenerationState {
    /// The word that stores keep.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Serving => "serving",
            Self::Building => "building",
        }
    }

    /// What [`as_str`](Self::as_str) stored.
    pub fn from_stored(word: &str) -> Option<Self> {
        [Self::Serving, Self::Building].into_iter().find(|state| state.as_str() == word)
    }
}

/// The generations of a projection at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Generations {
    /// The one that readers see.
    pub serving: Option<Progress>,
    /// The one that is being built.
    pub building: Option<Progress>,
    /// The newest version that was withdrawn when an older one was promoted; 0 where there is none.
    pub withdrawn: u32,
}

/// How far a generation is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    /// Which one.
    pub generation: Generation,
    /// What it is folded by, once that is recorded.
    pub definition: Option<String>,
    /// Every event up to this position is in it: the least of its checkpoints, 0 where it has none.
    pub reached: Position,
    /// The greatest of its checkpoints.
    pub furthest: Position,
}

/// What was read, and from which generation: both are of one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Served<T> {
    /// The generation that served it.
    pub generation: Generation,
    /// What was found in it.
    pub found: T,
}

/// Who wants a generation to serve.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Promotion {
    /// A worker, because its version is newer than the one that serves.
    Automatic,
    /// An operator, whichever version serves.
    OnPurpose,
}

/// A part of a source with an order of its own: `log`, or one Kafka partition (`order-events/3`).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Shard(pub String);

impl Shard {
    /// The source that it is a part of: what stands before the `/`.
    pub fn source(&self) -> &str {
        self.0.split_once('/').map_or(&self.0, |(source, _)| source)
    }
}

/// Whether a generation is fed by the source that was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Changeover {
    /// It is.
    Ready,
    /// Not yet: a worker that reads from another source holds a lease.
    Busy,
    /// No: the shards of the former source stand at different positions. Let them reach the same
    /// one, or rebuild.
    Uneven,
}

impl fmt::Display for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// How far a projector has come in one shard.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Checkpoint {
    /// Every event of the shard up to this position is folded.
    pub position: Position,
    /// The last event that was folded: tells another history from this one.
    pub witness: Option<Witness>,
    /// Where the source goes on, in words of the source (Kafka offsets); the log needs none.
    pub cursor: Option<String>,
}

/// An event by what makes it one of a kind: two logs that hold it at the same position share everything before it.
///
/// The id alone does not tell that. After an older copy of the log was restored, a client may send a lost event again:
/// it has the same id and may get the same position, behind other events. But the store writes it at another time.
///
/// Two cases remain in which another history goes unnoticed: the clock was set back, and the event was written again at
/// the very same microsecond; and the event was copied by an import, which keeps the times of its source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Witness {
    /// Its id.
    pub event_id: Uuid,
    /// When the store wrote it, in whole microseconds.
    pub recorded_at: DateTime<Utc>,
}

impl Witness {
    /// `event` as a witness.
    pub fn of<D>(event: &Recorded<D>) -> Self {
        Self { event_id: event.id, recorded_at: event.recorded_at }
    }
}

impl fmt::Display for Witness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "event {} of {}", self.event_id, self.recorded_at.to_rfc3339_opts(SecondsFormat::Micros, true))
    }
}

/// Whether a lease may be taken from a live owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Takeover {
    /// No: wait until it is released or expires.
    WhenFree,
    /// Yes: someone else (Kafka's group coordinator) has decided who owns the shard.
    Always,
}

/// The right to advance one shard of one generation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// Of which generation.
    pub generation: Generation,
    /// Which shard.
    pub shard: Shard,
    /// Who holds it.
    pub owner: Uuid,
    /// The fencing token: greater than every earlier one of this shard.
    pub token: i64,
    /// Where the shard stands.
    pub checkpoint: Checkpoint,
}

/// What one commit writes.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Changes {
    /// Documents to write.
    pub upserts: Vec<(String, Bytes)>,
    /// Documents to delete.
    pub deletes: Vec<String>,
    /// The checkpoint after it.
    pub checkpoint: Checkpoint,
}

impl fmt::Debug for Changes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Documents may be large, or hold personal data.
        let Self { upserts, deletes, checkpoint } = self;
        write!(f, "{} upserts, {} deletes, {checkpoint:?}", upserts.len(), deletes.len())
    }
}

/// A range of keys in byte order: those that start with `prefix` and come after `after`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KeyRange {
    /// What the keys start with.
    pub prefix: String,
    /// The key after which the range starts: a cursor. It need not start with `prefix`.
    pub after: Option<String>,
    /// The first key that no longer belongs to the range.
    pub before: Option<String>,
    /// The only [`Generation::id`] in which the range may be read: that of the page before.
    pub generation: Option<i64>,
}

impl KeyRange {
    /// All keys that start with `prefix`.
    pub fn prefix(prefix: impl Into<String>) -> Self {
        Self { prefix: prefix.into(), ..Self::default() }
    }

    /// The part of it after `key`.
    pub fn after(self, key: impl Into<String>) -> Self {
        Self { after: Some(key.into()), ..self }
    }

    /// The part of it before `key`.
    pub fn before(self, key: impl Into<String>) -> Self {
        Self { before: Some(key.into()), ..self }
    }

    /// The part of it that the page which handed out `cursor` left, in the same generation.
    pub fn resume(self, cursor: Cursor) -> Self {
        Self { after: Some(cursor.key), generation: Some(cursor.generation), ..self }
    }

    /// Whether `key` lies in it.
    pub fn contains(&self, key: &str) -> bool {
        key.starts_with(&self.prefix)
            && self.after.as_deref().is_none_or(|after| key > after)
            && self.before.as_deref().is_none_or(|before| key < before)
    }
}

/// A read model store failed; trying again may succeed, unless it has [moved](StoreMoved).
#[derive(Debug, thiserror::Error)]
#[error("the read model store failed")]
pub struct ReadModelError(#[source] pub BoxError);

impl ReadModelError {
    /// Whether trying again may help.
    pub fn is_transient(&self) -> bool {
        !StoreMoved::is_in(&self.0)
    }
}

/// Why a commit did not happen.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CommitError {
    /// Another worker has taken the shard, the generation is gone, or this very commit was made
    /// before. Nothing was written.
    #[error("the lease on shard {0} is lost")]
    Fenced(Shard),
    /// The store failed; the outcome is unknown.
    #[error(transparent)]
    Store(#[from] ReadModelError),
}

/// Why a generation was not promoted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PromoteError {
    /// Readers would go back in time.
    #[error("the new generation has reached {building}, the serving one {serving}")]
    Behind {
        /// How far the new one is.
        building: Position,
        /// How far the old one is.
        serving: Position,
    },
    /// An operator has promoted an older version in the place of this one.
    #[error("version {serving} serves on purpose and the version of the new generation was withdrawn")]
    Withdrawn {
        /// The version that serves.
        serving: u32,
    },
    /// It is not under construction (any more).
    #[error("the generation is not under construction")]
    NotBuilding,
    /// The store failed; the outcome is unknown.
    #[error(transparent)]
    Store(#[from] ReadModelError),
}
