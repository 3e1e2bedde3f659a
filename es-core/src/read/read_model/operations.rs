//! The port to what operators do to readers, and to the record of it.

use std::{fmt, sync::Arc};

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::{error::ReadModelError, exceptions::Exceptions, reader::Reader, shards::Shard};
use crate::{codec::Misfit, stream::Position};

/// Pauses, resumes and unblocks readers, and keeps the record of what operators did (R22).
///
/// A reader is named by [`Projection::NAME`](crate::Projection::NAME) or [`Policy::NAME`](crate::Policy::NAME). Its workers, in any
/// process, see an act within about a second. Each act is recorded in the transaction in which it takes effect.
///
/// # Cancel safety
/// Dropping the future of any call leaves either nothing or the whole.
#[async_trait]
pub trait Operations: fmt::Debug + Send + Sync + 'static {
    /// Pauses `reader`: its workers finish their batch, release their leases and wait. That lasts until it is
    /// [resumed](Self::resume), also after restarts. A reader that is paused already keeps the first pause.
    ///
    /// # Errors
    /// [`ActError::UnknownReader`].
    async fn pause(&self, reader: &str, act: &Act) -> Result<(), ActError>;

    /// Lets a paused reader continue.
    ///
    /// # Errors
    /// [`ActError::NotPaused`].
    async fn resume(&self, reader: &str, act: &Act) -> Result<(), ActError>;

    /// Moves the checkpoint of `reader` in `shard` past the event at `position`, if the reader has
    /// [stopped](Self::stops) at this event and is still there. The event is never handled by this reader. A
    /// service that runs the reader continues it within about two seconds; an engine of your own must be run again.
    ///
    /// # Errors
    /// [`ActError::NotStopped`] when it is not, or no more, at this event.
    async fn skip(
        &self,
        reader: &str,
        shard: &Shard,
        position: Position,
        event_id: Uuid,
        act: &Act,
    ) -> Result<(), ActError>;

    /// Discards the generation of `reader` that is being built, with its documents; the one that serves goes on. A
    /// [rebuild](crate::Projector::rebuild) of it ends with [`EngineError::Discarded`](crate::EngineError::Discarded). A projector
    /// of a newer version, or of a read model that does not serve yet, begins another one unless it is paused.
    ///
    /// # Errors
    /// [`ActError::NotBuilding`].
    async fn cancel_rebuild(&self, reader: &str, act: &Act) -> Result<(), ActError>;

    /// The events at which `reader` has stopped and that it has not passed.
    ///
    /// # Errors
    /// [`ReadModelError`].
    async fn stops(&self, reader: &str) -> Result<Vec<StoppedAt>, ReadModelError>;

    /// What `reader` does with events otherwise than to handle them as the log has them. It is of one moment: what concerns the
    /// events up to a checkpoint that was read before is all there.
    ///
    /// # Errors
    /// [`ReadModelError`].
    async fn exceptions(&self, reader: &Reader) -> Result<Exceptions, ReadModelError>;

    /// Records another act that concerns `reader`, such as a rebuild. `what` is a word like those of [`ActRecord::what`].
    ///
    /// # Errors
    /// [`ReadModelError`].
    async fn record(&self, what: &str, reader: &str, act: &Act) -> Result<(), ReadModelError>;

    /// What operators did: at most `limit` records, the latest first; only those with a lower number than `before`, if that is
    /// given.
    ///
    /// # Errors
    /// [`ReadModelError`].
    async fn acts(&self, before: Option<i64>, limit: usize) -> Result<Vec<ActRecord>, ReadModelError>;
}

#[async_trait]
impl<T: Operations + ?Sized> Operations for Arc<T> {
    async fn pause(&self, reader: &str, act: &Act) -> Result<(), ActError> {
        (**self).pause(reader, act).await
    }

    async fn resume(&self, reader: &str, act: &Act) -> Result<(), ActError> {
        (**self).resume(reader, act).await
    }

    async fn skip(
        &self,
        reader: &str,
        shard: &Shard,
        position: Position,
        event_id: Uuid,
        act: &Act,
    ) -> Result<(), ActError> {
        (**self).skip(reader, shard, position, event_id, act).await
    }

    async fn cancel_rebuild(&self, reader: &str, act: &Act) -> Result<(), ActError> {
        (**self).cancel_rebuild(reader, act).await
    }

    async fn stops(&self, reader: &str) -> Result<Vec<StoppedAt>, ReadModelError> {
        (**self).stops(reader).await
    }

    async fn exceptions(&self, reader: &Reader) -> Result<Exceptions, ReadModelError> {
        (**self).exceptions(reader).await
    }

    async fn record(&self, what: &str, reader: &str, act: &Act) -> Result<(), ReadModelError> {
        (**self).record(what, reader, act).await
    }

    async fn acts(&self, before: Option<i64>, limit: usize) -> Result<Vec<ActRecord>, ReadModelError> {
        (**self).acts(before, limit).await
    }
}

/// Who does something, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Act {
    actor: String,
    reason: String,
}

impl Act {
    /// The most bytes of an actor's name.
    pub const MAX_ACTOR_BYTES: usize = 256;
    /// The most bytes of a reason.
    pub const MAX_REASON_BYTES: usize = 4_096;

    /// `actor` acts because of `reason`.
    ///
    /// # Errors
    /// [`InvalidAct`] when one of them is blank, too long or holds control characters (a reason may have several lines).
    pub fn new(actor: impl Into<String>, reason: impl Into<String>) -> Result<Self, InvalidAct> {
        let (actor, reason) = (actor.into(), reason.into());
        let is_text = |text: &str, most| !text.trim().is_empty() && text.len() <= most;
        if !is_text(&actor, Self::MAX_ACTOR_BYTES) || actor.chars().any(char::is_control) {
            return Err(InvalidAct("actor"));
        }
        let is_control = |character: char| character.is_control() && character != '\n' && character != '\t';
        if !is_text(&reason, Self::MAX_REASON_BYTES) || reason.chars().any(is_control) {
            return Err(InvalidAct("reason"));
        }
        Ok(Self { actor, reason })
    }

    /// Who.
    pub fn actor(&self) -> &str {
        &self.actor
    }

    /// Why.
    pub fn reason(&self) -> &str {
        &self.reason
    }
}

/// An act needs an actor and a reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the {0} of the act is blank, too long, or holds control characters")]
pub struct InvalidAct(pub &'static str);

/// An act as it was recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ActRecord {
    /// Its number: later acts have greater ones.
    pub id: i64,
    /// When, by the store's clock.
    pub at: DateTime<Utc>,
    /// Who.
    pub actor: String,
    /// Why.
    pub reason: String,
    /// `pause`, `resume`, `skip`, `retry`, `discard`, `edit`, `cancel-rebuild`, `heal`, `rebuild` and `promote`
    /// ([`Service::rebuild_by`](crate::Service::rebuild_by)), or another word given to [`Operations::record`].
    pub what: String,
    /// The reader.
    pub reader: String,
    /// The key (`retry`, `discard`, `edit`, `heal`) or the shard (`skip`) that it concerns.
    pub target: Option<String>,
    /// The position of the event that it concerns.
    pub position: Option<Position>,
}

/// The pause of a reader.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pause {
    /// Who has paused it.
    pub actor: String,
    /// Why.
    pub reason: String,
    /// When, by the store's clock.
    pub at: DateTime<Utc>,
}

/// An event at which a reader has stopped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoppedAt {
    /// [`Reader::id`](super::Reader::id).
    pub reader: i64,
    /// The shard.
    pub shard: Shard,
    /// The position of the event.
    pub position: Position,
    /// Its id.
    pub event_id: Uuid,
    /// When it was recorded.
    pub recorded_at: DateTime<Utc>,
    /// Why, with all causes and without values of payloads.
    pub cause: String,
    /// When, by the store's clock.
    pub at: DateTime<Utc>,
}

/// Why an act had no effect. Nothing was recorded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ActError {
    /// The store knows no reader of this name.
    #[error("there is no reader {0:?}")]
    UnknownReader(String),
    /// The reader is not paused.
    #[error("the reader {0:?} is not paused")]
    NotPaused(String),
    /// No generation of the reader is being built.
    #[error("no generation of the reader {0:?} is being built")]
    NotBuilding(String),
    /// The key is not parked.
    #[error("the reader {reader:?} has not parked the key {key:?}")]
    NotParked {
        /// The reader.
        reader: String,
        /// The key.
        key: String,
    },
    /// There is no such letter.
    #[error("the reader {reader:?} has no dead letter at position {position} under the key {key:?}")]
    NoLetter {
        /// The reader.
        reader: String,
        /// The key.
        key: String,
        /// The position.
        position: Position,
    },
    /// The payload is no JSON text.
    #[error("the payload is no JSON text")]
    NotJson(#[source] Misfit),
    /// The reader has not stopped at this event, or has passed it.
    #[error("the reader {reader:?} has not stopped at the event {event_id} at position {position} of shard {shard}")]
    NotStopped {
        /// The reader.
        reader: String,
        /// The shard.
        shard: Shard,
        /// The position.
        position: Position,
        /// The event.
        event_id: Uuid,
    },
    /// The store failed; the outcome is unknown.
    #[error(transparent)]
    Store(#[from] ReadModelError),
}

impl ActError {
    /// Whether trying again may help.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Store(error) if error.is_transient())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r22_an_act_names_actor_and_reason() {
        assert!(Act::new("ada", "ticket 7\nsecond line").is_ok());
        for (actor, reason, fault) in [
            ("", "x", "actor"),
            (" ", "x", "actor"),
            ("a\nb", "x", "actor"),
            ("ada", "\t", "reason"),
            ("ada", "\u{7}", "reason"),
        ] {
            assert_eq!(Act::new(actor, reason), Err(InvalidAct(fault)), "{actor:?} {reason:?}");
        }
        assert!(Act::new("a".repeat(Act::MAX_ACTOR_BYTES + 1), "x").is_err());
        assert!(Act::new("ada", "x".repeat(Act::MAX_REASON_BYTES + 1)).is_err());
    }
}
