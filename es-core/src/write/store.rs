//! The port to the event log.

#[cfg(test)]
mod tests;

use std::{fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use chrono::{DateTime, Utc};

use crate::{
    error::{BoxError, StoreMoved},
    event::RecordedEvent,
    limits::PAGE_BYTES,
    schema::Undecodable,
    stream::{Conflict, Position, StreamId, Version},
    tag::{EventQuery, InvalidQuery},
    write::append::{Append, Fingerprint, IdempotencyKey, InvalidAppend},
};

/// An append-only log of events in streams.
///
/// # Delivery
/// Positions are dense and equal commit order (R3): a reader that remembers the last position, and reads the events after it,
/// misses no event and sees none twice.
///
/// # Cancel safety
/// Dropping the future of an append leaves either nothing or the whole append in the log (R7);
/// reads have no effects.
#[async_trait]
pub trait EventStore: fmt::Debug + Send + Sync + 'static {
    /// Writes all events of `append`, or none (R1). Once it returns `Ok` they are durable (R5).
    ///
    /// Sending the same append again (same ids, or the same idempotency key) returns the first
    /// outcome with [`Appended::repeated`] set and writes nothing (R6).
    ///
    /// # Errors
    /// [`AppendError::Conflict`] when the stream is not as expected (R2), [`AppendError::Invalid`]
    /// for bad input (R15); after [`AppendError::Store`] the outcome is unknown: send the same
    /// append again.
    async fn append(&self, append: Append) -> Result<Appended, AppendError>;

    /// Writes all of `appends`, each to a stream of its own, or none (R1); outcomes come in their order.
    /// The positions of all their events are contiguous.
    ///
    /// Sending the same appends together again returns the first outcomes (R6).
    ///
    /// # Errors
    /// As for [`append`](Self::append): the error of the first append that is refused.
    async fn append_together(&self, appends: Vec<Append>) -> Result<Vec<Appended>, AppendError>;

    /// Up to `limit` events of `stream` after version `after`, in order; fewer if their payloads are large
    /// (see [`is_last_page`]).
    ///
    /// # Errors
    /// [`ReadError`].
    async fn read_stream(
        &self,
        stream: &StreamId,
        after: Version,
        limit: usize,
    ) -> Result<Vec<RecordedEvent>, ReadError>;

    /// Up to `limit` events of the whole log after position `after`, in order, without a gap; fewer if their payloads are
    /// large (see [`is_last_page`]).
    ///
    /// # Errors
    /// [`ReadError`].
    async fn read_log(&self, after: Position, limit: usize) -> Result<Vec<RecordedEvent>, ReadError>;

    /// Up to `limit` events that match `query`, after position `after`, in order; fewer if their payloads are large
    /// (see [`is_last_page`]).
    ///
    /// # Errors
    /// [`ReadError`].
    async fn read_matching(
        &self,
        query: &EventQuery,
        after: Position,
        limit: usize,
    ) -> Result<Vec<RecordedEvent>, ReadError>;

    /// The position of the last event.
    ///
    /// # Errors
    /// [`ReadError`].
    async fn head(&self) -> Result<Position, ReadError>;

    /// Returns when the log holds an event after `after`, written by any process.
    ///
    /// # Errors
    /// [`ReadError`].
    async fn wait_past(&self, after: Position) -> Result<(), ReadError>;

    /// The outcome of the append to `stream` that carried the idempotency key `key`, if there was
    /// one.
    ///
    /// # Errors
    /// [`ReadError`].
    async fn find_command(&self, stream: &StreamId, key: &IdempotencyKey) -> Result<Option<CommandRecord>, ReadError>;

    /// How long a small append takes at this moment, without one: what it waits for its turn among all processes that append, and
    /// then for a commit of a few bytes to be durable. The log stays as it is. The time for a connection does not count.
    ///
    /// # Errors
    /// [`ReadError::Store`], also if the store takes no writes.
    ///
    /// # Cancel safety
    /// Dropping the future changes nothing.
    async fn probe(&self) -> Result<Duration, ReadError>;

    /// The time of the clock with which it records events.
    ///
    /// # Errors
    /// [`ReadError`].
    async fn now(&self) -> Result<DateTime<Utc>, ReadError>;
}

#[async_trait]
impl<T: EventStore + ?Sized> EventStore for Arc<T> {
    async fn append(&self, append: Append) -> Result<Appended, AppendError> {
        (**self).append(append).await
    }

    async fn append_together(&self, appends: Vec<Append>) -> Result<Vec<Appended>, AppendError> {
        (**self).append_together(appends).await
    }

    async fn read_stream(
        &self,
        stream: &StreamId,
        after: Version,
        limit: usize,
    ) -> Result<Vec<RecordedEvent>, ReadError> {
        (**self).read_stream(stream, after, limit).await
    }

    async fn read_log(&self, after: Position, limit: usize) -> Result<Vec<RecordedEvent>, ReadError> {
        (**self).read_log(after, limit).await
    }

    async fn read_matching(
        &self,
        query: &EventQuery,
        after: Position,
        limit: usize,
    ) -> Result<Vec<RecordedEvent>, ReadError> {
        (**self).read_matching(query, after, limit).await
    }

    async fn head(&self) -> Result<Position, ReadError> {
        (**self).head().await
    }

    async fn wait_past(&self, after: Position) -> Result<(), ReadError> {
        (**self).wait_past(after).await
    }

    async fn find_command(&self, stream: &StreamId, key: &IdempotencyKey) -> Result<Option<CommandRecord>, ReadError> {
        (**self).find_command(stream, key).await
    }

    async fn probe(&self) -> Result<Duration, ReadError> {
        (**self).probe().await
    }

    async fn now(&self) -> Result<DateTime<Utc>, ReadError> {
        (**self).now().await
    }
}

/// Whether a page that was read with this `limit` ends where the stream, the log or the matching events end: it has fewer
/// events, and its payloads have not reached [`PAGE_BYTES`]. A store may end a page with the event that reaches them, so that
/// no page needs more memory than that (R17).
pub fn is_last_page(page: &[RecordedEvent], limit: usize) -> bool {
    page.len() < limit && page.iter().map(|event| event.data.payload.len()).sum::<usize>() < PAGE_BYTES
}

/// What an append has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Appended {
    /// The stream's version after the last event of the append.
    pub version: Version,
    /// The position of the last event of the append. The positions of its events are contiguous.
    pub position: Position,
    /// Whether it was in the log already and this call wrote nothing. Of all calls with the same append at most one gets `false`.
    /// Perhaps none does: if the answer of the database was lost, the store has sent the append again.
    pub repeated: bool,
}

/// Why an append did not happen.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AppendError {
    /// The stream is in another state. Nothing was written.
    #[error(transparent)]
    Conflict(#[from] Conflict),
    /// An event matches the append's [`Condition`](crate::Condition). Nothing was written.
    #[error("the event at position {position} matches the append's condition")]
    ConditionFailed {
        /// Its position. The decision has not seen this event, or an earlier one that matches.
        position: Position,
    },
    /// The input breaks a rule. Nothing was written.
    #[error("the append is invalid")]
    Invalid(#[from] InvalidAppend),
    /// The idempotency key was used before, by a command with other content. Nothing was written.
    #[error("the idempotency key was used before by another command")]
    KeyReused,
    /// The database refuses these events (by a constraint, or a limit of its own). Nothing was written, and sending them again
    /// does not help.
    #[error("the store refuses the events")]
    Refused(#[source] BoxError),
    /// An [inline](crate::ServiceBuilder::inline) read model cannot be folded with these events. Nothing was written.
    #[error("the inline read model {projection} refuses the events")]
    Unfoldable {
        /// Which read model.
        projection: &'static str,
        /// The [`EngineError`](crate::EngineError) that would have stopped its projector.
        #[source]
        reason: BoxError,
    },
    /// An [inline](crate::ServiceBuilder::inline) read model does not have the events before these. Nothing was written, neither now nor
    /// by an earlier attempt.
    #[error("the inline read model {projection} has reached position {reached} of {head}, so no event can be added")]
    InlineBehind {
        /// Which read model.
        projection: &'static str,
        /// The position that it has reached.
        reached: Position,
        /// The last position of the log.
        head: Position,
        /// What stops it there, or soon after. `None`: more is missing than an append folds, and its projector has not folded it in time.
        #[source]
        reason: Option<BoxError>,
    },
    /// The store failed; whether the events are written is unknown. Sending the same append again
    /// is safe.
    #[error("the store failed")]
    Store(#[source] BoxError),
    /// The store has been closed.
    #[error("the store is closed")]
    Closed,
}

impl AppendError {
    /// Whether the events may be in the log although the append failed.
    pub fn is_unknown(&self) -> bool {
        matches!(self, Self::Store(_) | Self::Closed)
    }

    /// Whether sending the same append again may help: to this store or, if this one is closed, to one that is opened again.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Store(cause) => !StoreMoved::is_in(cause),
            Self::Closed => true,
            Self::InlineBehind { reason, .. } => reason.is_none(),
            _ => false,
        }
    }
}

/// Why events could not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The store failed; reading again may succeed, unless it has [moved](StoreMoved).
    #[error("the store failed")]
    Store(#[source] BoxError),
    /// The query breaks a rule (R15).
    #[error(transparent)]
    Query(#[from] InvalidQuery),
    /// A stored row is not what any append writes.
    #[error("the row at position {position} is damaged")]
    Damaged {
        /// The position of the row.
        position: Position,
        /// What is wrong with it.
        #[source]
        reason: Undecodable,
    },
    /// The log is not contiguous: an event is missing where density promises one (R3).
    #[error("the log has a gap: position {found} follows {after}")]
    Gap {
        /// The last position before the gap.
        after: Position,
        /// The first position after it.
        found: Position,
    },
}

/// Checks that `events` follow each other in the log behind position `after`: positions are dense, so a gap shows that an
/// event is lost (R3). Returns the position of the last one, `after` where there is none.
///
/// # Errors
/// [`ReadError::Gap`].
pub fn check_contiguous(after: Position, events: &[RecordedEvent]) -> Result<Position, ReadError> {
    events.iter().try_fold(after, |after, event| {
        if event.position == after.next() {
            Ok(event.position)
        } else {
            Err(ReadError::Gap { after, found: event.position })
        }
    })
}

impl ReadError {
    /// Whether reading again may help.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Store(cause) if !StoreMoved::is_in(cause))
    }
}

/// A remembered command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CommandRecord {
    /// The fingerprint of its content.
    pub fingerprint: Fingerprint,
    /// Its outcome.
    pub appended: Appended,
}

impl CommandRecord {
    /// The first outcome, for a command that is sent again with `fingerprint`.
    ///
    /// # Errors
    /// [`AppendError::KeyReused`] when its content is another one.
    pub fn repeat(self, fingerprint: Fingerprint) -> Result<Appended, AppendError> {
        if self.fingerprint == fingerprint {
            Ok(Appended { repeated: true, ..self.appended })
        } else {
            Err(AppendError::KeyReused)
        }
    }
}

/// The verdict of a store on one append, before it is known whether all appends that are made together are possible.
#[derive(Debug)]
pub enum Verdict {
    /// It is possible.
    Possible,
    /// It was made before, with this outcome.
    Repeated(Appended),
    /// It is refused.
    Refused(AppendError),
}

impl Verdict {
    /// The verdict on appends that are made together or not at all: `None` if they must be written, the first outcomes if all were
    /// written before.
    ///
    /// # Errors
    /// The error of the first append that is refused. An append that was made before without the others cannot be made together
    /// with them.
    pub fn of_all<'a>(
        verdicts: impl IntoIterator<Item = (&'a Append, Self)>,
    ) -> Result<Option<Vec<Appended>>, AppendError> {
        let (mut repeated, mut possible) = (Vec::new(), false);
        let mut alone = None;
        for (append, verdict) in verdicts {
            match verdict {
                Self::Possible => possible = true,
                Self::Refused(error) => return Err(error),
                Self::Repeated(outcome) => {
                    alone = alone.or(Some((append, outcome)));
                    repeated.push(outcome);
                }
            }
        }
        match alone {
            None => Ok(None),
            Some(_) if !possible => Ok(Some(repeated)),
            Some((append, _)) if append.remembered().is_some() => Err(AppendError::KeyReused),
            Some((append, outcome)) => Err(append.conflict(outcome.version).into()),
        }
    }
}
