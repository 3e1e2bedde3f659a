//! Queries of read models, and waiting until a read model holds a write.

use std::{marker::PhantomData, sync::Arc, time::Duration};

use bytes::Bytes;

use crate::{
    codec::{self, Misfit},
    read::{
        cursor::Cursor,
        definition,
        known_progress::Progresses,
        projection::Projection,
        read_model::{Documents, GenerationSet, KeyRange, Progress, ReadModelError, Served},
        reads::{Reads, Wait, failed},
        watch::{Alone, Since, TouchedKeys, Watch, WatchError},
    },
    stream::{Position, ReadToken},
    write::store::EventStore,
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
    pub(super) store: Arc<dyn Documents>,
    pub(super) touched: Option<Arc<TouchedKeys>>,
    patience: Duration,
    projection: PhantomData<fn() -> P>,
}

impl<P> Clone for ReadModel<P> {
    fn clone(&self) -> Self {
        let (store, touched) = (self.store.clone(), self.touched.clone());
        Self { store, touched, patience: self.patience, projection: PhantomData }
    }
}

impl<P: Projection> ReadModel<P> {
    /// The read model of `P` in `store`.
    pub fn new(store: impl Documents) -> Self {
        const { assert!(definition::is_name(P::NAME), "Projection::NAME must be 1 to 64 bytes of a-z, 0-9 and '-'") }
        Self { store: Arc::new(store), touched: None, patience: Duration::ZERO, projection: PhantomData }
    }

    /// How long queries wait for a generation that this program can read (not at all, unless set
    /// otherwise).
    pub fn patience(self, patience: Duration) -> Self {
        Self { patience, ..self }
    }

    /// It can be [watched](Self::watch): `projection` tells what the events of `log` touch. (A service has done that for the
    /// projections that are registered.) Clones share what they read of the log.
    pub fn watched_with(self, projection: P, log: impl EventStore) -> Self {
        self.touched(Some(Arc::new(TouchedKeys::new(Alone(projection), Arc::new(log)))))
    }

    pub(crate) fn touched(self, touched: Option<Arc<TouchedKeys>>) -> Self {
        Self { touched, ..self }
    }

    /// The document under `key` now or [since](Since) a write or an earlier watch, and then each change of it.
    ///
    /// Its changes are found in the log, by the keys that the projection gives to each event. The log is read once for all watches
    /// of a read model in this process, and only the document of a key that was touched is read.
    ///
    /// ```
    /// # use es_core::testing::account::{Account, AccountCommand, Ledger};
    /// use es_core::{MemoryStore, Service, Since};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let service = Service::builder("accounts", MemoryStore::new())
    /// #     .aggregate::<Account>().projection(Ledger::<1>::default()).start().await?;
    /// # service.settled(std::time::Duration::from_secs(5)).await?;
    /// let mut watch = service.read_model::<Ledger<1>>().watch("all", Since::Now)?;
    /// assert_eq!(watch.next().await?.document, None);
    ///
    /// service.repository::<Account>().execute("a", AccountCommand::Deposit(7)).await?;
    /// let change = watch.next().await?;
    /// assert!(change.document.is_some());
    ///
    /// // Later, perhaps in another process: what has changed since.
    /// let _later = service.read_model::<Ledger<1>>().watch("all", change.token)?;
    /// # service.shutdown(std::time::Duration::from_secs(10)).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`WatchError::Unregistered`] when the read model does not know its projection; those of reading come from
    /// [`Watch::next`]. Among these is [`QueryError::OtherVersion`] while a version serves that is older than
    /// [`Projection::KEYS_SINCE`].
    pub fn watch(&self, key: impl Into<String>, since: impl Into<Since>) -> Result<Watch<P>, WatchError> {
        Watch::key(self.clone(), key.into(), since.into())
    }

    /// As [`watch`](Self::watch), for all documents whose keys are in `range`. The current state comes in byte order of the keys.
    ///
    /// # Errors
    /// As [`watch`](Self::watch).
    pub fn watch_range(&self, range: KeyRange, since: impl Into<Since>) -> Result<Watch<P>, WatchError> {
        Watch::range(self.clone(), range, since.into())
    }

    /// The document under `key`.
    ///
    /// # Errors
    /// [`QueryError::Building`] and [`QueryError::OtherVersion`] where no generation serves that this
    /// program can read, after [`patience`](Self::patience).
    pub async fn get(&self, key: &str) -> Result<Option<P::Document>, QueryError> {
        let mut wait = self.reads().wait(self.patience);
        loop {
            let served = self.store.get(P::NAME, key).await?;
            match self.readable(served).await {
                Ok(served) => return served.found.map(|bytes| open::<P>(key, &bytes)).transpose(),
                Err(error) => wait.until_readable(error).await?,
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
        let mut wait = self.reads().wait(self.patience);
        loop {
            // One document more than `limit` shows whether there is a next page.
            let served = self.store.scan(P::NAME, range.clone(), limit.saturating_add(1)).await?;
            match self.readable(served).await {
                Ok(served) if range.generation.is_some_and(|wanted| wanted != served.generation.reader.id) => {
                    return Err(QueryError::Replaced { projection: P::NAME });
                }
                Ok(served) => return page::<P>(served, limit),
                Err(error) => wait.until_readable(error).await?,
            }
        }
    }

    /// The position that it has reached: every event up to it is folded. It never falls, also when generations are rebuilt and
    /// promoted.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub async fn reached(&self) -> Result<Position, QueryError> {
        self.reads().reached(self.patience).await
    }

    /// Returns when the write that returned `token` is in the read model (R13). With [`Duration::MAX`] it waits without a
    /// limit.
    ///
    /// # Errors
    /// After `patience`: [`QueryError::Lagging`], or the reason why no generation serves that this program can read.
    pub async fn wait_for(&self, token: ReadToken, patience: Duration) -> Result<(), QueryError> {
        self.reads().wait_for(token, patience).await
    }

    fn reads(&self) -> Reads<'_> {
        Reads { store: &self.store, projection: P::NAME, since: P::READS_SINCE, version: P::VERSION }
    }

    pub(super) fn store(&self) -> &dyn Documents {
        &*self.store
    }

    pub(super) fn wait(&self) -> Wait<'_> {
        self.reads().wait(self.patience)
    }

    /// Returns when a search that ended with `error` may find something, within its `wait`.
    pub(super) async fn wait_on(&self, wait: &mut Wait<'_>, error: QueryError) -> Result<(), QueryError> {
        let lacking =
            if let QueryError::NoField { field, serving, .. } = error { Some((field, serving)) } else { None };
        let wanted = |found: &GenerationSet| {
            self.reads().reached_in(found)?;
            let version = found.serving.as_ref().map(|serving| serving.generation.version);
            match lacking {
                Some((field, serving)) if version == Some(serving) => {
                    Err(QueryError::NoField { projection: P::NAME, field, serving, ours: P::VERSION })
                }
                _ => Ok(()),
            }
        };
        wait.until(error, wanted).await
    }

    /// What was found by `field`, if this program can read it and the generation has the field.
    pub(super) async fn found<T>(
        &self,
        served: Option<Served<Option<T>>>,
        field: &'static str,
    ) -> Result<Served<T>, QueryError> {
        let Served { generation, found } = self.readable(served).await?;
        let lacking = QueryError::NoField { projection: P::NAME, field, serving: generation.version, ours: P::VERSION };
        found.map(|found| Served { generation, found }).ok_or(lacking)
    }

    /// What was served, if this program can read it.
    async fn readable<T>(&self, served: Option<Served<T>>) -> Result<Served<T>, QueryError> {
        let Some(served) = served else {
            return Err(self.reads().building(&self.store.generations(P::NAME).await?));
        };
        self.reads().check(&served.generation)?;
        Ok(served)
    }
}

/// Documents in the order of the query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page<D, C = Cursor> {
    /// Keys and documents.
    pub documents: Vec<(String, D)>,
    /// Where the next page begins; `None` after the last one.
    pub next: Option<C>,
}

fn page<P: Projection>(served: Served<Vec<(String, Bytes)>>, limit: usize) -> Result<Page<P::Document>, QueryError> {
    let Served { generation, mut found } = served;
    let more = found.len() > limit;
    found.truncate(limit);
    let next =
        found.last().filter(|_| more).map(|(key, _)| Cursor { generation: generation.reader.id, key: key.clone() });
    let documents = found.into_iter().map(|(key, bytes)| open::<P>(&key, &bytes).map(|document| (key, document)));
    Ok(Page { documents: documents.collect::<Result<_, _>>()?, next })
}

/// The generation that serves, as soon as this program can read it and knows the keys of its documents.
pub(super) async fn serving<P: Projection>(
    model: &ReadModel<P>,
    progresses: &mut Progresses,
) -> Result<Progress, QueryError> {
    let reads = Reads { since: P::READS_SINCE.max(P::KEYS_SINCE), ..model.reads() };
    let mut wait = reads.wait(model.patience);
    loop {
        let found = progresses.next().await.map_err(|cause| failed(&cause))?;
        match (reads.reached_in(&found), &found.serving) {
            (Ok(_), Some(serving)) => return Ok(serving.clone()),
            (Ok(_), None) => {}
            (Err(error), _) => wait.until_readable(error).await?,
        }
    }
}

pub(super) fn open<P: Projection>(key: &str, bytes: &[u8]) -> Result<P::Document, QueryError> {
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
    /// The generation that serves was folded without this field, by an older version that this program
    /// [reads](Projection::READS_SINCE) (trying again later may help), or the projection does not declare it.
    #[error("version {serving} of the read model {projection} has no field {field:?} of this type")]
    NoField {
        /// Which one.
        projection: &'static str,
        /// The field's name.
        field: &'static str,
        /// The version that serves.
        serving: u32,
        /// [`Projection::VERSION`] of this program. If it serves, the projection does not declare the field.
        ours: u32,
    },
    /// The cursor is one of another field.
    #[error("the cursor is not one of the field {field:?} of {projection}")]
    OtherCursor {
        /// Of which projection.
        projection: &'static str,
        /// The field that was searched.
        field: &'static str,
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
    /// It holds what another system has written, and has no position in the log: no write can be waited for.
    #[error("{projection} follows a topic of another system, and has no position in the log")]
    NotOfLog {
        /// Which one.
        projection: &'static str,
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
            Self::NoField { serving, ours, .. } => serving != ours,
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::task::JoinSet;

    use tokio::time::Instant;

    use super::*;
    use crate::{
        read::{
            read_model::{GenerationState, Generations},
            scripted::Watched,
        },
        testing::account::Histories,
    };

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
        let waited = model.wait_for(ReadToken(Position::new(1)), Duration::from_millis(700)).await;
        assert!(matches!(waited, Err(QueryError::Building { .. })));
        // Every 2 ms for 200 ms, then at pauses that grow to 7 ms.
        assert!((10..=230).contains(&store.asked()), "{}", store.asked());
    }

    #[tokio::test]
    async fn r13_a_hundred_reads_that_wait_ask_the_store_as_often_as_one() {
        let store = Watched::default();
        let mut waiting = JoinSet::new();
        let begun = Instant::now();
        for _ in 0..100 {
            let model = ReadModel::<Histories>::new(store.clone());
            waiting.spawn(async move { model.wait_for(ReadToken(Position::new(1)), Duration::from_millis(500)).await });
        }
        for waited in waiting.join_all().await {
            assert!(matches!(waited, Err(QueryError::Building { .. })));
        }
        // At most once in 2 ms, however many wait.
        let most = usize::try_from(begun.elapsed().as_millis() / 2).expect("a short time") + 2;
        assert!((10..=most).contains(&store.asked()), "{} of {most}", store.asked());
    }

    #[tokio::test]
    async fn r13_what_is_committed_here_is_seen_at_once_after_a_long_wait() {
        let store = Watched::default();
        let serving =
            store.memory.ensure_generation(Histories::NAME, 1, GenerationState::Serving, "projection", &[]).await;
        let (model, reader) = (ReadModel::<Histories>::new(store.clone()), serving.expect("made").reader);
        let waiting =
            tokio::spawn(async move { model.wait_for(ReadToken(Position::ZERO.next()), Duration::MAX).await });
        // After that the pauses take more than 40 ms.
        tokio::time::sleep(Duration::from_secs(2)).await;
        let begun = Instant::now();
        for _ in 0..20 {
            let asked = store.asked();
            store.has(&reader, [("a", 4)]).await;
            while store.asked() == asked {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
        assert!(begun.elapsed() < Duration::from_millis(600), "{:?}", begun.elapsed());
        assert!(!waiting.is_finished());
        waiting.abort();
    }

    #[tokio::test]
    async fn waiting_ends_with_the_last_that_waits() {
        let store = Watched::default();
        let model = ReadModel::<Histories>::new(store.clone());
        let token = ReadToken(Position::new(1));
        for _ in 0..3 {
            assert!(model.wait_for(token, Duration::from_millis(1)).await.is_err());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
        let asked = store.asked();
        tokio::time::sleep(Duration::from_millis(150)).await;
        assert_eq!(store.asked(), asked);
    }
}
