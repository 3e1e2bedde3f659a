//! The port to dead letters: the events that readers could not handle, kept in order for operators.

use std::{fmt, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;
use chrono::{DateTime, Utc};
use serde::de::IgnoredAny;

use super::{
    error::ReadModelError,
    operations::{Act, ActError},
    reader::Reader,
    shards::Shard,
};
use crate::{codec, event::RecordedEvent, stream::Position};

/// What operators see of parked keys and dead letters, and what they do with them.
///
/// A reader whose [failure policy](crate::FailurePolicy) parks puts an event that it could not handle here, under the key that
/// failed. From then on all later events of that key follow, in order, and other keys continue (R19). The key of a projection is a
/// document's key, that of a policy is a stream.
///
/// A call names its reader. If that is a projection, the call concerns the generation that serves and the one that is being built.
/// Letters go with their generation: they are deleted when it is replaced or discarded. Each act is recorded in the transaction in
/// which it takes effect (R22).
///
/// # Cancel safety
/// Dropping the future of any call leaves either nothing or the whole.
#[async_trait]
pub trait DeadLetters: fmt::Debug + Send + Sync + 'static {
    /// Dead letters of `reader`, in the order of reader, key and position. A page ends early with the letter with which its
    /// payloads reach [`PAGE_BYTES`](crate::limits::PAGE_BYTES) (R17). Only an empty page means that there are no more.
    ///
    /// # Errors
    /// [`ReadModelError`].
    async fn dead_letters(&self, reader: &str, page: &LetterPage) -> Result<Vec<DeadLetter>, ReadModelError>;

    /// The parked keys of `reader`, in the order of reader and key.
    ///
    /// # Errors
    /// [`ReadModelError`].
    async fn parked_keys(&self, reader: &str) -> Result<Vec<ParkedKey>, ReadModelError>;

    /// Asks the reader to handle the letters under `key` again. The worker that holds the key's shard sees that within about a
    /// second. It decodes the letters with today's upcasters, and writes what follows from them together with their deletion,
    /// under its lease: each letter counts once, also if the worker crashes (R9). When all are handled the key continues. When one
    /// fails again, it and the letters after it stay, with the new cause.
    ///
    /// # Errors
    /// [`ActError::NotParked`].
    async fn request_retry(&self, reader: &str, key: &str, act: &Act) -> Result<(), ActError>;

    /// Deletes the letter at `position` under `key`, or all letters under `key`, and returns how many. Their events are never
    /// handled by this reader. A key without letters continues with its next event; a key that keeps some stays parked until a
    /// [retry](Self::request_retry).
    ///
    /// # Errors
    /// [`ActError::NotParked`] and [`ActError::NoLetter`].
    async fn discard_letters(
        &self,
        reader: &str,
        key: &str,
        position: Option<Position>,
        act: &Act,
    ) -> Result<u64, ActError>;

    /// Replaces the payload in the letter at `position` under `key`; the next retry handles that one. The log never changes, so a
    /// rebuild folds the event as it was recorded.
    ///
    /// # Errors
    /// [`ActError::NoLetter`], and [`ActError::NotJson`] when `payload` is no JSON text.
    async fn edit_letter(
        &self,
        reader: &str,
        key: &str,
        position: Position,
        payload: Bytes,
        act: &Act,
    ) -> Result<(), ActError>;
}

#[async_trait]
impl<T: DeadLetters + ?Sized> DeadLetters for Arc<T> {
    async fn dead_letters(&self, reader: &str, page: &LetterPage) -> Result<Vec<DeadLetter>, ReadModelError> {
        (**self).dead_letters(reader, page).await
    }

    async fn parked_keys(&self, reader: &str) -> Result<Vec<ParkedKey>, ReadModelError> {
        (**self).parked_keys(reader).await
    }

    async fn request_retry(&self, reader: &str, key: &str, act: &Act) -> Result<(), ActError> {
        (**self).request_retry(reader, key, act).await
    }

    async fn discard_letters(
        &self,
        reader: &str,
        key: &str,
        position: Option<Position>,
        act: &Act,
    ) -> Result<u64, ActError> {
        (**self).discard_letters(reader, key, position, act).await
    }

    async fn edit_letter(
        &self,
        reader: &str,
        key: &str,
        position: Position,
        payload: Bytes,
        act: &Act,
    ) -> Result<(), ActError> {
        (**self).edit_letter(reader, key, position, payload, act).await
    }
}

/// An event that a reader could not handle for one of its keys, or that waits behind such an event.
#[derive(Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// The reader.
    pub reader: Reader,
    /// The shard of the source from which the event came.
    pub shard: Shard,
    /// The parked key.
    pub key: String,
    /// The event as the source delivered it.
    pub event: RecordedEvent,
    /// The payload that an operator has put in place of the recorded one.
    pub edited: Option<Bytes>,
    /// Why it could not be handled, with all causes and without values of payloads; `None`: it waits behind an earlier letter of
    /// its key.
    pub cause: Option<String>,
    /// How often it was tried; 0 if it only waits.
    pub attempts: u32,
    /// When it was parked, by the store's clock.
    pub parked_at: DateTime<Utc>,
    /// Grows with each change of the letter.
    pub revision: i64,
}

impl DeadLetter {
    /// Its name.
    pub fn id(&self) -> LetterId {
        LetterId { reader: self.reader.id, key: self.key.clone(), position: self.event.position }
    }

    /// The event that a retry handles: with the edited payload, if there is one.
    pub fn to_handle(&self) -> RecordedEvent {
        let mut event = self.event.clone();
        if let Some(edited) = &self.edited {
            event.data.payload = edited.clone();
        }
        event
    }
}

impl fmt::Debug for DeadLetter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // An edited payload may hold personal data, like the recorded one.
        let Self { reader, shard, key, event, edited, cause, attempts, parked_at, revision } = self;
        f.debug_struct("DeadLetter")
            .field("reader", reader)
            .field("shard", shard)
            .field("key", key)
            .field("event", event)
            .field("edited", &edited.as_ref().map(Bytes::len))
            .field("cause", cause)
            .field("attempts", attempts)
            .field("parked_at", parked_at)
            .field("revision", revision)
            .finish()
    }
}

/// The name of a dead letter, and the place between one page and the next.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LetterId {
    /// [`Reader::id`].
    pub reader: i64,
    /// The parked key.
    pub key: String,
    /// The position of the event.
    pub position: Position,
}

/// Which dead letters to read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LetterPage {
    /// Only those under this key.
    pub key: Option<String>,
    /// Only those after this one: the last of the page before.
    pub after: Option<LetterId>,
    /// At most so many.
    pub limit: usize,
}

impl LetterPage {
    /// The first `limit` letters.
    pub const fn first(limit: usize) -> Self {
        Self { key: None, after: None, limit }
    }

    /// Only those under `key`.
    pub fn of_key(self, key: impl Into<String>) -> Self {
        Self { key: Some(key.into()), ..self }
    }

    /// Only those after `letter`.
    pub fn after(self, letter: LetterId) -> Self {
        Self { after: Some(letter), ..self }
    }
}

/// A key whose later events go to the dead letters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParkedKey {
    /// [`Reader::id`].
    pub reader: i64,
    /// The shard from which its events come.
    pub shard: Shard,
    /// The key.
    pub key: String,
    /// How many letters it has. It may have none: then the reader is about to continue with it.
    pub letters: u64,
    /// Whether a retry was requested and is not done yet.
    pub is_retry_requested: bool,
}

/// A letter that a commit adds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewLetter {
    /// The key, which is parked from then on.
    pub key: String,
    /// The event as the source delivered it.
    pub event: RecordedEvent,
    /// As [`DeadLetter::cause`].
    pub cause: Option<String>,
    /// As [`DeadLetter::attempts`].
    pub attempts: u32,
}

/// What a commit does to the letters of one key whose retry was requested. It is written only if each of these letters still has
/// the revision that the worker read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Redemption {
    /// The key.
    pub key: String,
    /// The letters that were handled, and are deleted: position and revision.
    pub handled: Vec<(Position, i64)>,
    /// The letter after them that failed again. It stays, and the retry is over.
    pub failed: Option<FailedLetter>,
    /// Whether there were no further letters: then the key is no longer parked.
    pub is_whole: bool,
}

/// A letter that failed again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FailedLetter {
    /// Its position.
    pub position: Position,
    /// The revision that was tried.
    pub revision: i64,
    /// As [`DeadLetter::cause`].
    pub cause: String,
}

/// Refuses a payload that no event can have.
///
/// # Errors
/// [`ActError::NotJson`].
pub fn check_payload(payload: &[u8]) -> Result<(), ActError> {
    codec::decode::<IgnoredAny>(payload).map(drop).map_err(ActError::NotJson)
}
