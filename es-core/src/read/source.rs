//! The port to sources of events: the log itself, or Kafka.

mod events;
mod forward;
mod log;
mod pages;
#[cfg(test)]
mod tests;
pub mod unreadable;

pub use events::BatchEvents;
pub(crate) use events::DecodedEvents;
pub use forward::{FailedEvent, Forwarded};
pub use log::LogSource;

use std::{any::Any, fmt, sync::Arc};

use async_trait::async_trait;
use uuid::Uuid;

use crate::{
    error::BoxError,
    event::{Categories, RecordedEvent},
    read::{
        projection::EventOrder,
        read_model::{Checkpoint, Shard, Takeover},
    },
    stream::Position,
    write::store::ReadError,
};

/// Where a projector's events come from.
///
/// It is [`Any`], so that the commands of operators find the topics of a backend that they know
/// ([`Service::consumed`](crate::Service::consumed)).
#[async_trait]
pub trait EventSource: Any + fmt::Debug + Send + Sync + 'static {
    /// Opens the source for one reader.
    ///
    /// # Errors
    /// [`SourceError`].
    async fn open(&self, subscription: &Subscription) -> Result<Box<dyn EventFeed>, SourceError>;

    /// Reads the record again for which the event stands: one that a source of foreign records could not read when it delivered it
    /// ([`UNREADABLE`](crate::backend::UNREADABLE)). What was declared may have changed, or an operator has edited it.
    ///
    /// # Errors
    /// Why it cannot be read, without values of the record.
    fn read_again(&self, event: &RecordedEvent) -> Result<RecordedEvent, String> {
        Err(unreadable::reason(event))
    }

    /// Keeps an event beside the others that its reader could not handle, and returns when it cannot be lost any more: then the reader
    /// passes it. It may get the same event again, after a crash before the reader's commit.
    ///
    /// # Errors
    /// [`SourceError`]; [`SourceError::CannotForward`] by default.
    async fn forward(&self, _failed: FailedEvent<'_>) -> Result<Forwarded, SourceError> {
        Err(SourceError::CannotForward)
    }
}

#[async_trait]
impl<T: EventSource + ?Sized> EventSource for Arc<T> {
    async fn open(&self, subscription: &Subscription) -> Result<Box<dyn EventFeed>, SourceError> {
        (**self).open(subscription).await
    }

    fn read_again(&self, event: &RecordedEvent) -> Result<RecordedEvent, String> {
        (**self).read_again(event)
    }

    async fn forward(&self, failed: FailedEvent<'_>) -> Result<Forwarded, SourceError> {
        (**self).forward(failed).await
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
    /// Into how many shards it wants the events split.
    pub split: Split,
    /// Whether it [forwards](EventSource::forward) what it cannot handle. A source that cannot do that refuses it with
    /// [`SourceError::CannotForward`].
    pub forwards: bool,
}

/// Into how many shards a source splits its events, by the hash of keys ([`Shard::slice`]). Each is delivered in the order of the
/// source. A source that has several shards by itself, as Kafka has partitions, keeps these.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Split {
    /// How many; 1 means that all events are in one shard.
    pub shards: u32,
    /// Whether the key of an event is the id of its stream: then the source leaves out the events of other shards. Otherwise it
    /// delivers all events in each shard, and the reader handles what belongs to it.
    pub by_stream: bool,
}

impl Split {
    /// One shard.
    pub const NONE: Self = Self { shards: 1, by_stream: false };
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

    /// The reader wants no more batches of the shard until it starts it again. Returns whether the source can leave the shard out;
    /// one that assigns shards itself need not.
    fn stop(&mut self, _shard: &Shard) -> bool {
        false
    }

    /// The reader has committed `checkpoint`. A source may tell others of it; nothing depends on that.
    fn committed(&mut self, _shard: &Shard, _checkpoint: &Checkpoint) {}
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
    pub events: BatchEvents,
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
    ///
    /// # What to do
    /// Rebuild the read model from the log: `rebuild <read model> --from log`, or [`Service::rebuild`](crate::Service::rebuild) from
    /// [`Service::log`](crate::Service::log). Then it continues in the source. A consumer passes what is lost, if its source is told to.
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
    /// The reader forwards what it cannot handle, and this source has no place for it.
    #[error("this source keeps no events that its reader cannot handle: choose a failure policy that stops or parks")]
    CannotForward,
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
