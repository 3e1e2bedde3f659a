//! Queries of read models, and waiting until a read model holds a write.

use std::{marker::PhantomData, sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::time::Instant;

use crate::{
    backoff::Backoff,
    codec::{self, Misfit},
    read::{
        cursor::Cursor,
        definition,
        projection::Projection,
        read_model::{Documents, Generation, KeyRange, ReadModelError, Served},
    },
    stream::{Position, ReadToken},
};

/// The documents of one projection, for queries.
///
/// Queries are answered by the generation that serves at that moment, if its version is one that
/// this program [reads](Projection::READS_SINCE).
///
/// # Panics
/// Its futures panic outside of a tokio runtime with time enabled.
#[derive(Debug)]
pub struct ReadModel<P> {
    store: Arc<dyn Documents>,
    patience: Duration,
    projection: PhantomData<fn() -> P>,
}

impl<P> Clone for ReadModel<P> {
    fn clone(&self) -> Self {
        Self { store: self.store.clone(), patience: self.patience, projection: PhantomData }
    }
}

impl<P: Projection> ReadModel<P> {
    /// The read model of `P` in `store`.
    pub fn new(store: impl Documents) -> Self {
        const { assert!(definition::is_name(P::NAME), "Projection::NAME must be 1 to 64 bytes of a-z, 0-9 and '-'") }
        Self { store: Arc::new(store), patience: Duration::ZERO, projection: PhantomData }
    }

    /// How long queries wait for a generation that this program can read (not at all, unless set
    /// otherwise).
    pub fn patience(self, patience: Duration) -> Self {
        Self { patience, ..self }
    }

    /// The document under `key`.
    ///
    /// # Errors
    /// [`QueryError::Building`] and [`QueryError::OtherVersion`] where no generation serves that this
    /// program can read, after [`patience`](Self::patience).
    pub async fn get(&self, key: &str) -> Result<Option<P::Document>, QueryError> {
        let mut wait = Wait::new(self.patience);
        loop {
            let served = self.store.get(P::NAME, key).await?;
            match self.readable(served).await {
                Ok(served) => return served.found.map(|bytes| open::<P>(key, &bytes)).transpose(),
                Err(error) => wait.before_next(error).await?,
            }
        }
    }

    /// Up to `limit` documents whose keys are in `range`, in byte order of the keys, and the cursor of the next page for
    /// [`KeyRange::resume`]. All documents of a page are from one moment, and all pages from one generation.
    ///
    /// # Errors
    /// [`QueryError::Replaced`] when the generation that served the page before was replaced: begin with the first page. Others
    /// as for [`get`](Self::get).
    pub async fn scan(&self, range: KeyRange, limit: usize) -> Result<Page<P::Document>, QueryError> {
        let mut wait = Wait::new(self.patience);
        loop {
            // One document more than `limit` shows whether there is a next page.
            let served = self.store.scan(P::NAME, range.clone(), limit.saturating_add(1)).await?;
            match self.readable(served).await {
                Ok(served) if range.generation.is_some_and(|wanted| wanted != served.generation.id) => {
                    return Err(QueryError::Replaced { projection: P::NAME });
                }
                Ok(served) => return page::<P>(served, limit),
                Err(error) => wait.before_next(error).await?,
            }
        }
    }

    /// The position that it has reached: every event up to it is folded. It never falls, also when generations are rebuilt and
    /// promoted.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub async fn reached(&self) -> Result<Position, QueryError> {
        let mut wait = Wait::new(self.patience);
        loop {
            match self.reached_now().await {
                Ok(reached) => return Ok(reached),
                Err(error) => wait.before_next(error).await?,
            }
        }
    }

    /// Returns when the write that returned `token` is in the read model (R13). With [`Duration::MAX`] it waits without a
    /// limit.
    ///
    /// # Errors
    /// After `patience`: [`QueryError::Lagging`], or the reason why no generation serves that this program can read.
    pub async fn wait_for(&self, token: ReadToken, patience: Duration) -> Result<(), QueryError> {
        let mut wait = Wait::new(patience);
        loop {
            let error = match self.reached_now().await {
                Ok(reached) if reached >= token.0 => return Ok(()),
                Ok(reached) => QueryError::Lagging { reached, wanted: token.0 },
                Err(error) => error,
            };
            wait.before_next(error).await?;
        }
    }

    async fn reached_now(&self) -> Result<Position, QueryError> {
        let found = self.store.generations(P::NAME).await?;
        let Some(serving) = found.serving else {
            return Err(building::<P>(found.building.map(|building| building.reached)));
        };
        check::<P>(&serving.generation)?;
        Ok(serving.reached)
    }

    /// What was served, if this program can read it.
    async fn readable<T>(&self, served: Option<Served<T>>) -> Result<Served<T>, QueryError> {
        let Some(served) = served else {
            let found = self.store.generations(P::NAME).await?;
            return Err(building::<P>(found.building.or(found.serving).map(|progress| progress.reached)));
        };
        check::<P>(&served.generation)?;
        Ok(served)
    }
}

/// Documents in byte order of their keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page<D> {
    /// Keys and documents.
    pub documents: Vec<(String, D)>,
    /// Where the next page begins; `None` after the last one.
    pub next: Option<Cursor>,
}

fn page<P: Projection>(served: Served<Vec<(String, Bytes)>>, limit: usize) -> Result<Page<P::Document>, QueryError> {
    let Served { generation, mut found } = served;
    let more = found.len() > limit;
    found.truncate(limit);
    let next = found.last().filter(|_| more).map(|(key, _)| Cursor { generation: generation.id, key: key.clone() });
    let documents = found.into_iter().map(|(key, bytes)| open::<P>(&key, &bytes).map(|document| (key, document)));
    Ok(Page { documents: documents.collect::<Result<_, _>>()?, next })
}

fn check<P: Projection>(serving: &Generation) -> Result<(), QueryError> {
    if (P::READS_SINCE..=P::VERSION).contains(&serving.version) {
        return Ok(());
    }
    Err(QueryError::OtherVersion { projection: P::NAME, serving: serving.version, ours: P::VERSION })
}

fn building<P: Projection>(reached: Option<Position>) -> QueryError {
    QueryError::Building { projection: P::NAME, reached: reached.unwrap_or_default() }
}

/// The pauses between the tries of a query that waits.
struct Wait {
    /// `None` means no deadline.
    deadline: Option<Instant>,
    tries: u32,
}

const PAUSES: Backoff = Backoff::new(Duration::from_millis(1), Duration::from_millis(50));

impl Wait {
    fn new(patience: Duration) -> Self {
        Self { deadline: Instant::now().checked_add(patience), tries: 0 }
    }

    /// Returns when it is time to try again; returns `error` when waiting does not help or the time is over.
    async fn before_next(&mut self, error: QueryError) -> Result<(), QueryError> {
        let passed = self.deadline.is_some_and(|deadline| Instant::now() >= deadline);
        if passed || !error.is_transient() || matches!(error, QueryError::Store(_)) {
            return Err(error);
        }
        self.tries = self.tries.saturating_add(1);
        let next = Instant::now() + PAUSES.longest(self.tries);
        tokio::time::sleep_until(self.deadline.map_or(next, |deadline| deadline.min(next))).await;
        Ok(())
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
    /// The read model is built for the first time and does not serve yet.
    #[error("the read model {projection} is being built and has reached position {reached}")]
    Building {
        /// Which one.
        projection: &'static str,
        /// The position that it has reached.
        reached: Position,
    },
    /// The generation that serves was folded by a version of the projection that this program does
    /// not read.
    #[error("version {serving} of the read model {projection} serves, this program reads version {ours}")]
    OtherVersion {
        /// Which one.
        projection: &'static str,
        /// The version that serves.
        serving: u32,
        /// [`Projection::VERSION`] of this program.
        ours: u32,
    },
    /// The generation that served the page before was replaced: begin with the first page.
    #[error("the read model {projection} was replaced since the page before")]
    Replaced {
        /// Which one.
        projection: &'static str,
    },
    /// A stored document does not have the form that the code expects: was
    /// [`Projection::VERSION`] increased when it changed?
    #[error("the document {key:?} of {projection} does not fit")]
    Document {
        /// Of which projection.
        projection: &'static str,
        /// Under which key.
        key: String,
        /// How it differs from that form.
        #[source]
        reason: Misfit,
    },
    /// The read model did not reach the position in time.
    #[error("the read model has reached position {reached}, the write is at {wanted}")]
    Lagging {
        /// The position that it has reached.
        reached: Position,
        /// The position that the reader waits for.
        wanted: Position,
    },
}

impl QueryError {
    /// Whether trying again later may help.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Store(error) => error.is_transient(),
            Self::Building { .. } | Self::OtherVersion { .. } | Self::Lagging { .. } => true,
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{read::scripted::Watched, testing::account::Histories};

    #[tokio::test]
    async fn a_read_does_not_wait_for_a_store_that_fails() {
        let store = Watched::default();
        let model = ReadModel::<Histories>::new(store.clone()).patience(Duration::MAX);
        store.breaks();
        assert!(matches!(model.get("a").await, Err(QueryError::Store(_))));
        assert!(matches!(model.reached().await, Err(QueryError::Store(_))));
        assert_eq!(store.asked(), 2);
    }

    #[tokio::test]
    async fn r13_a_read_that_waits_asks_less_and_less_often() {
        let store = Watched::default();
        let model = ReadModel::<Histories>::new(store.clone());
        let waited = model.wait_for(ReadToken(Position::new(1)), Duration::from_millis(120)).await;
        assert!(matches!(waited, Err(QueryError::Building { .. })));
        // After 1, 2, 4, 8, 16, 32 and 50 ms, and at the end.
        assert!((2..=10).contains(&store.asked()), "{}", store.asked());
    }
}
