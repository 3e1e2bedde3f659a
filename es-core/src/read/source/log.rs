//! The log as a source.

mod feed;

use std::sync::Arc;

use async_trait::async_trait;

use self::feed::LogFeed;
use super::{EventFeed, EventSource, SourceError, Subscription, pages::Pages};
use crate::{read::read_model::Shard, write::store::EventStore};

/// The log as a source: one shard in commit order, which suits every projection, or as many as the reader wants
/// ([`Projector::shards`](crate::Projector::shards)). Readers of one source, and of its clones, share the pages that they read at
/// about the same time: five read models that are rebuilt together read the log once.
#[derive(Debug, Clone)]
pub struct LogSource {
    pages: Arc<Pages>,
    batch: usize,
}

impl LogSource {
    /// The most events of one batch, unless set otherwise.
    pub const DEFAULT_BATCH: usize = 4_000;

    /// The log of `store`.
    pub fn new(store: impl EventStore) -> Self {
        Self { pages: Arc::new(Pages::of(Arc::new(store))), batch: Self::DEFAULT_BATCH }
    }

    /// Reads at most `events` at once, and fewer if they are large: a store bounds the bytes of a page (R17).
    pub fn batch(self, events: usize) -> Self {
        Self { batch: events.max(1), ..self }
    }

    /// The one shard of a log that is not split.
    pub fn shard() -> Shard {
        Shard::whole(Self::NAME)
    }

    const NAME: &'static str = "log";
}

#[async_trait]
impl EventSource for LogSource {
    async fn open(&self, subscription: &Subscription) -> Result<Box<dyn EventFeed>, SourceError> {
        if subscription.forwards {
            return Err(SourceError::CannotForward);
        }
        let shards = Shard::split(Self::NAME, subscription.split.shards);
        Ok(Box::new(LogFeed::new(Pages::join(&self.pages), self.batch, subscription, shards)))
    }
}
