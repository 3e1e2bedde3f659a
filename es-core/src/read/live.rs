//! Read models that are folded when they are read.

mod cache;
mod error;
mod events;
mod merged;
#[cfg(test)]
mod tests;

use std::{fmt, sync::Arc};

use async_trait::async_trait;

use self::{
    cache::{BYTES, Documents, Folded},
    merged::{Interrupted, Merged},
};
pub use self::{error::LiveError, events::KeyEvents};
use crate::{
    event::{EventSet, RecordedEvent},
    read::{
        definition,
        engine_error::{EngineError, Location},
        panics::{Panicked, caught},
        projection::Projection,
        projector::{encode, fold, keys},
        refold::{DocumentAsOf, Moment},
    },
    write::store::EventStore,
};

/// A projection whose documents can be folded when they are read, because the events of one document are found by an index.
///
/// The same projection may also be a stored read model.
///
/// ```
/// # use es_core::{testing::account::AccountEvent, FoldResult, Keys, Projection, Recorded};
/// use es_core::{KeyEvents, LiveProjection};
///
/// /// All deposits of a customer, whose events have the tag `customer:<id>`.
/// struct Deposits;
/// # impl Projection for Deposits {
/// #     const NAME: &'static str = "deposits";
/// #     type Event = AccountEvent;
/// #     type Document = u64;
/// #     fn keys(&self, _: &Recorded<AccountEvent>) -> Keys { Keys::none() }
/// #     fn fold(&self, _: &mut Option<u64>, _: &Recorded<AccountEvent>) -> FoldResult { Ok(()) }
/// # }
///
/// impl LiveProjection for Deposits {
///     fn events_of(&self, customer: &str) -> KeyEvents {
///         KeyEvents::tagged(format!("customer:{customer}"))
///     }
/// }
/// ```
pub trait LiveProjection: Projection {
    /// Where the events of the document under `key` are; it depends on the key alone. By default they are in the streams whose id is
    /// the key, one of each category that the projection listens to.
    ///
    /// They must hold every event for which [`keys`](Projection::keys) names the key. What they hold beside these is skipped. An
    /// event that they miss is missing in the document, and no read can notice that: let a test compare
    /// ([`testing::live_differences`](crate::testing::live_differences)).
    fn events_of(&self, key: &str) -> KeyEvents {
        KeyEvents::with_id(&Self::Event::categories(), key)
    }
}

/// The documents of one projection, folded when they are read. A document is always the fold of all its events that were written
/// before the read began: nothing has to be waited for, and no reader can be behind or stop.
///
/// The documents that were read last are cached in memory (64 MiB as JSON, unless set [otherwise](Self::cache_bytes)), so a read folds only
/// what was added since. The cache is never trusted: each read begins with the last event that the cached document holds, and
/// folds from the first event if it is not there. Nothing is stored, so a change of the projection needs no new
/// [`VERSION`](Projection::VERSION). A read keeps a page of events of each place where they are: up to 1,000, and 8 MiB of payloads.
///
/// Clones share the cache.
///
/// ```
/// # use es_core::testing::account::{Account, AccountCommand, Histories};
/// use es_core::{MemoryStore, Service};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let service = Service::builder("accounts", MemoryStore::new())
///     .aggregate::<Account>()
///     .live(Histories)
///     .start()
///     .await?;
///
/// service.repository::<Account>().execute("a", AccountCommand::Deposit(7)).await?;
/// assert_eq!(service.live::<Histories>().get("a").await?, Some(vec![1]));
/// # service.shutdown(std::time::Duration::from_secs(10)).await?;
/// # Ok(())
/// # }
/// ```
pub struct Live<P: LiveProjection> {
    projection: Arc<P>,
    log: Arc<dyn EventStore>,
    cache: Arc<Documents<P::Document>>,
}

impl<P: LiveProjection> Clone for Live<P> {
    fn clone(&self) -> Self {
        Self { projection: self.projection.clone(), log: self.log.clone(), cache: self.cache.clone() }
    }
}

impl<P: LiveProjection> Live<P> {
    /// The documents of `projection`, folded from `log`.
    pub fn new(projection: P, log: impl EventStore) -> Self {
        const { assert!(definition::is_name(P::NAME), "Projection::NAME must be 1 to 64 bytes of a-z, 0-9 and '-'") }
        Self { projection: Arc::new(projection), log: Arc::new(log), cache: Arc::new(Documents::new(BYTES)) }
    }

    /// How many bytes the cached documents may have, as JSON. With 0 each read folds all events of its document.
    pub fn cache_bytes(self, bytes: u64) -> Self {
        Self { cache: Arc::new(Documents::new(bytes)), ..self }
    }

    /// The document under `key`, with all events that were written before the call. The first read of a key folds all of its events;
    /// of several at the same time, one does that for all.
    ///
    /// # Errors
    /// [`LiveError::Fold`] names the event that cannot be read or folded; reads of other keys go on.
    ///
    /// # Cancel safety
    /// Dropping the future changes nothing.
    pub async fn get(&self, key: &str) -> Result<Option<P::Document>, LiveError> {
        let events = self.events_of(key)?;
        let known = match self.cache.get_or_place(key).await {
            Ok(known) => known,
            Err(place) => {
                let folded = self.fold_up_to(key, &events, Folded::default(), Moment::Now).await?;
                let document = folded.document.clone();
                place.fill(folded);
                return Ok(document);
            }
        };
        let folded = self.fold_up_to(key, &events, Folded::clone(&known), Moment::Now).await?;
        let document = folded.document.clone();
        if folded.ends != known.ends {
            // A read that began earlier may put an older document in its place, which costs the next one some events.
            self.cache.put(key, folded);
        }
        Ok(document)
    }

    /// The document under `key` as of `moment`. All of its events up to then are folded.
    ///
    /// # Errors
    /// As [`get`](Self::get); [`LiveError::NoVersions`] and [`LiveError::NoSuchVersion`] for a version.
    ///
    /// # Cancel safety
    /// Dropping the future changes nothing.
    pub async fn get_as_of(&self, key: &str, moment: Moment) -> Result<Option<P::Document>, LiveError> {
        Ok(self.folded_as_of(key, moment).await?.document)
    }

    async fn folded_as_of(&self, key: &str, moment: Moment) -> Result<Folded<P::Document>, LiveError> {
        let events = self.events_of(key)?;
        if matches!(moment, Moment::Version(_)) && !events.are_of_one_stream() {
            return Err(LiveError::NoVersions { projection: P::NAME });
        }
        let folded = self.fold_up_to(key, &events, Folded::default(), moment).await?;
        if let Moment::Version(wanted) = moment
            && folded.version() < wanted
        {
            return Err(LiveError::NoSuchVersion { key: key.to_owned(), wanted, found: folded.version() });
        }
        Ok(folded)
    }

    fn events_of(&self, key: &str) -> Result<KeyEvents, LiveError> {
        let events = self.projection.events_of(key);
        if events.are_indexed() { Ok(events) } else { Err(LiveError::NotIndexed { projection: P::NAME }) }
    }

    /// Folds what comes after `folded` and not after `moment`.
    async fn fold_up_to(
        &self,
        key: &str,
        events: &KeyEvents,
        mut folded: Folded<P::Document>,
        moment: Moment,
    ) -> Result<Folded<P::Document>, LiveError> {
        loop {
            let mut merged = Merged::open(&*self.log, events, &folded.ends).await?;
            loop {
                match merged.next().await {
                    Ok(Some(event)) if moment.holds(&event) => {
                        if self.fold(key, &mut folded.document, &event)? {
                            (folded.events, folded.position) = (folded.events + 1, event.position);
                        }
                    }
                    Ok(_) => {
                        folded.ends = merged.ends();
                        return Ok(folded);
                    }
                    Err(Interrupted::Read(error)) => return Err(error.into()),
                    Err(Interrupted::OtherHistory) => break,
                }
            }
            folded = Folded::default();
        }
    }

    /// Folds `event` into the document under `key`; `false` if it does not touch it.
    fn fold(&self, key: &str, document: &mut Option<P::Document>, event: &RecordedEvent) -> Result<bool, EngineError> {
        let folded = caught(|| match event.decode::<P::Event>()? {
            Some(event) if keys(&*self.projection, &event)?.iter().any(|found| found == key) => {
                fold(&*self.projection, key, document, &event).map(|()| true)
            }
            _ => Ok(false),
        });
        folded.unwrap_or_else(|Panicked| Err(EngineError::Panicked { event: Location::of(event) }))
    }

    /// The weight of all cached documents, in bytes.
    pub fn cached_bytes(&self) -> u64 {
        self.cache.bytes()
    }

    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn projection(&self) -> &P {
        &self.projection
    }
}

/// The live read model of any projection.
#[async_trait]
pub(crate) trait AnyLive: Send + Sync + 'static {
    async fn as_of(&self, key: &str, moment: Moment) -> Result<DocumentAsOf, LiveError>;
}

#[async_trait]
impl<P: LiveProjection> AnyLive for Live<P> {
    async fn as_of(&self, key: &str, moment: Moment) -> Result<DocumentAsOf, LiveError> {
        let Folded { document, events, position, .. } = self.folded_as_of(key, moment).await?;
        let document = document.map(|document| encode::<P>(key, &document)).transpose()?;
        Ok(DocumentAsOf { document, events, position, waits_at: None })
    }
}

impl<P: LiveProjection> fmt::Debug for Live<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Live").field("projection", &P::NAME).field("log", &self.log).finish_non_exhaustive()
    }
}
