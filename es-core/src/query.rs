//! Answers from read models, and waiting until they know of a write.

use std::{fmt, marker::PhantomData, str::FromStr, sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::{
    codec::{self, Misfit},
    projection::Projection,
    read_model::{KeyRange, ReadModelError, ReadModelStore},
    stream::Position,
};

/// What a write hands out, and what a read can wait for (R13).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token(pub Position);

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "p{}", self.0)
    }
}

impl FromStr for Token {
    type Err = InvalidToken;

    fn from_str(text: &str) -> Result<Self, InvalidToken> {
        let number = text.strip_prefix('p').filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()));
        number.and_then(|digits| digits.parse().ok()).map(|position| Self(Position::new(position))).ok_or(InvalidToken)
    }
}

impl Serialize for Token {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Token {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// A text that no write has handed out as a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a token of this service")]
pub struct InvalidToken;

/// The documents of one projection, for queries.
#[derive(Debug)]
pub struct ReadModel<P> {
    store: Arc<dyn ReadModelStore>,
    projection: PhantomData<fn() -> P>,
}

impl<P> Clone for ReadModel<P> {
    fn clone(&self) -> Self {
        Self { store: self.store.clone(), projection: PhantomData }
    }
}

impl<P: Projection> ReadModel<P> {
    /// The read model of `P` in `store`.
    pub fn new(store: Arc<dyn ReadModelStore>) -> Self {
        Self { store, projection: PhantomData }
    }

    /// The document under `key`.
    ///
    /// # Errors
    /// [`QueryError`].
    pub async fn get(&self, key: &str) -> Result<Option<P::Document>, QueryError> {
        let stored = self.store.get(P::NAME, key).await?;
        stored.map(|bytes| open::<P>(key, &bytes)).transpose()
    }

    /// Up to `limit` documents whose keys lie in `range`, in byte order of the keys. Pass the last
    /// key as [`KeyRange::after`] to go on.
    ///
    /// # Errors
    /// [`QueryError`].
    pub async fn scan(&self, range: KeyRange, limit: usize) -> Result<Vec<(String, P::Document)>, QueryError> {
        let stored = self.store.scan(P::NAME, range, limit).await?;
        stored.into_iter().map(|(key, bytes)| open::<P>(&key, &bytes).map(|document| (key, document))).collect()
    }

    /// How far it is: everything up to this position is in it.
    ///
    /// # Errors
    /// [`QueryError`].
    pub async fn reached(&self) -> Result<Position, QueryError> {
        match self.store.serving(P::NAME).await? {
            Some(generation) => Ok(self.store.reached(&generation).await?),
            None => Ok(Position::ZERO),
        }
    }

    /// Returns when the write that handed out `token` is in the read model (R13).
    ///
    /// # Errors
    /// [`QueryError::Lagging`] when that takes longer than `patience`.
    pub async fn wait_for(&self, token: Token, patience: Duration) -> Result<(), QueryError> {
        let deadline = Instant::now() + patience;
        let mut pause = Duration::from_millis(1);
        loop {
            let reached = self.reached().await?;
            if reached >= token.0 {
                return Ok(());
            }
            if Instant::now() >= deadline {
                return Err(QueryError::Lagging { reached, wanted: token.0 });
            }
            tokio::time::sleep_until(deadline.min(Instant::now() + pause)).await;
            pause = (pause * 2).min(Duration::from_millis(50));
        }
    }
}

fn open<P: Projection>(key: &str, bytes: &[u8]) -> Result<P::Document, QueryError> {
    codec::decode(bytes).map_err(|reason| QueryError::Document { projection: P::NAME, key: key.to_owned(), reason })
}

/// Why a query has no answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum QueryError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] ReadModelError),
    /// A stored document does not have the form that the code expects: was
    /// [`Projection::VERSION`] increased when it changed?
    #[error("the document {key:?} of {projection} does not fit")]
    Document {
        /// Of which projection.
        projection: &'static str,
        /// Under which key.
        key: String,
        /// In what way.
        #[source]
        reason: Misfit,
    },
    /// The read model has not come far enough in the time given.
    #[error("the read model has reached position {reached}, the write is at {wanted}")]
    Lagging {
        /// How far it is.
        reached: Position,
        /// How far the reader wants it to be.
        wanted: Position,
    },
}
