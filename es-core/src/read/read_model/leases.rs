//! The port to checkpoints and the leases on them.

use std::{
    fmt,
    sync::{
        Arc, Weak,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{
    dead_letters::{DeadLetter, NewLetter, Redemption},
    error::ReadModelError,
    fields::{FieldChange, Taken},
    operations::{Act, Pause},
    reader::Reader,
    shards::{Shard, Share},
};
use crate::{counted::counted, event::RecordedEvent, stream::Position, witness::Witness};

/// Keeps the checkpoints of readers, one for each *shard* of the source that a reader follows, and the leases to advance them.
///
/// It is all that a policy needs of a store. A projector also needs [`Generations`](super::Generations): each generation of its read
/// model is a reader.
///
/// # Cancel safety
/// Dropping the future of any call leaves either nothing or the whole (R7).
#[async_trait]
pub trait Leases: fmt::Debug + Send + Sync + 'static {
    /// The id of this store: the same at each call and in each process, and another one for each database. A copy of a database has
    /// the id of the original.
    ///
    /// # Errors
    /// [`ReadModelError`].
    async fn id(&self) -> Result<Uuid, ReadModelError>;

    /// The reader `name` and the definition by which it was created. If there is none, it is created with `definition`; two callers
    /// at once get the same one. If a read model has the name, its oldest generation is returned, which the definition shows.
    ///
    /// # Errors
    /// [`ReadModelError`].
    async fn ensure_reader(&self, name: &str, definition: &str) -> Result<(Reader, String), ReadModelError>;

    /// The position up to which the reader `name` has everything: the least of its checkpoints. Of a read model that is the
    /// generation that serves. 0 if there is none.
    ///
    /// # Errors
    /// [`ReadModelError`].
    async fn reached(&self, name: &str) -> Result<Position, ReadModelError>;

    /// Makes sure that `reader` is fed through `shards`, which all belong to one source
    /// ([`Shard::source`]), and that each of them has a checkpoint.
    ///
    /// A reader is fed by one source at a time. If it was fed by another one and all of the old shards have reached the same
    /// position, the new shards replace them and continue from there, so that nothing is folded twice. Parked keys go to the new
    /// shard if there is only one.
    ///
    /// # Errors
    /// [`ReadModelError`].
    async fn ensure_shards(&self, reader: &Reader, shards: &[Shard]) -> Result<Changeover, ReadModelError>;

    /// Takes the lease on a shard and fences its former owner: later commits under the former
    /// fencing token fail (R9).
    ///
    /// `None` if there is no such shard, or if, with [`Takeover::WhenFree`], another owner holds the lease and it has not
    /// expired.
    ///
    /// The store renews the lease for as long as the caller keeps it or a clone of it, on a thread that no `fold` can block
    /// ([`heartbeat`](crate::read::heartbeat)). A lease that is dropped expires within its [`ttl`](Lease::ttl). If a store
    /// finds it lost, [`Lease::lost`] returns. With each renewal and commit it learns of the acts of operators
    /// ([`Lease::acts`]).
    ///
    /// # Errors
    /// [`ReadModelError`].
    async fn acquire(
        &self,
        reader: &Reader,
        shard: &Shard,
        owner: Uuid,
        takeover: Takeover,
        ttl: Duration,
    ) -> Result<Option<Lease>, ReadModelError>;

    /// Checks that the lease still holds, before an error that only its holder may report.
    ///
    /// # Errors
    /// [`CommitError::Fenced`] when it is lost.
    async fn confirm(&self, lease: &Lease) -> Result<(), CommitError>;

    /// Releases the lease, so that another owner need not wait until it expires. It does nothing when the lease is lost.
    ///
    /// # Errors
    /// [`ReadModelError`].
    async fn release(&self, lease: &Lease) -> Result<(), ReadModelError>;

    /// Writes documents, dead letters and checkpoint in one transaction, if the checkpoint still is what `lease`
    /// says (compare-and-set on fencing token and position).
    ///
    /// # Errors
    /// [`CommitError::Fenced`]: nothing was written; take the lease again to learn why.
    /// [`CommitError::Edited`]: nothing was written, because a letter of the [`Redemption`] is no longer as it was read.
    /// [`CommitError::Taken`]: nothing was written, because two documents would have the same value of a unique field. Of a lease
    /// that is lost, it may be either error.
    async fn commit(&self, lease: &Lease, changes: Changes) -> Result<(), CommitError>;

    /// What the worker of `lease` must know beside its checkpoint. It asks when it has taken the lease, and when
    /// [`Lease::acts`] has changed.
    ///
    /// # Errors
    /// [`CommitError::Fenced`] when the lease is lost.
    async fn situation(&self, lease: &Lease) -> Result<Situation, CommitError>;

    /// The first letters under `key` of the reader of `lease`, in order. They end with the one with which their payloads
    /// reach [`PAGE_BYTES`](crate::limits::PAGE_BYTES), or with the hundredth (R17).
    ///
    /// # Errors
    /// [`ReadModelError`].
    async fn letters(&self, lease: &Lease, key: &str) -> Result<Vec<DeadLetter>, ReadModelError>;

    /// Those of `messages` that `reader` has handled already, as its commits have noted ([`Changes::inbox`]).
    ///
    /// # Errors
    /// [`ReadModelError`].
    async fn handled(&self, reader: &Reader, messages: &[Uuid]) -> Result<Vec<Uuid>, ReadModelError>;

    /// Records that the reader has stopped at `event`, for [`Operations::skip`](super::Operations::skip). It does nothing when the
    /// lease is lost.
    ///
    /// # Errors
    /// [`ReadModelError`].
    async fn stopped(&self, lease: &Lease, event: &RecordedEvent, cause: &str) -> Result<(), ReadModelError>;

    /// The pause of `reader`; `None` when it is not paused.
    ///
    /// # Errors
    /// [`ReadModelError`].
    async fn paused(&self, reader: &str) -> Result<Option<Pause>, ReadModelError>;

    /// The shards of `reader` whose leases hold, for workers that share them.
    ///
    /// # Errors
    /// [`ReadModelError`].
    async fn shares(&self, reader: &Reader) -> Result<Vec<Share>, ReadModelError>;

    /// Asks the workers that hold `shards` to give them back. They see that as they see an act ([`Lease::acts`]), and
    /// [`Situation::is_asked_for`] until another worker takes the shard.
    ///
    /// # Errors
    /// [`ReadModelError`].
    async fn ask_for(&self, reader: &Reader, shards: &[Shard]) -> Result<(), ReadModelError>;
}

#[async_trait]
impl<T: Leases + ?Sized> Leases for Arc<T> {
    async fn id(&self) -> Result<Uuid, ReadModelError> {
        (**self).id().await
    }

    async fn ensure_reader(&self, name: &str, definition: &str) -> Result<(Reader, String), ReadModelError> {
        (**self).ensure_reader(name, definition).await
    }

    async fn reached(&self, name: &str) -> Result<Position, ReadModelError> {
        (**self).reached(name).await
    }

    async fn ensure_shards(&self, reader: &Reader, shards: &[Shard]) -> Result<Changeover, ReadModelError> {
        (**self).ensure_shards(reader, shards).await
    }

    async fn acquire(
        &self,
        reader: &Reader,
        shard: &Shard,
        owner: Uuid,
        takeover: Takeover,
        ttl: Duration,
    ) -> Result<Option<Lease>, ReadModelError> {
        (**self).acquire(reader, shard, owner, takeover, ttl).await
    }

    async fn confirm(&self, lease: &Lease) -> Result<(), CommitError> {
        (**self).confirm(lease).await
    }

    async fn release(&self, lease: &Lease) -> Result<(), ReadModelError> {
        (**self).release(lease).await
    }

    async fn commit(&self, lease: &Lease, changes: Changes) -> Result<(), CommitError> {
        (**self).commit(lease, changes).await
    }

    async fn situation(&self, lease: &Lease) -> Result<Situation, CommitError> {
        (**self).situation(lease).await
    }

    async fn letters(&self, lease: &Lease, key: &str) -> Result<Vec<DeadLetter>, ReadModelError> {
        (**self).letters(lease, key).await
    }

    async fn handled(&self, reader: &Reader, messages: &[Uuid]) -> Result<Vec<Uuid>, ReadModelError> {
        (**self).handled(reader, messages).await
    }

    async fn stopped(&self, lease: &Lease, event: &RecordedEvent, cause: &str) -> Result<(), ReadModelError> {
        (**self).stopped(lease, event, cause).await
    }

    async fn paused(&self, reader: &str) -> Result<Option<Pause>, ReadModelError> {
        (**self).paused(reader).await
    }

    async fn shares(&self, reader: &Reader) -> Result<Vec<Share>, ReadModelError> {
        (**self).shares(reader).await
    }

    async fn ask_for(&self, reader: &Reader, shards: &[Shard]) -> Result<(), ReadModelError> {
        (**self).ask_for(reader, shards).await
    }
}

/// Whether a reader is fed by the given source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Changeover {
    /// It is.
    Ready,
    /// Not yet: a worker that reads from another source holds a lease.
    Busy,
    /// No: the shards of the former source have reached different positions. Let them reach the same one, or rebuild.
    Uneven,
    /// No: keys are parked, and it is not known which of the several new shards their events come from. Retry or discard their
    /// letters first, or rebuild.
    Parked,
}

/// How many acts of operators have concerned a shard: what stores learn with commits and renewals. While it is the same,
/// [`Leases::situation`] need not be asked, so a worker learns of an act without a query of its own.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Acts(pub i64);

/// What a worker must know beside its checkpoint.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Situation {
    /// The acts of operators up to now.
    pub acts: Acts,
    /// The pause of the reader.
    pub paused: Option<Pause>,
    /// The keys of the reader that are parked, of all shards.
    pub parked: Vec<String>,
    /// Those of this shard for which a retry is requested.
    pub retries: Vec<String>,
    /// How many letters the reader has.
    pub letters: usize,
    /// Whether another worker asks for the shard ([`Leases::ask_for`]).
    pub is_asked_for: bool,
}

/// How far a reader has come in one shard.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Checkpoint {
    /// Every event of the shard up to this position is folded.
    pub position: Position,
    /// The last event that was folded: it shows whether a history is this one.
    pub witness: Option<Witness>,
    /// Where the source continues, in the source's own form (Kafka offsets); the log needs none.
    pub cursor: Option<String>,
}

/// Whether a lease may be taken from a live owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Takeover {
    /// No: wait until it is released or expires.
    WhenFree,
    /// Yes: Kafka's group coordinator has decided which reader owns the shard.
    Always,
}

/// The right to advance one shard of one reader, for as long as it or a clone of it is kept.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Lease {
    /// The reader.
    pub reader: Reader,
    /// The shard.
    pub shard: Shard,
    /// The owner.
    pub owner: Uuid,
    /// The fencing token: greater than every earlier one of this shard.
    pub fencing_token: i64,
    /// For how long it holds after each renewal.
    pub ttl: Duration,
    /// The checkpoint of the shard.
    pub checkpoint: Checkpoint,
    kept: Arc<Kept>,
}

/// What a store tells the holder of a lease.
#[derive(Debug, Default)]
struct Kept {
    lost: CancellationToken,
    acts: AtomicI64,
}

impl Lease {
    /// A lease that a store has just granted.
    pub fn new(
        reader: Reader,
        shard: Shard,
        owner: Uuid,
        fencing_token: i64,
        ttl: Duration,
        checkpoint: Checkpoint,
    ) -> Self {
        Self { reader, shard, owner, fencing_token, ttl, checkpoint, kept: Arc::default() }
    }

    /// What the store that granted it keeps of it.
    pub fn hold(&self) -> Hold {
        Hold(Arc::downgrade(&self.kept))
    }

    /// Whether the store has found it lost.
    pub fn is_lost(&self) -> bool {
        self.kept.lost.is_cancelled()
    }

    /// Returns when the store finds it lost.
    ///
    /// # Cancel safety
    /// Dropping the future changes nothing.
    pub async fn lost(&self) {
        self.kept.lost.cancelled().await;
    }

    /// How many acts of operators concern its shard, as the store saw with the last commit or renewal: within about a second.
    pub fn acts(&self) -> Acts {
        Acts(self.kept.acts.load(Ordering::Relaxed))
    }
}

/// A store's view of a lease that it has granted. It does not keep the lease.
#[derive(Debug, Clone)]
pub struct Hold(Weak<Kept>);

impl Hold {
    /// Whether the lease, or a clone of it, still exists.
    pub fn is_kept(&self) -> bool {
        self.0.strong_count() > 0
    }

    /// Tells the holder that the lease is lost.
    pub fn lose(&self) {
        if let Some(kept) = self.0.upgrade() {
            kept.lost.cancel();
        }
    }

    /// Tells the holder of the acts of operators. A smaller number than before is one that arrived late.
    pub fn note(&self, acts: Acts) {
        if let Some(kept) = self.0.upgrade() {
            kept.acts.fetch_max(acts.0, Ordering::Relaxed);
        }
    }
}

/// What one commit writes.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Changes {
    /// Documents to write.
    pub upserts: Vec<(String, Bytes)>,
    /// Documents to delete.
    pub deletes: Vec<String>,
    /// For each of these documents and each declared field, its value from now on. Empty where no field is declared.
    pub fields: Vec<FieldChange>,
    /// The checkpoint after it.
    pub checkpoint: Checkpoint,
    /// Events for the dead letters.
    pub letters: Vec<NewLetter>,
    /// Letters that were handled again. Such a commit leaves the checkpoint where it is.
    pub redemption: Option<Redemption>,
    /// An operator has these documents mended: the act `heal` is recorded for each. Such a commit leaves the checkpoint where it is.
    pub healed_by: Option<Act>,
    /// Messages of other systems that were handled. Such a commit has no fields.
    pub inbox: Option<Inbox>,
}

/// What a commit adds to the inbox of its reader: the ids of messages that it has handled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inbox {
    /// The ids. One may be there already; a commit with tables is refused then.
    pub handled: Vec<Uuid>,
    /// For how long a reader knows what it has handled. The commit forgets what is older, by the store's clock, and at most
    /// [`INBOX_FORGETS`](crate::limits::INBOX_FORGETS) of it.
    pub keep_for: Duration,
}

impl Changes {
    /// The keys of the documents that it writes or deletes.
    pub fn keys(&self) -> impl Iterator<Item = &String> {
        self.upserts.iter().map(|(key, _)| key).chain(&self.deletes)
    }
}

impl fmt::Debug for Changes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Documents may be large, or hold personal data.
        let Self { upserts, deletes, fields, checkpoint, letters, redemption, healed_by, inbox } = self;
        write!(
            f,
            "{}, {}, {}",
            counted(upserts.len(), "upsert"),
            counted(deletes.len(), "delete"),
            counted(fields.len(), "field")
        )?;
        write!(f, ", {checkpoint:?}, {}, {redemption:?}, {healed_by:?}", counted(letters.len(), "letter"))?;
        write!(f, ", {}", counted(inbox.as_ref().map_or(0, |inbox| inbox.handled.len()), "handled message"))
    }
}

/// Why a commit did not happen.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CommitError {
    /// Another worker has taken the shard, the generation was replaced, or the same commit was made before. Nothing was written.
    #[error("the lease on shard {0} is lost")]
    Fenced(Shard),
    /// A dead letter was edited or discarded since it was read. Nothing was written.
    #[error("a dead letter under the key {0:?} has changed since it was read")]
    Edited(String),
    /// Two documents would have the same value of a unique field. Nothing was written.
    #[error("the documents {:?} and {:?} would have the same value of the unique field {:?}", _0.key, _0.other, _0.field)]
    Taken(Taken),
    /// The store failed; the outcome is unknown.
    #[error(transparent)]
    Store(#[from] ReadModelError),
}

impl CommitError {
    /// Whether sending the same commit again may help. A fenced lease stays fenced.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Store(error) if error.is_transient())
    }
}
