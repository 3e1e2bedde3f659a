//! The port to sources of events: the log itself, or Kafka.

#[cfg(test)]
mod tests;

use std::{fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::{
    error::BoxError,
    event::{Categories, RecordedEvent},
    read::{
        projection::EventOrder,
        read_model::{Checkpoint, Shard, Takeover},
    },
    stream::Position,
    witness::Witness,
    write::store::{EventStore, ReadError, check_contiguous, is_last_page},
};

/// Where a projector's events come from.
#[async_trait]
pub trait EventSource: fmt::Debug + Send + Sync + 'static {
    /// Opens the source for one reader.
    ///
    /// # Errors
    /// [`SourceError`].
    async fn open(&self, subscription: &Subscription) -> Result<Box<dyn EventFeed>, SourceError>;
}

#[async_trait]
impl<T: EventSource + ?Sized> EventSource for Arc<T> {
    async fn open(&self, subscription: &Subscription) -> Result<Box<dyn EventFeed>, SourceError> {
        (**self).open(subscription).await
    }
}

/// The reader, and what it reads.
#[derive(Debug, Clone)]
pub struct Subscription {
    /// The reader's stable name. Workers of the same name on the same store share the shards.
    pub reader: String,
    /// The store that keeps its checkpoints ([`Leases::id`](crate::backend::Leases::id)): readers of
    /// one name in two services share nothing.
    pub store: Uuid,
    /// What it listens to.
    pub categories: Categories,
    /// The order that it needs. A source delivers in this order or refuses.
    pub order: EventOrder,
}

/// An open source. Dropping it gives its shards back.
#[async_trait]
pub trait EventFeed: fmt::Debug + Send {
    /// All shards of the source, assigned to this reader or not.
    fn shards(&self) -> Vec<Shard>;

    /// Whether the source decides who owns a shard, or leaves that to leases.
    fn takeover(&self) -> Takeover;

    /// The next thing that happens. It returns within about a second, with an empty batch if nothing has happened.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing.
    ///
    /// # Errors
    /// [`SourceError`]; after an error the feed cannot be used any more.
    async fn next(&mut self) -> Result<Delivery, SourceError>;

    /// What the reader must know before it continues with a batch that it holds: an assignment or a
    /// revocation, for whose end other readers wait. [`next`](Self::next) does not deliver it again.
    fn urgent(&mut self) -> Option<Delivery> {
        None
    }

    /// Starts an assigned shard after `checkpoint`. Before that it delivers no batch of the shard.
    ///
    /// # Errors
    /// [`SourceError`], among them [`SourceError::OtherHistory`].
    async fn start(&mut self, shard: &Shard, checkpoint: &Checkpoint) -> Result<(), SourceError>;
}

/// What a source tells its reader.
#[derive(Debug)]
pub enum Delivery {
    /// These shards are now assigned to the reader: it takes their leases and starts each.
    Assigned(Vec<Shard>),
    /// These shards are assigned to another reader now: this one drops them.
    Revoked(Vec<Shard>),
    /// Events of a started shard.
    Batch(Batch),
    /// Nothing has happened for a while: time to look after leases and shards.
    Idle,
}

/// Events of one shard that follow those that the source delivered before.
#[derive(Debug)]
pub struct Batch {
    /// The shard.
    pub shard: Shard,
    /// Its events in position order. Events of other categories may be left out.
    pub events: Vec<RecordedEvent>,
    /// The checkpoint that holds once they are folded. Its position may lie beyond the last event
    /// when the source knows that nothing is missing.
    pub checkpoint: Checkpoint,
    /// The end of the log as the source last saw it; set only if the source has no more events at this moment. It is later
    /// than the checkpoint's position if the source lags behind the log.
    pub end: Option<Position>,
}

/// Why a source cannot deliver.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SourceError {
    /// It failed; opening it again may succeed.
    #[error("the source failed")]
    Unavailable(#[source] BoxError),
    /// It refuses this reader until an operator has changed something.
    #[error("the source refuses its reader; {remedy}")]
    Refused {
        /// What to change.
        remedy: String,
        /// The reason that the source gave.
        source: BoxError,
    },
    /// The log cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// It holds a record that is not an event of this framework.
    #[error("the record at {place} is damaged: {reason}")]
    Damaged {
        /// Where.
        place: String,
        /// In what way.
        reason: String,
    },
    /// The source does not hold the event that the checkpoint names: the log was restored from an older copy, or the
    /// checkpoint belongs to another log.
    #[error("position {position} holds another event than the one that was folded: the source has another history")]
    OtherHistory {
        /// The first position at which they differ.
        position: Position,
    },
    /// The source no longer holds what comes after the checkpoint.
    #[error("the source no longer holds what follows the checkpoint at {place}")]
    Expired {
        /// Where.
        place: String,
    },
    /// Events that were written to the source are not there.
    #[error("events are missing at {place}: {reason}; rebuild the read model from the log, and fill the topics again")]
    Missing {
        /// Where: topic, partition and offset.
        place: String,
        /// What is missing.
        reason: String,
    },
    /// The source holds a record that looks like an event and was not written by the relay.
    #[error("the record at {place} was not written by the relay: {reason}; a rebuild from the log passes it")]
    Foreign {
        /// Where: topic, partition and offset.
        place: String,
        /// How that is known.
        reason: String,
    },
    /// The settings of the source may lose events or their order.
    #[error("{place} cannot be read: {reason}")]
    Unfit {
        /// The topic.
        place: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The source cannot keep the order that the reader needs.
    #[error("this source cannot keep the order {0:?}")]
    Order(EventOrder),
}

impl SourceError {
    /// Whether opening the source again may help.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Unavailable(_) => true,
            Self::Read(error) => error.is_transient(),
            _ => false,
        }
    }
}

/// The log as a source: one shard in commit order, which suits every projection.
#[derive(Debug, Clone)]
pub struct LogSource {
    store: Arc<dyn EventStore>,
    batch: usize,
}

impl LogSource {
    /// The most events of one batch, unless set otherwise.
    pub const DEFAULT_BATCH: usize = 1_000;

    /// The log of `store`.
    pub fn new(store: impl EventStore) -> Self {
        Self { store: Arc::new(store), batch: Self::DEFAULT_BATCH }
    }

    /// Reads at most `events` at once, and fewer if they are large: a store bounds the bytes of a page (R17).
    pub fn batch(self, events: usize) -> Self {
        Self { batch: events.max(1), ..self }
    }

    /// The one shard of a log.
    pub fn shard() -> Shard {
        Shard::from("log")
    }
}

#[async_trait]
impl EventSource for LogSource {
    async fn open(&self, subscription: &Subscription) -> Result<Box<dyn EventFeed>, SourceError> {
        Ok(Box::new(LogFeed {
            store: self.store.clone(),
            batch: self.batch,
            categories: subscription.categories.clone(),
            assigned: false,
            after: None,
            ahead: JoinSet::new(),
            said_end: false,
        }))
    }
}

#[derive(Debug)]
struct LogFeed {
    store: Arc<dyn EventStore>,
    batch: usize,
    categories: Categories,
    assigned: bool,
    after: Option<Checkpoint>,
    /// The page after it, which is read while the reader handles the one before.
    ahead: JoinSet<Result<Vec<RecordedEvent>, ReadError>>,
    /// Whether the reader knows that it has everything.
    said_end: bool,
}

/// How long a feed waits for new events before it returns an empty batch.
const IDLE: Duration = Duration::from_millis(500);

impl LogFeed {
    /// The most events of a page: the last known one is read again, since a log that was restored from an older copy, or that
    /// lost its end in a failover, may hold another event there, or none.
    fn page(&self, after: Position) -> usize {
        self.batch.saturating_add(usize::from(after > Position::ZERO))
    }

    /// Reads the page after `after`.
    fn read(&self, after: Position) -> impl Future<Output = Result<Vec<RecordedEvent>, ReadError>> + use<> {
        let (store, page, from) = (self.store.clone(), self.page(after), after.get().saturating_sub(1));
        async move { store.read_log(Position::new(from), page).await }
    }
}

#[async_trait]
impl EventFeed for LogFeed {
    fn shards(&self) -> Vec<Shard> {
        vec![LogSource::shard()]
    }

    fn takeover(&self) -> Takeover {
        Takeover::WhenFree
    }

    async fn next(&mut self) -> Result<Delivery, SourceError> {
        if !self.assigned {
            self.assigned = true;
            return Ok(Delivery::Assigned(self.shards()));
        }
        let Some(after) = self.after.clone() else {
            tokio::time::sleep(IDLE).await;
            return Ok(Delivery::Idle);
        };
        let mut events = match self.ahead.join_next().await {
            Some(read) => read.map_err(|cause| SourceError::Unavailable(cause.into()))??,
            None => self.read(after.position).await?,
        };
        let at_end = is_last_page(&events, self.page(after.position));
        if after.position > Position::ZERO {
            let last = if events.is_empty() { None } else { Some(events.remove(0)) };
            let is_other = |last: &RecordedEvent| after.witness.is_some_and(|witness| witness != Witness::of(last));
            if last.is_none_or(|last| last.position != after.position || is_other(&last)) {
                return Err(SourceError::OtherHistory { position: after.position });
            }
        }
        let Some(last) = events.last() else {
            if !std::mem::replace(&mut self.said_end, true) {
                let end = Some(after.position);
                return Ok(Delivery::Batch(Batch { shard: LogSource::shard(), events, checkpoint: after, end }));
            }
            // The next call reads the new events.
            if let Ok(waited) = tokio::time::timeout(IDLE, self.store.wait_past(after.position)).await {
                waited?;
            }
            return Ok(Delivery::Idle);
        };
        check_contiguous(after.position, &events)?;
        let checkpoint = Checkpoint { position: last.position, witness: Some(Witness::of(last)), cursor: None };
        self.after = Some(checkpoint.clone());
        self.said_end = at_end;
        if !at_end {
            self.ahead.spawn(self.read(checkpoint.position));
        }
        events.retain(|event| self.categories.contains(event.stream.category()));
        let end = at_end.then_some(checkpoint.position);
        Ok(Delivery::Batch(Batch { shard: LogSource::shard(), events, checkpoint, end }))
    }

    async fn start(&mut self, _shard: &Shard, checkpoint: &Checkpoint) -> Result<(), SourceError> {
        (self.after, self.ahead) = (Some(checkpoint.clone()), JoinSet::new());
        Ok(())
    }
}
